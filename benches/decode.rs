//! Decoding: bytes to events, every event pushed into a vector and looked at.
//!
//! `cargo bench --bench decode` times every row of [`CASES`]. With `-- --peers FILE [READER]` it
//! reads one file with each reader and prints JSON lines for `benches/peers/compare.py`.

use std::fs::File;
use std::hint::black_box;
use std::io::Read;

use criterion::{BatchSize, Criterion, Throughput};
use dvs_stream::codec::{
    self, Compression, Decoder, DecoderOptions, EncoderOptions, Format, Need, by_name,
};
use dvs_stream::event::{Event, Polarity, SensorSize};
use dvs_stream::source::CHUNK_BYTES;

/// A row: one format in one variant.
struct Case {
    format: &'static str,
    compression: Compression,
}

const CASES: &[Case] = &[
    Case { format: "aedat4", compression: Compression::None },
    Case { format: "aedat4", compression: Compression::Lz4 },
    Case { format: "aedat4", compression: Compression::Lz4High },
    Case { format: "aedat4", compression: Compression::Zstd },
    Case { format: "aedat4", compression: Compression::ZstdHigh },
    Case { format: "aedat2", compression: Compression::None },
];

const N_EVENTS: usize = 1_000_000;
const SENSOR: SensorSize = SensorSize { width: 128, height: 128 };

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().position(|argument| argument == "--peers") {
        Some(at) => peers(&arguments[at + 1], arguments.get(at + 2).map(String::as_str)),
        None => criterion(),
    }
}

fn criterion() {
    let mut criterion = Criterion::default().configure_from_args();
    let events = events();
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(N_EVENTS as u64)).sample_size(20);
    for case in CASES {
        let format = by_name(case.format).expect("a format of the table");
        let bytes = encoded(format, case.compression, &events);
        group.bench_function(format!("{}/{:?}", case.format, case.compression), |bencher| {
            bencher.iter_batched_ref(
                || ((format.decoder)(&DecoderOptions::default()), Vec::new()),
                |(decoder, out)| decode(decoder.as_mut(), &bytes, out),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
    criterion.final_summary();
}

/// Neighbours in time and place, as an edge that moves over a sensor makes them.
fn events() -> Vec<Event> {
    let mut seed = 1_u32;
    let mut t_us = 0;
    (0..N_EVENTS)
        .map(|k| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            t_us += u64::from(seed >> 30);
            let edge = k as u32 / 500;
            let x = ((edge + (seed >> 24) % 5) % 128) as u16;
            let y = ((seed >> 16) % 128) as u16;
            Event { t_us, x, y, polarity: Polarity::from_on((seed >> 8) % 5 > 1) }
        })
        .collect()
}

fn encoded(format: &Format, compression: Compression, events: &[Event]) -> Vec<u8> {
    let encoder = format.encoder.expect("a format that can be written");
    let mut encoder = encoder(&EncoderOptions { sensor: Some(SENSOR), compression });
    let mut bytes = Vec::new();
    encoder.encode(events, &mut bytes).expect("events that fit");
    if let Some(patch) = encoder.finish(&mut bytes).expect("an end") {
        bytes[patch.offset as usize..][..patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
    bytes
}

fn decode(decoder: &mut dyn Decoder, bytes: &[u8], out: &mut Vec<Event>) {
    let mut sum = 0;
    for chunk in bytes.chunks(CHUNK_BYTES) {
        out.clear();
        let need = decoder.feed(chunk, out).expect("sound bytes");
        sum += touch(out);
        if need == Need::Nothing {
            break;
        }
    }
    black_box(sum);
}

/// Looks at every field of every event.
fn touch(events: &[Event]) -> u64 {
    events.iter().fold(0, |sum, e| {
        sum.wrapping_add(e.t_us ^ u64::from(e.x) << 20 ^ u64::from(e.y) << 40 ^ e.polarity as u64)
    })
}

/// A file is read again until it gave so many: the system counts CPU time in steps of 4 ms.
const LEAST_EVENTS: u64 = 5_000_000;

/// Reads a file; gives how many events it holds and the sum of what was looked at.
type Reader = fn(&str) -> (u64, u64);

const READERS: [(&str, Reader); 2] = [("ours", by_us), ("crate", by_the_crate)];

fn peers(path: &str, only: Option<&str>) {
    for (name, reader) in READERS.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        let begun_ns = cpu_ns();
        let (mut n_events, mut sum) = (0, 0_u64);
        while n_events < LEAST_EVENTS {
            let (n, of_events) = reader(path);
            assert!(n > 0, "{path} holds no events");
            (n_events, sum) = (n_events + n, sum.wrapping_add(of_events));
        }
        let cpu_ns = cpu_ns() - begun_ns;
        println!(
            "{}",
            serde_json::json!({"reader": name, "events": n_events, "sum": sum, "cpu_ns": cpu_ns})
        );
    }
}

/// CPU time of this thread so far.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number of nanoseconds")
}

fn by_us(path: &str) -> (u64, u64) {
    let mut file = File::open(path).expect("a file");
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut n = file.read(&mut buffer).expect("bytes");
    let codec::Probe::Format(format) = codec::probe(&buffer[..n], Some(path), false) else {
        panic!("unknown format");
    };
    let mut decoder = (format.decoder)(&DecoderOptions::default());
    let (mut out, mut n_events, mut sum) = (Vec::new(), 0, 0_u64);
    while n > 0 {
        out.clear();
        let need = decoder.feed(&buffer[..n], &mut out).expect("sound bytes");
        n_events += out.len() as u64;
        sum = sum.wrapping_add(touch(&out));
        match need {
            Need::More => {}
            Need::Nothing => break,
            Need::Skip(n_bytes) => {
                std::io::Seek::seek_relative(&mut file, n_bytes as i64).expect("a file");
                decoder.skipped(n_bytes);
            }
        }
        n = file.read(&mut buffer).expect("bytes");
    }
    (n_events, sum)
}

/// The `aedat` crate's own reader with its verifying accessor, doing the same with the events of
/// the first event stream.
fn by_the_crate(path: &str) -> (u64, u64) {
    use aedat::base::StreamContent;
    use aedat::events_generated::size_prefixed_root_as_event_packet;
    let decoder = aedat::base::Decoder::new_from_file(path).expect("a file");
    let is_events = |content| matches!(content, StreamContent::Events);
    let streams = decoder.id_to_stream.iter().filter(|(_, stream)| is_events(stream.content));
    let id = streams.map(|(id, _)| *id).min().expect("an event stream");
    let (mut out, mut n_events, mut sum) = (Vec::new(), 0, 0_u64);
    for packet in decoder {
        let packet = packet.expect("a sound packet");
        if packet.stream_id != id {
            continue;
        }
        let root = size_prefixed_root_as_event_packet(&packet.buffer).expect("a sound packet");
        out.clear();
        out.extend(root.elements().unwrap_or_default().iter().map(|event| Event {
            t_us: event.t() as u64,
            x: event.x() as u16,
            y: event.y() as u16,
            polarity: Polarity::from_on(event.on()),
        }));
        n_events += out.len() as u64;
        sum = sum.wrapping_add(touch(&out));
    }
    (n_events, sum)
}
