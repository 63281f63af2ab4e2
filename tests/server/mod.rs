//! A real server process, and what its streams should read as.

// Each test uses its part.
#![allow(dead_code)]

pub mod events;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_dvs-stream");

/// Nothing here takes as long; a test that would hang fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server, killed when dropped.
pub struct Server {
    pub child: Child,
    listening: Vec<String>,
    pub stdout: BufReader<ChildStdout>,
    /// Where it is heard.
    pub stderr: Option<BufReader<ChildStderr>>,
}

impl Server {
    /// Starts one that prints all records, and waits for its `listening` lines. On a machine that
    /// may be slow, so silence completes no window.
    pub fn start(flags: &[&str], listeners: usize) -> Server {
        let quiet = ["serve", "-q", "--output", "jsonl", "--idle", "0s"];
        Server::run(Command::new(PROGRAM).args(quiet).args(flags), listeners)
    }

    /// Starts one by this command, and waits for its `listening` lines. On a machine that may be
    /// slow, so its deadlines are long where the command names none.
    pub fn run(command: &mut Command, listeners: usize) -> Server {
        for (flag, time) in [("--header-timeout", "600s"), ("--shutdown-timeout", "30s")] {
            if !command.get_args().any(|given| given == flag) {
                command.args([flag, time]);
            }
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = child.stderr.take().map(BufReader::new);
        let mut listening = Vec::new();
        for _ in 0..listeners {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            listening.push(line.trim_end().strip_prefix("listening ").expect(&line).to_owned());
        }
        Server { child, listening, stdout, stderr }
    }

    /// Addresses of the listeners of a kind.
    pub fn addresses<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> {
        self.listening.iter().filter_map(move |line| line.strip_prefix(kind)).map(str::trim_start)
    }

    /// Address of the first listener of a kind.
    pub fn address<'a>(&'a self, kind: &'a str) -> &'a str {
        self.addresses(kind).next().expect(kind)
    }

    /// Port of the first listener of a kind.
    pub fn port<'a>(&'a self, kind: &'a str) -> &'a str {
        self.address(kind).rsplit(':').next().unwrap()
    }

    /// A client over TCP.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address("tcp")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// One request over HTTP, such as `GET /livez`, with header lines of its own; gives the status
    /// and the body.
    pub fn request(&self, what: &str, headers: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address("http")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("{what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let answer = rest_of(stream);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// What `/metrics` tells.
    pub fn metrics(&self) -> Metrics {
        let (status, text) = self.request("GET /metrics", "");
        assert_eq!(status, 200, "{text}");
        Metrics::of(&text)
    }

    /// The next line of standard output.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.stdout.read_line(&mut line).unwrap() > 0, "the server has ended");
        line
    }

    /// Its next warning, where standard error is heard.
    pub fn warning(&mut self) -> String {
        let mut line = String::new();
        self.stderr.as_mut().unwrap().read_line(&mut line).unwrap();
        assert!(line.starts_with("warning: "), "{line}");
        line
    }

    /// Lines of standard output to the next summary.
    pub fn until_summary(&mut self) -> String {
        let mut lines = String::new();
        loop {
            let line = self.line();
            lines += &line;
            if line.starts_with("{\"type\":\"summary\"") {
                return lines;
            }
        }
    }

    /// Sends a signal, such as `-TERM`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Sends a signal that ends it, and gives the exit code, with its output unread.
    pub fn exit(&mut self, signal: &str) -> Option<i32> {
        self.signal(signal);
        self.child.wait().unwrap().code()
    }

    /// Its exit code, what is left of standard output, and of standard error where that is heard.
    pub fn ended(mut self) -> (Option<i32>, String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        self.stdout.read_to_string(&mut out).unwrap();
        if let Some(stderr) = &mut self.stderr {
            stderr.read_to_string(&mut err).unwrap();
        }
        (self.child.wait().unwrap().code(), out, err)
    }

    /// Sends SIGTERM, which it must end well on; gives what is left of standard output.
    pub fn terminate(self) -> String {
        self.signal("-TERM");
        let (code, out, _) = self.ended();
        assert_eq!(code, Some(0));
        out
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What one end hears of the other until that closes.
pub fn rest_of(mut stream: impl Read) -> String {
    let mut lines = Vec::new();
    let read = stream.read_to_end(&mut lines);
    let lines = String::from_utf8(lines).unwrap();
    read.unwrap_or_else(|error| panic!("{error} after {lines}"));
    lines
}

/// The series of `/metrics`.
pub struct Metrics {
    pub text: String,
    series: BTreeMap<String, f64>,
}

impl Metrics {
    fn of(text: &str) -> Metrics {
        let plain = text.lines().filter(|line| !line.starts_with('#'));
        let series = plain.map(|line| {
            let (name, value) = line.rsplit_once(' ').expect(line);
            (name.to_owned(), value.parse().expect(line))
        });
        Metrics { text: text.to_owned(), series: series.collect() }
    }

    /// Sum over the series of a metric whose labels contain all of these.
    pub fn sum(&self, metric: &str, labels: &[&str]) -> u64 {
        let own = |name: &str| {
            let rest = name.strip_prefix(metric);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
                && labels.iter().all(|label| name.contains(label))
        };
        let found: Vec<f64> =
            self.series.iter().filter(|(name, _)| own(name)).map(|(_, value)| *value).collect();
        assert!(!found.is_empty(), "no {metric} {labels:?} in {}", self.text);
        found.iter().sum::<f64>() as u64
    }
}

/// What `replay` prints of a file.
pub fn replay(file: &Path, flags: &[&str]) -> String {
    let mut command = Command::new(PROGRAM);
    let output = command.args(["replay", "-q"]).args(flags).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Lines whose stream is called `-`.
pub fn nameless(lines: &str) -> String {
    let rename = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        line.replacen(&value["stream"].to_string(), "\"-\"", 1) + "\n"
    };
    lines.lines().map(rename).collect()
}

/// Records of one type.
pub fn records<'a>(lines: &'a str, kind: &'a str) -> impl Iterator<Item = Value> + 'a {
    let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.filter(move |record| record["type"] == kind)
}
