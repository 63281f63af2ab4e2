//! Over folders made here.

use std::fs;

use dvs_stream::dataset::MAX_WINDOWS;
use dvs_stream::event::SensorSize;
use dvs_stream::frame::Frames;
use dvs_stream::ingest::{Ingest, Reading};
use dvs_stream::prediction::Losses;
use dvs_stream::synth::{LABELS, Pip, PipOptions, SENSOR, pip};
use dvs_stream::view::{Crop, ViewSpec};
use dvs_stream::window::{Partial, WindowConfig};
use tempfile::tempdir;

use super::*;

#[test]
fn class_folders_in_natural_order() {
    let folder = tempdir().unwrap();
    for name in ["b/b_10.aedat", "b/b_9.aedat", "a/deep/2.csv", "a/1.aedat4", "a/unmarked"] {
        write(folder.path(), name, Some(SIZE), &events(30, 5));
    }
    fs::write(folder.path().join("README"), "words").unwrap();
    fs::write(folder.path().join("b/TABLE.csv"), "file,class\nb_9.aedat,b\n").unwrap();
    fs::write(folder.path().join("b/.hidden.aedat"), "words").unwrap();
    fs::create_dir(folder.path().join(".git")).unwrap();
    let dataset = read(folder.path(), &loading());
    assert_eq!(dataset.labels, ["a", "b"]);
    assert_eq!(dataset.sensor, SIZE);
    let expected = [
        ("a/1.aedat4", 0),
        ("a/deep/2.csv", 0),
        ("a/unmarked", 0),
        ("b/b_9.aedat", 1),
        ("b/b_10.aedat", 1),
    ];
    assert_eq!(names(&dataset), expected);
    assert_eq!((dataset.ignored, &dataset.notes, &dataset.faults), (3, &vec![], &vec![]));
    for sample in &dataset.samples {
        assert_eq!((sample.first_us, sample.last_us), (5, 2905), "{}", sample.name);
        assert_eq!(sample.events, events(30, 5), "{}", sample.name);
        assert_eq!(sample.frames.len(), 3);
    }
}

#[test]
fn what_an_interrupted_writer_left_is_no_recording() {
    let folder = tempdir().unwrap();
    two_classes(folder.path(), 1, 10);
    let names = |dataset: &Dataset| -> Vec<String> {
        dataset.samples.iter().map(|sample| sample.name.clone()).collect()
    };
    let whole = names(&read(folder.path(), &loading()));
    for name in ["a/new.aedat4.part", "a/new.aedat4.2.part"] {
        write(folder.path(), name, Some(SIZE), &events(5, 0));
    }
    let dataset = read(folder.path(), &loading());
    assert_eq!(names(&dataset), whole);
    let [note] = &dataset.notes[..] else { panic!("{:?}", dataset.notes) };
    assert!(note.contains("2 files are unfinished") && note.contains("new.aedat4.part"), "{note}");
}

#[test]
fn label_files_in_every_spelling() {
    let files = [
        ("labels.csv", "file,class\none.aedat,10\ntwo.aedat,9\nsub/three.aedat,9\n"),
        ("labels.txt", "#sample #class\none\t10\n\ntwo   9\n  sub/three 9\n"),
        ("labels.csv", "\u{feff}Name;Class;more\none;10;x\ntwo; 9\n./sub/three.aedat;9"),
        ("labels.csv", ",name,class\n0,one,10\n1,two.aedat,9\n2,sub/three,9\n"),
        ("labels.csv", "class,split,file\n10,a,one\n9,,two\n9,b,sub/three\n"),
        ("labels.csv", "\"file\",\"class\"\n\"one.aedat\",\"10\"\ntwo,\"9\"\n\"sub/three\",9\n"),
        ("labels.tsv", "one\t10\ntwo\t9\r\nsub/three\t9\r\n"),
        ("labels.csv", "\u{feff}\"one\",\"10\"\r\ntwo,9\r\n\r\n\"sub/three.aedat\",9\r\n"),
    ];
    for (list, text) in files {
        let folder = tempdir().unwrap();
        for name in ["one.aedat", "two.aedat", "sub/three.aedat"] {
            write(folder.path(), name, Some(SIZE), &events(10, 0));
        }
        fs::write(folder.path().join(list), text).unwrap();
        let dataset = read(folder.path(), &Loading { strict: true, ..loading() });
        assert_eq!(dataset.labels, ["9", "10"], "{text}");
        let expected = [("sub/three.aedat", 0), ("two.aedat", 0), ("one.aedat", 1)];
        assert_eq!(names(&dataset), expected, "{text}");
        assert_eq!(dataset.ignored, 0);
    }
}

#[test]
fn class_names_may_hold_separators() {
    let folder = tempdir().unwrap();
    for name in ["1.aedat", "2.aedat", "3.aedat"] {
        write(folder.path(), name, Some(SIZE), &events(10, 0));
    }
    let labels = "1,\"hand, left\"\n2,\"hand, right\"\n3,\"a \"\"third\"\" one\"\n";
    fs::write(folder.path().join("labels.csv"), labels).unwrap();
    let dataset = read(folder.path(), &loading());
    assert_eq!(dataset.labels, ["a \"third\" one", "hand, left", "hand, right"]);
}

/// What a training with its model in the data's folder leaves there.
#[test]
fn a_report_is_no_class() {
    let folder = tempdir().unwrap();
    two_classes(folder.path(), 1, 10);
    fs::create_dir(folder.path().join("M.report")).unwrap();
    fs::write(folder.path().join("M.report/report.json"), "{}").unwrap();
    fs::write(folder.path().join("M.report/index.html"), "<html>").unwrap();
    assert_eq!(read(folder.path(), &loading()).labels, ["a", "b"]);
}

#[test]
fn labels_and_recordings_without_their_other_half() {
    let folder = tempdir().unwrap();
    for name in ["1.aedat", "2.aedat", "3.aedat", "4.aedat"] {
        write(folder.path(), name, Some(SIZE), &events(10, 0));
    }
    fs::write(folder.path().join("labels.txt"), "1 a\n2 b\n7 a\n8 b\n").unwrap();
    let dataset = read(folder.path(), &loading());
    assert_eq!(names(&dataset), [("1.aedat", 0), ("2.aedat", 1)]);
    let [missing, idle] = &dataset.notes[..] else { panic!("{:?}", dataset.notes) };
    assert!(
        missing.contains("2 labels have no recording") && missing.contains("7, 8"),
        "{missing}"
    );
    assert!(idle.contains("2 recordings have no label") && idle.contains("3.aedat"), "{idle}");
    let strict = Loading { strict: true, ..loading() };
    refused(folder.path(), &strict, &["labels.txt", "7, 8"]);
    fs::write(folder.path().join("labels.txt"), "1 a\n2 b\n7 a\n3 a\n").unwrap();
    let [missing, idle] = &read(folder.path(), &loading()).notes[..] else { panic!() };
    assert!(missing.contains("1 label has no recording and is left out: 7"), "{missing}");
    assert!(idle.contains("1 recording has no label and is left out: 4.aedat"), "{idle}");

    let folder = tempdir().unwrap();
    two_classes(folder.path(), 1, 10);
    write(folder.path(), "loose.aedat", Some(SIZE), &events(10, 0));
    let dataset = read(folder.path(), &loading());
    assert!(dataset.notes.iter().any(|note| note.contains("loose.aedat")), "{:?}", dataset.notes);
    refused(folder.path(), &strict, &["loose.aedat"]);
}

#[test]
fn bad_label_files_are_refused_by_line() {
    let cases = [
        ("0,one,a\n1,two,b\n", vec!["line 1", "name the columns", "'0,one,a'"]),
        ("one,a\ntwo\n", vec!["labels.csv", "line 2", "'two'"]),
        ("one,a\none.aedat,b\n", vec!["line 2", "has a label already"]),
        ("twin,a\n", vec!["line 1", "'twin' names several files"]),
        ("one,a\ntwo,a\n", vec!["one class only", "'a'"]),
        ("", vec!["no labelled recordings"]),
        ("one,\"a\ntwo,b\n", vec!["line 1", "not closed"]),
        ("7,a\n8,b\n", vec!["labels.csv", "none of its 2 names", "'7'"]),
    ];
    for (text, parts) in cases {
        let folder = tempdir().unwrap();
        for name in ["one.aedat", "two.aedat", "twin.aedat", "twin.aedat4"] {
            write(folder.path(), name, Some(SIZE), &events(10, 0));
        }
        fs::write(folder.path().join("labels.csv"), text).unwrap();
        refused(folder.path(), &loading(), &parts);
        let latin = [b"one,r\xeave\n", text.as_bytes()].concat();
        fs::write(folder.path().join("labels.csv"), latin).unwrap();
        refused(folder.path(), &loading(), &["labels.csv", "line 1 is not UTF-8"]);
    }
}

#[test]
fn folders_without_a_dataset_are_refused() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    refused(&path.join("nowhere"), &loading(), &["nowhere", "no such folder"]);
    refused(path, &loading(), &["no labelled recordings", "labels.csv"]);
    let file = write(path, "loose.aedat", Some(SIZE), &events(10, 0));
    refused(&file, &loading(), &["loose.aedat", "no folder"]);
    refused(path, &loading(), &["no labelled recordings"]);
    write(path, "a/1.aedat", Some(SIZE), &events(10, 0));
    refused(path, &loading(), &["one class only, 'a'"]);
    fs::create_dir(path.join("b")).unwrap();
    fs::write(path.join("b/README"), "words").unwrap();
    refused(path, &loading(), &["b: ", "the class folder holds no recording"]);
}

#[test]
fn a_models_labels_are_the_only_ones() {
    let folder = tempdir().unwrap();
    write(folder.path(), "b/1.aedat", Some(SIZE), &events(10, 0));
    let of = |labels: &[&str]| {
        let labels = Some(labels.iter().map(|label| label.to_string()).collect());
        Loading { labels, ..loading() }
    };
    let dataset = read(folder.path(), &of(&["c", "b", "a"]));
    assert_eq!(dataset.labels, ["c", "b", "a"]);
    assert_eq!(names(&dataset), [("b/1.aedat", 1)]);
    refused(folder.path(), &of(&["c", "a"]), &["'b'", "c, a"]);
}

#[test]
fn faults_are_named_and_left_out() {
    let folder = tempdir().unwrap();
    let path = folder.path();
    two_classes(path, 3, 100);
    let cut = write(path, "a/cut.aedat4", Some(SIZE), &events(3000, 0));
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    write(path, "a/empty.aedat", Some(SIZE), &[]);
    // first of all, yet not what most recordings name
    write(path, "a/0.aedat", Some(SensorSize { width: 9, height: 6 }), &events(10, 0));
    write(path, "b/year.csv", Some(SIZE), &[event(0, 1, 1), event(31_536_000_000_000, 1, 1)]);
    fs::write(path.join("b/words.aedat"), "not a recording").unwrap();
    let dataset = read(path, &loading());
    assert_eq!((dataset.samples.len(), dataset.sensor), (6, SIZE));
    let expected = [
        ("a/0.aedat", "9x6"),
        ("a/cut.aedat4", "byte"),
        ("a/empty.aedat", "no events"),
        ("b/words.aedat", "unknown format"),
        ("b/year.csv", "100,000 windows"),
    ];
    let faults: Vec<_> = dataset.faults.iter().map(|fault| fault.name.as_str()).collect();
    assert_eq!(faults, expected.map(|(name, _)| name));
    for (fault, (_, part)) in dataset.faults.iter().zip(expected) {
        assert!(fault.message.contains(part), "{fault}");
    }
    refused(path, &Loading { strict: true, ..loading() }, &["a/0.aedat", "9x6"]);
}

#[test]
fn a_class_without_a_good_recording_is_an_error() {
    let folder = tempdir().unwrap();
    two_classes(folder.path(), 1, 10);
    fs::write(folder.path().join("b/b_0.aedat"), "not a recording").unwrap();
    refused(folder.path(), &loading(), &["class 'b'", "b/b_0.aedat", "unknown format"]);
    fs::write(folder.path().join("a/a_0.aedat"), "not a recording").unwrap();
    refused(folder.path(), &loading(), &["none of 2 recordings", "a/a_0.aedat"]);
}

#[test]
fn the_networks_sensor() {
    let folder = tempdir().unwrap();
    two_classes(folder.path(), 1, 40);
    let seen = |spec: ViewSpec| read(folder.path(), &Loading { view: spec, ..loading() }).sensor;
    let crop = Some(Crop { x: 1, y: 2, width: 3, height: 4 });
    assert_eq!(seen(ViewSpec { transpose: true, ..Default::default() }).to_string(), "6x8");
    assert_eq!(seen(ViewSpec { crop, ..Default::default() }).to_string(), "3x4");
    let sensor = Some(SensorSize { width: 16, height: 12 });
    assert_eq!(seen(ViewSpec { sensor, ..Default::default() }).to_string(), "16x12");
    let view = ViewSpec { scale: true, ..Default::default() };
    let scaled = read(
        folder.path(),
        &Loading { view, sensor: Some(SensorSize { width: 4, height: 3 }), ..loading() },
    );
    assert_eq!((scaled.sensor.to_string(), scaled.losses), ("4x3".into(), Losses::default()));
    assert_eq!(scaled.samples[0].events[7], event(700, 3, 0));

    let folder = tempdir().unwrap();
    write(folder.path(), "a/1.csv", None, &[event(0, 6, 3), event(1, 0, 8)]);
    write(folder.path(), "b/1.csv", None, &[event(0, 2, 2)]);
    let dataset = read(folder.path(), &loading());
    assert_eq!(dataset.sensor.to_string(), "9x9");
    assert!(dataset.notes[0].contains("9x9") && dataset.notes[0].contains("--size"));
    write(folder.path(), "b/2.csv", None, &[event(0, 60_000, 2)]);
    let dataset = read(folder.path(), &loading());
    assert_eq!((dataset.sensor.to_string(), dataset.samples.len()), ("9x9".into(), 2));
    assert!(dataset.faults[0].message.contains("60000"), "{}", dataset.faults[0]);
    // One of four names a size, in which the others' events do not lie.
    write(folder.path(), "a/3.csv", Some(SIZE), &[event(0, 1, 1)]);
    let dataset = read(folder.path(), &loading());
    assert_eq!((dataset.sensor.to_string(), dataset.samples.len()), ("9x9".into(), 2));
    let faults: Vec<_> = dataset.faults.iter().map(|fault| fault.name.as_str()).collect();
    assert_eq!(faults, ["a/3.csv", "b/2.csv"]);
    assert_eq!(dataset.faults[0].exit_code, 3);
    let note = &dataset.notes[0];
    assert!(note.contains("3 of 4") && note.contains("9x9") && note.contains("--size"), "{note}");
    // As many as name none.
    write(folder.path(), "a/4.csv", Some(SIZE), &[event(0, 1, 1)]);
    write(folder.path(), "a/5.csv", Some(SIZE), &[event(0, 1, 1)]);
    let dataset = read(folder.path(), &loading());
    assert_eq!((dataset.sensor, dataset.losses.outside), (SIZE, 2));
    assert!(dataset.notes[0].contains("3 of 6 recordings name a sensor"), "{:?}", dataset.notes);

    // A camera's recordings, of which most were written without its size.
    let folder = tempdir().unwrap();
    let camera = SensorSize { width: 20, height: 10 };
    write(folder.path(), "a/1.csv", Some(camera), &[event(0, 1, 1)]);
    for name in ["a/2.csv", "b/1.csv", "b/2.csv"] {
        write(folder.path(), name, None, &[event(0, 17, 9)]);
    }
    let dataset = read(folder.path(), &loading());
    assert_eq!((dataset.sensor, dataset.samples.len()), (camera, 4));

    let view =
        ViewSpec { sensor: Some(SensorSize { width: 5000, height: 5000 }), ..Default::default() };
    refused(folder.path(), &Loading { view, ..loading() }, &["5000x5000", "--crop"]);
}

#[test]
fn windows_are_those_of_a_stream() {
    let folder = tempdir().unwrap();
    let late = |k: u64| event(k * 700 % 9000 + k / 5 * 40_000, (k % 9) as u16, 2);
    let rough: Vec<_> = (0..40).map(late).collect();
    let made = |seed| pip(Pip::Heart, seed, &PipOptions::default());
    write(folder.path(), "a/1.aedat4", Some(SENSOR), &made(1));
    write(folder.path(), "a/2.aedat4", Some(SENSOR), &rough);
    write(folder.path(), "b/1.csv", Some(SENSOR), &made(3));
    for partial in [Partial::Keep, Partial::Drop] {
        for gap_us in [2_000, 7_000] {
            // one thread, so that one cutter cuts them all
            let loading = Loading { gap_us: Some(gap_us), partial, threads: 1, ..loading() };
            let dataset = read(folder.path(), &loading);
            for sample in &dataset.samples {
                let config = WindowConfig {
                    sensor: SENSOR,
                    window_us: 1000,
                    gap_us,
                    origin: Default::default(),
                    partial,
                };
                let bytes = fs::read(folder.path().join(&sample.name)).unwrap();
                let streamed = stream(&bytes, config);
                assert_eq!(sample.frames, streamed, "{} {partial:?} {gap_us}", sample.name);
            }
        }
    }
}

fn stream(bytes: &[u8], config: WindowConfig) -> Frames {
    let mut all = Frames::default();
    let mut keep = |frames: &mut Frames| {
        (0..frames.len()).for_each(|k| all.copy_from(frames, k));
        frames.clear();
        Ok(())
    };
    let mut ingest = Ingest::new(Reading::default(), config, Some("x.csv"));
    ingest.feed(bytes, &mut keep).unwrap();
    ingest.finish(true, &mut keep).unwrap();
    all
}

#[test]
fn silence_inside_a_recording_stays_as_empty_frames() {
    let folder = tempdir().unwrap();
    two_classes(folder.path(), 1, 10);
    let long_us = (MAX_WINDOWS - 1) * 1000;
    write(folder.path(), "b/long.aedat4", Some(SIZE), &[event(0, 1, 1), event(long_us, 1, 1)]);
    let dataset = read(folder.path(), &loading());
    let long = dataset.samples.iter().find(|sample| sample.name == "b/long.aedat4").unwrap();
    assert_eq!(long.frames.len() as u64, MAX_WINDOWS);
    assert_eq!(long.frames.entries(), 2);
}

#[test]
fn losses_add_up() {
    let folder = tempdir().unwrap();
    write(folder.path(), "a/1.csv", Some(SIZE), &[event(0, 1, 1), event(1, 8, 1), event(2, 1, 6)]);
    let late = [event(0, 1, 1), event(5000, 1, 1), event(10, 1, 1)];
    write(folder.path(), "b/1.csv", Some(SIZE), &late);
    npy(&folder.path().join("b/2.npy"), &[[-5, 1, 1, 1], [3, 2, 2, 1]]);
    let dataset = read(folder.path(), &loading());
    assert_eq!(dataset.faults, []);
    let losses = Losses { late: 1, outside: 2, overflow: 0, malformed: 1 };
    assert_eq!(dataset.losses, losses);
}

/// A plain array with the columns t, x, y, p, as Tonic saves it.
fn npy(path: &Path, rows: &[[i64; 4]]) {
    let head =
        format!("{{'descr': '<i8', 'fortran_order': False, 'shape': ({}, 4), }}", rows.len());
    let head = format!("{head:<117}\n");
    let mut bytes = [b"\x93NUMPY\x01\0", &(head.len() as u16).to_le_bytes()[..]].concat();
    bytes.extend_from_slice(head.as_bytes());
    rows.iter().flatten().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    fs::write(path, bytes).unwrap();
}

#[test]
fn threads_change_nothing() {
    let folder = tempdir().unwrap();
    for (label, which) in LABELS.iter().zip(Pip::ALL) {
        for seed in 0..5 {
            let name = format!("{label}/{seed}.aedat");
            write(folder.path(), &name, None, &pip(which, seed, &PipOptions::default()));
        }
    }
    fs::write(folder.path().join("sp/words.aedat"), "words").unwrap();
    let one = read(folder.path(), &Loading { threads: 1, ..loading() });
    for threads in [0, 2, 5, 64] {
        assert!(one == read(folder.path(), &Loading { threads, ..loading() }), "{threads} threads");
    }
    let bare = read(folder.path(), &Loading { keep_events: false, ..loading() });
    assert!(bare.samples.iter().all(|sample| sample.events.is_empty()));
    let frames = |dataset: &Dataset| -> Vec<_> {
        dataset.samples.iter().map(|sample| sample.frames.clone()).collect()
    };
    assert_eq!(frames(&one), frames(&bare));
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_back_is_refused() {
    let folder = tempdir().unwrap();
    two_classes(folder.path(), 1, 10);
    std::os::unix::fs::symlink("..", folder.path().join("a/up")).unwrap();
    refused(folder.path(), &loading(), &["does a link lead back?"]);
}
