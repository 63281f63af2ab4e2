//! What the server knows of one connection while its task waits: what is to be written, when it
//! was last heard, why it should end.
//!
//! The engine writes answers itself, so that a reply costs one system call and no switch; only
//! what the socket does not take waits for the connection's task.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};

use super::hub::Hub;
use super::keeper::Reply;
use super::limits::Limits;
use super::outbox::Outbox;
use super::sockets::{SILENT_S, Written};

/// The half of a connection that is read.
pub type Reader = Box<dyn AsyncRead + Unpin>;
/// The half of a connection that is written.
pub type Writer = Box<dyn Written + Unpin>;

/// Why a connection is called from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The server ends.
    Stop,
    /// Its time for what it is at is over.
    Late,
}

/// What a connection is at; each has its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Saying what it will send, to the end of the recording's header.
    Opening,
    /// Sending events.
    Streaming,
    /// Reading its last answers.
    Leaving,
}

/// One connection.
pub struct Client {
    writer: RefCell<Writer>,
    /// Lines to be written.
    pub outbox: RefCell<Outbox>,
    waker: RefCell<Waker>,
    call: Cell<Option<Call>>,
    stage: Cell<Stage>,
    /// When it last did what its stage is for.
    moved: Cell<Instant>,
    /// Arrival of the last bytes.
    pub arrived: Cell<Instant>,
    /// Arrival of what completed the first window of the batch that was handed on last.
    pub handed_on: Cell<Instant>,
    /// It has been silent for so long that it may be gone.
    is_silent: Cell<bool>,
    /// Since when it has been held back and has taken nothing.
    held_since: Cell<Option<Instant>>,
    /// It was held back long enough: until it reads it misses what there is no room for.
    lags: Cell<bool>,
    /// What the kernel held for it when that was last looked at.
    unread: Cell<u32>,
    /// Nothing can be written to it any more.
    pub broken: Cell<bool>,
    /// Its stream's state is kept.
    pub kept: Cell<bool>,
    /// Its state is asked for, by these.
    asked: RefCell<Option<Vec<Reply>>>,
    /// Its summary is in the outbox.
    pub ended: Cell<bool>,
}

impl Client {
    /// A connection that has just been accepted.
    pub fn new(writer: Writer, peer: &str, outbox_bytes: usize) -> Self {
        let now = Instant::now();
        Client {
            writer: RefCell::new(writer),
            outbox: RefCell::new(Outbox::new(outbox_bytes, peer)),
            waker: RefCell::new(Waker::noop().clone()),
            call: Cell::new(None),
            stage: Cell::new(Stage::Opening),
            moved: Cell::new(now),
            arrived: Cell::new(now),
            handed_on: Cell::new(now),
            is_silent: Cell::new(false),
            held_since: Cell::new(None),
            lags: Cell::new(false),
            unread: Cell::new(0),
            broken: Cell::new(false),
            kept: Cell::new(false),
            asked: RefCell::default(),
            ended: Cell::new(false),
        }
    }

    /// A new stage begins, with its time.
    pub fn enter(&self, stage: Stage) {
        self.stage.set(stage);
        self.moved.set(Instant::now());
        // What it was late for is done.
        self.call.set(self.call.get().filter(|call| *call != Call::Late));
    }

    /// What it is at.
    pub fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Whether it has ended, or will when all it sent is read.
    pub fn is_ending(&self) -> bool {
        let left = self.stage.get() == Stage::Leaving || self.broken.get();
        left || self.writer.borrow().is_hung_up()
    }

    /// Wakes the connection's task.
    pub fn wake(&self) {
        self.waker.borrow().wake_by_ref();
    }

    /// Calls the connection.
    pub fn call(&self, call: Call) {
        self.call.set(Some(call));
        self.wake();
    }

    /// What it was called for.
    pub fn take_call(&self) -> Option<Call> {
        self.call.take()
    }

    /// Asks for the stream's state to be kept, if it is one that is; says so.
    pub fn ask(&self, reply: Option<&Reply>) -> bool {
        if self.kept.get() {
            self.asked.borrow_mut().get_or_insert_default().extend(reply.cloned());
            self.wake();
        }
        self.kept.get()
    }

    /// Who asked for the state; nobody does any more.
    pub fn take_asked(&self) -> Option<Vec<Reply>> {
        self.asked.take()
    }

    /// Whether no more is taken in until what waits is read.
    pub fn is_held(&self) -> bool {
        self.held_since.get().is_some() && !self.lags.get()
    }

    /// Writes what the socket takes; the rest is left to the connection's task. Gives the number
    /// of lines for which there was no room: none before the client was waited for.
    pub fn write(&self) -> u64 {
        if self.broken.get() {
            let mut outbox = self.outbox.borrow_mut();
            let n = outbox.waiting().len();
            outbox.wrote(n);
        } else if self.poll_write(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.wake();
        }
        if self.lags.get() { self.outbox.borrow_mut().trim() } else { 0 }
    }

    /// Writes what waits; pending while the socket takes no more.
    pub fn poll_write(&self, cx: &mut Context<'_>) -> Poll<()> {
        let (mut writer, mut outbox) = (self.writer.borrow_mut(), self.outbox.borrow_mut());
        let mut taken = Poll::Ready(());
        while !outbox.is_empty() {
            match Pin::new(&mut *writer).poll_write(cx, outbox.waiting()) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    outbox.wrote(n);
                    self.took();
                }
                Poll::Ready(_) => {
                    self.broken.set(true);
                    let n = outbox.waiting().len();
                    outbox.wrote(n);
                }
                Poll::Pending => {
                    taken = Poll::Pending;
                    break;
                }
            }
        }
        if outbox.is_filling() {
            self.held_since.set(self.held_since.get().or_else(|| Some(Instant::now())));
        } else {
            self.held_since.set(None);
        }
        taken
    }

    /// It has read something.
    fn took(&self) {
        self.held_since.set(None);
        self.lags.set(false);
        if self.stage.get() == Stage::Leaving {
            self.moved.set(Instant::now());
        }
    }

    /// Waits while it is held.
    pub async fn room(&self, hub: &Hub) {
        if !self.is_held() {
            return;
        }
        poll_fn(|cx| {
            self.remember(cx);
            let _ = self.poll_write(cx);
            if self.is_held() && hub.is_stopping() {
                // There is no time left to wait for it.
                self.lags.set(true);
            }
            if self.is_held() && !self.broken.get() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Waits until the summary is in the outbox.
    pub async fn summary(&self) {
        poll_fn(|cx| {
            self.remember(cx);
            let _ = self.poll_write(cx);
            if self.ended.get() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Shuts the written half.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.writer.borrow_mut()).poll_shutdown(cx)
    }

    /// Bytes, a call, or the end; writes meanwhile. Takes nothing in while it is held.
    pub fn poll_input(
        &self,
        cx: &mut Context<'_>,
        reader: &mut Reader,
        buffer: &mut [u8],
    ) -> Poll<Input> {
        self.remember(cx);
        if let Some(call) = self.call.take() {
            return Poll::Ready(Input::Call(call));
        }
        if let Some(replies) = self.take_asked() {
            return Poll::Ready(Input::Asked(replies));
        }
        let _ = self.poll_write(cx);
        if self.broken.get() {
            return Poll::Ready(Input::Lost(io::ErrorKind::BrokenPipe.into()));
        }
        if self.is_held() {
            return Poll::Pending;
        }
        let mut read = tokio::io::ReadBuf::new(buffer);
        match Pin::new(reader).poll_read(cx, &mut read) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Input::Lost(error)),
            Poll::Ready(Ok(())) => {
                let n = read.filled().len();
                let now = Instant::now();
                self.arrived.set(now);
                if self.stage.get() == Stage::Streaming {
                    self.moved.set(now);
                }
                Poll::Ready(if n == 0 { Input::End } else { Input::Bytes(n) })
            }
        }
    }

    /// Whom to wake.
    pub fn remember(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.will_wake(cx.waker()) {
            waker.clone_from(cx.waker());
        }
    }

    /// Time has passed.
    pub fn tick(&self, now: Instant, limits: &Limits) {
        let since = |then: Instant| now.saturating_duration_since(then);
        let is_silent = since(self.arrived.get()) >= Duration::from_secs(SILENT_S.into());
        if self.is_silent.replace(is_silent) != is_silent {
            self.writer.borrow().give_up(is_silent);
        }
        // Of what is read little by little the kernel takes more only once that is much.
        if !self.outbox.borrow().is_empty() {
            let unread = self.writer.borrow().unread();
            if unread < self.unread.replace(unread) {
                let held = self.held_since.get();
                self.took();
                self.held_since.set(held.map(|_| now));
            }
        }
        if self.held_since.get().is_some_and(|held| since(held) >= limits.patience) {
            if !self.lags.replace(true) {
                self.wake();
            }
        } else if self.is_held() {
            // Nothing can be heard of it: that is our doing.
            return;
        }
        let time = match self.stage.get() {
            Stage::Opening => limits.header_timeout,
            Stage::Streaming => limits.idle_timeout,
            Stage::Leaving => limits.leave_timeout,
        };
        if time > Duration::ZERO && since(self.moved.get()) >= time {
            self.call(Call::Late);
        }
    }
}

/// What came of waiting for a connection.
#[derive(Debug)]
pub enum Input {
    /// So many bytes are in the buffer.
    Bytes(usize),
    /// It sends no more.
    End,
    /// It is gone.
    Lost(io::Error),
    /// It was called.
    Call(Call),
    /// Nothing has come, and that completes a window.
    Silence,
    /// Its state is to be kept.
    Asked(Vec<Reply>),
}

#[cfg(test)]
mod tests {
    use tokio::io::{ReadBuf, duplex, split};

    use super::*;

    #[test]
    fn who_takes_a_little_is_waited_for_anew() {
        let (theirs, mut ours) = duplex(10);
        let client = Client::new(Box::new(split(theirs).1), "client", 1000);
        let patience = Duration::from_millis(50);
        let limits = Limits { patience, ..Limits::default() };
        let cx = &mut Context::from_waker(Waker::noop());
        client.outbox.borrow_mut().lines().extend([b'x'; 900]);
        client.write();
        std::thread::sleep(patience);
        assert!(Pin::new(&mut ours).poll_read(cx, &mut ReadBuf::new(&mut [0; 10])).is_ready());
        let taken = Instant::now();
        client.write();
        client.tick(taken + patience * 9 / 10, &limits);
        assert!(client.is_held());
        client.tick(Instant::now() + patience, &limits);
        assert!(!client.is_held());
    }
}
