//! Trainer: epochs over labelled recordings. A function of recordings and recipe; the seed fixes
//! every bit, whatever the number of threads and wherever it was interrupted.
//!
//! Knows no file and no clock.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::loss::{LossKind, max_over_time};
use super::prepare::Preparation;
use super::recipe::Recipe;
use crate::dataset::Sample;
use crate::error::{Error, Result};
use crate::frame::Frames;
use crate::nn::{Device, Learner, LearnerState, Network, TrainingSample, draw_weights};
use crate::session::Rules;

/// Seeds of what is drawn are the recipe's; these tell the streams of one seed apart.
const WEIGHTS_STREAM: u64 = 0;
const ORDER_STREAM: u64 = 1;

/// A training between two batches.
pub struct Trainer {
    recipe: Recipe,
    learner: Learner,
    preparation: Preparation,
    progress: Progress,
    /// The weights after the best epoch, packed, where they are kept.
    best: Option<Vec<f32>>,
}

/// Where a training stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs that are over.
    pub epochs: Vec<Epoch>,
    /// Recordings of the present epoch that were used.
    pub used: usize,
    /// Their sums.
    pub sums: Sums,
}

/// Sums over recordings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// Of the loss.
    pub loss: f64,
    /// Read right.
    pub right: u64,
    /// For each layer that spikes: the share of neurons that spiked in a window, times recordings.
    pub firing: Vec<f64>,
}

/// One pass over the training recordings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Counted from 1.
    pub epoch: u32,
    /// Learning rate.
    pub lr: f64,
    /// Mean loss, before each step.
    pub loss: f64,
    /// Share of recordings read right, before each step.
    pub accuracy: f64,
    /// For each layer that spikes: the share of its neurons that spiked in a window.
    pub firing: Vec<f64>,
    /// Of recordings kept out, after the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
}

/// How recordings kept out of the training are read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Mean loss, as in training.
    pub loss: f64,
    /// Share read right as they stream.
    pub accuracy: f64,
    /// Share read right over whole recordings, padded as in training: the accuracy of an
    /// [`Epoch`], which knows no silence.
    pub as_trained: f64,
}

/// A recording that is kept out, and what of it answers as it streams.
pub struct Heard<'a> {
    class: usize,
    whole: &'a Frames,
    /// The windows of its last segment, where they are not all.
    segment: Option<Frames>,
    /// No silence came before that segment.
    first: bool,
}

impl Trainer {
    /// A training on a device that has not begun: weights are drawn from the recipe's seed.
    ///
    /// # Errors
    /// Where the recipe makes no network, or the device does not take it.
    pub fn new(
        recipe: Recipe,
        preparation: Preparation,
        threads: usize,
        device: &Device,
    ) -> Result<Self> {
        let (inputs, classes) = (preparation.inputs(), preparation.n_classes());
        recipe.check(inputs, classes, preparation.window_s())?;
        let mut random = stream(recipe.seed, WEIGHTS_STREAM);
        let scale = |k: usize| if k == 0 { recipe.init_scale } else { 1.0 };
        let layers = recipe.layers(inputs, classes).into_iter().enumerate();
        let layers = layers.map(|(k, spec)| draw_weights(spec, scale(k), &mut random)).collect();
        let network = Network::new_on(layers, preparation.window_s(), device)?;
        let learner = Learner::new(network, threads, false)?;
        Ok(Trainer { recipe, learner, preparation, progress: Progress::default(), best: None })
    }

    /// Whether any batch of these recordings can be learned, whatever the order, and those kept out
    /// be read.
    ///
    /// # Errors
    /// As [`Learner::check_size`].
    pub fn check(&self, samples: &[&Sample], kept_out: &[&Sample]) -> Result<()> {
        let Trainer { recipe, learner, preparation, .. } = self;
        let most = |n: usize| recipe.augment.most_windows(n, preparation.window_us());
        let mut longest: Vec<_> = samples.iter().map(|sample| most(sample.frames.len())).collect();
        longest.sort_unstable_by_key(|n| std::cmp::Reverse(*n));
        longest.truncate(recipe.batch);
        if let (true, Some(first)) = (recipe.unmasked, longest.first().copied()) {
            longest.fill(first);
        }
        learner.check_size(longest.into_iter())?;
        kept_out.chunks(recipe.batch).try_for_each(|chunk| {
            let batch = lengths(chunk.iter().map(|sample| &sample.frames), recipe.unmasked);
            learner.check_size(batch.iter().map(|sample| sample.windows))
        })
    }

    /// The recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The learner, with the network as it is now.
    pub fn learner(&self) -> &Learner {
        &self.learner
    }

    /// Where the training stands.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Goes on from where another training of the same recipe and data stood, which had kept the
    /// `best` weights.
    ///
    /// # Errors
    /// Where the weights are another network's.
    pub fn restore(
        &mut self,
        progress: Progress,
        state: &LearnerState,
        best: Option<Vec<f32>>,
    ) -> Result<()> {
        if best.as_ref().is_some_and(|best| best.len() != state.weights.len()) {
            return Err(Error::Model("the best weights are another network's".to_owned()));
        }
        self.learner.restore(state)?;
        self.progress = progress;
        self.best = best;
        Ok(())
    }

    /// The weights that [`Trainer::keep_best`] kept.
    pub fn best(&self) -> Option<&[f32]> {
        self.best.as_deref()
    }

    /// Keeps the weights as they are after an epoch, if none before it read as many of the
    /// recordings kept out.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn keep_best(&mut self) -> Result<()> {
        if self.best_epoch() == self.progress.epochs.last().map(|epoch| epoch.epoch) {
            self.best = Some(self.learner.snapshot()?.weights);
        }
        Ok(())
    }

    /// Forgets the weights that were kept.
    pub fn forget_best(&mut self) {
        self.best = None;
    }

    /// Goes back to the weights that were kept; gives their epoch.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn go_back(&mut self) -> Result<Option<u32>> {
        let Some(weights) = self.best.take() else { return Ok(None) };
        let state = LearnerState { weights, ..self.learner.snapshot()? };
        self.learner.restore(&state)?;
        Ok(self.best_epoch())
    }

    /// The first of the epochs that read most of the recordings kept out.
    fn best_epoch(&self) -> Option<u32> {
        let mut best = None;
        for Epoch { epoch, held_out, .. } in &self.progress.epochs {
            let Some(HeldOut { accuracy, .. }) = *held_out else { continue };
            if best.is_none_or(|(greatest, _)| accuracy > greatest) {
                best = Some((accuracy, *epoch));
            }
        }
        best.map(|(_, epoch)| epoch)
    }

    /// Whether all epochs are over.
    pub fn is_done(&self) -> bool {
        self.progress.epochs.len() >= self.recipe.epochs as usize
    }

    /// One step. Returns the epoch, where this batch was its last.
    ///
    /// # Errors
    /// Where the loss, a gradient's norm or weights are no numbers; the error says what to try.
    pub fn batch(&mut self, samples: &[&Sample]) -> Result<Option<&Epoch>> {
        let Trainer { recipe, learner, preparation, progress, .. } = self;
        let epoch = progress.epochs.len() as u32;
        let order = order_of(samples.len(), recipe.seed, epoch);
        let chosen = &order[progress.used..(progress.used + recipe.batch).min(order.len())];
        let prepared = preparation.prepare(samples, chosen, epoch, &recipe.augment, recipe.seed);
        let batch = lengths(prepared.iter().map(|frames| &**frames), recipe.unmasked);
        let (loss, n_classes) = (recipe.loss(), preparation.n_classes());
        let weight = 1.0 / chosen.len() as f64;
        let results = learner.learn(&batch, |k, voltages, gradient| {
            let class = samples[chosen[k]].class;
            let value = loss.of(voltages, n_classes, class, weight, gradient);
            (value, answer(recipe.loss, voltages, n_classes) == Some(class))
        })?;
        let of_batch: f64 = results.iter().map(|(loss, _)| loss).sum();
        if !of_batch.is_finite() {
            return Err(diverged(recipe, epoch, "the loss is no number any more"));
        }
        if !learner.step(&recipe.adam(epoch), recipe.clip)? {
            return Err(diverged(recipe, epoch, "the gradients are no numbers any more"));
        }
        let rates = learner.firing_rates();
        // A neuron without a voltage never spikes, so the loss alone may stay a number.
        let over = progress.used + chosen.len() == samples.len();
        if (over || rates.contains(&0.0)) && !learner.is_finite()? {
            return Err(diverged(recipe, epoch, "weights are no numbers any more"));
        }
        progress.sums.add(&results, rates);
        progress.used += chosen.len();
        if progress.used < samples.len() {
            return Ok(None);
        }
        let Sums { loss, right, firing } = std::mem::take(&mut progress.sums);
        let n = samples.len() as f64;
        progress.used = 0;
        progress.epochs.push(Epoch {
            epoch: epoch + 1,
            lr: recipe.adam(epoch).lr,
            loss: loss / n,
            accuracy: right as f64 / n,
            firing: firing.into_iter().map(|sum| sum / n).collect(),
            held_out: None,
        });
        Ok(progress.epochs.last())
    }

    /// How recordings are read by the network as it is now, in batches as in training and as a
    /// session by these rules; noted in the last epoch. Without recordings nothing is.
    ///
    /// # Errors
    /// As the learner.
    pub fn hold_out(&mut self, heard: &[Heard<'_>], rules: &Rules) -> Result<()> {
        let Trainer { recipe, learner, preparation, progress, .. } = self;
        if heard.is_empty() {
            return Ok(());
        }
        let (loss, n_classes) = (recipe.loss(), preparation.n_classes());
        let (mut sum, mut as_trained, mut right) = (0.0, 0, 0);
        for chunk in heard.chunks(recipe.batch) {
            let batch = lengths(chunk.iter().map(|heard| heard.whole), recipe.unmasked);
            let results = learner.outputs(&batch, |k, voltages| {
                let mut unused = vec![0.0; voltages.len()];
                let heard = &chunk[k];
                let value = loss.of(voltages, n_classes, heard.class, 0.0, &mut unused);
                let as_trained = answer(recipe.loss, voltages, n_classes) == Some(heard.class);
                let whole = heard.segment.is_none();
                (value, as_trained, whole && heard.is_read(rules, voltages, n_classes))
            })?;
            for (value, read_as_trained, read) in results {
                sum += value;
                as_trained += u64::from(read_as_trained);
                right += u64::from(read);
            }
        }
        let cut: Vec<_> = heard.iter().filter(|heard| heard.segment.is_some()).collect();
        for chunk in cut.chunks(recipe.batch) {
            let batch = lengths(chunk.iter().map(|heard| heard.frames()), false);
            let read = learner
                .outputs(&batch, |k, voltages| chunk[k].is_read(rules, voltages, n_classes))?;
            right += read.into_iter().map(u64::from).sum::<u64>();
        }
        let n = heard.len() as f64;
        if let Some(epoch) = progress.epochs.last_mut() {
            let [accuracy, as_trained] = [right, as_trained].map(|right| right as f64 / n);
            epoch.held_out = Some(HeldOut { loss: sum / n, accuracy, as_trained });
        }
        Ok(())
    }
}

impl<'a> Heard<'a> {
    /// What a session by these rules answers a recording by.
    pub fn of(sample: &'a Sample, rules: &Rules) -> Self {
        let Sample { class, frames: ref whole, .. } = *sample;
        let (windows, first) = rules.last_segment(whole.windows());
        let segment = (windows != (0..whole.len())).then(|| {
            let mut segment = Frames::default();
            windows.for_each(|k| segment.copy_from(whole, k));
            segment
        });
        Heard { class, whole, segment, first }
    }

    fn frames(&self) -> &Frames {
        self.segment.as_ref().unwrap_or(self.whole)
    }

    /// Whether a session reads it right, by the voltages of [`Heard::frames`] and whatever follows.
    fn is_read(&self, rules: &Rules, voltages: &[f32], n_classes: usize) -> bool {
        let verdict = rules.verdict(self.frames().windows(), self.first, voltages, n_classes);
        verdict.class.map(usize::from) == Some(self.class)
    }
}

impl Progress {
    /// Whether a training by this recipe on so many recordings could stand like this.
    pub fn is_sound(&self, recipe: &Recipe, recordings: usize) -> bool {
        let Progress { epochs, used, sums } = self;
        let over = epochs.len() >= recipe.epochs as usize;
        let firing = |rates: &[f64]| rates.len() == recipe.hidden.len();
        let numbered = epochs.iter().zip(1..).all(|(epoch, n)| epoch.epoch == n);
        epochs.len() <= recipe.epochs as usize
            && numbered
            && epochs.iter().all(|epoch| firing(&epoch.firing))
            && *used < if over { 1 } else { recordings }
            && sums.right <= *used as u64
            && (firing(&sums.firing) || (*used == 0 && sums.firing.is_empty()))
    }
}

impl Sums {
    fn add(&mut self, results: &[(f64, bool)], firing: Vec<f64>) {
        self.loss += results.iter().map(|(loss, _)| loss).sum::<f64>();
        self.right += results.iter().filter(|(_, right)| *right).count() as u64;
        self.firing.resize(firing.len(), 0.0);
        for (sum, rate) in self.firing.iter_mut().zip(firing) {
            *sum += rate * results.len() as f64;
        }
    }
}

fn stream(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

/// The order of the recordings in an epoch, of the seed and the epoch alone.
fn order_of(n: usize, seed: u64, epoch: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(&mut stream(seed, ORDER_STREAM + u64::from(epoch)));
    order
}

/// A batch, padded to its longest where padding counts.
fn lengths<'a>(
    frames: impl Iterator<Item = &'a Frames> + Clone,
    unmasked: bool,
) -> Vec<TrainingSample<'a>> {
    let longest = frames.clone().map(Frames::len).max().unwrap_or(0);
    let windows = |frames: &Frames| if unmasked { longest } else { frames.len() };
    frames.map(|frames| TrainingSample { frames, windows: windows(frames) }).collect()
}

/// The class that a recording's voltages name: of the greatest mean over time where the loss is
/// the mean's, else of the greatest maximum; the lowest of equals.
fn answer(loss: LossKind, voltages: &[f32], n_classes: usize) -> Option<usize> {
    if voltages.is_empty() {
        return None;
    }
    let logits = match loss {
        LossKind::Mean => {
            let sum = |c| voltages.iter().skip(c).step_by(n_classes).sum::<f32>();
            (0..n_classes).map(sum).collect()
        }
        _ => max_over_time(voltages, n_classes).0,
    };
    let greatest = |best, c: usize| if logits[c] > logits[best] { c } else { best };
    Some((1..n_classes).fold(0, greatest))
}

fn diverged(recipe: &Recipe, epoch: u32, what: &str) -> Error {
    let tutorial = Recipe::tutorial();
    let mut more = String::new();
    if recipe.clip.is_none() {
        more += ", or --clip 1";
    }
    if recipe.init_scale > tutorial.init_scale {
        more += ", or a smaller --init-scale";
    }
    if recipe.chain.alpha < tutorial.chain.alpha {
        more += ", or a greater --alpha";
    }
    Error::Model(format!(
        "the training diverged in epoch {}: {what}; try --lr {}{more}",
        epoch + 1,
        recipe.lr / 10.0
    ))
}
