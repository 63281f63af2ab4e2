//! Progress on standard error: a bar on a terminal, nothing in a pipe. The door of the progress
//! bars' library.

use std::io::{IsTerminal, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{
    HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};

use crate::error::printable;

/// Draws a second.
const DRAWS_PER_S: u8 = 10;

/// A bar over bytes, with a rate of events and a message.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
    events: Arc<AtomicU64>,
    quiet: bool,
}

impl Progress {
    /// A bar over `total_bytes` (`None`: unknown) where standard error is a terminal and `quiet`
    /// is not asked for; else nothing is drawn.
    pub fn over_bytes(total_bytes: Option<u64>, quiet: bool) -> Self {
        let draw = !quiet && std::io::stderr().is_terminal();
        let target = if draw {
            ProgressDrawTarget::stderr_with_hz(DRAWS_PER_S)
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(total_bytes, target);
        let events = Arc::new(AtomicU64::new(0));
        let seen = events.clone();
        let rate = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let events = seen.load(Ordering::Relaxed) as f64;
            let per_s = events / state.elapsed().as_secs_f64().max(1e-3);
            let _ = write!(out, "{:.1} Mev/s", per_s * 1e-6);
        };
        let read = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = match state.len() {
                Some(len) => write!(out, "{} of {}", HumanBytes(state.pos()), HumanBytes(len)),
                None => write!(out, "{}", HumanBytes(state.pos())),
            };
        };
        let template = if total_bytes.is_some() {
            "{bar:24} {read}  {rate}  {left}  {msg}"
        } else {
            "{spinner} {read}  {rate}  {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(
                style.with_key("rate", rate).with_key("read", read).with_key("left", write_left),
            );
        }
        Progress { bar, events, quiet }
    }

    /// A bar over steps, whose number [`Progress::begin`] tells.
    pub fn over_steps(quiet: bool) -> Self {
        let progress = Progress::over_bytes(None, quiet);
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {percent:>3} %  {msg}  {left}") {
            progress.bar.set_style(style.with_key("left", write_left));
        }
        progress
    }

    /// So many steps begin, from the first.
    pub fn begin(&self, steps: u64) {
        self.bar.reset();
        self.bar.set_length(steps);
    }

    /// So many steps are over.
    pub fn reach(&self, steps: u64) {
        self.bar.set_position(steps);
    }

    /// Whether a bar is drawn.
    pub fn is_drawn(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// So many bytes more were read, and so many events decoded from them.
    pub fn add(&self, bytes: u64, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
        self.bar.inc(bytes);
    }

    /// Events decoded so far.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// The running answer.
    pub fn say(&self, message: String) {
        self.bar.set_message(message);
    }

    /// A line on standard error, above the bar.
    pub fn tell(&self, line: &str) {
        let line = printable(line);
        // Where standard error is closed, there is nowhere left to complain.
        self.aside(|| drop(writeln!(std::io::stderr().lock(), "{line}")));
    }

    /// As [`Progress::tell`], unless `quiet` was asked for: a note or a warning.
    pub fn note(&self, line: &str) {
        if !self.quiet {
            self.tell(line);
        }
    }

    /// Runs `write` while the bar is out of the way.
    pub fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn write_left(state: &ProgressState, out: &mut dyn std::fmt::Write) {
    if let Some(left) = time_left(state.pos(), state.len(), state.eta()) {
        let _ = write!(out, "{left}");
    }
}

/// What is left by an estimate, which is 0 as long as there is none.
fn time_left(position: u64, length: Option<u64>, estimate: Duration) -> Option<String> {
    let known = length? > position && position > 0 && estimate > Duration::ZERO;
    known.then(|| format!("{} left", HumanDuration(estimate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_left_before_one_can_be_estimated() {
        let [none, some] = [0, 90].map(Duration::from_secs);
        assert_eq!(time_left(5, Some(9), some).as_deref(), Some("2 minutes left"));
        for (position, length, estimate) in
            [(0, Some(9), some), (0, Some(9), none), (5, Some(9), none), (5, None, some)]
        {
            assert_eq!(time_left(position, length, estimate), None);
        }
    }
}
