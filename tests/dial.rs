//! DV servers that a real server dials: their records on standard output, and what becomes of
//! servers that are absent, talk nonsense or go away.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};

use dvs_stream::codec::aedat4::Aedat4Encoder;
use dvs_stream::codec::{AnyDecoder, Decoder, DecoderOptions, Encoder, EncoderOptions};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dvs-stream");
const DECK: &str = "fixtures/deck.aedat4";

/// A server that dials, killed when dropped.
struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Server {
    /// Of a machine that may be slow, so nothing is dropped or completed by time.
    fn dialling(url: &str, flags: &[&str]) -> Server {
        let mut child = Command::new(PROGRAM)
            .args(["serve", "--output", "jsonl", "--idle", "0s", "--overflow", "dv=wait"])
            .args(["--connect", url])
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Server { child, stdout, stderr }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    /// Its next warning.
    fn warning(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        assert!(line.starts_with("warning: "), "{line}");
        line
    }

    /// Records up to the next summary, without the stream's name.
    fn stream(&mut self, name: &str) -> String {
        let mut lines = String::new();
        loop {
            let line = self.line();
            let record: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(record["stream"], name);
            lines += &line.replace(name, "-");
            if record["type"] == "summary" {
                return lines;
            }
        }
    }

    fn terminate(&mut self) -> String {
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

fn replayed() -> String {
    let output = Command::new(PROGRAM).args(["replay", "-q", DECK]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().replace(DECK, "-")
}

/// What a DV server sends of the deck.
fn deck_as_dv() -> Vec<u8> {
    let (mut decoder, mut events) =
        (AnyDecoder::probing(None, &DecoderOptions::default()), Vec::new());
    decoder.feed(&std::fs::read(DECK).unwrap(), &mut events).unwrap();
    decoder.finish(&mut events).unwrap();
    let sensor = decoder.sensor().size;
    let options = EncoderOptions { sensor, compression: Default::default() };
    let (mut encoder, mut bytes) = (Aedat4Encoder::network(&options), Vec::new());
    encoder.encode(&events, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_server_is_dialled_until_it_is_there_and_each_connection_is_a_stream() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("dv://{address}");
    let mut server = Server::dialling(&url, &[]);
    let warning = server.warning();
    assert!(warning.contains(&url) && warning.contains("no server there"), "{warning}");
    let expected = replayed();
    for _ in 0..2 {
        let sending = Command::new(PROGRAM)
            .args(["send", "-q", "--speed", "4", DECK, &url])
            .stdout(Stdio::null())
            .spawn();
        assert_eq!(server.stream(&url), expected);
        assert!(sending.unwrap().wait().unwrap().success());
    }
    assert_eq!(server.terminate(), "");
}

#[test]
fn a_unix_server_reads_as_the_recording() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dv.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let url = format!("dv+unix://{}", path.display());
    let mut server = Server::dialling(&url, &[]);
    let (mut client, _) = listener.accept().unwrap();
    let bytes = deck_as_dv();
    for piece in bytes.chunks(777) {
        client.write_all(piece).unwrap();
    }
    drop(client);
    assert_eq!(server.stream(&url), replayed());
    let warning = server.warning();
    assert!(warning.contains("closed the connection"), "{warning}");
    // A stop in the middle ends the stream that is open.
    let (mut client, _) = listener.accept().unwrap();
    client.write_all(&bytes).unwrap();
    server.line();
    let rest = server.terminate();
    let last: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert_eq!(last["type"], "summary");
    assert!(!rest.contains("\"error\""), "{rest}");
}

#[test]
fn nonsense_damage_and_silence_are_told_and_dialled_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("dv://{}", listener.local_addr().unwrap());
    let http = ["--port", "0", "--http", "0", "--header-timeout", "300ms"];
    let mut server = Server::dialling(&url, &http);
    server.line();
    let http = server.line().trim_end().strip_prefix("listening http ").unwrap().to_owned();
    let deck = deck_as_dv();
    let cut = &deck[..deck.len() / 2];
    for (bytes, told) in [
        (&b"GET / HTTP/1.1\r\n\r\n, and some more of it"[..], "byte"),
        (b"", "it sent nothing"),
        (cut, "ends after"),
    ] {
        listener.accept().unwrap().0.write_all(bytes).unwrap();
        let warning = server.warning();
        assert!(warning.contains(&url) && warning.contains(told), "{warning}, not {told}");
    }
    // One that keeps silent is left by itself.
    let (mut silent, _) = listener.accept().unwrap();
    let warning = server.warning();
    assert!(warning.contains("no header"), "{warning}");
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    let (mut sound, _) = listener.accept().unwrap();
    sound.write_all(&deck).unwrap();
    drop(sound);
    let mut metrics = TcpStream::connect(http).unwrap();
    metrics.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    metrics.read_to_string(&mut text).unwrap();
    let redials = text.lines().find_map(|line| line.strip_prefix("dvs_redials_total "));
    assert!(redials.unwrap().parse::<u32>().unwrap() >= 4, "{text}");
    // The one that was cut told what it had; the last one all.
    loop {
        let records = server.stream(&url);
        if records == replayed() {
            break;
        }
        assert!(records.contains("\"type\":\"error\""), "{records}");
    }
    server.terminate();
}

#[test]
fn what_cannot_be_dialled_is_refused() {
    for (flags, told) in [
        (&["--connect", "tcp://127.0.0.1:7777"][..], "dv://HOST:PORT"),
        (&["--port", "0", "--overflow", "udp=wait"], "cannot be made to wait"),
        (&["--port", "0", "--overflow", "usb=wait"], "tcp, unix, udp and dv"),
        (&["--port", "0", "--overflow", "never"], "known rules"),
        (&["--connect", "dv://a", "--connect", "dv://a:7777"], "named twice"),
        (&[], "--connect"),
    ] {
        let output = Command::new(PROGRAM).arg("serve").args(flags).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert!(error.contains(told), "{flags:?}: {error}");
    }
}
