//! The network against vectors that Norse computed: fast path, plain path and surrogate gradient.
//!
//! Small vectors stand in `fixtures/golden`; the others are read from the shared folder, and
//! their tests say so when it is absent.

mod skip;
mod vectors;

use std::collections::BTreeMap;

use candle_core::{Device, Tensor, Var};
use dvs_stream::frame::{Frames, SlotFrames, Window};
use dvs_stream::nn::{LayerSpec, LayerWeights, Network, PlainState, PlannedStep, superspike};
use vectors::{Vectors, fixture, shared};

/// Largest difference to Norse's float32 run, absolute up to 1 and relative beyond.
const TOLERANCE: f32 = 5e-6;

#[test]
fn one_step_of_the_tutorials_network() {
    let (Some(vectors), Some(weights)) = (shared("single_step"), shared("seed_snn")) else {
        return;
    };
    let hidden = weights_of(&weights, "l1.input_weights", Some("l1.recurrent_weights"), "lif");
    let [x, z, v, i] = ["x", "z", "v", "i"].map(|name| &vectors[&format!("f32.in.{name}")].1);
    for b in 0..3 {
        let of = |values: &[f32]| values[b * 100..][..100].to_vec();
        let before = [of(z), of(v), of(i)];
        let after = ["z", "v", "i"].map(|name| of(&vectors[&format!("f32.out.{name}")].1));
        check_step(hidden.clone(), &x[b * 2450..][..2450], before.concat(), after.concat());
    }
}

#[test]
fn one_step_of_the_readout() {
    let Some(vectors) = shared("single_step") else { return };
    let [y, v, i] = ["y", "v", "i"].map(|name| &vectors[&format!("f32.li.in.{name}")].1);
    for b in 0..3 {
        let of = |values: &[f32]| values[b * 4..][..4].to_vec();
        let after = ["v", "i"].map(|name| of(&vectors[&format!("f32.li.out.{name}")].1));
        let readout = LayerWeights { spec: spec("li", 1, 4, false), input: of(y), recurrent: None };
        check_step(readout, &[1.0], [of(v), of(i)].concat(), after.concat());
    }
}

#[test]
fn a_sequence_through_the_tutorials_network() {
    let (Some(vectors), Some(weights)) = (shared("seq_full"), shared("seed_snn")) else { return };
    let layers = vec![
        weights_of(&weights, "l1.input_weights", Some("l1.recurrent_weights"), "lif"),
        weights_of(&weights, "fc_out.weight", None, "li"),
    ];
    let expected = |name: &str| match name {
        "z" => &vectors["z"].1,
        _ => &vectors[&format!("f32.{name}")].1,
    };
    check_sequence(layers, &vectors["x"], expected);
}

#[test]
fn a_small_network_with_and_without_autapses() {
    let vectors = fixture("small");
    for (mode, recurrent) in
        [("autapses_false", "w.recurrent_weights"), ("autapses_true", "w.recurrent_weights_raw")]
    {
        let layers = vec![
            weights_of(&vectors, "w.input_weights", Some(recurrent), "lif"),
            weights_of(&vectors, "w.fc_out_weight", None, "li"),
        ];
        check_sequence(layers, &vectors["x"], |name| &vectors[&format!("{mode}.f32.{name}")].1);
    }
}

#[test]
fn the_surrogate_gradient() {
    let vectors = fixture("superspike");
    let [x, z, gradient] = ["x", "z", "grad_alpha"].map(|name| &vectors[&format!("f32.{name}")].1);
    let x = Var::from_slice(x, x.len(), &Device::Cpu).unwrap();
    let spikes = superspike(&x, 100.0).unwrap();
    assert_eq!(&spikes.to_vec1::<f32>().unwrap(), z);
    let gradients = spikes.sum_all().unwrap().backward().unwrap();
    let ours: Vec<f32> = gradients.get(&x).unwrap().to_vec1().unwrap();
    for (k, (ours, norse)) in ours.iter().zip(gradient).enumerate() {
        assert!((ours - norse).abs() <= 1e-6 * norse.abs(), "{k}: {ours} instead of {norse}");
    }
}

/// One layer, one slot, one window, from a given packed state to an expected one, on both paths.
fn check_step(layer: LayerWeights, x: &[f32], before: Vec<f32>, after: Vec<f32>) {
    let neurons = layer.spec.neurons;
    let network = Network::new(vec![layer], 1e-3).unwrap();
    let mut state = network.zero_state(2).unwrap();
    state.set_row(1, &before).unwrap();
    let plan = [PlannedStep { slot_index: 0, window: 0, reset: false }];
    let slots = [SlotFrames { slot: 1, frames: frames(x, x.len()) }];
    network.rollout(&mut state, &slots, &plan, &mut Vec::new(), None).unwrap();
    assert_near("fast", &state.row(1).unwrap(), &after);
    assert_eq!(state.row(0).unwrap(), vec![0.0; before.len()], "the other slot");

    let tensor =
        |values: &[f32]| Tensor::from_slice(values, (1, values.len()), &Device::Cpu).unwrap();
    let plain = PlainState { layers: vec![before.chunks(neurons).map(tensor).collect()] };
    let (_, plain) = network.step(&tensor(x), &plain).unwrap();
    let variables = plain.layers[0].iter().map(values);
    assert_near("plain", &variables.collect::<Vec<_>>().concat(), &after);
}

/// Batches of frames [T, B, ..] through both paths, every variable of every step compared.
fn check_sequence<'a>(
    layers: Vec<LayerWeights>,
    (shape, x): &(Vec<usize>, Vec<f32>),
    expected: impl Fn(&str) -> &'a Vec<f32>,
) {
    let (steps, batch) = (shape[0], shape[1]);
    let inputs = layers[0].spec.inputs;
    let network = Network::new(layers, 1e-3).unwrap();
    let frame_of = |t: usize, b: usize| &x[(t * batch + b) * inputs..][..inputs];
    let slot = |b| {
        let sample: Vec<_> = (0..steps).map(|t| frame_of(t, b)).collect();
        SlotFrames { slot: b, frames: frames(&sample.concat(), inputs) }
    };
    let slots: Vec<_> = (0..batch).map(slot).collect();
    let plan = (0..steps).flat_map(|t| {
        let step = move |b| PlannedStep { slot_index: b as u32, window: t as u32, reset: t == 0 };
        (0..batch).map(step)
    });
    let mut trace = network.trace();
    let mut state = network.zero_state(batch).unwrap();
    let mut out = Vec::new();
    let plan: Vec<_> = plan.collect();
    network.rollout(&mut state, &slots, &plan, &mut out, Some(&mut trace)).unwrap();
    assert_eq!(trace.rows("hidden.z").unwrap(), expected("z"), "fast: spikes");
    for (ours, norse) in
        [("hidden.v", "v"), ("hidden.i", "i"), ("readout.v", "vo"), ("readout.i", "io")]
    {
        assert_near(&format!("fast: {ours}"), trace.rows(ours).unwrap(), expected(norse));
    }
    assert_eq!(out, trace.rows("readout.v").unwrap(), "outputs are the readout's voltages");

    let mut plain = network.plain_state(batch).unwrap();
    let mut rows = vec![Vec::new(); 5];
    for t in 0..steps {
        let frame = &x[t * batch * inputs..][..batch * inputs];
        let frame = Tensor::from_slice(frame, (batch, inputs), &Device::Cpu).unwrap();
        plain = network.step(&frame, &plain).unwrap().1;
        for (row, variable) in rows.iter_mut().zip(plain.layers.iter().flatten()) {
            row.extend(values(variable));
        }
    }
    assert_eq!(&rows[0], expected("z"), "plain: spikes");
    for (row, name) in rows.iter().zip(["z", "v", "i", "vo", "io"]) {
        assert_near(&format!("plain: {name}"), row, expected(name));
    }
}

fn assert_near(what: &str, ours: &[f32], norse: &[f32]) {
    assert_eq!(ours.len(), norse.len(), "{what}: lengths");
    for (k, (ours, norse)) in ours.iter().zip(norse).enumerate() {
        assert!(
            (ours - norse).abs() <= TOLERANCE * norse.abs().max(1.0),
            "{what}: {ours} instead of {norse} at {k}"
        );
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Dense counts, frame after frame, as sparse frames.
fn frames(x: &[f32], inputs: usize) -> Frames {
    let mut frames = Frames::default();
    for frame in x.chunks(inputs) {
        for (address, &count) in frame.iter().enumerate().filter(|(_, count)| **count != 0.0) {
            frames.add(address as u32, count as u16);
        }
        frames.close(Window::default());
    }
    frames
}

fn spec(cell: &str, inputs: usize, neurons: usize, recurrent: bool) -> LayerSpec {
    LayerSpec { cell: cell.into(), inputs, neurons, recurrent, parameters: BTreeMap::new() }
}

fn weights_of(vectors: &Vectors, input: &str, recurrent: Option<&str>, cell: &str) -> LayerWeights {
    let (shape, weights) = &vectors[input];
    LayerWeights {
        spec: spec(cell, shape[1], shape[0], recurrent.is_some()),
        input: weights.clone(),
        recurrent: recurrent.map(|name| vectors[name].1.clone()),
    }
}
