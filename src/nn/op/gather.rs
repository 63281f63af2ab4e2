//! The sparse projection: sums the rows of active inputs, in their order, from 0.
//!
//! Knows rows of floats, nothing of cells or state.

use pulp::{Simd, WithSimd};

/// What a layer is given in one window: its non-zero inputs, ascending.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Active<'a> {
    /// Addresses and how many events each had.
    Counts(&'a [u32], &'a [u16]),
    /// Neurons that fired.
    Spikes(&'a [u32]),
    /// A value for every input.
    Dense(&'a [f32]),
}

/// `sums` = Σ value · row, over the active inputs; multiply, then add, never fused.
///
/// `rows` is \[inputs, sums.len()\], row-major; `sums.len()` is a multiple of 16.
pub(crate) struct Gather<'a> {
    pub rows: &'a [f32],
    pub active: Active<'a>,
    pub sums: &'a mut [f32],
}

impl WithSimd for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (rows, _) = S::as_simd_f32s(self.rows);
        let (sums, _) = S::as_mut_simd_f32s(self.sums);
        let pitch = sums.len();
        let mut at = 0;
        while at < pitch {
            let block = Block { simd, rows, pitch, at };
            match pitch - at {
                1 => at += block.sum::<1>(self.active, sums),
                2 => at += block.sum::<2>(self.active, sums),
                3 => at += block.sum::<3>(self.active, sums),
                4 => at += block.sum::<4>(self.active, sums),
                5 => at += block.sum::<5>(self.active, sums),
                6 => at += block.sum::<6>(self.active, sums),
                7 => at += block.sum::<7>(self.active, sums),
                8..14 => at += block.sum::<8>(self.active, sums),
                _ => at += block.sum::<14>(self.active, sums),
            }
        }
    }
}

/// Columns of the rows, few enough for their sums to stay in registers, of which AVX2 and the
/// baseline have 16.
struct Block<'a, S: Simd> {
    simd: S,
    rows: &'a [S::f32s],
    pitch: usize,
    at: usize,
}

impl<S: Simd> Block<'_, S> {
    #[inline(always)]
    fn sum<const N: usize>(&self, active: Active<'_>, sums: &mut [S::f32s]) -> usize {
        let mut sum = [self.simd.splat_f32s(0.0); N];
        match active {
            Active::Spikes(neurons) => {
                for &neuron in neurons {
                    self.add_row(&mut sum, neuron as usize);
                }
            }
            Active::Counts(addresses, counts) => {
                for (&address, &count) in addresses.iter().zip(counts) {
                    self.add_scaled_row(&mut sum, address as usize, f32::from(count));
                }
            }
            Active::Dense(values) => {
                for (input, &value) in values.iter().enumerate() {
                    self.add_scaled_row(&mut sum, input, value);
                }
            }
        }
        sums[self.at..self.at + N].copy_from_slice(&sum);
        N
    }

    #[inline(always)]
    fn add_row<const N: usize>(&self, sum: &mut [S::f32s; N], input: usize) {
        let start = input * self.pitch + self.at;
        let row = &self.rows[start..start + N];
        for k in 0..N {
            sum[k] = self.simd.add_f32s(sum[k], row[k]);
        }
    }

    #[inline(always)]
    fn add_scaled_row<const N: usize>(&self, sum: &mut [S::f32s; N], input: usize, value: f32) {
        let start = input * self.pitch + self.at;
        let row = &self.rows[start..start + N];
        let value = self.simd.splat_f32s(value);
        for k in 0..N {
            sum[k] = self.simd.add_f32s(sum[k], self.simd.mul_f32s(value, row[k]));
        }
    }
}
