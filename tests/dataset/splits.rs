//! Which recordings are trained on, and which are kept out.

use std::collections::BTreeSet;
use std::fs;

use dvs_stream::dataset::split::{Fold, Split, groups};
use dvs_stream::dataset::{Dataset, Sample};
use dvs_stream::frame::Frames;
use dvs_stream::prediction::Losses;
use proptest::prelude::*;
use tempfile::tempdir;

use super::SIZE;

/// Recordings by class, first and last time.
fn dataset(spans: &[(usize, u64, u64)]) -> Dataset {
    let mut spans = spans.to_vec();
    spans.sort_by_key(|(class, ..)| *class);
    let classes = spans.iter().map(|span| span.0).max().unwrap_or(0);
    let sample = |(k, (class, first_us, last_us)): (usize, &(usize, u64, u64))| Sample {
        name: format!("{class}/{k}"),
        class: *class,
        first_us: *first_us,
        last_us: *last_us,
        events: vec![],
        frames: Frames::default(),
    };
    Dataset {
        labels: (0..=classes).map(|class| class.to_string()).collect(),
        sensor: SIZE,
        samples: spans.iter().enumerate().map(sample).collect(),
        faults: vec![],
        notes: vec![],
        ignored: 0,
        losses: Losses::default(),
    }
}

/// `n` recordings of each of two classes, far apart.
fn apart(n: u64) -> Dataset {
    let span = |k| ((k / n) as usize, 100 * k, 100 * k + 50);
    dataset(&(0..2 * n).map(span).collect::<Vec<_>>())
}

fn refused(split: &Split, dataset: &Dataset, parts: &[&str]) {
    let error = split.folds(dataset, false, 0).expect_err("is refused").to_string();
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in `{error}`");
    }
}

#[test]
fn first_of_each_class() {
    let folds = Split::First(2).folds(&apart(3), false, 0).unwrap();
    let fold = Fold { name: String::new(), train: vec![0, 1, 3, 4], test: vec![2, 5] };
    assert_eq!(folds, [fold]);
    refused(&Split::First(3), &apart(3), &["no recording to be kept out", "all 6"]);
    refused(&Split::First(0), &apart(3), &["no recording to be trained on"]);
}

#[test]
fn all_keeps_nothing_out() {
    let folds = Split::All.folds(&apart(2), false, 0).unwrap();
    assert_eq!(folds, [Fold { name: String::new(), train: vec![0, 1, 2, 3], test: vec![] }]);
}

#[test]
fn a_group_stays_with_its_first_recording() {
    // 0 meets 2 by way of 3; 4 overlaps in time, but is of another class
    let spans = [(0, 0, 10), (0, 50, 60), (0, 20, 30), (0, 10, 25), (1, 0, 10), (1, 20, 30)];
    let dataset = dataset(&spans);
    assert_eq!(groups(&dataset.samples), [0, 1, 0, 0, 4, 5]);
    let folds = Split::First(1).folds(&dataset, true, 0).unwrap();
    assert_eq!((&folds[0].train, &folds[0].test), (&vec![0, 2, 3, 4], &vec![1, 5]));
}

#[test]
fn as_many_folds_as_groups_at_most() {
    refused(&Split::Folds(1), &apart(3), &["--folds 1", "from 2 to 6"]);
    refused(&Split::Folds(7), &apart(3), &["--folds 7", "from 2 to 6"]);
    assert_eq!(Split::Folds(3).folds(&apart(3), false, 0).unwrap().len(), 3);
}

#[test]
fn tables_of_folds() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("folds.csv");
    let table = |text: &str, column: &str| {
        fs::write(&path, text).unwrap();
        Split::Table(path.clone(), column.to_owned())
    };
    let text = "file,once,k\n1/2,test,10\n1/3,train,9\n0/0,train,9\n0/1,test,10\n9/9,test,7\n";
    let fold = |name: &str, train: [usize; 2], test: [usize; 2]| Fold {
        name: name.to_owned(),
        train: train.to_vec(),
        test: test.to_vec(),
    };
    let once = table(text, "once").folds(&apart(2), false, 0).unwrap();
    assert_eq!(once, [fold("", [0, 3], [1, 2])]);
    let folds = table(text, "k").folds(&apart(2), false, 0).unwrap();
    assert_eq!(folds, [fold("9", [1, 2], [0, 3]), fold("10", [0, 3], [1, 2])]);

    let quoted = "\u{feff}\"file\";\"k\"\r\n\"0/0\";10\r\n0/1;9\r\n1/2;10\r\n1/3;9\r\n";
    let folds = table(quoted, "k").folds(&apart(2), false, 0).unwrap();
    assert_eq!(folds, [fold("9", [0, 2], [1, 3]), fold("10", [1, 3], [0, 2])]);
    refused(&table("", "k"), &apart(2), &["folds.csv", "empty"]);

    let three = "file,k\n0/0,train\n0/1,val\n1/2,train\n1/3,test\n";
    refused(&table(three, "k"), &apart(2), &["folds.csv", "'k'", "'train' beside 'val'"]);

    refused(&table(text, "two"), &apart(2), &["folds.csv", "'two'", "file, once, k"]);
    refused(&table("name,k\n", "k"), &apart(2), &["'file'"]);
    refused(&table(text, "k"), &apart(3), &["no 'k' for", "0/2"]);
    refused(&table("file,k\n0/0,1\n0/0,2\n", "k"), &apart(2), &["0/0 stands there twice"]);
    refused(&table("file,k\n0/0,\n", "k"), &apart(2), &["no 'k' for 0/0"]);
    let lone = "file,k\n0/0,1\n0/1,1\n1/2,2\n1/3,2\n";
    refused(&table(lone, "k"), &apart(2), &["class '0'", "in fold 1"]);
    refused(&Split::Table(folder.path().join("none.csv"), "k".into()), &apart(2), &["none.csv"]);
}

fn spans() -> impl Strategy<Value = Vec<(usize, u64, u64)>> {
    let span = (0..3usize, 0..400u64, 0..30u64);
    proptest::collection::vec(
        span.prop_map(|(class, from, long)| (class, from, from + long)),
        2..40,
    )
}

proptest! {
    #[test]
    fn groups_are_connected_overlaps(spans in spans()) {
        let samples = dataset(&spans).samples;
        let overlap = |a: &Sample, b: &Sample| {
            a.class == b.class && a.first_us <= b.last_us && b.first_us <= a.last_us
        };
        // brute force: spread the least place along overlaps until nothing moves
        let mut least: Vec<usize> = (0..samples.len()).collect();
        let mut moved = true;
        while moved {
            moved = false;
            for a in 0..samples.len() {
                for b in 0..samples.len() {
                    if overlap(&samples[a], &samples[b]) && least[b] < least[a] {
                        least[a] = least[b];
                        moved = true;
                    }
                }
            }
        }
        prop_assert_eq!(groups(&samples), least);
    }

    #[test]
    fn folds_part_the_recordings(spans in spans(), n in 2..6usize, by_time: bool, seed: u64) {
        let dataset = dataset(&spans);
        let Ok(folds) = Split::Folds(n).folds(&dataset, by_time, seed) else { return Ok(()) };
        prop_assert_eq!(&folds, &Split::Folds(n).folds(&dataset, by_time, seed).unwrap());
        let groups = groups(&dataset.samples);
        let all: BTreeSet<usize> = (0..dataset.samples.len()).collect();
        let mut kept_out = vec![];
        for fold in &folds {
            let [train, test] = [&fold.train, &fold.test].map(|side| side.iter().copied().collect::<BTreeSet<_>>());
            prop_assert!(train.is_disjoint(&test));
            prop_assert_eq!(&train | &test, all.clone());
            if by_time {
                let of = |side: &BTreeSet<usize>| side.iter().map(|k| groups[*k]).collect::<BTreeSet<_>>();
                prop_assert!(of(&train).is_disjoint(&of(&test)));
            } else {
                for class in 0..3 {
                    let count = |side: &[usize]| side.iter().filter(|k| dataset.samples[**k].class == class).count();
                    let (kept, of) = (count(&fold.test), dataset.samples.iter().filter(|s| s.class == class).count());
                    prop_assert!(kept == of / n || kept == of.div_ceil(n), "{kept} of {of} in {n} folds");
                }
            }
            kept_out.extend(test);
        }
        kept_out.sort_unstable();
        prop_assert_eq!(kept_out, all.into_iter().collect::<Vec<_>>());
    }
}
