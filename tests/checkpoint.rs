//! A training that was cut short: what it leaves, and what goes on from there.

mod pips;
mod program;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use dvs_stream::dataset::Loading;
use dvs_stream::dataset::split::Split;
use dvs_stream::nn::Device;
use dvs_stream::train::recipe::Recipe;
use dvs_stream::train::{self, Keep, News, Outcome, Training};
use pips::{pips, text};
use program::{PROGRAM, check};
use serde_json::Value;

/// So slow that no epoch reads more right than the first: it stays the best.
const FLAGS: [&str; 6] = ["--epochs", "5", "--lr", "1e-6", "--split", "first:2"];

/// What [`FLAGS`] say.
fn training(folder: &Path, out: &str) -> Training {
    Training {
        data: folder.join("pips"),
        also: None,
        validation: None,
        loading: Loading {
            sensor: None,
            window_us: 1000,
            gap_us: None,
            partial: Default::default(),
            view: Default::default(),
            decoder: Default::default(),
            format: None,
            labels: None,
            strict: false,
            keep_events: false,
            threads: 1,
        },
        recipe: Recipe { epochs: 5, lr: 1e-6, ..Recipe::tutorial() },
        split: Split::First(2),
        by_time: false,
        fold: None,
        keep: Keep::Last,
        out: folder.join(out),
        resume: false,
        threads: 1,
        device: Device::cpu(),
    }
}

/// Trains, and stops after so many epochs.
fn run(training: &Training, epochs: u32) -> dvs_stream::Result<Outcome> {
    let stop = AtomicBool::new(false);
    let tell = &mut |news: News<'_>| {
        if let News::Epoch(_, epoch) = news {
            stop.store(epoch.epoch >= epochs, Ordering::Relaxed);
        }
        Ok(())
    };
    train::run(training, tell, &stop)
}

fn model(training: &Training) -> Vec<u8> {
    std::fs::read(&training.out).unwrap()
}

#[test]
fn whoever_goes_on_decides_which_weights_are_kept() {
    let folder = pips(3);
    let folder = folder.path();
    let [last, best] = [(Keep::Last, "last"), (Keep::Best, "best")]
        .map(|(keep, out)| Training { keep, ..training(folder, out) });
    run(&last, 5).unwrap();
    run(&best, 5).unwrap();
    assert_ne!(model(&last), model(&best));

    let cut = Training { keep: Keep::Best, ..training(folder, "cut") };
    assert!(run(&cut, 2).unwrap().trained.interrupted.is_some());
    let cut = Training { keep: Keep::Last, resume: true, ..cut };
    assert_eq!(run(&cut, 3).unwrap().trained.epoch, 3);
    // What another --keep left behind is not taken up again.
    let forgotten = Training { keep: Keep::Best, ..training(folder, "cut") };
    let error = run(&Training { resume: true, ..forgotten }, 5).err().unwrap().to_string();
    assert!(error.contains("made without --keep best"), "{error}");
    run(&cut, 5).unwrap();
    assert_eq!(model(&cut), model(&last));
}

#[test]
fn other_recordings_kept_out_are_other_recordings() {
    let (folder, other) = (pips(3), pips(4));
    let validation = Some(folder.path().join("pips"));
    let cut = Training { validation, ..training(folder.path(), "cut") };
    run(&cut, 2).unwrap();
    for validation in [None, Some(other.path().join("pips"))] {
        let resumed = Training { validation, resume: true, ..training(folder.path(), "cut") };
        let error = run(&resumed, 5).err().unwrap().to_string();
        assert!(error.contains("other recordings"), "{error}");
    }
    run(&Training { resume: true, ..cut }, 5).unwrap();
}

#[test]
fn what_is_stopped_before_it_began_leaves_the_old_model() {
    let folder = pips(3);
    let training = training(folder.path(), "M");
    std::fs::write(&training.out, "the old model").unwrap();
    for when in ["at once", "loaded", "begins"] {
        let stop = AtomicBool::new(when == "at once");
        let tell = &mut |news: News<'_>| {
            let now = match news {
                News::Loaded(..) => when == "loaded",
                News::Begins(..) => when == "begins",
                _ => false,
            };
            stop.fetch_or(now, Ordering::Relaxed);
            Ok(())
        };
        let error = train::run(&training, tell, &stop).err().unwrap();
        assert!(matches!(error, dvs_stream::Error::Stopped), "{when}: {error}");
        assert_eq!(model(&training), b"the old model");
        assert!(!train::checkpoint_path(&training.out).exists());
    }
}

/// A silence inside of one recording, longer than a model's gap may be.
#[test]
fn a_silence_too_long_for_a_model_is_told() {
    let folder = pips(3);
    let file = folder.path().join("pips/cl/long.csv");
    std::fs::write(&file, {
        let mut text = "t,x@35,y@35,on\n".to_owned();
        for t_us in (0..40u64).map(|k| k * 200).chain((0..40).map(|k| 70_000_000 + k * 200)) {
            text += &format!("{t_us},{},5,1\n", 3 + t_us / 200 % 20);
        }
        text
    })
    .unwrap();
    let training = training(folder.path(), "M");
    let mut notes = Vec::new();
    let stop = AtomicBool::new(false);
    let tell = &mut |news: News<'_>| {
        if let News::Note(note) = news {
            notes.push(note);
        }
        Ok(())
    };
    let recipe = Recipe { epochs: 1, hidden: vec![2], ..training.recipe.clone() };
    let training = Training { recipe, split: Split::All, ..training };
    let trained = train::run(&training, tell, &stop).unwrap().trained;
    assert_eq!(trained.model.card.gap_us, 100_000_000);
    let note = notes.iter().find(|note| note.contains("cl/long.csv")).unwrap();
    assert!(note.contains("is silent for") && note.contains("100s"), "{note}");
}

/// The result of hours is told, whatever becomes of its report.
#[test]
fn a_report_that_cannot_be_written_costs_no_result() {
    let folder = pips(3);
    let data = folder.path().join("pips");
    let out = folder.path().join("M");
    let report = folder.path().join("r".repeat(300));
    let train = ["train", text(&data), "--epochs", "1", "--out", text(&out)];
    let (stdout, told) = check(&[&train[..], &["--report", text(&report)]].concat(), 1);
    assert!(stdout.contains("\"accuracy\""), "{stdout}");
    assert!(told.contains("cannot make the folder") && !told.contains(": the report"), "{told}");
    check(&["info", text(&out)], 0);
}

#[test]
fn a_log_holds_the_epochs_before_it_was_gone_on_with() {
    let folder = pips(3);
    let folder = folder.path();
    let [data, whole, cut, logs] = ["pips", "whole", "cut", "logs"].map(|name| folder.join(name));
    let train = |out: &Path, more: &[&str], code| {
        let fixed = ["train", text(&data), "--out", text(out), "--log", text(&logs)];
        check(&[&fixed[..], &FLAGS, more].concat(), code).1
    };
    for (flags, part) in [
        (&["--log", text(&whole)][..], "--out and --log name the same file"),
        (&["--report", text(&whole)], "--out and --report name the same file"),
        (&["--log", text(&folder.join("whole.resume"))], "the checkpoint lies there"),
        (&["--report", "Cargo.toml/report"], "Cargo.toml is no folder"),
    ] {
        let told = check(&[&["train", "nowhere", "--out", text(&whole)], flags].concat(), 2).1;
        assert!(told.contains(part), "{flags:?}: {told}");
    }
    let nowhere = ["train", "nowhere", "--out", text(&whole), "--log", "nowhere/log"];
    let told = check(&nowhere, 2).1;
    assert!(told.contains("--log nowhere/log: there is no folder nowhere"), "{told}");
    train(&whole, &[], 0);
    let expected = std::fs::read_to_string(&logs).unwrap();
    assert_eq!(expected.lines().count(), 5);

    run(&training(folder, "cut"), 2).unwrap();
    std::fs::write(&logs, "an old log").unwrap();
    let told = train(&cut, &["--resume", "--hidden", "7"], 2);
    assert!(told.contains("made with --hidden 100, this command says 7"), "{told}");
    assert_eq!(std::fs::read_to_string(&logs).unwrap(), "an old log");
    train(&cut, &["--resume"], 0);
    assert_eq!(std::fs::read_to_string(&logs).unwrap(), expected);
}

/// Trains without end, and is interrupted after an epoch. No file can be larger than so many blocks.
#[cfg(unix)]
fn interrupted(folder: &Path, more: &[&str], most: &str) -> Output {
    let more = [&["--split", "first:2", "--epochs", "1000000"], more].concat();
    interrupted_at(folder, &more, most, |log| !log.is_empty())
}

/// Interrupts a training as soon as its log is what is waited for.
#[cfg(unix)]
fn interrupted_at(
    folder: &Path,
    more: &[&str],
    most: &str,
    until: impl Fn(&str) -> bool,
) -> Output {
    let [data, out, log] = ["pips", "M", "log"].map(|name| folder.join(name));
    let _ = std::fs::remove_file(&log);
    let script = "trap '' XFSZ; ulimit -f $0; exec \"$@\"";
    let child = Command::new("sh")
        .args(["-c", script, most, PROGRAM])
        .args(["train", text(&data), "--out", text(&out), "--log", text(&log)])
        .args(["--lr", "1e-6"])
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !until(&std::fs::read_to_string(&log).unwrap_or_default()) {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let interrupt = ["-INT", &child.id().to_string()];
    assert!(Command::new("kill").args(interrupt).status().unwrap().success());
    child.wait_with_output().unwrap()
}

#[cfg(unix)]
fn left(folder: &Path) -> PathBuf {
    check(&["info", text(&folder.join("M"))], 0);
    assert!(folder.join("M.report/index.html").is_file());
    folder.join("M.resume")
}

#[cfg(unix)]
#[test]
fn an_interruption_saves_everything_and_says_what_the_model_is() {
    let folder = pips(3);
    for (more, expected) in [(&[][..], "is that of now"), (&["--keep", "best"], "of epoch 1")] {
        let output = interrupted(folder.path(), more, "unlimited");
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(130), "{told}");
        let line = told.lines().find(|line| line.starts_with("interrupted: ")).unwrap();
        assert!(line.contains(expected) && line.contains("--resume goes on"), "{told}");
        assert!(left(folder.path()).is_file());
        let score: Value = serde_json::from_slice(&output.stdout).unwrap();
        let report = std::fs::read(folder.path().join("M.report/report.json")).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        assert!(score["interrupted"] == true && report["interrupted"] == true, "{score}");
        let kept = report["kept"].as_str().unwrap();
        let n = report["epochs"].as_array().unwrap().len();
        let expected = format!("the training was interrupted: {n} of ");
        assert!(kept.contains(&expected) && !kept.contains("the last"), "{kept}");
    }
}

/// The second fold is interrupted.
#[test]
fn folds_that_are_done_are_told_whatever_comes_after() {
    let folder = pips(3);
    let training = training(folder.path(), "M");
    let training = Training { split: Split::Folds(3), ..training };
    let (stop, mut done) = (AtomicBool::new(false), Vec::new());
    let tell = &mut |news: News<'_>| {
        match news {
            News::Fold(name, score) => done.push((name.to_owned(), score.accuracy.n)),
            News::Epoch("1", _) => stop.store(true, Ordering::Relaxed),
            _ => (),
        }
        Ok(())
    };
    let error = train::run(&training, tell, &stop).err().unwrap();
    assert!(matches!(error, dvs_stream::Error::Stopped), "{error}");
    assert_eq!(done, [("0".to_owned(), 4)]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_cross_validation_prints_its_folds() {
    let folder = pips(3);
    let flags = ["-q", "--folds", "2", "--epochs", "1000", "--hidden", "2"];
    for output in ["jsonl", "text"] {
        let output_flag = ["--output", output];
        let until = |log: &str| log.contains("\"fold\":\"1\"");
        let ended =
            interrupted_at(folder.path(), &[&flags[..], &output_flag].concat(), "unlimited", until);
        let stdout = String::from_utf8(ended.stdout).unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(130), "{stderr}");
        assert!(stderr.contains("no model was written"), "{stderr}");
        let expected = if output == "text" { "  fold 0  " } else { "\"fold\":\"0\"" };
        assert!(stdout.contains(expected) && !stdout.contains("nan"), "{stdout}");
        assert!(!folder.path().join("M").exists());
    }
}

#[cfg(unix)]
#[test]
fn a_checkpoint_that_cannot_be_written_costs_no_model() {
    let folder = pips(3);
    let output = interrupted(folder.path(), &["--hidden", "200"], "5000");
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("M.resume") && !told.contains("--resume goes on"), "{told}");
    assert!(!left(folder.path()).exists());
}
