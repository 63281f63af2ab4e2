//! A reading thread: one recording after another through ingest into the engine's ring, at the
//! pace that was asked for.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Replay;
use crate::codec::{Need, Tally};
use crate::engine::{Feed, Port};
use crate::error::{Error, Result, grouped};
use crate::frame::{Frames, Window};
use crate::ingest::Ingest;
use crate::progress::Progress;
use crate::ring::StreamEnd;
use crate::source::{Chunk, Source, is_stdin};

/// A pause is cut into pieces of this length, so that an interruption is heard.
const NAP: Duration = Duration::from_millis(20);

/// A window is held back no longer than this; the pace goes on from there.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

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
        let leapt = || {
            let seconds = LONGEST_WAIT.as_secs();
            self.progress.note(&format!(
                "note: {stream}: its time leaps further ahead than {seconds} s at this pace: \
                 replay waits {seconds} s and goes on from there"
            ));
        };
        let mut pacer = Pacer { speed: self.replay.speed, anchor: None, leapt: Some(&leapt) };
        let mut played = Ok(());
        for pass in 0..self.replay.passes {
            let first = (pass == 0).then_some(stream);
            played = self.pass(&mut ingest, &mut feed, &mut pacer, first);
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

    /// What the first pass sets aside is told under the stream's name.
    fn pass(
        &self,
        ingest: &mut Ingest,
        feed: &mut Feed,
        pacer: &mut Pacer,
        first: Option<&str>,
    ) -> Result<()> {
        pacer.anchor = None;
        let mut emit = |frames: &mut Frames| pacer.send(frames, feed, self.stop);
        let read = self.read(ingest, &mut emit);
        if let Some(stream) = first {
            self.tell_set_aside(stream, &ingest.tally());
        }
        let finished = ingest.finish(matches!(read, Ok(true)), &mut emit);
        read.and(finished)
    }

    fn tell_set_aside(&self, stream: &str, tally: &Tally) {
        let parts: Vec<_> =
            tally.set_aside().map(|(n, what)| format!("{} {what}", grouped(n))).collect();
        if !parts.is_empty() {
            self.progress.note(&format!("note: {stream}: set aside: {}", parts.join(", ")));
        }
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
        while !self.stopped() {
            let bytes = match source.read(&mut buffer)? {
                Chunk::Bytes(bytes) => bytes,
                Chunk::Nothing => continue,
                Chunk::End => return Ok(true),
            };
            let mut n_read = bytes.len() as u64;
            let need = ingest.feed(bytes, emit)?;
            if let Need::Skip(n) = need {
                let skipped = source.skip(n)?;
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
struct Pacer<'a> {
    speed: Option<f64>,
    /// The sensor time that is due at an instant.
    anchor: Option<(Instant, u64)>,
    /// Tells, once, that a wait was cut short.
    leapt: Option<&'a dyn Fn()>,
}

impl Pacer<'_> {
    fn send(&mut self, frames: &mut Frames, feed: &mut Feed, stop: &AtomicBool) -> Result<()> {
        if let Some(speed) = self.speed {
            for window in frames.windows() {
                self.wait(window, speed, stop)?;
            }
        }
        feed.send(frames).map_err(|_| Error::Stopped)
    }

    fn wait(&mut self, window: &Window, speed: f64, stop: &AtomicBool) -> Result<()> {
        let due = self.due(window, speed, Instant::now());
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    /// When a window leaves: at its end; the first one of a clock sets the time, and so does one
    /// that is further ahead than [`LONGEST_WAIT`].
    fn due(&mut self, window: &Window, speed: f64, now: Instant) -> Instant {
        let anchor = self.anchor.filter(|_| !window.restart);
        let (begun, begun_us) = *self.anchor.insert(anchor.unwrap_or((now, window.t_start_us)));
        let ahead_s = window.t_end_us.saturating_sub(begun_us) as f64 * 1e-6 / speed;
        let ahead = Duration::try_from_secs_f64(ahead_s).ok();
        let due = ahead.and_then(|ahead| begun.checked_add(ahead));
        let latest = now + LONGEST_WAIT;
        if let Some(due) = due.filter(|due| *due <= latest) {
            return due;
        }
        self.anchor = Some((latest, window.t_end_us));
        if let Some(tell) = self.leapt.take() {
            tell();
        }
        latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_of_time_is_waited_for_no_longer_than_the_limit_and_told_once() {
        let told = std::cell::Cell::new(0);
        let tell = || told.set(told.get() + 1);
        let mut pacer = Pacer { speed: Some(1.0), anchor: None, leapt: Some(&tell) };
        let mut due_s = |t_end_us: u64, now: Instant| {
            let window = Window {
                t_start_us: t_end_us - 1000,
                t_end_us,
                events: 1,
                restart: false,
                losses: Default::default(),
            };
            (pacer.due(&window, 1.0, now) - now).as_secs_f64()
        };
        let now = Instant::now();
        assert_eq!(due_s(1000, now), 0.001);
        assert_eq!(due_s(10_000, now), 0.01);
        // So far that the sum of times would overflow, and what follows is a window later.
        assert_eq!(due_s(u64::MAX >> 1, now), 60.0);
        let then = now + LONGEST_WAIT;
        assert_eq!(due_s((u64::MAX >> 1) + 1000, then), 0.001);
        assert_eq!(due_s((u64::MAX >> 1) + (1 << 60), then), 60.0);
        assert_eq!(told.get(), 1);
    }
}
