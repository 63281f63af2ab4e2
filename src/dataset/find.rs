//! Which files of a folder are recordings, and how they are labelled: by the folders they lie in,
//! or by a label file.
//!
//! Opens no recording.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Loading;
use crate::codec::FORMATS;
use crate::error::{Error, Result};
use crate::source::read_bounded;

/// Names of label files.
const LABEL_FILES: &[&str] = &["labels.csv", "labels.txt", "labels.tsv"];
/// Greatest size of a label file.
const MAX_LABEL_BYTES: u64 = 64 << 20;
/// Most recordings of a dataset.
const MAX_RECORDINGS: usize = 1 << 22;
/// First words of a label file's header line.
const HEADERS: &[&str] = &["file", "filename", "name", "path", "recording", "sample"];
/// Most names that a note lists.
const LISTED: usize = 3;

/// What a folder holds.
pub(super) struct Found {
    pub labels: Vec<String>,
    pub recordings: Vec<Recording>,
    pub notes: Vec<String>,
}

/// A labelled file.
pub(super) struct Recording {
    pub path: PathBuf,
    pub name: String,
    pub class: usize,
}

/// Finds all recordings, sorted by class, then by name in natural order.
pub(super) fn find(folder: &Path, loading: &Loading) -> Result<Found> {
    if !folder.is_dir() {
        let there = if folder.exists() { "is no folder" } else { "does not exist" };
        return Err(Error::Io {
            what: format!(
                "{} {there}: name a folder of class folders (cl/, di/, …), or one with a \
                 labels.csv",
                folder.display()
            ),
            source: std::io::ErrorKind::NotFound.into(),
        });
    }
    let mut notes = Vec::new();
    let list = LABEL_FILES.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let by_label = match list {
        Some(list) => by_label_file(folder, &list, loading, &mut notes)?,
        None => by_folders(folder, loading)?,
    };
    let mut labels: Vec<String> = by_label.keys().cloned().collect();
    labels.sort_by(|one, other| natural(one, other));
    if let Some(known) = &loading.labels {
        if let Some(strange) = labels.iter().find(|label| !known.contains(label)) {
            return Err(Error::Mismatch(format!(
                "{}: the class '{strange}' is none of the model's: {}",
                folder.display(),
                known.join(", ")
            )));
        }
        labels = known.clone();
    }
    let class = |label: &String| labels.iter().position(|known| known == label);
    let mut recordings = Vec::new();
    for (label, files) in &by_label {
        let Some(class) = class(label) else { continue };
        let of = |(name, path): &(String, PathBuf)| Recording {
            path: path.clone(),
            name: name.clone(),
            class,
        };
        recordings.extend(files.iter().map(of));
    }
    recordings.sort_by(|a, b| a.class.cmp(&b.class).then_with(|| natural(&a.name, &b.name)));
    if recordings.len() > MAX_RECORDINGS {
        return Err(Error::Mismatch(format!(
            "{}: {} recordings, of at most {MAX_RECORDINGS}",
            folder.display(),
            recordings.len()
        )));
    }
    if loading.labels.is_none() && labels.len() < 2 {
        return Err(Error::Mismatch(format!(
            "{}: {}; training needs two classes at least: put the recordings into a folder for \
             each class, or write a labels.csv",
            folder.display(),
            match labels.first() {
                Some(label) => format!("there is one class only, '{label}'"),
                None => "there are no recordings".to_owned(),
            }
        )));
    }
    Ok(Found { labels, recordings, notes })
}

type Labelled = BTreeMap<String, Vec<(String, PathBuf)>>;

fn by_folders(folder: &Path, loading: &Loading) -> Result<Labelled> {
    let mut labelled = Labelled::new();
    for class in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        let Some(label) = file_name(&class).filter(|name| !name.starts_with('.')) else { continue };
        let mut files = Vec::new();
        walk(&class, &label, loading, &mut files)?;
        if files.is_empty() {
            return Err(Error::Mismatch(format!(
                "{}: the class folder holds no recording; remove it, or put recordings there",
                class.display()
            )));
        }
        labelled.insert(label, files);
    }
    Ok(labelled)
}

/// All recordings below a folder, with their names below the dataset's.
fn walk(
    folder: &Path,
    name: &str,
    loading: &Loading,
    files: &mut Vec<(String, PathBuf)>,
) -> Result<()> {
    for path in entries(folder)? {
        let Some(own) = file_name(&path).filter(|own| !own.starts_with('.')) else { continue };
        let name = if name.is_empty() { own } else { format!("{name}/{own}") };
        if path.is_dir() {
            walk(&path, &name, loading, files)?;
        } else if is_recording(&path, loading) {
            files.push((name, path));
        }
    }
    Ok(())
}

fn by_label_file(
    folder: &Path,
    list: &Path,
    loading: &Loading,
    notes: &mut Vec<String>,
) -> Result<Labelled> {
    let bytes = read_bounded(list, MAX_LABEL_BYTES)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut files = Vec::new();
    walk(folder, "", loading, &mut files)?;
    files.retain(|(_, path)| path != list);
    // by full name, and by name without its extension where only one file has it
    let mut by_name: BTreeMap<&str, Option<usize>> = BTreeMap::new();
    for (k, (name, _)) in files.iter().enumerate() {
        by_name.insert(name, Some(k));
        let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
        by_name
            .entry(stem)
            .and_modify(|place| *place = place.filter(|p| *p == k))
            .or_insert(Some(k));
    }
    let mut labelled = Labelled::new();
    let mut used = vec![false; files.len()];
    let mut missing = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut fields = line.split([',', '\t', ';', ' ']).map(str::trim).filter(|f| !f.is_empty());
        let (Some(name), Some(label)) = (fields.next(), fields.next()) else {
            return Err(Error::Mismatch(format!(
                "{}: line {} is '{line}', expected a recording's name and its class, as \
                 heart_1.aedat,he",
                list.display(),
                n + 1
            )));
        };
        match by_name.get(name) {
            Some(Some(k)) if !used[*k] => {
                used[*k] = true;
                labelled.entry(label.to_owned()).or_default().push(files[*k].clone());
            }
            Some(Some(_)) => {
                return Err(Error::Mismatch(format!(
                    "{}: line {}: '{name}' is labelled twice",
                    list.display(),
                    n + 1
                )));
            }
            _ if missing.is_empty() && labelled.is_empty() && is_header(name) => (),
            _ => missing.push(name.to_owned()),
        }
    }
    let idle = files.iter().zip(&used).filter(|(_, used)| !**used);
    let idle: Vec<String> = idle.map(|((name, _), _)| name.clone()).collect();
    note_names(list, "labels without a recording", &missing, loading, notes)?;
    note_names(list, "recordings without a label", &idle, loading, notes)?;
    Ok(labelled)
}

fn is_header(name: &str) -> bool {
    HEADERS.contains(&name.to_ascii_lowercase().as_str())
}

fn note_names(
    list: &Path,
    what: &str,
    names: &[String],
    loading: &Loading,
    notes: &mut Vec<String>,
) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let listed = names[..names.len().min(LISTED)].join(", ");
    let more = if names.len() > LISTED { ", …" } else { "" };
    let note = format!("{}: {} {what}: {listed}{more}", list.display(), names.len());
    if loading.strict {
        return Err(Error::Mismatch(note));
    }
    notes.push(note);
    Ok(())
}

fn is_recording(path: &Path, loading: &Loading) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    let known = |own: &str| {
        let all = loading.format.map_or(FORMATS, std::slice::from_ref);
        all.iter().any(|format| format.extensions.contains(&own))
    };
    extension.is_some_and(|own| known(&own))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed =
        |source| Error::Io { what: format!("cannot read the folder {}", folder.display()), source };
    let entries = fs::read_dir(folder).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}

fn file_name(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// Order of names in which runs of digits count as numbers.
pub(super) fn natural(one: &str, other: &str) -> Ordering {
    let (mut a, mut b) = (one.as_bytes(), other.as_bytes());
    while let (Some(&x), Some(&y)) = (a.first(), b.first()) {
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (m, n) = (digits(&mut a), digits(&mut b));
            m.len().cmp(&n.len()).then_with(|| m.cmp(n))
        } else {
            (a, b) = (&a[1..], &b[1..]);
            x.cmp(&y)
        };
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len()).then_with(|| one.cmp(other))
}

/// Takes the leading digits, without leading zeros.
fn digits<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let n = text.iter().take_while(|c| c.is_ascii_digit()).count();
    let (mut taken, rest) = text.split_at(n);
    *text = rest;
    while taken.len() > 1 && taken[0] == b'0' {
        taken = &taken[1..];
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::natural;

    #[test]
    fn digits_count_as_numbers() {
        let mut names = ["cl_10", "cl_9", "cl_09b", "a", "cl_9a", "10", "9", "cl_9/2", "cl_9/10"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(
            names,
            ["9", "10", "a", "cl_9", "cl_9/2", "cl_9/10", "cl_9a", "cl_09b", "cl_10"]
        );
    }
}
