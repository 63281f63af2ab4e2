//! Launches of the kernels, on a GPU or on the CPU: all unsafe code of the crate.
//!
//! Knows arrays and their lengths; neither layers nor plans.

#![allow(unsafe_code)]

use candle_core::Result;
#[cfg(feature = "cuda")]
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaStream, DeviceRepr, LaunchConfig, PinnedHostSlice, PushKernelArg,
    ValidAsZeroBits, sys::CU_MEMHOSTALLOC_WRITECOMBINED,
};
#[cfg(feature = "cuda")]
use candle_core::cuda_backend::{CudaDevice, WrapErr};

use super::machine::{Given, Launch};

/// Shared memory that a block has on the CPU, in bytes.
#[cfg(feature = "kernel-host")]
pub(crate) const MAX_SHARED_BYTES: usize = 4 * 64 * 1024;

/// Runs a kernel on the CPU, one launch at a time.
#[cfg(feature = "kernel-host")]
pub(crate) fn run_on_host(
    launch: &Launch,
    reversed: bool,
    given: &mut [Given<'_, super::host::KernelOnHost>],
) -> Result<()> {
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
    launch.check(given)?;
    if launch.shared_bytes > MAX_SHARED_BYTES {
        candle_core::bail!("a block has no {} bytes of shared memory", launch.shared_bytes)
    }
    let pointer = |array: &mut Given<'_, super::host::KernelOnHost>| match array {
        Given::Floats(values) => values.as_ptr().cast_mut().cast(),
        Given::Words(words) => words.as_ptr().cast_mut().cast(),
        Given::Filled(values) => values.as_mut_ptr().cast(),
        Given::Counted(counts) => counts.as_mut_ptr().cast(),
        Given::Absent => std::ptr::null_mut(),
    };
    let pointers: Vec<*mut c_void> = given.iter_mut().map(pointer).collect();
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: there are as many arguments as the kernel takes, and the arrays are as long as it
    // reaches, as was checked; what it only reads it is not given to write (`const` in host.cpp);
    // slots, addresses and rows were checked by the network and the learner; the lock keeps a second
    // launch off the kernels' globals.
    unsafe {
        kernel_on_host(
            launch.kernel as u32,
            launch.grid as u32,
            launch.threads as u32,
            u32::from(reversed),
            pointers.as_ptr(),
            launch.numbers.as_ptr(),
        );
    }
    Ok(())
}

/// Starts a kernel on a device's stream; does not wait for it.
#[cfg(feature = "cuda")]
pub(crate) fn run_on_cuda(
    stream: &CudaStream,
    function: &CudaFunction,
    launch: &Launch,
    given: &mut [Given<'_, super::cuda::Gpu>],
) -> Result<()> {
    launch.check(given)?;
    let null = 0u64;
    let mut arguments = stream.launch_builder(function);
    for array in given {
        match array {
            Given::Floats(values) => arguments.arg(&*values),
            Given::Words(words) => arguments.arg(&*words),
            Given::Filled(values) => arguments.arg(values),
            Given::Counted(counts) => arguments.arg(counts),
            Given::Absent => arguments.arg(&null),
        };
    }
    for number in &launch.numbers {
        arguments.arg(number);
    }
    let shape = LaunchConfig {
        grid_dim: (launch.grid as u32, 1, 1),
        block_dim: (launch.threads as u32, 1, 1),
        shared_mem_bytes: launch.shared_bytes as u32,
    };
    // SAFETY: the arguments are those of the kernel, in its order and of its types (its numbers all
    // have 32 bits), and the arrays are as long as it reaches, as was checked; slots, addresses and
    // rows were checked by the network and the learner; all launches follow one another on one stream.
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
    ) -> Result<&'a mut Self> {
        let kept = match buffer.take().filter(|buffer| buffer.0.len() >= len) {
            Some(kept) => kept,
            None => {
                let flags = if written { CU_MEMHOSTALLOC_WRITECOMBINED } else { 0 };
                let (stream, len) = (device.cuda_stream(), len.next_power_of_two());
                // SAFETY: numbers alone, for which every pattern of bits is a value.
                let taken = unsafe { stream.context().alloc_pinned_with_flags(len, flags) };
                Pinned(taken.w().map_err(|error| {
                    let mib = (len * size_of::<T>()).div_ceil(1 << 20);
                    let what = format!("there are no {mib} MiB of page-locked memory ({error})");
                    candle_core::Error::Msg(what)
                })?)
            }
        };
        Ok(buffer.insert(kept))
    }

    pub fn as_slice(&self) -> Result<&[T]> {
        self.0.as_slice().w()
    }

    pub fn as_mut_slice(&mut self) -> Result<&mut [T]> {
        self.0.as_mut_slice().w()
    }
}

/// The device without an event for each allocation and use, which several streams would need.
#[cfg(feature = "cuda")]
pub(crate) fn untracked(device: candle_core::Device) -> Result<candle_core::Device> {
    // SAFETY: all launches and frees go to the device's one stream, which waits for what the stream of
    // copies ahead brought, and that one is given only memory which nothing before it uses; whoever
    // reuses memory of the CPU waits for the device's stream first.
    unsafe { device.as_cuda_device()?.disable_event_tracking() };
    Ok(device)
}
