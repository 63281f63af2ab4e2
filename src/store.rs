//! Files that are written whole or not at all: beside the old one, then renamed over it.
//!
//! Knows bytes and paths, nothing of what they hold.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes a file in place of an old one, which stays as it was until the new one is complete.
///
/// # Errors
/// [`Error::Io`] names the file; nothing is left of a new one that could not be completed.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = beside(path);
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| {
        // It may never have come to be.
        let _ = fs::remove_file(&beside);
        Error::Io { what: format!("cannot write {}", path.display()), source }
    })
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}
