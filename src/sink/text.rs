//! Text for people: the running answer with its confidence as a bar, segments as they end.

use std::collections::HashMap;
use std::io::Write;

use super::{Sink, Style};
use crate::error::{grouped, printable};
use crate::prediction::{Losses, Record, Stream, Summary, Verdict};

/// Cells of a full confidence bar.
const BAR_CELLS: usize = 20;

/// The sink; see the module.
pub struct Text {
    style: Style,
    /// Sensor time at which each running stream began, by its id.
    begins: HashMap<u64, u64>,
}

impl Text {
    /// A sink of this style.
    pub fn new(style: Style) -> Self {
        Text { style, begins: HashMap::new() }
    }

    /// Sensor time in ms since the stream's first record.
    fn since_ms(&mut self, stream: &Stream, first_us: u64, t_us: u64) -> f64 {
        let begin_us = self.begins.entry(stream.id).or_insert(first_us);
        // A clock that began anew is told from there.
        *begin_us = first_us.min(*begin_us);
        t_us.saturating_sub(*begin_us) as f64 / 1000.0
    }

    fn answer(&self, verdict: Verdict) -> String {
        let name = format!("{:<9}", self.style.labels.shown(verdict.class));
        let named = self.paint(if verdict.class.is_some() { "1" } else { "2" }, &name);
        let color = match verdict.confidence {
            c if c >= 0.9 => "32",
            c if c >= 0.6 => "33",
            _ => "31",
        };
        let percent = 100.0 * verdict.confidence;
        format!("{named} {} {percent:>3.0} %", self.paint(color, &bar(verdict.confidence)))
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.style.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn summary(&self, stream: &str, summary: &Summary) -> String {
        let Summary { verdict, windows, segments, totals } = summary;
        let label = self.paint("1", self.style.labels.shown(verdict.class));
        let count =
            |n: u64, what: &str| format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" });
        let mut line = format!(
            "{stream}: {label}, {:.0} % · {}, {}, {} in {:.1} ms",
            100.0 * verdict.confidence,
            count(*segments, "segment"),
            count(*windows, "window"),
            count(totals.events, "event"),
            totals.duration_us as f64 / 1000.0,
        );
        if !totals.losses.is_none() {
            line += &format!(" · lost: {}", losses(&totals.losses));
        }
        if totals.restarts > 0 {
            line += &format!(" · {}", count(totals.restarts, "clock restart"));
        }
        line
    }
}

impl Sink for Text {
    fn record(&mut self, stream: &Stream, record: &Record, _logits: &[f32], out: &mut Vec<u8>) {
        let line = match record {
            Record::Prediction(p) => {
                let first_us = p.t_us.saturating_sub(self.style.window_us);
                let t_ms = self.since_ms(stream, first_us, p.t_us);
                let answer = self.answer(p.verdict);
                let lost = if p.losses.is_none() {
                    String::new()
                } else {
                    format!("  lost: {}", losses(&p.losses))
                };
                format!("  {t_ms:>10.1} ms  {answer}  {:>6} events{lost}", p.events)
            }
            Record::Segment(s) => {
                let from_ms = self.since_ms(stream, s.from_us, s.from_us);
                let to_ms = self.since_ms(stream, s.from_us, s.to_us);
                let answer = self.answer(s.verdict);
                let (windows, events) = (grouped(s.windows), grouped(s.events));
                let mark = self.paint("36", "segment");
                format!(
                    "{mark} {from_ms:>8.1} to {to_ms:>8.1} ms  {answer}  {windows} windows, \
                     {events} events"
                )
            }
            Record::Summary(s) => {
                self.begins.remove(&stream.id);
                self.summary(&printable(&stream.name), s)
            }
            Record::Error { .. } => return,
        };
        let names = self.style.named && !matches!(record, Record::Summary(_));
        let name = if names { printable(&stream.name) + ": " } else { String::new() };
        // A buffer in memory takes every byte.
        let _ = writeln!(out, "{name}{line}");
    }
}

fn bar(share: f32) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * (BAR_CELLS * 8) as f32).round() as usize;
    let (full, rest) = (eighths / 8, EIGHTHS[eighths % 8]);
    let cells = full + usize::from(!rest.is_empty());
    format!("{}{rest}{}", "█".repeat(full), " ".repeat(BAR_CELLS - cells))
}

fn losses(losses: &Losses) -> String {
    let parts = losses.by_reason().into_iter().filter(|(_, n)| *n > 0);
    parts.map(|(name, n)| format!("{} {name}", grouped(n))).collect::<Vec<_>>().join(", ")
}
