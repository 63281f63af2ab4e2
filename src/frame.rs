//! Frames: windows of events as sorted sparse counts, many in one reusable batch.
//!
//! Knows events and losses; knows neither how windows are cut nor who steps them.

use serde::{Deserialize, Serialize};

use crate::prediction::Losses;

/// One window of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Window {
    /// Start of the window, sensor time in µs.
    pub t_start_us: u64,
    /// Nominal end of the window (exclusive), also where the recording ends before it.
    pub t_end_us: u64,
    /// Events that the window holds (inside the sensor), before saturation of counts.
    pub events: u32,
    /// The window opens a new grid, because the clock of the stream jumped or a pass begins.
    pub restart: bool,
    /// What is to be known of windows that were dropped before it.
    pub dropped: Option<Dropped>,
    /// What was lost since the last window.
    pub losses: Losses,
}

/// What windows that were dropped have of silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropped {
    /// A silence became long enough in them to end a segment.
    pub silence: bool,
    /// So many quiet windows in a row come last, with those before them that were not dropped.
    pub quiet_run: u64,
}

/// Addresses written at a time.
const SPILL: usize = 4;

/// A batch of windows of one stream in compressed sparse rows: for each window its active
/// addresses, ascending, with their counts.
///
/// Buffers are kept by [`Frames::clear`], so a batch that travels round a ring allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Frames {
    windows: Vec<Window>,
    /// End of each window's entries in the two lists below.
    ends: Vec<u32>,
    addresses: Vec<u32>,
    counts: Vec<u16>,
    /// Entries of all windows.
    entries: usize,
    /// One more than the greatest address.
    addresses_end: u32,
}

impl Frames {
    /// Number of windows.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether there is no window.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Number of (address, count) entries of all windows.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// The windows, in time.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Active addresses of window `k`, ascending, and their counts (at least 1).
    #[inline]
    pub fn active(&self, k: usize) -> (&[u32], &[u16]) {
        let start = if k == 0 { 0 } else { self.ends[k - 1] as usize };
        let end = self.ends[k] as usize;
        (&self.addresses[start..end], &self.counts[start..end])
    }

    /// Active addresses of all windows, one window after another.
    pub fn addresses(&self) -> &[u32] {
        &self.addresses
    }

    /// One more than the greatest address of all windows, 0 where there is none; looks into no list.
    pub fn addresses_end(&self) -> u32 {
        self.addresses_end
    }

    /// Adds an entry to the window that the next [`Frames::close`] completes. Addresses ascend.
    pub fn add(&mut self, address: u32, count: u16) {
        self.addresses.push(address);
        self.counts.push(count);
        self.reach(self.addresses.len() - 1);
    }

    /// Adds all entries of that window, `at_most` so many: the addresses whose bits are set in
    /// `touched`, and their `counts`. Both are then 0.
    ///
    /// Most words hold few bits: four places are written without asking how many, which a
    /// processor runs through without a wrong guess.
    pub fn take(&mut self, touched: &mut [u64], counts: &mut [u16], at_most: usize) {
        let begun = self.addresses.len();
        self.addresses.resize(begun + at_most.min(counts.len()) + SPILL, 0);
        let mut end = begun;
        for (k, word) in touched.iter_mut().enumerate() {
            let mut bits = std::mem::take(word);
            if bits == 0 {
                continue;
            }
            let found = bits.count_ones() as usize;
            let places = self.addresses[end..].as_chunks_mut::<SPILL>().0;
            for four in &mut places[..found.div_ceil(SPILL)] {
                for place in four {
                    *place = (k * 64) as u32 + bits.trailing_zeros();
                    bits &= bits.wrapping_sub(1);
                }
            }
            end += found;
        }
        self.addresses.truncate(end);
        self.reach(begun);
        let count = |address: &u32| std::mem::take(&mut counts[*address as usize]);
        self.counts.extend(self.addresses[begun..].iter().map(count));
    }

    /// Completes a window with the entries added since the last one.
    pub fn close(&mut self, window: Window) {
        self.entries = self.addresses.len();
        self.ends.push(self.entries as u32);
        self.windows.push(window);
    }

    /// Appends window `k` of another batch.
    pub fn copy_from(&mut self, other: &Frames, k: usize) {
        let (addresses, counts) = other.active(k);
        self.addresses.extend_from_slice(addresses);
        self.counts.extend_from_slice(counts);
        self.reach(self.addresses.len() - addresses.len());
        self.close(other.windows[k]);
    }

    /// Forgets all windows, keeps the memory.
    pub fn clear(&mut self) {
        self.windows.clear();
        self.ends.clear();
        self.addresses.clear();
        self.counts.clear();
        (self.entries, self.addresses_end) = (0, 0);
    }

    /// Takes note of a window's addresses, from the entry `begun` on; they ascend.
    fn reach(&mut self, begun: usize) {
        if let Some(greatest) = self.addresses[begun..].last() {
            self.addresses_end = self.addresses_end.max(greatest.saturating_add(1));
        }
    }
}

/// The windows that one slot (one stream's row in the state) brings to a step; may be none.
#[derive(Debug, Default)]
pub struct SlotFrames {
    /// Row of the stream in the state.
    pub slot: usize,
    /// Its windows, oldest first.
    pub frames: Frames,
}
