//! `dvs-stream eval`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::args::{AnswerArgs, DecoderArgs, ModelArgs, ViewArgs};
use super::data::{PartialArg, SplitArgs, truth_beside};
use super::scores::{self, Caveats};
use super::{Common, noting, open_model, print, settled, tell};
use crate::dataset::split::Split;
use crate::dataset::{Loading, lost};
use crate::error::printable;
use crate::eval::{self, Deck, DeckScore};
use crate::model::Model;
use crate::session::Rules;

const EXAMPLES: &str = "Examples:
  dvs-stream eval fixtures/deck.aedat4                 a deck, with its truth in deck.csv
  dvs-stream eval pips --model M.safetensors           folders pips/cl, pips/di, … of recordings
  dvs-stream eval pips --split first:12 --model M.safetensors
                                                       only what such a training kept out";

/// Score a model on labelled recordings
#[derive(Args)]
#[command(before_help = EXAMPLES)]
pub struct EvalArgs {
    /// Folder of class folders with recordings, folder with a labels.csv, or a recording with a
    /// side file of the same name (from_us,to_us,label)
    #[arg(value_name = "DATA")]
    data: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    split: SplitArgs,
    /// Seed of the training that dealt the folds
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The truth of a recording [default: DATA with the extension .csv, or .truth.csv where DATA
    /// is a .csv itself]
    #[arg(long, value_name = "FILE.csv")]
    truth: Option<PathBuf>,
    /// List every recording: its class and what it was read as
    #[arg(long)]
    each: bool,
    /// The last, unfinished window: keep it, or drop it as Tonic does
    #[arg(long, default_value = "keep")]
    partial: PartialArg,
    /// A damaged recording is an error, else it is named and left out
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    answers: AnswerArgs,
    #[command(flatten)]
    decoder: DecoderArgs,
    #[command(flatten)]
    view: ViewArgs,
}

/// Runs the command.
pub fn main(args: &EvalArgs, common: &Common) -> anyhow::Result<ExitCode> {
    let is_text = common.is_text()?;
    check_use(args)?;
    let model = open_model(&args.model)?;
    let (model, view, rules) = settled(model, &args.view, &args.answers, noting(common))?;
    let loading = Loading {
        sensor: Some(model.card.sensor),
        window_us: model.card.window_us,
        gap_us: Some(model.card.gap_us),
        partial: args.partial.into(),
        view,
        decoder: args.decoder.options(),
        format: args.decoder.format(),
        labels: Some(model.card.labels.clone()),
        strict: args.strict,
        keep_events: false,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    };
    if args.data.is_file() {
        return score_deck(args, common, is_text, &model, rules, &loading);
    }
    let split = args.split.split()?;
    let part = (&split, args.split.by_time(), args.split.fold.as_deref(), args.seed);
    let evaluated = eval::folder(&model, rules, &args.data, &loading, part)?;
    for note in evaluated.dataset.notes.iter().filter(|_| !common.quiet) {
        tell(format_args!("note: {note}"));
    }
    for fault in &evaluated.dataset.faults {
        tell(format_args!("error: {fault}"));
    }
    let of = if split == Split::All { "scored" } else { "kept out" };
    let each = evaluated.places.iter().zip(&evaluated.readings).map(|(k, reading)| {
        let sample = &evaluated.dataset.samples[*k];
        let label = |class: usize| model.card.labels[class].as_str();
        let read = reading.verdict.class.map(|class| label(usize::from(class)));
        (sample.name.as_str(), label(sample.class), read, reading.verdict.confidence)
    });
    let mut text = String::new();
    if is_text {
        if args.each {
            for (name, label, read, confidence) in each {
                let name = printable(name);
                let mark = if read == Some(label) { " " } else { "×" };
                let (read, percent) = (read.unwrap_or("unknown"), 100.0 * confidence);
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{mark} {name}  {label} read as {read} ({percent:.0} %)");
            }
            text.push('\n');
        }
        text += &scores::as_text(&evaluated.score, of);
    } else {
        if args.each {
            for (name, label, read, confidence) in each {
                text += &scores::reading_as_json(name, label, read, confidence)?;
                text.push('\n');
            }
        }
        text += &scores::as_json("evaluation", of, Caveats::default(), &evaluated.score, &[])?;
        text.push('\n');
    }
    print(text.as_bytes(), evaluated.dataset.exit_code())
}

/// Refuses flags that a recording, or a folder, takes no notice of.
fn check_use(args: &EvalArgs) -> anyhow::Result<()> {
    let data = args.data.display();
    if args.data.is_dir() && args.truth.is_some() {
        bail!("--truth goes with one recording, and {data} is a folder");
    }
    if !args.data.is_file() {
        return Ok(());
    }
    let flag = if args.each { Some("--each") } else { args.split.given() };
    match flag {
        Some(flag) => bail!("{flag} goes with a folder of recordings, and {data} is a file"),
        None => Ok(()),
    }
}

fn score_deck(
    args: &EvalArgs,
    common: &Common,
    is_text: bool,
    model: &Model,
    rules: Rules,
    loading: &Loading,
) -> anyhow::Result<ExitCode> {
    let truth = args.truth.clone().unwrap_or_else(|| truth_beside(&args.data));
    if !truth.is_file() {
        bail!(
            "{}: there is no {} that tells what it shows; name it with --truth, or give a folder \
             of labelled recordings",
            args.data.display(),
            truth.display()
        );
    }
    let Deck { score, losses, damage } = eval::deck(model, rules, &args.data, &truth, loading)?;
    for note in lost(losses).iter().filter(|_| !common.quiet) {
        tell(format_args!("note: {note}"));
    }
    let text = if is_text { deck_as_text(&score) } else { scores::deck_as_json(&score)? + "\n" };
    let code = print(text.as_bytes(), 0)?;
    damage.map_or(Ok(code), |error| Err(error.into()))
}

fn deck_as_text(score: &DeckScore) -> String {
    let mut text = String::new();
    // writing to a string cannot fail
    for (label, read) in &score.spans {
        let _ = match read {
            Some(read) if read == label => writeln!(text, "  {label}"),
            Some(read) => writeln!(text, "× {label} read as {read}"),
            None => writeln!(text, "× {label} missed"),
        };
    }
    let DeckScore { right, missed, invented, .. } = score;
    let _ = writeln!(text, "read right {}", scores::share(right));
    let _ = writeln!(text, "missed {missed}, invented {invented}");
    text
}
