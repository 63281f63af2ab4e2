//! The command line: flags to calls, errors to exit codes. The door of clap.
//!
//! Exit codes: 0 done · 1 a recording failed or was damaged · 2 wrong use · 3 the model or the
//! device cannot be used · 130 interrupted, after a clean end. [`Error::exit_code`] says which.

mod args;
mod convert;
mod data;
mod eval;
mod import;
mod info;
mod log;
mod replay;
mod scores;
mod send;
mod serve;
mod synth;
mod train;

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::error::{Error, causes, error_lines, printable};
use crate::model::{MAX_BYTES, Model, check_gap, check_readout};
use crate::nn::DeviceChoice;
use crate::session::Rules;
use crate::sink::{SinkKind, by_name};
use crate::source::read_bounded;
use crate::view::ViewSpec;
use args::{AnswerArgs, ModelArgs, ViewArgs};

/// The shipped model.
const SHIPPED: &[u8] = include_bytes!("../../models/poker.safetensors");

const EXAMPLES: &str = "Example:
  dvs-stream replay fixtures/deck.aedat4     a deck of cards through the built-in model";

const COMPLETIONS_EXAMPLES: &str = "Example:
  dvs-stream completions bash > ~/.local/share/bash-completion/completions/dvs-stream";

/// Streaming classifier for event cameras: recordings or live events in, running predictions of
/// a spiking network out
#[derive(Parser)]
#[command(name = "dvs-stream", version, before_help = EXAMPLES, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand)]
enum Command {
    Replay(Box<replay::ReplayArgs>),
    Serve(Box<serve::ServeArgs>),
    Train(Box<train::TrainArgs>),
    Eval(Box<eval::EvalArgs>),
    Info(info::InfoArgs),
    Convert(convert::ConvertArgs),
    Send(send::SendArgs),
    Synth(synth::SynthArgs),
    Import(import::ImportArgs),
    /// Print shell completions
    #[command(before_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Flags of every command.
#[derive(Args)]
pub struct Common {
    /// Form of the results [default: text on a terminal, jsonl in a pipe]
    #[arg(long, global = true, value_name = "FORM", help_heading = "Common")]
    output: Option<OutputArg>,
    /// No progress, notes or warnings
    #[arg(short = 'q', global = true, help_heading = "Common")]
    quiet: bool,
    /// More about what happens; repeat for more
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = "Common")]
    verbose: u8,
    /// Colours in text (NO_COLOR is heard)
    #[arg(long, global = true, default_value = "auto", help_heading = "Common")]
    color: ColorArg,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum OutputArg {
    Text,
    Jsonl,
    Csv,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum ColorArg {
    Auto,
    Always,
    Never,
}

impl Common {
    fn output(&self) -> OutputArg {
        let natural =
            if std::io::stdout().is_terminal() { OutputArg::Text } else { OutputArg::Jsonl };
        self.output.unwrap_or(natural)
    }

    /// Whether results are for people, of a command whose results are no table.
    fn is_text(&self) -> anyhow::Result<bool> {
        match self.output() {
            OutputArg::Text => Ok(true),
            OutputArg::Jsonl => Ok(false),
            OutputArg::Csv => bail!("--output csv: these results are no table; take text or jsonl"),
        }
    }

    fn sink(&self) -> &'static SinkKind {
        let name = match self.output() {
            OutputArg::Text => "text",
            OutputArg::Jsonl => "jsonl",
            OutputArg::Csv => "csv",
        };
        by_name(name).unwrap_or(&crate::sink::SINKS[0])
    }

    /// Whether a person watches the answers run.
    fn is_live_text(&self) -> bool {
        self.output() == OutputArg::Text && std::io::stdout().is_terminal()
    }

    fn color_on_stdout(&self) -> bool {
        match self.color {
            ColorArg::Always => true,
            ColorArg::Never => false,
            ColorArg::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                std::io::stdout().is_terminal() && !refused
            }
        }
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed standard error leaves nowhere to complain.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let common = &cli.common;
    let done = match &cli.command {
        Command::Replay(args) => replay::main(args, common),
        Command::Serve(args) => serve::main(args, common),
        Command::Train(args) => train::main(args, common),
        Command::Eval(args) => eval::main(args, common),
        Command::Info(args) => info::main(args, common),
        Command::Convert(args) => convert::main(args, common),
        Command::Send(args) => send::main(args, common),
        Command::Synth(args) => synth::main(args, common),
        Command::Import(args) => import::main(args, common),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "dvs-stream", &mut script);
            print(&script, 0)
        }
    };
    done.unwrap_or_else(|error| ExitCode::from(fail(&error, common)))
}

/// Says what failed in one line (with -v each cause in a line of its own) and gives the exit code;
/// what is no [`Error`] is wrong use.
fn fail(error: &anyhow::Error, common: &Common) -> u8 {
    error_lines(&causes(error.as_ref()), common.verbose > 0).iter().for_each(tell);
    error.downcast_ref().map_or(2, Error::exit_code)
}

/// A line on standard error. Where that cannot be written, there is nowhere left to complain.
fn tell(line: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(&line.to_string()));
}

/// Writes a command's results, all at once, and gives its exit code. That their reader has gone is
/// no failure.
fn print(results: &[u8], code: u8) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match out.write_all(results).and_then(|()| out.flush()) {
        Err(source) if source.kind() != ErrorKind::BrokenPipe => {
            Err(Error::Io { what: "cannot write the results".to_owned(), source }.into())
        }
        _ => Ok(ExitCode::from(code)),
    }
}

/// Whether whoever read what was written has gone, which is no failure.
fn is_reader_gone(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::BrokenPipe)
}

/// The model that was asked for; every failure is exit code 3.
fn open_model(args: &ModelArgs) -> anyhow::Result<Model> {
    let choice = args.device.device;
    let device = choice.open()?;
    let bytes = model_bytes(args)?;
    let model = Model::from_bytes(&bytes).with_context(|| model_name(args))?;
    match choice {
        DeviceChoice::Cpu => Ok(model),
        DeviceChoice::Cuda(_) => model.on(&device).with_context(|| model_name(args)),
    }
}

/// The file of the model that was asked for.
fn model_bytes(args: &ModelArgs) -> anyhow::Result<Cow<'static, [u8]>> {
    match &args.model {
        None => Ok(Cow::Borrowed(SHIPPED)),
        Some(path) => Ok(Cow::Owned(read_model(path)?)),
    }
}

/// A model's file; one that cannot be read is a model that cannot be used.
fn read_model(path: &Path) -> anyhow::Result<Vec<u8>> {
    let unusable = || Error::Model(path.display().to_string());
    read_bounded(path, MAX_BYTES).with_context(unusable)
}

fn model_name(args: &ModelArgs) -> String {
    let path = args.model.as_ref().map(|path| path.display().to_string());
    path.unwrap_or_else(|| "the built-in model".to_owned())
}

/// The model with the flags over its card, the view, and how voltages become answers; `note` hears
/// which flags differ from the model.
fn settled(
    model: Model,
    view: &ViewArgs,
    answers: &AnswerArgs,
    note: impl Fn(&str),
) -> anyhow::Result<(Model, ViewSpec, Rules)> {
    let (view, mut told) = view.over(&model.card.view);
    let (card, told_too) = answers.over(&model.card);
    told.extend(told_too);
    check_flag("--gap", check_gap(card.gap_us, card.window_us))?;
    check_flag("--readout", check_readout(card.readout, card.window_us))?;
    let model = Model { card, ..model };
    told.iter().for_each(|line| note(line));
    let rules = Rules { min_confidence: answers.min_confidence, ..Rules::of(&model) };
    Ok((model, view, rules))
}

/// What a flag is refused for is wrong use, whatever a model's card would be refused for.
fn check_flag(flag: &str, checked: crate::Result<()>) -> anyhow::Result<()> {
    checked.map_err(|error| anyhow!("{flag}: {error}"))
}

/// Tells notes, unless they are not wanted.
fn noting(common: &Common) -> impl Fn(&str) {
    let quiet = common.quiet;
    move |line| {
        if !quiet {
            tell(format_args!("note: {line}"));
        }
    }
}

/// Whether a file can be written under that name, as far as can be told before it is, without the
/// loss of one of those that the command reads.
fn check_new_file(flag: &str, what: &str, path: &Path, read: &[&Path]) -> anyhow::Result<()> {
    if path.is_dir() {
        bail!("{flag} {}: this is a folder; name the {what}", path.display());
    }
    if let Some(read) = read.iter().find(|read| is_same_file(path, read)) {
        let read = read.display();
        bail!("{flag} {}: the command reads {read}, which would be replaced", path.display());
    }
    match path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        Some(folder) => bail!("{flag} {}: there is no folder {}", path.display(), folder.display()),
        None => Ok(()),
    }
}

/// Whether both are there and one file, be it by links.
fn is_same_file(one: &Path, other: &Path) -> bool {
    one.canonicalize().ok().is_some_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// Interruptions that follow one another faster are one: `timeout` and shells signal a program and
/// then its group, which it is in.
const ONE_INTERRUPTION: Duration = Duration::from_millis(300);

/// A flag that Ctrl-C or SIGTERM sets; a second one ends the program at once.
fn interruption() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let mut first = None;
    ctrlc::set_handler(move || {
        seen.store(true, Ordering::Relaxed);
        if first.get_or_insert_with(Instant::now).elapsed() > ONE_INTERRUPTION {
            std::process::exit(130);
        }
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(stop)
}
