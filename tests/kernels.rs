//! The GPU's kernels: their PTX is that of their source, and recordings and plans of many launches read
//! as they do by the CPU's own walk.

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

/// Plans that go in several launches, whose blocks walk from stream to stream, and which several threads
/// write: more than other tests bring, and on a GPU what its parts are made for.
#[cfg(any(feature = "kernel-host", feature = "cuda"))]
mod many_streams {
    use dvs_stream::frame::{Frames, SlotFrames, Window};
    use dvs_stream::model::Model;
    use dvs_stream::nn::{Network, PlannedStep};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use crate::steppers::steppers;

    const ACTIVE: u32 = 100;

    #[test]
    fn step_as_by_the_walk() {
        let model = Model::from_bytes(&std::fs::read("models/poker.safetensors").unwrap()).unwrap();
        // as many as it takes for a plan's writing to be shared out
        let threads = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        for (name, network) in steppers(&model.network, 99 << 10, 3) {
            let n_slots = if name == "GPU" { 6000 } else { 250 };
            // the last finds room that was made before
            let calls = [1, 3, 1].map(|n_windows| brought(&network, n_slots, n_windows));
            let expected = run(&model.network, n_slots, &calls);
            let told = threads.install(|| run(&network, n_slots, &calls));
            assert!(told == expected, "{name}: other outputs or states");
        }
    }

    type Call = (Vec<SlotFrames>, Vec<PlannedStep>);

    /// Windows of all slots, and a plan that takes the first of each slot, then the second. In the last
    /// window every third slot begins anew.
    fn brought(network: &Network, n_slots: usize, n_windows: u32) -> Call {
        let mut random = ChaCha8Rng::seed_from_u64(u64::from(n_windows));
        let apart = network.inputs() as u32 / ACTIVE;
        let mut frames = |slot| {
            let mut frames = Frames::default();
            for _ in 0..n_windows {
                for k in 0..ACTIVE {
                    let address = k * apart + random.random_range(0..apart);
                    frames.add(address, random.random_range(1..4));
                }
                frames.close(Window::default());
            }
            SlotFrames { slot, frames }
        };
        let slots = (0..n_slots).map(&mut frames).collect();
        let steps = (0..n_windows).flat_map(|window| {
            (0..n_slots as u32).map(move |slot_index| PlannedStep {
                slot_index,
                window,
                reset: window + 1 == n_windows && slot_index % 3 == 0,
            })
        });
        (slots, steps.collect())
    }

    /// Bits of all outputs, and of every slot's state in the end.
    fn run(network: &Network, n_slots: usize, calls: &[Call]) -> (Vec<u32>, Vec<u32>) {
        let (mut state, mut out) = (network.zero_state(n_slots).unwrap(), Vec::new());
        for (slots, plan) in calls {
            network.rollout(&mut state, slots, plan, &mut out, None).unwrap();
        }
        let rows = (0..n_slots).flat_map(|slot| state.row(slot).unwrap());
        (out.iter().map(|v| v.to_bits()).collect(), rows.map(f32::to_bits).collect())
    }
}
