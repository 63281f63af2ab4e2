//! Who listens to the records of many streams: a bounded outbox each, the newest kept.
//!
//! Nobody waits for a subscriber, so one that reads may be far behind, and one that does not may not.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::outbox::Outbox;

/// Bytes that may wait for a subscriber that reads: clients that send as fast as they can bring a
/// batch of each stream, and then again, before its task and the reader itself have run.
const BEHIND_BYTES: usize = 16 << 20;

/// All subscriptions.
#[derive(Default)]
pub struct Subscribers {
    all: RefCell<Vec<Rc<Subscriber>>>,
    /// When one of them last took lines, or left.
    taken_at: Cell<Option<Instant>>,
}

struct Subscriber {
    /// The only stream that is wanted.
    stream: Option<String>,
    outbox: RefCell<Outbox>,
    waker: RefCell<Waker>,
    /// Since when it has taken nothing of what waits.
    waits_since: Cell<Instant>,
    ended: Cell<bool>,
}

/// One subscription; it ends when this is dropped.
pub struct Subscription {
    subscribers: Rc<Subscribers>,
    own: Rc<Subscriber>,
}

impl Subscribers {
    /// Subscribes to one stream, or to all.
    pub fn subscribe(self: &Rc<Self>, stream: Option<String>, outbox_bytes: usize) -> Subscription {
        let shown = stream.clone().unwrap_or_default();
        let own = Rc::new(Subscriber {
            stream,
            outbox: RefCell::new(Outbox::new(outbox_bytes, &shown)),
            waker: RefCell::new(Waker::noop().clone()),
            waits_since: Cell::new(Instant::now()),
            ended: Cell::new(false),
        });
        self.all.borrow_mut().push(own.clone());
        Subscription { subscribers: self.clone(), own }
    }

    /// Number of those who listen.
    pub fn len(&self) -> usize {
        self.all.borrow().len()
    }

    /// Whether nobody listens.
    pub fn is_empty(&self) -> bool {
        self.all.borrow().is_empty()
    }

    /// A line of a stream.
    pub fn line(&self, stream: &str, line: &[u8]) {
        for subscriber in self.all.borrow().iter() {
            if subscriber.stream.as_deref().is_none_or(|wanted| wanted == stream) {
                let mut outbox = subscriber.outbox.borrow_mut();
                if outbox.is_empty() {
                    subscriber.waits_since.set(Instant::now());
                }
                outbox.lines().extend_from_slice(line);
            }
        }
    }

    /// A batch of lines is complete. Gives the number of lines that were dropped, for which there was
    /// no room: little where none were taken for as long as `patience`.
    pub fn flush(&self, patience: Duration) -> u64 {
        let mut missed = 0;
        for subscriber in self.all.borrow().iter() {
            let mut outbox = subscriber.outbox.borrow_mut();
            let limit = outbox.limit();
            let reads = subscriber.waits_since.get().elapsed() < patience;
            missed += outbox.trim_to(if reads { limit.max(BEHIND_BYTES) } else { limit });
            if !outbox.is_empty() {
                subscriber.waker.borrow().wake_by_ref();
            }
        }
        missed
    }

    /// When one of them last took lines, or left.
    pub fn taken_at(&self) -> Option<Instant> {
        self.taken_at.get()
    }

    /// No more lines come.
    pub fn end(&self) {
        for subscriber in self.all.borrow().iter() {
            subscriber.ended.set(true);
            subscriber.waker.borrow().wake_by_ref();
        }
    }
}

impl Subscription {
    /// The lines that wait; `None` at the end.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        let mut outbox = self.own.outbox.borrow_mut();
        if outbox.is_empty() {
            self.own.waker.borrow_mut().clone_from(cx.waker());
            return if self.own.ended.get() { Poll::Ready(None) } else { Poll::Pending };
        }
        let lines = outbox.take();
        self.subscribers.taken_at.set(Some(Instant::now()));
        Poll::Ready(Some(lines))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.subscribers.all.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.own));
        self.subscribers.taken_at.set(Some(Instant::now()));
    }
}
