//! Recordings as events, and events as recordings.

use std::path::{Path, PathBuf};

use dvs_stream::codec::aedat4::Aedat4Encoder;
use dvs_stream::codec::{
    AnyDecoder, Compression, Decoder, DecoderOptions, Encoder, EncoderOptions,
};
use dvs_stream::event::{Event, SensorSize};

pub const DECK: &str = "fixtures/deck.aedat4";

/// Events of a recording, and its sensor where it tells one.
pub fn decoded(path: &Path) -> (Vec<Event>, Option<SensorSize>) {
    let mut decoder = AnyDecoder::probing(None, &DecoderOptions::default());
    let mut events = Vec::new();
    decoder.feed(&std::fs::read(path).unwrap(), &mut events).unwrap();
    decoder.finish(&mut events).unwrap();
    (events, decoder.sensor().size)
}

/// An AEDAT 4 file of these events, compressed with LZ4.
pub fn written(folder: &Path, name: &str, events: &[Event], sensor: SensorSize) -> PathBuf {
    let options = EncoderOptions { sensor: Some(sensor), compression: Compression::Lz4 };
    let mut encoder = Aedat4Encoder::new(&options);
    let mut bytes = Vec::new();
    for packet in events.chunks(5000) {
        encoder.encode(packet, &mut bytes).unwrap();
    }
    if let Some(patch) = encoder.finish(&mut bytes).unwrap() {
        bytes[patch.offset as usize..][..patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}
