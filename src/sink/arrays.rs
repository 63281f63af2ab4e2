//! Arrays for plotting: what `--record` keeps, as `.npz` or `.safetensors`.
//!
//! Knows named arrays only; not where they come from.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;

use npyz::WriterBuilder;
use npyz::npz::NpzWriter;
use safetensors::tensor::{Dtype, TensorView};

use crate::error::{Error, Result};
use crate::store::replace;

/// A named array, row-major.
pub struct Array {
    /// Its name in the file.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Values,
}

/// Values of an [`Array`].
pub enum Values {
    /// Voltages, currents, spikes.
    F32(Vec<f32>),
    /// Times.
    U64(Vec<u64>),
}

/// Whether a file of this name can be written.
pub fn is_known(path: &Path) -> bool {
    matches!(path.extension().and_then(|e| e.to_str()), Some("npz" | "safetensors"))
}

/// Writes arrays in the form that the file's extension names.
///
/// # Errors
/// When the extension is neither `npz` nor `safetensors`, or the file cannot be written.
pub fn write(path: &Path, arrays: &[Array]) -> Result<()> {
    let failed = |source: std::io::Error| Error::Io {
        what: format!("cannot write {}", path.display()),
        source,
    };
    let bytes = match path.extension().and_then(|extension| extension.to_str()) {
        Some("npz") => as_npz(arrays).map_err(failed)?,
        Some("safetensors") => as_safetensors(arrays).map_err(failed)?,
        _ => {
            return Err(Error::Usage(format!(
                "{}: arrays are written as .npz or .safetensors",
                path.display()
            )));
        }
    };
    replace(path, &bytes)
}

fn as_npz(arrays: &[Array]) -> std::io::Result<Vec<u8>> {
    let mut npz = NpzWriter::new(Cursor::new(Vec::new()));
    for Array { name, shape, values } in arrays {
        let shape: Vec<u64> = shape.iter().map(|n| *n as u64).collect();
        match values {
            Values::F32(values) => {
                let array = npz.array(name, Default::default())?;
                let mut writer = array.default_dtype().shape(&shape).begin_nd()?;
                writer.extend(values)?;
                writer.finish()?;
            }
            Values::U64(values) => {
                let array = npz.array(name, Default::default())?;
                let mut writer = array.default_dtype().shape(&shape).begin_nd()?;
                writer.extend(values)?;
                writer.finish()?;
            }
        }
    }
    Ok(npz.zip_writer().finish()?.into_inner())
}

fn as_safetensors(arrays: &[Array]) -> std::io::Result<Vec<u8>> {
    let bytes: Vec<(Dtype, Vec<u8>)> = arrays
        .iter()
        .map(|array| match &array.values {
            Values::F32(values) => {
                (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
            Values::U64(values) => {
                (Dtype::U64, values.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
        })
        .collect();
    let other = |error: safetensors::SafeTensorError| std::io::Error::other(error);
    let views = arrays.iter().zip(&bytes).map(|(array, (dtype, bytes))| {
        let view = TensorView::new(*dtype, array.shape.clone(), bytes);
        view.map(|view| (array.name.as_str(), view))
    });
    let views = views.collect::<std::result::Result<HashMap<_, _>, _>>().map_err(other)?;
    safetensors::serialize(views, None).map_err(other)
}
