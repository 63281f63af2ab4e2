//! Whole recordings: a file's events or windows, and files written from events. For the commands
//! that look at recordings rather than play them.

use std::path::Path;

use crate::codec::{
    self, AnyDecoder, Decoder, DecoderOptions, Encoder, EncoderOptions, Format, Need, Tally,
    drop_malformed,
};
use crate::error::{Error, Result};
use crate::event::{Event, Sensor};
use crate::frame::Frames;
use crate::ingest::{Emit, Ingest, Reading};
use crate::source::{Chunk, Source};
use crate::store::Replacement;
use crate::window::WindowConfig;

/// What was seen of a recording.
pub struct Facts {
    /// Its format, where one was recognised.
    pub format: Option<&'static Format>,
    /// What it says of its sensor.
    pub sensor: Sensor,
    /// What it holds besides events.
    pub tally: Tally,
    /// Bytes read and passed over.
    pub bytes: u64,
}

/// Hands a recording's events to `each`, a chunk at a time, and tells what it is. An error comes
/// beside the facts: the events before it have been handed out.
pub fn read(
    path: &Path,
    format: Option<&'static Format>,
    options: &DecoderOptions,
    each: &mut dyn FnMut(&Sensor, &[Event]) -> Result<()>,
) -> (Facts, Result<()>) {
    let name = path.display().to_string();
    let mut reader = Reader {
        decoder: match format {
            Some(format) => AnyDecoder::of(format, options),
            None => AnyDecoder::probing(Some(&name), options),
        },
        events: Vec::new(),
        bytes: 0,
    };
    let read = reader.run(path, each);
    let Reader { decoder, bytes, .. } = reader;
    let (format, sensor, tally) = (decoder.format(), decoder.sensor(), decoder.tally());
    (Facts { format, sensor, tally, bytes }, read)
}

/// A whole recording's windows, as `replay` cuts them. An error comes beside those before it.
pub fn frames(path: &Path, reading: Reading, window: WindowConfig) -> (Frames, Result<()>) {
    let mut frames = Frames::default();
    let mut keep = |batch: &mut Frames| {
        (0..batch.len()).for_each(|k| frames.copy_from(batch, k));
        batch.clear();
        Ok(())
    };
    let mut ingest = Ingest::new(reading, window, Some(&path.display().to_string()));
    let fed = feed_all(path, &mut ingest, &mut keep);
    let finished = ingest.finish(fed.is_ok(), &mut keep);
    (frames, fed.and(finished))
}

fn feed_all(path: &Path, ingest: &mut Ingest, keep: &mut Emit<'_>) -> Result<()> {
    pump(path, &mut |piece| match piece {
        Piece::Bytes(bytes) => ingest.feed(bytes, keep),
        Piece::Skipped(n) => {
            ingest.skipped(n);
            Ok(Need::More)
        }
    })
}

/// What of a file comes next.
enum Piece<'a> {
    Bytes(&'a [u8]),
    /// So many bytes were passed over, as the answer to those before allowed.
    Skipped(u64),
}

/// Reads a file as far as `take` needs it.
fn pump(path: &Path, take: &mut dyn FnMut(Piece<'_>) -> Result<Need>) -> Result<()> {
    let mut source = Source::open(path)?;
    let mut buffer = Vec::new();
    loop {
        let bytes = match source.read(&mut buffer)? {
            // Whoever takes may have something else to end for.
            Chunk::Nothing => &[],
            Chunk::End => return Ok(()),
            Chunk::Bytes(bytes) => bytes,
        };
        match take(Piece::Bytes(bytes))? {
            Need::More => (),
            Need::Nothing => return Ok(()),
            Need::Skip(n) => drop(take(Piece::Skipped(source.skip(n)?))?),
        }
    }
}

struct Reader {
    decoder: AnyDecoder,
    events: Vec<Event>,
    bytes: u64,
}

type Each<'a> = dyn FnMut(&Sensor, &[Event]) -> Result<()> + 'a;

impl Reader {
    fn run(&mut self, path: &Path, each: &mut Each<'_>) -> Result<()> {
        pump(path, &mut |piece| match piece {
            Piece::Bytes(mut bytes) => {
                self.bytes += bytes.len() as u64;
                loop {
                    let fed = self
                        .hand_out(each, |decoder, events| decoder.feed_some(&mut bytes, events))?;
                    if bytes.is_empty() || fed == Need::Nothing {
                        return Ok(fed);
                    }
                }
            }
            Piece::Skipped(n) => {
                self.bytes += n;
                self.decoder.skipped(n);
                Ok(Need::More)
            }
        })?;
        self.hand_out(each, |decoder, events| decoder.finish(events))
    }

    fn hand_out<T>(
        &mut self,
        each: &mut Each<'_>,
        decode: impl FnOnce(&mut AnyDecoder, &mut Vec<Event>) -> Result<T>,
    ) -> Result<T> {
        self.events.clear();
        let decoded = decode(&mut self.decoder, &mut self.events);
        drop_malformed(&mut self.events, 0);
        each(&self.decoder.sensor(), &self.events)?;
        decoded
    }
}

/// A recording being written; until it is complete, an old one of its name stays as it was.
pub struct Writer {
    file: Replacement,
    encoder: Box<dyn Encoder>,
    bytes: Vec<u8>,
}

impl Writer {
    /// Begins the file.
    ///
    /// # Errors
    /// When the format cannot be written, or the file cannot be created.
    pub fn create(path: &Path, format: &Format, options: &EncoderOptions) -> Result<Self> {
        let Some(encoder) = format.encoder else {
            let writable = codec::FORMATS.iter().filter(|format| format.encoder.is_some());
            let names: Vec<_> = writable.map(|format| format.name).collect();
            return Err(Error::Unsupported(format!(
                "{} cannot be written; {} can",
                format.title,
                names.join(" and ")
            )));
        };
        let file = Replacement::create(path)?;
        Ok(Writer { file, encoder: encoder(options), bytes: Vec::new() })
    }

    /// Appends events.
    ///
    /// # Errors
    /// When an event has no place in the format, or the file cannot be written.
    pub fn write(&mut self, events: &[Event]) -> Result<()> {
        self.bytes.clear();
        self.encoder.encode(events, &mut self.bytes)?;
        self.file.write(&self.bytes)
    }

    /// Completes the recording, in place of an old one of its name.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn finish(mut self) -> Result<()> {
        self.bytes.clear();
        let patch = self.encoder.finish(&mut self.bytes)?;
        self.file.write(&self.bytes)?;
        if let Some(patch) = &patch {
            self.file.patch(patch.offset, &patch.bytes)?;
        }
        self.file.complete()
    }
}
