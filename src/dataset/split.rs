//! Splits: which recordings are trained on, and which are kept out.
//!
//! Knows samples, classes and times; no frames.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::find::natural;
use super::{Dataset, Sample};
use crate::error::{Error, Result};
use crate::source::read_bounded;
use crate::table;

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
    /// The file of the table, where there is one.
    pub fn table(&self) -> Option<&Path> {
        match self {
            Split::Table(path, _) => Some(path),
            Split::All | Split::First(_) | Split::Folds(_) => None,
        }
    }

    /// Shares recordings out. With `by_time`, recordings of a class that overlap in absolute time,
    /// directly or through others, stay on one side; for [`Split::First`] on the side of the first
    /// of them, so that more than so many may be trained on, but none is kept out that overlaps
    /// one of those. A table is taken as it is.
    ///
    /// # Errors
    /// [`Error::Usage`] where a side would be empty, a class would not be trained on, or a
    /// table does not fit the dataset.
    pub fn folds(&self, dataset: &Dataset, by_time: bool, seed: u64) -> Result<Vec<Fold>> {
        let folds = self.unhinted_folds(dataset, by_time, seed);
        folds.map_err(|error| match error {
            Error::Usage(what) if by_time => Error::Usage(format!(
                "{what} (--group-by time: recordings of a class that overlap in time are one group, \
                 also where all begin at 0)"
            )),
            error => error,
        })
    }

    fn unhinted_folds(&self, dataset: &Dataset, by_time: bool, seed: u64) -> Result<Vec<Fold>> {
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
        folds.iter().try_for_each(|fold| fold.check(dataset))?;
        Ok(folds)
    }
}

impl Fold {
    /// The fold of this name.
    ///
    /// # Errors
    /// [`Error::Usage`] lists those that there are.
    pub fn choose(folds: Vec<Fold>, name: &str) -> Result<Fold> {
        let names: Vec<_> = folds.iter().map(|fold| fold.name.clone()).collect();
        folds.into_iter().find(|fold| fold.name == name).ok_or_else(|| {
            let there = match names.join(", ") {
                none if none.is_empty() => "for none has a name: leave --fold out".to_owned(),
                names => format!("but {names}"),
            };
            Error::Usage(format!("--fold {name}: there is no such fold, {there}"))
        })
    }

    fn check(&self, dataset: &Dataset) -> Result<()> {
        let of = match self.name.as_str() {
            "" => String::new(),
            name => format!(" in fold {name}"),
        };
        let classes = |places: &[usize]| {
            let mut has = vec![false; dataset.labels.len()];
            places.iter().for_each(|k| has[dataset.samples[*k].class] = true);
            has
        };
        let (trained, kept_out) = (classes(&self.train), classes(&self.test));
        let untrained = (0..trained.len()).find(|class| !trained[*class] && kept_out[*class]);
        let what = if self.test.is_empty() {
            format!(
                "the split leaves no recording to be kept out{of}: all {} are trained on",
                self.train.len()
            )
        } else if self.train.is_empty() {
            format!("the split leaves no recording to be trained on{of}")
        } else if let Some(class) = untrained {
            let label = &dataset.labels[class];
            format!("the split leaves no recording of class '{label}' to be trained on{of}")
        } else {
            return Ok(());
        };
        Err(Error::Usage(what))
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
    let mut seen = BTreeMap::new();
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
    let mut sizes = vec![0; samples.len()];
    groups.iter().for_each(|group| sizes[*group] += 1);
    let mut dealt: Vec<usize> = (0..samples.len()).filter(|group| sizes[*group] > 0).collect();
    if n < 2 || n > dealt.len() {
        let most = dealt.len();
        return Err(Error::Usage(format!(
            "--folds {n}: from 2 to {most} are possible, of {} recordings in {most} groups",
            samples.len()
        )));
    }
    dealt.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    dealt.sort_by_key(|group| (samples[*group].class, Reverse(sizes[*group])));
    let mut fold_of = vec![0; samples.len()];
    let (mut of_all, mut of_class) = (vec![0; n], vec![0; n]);
    let mut class = None;
    for group in dealt {
        if class.replace(samples[group].class) != Some(samples[group].class) {
            of_class.fill(0);
        }
        let fold = (0..n).min_by_key(|fold| (of_class[*fold], of_all[*fold])).unwrap_or(0);
        of_class[fold] += sizes[group];
        of_all[fold] += sizes[group];
        fold_of[group] = fold;
    }
    let fold = |fold: usize| {
        let (test, train) = (0..samples.len()).partition(|k| fold_of[groups[*k]] == fold);
        Fold { name: fold.to_string(), train, test }
    };
    Ok((0..n).map(fold).collect())
}

fn table(samples: &[Sample], path: &Path, column: &str) -> Result<Vec<Fold>> {
    let refused = |what: String| Error::Usage(format!("{}: {what}", path.display()));
    let bytes = read_bounded(path, MAX_TABLE_BYTES).map_err(|error| refused(error.to_string()))?;
    let text = table::text(&bytes).map_err(refused)?;
    let rows = table::lines(text).map(|line| line.fields()).collect::<std::result::Result<_, _>>();
    let rows: Vec<Vec<String>> = rows.map_err(refused)?;
    let (header, rows) = rows.split_first().ok_or_else(|| refused("it is empty".to_owned()))?;
    let place = |name: &str| {
        let place = header.iter().position(|own| own == name);
        place.ok_or_else(|| {
            refused(format!("there is no column '{name}'; there are {}", header.join(", ")))
        })
    };
    let (file_at, value_at) = (place("file")?, place(column)?);
    let mut of_file = BTreeMap::new();
    for fields in rows {
        let (Some(file), Some(value)) = (fields.get(file_at), fields.get(value_at)) else {
            continue;
        };
        if of_file.insert(file.as_str(), value.as_str()).is_some_and(|other| other != value) {
            return Err(refused(format!("{file} stands there twice, with different folds")));
        }
    }
    let value = |sample: &Sample| {
        let value = of_file.get(sample.name.as_str()).copied().filter(|value| !value.is_empty());
        value.ok_or_else(|| refused(format!("there is no '{column}' for {}", sample.name)))
    };
    let values = samples.iter().map(value).collect::<Result<Vec<&str>>>()?;
    let fold = |name: &str, kept_out: &str| {
        let (test, train) = (0..values.len()).partition(|k| values[*k] == kept_out);
        Fold { name: name.to_owned(), train, test }
    };
    if values.iter().all(|value| ["train", "test"].contains(value)) {
        return Ok(vec![fold("", "test")]);
    }
    let other = values.iter().find(|value| !["train", "test"].contains(value));
    if let (true, Some(other)) = (values.contains(&"train"), other) {
        return Err(refused(format!(
            "the column '{column}' holds 'train' beside '{other}': it names folds, or holds 'train' \
             and 'test' alone"
        )));
    }
    let mut names = values.clone();
    names.sort_by(|one, other| natural(one, other));
    names.dedup();
    Ok(names.iter().map(|name| fold(name, name)).collect())
}
