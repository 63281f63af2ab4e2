//! `dvs-stream info`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::args::{DecoderArgs, view_as_flags};
use super::{Common, fail, print, read_model, tell};
use crate::error::{grouped, printable};
use crate::info::{RecordingInfo, is_model, recording, weights};
use crate::model::{Card, Model};
use crate::nn::{Found, devices};
use crate::quantity::format_time_us;
use crate::source::is_stdin;

const EXAMPLES: &str = "Examples:
  dvs-stream info fixtures/deck.aedat4      a recording: format, sensor, events, duration, rate
  dvs-stream info M.safetensors             a model: cells, shapes, labels, window, view
  dvs-stream info --output jsonl *.aedat | jq .events";

/// Tell what a recording or a model is
#[derive(Args)]
#[command(before_help = EXAMPLES)]
pub struct InfoArgs {
    /// Recordings or models; - is a recording on standard input
    #[arg(required_unless_present = "devices", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// List the devices that networks can run on
    #[arg(long)]
    devices: bool,
    #[command(flatten)]
    decoder: DecoderArgs,
}

/// Runs the command.
pub fn main(args: &InfoArgs, common: &Common) -> anyhow::Result<ExitCode> {
    let is_text = common.is_text()?;
    let mut told = if args.devices { tell_devices(common, is_text) } else { String::new() };
    let mut worst = 0;
    for path in &args.files {
        let (text, code) = if !is_stdin(path) && is_model(path) {
            tell_model(path, common, is_text)?
        } else {
            tell_recording(path, args, common, is_text)?
        };
        told += &text;
        worst = worst.max(code);
    }
    print(told.as_bytes(), worst)
}

fn tell_devices(common: &Common, is_text: bool) -> String {
    let (found, why) = devices();
    for why in why.iter().filter(|_| !common.quiet) {
        tell(format_args!("note: no GPU: {why}"));
    }
    let line = |Found { name, description }| {
        if is_text {
            return format!("{name:<8} {description}\n");
        }
        let device = json!({"type": "device", "device": name, "description": description});
        format!("{device}\n")
    };
    found.into_iter().map(line).collect()
}

/// Tells it and gives the exit code.
fn tell_recording(
    path: &Path,
    args: &InfoArgs,
    common: &Common,
    is_text: bool,
) -> anyhow::Result<(String, u8)> {
    let (info, read) = recording(path, args.decoder.format(), &args.decoder.options());
    let unread = info.format.is_none() && read.is_err();
    let text = match is_text {
        _ if unread => String::new(),
        true => as_text(path, &info),
        false => {
            let more = json!({
                "duration_us": info.duration_us(),
                "events_per_ms": info.events_per_ms(),
            });
            as_json("recording", path, &info, more)?
        }
    };
    let code = match read.with_context(|| path.display().to_string()) {
        Ok(()) => 0,
        Err(error) => fail(&error, common),
    };
    Ok((text, code))
}

fn as_text(path: &Path, info: &RecordingInfo) -> String {
    let mut text = format!("{}\n", printable(&path.display().to_string()));
    let mut line = |name: &str, value: String| {
        // A string in memory takes every byte.
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    line("format", info.title.to_owned());
    line("sensor", info.sensor.map_or("not named".to_owned(), |size| format!("{size} pixels")));
    let share = 100.0 * info.on_events as f64 / info.events.max(1) as f64;
    line("events", format!("{}, {share:.1} % ON", grouped(info.events)));
    if let (Some(first_us), Some(duration_us)) = (info.first_us, info.duration_us()) {
        let ms = duration_us as f64 / 1000.0;
        line("duration", format!("{ms:.3} ms from t = {} µs", grouped(first_us)));
        if let Some(rate) = info.events_per_ms() {
            line("rate", format!("{rate:.1} events a ms"));
        }
    }
    if let Some(extent) = info.extent {
        let (x, y) = ((extent.x_min, extent.x_max), (extent.y_min, extent.y_max));
        line("extent", format!("x {} to {}, y {} to {}", x.0, x.1, y.0, y.1));
    }
    let unusual = [
        (info.tally.malformed, "events of impossible times"),
        (info.outside, "events of impossible pixels"),
        (info.backward, "events earlier than the one before"),
    ];
    let unusual = unusual.into_iter().filter(|(n, _)| *n > 0);
    for (n, what) in unusual.chain(info.tally.set_aside()) {
        line("besides", format!("{} {what}", grouped(n)));
    }
    text
}

/// A line of JSON; `more` is an object of what is worked out.
fn as_json(
    kind: &str,
    path: &Path,
    info: &impl serde::Serialize,
    more: Value,
) -> anyhow::Result<String> {
    let mut value = serde_json::to_value(info)?;
    if let (Some(object), Value::Object(more)) = (value.as_object_mut(), more) {
        object.extend(more);
        object.insert("type".to_owned(), kind.into());
        object.insert("file".to_owned(), path.display().to_string().into());
    }
    Ok(format!("{value}\n"))
}

/// Tells it and gives the exit code.
fn tell_model(path: &Path, common: &Common, is_text: bool) -> anyhow::Result<(String, u8)> {
    let opened =
        |bytes: Vec<u8>| Model::from_bytes(&bytes).with_context(|| path.display().to_string());
    let model = match read_model(path).and_then(opened) {
        Ok(model) => model,
        Err(error) => return Ok((String::new(), fail(&error, common))),
    };
    let text = if is_text {
        card_as_text(path, &model.card)?
    } else {
        as_json("model", path, &model.card, json!({}))?
    };
    Ok((text, 0))
}

fn card_as_text(path: &Path, card: &Card) -> anyhow::Result<String> {
    let mut text = format!("{}\n", printable(&path.display().to_string()));
    writeln!(text, "  sensor     {} pixels, {} inputs", card.sensor, card.sensor.addresses())?;
    writeln!(text, "  window     {}", format_time_us(card.window_us))?;
    writeln!(text, "  labels     {}", card.labels.join(", "))?;
    writeln!(text, "  readout    {}", card.readout)?;
    let gap = format_time_us(card.gap_us);
    writeln!(text, "  silence    {gap} of windows with at most {} events", card.quiet_events)?;
    writeln!(text, "  view       {}", view_as_flags(&card.view))?;
    if let Some(size) = card.view.unnamed_sensor {
        writeln!(text, "  unnamed    a recording that names no sensor size is taken as {size}")?;
    }
    for (k, layer) in card.layers.iter().enumerate() {
        let recurrent = if layer.recurrent { ", recurrent" } else { "" };
        let parameters: Vec<_> =
            layer.parameters.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let (cell, inputs, neurons) = (&layer.cell, layer.inputs, layer.neurons);
        let parameters = parameters.join(", ");
        writeln!(text, "  layer {k}    {cell}, {inputs} to {neurons}{recurrent} ({parameters})")?;
    }
    writeln!(text, "  weights    {}", grouped(weights(card) as u64))?;
    Ok(text)
}
