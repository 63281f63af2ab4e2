//! Formats: bytes to events and back. One file a format, one row in [`FORMATS`].
//!
//! Decoders are fed; they never read a file or a socket, and know neither views nor windows.

mod aedat1;
mod aedat2;
mod aedat3;
pub mod aedat4;
mod any;
mod carry;
mod chips;
mod clock;
mod columns;
mod csv;
pub mod datagram;
mod faery;
mod header;
mod jaer;
mod nmnist;
mod npy;
pub mod probe;
mod records;
mod spif;

pub use any::{AnyDecoder, StreamClock};
pub use clock::Clock;
pub use datagram::{
    DATAGRAMS, DatagramEncoder, DatagramFormat, DatagramOptions, datagrams_by_name,
};
pub use probe::{Probe, by_name, for_writing, probe};

use serde::Serialize;

use crate::error::{Result, grouped};
use crate::event::{Event, Sensor};

/// What a decoder wants after a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The bytes that follow.
    More,
    /// The next `n` bytes need not be read: a file may seek past them, anyone else feeds them
    /// and they are passed over. Either way they count in offsets (see [`Decoder::skipped`]).
    Skip(u64),
    /// Nothing more: what follows holds no events that are asked for.
    Nothing,
}

/// Turns the bytes of one stream into events. Equal bytes give equal events however they are cut.
pub trait Decoder: Send {
    /// Takes the next bytes of the stream, all of them, and appends the events that they complete.
    /// One that cannot be an event is counted in the tally and stands among them as one that
    /// [`Event::is_malformed`], where it was: see [`drop_malformed`].
    ///
    /// # Errors
    /// When the bytes break the format. Events before the damage are in `out`; a decoder that
    /// has failed is not fed again.
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<Need>;

    /// As [`Decoder::feed`], but where bytes unpack to far more events than bytes, it may stop once
    /// [`ENOUGH_EVENTS`] have come out and leave in `bytes` what is to be fed next.
    ///
    /// # Errors
    /// As [`Decoder::feed`].
    fn feed_some(&mut self, bytes: &mut &[u8], out: &mut Vec<Event>) -> Result<Need> {
        self.feed(std::mem::take(bytes), out)
    }

    /// Tells the decoder that the caller passed over `n` bytes after [`Need::Skip`].
    fn skipped(&mut self, n: u64) {
        let _ = n;
    }

    /// Tells the decoder that the bytes it is fed next arrived at `t_us`: the time of events that
    /// carry none.
    fn arrived(&mut self, t_us: u64) {
        let _ = t_us;
    }

    /// Where the clock of its events stands, where theirs runs over.
    fn clock(&self) -> Option<Clock> {
        None
    }

    /// Goes on with the clock of a decoder of the same format; before the first feed.
    fn set_clock(&mut self, clock: Clock) {
        let _ = clock;
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// When it ended inside a record; what came before is in `out`.
    fn finish(&mut self, out: &mut Vec<Event>) -> Result<()>;

    /// Whether all that stands before the events has come; where nothing does, it has.
    fn has_begun(&self) -> bool {
        true
    }

    /// What the stream says of its sensor; settled before the first event comes out.
    fn sensor(&self) -> Sensor;

    /// What was read so far besides good events.
    fn tally(&self) -> Tally {
        Tally::default()
    }
}

/// What a recording holds besides the events that come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    /// Events that cannot be ones (by an impossible time or a bit that none has) or, in datagrams,
    /// are cut short; dropped: losses by `malformed`.
    pub malformed: u64,
    /// Image samples (APS words) or frame packets passed over.
    pub frames: u64,
    /// Inertial samples or packets passed over.
    pub imu: u64,
    /// External and special events passed over.
    pub external: u64,
    /// Events marked invalid by the camera, passed over.
    pub invalid: u64,
    /// Packets of other event streams or of unknown kinds, passed over.
    pub other: u64,
    /// Datagrams that never came, where they are numbered.
    #[serde(skip)]
    pub lost_datagrams: u64,
    /// Datagrams that came twice or too late, passed over.
    #[serde(skip)]
    pub repeated_datagrams: u64,
}

impl Tally {
    /// What was passed over, with its name for people; malformed events, which are losses, are not
    /// among it.
    pub fn set_aside(&self) -> impl Iterator<Item = (u64, &'static str)> {
        let Tally { frames, imu, external, invalid, other, .. } = *self;
        let counts = [
            (invalid, "events marked invalid"),
            (frames, "image samples or frames"),
            (imu, "inertial samples"),
            (external, "external or special events"),
            (other, "packets of other streams or kinds"),
        ];
        counts.into_iter().filter(|(n, _)| *n > 0)
    }

    /// What was passed over in a line for people, if anything was.
    pub fn told(&self) -> Option<String> {
        let parts: Vec<_> =
            self.set_aside().map(|(n, what)| format!("{} {what}", grouped(n))).collect();
        (!parts.is_empty()).then(|| format!("set aside: {}", parts.join(", ")))
    }
}

/// Counts what cannot be an event, and leaves it where it was.
fn lose(malformed: &mut u64, out: &mut Vec<Event>) {
    *malformed += 1;
    out.push(Event::MALFORMED);
}

/// Leaves the events that are ones, for whoever takes no note of where others were; those before
/// `from` are ones.
pub fn drop_malformed(events: &mut Vec<Event>, from: usize) {
    if events[from..].iter().any(Event::is_malformed) {
        events.retain(|event| !event.is_malformed());
    }
}

/// Turns events into the bytes of one recording.
pub trait Encoder: Send {
    /// Appends the bytes of `events`; the first call writes the header.
    ///
    /// # Errors
    /// When an event cannot be written in the format (a coordinate or time too large).
    fn encode(&mut self, events: &[Event], out: &mut Vec<u8>) -> Result<()>;

    /// Appends what ends the recording. A [`Patch`] replaces bytes that were written before.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<Option<Patch>>;
}

/// Bytes to be written over earlier ones, where the output can seek.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Offset from the start of the recording.
    pub offset: u64,
    /// The new bytes.
    pub bytes: Vec<u8>,
}

/// Events after which [`Decoder::feed_some`] takes no further packet. What is fed at once may hold
/// hundreds of packets, each of which unpacks to as much as a packet may.
pub const ENOUGH_EVENTS: usize = 1 << 16;

/// Greatest size of a decoded packet unless a flag raises it; real ones reach 3.3 MiB.
pub const MAX_PACKET_BYTES: usize = 16 << 20;

/// What a decoder may be told.
#[derive(Clone, Copy, Debug)]
pub struct DecoderOptions {
    /// Event stream to take of a file that holds several; the first where none is named.
    pub stream_id: Option<i32>,
    /// Greatest size of a packet, as sent and decoded.
    pub max_packet_bytes: usize,
}

impl Default for DecoderOptions {
    fn default() -> Self {
        DecoderOptions { stream_id: None, max_packet_bytes: MAX_PACKET_BYTES }
    }
}

/// What an encoder must be told.
#[derive(Clone, Copy, Debug)]
pub struct EncoderOptions {
    /// Sensor that the events are from; some formats store it.
    pub sensor: Option<crate::event::SensorSize>,
    /// Compression of AEDAT 4 packets.
    pub compression: Compression,
}

/// Compression of AEDAT 4 packets, numbered as its header numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum Compression {
    None = 0,
    #[default]
    Lz4 = 1,
    Lz4High = 2,
    Zstd = 3,
    ZstdHigh = 4,
}

/// How a prefix of a stream fits a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The format's mark stands there.
    Yes,
    /// It cannot be this format.
    No,
    /// The prefix is too short to tell.
    Short,
}

/// Makes a fresh encoder.
pub type NewEncoder = fn(&EncoderOptions) -> Box<dyn Encoder>;

/// One row of [`FORMATS`].
pub struct Format {
    /// Name on the command line.
    pub name: &'static str,
    /// Name for people.
    pub title: &'static str,
    /// File name extensions, lower case, without the dot; none where no file is named so.
    pub extensions: &'static [&'static str],
    /// Looks for the format's mark; headerless formats never say [`Match::Yes`].
    pub probe: fn(&[u8]) -> Match,
    /// For headerless formats: whether the first bytes could be events. Asked only where the
    /// extension matches.
    pub plausible: fn(&[u8]) -> bool,
    /// A fresh decoder.
    pub decoder: fn(&DecoderOptions) -> Box<dyn Decoder>,
    /// A fresh encoder, where the format can be written.
    pub encoder: Option<NewEncoder>,
    /// Whether what is written may be compressed.
    pub compressed: bool,
    /// Whether readers of what is written take its pixels to be in the order of the chip; those of
    /// all others have the first one at the image's upper left corner.
    pub in_chip_order: bool,
}

/// Every format; a new one is a file and a row here.
pub const FORMATS: &[Format] = &[
    aedat4::FORMAT,
    aedat3::FORMAT,
    aedat2::FORMAT,
    aedat1::FORMAT,
    nmnist::FORMAT,
    npy::FORMAT,
    csv::FORMAT,
    aedat4::DV,
    faery::T64,
    faery::T32,
    spif::FORMAT,
];
