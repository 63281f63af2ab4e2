//! Learning by the kernels: weights, moments and gradients stay where these run. A batch goes up once,
//! its outputs come down, losses are computed here in the samples' order, their gradients go up.
//!
//! Knows rows and launches; no equation.

use candle_core::Result;

use super::{Backend, LossOf, OutputsOf, are_finite, norm};
use crate::nn::op::Chain;
use crate::nn::op::adam::AdamStep;
use crate::nn::op::bptt::{Columns, TrainingSample};
use crate::nn::op::kernels::{Kernels, check_size};
use crate::nn::op::machine::{Given, Machine};
use crate::nn::op::plan::Batch;

/// A machine that runs the kernels, and what it keeps from step to step.
pub(super) struct ByKernels<M: Machine> {
    kernels: Kernels<M>,
    autapses: bool,
    /// Layers that spike.
    spiking: Vec<bool>,
    weights: M::Array<f32>,
    /// The weights as stored, for the way back.
    back: M::Array<f32>,
    gradients: M::Array<f32>,
    means: M::Array<f32>,
    squares: M::Array<f32>,
    rows: Rows<M::Array<u32>, M::Array<f32>>,
    columns: Columns,
}

/// A batch and what comes of it: a row for each window of each sample, and one of zeros after each
/// sample.
#[derive(Default)]
struct Rows<Words, Floats> {
    plan: Words,
    samples: Words,
    /// Where each address's entries end.
    ends: Words,
    /// Rows in which an address was active, and counts.
    entries: Words,
    state: Floats,
    trace: Floats,
    saved: Floats,
    out: Floats,
    gradient: Floats,
    carried: Floats,
    below: Floats,
    jumps: Floats,
    counts: Words,
}

impl<M: Machine> ByKernels<M> {
    /// A machine that begins with these weights.
    pub fn new(machine: M, chain: &Chain, weights: &[f32], autapses: bool) -> Result<Self> {
        let kernels = Kernels::new(machine, chain)?;
        let mut by_kernels = ByKernels {
            kernels,
            autapses,
            spiking: chain.layers.iter().map(|layer| layer.kind.spikes).collect(),
            weights: Default::default(),
            back: Default::default(),
            gradients: Default::default(),
            means: Default::default(),
            squares: Default::default(),
            rows: Rows::default(),
            columns: Columns::default(),
        };
        let ByKernels { kernels, weights: own, gradients, means, squares, .. } = &mut by_kernels;
        for zeros in [own, gradients, means, squares] {
            kernels.machine.resize(zeros, weights.len())?;
            kernels.machine.clear(zeros)?;
        }
        by_kernels.replace([Some(weights), None, None])?;
        Ok(by_kernels)
    }

    /// Replaces weights, means and squares, where they are given.
    fn replace(&mut self, parameters: [Option<&[f32]>; 3]) -> Result<()> {
        let machine = &self.kernels.machine;
        let own = [&mut self.weights, &mut self.means, &mut self.squares];
        for (own, given) in own.into_iter().zip(parameters) {
            let Some(given) = given else { continue };
            machine.write(own, 0..given.len(), |values| values.copy_from_slice(given))?;
        }
        self.store()?;
        self.kernels.machine.wait()
    }

    /// Steps a batch; with `kept`, what gradients need stays in its rows.
    fn forward(&mut self, batch: &Batch<'_>, kept: bool) -> Result<()> {
        let Kernels { machine, packed, layers } = &self.kernels;
        let Rows { plan, state, trace, saved, out, .. } = &mut self.rows;
        let stepped = batch.stepped(packed);
        check_size(stepped.words.max(2 * batch.entries), stepped.rows)?;
        machine.resize(plan, stepped.words)?;
        machine.write(plan, 0..stepped.words, |words| batch.write(packed, words))?;
        machine.resize(state, stepped.slots * packed.row_len)?;
        machine.resize(out, stepped.rows * packed.outputs)?;
        if kept {
            machine.resize(trace, stepped.rows * packed.row_len)?;
            machine.clear(trace)?;
            machine.resize(saved, stepped.rows * packed.saved_len)?;
        }
        let given = [
            M::floats(&self.weights)?,
            M::filled(state)?,
            M::words(layers)?,
            M::words(plan)?,
            M::filled(out)?,
            if kept { M::filled(trace)? } else { Given::Absent },
            if kept { M::filled(saved)? } else { Given::Absent },
        ];
        machine.launch(&packed.rollout(&stepped), given)
    }

    /// From the gradients of outputs to those of the currents' jumps, layer by layer \[rows, width\].
    fn back_through_time(&mut self, batch: &Batch<'_>, gradient: &[f32]) -> Result<()> {
        let Kernels { machine, packed, layers } = &self.kernels;
        let Rows { samples, saved, gradient: there, carried, below, jumps, .. } = &mut self.rows;
        let n = batch.samples.len();
        machine.resize(samples, 2 * n)?;
        machine.write(samples, 0..2 * n, |words| batch.write_samples(words))?;
        machine.resize(there, gradient.len())?;
        machine.write(there, 0..gradient.len(), |values| values.copy_from_slice(gradient))?;
        machine.resize(carried, n * packed.row_len)?;
        machine.clear(carried)?;
        machine.resize(below, n * packed.widest)?;
        machine.resize(jumps, batch.rows() * packed.all_widths)?;
        machine.clear(jumps)?;
        let given = [
            M::floats(&self.back)?,
            M::words(layers)?,
            M::words(samples)?,
            M::floats(saved)?,
            M::floats(there)?,
            M::filled(carried)?,
            M::filled(below)?,
            M::filled(jumps)?,
        ];
        machine.launch(&packed.back_through_time(n, batch.rows()), given)
    }

    fn weight_gradients(&mut self, batch: &Batch<'_>, inputs: usize) -> Result<()> {
        let Kernels { machine, packed, layers } = &self.kernels;
        let Rows { trace, jumps, ends, entries, .. } = &mut self.rows;
        let columns = &mut self.columns;
        columns.transpose(inputs, batch.samples);
        machine.resize(ends, columns.ends.len())?;
        machine.write(ends, 0..columns.ends.len(), |words| words.copy_from_slice(&columns.ends))?;
        machine.resize(entries, 2 * batch.entries)?;
        machine.write(entries, 0..2 * batch.entries, |words| {
            let pairs = columns.rows.iter().zip(&columns.counts);
            for (words, (row, count)) in words.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
                *words = [*row, u32::from(*count)];
            }
        })?;
        for matrix in &packed.matrices {
            let lengths = (batch.rows(), inputs, batch.entries);
            let given = [
                M::words(layers)?,
                M::floats(trace)?,
                M::floats(jumps)?,
                M::words(ends)?,
                M::words(entries)?,
                M::filled(&mut self.gradients)?,
            ];
            let launch = packed.weight_gradients(matrix, self.autapses, lengths);
            machine.launch(&launch, given)?;
        }
        Ok(())
    }

    /// How often each layer that spikes fired.
    fn count_spikes(&mut self, n_rows: usize) -> Result<Vec<u64>> {
        let Kernels { machine, packed, layers } = &self.kernels;
        let Rows { trace, counts, .. } = &mut self.rows;
        machine.resize(counts, self.spiking.len())?;
        machine.clear(counts)?;
        let given = [M::words(layers)?, M::floats(trace)?, M::counted(counts)?];
        machine.launch(&packed.count_spikes(n_rows), given)?;
        let counts = machine.read(counts, self.spiking.len())?;
        let of = |(spikes, count): (&bool, &u32)| spikes.then_some(u64::from(*count));
        Ok(self.spiking.iter().zip(counts).filter_map(of).collect())
    }

    /// Copies the weights anew for the way back, after they changed.
    fn store(&mut self) -> Result<()> {
        let Kernels { machine, packed, layers } = &self.kernels;
        machine.resize(&mut self.back, packed.n_back)?;
        for matrix in packed.matrices.iter().filter(|matrix| matrix.goes_back) {
            let given = [M::floats(&self.weights)?, M::words(layers)?, M::filled(&mut self.back)?];
            machine.launch(&packed.store(matrix), given)?;
        }
        Ok(())
    }
}

impl<M: Machine> Backend for ByKernels<M> {
    fn learn(
        &mut self,
        chain: &Chain,
        batch: &[TrainingSample<'_>],
        loss: &LossOf<'_>,
    ) -> Result<Vec<u64>> {
        let batch = Batch::new(batch);
        if batch.samples.is_empty() {
            self.kernels.machine.clear(&mut self.gradients)?;
            return Ok(self.spiking.iter().filter(|spikes| **spikes).map(|_| 0).collect());
        }
        self.forward(&batch, true)?;
        let n = self.kernels.packed.outputs;
        let outputs = self.kernels.machine.read(&mut self.rows.out, batch.rows() * n)?;
        let mut gradient = vec![0.0; outputs.len()];
        for (k, rows) in batch.ranges().enumerate() {
            let values = rows.start * n..rows.end * n;
            loss(k, &outputs[values.clone()], &mut gradient[values]);
        }
        self.back_through_time(&batch, &gradient)?;
        self.weight_gradients(&batch, chain.layers.first().map_or(0, |layer| layer.inputs))?;
        self.count_spikes(batch.rows())
    }

    fn outputs(
        &mut self,
        _chain: &Chain,
        batch: &[TrainingSample<'_>],
        each: &OutputsOf<'_>,
    ) -> Result<()> {
        let batch = Batch::new(batch);
        if batch.samples.is_empty() {
            return Ok(());
        }
        self.forward(&batch, false)?;
        let n = self.kernels.packed.outputs;
        let outputs = self.kernels.machine.read(&mut self.rows.out, batch.rows() * n)?;
        let ranges = batch.ranges().enumerate();
        ranges.for_each(|(k, rows)| each(k, &outputs[rows.start * n..rows.end * n]));
        Ok(())
    }

    fn step(&mut self, _chain: &Chain, step: AdamStep) -> Result<()> {
        let Kernels { machine, packed, .. } = &self.kernels;
        let given = [
            M::filled(&mut self.weights)?,
            M::floats(&self.gradients)?,
            M::filled(&mut self.means)?,
            M::filled(&mut self.squares)?,
        ];
        machine.launch(&packed.adam(step), given)?;
        self.store()
    }

    fn gradients(&self) -> Result<Vec<f32>> {
        self.kernels.machine.copy(&self.gradients)
    }

    fn gradient_norm(&self) -> Result<f64> {
        Ok(norm(&self.gradients()?))
    }

    fn are_finite(&self) -> Result<bool> {
        Ok(are_finite(&self.kernels.machine.copy(&self.weights)?))
    }

    fn parameters(&self) -> Result<[Vec<f32>; 3]> {
        let copy = |array| self.kernels.machine.copy(array);
        Ok([copy(&self.weights)?, copy(&self.means)?, copy(&self.squares)?])
    }

    fn set_parameters(&mut self, _chain: &Chain, parameters: [&[f32]; 3]) -> Result<()> {
        self.replace(parameters.map(Some))
    }
}
