//! The ring between ingest and engine: batches of frames go one way, empty ones come back, so
//! that a running stream allocates nothing. Lock-free, one producer, one consumer.
//!
//! Knows frames and ends of streams; neither threads nor who waits for whom.

use ringbuf::traits::{Consumer, Observer, Producer, Split};
use ringbuf::{HeapCons, HeapProd, HeapRb};

use crate::error::{Error, causes, grouped};
use crate::frame::Frames;
use crate::prediction::Totals;
use crate::session::SlotState;

/// Batches that a ring holds; each is bounded by [`crate::window::Windower::is_full`].
pub const CAPACITY: usize = 8;

/// What travels through the ring.
#[derive(Debug)]
pub enum Item {
    /// Windows, in time.
    Frames(Frames),
    /// Whoever asks is told how the stream stands after the windows before.
    Save(Saver),
    /// The stream has ended; nothing follows.
    End(StreamEnd),
}

/// Takes the state of a stream's slot.
pub struct Saver(pub Box<dyn FnOnce(SlotState) + Send>);

impl std::fmt::Debug for Saver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Saver")
    }
}

/// How a stream ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamEnd {
    /// What was counted over the whole stream.
    pub totals: Totals,
    /// Why it ended early: the stream and each cause, and the byte offset where it is known.
    pub error: Option<(Vec<String>, Option<u64>)>,
}

impl StreamEnd {
    /// The end of `stream`, which an error may have brought about.
    pub fn new(stream: &str, totals: Totals, error: Option<&Error>) -> Self {
        let used = match totals.events {
            0 => String::new(),
            1 => "; 1 event before it was used".to_owned(),
            n => format!("; {} events before it were used", grouped(n)),
        };
        let told = |error: &Error| {
            let mut told = vec![stream.to_owned()];
            told.extend(causes(error));
            if let Some(last) = told.last_mut() {
                last.push_str(&used);
            }
            (told, error.offset())
        };
        StreamEnd { totals, error: error.map(told) }
    }
}

/// The end that ingest holds.
pub struct FrameSender {
    items: HeapProd<Item>,
    empties: HeapCons<Frames>,
}

/// The end that the engine holds.
pub struct FrameReceiver {
    items: HeapCons<Item>,
    empties: HeapProd<Frames>,
}

/// A ring for one stream.
pub fn ring() -> (FrameSender, FrameReceiver) {
    let (items_in, items_out) = HeapRb::new(CAPACITY).split();
    let (empties_in, empties_out) = HeapRb::new(CAPACITY + 2).split();
    (
        FrameSender { items: items_in, empties: empties_out },
        FrameReceiver { items: items_out, empties: empties_in },
    )
}

impl FrameSender {
    /// Passes an item on, or gives it back where the ring is full.
    ///
    /// # Errors
    /// The item, when there is no room.
    #[allow(clippy::result_large_err)]
    pub fn try_send(&mut self, item: Item) -> Result<(), Item> {
        self.items.try_push(item)
    }

    /// Whether the receiver has taken all items.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// An empty batch: one that came back, else a new one.
    pub fn empty(&mut self) -> Frames {
        self.empties.try_pop().unwrap_or_default()
    }
}

impl FrameReceiver {
    /// The next item, if there is one.
    pub fn try_recv(&mut self) -> Option<Item> {
        self.items.try_pop()
    }

    /// Whether all that was sent is received.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Hands a used batch back for reuse.
    pub fn recycle(&mut self, mut frames: Frames) {
        frames.clear();
        // A full ring of empties means that this batch is one too many: it is dropped.
        let _ = self.empties.try_push(frames);
    }

    /// Whether the sender is gone and nothing is left, although no end was sent.
    pub fn is_abandoned(&self) -> bool {
        !self.items.write_is_held() && self.items.is_empty()
    }
}
