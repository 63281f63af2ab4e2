//! Cuts a stream into records of one size, however its bytes come.
//!
//! Knows no layout: what a record means is the format's.

use crate::error::{Error, Result};

/// The first bytes of a record whose last have not come.
pub(super) struct Carry<const N: usize> {
    bytes: [u8; N],
    n: usize,
}

impl<const N: usize> Default for Carry<N> {
    fn default() -> Self {
        Carry { bytes: [0; N], n: 0 }
    }
}

impl<const N: usize> Carry<N> {
    /// The record that had begun, if `bytes` complete it, and those that lie whole in the rest.
    pub(super) fn cut<'a>(&mut self, mut bytes: &'a [u8]) -> (Option<[u8; N]>, &'a [[u8; N]]) {
        let mut begun = None;
        if self.n > 0 {
            let (fill, rest) = bytes.split_at(bytes.len().min(N - self.n));
            self.bytes[self.n..self.n + fill.len()].copy_from_slice(fill);
            self.n += fill.len();
            bytes = rest;
            if self.n < N {
                return (None, &[]);
            }
            begun = Some(self.bytes);
        }
        let (records, tail) = bytes.as_chunks::<N>();
        self.bytes[..tail.len()].copy_from_slice(tail);
        self.n = tail.len();
        (begun, records)
    }

    /// Bytes that are held of a record whose last have not come.
    pub(super) fn n_held(&self) -> usize {
        self.n
    }

    /// Nothing may be left when a stream of `offset` bytes has ended.
    ///
    /// # Errors
    /// When it ended inside a record.
    pub(super) fn finish(&self, format: &'static str, offset: u64) -> Result<()> {
        if self.n == 0 {
            return Ok(());
        }
        let what = format!("the last event ends after {} of {N} bytes", self.n);
        Err(Error::Malformed { format, offset: offset - self.n as u64, what })
    }
}
