//! Streaming, real-time classification of event-camera recordings and live streams.
//!
//! ```text
//! bytes ──▶ codec ──▶ Event ──▶ window ──▶ Frames ──▶ ring ──▶ engine ──▶ session ──▶ Prediction ──▶ sink
//! ```
//!
//! Data flows one way. Between bytes and predictions nothing depends on a clock, a file, a socket
//! or a thread; ARCHITECTURE.md names the layers and what each may know.

#![deny(unsafe_code)]

pub mod codec;
pub mod error;
pub mod event;
pub mod frame;
pub mod prediction;
pub mod synth;

pub use error::{Error, Result};
