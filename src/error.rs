//! The one error type, by who is to blame: the device, the bytes, a limit, the model or us.
//!
//! Knows no file name: whoever opened the stream names it.

use std::io::ErrorKind;

/// Result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, by cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused to read or write.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, and to what.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The bytes break their format's rules.
    #[error("{what} (byte {}, {format})", grouped(*.offset))]
    Malformed {
        /// Name of the format, as in [`crate::codec::FORMATS`], or that it is unknown.
        format: &'static str,
        /// Offset of the offending bytes from the start of the stream.
        offset: u64,
        /// What was found, what was expected and what to do.
        what: String,
    },
    /// Valid, but something that dvs-stream does not read.
    #[error("{0}")]
    Unsupported(String),
    /// A length or count exceeds its limit.
    #[error("{what} (byte {}, {format})", grouped(*.offset))]
    Limit {
        /// Name of the format.
        format: &'static str,
        /// Offset of the length that is too large.
        offset: u64,
        /// What is too large, its limit, and the flag that raises it.
        what: String,
    },
    /// What was asked for cannot be done.
    #[error("{0}")]
    Usage(String),
    /// The recording does not fit the model.
    #[error("{0}")]
    Mismatch(String),
    /// The model file cannot be used.
    #[error("{0}")]
    Model(String),
    /// The device cannot be used.
    #[error("{0}")]
    Device(String),
    /// Whoever takes the results is gone, or the user interrupted.
    #[error("stopped")]
    Stopped,
    /// A tensor operation failed.
    #[error("{what}")]
    Tensor {
        /// What was being computed.
        what: String,
        /// The tensor library's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// One file of several failed.
    #[error("{name}: {source}")]
    Named {
        /// Which.
        name: String,
        /// Why.
        source: Box<Error>,
    },
}

impl Error {
    /// Of a recording without a byte, which is one of no format.
    pub fn empty() -> Error {
        let what = "the recording is empty".to_owned();
        Error::Malformed { format: "unknown format", offset: 0, what }
    }

    /// Offset in the stream at which the error stands, where there is one.
    pub fn offset(&self) -> Option<u64> {
        match self {
            Error::Malformed { offset, .. } | Error::Limit { offset, .. } => Some(*offset),
            Error::Named { source, .. } => source.offset(),
            _ => None,
        }
    }

    /// The same error, of the file of this name.
    pub fn named(self, name: impl std::fmt::Display) -> Error {
        Error::Named { name: name.to_string(), source: Box::new(self) }
    }

    /// How a command ends that fails so: 1 where a recording or stream failed, 2 on wrong use, 3
    /// where model or device cannot be used or the recording is another sensor's, 130 where it was
    /// interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Io { source, .. } => match source.kind() {
                ErrorKind::NotFound
                | ErrorKind::AlreadyExists
                | ErrorKind::IsADirectory
                | ErrorKind::NotADirectory => 2,
                _ => 1,
            },
            Error::Malformed { .. } | Error::Limit { .. } => 1,
            Error::Unsupported(_) | Error::Usage(_) => 2,
            Error::Mismatch(_) | Error::Model(_) | Error::Device(_) | Error::Tensor { .. } => 3,
            Error::Stopped => 130,
            Error::Named { source, .. } => source.exit_code(),
        }
    }
}

/// `1234567` as `1,234,567`: how counts and offsets are shown to people.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (k, digit) in digits.chars().enumerate() {
        if k > 0 && (digits.len() - k).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What failed and all causes of it, each told once: an error may have told its cause already.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for cause in std::iter::successors(Some(error), |error| error.source()) {
        let cause = cause.to_string();
        match told.last_mut() {
            Some(last) if *last == cause => continue,
            Some(last) => {
                let alone = last.strip_suffix(&cause).and_then(|last| last.strip_suffix(": "));
                if let Some(alone) = alone.map(str::to_owned) {
                    *last = alone;
                } else if last.ends_with(&cause) {
                    continue;
                }
            }
            None => (),
        }
        told.push(cause);
    }
    told
}

/// A failure as it is told: in one line, or each cause in a line of its own.
pub fn error_lines(causes: &[String], each: bool) -> Vec<String> {
    if !each {
        return vec![format!("error: {}", causes.join(": "))];
    }
    let begins = std::iter::once("error").chain(std::iter::repeat("  because"));
    begins.zip(causes).map(|(begin, cause)| format!("{begin}: {cause}")).collect()
}

/// Text of a stranger for a terminal or a log: what would move its cursor is shown and not done.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_control() => shown.extend(c.escape_debug()),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn groups_of_three_digits() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (3_000_003, "3,000,003")] {
            assert_eq!(grouped(n), text);
        }
    }
}
