//! The outlet of `replay`: records to standard output, errors and warnings to standard error.

use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;

use super::Replay;
use crate::engine::Outlet;
use crate::error::{Error, Result, error_lines};
use crate::prediction::{Losses, Prediction, Record, Stream, Summary};
use crate::progress::Progress;
use crate::sink::Sink;

/// Formats records and writes them, a batch at a time.
pub struct Printer<'a> {
    sink: Box<dyn Sink>,
    out: &'a mut (dyn Write + Send),
    replay: &'a Replay,
    progress: &'a Progress,
    buffer: Vec<u8>,
    /// What `--every` left out, by the stream's id.
    held: HashMap<u64, Held>,
    running: Vec<u8>,
    times_us: Vec<u64>,
    failed: Option<std::io::Error>,
}

/// What was left out of a stream since its last line.
#[derive(Default)]
struct Held {
    /// The last prediction.
    line: Vec<u8>,
    /// Segments that ended with it: no later line comes before what may be the stream's last.
    segments: Vec<u8>,
    /// What was lost, told by the next prediction that is printed.
    losses: Losses,
}

impl<'a> Printer<'a> {
    pub fn new(
        mut sink: Box<dyn Sink>,
        out: &'a mut (dyn Write + Send),
        replay: &'a Replay,
        progress: &'a Progress,
    ) -> Self {
        let mut buffer = Vec::new();
        sink.begin(&mut buffer);
        let (held, running, times_us) = Default::default();
        Printer { sink, out, replay, progress, buffer, held, running, times_us, failed: None }
    }

    /// The times of all windows where a record was asked for.
    ///
    /// # Errors
    /// When the output could not be written; that its reader has gone is no error.
    pub fn finish(mut self) -> Result<Vec<u64>> {
        let _ = self.flush();
        match self.failed {
            Some(source) if source.kind() != ErrorKind::BrokenPipe => {
                Err(Error::Io { what: "cannot write the results".to_owned(), source })
            }
            _ => Ok(self.times_us),
        }
    }

    fn prediction(&mut self, stream: &Stream, record: &Record, logits: &[f32]) {
        let Record::Prediction(prediction) = record else { return };
        if self.replay.record.is_some() {
            self.times_us.push(prediction.t_us);
        }
        if self.replay.live && self.progress.is_drawn() {
            self.running.clear();
            self.sink.record(stream, record, logits, &mut self.running);
            return;
        }
        if self.replay.every == 1 {
            self.sink.record(stream, record, logits, &mut self.buffer);
            return;
        }
        let held = self.held.entry(stream.id).or_default();
        self.buffer.append(&mut held.segments);
        held.losses += prediction.losses;
        let record = Record::Prediction(Prediction { losses: held.losses, ..*prediction });
        held.line.clear();
        if (prediction.window + 1).is_multiple_of(self.replay.every) {
            held.losses = Losses::default();
            self.sink.record(stream, &record, logits, &mut self.buffer);
        } else {
            self.sink.record(stream, &record, logits, &mut held.line);
        }
    }

    fn warn_outside(&self, stream: &str, summary: &Summary) {
        if let Some(what) = summary.totals.much_outside() {
            self.progress.note(&format!("warning: {stream}: {what}"));
        }
    }
}

impl Outlet for Printer<'_> {
    fn record(&mut self, stream: &Stream, record: &Record, logits: &[f32], ending: bool) {
        if ending && let Some(held) = self.held.remove(&stream.id) {
            self.buffer.extend(held.line);
            self.buffer.extend(held.segments);
        }
        match record {
            Record::Segment(_)
                if let Some(held) = self.held.get_mut(&stream.id)
                    && !held.line.is_empty() =>
            {
                return self.sink.record(stream, record, logits, &mut held.segments);
            }
            Record::Prediction(_) => return self.prediction(stream, record, logits),
            Record::Error { causes, .. } => {
                error_lines(causes, self.replay.verbose)
                    .iter()
                    .for_each(|line| self.progress.tell(line));
            }
            Record::Summary(summary) => self.warn_outside(&stream.name, summary),
            Record::Segment(_) => (),
        }
        self.sink.record(stream, record, logits, &mut self.buffer);
    }

    fn flush(&mut self) -> ControlFlow<()> {
        if !self.running.is_empty() {
            self.progress.say(String::from_utf8_lossy(&self.running).trim_end().to_owned());
            self.running.clear();
        }
        if self.failed.is_some() {
            self.buffer.clear();
        }
        if self.buffer.is_empty() {
            return ControlFlow::Continue(());
        }
        let (out, buffer) = (&mut *self.out, &self.buffer);
        let written = self.progress.aside(|| out.write_all(buffer).and_then(|()| out.flush()));
        self.buffer.clear();
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                // What is recorded does not depend on who reads the text.
                let goes_on = error.kind() == ErrorKind::BrokenPipe && self.replay.record.is_some();
                self.failed = Some(error);
                if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            }
        }
    }
}
