//! Learning: hand-written gradients and Adam against Norse's numbers, against Candle's automatic
//! differentiation of the plain step, and against finite differences; and that neither threads nor
//! instruction sets change a bit.

mod skip;
#[cfg(any(feature = "kernel-host", feature = "cuda"))]
mod steppers;
mod vectors;

use std::collections::BTreeMap;

use candle_core::{D, Device, Tensor, Var};
use dvs_stream::frame::{Frames, Window};
use dvs_stream::nn::{
    AdamSettings, CELLS, LayerSpec, LayerWeights, Learner, Level, Matrices, Network, Parameter,
    ParameterKind, TrainingSample,
};
use dvs_stream::train::loss::{Loss, LossKind, max_over_time};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vectors::{Vectors, fixture, shared};

const DT_S: f64 = 1e-3;
const TUTORIAL: Loss = Loss { kind: LossKind::Max, smoothing: 0.0 };

/// max|a − b| / max|b|.
fn distance(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let off = ours.iter().zip(theirs).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    if off == 0.0 { 0.0 } else { off / largest }
}

fn assert_near(what: &str, ours: &[f32], theirs: &[f32], tolerance: f32) {
    let off = distance(ours, theirs);
    assert!(off <= tolerance, "{what}: {off:e} of the largest, at most {tolerance:e}");
}

#[test]
fn gradients_of_the_tutorials_network_are_norses() {
    let (Some(inputs), Some(weights), Some(golden)) =
        (shared("seq_full"), shared("seed_snn"), shared("grad_full"))
    else {
        return;
    };
    let mut learner = learner(tutorial(&weights), false);
    learn(&mut learner, &inputs, TUTORIAL);
    check_gradients(&learner, |name| &golden[&format!("alpha.f32.{name}")].1);
}

#[test]
fn adam_steps_of_the_tutorials_network_are_norses() {
    let (Some(inputs), Some(weights), Some(golden)) =
        (shared("seq_full"), shared("seed_snn"), shared("adam_full_alpha"))
    else {
        return;
    };
    check_adam(learner(tutorial(&weights), false), &inputs, &golden, "f32.");
}

#[test]
fn a_small_networks_gradients_and_steps_are_norses() {
    let golden = fixture("small");
    for (mode, recurrent, autapses) in [
        ("autapses_false", "w.recurrent_weights", false),
        ("autapses_true", "w.recurrent_weights_raw", true),
    ] {
        let layers = || {
            vec![
                layer_of(&golden["w.input_weights"], Some(&golden[recurrent].1), "lif"),
                layer_of(&golden["w.fc_out_weight"], None, "li"),
            ]
        };
        let mut one = learner(layers(), autapses);
        learn(&mut one, &golden, TUTORIAL);
        check_gradients(&one, |name| &golden[&format!("{mode}.f32.alpha.grad.{name}")].1);
        let adam = format!("{mode}.f32.alpha.adam.");
        check_adam(learner(layers(), autapses), &golden, &golden, &adam);
    }
}

/// Five steps of Adam, the losses before each, and the weights after the first, second and fifth.
fn check_adam(mut learner: Learner, inputs: &Vectors, golden: &Vectors, prefix: &str) {
    let losses = &golden[&format!("{prefix}loss")].1;
    let settings = AdamSettings::default();
    for (step, norse) in losses.iter().enumerate() {
        let ours = learn(&mut learner, inputs, TUTORIAL);
        let ours = ours.iter().sum::<f64>() / ours.len() as f64;
        assert!((ours - f64::from(*norse)).abs() <= 1e-5, "loss {step}: {ours}, {norse}");
        learner.step(&settings, None).unwrap();
        let norse = |name: &str| golden.get(&format!("{prefix}step{}.{name}", step + 1));
        let Some(input) = norse("input_weights") else { continue };
        let weights = learner.weights().unwrap();
        assert_near("input weights", &weights[0].input, &input.1, 5e-4);
        let recurrent = weights[0].recurrent.as_ref().unwrap();
        assert_near("recurrent weights", recurrent, &norse("recurrent_weights").unwrap().1, 5e-4);
        assert_near("output", &weights[1].input, &norse("fc_out_weight").unwrap().1, 5e-4);
    }
}

fn check_gradients<'a>(learner: &Learner, norse: impl Fn(&str) -> &'a Vec<f32>) {
    let ours = learner.gradients().unwrap();
    assert_near("input weights", &ours[0].input, norse("input_weights"), 1e-4);
    let recurrent = ours[0].recurrent.as_ref().unwrap();
    assert_near("recurrent weights", recurrent, norse("recurrent_weights"), 1e-4);
    assert_near("output", &ours[1].input, norse("fc_out_weight"), 1e-4);
}

/// Loss and gradients of a batch [T, B, ..] with its targets [B].
fn learn(learner: &mut Learner, vectors: &Vectors, loss: Loss) -> Vec<f64> {
    let (shape, x) = &vectors["x"];
    let (steps, batch) = (shape[0], shape[1]);
    let width: usize = shape[2..].iter().product();
    let frames: Vec<Frames> = (0..batch)
        .map(|b| frames((0..steps).map(|t| &x[(t * batch + b) * width..][..width])))
        .collect();
    let targets: Vec<usize> = vectors["target"].1.iter().map(|class| *class as usize).collect();
    learn_frames(learner, &frames, &targets, loss)
}

fn learn_frames(
    learner: &mut Learner,
    frames: &[Frames],
    targets: &[usize],
    loss: Loss,
) -> Vec<f64> {
    let batch: Vec<_> =
        frames.iter().map(|frames| TrainingSample { frames, windows: frames.len() }).collect();
    let (classes, weight) = (learner.n_outputs(), 1.0 / frames.len() as f64);
    let of = |k: usize, v: &[f32], g: &mut [f32]| loss.of(v, classes, targets[k], weight, g);
    learner.learn(&batch, of).unwrap()
}

fn learner(layers: Vec<LayerWeights>, autapses: bool) -> Learner {
    Learner::new(Network::new(layers, DT_S).unwrap(), 1, autapses).unwrap()
}

/// A random chain, its frames and their classes.
#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    inputs: usize,
    layers: Vec<(usize, usize, bool)>,
    lengths: Vec<usize>,
    loss: Loss,
}

fn cases() -> impl Strategy<Value = Case> {
    let layer = (0..CELLS.len(), 1..40usize, any::<bool>());
    let kind = prop_oneof![
        Just(LossKind::Max),
        Just(LossKind::Mean),
        Just(LossKind::Step),
        (0.0..1.0).prop_map(LossKind::Mix)
    ];
    let loss = (kind, 0.0..0.3).prop_map(|(kind, smoothing)| Loss { kind, smoothing });
    let lengths = prop::collection::vec(1..9usize, 1..4);
    (any::<u64>(), 1..30usize, prop::collection::vec(layer, 1..4), lengths, loss).prop_map(
        |(seed, inputs, layers, lengths, loss)| Case { seed, inputs, layers, lengths, loss },
    )
}

impl Case {
    fn layers(&self) -> Vec<LayerWeights> {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut inputs = self.inputs;
        let layers = self.layers.iter().map(|&(cell, neurons, recurrent)| {
            let parameters = CELLS[cell].parameters.iter();
            let parameters = parameters.map(|Parameter { name, default, kind }| {
                let value = match kind {
                    ParameterKind::Level => default + random.random_range(-0.2..0.2),
                    _ => default * random.random_range(0.5..1.5),
                };
                ((*name).to_owned(), value)
            });
            let parameters = parameters.collect();
            let mut weights = |n: usize, from: usize| -> Vec<f32> {
                let scale = 2.0 / (from as f32).sqrt();
                (0..n * from).map(|_| (random.random::<f32>() - 0.48) * scale).collect()
            };
            let layer = LayerWeights {
                input: weights(neurons, inputs),
                recurrent: recurrent.then(|| weights(neurons, neurons)),
                spec: LayerSpec {
                    cell: CELLS[cell].name.to_owned(),
                    inputs,
                    neurons,
                    recurrent,
                    parameters,
                },
            };
            inputs = neurons;
            layer
        });
        layers.collect()
    }

    fn data(&self) -> (Vec<Frames>, Vec<usize>) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 1);
        let classes = self.layers.last().unwrap().1;
        let of = |length: &usize| {
            let mut frames = Frames::default();
            for _ in 0..*length {
                let density = random.random::<f64>();
                for address in 0..self.inputs as u32 {
                    if random.random_bool(density) {
                        frames.add(address, random.random_range(1..4));
                    }
                }
                frames.close(Window::default());
            }
            (frames, random.random_range(0..classes))
        };
        self.lengths.iter().map(of).unzip()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 96 } else { 256 }))]

    /// Windows beyond a sample's frames are windows without events, to the bit.
    #[test]
    fn padding_is_windows_without_events(case in cases(), beyond in 1..5usize) {
        let (frames, targets) = case.data();
        let mut padded = frames.clone();
        padded.iter_mut().for_each(|frames| {
            (0..beyond).for_each(|_| frames.close(Window::default()));
        });
        let told = |frames: &[Frames], beyond: usize| {
            let mut learner = learner(case.layers(), true);
            let batch: Vec<_> = frames
                .iter()
                .map(|frames| TrainingSample { frames, windows: frames.len() + beyond })
                .collect();
            let classes = learner.n_outputs();
            let of = |k: usize, v: &[f32], g: &mut [f32]| case.loss.of(v, classes, targets[k], 1.0, g);
            let losses = learner.learn(&batch, of).unwrap();
            let outputs = learner.outputs(&batch, |_, v| v.to_vec()).unwrap();
            (losses, learner.gradients().unwrap(), outputs)
        };
        prop_assert_eq!(told(&frames, beyond), told(&padded, 0));
    }

    /// Any chain of cells, recurrent or not, with connections to itself or not.
    #[test]
    fn gradients_are_those_of_automatic_differentiation(case in cases()) {
        check_against_candle(&case);
    }

    #[test]
    fn neither_threads_nor_instruction_sets_change_a_bit(case in cases(), threads in 2..5usize) {
        let (frames, targets) = case.data();
        let run = |threads: usize, level: Level| {
            let network = Network::new(case.layers(), DT_S).unwrap();
            let mut learner = Learner::new(network, threads, false).unwrap().with_level(level);
            let mut losses = Vec::new();
            for _ in 0..3 {
                losses.extend(learn_frames(&mut learner, &frames, &targets, case.loss));
                learner.step(&AdamSettings::default(), Some(0.5)).unwrap();
            }
            let weights = learner.weights().unwrap();
            let all = weights.iter().flat_map(|l| [Some(&l.input), l.recurrent.as_ref()]);
            let bits: Vec<u32> = all.flatten().flatten().map(|w| w.to_bits()).collect();
            (losses, bits)
        };
        let first = run(1, Level::best());
        for level in Level::available() {
            prop_assert_eq!(&run(threads, level), &first, "{:?}", level);
        }
    }
}

/// All layers have one norm together, as in `torch.nn.utils.clip_grad_norm_`. Adam's first means are
/// a tenth of the gradients that it is given.
#[test]
fn gradients_are_clipped_all_layers_together() {
    let cell = |name| CELLS.iter().position(|kind| kind.name == name).unwrap();
    let layers = vec![(cell("lif"), 12, true), (cell("li"), 4, false)];
    let loss = Loss { kind: LossKind::Max, smoothing: 0.0 };
    let case = Case { seed: 4, inputs: 20, layers, lengths: vec![9, 12], loss };
    let (frames, targets) = case.data();
    let norm = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    for share in [0.25, 4.0] {
        let mut learner = learner(case.layers(), true);
        learn_frames(&mut learner, &frames, &targets, case.loss);
        let gradients = learner.gradients().unwrap();
        let each = gradients.iter().flat_map(|l| [Some(&l.input), l.recurrent.as_ref()]).flatten();
        let norms: Vec<f64> = each.map(|values| norm(values)).collect();
        assert!(norms.iter().all(|norm| *norm > 0.0), "{norms:?}");
        let all = norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt();
        assert!(learner.step(&AdamSettings::default(), Some(share * all)).unwrap());
        let means = norm(&learner.snapshot().unwrap().means);
        let expected = 0.1 * share.min(1.0) * all;
        assert!((means - expected).abs() < 1e-4 * expected, "{share}: {means}, {expected}");
    }
}

/// The GPU's kernels, compiled for the CPU, and on a GPU where there is one: losses, rates, gradients,
/// outputs, weights and moments over several batches and steps, bit for bit.
#[cfg(any(feature = "kernel-host", feature = "cuda"))]
mod kernels {
    use dvs_stream::nn::LearnerState;

    use super::*;
    use crate::steppers::steppers;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn learn_as_the_cpu_does(
            case in cases(),
            autapses in any::<bool>(),
            shared_bytes in prop_oneof![Just(16 << 10), Just(48 << 10)],
            blocks in 1..4usize,
        ) {
            check(&case, autapses, shared_bytes, blocks);
        }
    }

    /// Two hidden layers with and without recurrence, more weights than a block's memory holds, more
    /// neurons than threads, dense recurrence, and addresses that do not share a word with their
    /// counts.
    #[test]
    fn learn_as_the_cpu_does_in_every_form() {
        let cell = |name| CELLS.iter().position(|kind| kind.name == name).unwrap();
        let (lif, li, linear) = (cell("lif"), cell("li"), cell("linear"));
        let forms = [
            (60, vec![(lif, 100, true), (li, 4, false)]),
            (60, vec![(lif, 40, true), (lif, 33, true), (li, 4, false)]),
            (60, vec![(lif, 33, false), (lif, 50, true), (li, 4, false)]),
            (40, vec![(lif, 200, true), (lif, 130, false), (li, 4, true)]),
            (30, vec![(li, 20, true), (lif, 1030, false), (linear, 5, true)]),
            (70_000, vec![(lif, 3, true), (li, 2, false)]),
        ];
        for (k, (inputs, layers)) in forms.into_iter().enumerate() {
            let loss = Loss { kind: LossKind::Mix(0.5), smoothing: 0.1 };
            let case = Case { seed: 4, inputs, layers, lengths: vec![9, 12, 1, 15], loss };
            check(&case, k % 2 == 1, 24 << 10, 3);
        }
    }

    /// What was learned, in bits.
    #[derive(Debug, PartialEq)]
    struct Told {
        losses: Vec<u64>,
        rates: Vec<f64>,
        gradients: Vec<u32>,
        outputs: Vec<Vec<u32>>,
    }

    /// Batches of other sizes one after another, the last with windows beyond the frames.
    fn check(case: &Case, autapses: bool, shared_bytes: usize, blocks: usize) {
        let (frames, targets) = case.data();
        let n = frames.len();
        let batches = [(0..n, 0), (0..n.div_ceil(2), 0), (0..n, 2)];
        let of = |part: &std::ops::Range<usize>, beyond: usize| -> Vec<TrainingSample<'_>> {
            let samples = frames[part.clone()].iter();
            samples.map(|f| TrainingSample { frames: f, windows: f.len() + beyond }).collect()
        };
        let learn = |learner: &mut Learner| -> Vec<Told> {
            let told = batches.iter().map(|(part, beyond)| {
                let batch = of(part, *beyond);
                let (classes, weight) = (learner.n_outputs(), 1.0 / batch.len() as f64);
                let loss = |k: usize, v: &[f32], g: &mut [f32]| {
                    case.loss.of(v, classes, targets[k], weight, g).to_bits()
                };
                let losses = learner.learn(&batch, loss).unwrap();
                let gradients = bits(learner.gradients().unwrap());
                let rates = learner.firing_rates();
                learner.step(&AdamSettings::default(), Some(0.5)).unwrap();
                let outputs = |_: usize, v: &[f32]| v.iter().map(|v| v.to_bits()).collect();
                let outputs = learner.outputs(&batch, outputs).unwrap();
                Told { losses, rates, gradients, outputs }
            });
            told.collect()
        };
        let network = Network::new(case.layers(), DT_S).unwrap();
        let mut cpu = learner(case.layers(), autapses);
        let (first, half) = (learn(&mut cpu), cpu.snapshot().unwrap());
        let (second, whole) = (learn(&mut cpu), cpu.snapshot().unwrap());
        let again = steppers(&network, shared_bytes, blocks).into_iter().map(|(_, again)| again);
        for ((name, network), again) in
            steppers(&network, shared_bytes, blocks).into_iter().zip(again)
        {
            let mut ours = Learner::new(network, 1, autapses).unwrap();
            assert_eq!(learn(&mut ours), first, "{name}");
            assert_same(&ours.snapshot().unwrap(), &half, &name);
            // another device's state goes on here
            let mut ours = Learner::new(again, 1, autapses).unwrap();
            ours.restore(&half).unwrap();
            assert_eq!(learn(&mut ours), second, "{name}, restored");
            assert_same(&ours.snapshot().unwrap(), &whole, &name);
            assert_eq!(bits(ours.weights().unwrap()), bits(cpu.weights().unwrap()), "{name}");
        }
    }

    fn assert_same(ours: &LearnerState, theirs: &LearnerState, name: &str) {
        assert_eq!(ours.steps, theirs.steps, "{name}");
        for (ours, theirs) in [
            (&ours.weights, &theirs.weights),
            (&ours.means, &theirs.means),
            (&ours.squares, &theirs.squares),
        ] {
            let differs = ours.iter().zip(theirs).position(|(a, b)| a.to_bits() != b.to_bits());
            assert_eq!((ours.len(), differs), (theirs.len(), None), "{name}");
        }
    }

    fn bits(layers: Vec<LayerWeights>) -> Vec<u32> {
        let all = layers.iter().flat_map(|layer| [Some(&layer.input), layer.recurrent.as_ref()]);
        all.flatten().flatten().map(|value| value.to_bits()).collect()
    }
}

fn check_against_candle(case: &Case) {
    let (frames, targets) = case.data();
    let mut fast = learner(case.layers(), true);
    let losses = learn_frames(&mut fast, &frames, &targets, case.loss);

    let network = Network::new(case.layers(), DT_S).unwrap();
    let variable = |tensor: &Tensor| Var::from_tensor(tensor).unwrap();
    let weights = network.matrices().unwrap();
    let variables: Vec<_> =
        weights.iter().map(|m| (variable(&m.input), m.recurrent.as_ref().map(variable))).collect();
    let matrices: Vec<_> = variables
        .iter()
        .map(|(input, recurrent)| Matrices {
            input: input.as_tensor().clone(),
            recurrent: recurrent.as_ref().map(|r| r.as_tensor().clone()),
        })
        .collect();
    let mut total = Tensor::zeros((), candle_core::DType::F32, &Device::Cpu).unwrap();
    for ((frames, class), loss) in frames.iter().zip(&targets).zip(&losses) {
        let mut state = network.plain_state(1).unwrap();
        let voltages: Vec<_> = (0..frames.len())
            .map(|t| {
                let x =
                    Tensor::from_vec(dense(frames, t, case.inputs), (1, case.inputs), &Device::Cpu);
                let (v, after) = network.step_with(&matrices, &x.unwrap(), &state).unwrap();
                state = after;
                v
            })
            .collect();
        let plain = plain_loss(&Tensor::cat(&voltages, 0).unwrap(), *class, case.loss);
        let value = f64::from(plain.to_scalar::<f32>().unwrap());
        assert!((value - loss).abs() <= 1e-4 * value.abs().max(1.0), "{loss} instead of {value}");
        total = (total + (plain / targets.len() as f64).unwrap()).unwrap();
    }
    let gradients = total.backward().unwrap();
    let check = |what: &str, ours: &[f32], variable: &Var| {
        let Some(theirs) = gradients.get(variable) else {
            assert!(ours.iter().all(|g| *g == 0.0), "{what}: Candle has no gradient");
            return;
        };
        let theirs: Vec<f32> = theirs.t().unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let largest = theirs.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        if largest > 1e-7 {
            assert_near(what, ours, &theirs, 2e-3);
        }
    };
    for (k, (ours, (input, recurrent))) in
        fast.gradients().unwrap().iter().zip(&variables).enumerate()
    {
        check(&format!("input weights of layer {k}"), &ours.input, input);
        if let (Some(ours), Some(recurrent)) = (&ours.recurrent, recurrent) {
            check(&format!("recurrent weights of layer {k}"), ours, recurrent);
        }
    }
}

/// The losses' definitions on tensors [windows, classes].
fn plain_loss(v: &Tensor, class: usize, loss: Loss) -> Tensor {
    let entropy = |logits: &Tensor| {
        let log_p = candle_nn::ops::log_softmax(logits, D::Minus1).unwrap();
        let n = log_p.dim(D::Minus1).unwrap();
        let own = log_p.narrow(D::Minus1, class, 1).unwrap().mean_all().unwrap();
        let all = (log_p.mean_all().unwrap() * -loss.smoothing).unwrap();
        assert!(n > class);
        (all - (own * (1.0 - loss.smoothing)).unwrap()).unwrap()
    };
    // the first of equal maxima; Candle's own maximum shares the gradient out among them
    let max = || {
        let n = v.dim(1).unwrap();
        let (_, at) = max_over_time(&v.flatten_all().unwrap().to_vec1().unwrap(), n);
        let of = |(c, t): (usize, &usize)| v.narrow(0, *t, 1).unwrap().narrow(1, c, 1).unwrap();
        let logits: Vec<_> = at.iter().enumerate().map(of).collect();
        entropy(&Tensor::cat(&logits, 1).unwrap())
    };
    match loss.kind {
        LossKind::Max => max(),
        LossKind::Mean => entropy(&v.mean_keepdim(0).unwrap()),
        LossKind::Step => entropy(v),
        LossKind::Mix(share) => {
            ((max() * share).unwrap() + (entropy(v) * (1.0 - share)).unwrap()).unwrap()
        }
    }
}

/// The smooth part: a chain without spikes, in which every weight's gradient is the slope of the
/// loss.
#[test]
fn gradients_are_slopes() {
    for kind in [LossKind::Max, LossKind::Mean, LossKind::Step, LossKind::Mix(0.5)] {
        let case = Case {
            seed: 5,
            inputs: 6,
            layers: vec![(2, 5, false), (1, 4, true), (1, 3, false)],
            lengths: vec![7, 4],
            loss: Loss { kind, smoothing: 0.1 },
        };
        let (frames, targets) = case.data();
        let mean = |layers: Vec<LayerWeights>| {
            let losses = learn_frames(&mut learner(layers, true), &frames, &targets, case.loss);
            losses.iter().sum::<f64>() / losses.len() as f64
        };
        let mut fast = learner(case.layers(), true);
        learn_frames(&mut fast, &frames, &targets, case.loss);
        for (k, LayerWeights { input, recurrent, .. }) in
            fast.gradients().unwrap().into_iter().enumerate()
        {
            let n_inputs = input.len();
            for (n, gradient) in input.into_iter().chain(recurrent.unwrap_or_default()).enumerate()
            {
                let moved = |by: f32| {
                    let mut layers = case.layers();
                    match (&mut layers[k], n.checked_sub(n_inputs)) {
                        (LayerWeights { recurrent: Some(recurrent), .. }, Some(n)) => {
                            recurrent[n] += by;
                        }
                        (layer, _) => layer.input[n] += by,
                    }
                    mean(layers)
                };
                let slope = (moved(0.01) - moved(-0.01)) / 0.02;
                let off = (slope - f64::from(gradient)).abs();
                assert!(off <= 1e-3 * slope.abs().max(0.1), "{kind}: {k} {n}: {gradient} {slope}");
            }
        }
    }
}

fn dense(frames: &Frames, window: usize, inputs: usize) -> Vec<f32> {
    let mut x = vec![0.0; inputs];
    let (addresses, counts) = frames.active(window);
    for (address, count) in addresses.iter().zip(counts) {
        x[*address as usize] = f32::from(*count);
    }
    x
}

fn frames<'a>(dense: impl Iterator<Item = &'a [f32]>) -> Frames {
    let mut frames = Frames::default();
    for frame in dense {
        for (address, &count) in frame.iter().enumerate().filter(|(_, count)| **count != 0.0) {
            frames.add(address as u32, count as u16);
        }
        frames.close(Window::default());
    }
    frames
}

fn tutorial(weights: &Vectors) -> Vec<LayerWeights> {
    vec![
        layer_of(&weights["l1.input_weights"], Some(&weights["l1.recurrent_weights"].1), "lif"),
        layer_of(&weights["fc_out.weight"], None, "li"),
    ]
}

fn layer_of(
    (shape, input): &(Vec<usize>, Vec<f32>),
    recurrent: Option<&Vec<f32>>,
    cell: &str,
) -> LayerWeights {
    LayerWeights {
        spec: LayerSpec {
            cell: cell.into(),
            inputs: shape[1],
            neurons: shape[0],
            recurrent: recurrent.is_some(),
            parameters: BTreeMap::new(),
        },
        input: input.clone(),
        recurrent: recurrent.cloned(),
    }
}
