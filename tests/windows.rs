//! Windows against Tonic's `ToFrame`, against a brute-force definition, and under any batching.

use std::collections::BTreeMap;

use dvs_stream::event::{Event, Polarity, SensorSize};
use dvs_stream::frame::{Dropped, Frames, Window};
use dvs_stream::prediction::{Losses, Totals};
use dvs_stream::window::{LATE_RUN, Origin, Partial, WindowConfig, Windower, gap_windows};
use proptest::prelude::*;

const SENSOR: SensorSize = SensorSize { width: 4, height: 3 };

fn config(window_us: u64, gap_us: u64) -> WindowConfig {
    let (origin, partial) = (Origin::First, Partial::Keep);
    WindowConfig { sensor: SENSOR, window_us, gap_us, origin, partial }
}

/// A window with its sparse counts.
type Cut = (Window, Vec<(u32, u16)>);

/// Cuts events that come in batches of `batch`, drawing batches of frames as they fill.
fn cut(config: WindowConfig, events: &[Event], batch: usize) -> (Vec<Cut>, Totals) {
    let mut windower = Windower::new(config);
    let (mut frames, mut windows) = (Frames::default(), Vec::new());
    for events in events.chunks(batch.max(1)) {
        let mut taken = 0;
        while taken < events.len() {
            taken += windower.push(&events[taken..], &mut frames);
            if windower.is_full(&frames) || batch % 2 == 1 {
                drain(&mut frames, &mut windows);
            }
        }
    }
    windower.finish(&mut frames);
    drain(&mut frames, &mut windows);
    (windows, windower.totals())
}

fn drain(frames: &mut Frames, windows: &mut Vec<Cut>) {
    for (k, window) in frames.windows().iter().enumerate() {
        let (addresses, counts) = frames.active(k);
        windows.push((*window, addresses.iter().copied().zip(counts.iter().copied()).collect()));
    }
    frames.clear();
}

#[derive(serde::Deserialize)]
struct Case {
    sensor: [u16; 2],
    events: Vec<[u64; 4]>,
    frames: Vec<Vec<(u32, u16)>>,
    frames_incl: Option<Vec<Vec<(u32, u16)>>>,
}

#[test]
fn frames_are_tonics() {
    let text = include_str!("../fixtures/golden/toframe.json");
    let cases: BTreeMap<String, Case> = serde_json::from_str(text).unwrap();
    assert_eq!(cases.len(), 14);
    for (name, case) in cases {
        let [width, height] = case.sensor;
        let sensor = SensorSize { width, height };
        let events: Vec<Event> = case
            .events
            .iter()
            .map(|[t_us, x, y, p]| {
                let polarity = Polarity::from_on(*p == 1);
                Event { t_us: *t_us, x: *x as u16, y: *y as u16, polarity }
            })
            .collect();
        let counts = |partial| {
            let config = WindowConfig { sensor, partial, ..config(1000, 1_000_000) };
            let (windows, _) = cut(config, &events, 7);
            windows.into_iter().map(|(_, counts)| counts).collect::<Vec<_>>()
        };
        assert_eq!(counts(Partial::Drop), case.frames, "{name}, partial window dropped");
        let Some(expected) = case.frames_incl else { continue };
        let mut kept = counts(Partial::Keep);
        // An event on the last edge opens one more window here; Tonic loses it.
        let span = events[events.len() - 1].t_us - events[0].t_us;
        if span > 0 && span.is_multiple_of(1000) {
            let on_edge = kept.pop().expect("a window on the edge");
            assert!(!on_edge.is_empty(), "{name}");
        }
        assert_eq!(kept, expected, "{name}, partial window kept");
    }
}

/// The definition, event by event, with nothing clever: which windows hold what.
struct BruteForce {
    config: WindowConfig,
    windows: Vec<Cut>,
    totals: Totals,
    losses: Losses,
}

impl BruteForce {
    fn run(config: WindowConfig, events: &[Event]) -> Self {
        let (windows, totals, losses) = Default::default();
        let mut oracle = BruteForce { config, windows, totals, losses };
        let mut rest = events;
        while !rest.is_empty() {
            let used = oracle.grid(rest);
            rest = &rest[used..];
        }
        oracle
    }

    /// One clock: from its first event to its last, or to the restart. Gives the events used.
    fn grid(&mut self, events: &[Event]) -> usize {
        let WindowConfig { window_us, gap_us, partial, .. } = self.config;
        let t0_us = events[0].t_us;
        let index = |t_us: u64| (t_us - t0_us) / window_us;
        let (mut open, mut late_run, mut used) = (0, 0, 0);
        let mut held: BTreeMap<u64, (Vec<Event>, Losses)> = BTreeMap::new();
        for event in events {
            used += 1;
            let start_us = t0_us + open * window_us;
            if event.t_us < start_us {
                held.entry(open).or_default().1.late += 1;
                self.totals.losses.late += 1;
                late_run = if start_us - event.t_us > gap_us { late_run + 1 } else { 0 };
                if late_run == LATE_RUN {
                    break;
                }
                continue;
            }
            late_run = 0;
            open = index(event.t_us);
            let (events, losses) = held.entry(open).or_default();
            if SENSOR.address(event).is_some() {
                events.push(*event);
            } else {
                losses.outside += 1;
                self.totals.losses.outside += 1;
            }
        }
        let restarted = late_run == LATE_RUN;
        self.totals.events += used as u64;
        self.totals.restarts += u64::from(restarted);
        let seen = &events[..used];
        let last_us = seen.iter().map(|event| event.t_us).max().unwrap_or(t0_us);
        self.totals.duration_us += last_us - t0_us;
        let last = if partial == Partial::Drop && open > 0 { open } else { open + 1 };
        self.emit(t0_us, open, last, &held);
        used
    }

    /// All windows but those of a silence beyond the gap; what was lost there is told later.
    fn emit(
        &mut self,
        t0_us: u64,
        open: u64,
        last: u64,
        held: &BTreeMap<u64, (Vec<Event>, Losses)>,
    ) {
        let WindowConfig { window_us, gap_us, .. } = self.config;
        let mut restart = !self.windows.is_empty();
        let mut empty_run = 0;
        for k in 0..=open {
            let (events, lost) = held.get(&k).cloned().unwrap_or_default();
            self.losses += lost;
            empty_run = if events.is_empty() { empty_run + 1 } else { 0 };
            if empty_run > gap_windows(gap_us, window_us) || k >= last {
                continue;
            }
            let mut counts: BTreeMap<u32, u16> = BTreeMap::new();
            for event in &events {
                *counts.entry(SENSOR.address(event).unwrap()).or_default() += 1;
            }
            let window = Window {
                t_start_us: t0_us + k * window_us,
                t_end_us: t0_us + (k + 1) * window_us,
                events: events.len() as u32,
                restart: std::mem::take(&mut restart),
                dropped: None,
                losses: std::mem::take(&mut self.losses),
            };
            self.windows.push((window, counts.into_iter().collect()));
        }
    }
}

/// Steps of time as streams have them: small, none, a silence, a little or far back.
fn step_us() -> impl Strategy<Value = i64> {
    prop_oneof![8 => 0i64..40, 2 => 0i64..400, 1 => 400i64..9000, 1 => -150i64..0, 1 => -5000i64..0]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (step_us(), 0u16..5, 0u16..4, any::<bool>());
    (5000u64..6000, prop::collection::vec(event, 0..400)).prop_map(|(begin_us, steps)| {
        let mut now_us = begin_us as i64;
        let at = |(step_us, x, y, on): (i64, u16, u16, bool)| {
            now_us = (now_us + step_us).max(0);
            Event { t_us: now_us as u64, x, y, polarity: Polarity::from_on(on) }
        };
        steps.into_iter().map(at).collect()
    })
}

/// Restarts need a long run of late events: a jump back for good.
fn with_jump(mut events: Vec<Event>, jump: Option<(usize, usize)>) -> Vec<Event> {
    let Some((at, n)) = jump.filter(|_| !events.is_empty()) else { return events };
    let at = at % events.len();
    let late = Event { t_us: 3, x: 0, y: 0, polarity: Polarity::On };
    let burst = (0..n as u64).map(|k| Event { t_us: late.t_us + k, ..late });
    events.splice(at..at, burst);
    events
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn windows_are_the_definitions(
        events in events(),
        jump in proptest::option::weighted(0.3, (any::<usize>(), 990usize..1300)),
        window_us in 1u64..300,
        gap_us in 1u64..2000,
        drop in any::<bool>(),
        batch in 1usize..50,
    ) {
        let events = with_jump(events, jump);
        let partial = if drop { Partial::Drop } else { Partial::Keep };
        let config = WindowConfig { partial, ..config(window_us, gap_us) };
        let (windows, totals) = cut(config, &events, batch);
        let oracle = BruteForce::run(config, &events);
        prop_assert_eq!(totals, oracle.totals);
        prop_assert_eq!(windows, oracle.windows);
    }

    #[test]
    fn batching_changes_nothing(events in events(), window_us in 1u64..300, batch in 1usize..400) {
        let config = config(window_us, 1000);
        prop_assert_eq!(cut(config, &events, 1), cut(config, &events, batch));
    }
}

fn at(t_us: u64) -> Event {
    Event { t_us, x: 1, y: 1, polarity: Polarity::On }
}

#[test]
fn an_event_far_ahead_costs_its_late_run_and_a_restart() {
    let far_us = Event::MAX_T_US;
    let mut events: Vec<Event> = (0..3000).map(|k| at(10_000 + 10 * k)).collect();
    events.insert(500, at(far_us));
    let (windows, totals) = cut(config(1000, 2000), &events, 64);
    assert_eq!((totals.events, totals.restarts), (3001, 1));
    assert_eq!(totals.losses.late, u64::from(LATE_RUN));
    let held: u64 = windows.iter().map(|(window, _)| u64::from(window.events)).sum();
    assert_eq!(held, 3001 - u64::from(LATE_RUN));
    assert!(windows.len() < 40, "{} windows", windows.len());
    assert_eq!(windows.iter().filter(|(window, _)| window.restart).count(), 1);
}

#[test]
fn an_hour_of_silence_is_as_many_windows_as_the_gap() {
    let (windows, _) = cut(config(1000, 5000), &[at(0), at(3_600_000_000)], 2);
    assert_eq!(windows.len(), 1 + 5 + 1);
    assert_eq!(windows[6].0.t_start_us, 3_600_000_000);
}

#[test]
fn counts_saturate_and_say_so() {
    let events = vec![at(0); 70_000];
    let (windows, totals) = cut(config(1000, 5000), &events, 1000);
    assert_eq!(windows[0].1, [(SENSOR.address(&at(0)).unwrap(), u16::MAX)]);
    assert_eq!(totals.losses.overflow, 70_000 - u64::from(u16::MAX));
    assert_eq!(windows[0].0.events, u32::from(u16::MAX));
}

#[test]
fn the_grid_may_start_elsewhere() {
    for (origin_us, first_us, span_us) in [
        (0, 2500, (2000, 3000)),
        (2500, 2500, (2500, 3500)),
        (7100, 2500, (2100, 3100)),
        (3000, 2999, (2000, 3000)),
        // Time begins within the window.
        (100, 99, (0, 100)),
        (1500, 0, (0, 500)),
    ] {
        let config = WindowConfig { origin: Origin::At(origin_us), ..config(1000, 5000) };
        let (windows, _) = cut(config, &[at(first_us), at(first_us + 1000)], 1);
        let span = |k: usize| (windows[k].0.t_start_us, windows[k].0.t_end_us);
        assert_eq!(span(0), span_us, "origin {origin_us}, event {first_us}");
        assert_eq!(span(1), (span_us.1, span_us.1 + 1000), "origin {origin_us}, event {first_us}");
    }
}

#[test]
fn a_first_window_that_time_cuts_short_is_a_state_too() {
    let config = WindowConfig { origin: Origin::At(500), ..config(1000, 5000) };
    let (mut whole, mut windower) = (Windower::new(config), Windower::new(config));
    let (mut expected, mut frames) = (Frames::default(), Frames::default());
    whole.push(&[at(100), at(499), at(500)], &mut expected);
    windower.push(&[at(100)], &mut frames);
    let saved = windower.save();
    let mut windower = Windower::new(config);
    windower.restore(&saved).unwrap();
    windower.push(&[at(499), at(500)], &mut frames);
    assert_eq!(frames.windows(), expected.windows());
    assert_eq!(frames.windows()[0].events, 2);
}

#[test]
fn time_that_passes_closes_windows_and_what_comes_after_is_late() {
    let mut windower = Windower::new(config(1000, 5000));
    let mut frames = Frames::default();
    assert!(windower.advance_to(5000, &mut frames));
    assert!(frames.is_empty(), "a stream without events has no windows");
    windower.push(&[at(100)], &mut frames);
    assert!(windower.advance_to(1099, &mut frames));
    assert_eq!(frames.len(), 0);
    assert!(windower.advance_to(3100, &mut frames));
    assert_eq!(frames.len(), 3);
    windower.push(&[at(3000), at(3200)], &mut frames);
    windower.finish(&mut frames);
    assert_eq!(frames.len(), 4);
    assert_eq!(frames.windows()[3].losses.late, 1);
    assert_eq!(windower.totals().events, 3);
}

#[test]
fn silence_completes_a_gap_and_no_more() {
    let mut windower = Windower::new(config(1000, 2000));
    let mut frames = Frames::default();
    assert_eq!(windower.due_after_us(), None);
    assert!(windower.pass_silence(u64::MAX, &mut frames) && frames.is_empty());
    windower.push(&[at(100), at(300)], &mut frames);
    assert_eq!((windower.last_us(), windower.due_after_us()), (300, Some(800)));
    assert!(windower.pass_silence(1099, &mut frames) && frames.is_empty());
    assert!(windower.pass_silence(1100, &mut frames));
    assert_eq!((frames.len(), windower.due_after_us()), (1, Some(1800)));
    assert!(windower.pass_silence(u64::MAX, &mut frames));
    assert_eq!((frames.len(), windower.due_after_us()), (3, None));
    // What comes next is late only in what was completed, and the window it opens is its own.
    windower.push(&[at(3099), at(3100)], &mut frames);
    windower.finish(&mut frames);
    assert_eq!(frames.windows()[3].t_start_us, 3100);
    assert_eq!((frames.windows()[3].events, frames.windows()[3].losses.late), (1, 1));
    // A window that silence has opened is none.
    frames.clear();
    windower.push(&[at(5000)], &mut frames);
    windower.pass_silence(6000, &mut frames);
    windower.finish(&mut frames);
    assert_eq!(frames.len(), 1);
}

proptest! {
    /// Silence that is no longer than it was changes nothing.
    #[test]
    fn silence_that_is_true_changes_nothing(
        gaps in prop::collection::vec(prop_oneof![0u64..300, 0u64..20_000], 1..60),
        shares in prop::collection::vec(0u64..=100, 60),
    ) {
        let times = gaps.iter().scan(50, |t_us, gap| { *t_us += gap; Some(*t_us) });
        let events: Vec<Event> = times.map(at).collect();
        let config = config(100, 350);
        let (expected, totals) = cut(config, &events, 7);
        let (mut windower, mut frames, mut windows) =
            (Windower::new(config), Frames::default(), Vec::new());
        for (k, event) in events.iter().enumerate() {
            if let Some(last) = k.checked_sub(1).map(|before| events[before].t_us) {
                windower.pass_silence(last + (event.t_us - last) * shares[k] / 100, &mut frames);
            }
            prop_assert_eq!(windower.push(std::slice::from_ref(event), &mut frames), 1);
            drain(&mut frames, &mut windows);
        }
        windower.finish(&mut frames);
        drain(&mut frames, &mut windows);
        prop_assert_eq!(windows, expected);
        prop_assert_eq!(windower.totals(), totals);
    }
}

#[test]
fn windows_cut_singly_are_the_same_and_count_no_event_far_ahead() {
    let events: Vec<Event> = (0..3000).map(|k| at(100 * k)).collect();
    let (all, totals) = cut(config(1000, 5000), &events, 3000);
    let mut windower = Windower::new(config(1000, 5000));
    windower.cut_singly();
    let (mut frames, mut windows, mut taken) = (Frames::default(), Vec::new(), 0);
    while taken < events.len() {
        taken += windower.push(&events[taken..], &mut frames);
        assert!(frames.len() <= 1);
        drain(&mut frames, &mut windows);
        let (told, handed) = (windower.totals(), windows.len() as u64);
        assert_eq!((told.events, told.duration_us), (taken as u64, 100 * (taken as u64 - 1)));
        assert!(told.events <= 10 * (handed + 1));
    }
    windower.finish(&mut frames);
    drain(&mut frames, &mut windows);
    assert_eq!((windows, windower.totals()), (all, totals));
}

#[test]
fn spans_that_add_up_to_more_than_time_can_be_are_bounded_and_saved() {
    let config = config(1000, 5000);
    let (mut windower, mut frames) = (Windower::new(config), Frames::default());
    let mut push = |windower: &mut Windower, times: &[u64]| {
        let events: Vec<Event> = times.iter().copied().map(at).collect();
        let mut taken = 0;
        while taken < events.len() {
            taken += windower.push(&events[taken..], &mut frames);
            frames.clear();
        }
    };
    let leap_and_restart = [&[0, Event::MAX_T_US][..], &[0; LATE_RUN as usize]].concat();
    (0..3).for_each(|_| push(&mut windower, &leap_and_restart));
    push(&mut windower, &[0, 10]);
    let totals = windower.totals();
    assert_eq!((totals.duration_us, totals.restarts), (Event::MAX_T_US, 3));
    let mut next = Windower::new(config);
    next.restore(&windower.save()).expect("a state that was its own");
    push(&mut next, &[20]);
    assert_eq!(next.totals(), Totals { events: totals.events + 1, ..totals });
}

#[test]
fn what_dropped_windows_would_have_told_is_told_by_the_next() {
    let event = |t_us, x| Event { t_us, x, y: 0, polarity: Polarity::On };
    let mut windower = Windower::new(config(10, 20));
    let mut frames = Frames::default();
    windower.push(&[event(0, 0), event(5, 9), event(12, 1)], &mut frames);
    windower.finish(&mut frames);
    frames.clear();
    windower.push(&[event(100, 0), event(101, 9), event(102, 2), event(115, 0)], &mut frames);
    // Its grid is new and it has lost an event outside the sensor.
    assert!(frames.windows()[0].restart && frames.windows()[0].losses.outside == 1);
    windower.drop_windows(&frames, Dropped { silence: true, quiet_run: 3 });
    frames.clear();
    windower.push(&[event(125, 0), event(135, 0)], &mut frames);
    let [window, next] = frames.windows() else { panic!("{frames:?}") };
    assert!(window.restart && !next.restart);
    assert_eq!(window.dropped, Some(Dropped { silence: true, quiet_run: 3 }));
    assert_eq!(next.dropped, None);
    assert_eq!(window.losses, Losses { outside: 1, overflow: 2, ..Losses::default() });
    let totals = windower.totals();
    assert_eq!(totals.events, 9);
    assert_eq!(totals.losses, Losses { outside: 2, overflow: 2, ..Losses::default() });
}
