//! A real server process, driven over loopback from this one.
//!
//! ```text
//! cargo bench --bench serve                      1, 50 and 100 TCP streams, then one flat out
//! cargo bench --bench serve -- tcp 200 4         so many streams for so many seconds
//! cargo bench --bench serve -- unix 200 4
//! cargo bench --bench serve -- tcp 1 4 --spin    what follows are flags of the server
//! cargo bench --bench serve -- flat 20           so many million events, AEDAT 4 uncompressed
//! ```
//!
//! Each stream sends 175 events a millisecond as AEDAT 2.0, cut half a window off the windows'
//! edges. A window's latency runs from before the send of the chunk that completes it to its
//! prediction read; the server's CPU time is that of its process.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dvs_stream::codec::{Compression, EncoderOptions, by_name};
use dvs_stream::event::{Event, Polarity};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

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

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn connect(kind: &str, address: &str) -> Socket {
        if kind == "unix" {
            let stream = UnixStream::connect(address).expect("connects");
            stream.set_nonblocking(true).expect("not blocking");
            return Socket::Unix(stream);
        }
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_nodelay(true).expect("no delay");
        stream.set_nonblocking(true).expect("not blocking");
        Socket::Tcp(stream)
    }

    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    fn end(&self) {
        match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
        .expect("ends");
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

/// A stream: what of it was sent when, and what was answered.
struct Client {
    socket: Socket,
    sent: Vec<Duration>,
    held: Vec<u8>,
    ended: bool,
}

/// All streams, sent to and read from by one thread: two would take the server's core.
struct Clients {
    clients: Vec<Client>,
    epoll: Epoll,
    ready: Vec<EpollEvent>,
    buffer: Vec<u8>,
    begun: Instant,
    latencies: Vec<Duration>,
    /// Time spent on sending and reading, not on waiting for either.
    busy: Duration,
}

impl Clients {
    fn connect(kind: &str, n: usize, address: &str) -> Clients {
        let epoll = Epoll::new(EpollCreateFlags::empty()).expect("epoll");
        let client = |i: usize| {
            let socket = Socket::connect(kind, address);
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, i as u64)).expect("adds");
            Client { socket, sent: Vec::new(), held: Vec::new(), ended: false }
        };
        Clients {
            clients: (0..n).map(client).collect(),
            epoll,
            ready: vec![EpollEvent::empty(); 64],
            buffer: vec![0; 64 << 10],
            begun: Instant::now(),
            latencies: Vec::new(),
            busy: Duration::ZERO,
        }
    }

    /// Reads what has come.
    fn read(&mut self, timeout: EpollTimeout) {
        let n = self.epoll.wait(&mut self.ready, timeout).expect("waits");
        let begun = Instant::now();
        for event in &self.ready[..n] {
            let client = &mut self.clients[event.data() as usize];
            let n = match client.socket.read(&mut self.buffer) {
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => panic!("{error}"),
            };
            if n == 0 {
                client.ended = true;
                self.epoll.delete(&client.socket).expect("removes");
                continue;
            }
            let now = self.begun.elapsed();
            client.held.extend_from_slice(&self.buffer[..n]);
            let whole = client.held.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            // A window is complete with the first event of the chunk after its own; the last one
            // ends with the stream.
            let windows = client.held[..whole].split(|b| *b == b'\n').filter_map(window_of);
            let sent = windows.filter_map(|window| client.sent.get(window + 1));
            self.latencies.extend(sent.map(|sent| now.saturating_sub(*sent)));
            client.held.drain(..whole);
        }
        self.busy += begun.elapsed();
    }

    fn send(&mut self, i: usize, mut bytes: &[u8]) {
        let now = self.begun.elapsed();
        self.clients[i].sent.push(now);
        while !bytes.is_empty() {
            let begun = Instant::now();
            let written = self.clients[i].socket.write(bytes);
            self.busy += begun.elapsed();
            match written {
                Ok(n) => bytes = &bytes[n..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.read(EpollTimeout::ZERO);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// `n` streams in real time for `seconds`, to a server with these flags.
fn paced(kind: &str, n: usize, seconds: u64, flags: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket").display().to_string();
    let listen = if kind == "unix" { ["--unix", &path] } else { ["--port", "0"] };
    let server = Server::start(&[&listen, flags].concat());
    let chunks_a_stream = seconds as usize * 1000;
    let mut next = 0;
    let mut chunks: Vec<Vec<u8>> =
        (0..chunks_a_stream as u64).map(|k| chunk(&mut next, k * 1000 + 500)).collect();
    chunks[0].splice(0..0, b"#!AER-DAT2.0\r\n".iter().copied());
    let mut clients = Clients::connect(kind, n, &server.address);
    let cpu = server.cpu_s();
    let start = clients.begun.elapsed() + Duration::from_millis(20);
    let mut behind = Duration::ZERO;
    for (k, chunk) in chunks.iter().enumerate() {
        for i in 0..n {
            let due =
                start + Duration::from_nanos(1_000_000 * k as u64 + (1_000_000 * i / n) as u64);
            clients.read(EpollTimeout::ZERO);
            while clients.begun.elapsed() < due {
                clients.read(EpollTimeout::ZERO);
            }
            behind = behind.max(clients.begun.elapsed().saturating_sub(due));
            clients.send(i, chunk);
        }
    }
    let wall_s = (clients.begun.elapsed() - start).as_secs_f64();
    clients.clients.iter().for_each(|client| client.socket.end());
    while clients.clients.iter().any(|client| !client.ended) {
        clients.read(EpollTimeout::NONE);
    }
    let after = server.cpu_s();
    let mut latencies = clients.latencies;
    latencies.sort_unstable();
    let windows = n * (chunks_a_stream - 1);
    let at = |q: f64| latencies[((latencies.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3;
    let events = (windows as u64 * PER_WINDOW) as f64;
    let (user, system) = (after.0 - cpu.0, after.1 - cpu.1);
    println!(
        "{kind} {n:4} streams: p50 {:.3} ms, p99 {:.3} ms, max {:.2} ms; {:.2} of {:.2} Mev/s; \
         server {:.2} us a window ({:.2} system), {:.0} % of a core; client {:.0} %, at most \
         {:.1} ms behind; {} of {windows} windows answered",
        at(0.5),
        at(0.99),
        at(1.0),
        events / wall_s * 1e-6,
        (n as u64 * PER_WINDOW) as f64 * 1e-3,
        (user + system) * 1e6 / windows as f64,
        system * 1e6 / windows as f64,
        (user + system) / wall_s * 100.0,
        clients.busy.as_secs_f64() / wall_s * 100.0,
        behind.as_secs_f64() * 1e3,
        latencies.len(),
    );
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
            let flags: Vec<&str> = arguments.iter().skip(3).map(String::as_str).collect();
            paced(kind, number(1).unwrap_or(1) as usize, number(2).unwrap_or(4), &flags);
        }
        Some("flat") => flat_out(number(1).unwrap_or(20)),
        _ => {
            [1, 50, 100].iter().for_each(|n| paced("tcp", *n, 4, &[]));
            flat_out(20);
        }
    }
}
