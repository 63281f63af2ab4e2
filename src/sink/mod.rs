//! Sinks: records to bytes. One file a form, one row in [`SINKS`].
//!
//! A sink formats and nothing else; whoever holds the file or the socket writes the bytes. Knows
//! no engine.

mod csv;
mod jsonl;
mod text;

use crate::prediction::{Record, Stream};

/// Names of a model's classes.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// As written to programs.
    pub labels: Vec<String>,
    /// As shown to people.
    pub display: Vec<String>,
}

impl Labels {
    /// The class's name for programs.
    pub fn label(&self, class: Option<u16>) -> Option<&str> {
        class.and_then(|class| self.labels.get(usize::from(class))).map(String::as_str)
    }

    /// The class's name for people.
    pub fn shown(&self, class: Option<u16>) -> &str {
        let Some(k) = class.map(usize::from) else { return "unknown" };
        self.display.get(k).or(self.labels.get(k)).map_or("unknown", String::as_str)
    }
}

/// How a sink writes.
#[derive(Clone, Debug, Default)]
pub struct Style {
    /// Names of the classes.
    pub labels: Labels,
    /// With colours.
    pub color: bool,
    /// Text names the stream in every line: several run at once.
    pub named: bool,
    /// Length of a window in µs: a stream begins so long before its first prediction.
    pub window_us: u64,
}

/// Turns records into bytes.
pub trait Sink: Send {
    /// Appends what stands before all records.
    fn begin(&mut self, out: &mut Vec<u8>) {
        let _ = out;
    }

    /// Appends one record of a stream; `logits` is empty but for predictions.
    fn record(&mut self, stream: &Stream, record: &Record, logits: &[f32], out: &mut Vec<u8>);
}

/// One row of [`SINKS`].
pub struct SinkKind {
    /// Name on the command line.
    pub name: &'static str,
    /// A fresh sink.
    pub make: fn(&Style) -> Box<dyn Sink>,
}

/// Every form of output.
pub const SINKS: &[SinkKind] = &[
    SinkKind { name: "text", make: |style| Box::new(text::Text::new(style.clone())) },
    SinkKind { name: "jsonl", make: |style| Box::new(jsonl::JsonLines::new(style.clone())) },
    SinkKind { name: "csv", make: |style| Box::new(csv::Csv::new(style.clone())) },
];

/// The sink of that name.
pub fn by_name(name: &str) -> Option<&'static SinkKind> {
    SINKS.iter().find(|kind| kind.name == name)
}
