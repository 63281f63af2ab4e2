//! NumPy `.npy`: one array of events, as Tonic saves them.
//!
//! Plain arrays have the columns t, x, y, p in this order; structured ones name them. Times are
//! whole µs. Must not know Python beyond the header's literals.

mod header;
mod number;
mod table;

use self::number::Number;
use self::table::Table;
use super::{Decoder, DecoderOptions, Format, Match, Need, Tally, lose};
use crate::error::{Error, Result, grouped};
use crate::event::{Event, Polarity, Sensor};

/// Row of [`super::FORMATS`].
pub const FORMAT: Format = Format {
    name: NAME,
    title: "NumPy array (.npy)",
    extensions: &["npy"],
    probe,
    plausible: |_| false,
    decoder,
    encoder: None,
    compressed: false,
    in_chip_order: false,
};

const NAME: &str = "npy";
const MARK: &[u8] = b"\x93NUMPY";
/// Greatest length of a header; NumPy's own reader takes 10,000 bytes.
const MAX_HEADER_BYTES: u64 = 64 << 10;

fn probe(prefix: &[u8]) -> Match {
    super::aedat2::probe_mark(prefix, MARK)
}

fn decoder(options: &DecoderOptions) -> Box<dyn Decoder> {
    Box::new(Npy {
        max_bytes: options.max_packet_bytes,
        table: None,
        held: Vec::new(),
        n_rows: 0,
        tally: Tally::default(),
        offset: 0,
    })
}

struct Npy {
    max_bytes: usize,
    /// How rows are stored, once the header is read.
    table: Option<Table>,
    /// Bytes not yet used: a part of the header or of a row, or all columns of a Fortran array.
    held: Vec<u8>,
    n_rows: u64,
    tally: Tally,
    /// Offset of the first byte not yet used.
    offset: u64,
}

impl Decoder for Npy {
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<Event>) -> Result<Need> {
        let mut rest = bytes;
        if self.table.is_none() {
            rest = self.header(rest)?;
        }
        if let Some(table) = self.table.take() {
            let result = self.rows(&table, rest, out);
            self.table = Some(table);
            result?;
        }
        Ok(Need::More)
    }

    fn finish(&mut self, _: &mut Vec<Event>) -> Result<()> {
        let what = match &self.table {
            None if self.held.is_empty() => "the recording is empty".to_owned(),
            None => format!("the header ends after {} bytes", self.held.len()),
            Some(table) if table.n_rows == self.n_rows => return Ok(()),
            Some(table) if table.by_column => format!(
                "the array ends after {} of {} bytes, and its columns are stored one after another: \
                 no event is whole",
                grouped(self.held.len() as u64),
                grouped(table.n_rows * table.row_bytes as u64)
            ),
            Some(table) => format!(
                "the array ends after {} of {} rows",
                grouped(self.n_rows),
                grouped(table.n_rows)
            ),
        };
        Err(malformed(self.offset, what))
    }

    fn has_begun(&self) -> bool {
        self.table.is_some()
    }

    fn sensor(&self) -> Sensor {
        Sensor::default()
    }

    fn tally(&self) -> Tally {
        self.tally
    }
}

impl Npy {
    /// Takes header bytes, and returns what follows once it is read.
    fn header<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let mut rest = bytes;
        loop {
            let wanted = header_bytes(&self.held)?;
            let n = (wanted - self.held.len()).min(rest.len());
            let (now, after) = rest.split_at(n);
            self.held.extend_from_slice(now);
            rest = after;
            if self.held.len() < wanted {
                return Ok(rest);
            }
            if header_bytes(&self.held)? == wanted {
                break;
            }
        }
        let n_fixed = if self.held.get(6) == Some(&1) { 10 } else { 12 };
        let text = self.held.get(n_fixed..).unwrap_or_default();
        let header = header::parse(text).map_err(|what| malformed(n_fixed as u64, what))?;
        self.table = Some(Table::new(&header, self.max_bytes)?);
        self.offset = self.held.len() as u64;
        self.held.clear();
        Ok(rest)
    }

    fn rows(&mut self, table: &Table, bytes: &[u8], out: &mut Vec<Event>) -> Result<()> {
        if table.by_column {
            return self.columns(table, bytes, out);
        }
        let mut rest = bytes;
        if !self.held.is_empty() {
            let n = (table.row_bytes - self.held.len()).min(rest.len());
            let (fill, after) = rest.split_at(n);
            self.held.extend_from_slice(fill);
            rest = after;
            if self.held.len() < table.row_bytes {
                return Ok(());
            }
            let row = std::mem::take(&mut self.held);
            self.whole_rows(table, &row, out)?;
        }
        let n_left = (table.n_rows - self.n_rows).saturating_mul(table.row_bytes as u64);
        let n_here = n_left.min((rest.len() - rest.len() % table.row_bytes) as u64) as usize;
        let (whole, tail) = rest.split_at(n_here);
        self.whole_rows(table, whole, out)?;
        if self.n_rows == table.n_rows && !tail.is_empty() {
            return Err(self.too_long(table));
        }
        self.held.extend_from_slice(tail);
        Ok(())
    }

    fn whole_rows(&mut self, table: &Table, rows: &[u8], out: &mut Vec<Event>) -> Result<()> {
        self.all_of(table, rows, rows.len() / table.row_bytes, out)
    }

    /// Appends the events of the `n_rows` rows in `bytes`.
    fn all_of(
        &mut self,
        table: &Table,
        bytes: &[u8],
        n_rows: usize,
        out: &mut Vec<Event>,
    ) -> Result<()> {
        out.reserve(n_rows);
        let mut block = Block::new();
        for first in (0..n_rows).step_by(BLOCK) {
            let n = BLOCK.min(n_rows - first);
            if block.read(table, bytes, first, n) {
                out.extend((0..n).map(|k| block.event(k)));
                self.n_rows += n as u64;
                self.offset += (n * table.row_bytes) as u64;
            } else {
                (first..first + n).try_for_each(|index| self.row(table, bytes, index, out))?;
            }
        }
        Ok(())
    }

    /// An array stored column by column: no event is whole before the last column.
    fn columns(&mut self, table: &Table, bytes: &[u8], out: &mut Vec<Event>) -> Result<()> {
        if self.n_rows == table.n_rows && !bytes.is_empty() {
            return Err(self.too_long(table));
        }
        let n_all = table.n_rows * table.row_bytes as u64;
        let n_left = (n_all - self.held.len() as u64).min(bytes.len() as u64);
        let (now, beyond) = bytes.split_at(n_left as usize);
        self.held.extend_from_slice(now);
        self.all_columns(table, n_all, out)?;
        if beyond.is_empty() { Ok(()) } else { Err(self.too_long(table)) }
    }

    fn all_columns(&mut self, table: &Table, n_all: u64, out: &mut Vec<Event>) -> Result<()> {
        if self.held.len() as u64 != n_all || self.n_rows == table.n_rows {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        self.all_of(table, &held, table.n_rows as usize, out)
    }

    /// Appends the event of one row, `index` rows after the start of `bytes`.
    fn row(
        &mut self,
        table: &Table,
        bytes: &[u8],
        index: usize,
        out: &mut Vec<Event>,
    ) -> Result<()> {
        let number = |which: usize| {
            let [t, x, y, p] = &table.fields;
            let field = [t, x, y, p][which];
            let at = field.offset + index * table.stride;
            field.kind.read(bytes.get(at..).unwrap_or_default())
        };
        let (t, x, y, p) = (number(0), number(1), number(2), number(3));
        let polarity = match p {
            Number::Whole(1) => Polarity::On,
            Number::Whole(0 | -1) => Polarity::Off,
            _ => return Err(self.bad_row(table, "polarity", p, "0, 1 or -1")),
        };
        if let Number::Fraction(_) = t {
            return Err(self.bad_row(table, "time", t, "a whole number of µs"));
        }
        let coordinate = |number| match number {
            Number::Whole(n) => Some(u16::try_from(n).unwrap_or(Event::OUTSIDE)),
            Number::Beyond => Some(Event::OUTSIDE),
            Number::Fraction(_) => None,
        };
        let (Some(x), Some(y)) = (coordinate(x), coordinate(y)) else {
            let bad = if matches!(x, Number::Fraction(_)) { x } else { y };
            return Err(self.bad_row(table, "coordinate", bad, "a whole number of pixels"));
        };
        self.n_rows += 1;
        self.offset += table.row_bytes as u64;
        match t {
            Number::Whole(t @ 0..) => {
                out.push(Event { t_us: t as u64, x, y, polarity });
            }
            _ => lose(&mut self.tally.malformed, out),
        }
        Ok(())
    }

    fn bad_row(&self, table: &Table, column: &str, found: Number, wanted: &str) -> Error {
        let advice = if table.named {
            "times must be in µs, coordinates in pixels"
        } else {
            "the columns must be t, x, y, p in this order (in µs and pixels)"
        };
        let what = format!(
            "row {} has the {column} {found}, expected {wanted}: {advice}",
            grouped(self.n_rows)
        );
        malformed(self.offset, what)
    }

    fn too_long(&self, table: &Table) -> Error {
        let what = format!("bytes follow the array's {} rows", grouped(table.n_rows));
        malformed(self.offset, what)
    }
}

/// Rows that are read together, column by column.
const BLOCK: usize = 128;

/// Columns t, x, y, p of a few rows.
struct Block([[i64; BLOCK]; 4]);

impl Block {
    fn new() -> Self {
        Block([[0; BLOCK]; 4])
    }

    /// Reads `n` rows from row `first` on, and says whether each is a plain event. Where one is
    /// not, the rows are for [`Npy::row`], which knows what else a row may be.
    fn read(&mut self, table: &Table, bytes: &[u8], first: usize, n: usize) -> bool {
        let bounds = [0..=i64::MAX, 0..=0xFFFF, 0..=0xFFFF, -1..=1];
        self.0.iter_mut().zip(&table.fields).zip(bounds).all(|((column, field), bounds)| {
            let at = field.offset + first * table.stride;
            let numbers = column.get_mut(..n).unwrap_or_default();
            field.kind.read_column(bytes.get(at..).unwrap_or_default(), table.stride, numbers)
                && numbers.iter().all(|number| bounds.contains(number))
        })
    }

    fn event(&self, k: usize) -> Event {
        let [t, x, y, p] = &self.0;
        let polarity = Polarity::from_on(p[k] == 1);
        Event { t_us: t[k] as u64, x: x[k] as u16, y: y[k] as u16, polarity }
    }
}

/// Length of the header of which `held` is the start, as far as can be told yet.
fn header_bytes(held: &[u8]) -> Result<usize> {
    if held.len() < MARK.len() + 2 {
        return Ok(MARK.len() + 2);
    }
    if !held.starts_with(MARK) {
        return Err(malformed(0, "the file does not begin as a .npy file does".to_owned()));
    }
    let (n_fixed, n_text) = match held.get(MARK.len()..).unwrap_or_default() {
        [1, _, a, b, ..] => (10, u32::from(u16::from_le_bytes([*a, *b]))),
        [1, ..] => return Ok(10),
        [2 | 3, _, a, b, c, d, ..] => (12, u32::from_le_bytes([*a, *b, *c, *d])),
        [2 | 3, ..] => return Ok(12),
        other => {
            let version = other.first().copied().unwrap_or(0);
            let what = format!("version {version} of .npy, expected 1 to 3");
            return Err(malformed(MARK.len() as u64, what));
        }
    };
    if u64::from(n_text) > MAX_HEADER_BYTES {
        let what = format!(
            "a header of {} bytes, more than the {} allowed",
            grouped(u64::from(n_text)),
            grouped(MAX_HEADER_BYTES)
        );
        return Err(Error::Limit { format: NAME, offset: 8, what });
    }
    Ok(n_fixed + n_text as usize)
}

fn malformed(offset: u64, what: String) -> Error {
    Error::Malformed { format: NAME, offset, what }
}
