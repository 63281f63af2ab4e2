//! The rollout by the GPU's kernel, compiled for the CPU: how the kernel is tested without a GPU.
//!
//! Knows plans and their words; no equation.

use candle_core::bail;

use super::launch::{Arrays, rollout_on_host};
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

/// Most shared memory that a block has here, in bytes.
pub(crate) const MAX_SHARED_BYTES: usize = 4 * 64 * 1024;

/// The kernel, ready for a chain.
pub(crate) struct HostKernel {
    choice: KernelOnHost,
    packed: PackedChain,
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
        let arrays = Arrays {
            weights,
            state,
            layers: &packed.layers,
            plan: &words,
            out: &mut job.out[first..],
            trace: job.trace.is_some().then_some(&mut trace),
        };
        let launch = packed.launch(plan, choice.blocks);
        if let Err(what) = rollout_on_host(&launch, packed.threads, choice.reversed, arrays) {
            bail!("the kernel cannot run: {what}")
        }
        job.scratch.forget_lists();
        if let Some(kept) = &mut job.trace {
            trace.chunks_exact(chain.row_len).for_each(|row| kept.push(&chain.layers, row));
        }
        Ok(())
    }
}
