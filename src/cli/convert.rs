//! `dvs-stream convert`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use super::args::{DecoderArgs, FormatName, OrientArg, parse_format, parse_size};
use super::{Common, interruption, is_reader_gone, is_same_file, tell};
use crate::codec::{Compression, EncoderOptions, FORMATS, Format, for_writing};
use crate::convert::{Conversion, convert};
use crate::error::{Error, grouped};
use crate::event::SensorSize;
use crate::source::is_stdin;
use crate::view::Orient;

const EXAMPLES: &str = "Examples:
  dvs-stream convert fixtures/deck.aedat4 deck.csv
  dvs-stream convert heart.aedat heart.aedat4 --sensor 35x35
  dvs-stream convert camera.aedat camera.aedat4 --orient upright
  dvs-stream convert camera.aedat4 small.aedat4 --compression zstd-high
  dvs-stream convert 5.bs2 five.aedat                 N-MNIST to AEDAT 2.0
  dvs-stream convert camera.aedat4 old.aedat --from-zero
                                                      its 32 bits hold no times since 1970";

/// Convert a recording from any readable format into any writable one
#[derive(Args)]
#[command(before_help = EXAMPLES)]
pub struct ConvertArgs {
    /// Recording to read; - is standard input
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// Recording to write
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Format to write [default: by OUT's extension]
    #[arg(long, value_name = "NAME", value_parser = parse_format)]
    to: Option<FormatName>,
    /// Compression of AEDAT 4 [default: lz4]
    #[arg(long)]
    compression: Option<CompressionArg>,
    /// Move the times so that the first event's is 0
    #[arg(long)]
    from_zero: bool,
    /// Size of the sensor, in place of what IN says
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    sensor: Option<SensorSize>,
    /// Pixels as stored, or turned so that the image stands upright
    #[arg(long, default_value = "stored")]
    orient: OrientArg,
    #[command(flatten)]
    decoder: DecoderArgs,
}

/// A value of `--compression`.
#[derive(Clone, Copy, ValueEnum)]
pub enum CompressionArg {
    None,
    Lz4,
    Lz4High,
    Zstd,
    ZstdHigh,
}

impl From<CompressionArg> for Compression {
    fn from(arg: CompressionArg) -> Self {
        match arg {
            CompressionArg::None => Compression::None,
            CompressionArg::Lz4 => Compression::Lz4,
            CompressionArg::Lz4High => Compression::Lz4High,
            CompressionArg::Zstd => Compression::Zstd,
            CompressionArg::ZstdHigh => Compression::ZstdHigh,
        }
    }
}

/// The compression that was asked for.
///
/// # Errors
/// When the format to be written has none.
pub fn compression(asked: Option<CompressionArg>, to: &Format) -> anyhow::Result<Compression> {
    if asked.is_some() && !to.compressed {
        let compressed = FORMATS.iter().filter(|format| format.compressed);
        let names: Vec<_> = compressed.map(|format| format.name).collect();
        bail!("--compression is for {}, not for {}", names.join(" and "), to.name);
    }
    Ok(asked.map(Compression::from).unwrap_or_default())
}

/// Standard output is written to as a file, which may be named; a file named `-` is nobody's wish.
///
/// # Errors
/// When it is named as standard input is.
pub fn check_out(out: &Path) -> anyhow::Result<()> {
    if is_stdin(out) {
        bail!("-: to write to standard output, name /dev/stdout");
    }
    Ok(())
}

/// Runs the command.
pub fn main(args: &ConvertArgs, common: &Common) -> anyhow::Result<ExitCode> {
    check_out(&args.out)?;
    let to = match args.to {
        Some(FormatName(format)) => format,
        None => for_writing(&args.out.to_string_lossy())?,
    };
    if is_same_file(&args.input, &args.out) {
        bail!("{}: a recording cannot be converted onto itself", args.input.display());
    }
    let how = Conversion {
        from: args.decoder.format(),
        decoder: args.decoder.options(),
        to,
        encoder: EncoderOptions {
            sensor: args.sensor,
            compression: compression(args.compression, to)?,
        },
        from_zero: args.from_zero,
        orient: Orient::from(args.orient),
    };
    let stop = interruption()?;
    let converted = match convert(&args.input, &args.out, &how, &stop) {
        Err(error @ Error::Stopped) => {
            if !common.quiet {
                tell("note: interrupted before the first event: nothing was written");
            }
            return Ok(ExitCode::from(error.exit_code()));
        }
        Err(error) if is_reader_gone(&error) => return Ok(ExitCode::SUCCESS),
        converted => converted.with_context(|| args.input.display().to_string())?,
    };
    let (events, output) = (grouped(converted.events), args.out.display());
    if !common.quiet {
        tell(format_args!("{output}: {events} events as {}", to.title));
        for (n, what) in [(converted.tally.malformed, "times"), (converted.without_pixel, "pixels")]
        {
            if n > 0 {
                let n = grouped(n);
                tell(format_args!("warning: {n} events of impossible {what} were dropped"));
            }
        }
        if let Some((n, size)) = converted.outside {
            let n = grouped(n);
            tell(format_args!("warning: {output}: {n} events lie outside of {size} pixels"));
        }
        if converted.before > 0 {
            tell(format_args!(
                "warning: {output}: {} events are earlier than the first and got its time, 0 \
                 (--from-zero)",
                grouped(converted.before)
            ));
        }
        if let Some(told) = converted.tally.told() {
            tell(format_args!("note: {}: {told}", args.input.display()));
        }
        if converted.untold_order {
            tell(format_args!(
                "note: {}: its pixels stand in the chip's order, which {} does not tell: --orient \
                 upright turns them",
                args.input.display(),
                to.title
            ));
        }
    }
    let Some(ended) = converted.ended else { return Ok(ExitCode::SUCCESS) };
    match &ended {
        Error::Stopped if common.quiet => (),
        Error::Stopped => {
            tell(format_args!("note: interrupted after {events} events, which were written"))
        }
        damage => {
            let input = args.input.display();
            tell(format_args!("error: {input}: {damage}; {events} events before it were written"));
        }
    }
    Ok(ExitCode::from(ended.exit_code()))
}
