//! Recordings as a step takes them: their frames, or those of events made a little different.
//!
//! Knows samples, augmentations and windows; no network.

use std::borrow::Cow;

use crate::augment::{Augmentations, Use};
use crate::dataset::{Cutter, Sample};
use crate::frame::Frames;
use crate::window::WindowConfig;

/// How recordings are cut again after they were changed.
pub struct Preparation {
    window: WindowConfig,
    reset_us: u64,
    n_classes: usize,
    threads: usize,
}

impl Preparation {
    /// For recordings of `n_classes` classes, cut by `window`, by `threads` threads.
    pub fn new(window: WindowConfig, n_classes: usize, threads: usize) -> Self {
        Preparation { reset_us: window.gap_us, window, n_classes, threads: threads.max(1) }
    }

    /// As [`Cutter::reset_after`].
    pub fn reset_after(&mut self, reset_us: u64) {
        self.reset_us = reset_us;
    }

    /// Number of inputs of the network.
    pub fn inputs(&self) -> usize {
        self.window.sensor.addresses()
    }

    /// Number of classes.
    pub fn n_classes(&self) -> usize {
        self.n_classes
    }

    /// Length of a window in µs.
    pub fn window_us(&self) -> u64 {
        self.window.window_us
    }

    /// Length of a window in seconds.
    pub fn window_s(&self) -> f64 {
        self.window_us() as f64 * 1e-6
    }

    /// The frames of the chosen samples.
    pub(super) fn prepare<'a>(
        &self,
        samples: &[&'a Sample],
        chosen: &[usize],
        epoch: u32,
        augmentations: &Augmentations,
        seed: u64,
    ) -> Vec<Cow<'a, Frames>> {
        if augmentations.is_empty() {
            return chosen.iter().map(|k| Cow::Borrowed(&samples[*k].frames)).collect();
        }
        let part = |chosen: &[usize]| -> Vec<Cow<'a, Frames>> {
            let (mut events, mut cutter) = (Vec::new(), Cutter::new(self.window));
            cutter.reset_after(self.reset_us);
            let one = |index: &usize| {
                events.clone_from(&samples[*index].events);
                let of = Use { seed, epoch, index: *index };
                let tail_us = augmentations.apply(of, self.window.sensor, &mut events);
                let mut frames = Frames::default();
                cutter.cut(&events, tail_us, &mut frames);
                Cow::Owned(frames)
            };
            chosen.iter().map(one).collect()
        };
        let mut parts = chosen.chunks(chosen.len().div_ceil(self.threads).max(1));
        let Some(own) = parts.next() else { return Vec::new() };
        std::thread::scope(|scope| {
            let others: Vec<_> = parts.map(|chosen| scope.spawn(|| part(chosen))).collect();
            let mut frames = part(own);
            for other in others {
                match other.join() {
                    Ok(more) => frames.extend(more),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            frames
        })
    }
}
