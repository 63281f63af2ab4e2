//! AEDAT 1.0: like 2.0 but with addresses of 16 bits, 6 bytes an event, and often no header.
//!
//! Only the DVS128 and its predecessors wrote it. Must not know anything that 2.0 need not.

use super::aedat2::{JaerDecoder, probe_mark};
use super::{Decoder, DecoderOptions, Format, Match};

/// Row of [`super::FORMATS`].
pub const FORMAT: Format = Format {
    name: NAME,
    title: "AEDAT 1.0 (jAER)",
    extensions: &["dat", "aedat1", "aedat"],
    probe,
    plausible,
    decoder,
    encoder: None,
    compressed: false,
    in_chip_order: false,
};

const NAME: &str = "aedat1";

fn probe(prefix: &[u8]) -> Match {
    probe_mark(prefix, b"#!AER-DAT1")
}

fn decoder(_: &DecoderOptions) -> Box<dyn Decoder> {
    Box::new(JaerDecoder::<6>::new(NAME, '1'))
}

/// Whether the first records hold addresses of a DVS128 and times that rise, as chance hardly
/// makes them.
fn plausible(prefix: &[u8]) -> bool {
    let (records, _) = prefix.as_chunks::<6>();
    let time = |record: &[u8; 6]| {
        let [_, _, a, b, c, d] = *record;
        u32::from_be_bytes([a, b, c, d])
    };
    let records = records.get(..records.len().min(64)).unwrap_or_default();
    let rising = records.windows(2).filter(|pair| match pair {
        [a, b] => time(b).wrapping_sub(time(a)) < 1_000_000,
        _ => false,
    });
    records.len() >= 2 && rising.count() + 1 == records.len()
}
