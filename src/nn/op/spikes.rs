//! Spikes to a list of the neurons that fired, ascending.
//!
//! Knows a slice of zeros and ones, nothing of cells.

#[cfg(target_arch = "x86_64")]
use pulp::{
    NullaryFnOnce, cast, u32x16,
    x86::{V3, V4},
};

use super::level::{InstructionSet, Level};

/// Writes the indices of the non-zero values among the first `neurons` of `z` to `list`; returns
/// how many there are.
///
/// `z` is padded to a multiple of 16; `list` holds 16 more values than `z`, for whole vectors are
/// written.
pub(crate) fn list_spikes(level: Level, z: &[f32], neurons: usize, list: &mut [u32]) -> usize {
    let listed = match level.0 {
        InstructionSet::Baseline => one_by_one(z, list),
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2(simd) => simd.vectorize(EightAtOnce { simd, z, list }),
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512(simd) => simd.vectorize(SixteenAtOnce { simd, z, list }),
    };
    let padding = list[..listed].iter().rev().take_while(|&&n| n as usize >= neurons).count();
    listed - padding
}

fn one_by_one(z: &[f32], list: &mut [u32]) -> usize {
    let mut n = 0;
    for (neuron, &z) in z.iter().enumerate() {
        list[n] = neuron as u32;
        n += usize::from(z != 0.0);
    }
    n
}

// Kernels are structs: a closure's own `call_once` would be compiled without the wide instructions.
#[cfg(target_arch = "x86_64")]
struct SixteenAtOnce<'a> {
    simd: V4,
    z: &'a [f32],
    list: &'a mut [u32],
}

#[cfg(target_arch = "x86_64")]
impl NullaryFnOnce for SixteenAtOnce<'_> {
    type Output = usize;

    #[inline(always)]
    fn call(self) -> usize {
        let Self { simd, z, list } = self;
        let zero = simd.splat_f32x16(0.0);
        let sixteen = simd.splat_u32x16(16);
        let mut neurons: u32x16 = cast(FIRST_SIXTEEN);
        let mut n = 0;
        for z in z.as_chunks::<16>().0 {
            let fired = simd.cmp_not_eq_f32x16(cast(*z), zero).0;
            let packed = simd.avx512f._mm512_maskz_compress_epi32(fired, cast(neurons));
            list[n..n + 16].copy_from_slice(&cast::<_, [u32; 16]>(packed));
            n += fired.count_ones() as usize;
            neurons = simd.wrapping_add_u32x16(neurons, sixteen);
        }
        n
    }
}

#[cfg(target_arch = "x86_64")]
static FIRST_SIXTEEN: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

#[cfg(target_arch = "x86_64")]
struct EightAtOnce<'a> {
    simd: V3,
    z: &'a [f32],
    list: &'a mut [u32],
}

#[cfg(target_arch = "x86_64")]
impl NullaryFnOnce for EightAtOnce<'_> {
    type Output = usize;

    #[inline(always)]
    fn call(self) -> usize {
        let Self { simd, z, list } = self;
        let zero = simd.splat_f32x8(0.0);
        let mut n = 0;
        for (k, z) in z.as_chunks::<8>().0.iter().enumerate() {
            let fired = simd.cmp_not_eq_f32x8(cast(*z), zero);
            let fired = simd.avx._mm256_movemask_ps(cast(fired)) as u8;
            let positions = &POSITIONS[usize::from(fired)];
            for (neuron, &position) in list[n..n + 8].iter_mut().zip(positions) {
                *neuron = 8 * k as u32 + u32::from(position);
            }
            n += fired.count_ones() as usize;
        }
        n
    }
}

/// For each mask of eight the positions of its set bits, ascending, then zeros.
#[cfg(target_arch = "x86_64")]
static POSITIONS: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut mask = 0;
    while mask < 256 {
        let (mut n, mut bit) = (0, 0);
        while bit < 8 {
            if mask >> bit & 1 == 1 {
                table[mask][n] = bit as u8;
                n += 1;
            }
            bit += 1;
        }
        mask += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::{Level, list_spikes};

    #[test]
    fn every_level_lists_what_fired() {
        for level in Level::available() {
            for (width, neurons, seed) in
                [(16, 16, 0), (16, 1, u64::MAX), (112, 100, 3), (112, 100, u64::MAX), (256, 250, 7)]
            {
                let fires = |k: usize| (seed >> (k % 64)) & 1 == 1 || seed % (k as u64 + 2) == 1;
                let z: Vec<f32> = (0..width).map(|k| f32::from(u8::from(fires(k)))).collect();
                let mut list = vec![9; width + 16];
                let n = list_spikes(level, &z, neurons, &mut list);
                let expected: Vec<_> = (0..neurons as u32).filter(|&k| fires(k as usize)).collect();
                assert_eq!(list[..n], expected, "{} {width} {neurons} {seed}", level.name());
            }
        }
    }
}
