//! `send`: plays a recording into a socket at its own pace.
//!
//! Servers get the recording's own bytes, but for AEDAT 4 at a pace: its packets hold tens of
//! milliseconds, so it goes out in packets of a tick. Datagrams and DV clients get its events.

mod dv;
mod pace;
mod read;
mod stream;
mod target;
mod udp;

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use crate::codec::aedat4::{self, Aedat4Encoder};
use crate::codec::{
    AnyDecoder, Compression, DatagramOptions, Decoder, DecoderOptions, Encoder, EncoderOptions,
    Format, Match, Probe, drop_malformed, probe,
};
use crate::error::{Error, Result};
use crate::event::{Event, Sensor, SensorSize};
use crate::pace::LeapNote;
use crate::progress::Progress;
use crate::source::{Chunk, Source, is_stdin};
pub use pace::{Lateness, Pacer};
use read::Stretch;
use stream::{Sending, converse};
pub use target::Target;

/// What to send, where and how.
pub struct Transmission<'a> {
    /// The recording; `-` is standard input.
    pub file: &'a Path,
    /// Its format, where it is not to be probed.
    pub format: Option<&'static Format>,
    /// How it is decoded.
    pub decoder: DecoderOptions,
    /// Where to.
    pub target: Target,
    /// Sensor seconds a second; as fast as can be where there is none.
    pub speed: Option<f64>,
    /// Passes over the recording: connections of their own to a server, one stream to others.
    pub passes: u64,
    /// Size of the sensor, in place of what the recording says.
    pub sensor: Option<SensorSize>,
    /// Compression of AEDAT 4 packets.
    pub compression: Compression,
    /// What the first line tells a server besides the format.
    pub hello: Hello,
    /// Whether a server's answers are wanted.
    pub print: bool,
}

/// What the first line to a server may carry.
#[derive(Clone, Default, PartialEq, serde::Serialize)]
pub struct Hello {
    /// The format, where the bytes have no mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<&'static str>,
    /// Size of the sensor, `WxH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensor: Option<String>,
    /// Event stream of a recording that holds several, where its bytes are sent as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_id: Option<i32>,
    /// Name of the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Whether it goes on from a state that the server keeps; with a name only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resume: Option<bool>,
    /// What lets it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// What was sent.
#[derive(Default)]
pub struct Sent {
    /// Events; not counted where the recording's bytes went out unseen (at `max`, to a server).
    pub events: u64,
    /// Bytes, to each receiver.
    pub bytes: u64,
    /// Datagrams.
    pub datagrams: u64,
    /// How late events left.
    pub lateness: Lateness,
}

/// Sends events whose time has come.
trait Link {
    /// Sends them all.
    fn send(&mut self, events: &[Event], sent: &mut Sent) -> Result<()>;

    /// Everything was sent.
    fn finish(&mut self) -> Result<()>;
}

/// Sends a recording. `out` takes what a server answers, if that is wanted, and where a DV server
/// listens.
///
/// # Errors
/// When the recording or the receiver fails; `sent` tells what went out before. [`Error::Stopped`]
/// once `stop` is set.
pub fn send(
    how: &Transmission<'_>,
    sent: &mut Sent,
    out: &mut (dyn Write + Send),
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<()> {
    let shown = how.file.display().to_string();
    let stream = if is_stdin(how.file) { "stdin" } else { &shown };
    let note = LeapNote::new(progress, stream, "send");
    let mut play = Play { how, sent, progress, note: &note, stop };
    match &how.target {
        Target::Tcp(_) | Target::Unix(_) => {
            for _ in 0..how.passes {
                let answers: Option<&mut (dyn Write + Send)> =
                    if how.print { Some(&mut *out) } else { None };
                let opening = Opening::read(how, stop)?;
                converse(&how.target, answers, stop, |sending| opening.play(&mut play, sending))?;
            }
            Ok(())
        }
        Target::Udp { address, format, timed } => play.events(|sensor| {
            let options = DatagramOptions { sensor, timed: *timed };
            udp::Datagrams::open(address, format, &options)
        }),
        Target::Dv(address) => play.events(|sensor| {
            let options = EncoderOptions { sensor, compression: how.compression };
            dv::DvServer::open(address, &options, out, stop)
        }),
    }
}

/// A recording being played, and whoever watches.
struct Play<'a> {
    how: &'a Transmission<'a>,
    sent: &'a mut Sent,
    progress: &'a Progress,
    note: &'a LeapNote<'a>,
    stop: &'a AtomicBool,
}

impl Play<'_> {
    /// Plays the events of all passes as one stream into the link that `open` makes for the sensor.
    fn events<L: Link>(
        &mut self,
        open: impl FnOnce(Option<SensorSize>) -> Result<L>,
    ) -> Result<()> {
        let how = self.how;
        std::thread::scope(|scope| {
            let (stretches, received) = sync_channel(read::CHUNKS_AHEAD);
            scope.spawn(move || read::read(how, &stretches));
            let mut lateness = std::mem::take(&mut self.sent.lateness);
            let played = self.stretches(received, &mut lateness, open);
            self.sent.lateness = lateness;
            played
        })
    }

    fn stretches<L: Link>(
        &mut self,
        stretches: Receiver<Result<Stretch>>,
        lateness: &mut Lateness,
        open: impl FnOnce(Option<SensorSize>) -> Result<L>,
    ) -> Result<()> {
        let Play { how, sent, progress, note, stop } = self;
        let (mut open, mut link) = (Some(open), None);
        let mut pacer = Pacer::new(how.speed, note, stop, lateness);
        for stretch in stretches {
            let Stretch { events, sensor: Sensor { size, .. }, n_bytes } = stretch?;
            progress.add(n_bytes, 0);
            // The sensor is settled before the first event.
            if !events.is_empty()
                && let Some(open) = open.take()
            {
                link = Some(open(how.sensor.or(size))?);
            }
            let Some(link) = &mut link else {
                pacer.wait(&[])?;
                continue;
            };
            let mut rest = events.as_slice();
            while !rest.is_empty() {
                let n = pacer.wait(rest)?;
                link.send(&rest[..n], sent)?;
                pacer.left(&rest[..n]);
                progress.add(0, n as u64);
                sent.events += n as u64;
                rest = &rest[n..];
            }
        }
        link.as_mut().map_or(Ok(()), Link::finish)
    }
}

/// The beginning of a recording, of which its format is told.
struct Opening {
    source: Source,
    bytes: Vec<u8>,
    format: &'static Format,
    is_marked: bool,
}

impl Opening {
    fn read(how: &Transmission<'_>, stop: &AtomicBool) -> Result<Opening> {
        let mut source = Source::open(how.file)?;
        let (mut bytes, mut buffer, mut at_end) = (Vec::new(), Vec::new(), false);
        while bytes.len() < probe::PROBE_BYTES && !at_end {
            match source.read(&mut buffer)? {
                Chunk::Bytes(more) => bytes.extend_from_slice(more),
                Chunk::Nothing if stop.load(Ordering::Relaxed) => return Err(Error::Stopped),
                Chunk::Nothing => {}
                Chunk::End => at_end = true,
            }
        }
        let format = match (how.format, probe(&bytes, how.file.to_str(), at_end)) {
            (Some(format), _) | (None, Probe::Format(format)) => format,
            (None, Probe::Unknown(error)) => return Err(error),
            (None, Probe::More) => return Err(Error::Unsupported("unknown format".to_owned())),
        };
        let is_marked = (format.probe)(&bytes) == Match::Yes;
        Ok(Opening { source, bytes, format, is_marked })
    }

    fn play(self, play: &mut Play<'_>, sending: &mut Sending<'_>) -> Result<()> {
        let how = play.how;
        let is_aedat4 = [aedat4::FORMAT.name, aedat4::DV.name].contains(&self.format.name);
        // A pipe cannot be read from its start again.
        let is_file = matches!(self.source, Source::File(_));
        let repacks = is_aedat4 && is_file && how.speed.is_some();
        let hello = Hello {
            format: (!self.is_marked).then_some(self.format.name),
            sensor: how.sensor.map(|size| size.to_string()),
            stream_id: how.decoder.stream_id.filter(|_| !repacks),
            ..how.hello.clone()
        };
        if hello != Hello::default() {
            sending.send(first_line(&hello)?.as_bytes())?;
        }
        let before = sending.n_bytes;
        if repacks {
            let once = Transmission { passes: 1, target: how.target.clone(), hello, ..*how };
            drop(self.source);
            let Play { sent, progress, note, stop, .. } = play;
            Play { how: &once, sent, progress, note, stop }.events(|sensor| {
                let options = EncoderOptions { sensor, compression: how.compression };
                Ok(Repacked { encoder: Aedat4Encoder::live(&options), bytes: Vec::new(), sending })
            })
        } else {
            let played = self.play_bytes(play, sending);
            play.sent.bytes += sending.n_bytes - before;
            played
        }
    }

    /// The recording as it stands, in slices that leave with their last event.
    fn play_bytes(mut self, play: &mut Play<'_>, sending: &mut Sending<'_>) -> Result<()> {
        let Play { how, sent, progress, note, stop } = play;
        let mut lateness = std::mem::take(&mut sent.lateness);
        let mut slices = Slices {
            decoder: how.speed.map(|_| AnyDecoder::of(self.format, &how.decoder)),
            pacer: Pacer::new(how.speed, note, stop, &mut lateness),
            events: Vec::new(),
            held: Vec::new(),
            n_events: 0,
        };
        let mut read_and_send = || {
            let mut buffer = std::mem::take(&mut self.bytes);
            slices.play(&buffer, sending, progress)?;
            loop {
                match self.source.read(&mut buffer)? {
                    Chunk::Bytes(bytes) => slices.play(bytes, sending, progress)?,
                    Chunk::Nothing => drop(slices.pacer.wait(&[])?),
                    Chunk::End => return slices.finish(),
                }
            }
        };
        let played = read_and_send();
        sent.events += slices.n_events;
        sent.lateness = lateness;
        played
    }
}

/// The line that goes before a server's bytes.
fn first_line(hello: &Hello) -> Result<String> {
    let json = serde_json::to_string(hello).map_err(|error| {
        Error::Unsupported(format!("the first line cannot be written: {error}"))
    })?;
    Ok(format!("dvs-stream {json}\n"))
}

/// AEDAT 4 in packets of a tick.
struct Repacked<'a, 'b> {
    encoder: Aedat4Encoder,
    bytes: Vec<u8>,
    sending: &'a mut Sending<'b>,
}

impl Link for Repacked<'_, '_> {
    fn send(&mut self, events: &[Event], sent: &mut Sent) -> Result<()> {
        self.bytes.clear();
        self.encoder.encode(events, &mut self.bytes)?;
        sent.bytes += self.bytes.len() as u64;
        self.sending.send(&self.bytes)
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Bytes at a pace: a slice leaves when the last event that it completes is due.
struct Slices<'a> {
    /// Tells the times; not needed where nothing is held back.
    decoder: Option<AnyDecoder>,
    pacer: Pacer<'a>,
    events: Vec<Event>,
    /// The bytes that complete them.
    held: Vec<u8>,
    n_events: u64,
}

/// Bytes of a slice: an event of the shortest formats.
const SLICE_BYTES: usize = 8;

impl Slices<'_> {
    fn play(&mut self, bytes: &[u8], sending: &mut Sending<'_>, progress: &Progress) -> Result<()> {
        progress.add(bytes.len() as u64, 0);
        if self.decoder.is_none() {
            self.pacer.wait(&[])?;
            return sending.send(bytes);
        }
        let n_before = self.n_events;
        let held = self.hold(bytes, sending);
        progress.add(0, self.n_events - n_before);
        self.flush(self.events.len(), sending)?;
        held
    }

    /// Holds a tick's bytes at a time.
    fn hold(&mut self, bytes: &[u8], sending: &mut Sending<'_>) -> Result<()> {
        for slice in bytes.chunks(SLICE_BYTES) {
            let Some(decoder) = &mut self.decoder else { return Ok(()) };
            let n_before = self.events.len();
            let fed = decoder.feed(slice, &mut self.events);
            drop_malformed(&mut self.events, n_before);
            self.n_events += (self.events.len() - n_before) as u64;
            let (first, last) = (self.events.first(), self.events.last());
            let span_us = first.zip(last).map_or(0, |(first, last)| last.t_us.abs_diff(first.t_us));
            if n_before > 0 && span_us > self.pacer.tick_us() {
                self.flush(n_before, sending)?;
            }
            self.held.extend_from_slice(slice);
            fed?;
        }
        Ok(())
    }

    /// Sends what is held once the first `n` events, which it completes, are due.
    fn flush(&mut self, n: usize, sending: &mut Sending<'_>) -> Result<()> {
        let mut rest = &self.events[..n];
        while !rest.is_empty() {
            rest = &rest[self.pacer.wait(rest)?..];
        }
        sending.send(&self.held)?;
        self.pacer.left(&self.events[..n]);
        self.held.clear();
        self.events.drain(..n);
        Ok(())
    }

    /// # Errors
    /// When the recording ended inside an event; its bytes have gone out all the same.
    fn finish(&mut self) -> Result<()> {
        let n_before = self.events.len();
        let finished = self.decoder.as_mut().map_or(Ok(()), |own| own.finish(&mut self.events));
        drop_malformed(&mut self.events, n_before);
        finished
    }
}
