//! The view and silence against their definitions: of each event, and over whole lists of windows.

use dvs_stream::decide::{NAMING_WINDOWS, Readout, Silence, verdict};
use dvs_stream::event::{Event, Polarity, Sensor, SensorSize};
use dvs_stream::frame::{Frames, SlotFrames, Window};
use dvs_stream::model::Model;
use dvs_stream::prediction::{Prediction, Record, Records, Segment, Summary, Totals, Verdict};
use dvs_stream::session::{Rules, Session};
use dvs_stream::view::{Crop, Orient, PolarityBit, View, ViewSpec};
use proptest::prelude::*;

const WINDOW_US: u64 = 1000;

fn swapped(size: SensorSize) -> SensorSize {
    SensorSize { width: size.height, height: size.width }
}

/// The recording's size as stored: the first that is named; else what gives the model's, or the crop.
fn stored_size(spec: &ViewSpec, sensor: &Sensor, model: SensorSize) -> (SensorSize, bool) {
    if let Some(size) = spec.sensor.or(sensor.size).or(spec.unnamed_sensor) {
        return (size, true);
    }
    let Crop { x, y, width, height } =
        spec.crop.unwrap_or(Crop { x: 0, y: 0, width: model.width, height: model.height });
    let seen = SensorSize { width: x + width, height: y + height };
    (if spec.transpose { swapped(seen) } else { seen }, false)
}

fn is_refused(spec: &ViewSpec, sensor: &Sensor, model: SensorSize) -> bool {
    let (size, is_known) = stored_size(spec, sensor, model);
    let SensorSize { width, height } = if spec.transpose { swapped(size) } else { size };
    let upright = spec.orient == Orient::Upright;
    let mirrors_x = (upright && sensor.mirrored_x) != spec.flip_x;
    let mirrors_y = (upright && sensor.mirrored_y) != spec.flip_y;
    let Some(crop) = spec.crop else {
        return !spec.scale && (width, height) != (model.width, model.height);
    };
    !is_known && (mirrors_x || mirrors_y)
        || crop.x + crop.width > width
        || crop.y + crop.height > height
        || !spec.scale && (crop.width, crop.height) != (model.width, model.height)
}

/// Column, row and polarity in the model, step by step.
fn placed(
    spec: &ViewSpec,
    sensor: &Sensor,
    model: SensorSize,
    event: Event,
) -> (Option<(u16, u16)>, Polarity) {
    let (SensorSize { mut width, mut height }, _) = stored_size(spec, sensor, model);
    let (mut x, mut y) = (event.x, event.y);
    let asked_zero = spec.polarity.map(|bit| bit == PolarityBit::OnIs0);
    let inverted = asked_zero.is_some_and(|zero| zero != sensor.on_is_zero);
    let polarity = if inverted { event.polarity.inverted() } else { event.polarity };
    if x >= width || y >= height {
        return (None, polarity);
    }
    if spec.orient == Orient::Upright && sensor.mirrored_x {
        x = width - 1 - x;
    }
    if spec.orient == Orient::Upright && sensor.mirrored_y {
        y = height - 1 - y;
    }
    if spec.flip_x {
        x = width - 1 - x;
    }
    if spec.flip_y {
        y = height - 1 - y;
    }
    if spec.transpose {
        (x, y, width, height) = (y, x, height, width);
    }
    if let Some(crop) = spec.crop {
        if !(crop.x..crop.x + crop.width).contains(&x)
            || !(crop.y..crop.y + crop.height).contains(&y)
        {
            return (None, polarity);
        }
        (x, y, width, height) = (x - crop.x, y - crop.y, crop.width, crop.height);
    }
    if spec.scale {
        (x, y) = (x * model.width / width, y * model.height / height);
    }
    (Some((x, y)), polarity)
}

fn any_size() -> impl Strategy<Value = SensorSize> {
    (1u16..5, 1u16..5).prop_map(|(width, height)| SensorSize { width, height })
}

fn any_view() -> impl Strategy<Value = ViewSpec> {
    let sizes = (prop::option::weighted(0.2, any_size()), prop::option::of(any_size()));
    let bits = prop::sample::select(vec![None, Some(PolarityBit::OnIs0), Some(PolarityBit::OnIs1)]);
    let crop = (0u16..3, 0u16..3, any_size());
    let flags = any::<[bool; 5]>();
    (sizes, bits, prop::option::of(crop), flags).prop_map(
        |((sensor, unnamed_sensor), polarity, crop, flags)| {
            let [upright, flip_x, flip_y, transpose, scale] = flags;
            let orient = if upright { Orient::Upright } else { Orient::Stored };
            let crop =
                crop.map(|(x, y, SensorSize { width, height })| Crop { x, y, width, height });
            ViewSpec {
                sensor,
                unnamed_sensor,
                polarity,
                orient,
                flip_x,
                flip_y,
                transpose,
                crop,
                scale,
            }
        },
    )
}

fn any_sensor() -> impl Strategy<Value = Sensor> {
    (prop::option::of(any_size()), any::<[bool; 3]>()).prop_map(
        |(size, [mirrored_x, mirrored_y, on_is_zero])| Sensor {
            size,
            mirrored_x,
            mirrored_y,
            on_is_zero,
        },
    )
}

/// A clock of windows by their events, and after which of them a step ends.
type Clock = Vec<(u32, bool)>;

/// What a session tells of the clocks, from the lists of their windows' events.
fn told(clocks: &[Clock], rules: &Rules, logits: &[Vec<f32>]) -> Vec<Record> {
    let Silence { quiet_events, gap_windows } = rules.silence;
    let gap = gap_windows as usize;
    let (mut records, mut summary, mut begun) = (Vec::new(), Summary::default(), 0);
    for clock in clocks {
        let events: Vec<u32> = clock.iter().map(|(events, _)| *events).collect();
        let quiet = |k: usize| events[k] <= quiet_events;
        let sum =
            |from: usize, to: usize| events[from..=to].iter().map(|n| u64::from(*n)).sum::<u64>();
        let start_us = |k: usize| (begun + k as u64) * WINDOW_US;
        let (mut from, mut first) = (Some(0), true);
        while let Some(start) = from {
            let end = (start + 1..events.len())
                .find(|k| k + 1 >= start + gap && (k + 1 - gap..=*k).all(quiet));
            let mut segment =
                Segment { from_us: start_us(start), to_us: start_us(start), ..Segment::default() };
            let stepped = &events[..end.unwrap_or(events.len())];
            for (k, &in_window) in stepped.iter().enumerate().skip(start) {
                let windows = (k + 1 - start) as u64;
                let span =
                    if first { windows } else { windows.max(gap_windows).max(NAMING_WINDOWS) };
                let (class, confidence) = verdict(&logits[summary.windows as usize]);
                let named = sum(start, k) > span * u64::from(quiet_events)
                    && confidence >= rules.min_confidence;
                let verdict = Verdict { class: named.then_some(class), confidence };
                let (window, t_us) = (summary.windows, start_us(k + 1));
                let losses = Default::default();
                records.push(Record::Prediction(Prediction {
                    window,
                    t_us,
                    events: in_window,
                    verdict,
                    losses,
                }));
                summary.windows += 1;
                if !quiet(k) {
                    segment =
                        Segment { to_us: t_us, verdict, windows, events: sum(start, k), ..segment };
                }
            }
            records.push(Record::Segment(segment));
            summary.segments += 1;
            summary.verdict = segment.verdict;
            first = false;
            from = end.and_then(|end| (end + 1..events.len()).find(|k| !quiet(*k)));
        }
        begun += events.len() as u64;
    }
    records.push(Record::Summary(summary));
    records
}

/// What it does tell, and the logits of its predictions.
fn played(model: &Model, clocks: &[Clock], rules: Rules) -> (Vec<Record>, Vec<Vec<f32>>) {
    let mut session = Session::new(model.network.clone(), rules, 1).unwrap();
    let (mut records, mut frames, mut n) = (Records::default(), Frames::default(), 0);
    let mut step = |frames: &mut Frames, session: &mut Session| {
        let brought = [SlotFrames { slot: 0, frames: std::mem::take(frames) }];
        session.step(&brought, &mut records).unwrap();
    };
    for (clock, windows) in clocks.iter().enumerate() {
        for (k, (events, ends)) in windows.iter().enumerate() {
            (0..20).for_each(|spot| frames.add((spot * 120 + 37 * n as u32) % 100 + spot * 120, 9));
            let (t_start_us, restart) = (n * WINDOW_US, clock > 0 && k == 0);
            let t_end_us = t_start_us + WINDOW_US;
            frames.close(Window {
                t_start_us,
                t_end_us,
                events: *events,
                restart,
                ..Window::default()
            });
            n += 1;
            if *ends {
                step(&mut frames, &mut session);
            }
        }
    }
    step(&mut frames, &mut session);
    session.finish(0, Totals::default(), None, &mut records);
    let all = records
        .iter(session.n_classes())
        .map(|(_, record, logits)| (record.clone(), logits.to_vec()));
    let (records, mut logits): (Vec<_>, Vec<_>) = all.unzip();
    logits.retain(|logits| !logits.is_empty());
    (records, logits)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_view_places_each_event_as_its_rules_say(
        spec in any_view(), sensor in any_sensor(), model in any_size(),
    ) {
        let view = View::new(&spec, &sensor, model);
        prop_assert_eq!(view.is_err(), is_refused(&spec, &sensor, model));
        let Ok(view) = view else { return Ok(()) };
        let sides = || (0..8).chain([Event::OUTSIDE]);
        for (x, y) in sides().flat_map(|x| sides().map(move |y| (x, y))) {
            for polarity in [Polarity::Off, Polarity::On] {
                let event = Event { t_us: 7, x, y, polarity };
                let mut seen = [event];
                view.apply(&mut seen);
                let inside = model.address(&seen[0]).map(|_| (seen[0].x, seen[0].y));
                let expected = placed(&spec, &sensor, model, event);
                prop_assert_eq!((inside, seen[0].polarity), expected, "at {},{}", x, y);
                prop_assert_eq!(seen[0].t_us, 7);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn silence_ends_segments_as_the_list_of_windows_says(
        clocks in prop::collection::vec(
            prop::collection::vec((prop_oneof![0u32..4, 3u32..9, Just(40u32)], any::<bool>()), 1..50), 1..4,
        ),
        (quiet_events, gap_windows) in (0u32..5, 1u64..8),
        min_confidence in prop::sample::select(vec![0.0f32, 0.4]),
    ) {
        let model = Model::from_bytes(&std::fs::read("models/poker.safetensors").unwrap()).unwrap();
        let silence = Silence { quiet_events, gap_windows };
        let rules = Rules { readout: Readout::Last, silence, min_confidence, window_us: WINDOW_US };
        let (records, logits) = played(&model, &clocks, rules);
        prop_assert_eq!(&records, &told(&clocks, &rules, &logits));
    }
}
