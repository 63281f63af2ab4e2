//! States of named streams: a stream that is cut and comes back goes on bit for bit, over a real
//! server and real sockets, whatever ended it; and what cannot be used is said and not used.

mod server;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use dvs_stream::model::Model;
use dvs_stream::serve::Snapshot;
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;
use server::{PATIENCE, PROGRAM, Server};

/// A server that writes states at the ends of streams, and when it is asked.
fn start(folder: &Path, flags: &[&str]) -> Server {
    start_in("exec", folder, &[&["--snapshot-every", "0s"], flags].concat())
}

/// One whose shell says something first.
fn start_in(shell: &str, folder: &Path, flags: &[&str]) -> Server {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{shell} \"$@\""), "sh", PROGRAM, "serve"]);
    command.args(["--port", "0", "--http", "0", "--state-dir"]).arg(folder).args(flags);
    Server::run(command.stderr(Stdio::piped()), 2)
}

impl Server {
    /// Opens a named stream and sends bytes.
    fn send(&self, name: &str, bytes: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        writeln!(stream, "dvs-stream {{\"stream\":\"{name}\"}}").unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }

    /// Opens a named stream, sends bytes and the end, and gives all records; once the stream that
    /// had the name before is gone.
    fn say(&self, name: &str, bytes: &[u8]) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let mut sender = self.connect();
            let reader = sender.try_clone().unwrap();
            let (first, bytes) =
                (format!("dvs-stream {{\"stream\":\"{name}\"}}\n"), bytes.to_vec());
            let sending = thread::spawn(move || {
                // A server that refuses does not read all.
                let _ = sender.write_all(first.as_bytes()).and_then(|()| sender.write_all(&bytes));
                let _ = sender.shutdown(Shutdown::Write);
            });
            let lines = rest_of(reader);
            sending.join().unwrap();
            if !lines.iter().any(|line| line.contains("open already")) {
                return lines;
            }
            assert!(begun.elapsed() < PATIENCE, "{lines:?}");
        }
    }

    fn metric(&self, series: &str) -> f64 {
        let text = self.request("GET /metrics", "").1;
        let line = text.lines().find(|line| line.starts_with(&format!("{series} ")));
        line.expect(series).rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn snapshots(&self, result: &str) -> f64 {
        self.metric(&format!("dvs_snapshots_total{{result=\"{result}\"}}"))
    }

    /// Waits until so many states are written.
    fn written(&self, n: usize) {
        until(|| self.snapshots("written") == n as f64);
    }

    /// Sends SIGTERM and gives what it has complained about, but that events lie outside: some do.
    fn end(self) -> String {
        self.signal("-TERM");
        let (code, out, err) = self.ended();
        assert_eq!((code, out.as_str()), (Some(0), ""));
        let others = err.lines().filter(|line| !line.contains("outside the model's sensor"));
        others.map(|line| format!("{line}\n")).collect()
    }
}

fn rest_of(stream: impl Read) -> Vec<String> {
    server::rest_of(stream).lines().map(str::to_owned).collect()
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

/// What `replay` prints of a recording that is called `name`.
fn replay(name: &str, bytes: &[u8], flags: &[&str]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recording");
    std::fs::write(&path, bytes).unwrap();
    let output = Command::new(PROGRAM)
        .args(["replay", "-q", "--output", "jsonl", path.to_str().unwrap()])
        .args(flags)
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| line.replace(path.to_str().unwrap(), name)).collect()
}

const HEADER: &[u8] = b"#!AER-DAT2.0\r\n# End of ASCII Header\r\n";

/// AEDAT 2.0: bursts of 20 ms with silences between that end a segment or not, some events
/// outside of the sensor or late; the 32-bit clock runs over in the middle.
fn events(seed: u32) -> Vec<[u8; 8]> {
    let mut events = Vec::new();
    let mut t: u32 = 0xFFFF_5000;
    for burst in 0..5 {
        for k in 0..300_u32 {
            let (x, y) = ((k * 7 + burst + seed) % 36, (k * 5 + seed) % 35);
            let late = if k % 50 == 49 { 1500 } else { 0 };
            t = t.wrapping_add(61 + seed);
            let (address, time) = (y << 8 | x << 1 | (k % 2), t.wrapping_sub(late));
            let word = u64::from(address) << 32 | u64::from(time);
            events.push(word.to_be_bytes());
        }
        t = t.wrapping_add([500, 1500, 7000, 12_345][burst as usize % 4]);
    }
    events
}

/// A recording of these events.
fn recording(events: &[[u8; 8]]) -> Vec<u8> {
    [HEADER, events.as_flattened()].concat()
}

/// The first part told of the whole what the second does not, and then what its end tells.
fn check_goes_on(part: &[String], rest: &[String], whole: &[String], what: &str) {
    let before = whole.len().saturating_sub(rest.len());
    check_equal(rest, &whole[before..], &format!("{what}, second part"));
    assert!(part.len() >= before, "{what}: {} lines, {before} expected", part.len());
    check_equal(&part[..before], &whole[..before], &format!("{what}, first part"));
    // At most the unfinished window, the segment that it ends, its own and the summary.
    let end = &part[before..];
    assert!((1..=4).contains(&end.len()), "{what}: {end:#?}");
    assert_eq!(json(end.last().unwrap())["type"], "summary", "{what}");
}

/// Names the first line that differs.
fn check_equal(told: &[String], expected: &[String], what: &str) {
    for (k, (told, expected)) in told.iter().zip(expected).enumerate() {
        assert_eq!(told, expected, "{what}, line {k}");
    }
    assert_eq!(told.len(), expected.len(), "{what}");
}

fn state_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.dvs-state"))
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Looks until it is so.
fn until(mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE);
        thread::yield_now();
    }
}

/// Numbers of events before which the first is alone in its window, so that its arrival is told
/// by the prediction of the window before.
fn edges(events: &[[u8; 8]]) -> Vec<(usize, usize)> {
    let lines = |n: usize| replay("cam", &recording(&events[..n]), &["--partial", "drop"]).len();
    let mut edges = Vec::new();
    let mut n = 200;
    while edges.len() < 2 {
        // Segment and summary come at the end only.
        let (before, after) = (lines(n - 1), lines(n));
        if after == before + 1 {
            edges.push((n, after - 2));
            n += 200;
        }
        n += 1;
    }
    edges
}

/// Reads so many lines.
fn lines_of(reader: &mut impl BufRead, n: usize) -> Vec<String> {
    let line = |_| {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    (0..n).map(line).collect()
}

#[test]
fn a_stream_that_comes_back_goes_on_wherever_it_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), &[]);
    let events = events(0);
    let whole = |name: &str| replay(name, &recording(&events), &[]);
    assert!(whole("cam").len() > 60);
    let cuts = [0, 1, 2, 17, 299, 300, 301, 449, 450, 599, 600, 601, 1003, 1499, 1500];
    for cut in cuts {
        let name = format!("cam-{cut}");
        let part = server.say(&name, &recording(&events[..cut]));
        assert_eq!(part, replay(&name, &recording(&events[..cut]), &[]), "{cut}");
        let rest = server.say(&name, &recording(&events[cut..]));
        check_goes_on(&part, &rest, &whole(&name), &name);
        assert_eq!(server.metric(&format!("dvs_restarts_total{{stream=\"{name}\"}}")), 0.0);
        let received = format!("dvs_events_received_total{{stream=\"{name}\"}}");
        assert_eq!(server.metric(&received), events.len() as f64, "{name}");
    }
    // In four parts, by three readouts that remember.
    assert_eq!(server.snapshots("resumed"), cuts.len() as f64);
    assert_eq!(server.end(), "");
    for readout in ["mean", "ema:3ms", "max:5ms"] {
        let server = start(folder.path(), &["-q", "--readout", readout]);
        let whole = replay(readout, &recording(&events), &["--readout", readout]);
        let name = readout.replace(':', "-");
        let whole: Vec<String> = whole.iter().map(|line| line.replace(readout, &name)).collect();
        let is = |line: &String, kind: &str| json(line)["type"] == kind;
        // Of a window that a part left unfinished, what the next one tells counts.
        let mut told: Vec<String> = Vec::new();
        for part in events.chunks(400) {
            let lines = server.say(&name, &recording(part));
            let first = json(lines.iter().find(|line| is(line, "prediction")).unwrap());
            told.retain(|line| {
                !(is(line, "prediction") && json(line)["window"] == first["window"])
            });
            told.extend(lines);
        }
        assert_eq!(told.last(), whole.last());
        let predictions = |lines: &[String]| -> Vec<String> {
            lines.iter().filter(|line| is(line, "prediction")).cloned().collect()
        };
        assert_eq!(predictions(&told), predictions(&whole), "{readout}");
        server.end();
    }
}

#[test]
fn whatever_ends_a_stream_its_state_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let events = events(1);
    let whole = replay("cam", &recording(&events), &[]);
    for (cut, told) in edges(&events) {
        // A connection that is reset.
        let whole_of = |name: &str| replay(name, &recording(&events), &[]);
        let (reset, whole) = (format!("reset-{cut}"), whole_of(&format!("reset-{cut}")));
        let server = start(folder.path(), &[]);
        let stream = server.send(&reset, &recording(&events[..cut]));
        let mut reader = BufReader::new(stream);
        let part = lines_of(&mut reader, told);
        assert_eq!(part, whole[..told]);
        setsockopt(reader.get_ref(), sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
        drop(reader);
        let rest = server.say(&reset, &recording(&events[cut..]));
        check_equal(&rest, &whole[told..], &reset);

        // The end of the server, which another takes the place of.
        let (name, whole) = (format!("cam-{cut}"), whole_of(&format!("cam-{cut}")));
        let stream = server.send(&name, &recording(&events[..cut]));
        let mut reader = BufReader::new(stream);
        let mut part = lines_of(&mut reader, told);
        assert_eq!(server.end(), "");
        part.extend(reader.lines().map(Result::unwrap));
        let server = start(folder.path(), &[]);
        let rest = server.say(&name, &recording(&events[cut..]));
        check_goes_on(&part, &rest, &whole, "SIGTERM");
        check_equal(&rest, &whole[told..], &name);
        assert_eq!(server.metric(&format!("dvs_restarts_total{{stream=\"{name}\"}}")), 0.0);
        assert_eq!(server.snapshots("resumed"), 1.0);
        assert_eq!(server.end(), "");
    }
    // An event that is cut short, damage, and silence.
    let server = start(folder.path(), &["--idle-timeout", "100ms"]);
    let cut = 777;
    let mut short = recording(&events[..cut + 1]);
    short.truncate(short.len() - 3);
    let part = server.say("cam", &short);
    assert!(part.iter().any(|line| line.contains("\"type\":\"error\"")));
    let rest = server.say("cam", &recording(&events[cut..]));
    let part: Vec<String> = part.into_iter().filter(|line| !line.contains("\"error\"")).collect();
    check_goes_on(&part, &rest, &whole, "cut short");

    let whole = replay("still", &recording(&events), &[]);
    let mut part = rest_of(server.send("still", &recording(&events[..cut])));
    part.retain(|line| json(line)["type"] != "error");
    let rest = server.say("still", &recording(&events[cut..]));
    check_goes_on(&part, &rest, &whole, "silent");
    server.end();
}

/// After a kill a stream goes on from its last state: as if what came after it had never been.
fn check_killed(every: &str, keep: impl Fn(&Server, &Path, usize)) {
    let folder = tempfile::tempdir().unwrap();
    let events = events(2);
    let (kept, told) = edges(&events)[0];
    let lost = 600;
    let mut server = start_in("exec", folder.path(), &["--snapshot-every", every]);
    let mut stream = server.send("cam", &recording(&events[..kept]));
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let part = lines_of(&mut reader, told);
    keep(&server, folder.path(), kept);
    if every == "0s" {
        stream.write_all(events[kept..lost].as_flattened()).unwrap();
        lines_of(&mut reader, 3);
    }
    assert_eq!(server.exit("-KILL"), None);

    let server = start(folder.path(), &[]);
    let without = [&events[..kept], &events[lost..]].concat();
    let whole = replay("cam", &recording(&without), &[]);
    assert_eq!(part, whole[..told]);
    let mut rest = server.say("cam", &recording(&events[lost..]));
    let last = rest.last_mut().unwrap();
    assert_eq!(json(last)["restarts"], 1);
    *last = last.replace("\"restarts\":1", "\"restarts\":0");
    check_equal(&rest, &whole[told..], "after the kill");
    assert_eq!(server.metric("dvs_restarts_total{stream=\"cam\"}"), 1.0);
    assert_eq!(server.metric("dvs_events_received_total{stream=\"cam\"}"), 900.0);
    // What has ended well since goes on without another restart.
    let rest = server.say("cam", &recording(&events[1400..]));
    assert_eq!(json(rest.last().unwrap())["restarts"], 1);
    assert_eq!(server.end(), "");
}

#[test]
fn after_a_kill_a_stream_goes_on_from_what_was_asked_for() {
    check_killed("0s", |server, _, _| {
        let (status, body) = server.request("POST /v1/snapshot", "");
        assert_eq!((status, body.as_str()), (200, "{\"streams\":1,\"written\":1}\n"));
    });
}

#[test]
fn after_a_kill_a_stream_goes_on_from_what_was_kept_from_time_to_time() {
    check_killed("100ms", |_, folder, kept| {
        let counted = || {
            let bytes = std::fs::read(state_file(folder, "cam")).ok()?;
            let snapshot = Snapshot::from_bytes(&bytes).unwrap().unwrap();
            assert!(!snapshot.ended);
            Some(snapshot.ingest.windower.place.totals().events)
        };
        until(|| counted() == Some(kept as u64));
    });
}

#[test]
fn what_is_killed_as_soon_as_it_goes_on_is_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let events = events(11);
    let mut server = start(folder.path(), &[]);
    let whole = replay("cam", &recording(&[&events[..500], &events[700..]].concat()), &[]);
    let part = server.say("cam", &recording(&events[..500]));
    let open = server.send("cam", &recording(&events[500..700]));
    lines_of(&mut BufReader::new(&open), 2);
    server.written(3);
    assert_eq!(server.exit("-KILL"), None);
    drop(open);
    let server = start(folder.path(), &[]);
    let mut rest = server.say("cam", &recording(&events[700..]));
    let last = rest.last_mut().unwrap();
    *last = last.replace("\"restarts\":1", "\"restarts\":0");
    check_goes_on(&part, &rest, &whole, "killed");
    assert_eq!(server.metric("dvs_restarts_total{stream=\"cam\"}"), 1.0);
    assert_eq!(server.end(), "");
}

#[test]
fn a_stream_that_does_not_want_to_go_on_starts_afresh() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), &[]);
    let bytes = recording(&events(12)[..700]);
    server.say("cam", &bytes);
    let mut again = server.connect();
    again.write_all(b"dvs-stream {\"stream\":\"cam\",\"resume\":false}\n").unwrap();
    again.write_all(&bytes).unwrap();
    again.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest_of(again), replay("cam", &bytes, &[]));
    assert_eq!(server.snapshots("resumed"), 0.0);
    assert_eq!(server.end(), "");
}

#[test]
fn a_damaged_state_is_said_and_the_stream_starts_afresh() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), &[]);
    let events = events(3);
    let bytes = recording(&events[..500]);
    let fresh = replay("cam", &bytes, &[]);
    server.say("cam", &bytes);
    server.written(2);
    let path = state_file(folder.path(), "cam");
    let whole = std::fs::read(&path).unwrap();
    let mut damages: Vec<Vec<u8>> =
        [0, 5, 200, whole.len() / 2, whole.len() - 1].map(|n| whole[..n].to_vec()).into();
    for at in [0, 7, 40, 300, whole.len() / 2, whole.len() - 200, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        damages.push(damaged);
    }
    damages.push(vec![0xFF; 3000]);
    for (k, damaged) in damages.iter().enumerate() {
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(server.say("cam", &bytes), fresh);
        server.written(4 + 2 * k);
    }
    // A file that is too large is not read whole.
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(dvs_stream::serve::MAX_SNAPSHOT_BYTES + 1).unwrap();
    assert_eq!(server.say("cam", &bytes), fresh);
    let damaged = damages.len() as f64 + 1.0;
    assert_eq!(server.snapshots("damaged") + server.snapshots("other"), damaged);
    assert!(server.snapshots("other") <= 1.0);
    assert_eq!(server.snapshots("resumed"), 0.0);
    let warnings = server.end();
    let named = |line: &str| {
        line.starts_with("warning: ")
            && line.contains(path.to_str().unwrap())
            && line.contains("afresh")
    };
    assert_eq!(warnings.lines().filter(|line| named(line)).count() as f64, damaged, "{warnings}");
    assert_eq!(warnings.lines().count() as f64, damaged);
}

/// A folder whose disk never gives the state of the stream `cam`.
fn hanging() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made = Command::new("mkfifo").arg(state_file(folder.path(), "cam")).status();
    assert!(made.unwrap().success());
    folder
}

#[test]
fn a_disk_that_hangs_is_said_and_the_stream_starts_afresh() {
    let folder = hanging();
    let server = start(folder.path(), &["--header-timeout", "300ms"]);
    let bytes = recording(&events(3)[..500]);
    assert_eq!(server.say("cam", &bytes), replay("cam", &bytes, &[]));
    assert_eq!(server.snapshots("damaged"), 1.0);
    let warnings = server.end();
    let first = warnings.lines().next().unwrap();
    assert!(first.contains("cam.dvs-state") && first.contains("afresh"), "{warnings}");
}

#[test]
fn a_disk_that_hangs_is_given_no_more_states_and_each_counts_as_failed() {
    let folder = hanging();
    let server = start(folder.path(), &["--header-timeout", "100ms"]);
    let bytes = recording(&events(3)[..100]);
    let expected = replay("cam", &bytes, &[]);
    assert_eq!(server.say("cam", &bytes), expected);
    // Until it has hung for long enough.
    until(|| {
        assert_eq!(server.say("cam", &bytes), expected);
        server.snapshots("failed") > 0.0
    });
    let open = server.send("other", &bytes);
    until(|| server.request("GET /v1/streams", "").1.contains("other"));
    let (status, body) = server.request("POST /v1/snapshot", "");
    assert_eq!((status, body.as_str()), (500, "{\"streams\":1,\"written\":0}\n"));
    assert_eq!(server.snapshots("written"), 0.0);
    drop(open);
    let warnings = server.end();
    let told = warnings.lines().filter(|line| line.contains("cannot be kept"));
    assert_eq!(told.count(), 1, "{warnings}");
    assert!(warnings.contains("the disk has been at another state"), "{warnings}");
}

#[test]
fn what_a_killed_server_did_not_complete_goes() {
    let folder = tempfile::tempdir().unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    for name in ["cam.dvs-state.part", "cam.dvs-state.12.part", "cam.part", "a b.dvs-state.part"] {
        let file = File::create(folder.path().join(name)).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    // It may be being written.
    File::create(folder.path().join("dog.dvs-state.part")).unwrap();
    let server = start(folder.path(), &[]);
    let left = ["a b.dvs-state.part", "cam.part", "dog.dvs-state.part"];
    until(|| files(folder.path()) == left);
    assert_eq!(server.snapshots("expired"), 0.0);
    assert_eq!(server.end(), "");
}

#[test]
fn a_disk_that_hangs_lets_a_client_go_when_the_server_ends() {
    let folder = hanging();
    let times = ["--header-timeout", "90s", "--shutdown-timeout", "90s"];
    let server = start(folder.path(), &[&times[..], &["--max-streams", "1"]].concat());
    let waiting = server.send("cam", b"");
    until(|| server.request("GET /readyz", "").0 == 503);
    server.signal("-TERM");
    assert_eq!(rest_of(waiting), [""; 0]);
}

#[test]
fn the_state_of_another_model_view_or_readout_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let states = folder.path().join("states");
    let bytes = recording(&events(4)[..700]);
    let model = Model::from_bytes(&std::fs::read("models/poker.safetensors").unwrap()).unwrap();
    let mut other = model.clone();
    other.card.display = vec!["a".into(), "b".into(), "c".into(), "d".into()];
    let path = folder.path().join("other.safetensors");
    std::fs::write(&path, other.to_bytes().unwrap()).unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["--model", path.to_str().unwrap()], "another model"),
        (&["--readout", "last"], "another readout"),
        (&["--gap", "30ms"], "another window or gap"),
        (&["--flip-x"], "another view"),
    ];
    for (flags, what) in cases {
        let server = start(&states, &[]);
        server.say("cam", &bytes);
        server.end();
        let server = start(&states, flags);
        assert_eq!(server.say("cam", &bytes), replay("cam", &bytes, flags), "{what}");
        assert_eq!(server.snapshots("other"), 1.0, "{what}");
        let warnings = server.end();
        let warnings: Vec<&str> =
            warnings.lines().filter(|line| line.starts_with("warning: ")).collect();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(what) && warnings[0].contains("cam.dvs-state"));
        std::fs::remove_file(state_file(&states, "cam")).unwrap();
    }
    // A view of one's own is another one, too, and under a changed name it is another stream.
    let server = start(&states, &[]);
    server.say("cam", &bytes);
    server.written(2);
    std::fs::copy(state_file(&states, "cam"), state_file(&states, "cam-2")).unwrap();
    assert_eq!(server.say("cam-2", &bytes), replay("cam-2", &bytes, &[]));
    let mut flipped = server.connect();
    flipped.write_all(b"dvs-stream {\"stream\":\"cam\",\"flip_y\":true}\n").unwrap();
    flipped.write_all(&bytes).unwrap();
    flipped.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest_of(flipped), replay("cam", &bytes, &["--flip-y"]));
    assert_eq!(server.snapshots("other"), 2.0);
    assert_eq!(server.end().lines().count(), 2);
}

#[test]
fn who_comes_back_too_late_starts_afresh_and_old_files_go() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), &["--resume-within", "0s"]);
    let bytes = recording(&events(5)[..400]);
    for _ in 0..2 {
        assert_eq!(server.say("cam", &bytes), replay("cam", &bytes, &[]));
    }
    assert!(server.snapshots("expired") >= 1.0);
    assert_eq!(server.end(), "");
    std::fs::write(folder.path().join("cam.dvs-state"), "old").unwrap();
    for other in ["cam.safetensors", "..dvs-state", "note"] {
        std::fs::write(folder.path().join(other), "mine").unwrap();
    }
    let server = start(folder.path(), &["--resume-within", "0s"]);
    until(|| files(folder.path()).len() == 3);
    assert_eq!(files(folder.path()), ["..dvs-state", "cam.safetensors", "note"]);
    assert_eq!(server.end(), "");
}

#[test]
fn old_files_go_though_none_is_written_from_time_to_time() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), &["--resume-within", "1s"]);
    server.say("cam", &recording(&events(5)[..400]));
    server.written(2);
    until(|| files(folder.path()).is_empty());
    until(|| server.snapshots("expired") == 1.0);
    assert_eq!(server.end(), "");
}

#[test]
fn a_full_folder_is_looked_at_again_before_a_state_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let others: Vec<_> =
        (0..16_384).map(|n| folder.path().join(format!("other-{n}.dvs-state"))).collect();
    others.iter().for_each(|path| std::fs::write(path, "another's").unwrap());
    let server = start(folder.path(), &[]);
    let bytes = recording(&events(5)[..400]);
    server.say("cam", &bytes);
    until(|| server.snapshots("failed") == 2.0);
    others.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    server.say("cam", &bytes);
    server.written(2);
    assert_eq!(files(folder.path()), ["cam.dvs-state"]);
    assert!(server.end().contains("16384 others are kept already"));
}

#[test]
fn only_named_streams_leave_files_and_only_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let states = folder.path().join("deep").join("states");
    let server = start(&states, &[]);
    let bytes = recording(&events(6)[..400]);
    let mut anonymous = server.connect();
    anonymous.write_all(&bytes).unwrap();
    let mut reader = BufReader::new(anonymous.try_clone().unwrap());
    lines_of(&mut reader, 5);
    let nothing = (200, "{\"streams\":0,\"written\":0}\n".to_owned());
    assert_eq!(server.request("POST /v1/snapshot", ""), nothing);
    anonymous.shutdown(Shutdown::Write).unwrap();
    rest_of(reader);
    for name in ["../cam", "..", "a/b", "/etc/cam", ""] {
        let lines = server.say(name, &bytes);
        assert!(lines.len() == 1 && lines[0].contains("cannot name a stream"), "{lines:?}");
    }
    assert_eq!(server.request("GET /v1/snapshot", "").0, 405);
    assert_eq!(server.request("POST /v1/streams", "").0, 405);
    assert_eq!(server.end(), "");
    assert_eq!(files(folder.path()), ["deep"]);
    assert_eq!(files(&folder.path().join("deep")), ["states"]);
    assert_eq!(files(&states), [""; 0]);
}

#[test]
fn two_streams_at_once_go_on_each_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let streams: Vec<_> = (0..2).map(|k| (format!("cam-{k}"), events(7 + k))).collect();
    let server = start(folder.path(), &["--max-streams", "2"]);
    let mut open: Vec<_> = streams
        .iter()
        .map(|(name, events)| {
            let (cut, told) = edges(events)[1];
            let mut reader = BufReader::new(server.send(name, &recording(&events[..cut])));
            let part = lines_of(&mut reader, told);
            (cut, told, part, reader)
        })
        .collect();
    let (status, body) = server.request("POST /v1/snapshot", "");
    assert_eq!((status, body.as_str()), (200, "{\"streams\":2,\"written\":2}\n"));
    assert_eq!(server.end(), "");
    // The other way round, so that each gets the other's slot.
    let server = start(folder.path(), &["--max-streams", "2"]);
    for ((name, events), (cut, told, part, _)) in streams.iter().zip(&mut open).rev() {
        let whole = replay(name, &recording(events), &[]);
        assert_eq!(*part, whole[..*told]);
        assert_eq!(server.say(name, &recording(&events[*cut..])), whole[*told..], "{name}");
    }
    assert_eq!(server.end(), "");
}

#[test]
fn a_folder_that_cannot_be_written_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [&file, &file.join("states")] {
        let output = Command::new(PROGRAM)
            .args(["serve", "--port", "0", "--state-dir"])
            .arg(path)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{error}");
        assert!(error.contains("--state-dir") && error.contains(path.to_str().unwrap()), "{error}");
    }
}

/// A limit on file sizes stands for a full disk.
#[test]
fn a_full_disk_is_said_once_and_streams_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let shell = "trap '' XFSZ; ulimit -f 1; exec";
    let server = start_in(shell, folder.path(), &["--snapshot-every", "0s"]);
    let bytes = recording(&events(9));
    let expected = replay("cam", &bytes, &[]);
    let open = server.send("other", &bytes);
    lines_of(&mut BufReader::new(open.try_clone().unwrap()), 5);
    for _ in 0..2 {
        assert_eq!(server.say("cam", &bytes), expected);
    }
    let (status, body) = server.request("POST /v1/snapshot", "");
    assert_eq!((status, body.as_str()), (500, "{\"streams\":1,\"written\":0}\n"));
    // As each opens and ends, and when asked.
    assert_eq!(server.snapshots("failed"), 6.0);
    assert_eq!(server.snapshots("written"), 0.0);
    assert_eq!(files(folder.path()), [""; 0]);
    drop(open);
    let warnings = server.end();
    assert_eq!(warnings.lines().count(), 1, "{warnings}");
    assert!(warnings.contains("cannot be kept") && warnings.contains("dvs-state"), "{warnings}");
}

#[test]
fn without_a_folder_there_is_nothing_to_keep() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--port", "0", "--http", "0"]).current_dir(folder.path());
    let server = Server::run(command.stderr(Stdio::piped()), 2);
    let bytes = recording(&events(10)[..400]);
    for _ in 0..2 {
        assert_eq!(server.say("cam", &bytes), replay("cam", &bytes, &[]));
    }
    let (status, why) = server.request("POST /v1/snapshot", "");
    assert!(status == 409 && why.contains("--state-dir"), "{status} {why}");
    assert!(!server.request("GET /metrics", "").1.contains("dvs_snapshots_total"));
    assert_eq!(server.end(), "");
    assert_eq!(files(folder.path()), [""; 0]);
}
