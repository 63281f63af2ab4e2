//! `info`: what a recording or a model is.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;

use crate::codec::{DecoderOptions, Format, Tally};
use crate::error::Result;
use crate::event::{Event, Polarity, SensorSize};
use crate::model::Card;
use crate::recording::{Facts, read};
use crate::source::is_stdin;

/// What a recording is.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RecordingInfo {
    /// Name of the format.
    pub format: Option<&'static str>,
    /// Name of the format for people.
    #[serde(skip)]
    pub title: &'static str,
    /// Sensor size, where the recording names one.
    pub sensor: Option<SensorSize>,
    /// Events decoded.
    pub events: u64,
    /// How many of them are ON.
    pub on_events: u64,
    /// Time of the first event.
    pub first_us: Option<u64>,
    /// Time of the latest event.
    pub last_us: Option<u64>,
    /// Smallest and greatest column and row of an event.
    pub extent: Option<Extent>,
    /// Events whose pixel no sensor has.
    pub outside: u64,
    /// Events earlier than their predecessor.
    pub backward: u64,
    #[serde(skip)]
    previous_us: u64,
    /// What it holds besides good events.
    #[serde(flatten)]
    pub tally: Tally,
    /// Bytes of the file; of what is no file, those that were read.
    pub bytes: u64,
}

/// Smallest and greatest coordinates.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs)]
pub struct Extent {
    pub x_min: u16,
    pub x_max: u16,
    pub y_min: u16,
    pub y_max: u16,
}

impl RecordingInfo {
    /// Time from the first to the latest event; none without events.
    pub fn duration_us(&self) -> Option<u64> {
        Some(self.last_us? - self.first_us?)
    }

    /// Mean rate over that time; none where there is no such time.
    pub fn events_per_ms(&self) -> Option<f64> {
        let duration_us = self.duration_us().filter(|duration_us| *duration_us > 0)?;
        Some(self.events as f64 / (duration_us as f64 / 1000.0))
    }

    fn take(&mut self, events: &[Event]) {
        for event in events {
            self.events += 1;
            self.on_events += u64::from(event.polarity == Polarity::On);
            self.first_us.get_or_insert(event.t_us);
            let last_us = self.last_us.get_or_insert(event.t_us);
            *last_us = event.t_us.max(*last_us);
            self.backward += u64::from(event.t_us < self.previous_us);
            self.previous_us = event.t_us;
            if !event.has_pixel() {
                self.outside += 1;
                continue;
            }
            let (x, y) = (event.x, event.y);
            let extent =
                self.extent.get_or_insert(Extent { x_min: x, x_max: x, y_min: y, y_max: y });
            extent.x_min = extent.x_min.min(x);
            extent.x_max = extent.x_max.max(x);
            extent.y_min = extent.y_min.min(y);
            extent.y_max = extent.y_max.max(y);
        }
    }
}

/// Reads a recording to its end. Damage comes beside what was read before it.
pub fn recording(
    path: &Path,
    format: Option<&'static Format>,
    options: &DecoderOptions,
) -> (RecordingInfo, Result<()>) {
    let mut info = RecordingInfo::default();
    let (facts, result) = read(path, format, options, &mut |_, events| {
        info.take(events);
        Ok(())
    });
    let Facts { format, sensor, tally, bytes } = facts;
    let file = std::fs::metadata(path).ok().filter(|file| file.is_file() && !is_stdin(path));
    let info = RecordingInfo {
        format: format.map(|format| format.name),
        title: format.map_or("unknown format", |format| format.title),
        sensor: sensor.size,
        tally,
        bytes: file.map_or(bytes, |file| file.len()),
        ..info
    };
    (info, result)
}

/// Whether a file is a model rather than a recording: a safetensors header, or that name.
pub fn is_model(path: &Path) -> bool {
    let named = path.extension().is_some_and(|extension| extension == "safetensors");
    if named || !std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return named;
    }
    let mut start = [0; 10];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start[5..] == *b"\0\0\0{\""
}

/// Number of weights of a model.
pub fn weights(card: &Card) -> usize {
    let layer = |layer: &crate::nn::LayerSpec| {
        layer.neurons * (layer.inputs + if layer.recurrent { layer.neurons } else { 0 })
    };
    card.layers.iter().map(layer).sum()
}
