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
/// Most letters of a name in a legend.
const MAX_NAME: usize = 64;

/// Colours that people with any colour vision tell apart (Okabe and Ito), the palest last.
const PALETTE: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(240, 228, 66),
];
const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(225, 225, 225);

/// How a series is told from others.
#[derive(Clone, Copy)]
struct Mark {
    color: RGBColor,
    dashed: bool,
}

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
    /// Where the horizontal axis ends, if not with the data.
    pub x_range: Option<(f64, f64)>,
    /// Where the vertical axis ends, if not with the data.
    pub y_range: Option<(f64, f64)>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points, x ascending. One whose y is not finite breaks the line.
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

/// Lines, each with its entry in the legend, dashed once the colours are used up. Beyond a dozen
/// they are drawn thin and the legend says how many there are.
///
/// # Errors
/// When the library cannot draw.
pub fn lines(axes: &Axes<'_>, series: &[Series]) -> Result<String> {
    let many = series.len() > MAX_NAMED;
    let mark = |k: usize| Mark { color: PALETTE[k % PALETTE.len()], dashed: k >= PALETTE.len() };
    let legend: Vec<_> = match (series, many) {
        ([first, .., last], true) => {
            let all = format!("{} lines, {} to {}", series.len(), first.name, last.name);
            vec![(mark(0), all)]
        }
        _ => series.iter().enumerate().map(|(k, line)| (mark(k), line.name.clone())).collect(),
    };
    picture((WIDTH, HEIGHT), |area| {
        let below = head(area, axes.title, &legend)?;
        let (x, y) = ranges(axes, series);
        let column = (x.end - x.start) / f64::from(WIDTH);
        let mut chart = chart(&below, (x, y), axes, FAINT)?;
        for (k, line) in series.iter().enumerate() {
            let Mark { color, dashed } = mark(k);
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
            for part in line.points.split(|point| !point.1.is_finite()) {
                match part {
                    [] => (),
                    [at] => {
                        chart.draw_series([Circle::new(*at, 3, color.filled())])?;
                    }
                    _ if dashed && !many => {
                        let points = thinned(part, column).into_iter();
                        chart.draw_series(DashedLineSeries::new(points, 6, 4, style))?;
                    }
                    _ => {
                        chart.draw_series(LineSeries::new(thinned(part, column), style))?;
                    }
                }
            }
        }
        Ok(())
    })
}

/// Spikes: a mark for each, neuron against time in ms, from nought to `end_ms`. Marks that touch
/// become one.
///
/// # Errors
/// When the library cannot draw.
pub fn raster(
    title: &str,
    spikes: &[(f64, usize)],
    n_neurons: usize,
    end_ms: f64,
) -> Result<String> {
    let axes = Axes { title, x: "time in ms", y: "neuron", x_range: None, y_range: None };
    let mut spikes: Vec<_> = spikes.iter().map(|(ms, neuron)| (*neuron, *ms)).collect();
    spikes.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    picture((WIDTH, HEIGHT), |area| {
        let below = head(area, title, &[(Mark { color: INK, dashed: false }, "spike".to_owned())])?;
        let half_ms = end_ms / f64::from(WIDTH);
        let ranges = (0.0..end_ms, -0.5..n_neurons as f64 - 0.5);
        let mut chart = chart(&below, ranges, &axes, WHITE)?;
        let touch = |a: &(usize, f64), b: &(usize, f64)| a.0 == b.0 && b.1 - a.1 <= 2.0 * half_ms;
        chart.draw_series(spikes.chunk_by(touch).map(|run| {
            let (neuron, from, to) = (run[0].0 as f64, run[0].1, run[run.len() - 1].1);
            let corners = [(from - half_ms, neuron - 0.42), (to + half_ms, neuron + 0.42)];
            Rectangle::new(corners, INK.filled())
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
    // no more than the whole numbers there are: nobody counts 1.2 epochs
    let ticks = (x.end - x.start).ceil().clamp(1.0, 10.0) as usize + 1;
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
        .x_labels(ticks)
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
    legend: &[(Mark, String)],
) -> std::result::Result<Area<'a>, Failure<'a>> {
    let width = area.dim_in_pixel().0 as i32;
    let longest = (width / 9) as usize;
    area.draw(&Text::new(shortened(title, longest), (width / 2, 20), centred(18, &INK)))?;
    // a little more than a letter of a sans-serif font of this size takes
    let wide = |name: &str| 30 + 8 * name.chars().count() as i32;
    let mut rows: Vec<(i32, Vec<&(Mark, String)>)> = vec![(0, Vec::new())];
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
        for (mark, name) in row {
            let ends: &[(i32, i32)] = if mark.dashed { &[(0, 5), (8, 13)] } else { &[(0, 12)] };
            for (from, to) in ends {
                let corners = [(x + from, y - 5), (x + to, y + 5)];
                area.draw(&Rectangle::new(corners, mark.color.filled()))?;
            }
            let style = TextStyle::from(("sans-serif", 13).into_font()).color(&INK);
            let style = style.pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(shortened(name, MAX_NAME), (x + 17, y), style))?;
            x += wide(name);
        }
        y += 18;
    }
    Ok(area.split_vertically(y).1)
}

/// At most so many letters, none of them a control character, which SVG may not hold.
fn shortened(text: &str, longest: usize) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let n = text.chars().count();
    if n <= longest {
        return text.chars().map(shown).collect();
    }
    let tail = text.chars().skip(n - longest.saturating_sub(1));
    std::iter::once('…').chain(tail.map(shown)).collect()
}

/// The points, or where many share a column of pixels the least and the greatest of each column:
/// the same picture.
fn thinned(points: &[(f64, f64)], column: f64) -> Vec<(f64, f64)> {
    if points.len() <= 2 * WIDTH as usize {
        return points.to_vec();
    }
    let same = |a: &(f64, f64), b: &(f64, f64)| (a.0 / column).floor() == (b.0 / column).floor();
    let mut kept = Vec::with_capacity(2 * WIDTH as usize);
    for part in points.chunk_by(same) {
        let by_y = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (least, greatest) = (part.iter().min_by(by_y), part.iter().max_by(by_y));
        if let (Some(least), Some(greatest)) = (least, greatest) {
            let (first, last) =
                if least.0 <= greatest.0 { (least, greatest) } else { (greatest, least) };
            kept.push(*first);
            kept.extend((first != last).then_some(*last));
        }
    }
    kept
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
    let x = axes.x_range.map_or(x, |(low, high)| low..high);
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
