//! Real recordings, read in place, beside the `aedat` crate's own reader. Skipped where absent.

use crate::{read, read_all_ways};
use dvs_stream::codec::DecoderOptions;
use dvs_stream::event::{Event, Polarity, SensorSize};
use std::path::{Path, PathBuf};

fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("DVS_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    present(root.join("data/aedat4").join(name))
}

/// The recording that the `aedat` crate ships, where cargo has unpacked it.
fn of_the_crate() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))?;
    let registries = std::fs::read_dir(home.join("registry/src")).ok()?;
    let mut paths = registries.flatten().map(|r| r.path().join("aedat-1.3.3/test_data.aedat4"));
    present(paths.find(|path| path.exists()).unwrap_or_default())
}

fn present(path: PathBuf) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path);
    }
    crate::skip::skip(&format!("no recording at {}", path.display()));
    None
}

/// What the crate's reader and its verifying accessor say of stream 0, and how many packets of
/// frames, inertial samples and triggers there are.
fn by_the_crate(path: &Path) -> (Vec<Event>, [u64; 3]) {
    use aedat::base::StreamContent::{Events, Frame, Imus, Triggers};
    use aedat::events_generated::size_prefixed_root_as_event_packet as verified;
    let (mut events, mut counts) = (Vec::new(), [0; 3]);
    let mut decoder = aedat::base::Decoder::new_from_file(path).unwrap();
    while let Some(packet) = decoder.next() {
        let packet = packet.unwrap();
        match decoder.id_to_stream[&packet.stream_id].content {
            Events => {}
            Frame => counts[0] += 1,
            Imus => counts[1] += 1,
            Triggers => counts[2] += 1,
        }
        if packet.stream_id == 0 {
            let structs = verified(&packet.buffer).unwrap().elements().unwrap();
            events.extend(structs.iter().map(|e| Event {
                t_us: e.t() as u64,
                x: e.x() as u16,
                y: e.y() as u16,
                polarity: Polarity::from_on(e.on()),
            }));
        }
    }
    (events, counts)
}

/// Equal to the crate reader in everything that both say.
fn check(path: &Path, n_events: usize, sensor: [u16; 2], n_frames: u64) -> Vec<Event> {
    let bytes = std::fs::read(path).unwrap();
    let read = read_all_ways(&bytes, &DecoderOptions::default(), &[1, 7, 4096, 1 << 18]);
    assert_eq!(read.error, None);
    assert_eq!(read.events.len(), n_events, "{}", path.display());
    let (events, counts) = by_the_crate(path);
    assert!(read.events == events, "{}", path.display());
    let [width, height] = sensor;
    assert_eq!(read.sensor.size, Some(SensorSize { width, height }));
    assert_eq!([read.tally.frames, read.tally.imu, read.tally.external], counts);
    assert_eq!(counts[0], n_frames);
    read.events
}

#[test]
fn one_clip_in_five_compressions_is_the_same_events() {
    let mut first = None;
    for name in ["none", "lz4", "lz4_high", "zstd", "zstd_high"] {
        let Some(path) = shared(&format!("dvxplorer_{name}.aedat4")) else { continue };
        let events = check(&path, 111_954, [320, 240], 0);
        assert!(*first.get_or_insert_with(|| events.clone()) == events, "{name}");
    }
}

#[test]
fn a_davis_recording_gives_its_events_and_counts_the_rest() {
    if let Some(path) = shared("aestream_davis.aedat4") {
        check(&path, 117_667, [346, 260], 3);
    }
}

#[test]
fn a_recording_of_mostly_frames_gives_its_events_also_when_cut() {
    let Some(path) = of_the_crate() else { return };
    let events = check(&path, 78_830, [346, 260], 59);
    let first = Event { t_us: 1_589_163_147_368_868, x: 215, y: 164, polarity: Polarity::On };
    assert_eq!(events[0], first);
    let bytes = std::fs::read(&path).unwrap();
    let cut = read(&bytes[..3_000_003]);
    assert!(cut.events == events[..39_307]);
    let error = cut.error.unwrap();
    assert!(error.contains(" ends after ") && error.contains("packet at byte 2,9"), "{error}");
}

/// Where the flatbuffer library puts the table of a packet.
const TABLE_AT: usize = 20;

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Our walk of the flatbuffer against the crate's verifier: whatever byte is wrong, what the
/// verifier lets pass is read alike, unless it leaves bytes that belong to no event.
#[test]
fn the_walk_agrees_with_the_schemas_accessor_on_wrong_bytes() {
    use crate::files::{opening, packet, payload, stream};
    use aedat::events_generated::size_prefixed_root_as_event_packet as verified;
    let good = payload(&[(1, 2, 3, true), (4, 5, 6, false), (7, 8, 9, true)]);
    let head = opening(0, -1, &[stream(0, "EVTS", None)]);
    let mut n_accepted = 0;
    // the verifier does not look at the size before the flatbuffer and at the identifier
    let unseen = [0..4, 8..12];
    for at in (0..good.len()).filter(|at| !unseen.iter().any(|range| range.contains(at))) {
        for wrong in 0..=255 {
            let mut bytes = good.clone();
            bytes[at] = wrong;
            let Ok(root) = verified(&bytes) else { continue };
            let structs = root.elements().map(|elements| elements.to_vec()).unwrap_or_default();
            let read = read(&[&head[..], &packet(0, &bytes)].concat());
            if let Some(error) = read.error {
                // nor does it mind a table of offsets that begins in the size before it
                let vtable_at = TABLE_AT as i64 - i64::from(i32_at(&bytes, TABLE_AT));
                let is_ours = error.contains("belong to no event") || vtable_at < 4;
                assert!(is_ours, "{at} {wrong}: {error}");
                continue;
            }
            n_accepted += 1;
            let expected: Vec<_> = structs
                .iter()
                .filter(|e| e.t() >= 0)
                .map(|e| (e.t() as u64, e.x() as u16, e.y() as u16, e.0[12] != 0))
                .collect();
            let found: Vec<_> = read
                .events
                .iter()
                .map(|e| (e.t_us, e.x, e.y, e.polarity == Polarity::On))
                .collect();
            assert_eq!(found, expected, "{at} {wrong}");
        }
    }
    assert!(n_accepted > 10_000, "{n_accepted}");
}
