//! Whether the serving thread keeps up: what share of its time it works, and whether events were
//! dropped because it could not.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// Span over which the share is taken.
const SPAN: Duration = Duration::from_secs(1);
/// From this share on, the thread is too busy for more streams.
const BUSY: f64 = 0.9;
/// How long it is told that events were dropped.
const OVERRUN_SPAN: Duration = Duration::from_secs(5);

/// The thread's load.
pub struct Load {
    /// The thread never sleeps.
    spins: bool,
    since: Cell<Instant>,
    /// Time worked by then.
    before: Cell<Duration>,
    /// Time spent on streams, as far as it was told.
    worked: Cell<Duration>,
    busy: Cell<f64>,
    overrun_at: Cell<Option<Instant>>,
}

impl Load {
    /// That of a thread that has just started.
    pub fn new(spins: bool) -> Self {
        Load {
            spins,
            since: Cell::new(Instant::now()),
            before: Cell::default(),
            worked: Cell::default(),
            busy: Cell::default(),
            overrun_at: Cell::default(),
        }
    }

    /// The thread has worked for streams since then.
    pub fn worked(&self, since: Instant) {
        self.worked.set(self.worked.get() + since.elapsed());
    }

    /// Events were dropped.
    pub fn overrun(&self) {
        self.overrun_at.set(Some(Instant::now()));
    }

    /// Time has passed; gives the share of it that the thread worked, once a span.
    pub fn tick(&self, now: Instant) -> Option<f64> {
        let span = now.saturating_duration_since(self.since.get());
        if span < SPAN {
            return None;
        }
        // Where it sleeps, all else is work: system calls and answers too.
        let all = match self.spins {
            true => self.worked.get(),
            false => Handle::current().metrics().worker_total_busy_duration(0),
        };
        let worked = all.saturating_sub(self.before.replace(all));
        self.since.set(now);
        self.busy.set(worked.as_secs_f64() / span.as_secs_f64());
        Some(self.busy.get())
    }

    /// Why the thread should not get more to do, if so.
    pub fn excess(&self) -> Option<String> {
        let busy = self.busy.get();
        if self.overrun_at.get().is_some_and(|at| at.elapsed() < OVERRUN_SPAN) {
            let seconds = OVERRUN_SPAN.as_secs();
            return Some(format!("events came too fast and were lost in the last {seconds} s"));
        }
        (busy >= BUSY).then(|| format!("the server works {:.0} % of its time", 100.0 * busy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_most_of_its_time_should_not_get_more_to_do() {
        let load = Load::new(true);
        let begun = load.since.get();
        for (second, share, busy) in [(1, 0.89, false), (2, 0.91, true), (3, 0.5, false)] {
            load.worked.set(load.worked.get() + SPAN.mul_f64(share));
            let told = load.tick(begun + second * SPAN).unwrap();
            assert!((told - share).abs() < 1e-6);
            assert_eq!(load.excess().is_some_and(|why| why.contains("works 91 %")), busy);
            assert_eq!(load.excess().is_some(), busy);
        }
        load.overrun();
        assert!(load.excess().unwrap().contains("too fast"));
    }
}
