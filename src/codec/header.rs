//! The lines that begin with `#` at the start of AEDAT 1, 2 and 3 files.
//!
//! Knows nothing of what the lines mean but where they end.

use crate::error::{Error, Result, grouped};

/// Greatest length of one line; preferences of jAER stay below 300 bytes.
const MAX_LINE_BYTES: usize = 64 << 10;
/// Greatest length of a header; those of jAER reach 0.2 MiB.
const MAX_HEADER_BYTES: u64 = 4 << 20;

/// Cuts a header into its lines, however its bytes are cut.
pub(super) struct HeaderLines {
    format: &'static str,
    line: Vec<u8>,
    n_bytes: u64,
}

impl HeaderLines {
    pub(super) fn new(format: &'static str) -> Self {
        HeaderLines { format, line: Vec::new(), n_bytes: 0 }
    }

    /// Bytes taken so far that belong to the header for certain.
    pub(super) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Whether what has come is whole lines, or none: the header may go on or be over.
    pub(super) fn may_have_ended(&self) -> bool {
        self.line.is_empty()
    }

    /// Bytes taken back at the header's end: they began like a line and are data.
    pub(super) fn take_data(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.line)
    }

    /// Takes bytes, hands out each whole line, and returns what follows the header once it has
    /// ended: after the line for which `on_line` returns true, or before the first line that is
    /// none. Then [`Self::take_data`] goes before what is returned.
    pub(super) fn feed<'a>(
        &mut self,
        bytes: &'a [u8],
        mut on_line: impl FnMut(&str) -> Result<bool>,
    ) -> Result<Option<&'a [u8]>> {
        for (k, &byte) in bytes.iter().enumerate() {
            if self.line.is_empty() && byte != b'#' {
                return Ok(bytes.get(k..));
            }
            self.line.push(byte);
            if byte == b'\n' {
                self.n_bytes += self.line.len() as u64;
                let ended = on_line(String::from_utf8_lossy(&self.line).trim_end())?;
                self.line.clear();
                if ended {
                    return Ok(bytes.get(k + 1..));
                }
            } else if byte < b' ' && byte != b'\t' && byte != b'\r' {
                // An address whose first byte is 0x23: text holds no control characters.
                return Ok(bytes.get(k + 1..));
            }
            self.check_limits()?;
        }
        Ok(None)
    }

    /// The stream ended within the header.
    pub(super) fn finish(&self) -> Result<()> {
        let what = match (self.n_bytes, self.line.len()) {
            (0, 0) => "the recording is empty".to_owned(),
            (_, 0) => return Ok(()),
            (_, n) => {
                format!("the header ends inside a line, after {} bytes of it", grouped(n as u64))
            }
        };
        Err(Error::Malformed { format: self.format, offset: self.n_bytes, what })
    }

    fn check_limits(&self) -> Result<()> {
        let n_header = self.n_bytes + self.line.len() as u64;
        if self.line.len() <= MAX_LINE_BYTES && n_header <= MAX_HEADER_BYTES {
            return Ok(());
        }
        let what = format!(
            "a header of more than {} bytes, or a line in it of more than {}: the file is damaged",
            grouped(MAX_HEADER_BYTES),
            grouped(MAX_LINE_BYTES as u64)
        );
        Err(Error::Limit { format: self.format, offset: self.n_bytes, what })
    }
}
