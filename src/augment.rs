//! Augmentation: labelled recordings made a little different at each use, from a seed.
//!
//! Knows events in the network's coordinates; neither files nor windows. Every augmentation draws
//! from a generator of its own, so what one draws changes nothing for the others.

use std::fmt;
use std::str::FromStr;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal, Poisson};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::event::{Event, Polarity, SensorSize};

/// One way to change a recording. Written as on the command line, `shift:1`, `hflip`, `drop:0.2`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Augmentation {
    /// Moved by a whole number of pixels up to this many either way, columns and rows apart; what
    /// leaves the sensor is outside, and what lay outside stays there.
    Shift(u16),
    /// Columns mirrored, with this probability (Tonic's `RandomFlipLR`).
    FlipX(f64),
    /// Rows mirrored, with this probability (`RandomFlipUD`).
    FlipY(f64),
    /// Polarities inverted, with this probability (`RandomFlipPolarity`, but for all events).
    FlipPolarity(f64),
    /// Normal noise of this deviation in µs on every time (`TimeJitter`).
    Jitter(f64),
    /// All times stretched by one factor, uniform in 1 ± this share (`TimeSkew`).
    TimeScale(f64),
    /// Each event left out with this probability (`DropEvent`); one always stays.
    Drop(f64),
    /// So many events a ms more, uniform in time and place (`UniformNoise`).
    Noise(f64),
    /// Silence after the last event, in ms.
    Tail(f64),
}

/// What each name is followed by: the name, whether a value must follow, and the greatest value.
const KINDS: &[(&str, Option<f64>, f64)] = &[
    ("shift", None, 1000.0),
    ("hflip", Some(0.5), 1.0),
    ("vflip", Some(0.5), 1.0),
    ("polflip", Some(0.5), 1.0),
    ("jitter", None, 1e6),
    ("timescale", None, 0.9),
    ("drop", None, 1.0),
    ("noise", None, 1000.0),
    ("tail", None, 1e4),
];

/// Most noise events that a recording gets.
const MAX_NOISE_EVENTS: f64 = 1e7;
/// No time that is drawn is further off than so many deviations, but for one in 10⁹.
const MOST_DEVIATIONS: f64 = 6.0;

impl FromStr for Augmentation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let Some((_, default, greatest)) = KINDS.iter().find(|kind| kind.0 == name) else {
            let names: Vec<_> = KINDS.iter().map(|kind| kind.0).collect();
            let names = names.join(", ");
            return Err(Error::Usage(format!(
                "no augmentation is called '{name}': there are {names}"
            )));
        };
        let value = match value {
            Some(text) => text.parse().ok().filter(|value| (0.0..=*greatest).contains(value)),
            None => *default,
        };
        let whole = |value: &f64| name != "shift" || value.fract() == 0.0;
        let Some(value) = value.filter(whole) else {
            return Err(Error::Usage(format!(
                "'{text}': {name} takes a number from 0 to {greatest}, as {name}:{}",
                default.unwrap_or(if *greatest > 1.0 { 1.0 } else { 0.2 })
            )));
        };
        Ok(match name {
            "shift" => Augmentation::Shift(value as u16),
            "hflip" => Augmentation::FlipX(value),
            "vflip" => Augmentation::FlipY(value),
            "polflip" => Augmentation::FlipPolarity(value),
            "jitter" => Augmentation::Jitter(value),
            "timescale" => Augmentation::TimeScale(value),
            "drop" => Augmentation::Drop(value),
            "noise" => Augmentation::Noise(value),
            _ => Augmentation::Tail(value),
        })
    }
}

impl fmt::Display for Augmentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Augmentation::Shift(pixels) => write!(f, "shift:{pixels}"),
            Augmentation::FlipX(0.5) => write!(f, "hflip"),
            Augmentation::FlipX(p) => write!(f, "hflip:{p}"),
            Augmentation::FlipY(0.5) => write!(f, "vflip"),
            Augmentation::FlipY(p) => write!(f, "vflip:{p}"),
            Augmentation::FlipPolarity(0.5) => write!(f, "polflip"),
            Augmentation::FlipPolarity(p) => write!(f, "polflip:{p}"),
            Augmentation::Jitter(us) => write!(f, "jitter:{us}"),
            Augmentation::TimeScale(share) => write!(f, "timescale:{share}"),
            Augmentation::Drop(p) => write!(f, "drop:{p}"),
            Augmentation::Noise(rate) => write!(f, "noise:{rate}"),
            Augmentation::Tail(ms) => write!(f, "tail:{ms}"),
        }
    }
}

/// Augmentations, applied in their order. Written with commas between them; `none` is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Augmentations(pub Vec<Augmentation>);

impl FromStr for Augmentations {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() || text == "none" {
            return Ok(Augmentations::default());
        }
        text.split(',').map(|text| text.trim().parse()).collect::<Result<_>>().map(Augmentations)
    }
}

impl fmt::Display for Augmentations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "none");
        }
        let texts: Vec<_> = self.0.iter().map(Augmentation::to_string).collect();
        write!(f, "{}", texts.join(","))
    }
}

impl TryFrom<String> for Augmentations {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Augmentations> for String {
    fn from(augmentations: Augmentations) -> String {
        augmentations.to_string()
    }
}

/// Which use of which recording: fixes what is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// The training's seed.
    pub seed: u64,
    /// The epoch.
    pub epoch: u32,
    /// The recording's place among all.
    pub index: usize,
}

impl Augmentations {
    /// Whether recordings stay as they are.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Most windows that a recording of so many is changed to.
    pub fn most_windows(&self, windows: usize, window_us: u64) -> usize {
        let mut most_us = windows as f64 * window_us as f64;
        for augmentation in &self.0 {
            match *augmentation {
                Augmentation::Jitter(us) => most_us += 2.0 * MOST_DEVIATIONS * us,
                Augmentation::TimeScale(share) => most_us *= 1.0 + share,
                Augmentation::Tail(ms) => most_us += 1000.0 * ms,
                _ => (),
            }
        }
        (most_us / window_us as f64).ceil() as usize
    }

    /// Changes a recording's events, which are sorted by time before and after. Returns the µs of
    /// silence that follow its last event.
    pub fn apply(&self, of: Use, sensor: SensorSize, events: &mut Vec<Event>) -> u64 {
        let mut tail_us = 0;
        for (place, augmentation) in self.0.iter().enumerate() {
            let mut random = generator(of, place);
            match *augmentation {
                Augmentation::Shift(pixels) => shift(&mut random, pixels, sensor, events),
                Augmentation::FlipX(p) => {
                    if random.random_bool(p) {
                        flip(events, |event| &mut event.x, sensor.width);
                    }
                }
                Augmentation::FlipY(p) => {
                    if random.random_bool(p) {
                        flip(events, |event| &mut event.y, sensor.height);
                    }
                }
                Augmentation::FlipPolarity(p) => {
                    if random.random_bool(p) {
                        events.iter_mut().for_each(|e| e.polarity = e.polarity.inverted());
                    }
                }
                Augmentation::Jitter(us) => jitter(&mut random, us, events),
                Augmentation::TimeScale(share) => {
                    let factor = 1.0 + share * (2.0 * random.random::<f64>() - 1.0);
                    stretch(factor, events);
                }
                Augmentation::Drop(p) => drop_events(&mut random, p, events),
                Augmentation::Noise(per_ms) => noise(&mut random, per_ms, sensor, events),
                Augmentation::Tail(ms) => tail_us += (ms * 1000.0) as u64,
            }
        }
        tail_us
    }
}

fn generator(of: Use, place: usize) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&of.seed.to_le_bytes());
    key[8..12].copy_from_slice(&of.epoch.to_le_bytes());
    key[12..20].copy_from_slice(&(of.index as u64).to_le_bytes());
    key[20..28].copy_from_slice(&(place as u64).to_le_bytes());
    key[28..].copy_from_slice(b"augm");
    ChaCha8Rng::from_seed(key)
}

fn shift(random: &mut ChaCha8Rng, pixels: u16, sensor: SensorSize, events: &mut [Event]) {
    let pixels = i32::from(pixels);
    let (dx, dy) = (random.random_range(-pixels..=pixels), random.random_range(-pixels..=pixels));
    let moved = |coordinate: u16, by: i32| {
        u16::try_from(i32::from(coordinate) + by).unwrap_or(Event::OUTSIDE)
    };
    for event in events {
        if event.x < sensor.width && event.y < sensor.height {
            (event.x, event.y) = (moved(event.x, dx), moved(event.y, dy));
        }
    }
}

fn drop_events(random: &mut ChaCha8Rng, p: f64, events: &mut Vec<Event>) {
    let first = events.first().copied();
    events.retain(|_| !random.random_bool(p));
    if events.is_empty() {
        events.extend(first);
    }
}

/// Mirrors one coordinate; what lies outside stays there.
fn flip(events: &mut [Event], of: impl Fn(&mut Event) -> &mut u16, size: u16) {
    for event in events {
        let coordinate = of(event);
        if *coordinate < size {
            *coordinate = size - 1 - *coordinate;
        }
    }
}

fn jitter(random: &mut ChaCha8Rng, deviation_us: f64, events: &mut [Event]) {
    let Ok(normal) = Normal::new(0.0, deviation_us) else { return };
    for event in events.iter_mut() {
        event.t_us = in_time(event.t_us as f64 + normal.sample(random));
    }
    events.sort_by_key(|event| event.t_us);
}

/// Times from the first event on, multiplied.
fn stretch(factor: f64, events: &mut [Event]) {
    let first_us = events.first().map_or(0, |event| event.t_us);
    for event in events {
        let since = event.t_us.saturating_sub(first_us) as f64 * factor;
        event.t_us = in_time(first_us as f64 + since);
    }
}

fn noise(random: &mut ChaCha8Rng, per_ms: f64, sensor: SensorSize, events: &mut Vec<Event>) {
    let (Some(first), Some(last)) = (events.first(), events.last()) else { return };
    let (first_us, last_us) = (first.t_us, last.t_us.max(first.t_us));
    let mean = (per_ms * (last_us - first_us) as f64 / 1000.0).min(MAX_NOISE_EVENTS);
    let Ok(poisson) = Poisson::new(mean) else { return };
    let n = poisson.sample(random) as usize;
    events.extend((0..n).map(|_| Event {
        t_us: random.random_range(first_us..=last_us),
        x: random.random_range(0..sensor.width),
        y: random.random_range(0..sensor.height),
        polarity: Polarity::from_on(random.random()),
    }));
    events.sort_by_key(|event| event.t_us);
}

fn in_time(t_us: f64) -> u64 {
    t_us.round().clamp(0.0, Event::MAX_T_US as f64) as u64
}
