//! Formats of datagrams: one sender's datagrams to events and back, a row each in [`DATAGRAMS`].
//!
//! Knows no socket and no clock: whoever receives says when.

use super::{Decoder, faery, jaer, spif};
use crate::error::{Error, Result};
use crate::event::{Event, SensorSize};

/// Greatest size of a datagram that is sent: within the 1500 bytes of an Ethernet frame, with room
/// for tunnels, and what faery sends.
pub const MAX_DATAGRAM_BYTES: usize = 1300;

/// Packs events into datagrams.
pub trait DatagramEncoder: Send {
    /// Appends one datagram of the first events to `out` and returns how many those are: at least
    /// one where there is one, as many as [`MAX_DATAGRAM_BYTES`] hold at most.
    ///
    /// # Errors
    /// When an event cannot be written in the format.
    fn encode(&mut self, events: &[Event], out: &mut Vec<u8>) -> Result<usize>;
}

/// What an encoder of datagrams must be told.
#[derive(Clone, Copy, Debug)]
pub struct DatagramOptions {
    /// Sensor that the events are from, where it is known: `jaer` has addresses by chip.
    pub sensor: Option<SensorSize>,
    /// Whether events carry their times; only `spif` can do without.
    pub timed: bool,
}

/// One row of [`DATAGRAMS`].
pub struct DatagramFormat {
    /// Name on the command line.
    pub name: &'static str,
    /// Name for people.
    pub title: &'static str,
    /// A fresh decoder for one sender's datagrams. Each [`Decoder::feed`] is one whole datagram,
    /// after [`Decoder::arrived`] has told its time, and never fails: what cannot be read is
    /// counted in [`super::Tally`], and the next datagram stands on its own. The sensor, where it
    /// is known, tells `jaer` whose addresses it gets.
    pub decoder: fn(Option<SensorSize>) -> Box<dyn Decoder>,
    /// A fresh encoder.
    pub encoder: fn(&DatagramOptions) -> Box<dyn DatagramEncoder>,
}

/// Every format of datagrams; a new one is a file and a row here.
pub const DATAGRAMS: &[DatagramFormat] =
    &[faery::T64_DATAGRAMS, faery::T32_DATAGRAMS, spif::DATAGRAMS, jaer::DATAGRAMS];

/// The format of datagrams of this name.
///
/// # Errors
/// When there is none; the error lists those there are.
pub fn datagrams_by_name(name: &str) -> Result<&'static DatagramFormat> {
    DATAGRAMS.iter().find(|format| format.name == name).ok_or_else(|| {
        let known: Vec<_> = DATAGRAMS.iter().map(|format| format.name).collect();
        let (name, known) = (name.escape_debug(), known.join(", "));
        Error::Unsupported(format!("unknown format of datagrams `{name}`; known are {known}"))
    })
}
