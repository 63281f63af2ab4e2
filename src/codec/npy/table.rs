//! Where in a row of an array the four fields of an event stand.
//!
//! Knows types and shapes; reads no row.

use super::header::{Columns, NpyHeader};
use super::number::Kind;
use super::{NAME, malformed};
use crate::error::{Error, Result, grouped};

/// Greatest length of one event, with the fields that are no part of it.
const MAX_ROW_BYTES: usize = 1024;

/// How the rows of an array are stored.
pub(super) struct Table {
    /// t, x, y, p.
    pub(super) fields: [Field; 4],
    pub(super) row_bytes: usize,
    /// Bytes from one row's field to the next row's.
    pub(super) stride: usize,
    /// Columns are stored one after another.
    pub(super) by_column: bool,
    pub(super) n_rows: u64,
    /// Whether the fields have names, and their order does not matter.
    pub(super) named: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Field {
    pub(super) offset: usize,
    pub(super) kind: Kind,
}

impl Table {
    pub(super) fn new(header: &NpyHeader, max_bytes: usize) -> Result<Table> {
        let table = match &header.columns {
            Columns::Plain(kind) => Table::plain(kind, header)?,
            Columns::Fields(fields) => Table::structured(fields, &header.shape)?,
        };
        let n_bytes = u128::from(table.n_rows) * table.row_bytes as u128;
        if n_bytes > u128::from(u64::MAX >> 1) {
            return Err(malformed(0, format!("an array of {n_bytes} bytes")));
        }
        if table.by_column && n_bytes > max_bytes as u128 {
            return Err(Error::Unsupported(format!(
                "an array stored column by column must be read whole, and {} bytes are more than \
                 the {} allowed: save it with np.ascontiguousarray",
                grouped(n_bytes as u64),
                grouped(max_bytes as u64)
            )));
        }
        Ok(table)
    }

    fn plain(kind: &str, header: &NpyHeader) -> Result<Table> {
        let kind = Kind::parse(kind)?;
        let &[n_rows, 4] = header.shape.as_slice() else {
            return Err(Error::Unsupported(format!(
                "an array of shape {:?}; events are rows of the four columns t, x, y, p",
                header.shape
            )));
        };
        let n = kind.n_bytes();
        let by_column = header.fortran_order && n_rows > 1;
        let step = if by_column { (n_rows as usize).saturating_mul(n) } else { n };
        let field = |column: usize| Field { offset: step.saturating_mul(column), kind };
        Ok(Table {
            fields: [field(0), field(1), field(2), field(3)],
            row_bytes: 4 * n,
            stride: if by_column { n } else { 4 * n },
            by_column,
            n_rows,
            named: false,
        })
    }

    fn structured(fields: &[(String, String)], shape: &[u64]) -> Result<Table> {
        let &[n_rows] = shape else {
            return Err(Error::Unsupported(format!(
                "a structured array of shape {shape:?}; events have one dimension"
            )));
        };
        const NAMES: [&[&str]; 4] = [
            &["t", "ts", "time", "timestamp", "timestamps"],
            &["x"],
            &["y"],
            &["p", "pol", "polarity", "on"],
        ];
        let mut found = [None; 4];
        let mut offset = 0_usize;
        for (name, kind) in fields {
            let lower = name.to_ascii_lowercase();
            if let Some(which) = NAMES.iter().position(|names| names.contains(&lower.as_str())) {
                found[which] = Some(Field { offset, kind: Kind::parse(kind)? });
            }
            offset = offset.saturating_add(n_bytes_of(kind)?);
        }
        let [Some(t), Some(x), Some(y), Some(p)] = found else {
            let names: Vec<String> =
                fields.iter().map(|(name, _)| name.escape_default().to_string()).collect();
            return Err(Error::Unsupported(format!(
                "the array's fields are {}; events need t, x, y and p",
                names.join(", ")
            )));
        };
        if offset > MAX_ROW_BYTES {
            let what = format!("events of {offset} bytes, more than the {MAX_ROW_BYTES} allowed");
            return Err(Error::Limit { format: NAME, offset: 0, what });
        }
        Ok(Table {
            fields: [t, x, y, p],
            row_bytes: offset,
            stride: offset,
            by_column: false,
            n_rows,
            named: true,
        })
    }
}

/// Bytes of one field of any type, also of those passed over.
fn n_bytes_of(kind: &str) -> Result<usize> {
    let digits = kind.trim_start_matches(|c: char| !c.is_ascii_digit());
    // Text has four bytes a character.
    let unit = if kind.contains('U') { 4 } else { 1 };
    digits.parse().ok().filter(|&n: &usize| n <= MAX_ROW_BYTES).map(|n| n * unit).ok_or_else(|| {
        Error::Unsupported(format!("fields of the type `{}`", kind.escape_default()))
    })
}
