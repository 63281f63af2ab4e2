//! Instruction sets: the kernels run on the best that the machine has, bits equal on all.
//!
//! Knows no kernel.

#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};
use pulp::{Scalar128b, Simd, WithSimd};

/// An instruction set that this machine has.
#[derive(Clone, Copy)]
pub struct Level(pub(super) InstructionSet);

#[derive(Clone, Copy)]
pub(super) enum InstructionSet {
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2(V3),
    #[cfg(target_arch = "x86_64")]
    Avx512(V4),
}

impl Level {
    /// The best that this machine has.
    pub fn best() -> Level {
        Level::available()[0]
    }

    /// All that this machine has, best first; the last is every machine's baseline.
    pub fn available() -> Vec<Level> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            levels.extend(V4::try_new().map(|simd| Level(InstructionSet::Avx512(simd))));
            levels.extend(V3::try_new().map(|simd| Level(InstructionSet::Avx2(simd))));
        }
        levels.push(Level(InstructionSet::Baseline));
        levels
    }

    /// `avx512`, `avx2` or `baseline`.
    pub fn name(&self) -> &'static str {
        match self.0 {
            InstructionSet::Baseline => "baseline",
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512(_) => "avx512",
        }
    }

    /// Runs a kernel compiled for this instruction set.
    #[inline(always)]
    pub(crate) fn run<K: WithSimd>(self, kernel: K) -> K::Output {
        match self.0 {
            InstructionSet::Baseline => Scalar128b.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2(simd) => Simd::vectorize(simd, kernel),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512(simd) => Simd::vectorize(simd, kernel),
        }
    }
}

impl std::fmt::Debug for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
