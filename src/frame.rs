//! Frames: windows of events as sorted sparse counts, many in one reusable batch.
//!
//! Knows events and losses; knows neither how windows are cut nor who steps them.

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
    /// What was lost since the last window.
    pub losses: Losses,
}

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
        self.addresses.len()
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

    /// Adds an entry to the window that the next [`Frames::close`] completes. Addresses ascend.
    pub fn add(&mut self, address: u32, count: u16) {
        self.addresses.push(address);
        self.counts.push(count);
    }

    /// Adds all entries of that window: `addresses`, ascending, and their counts, taken out of
    /// `counts` (which are then 0).
    pub fn take(&mut self, addresses: &[u32], counts: &mut [u16]) {
        self.addresses.extend_from_slice(addresses);
        let count = |address: &u32| std::mem::take(&mut counts[*address as usize]);
        self.counts.extend(addresses.iter().map(count));
    }

    /// Completes a window with the entries added since the last one.
    pub fn close(&mut self, window: Window) {
        self.ends.push(self.addresses.len() as u32);
        self.windows.push(window);
    }

    /// Appends window `k` of another batch.
    pub fn copy_from(&mut self, other: &Frames, k: usize) {
        let (addresses, counts) = other.active(k);
        self.addresses.extend_from_slice(addresses);
        self.counts.extend_from_slice(counts);
        self.close(other.windows[k]);
    }

    /// Forgets all windows, keeps the memory.
    pub fn clear(&mut self) {
        self.windows.clear();
        self.ends.clear();
        self.addresses.clear();
        self.counts.clear();
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
