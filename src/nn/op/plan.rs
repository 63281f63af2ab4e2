//! What a rollout steps, as `rollout.cu` reads it: planned windows of slots, or a batch of samples.
//!
//! Knows frames and where their entries go; neither layers nor devices.

use std::ops::Range;

use super::bptt::TrainingSample;
use super::packed::{PackedChain, RESET, Stepped, WINDOWS_TO_KEEP_FOR};
use crate::frame::SlotFrames;
use crate::nn::PlannedStep;

/// Planned steps in runs of one slot each; keeps its memory.
#[derive(Debug, Default)]
pub(crate) struct PackedPlan {
    runs: Vec<Run>,
    /// Indices into the plan, slot by slot.
    order: Vec<u32>,
    places: Vec<u32>,
}

/// The steps of a slot.
#[derive(Clone, Copy, Debug)]
struct Run {
    slot: u32,
    /// Where they end in the order.
    end: usize,
    /// Entries of their windows.
    entries: usize,
}

/// Some runs of a plan, for one launch.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    runs: Range<usize>,
    /// Their steps, by their place in the order.
    steps: Range<usize>,
    /// Where their words stand among those of the plan.
    pub words: Range<usize>,
}

impl PackedPlan {
    /// Brings the steps of each slot together, in their order. Plan and slots have been checked.
    pub fn arrange(&mut self, slots: &[SlotFrames], plan: &[PlannedStep], n_slots: usize) {
        let slot_of = |step: &PlannedStep| slots[step.slot_index as usize].slot;
        self.places.clear();
        self.places.resize(n_slots + 1, 0);
        plan.iter().for_each(|step| self.places[slot_of(step) + 1] += 1);
        self.runs.clear();
        let mut end = 0;
        for (slot, place) in self.places.iter_mut().enumerate() {
            end += *place;
            if *place > 0 {
                self.runs.push(Run { slot: slot as u32 - 1, end: end as usize, entries: 0 });
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
        let mut first = 0;
        for run in &mut self.runs {
            let entries = |k: &u32| {
                let PlannedStep { slot_index, window, .. } = plan[*k as usize];
                slots[slot_index as usize].frames.active(window as usize).0.len()
            };
            run.entries = self.order[first..run.end].iter().map(entries).sum();
            first = run.end;
        }
    }

    /// Planned steps.
    pub fn n_steps(&self) -> usize {
        self.order.len()
    }

    /// Words of all parts together.
    pub fn len(&self, chain: &PackedChain) -> usize {
        self.runs.iter().map(|run| run.entries).sum::<usize>() * chain.entry_words()
            + 2 * self.runs.len()
            + 2 * self.order.len()
    }

    /// All runs in parts of at least `launch_words` words, enough of them to fill a device and to be
    /// worth the weights that its blocks keep; the last part may be smaller.
    pub fn parts(&self, chain: &PackedChain, launch_words: usize) -> impl Iterator<Item = Part> {
        let enough_steps = chain.blocks * WINDOWS_TO_KEEP_FOR;
        let mut rest = self.runs.iter().enumerate();
        let (mut step, mut word) = (0, 0);
        std::iter::from_fn(move || {
            let (first_step, first_word, mut entries) = (step, word, 0);
            let mut first_run = None;
            for (k, run) in rest.by_ref() {
                let first = *first_run.get_or_insert(k);
                entries += run.entries;
                step = run.end;
                let (runs, steps) = (first..k + 1, first_step..step);
                word =
                    first_word + 2 * runs.len() + 2 * steps.len() + entries * chain.entry_words();
                let words = first_word..word;
                let last = run.end == self.order.len();
                if last || words.len() >= launch_words && steps.len() >= enough_steps {
                    return Some(Part { runs, steps, words });
                }
            }
            None
        })
    }

    /// What a part's launch steps.
    pub fn stepped(&self, part: &Part) -> Stepped {
        Stepped {
            runs: part.runs.len(),
            steps: part.steps.len(),
            words: part.words.len(),
            slots: self.runs[part.runs.clone()].last().map_or(0, |run| run.slot as usize + 1),
            rows: self.order.len(),
        }
    }

    /// Writes a part's runs, steps and entries.
    pub fn write(
        &self,
        part: &Part,
        chain: &PackedChain,
        (slots, plan): (&[SlotFrames], &[PlannedStep]),
        words: &mut [u32],
    ) {
        let (runs, rest) = words.split_at_mut(2 * part.runs.len());
        let (steps, mut entries) = rest.split_at_mut(2 * part.steps.len());
        let own = &self.runs[part.runs.clone()];
        for (words, Run { slot, end, .. }) in runs.as_chunks_mut::<2>().0.iter_mut().zip(own) {
            *words = [*slot, (end - part.steps.start) as u32];
        }
        let order = &self.order[part.steps.clone()];
        let mut end = 0;
        for (words, k) in steps.as_chunks_mut::<2>().0.iter_mut().zip(order) {
            let PlannedStep { slot_index, window, reset } = plan[*k as usize];
            let (addresses, counts) = slots[slot_index as usize].frames.active(window as usize);
            end += addresses.len();
            *words = [*k | if reset { RESET } else { 0 }, end as u32];
            chain.write_entries(addresses, counts, &mut entries);
        }
    }
}

/// A training batch: each sample a slot of its own from a zero state, a row for each window and one
/// after each sample.
#[derive(Clone, Copy)]
pub(crate) struct Batch<'a> {
    pub samples: &'a [TrainingSample<'a>],
    /// Windows of all samples.
    pub steps: usize,
    /// Active inputs of all windows.
    pub entries: usize,
}

impl<'a> Batch<'a> {
    pub fn new(samples: &'a [TrainingSample<'a>]) -> Self {
        let steps = samples.iter().map(|sample| sample.windows).sum();
        let entries = samples.iter().map(|sample| sample.frames.entries()).sum();
        Batch { samples, steps, entries }
    }

    /// Rows, those after each sample too.
    pub fn rows(&self) -> usize {
        self.steps + self.samples.len()
    }

    /// What its launch steps.
    pub fn stepped(&self, chain: &PackedChain) -> Stepped {
        let runs = self.samples.len();
        let words = 2 * runs + 2 * self.steps + self.entries * chain.entry_words();
        Stepped { runs, steps: self.steps, words, slots: runs, rows: self.rows() }
    }

    /// Where each sample's rows are.
    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let mut first = 0;
        self.samples.iter().map(move |sample| {
            let rows = first..first + sample.windows;
            first = rows.end + 1;
            rows
        })
    }

    /// Writes each sample's first row and its number of windows.
    pub fn write_samples(&self, words: &mut [u32]) {
        for (words, rows) in words.as_chunks_mut::<2>().0.iter_mut().zip(self.ranges()) {
            *words = [rows.start as u32, rows.len() as u32];
        }
    }

    /// Writes runs, steps and entries.
    pub fn write(&self, chain: &PackedChain, words: &mut [u32]) {
        let (runs, rest) = words.split_at_mut(2 * self.samples.len());
        let (steps, mut entries) = rest.split_at_mut(2 * self.steps);
        let mut steps = steps.as_chunks_mut::<2>().0.iter_mut();
        let (mut n_steps, mut end) = (0, 0);
        let runs = runs.as_chunks_mut::<2>().0.iter_mut();
        for (slot, (run, (sample, rows))) in
            runs.zip(self.samples.iter().zip(self.ranges())).enumerate()
        {
            n_steps += sample.windows;
            *run = [slot as u32, n_steps as u32];
            for (t, (row, words)) in rows.zip(&mut steps).enumerate() {
                if t < sample.frames.len() {
                    let (addresses, counts) = sample.frames.active(t);
                    end += addresses.len();
                    chain.write_entries(addresses, counts, &mut entries);
                }
                *words = [row as u32 | if t == 0 { RESET } else { 0 }, end as u32];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PackedPlan, Part};
    use crate::frame::{Frames, SlotFrames, Window};
    use crate::nn::op::packed::PackedChain;
    use crate::nn::{LayerSpec, LayerWeights, Network, PlannedStep};

    fn chain() -> PackedChain {
        let spec = LayerSpec {
            cell: "lif".to_owned(),
            inputs: 9,
            neurons: 2,
            recurrent: false,
            parameters: Default::default(),
        };
        let layer = LayerWeights { spec, input: vec![0.5; 18], recurrent: None };
        let network = Network::new(vec![layer], 1e-3).expect("a network");
        PackedChain::new(&network.chain, 1 << 15).expect("room")
    }

    #[test]
    fn parts_join_up_and_are_worth_a_launch() {
        let slot_of = |(slot, n_windows): (usize, &u32)| {
            let mut frames = Frames::default();
            for window in 0..*n_windows {
                (0..window % 4).for_each(|address| frames.add(address, 1));
                frames.close(Window::default());
            }
            SlotFrames { slot, frames }
        };
        let windows = [3, 1, 0, 5, 2, 4, 1];
        let slots: Vec<_> = windows.iter().enumerate().map(slot_of).collect();
        let steps = windows.iter().enumerate().flat_map(|(slot, n)| {
            let slot_index = slot as u32;
            (0..*n).map(move |window| PlannedStep { slot_index, window, reset: false })
        });
        let (chain, steps) = (chain(), steps.collect::<Vec<_>>());
        let mut plan = PackedPlan::default();
        plan.arrange(&slots, &steps, slots.len());
        let whole: Vec<Part> = plan.parts(&chain, usize::MAX).collect();
        assert_eq!(whole.len(), 1);
        assert_eq!(whole[0].words, 0..plan.len(&chain));
        let parts: Vec<Part> = plan.parts(&chain, 1).collect();
        let n_steps: Vec<_> = parts.iter().map(|part| part.steps.len()).collect();
        assert_eq!(n_steps, [4, 5, 6, 1], "at least 4 windows for a block, but in the last");
        let joined = parts.iter().fold((0, 0, 0), |(run, step, word), part| {
            assert_eq!((part.runs.start, part.steps.start, part.words.start), (run, step, word));
            (part.runs.end, part.steps.end, part.words.end)
        });
        assert_eq!(joined, (6, steps.len(), plan.len(&chain)));
    }
}
