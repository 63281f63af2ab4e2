//! Counters, gauges and histograms under the names that dashboards rely on.
//!
//! Handles are taken once a stream, so the hot path looks nothing up. Without a recorder, as the
//! [`Registry`] is one, they cost nothing. Knows nothing of who reads them.

mod registry;

pub use registry::Registry;

use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::prediction::Totals;

/// Label of streams without a name.
pub const ANONYMOUS: &str = "anonymous";

/// Label of streams that are gone.
pub const DEPARTED: &str = "departed";

/// Span over which the engine's load is taken.
const LOAD_SPAN: Duration = Duration::from_secs(1);

/// Series of what a stream has sent.
pub struct StreamMeters {
    received: Counter,
    lost: [Counter; 4],
    restarts: Counter,
    counted: Totals,
    set_aside: Counter,
    n_set_aside: u64,
}

impl StreamMeters {
    /// Handles for `stream`, of which so much was counted before.
    pub fn new(stream: &str, counted: Totals) -> Self {
        let lost = |reason: &'static str| counter!("dvs_events_lost_total", "stream" => stream.to_owned(), "reason" => reason);
        StreamMeters {
            received: counter!("dvs_events_received_total", "stream" => stream.to_owned()),
            lost: counted.losses.by_reason().map(|(reason, _)| lost(reason)),
            restarts: counter!("dvs_restarts_total", "stream" => stream.to_owned()),
            counted,
            set_aside: counter!("dvs_set_aside_total", "stream" => stream.to_owned()),
            n_set_aside: 0,
        }
    }

    /// Brings the counters to the stream's totals.
    pub fn raise_to(&mut self, totals: &Totals) {
        let (new, old) = (totals.losses.by_reason(), self.counted.losses.by_reason());
        raise(&self.received, totals.events, self.counted.events);
        raise(&self.restarts, totals.restarts, self.counted.restarts);
        for (counter, ((_, new), (_, old))) in self.lost.iter().zip(new.into_iter().zip(old)) {
            raise(counter, new, old);
        }
        self.counted = *totals;
    }

    /// Brings to `n` the counter of what was read besides events since the stream began here.
    pub fn raise_set_aside_to(&mut self, n: u64) {
        raise(&self.set_aside, n, self.n_set_aside);
        self.n_set_aside = n;
    }
}

fn raise(counter: &Counter, new: u64, old: u64) {
    if new > old {
        counter.increment(new - old);
    }
}

/// Series of a stream's windows.
pub struct WindowMeters {
    windows: Counter,
    ring: Gauge,
}

impl WindowMeters {
    /// Handles for `stream`.
    pub fn new(stream: &str) -> Self {
        WindowMeters {
            windows: counter!("dvs_windows_total", "stream" => stream.to_owned()),
            ring: gauge!("dvs_ring_frames", "stream" => stream.to_owned()),
        }
    }

    /// The engine took so many windows.
    pub fn windows(&self, windows: usize) {
        self.windows.increment(windows as u64);
    }

    /// Windows that waited in the stream's ring when the engine came.
    pub fn ring(&self, windows: usize) {
        self.ring.set(windows as f64);
    }
}

/// Series of the engine.
pub struct EngineMeters {
    step: Histogram,
    load: Gauge,
    streams: Gauge,
    window_s: f64,
    /// Of the span so far: since when it is, its time to step, and each slot's windows.
    since: Option<Instant>,
    step_s: f64,
    windows: Vec<usize>,
}

impl EngineMeters {
    /// Handles for an engine of so many slots, whose windows take so long.
    pub fn new(n_slots: usize, window_us: u64) -> Self {
        EngineMeters {
            step: histogram!("dvs_step_seconds"),
            load: gauge!("dvs_load_ratio"),
            streams: gauge!("dvs_streams"),
            window_s: window_us as f64 * 1e-6,
            since: None,
            step_s: 0.0,
            windows: vec![0; n_slots],
        }
    }

    /// One step of the engine: when it was, and how many windows slots brought.
    pub fn stepped(
        &mut self,
        begun: Instant,
        ended: Instant,
        brought: impl Iterator<Item = (usize, usize)>,
    ) {
        let step_s = ended.saturating_duration_since(begun).as_secs_f64();
        self.step.record(step_s);
        self.step_s += step_s;
        brought.for_each(|(slot, windows)| self.windows[slot] += windows);
        self.since.get_or_insert(begun);
        self.pass(ended);
    }

    /// Time has passed: a span that is over is told, one in which nothing was stepped as 0.
    pub fn pass(&mut self, now: Instant) {
        let is_over = |since: &Instant| now.saturating_duration_since(*since) >= LOAD_SPAN;
        if !self.since.as_ref().is_some_and(is_over) {
            return;
        }
        // Streams run beside each other: the time is that of the one with most windows.
        let most = self.windows.iter().max().copied().unwrap_or(0);
        let load = if most > 0 { self.step_s / (most as f64 * self.window_s) } else { 0.0 };
        self.load.set(load);
        (self.since, self.step_s) = ((most > 0).then_some(now), 0.0);
        self.windows.fill(0);
    }

    /// Number of streams that hold a slot.
    pub fn streams(&self, n: usize) {
        self.streams.set(n as f64);
    }
}

/// Series of a stream's answers.
pub struct AnswerMeters {
    /// One a class, and one for what is not named.
    predictions: Vec<Counter>,
}

impl AnswerMeters {
    /// Handles for `stream`, whose classes are called `labels`.
    pub fn new(stream: &str, labels: &[String]) -> Self {
        let counted = |label: &str| counter!("dvs_predictions_total", "stream" => stream.to_owned(), "label" => label.to_owned());
        let labels = labels.iter().map(String::as_str);
        AnswerMeters { predictions: labels.chain(["unknown"]).map(counted).collect() }
    }

    /// One prediction.
    pub fn prediction(&self, class: Option<u16>) {
        let unnamed = self.predictions.len() - 1;
        let class = class.map_or(unnamed, |class| usize::from(class).min(unnamed));
        self.predictions[class].increment(1);
    }
}

/// What became of a state that was kept of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotResult {
    /// It is in its file.
    Written,
    /// It could not be written.
    Failed,
    /// The stream went on from it.
    Resumed,
    /// It was too old.
    Expired,
    /// It was another model's, other settings' or another version's.
    Other,
    /// It could not be read.
    Damaged,
}

/// Series of the states that are kept of streams.
#[derive(Clone)]
pub struct SnapshotMeters([Counter; 6]);

impl Default for SnapshotMeters {
    fn default() -> Self {
        let results = ["written", "failed", "resumed", "expired", "other", "damaged"];
        SnapshotMeters(results.map(|result| counter!("dvs_snapshots_total", "result" => result)))
    }
}

impl SnapshotMeters {
    /// So many more.
    pub fn count(&self, result: SnapshotResult, n: u64) {
        self.0[result as usize].increment(n);
    }
}

/// Series of a server.
pub struct ServerMeters {
    latency: Histogram,
    refused: Counter,
    failed: Counter,
    busy: Gauge,
    missed: Counter,
    lost_datagrams: Counter,
    repeated_datagrams: Counter,
    redialled: Counter,
}

impl ServerMeters {
    /// Handles for a server of this model.
    pub fn new(model: &str, sha256: &str) -> Self {
        gauge!("dvs_model_info", "model" => model.to_owned(), "sha256" => sha256.to_owned())
            .set(1.0);
        ServerMeters {
            latency: histogram!("dvs_window_latency_seconds"),
            refused: counter!("dvs_connections_refused_total"),
            failed: counter!("dvs_stream_errors_total"),
            busy: gauge!("dvs_busy_ratio"),
            missed: counter!("dvs_records_missed_total"),
            lost_datagrams: counter!("dvs_datagrams_lost_total", "stream" => ANONYMOUS),
            repeated_datagrams: counter!("dvs_datagrams_repeated_total", "stream" => ANONYMOUS),
            redialled: counter!("dvs_redials_total"),
        }
    }

    /// So many predictions were written so long after the bytes that completed them.
    pub fn answered(&self, predictions: usize, latency_s: f64) {
        self.latency.record_many(latency_s, predictions);
    }

    /// A connection was turned away.
    pub fn refused(&self) {
        self.refused.increment(1);
    }

    /// A stream ended with an error.
    pub fn failed(&self) {
        self.failed.increment(1);
    }

    /// Lines that a client did not read in time.
    pub fn missed(&self, lines: u64) {
        self.missed.increment(lines);
    }

    /// Datagrams that never came, that the kernel dropped, or whose sender is no stream.
    pub fn lost_datagrams(&self, n: u64) {
        self.lost_datagrams.increment(n);
    }

    /// Datagrams that came twice or too late, and were not taken.
    pub fn repeated_datagrams(&self, n: u64) {
        self.repeated_datagrams.increment(n);
    }

    /// A server that was dialled was absent, or its stream has ended.
    pub fn redialled(&self) {
        self.redialled.increment(1);
    }

    /// Share of its time that the serving thread worked.
    pub fn busy(&self, share: f64) {
        self.busy.set(share);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn load_is_of_all_steps_of_a_span_and_all_streams() {
        let registry = Arc::new(Registry::default());
        let mut meters = registry.during(|| EngineMeters::new(2, 1000));
        let begun = Instant::now();
        // Each of two streams brings its windows of 1 ms by itself; a step takes 400 µs.
        for ms in (0..1000).step_by(10) {
            for slot in 0..2 {
                let begun = begun + Duration::from_millis(ms + 5 * slot as u64);
                meters.stepped(begun, begun + Duration::from_millis(4), [(slot, 10)].into_iter());
            }
        }
        // The last is the first beyond the span.
        let last = begun + Duration::from_millis(1000);
        meters.stepped(last, last, [(0, 0)].into_iter());
        assert!((load(&registry) - 0.8).abs() < 1e-9, "{}", load(&registry));
    }

    #[test]
    fn load_of_a_short_run_is_told_and_falls_to_nothing() {
        let registry = Arc::new(Registry::default());
        let mut meters = registry.during(|| EngineMeters::new(1, 1000));
        let begun = Instant::now();
        let after = |ms| begun + Duration::from_millis(ms);
        // 100 windows of 1 ms, which take 50 ms; then nothing.
        meters.stepped(begun, after(50), [(0, 100)].into_iter());
        for (ms, told) in [(900, 0.0), (1000, 0.5), (1900, 0.5), (2000, 0.0), (9000, 0.0)] {
            meters.pass(after(ms));
            assert!((load(&registry) - told).abs() < 1e-9, "{ms}: {}", load(&registry));
        }
        // The next run is a span of its own.
        meters.stepped(after(9500), after(9530), [(0, 100)].into_iter());
        meters.pass(after(10_500));
        assert!((load(&registry) - 0.3).abs() < 1e-9, "{}", load(&registry));
    }

    fn load(registry: &Registry) -> f64 {
        let text = registry.text();
        let told = text.lines().find_map(|line| line.strip_prefix("dvs_load_ratio ")).unwrap();
        told.parse().unwrap()
    }
}
