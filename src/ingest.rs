//! Ingest: bytes of one stream in, batches of frames out: probe, decode, view, window.
//!
//! A function of the bytes alone; whoever holds the file or the socket feeds it. Knows no thread
//! and no ring.

use crate::codec::{Decoder, DecoderOptions, Format, Need, Probe, Tally, probe};
use crate::error::{Error, Result};
use crate::event::{Event, Sensor};
use crate::frame::Frames;
use crate::prediction::{Losses, Totals};
use crate::view::{View, ViewSpec};
use crate::window::{WindowConfig, Windower, is_full};

/// How a stream is read.
#[derive(Clone, Copy, Default)]
pub struct Reading {
    /// The format, where it is not to be probed.
    pub format: Option<&'static Format>,
    /// What the decoder is told.
    pub decoder: DecoderOptions,
    /// The view that is asked for.
    pub view: ViewSpec,
    /// Events before this time after the first event are not used.
    pub from_us: u64,
    /// Events from this time after the first event on are not used.
    pub to_us: Option<u64>,
}

/// Takes a batch of frames and leaves an empty one. An error ends the stream.
pub type Emit<'a> = dyn FnMut(&mut Frames) -> Result<()> + 'a;

/// One stream between bytes and frames.
pub struct Ingest {
    reading: Reading,
    name: Option<String>,
    stage: Stage,
    windower: Windower,
    config: WindowConfig,
    events: Vec<Event>,
    frames: Frames,
    first_us: Option<u64>,
    unused: u64,
    malformed: u64,
}

enum Stage {
    Probing(Vec<u8>),
    Decoding { format: &'static Format, decoder: Box<dyn Decoder>, view: Option<View> },
}

impl Ingest {
    /// A stream that has not begun. Its name helps with formats that have no mark.
    pub fn new(reading: Reading, config: WindowConfig, name: Option<&str>) -> Self {
        Ingest {
            stage: match reading.format {
                Some(format) => Stage::decoding(format, &reading),
                None => Stage::Probing(Vec::new()),
            },
            reading,
            name: name.map(str::to_owned),
            windower: Windower::new(config),
            config,
            events: Vec::new(),
            frames: Frames::default(),
            first_us: None,
            unused: 0,
            malformed: 0,
        }
    }

    /// Takes the next bytes and emits the windows that they complete.
    ///
    /// # Errors
    /// As the decoder, the probe or the view say; windows of the good part were emitted or will
    /// be by [`Ingest::finish`].
    pub fn feed(&mut self, bytes: &[u8], emit: &mut Emit<'_>) -> Result<Need> {
        if let Stage::Probing(held) = &mut self.stage {
            held.extend_from_slice(bytes);
            return match probe(held, self.name.as_deref(), false) {
                Probe::More => Ok(Need::More),
                Probe::Format(format) => self.begin(format, emit),
                Probe::Unknown(what) => Err(Error::Unsupported(what)),
            };
        }
        self.decode(bytes, emit)
    }

    /// The caller passed over `n` bytes, as [`Need::Skip`] allowed.
    pub fn skipped(&mut self, n: u64) {
        if let Stage::Decoding { decoder, .. } = &mut self.stage {
            decoder.skipped(n);
        }
    }

    /// No more bytes come (`whole`: because the stream ended, not because of an error or an
    /// interruption). Emits what is left and readies a new pass.
    ///
    /// # Errors
    /// As [`Ingest::feed`]; the windows before the error have been emitted all the same.
    pub fn finish(&mut self, whole: bool, emit: &mut Emit<'_>) -> Result<()> {
        let ended = if whole { self.end_decoding(emit) } else { Ok(()) };
        self.windower.finish(&mut self.frames);
        if !self.frames.is_empty() {
            emit(&mut self.frames)?;
        }
        self.first_us = None;
        self.malformed = 0;
        self.stage = match self.format() {
            Some(format) => Stage::decoding(format, &self.reading),
            None => Stage::Probing(Vec::new()),
        };
        ended
    }

    /// What was counted so far over all passes.
    pub fn totals(&self) -> Totals {
        self.windower.totals()
    }

    /// Events that `from_us` and `to_us` kept out.
    pub fn unused(&self) -> u64 {
        self.unused
    }

    /// The format, once it is known.
    pub fn format(&self) -> Option<&'static Format> {
        match &self.stage {
            Stage::Decoding { format, .. } => Some(*format),
            Stage::Probing(_) => None,
        }
    }

    /// What the recording says of its sensor.
    pub fn sensor(&self) -> Sensor {
        match &self.stage {
            Stage::Decoding { decoder, .. } => decoder.sensor(),
            Stage::Probing(_) => Sensor::default(),
        }
    }

    /// What was read besides good events.
    pub fn tally(&self) -> Tally {
        match &self.stage {
            Stage::Decoding { decoder, .. } => decoder.tally(),
            Stage::Probing(_) => Tally::default(),
        }
    }

    fn begin(&mut self, format: &'static Format, emit: &mut Emit<'_>) -> Result<Need> {
        let decoding = Stage::decoding(format, &self.reading);
        let Stage::Probing(held) = std::mem::replace(&mut self.stage, decoding) else {
            return Ok(Need::More);
        };
        self.decode(&held, emit)
    }

    fn decode(&mut self, bytes: &[u8], emit: &mut Emit<'_>) -> Result<Need> {
        let Stage::Decoding { decoder, .. } = &mut self.stage else { return Ok(Need::More) };
        self.events.clear();
        let fed = decoder.feed(bytes, &mut self.events);
        self.take_events(emit)?;
        fed
    }

    fn end_decoding(&mut self, emit: &mut Emit<'_>) -> Result<()> {
        if let Stage::Probing(held) = &self.stage {
            match probe(held, self.name.as_deref(), true) {
                Probe::Format(format) => self.begin(format, emit)?,
                Probe::Unknown(what) => return Err(Error::Unsupported(what)),
                Probe::More => return Err(Error::Unsupported("too short to tell a format".into())),
            };
        }
        let Stage::Decoding { decoder, .. } = &mut self.stage else { return Ok(()) };
        self.events.clear();
        let finished = decoder.finish(&mut self.events);
        self.take_events(emit)?;
        finished
    }

    fn take_events(&mut self, emit: &mut Emit<'_>) -> Result<()> {
        let Stage::Decoding { decoder, view, .. } = &mut self.stage else { return Ok(()) };
        let malformed = decoder.tally().malformed - self.malformed;
        if malformed > 0 {
            self.malformed += malformed;
            self.windower.lose(Losses { malformed, ..Losses::default() });
        }
        if self.events.is_empty() {
            return Ok(());
        }
        let view = match view {
            Some(view) => view,
            None => {
                let settled = View::new(&self.reading.view, &decoder.sensor(), self.config.sensor)?;
                view.insert(settled)
            }
        };
        view.apply(&mut self.events);
        self.keep_span();
        self.cut(emit)
    }

    /// Only the events between `from_us` and `to_us` stay.
    fn keep_span(&mut self) {
        let first_us = *self.first_us.get_or_insert(self.events[0].t_us);
        if self.reading.from_us == 0 && self.reading.to_us.is_none() {
            return;
        }
        let from_us = first_us.saturating_add(self.reading.from_us);
        let to_us = self.reading.to_us.map_or(u64::MAX, |to_us| first_us.saturating_add(to_us));
        let all = self.events.len();
        self.events.retain(|event| (from_us..to_us).contains(&event.t_us));
        self.unused += (all - self.events.len()) as u64;
    }

    fn cut(&mut self, emit: &mut Emit<'_>) -> Result<()> {
        let mut taken = 0;
        while taken < self.events.len() {
            taken += self.windower.push(&self.events[taken..], &mut self.frames);
            if is_full(&self.frames) {
                emit(&mut self.frames)?;
            }
        }
        if !self.frames.is_empty() {
            emit(&mut self.frames)?;
        }
        Ok(())
    }
}

impl Stage {
    fn decoding(format: &'static Format, reading: &Reading) -> Stage {
        Stage::Decoding { format, decoder: (format.decoder)(&reading.decoder), view: None }
    }
}
