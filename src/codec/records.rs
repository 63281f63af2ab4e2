//! Streams and datagrams that are nothing but events of one size, one after another.
//!
//! Knows no layout: how an event lies in its bytes is the format's.

use super::carry::Carry;
use super::clock::Unwrap32;
use super::datagram::{DatagramEncoder, MAX_DATAGRAM_BYTES};
use super::{Clock, Decoder, Encoder, Need, Patch, Tally};
use crate::error::{Error, Result, grouped};
use crate::event::{Event, Sensor};

/// How one event lies in `N` bytes.
pub(super) trait Layout<const N: usize>: Send + 'static {
    /// Name of the format.
    const NAME: &'static str;
    /// What an event must fit, for the error of one that does not.
    const BOUNDS: &'static str;

    /// The event, or `None` where the bytes cannot be one.
    fn event(bytes: &[u8; N], clock: &mut Unwrap32) -> Option<Event>;

    /// The bytes, or `None` where the event does not fit.
    fn bytes(event: &Event) -> Option<[u8; N]>;
}

/// Decoder of a layout.
pub(super) struct RecordDecoder<L, const N: usize> {
    layout: std::marker::PhantomData<fn() -> L>,
    /// Each feed is a datagram: an event never goes on in the next one.
    is_datagram: bool,
    clock: Unwrap32,
    carry: Carry<N>,
    offset: u64,
    malformed: u64,
}

impl<L: Layout<N>, const N: usize> RecordDecoder<L, N> {
    /// For a stream, however it is cut.
    pub(super) fn stream() -> Self {
        RecordDecoder {
            layout: std::marker::PhantomData,
            is_datagram: false,
            clock: Unwrap32::new(),
            carry: Carry::default(),
            offset: 0,
            malformed: 0,
        }
    }

    /// For whole datagrams.
    pub(super) fn datagrams() -> Self {
        RecordDecoder { is_datagram: true, ..Self::stream() }
    }

    fn records(&mut self, records: &[[u8; N]], out: &mut Vec<Event>) {
        let (clock, malformed) = (&mut self.clock, &mut self.malformed);
        out.extend(records.iter().map(|record| {
            L::event(record, clock).unwrap_or_else(|| {
                *malformed += 1;
                Event::MALFORMED
            })
        }));
    }
}

impl<L: Layout<N>, const N: usize> Decoder for RecordDecoder<L, N> {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<Need> {
        self.offset += bytes.len() as u64;
        if self.is_datagram {
            let (records, tail) = bytes.as_chunks::<N>();
            self.records(records, out);
            if !tail.is_empty() {
                self.malformed += 1;
                out.push(Event::MALFORMED);
            }
        } else {
            let (begun, records) = self.carry.cut(bytes);
            self.records(begun.as_slice(), out);
            self.records(records, out);
        }
        Ok(Need::More)
    }

    fn clock(&self) -> Option<Clock> {
        Some(self.clock.save())
    }

    fn set_clock(&mut self, clock: Clock) {
        self.clock.restore(clock);
    }

    fn finish(&mut self, _: &mut Vec<Event>) -> Result<()> {
        self.carry.finish(L::NAME, self.offset)
    }

    fn sensor(&self) -> Sensor {
        Sensor::default()
    }

    fn tally(&self) -> Tally {
        Tally { malformed: self.malformed, ..Tally::default() }
    }
}

/// Encoder of a layout, for streams and for datagrams.
pub(super) struct RecordEncoder<L, const N: usize>(std::marker::PhantomData<fn() -> L>);

impl<L: Layout<N>, const N: usize> RecordEncoder<L, N> {
    pub(super) fn new() -> Self {
        RecordEncoder(std::marker::PhantomData)
    }

    fn append(events: &[Event], out: &mut Vec<u8>) -> Result<()> {
        out.reserve(N * events.len());
        for event in events {
            let bytes = L::bytes(event).ok_or_else(|| does_not_fit(event, L::NAME, L::BOUNDS))?;
            out.extend_from_slice(&bytes);
        }
        Ok(())
    }
}

impl<L: Layout<N>, const N: usize> Encoder for RecordEncoder<L, N> {
    fn encode(&mut self, events: &[Event], out: &mut Vec<u8>) -> Result<()> {
        Self::append(events, out)
    }

    fn finish(&mut self, _: &mut Vec<u8>) -> Result<Option<Patch>> {
        Ok(None)
    }
}

impl<L: Layout<N>, const N: usize> DatagramEncoder for RecordEncoder<L, N> {
    fn encode(&mut self, events: &[Event], out: &mut Vec<u8>) -> Result<usize> {
        let n = events.len().min(MAX_DATAGRAM_BYTES / N);
        Self::append(&events[..n], out)?;
        Ok(n)
    }
}

/// The error of an event that a format has no place for.
pub(super) fn does_not_fit(event: &Event, format: &str, bounds: &str) -> Error {
    Error::Unsupported(format!(
        "the event at {} µs, pixel {},{} does not fit {format}: {bounds}",
        grouped(event.t_us),
        event.x,
        event.y
    ))
}
