//! State: what the cells of every slot remember between windows, and nothing else.
//!
//! Owned by whoever steps; knows no weights.

use candle_core::{DType, Device, Tensor};

use super::op::Layer;
use super::op::memory::{Scratch, aligned, edit_in_place, values_of};
use crate::error::{Error, Result};

/// Most values that a state may hold, all slots together (1 GiB).
pub const MAX_STATE_FLOATS: usize = 1 << 28;

/// State of n slots, packed in one tensor with a row for each.
#[derive(Debug)]
pub struct State {
    pub(super) rows: Tensor,
    pub(super) scratch: Scratch,
    variables: Vec<PackedVariable>,
    n_slots: usize,
    row_len: usize,
}

/// Where a variable of a layer stands in a padded row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PackedVariable {
    start: usize,
    neurons: usize,
}

/// State on plain tensors: for each layer its variables, each \[n, neurons\], in the cell's order.
#[derive(Clone, Debug)]
pub struct PlainState {
    /// Variables by layer.
    pub layers: Vec<Vec<Tensor>>,
}

impl State {
    pub(super) fn zero(
        layers: &[Layer],
        row_len: usize,
        n_slots: usize,
        device: &Device,
    ) -> Result<State> {
        if n_slots.checked_mul(row_len).is_none_or(|floats| floats > MAX_STATE_FLOATS) {
            return Err(Error::Mismatch(format!(
                "{n_slots} slots of {row_len} state values each exceed the limit of \
                 {MAX_STATE_FLOATS} values; run fewer slots"
            )));
        }
        let variables = layers.iter().flat_map(|layer| {
            (0..layer.kind.variables.len())
                .map(|k| PackedVariable { start: layer.variable(k).start, neurons: layer.neurons })
        });
        Ok(State {
            rows: zeros((n_slots, row_len), layers, device)?,
            scratch: Scratch::new(layers.iter().map(|layer| layer.width)),
            variables: variables.collect(),
            n_slots,
            row_len,
        })
    }

    /// Number of slots.
    pub fn n_slots(&self) -> usize {
        self.n_slots
    }

    /// Length of a packed row: all variables of all layers, without padding.
    pub fn row_len(&self) -> usize {
        self.variables.iter().map(|variable| variable.neurons).sum()
    }

    /// Sets a slot's state to zero, as before its first window.
    pub fn reset(&mut self, slot: usize) -> Result<()> {
        self.edit_row(slot, |row| row.fill(0.0))
    }

    /// A slot's packed row: layer by layer, variable by variable in the cell's order.
    pub fn row(&self, slot: usize) -> Result<Vec<f32>> {
        self.check_slot(slot)?;
        let row = self.rows.narrow(0, slot, 1);
        let padded = row.and_then(|row| values_of(&row)).map_err(failed("read a slot's state"))?;
        let values = self.variables.iter().map(|v| &padded[v.start..v.start + v.neurons]);
        Ok(values.collect::<Vec<_>>().concat())
    }

    /// Replaces a slot's state by a packed row, as [`State::row`] gives it.
    pub fn set_row(&mut self, slot: usize, packed: &[f32]) -> Result<()> {
        let expected = self.row_len();
        if packed.len() != expected {
            return Err(Error::Mismatch(format!(
                "a slot's state has {expected} values, not {}: it comes from another network",
                packed.len()
            )));
        }
        let variables = self.variables.clone();
        self.edit_row(slot, |row| {
            let mut rest = packed;
            for PackedVariable { start, neurons } in variables {
                let (values, after) = rest.split_at(neurons);
                row[start..start + neurons].copy_from_slice(values);
                rest = after;
            }
        })
    }

    /// Whether the state is one of a network with these layers.
    pub(super) fn fits(&self, layers: &[Layer], row_len: usize) -> bool {
        let mut variables = self.variables.iter();
        self.row_len == row_len
            && layers.iter().all(|layer| {
                (0..layer.kind.variables.len()).all(|k| {
                    variables.next().is_some_and(|v| {
                        (v.start, v.neurons) == (layer.variable(k).start, layer.neurons)
                    })
                })
            })
            && variables.next().is_none()
    }

    fn edit_row(&mut self, slot: usize, edit: impl FnOnce(&mut [f32])) -> Result<()> {
        self.check_slot(slot)?;
        self.scratch.forget_lists();
        let row = self.rows.narrow(0, slot, 1);
        row.and_then(|row| edit_in_place(&row, edit)).map_err(failed("change a slot's state"))
    }

    fn check_slot(&self, slot: usize) -> Result<()> {
        if slot < self.n_slots {
            return Ok(());
        }
        Err(Error::Mismatch(format!("there is no slot {slot}: the state has {}", self.n_slots)))
    }
}

/// \[n_slots, row_len\] of zeros, where a device has room for them and for what steps them.
#[cfg_attr(not(feature = "cuda"), allow(unused_variables))]
fn zeros((n_slots, row_len): (usize, usize), layers: &[Layer], device: &Device) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if let Some(free) = super::op::cuda::free_bytes(device).map_err(failed("size a state"))? {
        let beside = super::op::packed::bytes_beside_state(layers);
        super::device::room(n_slots, 4 * row_len + beside, free)?;
    }
    let zeros = match device {
        Device::Cpu => aligned((n_slots, row_len), |_| ()),
        _ => Tensor::zeros((n_slots, row_len), DType::F32, device),
    };
    zeros.map_err(failed("make a state"))
}

/// Names what a tensor operation was for.
pub(super) fn failed(what: &'static str) -> impl FnOnce(candle_core::Error) -> Error {
    move |source| Error::Tensor { what: format!("cannot {what}: {source}"), source: source.into() }
}
