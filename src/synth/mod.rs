//! Labelled synthetic recordings: the four card pips moving over a 35 × 35 sensor, one by one or
//! as decks.
//!
//! Seed in, events out, the same on every machine. Knows events and nothing else: no clock, no
//! file, no window, no network.

mod deck;
mod draw;
mod motion;
mod pixel;
mod shape;

pub use deck::{Deck, DeckEntry, deal, deck};

use crate::event::{Event, Polarity, SensorSize};
use draw::Draw;

/// Size of the sensor that the recordings name.
pub const SENSOR: SensorSize = SensorSize { width: 35, height: 35 };

/// Labels of the pips, in the order of [`Pip::ALL`] and of their folders' names.
pub const LABELS: [&str; 4] = ["cl", "di", "he", "sp"];

/// First and last row and column that the camera stored: a crop of 31 × 31 pixels.
const CROP: std::ops::RangeInclusive<i32> = 1..=31;
/// Row and column of the crop's centre.
const CENTRE: i32 = 16;

/// What a card shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pip {
    /// ♣
    Club = 0,
    /// ♦
    Diamond = 1,
    /// ♥
    Heart = 2,
    /// ♠
    Spade = 3,
}

impl Pip {
    /// Every pip, in the order of [`LABELS`].
    pub const ALL: [Pip; 4] = [Pip::Club, Pip::Diamond, Pip::Heart, Pip::Spade];

    /// Its short label, as the folders of real recordings are named.
    pub fn label(self) -> &'static str {
        LABELS[self as usize]
    }
}

/// How pips are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PipOptions {
    /// All pips move alike, so that nothing but the shape tells them apart.
    pub one_motion: bool,
    /// Stray events while a pip is seen, per ms, anywhere in the crop.
    pub noise_per_ms: f64,
    /// Stray events in the gaps of a deck, per ms.
    pub gap_noise_per_ms: f64,
}

impl Default for PipOptions {
    fn default() -> Self {
        PipOptions { one_motion: false, noise_per_ms: 1.5, gap_noise_per_ms: 0.0 }
    }
}

/// One recording: a dark pip on a white card rises, stops and falls, seen through a crop that
/// follows it with a lag.
///
/// Times never fall and the first is 0. Pips of equal seed are independent of one another.
pub fn pip(pip: Pip, seed: u64, options: &PipOptions) -> Vec<Event> {
    let mut draw = Draw::new(seed, pip.label());
    let plan = motion::Plan::draw(pip, options.one_motion, &mut draw);
    let poses = plan.poses();
    let mut sparks = pixel::expose(shape::of(pip), &poses, &mut draw);
    sparks.extend(first_strays(&mut draw));
    sparks.extend(strays(options.noise_per_ms, plan.duration_ms, &mut draw));
    recorded(sparks)
}

/// An event before times are rounded and sorted; column and row may lie outside the crop.
#[derive(Clone, Copy, Debug)]
struct Spark {
    t_ms: f64,
    x: i32,
    y: i32,
    polarity: Polarity,
}

/// What the camera stored of `sparks`: those in the crop, in whole µs from the first one.
fn recorded(mut sparks: Vec<Spark>) -> Vec<Event> {
    sparks.retain(|spark| CROP.contains(&spark.x) && CROP.contains(&spark.y));
    let t_us = |spark: &Spark| (spark.t_ms * 1000.0).round() as i64;
    sparks.sort_by_key(t_us);
    let first_us = sparks.first().map_or(0, t_us);
    let event = |spark: Spark| Event { t_us: t_us(&spark).abs_diff(first_us), ..stored(spark) };
    sparks.into_iter().map(event).collect()
}

/// A spark in the crop as an event at 0.
fn stored(spark: Spark) -> Event {
    Event { t_us: 0, x: spark.x as u16, y: spark.y as u16, polarity: spark.polarity }
}

/// Noise of the sensor from 0 to `duration_ms`, uniform in time and in the crop.
fn strays(per_ms: f64, duration_ms: f64, draw: &mut Draw) -> Vec<Spark> {
    let times = draw.arrivals(per_ms, duration_ms);
    let side = CROP.count() as u64;
    let mut anywhere = |t_ms| Spark {
        t_ms,
        x: CROP.start() + draw.below(side) as i32,
        y: CROP.start() + draw.below(side) as i32,
        polarity: Polarity::from_on(draw.chance(0.5)),
    };
    times.into_iter().map(&mut anywhere).collect()
}

/// In some recordings a blob of events, mostly of one polarity, in the first ms.
fn first_strays(draw: &mut Draw) -> Vec<Spark> {
    if !draw.chance(0.35) {
        return Vec::new();
    }
    let n_events = draw.arrivals(1.0, 60.0).len();
    let most = Polarity::from_on(draw.chance(0.5));
    let middle = draw.uniform(5.0, 29.0);
    let mut spark = || Spark {
        t_ms: draw.exponential(0.7),
        x: draw.normal(f64::from(CENTRE), 5.0).round() as i32,
        y: draw.normal(middle, 4.0).round() as i32,
        polarity: if draw.chance(0.9) { most } else { most.inverted() },
    };
    (0..n_events).map(|_| spark()).collect()
}
