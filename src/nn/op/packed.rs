//! A chain and a plan as `rollout.cu` reads them: 32-bit words.
//!
//! Knows layers and frames; neither devices nor equations. The order of the words is the kernel's.

use super::Layer;
#[cfg(feature = "kernel-host")]
use super::bptt::TrainingSample;
use super::launch::Lengths;
use super::memory::padded;
use crate::frame::SlotFrames;
use crate::nn::PlannedStep;
use crate::nn::cell::CELLS;

/// Stands for a matrix that there is none of, or that is not kept.
const NONE: u32 = u32::MAX;
/// In a step's first word: the state is set to zero before it.
const RESET: u32 = 1 << 31;
/// Inputs up to which an address and its count share a word.
const NARROW_INPUTS: usize = 1 << 16;
/// Most threads of a block.
const MAX_THREADS: usize = 1024;
/// Words of a layer.
const LAYER_WORDS: usize = 23;
/// Windows a block must step for the weights that it keeps to be worth their copying.
const WINDOWS_TO_KEEP_FOR: usize = 4;

/// The layers, and how a launch is laid out.
pub(crate) struct PackedChain {
    /// \[layers, 23\], a [`Layer`] as layer.cuh has it
    pub layers: Vec<u32>,
    /// Threads of a block.
    pub threads: u32,
    n_layers: u32,
    row_len: u32,
    saved_len: u32,
    n_words: u32,
    n_sums: u32,
    kept_floats: u32,
    n_weights: usize,
    /// Floats of the weights as stored, for the way back.
    #[cfg(feature = "kernel-host")]
    pub n_back: usize,
    outputs: usize,
    wide: bool,
}

/// What one launch is told besides its arrays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch {
    /// Blocks.
    pub grid: u32,
    /// Bytes of shared memory a block.
    pub shared_bytes: u32,
    /// The kernel's numbers, in its order.
    pub numbers: [u32; 9],
    needed: Lengths,
}

impl Launch {
    /// Whether the arrays are as long as the kernel will reach.
    ///
    /// # Errors
    /// Names the one that is not.
    pub fn check(&self, given: Lengths) -> Result<(), &'static str> {
        let needed = &self.needed;
        let checks = [
            ("weights", given.weights >= needed.weights),
            ("state", given.state >= needed.state),
            ("layers", given.layers == needed.layers),
            ("plan", given.plan == needed.plan),
            ("out", given.out == needed.out),
            ("trace", given.trace.is_none_or(|trace| Some(trace) == needed.trace)),
        ];
        let wrong = checks.iter().find(|(_, fits)| !fits);
        wrong.map_or(Ok(()), |(name, _)| Err(*name))
    }
}

impl PackedChain {
    /// Packs the layers for a device whose blocks have `shared_bytes` of shared memory: weight
    /// matrices are kept there as far as they fit, recurrent ones first.
    ///
    /// # Errors
    /// How much more shared memory the chain needs than there is.
    pub fn new(
        layers: &[Layer],
        (row_len, saved_len): (usize, usize),
        shared_bytes: usize,
    ) -> Result<Self, String> {
        let spiking = layers.iter().filter(|layer| layer.kind.spikes);
        let n_words: usize = spiking.map(|layer| layer.neurons.div_ceil(32)).sum();
        let summing = layers.iter().filter(|l| !l.kind.spikes && l.recurrent_weights.is_some());
        let n_sums = summing.map(|layer| layer.neurons).max().unwrap_or(0);
        let working = LAYER_WORDS * layers.len() + n_sums + 3 * n_words;
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
        let widest = layers.iter().map(|layer| layer.neurons).max().unwrap_or(1);
        Ok(PackedChain {
            layers: packed,
            #[cfg(feature = "kernel-host")]
            n_back: places.back,
            threads: widest.next_multiple_of(32).min(MAX_THREADS) as u32,
            n_layers: layers.len() as u32,
            row_len: row_len as u32,
            saved_len: saved_len as u32,
            n_words: n_words as u32,
            n_sums: n_sums as u32,
            kept_floats: kept_floats as u32,
            n_weights: layers.iter().map(end_of_weights).max().unwrap_or(0),
            outputs: layers.last().map_or(0, |layer| layer.neurons),
            wide: layers.first().is_some_and(|layer| layer.inputs > NARROW_INPUTS),
        })
    }

    /// Most bytes of shared memory that a launch asks for.
    pub fn shared_bytes(&self) -> u32 {
        4 * (self.n_layers * LAYER_WORDS as u32 + self.n_sums + 3 * self.n_words + self.kept_floats)
    }

    /// How a plan is launched on a device that runs `blocks` blocks at once.
    pub fn launch(&self, plan: &PackedPlan, blocks: usize) -> Launch {
        let last_slot = plan.runs.last().map_or(0, |(slot, _)| *slot as usize + 1);
        let (row_len, n_steps) = (self.row_len as usize, plan.n_steps());
        Launch {
            needed: Lengths {
                weights: self.n_weights,
                state: last_slot * row_len,
                layers: self.layers.len(),
                plan: plan.len(self),
                out: n_steps * self.outputs,
                trace: Some(n_steps * row_len),
            },
            ..self.launch_of((plan.runs.len(), n_steps), blocks)
        }
    }

    fn launch_of(&self, (n_runs, n_steps): (usize, usize), blocks: usize) -> Launch {
        let grid = n_runs.min(blocks).max(1);
        let keeps = n_steps >= grid * WINDOWS_TO_KEEP_FOR;
        let shared_bytes = self.shared_bytes() - if keeps { 0 } else { 4 * self.kept_floats };
        let numbers = [
            self.n_layers,
            self.row_len,
            self.saved_len,
            self.n_words,
            self.n_sums,
            n_runs as u32,
            n_steps as u32,
            u32::from(self.wide),
            u32::from(keeps),
        ];
        Launch { grid: grid as u32, shared_bytes, numbers, needed: Lengths::default() }
    }

    /// A training batch, each sample a slot of its own from a zero state: its launch, its words, and
    /// for each sample its first row and its windows.
    #[cfg(feature = "kernel-host")]
    pub fn batch(
        &self,
        samples: &[TrainingSample<'_>],
        blocks: usize,
    ) -> (Launch, Vec<u32>, Vec<[u32; 2]>) {
        let (mut runs, mut steps, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        let (mut rows, mut first) = (Vec::new(), 0);
        for (slot, TrainingSample { frames, windows }) in samples.iter().enumerate() {
            for t in 0..*windows {
                if t < frames.len() {
                    let (addresses, counts) = frames.active(t);
                    self.push_entries(addresses, counts, &mut entries);
                }
                let end = entries.len() / self.entry_words();
                steps.extend([(first + t) as u32 | if t == 0 { RESET } else { 0 }, end as u32]);
            }
            runs.extend([slot as u32, steps.len() as u32 / 2]);
            rows.push([first as u32, *windows as u32]);
            first += windows + 1;
        }
        let shape = (samples.len(), steps.len() / 2);
        let launch = self.launch_of(shape, blocks);
        (launch, [runs, steps, entries].concat(), rows)
    }

    #[cfg(feature = "kernel-host")]
    fn push_entries(&self, addresses: &[u32], counts: &[u16], entries: &mut Vec<u32>) {
        for (address, count) in addresses.iter().zip(counts) {
            match self.wide {
                true => entries.extend([*address, u32::from(*count)]),
                false => entries.push(*address | u32::from(*count) << 16),
            }
        }
    }

    fn entry_words(&self) -> usize {
        if self.wide { 2 } else { 1 }
    }
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

/// Planned steps in runs of one slot each; keeps its memory.
#[derive(Debug, Default)]
pub(crate) struct PackedPlan {
    /// Slot of each run, and the end of its steps in `order`.
    runs: Vec<(u32, u32)>,
    /// Indices into the plan, slot by slot.
    order: Vec<u32>,
    places: Vec<u32>,
    entries: usize,
}

impl PackedPlan {
    /// Brings the steps of each slot together, in their order. Plan and slots have been checked.
    pub fn arrange(&mut self, slots: &[SlotFrames], plan: &[PlannedStep], n_slots: usize) {
        let slot_of = |step: &PlannedStep| slots[step.slot_index as usize].slot;
        self.places.clear();
        self.places.resize(n_slots + 1, 0);
        self.entries = 0;
        for step in plan {
            self.places[slot_of(step) + 1] += 1;
            let frames = &slots[step.slot_index as usize].frames;
            self.entries += frames.active(step.window as usize).0.len();
        }
        self.runs.clear();
        let mut end = 0;
        for (slot, place) in self.places.iter_mut().enumerate() {
            end += *place;
            if *place > 0 {
                self.runs.push((slot as u32 - 1, end));
            }
            *place = end;
        }
        self.order.clear();
        self.order.resize(plan.len(), 0);
        for (k, step) in plan.iter().enumerate() {
            let place = &mut self.places[slot_of(step)];
            self.order[*place as usize] = k as u32;
            *place += 1;
        }
    }

    /// Planned steps.
    pub fn n_steps(&self) -> usize {
        self.order.len()
    }

    /// Number of words that [`PackedPlan::write`] fills.
    pub fn len(&self, chain: &PackedChain) -> usize {
        2 * self.runs.len() + 2 * self.order.len() + self.entries * chain.entry_words()
    }

    /// Writes runs, steps and entries.
    pub fn write(
        &self,
        chain: &PackedChain,
        slots: &[SlotFrames],
        plan: &[PlannedStep],
        words: &mut [u32],
    ) {
        let (runs, rest) = words.split_at_mut(2 * self.runs.len());
        let (steps, mut entries) = rest.split_at_mut(2 * self.order.len());
        for (words, (slot, end)) in runs.as_chunks_mut::<2>().0.iter_mut().zip(&self.runs) {
            *words = [*slot, *end];
        }
        let mut end = 0;
        for (words, k) in steps.as_chunks_mut::<2>().0.iter_mut().zip(&self.order) {
            let PlannedStep { slot_index, window, reset } = plan[*k as usize];
            let (addresses, counts) = slots[slot_index as usize].frames.active(window as usize);
            end += addresses.len();
            *words = [*k | if reset { RESET } else { 0 }, end as u32];
            let n = addresses.len() * chain.entry_words();
            let (own, after) = std::mem::take(&mut entries).split_at_mut(n);
            entries = after;
            let pairs = addresses.iter().zip(counts);
            if chain.wide {
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
}
