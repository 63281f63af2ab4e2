//! Pictures and reports: well-formed, labelled, the same bytes for the same data, of bounded size,
//! and whole whatever a label or a file is called.

mod program;

use std::ffi::OsString;
use std::path::Path;

use dvs_stream::plot::{self, Axes, Dot, Series, Slice};
use program::DECK;
use proptest::prelude::*;
use quick_xml::Reader;
use quick_xml::events::Event;
use tempfile::TempDir;

const AXES: Axes<'_> =
    Axes { title: "a title", x: "time in ms", y: "voltage v", x_range: None, y_range: None };

/// Runs, expects an exit code; gives standard error.
fn check(arguments: &[&str], code: i32) -> String {
    program::check(arguments, code).1
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The texts of a document, which is well-formed, holds only characters that XML may hold, and
/// loads nothing.
fn texts(document: &str) -> Vec<String> {
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r');
    assert!(!document.contains(control), "a control character");
    let mut reader = Reader::from_str(document);
    reader.config_mut().check_end_names = true;
    let (mut texts, mut text, mut open) = (Vec::new(), String::new(), 0);
    loop {
        match reader.read_event().unwrap() {
            Event::Eof => break,
            Event::Text(part) => text.push_str(part.as_ref()),
            Event::GeneralRef(name) => text.push(match name.as_ref() {
                "lt" => '<',
                "gt" => '>',
                "amp" => '&',
                "quot" => '"',
                "apos" => '\'',
                other => panic!("&{other}; is no entity of XML"),
            }),
            tag @ (Event::Start(_) | Event::End(_) | Event::Empty(_)) => {
                if let Event::Start(tag) | Event::Empty(tag) = &tag {
                    for attribute in tag.attributes() {
                        let key = attribute.unwrap().key;
                        let loads = ["src", "href", "xlink:href", "onload"];
                        assert!(!loads.contains(&key.as_ref()), "{key:?} loads something");
                    }
                    assert_ne!(tag.name().as_ref(), "script");
                }
                open += matches!(tag, Event::Start(_)) as i32;
                open -= matches!(tag, Event::End(_)) as i32;
                texts.push(std::mem::take(&mut text).trim().to_owned());
            }
            _ => (),
        }
    }
    assert_eq!(open, 0, "an element is left open");
    assert!(!document.contains("url(") && !document.contains("@import"));
    texts
}

fn count(document: &str, tag: &str) -> usize {
    document.matches(&format!("<{tag} ")).count()
}

#[test]
fn replay_draws_what_the_tutorial_draws() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["a", "b/c"].map(|name| folder.path().join(name));
    check(&["replay", DECK, "--plot", text(&first)], 0);
    check(&["replay", DECK, "--plot", text(&second)], 0);
    let expected: &[(&str, &[&str])] = &[
        ("events", &["x in pixels", "y in pixels", "ON (brighter)", "OFF (darker)"]),
        ("hidden_i", &["time in ms", "synaptic current i"]),
        ("hidden_v", &["time in ms", "membrane voltage v"]),
        ("readout", &["time in ms", "membrane voltage v", "cl", "di", "he", "sp"]),
        ("spikes", &["time in ms", "neuron", "spike"]),
    ];
    let mut files: Vec<_> =
        std::fs::read_dir(&first).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    let names = expected.iter().map(|(name, _)| OsString::from(format!("{name}.svg")));
    assert_eq!(files, names.collect::<Vec<_>>());
    for (name, words) in expected {
        let name = format!("{name}.svg");
        let svg = std::fs::read_to_string(first.join(&name)).unwrap();
        assert_eq!(svg, std::fs::read_to_string(second.join(&name)).unwrap(), "{name}");
        let texts = texts(&svg);
        assert!(texts.iter().any(|text| text.starts_with("deck.aedat4: ")), "{name}: no title");
        for word in *words {
            assert!(texts.iter().any(|text| text == word), "{name}: no '{word}'");
        }
    }
}

#[test]
fn replay_says_what_it_cannot_draw() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let out = folder.path().join("out");
    assert!(check(&["replay", DECK, DECK, "--plot", text(&out)], 2).contains("--plot"));
    assert!(check(&["replay", "-", "--plot", text(&out)], 2).contains("--plot"));
    assert!(check(&["replay", DECK, "--plot", text(&file)], 2).contains(text(&file)));
    // a missing recording is told once, and its code is that of a replay without pictures
    let told = check(&["replay", "missing.aedat4", "--plot", text(&out)], 2);
    assert_eq!(told.matches("missing.aedat4").count(), 1, "{told}");
    assert!(!out.exists());
}

#[test]
fn no_line_leads_through_a_silence() {
    let points = |gap: f64| vec![(0.0, 1.0), (1.0, 2.0), (2.0, gap), (3.0, 1.0), (4.0, 2.0)];
    let pieces = |gap| {
        let svg = plot::lines(&AXES, &[Series::new("v", points(gap))]).unwrap();
        let drawn = svg.lines().filter(|line| line.contains("polyline"));
        drawn.filter(|line| line.contains("#0072B2")).count()
    };
    assert_eq!((pieces(1.5), pieces(f64::NAN)), (1, 2));
    // the deck's eight pips, with silence between them, in four classes
    let folder = tempfile::tempdir().unwrap();
    check(&["replay", DECK, "--plot", text(folder.path())], 0);
    let svg = std::fs::read_to_string(folder.path().join("readout.svg")).unwrap();
    for color in ["#0072B2", "#D55E00", "#009E73", "#CC79A7"] {
        let drawn = svg.lines().filter(|line| line.contains("polyline") && line.contains(color));
        assert_eq!(drawn.count(), 8, "{color}");
    }
}

#[test]
fn every_series_of_a_legend_looks_different() {
    let series = |n: usize| -> Vec<Series> {
        let line = |k| Series::new(format!("class {k}"), vec![(0.0, k as f64), (9.0, k as f64)]);
        (0..n).map(line).collect()
    };
    let ten = plot::lines(&AXES, &series(10)).unwrap();
    let named = texts(&ten).iter().filter(|text| text.starts_with("class ")).count();
    assert_eq!(named, 10);
    // the ninth has the first one's colour, in dashes: more pieces, and a swatch of two
    let blue = |svg: &str, tag: &str| {
        svg.lines().filter(|line| line.contains(tag) && line.contains("#0072B2")).count()
    };
    let eight = plot::lines(&AXES, &series(8)).unwrap();
    assert_eq!((blue(&eight, "<polyline"), blue(&eight, "<rect")), (1, 1));
    assert!(blue(&ten, "<polyline") > 10);
    assert_eq!(blue(&ten, "<rect"), 3);
    let many = texts(&plot::lines(&AXES, &series(40)).unwrap());
    assert!(many.contains(&"40 lines, class 0 to class 39".to_owned()), "{many:?}");
}

#[test]
fn a_long_recording_is_a_picture_of_bounded_size_that_keeps_its_peaks() {
    let mut points: Vec<_> = (0..200_000).map(|k| (f64::from(k), f64::from(k % 2))).collect();
    points[123_456].1 = 50.0;
    let svg = plot::lines(&AXES, &[Series::new("v", points)]).unwrap();
    assert!(svg.len() < 60_000, "{} bytes", svg.len());
    let line = svg.lines().find(|line| line.contains("polyline") && line.contains("#0072B2"));
    let line = line.unwrap().split("points=\"").nth(1).unwrap().split('"').next().unwrap();
    let heights: Vec<i32> =
        line.split_whitespace().map(|at| at.split(',').nth(1).unwrap().parse().unwrap()).collect();
    let highest = heights.iter().min().unwrap();
    assert_eq!(heights.iter().filter(|y| *y == highest).count(), 1, "the peak is drawn once");
    let spikes: Vec<_> = (0..200_000).map(|k| (f64::from(k), k as usize % 3)).collect();
    let svg = plot::raster("spikes", &spikes, 3, 200_000.0).unwrap();
    assert!(svg.len() < 60_000, "{} bytes", svg.len());
}

#[test]
fn spikes_apart_are_marks_apart() {
    let marks =
        |spikes: &[(f64, usize)]| count(&plot::raster("spikes", spikes, 9, 20.0).unwrap(), "rect");
    let none = marks(&[]);
    assert_eq!(marks(&[(1.0, 4)]), none + 1);
    assert_eq!(marks(&[(3.0, 4), (1.0, 4), (1.0, 5), (2.0, 4)]), none + 4);
}

#[test]
fn epochs_are_ticked_as_whole_numbers() {
    for n in [1, 2, 3, 10, 100] {
        let points = (1..=n).map(|epoch| (f64::from(epoch), 0.5)).collect();
        let axes = Axes { x: "epoch", y_range: Some((0.0, 105.0)), ..AXES };
        let ticks = texts(&plot::lines(&axes, &[Series::new("loss", points)]).unwrap());
        assert!(ticks.contains(&"1".to_owned()) || n > 10, "{n} epochs: {ticks:?}");
        assert!(!ticks.iter().any(|tick| tick.contains('.')), "{n} epochs: {ticks:?}");
    }
}

#[test]
fn one_value_or_none_is_drawn_too() {
    let [one, none] = [vec![(1.0, 3.0)], vec![]].map(|points| {
        let svg = plot::lines(&AXES, &[Series::new("v", points)]).unwrap();
        texts(&svg);
        svg
    });
    assert_eq!((count(&one, "circle"), count(&none, "circle")), (1, 0));
    texts(&plot::lines(&AXES, &[]).unwrap());
    texts(&plot::event_grid("events", (34, 34), &[]).unwrap());
    texts(&plot::confusion("confusion", &[], &[]).unwrap());
}

/// Names that are the same where they are cut short.
#[test]
fn classes_are_told_apart_whatever_their_names() {
    let labels = ["left hand wave", "right hand wave"].map(str::to_owned);
    let counts = [vec![3, 1, 0], vec![0, 2, 2]];
    let texts_of = |labels: &[String]| texts(&plot::confusion("c", labels, &counts).unwrap());
    let drawn = texts_of(&labels);
    for expected in ["1: left hand wave", "2: right hand wave", "unknown"] {
        assert!(drawn.iter().any(|text| text == expected), "{drawn:?}");
    }
    assert_eq!(drawn.iter().filter(|text| *text == "1" || *text == "2").count(), 4 + 3);
    let plain = texts_of(&["wave left", "wave right"].map(str::to_owned));
    assert!(!plain.iter().any(|text| text.contains(": ")), "{plain:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    /// Whatever a label or a title says, it stays text.
    #[test]
    fn names_stay_text(name in "[<>&\"'\\]/ a-z\u{1}\u{7f}\u{85}é…]{1,30}") {
        let shown: String =
            name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let shown = shown.trim();
        let has = |svg: &str| texts(svg).iter().any(|text| text == shown);
        let line = Series::new(name.as_str(), vec![(0.0, 0.0), (1.0, 1.0)]);
        prop_assert!(has(&plot::lines(&AXES, &[line]).unwrap()));
        prop_assert!(has(&plot::raster(&name, &[(1.0, 0)], 1, 2.0).unwrap()));
        let dots = vec![Dot { x: 1, y: 2, on: 1, off: 0 }];
        let slices = [Slice { span_ms: (0.0, 1.0), dots }];
        prop_assert!(has(&plot::event_grid(&name, (4, 4), &slices).unwrap()));
        texts(&plot::confusion(&name, std::slice::from_ref(&name), &[vec![1, 2]]).unwrap());
    }
}

/// A folder `pips` of two classes, one of them with a name that is markup.
fn strange_pips() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    check(&["synth", "-q", "--out", text(&made), "--per-class", "3", "--seed", "3"], 0);
    for (from, to) in [("cl", "<b>&\""), ("di", "it's")] {
        let to = folder.path().join("pips").join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::rename(made.join(from), to).unwrap();
    }
    std::fs::write(folder.path().join("pips/it's/<i>.aedat4"), "broken").unwrap();
    folder
}

#[test]
fn a_report_is_one_well_formed_page_and_the_same_as_json() {
    let folder = strange_pips();
    let model = folder.path().join("m.safetensors");
    let pips = folder.path().join("pips");
    let train =
        ["train", text(&pips), "--out", text(&model), "--epochs", "2", "--hidden", "9,8", "-q"];
    check(&train, 1);
    let report = folder.path().join("m.report");
    let page = std::fs::read_to_string(report.join("index.html")).unwrap();
    let texts = texts(&page);
    for shown in ["<b>&\"", "it's", "Loss", "Accuracy", "Firing", "Confusion", "true class"] {
        assert!(texts.iter().any(|text| text == shown), "no '{shown}'");
    }
    assert!(texts.iter().any(|text| text.contains("<i>.aedat4")), "nothing says what was left out");
    let outside = page.replace("http://www.w3.org/2000/svg", "");
    assert!(!outside.contains("http:") && !outside.contains("https:"));

    let json = std::fs::read(report.join("report.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["epochs"].as_array().unwrap().len(), 2);
    assert_eq!(json["score"]["labels"], serde_json::json!(["<b>&\"", "it's"]));
    let rows = json["score"]["confusion"].as_array().unwrap();
    let sums = rows.iter().map(|row| {
        let row = row.as_array().unwrap();
        row.iter().map(|count| count.as_u64().unwrap()).sum::<u64>()
    });
    assert_eq!(sums.collect::<Vec<_>>(), [3, 3]);
    assert_eq!(json["recordings"].as_array().unwrap().len(), 6);
}
