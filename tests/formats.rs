//! What every format must do, whichever it is, and what real recordings are known to hold.

mod skip;

use std::path::{Path, PathBuf};

use dvs_stream::codec::probe::{self, Probe};
use dvs_stream::codec::{
    Compression, Decoder, DecoderOptions, EncoderOptions, FORMATS, Format, Match, Need,
};
use dvs_stream::event::{Event, Polarity, SensorSize};
use proptest::prelude::*;
use skip::skip;

/// Real recordings, which are no part of the project; `None` where they are absent.
fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("DVS_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")),
        PathBuf::from,
    );
    let path = root.join("data").join(path);
    if !path.exists() {
        skip(&format!("{} is absent", path.display()));
        return None;
    }
    Some(path)
}

fn format(name: &str) -> &'static Format {
    probe::by_name(name).expect("a known format")
}

/// Every recording under `fixtures/`, whoever made it, with its format: named so, or probed.
fn fixtures() -> Vec<(PathBuf, &'static Format, Vec<u8>)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("fixtures") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
            let bytes = std::fs::read(&path).expect("readable");
            let is_named = |format: &&Format| {
                name.strip_prefix(format.name).is_some_and(|rest| rest.starts_with(['-', '.']))
            };
            match (FORMATS.iter().find(is_named), probe::probe(&bytes, Some(name), true)) {
                (Some(format), _) | (_, Probe::Format(format)) => found.push((path, format, bytes)),
                _ => {}
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

#[test]
fn the_readme_tells_what_is_read_and_written() {
    let readme = include_str!("../README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let told: Vec<_> = rows.filter(|(name, _)| !name.contains(' ')).collect();
    for format in FORMATS {
        let marks = if format.encoder.is_some() { "| ● | ● |" } else { "| ● | |" };
        let row = told.iter().find(|(name, _)| *name == format.name);
        assert!(row.is_some_and(|(_, row)| row.ends_with(marks)), "{}: {marks}", format.name);
    }
    assert_eq!(told.len(), FORMATS.len());
}

fn fresh(format: &Format) -> Box<dyn Decoder> {
    (format.decoder)(&DecoderOptions::default())
}

/// Feeds `bytes` in pieces of `n_chunk`, passes over what need not be read where `seek` says so,
/// and returns the events and how it ended.
fn decode(
    decoder: &mut dyn Decoder,
    bytes: &[u8],
    n_chunk: usize,
    seek: bool,
) -> (Vec<Event>, Result<(), String>) {
    let mut events = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes.len().min(at + n_chunk);
        let need = match decoder.feed(&bytes[at..end], &mut events) {
            Ok(need) => need,
            Err(error) => return (events, Err(error.to_string())),
        };
        at = end;
        match need {
            Need::Skip(n) if seek => {
                let n = n.min((bytes.len() - at) as u64);
                decoder.skipped(n);
                at += n as usize;
            }
            Need::Nothing => break,
            _ => {}
        }
    }
    let end = decoder.finish(&mut events).map_err(|error| error.to_string());
    (events, end)
}

fn events_of(format: &Format, bytes: &[u8]) -> Vec<Event> {
    let mut decoder = fresh(format);
    let (events, end) = decode(&mut *decoder, bytes, bytes.len().max(1), false);
    end.expect("an undamaged recording");
    events
}

#[test]
fn real_recordings_hold_what_they_are_known_to() {
    for (path, name, n_events, n_imu) in [
        ("aedat2/dvs128_walking.aedat", "aedat2", 19_182, 0),
        ("aedat2/davis240c_boxes.aedat", "aedat2", 162_771, 33_837),
    ] {
        let Some(file) = shared(path) else { continue };
        let bytes = std::fs::read(file).expect("readable");
        let mut decoder = fresh(format(name));
        let (events, end) = decode(&mut *decoder, &bytes, bytes.len(), false);
        assert_eq!(end, Ok(()), "{path}");
        assert_eq!(events.len(), n_events, "{path}");
        let tally = decoder.tally();
        assert_eq!(tally.imu + tally.frames, n_imu, "{path}: {tally:?}");
        let size = decoder.sensor().size.expect("a named chip");
        assert!(events.iter().all(|event| size.address(event).is_some()), "{path}: outside {size}");
    }
}

#[test]
fn poker_recordings_are_as_their_manifest_says() {
    let Some(folder) = shared("poker-dvs") else { return };
    let manifest = std::fs::read_to_string(folder.join("MANIFEST.csv")).expect("readable");
    let mut n_files = 0;
    for row in manifest.lines().skip(1) {
        let columns: Vec<&str> = row.split(',').collect();
        let bytes = std::fs::read(folder.join(columns[0])).expect("readable");
        let events = events_of(format("aedat2"), &bytes);
        let (first, last) = (events[0].t_us, events[events.len() - 1].t_us);
        let x = events.iter().map(|event| u64::from(event.x));
        let y = events.iter().map(|event| u64::from(event.y));
        let n_on = events.iter().filter(|event| event.polarity == Polarity::On).count() as u64;
        let found = [
            Some(events.len() as u64),
            Some(first),
            Some(last - first),
            x.clone().min(),
            x.max(),
            y.clone().min(),
            y.max(),
            Some(n_on),
        ];
        let expected: Vec<Option<u64>> =
            columns[3..].iter().map(|text| text.parse().ok()).collect();
        assert_eq!(found.as_slice(), expected, "{}", columns[0]);
        n_files += 1;
    }
    assert_eq!(n_files, 68);
}

#[test]
fn nmnist_recordings_hold_what_another_reader_found() {
    let Some(folder) = shared("nmnist-small") else { return };
    let (mut n_files, mut n_events, mut last_us, mut falls) = (0, 0, 0, 0);
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|own| own != "bs2") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("readable");
        let named = path.to_str();
        assert!(
            matches!(probe::probe(&bytes, named, true), Probe::Format(f) if f.name == "nmnist")
        );
        let events = events_of(format("nmnist"), &bytes);
        assert!(events.iter().all(|event| event.x < 34 && event.y < 34), "{named:?}");
        falls += events.windows(2).filter(|pair| pair[1].t_us < pair[0].t_us).count();
        last_us = last_us.max(events.last().map_or(0, |event| event.t_us));
        n_events += events.len();
        n_files += 1;
    }
    assert_eq!((n_files, n_events, last_us, falls), (1000, 4_133_231, 315_109, 0));
}

#[test]
fn names_and_extensions_are_plain() {
    for (k, format) in FORMATS.iter().enumerate() {
        assert!(FORMATS[..k].iter().all(|other| other.name != format.name), "{}", format.name);
        for extension in format.extensions {
            assert_eq!(*extension, extension.to_lowercase(), "{}", format.name);
            assert!(!extension.starts_with('.'), "{}", format.name);
        }
        assert_eq!((format.probe)(b"nothing like it"), Match::No, "{}", format.name);
    }
}

#[test]
fn every_format_has_a_sound_and_a_damaged_fixture() {
    let fixtures = fixtures();
    for format in FORMATS {
        for folder in ["formats", "damaged"] {
            let within =
                |path: &PathBuf| path.parent().is_some_and(|parent| parent.ends_with(folder));
            let found =
                fixtures.iter().any(|(path, own, _)| own.name == format.name && within(path));
            assert!(found, "no {} in fixtures/{folder}", format.name);
        }
    }
}

#[test]
fn equal_bytes_give_equal_events_however_they_are_cut() {
    for (path, format, bytes) in fixtures() {
        let mut whole = fresh(format);
        let (events, end) = decode(&mut *whole, &bytes, bytes.len().max(1), false);
        for n_chunk in [1, 7, 4096] {
            for seek in [false, true] {
                let mut cut = fresh(format);
                let (cut_events, cut_end) = decode(&mut *cut, &bytes, n_chunk, seek);
                let how = format!("{} in {n_chunk}, seek {seek}", path.display());
                assert_eq!(cut_end, end, "{how}");
                assert!(cut_events == events, "{how}: other events");
                assert_eq!((cut.sensor(), cut.tally()), (whole.sensor(), whole.tally()), "{how}");
            }
        }
    }
}

#[test]
fn sound_fixtures_are_found_by_their_bytes_or_their_names() {
    for (path, format, bytes) in fixtures() {
        if path.parent().is_some_and(|parent| !parent.ends_with("formats")) {
            continue;
        }
        let marked = (format.probe)(&bytes) == Match::Yes;
        let path = match format.extensions {
            [] if !marked => continue,
            // Fixtures of nothing but events are called after their format.
            [own] if !marked => path.with_extension(own),
            _ => path,
        };
        let name = path.to_str();
        assert_eq!(probed(&bytes, name, true), format.name, "{name:?}");
        let unnamed = probed(&bytes, Some("recording.txt"), true);
        assert_eq!(unnamed == format.name, marked, "{name:?} under another name: {unnamed}");
    }
}

/// Name of the format found, `more`, or the advice given.
fn probed(bytes: &[u8], name: Option<&str>, at_end: bool) -> String {
    match probe::probe(bytes, name, at_end) {
        Probe::Format(format) => format.name.to_owned(),
        Probe::More => "more".to_owned(),
        Probe::Unknown(error) => error.to_string(),
    }
}

#[test]
fn what_people_really_pass_is_named() {
    let tar = [vec![b'a'; 257], b"ustar\0".to_vec(), vec![0; 300]].concat();
    let noise: Vec<u8> = (0..600_u32).map(|k| (k * k % 251) as u8).collect();
    let cases: &[(&[u8], &str, bool, &str)] = &[
        (b"", "a.aedat", true, "empty"),
        (b"", "a.aedat", false, "more"),
        (b"#!AER-D", "a.aedat", false, "more"),
        (b"#!AER-D", "a.aedat", true, "within the mark"),
        (b"#!AER-DAT2.0\r\n", "a.bin", false, "aedat2"),
        (b"#!AER-DAT1.0\r\n", "a.aedat4", true, "aedat1"),
        (b"#!AER-DAT3.1\r\n", "a.aedat4", true, "aedat3"),
        (b"\x93NUMPY\x01\0", "a.txt", true, "npy"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "a.npy",
            true,
            "git lfs pull",
        ),
        (b"\n<!DOCTYPE html><html>", "a.aedat4", true, "web page"),
        (b"<HTML>", "a.aedat4", true, "web page"),
        (b"\x1f\x8b\x08\0", "a.aedat4.gz", true, "gunzip"),
        (b"PK\x03\x04", "a.npz", true, "zip"),
        (&tar, "a.tar", true, "tar archive"),
        (b"\0\0\0\x18ftypmp42", "a.mp4", true, "video"),
        (b"RIFF\0\0\0\0AVI LIST", "a.avi", true, "video"),
        (b"% evt 3.0\n% format EVT3\n", "a.raw", true, "Prophesee"),
        (b"\x89HDF\r\n\x1a\n", "a.h5", true, "HDF5"),
        (b"#ROSBAG V2.0\n", "a.bag", true, "ROS bag"),
        (b"Event Stream\x02", "a.es", true, "Event Stream"),
        (b"\x80\x04\x95", "a.pkl", true, "pickle"),
        (b"@\0\0\0\0\0\0\0{\"__metadata__\"", "a.bin", true, "--model"),
        (&noise, "a.bin", true, "--format"),
        (&noise, "a.aedat", false, "--format"),
        (&noise[..100], "a.aedat", false, "more"),
    ];
    for (bytes, name, at_end, expected) in cases {
        let found = probed(bytes, Some(name), *at_end);
        assert!(found.contains(expected), "{name}: {found}, not {expected}");
    }
    assert!(probed(&noise, None, true).contains("--format"));
    let error = probe::by_name("aedat9").map(|format| format.name).expect_err("no such format");
    for format in FORMATS {
        assert!(error.to_string().contains(format.name), "{error}");
    }
}

#[test]
fn files_to_be_written_are_named_by_their_extension() {
    assert_eq!(probe::for_writing("a/b.AEDAT").map(|format| format.name).ok(), Some("aedat2"));
    let error = probe::for_writing("a.npz").map(|format| format.name).expect_err("not written");
    assert!(error.to_string().contains(".aedat"), "{error}");
}

const SIZES: [Option<(u16, u16)>; 8] = [
    None,
    Some((35, 35)),
    Some((128, 128)),
    Some((240, 180)),
    Some((320, 240)),
    Some((346, 260)),
    Some((640, 480)),
    Some((1280, 720)),
];
const COMPRESSIONS: [Compression; 5] = [
    Compression::None,
    Compression::Lz4,
    Compression::Lz4High,
    Compression::Zstd,
    Compression::ZstdHigh,
];

/// Whether the format is nothing but events.
fn names_no_sensor(format: &Format) -> bool {
    matches!(format.name, "faery-t64" | "faery-t32" | "spif")
}

/// What an encoder wrote, or its refusal.
fn encoded(format: &Format, options: &EncoderOptions, batches: &[&[Event]]) -> Option<Vec<u8>> {
    let mut encoder = (format.encoder?)(options);
    let mut bytes = Vec::new();
    for batch in batches {
        encoder.encode(batch, &mut bytes).ok()?;
    }
    if let Some(patch) = encoder.finish(&mut bytes).ok()? {
        let at = patch.offset as usize;
        bytes[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
    Some(bytes)
}

#[test]
fn every_format_is_fuzzed_from_seeds() {
    for format in FORMATS {
        let name = format.name.replace('-', "_");
        let target = std::fs::read_to_string(format!("fuzz/fuzz_targets/{name}.rs"));
        assert!(target.is_ok_and(|text| text.contains(&format!("\"{}\"", format.name))), "{name}");
        let manifest = std::fs::read_to_string("fuzz/Cargo.toml").unwrap();
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is no target");
        let seeds = std::fs::read_dir(format!("fuzz/corpus/{name}"));
        assert!(seeds.is_ok_and(|mut seeds| seeds.next().is_some()), "{name} has no seeds");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_back_equal(
        size in 0..SIZES.len(),
        compression in 0..COMPRESSIONS.len(),
        // A first event after 71.6 minutes has no place in AEDAT 2.0.
        start_us in 0_u64..(1 << 32) - (3000 << 18),
        steps in prop::collection::vec((0_u64..3000, 0_u64..20, any::<u16>(), any::<u16>(), any::<bool>()), 0..200),
        cut in any::<prop::sample::Index>(),
    ) {
        let sensor = SIZES[size].map(|(width, height)| SensorSize { width, height });
        let (width, height) = SIZES[size].unwrap_or((128, 128));
        let mut t_us = start_us;
        let events: Vec<Event> = steps
            .iter()
            .map(|&(step, leap, x, y, on)| {
                // Now and then a pause of up to 18 minutes.
                t_us += if leap == 0 { step << 18 } else { step };
                Event { t_us, x: x % width, y: y % height, polarity: Polarity::from_on(on) }
            })
            .collect();
        let (first, second) = events.split_at(cut.index(events.len() + 1));
        let options = EncoderOptions { sensor, compression: COMPRESSIONS[compression] };
        for format in FORMATS.iter().filter(|format| format.encoder.is_some()) {
            let Some(bytes) = encoded(format, &options, &[first, second]) else {
                // AEDAT 2.0 lacks layouts of other sizes, AEDAT 4 must name one.
                let expected = match format.name {
                    "aedat2" => matches!(width, 320 | 1280),
                    "aedat4" | "dv" => sensor.is_none(),
                    _ => false,
                };
                prop_assert!(expected, "{} {sensor:?}", format.name);
                continue;
            };
            let mut decoder = fresh(format);
            let (found, end) = decode(&mut *decoder, &bytes, 4096, true);
            prop_assert_eq!(end, Ok(()), "{}", format.name);
            prop_assert!(found == events, "{} with {:?}", format.name, options);
            let size = if names_no_sensor(format) { None } else { sensor };
            prop_assert_eq!(decoder.sensor().size, size, "{}", format.name);
        }
    }
}

#[test]
fn events_that_a_format_cannot_hold_are_refused() {
    let event = Event { t_us: 0, x: 0, y: 0, polarity: Polarity::On };
    let refused = |sensor, event: Event| {
        let options = EncoderOptions { sensor, compression: Compression::None };
        let mut encoder = format("aedat2").encoder.expect("a writer")(&options);
        encoder.encode(&[event], &mut Vec::new()).err().map(|error| error.to_string())
    };
    assert_eq!(refused(None, event), None);
    for (sensor, event, expected) in [
        (None, Event { x: 128, ..event }, "(128, 0)"),
        (Some(SensorSize { width: 346, height: 260 }), Event { y: 512, ..event }, "(0, 512)"),
        (None, Event { t_us: 1 << 32, ..event }, "32 bits of time"),
        (Some(SensorSize { width: 320, height: 240 }), event, "320x240"),
    ] {
        let error = refused(sensor, event).expect(expected);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_source_that_sent_nothing_is_not_taken_for_an_empty_recording() {
    let bytes = std::fs::read("fixtures/formats/aedat3-sources.aedat").unwrap();
    let format = FORMATS.iter().find(|format| format.name == "aedat3").unwrap();
    let of = |source| {
        let options = DecoderOptions { stream_id: Some(source), ..DecoderOptions::default() };
        decode(&mut *(format.decoder)(&options), &bytes, usize::MAX, false)
    };
    let sources: Vec<i32> = (-1..100).filter(|&source| of(source).1.is_ok()).collect();
    assert_eq!(sources.len(), 2, "{sources:?}");
    let error = of(77).1.unwrap_err();
    assert!(error.contains("source 77 sent no events") && error.contains("--stream-id"), "{error}");
}

/// A chance word of another chip's layout looks like an event of a DVS128.
#[test]
fn a_recording_of_an_unnamed_chip_is_not_taken_for_a_dvs128s() {
    let words = |n_dvs: usize, n_wide: usize| {
        let wide = std::iter::repeat_n(0x0123_4400_u32, n_wide);
        let words = std::iter::repeat_n(0x0102_u32, n_dvs).chain(wide).zip(0_u32..);
        let header = b"#!AER-DAT2.0\r\n".iter().copied();
        header
            .chain(words.flat_map(|(address, t)| [address, t]).flat_map(u32::to_be_bytes))
            .collect()
    };
    for (n_dvs, n_wide, known) in [(3, 1000, false), (0, 1, false), (1000, 3, true), (3, 0, true)] {
        let bytes: Vec<u8> = words(n_dvs, n_wide);
        let mut decoder =
            (dvs_stream::codec::by_name("aedat2").unwrap().decoder)(&DecoderOptions::default());
        let mut events = Vec::new();
        decoder.feed(&bytes, &mut events).unwrap();
        let end = decoder.finish(&mut events);
        assert_eq!((events.len(), end.is_ok()), (n_dvs, known), "{n_dvs} and {n_wide}: {end:?}");
    }
}
