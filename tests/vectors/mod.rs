//! Golden vectors: named tensors of a safetensors file, from `fixtures/golden` or the shared
//! folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::{DType, Device};

/// Tensors by name: shape and values, as floats.
pub type Vectors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Vectors that stand in the project.
pub fn fixture(name: &str) -> Vectors {
    let root = env!("CARGO_MANIFEST_DIR");
    load(format!("{root}/fixtures/golden/{name}.safetensors").into())
}

/// Vectors of the shared folder, or a word that their test is skipped.
pub fn shared(name: &str) -> Option<Vectors> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared");
    let folder = std::env::var("DVS_SHARED").unwrap_or_else(|_| beside.to_owned());
    let path = PathBuf::from(folder).join(format!("golden/{name}.safetensors"));
    if !path.exists() {
        crate::skip::skip(&format!("{} is absent", path.display()));
        return None;
    }
    Some(load(path))
}

fn load(path: PathBuf) -> Vectors {
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let floats = tensors.into_iter().map(|(name, tensor)| {
        let values = tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
        (name, (tensor.dims().to_vec(), values.to_vec1().unwrap()))
    });
    floats.collect()
}
