//! What `train` and `eval` say of recordings that are damaged, do not fit or lose events, and how
//! every command ends then.

mod pips;
mod program;

use std::path::Path;

use dvs_stream::decide::{Readout, Silence};
use dvs_stream::frame::{Frames, Window};
use dvs_stream::model::Model;
use dvs_stream::score::Reader;
use dvs_stream::session::Rules;
use pips::{pips, text};
use program::{DECK, check};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

const TRUTH: [&str; 2] = ["--truth", "fixtures/deck.csv"];

fn last_line(lines: &str) -> Value {
    serde_json::from_str(lines.lines().last().unwrap()).unwrap()
}

fn halve(from: &Path, to: &Path) {
    let bytes = std::fs::read(from).unwrap();
    std::fs::write(to, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn the_good_part_of_a_cut_deck_is_scored() {
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.aedat4");
    halve(Path::new(DECK), &cut);
    let eval = [&["eval", text(&cut)][..], &TRUTH].concat();
    let (stdout, stderr) = check(&eval, 1);
    let score = last_line(&stdout);
    let [right, n] = ["right", "n"].map(|key| score["right"][key].as_u64().unwrap());
    assert!(n == 8 && (1..8).contains(&right), "{score}");
    assert!(stderr.starts_with("error: ") && stderr.contains("cut.aedat4: "), "{stderr}");
    let (stdout, stderr) = check(&[&eval[..], &["--strict"]].concat(), 1);
    assert!(stdout.is_empty() && stderr.contains("cut.aedat4: "), "{stderr}");
}

#[test]
fn a_damaged_recording_is_named_left_out_and_ends_in_1() {
    let folder = pips(3);
    let data = folder.path().join("pips");
    let cut = data.join("di/di_1.aedat4");
    halve(&cut, &cut);
    let out = folder.path().join("M");
    let train = ["train", text(&data), "--epochs", "1", "--out", text(&out)];
    let (_, stderr) = check(&train, 1);
    assert!(stderr.contains("11 of 12 recordings"), "{stderr}");
    for command in [&train[..], &["eval", text(&data)]] {
        for flag in ["--output=jsonl", "-q", "--strict"] {
            let (stdout, stderr) = check(&[command, &[flag]].concat(), 1);
            assert_eq!(stdout.is_empty(), flag == "--strict");
            let named =
                |line: &&str| line.starts_with("error: ") && line.contains("di/di_1.aedat4");
            assert_eq!(stderr.lines().filter(named).count(), 1, "{command:?} {flag}: {stderr}");
        }
    }
}

#[test]
fn a_cause_has_one_exit_code_whatever_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let [large, pointer, one] =
        ["large.aedat4", "lfs.aedat4", "one.aedat"].map(|name| folder.path().join(name));
    check(&["convert", "--sensor", "346x260", DECK, text(&large)], 0);
    std::fs::write(&pointer, "version https://git-lfs.github.com/spec/v1\n").unwrap();
    let eval = |path| [&["eval", path], &TRUTH[..]].concat();
    for command in [
        &["replay", "--stream-id", "9", DECK][..],
        &["info", "--stream-id", "9", DECK],
        &["convert", "--stream-id", "9", DECK, text(&one)],
        &[&eval(DECK)[..], &["--stream-id", "9"]].concat(),
        &["replay", text(&pointer)],
        &["info", text(&pointer)],
        &["convert", text(&pointer), text(&one)],
        &eval(text(&pointer)),
        &["replay", "absent.aedat4"],
        &["info", "absent.aedat4"],
        &["convert", "absent.aedat4", text(&one)],
        &["eval", "absent"],
        &["send", "absent.aedat4", "tcp://127.0.0.1:1"],
    ] {
        check(command, 2);
    }
    for command in [&["replay", text(&large)][..], &eval(text(&large))] {
        let (_, stderr) = check(command, 3);
        assert!(stderr.contains("346x260") && stderr.contains("--scale"), "{stderr}");
    }
    let classes = folder.path().join("classes");
    std::fs::create_dir_all(classes.join("he")).unwrap();
    std::fs::rename(&large, classes.join("he/large.aedat4")).unwrap();
    check(&["eval", text(&classes)], 3);
}

#[test]
fn events_outside_the_sensor_are_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("he")).unwrap();
    std::fs::copy(DECK, folder.path().join("he/deck.aedat4")).unwrap();
    let crop = ["--sensor", "60x60", "--crop", "20,20,35,35"];
    for data in [&["eval", DECK][..], &["eval", text(folder.path())]] {
        let (_, stderr) = check(&[data, &crop].concat(), 0);
        assert!(stderr.contains("outside the sensor"), "{stderr}");
        let (_, stderr) = check(data, 0);
        assert!(!stderr.contains("outside the sensor"), "{stderr}");
    }
}

#[test]
fn a_truth_is_read_to_the_letter() {
    let folder = tempfile::tempdir().unwrap();
    let truth = folder.path().join("truth.csv");
    let last = u64::MAX;
    for (spans, part) in [
        ("0;25290,di\n", "line 1: expected from_us,to_us,label"),
        ("start,end,label\n0,25290,di\n", "line 1: expected"),
        ("from_us,to_us,label\n", "it holds no span"),
        ("", "it holds no span"),
        ("0,9,di\n9,8,di\n", "line 2: the span from 9 to 8"),
        ("0,9,\"di\n", "line 1: a quote"),
        ("0,9,heart\n", "line 1: 'heart' is none of the model's labels"),
    ] {
        std::fs::write(&truth, spans).unwrap();
        let (_, stderr) = check(&["eval", DECK, "--truth", text(&truth)], 2);
        assert!(stderr.contains(part) && stderr.contains("truth.csv"), "{spans}: {stderr}");
    }
    std::fs::write(&truth, format!("\u{feff}from_us,to_us,label\r\n0,{last},\"di\"\r\n")).unwrap();
    let (stdout, _) = check(&["eval", DECK, "--truth", text(&truth)], 0);
    assert_eq!(last_line(&stdout)["right"]["n"], 1);
}

#[test]
fn flags_without_effect_are_refused() {
    let folder = pips(2);
    let data = folder.path().join("pips");
    let (data, out) = (text(&data), folder.path().join("M"));
    for (command, part) in [
        (&["eval", DECK, "--split", "first:1"][..], "--split goes with a folder"),
        (&["eval", DECK, "--folds", "2"], "--folds goes with a folder"),
        (&["eval", DECK, "--group-by", "time"], "--group-by goes with a folder"),
        (&["eval", DECK, "--each"], "--each goes with a folder"),
        (&["eval", data, "--truth", "fixtures/deck.csv"], "--truth goes with one recording"),
        (&["eval", data, "--output", "csv"], "--output csv"),
        (&["eval", DECK, "--output", "csv"], "--output csv"),
        (&["info", DECK, "--output", "csv"], "--output csv"),
        (&["info", "--devices", "--output", "csv"], "--output csv"),
        (&["train", data, "--out", text(&out), "--output", "csv"], "--output csv"),
        (&["info", DECK, "--max-packet", "5000"], "1..=1024"),
        (&["info", DECK, "--max-packet", "0"], "1..=1024"),
    ] {
        let (stdout, stderr) = check(command, 2);
        assert!(stdout.is_empty() && stderr.contains(part), "{command:?}: {stderr}");
    }
    assert!(!out.exists());
}

#[test]
fn a_split_that_leaves_nothing_to_score_says_why() {
    let folder = pips(2);
    let data = folder.path().join("pips");
    for (flags, part) in [
        (&["--folds", "2"][..], "name it with --fold"),
        (&["--folds", "2", "--fold", "9"], "--fold 9: there is no such fold, but 0, 1"),
        (&["--group-by", "time"], "--split or --folds"),
    ] {
        let (_, stderr) = check(&[&["eval", text(&data)], flags].concat(), 2);
        assert!(stderr.contains(part), "{flags:?}: {stderr}");
    }
}

#[test]
fn the_report_lists_every_recording_that_was_scored() {
    let folder = pips(2);
    let data = folder.path().join("pips");
    let out = folder.path().join("M");
    let train = ["train", text(&data), "--epochs", "1", "--out", text(&out)];
    for (more, n) in [
        (&["--also", text(&data)][..], 16),
        (&["--also", text(&data), "--val", text(&data)], 8),
        (&["--also", text(&data), "--val", text(&data), "--split", "first:1"], 12),
    ] {
        let (stdout, stderr) = check(&[&train[..], more].concat(), 0);
        let leak = match more.contains(&"--val") {
            true => stderr.contains(&format!("{n} of {n} recordings kept out equal one")),
            false => !stderr.contains("kept out equal"),
        };
        assert!(leak, "{more:?}: {stderr}");
        let told: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(told["accuracy"]["n"], n);
        let report = std::fs::read(folder.path().join("M.report/report.json")).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        assert_eq!(report["recordings"].as_array().unwrap().len(), n, "{more:?}");
        let noted = report["data"]["notes"].to_string().contains("kept out equal one");
        assert_eq!(noted, more.contains(&"--val"), "{more:?}");
        let epochs = stderr.lines().filter(|line| {
            ["epoch 1/1  loss ", "  accuracy ", "  firing "].iter().all(|part| line.contains(part))
        });
        assert_eq!(epochs.count(), 1, "a line an epoch: {stderr}");
    }
}

/// Whose networks' epochs were chosen by what they are scored on.
#[test]
fn figures_that_chose_the_epoch_are_called_optimistic() {
    let folder = pips(2);
    let data = folder.path().join("pips");
    let out = folder.path().join("M");
    let train = ["train", text(&data), "--epochs", "1", "--out", text(&out), "--folds", "2"];
    for (keep, optimistic) in [("best", Some(true)), ("last", None)] {
        let train = [&train[..], &["--val", text(&data), "--keep", keep]].concat();
        let (stdout, _) = check(&train, 0);
        let told: Value = serde_json::from_str(&stdout).unwrap();
        let folds = told["folds"].as_array().unwrap().iter();
        for figure in folds.chain([&told, &told["cross_validation"]]) {
            assert_eq!(figure["optimistic"].as_bool(), optimistic, "{figure}");
        }
        let (stdout, _) = check(&[&train[..], &["--output", "text"]].concat(), 0);
        let first = stdout.lines().next().unwrap();
        assert_eq!(first.contains("optimistic"), optimistic.is_some(), "{first}");
        let page = std::fs::read_to_string(folder.path().join("M.report/index.html")).unwrap();
        for part in ["an optimistic figure", "cross-validation, optimistic", "recordings of --val,"]
        {
            assert_eq!(page.contains(part), optimistic.is_some(), "{part}");
        }
        assert!(!page.contains("shown here"));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_that_cannot_be_written_costs_no_model() {
    let folder = pips(2);
    let data = folder.path().join("pips");
    let out = folder.path().join("M");
    let train = ["train", text(&data), "--epochs", "2", "--log", "/dev/full", "--out", text(&out)];
    let (stdout, stderr) = check(&train, 1);
    assert_eq!(last_line(&stdout)["type"], "training");
    assert_eq!(stderr.matches("/dev/full").count(), 1, "{stderr}");
    check(&["info", text(&out)], 0);
}

#[test]
fn a_batch_too_large_is_wrong_use() {
    let folder = pips(2);
    let data = folder.path().join("pips");
    let out = folder.path().join("M");
    let train = ["train", text(&data), "--window", "1us", "--hidden", "2000", "--out", text(&out)];
    let (_, stderr) = check(&train, 2);
    assert!(stderr.contains("--batch") && stderr.contains("--window"), "{stderr}");
}

/// Whatever the order that the seed gives, and whichever recordings are kept out.
#[test]
fn a_batch_that_may_become_too_large_is_found_before_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (set, longest) in [("long", 50_000), ("short", 5)] {
        for (class, n) in [("a", longest), ("b", 5)] {
            std::fs::create_dir_all(path(set).join(class)).unwrap();
            for (name, n) in [("0", n), ("1", 5), ("2", 5)] {
                let events = (0..n).map(|ms| format!("{ms}000,1,1,1\n")).collect::<String>();
                let path = path(set).join(class).join(name).with_extension("csv");
                std::fs::write(path, "t,x@5,y@5,on\n".to_owned() + &events).unwrap();
            }
        }
    }
    let [long, short, out] = ["long", "short", "M"].map(path);
    let network = ["--hidden", "2000", "--epochs", "3", "--out", text(&out)];
    let tail = ["--augment", "tail:10000"];
    for (data, more) in [
        (&long, &["--batch", "1"][..]),
        (&short, &["--val", text(&long), "--batch", "1"]),
        (&short, &tail),
    ] {
        let train = [&["train", text(data)], &network[..], more].concat();
        let (_, told) = check(&train, 2);
        assert!(told.contains("take a smaller --batch") && !told.contains("epoch"), "{told}");
    }
    assert!(!out.exists());
}

#[test]
fn a_long_recording_makes_no_long_report() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("M");
    for class in ["a", "b"] {
        let mut csv = "t,x@5,y@5,on\n".to_owned();
        (0..3000).for_each(|k| csv += &format!("{},{},2,1\n", 1000 * k, k % 5));
        std::fs::create_dir_all(folder.path().join("data").join(class)).unwrap();
        std::fs::write(folder.path().join(format!("data/{class}/1.csv")), csv).unwrap();
    }
    let data = folder.path().join("data");
    check(&["train", text(&data), "--epochs", "1", "--hidden", "3", "--out", text(&out)], 0);
    let report = std::fs::read(folder.path().join("M.report/report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    for activity in report["activity"].as_array().unwrap() {
        assert_eq!(activity["windows"], 3000);
        assert_eq!(activity["times_ms"].as_array().unwrap().len(), 1000);
        assert_eq!(activity["variables"]["hidden.z"].as_array().unwrap().len(), 1000);
    }
    let page = std::fs::read_to_string(folder.path().join("M.report/index.html")).unwrap();
    assert!(page.contains("its first 1,000 of 3,000 windows"));
}

/// Windows of many and of few events, with silences of all lengths between them.
#[test]
fn a_last_segment_by_itself_is_answered_as_its_session_does() {
    let model = Model::from_bytes(include_bytes!("../models/poker.safetensors")).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut longest = 0;
    for readout in [Readout::Max, Readout::Mean, Readout::MaxOver(3000), Readout::Last] {
        for _ in 0..40 {
            let silence = Silence { quiet_events: 4, gap_windows: random.random_range(1..4) };
            let rules = Rules { readout, silence, min_confidence: 0.3, window_us: 1000 };
            let mut frames = Frames::default();
            for k in 0..random.random_range(0..40u64) {
                let quiet = random.random_bool(0.4);
                let events = if quiet { random.random_range(0..4) } else { 30 };
                for event in 0..events {
                    frames.add(80 * event + random.random_range(0..80), 1);
                }
                let (t_start_us, t_end_us) = (1000 * k, 1000 * (k + 1));
                frames.close(Window { t_start_us, t_end_us, events, ..Window::default() });
            }
            let mut reader = Reader::new(&model, rules).unwrap();
            let (reading, trace) = reader.read_traced(&frames).unwrap();
            let (windows, first) = rules.last_segment(frames.windows());
            let n = model.card.labels.len();
            let rows = trace.rows("readout.v").unwrap();
            let own = &rows[rows.len() - n * windows.len()..];
            longest = longest.max(reading.segments.len());
            let verdict = rules.verdict(&frames.windows()[windows], first, own, n);
            assert_eq!(verdict, reading.verdict, "{rules:?}");
        }
    }
    assert!(longest > 2);
}
