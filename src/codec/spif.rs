//! SPIF, as AEStream and SpiNNaker's peripheral send it over UDP: little-endian words of 32 bits.
//!
//! Bit 31 set: no time follows; clear: a word with the low half of the µs follows. Bits 30 to 16 x,
//! bit 15 set for ON, bits 14 to 0 y. Events without times have that of their arrival.

use super::carry::Carry;
use super::clock::Unwrap32;
use super::datagram::{DatagramEncoder, DatagramFormat};
use super::records::{check_times, does_not_fit};
use super::{Clock, Decoder, Encoder, EncoderOptions, Format, Match, Need, Patch, Tally, lose};
use crate::error::{Error, Result};
use crate::event::{Event, Polarity, Sensor};

/// Row of [`super::FORMATS`].
pub const FORMAT: Format = Format {
    name: NAME,
    title: "SPIF (AEStream)",
    extensions: &[NAME],
    probe: |_| Match::No,
    // The first event of a recording has a time.
    plausible: |bytes| bytes.get(3).is_none_or(|byte| byte >> 7 == 0),
    decoder: |_| Box::new(Spif::new(false)),
    encoder: Some(encoder),
    compressed: false,
    in_chip_order: false,
};

/// Row of [`super::DATAGRAMS`].
pub const DATAGRAMS: DatagramFormat = DatagramFormat {
    name: FORMAT.name,
    title: FORMAT.title,
    decoder: |_| Box::new(Spif::new(true)),
    encoder: |options| Box::new(Writer { timed: options.timed, clock: Unwrap32::new() }),
};

const NAME: &str = "spif";
const WORD_BYTES: usize = 4;
/// AEStream's receiver reads no more of a datagram.
const MAX_DATAGRAM_BYTES: usize = 512;
const UNTIMED: u32 = 1 << 31;

fn encoder(_: &EncoderOptions) -> Box<dyn Encoder> {
    Box::new(Writer { timed: true, clock: Unwrap32::new() })
}

struct Spif {
    is_datagram: bool,
    arrival_us: Option<u64>,
    clock: Unwrap32,
    /// Word of an event whose time is to come.
    pending: Option<u32>,
    carry: Carry<WORD_BYTES>,
    /// Bytes of whole words.
    offset: u64,
    malformed: u64,
}

impl Spif {
    fn new(is_datagram: bool) -> Self {
        Spif {
            is_datagram,
            arrival_us: None,
            clock: Unwrap32::new(),
            pending: None,
            carry: Carry::default(),
            offset: 0,
            malformed: 0,
        }
    }

    fn datagram(&mut self, bytes: &[u8], out: &mut Vec<Event>) {
        let (words, tail) = bytes.as_chunks::<WORD_BYTES>();
        let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
        let mut last = None;
        // AEStream's last datagram goes on with events of the one before.
        let mut is_stale = false;
        let mut is_cut = !tail.is_empty();
        while let Some(word) = words.next() {
            let t_us = if word & UNTIMED != 0 {
                self.arrival_us
            } else if let Some(t) = words.next() {
                is_stale |= last.is_some_and(|last| steps_back(last, t));
                last = Some(t);
                (!is_stale).then(|| self.clock.unwrap(t))
            } else {
                // Counted below, once with the bytes left over of its time.
                is_cut = true;
                break;
            };
            match t_us.filter(|_| !is_stale) {
                Some(t_us) => out.push(event(word, t_us)),
                None => lose(&mut self.malformed, out),
            }
        }
        if is_cut {
            lose(&mut self.malformed, out);
        }
    }

    /// A word of a stream; says whether it can be read.
    fn word(&mut self, word: u32, out: &mut Vec<Event>) -> bool {
        if let Some(pixel) = self.pending.take() {
            out.push(event(pixel, self.clock.unwrap(word)));
        } else if word & UNTIMED == 0 {
            self.pending = Some(word);
        } else if let Some(t_us) = self.arrival_us {
            out.push(event(word, t_us));
        } else {
            return false;
        }
        true
    }
}

/// Whether a clock of 32 bits goes back from one time to the next; it wraps.
fn steps_back(from: u32, to: u32) -> bool {
    (to.wrapping_sub(from) as i32) < 0
}

fn event(word: u32, t_us: u64) -> Event {
    Event {
        t_us,
        x: (word >> 16) as u16 & 0x7FFF,
        y: word as u16 & 0x7FFF,
        polarity: Polarity::from_on(word & 0x8000 != 0),
    }
}

impl Decoder for Spif {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<Need> {
        if self.is_datagram {
            self.datagram(bytes, out);
            return Ok(Need::More);
        }
        let (begun, words) = self.carry.cut(bytes);
        for word in begun.iter().chain(words) {
            if !self.word(u32::from_le_bytes(*word), out) {
                let what = "the event carries no time, and nothing tells when it arrived: send \
                            such events live, or record them with times"
                    .to_owned();
                return Err(Error::Malformed { format: NAME, offset: self.offset, what });
            }
            self.offset += WORD_BYTES as u64;
        }
        Ok(Need::More)
    }

    fn arrived(&mut self, t_us: u64) {
        self.arrival_us = Some(t_us.min(Event::MAX_T_US));
    }

    fn clock(&self) -> Option<Clock> {
        Some(self.clock.save())
    }

    fn set_clock(&mut self, clock: Clock) {
        self.clock.restore(clock);
    }

    fn finish(&mut self, _: &mut Vec<Event>) -> Result<()> {
        let n_whole = if self.pending.is_some() { WORD_BYTES } else { 0 };
        let n_pending = n_whole + self.carry.n_held();
        if n_pending == 0 {
            return Ok(());
        }
        let what = format!("the last event ends after {n_pending} of {} bytes", 2 * WORD_BYTES);
        Err(Error::Malformed { format: NAME, offset: self.offset - n_whole as u64, what })
    }

    fn sensor(&self) -> Sensor {
        Sensor::default()
    }

    fn tally(&self) -> Tally {
        Tally { malformed: self.malformed, ..Tally::default() }
    }
}

struct Writer {
    timed: bool,
    clock: Unwrap32,
}

impl Writer {
    fn append(&self, events: &[Event], out: &mut Vec<u8>) -> Result<()> {
        for event in events {
            if event.x.max(event.y) > 0x7FFF {
                return Err(does_not_fit(event, NAME, "pixels go to 32767"));
            }
            let pixel = u32::from(event.x) << 16 | u32::from(event.y);
            let word = pixel | (event.polarity as u32) << 15;
            let word = if self.timed { word } else { word | UNTIMED };
            out.extend_from_slice(&word.to_le_bytes());
            if self.timed {
                out.extend_from_slice(&(event.t_us as u32).to_le_bytes());
            }
        }
        Ok(())
    }
}

impl Encoder for Writer {
    fn encode(&mut self, events: &[Event], out: &mut Vec<u8>) -> Result<()> {
        check_times(&mut self.clock, events, NAME)?;
        self.append(events, out)
    }

    fn finish(&mut self, _: &mut Vec<u8>) -> Result<Option<Patch>> {
        Ok(None)
    }
}

impl DatagramEncoder for Writer {
    /// A receiver takes what follows a step back in time for stale, so a datagram ends before one.
    fn encode(&mut self, events: &[Event], out: &mut Vec<u8>) -> Result<usize> {
        let event_bytes = if self.timed { 2 * WORD_BYTES } else { WORD_BYTES };
        let most = events.len().min(MAX_DATAGRAM_BYTES / event_bytes);
        let is_back = |pair: &[Event]| steps_back(pair[0].t_us as u32, pair[1].t_us as u32);
        let steps_back = events[..most].windows(2).position(is_back);
        let n = steps_back.map_or(most, |at| at + 1);
        self.append(&events[..n], out)?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::DatagramOptions;
    use crate::codec::drop_malformed;

    const PIXEL: (u16, u16) = (215, 164);

    fn at(t_us: u64) -> Event {
        Event { t_us, x: PIXEL.0, y: PIXEL.1, polarity: Polarity::On }
    }

    fn decoded(datagrams: &[&[u8]]) -> (Vec<Event>, u64) {
        let mut decoder = (DATAGRAMS.decoder)(None);
        let mut events = Vec::new();
        for (k, datagram) in datagrams.iter().enumerate() {
            decoder.arrived(1000 * (k as u64 + 1));
            decoder.feed(datagram, &mut events).expect("datagrams never fail");
        }
        drop_malformed(&mut events, 0);
        (events, decoder.tally().malformed)
    }

    #[test]
    fn an_event_lies_as_aestream_lays_it() {
        let timed = [0xA4, 0x80, 0xD7, 0x00, 0xA4, 0x99, 0xE3, 0xE0];
        let untimed = [0xA4, 0x80, 0xD7, 0x80];
        assert_eq!(decoded(&[&timed]), (vec![at(0xE0E3_99A4)], 0));
        assert_eq!(decoded(&[&untimed, &untimed]), (vec![at(1000), at(2000)], 0));
        for (timed, bytes) in [(true, timed.as_slice()), (false, &untimed)] {
            let mut encoder = (DATAGRAMS.encoder)(&DatagramOptions { sensor: None, timed });
            let mut out = Vec::new();
            assert_eq!(encoder.encode(&[at(1_589_163_147_368_868)], &mut out).ok(), Some(1));
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn what_follows_a_step_back_is_stale_but_a_wrap_is_none() {
        let bytes = |times: &[u32]| -> Vec<u8> {
            times
                .iter()
                .flat_map(|t| [0x00D7_80A4_u32.to_le_bytes(), t.to_le_bytes()])
                .flatten()
                .collect()
        };
        let round = 1 << 32;
        let tail = decoded(&[&bytes(&[5, 6, 7]), &bytes(&[8, 9, 5, 6, 10]), &bytes(&[11])]);
        assert_eq!(tail, ([5, 6, 7, 8, 9, 11].map(at).to_vec(), 3));
        let wrap = decoded(&[&bytes(&[u32::MAX - 1, u32::MAX, 0, 1])]);
        assert_eq!(
            wrap,
            ([u64::from(u32::MAX) - 1, round - 1, round, round + 1].map(at).to_vec(), 0)
        );
        assert_eq!(decoded(&[&bytes(&[5, 6])[..13]]).1, 1, "a time cut short");
    }

    #[test]
    fn a_datagram_ends_before_a_step_back() {
        let mut encoder = (DATAGRAMS.encoder)(&DatagramOptions { sensor: None, timed: true });
        let mut out = Vec::new();
        assert_eq!(encoder.encode(&[5, 5, 7, 6].map(at), &mut out).ok(), Some(3));
        assert!(encoder.encode(&[Event { x: 0x8000, ..at(1) }], &mut out).is_err());
    }

    #[test]
    fn a_stream_without_times_needs_arrivals() {
        let word = [0xA4, 0x80, 0xD7, 0x80];
        let mut events = Vec::new();
        assert!(Spif::new(false).feed(&word, &mut events).is_err());
        let mut decoder = Spif::new(false);
        decoder.arrived(77);
        assert!(decoder.feed(&word, &mut events).is_ok());
        assert_eq!(events, [at(77)]);
    }
}
