//! What is written reads back equal.

use crate::files::{SENSOR, encoded, events};
use crate::{COMPRESSIONS, Read, read, read_all_ways};
use dvs_stream::codec::aedat4::{Aedat4Decoder, Aedat4Encoder};
use dvs_stream::codec::{Compression, DecoderOptions, Encoder, EncoderOptions, Tally};
use dvs_stream::event::{Event, Polarity, Sensor};

fn good(events: Vec<Event>) -> Read {
    let sensor = Sensor { size: Some(SENSOR), ..Sensor::default() };
    Read { events, error: None, offset: None, tally: Tally::default(), sensor }
}

#[test]
fn events_come_back_in_every_compression_and_chunking() {
    for compression in COMPRESSIONS {
        for n in [0, 1, 9_999, 10_000, 10_001, 25_000] {
            for patched in [true, false] {
                let bytes = encoded(&events(n), compression, patched);
                let chunks: &[usize] = if n < 25_000 { &[1, 7, 4096] } else { &[4096, 99_991] };
                let back = read_all_ways(&bytes, &DecoderOptions::default(), chunks);
                assert!(back == good(events(n)), "{compression:?} {n} {patched} {:?}", back.error);
            }
        }
    }
}

#[test]
fn the_same_bytes_without_the_first_line_are_a_network_stream() {
    let bytes = encoded(&events(20), Compression::Lz4, false);
    let decoder = Aedat4Decoder::network(&DecoderOptions::default());
    assert_eq!(crate::read_with(decoder, &bytes[14..], 5, false), good(events(20)));
}

#[test]
fn extremes_of_the_format_fit_and_what_exceeds_them_is_refused() {
    let event = |t_us, x, y| Event { t_us, x, y, polarity: Polarity::On };
    let most = event(Event::MAX_T_US, 32767, 32767);
    let back = read(&encoded(&[most, event(0, 0, 0)], Compression::None, true));
    assert_eq!(back.events, [most, event(0, 0, 0)]);
    let cases = [event(Event::MAX_T_US + 1, 0, 0), event(0, 32768, 0), event(0, 0, 32768)];
    for bad in cases {
        let options = EncoderOptions { sensor: Some(SENSOR), compression: Compression::None };
        let error = Aedat4Encoder::new(&options).encode(&[most, bad], &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("does not fit AEDAT 4"), "{error}");
    }
}

#[test]
fn a_file_without_sensor_size_is_not_written() {
    let options = EncoderOptions { sensor: None, compression: Compression::None };
    let error = Aedat4Encoder::new(&options).finish(&mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("--sensor"), "{error}");
}

/// The table is not read here, so its rows are looked up by hand.
#[test]
fn the_table_names_every_packet() {
    let bytes = encoded(&events(25_000), Compression::None, true);
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let i64_at = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let follow = |at: usize| at + u32_at(at) as usize;
    let field = |table: usize, k: usize| {
        let vtable = (table as i64 - i64::from(u32_at(table) as i32)) as usize;
        let offset = u16::from_le_bytes(bytes[vtable + 4 + 2 * k..][..2].try_into().unwrap());
        table + usize::from(offset)
    };
    let header = follow(18);
    let table = follow(i64_at(field(header, 1)) as usize + 4);
    let rows = follow(field(table, 0));
    assert_eq!(u32_at(rows), 3);
    let mut packet_at = 18 + u32_at(14) as usize;
    for (k, n_events) in [10_000, 10_000, 5_000].into_iter().enumerate() {
        let row = follow(rows + 4 + 4 * k);
        let first = 1_589_163_147_368_868 + 30_000 * k as i64;
        assert_eq!(i64_at(field(row, 0)), packet_at as i64 + 8);
        assert_eq!([u32_at(field(row, 1)), u32_at(field(row, 1) + 4)], [0, u32_at(packet_at + 4)]);
        let rest: Vec<i64> = (2..5).map(|k| i64_at(field(row, k))).collect();
        assert_eq!(rest, [n_events, first, first + 3 * (n_events - 1)]);
        packet_at += 8 + u32_at(packet_at + 4) as usize;
    }
}
