//! The program, and labelled recordings to run it on.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_dvs-stream");

/// Runs, expects an exit code; gives standard output and standard error.
pub fn check(arguments: &[&str], code: i32) -> (String, String) {
    let output = Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().unwrap();
    let Output { status, stdout, stderr } = output;
    let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(status.code(), Some(code), "{arguments:?}: {stderr}");
    (stdout, stderr)
}

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
