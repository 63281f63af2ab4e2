//! `dvs-stream replay`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;

use super::args::{self, AnswerArgs, DecoderArgs, ModelArgs, Speed, ViewArgs};
use super::data::PartialArg;
use super::{Common, check_new_file, interruption, noting, open_model, settled, tell};
use crate::ingest::Reading;
use crate::pictures;
use crate::progress::Progress;
use crate::replay::{Replay, is_known_record, run};
use crate::session::windows_of;
use crate::sink::{Labels, Style};
use crate::source::{is_read_once, is_stdin};
use crate::window::{Origin, WindowConfig};

const EXAMPLES: &str = "Examples:
  dvs-stream replay fixtures/deck.aedat4               running answers of the built-in model
  dvs-stream replay --output jsonl *.aedat | jq .label
  dvs-stream replay --speed 1 --loop 10 heart.aedat    at the recorded pace, ten times
  dvs-stream replay --scale camera.aedat4              map a larger sensor onto the model's
  cat heart.aedat | dvs-stream replay -                from standard input";

/// Play recordings through a model and print running predictions
#[derive(Args)]
#[command(before_help = EXAMPLES)]
pub struct ReplayArgs {
    /// Recordings; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// Pace: max, or a multiple of the recorded one; no pause is longer than a minute
    #[arg(long, default_value = "max", value_parser = args::parse_speed)]
    speed: Speed,
    /// Passes over each recording; each restarts the network, all are one stream
    #[arg(long = "loop", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    passes: u64,
    /// Recordings at once, in one batch, at most 16384; each takes a thread and an open file
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = args::streams())]
    slots: u16,
    /// Start so long after the first event
    #[arg(long, value_name = "TIME", value_parser = args::parse_time)]
    from: Option<u64>,
    /// Stop so long after the first event
    #[arg(long, value_name = "TIME", value_parser = args::parse_time)]
    to: Option<u64>,
    /// Print each K-th window; the last always (a segment that it may have ended waits for the next)
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Where the grid of windows starts: first (event), or a sensor time in microseconds
    #[arg(long, value_name = "first|US", default_value = "first", value_parser = parse_origin)]
    window_origin: OriginArg,
    /// The last, unfinished window: keep it, or drop it as Tonic does
    #[arg(long, default_value = "keep")]
    partial: PartialArg,
    /// Write every neuron's spikes, voltages and currents of every window (.npz, .safetensors)
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Draw the events, and the network's voltages, currents and spikes against time (SVG)
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    answers: AnswerArgs,
    #[command(flatten)]
    decoder: DecoderArgs,
    #[command(flatten)]
    view: ViewArgs,
}

#[derive(Clone, Copy)]
struct OriginArg(Origin);

fn parse_origin(text: &str) -> Result<OriginArg, String> {
    if text == "first" {
        return Ok(OriginArg(Origin::First));
    }
    let time = text.parse::<u64>().ok().filter(|t_us| *t_us <= crate::event::Event::MAX_T_US);
    time.map(|t_us| OriginArg(Origin::At(t_us)))
        .ok_or_else(|| "expected first, or a sensor time in microseconds".to_owned())
}

/// Runs the command.
pub fn main(args: &ReplayArgs, common: &Common) -> anyhow::Result<ExitCode> {
    let model = open_model(&args.model)?;
    check_use(args)?;
    let (model, view, rules) = settled(model, &args.view, &args.answers, noting(common))?;
    let replay = Replay {
        files: args.files.clone(),
        reading: Reading {
            format: args.decoder.format(),
            datagrams: None,
            decoder: args.decoder.options(),
            view,
            from_us: args.from.unwrap_or(0),
            to_us: args.to,
        },
        window: WindowConfig {
            origin: args.window_origin.0,
            partial: args.partial.into(),
            ..windows_of(&model)
        },
        rules,
        speed: args.speed.0,
        passes: args.passes,
        n_slots: usize::from(args.slots).min(args.files.len()),
        every: args.every,
        live: common.is_live_text(),
        verbose: common.verbose > 0,
        record: args.record.clone(),
    };
    let code = play(&model, &replay, common)?;
    // What a damaged recording held before the damage is drawn; of others nothing was read.
    if let (Some(folder), 0 | 1) = (&args.plot, code) {
        let how = (replay.reading, replay.window);
        pictures::write(&model, replay.rules, &args.files[0], how, folder)?;
    }
    Ok(ExitCode::from(code))
}

fn check_use(args: &ReplayArgs) -> anyhow::Result<()> {
    if args.files.iter().filter(|path| is_stdin(path)).count() > 1 {
        bail!("standard input can be read once only");
    }
    if let (true, Some(path)) = (args.passes > 1, args.files.iter().find(|path| is_read_once(path)))
    {
        bail!("--loop: {} can be read once only", path.display());
    }
    if let Some(path) = &args.record {
        if args.files.len() > 1 {
            bail!("--record takes one recording at a time, {} were named", args.files.len());
        }
        if !is_known_record(path) {
            bail!("--record {}: the name must end with .npz or .safetensors", path.display());
        }
        let recordings = args.files.iter().chain(&args.model.model);
        let read: Vec<&Path> = recordings.map(PathBuf::as_path).collect();
        check_new_file("--record", "file of arrays", path, &read)?;
    }
    if args.plot.is_some()
        && (args.files.len() > 1 || args.files.iter().any(|path| is_read_once(path)))
    {
        bail!("--plot takes one recording, a file: it is read twice");
    }
    if args.to.is_some_and(|to| to <= args.from.unwrap_or(0)) {
        bail!("--to must be later than --from");
    }
    Ok(())
}

fn play(model: &crate::model::Model, replay: &Replay, common: &Common) -> anyhow::Result<u8> {
    let sizes: Option<u64> = replay
        .files
        .iter()
        .map(|path| std::fs::metadata(path).ok().filter(|m| m.is_file()).map(|m| m.len()))
        .sum();
    let progress =
        Progress::over_bytes(sizes.map(|n| n.saturating_mul(replay.passes)), common.quiet);
    let labels = Labels { labels: model.card.labels.clone(), display: model.card.display.clone() };
    let sink = (common.sink().make)(&Style {
        labels,
        color: common.color_on_stdout(),
        named: replay.n_slots > 1,
        window_us: model.card.window_us,
    });
    let stop = interruption()?;
    let begun = Instant::now();
    let worst = run(model, replay, sink, &mut std::io::stdout(), &progress, &stop)
        .context("the replay failed")?;
    if common.verbose > 0 || (std::io::stderr().is_terminal() && !common.quiet) {
        let (seconds, events) = (begun.elapsed().as_secs_f64(), progress.events());
        let rate = events as f64 / seconds * 1e-6;
        let events = crate::error::grouped(events);
        tell(format_args!("{events} events in {seconds:.3} s, {rate:.2} Mev/s"));
    }
    let interrupted = stop.load(Ordering::Relaxed);
    Ok(if interrupted { 130 } else { worst })
}
