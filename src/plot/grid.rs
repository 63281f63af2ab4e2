//! The event grid: a recording's events in slices of time, side by side.
//!
//! Knows pixels and polarities.

use plotters::prelude::*;
use serde::Serialize;

use super::{FAINT, INK, Mark, PALETTE, head, picture, tick};
use crate::error::Result;

/// Side of a slice.
const SIDE: u32 = 190;
/// Slices in a row.
const COLUMNS: usize = 3;
/// Room for the title and the legend.
const HEAD: u32 = 60;

/// A pixel that had events.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Dot {
    /// Column.
    pub x: u16,
    /// Row, downwards.
    pub y: u16,
    /// Events that became brighter.
    pub on: u32,
    /// Events that became darker.
    pub off: u32,
}

/// A span of a recording.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Slice {
    /// Begin and end in ms.
    pub span_ms: (f64, f64),
    /// Its pixels.
    pub dots: Vec<Dot>,
}

/// The slices of a recording on a sensor of `size` (columns, rows): pixels with more ON events in
/// one colour, those with more OFF events in another.
///
/// # Errors
/// When the library cannot draw.
pub fn event_grid(title: &str, size: (u16, u16), slices: &[Slice]) -> Result<String> {
    let columns = COLUMNS;
    let rows = slices.len().div_ceil(columns).max(1);
    let (width, height) = (SIDE + 64, SIDE + 66);
    let whole = (columns as u32 * width, rows as u32 * height + HEAD);
    picture(whole, |area| {
        let (on, off) = (PALETTE[1], PALETTE[0]);
        let legend = [(on, "ON (brighter)"), (off, "OFF (darker)")]
            .map(|(color, name)| (Mark { color, dashed: false }, name.to_owned()));
        let below = head(area, title, &legend)?;
        for (slice, part) in slices.iter().zip(below.split_evenly((rows, columns))) {
            let (from, to) = slice.span_ms;
            let (w, h) = (f64::from(size.0), f64::from(size.1));
            let mut chart = ChartBuilder::on(&part)
                .margin(8)
                .caption(format!("{from:.1} to {to:.1} ms"), ("sans-serif", 13, &INK))
                .x_label_area_size(30)
                .y_label_area_size(40)
                .build_cartesian_2d(0.0..w, h..0.0)?;
            chart
                .configure_mesh()
                .disable_mesh()
                .axis_style(FAINT)
                .x_labels(4)
                .y_labels(4)
                .label_style(("sans-serif", 11, &INK))
                .axis_desc_style(("sans-serif", 11, &INK))
                .x_label_formatter(&|x| tick(*x))
                .y_label_formatter(&|y| tick(*y))
                .x_desc("x in pixels")
                .y_desc("y in pixels")
                .draw()?;
            let dots = slice.dots.iter().map(|dot| {
                let color = if dot.on >= dot.off { on } else { off };
                let strength = 0.35 + 0.2 * f64::from((dot.on + dot.off).min(3));
                let (x, y) = (f64::from(dot.x), f64::from(dot.y));
                Rectangle::new([(x, y), (x + 1.0, y + 1.0)], color.mix(strength.min(1.0)).filled())
            });
            chart.draw_series(dots)?;
        }
        Ok(())
    })
}
