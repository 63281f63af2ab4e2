//! jAER's AEUnicast datagrams, with its default settings, big endian: a sequence number (4), then
//! for each event an address (4) and a time in µs (4).
//!
//! Addresses are those of AEDAT 2.0; the sensor tells whose. Numbers count datagrams, from 1 to
//! 2^31 - 1 and on from 0.

use super::chips::{CHIPS, Layout};
use super::clock::Unwrap32;
use super::datagram::{DatagramEncoder, DatagramFormat, DatagramOptions, MAX_DATAGRAM_BYTES};
use super::records::does_not_fit;
use super::{Decoder, Need, Tally, lose};
use crate::error::Result;
use crate::event::{Event, Sensor, SensorSize};

/// Row of [`super::DATAGRAMS`].
pub const DATAGRAMS: DatagramFormat = DatagramFormat {
    name: NAME,
    title: "jAER AEUnicast",
    decoder: |sensor| Box::new(Jaer::new(sensor)),
    encoder: |options| Box::new(Writer::new(options)),
};

const NAME: &str = "jaer";
const NUMBER_BYTES: usize = 4;
const EVENT_BYTES: usize = 8;

/// Layout for a sensor of this size: that of a DVS128 where it is no DAVIS's.
fn layout_of(sensor: Option<SensorSize>) -> Layout {
    CHIPS.iter().find(|chip| Some(chip.size) == sensor).map_or(Layout::Dvs128, |chip| chip.layout)
}

struct Jaer {
    layout: Layout,
    size: Option<SensorSize>,
    clock: Unwrap32,
    sequence: Sequence,
    tally: Tally,
}

impl Jaer {
    fn new(size: Option<SensorSize>) -> Self {
        Jaer {
            layout: layout_of(size),
            size,
            clock: Unwrap32::new(),
            sequence: Sequence::default(),
            tally: Tally::default(),
        }
    }

    fn events(&mut self, pairs: &[[u8; EVENT_BYTES]], out: &mut Vec<Event>) {
        for pair in pairs {
            let pair = u64::from_be_bytes(*pair);
            let (address, t) = ((pair >> 32) as u32, pair as u32);
            let aside = address & self.layout.aside();
            if aside == 0 {
                out.push(self.layout.event(address, self.clock.unwrap(t)));
                continue;
            }
            match self.layout {
                Layout::Dvs128 if aside == 1 << 15 => self.tally.external += 1,
                Layout::Dvs128 => lose(&mut self.tally.malformed, out),
                Layout::Davis if address >> 31 == 0 => self.tally.external += 1,
                Layout::Davis if (address >> 10) & 3 == 3 => self.tally.imu += 1,
                Layout::Davis => self.tally.frames += 1,
            }
        }
    }
}

impl Decoder for Jaer {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<Need> {
        let number = bytes.first_chunk().map(|number| i32::from_be_bytes(*number));
        let Some(number) = number.and_then(|number| u32::try_from(number).ok()) else {
            lose(&mut self.tally.malformed, out);
            return Ok(Need::More);
        };
        if !self.sequence.take(number) {
            self.tally.repeated_datagrams += 1;
            return Ok(Need::More);
        }
        let (pairs, tail) = bytes[NUMBER_BYTES..].as_chunks::<EVENT_BYTES>();
        self.events(pairs, out);
        if !tail.is_empty() {
            lose(&mut self.tally.malformed, out);
        }
        Ok(Need::More)
    }

    fn finish(&mut self, _: &mut Vec<Event>) -> Result<()> {
        self.sequence.settle();
        Ok(())
    }

    fn sensor(&self) -> Sensor {
        let on_is_zero = self.layout == Layout::Dvs128;
        Sensor { size: self.size, mirrored_x: true, mirrored_y: true, on_is_zero }
    }

    fn tally(&self) -> Tally {
        Tally { lost_datagrams: self.sequence.lost, ..self.tally }
    }
}

/// Which of the last 64 datagrams are missing. One that has not come by then is lost, and is not
/// taken if it comes after all: nothing remembers that it was not taken already.
#[derive(Default)]
struct Sequence {
    newest: Option<u32>,
    /// Bit k: datagram `newest - k` has not come.
    missing: u64,
    lost: u64,
    /// Number of the last one that was refused, and how many were in a row, each the next of the
    /// one before.
    refused: (u32, u32),
}

impl Sequence {
    const MODULUS: u32 = 1 << 31;
    /// With a greater step back the sender began anew.
    const MAX_DELAY: u32 = 1024;
    /// A greater step ahead is no gap: the sender began anew.
    const MAX_STEP: u32 = 1 << 20;
    /// So many in a row that would be refused say that the sender began anew.
    const NEW_RUN: u32 = 8;

    /// Says whether the datagram of this number is to be taken: it is the first of it, and not too
    /// late.
    fn take(&mut self, number: u32) -> bool {
        let Some(newest) = self.newest else {
            self.newest = Some(number);
            return true;
        };
        let ahead = number.wrapping_sub(newest) % Self::MODULUS;
        let behind = newest.wrapping_sub(number) % Self::MODULUS;
        if behind < Self::MAX_DELAY {
            let bit = 1_u64.checked_shl(behind).unwrap_or(0);
            let is_missing = self.missing & bit != 0;
            self.missing &= !bit;
            return is_missing || self.is_new_run(number);
        }
        self.newest = Some(number);
        self.refused = (0, 0);
        if ahead > Self::MAX_STEP {
            self.settle();
            return true;
        }
        let n_kept = 64_u32.saturating_sub(ahead);
        let past = self.missing.checked_shr(n_kept).unwrap_or(0);
        self.lost += u64::from(past.count_ones()) + u64::from(ahead.saturating_sub(64));
        let jumped_over = u64::MAX.checked_shl(ahead).map_or(u64::MAX, |mask| !mask) & !1;
        self.missing = self.missing.checked_shl(ahead).unwrap_or(0) | jumped_over;
        true
    }

    /// Says whether with this one, which is refused else, the sender began anew.
    fn is_new_run(&mut self, number: u32) -> bool {
        let (last, n) = self.refused;
        let is_next = n > 0 && number == (last + 1) % Self::MODULUS;
        self.refused = (number, if is_next { n + 1 } else { 1 });
        let is_new = self.refused.1 == Self::NEW_RUN;
        if is_new {
            self.settle();
            self.newest = Some(number);
            self.refused = (0, 0);
        }
        is_new
    }

    /// What has not come is lost.
    fn settle(&mut self) {
        self.lost += u64::from(self.missing.count_ones());
        self.missing = 0;
    }
}

struct Writer {
    layout: Layout,
    /// Number of the next datagram.
    number: u32,
}

impl Writer {
    fn new(options: &DatagramOptions) -> Self {
        Writer { layout: layout_of(options.sensor), number: 1 }
    }
}

impl DatagramEncoder for Writer {
    fn encode(&mut self, events: &[Event], out: &mut Vec<u8>) -> Result<usize> {
        let n = events.len().min((MAX_DATAGRAM_BYTES - NUMBER_BYTES) / EVENT_BYTES);
        out.extend_from_slice(&self.number.to_be_bytes());
        for event in &events[..n] {
            let bounds = match self.layout {
                Layout::Dvs128 => "without the sensor of a DAVIS, its addresses are a DVS128's",
                Layout::Davis => "addresses of a DAVIS go to 1023,511",
            };
            let address =
                self.layout.address(event).ok_or_else(|| does_not_fit(event, NAME, bounds))?;
            let pair = u64::from(address) << 32 | u64::from(event.t_us as u32);
            out.extend_from_slice(&pair.to_be_bytes());
        }
        self.number = (self.number + 1) % Sequence::MODULUS;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Polarity;

    const DAVIS346: SensorSize = SensorSize { width: 346, height: 260 };

    fn lost(numbers: &[u32]) -> (u64, usize) {
        let mut sequence = Sequence::default();
        let repeated = numbers.iter().filter(|number| !sequence.take(**number)).count();
        sequence.settle();
        (sequence.lost, repeated)
    }

    #[test]
    fn gaps_are_counted_once_and_late_datagrams_fill_them() {
        const LAST: u32 = (1 << 31) - 1;
        let after_gap: Vec<u32> = (1..100).chain(150..400).collect();
        let begun_anew: Vec<u32> = (1..=500).chain(1..=300).chain(303..=600).collect();
        let begun_soon: Vec<u32> = (1..=20).chain(1..=100).collect();
        let repeated: Vec<u32> = (1..=100).chain(41..=47).chain(101..=110).collect();
        let swapped: Vec<u32> = (1..=20).chain(41..=60).chain(21..=40).chain(61..=90).collect();
        let cases: &[(&[u32], (u64, usize))] = &[
            (&[], (0, 0)),
            (&[1, 2, 3], (0, 0)),
            (&[7, 8, 11], (2, 0)),
            (&[1, 3, 2, 4], (0, 0)),
            (&[1, 2, 2, 3, 1], (0, 2)),
            (&[1, 66, 2, 67], (64, 1)),
            (&[1, 65, 66, 2], (63, 1)),
            (&[1, 65, 2, 66, 2], (62, 1)),
            (&[1, 201], (199, 0)),
            (&[LAST - 1, LAST, 0, 1], (0, 0)),
            (&[LAST, 2], (2, 0)),
            (&[5000, 1, 2, 4], (1, 0)),
            // Too late: it was counted as lost, or was there before.
            (&[1, 3, 70, 2, 1], (67, 2)),
            // Late ones in a row that were missing are no new beginning.
            (&swapped, (0, 0)),
            // One is told by its eighth datagram.
            (&begun_anew, (2, 7)),
            (&begun_soon, (0, 7)),
            (&repeated, (0, 7)),
            (&[5, LAST / 2, 6, 7], (0, 0)),
            (&after_gap, (50, 0)),
        ];
        for (numbers, expected) in cases {
            assert_eq!(lost(numbers), *expected, "{numbers:?}");
        }
    }

    #[test]
    fn datagrams_lie_as_jaer_lays_them() {
        let event = Event { t_us: 0x0102_0304, x: 5, y: 3, polarity: Polarity::On };
        let datagrams: [(Option<SensorSize>, [u8; 12]); 2] = [
            (None, [0, 0, 0, 1, 0, 0, 0x03, 0x0A, 1, 2, 3, 4]),
            (Some(DAVIS346), [0, 0, 0, 1, 0x00, 0xC0, 0x58, 0x00, 1, 2, 3, 4]),
        ];
        for (sensor, bytes) in datagrams {
            let mut out = Vec::new();
            let options = DatagramOptions { sensor, timed: true };
            assert_eq!((DATAGRAMS.encoder)(&options).encode(&[event], &mut out).ok(), Some(1));
            assert_eq!(out, bytes);
            let (mut decoder, mut events) = ((DATAGRAMS.decoder)(sensor), Vec::new());
            decoder.feed(&bytes, &mut events).expect("datagrams never fail");
            assert_eq!(events, [event]);
        }
    }

    #[test]
    fn what_is_no_event_is_set_aside() {
        let datagram = |number: i32, pairs: &[u32]| -> Vec<u8> {
            let pairs = pairs.iter().flat_map(|address| [address.to_be_bytes(), [0; 4]]).flatten();
            number.to_be_bytes().into_iter().chain(pairs).collect()
        };
        let mut events = Vec::new();
        let mut dvs = Jaer::new(None);
        let mut davis = Jaer::new(Some(DAVIS346));
        for decoder in [&mut dvs, &mut davis] {
            for bytes in [
                datagram(1, &[0x8000, 0x1_0000, 0x400, 0x8000_0000, 0x8000_0C00]),
                datagram(-1, &[0]),
                vec![0, 0, 0],
                [datagram(2, &[]), vec![9]].concat(),
                datagram(2, &[0]),
                datagram(4, &[]),
            ] {
                decoder.feed(&bytes, &mut events).expect("datagrams never fail");
            }
            decoder.finish(&mut events).expect("datagrams never fail");
        }
        let common = Tally { repeated_datagrams: 1, lost_datagrams: 1, ..Tally::default() };
        // Of the addresses, a DVS128 has the third as an event, a DAVIS the first two.
        assert_eq!(dvs.tally(), Tally { external: 1, malformed: 3 + 3, ..common });
        let aside = Tally { external: 1, frames: 1, imu: 1, malformed: 3, ..common };
        assert_eq!(davis.tally(), aside);
        assert_eq!(events.iter().filter(|event| !event.is_malformed()).count(), 3);
    }
}
