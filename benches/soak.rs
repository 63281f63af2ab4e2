//! Does a server keep its size? A day of one stream at top speed, then streams that come and go.
//!
//! ```text
//! cargo bench --bench soak -- day 24        so many hours of sensor time
//! cargo bench --bench soak -- churn 600     so many seconds of wall time
//! ```
//!
//! Prints what the server's process holds every now and then, and fails where it grows by more than
//! 5 MiB after its first minute, or where a stream, file descriptor, thread or series is left
//! behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const MAX_GROWTH_KIB: u64 = 5 << 10;
const FIRST_MINUTE: Duration = Duration::from_secs(60);
/// Lines that are printed of a run.
const LINES: u32 = 10;
/// Clients at once.
const CLIENTS: u64 = 12;

struct Server {
    child: Child,
    listening: Vec<String>,
    folder: tempfile::TempDir,
}

/// What its process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    resident_kib: u64,
    descriptors: usize,
    threads: u64,
    series: usize,
    streams: u64,
}

impl Server {
    fn start() -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket").display().to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_dvs-stream"))
            .args(["serve", "-q", "--port", "0", "--http", "0", "--udp", "0=faery-t64"])
            .args(["--unix", &socket, "--idle-timeout", "2s", "--metrics-retention", "10s"])
            .args(["--max-streams", "1024"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut line = || lines.next().expect("a line").expect("of text");
        let listening = (0..4).map(|_| line()).collect();
        Server { child, listening, folder }
    }

    fn address(&self, kind: &str) -> &str {
        let start = format!("listening {kind} ");
        self.listening.iter().find_map(|line| line.strip_prefix(&start)).expect("a listener")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn held(&self) -> Held {
        let of = |what: &str| format!("/proc/{}/{what}", self.child.id());
        let status = std::fs::read_to_string(of("status")).expect("its status");
        let number = |key: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).expect(key);
            line.trim_start_matches(':').split_whitespace().next().unwrap_or("").parse().expect(key)
        };
        let descriptors = std::fs::read_dir(of("fd")).expect("its descriptors").count();
        let metrics = self.metrics();
        let series = metrics.lines().filter(|line| !line.starts_with('#'));
        let streams = series.clone().find_map(|line| line.strip_prefix("dvs_streams "));
        Held {
            resident_kib: number("VmRSS"),
            descriptors,
            threads: number("Threads"),
            series: series.count(),
            streams: streams.and_then(|n| n.parse().ok()).expect("dvs_streams"),
        }
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.address("http")).expect("connects");
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).expect("asks");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answers");
        answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Held {
    fn print(&self, when: &str) {
        let Held { resident_kib, descriptors, threads, series, streams } = self;
        println!(
            "{when:>10}  {:7.1} MiB resident, {descriptors:4} descriptors, {threads} threads, \
             {series:4} series, {streams:3} streams",
            *resident_kib as f64 / 1024.0
        );
    }
}

/// Looks at the server until `is_over`; gives what it held at most after its first minute, in KiB,
/// and what it held then.
fn watch(server: &Server, expected: Duration, is_over: impl Fn() -> bool) -> (u64, u64) {
    let begun = Instant::now();
    let (mut first, mut most, mut next) = (None, 0, expected / LINES);
    while !is_over() {
        thread::sleep(Duration::from_millis(500));
        let (held, now) = (server.held(), begun.elapsed());
        if now >= next {
            held.print(&format!("{:.0} s", now.as_secs_f64()));
            next = now + (expected / LINES).max(Duration::from_secs(5));
        }
        if now >= FIRST_MINUTE {
            first.get_or_insert(held.resident_kib);
            most = most.max(held.resident_kib);
        }
    }
    (most, first.unwrap_or(u64::MAX))
}

/// What it holds when silent senders have ended and the series of named streams were given up; a
/// minute is more than that takes.
fn at_rest(server: &Server, before: Held) -> Held {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        thread::sleep(Duration::from_secs(1));
        let held = server.held();
        let rests = held.streams == 0 && held.descriptors <= before.descriptors;
        if (rests && !server.metrics().contains("\"cam-")) || Instant::now() > patience {
            return held;
        }
    }
}

fn judge(before: Held, after: Held, (most, first): (u64, u64)) {
    before.print("before");
    after.print("after");
    println!("most after the first minute: {:.1} MiB", most as f64 / 1024.0);
    assert!(most.max(after.resident_kib) <= first.saturating_add(MAX_GROWTH_KIB), "it has grown");
    assert_eq!(after.streams, 0);
    assert_eq!(
        (after.descriptors, after.threads),
        (before.descriptors, before.threads),
        "descriptors and threads"
    );
}

/// Windows of a card that passes.
const CARD_WINDOWS: u64 = 32;
/// From one card to the next, in ms: long enough for a segment to end.
const CARD_MS: u64 = 40;
const PER_WINDOW: u64 = 24;

/// AEDAT 2.0 words of one card that begins at time 0.
fn card() -> Vec<[u32; 2]> {
    let event = |k: u64| {
        let mixed = k.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let drift = k / PER_WINDOW / 3;
        let (x, y) = ((mixed % 12 + drift) % 35, (mixed / 16 % 12 + drift) % 35);
        let address = y << 8 | x << 1 | (mixed / 256 % 2);
        [address as u32, (k * 1000 / PER_WINDOW) as u32]
    };
    (0..CARD_WINDOWS * PER_WINDOW).map(event).collect()
}

/// Bytes of so many cards from the one of this number on.
fn cards(card: &[[u32; 2]], from: u64, n: u64, bytes: &mut Vec<u8>) {
    for number in from..from + n {
        let start = (number * CARD_MS * 1000) as u32;
        for [address, t_us] in card {
            bytes.extend_from_slice(&address.to_be_bytes());
            bytes.extend_from_slice(&start.wrapping_add(*t_us).to_be_bytes());
        }
    }
}

const AEDAT2: &[u8] = b"#!AER-DAT2.0\r\n";

/// One stream of so many hours of sensor time.
fn day(hours: u64) {
    let server = Server::start();
    let before = server.held();
    let n_cards = hours * 3_600_000 / CARD_MS;
    let (mut sender, begun) =
        (TcpStream::connect(server.address("tcp")).expect("connects"), Instant::now());
    let reader = sender.try_clone().expect("clones");
    let (sent, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (grown, lines, tail) = thread::scope(|scope| {
        scope.spawn(|| {
            let (card, mut bytes) = (card(), AEDAT2.to_vec());
            while sent.load(Ordering::Relaxed) < n_cards {
                let from = sent.load(Ordering::Relaxed);
                let n = (n_cards - from).min(16);
                cards(&card, from, n, &mut bytes);
                sender.write_all(&bytes).expect("sends");
                bytes.clear();
                sent.store(from + n, Ordering::Relaxed);
            }
            sender.shutdown(Shutdown::Write).expect("shuts");
        });
        let reading = scope.spawn(|| {
            let read = lines_and_tail(reader);
            over.store(true, Ordering::Relaxed);
            read
        });
        // How long it takes is known after a few seconds.
        while sent.load(Ordering::Relaxed) == 0 {
            thread::yield_now();
        }
        thread::sleep(Duration::from_secs(5));
        let rate = sent.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
        let grown = watch(&server, Duration::from_secs_f64(n_cards as f64 / rate), || {
            over.load(Ordering::Relaxed)
        });
        let (lines, tail) = reading.join().expect("reads");
        (grown, lines, tail)
    });
    let wall_s = begun.elapsed().as_secs_f64();
    let summary = tail.lines().last().unwrap_or_default();
    let events = n_cards * CARD_WINDOWS * PER_WINDOW;
    assert!(summary.contains(&format!("\"events\":{events},")), "{summary}");
    assert!(summary.contains(&format!("\"segments\":{n_cards},")), "{summary}");
    let none = "\"late\":0,\"outside\":0,\"overflow\":0,\"malformed\":0},\"restarts\":0";
    assert!(summary.contains(none), "{summary}");
    println!(
        "{hours} h of one stream in {wall_s:.0} s: {events} events into {lines} lines, {n_cards} \
         segments, {} times as fast as the sensor",
        (hours as f64 * 3600.0 / wall_s).round()
    );
    judge(before, at_rest(&server, before), grown);
}

/// How many lines there are, and the last of them.
fn lines_and_tail(mut reader: impl Read) -> (u64, String) {
    let (mut buffer, mut lines, mut tail) = (vec![0; 256 << 10], 0, Vec::new());
    loop {
        let n = reader.read(&mut buffer).expect("reads");
        if n == 0 {
            return (lines, String::from_utf8_lossy(&tail).into_owned());
        }
        lines += buffer[..n].iter().filter(|byte| **byte == b'\n').count() as u64;
        tail.extend_from_slice(&buffer[n.saturating_sub(1000)..n]);
        tail.drain(..tail.len().saturating_sub(1000));
    }
}

/// Streams that come and go for so many seconds: sound ones, named or not, over TCP and UNIX; ones
/// that are broken off, damaged, refused; senders of datagrams.
fn churn(seconds: u64) {
    let server = Server::start();
    let before = server.held();
    let (numbers, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut sound = AEDAT2.to_vec();
    cards(&card(), 0, 2, &mut sound);
    let end = Instant::now() + Duration::from_secs(seconds);
    let grown = thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    come_and_go(&server, numbers.fetch_add(1, Ordering::Relaxed), &sound);
                }
            });
        }
        let grown = watch(&server, Duration::from_secs(seconds), || Instant::now() >= end);
        over.store(true, Ordering::Relaxed);
        grown
    });
    println!("{} streams came and went", numbers.load(Ordering::Relaxed));
    judge(before, at_rest(&server, before), grown);
    assert!(!server.metrics().contains("\"cam-"), "a stream's series are left behind");
}

/// One stream, of a kind that its number tells.
fn come_and_go(server: &Server, number: u64, sound: &[u8]) {
    let tcp = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(server.address("tcp")).expect("connects");
        // The server may have turned it away before all is sent.
        let _ = stream.write_all(bytes);
        stream
    };
    let finished = |stream: TcpStream| {
        let _ = stream.shutdown(Shutdown::Write);
        let mut lines = String::new();
        let _ = BufReader::new(stream).read_to_string(&mut lines);
        lines
    };
    match number % 8 {
        0 | 1 => {
            let first = format!("dvs-stream {{\"stream\":\"cam-{number}\"}}\n");
            let lines = finished(tcp(&[first.as_bytes(), sound].concat()));
            assert!(lines.contains("\"segments\":2,"), "{lines}");
        }
        2 => assert!(finished(tcp(sound)).contains("\"segments\":2,")),
        3 => {
            let mut stream = UnixStream::connect(server.socket()).expect("connects");
            stream.write_all(sound).expect("sends");
            stream.shutdown(Shutdown::Write).expect("shuts");
            let mut lines = String::new();
            stream.read_to_string(&mut lines).expect("reads");
            assert!(lines.contains("\"segments\":2,"), "{lines}");
        }
        // Broken off, its answers unread.
        4 => drop(tcp(&sound[..sound.len() / 2])),
        5 => assert!(finished(tcp(&sound[..sound.len() - 3])).contains("\"error\"")),
        6 => assert!(finished(tcp(b"dvs-stream nonsense\n")).contains("\"error\"")),
        _ if number % 32 == 7 => datagrams(server),
        _ => drop(UnixStream::connect(server.socket()).expect("connects")),
    }
}

/// A sender of a few datagrams; its stream ends when it has been silent for a while.
fn datagrams(server: &Server) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(server.address("udp")).expect("connects");
    for k in 0..3_u64 {
        let mut event = (1000 * k).to_le_bytes().to_vec();
        event.extend([3, 0, 4, 0, 1]);
        socket.send(&event.repeat(50)).expect("sends");
    }
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |k: usize| arguments.get(k).and_then(|n| n.parse().ok());
    match arguments.first().map(String::as_str) {
        Some("day") => day(number(1).unwrap_or(24)),
        Some("churn") => churn(number(1).unwrap_or(3600)),
        // A quick look, so that `cargo bench` does not take an hour.
        _ => {
            day(1);
            churn(70);
        }
    }
}
