//! Senders of datagrams that are no stream. Each is told of once, until it has been silent; one
//! whose stream failed is not heard before that, else each of its datagrams would be a stream.
//!
//! Knows no socket; time is an argument.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Strangers that are remembered; beyond it all are forgotten, and told of again.
const MAX_STRANGERS: usize = 1024;

/// Those of one socket.
pub struct Strangers {
    /// One that is silent for so long is forgotten; zero: never.
    silence: Duration,
    known: HashMap<SocketAddr, Stranger>,
}

struct Stranger {
    heard: Instant,
    /// It was a stream, which failed.
    failed: bool,
}

impl Strangers {
    /// Nobody yet.
    pub fn new(silence: Duration) -> Self {
        Strangers { silence, known: HashMap::new() }
    }

    /// A datagram has come of one that is no stream: says whether it may begin one.
    pub fn may_begin(&mut self, from: SocketAddr, now: Instant) -> bool {
        let Some(stranger) = self.known.get_mut(&from) else { return true };
        let silent = now.saturating_duration_since(std::mem::replace(&mut stranger.heard, now));
        if !self.silence.is_zero() && silent >= self.silence {
            self.known.remove(&from);
            return true;
        }
        !stranger.failed
    }

    /// It could not begin one: says whether that is new.
    pub fn refuse(&mut self, from: SocketAddr, now: Instant) -> bool {
        self.remember(from, Stranger { heard: now, failed: false })
    }

    /// Its stream has failed.
    pub fn fail(&mut self, from: SocketAddr, now: Instant) {
        self.remember(from, Stranger { heard: now, failed: true });
    }

    /// It is a stream now.
    pub fn seat(&mut self, from: SocketAddr) {
        self.known.remove(&from);
    }

    fn remember(&mut self, from: SocketAddr, stranger: Stranger) -> bool {
        if self.known.len() >= MAX_STRANGERS && !self.known.contains_key(&from) {
            self.known.clear();
        }
        self.known.insert(from, stranger).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(n: usize) -> SocketAddr {
        ([127, 0, 0, 1], n as u16).into()
    }

    #[test]
    fn each_is_told_of_once_until_it_was_silent_or_seated() {
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        let mut strangers = Strangers::new(10 * second);
        for k in 0..30 {
            let now = begun + k * second;
            assert!(strangers.may_begin(sender(1), now));
            assert_eq!(strangers.refuse(sender(1), now), k == 0);
        }
        assert!(strangers.may_begin(sender(1), begun + 39 * second));
        assert!(strangers.refuse(sender(1), begun + 39 * second), "it was silent");
        strangers.seat(sender(1));
        assert!(strangers.refuse(sender(1), begun + 39 * second), "it was seated");
    }

    #[test]
    fn one_that_failed_begins_none_until_it_was_silent() {
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        let mut strangers = Strangers::new(10 * second);
        strangers.fail(sender(1), begun);
        assert!((1..30).all(|k| !strangers.may_begin(sender(1), begun + k * second)));
        assert!(strangers.may_begin(sender(2), begun));
        assert!(strangers.may_begin(sender(1), begun + 39 * second));
    }

    #[test]
    fn there_is_an_end_to_memory() {
        let mut strangers = Strangers::new(Duration::ZERO);
        let now = Instant::now();
        for n in 0..10 * MAX_STRANGERS {
            assert!(strangers.refuse(sender(n), now));
            assert!(strangers.known.len() <= MAX_STRANGERS);
        }
    }
}
