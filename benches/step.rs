//! One step of the tutorial's network (2450 → 100 → 4), one slot and one window a call, through
//! the real network type, on every instruction set of the machine.
//!
//! Weights are the trained ones of the shared folder, else seeded ones that spike as much. Frames
//! are random, 512 in turn, so that rows come from the second-level cache as they do in use.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use dvs_stream::frame::{Frames, SlotFrames, Window};
use dvs_stream::nn::{LayerSpec, LayerWeights, Level, Network, PlannedStep, Trace};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const INPUTS: usize = 2450;
const HIDDEN: usize = 100;
const N_FRAMES: u32 = 512;

fn step(criterion: &mut Criterion) {
    for level in Level::available() {
        let network = Network::new(layers(), 1e-3).expect("a network").with_level(level);
        for active in [0, 20, 100, 500] {
            bench(criterion, &network, &format!("step/{}/{active}", level.name()), active, 1);
        }
        bench(criterion, &network, &format!("step16/{}/100", level.name()), 100, 16);
    }
}

/// `windows` a call; the time is that of a call.
fn bench(criterion: &mut Criterion, network: &Network, name: &str, active: usize, windows: u32) {
    let slots = [SlotFrames { slot: 0, frames: random_frames(active) }];
    let mut state = network.zero_state(1).expect("a state");
    let (mut out, mut first) = (Vec::new(), 0);
    let mut step = |trace: Option<&mut Trace>| {
        let planned = |window| PlannedStep { slot_index: 0, window, reset: false };
        let plan: [_; 16] = std::array::from_fn(|k| planned(first + k as u32 % windows));
        first = (first + windows) % N_FRAMES;
        out.clear();
        network.rollout(&mut state, &slots, &plan[..windows as usize], &mut out, trace)
    };
    let mut trace = network.trace();
    for _ in 0..N_FRAMES {
        step(Some(&mut trace)).expect("a step");
    }
    let spikes = trace.rows("hidden.z").expect("spikes");
    let per_window = spikes.iter().sum::<f32>() * HIDDEN as f32 / spikes.len() as f32;
    println!("{name}: {per_window:.1} spikes a window");
    criterion.bench_function(name, |bencher| bencher.iter(|| step(None)));
}

fn random_frames(active: usize) -> Frames {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut frames = Frames::default();
    for _ in 0..N_FRAMES {
        let mut taken = vec![0u16; INPUTS];
        for _ in 0..active {
            let free = std::iter::repeat_with(|| random.random_range(0..INPUTS))
                .find(|&address| taken[address] == 0);
            taken[free.expect("a free address")] = 1 + u16::from(random.random_ratio(1, 4));
        }
        for (address, &count) in taken.iter().enumerate().filter(|(_, count)| **count > 0) {
            frames.add(address as u32, count);
        }
        frames.close(Window::default());
    }
    frames
}

fn layers() -> Vec<LayerWeights> {
    let spec = |cell: &str, inputs, neurons, recurrent| LayerSpec {
        cell: cell.to_owned(),
        inputs,
        neurons,
        recurrent,
        parameters: BTreeMap::new(),
    };
    let [input, recurrent, readout] = trained().unwrap_or_else(|| {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        [INPUTS * HIDDEN, HIDDEN * HIDDEN, 4 * HIDDEN].map(|n| normal(&mut random, n))
    });
    let hidden =
        LayerWeights { spec: spec("lif", INPUTS, HIDDEN, true), input, recurrent: Some(recurrent) };
    vec![
        hidden,
        LayerWeights { spec: spec("li", HIDDEN, 4, false), input: readout, recurrent: None },
    ]
}

/// The trained weights of the shared folder, where it is there.
fn trained() -> Option<[Vec<f32>; 3]> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared");
    let folder = std::env::var("DVS_SHARED").unwrap_or_else(|_| beside.to_owned());
    let path = Path::new(&folder).join("golden/poker_norse_weights.safetensors");
    let tensors = candle_core::safetensors::load(path, &candle_core::Device::Cpu).ok()?;
    let values = |name: &str| tensors.get(name)?.flatten_all().ok()?.to_vec1().ok();
    Some([values("l1.input_weights")?, values("l1.recurrent_weights")?, values("fc_out.weight")?])
}

/// Sums of twelve uniform numbers, near enough to normal, with the tutorial's deviation.
fn normal(random: &mut impl Rng, n: usize) -> Vec<f32> {
    let mut draw = || (0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0;
    (0..n).map(|_| draw() * (2.0 / HIDDEN as f32).sqrt()).collect()
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500));
    targets = step
}
criterion_main!(benches);
