//! What we write and send, read back by the Python packages dv-processing and faery.
//!
//! Skipped, with a line that says so, where `tests/interop/setup.sh` has not been run.

mod peers;
mod skip;

use dvs_stream::codec::aedat4::Aedat4Encoder;
use dvs_stream::codec::{Compression, Encoder, EncoderOptions};
use dvs_stream::event::{Event, Polarity, SensorSize};
use peers::python;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SENSOR: SensorSize = SensorSize { width: 346, height: 260 };
const READERS: [&str; 2] = ["dv-processing", "faery"];

const PACKAGES: [&str; 2] = ["dv_processing", "faery"];

fn events(n: usize) -> Vec<Event> {
    (0..n as u64)
        .map(|k| Event {
            t_us: 1_589_163_147_368_868 + 3 * k,
            x: (k * 7 % 346) as u16,
            y: (k * k % 260) as u16,
            polarity: Polarity::from_on(k % 3 == 0),
        })
        .collect()
}

fn encoded(events: &[Event], compression: Compression) -> Vec<u8> {
    let mut encoder = Aedat4Encoder::new(&EncoderOptions { sensor: Some(SENSOR), compression });
    let mut bytes = Vec::new();
    encoder.encode(events, &mut bytes).unwrap();
    let patch = encoder.finish(&mut bytes).unwrap().unwrap();
    bytes[patch.offset as usize..][..patch.bytes.len()].copy_from_slice(&patch.bytes);
    bytes
}

/// The line that `read.py` must print of these events.
fn expected(reader: &str, file: &Path, events: &[Event]) -> serde_json::Value {
    serde_json::json!({
        "reader": reader,
        "file": file,
        "sensor": SENSOR.to_string(),
        "events": events.len(),
        "digests": digests(events),
    })
}

/// Of t, x, y and polarity.
fn digests(events: &[Event]) -> [String; 4] {
    let digest = |field: &dyn Fn(&Event) -> Vec<u8>| {
        let bytes: Vec<u8> = events.iter().flat_map(field).collect();
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    [
        digest(&|e| e.t_us.to_le_bytes().to_vec()),
        digest(&|e| e.x.to_le_bytes().to_vec()),
        digest(&|e| e.y.to_le_bytes().to_vec()),
        digest(&|e| vec![e.polarity as u8]),
    ]
}

#[test]
fn python_packages_read_what_we_write() {
    let Some(python) = python(&PACKAGES) else { return };
    let folder = tempfile::tempdir().unwrap();
    let compressions = [
        Compression::None,
        Compression::Lz4,
        Compression::Lz4High,
        Compression::Zstd,
        Compression::ZstdHigh,
    ];
    let mut files = Vec::new();
    for compression in compressions {
        for n in [1, 10_000, 25_000] {
            let path = folder.path().join(format!("{compression:?}-{n}.aedat4"));
            std::fs::write(&path, encoded(&events(n), compression)).unwrap();
            files.push((path, n));
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/read.py");
    let paths = files.iter().map(|(path, _)| path);
    let output = Command::new(python).arg(script).args(paths).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), files.len() * READERS.len());
    let wanted = files
        .iter()
        .flat_map(|(path, n)| READERS.map(|reader| expected(reader, path, &events(*n))));
    for (line, wanted) in lines.iter().zip(wanted) {
        assert_eq!(line, &wanted);
    }
    eprintln!("read back equal: {} files by {}", files.len(), READERS.join(" and "));
}

/// The line that a receiver prints must hold the digests of the events.
fn check(receiver: &str, lines: &mut dyn Iterator<Item = String>, events: &[Event]) {
    let line = lines.next().unwrap_or_default();
    let found: serde_json::Value = serde_json::from_str(&line).expect(receiver);
    assert_eq!(found["digests"], serde_json::json!(digests(events)), "{receiver}");
    eprintln!("received equal: {} events by {receiver}", events.len());
}

fn first_line(child: &mut Child) -> (String, impl Iterator<Item = String> + use<>) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    (lines.next().unwrap_or_default(), lines)
}

fn send(file: &Path, flags: &[&str], url: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dvs-stream"));
    command.arg("send").args(flags).arg(file).arg(url).stdout(Stdio::piped());
    command
}

/// Waits until somebody listens for datagrams there: a receiver binds when it begins to wait.
fn await_bound(port: u16) {
    let bound = || {
        let tables = ["/proc/net/udp", "/proc/net/udp6"].map(std::fs::read_to_string);
        tables.into_iter().flatten().any(|table| table.contains(&format!(":{port:04X} ")))
    };
    let begun = std::time::Instant::now();
    while !bound() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody listens at {port}");
    }
}

#[test]
fn python_packages_receive_what_we_send() {
    let Some(python) = python(&PACKAGES) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, events) = (folder.path().join("sent.aedat4"), events(50_000));
    std::fs::write(&path, encoded(&events, Compression::Lz4)).unwrap();
    let receive = |arguments: &[&str]| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/receive.py");
        let mut command = Command::new(&python);
        command.arg(script).args(arguments).stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    for flags in [["--speed", "1"], ["--speed", "max"], ["--compression", "zstd"]] {
        let mut server = send(&path, &flags, "dv://127.0.0.1:0").spawn().unwrap();
        let (line, _rest) = first_line(&mut server);
        let mut receiver = receive(&["dv", line.rsplit(':').next().unwrap()]);
        let lines = BufReader::new(receiver.stdout.take().unwrap()).lines();
        check("dv-processing", &mut lines.map_while(Result::ok), &events);
        receiver.wait().unwrap();
        assert!(server.wait().unwrap().success());
    }
    let low: Vec<Event> =
        events.iter().map(|event| Event { t_us: event.t_us & 0xFFFF_FFFF, ..*event }).collect();
    for (layout, format, expected) in
        [("t64_x16_y16_on8", "faery-t64", &events), ("t32_x16_y15_on1", "faery-t32", &low)]
    {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let mut receiver = receive(&[layout, &port, "50000"]);
        let (ready, mut lines) = first_line(&mut receiver);
        assert_eq!(ready, "ready");
        await_bound(port.parse().unwrap());
        let url = format!("udp://127.0.0.1:{port}?format={format}");
        assert!(send(&path, &["--speed", "0.5"], &url).status().unwrap().success());
        check("faery", &mut lines, expected);
        receiver.wait().unwrap();
    }
}
