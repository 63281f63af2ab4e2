//! `convert`: a recording from any readable format into any writable one.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::codec::{DecoderOptions, EncoderOptions, Format, Tally};
use crate::error::{Error, Result};
use crate::event::{Event, Sensor, SensorSize};
use crate::recording::{Writer, read};
use crate::view::{Orient, View, ViewSpec};

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
    /// Pixels as stored, or as a view turns them.
    pub orient: Orient,
}

/// What a conversion did.
pub struct Converted {
    /// Events written.
    pub events: u64,
    /// What the input held besides.
    pub tally: Tally,
    /// The pixels stand in an order that the output's format does not tell.
    pub untold_order: bool,
    /// Events written that lie outside of the sensor's size, and that size.
    pub outside: Option<(u64, SensorSize)>,
    /// Events left out, whose pixel no sensor has.
    pub without_pixel: u64,
    /// Events earlier than the first, whose times became 0 where times are counted from it.
    pub before: u64,
    /// Why the input ended early, if it did; the events before it were written. An interruption
    /// is [`Error::Stopped`].
    pub ended: Option<Error>,
}

/// Converts `input` into `output`, until `stop` is set.
///
/// # Errors
/// When nothing could be read, an event has no place in the output's format or cannot be turned, or
/// the output cannot be written; what stood there then stays as it was.
pub fn convert(
    input: &Path,
    output: &Path,
    how: &Conversion,
    stop: &AtomicBool,
) -> Result<Converted> {
    let keeps_order = how.to.in_chip_order;
    if how.orient == Orient::Upright && keeps_order {
        return Err(Error::Usage(format!(
            "{} keeps the chip's order of pixels, and its readers turn them: leave --orient out",
            how.to.title
        )));
    }
    let mut turning: Option<Turning> = None;
    let mut writer: Option<Writer> = None;
    let (mut start_us, mut moved) = (None, Vec::<Event>::new());
    let (mut events, mut n_outside, mut n_before, mut without_pixel) = (0, 0, 0, 0);
    let mut unwritten = None;
    let size_of = |sensor: &Sensor| how.encoder.sensor.or(sensor.size);
    let options = |sensor: &Sensor| EncoderOptions { sensor: size_of(sensor), ..how.encoder };
    let (facts, read) = read(input, how.from, &how.decoder, &mut |sensor, chunk| {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        moved.clear();
        moved.extend(chunk.iter().filter(|event| event.has_pixel()));
        without_pixel += (chunk.len() - moved.len()) as u64;
        let Some(first) = moved.first() else { return Ok(()) };
        let start_us = *start_us.get_or_insert(if how.from_zero { first.t_us } else { 0 });
        n_before += moved.iter().filter(|event| event.t_us < start_us).count() as u64;
        for event in &mut moved {
            event.t_us = event.t_us.saturating_sub(start_us);
        }
        let wrote = (|| {
            let turning = match &turning {
                Some(turning) => turning,
                None => turning.insert(Turning::new(how, sensor)?),
            };
            turning.apply(&mut moved)?;
            if let Some(size) = size_of(sensor) {
                let outside = moved.iter().filter(|event| size.address(event).is_none());
                n_outside += outside.count() as u64;
            }
            let writer = match &mut writer {
                Some(writer) => writer,
                None => writer.insert(Writer::create(output, how.to, &options(sensor))?),
            };
            writer.write(&moved)
        })();
        events += moved.len() as u64;
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
        None => Writer::create(output, how.to, &options(&facts.sensor))?,
    };
    if events == 0 {
        writer.write(&[])?;
    }
    writer.finish()?;
    let untold_order = how.orient == Orient::Stored && is_mirrored(&facts.sensor) && !keeps_order;
    let outside = size_of(&facts.sensor).filter(|_| n_outside > 0).map(|size| (n_outside, size));
    Ok(Converted {
        events,
        tally: facts.tally,
        untold_order,
        outside,
        without_pixel,
        before: n_before,
        ended,
    })
}

fn is_mirrored(sensor: &Sensor) -> bool {
    sensor.mirrored_x || sensor.mirrored_y
}

/// The view that turns a recording's pixels and its size, where they are to be turned.
struct Turning(Option<(View, SensorSize)>);

impl Turning {
    fn new(how: &Conversion, sensor: &Sensor) -> Result<Self> {
        if how.orient == Orient::Stored || !is_mirrored(sensor) {
            return Ok(Turning(None));
        }
        let Some(size) = how.encoder.sensor.or(sensor.size) else {
            return Err(Error::Usage(
                "the recording names no sensor size, without which it cannot be turned: give it \
                 with --sensor WxH"
                    .to_owned(),
            ));
        };
        let spec = ViewSpec { sensor: Some(size), orient: how.orient, ..ViewSpec::default() };
        Ok(Turning(Some((View::new(&spec, sensor, size)?, size))))
    }

    fn apply(&self, events: &mut [Event]) -> Result<()> {
        let Some((view, size)) = &self.0 else { return Ok(()) };
        // The view would set it aside; a recording is converted whole.
        if let Some(event) = events.iter().find(|event| size.address(event).is_none()) {
            let Event { t_us, x, y, .. } = event;
            return Err(Error::Usage(format!(
                "the event at {t_us} µs, pixel {x},{y} lies outside of the sensor's {size} pixels, \
                 which cannot be turned so: --sensor WxH gives another size",
            )));
        }
        view.apply(events);
        Ok(())
    }
}
