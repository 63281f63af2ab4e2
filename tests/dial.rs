//! DV servers that a real server dials: their records on standard output, and what becomes of
//! servers that are absent, talk nonsense or go away.

mod server;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use dvs_stream::codec::aedat4::Aedat4Encoder;
use dvs_stream::codec::{Encoder, EncoderOptions};
use serde_json::Value;
use server::events::{DECK, decoded};
use server::{PROGRAM, Server};

/// A server that dials; of a machine that may be slow, so nothing is dropped or completed by time.
fn dialling(url: &str, flags: &[&str], listeners: usize) -> Server {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--output", "jsonl", "--idle", "0s", "--overflow", "dv=wait"]);
    command.args(["--connect", url]).args(flags).stderr(Stdio::piped());
    Server::run(&mut command, listeners)
}

impl Server {
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
}

fn replayed() -> String {
    let output = Command::new(PROGRAM).args(["replay", "-q", DECK]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().replace(DECK, "-")
}

/// What a DV server sends of the deck.
fn deck_as_dv() -> Vec<u8> {
    let (events, sensor) = decoded(Path::new(DECK));
    let options = EncoderOptions { sensor, compression: Default::default() };
    let (mut encoder, mut bytes) = (Aedat4Encoder::network(&options), Vec::new());
    encoder.encode(&events, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_server_is_dialled_until_it_is_there_and_each_connection_is_a_stream() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("dv://{address}");
    let mut server = dialling(&url, &[], 0);
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
    let mut server = dialling(&url, &[], 0);
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
    let times = ["--header-timeout", "300ms", "--idle-timeout", "5s"];
    let http = [&["--port", "0", "--http", "0"][..], &times].concat();
    let mut server = dialling(&url, &http, 2);
    let deck = deck_as_dv();
    let cut = &deck[..deck.len() / 2];
    // One that keeps silent is left by itself.
    let silent_after = |begun: &[u8], server: &mut Server| {
        let (mut silent, _) = listener.accept().unwrap();
        silent.write_all(begun).unwrap();
        let warning = server.warning();
        assert!(warning.contains("no header"), "{warning}");
        assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    };
    silent_after(&deck[..1], &mut server);
    for (bytes, told) in [
        (&b"GET / HTTP/1.1\r\n\r\n, and some more of it"[..], "byte"),
        (b"", "it sent nothing"),
        (cut, "ends after"),
    ] {
        listener.accept().unwrap().0.write_all(bytes).unwrap();
        let warning = server.warning();
        assert!(warning.contains(&url) && warning.contains(told), "{warning}, not {told}");
    }
    silent_after(b"", &mut server);
    let (mut sound, _) = listener.accept().unwrap();
    sound.write_all(&deck).unwrap();
    drop(sound);
    let metrics = server.metrics();
    assert!(metrics.sum("dvs_redials_total", &[]) >= 4, "{}", metrics.text);
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
fn a_server_that_comes_and_goes_is_told_of_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("dv://{}", listener.local_addr().unwrap());
    let mut server = dialling(&url, &[], 0);
    let (deck, expected) = (deck_as_dv(), replayed());
    for _ in 0..4 {
        listener.accept().unwrap().0.write_all(&deck).unwrap();
        assert_eq!(server.stream(&url), expected);
    }
    server.signal("-TERM");
    let (code, _, told) = server.ended();
    assert_eq!((code, told.lines().count()), (Some(0), 1), "{told}");
}

#[test]
fn what_cannot_be_dialled_is_refused() {
    for (flags, code, told) in [
        (&["--connect", "tcp://127.0.0.1:7777"][..], 2, "dv://HOST:PORT"),
        (&["--port", "0", "--overflow", "udp=wait"], 2, "cannot be made to wait"),
        (&["--port", "0", "--overflow", "usb=wait"], 2, "tcp, unix, udp and dv"),
        (&["--port", "0", "--overflow", "never"], 2, "known rules"),
        (&["--connect", "dv://a", "--connect", "dv://a:7777"], 2, "named twice"),
        (&["--connect", "dv://a", "--sensor", "346x260"], 3, "dv://a:7777: the recording's sensor"),
        (&[], 2, "--connect"),
    ] {
        let output = Command::new(PROGRAM).arg("serve").args(flags).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {error}");
        assert!(error.contains(told), "{flags:?}: {error}");
    }
}
