//! What all connections share: the engine, the slots, the names, the limits. All of it belongs to
//! one thread, which reads, decodes, steps and writes: a system call costs more than a step, and a
//! switch between threads more than both.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::timeout_at;

use super::about::About;
use super::client::{Call, Client};
use super::config::StreamConfig;
use super::departed::Departed;
use super::keeper::{Keeper, Reply};
use super::load::Load;
use super::subscriber::{Subscribers, Subscription};
use super::ticks::Ticks;
use super::token::Tokens;
use super::{Limits, Serve, TICK};
use crate::engine::{Begin, Engine, Feed, Outlet, Port, Resumed, Turn};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::prediction::{Prediction, Record, Stream};
use crate::session::{Rules, Session};
use crate::sink::Sink;
use crate::telemetry::{ANONYMOUS, AnswerMeters, Registry, ServerMeters};

/// Names of streams that have left and keep their series, at least: as many as may be open, else.
/// Beyond that the oldest lose theirs.
const MIN_DEPARTED: usize = 256;
/// How much later than what follows it the end of a connection may be seen: they are two.
const END_LAG: Duration = Duration::from_millis(100);
/// Subscribers at once; fewer than connections over HTTP, so that the others are answered.
const MAX_SUBSCRIBERS: usize = 32;

/// The shared part of the server.
pub struct Hub {
    /// How streams are taken.
    pub config: StreamConfig,
    /// What clients may take.
    pub limits: Limits,
    /// Where every read goes: what is read is decoded at once.
    pub buffer: RefCell<Vec<u8>>,
    /// Where what was read is decoded to, and cut at once unless the engine is behind.
    pub events: RefCell<Vec<Event>>,
    port: Port,
    sink: RefCell<Box<dyn Sink>>,
    bell: Notify,
    /// Rings when the engine's turn has come, where that waits for its tick.
    due: Notify,
    /// Rings when the engine has taken what there was.
    pub turned: Notify,
    /// Rings when a stream or a connection has gone.
    pub gone: Notify,
    /// Rings for all who wait for a name or a slot when a stream has gone.
    freed: Notify,
    stopping: Cell<bool>,
    /// Rings when the engine is not to wait for its tick.
    hurry: Notify,
    seats: Cell<usize>,
    /// Names of open streams, and whose they are.
    names: RefCell<HashMap<String, Rc<Client>>>,
    clients: RefCell<HashMap<u64, Rc<Client>>>,
    next_client: Cell<u64>,
    /// By the number of their stream in the engine.
    routes: RefCell<HashMap<u64, Rc<Route>>>,
    /// Who listens to many streams.
    subscribers: Rc<Subscribers>,
    tokens: Option<Tokens>,
    /// All series.
    pub registry: Arc<Registry>,
    /// Series of the server.
    pub meters: ServerMeters,
    /// Keeps the states of named streams, and when it last did.
    pub keeper: Option<Keeper>,
    kept_at: Cell<Instant>,
    departed: RefCell<Departed>,
    /// What is served.
    pub about: About,
    load: Load,
}

/// A stream, and where its records go.
struct Route {
    name: String,
    client: Rc<Client>,
    meters: AnswerMeters,
    since: Instant,
    last: Cell<Option<Prediction>>,
}

impl Hub {
    /// The hub of a server, and the engine that it feeds.
    ///
    /// # Errors
    /// When the file of tokens cannot be used.
    pub fn new(
        serve: &Serve,
        about: About,
        session: Session,
        sink: Box<dyn Sink>,
        registry: Arc<Registry>,
        keeper: Option<Keeper>,
    ) -> Result<(Rc<Hub>, Engine)> {
        let (engine, port) = Engine::new(session, serve.config.window.window_us);
        let hub = Hub {
            config: serve.config,
            limits: serve.limits,
            buffer: RefCell::new(vec![0; serve.limits.read_bytes]),
            events: RefCell::default(),
            port,
            sink: RefCell::new(sink),
            bell: Notify::new(),
            due: Notify::new(),
            turned: Notify::new(),
            gone: Notify::new(),
            freed: Notify::new(),
            stopping: Cell::new(false),
            hurry: Notify::new(),
            seats: Cell::new(0),
            names: RefCell::default(),
            clients: RefCell::default(),
            next_client: Cell::new(0),
            routes: RefCell::default(),
            subscribers: Rc::default(),
            tokens: serve.token_file.as_deref().map(Tokens::read).transpose()?,
            registry,
            meters: ServerMeters::new(&about.name, &about.sha256),
            keeper,
            kept_at: Cell::new(Instant::now()),
            departed: RefCell::default(),
            about,
            load: Load::new(serve.spin),
        };
        Ok((Rc::new(hub), engine))
    }

    /// Tells the engine that there is something to step.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// What it was rung for is not to wait for its tick.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Whether the engine waits for its tick, and windows for the engine.
    pub fn has_ticks(&self) -> bool {
        !self.limits.tick.is_zero()
    }

    /// What comes; but `None` where windows `wait` for the engine's tick and that is first: those
    /// that are handed on then are stepped in its turn.
    pub async fn or_tick<T>(&self, wait: bool, what: impl Future<Output = T>) -> Option<T> {
        let waits = wait && self.has_ticks();
        let (mut turn, mut what) = (pin!(self.due()), pin!(what));
        poll_fn(|cx| match waits && turn.as_mut().poll(cx).is_ready() {
            true => Poll::Ready(None),
            false => what.as_mut().poll(cx).map(Some),
        })
        .await
    }

    async fn due(&self) {
        self.ring();
        self.due.notified().await;
    }

    /// Whether the server is about to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Connections that are open.
    pub fn n_clients(&self) -> usize {
        self.clients.borrow().len()
    }

    /// Streams that are open, or about to be.
    pub fn n_seats(&self) -> usize {
        self.seats.get()
    }

    /// Waits while the stream of this name is ending.
    pub async fn left(&self, name: &str) {
        let sure = tokio::time::Instant::now() + END_LAG;
        loop {
            let holder = self.names.borrow().get(name).cloned();
            let Some(holder) = holder else { return };
            if holder.is_ending() {
                self.freed.notified().await;
            } else if timeout_at(sure, self.freed.notified()).await.is_err() && !holder.is_ending()
            {
                return;
            }
        }
    }

    /// Ends all connections.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.hurry.notify_one();
        self.clients.borrow().values().for_each(|client| client.call(Call::Stop));
    }

    /// Time has passed.
    pub fn tick(&self) {
        let now = Instant::now();
        self.clients.borrow().values().for_each(|client| client.tick(now, &self.limits));
        self.retire(now);
        self.keep(now);
        if let Some(busy) = self.load.tick(now) {
            self.meters.busy(busy);
            // The engine tells its load, of a silence too.
            self.ring();
        }
    }

    /// From time to time the states of all named streams are kept.
    fn keep(&self, now: Instant) {
        let every = self.limits.snapshot_every;
        let due = now.saturating_duration_since(self.kept_at.get()) >= every;
        if self.keeper.is_some() && due && every > Duration::ZERO {
            self.kept_at.set(now);
            self.ask(None);
        }
    }

    /// Asks for the states of all named streams; gives their number.
    pub fn ask(&self, reply: Option<&Reply>) -> usize {
        self.clients.borrow().values().filter(|client| client.ask(reply)).count()
    }

    /// The thread has decoded, cut or stepped since then.
    pub fn worked(&self, since: Instant) {
        self.load.worked(since);
    }

    /// Events were dropped because there was no time for them.
    pub fn overrun(&self) {
        self.load.overrun();
    }

    /// Series of streams that left long ago are added to those of all such streams.
    fn retire(&self, now: Instant) {
        let retention = self.limits.metrics_retention;
        let most = self.limits.max_streams.max(MIN_DEPARTED);
        let mut retired = self.departed.borrow_mut().take(now, retention, most);
        retired.retain(|name| !self.names.borrow().contains_key(name));
        if !retired.is_empty() {
            self.registry.retire(&retired);
        }
    }

    /// Why no more streams should come, if so.
    pub fn unready(&self) -> Option<String> {
        if self.is_stopping() {
            Some("the server ends".to_owned())
        } else if self.seats.get() >= self.limits.max_streams {
            Some(format!("all {} slots are taken", self.seats.get()))
        } else {
            self.load.excess()
        }
    }

    /// The open streams.
    pub fn streams_json(&self) -> String {
        let routes = self.routes.borrow();
        let mut streams: Vec<_> = routes.iter().collect();
        streams.sort_by_key(|(id, _)| **id);
        let streams = streams.iter().map(|(_, route)| {
            let last = route.last.get();
            let class = last.and_then(|last| last.verdict.class);
            serde_json::json!({
                "stream": route.name,
                "connected_s": route.since.elapsed().as_secs(),
                "windows": last.map_or(0, |last| last.window + 1),
                "t_us": last.map(|last| last.t_us),
                "label": class.and_then(|class| self.about.card.labels.get(usize::from(class))),
                "confidence": last.map(|last| last.verdict.confidence),
                "waiting_bytes": route.client.outbox.borrow().waiting().len(),
            })
        });
        serde_json::json!({ "streams": streams.collect::<Vec<_>>() }).to_string() + "\n"
    }

    /// Listens to one stream, or to all; `None` where too many do already.
    pub fn subscribe(&self, stream: Option<String>) -> Option<Subscription> {
        let room = self.subscribers.len() < MAX_SUBSCRIBERS;
        room.then(|| self.subscribers.subscribe(stream, self.limits.outbox_bytes))
    }

    /// Tells subscribers that no more comes; says whether any are left that read: one has taken
    /// something within the time that a client is waited for.
    pub fn end_subscriptions(&self, since: Instant) -> bool {
        self.subscribers.end();
        let last = self.subscribers.taken_at().map_or(since, |taken_at| taken_at.max(since));
        !self.subscribers.is_empty() && last.elapsed() < self.limits.patience.max(TICK)
    }

    /// A connection is there until what this gives is dropped.
    pub fn meet(self: &Rc<Self>, client: &Rc<Client>) -> Known {
        let id = self.next_client.get();
        self.next_client.set(id + 1);
        self.clients.borrow_mut().insert(id, client.clone());
        if self.is_stopping() {
            client.call(Call::Stop);
        }
        Known { hub: self.clone(), id }
    }

    /// A slot; where all are taken, one that is left within a moment: a camera whose connection
    /// broke comes back before its end is told.
    ///
    /// # Errors
    /// When all stay taken.
    pub async fn claim_soon(self: &Rc<Self>) -> Result<Seat> {
        let until = tokio::time::Instant::now() + END_LAG;
        loop {
            let claimed = self.claim();
            if claimed.is_ok() || timeout_at(until, self.freed.notified()).await.is_err() {
                return claimed;
            }
        }
    }

    /// A slot, while there is one.
    ///
    /// # Errors
    /// When all are taken.
    pub fn claim(self: &Rc<Self>) -> Result<Seat> {
        let taken = self.seats.get();
        if taken >= self.limits.max_streams {
            return Err(Error::Unsupported(format!(
                "all {taken} slots are taken: come back later, or start the server with a greater \
                 --max-streams"
            )));
        }
        self.seats.set(taken + 1);
        Ok(Seat { hub: self.clone(), name: None, id: None, begin: Begin::default() })
    }

    /// Whether a client with this token is let in.
    ///
    /// # Errors
    /// When it is not.
    pub fn admit(&self, token: Option<&str>) -> Result<()> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let refuse = |what: &str| Err(Error::Unsupported(what.to_owned()));
        match token {
            Some(token) if tokens.admit(token) => Ok(()),
            Some(_) => refuse("this token lets nobody in"),
            None => refuse(
                "a token is asked for: send first a line dvs-stream {\"token\":\"…\"}, or over \
                 HTTP the header `Authorization: Bearer …`",
            ),
        }
    }

    /// Puts an error into the outbox of a client that is no stream.
    pub fn tell(&self, client: &Client, peer: &str, error: &Error) {
        let record =
            Record::Error { causes: vec![peer.to_owned(), error.to_string()], offset: None };
        let stream = Stream { id: 0, name: peer.to_owned() };
        let mut outbox = client.outbox.borrow_mut();
        self.sink.borrow_mut().record(&stream, &record, &[], outbox.lines());
    }

    /// Steps what comes until the server ends.
    ///
    /// # Errors
    /// When a step fails.
    pub async fn drive(&self, mut engine: Engine) -> Result<()> {
        let mut writer = AnswerWriter { hub: self, touched: Vec::new() };
        let mut ticks = Ticks::new(self.limits.tick);
        loop {
            self.bell.notified().await;
            if self.has_ticks() {
                if !self.is_stopping() {
                    // What ends the server, or is in a hurry, ends the pause.
                    ticks.wait(self.hurry.notified()).await;
                }
                self.due.notify_waiters();
                // They hand their windows on.
                yield_now().await;
            }
            let begun = Instant::now();
            // No connection runs meanwhile, so this ends.
            while engine.turn(&mut writer)? == Turn::More {}
            engine.pass();
            self.worked(begun);
            self.turned.notify_waiters();
        }
    }
}

/// A connection is in the hub's list as long as this lives.
pub struct Known {
    hub: Rc<Hub>,
    id: u64,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.hub.clients.borrow_mut().remove(&self.id);
        self.hub.gone.notify_one();
    }
}

/// A slot and a name, freed when this is dropped.
pub struct Seat {
    hub: Rc<Hub>,
    name: Option<String>,
    id: Option<u64>,
    begin: Begin,
}

impl Seat {
    /// Takes a name that no other stream has.
    ///
    /// # Errors
    /// When another has it.
    pub fn take_name<'a>(&mut self, name: &'a str, client: &Rc<Client>) -> Result<&'a str> {
        let mut names = self.hub.names.borrow_mut();
        if names.contains_key(name) {
            return Err(Error::Unsupported(format!(
                "a stream `{name}` is open already: choose another name, or end that one"
            )));
        }
        names.insert(name.to_owned(), client.clone());
        self.name = Some(name.to_owned());
        Ok(name)
    }

    /// The stream has rules of its own.
    pub fn rule(&mut self, rules: Rules) {
        self.begin.rules = Some(rules);
    }

    /// The stream goes on where it was saved.
    pub fn resume(&mut self, resumed: Resumed) {
        self.begin.resumed = Some(Box::new(resumed));
    }

    /// Opens the stream, whose records go to `client`.
    ///
    /// # Errors
    /// When the engine is gone.
    pub fn open(&mut self, name: &str, named: bool, client: &Rc<Client>) -> Result<Feed> {
        let series = if named { name } else { ANONYMOUS };
        let begin = std::mem::take(&mut self.begin);
        let feed = self.hub.port.open_in(name, series, begin).map_err(|_| Error::Stopped)?;
        self.id = Some(feed.id());
        let route = Route {
            name: name.to_owned(),
            client: client.clone(),
            meters: AnswerMeters::new(series, &self.hub.about.card.labels),
            since: Instant::now(),
            last: Cell::new(None),
        };
        self.hub.routes.borrow_mut().insert(feed.id(), Rc::new(route));
        // It has its slot from now on, whatever it sends.
        self.hub.ring();
        Ok(feed)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.seats.set(self.hub.seats.get() - 1);
        if let Some(name) = self.name.take() {
            self.hub.names.borrow_mut().remove(&name);
            self.hub.departed.borrow_mut().add(name, Instant::now());
        }
        if let Some(id) = self.id {
            self.hub.routes.borrow_mut().remove(&id);
        }
        self.hub.freed.notify_waiters();
        self.hub.gone.notify_one();
    }
}

/// The outlet of `serve`: each stream's records to its own connection, one write a batch.
struct AnswerWriter<'a> {
    hub: &'a Hub,
    touched: Vec<Touched>,
}

/// A stream that has records in this batch.
struct Touched {
    id: u64,
    route: Rc<Route>,
    predictions: usize,
}

impl Outlet for AnswerWriter<'_> {
    fn record(&mut self, stream: &Stream, record: &Record, logits: &[f32], _ending: bool) {
        let hub = self.hub;
        // A stream's records come one after another.
        if self.touched.last().is_none_or(|touched| touched.id != stream.id) {
            let routes = hub.routes.borrow();
            let Some(route) = routes.get(&stream.id) else { return };
            self.touched.push(Touched { id: stream.id, route: route.clone(), predictions: 0 });
        }
        let Some(touched) = self.touched.last_mut() else { return };
        let client = &touched.route.client;
        let mut outbox = client.outbox.borrow_mut();
        let lines = outbox.lines();
        let begun = lines.len();
        hub.sink.borrow_mut().record(stream, record, logits, lines);
        if !hub.subscribers.is_empty() {
            hub.subscribers.line(&stream.name, &lines[begun..]);
        }
        match record {
            Record::Prediction(prediction) => {
                touched.predictions += 1;
                touched.route.meters.prediction(prediction.verdict.class);
                touched.route.last.set(Some(*prediction));
            }
            Record::Summary(_) => {
                client.ended.set(true);
                client.wake();
            }
            Record::Error { .. } => hub.meters.failed(),
            Record::Segment(_) => (),
        }
    }

    fn flush(&mut self) -> ControlFlow<()> {
        let mut missed = self.hub.subscribers.flush(self.hub.limits.patience);
        for Touched { route, predictions, .. } in self.touched.drain(..) {
            missed += route.client.write();
            if predictions > 0 {
                let latency = route.client.handed_on.get().elapsed();
                self.hub.meters.answered(predictions, latency.as_secs_f64());
            }
        }
        if missed > 0 {
            self.hub.meters.missed(missed);
        }
        ControlFlow::Continue(())
    }
}
