//! The program as a user runs it: what it prints where, and its exit codes.

mod program;
mod skip;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use dvs_stream::event::{Event, SensorSize};
use dvs_stream::model::{Card, Model};
use dvs_stream::view::{Crop, ViewSpec};
use program::{DECK, program, run, stderr, stdout};
use serde_json::Value;
use skip::skip;

/// Runs, expects an exit code, gives standard output.
fn check(arguments: &[&str], code: i32) -> String {
    program::check(arguments, code).0
}

fn records(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_type<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["type"] == kind).collect()
}

/// Lines without the name of their stream.
fn nameless(lines: &str, name: &str) -> String {
    lines.replace(&format!("\"stream\":\"{name}\""), "\"stream\":\"-\"")
}

#[test]
fn a_deck_reads_as_its_segments() {
    let records = records(&check(&["replay", DECK], 0));
    let truth = std::fs::read_to_string("fixtures/deck.csv").unwrap();
    let truth: Vec<&str> = truth.lines().skip(1).collect();
    let segments = of_type(&records, "segment");
    assert_eq!(segments.len(), truth.len());
    for (segment, truth) in segments.iter().zip(&truth) {
        let [from_us, to_us, label] = truth.split(',').collect::<Vec<_>>()[..] else { panic!() };
        let near = |key: &str, t_us: &str| {
            segment[key].as_u64().unwrap().abs_diff(t_us.parse().unwrap()) < 2500
        };
        assert!(near("from_us", from_us) && near("to_us", to_us), "{segment} {truth}");
        assert_eq!(segment["label"], label, "{segment} {truth}");
    }
    let summary = of_type(&records, "summary");
    assert_eq!(summary.len(), 1);
    assert_eq!(summary[0]["events"], 23958);
    let windows: Vec<u64> =
        of_type(&records, "prediction").iter().map(|p| p["window"].as_u64().unwrap()).collect();
    assert_eq!(windows, (0..windows.len() as u64).collect::<Vec<_>>());
}

/// Those of the network's readout, which `--record` keeps as they are.
#[test]
fn logits_read_back_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deck.safetensors");
    let record = path.to_str().unwrap();
    let lines = check(&["replay", "--readout", "last", "--record", record, DECK], 0);
    let read_back = lines.lines().filter_map(|line| {
        let (_, logits) = line.split_once("\"logits\":[")?;
        Some(logits.split_once(']')?.0)
    });
    let read_back: Vec<u32> = read_back
        .flat_map(|logits| logits.split(','))
        .map(|logit| logit.parse::<f32>().unwrap().to_bits())
        .collect();
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let voltages = tensors.tensor("readout.v").unwrap();
    let voltages = voltages.data().as_chunks::<4>().0.iter();
    let voltages: Vec<u32> = voltages.map(|bytes| u32::from_le_bytes(*bytes)).collect();
    assert!(voltages.len() > 400);
    assert_eq!(read_back, voltages);
}

#[test]
fn pace_slots_and_standard_input_change_no_record() {
    let plain = check(&["replay", DECK], 0);
    assert_eq!(check(&["replay", "--speed", "1", DECK], 0), plain);
    let at_once = check(&["replay", "--slots", "4", DECK, DECK, DECK, DECK], 0);
    let sorted = |lines: String| {
        let mut lines: Vec<String> = lines.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(at_once), sorted(plain.repeat(4)));
    let bytes = std::fs::read(DECK).unwrap();
    for chunk in [7, 4096, usize::MAX] {
        let mut child =
            program(&["replay", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let pieces = bytes.clone();
        let feeding = std::thread::spawn(move || {
            pieces.chunks(chunk).for_each(|piece| input.write_all(piece).unwrap());
        });
        let mut lines = String::new();
        child.stdout.take().unwrap().read_to_string(&mut lines).unwrap();
        feeding.join().unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(nameless(&lines, "stdin"), nameless(&plain, DECK), "in chunks of {chunk}");
    }
}

#[test]
fn several_files_at_once_read_as_one_after_another() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    check(&["synth", "--out", out, "--per-class", "2", "--to", "aedat2"], 0);
    let files: Vec<String> = ["cl/cl_0", "di/di_1", "he/he_0", "sp/sp_1", "cl/cl_1"]
        .iter()
        .map(|name| format!("{out}/{name}.aedat"))
        .collect();
    let with = |flags: &[&str]| {
        let names = files.iter().map(String::as_str);
        let arguments: Vec<&str> = ["replay"].iter().chain(flags).copied().chain(names).collect();
        check(&arguments, 0)
    };
    let (one, four) = (with(&[]), with(&["--slots", "4"]));
    for file in &files {
        let of_file = |lines: &str| -> Vec<String> {
            let of_it = lines.lines().filter(|line| line.contains(file.as_str()));
            of_it.map(str::to_owned).collect()
        };
        assert!(!of_file(&one).is_empty());
        assert_eq!(of_file(&one), of_file(&four), "{file}");
    }
}

#[test]
fn every_kth_window_and_always_the_last() {
    let all = records(&check(&["replay", DECK], 0));
    let last = of_type(&all, "prediction").last().unwrap()["window"].as_u64().unwrap();
    for every in [5, 7, 1_000_000] {
        let some = records(&check(&["replay", "--every", &every.to_string(), DECK], 0));
        let windows: Vec<u64> =
            of_type(&some, "prediction").iter().map(|p| p["window"].as_u64().unwrap()).collect();
        let expected = (0..=last).filter(|window| (window + 1) % every == 0 || *window == last);
        assert_eq!(windows, expected.collect::<Vec<_>>(), "every {every}");
        assert_eq!(of_type(&some, "segment"), of_type(&all, "segment"));
    }
}

/// Stray events follow the last segment: its windows come before it all the same.
#[test]
fn what_is_left_out_changes_no_order() {
    let pip = (0..400).map(|k| (25 * k, k % 30, k % 29));
    let stray = (0..40).map(|k| (10_000 + 1000 * k, 3, 3));
    let rows: String = pip.chain(stray).map(|(t, x, y)| format!("{t},{x},{y},1\n")).collect();
    let table = format!("t,x,y,p\n{rows}");
    let order = |every: &str| -> Vec<String> {
        let flags = ["--gap", "5ms", "--every", every];
        let lines = records(&replay_bytes("trail.csv", table.as_bytes(), &flags).1);
        lines.iter().map(|r| format!("{}{}", r["type"], r["window"])).collect()
    };
    let all = order("1");
    let some = order("5");
    let mut rest = all.iter();
    assert!(some.iter().all(|line| rest.any(|own| own == line)), "{some:?} of {all:?}");
    assert_eq!(all.iter().rev().take(3).rev().cloned().collect::<Vec<_>>(), some[2..]);
}

#[test]
fn passes_are_one_stream_with_one_summary() {
    let once = records(&check(&["replay", DECK], 0));
    let thrice = records(&check(&["replay", "--loop", "3", DECK], 0));
    let (once_p, thrice_p) = (of_type(&once, "prediction"), of_type(&thrice, "prediction"));
    assert_eq!(thrice_p.len(), 3 * once_p.len());
    for (k, prediction) in thrice_p.iter().enumerate() {
        let first = once_p[k % once_p.len()];
        assert_eq!(prediction["window"], k);
        assert_eq!(
            (&prediction["t_us"], &prediction["logits"]),
            (&first["t_us"], &first["logits"])
        );
    }
    let summary = of_type(&thrice, "summary");
    assert_eq!(summary.len(), 1);
    assert_eq!((&summary[0]["events"], &summary[0]["restarts"]), (&(3 * 23958).into(), &0.into()));
    assert_eq!(summary[0]["segments"], 3 * 8);
}

#[test]
fn a_span_is_what_lies_between_from_and_to() {
    let records = records(&check(&["replay", "--from", "34ms", "--to", "0.1s", DECK], 0));
    let segments = of_type(&records, "segment");
    assert_eq!(segments.len(), 1);
    assert_eq!((&segments[0]["label"], &segments[0]["from_us"]), (&"di".into(), &34056.into()));
}

#[test]
fn a_span_keeps_what_comes_late_or_after_the_clock_began_anew() {
    let rows = |from: u64, n: u64| {
        (0..n).map(move |k| format!("{},{},{},1\n", from + 20 * k, k % 35, k % 33))
    };
    let begins = rows(9_000_000, 500).chain(rows(0, 3000));
    let late = [1_000_000, 999_000, 1_000_100].map(|t| format!("{t},1,1,1\n"));
    for table in [begins.collect::<String>(), late.concat()] {
        let table = format!("t,x,y,p\n{table}");
        let lines = |flags: &[&str]| {
            let mut records = records(&replay_bytes("span.csv", table.as_bytes(), flags).1);
            records.iter_mut().for_each(|record| record["stream"] = Value::Null);
            records
        };
        let whole = lines(&[]);
        assert!(of_type(&whole, "summary")[0]["losses"]["late"].as_u64() > Some(0));
        assert_eq!(lines(&["--to", "60s"]), whole);
        assert_eq!(lines(&["--from", "0ms"]), whole);
    }
    let table =
        format!("t,x,y,p\n{}", rows(9_000_000, 500).chain(rows(0, 3000)).collect::<String>());
    let (_, lines, _) = replay_bytes("span.csv", table.as_bytes(), &["--from", "2ms"]);
    let summary = &of_type(&records(&lines), "summary")[0].clone();
    assert_eq!((&summary["events"], &summary["restarts"]), (&3400.into(), &1.into()));
}

/// As people and spreadsheets write them.
#[test]
fn tables_in_every_spelling() {
    let rows = "1000,3,4,1\n1500,5,6,0\n";
    for (table, code, told) in [
        (format!("t,x@35,y@35,on\n{rows}"), 0, ""),
        (format!("t, x@35 , y@35 , on\n{rows}"), 0, ""),
        (format!("t, x@346 , y@260, on\n{rows}"), 3, "346x260"),
        (format!("t,x@100000,y@260,on\n{rows}"), 1, "side `100000`"),
        (format!("t,x@,y@260,on\n{rows}"), 1, "side ``"),
        (format!("t@us,x@35,y@35,p@1\n{rows}"), 0, ""),
        (format!("\u{feff}t,x,y,p\r\n{rows}"), 0, ""),
        (format!("\u{feff}{rows}"), 0, ""),
        (rows.trim_end().to_owned(), 0, ""),
        // Which column comes last no line before it has told.
        ("1000,5,5,1".to_owned(), 1, "ends without a line end"),
    ] {
        let (is, lines, said) = replay_bytes("table.csv", table.as_bytes(), &[]);
        assert_eq!(is, code, "{table}: {said}");
        assert!(said.contains(told), "{table}: {said}");
        let n = if table.contains("1500") { 2 } else { 1 };
        let summary = records(&lines).pop().unwrap();
        assert!(code > 0 || summary["events"] == n, "{table}: {lines}");
    }
}

/// A first event far in the future is no start of a recording.
#[test]
fn a_span_begins_anew_with_the_clock() {
    let far = Event::MAX_T_US;
    let rows = (0..4000).map(|k| format!("{},{},{},1\n", 20 * k, k % 35, k % 33));
    let table = format!("t,x,y,p\n{far},1,1,1\n{}", rows.collect::<String>());
    let summary = |flags: &[&str]| {
        let (code, lines, told) = replay_bytes("far.csv", table.as_bytes(), flags);
        assert_eq!(code, 0, "{told}");
        (of_type(&records(&lines), "summary")[0].clone(), told)
    };
    // The first thousand tell that the clock is another; the span begins with the last of them.
    assert_eq!(summary(&["--from", "10ms"]).0["events"], 4000 - 999 - 500);
    let short = summary(&["--to", "10ms"]).0;
    assert_eq!((&short["windows"], &short["restarts"]), (&11.into(), &1.into()));
    let (none, told) = summary(&["--from", "10s"]);
    assert_eq!(none["events"], 0);
    assert!(told.contains("no event comes from --from on"), "{told}");
}

#[test]
fn what_follows_the_span_is_not_read() {
    let deck = std::fs::read(DECK).expect("the deck");
    let cut = &deck[..deck.len() * 9 / 10];
    assert_eq!(replay_bytes("span.aedat4", cut, &[]).0, 1);
    let [whole, of_cut] = [&deck[..], cut].map(|bytes| {
        let (code, lines, told) = replay_bytes("span.aedat4", bytes, &["--to", "0.1s"]);
        assert_eq!(code, 0, "{told}");
        let mut records = records(&lines);
        records.iter_mut().for_each(|record| record["stream"] = Value::Null);
        records
    });
    assert!(whole == of_cut, "{} and {} records", whole.len(), of_cut.len());
}

#[test]
fn below_the_least_confidence_nothing_is_named() {
    for record in records(&check(&["replay", "--min-confidence", "0.9", DECK], 0)) {
        let Some(confidence) = record["confidence"].as_f64() else { continue };
        if confidence < 0.9 {
            assert!(record["label"].is_null() && record["class"].is_null(), "{record}");
        }
    }
    let text = check(&["replay", "--min-confidence", "1", "--output", "text", DECK], 0);
    assert!(text.contains("unknown"));
}

#[test]
fn a_record_holds_every_neuron_of_every_window() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deck.safetensors");
    let lines = check(&["replay", "--record", path.to_str().unwrap(), DECK], 0);
    let bytes = std::fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let records = records(&lines);
    let n = of_type(&records, "prediction").len();
    for (name, width) in [
        ("hidden.z", 100),
        ("hidden.v", 100),
        ("hidden.i", 100),
        ("readout.v", 4),
        ("readout.i", 4),
    ] {
        assert_eq!(tensors.tensor(name).unwrap().shape(), [n, width], "{name}");
    }
    let times = tensors.tensor("t_us").unwrap();
    let times: Vec<u64> =
        times.data().as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
    let expected: Vec<u64> =
        of_type(&records, "prediction").iter().map(|p| p["t_us"].as_u64().unwrap()).collect();
    assert_eq!(times, expected);
    let npz = folder.path().join("deck.npz");
    check(&["replay", "--record", npz.to_str().unwrap(), DECK], 0);
    assert_eq!(&std::fs::read(npz).unwrap()[..4], b"PK\x03\x04");
    check(&["replay", "--record", "deck.txt", DECK], 2);
}

/// The hidden layers are numbered where there are several.
#[test]
fn a_record_names_each_of_several_hidden_layers() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (pips, model, record) = (at("pips"), at("m.safetensors"), at("deck.safetensors"));
    check(&["synth", "--out", &pips, "--per-class", "1"], 0);
    check(&["train", &pips, "--out", &model, "--epochs", "1", "--hidden", "5,3"], 0);
    check(&["replay", "--model", &model, "--record", &record, DECK], 0);
    let bytes = std::fs::read(&record).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut found: Vec<_> = tensors
        .iter()
        .map(|(name, array)| (name.to_owned(), array.shape()[1..].to_vec()))
        .collect();
    found.sort();
    let expected = ["hidden0.i 5", "hidden0.v 5", "hidden0.z 5", "hidden1.i 3", "hidden1.v 3"];
    let expected =
        expected.into_iter().chain(["hidden1.z 3", "readout.i 4", "readout.v 4", "t_us"]);
    let expected: Vec<(String, Vec<usize>)> = expected
        .map(|entry| {
            let (name, width) = entry.split_once(' ').unwrap_or((entry, ""));
            (name.to_owned(), width.parse().into_iter().collect())
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn where_nothing_could_be_read_an_older_record_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.npz");
    let record = path.to_str().unwrap();
    check(&["replay", "--record", record, DECK], 0);
    let old = std::fs::read(&path).unwrap();
    check(&["replay", "--record", record, "nowhere.aedat4"], 2);
    let foreign = folder.path().join("foreign.csv");
    std::fs::write(&foreign, "t,x@346,y@260,on\n0,1,1,1\n").unwrap();
    check(&["replay", "--record", record, foreign.to_str().unwrap()], 3);
    assert!(std::fs::read(&path).unwrap() == old);
}

/// Writes bytes to a file and replays it; gives the exit code, both outputs.
fn replay_bytes(name: &str, bytes: &[u8], flags: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let arguments = [&["replay"], flags, &[path.to_str().unwrap()]].concat();
    let output = run(&arguments);
    (output.status.code().unwrap(), stdout(&output), stderr(&output))
}

#[test]
fn a_cut_recording_gives_what_came_before_and_says_so() {
    let bytes = std::fs::read(DECK).unwrap();
    let (code, lines, told) = replay_bytes("cut.aedat4", &bytes[..60_000], &[]);
    assert_eq!(code, 1, "{told}");
    let records = records(&lines);
    assert!(of_type(&records, "prediction").len() > 10);
    let errors = of_type(&records, "error");
    assert_eq!(errors.len(), 1);
    let message = errors[0]["message"].as_str().unwrap();
    assert!(message.contains("cut.aedat4: ") && message.contains("events before it"), "{message}");
    assert!(errors[0]["offset"].is_u64());
    assert!(told.contains(message));
    assert_eq!(records.last().unwrap()["type"], "summary");
}

#[test]
fn a_recording_that_ends_before_it_begins_is_damaged_in_every_format() {
    let formats = dvs_stream::codec::FORMATS.iter().map(|format| ["--format", format.name]);
    let formats: Vec<_> = formats.collect();
    let flags = std::iter::once(&[][..]).chain(formats.iter().map(|flags| &flags[..]));
    for flags in flags {
        let (code, lines, told) = replay_bytes("x.aedat4", b"", flags);
        assert!(code == 1 && told.contains("is empty"), "{flags:?}: {code} {told}");
        let records = records(&lines);
        assert_eq!(of_type(&records, "error")[0]["offset"], 0, "{flags:?}");
        assert_eq!(records.last().unwrap()["type"], "summary", "{flags:?}");
        // Nothing is on standard input.
        assert_eq!(run(&[&["info"], flags, &["-"]].concat()).status.code(), Some(1), "{flags:?}");
    }
    let deck = std::fs::read(DECK).unwrap();
    for n in [1, 10, 13, 14, 100] {
        let (code, _, told) = replay_bytes("x.aedat4", &deck[..n], &[]);
        assert_eq!(code, 1, "{n} bytes: {told}");
    }
}

#[test]
fn bad_use_and_bad_files_have_their_codes_and_say_what_to_do() {
    let git_lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let (code, _, told) = replay_bytes("x.aedat4", git_lfs, &[]);
    assert!(code == 2 && told.to_lowercase().contains("git lfs"), "{code} {told}");
    let deck = std::fs::read(DECK).unwrap();
    let (code, lines, _) = replay_bytes("deck.bin", &deck, &[]);
    assert!(code == 0 && lines.contains("summary"), "a mark counts for more than a name");
    for (arguments, code, part) in [
        (&["replay"][..], 2, "required"),
        (&["serve", "--port", "0", "--header-timeout", "0s"], 2, "--header-timeout"),
        (&["serve", "--port", "0", "--max-streams", "16385"], 2, "1..=16384"),
        (&["replay", "no-such.aedat4"], 2, "no-such.aedat4: "),
        (&["replay", "fixtures"], 2, "directory"),
        (&["replay", "--model", "no-such.safetensors", DECK], 3, "no-such.safetensors"),
        (&["replay", "--model", DECK, DECK], 3, "safetensors"),
        (&["replay", "--device", "gpu", DECK], 2, "cpu, cuda or cuda:N"),
        (&["replay", "--readout", "min", DECK], 2, "max"),
        (&["replay", "--crop", "0,0,99,99", DECK], 3, "35x35"),
        (&["replay", "--format", "mp3", DECK], 2, "aedat4"),
        (&["replay", "--gap", "0ms", DECK], 2, "gap"),
        (&["replay", "--readout", "max:20s", DECK], 2, "10000 windows"),
        (&["frobnicate"], 2, "frobnicate"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        let told = stderr(&output);
        assert!(told.contains(part), "{arguments:?}: {told}");
        assert!(!told.contains("panicked") && !told.contains("Error {"), "{told}");
    }
}

/// Whichever is missing, the build's feature or the device.
#[test]
fn a_gpu_that_is_not_there_is_named() {
    let listed = check(&["info", "--devices", "--output", "text"], 0);
    assert!(listed.starts_with("cpu "), "{listed}");
    if listed.contains("cuda:0") {
        return skip("this machine has a GPU");
    }
    let part = if cfg!(feature = "cuda") { "there is no CUDA device" } else { "--features cuda" };
    let out = "/nowhere/m.safetensors";
    for arguments in [
        &["replay", "--device", "cuda", DECK][..],
        &["eval", "--device", "cuda:1", DECK],
        &["serve", "--port", "0", "--device", "cuda"],
        &["train", "fixtures", "--out", out, "--device", "cuda"],
    ] {
        let output = run(arguments);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {told}");
        assert!(told.contains(part) && told.lines().count() == 1, "{arguments:?}: {told}");
    }
}

#[test]
fn another_sensor_is_refused_until_it_is_mapped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.aedat4");
    let path = path.to_str().unwrap();
    check(&["convert", "--sensor", "346x260", DECK, path], 0);
    let output = run(&["replay", path]);
    assert_eq!(output.status.code(), Some(3));
    let told = stderr(&output);
    for part in ["346x260", "35x35", "--crop", "--scale"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    check(&["replay", "--scale", path], 0);
    let cropped = check(&["replay", "--crop", "0,0,35,35", path], 0);
    assert_eq!(nameless(&cropped, path), nameless(&check(&["replay", DECK], 0), DECK));
}

#[test]
fn flags_switch_off_what_the_model_s_view_switches_on() {
    let model = std::fs::read("models/poker.safetensors").unwrap();
    let mut model = Model::from_bytes(&model).unwrap();
    model.card.view = ViewSpec {
        flip_x: true,
        flip_y: true,
        transpose: true,
        crop: Some(Crop { x: 5, y: 5, width: 30, height: 30 }),
        scale: true,
        ..ViewSpec::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turned.safetensors");
    std::fs::write(&path, model.to_bytes().unwrap()).unwrap();
    let replay = |flags: &[&str]| {
        let model = ["replay", "--model", path.to_str().unwrap(), DECK];
        program::check(&[&model[..], flags].concat(), 0)
    };
    let plain = check(&["replay", DECK], 0);
    let (turned, told) = replay(&[]);
    assert!(turned != plain && !told.contains("note: "), "{told}");
    let kept = ["--flip-x", "--flip-y=true", "--transpose", "--scale", "--crop", "5,5,30,30"];
    assert_eq!(replay(&kept), (turned, told));
    let off =
        ["--flip-x=false", "--flip-y=false", "--transpose=false", "--scale=false", "--crop=none"];
    let (lines, told) = replay(&off);
    assert_eq!(lines, plain);
    for flag in ["--flip-x", "--flip-y", "--transpose", "--scale", "--crop"] {
        assert!(told.contains(&format!("note: {flag} replaces")), "{flag}: {told}");
    }
    assert_eq!(told.lines().count(), 5, "{told}");
    // A flag's value is joined to it, so that a recording may follow.
    assert_eq!(check(&["replay", "--flip-x", DECK], 0), check(&["replay", DECK, "--flip-x"], 0));
}

#[test]
fn a_damaged_model_is_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let whole = std::fs::read("models/poker.safetensors").unwrap();
    let mut nan = whole.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    for (bytes, part) in
        [(&whole[..1000], "safetensors"), (&whole[..end - 4], "safetensors"), (&nan, "finite")]
    {
        std::fs::write(&path, bytes).unwrap();
        let output = run(&["replay", "--model", path.to_str().unwrap(), DECK]);
        assert_eq!(output.status.code(), Some(3));
        assert!(stderr(&output).contains(part), "{part}: {}", stderr(&output));
    }
}

/// Nothing that a recording could do would make such a model one that can be used.
#[test]
fn a_card_that_contradicts_itself_is_refused() {
    let shipped = Model::from_bytes(&std::fs::read("models/poker.safetensors").unwrap()).unwrap();
    let read = |change: &dyn Fn(&mut Card)| {
        let mut model = shipped.clone();
        change(&mut model.card);
        Model::from_bytes(&model.to_bytes().unwrap()).map(|_| ()).map_err(|e| e.to_string())
    };
    let size = |width, height| Some(SensorSize { width, height });
    let crop = |width, height| Some(Crop { x: 3, y: 2, width, height });
    let none = ViewSpec::default();
    for (fits, view) in [
        (true, none),
        (true, ViewSpec { crop: crop(35, 35), ..none }),
        (true, ViewSpec { crop: crop(35, 35), flip_x: true, ..none }),
        (true, ViewSpec { crop: crop(10, 10), scale: true, ..none }),
        (true, ViewSpec { unnamed_sensor: size(35, 35), transpose: true, ..none }),
        (true, ViewSpec { unnamed_sensor: size(346, 260), scale: true, ..none }),
        (true, ViewSpec { unnamed_sensor: size(346, 260), crop: crop(35, 35), ..none }),
        // As older models have it.
        (true, ViewSpec { sensor: size(346, 260), scale: true, ..none }),
        (false, ViewSpec { crop: crop(10, 10), ..none }),
        (false, ViewSpec { crop: crop(0, 10), scale: true, ..none }),
        (false, ViewSpec { crop: crop(65535, 10), scale: true, ..none }),
        (false, ViewSpec { unnamed_sensor: size(0, 0), scale: true, ..none }),
        (false, ViewSpec { unnamed_sensor: size(65535, 9), scale: true, ..none }),
        (false, ViewSpec { unnamed_sensor: size(346, 260), ..none }),
        (false, ViewSpec { unnamed_sensor: size(20, 20), crop: crop(35, 35), ..none }),
        (false, ViewSpec { sensor: size(346, 260), ..none }),
    ] {
        let found = read(&|card| card.view = view);
        assert_eq!(found.is_ok(), fits, "{view:?}: {found:?}");
        assert!(fits || found.unwrap_err().contains("view"), "{view:?}");
    }
    let shown = |names: [&str; 4]| read(&|card| card.display = names.map(str::to_owned).to_vec());
    assert_eq!(shown(["Kreuz", "Karo", "Herz", "Pik"]), Ok(()));
    for names in
        [["", "b", "c", "d"], ["\x1b[31m", "b", "c", "d"], [&"x".repeat(65), "b", "c", "d"]]
    {
        assert!(shown(names).unwrap_err().contains("display name"), "{names:?}");
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let mut child = program(&["replay", "--loop", "200", DECK])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut start = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[cfg(unix)]
#[test]
fn who_is_read_by_nobody_waits_for_nothing() {
    for (full, code) in [(true, 1), (false, 0)] {
        let mut replay = program(&["replay", "-"]);
        let out = match full {
            true => Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap()),
            false => Stdio::piped(),
        };
        let mut child =
            replay.stdin(Stdio::piped()).stdout(out).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        // It stays open, as that of a camera that pauses.
        let mut input = child.stdin.take().unwrap();
        input.write_all(&std::fs::read(DECK).unwrap()[..60_000]).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        drop(input);
    }
}

#[cfg(unix)]
#[test]
fn an_interruption_ends_cleanly_and_tells_what_was_played() {
    let mut child = program(&["replay", "--speed", "0.01", "--loop", "1000", DECK])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = child.stdout.take().unwrap();
    let mut start = [0; 100];
    lines.read_exact(&mut start).unwrap();
    // Twice, as `timeout` signals a program and its group.
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id, &id]).status().unwrap().success());
    let mut rest = Vec::new();
    lines.read_to_end(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let all = [&start[..], &rest].concat();
    let records = records(std::str::from_utf8(&all).unwrap());
    let summary = records.last().unwrap();
    assert_eq!(summary["type"], "summary");
    let predictions: Vec<_> = records.iter().filter(|r| r["type"] == "prediction").collect();
    let t_us = |k: usize| predictions[k]["t_us"].as_u64().unwrap();
    let played_us = t_us(predictions.len() - 1) - t_us(0) + 1000;
    let told_us = summary["duration_us"].as_u64().unwrap();
    assert!((played_us..played_us + 3000).contains(&(told_us + 1000)), "{told_us} of {played_us}");
    let events = |record: &serde_json::Value| record["events"].as_u64().unwrap();
    let played: u64 = predictions.iter().map(|record| events(record)).sum();
    // At most the window that was held back and the one after it.
    assert!((played..played + 2000).contains(&events(summary)), "{} of {played}", events(summary));
}

#[test]
fn one_seed_is_one_deck_and_the_fixture_is_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deck.aedat4");
    let out = path.to_str().unwrap();
    let arguments =
        ["synth", "--out", out, "--deck", "8", "--seed", "0", "--compression", "zstd-high"];
    check(&arguments, 0);
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(DECK).unwrap());
    let side = std::fs::read_to_string(path.with_extension("csv")).unwrap();
    assert_eq!(side, std::fs::read_to_string("fixtures/deck.csv").unwrap());
}

#[test]
fn what_is_converted_reads_back_equal() {
    let folder = tempfile::tempdir().unwrap();
    let plain = nameless(&check(&["replay", DECK], 0), DECK);
    for (name, flags) in [
        ("none.aedat4", &["--compression", "none"][..]),
        ("lz4.aedat4", &["--compression", "lz4"]),
        ("lz4-high.aedat4", &["--compression", "lz4-high"]),
        ("zstd.aedat4", &["--compression", "zstd"]),
        ("two.aedat", &[]),
    ] {
        let path = folder.path().join(name);
        let path = path.to_str().unwrap();
        check(&[&["convert"], flags, &[DECK, path]].concat(), 0);
        assert_eq!(nameless(&check(&["replay", path], 0), path), plain, "{name}");
    }
    check(&["convert", DECK, "deck.png"], 2);
    check(&["convert", DECK, DECK], 2);
}

#[test]
fn an_imported_network_reads_a_real_recording() {
    let weights = "../shared/golden/poker_norse_weights.safetensors";
    if !std::path::Path::new(weights).exists() {
        skip(&format!("{weights} is not there"));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let out = path.to_str().unwrap();
    let flags = ["--labels", "cl,di,he,sp", "--sensor", "35x35", "--gap", "3ms", "--out", out];
    check(&[&["import", "norse", weights], &flags[..]].concat(), 0);
    for (wrong, named) in [
        (&["--gap", "0ms"][..], "--gap"),
        (&["--readout", "max:99s"], "--readout"),
        (&["--v-th=nan"], "v_th"),
        (&["--alpha=1e300"], "1e300"),
        (&["--window", "21ms"], "tau_mem_inv"),
        (&["--labels", "cl,di,he, cl"], "--labels"),
        (&["--labels", "cl,di,he"], "--labels: 3 names"),
        (&["--sensor", "34x34"], "--sensor 34x34"),
    ] {
        let other = |flag: &&[&str]| !wrong.contains(&flag[0]);
        let flags: Vec<&str> =
            flags.chunks(2).filter(other).flatten().chain(wrong).copied().collect();
        let output = run(&[&["import", "norse", weights], &flags[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(stderr(&output).contains(named), "{}", stderr(&output));
    }
    let first = std::fs::read(&path).unwrap();
    check(&[&["import", "norse", weights], &flags[..]].concat(), 0);
    assert!(std::fs::read(&path).unwrap() == first, "equal imports are equal bytes");
    let recording = "../shared/data/poker-dvs/he/he_60.aedat";
    if std::path::Path::new(recording).exists() {
        let records = records(&check(&["replay", "--model", out, recording], 0));
        assert_eq!(records.last().unwrap()["label"], "he");
    }
}

/// It is read by nobody else and cannot be asked for its length.
#[cfg(target_os = "linux")]
#[test]
fn a_named_pipe_reads_as_the_file_that_goes_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.aedat4");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let into = pipe.clone();
    let writing =
        std::thread::spawn(move || std::fs::write(into, std::fs::read(DECK).unwrap()).unwrap());
    let pipe = pipe.to_str().unwrap();
    let piped = check(&["replay", pipe], 0);
    writing.join().unwrap();
    assert_eq!(nameless(&piped, pipe), nameless(&check(&["replay", DECK], 0), DECK));
}

#[test]
fn of_several_failures_the_highest_code_is_the_program_s() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (cut, foreign, missing) = (at("cut.aedat4"), at("foreign.csv"), at("missing.aedat4"));
    std::fs::write(&cut, &std::fs::read(DECK).unwrap()[..60_000]).unwrap();
    std::fs::write(&foreign, "t,x@346,y@260,on\n0,1,1,1\n").unwrap();
    for (files, code) in [
        (&[&foreign, &cut, &missing][..], 3),
        (&[&cut, &missing], 2),
        (&[&missing, &cut], 2),
        (&[&cut], 1),
    ] {
        let names = files.iter().map(|name| name.as_str());
        let lines =
            check(&["replay"].into_iter().chain(names).chain([DECK]).collect::<Vec<_>>(), code);
        assert_eq!(of_type(&records(&lines), "error").len(), files.len());
        assert_eq!(of_type(&records(&lines), "summary").len(), files.len() + 1);
    }
}

/// What it is for is known before an event comes.
#[test]
fn a_recording_of_another_sensor_is_refused_without_an_event_too() {
    let folder = tempfile::tempdir().unwrap();
    let [table, empty] = ["empty.csv", "empty.aedat4"]
        .map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    std::fs::write(&table, "t,x@346,y@260,on\n").unwrap();
    check(&["convert", &table, &empty], 0);
    for path in [&table, &empty] {
        let told = program::check(&["replay", path], 3).1;
        assert!(told.contains("346x260"), "{told}");
        check(&["replay", "--scale", path], 0);
    }
    std::fs::write(&table, "t,x,y,on\n").unwrap();
    check(&["replay", &table], 0);
}

#[test]
fn events_earlier_than_the_one_before_are_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("far.csv");
    let rows: String = (0..1500).map(|k| format!("{k},1,1,1\n")).collect();
    std::fs::write(&path, format!("t,x,y,on\n9000000,1,1,1\n{rows}")).unwrap();
    let told = &records(&check(&["info", path.to_str().unwrap()], 0))[0];
    assert_eq!((&told["backward"], &told["last_us"]), (&1.into(), &9_000_000.into()));
}

/// Each in a line of its own.
#[test]
fn causes_are_told_one_by_one_where_more_is_asked_for() {
    for arguments in [
        &["replay", "no-such.csv"][..],
        &["info", "no-such.csv"],
        &["info", "no-such.safetensors"],
        &["replay", "--model", "no-such.safetensors", DECK],
        &["convert", "no-such.csv", "nothing.csv"],
    ] {
        let code = if arguments.join(" ").contains("safetensors") { 3 } else { 2 };
        let short = program::check(arguments, code).1;
        assert_eq!(short.lines().count(), 1, "{short}");
        let (verbose, code) = ([&["-v"], arguments].concat(), code);
        let told = program::check(&verbose, code).1;
        let causes: Vec<&str> = told.lines().take_while(|line| !line.contains("Mev/s")).collect();
        assert!(causes.len() > 1 && causes[0].starts_with("error: no-such"), "{told}");
        assert!(causes[1..].iter().all(|line| line.starts_with("  because: ")), "{told}");
        assert_eq!(causes.join("").replace("  because: ", ": "), short.trim_end());
    }
}

#[test]
fn a_pointer_to_a_model_is_named_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lfs.safetensors");
    std::fs::write(&path, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        .unwrap();
    let path = path.to_str().unwrap();
    for arguments in [&["replay", "--model", path, DECK][..], &["info", path]] {
        let told = program::check(arguments, 3).1;
        assert!(told.contains("git lfs pull"), "{told}");
    }
}

/// Real recordings, with the numbers of events that are known of them.
#[test]
fn one_clip_in_five_compressions_reads_alike() {
    let data = "../shared/data";
    if !std::path::Path::new(data).exists() {
        skip(&format!("{data} is not there"));
        return;
    }
    let events = |lines: &str| records(lines).pop().unwrap()["events"].as_u64();
    let replay = |path: &str| nameless(&check(&["replay", "--scale", path], 0), path);
    let names = ["none", "lz4", "lz4_high", "zstd", "zstd_high"];
    let clips = names.map(|name| replay(&format!("{data}/aedat4/dvxplorer_{name}.aedat4")));
    assert_eq!(events(&clips[0]), Some(111_954));
    assert!(clips.iter().all(|clip| *clip == clips[0]));
    for (name, n) in [
        ("aedat4/aestream_davis.aedat4", 117_667),
        ("aedat2/dvs128_walking.aedat", 19_182),
        ("aedat2/davis240c_boxes.aedat", 162_771),
    ] {
        assert_eq!(events(&replay(&format!("{data}/{name}"))), Some(n), "{name}");
    }
}

#[test]
fn info_tells_recordings_and_models_apart() {
    let text = check(&["info", "--output", "text", DECK, "models/poker.safetensors"], 0);
    for part in ["AEDAT 4", "35x35", "23,958", "lif, 2450 to 100, recurrent", "cl, di, he, sp"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let folder = tempfile::tempdir().unwrap();
    let unusable = folder.path().join("model.safetensors");
    std::fs::create_dir(&unusable).unwrap();
    check(&["info", unusable.to_str().unwrap()], 3);
    let records = records(&check(&["info", DECK, "models/poker.safetensors"], 0));
    assert_eq!((&records[0]["type"], &records[0]["events"]), (&"recording".into(), &23958.into()));
    let [first_us, last_us] = ["first_us", "last_us"].map(|key| records[0][key].as_u64().unwrap());
    let duration_us = last_us - first_us;
    assert_eq!(records[0]["duration_us"], duration_us);
    let rate = records[0]["events_per_ms"].as_f64().unwrap();
    assert!((rate * duration_us as f64 / 1000.0 - 23958.0).abs() < 1e-6, "{rate}");
    assert_eq!((&records[1]["type"], &records[1]["window_us"]), (&"model".into(), &1000.into()));
}

#[test]
fn every_command_helps_with_an_example() {
    let help = check(&["--help"], 0);
    for command in ["replay", "info", "convert", "send", "synth", "import", "completions"] {
        assert!(help.contains(command), "{command} in {help}");
        let help = check(&[command, "--help"], 0);
        assert!(help.contains("dvs-stream "), "{command}: {help}");
        assert!(help.contains("Example"), "{command}: {help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(check(&["completions", shell], 0).contains("dvs-stream"));
    }
}

#[test]
fn text_is_for_people_and_has_no_colours_in_a_pipe() {
    let text = check(&["replay", "--output", "text", DECK], 0);
    assert!(text.contains("segment") && text.contains('█') && !text.contains('\x1b'));
    let colored = check(&["replay", "--output", "text", "--color", "always", DECK], 0);
    assert!(colored.contains('\x1b'));
    let csv = check(&["replay", "--output", "csv", DECK], 0);
    let fields = |line: &str| line.split(',').count();
    let header = csv.lines().next().unwrap();
    assert!(csv.lines().all(|line| fields(line) == fields(header)), "{csv}");
}
