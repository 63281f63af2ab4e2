//! Where a server's logs go: standard error, a line each, as text for people or JSON for programs.
//! A thread of its own writes them, so one that nobody reads holds up nothing.

use std::io::{self, Write};
use std::iter::once;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

use super::Common;
use crate::error::{Error, Result, printable};

/// Lines that wait to be written, at most; there is no room for more.
const MAX_WAITING: usize = 1000;
/// How long the last lines are waited for, and how often it is looked whether they are written.
const END_WITHIN: Duration = Duration::from_millis(500);
const END_PAUSE: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// The log of a server.
#[derive(Clone)]
pub struct Log {
    format: LogFormat,
    is_quiet: bool,
    queue: Arc<Queue>,
}

impl Log {
    /// Has logs written: warnings, with -v what happens to each stream, with -vv more, with -q
    /// nothing.
    ///
    /// # Errors
    /// When the thread that writes cannot be started.
    pub fn start(format: LogFormat, common: &Common) -> Result<Log> {
        let level = match (common.quiet, common.verbose) {
            (true, _) => LevelFilter::OFF,
            (false, 0) => LevelFilter::WARN,
            (false, 1) => LevelFilter::INFO,
            (false, _) => LevelFilter::DEBUG,
        };
        let (lines, taken) = sync_channel(MAX_WAITING);
        let queue = Arc::new(Queue { lines, waiting: 0.into(), dropped: 0.into() });
        let log = fmt().with_max_level(level).with_writer(queue.clone()).with_target(false);
        match format {
            LogFormat::Text => log.with_ansi(false).init(),
            LogFormat::Json => log.json().flatten_event(true).init(),
        }
        let log = Log { format, is_quiet: common.quiet, queue };
        let writer = log.clone();
        let thread = std::thread::Builder::new().name("log".to_owned());
        thread.spawn(move || writer.write(&taken)).map_err(|source| Error::Io {
            what: "cannot start the thread that writes logs".to_owned(),
            source,
        })?;
        Ok(log)
    }

    /// Something that is as it was asked to be, and may surprise.
    pub fn note(&self, what: &str) {
        self.tell("note", what);
    }

    /// Something is not as it should be.
    pub fn warn(&self, what: &str) {
        self.tell("warning", &printable(what));
    }

    /// Waits until all is written, but no longer than a moment.
    pub fn end(&self) {
        let until = Instant::now() + END_WITHIN;
        while self.queue.waiting.load(Ordering::Acquire) > 0 && Instant::now() < until {
            std::thread::sleep(END_PAUSE);
        }
    }

    fn tell(&self, kind: &str, what: &str) {
        match self.format {
            LogFormat::Json => tracing::warn!("{what}"),
            LogFormat::Text if !self.is_quiet => self.queue.add(format!("{kind}: {what}\n")),
            LogFormat::Text => (),
        }
    }

    /// Writes what comes, and when nothing waits any more, how much there was no room for.
    fn write(&self, taken: &Receiver<Vec<u8>>) {
        let mut out = io::stderr();
        while let Ok(first) = taken.recv() {
            let mut written = 0;
            for line in once(first).chain(taken.try_iter()) {
                // Where that fails, there is nowhere left to complain.
                let _ = out.write_all(&line);
                written += 1;
            }
            let dropped = self.queue.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                self.warn(&format!("{dropped} log lines were dropped: they were read too slowly"));
            }
            self.queue.waiting.fetch_sub(written, Ordering::Release);
        }
    }
}

/// Lines on their way to standard error.
struct Queue {
    lines: SyncSender<Vec<u8>>,
    /// Lines that are not written yet.
    waiting: AtomicUsize,
    /// Lines for which there was no room.
    dropped: AtomicUsize,
}

impl Queue {
    fn add(&self, line: impl Into<Vec<u8>>) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.lines.try_send(line.into()).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What is written at once is a line.
impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
