//! From bytes to records: the same answers however bytes are cut and streams are batched, the
//! reference's answers on real recordings, and silence.

mod skip;
#[cfg(any(feature = "kernel-host", feature = "cuda"))]
mod steppers;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use dvs_stream::decide::Readout;
use dvs_stream::engine::{Engine, Outlet, Turn};
use dvs_stream::event::{Event, Polarity};
use dvs_stream::frame::{Frames, SlotFrames};
use dvs_stream::import::norse;
use dvs_stream::ingest::{Ingest, Reading};
use dvs_stream::model::Model;
use dvs_stream::nn::{ChainParameters, Trace};
use dvs_stream::prediction::{Record, Records, Segment, Stream};
use dvs_stream::recording;
use dvs_stream::session::{Rules, Session, windows_of};
use dvs_stream::sink::{Labels, Style, by_name};
use dvs_stream::synth::{self, Pip, PipOptions};
use dvs_stream::window::Windower;
use safetensors::SafeTensors;
use skip::skip;

const DECK: &str = "fixtures/deck.aedat4";

fn model() -> Model {
    Model::from_bytes(&std::fs::read("models/poker.safetensors").unwrap()).unwrap()
}

/// One stream through a session of its own, as JSON Lines.
fn lines(model: &Model, bytes: &[u8], chunk: usize) -> String {
    lines_of(model, Reading::default(), bytes, chunk)
}

fn lines_of(model: &Model, reading: Reading, bytes: &[u8], chunk: usize) -> String {
    let mut session = Session::new(model.network.clone(), Rules::of(model), 1).unwrap();
    let mut records = Records::default();
    let mut ingest = Ingest::new(reading, windows_of(model), None);
    let mut emit = |frames: &mut Frames| {
        let brought = [SlotFrames { slot: 0, frames: std::mem::take(frames) }];
        session.step(&brought, &mut records)
    };
    for bytes in bytes.chunks(chunk) {
        ingest.feed(bytes, &mut emit).unwrap();
    }
    ingest.finish(true, &mut emit).unwrap();
    session.finish(0, ingest.totals(), None, &mut records);
    as_lines(model, &records, 0)
}

fn as_lines(model: &Model, records: &Records, of_slot: usize) -> String {
    let labels = Labels { labels: model.card.labels.clone(), display: Vec::new() };
    let mut sink = (by_name("jsonl").unwrap().make)(&Style { labels, ..Style::default() });
    let stream = Stream { id: 1, name: "stream".to_owned() };
    let mut out = Vec::new();
    for (slot, record, logits) in records.iter(model.network.outputs()) {
        if slot == of_slot {
            sink.record(&stream, record, logits, &mut out);
        }
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn any_chunking_gives_the_same_records() {
    let model = model();
    let bytes = std::fs::read(DECK).unwrap();
    let whole = lines(&model, &bytes, usize::MAX);
    assert!(whole.lines().count() > 100);
    for chunk in [1, 7, 4096] {
        assert_eq!(lines(&model, &bytes, chunk), whole, "in chunks of {chunk}");
    }
}

/// Events 10 µs apart as CSV, every hundredth of a time that none can have; 5000 from 20 ms on.
fn with_malformed() -> Vec<u8> {
    let row = |k: u64| match k % 100 {
        57 => format!("-{k},3,3,1\n"),
        _ => format!("{},{},{},1\n", 10 * k, k % 35, k % 33),
    };
    ["t,x,y,p\n".to_owned()].into_iter().chain((0..7000).map(row)).collect::<String>().into()
}

#[test]
fn events_that_are_none_are_missed_where_they_were() {
    let model = model();
    let bytes = with_malformed();
    let span = Reading { from_us: 5000, to_us: Some(20_000), ..Reading::default() };
    for (reading, malformed) in [(Reading::default(), 70), (span, 15)] {
        let whole = lines_of(&model, reading, &bytes, usize::MAX);
        let records =
            whole.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let lost = |record: &serde_json::Value| record["losses"]["malformed"].as_u64();
        let (mut predictions, mut all) = (Vec::new(), None);
        for record in records {
            match record["type"].as_str().unwrap() {
                "prediction" => predictions.push(lost(&record).unwrap_or(0)),
                "summary" => all = lost(&record),
                _ => (),
            }
        }
        assert_eq!(all, Some(malformed));
        // one a window of 1 ms
        assert!(predictions.iter().all(|n| *n == 1), "{predictions:?}");
        for chunk in [1, 7, 4096] {
            assert_eq!(lines_of(&model, reading, &bytes, chunk), whole, "in chunks of {chunk}");
        }
    }
}

/// Frames of a recording, in batches of at most `batch` windows.
fn batches(model: &Model, events: &[Event], batch: usize) -> Vec<Frames> {
    let mut windower = Windower::new(windows_of(model));
    let mut frames = Frames::default();
    let mut taken = 0;
    let mut all = Frames::default();
    while taken < events.len() {
        taken += windower.push(&events[taken..], &mut frames);
        (0..frames.len()).for_each(|k| all.copy_from(&frames, k));
        frames.clear();
    }
    windower.finish(&mut all);
    let starts = (0..all.len()).step_by(batch);
    starts
        .map(|start| {
            let mut frames = Frames::default();
            let end = all.len().min(start + batch);
            (start..end).for_each(|k| frames.copy_from(&all, k));
            frames
        })
        .collect()
}

fn play(model: &Model, n_slots: usize, streams: Vec<(usize, Vec<Frames>)>) -> Records {
    let mut session = Session::new(model.network.clone(), Rules::of(model), n_slots).unwrap();
    let mut records = Records::default();
    let longest = streams.iter().map(|(_, batches)| batches.len()).max().unwrap();
    for k in 0..longest {
        let brought: Vec<SlotFrames> = streams
            .iter()
            .filter_map(|(slot, batches)| {
                let frames = batches.get(k)?.clone();
                Some(SlotFrames { slot: *slot, frames })
            })
            .collect();
        session.step(&brought, &mut records).unwrap();
    }
    for (slot, _) in &streams {
        session.finish(*slot, Default::default(), None, &mut records);
    }
    records
}

/// All records of an engine.
#[derive(Default)]
struct Told(Vec<Record>);

impl Outlet for Told {
    fn record(&mut self, _: &Stream, record: &Record, _: &[f32], _: bool) {
        self.0.push(record.clone());
    }

    fn flush(&mut self) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

#[test]
fn a_stream_whose_feed_is_lost_ends_after_its_windows() {
    let model = model();
    let events = synth::deck(&synth::deal(2, 0), 0, 5000..=50_000, &options()).events;
    let session = Session::new(model.network.clone(), Rules::of(&model), 1).unwrap();
    let (mut engine, port) = Engine::new(session, model.card.window_us);
    let mut feed = port.open("lost").unwrap();
    for mut batch in batches(&model, &events, 4).into_iter().take(3) {
        feed.send(&mut batch).unwrap();
    }
    drop(feed);
    let mut told = Told::default();
    while engine.turn(&mut told).unwrap() == Turn::More {}
    let n_predictions = told.0.iter().filter(|r| matches!(r, Record::Prediction(_))).count();
    assert_eq!(n_predictions, 12);
    let last = &told.0[told.0.len() - 2..];
    assert!(matches!(last, [Record::Error { .. }, Record::Summary(_)]), "{last:?}");
}

#[test]
fn a_stream_does_not_feel_its_neighbours() {
    let model = model();
    let decks: Vec<Vec<Event>> = (0..4)
        .map(|seed| synth::deck(&synth::deal(3, seed), seed, 5000..=50_000, &options()).events)
        .collect();
    let alone =
        |k: usize| as_lines(&model, &play(&model, 1, vec![(0, batches(&model, &decks[k], 1))]), 0);
    let sizes = [1, 3, 16, 256];
    let together = (0..4).map(|k| (3 - k, batches(&model, &decks[k], sizes[k]))).collect();
    let together = play(&model, 4, together);
    for k in 0..4 {
        assert_eq!(as_lines(&model, &together, 3 - k), alone(k), "deck {k}");
    }
}

fn options() -> PipOptions {
    PipOptions::default()
}

fn segments(records: &Records, n_classes: usize) -> Vec<Segment> {
    let segment = |(_, record, _): (usize, &Record, &[f32])| match record {
        Record::Segment(segment) => Some(*segment),
        _ => None,
    };
    records.iter(n_classes).filter_map(segment).collect()
}

/// A pip, 100 ms with `strays` events a ms, and another pip.
fn two_pips(first: Pip, second: Pip, seed: u64, strays: f64) -> (Vec<Event>, [(u64, u64); 2]) {
    let options = PipOptions { gap_noise_per_ms: strays, ..options() };
    let deck = synth::deck(&[first, second], seed, 100_000..=100_000, &options);
    let span = |k: usize| (deck.truth[k].from_us, deck.truth[k].to_us);
    let spans = [span(0), span(1)];
    (deck.events, spans)
}

#[test]
fn silence_and_stray_events_name_nothing() {
    let model = model();
    let n_classes = model.network.outputs();
    // one stray event in a hundred of a pip's 180 a ms
    let mut right = 0;
    for strays in [0.0, 1.8] {
        for seed in 0..10 {
            let (events, [first, second]) = two_pips(Pip::Heart, Pip::Spade, seed, strays);
            let records = play(&model, 1, vec![(0, batches(&model, &events, 64))]);
            let segments = segments(&records, n_classes);
            let named: Vec<_> = segments.iter().filter(|s| s.verdict.class.is_some()).collect();
            let what = format!("seed {seed}, {strays} stray events a ms: {segments:?}");
            assert_eq!(named.len(), 2, "{what}");
            for (segment, (from_us, to_us), class) in [(named[0], first, 2), (named[1], second, 3)]
            {
                right += usize::from(segment.verdict.class == Some(class));
                assert!(segment.from_us.abs_diff(from_us) <= 3000, "{what}");
                assert!(segment.to_us.abs_diff(to_us) <= 4000, "{what}");
            }
            for (_, record, _) in records.iter(n_classes) {
                let Record::Prediction(prediction) = record else { continue };
                let in_gap = (first.1 + 5000..second.0).contains(&prediction.t_us);
                assert!(!(in_gap && prediction.verdict.class.is_some()), "{prediction:?}, {what}");
            }
        }
    }
    assert_eq!(right, 40, "pips read right");
}

/// Real recordings, which the shipped model has not seen, one after another on one clock.
#[test]
fn decks_of_real_pips_are_read() {
    let Some(data) = shared("data/poker-dvs") else { return };
    let model = model();
    let (mut shown, mut right, mut named) = (0, 0, 0);
    for (deck, gap_us, strays_per_ms) in
        [(0, 5_000, 0), (1, 5_000, 0), (2, 5_000, 1), (3, 100_000, 0), (4, 100_000, 2)]
    {
        let (events, classes) = real_deck(&data, deck, gap_us, strays_per_ms);
        let records = play(&model, 1, vec![(0, batches(&model, &events, 64))]);
        let segments = segments(&records, model.network.outputs());
        let read: Vec<_> = segments.iter().filter_map(|s| s.verdict.class).collect();
        let pairs = read.iter().zip(&classes);
        shown += classes.len();
        named += read.len();
        right += pairs.filter(|(read, shown)| usize::from(**read) == **shown).count();
    }
    assert_eq!((shown, named), (5 * 68, 5 * 68), "a named segment for each pip, none besides");
    assert!(right * 100 >= shown * 95, "{right} of {shown} pips read right");
}

/// All recordings in an order that changes with `deck`, with gaps in which stray events may fall;
/// and their classes.
fn real_deck(
    data: &Path,
    deck: usize,
    gap_us: u64,
    strays_per_ms: u64,
) -> (Vec<Event>, Vec<usize>) {
    let mut recordings = Vec::new();
    for (class, label) in ["cl", "di", "he", "sp"].into_iter().enumerate() {
        let folder = std::fs::read_dir(data.join(label)).unwrap();
        recordings.extend(folder.map(|entry| (entry.unwrap().path(), class)));
    }
    recordings.sort();
    let n = recordings.len();
    let (mut all, mut classes, mut now_us) = (Vec::new(), Vec::new(), 0);
    for k in 0..n {
        // 68 recordings; these steps meet each of them once
        let (path, class) = &recordings[(k * [29, 31, 35, 37, 41][deck] + deck) % n];
        classes.push(*class);
        let mut events = Vec::new();
        let (_, read) =
            recording::read(path, None, &Default::default(), &mut |_, chunk: &[Event]| {
                events.extend_from_slice(chunk);
                Ok(())
            });
        read.unwrap();
        let first_us = events[0].t_us;
        all.extend(events.iter().map(|e| Event { t_us: now_us + e.t_us - first_us, ..*e }));
        let end_us = all[all.len() - 1].t_us;
        now_us = end_us + gap_us;
        let strays = strays_per_ms * gap_us / 1000;
        all.extend((1..strays).map(|stray| Event {
            t_us: end_us + stray * gap_us / strays,
            x: (7 * stray % 31) as u16,
            y: (11 * stray % 31) as u16,
            polarity: Polarity::from_on(stray % 2 == 0),
        }));
    }
    (all, classes)
}

#[test]
fn in_a_gap_nothing_is_stepped() {
    let model = model();
    let (events, _) = two_pips(Pip::Club, Pip::Diamond, 1, 0.0);
    let records = play(&model, 1, vec![(0, batches(&model, &events, 64))]);
    let quiet_windows = records
        .iter(model.network.outputs())
        .filter(|(_, record, _)| matches!(record, Record::Prediction(p) if p.events == 0))
        .count();
    assert!(quiet_windows <= 3, "{quiet_windows} windows without events were stepped");
}

#[test]
fn a_restart_of_the_clock_ends_the_segment() {
    let model = model();
    let pip = synth::pip(Pip::Spade, 3, &options());
    let later = pip.iter().map(|event| Event { t_us: event.t_us + 1_000_000_000, ..*event });
    let late = (0..1000).map(|k| Event { t_us: k, x: 1, y: 1, polarity: Polarity::On });
    let events: Vec<Event> = later.chain(late).chain(pip.iter().copied()).collect();
    let records = play(&model, 1, vec![(0, batches(&model, &events, 64))]);
    let segments = segments(&records, model.network.outputs());
    assert_eq!(segments.len(), 2);
    let [first, second] = [&segments[0], &segments[1]];
    assert_eq!(first.verdict, second.verdict, "a fresh network answers alike");
    assert_eq!((first.from_us, second.from_us), (1_000_000_000, 0));
}

fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("DVS_SHARED").map_or(PathBuf::from("../shared"), PathBuf::from);
    let path = root.join(path);
    if !path.exists() {
        skip(&format!("{} is not there", path.display()));
        return None;
    }
    Some(path)
}

/// Norse's own readout and spikes, window by window, on 20 real recordings.
#[test]
fn real_recordings_read_as_norse_reads_them() {
    let Some(golden) = Golden::open() else { return };
    assert_eq!(golden.check("walk", &norses()).len(), 20);
}

/// By the GPU's kernels too, and every variable of every window is the walk's, bit for bit.
#[cfg(any(feature = "kernel-host", feature = "cuda"))]
#[test]
fn kernels_read_real_recordings_as_norse_does() {
    let Some(golden) = Golden::open() else { return };
    let bits = |value: &f32| value.to_bits();
    let model = norses();
    let walked = golden.check("walk", &model);
    for (name, network) in steppers::steppers(&model.network, 99 << 10, 3) {
        let kernels = golden.check(&name, &Model { network: network.into(), ..model.clone() });
        for (ours, walked) in kernels.iter().zip(&walked) {
            for (ours, walked) in ours.variables().iter().zip(walked.variables()) {
                let same = ours.rows.iter().map(bits).eq(walked.rows.iter().map(bits));
                assert!(same, "{name}: another {}", ours.name);
            }
        }
    }
}

/// Largest difference of a logit; Norse's float32 and float64 runs differ by 6e-7.
const LOGIT_TOLERANCE: f32 = 5e-6;

/// What Norse read in the recordings that are shared.
struct Golden {
    facts: serde_json::Value,
    vectors: Vec<u8>,
    data: PathBuf,
}

impl Golden {
    fn open() -> Option<Golden> {
        let (golden, data) = (shared("golden")?, shared("data/poker-dvs")?);
        let facts = std::fs::read_to_string(golden.join("poker_norse.json")).unwrap();
        let facts = serde_json::from_str(&facts).unwrap();
        let vectors = std::fs::read(golden.join("poker_norse.safetensors")).unwrap();
        Some(Golden { facts, vectors, data })
    }

    /// All recordings by this model, and what its network did in each.
    fn check(&self, what: &str, model: &Model) -> Vec<Trace> {
        let vectors = SafeTensors::deserialize(&self.vectors).unwrap();
        let recordings = self.facts["recordings"].as_array().unwrap();
        let checked = recordings.iter().map(|facts| {
            let file = facts["file"].as_str().unwrap();
            let path = self.data.join(file.trim_start_matches("poker-dvs/"));
            check_recording(what, model, &path, facts, &vectors)
        });
        let traces: Vec<_> = checked.collect();
        let windows = traces.iter().map(|trace| trace.rows("readout.v").unwrap().len() / 4);
        assert_eq!(windows.sum::<usize>(), 307, "{what}");
        traces
    }
}

fn check_recording(
    what: &str,
    model: &Model,
    path: &Path,
    facts: &serde_json::Value,
    vectors: &SafeTensors<'_>,
) -> Trace {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let name = format!("{what}: {stem}");
    let values = |suffix: &str| -> Vec<f32> {
        let tensor = vectors.tensor(&format!("{stem}.{suffix}")).unwrap();
        match tensor.dtype() {
            safetensors::Dtype::F32 => {
                tensor.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
            }
            safetensors::Dtype::U8 => tensor.data().iter().map(|z| f32::from(*z)).collect(),
            dtype => panic!("{dtype:?}"),
        }
    };
    let (records, trace) = replay_traced(model, path, Readout::Last);
    let logits: Vec<f32> = records.iter(4).flat_map(|(_, _, logits)| logits.to_vec()).collect();
    let expected = values("logits");
    assert_eq!(logits.len(), expected.len(), "{name}");
    for (k, (ours, norses)) in logits.iter().zip(&expected).enumerate() {
        let window = k / 4;
        assert!(
            (ours - norses).abs() <= LOGIT_TOLERANCE,
            "{name}, window {window}: {ours} {norses}"
        );
    }
    assert!(trace.rows("hidden.z").unwrap() == values("spikes"), "{name}: a spike differs");
    let (records, _) = replay_traced(model, path, Readout::Max);
    let label = segments(&records, 4)[0].verdict.class.map(u64::from);
    assert_eq!(label, facts["label_max_all"].as_u64(), "{name}");
    assert_eq!(facts["windows"].as_u64(), Some(logits.len() as u64 / 4), "{name}");
    trace
}

/// The network that Norse trained, with the shipped model's rules.
fn norses() -> Model {
    let weights = shared("golden/poker_norse_weights.safetensors").unwrap();
    let imported = norse(&weights, &ChainParameters::default()).unwrap();
    Model::new(model().card, imported.layers).unwrap()
}

fn replay_traced(model: &Model, path: &Path, readout: Readout) -> (Records, Trace) {
    let rules = Rules { readout, ..Rules::of(model) };
    let mut session = Session::new(model.network.clone(), rules, 1).unwrap();
    session.start_trace();
    let mut records = Records::default();
    let mut ingest = Ingest::new(Reading::default(), windows_of(model), None);
    let mut emit = |frames: &mut Frames| {
        let brought = [SlotFrames { slot: 0, frames: std::mem::take(frames) }];
        session.step(&brought, &mut records)
    };
    ingest.feed(&std::fs::read(path).unwrap(), &mut emit).unwrap();
    ingest.finish(true, &mut emit).unwrap();
    session.finish(0, ingest.totals(), None, &mut records);
    (records, session.take_trace().unwrap())
}
