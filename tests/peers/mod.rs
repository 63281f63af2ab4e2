//! Where the programs of others are, and how a test says that one is not there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::skip::skip;

/// The Python that has all these packages.
pub fn python(packages: &[&str]) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = std::env::var_os("DVS_INTEROP_PYTHON")
        .map_or_else(|| root.join("target/interop-venv/bin/python"), PathBuf::from);
    let lacking: Vec<&str> =
        packages.iter().copied().filter(|package| !has(&path, package)).collect();
    if lacking.is_empty() {
        return Some(path);
    }
    skip(&format!(
        "{} is not in {}; tests/interop/setup.sh brings it",
        lacking.join(" and "),
        path.display()
    ));
    None
}

fn has(python: &Path, package: &str) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", &format!("import {package}")]).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
