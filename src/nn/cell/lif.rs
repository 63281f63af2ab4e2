//! LIF, Norse's `LIFCell` and, with the layer's recurrence, `LIFRecurrentCell`: leaky integration
//! of a leaky current, a spike above the threshold, then a reset.
//!
//! Knows neither weights nor slots.

use candle_core::Tensor;
use pulp::{Simd, WithSimd};

use super::surrogate::superspike;
use super::{Cell, CellKind, Parameter, ParameterKind, Parameters, per_step};
use crate::nn::op::level::Level;

pub(super) const KIND: CellKind = CellKind {
    name: "lif",
    parameters: &[
        Parameter { name: "tau_mem_inv", default: 100.0, kind: ParameterKind::Rate },
        Parameter { name: "tau_syn_inv", default: 100.0, kind: ParameterKind::Rate },
        Parameter { name: "v_leak", default: 0.0, kind: ParameterKind::Level },
        Parameter { name: "v_reset", default: 0.0, kind: ParameterKind::Level },
        Parameter { name: "v_th", default: 0.3, kind: ParameterKind::Level },
        Parameter { name: "alpha", default: 100.0, kind: ParameterKind::Positive },
    ],
    variables: &["z", "v", "i"],
    output: 0,
    spikes: true,
    build: |parameters, dt_s| Box::new(Lif::new(parameters, dt_s)),
};

#[derive(Clone, Copy)]
struct Lif {
    membrane_step: f32,
    synapse_step: f32,
    v_leak: f32,
    v_reset: f32,
    v_th: f32,
    alpha: f64,
}

impl Lif {
    fn new(parameters: &Parameters, dt_s: f64) -> Self {
        Lif {
            membrane_step: per_step(parameters.get("tau_mem_inv"), dt_s),
            synapse_step: per_step(parameters.get("tau_syn_inv"), dt_s),
            v_leak: parameters.get("v_leak") as f32,
            v_reset: parameters.get("v_reset") as f32,
            v_th: parameters.get("v_th") as f32,
            alpha: parameters.get("alpha"),
        }
    }

    /// (z, v, i) after a window whose current jumped to `jump`.
    #[inline(always)]
    fn neuron(&self, jump: f32, v: f32) -> (f32, f32, f32) {
        let v = v + self.membrane_step * ((self.v_leak - v) + jump);
        let i = jump - self.synapse_step * jump;
        let fires = v - self.v_th > 0.0;
        (if fires { 1.0 } else { 0.0 }, if fires { self.v_reset } else { v }, i)
    }
}

impl Cell for Lif {
    fn step(
        &self,
        inputs: &Tensor,
        recurrent: Option<&Tensor>,
        state: &[Tensor],
    ) -> candle_core::Result<Vec<Tensor>> {
        let (v, i) = (&state[1], &state[2]);
        let mut jump = (i + inputs)?;
        if let Some(recurrent) = recurrent {
            jump = (jump + recurrent)?;
        }
        let pull = (v.affine(-1.0, self.v_leak.into())? + &jump)?;
        let v = (v + pull.affine(self.membrane_step.into(), 0.0)?)?;
        let i = (&jump - jump.affine(self.synapse_step.into(), 0.0)?)?;
        let z = superspike(&v.affine(1.0, -f64::from(self.v_th))?, self.alpha)?;
        let held = z.detach();
        let v = ((held.affine(-1.0, 1.0)? * v)? + held.affine(self.v_reset.into(), 0.0)?)?;
        Ok(vec![z, v, i])
    }

    fn kernel(&self, level: Level, inputs: &[f32], recurrent: Option<&[f32]>, state: &mut [f32]) {
        level.run(Update { cell: *self, inputs, recurrent, state });
    }
}

/// The neurons of a layer, sixteen at a time.
struct Update<'a> {
    cell: Lif,
    inputs: &'a [f32],
    recurrent: Option<&'a [f32]>,
    state: &'a mut [f32],
}

impl WithSimd for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Self { cell, inputs, recurrent, state } = self;
        let (z, rest) = state.split_at_mut(inputs.len());
        let (v, i) = rest.split_at_mut(inputs.len());
        let lanes = z.as_chunks_mut::<16>().0.iter_mut().zip(v.as_chunks_mut::<16>().0);
        let lanes = lanes.zip(i.as_chunks_mut::<16>().0).zip(inputs.as_chunks::<16>().0);
        match recurrent {
            Some(recurrent) => {
                for ((((z, v), i), a), b) in lanes.zip(recurrent.as_chunks::<16>().0) {
                    for k in 0..16 {
                        (z[k], v[k], i[k]) = cell.neuron((i[k] + a[k]) + b[k], v[k]);
                    }
                }
            }
            None => {
                for (((z, v), i), a) in lanes {
                    for k in 0..16 {
                        (z[k], v[k], i[k]) = cell.neuron(i[k] + a[k], v[k]);
                    }
                }
            }
        }
    }
}
