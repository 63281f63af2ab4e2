//! Whole recordings: a file's events without windows, and files written from events. For the
//! commands that look at recordings rather than classify them.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::codec::{
    self, Decoder, DecoderOptions, Encoder, EncoderOptions, Format, Need, Probe, Tally,
};
use crate::error::{Error, Result};
use crate::event::{Event, Sensor};
use crate::source::{Chunk, Source};

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
    let mut reader = Reader {
        decoder: format.map(|format| (format, (format.decoder)(options))),
        options: *options,
        name: path.display().to_string(),
        held: Vec::new(),
        events: Vec::new(),
        bytes: 0,
    };
    let read = reader.run(path, each);
    let sensor = reader.decoder.as_ref().map(|(_, decoder)| decoder.sensor()).unwrap_or_default();
    let tally = reader.decoder.as_ref().map(|(_, decoder)| decoder.tally()).unwrap_or_default();
    let format = reader.decoder.as_ref().map(|(format, _)| *format);
    (Facts { format, sensor, tally, bytes: reader.bytes }, read)
}

struct Reader {
    decoder: Option<(&'static Format, Box<dyn Decoder>)>,
    options: DecoderOptions,
    name: String,
    held: Vec<u8>,
    events: Vec<Event>,
    bytes: u64,
}

type Each<'a> = dyn FnMut(&Sensor, &[Event]) -> Result<()> + 'a;

impl Reader {
    fn run(&mut self, path: &Path, each: &mut Each<'_>) -> Result<()> {
        let failed = |source| Error::Io { what: "cannot be read".to_owned(), source };
        let mut source = Source::open(path).map_err(failed)?;
        let mut buffer = Vec::new();
        loop {
            match source.read(&mut buffer).map_err(failed)? {
                Chunk::Nothing => continue,
                Chunk::End => return self.end(each),
                Chunk::Bytes(bytes) => {
                    self.bytes += bytes.len() as u64;
                    match self.feed(bytes, each)? {
                        Need::More => (),
                        Need::Nothing => return self.end(each),
                        Need::Skip(n) => {
                            let skipped = source.skip(n).map_err(failed)?;
                            self.bytes += skipped;
                            if let Some((_, decoder)) = &mut self.decoder {
                                decoder.skipped(skipped);
                            }
                        }
                    }
                }
            }
        }
    }

    fn feed(&mut self, bytes: &[u8], each: &mut Each<'_>) -> Result<Need> {
        if self.decoder.is_some() {
            return self.decode(bytes, each);
        }
        self.held.extend_from_slice(bytes);
        self.probe(false)?;
        if self.decoder.is_none() {
            return Ok(Need::More);
        }
        let held = std::mem::take(&mut self.held);
        self.decode(&held, each)
    }

    fn probe(&mut self, at_end: bool) -> Result<()> {
        match codec::probe(&self.held, Some(&self.name), at_end) {
            Probe::More => (),
            Probe::Format(format) => self.decoder = Some((format, (format.decoder)(&self.options))),
            Probe::Unknown(what) => return Err(Error::Unsupported(what)),
        }
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8], each: &mut Each<'_>) -> Result<Need> {
        let Some((_, decoder)) = &mut self.decoder else { return Ok(Need::More) };
        self.events.clear();
        let fed = decoder.feed(bytes, &mut self.events);
        each(&decoder.sensor(), &self.events)?;
        fed
    }

    fn end(&mut self, each: &mut Each<'_>) -> Result<()> {
        if self.decoder.is_none() {
            self.probe(true)?;
            let held = std::mem::take(&mut self.held);
            self.decode(&held, each)?;
        }
        let Some((_, decoder)) = &mut self.decoder else { return Ok(()) };
        self.events.clear();
        let finished = decoder.finish(&mut self.events);
        each(&decoder.sensor(), &self.events)?;
        finished
    }
}

/// A recording being written.
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    encoder: Box<dyn Encoder>,
    bytes: Vec<u8>,
}

impl Writer {
    /// Creates (or replaces) the file.
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
        let file = File::create(path).map_err(|source| failed(path, source))?;
        let (path, file) = (path.to_owned(), BufWriter::new(file));
        Ok(Writer { path, file, encoder: encoder(options), bytes: Vec::new() })
    }

    /// Appends events.
    ///
    /// # Errors
    /// When an event has no place in the format, or the file cannot be written.
    pub fn write(&mut self, events: &[Event]) -> Result<()> {
        self.bytes.clear();
        self.encoder.encode(events, &mut self.bytes)?;
        self.file.write_all(&self.bytes).map_err(|source| failed(&self.path, source))
    }

    /// Completes the recording.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn finish(mut self) -> Result<()> {
        self.bytes.clear();
        let patch = self.encoder.finish(&mut self.bytes)?;
        let mut complete = || {
            self.file.write_all(&self.bytes)?;
            if let Some(patch) = &patch {
                self.file.seek(SeekFrom::Start(patch.offset))?;
                self.file.write_all(&patch.bytes)?;
            }
            self.file.flush()
        };
        complete().map_err(|source| failed(&self.path, source))
    }
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::Io { what: format!("cannot write {}", path.display()), source }
}
