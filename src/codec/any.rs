//! A decoder of whatever comes: holds the first bytes until their format is known, then is that
//! format's decoder.

use serde::{Deserialize, Serialize};

use super::probe::PROBE_BYTES;
use super::{Clock, DatagramFormat, Decoder, DecoderOptions, Format, Need, Probe, Tally, probe};
use crate::error::{Error, Result};
use crate::event::{Event, Sensor, SensorSize};

/// Decoder of a stream whose format its own bytes tell, or the caller names.
pub struct AnyDecoder {
    options: DecoderOptions,
    name: Option<String>,
    /// Of a stream that is gone on with, until its format is known.
    clock: Option<StreamClock>,
    stage: Stage,
}

/// A clock that runs over, and the format whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamClock {
    /// Name of the format.
    pub format: String,
    /// Where it stands.
    pub clock: Clock,
}

enum Stage {
    Probing(Vec<u8>),
    Decoding { format: &'static Format, decoder: Box<dyn Decoder> },
    Datagrams(Box<dyn Decoder>),
}

impl AnyDecoder {
    /// For a stream of a known format.
    pub fn of(format: &'static Format, options: &DecoderOptions) -> Self {
        let stage = Stage::Decoding { format, decoder: (format.decoder)(options) };
        AnyDecoder { options: *options, name: None, clock: None, stage }
    }

    /// For a stream whose format is to be told by its bytes, and where they have no mark by the
    /// extension of its name.
    pub fn probing(name: Option<&str>, options: &DecoderOptions) -> Self {
        let name = name.map(str::to_owned);
        AnyDecoder { options: *options, name, clock: None, stage: Stage::Probing(Vec::new()) }
    }

    /// For one sender's datagrams: each feed is one of them, and none fails. The sensor, where it
    /// is known, tells whose addresses they hold.
    pub fn datagrams(format: &DatagramFormat, sensor: Option<SensorSize>) -> Self {
        let stage = Stage::Datagrams((format.decoder)(sensor));
        AnyDecoder { options: DecoderOptions::default(), name: None, clock: None, stage }
    }

    /// The format, once it is known; none for datagrams.
    pub fn format(&self) -> Option<&'static Format> {
        match &self.stage {
            Stage::Decoding { format, .. } => Some(*format),
            Stage::Probing(_) | Stage::Datagrams(_) => None,
        }
    }

    /// Where the stream's clock stands, where it is one that runs over.
    pub fn save(&self) -> Option<StreamClock> {
        match &self.stage {
            Stage::Probing(_) => self.clock.clone(),
            Stage::Decoding { format, decoder } => {
                let format = format.name.to_owned();
                decoder.clock().map(|clock| StreamClock { format, clock })
            }
            Stage::Datagrams(_) => None,
        }
    }

    /// Goes on with the clock of a stream that was saved, if this one is of the same format;
    /// before the first feed.
    pub fn restore(&mut self, saved: Option<StreamClock>) {
        match (&mut self.stage, saved) {
            (Stage::Probing(_), saved) => self.clock = saved,
            (Stage::Decoding { format, decoder }, Some(saved)) if saved.format == format.name => {
                decoder.set_clock(saved.clock);
            }
            _ => (),
        }
    }

    fn decoder(&self) -> Option<&dyn Decoder> {
        match &self.stage {
            Stage::Decoding { decoder, .. } | Stage::Datagrams(decoder) => Some(&**decoder),
            Stage::Probing(_) => None,
        }
    }

    fn decoder_mut(&mut self) -> Option<&mut Box<dyn Decoder>> {
        match &mut self.stage {
            Stage::Decoding { decoder, .. } | Stage::Datagrams(decoder) => Some(decoder),
            Stage::Probing(_) => None,
        }
    }

    /// Settles the format if it can be told, and decodes what was held.
    fn settle(&mut self, at_end: bool, out: &mut Vec<Event>) -> Result<Need> {
        let Stage::Probing(held) = &mut self.stage else { return Ok(Need::More) };
        let format = match probe(held, self.name.as_deref(), at_end) {
            Probe::More => return Ok(Need::More),
            Probe::Unknown(error) => return Err(error),
            Probe::Format(format) => format,
        };
        let held = std::mem::take(held);
        let mut decoder = (format.decoder)(&self.options);
        if let Some(StreamClock { clock, .. }) = self.clock.take_if(|own| own.format == format.name)
        {
            decoder.set_clock(clock);
        }
        let fed = decoder.feed(&held, out);
        self.stage = Stage::Decoding { format, decoder };
        fed
    }
}

impl Decoder for AnyDecoder {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<Need> {
        match &mut self.stage {
            Stage::Decoding { decoder, .. } | Stage::Datagrams(decoder) => {
                return decoder.feed(bytes, out);
            }
            Stage::Probing(held) => held.extend_from_slice(bytes),
        }
        self.settle(false, out)
    }

    fn feed_some(&mut self, bytes: &mut &[u8], out: &mut Vec<Event>) -> Result<Need> {
        let mut need = Need::More;
        if let Stage::Probing(held) = &mut self.stage {
            // No more than tells the format: what is held is decoded whole.
            let n = PROBE_BYTES.saturating_sub(held.len()).min(bytes.len());
            let (now, after) = bytes.split_at(n);
            *bytes = after;
            need = self.feed(now, out)?;
        }
        match self.decoder_mut() {
            Some(decoder) if !bytes.is_empty() => decoder.feed_some(bytes, out),
            _ => Ok(need),
        }
    }

    fn skipped(&mut self, n: u64) {
        if let Some(decoder) = self.decoder_mut() {
            decoder.skipped(n);
        }
    }

    fn arrived(&mut self, t_us: u64) {
        if let Some(decoder) = self.decoder_mut() {
            decoder.arrived(t_us);
        }
    }

    fn finish(&mut self, out: &mut Vec<Event>) -> Result<()> {
        self.settle(true, out)?;
        match self.decoder_mut() {
            Some(decoder) => decoder.finish(out),
            None => {
                Err(Error::Unsupported("unknown format: it ends before it can be told".to_owned()))
            }
        }
    }

    fn has_begun(&self) -> bool {
        self.decoder().is_some_and(Decoder::has_begun)
    }

    fn sensor(&self) -> Sensor {
        self.decoder().map(Decoder::sensor).unwrap_or_default()
    }

    fn tally(&self) -> Tally {
        self.decoder().map(Decoder::tally).unwrap_or_default()
    }
}
