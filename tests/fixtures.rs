//! The tiny recordings under `fixtures/`: as their makers make them, decoded to what they hold.
//!
//! `cargo test --test fixtures -- --ignored` writes them anew.

mod recordings;

use std::fmt::Write;
use std::path::PathBuf;

use dvs_stream::codec::{DecoderOptions, FORMATS, Format, Tally, drop_malformed, probe};
use dvs_stream::event::Event;
use recordings::Recording;
use sha2::{Digest, Sha256};

const HEAD: &str = "file,format,events,t,x,y,polarity,set_aside,error,what\n";

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn sets() -> [(&'static str, Vec<Recording>); 2] {
    [("formats", recordings::sound::recordings()), ("damaged", recordings::damaged::recordings())]
}

#[test]
fn each_decodes_to_what_its_maker_put_in() {
    for (set, recordings) in sets() {
        for recording in recordings {
            let (events, _, error) = decode(format_of(&recording), &recording.bytes);
            assert_eq!(events, recording.events, "{set}/{}: {error}", recording.file);
            let as_expected = match recording.error {
                "" => error.is_empty(),
                part => error.contains(part),
            };
            assert!(as_expected, "{set}/{}: ended with `{error}`", recording.file);
        }
    }
}

#[test]
fn each_stands_in_its_folder_and_manifest() {
    for (set, recordings) in sets() {
        for recording in &recordings {
            let stored = std::fs::read(folder(set).join(recording.file)).expect(recording.file);
            // Another version of a compressor may write other bytes of the same meaning.
            let same =
                stored == recording.bytes || matches!(format_of(recording).name, "aedat4" | "dv");
            assert!(same, "{set}/{} is not as it is made", recording.file);
            let (events, ..) = decode(format_of(recording), &stored);
            assert_eq!(events, recording.events, "{set}/{}", recording.file);
            assert!(stored.len() <= 2048, "{set}/{} is too long", recording.file);
        }
        let stored = std::fs::read_to_string(folder(set).join("MANIFEST.csv")).expect("a manifest");
        for line in manifest(&recordings).lines() {
            assert!(
                stored.lines().any(|stored| stored == line),
                "{set}: MANIFEST.csv lacks {line}"
            );
        }
    }
}

/// Rows are read in blocks, and one by one where a block holds a row that is no plain event.
#[test]
fn long_arrays_are_read_as_short_ones() {
    use recordings::{events, npy, rows};
    let events = events(700);
    let shape = "(700, 4)";
    let format = probe::by_name("npy").expect("a format");
    for (kind, data) in [
        ("'<i8'", rows(&events, i64::to_le_bytes)),
        ("'>i4'", rows(&events, |n| (n as i32).to_be_bytes())),
        ("'<f4'", rows(&events, |n| (n as f32).to_le_bytes())),
    ] {
        let (found, tally, error) = decode(format, &npy(kind, false, shape, &data));
        assert!(found == events && error.is_empty(), "{kind}: {error}");
        assert_eq!(tally, Tally::default(), "{kind}");
    }
    let mut damaged = rows(&events, i64::to_le_bytes);
    damaged[300 * 32..][..8].copy_from_slice(&i64::MIN.to_le_bytes());
    let (found, tally, error) = decode(format, &npy("'<i8'", false, shape, &damaged));
    assert!(found == [&events[..300], &events[301..]].concat() && error.is_empty(), "{error}");
    assert_eq!(tally.malformed, 1);
    damaged[400 * 32 + 24] = 7;
    let (found, _, error) = decode(format, &npy("'<i8'", false, shape, &damaged));
    assert_eq!(found.len(), 399);
    assert!(error.contains("row 400 has the polarity 7"), "{error}");
}

#[test]
#[ignore = "writes into fixtures/"]
fn write_anew() {
    for (set, recordings) in sets() {
        for recording in &recordings {
            std::fs::write(folder(set).join(recording.file), &recording.bytes)
                .expect(recording.file);
        }
        std::fs::write(folder(set).join("MANIFEST.csv"), manifest(&recordings)).expect("writable");
    }
}

fn decode(format: &Format, bytes: &[u8]) -> (Vec<Event>, Tally, String) {
    let mut decoder = (format.decoder)(&DecoderOptions::default());
    let mut events = Vec::new();
    let end = decoder.feed(bytes, &mut events).map(drop);
    let end = end.and_then(|()| decoder.finish(&mut events));
    drop_malformed(&mut events, 0);
    (events, decoder.tally(), end.map_or_else(|error| error.to_string(), |()| String::new()))
}

fn format_of(recording: &Recording) -> &'static Format {
    let is_named = |format: &&Format| {
        let rest = recording.file.strip_prefix(format.name);
        rest.is_some_and(|rest| rest.starts_with(['-', '.']))
    };
    FORMATS.iter().find(is_named).expect("a file is named after its format")
}

fn manifest(recordings: &[Recording]) -> String {
    let mut text = HEAD.to_owned();
    for recording in recordings {
        let (events, tally, error) = decode(format_of(recording), &recording.bytes);
        let Tally { malformed, frames, imu, external, invalid, other, .. } = tally;
        let n_aside = malformed + frames + imu + external + invalid + other;
        let [t, x, y, polarity] = digests(&events);
        let name = format_of(recording).name;
        writeln!(
            text,
            "{},{name},{},{t},{x},{y},{polarity},{n_aside},\"{error}\",{}",
            recording.file,
            events.len(),
            recording.what
        )
        .expect("text");
    }
    text
}

/// The first 16 hexadecimal digits of the SHA-256 of each field, little endian.
fn digests(events: &[Event]) -> [String; 4] {
    let digest = |bytes: Vec<u8>| {
        Sha256::digest(&bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    [
        digest(events.iter().flat_map(|event| event.t_us.to_le_bytes()).collect()),
        digest(events.iter().flat_map(|event| event.x.to_le_bytes()).collect()),
        digest(events.iter().flat_map(|event| event.y.to_le_bytes()).collect()),
        digest(events.iter().map(|event| event.polarity as u8).collect()),
    ]
}
