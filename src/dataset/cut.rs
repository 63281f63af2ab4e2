//! Whole recordings to frames, by the windower of streaming.
//!
//! Knows events and windows, no file.

use crate::event::Event;
use crate::frame::Frames;
use crate::prediction::Losses;
use crate::window::{WindowConfig, Windower};

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

    /// Appends a recording's windows, and those that end in `tail_us` of silence after its last
    /// event, to `frames`. Returns what was lost.
    pub fn cut(&mut self, events: &[Event], tail_us: u64, frames: &mut Frames) -> Losses {
        let before = self.windower.totals().losses;
        let mut taken = 0;
        while taken < events.len() {
            taken += self.windower.push(&events[taken..], &mut self.batch);
            self.take_batch(frames);
        }
        if let (Some(last), true) = (events.last(), tail_us > 0) {
            let until_us = last.t_us.saturating_add(tail_us);
            while !self.windower.advance_to(until_us, &mut self.batch) {
                self.take_batch(frames);
            }
            self.take_batch(frames);
        }
        self.windower.finish(&mut self.batch);
        self.take_batch(frames);
        let after = self.windower.totals().losses;
        Losses {
            late: after.late - before.late,
            outside: after.outside - before.outside,
            overflow: after.overflow - before.overflow,
            malformed: after.malformed - before.malformed,
        }
    }

    fn take_batch(&mut self, frames: &mut Frames) {
        (0..self.batch.len()).for_each(|k| frames.copy_from(&self.batch, k));
        self.batch.clear();
    }
}
