//! `dvs-stream send`.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;

use super::args::{DecoderArgs, Speed, parse_size, parse_speed};
use super::convert::CompressionArg;
use super::{Common, OutputArg, interruption, tell};
use crate::error::{Error, grouped};
use crate::event::SensorSize;
use crate::progress::Progress;
use crate::send::{Hello, Sent, Target, Transmission, send};
use crate::source::{is_stdin, read_bounded};

const EXAMPLES: &str = "Examples:
  dvs-stream send --print fixtures/deck.aedat4 tcp://127.0.0.1:7000
                                                       to a server, and print its answers
  dvs-stream send --speed max --loop 10 deck.aedat4 unix:///run/dvs.sock
  dvs-stream send deck.aedat4 'udp://127.0.0.1:3333?format=faery-t64'
  dvs-stream send --loop 100 deck.aedat4 dv://127.0.0.1:7777
                                                       as a DV server, which clients dial";

/// Longest file of a token.
const MAX_TOKEN_BYTES: u64 = 4 << 10;

/// Play a recording into a socket at its own pace
#[derive(Args)]
#[command(before_help = EXAMPLES)]
pub struct SendArgs {
    /// Recording; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Receiver: tcp://HOST:PORT, unix://PATH, udp://HOST:PORT?format=NAME (faery-t64, faery-t32,
    /// spif, jaer; spif with &timestamps=none too), or dv://HOST:PORT to listen on as a DV server
    #[arg(value_name = "URL")]
    target: Target,
    /// Pace: max, or a multiple of the recorded one; no pause is longer than a minute
    #[arg(long, default_value = "1", value_parser = parse_speed)]
    speed: Speed,
    /// Passes over the recording: connections of their own over tcp and unix, else one stream
    #[arg(long = "loop", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    passes: u64,
    /// Print what the server answers (tcp, unix)
    #[arg(long)]
    print: bool,
    /// Name of the stream, for the server (tcp, unix)
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// Go on from the state that the server keeps of --stream, instead of afresh
    #[arg(long, requires = "stream")]
    resume: bool,
    /// File with the token that the server asks for (tcp, unix)
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Size of the sensor, in place of what the recording says
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    sensor: Option<SensorSize>,
    /// Compression of packets, where AEDAT 4 is sent at a pace or as a DV server
    #[arg(long, default_value = "none")]
    compression: CompressionArg,
    #[command(flatten)]
    decoder: DecoderArgs,
}

/// Runs the command.
pub fn main(args: &SendArgs, common: &Common) -> anyhow::Result<ExitCode> {
    let is_server = matches!(args.target, Target::Tcp(_) | Target::Unix(_));
    if !is_server && (args.print || args.stream.is_some() || args.token_file.is_some()) {
        bail!("--print, --stream and --token-file go with tcp:// and unix:// only");
    }
    if args.print && common.output.is_some_and(|output| output != OutputArg::Jsonl) {
        bail!(
            "--print prints the answers as they come, as JSON Lines: --output jsonl, or without it"
        );
    }
    if is_stdin(&args.file) && args.passes > 1 {
        bail!("standard input can be read once only");
    }
    let how = Transmission {
        file: &args.file,
        format: args.decoder.format(),
        decoder: args.decoder.options(),
        target: args.target.clone(),
        speed: args.speed.0,
        passes: args.passes,
        sensor: args.sensor,
        compression: args.compression.into(),
        hello: Hello {
            stream: args.stream.clone(),
            resume: (args.stream.is_some() && !args.resume).then_some(false),
            token: token(args)?,
            ..Hello::default()
        },
        print: args.print,
    };
    let n_bytes = match is_stdin(&args.file) {
        true => None,
        false => {
            let metadata = std::fs::metadata(&args.file);
            let metadata = metadata.with_context(|| args.file.display().to_string())?;
            metadata.is_file().then_some(metadata.len().saturating_mul(args.passes))
        }
    };
    let progress = Progress::over_bytes(n_bytes, common.quiet);
    let stop = interruption()?;
    let (mut sent, begun) = (Sent::default(), Instant::now());
    let done = send(&how, &mut sent, &mut std::io::stdout(), &progress, &stop);
    progress.clear();
    if common.verbose > 0 || (std::io::stderr().is_terminal() && !common.quiet) {
        tell(report(args, &sent, begun.elapsed().as_secs_f64()));
    }
    match done {
        Ok(()) | Err(Error::Stopped) if stop.load(Ordering::Relaxed) => Ok(ExitCode::from(130)),
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            let what = format!("{}: after {}", args.file.display(), amount(&sent));
            let what = if sent.bytes > 0 { what } else { args.file.display().to_string() };
            Err(anyhow::Error::new(error).context(what))
        }
    }
}

fn token(args: &SendArgs) -> anyhow::Result<Option<String>> {
    let Some(path) = &args.token_file else { return Ok(None) };
    let named = || path.display().to_string();
    let bytes = read_bounded(path, MAX_TOKEN_BYTES).with_context(named)?;
    let text = String::from_utf8(bytes).ok().with_context(named).context("no text")?;
    Ok(Some(text.trim().to_owned()))
}

fn amount(sent: &Sent) -> String {
    if sent.events > 0 {
        format!("{} events", grouped(sent.events))
    } else {
        format!("{} bytes", grouped(sent.bytes))
    }
}

fn report(args: &SendArgs, sent: &Sent, seconds: f64) -> String {
    let mut line = format!("{}: {} sent to {}", args.file.display(), amount(sent), args.target);
    if sent.datagrams > 0 {
        line += &format!(" in {} datagrams", grouped(sent.datagrams));
    }
    line += &format!(" in {seconds:.3} s");
    if args.speed.0.is_some() {
        let late_ms = |q| sent.lateness.quantile_us(q) as f64 * 1e-3;
        line += &format!(
            "; events left {:.2} ms after their time (median), {:.2} ms (99 of 100), {:.1} ms at most",
            late_ms(0.5),
            late_ms(0.99),
            sent.lateness.greatest_us() as f64 * 1e-3
        );
    }
    line
}
