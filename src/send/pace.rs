//! When events leave: at their recorded pace, each tick's together, and how late they did.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::event::Event;

/// Events whose times lie so close together leave together, at the last one's time.
pub const TICK_US: u64 = 250;

/// A pause is cut into pieces of this length, so that an interruption is heard.
const NAP: Duration = Duration::from_millis(20);

/// A clock that goes back by more than this began anew: what follows is paced from there.
const RESTART_US: u64 = 1_000_000;

/// Holds events back until their time has come.
pub struct Pacer<'a> {
    /// Sensor seconds a second; as fast as can be where there is none.
    speed: Option<f64>,
    stop: &'a AtomicBool,
    /// The first event left then.
    anchor: Option<(Instant, u64)>,
    latest_us: u64,
    lateness: &'a mut Lateness,
}

impl<'a> Pacer<'a> {
    /// The first event leaves at once.
    pub fn new(speed: Option<f64>, stop: &'a AtomicBool, lateness: &'a mut Lateness) -> Self {
        Pacer { speed, stop, anchor: None, latest_us: 0, lateness }
    }

    /// Waits until the first of these events are due, and tells how many those are.
    ///
    /// # Errors
    /// [`Error::Stopped`] once the user has interrupted.
    pub fn wait(&mut self, events: &[Event]) -> Result<usize> {
        let (Some(first), Some(speed)) = (events.first(), self.speed) else {
            return if self.is_stopped() { Err(Error::Stopped) } else { Ok(events.len()) };
        };
        if first.t_us.saturating_add(RESTART_US) < self.latest_us {
            self.anchor = None;
        }
        let (begun, begun_us) = *self.anchor.get_or_insert_with(|| (Instant::now(), first.t_us));
        let now_us = begun_us.saturating_add((begun.elapsed().as_secs_f64() * 1e6 * speed) as u64);
        let until_us = now_us.max(first.t_us.saturating_add(self.tick_us()));
        let is_later = |event: &Event| {
            event.t_us > until_us || event.t_us.saturating_add(RESTART_US) < first.t_us
        };
        let n = events.iter().position(is_later).unwrap_or(events.len());
        let latest_us = events[..n].iter().map(|event| event.t_us).max().unwrap_or(first.t_us);
        self.latest_us = latest_us;
        let ahead_s = latest_us.saturating_sub(begun_us) as f64 * 1e-6 / speed;
        self.wait_until(begun, Duration::try_from_secs_f64(ahead_s).unwrap_or(Duration::MAX))?;
        Ok(n)
    }

    fn wait_until(&self, begun: Instant, due: Duration) -> Result<()> {
        loop {
            if self.is_stopped() {
                return Err(Error::Stopped);
            }
            let left = due.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    /// These events, which [`Pacer::wait`] let go, have left.
    pub fn left(&mut self, events: &[Event]) {
        let (Some((begun, begun_us)), Some(speed)) = (self.anchor, self.speed) else { return };
        let now_us = begun.elapsed().as_secs_f64() * 1e6;
        for event in events {
            let due_us = (event.t_us as f64 - begun_us as f64) / speed;
            self.lateness.add((now_us - due_us).max(0.0) as u64);
        }
    }

    /// Length of a tick in sensor time.
    pub fn tick_us(&self) -> u64 {
        self.speed.map_or(0, |speed| (TICK_US as f64 * speed) as u64)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
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
        let stop = AtomicBool::new(false);
        let mut lateness = Lateness::default();
        // So fast that nothing is waited for, and ticks are long in sensor time.
        let mut pacer = Pacer::new(Some(1e6), &stop, &mut lateness);
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
        let stop = AtomicBool::new(false);
        let mut lateness = Lateness::default();
        let mut pacer = Pacer::new(Some(1.0), &stop, &mut lateness);
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
