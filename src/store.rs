//! Files that are written whole or not at all: beside the old one, then renamed over it.
//!
//! Knows bytes and paths, nothing of what they hold.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes a file in place of an old one, which stays as it was until the new one is complete.
///
/// # Errors
/// [`Error::Io`] names the file; nothing is left of a new one that could not be completed.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = Replacement::create(path)?;
    file.write(bytes)?;
    file.complete()
}

/// A file that is being written, and takes an old one's place once it is complete. Dropped before,
/// it leaves nothing. What is no file, a pipe, a device or a link such as `/dev/stdout`, is written
/// through as it is.
pub struct Replacement {
    path: PathBuf,
    /// Where it is until then.
    beside: Option<PathBuf>,
    file: BufWriter<File>,
}

impl Replacement {
    /// Begins a file.
    ///
    /// # Errors
    /// As of every call: [`Error::Io`] names the file.
    pub fn create(path: &Path) -> Result<Self> {
        let is_special = fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file());
        let beside = (!is_special).then(|| beside(path));
        let file = File::create(beside.as_deref().unwrap_or(path));
        let file = BufWriter::new(file.map_err(|source| failed(path, source))?);
        Ok(Replacement { path: path.to_owned(), beside, file })
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| failed(&self.path, source))
    }

    /// Writes over bytes at an offset; nothing is appended after.
    pub fn patch(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let sought = self.file.seek(SeekFrom::Start(offset));
        sought.map_err(|source| failed(&self.path, source))?;
        self.write(bytes)
    }

    /// Puts the file in the old one's place.
    pub fn complete(mut self) -> Result<()> {
        self.settle().map_err(|source| failed(&self.path, source))
    }

    fn settle(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let Some(beside) = &self.beside else { return Ok(()) };
        self.file.get_ref().sync_all()?;
        fs::rename(beside, &self.path)?;
        self.beside = None;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // Where even this fails, there is nothing left to do.
            let _ = fs::remove_file(beside);
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Io { what: format!("cannot write {}", path.display()), source }
}
