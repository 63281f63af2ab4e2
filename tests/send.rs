//! `dvs-stream send` over real sockets: a plain listener receives what was sent, and it is the
//! recording.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dvs_stream::codec::{
    AnyDecoder, DATAGRAMS, Decoder, DecoderOptions, Encoder, EncoderOptions, datagrams_by_name,
    probe,
};
use dvs_stream::event::{Event, Polarity, SensorSize};

const DECK: &str = "fixtures/deck.aedat4";
const DAVIS346: SensorSize = SensorSize { width: 346, height: 260 };

fn start(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_dvs-stream"))
        .args(["send"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program")
}

fn end(child: Child, code: i32) -> Output {
    let output = child.wait_with_output().expect("an end");
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Expects an exit code, and one line on standard error that says all of this.
fn fails(arguments: &[&str], code: i32, parts: &[&str]) {
    let line = text(&end(start(arguments), code).stderr);
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(parts.iter().all(|part| line.contains(part)), "{line}, not {parts:?}");
}

fn decoded(bytes: &[u8]) -> Vec<Event> {
    let mut decoder = AnyDecoder::probing(None, &DecoderOptions::default());
    let mut events = Vec::new();
    decoder.feed(bytes, &mut events).expect("sound");
    decoder.finish(&mut events).expect("whole");
    events
}

fn recording(path: &str) -> Vec<Event> {
    decoded(&std::fs::read(path).expect("a recording"))
}

/// Events of `seconds` of a DAVIS, `per_s` each second.
fn events(seconds: f64, per_s: u64) -> Vec<Event> {
    let event = |k: u64| Event {
        t_us: 7_000_000 + 1_000_000 * k / per_s,
        x: (k * 7 % 346) as u16,
        y: (k * k % 260) as u16,
        polarity: Polarity::from_on(k.is_multiple_of(3)),
    };
    (0..(seconds * per_s as f64) as u64).map(event).collect()
}

/// A file of these events in the format of its extension.
fn write(folder: &Path, name: &str, events: &[Event]) -> PathBuf {
    let path = folder.join(name);
    let format = probe::for_writing(name).expect("a format");
    let options = EncoderOptions { sensor: Some(DAVIS346), compression: Default::default() };
    let mut encoder: Box<dyn Encoder> = format.encoder.expect("a writer")(&options);
    let mut bytes = Vec::new();
    encoder.encode(events, &mut bytes).expect("events that fit");
    if let Some(patch) = encoder.finish(&mut bytes).expect("an end") {
        bytes[patch.offset as usize..][..patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
    std::fs::write(&path, bytes).expect("writable");
    path
}

/// Takes `n` connections one after another, reads each to its end, then answers it with `answer`.
fn listen(n: usize, answer: &'static [u8]) -> (String, JoinHandle<Vec<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("tcp://{}", listener.local_addr().expect("an address"));
    let received = std::thread::spawn(move || {
        let one = |_| {
            let (mut client, _) = listener.accept().expect("a client");
            let mut bytes = Vec::new();
            client.read_to_end(&mut bytes).expect("bytes");
            client.write_all(answer).expect("an answer");
            bytes
        };
        (0..n).map(one).collect()
    });
    (url, received)
}

#[test]
fn a_server_gets_the_recordings_own_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let aedat2 = write(folder.path(), "davis.aedat", &events(0.3, 20_000));
    let csv = write(folder.path(), "davis.csv", &events(0.3, 20_000));
    for (file, speed) in
        [(Path::new(DECK), "max"), (&aedat2, "max"), (&aedat2, "1"), (&aedat2, "0.5"), (&csv, "2")]
    {
        let (url, received) = listen(1, b"");
        end(start(&["--speed", speed, &file.display().to_string(), &url]), 0);
        let bytes = received.join().expect("bytes").remove(0);
        assert!(bytes == std::fs::read(file).expect("a file"), "{} at {speed}", file.display());
    }
}

#[test]
fn aedat4_at_a_pace_goes_out_in_small_packets() {
    for compression in ["none", "lz4", "zstd"] {
        let (url, received) = listen(1, b"");
        end(start(&["--speed", "4", "--compression", compression, DECK, &url]), 0);
        let bytes = received.join().expect("bytes").remove(0);
        assert!(bytes.starts_with(b"#!AER-DAT4.0\r\n"));
        assert!(decoded(&bytes) == recording(DECK), "{compression}");
    }
}

#[test]
fn a_first_line_names_what_the_bytes_do_not_tell() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).expect("a socket");
    let url = format!("unix://{}", path.display());
    let token = folder.path().join("token");
    std::fs::write(&token, "secret\n").expect("writable");
    let token = token.display().to_string();
    let nmnist = "fixtures/formats/nmnist-plain.bin";
    let received = std::thread::spawn(move || {
        let one = |_| {
            let mut bytes = Vec::new();
            listener.accept().expect("a client").0.read_to_end(&mut bytes).expect("bytes");
            bytes
        };
        [0, 1, 2].map(one)
    });
    end(start(&["--speed", "max", nmnist, &url]), 0);
    let flags = ["--stream", "cam1", "--token-file", &token, "--sensor", "35x35"];
    end(start(&[&flags, [DECK, &url, "--speed", "max"].as_slice()].concat()), 0);
    let flags = ["--stream", "cam1", "--resume", "--stream-id", "0"];
    end(start(&[&flags, [DECK, &url, "--speed", "max"].as_slice()].concat()), 0);
    let [plain, named, resumed] = received.join().expect("bytes");
    let with_line =
        |line: &str, file: &str| [line.as_bytes(), &std::fs::read(file).unwrap()].concat();
    assert!(plain == with_line("dvs-stream {\"format\":\"nmnist\"}\n", nmnist));
    let line = r#"dvs-stream {"sensor":"35x35","stream":"cam1","resume":false,"token":"secret"}"#;
    assert!(named == with_line(&format!("{line}\n"), DECK));
    let line = r#"dvs-stream {"stream_id":0,"stream":"cam1"}"#;
    assert!(resumed == with_line(&format!("{line}\n"), DECK));
}

#[test]
fn answers_are_printed_where_they_are_wanted() {
    let answer = b"{\"type\":\"prediction\"}\n{\"type\":\"summary\"}\n";
    for (flags, expected) in [(vec!["--print"], answer.as_slice()), (vec![], b"")] {
        let (url, received) = listen(1, answer);
        let child = start(&[&flags, ["--speed", "max", DECK, &url].as_slice()].concat());
        assert_eq!(text(&end(child, 0).stdout), text(expected));
        received.join().expect("bytes");
    }
}

#[test]
fn passes_are_connections_to_a_server() {
    let (url, received) = listen(3, b"");
    end(start(&["--speed", "max", "--loop", "3", DECK, &url]), 0);
    let file = std::fs::read(DECK).expect("a file");
    assert!(received.join().expect("bytes").iter().all(|bytes| *bytes == file));
}

/// Receives datagrams of a format until none come for a while.
fn receive(format: &str) -> (String, JoinHandle<Vec<Event>>) {
    let format = datagrams_by_name(format).expect("a format");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let url = format!("udp://{}?format={}", socket.local_addr().expect("an address"), format.name);
    let received = std::thread::spawn(move || {
        let mut decoder = (format.decoder)(None);
        let (mut datagram, mut events) = ([0; 2048], Vec::new());
        loop {
            let patience = Duration::from_secs(if events.is_empty() { 20 } else { 1 });
            socket.set_read_timeout(Some(patience)).expect("a timeout");
            let Ok(n) = socket.recv(&mut datagram) else { break };
            assert!(n <= 1300, "a datagram of {n} bytes");
            decoder.arrived(42);
            decoder.feed(&datagram[..n], &mut events).expect("datagrams never fail");
        }
        decoder.finish(&mut events).expect("datagrams never fail");
        assert_eq!(decoder.tally(), Default::default(), "{}", format.name);
        events
    });
    (url, received)
}

#[test]
fn datagrams_hold_the_recordings_events() {
    for format in DATAGRAMS {
        let (url, received) = receive(format.name);
        end(start(&["--speed", "2", DECK, &url]), 0);
        let events = received.join().expect("events");
        assert!(events == recording(DECK), "{}: {} events", format.name, events.len());
    }
}

#[test]
fn datagrams_without_times_have_those_of_their_arrival() {
    let (url, received) = receive("spif");
    end(start(&["--speed", "2", DECK, &format!("{url}&timestamps=none")]), 0);
    let expected: Vec<Event> =
        recording(DECK).into_iter().map(|event| Event { t_us: 42, ..event }).collect();
    assert!(received.join().expect("events") == expected);
}

#[test]
fn passes_of_datagrams_are_one_stream_whose_clock_goes_on() {
    let (url, received) = receive("faery-t64");
    end(start(&["--speed", "4", "--loop", "2", DECK, &url]), 0);
    let (events, deck) = (received.join().expect("events"), recording(DECK));
    assert_eq!(events.len(), 2 * deck.len());
    let shift = events[deck.len()].t_us - deck[0].t_us;
    assert_eq!(events[deck.len()].t_us, deck.last().expect("events").t_us + 100_000);
    let second = deck.iter().map(|event| Event { t_us: event.t_us + shift, ..*event });
    assert!(events[deck.len()..].iter().copied().eq(second));
}

/// Starts a DV server and gives the address that it says it listens at.
fn serve_dv(arguments: &[&str]) -> (Child, String) {
    let mut child = start(&[arguments, &["dv://127.0.0.1:0"]].concat());
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
    let address = line.trim().strip_prefix("listening dv ").expect(&line).to_owned();
    (child, address)
}

#[test]
fn a_dv_server_sends_a_header_and_packets() {
    for flags in [["--speed", "2"], ["--speed", "max"], ["--compression", "zstd"]] {
        let (child, address) = serve_dv(&[&flags, [DECK].as_slice()].concat());
        let mut bytes = Vec::new();
        TcpStream::connect(&address).expect("a server").read_to_end(&mut bytes).expect("bytes");
        end(child, 0);
        assert_eq!(&bytes[8..12], b"IOHE");
        assert!(decoded(&bytes) == recording(DECK), "{flags:?}");
    }
}

#[test]
fn a_late_dv_client_gets_the_header_and_what_comes_then() {
    let (child, address) = serve_dv(&["--loop", "4", DECK]);
    let (begun, has_begun) = std::sync::mpsc::channel();
    let dial = |address: String| {
        let begun = begun.clone();
        std::thread::spawn(move || {
            let mut server = TcpStream::connect(address).expect("a server");
            let mut bytes = vec![0; 10_000];
            server.read_exact(&mut bytes).expect("bytes");
            begun.send(()).expect("who waits");
            server.read_to_end(&mut bytes).expect("bytes");
            decoded(&bytes)
        })
    };
    let first = dial(address.clone());
    has_begun.recv().expect("the first has begun");
    let second = dial(address);
    let (first, second) = (first.join().expect("events"), second.join().expect("events"));
    end(child, 0);
    assert_eq!(first.len(), 4 * recording(DECK).len());
    assert!(!second.is_empty() && second.len() < first.len() && first.ends_with(&second));
}

#[test]
fn no_event_leaves_before_its_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let sent = events(0.5, 10_000);
    let file = write(folder.path(), "davis.aedat", &sent);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("tcp://{}", listener.local_addr().expect("an address"));
    let child = start(&[&file.display().to_string(), &url]);
    let (mut client, _) = listener.accept().expect("a client");
    let mut decoder = AnyDecoder::probing(None, &DecoderOptions::default());
    let (mut buffer, mut received, mut begun) = ([0; 4096], Vec::new(), None);
    loop {
        let n = client.read(&mut buffer).expect("bytes");
        if n == 0 {
            break;
        }
        decoder.feed(&buffer[..n], &mut received).expect("sound");
        let Some(last) = received.last() else { continue };
        // Its first event may have been under way for a while.
        let elapsed = begun.get_or_insert_with(Instant::now).elapsed() + Duration::from_millis(100);
        let time = Duration::from_micros(last.t_us - sent[0].t_us);
        assert!(elapsed >= time, "an event of {time:?} after {elapsed:?}");
    }
    end(child, 0);
    assert!(received == sent);
}

#[test]
fn a_leap_of_time_is_told_and_not_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let leap =
        [0, 1000, 1_000_000_000_000_000].map(|t_us| Event { t_us, ..events(0.001, 1000)[0] });
    for name in ["leap.csv", "leap.aedat4"] {
        let file = write(folder.path(), name, &leap).display().to_string();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("tcp://{}", listener.local_addr().expect("an address"));
        let mut child = start(&[&file, &url]);
        let mut told = String::new();
        let stderr = child.stderr.as_mut().expect("it is heard");
        BufReader::new(stderr).read_line(&mut told).expect("a line");
        assert!(told.starts_with("note: ") && told.contains("send waits 60 s"), "{told}");
        interrupt(&child);
        end(child, 130);
    }
}

#[test]
fn receivers_that_are_not_there_are_named() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    fails(&[DECK, &format!("tcp://{free}")], 1, &[DECK, "no receiver at tcp://", "refused"]);
    fails(&[DECK, "unix:///nowhere/socket"], 1, &["no receiver at unix:///nowhere/socket"]);
    let free = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let url = format!("udp://{free}?format=spif");
    fails(&[DECK, &url], 1, &["no receiver at udp://", "refused"]);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("dv://{}", taken.local_addr().expect("an address"));
    fails(&[DECK, &url], 1, &["cannot listen at dv://", "in use"]);
}

#[test]
fn receivers_that_refuse_or_go_away_are_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("tcp://{}", listener.local_addr().expect("an address"));
    let refusing = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        let record = b"{\"type\":\"error\",\"stream\":\"a\",\"message\":\"64 streams are open\"}\n";
        client.write_all(record).expect("an answer");
        drop(client);
        // What a terminal would obey is shown.
        let (mut client, _) = listener.accept().expect("a client");
        let record =
            b"{\"type\":\"error\",\"message\":\"the recording's \\\"end\\\"\\u001b[2J\"}\n";
        client.write_all(record).expect("an answer");
        drop(client);
        // Goes away in the middle.
        let (mut client, _) = listener.accept().expect("a client");
        client.read_exact(&mut [0; 1000]).expect("bytes");
    });
    fails(&["--loop", "1000", DECK, &url], 1, &[&url, "says: 64 streams are open"]);
    let told = text(&end(start(&["-v", "--loop", "1000", DECK, &url]), 1).stderr);
    let message = "the recording's \"end\"\\u{1b}[2J";
    assert_eq!(told.matches(message).count(), 1, "{told}");
    assert!(told.contains(&format!("because: {message}")), "{told}");
    fails(&["--speed", "0.1", DECK, &url], 1, &[&url, "went away", "after "]);
    refusing.join().expect("a server");
    let (child, address) = serve_dv(&["--loop", "100", DECK]);
    TcpStream::connect(address).expect("a server").read_exact(&mut [0; 1000]).expect("bytes");
    assert!(text(&end(child, 1).stderr).contains("the last receiver went away"));
}

#[test]
fn recordings_that_cannot_be_sent_are_named() {
    let nowhere = "udp://127.0.0.1:9?format=spif";
    fails(&["nowhere.aedat4", nowhere], 2, &["nowhere.aedat4", "No such file"]);
    fails(&["Cargo.toml", nowhere], 2, &["Cargo.toml", "unknown format"]);
    let (url, received) = receive("faery-t32");
    let cut = "fixtures/damaged/nmnist-cut.bin";
    fails(&["--speed", "max", cut, &url], 1, &[cut, "after 11 events", "ends after 2 of 5 bytes"]);
    assert_eq!(received.join().expect("events").len(), 11);
    let folder = tempfile::tempdir().expect("a folder");
    let davis = write(folder.path(), "davis.csv", &events(0.01, 10_000)).display().to_string();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let url = format!("udp://{}?format=jaer", socket.local_addr().expect("an address"));
    fails(&["--sensor", "320x240", &davis, &url], 2, &["DVS128"]);
}

#[test]
fn wrong_use_is_told() {
    for (arguments, part) in [
        (vec![DECK, "127.0.0.1:7000"], "tcp://HOST:PORT"),
        (vec![DECK, "udp://127.0.0.1:7000"], "format="),
        (vec!["--print", DECK, "udp://127.0.0.1:7000?format=spif"], "tcp:// and unix://"),
        (vec!["--loop", "2", "-", "tcp://127.0.0.1:7000"], "once only"),
        (vec!["--speed", "0", DECK, "tcp://127.0.0.1:7000"], "pace"),
        (vec!["--print", "--output", "csv", DECK, "tcp://127.0.0.1:7000"], "jsonl"),
    ] {
        let error = text(&end(start(&arguments), 2).stderr);
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
}

fn interrupt(child: &Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
}

#[test]
fn an_interruption_ends_cleanly() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("tcp://{}", listener.local_addr().expect("an address"));
    let child = start(&["--speed", "0.1", DECK, &url]);
    let (mut client, _) = listener.accept().expect("a client");
    let mut bytes = vec![0; 1000];
    client.read_exact(&mut bytes).expect("bytes");
    interrupt(&child);
    client.read_to_end(&mut bytes).expect("bytes");
    end(child, 130);
    // Every packet that went out is whole.
    let events = decoded(&bytes);
    assert!(!events.is_empty() && recording(DECK).starts_with(&events));
    let (child, _) = serve_dv(&[DECK]);
    interrupt(&child);
    end(child, 130);
}
