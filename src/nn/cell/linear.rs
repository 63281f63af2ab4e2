//! Linear: the output is the projected sum, as `torch.nn.Linear` without a bias.
//!
//! Knows neither weights nor slots. Its output is kept as a variable, as every cell's is.

use candle_core::Tensor;

use super::{Cell, CellKind, MAX_CONSTANTS};
use crate::nn::op::level::Level;

pub(super) const KIND: CellKind = CellKind {
    name: "linear",
    parameters: &[],
    variables: &["y"],
    output: 0,
    spikes: false,
    saved: 0,
    build: |_, _| Box::new(Linear),
};

struct Linear;

impl Cell for Linear {
    fn step(
        &self,
        inputs: &Tensor,
        recurrent: Option<&Tensor>,
        _state: &[Tensor],
    ) -> candle_core::Result<Vec<Tensor>> {
        Ok(vec![match recurrent {
            Some(recurrent) => (inputs + recurrent)?,
            None => inputs.clone(),
        }])
    }

    fn kernel(&self, _level: Level, inputs: &[f32], recurrent: Option<&[f32]>, state: &mut [f32]) {
        state.copy_from_slice(inputs);
        for (y, recurrent) in state.iter_mut().zip(recurrent.unwrap_or_default()) {
            *y += recurrent;
        }
    }

    fn backward(&self, _level: Level, _saved: &[f32], carried: &mut [f32], jump: &mut [f32]) {
        jump.copy_from_slice(carried);
        carried.fill(0.0);
    }

    fn constants(&self) -> [f32; MAX_CONSTANTS] {
        [0.0; MAX_CONSTANTS]
    }
}
