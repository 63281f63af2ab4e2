//! Back-propagation through time: the chain's steps recorded, and their gradients by hand.
//!
//! A batch has a row for each window of each sample, and a row of zeros after each sample. One
//! kernel serves three times: forward, the sums of a window's active inputs are gathered rows of
//! weights; backward, the gradient of a layer's output is a gather over the weights as stored; the
//! gradient of a weight row is a gather of the jumps' gradients over the windows in which its
//! input was active. No sum depends on how samples and rows are shared out among threads.
//!
//! Knows layers, kernels and frames; neither losses nor optimisers.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::backend::{LossOf, OutputsOf};
use super::gather::{Active, Gather};
use super::memory::{Floats, Scratch, padded};
use super::{Chain, Layer};
use crate::frame::Frames;

/// One sample of a batch: its frames, and how many windows are stepped; those beyond the frames
/// are empty.
#[derive(Clone, Copy, Debug)]
pub struct TrainingSample<'a> {
    /// Frames of a recording.
    pub frames: &'a Frames,
    /// Windows to step, at least as many as the frames.
    pub windows: usize,
}

/// What a batch's forward pass leaves for its gradients.
#[derive(Default)]
pub(crate) struct Tape {
    n_rows: usize,
    /// \[rows, saved_len\]
    saved: Floats,
    layers: Vec<LayerTape>,
    columns: Columns,
}

#[derive(Default)]
struct LayerTape {
    /// Spikes as bits, \[rows, words\], of a layer that spikes.
    fired: Vec<u64>,
    words: usize,
    /// Outputs \[rows, width\] of one that does not.
    values: Floats,
    /// Gradients of the currents' jumps, \[rows, width\].
    jumps: Floats,
}

/// Where each sample's rows begin, and what they hold.
struct SampleTape<'a> {
    saved: &'a mut [f32],
    layers: Vec<SampleLayer<'a>>,
}

struct SampleLayer<'a> {
    fired: &'a mut [u64],
    values: &'a mut [f32],
    jumps: &'a mut [f32],
}

/// The batch's frames by address: the rows in which each was active, ascending, and its counts.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) ends: Vec<u32>,
    pub(super) rows: Vec<u32>,
    pub(super) counts: Vec<u16>,
}

/// Working memory of one thread.
pub(crate) struct Worker {
    row: Floats,
    scratch: Scratch,
    carried: Floats,
    below: Floats,
    recurrent: Floats,
    outputs: Vec<f32>,
    gradient: Vec<f32>,
    column: Vec<u32>,
    dense: Vec<f32>,
}

/// Weights as the backward pass wants them, \[neurons, padded inputs\].
#[derive(Default)]
pub(crate) struct Back {
    layers: Vec<BackLayer>,
}

#[derive(Default)]
struct BackLayer {
    /// Empty for the first layer, whose inputs need no gradient.
    input: Floats,
    recurrent: Floats,
}

impl Worker {
    pub fn new(chain: &Chain) -> Self {
        let widths = chain.layers.iter().map(|layer| layer.width);
        let widest = widths.clone().max().unwrap_or(0);
        Worker {
            row: Floats::zeros(chain.row_len),
            scratch: Scratch::new(widths),
            carried: Floats::zeros(chain.row_len),
            below: Floats::zeros(widest),
            recurrent: Floats::zeros(widest),
            outputs: Vec::new(),
            gradient: Vec::new(),
            column: Vec::new(),
            dense: Vec::new(),
        }
    }
}

impl Back {
    /// Copies the weights anew, after they changed.
    pub fn refresh(&mut self, chain: &Chain, weights: &[f32]) {
        self.layers.resize_with(chain.layers.len(), BackLayer::default);
        for (k, (layer, back)) in chain.layers.iter().zip(&mut self.layers).enumerate() {
            if k > 0 {
                stored(&weights[layer.input_weights.clone()], layer, &mut back.input);
            }
            if let Some(at) = &layer.recurrent_weights {
                stored(&weights[at.clone()], layer, &mut back.recurrent);
            }
        }
    }
}

/// Padded \[inputs, width\] to \[neurons, padded inputs\].
fn stored(rows: &[f32], layer: &Layer, out: &mut Floats) {
    let pitch = padded(rows.len() / layer.width);
    out.resize(layer.neurons * pitch);
    for (input, row) in rows.chunks_exact(layer.width).enumerate() {
        for (neuron, weight) in row[..layer.neurons].iter().enumerate() {
            out[neuron * pitch + input] = *weight;
        }
    }
}

impl Tape {
    /// Steps every sample from a zero state, asks `loss` for the gradient of its outputs, and
    /// goes back through time: afterwards [`Tape::weight_gradients`] can be formed.
    pub fn learn(
        &mut self,
        chain: &Chain,
        (weights, back): (&[f32], &Back),
        batch: &[TrainingSample<'_>],
        workers: &mut [Worker],
        loss: &LossOf<'_>,
    ) {
        self.reserve(chain, batch);
        let samples = self.split(chain, batch).into_iter().zip(batch).enumerate();
        in_parallel(workers, samples, |worker, (k, (tape, sample))| {
            let loss = |outputs: &[f32], gradient: &mut [f32]| loss(k, outputs, gradient);
            chain.learn_sample(weights, back, sample, tape, worker, loss);
        });
        self.columns.transpose(chain.layers.first().map_or(0, |layer| layer.inputs), batch);
    }

    /// The gradients of all weights of the last batch, laid out as the chain's weights. Without
    /// `autapses` those of the recurrent diagonals are 0.
    pub fn weight_gradients(
        &self,
        chain: &Chain,
        workers: &mut [Worker],
        autapses: bool,
        gradients: &mut [f32],
    ) {
        let mut blocks = Vec::new();
        let mut rest = gradients;
        for (k, layer) in chain.layers.iter().enumerate() {
            let input = &layer.input_weights;
            rest = share_out(rest, k, input, layer, false, &mut blocks);
            if let Some(recurrent) = &layer.recurrent_weights {
                rest = share_out(rest, k, recurrent, layer, true, &mut blocks);
            }
        }
        in_parallel(workers, blocks.into_iter(), |worker, block| {
            let Block { layer: k, recurrent, first, gradients } = block;
            let layer = &chain.layers[k];
            for (row, gradient) in gradients.chunks_exact_mut(layer.width).enumerate() {
                let input = first + row;
                self.weight_row(chain, k, recurrent, input, worker, gradient);
                if recurrent && !autapses {
                    gradient[input] = 0.0;
                }
            }
        });
    }

    /// The number of spikes of each layer that spikes, in the last batch.
    pub fn spikes(&self) -> Vec<u64> {
        let count = |layer: &LayerTape| layer.fired.iter().map(|w| u64::from(w.count_ones())).sum();
        self.layers.iter().filter(|layer| layer.words > 0).map(count).collect()
    }

    /// The gradient of the weights from one input of a layer.
    fn weight_row(
        &self,
        chain: &Chain,
        k: usize,
        recurrent: bool,
        input: usize,
        worker: &mut Worker,
        sums: &mut [f32],
    ) {
        let jumps: &[f32] = &self.layers[k].jumps;
        let rows = if recurrent { jumps.get(sums.len()..).unwrap_or_default() } else { jumps };
        let source = if recurrent { Some(k) } else { k.checked_sub(1) };
        let active = match source {
            None => self.columns.of(input),
            Some(k) => self.column(k, chain.layers[k].width, input, worker),
        };
        chain.level.run(Gather { rows, active, sums });
    }

    /// The rows in which a neuron of layer `k` put something out; the last row, which is zero,
    /// never among them.
    fn column<'a>(&self, k: usize, width: usize, n: usize, worker: &'a mut Worker) -> Active<'a> {
        let LayerTape { fired, words, values, .. } = &self.layers[k];
        if *words > 0 {
            let (word, bit) = (n / 64, n % 64);
            worker.column.resize(self.n_rows + 1, 0);
            let mut len = 0;
            for (row, fired) in fired.chunks_exact(*words).enumerate() {
                worker.column[len] = row as u32;
                len += (fired[word] >> bit & 1) as usize;
            }
            Active::Spikes(&worker.column[..len])
        } else {
            worker.dense.clear();
            worker.dense.extend(values.chunks_exact(width).map(|row| row[n]));
            worker.dense.truncate(self.n_rows - 1);
            Active::Dense(&worker.dense)
        }
    }

    /// Room for a batch, all zero.
    fn reserve(&mut self, chain: &Chain, batch: &[TrainingSample<'_>]) {
        self.n_rows = batch.iter().map(|sample| sample.windows + 1).sum();
        self.saved.resize(self.n_rows * chain.saved_len);
        self.layers.resize_with(chain.layers.len(), LayerTape::default);
        for (layer, tape) in chain.layers.iter().zip(&mut self.layers) {
            tape.words = if layer.kind.spikes { layer.neurons.div_ceil(64) } else { 0 };
            tape.fired.clear();
            tape.fired.resize(self.n_rows * tape.words, 0);
            tape.values.resize(if layer.kind.spikes { 0 } else { self.n_rows * layer.width });
            tape.jumps.resize(self.n_rows * layer.width);
        }
    }

    /// Each sample's part.
    fn split(&mut self, chain: &Chain, batch: &[TrainingSample<'_>]) -> Vec<SampleTape<'_>> {
        let mut saved: &mut [f32] = &mut self.saved;
        let mut layers: Vec<_> = self.layers.iter_mut().map(LayerTape::whole).collect();
        let parts = batch.iter().map(|sample| {
            let rows = sample.windows + 1;
            let layers = layers.iter_mut().zip(&chain.layers).map(|(rest, layer)| {
                let (words, values) = match layer.kind.spikes {
                    true => (layer.neurons.div_ceil(64), 0),
                    false => (0, layer.width),
                };
                SampleLayer {
                    fired: take(&mut rest.fired, rows * words),
                    values: take(&mut rest.values, rows * values),
                    jumps: take(&mut rest.jumps, rows * layer.width),
                }
            });
            let layers = layers.collect();
            SampleTape { saved: take(&mut saved, rows * chain.saved_len), layers }
        });
        parts.collect()
    }
}

impl LayerTape {
    fn whole(&mut self) -> SampleLayer<'_> {
        SampleLayer { fired: &mut self.fired, values: &mut self.values, jumps: &mut self.jumps }
    }
}

/// The first `n` values of `rest`, which is left with the others.
fn take<'a, T>(rest: &mut &'a mut [T], n: usize) -> &'a mut [T] {
    let (taken, left) = std::mem::take(rest).split_at_mut(n);
    *rest = left;
    taken
}

/// Some rows of a matrix of gradients.
struct Block<'a> {
    layer: usize,
    recurrent: bool,
    first: usize,
    gradients: &'a mut [f32],
}

/// Rows of a matrix that a thread takes at a time.
const BLOCK_ROWS: usize = 32;

/// Takes a matrix off the gradients, in blocks of rows.
fn share_out<'a>(
    rest: &'a mut [f32],
    k: usize,
    at: &Range<usize>,
    layer: &Layer,
    recurrent: bool,
    blocks: &mut Vec<Block<'a>>,
) -> &'a mut [f32] {
    let (matrix, rest) = rest.split_at_mut(at.len());
    let parts = matrix.chunks_mut(BLOCK_ROWS * layer.width).enumerate();
    blocks.extend(parts.map(|(n, gradients)| {
        let first = n * BLOCK_ROWS;
        Block { layer: k, recurrent, first, gradients }
    }));
    rest
}

impl Columns {
    fn of(&self, address: usize) -> Active<'_> {
        let at = self.ends[address] as usize..self.ends[address + 1] as usize;
        Active::Counts(&self.rows[at.clone()], &self.counts[at])
    }

    /// Sorts the batch's entries by address, in each by row.
    pub(super) fn transpose(&mut self, inputs: usize, batch: &[TrainingSample<'_>]) {
        self.ends.clear();
        self.ends.resize(inputs + 2, 0);
        let n_entries = batch.iter().map(|sample| sample.frames.entries()).sum();
        self.rows.resize(n_entries, 0);
        self.counts.resize(n_entries, 0);
        // counted two places ahead, then summed: while entries are put down, each address's place
        // moves from its beginning to its end
        for sample in batch {
            for address in sample.frames.addresses() {
                self.ends[*address as usize + 2] += 1;
            }
        }
        let mut sum = 0;
        for end in &mut self.ends {
            sum += *end;
            *end = sum;
        }
        let mut first = 0;
        for sample in batch {
            for k in 0..sample.frames.len() {
                let (addresses, counts) = sample.frames.active(k);
                for (address, count) in addresses.iter().zip(counts) {
                    let place = &mut self.ends[*address as usize + 1];
                    self.rows[*place as usize] = (first + k) as u32;
                    self.counts[*place as usize] = *count;
                    *place += 1;
                }
            }
            first += sample.windows + 1;
        }
    }
}

impl Chain {
    fn learn_sample(
        &self,
        weights: &[f32],
        back: &Back,
        sample: &TrainingSample<'_>,
        mut tape: SampleTape<'_>,
        worker: &mut Worker,
        loss: impl FnOnce(&[f32], &mut [f32]),
    ) {
        self.run_sample(weights, sample, Some(&mut tape), worker);
        let Worker { outputs, gradient, .. } = worker;
        gradient.clear();
        gradient.resize(outputs.len(), 0.0);
        loss(outputs, gradient);
        self.back_through_time(back, sample.windows, &mut tape, worker);
    }

    /// Steps a sample from a zero state; leaves its outputs with the worker, and on the tape what
    /// gradients need.
    fn run_sample(
        &self,
        weights: &[f32],
        sample: &TrainingSample<'_>,
        mut tape: Option<&mut SampleTape<'_>>,
        worker: &mut Worker,
    ) {
        let Worker { row, scratch, outputs, .. } = worker;
        row.fill(0.0);
        scratch.clear_lists(0);
        outputs.clear();
        for t in 0..sample.windows {
            let (addresses, counts) =
                if t < sample.frames.len() { sample.frames.active(t) } else { (&[][..], &[][..]) };
            let frame = Active::Counts(addresses, counts);
            let at = t * self.saved_len..(t + 1) * self.saved_len;
            let saved = tape.as_mut().map(|tape| &mut tape.saved[at]);
            self.step(weights, row, frame, scratch, saved);
            for (k, tape) in tape.iter_mut().flat_map(|tape| tape.layers.iter_mut().enumerate()) {
                tape.record(t, &self.layers[k], row, scratch.lists[k].spikes());
            }
            if let Some(output) = self.layers.last() {
                outputs.extend_from_slice(&row[output.variable(output.kind.output)]);
            }
        }
    }

    fn back_through_time(
        &self,
        back: &Back,
        windows: usize,
        tape: &mut SampleTape<'_>,
        worker: &mut Worker,
    ) {
        let Worker { carried, below, recurrent, gradient, .. } = worker;
        carried.fill(0.0);
        let top = self.layers.len() - 1;
        for t in (0..windows).rev() {
            let saved = &tape.saved[t * self.saved_len..][..self.saved_len];
            for (k, layer) in self.layers.iter().enumerate().rev() {
                let above = match k == top {
                    true => &gradient[t * layer.neurons..][..layer.neurons],
                    false => &below[..layer.neurons],
                };
                let output = layer.variable(layer.kind.output);
                add(&mut carried[output.clone()], above);
                let jump = &mut tape.layers[k].jumps[t * layer.width..][..layer.width];
                let state = &mut carried[layer.state.clone()];
                layer.cell.backward(self.level, &saved[layer.saved.clone()], state, jump);
                let jump = Active::Dense(&jump[..layer.neurons]);
                let BackLayer { input, recurrent: from } = &back.layers[k];
                if k > 0 {
                    let sums = &mut below[..padded(layer.inputs)];
                    self.level.run(Gather { rows: input, active: jump, sums });
                }
                if layer.recurrent_weights.is_some() && t > 0 {
                    let sums = &mut recurrent[..layer.width];
                    self.level.run(Gather { rows: from, active: jump, sums });
                    add(&mut carried[output], sums);
                }
            }
        }
    }
}

impl SampleLayer<'_> {
    /// Keeps a layer's output in window `t`.
    fn record(&mut self, t: usize, layer: &Layer, row: &[f32], spikes: &[u32]) {
        if layer.kind.spikes {
            let words = layer.neurons.div_ceil(64);
            let fired = &mut self.fired[t * words..][..words];
            spikes.iter().for_each(|n| fired[*n as usize / 64] |= 1 << (n % 64));
        } else {
            let values = &mut self.values[t * layer.width..][..layer.neurons];
            values.copy_from_slice(&row[layer.variable(layer.kind.output)]);
        }
    }
}

/// Steps every sample from a zero state and hands its outputs \[windows, outputs\] to `each`.
pub(crate) fn run_all(
    chain: &Chain,
    weights: &[f32],
    batch: &[TrainingSample<'_>],
    workers: &mut [Worker],
    each: &OutputsOf<'_>,
) {
    in_parallel(workers, batch.iter().enumerate(), |worker, (k, sample)| {
        chain.run_sample(weights, sample, None, worker);
        each(k, &worker.outputs);
    });
}

fn add(to: &mut [f32], values: &[f32]) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += value);
}

/// Runs all items, each by the first worker that is free, one thread a worker.
pub(crate) fn in_parallel<W: Send, T: Send>(
    workers: &mut [W],
    items: impl Iterator<Item = T> + Send,
    run: impl Fn(&mut W, T) + Sync,
) {
    let queue = Mutex::new(items);
    let drain = |worker: &mut W| {
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        while let Some(item) = next() {
            run(worker, item);
        }
    };
    let drain = &drain;
    let [first, others @ ..] = workers else { return };
    std::thread::scope(|scope| {
        for worker in others {
            scope.spawn(move || drain(worker));
        }
        drain(first);
    });
}
