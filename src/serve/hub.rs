//! What all connections share: the engine, the slots, the names, the limits. All of it belongs to
//! one thread, which reads, decodes, steps and writes: a system call costs more than a step, and a
//! switch between threads more than both.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::Notify;

use super::client::{Call, Client};
use super::{Limits, Serve};
use crate::engine::{Engine, Feed, Outlet, Port, Stream, Turn};
use crate::error::{Error, Result};
use crate::ingest::Reading;
use crate::prediction::Record;
use crate::session::Session;
use crate::sink::Sink;
use crate::window::WindowConfig;

/// The series of streams without a name.
pub const ANONYMOUS: &str = "anonymous";

/// The shared part of the server.
pub struct Hub {
    /// How streams are read.
    pub reading: Reading,
    /// How they are cut.
    pub window: WindowConfig,
    /// What clients may take.
    pub limits: Limits,
    /// Where every read goes: what is read is decoded at once.
    pub buffer: RefCell<Vec<u8>>,
    port: Port,
    sink: RefCell<Box<dyn Sink>>,
    bell: Notify,
    /// Rings when a connection has gone.
    pub gone: Notify,
    stopping: Cell<bool>,
    seats: Cell<usize>,
    names: RefCell<HashSet<String>>,
    clients: RefCell<HashMap<u64, Rc<Client>>>,
    next_client: Cell<u64>,
    /// Clients by the number of their stream in the engine.
    routes: RefCell<HashMap<u64, Rc<Client>>>,
}

impl Hub {
    /// The hub of a server, and the engine that it feeds.
    pub fn new(serve: &Serve, session: Session, sink: Box<dyn Sink>) -> (Rc<Hub>, Engine) {
        let (engine, port) = Engine::new(session, serve.window.window_us);
        let hub = Hub {
            reading: serve.reading,
            window: serve.window,
            limits: serve.limits,
            buffer: RefCell::new(vec![0; serve.limits.read_bytes]),
            port,
            sink: RefCell::new(sink),
            bell: Notify::new(),
            gone: Notify::new(),
            stopping: Cell::new(false),
            seats: Cell::new(0),
            names: RefCell::default(),
            clients: RefCell::default(),
            next_client: Cell::new(0),
            routes: RefCell::default(),
        };
        (Rc::new(hub), engine)
    }

    /// Tells the engine that there is something to step.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// Whether the server is about to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Connections that are open.
    pub fn n_clients(&self) -> usize {
        self.clients.borrow().len()
    }

    /// Ends all connections.
    pub fn stop(&self) {
        self.stopping.set(true);
        self.clients.borrow().values().for_each(|client| client.call(Call::Stop));
    }

    /// Time has passed.
    pub fn tick(&self) {
        let now = Instant::now();
        self.clients.borrow().values().for_each(|client| client.tick(now, &self.limits));
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
        Ok(Seat { hub: self.clone(), name: None, id: None })
    }

    /// Whether a client with this token is let in.
    ///
    /// # Errors
    /// When it is not.
    pub fn admit(&self, token: Option<&str>) -> Result<()> {
        let _ = token;
        Ok(())
    }

    /// A connection was turned away.
    pub fn refused(&self, error: &Error) {
        let _ = error;
    }

    /// Puts an error into a client's outbox.
    pub fn tell(&self, client: &Client, stream: &str, error: &Error) {
        let record = Record::Error { message: format!("{stream}: {error}"), offset: None };
        let mut outbox = client.outbox.borrow_mut();
        self.sink.borrow_mut().record(stream, &record, &[], outbox.lines());
    }

    /// Steps what comes until the server ends.
    ///
    /// # Errors
    /// When a step fails.
    pub async fn drive(&self, mut engine: Engine) -> Result<()> {
        let mut writer = AnswerWriter { hub: self, touched: Vec::new() };
        loop {
            self.bell.notified().await;
            // No connection runs meanwhile, so this ends.
            while engine.turn(&mut writer)? == Turn::Worked {}
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
}

impl Seat {
    /// Takes a name that no other stream has.
    ///
    /// # Errors
    /// When another has it.
    pub fn take_name<'a>(&mut self, name: &'a str) -> Result<&'a str> {
        if !self.hub.names.borrow_mut().insert(name.to_owned()) {
            return Err(Error::Unsupported(format!(
                "a stream `{name}` is open already: choose another name, or end that one"
            )));
        }
        self.name = Some(name.to_owned());
        Ok(name)
    }

    /// Opens the stream, whose records go to `client`.
    ///
    /// # Errors
    /// When the engine is gone.
    pub fn open(&mut self, name: &str, named: bool, client: &Rc<Client>) -> Result<Feed> {
        let series = if named { name } else { ANONYMOUS };
        let feed = self.hub.port.open_in(name, series).map_err(|_| Error::Stopped)?;
        self.id = Some(feed.id());
        self.hub.routes.borrow_mut().insert(feed.id(), client.clone());
        Ok(feed)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.seats.set(self.hub.seats.get() - 1);
        if let Some(name) = &self.name {
            self.hub.names.borrow_mut().remove(name);
        }
        if let Some(id) = self.id {
            self.hub.routes.borrow_mut().remove(&id);
        }
    }
}

/// The outlet of `serve`: each stream's records to its own connection, one write a batch.
struct AnswerWriter<'a> {
    hub: &'a Hub,
    touched: Vec<(u64, Rc<Client>)>,
}

impl Outlet for AnswerWriter<'_> {
    fn record(&mut self, stream: &Stream, record: &Record, logits: &[f32], _ending: bool) {
        if self.touched.last().is_none_or(|(id, _)| *id != stream.id) {
            let routes = self.hub.routes.borrow();
            let Some(client) = routes.get(&stream.id) else { return };
            self.touched.push((stream.id, client.clone()));
        }
        let Some((_, client)) = self.touched.last() else { return };
        let mut outbox = client.outbox.borrow_mut();
        self.hub.sink.borrow_mut().record(&stream.name, record, logits, outbox.lines());
        if matches!(record, Record::Summary(_)) {
            client.ended.set(true);
            client.wake();
        }
    }

    fn flush(&mut self) -> ControlFlow<()> {
        for (_, client) in self.touched.drain(..) {
            client.write();
        }
        ControlFlow::Continue(())
    }
}
