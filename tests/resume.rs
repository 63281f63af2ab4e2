//! Stages that are saved between any two events, and restored in place of others, go on bit for
//! bit; what no stage could have saved is refused.

use dvs_stream::codec::by_name;
use dvs_stream::decide::{Readout, Silence};
use dvs_stream::frame::{Frames, SlotFrames};
use dvs_stream::ingest::{Ingest, Reading};
use dvs_stream::model::Model;
use dvs_stream::prediction::{Record, Records};
use dvs_stream::serve::{Settings, Snapshot};
use dvs_stream::session::{Rules, Session, windows_of};
use dvs_stream::window::{Origin, Partial, WindowConfig, Windower, gap_windows};
use proptest::prelude::*;

/// A stream's events as `faery-t32`, 8 bytes each.
type Bytes = Vec<[u8; 8]>;

/// How streams are read and answered.
#[derive(Clone, Debug)]
struct Setup {
    window: WindowConfig,
    rules: Rules,
}

/// Records with the bits of their logits.
type Told = Vec<(Record, Vec<u32>)>;

/// One stream in a session of its slots.
struct Stream<'a> {
    setup: &'a Setup,
    session: Session,
    slot: usize,
    ingest: Ingest,
    records: Records,
}

impl<'a> Stream<'a> {
    fn new(model: &Model, setup: &'a Setup, slot: usize) -> Self {
        let session = Session::new(model.network.clone(), setup.rules, slot + 1).unwrap();
        let format = by_name("faery-t32").ok();
        let ingest = Ingest::new(Reading { format, ..Reading::default() }, setup.window, None);
        Stream { setup, session, slot, ingest, records: Records::default() }
    }

    fn feed(&mut self, bytes: &[[u8; 8]]) {
        let Stream { session, slot, ingest, records, .. } = self;
        let mut emit = |frames: &mut Frames| {
            let brought = [SlotFrames { slot: *slot, frames: std::mem::take(frames) }];
            session.step(&brought, records)
        };
        ingest.feed(bytes.as_flattened(), &mut emit).unwrap();
    }

    fn finish(&mut self) {
        let Stream { session, slot, ingest, records, .. } = self;
        let mut emit = |frames: &mut Frames| {
            let brought = [SlotFrames { slot: *slot, frames: std::mem::take(frames) }];
            session.step(&brought, records)
        };
        ingest.finish(true, &mut emit).unwrap();
        session.finish(*slot, ingest.totals(), None, records);
    }

    /// The state as its file holds it.
    fn save(&self) -> Snapshot {
        let Setup { window, rules } = self.setup.clone();
        let model = "digest".to_owned();
        let settings =
            Settings { model, window, rules, view: Default::default(), stream_id: Some(-1) };
        let slot = self.session.save(self.slot).unwrap();
        let saved = Snapshot::new("cam", settings, true, self.ingest.save(), slot);
        let bytes = saved.to_bytes().unwrap();
        let read = Snapshot::from_bytes(&bytes).unwrap().unwrap();
        assert_eq!(read, saved);
        read
    }

    fn restore(&mut self, saved: Snapshot) {
        let (ingest, resumed) = saved.resume();
        self.ingest.restore(&ingest).unwrap();
        self.session.restore(self.slot, &resumed.slot).unwrap();
        self.records.clear();
    }

    fn told(&self, n_classes: usize) -> Told {
        let told = self.records.iter(n_classes);
        let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect();
        told.map(|(_, record, logits)| (record.clone(), bits(logits))).collect()
    }
}

fn model() -> Model {
    Model::from_bytes(include_bytes!("../models/poker.safetensors")).unwrap()
}

/// Steps of time: small, none, a silence, a little or far back.
fn step_us() -> impl Strategy<Value = i64> {
    prop_oneof![20 => 0i64..60, 2 => 0i64..900, 1 => 900i64..20_000, 1 => -150i64..0, 1 => -9000i64..0]
}

/// Events around the time at which a clock of 32 bits runs over; some come far too late, often
/// enough to say that the clock was reset.
fn events() -> impl Strategy<Value = Bytes> {
    let event = (step_us(), 0u32..36, 0u32..36, any::<bool>());
    let jump = proptest::option::weighted(0.2, (any::<prop::sample::Index>(), 990usize..1200));
    let begin_us = prop_oneof![Just(0xFFFF_F000u32), Just(0x4000_0000)];
    (begin_us, prop::collection::vec(event, 1..600), jump).prop_map(|(begin_us, steps, jump)| {
        let mut now_us = begin_us;
        let bytes = |t: u32, x: u32, y: u32, on: bool| {
            (u64::from(t) | u64::from(x) << 32 | u64::from(y << 1 | u32::from(on)) << 48)
                .to_le_bytes()
        };
        let mut events: Bytes = Vec::new();
        for (step_us, x, y, on) in steps {
            now_us = now_us.wrapping_add(step_us as u32);
            events.push(bytes(now_us, x, y, on));
        }
        if let Some((at, n)) = jump {
            let at = at.index(events.len());
            events.splice(
                at..at,
                (0..n as u32).map(|k| bytes(0x4000_0000 - 400_000 + k, 1, 1, true)),
            );
        }
        events
    })
}

fn readouts() -> impl Strategy<Value = Readout> {
    prop_oneof![
        Just(Readout::Last),
        Just(Readout::Max),
        Just(Readout::Mean),
        Just(Readout::MaxOver(7000)),
        Just(Readout::Ema(5000)),
    ]
}

fn setups() -> impl Strategy<Value = Setup> {
    let gap_us = 1000u64..12_000;
    (readouts(), gap_us, 0u32..8, 0.0f32..0.9).prop_map(|(readout, gap_us, quiet_events, least)| {
        let card = model().card;
        let (origin, partial) = (Origin::First, Partial::Keep);
        let window_us = card.window_us;
        let window = WindowConfig { sensor: card.sensor, window_us, gap_us, origin, partial };
        let silence = Silence { quiet_events, gap_windows: gap_windows(gap_us, window_us) };
        let rules = Rules { readout, silence, min_confidence: least, window_us };
        Setup { window, rules }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_stream_goes_on_wherever_it_was_cut(
        setup in setups(),
        events in events(),
        others in events(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let (model, events) = (model(), events);
        let n_classes = model.network.outputs();
        let mut whole = Stream::new(&model, &setup, 0);
        whole.feed(&events);
        whole.finish();

        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(events.len() + 1)).collect();
        cuts.sort_unstable();
        let (mut told, mut begun) = (Told::new(), 0);
        let mut stream = Stream::new(&model, &setup, 0);
        for (k, cut) in cuts.into_iter().enumerate() {
            stream.feed(&events[begun..cut]);
            told.extend(stream.told(n_classes));
            let saved = stream.save();
            // What its end tells changes nothing of what was saved, nor does who had the slot.
            stream.finish();
            stream = Stream::new(&model, &setup, k % 3);
            stream.feed(&others);
            let format = by_name("faery-t32").ok();
            stream.ingest = Ingest::new(Reading { format, ..Reading::default() }, setup.window, None);
            stream.restore(saved);
            begun = cut;
        }
        stream.feed(&events[begun..]);
        stream.finish();
        told.extend(stream.told(n_classes));
        prop_assert_eq!(told, whole.told(n_classes));
    }
}

/// A state as JSON with a number in it changed, read back.
fn changed<T: serde::Serialize + serde::de::DeserializeOwned>(state: &T, at: &str, to: f64) -> T {
    let mut json = serde_json::to_value(state).unwrap();
    *json.pointer_mut(at).unwrap_or_else(|| panic!("{at}")) =
        if to.fract() == 0.0 { (to as u64).into() } else { to.into() };
    serde_json::from_value(json).unwrap()
}

#[test]
fn what_no_stage_could_have_saved_is_refused() {
    let model = model();
    let setup = Setup { window: windows_of(&model), rules: Rules::of(&model) };
    let mut stream = Stream::new(&model, &setup, 0);
    let event = |t: u32| (u64::from(t) | 5 << 32 | 6 << 48).to_le_bytes();
    stream.feed(&(0..200).map(|k| event(7 * k)).collect::<Bytes>());
    let saved = stream.save();

    let mut windower = Windower::new(setup.window);
    let good = &saved.ingest.windower;
    windower.restore(good).unwrap();
    for (at, to) in [
        ("/place/start_us", 5.0),
        ("/place/end_us", 1e19),
        ("/place/first_us", 1e12),
        ("/place/last_us", 1e19),
        ("/place/late_run", 1000.0),
        ("/place/events", 4e9),
        ("/place/losses/late", 1e19),
        ("/place/totals/events", 1.0),
        ("/place/totals/duration_us", 1e19),
    ] {
        let mut bad = changed(good, at, to);
        bad.addresses.clone_from(&good.addresses);
        bad.counts.clone_from(&good.counts);
        assert!(windower.restore(&bad).is_err(), "{at}");
    }
    // Losses that are each possible, and together more than a number holds.
    let mut bad = good.clone();
    for cause in ["late", "outside", "overflow", "malformed"] {
        for place in ["losses", "totals/losses"] {
            bad = changed(&bad, &format!("/place/{place}/{cause}"), 9e18);
        }
    }
    bad.addresses.clone_from(&good.addresses);
    bad.counts.clone_from(&good.counts);
    assert!(windower.restore(&bad).is_err());
    for (addresses, counts) in [
        (vec![2450], vec![1]),
        (vec![3, 3], vec![1, 1]),
        (vec![4, 3], vec![1, 1]),
        (vec![3], vec![0]),
        (vec![3], vec![]),
        (vec![3], vec![1000]),
    ] {
        let mut bad = good.clone();
        (bad.addresses, bad.counts) = (addresses, counts);
        assert!(windower.restore(&bad).is_err(), "{:?}", bad.addresses);
    }
    // It is as it was.
    assert_eq!(windower.save(), *good);

    let good = &saved.slot;
    stream.session.restore(0, good).unwrap();
    for (at, to) in [
        ("/activity/quiet_run", 1e19),
        ("/segment/windows", 1e19),
        ("/segment/settled/verdict/class", 4.0),
        ("/verdict/class", 4.0),
        ("/windows", 1e19),
        ("/losses/outside", 1e19),
        ("/readout/n", 1e19),
    ] {
        let mut bad = changed(good, at, to);
        bad.row.clone_from(&good.row);
        bad.readout.logits.clone_from(&good.readout.logits);
        bad.readout.sums.clone_from(&good.readout.sums);
        assert!(stream.session.restore(0, &bad).is_err(), "{at}");
    }
    let mut bad = good.clone();
    bad.row.pop();
    assert!(stream.session.restore(0, &bad).is_err());
    let mut bad = good.clone();
    bad.readout.logits.pop();
    assert!(stream.session.restore(0, &bad).is_err());
    let mut bad = good.clone();
    bad.readout.history.push(0.0);
    assert!(stream.session.restore(0, &bad).is_err());
    assert_eq!(stream.session.save(0).unwrap(), *good);

    let mut bad = changed(&saved.ingest, "/clock/clock/round_us", 1e19);
    bad.windower.clone_from(&saved.ingest.windower);
    assert!(stream.ingest.restore(&bad).is_err());
}
