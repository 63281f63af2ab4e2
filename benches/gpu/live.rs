//! The engine in real time: each millisecond it gathers, plans and steps a window of every stream and
//! turns voltages into records, while other threads bring the next ones through the rings.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dvs_stream::engine::{Engine, Feed, Outlet};
use dvs_stream::frame::{Frames, Window};
use dvs_stream::model::Model;
use dvs_stream::nn::Network;
use dvs_stream::prediction::{Record, Stream};
use dvs_stream::session::{Rules, Session};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{ACTIVE, TICK, active, feeders, micros};

/// Ticks before those that are measured, one after another.
const WARM: u32 = 100;
/// So many ticks before its own a window may come, so that a feeder that wakes late delays none.
const AHEAD: u32 = 3;
/// A sleep ends no later than this, as a rule.
const SPIN: Duration = Duration::from_micros(300);

/// What ticks came to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 99 of 100 ended in time, with all windows.
    Held,
    /// They did not.
    Missed,
    /// They did not, but windows came late too: this says nothing of the device.
    Starved,
}

/// What was seen of the ticks that were due.
#[derive(Default)]
struct Seen {
    /// What ticks took by themselves.
    taken: Vec<Duration>,
    /// From when a tick was due to its end.
    after_due: Vec<Duration>,
    /// Ticks that waited for windows.
    starved: u32,
    windows: u64,
}

/// Steps all streams once a tick.
pub fn tick(network: &Arc<Network>, model: &Model, streams: usize, seconds: u64) -> Outcome {
    let rules = Rules::of(model);
    let session = Session::new(network.clone(), rules, streams).expect("a session");
    let (mut engine, port) = Engine::new(session, rules.window_us);
    let feeds = (0..streams).map(|k| port.open(&format!("stream-{k}")).expect("an engine"));
    let mut feeds: Vec<Fed> =
        feeds.enumerate().map(|(k, feed)| Fed::new(network, k, feed)).collect();
    engine.turn(&mut Answers(0)).expect("a turn");
    let ticks = seconds as u32 * 1000;
    let (over, begun) = (AtomicBool::new(false), AtomicU32::new(0));
    let shares: Vec<_> = feeds.chunks_mut(streams.div_ceil(feeders())).collect();
    let brought: Vec<_> = shares.iter().map(|_| AtomicU32::new(0)).collect();
    let seen = thread::scope(|scope| {
        for (share, brought) in shares.into_iter().zip(&brought) {
            scope.spawn(|| feed(share, &begun, brought, &over));
        }
        let (begun, brought, over, answers) = (&begun, &brought, &over, Answers(0));
        let mut live = Live { engine, begun, brought, over, answers };
        for _ in 0..WARM {
            live.turn();
        }
        live.run(ticks)
    });
    seen.told(streams, seconds, ticks)
}

/// The engine, and how far it and its feeders are.
struct Live<'a> {
    engine: Engine,
    begun: &'a AtomicU32,
    /// For each feeder the ticks for which it has brought all windows.
    brought: &'a [AtomicU32],
    over: &'a AtomicBool,
    answers: Answers,
}

impl Drop for Live<'_> {
    /// Feeders end, be it that a turn has failed.
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Live<'_> {
    /// Whether all windows of the next tick are there.
    fn is_fed(&self) -> bool {
        let next = self.begun.load(Ordering::Relaxed);
        self.brought.iter().all(|brought| brought.load(Ordering::Acquire) > next)
    }

    /// One tick, as soon as its windows are there: a single turn, which takes one window of each stream.
    fn turn(&mut self) -> Duration {
        while !self.is_fed() {
            thread::yield_now();
        }
        let turned = Instant::now();
        self.begun.fetch_add(1, Ordering::Release);
        self.engine.turn(&mut self.answers).expect("a turn");
        turned.elapsed()
    }

    /// Ticks on a grid, until the last one's time is over; a late one puts off those after it.
    fn run(&mut self, ticks: u32) -> Seen {
        let mut seen = Seen::default();
        self.answers.0 = 0;
        let first = Instant::now() + TICK;
        for due in (0..ticks).map(|k| first + TICK * k) {
            until(due);
            if Instant::now() >= first + TICK * ticks {
                break;
            }
            seen.starved += u32::from(!self.is_fed());
            let taken = self.turn();
            seen.taken.push(taken);
            seen.after_due.push(due.elapsed());
        }
        seen.windows = self.answers.0;
        seen
    }
}

impl Seen {
    /// Prints a row.
    fn told(mut self, streams: usize, seconds: u64, ticks: u32) -> Outcome {
        let in_time = self.after_due.iter().filter(|after| **after <= TICK).count();
        // Those that never began are late too.
        let late = ticks - in_time as u32;
        let stepped = self.taken.len() * streams;
        self.taken.sort();
        self.after_due.sort();
        let (median, p99) = (micros(&self.taken, 50), micros(&self.taken, 99));
        let after = micros(&self.after_due, 99);
        let (starved, a_tick) = (self.starved, self.windows as f64 / f64::from(ticks));
        println!(
            "{streams:>8} {seconds:>8} {median:>12.1} {p99:>12.1} {after:>12.1} {late:>8} \
             {starved:>8} {a_tick:>14.1}"
        );
        let few = ticks / 100;
        match late <= few && self.windows == stepped as u64 {
            true => Outcome::Held,
            false if starved > few => Outcome::Starved,
            false => Outcome::Missed,
        }
    }
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
    window: Frames,
    frames: Frames,
}

impl Fed {
    fn new(network: &Network, seed: usize, feed: Feed) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed as u64);
        let mut window = Frames::default();
        let mut events = 0;
        for (address, count) in active(&mut random, network.inputs() as u32 / ACTIVE) {
            window.add(address, count);
            events += u32::from(count);
        }
        window.close(Window { t_end_us: 1000, events, ..Window::default() });
        Fed { feed, window, frames: Frames::default() }
    }
}

/// Brings a window of each stream for every tick, before it begins.
fn feed(streams: &mut [Fed], begun: &AtomicU32, brought: &AtomicU32, over: &AtomicBool) {
    for tick in 0.. {
        while tick >= begun.load(Ordering::Acquire) + AHEAD {
            if over.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(TICK / 10);
        }
        for Fed { feed, window, frames } in &mut *streams {
            frames.copy_from(window, 0);
            assert!(feed.offer(frames), "a ring holds more windows than are brought ahead");
        }
        brought.store(tick + 1, Ordering::Release);
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
