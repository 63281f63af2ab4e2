//! `dvs-stream train`.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::bail;
use clap::{Args, ValueEnum};

use super::args::{self, DecoderArgs, DeviceArgs, ViewArgs};
use super::data::{DataArgs, SplitArgs};
use super::scores::{self, Caveats};
use super::{Common, check_new_file, interruption, print, tell};
use crate::augment::Augmentations;
use crate::dataset::is_of_dataset;
use crate::error::Error;
use crate::event::SensorSize;
use crate::nn::ChainParameters;
use crate::progress::Progress;
use crate::score::Score;
use crate::store;
use crate::train::loss::LossKind;
use crate::train::recipe::{Recipe, Schedule};
use crate::train::report;
use crate::train::trainer::Epoch;
use crate::train::{self, Keep, News, Outcome, Training};
use crate::view::ViewSpec;

const EXAMPLES: &str = "Examples:
  dvs-stream train pips --out M.safetensors            folders pips/cl, pips/di, … of recordings
  dvs-stream train pips --split first:12 --out M.safetensors
                                                       keep the rest of each class out, and score it
  dvs-stream train pips --recipe best --folds 5 --out M.safetensors
                                                       cross-validate, then train on everything
  dvs-stream synth --out pips --per-class 100          makes such folders";

/// Train a network on labelled recordings
#[derive(Args)]
#[command(before_help = EXAMPLES)]
pub struct TrainArgs {
    /// Folder of class folders with recordings, or folder with a labels.csv (name, class)
    #[arg(value_name = "DATA")]
    data: PathBuf,
    /// Model file to write
    #[arg(long, value_name = "M")]
    out: PathBuf,
    /// Hyperparameters to start from; every flag below overrides one
    #[arg(long, default_value = "tutorial")]
    recipe: RecipeArg,
    #[command(flatten)]
    learning: LearningArgs,
    #[command(flatten)]
    split: SplitArgs,
    /// Another folder of recordings, all trained on, whatever the split
    #[arg(long, value_name = "DATA")]
    also: Option<PathBuf>,
    /// Another folder of recordings, all kept out
    #[arg(long, value_name = "DATA")]
    val: Option<PathBuf>,
    /// Which weights are kept: the last, or those that read most recordings kept out right
    #[arg(long, default_value = "last")]
    keep: KeepArg,
    /// Go on from the checkpoint of an interrupted training, beside M. Cross-validation leaves none:
    /// its folds are trained again
    #[arg(long)]
    resume: bool,
    /// Threads; they change no bit [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Write every epoch as a line of JSON
    #[arg(long, value_name = "FILE.jsonl")]
    log: Option<PathBuf>,
    /// Folder of the report [default: M.report]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Size of the network's sensor [default: what the view leaves of the recordings' own]
    #[arg(long, value_name = "WxH", value_parser = args::parse_size)]
    size: Option<SensorSize>,
    #[command(flatten)]
    data_args: DataArgs,
    #[command(flatten)]
    decoder: DecoderArgs,
    #[command(flatten)]
    view: ViewArgs,
}

/// What is learned, and how.
#[derive(Args)]
#[command(next_help_heading = "Learning (default: the recipe's)")]
struct LearningArgs {
    /// Passes over the recordings
    #[arg(long, value_name = "N")]
    epochs: Option<u32>,
    /// Learning rate of Adam
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// How the learning rate goes over the epochs: constant or cosine
    #[arg(long, value_name = "NAME")]
    schedule: Option<Schedule>,
    /// Recordings a step
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Neurons of the hidden layer, or of several: 100,50
    #[arg(long, value_name = "N", value_delimiter = ',')]
    hidden: Option<Vec<usize>>,
    /// Membrane rate of the hidden layers in 1/s: the greater, the faster they forget
    #[arg(long, value_name = "RATE")]
    tau_mem_inv: Option<f64>,
    /// Synaptic rate of the hidden layers in 1/s
    #[arg(long, value_name = "RATE")]
    tau_syn_inv: Option<f64>,
    /// Threshold of the hidden layers
    #[arg(long, value_name = "V")]
    v_th: Option<f64>,
    /// Membrane rate of the readout in 1/s
    #[arg(long, value_name = "RATE")]
    readout_tau_mem_inv: Option<f64>,
    /// Synaptic rate of the readout in 1/s
    #[arg(long, value_name = "RATE")]
    readout_tau_syn_inv: Option<f64>,
    /// Steepness of the surrogate gradient
    #[arg(long, value_name = "ALPHA")]
    alpha: Option<f64>,
    /// Cross-entropy of the maximum over time, the mean, every step, or mix:SHARE of max and step
    #[arg(long, value_name = "max|mean|step|mix:SHARE")]
    loss: Option<LossKind>,
    /// Label smoothing, from 0 to below 1
    #[arg(long, value_name = "SHARE")]
    smoothing: Option<f64>,
    /// L2 penalty on the weights
    #[arg(long, value_name = "RATE")]
    weight_decay: Option<f64>,
    /// Greatest norm of a step's gradients
    #[arg(long, value_name = "NORM")]
    clip: Option<f64>,
    /// Factor on the first layer's weights before training
    #[arg(long, value_name = "FACTOR")]
    init_scale: Option<f32>,
    /// Pad the recordings of a batch with empty windows, which count: the tutorial as written
    #[arg(long)]
    unmasked: bool,
    /// Changes to recordings before each use, as shift:1,hflip; none for none. There are
    /// shift:PIXELS, hflip, vflip, polflip[:P], jitter:US, timescale:SHARE, drop:P, noise:PER_MS,
    /// tail:MS
    #[arg(long, value_name = "LIST")]
    augment: Option<Augmentations>,
    /// Fixes every bit of the result
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum RecipeArg {
    /// Norse's tutorial on POKER-DVS
    Tutorial,
    /// The best one found
    Best,
}

#[derive(Clone, Copy, ValueEnum)]
enum KeepArg {
    Last,
    Best,
}

impl TrainArgs {
    fn report_folder(&self) -> PathBuf {
        self.report.clone().unwrap_or_else(|| self.out.with_extension("report"))
    }

    fn recipe(&self) -> Recipe {
        let recipe = match self.recipe {
            RecipeArg::Tutorial => Recipe::tutorial(),
            RecipeArg::Best => Recipe::best(),
        };
        let (learning, chain) = (&self.learning, recipe.chain);
        Recipe {
            epochs: learning.epochs.unwrap_or(recipe.epochs),
            batch: learning.batch.unwrap_or(recipe.batch),
            lr: learning.lr.unwrap_or(recipe.lr),
            schedule: learning.schedule.unwrap_or(recipe.schedule),
            weight_decay: learning.weight_decay.unwrap_or(recipe.weight_decay),
            clip: learning.clip.or(recipe.clip),
            loss: learning.loss.unwrap_or(recipe.loss),
            smoothing: learning.smoothing.unwrap_or(recipe.smoothing),
            unmasked: learning.unmasked || recipe.unmasked,
            hidden: learning.hidden.clone().unwrap_or(recipe.hidden),
            chain: ChainParameters {
                v_th: learning.v_th.unwrap_or(chain.v_th),
                tau_mem_inv: learning.tau_mem_inv.unwrap_or(chain.tau_mem_inv),
                tau_syn_inv: learning.tau_syn_inv.unwrap_or(chain.tau_syn_inv),
                readout_tau_mem_inv: learning
                    .readout_tau_mem_inv
                    .unwrap_or(chain.readout_tau_mem_inv),
                readout_tau_syn_inv: learning
                    .readout_tau_syn_inv
                    .unwrap_or(chain.readout_tau_syn_inv),
                alpha: learning.alpha.unwrap_or(chain.alpha),
            },
            init_scale: learning.init_scale.unwrap_or(recipe.init_scale),
            augment: learning.augment.clone().unwrap_or(recipe.augment),
            seed: learning.seed.unwrap_or(recipe.seed),
        }
    }
}

/// Runs the command.
pub fn main(args: &TrainArgs, common: &Common) -> anyhow::Result<ExitCode> {
    let device = args.device.device.open()?;
    let recipe = args.recipe();
    let (view, _) = args.view.over(&ViewSpec::default());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.map_or(cores, usize::from);
    let mut loading = args.data_args.loading(&args.decoder, view, threads);
    loading.sensor = args.size;
    loading.keep_events = !recipe.augment.is_empty();
    let training = Training {
        data: args.data.clone(),
        also: args.also.clone(),
        validation: args.val.clone(),
        loading,
        recipe,
        split: args.split.split()?,
        by_time: args.split.by_time(),
        fold: args.split.fold.clone(),
        keep: match args.keep {
            KeepArg::Last => Keep::Last,
            KeepArg::Best => Keep::Best,
        },
        out: args.out.clone(),
        resume: args.resume,
        threads,
        device,
    };
    let is_text = common.is_text()?;
    check_use(args, &training)?;
    let stop = interruption()?;
    let mut teller = Teller::new(args, common);
    let begun = Instant::now();
    let ran = train::run(&training, &mut |news| teller.tell(news), &stop);
    teller.progress.clear();
    match ran {
        Ok(outcome) => {
            let seconds = begun.elapsed().as_secs_f64();
            let folder = args.report_folder();
            let reported = report::write(&training, &outcome, &command_line(), &folder);
            finish(args, common, is_text, outcome, (seconds, &teller), reported)
        }
        Err(Error::Stopped) => {
            tell(
                "interrupted before the model's training began, which leaves nothing to go on from: \
                 no model was written, and one that was there stays",
            );
            print(folds_so_far(args, is_text, &teller.folds)?.as_bytes(), 130)
        }
        Err(error) => Err(error.into()),
    }
}

/// The folds of a cross-validation that ended early; nothing where there was none.
fn folds_so_far(
    args: &TrainArgs,
    is_text: bool,
    folds: &[(String, Score)],
) -> anyhow::Result<String> {
    let folds: Vec<_> = folds.iter().map(|(name, score)| (name.as_str(), score)).collect();
    let optimistic = matches!(args.keep, KeepArg::Best);
    Ok(match (folds.is_empty(), is_text) {
        (true, _) => String::new(),
        (_, true) => scores::folds_as_text(optimistic, &folds),
        (_, false) => scores::folds_as_json(optimistic, &folds)? + "\n",
    })
}

/// The command as it was typed, without the place of the program.
fn command_line() -> String {
    let words = std::env::args_os().skip(1).map(|word| {
        let word = word.to_string_lossy().into_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+".contains(c);
        let quoted = || format!("'{}'", word.replace('\'', "'\\''"));
        if !word.is_empty() && word.chars().all(plain) { word } else { quoted() }
    });
    std::iter::once("dvs-stream".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

fn check_use(args: &TrainArgs, training: &Training) -> anyhow::Result<()> {
    let split = args.split.split()?;
    let read: Vec<&Path> = split.table().into_iter().collect();
    check_new_file("--out", "model file", &args.out, &read)?;
    if let Some(log) = &args.log {
        check_new_file("--log", "log file", log, &read)?;
    }
    let Training { data, also, validation, loading, .. } = training;
    let folders = [data].into_iter().chain(also).chain(validation);
    for (flag, path) in [("--out", Some(&args.out)), ("--log", args.log.as_ref())] {
        let replaces =
            |path: &Path| folders.clone().any(|folder| is_of_dataset(path, folder, loading));
        if let Some(path) = path.filter(|path| replaces(path)) {
            bail!("{flag} {}: this is one of the files to train on", path.display());
        }
    }
    if args.report.is_none() && !store::is_for_a_file(&args.out) {
        let out = args.out.display();
        bail!("--out {out}: this is no file for the report to lie beside: name --report DIR");
    }
    let checkpoint = train::checkpoint_path(&args.out);
    let report = args.report_folder();
    let taken =
        [("--out", Some(&args.out)), ("--log", args.log.as_ref()), ("--report", Some(&report))];
    let taken: Vec<_> =
        taken.into_iter().filter_map(|(flag, path)| Some((flag, place(path?)))).collect();
    for (k, (flag, path)) in taken.iter().enumerate() {
        if let Some((other, _)) = taken[..k].iter().find(|(_, other)| other == path) {
            bail!("{other} and {flag} name the same file, {}", path.display());
        }
        if k > 0 && *path == place(&checkpoint) {
            bail!("{flag} {}: the checkpoint lies there while the training runs", path.display());
        }
    }
    check_report(&report)?;
    if args.resume && !checkpoint.is_file() {
        bail!("--resume: there is no {}; begin without --resume", checkpoint.display());
    }
    Ok(())
}

/// The path without what may be written in two ways, as far as it is there.
fn place(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).canonicalize();
    match (path.canonicalize(), folder, path.file_name()) {
        (Ok(whole), _, _) => whole,
        (Err(_), Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

/// The report's folder is made when all is done, which is too late to say that it cannot be.
fn check_report(folder: &Path) -> anyhow::Result<()> {
    if let Some(there) = folder.ancestors().find(|path| path.exists())
        && !there.is_dir()
    {
        bail!("--report {}: {} is no folder", folder.display(), there.display());
    }
    for name in ["report.json", "index.html"] {
        let file = folder.join(name);
        if file.is_dir() {
            bail!("--report {}: {} is a folder", folder.display(), file.display());
        }
    }
    Ok(())
}

fn finish(
    args: &TrainArgs,
    common: &Common,
    is_text: bool,
    outcome: Outcome,
    (seconds, teller): (f64, &Teller),
    reported: crate::Result<()>,
) -> anyhow::Result<ExitCode> {
    let trained = &outcome.trained;
    let of = if outcome.data.keeps_out(&outcome.fold) { "kept out" } else { "trained on" };
    let optimistic = matches!(args.keep, KeepArg::Best);
    let folds = outcome.folds.iter().map(|fold| (fold.name.as_str(), &fold.score));
    let folds: Vec<_> = folds.collect();
    let text = if is_text {
        let of = if optimistic { "kept out, optimistic: they chose the epoch" } else { of };
        let table = scores::as_text(&trained.score, of);
        if folds.is_empty() { table } else { scores::folds_as_text(optimistic, &folds) + &table }
    } else {
        let caveats = Caveats { optimistic, interrupted: trained.interrupted.is_some() };
        scores::as_json("training", of, caveats, &trained.score, &folds)? + "\n"
    };
    let code = match (trained.interrupted, outcome.exit_code()) {
        (Some(_), _) => 130,
        (None, code) => code.max(u8::from(teller.log_failed)),
    };
    let code = print(text.as_bytes(), code)?;
    if !common.quiet {
        let epochs = trained.epochs.len();
        let optimistic = if optimistic {
            format!(
                "; the weights are those of epoch {}, chosen by this accuracy, which is \
                     therefore optimistic",
                trained.epoch
            )
        } else {
            String::new()
        };
        let plural = if epochs == 1 { "" } else { "s" };
        let now = match teller.epochs_before {
            0 => String::new(),
            before => format!(", {} of them now,", epochs - before),
        };
        let model = if outcome.unwritten.is_none() {
            args.out.display().to_string()
        } else {
            "no model is written".to_owned()
        };
        tell(format_args!("{model}: {epochs} epoch{plural}{now} in {seconds:.2} s{optimistic}"));
        if reported.is_ok() {
            tell(format_args!("{}: the report", args.report_folder().join("index.html").display()));
        }
        if trained.interrupted.is_some() {
            let what = match args.keep {
                _ if outcome.unwritten.is_some() => "none".to_owned(),
                KeepArg::Best if epochs > 0 => {
                    format!("that of epoch {}, the best", trained.epoch)
                }
                _ => "that of now".to_owned(),
            };
            let resume =
                if outcome.unsaved.is_none() { "; --resume goes on where it stopped" } else { "" };
            tell(format_args!("interrupted: the model is {what}{resume}"));
        }
    }
    let failed = [reported.err(), outcome.unsaved, outcome.unwritten];
    let mut failed: Vec<_> = failed.into_iter().flatten().collect();
    let last = failed.pop();
    failed.iter().for_each(|error| tell(format_args!("error: {error}")));
    last.map_or(Ok(code), |error| Err(error.into()))
}

/// News to a bar, to lines, to a log.
struct Teller {
    quiet: bool,
    lines: bool,
    progress: Progress,
    epochs: u32,
    recordings: usize,
    begun: Instant,
    /// Epochs and recordings that were used before.
    epochs_before: usize,
    used_before: usize,
    log: Option<Log>,
    log_failed: bool,
    /// Scores of the folds that are done.
    folds: Vec<(String, Score)>,
}

impl Teller {
    fn new(args: &TrainArgs, common: &Common) -> Self {
        Teller {
            quiet: common.quiet,
            lines: !common.quiet && !std::io::stderr().is_terminal(),
            progress: Progress::over_steps(common.quiet),
            epochs: 0,
            recordings: 0,
            begun: Instant::now(),
            epochs_before: 0,
            used_before: 0,
            log: args.log.clone().map(|path| Log { path, file: None }),
            log_failed: false,
            folds: Vec::new(),
        }
    }

    fn tell(&mut self, news: News<'_>) -> crate::Result<()> {
        match news {
            News::Note(note) if !self.quiet => self.progress.tell(&format!("note: {note}")),
            News::Note(_) => (),
            News::Loaded(used, all, others) if !self.quiet => {
                let others = match others {
                    0 => String::new(),
                    n => format!(" ({n} other files passed over)"),
                };
                self.progress.tell(&format!("{used} of {all} recordings read{others}"));
            }
            News::Loaded(..) => (),
            News::Fault(fault) => self.progress.tell(&format!("error: {fault}; it is left out")),
            News::Begins(name, epochs, recordings, at) => {
                (self.epochs, self.recordings, self.begun) = (epochs, recordings, Instant::now());
                self.epochs_before = at.epochs.len();
                self.used_before = at.epochs.len() * recordings + at.used;
                self.log(name, &at.epochs);
                if !name.is_empty() && !self.quiet {
                    self.progress.tell(&format!("fold {name}: {recordings} recordings"));
                }
                self.progress.begin(u64::from(epochs) * recordings as u64);
            }
            News::Step(epoch, used, sums) => {
                let done = (epoch as usize - 1) * self.recordings + used;
                let n = used.max(1) as f64;
                let firing = sums.firing.iter().map(|sum| sum / n).collect::<Vec<_>>();
                let rate =
                    (done - self.used_before) as f64 / self.begun.elapsed().as_secs_f64().max(1e-6);
                self.progress.reach(done as u64);
                self.progress.say(format!(
                    "epoch {epoch}  loss {:.4}  accuracy {:.1} %  firing {}  {rate:.0} recordings/s",
                    sums.loss / n,
                    100.0 * sums.right as f64 / n,
                    percents(&firing),
                ));
            }
            News::Epoch(name, epoch) => self.tell_epoch(name, epoch),
            News::Fold(name, score) => self.folds.push((name.to_owned(), score.clone())),
        }
        Ok(())
    }

    fn tell_epoch(&mut self, name: &str, epoch: &Epoch) {
        self.progress.reach(u64::from(epoch.epoch) * self.recordings as u64);
        let line = self.as_line(epoch);
        if self.lines {
            self.progress.tell(&line);
        }
        self.progress.say(line);
        self.log(name, std::slice::from_ref(epoch));
    }

    /// A log that fails costs no training.
    fn log(&mut self, fold: &str, epochs: &[Epoch]) {
        let Some(log) = &mut self.log else { return };
        if let Err(error) = log.write(fold, epochs) {
            (self.log, self.log_failed) = (None, true);
            self.progress.tell(&format!("error: {error}; the training goes on without a log"));
        }
    }

    fn as_line(&self, epoch: &Epoch) -> String {
        let held_out = epoch.held_out.map_or_else(String::new, |held_out| {
            format!("  kept out {:.1} %", 100.0 * held_out.accuracy)
        });
        format!(
            "epoch {}/{}  loss {:.4}  accuracy {:.1} %{held_out}  firing {}",
            epoch.epoch,
            self.epochs,
            epoch.loss,
            100.0 * epoch.accuracy,
            percents(&epoch.firing),
        )
    }
}

/// The file of `--log`. An old one stays until a training begins.
struct Log {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Log {
    fn write(&mut self, fold: &str, epochs: &[Epoch]) -> crate::Result<()> {
        let Log { path, file } = self;
        let mut write = || {
            let file = match file {
                Some(file) => file,
                None => file.insert(BufWriter::new(File::create(&*path)?)),
            };
            for epoch in epochs {
                serde_json::to_writer(&mut *file, &LogLine { fold, epoch })?;
                file.write_all(b"\n")?;
            }
            file.flush()
        };
        write().map_err(|source| Error::Io {
            what: format!("cannot write {}", path.display()),
            source,
        })
    }
}

#[derive(serde::Serialize)]
struct LogLine<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    fold: &'a str,
    #[serde(flatten)]
    epoch: &'a Epoch,
}

fn percents(shares: &[f64]) -> String {
    let texts: Vec<_> = shares.iter().map(|share| format!("{:.0} %", 100.0 * share)).collect();
    texts.join(", ")
}
