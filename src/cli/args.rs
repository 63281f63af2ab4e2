//! Flags that several commands share, and how their values are read.

use std::path::PathBuf;

use clap::builder::RangedI64ValueParser;
use clap::{Args, ValueEnum};

use crate::codec::{self, DecoderOptions, Format, MAX_PACKET_BYTES};
use crate::decide::Readout;
use crate::event::SensorSize;
use crate::model::{Card, MAX_WINDOW_US};
use crate::nn::DeviceChoice;
pub use crate::quantity::parse_time;
use crate::quantity::{check_share, format_time_us};
use crate::session::MAX_STREAMS;
use crate::view::{Crop, Orient, PolarityBit, ViewSpec};

/// Which model.
#[derive(Args, Clone)]
pub struct ModelArgs {
    /// Model file [default: the shipped model, built in]
    #[arg(long, short, value_name = "FILE")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Which device.
#[derive(Args, Clone)]
pub struct DeviceArgs {
    /// Where the network runs: cpu, or cuda[:N] in a build with the feature `cuda`
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: DeviceChoice,
}

/// How bytes become events.
#[derive(Args, Clone)]
pub struct DecoderArgs {
    /// Format, where its mark or the file's name does not tell
    #[arg(long, value_name = "NAME", value_parser = parse_format)]
    pub format: Option<FormatName>,
    /// Event stream of a file that holds several [default: the first]
    #[arg(long, value_name = "N")]
    pub stream_id: Option<i32>,
    /// Greatest size of a packet, in MiB
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = (MAX_PACKET_BYTES >> 20) as u16,
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    pub max_packet: u16,
}

/// A row of the table of formats.
#[derive(Clone, Copy)]
pub struct FormatName(pub &'static Format);

impl DecoderArgs {
    pub fn format(&self) -> Option<&'static Format> {
        self.format.map(|name| name.0)
    }

    pub fn options(&self) -> DecoderOptions {
        let max_packet_bytes = usize::from(self.max_packet) << 20;
        DecoderOptions { stream_id: self.stream_id, max_packet_bytes }
    }
}

/// The view: from the camera's pixels to the network's, applied in this order.
#[derive(Args, Clone)]
#[command(next_help_heading = "View (default: the model's; applied in this order)")]
pub struct ViewArgs {
    /// Size of the recording's sensor, in place of what it says
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    pub sensor: Option<SensorSize>,
    /// Which stored polarity bit means ON
    #[arg(long)]
    pub polarity: Option<PolarityArg>,
    /// Pixels as stored, or turned so that the image stands upright
    #[arg(long)]
    pub orient: Option<OrientArg>,
    /// Mirror the columns
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub flip_x: Option<bool>,
    /// Mirror the rows
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub flip_y: Option<bool>,
    /// Swap columns and rows
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub transpose: Option<bool>,
    /// Cut a part of the sensor out, or none
    #[arg(long, value_name = "X,Y,W,H|none", value_parser = parse_crop)]
    pub crop: Option<CropArg>,
    /// Map what is left onto the model's sensor
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub scale: Option<bool>,
}

/// A value of `--polarity`.
#[derive(Clone, Copy, ValueEnum)]
pub enum PolarityArg {
    #[value(name = "on-is-0")]
    OnIs0,
    #[value(name = "on-is-1")]
    OnIs1,
}

/// A value of `--orient`.
#[derive(Clone, Copy, ValueEnum)]
pub enum OrientArg {
    Stored,
    Upright,
}

impl From<OrientArg> for Orient {
    fn from(arg: OrientArg) -> Self {
        match arg {
            OrientArg::Stored => Orient::Stored,
            OrientArg::Upright => Orient::Upright,
        }
    }
}

/// A value of `--crop`.
#[derive(Clone, Copy)]
pub struct CropArg(pub Option<Crop>);

impl ViewArgs {
    /// The model's view with the flags over it, and a line for each that differs.
    pub fn over(&self, model: &ViewSpec) -> (ViewSpec, Vec<String>) {
        let polarity = self.polarity.map(|polarity| match polarity {
            PolarityArg::OnIs0 => PolarityBit::OnIs0,
            PolarityArg::OnIs1 => PolarityBit::OnIs1,
        });
        let orient = self.orient.map(Orient::from);
        let view = ViewSpec {
            sensor: self.sensor,
            unnamed_sensor: model.unnamed_sensor,
            polarity: polarity.or(model.polarity),
            orient: orient.unwrap_or(model.orient),
            flip_x: self.flip_x.unwrap_or(model.flip_x),
            flip_y: self.flip_y.unwrap_or(model.flip_y),
            transpose: self.transpose.unwrap_or(model.transpose),
            crop: self.crop.map_or(model.crop, |crop| crop.0),
            scale: self.scale.unwrap_or(model.scale),
        };
        let mut told = Vec::new();
        let mut tell = |flag: &str, differs: bool| {
            if differs {
                told.push(format!("{flag} replaces the model's own view"));
            }
        };
        tell("--sensor", view.size(None) != model.size(None));
        tell("--polarity", view.polarity != model.polarity);
        tell("--orient", view.orient != model.orient);
        tell("--flip-x", view.flip_x != model.flip_x);
        tell("--flip-y", view.flip_y != model.flip_y);
        tell("--transpose", view.transpose != model.transpose);
        tell("--crop", view.crop != model.crop);
        tell("--scale", view.scale != model.scale);
        (view, told)
    }
}

/// A model's view as the flags that make it of the pixels as stored.
pub fn view_as_flags(view: &ViewSpec) -> String {
    // A model keeps no size for recordings that name theirs.
    let ViewSpec { polarity, orient, flip_x, flip_y, transpose, crop, scale, .. } = *view;
    let polarity = polarity.map(|polarity| match polarity {
        PolarityBit::OnIs0 => "--polarity on-is-0".to_owned(),
        PolarityBit::OnIs1 => "--polarity on-is-1".to_owned(),
    });
    let set = |flag: &str, set: bool| set.then(|| flag.to_owned());
    let crop = crop.map(|Crop { x, y, width, height }| format!("--crop {x},{y},{width},{height}"));
    let flags = [
        polarity,
        set("--orient upright", orient == Orient::Upright),
        set("--flip-x", flip_x),
        set("--flip-y", flip_y),
        set("--transpose", transpose),
        crop,
        set("--scale", scale),
    ];
    let flags: Vec<_> = flags.into_iter().flatten().collect();
    if flags.is_empty() { "pixels as stored".to_owned() } else { flags.join(" ") }
}

/// How voltages become answers.
#[derive(Args, Clone)]
#[command(next_help_heading = "Answers (default: the model's)")]
pub struct AnswerArgs {
    /// Decoding of the readout: max, last, mean, max:TIME or ema:TIME
    #[arg(long, value_name = "READOUT")]
    pub readout: Option<Readout>,
    /// Below this confidence the answer is unknown
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = parse_share)]
    pub min_confidence: f32,
    /// Silence that ends a segment
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub gap: Option<u64>,
    /// A window with at most so many events is quiet
    #[arg(id = "quiet_events", long = "quiet", value_name = "N")]
    pub quiet: Option<u32>,
}

impl AnswerArgs {
    /// The model's card with the flags over it, and a line for each that differs.
    pub fn over(&self, card: &Card) -> (Card, Vec<String>) {
        let mut card = card.clone();
        let mut told = Vec::new();
        if let Some(readout) = self.readout.filter(|readout| *readout != card.readout) {
            told.push(format!("--readout {readout} replaces the model's {}", card.readout));
            card.readout = readout;
        }
        if let Some(gap_us) = self.gap.filter(|gap_us| *gap_us != card.gap_us) {
            let [new, old] = [gap_us, card.gap_us].map(format_time_us);
            told.push(format!("--gap {new} replaces the model's {old}"));
            card.gap_us = gap_us;
        }
        if let Some(quiet) = self.quiet.filter(|quiet| *quiet != card.quiet_events) {
            told.push(format!("--quiet {quiet} replaces the model's {}", card.quiet_events));
            card.quiet_events = quiet;
        }
        (card, told)
    }
}

/// The length of a window, within a model's limits.
pub fn parse_window(text: &str) -> Result<u64, String> {
    let window_us = parse_time(text)?;
    let most = format_time_us(MAX_WINDOW_US);
    let within = (1..=MAX_WINDOW_US).contains(&window_us);
    within.then_some(window_us).ok_or_else(|| format!("a window lasts from 1us to {most}"))
}

/// `35x35`.
pub fn parse_size(text: &str) -> Result<SensorSize, String> {
    text.parse()
}

/// `none`, or `X,Y,W,H`.
fn parse_crop(text: &str) -> Result<CropArg, String> {
    Crop::parse(text).map(CropArg)
}

/// A number from 0 to 1.
pub fn parse_share(text: &str) -> Result<f32, String> {
    check_share(text.parse().unwrap_or(f32::NAN))
}

/// Streams at once.
pub fn streams() -> RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=i64::from(MAX_STREAMS))
}

/// `max`, or sensor seconds a second.
pub fn parse_speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed(None));
    }
    let speed = text.parse::<f64>().ok().filter(|speed| *speed > 0.0 && speed.is_finite());
    speed
        .map(|speed| Speed(Some(speed)))
        .ok_or_else(|| "expected max, or how many times the recorded pace, as 1 or 0.5".to_owned())
}

/// A value of `--speed`.
#[derive(Clone, Copy, Debug)]
pub struct Speed(pub Option<f64>);

pub fn parse_format(name: &str) -> Result<FormatName, String> {
    codec::by_name(name).map(FormatName).map_err(|error| error.to_string())
}
