//! Recipe: everything that decides what a training learns from given data.
//!
//! Two are built in: the tutorial's, and the best one found (BENCHMARKS.md says how).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::loss::{Loss, LossKind};
use crate::augment::{Augmentation, Augmentations};
use crate::error::{Error, Result};
use crate::nn::{AdamSettings, ChainParameters, LayerSpec, check_specs};

/// How the learning rate goes over the epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The same in every epoch.
    Constant,
    /// Half a cosine down to 0, from epoch to epoch (`torch.optim.lr_scheduler.CosineAnnealingLR`).
    Cosine,
}

/// Hyperparameters and seed. Equal recipes on equal data give equal bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Passes over the training recordings.
    pub epochs: u32,
    /// Recordings a step.
    pub batch: usize,
    /// Learning rate at the beginning.
    pub lr: f64,
    /// How it goes on.
    pub schedule: Schedule,
    /// L2 penalty on the weights (torch's Adam).
    pub weight_decay: f64,
    /// Greatest norm of a step's gradients.
    pub clip: Option<f64>,
    /// What the cross-entropy is taken on.
    pub loss: LossKind,
    /// Label smoothing.
    pub smoothing: f64,
    /// Recordings of a batch are padded with empty windows to its longest, which count: the
    /// tutorial as it is written.
    pub unmasked: bool,
    /// Neurons of each hidden layer, from the input on.
    pub hidden: Vec<usize>,
    /// Rates, threshold and surrogate of the layers.
    pub chain: ChainParameters,
    /// Factor on the first layer's weights before training.
    pub init_scale: f32,
    /// What is done to recordings before each use.
    pub augment: Augmentations,
    /// Seed of everything that is drawn.
    pub seed: u64,
}

impl Recipe {
    /// The tutorial *Training a classifier on the event-based POKER-DVS dataset* (Norse), with
    /// the maximum over time taken over each recording's own windows.
    pub fn tutorial() -> Self {
        Recipe {
            epochs: 10,
            batch: 32,
            lr: 0.002,
            schedule: Schedule::Constant,
            weight_decay: 0.0,
            clip: None,
            loss: LossKind::Max,
            smoothing: 0.0,
            unmasked: false,
            hidden: vec![100],
            chain: ChainParameters::default(),
            init_scale: 1.0,
            augment: Augmentations::default(),
            seed: 0,
        }
    }

    /// The best one found for POKER-DVS; BENCHMARKS.md tells what each ingredient brings.
    pub fn best() -> Self {
        let augment = vec![
            Augmentation::Shift(1),
            Augmentation::FlipX(0.5),
            Augmentation::FlipPolarity(0.1),
            Augmentation::Noise(8.0),
        ];
        Recipe {
            epochs: 150,
            lr: 0.01,
            schedule: Schedule::Cosine,
            loss: LossKind::Mix(0.8),
            smoothing: 0.1,
            chain: ChainParameters {
                tau_mem_inv: 400.0,
                tau_syn_inv: 400.0,
                alpha: 10.0,
                ..ChainParameters::default()
            },
            augment: Augmentations(augment),
            ..Recipe::tutorial()
        }
    }

    /// The loss of a recording.
    pub fn loss(&self) -> Loss {
        Loss { kind: self.loss, smoothing: self.smoothing }
    }

    /// Adam's settings in epoch `epoch`, counted from 0.
    pub fn adam(&self, epoch: u32) -> AdamSettings {
        let share = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Cosine => {
                let gone = f64::from(epoch) / f64::from(self.epochs.max(1));
                0.5 * (1.0 + libm::cos(std::f64::consts::PI * gone))
            }
        };
        let weight_decay = self.weight_decay;
        AdamSettings { lr: self.lr * share, weight_decay, ..AdamSettings::default() }
    }

    /// The chain: recurrent LIF layers, then a leaky-integrator readout.
    pub fn layers(&self, inputs: usize, classes: usize) -> Vec<LayerSpec> {
        let mut layers = Vec::with_capacity(self.hidden.len() + 1);
        let mut below = inputs;
        for neurons in &self.hidden {
            layers.push(self.chain.hidden(below, *neurons));
            below = *neurons;
        }
        layers.push(self.chain.readout(below, classes));
        layers
    }

    /// Refuses what cannot be trained on so many inputs and classes, in windows of `window_s`.
    ///
    /// # Errors
    /// [`Error::Usage`] names the value.
    pub fn check(&self, inputs: usize, classes: usize, window_s: f64) -> Result<()> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let refused = if self.epochs == 0 {
            "--epochs 0: there is nothing to train"
        } else if self.batch == 0 {
            "--batch 0: a step needs a recording"
        } else if !positive(self.lr) {
            "--lr: a learning rate is a positive number"
        } else if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            "--weight-decay: a penalty is 0 or a positive number"
        } else if self.clip.is_some_and(|clip| !positive(clip)) {
            "--clip: a norm is a positive number"
        } else if !(0.0..1.0).contains(&self.smoothing) {
            "--smoothing: a share from 0 to below 1"
        } else if self.hidden.is_empty() || self.hidden.contains(&0) {
            "--hidden: every layer needs a neuron"
        } else if !positive(self.chain.alpha) {
            "--alpha: a steepness is a positive number"
        } else if !positive(f64::from(self.init_scale)) {
            "--init-scale: a factor is a positive number"
        } else {
            let checked = check_specs(self.layers(inputs, classes).iter_mut(), window_s);
            return checked.map(drop).map_err(|error| Error::Usage(error.to_string()));
        };
        Err(Error::Usage(refused.to_owned()))
    }

    /// Names and values, as the command line spells them.
    pub fn settings(&self) -> Vec<(String, String)> {
        let chain = &self.chain;
        let text = |value: &dyn fmt::Display| value.to_string();
        let hidden: Vec<_> = self.hidden.iter().map(usize::to_string).collect();
        let settings = [
            ("epochs", text(&self.epochs)),
            ("batch", text(&self.batch)),
            ("lr", text(&self.lr)),
            ("schedule", text(&self.schedule)),
            ("weight-decay", text(&self.weight_decay)),
            ("clip", self.clip.map_or_else(|| "none".to_owned(), |clip| text(&clip))),
            ("loss", text(&self.loss)),
            ("smoothing", text(&self.smoothing)),
            ("unmasked", text(&self.unmasked)),
            ("hidden", hidden.join(",")),
            ("tau-mem-inv", text(&chain.tau_mem_inv)),
            ("tau-syn-inv", text(&chain.tau_syn_inv)),
            ("v-th", text(&chain.v_th)),
            ("readout-tau-mem-inv", text(&chain.readout_tau_mem_inv)),
            ("readout-tau-syn-inv", text(&chain.readout_tau_syn_inv)),
            ("alpha", text(&chain.alpha)),
            ("init-scale", text(&self.init_scale)),
            ("augment", text(&self.augment)),
            ("seed", text(&self.seed)),
        ];
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Schedule::Constant => "constant",
            Schedule::Cosine => "cosine",
        })
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "constant" => Ok(Schedule::Constant),
            "cosine" => Ok(Schedule::Cosine),
            _ => Err(Error::Usage(format!(
                "no schedule is called '{text}': there are constant and cosine"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_threshold_are_those_of_the_layers_they_name() {
        let recipe = Recipe {
            hidden: vec![5, 4],
            chain: ChainParameters {
                tau_mem_inv: 1.0,
                tau_syn_inv: 2.0,
                v_th: 3.0,
                readout_tau_mem_inv: 4.0,
                readout_tau_syn_inv: 5.0,
                alpha: 6.0,
            },
            ..Recipe::tutorial()
        };
        let layers = recipe.layers(9, 3);
        let values = |layer: usize, names: &[&str]| -> Vec<f64> {
            names.iter().map(|name| layers[layer].parameters[*name]).collect()
        };
        for hidden in [0, 1] {
            let names = ["tau_mem_inv", "tau_syn_inv", "v_th", "alpha"];
            assert_eq!(values(hidden, &names), [1.0, 2.0, 3.0, 6.0]);
        }
        assert_eq!(values(2, &["tau_mem_inv", "tau_syn_inv"]), [4.0, 5.0]);
    }

    /// Half a cosine over ten epochs, by hand.
    #[test]
    fn the_learning_rate_goes_down_half_a_cosine() {
        let recipe =
            Recipe { epochs: 10, lr: 0.02, schedule: Schedule::Cosine, ..Recipe::tutorial() };
        for (epoch, expected) in [(0, 0.02), (5, 0.01), (9, 0.000_489_434_837)] {
            assert!((recipe.adam(epoch).lr - expected).abs() < 1e-12, "epoch {epoch}");
        }
        let constant = Recipe { schedule: Schedule::Constant, ..recipe };
        assert_eq!([0, 5, 9].map(|epoch| constant.adam(epoch).lr), [0.02; 3]);
    }
}
