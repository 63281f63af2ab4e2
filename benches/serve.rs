//! A real server process, driven over loopback from this one.
//!
//! ```text
//! cargo bench --bench serve                      1, 50 and 100 TCP streams, then one flat out
//! cargo bench --bench serve -- tcp 200 4         so many streams for so many seconds
//! cargo bench --bench serve -- unix 200 4
//! cargo bench --bench serve -- flat 20           so many million events, AEDAT 4 uncompressed
//! ```
//!
//! Each stream sends 175 events a millisecond as AEDAT 2.0, cut half a window off the windows'
//! edges. A window's latency runs from before the send of the chunk that completes it to its
//! prediction read; the server's CPU time is that of its process.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dvs_stream::codec::{Compression, EncoderOptions, by_name};
use dvs_stream::event::{Event, Polarity};
use tokio::io::AsyncReadExt;

const PER_WINDOW: u64 = 175;
const CLOCK_TICKS_S: f64 = 100.0;

/// Event `k` of a stream: dots that wander over 35 x 35 pixels.
fn event(k: u64) -> Event {
    let mixed = (k.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 40;
    let (spread, drift) = (mixed % 12, k / 20_000);
    Event {
        t_us: k * 1000 / PER_WINDOW,
        x: ((spread + drift) % 35) as u16,
        y: ((mixed / 16 % 12 + drift) % 35) as u16,
        polarity: Polarity::from_on(mixed.is_multiple_of(2)),
    }
}

/// AEDAT 2.0 words of the events up to a time.
fn chunk(next: &mut u64, until_us: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let Event { t_us, x, y, polarity } = event(*next);
        if t_us >= until_us {
            return bytes;
        }
        let address = u32::from(y) << 8 | u32::from(x) << 1 | (polarity == Polarity::Off) as u32;
        bytes.extend(address.to_be_bytes());
        bytes.extend((t_us as u32).to_be_bytes());
        *next += 1;
    }
}

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(flags: &[&str]) -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_dvs-stream"))
            .args(["serve", "--max-streams", "1024"])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("its output"));
        lines.read_line(&mut line).expect("its address");
        let address = line.trim_end().rsplit(' ').next().expect("its address").to_owned();
        Server { child, address }
    }

    /// User and system time so far, in seconds.
    fn cpu_s(&self) -> (f64, f64) {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split(' ').collect();
        let seconds =
            |k: usize| fields.get(k).and_then(|f| f.parse::<f64>().ok()).unwrap_or(f64::NAN);
        (seconds(12) / CLOCK_TICKS_S, seconds(13) / CLOCK_TICKS_S)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

enum Half {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Half {
    /// Sends all; both halves share one socket, which the reading one has made non-blocking.
    fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let sent = match self {
                Half::Tcp(stream) => stream.write(bytes),
                Half::Unix(stream) => stream.write(bytes),
            };
            match sent {
                Ok(n) => bytes = &bytes[n..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn end(self) {
        match self {
            Half::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Half::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
        .expect("ends");
    }
}

/// A connection, to be written and to be read.
fn connect(kind: &str, address: &str) -> (Half, Half) {
    if kind == "unix" {
        let stream = UnixStream::connect(address).expect("connects");
        return (Half::Unix(stream.try_clone().expect("clones")), Half::Unix(stream));
    }
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_nodelay(true).expect("no delay");
    (Half::Tcp(stream.try_clone().expect("clones")), Half::Tcp(stream))
}

/// `n` streams in real time for `seconds`.
fn paced(kind: &str, n: usize, seconds: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket").display().to_string();
    let server = match kind {
        "unix" => Server::start(&["--unix", &path]),
        _ => Server::start(&["--port", "0"]),
    };
    let chunks_a_stream = seconds as usize * 1000;
    let mut next = 0;
    let mut chunks: Vec<Vec<u8>> =
        (0..chunks_a_stream as u64).map(|k| chunk(&mut next, k * 1000 + 500)).collect();
    chunks[0].splice(0..0, b"#!AER-DAT2.0\r\n".iter().copied());
    let (mut senders, halves): (Vec<_>, Vec<_>) =
        (0..n).map(|_| connect(kind, &server.address)).unzip();
    let begun = Instant::now();
    let sent: Arc<Vec<AtomicU64>> =
        Arc::new((0..n * chunks_a_stream).map(|_| AtomicU64::new(0)).collect());
    let reading = {
        let sent = sent.clone();
        thread::spawn(move || read_all(halves, &sent, chunks_a_stream, begun))
    };
    let cpu = server.cpu_s();
    let start = begun.elapsed() + Duration::from_millis(20);
    let mut behind = Duration::ZERO;
    for (k, chunk) in chunks.iter().enumerate() {
        for (i, sender) in senders.iter_mut().enumerate() {
            let due =
                start + Duration::from_nanos(1_000_000 * k as u64 + (1_000_000 * i / n) as u64);
            let now = begun.elapsed();
            if due > now + Duration::from_micros(60) {
                thread::sleep(due - now - Duration::from_micros(50));
            }
            while begun.elapsed() < due {
                std::hint::spin_loop();
            }
            let now = begun.elapsed();
            behind = behind.max(now.saturating_sub(due));
            let stamp = &sent[i * chunks_a_stream + k];
            stamp.store(now.as_nanos() as u64, Ordering::Release);
            sender.send(chunk);
        }
    }
    let wall_s = (begun.elapsed() - start).as_secs_f64();
    senders.into_iter().for_each(Half::end);
    let mut latencies = reading.join().expect("reads");
    let after = server.cpu_s();
    latencies.sort_unstable();
    let windows = n * (chunks_a_stream - 1);
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize] as f64 * 1e-6;
    let events = (windows as u64 * PER_WINDOW) as f64;
    let (user, system) = (after.0 - cpu.0, after.1 - cpu.1);
    println!(
        "{kind} {n:4} streams: p50 {:.3} ms, p99 {:.3} ms, max {:.2} ms; {:.2} of {:.2} Mev/s; \
         server {:.2} us a window ({:.2} system), {:.0} % of a core; sender at most {:.1} ms \
         behind; {} of {windows} windows answered",
        at(0.5),
        at(0.99),
        at(1.0),
        events / wall_s * 1e-6,
        (n as u64 * PER_WINDOW) as f64 * 1e-3,
        (user + system) * 1e6 / windows as f64,
        system * 1e6 / windows as f64,
        (user + system) / wall_s * 100.0,
        behind.as_secs_f64() * 1e3,
        latencies.len().min(windows),
    );
}

/// Reads all connections to their ends; gives the latencies in ns.
fn read_all(
    halves: Vec<Half>,
    sent: &Arc<Vec<AtomicU64>>,
    chunks_a_stream: usize,
    begun: Instant,
) -> Vec<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let tasks: Vec<_> = halves
            .into_iter()
            .enumerate()
            .map(|(i, half)| {
                let sent = sent.clone();
                tokio::spawn(async move {
                    let mut reader: Box<dyn tokio::io::AsyncRead + Unpin + Send> = match half {
                        Half::Tcp(stream) => {
                            stream.set_nonblocking(true).expect("not blocking");
                            Box::new(tokio::net::TcpStream::from_std(stream).expect("a stream"))
                        }
                        Half::Unix(stream) => {
                            stream.set_nonblocking(true).expect("not blocking");
                            Box::new(tokio::net::UnixStream::from_std(stream).expect("a stream"))
                        }
                    };
                    let (mut held, mut latencies) = (Vec::new(), Vec::new());
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(n) = reader.read(&mut buffer).await {
                        if n == 0 {
                            break;
                        }
                        let now = begun.elapsed().as_nanos() as u64;
                        held.extend_from_slice(&buffer[..n]);
                        let whole = held.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
                        for line in held[..whole].split(|b| *b == b'\n') {
                            let Some(window) = window_of(line) else { continue };
                            // The last window ends with the stream, not with a chunk.
                            if window + 1 < chunks_a_stream {
                                let stamp = &sent[i * chunks_a_stream + window + 1];
                                latencies.push(now.saturating_sub(stamp.load(Ordering::Acquire)));
                            }
                        }
                        held.drain(..whole);
                    }
                    latencies
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("a reader"));
        }
        all
    })
}

/// Number of the window of a prediction's line.
fn window_of(line: &[u8]) -> Option<usize> {
    let line = std::str::from_utf8(line).ok()?;
    let rest = line.strip_prefix("{\"type\":\"prediction\"")?.split_once("\"window\":")?.1;
    rest.split(',').next()?.parse().ok()
}

/// One stream of so many million events as fast as it goes.
fn flat_out(millions: u64) {
    let server = Server::start(&["--port", "0"]);
    let encoder = by_name("aedat4").expect("the format").encoder.expect("its encoder");
    let size = dvs_stream::event::SensorSize { width: 35, height: 35 };
    let mut encoder =
        encoder(&EncoderOptions { sensor: Some(size), compression: Compression::None });
    let events: Vec<Event> = (0..millions * 1_000_000).map(event).collect();
    let mut bytes = Vec::new();
    events.chunks(10_000).for_each(|packet| encoder.encode(packet, &mut bytes).expect("encodes"));
    let cpu = server.cpu_s();
    let begun = Instant::now();
    let mut stream = TcpStream::connect(&server.address).expect("connects");
    let mut reader = stream.try_clone().expect("clones");
    let reading = thread::spawn(move || {
        let (mut buffer, mut lines, mut tail) = (vec![0; 256 << 10], 0_u64, Vec::new());
        while let Ok(n) = reader.read(&mut buffer) {
            if n == 0 {
                break;
            }
            lines += buffer[..n].iter().filter(|byte| **byte == b'\n').count() as u64;
            tail = buffer[n.saturating_sub(400)..n].to_vec();
        }
        (lines, String::from_utf8_lossy(&tail).into_owned())
    });
    stream.write_all(&bytes).expect("sends");
    stream.shutdown(Shutdown::Write).expect("shuts");
    let (lines, tail) = reading.join().expect("reads");
    let wall_s = begun.elapsed().as_secs_f64();
    let after = server.cpu_s();
    let summary = tail.lines().last().unwrap_or_default();
    let told = summary.split_once("\"events\":").and_then(|(_, rest)| rest.split(',').next());
    assert_eq!(told, Some((millions * 1_000_000).to_string().as_str()), "{summary}");
    let seconds = after.0 + after.1 - cpu.0 - cpu.1;
    println!(
        "flat out: {:.1} Mev/s into {lines} lines; server {:.1} Mev a CPU second ({:.0} % system)",
        millions as f64 / wall_s,
        millions as f64 / seconds,
        (after.1 - cpu.1) / seconds * 100.0
    );
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |k: usize| arguments.get(k).and_then(|n| n.parse().ok());
    match arguments.first().map(String::as_str) {
        Some(kind @ ("tcp" | "unix")) => {
            paced(kind, number(1).unwrap_or(1) as usize, number(2).unwrap_or(4));
        }
        Some("flat") => flat_out(number(1).unwrap_or(20)),
        _ => {
            [1, 50, 100].iter().for_each(|n| paced("tcp", *n, 4));
            flat_out(20);
        }
    }
}
