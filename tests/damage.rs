//! Damaged bytes: every tiny recording cut at every byte, and with every byte flipped.
//!
//! Never a panic, never much memory, and never silence about what was lost.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use dvs_stream::codec::{DecoderOptions, FORMATS, Format, Need, Tally, drop_malformed, probe};
use dvs_stream::event::Event;

const MAX_MEMORY_BYTES: usize = 64 << 20;
const MAX_FIXTURE_BYTES: usize = 2048;

/// The system's allocator, which counts what is held and remembers the most that ever was.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn took(n: usize) {
    let held = HELD.fetch_add(n, Ordering::Relaxed) + n;
    MOST.fetch_max(held, Ordering::Relaxed);
}

// An allocator cannot be written without `unsafe`; this one only counts beside the system's.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is passed on unchanged.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above; `memory` came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, n: usize) -> *mut u8 {
        took(n);
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, n) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn check_memory(after: &str) {
    let most = MOST.load(Ordering::Relaxed);
    assert!(most <= MAX_MEMORY_BYTES, "{most} bytes were held at once after {after}");
}

struct Fixture {
    name: String,
    format: &'static Format,
    bytes: Vec<u8>,
}

/// The recordings of a folder under `fixtures/`; a file is named after its format.
fn fixtures(folder: &str) -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("fixtures") {
        let path = entry.expect("an entry").path();
        let name =
            path.file_name().and_then(|name| name.to_str()).expect("a plain name").to_owned();
        let is_named = |format: &&Format| {
            name.strip_prefix(format.name).is_some_and(|rest| rest.starts_with(['-', '.']))
        };
        if let Some(format) = FORMATS.iter().find(is_named) {
            let bytes = std::fs::read(&path).expect("readable");
            assert!(bytes.len() <= MAX_FIXTURE_BYTES, "{name} is too long");
            found.push(Fixture { name, format, bytes });
        }
    }
    assert!(!found.is_empty());
    found
}

struct Outcome {
    events: Vec<Event>,
    tally: Tally,
    error: Option<String>,
    offset: Option<u64>,
}

fn decode(format: &Format, bytes: &[u8]) -> Outcome {
    let mut decoder = (format.decoder)(&DecoderOptions::default());
    let mut events = Vec::new();
    let end = decoder.feed(bytes, &mut events).and_then(|need| match need {
        Need::Nothing => Ok(()),
        _ => decoder.finish(&mut events),
    });
    drop_malformed(&mut events, 0);
    let error = end.err();
    let offset = error.as_ref().and_then(|error| error.offset());
    let error = error.map(|error| error.to_string());
    Outcome { events, tally: decoder.tally(), error, offset }
}

#[test]
fn a_recording_cut_anywhere_gives_what_came_before_and_says_so() {
    for folder in ["formats", "damaged"] {
        for Fixture { name, format, bytes } in fixtures(folder) {
            let whole = decode(format, &bytes);
            let clean = clean_cuts(format.name, &bytes);
            for n in 0..bytes.len() {
                let cut = decode(format, &bytes[..n]);
                assert!(whole.events.starts_with(&cut.events), "{name} cut at {n}: other events");
                let silent = cut.error.is_none() && !clean.contains(&n);
                // What breaks the whole may be that anything follows.
                let own = whole.offset == Some(n as u64);
                assert!(!silent || own, "{name} cut at {n}: not a word");
                check_error(&name, &cut);
            }
            check_memory(&name);
        }
    }
}

#[test]
fn a_flipped_byte_loses_nothing_in_silence() {
    for folder in ["formats", "damaged"] {
        for Fixture { name, format, bytes } in fixtures(folder) {
            let whole = decode(format, &bytes);
            for n in 0..bytes.len() {
                for flip in [0xFF, 0x01, 0x80] {
                    let mut damaged = bytes.clone();
                    damaged[n] ^= flip;
                    let found = decode(format, &damaged);
                    let told = found.error.is_some() || found.tally != whole.tally;
                    let silent = found.events.len() < whole.events.len() && !told;
                    assert!(!silent, "{name} with byte {n} ^ {flip:#x}: events lost, not a word");
                    check_error(&name, &found);
                }
            }
            check_memory(&name);
        }
    }
}

/// One line for people, of bounded length.
fn check_error(name: &str, outcome: &Outcome) {
    if let Some(error) = &outcome.error {
        let plain = !error.is_empty() && !error.contains('\n') && error.len() < 4096;
        assert!(plain, "{name}: `{error}`");
    }
}

/// Where a recording may end without a loss that could be known, found without its decoder.
fn clean_cuts(format: &str, bytes: &[u8]) -> Vec<usize> {
    let lines = header_lines(bytes);
    let data = lines.last().copied().unwrap_or(0);
    let every = |n: usize| {
        lines.iter().copied().chain((data..).step_by(n).take_while(|&k| k <= bytes.len()))
    };
    match format {
        "aedat1" => every(6).filter(|&k| k > 0).collect(),
        "aedat2" => every(8).collect(),
        "aedat3" => lines
            .iter()
            .copied()
            .chain(packets(bytes, data, 28, |head| Some(word(head, 4) * word(head, 16))))
            .collect(),
        "aedat4" => {
            let data = 18 + word(bytes, 14);
            let ends = packets(bytes, data, 8, |head| (word(head, 0) == 0).then(|| word(head, 4)));
            // The table holds no events.
            let table = ends.last().copied().unwrap_or(data);
            ends.into_iter().chain(table..bytes.len()).collect()
        }
        "dv" => packets(bytes, 4 + word(bytes, 0), 8, |head| Some(word(head, 4))),
        "nmnist" => (0..bytes.len()).step_by(5).collect(),
        "faery-t64" => (0..bytes.len()).step_by(13).collect(),
        "faery-t32" | "spif" => (0..bytes.len()).step_by(8).collect(),
        "npy" => Vec::new(),
        // After a line's end, or where the last of four columns is whole: a polarity is.
        "csv" => {
            let is_whole = |k: &usize| {
                let text = String::from_utf8_lossy(&bytes[..*k]).into_owned();
                let columns: Vec<&str> =
                    text.rsplit('\n').next().unwrap_or_default().trim_end().split(',').collect();
                text.ends_with('\n')
                    || text.contains('\n') && matches!(columns[..], [_, _, _, "0" | "1" | "-1"])
            };
            (1..bytes.len()).filter(is_whole).collect()
        }
        other => panic!("say where a {other} may be cut"),
    }
}

/// Ends of the header's lines: text that begins with `#`, up to the line that says it is the last.
fn header_lines(bytes: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while bytes.get(at) == Some(&b'#') {
        let Some(n) = bytes[at..].iter().position(|&byte| byte == b'\n') else { break };
        let line = &bytes[at..at + n];
        if line.iter().any(|&byte| byte < b' ' && byte != b'\r') {
            break;
        }
        at += n + 1;
        ends.push(at);
        if line.starts_with(b"#End Of ASCII Header") || line.starts_with(b"#!END-HEADER") {
            break;
        }
    }
    ends
}

/// Ends of packets from `at` on, whose headers of `n_head` bytes tell the length of what follows.
fn packets(
    bytes: &[u8],
    at: usize,
    n_head: usize,
    n_body: fn(&[u8]) -> Option<usize>,
) -> Vec<usize> {
    let mut ends = vec![at];
    let mut at = at;
    while let Some(n) = bytes.get(at..at + n_head).and_then(n_body) {
        at += n_head + n;
        ends.push(at);
    }
    ends
}

fn word(bytes: &[u8], at: usize) -> usize {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
        as usize
}

#[test]
fn headers_without_end_are_given_up() {
    let line = [b"# ".as_slice(), &[b'x'; 96], b"\r\n"].concat();
    for (format, mark, body) in [
        ("aedat1", "#!AER-DAT1.0\r\n", line.as_slice()),
        ("aedat2", "#!AER-DAT2.0\r\n", &line),
        ("aedat2", "#!AER-DAT2.0\r\n#", &[b'x'; 4096]),
        ("aedat3", "#!AER-DAT3.1\r\n", &line),
        ("aedat3", "#!AER-DAT3.1\r\n#", &[b'x'; 4096]),
    ] {
        let format = probe::by_name(format).expect("a format");
        let mut decoder = (format.decoder)(&DecoderOptions::default());
        decoder.feed(mark.as_bytes(), &mut Vec::new()).expect("a header's start");
        let error = (0..1 << 20).find_map(|_| decoder.feed(body, &mut Vec::new()).err());
        let error = error.expect("an end to patience").to_string();
        assert!(error.contains("header of more than"), "{}: {error}", format.name);
        check_memory(format.name);
    }
}

#[test]
fn any_bytes_are_survived_by_every_format() {
    let mut seed = 1_u32;
    let mut noise: Vec<u8> = Vec::new();
    for _ in 0..200 {
        noise.clear();
        noise.extend((0..500).map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        }));
        for format in FORMATS {
            check_error(format.name, &decode(format, &noise));
        }
    }
    check_memory("noise");
}
