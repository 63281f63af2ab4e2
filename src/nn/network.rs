//! Network: a chain of layers, immutable and shared; steps states, its own it has none.
//!
//! Knows cells, weights and the fused operation; knows no label, no window length but its step.

use candle_core::{DType, Tensor};

use super::cell::CellKind;
use super::layer::{LayerSpec, LayerWeights, check_specs, in_layer};
#[cfg(feature = "cuda")]
use super::op::cuda::free_bytes;
use super::op::level::Level;
use super::op::memory::{aligned, padded};
use super::op::{Chain, Job, Layer, Rollout};
use super::state::failed;
use super::{Device, PlainState, PlannedStep, State, Trace};
use crate::error::{Error, Result};
use crate::frame::{Frames, SlotFrames};

/// A checked network, whose every step succeeds.
pub struct Network {
    specs: Vec<LayerSpec>,
    dt_s: f64,
    pub(super) chain: Chain,
}

/// A layer's weights on plain tensors.
#[derive(Clone, Debug)]
pub struct Matrices {
    /// Input weights, transposed: \[inputs, neurons\].
    pub input: Tensor,
    /// Recurrent weights, transposed: \[neurons (from), neurons (to)\].
    pub recurrent: Option<Tensor>,
}

impl Network {
    /// A network on the CPU: [`Network::new_on`].
    pub fn new(layers: Vec<LayerWeights>, dt_s: f64) -> Result<Network> {
        Network::new_on(layers, dt_s, &Device::cpu())
    }

    /// Checks everything and lays the weights out for the kernels, on a device, where the network's
    /// states will live too; `dt_s` is a window in seconds.
    ///
    /// Parameters that a layer does not name get their defaults. Recurrent diagonals are taken as
    /// they are.
    ///
    /// # Errors
    /// [`Error::Model`] where the layers make no network, [`Error::Device`] where the weights do not fit
    /// on the device, [`Error::Tensor`] where it does not take them otherwise.
    pub fn new_on(mut layers: Vec<LayerWeights>, dt_s: f64, device: &Device) -> Result<Network> {
        let kinds = check_specs(layers.iter_mut().map(|layer| &mut layer.spec), dt_s)?;
        for (k, layer) in layers.iter().enumerate() {
            in_layer(k, layer.check())?;
        }
        let mut chain = lay_out(&layers, &kinds, dt_s)?;
        #[cfg(feature = "cuda")]
        if let Some(free) = free_bytes(&device.tensors).map_err(failed("ask for free memory"))? {
            super::device::room_for_weights(4 * chain.weights.elem_count(), free)?;
        }
        chain.move_to(device).map_err(failed("move the network to the device"))?;
        let specs = layers.into_iter().map(|layer| layer.spec).collect();
        Ok(Network { specs, dt_s, chain })
    }

    /// Number of addresses that a frame may use.
    pub fn inputs(&self) -> usize {
        self.specs.first().map_or(0, |spec| spec.inputs)
    }

    /// Number of values of the last layer's output.
    pub fn outputs(&self) -> usize {
        self.specs.last().map_or(0, |spec| spec.neurons)
    }

    /// Duration of a step in seconds.
    pub fn dt_s(&self) -> f64 {
        self.dt_s
    }

    /// The layers from the input to the output, all parameters filled in.
    pub fn layers(&self) -> impl Iterator<Item = &LayerSpec> {
        self.specs.iter()
    }

    /// The layers with their weights, exactly as they were given.
    pub fn weights(&self) -> Result<Vec<LayerWeights>> {
        let all = self.chain.weights.flatten_all().and_then(|all| all.to_vec1::<f32>());
        Ok(self.unpacked(&all.map_err(failed("read the weights"))?))
    }

    /// Values packed as the weights are, as a model file holds them.
    pub(super) fn unpacked(&self, all: &[f32]) -> Vec<LayerWeights> {
        let layers = self.specs.iter().zip(&self.chain.layers).map(|(spec, layer)| {
            let unpacked = |at: &std::ops::Range<usize>, inputs| {
                untransposed(&all[at.clone()], inputs, layer.neurons, layer.width)
            };
            LayerWeights {
                spec: spec.clone(),
                input: unpacked(&layer.input_weights, layer.inputs),
                recurrent: layer.recurrent_weights.as_ref().map(|at| unpacked(at, layer.neurons)),
            }
        });
        layers.collect()
    }

    /// The same network on another instruction set; all give the same bits.
    pub fn with_level(mut self, level: Level) -> Network {
        self.chain.level = level;
        self
    }

    /// The same network on a device.
    ///
    /// # Errors
    /// As [`Network::new_on`].
    pub fn on(&self, device: &Device) -> Result<Network> {
        Network::new_on(self.weights()?, self.dt_s, device)
    }

    /// A state of `n_slots` slots before their first windows.
    ///
    /// # Errors
    /// [`Error::Mismatch`] beyond the limit of a state, [`Error::Device`] where a device has no room for so
    /// many, which says how many fit.
    pub fn zero_state(&self, n_slots: usize) -> Result<State> {
        let Chain { layers, weights, row_len, .. } = &self.chain;
        State::zero(layers, *row_len, n_slots, weights.device())
    }

    /// An empty trace of this network's variables.
    pub fn trace(&self) -> Trace {
        Trace::new(&self.chain.layers)
    }

    /// Steps the planned windows, in their order, on the slots' state in place, and appends
    /// [`Network::outputs`] values to `out` for each.
    ///
    /// Refuses, before it steps anything, a plan that leaves its slots or frames, an address beyond
    /// the inputs, and a state or trace of another network. Allocates once a call (Candle's own),
    /// beside what `out` and `trace` need to grow.
    pub fn rollout(
        &self,
        state: &mut State,
        slots: &[SlotFrames],
        plan: &[PlannedStep],
        out: &mut Vec<f32>,
        trace: Option<&mut Trace>,
    ) -> Result<()> {
        self.check(state, slots, plan, trace.as_deref())?;
        out.reserve(plan.len() * self.outputs());
        let State { rows, scratch, .. } = state;
        let job = Job { slots, plan, scratch, out, trace };
        rows.inplace_op1(&Rollout::new(&self.chain, job)).map_err(failed("step the network"))
    }

    /// A plain state of `n` rows before their first windows.
    pub fn plain_state(&self, n: usize) -> Result<PlainState> {
        let zeros = |layer: &Layer| {
            let zero =
                || Tensor::zeros((n, layer.neurons), DType::F32, self.chain.weights.device());
            layer.kind.variables.iter().map(|_| zero()).collect()
        };
        let layers = self.chain.layers.iter().map(zeros).collect::<candle_core::Result<_>>();
        Ok(PlainState { layers: layers.map_err(failed("make a plain state"))? })
    }

    /// One step on plain tensors, the readable definition: `x` \[n, inputs\] gives the outputs
    /// \[n, outputs\] and the new state.
    ///
    /// Equal to [`Network::rollout`] up to rounding: a matrix product sums in an order of its own.
    ///
    /// # Errors
    /// [`Error::Tensor`] where shapes do not match, and on a GPU where a cell spikes: step
    /// `network.on(&Device::cpu())` instead, which has the same weights.
    pub fn step(&self, x: &Tensor, state: &PlainState) -> Result<(Tensor, PlainState)> {
        self.step_with(&self.matrices()?, x, state)
    }

    /// [`Network::step`] with other weights, which may be variables: then the outputs can be
    /// differentiated.
    pub fn step_with(
        &self,
        weights: &[Matrices],
        x: &Tensor,
        state: &PlainState,
    ) -> Result<(Tensor, PlainState)> {
        self.plain_step(weights, x, state).map_err(failed("step the network on plain tensors"))
    }

    /// All weights on plain tensors.
    pub fn matrices(&self) -> Result<Vec<Matrices>> {
        let of = |layer: &Layer| {
            let Layer { input_weights, recurrent_weights, .. } = layer;
            Ok(Matrices {
                input: self.matrix(input_weights, layer)?,
                recurrent: match recurrent_weights {
                    Some(at) => Some(self.matrix(at, layer)?),
                    None => None,
                },
            })
        };
        let matrices = self.chain.layers.iter().map(of).collect::<candle_core::Result<_>>();
        matrices.map_err(failed("read the weights"))
    }

    fn plain_step(
        &self,
        weights: &[Matrices],
        x: &Tensor,
        state: &PlainState,
    ) -> candle_core::Result<(Tensor, PlainState)> {
        let mut output = x.clone();
        let mut layers = Vec::with_capacity(state.layers.len());
        for ((layer, state), weights) in self.chain.layers.iter().zip(&state.layers).zip(weights) {
            let inputs = output.matmul(&weights.input)?;
            let recurrent = match &weights.recurrent {
                Some(matrix) => Some(state[layer.kind.output].matmul(matrix)?),
                None => None,
            };
            let state = layer.cell.step(&inputs, recurrent.as_ref(), state)?;
            output = state[layer.kind.output].clone();
            layers.push(state);
        }
        Ok((output, PlainState { layers }))
    }

    /// A matrix of the chain's weights, transposed: \[inputs, neurons\].
    fn matrix(&self, at: &std::ops::Range<usize>, layer: &Layer) -> candle_core::Result<Tensor> {
        let rows = self.chain.weights.flatten_all()?.narrow(0, at.start, at.len())?;
        rows.reshape(((), layer.width))?.narrow(1, 0, layer.neurons)?.contiguous()
    }

    fn check(
        &self,
        state: &State,
        slots: &[SlotFrames],
        plan: &[PlannedStep],
        trace: Option<&Trace>,
    ) -> Result<()> {
        let layers = &self.chain.layers;
        if !state.fits(layers, self.chain.row_len) || trace.is_some_and(|t| !t.fits(layers)) {
            let what = "the state or the trace belongs to another network";
            return Err(Error::Mismatch(what.to_owned()));
        }
        for step in plan {
            let Some(slot) = slots.get(step.slot_index as usize) else {
                return Err(Error::Mismatch(format!("no slot {} is given", step.slot_index)));
            };
            if slot.slot >= state.n_slots() || step.window as usize >= slot.frames.len() {
                return Err(Error::Mismatch(format!(
                    "window {} of slot {} does not exist: {} windows, {} slots",
                    step.window,
                    slot.slot,
                    slot.frames.len(),
                    state.n_slots()
                )));
            }
            self.check_frame(&slot.frames, step.window as usize)?;
        }
        Ok(())
    }

    /// Refuses frames with an address beyond the inputs.
    pub(super) fn check_frames(&self, frames: &Frames) -> Result<()> {
        (0..frames.len()).try_for_each(|k| self.check_frame(frames, k))
    }

    fn check_frame(&self, frames: &Frames, k: usize) -> Result<()> {
        if frames.addresses_end() as usize <= self.inputs() {
            return Ok(());
        }
        match frames.active(k).0.last() {
            Some(&last) if last as usize >= self.inputs() => Err(Error::Mismatch(format!(
                "a frame has address {last}, but the network has {} inputs",
                self.inputs()
            ))),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("layers", &self.specs).field("dt_s", &self.dt_s).finish()
    }
}

/// Cells and places of the layers, and the chain's weights.
fn lay_out(layers: &[LayerWeights], kinds: &[&'static CellKind], dt_s: f64) -> Result<Chain> {
    let (mut n_weights, mut row_len, mut saved_len) = (0usize, 0, 0);
    let mut places = Vec::with_capacity(layers.len());
    for (LayerWeights { spec, .. }, &kind) in layers.iter().zip(kinds) {
        let width = padded(spec.neurons);
        let mut take = |rows: usize| {
            let start = n_weights;
            n_weights += rows * width;
            start..n_weights
        };
        let input_weights = take(spec.inputs);
        let recurrent_weights = spec.recurrent.then(|| take(spec.neurons));
        let state = row_len..row_len + kind.variables.len() * width;
        row_len = state.end;
        let saved = saved_len..saved_len + kind.saved * width;
        saved_len = saved.end;
        places.push(Layer {
            kind,
            cell: (kind.build)(&spec.values(), dt_s),
            inputs: spec.inputs,
            neurons: spec.neurons,
            width,
            input_weights,
            recurrent_weights,
            state,
            saved,
        });
    }
    let weights = aligned((n_weights, 1), |all| {
        for (layer, place) in layers.iter().zip(&places) {
            transpose(&layer.input, &mut all[place.input_weights.clone()], place);
            if let (Some(recurrent), Some(at)) = (&layer.recurrent, &place.recurrent_weights) {
                transpose(recurrent, &mut all[at.clone()], place);
            }
        }
    });
    let weights = weights.map_err(failed("lay out the weights"))?;
    Ok(Chain {
        layers: places,
        weights,
        row_len,
        saved_len,
        level: Level::best(),
        #[cfg(feature = "kernel-host")]
        kernel: None,
        #[cfg(feature = "cuda")]
        cuda: None,
    })
}

/// \[neurons, inputs\] to padded \[inputs, width\].
fn transpose(matrix: &[f32], rows: &mut [f32], layer: &Layer) {
    let inputs = matrix.len() / layer.neurons;
    for (neuron, weights) in matrix.chunks_exact(inputs).enumerate() {
        for (row, weight) in rows.chunks_exact_mut(layer.width).zip(weights) {
            row[neuron] = *weight;
        }
    }
}

/// Padded \[inputs, width\] back to \[neurons, inputs\].
fn untransposed(rows: &[f32], inputs: usize, neurons: usize, width: usize) -> Vec<f32> {
    let mut matrix = Vec::with_capacity(neurons * inputs);
    for neuron in 0..neurons {
        matrix.extend(rows.chunks_exact(width).map(|row| row[neuron]));
    }
    matrix
}
