//! The task of one connection: first line, bytes to frames, and the end.
//!
//! It decodes and cuts on the thread that read, and hands whole batches to the engine; the engine
//! writes the answers.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};
use tracing::info;

use super::TICK;
use super::client::{Call, Client, Input, Reader, Stage};
use super::config::StreamConfig;
use super::hello::{Hello, Opening, opening};
use super::hub::{Hub, Known, Seat};
use super::limits::Flow;
use super::stages::Stages;
use crate::codec::Need;
use crate::error::{Error, Result, printable};

/// Bytes read and thrown away of a client that still sends when its stream has ended: closing
/// with unread bytes would take its last answers from it.
const LINGER_BYTES: usize = 16 << 20;

/// Serves one connection from its first byte to its end.
pub async fn serve(
    hub: Rc<Hub>,
    (client, _known): (Rc<Client>, Known),
    reader: Reader,
    peer: String,
    flow: Flow,
) {
    let mut connection = Connection { hub: hub.clone(), client, reader, flow };
    let served = match hub.claim_soon().await {
        Ok(seat) => connection.stream(seat, &peer).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        info!(peer, error = %printable(&error.to_string()), "refused");
        hub.meters.refused();
        hub.tell(&connection.client, &peer, &error);
    }
    connection.leave(&peer).await;
}

/// Hears a server that was dialled, of this name, to its end; it takes no answers. Gives the number
/// of its events.
///
/// # Errors
/// Why it ended, unless the server that it was heard by ends, or it closed in good order.
pub async fn hear(
    hub: Rc<Hub>,
    reader: Reader,
    name: &str,
    config: &StreamConfig,
) -> (u64, Result<()>) {
    let client = Rc::new(Client::new(Box::new(tokio::io::sink()), name, hub.limits.outbox_bytes));
    let _known = hub.meet(&client);
    let flow = hub.limits.dv;
    let mut connection = Connection { hub: hub.clone(), client, reader, flow };
    let opened = connection.first_bytes().await.and_then(|begun| {
        let Some(begun) = begun else { return Ok(None) };
        let mut seat = hub.claim().inspect_err(|_| hub.meters.refused())?;
        let feed = seat.open(name, false, &connection.client)?;
        let stages =
            Stages::new((name, name), config.ingest(), feed, None, flow, config.rules.silence);
        Ok(Some((begun, seat, stages)))
    });
    match opened {
        Ok(Some((begun, _seat, stages))) => connection.events(begun, stages).await,
        Ok(None) => (0, Ok(())),
        Err(error) => (0, Err(error)),
    }
}

struct Connection {
    hub: Rc<Hub>,
    client: Rc<Client>,
    reader: Reader,
    flow: Flow,
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
        let config = hello.over(self.hub.config)?;
        self.hub.admit(hello.token.as_deref())?;
        let name = match &hello.stream {
            Some(name) => {
                // A camera whose connection broke comes back before its end is told.
                if self.unless_called(self.hub.left(name)).await == Err(Call::Stop) {
                    return Ok(());
                }
                seat.take_name(name, &self.client)?
            }
            None => peer,
        };
        self.client.outbox.borrow_mut().rename(name);
        seat.rule(config.rules);
        let mut ingest = config.ingest();
        let keeper = self.hub.keeper.as_ref().filter(|_| hello.stream.is_some());
        let kept = keeper.map(|keeper| keeper.stream(name, &config));
        if let Some(kept) = kept.as_ref().filter(|_| hello.resume != Some(false)) {
            match self.unless_called(kept.recall()).await {
                Ok(Some(snapshot)) => {
                    let (saved, resumed) = snapshot.resume();
                    ingest.restore(&saved)?;
                    seat.resume(resumed);
                }
                Ok(None) => (),
                Err(Call::Late) => kept.give_up(self.hub.limits.header_timeout),
                Err(Call::Stop) => return Ok(()),
            }
        }
        let feed = seat.open(name, hello.stream.is_some(), &self.client)?;
        self.client.kept.set(kept.is_some());
        let stages = Stages::new((name, peer), ingest, feed, kept, self.flow, config.rules.silence);
        // Its end stands in its records.
        let _ = self.events(begun, stages).await;
        Ok(())
    }

    /// Waits for something that is none of the client's doing, but no longer than for its header,
    /// which has its whole time after that.
    async fn unless_called<T>(
        &self,
        what: impl Future<Output = T>,
    ) -> std::result::Result<T, Call> {
        let client = &self.client;
        client.enter(Stage::Opening);
        let mut what = pin!(what);
        let done = poll_fn(|cx| {
            client.remember(cx);
            match (what.as_mut().poll(cx), client.take_call()) {
                (Poll::Ready(done), None | Some(Call::Late)) => Poll::Ready(Ok(done)),
                (_, Some(call)) => Poll::Ready(Err(call)),
                (Poll::Pending, None) => Poll::Pending,
            }
        })
        .await;
        client.enter(Stage::Opening);
        done
    }

    /// What comes first of a server that was dialled; `None` where it is to be left.
    async fn first_bytes(&mut self) -> Result<Option<Begun>> {
        loop {
            return match self.input().await {
                Input::Bytes(n) => {
                    let bytes = self.hub.buffer.borrow()[..n].to_vec();
                    Ok(Some(Begun { bytes, whole: false }))
                }
                Input::Asked(_) | Input::Silence => continue,
                Input::Call(Call::Stop) => Ok(None),
                Input::End => Err(Error::Unsupported("it sent nothing".to_owned())),
                Input::Lost(source) => {
                    Err(Error::Io { what: "it sent nothing".to_owned(), source })
                }
                Input::Call(Call::Late) => Err(self.late(true)),
            };
        }
    }

    /// What an open stream is late for, of whose recording something has been `heard` or not.
    fn late(&self, heard: bool) -> Error {
        let limits = &self.hub.limits;
        Error::Unsupported(match self.client.stage() {
            Stage::Opening => {
                let seconds = limits.header_timeout.as_secs_f64();
                let what = if heard { "no header" } else { "nothing after the first line" };
                format!("{what} came within {seconds} s (--header-timeout)")
            }
            Stage::Streaming | Stage::Leaving => {
                let seconds = limits.idle_timeout.as_secs_f64();
                format!(
                    "nothing was received for {seconds} s, so the stream was ended (--idle-timeout)"
                )
            }
        })
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
                Input::Asked(_) | Input::Silence => continue,
                Input::Call(Call::Stop) => return Ok(None),
                Input::Lost(source) => {
                    let what = "the connection was lost within the first line".to_owned();
                    return Err(Error::Io { what, source });
                }
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

    /// Bytes to frames until the stream ends, and its summary; its events, and why it ended early.
    async fn events(&mut self, begun: Begun, mut stages: Stages) -> (u64, Result<()>) {
        let (hub, client) = (self.hub.clone(), self.client.clone());
        // From now on a file says that the stream has not ended.
        stages.keep(&hub, &client, false, Vec::new()).await;
        let mut need = decode(&mut stages, &hub, &begun.bytes);
        let mut heard = !begun.bytes.is_empty();
        // Bytes taken in without a pause for the others.
        let mut drained = 0;
        let read = loop {
            if heard && client.stage() == Stage::Opening && stages.ingest.has_begun() {
                client.enter(Stage::Streaming);
            }
            stages.pass_on(&hub, &client).await;
            match need {
                Err(error) => break Err(error),
                Ok(Need::Nothing) => break Ok(true),
                Ok(Need::More | Need::Skip(_)) => (),
            }
            if stages.has_rest() {
                stages.give_way(&hub, &client).await;
                need = stages.decode_rest(&hub);
                continue;
            }
            if begun.whole {
                break Ok(true);
            }
            if drained > self.flow.drain_bytes() {
                // There may be as much again.
                stages.give_way(&hub, &client).await;
                drained = 0;
            }
            need = match self.input_or_silence(&mut stages).await {
                Input::Bytes(n) => {
                    heard = true;
                    drained = if n == hub.limits.read_bytes { drained + n } else { 0 };
                    decode(&mut stages, &hub, &hub.buffer.borrow()[..n])
                }
                Input::Silence => {
                    stages.pass_silence(&hub, &client).await;
                    Ok(Need::More)
                }
                Input::Asked(replies) => {
                    stages.keep(&hub, &client, false, replies).await;
                    Ok(Need::More)
                }
                Input::End => break Ok(true),
                Input::Lost(source) => {
                    let what = "the connection was lost".to_owned();
                    break Err(Error::Io { what, source });
                }
                Input::Call(Call::Stop) => break Ok(false),
                Input::Call(Call::Late) => break Err(self.late(heard)),
            };
        };
        let mut finished = Ok(());
        if matches!(read, Ok(true)) {
            finished = stages.ingest.end_decoding();
            stages.pass_on(&hub, &client).await;
        }
        stages.offer(&hub, &client).await;
        client.kept.set(false);
        let replies = client.take_asked().unwrap_or_default();
        // Before its last window is cut short: the stream may go on in that window.
        stages.keep(&hub, &client, true, replies).await;
        stages.close(&hub, &client).await;
        client.enter(Stage::Leaving);
        let events = stages.ingest.totals().events;
        let ended = read.and(finished);
        if stages.end(&hub, ended.as_ref().err()).await {
            client.summary().await;
        }
        (events, ended)
    }

    /// Input, or that there has been none for so long that a window is complete.
    async fn input_or_silence(&mut self, stages: &mut Stages) -> Input {
        let hub = self.hub.clone();
        loop {
            if stages.is_waiting() && !hub.has_ticks() {
                if let Some(input) = self.input_now().await {
                    return input;
                }
                stages.offer(&hub, &self.client).await;
            }
            let input = hub.or_tick(stages.is_waiting(), self.input());
            let heard = match stages.idle.due(&stages.ingest) {
                Some(due) => timeout_at(due, input).await.ok(),
                None => Some(input.await),
            };
            match heard {
                Some(Some(input)) => return input,
                Some(None) => {
                    stages.offer(&hub, &self.client).await;
                    continue;
                }
                None => (),
            }
            // What came while the thread had other work is no silence.
            yield_now().await;
            if let Some(input) = self.input_now().await {
                return input;
            }
            if !self.client.is_held() {
                return Input::Silence;
            }
            stages.idle.forgive(tokio::time::Instant::now());
        }
    }

    async fn input_now(&mut self) -> Option<Input> {
        let Connection { hub, client, reader, .. } = self;
        poll_fn(|cx| match client.poll_input(cx, reader, &mut hub.buffer.borrow_mut()) {
            Poll::Ready(input) => Poll::Ready(Some(input)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    async fn input(&mut self) -> Input {
        let Connection { hub, client, reader, .. } = self;
        poll_fn(|cx| client.poll_input(cx, reader, &mut hub.buffer.borrow_mut())).await
    }

    /// Writes what is left, shuts the connection, and hears the client out.
    async fn leave(&mut self, peer: &str) {
        let Connection { hub, client, reader, .. } = self;
        client.enter(Stage::Leaving);
        let missed = |records: u64| {
            if records > 0 {
                info!(peer, records, "left with records unread");
                hub.meters.missed(records);
            }
        };
        let mut is_late = false;
        let written = poll_fn(|cx| {
            client.remember(cx);
            if client.take_call() == Some(Call::Late) {
                let mut outbox = client.outbox.borrow_mut();
                if std::mem::replace(&mut is_late, true) {
                    missed(outbox.give_up());
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                // In as much time it may yet read how many lines it has missed, and the last one.
                missed(outbox.trim_to(0));
                drop(outbox);
                client.enter(Stage::Leaving);
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
        let quiet = hub.limits.patience.max(TICK);
        let (mut heard, mut until) = (0, Instant::now() + quiet);
        while heard < LINGER_BYTES || hub.is_stopping() {
            let mut input =
                pin!(poll_fn(|cx| client.poll_input(cx, reader, &mut hub.buffer.borrow_mut())));
            let input = if hub.is_stopping() {
                // One that sends nothing loses nothing by the end.
                let Ok(input) = timeout_at(until, input).await else { return };
                input
            } else {
                input.as_mut().await
            };
            match input {
                Input::Bytes(n) => (heard, until) = (heard + n, Instant::now() + quiet),
                Input::Call(Call::Stop) => (),
                // How long that may take is said for all.
                Input::Call(Call::Late) if hub.is_stopping() => (),
                _ => return,
            }
        }
    }
}

/// As [`Stages::decode`]; events that carry no time have that of now.
fn decode(stages: &mut Stages, hub: &Hub, bytes: &[u8]) -> Result<Need> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    stages.ingest.arrived(now.as_micros() as u64);
    stages.decode(hub, bytes)
}
