//! Standard output and standard error: whose lines are whose, what is silent, what takes nothing.

mod program;
mod server;

use std::io::{BufRead, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use dvs_stream::prediction::{Prediction, Record, Stream, Summary};
use dvs_stream::sink::{Style, by_name};
use program::{DECK, PROGRAM, check, program, run, stderr, stdout};
use server::{PATIENCE, Server, nameless, replay, rest_of};

/// Its name tells two plays of one recording apart no more than two recordings of one name.
#[test]
fn one_recording_twice_at_once_loses_no_line() {
    for flags in [&["--every", "1000000"][..], &["--every", "7"]] {
        let once = check(&[&["replay"], flags, &[DECK]].concat(), 0).0;
        let twice = check(&[&["replay", "--slots", "2"], flags, &[DECK, DECK]].concat(), 0).0;
        let sorted = |lines: &str, times: usize| {
            let mut lines: Vec<String> = lines.repeat(times).lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&twice, 1), sorted(&once, 2), "{flags:?}");
    }
}

/// The first to end takes nothing of what the other, which began at another time, is told by.
#[test]
fn text_tells_streams_of_one_name_apart() {
    let style = Style { window_us: 1000, ..Style::default() };
    let mut text = (by_name("text").unwrap().make)(&style);
    let mut shown = |id, record: &Record| {
        let (stream, mut out) = (Stream { id, name: "camera".to_owned() }, Vec::new());
        text.record(&stream, record, &[], &mut out);
        String::from_utf8(out).unwrap().split(" ms").next().unwrap().trim().to_owned()
    };
    let at = |t_us| {
        let (verdict, losses) = Default::default();
        Record::Prediction(Prediction { window: 0, t_us, events: 1, verdict, losses })
    };
    assert_eq!([shown(1, &at(1000)), shown(2, &at(8000))], ["1.0", "1.0"]);
    assert_eq!([shown(1, &at(2000)), shown(2, &at(9000))], ["2.0", "2.0"]);
    shown(1, &Record::Summary(Summary::default()));
    assert_eq!(shown(2, &at(10_000)), "3.0");
    // Its clock begins anew, earlier.
    assert_eq!([shown(2, &at(5000)), shown(2, &at(6000))], ["1.0", "2.0"]);
}

/// Of what is lost in a window that is not printed the next one tells.
#[test]
fn windows_that_are_left_out_leave_their_losses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outside.csv");
    let rows: String = (0..12).map(|ms| format!("{},3,3,1\n", 1000 * ms)).collect();
    std::fs::write(&path, format!("t,x,y,on\n{rows}").replace("3000,3", "3000,99,3,1\n3001,3"))
        .unwrap();
    let losses = |every: &str| -> Vec<u64> {
        let path = path.to_str().unwrap();
        let lines = check(&["replay", "-q", "--quiet", "0", "--every", every, path], 0).0;
        let records = lines.lines().map(|line| serde_json::from_str(line).unwrap());
        let predictions = records.filter(|r: &serde_json::Value| r["type"] == "prediction");
        predictions.map(|r| r["losses"]["outside"].as_u64().unwrap_or(0)).collect()
    };
    assert_eq!(losses("1"), [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(losses("5"), [1, 0, 0]);
}

#[test]
fn a_table_tells_what_was_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lossy.csv");
    let rows = "t,x,y,p\n1000,1,1,1\n-7,1,1,1\n2100,1,1,1\n1500,1,1,1\n2200,99,1,1\n3200,1,1,1\n";
    std::fs::write(&path, rows).unwrap();
    let table = check(&["replay", "--quiet", "0", "--output", "csv", path.to_str().unwrap()], 0).0;
    let lost = |kind: &str| -> Vec<String> {
        let of_kind = table.lines().filter(|line| line.starts_with(kind));
        of_kind.map(|line| line.split(',').skip(9).take(5).collect::<Vec<_>>().join(",")).collect()
    };
    assert_eq!(lost("type"), ["late,outside,overflow,malformed,restarts"]);
    assert_eq!(lost("prediction"), ["0,0,0,1,", "1,1,0,0,", "0,0,0,0,"]);
    assert_eq!(lost("summary"), ["1,1,0,1,0"]);
}

#[test]
fn what_is_set_aside_is_told() {
    let told = |arguments: &[&str]| stderr(&run(&[&["replay"], arguments].concat()));
    let recording = "fixtures/formats/aedat3-sources.aedat";
    let one = told(&[recording, "--sensor", "35x35", "--loop", "2"]);
    assert_eq!(one.matches("set aside: 1 packets of other streams or kinds").count(), 1, "{one}");
    assert_eq!(told(&["-q", recording, "--sensor", "35x35"]), "");
    assert_eq!(told(&[DECK]), "");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.csv");
    let converted = stderr(&run(&["convert", recording, out.to_str().unwrap()]));
    assert!(converted.contains("set aside: 1 packets"), "{converted}");
}

#[cfg(unix)]
#[test]
fn records_of_neurons_do_not_depend_on_who_reads_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let [read, unread] = ["read.npz", "unread.npz"].map(|name| folder.path().join(name));
    check(&["replay", "--record", read.to_str().unwrap(), DECK], 0);
    let mut child = program(&["replay", "--record", unread.to_str().unwrap(), DECK])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(std::fs::read(&unread).unwrap(), std::fs::read(&read).unwrap());
}

#[test]
fn files_that_cannot_be_recorded_into_are_refused_before_anything_is_played() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (own, nowhere, here) = (at("own.npz"), at("no/r.npz"), at("here.npz"));
    std::fs::copy(DECK, &own).unwrap();
    std::fs::create_dir(&here).unwrap();
    for (record, expected) in [
        (&own, "own.npz, which would be replaced"),
        (&nowhere, "there is no folder"),
        (&here, "a folder"),
    ] {
        let (lines, told) = check(&["replay", "--record", record, &own], 2);
        assert!(lines.is_empty() && told.contains(expected), "{told}");
    }
    assert_eq!(std::fs::read(&own).unwrap(), std::fs::read(DECK).unwrap());
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_read_once_is_neither_looped_nor_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (pipe, plot) = (pipe.to_str().unwrap(), folder.path().join("plot"));
    for flags in [["--loop", "2"], ["--plot", plot.to_str().unwrap()]] {
        let told = check(&[&["replay", pipe], &flags[..]].concat(), 2).1;
        assert!(told.contains("read once") || told.contains("read twice"), "{told}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_record_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let [recording, record] = ["one.csv", "one.npz"].map(|name| folder.path().join(name));
    std::fs::write(&recording, "t,x,y,on\n0,3,3,1\n").unwrap();
    std::os::unix::fs::symlink("/dev/full", &record).unwrap();
    let [recording, record] = [&recording, &record].map(|path| path.to_str().unwrap());
    let output = run(&["replay", "--record", record, recording]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(told.starts_with("error: ") && told.contains("cannot write"), "{told}");
}

#[test]
fn text_of_recordings_at_once_names_each_line() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.aedat4");
    std::fs::copy(DECK, &other).unwrap();
    let other = other.to_str().unwrap();
    let alone = check(&["replay", "--output", "text", DECK], 0).0;
    assert_eq!(alone.matches(DECK).count(), 1, "{alone}");
    let both = check(&["replay", "--output", "text", "--slots", "2", DECK, other], 0).0;
    for name in [DECK, other] {
        let of_it = both.lines().filter_map(|line| line.strip_prefix(&format!("{name}: ")));
        assert_eq!(of_it.count(), alone.lines().count(), "{name}");
    }
}

/// A name can hold what would move the cursor.
#[cfg(target_os = "linux")]
#[test]
fn names_of_files_do_nothing_to_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a\x1b[31m\nb.aedat4");
    std::fs::copy(DECK, &path).unwrap();
    let missing = folder.path().join("no\x1b[31m\nb.aedat4");
    let (path, missing) = (path.to_str().unwrap(), missing.to_str().unwrap());
    for arguments in [
        &["replay", path][..],
        &["replay", "--slots", "2", path, path],
        &["replay", missing],
        &["-v", "replay", missing],
        &["info", path],
        &["info", missing],
        &["convert", missing, "out.csv"],
    ] {
        let output = run(&[&["--output", "text"], arguments].concat());
        for text in [stdout(&output), stderr(&output)] {
            assert!(!text.contains('\x1b') && !text.contains("\nb."), "{arguments:?}: {text}");
        }
        let both = stdout(&output) + &stderr(&output);
        assert!(both.contains(r"\u{1b}[31m\nb.aedat4"), "{arguments:?}: {both}");
    }
}

#[test]
fn quiet_is_quiet_of_events_outside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("far.csv");
    std::fs::write(&path, "t,x,y,on\n0,100,100,1\n5,3,3,1\n").unwrap();
    let path = path.to_str().unwrap();
    assert!(stderr(&run(&["replay", path])).contains("lie outside"));
    assert_eq!(stderr(&run(&["replay", "-q", path])), "");
}

/// Results of every command that prints at once.
#[cfg(target_os = "linux")]
#[test]
fn a_standard_output_that_takes_nothing_is_no_panic() {
    let server = Server::start(&["--port", "0"], 1);
    let url = format!("tcp://{}", server.address("tcp"));
    for arguments in [
        &["info", DECK, "models/poker.safetensors"][..],
        &["info", "--output", "text", DECK, "models/poker.safetensors"],
        &["info", "--devices"],
        &["completions", "bash"],
        &["eval", DECK],
        &["eval", "--output", "text", DECK],
        &["send", "--print", "--speed", "max", DECK, &url],
    ] {
        let mut child = program(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{arguments:?}: {}", stderr(&output));
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = program(arguments).stdout(full).output().unwrap();
        let told = stderr(&output);
        let errors = told.lines().filter(|line| line.starts_with("error: "));
        assert_eq!((output.status.code(), errors.count()), (Some(1), 1), "{arguments:?}: {told}");
        let results = if arguments[0] == "send" { "answers" } else { "results" };
        assert!(told.contains(&format!("cannot write the {results}")), "{arguments:?}: {told}");
    }
}

/// The streams go on.
#[cfg(target_os = "linux")]
#[test]
fn records_that_a_servers_standard_output_does_not_take_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    for (taker, is_missed) in [(Stdio::from(full), true), (Stdio::from(closed), false)] {
        // Standard output does not tell where it is heard.
        let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let port = http.port().to_string();
        let child = program(&["serve", "--output", "jsonl", "--http", &port, "--unix"])
            .arg(&socket)
            .stdout(taker)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (begun, mut told) = (Instant::now(), 0);
        for _ in 0..2 {
            let mut stream = loop {
                match UnixStream::connect(&socket) {
                    Ok(stream) => break stream,
                    Err(_) => assert!(begun.elapsed() < PATIENCE),
                }
            };
            stream.write_all(&std::fs::read(DECK).unwrap()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            told += rest_of(stream).lines().count();
            let missed = format!("\ndvs_records_missed_total {}\n", told * usize::from(is_missed));
            loop {
                let mut stream = TcpStream::connect(http).unwrap();
                stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
                if rest_of(stream).contains(&missed) {
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "not{missed}");
            }
        }
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(0), "{told}");
        assert_eq!(told.matches("No space left").count(), usize::from(is_missed), "{told}");
        assert_eq!(told.lines().count(), usize::from(is_missed), "{told}");
    }
}

/// A server whose standard error is a pipe.
fn piped(flags: &[&str]) -> Server {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--port", "0"]).args(flags).stderr(Stdio::piped());
    Server::run(&mut command, 1)
}

/// What a connection that sends all of this and closes is answered.
fn say(server: &Server, bytes: &[u8]) -> String {
    let mut stream = server.connect();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    rest_of(stream)
}

/// Which is more than lies in a pipe and waits before it.
const MANY: usize = 2500;

#[test]
fn a_standard_error_that_nobody_reads_holds_up_no_stream() {
    let folder = tempfile::tempdir().unwrap();
    let states = folder.path().to_str().unwrap();
    let refused = |_| "dvs-stream nonsense\n".to_owned();
    // Each is of another rule than the one whose state is kept.
    let warned = |k: usize| {
        format!("dvs-stream {{\"stream\":\"cam\",\"quiet\":{}}}\nt,x,y,on\n0,3,3,1\n", k % 2)
    };
    let expected = nameless(&replay(Path::new(DECK), &[]));
    for (flags, n, says) in [
        (&["-v"][..], MANY, &refused as &dyn Fn(usize) -> String),
        (&["--state-dir", states], 700, &warned),
    ] {
        let mut server = piped(flags);
        for k in 0..n {
            say(&server, says(k).as_bytes());
        }
        assert_eq!(nameless(&say(&server, &std::fs::read(DECK).unwrap())), expected, "{flags:?}");
        assert_eq!(server.exit("-TERM"), Some(0), "{flags:?}");
    }
}

#[test]
fn log_lines_for_which_there_is_no_room_are_counted() {
    let mut server = piped(&["-v"]);
    for _ in 0..MANY {
        say(&server, b"dvs-stream nonsense\n");
    }
    let (mut read, mut line) = (0, String::new());
    let dropped = loop {
        line.clear();
        server.stderr.as_mut().unwrap().read_line(&mut line).unwrap();
        let told = line.strip_prefix("warning: ");
        if let Some(n) = told.and_then(|told| told.split_once(" log lines were dropped")) {
            break n.0.parse::<usize>().unwrap();
        }
        assert!(line.contains("refused"), "{line}");
        read += 1;
    };
    assert!(dropped > 0);
    assert_eq!(read + dropped, MANY);
    server.terminate();
}

/// What is told there is lost, the results are not.
#[cfg(target_os = "linux")]
#[test]
fn a_standard_error_that_takes_nothing_takes_no_results() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (table, deck, pips, model) =
        (at("deck.csv"), at("made.aedat4"), at("pips"), at("m.safetensors"));
    check(&["synth", "--out", &pips, "--per-class", "1"], 0);
    let cut = at("cut.aedat4");
    std::fs::write(&cut, &std::fs::read(DECK).unwrap()[..60_000]).unwrap();
    for arguments in [
        &["replay", "-v", "--readout", "last", "--output", "jsonl", DECK][..],
        &["replay", &cut],
        &["replay", "no-such.aedat4"],
        &["convert", DECK, &table],
        &["synth", "--out", &deck, "--deck", "1"],
        &["info", &cut],
        &["info", "--devices"],
        &["eval", "--readout", "last", DECK],
        &["train", &pips, "--out", &model, "--epochs", "1", "--hidden", "4"],
        &["frobnicate"],
    ] {
        let told = run(arguments);
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        for taker in [Stdio::from(full), Stdio::from(closed)] {
            let output = program(arguments).stderr(taker).output().unwrap();
            assert_eq!(output.status, told.status, "{arguments:?}");
            assert_eq!(output.stdout, told.stdout, "{arguments:?}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_that_is_no_text_is_trained_into() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let pips = folder.path().join("pips");
    let pips = pips.to_str().unwrap();
    check(&["synth", "--out", pips, "--per-class", "1"], 0);
    let out = folder.path().join(std::ffi::OsStr::from_bytes(b"m\xFF.safetensors"));
    let mut train = program(&["train", pips, "--epochs", "1", "--hidden", "4", "--out"]);
    let output = train.arg(&out).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(out.is_file());
}

/// Each of these flags names a file that the command reads.
#[test]
fn what_a_command_reads_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, table, pips, new) =
        (at("m.safetensors"), at("folds.csv"), at("pips"), at("new.safetensors"));
    std::fs::copy("models/poker.safetensors", &model).unwrap();
    check(&["synth", "--out", &pips, "--per-class", "2"], 0);
    std::fs::write(&table, "file,fold\n").unwrap();
    let folds = format!("{table}:fold");
    let norse = ["import", "norse", &model, "--labels", "a,b", "--sensor", "35x35", "--out"];
    for (arguments, read) in [
        (&["replay", "--model", &model, "--record", &model, DECK][..], &model),
        (&[&norse[..], &[&model]].concat(), &model),
        (&["train", &pips, "--folds", &folds, "--out", &table], &table),
        (&["train", &pips, "--folds", &folds, "--out", &new, "--log", &table], &table),
    ] {
        let old = std::fs::read(read).unwrap();
        let told = check(arguments, 2).1;
        assert!(told.contains("would be replaced"), "{arguments:?}: {told}");
        assert!(std::fs::read(read).unwrap() == old, "{arguments:?}");
    }
}
