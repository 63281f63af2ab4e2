//! One epoch of the tutorial's training over 48 recordings, batch 32, on one thread and on two, in
//! wall time: forward, back through time, weight gradients, Adam.
//!
//! Recordings are POKER-DVS where the shared folder stands, the first 12 of each class; else
//! synthetic ones.

mod pips;

use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use dvs_stream::dataset::{self, Loading, Sample};
use dvs_stream::nn::Device;
use dvs_stream::synth::SENSOR;
use dvs_stream::train::prepare::Preparation;
use dvs_stream::train::recipe::Recipe;
use dvs_stream::train::trainer::Trainer;
use dvs_stream::window::Partial;
use pips::{synthetic, window};

const PER_CLASS: usize = 12;

fn samples() -> Vec<Sample> {
    let folder = Path::new("../shared/data/poker-dvs");
    if !folder.is_dir() {
        println!("SKIPPED POKER-DVS: {} is absent; synthetic recordings instead", folder.display());
        return synthetic(PER_CLASS);
    }
    let loading = Loading {
        sensor: Some(SENSOR),
        window_us: 1000,
        gap_us: None,
        partial: Partial::Drop,
        view: Default::default(),
        decoder: Default::default(),
        format: None,
        labels: None,
        strict: true,
        keep_events: false,
        threads: 1,
    };
    let all = dataset::load(folder, &loading).expect("recordings").samples;
    let mut used = [0; 4];
    let first = all.into_iter().filter(|sample| {
        used[sample.class] += 1;
        used[sample.class] <= PER_CLASS
    });
    first.collect()
}

fn epoch(criterion: &mut Criterion) {
    let samples = samples();
    let samples: Vec<&Sample> = samples.iter().collect();
    let recipe = Recipe { epochs: u32::MAX, ..Recipe::tutorial() };
    for threads in [1, 2] {
        let preparation = Preparation::new(window(), 4, threads);
        let mut trainer =
            Trainer::new(recipe.clone(), preparation, threads, &Device::cpu()).expect("a trainer");
        criterion.bench_function(&format!("epoch/{threads}"), |bencher| {
            bencher.iter(|| while trainer.batch(&samples).expect("a step").is_none() {});
        });
    }
}

criterion_group!(benches, epoch);
criterion_main!(benches);
