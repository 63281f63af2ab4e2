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

#[cfg(feature = "cuda")]
use super::packed::Launch;

/// Shared memory that a block has on the CPU, in bytes.
#[cfg(feature = "kernel-host")]
pub(crate) const MAX_SHARED_BYTES: usize = 4 * 64 * 1024;

/// A kernel, by its number in host.cpp.
#[cfg(feature = "kernel-host")]
#[derive(Clone, Copy, Debug)]
pub(crate) enum OnHost {
    Rollout = 0,
    BackThroughTime = 1,
    WeightGradients = 2,
    Adam = 3,
}

/// An array that a kernel is given, and how many of its values the kernel may reach.
#[cfg(feature = "kernel-host")]
pub(crate) enum Array<'a> {
    Read(&'a [f32], usize),
    Words(&'a [u32], usize),
    Write(&'a mut [f32], usize),
    Absent,
}

/// Runs a kernel on the CPU, one launch at a time. Arrays and numbers are the kernel's arguments, in
/// its order.
///
/// # Errors
/// Which array is shorter than the kernel reaches, or what else does not fit.
#[cfg(feature = "kernel-host")]
pub(crate) fn run_on_host(
    kernel: OnHost,
    [grid, threads, shared_bytes]: [u32; 3],
    reversed: bool,
    arrays: &mut [Array<'_>],
    numbers: &[u32],
) -> Result<(), String> {
    use std::ffi::c_void;
    use std::sync::{Mutex, PoisonError};
    unsafe extern "C" {
        fn kernel_on_host(
            which: u32,
            grid: u32,
            block: u32,
            reversed: u32,
            arrays: *const *mut c_void,
            numbers: *const u32,
        );
    }
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let expected = match kernel {
        OnHost::Rollout => (7, 9),
        OnHost::BackThroughTime => (8, 5),
        OnHost::WeightGradients => (6, 5),
        OnHost::Adam => (5, 1),
    };
    if (arrays.len(), numbers.len()) != expected
        || threads == 0
        || shared_bytes as usize > MAX_SHARED_BYTES
    {
        return Err(format!("{kernel:?} needs other arguments"));
    }
    let mut pointers: Vec<*mut c_void> = Vec::with_capacity(arrays.len());
    for (k, array) in arrays.iter_mut().enumerate() {
        let (pointer, length, reached) = match array {
            Array::Read(values, n) => (values.as_ptr().cast_mut().cast(), values.len(), *n),
            Array::Words(words, n) => (words.as_ptr().cast_mut().cast(), words.len(), *n),
            Array::Write(values, n) => (values.as_mut_ptr().cast(), values.len(), *n),
            Array::Absent => (std::ptr::null_mut(), 0, 0),
        };
        if length < reached {
            return Err(format!("{kernel:?}: array {k} holds {length} of {reached} values"));
        }
        pointers.push(pointer);
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: there are as many arguments as the kernel takes, and the arrays are as long as it
    // reaches; what it only reads it is not given to write (`const` in host.cpp); slots, addresses
    // and rows were checked by the network and the learner; the lock keeps a second launch off the
    // kernels' globals.
    unsafe {
        kernel_on_host(
            kernel as u32,
            grid,
            threads,
            u32::from(reversed),
            pointers.as_ptr(),
            numbers.as_ptr(),
        );
    }
    Ok(())
}

/// Lengths of a rollout's arrays.
#[derive(Clone, Copy, Debug, Default)]
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
