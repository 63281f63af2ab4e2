//! Networks of spiking and leaky cells: parameters, state, and the steps from frames to outputs.
//!
//! The only place that knows tensors and devices. Knows frames; knows no codec, no view, no clock,
//! no labels and no file but the weights it is asked to load.

mod cell;
mod device;
mod init;
mod layer;
mod learn;
mod network;
mod op;
mod state;
mod trace;
pub mod weights;

pub use cell::surrogate::superspike;
pub use cell::{CELLS, Cell, CellKind, Parameter, ParameterKind, Parameters};
pub use device::{Device, DeviceChoice, Found, devices};
pub use init::{ChainParameters, draw_weights};
pub use layer::{LayerSpec, LayerWeights, check_specs};
pub use learn::{Learner, LearnerState};
pub use network::{Matrices, Network};
pub use op::adam::AdamSettings;
pub use op::bptt::TrainingSample;
#[cfg(feature = "kernel-host")]
pub use op::host::KernelOnHost;
pub use op::level::Level;
pub use state::{PlainState, State};
pub use trace::{Trace, TracedVariable};

/// One window of one slot that a rollout steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedStep {
    /// Index into the rollout's slots.
    pub slot_index: u32,
    /// Index of the window in that slot's frames.
    pub window: u32,
    /// Whether the slot's state is set to zero before this window.
    pub reset: bool,
}
