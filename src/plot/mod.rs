//! Pictures: data to SVG text, equal data to equal bytes. The door of the plotting library.
//!
//! Knows numbers, names and colours; neither files nor networks.

mod grid;
mod matrix;

use std::ops::Range;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::{Error, Result};

pub use grid::{Dot, Slice, event_grid};
pub use matrix::confusion;

/// Width of a picture.
const WIDTH: u32 = 720;
/// Height of a picture.
const HEIGHT: u32 = 420;
/// Most series that a legend names one by one.
const MAX_NAMED: usize = 12;

/// Colours that people with any colour vision tell apart (Okabe and Ito), black last.
const PALETTE: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(240, 228, 66),
    RGBColor(0, 0, 0),
];
const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(225, 225, 225);

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Failure<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

/// What a picture is called and what its axes measure, units included.
#[derive(Clone, Copy, Debug)]
pub struct Axes<'a> {
    /// Title.
    pub title: &'a str,
    /// The horizontal axis.
    pub x: &'a str,
    /// The vertical axis.
    pub y: &'a str,
    /// Where the vertical axis ends, if not with the data.
    pub y_range: Option<(f64, f64)>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points, x ascending.
    pub points: Vec<(f64, f64)>,
    /// Lower and upper ends of a band about it, at each point.
    pub band: Vec<(f64, f64)>,
}

impl Series {
    /// A line without a band.
    pub fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Series { name: name.into(), points, band: Vec::new() }
    }
}

/// Lines, each with its entry in the legend. Beyond a dozen they are drawn thin and the legend
/// says how many there are.
///
/// # Errors
/// When the library cannot draw.
pub fn lines(axes: &Axes<'_>, series: &[Series]) -> Result<String> {
    let many = series.len() > MAX_NAMED;
    let color = |k: usize| PALETTE[k % PALETTE.len()];
    let legend: Vec<_> = match many {
        true => vec![(PALETTE[0], format!("{} {}, a line each", series.len(), series[0].name))],
        false => series.iter().enumerate().map(|(k, line)| (color(k), line.name.clone())).collect(),
    };
    picture((WIDTH, HEIGHT), |area| {
        let below = head(area, axes.title, &legend)?;
        let (x, y) = ranges(axes, series);
        let mut chart = chart(&below, (x, y), axes, FAINT)?;
        for (k, line) in series.iter().enumerate() {
            let color = color(k);
            if !line.band.is_empty() {
                let x = line.points.iter().map(|point| point.0);
                let upper = x.clone().zip(line.band.iter().map(|band| band.1));
                let lower = x.zip(line.band.iter().map(|band| band.0)).rev();
                let outline: Vec<_> = upper.chain(lower).collect();
                chart.draw_series([Polygon::new(outline, color.mix(0.15))])?;
            }
            let style = match many {
                true => color.mix(0.5).stroke_width(1),
                false => color.stroke_width(2),
            };
            let points = line.points.iter().copied();
            match line.points.len() {
                1 => chart.draw_series(points.map(|at| Circle::new(at, 3, color.filled())))?,
                _ => chart.draw_series(LineSeries::new(points, style))?,
            };
        }
        Ok(())
    })
}

/// Spikes: a mark for each, neuron against time in ms.
///
/// # Errors
/// When the library cannot draw.
pub fn raster(
    title: &str,
    spikes: &[(f64, usize)],
    n_neurons: usize,
    end_ms: f64,
) -> Result<String> {
    let axes = Axes { title, x: "time in ms", y: "neuron", y_range: None };
    picture((WIDTH, HEIGHT), |area| {
        let below = head(area, title, &[(INK, "spike".to_owned())])?;
        let ranges = (0.0..end_ms.max(1.0) + 0.5, -0.5..n_neurons as f64 - 0.5);
        let mut chart = chart(&below, ranges, &axes, WHITE)?;
        let half = 0.42;
        chart.draw_series(spikes.iter().map(|(ms, neuron)| {
            let y = *neuron as f64;
            PathElement::new([(*ms, y - half), (*ms, y + half)], INK.stroke_width(2))
        }))?;
        Ok(())
    })
}

type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

/// Axes with ticks and what they measure.
fn chart<'a, 'b>(
    area: &'a Area<'b>,
    (x, y): (Range<f64>, Range<f64>),
    axes: &Axes<'_>,
    mesh: RGBColor,
) -> std::result::Result<Chart<'a, 'b>, Failure<'b>> {
    let mut chart = ChartBuilder::on(area)
        .margin_right(18)
        .margin_bottom(8)
        .margin_left(8)
        .x_label_area_size(42)
        .y_label_area_size(62)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(mesh)
        .axis_style(INK)
        .label_style(("sans-serif", 13, &INK))
        .axis_desc_style(("sans-serif", 14, &INK))
        .x_desc(axes.x)
        .y_desc(axes.y)
        .x_label_formatter(&|x| tick(*x))
        .y_label_formatter(&|y| tick(*y))
        .draw()?;
    Ok(chart)
}

/// The title and, in a row or more below it, the legend; gives what is left of the picture.
fn head<'a>(
    area: &Area<'a>,
    title: &str,
    legend: &[(RGBColor, String)],
) -> std::result::Result<Area<'a>, Failure<'a>> {
    let width = area.dim_in_pixel().0 as i32;
    let longest = (width / 9) as usize;
    area.draw(&Text::new(shortened(title, longest), (width / 2, 20), centred(18, &INK)))?;
    // a little more than a letter of a sans-serif font of this size takes
    let wide = |name: &str| 30 + 8 * name.chars().count() as i32;
    let mut rows: Vec<(i32, Vec<&(RGBColor, String)>)> = vec![(0, Vec::new())];
    for entry in legend {
        let own = wide(&entry.1);
        if rows.last().is_some_and(|(taken, row)| !row.is_empty() && taken + own > width - 40) {
            rows.push((0, Vec::new()));
        }
        if let Some((taken, row)) = rows.last_mut() {
            *taken += own;
            row.push(entry);
        }
    }
    let mut y = 42;
    for (taken, row) in rows {
        let mut x = (width - taken) / 2;
        for (color, name) in row {
            area.draw(&Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()))?;
            let style = TextStyle::from(("sans-serif", 13).into_font()).color(&INK);
            let style = style.pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(name.clone(), (x + 17, y), style))?;
            x += wide(name);
        }
        y += 18;
    }
    Ok(area.split_vertically(y).1)
}

/// At most so many letters.
fn shortened(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    let tail = text.chars().skip(text.chars().count() - longest.saturating_sub(1));
    std::iter::once('…').chain(tail).collect()
}

/// Draws a picture on white.
fn picture(
    size: (u32, u32),
    draw: impl for<'a> FnOnce(&Area<'a>) -> std::result::Result<(), Failure<'a>>,
) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let failed = |error: Failure<'_>| Error::Unsupported(format!("cannot draw: {error}"));
        area.fill(&WHITE).map_err(failed)?;
        draw(&area).map_err(failed)?;
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

/// Centred text.
fn centred(size: i32, color: &RGBColor) -> TextStyle<'_> {
    TextStyle::from(("sans-serif", size).into_font())
        .color(color)
        .pos(Pos::new(HPos::Center, VPos::Center))
}

fn ranges(axes: &Axes<'_>, series: &[Series]) -> (Range<f64>, Range<f64>) {
    let points = || series.iter().flat_map(|line| &line.points);
    let (x, y) = (span(points().map(|p| p.0)), span(points().map(|p| p.1)));
    let y = match axes.y_range {
        Some((low, high)) => low..high,
        None => {
            let air = 0.05 * (y.end - y.start);
            y.start - air..y.end + air
        }
    };
    (x, y)
}

/// From the least to the greatest finite value, never empty.
fn span(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(|value| value.is_finite()) {
        (low, high) = (low.min(value), high.max(value));
    }
    match (low.is_finite(), low < high) {
        (false, _) => 0.0..1.0,
        (true, false) => low - 0.5..low + 0.5,
        (true, true) => low..high,
    }
}

/// The shortest text of a tick.
fn tick(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    if rounded == 0.0 { "0".to_owned() } else { rounded.to_string() }
}
