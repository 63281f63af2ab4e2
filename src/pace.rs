//! When what has a sensor time is due at a pace, and the wait until then. A time that leaps far ahead
//! is waited for no longer than a minute: it may be damaged, and nobody would wait for years.
//!
//! Knows neither events nor windows; time is an argument, but in the wait itself.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::progress::Progress;

/// Nothing is held back longer than this; the pace goes on from there.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A pause is cut into pieces of this length, so that an interruption is heard.
const NAP: Duration = Duration::from_millis(20);

/// Tells, once, that a pause was cut short.
pub struct LeapNote<'a> {
    progress: &'a Progress,
    stream: &'a str,
    command: &'a str,
    told: Cell<bool>,
}

impl<'a> LeapNote<'a> {
    /// Of a stream that this command plays.
    pub fn new(progress: &'a Progress, stream: &'a str, command: &'a str) -> Self {
        LeapNote { progress, stream, command, told: Cell::new(false) }
    }

    fn tell(&self) {
        if !self.told.replace(true) {
            let (stream, command, seconds) = (self.stream, self.command, LONGEST_WAIT.as_secs());
            self.progress.note(&format!(
                "note: {stream}: its time leaps further ahead than {seconds} s at this pace: \
                 {command} waits {seconds} s and goes on from there"
            ));
        }
    }
}

/// Wall time of sensor time.
pub struct Pace<'a> {
    /// Sensor seconds a second.
    speed: f64,
    /// The sensor time that is due at an instant.
    anchor: Option<(Instant, u64)>,
    note: &'a LeapNote<'a>,
}

impl<'a> Pace<'a> {
    /// A pace whose clock has not begun.
    pub fn new(speed: f64, note: &'a LeapNote<'a>) -> Self {
        Pace { speed, anchor: None, note }
    }

    /// Sensor seconds a second.
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// The clock begins anew with what comes next.
    pub fn restart(&mut self) {
        self.anchor = None;
    }

    /// The first time of a clock is due now; gives the sensor time that is.
    pub fn begin(&mut self, t_us: u64, now: Instant) -> u64 {
        let (begun, begun_us) = *self.anchor.get_or_insert((now, t_us));
        let gone_s = now.saturating_duration_since(begun).as_secs_f64();
        begun_us.saturating_add((gone_s * 1e6 * self.speed) as u64)
    }

    /// When a time of a clock that has begun is due. One that is further ahead than
    /// [`LONGEST_WAIT`] is due then, and what follows is paced from there.
    pub fn due(&mut self, t_us: u64, now: Instant) -> Instant {
        let (begun, begun_us) = *self.anchor.get_or_insert((now, t_us));
        let ahead_s = t_us.saturating_sub(begun_us) as f64 * 1e-6 / self.speed;
        let ahead = Duration::try_from_secs_f64(ahead_s).ok();
        let due = ahead.and_then(|ahead| begun.checked_add(ahead));
        let latest = now + LONGEST_WAIT;
        if let Some(due) = due.filter(|due| *due <= latest) {
            return due;
        }
        self.anchor = Some((latest, t_us));
        self.note.tell();
        latest
    }

    /// How long after its time this is, in µs; what is of before the clock's beginning was due
    /// with it.
    pub fn late_us(&self, t_us: u64, now: Instant) -> u64 {
        let Some((begun, begun_us)) = self.anchor else { return 0 };
        let due_us = t_us.saturating_sub(begun_us) as f64 / self.speed;
        let now_us = now.saturating_duration_since(begun).as_secs_f64() * 1e6;
        (now_us - due_us).max(0.0) as u64
    }
}

/// Waits until then.
///
/// # Errors
/// [`Error::Stopped`] where `stop` is set meanwhile.
pub fn wait(due: Instant, stop: &AtomicBool) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_of_time_is_waited_for_no_longer_than_the_limit() {
        let progress = Progress::over_bytes(None, true);
        let note = LeapNote::new(&progress, "x", "replay");
        let mut pace = Pace::new(1.0, &note);
        let now = Instant::now();
        pace.begin(0, now);
        let mut due_s = |t_us: u64, now: Instant| (pace.due(t_us, now) - now).as_secs_f64();
        assert_eq!(due_s(1000, now), 0.001);
        assert_eq!(due_s(10_000, now), 0.01);
        assert!(!note.told.get());
        // So far that the sum of times would overflow, and what follows is a window later.
        assert_eq!(due_s(u64::MAX >> 1, now), 60.0);
        assert!(note.told.get());
        let then = now + LONGEST_WAIT;
        assert_eq!(due_s((u64::MAX >> 1) + 1000, then), 0.001);
        assert_eq!(due_s((u64::MAX >> 1) + (1 << 60), then), 60.0);
    }

    #[test]
    fn lateness_is_from_when_it_was_due() {
        let progress = Progress::over_bytes(None, true);
        let note = LeapNote::new(&progress, "x", "send");
        let mut pace = Pace::new(2.0, &note);
        let now = Instant::now();
        assert_eq!(pace.late_us(5, now), 0);
        assert_eq!(pace.begin(1_000_000, now), 1_000_000);
        let after = |ms| now + Duration::from_millis(ms);
        assert_eq!(pace.begin(9, after(10)), 1_020_000);
        assert_eq!(pace.late_us(1_002_000, after(3)), 2000);
        assert_eq!(pace.late_us(1_002_000, after(1)), 0);
        // After a leap, what came before it is not years late.
        pace.due(1 << 60, now);
        assert_eq!(pace.late_us(1_002_000, after(60_003)), 3000);
    }
}
