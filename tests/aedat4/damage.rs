//! Damaged files: events of the good part, a clear error, little memory, never silence.

use crate::files::{SENSOR, encoded, events, opening, packet, payload, stream};
use crate::{COMPRESSIONS, read, read_all_ways};
use dvs_stream::codec::{Compression, DecoderOptions};
use dvs_stream::error::grouped;
use lzzzz::lz4f;

/// Three packets of 7, 5 and 3 events, no table.
fn small(compression: Compression) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = opening(compression as i32, -1, &[stream(0, "EVTS", Some(SENSOR))]);
    let mut ends = vec![bytes.len()];
    let mut at = 0;
    for n in [7, 5, 3] {
        let part: Vec<_> = events(at + n)[at..]
            .iter()
            .map(|e| (e.t_us as i64, e.x as i16, e.y as i16, e.polarity as u8 == 1))
            .collect();
        bytes.extend(packet(0, &compressed(&payload(&part), compression)));
        ends.push(bytes.len());
        at += n;
    }
    (bytes, ends)
}

fn compressed(plain: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => plain.to_vec(),
        Compression::Lz4 | Compression::Lz4High => {
            let mut frame = Vec::new();
            lz4f::compress_to_vec(plain, &mut frame, &lz4f::Preferences::default()).unwrap();
            frame
        }
        Compression::Zstd | Compression::ZstdHigh => zstd::bulk::compress(plain, 3).unwrap(),
    }
}

#[test]
fn a_cut_at_any_byte_keeps_what_came_and_says_where() {
    for compression in COMPRESSIONS {
        let (bytes, ends) = small(compression);
        for cut in 0..bytes.len() {
            let read = read_all_ways(&bytes[..cut], &DecoderOptions::default(), &[1, 7]);
            let n_whole = ends.iter().rposition(|end| *end <= cut);
            let n_events = n_whole.map_or(0, |n| {
                let came = cut - ends[n];
                // without compression an event is there as soon as its bytes are, once the packet's
                // first 64 bytes have told where events stand: after 32, behind a header of 8
                let in_pieces = compression == Compression::None && came >= 8 + 64;
                [0, 7, 12, 15][n] + if in_pieces { (came - 8 - 32) / 16 } else { 0 }
            });
            assert_eq!(read.events, events(n_events), "cut at {cut}");
            match (n_whole, read.error) {
                (Some(n), None) => assert_eq!(ends[n], cut),
                (Some(n), Some(error)) => {
                    let (at, have) = (grouped(ends[n] as u64), cut - ends[n]);
                    let expected = format!(" at byte {at} ends after {have} of ");
                    assert!(error.contains(&expected), "{error} {expected}");
                }
                (None, Some(error)) => assert!(error.contains("ends after"), "{error}"),
                (None, None) => panic!("a header cut at {cut} is no error"),
            }
        }
    }
}

#[test]
fn a_cut_file_that_had_a_table_is_an_error_even_between_packets() {
    let bytes = encoded(&events(20_000), Compression::None, true);
    let header_bytes = bytes.len() - 20_000 * 16;
    let second_at = header_bytes - 2 * 40 - table_bytes(&bytes, header_bytes) + 8 + 160_032;
    let read = read(&bytes[..second_at]);
    assert_eq!(read.events, events(10_000));
    assert!(read.error.unwrap().contains("before its table at byte"));
}

#[test]
fn a_table_where_a_packet_stands_is_an_error() {
    for compression in COMPRESSIONS {
        let (bytes, ends) = small(compression);
        let header =
            |table_at| opening(compression as i32, table_at, &[stream(0, "EVTS", Some(SENSOR))]);
        let second_at = header(1).len() + ends[1] - ends[0];
        let bytes = [&header(second_at as i64), &bytes[ends[0]..]].concat();
        let read = read_all_ways(&bytes, &DecoderOptions::default(), &[1, 7]);
        assert_eq!(read.events, events(7));
        let expected = format!("puts the table at byte {}", grouped(second_at as u64));
        let error = read.error.unwrap();
        assert!(error.contains(&expected), "{error}");
    }
}

/// What is neither header, packet headers nor events.
fn table_bytes(bytes: &[u8], upper: usize) -> usize {
    let n_header = 18 + u32::from_le_bytes(bytes[14..18].try_into().unwrap()) as usize;
    upper - n_header - 2 * 40
}

/// Whatever single byte is wrong: no panic, and either an error or every event accounted for.
#[test]
fn no_single_wrong_byte_loses_events_in_silence() {
    for compression in COMPRESSIONS {
        let (bytes, _) = small(compression);
        let with_table = encoded(&events(15), compression, true);
        for good in [bytes, with_table] {
            for at in 0..good.len() {
                for wrong in [good[at] ^ 1, good[at] ^ 0x80, 0xff, 0] {
                    let mut bytes = good.clone();
                    bytes[at] = wrong;
                    let read = read_all_ways(&bytes, &DecoderOptions::default(), &[13]);
                    let n = read.events.len() as u64 + read.tally.malformed;
                    assert!(
                        n == 15 || read.error.is_some(),
                        "{compression:?}: {wrong:#x} at {at} of {}: {n} events",
                        good.len()
                    );
                }
            }
        }
    }
}

fn with_payload(compression: Compression, payload: &[u8]) -> Vec<u8> {
    let mut bytes = opening(compression as i32, -1, &[stream(0, "EVTS", Some(SENSOR))]);
    bytes.extend(packet(0, payload));
    bytes
}

fn lz4_bomb(block_size: lz4f::BlockSize, with_size: bool, n_bytes: usize) -> Vec<u8> {
    let mut preferences = lz4f::PreferencesBuilder::new();
    preferences.block_size(block_size);
    if with_size {
        preferences.content_size(n_bytes);
    }
    let mut frame = Vec::new();
    lz4f::compress_to_vec(&vec![0; n_bytes], &mut frame, &preferences.build()).unwrap();
    frame
}

fn zstd_bomb(n_bytes: usize, with_size: bool) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_contentsize(with_size).unwrap();
    if with_size {
        encoder.set_pledged_src_size(Some(n_bytes as u64)).unwrap();
    }
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), n_bytes as u64), &mut encoder)
        .unwrap();
    encoder.finish().unwrap()
}

#[test]
fn bombs_stop_at_the_limit() {
    let n = 40 << 20;
    let limit = DecoderOptions::default().max_packet_bytes;
    let bombs = [
        (Compression::Lz4, lz4_bomb(lz4f::BlockSize::Max64KB, false, n)),
        (Compression::Lz4, lz4_bomb(lz4f::BlockSize::Max4MB, false, n)),
        (Compression::Lz4High, lz4_bomb(lz4f::BlockSize::Max4MB, true, n)),
        (Compression::Zstd, zstd_bomb(n, true)),
        (Compression::ZstdHigh, zstd_bomb(n, false)),
    ];
    for (compression, bomb) in bombs {
        let error = read(&with_payload(compression, &bomb)).error.unwrap();
        let expected = format!("decompresses to more than the {} bytes", grouped(limit as u64));
        assert!(error.contains(&expected), "{compression:?}: {error}");
    }
}

#[test]
fn lengths_that_are_too_large_are_refused_before_their_bytes_come() {
    let head = opening(0, -1, &[stream(0, "EVTS", Some(SENSOR)), stream(1, "FRME", None)]);
    let claim = |id: i32, n: u32| [&head[..], &id.to_le_bytes(), &n.to_le_bytes()].concat();
    let header = |n: u32| [&b"#!AER-DAT4.0\r\n"[..], &n.to_le_bytes()].concat();
    let cases = [
        (claim(0, 16 << 20), "ends after 8 of 16,777,224 bytes"),
        (claim(0, (16 << 20) + 1), "claims 16,777,217 bytes, more than the 16,777,216 allowed"),
        (claim(0, 0x7fff_ffff), "claims 2,147,483,647 bytes"),
        (claim(0, 0xffff_fffe), "claims -2 bytes"),
        (claim(1, 0x7fff_ffff), "ends after 8 of 2,147,483,655 bytes"),
        (claim(1, 0x8000_0000), "claims -2147483648 bytes"),
        (claim(2, 1), "names stream 2, the header declares stream 0 (EVTS), stream 1 (FRME)"),
        (header(0), "the header is damaged"),
        (header((1 << 20) + 1), "claims 1,048,577 bytes"),
        (header(u32::MAX), "claims 4,294,967,295 bytes"),
        (header(1 << 20), "ends after 4 of 1,048,580 bytes"),
        (b"#!AER-DAT3.1\r\n".to_vec(), "does not open with"),
        (Vec::new(), "ends after 0 of 14 bytes"),
        (opening(5, -1, &[]), "compression 5"),
        (
            opening(0, 20, &[stream(0, "EVTS", None)]),
            "puts the table at byte 20, before its own end",
        ),
        (opening(0, -7, &[]), "puts the table at byte -7"),
        (with_payload(Compression::None, &[]), "shorter than its size field"),
        (with_payload(Compression::Lz4, &[]), "cut short"),
        (with_payload(Compression::Zstd, &[]), "another mark"),
    ];
    for (bytes, expected) in cases {
        let error = read_all_ways(&bytes, &DecoderOptions::default(), &[1, 7]).error.unwrap();
        assert!(error.contains(expected), "{error}\n{expected}");
    }
}

#[test]
fn a_raised_limit_lets_larger_packets_through() {
    let n_bytes = 17 << 20;
    let large = payload(&vec![(5, 1, 1, true); n_bytes / 16]);
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let bytes = with_payload(compression, &compressed(&large, compression));
        assert!(read(&bytes).error.is_some());
        let options = DecoderOptions { max_packet_bytes: 18 << 20, ..DecoderOptions::default() };
        let read = read_all_ways(&bytes, &options, &[1 << 16]);
        assert_eq!((read.events.len(), read.error), (n_bytes / 16, None));
    }
}

/// Every shape of frame that the libraries can write, not only what dv-processing does.
#[test]
fn frames_of_other_writers_are_read() {
    let part: Vec<_> =
        (0..40_000).map(|k| (k * k % 1009, (k % 346) as i16, 1, k % 7 == 0)).collect();
    let plain = payload(&part);
    let expected = read(&with_payload(Compression::None, &plain)).events;
    assert_eq!(expected.len(), 40_000);
    let mut frames = vec![(Compression::Zstd, zstd_without_size(&plain))];
    for size in [lz4f::BlockSize::Max64KB, lz4f::BlockSize::Max256KB, lz4f::BlockSize::Max4MB] {
        for mode in [lz4f::BlockMode::Linked, lz4f::BlockMode::Independent] {
            for checks in [false, true] {
                let mut preferences = lz4f::PreferencesBuilder::new();
                preferences.block_size(size).block_mode(mode);
                if checks {
                    preferences
                        .content_size(plain.len())
                        .content_checksum(lz4f::ContentChecksum::Enabled)
                        .block_checksum(lz4f::BlockChecksum::Enabled);
                }
                let mut frame = Vec::new();
                lz4f::compress_to_vec(&plain, &mut frame, &preferences.build()).unwrap();
                frames.push((Compression::Lz4, frame));
            }
        }
    }
    for (compression, frame) in frames {
        let read = read(&with_payload(compression, &frame));
        assert!(read.events == expected, "{compression:?} {:?}", read.error);
    }
}

fn zstd_without_size(plain: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_contentsize(false).unwrap();
    std::io::Write::write_all(&mut encoder, plain).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn checksums_are_verified() {
    let plain = payload(&[(5, 1, 1, true); 20]);
    let mut preferences = lz4f::PreferencesBuilder::new();
    preferences.content_checksum(lz4f::ContentChecksum::Enabled);
    let mut frame = Vec::new();
    lz4f::compress_to_vec(&plain, &mut frame, &preferences.build()).unwrap();
    for (at, expected) in [
        (6, "the checksum of its LZ4 frame's head"),
        (frame.len() - 1, "the checksum of its LZ4 frame does"),
    ] {
        let mut wrong = frame.clone();
        wrong[at] ^= 1;
        let error = read(&with_payload(Compression::Lz4, &wrong)).error.unwrap();
        assert!(error.contains(expected), "{error}");
    }
}
