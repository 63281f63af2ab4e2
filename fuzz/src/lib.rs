//! What the fuzz targets check of bytes, whatever they are.
//!
//! Inputs are recordings as they stand, so that fixtures are seeds and what is found is a fixture.

use dvs_stream::codec::probe::{PROBE_BYTES, Probe, by_name, probe as probe_bytes};
use dvs_stream::codec::{DATAGRAMS, DecoderOptions, Format, Need, Tally};
use dvs_stream::event::{Event, Sensor, SensorSize};

/// Decodes in one piece and in small ones, with and without passing over what need not be read,
/// and panics if one gives other events, another count or another error than the other.
pub fn decode(format: &str, bytes: &[u8]) {
    decode_as(by_name(format).expect("a format"), bytes);
}

/// Probes a growing prefix: once the format is known it never changes.
pub fn probe(bytes: &[u8]) {
    for name in [None, Some("a.bin"), Some("a.dat")] {
        let whole = probe_bytes(bytes, name, true);
        for n in 0..bytes.len().min(PROBE_BYTES) {
            if let Probe::Format(early) = probe_bytes(&bytes[..n], name, false) {
                assert!(matches!(&whole, Probe::Format(late) if late.name == early.name));
            }
        }
        if let Probe::Format(format) = whole {
            decode_as(format, bytes);
        }
    }
}

/// Cuts the bytes into datagrams, each after a byte that tells its length, and panics if a decoder
/// fails or makes more events than the bytes can hold.
pub fn datagrams(bytes: &[u8]) {
    for format in DATAGRAMS {
        for sensor in [None, Some(SensorSize { width: 346, height: 260 })] {
            let mut decoder = (format.decoder)(sensor);
            let (mut events, mut rest, mut t_us) = (Vec::new(), bytes, 0);
            while let Some((n_bytes, after)) = rest.split_first() {
                let (datagram, after) = after.split_at(usize::from(*n_bytes).min(after.len()));
                rest = after;
                t_us += 1000;
                decoder.arrived(t_us);
                decoder.feed(datagram, &mut events).expect("datagrams never fail");
            }
            decoder.finish(&mut events).expect("datagrams never fail");
            let n_malformed = n_malformed(&events);
            assert!(4 * (events.len() - n_malformed) <= bytes.len(), "{}", format.name);
            assert_eq!(n_malformed as u64, decoder.tally().malformed, "{}", format.name);
        }
    }
}

fn decode_as(format: &Format, bytes: &[u8]) {
    let whole = run(format, bytes, bytes.len().max(1), false);
    let n_chunk = 1 + bytes.len() * 7919 % 61;
    for seek in [false, true] {
        assert!(run(format, bytes, n_chunk, seek) == whole, "in chunks of {n_chunk}, seek {seek}");
    }
    assert_eq!(n_malformed(&whole.events) as u64, whole.tally.malformed);
}

fn n_malformed(events: &[Event]) -> usize {
    events.iter().filter(|event| event.is_malformed()).count()
}

#[derive(PartialEq)]
struct Outcome {
    events: Vec<Event>,
    tally: Tally,
    sensor: Sensor,
    error: Option<String>,
}

fn run(format: &Format, bytes: &[u8], n_chunk: usize, seek: bool) -> Outcome {
    // A smaller limit than the default's: decompressing 16 MiB for each input would be slow.
    let options = DecoderOptions { max_packet_bytes: 1 << 20, ..DecoderOptions::default() };
    let mut decoder = (format.decoder)(&options);
    let mut events = Vec::new();
    let mut feed = || {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, after) = rest.split_at(n_chunk.min(rest.len()));
            rest = after;
            match decoder.feed(now, &mut events)? {
                Need::Skip(n) if seek => {
                    let n = n.min(rest.len() as u64);
                    decoder.skipped(n);
                    rest = &rest[n as usize..];
                }
                Need::Nothing => return Ok(()),
                _ => {}
            }
        }
        decoder.finish(&mut events)
    };
    let error = feed().err().map(|error: dvs_stream::Error| error.to_string());
    Outcome { tally: decoder.tally(), sensor: decoder.sensor(), events, error }
}
