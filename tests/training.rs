//! Training as a user runs it: equal commands give equal bytes, an interrupted training goes on
//! bit for bit, what was trained streams as it was scored, and bad data is named.

mod pips;
mod program;
mod skip;
#[cfg(any(feature = "kernel-host", feature = "cuda"))]
mod steppers;

use std::path::{Path, PathBuf};
use std::process::Command;

use dvs_stream::dataset::{self, Loading, Sample};
use dvs_stream::decide::{Readout, Silence};
use dvs_stream::event::SensorSize;
use dvs_stream::frame::Window;
use dvs_stream::model::Model;
use dvs_stream::nn::Device;
use dvs_stream::session::Rules;
use dvs_stream::train::checkpoint;
use dvs_stream::train::prepare::Preparation;
use dvs_stream::train::recipe::Recipe;
use dvs_stream::train::trainer::{Heard, Trainer};
use dvs_stream::view::ViewSpec;
use dvs_stream::window::{Partial, WindowConfig};
use pips::{pips, text};
use program::{PROGRAM, check};
use serde_json::Value;
use skip::skip;

fn loading(threads: usize) -> Loading {
    Loading {
        sensor: Some(SensorSize { width: 35, height: 35 }),
        window_us: 1000,
        gap_us: None,
        partial: Partial::Keep,
        view: Default::default(),
        decoder: Default::default(),
        format: None,
        labels: None,
        strict: true,
        keep_events: true,
        threads,
    }
}

fn trainer(recipe: &Recipe, threads: usize) -> Trainer {
    trainer_on(&Device::cpu(), recipe, threads)
}

fn trainer_on(device: &Device, recipe: &Recipe, threads: usize) -> Trainer {
    let window = WindowConfig {
        sensor: SensorSize { width: 35, height: 35 },
        window_us: 1000,
        gap_us: 1_000_000_000,
        origin: Default::default(),
        partial: Partial::Keep,
    };
    let preparation = Preparation::new(window, 4, threads);
    Trainer::new(recipe.clone(), preparation, threads, device).unwrap()
}

/// As the whole recordings are read by the maximum over time.
fn hold_out(trainer: &mut Trainer, samples: &[&Sample]) -> dvs_stream::Result<()> {
    let silence = Silence { quiet_events: 0, gap_windows: 1000 };
    let rules = Rules { readout: Readout::Max, silence, min_confidence: 0.0, window_us: 1000 };
    let heard: Vec<_> = samples.iter().map(|sample| Heard::of(sample, &rules)).collect();
    trainer.hold_out(&heard, &rules)
}

/// A small training that uses everything that is drawn.
fn recipe() -> Recipe {
    Recipe { epochs: 3, batch: 5, hidden: vec![20, 12], clip: Some(1.0), ..Recipe::best() }
}

fn weights(trainer: &Trainer) -> Vec<u32> {
    let state = trainer.learner().snapshot().unwrap();
    let all = [state.weights, state.means, state.squares];
    all.iter().flatten().map(|value| value.to_bits()).collect()
}

#[test]
fn an_interrupted_training_goes_on_bit_for_bit_whatever_the_threads() {
    let folder = pips(3);
    let data = dataset::load(&folder.path().join("pips"), &loading(1)).unwrap();
    let samples: Vec<&Sample> = data.samples.iter().collect();
    let mut whole = trainer(&recipe(), 1);
    let mut steps = 0;
    while !whole.is_done() {
        if whole.batch(&samples).unwrap().is_some() {
            hold_out(&mut whole, &samples[..4]).unwrap();
            whole.keep_best().unwrap();
        }
        steps += 1;
    }
    assert_eq!(steps, 3 * 12usize.div_ceil(5));
    let fingerprint = checkpoint::fingerprint(&samples, &[]);
    for (stop_after, threads) in [(0, 2), (1, 3), (3, 2), (7, 4), (steps, 2)] {
        let mut first = trainer(&recipe(), threads);
        for _ in 0..stop_after {
            if first.batch(&samples).unwrap().is_some() {
                hold_out(&mut first, &samples[..4]).unwrap();
                first.keep_best().unwrap();
            }
        }
        let bytes = checkpoint::save(&first, fingerprint).unwrap();
        let mut second = trainer(&recipe(), 5 - threads);
        checkpoint::resume(&mut second, fingerprint, &bytes).unwrap();
        while !second.is_done() {
            if second.batch(&samples).unwrap().is_some() {
                hold_out(&mut second, &samples[..4]).unwrap();
                second.keep_best().unwrap();
            }
        }
        assert_eq!(weights(&second), weights(&whole), "stopped after {stop_after} steps");
        assert_eq!(second.progress(), whole.progress());
        assert!(second.best().is_some() && second.best() == whole.best());
    }
    let best = whole.best().unwrap().to_vec();
    let epoch = whole.go_back().unwrap().unwrap() as usize;
    assert_eq!(whole.learner().snapshot().unwrap().weights, best);
    let read: Vec<_> =
        whole.progress().epochs.iter().map(|e| e.held_out.unwrap().accuracy).collect();
    let most = read.iter().copied().fold(0.0, f64::max);
    assert_eq!(read.iter().position(|accuracy| *accuracy == most), Some(epoch - 1));
}

/// The tutorial pads a batch to its longest recording with windows without events; masked, each
/// recording is decoded over its own.
#[test]
fn padding_counts_only_where_it_is_asked_for() {
    let folder = pips(1);
    let data = dataset::load(&folder.path().join("pips"), &loading(1)).unwrap();
    let loss = |samples: &[Sample], unmasked: bool| {
        let mut trainer = trainer(&Recipe { unmasked, ..Recipe::tutorial() }, 1);
        let samples: Vec<&Sample> = samples.iter().collect();
        trainer.batch(&samples).unwrap().unwrap().loss
    };
    let mean_of_each = |samples: &[Sample]| {
        let alone = |sample: &Sample| loss(std::slice::from_ref(sample), false);
        samples.iter().map(alone).sum::<f64>() / samples.len() as f64
    };
    let mut samples = data.samples;
    let longest = samples.iter().map(|sample| sample.frames.len()).max().unwrap();
    let [masked, unmasked] = [false, true].map(|unmasked| loss(&samples, unmasked));
    let each_masked = mean_of_each(&samples);
    for Sample { frames, .. } in &mut samples {
        (frames.len()..longest).for_each(|_| frames.close(Window::default()));
    }
    let each_padded = mean_of_each(&samples);
    assert!((masked - each_masked).abs() < 1e-12, "{masked}, each {each_masked}");
    assert!((unmasked - each_padded).abs() < 1e-12, "{unmasked}, each {each_padded}");
    assert!((masked - unmasked).abs() > 1e-6, "{masked}, {unmasked}: of equal lengths");
}

/// The GPU's kernels: every step of a training leaves the CPU's bits, and its checkpoint goes on there
/// and the CPU's here.
#[cfg(any(feature = "kernel-host", feature = "cuda"))]
#[test]
fn a_training_by_the_kernels_is_the_cpus_and_goes_on_from_either() {
    let folder = pips(3);
    let data = dataset::load(&folder.path().join("pips"), &loading(1)).unwrap();
    let samples: Vec<&Sample> = data.samples.iter().collect();
    let fingerprint = checkpoint::fingerprint(&samples, &[]);
    let go_on = |trainer: &mut Trainer, steps: usize| {
        for _ in 0..steps {
            if trainer.batch(&samples).unwrap().is_some() {
                hold_out(trainer, &samples[..4]).unwrap();
            }
        }
    };
    let begin = |device: &Device| trainer_on(device, &recipe(), 2);
    let (all, half) = (9, 4);
    let mut cpu = begin(&Device::cpu());
    go_on(&mut cpu, half);
    let of_cpu = checkpoint::save(&cpu, fingerprint).unwrap();
    go_on(&mut cpu, all - half);
    assert!(cpu.is_done());
    let left = |trainer: &Trainer| (weights(trainer), trainer.progress().clone());
    for (name, device) in steppers::devices(48 << 10, 3) {
        let mut ours = begin(&device);
        go_on(&mut ours, half);
        let of_ours = checkpoint::save(&ours, fingerprint).unwrap();
        assert!(of_ours == of_cpu, "{name}: another checkpoint");
        go_on(&mut ours, all - half);
        assert_eq!(left(&ours), left(&cpu), "{name}");
        for (from, to) in [(&of_cpu, &device), (&of_ours, &Device::cpu())] {
            let mut second = begin(to);
            checkpoint::resume(&mut second, fingerprint, from).unwrap();
            go_on(&mut second, all - half);
            assert_eq!(left(&second), left(&cpu), "{name}, resumed");
        }
    }
}

/// A whole run, to the bytes of its model file.
#[cfg(any(feature = "kernel-host", feature = "cuda"))]
#[test]
fn a_run_by_the_kernels_writes_the_cpus_model() {
    use std::sync::atomic::AtomicBool;

    use dvs_stream::dataset::split::Split;
    use dvs_stream::train::{self, Keep, Training};

    let folder = pips(4);
    let train = |device: Device| {
        let training = Training {
            data: folder.path().join("pips"),
            also: None,
            validation: None,
            loading: loading(2),
            recipe: recipe(),
            split: Split::First(3),
            by_time: false,
            fold: None,
            keep: Keep::Best,
            out: folder.path().join("M.safetensors"),
            resume: false,
            threads: 2,
            device,
        };
        let outcome = train::run(&training, &mut |_| Ok(()), &AtomicBool::new(false)).unwrap();
        (outcome.trained.epochs, std::fs::read(&training.out).unwrap())
    };
    let expected = train(Device::cpu());
    for (name, device) in steppers::devices(48 << 10, 3) {
        assert!(train(device) == expected, "{name}");
    }
}

#[test]
fn a_checkpoint_of_another_recipe_or_other_data_is_refused() {
    let folder = pips(2);
    let data = dataset::load(&folder.path().join("pips"), &loading(1)).unwrap();
    let samples: Vec<&Sample> = data.samples.iter().collect();
    let mut trained = trainer(&recipe(), 1);
    trained.batch(&samples).unwrap();
    let fingerprint = checkpoint::fingerprint(&samples, &[]);
    let bytes = checkpoint::save(&trained, fingerprint).unwrap();
    let refused = |recipe: &Recipe, fingerprint, bytes: &[u8]| {
        checkpoint::resume(&mut trainer(recipe, 1), fingerprint, bytes).unwrap_err().to_string()
    };
    let other = Recipe { lr: 0.5, ..recipe() };
    let error = refused(&other, fingerprint, &bytes);
    assert!(error.contains("--lr 0.01, this command says 0.5"), "{error}");
    let others = checkpoint::fingerprint(&samples[1..], &samples[..1]);
    assert!(refused(&recipe(), others, &bytes).contains("other recordings"));
    for cut in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        let error = refused(&recipe(), fingerprint, &bytes[..cut]);
        assert!(error.contains("no whole checkpoint"), "{cut}: {error}");
    }
}

/// A bit of every byte of the header, and of the tensors one in a while.
#[test]
fn a_checkpoint_with_a_flipped_bit_is_damaged() {
    let folder = pips(2);
    let data = dataset::load(&folder.path().join("pips"), &loading(1)).unwrap();
    let samples: Vec<&Sample> = data.samples.iter().collect();
    let recipe = Recipe { hidden: vec![1], batch: 3, ..recipe() };
    let mut trained = trainer(&recipe, 1);
    for _ in 0..4 {
        if trained.batch(&samples).unwrap().is_some() {
            hold_out(&mut trained, &samples[..2]).unwrap();
            trained.keep_best().unwrap();
        }
    }
    let fingerprint = checkpoint::fingerprint(&samples, &[]);
    let bytes = checkpoint::save(&trained, fingerprint).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let all = (0..header).map(|k| 8 * k + k % 8).chain((8 * header..8 * bytes.len()).step_by(211));
    let mut resumed = trainer(&recipe, 1);
    for bit in all {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = checkpoint::resume(&mut resumed, fingerprint, &damaged);
        let error = error.expect_err(&format!("bit {bit} of {}", bytes.len())).to_string();
        assert!(error.contains("no whole checkpoint"), "bit {bit}: {error}");
        assert!(error.contains("begin without --resume"), "bit {bit}: {error}");
    }
    checkpoint::resume(&mut resumed, fingerprint, &bytes).unwrap();
}

#[test]
fn equal_commands_write_equal_bytes() {
    let folder = pips(4);
    let data = folder.path().join("pips");
    let train = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let log = folder.path().join(format!("{name}.jsonl"));
        let fixed = ["train", text(&data), "--out", text(&out), "--log", text(&log)];
        let (stdout, _) = check(&[&fixed[..], more].concat(), 0);
        (std::fs::read(out).unwrap(), stdout, std::fs::read_to_string(log).unwrap())
    };
    let common = ["--epochs", "2", "--split", "first:3", "--recipe", "best", "--hidden", "30"];
    let seed = |seed| [&common[..], &["--seed", seed]].concat();
    let one = train("one", &[&seed("1")[..], &["--threads", "1"]].concat());
    let two = train("two", &[&seed("1")[..], &["--threads", "2"]].concat());
    assert!(one == two, "the same seed");
    assert_ne!(one.0, train("three", &seed("2")).0, "another seed");
    let epochs: Vec<Value> = one.2.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(epochs.len(), 2);
    assert!(epochs.iter().all(|epoch| epoch["held_out"]["accuracy"].is_number()));
}

#[test]
fn what_was_trained_streams_as_it_was_scored() {
    let folder = pips(6);
    let data = folder.path().join("pips");
    check_streams_as_scored(&data, &folder.path().join("M.safetensors"), "first:4", "aedat4");
}

#[test]
fn real_recordings_stream_as_they_were_scored() {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared");
    let shared = std::env::var("DVS_SHARED").unwrap_or_else(|_| beside.to_owned());
    let data = PathBuf::from(shared).join("data/poker-dvs");
    if !data.is_dir() {
        skip(&format!("{} is absent", data.display()));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    check_streams_as_scored(&data, &folder.path().join("M.safetensors"), "first:12", "aedat");
}

/// Recordings kept out are longer, and silent in between, than what the silence was settled by.
#[test]
fn the_accuracy_of_every_epoch_is_that_of_streaming() {
    let (folder, val) = (pips(4), tempfile::tempdir().unwrap());
    let data = folder.path().join("pips");
    for label in ["cl", "di", "he", "sp"] {
        std::fs::create_dir(val.path().join(label)).unwrap();
        for (k, silence_us) in [(0, 0), (1, 9_000), (2, 60_000), (3, 300_000)] {
            let name = format!("{label}/{label}_{k}");
            let from = data.join(format!("{name}.aedat4"));
            let to = val.path().join(format!("{name}.csv"));
            check(&["convert", "-q", text(&from), text(&to)], 0);
            let csv = std::fs::read_to_string(&to).unwrap();
            std::fs::write(to, with_silence(&csv, 2, silence_us)).unwrap();
        }
    }
    for (n, more) in
        [&["--keep", "best"][..], &["--keep", "last"], &["--loss", "mean"]].iter().enumerate()
    {
        let [out, log] = ["M", "log"].map(|name| folder.path().join(format!("{name}{n}")));
        let train =
            ["train", text(&data), "--val", text(val.path()), "--epochs", "4", "--lr", "0.02"];
        let files = ["--size", "35x35", "--out", text(&out), "--log", text(&log)];
        let (stdout, _) = check(&[&train[..], &files, more].concat(), 0);
        let scored: Value = serde_json::from_str(&stdout).unwrap();
        let log = std::fs::read_to_string(&log).unwrap();
        let epochs = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let told: Vec<f64> = epochs.map(|e| e["held_out"]["accuracy"].as_f64().unwrap()).collect();
        let best = told.iter().copied().fold(0.0, f64::max);
        let expected = if n == 0 { best } else { *told.last().unwrap() };
        assert_eq!(scored["accuracy"]["share"], expected, "{more:?}: {told:?}");
        assert_eq!(scored["optimistic"].as_bool(), (n == 0).then_some(true), "{more:?}");
    }
}

/// Clocks that go back in the middle of a recording, by more and by less than the silence of 30 ms that
/// is settled, among those trained on and those kept out.
#[test]
fn recordings_whose_clock_is_reset_are_scored_as_they_stream() {
    let (folder, clocks) = (pips(6), tempfile::tempdir().unwrap());
    let data = folder.path().join("pips");
    for label in ["cl", "di", "he", "sp"] {
        std::fs::create_dir(clocks.path().join(label)).unwrap();
        for (k, later_us) in [20_000, -1_000_000, 0, -1_000_000, -6_000, -40_000].iter().enumerate()
        {
            let name = format!("{label}/{label}_{k}");
            let from = data.join(format!("{name}.aedat4"));
            let to = clocks.path().join(format!("{name}.csv"));
            check(&["convert", "-q", text(&from), text(&to)], 0);
            let csv = with_silence(&std::fs::read_to_string(&to).unwrap(), 0, 2_000_000);
            std::fs::write(to, with_silence(&csv, 2, *later_us)).unwrap();
        }
    }
    let data = text(clocks.path());
    for augment in ["none", "shift:1,hflip"] {
        let [out, log] = ["M", "log"].map(|name| folder.path().join(name));
        let train = ["train", data, "--split", "first:2", "--epochs", "3", "--augment", augment];
        let files = ["--size", "35x35", "--out", text(&out), "--log", text(&log)];
        let (trained, _) = check(&[&train[..], &files].concat(), 0);
        let (scored, _) =
            check(&["eval", data, "--split", "first:2", "--model", text(&out), "--each"], 0);
        let trained: Value = serde_json::from_str(&trained).unwrap();
        let scored: Vec<Value> =
            scored.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (score, recordings) = scored.split_last().unwrap();
        for key in ["accuracy", "confusion", "after_ms", "synaptic_operations", "windows"] {
            assert_eq!(trained[key], score[key], "{key}");
        }
        let log = std::fs::read_to_string(&log).unwrap();
        let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!(last["held_out"]["accuracy"], score["accuracy"]["share"]);
        let report = std::fs::read(folder.path().join("M.report/report.json")).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        for (ours, theirs) in report["recordings"].as_array().unwrap().iter().zip(recordings) {
            for key in ["name", "class", "label"] {
                assert_eq!(ours[key], theirs[key]);
            }
        }
    }
}

/// A recording's events so much later: from half of them on, or all of them where `part` is 0.
fn with_silence(csv: &str, part: usize, later_us: i64) -> String {
    let lines: Vec<&str> = csv.lines().collect();
    let from = lines.len().checked_div(part).unwrap_or(0);
    let moved = lines.iter().enumerate().map(|(k, line)| {
        let Some((t, rest)) = line.split_once(',') else { return format!("{line}\n") };
        match t.parse::<u64>() {
            Ok(t) if k > from => format!("{},{rest}\n", t.strict_add_signed(later_us)),
            _ => format!("{line}\n"),
        }
    });
    moved.collect()
}

/// `train`, `eval` and `replay` agree on every recording kept out and on the number of windows, and
/// `eval`'s accuracy after every millisecond is that of `replay`'s windows.
fn check_streams_as_scored(data: &Path, model: &Path, split: &str, extension: &str) {
    let (trained, _) =
        check(&["train", text(data), "--split", split, "--seed", "1", "--out", text(model)], 0);
    let (evaluated, _) =
        check(&["eval", text(data), "--split", split, "--model", text(model), "--each"], 0);
    let lines: Vec<Value> =
        evaluated.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (score, recordings) = lines.split_last().unwrap();
    let trained: Value = serde_json::from_str(&trained).unwrap();
    for key in ["accuracy", "confusion", "after_ms", "synaptic_operations"] {
        assert_eq!(trained[key], score[key], "{key}");
    }
    let after_ms: Vec<(u64, f64)> = serde_json::from_value(score["after_ms"].clone()).unwrap();
    let (mut right_after, mut n_windows) = (vec![0; after_ms.len()], 0);
    for recording in recordings {
        let name = recording["name"].as_str().unwrap();
        assert!(name.ends_with(extension), "{name}");
        let path = data.join(name);
        let (records, _) = check(&["replay", text(&path), "--model", text(model)], 0);
        let records: Vec<Value> =
            records.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let summary = records.last().unwrap();
        assert_eq!(summary["type"], "summary");
        assert_eq!(summary["label"], recording["label"], "{name}");
        assert_eq!(
            summary["confidence"].as_f64().unwrap() as f32,
            recording["confidence"].as_f64().unwrap() as f32
        );
        let windows: Vec<&Value> =
            records.iter().filter(|record| record["type"] == "prediction").collect();
        n_windows += windows.len();
        let first_us = windows[0]["t_us"].as_u64().unwrap() - 1000;
        for ((ms, _), right_after) in after_ms.iter().zip(&mut right_after) {
            let until = first_us + 1000 * *ms;
            let passed = windows.iter().take_while(|w| w["t_us"].as_u64().unwrap() <= until);
            let right = passed.last().is_some_and(|w| w["label"] == recording["class"]);
            *right_after += u64::from(right);
        }
    }
    assert_eq!(score["windows"], n_windows);
    let share = |right: u64| right as f64 / recordings.len() as f64;
    for ((ms, accuracy), right) in after_ms.iter().zip(&right_after) {
        assert!((accuracy - share(*right)).abs() < 1e-9, "after {ms} ms");
    }
    let anytime = score["anytime"].as_array().unwrap();
    assert_eq!(anytime.len(), 8);
    for row in anytime {
        let until = |(ms, _): &&(u64, f64)| *ms <= row["ms"].as_u64().unwrap();
        let (_, expected) = after_ms.iter().take_while(until).last().unwrap();
        assert_eq!(row["accuracy"].as_f64(), Some(*expected), "{row}");
    }
}

#[test]
fn the_sensor_asked_for_in_training_is_not_that_of_another_camera() {
    let folder = pips(1);
    let path = |name: &str| folder.path().join(name);
    let (data, model) = (path("pips"), path("M"));
    let [one, large, unnamed] = ["pips/di/di_0.aedat4", "large.aedat4", "unnamed.csv"].map(path);
    check(&["convert", "--sensor", "346x260", text(&one), text(&large)], 0);
    check(&["convert", text(&one), text(&unnamed)], 0);
    let named = std::fs::read_to_string(&unnamed).unwrap();
    std::fs::write(&unnamed, named.replacen("t,x@35,y@35,", "t,x,y,", 1)).unwrap();
    let train = |flags: &[&str]| {
        let train = ["train", "-q", "--epochs", "1", "--out", text(&model), text(&data)];
        check(&[&train[..], flags].concat(), 0);
    };
    let replay = |flags: &[&str], recording: &Path, code| {
        check(&[&["replay", "--model", text(&model), text(recording)], flags].concat(), code)
    };
    train(&["--sensor", "70x70", "--scale", "--size", "35x35"]);
    let [as_trained, as_named] = ["70x70", "346x260"].map(|size| {
        [&unnamed, &large].map(|recording| replay(&["--sensor", size], recording, 0).0)
    });
    assert_ne!(as_trained, as_named);
    assert_eq!(replay(&[], &unnamed, 0), (as_trained[0].clone(), String::new()));
    assert_eq!(replay(&[], &large, 0), (as_named[1].clone(), String::new()));

    train(&["--sensor", "35x35"]);
    // As model files had it before.
    let mut old = Model::from_bytes(&std::fs::read(&model).unwrap()).unwrap();
    old.card.view = ViewSpec { sensor: old.card.view.unnamed_sensor, ..ViewSpec::default() };
    let old = old.to_bytes().unwrap();
    for bytes in [std::fs::read(&model).unwrap(), old] {
        std::fs::write(&model, bytes).unwrap();
        let (_, told) = replay(&[], &large, 3);
        for part in ["346x260", "35x35", "--sensor 35x35", "--scale"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let (lines, told) = replay(&[], &unnamed, 0);
        assert!(lines.lines().count() > 10 && told.is_empty(), "{told}");
        assert_eq!(
            replay(&["--sensor", "35x35"], &large, 0).0.lines().count(),
            lines.lines().count()
        );
    }
}

#[test]
fn a_fold_is_scored_on_its_own_recordings_whatever_else_is_kept_out() {
    let folder = pips(2);
    let data = folder.path().join("pips");
    let out = folder.path().join("M");
    let arguments = ["train", text(&data), "--epochs", "1", "--out", text(&out)];
    let (stdout, _) = check(&[&arguments[..], &["--folds", "2", "--val", text(&data)]].concat(), 0);
    let told: Value = serde_json::from_str(&stdout).unwrap();
    let n = |fold: &Value| fold["score"]["accuracy"]["n"].as_u64().unwrap();
    assert_eq!(told["folds"].as_array().unwrap().iter().map(n).sum::<u64>(), 8);
    assert_eq!(told["accuracy"]["n"], 8);
    assert_eq!(told["cross_validation"]["n"], 8);
    let report = std::fs::read(folder.path().join("M.report/report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["cross_validation"], told["cross_validation"]);
    assert_eq!(report["data"]["others"][0][0], "--val");
    let page = std::fs::read_to_string(folder.path().join("M.report/index.html")).unwrap();
    let share = told["cross_validation"]["share"].as_f64().unwrap();
    assert!(page.contains(&format!("<p class=\"big\">{:.1} %</p>", 100.0 * share)), "{share}");
}

#[test]
fn wrong_use_is_said_in_one_line() {
    let folder = pips(2);
    let data = folder.path().join("pips");
    let data = text(&data);
    let out = folder.path().join("M");
    let out = text(&out);
    for (arguments, expected) in [
        (&["--epochs", "0"][..], "--epochs 0"),
        (&["--lr", "0"], "--lr"),
        (&["--batch", "0"], "--batch 0"),
        (&["--loss", "sum"], "no loss is called 'sum'"),
        (&["--augment", "shift"], "shift takes a number"),
        (&["--augment", "blur:1"], "no augmentation is called 'blur'"),
        (&["--split", "last:2"], "expected first:N"),
        (&["--split", "first:2"], "no recording to be kept out"),
        (&["--folds", "1"], "--folds 1"),
        (&["--folds", "2", "--fold", "7"], "there is no such fold"),
        (&["--keep", "best"], "--keep best needs"),
        (&["--resume"], "there is no"),
        (&["--schedule", "linear"], "no schedule is called 'linear'"),
        (&["--group-by", "time"], "--group-by time"),
        (&["--folds", "FOLDS.csv:k", "--group-by", "time"], "--group-by time"),
        (&["--folds", "5", "--group-by", "time"], "where all begin at 0"),
        (&["--window", "0ms"], "--window"),
        (&["--window", "61s"], "--window"),
        (&["--window", "30ms"], "tau_mem_inv"),
        (&["--hidden", "100000"], "65536"),
        (&["--hidden", "20000"], "weights"),
    ] {
        let (_, stderr) = check(&[&["train", data, "--out", out], arguments].concat(), 2);
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
        let errors = stderr.lines().filter(|line| line.starts_with("error:")).count();
        assert_eq!(errors, 1, "{stderr}");
    }
    assert!(!Path::new(out).exists());
}

#[test]
fn what_is_trained_on_is_not_replaced() {
    let folder = pips(2);
    let data = folder.path().join("pips");
    let list = folder.path().join("listed");
    std::fs::create_dir(&list).unwrap();
    let labels: String = ["cl", "di"]
        .iter()
        .map(|class| {
            let name = format!("{class}_0.aedat4");
            std::fs::copy(data.join(class).join(&name), list.join(&name)).unwrap();
            format!("{name},{class}\n")
        })
        .collect();
    std::fs::write(list.join("labels.csv"), labels).unwrap();
    // A dataset of links to that one.
    let linked = folder.path().join("linked");
    std::fs::create_dir(&linked).unwrap();
    for name in ["labels.csv", "cl_0.aedat4", "di_0.aedat4"] {
        std::os::unix::fs::symlink(list.join(name), linked.join(name)).unwrap();
    }
    let through = ["labels.csv", "cl_0.aedat4"].map(|name| linked.join(name));
    let [linked, label_link, recording_link] =
        [&linked, &through[0], &through[1]].map(|path| text(path));
    let recording = data.join("cl/cl_0.aedat4");
    let (labels, model) = (list.join("labels.csv"), folder.path().join("M.safetensors"));
    let [data, list, recording, labels, model] =
        [&data, &list, &recording, &labels, &model].map(|path| text(path));
    for arguments in [
        &[data, "--out", recording][..],
        &[data, "--out", model, "--log", recording],
        &[list, "--out", labels],
        &[list, "--out", model, "--also", data, "--log", recording],
        &[list, "--out", recording, "--val", data],
        &[linked, "--out", label_link],
        &[linked, "--out", recording_link],
    ] {
        let before = [recording, labels].map(|path| std::fs::read(path).unwrap());
        let (_, told) = check(&[&["train", "--epochs", "1"], arguments].concat(), 2);
        assert!(told.contains("one of the files to train on"), "{told}");
        assert!(before == [recording, labels].map(|path| std::fs::read(path).unwrap()));
    }
}

/// As its card says. Takes minutes: `cargo test --release --test training -- --ignored`.
#[test]
#[ignore = "makes and trains on 2000 recordings; run it when the generator or the training changes"]
fn the_shipped_model_is_made_by_its_cards_command() {
    let folder = tempfile::tempdir().unwrap();
    let (pips, out) = (folder.path().join("pips"), folder.path().join("poker.safetensors"));
    check(&["synth", "-q", "--out", text(&pips), "--per-class", "500", "--seed", "11"], 0);
    let recipe = ["--epochs", "20", "--augment", "shift:1,hflip", "--loss", "mix:0.9"];
    check(&[&["train", "-q", text(&pips), "--out", text(&out)], &recipe[..]].concat(), 0);
    let shipped = std::fs::read("models/poker.safetensors").unwrap();
    assert!(std::fs::read(out).unwrap() == shipped, "another model");
}

/// The loss overflows at such a rate.
#[test]
fn a_training_that_diverges_says_what_to_try() {
    let folder = pips(2);
    let data = folder.path().join("pips");
    let out = folder.path().join("M");
    let arguments = ["train", text(&data), "--out", text(&out), "--lr", "1e38"];
    let (_, stderr) = check(&arguments, 3);
    assert!(stderr.contains("diverged in epoch") && stderr.contains("try --lr"), "{stderr}");
    assert!(!out.exists());
}

/// The loss stays a number where neurons have no voltage, for they never spike.
#[test]
fn weights_that_are_no_numbers_are_said_in_their_epoch() {
    let folder = pips(8);
    let data = folder.path().join("pips");
    let out = folder.path().join("M");
    for more in [&["--init-scale", "1e38"][..], &["--init-scale", "1e38", "--clip", "1"]] {
        let train = ["train", text(&data), "--epochs", "50", "--out", text(&out)];
        let (_, stderr) = check(&[&train[..], more].concat(), 3);
        assert!(stderr.contains("diverged in epoch 1: "), "{more:?}: {stderr}");
        assert!(stderr.contains("--init-scale") && !stderr.contains("does not spike"), "{stderr}");
        assert!(!out.exists());
    }
}

#[test]
fn a_layer_that_does_not_spike_is_said() {
    let folder = pips(2);
    let data = folder.path().join("pips");
    let out = folder.path().join("M");
    let arguments =
        ["train", text(&data), "--out", text(&out), "--epochs", "1", "--init-scale", "1e-6"];
    let (_, stderr) = check(&arguments, 0);
    assert!(stderr.contains("does not spike"), "{stderr}");
}

/// A limit on file sizes stands for a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_old_model_whole() {
    let folder = pips(2);
    let data = folder.path().join("pips");
    let out = folder.path().join("M");
    std::fs::write(&out, b"the old model").unwrap();
    let script = format!(
        "trap '' XFSZ; ulimit -f 100; exec '{PROGRAM}' train '{}' --epochs 1 --out '{}'",
        data.display(),
        out.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot write") && stderr.contains(text(&out)), "{stderr}");
    assert_eq!(std::fs::read(&out).unwrap(), b"the old model");
    let report = folder.path().join("M.report");
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2 + usize::from(report.exists()), "nothing else is left beside it");
    let score: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(score["accuracy"]["n"] == 8, "what was learned is told: {score}");
}

#[test]
fn the_report_tells_what_the_network_does_before_and_after() {
    let folder = pips(3);
    let data = folder.path().join("pips");
    let out = folder.path().join("M.safetensors");
    check(&["train", text(&data), "--split", "first:2", "--epochs", "2", "--out", text(&out)], 0);
    let json = std::fs::read(folder.path().join("M.report/report.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert!(json["command"].as_str().unwrap().starts_with("dvs-stream train "));
    assert_eq!(json["epochs"].as_array().unwrap().len(), 2);
    assert_eq!(json["recordings"].as_array().unwrap().len(), 4);
    let silence = json["firing"]["after_silence"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&silence));
    let [before, after] = &json["activity"].as_array().unwrap()[..] else { panic!() };
    assert_ne!(before["variables"]["hidden.v"], after["variables"]["hidden.v"]);
    let windows = after["times_ms"].as_array().unwrap().len();
    for variable in ["hidden.z", "hidden.v", "hidden.i", "readout.v"] {
        assert_eq!(after["variables"][variable].as_array().unwrap().len(), windows, "{variable}");
    }
    for drawn in json["events"].as_array().unwrap() {
        let read = &json["recordings"][drawn["recording"].as_u64().unwrap() as usize];
        assert_eq!(drawn["right"], read["class"] == read["label"]);
        let dots = drawn["slices"].as_array().unwrap().iter().flat_map(|slice| {
            slice["dots"]
                .as_array()
                .unwrap()
                .iter()
                .map(|dot| dot["on"].as_u64().unwrap() + dot["off"].as_u64().unwrap())
        });
        assert!(dots.sum::<u64>() > 100);
    }
    assert!(!json["events"].as_array().unwrap().is_empty());
}
