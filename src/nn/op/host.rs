//! The rollout by the GPU's kernel, compiled for the CPU: how the kernel is tested without a GPU.
//!
//! Knows plans and their words; no equation.

use candle_core::bail;

use super::launch::{Array, Lengths, MAX_SHARED_BYTES, OnHost, run_on_host};
use super::packed::PackedChain;
use super::{Chain, Job};

/// How the kernel runs on the CPU. No choice changes a bit of its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelOnHost {
    /// The threads of a block take their turns in descending order.
    pub reversed: bool,
    /// Shared memory of a block; weights that it cannot hold are read from the device's memory.
    pub shared_bytes: usize,
    /// Blocks that run at once, over which streams are dealt.
    pub blocks: usize,
}

/// The kernel, ready for a chain.
pub(crate) struct HostKernel {
    pub(super) choice: KernelOnHost,
    pub(super) packed: PackedChain,
}

impl HostKernel {
    pub fn new(chain: &Chain, choice: KernelOnHost) -> Result<Self, String> {
        let shared_bytes = choice.shared_bytes.min(MAX_SHARED_BYTES);
        let lengths = (chain.row_len, chain.saved_len);
        Ok(HostKernel { choice, packed: PackedChain::new(&chain.layers, lengths, shared_bytes)? })
    }

    /// [`Chain::walk`] by the kernel.
    pub fn walk(
        &self,
        chain: &Chain,
        weights: &[f32],
        state: &mut [f32],
        job: &mut Job<'_>,
    ) -> candle_core::Result<()> {
        let HostKernel { choice, packed } = self;
        let plan = &mut job.scratch.packing;
        plan.arrange(job.slots, job.plan, state.len() / chain.row_len);
        let mut words = vec![0; plan.len(packed)];
        plan.write(packed, job.slots, job.plan, &mut words);
        let first = job.out.len();
        job.out.resize(first + job.plan.len() * chain.outputs(), 0.0);
        let n_traced = if job.trace.is_some() { job.plan.len() * chain.row_len } else { 0 };
        let mut trace = vec![0.0; n_traced];
        let launch = packed.launch(plan, choice.blocks);
        let out = &mut job.out[first..];
        let lengths = Lengths {
            weights: weights.len(),
            state: state.len(),
            layers: packed.layers.len(),
            plan: words.len(),
            out: out.len(),
            trace: job.trace.is_some().then_some(n_traced),
        };
        let fits = launch.check(lengths).map_err(str::to_owned);
        let mut run = || {
            let (n_state, n_out) = (state.len(), out.len());
            let mut arrays = [
                Array::Read(weights, weights.len()),
                Array::Write(state, n_state),
                Array::Words(&packed.layers, packed.layers.len()),
                Array::Words(&words, words.len()),
                Array::Write(out, n_out),
                if n_traced > 0 { Array::Write(&mut trace, n_traced) } else { Array::Absent },
                Array::Absent,
            ];
            let shape = [launch.grid, packed.threads, launch.shared_bytes];
            run_on_host(OnHost::Rollout, shape, choice.reversed, &mut arrays, &launch.numbers)
        };
        if let Err(what) = fits.and_then(|()| run()) {
            bail!("the kernel cannot run: {what}")
        }
        job.scratch.forget_lists();
        if let Some(kept) = &mut job.trace {
            trace.chunks_exact(chain.row_len).for_each(|row| kept.push(&chain.layers, row));
        }
        Ok(())
    }
}
