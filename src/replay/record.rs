//! The file of `--record`: every neuron's variables after every window, as `.npz` or `.safetensors`.

use std::collections::HashMap;
use std::io::{self, Cursor};
use std::path::Path;

use npyz::{AutoSerialize, WriteOptions, WriterBuilder, npz};
use safetensors::tensor::{Dtype, TensorView};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::error::{Error, Result};
use crate::nn::Trace;
use crate::store::replace;

/// Name of the array of the windows' times.
const TIMES: &str = "t_us";

/// Whether a file of this name can be written.
pub fn is_known(path: &Path) -> bool {
    matches!(extension(path), Some("npz" | "safetensors"))
}

/// Writes the variables, \[T, neurons\] each, and the windows' ends `t_us`, \[T\], in the form that the
/// file's extension names.
///
/// # Errors
/// When the extension is neither `npz` nor `safetensors`, or the file cannot be written.
pub fn write(path: &Path, trace: &Trace, times_us: &[u64]) -> Result<()> {
    let bytes = match extension(path) {
        Some("npz") => as_npz(trace, times_us),
        Some("safetensors") => as_safetensors(trace, times_us),
        _ => {
            let what = format!("{}: arrays are written as .npz or .safetensors", path.display());
            return Err(Error::Usage(what));
        }
    };
    let failed = |source| Error::Io { what: format!("cannot write {}", path.display()), source };
    replace(path, &bytes.map_err(failed)?)
}

fn extension(path: &Path) -> Option<&str> {
    path.extension().and_then(|extension| extension.to_str())
}

/// As `np.savez` does, uncompressed, but without the time of writing: equal runs are equal bytes.
fn as_npz(trace: &Trace, times_us: &[u64]) -> io::Result<Vec<u8>> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let n = times_us.len() as u64;
    for variable in trace.variables() {
        put(&mut archive, &variable.name, &[n, variable.width as u64], &variable.rows)?;
    }
    put(&mut archive, TIMES, &[n], times_us)?;
    Ok(archive.finish()?.into_inner())
}

fn put<T: AutoSerialize>(
    archive: &mut ZipWriter<Cursor<Vec<u8>>>,
    name: &str,
    shape: &[u64],
    values: &[T],
) -> io::Result<()> {
    let is_large = u32::try_from(size_of_val(values) + 4096).is_err();
    let options = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .large_file(is_large);
    archive.start_file(npz::file_name_from_array_name(name), options)?;
    let options = WriteOptions::new().default_dtype().shape(shape);
    let mut writer = options.writer(archive).begin_nd()?;
    writer.extend(values)?;
    writer.finish()
}

fn as_safetensors(trace: &Trace, times_us: &[u64]) -> io::Result<Vec<u8>> {
    let n = times_us.len();
    let bytes = |rows: &[f32]| rows.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut arrays: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for variable in trace.variables() {
        let shape = vec![n, variable.width];
        arrays.push((&variable.name, Dtype::F32, shape, bytes(&variable.rows)));
    }
    let times = times_us.iter().flat_map(|t_us| t_us.to_le_bytes()).collect();
    arrays.push((TIMES, Dtype::U64, vec![n], times));
    let views = arrays.iter().map(|(name, dtype, shape, bytes)| {
        TensorView::new(*dtype, shape.clone(), bytes).map(|view| (*name, view))
    });
    let views =
        views.collect::<std::result::Result<HashMap<_, _>, _>>().map_err(io::Error::other)?;
    safetensors::serialize(views, None).map_err(io::Error::other)
}
