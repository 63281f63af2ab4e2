//! Launches of the kernels, on a GPU or on the CPU: all unsafe code of the crate.
//!
//! Knows arrays and their lengths; neither layers nor plans.

#![allow(unsafe_code)]

#[cfg(feature = "cuda")]
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, CudaView, CudaViewMut, DeviceRepr, LaunchConfig,
    PinnedHostSlice, PushKernelArg, ValidAsZeroBits, sys::CU_MEMHOSTALLOC_WRITECOMBINED,
};
#[cfg(feature = "cuda")]
use candle_core::cuda_backend::{CudaDevice, WrapErr};

use super::packed::Launch;

/// What the kernel reads and fills. The lengths of `out` and `trace` are those of the launch's
/// steps.
#[cfg(feature = "kernel-host")]
pub(crate) struct Arrays<'a> {
    pub weights: &'a [f32],
    pub state: &'a mut [f32],
    pub layers: &'a [u32],
    pub plan: &'a [u32],
    pub out: &'a mut [f32],
    pub trace: Option<&'a mut Vec<f32>>,
}

/// Runs the kernel on the CPU, one launch at a time.
///
/// # Errors
/// Which array does not have the length that the launch needs.
#[cfg(feature = "kernel-host")]
pub(crate) fn rollout_on_host(
    launch: &Launch,
    threads: u32,
    reversed: bool,
    arrays: Arrays<'_>,
) -> Result<(), &'static str> {
    use std::sync::{Mutex, PoisonError};
    unsafe extern "C" {
        fn rollout_on_host(
            grid: u32,
            block: u32,
            reversed: u32,
            weights: *const f32,
            state: *mut f32,
            layers: *const u32,
            plan: *const u32,
            out: *mut f32,
            trace: *mut f32,
            saved: *mut f32,
            numbers: *const u32,
        );
    }
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let Arrays { weights, state, layers, plan, out, trace } = arrays;
    launch.check(Lengths {
        weights: weights.len(),
        state: state.len(),
        layers: layers.len(),
        plan: plan.len(),
        out: out.len(),
        trace: trace.as_ref().map(|trace| trace.len()),
    })?;
    if launch.shared_bytes as usize > super::host::MAX_SHARED_BYTES || threads == 0 {
        return Err("too much shared memory, or no thread");
    }
    let trace = trace.map_or(std::ptr::null_mut(), |trace| trace.as_mut_ptr());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the arrays have the lengths that the launch implies, as was checked above; slots and
    // addresses were checked by `Network::rollout`; the lock keeps a second launch off the
    // kernel's globals.
    unsafe {
        rollout_on_host(
            launch.grid,
            threads,
            u32::from(reversed),
            weights.as_ptr(),
            state.as_mut_ptr(),
            layers.as_ptr(),
            plan.as_ptr(),
            out.as_mut_ptr(),
            trace,
            std::ptr::null_mut(),
            launch.numbers.as_ptr(),
        );
    }
    Ok(())
}

/// Lengths of a launch's arrays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lengths {
    pub weights: usize,
    pub state: usize,
    pub layers: usize,
    pub plan: usize,
    pub out: usize,
    pub trace: Option<usize>,
}

/// What the kernel reads and fills on a GPU.
#[cfg(feature = "cuda")]
pub(crate) struct CudaArrays<'a> {
    pub weights: CudaView<'a, f32>,
    pub state: CudaViewMut<'a, f32>,
    pub layers: &'a CudaSlice<u32>,
    pub plan: CudaView<'a, u32>,
    pub out: CudaViewMut<'a, f32>,
    pub trace: Option<&'a mut CudaSlice<f32>>,
}

/// Starts the kernel on the device's stream; does not wait for it.
#[cfg(feature = "cuda")]
pub(crate) fn rollout_on_cuda(
    stream: &CudaStream,
    function: &CudaFunction,
    launch: &Launch,
    threads: u32,
    arrays: CudaArrays<'_>,
) -> candle_core::Result<()> {
    let CudaArrays { weights, mut state, layers, plan, mut out, trace } = arrays;
    let lengths = Lengths {
        weights: weights.len(),
        state: state.len(),
        layers: layers.len(),
        plan: plan.len(),
        out: out.len(),
        trace: trace.as_ref().map(|trace| trace.len()),
    };
    if let Err(what) = launch.check(lengths) {
        candle_core::bail!("the kernel cannot run: {what}")
    }
    let null = 0u64;
    let mut arguments = stream.launch_builder(function);
    arguments.arg(&weights).arg(&mut state).arg(layers).arg(&plan).arg(&mut out);
    match trace {
        Some(trace) => arguments.arg(trace),
        None => arguments.arg(&null),
    };
    arguments.arg(&null);
    for number in &launch.numbers {
        arguments.arg(number);
    }
    let shape = LaunchConfig {
        grid_dim: (launch.grid, 1, 1),
        block_dim: (threads, 1, 1),
        shared_mem_bytes: launch.shared_bytes,
    };
    // SAFETY: the arguments are those of `rollout` in rollout.cu, in its order and of its types; the
    // arrays have the lengths that the launch implies, as was checked above; slots and addresses
    // were checked by `Network::rollout`.
    unsafe { arguments.launch(shape) }.w()?;
    Ok(())
}

/// Page-locked memory, which copies to and from the device need no detour for.
#[cfg(feature = "cuda")]
#[derive(Debug)]
pub(crate) struct Pinned<T>(PinnedHostSlice<T>);

#[cfg(feature = "cuda")]
impl<T: DeviceRepr + ValidAsZeroBits> Pinned<T> {
    /// A buffer of at least `len` values; `written` where this side only writes.
    pub fn at_least<'a>(
        buffer: &'a mut Option<Self>,
        len: usize,
        device: &CudaDevice,
        written: bool,
    ) -> candle_core::Result<&'a mut Self> {
        let kept = match buffer.take().filter(|buffer| buffer.0.len() >= len) {
            Some(kept) => kept,
            None => {
                let flags = if written { CU_MEMHOSTALLOC_WRITECOMBINED } else { 0 };
                let (stream, len) = (device.cuda_stream(), len.next_power_of_two());
                // SAFETY: numbers alone, for which every pattern of bits is a value.
                Pinned(unsafe { stream.context().alloc_pinned_with_flags(len, flags) }.w()?)
            }
        };
        Ok(buffer.insert(kept))
    }

    pub fn as_slice(&self) -> candle_core::Result<&[T]> {
        self.0.as_slice().w()
    }

    pub fn as_mut_slice(&mut self) -> candle_core::Result<&mut [T]> {
        self.0.as_mut_slice().w()
    }
}

/// The device without an event for each allocation and use, which several streams would need.
#[cfg(feature = "cuda")]
pub(crate) fn untracked(device: candle_core::Device) -> candle_core::Result<candle_core::Device> {
    // SAFETY: all work goes to the device's one stream, so nothing is used out of order; whoever
    // reuses memory of the CPU waits for that stream first.
    unsafe { device.as_cuda_device()?.disable_event_tracking() };
    Ok(device)
}
