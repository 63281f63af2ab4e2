//! Events to frames, and events to JSON Lines: the stages between decoder and output, on one
//! thread, over a deck of synthetic pips.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dvs_stream::codec::{EncoderOptions, by_name};
use dvs_stream::event::Event;
use dvs_stream::frame::{Frames, SlotFrames};
use dvs_stream::ingest::{Ingest, Reading};
use dvs_stream::model::Model;
use dvs_stream::prediction::{Records, Stream};
use dvs_stream::session::{Rules, Session};
use dvs_stream::sink::{Labels, Style, by_name as sink};
use dvs_stream::synth::{SENSOR, deal, deck};
use dvs_stream::window::{WindowConfig, Windower};

fn events() -> Vec<Event> {
    deck(&deal(100, 1), 1, 5_000..=5_000, &Default::default()).events
}

fn config() -> WindowConfig {
    let (origin, partial) = Default::default();
    WindowConfig { sensor: SENSOR, window_us: 1000, gap_us: 3000, origin, partial }
}

fn window(criterion: &mut Criterion) {
    let events = events();
    let mut group = criterion.benchmark_group("window");
    group.throughput(Throughput::Elements(events.len() as u64));
    let mut frames = Frames::default();
    group.bench_function("push", |bencher| {
        bencher.iter(|| {
            let mut windower = Windower::new(config());
            let mut taken = 0;
            while taken < events.len() {
                taken += windower.push(&events[taken..], &mut frames);
                black_box(&frames);
                frames.clear();
            }
        });
    });
    group.finish();
}

fn end_to_end(criterion: &mut Criterion) {
    let events = events();
    let format = by_name("aedat2").expect("a format");
    let options = EncoderOptions { sensor: Some(SENSOR), compression: Default::default() };
    let mut encoder = format.encoder.expect("an encoder")(&options);
    let mut bytes = Vec::new();
    encoder.encode(&events, &mut bytes).expect("events that fit");
    let model = Model::from_bytes(include_bytes!("../models/poker.safetensors")).expect("a model");
    let labels = Labels { labels: model.card.labels.clone(), display: Vec::new() };
    let style = Style { labels, ..Style::default() };
    let mut jsonl = (sink("jsonl").expect("a sink").make)(&style);
    let deck = Stream { id: 1, name: "deck".to_owned() };
    let mut group = criterion.benchmark_group("end_to_end");
    group.throughput(Throughput::Elements(events.len() as u64));
    group.bench_function("aedat2_to_jsonl", |bencher| {
        let mut session = Session::new(model.network.clone(), Rules::of(&model), 1).expect("state");
        let (mut records, mut lines) = (Records::default(), Vec::new());
        let mut brought = [SlotFrames::default()];
        bencher.iter(|| {
            let mut ingest = Ingest::new(Reading::default(), config(), None);
            let mut emit = |frames: &mut Frames| {
                std::mem::swap(&mut brought[0].frames, frames);
                session.step(&brought, &mut records)?;
                for (_, record, logits) in records.iter(model.network.outputs()) {
                    jsonl.record(&deck, record, logits, &mut lines);
                }
                black_box(&lines);
                brought[0].frames.clear();
                records.clear();
                lines.clear();
                Ok(())
            };
            for chunk in bytes.chunks(128 << 10) {
                ingest.feed(chunk, &mut emit).expect("good bytes");
            }
            ingest.finish(true, &mut emit).expect("a good end");
            session.finish(0, ingest.totals(), None, &mut Records::default());
        });
    });
    group.finish();
}

criterion_group!(benches, window, end_to_end);
criterion_main!(benches);
