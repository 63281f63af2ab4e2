//! Memory that the kernels work on: aligned tensors, edits of a state in place, scratch.
//!
//! Knows sizes, no equation.

use std::cell::RefCell;

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Storage, Tensor, bail};

/// Floats in 64 bytes, the widest vector and a line of the cache.
pub(crate) const LINE_FLOATS: usize = 16;

/// `n` rounded up to whole lines.
pub(crate) fn padded(n: usize) -> usize {
    n.next_multiple_of(LINE_FLOATS)
}

/// A tensor \[rows, columns\] that starts on 64 bytes, as a view of a slightly larger one. `fill`
/// is given its zeros.
pub(crate) fn aligned(
    (rows, columns): (usize, usize),
    fill: impl FnOnce(&mut [f32]),
) -> candle_core::Result<Tensor> {
    let len = rows * columns;
    let mut values = vec![0.0f32; len + LINE_FLOATS];
    let start = values.as_ptr().align_offset(4 * LINE_FLOATS).min(LINE_FLOATS);
    fill(&mut values[start..start + len]);
    let all = values.len();
    Tensor::from_vec(values, all, &Device::Cpu)?.narrow(0, start, len)?.reshape((rows, columns))
}

/// Floats that start on 64 bytes.
#[derive(Debug, Default)]
pub(crate) struct Floats {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl Floats {
    pub fn zeros(len: usize) -> Self {
        let mut floats = Floats::default();
        floats.resize(len);
        floats
    }

    /// Takes another length; all values are 0 afterwards.
    pub fn resize(&mut self, len: usize) {
        self.values.clear();
        self.values.resize(len + LINE_FLOATS, 0.0);
        self.start = self.values.as_ptr().align_offset(4 * LINE_FLOATS).min(LINE_FLOATS);
        self.len = len;
    }
}

impl std::ops::Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.len]
    }
}

impl std::ops::DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.len]
    }
}

/// The values of a contiguous float32 tensor. Of a view no more is copied than it shows, where
/// Candle's own way would bring all of its memory from a GPU.
pub(crate) fn values_of(tensor: &Tensor) -> candle_core::Result<Vec<f32>> {
    let (values, layout) = tensor.storage_and_layout();
    match (&*values, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => {
            Ok(values[start..end].to_vec())
        }
        #[cfg(feature = "cuda")]
        (Storage::Cuda(values), Some((start, end))) => {
            values.device.clone_dtoh(&values.as_cuda_slice::<f32>()?.slice(start..end))
        }
        _ => bail!("only contiguous float32 values are read"),
    }
}

/// Runs `edit` on the values of a contiguous float32 tensor, in place.
pub(crate) fn edit_in_place(
    tensor: &Tensor,
    edit: impl FnOnce(&mut [f32]),
) -> candle_core::Result<()> {
    tensor.inplace_op1(&Edit(RefCell::new(Some(edit))))
}

struct Edit<F>(RefCell<Option<F>>);

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Edit<F> {
    fn name(&self) -> &'static str {
        "edit"
    }

    fn cpu_fwd(&self, values: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (values, layout.contiguous_offsets())
        else {
            bail!("an edit in place needs contiguous float32 values")
        };
        if let Some(edit) = self.0.take() {
            edit(&mut values[start..end]);
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        values: &mut candle_core::CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<()> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("an edit in place needs contiguous float32 values")
        };
        let device = values.device.clone();
        let mut there = values.as_cuda_slice_mut::<f32>()?.slice_mut(start..end);
        let mut here = device.clone_dtoh(&there)?;
        if let Some(edit) = self.0.take() {
            edit(&mut here);
        }
        device.memcpy_htod(&here, &mut there)?;
        // the copy goes on while `here` is about to be freed
        candle_core::backend::BackendDevice::synchronize(&device)
    }
}

/// Working memory of a state's rollouts.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// The widest layer's sums of inputs.
    pub inputs: Vec<f32>,
    /// The widest layer's sums of recurrent inputs.
    pub recurrent: Vec<f32>,
    /// For each layer the neurons that fired in the last window of [`Scratch::lists_are_of`].
    pub lists: Vec<SpikeList>,
    slot: Option<usize>,
    /// The plan as a kernel reads it.
    #[cfg(any(feature = "cuda", feature = "kernel-host"))]
    pub packing: super::plan::PackedPlan,
    #[cfg(feature = "kernel-host")]
    pub on_host: super::kernels::Staging<super::host::KernelOnHost>,
    #[cfg(feature = "cuda")]
    pub on_gpu: super::kernels::Staging<super::cuda::Gpu>,
}

/// The neurons of a layer that fired, ascending.
#[derive(Clone, Debug)]
pub(crate) struct SpikeList {
    pub neurons: Vec<u32>,
    pub len: usize,
}

impl SpikeList {
    /// The neurons that fired.
    pub fn spikes(&self) -> &[u32] {
        &self.neurons[..self.len]
    }
}

impl Scratch {
    /// Scratch for layers of these padded widths.
    pub fn new(widths: impl Iterator<Item = usize> + Clone) -> Self {
        let widest = widths.clone().max().unwrap_or(0);
        let lists = widths.map(|width| SpikeList { neurons: vec![0; width + LINE_FLOATS], len: 0 });
        Scratch {
            inputs: vec![0.0; widest],
            recurrent: vec![0.0; widest],
            lists: lists.collect(),
            slot: None,
            #[cfg(any(feature = "cuda", feature = "kernel-host"))]
            packing: Default::default(),
            #[cfg(feature = "kernel-host")]
            on_host: Default::default(),
            #[cfg(feature = "cuda")]
            on_gpu: Default::default(),
        }
    }

    /// Whether the lists are those of a slot's row.
    pub fn lists_are_of(&self, slot: usize) -> bool {
        self.slot == Some(slot)
    }

    /// Says whose the lists are now.
    pub fn set_lists_of(&mut self, slot: usize) {
        self.slot = Some(slot);
    }

    /// Empties the lists, for a slot whose row is all zero.
    pub fn clear_lists(&mut self, slot: usize) {
        self.lists.iter_mut().for_each(|list| list.len = 0);
        self.slot = Some(slot);
    }

    /// A row changed from outside: its lists are to be made anew.
    pub fn forget_lists(&mut self) {
        self.slot = None;
    }
}
