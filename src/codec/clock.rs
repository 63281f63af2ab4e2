//! Sensor clocks of 32 bits, told apart from one overflow to the next.
//!
//! Knows no format: it is given the 32 bits of one event after another.

use serde::{Deserialize, Serialize};

use crate::event::Event;

/// Where a clock that runs over stands, for a decoder that goes on with another's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    /// Time of the rounds so far, in µs.
    pub round_us: u64,
    /// Last time within a round that set it.
    pub last: u32,
    /// Times far ahead of it, which it has not followed yet.
    pub n_ahead: u32,
}

impl Clock {
    /// Whether a clock can stand there and run on.
    pub fn is_sound(&self) -> bool {
        self.round_us <= Event::MAX_T_US / 2
    }
}

/// Turns a clock of 32 bits that runs over every 71.6 minutes into one of 64 bits.
///
/// The clock has run over only where it falls from its last quarter to its first. An event from
/// the last quarter that comes after that fall is late and belongs to the round before. Any other
/// step back is left as it is. So one damaged time never moves the clock of the events after it.
#[derive(Clone, Debug)]
pub(super) struct Unwrap32(Clock);

impl Unwrap32 {
    /// Bits that name the quarter of a round.
    pub(super) const QUARTER: u32 = 0xC000_0000;
    const ROUND_US: u64 = 1 << 32;
    /// So many times far ahead of the clock are no accident: the clock is there.
    const PATIENCE: u32 = 1000;

    pub(super) fn new() -> Self {
        // From the third quarter every first time is taken as it stands.
        Unwrap32(Clock { round_us: 0, last: 0x8000_0000, n_ahead: 0 })
    }

    /// Where it stands.
    pub(super) fn save(&self) -> Clock {
        self.0
    }

    /// Stands where another did, after whole rounds.
    pub(super) fn restore(&mut self, clock: Clock) {
        let round_us = clock.round_us - clock.round_us % Self::ROUND_US;
        self.0 = Clock { round_us, ..clock };
    }

    /// The last time that set the clock: times of its quarter are `round_us() + t`.
    pub(super) fn last(&self) -> u32 {
        self.0.last
    }

    /// Start of the present round in µs.
    pub(super) fn round_us(&self) -> u64 {
        self.0.round_us
    }

    /// Time in µs of an event whose low 32 bits are `t`.
    #[inline]
    pub(super) fn unwrap(&mut self, t: u32) -> u64 {
        let Clock { round_us, last, .. } = &mut self.0;
        if (t ^ *last) & Self::QUARTER == 0 {
            *last = t;
            return *round_us | u64::from(t);
        }
        self.cross(t)
    }

    #[cold]
    fn cross(&mut self, t: u32) -> u64 {
        let Clock { round_us, last, n_ahead } = &mut self.0;
        match (*last >> 30, t >> 30) {
            (3, 0) => *round_us += Self::ROUND_US,
            (0, 3) if *round_us > 0 => return (*round_us - Self::ROUND_US) | u64::from(t),
            (0, 3) if *n_ahead < Self::PATIENCE => {
                *n_ahead += 1;
                return u64::from(t);
            }
            _ => {}
        }
        *last = t;
        *n_ahead = 0;
        *round_us | u64::from(t)
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, Unwrap32};

    const ROUND: u64 = 1 << 32;

    fn unwrapped(times: &[u32]) -> Vec<u64> {
        let mut clock = Unwrap32::new();
        times.iter().map(|&t| clock.unwrap(t)).collect()
    }

    #[test]
    fn rounds_are_told_apart() {
        let cases: &[(&[u32], &[u64])] = &[
            (&[5, 4, 6], &[5, 4, 6]),
            (&[0xFFFF_FFFF, 0, 1], &[0xFFFF_FFFF, ROUND, ROUND + 1]),
            (&[0xF000_0000, 3, 0xFFFF_FFFE, 4], &[0xF000_0000, ROUND + 3, 0xFFFF_FFFE, ROUND + 4]),
            (&[0x7FFF_FFFF, 0x8000_0000], &[0x7FFF_FFFF, 0x8000_0000]),
            (&[0xF000_0000, 0x4000_0000], &[0xF000_0000, 0x4000_0000]),
        ];
        for (times, expected) in cases {
            assert_eq!(unwrapped(times), *expected, "{times:x?}");
        }
    }

    #[test]
    fn a_clock_goes_on_where_it_was_left() {
        let times = [0xF000_0000, 3, 0xFFFF_FFFE, 0x5000_0000, 0xF000_0000, 9];
        for cut in 0..times.len() {
            let (mut first, mut second) = (Unwrap32::new(), Unwrap32::new());
            let mut told: Vec<u64> = times[..cut].iter().map(|&t| first.unwrap(t)).collect();
            second.restore(first.save());
            told.extend(times[cut..].iter().map(|&t| second.unwrap(t)));
            assert_eq!(told, unwrapped(&times), "{cut}");
        }
    }

    #[test]
    fn a_clock_stands_after_whole_rounds() {
        let mut clock = Unwrap32::new();
        clock.restore(Clock { round_us: ROUND + 1, last: 3, n_ahead: 0 });
        assert_eq!(clock.unwrap(0xF000_0000), 0xF000_0000);
        clock.restore(Clock { round_us: 1, last: 3, n_ahead: 0 });
        assert_eq!(clock.unwrap(0xF000_0000), 0xF000_0000);
    }

    #[test]
    fn one_damaged_time_moves_no_other() {
        for base in [0x0000_1000_u32, 0x4000_0000, 0x9000_0000, 0xF000_0000] {
            for bit in 0..32 {
                check_damage(base, 1 << bit);
            }
            for byte in 0..4 {
                check_damage(base, 0xFF << (8 * byte));
            }
        }
    }

    fn check_damage(base: u32, flip: u32) {
        let mut times: Vec<u32> = (0..9).map(|k| base + k).collect();
        times[4] ^= flip;
        let got = unwrapped(&times);
        for k in [0, 1, 2, 3, 5, 6, 7, 8] {
            assert_eq!(got[k], u64::from(base) + k as u64, "{base:x} {flip:x}");
        }
    }

    #[test]
    fn a_clock_that_jumps_far_ahead_is_followed() {
        let mut times = vec![0];
        times.extend(std::iter::repeat_n(0xF000_0000, 1002));
        times.push(7);
        assert_eq!(unwrapped(&times).last(), Some(&(ROUND + 7)));
    }
}
