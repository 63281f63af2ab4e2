//! `eval`: how a model reads labelled recordings, or a deck whose truth is known, by the session
//! that streams them.

use std::cmp::Reverse;
use std::path::Path;

use serde::Serialize;

use crate::dataset::split::{Fold, Split};
use crate::dataset::{self, Dataset, Loading};
use crate::error::{Error, Result};
use crate::ingest;
use crate::model::Model;
use crate::prediction::{Losses, Segment};
use crate::recording;
use crate::score::{Reader, Reading, Score, Share};
use crate::session::Rules;
use crate::source::read_bounded;
use crate::table;

/// Greatest size of a deck's side file.
const MAX_TRUTH_BYTES: u64 = 64 << 20;
/// Its columns.
const HEADER: [&str; 3] = ["from_us", "to_us", "label"];

/// How labelled recordings were read.
pub struct Evaluated {
    /// All of them, those that were not scored too.
    pub dataset: Dataset,
    /// The places of those that were.
    pub places: Vec<usize>,
    /// How each of these was read.
    pub readings: Vec<Reading>,
    /// Their score.
    pub score: Score,
}

/// Scores the part of a folder that a split keeps out; without a split, all of it.
///
/// # Errors
/// As [`dataset::load`] and [`Split::folds`] say; [`Error::Usage`] where several folds are given
/// and none is chosen.
pub fn folder(
    model: &Model,
    rules: Rules,
    data: &Path,
    loading: &Loading,
    (split, by_time, fold, seed): (&Split, bool, Option<&str>, u64),
) -> Result<Evaluated> {
    let dataset = dataset::load(data, loading)?;
    let places = match split {
        Split::All => (0..dataset.samples.len()).collect(),
        _ => {
            let mut folds = split.folds(&dataset, by_time, seed)?;
            if let Some(name) = fold {
                folds = vec![Fold::choose(folds, name)?];
            }
            match (folds.pop(), folds.is_empty()) {
                (Some(fold), true) => fold.test,
                _ => {
                    return Err(Error::Usage(
                        "a model is scored on one fold: name it with --fold".to_owned(),
                    ));
                }
            }
        }
    };
    let mut reader = Reader::new(model, rules)?;
    let read = places.iter().map(|k| reader.read(&dataset.samples[*k].frames));
    let readings = read.collect::<Result<Vec<_>>>()?;
    let pairs = places.iter().map(|k| dataset.samples[*k].class).zip(&readings);
    let score = Score::of(&dataset.labels, pairs);
    Ok(Evaluated { dataset, places, readings, score })
}

/// One span of a deck's side file.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Time of its first event.
    pub from_us: u64,
    /// Time of its last event.
    pub to_us: u64,
    /// What was shown.
    pub label: String,
}

/// How a deck was read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeckScore {
    /// Spans read right: of the named segments that belong to the span, each to the one that it
    /// overlaps most, that which overlaps it most has its label.
    pub right: Share,
    /// Spans that no named segment belongs to.
    pub missed: u64,
    /// Named segments beside those: over no span, or over one that another segment covers more.
    pub invented: u64,
    /// Each span: its label, and what it was read as.
    pub spans: Vec<(String, Option<String>)>,
}

/// A deck as far as it could be read.
pub struct Deck {
    /// How that was read.
    pub score: DeckScore,
    /// Events of it that reached no window.
    pub losses: Losses,
    /// Why it ended early, if it did.
    pub damage: Option<Error>,
}

/// Scores a recording of several things shown one after another, by its side file (`from_us`,
/// `to_us`, `label`).
///
/// # Errors
/// Where the side file or nothing of the recording can be read, or they do not fit the model; with
/// `strict`, where the recording is damaged.
pub fn deck(
    model: &Model,
    rules: Rules,
    path: &Path,
    truth: &Path,
    loading: &Loading,
) -> Result<Deck> {
    let truth = read_truth(truth, &model.card.labels)?;
    let reading = ingest::Reading {
        format: loading.format,
        decoder: loading.decoder,
        view: loading.view,
        ..Default::default()
    };
    let (frames, read) = recording::frames(path, reading, loading.windows(model.card.sensor));
    let damage = match read.map_err(|error| error.named(path.display())) {
        Err(error) if loading.strict || frames.is_empty() => return Err(error),
        read => read.err(),
    };
    let mut losses = Losses::default();
    frames.windows().iter().for_each(|window| losses += window.losses);
    let reading = Reader::new(model, rules)?.read(&frames)?;
    let score = score_deck(&truth, &reading.segments, &model.card.labels);
    Ok(Deck { score, losses, damage })
}

fn score_deck(truth: &[Shown], segments: &[Segment], labels: &[String]) -> DeckScore {
    let named: Vec<_> = segments
        .iter()
        .filter_map(|s| s.verdict.class.map(|class| (s, &labels[usize::from(class)])))
        .collect();
    let overlap = |segment: &Segment, shown: &Shown| {
        (segment.to_us.min(shown.to_us.saturating_add(1)))
            .saturating_sub(segment.from_us.max(shown.from_us))
    };
    // Of equals the first.
    let most = |overlaps: &mut dyn Iterator<Item = (u64, usize)>| {
        let best = overlaps.max_by_key(|(overlap, k)| (*overlap, Reverse(*k)));
        best.filter(|(overlap, _)| *overlap > 0).map(|(_, k)| k)
    };
    let span_of = |segment: &Segment| {
        most(&mut truth.iter().enumerate().map(|(k, shown)| (overlap(segment, shown), k)))
    };
    let belongs: Vec<_> = named.iter().map(|(segment, _)| span_of(segment)).collect();
    let read = truth.iter().enumerate().map(|(span, shown)| {
        let own = (0..named.len()).filter(|k| belongs[*k] == Some(span));
        let read = most(&mut own.map(|k| (overlap(named[k].0, shown), k)));
        (shown.label.clone(), read.map(|k| named[k].1.clone()))
    });
    let spans: Vec<_> = read.collect();
    let read = spans.iter().filter(|(_, read)| read.is_some()).count();
    let right = spans.iter().filter(|(label, read)| read.as_ref() == Some(label)).count() as u64;
    DeckScore {
        right: Share::of(right, truth.len() as u64),
        missed: (spans.len() - read) as u64,
        invented: (named.len() - read) as u64,
        spans,
    }
}

fn read_truth(path: &Path, labels: &[String]) -> Result<Vec<Shown>> {
    let bytes = read_bounded(path, MAX_TRUTH_BYTES).map_err(|error| error.named(path.display()))?;
    let refused = |what: String| Error::Usage(format!("{}: {what}", path.display()));
    let mut shown = Vec::new();
    let text = table::text(&bytes).map_err(refused)?;
    for (n, line) in table::lines(text).enumerate() {
        let fields = line.fields().map_err(refused)?;
        if n == 0 && fields == HEADER {
            continue;
        }
        shown.push(span(&fields, labels).map_err(|what| refused(line.refused(&what)))?);
    }
    if shown.is_empty() {
        return Err(refused(format!("it holds no span: expected lines of {}", HEADER.join(","))));
    }
    Ok(shown)
}

fn span(fields: &[String], labels: &[String]) -> std::result::Result<Shown, String> {
    let expected = || format!("expected {}", HEADER.join(","));
    let [from, to, label] = fields else { return Err(expected()) };
    let (Ok(from_us), Ok(to_us)) = (from.parse(), to.parse()) else { return Err(expected()) };
    if from_us > to_us {
        return Err(format!("the span from {from_us} to {to_us} µs ends before it begins"));
    }
    if !labels.contains(label) {
        return Err(format!("'{label}' is none of the model's labels: {}", labels.join(", ")));
    }
    Ok(Shown { from_us, to_us, label: label.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prediction::Verdict;

    fn score(segments: &[(u64, u64, Option<u16>)]) -> DeckScore {
        let labels = ["a", "b", "c"].map(str::to_owned);
        let truth = [(10, 29, "a"), (50, 69, "b"), (90, 109, "c")];
        let truth =
            truth.map(|(from_us, to_us, label)| Shown { from_us, to_us, label: label.into() });
        let segment = |(from_us, to_us, class): &(u64, u64, Option<u16>)| Segment {
            from_us: *from_us,
            to_us: *to_us,
            verdict: Verdict { class: *class, ..Verdict::default() },
            ..Segment::default()
        };
        let segments: Vec<_> = segments.iter().map(segment).collect();
        score_deck(&truth, &segments, &labels)
    }

    /// Right, missed, invented.
    #[test]
    fn a_segment_belongs_to_the_span_that_it_overlaps_most() {
        let [a, b, c] = [Some(0), Some(1), Some(2)];
        for (segments, expected) in [
            (&[(10, 30, a), (50, 70, b), (90, 110, c)][..], [3, 0, 0]),
            (&[], [0, 3, 0]),
            // Two spans merged: the segment is the one's that it covers more.
            (&[(25, 70, b), (90, 110, c)], [2, 1, 0]),
            (&[(10, 70, a), (90, 110, c)], [2, 1, 0]),
            // It touches the one before, which has its own segment.
            (&[(10, 28, a), (28, 70, b), (90, 110, c)], [3, 0, 0]),
            (&[(28, 70, b), (90, 110, c)], [2, 1, 0]),
            // A span split: the longer part reads it, the other is invented.
            (&[(10, 15, b), (16, 30, a), (50, 70, b), (90, 110, c)], [3, 0, 1]),
            (&[(10, 23, b), (24, 30, a), (50, 70, b), (90, 110, c)], [2, 0, 1]),
            // Beside every span, and one without a name.
            (&[(0, 10, a), (10, 30, a), (30, 50, None), (50, 70, b), (90, 110, a)], [2, 0, 1]),
            (&[(10, 30, None), (50, 70, b), (110, 120, c)], [1, 2, 1]),
        ] {
            let DeckScore { right, missed, invented, .. } = score(segments);
            assert_eq!([right.right, missed, invented], expected, "{segments:?}");
            assert_eq!(right.n, 3);
        }
    }
}
