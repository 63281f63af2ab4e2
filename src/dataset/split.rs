//! Splits: which recordings are trained on, and which are kept out.
//!
//! Knows samples, classes and times; no frames.

use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Dataset, Sample};
use crate::error::{Error, Result};
use crate::source::read_bounded;

/// Greatest size of a table of folds.
const MAX_TABLE_BYTES: u64 = 64 << 20;

/// How recordings are shared out.
#[derive(Clone, Debug, PartialEq)]
pub enum Split {
    /// All are trained on.
    All,
    /// The first so many of each class, in natural order of their names, are trained on.
    First(usize),
    /// So many folds, dealt by the seed, the classes evenly.
    Folds(usize),
    /// Folds by a column of a table, whose column `file` names the recordings. A column of `train`
    /// and `test` is one fold.
    Table(PathBuf, String),
}

/// One way to train: places in [`Dataset::samples`].
#[derive(Clone, Debug, PartialEq)]
pub struct Fold {
    /// Its name, `0`, `1`, … or empty where there is one.
    pub name: String,
    /// Trained on.
    pub train: Vec<usize>,
    /// Kept out.
    pub test: Vec<usize>,
}

impl Split {
    /// Shares recordings out. With `by_time`, recordings of a class that overlap in absolute time,
    /// directly or through others, stay on one side: on the side of the group's first recording
    /// for [`Split::First`].
    ///
    /// # Errors
    /// [`Error::Mismatch`] where a side would be empty, or a table does not fit the dataset.
    pub fn folds(&self, dataset: &Dataset, by_time: bool, seed: u64) -> Result<Vec<Fold>> {
        let samples = &dataset.samples;
        let groups = if by_time { groups(samples) } else { (0..samples.len()).collect() };
        let folds = match self {
            Split::All => {
                let train = (0..samples.len()).collect();
                return Ok(vec![Fold { name: String::new(), train, test: vec![] }]);
            }
            Split::First(n) => vec![first(samples, &groups, *n)],
            Split::Folds(n) => deal(samples, &groups, *n, seed)?,
            Split::Table(path, column) => table(samples, path, column)?,
        };
        for fold in &folds {
            for (side, places) in [("trained on", &fold.train), ("kept out", &fold.test)] {
                if places.is_empty() {
                    return Err(Error::Mismatch(format!(
                        "the split leaves no recording to be {side}{}",
                        if fold.name.is_empty() {
                            String::new()
                        } else {
                            format!(" in fold {}", fold.name)
                        }
                    )));
                }
            }
            if let Some(label) = dataset.labels.iter().enumerate().find_map(|(class, label)| {
                let has = fold.train.iter().any(|k| samples[*k].class == class);
                (!has).then_some(label)
            }) {
                return Err(Error::Mismatch(format!(
                    "the split leaves no recording of class '{label}' to be trained on"
                )));
            }
        }
        Ok(folds)
    }
}

/// For each recording the first one of its group: recordings of a class that overlap in absolute
/// time, directly or through others.
pub fn groups(samples: &[Sample]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by_key(|k| (samples[*k].class, samples[*k].first_us, *k));
    let mut group = vec![0; samples.len()];
    let mut members: Vec<usize> = Vec::new();
    let mut until_us = 0;
    let mut close = |members: &mut Vec<usize>| {
        let first = members.iter().copied().min().unwrap_or(0);
        members.drain(..).for_each(|k| group[k] = first);
    };
    for k in order {
        let Sample { class, first_us, last_us, .. } = samples[k];
        let apart =
            members.last().is_some_and(|m| samples[*m].class != class || first_us > until_us);
        if apart {
            close(&mut members);
            until_us = 0;
        }
        members.push(k);
        until_us = until_us.max(last_us);
    }
    close(&mut members);
    group
}

fn first(samples: &[Sample], groups: &[usize], n: usize) -> Fold {
    let mut seen = std::collections::BTreeMap::new();
    let mut trained = vec![false; samples.len()];
    for (k, sample) in samples.iter().enumerate() {
        let place = seen.entry(sample.class).or_insert(0);
        trained[k] = if groups[k] < k { trained[groups[k]] } else { *place < n };
        *place += 1;
    }
    let (train, test) = (0..samples.len()).partition(|k| trained[*k]);
    Fold { name: String::new(), train, test }
}

/// Groups are dealt class by class, the largest first, each to the fold that has fewest
/// recordings of the class, then fewest of all.
fn deal(samples: &[Sample], groups: &[usize], n: usize, seed: u64) -> Result<Vec<Fold>> {
    let mut firsts: Vec<usize> = groups.to_vec();
    firsts.sort_unstable();
    firsts.dedup();
    if n < 2 || n > firsts.len() {
        return Err(Error::Mismatch(format!(
            "--folds {n}: 2 to {} folds are possible with these recordings",
            firsts.len()
        )));
    }
    firsts.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let size = |first: usize| groups.iter().filter(|g| **g == first).count();
    firsts.sort_by_key(|first| (samples[*first].class, std::cmp::Reverse(size(*first))));
    let mut fold_of = vec![0; samples.len()];
    let mut sums = vec![0usize; n];
    let mut of_class = vec![0usize; n];
    let mut class = None;
    for first in firsts {
        if class != Some(samples[first].class) {
            class = Some(samples[first].class);
            of_class.fill(0);
        }
        let fold = (0..n).min_by_key(|fold| (of_class[*fold], sums[*fold])).unwrap_or(0);
        of_class[fold] += size(first);
        sums[fold] += size(first);
        let members = (0..samples.len()).filter(|k| groups[*k] == first);
        members.for_each(|k| fold_of[k] = fold);
    }
    let fold = |fold: usize| {
        let (test, train) = (0..samples.len()).partition(|k| fold_of[*k] == fold);
        Fold { name: fold.to_string(), train, test }
    };
    Ok((0..n).map(fold).collect())
}

fn table(samples: &[Sample], path: &Path, column: &str) -> Result<Vec<Fold>> {
    let bytes = read_bounded(path, MAX_TABLE_BYTES)?;
    let text = String::from_utf8_lossy(&bytes);
    let refuse = |what: String| Err(Error::Mismatch(format!("{}: {what}", path.display())));
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split(',').map(str::trim).collect();
    let place = |name: &str| header.iter().position(|own| *own == name);
    let (Some(file_at), Some(at)) = (place("file"), place(column)) else {
        let lacking = if place("file").is_none() { "file" } else { column };
        return refuse(format!("it has no column '{lacking}', but {}", header.join(", ")));
    };
    let mut values: Vec<Option<&str>> = vec![None; samples.len()];
    for line in lines {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let (Some(file), Some(value)) = (fields.get(file_at), fields.get(at)) else { continue };
        if let Some(k) = samples.iter().position(|sample| sample.name == *file) {
            values[k] = Some(value);
        }
    }
    if let Some(k) = values.iter().position(Option::is_none) {
        return refuse(format!("it does not name the recording {}", samples[k].name));
    }
    let values: Vec<&str> = values.into_iter().flatten().collect();
    let split = |name: &str, kept_out: &dyn Fn(&str) -> bool| {
        let (test, train) = (0..values.len()).partition(|k| kept_out(values[*k]));
        Fold { name: name.to_owned(), train, test }
    };
    if values.iter().all(|value| ["train", "test"].contains(value)) {
        return Ok(vec![split("", &|value| value == "test")]);
    }
    let mut names = values.clone();
    names.sort_by(|a, b| super::find::natural(a, b));
    names.dedup();
    Ok(names.iter().map(|name| split(name, &|value| value == *name)).collect())
}
