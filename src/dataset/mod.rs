//! Dataset: labelled recordings in a folder, through the codecs, view and windows of streaming.
//!
//! Knows files, events and frames; no network and no training.

mod cut;
mod find;
pub mod split;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::codec::{DecoderOptions, Format};
use crate::error::{Error, Result};
use crate::event::{Event, Sensor, SensorSize};
use crate::frame::Frames;
use crate::prediction::Losses;
use crate::recording;
use crate::view::{View, ViewSpec};
use crate::window::{Partial, WindowConfig};

pub use cut::Cutter;
use find::Found;

/// Longest training recording, in windows.
pub const MAX_WINDOWS: u64 = 100_000;

/// How a dataset is read.
#[derive(Clone)]
pub struct Loading {
    /// The network's sensor; else what the view leaves of the recordings' own, or the smallest
    /// square that holds all events where no recording names a size.
    pub sensor: Option<SensorSize>,
    /// Length of a window in µs.
    pub window_us: u64,
    /// Silence beyond which windows are not emitted; `None` keeps all.
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
    /// Its events in the network's coordinates; empty unless they are kept.
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
    /// Events that did not reach a window, all recordings together.
    pub losses: Losses,
}

/// A recording before view and windows.
struct Decoded {
    events: Vec<Event>,
    sensor: Sensor,
    malformed: u64,
}

/// Reads all recordings of a folder.
///
/// # Errors
/// Where there is no such folder, no recording, fewer than two classes or an empty class folder,
/// labels other than the model's; with `strict`, the first fault.
pub fn load(
    folder: &Path,
    loading: &Loading,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Dataset> {
    let Found { labels, recordings, mut notes } = find::find(folder, loading)?;
    let done = AtomicUsize::new(0);
    let decode = |recording: &find::Recording| {
        let decoded = decode(&recording.path, loading);
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, recordings.len());
        decoded
    };
    let finish = |recording: &find::Recording, decoded: Decoded, sensor| {
        sample(recording, decoded, loading, sensor)
    };
    let named = match loading.sensor {
        Some(sensor) => Some(sensor),
        None => {
            recordings.iter().find_map(|r| decode_ok(r, loading)).and_then(|d| seen(&d, loading))
        }
    };
    let (sensor, samples) = match named {
        Some(sensor) => {
            let read = |r: &find::Recording| decode(r).and_then(|d| finish(r, d, sensor));
            (sensor, in_parallel(&recordings, loading.threads, read))
        }
        None => {
            let decoded = in_parallel(&recordings, loading.threads, decode);
            let sensor = smallest_square(decoded.iter().flatten());
            notes.push(format!(
                "no recording names its sensor's size: it is taken as {sensor}, the smallest \
                 square that holds every event (--sensor WxH says otherwise)"
            ));
            let samples = recordings.iter().zip(decoded);
            (sensor, samples.map(|(r, d)| d.and_then(|d| finish(r, d, sensor))).collect())
        }
    };
    let mut dataset = Dataset {
        labels,
        sensor,
        samples: vec![],
        faults: vec![],
        notes,
        losses: Losses::default(),
    };
    for (recording, read) in recordings.iter().zip(samples) {
        match read {
            Ok((sample, losses)) => {
                dataset.samples.push(sample);
                dataset.losses += losses;
            }
            Err(error) if loading.strict => return Err(named_error(&recording.name, &error)),
            Err(error) => dataset
                .faults
                .push(Fault { name: recording.name.clone(), message: error.to_string() }),
        }
    }
    dataset.check(folder)?;
    Ok(dataset)
}

impl Dataset {
    fn check(&self, folder: &Path) -> Result<()> {
        if self.samples.is_empty() {
            let first = self.faults.first();
            let why = first.map(|f| format!("; {}: {}", f.name, f.message)).unwrap_or_default();
            return Err(Error::Mismatch(format!(
                "{}: none of {} recordings could be used{why}",
                folder.display(),
                self.faults.len()
            )));
        }
        for (class, label) in self.labels.iter().enumerate() {
            if !self.samples.iter().any(|sample| sample.class == class) {
                return Err(Error::Mismatch(format!(
                    "{}: no recording of class '{label}' could be used",
                    folder.display()
                )));
            }
        }
        Ok(())
    }
}

fn named_error(name: &str, error: &Error) -> Error {
    Error::Mismatch(format!("{name}: {error} (without --strict it would be left out)"))
}

fn decode_ok(recording: &find::Recording, loading: &Loading) -> Option<Decoded> {
    decode(&recording.path, loading).ok()
}

fn decode(path: &Path, loading: &Loading) -> Result<Decoded> {
    let mut events = Vec::new();
    let (facts, read) = recording::read(path, loading.format, &loading.decoder, &mut |_, chunk| {
        events.extend_from_slice(chunk);
        Ok(())
    });
    read?;
    if events.is_empty() {
        return Err(Error::Unsupported("it holds no events".to_owned()));
    }
    Ok(Decoded { events, sensor: facts.sensor, malformed: facts.tally.malformed })
}

/// What the view leaves of the recording's own sensor, where that has a size.
fn seen(decoded: &Decoded, loading: &Loading) -> Option<SensorSize> {
    loading.view.seen(loading.view.sensor.or(decoded.sensor.size))
}

fn smallest_square<'a>(decoded: impl Iterator<Item = &'a Decoded>) -> SensorSize {
    let events = decoded.flat_map(|decoded| &decoded.events);
    let side = events.map(|event| event.x.max(event.y)).max().unwrap_or(0).saturating_add(1);
    let side = side.min(Event::OUTSIDE - 1);
    SensorSize { width: side, height: side }
}

fn sample(
    recording: &find::Recording,
    decoded: Decoded,
    loading: &Loading,
    sensor: SensorSize,
) -> Result<(Sample, Losses)> {
    let Decoded { mut events, sensor: own, malformed } = decoded;
    View::new(&loading.view, &own, sensor)?.apply(&mut events);
    let first_us = events[0].t_us;
    let last_us = events.iter().map(|event| event.t_us).max().unwrap_or(first_us);
    let windows = (last_us.saturating_sub(first_us)) / loading.window_us;
    if loading.gap_us.is_none() && windows >= MAX_WINDOWS {
        return Err(Error::Unsupported(format!(
            "it spans {windows} windows, of at most {MAX_WINDOWS}: cut it, or train with longer \
             windows"
        )));
    }
    let config = WindowConfig {
        sensor,
        window_us: loading.window_us,
        gap_us: loading.gap_us.unwrap_or(MAX_WINDOWS * loading.window_us),
        origin: Default::default(),
        partial: loading.partial,
    };
    let mut frames = Frames::default();
    let mut losses = Cutter::new(config).cut(&events, 0, &mut frames);
    losses.malformed += malformed;
    if !loading.keep_events {
        events = Vec::new();
    }
    let (name, class) = (recording.name.clone(), recording.class);
    Ok((Sample { name, class, first_us, last_us, events, frames }, losses))
}

/// `run` on all items, by several threads; results in the items' order.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    run: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let k = next.fetch_add(1, Ordering::Relaxed);
            let Some(result) = items.get(k).map(&run) else { break };
            *results[k].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.clamp(1, items.len().max(1)) {
            scope.spawn(work);
        }
        work();
    });
    let taken = |result: Mutex<_>| result.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().filter_map(taken).collect()
}
