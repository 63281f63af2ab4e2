//! Datagrams into a real server: the records of what was sent, for each sender apart.

mod server;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use server::{Metrics, PATIENCE, PROGRAM, Server};

const DECK: &str = "fixtures/deck.aedat4";

/// A server of this format's datagrams that prints all records.
fn start(format: &str, flags: &[&str]) -> Server {
    let udp = ["serve", "-q", "--output", "jsonl", "--udp", &format!("0={format}")];
    Server::run(Command::new(PROGRAM).args(udp).args(flags), 1)
}

/// The next record.
fn next(server: &mut Server) -> Value {
    serde_json::from_str(&server.line()).unwrap()
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
    let server = start("faery-t64", &["--idle", "0s"]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| send(server.port("udp"), "faery-t64"));
        }
    });
    let streams = by_stream(&server.terminate());
    let expected = replayed();
    assert_eq!(streams.len(), 2);
    for lines in streams {
        assert_eq!(lines, expected);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_buffer_smaller_than_asked_for_is_warned_of() {
    let most = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
    let is_small = most.trim().parse::<usize>().unwrap() < 8 << 20;
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--udp", "0=jaer"]).stderr(Stdio::piped());
    let server = Server::run(&mut command, 1);
    server.signal("-TERM");
    let (_, _, told) = server.ended();
    let warned = told.lines().filter(|line| line.contains("raise net.core.rmem_max"));
    assert_eq!(warned.count(), usize::from(is_small), "{most}{told}");
}

#[test]
fn a_silent_sender_ends_and_its_slot_is_free() {
    let mut server = start("faery-t32", &["--idle-timeout", "300ms", "--max-streams", "1"]);
    let begun = Instant::now();
    for pass in 0..2 {
        send(server.port("udp"), "faery-t32");
        loop {
            let record = next(&mut server);
            assert!(begun.elapsed() < PATIENCE);
            if record["type"] == "summary" {
                assert_eq!(record["segments"], 8, "pass {pass}");
                break;
            }
        }
    }
    assert_eq!(server.terminate(), "");
}

/// A datagram of `faery-t64` with `n` events, one each 100 µs from `from_us`.
fn datagram(from_us: u64, n: u64) -> Vec<u8> {
    let event = |k: u64| {
        let (t_us, x, y) = (from_us + 100 * k, (k % 30) as u16, (k * 7 % 30) as u16);
        let parts = [&t_us.to_le_bytes()[..], &x.to_le_bytes(), &y.to_le_bytes(), &[1]];
        parts.concat()
    };
    (0..n).flat_map(event).collect()
}

#[test]
fn silence_ends_a_segment_and_what_comes_after_it_is_late() {
    let mut server = start("faery-t64", &["--idle", "20ms", "--gap", "2ms"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = server.address("udp").to_owned();
    // 10 windows with 10 events each.
    socket.send_to(&datagram(1_000_000, 100), &to).unwrap();
    let mut predictions = 0;
    let segment = loop {
        let record = next(&mut server);
        if record["type"] == "segment" {
            break record;
        }
        predictions += 1;
    };
    // All windows, and the first of the two silent ones that make the gap.
    assert_eq!(predictions, 11);
    assert_eq!((&segment["from_us"], &segment["to_us"]), (&1_000_000.into(), &1_010_000.into()));
    // In the gap, which is over; then on the same grid.
    socket.send_to(&datagram(1_010_500, 2), &to).unwrap();
    socket.send_to(&datagram(1_500_000, 100), &to).unwrap();
    let first = next(&mut server);
    assert_eq!((&first["window"], &first["t_us"]), (&11.into(), &1_501_000.into()));
    assert_eq!(first["losses"]["late"], 2);
    let streams = by_stream(&server.terminate());
    let summary: Value = serde_json::from_str(streams[0].last().unwrap()).unwrap();
    assert_eq!((&summary["events"], &summary["segments"]), (&202.into(), &2.into()));
}

/// Each millisecond is read before the next is sent.
#[test]
fn what_waits_for_a_tick_holds_up_no_reading() {
    for rule in ["drop-newest", "skip-to-newest"] {
        let server = ["serve", "-q", "--output", "jsonl", "--udp", "0=faery-t64", "--http", "0"];
        let flags = ["--idle", "0s", "--tick", "600s", "--overflow", rule];
        let server = Server::run(Command::new(PROGRAM).args(server).args(flags), 2);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for window in 0..20 {
            socket.send_to(&datagram(1000 * window, 10), server.address("udp")).unwrap();
            until(&server, |told| {
                let series = "dvs_events_received_total{";
                told.text.contains(series)
                    && told.sum("dvs_events_received_total", &[]) == 10 * (window + 1)
            });
        }
        let lines = server.terminate();
        let predictions = lines.lines().filter(|line| line.contains("\"type\":\"prediction\""));
        assert_eq!(predictions.count(), 20, "{rule}: {lines}");
    }
}

#[test]
fn who_skips_to_the_newest_counts_what_was_skipped() {
    let mut server = start("faery-t64", &["--overflow", "udp=skip-to-newest"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = server.address("udp").to_owned();
    // Each holds 40 windows of 10 events, with silence between them.
    let sent = 30;
    for k in 0..sent {
        let spaced = (0..40).flat_map(|n| datagram(1_000_000 * k + 20_000 * n, 10));
        socket.send_to(&spaced.collect::<Vec<u8>>(), &to).unwrap();
    }
    // The newest is never skipped.
    let newest = 1_000_000 * sent;
    socket.send_to(&datagram(newest, 10), &to).unwrap();
    let mut records: Vec<Value> = Vec::new();
    while records.last().is_none_or(|record| record["t_us"] != newest + 1000) {
        records.push(next(&mut server));
    }
    let rest = server.terminate();
    records.extend(rest.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    let predictions = records.iter().filter(|record| record["type"] == "prediction");
    let stepped: u64 = predictions.map(|record| record["events"].as_u64().unwrap()).sum();
    let summary = records.last().unwrap();
    assert_eq!(summary["events"], (sent * 40 + 1) * 10);
    let skipped = summary["losses"]["overflow"].as_u64().unwrap();
    assert_eq!(stepped + skipped, (sent * 40 + 1) * 10, "{summary}");
}

#[test]
fn hostile_datagrams_are_counted_and_the_next_one_is_read() {
    let server = start("faery-t64", &[]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = server.address("udp").to_owned();
    let event = [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 4, 0, 1];
    let beyond = [0xff; 13];
    for datagram in [&event[..], &[], &event[..5], &beyond, &[7; 1000], &event] {
        socket.send_to(datagram, &to).unwrap();
    }
    let streams = by_stream(&server.terminate());
    let summary: Value = serde_json::from_str(streams[0].last().unwrap()).unwrap();
    assert_eq!(summary["type"], "summary");
    assert!(summary["losses"]["malformed"].as_u64().unwrap() >= 3, "{summary}");
}

#[test]
fn what_the_kernel_drops_is_counted_and_told() {
    let flags = ["serve", "-q", "--udp", "0=faery-t64", "--http", "0"];
    let server = Server::run(Command::new(PROGRAM).args(flags), 2);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ready = || server.request("GET /readyz", "").0;
    assert_eq!(ready(), 200);
    // Twice what the kernel grants at most; nothing comes after them.
    let (sent, each) = (700, 4000);
    server.signal("-STOP");
    for k in 0..sent {
        let all = datagram(100 * k * each, each);
        socket.send_to(&all, server.address("udp")).unwrap();
    }
    server.signal("-CONT");
    let begun = Instant::now();
    loop {
        let metrics = server.metrics();
        let read = metrics.sum("dvs_events_received_total", &[]) / each;
        let lost = metrics.sum("dvs_datagrams_lost_total", &[]);
        if lost > 0 && read + lost == sent {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{read} read, {lost} lost, of {sent}");
    }
    let (status, why) = server.request("GET /readyz", "");
    assert_eq!((status, why.contains("lost")), (503, true), "{why}");
    while ready() != 200 {
        assert!(begun.elapsed() < PATIENCE);
    }
}

/// Waits for a time when `/metrics` tells this.
fn until(server: &Server, told: impl Fn(&Metrics) -> bool) -> Metrics {
    let begun = Instant::now();
    loop {
        let metrics = server.metrics();
        if told(&metrics) {
            return metrics;
        }
        assert!(begun.elapsed() < PATIENCE, "{}", metrics.text);
    }
}

#[test]
fn numbers_that_have_not_come_by_the_end_of_the_stream_are_lost() {
    let flags = ["serve", "-q", "--udp", "0=jaer", "--http", "0", "--idle-timeout", "300ms"];
    let server = Server::run(Command::new(PROGRAM).args(flags), 2);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in [1_u32, 2, 4, 2] {
        let datagram = [number, 5 << 8 | 3 << 1, number].map(u32::to_be_bytes).concat();
        socket.send_to(&datagram, server.address("udp")).unwrap();
    }
    let ended = until(&server, |told| {
        told.sum("dvs_streams", &[]) == 0
            && told.text.contains("dvs_events_received_total{")
            && told.sum("dvs_events_received_total", &[]) == 3
    });
    assert_eq!(ended.sum("dvs_datagrams_lost_total", &[]), 1);
    assert_eq!(ended.sum("dvs_datagrams_repeated_total", &[]), 1);
}

#[test]
fn who_gets_no_slot_is_told_of_once_and_its_datagrams_are_lost() {
    let flags = ["serve", "-v", "--udp", "0=faery-t64", "--http", "0", "--max-streams", "1"];
    let server = Server::run(Command::new(PROGRAM).args(flags).stderr(Stdio::piped()), 2);
    let [seated, other] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    seated.send_to(&datagram(1_000_000, 10), server.address("udp")).unwrap();
    until(&server, |told| told.sum("dvs_streams", &[]) == 1);
    for k in 0..5 {
        other.send_to(&datagram(1_000_000 + 1000 * k, 10), server.address("udp")).unwrap();
    }
    let told = until(&server, |told| told.sum("dvs_datagrams_lost_total", &[]) == 5);
    assert_eq!(told.sum("dvs_connections_refused_total", &[]), 0);
    server.signal("-TERM");
    let (_, _, log) = server.ended();
    let refused: Vec<&str> = log.lines().filter(|line| line.contains("refused")).collect();
    assert_eq!(refused.len(), 1, "{log}");
    assert!(refused[0].contains("slots are taken"), "{log}");
    assert!(refused[0].contains(&other.local_addr().unwrap().to_string()), "{log}");
}

#[test]
fn a_view_that_no_datagram_fits_is_refused_at_once() {
    for flags in
        [&["--udp", "0=jaer", "--sensor", "346x260"][..], &["--udp", "0=spif", "--sensor", "8x8"]]
    {
        let output = Command::new(PROGRAM).arg("serve").args(flags).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b""[..]), "{told}");
        assert!(told.contains(flags[1]) && told.contains("--scale"), "{told}");
    }
}

#[test]
fn load_is_told_of_a_short_run_and_of_the_silence_after_it() {
    let flags = ["serve", "-q", "--udp", "0=faery-t64", "--http", "0"];
    let server = Server::run(Command::new(PROGRAM).args(flags), 2);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(&datagram(1_000_000, 1000), server.address("udp")).unwrap();
    let load = |told: &Metrics| -> f64 {
        let line = told.text.lines().find_map(|line| line.strip_prefix("dvs_load_ratio "));
        line.unwrap().parse().unwrap()
    };
    until(&server, |told| load(told) > 0.0);
    until(&server, |told| load(told) == 0.0);
}

#[test]
fn who_sends_no_event_takes_no_slot() {
    let flags = ["serve", "-q", "--udp", "0=faery-t64", "--http", "0", "--max-streams", "2"];
    let server = Server::run(Command::new(PROGRAM).args(flags), 2);
    let send = |bytes: &[u8]| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(bytes, server.address("udp")).unwrap();
        socket
    };
    let strangers = [&b""[..], b"hello world", &[0xff; 13], b"GET / HTTP/1.1\r\n\r\n"].map(send);
    let told = until(&server, |told| told.sum("dvs_datagrams_lost_total", &[]) > 1);
    assert_eq!(told.sum("dvs_streams", &[]), 0);
    assert_eq!(server.request("GET /readyz", "").0, 200);
    // Whoever sends events after all is a stream.
    strangers[1].send_to(&datagram(1_000_000, 10), server.address("udp")).unwrap();
    let told = until(&server, |told| told.sum("dvs_streams", &[]) == 1);
    assert_eq!(told.sum("dvs_datagrams_lost_total", &[]), 4);
}

#[test]
fn a_sender_can_be_subscribed_to() {
    let flags = ["serve", "-q", "--udp", "0=faery-t64", "--http", "0", "--idle-timeout", "300ms"];
    let server = Server::run(Command::new(PROGRAM).args(flags), 2);
    let [own, other] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let name = format!("udp:{}", own.local_addr().unwrap());
    let mut heard = Vec::new();
    for asked in [name.clone(), name.replace(':', "%3a")] {
        let mut stream = TcpStream::connect(server.address("http")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /v1/predictions?stream={asked} HTTP/1.0\r\n\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), "HTTP/1.0 200 OK");
        heard.push(lines);
    }
    for socket in [other, own] {
        socket.send_to(&datagram(1_000_000, 100), server.address("udp")).unwrap();
    }
    for lines in heard {
        let mut records = lines.filter_map(|line| Some(line.strip_prefix("data: ")?.to_owned()));
        let record: Value = serde_json::from_str(&records.next().unwrap()).unwrap();
        assert_eq!(record["stream"], name);
        assert!(records.any(|line| line.starts_with("{\"type\":\"summary\"")));
    }
}

#[test]
fn who_sends_to_two_ports_is_two_streams_of_two_names() {
    let flags = ["serve", "-q", "--output", "jsonl", "--idle", "0s"];
    let ports = ["--udp", "0=faery-t64", "--udp", "0=faery-t64"];
    let server = Server::run(Command::new(PROGRAM).args(flags).args(ports), 2);
    let own = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = own.local_addr().unwrap();
    let mut names = Vec::new();
    for address in server.addresses("udp") {
        own.send_to(&datagram(1_000_000, 100), address).unwrap();
        names.push(format!("udp:{}:{peer}", address.rsplit_once(':').unwrap().1));
    }
    let lines = server.terminate();
    let summaries = server::records(&lines, "summary");
    let mut told: Vec<String> =
        summaries.map(|summary| summary["stream"].as_str().unwrap().to_owned()).collect();
    told.sort();
    names.sort();
    assert_eq!(told, names);
}

#[test]
fn what_has_come_before_sigterm_is_taken_in() {
    let server = start("faery-t64", &["--idle", "0s"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // More than is taken in at once, and within the smallest buffer that a kernel grants.
    let (n, each) = (7, 4000);
    server.signal("-STOP");
    for k in 0..n {
        let all = datagram(100 * k * each, each);
        socket.send_to(&all, server.address("udp")).unwrap();
    }
    server.signal("-TERM");
    server.signal("-CONT");
    let (code, lines, _) = server.ended();
    assert_eq!(code, Some(0));
    let summary: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(summary["events"], n * each);
}
