//! Labelled recordings to run the program on.

use std::path::Path;

use tempfile::TempDir;

use crate::program::check;

/// A folder of class folders with synthetic pips.
pub fn pips(per_class: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("pips");
    let per_class = per_class.to_string();
    check(&["synth", "-q", "--out", text(&out), "--per-class", &per_class, "--seed", "3"], 0);
    folder
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
