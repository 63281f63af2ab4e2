//! Weights before training, from a seed.
//!
//! Knows layers; neither tensors nor data.

use rand::{Rng, RngExt};
use rand_distr::{Distribution, StandardNormal};

use super::cell::CELLS;
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

/// The tutorial's chain: a recurrent LIF layer, then a leaky-integrator readout.
pub fn tutorial_layers(inputs: usize, hidden: usize, classes: usize) -> [LayerSpec; 2] {
    let layer = |cell: usize, inputs, neurons, recurrent| LayerSpec {
        cell: CELLS[cell].name.to_owned(),
        inputs,
        neurons,
        recurrent,
        parameters: Default::default(),
    };
    [layer(0, inputs, hidden, true), layer(1, hidden, classes, false)]
}
