//! `convert`: a recording from any readable format into any writable one.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::codec::{DecoderOptions, EncoderOptions, Format, Tally};
use crate::error::{Error, Result};
use crate::event::{Event, SensorSize};
use crate::recording::{Writer, read};

/// How to convert.
#[derive(Clone, Copy)]
pub struct Conversion {
    /// Format of the input, where it is not to be probed.
    pub from: Option<&'static Format>,
    /// How the input is decoded.
    pub decoder: DecoderOptions,
    /// Format of the output.
    pub to: &'static Format,
    /// How the output is encoded; a sensor size given here replaces the recording's.
    pub encoder: EncoderOptions,
    /// Times are counted from the first event; one that is earlier gets 0.
    pub from_zero: bool,
}

/// What a conversion did.
pub struct Converted {
    /// Events written.
    pub events: u64,
    /// What the input held besides.
    pub tally: Tally,
    /// Why the input ended early, if it did; the events before it were written. An interruption
    /// is [`Error::Stopped`].
    pub ended: Option<Error>,
}

/// Converts `input` into `output`, until `stop` is set.
///
/// # Errors
/// When nothing could be read, an event has no place in the output's format, or the output cannot
/// be written; what stood there then stays as it was.
pub fn convert(
    input: &Path,
    output: &Path,
    how: &Conversion,
    stop: &AtomicBool,
) -> Result<Converted> {
    let mut writer: Option<Writer> = None;
    let (mut start_us, mut moved) = (None, Vec::new());
    let mut events = 0;
    let mut unwritten = None;
    let options = |size: Option<SensorSize>| {
        let sensor = how.encoder.sensor.or(size);
        EncoderOptions { sensor, ..how.encoder }
    };
    let (facts, read) = read(input, how.from, &how.decoder, &mut |sensor, chunk| {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let Some(first) = chunk.first() else { return Ok(()) };
        let start_us = *start_us.get_or_insert(if how.from_zero { first.t_us } else { 0 });
        moved.clear();
        moved.extend(
            chunk.iter().map(|event| Event { t_us: event.t_us.saturating_sub(start_us), ..*event }),
        );
        let wrote = (|| {
            let writer = match &mut writer {
                Some(writer) => writer,
                None => writer.insert(Writer::create(output, how.to, &options(sensor.size))?),
            };
            writer.write(&moved)
        })();
        events += chunk.len() as u64;
        wrote.map_err(|error| {
            unwritten = Some(error);
            Error::Stopped
        })
    });
    if let Some(error) = unwritten {
        return Err(error);
    }
    let ended = match (read, &writer) {
        (Err(error), None) => return Err(error),
        (read, _) => read.err(),
    };
    let mut writer = match writer {
        Some(writer) => writer,
        None => Writer::create(output, how.to, &options(facts.sensor.size))?,
    };
    if events == 0 {
        writer.write(&[])?;
    }
    writer.finish()?;
    Ok(Converted { events, tally: facts.tally, ended })
}
