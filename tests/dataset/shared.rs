//! Over the real recordings of the shared folder, where it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use dvs_stream::dataset::split::{Split, groups};
use dvs_stream::prediction::Losses;

use super::skip::skip;
use super::*;

fn shared(name: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let root = std::env::var_os("DVS_SHARED").map_or_else(beside, PathBuf::from);
    let folder = root.join("data").join(name);
    if !folder.is_dir() {
        skip(&format!("{} is not there", folder.display()));
        return None;
    }
    Some(folder)
}

/// Column of a table by its column `file`.
fn column(path: &Path, name: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let at = header.iter().position(|own| *own == name).unwrap();
    lines.map(|fields| (fields[0].to_owned(), fields[at].to_owned())).collect()
}

#[test]
fn poker_dvs() {
    let Some(folder) = shared("poker-dvs") else { return };
    let dataset = read(&folder, &loading());
    assert_eq!(dataset.labels, ["cl", "di", "he", "sp"]);
    assert_eq!(dataset.sensor.to_string(), "35x35");
    assert_eq!((dataset.samples.len(), dataset.faults.len()), (68, 0));
    assert_eq!(dataset.losses, Losses::default());
    assert!(dataset.notes[0].contains("35x35"));
    let [events, first_us, duration_us] = ["events", "first_us", "duration_us"]
        .map(|name| column(&folder.join("MANIFEST.csv"), name));
    for sample in &dataset.samples {
        let of = |column: &BTreeMap<String, String>| column[&sample.name].parse::<u64>().unwrap();
        assert_eq!(sample.events.len() as u64, of(&events), "{}", sample.name);
        assert_eq!(sample.first_us, of(&first_us), "{}", sample.name);
        assert_eq!(sample.last_us - sample.first_us, of(&duration_us), "{}", sample.name);
        let counted: u64 = sample.frames.windows().iter().map(|w| u64::from(w.events)).sum();
        assert_eq!(counted, of(&events), "{}", sample.name);
        let windows = of(&duration_us) / 1000 + 1;
        assert_eq!(sample.frames.len() as u64, windows, "{}", sample.name);
    }
}

#[test]
fn poker_dvs_splits() {
    let Some(folder) = shared("poker-dvs") else { return };
    let table = folder.join("FOLDS.csv");
    let dataset = read(&folder, &loading());
    let folds = |split: Split, by_time| split.folds(&dataset, by_time, 0).unwrap();
    let first = folds(Split::First(12), false);
    assert_eq!(first, folds(Split::Table(table.clone(), "first12_last5".into()), false));
    assert_eq!((first[0].train.len(), first[0].test.len()), (48, 20));

    let names = column(&table, "group");
    let ours = groups(&dataset.samples);
    for (a, one) in dataset.samples.iter().enumerate() {
        for (b, other) in dataset.samples.iter().enumerate() {
            let same = names[&one.name] == names[&other.name];
            assert_eq!(ours[a] == ours[b], same, "{} and {}", one.name, other.name);
        }
    }

    let table = folds(Split::Table(table, "fold_seed3".into()), false);
    let dealt = folds(Split::Folds(5), true);
    for folds in [table, dealt] {
        assert_eq!(folds.len(), 5);
        for fold in folds {
            assert_eq!(fold.train.len() + fold.test.len(), 68);
            for k in fold.test {
                assert!(fold.train.iter().all(|other| ours[*other] != ours[k]));
            }
        }
    }
}

#[test]
fn n_mnist() {
    let Some(folder) = shared("nmnist-small") else { return };
    let dataset = read(&folder, &Loading { keep_events: false, strict: true, ..loading() });
    assert_eq!(dataset.labels, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!((dataset.samples.len(), dataset.sensor.to_string()), (1000, "34x34".into()));
    let text = fs::read_to_string(folder.join("labels.txt")).unwrap();
    let labels: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once('\t')).collect();
    for sample in &dataset.samples {
        let name = sample.name.strip_suffix(".bs2").unwrap();
        assert_eq!(dataset.labels[sample.class], labels[name], "{name}");
    }
}
