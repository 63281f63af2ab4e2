//! `dvs-stream synth`.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::bail;
use clap::Args;

use super::args::{FormatName, parse_format, parse_time};
use super::convert::{CompressionArg, check_out, compression};
use super::data::truth_beside;
use super::{Common, interruption, is_reader_gone, tell};
use crate::codec::{EncoderOptions, Format, for_writing};
use crate::error::{Error, grouped};
use crate::event::Event;
use crate::recording::Writer;
use crate::store;
use crate::synth::{self, Deck, Pip, PipOptions};

const EXAMPLES: &str = "Examples:
  dvs-stream synth --out pips --per-class 100           pips/cl/cl_0.aedat4 … as `train` reads them
  dvs-stream synth --out deck.aedat4 --deck 8           eight pips in a row; truth in deck.csv
  dvs-stream synth --out deck.aedat --deck 52 --gap 5ms..50ms --gap-noise 1.5 --seed 7";

/// Events that are written at once, of which a deck may have many.
const CHUNK_EVENTS: usize = 1 << 16;

/// The flags that ask for a deck.
const DECKS: &str = "decks";

/// Make labelled recordings of moving card pips; a seed fixes every byte
#[derive(Args)]
#[command(before_help = EXAMPLES)]
pub struct SynthArgs {
    /// Folder of class folders, or with --deck a recording
    #[arg(long, value_name = "DIR_OR_FILE")]
    out: PathBuf,
    /// Recordings of each class
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "deck", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    per_class: u32,
    /// One recording of N pips one after another
    #[arg(long, value_name = "N", group = DECKS, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    deck: Option<u32>,
    /// The pips of a deck, in order [default: drawn from the seed]
    #[arg(long, value_name = "cl,di,…", value_delimiter = ',', value_parser = parse_pip, group = DECKS, conflicts_with_all = ["deck", "per_class"])]
    pips: Vec<Pip>,
    /// Silence between the pips of a deck
    #[arg(long, value_name = "MIN..MAX", default_value = "5ms..50ms", value_parser = parse_range, requires = DECKS)]
    gap: RangeInclusive<u64>,
    /// Fixes every byte; below 2^32 for a folder
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Stray events a ms while a pip is seen
    #[arg(long, value_name = "RATE", default_value_t = 1.5, value_parser = parse_rate)]
    noise: f64,
    /// Stray events a ms in a deck's gaps
    #[arg(long, value_name = "RATE", default_value_t = 0.0, value_parser = parse_rate, requires = DECKS)]
    gap_noise: f64,
    /// All classes move alike, so that only shapes tell them apart
    #[arg(long)]
    one_motion: bool,
    /// Format to write [default: by the file's extension, else aedat4]
    #[arg(long, value_name = "NAME", value_parser = parse_format)]
    to: Option<FormatName>,
    /// Compression of AEDAT 4 [default: lz4]
    #[arg(long)]
    compression: Option<CompressionArg>,
}

fn parse_pip(text: &str) -> Result<Pip, String> {
    let found = Pip::ALL.into_iter().find(|pip| pip.label() == text.trim());
    found.ok_or_else(|| format!("expected one of {}", synth::LABELS.join(", ")))
}

fn parse_range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let range = parse_time(from)?..=parse_time(to.trim_start_matches('='))?;
    if range.is_empty() || *range.end() > 3_600_000_000 {
        return Err("expected MIN..MAX of at most an hour, as 5ms..50ms".to_owned());
    }
    Ok(range)
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (0.0..=1e4).contains(rate));
    rate.ok_or_else(|| "expected events a ms, from 0 to 10000".to_owned())
}

/// Runs the command.
pub fn main(args: &SynthArgs, common: &Common) -> anyhow::Result<ExitCode> {
    let options = PipOptions {
        one_motion: args.one_motion,
        noise_per_ms: args.noise,
        gap_noise_per_ms: args.gap_noise,
    };
    let pips = match args.deck {
        Some(n) => synth::deal(n as usize, args.seed),
        None => args.pips.clone(),
    };
    let made = if pips.is_empty() {
        make_classes(args, &options, common)
    } else {
        make_deck(args, &pips, &options, common)
    };
    match made.as_ref().map_err(|error| error.downcast_ref::<Error>()) {
        Err(Some(error @ Error::Stopped)) => Ok(ExitCode::from(error.exit_code())),
        Err(Some(error)) if is_reader_gone(error) => Ok(ExitCode::SUCCESS),
        _ => made.map(|()| ExitCode::SUCCESS),
    }
}

fn make_deck(
    args: &SynthArgs,
    pips: &[Pip],
    options: &PipOptions,
    common: &Common,
) -> anyhow::Result<()> {
    check_out(&args.out)?;
    let format = match args.to {
        Some(FormatName(format)) => format,
        None => for_writing(&args.out.to_string_lossy())?,
    };
    if args.out.is_dir() {
        bail!("{}: a deck is one file, this is a folder", args.out.display());
    }
    let encoder = encoder(args, format)?;
    let Deck { events, truth } = synth::deck(pips, args.seed, args.gap.clone(), options);
    // Until here there is nothing that an interruption could leave unfinished.
    let stop = interruption()?;
    let wrote = write(&args.out, format, &encoder, &events, &stop);
    if matches!(wrote, Err(Error::Stopped)) && !common.quiet {
        tell("note: interrupted: nothing was written");
    }
    wrote?;
    if !store::is_for_a_file(&args.out) {
        if !common.quiet {
            tell("note: the pips' truth is not written: there is no file for it to lie beside");
        }
        return Ok(());
    }
    let mut side = String::from("from_us,to_us,label\n");
    for entry in &truth {
        side += &format!("{},{},{}\n", entry.from_us, entry.to_us, entry.pip.label());
    }
    let side_path = truth_beside(&args.out);
    store::replace(&side_path, side.as_bytes())?;
    if !common.quiet {
        let (out, n) = (args.out.display(), truth.len());
        tell(format_args!(
            "{out}: {n} pips, {} events; truth in {}",
            events.len(),
            side_path.display()
        ));
    }
    Ok(())
}

fn make_classes(args: &SynthArgs, options: &PipOptions, common: &Common) -> anyhow::Result<()> {
    let format = match args.to {
        Some(FormatName(format)) => format,
        None => crate::codec::by_name("aedat4")?,
    };
    if !args.out.is_dir() && for_writing(&args.out.to_string_lossy()).is_ok() {
        let out = args.out.display();
        bail!("{out}: the name of a recording, which --deck N makes; without it, name a folder");
    }
    // Each of a folder's recordings has a seed of its own: its number, and the folder's above it.
    let Ok(seed) = u32::try_from(args.seed) else {
        bail!("--seed {}: a folder's is below 2^32", args.seed);
    };
    let encoder = encoder(args, format)?;
    let extension = format.extensions.first().copied().unwrap_or(format.name);
    let stop = interruption()?;
    let mut n_written: u64 = 0;
    for pip in Pip::ALL {
        let folder = args.out.join(pip.label());
        std::fs::create_dir_all(&folder).map_err(|source| {
            let what = format!("cannot create {}", folder.display());
            Error::Io { what, source }
        })?;
        for k in 0..u64::from(args.per_class) {
            let seed = (u64::from(seed) << 32) + k;
            let path = folder.join(format!("{}_{k}.{extension}", pip.label()));
            let wrote = write(&path, format, &encoder, &synth::pip(pip, seed, options), &stop);
            if matches!(wrote, Err(Error::Stopped)) && !common.quiet {
                let n_written = grouped(n_written);
                tell(format_args!("note: interrupted after {n_written} recordings"));
            }
            wrote?;
            n_written += 1;
        }
    }
    if !common.quiet {
        tell(format_args!("{}: {} recordings of each class", args.out.display(), args.per_class));
    }
    Ok(())
}

fn encoder(args: &SynthArgs, format: &Format) -> anyhow::Result<EncoderOptions> {
    let compression = compression(args.compression, format)?;
    Ok(EncoderOptions { sensor: Some(synth::SENSOR), compression })
}

/// Writes a recording, or nothing where it is stopped.
fn write(
    path: &Path,
    format: &Format,
    encoder: &EncoderOptions,
    events: &[Event],
    stop: &AtomicBool,
) -> crate::Result<()> {
    let mut writer = Writer::create(path, format, encoder)?;
    for chunk in events.chunks(CHUNK_EVENTS) {
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        writer.write(chunk)?;
    }
    writer.finish()
}
