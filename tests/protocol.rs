//! The examples of PROTOCOL.md, run as they stand there, against the codecs.

mod skip;

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use dvs_stream::codec::datagrams_by_name;
use dvs_stream::event::{Event, Polarity};
use skip::skip;

/// The blocks of code in a language, in order.
fn examples(language: &str) -> Vec<String> {
    let text = include_str!("../PROTOCOL.md");
    let blocks = text.split("\n```").skip(1).step_by(2);
    let own = blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    own.map(str::to_owned).collect()
}

fn example(language: &str, containing: &str) -> String {
    let all = examples(language);
    all.into_iter().find(|code| code.contains(containing)).expect(containing)
}

/// Runs a program; `None` where there is none of this name.
fn run(program: &str, code: &str) -> Option<Output> {
    let own = std::path::Path::new(env!("CARGO_BIN_EXE_dvs-stream"));
    let folder = own.parent().expect("a folder").display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    match Command::new(program).args(["-c", code]).env("PATH", path).output() {
        Ok(output) => {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{code}\n{error}");
            Some(output)
        }
        Err(error) => {
            skip(&format!("{program}: {error}"));
            None
        }
    }
}

/// Runs code against a socket of our own in place of port 3333, and decodes what comes.
fn received(program: &str, code: &str, format: &str) -> Option<Vec<Event>> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    let port = socket.local_addr().expect("an address").port();
    assert!(code.contains("3333"), "{code}");
    let code = code.replace("3333", &port.to_string());
    let receiving = std::thread::spawn(move || {
        let mut datagrams: Vec<Vec<u8>> = Vec::new();
        let (mut buffer, mut silences) = ([0; 2048], 0);
        // Programs take a while to start.
        while silences < 2 || (datagrams.is_empty() && silences < 20) {
            match socket.recv(&mut buffer) {
                Ok(n) => datagrams.push(buffer[..n].to_vec()),
                Err(_) => silences += 1,
            }
        }
        datagrams
    });
    let ran = run(program, &code);
    let datagrams = receiving.join().expect("datagrams");
    ran?;
    let mut decoder = (datagrams_by_name(format).expect("a format").decoder)(None);
    let mut events = Vec::new();
    for datagram in datagrams {
        decoder.arrived(77);
        decoder.feed(&datagram, &mut events).expect("datagrams never fail");
    }
    assert_eq!(decoder.tally(), Default::default());
    Some(events)
}

#[test]
fn datagrams_from_python() {
    let code = example("py", "SOCK_DGRAM");
    let Some(events) = received("python3", &code, "faery-t64") else { return };
    let expected = (0..10_u16).map(|k| Event {
        t_us: 1000 * u64::from(k),
        x: 10 + k,
        y: 20,
        polarity: Polarity::from_on(k % 2 == 1),
    });
    assert!(events.iter().copied().eq(expected), "{events:?}");
}

#[test]
fn datagrams_from_the_shell() {
    let Some(events) = received("bash", &example("bash", "printf"), "spif") else { return };
    assert_eq!(events, [Event { t_us: 77, x: 215, y: 164, polarity: Polarity::On }]);
    let Some(events) = received("bash", &example("bash", "send"), "faery-t32") else { return };
    assert_eq!(events.len(), 23_958);
}

#[test]
fn a_dv_client_in_python() {
    let mut server = start_server();
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
    let port = line.trim().rsplit(':').next().expect("a port").to_owned();
    let code = example("py", "IOHE").replace("7777", &port);
    let ran = run("python3", &code);
    if ran.is_none() {
        server.kill().expect("a server");
    }
    let ended = server.wait().expect("an end");
    if let Some(output) = ran {
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "23958");
        assert!(ended.success());
    }
}

fn start_server() -> Child {
    Command::new(env!("CARGO_BIN_EXE_dvs-stream"))
        .args(["send", "--speed", "max", "fixtures/deck.aedat4", "dv://127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program")
}

#[test]
fn bytes_that_the_text_names_decode_to_what_it_says() {
    let text = include_str!("../PROTOCOL.md").replace('\n', " ");
    let far = Event { t_us: 1_589_163_147_368_868, x: 215, y: 164, polarity: Polarity::On };
    let low = Event { t_us: far.t_us & 0xFFFF_FFFF, ..far };
    let jaer = Event { t_us: 0x0102_0304, x: 5, y: 3, polarity: Polarity::On };
    for (format, bytes, event) in [
        ("faery-t64", "a4 99 e3 e0 55 a5 05 00 d7 00 a4 00 01", far),
        ("faery-t32", "a4 99 e3 e0 d7 00 49 01", low),
        ("spif", "a4 80 d7 80", Event { t_us: 77, ..far }),
        ("spif", "a4 80 d7 00 a4 99 e3 e0", low),
        ("jaer", "00 00 00 01 00 00 03 0a 01 02 03 04", jaer),
    ] {
        assert!(text.contains(&format!("`{bytes}`")), "{bytes} is not in the text");
        let byte = |byte: &str| u8::from_str_radix(byte, 16).expect("a byte");
        let datagram: Vec<u8> = bytes.split(' ').map(byte).collect();
        let mut decoder = (datagrams_by_name(format).expect("a format").decoder)(None);
        let mut events = Vec::new();
        decoder.arrived(77);
        decoder.feed(&datagram, &mut events).expect("datagrams never fail");
        assert_eq!(events, [event], "{format}");
    }
}
