//! Who is let in, under which name, and how connections end: real sockets, a real server.

mod server;
mod skip;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::libc::linger;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;
use server::events::DECK;
use server::{PATIENCE, PROGRAM, Server, nameless, records, replay, rest_of};
use skip::skip;

/// A server whose standard error is heard.
fn plain(flags: &[&str], listeners: usize) -> Server {
    Server::run(Command::new(PROGRAM).arg("serve").args(flags).stderr(Stdio::piped()), listeners)
}

/// A server that may have so many files open, at first and at most.
fn confined(soft: u32, hard: u32, flags: &str) -> Server {
    let script = format!("ulimit -S -n {soft} && ulimit -H -n {hard} && exec \"$0\" serve {flags}");
    Server::run(Command::new("sh").args(["-c", &script, PROGRAM]).stderr(Stdio::piped()), 1)
}

impl Server {
    /// Ends it in good order, with nothing to complain about.
    fn end(self) {
        self.signal("-TERM");
        let (code, out, err) = self.ended();
        assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""));
    }

    /// What a connection that sends all of this and closes is answered.
    fn say(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        rest_of(stream)
    }
}

fn deck() -> Vec<u8> {
    std::fs::read(DECK).unwrap()
}

fn replayed() -> String {
    nameless(&replay(Path::new(DECK), &[]))
}

/// Events of AEDAT 2.0 in one pixel, 125 µs apart, from the `from`th on.
fn events(from: u32, n: u32) -> Vec<u8> {
    (from..from + n).flat_map(|k| [3 << 8 | 3 << 1, 125 * k]).flat_map(u32::to_be_bytes).collect()
}

fn unix_answers(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&deck()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    nameless(&rest_of(stream))
}

#[test]
fn only_a_socket_that_nobody_listens_on_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("file"), "mine").unwrap();
    symlink(at("file"), at("link")).unwrap();
    drop(UnixListener::bind(at("stale")).unwrap());
    symlink(at("stale"), at("link-to-socket")).unwrap();
    let heard = UnixListener::bind(at("heard")).unwrap();
    for (name, why) in [
        ("file", "it is no socket"),
        ("link", "it is no socket"),
        ("link-to-socket", "it is no socket"),
        ("heard", "in use"),
    ] {
        let output =
            Command::new(PROGRAM).args(["serve", "--unix"]).arg(at(name)).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && told.contains("cannot listen on unix"), "{told}");
        assert!(told.contains(why), "{name}: {told}");
    }
    assert_eq!(std::fs::read_to_string(at("link")).unwrap(), "mine");
    assert!(at("link-to-socket").is_symlink());
    drop(heard);
    let server = plain(&["--unix", at("stale").to_str().unwrap()], 1);
    assert_eq!(unix_answers(&at("stale")), replayed());
    server.end();
    assert!(!at("stale").exists());
}

#[test]
fn a_socket_that_another_put_in_its_place_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let flags = ["--unix", path.to_str().unwrap()];
    let first = plain(&flags, 1);
    std::fs::remove_file(&path).unwrap();
    let second = plain(&flags, 1);
    first.end();
    assert_eq!(unix_answers(&path), replayed());
    second.end();
    assert!(!path.exists());
}

#[test]
fn as_many_files_may_be_open_as_connections() {
    let server = confined(40, 2000, "--port 0");
    let others: Vec<TcpStream> = (0..60).map(|_| server.connect()).collect();
    assert_eq!(nameless(&server.say(&deck())), replayed());
    drop(others);
    server.end();
}

#[test]
fn thousands_of_streams_are_served_at_once() {
    const N: usize = 10_000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let n = N.min(hard.saturating_sub(1000).max(1) as usize);
    if n < N {
        skip(&format!("{hard} files may be open: {n} streams instead of {N}"));
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let slots = n.to_string();
    let flags = ["--unix", path.to_str().unwrap(), "--max-streams", &slots, "--tick", "1ms"];
    let server = plain(&flags, 1);
    let clients = std::iter::repeat_with(|| {
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"#!AER-DAT2.0\r\n").unwrap();
        client.write_all(&events(0, 20)).unwrap();
        client
    });
    let clients: Vec<UnixStream> = clients.take(n).collect();
    // The last one is answered, so all have a slot, and none has ended.
    let mut first = String::new();
    let mut last = BufReader::new(&clients[n - 1]);
    last.read_line(&mut first).unwrap();
    clients.iter().for_each(|client| client.shutdown(Shutdown::Write).unwrap());
    let expected = nameless(&(first + &rest_of(last)));
    assert_eq!(expected.lines().count(), 3 + 2, "{expected}");
    for client in &clients[..n - 1] {
        assert_eq!(nameless(&rest_of(client)), expected);
    }
    server.end();
}

#[test]
fn where_files_run_out_it_is_said_once() {
    let mut server = confined(60, 60, "--port 0");
    let told = server.warning();
    assert!(told.contains("60 files") && told.contains("320 connections"), "{told}");
    for _ in 0..2 {
        let others: Vec<TcpStream> = (0..80).map(|_| server.connect()).collect();
        let told = server.warning();
        assert!(told.contains("no connection can be accepted on tcp"), "{told}");
        drop(others);
        // It has heard one again.
        assert_eq!(nameless(&server.say(&deck())), replayed());
    }
    server.end();
}

#[test]
fn connections_that_come_at_once_are_no_more_than_may_be() {
    let server = plain(&["--port", "0", "--max-streams", "1"], 1);
    let first: Vec<TcpStream> = (0..200).map(|_| server.connect()).collect();
    let mut told: Vec<String> = first[1..].iter().map(rest_of).collect();
    // They wait to be accepted, so that all are there at once.
    server.signal("-STOP");
    let all: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
    server.signal("-CONT");
    told.extend(all.iter().map(rest_of));
    let n = |what| told.iter().filter(|line| line.contains(what)).count();
    assert_eq!((n("slots are taken"), n("too many connections")), (256, 43));
    drop(first);
    drop(all);
    server.end();
}

const NAMED: &[u8] = b"dvs-stream {\"stream\":\"cam\"}\n";

/// A camera with a name that has been answered, and is in the middle of its recording.
fn begun(server: &Server) -> TcpStream {
    let mut camera = server.connect();
    let half = deck().len() / 2;
    camera.write_all(&[NAMED, &deck()[..half]].concat()).unwrap();
    let mut lines = BufReader::new(camera);
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"type\":\"prediction\""), "{line}");
    lines.into_inner()
}

#[test]
fn a_camera_that_comes_back_at_once_has_its_name_and_its_slot() {
    for slots in ["1", "4"] {
        let server = plain(&["--port", "0", "--max-streams", slots], 1);
        for _ in 0..30 {
            // Broken, not closed.
            let broken = linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&begun(&server), sockopt::Linger, &broken).unwrap();
        }
        for _ in 0..10 {
            begun(&server).shutdown(Shutdown::Write).unwrap();
        }
        // One that is there keeps them.
        let camera = begun(&server);
        let why = if slots == "1" { "slots are taken" } else { "open already" };
        assert!(server.say(NAMED).contains(why));
        drop(camera);
        assert_eq!(nameless(&server.say(&[NAMED, &deck()].concat())), replayed());
        server.end();
    }
}

#[test]
fn at_the_end_who_still_sends_and_reads_late_gets_all() {
    let server = plain(&["--port", "0", "--shutdown-timeout", "60s"], 1);
    let mut stream = server.connect();
    stream.write_all(b"#!AER-DAT2.0\r\n").unwrap();
    let (mut sent, mut room) = (0, vec![0; 1 << 20]);
    // What waits stays where it is.
    let mut until = |stream: &mut TcpStream, what: &str| {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "no {what}");
            // All answers have room.
            if sent < 2000 {
                stream.write_all(&events(sent, 4)).unwrap();
                sent += 4;
            }
            stream.set_nonblocking(true).unwrap();
            let n = match stream.peek(&mut room) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                n => n.unwrap(),
            };
            stream.set_nonblocking(false).unwrap();
            if String::from_utf8_lossy(&room[..n]).contains(what) {
                return;
            }
        }
    };
    until(&mut stream, "prediction");
    server.signal("-TERM");
    until(&mut stream, "summary");
    for k in 0..1000 {
        stream.write_all(&events(1_000_000 + k, 1)).unwrap();
    }
    let lines = rest_of(&stream);
    let summary = records(&lines, "summary").next().unwrap();
    assert_eq!(summary["windows"], records(&lines, "prediction").count());
    drop(stream);
    let (code, _, err) = server.ended();
    assert_eq!((code, err.as_str()), (Some(0), ""));
}

#[test]
fn events_without_times_have_that_of_their_arrival() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let server = plain(&["--port", "0", "--unix", path.to_str().unwrap()], 2);
    let event = |k: u32| (1 << 31 | (k % 30) << 16 | (k % 20)).to_le_bytes();
    let untimed: Vec<u8> = (0..1000).flat_map(event).collect();
    let bytes = [&b"dvs-stream {\"format\":\"spif\"}\n"[..], &untimed].concat();
    let mut unix = UnixStream::connect(&path).unwrap();
    unix.write_all(&bytes).unwrap();
    unix.shutdown(Shutdown::Write).unwrap();
    for lines in [server.say(&bytes), rest_of(unix)] {
        let summary: Value = records(&lines, "summary").next().unwrap();
        assert_eq!(summary["events"], 1000, "{lines}");
        assert!(records(&lines, "error").next().is_none(), "{lines}");
    }
    server.end();
}

/// Listens to all streams; gives what follows the head of the answer.
fn subscribed(server: &Server) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(server.address("http")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /v1/predictions HTTP/1.0\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0);
    }
    lines
}

/// Many clients that send as fast as they can; gives the number of lines that they are told.
fn flat_out(server: &Server, clients: u32, windows: u32) -> usize {
    let bytes = [&b"#!AER-DAT2.0\r\n"[..], &events(0, 8 * windows)].concat();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..clients).map(|_| scope.spawn(|| server.say(&bytes))).collect();
        all.into_iter().map(|one| one.join().unwrap().lines().count()).sum()
    })
}

#[test]
fn who_reads_all_streams_records_misses_none_of_them() {
    let flags = ["--port", "0", "--http", "0", "--outbox", "16", "--patience", "60s"];
    let server = plain(&[&flags[..], &["--output", "jsonl"]].concat(), 2);
    let subscriber = subscribed(&server);
    let reading = std::thread::spawn(move || rest_of(subscriber));
    let told = flat_out(&server, 30, 2000);
    assert!(told > 60_000);
    assert_eq!(server.metrics().sum("dvs_records_missed_total", &[]), 0);
    server.signal("-TERM");
    // Standard output is read late.
    let (_, printed, _) = server.ended();
    assert_eq!(printed.lines().count(), told);
    let heard = reading.join().unwrap();
    assert_eq!(heard.lines().filter(|line| line.starts_with("data: ")).count(), told);
}

#[test]
fn who_does_not_read_all_streams_records_misses_the_oldest() {
    let flags = ["--port", "0", "--http", "0", "--outbox", "16", "--patience", "1ms"];
    let server = plain(&flags, 2);
    let mut late = subscribed(&server);
    let (begun, mut all, mut missed) = (Instant::now(), 0, 0);
    // More than lies in both sockets.
    while missed == 0 {
        all += flat_out(&server, 8, 5000);
        missed = server.metrics().sum("dvs_records_missed_total", &[]);
        assert!(begun.elapsed() < PATIENCE);
    }
    let (mut told, mut marked) = (0, 0);
    while told + marked < all as u64 {
        let mut line = String::new();
        late.read_line(&mut line).unwrap();
        let Some(line) = line.strip_prefix("data: ") else { continue };
        let record: Value = serde_json::from_str(line).unwrap();
        match record["type"] == "missed" {
            true => marked = record["records"].as_u64().unwrap(),
            false => told += 1,
        }
    }
    assert_eq!((told + marked, marked), (all as u64, missed));
    drop(late);
    server.end();
}

#[test]
fn subscribers_are_no_more_than_may_be() {
    let server = plain(&["--port", "0", "--http", "0"], 2);
    let mut all: Vec<_> = (0..32).map(|_| subscribed(&server)).collect();
    let (status, why) = server.request("GET /v1/predictions", "");
    assert_eq!((status, why.as_str()), (503, "too many subscribers\n"));
    all.pop();
    let begun = Instant::now();
    // One whose subscriber has gone is free when that is seen.
    loop {
        let mut stream = TcpStream::connect(server.address("http")).unwrap();
        stream.write_all(b"GET /v1/predictions HTTP/1.0\r\n\r\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        if line.contains(" 200 ") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE);
    }
    drop(all);
    server.end();
}

#[test]
fn who_finds_no_room_over_http_is_told_so() {
    let server = plain(&["--port", "0", "--http", "0"], 2);
    let connect = || TcpStream::connect(server.address("http")).unwrap();
    let served: Vec<TcpStream> = (0..64).map(|_| connect()).collect();
    let mut stream = connect();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let told = rest_of(stream).to_lowercase();
    assert!(told.starts_with("http/1.1 503 ") && told.contains("\r\nretry-after: 1\r\n"), "{told}");
    assert_eq!(server.request("POST /v1/snapshot", "").0, 503);
    assert_eq!(server.request("GET /livez", "").0, 200);
    let turned_away: Vec<TcpStream> = (0..16).map(|_| connect()).collect();
    assert!(matches!(connect().read(&mut [0]), Ok(0) | Err(_)));
    drop((served, turned_away));
    let is_served = || {
        let (mut stream, mut told) = (connect(), String::new());
        // Until the server sees who has gone, it may be closed unheard.
        let _ = stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .and_then(|()| stream.read_to_string(&mut told).map(drop));
        told.starts_with("HTTP/1.1 200 ")
    };
    let (begun, mut refused) = (Instant::now(), 3 + 16 + 1);
    while !is_served() {
        refused += 1;
        assert!(begun.elapsed() < PATIENCE);
    }
    assert_eq!(server.metrics().sum("dvs_connections_refused_total", &[]), refused);
    server.end();
}
