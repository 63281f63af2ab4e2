//! A GPU: its arrays, their page-locked twins in the CPU's memory, and the copies between the two.
//!
//! Knows CUDA by way of Candle; no equation. Launches follow one another on the device's own stream;
//! what is written ahead goes by a second one.

use std::ops::Range;
use std::sync::Arc;

use candle_core::cuda_backend::cudarc::driver::sys::{
    CUdevice_attribute as Attribute, CUfunction_attribute as FunctionAttribute,
};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, CudaView, CudaViewMut,
};
use candle_core::cuda_backend::{CudaDevice, DeviceId, WrapErr};
use candle_core::{Device, Result, bail};

pub(crate) use super::launch::untracked;
use super::launch::{Pinned, run_on_cuda};
use super::machine::{Given, Kernel, Launch, Machine, Value};
use super::packed::with_headroom;

/// Source files of kernels, and their PTX, made by `tests/cuda/ptx.sh`.
const ROLLOUT: (&str, &str) = ("rollout", include_str!("rollout.ptx"));
const BPTT: (&str, &str) = ("bptt", include_str!("bptt.ptx"));
/// The kernels, the one that steps streams first.
const KERNELS: [(Kernel, &str, (&str, &str)); 6] = [
    (Kernel::Rollout, "rollout", ROLLOUT),
    (Kernel::BackThroughTime, "back_through_time", BPTT),
    (Kernel::WeightGradients, "weight_gradients", BPTT),
    (Kernel::CountSpikes, "count_spikes", BPTT),
    (Kernel::Adam, "adam", BPTT),
    (Kernel::StoreWeights, "store_weights", BPTT),
];

/// Words that are a launch of their own: several threads pack 1 MiB, and it is sent, in a multiple of
/// the time that it takes to begin a copy and a launch.
const LAUNCH_WORDS: usize = 1 << 18;

/// A device with its kernels.
pub(crate) struct Gpu {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    ahead: Arc<CudaStream>,
    functions: Vec<(Kernel, CudaFunction)>,
    shared_bytes: usize,
    /// What to do where its memory is full.
    instead: &'static str,
}

/// An array there, and the memory here that it is written from and read into.
pub(crate) struct Array<T> {
    there: Option<CudaSlice<T>>,
    written: Option<Pinned<T>>,
    read: Option<Pinned<T>>,
    len: usize,
}

impl<T> Default for Array<T> {
    fn default() -> Self {
        Array { there: None, written: None, read: None, len: 0 }
    }
}

/// Free bytes of a device's memory; `None` on the CPU.
pub(crate) fn free_bytes(device: &Device) -> Result<Option<usize>> {
    let Device::Cuda(device) = device else { return Ok(None) };
    let (free, _) = device.cuda_stream().context().mem_get_info().w()?;
    Ok(Some(free))
}

impl Gpu {
    /// A device that steps streams.
    pub fn for_streams(device: &CudaDevice) -> Result<Self> {
        Gpu::new(device, 1, "run fewer streams")
    }

    /// A device that learns.
    pub fn for_learning(device: &CudaDevice) -> Result<Self> {
        Gpu::new(device, KERNELS.len(), "train with a smaller --batch, or fewer neurons")
    }

    fn new(device: &CudaDevice, n_kernels: usize, instead: &'static str) -> Result<Self> {
        let stream = device.cuda_stream();
        let ahead = stream.context().new_stream().w()?;
        let limit = stream
            .context()
            .attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
        let shared_bytes = limit.w()? as usize;
        let load = |(kernel, name, (module, ptx)): &(Kernel, &str, (&str, &str))| {
            let function = device.get_or_load_custom_func(name, module, ptx)?.into_cuda_function();
            if *kernel == Kernel::Rollout {
                // all that there is: networks of one device share the function
                let most = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                function.set_attribute(most, shared_bytes as i32).w()?;
            }
            Ok((*kernel, function))
        };
        let functions = KERNELS[..n_kernels].iter().map(load).collect::<Result<_>>()?;
        let device = device.clone();
        Ok(Gpu { device, stream, ahead, functions, shared_bytes, instead })
    }

    /// The device.
    pub fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// Which device it is.
    pub fn id(&self) -> DeviceId {
        self.device.id()
    }

    fn function(&self, kernel: Kernel) -> Result<&CudaFunction> {
        match self.functions.iter().find(|(of, _)| *of == kernel) {
            Some((_, function)) => Ok(function),
            None => bail!("the kernel {kernel:?} was not loaded"),
        }
    }

    /// Fills a part here and copies it there on a stream.
    fn send<T: Value>(
        &self,
        array: &mut Array<T>,
        part: Range<usize>,
        fill: impl FnOnce(&mut [T]),
        stream: &Arc<CudaStream>,
    ) -> Result<()> {
        let Array { there: Some(there), written, len, .. } = array else { bail!("{NO_ARRAY}") };
        if part.is_empty() {
            return Ok(());
        }
        let here = Pinned::at_least(written, *len, &self.device, true)?;
        fill(&mut here.as_mut_slice()?[part.clone()]);
        stream.memcpy_htod(&here.as_slice()?[part.clone()], &mut there.slice_mut(part)).w()
    }
}

const NO_ARRAY: &str = "an array was not made";

impl Machine for Gpu {
    type Array<T: Value> = Array<T>;
    type View<'a, T: Value> = CudaView<'a, T>;
    type ViewMut<'a, T: Value> = CudaViewMut<'a, T>;

    fn shared_bytes(&self) -> Result<usize> {
        Ok(self.shared_bytes)
    }

    fn blocks(&self, threads: usize, shared_bytes: usize) -> Result<usize> {
        let function = self.function(Kernel::Rollout)?;
        let a_multiprocessor = function
            .occupancy_max_active_blocks_per_multiprocessor(threads as u32, shared_bytes, None)
            .w()?;
        let count = Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let multiprocessors = self.stream.context().attribute(count).w()?;
        Ok(a_multiprocessor.max(1) as usize * multiprocessors.max(1) as usize)
    }

    fn free_bytes(&self) -> Option<usize> {
        self.stream.context().mem_get_info().ok().map(|(free, _)| free)
    }

    fn launch_words(&self) -> usize {
        LAUNCH_WORDS
    }

    fn resize<T: Value>(&self, array: &mut Array<T>, len: usize) -> Result<()> {
        array.len = len;
        if array.there.as_ref().is_some_and(|there| there.len() >= len) {
            return Ok(());
        }
        array.there = None;
        let room = with_headroom(len);
        let full = |error| {
            let mib = (room * size_of::<T>()).div_ceil(1 << 20);
            let free = self.free_bytes().map_or("some".to_owned(), |b| (b >> 20).to_string());
            let instead = self.instead;
            candle_core::Error::Msg(format!(
                "the device has no room for another {mib} MiB, {free} MiB are free: {instead} \
                 ({error})"
            ))
        };
        array.there = Some(self.device.alloc_zeros::<T>(room).map_err(full)?);
        // the other stream must not come before it
        self.wait()
    }

    fn clear<T: Value>(&self, array: &mut Array<T>) -> Result<()> {
        let Array { there: Some(there), len, .. } = array else { bail!("{NO_ARRAY}") };
        self.stream.memset_zeros(&mut there.slice_mut(..*len)).w()
    }

    fn write<T: Value>(
        &self,
        array: &mut Array<T>,
        part: Range<usize>,
        fill: impl FnOnce(&mut [T]),
    ) -> Result<()> {
        self.send(array, part, fill, &self.stream)
    }

    fn write_ahead<T: Value>(
        &self,
        array: &mut Array<T>,
        part: Range<usize>,
        fill: impl FnOnce(&mut [T]),
    ) -> Result<()> {
        self.send(array, part, fill, &self.ahead)?;
        self.stream.join(&self.ahead).w()
    }

    fn wait(&self) -> Result<()> {
        self.stream.synchronize().w()
    }

    fn read<'a, T: Value>(&self, array: &'a mut Array<T>, len: usize) -> Result<&'a [T]> {
        let Array { there: Some(there), read, .. } = array else { bail!("{NO_ARRAY}") };
        let here = Pinned::at_least(read, len, &self.device, false)?;
        self.stream.memcpy_dtoh(&there.slice(..len), &mut here.as_mut_slice()?[..len]).w()?;
        self.wait()?;
        Ok(&here.as_slice()?[..len])
    }

    fn copy<T: Value>(&self, array: &Array<T>) -> Result<Vec<T>> {
        let copied = self.stream.clone_dtoh(&Self::view(array)?).w()?;
        self.wait()?;
        Ok(copied)
    }

    fn view<T: Value>(array: &Array<T>) -> Result<CudaView<'_, T>> {
        let Array { there: Some(there), len, .. } = array else { bail!("{NO_ARRAY}") };
        Ok(there.slice(..*len))
    }

    fn view_mut<T: Value>(array: &mut Array<T>) -> Result<CudaViewMut<'_, T>> {
        let Array { there: Some(there), len, .. } = array else { bail!("{NO_ARRAY}") };
        Ok(there.slice_mut(..*len))
    }

    fn part<'a, T: Value>(view: &'a CudaView<'_, T>, part: Range<usize>) -> CudaView<'a, T> {
        view.slice(part)
    }

    fn lend<'a, T: Value>(view: &'a mut CudaViewMut<'_, T>) -> CudaViewMut<'a, T> {
        view.slice_mut(..)
    }

    fn view_len<T: Value>(view: &CudaView<'_, T>) -> usize {
        view.len()
    }

    fn view_mut_len<T: Value>(view: &CudaViewMut<'_, T>) -> usize {
        view.len()
    }

    fn launch<const N: usize>(
        &self,
        launch: &Launch,
        mut given: [Given<'_, Self>; N],
    ) -> Result<()> {
        run_on_cuda(&self.stream, self.function(launch.kernel)?, launch, &mut given)
    }
}
