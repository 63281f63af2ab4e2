//! Ingest: bytes of one stream in, batches of frames out: probe, decode, view, window.
//!
//! A function of the bytes alone; whoever holds the file or the socket feeds it. Knows no thread
//! and no ring.

use serde::{Deserialize, Serialize};

use crate::codec::{
    AnyDecoder, DatagramFormat, Decoder, DecoderOptions, Format, Need, StreamClock, Tally,
};
use crate::error::{Error, Result};
use crate::event::{Event, Sensor};
use crate::frame::{Dropped, Frames};
use crate::prediction::Totals;
use crate::view::{View, ViewSpec};
use crate::window::{LATE_RUN, WindowConfig, Windower, WindowerState};

/// How a stream is read.
#[derive(Clone, Copy, Default)]
pub struct Reading {
    /// The format, where it is not to be probed.
    pub format: Option<&'static Format>,
    /// The format of datagrams, where each feed is one; the view's sensor tells the decoder whose
    /// addresses they hold.
    pub datagrams: Option<&'static DatagramFormat>,
    /// What the decoder is told.
    pub decoder: DecoderOptions,
    /// The view that is asked for.
    pub view: ViewSpec,
    /// Events are used from the first on that comes so long after the first of all.
    pub from_us: u64,
    /// Events from this time after the first event on are not used.
    pub to_us: Option<u64>,
}

/// Events in a row from [`Reading::to_us`] on after which a recording is read no further: more than a
/// few that come out of order.
const MAX_BEYOND: u64 = 4096;

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
    /// So many of them are cut.
    taken: usize,
    frames: Frames,
    span: Span,
}

/// Which part of a recording is used.
#[derive(Default)]
struct Span {
    first_us: Option<u64>,
    /// An event has come from `from_us` on: all that follow count, late ones and those of a clock
    /// that begins anew too.
    begun: bool,
    /// So many events in a row came from `to_us` on.
    beyond: u64,
    /// So many in a row came before the first: as many as tell that a clock was reset, or that the
    /// first was far in the future.
    before: u32,
}

impl Span {
    fn is_over(&self) -> bool {
        self.beyond >= MAX_BEYOND
    }

    /// Whether the next event is used.
    fn holds(&mut self, event: &Event, from_us: u64, to_us: Option<u64>) -> bool {
        self.begun |= from_us == 0;
        if !event.is_malformed() {
            let mut first_us = *self.first_us.get_or_insert(event.t_us);
            self.before = if event.t_us < first_us { self.before + 1 } else { 0 };
            if self.before == LATE_RUN && !self.is_over() {
                first_us = event.t_us;
                *self = Span { first_us: Some(first_us), begun: self.begun, ..Span::default() };
            }
            let after_us = |t_us: u64| event.t_us >= first_us.saturating_add(t_us);
            self.begun |= after_us(from_us);
            if !self.is_over() {
                self.beyond = if to_us.is_some_and(after_us) { self.beyond + 1 } else { 0 };
            }
        }
        self.begun && self.beyond == 0
    }
}

/// A stream between two events, as [`Ingest::save`] gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestState {
    /// Its windows.
    pub windower: WindowerState,
    clock: Option<StreamClock>,
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
            taken: 0,
            frames: Frames::default(),
            span: Span::default(),
        }
    }

    /// As [`Windower::cut_singly`].
    pub fn cut_singly(&mut self) {
        self.windower.cut_singly();
    }

    /// Takes the next bytes and emits the windows that they complete.
    ///
    /// # Errors
    /// As the decoder, the probe or the view say; windows of the good part were emitted or will
    /// be by [`Ingest::finish`].
    pub fn feed(&mut self, mut bytes: &[u8], emit: &mut Emit<'_>) -> Result<Need> {
        loop {
            let decoded = self.decode(&mut bytes);
            self.cut_all(emit)?;
            match decoded {
                Ok(Need::More) if !bytes.is_empty() => (),
                decoded => return decoded,
            }
        }
    }

    /// Takes the next bytes as far as events, for whoever cuts them piece by piece: see
    /// [`Ingest::cut`], which must have taken all before the next call. In `bytes` it leaves what
    /// is to be decoded next, as [`Decoder::feed_some`] does.
    ///
    /// # Errors
    /// As [`Ingest::feed`]; events of the good part wait to be cut.
    pub fn decode(&mut self, bytes: &mut &[u8]) -> Result<Need> {
        self.forget_events();
        let decoded = self.decoder.feed_some(bytes, &mut self.events);
        self.take_events()?;
        if self.span.is_over() { Ok(Need::Nothing) } else { decoded }
    }

    /// Changes the memory that decoded events are in, none of which wait to be cut: streams that
    /// decode in turn share one, which stays in the processor's cache.
    pub fn swap_memory(&mut self, memory: &mut Vec<Event>) {
        self.forget_events();
        std::mem::swap(&mut self.events, memory);
    }

    /// Cuts decoded events into windows until the batch is full. Says whether events are left.
    pub fn cut(&mut self, out: &mut Frames) -> bool {
        while self.taken < self.events.len() && !self.windower.is_full(out) {
            self.taken += self.windower.push(&self.events[self.taken..], out);
        }
        self.taken < self.events.len()
    }

    /// A silent stream's clock has gone on to `t_us`, as [`Windower::pass_silence`] says; all that
    /// was decoded is cut.
    pub fn pass_silence(&mut self, t_us: u64, out: &mut Frames) -> bool {
        self.windower.pass_silence(t_us, out)
    }

    /// As [`Windower::due_after_us`].
    pub fn due_after_us(&self) -> Option<u64> {
        self.windower.due_after_us()
    }

    /// As [`Windower::last_us`].
    pub fn last_us(&self) -> u64 {
        self.windower.last_us()
    }

    /// Windows that were cut are dropped, as [`Windower::drop_windows`] says.
    pub fn drop_windows(&mut self, frames: &Frames, dropped: Dropped) {
        self.windower.drop_windows(frames, dropped);
    }

    /// No more bytes come: [`Ingest::decode`] of what the decoder still holds.
    ///
    /// # Errors
    /// When the stream ended inside a record.
    pub fn end_decoding(&mut self) -> Result<()> {
        self.forget_events();
        if self.span.is_over() {
            return Ok(());
        }
        let finished = self.decoder.finish(&mut self.events);
        self.take_events()?;
        finished?;
        // Another camera's recording is one without an event too.
        let known = self.reading.view.size(self.decoder.sensor().size).is_some();
        if known && self.decoder.has_begun() { self.settle() } else { Ok(()) }
    }

    /// Cuts the last, unfinished window off, after all others; a new pass may begin.
    pub fn close(&mut self, out: &mut Frames) {
        self.windower.finish(out);
        self.span = Span::default();
        self.decoder = decoder(self.format(), &self.reading, self.name.as_deref());
        self.view = None;
    }

    /// The bytes that are fed next arrived at `t_us`: the time of events that carry none.
    pub fn arrived(&mut self, t_us: u64) {
        self.decoder.arrived(t_us);
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
        let ended = if whole { self.end_decoding() } else { Ok(()) };
        self.cut_all(emit)?;
        let mut frames = std::mem::take(&mut self.frames);
        self.close(&mut frames);
        let emitted = if frames.is_empty() { Ok(()) } else { emit(&mut frames) };
        self.frames = frames;
        emitted.and(ended)
    }

    /// The stream as it stands after its last event, all of which were cut. Bytes that are no
    /// whole event yet are no part of it.
    pub fn save(&self) -> IngestState {
        IngestState { windower: self.windower.save(), clock: self.decoder.save() }
    }

    /// Goes on with a stream that was saved; before the first byte. Bytes come with a header of
    /// their own.
    ///
    /// # Errors
    /// As [`Windower::restore`].
    pub fn restore(&mut self, saved: &IngestState) -> Result<()> {
        if saved.clock.as_ref().is_some_and(|own| !own.clock.is_sound()) {
            return Err(Error::Mismatch("the state of its clock is not one".to_owned()));
        }
        self.windower.restore(&saved.windower)?;
        self.decoder.restore(saved.clock.clone());
        Ok(())
    }

    /// As [`Decoder::has_begun`].
    pub fn has_begun(&self) -> bool {
        self.decoder.has_begun()
    }

    /// What was counted so far over all passes.
    pub fn totals(&self) -> Totals {
        self.windower.totals()
    }

    /// The format, once it is known.
    pub fn format(&self) -> Option<&'static Format> {
        self.decoder.format()
    }

    /// Name of the format, once it is known, of datagrams too.
    pub fn format_name(&self) -> Option<&'static str> {
        let datagrams = self.reading.datagrams.map(|datagrams| datagrams.name);
        datagrams.or(self.format().map(|format| format.name))
    }

    /// What the recording says of its sensor.
    pub fn sensor(&self) -> Sensor {
        self.decoder.sensor()
    }

    /// What was read besides good events.
    pub fn tally(&self) -> Tally {
        self.decoder.tally()
    }

    fn forget_events(&mut self) {
        self.events.clear();
        self.taken = 0;
    }

    fn take_events(&mut self) -> Result<()> {
        if self.events.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.settle() {
            self.forget_events();
            return Err(error);
        }
        if let Some(view) = &self.view {
            view.apply(&mut self.events);
        }
        self.keep_span();
        Ok(())
    }

    /// The view is known once what the recording says of its sensor is.
    fn settle(&mut self) -> Result<()> {
        if self.view.is_none() {
            let sensor = self.decoder.sensor();
            self.view = Some(View::new(&self.reading.view, &sensor, self.config.sensor)?);
        }
        Ok(())
    }

    /// Only the events between `from_us` and `to_us` stay.
    fn keep_span(&mut self) {
        let Reading { from_us, to_us, .. } = self.reading;
        if from_us > 0 || to_us.is_some() {
            self.events.retain(|event| self.span.holds(event, from_us, to_us));
        }
    }

    fn cut_all(&mut self, emit: &mut Emit<'_>) -> Result<()> {
        let mut frames = std::mem::take(&mut self.frames);
        let mut emitted = Ok(());
        let mut more = true;
        while more && emitted.is_ok() {
            more = self.cut(&mut frames);
            if !frames.is_empty() {
                emitted = emit(&mut frames);
            }
        }
        self.frames = frames;
        emitted
    }
}

fn decoder(format: Option<&'static Format>, reading: &Reading, name: Option<&str>) -> AnyDecoder {
    match (reading.datagrams, format) {
        (Some(datagrams), _) => AnyDecoder::datagrams(datagrams, reading.view.size(None)),
        (None, Some(format)) => AnyDecoder::of(format, &reading.decoder),
        (None, None) => AnyDecoder::probing(name, &reading.decoder),
    }
}
