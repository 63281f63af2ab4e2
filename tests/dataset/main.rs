//! Labelled recordings: what is found, how it is labelled and cut, what is refused or left out.

#[path = "../skip/mod.rs"]
mod skip;

mod folders;
mod shared;
mod splits;

use std::fs;
use std::path::{Path, PathBuf};

use dvs_stream::codec::{DecoderOptions, EncoderOptions, probe::by_name};
use dvs_stream::dataset::{Dataset, Loading, load};
use dvs_stream::event::{Event, Polarity, SensorSize};
use dvs_stream::recording::Writer;
use dvs_stream::window::Partial;

const SIZE: SensorSize = SensorSize { width: 8, height: 6 };

/// Loading with defaults, kept events and no help.
fn loading() -> Loading {
    Loading {
        sensor: None,
        window_us: 1000,
        gap_us: None,
        partial: Partial::Keep,
        view: Default::default(),
        decoder: DecoderOptions::default(),
        format: None,
        labels: None,
        strict: false,
        keep_events: true,
        threads: 2,
    }
}

fn read(folder: &Path, loading: &Loading) -> Dataset {
    load(folder, loading).unwrap()
}

/// The error's text, which names every part and is one line.
fn refused(folder: &Path, loading: &Loading, parts: &[&str]) {
    let error = load(folder, loading).expect_err("is refused").to_string();
    assert!(!error.contains('\n'), "{error}");
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in `{error}`");
    }
}

fn event(t_us: u64, x: u16, y: u16) -> Event {
    Event { t_us, x, y, polarity: Polarity::On }
}

/// `n` events, 100 µs apart, from `start_us` on.
fn events(n: u16, start_us: u64) -> Vec<Event> {
    (0..n).map(|k| event(start_us + 100 * u64::from(k), k % 8, k / 8 % 6)).collect()
}

/// Writes a recording; its extension says the format.
fn write(folder: &Path, name: &str, sensor: Option<SensorSize>, events: &[Event]) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let format = match path.extension().and_then(|own| own.to_str()) {
        Some("aedat4") => "aedat4",
        Some("csv") => "csv",
        _ => "aedat2",
    };
    let options = EncoderOptions { sensor, compression: Default::default() };
    let mut writer = Writer::create(&path, by_name(format).unwrap(), &options).unwrap();
    writer.write(events).unwrap();
    writer.finish().unwrap();
    path
}

/// Two classes of `n` recordings that are `n_events` long and a second apart.
fn two_classes(folder: &Path, n: usize, n_events: u16) {
    for (class, label) in ["a", "b"].iter().enumerate() {
        for k in 0..n {
            let start_us = ((class * n + k) * 1_000_000) as u64;
            let name = format!("{label}/{label}_{k}.aedat");
            write(folder, &name, Some(SIZE), &events(n_events, start_us));
        }
    }
}

fn names(dataset: &Dataset) -> Vec<(&str, usize)> {
    dataset.samples.iter().map(|sample| (sample.name.as_str(), sample.class)).collect()
}
