//! A reading thread: one recording after another through ingest into the engine's ring, at the
//! pace that was asked for.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Replay;
use crate::codec::Need;
use crate::engine::{Feed, Port};
use crate::error::{Error, Result};
use crate::frame::{Frames, Window};
use crate::ingest::Ingest;
use crate::progress::Progress;
use crate::ring::StreamEnd;
use crate::source::{Chunk, Source, is_stdin};

/// A pause is cut into pieces of this length, so that an interruption is heard.
const NAP: Duration = Duration::from_millis(20);

/// One recording to be played.
pub struct Player<'a> {
    pub path: &'a Path,
    pub replay: &'a Replay,
    pub progress: &'a Progress,
    pub stop: &'a AtomicBool,
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
        let mut pacer = Pacer { speed: self.replay.speed, anchor: None };
        let mut played = Ok(());
        for _ in 0..self.replay.passes {
            played = self.pass(&mut ingest, &mut feed, &mut pacer);
            if played.is_err() || self.stopped() {
                break;
            }
        }
        let totals = ingest.totals();
        let error = played.as_ref().err();
        let error = error.filter(|error| !matches!(error, Error::Stopped));
        // Without an engine there is nobody to tell.
        let _ = feed.end(StreamEnd::new(stream, totals, error));
        error.map_or(0, Error::exit_code)
    }

    fn pass(&self, ingest: &mut Ingest, feed: &mut Feed, pacer: &mut Pacer) -> Result<()> {
        pacer.anchor = None;
        let mut emit = |frames: &mut Frames| pacer.send(frames, feed, self.stop);
        let read = self.read(ingest, &mut emit);
        let finished = ingest.finish(matches!(read, Ok(true)), &mut emit);
        read.and(finished)
    }

    /// Says whether the recording was read to its end.
    fn read(
        &self,
        ingest: &mut Ingest,
        emit: &mut dyn FnMut(&mut Frames) -> Result<()>,
    ) -> Result<bool> {
        let failed = |source| Error::Io { what: "cannot be read".to_owned(), source };
        let mut source = Source::open(self.path).map_err(failed)?;
        let mut buffer = Vec::new();
        let mut seen = ingest.totals().events;
        while !self.stopped() {
            let bytes = match source.read(&mut buffer).map_err(failed)? {
                Chunk::Bytes(bytes) => bytes,
                Chunk::Nothing => continue,
                Chunk::End => return Ok(true),
            };
            let mut n_read = bytes.len() as u64;
            let need = ingest.feed(bytes, emit)?;
            if let Need::Skip(n) = need {
                let skipped = source.skip(n).map_err(failed)?;
                ingest.skipped(skipped);
                n_read += skipped;
            }
            let events = ingest.totals().events;
            self.progress.add(n_read, events - seen);
            seen = events;
            if need == Need::Nothing {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Holds windows back until their time has come.
struct Pacer {
    speed: Option<f64>,
    anchor: Option<(Instant, u64)>,
}

impl Pacer {
    fn send(&mut self, frames: &mut Frames, feed: &mut Feed, stop: &AtomicBool) -> Result<()> {
        if let Some(speed) = self.speed {
            for window in frames.windows() {
                self.wait(window, speed, stop)?;
            }
        }
        feed.send(frames).map_err(|_| Error::Stopped)
    }

    /// A window leaves at its end; the first one of a clock sets the time.
    fn wait(&mut self, window: &Window, speed: f64, stop: &AtomicBool) -> Result<()> {
        let begins = (Instant::now(), window.t_start_us);
        let anchor = self.anchor.filter(|_| !window.restart);
        let (begun, begun_us) = *self.anchor.insert(anchor.unwrap_or(begins));
        let ahead_s = window.t_end_us.saturating_sub(begun_us) as f64 * 1e-6 / speed;
        let due = Duration::try_from_secs_f64(ahead_s).unwrap_or(Duration::MAX);
        loop {
            let left = due.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            std::thread::sleep(left.min(NAP));
        }
    }
}
