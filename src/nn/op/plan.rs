//! What a rollout steps, as `rollout.cu` reads it: planned windows of slots, or a batch of samples.
//!
//! Knows frames and where their entries go; neither layers nor devices.

use std::ops::Range;

use super::bptt::TrainingSample;
use super::packed::{PackedChain, RESET, Stepped, WINDOWS_TO_KEEP_FOR};
use crate::frame::SlotFrames;
use crate::nn::PlannedStep;

/// Words that one thread writes: enough to be worth waking another.
const SHARE_WORDS: usize = 1 << 13;
/// Threads from which on a plan is shared out: two took as long as one, which need not be woken.
const ENOUGH_THREADS: usize = 4;

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
    steps_end: usize,
    /// Where the entries of their windows end among all.
    entries_end: usize,
}

/// Some runs of a plan, for one launch.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    runs: Range<usize>,
    /// Where their words stand among those of the plan.
    pub words: Range<usize>,
}

impl PackedPlan {
    /// Brings the steps of each slot together, in their order. Plan and slots have been checked.
    pub fn arrange(&mut self, slots: &[SlotFrames], plan: &[PlannedStep], n_slots: usize) {
        let slot_of = |step: &PlannedStep| slots[step.slot_index as usize].slot;
        self.order.clear();
        if plan.is_sorted_by_key(slot_of) {
            self.order.extend(0..plan.len() as u32);
        } else {
            self.sort(plan.iter().map(slot_of), n_slots);
        }
        self.runs.clear();
        let (mut steps_end, mut entries_end) = (0, 0);
        let same_slot =
            |a: &u32, b: &u32| slot_of(&plan[*a as usize]) == slot_of(&plan[*b as usize]);
        for steps in self.order.chunk_by(same_slot) {
            steps_end += steps.len();
            entries_end += entries_of(steps, slots, plan);
            let slot = slot_of(&plan[steps[0] as usize]) as u32;
            self.runs.push(Run { slot, steps_end, entries_end });
        }
    }

    /// Orders steps by their slots.
    fn sort(&mut self, slots: impl ExactSizeIterator<Item = usize> + Clone, n_slots: usize) {
        self.places.clear();
        self.places.resize(n_slots + 1, 0);
        slots.clone().for_each(|slot| self.places[slot + 1] += 1);
        let mut end = 0;
        for place in &mut self.places {
            end += *place;
            *place = end;
        }
        self.order.resize(slots.len(), 0);
        for (k, slot) in slots.enumerate() {
            self.order[self.places[slot] as usize] = k as u32;
            self.places[slot] += 1;
        }
    }

    /// Slots that are stepped.
    pub fn n_runs(&self) -> usize {
        self.runs.len()
    }

    /// Planned steps.
    pub fn n_steps(&self) -> usize {
        self.order.len()
    }

    /// Words of all parts together.
    pub fn len(&self, chain: &PackedChain) -> usize {
        self.words(0..self.runs.len(), chain)
    }

    /// All runs in parts of at least `launch_words` words, enough of them to fill a device and to be
    /// worth the weights that its blocks keep; the last part may be smaller.
    pub fn parts(&self, chain: &PackedChain, launch_words: usize) -> impl Iterator<Item = Part> {
        let enough_steps = chain.blocks * WINDOWS_TO_KEEP_FOR;
        let (mut run, mut word) = (0, 0);
        std::iter::from_fn(move || {
            let is_enough = |runs: &Range<usize>| {
                self.words(runs.clone(), chain) >= launch_words
                    && self.steps(runs.clone()).len() >= enough_steps
            };
            let ends = run + 1..=self.runs.len();
            let runs = ends.clone().map(|end| run..end).find(is_enough);
            let runs = runs.or((!ends.is_empty()).then_some(run..self.runs.len()))?;
            let words = word..word + self.words(runs.clone(), chain);
            (run, word) = (runs.end, words.end);
            Some(Part { runs, words })
        })
    }

    /// What a part's launch steps.
    pub fn stepped(&self, part: &Part) -> Stepped {
        Stepped {
            runs: part.runs.len(),
            steps: self.steps(part.runs.clone()).len(),
            words: part.words.len(),
            slots: self.runs[part.runs.clone()].last().map_or(0, |run| run.slot as usize + 1),
            rows: self.order.len(),
        }
    }

    /// Writes a part's runs, steps and entries, on as many threads as it is worth.
    pub fn write(
        &self,
        part: &Part,
        chain: &PackedChain,
        brought: (&[SlotFrames], &[PlannedStep]),
        words: &mut [u32],
    ) {
        let (runs, rest) = words.split_at_mut(2 * part.runs.len());
        let (steps, entries) = rest.split_at_mut(2 * self.steps(part.runs.clone()).len());
        let writing = Writing { plan: self, chain, brought, first_run: part.runs.start };
        writing.write(part.runs.clone(), [runs, steps, entries]);
    }

    /// The steps of some runs, by their place in the order.
    fn steps(&self, runs: Range<usize>) -> Range<usize> {
        let end = |run: usize| run.checked_sub(1).map_or(0, |last| self.runs[last].steps_end);
        end(runs.start)..end(runs.end)
    }

    /// The entries of some runs, by their place among all.
    fn entries(&self, runs: Range<usize>) -> Range<usize> {
        let end = |run: usize| run.checked_sub(1).map_or(0, |last| self.runs[last].entries_end);
        end(runs.start)..end(runs.end)
    }

    fn words(&self, runs: Range<usize>, chain: &PackedChain) -> usize {
        let (steps, entries) = (self.steps(runs.clone()), self.entries(runs.clone()));
        2 * runs.len() + 2 * steps.len() + entries.len() * chain.entry_words()
    }
}

/// Entries of a slot's steps; looks into its windows only where not all of them are stepped.
fn entries_of(steps: &[u32], slots: &[SlotFrames], plan: &[PlannedStep]) -> usize {
    let step = |k: &u32| plan[*k as usize];
    let frames = &slots[step(&steps[0]).slot_index as usize].frames;
    let follows = |a: &u32, b: &u32| {
        step(a).slot_index == step(b).slot_index && step(a).window < step(b).window
    };
    if steps.len() == frames.len() && steps.is_sorted_by(follows) {
        return frames.entries();
    }
    let active = |k: &u32| {
        let PlannedStep { slot_index, window, .. } = step(k);
        slots[slot_index as usize].frames.active(window as usize).0.len()
    };
    steps.iter().map(active).sum()
}

/// A part as it is written.
#[derive(Clone, Copy)]
struct Writing<'a> {
    plan: &'a PackedPlan,
    chain: &'a PackedChain,
    brought: (&'a [SlotFrames], &'a [PlannedStep]),
    first_run: usize,
}

impl Writing<'_> {
    /// Writes some runs into their words: of runs, of steps, of entries.
    fn write(self, runs: Range<usize>, [run_words, step_words, entry_words]: [&mut [u32]; 3]) {
        let n_words = run_words.len() + step_words.len() + entry_words.len();
        let few = n_words < 2 * SHARE_WORDS || runs.len() < 2;
        if few || rayon::current_num_threads() < ENOUGH_THREADS {
            self.write_share(runs, [run_words, step_words, entry_words]);
            return;
        }
        let middle = runs.start + runs.len() / 2;
        let (first, second) = (runs.start..middle, middle..runs.end);
        let steps = self.plan.steps(first.clone()).len();
        let entries = self.plan.entries(first.clone()).len();
        let (run_words, run_rest) = run_words.split_at_mut(2 * first.len());
        let (step_words, step_rest) = step_words.split_at_mut(2 * steps);
        let (entry_words, entry_rest) =
            entry_words.split_at_mut(entries * self.chain.entry_words());
        rayon::join(
            || self.write(first, [run_words, step_words, entry_words]),
            || self.write(second, [run_rest, step_rest, entry_rest]),
        );
    }

    fn write_share(self, runs: Range<usize>, [run_words, step_words, mut rest]: [&mut [u32]; 3]) {
        let Writing { plan, chain, brought: (slots, steps), first_run } = self;
        let first_step = plan.steps(first_run..first_run).start;
        let own = &plan.runs[runs.clone()];
        for (words, run) in run_words.as_chunks_mut::<2>().0.iter_mut().zip(own) {
            *words = [run.slot, (run.steps_end - first_step) as u32];
        }
        let mut end = plan.entries(first_run..runs.start).len();
        let order = &plan.order[plan.steps(runs)];
        for (words, k) in step_words.as_chunks_mut::<2>().0.iter_mut().zip(order) {
            let PlannedStep { slot_index, window, reset } = steps[*k as usize];
            let (addresses, counts) = slots[slot_index as usize].frames.active(window as usize);
            end += addresses.len();
            *words = [*k | if reset { RESET } else { 0 }, end as u32];
            chain.write_entries(addresses, counts, &mut rest);
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
    use super::{ENOUGH_THREADS, PackedPlan, Part, RESET, SHARE_WORDS};
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

    /// A slot with so many windows, of none to three active inputs.
    fn slot_of((slot, n_windows): (usize, &u32)) -> SlotFrames {
        let mut frames = Frames::default();
        for window in 0..*n_windows {
            (0..window % 4).for_each(|address| frames.add(address, slot as u16));
            frames.close(Window::default());
        }
        SlotFrames { slot, frames }
    }

    fn steps_of((slot_index, n_windows): (usize, &u32)) -> impl Iterator<Item = PlannedStep> {
        let slot_index = slot_index as u32;
        (0..*n_windows).map(move |window| PlannedStep { slot_index, window, reset: window == 0 })
    }

    #[test]
    fn parts_join_up_and_are_worth_a_launch() {
        let windows = [3, 1, 0, 5, 2, 4, 1];
        let slots: Vec<_> = windows.iter().enumerate().map(slot_of).collect();
        let steps: Vec<_> = windows.iter().enumerate().flat_map(steps_of).collect();
        let chain = chain();
        let mut plan = PackedPlan::default();
        plan.arrange(&slots, &steps, slots.len());
        let whole: Vec<Part> = plan.parts(&chain, usize::MAX).collect();
        assert_eq!(whole.len(), 1);
        assert_eq!(whole[0].words, 0..plan.len(&chain));
        let parts: Vec<Part> = plan.parts(&chain, 1).collect();
        let n_steps: Vec<_> = parts.iter().map(|part| plan.stepped(part).steps).collect();
        assert_eq!(n_steps, [4, 5, 6, 1], "at least 4 windows for a block, but in the last");
        let joined = parts.iter().fold((0, 0, 0), |(run, step, word), part| {
            let steps = plan.steps(part.runs.clone());
            assert_eq!((part.runs.start, steps.start, part.words.start), (run, step, word));
            (part.runs.end, steps.end, part.words.end)
        });
        assert_eq!(joined, (6, steps.len(), plan.len(&chain)));
    }

    #[test]
    fn threads_write_what_one_does_whatever_the_order_of_slots() {
        let windows: Vec<u32> = (0..6000).map(|slot| slot % 5).collect();
        let slots: Vec<_> = windows.iter().enumerate().map(slot_of).collect();
        let ascending: Vec<_> = windows.iter().enumerate().flat_map(steps_of).collect();
        let descending: Vec<_> = windows.iter().enumerate().rev().flat_map(steps_of).collect();
        let last_windows: Vec<_> =
            ascending.iter().filter(|step| step.window > 1).copied().collect();
        let chain = chain();
        for steps in [&ascending, &descending, &last_windows] {
            let mut plan = PackedPlan::default();
            plan.arrange(&slots, steps, slots.len());
            let [part] = &plan.parts(&chain, usize::MAX).collect::<Vec<_>>()[..] else {
                panic!("one part")
            };
            let mut words = vec![0; part.words.len()];
            let pool = rayon::ThreadPoolBuilder::new().num_threads(ENOUGH_THREADS).build();
            let pool = pool.expect("threads");
            pool.install(|| plan.write(part, &chain, (&slots, steps), &mut words));
            assert!(words.len() >= 2 * SHARE_WORDS, "several threads");
            // Read back as the kernel reads: runs, steps, entries.
            let (runs, rest) = words.split_at(2 * plan.runs.len());
            let (packed, entries) = rest.split_at(2 * steps.len());
            let (mut read, mut first, mut begun) = (vec![None; steps.len()], 0, 0);
            for &[slot, end] in runs.as_chunks::<2>().0 {
                for &[step, entries_end] in &packed.as_chunks::<2>().0[first..end as usize] {
                    let own = entries[begun..entries_end as usize].to_vec();
                    read[(step & !RESET) as usize] = Some((slot, step & RESET != 0, own));
                    begun = entries_end as usize;
                }
                first = end as usize;
            }
            for (step, read) in steps.iter().zip(&read) {
                let SlotFrames { slot, frames } = &slots[step.slot_index as usize];
                let (addresses, counts) = frames.active(step.window as usize);
                let pairs = addresses.iter().zip(counts);
                let own = pairs.map(|(address, count)| address | u32::from(*count) << 16).collect();
                assert_eq!(read, &Some((*slot as u32, step.reset, own)));
            }
        }
    }
}
