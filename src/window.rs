//! Cuts a stream of events into windows of sensor time and counts each window's addresses.
//!
//! The rules are Tonic's `ToFrame(time_window=…)`, made endless: half-open windows on a grid that
//! starts at the first event. Depends on the events alone, never on a clock or on how they were
//! batched. Knows neither formats nor networks.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::event::{Event, SensorSize};
use crate::frame::{Dropped, Frames, Window};
use crate::prediction::{Losses, Totals};

/// Where the grid of windows starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// At the first event, as Tonic does.
    #[default]
    First,
    /// At this sensor time; the first window is the one of this grid that holds the first event,
    /// shorter where it would begin before 0.
    At(u64),
}

/// What becomes of the last window, which no later event has completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partial {
    /// It counts like any other.
    #[default]
    Keep,
    /// It is dropped, unless it is the only one (Tonic, `include_incomplete=False`).
    Drop,
}

/// How to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowConfig {
    /// The sensor whose addresses are counted.
    pub sensor: SensorSize,
    /// Length of a window in µs, at least 1.
    pub window_us: u64,
    /// Silence that ends a segment. Empty windows beyond it are not emitted, and events older
    /// than it tell that the clock was reset.
    pub gap_us: u64,
    /// Where the grid starts.
    pub origin: Origin,
    /// What becomes of the last window.
    pub partial: Partial,
}

/// So many late events in a row say that the clock was reset, or had leapt.
pub const LATE_RUN: u32 = 1000;

/// A batch of this many windows is full, unless [`Windower::cut_singly`] says otherwise.
pub const BATCH_WINDOWS: usize = 256;
/// A batch of this many active addresses is full.
pub const BATCH_ENTRIES: usize = 1 << 16;

/// Where a stream stands between two events, but for what its open window holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The open window's span, empty before the first event.
    start_us: u64,
    end_us: u64,
    first_of_grid: bool,
    events: u32,
    losses: Losses,
    restart: bool,
    dropped: Option<Dropped>,
    empty_run: u64,
    late_run: u32,
    first_us: u64,
    last_us: u64,
    totals: Totals,
    /// No event has come since silence opened the window.
    timed: bool,
}

/// A stream between two events, as [`Windower::save`] gives it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowerState {
    /// Its clock and what was counted.
    pub place: Place,
    /// Active addresses of the open window, ascending.
    #[serde(skip)]
    pub addresses: Vec<u32>,
    /// Their counts, at least 1.
    #[serde(skip)]
    pub counts: Vec<u16>,
}

/// Cuts one stream's events.
pub struct Windower {
    config: WindowConfig,
    gap_windows: u64,
    reset_us: u64,
    batch_windows: usize,
    counts: Vec<u16>,
    touched: Vec<u64>,
    at: Place,
}

impl Place {
    /// Of a stream that has not begun.
    fn start() -> Self {
        Place {
            start_us: 0,
            end_us: 0,
            first_of_grid: true,
            events: 0,
            losses: Losses::default(),
            restart: false,
            dropped: None,
            empty_run: 0,
            late_run: 0,
            first_us: 0,
            last_us: 0,
            totals: Totals::default(),
            timed: false,
        }
    }

    /// What was counted so far.
    pub fn totals(&self) -> Totals {
        let open_us = if self.is_open() { self.last_us - self.first_us } else { 0 };
        // Clocks that leap and restart may add up to more than time can be.
        let duration_us = self.totals.duration_us.saturating_add(open_us).min(Event::MAX_T_US);
        Totals { duration_us, ..self.totals }
    }

    fn is_open(&self) -> bool {
        self.end_us > 0
    }

    /// Counts a restart.
    pub fn count_restart(&mut self) {
        self.totals.restarts += 1;
    }

    /// Whether these are numbers that a windower could have.
    fn is_sound(&self, window_us: u64) -> bool {
        let Place { start_us, end_us, first_us, last_us, totals, losses, .. } = *self;
        // None is open, or one that begins at 0 and may be shorter, or a whole one.
        let span = end_us.saturating_sub(window_us) == start_us;
        let counted = [totals.events, totals.duration_us, totals.restarts, self.empty_run];
        let lost = totals.losses.by_reason().map(|(_, n)| n);
        let all = counted.iter().chain(&lost).chain([&start_us, &last_us]);
        span && first_us <= last_us
            && self.late_run < LATE_RUN
            && all.into_iter().all(|n| *n <= Event::MAX_T_US)
            && losses.by_reason().into_iter().zip(lost).all(|((_, n), all)| n <= all)
            && u64::from(self.events).saturating_add(losses.total()) <= totals.events
    }
}

impl Windower {
    /// A stream that has not begun.
    pub fn new(config: WindowConfig) -> Self {
        let addresses = config.sensor.addresses();
        Windower {
            gap_windows: gap_windows(config.gap_us, config.window_us),
            reset_us: config.gap_us,
            batch_windows: BATCH_WINDOWS,
            config,
            counts: vec![0; addresses],
            touched: vec![0; addresses.div_ceil(64)],
            at: Place::start(),
        }
    }

    /// From now on a batch is full with its first window: no event is counted long before its
    /// window is handed on.
    pub fn cut_singly(&mut self) {
        self.batch_windows = 1;
    }

    /// From now on events so much older than the open window tell that the clock was reset, whatever
    /// the gap is.
    pub fn reset_after(&mut self, reset_us: u64) {
        self.reset_us = reset_us;
    }

    /// Whether a batch should be handed on before more windows are cut.
    pub fn is_full(&self, out: &Frames) -> bool {
        out.len() >= self.batch_windows || out.entries() >= BATCH_ENTRIES
    }

    /// Takes events in order of arrival and emits the windows that they complete. Stops when the
    /// batch is full and returns how many events were taken: call again with the rest.
    pub fn push(&mut self, events: &[Event], out: &mut Frames) -> usize {
        let mut taken = 0;
        while let Some(event) = events.get(taken) {
            if event.t_us >= self.at.end_us || event.t_us < self.at.start_us {
                if event.is_malformed() {
                    self.at.totals.events += 1;
                    self.count_lost(Losses { malformed: 1, ..Losses::default() });
                    taken += 1;
                    continue;
                }
                if !self.is_open() {
                    self.open_grid(event.t_us);
                } else if event.t_us < self.at.start_us {
                    self.count_late(event.t_us, out);
                    taken += 1;
                    continue;
                } else if !self.close_until(event.t_us, out) {
                    return taken;
                }
            }
            taken += self.count_run(&events[taken..]);
        }
        taken
    }

    /// Time has passed without events: emits the windows that end at or before `t_us`. Returns
    /// whether all of them fitted the batch.
    pub fn advance_to(&mut self, t_us: u64, out: &mut Frames) -> bool {
        !self.is_open() || self.close_until(t_us, out)
    }

    /// A silent stream's clock has gone on to `t_us`: emits the windows that end at or before it,
    /// until the silence has lasted a gap; the grid goes no further, because clocks differ. Returns
    /// whether all of them fitted the batch.
    pub fn pass_silence(&mut self, t_us: u64, out: &mut Frames) -> bool {
        while self.has_due() && t_us >= self.at.end_us {
            if self.is_full(out) {
                return false;
            }
            self.close(out);
            self.open_next();
            self.at.timed = true;
        }
        true
    }

    /// So long after its last event a silent stream's next window is complete, in µs of sensor
    /// time; `None` where silence completes no more.
    pub fn due_after_us(&self) -> Option<u64> {
        self.has_due().then(|| self.at.end_us.saturating_sub(self.at.last_us))
    }

    /// Sensor time of the latest event, or of the first after a restart.
    pub fn last_us(&self) -> u64 {
        self.at.last_us
    }

    fn has_due(&self) -> bool {
        self.is_open() && (self.at.events > 0 || self.at.empty_run < self.gap_windows)
    }

    /// The stream has ended: emits or drops the open window; one that only silence has opened is
    /// none. What follows starts a new grid and a fresh network.
    pub fn finish(&mut self, out: &mut Frames) {
        if !self.is_open() {
            return;
        }
        if std::mem::take(&mut self.at.timed) {
            self.forget_open();
        } else if self.config.partial == Partial::Keep || self.at.first_of_grid {
            self.close(out);
        } else {
            self.forget_open();
        }
        self.at.totals = self.totals();
        (self.at.start_us, self.at.end_us) = (0, 0);
        self.at.first_of_grid = true;
        self.at.restart = true;
        self.at.empty_run = 0;
        self.at.late_run = 0;
    }

    /// Forgets the stream, keeps the memory: what follows is a stream that has not begun.
    pub fn reset(&mut self) {
        self.forget_open();
        self.at = Place::start();
    }

    /// The stream as it stands.
    pub fn save(&self) -> WindowerState {
        let bits = |word: u64| (0..64).filter(move |bit| word >> bit & 1 == 1);
        let touched = self.touched.iter().zip((0..).step_by(64)).filter(|(word, _)| **word != 0);
        let addresses: Vec<u32> =
            touched.flat_map(|(word, first)| bits(*word).map(move |bit| first + bit)).collect();
        let counts = addresses.iter().map(|address| self.counts[*address as usize]).collect();
        WindowerState { place: self.at, addresses, counts }
    }

    /// Goes on with a stream that was saved.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when it was cut in another way, or its numbers cannot be.
    pub fn restore(&mut self, saved: &WindowerState) -> Result<()> {
        let WindowerState { place, addresses, counts } = saved;
        let within = addresses.iter().all(|address| (*address as usize) < self.counts.len());
        let ascending = addresses.is_sorted_by(|a, b| a < b);
        let counted: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        if !(within && ascending && addresses.len() == counts.len() && !counts.contains(&0))
            || counted > u64::from(place.events)
            || !place.is_sound(self.config.window_us)
        {
            return Err(Error::Mismatch("the state of its windows is not one".to_owned()));
        }
        self.forget_open();
        for (address, count) in addresses.iter().map(|address| *address as usize).zip(counts) {
            self.counts[address] = *count;
            self.touched[address / 64] |= 1 << (address % 64);
        }
        self.at = *place;
        Ok(())
    }

    /// These windows were cut and then dropped for want of time: their events are lost by
    /// overflow, and what they would have told is told by the next window.
    pub fn drop_windows(&mut self, frames: &Frames, dropped: Dropped) {
        let earlier = frames.windows().iter().map(|window| window.dropped).chain([self.at.dropped]);
        let silence = dropped.silence || earlier.flatten().any(|earlier| earlier.silence);
        self.at.dropped = Some(Dropped { silence, ..dropped });
        for window in frames.windows() {
            self.at.losses += window.losses;
            self.at.restart |= window.restart;
            self.count_lost(Losses { overflow: u64::from(window.events), ..Losses::default() });
        }
    }

    /// What was counted so far.
    pub fn totals(&self) -> Totals {
        self.at.totals()
    }

    fn is_open(&self) -> bool {
        self.at.is_open()
    }

    fn count_lost(&mut self, losses: Losses) {
        self.at.losses += losses;
        self.at.totals.losses += losses;
    }

    fn open_grid(&mut self, t_us: u64) {
        let window_us = self.config.window_us;
        self.at.end_us = match self.config.origin {
            Origin::First => t_us + window_us,
            Origin::At(origin) if t_us >= origin => t_us - (t_us - origin) % window_us + window_us,
            Origin::At(origin) => origin - (origin - t_us - 1) / window_us * window_us,
        };
        self.at.start_us = self.at.end_us.saturating_sub(window_us);
        (self.at.first_us, self.at.last_us) = (t_us, t_us);
    }

    fn count_late(&mut self, t_us: u64, out: &mut Frames) {
        self.at.totals.events += 1;
        self.count_lost(Losses { late: 1, ..Losses::default() });
        let long_ago = self.at.start_us - t_us > self.reset_us;
        self.at.late_run = if long_ago { self.at.late_run + 1 } else { 0 };
        if self.at.late_run == LATE_RUN {
            self.at.totals.restarts += 1;
            self.finish(out);
        }
    }

    /// Counts the leading events that lie in the open window, at least one.
    fn count_run(&mut self, events: &[Event]) -> usize {
        let may_saturate = self.at.events as usize + events.len() > usize::from(u16::MAX);
        let Run { taken, lost, saturated } =
            if may_saturate { self.count::<true>(events) } else { self.count::<false>(events) };
        self.at.late_run = 0;
        self.at.timed = false;
        let inside = taken as u64 - lost - saturated;
        self.at.events = self.at.events.saturating_add(inside as u32);
        self.at.totals.events += taken as u64;
        if lost + saturated > 0 {
            self.count_lost(Losses { outside: lost, overflow: saturated, ..Losses::default() });
        }
        taken
    }

    /// Counts each of them at its address and marks the address. Whether a count is at its
    /// greatest is looked at only where it may be: the loop is the hottest of all ingest.
    #[inline(always)]
    fn count<const MAY_SATURATE: bool>(&mut self, events: &[Event]) -> Run {
        let sensor = self.config.sensor;
        let (start_us, mut last_us) = (self.at.start_us, self.at.last_us);
        let length_us = self.at.end_us - start_us;
        let (counts, touched) = (&mut *self.counts, &mut *self.touched);
        let mut run = Run { taken: events.len(), lost: 0, saturated: 0 };
        for (k, event) in events.iter().enumerate() {
            if event.t_us.wrapping_sub(start_us) >= length_us {
                run.taken = k;
                break;
            }
            last_us = last_us.max(event.t_us);
            let Some(address) = sensor.address(event).map(|address| address as usize) else {
                run.lost += 1;
                continue;
            };
            if MAY_SATURATE && counts[address] == u16::MAX {
                run.saturated += 1;
                continue;
            }
            counts[address] = counts[address].wrapping_add(1);
            touched[address / 64] |= 1 << (address % 64);
        }
        self.at.last_us = last_us;
        run
    }

    /// Closes windows until `t_us` lies in the open one. Says whether that was reached before
    /// the batch was full.
    fn close_until(&mut self, t_us: u64, out: &mut Frames) -> bool {
        while t_us >= self.at.end_us {
            if self.is_full(out) {
                return false;
            }
            self.close(out);
            self.open_next();
            if self.at.empty_run > self.gap_windows {
                self.at.start_us +=
                    (t_us - self.at.start_us) / self.config.window_us * self.config.window_us;
            }
            self.at.end_us = self.at.start_us + self.config.window_us;
        }
        true
    }

    fn open_next(&mut self) {
        self.at.first_of_grid = false;
        self.at.start_us = self.at.end_us;
        self.at.end_us = self.at.start_us + self.config.window_us;
    }

    fn close(&mut self, out: &mut Frames) {
        self.at.empty_run = if self.at.events == 0 { self.at.empty_run + 1 } else { 0 };
        if self.at.empty_run > self.gap_windows {
            return;
        }
        out.take(&mut self.touched, &mut self.counts, self.at.events as usize);
        out.close(Window {
            t_start_us: self.at.start_us,
            t_end_us: self.at.end_us,
            events: std::mem::take(&mut self.at.events),
            restart: std::mem::take(&mut self.at.restart),
            dropped: self.at.dropped.take(),
            losses: std::mem::take(&mut self.at.losses),
        });
    }

    fn forget_open(&mut self) {
        self.counts.fill(0);
        self.touched.fill(0);
        self.at.events = 0;
    }
}

/// Events that were counted, or could not be.
struct Run {
    taken: usize,
    lost: u64,
    saturated: u64,
}

/// Number of windows that last `gap_us`, at least 1.
pub fn gap_windows(gap_us: u64, window_us: u64) -> u64 {
    gap_us.div_ceil(window_us).max(1)
}
