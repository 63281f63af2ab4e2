//! Augmentations: what each changes, what it leaves, and that a key fixes what is drawn.

use std::collections::BTreeSet;

use dvs_stream::augment::{Augmentations, Use};
use dvs_stream::dataset::Cutter;
use dvs_stream::event::{Event, Polarity, SensorSize};
use dvs_stream::frame::Frames;
use dvs_stream::window::{Partial, WindowConfig};
use proptest::prelude::*;

const SENSOR: SensorSize = SensorSize { width: 10, height: 7 };

fn parse(text: &str) -> Augmentations {
    text.parse().unwrap()
}

fn key(seed: u64) -> Use {
    Use { seed, epoch: 3, index: 5 }
}

fn applied(text: &str, seed: u64, events: &[Event]) -> Vec<Event> {
    let mut events = events.to_vec();
    parse(text).apply(key(seed), SENSOR, &mut events);
    events
}

fn is_sorted(events: &[Event]) -> bool {
    events.is_sorted_by_key(|event| event.t_us)
}

fn is_inside(event: &Event) -> bool {
    SENSOR.address(event).is_some()
}

/// `n` events, 10 µs apart, all over the sensor.
fn steady(n: u64) -> Vec<Event> {
    let event = |k: u64| Event {
        t_us: 1_000_000 + 10 * k,
        x: (k % 10) as u16,
        y: (k / 10 % 7) as u16,
        polarity: Polarity::from_on(k.is_multiple_of(3)),
    };
    (0..n).map(event).collect()
}

#[test]
fn lists_print_back() {
    let texts = [
        "none",
        "shift:1",
        "shift:2,hflip,vflip,polflip",
        "hflip:0.25,jitter:100,timescale:0.1,drop:0.2,noise:1.5,tail:30",
    ];
    for text in texts {
        assert_eq!(parse(text).to_string(), text);
    }
    assert_eq!(parse(" shift:1 , hflip:0.5 ").to_string(), "shift:1,hflip");
    assert_eq!(parse(""), parse("none"));
    assert!(parse("none").is_empty() && !parse("hflip").is_empty());
    let text = serde_json::to_string(&parse("shift:1,drop:0.1")).unwrap();
    assert_eq!(text, "\"shift:1,drop:0.1\"");
    assert_eq!(serde_json::from_str::<Augmentations>(&text).unwrap(), parse("shift:1,drop:0.1"));
}

#[test]
fn what_is_no_augmentation_is_refused() {
    let cases = [
        ("rotate:3", vec!["'rotate'", "shift, hflip"]),
        ("shift", vec!["'shift'", "shift:1"]),
        ("shift:1.5", vec!["'shift:1.5'"]),
        ("shift:-1", vec!["from 0 to 1000"]),
        ("hflip:2", vec!["from 0 to 1", "as hflip:0.5"]),
        ("drop:NaN", vec!["from 0 to 1", "as drop:0.2"]),
        ("timescale", vec!["as timescale:0.2"]),
        ("noise:inf", vec!["'noise:inf'"]),
        ("hflip,,vflip", vec!["''"]),
        ("hflip:", vec!["'hflip:'"]),
    ];
    for (text, parts) in cases {
        let error = text.parse::<Augmentations>().expect_err(text).to_string();
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in `{error}`");
        }
    }
}

#[test]
fn shifts_reach_every_place_alike() {
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let moved = applied("shift:2", seed, &[Event { x: 5, y: 3, ..steady(1)[0] }]);
        seen.insert((moved[0].x, moved[0].y));
    }
    let all: BTreeSet<_> = (3..=7).flat_map(|x| (1..=5).map(move |y| (x, y))).collect();
    assert_eq!(seen, all);
}

#[test]
fn flips_happen_as_often_as_they_should() {
    let events = steady(70);
    for (text, expected) in [("hflip", 500), ("vflip:0.25", 250), ("polflip:0.75", 750)] {
        let flipped = (0..1000).filter(|seed| applied(text, *seed, &events) != events).count();
        // five standard deviations
        assert!(flipped.abs_diff(expected) < 80, "{text}: {flipped} of 1000");
    }
}

#[test]
fn times_are_jittered_by_their_deviation() {
    let events = steady(1);
    let squares = |seed| {
        let moved = applied("jitter:100", seed, &events)[0].t_us;
        (moved as f64 - events[0].t_us as f64).powi(2)
    };
    let deviation = ((0..4000).map(squares).sum::<f64>() / 4000.0).sqrt();
    assert!((94.0..106.0).contains(&deviation), "{deviation}");
}

#[test]
fn times_stretch_by_one_factor() {
    let events = steady(1001);
    let mut factors = Vec::new();
    for seed in 0..200 {
        let stretched = applied("timescale:0.5", seed, &events);
        let factor = (stretched[1000].t_us - 1_000_000) as f64 / 10_000.0;
        for (old, new) in events.iter().zip(&stretched) {
            let expected = 1_000_000.0 + factor * (old.t_us - 1_000_000) as f64;
            assert!((new.t_us as f64 - expected).abs() <= 1.0, "{old:?} {new:?} {factor}");
        }
        factors.push(factor);
    }
    factors.sort_by(f64::total_cmp);
    assert!((0.5..0.53).contains(&factors[0]), "{}", factors[0]);
    assert!((1.47..=1.5).contains(&factors[199]), "{}", factors[199]);
}

#[test]
fn a_share_of_events_is_dropped_and_never_all() {
    let events = steady(10_000);
    let kept = applied("drop:0.2", 1, &events);
    assert!(kept.len().abs_diff(8_000) < 200, "{}", kept.len());
    let mut rest = events.iter();
    assert!(kept.iter().all(|event| rest.any(|other| other == event)));
    assert_eq!(applied("drop:1", 1, &events), events[..1]);
}

#[test]
fn noise_has_its_rate_and_lies_anywhere() {
    let events = [steady(1)[0], Event { t_us: 1_100_000, ..steady(1)[0] }];
    let noisy = applied("noise:20", 7, &events);
    let more = noisy.len() - 2;
    assert!(more.abs_diff(2000) < 230, "{more}");
    assert!(noisy.iter().all(is_inside) && is_sorted(&noisy));
    assert_eq!((noisy[0], noisy[more + 1].t_us), (events[0], 1_100_000));
    let addresses: BTreeSet<_> = noisy.iter().filter_map(|event| SENSOR.address(event)).collect();
    assert_eq!(addresses.len(), SENSOR.addresses());
    let early = noisy.iter().filter(|event| event.t_us < 1_050_000).count();
    assert!(early.abs_diff(more / 2) < 120, "{early} of {more}");
}

#[test]
fn a_tail_is_windows_without_events() {
    let mut events = steady(100);
    let tail_us = parse("tail:5").apply(key(0), SENSOR, &mut events);
    assert_eq!((tail_us, &events), (5000, &steady(100)));
    let config = WindowConfig {
        sensor: SENSOR,
        window_us: 1000,
        gap_us: 1_000_000,
        origin: Default::default(),
        partial: Partial::Drop,
    };
    let (mut cutter, mut with, mut without) =
        (Cutter::new(config), Frames::default(), Frames::default());
    cutter.cut(&events, tail_us, &mut with);
    cutter.cut(&events, 0, &mut without);
    // the last event, at 990 µs, opens a tail that ends at 5990 µs
    assert_eq!((with.len(), without.len()), (5, 1));
    assert_eq!((with.entries(), with.windows()[4].events), (without.entries(), 0));
}

#[test]
fn draws_depend_on_every_part_of_the_key() {
    let events = steady(200);
    let with = |of: Use| {
        let mut events = events.clone();
        parse("jitter:50").apply(of, SENSOR, &mut events);
        events
    };
    let of = key(1);
    let others = [Use { seed: 2, ..of }, Use { epoch: 4, ..of }, Use { index: 6, ..of }];
    for other in others {
        assert_ne!(with(of), with(other), "{other:?}");
    }
    // what one augmentation draws moves no other's stream
    assert_eq!(
        applied("polflip:0,jitter:50", 1, &events),
        applied("noise:0,jitter:50", 1, &events)
    );
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (0..20_000u64, 0..13u16, 0..9u16, any::<bool>());
    let event = event.prop_map(|(t_us, x, y, on)| {
        let (x, y) = if x == 12 { (Event::OUTSIDE, Event::OUTSIDE) } else { (x, y) };
        Event { t_us, x, y, polarity: Polarity::from_on(on) }
    });
    proptest::collection::vec(event, 0..60).prop_map(|mut events| {
        events.sort_by_key(|event| event.t_us);
        events
    })
}

fn lists() -> impl Strategy<Value = String> {
    let names = [
        "shift:3",
        "hflip",
        "vflip",
        "polflip",
        "jitter:3000",
        "timescale:0.9",
        "drop:0.5",
        "noise:2",
        "tail:3",
    ];
    proptest::sample::subsequence(names.to_vec(), 0..names.len())
        .prop_shuffle()
        .prop_map(|names| names.join(","))
}

proptest! {
    #[test]
    fn sorted_bounded_and_fixed_by_the_key(events in events(), list in lists(), seed: u64) {
        let once = applied(&list, seed, &events);
        prop_assert!(is_sorted(&once), "{}", list);
        prop_assert!(once.iter().all(|event| event.t_us <= Event::MAX_T_US));
        prop_assert_eq!(events.is_empty(), once.is_empty());
        prop_assert_eq!(once, applied(&list, seed, &events));
    }

    #[test]
    fn shift_moves_all_that_is_inside_alike(events in events(), seed: u64) {
        let shifted = applied("shift:3", seed, &events);
        prop_assert_eq!(shifted.len(), events.len());
        let mut by = BTreeSet::new();
        for (old, new) in events.iter().zip(&shifted) {
            prop_assert_eq!((new.t_us, new.polarity), (old.t_us, old.polarity));
            if !is_inside(old) {
                prop_assert_eq!(new, old);
            } else if is_inside(new) {
                by.insert((i32::from(new.x) - i32::from(old.x), i32::from(new.y) - i32::from(old.y)));
            }
        }
        prop_assert!(by.len() <= 1, "{:?}", by);
        prop_assert!(by.iter().all(|(dx, dy)| dx.abs() <= 3 && dy.abs() <= 3));
    }

    #[test]
    fn a_flip_undoes_itself(events in events(), seed: u64) {
        for flip in ["hflip:1", "vflip:1", "polflip:1"] {
            let once = applied(flip, seed, &events);
            let inside = |events: &[Event]| events.iter().map(is_inside).collect::<Vec<_>>();
            prop_assert_eq!(inside(&once), inside(&events));
            prop_assert_eq!(&applied(flip, seed, &once), &events);
        }
        let flipped = applied("hflip:1", seed, &events);
        for (old, new) in events.iter().zip(&flipped).filter(|(old, _)| is_inside(old)) {
            prop_assert_eq!((new.x, new.y), (SENSOR.width - 1 - old.x, old.y));
        }
    }

    #[test]
    fn nothing_changes_nothing(events in events(), seed: u64) {
        let idle = "shift:0,hflip:0,vflip:0,polflip:0,jitter:0,timescale:0,drop:0,noise:0,tail:0";
        prop_assert_eq!(applied(idle, seed, &events), events);
    }
}
