//! Tiny recordings, byte by byte, with the events that they hold: written here from the formats'
//! descriptions, so that they check the decoders and not the other way round.

pub mod damaged;
pub mod sound;

use dvs_stream::codec::{Compression, EncoderOptions, probe};
use dvs_stream::event::{Event, Polarity, SensorSize};

/// One file under `fixtures/`.
pub struct Recording {
    /// File name: the format's name, then `-` or `.`.
    pub file: &'static str,
    /// What is in it, without commas.
    pub what: &'static str,
    pub bytes: Vec<u8>,
    /// The events that come out.
    pub events: Vec<Event>,
    /// A part of the error at its end; empty where it is sound.
    pub error: &'static str,
}

/// `n` events within 30 x 30 pixels, at 1000 µs and later.
pub fn events(n: u32) -> Vec<Event> {
    let mut seed = 7_u32;
    let mut t_us = 1000;
    (0..n)
        .map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            t_us += u64::from(seed >> 22);
            Event {
                t_us,
                x: (seed >> 16) as u16 % 30,
                y: (seed >> 8) as u16 % 30,
                polarity: Polarity::from_on(seed >> 31 == 1),
            }
        })
        .collect()
}

/// The header lines, each with its line end.
pub fn lines(lines: &[&str]) -> Vec<u8> {
    lines.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect()
}

pub fn is_on(event: &Event) -> u32 {
    u32::from(event.polarity == Polarity::On)
}

/// A DVS128's address of an event.
pub fn dvs128(event: &Event) -> u32 {
    u32::from(event.y) << 8 | u32::from(event.x) << 1 | (1 - is_on(event))
}

/// A DAVIS's address of an event.
pub fn davis(event: &Event) -> u32 {
    u32::from(event.y) << 22 | u32::from(event.x) << 12 | is_on(event) << 11
}

/// AEDAT 2.0 words: address, then time.
pub fn words(events: &[Event], address: fn(&Event) -> u32) -> Vec<u8> {
    events.iter().flat_map(|event| word(address(event), event.t_us as u32)).collect()
}

pub fn word(address: u32, t: u32) -> Vec<u8> {
    [address.to_be_bytes(), t.to_be_bytes()].concat()
}

/// AEDAT 1.0 words.
pub fn short_words(events: &[Event]) -> Vec<u8> {
    let short = |event: &Event| {
        [(dvs128(event) as u16).to_be_bytes().as_slice(), &(event.t_us as u32).to_be_bytes()]
            .concat()
    };
    events.iter().flat_map(short).collect()
}

/// An AEDAT 3 packet.
pub struct Packet {
    pub kind: i16,
    pub source: i16,
    pub size: i32,
    pub overflow: i32,
    pub capacity: i32,
    pub number: i32,
    pub valid: i32,
    pub body: Vec<u8>,
}

impl Packet {
    /// Polarity events of source 1, all valid.
    pub fn polarity(events: &[Event]) -> Packet {
        let n = events.len() as i32;
        let overflow = events.first().map_or(0, |event| (event.t_us >> 31) as i32);
        let body = events.iter().flat_map(|event| polarity(event, 1)).collect();
        Packet { kind: 1, source: 1, size: 8, overflow, capacity: n, number: n, valid: n, body }
    }

    /// A packet of another kind, of zeros.
    pub fn other(kind: i16, size: i32, number: i32) -> Packet {
        let body = vec![0; (size * number) as usize];
        Packet { kind, source: 1, size, overflow: 0, capacity: number, number, valid: number, body }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.kind.to_le_bytes(), self.source.to_le_bytes()].concat();
        for field in [self.size, 4, self.overflow, self.capacity, self.number, self.valid] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// An AEDAT 3 polarity event.
pub fn polarity(event: &Event, valid: u32) -> Vec<u8> {
    let bits = u32::from(event.x) << 17 | u32::from(event.y) << 2 | is_on(event) << 1 | valid;
    [bits.to_le_bytes(), (event.t_us as u32 & 0x7FFF_FFFF).to_le_bytes()].concat()
}

/// N-MNIST records.
pub fn short_events(events: &[Event]) -> Vec<u8> {
    let record = |event: &Event| {
        let bits = is_on(event) << 23 | event.t_us as u32;
        let [_, a, b, c] = bits.to_be_bytes();
        [event.x as u8, event.y as u8, a, b, c]
    };
    events.iter().flat_map(record).collect()
}

/// A `.npy` file of version 1.
pub fn npy(descr: &str, fortran: bool, shape: &str, body: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let text = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}");
    let n_text = (text.len() + 11).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(n_text as u16).to_le_bytes());
    bytes.extend_from_slice(format!("{text:width$}\n", width = n_text - 1).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Rows of four numbers, in this order.
pub fn rows<const N: usize>(events: &[Event], number: impl Fn(i64) -> [u8; N]) -> Vec<u8> {
    events.iter().flat_map(txyp).flat_map(number).collect()
}

pub fn txyp(event: &Event) -> [i64; 4] {
    [event.t_us as i64, i64::from(event.x), i64::from(event.y), i64::from(is_on(event))]
}

/// An AEDAT 4 file as the encoder writes it (what other readers make of that is tested beside it),
/// with its table's place in the header or without.
pub fn aedat4(events: &[Event], compression: Compression, patched: bool) -> Vec<u8> {
    let sensor = Some(SensorSize { width: 35, height: 35 });
    let new = probe::by_name("aedat4").expect("a format").encoder.expect("a writer");
    let mut encoder = new(&EncoderOptions { sensor, compression });
    let mut bytes = Vec::new();
    encoder.encode(events, &mut bytes).expect("events that fit");
    let patch = encoder.finish(&mut bytes).expect("an end").expect("a table");
    if patched {
        let at = patch.offset as usize;
        bytes[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
    bytes
}

/// What a DV server sends: the same without the opening line and the table.
pub fn dv(events: &[Event], compression: Compression) -> Vec<u8> {
    let file = aedat4(events, compression, false);
    let at = first_packet(&file);
    let n_payload = u32::from_le_bytes([file[at + 4], file[at + 5], file[at + 6], file[at + 7]]);
    file[14..at + 8 + n_payload as usize].to_vec()
}

/// faery's 13 bytes an event.
pub fn faery_t64(events: &[Event]) -> Vec<u8> {
    let record = |event: &Event| {
        let pixel = [event.x.to_le_bytes(), event.y.to_le_bytes()].concat();
        [event.t_us.to_le_bytes().as_slice(), &pixel, &[is_on(event) as u8]].concat()
    };
    events.iter().flat_map(record).collect()
}

/// faery's 8 bytes an event.
pub fn faery_t32(events: &[Event]) -> Vec<u8> {
    let record = |event: &Event| {
        let y_on = event.y << 1 | is_on(event) as u16;
        let pixel = [event.x.to_le_bytes(), y_on.to_le_bytes()].concat();
        [(event.t_us as u32).to_le_bytes().as_slice(), &pixel].concat()
    };
    events.iter().flat_map(record).collect()
}

/// SPIF's words with times.
pub fn spif(events: &[Event]) -> Vec<u8> {
    let words = |event: &Event| {
        let pixel = u32::from(event.x) << 16 | is_on(event) << 15 | u32::from(event.y);
        [pixel.to_le_bytes(), (event.t_us as u32).to_le_bytes()].concat()
    };
    events.iter().flat_map(words).collect()
}

/// Offset of the first packet of an AEDAT 4 file.
pub fn first_packet(bytes: &[u8]) -> usize {
    18 + u32::from_le_bytes([bytes[14], bytes[15], bytes[16], bytes[17]]) as usize
}
