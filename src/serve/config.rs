//! How one stream is taken: read, cut and answered. The server's flags say it for all streams, a
//! first line for its own.

use crate::error::Result;
use crate::event::Sensor;
use crate::ingest::{Ingest, Reading};
use crate::session::Rules;
use crate::view::View;
use crate::window::{WindowConfig, gap_windows};

/// What a stream's records depend on besides its bytes and the model.
#[derive(Clone, Copy)]
pub struct StreamConfig {
    /// How it is read.
    pub reading: Reading,
    /// How it is cut into windows.
    pub window: WindowConfig,
    /// How voltages become answers.
    pub rules: Rules,
}

impl StreamConfig {
    /// The stream before its first byte.
    pub fn ingest(&self) -> Ingest {
        Ingest::new(self.reading, self.window, None)
    }

    /// Looks whether the view takes what such a sensor sends, before there is a stream.
    ///
    /// # Errors
    /// As [`View::new`].
    pub fn takes(&self, sensor: &Sensor) -> Result<()> {
        View::new(&self.reading.view, sensor, self.window.sensor).map(|_| ())
    }

    /// Silence that ends a segment, in µs.
    pub fn set_gap(&mut self, gap_us: u64) {
        self.window.gap_us = gap_us;
        self.rules.silence.gap_windows = gap_windows(gap_us, self.window.window_us);
    }
}
