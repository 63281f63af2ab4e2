//! LZ4 frames: walked here, their blocks decoded by liblz4 into one contiguous buffer.
//!
//! Contiguity is what makes it fast: the 64 KiB before a block are then its dictionary in place,
//! and nothing is copied. Knows nothing of what the bytes mean.

use super::packet::{Damage, too_large_decoded};
use xxhash_rust::xxh32::xxh32;

/// First bytes of a frame.
pub(super) const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];

/// How far back a linked block may refer.
const DICTIONARY_BYTES: usize = 64 << 10;

/// Decodes one whole frame to the front of `plain`, which grows as needed and never shrinks;
/// returns how many bytes it has there, at most `max_bytes`.
pub(super) fn decompress(
    frame: &[u8],
    max_bytes: usize,
    plain: &mut Vec<u8>,
) -> Result<usize, Damage> {
    let mut rest = frame;
    let descriptor = Descriptor::read(&mut rest)?;
    if descriptor.content_bytes.is_some_and(|n| n > max_bytes as u64) {
        return Err(too_large_decoded(max_bytes));
    }
    let mut filled = 0;
    loop {
        let word = u32::from_le_bytes(take(&mut rest)?);
        if word == 0 {
            break;
        }
        let n_bytes = (word & 0x7fff_ffff) as usize;
        if n_bytes > descriptor.block_bytes {
            return Err(malformed("a block of its LZ4 frame exceeds the frame's block size"));
        }
        let block = take_slice(&mut rest, n_bytes)?;
        if descriptor.has_block_checksums && take(&mut rest)? != xxh32(block, 0).to_le_bytes() {
            return Err(malformed("the checksum of a block of its LZ4 frame does not match"));
        }
        make_room(plain, filled + descriptor.block_bytes, max_bytes + descriptor.block_bytes);
        filled += descriptor.decode(block, word != n_bytes as u32, filled, plain)?;
        if filled > max_bytes {
            return Err(too_large_decoded(max_bytes));
        }
    }
    descriptor.check_end(&plain[..filled], rest)?;
    Ok(filled)
}

/// What the head of a frame says.
struct Descriptor {
    is_linked: bool,
    has_block_checksums: bool,
    has_content_checksum: bool,
    content_bytes: Option<u64>,
    /// Greatest size of a block, decoded.
    block_bytes: usize,
}

impl Descriptor {
    fn read(rest: &mut &[u8]) -> Result<Self, Damage> {
        if take(rest)? != MAGIC {
            return Err(malformed("its LZ4 frame has another mark"));
        }
        let described = *rest;
        let [flags, block] = take(rest)?;
        if flags >> 6 != 1 || flags & 0b10 != 0 || block & 0b1000_1111 != 0 {
            return Err(malformed("its LZ4 frame is of an unknown version"));
        }
        if flags & 1 != 0 {
            return Err(malformed("its LZ4 frame needs a dictionary"));
        }
        let content_bytes = match flags & 0b1000 {
            0 => None,
            _ => Some(u64::from_le_bytes(take(rest)?)),
        };
        let n_described = described.len() - rest.len();
        let [checksum] = take(rest)?;
        if checksum != (xxh32(&described[..n_described], 0) >> 8) as u8 {
            return Err(malformed("the checksum of its LZ4 frame's head does not match"));
        }
        let block_bytes = match block >> 4 {
            code @ 4..=7 => 1 << (8 + 2 * code),
            _ => return Err(malformed("its LZ4 frame has an unknown block size")),
        };
        Ok(Descriptor {
            is_linked: flags & 0b10_0000 == 0,
            has_block_checksums: flags & 0b1_0000 != 0,
            has_content_checksum: flags & 0b100 != 0,
            content_bytes,
            block_bytes,
        })
    }

    /// Decodes `block` to `plain[filled..]`; returns its decoded size.
    fn decode(
        &self,
        block: &[u8],
        is_stored: bool,
        filled: usize,
        plain: &mut [u8],
    ) -> Result<usize, Damage> {
        let (before, after) = plain.split_at_mut(filled);
        let room = &mut after[..self.block_bytes];
        if is_stored {
            room[..block.len()].copy_from_slice(block);
            return Ok(block.len());
        }
        let from = if self.is_linked { filled.saturating_sub(DICTIONARY_BYTES) } else { filled };
        lzzzz::lz4::decompress_with_dict(block, room, &before[from..])
            .map_err(|_| malformed("a block of its LZ4 frame does not decode"))
    }

    fn check_end(&self, plain: &[u8], mut rest: &[u8]) -> Result<(), Damage> {
        if self.content_bytes.is_some_and(|n| n != plain.len() as u64) {
            return Err(malformed("its LZ4 frame has another size than it says"));
        }
        if self.has_content_checksum && take(&mut rest)? != xxh32(plain, 0).to_le_bytes() {
            return Err(malformed("the checksum of its LZ4 frame does not match"));
        }
        if !rest.is_empty() {
            return Err(malformed("bytes follow its LZ4 frame"));
        }
        Ok(())
    }
}

/// Makes `plain` at least `n_bytes` long, by doubling up to `most_bytes`.
fn make_room(plain: &mut Vec<u8>, n_bytes: usize, most_bytes: usize) {
    if n_bytes > plain.len() {
        let grown = n_bytes.max((2 * plain.len()).min(most_bytes));
        plain.reserve_exact(grown - plain.len());
        plain.resize(grown, 0);
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Damage> {
    let (taken, after) = rest.split_first_chunk().ok_or_else(cut_short)?;
    *rest = after;
    Ok(*taken)
}

fn take_slice<'a>(rest: &mut &'a [u8], n_bytes: usize) -> Result<&'a [u8], Damage> {
    let (taken, after) = rest.split_at_checked(n_bytes).ok_or_else(cut_short)?;
    *rest = after;
    Ok(taken)
}

fn cut_short() -> Damage {
    malformed("its LZ4 frame is cut short")
}

fn malformed(what: &str) -> Damage {
    Damage::Malformed(what.into())
}
