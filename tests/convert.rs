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
    let (_, told) = check(&["convert", "--from-zero", table, moved], 0);
    assert!(told.contains("1 events are earlier than the first"), "{told}");
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
        (&["synth", "--out", out, "--deck", "1"], 2, "--to"),
        (&["synth", "--out", out, "--seed", "4294967296"], 2, "2^32"),
        // As every command, where a folder cannot be made.
        (&["synth", "--out", &long], 1, "cannot create"),
    ] {
        let (_, told) = check(arguments, code);
        assert!(told.contains(part), "{arguments:?}: {told}");
        assert!(!Path::new(&table).exists() && !folder.exists(), "{arguments:?} wrote");
    }
    check(&["synth", "--out", &table, "--pips", "cl, di", "--gap", "1ms", "--gap-noise", "1"], 0);
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

/// Times of which only 32 bits are kept would be others.
#[test]
fn times_that_do_not_fit_are_refused_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let [table, out] = ["unix.csv", "out"].map(|name| folder.path().join(name));
    let rows = "1589163147370112,3,4,1\n1589163147371047,5,6,0\n";
    std::fs::write(&table, format!("t,x,y,on\n{rows}")).unwrap();
    let [table, out] = [&table, &out].map(|path| path.to_str().unwrap());
    for format in ["faery-t32", "spif", "aedat2"] {
        let convert = ["convert", "--to", format, table, out];
        let told = check(&convert, 2).1;
        assert!(told.contains("--from-zero"), "{format}: {told}");
        assert_eq!(listed(folder.path()), ["unix.csv"]);
        check(&[&convert[..], &["--from-zero"]].concat(), 0);
        let told = check(&["info", "--format", format, out], 0).0;
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!([&told["events"], &told["last_us"]].map(|n| n.as_u64()), [Some(2), Some(935)]);
        std::fs::remove_file(out).unwrap();
    }
}

#[test]
fn a_size_that_does_not_fit_the_format_or_the_events_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.aedat4");
    let out = out.to_str().unwrap();
    let told = check(&["convert", "--sensor", "40000x100", DECK, out], 2).1;
    assert!(told.contains("40000x100"), "{told}");
    assert!(listed(folder.path()).is_empty());
    check(&["convert", "--sensor", "32768x32768", DECK, out], 0);
    assert_eq!(info(out)["sensor"]["width"], 32768);
    let table = folder.path().join("rows.csv");
    std::fs::write(&table, "t,x,y,on\n0,9,9,1\n1,10,0,1\n2,0,10,0\n").unwrap();
    let small = ["convert", "--sensor", "10x10", table.to_str().unwrap(), out];
    let told = check(&small, 0).1;
    assert!(told.contains("warning: ") && told.contains("2 events lie outside of 10x10"), "{told}");
    assert_eq!(check(&[&small[..], &["-q"]].concat(), 0).1, "");
    assert!(!check(&["convert", DECK, out], 0).1.contains("outside"));
}

/// Arrays may hold numbers that are no pixel's.
#[cfg(unix)]
#[test]
fn events_of_no_pixel_are_left_out_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wide.npy");
    let rows: [[i64; 4]; 4] =
        [[0, 70_000, 1, 1], [10, 3, 4, 1], [20, -1, 4, 0], [30, 5, 1 << 40, 1]];
    let header = "{'descr': '<i8', 'fortran_order': False, 'shape': (4, 4), }\n";
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(rows.iter().flatten().flat_map(|number| number.to_le_bytes()));
    std::fs::write(&path, bytes).unwrap();
    let path = path.to_str().unwrap();
    let (rows, told) = table(&[], path);
    assert_eq!(rows, [[10, 3, 4, 1]]);
    assert!(told.contains("warning: 3 events of impossible pixels"), "{told}");
    assert_eq!(table(&["--from-zero"], path).0, [[0, 3, 4, 1]]);
    let told = info(path);
    assert_eq!((&told["events"], &told["outside"]), (&4.into(), &3.into()));
    let extent = serde_json::json!({"x_min": 3, "x_max": 3, "y_min": 4, "y_max": 4});
    assert_eq!(told["extent"], extent);
    let text = check(&["info", "--output", "text", path], 0).0;
    assert!(text.contains("3 events of impossible pixels"), "{text}");
}

#[cfg(target_os = "linux")]
#[test]
fn what_standard_output_goes_to_is_appended_to() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, part] = ["whole.aedat4", "part.aedat4"].map(|name| folder.path().join(name));
    check(&["convert", DECK, whole.to_str().unwrap()], 0);
    let whole = std::fs::read(&whole).unwrap();
    let piped =
        |out: &str| program(&["convert", "--to", "aedat4", DECK, out]).output().unwrap().stdout;
    for out in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let arguments = ["convert", "--to", "aedat4", DECK, out];
        for append in [true, false] {
            std::fs::write(&part, "before").unwrap();
            let mut file = std::fs::File::options().write(true).append(append).open(&part).unwrap();
            if !append {
                file.write_all(b"fore__").unwrap();
            }
            assert!(program(&arguments).stdout(file).status().unwrap().success());
            let written = std::fs::read(&part).unwrap();
            let (start, bytes) = written.split_at(6);
            let expected =
                if append { (&b"before"[..], piped(out)) } else { (&b"fore__"[..], whole.clone()) };
            assert!((start, bytes) == (expected.0, &expected.1[..]), "{out}, {append}");
        }
    }
    assert_eq!(listed(folder.path()).len(), 2);
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_ends_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("long.csv");
    let rows: String = (0..200_000).map(|t| format!("{t},3,3,1\n")).collect();
    std::fs::write(&long, format!("t,x,y,on\n{rows}")).unwrap();
    for arguments in [
        &["convert", "--to", "csv", long.to_str().unwrap(), "/dev/stdout"][..],
        &["synth", "--to", "csv", "--deck", "100", "--out", "/dev/stdout"],
    ] {
        let mut child =
            program(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut start = [0; 100];
        child.stdout.take().unwrap().read_exact(&mut start).unwrap();
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*told), (Some(0), ""), "{arguments:?}");
    }
}

#[cfg(unix)]
#[test]
fn an_interruption_leaves_whole_recordings_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let pips = folder.path().join("pips");
    let mut child = program(&["synth", "--per-class", "1000000", "--out", pips.to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (clubs, begun) = (pips.join("cl"), Instant::now());
    while !clubs.join("cl_2.aedat4").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is written");
        std::thread::yield_now();
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{told}");
    let names = listed(&clubs);
    assert!(names.iter().all(|name| name.ends_with(".aedat4")), "{names:?}");
    assert!(told.contains(&format!("interrupted after {} recordings", names.len())), "{told}");
}

#[cfg(unix)]
#[test]
fn a_file_that_is_replaced_hands_its_rights_on() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.csv");
    for mode in [0o600, 0o640, 0o444] {
        std::fs::write(&out, "old").unwrap();
        std::fs::set_permissions(&out, std::fs::Permissions::from_mode(mode)).unwrap();
        check(&["convert", DECK, out.to_str().unwrap()], 0);
        assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o777, mode);
        std::fs::remove_file(&out).unwrap();
    }
}

/// By their names and what they hold; bytes of the file, also of the table at an end.
#[test]
fn recordings_of_a_folder_are_known_again_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    for format in dvs_stream::codec::FORMATS.iter().filter(|format| format.encoder.is_some()) {
        let out = folder.path().join(format.name);
        check(
            &["synth", "--per-class", "1", "--out", out.to_str().unwrap(), "--to", format.name],
            0,
        );
        let name = listed(&out.join("he")).pop().unwrap();
        let path = out.join("he").join(name);
        let told = info(path.to_str().unwrap());
        assert_eq!(told["format"], format.name);
        assert_eq!(told["bytes"], std::fs::metadata(&path).unwrap().len());
        assert!(told["events"].as_u64() > Some(100), "{told}");
    }
}
