//! The GPU's kernels: their PTX is that of their source, and recordings read as they do by the CPU's
//! own walk.

mod skip;
#[cfg(any(feature = "kernel-host", feature = "cuda"))]
mod steppers;

use std::path::Path;
use std::process::Command;

use skip::skip;

/// The compiler whose output stands in the repository.
const NVCC: &str = "V13.0.88";

#[test]
fn the_ptx_is_that_of_the_source() {
    let home = std::env::var("CUDA_HOME").unwrap_or_else(|_| "target/cuda-13.0".to_owned());
    let nvcc = Path::new(&home).join("bin/nvcc");
    let version = Command::new(nvcc).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    if !version.is_ok_and(|version| version.contains(NVCC)) {
        return skip(&format!("no nvcc {NVCC}: tests/cuda/setup.sh installs it"));
    }
    let check = Command::new("tests/cuda/ptx.sh").arg("--check").env("CUDA_HOME", &home).output();
    let check = check.unwrap();
    let told = [check.stdout, check.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(check.status.success(), "run tests/cuda/ptx.sh: {told}");
}

#[cfg(any(feature = "kernel-host", feature = "cuda"))]
mod recordings {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use dvs_stream::frame::SlotFrames;
    use dvs_stream::ingest::Reading;
    use dvs_stream::model::Model;
    use dvs_stream::nn::Network;
    use dvs_stream::prediction::Records;
    use dvs_stream::recording;
    use dvs_stream::session::{Rules, Session, windows_of};

    use super::skip;
    use crate::steppers::steppers;

    #[test]
    fn read_as_by_the_walk() {
        let model = Model::from_bytes(&std::fs::read("models/poker.safetensors").unwrap()).unwrap();
        let mut paths = vec![PathBuf::from("fixtures/deck.aedat4")];
        let folder = std::env::var("DVS_SHARED").unwrap_or_else(|_| "../shared".to_owned());
        let cards = Path::new(&folder).join("data/poker-dvs");
        match cards.is_dir() {
            true => paths.extend(files_below(&cards).into_iter().step_by(3)),
            false => skip(&format!("{} is absent: only the deck is read", cards.display())),
        }
        let expected = read(&model, model.network.clone(), &paths);
        assert!(expected.len() > 150, "only {} records", expected.len());
        for (name, network) in steppers(&model.network, 99 << 10, 3) {
            assert_eq!(read(&model, Arc::new(network), &paths), expected, "{name}");
        }
    }

    /// All recordings in one batch: every record, and the bits of its logits.
    fn read(model: &Model, network: Arc<Network>, paths: &[PathBuf]) -> Vec<(String, Vec<u32>)> {
        let brought = paths.iter().enumerate().map(|(slot, path)| {
            let reading = Reading { view: model.card.view, ..Reading::default() };
            SlotFrames { slot, frames: recording::frames(path, reading, windows_of(model)).0 }
        });
        let brought: Vec<_> = brought.collect();
        let (mut session, mut records) =
            (Session::new(network, Rules::of(model), paths.len()).unwrap(), Records::default());
        session.step(&brought, &mut records).unwrap();
        let records = records.iter(model.network.outputs());
        let told = records.map(|(slot, record, logits)| {
            (format!("{slot} {record:?}"), logits.iter().map(|logit| logit.to_bits()).collect())
        });
        told.collect()
    }

    fn files_below(folder: &Path) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                paths.extend(files_below(&path));
            } else if path.extension().is_some_and(|extension| extension == "aedat") {
                paths.push(path);
            }
        }
        paths.sort();
        paths
    }
}
