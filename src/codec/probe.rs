//! Which format a stream is in, from its first bytes and, for headerless formats, its name.
//!
//! Also names what people pass by mistake. Opens nothing: bytes and names are arguments.

use super::{FORMATS, Format, Match};
use crate::error::{Error, Result};

/// What can be told of a stream so far.
pub enum Probe {
    /// It is in this format.
    Format(&'static Format),
    /// More bytes are needed: [`PROBE_BYTES`] at most.
    More,
    /// It ended before its format can be told ([`Error::Malformed`]), or is in none that is read:
    /// what it seems to be, and what to do ([`Error::Unsupported`]).
    Unknown(Error),
}

/// As many bytes always suffice to tell.
pub const PROBE_BYTES: usize = 512;

/// Tells the format of a stream that begins with `prefix`.
///
/// A format with a mark is found whatever the name; a headerless one only if `name` has its
/// extension and the bytes could be its events. `at_end`: the stream holds nothing more.
pub fn probe(prefix: &[u8], name: Option<&str>, at_end: bool) -> Probe {
    if let Some(format) = FORMATS.iter().find(|format| (format.probe)(prefix) == Match::Yes) {
        return Probe::Format(format);
    }
    if !at_end && prefix.len() < PROBE_BYTES {
        return Probe::More;
    }
    if prefix.is_empty() {
        return Probe::Unknown(Error::empty());
    }
    if let Some(foreign) = foreign(prefix) {
        return Probe::Unknown(Error::Unsupported(foreign.to_owned()));
    }
    if let Some(format) = FORMATS.iter().find(|format| (format.probe)(prefix) == Match::Short) {
        let what =
            format!("ends after {} bytes, within the mark of {}", prefix.len(), format.title);
        return Probe::Unknown(Error::Malformed { format: format.name, offset: 0, what });
    }
    let extension = name.and_then(extension);
    let headerless = |format: &&Format| {
        let named = extension.as_deref().is_some_and(|own| format.extensions.contains(&own));
        named && (format.plausible)(prefix)
    };
    match FORMATS.iter().find(headerless) {
        Some(format) => Probe::Format(format),
        None => {
            let what = format!("unknown format: --format names it, one of {}", names());
            Probe::Unknown(Error::Unsupported(what))
        }
    }
}

/// The format of this name, as on the command line.
///
/// # Errors
/// When there is none; the error lists those there are.
pub fn by_name(name: &str) -> Result<&'static Format> {
    FORMATS.iter().find(|format| format.name == name).ok_or_else(|| {
        let name = name.escape_debug();
        Error::Unsupported(format!("unknown format `{name}`; known are {}", names()))
    })
}

/// Format for a file to be written, by its name's extension.
///
/// # Errors
/// When no format that can be written has the extension; the error lists those there are.
pub fn for_writing(name: &str) -> Result<&'static Format> {
    let own = extension(name);
    let writable = || FORMATS.iter().filter(|format| format.encoder.is_some());
    let named =
        |format: &&Format| own.as_deref().is_some_and(|own| format.extensions.contains(&own));
    writable().find(named).ok_or_else(|| {
        let known: Vec<_> =
            writable().flat_map(|format| format.extensions).map(|own| format!(".{own}")).collect();
        let known = known.join(", ");
        Error::Unsupported(match &own {
            Some(own) => {
                let own = own.escape_debug();
                format!("no format is written to `.{own}` files; known are {known}")
            }
            None => format!(
                "a name without an extension tells no format: name it with --to, or end the name \
                 with one of {known}"
            ),
        })
    })
}

fn names() -> String {
    let names: Vec<_> = FORMATS.iter().map(|format| format.name).collect();
    names.join(", ")
}

fn extension(name: &str) -> Option<String> {
    let file = name.rsplit(['/', '\\']).next()?;
    let (stem, extension) = file.rsplit_once('.')?;
    (!stem.is_empty()).then(|| extension.to_ascii_lowercase())
}

/// Mark at an offset of what is no recording, and what to do with it.
const FOREIGN: &[(usize, &[u8], &str)] = &[
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer, not the recording itself: fetch it with `git lfs pull`",
    ),
    (
        0,
        b"\x1f\x8b",
        "a gzip archive: unpack it first, for instance `gunzip -c FILE | dvs-stream replay -`",
    ),
    (0, b"PK\x03\x04", "a zip archive (.zip, .npz): unpack it first and pass the recordings in it"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (
        0,
        b"\xfd7zXZ\0",
        "an xz archive: unpack it first, for instance `xz -dc FILE | dvs-stream replay -`",
    ),
    (
        0,
        b"BZh",
        "a bzip2 archive: unpack it first, for instance `bzip2 -dc FILE | dvs-stream replay -`",
    ),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        "a Zstandard archive: unpack it first, for instance `zstd -dc FILE | dvs-stream replay -`",
    ),
    (257, b"ustar", "a tar archive: unpack it first and pass the recordings in it"),
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        "HDF5, which is not read: convert it to AEDAT 4 or .npy (t, x, y, p) first",
    ),
    (0, b"#ROSBAG", "a ROS bag, which is not read: convert it to AEDAT 4 first"),
    (0, b"% ", PROPHESEE),
    (0, b"%evt", PROPHESEE),
    (
        0,
        b"Event Stream",
        "an Event Stream (.es) file, which is not read: convert it to AEDAT 4 first",
    ),
    (0, b"\x89MCAP0", "an MCAP file, which is not read: convert it to AEDAT 4 first"),
    (0, b"MATLAB 5.0", "a MATLAB file, which is not read: save t, x, y, p as .npy first"),
    (0, b"\x80\x02", PICKLE),
    (0, b"\x80\x04", PICKLE),
    (4, b"ftyp", VIDEO),
    (8, b"AVI ", VIDEO),
    (0, b"\x1a\x45\xdf\xa3", VIDEO),
    (0, b"\x89PNG", "an image, not a recording of events"),
    (0, b"\xff\xd8\xff", "an image, not a recording of events"),
    (0, b"%PDF", "a PDF document, not a recording"),
    (
        8,
        b"{\"",
        "a safetensors file, as models are, not a recording: replay, eval and serve take it as --model",
    ),
];

const PROPHESEE: &str =
    "a Prophesee recording (RAW or DAT), which is not read: convert it to AEDAT 4 first";
const PICKLE: &str =
    "a Python pickle: save t, x, y, p as .npy, or a network's state_dict with `import`";
const VIDEO: &str =
    "a video of images, not a recording of events: it would have to go through an event simulator";

fn foreign(prefix: &[u8]) -> Option<&'static str> {
    let marked = |(at, mark, _): &&(usize, &[u8], &str)| {
        prefix.get(*at..).is_some_and(|rest| rest.starts_with(mark))
    };
    let known = FOREIGN.iter().find(marked).map(|(_, _, what)| *what);
    known.or_else(|| {
        is_page(prefix).then_some("a web page, not the recording: the download went wrong")
    })
}

/// What follows a byte order mark, which other programs put before a text.
pub(super) fn unmarked(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

fn is_page(prefix: &[u8]) -> bool {
    let start = prefix.trim_ascii_start();
    let start = unmarked(start);
    [b"<!doctype".as_slice(), b"<html", b"<head", b"<?xml"]
        .iter()
        .any(|tag| start.get(..tag.len()).is_some_and(|own| own.eq_ignore_ascii_case(tag)))
}
