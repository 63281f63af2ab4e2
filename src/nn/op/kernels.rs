//! The rollout by the kernels, on whatever machine runs them: parts of a plan up while those before
//! them are stepped, then the outputs down.
//!
//! Knows plans and launches; no equation. What the kernels are told, `packed` and `plan` write.

use candle_core::{Error, Result, bail};

use super::machine::{Given, Machine};
use super::packed::PackedChain;
use super::{Chain, Job};
use crate::nn::device::room;

/// The kernels, ready for a chain.
pub(crate) struct Kernels<M: Machine> {
    pub machine: M,
    pub packed: PackedChain,
    pub layers: M::Array<u32>,
}

/// What a state's rollouts keep on a machine.
pub(crate) struct Staging<M: Machine> {
    plan: M::Array<u32>,
    out: M::Array<f32>,
    trace: M::Array<f32>,
}

impl<M: Machine> Default for Staging<M> {
    fn default() -> Self {
        let (plan, out, trace) = Default::default();
        Staging { plan, out, trace }
    }
}

impl<M: Machine> Staging<M> {
    fn resize(&mut self, machine: &M, plan: usize, out: usize, trace: usize) -> Result<()> {
        machine.resize(&mut self.plan, plan)?;
        machine.resize(&mut self.out, out)?;
        if trace > 0 {
            machine.resize(&mut self.trace, trace)?;
            machine.clear(&mut self.trace)?;
        }
        Ok(())
    }
}

impl<M: Machine> std::fmt::Debug for Staging<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staging").finish_non_exhaustive()
    }
}

impl<M: Machine> Kernels<M> {
    /// Readies a machine for a chain.
    ///
    /// # Errors
    /// Where a block has too little memory for the chain's spikes, or the machine fails.
    pub fn new(machine: M, chain: &Chain) -> Result<Self> {
        let packed = PackedChain::new(chain, machine.shared_bytes()?);
        let mut packed = packed.map_err(Error::Msg)?;
        packed.blocks = machine.blocks(packed.threads, packed.shared_bytes(true))?;
        packed.blocks_that_keep_none =
            machine.blocks(packed.threads, packed.shared_bytes(false))?;
        let mut layers = M::Array::default();
        machine.resize(&mut layers, packed.layers.len())?;
        machine.write(&mut layers, 0..packed.layers.len(), |all| {
            all.copy_from_slice(&packed.layers);
        })?;
        Ok(Kernels { machine, packed, layers })
    }

    /// [`Chain::walk`] by the kernel; returns when the outputs are here.
    pub fn walk(
        &self,
        chain: &Chain,
        (weights, mut state): (M::View<'_, f32>, M::ViewMut<'_, f32>),
        job: &mut Job<'_>,
        staging: &mut Staging<M>,
    ) -> Result<()> {
        if job.plan.is_empty() {
            return Ok(());
        }
        let Kernels { machine, packed, layers } = self;
        let mut plan = std::mem::take(&mut job.scratch.packing);
        plan.arrange(job.slots, job.plan, M::view_mut_len(&state) / chain.row_len);
        let (n_words, n_steps) = (plan.len(packed), plan.n_steps());
        check_size(n_words, n_steps)?;
        let n_out = n_steps * packed.outputs;
        let n_trace = if job.trace.is_some() { n_steps * chain.row_len } else { 0 };
        if let Err(error) = staging.resize(machine, n_words, n_out, n_trace) {
            *staging = Staging::default();
            machine.wait()?;
            let bytes = 4 * (n_words + n_out + n_trace);
            return Err(full(plan.n_runs(), bytes, machine.free_bytes(), error));
        }
        for part in plan.parts(packed, machine.launch_words()) {
            let words = part.words.clone();
            let whole = words == (0..n_words);
            let fill = |words: &mut [u32]| plan.write(&part, packed, (job.slots, job.plan), words);
            match whole {
                true => machine.write(&mut staging.plan, words.clone(), fill)?,
                false => machine.write_ahead(&mut staging.plan, words.clone(), fill)?,
            }
            let uploaded = M::view(&staging.plan)?;
            let given = [
                Given::Floats(M::part(&weights, 0..packed.n_weights)),
                Given::Filled(M::lend(&mut state)),
                M::words(layers)?,
                Given::Words(M::part(&uploaded, words)),
                M::filled(&mut staging.out)?,
                match job.trace.is_some() {
                    true => M::filled(&mut staging.trace)?,
                    false => Given::Absent,
                },
                Given::Absent,
            ];
            machine.launch(&packed.rollout(&plan.stepped(&part)), given)?;
        }
        job.out.extend_from_slice(machine.read(&mut staging.out, n_out)?);
        job.scratch.packing = plan;
        job.scratch.forget_lists();
        if let Some(kept) = &mut job.trace {
            let rows = machine.read(&mut staging.trace, n_steps * chain.row_len)?;
            rows.chunks_exact(chain.row_len).for_each(|row| kept.push(&chain.layers, row));
        }
        Ok(())
    }
}

/// What is wrong where `n_streams` need so many bytes: how many streams fit, if not all of them do.
fn full(n_streams: usize, bytes: usize, free: Option<usize>, error: Error) -> Error {
    match free.map(|free| room(n_streams, bytes.div_ceil(n_streams.max(1)), free)) {
        Some(Err(told)) => Error::Msg(format!("{told}, with as many windows at once ({error})")),
        _ => error,
    }
}

/// Refuses a plan whose places do not fit its words.
pub(super) fn check_size(n_words: usize, n_steps: usize) -> Result<()> {
    if u32::try_from(n_words).is_err() || n_steps >= 1 << 31 {
        bail!("{n_steps} windows with {n_words} words are too many at once: bring fewer")
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Error, full};

    #[test]
    fn a_plan_without_room_says_how_many_streams_fit() {
        let failed = || Error::Msg("out of memory".to_owned());
        let told = full(100, 100 << 20, Some(30 << 20), failed()).to_string();
        assert!(told.contains("at most 30 streams fit"), "{told}");
        assert!(told.contains("(out of memory)"), "{told}");
        for free in [None, Some(1 << 40)] {
            assert_eq!(full(100, 100 << 20, free, failed()).to_string(), "out of memory");
        }
    }
}
