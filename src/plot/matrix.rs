//! The confusion matrix, with its numbers.
//!
//! Knows labels and counts.

use plotters::prelude::*;

use super::{INK, PALETTE, WIDTH, centred, picture, shortened};
use crate::error::Result;

/// Side of a cell.
const CELL: i32 = 68;
/// Room left of the cells and above them.
const LEFT: i32 = 118;
const TOP: i32 = 100;
/// Longest title that is drawn whole.
const MAX_TITLE: usize = 60;
/// Longest label that is drawn whole before a row, and above a column, where its cell is wide enough
/// for so many capitals.
const MAX_LABEL: usize = 9;
const MAX_HEAD: usize = 7;
/// A line of the key.
const KEY_LINE: i32 = 18;

/// Recordings by true class (rows) and answer (columns); `counts` has a row for each label and a
/// column for each label and for `unknown`. Shades are shares of a row. Where names cut short are the
/// same, classes are numbered, with a key below.
///
/// # Errors
/// When the library cannot draw.
pub fn confusion(title: &str, labels: &[String], counts: &[Vec<u64>]) -> Result<String> {
    let (rows, columns) = (labels.len() as i32, labels.len() as i32 + 1);
    let names = || labels.iter().map(String::as_str).chain(["unknown"]);
    let numbered = alike(names(), MAX_HEAD) || alike(names(), MAX_LABEL);
    let name = |k: usize, name: &str, longest: usize| {
        if numbered && k < labels.len() { (k + 1).to_string() } else { shortened(name, longest) }
    };
    let key = if numbered { KEY_LINE * (rows + 1) } else { 0 };
    let size = (LEFT + columns * CELL + 24, TOP + rows * CELL + 52 + key);
    let indent = (WIDTH as i32 - size.0).max(0) / 2;
    picture((size.0.max(WIDTH as i32) as u32, size.1 as u32), |area| {
        let middle = indent + LEFT + columns * CELL / 2;
        area.draw(&Text::new(
            shortened(title, MAX_TITLE),
            (size.0.max(WIDTH as i32) / 2, 18),
            centred(18, &INK),
        ))?;
        area.draw(&Text::new("read as", (middle, 48), centred(14, &INK)))?;
        let turned = centred(14, &INK).transform(FontTransform::Rotate270);
        area.draw(&Text::new("true class", (indent + 18, TOP + rows * CELL / 2), turned))?;
        for (column, label) in names().enumerate() {
            let x = indent + LEFT + column as i32 * CELL + CELL / 2;
            let head = name(column, label, MAX_HEAD);
            area.draw(&Text::new(head, (x, TOP - 16), centred(12, &INK)))?;
        }
        for (row, (label, counts)) in labels.iter().zip(counts).enumerate() {
            let y = TOP + row as i32 * CELL;
            area.draw(&Text::new(
                name(row, label, MAX_LABEL),
                (indent + LEFT - 44, y + CELL / 2),
                centred(13, &INK),
            ))?;
            let all = counts.iter().sum::<u64>().max(1) as f64;
            for (column, count) in counts.iter().enumerate() {
                let x = indent + LEFT + column as i32 * CELL;
                let share = *count as f64 / all;
                let corners = [(x, y), (x + CELL - 2, y + CELL - 2)];
                area.draw(&Rectangle::new(corners, PALETTE[0].mix(0.06 + 0.94 * share).filled()))?;
                let ink = if share > 0.5 { WHITE } else { INK };
                let at = (x + CELL / 2, y + CELL / 2);
                area.draw(&Text::new(count.to_string(), at, centred(15, &ink)))?;
            }
        }
        let foot = "number of recordings; the darker, the greater the share of the row";
        let at = (size.0.max(WIDTH as i32) / 2, TOP + rows * CELL + 24);
        area.draw(&Text::new(foot, at, centred(12, &INK)))?;
        for (k, label) in labels.iter().enumerate().filter(|_| numbered) {
            let line = format!("{}: {}", k + 1, shortened(label, MAX_TITLE));
            let at = (at.0, at.1 + KEY_LINE * (k as i32 + 1));
            area.draw(&Text::new(line, at, centred(12, &INK)))?;
        }
        Ok(())
    })
}

/// Whether two names are the same when cut short.
fn alike<'a>(names: impl Iterator<Item = &'a str>, longest: usize) -> bool {
    let mut cut: Vec<_> = names.map(|name| shortened(name, longest)).collect();
    cut.sort_unstable();
    cut.windows(2).any(|two| two[0] == two[1])
}
