//! What training fixes besides weights: readout, silence, view; settled from the recordings.
//!
//! Knows frames and recipes; steps nothing.

use std::collections::HashSet;

use super::checkpoint;
use super::loss::LossKind;
use super::recipe::Recipe;
use crate::dataset::{Dataset, Loading, MIN_GAP_WINDOWS, Sample};
use crate::decide::{MAX_READOUT_WINDOWS, Readout};
use crate::model::{Card, MAX_GAP_WINDOWS, VERSION};
use crate::quantity::format_time_us;

/// Share of a window's mean count that is still quiet.
const QUIET_SHARE: f64 = 0.03;

/// The card of a model trained on these samples.
///
/// A window is quiet with at most 3 % of a window's mean count. Silence ends a segment when it
/// lasts 1.5 times the longest quiet span inside a recording, at least two windows and at most as
/// many as a model takes. The readout is
/// the maximum over as many windows as the longest recording has, or the mean where that is
/// learned.
pub fn card(dataset: &Dataset, loading: &Loading, recipe: &Recipe, samples: &[&Sample]) -> Card {
    let quiet_events = quiet_events(samples);
    let longest = samples.iter().map(|sample| sample.frames.len() as u64).max().unwrap_or(1);
    let quiet_span = samples.iter().map(|sample| quiet_span(sample, quiet_events)).max();
    let gap_windows = gap_windows(quiet_span.unwrap_or(0)).clamp(MIN_GAP_WINDOWS, MAX_GAP_WINDOWS);
    let readout = match recipe.loss {
        LossKind::Mean => Readout::Mean,
        _ if longest > MAX_READOUT_WINDOWS => Readout::Max,
        _ => Readout::MaxOver(longest * loading.window_us),
    };
    Card {
        version: VERSION,
        sensor: dataset.sensor,
        window_us: loading.window_us,
        labels: dataset.labels.clone(),
        display: Vec::new(),
        view: loading.view,
        readout,
        gap_us: gap_windows * loading.window_us,
        quiet_events,
        layers: Vec::new(),
    }
}

/// What a user should know of a silence that is longer than a model takes: inside which recording
/// it is.
pub fn note(loading: &Loading, samples: &[&Sample]) -> Option<String> {
    let quiet_events = quiet_events(samples);
    let spans = samples.iter().map(|sample| (quiet_span(sample, quiet_events), sample));
    let (span, sample) = spans.max_by_key(|(span, _)| *span)?;
    let [span_us, most_us] = [span, MAX_GAP_WINDOWS].map(|n| n.saturating_mul(loading.window_us));
    (gap_windows(span) > MAX_GAP_WINDOWS).then(|| {
        format!(
            "{} is silent for {} inside: the silence that ends a segment is cut short to {}; cut \
             such recordings, or take a longer --window",
            sample.name,
            format_time_us(span_us),
            format_time_us(most_us)
        )
    })
}

/// What a user should know of recordings that are kept out although their like is trained on.
pub fn trained_and_kept_out(trained: &[&Sample], kept_out: &[&Sample]) -> Option<String> {
    if kept_out.is_empty() {
        return None;
    }
    let digest = |sample: &&Sample| checkpoint::fingerprint_of(&sample.frames);
    let trained: HashSet<u64> = trained.iter().map(digest).collect();
    let mut both = kept_out.iter().filter(|sample| trained.contains(&digest(sample)));
    let first = both.next()?;
    let n = 1 + both.count();
    Some(format!(
        "{n} of {} recordings kept out equal one that is trained on, as {}: their accuracy says \
         little of new ones",
        kept_out.len(),
        first.name
    ))
}

fn gap_windows(quiet_span: u64) -> u64 {
    (3 * quiet_span).div_ceil(2)
}

fn quiet_events(samples: &[&Sample]) -> u32 {
    let windows = samples.iter().flat_map(|sample| sample.frames.windows());
    let (mut events, mut n) = (0u64, 0u64);
    windows.for_each(|window| {
        events += u64::from(window.events);
        n += 1;
    });
    (QUIET_SHARE * events as f64 / n.max(1) as f64).round() as u32
}

/// Most quiet windows in a row between two that are not: what lies before the first is part of the
/// silence out of which a segment opens.
fn quiet_span(sample: &Sample, quiet_events: u32) -> u64 {
    let (mut longest, mut span, mut open) = (0, 0, false);
    for window in sample.frames.windows() {
        open &= !window.restart;
        if window.events <= quiet_events {
            span += 1;
        } else {
            longest = if open { longest.max(span) } else { longest };
            (span, open) = (0, true);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Frames, Window};

    #[test]
    fn quiet_spans_are_those_between_busy_windows() {
        for (events, expected) in [
            (&[9, 9, 9][..], 0),
            (&[9, 1, 0, 9, 1, 9], 2),
            (&[0, 0, 0, 9, 1, 9], 1),
            (&[9, 0, 9, 0, 0, 0], 1),
            (&[0, 0], 0),
            (&[], 0),
        ] {
            let mut frames = Frames::default();
            let window = |events: &u32| Window { events: *events, ..Window::default() };
            events.iter().for_each(|events| frames.close(window(events)));
            let (name, events) = Default::default();
            let sample = Sample { name, class: 0, first_us: 0, last_us: 0, events, frames };
            assert_eq!(quiet_span(&sample, 1), expected);
        }
    }
}
