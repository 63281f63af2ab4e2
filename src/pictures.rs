//! Pictures of one recording in a network, as Norse's tutorial draws them: events, readout,
//! voltages, currents, spikes against time.
//!
//! Knows frames, traces and plots; whoever has a recording hands its frames.

use std::path::Path;

use crate::error::{Error, Result};
use crate::event::SensorSize;
use crate::frame::Frames;
use crate::ingest::Reading;
use crate::model::Model;
use crate::nn::{Trace, TracedVariable};
use crate::plot::{self, Axes, Dot, Series, Slice};
use crate::recording;
use crate::score::Reader;
use crate::session::Rules;
use crate::store::replace;
use crate::window::WindowConfig;

/// Slices of an event grid.
const SLICES: usize = 6;

/// A picture and the stem of its file's name.
pub struct Picture {
    /// `events`, `readout`, `hidden_v`, ….
    pub name: String,
    /// SVG text.
    pub svg: String,
}

/// Reads one recording as `replay` does and writes its pictures into a folder, `events.svg`,
/// `readout.svg`, `hidden_v.svg`, `hidden_i.svg`, `spikes.svg`.
///
/// # Errors
/// Where the recording cannot be read or drawn, or the folder not be written.
pub fn write(
    model: &Model,
    rules: Rules,
    path: &Path,
    (reading, window): (Reading, WindowConfig),
    folder: &Path,
) -> Result<()> {
    let (frames, read) = recording::frames(path, reading, window);
    // What else is wrong with a recording was said when it was replayed.
    if let Err(Error::Io { source, .. }) = read {
        return Err(Error::Io { what: format!("cannot read {}", path.display()), source });
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let made = std::fs::create_dir_all(folder);
    made.map_err(|source| Error::Io {
        what: format!("cannot make the folder {}", folder.display()),
        source,
    })?;
    for Picture { name, svg } in of_recording(model, rules, &frames, &name)? {
        replace(&folder.join(name).with_extension("svg"), svg.as_bytes())?;
    }
    Ok(())
}

/// The pictures of a recording's frames.
///
/// # Errors
/// When the network fails, or the plotting library.
pub fn of_recording(
    model: &Model,
    rules: Rules,
    frames: &Frames,
    name: &str,
) -> Result<Vec<Picture>> {
    let (reading, trace) = Reader::new(model, rules)?.read_traced(frames)?;
    let times_ms: Vec<f64> =
        reading.answers.iter().map(|answer| answer.elapsed_us as f64 / 1000.0).collect();
    let mut pictures = vec![Picture {
        name: "events".to_owned(),
        svg: events(
            model.card.sensor,
            &slices(model.card.sensor, frames),
            &format!("{name}: events"),
        )?,
    }];
    pictures.extend(of_trace(&trace, &times_ms, &model.card.labels, name)?);
    Ok(pictures)
}

/// The event grid of a recording's slices.
///
/// # Errors
/// When the plotting library cannot draw.
pub fn events(sensor: SensorSize, slices: &[Slice], title: &str) -> Result<String> {
    plot::event_grid(title, (sensor.width, sensor.height), slices)
}

/// What [`events`] draws: a recording in a few slices of time, and the pixels that had events.
pub fn slices(sensor: SensorSize, frames: &Frames) -> Vec<Slice> {
    let windows = frames.windows();
    let per_slice = windows.len().div_ceil(SLICES).max(1);
    let first_us = windows.first().map_or(0, |window| window.t_start_us);
    let ms = |t_us: u64| t_us.saturating_sub(first_us) as f64 / 1000.0;
    let mut slices = Vec::new();
    let mut dots = vec![Dot { x: 0, y: 0, on: 0, off: 0 }; sensor.pixels()];
    for first in (0..windows.len()).step_by(per_slice) {
        let last = (first + per_slice).min(windows.len());
        dots.iter_mut().for_each(|dot| (dot.on, dot.off) = (0, 0));
        for k in first..last {
            let (addresses, counts) = frames.active(k);
            for (address, count) in addresses.iter().zip(counts) {
                let (polarity, pixel) =
                    (*address as usize / sensor.pixels(), *address as usize % sensor.pixels());
                let dot = &mut dots[pixel];
                *(if polarity == 1 { &mut dot.on } else { &mut dot.off }) += u32::from(*count);
            }
        }
        let place = |(pixel, dot): (usize, &Dot)| {
            let width = usize::from(sensor.width);
            Dot { x: (pixel % width) as u16, y: (pixel / width) as u16, ..*dot }
        };
        let hit = dots.iter().enumerate().filter(|(_, dot)| dot.on + dot.off > 0);
        slices.push(Slice {
            span_ms: (ms(windows[first].t_start_us), ms(windows[last - 1].t_end_us)),
            dots: hit.map(place).collect(),
        });
    }
    slices
}

/// Readout, voltages, currents and spikes of all layers.
///
/// # Errors
/// When the plotting library cannot draw.
pub fn of_trace(
    trace: &Trace,
    times_ms: &[f64],
    labels: &[String],
    name: &str,
) -> Result<Vec<Picture>> {
    let mut pictures = Vec::new();
    for variable in trace.variables() {
        let Some((layer, kind)) = variable.name.split_once('.') else { continue };
        let picture = match (layer, kind) {
            ("readout", "v") => {
                let axes = axes(&format!("{name}: readout voltage"), "membrane voltage v");
                Some(("readout".to_owned(), draw_lines(&axes, variable, times_ms, Some(labels))?))
            }
            ("readout", _) => None,
            (layer, "v") => {
                let axes = axes(&format!("{name}: {layer} voltages"), "membrane voltage v");
                Some((format!("{layer}_v"), draw_lines(&axes, variable, times_ms, None)?))
            }
            (layer, "i") => {
                let axes = axes(&format!("{name}: {layer} currents"), "synaptic current i");
                Some((format!("{layer}_i"), draw_lines(&axes, variable, times_ms, None)?))
            }
            (layer, "z") => {
                let stem = layer.replacen("hidden", "spikes", 1);
                Some((stem, draw_spikes(&format!("{name}: {layer} spikes"), variable, times_ms)?))
            }
            _ => None,
        };
        pictures.extend(picture.map(|(name, svg)| Picture { name, svg }));
    }
    Ok(pictures)
}

struct OwnedAxes(String, &'static str);

fn axes(title: &str, y: &'static str) -> OwnedAxes {
    OwnedAxes(title.to_owned(), y)
}

fn draw_lines(
    axes: &OwnedAxes,
    variable: &TracedVariable,
    times_ms: &[f64],
    names: Option<&[String]>,
) -> Result<String> {
    let breaks = breaks(times_ms);
    let series: Vec<Series> = (0..variable.width)
        .map(|neuron| {
            let values = variable.rows.iter().skip(neuron).step_by(variable.width);
            let mut points = Vec::with_capacity(times_ms.len() + breaks.len());
            for (k, (ms, value)) in times_ms.iter().zip(values).enumerate() {
                if breaks.binary_search(&k).is_ok() {
                    points.push((*ms, f64::NAN));
                }
                points.push((*ms, f64::from(*value)));
            }
            let name = names.and_then(|names| names.get(neuron).cloned());
            Series::new(name.unwrap_or_else(|| format!("neuron {neuron}")), points)
        })
        .collect();
    let OwnedAxes(title, y) = axes;
    let x_range = Some((0.0, end_ms(times_ms)));
    plot::lines(&Axes { title, x: "time in ms", y, x_range, y_range: None }, &series)
}

/// Where an axis of time ends: after the last step, though a clock may have begun anew.
fn end_ms(times_ms: &[f64]) -> f64 {
    times_ms.iter().copied().fold(1.0, f64::max)
}

/// The steps before which the network was not stepped: no line leads through a silence.
fn breaks(times_ms: &[f64]) -> Vec<usize> {
    let steps = || times_ms.windows(2).map(|pair| pair[1] - pair[0]);
    let window_ms = steps().filter(|step| *step > 0.0).fold(f64::INFINITY, f64::min);
    let apart = |step: f64| step <= 0.0 || step > 1.5 * window_ms;
    steps().enumerate().filter(|(_, step)| apart(*step)).map(|(k, _)| k + 1).collect()
}

fn draw_spikes(title: &str, variable: &TracedVariable, times_ms: &[f64]) -> Result<String> {
    let rows = variable.rows.chunks_exact(variable.width).zip(times_ms);
    let spikes: Vec<(f64, usize)> = rows
        .flat_map(|(row, ms)| {
            row.iter().enumerate().filter(|(_, z)| **z != 0.0).map(|(n, _)| (*ms, n))
        })
        .collect();
    plot::raster(title, &spikes, variable.width, end_ms(times_ms))
}
