//! The server as its clients see it: a real process, real sockets.

mod server;
mod skip;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dvs_stream::codec::aedat4::Aedat4Encoder;
use dvs_stream::codec::probe::{Probe, probe};
use dvs_stream::codec::{Compression, Encoder, EncoderOptions};
use dvs_stream::event::{Event, Polarity, SensorSize};
use serde_json::Value;
use server::{PATIENCE, PROGRAM, Server, rest_of};
use skip::skip;

const DECK: &str = "fixtures/deck.aedat4";
const RESTARTS: &str = "dvs_restarts_total{stream=\"anonymous\"}";

/// A server whose standard error is heard.
fn plain(flags: &[&str], listeners: usize) -> Server {
    Server::run(Command::new(PROGRAM).arg("serve").args(flags).stderr(Stdio::piped()), listeners)
}

impl Server {
    fn tcp(flags: &[&str]) -> Server {
        plain(&[&["--port", "0"], flags].concat(), 1)
    }

    /// Sends SIGTERM, waits, and gives the exit code with what was printed.
    fn terminated(self) -> (Option<i32>, String, String) {
        self.signal("-TERM");
        self.ended()
    }

    /// Ends it in good order, with nothing to complain about.
    fn end(self) {
        let (code, out, err) = self.terminated();
        assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""));
    }
}

/// What `replay` prints for these bytes, and its exit code.
fn replay(bytes: &[u8], flags: &[&str]) -> (String, Option<i32>) {
    let mut child = Command::new(PROGRAM)
        .args(["replay", "-", "-q"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    // It may stop reading at damage.
    let feeding = thread::spawn(move || drop(input.write_all(&bytes)));
    let mut lines = String::new();
    child.stdout.take().unwrap().read_to_string(&mut lines).unwrap();
    feeding.join().unwrap();
    (lines, child.wait().unwrap().code())
}

/// Sends bytes in pieces of these lengths, over and over, reading meanwhile; gives all lines.
fn play(stream: TcpStream, bytes: &[u8], pieces: &[usize]) -> String {
    let mut sender = stream.try_clone().unwrap();
    let (bytes, pieces) = (bytes.to_vec(), pieces.to_vec());
    let sending = thread::spawn(move || {
        let mut rest = &bytes[..];
        for n in pieces.iter().cycle() {
            let (piece, after) = rest.split_at(rest.len().min(*n));
            // A server that has ended the stream takes no more.
            if piece.is_empty() || sender.write_all(piece).is_err() {
                break;
            }
            rest = after;
        }
        let _ = sender.shutdown(Shutdown::Write);
    });
    let lines = rest_of(stream);
    sending.join().unwrap();
    lines
}

/// Lines whose stream is called `-`.
fn nameless(lines: &str) -> String {
    let rename = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        let name = value["stream"].as_str().unwrap();
        let line = line.replace(&format!("\"stream\":\"{name}\""), "\"stream\":\"-\"");
        line.replace(&format!("\"message\":\"{name}: "), "\"message\":\"-: ") + "\n"
    };
    lines.lines().map(rename).collect()
}

fn last(lines: &str) -> Value {
    serde_json::from_str(lines.lines().last().expect("no line")).unwrap()
}

fn deck() -> Vec<u8> {
    std::fs::read(DECK).unwrap()
}

#[test]
fn a_stream_reads_as_its_replay_however_it_is_cut() {
    let server = Server::tcp(&[]);
    let (plain, _) = replay(&deck(), &[]);
    assert!(plain.lines().count() > 100);
    for pieces in [&[usize::MAX][..], &[4096], &[1, 700, 13, 90_000], &[331]] {
        let lines = play(server.connect(), &deck(), pieces);
        assert_eq!(nameless(&lines), nameless(&plain), "{pieces:?}");
    }
    let head = &deck()[..1500];
    assert_eq!(
        nameless(&play(server.connect(), head, &[1])),
        nameless(&replay(head, &[]).0),
        "a byte at a time"
    );
    server.end();
}

#[test]
fn a_first_line_rules_its_own_stream_alone() {
    let server = Server::tcp(&["-q", "--readout", "mean", "--max-streams", "4"]);
    let cases: [(&str, &[&str]); 4] = [
        ("{}", &["--readout", "mean"]),
        ("{\"readout\":\"last\"}", &["--readout", "last"]),
        (
            "{\"gap\":\"12ms\",\"quiet\":20,\"min_confidence\":0.9}",
            &["--readout", "mean", "--gap", "12ms", "--quiet", "20", "--min-confidence", "0.9"],
        ),
        (
            "{\"readout\":\"max:5ms\",\"gap\":\"1.5ms\"}",
            &["--readout", "max:5ms", "--gap", "1500us"],
        ),
    ];
    let expected = cases.map(|(_, flags)| nameless(&replay(&deck(), flags).0));
    assert_ne!(expected[0], expected[1]);
    assert_ne!(expected[0], expected[2]);
    // Slots that held other rules, and then other rules at once.
    for turn in 0..4 {
        thread::scope(|scope| {
            for k in 0..cases.len() {
                let stream = server.connect();
                let case = (k + turn) % cases.len();
                let (line, expected) = (cases[case].0, &expected[case]);
                let begun = format!("dvs-stream {line}\n").into_bytes();
                scope.spawn(move || {
                    let bytes = [begun, deck()].concat();
                    assert_eq!(&nameless(&play(stream, &bytes, &[3000])), expected, "{line}");
                });
            }
        });
    }
    server.end();
}

#[test]
fn sigterm_ends_open_streams_with_their_summary() {
    // The second steps once a minute, and does not wait for that; the third never sleeps.
    for flags in [&[][..], &["--tick", "60s"], &["--spin"]] {
        ends_open_streams_with_their_summary(Server::tcp(flags));
    }
}

fn ends_open_streams_with_their_summary(server: Server) {
    let mut stream = server.connect();
    let silent = server.connect();
    stream.write_all(&deck()).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    let (code, out, err) = server.terminated();
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""));
    let rest = rest_of(lines);
    assert_eq!(last(&rest)["type"], "summary");
    assert_eq!(rest_of(silent), "");
}

#[test]
fn sigterm_does_not_wait_for_clients_that_do_not_read() {
    let mut server =
        Server::tcp(&["--outbox", "16", "--patience", "60s", "--shutdown-timeout", "300ms"]);
    let mut deaf = server.connect();
    let mut sender = deaf.try_clone().unwrap();
    let sending = thread::spawn(move || {
        // What comes at the end is thrown away, or not taken.
        let _ = sender.write_all(&busy(3_000_000, 8, 1));
    });
    let mut first = [0; 100];
    deaf.read_exact(&mut first).unwrap();
    assert_eq!(server.exit("-TERM"), Some(0));
    sending.join().unwrap();
}

#[test]
fn a_unix_client_reads_as_a_tcp_client() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let server = plain(&["--unix", path.to_str().unwrap()], 1);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&deck()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(nameless(&rest_of(stream)), nameless(&replay(&deck(), &[]).0));
    server.end();
    assert!(!path.exists());
}

/// AEDAT 2.0 without a size of the sensor, whose left upper pixels fire `per_window` events in each of `windows`
/// milliseconds, none of them quiet.
fn busy(windows: u32, per_window: u32, seed: u32) -> Vec<u8> {
    let mut bytes = b"#!AER-DAT2.0\r\n".to_vec();
    for window in 0..windows {
        for k in 0..per_window {
            let (x, y) = ((k * 7 + window / 20 + seed) % 35, (k * 5 + window / 30 + seed) % 35);
            let address = y << 8 | x << 1 | (k % 2);
            let t_us = window * 1000 + k * 1000 / per_window;
            bytes.extend(address.to_be_bytes());
            bytes.extend(t_us.to_be_bytes());
        }
    }
    bytes
}

#[test]
fn neighbours_change_nothing() {
    // The second steps what has come of all of them together, the third as soon as it comes.
    for flags in [&[][..], &["--tick", "5ms"], &["--spin"]] {
        all_read_as_their_replays(Server::tcp(&[&["--max-streams", "8"], flags].concat()));
    }
}

/// Of what waits for a tick nothing is read before the test gives up.
#[test]
fn a_tick_holds_up_no_stream_that_has_more_than_it_steps() {
    const LINES: usize = 19_000;
    let server = Server::tcp(&["--tick", "600s"]);
    let recording = busy(20_000, 6, 0);
    let first = |lines: &str| -> String {
        lines.lines().take(LINES).map(|line| format!("{line}\n")).collect()
    };
    let expected = nameless(&first(&replay(&recording, &[]).0));
    let stream = server.connect();
    let mut sender = stream.try_clone().unwrap();
    let sending = thread::spawn(move || sender.write_all(&recording));
    let lines = BufReader::new(stream).lines().take(LINES);
    let lines: String = lines.map(|line| line.unwrap() + "\n").collect();
    assert!(nameless(&lines) == expected);
    server.terminated();
    sending.join().unwrap().unwrap();
}

/// Each millisecond is read before the next is sent.
#[test]
fn what_comes_within_a_tick_is_answered_together_and_timed_from_its_arrival() {
    const PAUSE: Duration = Duration::from_millis(100);
    for overflow in ["wait", "drop-newest", "skip-to-newest"] {
        let server = with_http(&["--tick", "600s", "--overflow", overflow]);
        let told = |series: &str| metric(&get(&server, "/metrics", None).1, series);
        let until = |series: &str, value: f64| {
            let begun = Instant::now();
            while told(series) < value {
                assert!(begun.elapsed() < PATIENCE, "{overflow}: no {series} of {value}");
            }
        };
        let recording = busy(20, 8, 0);
        let (head, events) = recording.split_at(b"#!AER-DAT2.0\r\n".len());
        let mut stream = server.connect();
        stream.write_all(head).unwrap();
        // The first turn is at once.
        until("dvs_streams", 1.0);
        let begun = Instant::now();
        for (k, window) in events.chunks(8 * 8).enumerate() {
            stream.write_all(window).unwrap();
            until("dvs_events_received_total{stream=\"anonymous\"}", 8.0 * (k + 1) as f64);
        }
        thread::sleep(PAUSE);
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(nameless(&rest_of(stream)), nameless(&replay(&recording, &[]).0), "{overflow}");
        // One for all windows, one for that which the end cut short, one for the summary.
        assert!(told("dvs_step_seconds_count") <= 3.0, "{overflow}");
        let latencies = told("dvs_window_latency_seconds_sum");
        let (least, most) = (PAUSE.as_secs_f64() * 19.0, begun.elapsed().as_secs_f64() * 20.0);
        assert!(least <= latencies && latencies <= most, "{overflow}: {latencies} s");
        server.end();
    }
}

fn all_read_as_their_replays(server: Server) {
    let recordings: Vec<Vec<u8>> =
        (0..7).map(|k| busy(200 + 100 * k, 8 + k, k)).chain([deck()]).collect();
    let expected: Vec<String> = recordings.iter().map(|r| nameless(&replay(r, &[]).0)).collect();
    for round in 0..3 {
        let playing: Vec<_> = recordings
            .iter()
            .enumerate()
            .map(|(k, recording)| {
                let (stream, recording) = (server.connect(), recording.clone());
                let pieces = [100 + 977 * k, 1 + k, 5000 - 600 * k];
                thread::spawn(move || play(stream, &recording, &pieces))
            })
            .collect();
        for (k, (playing, expected)) in playing.into_iter().zip(&expected).enumerate() {
            assert_eq!(&nameless(&playing.join().unwrap()), expected, "round {round}, stream {k}");
        }
    }
    server.end();
}

#[test]
fn a_slot_forgets_who_had_it_and_one_stream_too_many_is_told() {
    let server = Server::tcp(&["--max-streams", "1"]);
    let expected = nameless(&replay(&deck(), &[]).0);
    for _ in 0..3 {
        let mut first = server.connect();
        first.write_all(&busy(50, 40, 3)).unwrap();
        let mut line = String::new();
        BufReader::new(first.try_clone().unwrap()).read_line(&mut line).unwrap();
        let refusal = rest_of(server.connect());
        assert_eq!(last(&refusal)["type"], "error");
        assert!(refusal.contains("slots are taken") && refusal.contains("--max-streams"));
        // Its answers are unread, so this breaks the connection in the middle.
        drop(first);
        let lines = loop {
            let lines = play(server.connect(), &deck(), &[10_000]);
            if !lines.contains("slots are taken") {
                break lines;
            }
        };
        assert_eq!(nameless(&lines), expected);
    }
    server.end();
}

/// Sends all, reads all.
fn say(server: &Server, bytes: &[u8]) -> String {
    play(server.connect(), bytes, &[usize::MAX])
}

#[test]
fn the_first_line_names_stream_format_and_view() {
    let server = Server::tcp(&[]);
    // N-MNIST has no mark: x, y, then 23 bits of time under the polarity.
    let events: Vec<u8> = (0..2000_u32)
        .flat_map(|k| {
            let t_us = k * 50;
            let [_, high, middle, low] = (t_us | ((k % 2) << 23)).to_be_bytes();
            [(k * 7 % 34) as u8, (k * 5 % 20) as u8, high, middle, low]
        })
        .collect();
    let first =
        b"dvs-stream {\"stream\":\"cam-1\",\"flip_x\":true,\"scale\":true,\"format\":\"nmnist\"}\n";
    let lines = say(&server, &[&first[..], &events].concat());
    let expected = replay(&events, &["--flip-x", "--scale", "--format", "nmnist"]).0;
    assert!(expected.lines().count() > 100);
    assert_eq!(lines, expected.replace("\"stream\":\"stdin\"", "\"stream\":\"cam-1\""));
    server.end();
}

#[test]
fn what_has_a_mark_needs_no_first_line() {
    let server = plain(&["-q", "--port", "0", "--scale"], 1);
    let mut read = BTreeSet::new();
    for entry in std::fs::read_dir("fixtures/formats").unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let Probe::Format(format) = probe(&bytes, None, true) else { continue };
        let (expected, code) = replay(&bytes, &["--scale"]);
        assert_eq!(nameless(&say(&server, &bytes)), nameless(&expected), "{}", path.display());
        if code == Some(0) {
            read.insert(format.name);
        }
    }
    let marked = ["aedat1", "aedat2", "aedat3", "aedat4", "csv", "dv", "npy"];
    assert_eq!(read.into_iter().collect::<Vec<_>>(), marked);
    server.end();
}

#[test]
fn a_first_line_replaces_the_servers_view() {
    let server = Server::tcp(&["-q", "--crop", "2,2,20,20", "--scale"]);
    for (line, flags) in [
        ("{}", &["--crop", "2,2,20,20"][..]),
        ("{\"crop\":\"none\"}", &[]),
        ("{\"crop\":\"none\",\"polarity\":\"on-is-0\"}", &["--polarity", "on-is-0"]),
        ("{\"crop\":\"none\",\"polarity\":\"on-is-1\"}", &["--polarity", "on-is-1"]),
        ("{\"crop\":\"5,5,9,9\"}", &["--crop", "5,5,9,9"]),
    ] {
        let lines = say(&server, &[format!("dvs-stream {line}\n").as_bytes(), &deck()].concat());
        let expected = replay(&deck(), &[&["--scale"], flags].concat()).0;
        assert_eq!(nameless(&lines), nameless(&expected), "{line}");
    }
    server.end();
}

#[test]
fn what_cannot_be_served_is_told_in_one_line() {
    let server = Server::tcp(&[]);
    let held = server.connect();
    (&held).write_all(b"dvs-stream {\"stream\":\"cam\"}\n").unwrap();
    (&held).write_all(&busy(50, 40, 0)).unwrap();
    let mut line = String::new();
    BufReader::new(held.try_clone().unwrap()).read_line(&mut line).unwrap();
    let long = format!("dvs-stream {{\"stream\":\"{}\"}}\n", "x".repeat(5000));
    for (first, named) in [
        ("dvs-stream {\"stream\":\"cam\"}\n", "open already"),
        ("dvs-stream {\"stream\":\"../cam\"}\n", "cannot name a stream"),
        ("dvs-stream {\"format\":\"mp3\"}\n", "unknown format"),
        ("dvs-stream {\"colour\":1}\n", "colour"),
        ("dvs-stream nonsense\n", "first line"),
        (&long, "4096"),
    ] {
        let lines = say(&server, &[first.as_bytes(), &busy(2000, 40, 0)].concat());
        assert_eq!(lines.lines().count(), 1, "{first}: {lines}");
        assert_eq!(last(&lines)["type"], "error");
        assert!(lines.contains(named), "{first}: {lines}");
    }
    drop(held);
    server.end();
}

#[test]
fn damage_is_told_as_replay_tells_it() {
    let server = Server::tcp(&[]);
    let mut garbage = deck();
    let middle = garbage.len() / 2;
    garbage[middle..].fill(0x5a);
    let cases: &[&[u8]] = &[
        b"",
        b"#!AER-",
        b"dvs-",
        b"GET / HTTP/1.1\r\n\r\n",
        &deck()[..deck().len() - 7],
        &deck()[..700],
        &garbage,
        &[0x7f; 3000],
    ];
    for bytes in cases {
        let (expected, _) = replay(bytes, &[]);
        assert_eq!(nameless(&say(&server, bytes)), nameless(&expected), "{} bytes", bytes.len());
    }
    // A recording without a byte is damaged; a live stream of bare events may hold none.
    let lines = say(&server, b"dvs-stream {\"format\":\"nmnist\"}\n");
    assert_eq!((last(&lines)["events"].as_u64(), lines.lines().count()), (Some(0), 1), "{lines}");
    server.end();
}

/// Sends bytes one at a time, each after a pause in which no answer came, until all is answered.
fn drip(mut stream: TcpStream, bytes: impl Iterator<Item = u8>) -> String {
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    for byte in bytes {
        if stream.write_all(&[byte]).is_err()
            || !matches!(stream.peek(&mut [0]), Err(e) if is_pause(&e))
        {
            break;
        }
    }
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    rest_of(stream)
}

/// Whether a socket's time to be waited for is over.
fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[test]
fn silent_and_dripping_clients_are_let_go() {
    let server = Server::tcp(&["--header-timeout", "300ms", "--idle-timeout", "300ms"]);
    let silent = server.connect();
    let mut idle = server.connect();
    idle.write_all(&busy(50, 40, 0)).unwrap();
    let lines = drip(server.connect(), b"dvs-stream {".iter().copied().cycle().take(1000));
    assert!(lines.contains("within 0.3 s"), "{lines}");
    let lines = rest_of(silent);
    assert_eq!(lines.lines().count(), 1);
    assert!(lines.contains("within 0.3 s"), "{lines}");
    let lines = rest_of(idle);
    assert_eq!(last(&lines)["type"], "summary");
    assert_eq!(last(&lines)["windows"], 50);
    assert!(lines.contains("nothing was received for 0.3 s"), "{lines}");
    server.end();
}

#[test]
fn a_header_that_drips_is_let_go_and_one_that_is_whole_may_wait() {
    let server = Server::tcp(&["--header-timeout", "300ms"]);
    let mut whole = server.connect();
    whole.write_all(b"#!AER-DAT2.0\r\n").unwrap();
    let mut headless = server.connect();
    headless.write_all(b"dvs-stream {\"format\":\"csv\"}\n0,1,2,1\n").unwrap();
    for (begun, byte) in [(&b"#!AER-DAT2.0\r\n# "[..], b' '), (b"#!AER-DAT4.0\r\n\xdc\x02\0\0", 0)]
    {
        let mut dripping = server.connect();
        dripping.write_all(begun).unwrap();
        let lines = drip(dripping, std::iter::repeat_n(byte, 1000));
        assert!(lines.contains("no header came within 0.3 s"), "{lines}");
        assert_eq!(last(&lines)["type"], "summary");
    }
    // Its header was read long ago, and its events come now.
    let events = &busy(50, 40, 0)[b"#!AER-DAT2.0\r\n".len()..];
    assert_eq!(last(&play(whole, events, &[4096]))["windows"], 50);
    assert_eq!(last(&play(headless, b"2500,1,2,0\n", &[4096]))["events"], 2);
    server.end();
}

#[test]
fn a_first_line_alone_keeps_no_slot() {
    let server = Server::tcp(&["--header-timeout", "300ms"]);
    for format in ["aedat2", "aedat4", "csv", "nmnist", "spif"] {
        let mut stream = server.connect();
        writeln!(stream, "dvs-stream {{\"format\":\"{format}\"}}").unwrap();
        let lines = rest_of(stream);
        let told = "nothing after the first line came within 0.3 s (--header-timeout)";
        assert!(lines.contains(told), "{format}: {lines}");
        assert_eq!(last(&lines)["events"], 0, "{format}");
    }
    server.end();
}

#[test]
fn where_it_is_asked_for_silence_ends_a_segment() {
    let server = Server::tcp(&["-q", "--idle", "20ms", "--gap", "2ms"]);
    let mut stream = server.connect();
    stream.write_all(&busy(50, 40, 0)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let segment = lines.find(|line| line.as_ref().unwrap().contains("\"segment\"")).unwrap();
    let segment: Value = serde_json::from_str(&segment.unwrap()).unwrap();
    assert_eq!((&segment["windows"], &segment["events"]), (&50.into(), &2000.into()));
    stream.shutdown(Shutdown::Write).unwrap();
    let summary: Value = serde_json::from_str(&lines.last().unwrap().unwrap()).unwrap();
    assert_eq!((&summary["windows"], &summary["segments"]), (&51.into(), &1.into()));
    server.end();
}

#[test]
fn who_does_not_read_misses_the_oldest_and_slows_nobody() {
    let server = Server::tcp(&["--outbox", "64", "--patience", "50ms"]);
    let windows = 250_000;
    let mut deaf = server.connect();
    let bytes = busy(windows, 8, 1);
    let sending = thread::spawn(move || {
        deaf.write_all(&bytes).unwrap();
        deaf.shutdown(Shutdown::Write).unwrap();
        deaf
    });
    let expected = nameless(&replay(&deck(), &[]).0);
    for _ in 0..5 {
        assert_eq!(nameless(&say(&server, &deck())), expected);
    }
    let lines = rest_of(sending.join().unwrap());
    let records: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let missed: Vec<u64> = records
        .iter()
        .filter(|record| record["type"] == "missed")
        .map(|record| record["records"].as_u64().unwrap())
        .collect();
    assert!(missed.is_sorted() && missed.last() > Some(&0), "{missed:?}");
    let told = (records.len() - missed.len()) as u64;
    // Predictions, one segment, the summary.
    assert_eq!(told + missed.last().unwrap(), u64::from(windows) + 2);
    assert_eq!(records.last().unwrap()["type"], "summary");
    assert_eq!(records.last().unwrap()["windows"], windows);
    server.end();
}

#[test]
fn who_reads_misses_nothing_however_little_may_wait() {
    let server = Server::tcp(&["--outbox", "16"]);
    let bytes = busy(3000, 8, 1);
    let lines = play(server.connect(), &bytes, &[bytes.len()]);
    assert_eq!(nameless(&lines), nameless(&replay(&bytes, &[]).0));
    server.end();
}

#[test]
fn who_reads_its_last_records_late_is_told_how_many_it_missed() {
    let server = with_http(&["--outbox", "8192"]);
    let windows = 10_000;
    let mut late = server.connect();
    late.write_all(&busy(windows, 8, 1)).unwrap();
    late.shutdown(Shutdown::Write).unwrap();
    let missed = || metric(&get(&server, "/metrics", None).1, "dvs_records_missed_total");
    let begun = Instant::now();
    while missed() == 0.0 {
        assert!(begun.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(20));
    }
    let lines = rest_of(late);
    let told = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told: Vec<Value> = told.collect();
    let [.., marker, summary] = &told[..] else { panic!("{lines}") };
    assert_eq!((&marker["type"], &summary["type"]), (&"missed".into(), &"summary".into()));
    // Predictions, one segment, the summary.
    let records = marker["records"].as_u64().unwrap();
    assert_eq!(told.len() as u64 - 1 + records, u64::from(windows) + 2);
    assert_eq!(missed(), records as f64);
    server.end();
}

/// The most memory that a server has had so far, in bytes.
fn peak_memory(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn few_bytes_that_unpack_to_very_many_events_take_little_memory() {
    let packet = [Event { t_us: 0, x: 0, y: 0, polarity: Polarity::On }; 10_000];
    let packets = 2000;
    let sensor = Some(SensorSize { width: 35, height: 35 });
    let mut encoder =
        Aedat4Encoder::live(&EncoderOptions { sensor, compression: Compression::Zstd });
    let mut bytes = Vec::new();
    (0..packets).for_each(|_| encoder.encode(&packet, &mut bytes).unwrap());
    let server = Server::tcp(&[]);
    say(&server, &deck());
    let before = peak_memory(&server);
    let summary = last(&say(&server, &bytes));
    assert_eq!(summary["events"], packets * packet.len());
    let grown = peak_memory(&server) - before;
    assert!(grown < 32 << 20, "{grown} bytes of memory for {} sent", bytes.len());
    server.end();
}

#[test]
fn what_comes_too_fast_is_dropped_and_counted() {
    for rule in ["drop-newest", "skip-to-newest"] {
        let server = Server::tcp(&["--overflow", rule]);
        let (windows, per_window) = (30_000, 8);
        let lines = say(&server, &busy(windows, per_window, 1));
        let records: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let counted = |record: &Value| record["losses"]["overflow"].as_u64().unwrap_or(0);
        let of_type = |kind: &'static str| records.iter().filter(move |r| r["type"] == kind);
        let summary = records.last().unwrap();
        assert_eq!(summary["events"], windows * per_window);
        let kept: u64 = of_type("prediction").map(|p| p["events"].as_u64().unwrap()).sum();
        let stamped: u64 = of_type("prediction").map(counted).sum();
        assert!(counted(summary) > 0, "{rule}: nothing came too fast");
        assert_eq!(kept + counted(summary), u64::from(windows * per_window), "{rule}");
        assert!(stamped <= counted(summary) && stamped > 0, "{rule}");
        // At its own pace nothing is lost.
        assert_eq!(nameless(&say(&server, &deck())), nameless(&replay(&deck(), &[]).0));
        server.end();
    }
}

/// One request, with a token; gives the status and the body.
fn get(server: &Server, path: &str, token: Option<&str>) -> (u16, String) {
    let token = token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
    server.request(&format!("GET {path}"), &token)
}

/// Value of a series.
fn metric(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(&format!("{series} ")));
    line.unwrap_or_else(|| panic!("no {series} in {text}"))
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

fn with_http(flags: &[&str]) -> Server {
    plain(&[&["--port", "0", "--http", "0"], flags].concat(), 2)
}

#[test]
fn metrics_are_what_the_senders_know() {
    let server = with_http(&["--max-streams", "3", "--metrics-retention", "0s"]);
    let named = b"dvs-stream {\"stream\":\"cam\"}\n";
    let summary = last(&say(&server, &[&named[..], &deck()].concat()));
    let anonymous: Vec<Value> = (0..3).map(|k| last(&say(&server, &busy(100 + k, 9, k)))).collect();
    let windows: u64 = anonymous.iter().map(|s| s["windows"].as_u64().unwrap()).sum();
    let events: u64 = anonymous.iter().map(|s| s["events"].as_u64().unwrap()).sum();
    // The named stream is gone for good at the next tick.
    let text = loop {
        let (status, text) = get(&server, "/metrics", None);
        assert_eq!(status, 200);
        if !text.contains("stream=\"cam\"") {
            break text;
        }
    };
    assert_eq!(metric(&text, "dvs_windows_total{stream=\"anonymous\"}"), windows as f64);
    assert_eq!(metric(&text, "dvs_events_received_total{stream=\"anonymous\"}"), events as f64);
    let departed = metric(&text, "dvs_events_received_total{stream=\"departed\"}");
    assert_eq!(departed, summary["events"].as_f64().unwrap());
    assert_eq!(metric(&text, "dvs_streams"), 0.0);
    let answered = text
        .lines()
        .filter(|line| line.starts_with("dvs_predictions_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
    let predictions = windows as f64 + summary["windows"].as_f64().unwrap();
    assert_eq!(answered.sum::<f64>(), predictions);
    assert_eq!(metric(&text, "dvs_window_latency_seconds_count"), predictions);
    assert!(text.contains("dvs_model_info{model=\"poker\",sha256=\""));
    // Every series has its type before it.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let plain = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let typed = |name: &str| text.contains(&format!("# TYPE {name} "));
        assert!(typed(name) || plain.is_some_and(typed), "{line}");
    }
    server.end();
}

/// Dashboards rely on them.
#[test]
fn metrics_have_the_names_and_labels_that_were_promised() {
    let server = with_http(&[]);
    say(&server, &[b"dvs-stream {\"stream\":\"cam\"}\n", &deck()[..]].concat());
    let text = get(&server, "/metrics", None).1;
    for (name, kind, labels) in [
        ("dvs_events_received_total", "counter", &["stream"][..]),
        ("dvs_events_lost_total", "counter", &["reason", "stream"]),
        ("dvs_datagrams_lost_total", "counter", &["stream"]),
        ("dvs_windows_total", "counter", &["stream"]),
        ("dvs_restarts_total", "counter", &["stream"]),
        ("dvs_step_seconds", "histogram", &["le"]),
        ("dvs_window_latency_seconds", "histogram", &["le"]),
        ("dvs_load_ratio", "gauge", &[]),
        ("dvs_ring_frames", "gauge", &["stream"]),
        ("dvs_streams", "gauge", &[]),
        ("dvs_predictions_total", "counter", &["label", "stream"]),
        ("dvs_model_info", "gauge", &["model", "sha256"]),
    ] {
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name}: {text}");
        let series = if kind == "histogram" { format!("{name}_bucket") } else { name.to_owned() };
        let own = |line: &&str| line.split(['{', ' ']).next() == Some(&series);
        let mut found = 0;
        for line in text.lines().filter(own) {
            let keys = line.split('"').step_by(2).filter_map(|part| part.strip_suffix('='));
            let mut keys: Vec<_> = keys.map(|key| key.rsplit(['{', ',']).next().unwrap()).collect();
            keys.sort();
            assert_eq!(keys, labels, "{line}");
            found += 1;
        }
        assert!(found > 0, "{name}: {text}");
    }
    for reason in ["late", "outside", "overflow", "malformed"] {
        let series = format!("dvs_events_lost_total{{reason=\"{reason}\",stream=\"cam\"}}");
        assert_eq!(metric(&text, &series), 0.0);
    }
    server.end();
}

#[test]
fn restarts_are_counted_as_they_come() {
    let server = with_http(&[]);
    let mut stream = server.connect();
    stream.write_all(&busy(2000, 8, 0)).unwrap();
    // The clock has jumped back: 1000 events are late, then it is believed.
    stream.write_all(&busy(1000, 8, 0)[b"#!AER-DAT2.0\r\n".len()..]).unwrap();
    let restarts = || metric(&get(&server, "/metrics", None).1, RESTARTS);
    let begun = Instant::now();
    while restarts() < 1.0 {
        assert!(begun.elapsed() < PATIENCE, "no restart");
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(last(&rest_of(stream))["restarts"], 1);
    assert_eq!(restarts(), 1.0);
    server.end();
}

#[test]
fn http_tells_of_health_streams_and_model() {
    let server = with_http(&["--max-streams", "1"]);
    say(&server, b"dvs-stream nonsense\n");
    say(&server, &deck()[..700]);
    let metrics = get(&server, "/metrics", None).1;
    assert_eq!(metric(&metrics, "dvs_connections_refused_total"), 1.0);
    assert_eq!(metric(&metrics, "dvs_stream_errors_total"), 1.0);
    assert_eq!(get(&server, "/livez", None).0, 200);
    assert_eq!(get(&server, "/readyz", None).0, 200);
    assert_eq!(get(&server, "/nothing", None).0, 404);
    for query in ["stream=", "stream=%f", "stream=%ff", "name=x", "stream=one&_=1", "stream=one&"] {
        assert_eq!(get(&server, &format!("/v1/predictions?{query}"), None).0, 400, "{query}");
    }
    let model: Value = serde_json::from_str(&get(&server, "/v1/model", None).1).unwrap();
    assert_eq!(model["card"]["labels"].as_array().unwrap().len(), 4);
    let mut stream = server.connect();
    stream.write_all(b"dvs-stream {\"stream\":\"cam\"}\n").unwrap();
    stream.write_all(&busy(50, 40, 0)).unwrap();
    let mut line = String::new();
    BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
    let (status, why) = get(&server, "/readyz", None);
    assert_eq!((status, why.contains("slots")), (503, true));
    let streams: Value = serde_json::from_str(&get(&server, "/v1/streams", None).1).unwrap();
    assert_eq!(streams["streams"][0]["stream"], "cam");
    assert!(streams["streams"][0]["windows"].as_u64().unwrap() > 0);
    server.end();
}

#[test]
fn subscribers_hear_what_the_clients_get() {
    let server = with_http(&[]);
    let subscribe = |path: &str| {
        let mut stream = TcpStream::connect(server.address("http")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            lines.read_line(&mut line).unwrap();
        }
        lines
    };
    let (all, one) = (subscribe("/v1/predictions"), subscribe("/v1/predictions?stream=one"));
    let mut told = String::new();
    for name in ["one", "two"] {
        let first = format!("dvs-stream {{\"stream\":\"{name}\"}}\n");
        told += &say(&server, &[first.as_bytes(), &deck()].concat());
    }
    server.end();
    let events = |lines| -> String {
        let text = rest_of(lines);
        text.lines().filter_map(|l| l.strip_prefix("data: ")).map(|l| l.to_owned() + "\n").collect()
    };
    let (all, one) = (events(all), events(one));
    assert_eq!(all, told);
    let own =
        told.lines().filter(|l| l.contains("\"stream\":\"one\"")).map(|l| l.to_owned() + "\n");
    assert_eq!(one, own.collect::<String>());
}

/// Sends requests over a connection whose answers are not read, until it takes no more.
fn ask_deaf(server: &Server, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address("http")).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let requests = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(1000);
    while stream.write_all(requests.as_bytes()).is_ok() {}
    stream
}

#[test]
fn who_asks_and_does_not_read_keeps_nobody_out() {
    let server = with_http(&["--header-timeout", "1s"]);
    let deaf: Vec<TcpStream> = thread::scope(|scope| {
        let asking: Vec<_> =
            (0..64).map(|_| scope.spawn(|| ask_deaf(&server, "/v1/model"))).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    let begun = Instant::now();
    let answered = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(server.address("http"))?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    // A write waits as long as a deaf one has to go.
    while (&deaf[0]).write(b"x").map_or_else(|error| is_pause(&error), |_| true) {
        assert!(begun.elapsed() < PATIENCE);
    }
    while !answered().is_ok_and(|answer| answer.contains("200 OK")) {
        assert!(begun.elapsed() < PATIENCE);
    }
    drop(deaf);
    server.end();
}

#[test]
fn a_request_whose_head_drips_or_is_too_long_is_let_go() {
    let server = with_http(&["--header-timeout", "200ms"]);
    let ask = |head: &[u8]| {
        let mut stream = TcpStream::connect(server.address("http")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(head).unwrap();
        stream
    };
    let mut head = b"GET /livez HTTP/1.1\r\nX: ".to_vec();
    drip(ask(&head), std::iter::repeat_n(b'x', 10_000));
    head.resize(16 << 10, b'x');
    let told = rest_of(ask(&head));
    assert!(told.starts_with("HTTP/1.1 431 "), "{told}");
    // One that was answered may rest, and is let go as well.
    assert!(rest_of(ask(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")).ends_with("alive\n"));
    let metrics = get(&server, "/metrics", None).1;
    assert_eq!(metric(&metrics, "dvs_connections_refused_total"), 2.0);
    server.end();
}

#[test]
fn a_subscriber_that_does_not_read_is_not_waited_for_at_the_end() {
    let server = with_http(&["--patience", "100ms", "--shutdown-timeout", "30s"]);
    let mut deaf = TcpStream::connect(server.address("http")).unwrap();
    deaf.write_all(b"GET /v1/predictions HTTP/1.0\r\n\r\n").unwrap();
    // More than lies in the outbox and in both sockets.
    for k in 0..12 {
        say(&server, &busy(10_000, 8, k));
    }
    let begun = Instant::now();
    server.end();
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn all_that_the_thread_does_makes_it_busy() {
    let server = with_http(&[]);
    let told = metric(&get(&server, "/metrics", None).1, "dvs_busy_ratio");
    assert!(told < 0.5, "{told}");
    let begun = Instant::now();
    // No stream is there: answering is all it does.
    while metric(&get(&server, "/metrics", None).1, "dvs_busy_ratio") < 0.05 {
        assert!(begun.elapsed() < PATIENCE);
    }
    server.end();
}

#[test]
fn only_a_token_lets_clients_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    std::fs::write(&path, "sesame\nlinseed\n").unwrap();
    let server = with_http(&["--token-file", path.to_str().unwrap()]);
    for (first, admitted) in [
        ("", false),
        ("dvs-stream {\"stream\":\"cam\"}\n", false),
        ("dvs-stream {\"token\":\"sesam\"}\n", false),
        ("dvs-stream {\"token\":\"linseed\"}\n", true),
        ("dvs-stream {\"token\":\"sesame\"}\n", true),
    ] {
        let lines = say(&server, &[first.as_bytes(), &deck()].concat());
        assert_eq!(last(&lines)["type"] == "summary", admitted, "{first}");
        assert!(admitted || (lines.contains("token") && lines.lines().count() == 1), "{lines}");
    }
    for path in ["/metrics", "/v1/streams", "/v1/model", "/v1/predictions"] {
        assert_eq!(get(&server, path, None).0, 401);
        assert_eq!(get(&server, path, Some("open")).0, 401);
    }
    let metrics = get(&server, "/metrics", Some("sesame")).1;
    assert_eq!(metric(&metrics, "dvs_connections_refused_total"), 3.0 + 8.0);
    // The scheme is told without case.
    assert_eq!(server.request("GET /metrics", "authorization: bearer sesame\r\n").0, 200);
    assert_eq!(get(&server, "/livez", None).0, 200);
    server.end();
}

#[test]
fn a_token_without_quotes_is_repeated_to_nobody() {
    let server = Server::tcp(&["-v"]);
    let lines = say(&server, b"dvs-stream {\"token\":12345678}\n");
    let (_, _, err) = server.terminated();
    for told in [lines, err] {
        assert!(told.contains("token: expected a string") && !told.contains("1234"), "{told}");
    }
}

#[test]
fn beyond_loopback_it_warns() {
    let server = plain(&["--port", "0", "--bind", "0.0.0.0"], 1);
    let (code, _, err) = server.terminated();
    assert_eq!(code, Some(0));
    assert!(err.starts_with("warning: ") && err.contains("--token-file"), "{err}");
    // Datagrams have no tokens.
    let tokens = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(tokens.path(), "sesame\n").unwrap();
    let path = tokens.path().to_str().unwrap();
    let flags = ["--port", "0", "--udp", "0=jaer", "--token-file", path];
    for (bind, warned) in [("127.0.0.1", false), ("0.0.0.0", true)] {
        let (code, _, err) = plain(&[&flags[..], &["--bind", bind]].concat(), 2).terminated();
        assert_eq!(code, Some(0));
        assert_eq!(err.contains("datagrams ask for no token"), warned, "{err}");
    }
}

#[test]
fn logs_tell_of_streams_as_text_or_json() {
    let first = b"dvs-stream {\"stream\":\"cam\"}\n";
    let server = Server::tcp(&["-v"]);
    let summary = last(&say(&server, &[&first[..], &deck()].concat()));
    say(&server, b"dvs-stream nonsense\n");
    let (_, _, err) = server.terminated();
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 3, "{err}");
    assert!(lines[0].contains("INFO stream opened stream=\"cam\" peer=\"127.0.0.1:"), "{err}");
    let ended = format!("events={} late=0", summary["events"]);
    assert!(lines[1].contains("stream ended") && lines[1].contains(&ended), "{err}");
    assert!(lines[2].contains("refused") && lines[2].contains("first line"), "{err}");
    let flags = ["--log-format", "json", "-v", "--port", "0", "--bind", "0.0.0.0", "--gap", "7ms"];
    let server = plain(&flags, 1);
    let port = server.port("tcp").to_owned();
    let stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    play(stream, &deck()[..700], &[100]);
    let (_, _, err) = server.terminated();
    let lines: Vec<Value> = err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (line, told) in lines.iter().zip(["--gap 7ms replaces", "--token-file"]) {
        assert_eq!(line["level"], "WARN");
        assert!(line["message"].as_str().unwrap().contains(told), "{err}");
    }
    assert_eq!(
        (&lines[2]["message"], &lines[2]["level"]),
        (&"stream opened".into(), &"INFO".into())
    );
    assert_eq!((&lines[3]["format"], &lines[3]["malformed"]), (&"aedat4".into(), &0.into()));
    assert!(lines[3]["error"].as_str().unwrap().contains("byte"), "{err}");
}

#[test]
fn what_is_set_aside_is_counted_and_told() {
    let server = with_http(&["-v", "--scale"]);
    say(&server, &std::fs::read("fixtures/formats/aedat3-sources.aedat").unwrap());
    say(&server, &deck());
    let text = get(&server, "/metrics", None).1;
    assert_eq!(metric(&text, "dvs_set_aside_total{stream=\"anonymous\"}"), 1.0);
    let (_, _, err) = server.terminated();
    let told =
        |n: &str| err.lines().filter(|line| line.ends_with(&format!("set_aside={n}"))).count();
    assert_eq!((told("1"), told("0")), (1, 1), "{err}");
}

/// `busy` with some of its first events at a pixel that no model's sensor has.
fn straying(windows: u32, outside: usize) -> Vec<u8> {
    let mut bytes = busy(windows, 8, 0);
    for event in bytes[b"#!AER-DAT2.0\r\n".len()..].chunks_mut(8).take(outside) {
        event[..4].copy_from_slice(&(100_u32 << 8 | 100 << 1).to_be_bytes());
    }
    bytes
}

#[test]
fn it_warns_once_of_a_stream_with_more_than_one_event_in_a_hundred_outside() {
    let server = Server::tcp(&[]);
    say(&server, &straying(100, 8));
    say(&server, &straying(100, 9));
    let (_, _, err) = server.terminated();
    assert_eq!(err.matches("lie outside the model's sensor").count(), 1, "{err}");
    assert!(err.contains("1.1 % of its events") && err.contains("--crop"), "{err}");
    // One that does not end is warned of too.
    let mut server = with_http(&[]);
    let mut stream = server.connect();
    stream.write_all(&straying(2000, 8000)).unwrap();
    let received = "dvs_events_received_total{stream=\"anonymous\"}";
    let begun = Instant::now();
    while metric(&get(&server, "/metrics", None).1, received) < 16_000.0 {
        assert!(begun.elapsed() < PATIENCE, "not all was read");
    }
    server.exit("-KILL");
    let (_, _, err) = server.ended();
    assert_eq!(err.matches("lie outside the model's sensor").count(), 1, "{err}");
}

#[test]
fn what_strangers_say_moves_no_cursor_and_begins_no_line() {
    let server = Server::tcp(&["-v"]);
    say(&server, b"dvs-stream {\"a\\u001b[2J\\nINFO stream opened\":1}\n");
    say(&server, b"dvs-stream {\"sensor\":\"1\\r\\u009b31m\"}\n");
    say(&server, b"dvs-stream {\"format\":\"\\u001b[31m\\nINFO\"}\n");
    say(&server, &[&b"#!AER-DAT2.0\r\n# AEChip: \x1b[31m\r\n#\x1b[2J\n"[..], &[7; 601]].concat());
    let (_, _, err) = server.terminated();
    assert!(err.lines().count() == 5 && err.contains("\\u{1b}[2J\\nINFO"), "{err}");
    assert!(err.chars().all(|c| c == '\n' || !c.is_control()), "{err:?}");
}

#[test]
fn the_unit_for_systemd_starts_what_there_is() {
    let unit = std::fs::read_to_string("deploy/dvs-stream.service").unwrap();
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let command = command.replace("%S", folder.path().to_str().unwrap());
    let command = command.replace(" 7000", " 0").replace(" 7001", " 0");
    let flags: Vec<&str> = command.split(' ').skip(2).collect();
    let server = plain(&flags, 2);
    say(&server, &deck());
    let (code, _, err) = server.terminated();
    assert_eq!(code, Some(0));
    assert!(err.contains("stream opened") && folder.path().join("dvs-stream").is_dir(), "{err}");
}

#[test]
fn many_connections_at_once_are_all_answered() {
    let server = Server::tcp(&["--max-streams", "8"]);
    let connections: Vec<TcpStream> = (0..900).map(|_| server.connect()).collect();
    // The first eight have the slots; the others are told so.
    for connection in &connections[8..] {
        let line = rest_of(connection);
        assert_eq!(last(&line)["type"], "error");
    }
    let expected = nameless(&replay(&deck(), &[]).0);
    for connection in connections.into_iter().take(8) {
        assert_eq!(nameless(&play(connection, &deck(), &[30_000])), expected);
    }
    server.end();
}

#[test]
fn standard_output_tells_all_streams_records() {
    let server = Server::tcp(&["--output", "jsonl"]);
    let told = say(&server, &deck()) + &say(&server, &busy(300, 12, 0));
    let (code, out, _) = server.terminated();
    assert_eq!((code, out), (Some(0), told));
    // One that reads late gets all.
    let server = Server::tcp(&["--output", "jsonl", "--patience", "10ms"]);
    let told = say(&server, &busy(3000, 12, 0));
    server.signal("-TERM");
    thread::sleep(Duration::from_millis(400));
    let (code, out, _) = server.ended();
    assert!(code == Some(0) && out == told, "{} bytes of {}", out.len(), told.len());
    // A reader that does not read holds up neither clients nor the end.
    let mut server = Server::tcp(&["--output", "jsonl", "--shutdown-timeout", "200ms"]);
    let expected = nameless(&replay(&deck(), &[]).0);
    for _ in 0..4 {
        assert_eq!(nameless(&say(&server, &deck())), expected);
    }
    assert_eq!(server.exit("-TERM"), Some(0));
}

/// The code blocks of a language in PROTOCOL.md that talk to a server.
fn examples(language: &str) -> Vec<String> {
    let text = std::fs::read_to_string("PROTOCOL.md").unwrap();
    let opening = format!("```{language}\n");
    let blocks = text.split(&opening).skip(1);
    let codes = blocks.map(|block| block.split("```").next().unwrap().to_owned());
    codes.filter(|code| code.contains("7000")).collect()
}

/// Runs every example of a language against a server; each prints the deck's records.
fn run_examples(language: &str, interpreter: &[&str], needs: &str) {
    let there = Command::new("sh").args(["-c", &format!("command -v {needs}")]).output().unwrap();
    if !there.status.success() {
        return skip(&format!("examples in {language}: {needs} is not installed"));
    }
    let examples = examples(language);
    assert!(!examples.is_empty());
    let expected = nameless(&replay(&deck(), &[]).0);
    for example in examples {
        let server = Server::tcp(&[]);
        let port = server.port("tcp").to_owned();
        let output = Command::new(interpreter[0])
            .args(&interpreter[1..])
            .arg(example.replace("7000", &port).replace("deck.aedat4", DECK))
            .output()
            .unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{example}");
        assert_eq!(nameless(&lines), expected, "{example}");
        server.end();
    }
}

#[test]
fn the_protocols_python_example_works() {
    run_examples("python", &["python3", "-c"], "python3");
}

#[test]
fn the_protocols_shell_example_works() {
    run_examples("sh", &["bash", "-c"], "nc");
}

#[test]
fn real_recordings_at_once_read_as_their_replays() {
    let root = std::env::var_os("DVS_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folders = ["data/poker-dvs", "data/aedat2", "data/aedat4"];
    let files: Vec<PathBuf> = folders.iter().flat_map(|f| recordings(&root.join(f))).collect();
    if files.is_empty() {
        return skip(&format!("real recordings: there is no {}/data", root.display()));
    }
    let server = Server::tcp(&["--scale", "-q"]);
    // Four at once.
    for four in files.chunks(4) {
        let playing: Vec<_> = four
            .iter()
            .map(|path| {
                let (bytes, stream) = (std::fs::read(path).unwrap(), server.connect());
                thread::spawn(move || (play(stream, &bytes, &[100_000]), bytes))
            })
            .collect();
        for (path, playing) in four.iter().zip(playing) {
            let (lines, bytes) = playing.join().unwrap();
            let expected = nameless(&replay(&bytes, &["--scale"]).0);
            assert!(nameless(&lines) == expected, "{}", path.display());
        }
    }
    server.end();
}

/// Recordings with a mark under a folder, in order.
fn recordings(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let known = |path: &PathBuf| {
        path.extension().is_some_and(|own| ["aedat", "aedat4"].iter().any(|known| own == *known))
    };
    let (folders, files): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| path.is_dir());
    let inner = folders.iter().flat_map(|folder| recordings(folder));
    files.into_iter().filter(known).chain(inner).collect()
}
