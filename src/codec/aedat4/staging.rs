//! An uncompressed packet that comes in pieces: its events are decoded as they come, but held back
//! until it is whole.
//!
//! That saves joining the pieces first, a copy of every byte. Knows nothing of the file around.

use super::packet::{self, EVENT_BYTES};
use crate::event::Event;

/// As many bytes of a packet show where its events stand, if it is laid out as usual.
pub(super) const HEAD_BYTES: usize = 64;

/// Holds the events of one packet at a time.
#[derive(Default)]
pub(super) struct Staging {
    events: Vec<Event>,
    n_malformed: u64,
    /// The first bytes of an event whose last have not come.
    partial: Vec<u8>,
    n_structs_left: usize,
    n_left: usize,
}

impl Staging {
    /// Begins with the first bytes of a payload of `n_bytes`. `false`: they do not show where the
    /// events stand, and the payload must be read whole.
    pub(super) fn begin(&mut self, head: &[u8], n_bytes: usize) -> bool {
        let Ok(structs) = packet::event_structs(head, n_bytes) else { return false };
        let Some(after_head) = head.get(structs.start..) else { return false };
        self.n_structs_left = structs.len();
        self.n_left = n_bytes - structs.start;
        self.events.clear();
        self.n_malformed = 0;
        self.take(after_head);
        true
    }

    /// Bytes of the payload that are still to come.
    pub(super) fn n_left(&self) -> usize {
        self.n_left
    }

    /// Takes the next bytes of the payload, at most those left.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.n_left -= bytes.len();
        let mut structs = &bytes[..bytes.len().min(self.n_structs_left)];
        self.n_structs_left -= structs.len();
        if !self.partial.is_empty() {
            let n = (EVENT_BYTES - self.partial.len()).min(structs.len());
            self.partial.extend_from_slice(&structs[..n]);
            structs = &structs[n..];
            if self.partial.len() < EVENT_BYTES {
                return;
            }
            self.n_malformed += packet::append(&self.partial, &mut self.events);
            self.partial.clear();
        }
        let n_whole = structs.len() - structs.len() % EVENT_BYTES;
        self.n_malformed += packet::append(&structs[..n_whole], &mut self.events);
        self.partial.extend_from_slice(&structs[n_whole..]);
    }

    /// Moves the events of the whole packet; returns how many were dropped for their times.
    pub(super) fn release(&mut self, out: &mut Vec<Event>) -> u64 {
        if out.is_empty() {
            std::mem::swap(out, &mut self.events);
        } else {
            out.append(&mut self.events);
        }
        self.n_malformed
    }
}
