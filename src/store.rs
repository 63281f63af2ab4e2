//! Files that are written whole or not at all: beside the old one, then renamed over it.
//!
//! Knows bytes and paths, nothing of what they hold.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// How the name of a file ends that is not complete.
const PART: &str = ".part";
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
/// device) is written through as it is. To standard output, whatever it is, bytes are appended.
pub struct Replacement {
    path: PathBuf,
    /// Where it is until then, and the file that it takes the place of.
    beside: Option<(PathBuf, PathBuf)>,
    /// Where in what is written the first byte stands, if bytes can be written over.
    start: Option<u64>,
    file: BufWriter<File>,
}

/// The name of the file that one of this name would have become, where it is what a writer left that
/// was killed.
pub fn unfinished(name: &str) -> Option<&str> {
    let own = name.strip_suffix(PART).filter(|own| !own.is_empty())?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let numbered = own.rsplit_once('.').filter(|(_, number)| is_number(number));
    Some(numbered.map_or(own, |(file, _)| file))
}

/// What a path stands for.
enum Target {
    /// A file, there already or not.
    File(PathBuf),
    /// No file, or another program's or an open one.
    Other,
    /// Standard output.
    Stdout,
}

impl Replacement {
    /// Begins a file.
    ///
    /// # Errors
    /// As of every call: [`Error::Io`] names the file.
    pub fn create(path: &Path) -> Result<Self> {
        let begun = target(path).and_then(|target| match target {
            Target::Other => Ok((None, Some(0), File::create(path)?)),
            Target::Stdout => {
                let (start, file) = standard_output()?;
                Ok((None, start, file))
            }
            Target::File(replaced) => {
                let (beside, file) = create_beside(&replaced)?;
                Ok((Some((beside, replaced)), Some(0), file))
            }
        });
        let (beside, start, file) = begun.map_err(|source| failed(path, source))?;
        Ok(Replacement { path: path.to_owned(), beside, start, file: BufWriter::new(file) })
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|source| failed(&self.path, source))
    }

    /// Writes over bytes at an offset. What has no offsets, a pipe, or is only appended to keeps the
    /// bytes that it got.
    pub fn patch(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some(start) = self.start else { return Ok(()) };
        let patched = self.file.stream_position().and_then(|end| {
            self.file.seek(SeekFrom::Start(start + offset))?;
            self.file.write_all(bytes)?;
            self.file.seek(SeekFrom::Start(end)).map(drop)
        });
        match patched {
            Err(error) if error.kind() == io::ErrorKind::NotSeekable => Ok(()),
            patched => patched.map_err(|source| failed(&self.path, source)),
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

/// Whether a file is or would be put there, beside which others can lie: not a pipe, a device or
/// standard output.
pub fn is_for_a_file(path: &Path) -> bool {
    matches!(target(path), Ok(Target::File(_)))
}

/// What a path names over any links.
fn target(path: &Path) -> io::Result<Target> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        if is_standard_output(&path) {
            return Ok(Target::Stdout);
        }
        // Its links are names of open files: to replace what one shows would leave the opener.
        if folder_of(&path).is_some_and(|folder| folder.starts_with("/proc")) {
            return Ok(Target::Other);
        }
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => {
                let target = fs::read_link(&path)?;
                path.pop();
                path.push(target);
            }
            Ok(metadata) if !metadata.is_file() => return Ok(Target::Other),
            Ok(_) | Err(_) => return Ok(Target::File(path)),
        }
    }
    Err(io::Error::other("too many links"))
}

fn folder_of(path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new(".")).canonicalize().ok()
}

/// Whether it is the name of standard output, not of what that goes to.
fn is_standard_output(path: &Path) -> bool {
    if !cfg!(unix) {
        return false;
    }
    let is_own = || {
        let own = Path::new("/proc/self/fd").canonicalize().ok();
        own.is_some() && own == folder_of(path)
    };
    ["/dev/stdout", "/dev/fd/1"].iter().any(|name| path == Path::new(name))
        || path.file_name().is_some_and(|name| name == "1") && is_own()
}

/// Standard output as it was opened, and its place if what is written can be written over: what a
/// program opens anew by name it empties, and what is appended to has no other place than its end.
#[cfg(unix)]
fn standard_output() -> io::Result<(Option<u64>, File)> {
    use std::os::fd::AsFd;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    let mut file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    let start = if flags.contains(OFlag::O_APPEND) { None } else { file.stream_position().ok() };
    Ok((start, file))
}

#[cfg(not(unix))]
fn standard_output() -> io::Result<(Option<u64>, File)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A new file `NAME.part`, or `NAME.2.part` and so on where that is somebody's, with the rights of the
/// one that it is to replace.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let mut number = 1;
    loop {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(if number == 1 { PART.to_owned() } else { format!(".{number}{PART}") });
        let beside = path.with_file_name(name);
        match File::create_new(&beside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MAX_PARTS => {
                number += 1;
            }
            created => {
                let file = created?;
                if let Err(error) = take_rights(&file, path) {
                    let _ = fs::remove_file(&beside);
                    return Err(error);
                }
                return Ok((beside, file));
            }
        }
    }
}

fn take_rights(file: &File, replaced: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::metadata(replaced) else { return Ok(()) };
    // Where all files have the same, as on a memory card's, setting them may be refused.
    if file.metadata()?.permissions() == metadata.permissions() {
        return Ok(());
    }
    file.set_permissions(metadata.permissions())
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Io { what: format!("cannot write {}", path.display()), source }
}
