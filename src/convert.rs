//! `convert`: a recording from any readable format into any writable one.

use std::path::Path;

use crate::codec::{DecoderOptions, EncoderOptions, Format, Tally};
use crate::error::{Error, Result};
use crate::event::SensorSize;
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
}

/// What a conversion did.
pub struct Converted {
    /// Events written.
    pub events: u64,
    /// What the input held besides.
    pub tally: Tally,
    /// Why the input ended early, if it did; the events before it were written.
    pub damage: Option<Error>,
}

/// Converts `input` into `output`.
///
/// # Errors
/// When nothing could be read, an event has no place in the output's format, or the output cannot
/// be written.
pub fn convert(input: &Path, output: &Path, how: &Conversion) -> Result<Converted> {
    let mut writer: Option<Writer> = None;
    let mut events = 0;
    let mut unwritten = None;
    let options = |size: Option<SensorSize>| {
        let sensor = how.encoder.sensor.or(size);
        EncoderOptions { sensor, ..how.encoder }
    };
    let (facts, damage) = read(input, how.from, &how.decoder, &mut |sensor, chunk| {
        if chunk.is_empty() {
            return Ok(());
        }
        let wrote = (|| {
            let writer = match &mut writer {
                Some(writer) => writer,
                None => writer.insert(Writer::create(output, how.to, &options(sensor.size))?),
            };
            writer.write(chunk)
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
    let damage = match (damage, &writer) {
        (Err(error), None) => return Err(error),
        (damage, _) => damage.err(),
    };
    let mut writer = match writer {
        Some(writer) => writer,
        None => Writer::create(output, how.to, &options(facts.sensor.size))?,
    };
    if events == 0 {
        writer.write(&[])?;
    }
    writer.finish()?;
    Ok(Converted { events, tally: facts.tally, damage })
}
