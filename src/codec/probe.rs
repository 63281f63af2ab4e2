//! tmp
use super::{FORMATS, Format, Match};
use crate::error::{Error, Result};
/// tmp
pub enum Probe {
    /// tmp
    Format(&'static Format),
    /// tmp
    More,
    /// tmp
    Unknown(String),
}
/// tmp
pub fn probe(prefix: &[u8], _name: Option<&str>, _at_end: bool) -> Probe {
    for f in FORMATS {
        match (f.probe)(prefix) {
            Match::Yes => return Probe::Format(f),
            Match::Short => return Probe::More,
            Match::No => (),
        }
    }
    Probe::Unknown("unknown format".into())
}
/// tmp
pub fn by_name(name: &str) -> Result<&'static Format> {
    FORMATS.iter().find(|f| f.name == name).ok_or(Error::Unsupported("?".into()))
}
