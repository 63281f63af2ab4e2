//! Learner: a network whose weights change: gradients of a batch, then a step of Adam.
//!
//! Knows frames and gradients of outputs; neither labels, losses nor epochs. Results depend on
//! neither the number of threads nor the instruction set.

use std::sync::{Mutex, PoisonError};

use super::op::adam::{AdamSettings, AdamStep};
use super::op::backend::Backend;
use super::op::bptt::TrainingSample;
use super::op::level::Level;
use super::state::failed;
use super::{LayerWeights, Network};
use crate::error::{Error, Result};

/// Most values that the rows of one batch may take (1 GiB).
pub const MAX_TAPE_FLOATS: usize = 1 << 28;

/// A network in training.
pub struct Learner {
    /// Its weights are those before training.
    network: Network,
    backend: Box<dyn Backend>,
    steps: u64,
    windows: u64,
    spikes: Vec<u64>,
}

/// What changes from step to step, each list laid out as the network's packed weights.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnerState {
    /// The weights.
    pub weights: Vec<f32>,
    /// Adam's running means of the gradients.
    pub means: Vec<f32>,
    /// Adam's running means of their squares.
    pub squares: Vec<f32>,
    /// Steps taken.
    pub steps: u64,
}

impl Learner {
    /// A learner where the network's weights are: on the CPU, with `threads` threads, or by the
    /// kernels of a GPU. Without `autapses` the recurrent weights from a neuron to itself stay as they
    /// are (Norse's default; its cells begin with zeros there).
    ///
    /// # Errors
    /// [`Error::Tensor`] where the device does not take it.
    pub fn new(network: Network, threads: usize, autapses: bool) -> Result<Self> {
        let backend = network.chain.backend(threads, autapses);
        let backend = backend.map_err(failed("begin to learn"))?;
        Ok(Learner { network, backend, steps: 0, windows: 0, spikes: Vec::new() })
    }

    /// The layers with their weights as they are now.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn weights(&self) -> Result<Vec<LayerWeights>> {
        let [weights, _, _] = self.backend.parameters().map_err(failed("read the weights"))?;
        Ok(self.network.unpacked(&weights))
    }

    /// Number of values of an output.
    pub fn n_outputs(&self) -> usize {
        self.network.outputs()
    }

    /// The same learner on another instruction set; all give the same bits.
    pub fn with_level(mut self, level: Level) -> Self {
        self.network.chain.level = level;
        self
    }

    /// The gradients of a batch, by back-propagation through time.
    ///
    /// Every sample is stepped from a zero state; `loss` is given its index, its outputs
    /// \[windows, outputs\] and as many zeros, which it replaces with the loss's gradient; what it
    /// returns comes back in the samples' order.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where a frame has an address beyond the network's inputs, a sample has
    /// more frames than windows, or the batch needs more than 1 GiB.
    pub fn learn<R: Send>(
        &mut self,
        batch: &[TrainingSample<'_>],
        loss: impl Fn(usize, &[f32], &mut [f32]) -> R + Sync,
    ) -> Result<Vec<R>> {
        self.check(batch)?;
        self.windows = batch.iter().map(|sample| sample.windows as u64).sum();
        let results = Results::of(batch.len());
        let loss = |k: usize, outputs: &[f32], gradient: &mut [f32]| {
            results.put(k, loss(k, outputs, gradient));
        };
        let learned = self.backend.learn(&self.network.chain, batch, &loss);
        self.spikes = learned.map_err(failed("learn a batch"))?;
        Ok(results.take())
    }

    /// The outputs of each sample, handed to `each`, whose results come back in the samples' order.
    ///
    /// # Errors
    /// As [`Learner::learn`].
    pub fn outputs<R: Send>(
        &mut self,
        batch: &[TrainingSample<'_>],
        each: impl Fn(usize, &[f32]) -> R + Sync,
    ) -> Result<Vec<R>> {
        self.check(batch)?;
        let results = Results::of(batch.len());
        let each = |k: usize, outputs: &[f32]| results.put(k, each(k, outputs));
        let stepped = self.backend.outputs(&self.network.chain, batch, &each);
        stepped.map_err(failed("step a batch"))?;
        Ok(results.take())
    }

    /// The last batch's gradients, as a model file would hold them.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn gradients(&self) -> Result<Vec<LayerWeights>> {
        let gradients = self.backend.gradients().map_err(failed("read the gradients"))?;
        Ok(self.network.unpacked(&gradients))
    }

    /// The share of neurons that spiked in a window of the last batch, by layer that spikes.
    pub fn firing_rates(&self) -> Vec<f64> {
        let neurons = self.network.chain.layers.iter().filter(|layer| layer.kind.spikes);
        let of = |(layer, spikes): (&super::op::Layer, u64)| {
            spikes as f64 / (self.windows.max(1) as f64 * layer.neurons as f64)
        };
        neurons.zip(self.spikes.iter().copied()).map(of).collect()
    }

    /// A step of Adam along the last batch's gradients, which are scaled down to a norm of
    /// `max_norm` where theirs, all weights together, is greater (`torch.nn.utils.clip_grad_norm_`).
    /// Takes none, and returns false, where that norm is no number.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn step(&mut self, settings: &AdamSettings, max_norm: Option<f64>) -> Result<bool> {
        let scale = match max_norm {
            Some(max_norm) => {
                let norm = self.backend.gradient_norm().map_err(failed("read the gradients"))?;
                if !norm.is_finite() {
                    return Ok(false);
                }
                (max_norm / (norm + 1e-6)).min(1.0) as f32
            }
            None => 1.0,
        };
        self.steps += 1;
        let step = AdamStep::new(settings, self.steps, scale);
        self.backend.step(&self.network.chain, step).map_err(failed("step the weights"))?;
        Ok(true)
    }

    /// Whether all weights are numbers.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn is_finite(&self) -> Result<bool> {
        self.backend.are_finite().map_err(failed("read the weights"))
    }

    /// Everything that changes from step to step.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn snapshot(&self) -> Result<LearnerState> {
        let parameters = self.backend.parameters().map_err(failed("read the weights"))?;
        let [weights, means, squares] = parameters;
        Ok(LearnerState { weights, means, squares, steps: self.steps })
    }

    /// Goes on from a snapshot, as if never interrupted, wherever it was taken.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where it is another network's.
    pub fn restore(&mut self, state: &LearnerState) -> Result<()> {
        let n = self.network.chain.weights.elem_count();
        let LearnerState { weights, means, squares, steps } = state;
        if [weights, means, squares].iter().any(|values| values.len() != n) {
            return Err(Error::Mismatch("the snapshot is one of another network".to_owned()));
        }
        let replaced = self.backend.set_parameters(&self.network.chain, [weights, means, squares]);
        replaced.map_err(failed("restore the weights"))?;
        self.steps = *steps;
        Ok(())
    }

    fn check(&self, batch: &[TrainingSample<'_>]) -> Result<()> {
        for TrainingSample { frames, windows } in batch {
            self.network.check_frames(frames)?;
            if frames.len() > *windows {
                return Err(Error::Mismatch(format!(
                    "a sample of {} frames cannot be stepped {windows} windows",
                    frames.len()
                )));
            }
        }
        self.check_size(batch.iter().map(|sample| sample.windows))
    }

    /// Whether a batch of samples of so many windows can be learned.
    ///
    /// # Errors
    /// [`Error::Usage`] where it needs more than 1 GiB.
    pub fn check_size(&self, windows: impl Iterator<Item = usize>) -> Result<()> {
        let rows = windows.fold(0usize, |rows, n| rows.saturating_add(n).saturating_add(1));
        let chain = &self.network.chain;
        let row: usize = chain.layers.iter().map(|layer| 2 * layer.width).sum();
        if rows.saturating_mul(row + chain.saved_len) > MAX_TAPE_FLOATS {
            return Err(Error::Usage(format!(
                "a batch of {rows} windows needs more than {} MiB: take a smaller --batch, or a \
                 longer --window",
                MAX_TAPE_FLOATS >> 18
            )));
        }
        Ok(())
    }
}

/// What is returned for each sample, by whichever thread.
struct Results<R>(Vec<Mutex<Option<R>>>);

impl<R> Results<R> {
    fn of(n: usize) -> Self {
        Results(std::iter::repeat_with(|| Mutex::new(None)).take(n).collect())
    }

    fn put(&self, k: usize, result: R) {
        *self.0[k].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    }

    /// In the samples' order.
    fn take(self) -> Vec<R> {
        let results = self.0.into_iter();
        results.filter_map(|r| r.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
    }
}
