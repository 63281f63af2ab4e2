//! Synthetic POKER-DVS recordings, cut as training cuts them.

use dvs_stream::dataset::{self, Sample};
use dvs_stream::event::Event;
use dvs_stream::frame::Frames;
use dvs_stream::synth::{self, Pip, PipOptions, SENSOR};
use dvs_stream::window::{Partial, WindowConfig};

/// Windows of 1 ms, silence too.
pub fn window() -> WindowConfig {
    WindowConfig {
        sensor: SENSOR,
        window_us: 1000,
        gap_us: 1_000_000_000,
        origin: Default::default(),
        partial: Partial::Drop,
    }
}

/// So many recordings of each of the 4 classes.
pub fn synthetic(per_class: usize) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (class, pip) in Pip::ALL.into_iter().enumerate() {
        for seed in 0..per_class as u64 {
            let events: Vec<Event> = synth::pip(pip, seed, &PipOptions::default());
            let mut frames = Frames::default();
            dataset::Cutter::new(window()).cut(&events, 0, &mut frames);
            let (first_us, last_us) = (events[0].t_us, events[events.len() - 1].t_us);
            let name = format!("{class}/{seed}");
            samples.push(Sample { name, class, first_us, last_us, events: vec![], frames });
        }
    }
    samples
}
