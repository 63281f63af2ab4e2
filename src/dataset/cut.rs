//! Whole recordings to frames, by the windower of streaming.
//!
//! Knows events and windows, no file.

use crate::event::Event;
use crate::frame::Frames;
use crate::prediction::Losses;
use crate::window::{WindowConfig, Windower};

/// Longest recording that is loaded, in windows.
pub const MAX_WINDOWS: u64 = 100_000;
/// Fewest quiet windows that end a segment, where the gap is settled from the recordings.
pub const MIN_GAP_WINDOWS: u64 = 2;

/// Cuts recordings, one after another; keeps its memory.
pub struct Cutter {
    windower: Windower,
    batch: Frames,
}

impl Cutter {
    /// A cutter of these windows.
    pub fn new(config: WindowConfig) -> Self {
        Cutter { windower: Windower::new(config), batch: Frames::default() }
    }

    /// As [`Windower::reset_after`].
    pub fn reset_after(&mut self, reset_us: u64) {
        self.windower.reset_after(reset_us);
    }

    /// Appends a recording's windows, and those that end in `tail_us` of silence after its last
    /// event, to `frames`: what a stream of these events gives. Cuts no further where there are
    /// more than [`MAX_WINDOWS`]. Returns what was lost.
    pub fn cut(&mut self, events: &[Event], tail_us: u64, frames: &mut Frames) -> Losses {
        self.windower.reset();
        let most = frames.len() + MAX_WINDOWS as usize;
        let mut taken = 0;
        while taken < events.len() && frames.len() <= most {
            taken += self.windower.push(&events[taken..], &mut self.batch);
            self.take_batch(frames);
        }
        if let (Some(last), true) = (events.last(), tail_us > 0) {
            let until_us = last.t_us.saturating_add(tail_us);
            while frames.len() <= most && !self.windower.advance_to(until_us, &mut self.batch) {
                self.take_batch(frames);
            }
        }
        self.windower.finish(&mut self.batch);
        self.take_batch(frames);
        self.windower.totals().losses
    }

    fn take_batch(&mut self, frames: &mut Frames) {
        (0..self.batch.len()).for_each(|k| frames.copy_from(&self.batch, k));
        self.batch.clear();
    }
}
