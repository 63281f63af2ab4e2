//! One recording from its file to frames, and many of them by several threads.
//!
//! Knows neither labels nor folders.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::cut::{Cutter, MAX_WINDOWS};
use super::find::Recording;
use super::{Loading, Sample};
use crate::error::{Error, Result, grouped};
use crate::event::{Event, Sensor, SensorSize};
use crate::frame::Frames;
use crate::model::MAX_PIXELS;
use crate::prediction::Losses;
use crate::recording;
use crate::view::View;

/// Most events of a recording that is loaded.
pub const MAX_EVENTS: usize = 1 << 25;

/// What a recording tells of its sensor.
#[derive(Clone, Copy)]
pub(super) enum Extent {
    /// What the view leaves of the size that is named.
    Named(SensorSize),
    /// No size is named: the greatest coordinate.
    Reaches(u16),
}

/// Looks for the size of a recording's sensor; reads no further than its first events where one
/// is named.
pub(super) fn extent(path: &Path, loading: &Loading) -> Result<Extent> {
    let (mut named, mut reaches) = (None, 0);
    let (_, read) =
        recording::read(path, loading.format, &loading.decoder, &mut |sensor, events| {
            if !events.is_empty() {
                named = loading.view.seen(sensor.size);
            }
            reaches = events.iter().map(|event| event.x.max(event.y)).fold(reaches, u16::max);
            if named.is_some() { Err(Error::Stopped) } else { Ok(()) }
        });
    match (named, read) {
        (Some(size), _) => Ok(Extent::Named(size)),
        (None, Ok(())) => Ok(Extent::Reaches(reaches)),
        (None, Err(error)) => Err(error),
    }
}

/// The network's sensor, and whether it was guessed from the events.
#[derive(Clone)]
pub(super) struct Settled {
    pub sensor: SensorSize,
    pub guessed: bool,
    /// What a user should know of it.
    pub note: Option<String>,
}

impl Settled {
    /// The size that was asked for.
    pub fn asked(sensor: SensorSize) -> Self {
        Settled { sensor, guessed: false, note: None }
    }
}

/// The size that most recordings name, of equals the first. Where fewer name one than name none,
/// and the events of those others lie outside it or within a quarter of it, it is another camera's,
/// and the size is what it is where none names one: the smallest square that holds all their events
/// but those too far away for any sensor.
pub(super) fn settle(extents: &[Extent]) -> Settled {
    let mut named: Vec<(SensorSize, usize)> = Vec::new();
    let (mut greatest, mut unnamed) = (0, 0);
    for extent in extents {
        match extent {
            Extent::Named(size) => match named.iter_mut().find(|(known, _)| known == size) {
                Some((_, n)) => *n += 1,
                None => named.push((*size, 1)),
            },
            Extent::Reaches(reach) => {
                unnamed += 1;
                if usize::from(*reach) < MAX_PIXELS.isqrt() {
                    greatest = greatest.max(*reach);
                }
            }
        }
    }
    named.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let n_named: usize = named.iter().map(|(_, n)| n).sum();
    let side = greatest + 1;
    let square = SensorSize { width: side, height: side };
    let fits = |size: SensorSize| {
        let longer = u32::from(size.width.max(size.height));
        u32::from(side) <= longer && 2 * u32::from(side) > longer
    };
    match named.first() {
        Some((sensor, n)) if n_named >= unnamed || fits(*sensor) => {
            let note = (unnamed > 0).then(|| {
                format!(
                    "{n} of {} recordings name a sensor of {sensor}, which is taken for the \
                     {unnamed} that name none too (--size WxH says otherwise)",
                    extents.len()
                )
            });
            Settled { note, ..Settled::asked(*sensor) }
        }
        Some((sensor, n)) => Settled {
            sensor: square,
            guessed: true,
            note: Some(format!(
                "{unnamed} of {} recordings name no sensor's size, and their events are not those of \
                 the {sensor} that {n} name: it is taken as {square}, the smallest square that holds \
                 every event of theirs (--size WxH says otherwise)",
                extents.len()
            )),
        },
        None => Settled {
            sensor: square,
            guessed: true,
            note: Some(format!(
                "no recording names its sensor's size: it is taken as {square}, the smallest square \
                 that holds every event (--size WxH says otherwise)"
            )),
        },
    }
}

/// Reads, views and cuts a recording.
pub(super) fn sample(
    recording: &Recording,
    loading: &Loading,
    settled: &Settled,
    cutter: &mut Cutter,
) -> Result<(Sample, Losses)> {
    let Decoded { mut events, sensor: own, malformed } = decode(&recording.path, loading)?;
    let Settled { sensor, guessed, .. } = *settled;
    let view = View::new(&loading.view, &own, sensor)?;
    let reach = events.iter().map(|event| event.x.max(event.y)).fold(0, u16::max);
    if guessed && reach >= sensor.width {
        return Err(Error::Unsupported(format!(
            "a coordinate of {reach} is too large for a sensor: --sensor WxH gives its size"
        )));
    }
    view.apply(&mut events);
    let times = events.iter().map(|event| event.t_us);
    let (first_us, last_us) = (events[0].t_us, times.max().unwrap_or(0));
    let mut frames = Frames::default();
    let mut losses = cutter.cut(&events, 0, &mut frames);
    if frames.len() as u64 > MAX_WINDOWS {
        return Err(Error::Unsupported(format!(
            "it has more than {} windows, from {first_us} to {last_us} µs: cut it, or take longer \
             windows",
            grouped(MAX_WINDOWS)
        )));
    }
    losses.malformed += malformed;
    let may_be_cut_again =
        loading.gap_us.is_none() && frames.windows().iter().any(|window| window.restart);
    if !(loading.keep_events || may_be_cut_again) {
        events = Vec::new();
    }
    let (name, class) = (recording.name.clone(), recording.class);
    Ok((Sample { name, class, first_us, last_us, events, frames }, losses))
}

/// A recording before view and windows; it holds an event.
struct Decoded {
    events: Vec<Event>,
    sensor: Sensor,
    malformed: u64,
}

fn decode(path: &Path, loading: &Loading) -> Result<Decoded> {
    let mut events = Vec::new();
    let (facts, read) = recording::read(path, loading.format, &loading.decoder, &mut |_, chunk| {
        if events.len() + chunk.len() > MAX_EVENTS {
            let most = grouped(MAX_EVENTS as u64);
            return Err(Error::Unsupported(format!("it has more than {most} events: cut it")));
        }
        events.extend_from_slice(chunk);
        Ok(())
    });
    read?;
    if events.is_empty() {
        return Err(Error::Unsupported("it holds no events".to_owned()));
    }
    Ok(Decoded { events, sensor: facts.sensor, malformed: facts.tally.malformed })
}

/// `run` on all items, by several threads, each with a state of its own; results in the items'
/// order.
pub(super) fn in_parallel<T: Sync, S, R: Send>(
    items: &[T],
    threads: usize,
    state: impl Fn() -> S + Sync,
    run: impl Fn(&mut S, &T) -> R + Sync,
) -> Vec<R> {
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut state = state();
        loop {
            let k = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(k) else { break };
            let result = run(&mut state, item);
            *results[k].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            scope.spawn(work);
        }
        work();
    });
    let taken = |result: Mutex<_>| result.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().filter_map(taken).collect()
}
