//! Scores as people and programs read them.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::eval::DeckScore;
use crate::score::{Score, Share};

/// What a score's reader should know of the training.
#[derive(Clone, Copy, Default)]
pub struct Caveats {
    /// The recordings chose the weights that it is the score of.
    pub optimistic: bool,
    /// It was interrupted before its last epoch was over.
    pub interrupted: bool,
}

/// A table for people; `of` says which recordings these are.
pub fn as_text(score: &Score, of: &str) -> String {
    let mut text = String::new();
    // writing to a string cannot fail
    let _ = writeln!(text, "accuracy {} of recordings {of}", share(&score.accuracy));
    let width = score.labels.iter().map(String::len).max().unwrap_or(0).max(7);
    for (label, own) in score.labels.iter().zip(&score.by_class) {
        let _ = writeln!(text, "  {label:width$}  {}", share(own));
    }
    let _ = write!(text, "\n{:width$}  read as", "true");
    for label in score.labels.iter().map(String::as_str).chain(["unknown"]) {
        let _ = write!(text, "  {label:>7}");
    }
    text.push('\n');
    for (label, row) in score.labels.iter().zip(&score.confusion) {
        let _ = write!(text, "{label:width$}         ");
        for (n, name) in row.iter().zip(score.labels.iter().map(String::as_str).chain(["unknown"]))
        {
            let _ = write!(text, "  {n:>w$}", w = name.len().max(7));
        }
        text.push('\n');
    }
    let _ = write!(text, "\nafter ms  ");
    for (ms, _) in score.anytime() {
        let _ = write!(text, " {ms:>6}");
    }
    let _ = write!(text, "\naccuracy %");
    for (_, accuracy) in score.anytime() {
        let _ = write!(text, " {:>6.1}", 100.0 * accuracy);
    }
    let _ = writeln!(
        text,
        "\n\n{:.0} synaptic operations and {:.1} spikes a window, {} windows",
        score.synaptic_operations, score.spikes, score.windows
    );
    text
}

/// Cross-validation, a line a fold, and their sum. What is `optimistic` chose the epoch of the
/// network that it is the score of.
pub fn folds_as_text(optimistic: bool, folds: &[(&str, &Score)]) -> String {
    let optimistic =
        if optimistic { ", optimistic: each fold chose its network's epoch" } else { "" };
    let mut text = format!("cross-validation{optimistic}\n");
    for (name, score) in folds {
        let _ = writeln!(text, "  fold {name}  {}", share(&score.accuracy));
    }
    let _ = writeln!(text, "  all     {}\n", share(&all_folds(folds)));
    text
}

/// Of all folds together.
fn all_folds(folds: &[(&str, &Score)]) -> Share {
    folds.iter().map(|(_, score)| score.accuracy).sum()
}

/// A share with its interval.
pub fn share(share: &Share) -> String {
    let Share { right, n, share, low, high } = share;
    format!(
        "{:.1} % ({right} of {n}; 95 % interval {:.1} to {:.1})",
        100.0 * share,
        100.0 * low,
        100.0 * high
    )
}

/// One recording's answer as JSON.
pub fn reading_as_json(
    name: &str,
    label: &str,
    read: Option<&str>,
    confidence: f32,
) -> serde_json::Result<String> {
    let value = json!({
        "type": "recording", "name": name, "class": label, "label": read, "confidence": confidence
    });
    serde_json::to_string(&value)
}

/// A deck's score as JSON.
pub fn deck_as_json(score: &DeckScore) -> serde_json::Result<String> {
    let mut value = serde_json::to_value(score)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("type".to_owned(), "deck".into());
    }
    serde_json::to_string(&value)
}

/// One JSON object.
pub fn as_json(
    kind: &str,
    of: &str,
    Caveats { optimistic, interrupted }: Caveats,
    score: &Score,
    folds: &[(&str, &Score)],
) -> serde_json::Result<String> {
    let mut value = json!({ "type": kind, "recordings": of });
    if let (Some(all), Value::Object(own)) = (value.as_object_mut(), serde_json::to_value(score)?) {
        all.extend(own);
        let anytime: Vec<_> = score
            .anytime()
            .iter()
            .map(|(ms, share)| json!({"ms": ms, "accuracy": share}))
            .collect();
        all.insert("anytime".to_owned(), anytime.into());
        let caveats = [("optimistic", optimistic), ("interrupted", interrupted)];
        for (key, _) in caveats.into_iter().filter(|(_, is_so)| *is_so) {
            all.insert(key.to_owned(), true.into());
        }
        if !folds.is_empty() {
            all.extend(cross_validation(optimistic, folds)?);
        }
    }
    serde_json::to_string(&value)
}

/// The folds of a cross-validation that ended before a model was trained, as JSON.
pub fn folds_as_json(optimistic: bool, folds: &[(&str, &Score)]) -> serde_json::Result<String> {
    let mut value = json!({ "type": "cross_validation" });
    if let Some(all) = value.as_object_mut() {
        all.extend(cross_validation(optimistic, folds)?);
    }
    serde_json::to_string(&value)
}

fn cross_validation(
    optimistic: bool,
    folds: &[(&str, &Score)],
) -> serde_json::Result<Map<String, Value>> {
    let mut sum = serde_json::to_value(all_folds(folds))?;
    let mut own: Vec<_> =
        folds.iter().map(|(name, score)| json!({"fold": name, "score": score})).collect();
    let marked = own.iter_mut().chain([&mut sum]).filter(|_| optimistic);
    marked.filter_map(Value::as_object_mut).for_each(|object| {
        object.insert("optimistic".to_owned(), true.into());
    });
    let pairs = [("cross_validation", sum), ("folds", own.into())];
    Ok(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}
