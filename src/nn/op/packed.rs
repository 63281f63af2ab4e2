//! A chain and a plan as `rollout.cu` reads them: 32-bit words; and how each kernel is launched.
//!
//! Knows layers and frames; neither devices nor equations. The order of the words is the kernel's.

use super::adam::AdamStep;
use super::machine::{Kernel, Launch};
use super::memory::padded;
use super::{Chain, Layer};
use crate::nn::cell::CELLS;

/// Stands for a matrix that there is none of, or that is not kept.
const NONE: u32 = u32::MAX;
/// In a step's first word: the state is set to zero before it.
pub(super) const RESET: u32 = 1 << 31;
/// Inputs up to which an address and its count share a word.
const NARROW_INPUTS: usize = 1 << 16;
/// Most threads of a block.
const MAX_THREADS: usize = 1024;
/// Threads of a block of Adam's.
const ADAM_THREADS: usize = 256;
/// Words of a layer.
const LAYER_WORDS: usize = 23;
/// Active inputs of a window that a stream is expected to bring; where it brings more, they are asked
/// room for then.
#[cfg(any(feature = "cuda", test))]
const EXPECTED_ACTIVE: usize = 256;
/// Windows a block must step for the weights that it keeps to be worth their copying.
pub(super) const WINDOWS_TO_KEEP_FOR: usize = 4;

/// The layers, and how a launch is laid out.
pub(crate) struct PackedChain {
    /// \[layers, 23\], a [`Layer`] as layer.cuh has it
    pub layers: Vec<u32>,
    /// Threads of a block.
    pub threads: usize,
    /// Length of a window's row of state.
    pub row_len: usize,
    /// Length of a window's row of values kept for the gradient.
    pub saved_len: usize,
    /// Values of an output.
    pub outputs: usize,
    /// Floats of the weights, as packed.
    pub n_weights: usize,
    /// Floats of the weights as stored, for the way back.
    pub n_back: usize,
    /// All layers' neurons, padded.
    pub all_widths: usize,
    /// The widest layer's.
    pub widest: usize,
    /// The matrices.
    pub matrices: Vec<Matrix>,
    n_layers: usize,
    n_words: usize,
    n_sums: usize,
    /// Words of shared memory that are no kept weights, up to whole 16 bytes.
    working: usize,
    kept_floats: usize,
    wide: bool,
    /// Blocks that run at once, where they keep weights.
    pub blocks: usize,
    /// Blocks that run at once, where they keep none.
    pub blocks_that_keep_none: usize,
}

/// A matrix of weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    layer: usize,
    recurrent: bool,
    inputs: usize,
    width: usize,
    /// Whether gradients go back through it.
    pub goes_back: bool,
}

/// What a rollout steps: planned windows, or a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stepped {
    pub runs: usize,
    pub steps: usize,
    /// Words of its plan.
    pub words: usize,
    /// Slots of the state, up to the last that is stepped.
    pub slots: usize,
    /// Rows of what is put out.
    pub rows: usize,
}

impl PackedChain {
    /// Packs the layers for a device whose blocks have `shared_bytes` of shared memory: weight
    /// matrices are kept there as far as they fit, recurrent ones first.
    ///
    /// # Errors
    /// How much more shared memory the chain needs than there is.
    pub fn new(chain: &Chain, shared_bytes: usize) -> Result<Self, String> {
        let layers = &chain.layers;
        let spiking = layers.iter().filter(|layer| layer.kind.spikes);
        let n_words: usize = spiking.map(|layer| layer.neurons.div_ceil(32)).sum();
        let summing = layers.iter().filter(|l| !l.kind.spikes && l.recurrent_weights.is_some());
        let n_sums = summing.map(|layer| layer.neurons).max().unwrap_or(0);
        let most_neurons = layers.iter().map(|layer| layer.neurons).max().unwrap_or(1);
        let threads = most_neurons.next_multiple_of(32).min(MAX_THREADS);
        // spikes as two sets of bits and as a list of halves; a count a layer; an entry a thread
        let working = LAYER_WORDS * layers.len() + n_sums + 18 * n_words + layers.len() + threads;
        let working = working.next_multiple_of(4);
        let Some(mut room) = (shared_bytes / 4).checked_sub(working) else {
            return Err(format!(
                "its {n_words} words of spikes and {n_sums} sums need {} KiB of a block's memory, \
                 which has {}",
                working.div_ceil(256),
                shared_bytes / 1024
            ));
        };
        let mut kept_floats = 0;
        let mut keep = |matrix: Option<usize>| match matrix {
            Some(floats) if floats <= room => {
                room -= floats;
                kept_floats += floats;
                (kept_floats - floats) as u32
            }
            _ => NONE,
        };
        let recurrent =
            layers.iter().map(|layer| layer.recurrent_weights.as_ref().map(|r| r.len()));
        let kept_recurrent: Vec<_> = recurrent.map(&mut keep).collect();
        // The first layer's inputs touch few of its many rows.
        let input = |(k, layer): (usize, &Layer)| (k > 0).then(|| layer.input_weights.len());
        let kept_input: Vec<_> = layers.iter().enumerate().map(input).map(&mut keep).collect();
        let mut places = Places::default();
        let packed = layers.iter().zip(kept_input.iter().zip(&kept_recurrent));
        let packed = packed.enumerate().flat_map(|(k, (layer, (kept_input, kept_recurrent)))| {
            words_of(layer, [*kept_input, *kept_recurrent], places.take(layer, k > 0))
        });
        let packed = packed.collect();
        let widths = layers.iter().map(|layer| layer.width);
        let matrices = layers.iter().enumerate().flat_map(|(k, layer)| {
            let Layer { inputs, neurons, width, .. } = *layer;
            let of = |recurrent, inputs, goes_back| Matrix {
                layer: k,
                recurrent,
                inputs,
                width,
                goes_back,
            };
            let recurrent = layer.recurrent_weights.as_ref().map(|_| of(true, neurons, true));
            [Some(of(false, inputs, k > 0)), recurrent].into_iter().flatten()
        });
        Ok(PackedChain {
            layers: packed,
            threads,
            row_len: chain.row_len,
            saved_len: chain.saved_len,
            outputs: chain.outputs(),
            n_weights: layers.iter().map(end_of_weights).max().unwrap_or(0),
            n_back: places.back,
            all_widths: widths.clone().sum(),
            widest: widths.max().unwrap_or(0),
            matrices: matrices.collect(),
            n_layers: layers.len(),
            n_words,
            n_sums,
            working,
            kept_floats,
            wide: layers.first().is_some_and(|layer| layer.inputs > NARROW_INPUTS),
            blocks: 1,
            blocks_that_keep_none: 1,
        })
    }

    /// Bytes of shared memory that a block of the rollout asks for.
    pub fn shared_bytes(&self, keeps: bool) -> usize {
        4 * (self.working + if keeps { self.kept_floats } else { 0 })
    }

    /// The rollout. Arrays: weights, state, layers, plan, outputs, trace, what gradients need.
    pub fn rollout(&self, stepped: &Stepped) -> Launch {
        let Stepped { runs, steps, words, slots, rows } = *stepped;
        let keeps = steps >= runs.min(self.blocks).max(1) * WINDOWS_TO_KEEP_FOR;
        let blocks = if keeps { self.blocks } else { self.blocks_that_keep_none };
        let numbers = [
            self.n_layers,
            self.row_len,
            self.saved_len,
            self.n_words,
            self.n_sums,
            runs,
            steps,
            usize::from(self.wide),
            usize::from(keeps),
        ];
        let reached = vec![
            self.n_weights,
            slots * self.row_len,
            self.layers.len(),
            words,
            rows * self.outputs,
            rows * self.row_len,
            rows * self.saved_len,
        ];
        let numbers = numbers.map(|n| n as u32).to_vec();
        Launch {
            kernel: Kernel::Rollout,
            grid: runs.min(blocks).max(1),
            threads: self.threads,
            shared_bytes: self.shared_bytes(keeps),
            reached,
            numbers,
        }
    }

    /// The way back. Arrays: weights as stored, layers, samples, what the rollout kept, gradients of
    /// outputs, two of working memory, jumps.
    pub fn back_through_time(&self, samples: usize, rows: usize) -> Launch {
        let numbers = [self.n_layers, self.row_len, self.saved_len, self.widest, rows];
        let reached = vec![
            self.n_back,
            self.layers.len(),
            2 * samples,
            rows * self.saved_len,
            rows * self.outputs,
            samples * self.row_len,
            samples * self.widest,
            rows * self.all_widths,
        ];
        plain(Kernel::BackThroughTime, [samples, self.threads], reached, &numbers)
    }

    /// A matrix's gradients. Arrays: layers, trace, jumps, where each address's entries end, entries,
    /// gradients.
    pub fn weight_gradients(
        &self,
        matrix: &Matrix,
        autapses: bool,
        (rows, addresses, entries): (usize, usize, usize),
    ) -> Launch {
        let Matrix { layer, recurrent, inputs, width, .. } = *matrix;
        let numbers = [layer, usize::from(recurrent), usize::from(autapses), self.row_len, rows];
        let reached = vec![
            self.layers.len(),
            rows * self.row_len,
            rows * self.all_widths,
            addresses + 1,
            2 * entries,
            self.n_weights,
        ];
        plain(Kernel::WeightGradients, [inputs, width.min(MAX_THREADS)], reached, &numbers)
    }

    /// How often each layer fired. Arrays: layers, trace, counts.
    pub fn count_spikes(&self, rows: usize) -> Launch {
        let reached = vec![self.layers.len(), rows * self.row_len, self.n_layers];
        let shape = [rows.min(self.blocks).max(1), self.threads];
        plain(Kernel::CountSpikes, shape, reached, &[self.n_layers, self.row_len, rows])
    }

    /// A step of Adam. Arrays: weights, gradients, means, squares.
    pub fn adam(&self, step: AdamStep) -> Launch {
        let n = self.n_weights;
        let grid = n.div_ceil(ADAM_THREADS).min(self.blocks).max(1);
        let mut launch = plain(Kernel::Adam, [grid, ADAM_THREADS], vec![n; 4], &[n]);
        launch.numbers.extend(step.numbers().map(f32::to_bits));
        launch
    }

    /// A matrix as it is stored. Arrays: weights, layers, weights as stored.
    pub fn store(&self, matrix: &Matrix) -> Launch {
        let Matrix { layer, recurrent, inputs, width, .. } = *matrix;
        let reached = vec![self.n_weights, self.layers.len(), self.n_back];
        let shape = [inputs, width.min(MAX_THREADS)];
        plain(Kernel::StoreWeights, shape, reached, &[layer, usize::from(recurrent)])
    }

    /// Words of an address and its count.
    pub fn entry_words(&self) -> usize {
        if self.wide { 2 } else { 1 }
    }

    /// Writes a window's active inputs; takes their words off `rest`.
    pub fn write_entries(&self, addresses: &[u32], counts: &[u16], rest: &mut &mut [u32]) {
        let n = addresses.len() * self.entry_words();
        let (own, after) = std::mem::take(rest).split_at_mut(n);
        *rest = after;
        let pairs = addresses.iter().zip(counts);
        if self.wide {
            for (words, (address, count)) in own.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
                *words = [*address, u32::from(*count)];
            }
        } else {
            for (word, (address, count)) in own.iter_mut().zip(pairs) {
                *word = *address | u32::from(*count) << 16;
            }
        }
    }
}

/// Bytes of a device that a stream's window takes beside its state: its part of a plan and its outputs,
/// with what their arrays are made larger by.
#[cfg(any(feature = "cuda", test))]
pub(crate) fn bytes_beside_state(layers: &[Layer]) -> usize {
    let (inputs, outputs) = match (layers.first(), layers.last()) {
        (Some(first), Some(last)) => (first.inputs, last.neurons),
        _ => (0, 0),
    };
    let entry_words = if inputs > NARROW_INPUTS { 2 } else { 1 };
    let words = 4 + inputs.min(EXPECTED_ACTIVE) * entry_words + outputs;
    4 * with_headroom(words)
}

/// The length that an array is given where at least `len` is asked for, so that the next, slightly
/// larger one finds room.
#[cfg(any(feature = "cuda", test))]
pub(crate) fn with_headroom(len: usize) -> usize {
    (len + len / 4).max(1)
}

/// A launch without shared memory.
fn plain(
    kernel: Kernel,
    [grid, threads]: [usize; 2],
    reached: Vec<usize>,
    numbers: &[usize],
) -> Launch {
    let numbers = numbers.iter().map(|n| *n as u32).collect();
    Launch { kernel, grid, threads, shared_bytes: 0, reached, numbers }
}

fn end_of_weights(layer: &Layer) -> usize {
    layer.recurrent_weights.as_ref().unwrap_or(&layer.input_weights).end
}

/// Where the next layer's parts begin.
#[derive(Clone, Copy, Default)]
struct Places {
    words: usize,
    back: usize,
    jumps: usize,
}

impl Places {
    /// Words, weights as stored (inputs, recurrent ones), jumps.
    fn take(&mut self, layer: &Layer, has_layer_below: bool) -> [u32; 4] {
        let Places { words, jumps, .. } = *self;
        let mut stored = |there: bool, inputs: usize| {
            let at = self.back;
            self.back += if there { layer.neurons * padded(inputs) } else { 0 };
            if there { at as u32 } else { NONE }
        };
        let input = stored(has_layer_below, layer.inputs);
        let recurrent = stored(layer.recurrent_weights.is_some(), layer.neurons);
        self.words += if layer.kind.spikes { layer.neurons.div_ceil(32) } else { 0 };
        self.jumps += layer.width;
        [words as u32, input, recurrent, jumps as u32]
    }
}

fn words_of(layer: &Layer, kept: [u32; 2], places: [u32; 4]) -> [u32; LAYER_WORDS] {
    let cell = CELLS.iter().position(|kind| std::ptr::eq(kind, layer.kind)).unwrap_or(0);
    let recurrent = layer.recurrent_weights.as_ref();
    let mut words = [0; LAYER_WORDS];
    let numbers = [
        cell as u32,
        u32::from(layer.kind.spikes),
        layer.inputs as u32,
        layer.neurons as u32,
        layer.width as u32,
        layer.input_weights.start as u32,
        recurrent.map_or(NONE, |at| at.start as u32),
        kept[0],
        kept[1],
        layer.kind.variables.len() as u32,
        layer.state.start as u32,
        (layer.state.start + layer.kind.output * layer.width) as u32,
        places[0],
        if layer.saved.is_empty() { NONE } else { layer.saved.start as u32 },
        places[1],
        places[2],
        places[3],
    ];
    words[..numbers.len()].copy_from_slice(&numbers);
    for (word, constant) in words[numbers.len()..].iter_mut().zip(layer.cell.constants()) {
        *word = constant.to_bits();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::{PackedChain, Stepped, bytes_beside_state};
    use crate::nn::{LayerSpec, LayerWeights, Network};

    fn layer(cell: &str, inputs: usize, neurons: usize, recurrent: bool) -> LayerWeights {
        LayerWeights {
            spec: LayerSpec {
                cell: cell.to_owned(),
                inputs,
                neurons,
                recurrent,
                parameters: Default::default(),
            },
            input: vec![0.5; inputs * neurons],
            recurrent: recurrent.then(|| vec![0.5; neurons * neurons]),
        }
    }

    /// Recurrent spiking neurons and a readout of four; a block has what an H100 gives it.
    fn chain_of(neurons: usize) -> PackedChain {
        let layers = vec![layer("lif", 2, neurons, true), layer("li", neurons, 4, false)];
        let network = Network::new(layers, 1e-3).expect("a network");
        PackedChain::new(&network.chain, 227 << 10).expect("room")
    }

    #[test]
    fn up_to_240_recurrent_neurons_keep_their_weights() {
        for (neurons, kept) in [(100, 100 * 112 + 100 * 16), (240, 240 * 240), (241, 241 * 16)] {
            let chain = chain_of(neurons);
            assert_eq!(chain.kept_floats, kept, "{neurons} neurons");
            assert!(chain.shared_bytes(true) <= 227 << 10);
        }
    }

    #[test]
    fn a_stream_takes_room_for_its_plan_and_outputs() {
        let network = Network::new(vec![layer("li", 2450, 4, false)], 1e-3).expect("a network");
        // run and step, entries, outputs; a quarter more
        assert_eq!(bytes_beside_state(&network.chain.layers), 4 * (4 + 256 + 4) * 5 / 4);
    }

    #[test]
    fn blocks_are_those_of_the_form_that_is_launched() {
        let chain = PackedChain { blocks: 4, blocks_that_keep_none: 9, ..chain_of(100) };
        for (runs, steps, grid, keeps) in
            [(15, 15, 9, false), (5, 5, 5, false), (16, 16, 4, true), (1, 4, 1, true)]
        {
            let launch =
                chain.rollout(&Stepped { runs, steps, words: 0, slots: runs, rows: steps });
            assert_eq!(launch.grid, grid, "{runs} streams, {steps} windows");
            assert_eq!(launch.shared_bytes, chain.shared_bytes(keeps));
            assert_eq!(launch.numbers.last(), Some(&u32::from(keeps)));
        }
    }
}
