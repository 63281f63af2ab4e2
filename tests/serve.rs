//! The server as its clients see it: a real process, real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

const DECK: &str = "fixtures/deck.aedat4";

/// Nothing here takes as long; a test that would hang fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server process, killed when dropped.
struct Server {
    child: Child,
    listening: Vec<String>,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Server {
    /// Starts one with these flags and waits for its `listening` lines.
    fn start(flags: &[&str], listeners: usize) -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_dvs-stream"))
            .arg("serve")
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut listening = Vec::new();
        for _ in 0..listeners {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            let what = line.trim_end().strip_prefix("listening ").expect(&line);
            listening.push(what.to_owned());
        }
        Server { child, listening, stdout }
    }

    fn tcp(flags: &[&str]) -> Server {
        Server::start(&[&["--port", "0"], flags].concat(), 1)
    }

    /// Address of the listener of a kind.
    fn address(&self, kind: &str) -> &str {
        let found = self.listening.iter().find_map(|line| line.strip_prefix(kind));
        found.expect(kind).trim_start()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address("tcp")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends SIGTERM, waits, and gives the exit code with what was printed.
    fn terminate(mut self) -> (Option<i32>, String, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let (mut out, mut err) = (String::new(), String::new());
        self.stdout.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code(), out, err)
    }

    /// Ends it in good order, with nothing to complain about.
    fn end(self) {
        let (code, out, err) = self.terminate();
        assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `replay` prints for these bytes, and its exit code.
fn replay(bytes: &[u8], flags: &[&str]) -> (String, Option<i32>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dvs-stream"))
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

fn rest_of(mut stream: impl Read) -> String {
    let mut lines = Vec::new();
    let read = stream.read_to_end(&mut lines);
    let lines = String::from_utf8(lines).unwrap();
    read.unwrap_or_else(|error| panic!("{error} after {lines}"));
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
fn sigterm_ends_open_streams_with_their_summary() {
    let server = Server::tcp(&[]);
    let mut stream = server.connect();
    let silent = server.connect();
    stream.write_all(&deck()).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    let (code, out, err) = server.terminate();
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""));
    let rest = rest_of(lines);
    assert_eq!(last(&rest)["type"], "summary");
    assert_eq!(rest_of(silent), "");
}

#[test]
fn a_unix_client_reads_as_a_tcp_client() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let server = Server::start(&["--unix", path.to_str().unwrap()], 1);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&deck()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(nameless(&rest_of(stream)), nameless(&replay(&deck(), &[]).0));
    server.end();
    assert!(!path.exists());
}
