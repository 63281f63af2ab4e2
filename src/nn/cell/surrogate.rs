//! The step function that spikes, with SuperSpike's gradient.
//!
//! Knows neither cells nor time.

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};

/// 1 where `x > 0`, else 0; backward 1 / (1 + α·|x|)², for float32 and float64; of any shape.
///
/// # Errors
/// Where `x` is not on the CPU, or holds no floats.
pub fn superspike(x: &Tensor, alpha: f64) -> Result<Tensor> {
    if !x.device().is_cpu() {
        bail!("spikes on plain tensors are made on the CPU alone: take the network there first")
    }
    x.contiguous()?.apply_op1(SuperSpike { alpha })
}

struct SuperSpike {
    alpha: f64,
}

impl CustomOp1 for SuperSpike {
    fn name(&self) -> &'static str {
        "superspike"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("superspike needs a contiguous tensor")
        };
        let spikes = match storage {
            CpuStorage::F32(x) => {
                CpuStorage::F32(x[start..end].iter().map(|&x| f32::from(x > 0.0)).collect())
            }
            CpuStorage::F64(x) => {
                CpuStorage::F64(x[start..end].iter().map(|&x| f64::from(x > 0.0)).collect())
            }
            _ => bail!("superspike needs floats, {:?} or {:?}", DType::F32, DType::F64),
        };
        Ok((spikes, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _spikes: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let steepness = x.abs()?.affine(self.alpha, 1.0)?;
        Ok(Some(gradient.div(&steepness.sqr()?)?))
    }
}
