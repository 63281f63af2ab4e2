//! When the engine has its turns where windows of all streams are to come together. Knows no engine.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// A sleep ends so much late by itself: it is rounded up to a millisecond, and so is the kernel's.
const LATE: Duration = Duration::from_millis(2);

/// Turns on a grid: one that begins late does not put off those after it.
pub struct Ticks {
    every: Duration,
    next: Instant,
}

impl Ticks {
    /// A turn at once, the others so long after each other.
    pub fn new(every: Duration) -> Self {
        Ticks { every, next: Instant::now() }
    }

    /// Waits for the next turn; one that is due is not waited for. One that `hurry` asks for before
    /// it moves none.
    pub async fn wait(&mut self, hurry: impl Future<Output = ()>) {
        let mut now = Instant::now();
        if now < self.next {
            if timeout_at(self.next, hurry).await.is_ok() {
                return;
            }
            now = Instant::now();
        }
        self.next += self.every;
        if self.next + LATE < now {
            // After silence, or behind time, the grid begins anew.
            self.next = now + self.every;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{advance, sleep};

    use super::*;

    /// Time passes as a test says.
    fn paused(test: impl Future<Output = ()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(test);
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_turn_takes_nothing_from_the_ticks() {
        paused(async {
            for every in [MS, 2 * MS, 5 * MS / 2] {
                let (mut ticks, begun) = (Ticks::new(every), Instant::now());
                for _ in 0..1000 {
                    ticks.wait(pending()).await;
                    advance(MS / 10).await;
                }
                let taken = begun.elapsed();
                assert!(taken.abs_diff(every * 999) <= LATE + MS, "{every:?}: {taken:?}");
            }
        });
    }

    #[test]
    fn a_turn_that_is_due_is_not_waited_for() {
        paused(async {
            let (mut ticks, begun) = (Ticks::new(MS), Instant::now());
            for _ in 0..100 {
                ticks.wait(pending()).await;
                advance(5 * MS + MS / 10).await;
            }
            assert_eq!(begun.elapsed(), (5 * MS + MS / 10) * 100);
        });
    }

    #[test]
    fn after_silence_one_turn_is_at_once_and_the_next_a_tick_later() {
        paused(async {
            let mut ticks = Ticks::new(10 * MS);
            ticks.wait(pending()).await;
            sleep(1000 * MS).await;
            let begun = Instant::now();
            ticks.wait(pending()).await;
            assert_eq!(begun.elapsed(), Duration::ZERO);
            ticks.wait(pending()).await;
            assert_eq!(begun.elapsed(), 10 * MS);
        });
    }

    #[test]
    fn a_turn_in_a_hurry_is_at_once_and_moves_none() {
        paused(async {
            let (mut ticks, begun) = (Ticks::new(60_000 * MS), Instant::now());
            ticks.wait(pending()).await;
            ticks.wait(async {}).await;
            assert_eq!(begun.elapsed(), Duration::ZERO);
            ticks.wait(pending()).await;
            assert_eq!(begun.elapsed(), 60_000 * MS);
        });
    }
}
