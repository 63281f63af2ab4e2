//! The task of one connection: first line, bytes to frames, and the end.
//!
//! It decodes and cuts on the thread that read, and hands whole batches to the engine; the engine
//! writes the answers.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use tokio::task::yield_now;

use super::Overflow;
use super::client::{Call, Client, Input, Reader, Stage, Writer};
use super::hello::{Hello, Opening, opening};
use super::hub::{Hub, Seat};
use super::keeper::{Kept, Reply};
use crate::codec::Need;
use crate::engine::Feed;
use crate::error::{Error, Result};
use crate::frame::Frames;
use crate::ingest::Ingest;
use crate::ring::StreamEnd;

/// Bytes read and thrown away of a client that still sends when its stream has ended: closing
/// with unread bytes would take its last answers from it.
const LINGER_BYTES: usize = 16 << 20;

/// Serves one connection from its first byte to its end. A source that takes no answers, as a
/// server that was dialled, is a connection whose writer is [`tokio::io::sink`].
pub async fn serve(hub: Rc<Hub>, reader: Reader, writer: Writer, peer: String) {
    let client = Rc::new(Client::new(writer, &peer, hub.limits.outbox_bytes));
    let _known = hub.meet(&client);
    let mut connection = Connection { hub: hub.clone(), client, reader };
    let served = match hub.claim() {
        Ok(seat) => connection.stream(seat, &peer).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        hub.meters.refused();
        hub.tell(&connection.client, &peer, &error);
    }
    connection.leave().await;
}

struct Connection {
    hub: Rc<Hub>,
    client: Rc<Client>,
    reader: Reader,
}

/// What of a stream came before it was opened.
struct Begun {
    bytes: Vec<u8>,
    /// Nothing follows.
    whole: bool,
}

impl Connection {
    /// One stream. An error means that none was opened.
    async fn stream(&mut self, mut seat: Seat, peer: &str) -> Result<()> {
        let Some((hello, begun)) = self.opening().await? else { return Ok(()) };
        let reading = hello.over(self.hub.reading)?;
        self.hub.admit(hello.token.as_deref())?;
        let name = match &hello.stream {
            Some(name) => seat.take_name(name)?,
            None => peer,
        };
        self.client.outbox.borrow_mut().rename(name);
        let mut ingest = Ingest::new(reading, self.hub.window, None);
        let keeper = self.hub.keeper.as_ref().filter(|_| hello.stream.is_some());
        let kept = keeper.map(|keeper| keeper.stream(name, &reading));
        if let Some(kept) = kept.as_ref().filter(|_| hello.resume != Some(false))
            && let Some(snapshot) = kept.recall().await
        {
            let (saved, resumed) = snapshot.resume();
            ingest.restore(&saved)?;
            seat.resume(resumed);
        }
        let mut feed = seat.open(name, hello.stream.is_some(), &self.client)?;
        self.client.enter(Stage::Streaming);
        self.client.kept.set(kept.is_some());
        let mut stages = Stages::new(ingest, &mut feed, kept);
        let end = self.events(begun, &mut stages, name).await;
        self.client.enter(Stage::Leaving);
        if feed.end(end).is_ok() {
            self.hub.ring();
            self.summary().await;
        }
        Ok(())
    }

    /// Reads the first line, if there is one; `None` where nothing is to be told of a stream.
    async fn opening(&mut self) -> Result<Option<(Hello, Begun)>> {
        let mut held = Vec::new();
        let (hello, length, whole) = loop {
            let whole = match self.input().await {
                Input::Bytes(n) => {
                    held.extend_from_slice(&self.hub.buffer.borrow()[..n]);
                    false
                }
                Input::End => true,
                Input::Asked(_) => continue,
                Input::Lost(_) | Input::Call(Call::Stop) => return Ok(None),
                Input::Call(Call::Late) => {
                    let seconds = self.hub.limits.header_timeout.as_secs_f64();
                    return Err(Error::Unsupported(format!(
                        "nothing to tell the stream by came within {seconds} s: send a recording, \
                         or first a line dvs-stream {{\"format\":…}}"
                    )));
                }
            };
            match opening(&held)? {
                Opening::Hello(hello, length) => break (*hello, length, whole),
                Opening::Events => break (Hello::default(), 0, whole),
                Opening::More if whole => break (Hello::default(), 0, whole),
                Opening::More => (),
            }
        };
        held.drain(..length);
        Ok(Some((hello, Begun { bytes: held, whole })))
    }

    /// Bytes to frames until the stream ends.
    async fn events(&mut self, begun: Begun, stages: &mut Stages<'_>, name: &str) -> StreamEnd {
        // From now on a file says that the stream has not ended.
        self.keep(stages, false, Vec::new()).await;
        let mut need = stages.ingest.decode(&begun.bytes);
        // Bytes taken in without a pause for the others.
        let mut drained = 0;
        let read = loop {
            self.pass_on(stages).await;
            match need {
                Err(error) => break Err(error),
                Ok(Need::Nothing) => break Ok(true),
                Ok(Need::More | Need::Skip(_)) => (),
            }
            if begun.whole {
                break Ok(true);
            }
            need = match self.input().await {
                Input::Bytes(n) => {
                    let need = self.decode(stages, n);
                    drained = if n == self.hub.limits.read_bytes { drained + n } else { 0 };
                    if drained > self.hub.limits.drain_bytes() {
                        // There may be as much again: the others come first.
                        yield_now().await;
                        drained = 0;
                    }
                    need
                }
                Input::Asked(replies) => {
                    self.keep(stages, false, replies).await;
                    Ok(Need::More)
                }
                Input::End => break Ok(true),
                Input::Lost(source) => {
                    let what = "the connection was lost".to_owned();
                    break Err(Error::Io { what, source });
                }
                Input::Call(Call::Stop) => break Ok(false),
                Input::Call(Call::Late) => {
                    let seconds = self.hub.limits.idle_timeout.as_secs_f64();
                    break Err(Error::Unsupported(format!(
                        "nothing was received for {seconds} s, so the stream was ended \
                         (--idle-timeout)"
                    )));
                }
            };
        };
        let mut finished = Ok(());
        if matches!(read, Ok(true)) {
            finished = stages.ingest.end_decoding();
            self.pass_on(stages).await;
        }
        self.offer(stages).await;
        self.client.kept.set(false);
        let replies = self.client.take_asked().unwrap_or_default();
        // Before its last window is cut short: the stream may go on in that window.
        self.keep(stages, true, replies).await;
        stages.ingest.close(&mut stages.frames);
        self.offer(stages).await;
        let totals = stages.ingest.totals();
        StreamEnd::new(name, totals, read.and(finished).err().as_ref())
    }

    /// Decodes what was read.
    fn decode(&self, stages: &mut Stages<'_>, n: usize) -> Result<Need> {
        let begun = Instant::now();
        let need = stages.ingest.decode(&self.hub.buffer.borrow()[..n]);
        self.hub.worked(begun);
        need
    }

    /// Cuts what was decoded and hands it to the engine, a batch at a time. What there is no time
    /// for waits, or is dropped, as the overflow rule says.
    async fn pass_on(&self, stages: &mut Stages<'_>) {
        let overflow = self.hub.limits.overflow;
        loop {
            let begun = Instant::now();
            let more = stages.ingest.cut(&mut stages.frames);
            self.hub.worked(begun);
            if overflow == Overflow::Wait || stages.feed.is_taken() {
                self.offer(stages).await;
            } else if more && overflow == Overflow::DropNewest {
                stages.drop_rest();
                return;
            } else if more {
                stages.skip();
            }
            if !more {
                return;
            }
        }
    }

    /// Hands one batch on, once the one before it was taken and its answers have room.
    async fn offer(&self, stages: &mut Stages<'_>) {
        if stages.frames.is_empty() {
            return;
        }
        while !stages.feed.is_taken() {
            yield_now().await;
        }
        self.room().await;
        stages.feed.offer(&mut stages.frames);
        self.hub.ring();
    }

    /// Has the state kept in which the stream is after all that was taken in, if it is one to be
    /// kept; `ended` where nothing follows.
    async fn keep(&self, stages: &mut Stages<'_>, ended: bool, replies: Vec<Reply>) {
        if stages.kept.is_none() {
            return;
        }
        self.offer(stages).await;
        while !stages.feed.is_taken() {
            yield_now().await;
        }
        if let Some(kept) = &stages.kept {
            stages.feed.save(kept.saver(stages.ingest.save(), ended, replies));
            self.hub.ring();
        }
    }

    /// Waits while the client is held.
    async fn room(&self) {
        if !self.client.is_held() {
            return;
        }
        poll_fn(|cx| {
            self.client.remember(cx);
            let _ = self.client.poll_write(cx);
            let over = self.client.broken.get() || self.hub.is_stopping();
            if self.client.is_held() && !over { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Waits until the summary is in the outbox.
    async fn summary(&self) {
        poll_fn(|cx| {
            self.client.remember(cx);
            let _ = self.client.poll_write(cx);
            if self.client.ended.get() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    async fn input(&mut self) -> Input {
        let Connection { hub, client, reader } = self;
        poll_fn(|cx| client.poll_input(cx, reader, &mut hub.buffer.borrow_mut())).await
    }

    /// Writes what is left, shuts the connection, and hears the client out.
    async fn leave(&mut self) {
        let Connection { hub, client, reader } = self;
        client.enter(Stage::Leaving);
        let written = poll_fn(|cx| {
            client.remember(cx);
            if client.take_call() == Some(Call::Late) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            match client.poll_write(cx) {
                Poll::Ready(()) => client.poll_shutdown(cx),
                Poll::Pending => Poll::Pending,
            }
        });
        if written.await.is_err() {
            return;
        }
        client.enter(Stage::Leaving);
        let mut heard = 0;
        while heard < LINGER_BYTES && !hub.is_stopping() {
            let input =
                poll_fn(|cx| client.poll_input(cx, reader, &mut hub.buffer.borrow_mut())).await;
            let Input::Bytes(n) = input else { return };
            heard += n;
        }
    }
}

/// One stream's stages up to the ring.
struct Stages<'a> {
    ingest: Ingest,
    frames: Frames,
    dropped: Frames,
    feed: &'a mut Feed,
    kept: Option<Kept>,
}

impl<'a> Stages<'a> {
    fn new(ingest: Ingest, feed: &'a mut Feed, kept: Option<Kept>) -> Self {
        let (frames, dropped) = Default::default();
        Stages { ingest, frames, dropped, feed, kept }
    }

    /// Drops what was decoded and is not cut yet.
    fn drop_rest(&mut self) {
        let mut more = true;
        while more {
            self.dropped.clear();
            more = self.ingest.cut(&mut self.dropped);
            self.ingest.drop_windows(&self.dropped);
        }
    }

    /// Drops the batch that waits, for newer windows.
    fn skip(&mut self) {
        self.ingest.drop_windows(&self.frames);
        self.frames.clear();
    }
}
