//! `convert` and `synth` as a user runs them: a recording comes to be whole or not at all.

mod program;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use program::{DECK, check, program};

/// Its times are µs since 1970.
const UNIX: &str = "fixtures/formats/faery-t64.bin";

/// What `info` tells of a recording.
fn info(path: &str) -> serde_json::Value {
    serde_json::from_str(&check(&["info", path], 0).0).unwrap()
}

fn listed(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_is_refused_leaves_the_old_recording() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.aedat");
    let out = path.to_str().unwrap();
    check(&["convert", DECK, out], 0);
    let old = std::fs::read(&path).unwrap();
    let (_, told) = check(&["convert", "--format", "faery-t64", UNIX, out], 2);
    assert!(told.contains("--from-zero"), "{told}");
    assert!(std::fs::read(&path).unwrap() == old, "the old recording is another");
    assert_eq!(listed(folder.path()), ["old.aedat"]);
}

#[cfg(unix)]
#[test]
fn times_may_be_counted_from_the_first_event() {
    let folder = tempfile::tempdir().unwrap();
    let [table, moved] = ["unix.csv", "zero.aedat"].map(|name| folder.path().join(name));
    let rows = "1589163147370112,3,4,1\n1589163147371047,5,6,0\n1589163147370000,7,8,0\n";
    std::fs::write(&table, format!("t,x,y,on\n{rows}")).unwrap();
    let [table, moved] = [&table, &moved].map(|path| path.to_str().unwrap());
    check(&["convert", "--from-zero", table, moved], 0);
    let (rows, _) = check(&["convert", "--to", "csv", moved, "/dev/stdout"], 0);
    assert_eq!(rows.lines().skip(1).collect::<Vec<_>>(), ["0,3,4,1", "935,5,6,0", "0,7,8,0"]);
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_written_as_it_is() {
    let (table, _) = check(&["convert", "--to", "csv", DECK, "/dev/stdout"], 0);
    assert_eq!(table.lines().count(), 1 + 23_958);
}

#[cfg(unix)]
#[test]
fn what_a_link_names_is_written_and_the_link_stays() {
    let folder = tempfile::tempdir().unwrap();
    let [real, link] = ["real.csv", "link.csv"].map(|name| folder.path().join(name));
    std::fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    check(&["convert", DECK, link.to_str().unwrap()], 0);
    assert!(link.is_symlink());
    assert_eq!(std::fs::read_to_string(&real).unwrap().lines().count(), 1 + 23_958);
}

#[cfg(target_os = "linux")]
#[test]
fn links_keep_an_old_file_whole_and_are_seen_to_go_round() {
    let folder = tempfile::tempdir().unwrap();
    let [far, real, link, round] =
        ["far.csv", "real.aedat", "link.aedat", "round.csv"].map(|name| folder.path().join(name));
    std::fs::write(&far, "t,x,y,on\n0,3,3,1\n5000000000,3,3,1\n").unwrap();
    std::fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink("real.aedat", &link).unwrap();
    std::os::unix::fs::symlink("round.csv", &round).unwrap();
    let told = check(&["convert", far.to_str().unwrap(), link.to_str().unwrap()], 2).1;
    assert!(told.contains("--from-zero"), "{told}");
    assert_eq!(std::fs::read_to_string(&real).unwrap(), "old");
    let told = check(&["convert", DECK, round.to_str().unwrap()], 1).1;
    assert!(told.contains("cannot write") && told.contains("round.csv"), "{told}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4);
}

/// Be it the recording that is read, or one that was left there.
#[test]
fn files_that_happen_to_be_called_part_are_nobodys_to_take() {
    let folder = tempfile::tempdir().unwrap();
    let [part, whole] = ["a.aedat4.part", "a.aedat4"].map(|name| folder.path().join(name));
    std::fs::copy(DECK, &part).unwrap();
    check(&["convert", part.to_str().unwrap(), whole.to_str().unwrap()], 0);
    assert_eq!(std::fs::read(&part).unwrap(), std::fs::read(DECK).unwrap());
    let told = check(&["info", "--output", "text", whole.to_str().unwrap()], 0).0;
    assert!(told.contains("23,958"), "{told}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[cfg(unix)]
#[test]
fn a_recording_may_go_into_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.aedat4");
    check(&["convert", DECK, file.to_str().unwrap()], 0);
    let output = program(&["convert", "--to", "aedat4", DECK, "/dev/stdout"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let piped = folder.path().join("piped.aedat4");
    std::fs::write(&piped, &output.stdout).unwrap();
    let records = |path: &std::path::Path| {
        let lines = check(&["replay", path.to_str().unwrap()], 0).0;
        lines.replace(path.to_str().unwrap(), "")
    };
    assert_eq!(records(&piped), records(&file));
}

#[cfg(target_os = "linux")]
#[test]
fn the_file_that_standard_output_goes_to_is_written_and_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let [path, other] = ["out.csv", "other.csv"].map(|name| folder.path().join(name));
    let out = std::fs::File::create(&path).unwrap();
    std::fs::hard_link(&path, &other).unwrap();
    let arguments = ["convert", "--to", "csv", DECK, "/dev/stdout"];
    assert!(program(&arguments).stdout(out).status().unwrap().success());
    assert_eq!(std::fs::read_to_string(&other).unwrap().lines().count(), 1 + 23_958);
}

#[cfg(unix)]
#[test]
fn an_interruption_leaves_a_whole_recording_and_says_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("part.aedat4");
    let mut child = program(&["convert", "-", path.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deck = std::fs::read(DECK).unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&deck[..deck.len() / 2]).unwrap();
    let begun = Instant::now();
    while listed(folder.path()).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is written");
        std::thread::yield_now();
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{told}");
    assert_eq!(listed(folder.path()), ["part.aedat4"]);
    let events = info(path.to_str().unwrap())["events"].as_u64().unwrap();
    assert!((1..23_958).contains(&events), "{events}");
    let digits = |text: &str| text.replace(',', "");
    assert!(told.contains("interrupted") && digits(&told).contains(&events.to_string()), "{told}");
}

/// Rows of the table that a recording becomes, and what was said.
#[cfg(unix)]
fn table(flags: &[&str], path: &str) -> (Vec<[u64; 4]>, String) {
    let arguments = [&["convert", "--to", "csv"], flags, &[path, "/dev/stdout"]].concat();
    let (table, told) = check(&arguments, 0);
    let rows = table.lines().skip(1).map(|line| {
        let numbers: Vec<u64> = line.split(',').map(|number| number.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    });
    (rows.collect(), told)
}

#[cfg(unix)]
#[test]
fn what_stands_in_a_chip_s_order_is_turned_or_said_to() {
    let folder = tempfile::tempdir().unwrap();
    let upright = folder.path().join("upright.aedat4");
    let upright = upright.to_str().unwrap();
    for (path, [width, height]) in [
        ("fixtures/formats/aedat2-dvs128.aedat", [128, 128]),
        ("fixtures/formats/aedat2-davis346.aedat", [346, 260]),
    ] {
        let (stored, told) = table(&[], path);
        assert!(told.contains("note: ") && told.contains("--orient upright"), "{told}");
        let (turned, told) = table(&["--orient", "upright"], path);
        assert!(!told.contains("--orient"), "{told}");
        assert_eq!(
            turned,
            stored
                .iter()
                .map(|[t, x, y, on]| [*t, width - 1 - x, height - 1 - y, *on])
                .collect::<Vec<_>>()
        );
        let view = ["replay", "--scale", "--orient", "upright"];
        let seen = check(&[&view[..], &[path]].concat(), 0).0.replace(path, "");
        check(&["convert", "--orient", "upright", path, upright], 0);
        for flag in [&view[..2], &view[..]] {
            let lines = check(&[flag, &[upright]].concat(), 0).0;
            assert_eq!(lines.replace(upright, ""), seen, "{path} {flag:?}");
        }
        let again = folder.path().join("again.aedat");
        let again = again.to_str().unwrap();
        assert!(!check(&["convert", path, again], 0).1.contains("--orient"));
        let (_, told) = check(&["convert", "--orient", "upright", path, again], 2);
        assert!(told.contains("leave --orient out"), "{told}");
    }
    // Of an unknown size nothing can be turned, nor what lies outside of a size.
    let sizeless = "fixtures/formats/aedat2-plain.aedat";
    let (_, told) = check(&["convert", "--orient", "upright", sizeless, upright], 2);
    assert!(told.contains("--sensor WxH"), "{told}");
    let small = ["convert", "--orient", "upright", "--sensor", "4x4", sizeless, upright];
    let (_, told) = check(&small, 2);
    assert!(told.contains("outside of the sensor's 4x4 pixels"), "{told}");
    let (plain, _) = table(&[], DECK);
    assert_eq!(table(&["--orient", "upright"], DECK).0, plain);
}

#[test]
fn flags_that_would_be_ignored_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("out");
    let out = folder.to_str().unwrap();
    let table = format!("{out}.csv");
    let long = "x".repeat(300);
    for (arguments, code, part) in [
        (&["convert", DECK, "-", "--to", "csv"][..], 2, "/dev/stdout"),
        (&["convert", DECK, &table, "--compression", "zstd"], 2, "aedat4"),
        (&["convert", DECK, &table, "--compression", "lz4"], 2, "aedat4"),
        (&["synth", "--out", out, "--per-class", "1", "--gap", "1ms..2ms"], 2, "--deck"),
        (&["synth", "--out", out, "--per-class", "1", "--gap-noise", "5"], 2, "--deck"),
        (&["synth", "--out", out, "--to", "csv", "--compression", "zstd"], 2, "aedat4"),
        (&["synth", "--out", &table, "--deck", "1", "--compression", "zstd"], 2, "aedat4"),
        (&["synth", "--out", "-", "--deck", "1", "--to", "csv"], 2, "/dev/stdout"),
        (&["synth", "--out", &table], 2, "--deck"),
        (&["synth", "--out", out, "--seed", "4294967296"], 2, "2^32"),
        // As every command, where a folder cannot be made.
        (&["synth", "--out", &long], 1, "cannot create"),
    ] {
        let (_, told) = check(arguments, code);
        assert!(told.contains(part), "{arguments:?}: {told}");
        assert!(!Path::new(&table).exists() && !folder.exists(), "{arguments:?} wrote");
    }
    check(&["synth", "--out", &table, "--pips", "cl,di", "--gap", "1ms", "--gap-noise", "1"], 0);
    check(&["synth", "--out", out, "--per-class", "1", "--seed", "4294967295"], 0);
}

#[test]
fn a_deck_as_a_table_does_not_lose_itself_to_its_truth() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deck.csv");
    let out = path.to_str().unwrap();
    check(&["synth", "--out", out, "--deck", "8", "--seed", "0"], 0);
    assert_eq!(info(out)["events"], 23_958);
    let truth = std::fs::read(folder.path().join("deck.truth.csv")).unwrap();
    assert!(truth == std::fs::read("fixtures/deck.csv").unwrap());
    assert_eq!(check(&["eval", out], 0), check(&["eval", DECK], 0));
}
