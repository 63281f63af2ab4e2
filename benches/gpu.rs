//! The shipped network (2450 → 100 → 4) on a device, wall time, upload and download included: one
//! step of many streams, many windows of one, the engine in real time, and epochs of training.
//!
//! `cargo bench --features cuda --bench gpu [-- DEVICE [SECONDS [STREAMS]]]`, by default cuda, 60 and
//! 10000. DEVICE is cpu, cuda or cuda:N, or kernels: the CPU in a GPU's place (feature `kernel-host`).
//! With fewer STREAMS it is a trial that it works: all is done, with less of everything. Frames of
//! streams are synthetic: 100 active inputs each; so are the recordings that are trained on.

#[path = "gpu/live.rs"]
mod live;
mod pips;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dvs_stream::dataset::Sample;
use dvs_stream::frame::{Frames, SlotFrames, Window};
use dvs_stream::model::Model;
#[cfg(feature = "kernel-host")]
use dvs_stream::nn::KernelOnHost;
use dvs_stream::nn::{Device, DeviceChoice, Network, PlannedStep, State};
use dvs_stream::train::prepare::Preparation;
use dvs_stream::train::recipe::Recipe;
use dvs_stream::train::trainer::Trainer;
use live::Outcome;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ACTIVE: u32 = 100;
const TICK: Duration = Duration::from_millis(1);
const MODEL: &[u8] = include_bytes!("../models/poker.safetensors");

/// Streams beyond which no more are tried.
const MOST: usize = 1 << 18;

/// How much of everything.
struct Trial {
    seconds: u64,
    streams: usize,
}

impl Trial {
    const FULL: usize = 10_000;

    /// Fewer where it is only to be seen that it works.
    fn few(&self, n: usize) -> usize {
        if self.streams < Self::FULL { n.min(3) } else { n }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let device = arguments.first().map_or("cuda", String::as_str);
    let number = |k: usize| arguments.get(k).and_then(|text| text.parse().ok());
    let seconds = number(1).unwrap_or(60).max(1);
    let trial = Trial { seconds, streams: number(2).map_or(Trial::FULL, |n| n as usize).max(1) };
    let opened = match open(device) {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("not measured: {error}");
            return ExitCode::from(3);
        }
    };
    println!("device {device}, {ACTIVE} active inputs a window\n");
    streams(&opened, &trial);
    println!("\ntraining, {} threads\n", threads());
    println!(
        "{:>10} {:>8} {:>8} {:>14} {:>10}",
        "recordings", "batch", "hidden", "ms an epoch", "least"
    );
    let rows = [(12, 32, 100, 50), (250, 256, 100, 10), (250, 256, 500, 5)];
    for (per_class, batch, hidden, n) in rows {
        let (per_class, n) = (trial.few(per_class), trial.few(n));
        epochs(&opened, per_class, Recipe { batch, hidden: vec![hidden], ..Recipe::tutorial() }, n);
    }
    ExitCode::SUCCESS
}

fn open(device: &str) -> Result<Device, String> {
    #[cfg(feature = "kernel-host")]
    if device == "kernels" {
        let (shared_bytes, blocks, launch_words) = (227 << 10, 4, 1 << 20);
        return Ok(Device::kernels_on_host(KernelOnHost {
            reversed: false,
            shared_bytes,
            blocks,
            launch_words,
        }));
    }
    let choice = device.parse::<DeviceChoice>().map_err(|error| format!("{device}: {error}"))?;
    choice.open().map_err(|error| error.to_string())
}

/// Threads that feed streams while one steps them.
fn feeders() -> usize {
    threads().saturating_sub(1).clamp(1, 8)
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

fn streams(device: &Device, trial: &Trial) {
    let model = Model::from_bytes(MODEL).expect("the shipped model");
    let network = model.network.on(device).expect("a network on the device");
    println!(
        "{:>8} {:>8} {:>12} {:>12} {:>14}",
        "streams", "windows", "median µs", "p99 µs", "µs a window"
    );
    for (streams, windows, calls) in
        [(1, 1, 2000), (100, 1, 2000), (1000, 1, 1000), (10_000, 1, 300), (1, 1000, 50)]
    {
        let mut streams = Streams::new(&network, streams.min(trial.streams), windows);
        let calls = trial.few(calls);
        let mut times: Vec<_> = (0..calls + 20).map(|_| streams.step()).skip(20).collect();
        times.sort();
        let (n, median, p99) = (streams.slots.len(), micros(&times, 50), micros(&times, 99));
        let per_window = median / (n * windows) as f64;
        println!("{n:>8} {windows:>8} {median:>12.1} {p99:>12.1} {per_window:>14.3}");
    }
    println!(
        "\nticks of 1 ms, in which the engine steps a window of each stream and tells its records; {} \
         threads bring the windows before; a tick is late when it ends more than 1 ms after it was \
         due, however late it began, and starved when it had to wait for its windows",
        feeders()
    );
    println!(
        "{:>8} {:>8} {:>12} {:>12} {:>12} {:>8} {:>8} {:>14}",
        "streams",
        "seconds",
        "median µs",
        "p99 µs",
        "p99 from due",
        "late",
        "starved",
        "windows a tick"
    );
    let network = Arc::new(network);
    most(trial, |streams, seconds| live::tick(&network, &model, streams, seconds));
}

/// Whoever is held longest is looked for in short runs, and held as long as the first after that.
fn most(trial: &Trial, tick: impl Fn(usize, u64) -> Outcome) {
    let (first, seconds) = (trial.streams, trial.seconds);
    let short = (seconds / 6).max(1);
    let mut beyond = None;
    let mut holds = |streams, seconds| {
        let outcome = tick(streams, seconds);
        if outcome != Outcome::Held {
            beyond = Some((streams, outcome));
        }
        outcome == Outcome::Held
    };
    let (least, mut missed) = if holds(first, seconds) { (first, None) } else { (0, Some(first)) };
    let mut held = least;
    loop {
        let next = match missed {
            None if held >= MOST => break,
            None => held * 2,
            Some(missed) if missed - held <= (held / 20).max(1) => break,
            Some(missed) => held.midpoint(missed),
        };
        if holds(next, short) { held = next } else { missed = Some(next) }
    }
    while held > least && !holds(held, seconds) {
        held = (held - (held / 20).max(1)).max(least);
    }
    print!("the most streams that 1 ms holds: {held}");
    match beyond {
        Some((n, Outcome::Starved)) => println!(", or more: those of {n} streams came too late"),
        None => println!(", or more, which were not tried"),
        _ => println!(),
    }
}

/// A percentile of sorted times.
fn micros(sorted: &[Duration], percent: usize) -> f64 {
    let rank = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(rank).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
}

/// A window's active inputs, one in each span of `apart` addresses, and their counts.
fn active(random: &mut ChaCha8Rng, apart: u32) -> impl Iterator<Item = (u32, u16)> {
    (0..ACTIVE).map(move |k| {
        let count = 1 + u16::from(random.random_ratio(1, 4));
        (k * apart + random.random_range(0..apart), count)
    })
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
                active(&mut random, apart).for_each(|(address, count)| frames.add(address, count));
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
