//! The report of a training: what was done, how it went, what the network does. The same as JSON
//! and as a page that opens without a network.

mod html;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::recipe::Recipe;
use super::trainer::Epoch;
use super::{Data as Recordings, Keep, Outcome, Trained, Training};
use crate::dataset::Sample;
use crate::error::{Error, Result, grouped};
use crate::frame::{Frames, SlotFrames, Window};
use crate::model::Model;
use crate::nn::{PlannedStep, Trace};
use crate::pictures;
use crate::plot::Slice;
use crate::quantity::format_time_us;
use crate::score::{Reader, Reading, Score, Share};
use crate::session::Rules;
use crate::store::replace;

/// Recordings read right, and read wrong, whose events are drawn.
const DRAWN: usize = 4;
/// Silence after a recording, in ms, at whose end firing is measured.
const SILENCE_MS: u64 = 50;
/// Most windows over which it is measured, at most a fifth of the silence.
const SILENT_WINDOWS: usize = 10;
/// Most windows of a recording whose every neuron is told and drawn.
const TRACED_WINDOWS: usize = 1000;

/// Everything but the pictures; written as `report.json`.
#[derive(Serialize)]
pub struct Report {
    /// The command as it was typed.
    pub command: String,
    /// What was read: folder as typed, recordings by class, what was left out.
    pub data: Data,
    /// Names and values of the recipe.
    pub recipe: Vec<(String, String)>,
    /// Names and values of what the model file fixes.
    pub model: Vec<(String, String)>,
    /// All epochs.
    pub epochs: Vec<Epoch>,
    /// The epoch whose weights were kept, and why.
    pub kept: String,
    /// Whether the training was interrupted before its last epoch was over.
    pub interrupted: bool,
    /// Whether the score is one of recordings kept out of the training.
    pub held_out: bool,
    /// Whether the epoch of every network was chosen by the recordings that it is scored on.
    pub optimistic: bool,
    /// How the model reads recordings.
    pub score: Score,
    /// Cross-validation, where there was one: of all folds together, how their recordings were read
    /// by networks not trained on them.
    pub cross_validation: Option<Share>,
    /// Each of its folds.
    pub folds: Vec<FoldScore>,
    /// Share of neurons that spike in a window.
    pub firing: Firing,
    /// Every scored recording.
    pub recordings: Vec<Read>,
    /// The first of them in the network, before training and after.
    pub activity: Vec<Activity>,
    /// Some of them as their events, read right and read wrong.
    pub events: Vec<Events>,
}

/// A recording's events.
#[derive(Serialize)]
pub struct Events {
    /// Its place among [`Report::recordings`].
    pub recording: usize,
    /// Whether it was read right.
    pub right: bool,
    /// Its slices of time.
    pub slices: Vec<Slice>,
}

/// What a network does with one recording.
#[derive(Serialize)]
pub struct Activity {
    /// `before training` or `after training`.
    pub when: String,
    /// Name of the recording.
    pub recording: String,
    /// Windows of the recording, of which at most the first 1000 are told.
    pub windows: usize,
    /// Ends of the windows, in ms since the first event.
    pub times_ms: Vec<f64>,
    /// Variables by layer, as `replay --record` names them, each \[windows, neurons\].
    pub variables: BTreeMap<String, Vec<Vec<f32>>>,
}

/// What was trained on.
#[derive(Serialize)]
pub struct Data {
    /// The folder, as typed.
    pub folder: String,
    /// Other folders, as typed, by their flag.
    pub others: Vec<(String, String)>,
    /// For each class its name, recordings trained on, and recordings kept out.
    pub classes: Vec<(String, usize, usize)>,
    /// What a user was told.
    pub notes: Vec<String>,
    /// Recordings left out, and why.
    pub left_out: Vec<String>,
}

/// One fold's accuracy.
#[derive(Serialize)]
pub struct FoldScore {
    /// Its name.
    pub name: String,
    /// Its accuracy.
    pub accuracy: Share,
}

/// Share of all neurons of hidden layers that spike in a window.
#[derive(Serialize)]
pub struct Firing {
    /// For each class during its recordings.
    pub by_class: Vec<(String, f64)>,
    /// At the end of 50 ms of silence after a recording, without the fresh start that a
    /// stream makes there.
    pub after_silence: f64,
}

/// How one recording was read.
#[derive(Serialize)]
pub struct Read {
    /// Its name.
    pub name: String,
    /// Its class.
    pub class: String,
    /// What it was read as.
    pub label: Option<String>,
    /// How sure.
    pub confidence: f32,
}

/// The pictures of one recording.
struct Drawn {
    title: String,
    pictures: Vec<pictures::Picture>,
}

/// Writes `report.json` and `index.html` into a folder.
///
/// # Errors
/// When the network fails, or the folder cannot be written.
pub fn write(training: &Training, outcome: &Outcome, command: &str, folder: &Path) -> Result<()> {
    let scored = outcome.scored();
    let (activity, mut drawn) = active(outcome, &scored)?;
    let events = events(outcome, &scored);
    drawn.extend(draw_events(outcome, &scored, &events)?);
    let report = report(training, outcome, command, &scored, (activity, events))?;
    let made = std::fs::create_dir_all(folder);
    made.map_err(|source| Error::Io {
        what: format!("cannot make the folder {}", folder.display()),
        source,
    })?;
    let json = serde_json::to_vec(&report)
        .map_err(|error| Error::Unsupported(format!("the report cannot be written: {error}")))?;
    replace(&folder.join("report.json"), &json)?;
    replace(&folder.join("index.html"), html::page(&report, &drawn)?.as_bytes())
}

fn report(
    training: &Training,
    outcome: &Outcome,
    command: &str,
    scored: &[&Sample],
    (activity, events): (Vec<Activity>, Vec<Events>),
) -> Result<Report> {
    let Outcome { data, folds, trained, fold, .. } = outcome;
    let labels = &data.dataset.labels;
    let (trained_on, kept_out) = (data.trained_on(fold), data.kept_out(fold));
    let of_class = |samples: &[&Sample], class: usize| {
        samples.iter().filter(|sample| sample.class == class).count()
    };
    let classes = labels.iter().enumerate().map(|(class, label)| {
        (label.clone(), of_class(&trained_on, class), of_class(&kept_out, class))
    });
    let epoch = trained.epoch;
    let chosen = format!(
        "after epoch {epoch}, chosen by the accuracy {}, which is therefore optimistic",
        if folds.is_empty() { "shown here" } else { "on the recordings of --val" }
    );
    let kept = match (training.keep, trained.interrupted) {
        (Keep::Last, None) => format!("after epoch {epoch}, the last"),
        (Keep::Best, None) => chosen,
        (keep, Some(used)) => {
            let done = trained.epochs.len();
            let at = format!(
                "of the moment when the training was interrupted: {done} of {} epochs were over, \
                 and {used} of {} recordings of the next were used",
                training.recipe.epochs,
                trained_on.len()
            );
            if keep == Keep::Best && epoch > 0 { format!("{chosen}, not those {at}") } else { at }
        }
    };
    let recordings = scored.iter().zip(&trained.readings).map(|(sample, reading)| Read {
        name: sample.name.clone(),
        class: labels[sample.class].clone(),
        label: reading.verdict.class.map(|class| labels[usize::from(class)].clone()),
        confidence: reading.verdict.confidence,
    });
    Ok(Report {
        command: command.to_owned(),
        data: Data {
            folder: training.data.display().to_string(),
            others: others_of(training),
            classes: classes.collect(),
            notes: outcome.notes.clone(),
            left_out: data
                .sets()
                .flat_map(|dataset| &dataset.faults)
                .map(|fault| format!("{}: {}", fault.name, fault.message))
                .collect(),
        },
        recipe: training.recipe.settings(),
        model: model_facts(&trained.model, &training.recipe),
        epochs: trained.epochs.clone(),
        kept,
        interrupted: trained.interrupted.is_some(),
        held_out: !kept_out.is_empty(),
        optimistic: training.keep == Keep::Best,
        score: trained.score.clone(),
        cross_validation: (!folds.is_empty())
            .then(|| folds.iter().map(|fold| fold.score.accuracy).sum()),
        folds: folds.iter().map(fold_score).collect(),
        firing: firing(&trained.model, labels, scored, &trained.readings)?,
        recordings: recordings.collect(),
        activity,
        events,
    })
}

fn others_of(training: &Training) -> Vec<(String, String)> {
    let folders = [("--also", &training.also), ("--val", &training.validation)];
    let named = folders.into_iter().filter_map(|(flag, folder)| {
        folder.as_ref().map(|folder| (flag.to_owned(), folder.display().to_string()))
    });
    named.collect()
}

fn fold_score(fold: &Trained) -> FoldScore {
    FoldScore { name: fold.name.clone(), accuracy: fold.score.accuracy }
}

fn model_facts(model: &Model, recipe: &Recipe) -> Vec<(String, String)> {
    let card = &model.card;
    let hidden: Vec<_> = recipe.hidden.iter().map(usize::to_string).collect();
    let facts = [
        ("sensor", format!("{} pixels, {} inputs", card.sensor, card.sensor.addresses())),
        ("hidden neurons (recurrent LIF)", hidden.join(", ")),
        ("classes", card.labels.join(", ")),
        ("window", format_time_us(card.window_us)),
        ("readout", card.readout.to_string()),
        (
            "silence that ends a segment",
            format!(
                "{} of windows with at most {} events",
                format_time_us(card.gap_us),
                card.quiet_events
            ),
        ),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn firing(
    model: &Model,
    labels: &[String],
    samples: &[&Sample],
    readings: &[Reading],
) -> Result<Firing> {
    let hidden: usize =
        model.network.layers().map(|layer| layer.neurons).sum::<usize>() - model.network.outputs();
    let by_class = labels.iter().enumerate().map(|(class, label)| {
        let own = samples.iter().zip(readings).filter(|(sample, _)| sample.class == class);
        let (spikes, windows) = own.fold((0, 0), |(spikes, windows), (_, reading)| {
            (spikes + reading.spikes, windows + reading.answers.len())
        });
        (label.clone(), spikes as f64 / (windows * hidden).max(1) as f64)
    });
    let by_class = by_class.collect();
    let frames = samples.iter().map(|sample| &sample.frames);
    Ok(Firing { by_class, after_silence: after_silence(model, frames)? })
}

fn after_silence<'a>(model: &Model, recordings: impl Iterator<Item = &'a Frames>) -> Result<f64> {
    let measured = (silent_windows(model) / 5).clamp(1, SILENT_WINDOWS);
    let (mut fired, mut asked) = (0usize, 0usize);
    for frames in recordings {
        let trace = trace_into_silence(model, frames)?;
        for variable in trace.variables().iter().filter(|v| v.name.ends_with(".z")) {
            let last = variable.rows.len() - measured * variable.width;
            fired += variable.rows[last..].iter().filter(|z| **z != 0.0).count();
            asked += variable.rows.len() - last;
        }
    }
    Ok(fired as f64 / asked.max(1) as f64)
}

/// Windows of the silence, at least 1.
fn silent_windows(model: &Model) -> usize {
    (SILENCE_MS * 1000).div_ceil(model.card.window_us).max(1) as usize
}

/// A recording and the silence after it, stepped without a fresh start.
fn trace_into_silence(model: &Model, frames: &Frames) -> Result<Trace> {
    let mut frames = frames.clone();
    (0..silent_windows(model)).for_each(|_| frames.close(Window::default()));
    let plan: Vec<_> = (0..frames.len() as u32)
        .map(|window| PlannedStep { slot_index: 0, window, reset: window == 0 })
        .collect();
    let mut trace = model.network.trace();
    let mut state = model.network.zero_state(1)?;
    let slots = [SlotFrames { slot: 0, frames }];
    model.network.rollout(&mut state, &slots, &plan, &mut Vec::new(), Some(&mut trace))?;
    Ok(trace)
}

/// The first scored recording in the network, before training and after.
fn active(outcome: &Outcome, scored: &[&Sample]) -> Result<(Vec<Activity>, Vec<Drawn>)> {
    let Outcome { data: Recordings { dataset, .. }, trained, .. } = outcome;
    let (mut activity, mut drawn) = (Vec::new(), Vec::new());
    let Some(sample) = scored.first() else { return Ok((activity, drawn)) };
    let (mut frames, windows) = (Frames::default(), sample.frames.len());
    (0..windows.min(TRACED_WINDOWS)).for_each(|k| frames.copy_from(&sample.frames, k));
    let part = if windows > TRACED_WINDOWS {
        format!(
            ", its first {} of {} windows",
            grouped(TRACED_WINDOWS as u64),
            grouped(windows as u64)
        )
    } else {
        String::new()
    };
    for (when, model) in
        [("before training", &trained.untrained), ("after training", &trained.model)]
    {
        let (reading, trace) = Reader::new(model, Rules::of(model))?.read_traced(&frames)?;
        let times_ms: Vec<f64> =
            reading.answers.iter().map(|answer| answer.elapsed_us as f64 / 1000.0).collect();
        let title = format!("{} {when}", sample.name);
        let pictures = pictures::of_trace(&trace, &times_ms, &dataset.labels, &title)?;
        drawn.push(Drawn { title: format!("The network {when}{part}"), pictures });
        let variables = trace.variables().iter().map(|variable| {
            let rows = variable.rows.chunks_exact(variable.width).map(<[f32]>::to_vec);
            (variable.name.clone(), rows.collect())
        });
        activity.push(Activity {
            when: when.to_owned(),
            recording: sample.name.clone(),
            windows,
            variables: variables.collect(),
            times_ms,
        });
    }
    Ok((activity, drawn))
}

/// Some recordings read right, and some read wrong.
fn events(outcome: &Outcome, scored: &[&Sample]) -> Vec<Events> {
    let sensor = outcome.data.dataset.sensor;
    let readings = scored.iter().zip(&outcome.trained.readings).enumerate();
    let of = |right: bool| {
        let own = readings.clone().filter(move |(_, (sample, reading))| {
            (reading.verdict.class.map(usize::from) == Some(sample.class)) == right
        });
        own.take(DRAWN).map(move |(recording, (sample, _))| Events {
            recording,
            right,
            slices: pictures::slices(sensor, &sample.frames),
        })
    };
    of(true).chain(of(false)).collect()
}

/// Their event grids.
fn draw_events(outcome: &Outcome, scored: &[&Sample], events: &[Events]) -> Result<Vec<Drawn>> {
    let Outcome { data: Recordings { dataset, .. }, trained, .. } = outcome;
    let (labels, sensor) = (&dataset.labels, dataset.sensor);
    let draw = |(title, right): (&str, bool)| {
        let own = events.iter().filter(|events| events.right == right);
        let pictures = own.map(|Events { recording, slices, .. }| {
            let (sample, reading) = (scored[*recording], &trained.readings[*recording]);
            let label = reading.verdict.class.map_or("unknown", |c| &labels[usize::from(c)]);
            let title = format!("{}: {} read as {label}", sample.name, labels[sample.class]);
            let svg = pictures::events(sensor, slices, &title)?;
            Ok(pictures::Picture { name: sample.name.clone(), svg })
        });
        Ok(Drawn { title: title.to_owned(), pictures: pictures.collect::<Result<_>>()? })
    };
    [("Read right", true), ("Read wrong", false)].into_iter().map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However long a window is, only silence is measured, and its end.
    #[test]
    fn firing_is_that_of_the_end_of_the_silence() {
        let bytes = include_bytes!("../../../models/poker.safetensors");
        let mut model = Model::from_bytes(bytes).unwrap();
        let mut frames = Frames::default();
        for k in 0..12 {
            (0..200).for_each(|address| frames.add(10 * address + k, 2));
            frames.close(Window { events: 400, ..Window::default() });
        }
        for (window_us, silent, measured) in
            [(100, 500, 10), (1000, 50, 10), (5000, 10, 2), (20_000, 3, 1), (60_000, 1, 1)]
        {
            model.card.window_us = window_us;
            let trace = trace_into_silence(&model, &frames).unwrap();
            let z = trace.variables().iter().find(|v| v.name == "hidden.z").unwrap();
            let rows: Vec<&[f32]> = z.rows.chunks(z.width).collect();
            assert_eq!(rows.len(), 12 + silent);
            let last = rows[rows.len() - measured..].concat();
            let fired = last.iter().filter(|z| **z != 0.0).count();
            let share = fired as f64 / last.len() as f64;
            assert_eq!(after_silence(&model, [&frames].into_iter()).unwrap(), share);
        }
    }
}
