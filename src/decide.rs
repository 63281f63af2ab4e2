//! From readout voltages to an answer: running readouts, silence, segments, names.
//!
//! Knows logits and event counts; neither networks nor streams. Everything here depends on events
//! alone, so file, socket and batch agree.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::frame::{Dropped, Window};
use crate::prediction::{Segment, Verdict};
use crate::quantity::{format_time_us, parse_time_us};

/// What the readout's voltage over a segment is turned into. Written as on the command line:
/// `last`, `max`, `max:20ms`, `mean`, `ema:10ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Readout {
    /// The voltage itself.
    Last,
    /// Its maximum since the segment began.
    Max,
    /// Its maximum over the last so many µs, the present window included.
    MaxOver(u64),
    /// Its mean over the segment.
    Mean,
    /// Its exponential average with this time constant in µs, from 0:
    /// y += (1 − e^(−dt/τ))·(v − y).
    Ema(u64),
}

/// Most windows or events that a state may have counted.
pub const MAX_COUNTED: u64 = 1 << 62;

/// Longest span of a sliding maximum.
pub const MAX_READOUT_WINDOWS: u64 = 10_000;

impl FromStr for Readout {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let span = |time: &str| parse_time_us(time).filter(|t_us| *t_us > 0);
        let readout = match text.split_once(':') {
            None => match text {
                "last" => Some(Readout::Last),
                "max" => Some(Readout::Max),
                "mean" => Some(Readout::Mean),
                _ => None,
            },
            Some(("max", time)) => span(time).map(Readout::MaxOver),
            Some(("ema", time)) => span(time).map(Readout::Ema),
            Some(_) => None,
        };
        readout.ok_or_else(|| {
            Error::Usage(format!(
                "no readout is called '{text}': there are last, max, mean, max:TIME and ema:TIME \
                 (a time as 20ms, 1.5s or 500us)"
            ))
        })
    }
}

impl fmt::Display for Readout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Readout::Last => write!(f, "last"),
            Readout::Max => write!(f, "max"),
            Readout::Mean => write!(f, "mean"),
            Readout::MaxOver(t_us) => write!(f, "max:{}", format_time_us(*t_us)),
            Readout::Ema(t_us) => write!(f, "ema:{}", format_time_us(*t_us)),
        }
    }
}

impl TryFrom<String> for Readout {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Readout> for String {
    fn from(readout: Readout) -> String {
        readout.to_string()
    }
}

/// A readout of one stream: logits after each window of a segment.
#[derive(Clone, Debug)]
pub struct RunningReadout {
    kind: Kind,
    at: ReadoutState,
}

/// Where a readout stands in its segment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadoutState {
    /// Windows so far.
    pub n: u64,
    /// After the last of them, one a class.
    #[serde(skip)]
    pub logits: Vec<f32>,
    /// Of all voltages, one a class, where the readout is their mean; else 0.
    #[serde(skip)]
    pub sums: Vec<f64>,
    /// The voltages of the windows that a sliding maximum runs over, overwritten in turn.
    #[serde(skip)]
    pub history: Vec<f32>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Last,
    Max,
    MaxOver { windows: usize },
    Mean,
    Ema { share: f32 },
}

impl RunningReadout {
    /// For `n_classes` voltages a window of `window_us`.
    pub fn new(readout: Readout, n_classes: usize, window_us: u64) -> Self {
        let kind = match readout {
            Readout::Last => Kind::Last,
            Readout::Max => Kind::Max,
            Readout::Mean => Kind::Mean,
            Readout::MaxOver(t_us) => {
                let windows = (t_us / window_us).clamp(1, MAX_READOUT_WINDOWS);
                Kind::MaxOver { windows: windows as usize }
            }
            Readout::Ema(tau_us) => {
                Kind::Ema { share: 1.0 - (-(window_us as f32) / tau_us as f32).exp() }
            }
        };
        let kept = if let Kind::MaxOver { windows } = kind { windows * n_classes } else { 0 };
        RunningReadout {
            kind,
            at: ReadoutState {
                n: 0,
                logits: vec![0.0; n_classes],
                sums: vec![0.0; n_classes],
                history: Vec::with_capacity(kept),
            },
        }
    }

    /// The readout as it stands.
    pub fn save(&self) -> ReadoutState {
        self.at.clone()
    }

    /// Goes on with one that was saved.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when that was of other classes or another kind.
    pub fn restore(&mut self, saved: &ReadoutState) -> Result<()> {
        let n_classes = self.at.logits.len();
        let kept = match self.kind {
            Kind::MaxOver { windows } => saved.n.min(windows as u64) as usize * n_classes,
            _ => 0,
        };
        let lengths = [saved.logits.len(), saved.sums.len(), saved.history.len()];
        if lengths != [n_classes, n_classes, kept] || saved.n > MAX_COUNTED {
            return Err(Error::Mismatch("the state of its readout is not one".to_owned()));
        }
        self.at.clone_from(saved);
        Ok(())
    }

    /// A segment begins.
    pub fn reset(&mut self) {
        self.at.n = 0;
        self.at.logits.fill(0.0);
        self.at.sums.fill(0.0);
        self.at.history.clear();
    }

    /// Takes the voltages after one window and gives the logits.
    pub fn push(&mut self, voltages: &[f32]) -> &[f32] {
        self.at.n += 1;
        match self.kind {
            Kind::Last => self.at.logits.copy_from_slice(voltages),
            Kind::Max if self.at.n == 1 => self.at.logits.copy_from_slice(voltages),
            Kind::Max => {
                for (logit, v) in self.at.logits.iter_mut().zip(voltages) {
                    *logit = logit.max(*v);
                }
            }
            Kind::MaxOver { windows } => self.slide(windows, voltages),
            Kind::Mean => {
                for ((logit, sum), v) in
                    self.at.logits.iter_mut().zip(&mut self.at.sums).zip(voltages)
                {
                    *sum += f64::from(*v);
                    *logit = (*sum / self.at.n as f64) as f32;
                }
            }
            Kind::Ema { share } => {
                for (logit, v) in self.at.logits.iter_mut().zip(voltages) {
                    *logit += share * (*v - *logit);
                }
            }
        }
        &self.at.logits
    }

    /// The order of the kept rows does not matter to their maximum, so they are overwritten in
    /// turn; it is looked for anew only where it is the value that leaves.
    fn slide(&mut self, windows: usize, voltages: &[f32]) {
        let n_classes = voltages.len();
        let ReadoutState { n, logits, history, .. } = &mut self.at;
        let row = ((*n - 1) % windows as u64) as usize * n_classes;
        if *n == 1 {
            logits.fill(f32::NEG_INFINITY);
        }
        if row == history.len() {
            history.resize(row + n_classes, f32::NEG_INFINITY);
        }
        for (k, (logit, v)) in logits.iter_mut().zip(voltages).enumerate() {
            let left = std::mem::replace(&mut history[row + k], *v);
            *logit = if left < *logit {
                logit.max(*v)
            } else {
                history[k..].iter().step_by(n_classes).copied().fold(f32::NEG_INFINITY, f32::max)
            };
        }
    }
}

/// Class of the greatest logit (the lowest of equals) and its softmax; 0 where voltages have
/// overflowed and no logit is the greatest.
pub fn verdict(logits: &[f32]) -> (u16, f32) {
    let mut class = 0;
    for (k, logit) in logits.iter().enumerate() {
        if *logit > logits[class] {
            class = k;
        }
    }
    let greatest = logits.get(class).copied().unwrap_or(0.0);
    let sum: f32 = logits.iter().map(|logit| (logit - greatest).exp()).sum();
    (class as u16, if sum.is_nan() { 0.0 } else { 1.0 / sum.max(1.0) })
}

/// What silence means: how few events make a window quiet, and how many such windows end a
/// segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Silence {
    /// A window with at most so many events is quiet.
    pub quiet_events: u32,
    /// So many quiet windows in a row end the segment.
    pub gap_windows: u64,
}

/// What a window does to its stream's segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Turn {
    /// The open segment ends before it.
    pub ends: bool,
    /// It opens a segment: network and readout start from zero.
    pub opens: bool,
    /// That segment is the first of its stream or clock, with no silence before it.
    pub first: bool,
    /// It is stepped and predicted.
    pub steps: bool,
}

/// Where a stream stands between activity and silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activity {
    open: bool,
    fresh: bool,
    quiet_run: u64,
}

impl Default for Activity {
    fn default() -> Self {
        Activity { open: false, fresh: true, quiet_run: 0 }
    }
}

impl Activity {
    /// Whether a stream could stand like this.
    pub fn is_sound(&self) -> bool {
        self.quiet_run <= MAX_COUNTED
    }

    /// Follows windows in a row; gives what the next one is to tell if they are dropped.
    pub fn follow(&mut self, silence: &Silence, windows: &[Window]) -> Dropped {
        let mut ended = false;
        for window in windows {
            // What it tells of others was followed with them.
            let own = Window { dropped: None, ..*window };
            ended |= self.turn(silence, &own).ends && !window.restart;
        }
        Dropped { silence: ended, quiet_run: self.quiet_run }
    }

    /// The stream's next window.
    pub fn turn(&mut self, silence: &Silence, window: &Window) -> Turn {
        let mut ends = false;
        if let Some(Dropped { silence, quiet_run }) = window.dropped {
            ends = silence && std::mem::take(&mut self.open);
            self.fresh &= !silence;
            self.quiet_run = quiet_run;
        }
        if window.restart {
            ends |= std::mem::take(&mut self.open);
            self.fresh = true;
        }
        let quiet = window.events <= silence.quiet_events;
        self.quiet_run = if quiet { self.quiet_run + 1 } else { 0 };
        if self.open && self.quiet_run >= silence.gap_windows {
            self.open = false;
            return Turn { ends: true, ..Turn::default() };
        }
        let opens = !self.open && (self.fresh || !quiet);
        if opens {
            self.open = true;
            self.quiet_run = u64::from(quiet);
        }
        let first = opens && std::mem::take(&mut self.fresh);
        Turn { ends, opens, first, steps: self.open }
    }
}

/// A segment that opens out of silence is unnamed until it holds more events than so many quiet
/// windows could.
pub const NAMING_WINDOWS: u64 = 5;

/// The segment that a stream is in. Its label, end and counts are those of its last window that
/// was not quiet.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenSegment {
    from_us: u64,
    windows: u64,
    events: u64,
    /// The average that names a segment runs over so many windows at least.
    least_windows: u64,
    settled: Segment,
}

impl OpenSegment {
    /// A segment that begins at `from_us`. One that opens out of silence must hold more events
    /// than as many quiet windows as the gap has, at least [`NAMING_WINDOWS`], else a burst of
    /// noise would be named; a stream's first (`first`) has no silence before it.
    pub fn new(from_us: u64, first: bool, silence: &Silence) -> Self {
        OpenSegment {
            from_us,
            windows: 0,
            events: 0,
            least_windows: if first { 1 } else { silence.gap_windows.max(NAMING_WINDOWS) },
            settled: Segment { from_us, to_us: from_us, ..Segment::default() },
        }
    }

    /// Takes a stepped window with the network's answer and gives the verdict: unnamed while the
    /// segment holds no more than `quiet_events` a window on average, or where the confidence is
    /// below `min_confidence` or 0.
    pub fn push(
        &mut self,
        silence: &Silence,
        min_confidence: f32,
        window: &Window,
        (class, confidence): (u16, f32),
    ) -> Verdict {
        self.windows += 1;
        self.events += u64::from(window.events);
        let span = self.windows.max(self.least_windows);
        let active = self.events > span.saturating_mul(u64::from(silence.quiet_events));
        let named = active && confidence > 0.0 && confidence >= min_confidence;
        let verdict = Verdict { class: named.then_some(class), confidence };
        if window.events > silence.quiet_events {
            let Self { from_us, windows, events, .. } = *self;
            let to_us = window.t_end_us;
            self.settled = Segment { from_us, to_us, verdict, windows, events };
        }
        verdict
    }

    /// Whether a segment among so many classes could stand like this.
    pub fn is_sound(&self, n_classes: usize) -> bool {
        let Self { windows, events, least_windows, settled, .. } = *self;
        let counted = [windows, events, least_windows, settled.windows, settled.events];
        let class = settled.verdict.class.is_none_or(|class| usize::from(class) < n_classes);
        class && counted.iter().all(|n| *n <= MAX_COUNTED)
    }

    /// The segment as it is written when it ends.
    pub fn end(self) -> Segment {
        self.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readouts_read_back_what_they_write() {
        for text in ["last", "max", "mean", "max:20ms", "ema:10ms", "max:1500us", "ema:2s"] {
            assert_eq!(text.parse::<Readout>().unwrap().to_string(), text);
        }
        assert_eq!("max:1.5s".parse::<Readout>().unwrap(), Readout::MaxOver(1_500_000));
        assert_eq!("max:1.001ms".parse::<Readout>().unwrap(), Readout::MaxOver(1001));
        for text in [
            "",
            "min",
            "max:",
            "max:0ms",
            "ema:-1ms",
            "ema:10",
            "mean:5ms",
            "max:1e9s",
            "max:0.5us",
        ] {
            assert!(text.parse::<Readout>().is_err(), "{text}");
        }
    }

    /// Every readout against its definition over the whole segment.
    #[test]
    fn running_readouts_equal_their_definitions() {
        let voltages: Vec<[f32; 2]> =
            (0..40).map(|k| [(k as f32 * 0.7).sin(), -1.0 - (k as f32 * 1.3).cos()]).collect();
        let max = |rows: &[[f32; 2]], c: usize| rows.iter().map(|r| r[c]).fold(f32::MIN, f32::max);
        for (readout, tolerance) in [
            (Readout::Last, 0.0),
            (Readout::Max, 0.0),
            (Readout::MaxOver(5000), 0.0),
            (Readout::Mean, 1e-6),
            (Readout::Ema(10_000), 1e-6),
        ] {
            let mut running = RunningReadout::new(readout, 2, 1000);
            for segment in 0..2 {
                running.reset();
                for n in 1..=voltages.len() - segment {
                    let logits = running.push(&voltages[n - 1]).to_vec();
                    for c in 0..2 {
                        let seen = &voltages[..n];
                        let share = 1.0 - (-0.1f64).exp();
                        let expected = match readout {
                            Readout::Last => voltages[n - 1][c],
                            Readout::Max => max(seen, c),
                            Readout::MaxOver(_) => max(&seen[n.saturating_sub(5)..], c),
                            Readout::Mean => seen.iter().map(|r| r[c]).sum::<f32>() / n as f32,
                            Readout::Ema(_) => {
                                seen.iter().fold(0.0, |y, r| y + share * (f64::from(r[c]) - y))
                                    as f32
                            }
                        };
                        assert!((logits[c] - expected).abs() <= tolerance, "{readout} {n} {c}");
                    }
                }
            }
        }
    }

    #[test]
    fn verdict_is_softmax_and_ties_go_to_the_lowest() {
        assert_eq!(verdict(&[1.0, 3.0, 3.0]).0, 1);
        assert_eq!(verdict(&[0.0; 4]), (0, 0.25));
        for overflowed in [[f32::NAN, 0.0], [0.0, f32::NAN], [f32::INFINITY, 0.0]] {
            assert_eq!(verdict(&overflowed).1, 0.0);
        }
        let (class, confidence) = verdict(&[0.0, 2.0f32.ln(), -1000.0]);
        assert_eq!(class, 1);
        assert!((confidence - 2.0 / 3.0).abs() < 1e-6);
    }

    /// `.` is a window that is not quiet, `_` a quiet one, `|` a quiet one after a restart, `:` one
    /// that is not, after windows with a silence that were dropped. Out:
    /// `o` opens, `s` steps on, `e` ends (not stepped), `E` ends and opens, `-` nothing.
    fn check_turns(gap_windows: u64, windows: &str, expected: &str) {
        let silence = Silence { quiet_events: 5, gap_windows };
        let mut activity = Activity::default();
        let turns: String = windows
            .chars()
            .map(|window| {
                let window = Window {
                    events: if matches!(window, '.' | ':') { 6 } else { 5 },
                    restart: window == '|',
                    dropped: (window == ':').then_some(Dropped { silence: true, quiet_run: 2 }),
                    ..Window::default()
                };
                match activity.turn(&silence, &window) {
                    Turn { ends: true, opens: true, steps: true, .. } => 'E',
                    Turn { ends: true, opens: false, steps: false, .. } => 'e',
                    Turn { ends: false, opens: true, steps: true, .. } => 'o',
                    Turn { ends: false, opens: false, steps: true, .. } => 's',
                    Turn { ends: false, opens: false, steps: false, .. } => '-',
                    turn => panic!("{turn:?} at {window:?}"),
                }
            })
            .collect();
        assert_eq!(turns, expected, "{windows} with a gap of {gap_windows}");
    }

    /// However the windows are cut into batches, of which some are dropped, a segment that is open
    /// where the windows are kept ends where it would if all were.
    #[test]
    fn a_silence_that_was_dropped_in_part_ends_the_segment() {
        let silence = Silence { quiet_events: 5, gap_windows: 4 };
        let events = [9, 9, 0, 5, 1, 0, 9, 9, 9, 2, 2, 9];
        let windows = events.map(|events| Window { events, ..Window::default() });
        for (first, last) in
            (1..10).flat_map(|first| (first + 1..11).map(move |last| (first, last)))
        {
            let (mut whole, mut kept) = (Activity::default(), Activity::default());
            let count = |activity: &mut Activity, windows: &[Window]| {
                windows.iter().filter(|window| activity.turn(&silence, window).ends).count()
            };
            let mut ends = count(&mut kept, &windows[..first]);
            count(&mut whole, &windows[..first]);
            let dropped = whole.follow(&silence, &windows[first..last]);
            let mut after = windows[last..].to_vec();
            after[0].dropped = Some(dropped);
            ends += count(&mut kept, &after);
            assert_eq!(ends, 1, "dropped {first}..{last}");
        }
    }

    #[test]
    fn silence_ends_a_segment_and_activity_opens_the_next() {
        check_turns(2, "..._.__...", "ossssseoss");
        check_turns(2, "__..", "oeos");
        check_turns(3, "__.___.", "osssseo");
        check_turns(2, ".|..", "oEss");
        check_turns(2, ".__|__.", "oseoe-o");
        check_turns(2, "..:.__:.", "osEsseos");
    }
}
