//! Learner: a network whose weights change: gradients of a batch, then a step of Adam.
//!
//! Knows frames and gradients of outputs; neither labels, losses nor epochs. Results depend on
//! neither the number of threads nor the instruction set.

use candle_core::{CpuStorage, Storage};

use super::op::adam::{AdamPart, AdamSettings, AdamStep};
use super::op::bptt::{Back, Tape, TrainingSample, Worker, in_parallel, run_all};
#[cfg(feature = "kernel-host")]
use super::op::host_bptt::HostBatch;
use super::op::level::Level;
use super::op::memory::{Floats, edit_in_place};
use super::state::failed;
use super::{LayerWeights, Network};
use crate::error::{Error, Result};

/// Most values that the rows of one batch may take (1 GiB).
pub const MAX_TAPE_FLOATS: usize = 1 << 28;

/// A network in training.
pub struct Learner {
    network: Network,
    autapses: bool,
    tape: Tape,
    back: Back,
    workers: Vec<Worker>,
    gradients: Floats,
    moments: Moments,
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

struct Moments {
    means: Floats,
    squares: Floats,
    steps: u64,
}

/// Floats that a step of Adam takes at a time.
const BLOCK: usize = 1 << 14;

impl Learner {
    /// A learner that uses `threads` threads. Without `autapses` the recurrent weights from a
    /// neuron to itself stay as they are (Norse's default; its cells begin with zeros there).
    pub fn new(network: Network, threads: usize, autapses: bool) -> Result<Self> {
        let n_weights = network.chain.weights.elem_count();
        let workers = (0..threads.max(1)).map(|_| Worker::new(&network.chain)).collect();
        let mut learner = Learner {
            network,
            autapses,
            tape: Tape::default(),
            back: Back::default(),
            workers,
            gradients: Floats::zeros(n_weights),
            moments: Moments {
                means: Floats::zeros(n_weights),
                squares: Floats::zeros(n_weights),
                steps: 0,
            },
            windows: 0,
            spikes: Vec::new(),
        };
        learner.refresh()?;
        Ok(learner)
    }

    /// The network as it is now.
    pub fn network(&self) -> &Network {
        &self.network
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
        let Learner { network, tape, back, workers, gradients, autapses, .. } = self;
        let chain = &network.chain;
        #[cfg(feature = "kernel-host")]
        if let Some(kernel) = &chain.kernel {
            let (results, spikes) = with_weights(network, |weights| {
                let batch = HostBatch { chain, weights, back, samples: batch, autapses: *autapses };
                kernel.learn(&batch, loss, gradients)
            })?
            .map_err(Error::Device)?;
            self.spikes = spikes;
            return Ok(results);
        }
        let results = with_weights(network, |weights| {
            tape.learn(chain, (weights, back), batch, workers, &loss)
        })?;
        tape.weight_gradients(chain, workers, *autapses, gradients);
        self.spikes = tape.spikes();
        Ok(results)
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
        let Learner { network, workers, .. } = self;
        with_weights(network, |weights| run_all(&network.chain, weights, batch, workers, &each))
    }

    /// The last batch's gradients, as a model file would hold them.
    pub fn gradients(&self) -> Vec<LayerWeights> {
        self.network.unpacked(&self.gradients)
    }

    /// The share of neurons that spiked in a window of the last batch, by layer that spikes.
    pub fn firing_rates(&self) -> Vec<f64> {
        let neurons = self.network.chain.layers.iter().filter(|layer| layer.kind.spikes);
        let of = |(layer, spikes): (&super::op::Layer, u64)| {
            spikes as f64 / (self.windows.max(1) as f64 * layer.neurons as f64)
        };
        neurons.zip(self.spikes.iter().copied()).map(of).collect()
    }

    /// The euclidean norm of the last batch's gradients, all weights together.
    pub fn gradient_norm(&self) -> f64 {
        let mut sums = [0.0f64; 16];
        for lanes in self.gradients.as_chunks::<16>().0 {
            sums.iter_mut().zip(lanes).for_each(|(sum, g)| *sum += f64::from(*g) * f64::from(*g));
        }
        sums.iter().sum::<f64>().sqrt()
    }

    /// A step of Adam along the last batch's gradients, which are scaled down to a norm of
    /// `max_norm` where theirs is greater (`torch.nn.utils.clip_grad_norm_`).
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn step(&mut self, settings: &AdamSettings, max_norm: Option<f64>) -> Result<()> {
        let scale = match max_norm {
            Some(max_norm) => (max_norm / (self.gradient_norm() + 1e-6)).min(1.0) as f32,
            None => 1.0,
        };
        self.moments.steps += 1;
        let step = AdamStep::new(settings, self.moments.steps, scale);
        let Learner { network, workers, gradients, moments, .. } = self;
        let level = network.chain.level;
        #[cfg(feature = "kernel-host")]
        if let Some(kernel) = &network.chain.kernel {
            let Moments { means, squares, .. } = moments;
            let mut done = Ok(());
            edit_in_place(&network.chain.weights, |weights| {
                done = kernel.adam(step, AdamPart { weights, gradients, means, squares });
            })
            .map_err(failed("step the weights"))?;
            done.map_err(Error::Device)?;
            return self.refresh();
        }
        edit_in_place(&network.chain.weights, |weights| {
            let parts = weights.chunks_mut(BLOCK).zip(gradients.chunks(BLOCK));
            let parts = parts.zip(moments.means.chunks_mut(BLOCK));
            let parts = parts.zip(moments.squares.chunks_mut(BLOCK));
            in_parallel(workers, parts, |_, (((weights, gradients), means), squares)| {
                step.run(level, AdamPart { weights, gradients, means, squares });
            });
        })
        .map_err(failed("step the weights"))?;
        self.refresh()
    }

    /// Everything that changes from step to step.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn snapshot(&self) -> Result<LearnerState> {
        let Moments { means, squares, steps } = &self.moments;
        Ok(LearnerState {
            weights: with_weights(&self.network, <[f32]>::to_vec)?,
            means: means.to_vec(),
            squares: squares.to_vec(),
            steps: *steps,
        })
    }

    /// Goes on from a snapshot, as if never interrupted.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where it is another network's.
    pub fn restore(&mut self, state: &LearnerState) -> Result<()> {
        let n = self.gradients.len();
        let LearnerState { weights, means, squares, steps } = state;
        if [weights, means, squares].iter().any(|values| values.len() != n) {
            return Err(Error::Mismatch("the snapshot is one of another network".to_owned()));
        }
        edit_in_place(&self.network.chain.weights, |all| all.copy_from_slice(weights))
            .map_err(failed("restore the weights"))?;
        self.moments.means.copy_from_slice(means);
        self.moments.squares.copy_from_slice(squares);
        self.moments.steps = *steps;
        self.refresh()
    }

    fn refresh(&mut self) -> Result<()> {
        let Learner { network, back, .. } = self;
        with_weights(network, |weights| back.refresh(&network.chain, weights))
    }

    fn check(&self, batch: &[TrainingSample<'_>]) -> Result<()> {
        let mut rows = 0usize;
        for TrainingSample { frames, windows } in batch {
            self.network.check_frames(frames)?;
            if frames.len() > *windows {
                return Err(Error::Mismatch(format!(
                    "a sample of {} frames cannot be stepped {windows} windows",
                    frames.len()
                )));
            }
            rows = rows.saturating_add(windows + 1);
        }
        let chain = &self.network.chain;
        let row: usize = chain.layers.iter().map(|layer| 2 * layer.width).sum();
        if rows.saturating_mul(row + chain.saved_len) > MAX_TAPE_FLOATS {
            return Err(Error::Mismatch(format!(
                "a batch of {rows} windows needs more than {} MiB: train with a smaller batch, or \
                 longer windows",
                MAX_TAPE_FLOATS >> 18
            )));
        }
        Ok(())
    }
}

/// Lends the packed weights.
fn with_weights<R>(network: &Network, lend: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let (storage, layout) = network.chain.weights.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => {
            Ok(lend(&values[start..end]))
        }
        _ => Err(Error::Mismatch("training needs weights in the memory of the CPU".to_owned())),
    }
}
