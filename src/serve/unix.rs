//! The file of a UNIX socket: bound where nobody listens, removed where it is still the same.

use std::fs::symlink_metadata;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// A socket's file, removed when this is dropped.
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    own: Option<(u64, u64)>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server may have put its own there meanwhile.
        if self.own.is_some() && identity(&self.path) == self.own {
            // Where it is gone already, so much the better.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Binds, in the place of a socket that nobody listens on any more.
///
/// # Errors
/// When there is a file that is no socket, or somebody listens.
pub async fn bind(path: &Path) -> Result<(UnixListener, SocketFile)> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_stale(path, error).await?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    Ok((listener, SocketFile { path: path.to_owned(), own: identity(path) }))
}

async fn remove_stale(path: &Path, in_use: Error) -> Result<()> {
    // What is no socket refuses connections too, and a link is somebody's wish.
    if !symlink_metadata(path)?.file_type().is_socket() {
        return Err(Error::new(ErrorKind::AlreadyExists, "it is no socket"));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Err(in_use),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}
