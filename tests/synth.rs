//! Synthetic pips: the same on every machine, like the real ones in their statistics, and decks
//! whose truth holds.

mod skip;

use dvs_stream::event::{Event, Polarity};
use dvs_stream::synth::{Deck, Pip, PipOptions, SENSOR, deal, deck, pip};
use sha2::{Digest, Sha256};
use skip::skip;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

const N_SEEDS: u64 = 40;

#[test]
fn a_seed_fixes_every_event() {
    let one_motion = PipOptions { one_motion: true, ..PipOptions::default() };
    let cases = [
        (pip(Pip::Club, 0, &PipOptions::default()), "8647655e34665a8c"),
        (pip(Pip::Diamond, 1, &PipOptions::default()), "aecdecabff0353ae"),
        (pip(Pip::Heart, 2, &PipOptions::default()), "43bd72698e0a32a7"),
        (pip(Pip::Spade, u64::MAX, &PipOptions::default()), "21dcec705719a4bd"),
        (pip(Pip::Spade, 4, &one_motion), "f62a72494c77cde7"),
        (deck(&deal(5, 9), 9, 5_000..=50_000, &PipOptions::default()).events, "8085a8c3438de1b2"),
    ];
    let found: Vec<String> = cases.iter().map(|(events, _)| digest(events)).collect();
    let expected: Vec<&str> = cases.iter().map(|(_, digest)| *digest).collect();
    assert_eq!(found, expected);
}

#[test]
fn every_recording_is_well_formed() {
    for shown in Pip::ALL {
        for seed in 0..N_SEEDS {
            let events = pip(shown, seed, &PipOptions::default());
            assert_eq!(events[0].t_us, 0);
            assert!(events.is_sorted_by_key(|event| event.t_us), "{shown:?} {seed}");
            let in_crop = |v: u16| (1..=31).contains(&v);
            assert!(events.iter().all(|event| in_crop(event.x) && in_crop(event.y)));
            assert!(events.iter().all(|event| SENSOR.address(event).is_some()));
            let found = (events.len(), events[events.len() - 1].t_us);
            assert!(
                (500..8000).contains(&found.0) && found.1 < 40_000,
                "{shown:?} {seed}: {found:?}"
            );
        }
    }
}

/// What the generator is described to give, and what real recordings have, each with how far a
/// sample of 160 recordings may lie from it.
#[test]
fn statistics_are_as_described_and_near_the_real_ones() {
    let all: Vec<_> = Pip::ALL.into_iter().flat_map(recordings).collect();
    let found = Statistics::of(&all);
    type Near = (f64, f64);
    let cases: [(&str, f64, Near, Near); 15] = [
        ("events", found.events, (3130.0, 160.0), (3050.0, 160.0)),
        ("duration, ms", found.duration_ms, (17.7, 1.0), (17.4, 1.0)),
        ("events per ms", found.events_per_ms, (183.0, 9.0), (180.0, 9.0)),
        ("ON share", found.on_share, (0.61, 0.015), (0.62, 0.03)),
        ("pixels hit", found.pixels, (540.0, 20.0), (530.0, 20.0)),
        ("hit pixels of a frame", found.hit_pixels, (113.0, 5.0), (112.0, 5.0)),
        ("mean count of a hit pixel", found.mean_count, (1.58, 0.03), (1.60, 0.03)),
        ("equal times", found.equal_times, (0.12, 0.01), (0.15, 0.04)),
        ("times 1 us apart", found.next_us, (0.19, 0.01), (0.18, 0.02)),
        ("same polarity", found.same_polarity, (0.90, 0.02), (0.90, 0.02)),
        ("isolated, %", found.isolated_percent, (0.49, 0.05), (0.24, 0.3)),
        ("both polarities in a frame, %", found.both_percent, (0.6, 0.4), (0.6, 0.4)),
        ("interval, 1 %, us", found.intervals_us[0], (31.0, 3.0), (40.0, 12.0)),
        ("interval, 10 %, us", found.intervals_us[1], (138.0, 10.0), (127.0, 13.0)),
        ("interval, median, us", found.intervals_us[2], (495.0, 30.0), (451.0, 45.0)),
    ];
    let far = |found: f64, (expected, by): Near| (found - expected).abs() > by;
    let far: Vec<_> = cases.iter().filter(|c| far(c.1, c.2) || far(c.1, c.3)).collect();
    assert!(far.is_empty(), "(name, found, described, real): {far:#?}");
}

#[test]
fn each_pip_is_as_its_real_ones() {
    let cases = [
        (Pip::Club, 2788.0, 15.5, 0.67, 555.0),
        (Pip::Diamond, 2843.0, 19.0, 0.60, 450.0),
        (Pip::Heart, 2726.0, 11.7, 0.58, 554.0),
        (Pip::Spade, 3844.0, 23.4, 0.63, 561.0),
    ];
    for (shown, events, duration_ms, on_share, pixels) in cases {
        let found = Statistics::of(&recordings(shown));
        assert!((found.events / events - 1.0).abs() < 0.1, "{shown:?}: events {}", found.events);
        let duration = found.duration_ms / duration_ms;
        assert!((duration - 1.0).abs() < 0.1, "{shown:?}: {} ms", found.duration_ms);
        assert!((found.on_share - on_share).abs() < 0.1, "{shown:?}: ON {}", found.on_share);
        assert!((found.pixels / pixels - 1.0).abs() < 0.08, "{shown:?}: pixels {}", found.pixels);
    }
}

#[test]
fn one_motion_tells_nothing_of_the_pip() {
    let options = PipOptions { one_motion: true, ..PipOptions::default() };
    let duration_ms = |shown: Pip| {
        let of = |seed| pip(shown, seed, &options).last().map_or(0, |event| event.t_us);
        (0..N_SEEDS).map(of).sum::<u64>() as f64 / N_SEEDS as f64 / 1000.0
    };
    for shown in Pip::ALL {
        let found = duration_ms(shown);
        assert!((found - 17.6).abs() < 5.0 * 4.8 / (N_SEEDS as f64).sqrt(), "{shown:?}: {found}");
    }
}

#[test]
fn noise_has_its_rate() {
    let count = |noise_per_ms, gap_noise_per_ms| {
        let options = PipOptions { noise_per_ms, gap_noise_per_ms, ..PipOptions::default() };
        deck(&Pip::ALL, 3, 100_000..=100_000, &options)
    };
    let (clean, noisy, gaps) = (count(0.0, 0.0), count(20.0, 0.0), count(0.0, 2.0));
    let shown_ms: f64 =
        clean.truth.iter().map(|entry| (entry.to_us - entry.from_us) as f64 / 1e3).sum();
    let more = noisy.events.len() as f64 - clean.events.len() as f64;
    assert!((more / (20.0 * shown_ms) - 1.0).abs() < 0.15, "{more} in {shown_ms} ms");
    let strays = gaps.events.len() - clean.events.len();
    assert!((500..700).contains(&strays), "{strays} strays in 300 ms");
    assert_eq!(gaps.truth, clean.truth);
}

#[test]
fn decks_hold_their_truth() {
    for (seed, gap_us, gap_noise_per_ms) in
        [(1, 5_000..=50_000, 0.0), (2, 5_000..=50_000, 1.5), (3, 0..=0, 0.0), (4, 7..=8, 9.0)]
    {
        let pips = deal(7, seed);
        let options = PipOptions { gap_noise_per_ms, ..PipOptions::default() };
        let Deck { events, truth } = deck(&pips, seed, gap_us.clone(), &options);
        assert!(truth.iter().map(|entry| entry.pip).eq(pips));
        assert!(events.is_sorted_by_key(|event| event.t_us));
        assert_eq!(events[0].t_us, 0);
        for entry in &truth {
            let at = |t_us| events.iter().any(|event| event.t_us == t_us);
            assert!(
                at(entry.from_us) && at(entry.to_us),
                "{entry:?} begins and ends with an event"
            );
        }
        for pair in truth.windows(2) {
            assert!(gap_us.contains(&(pair[1].from_us - pair[0].to_us)), "{pair:?}");
        }
        let held = |event: &Event| {
            truth.iter().any(|entry| (entry.from_us..=entry.to_us).contains(&event.t_us))
        };
        let strays = events.iter().filter(|event| !held(event)).count();
        match (gap_noise_per_ms > 0.0, *gap_us.end() > 100) {
            (false, _) => assert_eq!(strays, 0),
            (true, true) => assert!(strays > 0),
            (true, false) => assert!(strays < 10, "{strays} in gaps of 0.1 ms"),
        }
    }
    assert_eq!(deck(&[], 1, 1..=2, &PipOptions::default()).events, []);
}

#[test]
fn deals_are_even_and_shuffled() {
    for n in [0, 1, 4, 10, 400] {
        let dealt = deal(n, 5);
        assert_eq!(dealt.len(), n);
        for shown in Pip::ALL {
            let count = dealt.iter().filter(|pip| **pip == shown).count();
            assert!(count == n / 4 || count == n.div_ceil(4), "{count} {shown:?} of {n}");
        }
    }
    let repeats = deal(400, 5).windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!((70..130).contains(&repeats), "{repeats} neighbours are equal");
    assert_ne!(deal(400, 5), deal(400, 6));
    assert_eq!(deal(400, 5), deal(400, 5));
}

/// Synthetic and real recordings side by side (`--nocapture`), and whether the one tells the
/// other apart: the nearest neighbour of a real recording's picture among synthetic ones.
#[test]
fn real_recordings_are_told_apart_by_synthetic_ones() {
    let Some(folder) = shared("data/poker-dvs") else {
        skip("no ../shared/data/poker-dvs");
        return;
    };
    let mut right = 0;
    let mut n_real = 0;
    let made: Vec<Vec<_>> = Pip::ALL.into_iter().map(recordings).collect();
    let pictures: Vec<(Pip, Vec<f32>)> = Pip::ALL
        .into_iter()
        .flat_map(|shown| made[shown as usize].iter().map(move |events| (shown, picture(events))))
        .collect();
    eprintln!("     synthetic, then real\n{}", Statistics::HEAD);
    for shown in Pip::ALL {
        let real = real_recordings(&folder.join(shown.label()));
        eprintln!("{} {}", shown.label(), Statistics::of(&made[shown as usize]));
        eprintln!("   {}", Statistics::of(&real));
        n_real += real.len();
        right += real.iter().filter(|events| nearest(&picture(events), &pictures) == shown).count();
    }
    eprintln!("nearest neighbour, synthetic to real: {right} of {n_real}");
    assert!(right * 100 >= n_real * 90, "{right} of {n_real}");
}

fn recordings(shown: Pip) -> Vec<Vec<Event>> {
    (0..N_SEEDS).map(|seed| pip(shown, seed, &PipOptions::default())).collect()
}

fn digest(events: &[Event]) -> String {
    let mut hash = Sha256::new();
    for event in events {
        hash.update(event.t_us.to_le_bytes());
        hash.update(event.x.to_le_bytes());
        hash.update(event.y.to_le_bytes());
        hash.update([event.polarity as u8]);
    }
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Means over recordings, but for `same_polarity`, which is taken over all events at once.
#[derive(Default)]
struct Statistics {
    events: f64,
    duration_ms: f64,
    events_per_ms: f64,
    on_share: f64,
    pixels: f64,
    hit_pixels: f64,
    mean_count: f64,
    equal_times: f64,
    next_us: f64,
    both_percent: f64,
    isolated_percent: f64,
    same_polarity: f64,
    /// Between neighbours at a pixel: 1, 10 and 50 %.
    intervals_us: [f64; 3],
}

impl Statistics {
    const HEAD: &str = "   events     ms   /ms    ON  pixels  hit  count   0us   1us  same isolated  both intervals";

    fn of(recordings: &[Vec<Event>]) -> Statistics {
        let mut mean = Statistics::default();
        let (mut same, mut pairs) = (0, 0);
        let part = 1.0 / recordings.len() as f64;
        for events in recordings {
            let n = events.len() as f64;
            let duration_ms = (events[events.len() - 1].t_us - events[0].t_us) as f64 / 1000.0;
            let apart = |by: u64| {
                events.windows(2).filter(|e| e[1].t_us - e[0].t_us == by).count() as f64 / n
            };
            mean.events += part * n;
            mean.duration_ms += part * duration_ms;
            mean.events_per_ms += part * n / duration_ms;
            let on = events.iter().filter(|event| event.polarity == Polarity::On).count();
            mean.on_share += part * on as f64 / n;
            mean.equal_times += part * apart(0);
            mean.next_us += part * apart(1);
            mean.isolated_percent += part * 100.0 * isolated(events) as f64 / n;
            let frames = FrameCounts::of(events);
            mean.pixels += part * frames.pixels;
            mean.hit_pixels += part * frames.hit;
            mean.mean_count += part * frames.count;
            mean.both_percent += part * frames.both_percent;
            let (equal, intervals_us) = pixel_pairs(events);
            same += equal;
            pairs += intervals_us.len();
            for (mean, share) in mean.intervals_us.iter_mut().zip([0.01, 0.1, 0.5]) {
                *mean += part * intervals_us[(share * intervals_us.len() as f64) as usize] as f64;
            }
        }
        mean.same_polarity = same as f64 / pairs as f64;
        mean
    }
}

impl std::fmt::Display for Statistics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Statistics { events, duration_ms, events_per_ms, on_share, pixels, .. } = self;
        let Statistics { hit_pixels, mean_count, equal_times, next_us, .. } = self;
        write!(
            f,
            "{events:6.0} {duration_ms:6.1} {events_per_ms:5.0} {on_share:5.2} {pixels:7.0}"
        )?;
        write!(f, " {hit_pixels:4.0} {mean_count:6.2} {equal_times:5.3} {next_us:5.3}")?;
        write!(
            f,
            " {:5.3} {:8.2} {:5.2}",
            self.same_polarity, self.isolated_percent, self.both_percent
        )?;
        write!(f, " {:.0?}", self.intervals_us)
    }
}

/// Over windows of 1 ms from the first event; but for `pixels`, over whole ones.
struct FrameCounts {
    pixels: f64,
    hit: f64,
    count: f64,
    both_percent: f64,
}

impl FrameCounts {
    fn of(events: &[Event]) -> FrameCounts {
        let window = |event: &Event| (event.t_us - events[0].t_us) / 1000;
        let n_windows = window(&events[events.len() - 1]);
        let whole = || events.iter().filter(|event| window(event) < n_windows);
        let hits: HashSet<_> = whole().map(|e| (window(e), e.y, e.x)).collect();
        let signed: HashSet<_> = whole().map(|e| (window(e), e.y, e.x, e.polarity)).collect();
        let pixels: HashSet<_> = events.iter().map(|e| (e.y, e.x)).collect();
        let (hit, signed) = (hits.len() as f64, signed.len() as f64);
        FrameCounts {
            pixels: pixels.len() as f64,
            hit: hit / n_windows as f64,
            count: whole().count() as f64 / hit,
            both_percent: 100.0 * (signed - hit) / hit,
        }
    }
}

/// Events without another within 2 pixels and 1.5 ms.
fn isolated(events: &[Event]) -> usize {
    let near = |a: &Event, b: &Event| a.x.abs_diff(b.x) <= 2 && a.y.abs_diff(b.y) <= 2;
    let alone = |k: &usize| {
        let close = |b: &&Event| b.t_us.abs_diff(events[*k].t_us) <= 1500;
        let before = events[..*k].iter().rev().take_while(close);
        let after = events[*k + 1..].iter().take_while(close);
        !before.chain(after).any(|b| near(&events[*k], b))
    };
    (0..events.len()).filter(alone).count()
}

/// Neighbours at one pixel: how many pairs have the same polarity, and all intervals, ascending.
fn pixel_pairs(events: &[Event]) -> (usize, Vec<u64>) {
    let mut last = vec![None::<Event>; SENSOR.pixels()];
    let (mut same, mut intervals_us) = (0, Vec::new());
    for event in events {
        let Some(address) = SENSOR.address(event) else { continue };
        if let Some(before) = last[address as usize % SENSOR.pixels()].replace(*event) {
            same += usize::from(before.polarity == event.polarity);
            intervals_us.push(event.t_us - before.t_us);
        }
    }
    intervals_us.sort_unstable();
    (same, intervals_us)
}

/// Share of the events at each address, blurred a little.
fn picture(events: &[Event]) -> Vec<f32> {
    let mut counts = vec![0.0; SENSOR.addresses()];
    let (width, pixels) = (usize::from(SENSOR.width), SENSOR.pixels());
    for address in events.iter().filter_map(|event| SENSOR.address(event)) {
        let (plane, pixel) = (address as usize / pixels, address as usize % pixels);
        for near in
            [pixel, pixel.wrapping_sub(1), pixel + 1, pixel.wrapping_sub(width), pixel + width]
        {
            if near < pixels {
                counts[plane * pixels + near] += 1.0;
            }
        }
    }
    let length = counts.iter().map(|c| c * c).sum::<f32>().sqrt();
    counts.iter().map(|c| c / length).collect()
}

fn nearest(picture: &[f32], pictures: &[(Pip, Vec<f32>)]) -> Pip {
    let product = |other: &[f32]| picture.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
    let best = pictures.iter().max_by(|a, b| product(&a.1).total_cmp(&product(&b.1)));
    best.expect("pictures").0
}

fn shared(path: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let root = std::env::var_os("DVS_SHARED").map_or_else(beside, PathBuf::from);
    Some(root.join(path)).filter(|path| path.exists())
}

fn real_recordings(folder: &Path) -> Vec<Vec<Event>> {
    let entries = std::fs::read_dir(folder).expect("a folder of recordings");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "aedat"));
    paths.sort();
    paths.iter().map(|path| aedat2(&std::fs::read(path).expect("a recording"))).collect()
}

/// AEDAT 2.0 with DVS128 addresses, read plainly and apart from the crate's own decoder.
fn aedat2(bytes: &[u8]) -> Vec<Event> {
    let mut body = bytes;
    while body.first() == Some(&b'#') {
        let end = body.iter().position(|&byte| byte == b'\n').expect("a line's end");
        body = &body[end + 1..];
    }
    let word = |w: &[u8]| u32::from_be_bytes(w.try_into().expect("four bytes"));
    let event = |record: &[u8]| {
        let (address, t_us) = (word(&record[..4]), word(&record[4..]));
        let (x, y) = ((address >> 1 & 0x7f) as u16, (address >> 8 & 0x7f) as u16);
        Event { t_us: t_us.into(), x, y, polarity: Polarity::from_on(address & 1 == 0) }
    };
    body.chunks_exact(8).map(event).collect()
}
