//! Score: how a model reads labelled recordings, by the session that streams them.
//!
//! Knows frames and true classes; neither files nor training.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::frame::{Frames, SlotFrames};
use crate::model::Model;
use crate::nn::{CELLS, Network, Trace};
use crate::prediction::{Record, Records, Segment, Totals, Verdict};
use crate::session::{Rules, Session};

/// Elapsed milliseconds of the table of time to decision.
pub const ANYTIME_MS: &[u64] = &[1, 2, 3, 4, 5, 8, 12, 16];

/// The running answer after one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// End of the window, µs since the recording's first window began.
    pub elapsed_us: u64,
    /// Events of the recording so far.
    pub events: u64,
    /// The answer.
    pub verdict: Verdict,
}

/// How one recording was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Answers window by window.
    pub answers: Vec<Answer>,
    /// The answer at its end: of its last segment.
    pub verdict: Verdict,
    /// Segments, named or not.
    pub segments: Vec<Segment>,
    /// Synaptic operations: each event and each spike reaches so many neurons.
    pub synaptic_operations: u64,
    /// Spikes, of all layers that spike.
    pub spikes: u64,
}

impl Reading {
    /// The answer that stood when `elapsed_us` had passed.
    pub fn after(&self, elapsed_us: u64) -> Option<u16> {
        let passed = self.answers.iter().take_while(|answer| answer.elapsed_us <= elapsed_us);
        passed.last().and_then(|answer| answer.verdict.class)
    }

    /// The answer that stood when so many events had been seen.
    pub fn after_events(&self, events: u64) -> Option<u16> {
        let passed = self.answers.iter().take_while(|answer| answer.events <= events);
        passed.last().and_then(|answer| answer.verdict.class)
    }
}

/// Reads recordings one after another, each from a fresh state, as `replay` does.
pub struct Reader {
    network: Arc<Network>,
    session: Session,
    fan_out: FanOut,
}

/// How many neurons an event and a spike of each layer reach.
struct FanOut {
    event: u64,
    /// By place in the trace.
    spikes: Vec<(usize, u64)>,
}

impl Reader {
    /// A reader by a model's own rules, or others.
    ///
    /// # Errors
    /// When the state cannot be allocated.
    pub fn new(model: &Model, rules: Rules) -> Result<Self> {
        let session = Session::new(model.network.clone(), rules, 1)?;
        Ok(Reader { network: model.network.clone(), session, fan_out: FanOut::of(model) })
    }

    /// Reads one recording's frames.
    ///
    /// # Errors
    /// When the network fails.
    pub fn read(&mut self, frames: &Frames) -> Result<Reading> {
        self.read_traced(frames).map(|(reading, _)| reading)
    }

    /// [`Reader::read`], with every neuron's state after every window.
    ///
    /// # Errors
    /// When the network fails.
    pub fn read_traced(&mut self, frames: &Frames) -> Result<(Reading, Trace)> {
        let mut records = Records::default();
        let n_classes = self.session.n_classes();
        self.session.start_trace();
        let slot = [SlotFrames { slot: 0, frames: frames.clone() }];
        let stepped = self.session.step(&slot, &mut records);
        self.session.finish(0, Totals::default(), None, &mut records);
        stepped?;
        let mut reading = Reading::default();
        let first_us = frames.windows().first().map_or(0, |window| window.t_start_us);
        for (_, record, _) in records.iter(n_classes) {
            match record {
                Record::Prediction(prediction) => {
                    let before = reading.answers.last().map_or(0, |answer| answer.events);
                    reading.answers.push(Answer {
                        elapsed_us: prediction.t_us.saturating_sub(first_us),
                        events: before + u64::from(prediction.events),
                        verdict: prediction.verdict,
                    });
                }
                Record::Summary(summary) => {
                    reading.verdict = summary.verdict;
                }
                Record::Segment(segment) => reading.segments.push(*segment),
                Record::Error { .. } => (),
            }
        }
        let events = reading.answers.last().map_or(0, |answer| answer.events);
        let trace = self.session.take_trace().unwrap_or_else(|| self.network.trace());
        (reading.spikes, reading.synaptic_operations) = self.fan_out.count(events, &trace);
        Ok((reading, trace))
    }
}

impl FanOut {
    fn of(model: &Model) -> Self {
        let layers: Vec<_> = model.network.layers().collect();
        let (mut spikes, mut place) = (Vec::new(), 0);
        for (k, layer) in layers.iter().enumerate() {
            let Some(kind) = CELLS.iter().find(|kind| kind.name == layer.cell) else { continue };
            if kind.spikes {
                let above = layers.get(k + 1).map_or(0, |layer| layer.neurons);
                let own = if layer.recurrent { layer.neurons } else { 0 };
                spikes.push((place + kind.output, (above + own) as u64));
            }
            place += kind.variables.len();
        }
        FanOut { event: layers.first().map_or(0, |layer| layer.neurons as u64), spikes }
    }

    /// Spikes, and synaptic operations.
    fn count(&self, events: u64, trace: &Trace) -> (u64, u64) {
        let (mut spikes, mut operations) = (0, events * self.event);
        for (place, fan_out) in &self.spikes {
            let traced = trace.variables().get(*place);
            let fired =
                traced.iter().flat_map(|variable| &variable.rows).filter(|z| **z != 0.0).count()
                    as u64;
            spikes += fired;
            operations += fired * fan_out;
        }
        (spikes, operations)
    }
}

/// A share of recordings read right, with the 95 % interval of Wilson's score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Recordings read right.
    pub right: u64,
    /// Recordings.
    pub n: u64,
    /// right / n.
    pub share: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Share {
    /// `right` of `n`.
    pub fn of(right: u64, n: u64) -> Self {
        if n == 0 {
            return Share { high: 1.0, ..Share::default() };
        }
        const Z: f64 = 1.959_963_984_540_054;
        let (total, share) = (n as f64, right as f64 / n as f64);
        let middle = share + Z * Z / (2.0 * total);
        let half = Z * (share * (1.0 - share) / total + Z * Z / (4.0 * total * total)).sqrt();
        let scale = 1.0 + Z * Z / total;
        let low = ((middle - half) / scale).max(0.0);
        let high = ((middle + half) / scale).min(1.0);
        Share { right, n, share, low, high }
    }
}

impl std::iter::Sum for Share {
    fn sum<I: Iterator<Item = Share>>(shares: I) -> Share {
        let (right, n) =
            shares.fold((0, 0), |(right, n), share| (right + share.right, n + share.n));
        Share::of(right, n)
    }
}

/// How a model reads a set of recordings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Names of the classes.
    pub labels: Vec<String>,
    /// All recordings.
    pub accuracy: Share,
    /// By true class.
    pub by_class: Vec<Share>,
    /// Recordings by true class (rows) and by answer (columns); the last column is `unknown`.
    pub confusion: Vec<Vec<u64>>,
    /// Accuracy when so many milliseconds had passed.
    pub after_ms: Vec<(u64, f64)>,
    /// Accuracy when so many events had been seen.
    pub after_events: Vec<(u64, f64)>,
    /// Windows stepped.
    pub windows: u64,
    /// Synaptic operations a window.
    pub synaptic_operations: f64,
    /// Spikes a window.
    pub spikes: f64,
}

impl Score {
    /// Scores readings, each with its true class.
    pub fn of<'a>(
        labels: &[String],
        read: impl Iterator<Item = (usize, &'a Reading)> + Clone,
    ) -> Self {
        let n_classes = labels.len();
        let mut confusion = vec![vec![0; n_classes + 1]; n_classes];
        let (mut windows, mut operations, mut spikes) = (0u64, 0u64, 0u64);
        for (class, reading) in read.clone() {
            let answer = reading.verdict.class.map_or(n_classes, usize::from);
            confusion[class][answer] += 1;
            windows += reading.answers.len() as u64;
            operations += reading.synaptic_operations;
            spikes += reading.spikes;
        }
        let by_class: Vec<_> = confusion
            .iter()
            .enumerate()
            .map(|(class, row)| Share::of(row[class], row.iter().sum()))
            .collect();
        let accuracy: Share = by_class.iter().copied().sum();
        let share = |answer: &dyn Fn(&Reading) -> Option<u16>| {
            let right =
                read.clone().filter(|(c, reading)| answer(reading).map(usize::from) == Some(*c));
            right.count() as f64 / accuracy.n.max(1) as f64
        };
        let longest_us = |r: &Reading| r.answers.last().map_or(0, |answer| answer.elapsed_us);
        let longest_ms = read.clone().map(|(_, r)| longest_us(r)).max().unwrap_or(0).div_ceil(1000);
        let after_ms = |ms: u64| (ms, share(&|reading| reading.after(ms * 1000)));
        let events = read.clone().filter_map(|(_, r)| r.answers.last()).map(|a| a.events).max();
        let after_events = |n: u64| (n, share(&|reading| reading.after_events(n)));
        let per_window = |sum: u64| sum as f64 / windows.max(1) as f64;
        Score {
            labels: labels.to_vec(),
            accuracy,
            by_class,
            confusion,
            after_ms: marks(longest_ms).map(after_ms).collect(),
            after_events: marks(events.unwrap_or(0)).map(after_events).collect(),
            windows,
            synaptic_operations: per_window(operations),
            spikes: per_window(spikes),
        }
    }

    /// Accuracy after the milliseconds of [`ANYTIME_MS`]; beyond the longest recording, its end's.
    pub fn anytime(&self) -> Vec<(u64, f64)> {
        let at = |ms: u64| self.after_ms.iter().take_while(|(mark, _)| *mark <= ms).last();
        ANYTIME_MS.iter().map(|ms| (*ms, at(*ms).map_or(0.0, |(_, share)| *share))).collect()
    }
}

/// 1, 2, 3 … up to `end`, at most about two hundred of them, and `end`.
fn marks(end: u64) -> impl Iterator<Item = u64> {
    let step = (end / 200).max(1);
    let until = end;
    (1..=16.min(end))
        .chain(
            (1..)
                .map(move |k| k * step)
                .skip_while(|mark| *mark <= 16)
                .take_while(move |mark| *mark < until),
        )
        .chain((end > 16).then_some(end))
}
