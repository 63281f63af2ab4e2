//! Networks before training: the tutorial's chain of layers, and weights from a seed.
//!
//! Knows layers; neither tensors nor data.

use std::collections::BTreeMap;

use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

use super::layer::{LayerSpec, LayerWeights};

/// Draws a layer's weights.
///
/// A recurrent layer's are Norse's (`LIFRecurrentCell`): N(0, 1)·√(2 / neurons) for both matrices,
/// without connections from a neuron to itself. All others are uniform in ±1 / √inputs
/// (`torch.nn.Linear`). Input weights are multiplied by `scale`.
pub fn draw_weights(spec: LayerSpec, scale: f32, random: &mut impl Rng) -> LayerWeights {
    let LayerSpec { inputs, neurons, recurrent, .. } = spec;
    if !recurrent {
        let bound = 1.0 / (inputs as f32).sqrt();
        let mut draw = || (2.0 * random.random::<f32>() - 1.0) * bound * scale;
        let input = (0..neurons * inputs).map(|_| draw()).collect();
        return LayerWeights { spec, input, recurrent: None };
    }
    let deviation = (2.0 / neurons as f32).sqrt();
    let mut draw = |n: usize, scale: f32| -> Vec<f32> {
        let normal = |_| -> f32 { StandardNormal.sample(&mut *random) };
        (0..n).map(normal).map(|value| value * deviation * scale).collect()
    };
    let input = draw(neurons * inputs, scale);
    let mut recurrent = draw(neurons * neurons, 1.0);
    recurrent.iter_mut().step_by(neurons + 1).for_each(|weight| *weight = 0.0);
    LayerWeights { spec, input, recurrent: Some(recurrent) }
}

/// Parameters of a chain like the tutorial's, by default its own: recurrent LIF layers, then a
/// leaky-integrator readout.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainParameters {
    /// Threshold of the hidden layers.
    pub v_th: f64,
    /// Membrane rate of the hidden layers in 1/s.
    pub tau_mem_inv: f64,
    /// Synaptic rate of the hidden layers in 1/s.
    pub tau_syn_inv: f64,
    /// Membrane rate of the readout in 1/s.
    pub readout_tau_mem_inv: f64,
    /// Synaptic rate of the readout in 1/s.
    pub readout_tau_syn_inv: f64,
    /// Steepness of the surrogate gradient.
    pub alpha: f64,
}

impl Default for ChainParameters {
    fn default() -> Self {
        ChainParameters {
            v_th: 0.3,
            tau_mem_inv: 100.0,
            tau_syn_inv: 100.0,
            readout_tau_mem_inv: 100.0,
            readout_tau_syn_inv: 200.0,
            alpha: 100.0,
        }
    }
}

impl ChainParameters {
    /// A hidden layer.
    pub fn hidden(&self, inputs: usize, neurons: usize) -> LayerSpec {
        let parameters = named([
            ("v_th", self.v_th),
            ("tau_mem_inv", self.tau_mem_inv),
            ("tau_syn_inv", self.tau_syn_inv),
            ("alpha", self.alpha),
        ]);
        LayerSpec { cell: "lif".to_owned(), inputs, neurons, recurrent: true, parameters }
    }

    /// The readout.
    pub fn readout(&self, inputs: usize, classes: usize) -> LayerSpec {
        let parameters = named([
            ("tau_mem_inv", self.readout_tau_mem_inv),
            ("tau_syn_inv", self.readout_tau_syn_inv),
        ]);
        let (cell, neurons) = ("li".to_owned(), classes);
        LayerSpec { cell, inputs, neurons, recurrent: false, parameters }
    }
}

fn named<const N: usize>(parameters: [(&str, f64); N]) -> BTreeMap<String, f64> {
    parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
