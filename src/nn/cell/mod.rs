//! Cells: what one layer's neurons do with their synaptic current in one window.
//!
//! A cell knows its parameters and its state variables. Projections (weights), slots and chains
//! are the network's. A new cell is one file here and one row in [`CELLS`].

mod li;
mod lif;
mod linear;
pub(crate) mod surrogate;

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::op::level::Level;

/// All cells. On the GPU, `cells.cuh` knows them by their place here.
pub static CELLS: &[CellKind] = &[lif::KIND, li::KIND, linear::KIND];

/// A row of [`CELLS`]: what a kind of cell is called, what it needs and what it keeps.
#[derive(Debug)]
pub struct CellKind {
    /// Name in a model's metadata.
    pub name: &'static str,
    /// Parameters, with the values that hold where a layer names none.
    pub parameters: &'static [Parameter],
    /// State variables of a neuron, in the order of a packed row; all zero at the start.
    pub variables: &'static [&'static str],
    /// Index of the variable that is the layer's output.
    pub output: usize,
    /// Whether the output is spikes (0 or 1): then it travels as a list of the neurons that fired.
    pub spikes: bool,
    /// Values of a neuron and window that its gradient needs besides the output.
    pub saved: usize,
    /// Makes a cell for steps of `dt_s` seconds.
    pub build: fn(&Parameters, f64) -> Box<dyn Cell>,
}

/// A parameter of a cell, one value a layer.
#[derive(Debug)]
pub struct Parameter {
    /// Name in a model's metadata (Norse's).
    pub name: &'static str,
    /// Value where a layer names none.
    pub default: f64,
    /// What values make sense.
    pub kind: ParameterKind,
}

/// What values of a parameter make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// A rate in 1/s: positive, and at most 2 in a step, beyond which the steps diverge.
    Rate,
    /// Any finite number.
    Level,
    /// A positive number.
    Positive,
}

/// Values of a layer's parameters, complete: the network filled in the defaults.
#[derive(Clone, Debug)]
pub struct Parameters(pub(super) BTreeMap<String, f64>);

impl Parameters {
    /// Value of a parameter that stands in the kind's table, 0 of any other.
    pub fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }
}

/// The equations of a layer, twice: on tensors, which is the definition, and on slices.
pub trait Cell: Send + Sync {
    /// One window on tensors, differentiable.
    ///
    /// `inputs` and `recurrent` are the projected sums, each \[n, neurons\] and summed from 0;
    /// `state` holds the variables, each \[n, neurons\]. Returns the new variables, in order.
    fn step(
        &self,
        inputs: &Tensor,
        recurrent: Option<&Tensor>,
        state: &[Tensor],
    ) -> candle_core::Result<Vec<Tensor>>;

    /// The same on slices, for one slot: bits equal on every level.
    ///
    /// `inputs` and `recurrent` have the layer's padded width, a multiple of 16; `state` holds the
    /// variables one after another, each of that width. What happens in the padding is ignored.
    fn kernel(&self, level: Level, inputs: &[f32], recurrent: Option<&[f32]>, state: &mut [f32]);

    /// [`Cell::kernel`] that keeps [`CellKind::saved`] values of each neuron for the gradient, one
    /// value of all neurons after another.
    fn record(
        &self,
        level: Level,
        inputs: &[f32],
        recurrent: Option<&[f32]>,
        state: &mut [f32],
        _saved: &mut [f32],
    ) {
        self.kernel(level, inputs, recurrent, state);
    }

    /// The gradient of [`Cell::step`] on slices, for one slot and one window.
    ///
    /// `carried`, laid out as the kernel's state, holds the loss's gradient with respect to the
    /// variables after the window, and is replaced with the one with respect to those before it;
    /// `jump` is set to the gradient with respect to `inputs`, which is that of `recurrent` too.
    fn backward(&self, level: Level, saved: &[f32], carried: &mut [f32], jump: &mut [f32]);

    /// What the cell's equations in `cells.cuh`, which the GPU runs, need of its parameters; 0
    /// where they need fewer.
    fn constants(&self) -> [f32; MAX_CONSTANTS];
}

/// Most constants of a cell on the GPU.
pub(crate) const MAX_CONSTANTS: usize = 6;

/// A rate's share of one step, rounded once, as a cell uses it.
fn per_step(rate: f64, dt_s: f64) -> f32 {
    (dt_s * rate) as f32
}
