//! Machines that run the kernels: a GPU, or the CPU in its place. A launch is told the same on either.
//!
//! Knows arrays and their lengths; neither layers nor plans.

use std::ops::Range;

#[cfg(feature = "cuda")]
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, ValidAsZeroBits};
use candle_core::{Result, bail};

/// A kernel of `rollout.cu` or `bptt.cu`, by its number in host.cpp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    Rollout = 0,
    BackThroughTime = 1,
    WeightGradients = 2,
    CountSpikes = 3,
    Adam = 4,
    StoreWeights = 5,
}

impl Kernel {
    /// How many arrays and how many numbers it takes.
    fn takes(self) -> (usize, usize) {
        match self {
            Kernel::Rollout => (7, 9),
            Kernel::BackThroughTime => (8, 5),
            Kernel::WeightGradients => (6, 5),
            Kernel::CountSpikes => (3, 3),
            Kernel::Adam => (4, 9),
            Kernel::StoreWeights => (3, 2),
        }
    }
}

/// A launch without its arrays.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub kernel: Kernel,
    /// Blocks.
    pub grid: usize,
    /// Threads of a block.
    pub threads: usize,
    /// Bytes of shared memory a block.
    pub shared_bytes: usize,
    /// How many values of each array the kernel reaches.
    pub reached: Vec<usize>,
    /// The kernel's numbers, in its order; real ones as their bits.
    pub numbers: Vec<u32>,
}

/// What a kernel is given: a part of an array, which it reads or writes.
pub(crate) enum Given<'a, M: Machine> {
    Floats(M::View<'a, f32>),
    Words(M::View<'a, u32>),
    Filled(M::ViewMut<'a, f32>),
    Counted(M::ViewMut<'a, u32>),
    Absent,
}

impl Launch {
    /// Whether the kernel can run with these arrays. Every launch asks first.
    pub fn check<M: Machine>(&self, given: &[Given<'_, M>]) -> Result<()> {
        let Launch { kernel, grid, threads, reached, numbers, .. } = self;
        let shape = [*grid, *threads].iter().all(|n| (1..1 << 31).contains(n)) && *threads <= 1024;
        if !shape || (given.len(), numbers.len()) != kernel.takes() || reached.len() != given.len()
        {
            bail!("the kernel {kernel:?} cannot run: it is told other things than it takes")
        }
        for (k, (array, reached)) in given.iter().zip(reached).enumerate() {
            let length = match array {
                Given::Floats(view) => M::view_len(view),
                Given::Words(view) => M::view_len(view),
                Given::Filled(view) => M::view_mut_len(view),
                Given::Counted(view) => M::view_mut_len(view),
                Given::Absent => continue,
            };
            if length < *reached {
                bail!(
                    "the kernel {kernel:?} cannot run: array {k} holds {length} of {reached} values"
                )
            }
        }
        Ok(())
    }
}

/// What arrays hold.
#[cfg(not(feature = "cuda"))]
pub(crate) trait Value: Copy + Default + 'static {}
/// What arrays hold.
#[cfg(feature = "cuda")]
pub(crate) trait Value: Copy + Default + DeviceRepr + ValidAsZeroBits + 'static {}

impl Value for f32 {}
impl Value for u32 {}

/// Runs kernels, one launch after another, on arrays in its own memory.
pub(crate) trait Machine: Sized {
    /// An array; empty by default.
    type Array<T: Value>: Default;
    type View<'a, T: Value>;
    type ViewMut<'a, T: Value>;

    /// Bytes of shared memory that a block may have.
    fn shared_bytes(&self) -> Result<usize>;

    /// Blocks of the rollout that run at once.
    fn blocks(&self, threads: usize, shared_bytes: usize) -> Result<usize>;

    /// Bytes of memory that are free, where it has a memory of its own.
    fn free_bytes(&self) -> Option<usize> {
        None
    }

    /// Words of a plan that are worth a launch of their own.
    fn launch_words(&self) -> usize;

    /// Gives an array this length. What it held may be lost, and what it holds is any value.
    fn resize<T: Value>(&self, array: &mut Self::Array<T>, len: usize) -> Result<()>;

    /// Sets all values to 0.
    fn clear<T: Value>(&self, array: &mut Self::Array<T>) -> Result<()>;

    /// Has a part of an array filled. Its values are any before. Not again before
    /// a wait.
    fn write<T: Value>(
        &self,
        array: &mut Self::Array<T>,
        part: Range<usize>,
        fill: impl FnOnce(&mut [T]),
    ) -> Result<()>;

    /// [`Machine::write`] of a part that no launch so far was given, while those go on.
    fn write_ahead<T: Value>(
        &self,
        array: &mut Self::Array<T>,
        part: Range<usize>,
        fill: impl FnOnce(&mut [T]),
    ) -> Result<()> {
        self.write(array, part, fill)
    }

    /// Waits for all copies and launches.
    fn wait(&self) -> Result<()>;

    /// Waits for all launches, then lends the first values of an array.
    fn read<'a, T: Value>(&self, array: &'a mut Self::Array<T>, len: usize) -> Result<&'a [T]>;

    /// Waits for all launches, then copies an array.
    fn copy<T: Value>(&self, array: &Self::Array<T>) -> Result<Vec<T>>;

    fn view<T: Value>(array: &Self::Array<T>) -> Result<Self::View<'_, T>>;

    fn view_mut<T: Value>(array: &mut Self::Array<T>) -> Result<Self::ViewMut<'_, T>>;

    /// A part of a view, lent.
    fn part<'a, T: Value>(view: &'a Self::View<'_, T>, part: Range<usize>) -> Self::View<'a, T>;

    /// The same view, lent.
    fn lend<'a, T: Value>(view: &'a mut Self::ViewMut<'_, T>) -> Self::ViewMut<'a, T>;

    fn view_len<T: Value>(view: &Self::View<'_, T>) -> usize;

    fn view_mut_len<T: Value>(view: &Self::ViewMut<'_, T>) -> usize;

    /// Starts a kernel with its arrays, in its order.
    fn launch<const N: usize>(&self, launch: &Launch, given: [Given<'_, Self>; N]) -> Result<()>;

    fn floats(array: &Self::Array<f32>) -> Result<Given<'_, Self>> {
        Ok(Given::Floats(Self::view(array)?))
    }

    fn words(array: &Self::Array<u32>) -> Result<Given<'_, Self>> {
        Ok(Given::Words(Self::view(array)?))
    }

    fn filled(array: &mut Self::Array<f32>) -> Result<Given<'_, Self>> {
        Ok(Given::Filled(Self::view_mut(array)?))
    }

    fn counted(array: &mut Self::Array<u32>) -> Result<Given<'_, Self>> {
        Ok(Given::Counted(Self::view_mut(array)?))
    }
}
