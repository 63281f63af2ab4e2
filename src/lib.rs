//! Streaming, real-time classification of event-camera recordings and live streams.
//!
//! ```text
//! bytes ──▶ codec ──▶ Event ──▶ window ──▶ Frames ──▶ ring ──▶ engine ──▶ session ──▶ Prediction ──▶ sink
//! ```
//!
//! Data flows one way. Between bytes and predictions nothing depends on a clock, a file, a socket
//! or a thread; ARCHITECTURE.md names the layers and what each may know.
//!
//! A stream from bytes to records, as every command drives it:
//!
//! ```
//! use dvs_stream::frame::{Frames, SlotFrames};
//! use dvs_stream::ingest::{Ingest, Reading};
//! use dvs_stream::model::Model;
//! use dvs_stream::prediction::{Record, Records};
//! use dvs_stream::session::{Rules, Session, windows_of};
//!
//! # fn main() -> dvs_stream::Result<()> {
//! let model = Model::from_bytes(include_bytes!("../models/poker.safetensors"))?;
//! let mut session = Session::new(model.network.clone(), Rules::of(&model), 1)?;
//! let mut records = Records::default();
//!
//! let mut ingest = Ingest::new(Reading::default(), windows_of(&model), None);
//! let mut step = |frames: &mut Frames| {
//!     session.step(&[SlotFrames { slot: 0, frames: std::mem::take(frames) }], &mut records)
//! };
//! ingest.feed(include_bytes!("../fixtures/deck.aedat4"), &mut step)?;
//! ingest.finish(true, &mut step)?;
//!
//! let named = records.iter(4).filter(|(_, record, _)| match record {
//!     Record::Segment(segment) => segment.verdict.class.is_some(),
//!     _ => false,
//! });
//! assert_eq!(named.count(), 7); // the eighth pip is still open
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

pub mod augment;
pub mod cli;
pub mod codec;
pub mod convert;
pub mod dataset;
pub mod decide;
pub mod engine;
pub mod error;
pub mod eval;
pub mod event;
pub mod frame;
pub mod import;
pub mod info;
pub mod ingest;
pub mod model;
pub mod nn;
pub mod pace;
pub mod pictures;
pub mod plot;
pub mod prediction;
pub mod progress;
pub mod quantity;
pub mod recording;
pub mod replay;
pub mod ring;
pub mod score;
pub mod send;
pub mod serve;
pub mod session;
pub mod sink;
pub mod source;
pub mod store;
pub mod synth;
mod table;
pub mod telemetry;
pub mod train;
pub mod view;
pub mod window;

pub use error::{Error, Result};
