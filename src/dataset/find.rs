//! Which files of a folder are recordings, and how they are labelled: by the folders they lie in,
//! or by a label file.
//!
//! Looks at names and marks; decodes nothing.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Loading;
use super::labels::{Labels, MAX_LABEL_BYTES};
use crate::codec::probe::PROBE_BYTES;
use crate::codec::{FORMATS, Probe, probe};
use crate::error::{Error, Result};
use crate::model::check_labels;
use crate::source::read_bounded;
use crate::store::unfinished;
use crate::table;

/// Names of label files.
const LABEL_FILES: &[&str] = &["labels.csv", "labels.txt", "labels.tsv"];
/// What a folder holds that is a training's report beside its model, and no class.
const REPORT: &str = "report.json";
/// Most recordings of a dataset.
const MAX_RECORDINGS: usize = 1 << 22;
/// Folders within folders.
const MAX_DEPTH: usize = 16;
/// Most names that a note lists.
const LISTED: usize = 3;

/// What a folder holds.
pub(super) struct Found {
    pub labels: Vec<String>,
    pub recordings: Vec<Recording>,
    pub notes: Vec<String>,
    pub ignored: usize,
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
        let there = if folder.exists() { "it is no folder" } else { "there is no such folder" };
        return Err(refused(
            folder,
            format!("{there}: name one of class folders (cl/, di/, …), or with a labels.csv"),
        ));
    }
    let mut search =
        Search { folder, loading, notes: Vec::new(), ignored: 0, found: 0, unfinished: Vec::new() };
    let list = LABEL_FILES.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    let by_label = match list {
        Some(list) => search.by_label_file(&list)?,
        None => search.by_folders()?,
    };
    let Search { mut notes, ignored, unfinished, .. } = search;
    if !unfinished.is_empty() {
        let what = as_note(["file is", "files are"], "unfinished (.part)", unfinished);
        notes.push(format!("{}: {what}", folder.display()));
    }
    let labels = settle_labels(folder, loading, &by_label)?;
    let mut recordings = Vec::new();
    for (class, label) in labels.iter().enumerate() {
        let files = by_label.get(label).into_iter().flatten().cloned();
        recordings.extend(files.map(|(name, path)| Recording { path, name, class }));
    }
    recordings.sort_by(|a, b| a.class.cmp(&b.class).then_with(|| natural(&a.name, &b.name)));
    Ok(Found { labels, recordings, notes, ignored })
}

/// Whether a path is a recording or the label file of the dataset in that folder.
pub fn is_of_dataset(path: &Path, folder: &Path, loading: &Loading) -> bool {
    let (Ok(whole), Ok(within)) = (path.canonicalize(), folder.canonicalize()) else {
        return false;
    };
    // What lies there may be links to what lies elsewhere.
    let is_own = |own: &Path| own.canonicalize().is_ok_and(|own| own == whole);
    LABEL_FILES.iter().any(|name| is_own(&folder.join(name)))
        || whole.starts_with(within) && is_recording(&whole, loading)
        || find(folder, loading).is_ok_and(|found| found.recordings.iter().any(|r| is_own(&r.path)))
}

/// By label, names below the dataset's folder and paths.
type Labelled = BTreeMap<String, Vec<(String, PathBuf)>>;

/// The model's labels, or those that were found, in natural order.
fn settle_labels(folder: &Path, loading: &Loading, found: &Labelled) -> Result<Vec<String>> {
    let mut labels: Vec<String> = found.keys().cloned().collect();
    labels.sort_by(|one, other| natural(one, other));
    let what = match (labels.as_slice(), &loading.labels) {
        ([], _) => "there are no labelled recordings: put them into a folder for each class, or \
                    write a labels.csv of names and classes"
            .to_owned(),
        (_, Some(known)) => match labels.iter().find(|label| !known.contains(label)) {
            None => return Ok(known.clone()),
            Some(strange) => {
                format!("the class '{strange}' is none of the model's: {}", known.join(", "))
            }
        },
        ([only], None) => {
            format!("there is one class only, '{only}': training takes two at least")
        }
        _ => match check_labels(&labels) {
            Ok(()) => return Ok(labels),
            Err(error) => error.to_string(),
        },
    };
    Err(refused(folder, what))
}

struct Search<'a> {
    folder: &'a Path,
    loading: &'a Loading,
    notes: Vec<String>,
    ignored: usize,
    found: usize,
    /// Names of recordings that are not whole.
    unfinished: Vec<String>,
}

impl Search<'_> {
    fn by_folders(&mut self) -> Result<Labelled> {
        let (mut labelled, mut loose) = (Labelled::new(), Vec::new());
        for class in entries(self.folder)? {
            let label = file_name(&class);
            if !class.is_dir() {
                self.take(class, label, &mut loose)?;
                continue;
            }
            if label.starts_with('.') {
                continue;
            }
            let mut files = Vec::new();
            self.walk(&class, &label, 1, &mut files)?;
            if files.is_empty() && class.join(REPORT).is_file() {
                continue;
            }
            if files.is_empty() {
                let what = "the class folder holds no recording: put some there, or remove it";
                return Err(refused(&class, what.to_owned()));
            }
            labelled.insert(label, files);
        }
        let loose: Vec<_> = loose.into_iter().map(|(name, _)| name).collect();
        self.note(self.folder, ["recording lies", "recordings lie"], "in no class folder", loose)?;
        Ok(labelled)
    }

    fn by_label_file(&mut self, list: &Path) -> Result<Labelled> {
        let bytes =
            read_bounded(list, MAX_LABEL_BYTES).map_err(|e| refused(list, e.to_string()))?;
        let mut files = Vec::new();
        self.walk(self.folder, "", 0, &mut files)?;
        let labels = table::text(&bytes).and_then(|text| Labels::read(text, &files));
        let labels = labels.map_err(|what| refused(list, what))?;
        let mut labelled = Labelled::new();
        let mut unlabelled = Vec::new();
        for (file, label) in files.into_iter().zip(labels.of_files) {
            match label {
                Some(label) => labelled.entry(label).or_default().push(file),
                None => unlabelled.push(file.0),
            }
        }
        if let (true, Some(name)) = (labelled.is_empty(), labels.without_file.first()) {
            let n = labels.without_file.len();
            let what = format!("none of its {n} names is a recording here, as '{name}'");
            return Err(refused(list, what));
        }
        self.note(list, ["label has", "labels have"], "no recording", labels.without_file)?;
        self.note(list, ["recording has", "recordings have"], "no label", unlabelled)?;
        Ok(labelled)
    }

    /// All recordings below a folder, with their names below the dataset's.
    fn walk(
        &mut self,
        folder: &Path,
        name: &str,
        depth: usize,
        files: &mut Vec<(String, PathBuf)>,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            let what = format!("folders lie {MAX_DEPTH} deep: does a link lead back?");
            return Err(refused(folder, what));
        }
        for path in entries(folder)? {
            let own = file_name(&path);
            let name = if name.is_empty() { own.clone() } else { format!("{name}/{own}") };
            if !path.is_dir() {
                self.take(path, name, files)?;
            } else if !own.starts_with('.') {
                self.walk(&path, &name, depth + 1, files)?;
            }
        }
        Ok(())
    }

    /// Takes the file where it is a recording; else counts it.
    fn take(
        &mut self,
        path: PathBuf,
        name: String,
        files: &mut Vec<(String, PathBuf)>,
    ) -> Result<()> {
        if !is_recording(&path, self.loading) {
            self.ignored += usize::from(!LABEL_FILES.contains(&name.as_str()));
            return Ok(());
        }
        if unfinished(&file_name(&path)).is_some() {
            self.unfinished.push(name);
            return Ok(());
        }
        self.found += 1;
        if self.found > MAX_RECORDINGS {
            let what = format!("there are more than {MAX_RECORDINGS} recordings");
            return Err(refused(self.folder, what));
        }
        files.push((name, path));
        Ok(())
    }

    /// A note on these names, where there are any; an error where the user wants it strict.
    fn note(
        &mut self,
        path: &Path,
        number: [&str; 2],
        what: &str,
        names: Vec<String>,
    ) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let note = as_note(number, what, names);
        if self.loading.strict {
            return Err(refused(path, note));
        }
        self.notes.push(format!("{}: {note}", path.display()));
        Ok(())
    }
}

fn as_note([one, several]: [&str; 2], what: &str, mut names: Vec<String>) -> String {
    names.sort_by(|one, other| natural(one, other));
    let listed = names[..names.len().min(LISTED)].join(", ");
    let more = if names.len() > LISTED { ", …" } else { "" };
    match names.len() {
        1 => format!("1 {one} {what} and is left out: {listed}"),
        n => format!("{n} {several} {what} and are left out: {listed}{more}"),
    }
}

fn refused(path: &Path, what: String) -> Error {
    Error::Usage(format!("{}: {what}", path.display()))
}

/// Whether the name has a recording's extension or the bytes a recording's mark. Tables are `.csv`
/// too, so of those only what reads as events.
fn is_recording(path: &Path, loading: &Loading) -> bool {
    if file_name(path).starts_with('.') || !path.is_file() {
        return false;
    }
    let own = path.extension().map(|own| own.to_string_lossy().to_ascii_lowercase());
    let named = |own: &str| {
        let formats = loading.format.map_or(FORMATS, std::slice::from_ref);
        formats.iter().any(|format| format.extensions.contains(&own))
    };
    match own.as_deref() {
        Some("csv") => is_marked(path),
        Some(own) if named(own) => true,
        _ => is_marked(path),
    }
}

/// A file that cannot be opened has no mark.
fn is_marked(path: &Path) -> bool {
    let mut prefix = Vec::new();
    let read = File::open(path)
        .and_then(|file| file.take(PROBE_BYTES as u64).read_to_end(&mut prefix).map(drop));
    let name = file_name(path);
    read.is_ok() && matches!(probe(&prefix, Some(&name), true), Probe::Format(_))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed =
        |source| Error::Io { what: format!("cannot read the folder {}", folder.display()), source };
    let entries = fs::read_dir(folder).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
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
