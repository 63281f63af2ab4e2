//! What every format of datagrams must do, whichever it is.

use dvs_stream::codec::datagram::MAX_DATAGRAM_BYTES;
use dvs_stream::codec::{
    AnyDecoder, DATAGRAMS, DatagramFormat, DatagramOptions, Decoder, Tally, datagrams_by_name,
    drop_malformed,
};
use dvs_stream::event::{Event, Polarity, SensorSize};
use dvs_stream::frame::Frames;
use dvs_stream::ingest::{Ingest, Reading};
use dvs_stream::view::ViewSpec;
use dvs_stream::window::WindowConfig;
use proptest::prelude::*;

const DAVIS346: SensorSize = SensorSize { width: 346, height: 260 };
const TIMED: DatagramOptions = DatagramOptions { sensor: Some(DAVIS346), timed: true };

fn datagrams(format: &DatagramFormat, events: &[Event]) -> Vec<Vec<u8>> {
    let mut encoder = (format.encoder)(&TIMED);
    let (mut rest, mut datagrams) = (events, Vec::new());
    while !rest.is_empty() {
        let mut datagram = Vec::new();
        let n = encoder.encode(rest, &mut datagram).expect("events that fit");
        assert!((1..=rest.len()).contains(&n), "{}: {n} events", format.name);
        assert!(datagram.len() <= MAX_DATAGRAM_BYTES, "{}: {}", format.name, datagram.len());
        rest = &rest[n..];
        datagrams.push(datagram);
    }
    datagrams
}

fn fresh(format: &DatagramFormat) -> AnyDecoder {
    AnyDecoder::datagrams(format, Some(DAVIS346))
}

fn decoded<'a>(
    format: &DatagramFormat,
    datagrams: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Event>, Tally) {
    let mut decoder = fresh(format);
    let mut events = Vec::new();
    for datagram in datagrams {
        decoder.arrived(5_000_000);
        decoder.feed(datagram, &mut events).expect("datagrams never fail");
    }
    decoder.finish(&mut events).expect("datagrams never fail");
    let n_malformed = events.iter().filter(|event| event.is_malformed()).count() as u64;
    assert_eq!(n_malformed, decoder.tally().malformed, "{}", format.name);
    drop_malformed(&mut events, 0);
    (events, decoder.tally())
}

fn decoded_all(format: &DatagramFormat, datagrams: &[Vec<u8>]) -> (Vec<Event>, Tally) {
    decoded(format, datagrams.iter().map(Vec::as_slice))
}

/// `n` events within a DAVIS, `step_us` apart.
fn events(n: u64, step_us: u64) -> Vec<Event> {
    let event = |k: u64| Event {
        t_us: 1000 + step_us * k,
        x: (k * 7 % 346) as u16,
        y: (k * k % 260) as u16,
        polarity: Polarity::from_on(k.is_multiple_of(3)),
    };
    (0..n).map(event).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sent_arrives_equal(
        start_us in 0_u64..1 << 32,
        steps in prop::collection::vec((0_i64..3000, 0_u8..20, 0_u16..346, 0_u16..260, any::<bool>()), 0..700),
    ) {
        let mut t_us = start_us;
        let events: Vec<Event> = steps
            .iter()
            .enumerate()
            .map(|(k, &(step, leap, x, y, on))| {
                // Now and then a pause of up to 13 minutes, or a step back. A first event after
                // 71.6 minutes would be taken for one of the first round.
                t_us = match leap {
                    _ if k == 0 => t_us,
                    0 => t_us + ((step as u64) << 18),
                    1 => t_us.saturating_sub(step as u64).max(start_us),
                    _ => t_us + step as u64,
                };
                Event { t_us, x, y, polarity: Polarity::from_on(on) }
            })
            .collect();
        for format in DATAGRAMS {
            let (found, tally) = decoded_all(format, &datagrams(format, &events));
            prop_assert!(found == events, "{}", format.name);
            prop_assert_eq!(tally, Tally::default(), "{}", format.name);
        }
    }

    #[test]
    fn any_datagrams_are_survived(
        noise in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..40),
    ) {
        let good = events(30, 10);
        for format in DATAGRAMS {
            let (found, tally) = decoded_all(format, &noise);
            let most: usize = noise.iter().map(|datagram| datagram.len() / 4).sum();
            prop_assert!(found.len() <= most, "{}", format.name);
            prop_assert!(tally.malformed <= (most + noise.len()) as u64, "{}", format.name);
            // What comes after them is read as it stands, but for the times of a 32-bit clock.
            let mut after = noise.clone();
            after.extend(datagrams(format, &good));
            if format.name != "jaer" {
                let (found, _) = decoded_all(format, &after);
                let tail = &found[found.len() - good.len()..];
                let low = |event: &Event| (event.t_us as u32, event.x, event.y, event.polarity);
                prop_assert!(tail.iter().map(low).eq(good.iter().map(low)), "{}", format.name);
            }
        }
    }
}

#[test]
fn a_datagram_cut_anywhere_gives_its_whole_events_and_counts_the_rest() {
    let events = events(40, 10);
    for format in DATAGRAMS {
        let [datagram] = &datagrams(format, &events)[..] else { panic!("{}", format.name) };
        let (n_head, n_event) =
            if format.name == "jaer" { (4, 8) } else { (0, datagram.len() / 40) };
        for n in 0..datagram.len() {
            let (found, tally) = decoded(format, [&datagram[..n], datagram]);
            let n_whole = n.saturating_sub(n_head) / n_event;
            let expected = [&events[..n_whole], &events].concat();
            // A number comes once: the whole datagram is the repeated one.
            let is_repeated = format.name == "jaer" && n >= 4;
            let expected = if is_repeated { &events[..n_whole] } else { &expected };
            assert_eq!(found, expected, "{} cut at {n}", format.name);
            let is_cut = if n < n_head { true } else { (n - n_head) % n_event > 0 };
            assert_eq!(tally.malformed, u64::from(is_cut), "{} cut at {n}", format.name);
            assert_eq!(
                tally.repeated_datagrams,
                u64::from(is_repeated),
                "{} cut at {n}",
                format.name
            );
        }
    }
}

#[test]
fn a_flipped_byte_loses_nothing_in_silence() {
    let events = events(40, 10);
    for format in DATAGRAMS {
        let [datagram] = &datagrams(format, &events)[..] else { panic!("{}", format.name) };
        for at in 0..datagram.len() {
            for flip in [0xFF, 0x01, 0x80] {
                let mut damaged = datagram.clone();
                damaged[at] ^= flip;
                let (found, tally) = decoded(format, [damaged.as_slice()]);
                let lost = found.len() < events.len();
                let told = tally != Tally::default();
                assert!(!lost || told, "{} byte {at} ^ {flip:#x}", format.name);
                // A damaged time may tell a receiver of SPIF that the rest is stale.
                let few = if matches!(format.name, "spif" | "jaer") { 0 } else { 39 };
                assert!(found.len() >= few, "{} byte {at} ^ {flip:#x}", format.name);
            }
        }
    }
}

#[test]
fn numbered_datagrams_tell_what_was_lost_repeated_or_late() {
    let format = datagrams_by_name("jaer").expect("a format");
    let sent = datagrams(format, &events(3000, 1));
    assert!(sent.len() > 10);
    let order = [0, 1, 3, 2, 2, 5, 6, 9];
    let (found, tally) = decoded(format, order.iter().map(|&k: &usize| sent[k].as_slice()));
    assert_eq!(
        (tally.lost_datagrams, tally.repeated_datagrams),
        (3, 1),
        "4, 7 and 8 are lost, 2 came twice"
    );
    assert_eq!(found.len(), 7 * 162);
}

#[test]
fn a_numbered_sender_that_begins_anew_is_told_soon_and_what_it_costs_is_counted() {
    let format = datagrams_by_name("jaer").expect("a format");
    let sent = datagrams(format, &events(162 * 600, 1));
    assert_eq!(sent.len(), 600);
    // As many numbers again, with a clock that goes on; two of them never come.
    let anew: Vec<usize> = (0..600).filter(|k| ![300, 301].contains(k)).collect();
    let order = (0..500).chain(anew.iter().copied());
    let (found, tally) = decoded(format, order.map(|k| sent[k].as_slice()));
    assert_eq!((tally.lost_datagrams, tally.repeated_datagrams), (2, 7));
    assert_eq!(found.len(), 162 * (500 + anew.len() - 7));
}

#[test]
fn times_are_those_of_the_sender_or_of_the_arrival() {
    let spif = datagrams_by_name("spif").expect("a format");
    let mut untimed = Vec::new();
    let sent = events(128, 10);
    let mut encoder = (spif.encoder)(&DatagramOptions { timed: false, ..TIMED });
    assert_eq!(encoder.encode(&sent, &mut untimed).ok(), Some(128));
    assert_eq!(untimed.len(), 512);
    let (found, tally) = decoded(spif, [untimed.as_slice()]);
    assert_eq!(tally, Tally::default());
    let stamped: Vec<Event> = sent.iter().map(|e| Event { t_us: 5_000_000, ..*e }).collect();
    assert_eq!(found, stamped);
}

#[test]
fn one_damaged_time_moves_no_other() {
    let sent = events(300, 10);
    for format in DATAGRAMS {
        let mut with_leap = sent.clone();
        with_leap[100].t_us = 1_000_000_000_000_000;
        let (found, _) = decoded_all(format, &datagrams(format, &with_leap));
        let others = |events: &[Event]| [&events[..100], &events[101..]].concat();
        assert_eq!(found.len(), 300, "{}", format.name);
        assert_eq!(others(&found), others(&sent), "{}", format.name);
    }
}

/// What goes into windows is what the datagrams hold, and what they could not is counted as lost.
#[test]
fn a_stream_of_datagrams_is_cut_into_windows() {
    let sent = events(2000, 10);
    let windows = WindowConfig {
        sensor: DAVIS346,
        window_us: 1000,
        gap_us: 2000,
        origin: Default::default(),
        partial: Default::default(),
    };
    for format in DATAGRAMS {
        let view = ViewSpec { sensor: Some(DAVIS346), ..ViewSpec::default() };
        let reading = Reading { datagrams: Some(format), view, ..Reading::default() };
        let mut ingest = Ingest::new(reading, windows, None);
        let mut n_windows = 0;
        let mut count = |frames: &mut Frames| {
            n_windows += frames.len();
            frames.clear();
            Ok(())
        };
        let mut datagrams = datagrams(format, &sent);
        let cut = datagrams.pop().map(|mut last| {
            last.pop();
            last
        });
        for datagram in datagrams.iter().chain(&cut) {
            ingest.arrived(42);
            ingest.feed(datagram, &mut count).expect("datagrams never fail");
        }
        ingest.finish(true, &mut count).expect("datagrams never fail");
        let totals = ingest.totals();
        assert_eq!((n_windows, totals.events), (20, 2000), "{}", format.name);
        assert_eq!((totals.losses.malformed, totals.losses.total()), (1, 1), "{}", format.name);
    }
}

#[test]
fn an_unknown_name_is_answered_with_the_known_ones() {
    let error = datagrams_by_name("evt3").map(|format| format.name).expect_err("none").to_string();
    assert!(DATAGRAMS.iter().all(|format| error.contains(format.name)), "{error}");
}
