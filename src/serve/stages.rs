//! One stream's stages up to the ring, whatever its source: what was decoded becomes batches for
//! the engine; what there is no time for waits or is dropped, and silence completes windows.

use std::time::Instant;

use tokio::task::yield_now;
use tracing::{info, warn};

use super::client::Client;
use super::hub::Hub;
use super::idle::Idle;
use super::keeper::{Kept, Reply};
use super::limits::{Flow, Overflow};
use crate::codec::Need;
use crate::decide::{Activity, Silence};
use crate::engine::Feed;
use crate::error::{Error, Result, printable};
use crate::frame::Frames;
use crate::ingest::Ingest;
use crate::prediction::{Losses, Totals};
use crate::ring::StreamEnd;

/// Events after which it is said of an open stream that too many lie outside.
const SHOWN_BY: u64 = 10_000;

/// One stream.
pub struct Stages {
    /// Bytes to windows.
    pub ingest: Ingest,
    /// When it was heard.
    pub idle: Idle,
    /// What came and is not decoded yet: what came before it was many events.
    rest: Vec<u8>,
    frames: Frames,
    dropped: Frames,
    feed: Feed,
    kept: Option<Kept>,
    overflow: Overflow,
    silence: Silence,
    /// Where the stream stands after all windows, those that are dropped too.
    activity: Activity,
    /// So many of the frames are counted in.
    followed: usize,
    /// Arrival of what completed the first of the frames.
    since: Instant,
    name: String,
    peer: String,
    /// Windows that were handed on.
    windows: usize,
    /// That windows are dropped was said.
    drops: bool,
    /// So was that too many events lie outside.
    strays: bool,
    /// What was read besides events; the ingest forgets it with the last window.
    set_aside: u64,
}

impl Stages {
    /// A stream of `peer` that has not begun, or was restored.
    pub fn new(
        (name, peer): (&str, &str),
        ingest: Ingest,
        feed: Feed,
        kept: Option<Kept>,
        flow: Flow,
        silence: Silence,
    ) -> Self {
        info!(stream = name, peer, "stream opened");
        Stages {
            ingest,
            idle: Idle::new(flow.idle),
            rest: Vec::new(),
            frames: Frames::default(),
            dropped: Frames::default(),
            feed,
            kept,
            overflow: flow.overflow,
            silence,
            activity: Activity::default(),
            followed: 0,
            since: Instant::now(),
            name: name.to_owned(),
            peer: peer.to_owned(),
            windows: 0,
            drops: false,
            strays: false,
            set_aside: 0,
        }
    }

    /// Decodes bytes into the hub's memory, after all that was decoded before is cut. Some may wait
    /// for [`Stages::decode_rest`].
    ///
    /// # Errors
    /// As [`Ingest::decode`].
    pub fn decode(&mut self, hub: &Hub, mut bytes: &[u8]) -> Result<Need> {
        let begun = Instant::now();
        self.ingest.swap_memory(&mut hub.events.borrow_mut());
        let need = self.ingest.decode(&mut bytes);
        self.rest.extend_from_slice(bytes);
        hub.worked(begun);
        need
    }

    /// Whether bytes wait to be decoded.
    pub fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// As [`Stages::decode`] of the bytes that wait.
    ///
    /// # Errors
    /// As [`Ingest::decode`].
    pub fn decode_rest(&mut self, hub: &Hub) -> Result<Need> {
        let rest = std::mem::take(&mut self.rest);
        self.decode(hub, &rest)
    }

    /// Cuts what was decoded and hands it to the engine, a batch at a time. What there is no time
    /// for waits, or is dropped, as the overflow rule says. Where the engine has ticks, a batch that
    /// is not full waits for its turn.
    pub async fn pass_on(&mut self, hub: &Hub, client: &Client) {
        self.take_in(hub, client).await;
        if self.overflow == Overflow::Wait && !hub.has_ticks() {
            self.offer(hub, client).await;
        }
    }

    /// As [`Stages::pass_on`], but a batch that is not full may wait for [`Stages::offer`].
    pub async fn take_in(&mut self, hub: &Hub, client: &Client) {
        let mut more = true;
        while more {
            let begun = Instant::now();
            self.begin_batch(client.arrived.get());
            more = self.ingest.cut(&mut self.frames);
            hub.worked(begun);
            if more {
                // That is more than a tick should hold up.
                hub.hurry();
            }
            let at_once = more || !hub.has_ticks();
            if (at_once && self.feed.is_taken()) || (more && self.overflow == Overflow::Wait) {
                self.offer(hub, client).await;
            } else if more {
                hub.overrun();
                self.drop_some().await;
                more = self.overflow == Overflow::SkipToNewest;
            }
        }
        self.ingest.swap_memory(&mut hub.events.borrow_mut());
        self.idle.look(&self.ingest);
        let totals = self.ingest.totals();
        self.set_aside = self.ingest.tally().set_aside().map(|(n, _)| n).sum();
        self.feed.count(&totals);
        self.feed.count_set_aside(self.set_aside);
        if totals.events >= SHOWN_BY {
            self.warn_outside(&totals);
        }
    }

    /// Warns once where too many events lie outside the model's sensor.
    fn warn_outside(&mut self, totals: &Totals) {
        if !self.strays
            && let Some(what) = totals.much_outside()
        {
            self.strays = true;
            warn!(stream = self.name, peer = self.peer, "{what}");
        }
    }

    /// Lets the others come first.
    pub async fn give_way(&mut self, hub: &Hub, client: &Client) {
        if hub.or_tick(self.is_waiting(), yield_now()).await.is_none() {
            self.offer(hub, client).await;
        }
    }

    /// Whether windows wait for [`Stages::offer`].
    pub fn is_waiting(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Silence has completed windows.
    pub async fn pass_silence(&mut self, hub: &Hub, client: &Client) {
        let now = tokio::time::Instant::now();
        let t_us = self.idle.complete_us(&self.ingest, now);
        let mut all = false;
        while !all {
            self.begin_batch(now.into_std());
            all = self.ingest.pass_silence(t_us, &mut self.frames);
            if !all || !hub.has_ticks() {
                self.offer(hub, client).await;
            }
        }
    }

    /// What came then completes the next window; it is the first, or one already waits.
    fn begin_batch(&mut self, arrived: Instant) {
        if self.frames.is_empty() {
            self.since = arrived;
        }
    }

    /// Hands one batch on, once the one before it was taken and its answers have room.
    pub async fn offer(&mut self, hub: &Hub, client: &Client) {
        if self.frames.is_empty() {
            return;
        }
        self.taken(hub).await;
        client.room(hub).await;
        self.follow();
        self.followed = 0;
        self.windows += self.frames.len();
        client.handed_on.set(self.since);
        self.feed.offer(&mut self.frames);
        hub.ring();
    }

    async fn taken(&self, hub: &Hub) {
        while !self.feed.is_taken() {
            // Nothing is read meanwhile: that is for no tick to hold up.
            hub.hurry();
            hub.turned.notified().await;
        }
    }

    /// Has the state kept in which the stream is after all that was taken in, if it is one to be
    /// kept; `ended` where nothing follows.
    pub async fn keep(&mut self, hub: &Hub, client: &Client, ended: bool, replies: Vec<Reply>) {
        let stands_at = (self.ingest.totals().events, self.windows);
        let is_due = |kept: &Kept| ended || !replies.is_empty() || !kept.holds(stands_at);
        if !self.kept.as_ref().is_some_and(is_due) {
            return;
        }
        self.offer(hub, client).await;
        self.taken(hub).await;
        let stands_at = (self.ingest.totals().events, self.windows);
        if let Some(kept) = &mut self.kept {
            kept.note(stands_at);
            self.feed.save(kept.saver(self.ingest.save(), ended, replies));
            hub.ring();
        }
    }

    /// Cuts the last window off.
    pub async fn close(&mut self, hub: &Hub, client: &Client) {
        self.offer(hub, client).await;
        self.begin_batch(client.arrived.get());
        self.ingest.close(&mut self.frames);
        self.offer(hub, client).await;
    }

    /// Ends the stream in the engine; says whether a summary comes.
    pub async fn end(mut self, hub: &Hub, error: Option<&Error>) -> bool {
        self.taken(hub).await;
        let totals = self.ingest.totals();
        self.warn_outside(&totals);
        let Losses { late, outside, overflow, malformed } = totals.losses;
        info!(
            stream = self.name,
            peer = self.peer,
            format = self.ingest.format_name(),
            windows = self.windows,
            events = totals.events,
            late,
            outside,
            overflow,
            malformed,
            restarts = totals.restarts,
            set_aside = self.set_aside,
            error = error.map(|error| tracing::field::display(printable(&error.to_string()))),
            "stream ended"
        );
        let end = StreamEnd::new(&self.name, totals, error);
        let ended = self.feed.end(end).is_ok();
        hub.ring();
        hub.hurry();
        ended
    }

    /// Where windows may be dropped, follows those that are not.
    fn follow(&mut self) {
        if self.overflow != Overflow::Wait {
            let kept = &self.frames.windows()[self.followed..];
            self.activity.follow(&self.silence, kept);
            self.followed = self.frames.len();
        }
    }

    /// Drops the batch that waits, for newer windows, or what was decoded and is not cut yet. Others
    /// have their turn after each batch: a few events may be many windows apart.
    async fn drop_some(&mut self) {
        if !std::mem::replace(&mut self.drops, true) {
            info!(stream = self.name, peer = self.peer, "windows come too fast: some are dropped");
        }
        if self.overflow == Overflow::SkipToNewest {
            let dropped = self.activity.follow(&self.silence, self.frames.windows());
            self.ingest.drop_windows(&self.frames, dropped);
            self.frames.clear();
            yield_now().await;
            return;
        }
        self.follow();
        let mut more = true;
        while more {
            self.dropped.clear();
            more = self.ingest.cut(&mut self.dropped);
            let dropped = self.activity.follow(&self.silence, self.dropped.windows());
            self.ingest.drop_windows(&self.dropped, dropped);
            yield_now().await;
        }
    }
}
