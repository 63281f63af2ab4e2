//! The rollout on a GPU: the plan up, the kernel, the outputs down, once each a call.
//!
//! Knows CUDA by way of Candle; no equation. Buffers are made once and grow. What the kernel is
//! told, `packed` writes.

use candle_core::cuda_backend::cudarc::driver::sys::{
    CUdevice_attribute as Attribute, CUfunction_attribute as FunctionAttribute,
};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, DeviceRepr, ValidAsZeroBits,
};
use candle_core::cuda_backend::{CudaDevice, CudaStorage, DeviceId, WrapErr};
use candle_core::{Device, Layout, Storage, bail};

pub(crate) use super::launch::untracked;
use super::launch::{CudaArrays, Pinned, rollout_on_cuda};
use super::packed::PackedChain;
use super::{Chain, Job};

/// PTX of `rollout.cu`, made by `tests/cuda/ptx.sh`.
const PTX: &str = include_str!("rollout.ptx");

/// The kernel, ready for a chain on a device.
pub(crate) struct CudaKernel {
    packed: PackedChain,
    layers: CudaSlice<u32>,
    function: CudaFunction,
    device: DeviceId,
    /// Blocks that the device runs at once.
    blocks: usize,
}

/// Buffers between the two memories.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    plan: Option<Pinned<u32>>,
    plan_there: Option<CudaSlice<u32>>,
    out: Option<Pinned<f32>>,
    out_there: Option<CudaSlice<f32>>,
}

/// Free bytes of a device's memory; `None` on the CPU.
pub(crate) fn free_bytes(device: &Device) -> candle_core::Result<Option<usize>> {
    let Device::Cuda(device) = device else { return Ok(None) };
    let (free, _) = device.cuda_stream().context().mem_get_info().w()?;
    Ok(Some(free))
}

impl CudaKernel {
    pub fn new(chain: &Chain, device: &CudaDevice) -> candle_core::Result<Self> {
        let stream = device.cuda_stream();
        let limit = stream
            .context()
            .attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
        let shared_bytes = limit.w()? as usize;
        let lengths = (chain.row_len, chain.saved_len);
        let packed = PackedChain::new(&chain.layers, lengths, shared_bytes)
            .map_err(candle_core::Error::Msg)?;
        let function = device.get_or_load_custom_func("rollout", "rollout", PTX)?;
        let function = function.into_cuda_function();
        // all that there is: networks of one device share the function
        function
            .set_attribute(
                FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                shared_bytes as i32,
            )
            .w()?;
        let most = packed.shared_bytes();
        let a_multiprocessor = function
            .occupancy_max_active_blocks_per_multiprocessor(packed.threads, most as usize, None)
            .w()?;
        let multiprocessors =
            stream.context().attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT).w()?;
        let layers = device.clone_htod(&packed.layers)?;
        let blocks = (a_multiprocessor.max(1) as usize) * multiprocessors.max(1) as usize;
        Ok(CudaKernel { packed, layers, function, device: device.id(), blocks })
    }

    /// [`Chain::walk`] on the device; returns when the outputs are here.
    pub fn walk(
        &self,
        chain: &Chain,
        state: &mut CudaStorage,
        layout: &Layout,
        job: &mut Job<'_>,
    ) -> candle_core::Result<()> {
        let device = state.device.clone();
        if job.plan.is_empty() {
            return Ok(());
        }
        if device.id() != self.device {
            bail!("the state is on another device than the network")
        }
        let (weights, weights_layout) = chain.weights.storage_and_layout();
        let (Storage::Cuda(weights), Some((first, last)), Some((start, end))) =
            (&*weights, weights_layout.contiguous_offsets(), layout.contiguous_offsets())
        else {
            bail!("rollout needs contiguous float32 weights and state on one device")
        };
        let plan = &mut job.scratch.packing;
        plan.arrange(job.slots, job.plan, (end - start) / chain.row_len);
        let (n_words, n_steps) = (plan.len(&self.packed), plan.n_steps());
        if u32::try_from(n_words).is_err() || n_steps >= 1 << 31 {
            bail!("a call of {n_steps} windows is too long: bring fewer at once")
        }
        let n_out = n_steps * chain.outputs();
        let stream = device.cuda_stream();
        let Staging { plan: here, plan_there, out, out_there } = &mut job.scratch.staging;
        let here = Pinned::at_least(here, n_words, &device, true)?;
        plan.write(&self.packed, job.slots, job.plan, &mut here.as_mut_slice()?[..n_words]);
        let there = at_least(plan_there, n_words, &device)?;
        stream.memcpy_htod(&here.as_slice()?[..n_words], there).w()?;
        let n_traced = if job.trace.is_some() { n_steps * chain.row_len } else { 0 };
        let mut trace =
            if n_traced > 0 { Some(device.alloc_zeros::<f32>(n_traced)?) } else { None };
        let out_there = at_least(out_there, n_out, &device)?;
        let state = state.as_cuda_slice_mut::<f32>()?;
        let arrays = CudaArrays {
            weights: weights.as_cuda_slice::<f32>()?.slice(first..last),
            state: state.slice_mut(start..end),
            layers: &self.layers,
            plan: there.slice(..n_words),
            out: out_there.slice_mut(..n_out),
            trace: trace.as_mut(),
        };
        let launch = self.packed.launch(plan, self.blocks);
        rollout_on_cuda(&stream, &self.function, &launch, self.packed.threads, arrays)?;
        let out = Pinned::at_least(out, n_out, &device, false)?;
        stream.memcpy_dtoh(&out_there.slice(..n_out), &mut out.as_mut_slice()?[..n_out]).w()?;
        stream.synchronize().w()?;
        job.out.extend_from_slice(&out.as_slice()?[..n_out]);
        if let (Some(kept), Some(trace)) = (&mut job.trace, &trace) {
            let rows = device.clone_dtoh(trace)?;
            rows.chunks_exact(chain.row_len).for_each(|row| kept.push(&chain.layers, row));
        }
        Ok(())
    }
}

/// A buffer on the device of at least `len` values, at least 1.
fn at_least<'a, T>(
    buffer: &'a mut Option<CudaSlice<T>>,
    len: usize,
    device: &CudaDevice,
) -> candle_core::Result<&'a mut CudaSlice<T>>
where
    T: DeviceRepr + ValidAsZeroBits,
{
    let kept = match buffer.take().filter(|buffer| buffer.len() >= len) {
        Some(kept) => kept,
        None => {
            let len = len.next_power_of_two();
            let full = |error| {
                let kib = (len * size_of::<T>()).div_ceil(1024);
                let what = format!(
                    "the device has no room for another {kib} KiB: run fewer streams ({error})"
                );
                candle_core::Error::Msg(what)
            };
            device.alloc_zeros::<T>(len).map_err(full)?
        }
    };
    Ok(buffer.insert(kept))
}
