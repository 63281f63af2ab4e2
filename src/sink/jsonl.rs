//! JSON Lines for programs: one object a record, stable keys, no wall time.
//!
//! Floats are written so that they read back to the same bits.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{Sink, Style};
use crate::prediction::{Losses, Record};

/// The sink; see the module.
pub struct JsonLines {
    style: Style,
    streams: Vec<Escaped>,
}

/// A stream's name as JSON, made once: all but the first of its lines only copy it.
struct Escaped {
    name: String,
    json: Box<RawValue>,
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
        losses: Option<LossCounts>,
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
        losses: LossCounts,
        restarts: u64,
    },
    Error {
        stream: &'a RawValue,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
    },
}

#[derive(Serialize)]
struct LossCounts {
    late: u64,
    outside: u64,
    overflow: u64,
    malformed: u64,
}

impl From<Losses> for LossCounts {
    fn from(losses: Losses) -> Self {
        let Losses { late, outside, overflow, malformed } = losses;
        LossCounts { late, outside, overflow, malformed }
    }
}

impl JsonLines {
    /// A sink of this style.
    pub fn new(style: Style) -> Self {
        JsonLines { style, streams: Vec::new() }
    }
}

/// Most names that are kept.
const MAX_NAMES: usize = 256;

impl Escaped {
    /// The name as JSON.
    fn of<'a>(kept: &'a mut Vec<Escaped>, name: &str) -> &'a RawValue {
        let place = kept.iter().position(|kept| kept.name == name).unwrap_or_else(|| {
            if kept.len() == MAX_NAMES {
                kept.clear();
            }
            // a string always has its JSON
            let json = serde_json::value::to_raw_value(name).unwrap_or_default();
            kept.push(Escaped { name: name.to_owned(), json });
            kept.len() - 1
        });
        &kept[place].json
    }
}

impl Sink for JsonLines {
    fn record(&mut self, stream: &str, record: &Record, logits: &[f32], out: &mut Vec<u8>) {
        let JsonLines { style, streams } = self;
        let stream = Escaped::of(streams, stream);
        let label = |class| style.labels.label(class);
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
                losses: (!p.losses.is_none()).then(|| p.losses.into()),
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
                losses: s.totals.losses.into(),
                restarts: s.totals.restarts,
            },
            Record::Error { message, offset } => Line::Error { stream, message, offset: *offset },
        };
        // Neither a buffer in memory nor these types can fail.
        let _ = serde_json::to_writer(&mut *out, &line);
        out.push(b'\n');
    }
}
