//! Datagrams into a real server: the records of what was sent, for each sender apart.

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dvs-stream");
const DECK: &str = "fixtures/deck.aedat4";
/// Nothing here takes as long; a test that would hang fails.
const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    port: String,
}

impl Server {
    fn start(format: &str, flags: &[&str]) -> Server {
        let mut child = Command::new(PROGRAM)
            .args(["serve", "-q", "--output", "jsonl", "--udp", &format!("0={format}")])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let port =
            line.trim_end().strip_prefix("listening udp 127.0.0.1:").expect(&line).to_owned();
        Server { child, stdout, port }
    }

    /// Sends SIGTERM and gives what is left of standard output.
    fn terminate(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let mut lines = String::new();
        self.stdout.read_to_string(&mut lines).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        lines
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(port: &str, format: &str) {
    let url = format!("udp://127.0.0.1:{port}?format={format}");
    let sent = Command::new(PROGRAM).args(["send", "-q", "--speed", "20", DECK, &url]).status();
    assert!(sent.unwrap().success());
}

/// Lines of each stream without its name, the streams in the order of their first lines.
fn by_stream(lines: &str) -> Vec<Vec<String>> {
    let mut streams: Vec<(String, Vec<String>)> = Vec::new();
    for line in lines.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let name = record["stream"].as_str().unwrap().to_owned();
        let nameless = line.replace(&name, "");
        match streams.iter_mut().find(|(other, _)| *other == name) {
            Some((_, lines)) => lines.push(nameless),
            None => streams.push((name, vec![nameless])),
        }
    }
    streams.into_iter().map(|(_, lines)| lines).collect()
}

fn replayed() -> Vec<String> {
    let output = Command::new(PROGRAM).args(["replay", "-q", DECK]).output().unwrap();
    by_stream(&String::from_utf8(output.stdout).unwrap()).remove(0)
}

#[test]
fn datagrams_read_as_their_replay_each_sender_apart() {
    let server = Server::start("faery-t64", &[]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| send(&server.port, "faery-t64"));
        }
    });
    std::thread::sleep(Duration::from_millis(200));
    let streams = by_stream(&server.terminate());
    let expected = replayed();
    assert_eq!(streams.len(), 2);
    for lines in streams {
        assert_eq!(lines, expected);
    }
}

#[test]
fn a_silent_sender_ends_and_its_slot_is_free() {
    let mut server = Server::start("faery-t32", &["--idle-timeout", "300ms", "--max-streams", "1"]);
    let begun = Instant::now();
    for pass in 0..2 {
        send(&server.port, "faery-t32");
        loop {
            let mut line = String::new();
            server.stdout.read_line(&mut line).unwrap();
            assert!(begun.elapsed() < PATIENCE);
            let record: Value = serde_json::from_str(&line).unwrap();
            if record["type"] == "summary" {
                assert_eq!(record["segments"], 8, "pass {pass}");
                break;
            }
        }
    }
    assert_eq!(server.terminate(), "");
}

#[test]
fn hostile_datagrams_are_counted_and_the_next_one_is_read() {
    let server = Server::start("faery-t64", &[]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = format!("127.0.0.1:{}", server.port);
    let event = [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 4, 0, 1];
    let beyond = [0xff; 13];
    for datagram in [&event[..], &[], &event[..5], &beyond, &[7; 1000], &event] {
        socket.send_to(datagram, &to).unwrap();
    }
    std::thread::sleep(Duration::from_millis(200));
    let streams = by_stream(&server.terminate());
    let summary: Value = serde_json::from_str(streams[0].last().unwrap()).unwrap();
    assert_eq!(summary["type"], "summary");
    assert!(summary["losses"]["malformed"].as_u64().unwrap() >= 3, "{summary}");
}
