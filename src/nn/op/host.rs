//! The CPU in a GPU's place: the kernels compiled for it, which is how they are tested without a GPU.
//!
//! Knows arrays; no equation.

use std::ops::Range;

use candle_core::Result;

use super::launch::{MAX_SHARED_BYTES, run_on_host};
use super::machine::{Given, Launch, Machine, Value};

/// How the kernels run on the CPU. No choice changes a bit of their results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelOnHost {
    /// The threads of a block take their turns in descending order.
    pub reversed: bool,
    /// Shared memory of a block; weights that it cannot hold are read from the device's memory.
    pub shared_bytes: usize,
    /// Blocks that run at once, over which streams are dealt.
    pub blocks: usize,
    /// Words of a plan after which what follows is another launch.
    pub launch_words: usize,
}

impl Machine for KernelOnHost {
    type Array<T: Value> = Vec<T>;
    type View<'a, T: Value> = &'a [T];
    type ViewMut<'a, T: Value> = &'a mut [T];

    fn shared_bytes(&self) -> Result<usize> {
        Ok(self.shared_bytes.min(MAX_SHARED_BYTES))
    }

    fn blocks(&self, _threads: usize, _shared_bytes: usize) -> Result<usize> {
        Ok(self.blocks.max(1))
    }

    fn launch_words(&self) -> usize {
        self.launch_words
    }

    fn resize<T: Value>(&self, array: &mut Vec<T>, len: usize) -> Result<()> {
        array.resize(len, T::default());
        Ok(())
    }

    fn clear<T: Value>(&self, array: &mut Vec<T>) -> Result<()> {
        array.fill(T::default());
        Ok(())
    }

    fn write<T: Value>(
        &self,
        array: &mut Vec<T>,
        part: Range<usize>,
        fill: impl FnOnce(&mut [T]),
    ) -> Result<()> {
        fill(&mut array[part]);
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        Ok(())
    }

    fn read<'a, T: Value>(&self, array: &'a mut Vec<T>, len: usize) -> Result<&'a [T]> {
        Ok(&array[..len])
    }

    fn copy<T: Value>(&self, array: &Vec<T>) -> Result<Vec<T>> {
        Ok(array.clone())
    }

    fn view<T: Value>(array: &Vec<T>) -> Result<&[T]> {
        Ok(array)
    }

    fn view_mut<T: Value>(array: &mut Vec<T>) -> Result<&mut [T]> {
        Ok(array)
    }

    fn part<'a, T: Value>(view: &'a &[T], part: Range<usize>) -> &'a [T] {
        &view[part]
    }

    fn lend<'a, T: Value>(view: &'a mut &mut [T]) -> &'a mut [T] {
        view
    }

    fn view_len<T: Value>(view: &&[T]) -> usize {
        view.len()
    }

    fn view_mut_len<T: Value>(view: &&mut [T]) -> usize {
        view.len()
    }

    fn launch<const N: usize>(
        &self,
        launch: &Launch,
        mut given: [Given<'_, Self>; N],
    ) -> Result<()> {
        run_on_host(launch, self.reversed, &mut given)
    }
}
