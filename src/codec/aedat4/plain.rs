//! An uncompressed packet that comes in pieces: its events are decoded as they come.
//!
//! That saves joining the pieces first, a copy of every byte. Knows nothing of the file around.

use super::packet::{self, EVENT_BYTES};
use crate::event::Event;

/// As many bytes of a packet show where its events stand, if it is laid out as usual.
pub(super) const HEAD_BYTES: usize = 64;

/// What of one packet is still to come.
#[derive(Default)]
pub(super) struct PlainPacket {
    /// The first bytes of an event whose last have not come.
    partial: Vec<u8>,
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
        self.partial.clear();
        self.n_structs_left = structs.len();
        self.n_left = n_bytes - structs.start;
        Some(structs.start)
    }

    /// Bytes of the payload that are still to come.
    pub(super) fn n_left(&self) -> usize {
        self.n_left
    }

    /// Appends the events of the next bytes of the payload, at most those left; returns how many
    /// were dropped for their times.
    pub(super) fn take(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> u64 {
        self.n_left -= bytes.len();
        let mut structs = &bytes[..bytes.len().min(self.n_structs_left)];
        self.n_structs_left -= structs.len();
        let mut n_malformed = 0;
        if !self.partial.is_empty() {
            let n = (EVENT_BYTES - self.partial.len()).min(structs.len());
            self.partial.extend_from_slice(&structs[..n]);
            structs = &structs[n..];
            if self.partial.len() < EVENT_BYTES {
                return 0;
            }
            n_malformed += packet::append(&self.partial, out);
            self.partial.clear();
        }
        let n_whole = structs.len() - structs.len() % EVENT_BYTES;
        n_malformed += packet::append(&structs[..n_whole], out);
        self.partial.extend_from_slice(&structs[n_whole..]);
        n_malformed
    }
}
