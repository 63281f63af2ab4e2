//! `dvs-stream import`: networks of other frameworks as layers of ours.
//!
//! Knows what other frameworks call things; knows neither their containers nor the model file.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::nn::weights::{NamedWeights, load};
use crate::nn::{ChainParameters, LayerWeights};

/// What an import found.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The network's layers; [`crate::nn::Network::new`] checks their values.
    pub layers: Vec<LayerWeights>,
    /// Tensors of the file that the network does not use.
    pub unused: Vec<String>,
}

impl Imported {
    /// Inputs of the first layer.
    pub fn inputs(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.spec.inputs)
    }

    /// Outputs of the last layer.
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.spec.neurons)
    }
}

/// Reads a `state_dict` of Norse's tutorial network, from `.safetensors` or `.pt`: `l1`, a
/// `LIFRecurrentCell`, and `fc_out`, a `Linear` before an `LICell`, alone or under a common prefix
/// such as `snn.`. A `state_dict` does not hold the parameters of its cells.
///
/// # Errors
/// [`Error::Io`] where the file cannot be read, [`Error::Model`] where its bytes or its tensors are
/// others, with the line to type in Python where that helps.
pub fn norse(path: &Path, parameters: &ChainParameters) -> Result<Imported> {
    let tensors = load(path)?;
    norse_layers(tensors, parameters)
        .map_err(|error| Error::Model(format!("{}: {error}", path.display())))
}

const INPUT: &str = "l1.input_weights";
const RECURRENT: &str = "l1.recurrent_weights";
const READOUT: &str = "fc_out.weight";
const READOUT_BIAS: &str = "fc_out.bias";

fn norse_layers(tensors: Vec<NamedWeights>, parameters: &ChainParameters) -> Result<Imported> {
    let prefix = common_prefix(&tensors)?;
    let mut tensors: BTreeMap<String, NamedWeights> =
        tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
    let mut take = |name: &str| tensors.remove(&format!("{prefix}{name}"));
    let missing = |name: &str| Error::Model(format!("tensor {prefix}{name} is missing"));
    let (neurons, inputs, input) = matrix(take(INPUT).ok_or_else(|| missing(INPUT))?)?;
    let (to, from, recurrent) = matrix(take(RECURRENT).ok_or_else(|| missing(RECURRENT))?)?;
    let (classes, hidden, readout) = matrix(take(READOUT).ok_or_else(|| missing(READOUT))?)?;
    if (to, from, hidden) != (neurons, neurons, neurons) {
        return Err(Error::Model(format!(
            "{prefix}{INPUT} has {neurons} neurons, {prefix}{RECURRENT} is {to} × {from} and \
             {prefix}{READOUT} has {hidden} inputs: all must be equal"
        )));
    }
    if take(READOUT_BIAS).is_some_and(|bias| bias.values.iter().any(|value| *value != 0.0)) {
        return Err(Error::Model(format!(
            "{prefix}{READOUT_BIAS} is not zero, and layers here have no bias; train with \
             Linear(…, bias=False)"
        )));
    }
    let hidden = parameters.hidden(inputs, neurons);
    let output = parameters.readout(neurons, classes);
    let layers = vec![
        LayerWeights { spec: hidden, input, recurrent: Some(recurrent) },
        LayerWeights { spec: output, input: readout, recurrent: None },
    ];
    Ok(Imported { layers, unused: tensors.into_keys().collect() })
}

/// What stands before `l1.input_weights`: nothing, or the path of the module that holds it.
fn common_prefix(tensors: &[NamedWeights]) -> Result<String> {
    let prefixes = tensors.iter().filter_map(|tensor| tensor.name.strip_suffix(INPUT));
    let prefixes: Vec<_> =
        prefixes.filter(|prefix| prefix.is_empty() || prefix.ends_with('.')).collect();
    let names = || {
        let names: Vec<_> = tensors.iter().take(8).map(|tensor| tensor.name.as_str()).collect();
        let more = if tensors.len() > names.len() { ", …" } else { "" };
        if names.is_empty() {
            "no tensor".to_owned()
        } else {
            format!("{}{more}", names.join(", "))
        }
    };
    match prefixes.as_slice() {
        [prefix] => Ok((*prefix).to_owned()),
        [] => Err(Error::Model(format!(
            "no tensor {INPUT}, as Norse's LIFRecurrentCell in a module's `l1` has; the file \
             holds {}",
            names()
        ))),
        several => Err(Error::Model(format!(
            "{} networks, under {}: save one of them alone",
            several.len(),
            several.join(" and ")
        ))),
    }
}

/// Rows, columns and values of a matrix.
fn matrix(tensor: NamedWeights) -> Result<(usize, usize, Vec<f32>)> {
    match tensor.shape.as_slice() {
        &[rows, columns] => Ok((rows, columns, tensor.values)),
        shape => Err(Error::Model(format!(
            "tensor {} has shape {shape:?}, where a matrix is expected",
            tensor.name
        ))),
    }
}
