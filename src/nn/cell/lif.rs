//! LIF, Norse's `LIFCell` and, with the layer's recurrence, `LIFRecurrentCell`: leaky integration
//! of a leaky current, a spike above the threshold, then a reset.
//!
//! Knows neither weights nor slots.

use candle_core::Tensor;
use pulp::{Simd, WithSimd};

use super::surrogate::superspike;
use super::{Cell, CellKind, MAX_CONSTANTS, Parameter, ParameterKind, Parameters, per_step};
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
    // the voltage before the reset
    saved: 1,
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

    /// The voltage before the reset, in a window whose current jumped to `jump`.
    #[inline(always)]
    fn peak(&self, jump: f32, v: f32) -> f32 {
        v + self.membrane_step * ((self.v_leak - v) + jump)
    }

    /// (z, v, i) after that window.
    #[inline(always)]
    fn neuron(&self, jump: f32, v: f32) -> (f32, f32, f32) {
        let v = self.peak(jump, v);
        let i = jump - self.synapse_step * jump;
        let fires = v - self.v_th > 0.0;
        (if fires { 1.0 } else { 0.0 }, if fires { self.v_reset } else { v }, i)
    }

    /// Gradients of (jump, v, i) before a window from those of (z, v, i) after it; `peak` is the
    /// voltage before the reset. Through the reset itself none flows.
    #[inline(always)]
    fn gradient(&self, peak: f32, z: f32, v: f32, i: f32) -> (f32, f32, f32) {
        let above = peak - self.v_th;
        let steepness = self.alpha as f32 * above.abs() + 1.0;
        let held = if above > 0.0 { 0.0 } else { v };
        let v = z / (steepness * steepness) + held;
        let jump = self.membrane_step * v + (i - self.synapse_step * i);
        (jump, v - self.membrane_step * v, jump)
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

    fn record(
        &self,
        level: Level,
        inputs: &[f32],
        recurrent: Option<&[f32]>,
        state: &mut [f32],
        saved: &mut [f32],
    ) {
        level.run(Peaks { cell: *self, inputs, recurrent, state, peaks: saved });
        level.run(Update { cell: *self, inputs, recurrent, state });
    }

    fn backward(&self, level: Level, saved: &[f32], carried: &mut [f32], jump: &mut [f32]) {
        level.run(Backward { cell: *self, peaks: saved, carried, jump });
    }

    fn constants(&self) -> [f32; MAX_CONSTANTS] {
        let Lif { membrane_step, synapse_step, v_leak, v_reset, v_th, alpha } = *self;
        [membrane_step, synapse_step, v_leak, v_reset, v_th, alpha as f32]
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

/// The voltages before the reset, which the state afterwards no longer holds.
struct Peaks<'a> {
    cell: Lif,
    inputs: &'a [f32],
    recurrent: Option<&'a [f32]>,
    state: &'a [f32],
    peaks: &'a mut [f32],
}

impl WithSimd for Peaks<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Self { cell, inputs, recurrent, state, peaks } = self;
        let (_, rest) = state.split_at(inputs.len());
        let (v, i) = rest.split_at(inputs.len());
        let lanes = peaks.as_chunks_mut::<16>().0.iter_mut().zip(inputs.as_chunks::<16>().0);
        let lanes = lanes.zip(v.as_chunks::<16>().0).zip(i.as_chunks::<16>().0);
        match recurrent {
            Some(recurrent) => {
                for ((((peak, a), v), i), b) in lanes.zip(recurrent.as_chunks::<16>().0) {
                    for k in 0..16 {
                        peak[k] = cell.peak((i[k] + a[k]) + b[k], v[k]);
                    }
                }
            }
            None => {
                for (((peak, a), v), i) in lanes {
                    for k in 0..16 {
                        peak[k] = cell.peak(i[k] + a[k], v[k]);
                    }
                }
            }
        }
    }
}

/// The gradients of a layer, sixteen neurons at a time.
struct Backward<'a> {
    cell: Lif,
    peaks: &'a [f32],
    carried: &'a mut [f32],
    jump: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let Self { cell, peaks, carried, jump } = self;
        let (z, rest) = carried.split_at_mut(jump.len());
        let (v, i) = rest.split_at_mut(jump.len());
        let lanes = z.as_chunks_mut::<16>().0.iter_mut().zip(v.as_chunks_mut::<16>().0);
        let lanes = lanes.zip(i.as_chunks_mut::<16>().0).zip(peaks.as_chunks::<16>().0);
        for ((((z, v), i), peak), jump) in lanes.zip(jump.as_chunks_mut::<16>().0) {
            for k in 0..16 {
                (jump[k], v[k], i[k]) = cell.gradient(peak[k], z[k], v[k], i[k]);
                z[k] = 0.0;
            }
        }
    }
}
