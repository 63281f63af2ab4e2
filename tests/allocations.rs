//! What a rollout allocates: once a call, Candle's own, however many windows and slots it steps.
//!
//! A test binary of its own, for it counts every allocation of the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use dvs_stream::frame::{Frames, SlotFrames, Window};
use dvs_stream::nn::{LayerSpec, LayerWeights, Network, PlannedStep};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code)]
// SAFETY: every call goes to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(memory, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            network.rollout(&mut state, &slots, &plan, &mut out, trace).unwrap();
            let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
            assert!(
                allocations <= 1,
                "{allocations} allocations in a call of {n_slots} slots and {n_windows} windows, \
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
