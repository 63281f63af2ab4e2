//! Spikes to a list of the neurons that fired, ascending.
//!
//! Knows a slice of zeros and ones, nothing of cells.

use super::level::Level;

/// Writes the indices of the non-zero values among the first `neurons` of `z` to `list`; returns
/// how many there are. `z` is padded to a multiple of 16; `list` holds at least as many.
pub(crate) fn list_spikes(_level: Level, z: &[f32], neurons: usize, list: &mut [u32]) -> usize {
    let mut n = 0;
    for (neuron, &z) in z[..neurons].iter().enumerate() {
        list[n] = neuron as u32;
        n += usize::from(z != 0.0);
    }
    n
}
