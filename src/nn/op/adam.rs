//! Adam, as `torch.optim.Adam` computes it: one step on packed weights.
//!
//! Knows slices of floats; neither layers nor losses.

use pulp::{Simd, WithSimd};

use super::level::Level;

/// What a step is taken with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamSettings {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the gradients' running mean.
    pub beta1: f64,
    /// Decay of the squared gradients' running mean.
    pub beta2: f64,
    /// Keeps the division finite.
    pub epsilon: f64,
    /// L2 penalty, added to the gradient (torch's `weight_decay`).
    pub weight_decay: f64,
}

impl Default for AdamSettings {
    /// The tutorial's: lr 0.002, torch's defaults, no weight decay.
    fn default() -> Self {
        AdamSettings { lr: 0.002, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// The numbers of one step, rounded once.
#[derive(Clone, Copy)]
pub(crate) struct AdamStep {
    mean_share: f32,
    square_decay: f32,
    square_share: f32,
    root_correction: f32,
    epsilon: f32,
    step_size: f32,
    weight_decay: f32,
    gradient_scale: f32,
}

impl AdamStep {
    /// The `n`-th step, counted from 1; gradients are scaled by `gradient_scale` first.
    pub fn new(settings: &AdamSettings, n: u64, gradient_scale: f32) -> Self {
        let AdamSettings { lr, beta1, beta2, epsilon, weight_decay } = *settings;
        let correction = |beta: f64| 1.0 - libm::pow(beta, n as f64);
        AdamStep {
            mean_share: (1.0 - beta1) as f32,
            square_decay: beta2 as f32,
            square_share: (1.0 - beta2) as f32,
            root_correction: correction(beta2).sqrt() as f32,
            epsilon: epsilon as f32,
            step_size: (lr / correction(beta1)) as f32,
            weight_decay: weight_decay as f32,
            gradient_scale,
        }
    }

    /// The numbers, in the order of the GPU's kernel.
    #[cfg(any(feature = "cuda", feature = "kernel-host"))]
    pub fn numbers(&self) -> [f32; 8] {
        let AdamStep { mean_share, square_decay, square_share, root_correction, .. } = *self;
        let AdamStep { epsilon, step_size, weight_decay, gradient_scale, .. } = *self;
        [
            mean_share,
            square_decay,
            square_share,
            root_correction,
            epsilon,
            step_size,
            weight_decay,
            gradient_scale,
        ]
    }

    /// Steps a part of the weights; all slices have one length, a multiple of 16.
    pub fn run(self, level: Level, part: AdamPart<'_>) {
        level.run(Kernel { step: self, part });
    }

    #[inline(always)]
    fn weight(&self, weight: f32, gradient: f32, mean: f32, square: f32) -> (f32, f32, f32) {
        let gradient = gradient * self.gradient_scale + weight * self.weight_decay;
        let mean = mean + (gradient - mean) * self.mean_share;
        let square = square * self.square_decay + gradient * gradient * self.square_share;
        let root = square.sqrt() / self.root_correction + self.epsilon;
        (weight - self.step_size * (mean / root), mean, square)
    }
}

/// Weights, their gradients and their running moments.
pub(crate) struct AdamPart<'a> {
    pub weights: &'a mut [f32],
    pub gradients: &'a [f32],
    pub means: &'a mut [f32],
    pub squares: &'a mut [f32],
}

struct Kernel<'a> {
    step: AdamStep,
    part: AdamPart<'a>,
}

impl WithSimd for Kernel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        let AdamPart { weights, gradients, means, squares } = self.part;
        let lanes = weights.as_chunks_mut::<16>().0.iter_mut().zip(gradients.as_chunks::<16>().0);
        let lanes = lanes.zip(means.as_chunks_mut::<16>().0).zip(squares.as_chunks_mut::<16>().0);
        for (((weight, gradient), mean), square) in lanes {
            for k in 0..16 {
                (weight[k], mean[k], square[k]) =
                    self.step.weight(weight[k], gradient[k], mean[k], square[k]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two steps with a penalty of 0.5 on the weight, by hand from the equations of torch's Adam,
    /// which adds it to the gradient.
    #[test]
    fn decay_is_part_of_the_gradient() {
        let settings = AdamSettings { lr: 0.1, weight_decay: 0.5, ..AdamSettings::default() };
        let [mut weights, mut means, mut squares] = [[1.0f32; 16], [0.0; 16], [0.0; 16]];
        let expected = [
            (0.25, [0.900_000_001_3, 0.075, 0.000_562_5]),
            (-0.5, [0.838_095_122_8, 0.062_500_000_1, 0.000_564_437_5]),
        ];
        for (n, (gradient, expected)) in (1..).zip(expected) {
            let gradients = [2.0 * gradient; 16];
            let part = AdamPart {
                weights: &mut weights,
                gradients: &gradients,
                means: &mut means,
                squares: &mut squares,
            };
            AdamStep::new(&settings, n, 0.5).run(Level::best(), part);
            for (ours, expected) in [weights[3], means[3], squares[3]].into_iter().zip(expected) {
                let off = (f64::from(ours) - expected).abs();
                assert!(off < 1e-6 * expected, "step {n}: {ours}, by hand {expected}");
            }
        }
    }
}
