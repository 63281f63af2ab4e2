//! Where the table that ends an AEDAT 4 file ends itself: what follows is no part of the file.
//!
//! Follows sizes only: the table is neither decompressed nor read.

use crate::codec::Compression;

/// The way to the end of a table.
#[derive(Default)]
pub(super) struct Tail {
    field: Field,
    /// What came of the field so far.
    held: Vec<u8>,
    /// Bytes before it.
    left: u64,
}

/// What comes next that says how much follows.
#[derive(Clone, Copy, Default)]
enum Field {
    /// Of a table that is not compressed.
    Size,
    Lz4Head,
    Lz4Block {
        flags: u8,
    },
    ZstdHead,
    ZstdBlock {
        flags: u8,
    },
    #[default]
    End,
}

impl Field {
    fn n_bytes(self) -> usize {
        match self {
            Field::Size | Field::Lz4Block { .. } => 4,
            // With the mark.
            Field::Lz4Head | Field::ZstdHead => 5,
            Field::ZstdBlock { .. } => 3,
            Field::End => 0,
        }
    }

    /// The field after this one, and the bytes between them.
    fn next(self, bytes: &[u8]) -> (u64, Field) {
        let flags = bytes.last().copied().unwrap_or(0);
        let number = bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let bit = |flags: u8, k: u32| u64::from(flags >> k & 1);
        match self {
            Field::Size => (number, Field::End),
            // Block size and checksum; the size of the content, a dictionary's id.
            Field::Lz4Head => {
                (2 + 8 * bit(flags, 3) + 4 * bit(flags, 0), Field::Lz4Block { flags })
            }
            Field::Lz4Block { flags } if number == 0 => (4 * bit(flags, 2), Field::End),
            Field::Lz4Block { flags } => ((number & 0x7fff_ffff) + 4 * bit(flags, 4), self),
            Field::ZstdHead => {
                let (is_single, id) = (bit(flags, 5), [0, 1, 2, 4][usize::from(flags & 3)]);
                let content = [is_single, 2, 4, 8][usize::from(flags >> 6)];
                (1 - is_single + id + content, Field::ZstdBlock { flags })
            }
            Field::ZstdBlock { flags } => {
                // One byte stands for a run of them.
                let n_bytes = if number >> 1 & 3 == 1 { 1 } else { number >> 3 };
                let is_last = number & 1 == 1;
                if is_last { (n_bytes + 4 * bit(flags, 2), Field::End) } else { (n_bytes, self) }
            }
            Field::End => (0, self),
        }
    }
}

impl Tail {
    /// Before the first byte.
    pub(super) fn new(compression: Compression) -> Self {
        let field = match compression {
            Compression::None => Field::Size,
            Compression::Lz4 | Compression::Lz4High => Field::Lz4Head,
            Compression::Zstd | Compression::ZstdHigh => Field::ZstdHead,
        };
        Tail { field, ..Tail::default() }
    }

    /// Takes what `rest` has of the table.
    pub(super) fn take(&mut self, rest: &mut &[u8]) {
        loop {
            let n = self.left.min(rest.len() as u64);
            *rest = &rest[n as usize..];
            self.skipped(n);
            if rest.is_empty() || matches!(self.field, Field::End) {
                return;
            }
            let n_missing = self.field.n_bytes() - self.held.len();
            let (now, after) = rest.split_at(n_missing.min(rest.len()));
            *rest = after;
            self.held.extend_from_slice(now);
            if now.len() == n_missing {
                (self.left, self.field) = self.field.next(&self.held);
                self.held.clear();
            }
        }
    }

    /// Bytes that need not be read.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// So many of them were passed over.
    pub(super) fn skipped(&mut self, n: u64) {
        self.left = self.left.saturating_sub(n);
    }
}
