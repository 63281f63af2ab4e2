//! Where a network learns: on the CPU's threads, or by the kernels on a GPU, or on the CPU in its
//! place. Each holds the weights while they change, and all that belongs to them, laid out as they are.
//!
//! Knows batches and steps; neither losses nor epochs.

#[cfg(any(feature = "cuda", feature = "kernel-host"))]
mod kernels;
mod threads;

use candle_core::Result;

use super::Chain;
use super::adam::AdamStep;
use super::bptt::TrainingSample;

/// Is given a sample's index, its outputs \[windows, outputs\], and as many zeros to fill with the
/// loss's gradient with respect to them.
pub(crate) type LossOf<'a> = dyn Fn(usize, &[f32], &mut [f32]) + Sync + 'a;
/// Is given a sample's index and its outputs \[windows, outputs\].
pub(crate) type OutputsOf<'a> = dyn Fn(usize, &[f32]) + Sync + 'a;

/// A place to learn. The same calls leave the same bits in every one. Batches have been checked.
pub(crate) trait Backend {
    /// Steps every sample from a zero state, asks for the loss's gradients, and forms those of all
    /// weights. Returns how often each layer that spikes fired.
    fn learn(
        &mut self,
        chain: &Chain,
        batch: &[TrainingSample<'_>],
        loss: &LossOf<'_>,
    ) -> Result<Vec<u64>>;

    /// Steps every sample from a zero state.
    fn outputs(
        &mut self,
        chain: &Chain,
        batch: &[TrainingSample<'_>],
        each: &OutputsOf<'_>,
    ) -> Result<()>;

    /// A step of Adam along the last gradients.
    fn step(&mut self, chain: &Chain, step: AdamStep) -> Result<()>;

    /// The last gradients.
    fn gradients(&self) -> Result<Vec<f32>>;

    /// Their euclidean norm.
    fn gradient_norm(&self) -> Result<f64>;

    /// Whether all weights are numbers.
    fn are_finite(&self) -> Result<bool>;

    /// The weights, Adam's means and its squares.
    fn parameters(&self) -> Result<[Vec<f32>; 3]>;

    /// Replaces them; each has the weights' length.
    fn set_parameters(&mut self, chain: &Chain, parameters: [&[f32]; 3]) -> Result<()>;
}

impl Chain {
    /// Where this chain learns: where its weights are. It begins with those. `threads` are the CPU's.
    pub fn backend(&self, threads: usize, autapses: bool) -> Result<Box<dyn Backend>> {
        let weights = self.weights.flatten_all()?.to_vec1::<f32>()?;
        #[cfg(feature = "kernel-host")]
        if let Some(kernel) = &self.kernel {
            let learner = kernels::ByKernels::new(kernel.machine, self, &weights, autapses)?;
            return Ok(Box::new(learner));
        }
        #[cfg(feature = "cuda")]
        if let Some(kernel) = &self.cuda {
            let gpu = super::cuda::Gpu::for_learning(kernel.machine.device())?;
            return Ok(Box::new(kernels::ByKernels::new(gpu, self, &weights, autapses)?));
        }
        Ok(Box::new(threads::OnThreads::new(self, &weights, threads, autapses)))
    }
}

/// Whether all are numbers; looks at many before it asks.
fn are_finite(values: &[f32]) -> bool {
    let finite = |all: bool, value: &f32| all & value.is_finite();
    values.chunks(1024).all(|chunk| chunk.iter().fold(true, finite))
}

/// The euclidean norm, summed in 16 lanes.
fn norm(values: &[f32]) -> f64 {
    let mut sums = [0.0f64; 16];
    for lanes in values.as_chunks::<16>().0 {
        sums.iter_mut().zip(lanes).for_each(|(sum, g)| *sum += f64::from(*g) * f64::from(*g));
    }
    sums.iter().sum::<f64>().sqrt()
}
