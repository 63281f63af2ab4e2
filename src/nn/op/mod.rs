//! The fused operation: one call steps many windows of many slots through the whole chain, in
//! place on the packed state.
//!
//! Knows layers, their kernels and their weights; nothing of files, labels or time.

pub(crate) mod adam;
pub(crate) mod backend;
pub(crate) mod bptt;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod gather;
#[cfg(feature = "kernel-host")]
pub(crate) mod host;
#[cfg(any(feature = "cuda", feature = "kernel-host"))]
pub(crate) mod kernels;
#[cfg(any(feature = "cuda", feature = "kernel-host"))]
mod launch;
pub(crate) mod level;
#[cfg(any(feature = "cuda", feature = "kernel-host"))]
mod machine;
pub(crate) mod memory;
#[cfg(any(feature = "cuda", feature = "kernel-host"))]
pub(crate) mod packed;
#[cfg(any(feature = "cuda", feature = "kernel-host"))]
pub(crate) mod plan;
mod spikes;

use std::cell::RefCell;
use std::ops::Range;

use candle_core::{CpuStorage, InplaceOp1, Layout, Storage, Tensor, bail};

pub(crate) use gather::Active;
use gather::Gather;
use level::Level;
use memory::Scratch;
use spikes::list_spikes;

use super::cell::{Cell, CellKind};
use super::{Device, PlannedStep, Trace};
use crate::frame::SlotFrames;

/// All layers as the kernels want them.
pub(crate) struct Chain {
    pub layers: Vec<Layer>,
    /// All weight matrices, one after another, each \[inputs, width\] with rows padded to a
    /// multiple of 16 floats; a view that starts on 64 bytes.
    pub weights: Tensor,
    /// Length of a slot's padded row of state.
    pub row_len: usize,
    /// Length of a window's padded row of values kept for the gradient.
    pub saved_len: usize,
    pub level: Level,
    /// Steps in place of the CPU's own walk.
    #[cfg(feature = "kernel-host")]
    pub kernel: Option<kernels::Kernels<host::KernelOnHost>>,
    /// Steps where the weights are on a GPU.
    #[cfg(feature = "cuda")]
    pub cuda: Option<kernels::Kernels<cuda::Gpu>>,
}

/// One layer of the chain.
pub(crate) struct Layer {
    pub kind: &'static CellKind,
    pub cell: Box<dyn Cell>,
    pub inputs: usize,
    pub neurons: usize,
    /// Neurons, padded to a multiple of 16.
    pub width: usize,
    /// Where the input weights stand in the chain's.
    pub input_weights: Range<usize>,
    /// Where the recurrent weights stand in the chain's.
    pub recurrent_weights: Option<Range<usize>>,
    /// Where the variables stand in a slot's padded row.
    pub state: Range<usize>,
    /// Where the values kept for the gradient stand in a window's padded row of them.
    pub saved: Range<usize>,
}

impl Layer {
    /// Where a variable's neurons stand in a slot's padded row.
    pub fn variable(&self, k: usize) -> Range<usize> {
        let start = self.state.start + k * self.width;
        start..start + self.neurons
    }
}

/// Steps the planned windows on the packed state \[n_slots, row_len\]. Whoever makes one has
/// checked slots, windows and addresses.
pub(crate) struct Rollout<'a> {
    chain: &'a Chain,
    job: RefCell<Job<'a>>,
}

/// What a rollout reads and fills. Candle hands operations out shared, hence the cell around it.
pub(crate) struct Job<'a> {
    pub slots: &'a [SlotFrames],
    pub plan: &'a [PlannedStep],
    pub scratch: &'a mut Scratch,
    pub out: &'a mut Vec<f32>,
    pub trace: Option<&'a mut Trace>,
}

impl<'a> Rollout<'a> {
    pub fn new(chain: &'a Chain, job: Job<'a>) -> Self {
        Rollout { chain, job: RefCell::new(job) }
    }
}

impl InplaceOp1 for Rollout<'_> {
    fn name(&self) -> &'static str {
        "rollout"
    }

    fn cpu_fwd(&self, state: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(state), Some((start, end))) = (state, layout.contiguous_offsets())
        else {
            bail!("rollout needs a contiguous float32 state")
        };
        let (weights, weights_layout) = self.chain.weights.storage_and_layout();
        let (Storage::Cpu(CpuStorage::F32(weights)), Some((first, last))) =
            (&*weights, weights_layout.contiguous_offsets())
        else {
            bail!("rollout needs contiguous float32 weights")
        };
        let Ok(mut job) = self.job.try_borrow_mut() else { bail!("rollout runs once at a time") };
        let (weights, state) = (&weights[first..last], &mut state[start..end]);
        #[cfg(feature = "kernel-host")]
        if let Some(kernel) = &self.chain.kernel {
            let mut staging = std::mem::take(&mut job.scratch.on_host);
            let done = kernel.walk(self.chain, (weights, state), &mut job, &mut staging);
            job.scratch.on_host = staging;
            return done;
        }
        self.chain.walk(weights, state, &mut job);
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        state: &mut candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<()> {
        let Some(kernel) = &self.chain.cuda else { bail!("the network is not on the GPU") };
        let Ok(mut job) = self.job.try_borrow_mut() else { bail!("rollout runs once at a time") };
        if state.device.id() != kernel.machine.id() {
            bail!("the state is on another device than the network")
        }
        let (weights, weights_layout) = self.chain.weights.storage_and_layout();
        let (Storage::Cuda(weights), Some((0, last)), Some((start, end))) =
            (&*weights, weights_layout.contiguous_offsets(), layout.contiguous_offsets())
        else {
            bail!("rollout needs contiguous float32 weights from 0 on, and state, on one device")
        };
        let weights = weights.as_cuda_slice::<f32>()?.slice(..last);
        let state = state.as_cuda_slice_mut::<f32>()?.slice_mut(start..end);
        let mut staging = std::mem::take(&mut job.scratch.on_gpu);
        let done = kernel.walk(self.chain, (weights, state), &mut job, &mut staging);
        job.scratch.on_gpu = staging;
        done
    }
}

impl Chain {
    /// Moves the weights to a device, and readies its kernel.
    pub fn move_to(&mut self, device: &Device) -> candle_core::Result<()> {
        if !self.weights.device().same_device(&device.tensors) {
            // without what stands before the first line here, so that rows are whole lines there too
            self.weights = self.weights.force_contiguous()?.to_device(&device.tensors)?;
        }
        #[cfg(feature = "kernel-host")]
        if let Some(choice) = device.kernels {
            self.kernel = Some(kernels::Kernels::new(choice, self)?);
        }
        #[cfg(feature = "cuda")]
        if let candle_core::Device::Cuda(device) = &device.tensors {
            let gpu = cuda::Gpu::for_streams(device)?;
            self.cuda = Some(kernels::Kernels::new(gpu, self)?);
        }
        Ok(())
    }

    /// Values of the last layer's output.
    #[cfg(any(feature = "cuda", feature = "kernel-host"))]
    fn outputs(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.neurons)
    }

    fn walk(&self, weights: &[f32], state: &mut [f32], job: &mut Job<'_>) {
        for step in job.plan {
            let SlotFrames { slot, frames } = &job.slots[step.slot_index as usize];
            let row = &mut state[slot * self.row_len..][..self.row_len];
            if step.reset {
                row.fill(0.0);
                job.scratch.clear_lists(*slot);
            } else if !job.scratch.lists_are_of(*slot) {
                self.list_all(row, job.scratch);
                job.scratch.set_lists_of(*slot);
            }
            let (addresses, counts) = frames.active(step.window as usize);
            self.step(weights, row, Active::Counts(addresses, counts), job.scratch, None);
            if let Some(output) = self.layers.last() {
                job.out.extend_from_slice(&row[output.variable(output.kind.output)]);
            }
            if let Some(trace) = &mut job.trace {
                trace.push(&self.layers, row);
            }
        }
    }

    /// Lists the spikes that a row holds from its last window.
    fn list_all(&self, row: &[f32], scratch: &mut Scratch) {
        for (layer, list) in self.layers.iter().zip(&mut scratch.lists) {
            if layer.kind.spikes {
                let z = &row[layer.state.start + layer.kind.output * layer.width..][..layer.width];
                list.len = list_spikes(self.level, z, layer.neurons, &mut list.neurons);
            }
        }
    }

    /// One window of one slot, layer by layer; keeps what gradients need in `saved`, a packed row.
    fn step(
        &self,
        weights: &[f32],
        row: &mut [f32],
        frame: Active<'_>,
        scratch: &mut Scratch,
        mut saved: Option<&mut [f32]>,
    ) {
        let Scratch { inputs, recurrent, lists, .. } = scratch;
        for (k, layer) in self.layers.iter().enumerate() {
            let (before, rest) = row.split_at_mut(layer.state.start);
            let state = &mut rest[..layer.state.len()];
            let (lists_before, lists) = lists.split_at_mut(k);
            let active = match (k.checked_sub(1).map(|k| &self.layers[k]), lists_before.last()) {
                (Some(below), Some(list)) => below.output(before, list.spikes()),
                _ => frame,
            };
            let sums = &mut inputs[..layer.width];
            self.level.run(Gather { rows: &weights[layer.input_weights.clone()], active, sums });
            let recurrent = layer.recurrent_weights.clone().map(|at| {
                let start = layer.kind.output * layer.width;
                let active = match layer.kind.spikes {
                    true => Active::Spikes(lists[0].spikes()),
                    false => Active::Dense(&state[start..start + layer.neurons]),
                };
                let sums = &mut recurrent[..layer.width];
                self.level.run(Gather { rows: &weights[at], active, sums });
                &recurrent[..layer.width]
            });
            let inputs = &inputs[..layer.width];
            match &mut saved {
                None => layer.cell.kernel(self.level, inputs, recurrent, state),
                Some(saved) => {
                    let saved = &mut saved[layer.saved.clone()];
                    layer.cell.record(self.level, inputs, recurrent, state, saved);
                }
            }
            if layer.kind.spikes {
                let z = &state[layer.kind.output * layer.width..][..layer.width];
                let list = &mut lists[0];
                list.len = list_spikes(self.level, z, layer.neurons, &mut list.neurons);
            }
        }
    }
}

impl Layer {
    /// The layer's output as the next one's input, given the row up to the layer's end.
    fn output<'a>(&self, row: &'a [f32], spikes: &'a [u32]) -> Active<'a> {
        match self.kind.spikes {
            true => Active::Spikes(spikes),
            false => Active::Dense(&row[self.variable(self.kind.output)]),
        }
    }
}
