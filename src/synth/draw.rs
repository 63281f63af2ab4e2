//! Random numbers of the generator: the same for a seed on every machine and in every version.
//!
//! Knows nothing of pips. Logarithm and exponential are those of `libm`, since the standard
//! library's are the platform's and differ in the last bit; the other operations are exact.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A stream of random draws.
pub(super) struct Draw {
    rng: ChaCha8Rng,
    spare: Option<f64>,
}

impl Draw {
    /// The stream of `seed` for one purpose (at most 24 bytes); purposes are independent.
    pub(super) fn new(seed: u64, purpose: &str) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..8 + purpose.len()].copy_from_slice(purpose.as_bytes());
        Draw { rng: ChaCha8Rng::from_seed(key), spare: None }
    }

    /// 64 random bits.
    pub(super) fn bits(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Uniform in 0..1, 1 excluded.
    pub(super) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `low..high`.
    pub(super) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// A whole number below `n`, which is at least 1; its bias is below n / 2⁶⁴.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// True with the given probability.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Normal, by Marsaglia's polar method.
    pub(super) fn normal(&mut self, mean: f64, sd: f64) -> f64 {
        if let Some(spare) = self.spare.take() {
            return mean + sd * spare;
        }
        loop {
            let (u, v) = (self.uniform(-1.0, 1.0), self.uniform(-1.0, 1.0));
            let square = u * u + v * v;
            if square > 0.0 && square < 1.0 {
                let scale = (-2.0 * libm::log(square) / square).sqrt();
                self.spare = Some(v * scale);
                return mean + sd * u * scale;
            }
        }
    }

    /// A log-normal factor e^N(0, sd).
    pub(super) fn factor(&mut self, sd: f64) -> f64 {
        libm::exp(self.normal(0.0, sd))
    }

    /// Exponential with the given mean.
    pub(super) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * libm::log(1.0 - self.unit())
    }

    /// Times of a Poisson process of `rate` from 0 to `end`, ascending; none where the rate is
    /// not positive.
    pub(super) fn arrivals(&mut self, rate: f64, end: f64) -> Vec<f64> {
        let mut times = Vec::new();
        if rate > 0.0 {
            let mut t = self.exponential(1.0 / rate);
            while t < end {
                times.push(t);
                t += self.exponential(1.0 / rate);
            }
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use super::Draw;

    #[test]
    fn moments_of_every_distribution() {
        type Sample = fn(&mut Draw) -> f64;
        let cases: [(&str, Sample, f64, f64); 5] = [
            ("unit", |draw| draw.unit(), 0.5, 12f64.recip().sqrt()),
            ("below", |draw| draw.below(5) as f64, 2.0, 2f64.sqrt()),
            ("normal", |draw| draw.normal(3.0, 2.0), 3.0, 2.0),
            ("exponential", |draw| draw.exponential(0.7), 0.7, 0.7),
            ("arrivals", |draw| draw.arrivals(2.0, 3.0).len() as f64, 6.0, 6f64.sqrt()),
        ];
        for (name, sample, mean, sd) in cases {
            let mut draw = Draw::new(1, name);
            let n = 20_000;
            let values: Vec<f64> = (0..n).map(|_| sample(&mut draw)).collect();
            let found = values.iter().sum::<f64>() / f64::from(n);
            let spread = values.iter().map(|v| (v - found).powi(2)).sum::<f64>() / f64::from(n);
            assert!((found - mean).abs() < 5.0 * sd / 140.0, "{name}: mean {found}, not {mean}");
            assert!((spread.sqrt() / sd - 1.0).abs() < 0.04, "{name}: sd {}", spread.sqrt());
        }
    }

    #[test]
    fn purposes_differ() {
        assert_ne!(Draw::new(7, "a").bits(), Draw::new(7, "b").bits());
        assert_eq!(Draw::new(7, "a").bits(), Draw::new(7, "a").bits());
    }
}
