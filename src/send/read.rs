//! Reads a recording ahead of its playing, on a thread of its own, so that decoding delays no
//! event.

use std::sync::mpsc::SyncSender;

use super::Transmission;
use crate::codec::{AnyDecoder, Decoder, Need, drop_malformed};
use crate::error::{Error, Result};
use crate::event::{Event, Sensor};
use crate::source::{Chunk, Source};

/// Chunks that may wait to be played.
pub const CHUNKS_AHEAD: usize = 4;

/// Pause between two passes that are one stream.
pub const PASS_GAP_US: u64 = 100_000;

/// What a stretch of a recording holds.
pub struct Stretch {
    pub events: Vec<Event>,
    pub sensor: Sensor,
    /// Bytes that were read for it.
    pub n_bytes: u64,
}

/// Reads all passes as one stream, whose clock goes on from one to the next. An error is the last
/// that comes.
pub fn read(how: &Transmission<'_>, stretches: &SyncSender<Result<Stretch>>) {
    let mut clock = Clock::default();
    for _ in 0..how.passes {
        clock.begin_pass();
        match pass(how, &mut clock, stretches) {
            Ok(()) => {}
            // Whoever plays is gone.
            Err(Error::Stopped) => return,
            Err(error) => return drop(stretches.send(Err(error))),
        }
    }
}

fn pass(
    how: &Transmission<'_>,
    clock: &mut Clock,
    stretches: &SyncSender<Result<Stretch>>,
) -> Result<()> {
    let mut source = Source::open(how.file)?;
    let mut decoder = match how.format {
        Some(format) => AnyDecoder::of(format, &how.decoder),
        None => AnyDecoder::probing(how.file.to_str(), &how.decoder),
    };
    let mut buffer = Vec::new();
    let mut hand_over = |decoder: &AnyDecoder, mut events: Vec<Event>, n_bytes: u64| {
        clock.shift(&mut events);
        let stretch = Stretch { events, sensor: decoder.sensor(), n_bytes };
        stretches.send(Ok(stretch)).map_err(|_| Error::Stopped)
    };
    loop {
        let bytes = match source.read(&mut buffer)? {
            Chunk::Bytes(bytes) => bytes,
            // Passes on that the player is gone, if it is.
            Chunk::Nothing => {
                hand_over(&decoder, Vec::new(), 0)?;
                continue;
            }
            Chunk::End => break,
        };
        let mut events = Vec::new();
        let fed = decoder.feed(bytes, &mut events);
        drop_malformed(&mut events, 0);
        let mut n_bytes = bytes.len() as u64;
        if let Ok(Need::Skip(n)) = fed {
            let skipped = source.skip(n)?;
            decoder.skipped(skipped);
            n_bytes += skipped;
        }
        hand_over(&decoder, events, n_bytes)?;
        if fed? == Need::Nothing {
            return Ok(());
        }
    }
    let mut events = Vec::new();
    let finished = decoder.finish(&mut events);
    drop_malformed(&mut events, 0);
    hand_over(&decoder, events, 0)?;
    finished
}

/// Makes the times of one pass follow those of the pass before.
#[derive(Default)]
struct Clock {
    latest_us: Option<u64>,
    shift_us: Option<i128>,
}

impl Clock {
    fn begin_pass(&mut self) {
        self.shift_us = None;
    }

    fn shift(&mut self, events: &mut [Event]) {
        let Some(first) = events.first() else { return };
        let shift_us = *self.shift_us.get_or_insert_with(|| match self.latest_us {
            Some(latest_us) => i128::from(latest_us + PASS_GAP_US) - i128::from(first.t_us),
            None => 0,
        });
        let mut latest_us = self.latest_us.unwrap_or(0);
        for event in events {
            let t_us = (i128::from(event.t_us) + shift_us).clamp(0, i128::from(Event::MAX_T_US));
            event.t_us = t_us as u64;
            latest_us = latest_us.max(event.t_us);
        }
        self.latest_us = Some(latest_us);
    }
}
