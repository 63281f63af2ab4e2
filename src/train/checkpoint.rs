//! Checkpoint: a training between two batches as a safetensors file, from which it goes on bit for
//! bit as if it had never stopped.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh64::Xxh64;

use super::recipe::Recipe;
use super::trainer::{Progress, Trainer};
use crate::dataset::Sample;
use crate::error::{Error, Result};
use crate::frame::Frames;
use crate::nn::LearnerState;

/// Greatest size of a checkpoint.
pub const MAX_BYTES: u64 = 4 << 30;
/// The one metadata key.
const KEY: &str = "dvs-stream-training";
/// Names of the tensors.
const NAMES: [&str; 3] = ["weights", "means", "squares"];
/// Name of the weights after the best epoch, where they are kept.
const BEST: &str = "best";
/// The digest, in hexadecimal, over everything else.
const DIGEST: &str = "xxh64";

/// What a checkpoint holds besides tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    recipe: Recipe,
    data: Fingerprint,
    steps: u64,
    progress: Progress,
}

/// What tells recordings trained on and kept out from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// How many are trained on.
    trained: usize,
    /// Of all names, classes and windows.
    digest: u64,
}

/// A training's checkpoint.
///
/// # Errors
/// When it cannot be put into bytes.
pub fn save(trainer: &Trainer, data: Fingerprint) -> Result<Vec<u8>> {
    let state = trainer.learner().snapshot()?;
    let facts = Facts {
        recipe: trainer.recipe().clone(),
        data,
        steps: state.steps,
        progress: trainer.progress().clone(),
    };
    let failed = |error: &dyn std::fmt::Display| {
        Error::Model(format!("the training cannot be saved: {error}"))
    };
    let text = serde_json::to_string(&facts).map_err(|error| failed(&error))?;
    let bytes =
        |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let values = [&*state.weights, &state.means, &state.squares].into_iter().chain(trainer.best());
    let stored: Vec<_> = values.map(bytes).collect();
    let digest = digest(&text, stored.iter().map(Vec::as_slice));
    let views = NAMES.iter().chain([&BEST]).zip(&stored).map(|(name, bytes)| {
        TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map(|view| (*name, view))
    });
    let digest = TensorView::new(Dtype::U8, vec![digest.len()], digest.as_bytes());
    let views = views.chain([digest.map(|view| (DIGEST, view))]);
    let views: std::result::Result<Vec<_>, _> = views.collect();
    let metadata = HashMap::from([(KEY.to_owned(), text)]);
    safetensors::serialize(views.map_err(|error| failed(&error))?, Some(metadata))
        .map_err(|error| failed(&error))
}

/// Sets a training, which has not begun, to where a checkpoint stands.
///
/// # Errors
/// [`Error::Model`] where the bytes are no checkpoint, [`Error::Usage`] where they are one of
/// another recipe or other data.
pub fn resume(trainer: &mut Trainer, data: Fingerprint, bytes: &[u8]) -> Result<()> {
    let (text, tensors) = read(bytes)?;
    let facts: Facts = serde_json::from_str(&text).map_err(|error| damaged(&error))?;
    check_recipe(&facts.recipe, trainer.recipe())?;
    if facts.data != data {
        return Err(Error::Usage(
            "the checkpoint is of other recordings, trained on or kept out, another split or view: \
             use the same, or begin without --resume"
                .to_owned(),
        ));
    }
    if !facts.progress.is_sound(&facts.recipe, data.trained) {
        return Err(damaged(&"its progress cannot be that of this training"));
    }
    let [weights, means, squares, best] = tensors;
    let state = LearnerState {
        weights: weights.unwrap_or_default(),
        means: means.unwrap_or_default(),
        squares: squares.unwrap_or_default(),
        steps: facts.steps,
    };
    trainer.restore(facts.progress, &state, best)
}

fn damaged(error: &dyn std::fmt::Display) -> Error {
    Error::Model(format!("no whole checkpoint of a training: {error}; begin without --resume"))
}

/// The text, and the values of [`NAMES`] and [`BEST`].
fn read(bytes: &[u8]) -> Result<(String, [Option<Vec<f32>>; 4])> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| damaged(&error))?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| damaged(&error))?;
    let text = metadata.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
    let text = text.ok_or_else(|| damaged(&format!("it has no '{KEY}' metadata")))?;
    let [a, b, c] = NAMES;
    let all = [a, b, c, BEST].map(|name| tensors.tensor(name).ok());
    let stored = tensors.tensor(DIGEST).map_err(|error| damaged(&error))?;
    let present = all.iter().flatten().map(|view| view.data());
    if stored.data() != digest(text, present).as_bytes() {
        return Err(damaged(&"its digest is that of other bytes"));
    }
    if let Some(view) = all.iter().flatten().find(|view| view.dtype() != Dtype::F32) {
        return Err(damaged(&format!("a tensor is {:?}, not F32", view.dtype())));
    }
    let values = |bytes: &[u8]| -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    Ok((text.clone(), all.map(|view| view.map(|view| values(view.data())))))
}

/// Over the text and the tensors, each with its length.
fn digest<'a>(text: &'a str, data: impl Iterator<Item = &'a [u8]>) -> String {
    let mut hash = Xxh64::new(0);
    for part in std::iter::once(text.as_bytes()).chain(data) {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("{:016x}", hash.digest())
}

fn check_recipe(saved: &Recipe, asked: &Recipe) -> Result<()> {
    let differs = saved.settings().into_iter().zip(asked.settings()).find(|(a, b)| a != b);
    match differs {
        Some(((name, saved), (_, asked))) => Err(Error::Usage(format!(
            "the checkpoint was made with --{name} {saved}, this command says {asked}: use the \
             same recipe, or begin without --resume"
        ))),
        None => Ok(()),
    }
}

/// The fingerprint of these recordings.
pub fn fingerprint(trained: &[&Sample], held_out: &[&Sample]) -> Fingerprint {
    let mut hash = Xxh64::new(0);
    for sample in trained.iter().chain(held_out) {
        hash.update(sample.name.as_bytes());
        hash.update(&(sample.class as u64).to_le_bytes());
        update(&mut hash, &sample.frames);
    }
    Fingerprint { trained: trained.len(), digest: hash.digest() }
}

/// The fingerprint of one recording's windows, whatever its name and clock.
pub(super) fn fingerprint_of(frames: &Frames) -> u64 {
    let mut hash = Xxh64::new(0);
    update(&mut hash, frames);
    hash.digest()
}

fn update(hash: &mut Xxh64, frames: &Frames) {
    for (k, window) in frames.windows().iter().enumerate() {
        hash.update(&window.events.to_le_bytes());
        let (addresses, counts) = frames.active(k);
        addresses.iter().for_each(|address| hash.update(&address.to_le_bytes()));
        counts.iter().for_each(|count| hash.update(&count.to_le_bytes()));
    }
}
