//! All series in one place, and their text for Prometheus. The number of series is bounded:
//! those of a stream that is gone for good are added to `stream="departed"`.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

use super::DEPARTED;

/// Upper bounds of the buckets of every histogram, in seconds.
pub const BUCKETS_S: [f64; 14] =
    [1e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 0.1, 1.0];

/// Names, types and meanings, in the order of the text.
const ABOUT: &[(&str, &str, &str)] = &[
    ("dvs_events_received_total", "counter", "Events decoded, lost ones included."),
    ("dvs_events_lost_total", "counter", "Events that did not reach the network, by reason."),
    (
        "dvs_set_aside_total",
        "counter",
        "What is no event of the chosen sensor: frames, inertial samples, external and invalid \
         events, packets of other streams.",
    ),
    (
        "dvs_datagrams_lost_total",
        "counter",
        "Datagrams that never came, that the kernel dropped, or whose sender is no stream.",
    ),
    (
        "dvs_datagrams_repeated_total",
        "counter",
        "Datagrams not taken because they came twice, or after they were counted as lost.",
    ),
    ("dvs_redials_total", "counter", "Ends and absences of servers that are dialled."),
    ("dvs_windows_total", "counter", "Windows that the engine took."),
    (
        "dvs_restarts_total",
        "counter",
        "Restarts by a jump of the clock, or from a state after which events were lost.",
    ),
    ("dvs_predictions_total", "counter", "Predictions, by label."),
    (
        "dvs_records_missed_total",
        "counter",
        "Records dropped because their reader did not take them.",
    ),
    (
        "dvs_connections_refused_total",
        "counter",
        "Connections of clients, or requests, turned away.",
    ),
    ("dvs_stream_errors_total", "counter", "Streams that ended with an error."),
    ("dvs_snapshots_total", "counter", "States kept of named streams, by what became of them."),
    ("dvs_streams", "gauge", "Streams that hold a slot."),
    ("dvs_ring_frames", "gauge", "Windows that waited in the ring at the engine's last turn."),
    ("dvs_load_ratio", "gauge", "Time to step over time of the windows stepped, over a second."),
    ("dvs_busy_ratio", "gauge", "Share of the last second that the serving thread worked."),
    ("dvs_step_seconds", "histogram", "Time of one call of the engine."),
    (
        "dvs_window_latency_seconds",
        "histogram",
        "From the arrival of the bytes that complete a window, or the first of those that are \
         stepped with it, to its prediction written.",
    ),
    ("dvs_model_info", "gauge", "The model that is served."),
];

/// A recorder that keeps every series and writes them as text.
#[derive(Default)]
pub struct Registry {
    series: Mutex<BTreeMap<Name, Series>>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    metric: String,
    labels: Vec<(String, String)>,
}

#[derive(Clone)]
enum Series {
    Counter(Arc<AtomicU64>),
    /// Bits of a float.
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Buckets>),
}

#[derive(Default)]
struct Buckets {
    /// One for each bound, and one for what is beyond.
    counts: [AtomicU64; BUCKETS_S.len() + 1],
    /// Bits of a float.
    sum: AtomicU64,
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        self.record_many(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        let bucket = BUCKETS_S.iter().position(|bound| value <= *bound);
        let bucket = bucket.unwrap_or(BUCKETS_S.len());
        self.counts[bucket].fetch_add(count as u64, Ordering::Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + value * count as f64).to_bits());
        // The closure always gives a value, so this cannot fail.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

impl Registry {
    /// Has this thread's handles taken from here while it runs `what`.
    pub fn during<T>(&self, what: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(self, what)
    }

    /// Adds the counters of streams that are gone to those of all such streams, and forgets what
    /// else is known of them. Sums do not fall.
    pub fn retire(&self, streams: &HashSet<String>) {
        let mut series = self.lock();
        let own = |name: &Name| {
            name.labels.iter().any(|(key, value)| key == "stream" && streams.contains(value))
        };
        let names: Vec<Name> = series.keys().filter(|name| own(name)).cloned().collect();
        for name in names {
            let Some(Series::Counter(count)) = series.remove(&name) else { continue };
            let mut departed = name;
            for (key, value) in &mut departed.labels {
                if key == "stream" {
                    DEPARTED.clone_into(value);
                }
            }
            let new = || Series::Counter(Arc::default());
            if let Series::Counter(sum) = series.entry(departed).or_insert_with(new) {
                sum.fetch_add(count.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    /// All series in Prometheus' text format, version 0.0.4.
    pub fn text(&self) -> String {
        let series = self.lock();
        let mut text = String::new();
        for (metric, kind, meaning) in ABOUT {
            let first = Name { metric: (*metric).to_owned(), labels: Vec::new() };
            let own = series.range(first..).take_while(|(name, _)| name.metric == *metric);
            let mut own = own.peekable();
            if own.peek().is_some() {
                let _ = writeln!(text, "# HELP {metric} {meaning}\n# TYPE {metric} {kind}");
            }
            own.for_each(|(name, series)| series.write(name, &mut text));
        }
        text
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Series>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, key: &Key, new: fn() -> Series) -> Series {
        let mut labels: Vec<_> =
            key.labels().map(|label| (label.key().to_owned(), label.value().to_owned())).collect();
        labels.sort();
        let name = Name { metric: key.name().to_owned(), labels };
        self.lock().entry(name).or_insert_with(new).clone()
    }
}

impl Series {
    fn write(&self, name: &Name, text: &mut String) {
        let mut line = |suffix: &str, bound: Option<&str>, value: &dyn std::fmt::Display| {
            text.push_str(&name.metric);
            text.push_str(suffix);
            let labels = name.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let mut before = '{';
            for (key, value) in labels.chain(bound.map(|bound| ("le", bound))) {
                text.push(std::mem::replace(&mut before, ','));
                text.push_str(key);
                text.push_str("=\"");
                escape(value, text);
                text.push('"');
            }
            if before == ',' {
                text.push('}');
            }
            // Writing to a string does not fail.
            let _ = writeln!(text, " {value}");
        };
        match self {
            Series::Counter(count) => line("", None, &count.load(Ordering::Relaxed)),
            Series::Gauge(bits) => line("", None, &f64::from_bits(bits.load(Ordering::Relaxed))),
            Series::Histogram(buckets) => {
                let mut total = 0;
                let bounds = BUCKETS_S.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
                for (count, bound) in buckets.counts.iter().zip(bounds) {
                    total += count.load(Ordering::Relaxed);
                    line("_bucket", Some(&bound), &total);
                }
                let sum = f64::from_bits(buckets.sum.load(Ordering::Relaxed));
                line("_sum", None, &sum);
                line("_count", None, &total);
            }
        }
    }
}

fn escape(value: &str, text: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

impl Recorder for Registry {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.enter(key, || Series::Counter(Arc::default())) {
            Series::Counter(count) => Counter::from_arc(count),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.enter(key, || Series::Gauge(Arc::default())) {
            Series::Gauge(bits) => Gauge::from_arc(bits),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.enter(key, || Series::Histogram(Arc::default())) {
            Series::Histogram(buckets) => Histogram::from_arc(buckets),
            _ => Histogram::noop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::{counter, gauge, histogram, with_local_recorder};

    fn value(text: &str, series: &str) -> Option<f64> {
        let line = text.lines().find(|line| line.starts_with(&format!("{series} ")))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    #[test]
    fn streams_that_are_gone_keep_their_sums_and_lose_their_series() {
        let registry = Registry::default();
        let mut sum = 0;
        for k in 0..100_u64 {
            let name = format!("cam-{k}");
            with_local_recorder(&registry, || {
                counter!("dvs_windows_total", "stream" => name.clone()).increment(k);
                gauge!("dvs_ring_frames", "stream" => name.clone()).set(1.0);
            });
            sum += k;
            registry.retire(&HashSet::from([name]));
        }
        assert_eq!(registry.len(), 1);
        let departed = "dvs_windows_total{stream=\"departed\"}";
        assert_eq!(value(&registry.text(), departed), Some(sum as f64));
    }

    #[test]
    fn the_text_has_every_series_under_its_metric_with_its_labels() {
        let registry = Registry::default();
        with_local_recorder(&registry, || {
            counter!("dvs_windows_total", "stream" => "b").increment(2);
            counter!("dvs_windows_total", "stream" => "a\"\\\n").increment(1);
            counter!("dvs_events_lost_total", "stream" => "b", "reason" => "late").increment(3);
            gauge!("dvs_streams").set(4.0);
        });
        let text = registry.text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        assert_eq!(
            lines,
            [
                "# TYPE dvs_events_lost_total counter",
                "dvs_events_lost_total{reason=\"late\",stream=\"b\"} 3",
                "# TYPE dvs_windows_total counter",
                "dvs_windows_total{stream=\"a\\\"\\\\\\n\"} 1",
                "dvs_windows_total{stream=\"b\"} 2",
                "# TYPE dvs_streams gauge",
                "dvs_streams 4",
            ]
        );
    }

    #[test]
    fn buckets_add_up() {
        let registry = Registry::default();
        let values = [1e-7, 1e-6, 3e-5, 0.2, 7.0];
        with_local_recorder(&registry, || {
            values.iter().for_each(|v| histogram!("dvs_step_seconds").record_many(*v, 2));
        });
        let text = registry.text();
        for (bound, below) in [("0.000001", 4.0), ("0.00005", 6.0), ("1", 8.0), ("+Inf", 10.0)] {
            let series = format!("dvs_step_seconds_bucket{{le=\"{bound}\"}}");
            assert_eq!(value(&text, &series), Some(below), "{text}");
        }
        assert_eq!(value(&text, "dvs_step_seconds_count"), Some(10.0));
        assert_eq!(value(&text, "dvs_step_seconds_sum"), Some(2.0 * values.iter().sum::<f64>()));
    }
}
