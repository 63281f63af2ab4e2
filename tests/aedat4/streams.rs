//! Several streams in a file: which one comes out, what is passed over, what is refused.

use crate::files::{SENSOR, encoded, events, opening, packet, payload, stream};
use crate::{COMPRESSIONS, Read, read_all_ways};
use dvs_stream::codec::aedat4::Aedat4Decoder;
use dvs_stream::codec::{AnyDecoder, Decoder, DecoderOptions, ENOUGH_EVENTS, Need, Tally};
use dvs_stream::event::{Event, Polarity, SensorSize};

const SMALL: SensorSize = SensorSize { width: 4, height: 3 };

fn declared() -> Vec<String> {
    vec![
        stream(3, "FRME", Some(SENSOR)),
        stream(-2, "EVTS", Some(SMALL)),
        stream(5, "EVTS", None),
        stream(1, "IMUS", None),
        stream(2, "TRIG", None),
        stream(9, "BBOX", None),
    ]
}

/// Two event packets of stream -2 and one of 5 among packets of every other kind.
fn mixed() -> Vec<u8> {
    let mut bytes = opening(0, -1, &declared());
    bytes.extend(packet(3, &[7; 300]));
    bytes.extend(packet(-2, &payload(&[(10, 1, 2, true), (11, 3, 0, false)])));
    bytes.extend(packet(1, &[]));
    bytes.extend(packet(5, &payload(&[(12, 0, 0, true)])));
    bytes.extend(packet(9, &[1]));
    bytes.extend(packet(2, &[0; 9]));
    bytes.extend(packet(-2, &payload(&[(13, -1, 0, true), (-14, 1, 1, true), (15, 1, 1, true)])));
    bytes.extend(packet(3, &[8; 5]));
    bytes
}

fn read_stream(bytes: &[u8], stream_id: Option<i32>) -> Read {
    let options = DecoderOptions { stream_id, ..DecoderOptions::default() };
    read_all_ways(bytes, &options, &[1, 7, 64, 4096])
}

fn event(t_us: u64, x: u16, y: u16, on: bool) -> Event {
    Event { t_us, x, y, polarity: Polarity::from_on(on) }
}

#[test]
fn the_first_event_stream_comes_out_and_the_rest_is_counted() {
    let read = read_stream(&mixed(), None);
    assert_eq!(read.error, None);
    assert_eq!(read.sensor.size, Some(SMALL));
    let kept = [
        event(10, 1, 2, true),
        event(11, 3, 0, false),
        event(13, u16::MAX, 0, true),
        event(15, 1, 1, true),
    ];
    assert_eq!(read.events, kept);
    let tally =
        Tally { malformed: 1, frames: 2, imu: 1, external: 1, other: 2, ..Tally::default() };
    assert_eq!(read.tally, tally);
}

#[test]
fn another_event_stream_can_be_asked_for() {
    let read = read_stream(&mixed(), Some(5));
    assert_eq!((read.error, read.sensor.size), (None, None));
    assert_eq!(read.events, [event(12, 0, 0, true)]);
    assert_eq!((read.tally.other, read.tally.frames), (3, 2));
}

#[test]
fn streams_that_do_not_hold_events_are_refused_with_a_list() {
    let list = "stream 3 (FRME), stream -2 (EVTS), stream 5 (EVTS), stream 1 (IMUS)";
    for (id, found) in [(4, "no such stream"), (3, "a stream without events")] {
        let error = read_stream(&mixed(), Some(id)).error.unwrap();
        assert!(error.contains(found) && error.contains(list), "{error}");
    }
    let frames_only = opening(0, -1, &[stream(0, "FRME", Some(SENSOR))]);
    let error = read_stream(&frames_only, None).error.unwrap();
    assert!(error.contains("it has stream 0 (FRME)"), "{error}");
    let error = read_stream(&opening(0, -1, &[]), None).error.unwrap();
    assert!(error.contains("it has no streams"), "{error}");
}

#[test]
fn a_packet_of_another_stream_need_not_be_read() {
    let head = opening(0, -1, &declared());
    let bytes = [&head[..], &packet(3, &[7; 300])].concat();
    let mut decoder = Aedat4Decoder::file(&DecoderOptions::default());
    let mut out = Vec::new();
    assert_eq!(decoder.feed(&bytes[..head.len() + 8], &mut out).unwrap(), Need::Skip(300));
    assert_eq!(decoder.feed(&[7; 100], &mut out).unwrap(), Need::Skip(200));
    decoder.skipped(200);
    let events = packet(-2, &payload(&[(1, 1, 1, true)]));
    assert_eq!(decoder.feed(&events, &mut out).unwrap(), Need::More);
    assert_eq!((out.len(), decoder.tally().frames), (1, 1));
    decoder.finish(&mut out).unwrap();
}

#[test]
fn what_follows_the_table_is_told() {
    let events = events(25_000);
    for (compression, patched) in COMPRESSIONS.into_iter().flat_map(|c| [(c, true), (c, false)]) {
        let whole = encoded(&events, compression, patched);
        let sound = read_stream(&whole, None);
        assert_eq!((&sound.events, &sound.error), (&events, &None), "{compression:?}");
        for more in [&[0][..], &whole] {
            let read = read_stream(&[&whole, more].concat(), None);
            assert_eq!((&read.events, read.offset), (&events, Some(whole.len() as u64)));
            assert!(read.error.unwrap().contains("follows the table"), "{compression:?}");
        }
    }
}

#[test]
fn a_table_is_passed_over() {
    let end = mixed().len();
    for position in [0, 8] {
        let head = opening(0, end as i64 + position, &declared());
        let body = &mixed()[opening(0, -1, &declared()).len()..];
        let shift = head.len() + body.len() - end;
        let head = opening(0, (end + shift) as i64, &declared());
        let bytes = [&head[..], body, b"\x50\0\0\0\x10\0\0\0FTAB, whatever it holds"].concat();
        assert_eq!(read_stream(&bytes, None).events.len(), 4);
        let mut decoder = Aedat4Decoder::file(&DecoderOptions::default());
        assert_eq!(decoder.feed(&bytes, &mut Vec::new()).unwrap(), Need::Skip(0x54 - 31));
    }
}

#[test]
fn of_many_packets_some_can_be_taken_at_a_time() {
    const PACKET: usize = 10_000;
    let events = events(30 * PACKET);
    for compression in COMPRESSIONS {
        let bytes = encoded(&events, compression, true);
        let mut decoder = AnyDecoder::probing(None, &DecoderOptions::default());
        let (mut rest, mut all) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let mut some = Vec::new();
            decoder.feed_some(&mut rest, &mut some).unwrap();
            assert!(some.len() < ENOUGH_EVENTS + PACKET, "{compression:?}: {}", some.len());
            all.extend(some);
        }
        decoder.finish(&mut all).unwrap();
        assert!(all == events, "{compression:?}");
    }
}
