//! Streams and datagrams that are nothing but events of one size, one after another.
//!
//! Knows no layout: how an event lies in its bytes is the format's.

use super::carry::Carry;
use super::clock::Unwrap32;
use super::datagram::{DatagramEncoder, MAX_DATAGRAM_BYTES};
use super::{Clock, Decoder, Encoder, Need, Patch, Tally, lose};
use crate::error::{Error, Result, grouped};
use crate::event::{Event, Sensor};

/// How one event lies in `N` bytes.
pub(super) trait Layout<const N: usize>: Send + 'static {
    /// Name of the format.
    const NAME: &'static str;
    /// What an event must fit, for the error of one that does not.
    const BOUNDS: &'static str;
    /// Whether of a time only the low 32 bits are kept.
    const KEEPS_32_BITS: bool;

    /// The event, or `None` where the bytes cannot be one.
    fn event(bytes: &[u8; N], clock: &mut Unwrap32) -> Option<Event>;

    /// The bytes, or `None` where the event does not fit.
    fn bytes(event: &Event) -> Option<[u8; N]>;
}

/// Whether the first bytes of a stream could be events.
pub(super) fn plausible<L: Layout<N>, const N: usize>(bytes: &[u8]) -> bool {
    let mut clock = Unwrap32::new();
    bytes.as_chunks::<N>().0.iter().all(|record| L::event(record, &mut clock).is_some())
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
                lose(&mut self.malformed, out);
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
pub(super) struct RecordEncoder<L, const N: usize> {
    layout: std::marker::PhantomData<fn() -> L>,
    clock: Unwrap32,
}

impl<L: Layout<N>, const N: usize> RecordEncoder<L, N> {
    pub(super) fn new() -> Self {
        RecordEncoder { layout: std::marker::PhantomData, clock: Unwrap32::new() }
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
        if L::KEEPS_32_BITS {
            check_times(&mut self.clock, events, L::NAME)?;
        }
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

/// Whether a reader, whose clock runs over as the one given, finds the times of a recording again of
/// which only 32 bits are kept. Receivers of datagrams have no need to: theirs are times of now.
pub(super) fn check_times(clock: &mut Unwrap32, events: &[Event], format: &str) -> Result<()> {
    let Some(event) = events.iter().find(|event| clock.unwrap(event.t_us as u32) != event.t_us)
    else {
        return Ok(());
    };
    Err(not_kept("the event", event, format))
}

/// The error of a time that would come back as another.
pub(super) fn not_kept(which: &str, event: &Event, format: &str) -> Error {
    Error::Unsupported(format!(
        "{which} at {} µs: {format} keeps 32 bits of time (71.6 minutes from 0): write AEDAT 4, or \
         let the times start at 0 (convert --from-zero)",
        grouped(event.t_us)
    ))
}
