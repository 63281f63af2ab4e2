//! Random chains of cells: the fast path against a scalar reference bit for bit, against the plain
//! tensors within rounding, and against itself however it is called.

#[cfg(feature = "cuda")]
mod skip;
#[cfg(any(feature = "kernel-host", feature = "cuda"))]
mod steppers;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use dvs_stream::frame::{Frames, SlotFrames, Window};
use dvs_stream::nn::{
    CELLS, LayerSpec, LayerWeights, Level, Network, Parameter, ParameterKind, PlainState,
    PlannedStep,
};
use proptest::prelude::*;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const DT_S: f64 = 1e-3;

/// A network, what its slots see, and the seed of both.
#[derive(Clone, Debug)]
struct Case {
    inputs: usize,
    /// Cell, neurons, recurrent.
    layers: Vec<(usize, usize, bool)>,
    n_slots: usize,
    n_windows: usize,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let layer = (0..CELLS.len(), prop_oneof![3 => 1..40usize, 1 => 100..300usize], any::<bool>());
    let layers = proptest::collection::vec(layer, 1..5);
    (1..80usize, layers, 1..4usize, 1..9usize, any::<u64>()).prop_map(
        |(inputs, layers, n_slots, n_windows, seed)| Case {
            inputs,
            layers,
            n_slots,
            n_windows,
            seed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_level_equals_the_reference(case in cases()) {
        check_against_reference(&case);
    }

    #[test]
    fn calls_and_batches_change_nothing(case in cases(), calls in 1..4usize) {
        check_batching(&case, calls);
    }

    #[test]
    fn plain_tensors_agree(case in cases()) {
        check_plain(&case);
    }
}

/// The GPU's kernel, compiled for the CPU or on a GPU, against the CPU's own walk, bit for bit.
#[cfg(any(feature = "kernel-host", feature = "cuda"))]
mod kernel {
    use super::*;
    use crate::steppers::steppers;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

        #[test]
        fn equals_the_walk(
            case in cases(),
            shared_bytes in prop_oneof![Just(16 << 10), Just(48 << 10), Just(227 << 10)],
            blocks in 1..4usize,
            kept in any::<u64>(),
        ) {
            check(&case, shared_bytes, blocks, kept);
        }
    }

    /// More than one word of spikes, more neurons than threads, and each form of the weights.
    #[test]
    fn equals_the_walk_in_every_form() {
        let cell = |name| CELLS.iter().position(|kind| kind.name == name).unwrap();
        let (lif, li, linear) = (cell("lif"), cell("li"), cell("linear"));
        for (inputs, layers) in [
            (50, vec![(lif, 100, true), (li, 4, false)]),
            (50, vec![(lif, 300, true), (lif, 33, true), (li, 4, false)]),
            (50, vec![(li, 20, true), (lif, 1100, true), (linear, 1030, true)]),
            (50, vec![(li, 20, false)]),
            // addresses that do not share a word with their counts
            (70_000, vec![(lif, 3, true), (li, 2, false)]),
        ] {
            for shared_bytes in [24 << 10, 227 << 10] {
                let layers = layers.clone();
                let case = Case { inputs, layers, n_slots: 5, n_windows: 7, seed: 11 };
                check(&case, shared_bytes, 2, u64::MAX);
                check(&case, shared_bytes, 2, 0x5a5a_1234_5678_9abc);
            }
        }
    }

    #[cfg(feature = "kernel-host")]
    #[test]
    fn a_block_without_room_for_the_spikes_is_an_error() {
        let case =
            Case { inputs: 2, layers: vec![(0, 4000, false)], n_slots: 1, n_windows: 1, seed: 1 };
        let choice = dvs_stream::nn::KernelOnHost {
            reversed: false,
            shared_bytes: 1024,
            blocks: 1,
            launch_words: 1,
        };
        let device = dvs_stream::nn::Device::kernels_on_host(choice);
        let error = case.network().0.on(&device).expect_err("no room").to_string();
        assert!(error.contains("spikes"), "{error}");
    }

    /// Steps those windows of the plan whose bits are set in `kept`: slots bring different numbers
    /// of windows, some none.
    fn check(case: &Case, shared_bytes: usize, blocks: usize, kept: u64) {
        let slots = case.slots();
        let plan = case.plan().into_iter().enumerate();
        let plan: Vec<_> =
            plan.filter(|(k, _)| kept >> (k % 64) & 1 == 1).map(|(_, s)| s).collect();
        let run = |network: &Network| {
            let (mut state, mut trace) =
                (network.zero_state(case.n_slots).unwrap(), network.trace());
            let mut out = vec![7.0];
            for part in plan.chunks(plan.len().div_ceil(2).max(1)) {
                network.rollout(&mut state, &slots, part, &mut out, Some(&mut trace)).unwrap();
            }
            let rows: Vec<_> = (0..case.n_slots).map(|k| bits(&state.row(k).unwrap())).collect();
            let traced: Vec<_> = trace.variables().iter().map(|v| bits(&v.rows)).collect();
            (bits(&out), rows, traced)
        };
        let expected = run(&case.network().0);
        for (name, network) in steppers(&case.network().0, shared_bytes, blocks) {
            assert_eq!(run(&network), expected, "{name}");
        }
    }
}

/// Spikes and a dense output between the layers, and both recurrences, whatever proptest draws.
#[test]
fn two_hidden_layers_one_of_them_not_recurrent() {
    let cell = |name| CELLS.iter().position(|kind| kind.name == name).unwrap();
    let (lif, li, linear) = (cell("lif"), cell("li"), cell("linear"));
    for layers in [
        vec![(lif, 100, true), (lif, 33, false), (li, 4, false)],
        vec![(lif, 37, false), (lif, 100, true), (li, 4, false)],
        vec![(li, 20, false), (lif, 30, true), (linear, 5, false)],
        vec![(linear, 20, true), (li, 30, true), (lif, 5, false)],
    ] {
        let case = Case { inputs: 50, layers, n_slots: 3, n_windows: 30, seed: 5 };
        let neurons = case.layers.iter().filter(|layer| layer.0 == lif).map(|layer| layer.1);
        let rate = check_against_reference(&case) / (neurons.sum::<usize>() * 3 * 30) as f32;
        assert!((0.05..0.8).contains(&rate), "{rate} spikes a neuron and window: a poor test");
        check_batching(&case, 3);
        check_plain(&case);
    }
}

#[test]
fn weights_come_out_as_they_went_in() {
    let case = Case {
        inputs: 9,
        layers: vec![(0, 20, true), (1, 3, false)],
        n_slots: 1,
        n_windows: 1,
        seed: 3,
    };
    let (network, layers) = case.network();
    let out = network.weights().unwrap();
    for (ours, given) in out.iter().zip(&layers) {
        assert_eq!((&ours.input, &ours.recurrent), (&given.input, &given.recurrent));
    }
    assert_eq!(Network::new(out.clone(), DT_S).unwrap().weights().unwrap(), out);
}

/// Each way to be wrong, and a word of its error.
#[test]
fn bad_layers_are_refused() {
    let hidden = || layer("lif", 8, 5, true);
    let readout = || layer("li", 5, 3, false);
    let changed = |change: fn(&mut LayerWeights)| {
        let mut layer = hidden();
        change(&mut layer);
        vec![layer, readout()]
    };
    let with = |name: &'static str, value: f64| {
        let mut layer = hidden();
        layer.spec.parameters.insert(name.to_owned(), value);
        vec![layer, readout()]
    };
    let cases: Vec<(Vec<LayerWeights>, f64, &str)> = vec![
        (vec![], DT_S, "0 layers"),
        (vec![layer("li", 3, 3, false); 17], DT_S, "17 layers"),
        (vec![layer("gru", 8, 5, false)], DT_S, "unknown cell \"gru\"; known are lif, li, linear"),
        (vec![hidden(), layer("li", 6, 3, false)], DT_S, "layer 1 has 6 inputs"),
        (vec![layer("li", 0, 3, false)], DT_S, "0 inputs"),
        (vec![layer("li", 3, 0, false)], DT_S, "0 neurons"),
        (vec![layer("li", 1, 65_537, false)], DT_S, "65537 neurons"),
        (
            changed(|l| l.input[7] = f32::NAN),
            DT_S,
            "layer 0: input weights: value 7 (row 0, column 7) is NaN",
        ),
        (
            changed(|l| l.recurrent.as_mut().unwrap()[24] = f32::INFINITY),
            DT_S,
            "(row 4, column 4) is inf",
        ),
        (changed(|l| l.input.truncate(39)), DT_S, "39 values, where 5 × 8"),
        (changed(|l| l.spec.inputs = usize::MAX / 2), DT_S, "inputs: 1 to"),
        (changed(|l| l.recurrent = None), DT_S, "are missing"),
        (changed(|l| l.spec.recurrent = false), DT_S, "not recurrent"),
        (with("v_thh", 0.3), DT_S, "no parameter \"v_thh\"; it has tau_mem_inv, tau_syn_inv"),
        (with("v_th", f64::NAN), DT_S, "not a finite number"),
        (with("v_leak", 1e39), DT_S, "not a finite number"),
        (with("tau_mem_inv", 0.0), DT_S, "not a positive rate"),
        (with("tau_syn_inv", 2001.0), DT_S, "at most 2 in one window"),
        (with("alpha", -1.0), DT_S, "not a positive number"),
        (vec![hidden()], 0.0, "a window of 0 s"),
        (vec![hidden()], f64::NAN, "a window of NaN s"),
        (vec![hidden()], 61.0, "a window of 61 s"),
    ];
    for (layers, dt_s, expected) in cases {
        let error = Network::new(layers, dt_s).expect_err(expected).to_string();
        assert!(error.contains(expected), "{error:?} says nothing of {expected:?}");
    }
    Network::new(vec![hidden(), readout()], DT_S).expect("these layers are right");
}

/// Refused before anything is stepped.
#[test]
fn bad_plans_are_refused() {
    let network = Network::new(vec![layer("lif", 8, 5, true)], DT_S).unwrap();
    let other = Network::new(vec![layer("lif", 8, 6, true)], DT_S).unwrap();
    let frames = |address| {
        let mut frames = Frames::default();
        frames.add(address, 1);
        frames.close(Window::default());
        frames
    };
    let good = PlannedStep { slot_index: 0, window: 0, reset: false };
    for (slot, address, bad, own, expected) in [
        (0, 7, PlannedStep { slot_index: 1, ..good }, true, "no slot 1 is given"),
        (0, 7, PlannedStep { window: 1, ..good }, true, "window 1 of slot 0 does not exist"),
        (2, 7, good, true, "window 0 of slot 2 does not exist"),
        (0, 8, good, true, "address 8, but the network has 8 inputs"),
        (0, 7, good, false, "another network"),
    ] {
        let mut state = if own { &network } else { &other }.zero_state(2).unwrap();
        let slots = [SlotFrames { slot, frames: frames(address) }];
        let mut out = Vec::new();
        let plan = if slot == 0 && address == 7 && own { vec![good, bad] } else { vec![bad] };
        let refused = network.rollout(&mut state, &slots, &plan, &mut out, None);
        let error = refused.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error:?} says nothing of {expected:?}");
        assert!(out.is_empty() && state.row(0).unwrap().iter().all(|value| *value == 0.0));
    }
    let mut state = network.zero_state(2).unwrap();
    assert!(state.set_row(0, &[0.0; 14]).is_err() && state.set_row(2, &[0.0; 15]).is_err());
    assert!(state.reset(2).is_err() && state.row(2).is_err());
    assert!(network.zero_state(usize::MAX / 8).is_err());
}

#[test]
fn a_layer_reads_as_json() {
    let json = r#"{"cell":"lif","inputs":2450,"neurons":100,"recurrent":true,"v_th":0.3}"#;
    let spec: LayerSpec = serde_json::from_str(json).unwrap();
    assert_eq!(spec.parameters, BTreeMap::from([("v_th".to_owned(), 0.3)]));
    assert_eq!(serde_json::to_string(&spec).unwrap(), json);
}

fn layer(cell: &str, inputs: usize, neurons: usize, recurrent: bool) -> LayerWeights {
    LayerWeights {
        spec: LayerSpec {
            cell: cell.to_owned(),
            inputs,
            neurons,
            recurrent,
            parameters: BTreeMap::new(),
        },
        input: vec![0.5; inputs * neurons],
        recurrent: recurrent.then(|| vec![0.1; neurons * neurons]),
    }
}

impl Case {
    fn network(&self) -> (Network, Vec<LayerWeights>) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut inputs = self.inputs;
        let layers = self.layers.iter().map(|&(cell, neurons, recurrent)| {
            let mut parameters = BTreeMap::new();
            for Parameter { name, default, kind } in CELLS[cell].parameters {
                let value = match kind {
                    ParameterKind::Level => default + random.random_range(-0.4..0.4),
                    _ => default * random.random_range(0.5..1.5),
                };
                if random.random_bool(0.5) {
                    parameters.insert((*name).to_owned(), value);
                }
            }
            let layer = LayerWeights {
                spec: LayerSpec {
                    cell: CELLS[cell].name.to_owned(),
                    inputs,
                    neurons,
                    recurrent,
                    parameters,
                },
                input: weights(&mut random, neurons, inputs),
                recurrent: recurrent.then(|| weights(&mut random, neurons, neurons)),
            };
            inputs = neurons;
            layer
        });
        let layers: Vec<_> = layers.collect();
        (Network::new(layers.clone(), DT_S).unwrap(), layers)
    }

    fn slots(&self) -> Vec<SlotFrames> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 1);
        let mut frames = |slot| {
            let mut frames = Frames::default();
            for _ in 0..self.n_windows {
                let density = random.random::<f64>();
                for address in 0..self.inputs as u32 {
                    if random.random_bool(density) {
                        frames.add(address, random.random_range(1..4));
                    }
                }
                frames.close(Window::default());
            }
            SlotFrames { slot, frames }
        };
        (0..self.n_slots).map(&mut frames).collect()
    }

    /// Window by window, in each all slots; one reset in the middle of the last slot.
    fn plan(&self) -> Vec<PlannedStep> {
        let last = self.n_slots as u32 - 1;
        let steps = (0..self.n_windows as u32).flat_map(|window| {
            (0..=last).map(move |slot_index| PlannedStep {
                slot_index,
                window,
                reset: slot_index == last && window == 3,
            })
        });
        steps.collect()
    }
}

/// Numbers of both signs whose sums stay of order 1.
fn weights(random: &mut impl Rng, neurons: usize, inputs: usize) -> Vec<f32> {
    let scale = 2.0 / (inputs as f32).sqrt();
    (0..neurons * inputs).map(|_| (random.random::<f32>() - 0.48) * scale).collect()
}

/// Returns how many spikes there were.
fn check_against_reference(case: &Case) -> f32 {
    let (_, layers) = case.network();
    let (slots, plan) = (case.slots(), case.plan());
    let mut n_spikes = 0.0;
    for level in Level::available() {
        let network = case.network().0.with_level(level);
        let (mut state, mut trace) = (network.zero_state(case.n_slots).unwrap(), network.trace());
        let mut out = Vec::new();
        network.rollout(&mut state, &slots, &plan, &mut out, Some(&mut trace)).unwrap();
        let mut reference: Vec<_> =
            (0..case.n_slots).map(|_| Reference::new(&network, &layers)).collect();
        for (k, step) in plan.iter().enumerate() {
            let slot = &mut reference[step.slot_index as usize];
            if step.reset {
                *slot = Reference::new(&network, &layers);
            }
            let frames = &slots[step.slot_index as usize].frames;
            let expected = slot.step(&dense(frames, step.window as usize, case.inputs));
            let outputs = network.outputs();
            assert_eq!(bits(&out[k * outputs..][..outputs]), bits(&expected), "{level:?} {k}");
            let traced = trace.variables().iter();
            let traced: Vec<_> =
                traced.flat_map(|v| v.rows[k * v.width..][..v.width].to_vec()).collect();
            assert_eq!(bits(&traced), bits(&slot.row()), "{level:?}, variables of step {k}");
        }
        for (slot, reference) in reference.iter().enumerate() {
            assert_eq!(bits(&state.row(slot).unwrap()), bits(&reference.row()));
        }
        let spikes = trace.variables().iter().filter(|variable| variable.name.ends_with(".z"));
        n_spikes = spikes.flat_map(|variable| &variable.rows).sum();
    }
    n_spikes
}

fn check_batching(case: &Case, calls: usize) {
    let network = case.network().0;
    let (slots, plan) = (case.slots(), case.plan());
    let (mut state, mut out) = (network.zero_state(case.n_slots).unwrap(), Vec::new());
    network.rollout(&mut state, &slots, &plan, &mut out, None).unwrap();
    let outputs = network.outputs();

    let (mut in_calls, mut pieces) = (network.zero_state(case.n_slots).unwrap(), Vec::new());
    for part in plan.chunks(plan.len().div_ceil(calls)) {
        network.rollout(&mut in_calls, &slots, part, &mut pieces, None).unwrap();
    }
    assert_eq!(bits(&pieces), bits(&out), "in {calls} calls");

    for (slot, of_slot) in slots.iter().enumerate() {
        let (mut alone, mut own) = (network.zero_state(5).unwrap(), Vec::new());
        let frames = SlotFrames { slot: 3, frames: of_slot.frames.clone() };
        let mine = plan.iter().filter(|step| step.slot_index == slot as u32);
        let mine: Vec<_> = mine.map(|step| PlannedStep { slot_index: 0, ..*step }).collect();
        for (k, step) in mine.iter().enumerate() {
            if step.reset && k % 2 == 1 {
                alone.reset(3).unwrap();
            }
            let mut moved = network.zero_state(7).unwrap();
            moved.set_row(3, &alone.row(3).unwrap()).unwrap();
            alone = moved;
            let step = [PlannedStep { reset: step.reset && k % 2 == 0, ..*step }];
            network
                .rollout(&mut alone, std::slice::from_ref(&frames), &step, &mut own, None)
                .unwrap();
        }
        let both =
            out.chunks(outputs).zip(&plan).filter(|(_, step)| step.slot_index == slot as u32);
        let together: Vec<_> = both.flat_map(|(values, _)| values.to_vec()).collect();
        assert_eq!(bits(&own), bits(&together), "slot {slot} alone");
        assert_eq!(bits(&alone.row(3).unwrap()), bits(&state.row(slot).unwrap()));
    }
}

/// Every step from the reference's state, where no neuron is so near its threshold that rounding
/// decides.
fn check_plain(case: &Case) {
    let (network, layers) = case.network();
    let frames = &case.slots()[0].frames;
    let mut reference = Reference::new(&network, &layers);
    for window in 0..case.n_windows {
        let before = reference.clone();
        let x = dense(frames, window, case.inputs);
        let expected = reference.step(&x);
        if reference.smallest_margin < 1e-4 {
            continue;
        }
        let tensor = |v: &Vec<f32>| Tensor::from_slice(v, (1, v.len()), &Device::Cpu).unwrap();
        let state = before.layers.iter().map(|layer| layer.state.iter().map(tensor).collect());
        let state = PlainState { layers: state.collect() };
        let (out, after) = network.step(&tensor(&x), &state).unwrap();
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let after: Vec<_> = after.layers.iter().flatten().flat_map(values).collect();
        for (ours, exact) in
            values(&out).iter().zip(&expected).chain(after.iter().zip(&reference.row()))
        {
            assert!((ours - exact).abs() <= 1e-5 * exact.abs().max(1.0), "{ours} for {exact}");
        }
    }
}

/// The equations as one would write them on paper, on dense inputs.
#[derive(Clone)]
struct Reference {
    layers: Vec<ReferenceLayer>,
    /// The smallest |v' − v_th| of the last step.
    smallest_margin: f32,
}

#[derive(Clone)]
struct ReferenceLayer {
    weights: LayerWeights,
    state: Vec<Vec<f32>>,
}

impl Reference {
    fn new(network: &Network, layers: &[LayerWeights]) -> Self {
        let layers = network.layers().zip(layers).map(|(spec, weights)| {
            let kind = CELLS.iter().find(|kind| kind.name == spec.cell).unwrap();
            ReferenceLayer {
                weights: LayerWeights { spec: spec.clone(), ..weights.clone() },
                state: vec![vec![0.0; spec.neurons]; kind.variables.len()],
            }
        });
        Reference { layers: layers.collect(), smallest_margin: f32::INFINITY }
    }

    fn step(&mut self, x: &[f32]) -> Vec<f32> {
        self.smallest_margin = f32::INFINITY;
        let mut x = x.to_vec();
        for layer in &mut self.layers {
            x = layer.step(&x, &mut self.smallest_margin);
        }
        x
    }

    fn row(&self) -> Vec<f32> {
        self.layers.iter().flat_map(|layer| layer.state.concat()).collect()
    }
}

impl ReferenceLayer {
    fn step(&mut self, x: &[f32], margin: &mut f32) -> Vec<f32> {
        let LayerWeights { spec, input, recurrent } = &self.weights;
        let parameter = |name: &str| spec.parameters[name];
        let per_step = |name: &str| (parameter(name) * DT_S) as f32;
        let last = self.state[0].clone();
        for n in 0..spec.neurons {
            let a = ordered_sum(&input[n * spec.inputs..][..spec.inputs], x);
            let jump = |i: f32| match recurrent {
                Some(weights) => {
                    (i + a) + ordered_sum(&weights[n * spec.neurons..][..spec.neurons], &last)
                }
                None => i + a,
            };
            match (spec.cell.as_str(), self.state.as_mut_slice()) {
                ("lif", [z, v, i]) => {
                    let j = jump(i[n]);
                    let leak = parameter("v_leak") as f32;
                    v[n] += per_step("tau_mem_inv") * ((leak - v[n]) + j);
                    i[n] = j - per_step("tau_syn_inv") * j;
                    let over = v[n] - parameter("v_th") as f32;
                    *margin = margin.min(over.abs());
                    z[n] = if over > 0.0 { 1.0 } else { 0.0 };
                    v[n] = if over > 0.0 { parameter("v_reset") as f32 } else { v[n] };
                }
                ("li", [v, i]) => {
                    let j = jump(i[n]);
                    let leak = parameter("v_leak") as f32;
                    v[n] += per_step("tau_mem_inv") * ((leak - v[n]) + j);
                    i[n] = j - per_step("tau_syn_inv") * j;
                }
                ("linear", [y]) => {
                    y[n] = match recurrent {
                        Some(_) => jump(0.0),
                        None => a,
                    }
                }
                (cell, _) => panic!("{cell} has no reference here"),
            }
        }
        self.state[0].clone()
    }
}

fn ordered_sum(weights: &[f32], x: &[f32]) -> f32 {
    weights.iter().zip(x).filter(|(_, x)| **x != 0.0).fold(0.0, |sum, (weight, x)| sum + x * weight)
}

fn dense(frames: &Frames, window: usize, inputs: usize) -> Vec<f32> {
    let mut x = vec![0.0; inputs];
    let (addresses, counts) = frames.active(window);
    for (&address, &count) in addresses.iter().zip(counts) {
        x[address as usize] = f32::from(count);
    }
    x
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
