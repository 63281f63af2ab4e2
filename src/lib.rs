//! Streaming, real-time classification of event-camera recordings and live streams.
//!
//! ```text
//! bytes ──▶ codec ──▶ Event ──▶ window ──▶ Frames ──▶ ring ──▶ engine ──▶ session ──▶ Prediction ──▶ sink
//! ```
//!
//! Data flows one way. Between bytes and predictions nothing depends on a clock, a file, a socket
//! or a thread; ARCHITECTURE.md names the layers and what each may know.

#![deny(unsafe_code)]

pub mod cli;
pub mod codec;
pub mod convert;
pub mod decide;
pub mod engine;
pub mod error;
pub mod event;
pub mod frame;
pub mod import;
pub mod info;
pub mod ingest;
pub mod model;
pub mod nn;
pub mod prediction;
pub mod progress;
pub mod recording;
pub mod replay;
pub mod ring;
pub mod session;
pub mod sink;
pub mod source;
pub mod synth;
pub mod telemetry;
pub mod view;
pub mod window;

pub use error::{Error, Result};
