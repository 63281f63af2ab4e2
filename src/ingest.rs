//! Ingest: bytes of one stream in, batches of frames out: probe, decode, view, window.
//!
//! A function of the bytes alone; whoever holds the file or the socket feeds it. Knows no thread
//! and no ring.

use crate::codec::{AnyDecoder, Decoder, DecoderOptions, Format, Need, Tally};
use crate::error::Result;
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
    decoder: AnyDecoder,
    view: Option<View>,
    windower: Windower,
    config: WindowConfig,
    events: Vec<Event>,
    frames: Frames,
    first_us: Option<u64>,
    unused: u64,
    malformed: u64,
}

impl Ingest {
    /// A stream that has not begun. Its name helps with formats that have no mark.
    pub fn new(reading: Reading, config: WindowConfig, name: Option<&str>) -> Self {
        Ingest {
            decoder: decoder(reading.format, &reading, name),
            view: None,
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
        self.events.clear();
        let fed = self.decoder.feed(bytes, &mut self.events);
        self.take_events(emit)?;
        fed
    }

    /// The caller passed over `n` bytes, as [`Need::Skip`] allowed.
    pub fn skipped(&mut self, n: u64) {
        self.decoder.skipped(n);
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
        self.decoder = decoder(self.format(), &self.reading, self.name.as_deref());
        self.view = None;
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
        self.decoder.format()
    }

    /// What the recording says of its sensor.
    pub fn sensor(&self) -> Sensor {
        self.decoder.sensor()
    }

    /// What was read besides good events.
    pub fn tally(&self) -> Tally {
        self.decoder.tally()
    }

    fn end_decoding(&mut self, emit: &mut Emit<'_>) -> Result<()> {
        self.events.clear();
        let finished = self.decoder.finish(&mut self.events);
        self.take_events(emit)?;
        finished
    }

    fn take_events(&mut self, emit: &mut Emit<'_>) -> Result<()> {
        let malformed = self.decoder.tally().malformed - self.malformed;
        if malformed > 0 {
            self.malformed += malformed;
            self.windower.lose(Losses { malformed, ..Losses::default() });
        }
        if self.events.is_empty() {
            return Ok(());
        }
        let view = match &self.view {
            Some(view) => view,
            None => {
                let sensor = self.decoder.sensor();
                self.view.insert(View::new(&self.reading.view, &sensor, self.config.sensor)?)
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

fn decoder(format: Option<&'static Format>, reading: &Reading, name: Option<&str>) -> AnyDecoder {
    match format {
        Some(format) => AnyDecoder::of(format, &reading.decoder),
        None => AnyDecoder::probing(name, &reading.decoder),
    }
}
