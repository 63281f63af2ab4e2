//! The 5-byte events of N-MNIST and N-Caltech101: x, y, then polarity and 23 bits of µs.
//!
//! No header, no sensor size: both data sets write it, with sensors of different size.

use super::carry::Carry;
use super::{Clock, Decoder, DecoderOptions, Format, Match, Need, Tally};
use crate::error::Result;
use crate::event::{Event, Polarity, Sensor};

/// Row of [`super::FORMATS`].
pub const FORMAT: Format = Format {
    name: NAME,
    title: "N-MNIST (5 bytes an event)",
    extensions: &["bin", "bs2"],
    probe: |_| Match::No,
    plausible,
    decoder,
    encoder: None,
    compressed: false,
    in_chip_order: false,
};

const NAME: &str = "nmnist";
const N_EVENT: usize = 5;
/// A record with this y is no event: the clock ran over, and all times after it are later.
const OVERFLOW_Y: u8 = 240;
/// By so much, as the readers of the data sets' authors and of Tonic have it.
const OVERFLOW_US: u64 = 1 << 13;

fn decoder(_: &DecoderOptions) -> Box<dyn Decoder> {
    Box::new(Nmnist::default())
}

/// Whether times rise by less than a second and start in the first: by chance, two records do in
/// one case of 64.
fn plausible(prefix: &[u8]) -> bool {
    let (records, _) = prefix.as_chunks::<N_EVENT>();
    let records = records.get(..records.len().min(64)).unwrap_or_default();
    let mut last = 0;
    let rising = |record: &[u8; N_EVENT]| {
        let step = u64::from(time(record)).wrapping_sub(last);
        last = last.wrapping_add(step);
        record[1] == OVERFLOW_Y || step < 1_000_000
    };
    !records.is_empty() && records.iter().all(rising)
}

fn time([_, _, a, b, c]: &[u8; N_EVENT]) -> u32 {
    u32::from_be_bytes([0, a & 0x7F, *b, *c])
}

#[derive(Default)]
struct Nmnist {
    base_us: u64,
    n_overflows: u64,
    carry: Carry<N_EVENT>,
    offset: u64,
}

impl Nmnist {
    fn records(&mut self, records: &[[u8; N_EVENT]], out: &mut Vec<Event>) {
        out.reserve(records.len());
        for record in records {
            let [x, y, a, ..] = *record;
            if y == OVERFLOW_Y {
                self.base_us += OVERFLOW_US;
                self.n_overflows += 1;
                continue;
            }
            out.push(Event {
                t_us: self.base_us + u64::from(time(record)),
                x: u16::from(x),
                y: u16::from(y),
                polarity: Polarity::from_on(a & 0x80 != 0),
            });
        }
    }
}

impl Decoder for Nmnist {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<Need> {
        self.offset += bytes.len() as u64;
        let (begun, records) = self.carry.cut(bytes);
        self.records(begun.as_slice(), out);
        self.records(records, out);
        Ok(Need::More)
    }

    fn clock(&self) -> Option<Clock> {
        Some(Clock { round_us: self.base_us, last: 0, n_ahead: 0 })
    }

    fn set_clock(&mut self, clock: Clock) {
        self.base_us = clock.round_us;
    }

    fn finish(&mut self, _: &mut Vec<Event>) -> Result<()> {
        self.carry.finish(NAME, self.offset)
    }

    fn sensor(&self) -> Sensor {
        Sensor::default()
    }

    fn tally(&self) -> Tally {
        Tally { external: self.n_overflows, ..Tally::default() }
    }
}
