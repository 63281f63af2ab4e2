//! The report as one page: inline pictures and style, nothing from elsewhere, no script.
//!
//! Knows the report; computes nothing.

use std::fmt::Write as _;

use super::{Drawn, Report};
use crate::error::Result;
use crate::plot::{self, Axes, Series};
use crate::score::Share;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #6a6a70; --line: #dcdce0; --page: #fff }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececf0; --soft: #a0a0a8; --line: #3a3a40; --page: #17171a }
}
body { margin: 0 auto; padding: 2rem 1.2rem 4rem; max-width: 74rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem; margin: 0 0 .2rem }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; border-top: 1px solid var(--line); padding-top: 1rem }
p, .soft { color: var(--soft) }
code { overflow-wrap: anywhere; font-size: .9rem }
.big { font-size: 2.6rem; color: var(--ink); margin: .6rem 0 0 }
.pictures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)) }
.pictures svg { width: 100%; height: auto; border-radius: 6px; border: 1px solid var(--line) }
.tables { display: grid; gap: 1rem 3rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)) }
table { border-collapse: collapse; width: 100%; align-self: start }
td, th { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line);
  font-weight: normal; overflow-wrap: anywhere; vertical-align: top }
th { color: var(--soft) }
td.n, th.n { text-align: right; white-space: nowrap }
td:first-child { min-width: 7rem }
";

/// The whole page.
pub(super) fn page(report: &Report, drawn: &[Drawn]) -> Result<String> {
    let mut out =
        String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n");
    // writing to a string cannot fail
    let _ = writeln!(
        out,
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>Training of {}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
        text(&report.data.folder)
    );
    head(&mut out, report);
    section(&mut out, "How it went", &curves(report)?);
    section(&mut out, "How it reads", &reading(report)?);
    tables(&mut out, report);
    for Drawn { title, pictures } in drawn.iter().filter(|drawn| !drawn.pictures.is_empty()) {
        let svgs: Vec<&str> = pictures.iter().map(|picture| picture.svg.as_str()).collect();
        section(&mut out, title, &svgs);
    }
    out.push_str("</body>\n</html>\n");
    Ok(out)
}

fn head(out: &mut String, report: &Report) {
    let own = report.score.accuracy;
    let Share { right, n, share, low, high } = report.cross_validation.unwrap_or(own);
    let of = if report.held_out { "kept out of the training" } else { "that it was trained on" };
    let (read, model) = match report.cross_validation {
        None => (format!("{of} are read right"), String::new()),
        Some(_) => (
            format!(
                "are read right in cross-validation, each by a network that was not trained on \
                 it{}",
                if report.optimistic {
                    " but whose epoch was chosen by it and the rest of its fold: an optimistic figure"
                } else {
                    ""
                }
            ),
            format!("The model itself reads {} of {} {of} right. ", own.right, own.n),
        ),
    };
    let _ = writeln!(
        out,
        "<h1>Training of {}</h1>\n<p><code>{}</code></p>\n<p class=\"big\">{:.1} %</p>\n\
         <p>{right} of {n} recordings {read}; 95 % interval {:.1} to {:.1} %. {model}\
         The weights are those {}.</p>",
        text(&report.data.folder),
        text(&report.command),
        100.0 * share,
        100.0 * low,
        100.0 * high,
        text(&report.kept)
    );
}

fn section<S: AsRef<str>>(out: &mut String, title: &str, pictures: &[S]) {
    let _ = writeln!(out, "<h2>{}</h2>\n<div class=\"pictures\">", text(title));
    for picture in pictures {
        let _ = writeln!(out, "<figure style=\"margin:0\">{}</figure>", picture.as_ref().trim());
    }
    out.push_str("</div>\n");
}

fn curves(report: &Report) -> Result<Vec<String>> {
    let epochs = &report.epochs;
    let points = |of: &dyn Fn(&super::Epoch) -> Option<f64>| -> Vec<(f64, f64)> {
        epochs.iter().filter_map(|epoch| Some((f64::from(epoch.epoch), of(epoch)?))).collect()
    };
    let draw = |title: &str, y: &str, y_range, series: Vec<Series>| {
        let series: Vec<_> = series.into_iter().filter(|line| !line.points.is_empty()).collect();
        plot::lines(&Axes { title, x: "epoch", y, x_range: None, y_range }, &series)
    };
    let loss = vec![
        Series::new("trained on", points(&|epoch| Some(epoch.loss))),
        Series::new("kept out", points(&|epoch| epoch.held_out.map(|held_out| held_out.loss))),
    ];
    let accuracy = vec![
        Series::new("trained on", points(&|epoch| Some(100.0 * epoch.accuracy))),
        Series::new(
            "kept out",
            points(&|epoch| epoch.held_out.map(|held_out| 100.0 * held_out.accuracy)),
        ),
    ];
    let n_layers = epochs.first().map_or(0, |epoch| epoch.firing.len());
    let firing = (0..n_layers).map(|k| {
        let name = if n_layers == 1 { "hidden".to_owned() } else { format!("hidden {k}") };
        Series::new(name, points(&|epoch| epoch.firing.get(k).map(|rate| 100.0 * rate)))
    });
    Ok(vec![
        draw("Loss", "cross-entropy in nats", None, loss)?,
        draw("Accuracy", "recordings read right in %", Some((0.0, 105.0)), accuracy)?,
        draw("Firing", "neurons that spike in a window, %", None, firing.collect())?,
    ])
}

fn reading(report: &Report) -> Result<Vec<String>> {
    let n = report.score.accuracy.n;
    let against = |title: &str, x: &str, marks: &[(u64, f64)]| {
        let share = |accuracy: f64| Share::of((accuracy * n as f64).round() as u64, n);
        let points = marks.iter().map(|(mark, share)| (*mark as f64, 100.0 * share)).collect();
        let band = marks.iter().map(|(_, accuracy)| {
            let Share { low, high, .. } = share(*accuracy);
            (100.0 * low, 100.0 * high)
        });
        let name = "accuracy, with its 95 % interval".to_owned();
        let line = Series { name, points, band: band.collect() };
        let y_range = Some((0.0, 105.0));
        let x_range = marks.last().map(|(last, _)| (0.0, *last as f64)).filter(|(_, x)| *x > 0.0);
        let y = "recordings read right in %";
        plot::lines(&Axes { title, x, y, x_range, y_range }, &[line])
    };
    Ok(vec![
        plot::confusion("Confusion", &report.score.labels, &report.score.confusion)?,
        against(
            "Accuracy against time",
            "time since the first event in ms",
            &report.score.after_ms,
        )?,
        against("Accuracy against events", "events seen", &report.score.after_events)?,
    ])
}

fn tables(out: &mut String, report: &Report) {
    out.push_str("<h2>What it was made of</h2>\n<div class=\"tables\">\n");
    pairs(out, "recipe", &report.recipe);
    pairs(out, "model", &report.model);
    out.push_str("<table><tr><th>recordings</th><th class=\"n\">trained on</th>");
    out.push_str("<th class=\"n\">kept out</th><th class=\"n\">firing</th></tr>\n");
    for ((label, trained, kept_out), (_, firing)) in
        report.data.classes.iter().zip(&report.firing.by_class)
    {
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td class=\"n\">{trained}</td><td class=\"n\">{kept_out}</td>\
             <td class=\"n\">{:.0} %</td></tr>",
            text(label),
            100.0 * firing
        );
    }
    let _ = writeln!(
        out,
        "<tr><td colspan=\"3\">50 ms into silence, without a fresh start</td>\
         <td class=\"n\">{:.0} %</td></tr></table>",
        100.0 * report.firing.after_silence
    );
    let anytime = report.score.anytime().into_iter();
    let anytime =
        anytime.map(|(ms, share)| (format!("{ms} ms"), format!("{:.1} %", 100.0 * share)));
    pairs(out, "read right after", &anytime.collect::<Vec<_>>());
    let costs = [
        (
            "synaptic operations a window".to_owned(),
            format!("{:.0}", report.score.synaptic_operations),
        ),
        ("spikes a window".to_owned(), format!("{:.1}", report.score.spikes)),
    ];
    pairs(out, "cost", &costs);
    let folds = report.folds.iter().map(|fold| {
        let Share { right, n, share, .. } = fold.accuracy;
        (format!("fold {}", fold.name), format!("{:.1} % ({right} of {n})", 100.0 * share))
    });
    let optimistic = if report.optimistic { ", optimistic" } else { "" };
    pairs(out, &format!("cross-validation{optimistic}"), &folds.collect::<Vec<_>>());
    let folders = report.data.others.iter().cloned();
    let told = report.data.notes.iter().map(|note| ("note".to_owned(), note.clone()));
    let left_out = report.data.left_out.iter().map(|what| ("left out".to_owned(), what.clone()));
    pairs(out, "data", &folders.chain(told).chain(left_out).collect::<Vec<_>>());
    out.push_str("</div>\n");
}

fn pairs(out: &mut String, title: &str, pairs: &[(String, String)]) {
    if pairs.is_empty() {
        return;
    }
    let _ = writeln!(out, "<table><tr><th colspan=\"2\">{}</th></tr>", text(title));
    for (name, value) in pairs {
        let _ = writeln!(out, "<tr><td>{}</td><td>{}</td></tr>", text(name), text(value));
    }
    out.push_str("</table>\n");
}

/// Text that is no markup.
fn text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() && c != '\n' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
