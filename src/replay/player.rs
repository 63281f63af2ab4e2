//! A reading thread: one recording after another through ingest into the engine's ring, at the
//! pace that was asked for.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::Replay;
use crate::codec::Need;
use crate::engine::{Feed, Port};
use crate::error::{Error, Result};
use crate::frame::Frames;
use crate::ingest::Ingest;
use crate::pace::{LeapNote, Pace, wait};
use crate::progress::Progress;
use crate::ring::StreamEnd;
use crate::source::{CHUNK_BYTES, Chunk, Source, is_stdin};

/// Bytes decoded at once where a pace is kept, for the progress bar goes on from piece to piece.
const PACED_BYTES: usize = 1 << 10;

/// One recording to be played.
pub struct Player<'a> {
    pub path: &'a Path,
    pub replay: &'a Replay,
    pub progress: &'a Progress,
    pub stop: &'a AtomicBool,
    /// Nobody steps any more: the output is gone.
    pub ended: &'a AtomicBool,
}

impl Player<'_> {
    /// Plays all passes as one stream. Gives the exit code of its failure, else 0.
    pub fn play(&self, port: &Port) -> u8 {
        let shown = self.path.display().to_string();
        let stream = if is_stdin(self.path) { "stdin" } else { &shown };
        let Ok(mut feed) = port.open(stream) else { return 0 };
        let mut ingest = Ingest::new(self.replay.reading, self.replay.window, Some(&shown));
        if self.replay.speed.is_some() {
            ingest.cut_singly();
        }
        let note = LeapNote::new(self.progress, stream, "replay");
        let mut pace = self.replay.speed.map(|speed| Pace::new(speed, &note));
        let mut played = Ok(());
        for pass in 0..self.replay.passes {
            let first = (pass == 0).then_some(stream);
            played = self.pass(&mut ingest, &mut feed, pace.as_mut(), first);
            if played.is_err() || self.stopped() {
                break;
            }
        }
        let totals = ingest.totals();
        if self.replay.reading.from_us > 0 && totals.events == 0 && played.is_ok() {
            self.progress.note(&format!("warning: {stream}: no event comes from --from on"));
        }
        let error = played.as_ref().err();
        let error = error.filter(|error| !matches!(error, Error::Stopped));
        // Without an engine there is nobody to tell.
        let _ = feed.end(StreamEnd::new(stream, totals, error));
        error.map_or(0, Error::exit_code)
    }

    /// What the first pass sets aside is told under the stream's name.
    fn pass(
        &self,
        ingest: &mut Ingest,
        feed: &mut Feed,
        mut pace: Option<&mut Pace<'_>>,
        first: Option<&str>,
    ) -> Result<()> {
        if let Some(pace) = &mut pace {
            pace.restart();
        }
        let mut emit = |frames: &mut Frames| send(frames, feed, pace.as_deref_mut(), self.stop);
        let read = self.read(ingest, &mut emit);
        if let Some(stream) = first
            && let Some(told) = ingest.tally().told()
        {
            self.progress.note(&format!("note: {stream}: {told}"));
        }
        let finished = ingest.finish(matches!(read, Ok(true)), &mut emit);
        read.and(finished)
    }

    /// Says whether the recording was read to its end.
    fn read(
        &self,
        ingest: &mut Ingest,
        emit: &mut dyn FnMut(&mut Frames) -> Result<()>,
    ) -> Result<bool> {
        let mut source = Source::open(self.path)?;
        let mut buffer = Vec::new();
        let mut seen = ingest.totals().events;
        let piece_bytes = if self.replay.speed.is_some() { PACED_BYTES } else { CHUNK_BYTES };
        while !self.stopped() {
            let bytes = match source.read(&mut buffer)? {
                Chunk::Bytes(bytes) => bytes,
                Chunk::Nothing => continue,
                Chunk::End => return Ok(true),
            };
            let mut need = Need::More;
            for piece in bytes.chunks(piece_bytes) {
                need = ingest.feed(piece, emit)?;
                let events = ingest.totals().events;
                self.progress.add(piece.len() as u64, events - seen);
                seen = events;
                if need == Need::Nothing {
                    return Ok(true);
                }
            }
            // Of what may be passed over, the rest of the chunk has been fed.
            if let Need::Skip(n) = need {
                let skipped = source.skip(n)?;
                ingest.skipped(skipped);
                self.progress.add(skipped, 0);
            }
        }
        Ok(false)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.ended.load(Ordering::Relaxed)
    }
}

/// Hands windows on when their time has come: at a window's end.
fn send(
    frames: &mut Frames,
    feed: &mut Feed,
    pace: Option<&mut Pace<'_>>,
    stop: &AtomicBool,
) -> Result<()> {
    if let Some(pace) = pace {
        for window in frames.windows() {
            if window.restart {
                pace.restart();
            }
            let now = Instant::now();
            pace.begin(window.t_start_us, now);
            wait(pace.due(window.t_end_us, now), stop)?;
        }
    }
    feed.send(frames).map_err(|_| Error::Stopped)
}
