//! All kinds of sources at once into one real server: each stream reads as its own replay, and the
//! counters are the sums of what the senders know.

mod server;
mod skip;

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use dvs_stream::codec::aedat4::Aedat4Encoder;
use dvs_stream::codec::{
    DatagramEncoder, DatagramOptions, Encoder, EncoderOptions, datagrams_by_name,
};
use dvs_stream::event::{Event, SensorSize};
use serde_json::Value;
use server::events::{DECK, decoded, written};
use server::{Metrics, PATIENCE, Server, nameless, records, replay, rest_of};
use skip::skip;

const SENSOR: SensorSize = SensorSize { width: 35, height: 35 };

/// The deck, turned in one of four ways, with a clock of its own.
fn decks() -> [Vec<Event>; 4] {
    let (deck, _) = decoded(Path::new(DECK));
    let turned = |k: u64| {
        move |event: &Event| Event {
            t_us: event.t_us + 1_234_567 * k,
            x: if k.is_multiple_of(2) { event.x } else { 34 - event.x },
            y: if k < 2 { event.y } else { 34 - event.y },
            ..*event
        }
    };
    [0, 1, 2, 3].map(|k| deck.iter().map(turned(k)).collect())
}

/// Bytes of events in pieces, of which the last holds all events of the last window.
fn pieces(events: &[Event], n: usize) -> Vec<&[Event]> {
    let last_us = events[events.len() - 1].t_us;
    let windows = (last_us - events[0].t_us) / 1000;
    let last = events.partition_point(|event| event.t_us < events[0].t_us + 1000 * windows);
    let (most, rest) = events.split_at(last);
    most.chunks(most.len().div_ceil(n)).chain([rest]).collect()
}

#[test]
fn four_streams_of_four_kinds_read_as_their_replays() {
    const PIECES: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    let decks = decks();
    let files: Vec<_> =
        (0..4).map(|k| written(folder.path(), &format!("{k}.aedat4"), &decks[k], SENSOR)).collect();
    let expected: Vec<String> = files.iter().map(|file| nameless(&replay(file, &[]))).collect();
    assert!(expected.iter().all(|lines| lines.lines().count() > 150));
    assert!((1..4).all(|k| expected[k] != expected[0]));

    let socket = folder.path().join("socket");
    let camera = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("dv://{}", camera.local_addr().unwrap());
    let server = Server::start(
        &[
            ["--port", "0", "--http", "0"],
            ["--unix", socket.to_str().unwrap(), "--udp", "0=faery-t32"],
            ["--connect", &url, "--overflow", "dv=wait"],
        ]
        .concat(),
        4,
    );
    let (tcp, unix) = (server.connect(), UnixStream::connect(&socket).unwrap());
    unix.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut camera, _) = {
        let dialled = camera.accept().unwrap();
        // It is not there when it is dialled again.
        drop(camera);
        dialled
    };
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(server.address("udp")).unwrap();

    let bytes = [0, 1].map(|k| std::fs::read(&files[k]).unwrap());
    let mut network = Aedat4Encoder::network(&EncoderOptions {
        sensor: Some(SENSOR),
        compression: Default::default(),
    });
    let mut datagrams = datagrams("faery-t32");
    let answers = [
        thread::spawn({
            let tcp = tcp.try_clone().unwrap();
            move || rest_of(tcp)
        }),
        thread::spawn({
            let unix = unix.try_clone().unwrap();
            move || rest_of(unix)
        }),
    ];
    // Turn by turn, so that all four are under way at once.
    let (mut tcp, mut unix) = (tcp, unix);
    let (to_udp, to_camera) = (pieces(&decks[2], PIECES), pieces(&decks[3], PIECES));
    for k in 0..=PIECES {
        for (sink, bytes) in [(&mut tcp as &mut dyn Write, &bytes[0]), (&mut unix, &bytes[1])] {
            let piece = bytes.len().div_ceil(PIECES + 1);
            sink.write_all(&bytes[piece * k..bytes.len().min(piece * (k + 1))]).unwrap();
        }
        let mut packet = Vec::new();
        network.encode(to_camera[k], &mut packet).unwrap();
        camera.write_all(&packet).unwrap();
        // A receiver takes more at once than is sent here; the last window comes as a whole.
        let mut datagram = Vec::new();
        let mut rest = to_udp[k];
        while !rest.is_empty() {
            rest = &rest[datagrams.encode(rest, &mut datagram).unwrap()..];
        }
        udp.send(&datagram).unwrap();
        if k == PIECES / 2 {
            while server.metrics().sum("dvs_streams", &[]) < 4 {}
        }
    }
    tcp.shutdown(Shutdown::Write).unwrap();
    unix.shutdown(Shutdown::Write).unwrap();
    drop(camera);
    let [by_tcp, by_unix] = answers.map(|answer| answer.join().unwrap());
    let lines = all_lines(server, &expected);
    let name = format!("udp:{}", udp.local_addr().unwrap());
    let of = |name: &str| -> String {
        let own = lines.lines().filter(|line| line.contains(&format!("\"stream\":\"{name}\"")));
        own.map(|line| line.to_owned() + "\n").collect()
    };
    assert_eq!(nameless(&by_tcp), expected[0]);
    assert_eq!(nameless(&by_unix), expected[1]);
    assert_eq!(nameless(&of(&name)), expected[2]);
    assert_eq!(nameless(&of(&url)), expected[3]);
    // Standard output tells the same of all of them, and of nobody else.
    for lines in [by_tcp, by_unix] {
        let name = records(&lines, "summary").next().unwrap()["stream"].clone();
        assert_eq!(of(name.as_str().unwrap()), lines);
    }
    let told: usize = expected.iter().map(|lines| lines.lines().count()).sum();
    assert_eq!(lines.lines().count(), told);
}

/// All that is printed, to the end, which comes when all but what the end of datagrams brings is
/// there: a prediction, a segment, a summary.
fn all_lines(mut server: Server, expected: &[String]) -> String {
    let n: usize = expected.iter().map(|lines| lines.lines().count()).sum();
    let lines: String = (3..n).map(|_| server.line()).collect();
    lines + &server.terminate()
}

fn datagrams(format: &str) -> Box<dyn DatagramEncoder> {
    let options = DatagramOptions { sensor: None, timed: true };
    (datagrams_by_name(format).unwrap().encoder)(&options)
}

/// AEDAT 2.0 of a DVS128 without a size.
fn aedat2(events: impl IntoIterator<Item = (u64, u32, u32)>) -> Vec<u8> {
    let words = events.into_iter().flat_map(|(t_us, x, y)| [y << 8 | x << 1, t_us as u32]);
    let mut bytes = b"#!AER-DAT2.0\r\n".to_vec();
    words.for_each(|word| bytes.extend(word.to_be_bytes()));
    bytes
}

/// So many events, 20 a window.
fn steady(from_us: u64, n: u64) -> impl Iterator<Item = (u64, u32, u32)> {
    (0..n).map(move |k| (from_us + 50 * k, (k * 7 % 35) as u32, (k * 5 % 35) as u32))
}

/// Sends all, reads all.
fn say(server: &Server, bytes: &[u8]) -> String {
    let mut stream = server.connect();
    let answer = thread::spawn({
        let stream = stream.try_clone().unwrap();
        move || rest_of(stream)
    });
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    answer.join().unwrap()
}

/// Metrics once every stream has ended, that of datagrams for its silence.
fn metrics_at_rest(server: &Server) -> Metrics {
    let begun = std::time::Instant::now();
    loop {
        let metrics = server.metrics();
        if metrics.sum("dvs_streams", &[]) == 0 {
            return metrics;
        }
        assert!(begun.elapsed() < PATIENCE, "{}", metrics.text);
    }
}

#[test]
fn counters_are_the_sums_that_senders_know() {
    let (deck, _) = decoded(Path::new(DECK));
    let deck_bytes = std::fs::read(DECK).unwrap();
    let deck_events = deck.len() as u64;
    let flags = ["--port", "0", "--http", "0", "--udp", "0=faery-t64", "--idle-timeout", "3s"];
    let server = Server::start(&flags, 3);
    let jaer = Server::start(&["--http", "0", "--udp", "0=jaer", "--idle-timeout", "1s"], 2);

    // A named stream, and two that are refused meanwhile. A recording with its table at the end
    // tells by itself when it has ended.
    let named = b"dvs-stream {\"stream\":\"cam\"}\n";
    let mut cam = server.connect();
    let (first, second) = deck_bytes.split_at(deck_bytes.len() / 2);
    cam.write_all(&[&named[..], first].concat()).unwrap();
    let mut lines = BufReader::new(cam.try_clone().unwrap());
    lines.read_line(&mut String::new()).unwrap();
    for refused in [&named[..], b"dvs-stream {}x\n"] {
        assert!(records(&say(&server, refused), "error").next().is_some());
    }
    cam.write_all(second).unwrap();
    cam.shutdown(Shutdown::Write).unwrap();
    rest_of(lines);

    // Late and outside events, and a clock that is set back: a thousand events later that is sure.
    let (late, outside, after_jump) = (7, 11, 1300);
    let straggling = (0..late).map(|k| (2_028_300 + k, 3, 3));
    let beyond = (0..outside).map(|k| (2_030_000 + k, 100, 3));
    let uneven = say(
        &server,
        &aedat2(
            steady(2_000_000, 600)
                .chain(straggling)
                .chain(beyond)
                .chain(steady(2_030_050, 600))
                .chain(steady(0, after_jump)),
        ),
    );
    let uneven_events = 1200 + late + outside + after_jump;
    assert_eq!(records(&uneven, "summary").next().unwrap()["events"], uneven_events);

    // A recording that is cut: what is whole of it is used.
    let cut = say(&server, &deck_bytes[..deck_bytes.len() / 2]);
    assert!(records(&cut, "error").next().is_some());
    let cut_events = records(&cut, "summary").next().unwrap()["events"].as_u64().unwrap();
    assert!(cut_events > 0 && cut_events < deck_events);

    // Datagrams of which one is cut short, and one holds an event of no polarity.
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(server.address("udp")).unwrap();
    let (mut encoder, mut rest) = (datagrams("faery-t64"), &deck[..]);
    let mut sent = 0;
    while !rest.is_empty() {
        let mut datagram = Vec::new();
        rest = &rest[encoder.encode(rest, &mut datagram).unwrap()..];
        match sent {
            3 => datagram.extend([0; 5]),
            4 => datagram.extend([&datagram[..12], &[7]].concat()),
            _ => (),
        }
        udp.send(&datagram).unwrap();
        sent += 1;
    }

    // Numbered datagrams: three are missing, one comes twice.
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(jaer.address("udp")).unwrap();
    for number in (1..=200_u32).filter(|number| !(50..=52).contains(number)) {
        let mut datagram = number.to_be_bytes().to_vec();
        for k in 0..10 {
            datagram
                .extend([3 << 8 | k << 1, 500 * number + 50 * k].map(u32::to_be_bytes).concat());
        }
        for _ in 0..1 + u32::from(number == 100) {
            udp.send(&datagram).unwrap();
        }
    }

    let metrics = metrics_at_rest(&server);
    let sum = |metric: &str, labels: &[&str]| metrics.sum(metric, labels);
    let anonymous = "stream=\"anonymous\"";
    assert_eq!(sum("dvs_events_received_total", &["stream=\"cam\""]), deck_events);
    let received = uneven_events + cut_events + deck_events + 2;
    assert_eq!(sum("dvs_events_received_total", &[anonymous]), received);
    for (reason, lost) in [
        ("reason=\"late\"", late + 1000),
        ("reason=\"outside\"", outside),
        ("reason=\"malformed\"", 2),
        ("reason=\"overflow\"", 0),
    ] {
        assert_eq!(sum("dvs_events_lost_total", &[reason]), lost, "{reason}");
    }
    assert_eq!(sum("dvs_restarts_total", &[]), 1);
    assert_eq!(sum("dvs_connections_refused_total", &[]), 2);
    assert_eq!(sum("dvs_stream_errors_total", &[]), 1);
    assert_eq!(sum("dvs_datagrams_lost_total", &[]), 0, "raise net.core.rmem_max");
    assert_eq!(sum("dvs_records_missed_total", &[]), 0);
    check_with_promtool(&metrics);

    let metrics = metrics_at_rest(&jaer);
    assert_eq!(metrics.sum("dvs_datagrams_lost_total", &[]), 3);
    assert_eq!(metrics.sum("dvs_events_received_total", &[]), 1970);
    assert_eq!(records(&jaer.terminate(), "summary").next().unwrap()["events"], 1970);

    // Every prediction that somebody was told, by its label.
    let told = server.terminate();
    let predictions: Vec<Value> = records(&told, "prediction").collect();
    assert_eq!(sum("dvs_window_latency_seconds_count", &[]), predictions.len() as u64);
    for label in ["cl", "di", "he", "sp"] {
        let own = predictions.iter().filter(|prediction| prediction["label"] == label).count();
        let label = format!("label=\"{label}\"");
        assert_eq!(sum("dvs_predictions_total", &[&label]), own as u64, "{label}");
    }
    assert_eq!(sum("dvs_predictions_total", &[]), predictions.len() as u64);
}

/// Prometheus' own check of the text.
fn check_with_promtool(metrics: &Metrics) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        return skip("promtool does not check the metrics: Debian's package prometheus has it");
    };
    child.stdin.take().unwrap().write_all(metrics.text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && told.is_empty(), "{}", String::from_utf8_lossy(&told));
    eprintln!("promtool finds nothing wrong with /metrics");
}
