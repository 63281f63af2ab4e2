//! `train`: the streaming network's own cells, learned from labelled recordings, and the model
//! file that comes of it.

pub mod checkpoint;
pub mod loss;
pub mod prepare;
pub mod recipe;
pub mod report;
pub mod settle;
pub mod trainer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::dataset::split::{Fold, Split};
use crate::dataset::{self, Dataset, Fault, Loading, Sample};
use crate::error::{Error, Result};
use crate::model::{Card, Model};
use crate::nn::Device;
use crate::score::{Reader, Reading, Score};
use crate::session::Rules;
use crate::source::read_bounded;
use crate::store::replace;
use checkpoint::Fingerprint;
use prepare::Preparation;
use recipe::Recipe;
use trainer::{Epoch, Heard, Progress, Sums, Trainer};

/// Time between two checkpoints of a long training.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(10);

/// Which weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Those after the last epoch.
    Last,
    /// Those after the epoch that read most recordings kept out right, the first of equals. Its
    /// accuracy is optimistic.
    Best,
}

/// What to train on what, and where it goes.
pub struct Training {
    /// Folder of labelled recordings.
    pub data: PathBuf,
    /// Another folder, all of it trained on, whatever the split.
    pub also: Option<PathBuf>,
    /// Another folder, all of it kept out.
    pub validation: Option<PathBuf>,
    /// How both are read.
    pub loading: Loading,
    /// What is learned, and how.
    pub recipe: Recipe,
    /// Which recordings are trained on.
    pub split: Split,
    /// Recordings that overlap in time stay together.
    pub by_time: bool,
    /// Of several folds, the one to train.
    pub fold: Option<String>,
    /// Which weights are kept.
    pub keep: Keep,
    /// The model file.
    pub out: PathBuf,
    /// Go on from the checkpoint beside it.
    pub resume: bool,
    /// Threads; they change no bit.
    pub threads: usize,
    /// Where gradients are computed; which changes no bit either.
    pub device: Device,
}

/// What a training tells while it runs.
pub enum News<'a> {
    /// Something a user should know.
    Note(String),
    /// Recordings were read: so many of so many, beside so many other files.
    Loaded(usize, usize, usize),
    /// A recording was left out.
    Fault(&'a Fault),
    /// A training begins or goes on: its name (of a fold, or empty), its epochs and recordings,
    /// and where it stands.
    Begins(&'a str, u32, usize, &'a Progress),
    /// A step was taken, in this epoch (from 1); recordings used in it so far, and their sums.
    Step(u32, usize, &'a Sums),
    /// An epoch is over.
    Epoch(&'a str, &'a Epoch),
    /// A fold of a cross-validation is done.
    Fold(&'a str, &'a Score),
}

/// Takes what a training tells. An error ends it.
pub type Tell<'a> = dyn FnMut(News<'_>) -> Result<()> + 'a;

/// One training's result.
pub struct Trained {
    /// Name of the fold, or empty.
    pub name: String,
    /// The model.
    pub model: Model,
    /// The network before training, for pictures.
    pub untrained: Model,
    /// All epochs.
    pub epochs: Vec<Epoch>,
    /// The epoch whose weights the model has, counted from 1.
    pub epoch: u32,
    /// How the model reads recordings: those kept out, or where there are none those trained on.
    pub score: Score,
    /// How each of them was read: the fold's, then the validation's.
    pub readings: Vec<Reading>,
    /// Where it was interrupted before its last epoch was over: the recordings used of the next.
    pub interrupted: Option<usize>,
}

/// The recordings of a training.
pub struct Data {
    /// Those of [`Training::data`].
    pub dataset: Dataset,
    /// Those of [`Training::also`].
    pub also: Option<Dataset>,
    /// Those of [`Training::validation`].
    pub validation: Option<Dataset>,
}

impl Data {
    /// All sets.
    pub fn sets(&self) -> impl Iterator<Item = &Dataset> {
        let others = [&self.also, &self.validation];
        std::iter::once(&self.dataset).chain(others.into_iter().flatten())
    }

    /// What a split trains on.
    pub fn trained_on(&self, fold: &Fold) -> Vec<&Sample> {
        let own = fold.train.iter().map(|k| &self.dataset.samples[*k]);
        own.chain(self.also.iter().flat_map(|also| &also.samples)).collect()
    }

    /// Whether it keeps anything out.
    pub fn keeps_out(&self, fold: &Fold) -> bool {
        !fold.test.is_empty() || self.validation.is_some()
    }

    /// What it keeps out: by itself, then by [`Training::validation`].
    pub fn kept_out(&self, fold: &Fold) -> Vec<&Sample> {
        let own = fold.test.iter().map(|k| &self.dataset.samples[*k]);
        own.chain(self.validation.iter().flat_map(|validation| &validation.samples)).collect()
    }
}

/// What came of it.
pub struct Outcome {
    /// The recordings.
    pub data: Data,
    /// The folds' trainings, where there are several: cross-validation. Their models are not kept.
    pub folds: Vec<Trained>,
    /// The training whose model was written.
    pub trained: Trained,
    /// The split that it was trained with.
    pub fold: Fold,
    /// What was told of it, as [`News::Note`] says.
    pub notes: Vec<String>,
    /// Why the model was not written.
    pub unwritten: Option<Error>,
    /// Why an interrupted training cannot be gone on with, where its checkpoint failed.
    pub unsaved: Option<Error>,
}

impl Outcome {
    /// The highest exit code of the recordings that were left out, else 0.
    pub fn exit_code(&self) -> u8 {
        self.data.sets().map(Dataset::exit_code).max().unwrap_or(0)
    }

    /// The recordings that [`Trained::readings`] are of.
    pub fn scored(&self) -> Vec<&Sample> {
        let kept_out = self.data.kept_out(&self.fold);
        if kept_out.is_empty() { self.data.trained_on(&self.fold) } else { kept_out }
    }
}

/// Trains, and writes the model file; beside it, while it runs, the checkpoint.
///
/// With several folds each is trained and read first, then all recordings are trained on.
///
/// # Errors
/// As [`dataset::load`], [`Split::folds`] and the training itself say; [`Error::Stopped`] where
/// nothing was learned that could be written: an old model stays.
pub fn run(training: &Training, tell: &mut Tell<'_>, stop: &AtomicBool) -> Result<Outcome> {
    let mut notes = Vec::new();
    let tell: &mut Tell<'_> = &mut |news| {
        if let News::Note(note) = &news {
            notes.push(note.clone());
        }
        tell(news)
    };
    // Whatever the recordings are: they take long to read.
    training.recipe.check(1, 1, training.loading.window_us as f64 * 1e-6)?;
    let dataset = load(&training.data, &training.loading, tell, stop)?;
    let like_it = Loading {
        labels: Some(dataset.labels.clone()),
        sensor: Some(dataset.sensor),
        ..training.loading.clone()
    };
    let mut more = |folder: &Option<PathBuf>| {
        folder.as_ref().map(|folder| load(folder, &like_it, tell, stop)).transpose()
    };
    let (also, validation) = (more(&training.also)?, more(&training.validation)?);
    let folds = training.split.folds(&dataset, training.by_time, training.recipe.seed)?;
    let mut run = Run::new(training, Data { dataset, also, validation }, stop);
    let (crossed, last) = run.choose(folds)?;
    let mut trained_folds = Vec::new();
    for fold in &crossed {
        let trained = run.train(fold, &last, None, tell)?.0;
        if trained.interrupted.is_none() {
            tell(News::Fold(&fold.name, &trained.score))?;
        }
        trained_folds.push(trained);
        if stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
    }
    let checkpoint = checkpoint_path(&training.out);
    let (trained, unsaved) = run.train(&last, &last, Some(&checkpoint), tell)?;
    let unwritten = replace(&training.out, &trained.model.to_bytes()?).err();
    if trained.interrupted.is_none() && unwritten.is_none() {
        // A checkpoint of a finished training is of no use; there may be none.
        let _ = std::fs::remove_file(&checkpoint);
    }
    let (folds, fold, data) = (trained_folds, last, run.data);
    Ok(Outcome { data, folds, trained, fold, notes, unwritten, unsaved })
}

/// Where a training's checkpoint lies.
pub fn checkpoint_path(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".resume");
    out.with_file_name(name)
}

fn load(
    folder: &Path,
    loading: &Loading,
    tell: &mut Tell<'_>,
    stop: &AtomicBool,
) -> Result<Dataset> {
    let dataset = dataset::load_until(folder, loading, stop)?;
    let all = dataset.samples.len() + dataset.faults.len();
    tell(News::Loaded(dataset.samples.len(), all, dataset.ignored))?;
    for note in &dataset.notes {
        tell(News::Note(note.clone()))?;
    }
    for fault in &dataset.faults {
        tell(News::Fault(fault))?;
    }
    Ok(dataset)
}

struct Run<'a> {
    training: &'a Training,
    data: Data,
    /// In each set, the recordings whose clock may be reset.
    resets: [Vec<usize>; 3],
    stop: &'a AtomicBool,
}

impl<'a> Run<'a> {
    fn new(training: &'a Training, data: Data, stop: &'a AtomicBool) -> Self {
        let of = |set: Option<&Dataset>| set.map(Dataset::resets).unwrap_or_default();
        let resets =
            [of(Some(&data.dataset)), of(data.also.as_ref()), of(data.validation.as_ref())];
        Run { training, data, resets, stop }
    }

    fn cut_again(&mut self, gap_us: Option<u64>) {
        let Data { dataset, also, validation } = &mut self.data;
        let sets = [Some(dataset), also.as_mut(), validation.as_mut()];
        for (set, places) in sets.into_iter().zip(&self.resets) {
            if let (Some(set), false) = (set, places.is_empty()) {
                set.cut_again(places, &self.training.loading, gap_us);
            }
        }
    }

    /// What a model trained on this fold fixes. Leaves all recordings cut as its streams are: the
    /// silence that it settles says which clocks are reset.
    fn settle(&mut self, fold: &Fold) -> Card {
        self.cut_again(None);
        let Training { loading, recipe, .. } = self.training;
        let card = settle::card(&self.data.dataset, loading, recipe, &self.data.trained_on(fold));
        self.cut_again(Some(card.gap_us));
        card
    }

    /// The folds to cross-validate on, and what the written model is trained on.
    fn choose(&self, folds: Vec<Fold>) -> Result<(Vec<Fold>, Fold)> {
        let Training { fold: asked, keep, .. } = self.training;
        let (crossed, last) = match (asked, folds.len()) {
            (Some(name), _) => (Vec::new(), Fold::choose(folds, name)?),
            (None, 1) => (Vec::new(), folds.into_iter().next().unwrap_or_else(|| self.all())),
            (None, _) => (folds, self.all()),
        };
        if *keep == Keep::Best && !self.data.keeps_out(&last) {
            return Err(Error::Usage(
                "--keep best needs recordings that are kept out: --val DATA, --split first:N, or \
                 --fold K of --folds"
                    .to_owned(),
            ));
        }
        Ok((crossed, last))
    }

    fn all(&self) -> Fold {
        let train = (0..self.data.dataset.samples.len()).collect();
        Fold { name: String::new(), train, test: Vec::new() }
    }

    /// Trains on one fold; the `last` has all recordings of every one. Without a checkpoint it is
    /// one of several, scored on its own recordings alone. Gives beside why the checkpoint of an
    /// interrupted one failed.
    fn train(
        &mut self,
        fold: &Fold,
        last: &Fold,
        checkpoint: Option<&Path>,
        tell: &mut Tell<'_>,
    ) -> Result<(Trained, Option<Error>)> {
        let card = self.settle(fold);
        let Run { training, data: all, stop, .. } = &*self;
        let samples = all.trained_on(fold);
        let mut held_out = all.kept_out(fold);
        if checkpoint.is_none() {
            held_out.truncate(fold.test.len());
        }
        if let Some(note) = settle::trained_and_kept_out(&samples, &held_out) {
            tell(News::Note(note))?;
        }
        let mut trainer = self.begin(card.gap_us)?;
        // Before the first fold, what would end the last.
        trainer.check(&all.trained_on(last), &all.kept_out(last))?;
        let model = |trainer: &Trainer| Model::new(card.clone(), trainer.learner().weights()?);
        let untrained = model(&trainer)?;
        let rules = Rules::of(&untrained);
        let heard: Vec<_> = held_out.iter().map(|sample| Heard::of(sample, &rules)).collect();
        let data = checkpoint::fingerprint(&samples, &held_out);
        if let (Some(path), true) = (checkpoint, training.resume) {
            self.resume(&mut trainer, data, path)?;
        }
        if checkpoint.is_some()
            && let Some(note) = settle::note(&training.loading, &samples)
        {
            tell(News::Note(note))?;
        }
        let epochs = training.recipe.epochs;
        tell(News::Begins(&fold.name, epochs, samples.len(), trainer.progress()))?;
        let save = |trainer: &Trainer| match checkpoint {
            Some(path) => replace(path, &checkpoint::save(trainer, data)?),
            None => Ok(()),
        };
        let (mut saved, mut dead, mut told) = (Instant::now(), false, false);
        while !trainer.is_done() && !stop.load(Ordering::Relaxed) {
            let over = trainer.batch(&samples)?.is_some();
            let progress = trainer.progress();
            if over {
                trainer.hold_out(&heard, &rules)?;
                if training.keep == Keep::Best {
                    trainer.keep_best()?;
                }
                if let Some(epoch) = trainer.progress().epochs.last() {
                    tell(News::Epoch(&fold.name, epoch))?;
                }
            } else {
                let epoch = progress.epochs.len() as u32 + 1;
                tell(News::Step(epoch, progress.used, &progress.sums))?;
            }
            if !dead {
                dead = self.tell_dead_layers(&trainer, tell)?;
            }
            if saved.elapsed() >= CHECKPOINT_EVERY {
                if let Err(error) = save(&trainer)
                    && !std::mem::replace(&mut told, true)
                {
                    tell(News::Note(format!("{error}; the training goes on without checkpoints")))?;
                }
                saved = Instant::now();
            }
        }
        let interrupted = (!trainer.is_done()).then_some(trainer.progress().used);
        if *trainer.progress() == Progress::default() {
            return Err(Error::Stopped);
        }
        // At once: what follows may take long, and may be interrupted too.
        let unsaved = if interrupted.is_some() { save(&trainer).err() } else { None };
        let epochs = trainer.progress().epochs.clone();
        let epoch = trainer.go_back()?.unwrap_or(epochs.len() as u32);
        let model = model(&trainer)?;
        let read = if held_out.is_empty() { &samples } else { &held_out };
        let readings = self.read(&model, read)?;
        let pairs = read.iter().map(|sample| sample.class).zip(&readings);
        let score = Score::of(&all.dataset.labels, pairs);
        let name = fold.name.clone();
        let trained =
            Trained { name, model, untrained, epochs, epoch, score, readings, interrupted };
        Ok((trained, unsaved))
    }

    /// Goes on from the checkpoint in a file.
    fn resume(&self, trainer: &mut Trainer, data: Fingerprint, path: &Path) -> Result<()> {
        let named = |error: Error| error.named(path.display());
        let bytes = read_bounded(path, checkpoint::MAX_BYTES).map_err(named)?;
        checkpoint::resume(trainer, data, &bytes).map_err(named)?;
        let begun = !trainer.progress().epochs.is_empty();
        match self.training.keep {
            Keep::Last => trainer.forget_best(),
            Keep::Best if begun && trainer.best().is_none() => {
                return Err(Error::Usage(
                    "the checkpoint was made without --keep best, so its best weights are gone: \
                     leave --keep best out, or begin without --resume"
                        .to_owned(),
                ));
            }
            Keep::Best => (),
        }
        Ok(())
    }

    fn begin(&self, gap_us: u64) -> Result<Trainer> {
        let Run { training, data: Data { dataset, .. }, .. } = self;
        let window = training.loading.windows(dataset.sensor);
        let threads = training.threads;
        let mut preparation = Preparation::new(window, dataset.labels.len(), threads);
        preparation.reset_after(gap_us);
        Trainer::new(training.recipe.clone(), preparation, threads, &training.device)
    }

    /// As `replay` reads them.
    fn read(&self, model: &Model, samples: &[&Sample]) -> Result<Vec<Reading>> {
        let mut reader = Reader::new(model, Rules::of(model))?;
        samples.iter().map(|sample| reader.read(&sample.frames)).collect()
    }

    /// Says which layers never spiked in the last batch. Returns whether one did not.
    fn tell_dead_layers(&self, trainer: &Trainer, tell: &mut Tell<'_>) -> Result<bool> {
        let rates = trainer.learner().firing_rates();
        let recipe = &self.training.recipe;
        let Some(layer) = rates.iter().position(|rate| *rate == 0.0) else { return Ok(false) };
        tell(News::Note(format!(
            "hidden layer {layer} does not spike, so nothing below it learns: try --init-scale {}, \
             a lower --v-th than {}, or a longer --window{}",
            2.0 * recipe.init_scale,
            recipe.chain.v_th,
            if recipe.augment.is_empty() { "" } else { ", or augment less" }
        )))?;
        Ok(true)
    }
}
