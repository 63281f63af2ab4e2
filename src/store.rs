//! Files that are written whole or not at all: beside the old one, then renamed over it.
//!
//! Knows bytes and paths, nothing of what they hold.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Most unfinished files of one name, left by programs that were killed.
const MAX_PARTS: u32 = 1000;
/// Most links that are followed, as on Linux.
const MAX_LINKS: usize = 40;

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
/// it leaves nothing. A link stays, and the file that it names is replaced; what is no file (a pipe, a
/// device, whatever `/dev/stdout` stands for) is written through as it is.
pub struct Replacement {
    path: PathBuf,
    /// Where it is until then, and the file that it takes the place of.
    beside: Option<(PathBuf, PathBuf)>,
    file: BufWriter<File>,
}

impl Replacement {
    /// Begins a file.
    ///
    /// # Errors
    /// As of every call: [`Error::Io`] names the file.
    pub fn create(path: &Path) -> Result<Self> {
        let begun = replaceable(path).and_then(|replaced| match replaced {
            None => Ok((None, File::create(path)?)),
            Some(replaced) => {
                let (beside, file) = create_beside(&replaced)?;
                Ok((Some((beside, replaced)), file))
            }
        });
        let (beside, file) = begun.map_err(|source| failed(path, source))?;
        Ok(Replacement { path: path.to_owned(), beside, file: BufWriter::new(file) })
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| failed(&self.path, source))
    }

    /// Writes over bytes at an offset; nothing is appended after. What has no offsets, a pipe,
    /// keeps the bytes that it got.
    pub fn patch(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        match self.file.seek(SeekFrom::Start(offset)) {
            Ok(_) => self.write(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotSeekable => Ok(()),
            Err(source) => Err(failed(&self.path, source)),
        }
    }

    /// Puts the file in the old one's place.
    pub fn complete(mut self) -> Result<()> {
        self.settle().map_err(|source| failed(&self.path, source))
    }

    fn settle(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let Some((beside, replaced)) = &self.beside else { return Ok(()) };
        self.file.get_ref().sync_all()?;
        fs::rename(beside, replaced)?;
        self.beside = None;
        Ok(())
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some((beside, _)) = &self.beside {
            // Where even this fails, there is nothing left to do.
            let _ = fs::remove_file(beside);
        }
    }
}

/// The file, there already or not, that a path names over any links; `None` for what is no file.
fn replaceable(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        // Its links are names of open files: to replace what one shows would leave the opener.
        if path.starts_with("/proc") {
            return Ok(None);
        }
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => {
                let target = fs::read_link(&path)?;
                path.pop();
                path.push(target);
            }
            Ok(metadata) if !metadata.is_file() => return Ok(None),
            Ok(_) | Err(_) => return Ok(Some(path)),
        }
    }
    Err(io::Error::other("too many links"))
}

/// A new file `NAME.part`, or `NAME.2.part` and so on where that is somebody's.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let mut number = 1;
    loop {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(if number == 1 { ".part".to_owned() } else { format!(".{number}.part") });
        let beside = path.with_file_name(name);
        match File::create_new(&beside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MAX_PARTS => {
                number += 1;
            }
            created => return Ok((beside, created?)),
        }
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Io { what: format!("cannot write {}", path.display()), source }
}
