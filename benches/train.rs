//! One epoch of the tutorial's training over 48 recordings, batch 32, on one thread and on two, in
//! wall time: forward, back through time, weight gradients, Adam.
//!
//! Recordings are POKER-DVS where the shared folder stands, the first 12 of each class; else
//! synthetic ones.

use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use dvs_stream::dataset::{self, Loading, Sample};
use dvs_stream::event::Event;
use dvs_stream::frame::Frames;
use dvs_stream::nn::Device;
use dvs_stream::synth::{self, Pip, PipOptions, SENSOR};
use dvs_stream::train::prepare::Preparation;
use dvs_stream::train::recipe::Recipe;
use dvs_stream::train::trainer::Trainer;
use dvs_stream::window::{Partial, WindowConfig};

const PER_CLASS: usize = 12;

fn window() -> WindowConfig {
    WindowConfig {
        sensor: SENSOR,
        window_us: 1000,
        gap_us: 1_000_000_000,
        origin: Default::default(),
        partial: Partial::Drop,
    }
}

fn samples() -> Vec<Sample> {
    let folder = Path::new("../shared/data/poker-dvs");
    if !folder.is_dir() {
        println!("SKIPPED POKER-DVS: {} is absent; synthetic recordings instead", folder.display());
        return synthetic();
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
    let all = dataset::load(folder, &loading, &|_, _| ()).expect("recordings").samples;
    let mut used = [0; 4];
    let first = all.into_iter().filter(|sample| {
        used[sample.class] += 1;
        used[sample.class] <= PER_CLASS
    });
    first.collect()
}

fn synthetic() -> Vec<Sample> {
    let mut samples = Vec::new();
    for (class, pip) in Pip::ALL.into_iter().enumerate() {
        for seed in 0..PER_CLASS as u64 {
            let events: Vec<Event> = synth::pip(pip, seed, &PipOptions::default());
            let mut frames = Frames::default();
            dataset::Cutter::new(window()).cut(&events, 0, &mut frames);
            let (first_us, last_us) = (events[0].t_us, events[events.len() - 1].t_us);
            let name = format!("{class}/{seed}");
            samples.push(Sample { name, class, first_us, last_us, events: vec![], frames });
        }
    }
    samples
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
