//! Cuts a stream of events into windows of sensor time and counts each window's addresses.
//!
//! The rules are Tonic's `ToFrame(time_window=…)`, made endless: half-open windows on a grid that
//! starts at the first event. Depends on the events alone, never on a clock or on how they were
//! batched. Knows neither formats nor networks.

use crate::event::{Event, SensorSize};
use crate::frame::{Frames, Window};
use crate::prediction::{Losses, Totals};

/// Where the grid of windows starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Origin {
    /// At the first event, as Tonic does.
    #[default]
    First,
    /// At this sensor time; the first window is the one of this grid that holds the first event.
    At(u64),
}

/// What becomes of the last window, which no later event has completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Partial {
    /// It counts like any other.
    #[default]
    Keep,
    /// It is dropped, unless it is the only one (Tonic, `include_incomplete=False`).
    Drop,
}

/// How to cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// A batch of this many windows is full.
pub const BATCH_WINDOWS: usize = 256;
/// A batch of this many active addresses is full.
pub const BATCH_ENTRIES: usize = 1 << 16;

/// Whether a batch should be handed on before more windows are cut.
pub fn is_full(frames: &Frames) -> bool {
    frames.len() >= BATCH_WINDOWS || frames.entries() >= BATCH_ENTRIES
}

/// The state of one stream between events.
pub struct Windower {
    config: WindowConfig,
    gap_windows: u64,
    counts: Vec<u16>,
    touched: Vec<u64>,
    active: Vec<u32>,
    /// The open window's span, empty before the first event.
    start_us: u64,
    end_us: u64,
    first_of_grid: bool,
    events: u32,
    losses: Losses,
    restart: bool,
    empty_run: u64,
    late_run: u32,
    first_us: u64,
    last_us: u64,
    totals: Totals,
}

impl Windower {
    /// A stream that has not begun.
    pub fn new(config: WindowConfig) -> Self {
        let addresses = config.sensor.addresses();
        Windower {
            gap_windows: gap_windows(config.gap_us, config.window_us),
            config,
            counts: vec![0; addresses],
            touched: vec![0; addresses.div_ceil(64)],
            active: vec![0; addresses + SPILL],
            start_us: 0,
            end_us: 0,
            first_of_grid: true,
            events: 0,
            losses: Losses::default(),
            restart: false,
            empty_run: 0,
            late_run: 0,
            first_us: 0,
            last_us: 0,
            totals: Totals::default(),
        }
    }

    /// Takes events in order of arrival and emits the windows that they complete. Stops when the
    /// batch is full and returns how many events were taken: call again with the rest.
    pub fn push(&mut self, events: &[Event], out: &mut Frames) -> usize {
        let mut taken = 0;
        while let Some(event) = events.get(taken) {
            if event.t_us >= self.end_us || event.t_us < self.start_us {
                if !self.is_open() {
                    self.open_grid(event.t_us);
                } else if event.t_us < self.start_us {
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

    /// The stream has ended: emits or drops the open window. What follows starts a new grid and
    /// a fresh network.
    pub fn finish(&mut self, out: &mut Frames) {
        if !self.is_open() {
            return;
        }
        if self.config.partial == Partial::Keep || self.first_of_grid {
            self.close(out);
        } else {
            self.forget_open();
        }
        self.totals.duration_us += self.last_us - self.first_us;
        (self.start_us, self.end_us) = (0, 0);
        self.first_of_grid = true;
        self.restart = true;
        self.empty_run = 0;
        self.late_run = 0;
    }

    /// Forgets the stream, keeps the memory: what follows is a stream that has not begun.
    pub fn reset(&mut self) {
        self.forget_open();
        (self.start_us, self.end_us) = (0, 0);
        self.first_of_grid = true;
        self.losses = Losses::default();
        self.restart = false;
        (self.empty_run, self.late_run) = (0, 0);
        (self.first_us, self.last_us) = (0, 0);
        self.totals = Totals::default();
    }

    /// Counts events that were lost before they came here; they are events of the stream too.
    pub fn lose(&mut self, losses: Losses) {
        self.totals.events += losses.total();
        self.count_lost(losses);
    }

    /// These windows were cut and then dropped for want of time: their events are lost by
    /// overflow, and what they would have told is told by the next window.
    pub fn drop_windows(&mut self, frames: &Frames) {
        for window in frames.windows() {
            self.losses += window.losses;
            self.restart |= window.restart;
            self.count_lost(Losses { overflow: u64::from(window.events), ..Losses::default() });
        }
    }

    /// What was counted so far; the duration is that of finished grids.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    fn is_open(&self) -> bool {
        self.end_us > 0
    }

    fn count_lost(&mut self, losses: Losses) {
        self.losses += losses;
        self.totals.losses += losses;
    }

    fn open_grid(&mut self, t_us: u64) {
        let window_us = self.config.window_us;
        self.start_us = match self.config.origin {
            Origin::First => t_us,
            Origin::At(origin) if t_us >= origin => t_us - (t_us - origin) % window_us,
            Origin::At(origin) => {
                let before = (origin - t_us).div_ceil(window_us) * window_us;
                origin.saturating_sub(before)
            }
        };
        self.end_us = self.start_us + window_us;
        (self.first_us, self.last_us) = (t_us, t_us);
    }

    fn count_late(&mut self, t_us: u64, out: &mut Frames) {
        self.totals.events += 1;
        self.count_lost(Losses { late: 1, ..Losses::default() });
        let long_ago = self.start_us - t_us > self.config.gap_us;
        self.late_run = if long_ago { self.late_run + 1 } else { 0 };
        if self.late_run == LATE_RUN {
            self.totals.restarts += 1;
            self.finish(out);
        }
    }

    /// Counts the leading events that lie in the open window, at least one.
    fn count_run(&mut self, events: &[Event]) -> usize {
        let may_saturate = self.events as usize + events.len() > usize::from(u16::MAX);
        let Run { taken, lost, saturated } =
            if may_saturate { self.count::<true>(events) } else { self.count::<false>(events) };
        self.late_run = 0;
        let inside = taken as u64 - lost - saturated;
        self.events = self.events.saturating_add(inside as u32);
        self.totals.events += taken as u64;
        if lost + saturated > 0 {
            self.count_lost(Losses { outside: lost, overflow: saturated, ..Losses::default() });
        }
        taken
    }

    /// Counts each of them at its address and marks the address. Whether a count is at its
    /// greatest is looked at only where it may be: the loop is the hottest of all ingest.
    #[inline(always)]
    fn count<const MAY_SATURATE: bool>(&mut self, events: &[Event]) -> Run {
        let WindowConfig { sensor, window_us, .. } = self.config;
        let (start_us, mut last_us) = (self.start_us, self.last_us);
        let (counts, touched) = (&mut *self.counts, &mut *self.touched);
        let mut run = Run { taken: events.len(), lost: 0, saturated: 0 };
        for (k, event) in events.iter().enumerate() {
            if event.t_us.wrapping_sub(start_us) >= window_us {
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
        self.last_us = last_us;
        run
    }

    /// Closes windows until `t_us` lies in the open one. Says whether that was reached before
    /// the batch was full.
    fn close_until(&mut self, t_us: u64, out: &mut Frames) -> bool {
        while t_us >= self.end_us {
            if is_full(out) {
                return false;
            }
            self.close(out);
            self.first_of_grid = false;
            self.start_us = self.end_us;
            if self.empty_run > self.gap_windows {
                self.start_us +=
                    (t_us - self.start_us) / self.config.window_us * self.config.window_us;
            }
            self.end_us = self.start_us + self.config.window_us;
        }
        true
    }

    fn close(&mut self, out: &mut Frames) {
        self.empty_run = if self.events == 0 { self.empty_run + 1 } else { 0 };
        if self.empty_run > self.gap_windows {
            return;
        }
        let active = active_addresses(&mut self.touched, &mut self.active);
        out.take(active, &mut self.counts);
        out.close(Window {
            t_start_us: self.start_us,
            t_end_us: self.end_us,
            events: std::mem::take(&mut self.events),
            restart: std::mem::take(&mut self.restart),
            losses: std::mem::take(&mut self.losses),
        });
    }

    fn forget_open(&mut self) {
        for address in active_addresses(&mut self.touched, &mut self.active) {
            self.counts[*address as usize] = 0;
        }
        self.events = 0;
    }
}

/// Events that were counted, or could not be.
struct Run {
    taken: usize,
    lost: u64,
    saturated: u64,
}

/// Set bits of `touched`, ascending, which are cleared; `active` is as long as all of them and
/// [`SPILL`] more.
///
/// Most words hold few bits: [`SPILL`] places are written without asking how many, which a
/// processor runs through without a wrong guess.
fn active_addresses<'a>(touched: &mut [u64], active: &'a mut [u32]) -> &'a [u32] {
    let mut n = 0;
    for (k, word) in touched.iter_mut().enumerate() {
        let mut bits = std::mem::take(word);
        if bits == 0 {
            continue;
        }
        let found = bits.count_ones() as usize;
        let mut written = 0;
        while written < found {
            for place in &mut active[n + written..n + written + SPILL] {
                *place = (k * 64) as u32 + bits.trailing_zeros();
                bits &= bits.wrapping_sub(1);
            }
            written += SPILL;
        }
        n += found;
    }
    &active[..n]
}

/// Addresses written at a time.
const SPILL: usize = 4;

/// Number of windows that last `gap_us`, at least 1.
pub fn gap_windows(gap_us: u64, window_us: u64) -> u64 {
    gap_us.div_ceil(window_us).max(1)
}
