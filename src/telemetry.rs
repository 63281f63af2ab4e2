//! Counters, gauges and histograms under the names that dashboards rely on.
//!
//! Handles are taken once a stream, so the hot path looks nothing up. Knows nothing of who
//! exports them; without a recorder they cost nothing.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::prediction::{Losses, Totals};

/// Series of one stream.
pub struct StreamMeters {
    received: Counter,
    lost: [Counter; 4],
    windows: Counter,
    restarts: Counter,
    counted: Totals,
}

impl StreamMeters {
    /// Handles for `stream`.
    pub fn new(stream: &str) -> Self {
        let lost = |reason: &'static str| counter!("dvs_events_lost_total", "stream" => stream.to_owned(), "reason" => reason);
        StreamMeters {
            received: counter!("dvs_events_received_total", "stream" => stream.to_owned()),
            lost: [lost("late"), lost("outside"), lost("overflow"), lost("malformed")],
            windows: counter!("dvs_windows_total", "stream" => stream.to_owned()),
            restarts: counter!("dvs_restarts_total", "stream" => stream.to_owned()),
            counted: Totals::default(),
        }
    }

    /// Counts windows that the engine took, with their events and losses.
    pub fn windows(&mut self, windows: u64, events: u64, losses: Losses) {
        self.windows.increment(windows);
        let mut totals = self.counted;
        totals.events += events + losses.total();
        totals.losses += losses;
        self.raise_to(&totals);
    }

    /// Brings the counters to the stream's totals.
    pub fn raise_to(&mut self, totals: &Totals) {
        let by = |new: u64, old: u64| new.saturating_sub(old);
        let (new, old) = (totals.losses, self.counted.losses);
        self.received.increment(by(totals.events, self.counted.events));
        self.lost[0].increment(by(new.late, old.late));
        self.lost[1].increment(by(new.outside, old.outside));
        self.lost[2].increment(by(new.overflow, old.overflow));
        self.lost[3].increment(by(new.malformed, old.malformed));
        self.restarts.increment(by(totals.restarts, self.counted.restarts));
        self.counted = *totals;
    }
}

/// Series of the engine.
pub struct EngineMeters {
    step: Histogram,
    load: Gauge,
    streams: Gauge,
}

impl Default for EngineMeters {
    fn default() -> Self {
        EngineMeters {
            step: histogram!("dvs_step_seconds"),
            load: gauge!("dvs_load_ratio"),
            streams: gauge!("dvs_streams"),
        }
    }
}

impl EngineMeters {
    /// One step of the engine: what it took and how much sensor time it covered.
    pub fn stepped(&self, step_s: f64, sensor_s: f64) {
        self.step.record(step_s);
        if sensor_s > 0.0 {
            self.load.set(step_s / sensor_s);
        }
    }

    /// Number of streams that hold a slot.
    pub fn streams(&self, n: usize) {
        self.streams.set(n as f64);
    }
}
