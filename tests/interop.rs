//! AEDAT 4 files that we write, read back by the Python packages dv-processing and faery.
//!
//! Skipped, with a line that says so, where `tests/interop/setup.sh` has not been run.

use dvs_stream::codec::aedat4::Aedat4Encoder;
use dvs_stream::codec::{Compression, Encoder, EncoderOptions};
use dvs_stream::event::{Event, Polarity, SensorSize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

const SENSOR: SensorSize = SensorSize { width: 346, height: 260 };
const READERS: [&str; 2] = ["dv-processing", "faery"];

fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = std::env::var_os("DVS_INTEROP_PYTHON")
        .map_or_else(|| root.join("target/interop-venv/bin/python"), PathBuf::from);
    if path.exists() {
        return Some(path);
    }
    eprintln!(
        "SKIPPED: dv-processing and faery do not read our files here, as there is no {}; \
         tests/interop/setup.sh makes it",
        path.display()
    );
    None
}

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
    let digest = |field: &dyn Fn(&Event) -> Vec<u8>| {
        let bytes: Vec<u8> = events.iter().flat_map(field).collect();
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    serde_json::json!({
        "reader": reader,
        "file": file,
        "sensor": SENSOR.to_string(),
        "events": events.len(),
        "digests": [
            digest(&|e| e.t_us.to_le_bytes().to_vec()),
            digest(&|e| e.x.to_le_bytes().to_vec()),
            digest(&|e| e.y.to_le_bytes().to_vec()),
            digest(&|e| vec![e.polarity as u8]),
        ],
    })
}

#[test]
fn python_packages_read_what_we_write() {
    let Some(python) = python() else { return };
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
