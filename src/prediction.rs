//! What comes out: predictions, segments, summaries, and what was lost on the way.
//!
//! Knows no model, no text and no socket.

use serde::{Deserialize, Serialize};

/// Who a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Never given twice by one engine; 0 for one that it never saw.
    pub id: u64,
    /// Its name in records; several streams may bear it at once.
    pub name: String,
}

/// Events that did not reach the network, by cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Losses {
    /// Events before the open window.
    pub late: u64,
    /// Events outside the model's sensor.
    pub outside: u64,
    /// Events dropped because a buffer was full, or a count was at its greatest.
    pub overflow: u64,
    /// Events that cannot be: negative or overflowing times.
    pub malformed: u64,
}

impl Losses {
    /// Whether nothing was lost.
    pub fn is_none(&self) -> bool {
        self.total() == 0
    }

    /// All causes together.
    pub fn total(&self) -> u64 {
        self.by_reason().into_iter().fold(0, |sum, (_, n)| sum.saturating_add(n))
    }

    /// Each cause by its name.
    pub fn by_reason(&self) -> [(&'static str, u64); 4] {
        let Losses { late, outside, overflow, malformed } = *self;
        [("late", late), ("outside", outside), ("overflow", overflow), ("malformed", malformed)]
    }
}

impl std::ops::AddAssign for Losses {
    fn add_assign(&mut self, other: Losses) {
        self.late += other.late;
        self.outside += other.outside;
        self.overflow += other.overflow;
        self.malformed += other.malformed;
    }
}

impl std::ops::SubAssign for Losses {
    fn sub_assign(&mut self, other: Losses) {
        self.late -= other.late;
        self.outside -= other.outside;
        self.overflow -= other.overflow;
        self.malformed -= other.malformed;
    }
}

/// The network's answer: the class of the greatest logit, and its softmax.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Class index; `None` where the answer is not to be named.
    pub class: Option<u16>,
    /// Softmax of the greatest logit, 0 before the first window.
    pub confidence: f32,
}

/// The running answer after one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Number of the window in its stream, counted from 0 over those that were stepped.
    pub window: u64,
    /// Sensor time of the window's nominal end.
    pub t_us: u64,
    /// Events that the window holds.
    pub events: u32,
    /// The answer.
    pub verdict: Verdict,
    /// What was lost since the last prediction.
    pub losses: Losses,
}

/// A span of activity between two silences.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// Start of its first window.
    pub from_us: u64,
    /// End of its last window that was not quiet.
    pub to_us: u64,
    /// The answer at that window.
    pub verdict: Verdict,
    /// Its windows.
    pub windows: u64,
    /// Events of its windows.
    pub events: u64,
}

/// What ingest counted over a whole stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Events decoded, lost ones included.
    pub events: u64,
    /// Time from first to last event; over several clocks or passes, their sum.
    pub duration_us: u64,
    /// All losses.
    pub losses: Losses,
    /// Restarts by a jump of the clock.
    pub restarts: u64,
}

/// More than one event in so many outside the sensor is worth a warning.
const OUTSIDE_SHARE: u64 = 100;

impl Totals {
    /// What to warn of where too many events lie outside the model's sensor.
    pub fn much_outside(&self) -> Option<String> {
        let (outside, events) = (self.losses.outside, self.events);
        let is_much = outside.saturating_mul(OUTSIDE_SHARE) > events;
        is_much.then(|| {
            format!(
                "{:.1} % of its events lie outside the model's sensor: --crop X,Y,W,H or --sensor \
                 WxH --scale bring them in",
                100.0 * outside as f64 / events as f64
            )
        })
    }
}

/// The end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Summary {
    /// The answer of the last segment.
    pub verdict: Verdict,
    /// Windows stepped.
    pub windows: u64,
    /// Segments ended.
    pub segments: u64,
    /// What ingest counted.
    pub totals: Totals,
}

/// Anything that a stream tells its sink.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The running answer.
    Prediction(Prediction),
    /// A segment ended.
    Segment(Segment),
    /// The stream ended.
    Summary(Summary),
    /// The stream failed; its good part came before.
    Error {
        /// What failed and why, as [`crate::error::causes`] gives it; joined by colons it is one line
        /// for people.
        causes: Vec<String>,
        /// Byte offset, where it is known.
        offset: Option<u64>,
    },
}

/// Records of one engine call in order, each with its slot, and the predictions' logits.
#[derive(Clone, Debug, Default)]
pub struct Records {
    records: Vec<(usize, Record)>,
    logits: Vec<f32>,
}

impl Records {
    /// Adds a record of a slot that has no logits.
    pub fn push(&mut self, slot: usize, record: Record) {
        self.records.push((slot, record));
    }

    /// Adds a prediction with its logits (readout before softmax), always the same number.
    pub fn push_prediction(&mut self, slot: usize, prediction: Prediction, logits: &[f32]) {
        self.records.push((slot, Record::Prediction(prediction)));
        self.logits.extend_from_slice(logits);
    }

    /// Slot, record and logits (empty but for predictions), in order.
    pub fn iter(&self, n_classes: usize) -> impl Iterator<Item = (usize, &Record, &[f32])> {
        let mut logits = self.logits.chunks_exact(n_classes.max(1));
        self.records.iter().map(move |(slot, record)| {
            let logits = match record {
                Record::Prediction(_) => logits.next().unwrap_or(&[]),
                _ => &[],
            };
            (*slot, record, logits)
        })
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Forgets all records, keeps the memory.
    pub fn clear(&mut self) {
        self.records.clear();
        self.logits.clear();
    }
}
