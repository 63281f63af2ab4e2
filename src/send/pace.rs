//! When events leave: at their recorded pace, each tick's together, and how late they did.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::event::Event;
use crate::pace::{LeapNote, Pace, wait};

/// Events whose times lie so close together leave together, at the last one's time.
pub const TICK_US: u64 = 250;

/// A clock that goes back by more than this began anew: what follows is paced from there.
const RESTART_US: u64 = 1_000_000;

/// Holds events back until their time has come.
pub struct Pacer<'a> {
    /// As fast as can be where there is none.
    pace: Option<Pace<'a>>,
    stop: &'a AtomicBool,
    latest_us: u64,
    lateness: &'a mut Lateness,
}

impl<'a> Pacer<'a> {
    /// The first event leaves at once, at `speed` sensor seconds a second those after it.
    pub fn new(
        speed: Option<f64>,
        note: &'a LeapNote<'a>,
        stop: &'a AtomicBool,
        lateness: &'a mut Lateness,
    ) -> Self {
        let pace = speed.map(|speed| Pace::new(speed, note));
        Pacer { pace, stop, latest_us: 0, lateness }
    }

    /// Waits until the first of these events are due, and tells how many those are.
    ///
    /// # Errors
    /// [`Error::Stopped`] once the user has interrupted.
    pub fn wait(&mut self, events: &[Event]) -> Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        let tick_us = self.tick_us();
        let (Some(first), Some(pace)) = (events.first(), &mut self.pace) else {
            return Ok(events.len());
        };
        if first.t_us.saturating_add(RESTART_US) < self.latest_us {
            pace.restart();
        }
        let now = Instant::now();
        let now_us = pace.begin(first.t_us, now);
        let until_us = now_us.max(first.t_us.saturating_add(tick_us));
        let is_later = |event: &Event| {
            event.t_us > until_us || event.t_us.saturating_add(RESTART_US) < first.t_us
        };
        let n = events.iter().position(is_later).unwrap_or(events.len());
        let latest_us = events[..n].iter().map(|event| event.t_us).max().unwrap_or(first.t_us);
        self.latest_us = latest_us;
        wait(pace.due(latest_us, now), self.stop)?;
        Ok(n)
    }

    /// These events, which [`Pacer::wait`] let go, have left.
    pub fn left(&mut self, events: &[Event]) {
        let (Some(pace), now) = (&self.pace, Instant::now()) else { return };
        events.iter().for_each(|event| self.lateness.add(pace.late_us(event.t_us, now)));
    }

    /// Length of a tick in sensor time.
    pub fn tick_us(&self) -> u64 {
        self.pace.as_ref().map_or(0, |pace| (TICK_US as f64 * pace.speed()) as u64)
    }
}

/// How long after their time events left: a histogram of bounded size.
pub struct Lateness {
    /// Events by lateness in steps of [`Lateness::STEP_US`]; the last counts all beyond.
    counts: Vec<u64>,
    greatest_us: u64,
}

impl Default for Lateness {
    fn default() -> Self {
        Lateness { counts: vec![0; 10_000], greatest_us: 0 }
    }
}

impl Lateness {
    /// Resolution in µs.
    pub const STEP_US: u64 = 10;

    fn add(&mut self, late_us: u64) {
        let last = self.counts.len() - 1;
        let at = usize::try_from(late_us / Self::STEP_US).map_or(last, |at| at.min(last));
        self.counts[at] += 1;
        self.greatest_us = self.greatest_us.max(late_us);
    }

    /// A share `q` (0 to 1) of the events left no later than so many µs after their time, to the
    /// resolution; 0 where none were paced.
    pub fn quantile_us(&self, q: f64) -> u64 {
        let total: u64 = self.counts.iter().sum();
        let wanted = (q * total as f64).ceil() as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return ((at as u64 + 1) * Self::STEP_US).min(self.greatest_us);
            }
        }
        0
    }

    /// The greatest in µs.
    pub fn greatest_us(&self) -> u64 {
        self.greatest_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Polarity;
    use crate::progress::Progress;

    fn at(t_us: u64) -> Event {
        Event { t_us, x: 0, y: 0, polarity: Polarity::On }
    }

    #[test]
    fn quantiles_count_events() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.quantile_us(0.99), 0);
        (0..99).for_each(|_| lateness.add(5));
        lateness.add(2_000_000);
        assert_eq!([0.5, 0.99].map(|q| lateness.quantile_us(q)), [10, 10]);
        assert_eq!((lateness.quantile_us(1.0), lateness.greatest_us()), (100_000, 2_000_000));
    }

    #[test]
    fn a_tick_leaves_together_and_a_restart_begins_anew() {
        let (stop, progress) = (AtomicBool::new(false), Progress::over_bytes(None, true));
        let note = LeapNote::new(&progress, "x", "send");
        let mut lateness = Lateness::default();
        // So fast that nothing is waited for, and ticks are long in sensor time.
        let mut pacer = Pacer::new(Some(1e6), &note, &stop, &mut lateness);
        let day = 86_400_000_000;
        let events = [at(day), at(day + 100), at(day + 200), at(7), at(8)];
        assert_eq!(pacer.wait(&events).ok(), Some(3));
        pacer.left(&events[..3]);
        assert_eq!(pacer.wait(&events[3..]).ok(), Some(2));
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(pacer.wait(&events), Err(Error::Stopped)));
        assert_eq!(lateness.counts.iter().sum::<u64>(), 3);
    }

    #[test]
    fn nothing_leaves_before_its_time() {
        let (stop, progress) = (AtomicBool::new(false), Progress::over_bytes(None, true));
        let note = LeapNote::new(&progress, "x", "send");
        let mut lateness = Lateness::default();
        let mut pacer = Pacer::new(Some(1.0), &note, &stop, &mut lateness);
        let begun = Instant::now();
        let events: Vec<Event> = (0..40).map(|k| at(1_000_000 + 500 * k)).collect();
        let mut rest = events.as_slice();
        while !rest.is_empty() {
            let n = pacer.wait(rest).expect("not stopped");
            assert!(begun.elapsed().as_micros() as u64 >= rest[n - 1].t_us - 1_000_000);
            rest = &rest[n..];
        }
    }
}
