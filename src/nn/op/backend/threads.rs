//! Learning on the CPU's threads, by the chain that streams.

use candle_core::Result;

use super::{Backend, LossOf, OutputsOf, are_finite, norm};
use crate::nn::op::Chain;
use crate::nn::op::adam::{AdamPart, AdamStep};
use crate::nn::op::bptt::{Back, Tape, TrainingSample, Worker, in_parallel, run_all};
use crate::nn::op::memory::Floats;

/// Floats that a step of Adam takes at a time.
const BLOCK: usize = 1 << 14;

/// The CPU.
pub(super) struct OnThreads {
    autapses: bool,
    workers: Vec<Worker>,
    tape: Tape,
    back: Back,
    weights: Floats,
    gradients: Floats,
    means: Floats,
    squares: Floats,
}

impl OnThreads {
    pub fn new(chain: &Chain, weights: &[f32], threads: usize, autapses: bool) -> Self {
        let zeros = || Floats::zeros(weights.len());
        let mut on_threads = OnThreads {
            autapses,
            workers: (0..threads.max(1)).map(|_| Worker::new(chain)).collect(),
            tape: Tape::default(),
            back: Back::default(),
            weights: zeros(),
            gradients: zeros(),
            means: zeros(),
            squares: zeros(),
        };
        on_threads.weights.copy_from_slice(weights);
        on_threads.back.refresh(chain, weights);
        on_threads
    }
}

impl Backend for OnThreads {
    fn learn(
        &mut self,
        chain: &Chain,
        batch: &[TrainingSample<'_>],
        loss: &LossOf<'_>,
    ) -> Result<Vec<u64>> {
        let OnThreads { autapses, workers, tape, back, weights, gradients, .. } = self;
        tape.learn(chain, (weights, back), batch, workers, loss);
        tape.weight_gradients(chain, workers, *autapses, gradients);
        Ok(tape.spikes())
    }

    fn outputs(
        &mut self,
        chain: &Chain,
        batch: &[TrainingSample<'_>],
        each: &OutputsOf<'_>,
    ) -> Result<()> {
        run_all(chain, &self.weights, batch, &mut self.workers, each);
        Ok(())
    }

    fn step(&mut self, chain: &Chain, step: AdamStep) -> Result<()> {
        let OnThreads { workers, back, weights, gradients, means, squares, .. } = self;
        let parts = weights.chunks_mut(BLOCK).zip(gradients.chunks(BLOCK));
        let parts = parts.zip(means.chunks_mut(BLOCK)).zip(squares.chunks_mut(BLOCK));
        in_parallel(workers, parts, |_, (((weights, gradients), means), squares)| {
            step.run(chain.level, AdamPart { weights, gradients, means, squares });
        });
        back.refresh(chain, weights);
        Ok(())
    }

    fn gradients(&self) -> Result<Vec<f32>> {
        Ok(self.gradients.to_vec())
    }

    fn gradient_norm(&self) -> Result<f64> {
        Ok(norm(&self.gradients))
    }

    fn are_finite(&self) -> Result<bool> {
        Ok(are_finite(&self.weights))
    }

    fn parameters(&self) -> Result<[Vec<f32>; 3]> {
        Ok([&self.weights, &self.means, &self.squares].map(|values| values.to_vec()))
    }

    fn set_parameters(&mut self, chain: &Chain, parameters: [&[f32]; 3]) -> Result<()> {
        let own = [&mut self.weights, &mut self.means, &mut self.squares];
        own.into_iter().zip(parameters).for_each(|(own, given)| own.copy_from_slice(given));
        self.back.refresh(chain, &self.weights);
        Ok(())
    }
}
