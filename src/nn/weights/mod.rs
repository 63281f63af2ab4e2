//! Weights from files of other frameworks: `.safetensors` and PyTorch's `.pt`, as named floats.
//!
//! Knows containers and number formats; knows no layer and nothing of what the names mean. The
//! kind of a file is told by its first bytes, never by its name.

mod pickle;
mod pytorch;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::layer::MAX_WEIGHTS;
use crate::error::{Error, Result};

/// Greatest file that weights are read from.
pub const MAX_FILE_BYTES: u64 = 1 << 30;
/// Most tensors of a file.
pub const MAX_TENSORS: usize = 1024;

/// A tensor of a file, as float32 whatever the file's floats are.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedWeights {
    /// Its name in the file; parts of nested dictionaries are joined by dots.
    pub name: String,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

/// Reads all floating-point tensors of a file, sorted by name.
///
/// # Errors
/// [`Error::Io`] names the file; so does [`Error::Model`], which says what its bytes are instead.
pub fn load(path: &Path) -> Result<Vec<NamedWeights>> {
    let io = |source| Error::Io { what: format!("cannot read {}", path.display()), source };
    let refused = |what| Error::Model(format!("{}: {what}", path.display()));
    let file = File::open(path).map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(refused("not a file; weights are read from a file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(refused(format!("more than the possible {MAX_FILE_BYTES} bytes")));
    }
    read(&bytes).map_err(|error| refused(error.to_string()))
}

/// As [`load`], from a file's bytes.
pub fn read(bytes: &[u8]) -> Result<Vec<NamedWeights>> {
    check_is_no_pointer(bytes)?;
    let mut weights = match bytes {
        [] => return Err(Error::Model("the file is empty".to_owned())),
        // First, for the length before the brace may begin as a pickle does.
        [_, _, _, _, _, _, _, _, b'{', ..] => read_safetensors(bytes)?,
        [b'P', b'K', 3 | 5, 4 | 6, ..] => pytorch::read(bytes)?,
        [0x80, 2..=5, ..] => return Err(Error::Model(pickle_without_archive())),
        _ => {
            return Err(Error::Model(
                "neither a safetensors file nor one that torch.save wrote".to_owned(),
            ));
        }
    };
    weights.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(weights)
}

/// Whether these are a file's own bytes and not where Git LFS keeps them.
///
/// # Errors
/// [`Error::Model`] says what to do.
pub fn check_is_no_pointer(bytes: &[u8]) -> Result<()> {
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(Error::Model(
            "this is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"
                .to_owned(),
        ));
    }
    Ok(())
}

fn pickle_without_archive() -> String {
    format!(
        "a bare pickle, as PyTorch before 1.6 or pickle.dump writes. {}",
        pytorch::how_to_save("model")
    )
}

fn read_safetensors(bytes: &[u8]) -> Result<Vec<NamedWeights>> {
    let broken = |error| Error::Model(format!("a broken safetensors file: {error}"));
    let tensors = safetensors::SafeTensors::deserialize(bytes).map_err(broken)?;
    let floats = tensors.iter().filter_map(|(name, view)| {
        let dtype = match view.dtype() {
            safetensors::Dtype::F64 => DType::F64,
            safetensors::Dtype::F32 => DType::F32,
            safetensors::Dtype::F16 => DType::F16,
            safetensors::Dtype::BF16 => DType::BF16,
            _ => return None,
        };
        Some(floats(view.data(), dtype).map(|values| NamedWeights {
            name: name.to_owned(),
            shape: view.shape().to_vec(),
            values,
        }))
    });
    floats.collect()
}

/// Little-endian numbers as float32.
fn floats(bytes: &[u8], dtype: DType) -> Result<Vec<f32>> {
    let n = bytes.len() / dtype.size_in_bytes();
    if n > MAX_WEIGHTS {
        return Err(Error::Model(format!(
            "a tensor of {n} values exceeds the limit of {MAX_WEIGHTS}"
        )));
    }
    Tensor::from_raw_buffer(&bytes[..n * dtype.size_in_bytes()], dtype, &[n], &Device::Cpu)
        .and_then(|tensor| tensor.to_dtype(DType::F32)?.to_vec1())
        .map_err(super::state::failed("read weights"))
}
