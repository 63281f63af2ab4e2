//! Decks: pips one after another with gaps, and the truth about which was when.
//!
//! Knows how single pips are made; knows no files and no pace.

use super::draw::Draw;
use super::{Pip, PipOptions, Spark, pip, stored, strays};
use crate::event::Event;
use std::ops::{Range, RangeInclusive};

/// One pip of a deck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeckEntry {
    /// Time of its first event.
    pub from_us: u64,
    /// Time of its last event.
    pub to_us: u64,
    /// What was shown.
    pub pip: Pip,
}

/// A recording of several pips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deck {
    /// Its events; times never fall, the first is 0.
    pub events: Vec<Event>,
    /// Its pips, in time.
    pub truth: Vec<DeckEntry>,
}

/// Shows `pips` one after another. From a pip's last event to the next one's first lies a gap
/// drawn from `gap_us`, empty but for `options.gap_noise_per_ms`.
pub fn deck(pips: &[Pip], seed: u64, gap_us: RangeInclusive<u64>, options: &PipOptions) -> Deck {
    let (mut draw, mut noise_draw) = (Draw::new(seed, "deck"), Draw::new(seed, "gap noise"));
    let mut deck = Deck { events: Vec::new(), truth: Vec::new() };
    for &shown in pips {
        let mut from_us = 0;
        if let Some(before) = deck.truth.last() {
            from_us = before.to_us.saturating_add(between(&gap_us, &mut draw));
            let noise = gap_noise(before.to_us..from_us, options.gap_noise_per_ms, &mut noise_draw);
            deck.events.extend(noise);
        }
        let events = pip(shown, draw.bits(), options);
        let shifted = |event: &Event| Event { t_us: from_us + event.t_us, ..*event };
        deck.events.extend(events.iter().map(shifted));
        let to_us = deck.events.last().map_or(0, |event| event.t_us);
        deck.truth.push(DeckEntry { from_us, to_us, pip: shown });
    }
    deck
}

fn between(range: &RangeInclusive<u64>, draw: &mut Draw) -> u64 {
    let choices = range.end().saturating_sub(*range.start()).saturating_add(1);
    range.start().saturating_add(draw.below(choices))
}

/// Stray events after the first and before the last µs of a gap.
fn gap_noise(gap_us: Range<u64>, per_ms: f64, draw: &mut Draw) -> Vec<Event> {
    let length_us = gap_us.end.saturating_sub(gap_us.start);
    let sparks = strays(per_ms, length_us as f64 / 1000.0, draw);
    let at =
        |spark: Spark| Event { t_us: gap_us.start + (spark.t_ms * 1000.0) as u64, ..stored(spark) };
    let inside = |event: &Event| event.t_us > gap_us.start && event.t_us < gap_us.end;
    sparks.into_iter().map(at).filter(inside).collect()
}

/// `n_pips` in random order, the four as evenly as can be.
pub fn deal(n_pips: usize, seed: u64) -> Vec<Pip> {
    let mut draw = Draw::new(seed, "deal");
    let mut dealt = Vec::with_capacity(n_pips);
    while dealt.len() < n_pips {
        let mut round = Pip::ALL;
        for k in (1..round.len()).rev() {
            round.swap(k, draw.below(k as u64 + 1) as usize);
        }
        dealt.extend(round.into_iter().take(n_pips - dealt.len()));
    }
    for k in (1..dealt.len()).rev() {
        dealt.swap(k, draw.below(k as u64 + 1) as usize);
    }
    dealt
}
