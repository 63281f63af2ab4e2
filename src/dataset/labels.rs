//! Label files: lines of a recording's name and its class.
//!
//! Knows text and names; opens no file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::table;

/// Greatest size of a label file.
pub(super) const MAX_LABEL_BYTES: u64 = 64 << 20;
/// First words of a header line.
const HEADERS: &[&str] = &["file", "filename", "name", "path", "recording", "sample"];

/// What a label file says of the files that there are.
pub(super) struct Labels {
    /// Label of each file.
    pub of_files: Vec<Option<String>>,
    /// Names that no file has.
    pub without_file: Vec<String>,
}

impl Labels {
    /// Reads lines of a name, with or without its extension, and a class, between them a comma, a
    /// semicolon, a tab or blanks, in quotes where they hold one of these. Passes over empty lines, `#`
    /// comments and a header.
    ///
    /// # Errors
    /// What is wrong, and in which line.
    pub fn read(text: &str, files: &[(String, PathBuf)]) -> Result<Labels, String> {
        let names = Names::of(files);
        let mut labels = Labels { of_files: vec![None; files.len()], without_file: Vec::new() };
        let mut first = true;
        for line in table::lines(text).filter(|line| !line.text.starts_with('#')) {
            let fail = |what: String| Err(line.refused(&what));
            let fields = line.fields()?;
            let mut fields = fields.iter().map(String::as_str).filter(|field| !field.is_empty());
            let (Some(name), Some(label)) = (fields.next(), fields.next()) else {
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
                Place::None if first && is_header(name) => (),
                Place::None => labels.without_file.push(name.to_owned()),
            }
            first = false;
        }
        Ok(labels)
    }
}

fn is_header(name: &str) -> bool {
    HEADERS.contains(&name.to_ascii_lowercase().as_str())
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
