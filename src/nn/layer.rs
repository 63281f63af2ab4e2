//! Layers as a model file holds them, and their checks: after these nothing about weights can fail.
//!
//! Knows cells and shapes; steps nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cell::{CELLS, CellKind, ParameterKind, Parameters};
use super::op::memory::padded;
use crate::error::{Error, Result};

/// Most layers of a network.
pub const MAX_LAYERS: usize = 16;
/// Most neurons of a layer.
pub const MAX_NEURONS: usize = 1 << 16;
/// Most inputs of a layer: both polarities of a sensor of 4 megapixels.
pub const MAX_INPUTS: usize = 1 << 23;
/// Most weights of a network, padding included (512 MiB).
pub const MAX_WEIGHTS: usize = 1 << 27;
/// Longest step in seconds.
pub const MAX_STEP_S: f64 = 60.0;

/// One layer without its weights, as in a model's metadata:
/// `{"cell": "lif", "inputs": 2450, "neurons": 100, "recurrent": true, "v_th": 0.3}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerSpec {
    /// Name of the cell, as in [`CELLS`].
    pub cell: String,
    /// Inputs of each neuron: addresses, or neurons of the layer below.
    pub inputs: usize,
    /// Neurons of the layer, and values of its output.
    pub neurons: usize,
    /// Whether the layer's output of the last window comes back to it.
    pub recurrent: bool,
    /// Parameters of the cell by name; [`CellKind::parameters`] holds the defaults.
    #[serde(flatten)]
    pub parameters: BTreeMap<String, f64>,
}

/// One layer with its weights, as a model file holds them.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerWeights {
    /// Sizes, cell and parameters.
    pub spec: LayerSpec,
    /// Input weights \[neurons, inputs\], row-major.
    pub input: Vec<f32>,
    /// Recurrent weights \[neurons (to), neurons (from)\], row-major, where the layer is recurrent.
    pub recurrent: Option<Vec<f32>>,
}

impl LayerSpec {
    /// Checks cell, parameters and sizes; fills in the parameters' defaults.
    pub(super) fn complete(&mut self, dt_s: f64) -> Result<&'static CellKind> {
        let Some(kind) = CELLS.iter().find(|kind| kind.name == self.cell) else {
            let known: Vec<_> = CELLS.iter().map(|kind| kind.name).collect();
            return Err(Error::Model(format!(
                "unknown cell {:?}; known are {}",
                self.cell,
                known.join(", ")
            )));
        };
        within("inputs", self.inputs, MAX_INPUTS)?;
        within("neurons", self.neurons, MAX_NEURONS)?;
        self.complete_parameters(kind, dt_s)?;
        Ok(kind)
    }

    /// Inputs and, where its output comes back to it, neurons: each reaches every neuron.
    fn rows(&self) -> usize {
        self.inputs + if self.recurrent { self.neurons } else { 0 }
    }

    /// The parameters, once they are complete.
    pub(super) fn values(&self) -> Parameters {
        Parameters(self.parameters.clone())
    }

    fn complete_parameters(&mut self, kind: &CellKind, dt_s: f64) -> Result<()> {
        for name in self.parameters.keys() {
            if !kind.parameters.iter().any(|parameter| parameter.name == name) {
                let known: Vec<_> = kind.parameters.iter().map(|p| p.name).collect();
                return Err(Error::Model(format!(
                    "cell {} has no parameter {name:?}; it has {}",
                    kind.name,
                    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
                )));
            }
        }
        for parameter in kind.parameters {
            let value =
                *self.parameters.entry(parameter.name.to_owned()).or_insert(parameter.default);
            let refused = match parameter.kind {
                _ if !(value as f32).is_finite() => "a finite number of 32 bits",
                ParameterKind::Rate if value <= 0.0 => "a positive rate in 1/s",
                ParameterKind::Rate if value * dt_s > 2.0 => {
                    "a rate of at most 2 in one window: a faster one makes the steps diverge"
                }
                ParameterKind::Positive if value <= 0.0 => "a positive number",
                _ => continue,
            };
            return Err(Error::Model(format!(
                "{} of cell {} is {value:?}, which is not {refused} (a window lasts {} ms)",
                parameter.name,
                kind.name,
                // From µs to s and back, which the last bits do not survive.
                (dt_s * 1e6).round() / 1e3
            )));
        }
        Ok(())
    }
}

impl LayerWeights {
    /// Checks the lengths of the weights against the spec, and that they are finite.
    pub(super) fn check(&self) -> Result<()> {
        let LayerSpec { inputs, neurons, recurrent, .. } = self.spec;
        check_matrix("input weights", &self.input, neurons, inputs)?;
        match (&self.recurrent, recurrent) {
            (Some(weights), true) => check_matrix("recurrent weights", weights, neurons, neurons),
            (None, false) => Ok(()),
            (Some(_), false) => Err(Error::Model(
                "recurrent weights are given for a layer that is not recurrent".to_owned(),
            )),
            (None, true) => {
                Err(Error::Model("the recurrent weights of a recurrent layer are missing".into()))
            }
        }
    }
}

/// Checks all that specs decide before there are weights, and fills in the parameters' defaults;
/// `dt_s` is a window in seconds. Gives the cells.
///
/// # Errors
/// [`Error::Model`] where the layers make no network, or too large a one.
pub fn check_specs<'a>(
    specs: impl Iterator<Item = &'a mut LayerSpec>,
    dt_s: f64,
) -> Result<Vec<&'static CellKind>> {
    if !(dt_s > 0.0 && dt_s <= MAX_STEP_S) {
        return Err(Error::Model(format!(
            "a window of {dt_s} s is outside the possible 0 to {MAX_STEP_S} s"
        )));
    }
    let (mut kinds, mut n_weights, mut below) = (Vec::new(), 0, None);
    for (k, spec) in specs.enumerate() {
        kinds.push(in_layer(k, spec.complete(dt_s))?);
        if let Some(neurons) = below.replace(spec.neurons).filter(|neurons| *neurons != spec.inputs)
        {
            return Err(Error::Model(format!(
                "layer {k} has {} inputs, but layer {} below it has {neurons} neurons",
                spec.inputs,
                k - 1
            )));
        }
        n_weights += spec.rows() * padded(spec.neurons);
    }
    within("layers", kinds.len(), MAX_LAYERS)?;
    if n_weights > MAX_WEIGHTS {
        return Err(Error::Model(format!(
            "{n_weights} weights (rows padded) exceed the limit of {MAX_WEIGHTS}"
        )));
    }
    Ok(kinds)
}

/// Names the layer in what is wrong with it.
pub(super) fn in_layer<T>(k: usize, result: Result<T>) -> Result<T> {
    result.map_err(|error| Error::Model(format!("layer {k}: {error}")))
}

fn check_matrix(name: &str, weights: &[f32], rows: usize, columns: usize) -> Result<()> {
    if rows.checked_mul(columns) != Some(weights.len()) {
        return Err(Error::Model(format!(
            "{name}: {} values, where {rows} × {columns} are expected",
            weights.len()
        )));
    }
    match weights.iter().position(|weight| !weight.is_finite()) {
        Some(at) => Err(Error::Model(format!(
            "{name}: value {at} (row {}, column {}) is {}; all must be finite. Did the training \
             diverge?",
            at / columns,
            at % columns,
            weights[at]
        ))),
        None => Ok(()),
    }
}

fn within(what: &str, n: usize, limit: usize) -> Result<()> {
    if (1..=limit).contains(&n) {
        return Ok(());
    }
    Err(Error::Model(format!("{n} {what}: 1 to {limit} are possible")))
}
