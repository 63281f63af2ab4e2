//! A batch's gradients and a step of Adam by the GPU's kernels, compiled for the CPU: how those are
//! tested without a GPU.
//!
//! Knows rows and kernels; neither losses nor equations.

use super::adam::{AdamPart, AdamStep};
use super::bptt::{Back, Columns, TrainingSample};
use super::host::HostKernel;
use super::launch::{Array, OnHost, run_on_host};
use super::{Chain, Layer};

/// What a batch is learned with.
pub(crate) struct HostBatch<'a> {
    pub chain: &'a Chain,
    pub weights: &'a [f32],
    pub back: &'a Back,
    pub samples: &'a [TrainingSample<'a>],
    pub autapses: bool,
}

/// What the kernels leave in memory: a row for each window of each sample, and one of zeros after
/// each sample.
struct Rows {
    n: usize,
    /// First row and number of windows of each sample.
    samples: Vec<u32>,
    trace: Vec<f32>,
    saved: Vec<f32>,
    /// \[rows, outputs\]
    out: Vec<f32>,
}

impl HostKernel {
    /// The gradients of a batch, as `Tape` has them; what the loss returned, and the spikes of each
    /// layer that spikes.
    pub fn learn<R>(
        &self,
        batch: &HostBatch<'_>,
        loss: impl Fn(usize, &[f32], &mut [f32]) -> R,
        gradients: &mut [f32],
    ) -> Result<(Vec<R>, Vec<u64>), String> {
        let (chain, outputs) = (batch.chain, batch.chain.outputs());
        let rows = self.forward(batch)?;
        let mut gradient = vec![0.0; rows.out.len()];
        let results = rows.samples.as_chunks::<2>().0.iter().enumerate();
        let results = results.map(|(k, [first, windows])| {
            let at = *first as usize * outputs..(first + windows) as usize * outputs;
            loss(k, &rows.out[at.clone()], &mut gradient[at])
        });
        let results = results.collect();
        let jumps = self.back_through_time(batch, &rows, &gradient)?;
        self.weight_gradients(batch, &rows, &jumps, gradients)?;
        let spiking = chain.layers.iter().filter(|layer| layer.kind.spikes);
        let fired = |layer: &Layer| {
            let at = layer.variable(layer.kind.output);
            let rows = rows.trace.chunks_exact(chain.row_len);
            rows.map(|row| row[at.clone()].iter().filter(|z| **z != 0.0).count() as u64).sum()
        };
        Ok((results, spiking.map(fired).collect()))
    }

    /// A step of Adam on all weights.
    pub fn adam(&self, step: AdamStep, part: AdamPart<'_>) -> Result<(), String> {
        let AdamPart { weights, gradients, means, squares } = part;
        let (n, numbers) = (weights.len(), step.numbers());
        let mut arrays = [
            Array::Write(weights, n),
            Array::Read(gradients, n),
            Array::Write(means, n),
            Array::Write(squares, n),
            Array::Read(&numbers, numbers.len()),
        ];
        let shape = [self.choice.blocks as u32, 64, 0];
        run_on_host(OnHost::Adam, shape, self.choice.reversed, &mut arrays, &[n as u32])
    }

    /// Every sample, a slot of its own, from a zero state.
    fn forward(&self, batch: &HostBatch<'_>) -> Result<Rows, String> {
        let HostBatch { chain, weights, samples, .. } = batch;
        let (launch, words, rows) = self.packed.batch(samples, self.choice.blocks);
        let n = rows.last().map_or(0, |[first, windows]| (first + windows) as usize + 1);
        let mut rows = Rows {
            n,
            samples: rows.concat(),
            trace: vec![0.0; n * chain.row_len],
            saved: vec![0.0; n * chain.saved_len],
            out: vec![0.0; n * chain.outputs()],
        };
        let mut state = vec![0.0; samples.len() * chain.row_len];
        let [n_state, n_out, n_trace, n_saved] =
            [state.len(), rows.out.len(), rows.trace.len(), rows.saved.len()];
        let mut arrays = [
            Array::Read(weights, chain.weights.elem_count()),
            Array::Write(&mut state, n_state),
            Array::Words(&self.packed.layers, self.packed.layers.len()),
            Array::Words(&words, words.len()),
            Array::Write(&mut rows.out, n_out),
            Array::Write(&mut rows.trace, n_trace),
            Array::Write(&mut rows.saved, n_saved),
        ];
        let shape = [launch.grid, self.packed.threads, launch.shared_bytes];
        let reversed = self.choice.reversed;
        run_on_host(OnHost::Rollout, shape, reversed, &mut arrays, &launch.numbers)?;
        Ok(rows)
    }

    /// The gradients of the currents' jumps, layer by layer \[rows, width\].
    fn back_through_time(
        &self,
        batch: &HostBatch<'_>,
        rows: &Rows,
        gradient: &[f32],
    ) -> Result<Vec<f32>, String> {
        let HostBatch { chain, back, samples, .. } = batch;
        let widths = chain.layers.iter().map(|layer| layer.width);
        let (all, widest) = (widths.clone().sum::<usize>(), widths.max().unwrap_or(0));
        let back = back.flat();
        let mut carried = vec![0.0; samples.len() * chain.row_len];
        let mut below = vec![0.0; samples.len() * widest];
        let mut jumps = vec![0.0; rows.n * all];
        let [n_carried, n_below, n_jumps] = [carried.len(), below.len(), jumps.len()];
        let mut arrays = [
            Array::Read(&back, self.packed.n_back),
            Array::Words(&self.packed.layers, self.packed.layers.len()),
            Array::Words(&rows.samples, 2 * samples.len()),
            Array::Read(&rows.saved, rows.n * chain.saved_len),
            Array::Read(gradient, rows.n * chain.outputs()),
            Array::Write(&mut carried, n_carried),
            Array::Write(&mut below, n_below),
            Array::Write(&mut jumps, n_jumps),
        ];
        let numbers =
            [chain.layers.len(), chain.row_len, chain.saved_len, widest, rows.n].map(|n| n as u32);
        let shape = [samples.len() as u32, self.packed.threads, 0];
        run_on_host(OnHost::BackThroughTime, shape, self.choice.reversed, &mut arrays, &numbers)?;
        Ok(jumps)
    }

    fn weight_gradients(
        &self,
        batch: &HostBatch<'_>,
        rows: &Rows,
        jumps: &[f32],
        gradients: &mut [f32],
    ) -> Result<(), String> {
        let HostBatch { chain, samples, autapses, .. } = batch;
        let inputs = chain.layers.first().map_or(0, |layer| layer.inputs);
        let mut columns = Columns::default();
        columns.transpose(inputs, samples);
        let pairs = columns.rows.iter().zip(&columns.counts);
        let entries: Vec<u32> = pairs.flat_map(|(row, count)| [*row, u32::from(*count)]).collect();
        for (k, layer) in chain.layers.iter().enumerate() {
            let sides = [
                (0, Some(layer.inputs)),
                (1, layer.recurrent_weights.as_ref().map(|_| layer.neurons)),
            ];
            for (recurrent, inputs) in sides {
                let Some(inputs) = inputs else { continue };
                let n_gradients = chain.weights.elem_count();
                let mut arrays = [
                    Array::Words(&self.packed.layers, self.packed.layers.len()),
                    Array::Read(&rows.trace, rows.n * chain.row_len),
                    Array::Read(
                        jumps,
                        rows.n * chain.layers.iter().map(|l| l.width).sum::<usize>(),
                    ),
                    Array::Words(&columns.ends, columns.ends.len()),
                    Array::Words(&entries, entries.len()),
                    Array::Write(gradients, n_gradients),
                ];
                let numbers =
                    [k, recurrent, usize::from(*autapses), chain.row_len, rows.n].map(|n| n as u32);
                let shape = [inputs as u32, layer.width.min(1024) as u32, 0];
                let reversed = self.choice.reversed;
                run_on_host(OnHost::WeightGradients, shape, reversed, &mut arrays, &numbers)?;
            }
        }
        Ok(())
    }
}
