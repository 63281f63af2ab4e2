//! What one client's fault is to its neighbours: nothing. Each fault is counted while the server
//! goes on, and a neighbour whose recording comes before, during and after it reads as its replay.

mod server;

use std::any::Any;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use server::events::DECK;
use server::{PATIENCE, Server, nameless, replay, rest_of};

/// What must stay as it is while a fault is counted, such as an open connection.
type Held = Vec<Box<dyn Any>>;

struct Fault {
    what: &'static str,
    flags: &'static [&'static str],
    play: fn(&Server) -> Held,
    /// A counter, its labels, and what it comes to; with `None` any number but 0.
    counted: (&'static str, &'static [&'static str], Option<u64>),
}

const ERRORS: &str = "dvs_stream_errors_total";
const REFUSED: &str = "dvs_connections_refused_total";
const LOST: &str = "dvs_events_lost_total";

const FAULTS: &[Fault] = &[
    Fault {
        what: "a header cut in the middle",
        flags: &[],
        play: |server| sent_and_closed(server, &deck()[..100]),
        counted: (ERRORS, &[], Some(1)),
    },
    Fault {
        what: "an end inside a packet",
        flags: &[],
        play: |server| sent_and_closed(server, &deck()[..deck().len() / 2]),
        counted: (ERRORS, &[], Some(1)),
    },
    Fault {
        what: "garbage after good packets",
        flags: &[],
        play: |server| {
            let mut garbage = deck();
            let middle = garbage.len() / 2;
            garbage[middle..].fill(0x5a);
            sent_and_closed(server, &garbage)
        },
        counted: (ERRORS, &[], Some(1)),
    },
    Fault {
        what: "a connection broken in the middle of a first line",
        flags: &[],
        play: |server| sent_and_closed(server, b"dvs-stream {\"stre"),
        counted: (ERRORS, &[], Some(1)),
    },
    Fault {
        what: "a connection reset within a first line",
        flags: &[],
        play: |server| {
            let mut stream = server.connect();
            stream.write_all(b"dvs-stream {\"stre").unwrap();
            let reset = linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&stream, sockopt::Linger, &reset).unwrap();
            Vec::new()
        },
        counted: (REFUSED, &[], Some(1)),
    },
    Fault {
        what: "a request whose head does not come",
        flags: &["--header-timeout", "200ms"],
        play: |server| asked(server, b"GET /li"),
        counted: (REFUSED, &[], Some(1)),
    },
    Fault {
        what: "a request that is none",
        flags: &[],
        play: |server| asked(server, b"dvs-stream {}\n\n"),
        counted: (REFUSED, &[], Some(1)),
    },
    Fault {
        what: "a request whose head is too long",
        flags: &[],
        play: |server| {
            asked(server, format!("GET /livez HTTP/1.1\r\nX: {}", "x".repeat(17 << 10)).as_bytes())
        },
        counted: (REFUSED, &[], Some(1)),
    },
    Fault {
        what: "a client that says nothing",
        flags: &["--header-timeout", "100ms"],
        play: |server| held(server.connect()),
        counted: (REFUSED, &[], Some(1)),
    },
    Fault {
        what: "a first line that comes a byte at a time",
        flags: &["--header-timeout", "200ms"],
        play: |server| dripping(server, b"dvs-stream {", &[b' '; 4000]),
        counted: (REFUSED, &[], Some(1)),
    },
    Fault {
        what: "a header that comes a byte at a time",
        flags: &["--header-timeout", "200ms"],
        play: |server| dripping(server, b"", &deck()),
        counted: (ERRORS, &[], Some(1)),
    },
    Fault {
        what: "events that come a byte at a time",
        flags: &["--header-timeout", "200ms"],
        play: |server| {
            let events = (0..20_u32).flat_map(|k| [3 << 8 | 3 << 1, 125 * k]);
            let events: Vec<u8> = events.flat_map(u32::to_be_bytes).collect();
            dripping(server, b"dvs-stream {\"stream\":\"slow\"}\n#!AER-DAT2.0\r\n", &events)
        },
        // None is lost, and it is not let go.
        counted: ("dvs_events_received_total", &["stream=\"slow\""], Some(20)),
    },
    Fault {
        what: "a client that sends and never reads",
        flags: &["--outbox", "16", "--patience", "1ms"],
        play: |server| {
            let mut deaf = server.connect();
            setsockopt(&deaf, sockopt::RcvBuf, &4096).unwrap();
            let event = |k: u32| [3 << 8 | 3 << 1, 125 * k].map(u32::to_be_bytes);
            let events = (0..8 * 60_000).flat_map(event).flatten();
            deaf.write_all(&b"#!AER-DAT2.0\r\n".iter().copied().chain(events).collect::<Vec<_>>())
                .unwrap();
            held(deaf)
        },
        counted: ("dvs_records_missed_total", &[], None),
    },
    Fault {
        what: "a name that another has",
        flags: &[],
        play: |server| {
            let named = b"dvs-stream {\"stream\":\"cam\"}\n";
            let mut first = server.connect();
            first.write_all(&[&named[..], &deck()[..deck().len() / 2]].concat()).unwrap();
            let mut lines = BufReader::new(first);
            lines.read_line(&mut String::new()).unwrap();
            sent_and_closed(server, named);
            held(lines)
        },
        counted: (REFUSED, &[], Some(1)),
    },
    Fault {
        what: "a name that leaves its folder",
        flags: &[],
        play: |server| sent_and_closed(server, b"dvs-stream {\"stream\":\"../cam\"}\n"),
        counted: (REFUSED, &[], Some(1)),
    },
    Fault {
        what: "datagrams out of order",
        flags: &["--udp", "0=faery-t64"],
        play: |server| datagrams(server, &[t64(0, 100), t64(200_000, 100), t64(100_000, 100)]),
        counted: (LOST, &["reason=\"late\""], Some(100)),
    },
    Fault {
        what: "datagrams that come twice",
        flags: &["--udp", "0=jaer"],
        play: |server| {
            let numbered = |number: u32| {
                let event = |k: u32| [3 << 8 | 3 << 1, 5000 * number + 50 * k];
                let events = (0..100).flat_map(event).flat_map(u32::to_be_bytes);
                number.to_be_bytes().into_iter().chain(events).collect::<Vec<_>>()
            };
            // 3 never comes, which is sure once the numbers are 64 beyond it.
            let numbers = (1..100).chain([98, 99]).filter(|number| *number != 3);
            datagrams(server, &numbers.map(numbered).collect::<Vec<_>>())
        },
        counted: ("dvs_datagrams_lost_total", &[], Some(1)),
    },
    Fault {
        what: "a datagram that is cut",
        flags: &["--udp", "0=faery-t64"],
        play: |server| datagrams(server, &[t64(0, 100)[..1295].to_vec()]),
        counted: (LOST, &["reason=\"malformed\""], Some(1)),
    },
    Fault {
        what: "a datagram of another format",
        flags: &["--udp", "0=faery-t64"],
        play: |server| datagrams(server, &[t64(0, 100), vec![0xff; 1300]]),
        counted: (LOST, &["reason=\"malformed\""], Some(100)),
    },
    Fault {
        what: "strangers that send no event",
        flags: &["--udp", "0=faery-t64", "--max-streams", "2"],
        play: |server| {
            let send = |datagram: &Vec<u8>| datagrams(server, std::slice::from_ref(datagram));
            [vec![], vec![0xff; 13], vec![7; 1000]].iter().flat_map(send).collect()
        },
        counted: ("dvs_datagrams_lost_total", &[], Some(3)),
    },
    Fault {
        what: "AEStream's stale tail",
        flags: &["--udp", "0=spif"],
        play: |server| {
            let event = |t_us: u32| [3 << 16 | 3, t_us].map(u32::to_le_bytes).concat();
            let times = (0..60).map(|k| 100 * k + 10_000).chain([5000, 5100, 5200]);
            datagrams(server, &[times.flat_map(event).collect()])
        },
        counted: (LOST, &["reason=\"malformed\""], Some(3)),
    },
    Fault {
        what: "a time of 30 years",
        flags: &["--udp", "0=faery-t64"],
        play: |server| {
            let mut all = vec![t64(0, 100), t64(1_000_000_000_000_000, 1)];
            all.extend((0..30).map(|k| t64(10_000 + 10_000 * k, 100)));
            datagrams(server, &all)
        },
        counted: ("dvs_restarts_total", &[], Some(1)),
    },
    Fault {
        what: "a thousand connections at once",
        flags: &["--max-streams", "8"],
        play: |server| held((0..1000).map(|_| server.connect()).collect::<Vec<_>>()),
        counted: (REFUSED, &[], Some(993)),
    },
];

#[test]
fn a_fault_is_counted_and_changes_nothing_for_others() {
    let expected = nameless(&replay(Path::new(DECK), &[]));
    for Fault { what, flags, play, counted } in FAULTS {
        eprintln!("{what}");
        let listeners = 2 + usize::from(flags.contains(&"--udp"));
        let server = Server::start(&[&["--port", "0", "--http", "0"], *flags].concat(), listeners);
        let mut neighbour = server.connect();
        let recording = deck();
        let (before, rest) = recording.split_at(recording.len() / 3);
        let (meanwhile, after) = rest.split_at(recording.len() / 3);
        neighbour.write_all(before).unwrap();
        let held = play(&server);
        neighbour.write_all(meanwhile).unwrap();
        check_counted(&server, what, *counted);
        neighbour.write_all(after).unwrap();
        neighbour.shutdown(Shutdown::Write).unwrap();
        assert_eq!(nameless(&rest_of(neighbour)), expected, "{what}");
        drop(held);
    }
}

/// Waits until a counter comes to what it should, and no further.
fn check_counted(
    server: &Server,
    what: &str,
    (metric, labels, expected): (&str, &[&str], Option<u64>),
) {
    let begun = Instant::now();
    loop {
        let n = server.metrics().sum(metric, labels);
        if expected.map_or(n > 0, |expected| n == expected) {
            return;
        }
        assert!(expected.is_none_or(|expected| n < expected), "{what}: {metric} is {n}");
        assert!(begun.elapsed() < PATIENCE, "{what}: {metric} stays at {n}");
    }
}

fn deck() -> Vec<u8> {
    std::fs::read(DECK).unwrap()
}

fn held(what: impl Any) -> Held {
    vec![Box::new(what)]
}

/// Sends all and closes; the answers are read.
fn sent_and_closed(server: &Server, bytes: &[u8]) -> Held {
    let mut stream: TcpStream = server.connect();
    // A server that refuses may close first.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    rest_of(stream);
    Vec::new()
}

/// Says something over HTTP, and keeps the connection.
fn asked(server: &Server, what: &[u8]) -> Held {
    let mut stream = TcpStream::connect(server.address("http")).unwrap();
    stream.write_all(what).unwrap();
    held(stream)
}

/// Sends what comes first at once, and then a byte at a time while it may.
fn dripping(server: &Server, first: &[u8], bytes: &[u8]) -> Held {
    let mut stream = server.connect();
    stream.write_all(first).unwrap();
    let bytes = bytes.to_vec();
    let still_open = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        for byte in bytes {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    held(still_open)
}

/// Sends these datagrams, one after another.
fn datagrams(server: &Server, all: &[Vec<u8>]) -> Held {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for datagram in all {
        socket.send_to(datagram, server.address("udp")).unwrap();
    }
    held(socket)
}

/// `n` events as `faery-t64`, 100 µs apart.
fn t64(from_us: u64, n: u64) -> Vec<u8> {
    let event = |k: u64| {
        let t_us = (from_us + 100 * k).to_le_bytes();
        [&t_us[..], &3_u16.to_le_bytes(), &3_u16.to_le_bytes(), &[1]].concat()
    };
    (0..n).flat_map(event).collect()
}
