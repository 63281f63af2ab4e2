//! Who may come in: bearer tokens, kept and compared as digests in constant time, so that neither
//! a token's length nor its beginning can be found by trying. The door of sha2 and subtle.

use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::error::{Error, Result};
use crate::source::read_bounded;

/// Greatest size of a file of tokens.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The tokens that let a client in.
pub struct Tokens(Vec<[u8; 32]>);

impl Tokens {
    /// Reads a file of tokens, one a line; empty lines count for nothing.
    ///
    /// # Errors
    /// When the file cannot be read or holds no token.
    pub fn read(path: &Path) -> Result<Self> {
        let named = |what: String| Error::Unsupported(format!("{}: {what}", path.display()));
        let bytes = read_bounded(path, MAX_FILE_BYTES).map_err(|error| named(error.to_string()))?;
        let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let tokens: Vec<_> = lines.filter(|line| !line.is_empty()).map(digest).collect();
        if tokens.is_empty() {
            return Err(named("it holds no token: write one a line".to_owned()));
        }
        Ok(Tokens(tokens))
    }

    /// Whether this is one of them.
    pub fn admit(&self, token: &str) -> bool {
        let own = digest(token.as_bytes());
        let equal = |found: Choice, token: &[u8; 32]| found | token.ct_eq(&own);
        self.0.iter().fold(Choice::from(0), equal).into()
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-256 of bytes in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_of_the_file_and_nothing_else() {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), "first\n\n  second \r\n").unwrap();
        let tokens = Tokens::read(path.path()).unwrap();
        let admitted = |token: &str| tokens.admit(token);
        assert!(admitted("first") && admitted("second"));
        assert!(["", "firs", "first ", "firstsecond"].iter().all(|token| !admitted(token)));
        std::fs::write(path.path(), "\n \n").unwrap();
        assert!(Tokens::read(path.path()).is_err());
    }

    #[test]
    fn digests_are_those_of_the_standard() {
        assert!(sha256(b"abc").starts_with("ba7816bf8f01cfea414140de5dae2223"));
    }
}
