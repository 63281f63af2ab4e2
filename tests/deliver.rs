//! What nc, faery, AEStream and dv-processing deliver to a real server reads as its replay.
//!
//! A peer that is not there is said so in a line: Debian's netcat-openbsd has nc,
//! `tests/interop/setup.sh` brings the others. What they deliver is the deck, and the real
//! recordings where there are some.

mod peers;
mod server;
mod skip;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use dvs_stream::event::{Event, SensorSize};
use peers::python;
use serde_json::Value;
use server::events::{DECK, decoded, written};
use server::{Server, nameless, records, replay};
use skip::skip;

/// AEStream and faery send as fast as they can, and the kernel may drop.
const ATTEMPTS: usize = 5;
/// Events of a datagram of faery's.
const FAERY_EVENTS: u64 = 100;
/// Events with times of a full datagram of AEStream's.
const AESTREAM_EVENTS: u64 = 32;

/// A recording to be delivered.
struct Recording {
    path: PathBuf,
    sensor: SensorSize,
    events: Vec<Event>,
}

impl Recording {
    fn read(path: PathBuf) -> Recording {
        let (events, sensor) = decoded(&path);
        // POKER-DVS and others of AEDAT 2.0 are a DVS128's.
        let sensor = sensor.unwrap_or(SensorSize { width: 128, height: 128 });
        Recording { path, sensor, events }
    }

    /// What its replay prints where times begin in the first round of 32 bits.
    fn replayed_low(&self, folder: &Path) -> String {
        let rounds = self.events[0].t_us >> 32 << 32;
        let low = |event: &Event| Event { t_us: event.t_us - rounds, ..*event };
        let low: Vec<Event> = self.events.iter().map(low).collect();
        replay(&written(folder, "low.aedat4", &low, self.sensor), &["--scale"])
    }
}

/// The deck, compressed as every peer reads it, and the real recordings of these names.
fn recordings(folder: &Path, names: &[&str]) -> Vec<Recording> {
    let (events, sensor) = decoded(Path::new(DECK));
    let deck = written(folder, "deck.aedat4", &events, sensor.unwrap());
    let shared = std::env::var_os("DVS_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let data = shared.join("data");
    let real: Vec<PathBuf> = names.iter().map(|name| data.join(name)).collect();
    let (real, absent): (Vec<_>, Vec<_>) = real.into_iter().partition(|path| path.exists());
    for path in absent {
        skip(&format!("a real recording: there is no {}", path.display()));
    }
    [deck].into_iter().chain(real).map(Recording::read).collect()
}

/// Whether there is an nc that ends a connection when its input does.
fn has_nc() -> bool {
    let help = Command::new("nc").arg("-h").output();
    // Another netcat has neither -N nor -U.
    let has = help.is_ok_and(|o| String::from_utf8_lossy(&o.stderr).contains("[-46CDdFhklNnrStUu"));
    if !has {
        skip("nc delivers nothing: there is none of OpenBSD's (Debian's netcat-openbsd)");
    }
    has
}

fn end(what: &str, output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn nc_over_tcp_and_unix() {
    if !has_nc() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket").display().to_string();
    let server = Server::start(&["--port", "0", "--unix", &socket, "--scale"], 2);
    let real = [
        "aedat2/dvs128_walking.aedat",
        "aedat2/davis240c_boxes.aedat",
        "aedat4/aestream_davis.aedat4",
        "aedat4/dvxplorer_none.aedat4",
        "aedat4/dvxplorer_zstd.aedat4",
    ];
    let ways = [vec!["-N", "127.0.0.1", server.port("tcp")], vec!["-NU", &socket]];
    for Recording { path, events, .. } in recordings(folder.path(), &real) {
        let expected = nameless(&replay(&path, &["--scale"]));
        for way in &ways {
            let file = std::fs::File::open(&path).unwrap();
            let output = Command::new("nc").args(way).stdin(file).output().unwrap();
            let lines = end("nc", &output);
            assert!(nameless(&lines) == expected, "nc {way:?} of {}", path.display());
        }
        eprintln!("equal: {} events of {} by nc", events.len(), path.display());
    }
}

/// What faery is to do with a recording.
fn faery(python: &Path, recording: &Path, output: &[&str]) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "faery", "input", "file"]).arg(recording).arg("output").args(output);
    command
}

const FAERY: [&str; 2] = ["aedat4/aestream_davis.aedat4", "aedat4/dvxplorer_lz4.aedat4"];

#[test]
fn faery_over_tcp_by_nc() {
    let Some(python) = python(&["faery"]) else { return };
    if !has_nc() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&["--port", "0", "--scale"], 1);
    for Recording { path, events, .. } in recordings(folder.path(), &FAERY) {
        let mut faery = faery(&python, &path, &["stdout"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut nc = Command::new("nc");
        nc.args(["-N", "127.0.0.1", server.port("tcp")]).stdin(faery.stdout.take().unwrap());
        let lines = end("nc", &nc.output().unwrap());
        assert!(faery.wait().unwrap().success());
        assert_eq!(nameless(&lines), nameless(&replay(&path, &["--scale"])));
        eprintln!("equal: {} events of {} by faery and nc", events.len(), path.display());
    }
}

/// What a sender of datagrams brought.
struct Received {
    lines: String,
    /// Datagrams that the kernel dropped.
    dropped: u64,
}

/// Has a sender send to a server of its own, until the stream has ended for silence.
fn datagrams(format: &str, sensor: SensorSize, send: impl Fn(&str) -> Command) -> Received {
    let sensor = sensor.to_string();
    let udp = format!("0={format}");
    let flags = ["--udp", &udp, "--http", "0", "--scale", "--sensor", &sensor];
    let mut server = Server::start(&[&flags[..], &["--idle-timeout", "2s"]].concat(), 2);
    end(format, &send(server.port("udp")).output().unwrap());
    let lines = server.until_summary();
    let metrics = server.metrics();
    let dropped = metrics.sum("dvs_datagrams_lost_total", &[]);
    let late = metrics.sum("dvs_events_lost_total", &["reason=\"overflow\""]);
    assert_eq!(server.terminate(), "", "one sender is one stream");
    Received { lines, dropped: dropped + late }
}

/// Sends again where the kernel dropped some, which no server can help; what is missing must be
/// stated.
fn undropped(
    peer: &str,
    n: usize,
    most_a_datagram: u64,
    send: impl Fn() -> Received,
) -> Option<String> {
    for _ in 0..ATTEMPTS {
        let Received { lines, dropped } = send();
        if dropped == 0 {
            return Some(lines);
        }
        let summary = records(&lines, "summary").next().unwrap();
        let missing = n as u64 - summary["events"].as_u64().unwrap().min(n as u64);
        assert!(missing <= dropped * most_a_datagram, "{peer}: {missing} events are missing");
    }
    skip(&format!(
        "{peer}: the kernel dropped datagrams each of {ATTEMPTS} times; raise net.core.rmem_max"
    ));
    None
}

#[test]
fn faery_over_udp() {
    let Some(python) = python(&["faery"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    for recording in recordings(folder.path(), &FAERY) {
        let Recording { path, sensor, events } = &recording;
        let plain = replay(path, &["--scale"]);
        let low = recording.replayed_low(folder.path());
        for (layout, format, expected) in
            [("t64_x16_y16_on8", "faery-t64", plain), ("t32_x16_y15_on1", "faery-t32", low)]
        {
            let send = |port: &str| {
                let address = format!("127.0.0.1:{port}");
                faery(&python, path, &["udp", &address, "--format", layout, "--no-progress"])
            };
            let received = || datagrams(format, *sensor, send);
            let Some(lines) = undropped("faery", events.len(), FAERY_EVENTS, received) else {
                continue;
            };
            assert!(nameless(&lines) == nameless(&expected), "{format} of {}", path.display());
            eprintln!("equal: {} events of {} by faery", events.len(), path.display());
        }
    }
}

#[test]
fn aestream_over_udp() {
    let Some(python) = python(&["aestream"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    for recording in recordings(folder.path(), &FAERY) {
        let Recording { path, sensor, events } = &recording;
        let send = |timed: &str, port: &str| {
            let mut command = Command::new(python.with_file_name("aestream"));
            command.args(["input", "file"]).arg(path).args(["output", "udp", "127.0.0.1", port]);
            command.args(["--include-timestamp", timed]);
            command
        };
        let n = events.len() as u64;
        let received = || datagrams("spif", *sensor, |port| send("true", port));
        if let Some(lines) = undropped("AEStream", events.len(), AESTREAM_EVENTS, received) {
            // Its last datagram is twice as long as what it has to say: events of the one before
            // follow, and beyond a full datagram whatever words were in its memory.
            let stale = n % AESTREAM_EVENTS;
            let words = (4 * stale).saturating_sub(2 * AESTREAM_EVENTS);
            let summary = records(&lines, "summary").next().unwrap();
            let malformed = summary["losses"]["malformed"].as_u64().unwrap();
            assert!((stale..=stale + words / 2).contains(&malformed), "{malformed}, {stale}");
            assert_eq!(summary["events"], n + malformed);
            let expected = recording.replayed_low(folder.path());
            assert_eq!(lossless(&lines), lossless(&expected), "{}", path.display());
            eprintln!("equal: {n} events of {} by AEStream", path.display());
        }
        // Without times they have those of their arrival; all of them come.
        let received = || datagrams("spif", *sensor, |port| send("false", port));
        if let Some(lines) = undropped("AEStream", events.len(), 128, received) {
            let summary = records(&lines, "summary").next().unwrap();
            assert_eq!(summary["events"], n);
            assert_eq!(summary["losses"]["malformed"], 0);
        }
    }
}

/// Predictions and segments without what they say of losses.
fn lossless(lines: &str) -> Vec<Value> {
    let mut kept: Vec<Value> = records(lines, "prediction").collect();
    kept.extend(records(lines, "segment"));
    for record in &mut kept {
        record["stream"] = "-".into();
        record.as_object_mut().unwrap().remove("losses");
    }
    kept
}

#[test]
fn dv_processing_is_dialled() {
    let Some(python) = python(&["dv_processing"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/serve_dv.py");
    let real = ["aedat4/dvxplorer_lz4.aedat4", "aedat4/aestream_davis.aedat4"];
    for (k, recording) in recordings(folder.path(), &real).into_iter().enumerate() {
        let Recording { path, sensor, mut events } = recording;
        // As the script does, which tells that all others have come.
        let last = events[events.len() - 1];
        events.push(Event { t_us: last.t_us + 1_000_000, ..last });
        let expected = replay(&written(folder.path(), "as-sent", &events, sensor), &["--scale"]);
        for socket in [None, Some(folder.path().join(format!("dv-{k}")))] {
            let mut command = Command::new(&python);
            command.arg(&script).arg(&path).args(socket);
            let mut writer = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut url = String::new();
            BufReader::new(writer.stdout.take().unwrap()).read_line(&mut url).unwrap();
            let flags = ["--connect", url.trim_end(), "--scale", "--overflow", "dv=wait"];
            let mut server = Server::start(&flags, 0);
            let mut lines: String = expected.lines().skip(1).map(|_| server.line()).collect();
            drop(writer.stdin.take());
            lines += &server.until_summary();
            assert!(writer.wait().unwrap().success());
            assert!(nameless(&lines) == nameless(&expected), "{} at {url}", path.display());
            assert_eq!(server.terminate(), "");
        }
        eprintln!("equal: {} events of {} by dv-processing", events.len(), path.display());
    }
}
