//! The engine in real time: each millisecond it gathers, plans and steps a window of every stream and
//! turns voltages into records, while other threads bring the next ones through the rings.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dvs_stream::engine::{Engine, Feed, Outlet, Turn};
use dvs_stream::frame::{Frames, Window};
use dvs_stream::model::Model;
use dvs_stream::nn::Network;
use dvs_stream::prediction::{Record, Stream};
use dvs_stream::session::{Rules, Session};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{ACTIVE, TICK, active, feeders};

/// Ticks before those that are measured.
const WARM: u32 = 100;
/// A sleep ends no later than this, as a rule.
const SPIN: Duration = Duration::from_micros(300);

/// Steps all streams once a tick; says whether 99 of 100 ticks end in time, with all windows.
pub fn tick(network: &Arc<Network>, model: &Model, streams: usize, seconds: u64) -> bool {
    let rules = Rules::of(model);
    let session = Session::new(network.clone(), rules, streams).expect("a session");
    let (mut engine, port) = Engine::new(session, rules.window_us);
    let feeds = (0..streams).map(|k| port.open(&format!("stream-{k}")).expect("an engine"));
    let mut feeds: Vec<Fed> =
        feeds.enumerate().map(|(k, feed)| Fed::new(network, k, feed)).collect();
    let (over, ticks) = (AtomicBool::new(false), seconds as u32 * 1000);
    let mut answers = Answers(0);
    engine.turn(&mut answers).expect("a turn");
    let (mut late, mut windows, mut times) = (0, 0, Vec::with_capacity(ticks as usize));
    // Feeders begin together with the ticks.
    let begun = Instant::now() + Duration::from_millis(20);
    thread::scope(|scope| {
        for share in feeds.chunks_mut(streams.div_ceil(feeders())) {
            scope.spawn(|| feed(share, begun, &over));
        }
        for k in 1..=WARM + ticks {
            until(begun + TICK * k);
            let turned = Instant::now();
            while engine.turn(&mut answers).expect("a turn") == Turn::More {}
            let told = std::mem::take(&mut answers.0);
            if k > WARM {
                times.push(turned.elapsed());
                late += u32::from(Instant::now() > begun + TICK * (k + 1));
                windows += told;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    times.sort();
    let micros = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e6;
    let (median, p99) = (micros(50), micros(99));
    let a_tick = windows as f64 / f64::from(ticks);
    println!("{streams:>8} {seconds:>8} {median:>12.1} {p99:>12.1} {late:>8} {a_tick:>14.1}");
    late <= ticks / 100 && a_tick >= 0.99 * streams as f64
}

/// Counts predictions.
struct Answers(u64);

impl Outlet for Answers {
    fn record(&mut self, _stream: &Stream, record: &Record, logits: &[f32], _ending: bool) {
        std::hint::black_box(logits);
        self.0 += u64::from(matches!(record, Record::Prediction(_)));
    }

    fn flush(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A stream whose windows are all alike.
struct Fed {
    feed: Feed,
    inputs: Vec<(u32, u16)>,
    frames: Frames,
}

impl Fed {
    fn new(network: &Network, seed: usize, feed: Feed) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed as u64);
        let inputs = active(&mut random, network.inputs() as u32 / ACTIVE).collect();
        Fed { feed, inputs, frames: Frames::default() }
    }
}

/// Brings a window of each stream for every tick, in the time before it.
fn feed(streams: &mut [Fed], begun: Instant, over: &AtomicBool) {
    for k in 0.. {
        until(begun + TICK * k);
        let t_start_us = 1000 * u64::from(k);
        let events = ACTIVE + ACTIVE / 4;
        let window =
            Window { t_start_us, t_end_us: t_start_us + 1000, events, ..Window::default() };
        for Fed { feed, inputs, frames } in &mut *streams {
            inputs.iter().for_each(|(address, count)| frames.add(*address, *count));
            frames.close(window);
            while !feed.offer(frames) {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                thread::yield_now();
            }
        }
        if over.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Sleeps, and spins at last: a sleep ends late.
fn until(due: Instant) {
    let rest = due.saturating_duration_since(Instant::now());
    if rest > SPIN {
        thread::sleep(rest - SPIN);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}
