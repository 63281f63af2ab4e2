//! What every format must do, whichever it is, and what real recordings are known to hold.

use std::path::PathBuf;

use dvs_stream::codec::{Decoder, DecoderOptions, FORMATS, Format, Need};
use dvs_stream::event::{Event, Polarity};

/// Real recordings, which are no part of the project; `None` where they are absent.
fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("DVS_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")),
        PathBuf::from,
    );
    let path = root.join("data").join(path);
    if !path.exists() {
        eprintln!("SKIPPED: {} is absent", path.display());
        return None;
    }
    Some(path)
}

fn format(name: &str) -> &'static Format {
    FORMATS.iter().find(|format| format.name == name).expect("a known format")
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
