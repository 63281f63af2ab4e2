//! Launches of the kernels, on a GPU or on the CPU: all unsafe code of the crate.
//!
//! Knows arrays and their lengths; neither layers nor plans.

#![allow(unsafe_code)]

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
