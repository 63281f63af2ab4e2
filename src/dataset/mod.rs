//! Dataset: labelled recordings in a folder, through the codecs, view and windows of streaming.
//!
//! Knows files, events and frames; no network and no training.

mod cut;
mod find;
mod labels;
mod read;
pub mod split;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::codec::{DecoderOptions, Format};
use crate::error::{Error, Result};
use crate::event::{Event, SensorSize};
use crate::frame::Frames;
use crate::model::MAX_PIXELS;
use crate::prediction::Losses;
use crate::view::ViewSpec;
use crate::window::{Partial, WindowConfig};

pub use cut::{Cutter, MAX_WINDOWS, MIN_GAP_WINDOWS};
pub use find::is_of_dataset;
use find::{Found, Recording};
pub use read::MAX_EVENTS;
use read::{Settled, in_parallel};

/// How a dataset is read.
#[derive(Clone)]
pub struct Loading {
    /// The network's sensor; else what the view leaves of most recordings' own, or the smallest
    /// square that holds all events where no recording names a size.
    pub sensor: Option<SensorSize>,
    /// Length of a window in µs.
    pub window_us: u64,
    /// Silence beyond which windows are not emitted; `None` keeps all, as empty frames, and takes a
    /// clock for reset as early as any gap that is settled later may: [`Dataset::cut_again`].
    pub gap_us: Option<u64>,
    /// What becomes of the last window.
    pub partial: Partial,
    /// The view.
    pub view: ViewSpec,
    /// What decoders are told.
    pub decoder: DecoderOptions,
    /// The format, where it is not to be probed.
    pub format: Option<&'static Format>,
    /// Labels of a model; a dataset with others does not fit.
    pub labels: Option<Vec<String>>,
    /// The first fault is an error.
    pub strict: bool,
    /// Events are kept beside the frames.
    pub keep_events: bool,
    /// Threads that read.
    pub threads: usize,
}

impl Loading {
    /// How recordings are cut for a network of this sensor.
    pub fn windows(&self, sensor: SensorSize) -> WindowConfig {
        WindowConfig {
            sensor,
            window_us: self.window_us,
            gap_us: self.gap_us.unwrap_or(self.window_us.saturating_mul(MAX_WINDOWS)),
            origin: Default::default(),
            partial: self.partial,
        }
    }

    fn cutter(&self, sensor: SensorSize) -> Cutter {
        let mut cutter = Cutter::new(self.windows(sensor));
        if self.gap_us.is_none() {
            cutter.reset_after(MIN_GAP_WINDOWS * self.window_us);
        }
        cutter
    }
}

/// One labelled recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Path below the dataset's folder, its parts separated by `/`.
    pub name: String,
    /// Index of its label.
    pub class: usize,
    /// Time of its first event in µs.
    pub first_us: u64,
    /// Time of its latest event in µs.
    pub last_us: u64,
    /// Its events in the network's coordinates; empty unless they are kept, or to be cut again.
    pub events: Vec<Event>,
    /// Its windows.
    pub frames: Frames,
}

/// A recording that could not be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Path below the dataset's folder.
    pub name: String,
    /// What is wrong with it.
    pub message: String,
    /// How a command ends that left it out: 3 where it is another sensor's, else 1.
    pub exit_code: u8,
}

/// Labelled recordings.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Names of the classes, in the order of class indices.
    pub labels: Vec<String>,
    /// The network's sensor.
    pub sensor: SensorSize,
    /// Recordings by class, in each in natural order of their names (`cl_9` before `cl_10`).
    pub samples: Vec<Sample>,
    /// Recordings left out.
    pub faults: Vec<Fault>,
    /// What a user should know.
    pub notes: Vec<String>,
    /// Files that are no recordings.
    pub ignored: usize,
    /// Events that did not reach a window, all recordings together.
    pub losses: Losses,
}

/// Reads all recordings of a folder: those in class folders, or those that a label file names.
///
/// # Errors
/// Where there is no such folder, no recording, an empty class folder, or one class only; with
/// labels of a model, where there is another; with `strict`, the first fault, and labels or
/// recordings without their other half.
pub fn load(folder: &Path, loading: &Loading) -> Result<Dataset> {
    load_until(folder, loading, &AtomicBool::new(false))
}

/// [`load`], until it is stopped.
///
/// # Errors
/// As [`load`]; [`Error::Stopped`] where it was.
pub fn load_until(folder: &Path, loading: &Loading, stop: &AtomicBool) -> Result<Dataset> {
    let Found { labels, recordings, mut notes, ignored } = find::find(folder, loading)?;
    let settled = settle(&recordings, loading, stop);
    let sensor = settled.sensor;
    if sensor.pixels() > MAX_PIXELS {
        return Err(Error::Usage(format!(
            "a sensor of {sensor} pixels is larger than a network takes: cut a part out with \
             --crop X,Y,W,H"
        )));
    }
    notes.extend(settled.note.clone());
    let cutter = || loading.cutter(sensor);
    let read = in_parallel(&recordings, loading.threads, cutter, |cutter, recording| {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        read::sample(recording, loading, &settled, cutter)
    });
    if stop.load(Ordering::Relaxed) {
        return Err(Error::Stopped);
    }
    let (mut samples, mut faults, mut losses) = (Vec::new(), Vec::new(), Losses::default());
    let mut first = None;
    for (recording, read) in recordings.iter().zip(read) {
        match read {
            Ok((sample, lost)) => {
                samples.push(sample);
                losses += lost;
            }
            Err(error) => {
                let name = recording.name.clone();
                if loading.strict {
                    return Err(error.named(format!("{}: {name}", folder.display())));
                }
                faults.push(Fault::new(name, &error));
                first.get_or_insert(error);
            }
        }
    }
    notes.extend(lost(losses));
    let dataset = Dataset { labels, sensor, samples, faults, notes, ignored, losses };
    dataset.check(folder, loading, first)?;
    Ok(dataset)
}

/// What a user is told of events that reached no window, where there are any.
pub fn lost(losses: Losses) -> Option<String> {
    let Losses { late, outside, overflow, malformed } = losses;
    (!losses.is_none()).then(|| {
        format!(
            "events that reached no window: {outside} outside the sensor, {late} late, {overflow} \
             overflowing, {malformed} malformed"
        )
    })
}

/// The network's sensor. A recording that cannot be read has no say; its fault shows later.
fn settle(recordings: &[Recording], loading: &Loading, stop: &AtomicBool) -> Settled {
    if let Some(sensor) = loading.sensor {
        return Settled::asked(sensor);
    }
    let extent = |_: &mut (), recording: &Recording| {
        let stopped = stop.load(Ordering::Relaxed);
        if stopped { Err(Error::Stopped) } else { read::extent(&recording.path, loading) }
    };
    let extents = in_parallel(recordings, loading.threads, || (), extent);
    read::settle(&extents.into_iter().flatten().collect::<Vec<_>>())
}

impl Dataset {
    /// Places of the recordings whose clock may be reset; their events are kept where `loading` has
    /// no gap.
    pub fn resets(&self) -> Vec<usize> {
        let is_reset = |sample: &Sample| sample.frames.windows().iter().any(|w| w.restart);
        (0..self.samples.len()).filter(|k| is_reset(&self.samples[*k])).collect()
    }

    /// Cuts recordings again, as a stream with this gap takes a clock for reset, or as they were
    /// first cut. All of their silence stays.
    pub fn cut_again(&mut self, places: &[usize], loading: &Loading, gap_us: Option<u64>) {
        let mut cutter = loading.cutter(self.sensor);
        if let Some(gap_us) = gap_us {
            cutter.reset_after(gap_us);
        }
        for place in places {
            let Sample { events, frames, .. } = &mut self.samples[*place];
            *frames = Frames::default();
            cutter.cut(events, 0, frames);
        }
    }

    /// The highest exit code of what was left out, else 0.
    pub fn exit_code(&self) -> u8 {
        self.faults.iter().map(|fault| fault.exit_code).max().unwrap_or(0)
    }

    /// Refuses a class without a recording, for the reason of the first fault.
    fn check(&self, folder: &Path, loading: &Loading, first: Option<Error>) -> Result<()> {
        let refuse = |what: String| {
            let what = format!("{}: {what}", folder.display());
            Err(match (first, self.faults.first()) {
                (Some(error), Some(fault)) => error.named(format!("{what}, as {}", fault.name)),
                _ => Error::Usage(what),
            })
        };
        if self.samples.is_empty() {
            return refuse(format!("none of {} recordings can be used", self.faults.len()));
        }
        let used = |class| self.samples.iter().any(|sample| sample.class == class);
        match (0..self.labels.len()).find(|class| !used(*class)) {
            Some(class) if loading.labels.is_none() => {
                refuse(format!("no recording of class '{}' can be used", self.labels[class]))
            }
            _ => Ok(()),
        }
    }
}

impl Fault {
    /// Nobody named the file itself, so that it is none of wrong use.
    fn new(name: String, error: &Error) -> Self {
        let exit_code = if error.exit_code() == 3 { 3 } else { 1 };
        Fault { name, message: error.to_string(), exit_code }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.message)
    }
}
