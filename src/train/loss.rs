//! Loss: cross-entropy of a recording's readout voltages, and its gradient by hand.
//!
//! Knows voltages over time and the true class; neither networks nor batches.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which voltages the cross-entropy is taken on. Written `max`, `mean`, `step` or `mix:0.8`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum LossKind {
    /// The maximum over time of each class (the tutorial's).
    Max,
    /// The mean over time of each class.
    Mean,
    /// Every window's own voltages; the mean of these losses.
    Step,
    /// This share of `max`, the rest of `step`.
    Mix(f64),
}

impl FromStr for LossKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let share = |text: &str| text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        let kind = match text.split_once(':') {
            None if text == "max" => Some(LossKind::Max),
            None if text == "mean" => Some(LossKind::Mean),
            None if text == "step" => Some(LossKind::Step),
            Some(("mix", text)) => share(text).map(LossKind::Mix),
            _ => None,
        };
        kind.ok_or_else(|| {
            Error::Mismatch(format!(
                "no loss is called '{text}': there are max, mean, step and mix:SHARE (the share of \
                 max from 0 to 1, as mix:0.8)"
            ))
        })
    }
}

impl fmt::Display for LossKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LossKind::Max => write!(f, "max"),
            LossKind::Mean => write!(f, "mean"),
            LossKind::Step => write!(f, "step"),
            LossKind::Mix(share) => write!(f, "mix:{share}"),
        }
    }
}

impl TryFrom<String> for LossKind {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<LossKind> for String {
    fn from(kind: LossKind) -> String {
        kind.to_string()
    }
}

/// A loss with label smoothing: the true class has the probability 1 − s + s/n, all others s/n
/// (`torch.nn.CrossEntropyLoss(label_smoothing=s)`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// What it is taken on.
    pub kind: LossKind,
    /// Label smoothing s, from 0 to 1.
    pub smoothing: f64,
}

impl Loss {
    /// The loss of one recording's voltages \[windows, classes\]; adds `weight` times its gradient
    /// to `gradient`, of the same shape. Without windows both are 0.
    pub fn of(
        &self,
        voltages: &[f32],
        n_classes: usize,
        class: usize,
        weight: f64,
        gradient: &mut [f32],
    ) -> f64 {
        if voltages.is_empty() {
            return 0.0;
        }
        match self.kind {
            LossKind::Max => self.of_max(voltages, n_classes, class, weight, gradient),
            LossKind::Mean => self.of_mean(voltages, n_classes, class, weight, gradient),
            LossKind::Step => self.of_steps(voltages, n_classes, class, weight, gradient),
            LossKind::Mix(share) => {
                let max = self.of_max(voltages, n_classes, class, share * weight, gradient);
                let rest = 1.0 - share;
                let steps = self.of_steps(voltages, n_classes, class, rest * weight, gradient);
                share * max + rest * steps
            }
        }
    }

    fn of_max(&self, v: &[f32], n: usize, class: usize, weight: f64, gradient: &mut [f32]) -> f64 {
        let (logits, at) = max_over_time(v, n);
        let mut own = vec![0.0; n];
        let loss = self.cross_entropy(&logits, class, &mut own);
        for (c, (t, own)) in at.iter().zip(own).enumerate() {
            gradient[t * n + c] += (weight * own) as f32;
        }
        loss
    }

    fn of_mean(&self, v: &[f32], n: usize, class: usize, weight: f64, gradient: &mut [f32]) -> f64 {
        let windows = (v.len() / n) as f64;
        let mean = |c| v.iter().skip(c).step_by(n).map(|v| f64::from(*v)).sum::<f64>() / windows;
        let logits: Vec<f32> = (0..n).map(|c| mean(c) as f32).collect();
        let mut own = vec![0.0; n];
        let loss = self.cross_entropy(&logits, class, &mut own);
        for row in gradient.chunks_exact_mut(n) {
            row.iter_mut().zip(&own).for_each(|(g, own)| *g += (weight * own / windows) as f32);
        }
        loss
    }

    fn of_steps(
        &self,
        v: &[f32],
        n: usize,
        class: usize,
        weight: f64,
        gradient: &mut [f32],
    ) -> f64 {
        let windows = (v.len() / n) as f64;
        let mut own = vec![0.0; n];
        let mut loss = 0.0;
        for (logits, row) in v.chunks_exact(n).zip(gradient.chunks_exact_mut(n)) {
            loss += self.cross_entropy(logits, class, &mut own) / windows;
            row.iter_mut().zip(&own).for_each(|(g, own)| *g += (weight * own / windows) as f32);
        }
        loss
    }

    /// −Σ q·log softmax(logits), and softmax − q.
    fn cross_entropy(&self, logits: &[f32], class: usize, gradient: &mut [f64]) -> f64 {
        let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let above = |logit: f32| f64::from(logit) - f64::from(greatest);
        let mut sum = 0.0;
        for (share, logit) in gradient.iter_mut().zip(logits) {
            *share = libm::exp(above(*logit));
            sum += *share;
        }
        let log_sum = libm::log(sum);
        let others = self.smoothing / logits.len() as f64;
        let mut loss = 0.0;
        for (c, (share, logit)) in gradient.iter_mut().zip(logits).enumerate() {
            let wanted = if c == class { 1.0 - self.smoothing + others } else { others };
            loss -= wanted * (above(*logit) - log_sum);
            *share = *share / sum - wanted;
        }
        loss
    }
}

/// Each class's greatest voltage over time, and the first window that has it. NaN is never the
/// greatest, unless there is nothing else.
pub fn max_over_time(voltages: &[f32], n_classes: usize) -> (Vec<f32>, Vec<usize>) {
    let mut logits: Vec<f32> = voltages[..n_classes].to_vec();
    let mut at = vec![0; n_classes];
    for (t, row) in voltages.chunks_exact(n_classes).enumerate() {
        for (c, v) in row.iter().enumerate() {
            if *v > logits[c] {
                logits[c] = *v;
                at[c] = t;
            }
        }
    }
    (logits, at)
}
