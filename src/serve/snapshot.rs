//! Snapshot: a named stream between two events, in one safetensors file. What each stage saves is
//! that stage's; here it is put together, with what tells whether it may be gone on from.
//!
//! Bytes only; knows no file and no socket.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::config::StreamConfig;
use super::token::sha256;
use crate::engine::Resumed;
use crate::error::{Error, Result};
use crate::ingest::IngestState;
use crate::session::{Rules, SlotState};
use crate::view::ViewSpec;
use crate::window::WindowConfig;

/// Version of the files that this build writes and reads.
pub const VERSION: u32 = 3;
/// Greatest size of a file.
pub const MAX_SNAPSHOT_BYTES: u64 = 64 << 20;

/// Bytes of all but the tensors, about.
const TEXT_BYTES: usize = 2 << 10;

/// The one metadata key.
const KEY: &str = "dvs-stream-snapshot";
/// The digest, in hexadecimal, over everything else.
const DIGEST: &str = "sha256";
/// Names and types of the tensors.
const TENSORS: [(&str, Dtype); 6] = [
    ("row", Dtype::F32),
    ("readout.logits", Dtype::F32),
    ("readout.sums", Dtype::F64),
    ("readout.history", Dtype::F32),
    ("window.addresses", Dtype::U32),
    ("window.counts", Dtype::U16),
];

/// A stream as it stood.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    version: u32,
    /// Name of the stream.
    pub stream: String,
    /// What it was read and answered with.
    pub settings: Settings,
    /// When it was saved, in µs since 1970.
    pub saved_us: u64,
    /// The stream ended there; otherwise what came afterwards is lost.
    pub ended: bool,
    /// The stream up to its windows.
    pub ingest: IngestState,
    /// The stream from its windows on.
    pub slot: SlotState,
}

/// What a state depends on besides the events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Digest of the model's file.
    pub model: String,
    /// How events are cut.
    pub window: WindowConfig,
    /// How voltages become answers.
    pub rules: Rules,
    /// The view that was asked for.
    pub view: ViewSpec,
    /// Which event stream of several.
    pub stream_id: Option<i32>,
}

impl Settings {
    /// Those of a stream that is taken like this by the model of this digest.
    pub fn of(config: &StreamConfig, model: &str) -> Self {
        let StreamConfig { reading, window, rules } = *config;
        let (view, stream_id) = (reading.view, reading.decoder.stream_id);
        Settings { model: model.to_owned(), window, rules, view, stream_id }
    }

    /// What differs from others, the first of it.
    pub fn difference(&self, other: &Settings) -> Option<&'static str> {
        let differs = [
            ("another model", self.model != other.model),
            ("another window or gap", self.window != other.window),
            ("another readout, silence or confidence", self.rules != other.rules),
            ("another view", self.view != other.view),
            ("another event stream of the camera", self.stream_id != other.stream_id),
        ];
        differs.into_iter().find_map(|(what, differs)| differs.then_some(what))
    }
}

impl Snapshot {
    /// A stream that stands like this now.
    pub fn new(
        stream: &str,
        settings: Settings,
        ended: bool,
        ingest: IngestState,
        slot: SlotState,
    ) -> Self {
        let saved_us = now_us();
        Snapshot {
            version: VERSION,
            stream: stream.to_owned(),
            settings,
            saved_us,
            ended,
            ingest,
            slot,
        }
    }

    /// Time since it was saved.
    pub fn age(&self) -> Duration {
        Duration::from_micros(now_us().saturating_sub(self.saved_us))
    }

    /// How the stream goes on, in ingest and in the engine. What was lost is counted as a restart.
    pub fn resume(self) -> (IngestState, Resumed) {
        let Snapshot { mut ingest, slot, ended, .. } = self;
        let place = &mut ingest.windower.place;
        let counted = place.totals();
        if !ended {
            place.count_restart();
        }
        (ingest, Resumed { slot, counted })
    }

    /// Bytes that it takes, about.
    pub fn size(&self) -> usize {
        let (readout, windower) = (&self.slot.readout, &self.ingest.windower);
        let by_four = [&self.slot.row, &readout.logits, &readout.history].map(Vec::len);
        let by_four = by_four.iter().sum::<usize>() + windower.addresses.len();
        TEXT_BYTES + 4 * by_four + 8 * readout.sums.len() + 2 * windower.counts.len()
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// When it cannot be written, or is larger than [`MAX_SNAPSHOT_BYTES`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let text = serde_json::to_string(self).map_err(|error| unsaved(&error))?;
        let (readout, windower) = (&self.slot.readout, &self.ingest.windower);
        let data = [
            packed(&self.slot.row, |v| v.to_le_bytes()),
            packed(&readout.logits, |v| v.to_le_bytes()),
            packed(&readout.sums, |v| v.to_le_bytes()),
            packed(&readout.history, |v| v.to_le_bytes()),
            packed(&windower.addresses, |v| v.to_le_bytes()),
            packed(&windower.counts, |v| v.to_le_bytes()),
        ];
        let digest = digest(&text, data.iter().map(Vec::as_slice));
        let views = TENSORS.iter().zip(&data).map(|((name, dtype), data)| (*name, *dtype, &**data));
        let views = views.chain([(DIGEST, Dtype::U8, digest.as_bytes())]);
        let views = views.map(|(name, dtype, data)| {
            let length = data.len() * 8 / dtype.bitsize();
            TensorView::new(dtype, vec![length], data).map(|view| (name, view))
        });
        let views: std::result::Result<Vec<_>, _> = views.collect();
        let metadata = HashMap::from([(KEY.to_owned(), text)]);
        let views = views.map_err(|error| unsaved(&error))?;
        let bytes =
            safetensors::serialize(views, Some(metadata)).map_err(|error| unsaved(&error))?;
        if bytes.len() as u64 > MAX_SNAPSHOT_BYTES {
            return Err(unsaved(&format!("it has more than {MAX_SNAPSHOT_BYTES} bytes")));
        }
        Ok(bytes)
    }

    /// Reads a file; `None` where it is another version's.
    ///
    /// # Errors
    /// When it is damaged. That the numbers of a whole file fit a network, a session tells.
    pub fn from_bytes(bytes: &[u8]) -> Result<Option<Self>> {
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| damaged(&error))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| damaged(&error))?;
        let text = metadata.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
        let text = text.ok_or_else(|| damaged(&format!("it has no '{KEY}' metadata")))?;
        let data = |name: &str, dtype: Dtype| {
            let view = tensors.tensor(name).ok().filter(|view| view.dtype() == dtype);
            view.map(|view| view.data()).ok_or_else(|| damaged(&format!("no tensor '{name}'")))
        };
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let versioned: Versioned = serde_json::from_str(text).map_err(|error| damaged(&error))?;
        if versioned.version != VERSION {
            return Ok(None);
        }
        let mut all = [&[][..]; TENSORS.len()];
        for (data_of, (name, dtype)) in all.iter_mut().zip(TENSORS) {
            *data_of = data(name, dtype)?;
        }
        if data(DIGEST, Dtype::U8)? != digest(text, all.into_iter()).as_bytes() {
            return Err(damaged(&"its digest is that of other bytes"));
        }
        let mut snapshot: Snapshot = serde_json::from_str(text).map_err(|error| damaged(&error))?;
        let [row, logits, sums, history, addresses, counts] = all;
        let (readout, windower) = (&mut snapshot.slot.readout, &mut snapshot.ingest.windower);
        readout.logits = unpacked(logits, f32::from_le_bytes);
        readout.sums = unpacked(sums, f64::from_le_bytes);
        readout.history = unpacked(history, f32::from_le_bytes);
        windower.addresses = unpacked(addresses, u32::from_le_bytes);
        windower.counts = unpacked(counts, u16::from_le_bytes);
        snapshot.slot.row = unpacked(row, f32::from_le_bytes);
        Ok(Some(snapshot))
    }
}

fn packed<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|value| bytes(*value)).collect()
}

fn unpacked<T, const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|bytes| value(*bytes)).collect()
}

/// Over the text and the tensors, each with its length.
fn digest<'a>(text: &'a str, data: impl Iterator<Item = &'a [u8]>) -> String {
    let mut all = Vec::new();
    for part in std::iter::once(text.as_bytes()).chain(data) {
        all.extend_from_slice(&(part.len() as u64).to_le_bytes());
        all.extend_from_slice(part);
    }
    sha256(&all)
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn unsaved(error: &dyn std::fmt::Display) -> Error {
    Error::Unsupported(format!("the state cannot be put into bytes: {error}"))
}

fn damaged(error: &dyn std::fmt::Display) -> Error {
    Error::Unsupported(format!("no whole state of a stream: {error}"))
}
