//! JSON Lines for programs: one object a record, stable keys, no wall time.
//!
//! Floats are written so that they read back to the same bits.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Sink, Style};
use crate::prediction::{Losses, Record, Stream};

/// The sink; see the module.
pub struct JsonLines {
    style: Style,
    /// The streams' names as JSON, made once: all but the first of its lines only copy it.
    names: HashMap<String, Box<RawValue>>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Prediction {
        stream: &'a RawValue,
        window: u64,
        t_us: u64,
        events: u32,
        label: Option<&'a str>,
        class: Option<u16>,
        confidence: f32,
        logits: &'a [f32],
        #[serde(skip_serializing_if = "Option::is_none")]
        losses: Option<Losses>,
    },
    Segment {
        stream: &'a RawValue,
        from_us: u64,
        to_us: u64,
        label: Option<&'a str>,
        class: Option<u16>,
        confidence: f32,
        windows: u64,
        events: u64,
    },
    Summary {
        stream: &'a RawValue,
        label: Option<&'a str>,
        class: Option<u16>,
        confidence: f32,
        windows: u64,
        events: u64,
        duration_us: u64,
        segments: u64,
        losses: Losses,
        restarts: u64,
    },
    Error {
        stream: &'a RawValue,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
    },
}

impl JsonLines {
    /// A sink of this style.
    pub fn new(style: Style) -> Self {
        JsonLines { style, names: HashMap::new() }
    }

    fn keep_name(&mut self, stream: &str) {
        if self.names.contains_key(stream) {
            return;
        }
        if self.names.len() == MAX_NAMES {
            self.names.clear();
        }
        // A string always has its JSON.
        let json = serde_json::value::to_raw_value(stream).unwrap_or_default();
        self.names.insert(stream.to_owned(), json);
    }
}

/// Most names that are kept: those of all streams that may be open, and of some that are gone.
const MAX_NAMES: usize = 32_768;

impl Sink for JsonLines {
    fn record(&mut self, stream: &Stream, record: &Record, logits: &[f32], out: &mut Vec<u8>) {
        self.keep_name(&stream.name);
        let JsonLines { style, names } = self;
        let stream = &names[&stream.name];
        let label = |class| style.labels.label(class);
        let message;
        let line = match record {
            Record::Prediction(p) => Line::Prediction {
                stream,
                window: p.window,
                t_us: p.t_us,
                events: p.events,
                label: label(p.verdict.class),
                class: p.verdict.class,
                confidence: p.verdict.confidence,
                logits,
                losses: (!p.losses.is_none()).then_some(p.losses),
            },
            Record::Segment(s) => Line::Segment {
                stream,
                from_us: s.from_us,
                to_us: s.to_us,
                label: label(s.verdict.class),
                class: s.verdict.class,
                confidence: s.verdict.confidence,
                windows: s.windows,
                events: s.events,
            },
            Record::Summary(s) => Line::Summary {
                stream,
                label: label(s.verdict.class),
                class: s.verdict.class,
                confidence: s.verdict.confidence,
                windows: s.windows,
                events: s.totals.events,
                duration_us: s.totals.duration_us,
                segments: s.segments,
                losses: s.totals.losses,
                restarts: s.totals.restarts,
            },
            Record::Error { causes, offset } => {
                message = causes.join(": ");
                Line::Error { stream, message: &message, offset: *offset }
            }
        };
        // Neither a buffer in memory nor these types can fail.
        let _ = serde_json::to_writer(&mut *out, &line);
        out.push(b'\n');
    }
}
