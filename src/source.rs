//! Where a recording's bytes come from: a file that can seek, or standard input or a pipe that
//! cannot, read on a thread of its own so that an interruption is heard.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use crate::error::{Error, Result};

/// Bytes read at once.
pub const CHUNK_BYTES: usize = 64 << 10;
/// How often a silent pipe is left to see whether to stop.
const PATIENCE: Duration = Duration::from_millis(50);

/// An open source.
pub enum Source {
    /// A regular file.
    File(SeekableFile),
    /// What cannot seek.
    Pipe(Pipe),
}

/// A regular file and where it is read.
pub struct SeekableFile {
    file: File,
    position: u64,
    length: u64,
}

/// Chunks that a thread reads.
pub struct Pipe {
    chunks: Receiver<io::Result<Vec<u8>>>,
    has_begun: bool,
}

/// What a read gave.
pub enum Chunk<'a> {
    /// Bytes, never none.
    Bytes(&'a [u8]),
    /// Nothing yet; ask again.
    Nothing,
    /// The end.
    End,
}

/// Whether this path means standard input.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

impl Source {
    /// Opens a path; `-` is standard input.
    ///
    /// # Errors
    /// As of every call: [`Error::Io`], where it cannot be read.
    pub fn open(path: &Path) -> Result<Source> {
        if is_stdin(path) {
            return Ok(Source::pipe(|| Ok(Box::new(io::stdin()))));
        }
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if metadata.is_dir() {
            let what = "it is a directory; name the recordings in it";
            return Err(unreadable(io::Error::new(io::ErrorKind::IsADirectory, what)));
        }
        if metadata.is_file() {
            let file = File::open(path).map_err(unreadable)?;
            let length = metadata.len();
            return Ok(Source::File(SeekableFile { file, position: 0, length }));
        }
        let path: PathBuf = path.to_owned();
        Ok(Source::pipe(move || Ok(Box::new(File::open(path)?))))
    }

    fn pipe(open: impl FnOnce() -> io::Result<Box<dyn Read>> + Send + 'static) -> Source {
        let (chunks, received) = sync_channel(2);
        std::thread::spawn(move || {
            let mut reader = match open() {
                Ok(reader) => reader,
                Err(error) => return drop(chunks.send(Err(error))),
            };
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                let chunk = match reader.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(n) => Ok(buffer[..n].to_vec()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let failed = chunk.is_err();
                if chunks.send(chunk).is_err() || failed {
                    return;
                }
            }
        });
        Source::Pipe(Pipe { chunks: received, has_begun: false })
    }

    /// The next bytes; `buffer` keeps its memory between calls. To end before the first byte is
    /// [`Error::Malformed`], also of a format of bare events, in which no bytes would be a whole recording.
    pub fn read<'a>(&mut self, buffer: &'a mut Vec<u8>) -> Result<Chunk<'a>> {
        match self {
            Source::File(SeekableFile { file, position, .. }) => {
                buffer.resize(CHUNK_BYTES, 0);
                let n = file.read(buffer).map_err(unreadable)?;
                *position += n as u64;
                match n {
                    0 if *position == 0 => Err(Error::empty()),
                    0 => Ok(Chunk::End),
                    n => Ok(Chunk::Bytes(&buffer[..n])),
                }
            }
            Source::Pipe(Pipe { chunks, has_begun }) => match chunks.recv_timeout(PATIENCE) {
                Ok(chunk) => {
                    *buffer = chunk.map_err(unreadable)?;
                    *has_begun = true;
                    Ok(Chunk::Bytes(buffer))
                }
                Err(RecvTimeoutError::Timeout) => Ok(Chunk::Nothing),
                Err(RecvTimeoutError::Disconnected) if !*has_begun => Err(Error::empty()),
                Err(RecvTimeoutError::Disconnected) => Ok(Chunk::End),
            },
        }
    }

    /// Passes over up to `n` bytes where that costs nothing; gives how many.
    pub fn skip(&mut self, n: u64) -> Result<u64> {
        let Source::File(SeekableFile { file, position, length }) = self else { return Ok(0) };
        let n = n.min(length.saturating_sub(*position));
        *position = file.seek(SeekFrom::Start(*position + n)).map_err(unreadable)?;
        Ok(n)
    }
}

/// Whether a recording is gone once it was read: standard input, a pipe.
pub fn is_read_once(path: &Path) -> bool {
    let is_pipe = |metadata: std::fs::Metadata| !metadata.is_file() && !metadata.is_dir();
    is_stdin(path) || std::fs::metadata(path).is_ok_and(is_pipe)
}

/// A whole file of at most `max_bytes`.
///
/// # Errors
/// When it cannot be read or is larger.
pub fn read_bounded(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > max_bytes {
        return Err(Error::Unsupported(format!("it is larger than {max_bytes} bytes")));
    }
    Ok(bytes)
}

fn unreadable(source: io::Error) -> Error {
    Error::Io { what: "cannot be read".to_owned(), source }
}
