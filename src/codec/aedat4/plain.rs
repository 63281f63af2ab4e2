//! An uncompressed packet that comes in pieces: its events are decoded as they come.
//!
//! That saves joining the pieces first, a copy of every byte. Knows nothing of the file around.

use super::super::carry::Carry;
use super::packet::{self, EVENT_BYTES};
use crate::event::Event;

/// As many bytes of a packet show where its events stand, if it is laid out as usual.
pub(super) const HEAD_BYTES: usize = 64;

/// What of one packet is still to come.
#[derive(Default)]
pub(super) struct PlainPacket {
    events: Carry<EVENT_BYTES>,
    n_structs_left: usize,
    n_left: usize,
}

impl PlainPacket {
    /// The packet that begins with `head` and has `n_bytes`; where its events begin in `head`.
    /// `None`: that does not show, and the payload must be read whole.
    pub(super) fn begin(&mut self, head: &[u8], n_bytes: usize) -> Option<usize> {
        let structs = packet::event_structs(head, n_bytes).ok()?;
        if structs.start > head.len() {
            return None;
        }
        self.events = Carry::default();
        self.n_structs_left = structs.len();
        self.n_left = n_bytes - structs.start;
        Some(structs.start)
    }

    /// Bytes of the payload that are still to come.
    pub(super) fn n_left(&self) -> usize {
        self.n_left
    }

    /// Appends the events of the next bytes of the payload, at most those left; returns how many
    /// are malformed.
    pub(super) fn take(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> u64 {
        self.n_left -= bytes.len();
        let structs = &bytes[..bytes.len().min(self.n_structs_left)];
        self.n_structs_left -= structs.len();
        let (begun, whole) = self.events.cut(structs);
        packet::append(begun.as_slice().as_flattened(), out)
            + packet::append(whole.as_flattened(), out)
    }
}
