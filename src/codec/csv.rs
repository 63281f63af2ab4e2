//! Lines of comma-separated numbers: t, x, y, p, with or without a line of names above.
//!
//! The names may carry the sensor's size, as faery writes it: `t,x@346,y@260,on`. Times are whole
//! µs; an event of an impossible one is counted and dropped. Must not guess at other units or
//! separators.

use super::columns::{begins_a_name, field_of};
use super::probe::unmarked;
use super::{
    Decoder, DecoderOptions, Encoder, EncoderOptions, Format, Match, Need, Patch, Tally, lose,
};
use crate::error::{Error, Result, grouped};
use crate::event::{Event, Polarity, Sensor, SensorSize};

/// Row of [`super::FORMATS`].
pub const FORMAT: Format = Format {
    name: NAME,
    title: "comma-separated values (t, x, y, p)",
    extensions: &["csv"],
    probe,
    plausible,
    decoder,
    encoder: Some(encoder),
    compressed: false,
    in_chip_order: false,
};

const NAME: &str = "csv";
/// Greatest length of a line.
const MAX_LINE_BYTES: usize = 256;

/// The mark is a first line that names all four columns.
fn probe(prefix: &[u8]) -> Match {
    let start = prefix.get(..prefix.len().min(MAX_LINE_BYTES)).unwrap_or_default();
    let whole = start.contains(&b'\n');
    let line = start.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(unmarked(line));
    let first = line.split([',', '@']).next().unwrap_or_default();
    let may_be =
        if first.len() == line.len() { begins_a_name(first) } else { field_of(first).is_some() };
    match whole {
        true if Columns::named(&line).is_some() => Match::Yes,
        false if may_be && prefix.len() < MAX_LINE_BYTES => Match::Short,
        _ => Match::No,
    }
}

fn plausible(prefix: &[u8]) -> bool {
    let first = prefix.split(|&byte| byte == b'\n').next().unwrap_or_default();
    Columns::default().event(unmarked(first)).is_ok()
}

fn decoder(_: &DecoderOptions) -> Box<dyn Decoder> {
    Box::new(Csv { columns: None, line: Vec::new(), n_lines: 0, offset: 0, n_malformed: 0 })
}

fn encoder(options: &EncoderOptions) -> Box<dyn Encoder> {
    Box::new(Writer { sensor: options.sensor, begun: false })
}

/// Which column holds what.
#[derive(Clone, Copy)]
struct Columns {
    /// For each of t, x, y, p the column that holds it.
    of: [usize; 4],
    n_columns: usize,
    size: Option<SensorSize>,
}

impl Default for Columns {
    fn default() -> Self {
        Columns { of: [0, 1, 2, 3], n_columns: 4, size: None }
    }
}

impl Columns {
    /// Columns of a line of names; `None` where one of the four is missing. What stands for the size
    /// of a sensor and cannot be one is an error.
    fn named(line: &str) -> Option<std::result::Result<Columns, String>> {
        let mut of = [None; 4];
        let mut sides = [None; 4];
        let mut strange = None;
        let mut n_columns = 0;
        for (k, name) in line.trim_end().split(',').enumerate() {
            let (name, side) = name.split_once('@').map_or((name, None), |(a, b)| (a, Some(b)));
            if let Some(which) = field_of(name) {
                of[which] = Some(k);
                sides[which] =
                    side.and_then(|side| side.trim().parse().ok()).filter(|&side: &u16| side > 0);
                // The columns of times and polarities have no side.
                if (1..3).contains(&which) && sides[which].is_none() {
                    strange = strange.or(side);
                }
            }
            n_columns = k + 1;
        }
        let [Some(t), Some(x), Some(y), Some(p)] = of else { return None };
        let size = match sides {
            [_, Some(width), Some(height), _] => Some(SensorSize { width, height }),
            _ => None,
        };
        Some(match strange {
            Some(side) => {
                Err(format!("names the sensor's side `{side}`, expected 1 to {}", u16::MAX))
            }
            None => Ok(Columns { of: [t, x, y, p], n_columns, size }),
        })
    }

    /// The event of a line, none where its time is a whole number that no time can be, or what is
    /// wrong with the line.
    fn event(&self, line: &[u8]) -> std::result::Result<Option<Event>, String> {
        let mut fields = [&line[..0]; 4];
        let mut n_columns = 0;
        for (k, text) in line.split(|&byte| byte == b',').enumerate() {
            if let Some(which) = self.of.iter().position(|&column| column == k) {
                fields[which] = text.trim_ascii();
            }
            n_columns = k + 1;
        }
        if n_columns != self.n_columns {
            return Err(format!("holds {n_columns} columns, expected {}", self.n_columns));
        }
        let [t, x, y, p] = fields;
        let on = match p {
            b"1" | b"true" | b"True" => true,
            b"0" | b"-1" | b"false" | b"False" => false,
            _ => return Err(found("polarity", p, "0, 1 or -1")),
        };
        if !is_whole(t.strip_prefix(b"-").unwrap_or(t)) {
            return Err(found("time", t, "a whole number of µs, at least 0"));
        }
        let side = |text| number(text).and_then(|n| u16::try_from(n).ok());
        let x = side(x).ok_or_else(|| found("column", x, "a pixel's x"))?;
        let y = side(y).ok_or_else(|| found("row", y, "a pixel's y"))?;
        let t_us = number(t).filter(|&t| t <= Event::MAX_T_US);
        Ok(t_us.map(|t_us| Event { t_us, x, y, polarity: Polarity::from_on(on) }))
    }
}

fn found(what: &str, text: &[u8], wanted: &str) -> String {
    let text = text.get(..text.len().min(32)).unwrap_or_default().escape_ascii();
    format!("has the {what} `{text}`, expected {wanted}")
}

fn is_whole(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// `None` also for a number that is too large.
fn number(text: &[u8]) -> Option<u64> {
    let digits = |number: u64, &byte: &u8| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    };
    if text.is_empty() { None } else { text.iter().try_fold(0, digits) }
}

struct Csv {
    /// Known after the first line.
    columns: Option<Columns>,
    /// The start of a line whose end has not come.
    line: Vec<u8>,
    n_lines: u64,
    /// Offset of the present line.
    offset: u64,
    n_malformed: u64,
}

impl Csv {
    fn line(&mut self, line: &[u8], out: &mut Vec<Event>) -> Result<()> {
        self.n_lines += 1;
        let text = line.trim_ascii();
        if !text.is_empty() {
            match self.columns {
                Some(columns) => self.event(&columns, text, out)?,
                None => self.first(text, out)?,
            }
        }
        self.offset += line.len() as u64 + 1;
        Ok(())
    }

    fn first(&mut self, text: &[u8], out: &mut Vec<Event>) -> Result<()> {
        let text = unmarked(text);
        if !text.first().is_some_and(u8::is_ascii_alphabetic) {
            let columns = *self.columns.insert(Columns::default());
            return self.event(&columns, text, out);
        }
        let names = Columns::named(&String::from_utf8_lossy(text));
        let named = names.unwrap_or_else(|| {
            let text = text.escape_ascii();
            Err(format!("names the columns `{text}`, expected t, x, y and p among them"))
        });
        self.columns = Some(named.map_err(|what| self.malformed(what))?);
        Ok(())
    }

    fn event(&mut self, columns: &Columns, text: &[u8], out: &mut Vec<Event>) -> Result<()> {
        match columns.event(text).map_err(|what| self.malformed(what))? {
            Some(event) => out.push(event),
            None => lose(&mut self.n_malformed, out),
        }
        Ok(())
    }

    fn check_length(&self, n: usize) -> Result<()> {
        if n <= MAX_LINE_BYTES {
            return Ok(());
        }
        let what =
            format!("line {} is longer than {MAX_LINE_BYTES} bytes", grouped(self.n_lines + 1));
        Err(Error::Limit { format: NAME, offset: self.offset, what })
    }

    fn malformed(&self, what: String) -> Error {
        let what = format!("line {} {what}", grouped(self.n_lines));
        Error::Malformed { format: NAME, offset: self.offset, what }
    }
}

impl Decoder for Csv {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<Need> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (now, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            self.check_length(self.line.len() + now.len())?;
            if self.line.is_empty() {
                self.line(now, out)?;
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(now);
                self.line(&line, out)?;
                line.clear();
                self.line = line;
            }
        }
        self.check_length(self.line.len() + rest.len())?;
        self.line.extend_from_slice(rest);
        Ok(Need::More)
    }

    fn finish(&mut self, out: &mut Vec<Event>) -> Result<()> {
        let line = std::mem::take(&mut self.line);
        let whole = |columns: &Columns| columns.of[3] + 1 == columns.n_columns;
        match (self.columns, line.trim_ascii()) {
            (None, []) => {
                let what = "the recording is empty".to_owned();
                Err(Error::Malformed { format: NAME, offset: self.offset, what })
            }
            (Some(_), []) => Ok(()),
            // A number that was cut is a number still; a polarity is not.
            (Some(columns), _) if whole(&columns) => self.line(&line, out),
            _ => {
                self.n_lines += 1;
                Err(self.malformed("ends without a line end".to_owned()))
            }
        }
    }

    fn has_begun(&self) -> bool {
        self.columns.is_some() || self.line.is_empty()
    }

    fn sensor(&self) -> Sensor {
        Sensor { size: self.columns.and_then(|columns| columns.size), ..Sensor::default() }
    }

    fn tally(&self) -> Tally {
        Tally { malformed: self.n_malformed, ..Tally::default() }
    }
}

struct Writer {
    sensor: Option<SensorSize>,
    begun: bool,
}

impl Encoder for Writer {
    fn encode(&mut self, events: &[Event], out: &mut Vec<u8>) -> Result<()> {
        if !std::mem::replace(&mut self.begun, true) {
            let names = match self.sensor {
                Some(SensorSize { width, height }) => format!("t,x@{width},y@{height},on\n"),
                None => "t,x,y,on\n".to_owned(),
            };
            out.extend_from_slice(names.as_bytes());
        }
        for Event { t_us, x, y, polarity } in events {
            let on = *polarity as u8;
            out.extend_from_slice(format!("{t_us},{x},{y},{on}\n").as_bytes());
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<Option<Patch>> {
        self.encode(&[], out)?;
        Ok(None)
    }
}
