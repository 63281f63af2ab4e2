//! CSV for spreadsheets: a header, then a line for each prediction, segment and summary.
//!
//! Empty fields are values that a record does not have. Losses of a prediction are those since the
//! one before it in the stream, of a summary all.

use std::borrow::Cow;
use std::fmt::Write;

use super::{Sink, Style};
use crate::prediction::{Losses, Record, Stream, Verdict};

/// The sink; see the module.
pub struct Csv {
    style: Style,
    line: String,
}

impl Csv {
    /// A sink of this style.
    pub fn new(style: Style) -> Self {
        Csv { style, line: String::new() }
    }

    /// Every line has the same fields, and one more for each class's logit.
    fn write(
        &mut self,
        head: [&dyn std::fmt::Display; 7],
        verdict: Verdict,
        (losses, restarts): (Option<Losses>, Option<u64>),
        logits: &[f32],
    ) {
        for field in head {
            let _ = write!(self.line, "{field},");
        }
        let label = quoted(self.style.labels.label(verdict.class).unwrap_or(""));
        let _ = write!(self.line, "{label},{}", verdict.confidence);
        let of = losses.unwrap_or_default().by_reason().map(|(_, n)| losses.map(|_| n));
        for count in of.into_iter().chain([restarts]) {
            self.line.push(',');
            if let Some(count) = count {
                let _ = write!(self.line, "{count}");
            }
        }
        for k in 0..self.style.labels.labels.len() {
            self.line.push(',');
            if let Some(logit) = logits.get(k) {
                let _ = write!(self.line, "{logit}");
            }
        }
    }
}

impl Sink for Csv {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.extend(b"type,stream,window,from_us,t_us,windows,events,label,confidence");
        let reasons = Losses::default().by_reason().map(|(reason, _)| reason);
        out.extend(format!(",{},restarts", reasons.join(",")).bytes());
        for label in &self.style.labels.labels {
            out.extend(format!(",{}", quoted(&format!("logit_{label}"))).bytes());
        }
        out.push(b'\n');
    }

    fn record(&mut self, stream: &Stream, record: &Record, logits: &[f32], out: &mut Vec<u8>) {
        self.line.clear();
        let (stream, none) = (quoted(&stream.name), "");
        match record {
            Record::Prediction(p) => {
                let head: [&dyn std::fmt::Display; 7] =
                    [&"prediction", &stream, &p.window, &none, &p.t_us, &none, &p.events];
                self.write(head, p.verdict, (Some(p.losses), None), logits);
            }
            Record::Segment(s) => {
                let head: [&dyn std::fmt::Display; 7] =
                    [&"segment", &stream, &none, &s.from_us, &s.to_us, &s.windows, &s.events];
                self.write(head, s.verdict, (None, None), logits);
            }
            Record::Summary(s) => {
                let events = s.totals.events;
                let head: [&dyn std::fmt::Display; 7] =
                    [&"summary", &stream, &none, &none, &none, &s.windows, &events];
                let lost = (Some(s.totals.losses), Some(s.totals.restarts));
                self.write(head, s.verdict, lost, logits);
            }
            // Errors have no place in a table; they are told on standard error.
            Record::Error { .. } => return,
        }
        out.extend(self.line.bytes());
        out.push(b'\n');
    }
}

/// RFC 4180: a field with a comma, a quote or a line break is quoted.
fn quoted(field: &str) -> Cow<'_, str> {
    if field.contains([',', '"', '\n', '\r']) {
        Cow::Owned(format!("\"{}\"", field.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(field)
    }
}
