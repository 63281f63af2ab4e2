//! What is served: the model's card and digest.

use super::token::sha256;
use crate::model::{Card, Model};

/// A model, as clients may know it.
pub struct About {
    /// Its file's name.
    pub name: String,
    /// Digest of its file.
    pub sha256: String,
    /// Its card.
    pub card: Card,
}

impl About {
    /// A model that was read from these bytes of a file of this name.
    pub fn new(name: &str, bytes: &[u8], model: &Model) -> Self {
        About { name: name.to_owned(), sha256: sha256(bytes), card: model.card.clone() }
    }

    /// As an object.
    pub fn json(&self) -> String {
        let About { name, sha256, card } = self;
        serde_json::json!({ "model": name, "sha256": sha256, "card": card }).to_string() + "\n"
    }
}
