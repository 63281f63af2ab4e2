//! The engine: one thread that gathers the frames of all streams and steps them in batches.
//!
//! `replay` and `serve` drive this same engine. It is handed whole batches over lock-free rings;
//! channels carry only opening, ringing and making room. Knows neither files nor sockets, and
//! what comes out goes to an [`Outlet`].

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};

use crate::error::Result;
use crate::frame::{Frames, SlotFrames};
use crate::prediction::{Record, Records, Stream, Totals};
use crate::ring::{FrameReceiver, FrameSender, Item, Saver, StreamEnd, ring};
use crate::session::{Rules, Session, SlotState};
use crate::telemetry::{EngineMeters, StreamMeters, WindowMeters};

/// Where the engine's records go.
pub trait Outlet {
    /// One record of a stream; the logits are empty but for predictions. `ending` marks what
    /// the end of the stream tells: no prediction follows.
    fn record(&mut self, stream: &Stream, record: &Record, logits: &[f32], ending: bool);

    /// A batch is complete. `Break` stops the engine: nobody reads any more.
    fn flush(&mut self) -> ControlFlow<()>;
}

/// Where a stream that was saved goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Resumed {
    /// Its slot.
    pub slot: SlotState,
    /// What ingest had counted.
    pub counted: Totals,
}

/// What a stream may have of its own when it begins.
#[derive(Clone, Debug, Default)]
pub struct Begin {
    /// Its rules, where they are not the session's.
    pub rules: Option<Rules>,
    /// Where it goes on.
    pub resumed: Option<Box<Resumed>>,
}

/// What a turn of the engine came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Something was stepped or ended, and more is there.
    More,
    /// All that was there is done.
    Idle,
    /// All ports and streams are gone, or the outlet broke.
    Over,
}

/// The engine is gone; whoever feeds it should stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineGone;

/// Opens streams; cloned by every thread that does.
#[derive(Clone)]
pub struct Port {
    streams: Sender<Opened>,
    bell: Sender<()>,
    next_id: Arc<AtomicU64>,
}

/// Feeds one stream. Dropped without [`Feed::end`], the stream ends with an error.
pub struct Feed {
    id: u64,
    frames: FrameSender,
    room: Receiver<()>,
    meters: StreamMeters,
    /// Dropped after the ring's end, so that the engine sees the loss which it tells of.
    bell: Bell,
}

/// Wakes the engine, and once more when it is dropped.
struct Bell(Sender<()>);

impl Bell {
    fn ring(&self) {
        // A full bell rings already.
        let _ = self.0.try_send(());
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.ring();
    }
}

struct Opened {
    stream: Stream,
    frames: FrameReceiver,
    room: Sender<()>,
    meters: WindowMeters,
    begin: Begin,
}

impl Port {
    /// Opens a stream, which is metered in the series of its name; it gets a slot as soon as one
    /// is free.
    ///
    /// # Errors
    /// When the engine is gone.
    pub fn open(&self, name: &str) -> std::result::Result<Feed, EngineGone> {
        self.open_in(name, name, Begin::default())
    }

    /// Opens a stream whose meters are in the series of another name, or one that begins with
    /// something of its own. The engine fails where its session cannot restore what was saved.
    ///
    /// # Errors
    /// When the engine is gone.
    pub fn open_in(
        &self,
        name: &str,
        series: &str,
        begin: Begin,
    ) -> std::result::Result<Feed, EngineGone> {
        let (sender, receiver) = ring();
        let (room_in, room) = bounded(1);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let stream = Stream { id, name: name.to_owned() };
        let counted = begin.resumed.as_ref().map(|resumed| resumed.counted).unwrap_or_default();
        let meters = StreamMeters::new(series, counted);
        let windows = WindowMeters::new(series);
        let opened = Opened { stream, frames: receiver, room: room_in, meters: windows, begin };
        self.streams.send(opened).map_err(|_| EngineGone)?;
        Ok(Feed { id, frames: sender, room, meters, bell: Bell(self.bell.clone()) })
    }
}

impl Feed {
    /// The stream's [`Stream::id`].
    pub fn id(&self) -> u64 {
        self.id
    }

    /// So much was counted of the stream by now, be it told by a window or not.
    pub fn count(&mut self, totals: &Totals) {
        self.meters.raise_to(totals);
    }

    /// So much was read of the stream by now besides events.
    pub fn count_set_aside(&mut self, n: u64) {
        self.meters.raise_set_aside_to(n);
    }

    /// Hands a batch on and leaves an empty one in its place, if the ring has room; says whether.
    pub fn offer(&mut self, frames: &mut Frames) -> bool {
        match self.frames.try_send(Item::Frames(std::mem::take(frames))) {
            Ok(()) => {
                *frames = self.frames.empty();
                self.bell.ring();
                true
            }
            Err(Item::Frames(back)) => {
                *frames = back;
                false
            }
            Err(Item::Save(_) | Item::End(_)) => false,
        }
    }

    /// Has the state of the stream's slot taken after all that was handed on, if the ring has
    /// room; says whether.
    pub fn save(&mut self, take: impl FnOnce(SlotState) + Send + 'static) -> bool {
        let asked = self.frames.try_send(Item::Save(Saver(Box::new(take)))).is_ok();
        self.bell.ring();
        asked
    }

    /// Whether the engine has taken all that was handed on.
    pub fn is_taken(&self) -> bool {
        self.frames.is_empty()
    }

    /// Hands a batch on and leaves an empty one in its place; waits while the ring is full.
    ///
    /// # Errors
    /// When the engine is gone.
    pub fn send(&mut self, frames: &mut Frames) -> std::result::Result<(), EngineGone> {
        let full = std::mem::replace(frames, self.frames.empty());
        self.put(Item::Frames(full))
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// When the engine is gone.
    pub fn end(mut self, end: StreamEnd) -> std::result::Result<(), EngineGone> {
        self.count(&end.totals);
        self.put(Item::End(end))
    }

    fn put(&mut self, mut item: Item) -> std::result::Result<(), EngineGone> {
        loop {
            match self.frames.try_send(item) {
                Ok(()) => {
                    self.bell.ring();
                    return Ok(());
                }
                Err(back) => item = back,
            }
            self.room.recv().map_err(|_| EngineGone)?;
        }
    }
}

/// Steps all open streams until every [`Port`] and every stream is gone.
pub struct Engine {
    session: Session,
    slots: Vec<Option<Opened>>,
    /// Slots that are taken, ascending.
    taken: Vec<usize>,
    waiting: VecDeque<Opened>,
    streams: Receiver<Opened>,
    /// No port is left.
    closed: bool,
    bell: Receiver<()>,
    brought: Vec<SlotFrames>,
    /// By slots, ascending.
    ended: Vec<(usize, StreamEnd)>,
    records: Records,
    meters: EngineMeters,
}

impl Engine {
    /// An engine over the slots of `session`, and the port that opens its streams.
    pub fn new(session: Session, window_us: u64) -> (Engine, Port) {
        let (streams_in, streams) = unbounded();
        let (bell_in, bell) = bounded(1);
        let n_slots = session.n_slots();
        let next_id = Arc::new(AtomicU64::new(1));
        let engine = Engine {
            slots: std::iter::repeat_with(|| None).take(n_slots).collect(),
            session,
            taken: Vec::with_capacity(n_slots),
            waiting: VecDeque::new(),
            streams,
            closed: false,
            bell,
            brought: Vec::with_capacity(n_slots),
            ended: Vec::with_capacity(n_slots),
            records: Records::default(),
            meters: EngineMeters::new(n_slots, window_us),
        };
        (engine, Port { streams: streams_in, bell: bell_in, next_id })
    }

    /// Runs until all ports and streams are gone, or the outlet breaks.
    ///
    /// # Errors
    /// When a step fails.
    pub fn run(&mut self, outlet: &mut dyn Outlet) -> Result<()> {
        loop {
            match self.turn(outlet)? {
                Turn::More => (),
                Turn::Idle => self.wait(),
                Turn::Over => return Ok(()),
            }
        }
    }

    /// Steps what the streams have brought by now, and never waits.
    ///
    /// # Errors
    /// When a step fails.
    pub fn turn(&mut self, outlet: &mut dyn Outlet) -> Result<Turn> {
        self.admit()?;
        if self.closed && self.waiting.is_empty() && self.taken.is_empty() {
            return Ok(Turn::Over);
        }
        let mut more = self.gather()?;
        // A slot that becomes free may be waited for.
        more |= !self.ended.is_empty();
        if !self.brought.is_empty() || !self.ended.is_empty() {
            self.step()?;
            if self.deliver(outlet).is_break() {
                return Ok(Turn::Over);
            }
        }
        Ok(if more { Turn::More } else { Turn::Idle })
    }

    /// Time has passed, whether or not there was something to step.
    pub fn pass(&mut self) {
        self.meters.pass(Instant::now());
    }

    /// The session, after a run.
    pub fn into_session(self) -> Session {
        self.session
    }

    /// Gives waiting streams the free slots.
    fn admit(&mut self) -> Result<()> {
        loop {
            match self.streams.try_recv() {
                Ok(opened) => self.waiting.push_back(opened),
                Err(error) => {
                    self.closed = error.is_disconnected();
                    break;
                }
            }
        }
        if self.waiting.is_empty() {
            return Ok(());
        }
        for (k, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.is_none()) {
            let Some(mut opened) = self.waiting.pop_front() else { break };
            let Begin { rules, resumed } = std::mem::take(&mut opened.begin);
            if let Some(rules) = rules {
                self.session.open(k, rules);
            }
            if let Some(resumed) = resumed {
                self.session.restore(k, &resumed.slot)?;
            }
            *slot = Some(opened);
        }
        self.count_taken();
        Ok(())
    }

    fn count_taken(&mut self) {
        self.taken.clear();
        let slots = self.slots.iter().enumerate();
        self.taken.extend(slots.filter(|(_, slot)| slot.is_some()).map(|(k, _)| k));
        self.meters.streams(self.taken.len());
    }

    /// Takes one batch, or the end, of each stream that has something; says whether one has more,
    /// be it that its feed is lost.
    fn gather(&mut self) -> Result<bool> {
        let mut more = false;
        for &slot in &self.taken {
            let Some(Opened { frames, room, meters, .. }) = &mut self.slots[slot] else { continue };
            match frames.try_recv() {
                Some(Item::Frames(batch)) => {
                    meters.windows(batch.len());
                    meters.ring(batch.len());
                    self.brought.push(SlotFrames { slot, frames: batch });
                }
                // What came before it was stepped in an earlier turn.
                Some(Item::Save(Saver(take))) => take(self.session.save(slot)?),
                Some(Item::End(end)) => {
                    meters.ring(0);
                    self.ended.push((slot, end));
                }
                None if frames.is_abandoned() => {
                    let error = Some((vec!["the reading thread has failed".to_owned()], None));
                    self.ended.push((slot, StreamEnd { error, ..StreamEnd::default() }));
                }
                None => continue,
            }
            more |= !frames.is_empty() || frames.is_abandoned();
            // A token that is there already says the same.
            let _ = room.try_send(());
        }
        Ok(more)
    }

    fn step(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.session.step(&self.brought, &mut self.records)?;
        let brought = self.brought.iter().map(|b| (b.slot, b.frames.len()));
        self.meters.stepped(begun, Instant::now(), brought);
        for SlotFrames { slot, frames } in self.brought.drain(..) {
            if let Some(stream) = &mut self.slots[slot] {
                stream.frames.recycle(frames);
            }
        }
        for (slot, end) in &self.ended {
            let error = end.error.clone();
            let error = error.map(|(causes, offset)| Record::Error { causes, offset });
            self.session.finish(*slot, end.totals, error, &mut self.records);
        }
        Ok(())
    }

    fn deliver(&mut self, outlet: &mut dyn Outlet) -> ControlFlow<()> {
        for (slot, record, logits) in self.records.iter(self.session.n_classes()) {
            if let Some(stream) = &self.slots[slot] {
                let ending = self.ended.binary_search_by_key(&slot, |(ended, _)| *ended).is_ok();
                outlet.record(&stream.stream, record, logits, ending);
            }
        }
        self.records.clear();
        if !self.ended.is_empty() {
            self.ended.drain(..).for_each(|(slot, _)| self.slots[slot] = None);
            self.count_taken();
        }
        outlet.flush()
    }

    fn wait(&mut self) {
        if !self.closed {
            select! {
                recv(self.bell) -> _ => (),
                recv(self.streams) -> opened => self.waiting.extend(opened),
            }
        } else {
            let _ = self.bell.recv();
        }
    }
}
