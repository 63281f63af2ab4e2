//! The AEDAT 4.0 codec from outside: what it writes it reads back, real recordings, damage.

mod damage;
mod files;
mod recordings;
mod roundtrip;
#[path = "../skip/mod.rs"]
mod skip;
mod streams;

use dvs_stream::codec::aedat4::Aedat4Decoder;
use dvs_stream::codec::{Compression, Decoder, DecoderOptions, Need, Tally, drop_malformed};
use dvs_stream::error::Error;
use dvs_stream::event::{Event, Sensor};

const COMPRESSIONS: [Compression; 5] = [
    Compression::None,
    Compression::Lz4,
    Compression::Lz4High,
    Compression::Zstd,
    Compression::ZstdHigh,
];

/// Everything that a decoder says of a stream.
#[derive(Debug, PartialEq)]
struct Read {
    events: Vec<Event>,
    error: Option<String>,
    offset: Option<u64>,
    tally: Tally,
    sensor: Sensor,
}

/// Feeds `bytes` in pieces of `chunk`; with `seeks`, passes over what need not be read.
fn read_with(mut decoder: Aedat4Decoder, bytes: &[u8], chunk: usize, seeks: bool) -> Read {
    let mut events = Vec::new();
    let outcome = drive(&mut decoder, bytes, chunk, seeks, &mut events);
    let n_malformed = events.iter().filter(|event| event.is_malformed()).count() as u64;
    assert_eq!(n_malformed, decoder.tally().malformed);
    drop_malformed(&mut events, 0);
    let (error, offset) = match outcome {
        Ok(()) => (None, None),
        Err(error) => (Some(error.to_string()), error.offset()),
    };
    Read { events, error, offset, tally: decoder.tally(), sensor: decoder.sensor() }
}

fn drive(
    decoder: &mut Aedat4Decoder,
    bytes: &[u8],
    chunk: usize,
    seeks: bool,
    events: &mut Vec<Event>,
) -> Result<(), Error> {
    let mut at = 0;
    while at < bytes.len() {
        let end = (at + chunk).min(bytes.len());
        let need = decoder.feed(&bytes[at..end], events)?;
        at = end;
        match need {
            Need::Nothing => break,
            Need::Skip(n) if seeks => {
                let n = n.min((bytes.len() - at) as u64);
                decoder.skipped(n);
                at += n as usize;
            }
            Need::Skip(_) | Need::More => {}
        }
    }
    decoder.finish(events)
}

fn read(bytes: &[u8]) -> Read {
    read_with(Aedat4Decoder::file(&DecoderOptions::default()), bytes, bytes.len().max(1), false)
}

/// Reads in several chunkings, seeking or not, which all must agree.
fn read_all_ways(bytes: &[u8], options: &DecoderOptions, chunks: &[usize]) -> Read {
    let read = |chunk, seeks| read_with(Aedat4Decoder::file(options), bytes, chunk, seeks);
    let whole = read(bytes.len().max(1), false);
    for &chunk in chunks {
        for seeks in [false, true] {
            let other = read(chunk, seeks);
            assert!(
                whole == other,
                "chunk {chunk}, seeks {seeks}: {:?} {:?}",
                whole.error,
                other.error
            );
        }
    }
    whole
}
