//! The shipped network (2450 → 100 → 4) on a device, wall time, upload and download included: one
//! step of many streams, many windows of one, a minute of ticks in real time, and epochs of training.
//!
//! `cargo bench --features cuda --bench gpu [-- DEVICE [SECONDS]]`, by default cuda and 60. Frames of
//! streams are synthetic: 100 active inputs each; so are the recordings that are trained on.

mod pips;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use dvs_stream::dataset::Sample;
use dvs_stream::frame::{Frames, SlotFrames, Window};
use dvs_stream::model::Model;
use dvs_stream::nn::{Device, DeviceChoice, Network, PlannedStep, State};
use dvs_stream::train::prepare::Preparation;
use dvs_stream::train::recipe::Recipe;
use dvs_stream::train::trainer::Trainer;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ACTIVE: u32 = 100;
const TICK: Duration = Duration::from_millis(1);
const MODEL: &[u8] = include_bytes!("../models/poker.safetensors");

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let device = arguments.first().map_or("cuda", String::as_str);
    let seconds = arguments.get(1).and_then(|text| text.parse().ok()).unwrap_or(60);
    let opened = device.parse::<DeviceChoice>().map_err(|error| format!("{device}: {error}"));
    let opened = opened.and_then(|choice| choice.open().map_err(|error| error.to_string()));
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("not measured: {error}");
            return ExitCode::from(3);
        }
    };
    println!("device {device}, {ACTIVE} active inputs a window\n");
    streams(&opened, seconds);
    println!("\ntraining, {} threads\n", threads());
    println!(
        "{:>10} {:>8} {:>8} {:>14} {:>10}",
        "recordings", "batch", "hidden", "ms an epoch", "least"
    );
    for (per_class, batch, hidden, n) in
        [(12, 32, 100, 50), (250, 256, 100, 10), (250, 256, 500, 5)]
    {
        epochs(&opened, per_class, Recipe { batch, hidden: vec![hidden], ..Recipe::tutorial() }, n);
    }
    ExitCode::SUCCESS
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Trains epochs, the first three of them unmeasured.
fn epochs(device: &Device, per_class: usize, recipe: Recipe, n: usize) {
    let samples = pips::synthetic(per_class);
    let samples: Vec<&Sample> = samples.iter().collect();
    let (batch, hidden) = (recipe.batch, recipe.hidden[0]);
    let recipe = Recipe { epochs: u32::MAX, ..recipe };
    let preparation = Preparation::new(pips::window(), 4, threads());
    let mut trainer = Trainer::new(recipe, preparation, threads(), device).expect("a trainer");
    let mut epoch = || {
        let begun = Instant::now();
        while trainer.batch(&samples).expect("a step").is_none() {}
        begun.elapsed().as_secs_f64() * 1e3
    };
    let mut times: Vec<f64> = (0..n + 3).map(|_| epoch()).skip(3).collect();
    times.sort_by(f64::total_cmp);
    let (median, least) = (times[times.len() / 2], times[0]);
    println!("{:>10} {batch:>8} {hidden:>8} {median:>14.2} {least:>10.2}", samples.len());
}

fn streams(device: &Device, seconds: u64) {
    let model = Model::from_bytes(MODEL).expect("the shipped model");
    let network = model.network.on(device).expect("a network on the device");
    println!(
        "{:>8} {:>8} {:>12} {:>12} {:>14}",
        "streams", "windows", "median µs", "p99 µs", "µs a window"
    );
    for (streams, windows, calls) in
        [(1, 1, 2000), (100, 1, 2000), (1000, 1, 1000), (10_000, 1, 300), (1, 1000, 50)]
    {
        let mut streams = Streams::new(&network, streams, windows);
        let mut times: Vec<_> = (0..calls + 20).map(|_| streams.step()).skip(20).collect();
        times.sort();
        let micros = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e6;
        let (n, median) = (streams.slots.len(), micros(50));
        let per_window = median / (n * windows) as f64;
        println!("{n:>8} {windows:>8} {median:>12.1} {:>12.1} {per_window:>14.3}", micros(99));
    }
    println!(
        "\nticks of 1 ms, {seconds} s each; a tick is late when its step ends after the next began"
    );
    println!("{:>8} {:>12} {:>12} {:>8}", "streams", "median µs", "p99 µs", "late");
    let mut streams = 10_000;
    // Up while a millisecond holds them, down while it does not.
    let mut held = None;
    for _ in 0..5 {
        let holds = tick(&mut Streams::new(&network, streams, 1), seconds);
        let more = streams + streams / 2;
        match (holds, held) {
            (true, None | Some(true)) => streams = more,
            (false, None | Some(false)) => streams /= 2,
            _ => break,
        }
        held = Some(holds);
    }
}

/// Steps all streams once a tick; says whether 99 of 100 ticks end in time.
fn tick(streams: &mut Streams<'_>, seconds: u64) -> bool {
    (0..20).for_each(|_| _ = streams.step());
    let (begun, n) = (Instant::now(), seconds * 1000);
    let (mut late, mut times) = (0, Vec::with_capacity(n as usize));
    for k in 0..n as u32 {
        while begun.elapsed() < TICK * k {
            std::hint::spin_loop();
        }
        times.push(streams.step());
        late += u64::from(begun.elapsed() > TICK * (k + 1));
    }
    times.sort();
    let micros = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e6;
    println!("{:>8} {:>12.1} {:>12.1} {late:>8}", streams.slots.len(), micros(50), micros(99));
    late * 100 <= n
}

struct Streams<'a> {
    network: &'a Network,
    state: State,
    slots: Vec<SlotFrames>,
    plan: Vec<PlannedStep>,
    out: Vec<f32>,
}

impl<'a> Streams<'a> {
    fn new(network: &'a Network, n: usize, windows: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let apart = network.inputs() as u32 / ACTIVE;
        let frames = |slot| {
            let mut frames = Frames::default();
            for _ in 0..windows {
                for k in 0..ACTIVE {
                    let count = 1 + u16::from(random.random_ratio(1, 4));
                    frames.add(k * apart + random.random_range(0..apart), count);
                }
                frames.close(Window::default());
            }
            SlotFrames { slot, frames }
        };
        let plan = (0..n as u32).flat_map(|slot_index| {
            (0..windows as u32).map(move |window| PlannedStep { slot_index, window, reset: false })
        });
        Streams {
            network,
            state: network.zero_state(n).expect("a state"),
            slots: (0..n).map(frames).collect(),
            plan: plan.collect(),
            out: Vec::new(),
        }
    }

    fn step(&mut self) -> Duration {
        let begun = Instant::now();
        self.out.clear();
        let Streams { network, state, slots, plan, out } = self;
        network.rollout(state, slots, plan, out, None).expect("a step");
        begun.elapsed()
    }
}
