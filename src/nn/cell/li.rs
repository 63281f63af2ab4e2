//! LI, Norse's `LICell`: leaky integration of a leaky current, without spikes or reset. Its
//! voltages are a classifier's running logits.
//!
//! Knows neither weights nor slots.

use candle_core::Tensor;
use pulp::{Simd, WithSimd};

use super::{Cell, CellKind, MAX_CONSTANTS, Parameter, ParameterKind, Parameters, per_step};
use crate::nn::op::level::Level;

pub(super) const KIND: CellKind = CellKind {
    name: "li",
    parameters: &[
        Parameter { name: "tau_mem_inv", default: 100.0, kind: ParameterKind::Rate },
        Parameter { name: "tau_syn_inv", default: 200.0, kind: ParameterKind::Rate },
        Parameter { name: "v_leak", default: 0.0, kind: ParameterKind::Level },
    ],
    variables: &["v", "i"],
    output: 0,
    spikes: false,
    saved: 0,
    build: |parameters, dt_s| Box::new(Li::new(parameters, dt_s)),
};

#[derive(Clone, Copy)]
struct Li {
    membrane_step: f32,
    synapse_step: f32,
    v_leak: f32,
}

impl Li {
    fn new(parameters: &Parameters, dt_s: f64) -> Self {
        Li {
            membrane_step: per_step(parameters.get("tau_mem_inv"), dt_s),
            synapse_step: per_step(parameters.get("tau_syn_inv"), dt_s),
            v_leak: parameters.get("v_leak") as f32,
        }
    }

    /// (v, i) after a window whose current jumped to `jump`.
    #[inline(always)]
    fn neuron(&self, jump: f32, v: f32) -> (f32, f32) {
        let v = v + self.membrane_step * ((self.v_leak - v) + jump);
        (v, jump - self.synapse_step * jump)
    }

    /// Gradients of (jump, v, i) before a window from those of (v, i) after it.
    #[inline(always)]
    fn gradient(&self, v: f32, i: f32) -> (f32, f32, f32) {
        let jump = self.membrane_step * v + (i - self.synapse_step * i);
        (jump, v - self.membrane_step * v, jump)
    }
}

impl Cell for Li {
    fn step(
        &self,
        inputs: &Tensor,
        recurrent: Option<&Tensor>,
        state: &[Tensor],
    ) -> candle_core::Result<Vec<Tensor>> {
        let (v, i) = (&state[0], &state[1]);
        let mut jump = (i + inputs)?;
        if let Some(recurrent) = recurrent {
            jump = (jump + recurrent)?;
        }
        let pull = (v.affine(-1.0, self.v_leak.into())? + &jump)?;
        let v = (v + pull.affine(self.membrane_step.into(), 0.0)?)?;
        let i = (&jump - jump.affine(self.synapse_step.into(), 0.0)?)?;
        Ok(vec![v, i])
    }

    fn kernel(&self, level: Level, inputs: &[f32], recurrent: Option<&[f32]>, state: &mut [f32]) {
        level.run(Update { cell: *self, inputs, recurrent, state });
    }

    fn backward(&self, level: Level, _saved: &[f32], carried: &mut [f32], jump: &mut [f32]) {
        level.run(Backward { cell: *self, carried, jump });
    }

    fn constants(&self) -> [f32; MAX_CONSTANTS] {
        [self.membrane_step, self.synapse_step, self.v_leak, 0.0, 0.0, 0.0]
    }
}

/// The gradients of a layer, sixteen neurons at a time.
struct Backward<'a> {
    cell: Li,
    carried: &'a mut [f32],
    jump: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Self { cell, carried, jump } = self;
        let (v, i) = carried.split_at_mut(jump.len());
        let lanes = v.as_chunks_mut::<16>().0.iter_mut().zip(i.as_chunks_mut::<16>().0);
        for ((v, i), jump) in lanes.zip(jump.as_chunks_mut::<16>().0) {
            for k in 0..16 {
                (jump[k], v[k], i[k]) = cell.gradient(v[k], i[k]);
            }
        }
    }
}

/// The neurons of a layer, sixteen at a time.
struct Update<'a> {
    cell: Li,
    inputs: &'a [f32],
    recurrent: Option<&'a [f32]>,
    state: &'a mut [f32],
}

impl WithSimd for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Self { cell, inputs, recurrent, state } = self;
        let (v, i) = state.split_at_mut(inputs.len());
        let lanes = v.as_chunks_mut::<16>().0.iter_mut().zip(i.as_chunks_mut::<16>().0);
        let lanes = lanes.zip(inputs.as_chunks::<16>().0);
        match recurrent {
            Some(recurrent) => {
                for (((v, i), a), b) in lanes.zip(recurrent.as_chunks::<16>().0) {
                    for k in 0..16 {
                        (v[k], i[k]) = cell.neuron((i[k] + a[k]) + b[k], v[k]);
                    }
                }
            }
            None => {
                for ((v, i), a) in lanes {
                    for k in 0..16 {
                        (v[k], i[k]) = cell.neuron(i[k] + a[k], v[k]);
                    }
                }
            }
        }
    }
}
