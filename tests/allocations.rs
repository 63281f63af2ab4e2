//! What a running stream allocates: once a call of the network, Candle's own, however many windows
//! and slots it steps, and nothing an event or a window on the whole way from bytes to lines.
//!
//! A test binary of its own, for it counts every allocation, each thread its own: the harness
//! allocates beside.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;

use dvs_stream::codec::{self, EncoderOptions};
use dvs_stream::frame::{Frames, SlotFrames, Window};
use dvs_stream::ingest::{Ingest, Reading};
use dvs_stream::model::Model;
use dvs_stream::nn::{LayerSpec, LayerWeights, Network, PlannedStep};
use dvs_stream::prediction::{Records, Stream};
use dvs_stream::session::{Rules, Session};
use dvs_stream::sink::{Labels, Style, by_name};
use dvs_stream::synth::{SENSOR, deal, deck};
use dvs_stream::window::WindowConfig;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn allocations() -> usize {
    ALLOCATIONS.get()
}

fn count_one() {
    // A thread that ends may allocate after its counter is gone.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

#[allow(unsafe_code)]
// SAFETY: every call goes to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count_one();
        unsafe { System.realloc(memory, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_running_stream_allocates_at_most_once_an_engine_call() {
    let bytes = recording();
    let model = Model::from_bytes(include_bytes!("../models/poker.safetensors")).unwrap();
    let (origin, partial) = Default::default();
    let config = WindowConfig { sensor: SENSOR, window_us: 1000, gap_us: 3000, origin, partial };
    let mut session = Session::new(model.network.clone(), Rules::of(&model), 1).unwrap();
    let mut ingest = Ingest::new(Reading::default(), config, None);
    let labels = Labels { labels: model.card.labels.clone(), display: Vec::new() };
    let mut sink = (by_name("jsonl").unwrap().make)(&Style { labels, ..Style::default() });
    let deck = Stream { id: 1, name: "deck".to_owned() };
    let (mut records, mut lines, calls) = (Records::default(), Vec::new(), Cell::new(0));
    let mut brought = [SlotFrames::default()];
    let mut emit = |frames: &mut Frames| {
        calls.set(calls.get() + 1);
        std::mem::swap(&mut brought[0].frames, frames);
        session.step(&brought, &mut records)?;
        for (_, record, logits) in records.iter(4) {
            sink.record(&deck, record, logits, &mut lines);
        }
        brought[0].frames.clear();
        records.clear();
        lines.clear();
        Ok(())
    };
    let (warm_up, rest) = bytes.split_at(bytes.len() / 2);
    for chunk in warm_up.chunks(64 << 10) {
        ingest.feed(chunk, &mut emit).unwrap();
    }
    calls.set(0);
    let before = allocations();
    for chunk in rest.chunks(60 << 10) {
        ingest.feed(chunk, &mut emit).unwrap();
    }
    let allocated = allocations() - before;
    let (calls, events) = (calls.get(), rest.len() / 8);
    assert!(calls > 10 && events > 50_000, "{calls} calls, {events} events");
    // A batch that is the greatest so far may still grow a buffer; that dies out.
    assert!(allocated <= calls + 16, "{allocated} allocations in {calls} calls");
}

/// A deck of pips of one rhythm, as AEDAT 2.0.
fn recording() -> Vec<u8> {
    let events = deck(&deal(60, 2), 2, 5_000..=5_000, &Default::default()).events;
    let options = EncoderOptions { sensor: Some(SENSOR), compression: Default::default() };
    let mut encoder = codec::by_name("aedat2").unwrap().encoder.unwrap()(&options);
    let mut bytes = Vec::new();
    encoder.encode(&events, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_rollout_allocates_at_most_once() {
    let network = Network::new(layers(), 1e-3).unwrap();
    for (n_slots, n_windows) in [(1, 1), (1, 64), (8, 1), (8, 64)] {
        let slots: Vec<_> =
            (0..n_slots).map(|slot| SlotFrames { slot, frames: frames(n_windows) }).collect();
        let plan: Vec<_> = (0..n_windows as u32)
            .flat_map(|window| {
                (0..n_slots as u32).map(move |slot_index| PlannedStep {
                    slot_index,
                    window,
                    reset: window % 16 == 3,
                })
            })
            .collect();
        let mut state = network.zero_state(n_slots).unwrap();
        let mut out = Vec::with_capacity(plan.len() * network.outputs());
        let mut trace = network.trace();
        network.rollout(&mut state, &slots, &plan, &mut out, Some(&mut trace)).unwrap();
        trace.clear();
        for trace in [None, Some(&mut trace)] {
            out.clear();
            let traced = trace.is_some();
            let before = allocations();
            network.rollout(&mut state, &slots, &plan, &mut out, trace).unwrap();
            let allocated = allocations() - before;
            assert!(
                allocated <= 1,
                "{allocated} allocations in a call of {n_slots} slots and {n_windows} windows, \
                 traced: {traced}"
            );
            assert_eq!(out.len(), plan.len() * network.outputs());
        }
    }
}

fn layers() -> Vec<LayerWeights> {
    let layer = |cell: &str, inputs: usize, neurons: usize, recurrent: bool| LayerWeights {
        spec: LayerSpec {
            cell: cell.to_owned(),
            inputs,
            neurons,
            recurrent,
            parameters: BTreeMap::new(),
        },
        input: (0..inputs * neurons).map(|k| (k % 13) as f32 / 6.5 - 0.8).collect(),
        recurrent: recurrent
            .then(|| (0..neurons * neurons).map(|k| (k % 7) as f32 / 14.0 - 0.2).collect()),
    };
    vec![layer("lif", 200, 100, true), layer("lif", 100, 30, false), layer("li", 30, 4, false)]
}

fn frames(n_windows: usize) -> Frames {
    let mut frames = Frames::default();
    for window in 0..n_windows as u32 {
        (0..200)
            .filter(|address| (address + window) % 5 == 0)
            .for_each(|address| frames.add(address, 1));
        frames.close(Window::default());
    }
    frames
}
