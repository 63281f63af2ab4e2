//! Label files: lines of a recording's name and its class.
//!
//! Knows text and names; opens no file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::table;

/// Greatest size of a label file.
pub(super) const MAX_LABEL_BYTES: u64 = 64 << 20;
/// Names of the column of recordings.
const NAME_COLUMNS: &[&str] = &["file", "filename", "name", "path", "recording", "sample"];
/// Names of the column of classes, where it is not the one after that of recordings.
const LABEL_COLUMNS: &[&str] = &["class", "label", "category", "target"];

/// What a label file says of the files that there are.
pub(super) struct Labels {
    /// Label of each file.
    pub of_files: Vec<Option<String>>,
    /// Names that no file has.
    pub without_file: Vec<String>,
}

impl Labels {
    /// Reads lines of a name, with or without its extension, and a class, between them a comma, a
    /// semicolon, a tab or blanks, in quotes where they hold one of these. Passes over empty lines and
    /// `#` comments. A first line may name the columns; without one there are two.
    ///
    /// # Errors
    /// What is wrong, and in which line.
    pub fn read(text: &str, files: &[(String, PathBuf)]) -> Result<Labels, String> {
        let names = Names::of(files);
        let mut labels = Labels { of_files: vec![None; files.len()], without_file: Vec::new() };
        let (mut first, mut columns) = (true, None);
        for line in table::lines(text).filter(|line| !line.text.starts_with('#')) {
            let fail = |what: String| Err(line.refused(&what));
            let fields = line.fields()?;
            if std::mem::take(&mut first) {
                columns = Columns::named(&fields).filter(|columns| {
                    let name = columns.of(&fields).map(|(name, _)| names.find(name));
                    matches!(name, Some(Place::None))
                });
                if columns.is_some() {
                    continue;
                }
            }
            let filled: Vec<_> = fields.iter().filter(|field| !field.is_empty()).collect();
            let named = match (columns, filled.as_slice()) {
                (Some(columns), _) => columns.of(&fields),
                (None, [name, label]) => Some((name.as_str(), label.as_str())),
                (None, [] | [_]) => None,
                (None, _) => {
                    return fail(format!(
                        "'{}' has more than a recording's name and its class: name the columns in a \
                         first line, as in `name,class,…`",
                        line.shown()
                    ));
                }
            };
            let Some((name, label)) = named else {
                return fail(format!(
                    "'{}' is not a recording's name and its class, as in `heart_1.aedat,he`",
                    line.shown()
                ));
            };
            match names.find(name) {
                Place::One(k) => match &labels.of_files[k] {
                    Some(_) => return fail(format!("'{name}' has a label already")),
                    None => labels.of_files[k] = Some(label.to_owned()),
                },
                Place::Several => {
                    return fail(format!("'{name}' names several files: give the extension"));
                }
                Place::None => labels.without_file.push(name.to_owned()),
            }
        }
        Ok(labels)
    }
}

/// Where a line has its recording's name and its class.
#[derive(Clone, Copy)]
struct Columns {
    name: usize,
    label: usize,
}

impl Columns {
    /// Those of a line of names.
    fn named(fields: &[String]) -> Option<Self> {
        let place = |known: &[&str]| {
            fields.iter().position(|own| known.contains(&own.to_ascii_lowercase().as_str()))
        };
        let name = place(NAME_COLUMNS)?;
        Some(Columns { name, label: place(LABEL_COLUMNS).unwrap_or(name + 1) })
    }

    fn of<'a>(&self, fields: &'a [String]) -> Option<(&'a str, &'a str)> {
        let field = |k: usize| fields.get(k).map(String::as_str).filter(|own| !own.is_empty());
        Some((field(self.name)?, field(self.label)?))
    }
}

enum Place {
    None,
    One(usize),
    Several,
}

/// Files by name, and by name without extension.
struct Names<'a> {
    whole: BTreeMap<&'a str, usize>,
    stems: BTreeMap<&'a str, Vec<usize>>,
}

impl<'a> Names<'a> {
    fn of(files: &'a [(String, PathBuf)]) -> Self {
        let mut names = Names { whole: BTreeMap::new(), stems: BTreeMap::new() };
        for (k, (name, _)) in files.iter().enumerate() {
            names.whole.insert(name, k);
            let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
            names.stems.entry(stem).or_default().push(k);
        }
        names
    }

    fn find(&self, name: &str) -> Place {
        let name = name.trim_start_matches("./");
        match (self.whole.get(name), self.stems.get(name).map(Vec::as_slice)) {
            (Some(k), _) | (None, Some([k])) => Place::One(*k),
            (None, None | Some([])) => Place::None,
            (None, Some(_)) => Place::Several,
        }
    }
}
