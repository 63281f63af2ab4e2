//! A session: one network, n slots of state, and for each slot its readout and segment.
//!
//! Frames in, records out; a function of the frames alone. Knows no file, thread, ring or clock.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decide::{
    Activity, MAX_COUNTED, OpenSegment, Readout, ReadoutState, RunningReadout, Silence, Turn,
    verdict,
};
use crate::error::{Error, Result};
use crate::frame::{SlotFrames, Window};
use crate::model::Model;
use crate::nn::{Network, PlannedStep, State, Trace};
use crate::prediction::{Losses, Prediction, Record, Records, Summary, Totals, Verdict};
use crate::window::{WindowConfig, gap_windows};

/// Most streams that people may ask for at once; a large network's state may set a lower limit.
pub const MAX_STREAMS: u16 = 16_384;

/// How voltages become answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// The running readout.
    pub readout: Readout,
    /// What ends a segment.
    pub silence: Silence,
    /// Below this confidence an answer is not named.
    pub min_confidence: f32,
    /// Length of a window in µs.
    pub window_us: u64,
}

impl Rules {
    /// The model's own.
    pub fn of(model: &Model) -> Self {
        let card = &model.card;
        Rules {
            readout: card.readout,
            silence: Silence {
                quiet_events: card.quiet_events,
                gap_windows: gap_windows(card.gap_us, card.window_us),
            },
            min_confidence: 0.0,
            window_us: card.window_us,
        }
    }
}

impl Rules {
    /// The windows of a recording's last segment, which answers for it, and whether no silence came
    /// before that.
    pub fn last_segment(&self, windows: &[Window]) -> (Range<usize>, bool) {
        let (mut activity, mut last, mut first) = (Activity::default(), 0..0, false);
        for (k, window) in windows.iter().enumerate() {
            let turn = activity.turn(&self.silence, window);
            if turn.opens {
                (last, first) = (k..k, turn.first);
            }
            if turn.steps {
                last.end = k + 1;
            }
        }
        (last, first)
    }

    /// The answer of a segment of these windows by their voltages \[windows, classes\].
    pub fn verdict(
        &self,
        windows: &[Window],
        first: bool,
        voltages: &[f32],
        n_classes: usize,
    ) -> Verdict {
        let Rules { readout, silence, min_confidence, window_us } = *self;
        let from_us = windows.first().map_or(0, |window| window.t_start_us);
        let mut readout = RunningReadout::new(readout, n_classes, window_us);
        let mut segment = OpenSegment::new(from_us, first, &silence);
        for (window, voltages) in windows.iter().zip(voltages.chunks_exact(n_classes)) {
            let answer = verdict(readout.push(voltages));
            segment.push(&silence, min_confidence, window, answer);
        }
        segment.end().verdict
    }
}

/// How the model's windows are cut: from the first event on, the last one kept.
pub fn windows_of(model: &Model) -> WindowConfig {
    let card = &model.card;
    WindowConfig {
        sensor: card.sensor,
        window_us: card.window_us,
        gap_us: card.gap_us,
        origin: Default::default(),
        partial: Default::default(),
    }
}

/// n streams stepped together; each depends on its own frames alone.
pub struct Session {
    network: Arc<Network>,
    rules: Rules,
    state: State,
    slots: Vec<Slot>,
    plan: Vec<PlannedStep>,
    turns: Vec<Turn>,
    voltages: Vec<f32>,
    trace: Option<Trace>,
}

struct Slot {
    rules: Rules,
    activity: Activity,
    readout: RunningReadout,
    segment: Option<OpenSegment>,
    verdict: Verdict,
    windows: u64,
    segments: u64,
    losses: Losses,
}

/// A slot between two windows, as [`Session::save`] gives it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotState {
    /// The network's state, as [`State::row`] packs it.
    #[serde(skip)]
    pub row: Vec<f32>,
    /// The readout in its segment.
    pub readout: ReadoutState,
    activity: Activity,
    segment: Option<OpenSegment>,
    verdict: Verdict,
    windows: u64,
    segments: u64,
    losses: Losses,
}

impl Session {
    /// A session of `n_slots` streams that have not begun.
    ///
    /// # Errors
    /// When the state cannot be allocated.
    pub fn new(network: Arc<Network>, rules: Rules, n_slots: usize) -> Result<Self> {
        let state = network.zero_state(n_slots)?;
        let slot = || Slot::new(rules, network.outputs());
        let slots = std::iter::repeat_with(slot).take(n_slots).collect();
        let (plan, turns, voltages) = Default::default();
        Ok(Session { network, rules, state, slots, plan, turns, voltages, trace: None })
    }

    /// Number of slots.
    pub fn n_slots(&self) -> usize {
        self.slots.len()
    }

    /// Number of classes, which is the number of logits of a prediction.
    pub fn n_classes(&self) -> usize {
        self.network.outputs()
    }

    /// Keeps every neuron's state after every stepped window from now on.
    pub fn start_trace(&mut self) {
        self.trace = Some(self.network.trace());
    }

    /// What was kept since [`Session::start_trace`], a row for each prediction.
    pub fn take_trace(&mut self) -> Option<Trace> {
        self.trace.take()
    }

    /// A stream of rules of its own begins in a slot.
    pub fn open(&mut self, slot: usize, rules: Rules) {
        self.slots[slot] = Slot::new(rules, self.network.outputs());
    }

    /// Steps the windows that each slot brings, appends what they tell.
    ///
    /// # Errors
    /// When the tensor library fails; the model's checks leave no other cause.
    pub fn step(&mut self, brought: &[SlotFrames], out: &mut Records) -> Result<()> {
        self.plan_turns(brought);
        self.voltages.clear();
        if !self.plan.is_empty() {
            let trace = self.trace.as_mut();
            self.network.rollout(
                &mut self.state,
                brought,
                &self.plan,
                &mut self.voltages,
                trace,
            )?;
        }
        let mut turns = self.turns.iter();
        let mut voltages = self.voltages.chunks_exact(self.network.outputs());
        for SlotFrames { slot, frames } in brought {
            for (window, turn) in frames.windows().iter().zip(&mut turns) {
                let stepped = if turn.steps { voltages.next() } else { None };
                self.slots[*slot].take(*slot, window, *turn, stepped, out);
            }
        }
        Ok(())
    }

    /// The stream of a slot has ended: its last segment, its error, its summary. The slot is
    /// then as new, with the session's rules.
    pub fn finish(
        &mut self,
        slot: usize,
        totals: Totals,
        error: Option<Record>,
        out: &mut Records,
    ) {
        let fresh = Slot::new(self.rules, self.network.outputs());
        let mut ended = std::mem::replace(&mut self.slots[slot], fresh);
        ended.end_segment(slot, out);
        if let Some(error) = error {
            out.push(slot, error);
        }
        let Slot { verdict, windows, segments, .. } = ended;
        out.push(slot, Record::Summary(Summary { verdict, windows, segments, totals }));
    }

    /// A slot as it stands.
    ///
    /// # Errors
    /// When the tensor library fails.
    pub fn save(&self, slot: usize) -> Result<SlotState> {
        let row = self.state.row(slot)?;
        let Slot { activity, ref readout, segment, verdict, windows, segments, losses, .. } =
            self.slots[slot];
        let readout = readout.save();
        Ok(SlotState { row, readout, activity, segment, verdict, windows, segments, losses })
    }

    /// Puts a stream that was saved into a slot.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when it was another network's or other rules', or its numbers cannot
    /// be; the slot is as it was.
    pub fn restore(&mut self, slot: usize, saved: &SlotState) -> Result<()> {
        let n_classes = self.network.outputs();
        let SlotState { activity, segment, verdict, windows, segments, losses, .. } = *saved;
        let sound = activity.is_sound()
            && segment.is_none_or(|segment| segment.is_sound(n_classes))
            && verdict.class.is_none_or(|class| usize::from(class) < n_classes)
            && [windows, segments, losses.late, losses.outside, losses.overflow, losses.malformed]
                .iter()
                .all(|n| *n <= MAX_COUNTED);
        if !sound {
            return Err(Error::Mismatch("the state of its segment is not one".to_owned()));
        }
        let fresh = Slot::new(self.slots[slot].rules, n_classes);
        let Slot { rules, mut readout, .. } = fresh;
        readout.restore(&saved.readout)?;
        self.state.set_row(slot, &saved.row)?;
        self.slots[slot] =
            Slot { rules, activity, readout, segment, verdict, windows, segments, losses };
        Ok(())
    }

    fn plan_turns(&mut self, brought: &[SlotFrames]) {
        self.plan.clear();
        self.turns.clear();
        for (slot_index, SlotFrames { slot, frames }) in brought.iter().enumerate() {
            let Slot { activity, rules, .. } = &mut self.slots[*slot];
            for (k, window) in frames.windows().iter().enumerate() {
                let turn = activity.turn(&rules.silence, window);
                if turn.steps {
                    let (slot_index, window) = (slot_index as u32, k as u32);
                    self.plan.push(PlannedStep { slot_index, window, reset: turn.opens });
                }
                self.turns.push(turn);
            }
        }
    }
}

impl Slot {
    fn new(rules: Rules, n_classes: usize) -> Self {
        Slot {
            rules,
            activity: Activity::default(),
            readout: RunningReadout::new(rules.readout, n_classes, rules.window_us),
            segment: None,
            verdict: Verdict::default(),
            windows: 0,
            segments: 0,
            losses: Losses::default(),
        }
    }

    fn take(
        &mut self,
        slot: usize,
        window: &Window,
        turn: Turn,
        voltages: Option<&[f32]>,
        out: &mut Records,
    ) {
        self.losses += window.losses;
        if turn.ends {
            self.end_segment(slot, out);
        }
        if turn.opens {
            self.readout.reset();
        }
        let Some(voltages) = voltages else { return };
        let logits = self.readout.push(voltages);
        let Rules { silence, min_confidence, .. } = self.rules;
        let open = || OpenSegment::new(window.t_start_us, turn.first, &silence);
        let segment = self.segment.get_or_insert_with(open);
        let answer = verdict(logits);
        let prediction = Prediction {
            window: self.windows,
            t_us: window.t_end_us,
            events: window.events,
            verdict: segment.push(&silence, min_confidence, window, answer),
            losses: std::mem::take(&mut self.losses),
        };
        self.windows += 1;
        out.push_prediction(slot, prediction, logits);
    }

    fn end_segment(&mut self, slot: usize, out: &mut Records) {
        if let Some(segment) = self.segment.take() {
            let segment = segment.end();
            self.verdict = segment.verdict;
            self.segments += 1;
            out.push(slot, Record::Segment(segment));
        }
    }
}
