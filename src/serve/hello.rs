//! The first line that a client may send before its events: `dvs-stream {"format":…}`.
//!
//! Bytes in, wishes out; knows no socket.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::config::StreamConfig;
use crate::codec::by_name;
use crate::decide::Readout;
use crate::error::{Error, Result};
use crate::event::SensorSize;
use crate::model::{check_gap, check_readout};
use crate::quantity::{check_share, format_time_us, parse_time};
use crate::telemetry::{ANONYMOUS, DEPARTED};
use crate::view::{Crop, Orient, PolarityBit};

/// What a first line begins with.
const MARK: &[u8] = b"dvs-stream ";

/// Longest first line in bytes, its end included.
pub const MAX_HELLO_BYTES: usize = 4 << 10;

/// Windows of the longest silence that a first line may ask for, unless the server's own is longer.
pub const MAX_GAP_WINDOWS: u64 = 1000;

/// Longest name of a stream.
pub const MAX_NAME_BYTES: usize = 64;

/// Names that metrics give to streams without one.
const RESERVED: &[&str] = &[ANONYMOUS, DEPARTED];

/// What a client asks for; the server's flags hold where it asks for nothing.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hello {
    /// Name of the stream's format, where its bytes have no mark.
    pub format: Option<String>,
    /// Name of the stream in records and metrics.
    pub stream: Option<String>,
    /// Whether it goes on where it was, if its state is kept; it does unless this says otherwise.
    pub resume: Option<bool>,
    /// What lets it in, where the server asks for it.
    #[serde(deserialize_with = "secret")]
    pub token: Option<String>,
    sensor: Option<String>,
    polarity: Option<PolarityBit>,
    orient: Option<Orient>,
    flip_x: Option<bool>,
    flip_y: Option<bool>,
    transpose: Option<bool>,
    crop: Option<String>,
    scale: Option<bool>,
    stream_id: Option<i32>,
    readout: Option<Readout>,
    gap: Option<String>,
    quiet: Option<u32>,
    min_confidence: Option<f32>,
}

/// A text that no error repeats.
fn secret<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<Option<String>, D::Error> {
    Option::deserialize(value).map_err(|_| D::Error::custom("token: expected a string, in quotes"))
}

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq)]
pub enum Opening {
    /// Too few to tell.
    More,
    /// Events from the first byte on.
    Events,
    /// A first line, and its length.
    Hello(Box<Hello>, usize),
}

/// Reads the opening of a connection.
///
/// # Errors
/// When there is a first line that is too long, is no JSON, or asks for what there is not.
pub fn opening(bytes: &[u8]) -> Result<Opening> {
    let n = bytes.len().min(MARK.len());
    if bytes[..n] != MARK[..n] {
        return Ok(Opening::Events);
    }
    if n < MARK.len() {
        return Ok(Opening::More);
    }
    let within = &bytes[..bytes.len().min(MAX_HELLO_BYTES)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        if bytes.len() < MAX_HELLO_BYTES {
            return Ok(Opening::More);
        }
        return refuse(format!("the first line has more than {MAX_HELLO_BYTES} bytes"));
    };
    let object = serde_json::from_slice::<Map<String, Value>>(&bytes[MARK.len()..end]);
    match object.and_then(|object| Hello::deserialize(Value::Object(object))) {
        Ok(hello) => {
            hello.stream.as_deref().map_or(Ok(()), check_name)?;
            Ok(Opening::Hello(Box::new(hello), end + 1))
        }
        Err(error) => refuse(format!("the first line cannot be read: {error}")),
    }
}

/// Whether a stream may have this name: it becomes a label and the name of a file.
///
/// # Errors
/// When it may not.
pub fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let sound = (1..=MAX_NAME_BYTES).contains(&name.len()) && name.chars().all(plain);
    if !sound || name.chars().all(|c| c == '.') || RESERVED.contains(&name) {
        let shown: String = name.chars().take(MAX_NAME_BYTES).collect();
        return refuse(format!(
            "`{}` cannot name a stream: a name has 1 to {MAX_NAME_BYTES} of the characters A-Z, \
             a-z, 0-9, `.`, `_` and `-`, and is none of {}",
            shown.escape_debug(),
            RESERVED.join(", ")
        ));
    }
    Ok(())
}

impl Hello {
    /// How the stream is taken where the server takes streams like this.
    ///
    /// # Errors
    /// When a format, a size, a crop, a time or a share cannot be.
    pub fn over(&self, mut config: StreamConfig) -> Result<StreamConfig> {
        let StreamConfig { reading, rules, .. } = &mut config;
        if let Some(name) = &self.format {
            reading.format = Some(by_name(name)?);
        }
        let wrong = |key: &str, what: String| Error::Unsupported(format!("{key}: {what}"));
        let view = &mut reading.view;
        if let Some(text) = &self.sensor {
            view.sensor = Some(text.parse::<SensorSize>().map_err(|what| wrong("sensor", what))?);
        }
        if let Some(text) = &self.crop {
            view.crop = Crop::parse(text).map_err(|what| wrong("crop", what))?;
        }
        view.polarity = self.polarity.or(view.polarity);
        view.orient = self.orient.unwrap_or(view.orient);
        view.flip_x = self.flip_x.unwrap_or(view.flip_x);
        view.flip_y = self.flip_y.unwrap_or(view.flip_y);
        view.transpose = self.transpose.unwrap_or(view.transpose);
        view.scale = self.scale.unwrap_or(view.scale);
        reading.decoder.stream_id = self.stream_id.or(reading.decoder.stream_id);
        rules.readout = self.readout.unwrap_or(rules.readout);
        check_readout(rules.readout, rules.window_us)
            .map_err(|error| wrong("readout", error.to_string()))?;
        rules.silence.quiet_events = self.quiet.unwrap_or(rules.silence.quiet_events);
        if let Some(share) = self.min_confidence {
            rules.min_confidence =
                check_share(share).map_err(|what| wrong("min_confidence", what))?;
        }
        if let Some(text) = &self.gap {
            let gap_us = parse_time(text).map_err(|what| wrong("gap", what))?;
            check_gap(gap_us, config.window.window_us)
                .map_err(|error| wrong("gap", error.to_string()))?;
            // Each event may be followed by as many windows.
            let most_us = config.window.gap_us.max(MAX_GAP_WINDOWS * config.window.window_us);
            if gap_us > most_us {
                let most = format_time_us(most_us);
                return Err(wrong(
                    "gap",
                    format!("{text} is longer than {most} (--gap allows more)"),
                ));
            }
            config.set_gap(gap_us);
        }
        Ok(config)
    }
}

fn refuse<T>(what: String) -> Result<T> {
    Err(Error::Unsupported(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::Silence;
    use crate::ingest::Reading;
    use crate::serve::Settings;
    use crate::session::Rules;
    use crate::window::{Origin, Partial, WindowConfig};

    fn plain() -> StreamConfig {
        let sensor = SensorSize { width: 35, height: 35 };
        StreamConfig {
            reading: Reading::default(),
            window: WindowConfig {
                sensor,
                window_us: 1000,
                gap_us: 2000,
                origin: Origin::First,
                partial: Partial::Keep,
            },
            rules: Rules {
                readout: Readout::Max,
                silence: Silence { quiet_events: 5, gap_windows: 2 },
                min_confidence: 0.0,
                window_us: 1000,
            },
        }
    }

    #[test]
    fn every_cut_of_a_first_line_waits_for_its_end() {
        let line = b"dvs-stream {\"format\":\"aedat2\",\"stream\":\"cam-1\"}\nevents";
        let end = line.iter().position(|byte| *byte == b'\n').unwrap();
        for n in 0..=end {
            assert_eq!(opening(&line[..n]).unwrap(), Opening::More, "{n}");
        }
        let Opening::Hello(hello, length) = opening(line).unwrap() else { panic!() };
        assert_eq!((hello.stream.as_deref(), length), (Some("cam-1"), end + 1));
        assert_eq!(hello.over(plain()).unwrap().reading.format.unwrap().name, "aedat2");
    }

    #[test]
    fn events_are_told_at_the_first_byte_that_differs() {
        assert_eq!(opening(b"#").unwrap(), Opening::Events);
        assert_eq!(opening(b"dvs-streak").unwrap(), Opening::Events);
    }

    /// Every key of the first line, and values of it.
    const ASKED: &[(&str, &[&str])] = &[
        ("stream", &["\"cam-1\""]),
        ("format", &["\"nmnist\"", "\"aedat1\""]),
        ("token", &["\"x\""]),
        ("sensor", &["\"346x260\""]),
        ("crop", &["\"100,80,35,35\"", "\"none\""]),
        ("polarity", &["\"on-is-0\"", "\"on-is-1\""]),
        ("orient", &["\"upright\"", "\"stored\""]),
        ("flip_x", &["true", "false"]),
        ("flip_y", &["true", "false"]),
        ("transpose", &["true", "false"]),
        ("scale", &["true", "false"]),
        ("stream_id", &["0", "7"]),
        ("readout", &["\"ema:10ms\"", "\"last\"", "\"max:20ms\"", "\"mean\"", "\"max\""]),
        ("gap", &["\"5ms\""]),
        ("quiet", &["0", "12"]),
        ("min_confidence", &["0", "0.5"]),
        ("resume", &["false", "true"]),
    ];

    #[test]
    fn what_the_protocol_names_can_be_asked_for() {
        let ticked =
            |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let text = include_str!("../../PROTOCOL.md");
        let table = text.split_once("| key | value | meaning |\n").unwrap().1;
        let table = table.split_once("\n\n").unwrap().0;
        let mut keys = Vec::new();
        for row in table.lines().skip(1) {
            let cells: Vec<&str> = row.split('|').collect();
            let own = ticked(cells[1]);
            for value in ticked(cells[2]) {
                let asked = ASKED.iter().filter(|(key, _)| own.iter().any(|own| own == key));
                let is_plain = !value.starts_with(['"', 't', 'f']);
                assert!(
                    is_plain || asked.flat_map(|(_, values)| *values).any(|asked| *asked == value),
                    "{row}: {value}"
                );
            }
            keys.extend(own);
        }
        let mut asked: Vec<&str> = ASKED.iter().map(|(key, _)| *key).collect();
        keys.sort();
        asked.sort_unstable();
        assert_eq!(keys, asked);
        let rules = |config: StreamConfig| {
            (config.reading.format.map(|format| format.name), Settings::of(&config, ""))
        };
        for (key, values) in ASKED {
            let differs = |value: &&str| {
                let line = format!("dvs-stream {{\"{key}\":{value}}}\n");
                let Ok(Opening::Hello(hello, _)) = opening(line.as_bytes()) else {
                    panic!("{line}");
                };
                rules(hello.over(plain()).expect(&line)) != rules(plain())
            };
            let is_rule = !["stream", "token", "resume"].contains(key);
            assert_eq!(values.iter().filter(|value| differs(value)).count() > 0, is_rule, "{key}");
        }
    }

    #[test]
    fn what_cannot_be_asked_for_is_refused() {
        for line in ["{", "{\"colour\":1}", "{\"stream\":\"../x\"}", "{\"stream\":\"\"}", "[]"] {
            assert!(opening(format!("dvs-stream {line}\n").as_bytes()).is_err(), "{line}");
        }
        let mut long = b"dvs-stream {".to_vec();
        long.resize(MAX_HELLO_BYTES, b' ');
        assert!(opening(&long).is_err());
        assert_eq!(opening(&long[1..]).unwrap(), Opening::Events);
        assert_eq!(opening(&long[..MAX_HELLO_BYTES - 1]).unwrap(), Opening::More);
        for name in ["..", ".", "anonymous", "a b", "ä", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("DVS_346.left-1").is_ok());
        let asked = |line: &str| match opening(format!("dvs-stream {line}\n").as_bytes()) {
            Ok(Opening::Hello(hello, _)) => hello.over(plain()),
            other => panic!("{other:?}"),
        };
        for line in [
            "{\"format\":\"mp3\"}",
            "{\"gap\":\"0ms\"}",
            "{\"gap\":\"2\"}",
            "{\"gap\":\"9999999s\"}",
            "{\"gap\":\"1001ms\"}",
            "{\"min_confidence\":1.5}",
        ] {
            assert!(asked(line).is_err(), "{line}");
        }
        assert!(asked("{\"gap\":\"1s\"}").is_ok());
        assert!(opening(b"dvs-stream {\"readout\":\"least\"}\n").is_err());
    }
}
