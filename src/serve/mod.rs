//! `serve`: live streams through one model. The door of tokio.
//!
//! One thread does it all: it reads what a socket has, decodes and cuts it, steps the windows of
//! all streams that brought some, and answers each with one write. Sources are files here:
//! `connection` is that of TCP and UNIX clients; others feed the hub in the same way.

mod about;
mod accept;
mod client;
mod config;
mod connection;
mod departed;
mod dial;
mod hello;
mod http;
mod hub;
mod idle;
mod impatient;
mod keeper;
mod limits;
mod load;
mod outbox;
mod snapshot;
mod sockets;
mod stages;
mod strangers;
mod subscriber;
mod ticks;
mod token;
mod udp;
mod unix;
mod writer;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout_at};

pub use about::About;
pub use config::StreamConfig;
pub use dial::DvServer;
pub use hello::{MAX_HELLO_BYTES, MAX_NAME_BYTES, check_name};
pub use keeper::Keeping;
pub use limits::{DRAIN_BYTES, Flow, LIVE_IDLE, Limits, MAX_TURNED_AWAY, Overflow, READ_BYTES};
pub use snapshot::{MAX_SNAPSHOT_BYTES, Settings, Snapshot};
pub use udp::UdpSource;
pub use writer::Records;

use crate::error::{Error, Result};
use crate::model::Model;
use crate::session::Session;
use crate::sink::{Labels, Style, by_name};
use crate::telemetry::Registry;
use accept::Ear;
use hub::Hub;
use keeper::Keeper;
use unix::SocketFile;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Pause after a connection could not be accepted, as when all file descriptors are taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time to write the last states where streams have taken all there was to end.
const KEEP_TIMEOUT: Duration = Duration::from_secs(1);

/// What to serve, and how.
pub struct Serve {
    /// Where TCP clients are heard.
    pub tcp: Option<SocketAddr>,
    /// Where UNIX clients are heard.
    pub unix: Option<PathBuf>,
    /// Where HTTP is answered.
    pub http: Option<SocketAddr>,
    /// Tokens that let clients in, one a line; without it everybody is.
    pub token_file: Option<PathBuf>,
    /// How streams are taken that do not say it themselves.
    pub config: StreamConfig,
    /// Where datagrams come.
    pub udp: Vec<UdpSource>,
    /// DV servers to dial.
    pub dial: Vec<DvServer>,
    /// Where the states of named streams are kept.
    pub keeping: Option<Keeping>,
    /// The thread never sleeps: what comes is read without a wait for the thread to wake.
    pub spin: bool,
    /// What clients may take.
    pub limits: Limits,
}

/// What the server says for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A listener is ready: what it is, and where.
    Listening(String),
    /// Something is not as it should be.
    Warning(String),
}

/// Hears what the server says, on any of its threads; it must not wait.
pub type Notices = Arc<dyn Fn(Notice) + Send + Sync>;

/// Serves `model` until SIGTERM or Ctrl-C, and ends every stream then. All records go to `records`
/// too.
///
/// # Errors
/// When a listener cannot be opened or the network fails; a client's failure is its own.
pub fn run(
    model: &Model,
    about: About,
    serve: &Serve,
    records: Option<Records>,
    notice: &Notices,
) -> Result<()> {
    let registry = Arc::new(Registry::default());
    registry.clone().during(|| run_metered(model, about, serve, records, notice, registry))
}

fn run_metered(
    model: &Model,
    about: About,
    serve: &Serve,
    records: Option<Records>,
    notice: &Notices,
    registry: Arc<Registry>,
) -> Result<()> {
    serve.udp.iter().try_for_each(|source| udp::check(source, &serve.config))?;
    serve.dial.iter().try_for_each(|server| dial::check(server, &serve.config))?;
    let rules = serve.config.rules;
    let session = Session::new(model.network.clone(), rules, serve.limits.max_streams)?;
    let labels = Labels { labels: model.card.labels.clone(), display: model.card.display.clone() };
    let style = Style { labels, window_us: model.card.window_us, ..Style::default() };
    let sink = by_name("jsonl").ok_or(Error::Stopped)?;
    let sink = (sink.make)(&style);
    let start = |own| {
        let (network, within) = (model.network.clone(), serve.limits.header_timeout);
        Keeper::start(own, network, &about.sha256, rules, notice.clone(), within)
    };
    let keeper = serve.keeping.as_ref().map(start);
    let (hub, engine) = Hub::new(serve, about, session, sink, registry, keeper.transpose()?)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("cannot start the server"))?;
    let served = LocalSet::new().block_on(&runtime, async {
        let stepping = spawn_local({
            let hub = hub.clone();
            // The engine writes to more sockets in a turn than a fair task may.
            tokio::task::unconstrained(async move { hub.drive(engine).await })
        });
        // Whoever reads `listening` may end the server at once.
        let signals = Signals::listen()?;
        let printing = records.zip(hub.subscribe(None));
        let printing = printing
            .map(|(out, all)| spawn_local(writer::copy(hub.clone(), all, out, notice.clone())));
        let listeners = listen(&hub, serve, notice).await?;
        for server in &serve.dial {
            // Whom it dials is dropped with the server; whom it hears is a client.
            spawn_local(dial::serve(hub.clone(), server.clone(), notice.clone()));
        }
        let ticking = spawn_local({
            let hub = hub.clone();
            async move {
                loop {
                    sleep(TICK).await;
                    hub.tick();
                }
            }
        });
        if serve.spin {
            spawn_local(spin());
        }
        let stepped = signals.wait(stepping).await;
        listeners.accepting.iter().for_each(|listener| listener.abort());
        let own = (listeners.receiving, printing);
        let written = shut_down(&hub, own, serve.limits.shutdown_timeout).await;
        let open = hub.n_seats();
        if open > 0 {
            notice(Notice::Warning(format!(
                "{open} streams did not end in time, so their last answers and states are missing: \
                 raise --shutdown-timeout"
            )));
        }
        if !written {
            notice(Notice::Warning(
                "not all states of streams were written in time: raise --shutdown-timeout"
                    .to_owned(),
            ));
        }
        ticking.abort();
        stepped
    });
    // A writer that blocks for ever holds up nobody's end.
    runtime.shutdown_background();
    served
}

type Task<T> = tokio::task::JoinHandle<T>;

/// Always has something to do, so that sockets are looked at without a pause.
async fn spin() {
    loop {
        tokio::task::yield_now().await;
    }
}

struct Listeners {
    accepting: Vec<Task<()>>,
    /// Of datagrams: they end by themselves when the server does, with their streams.
    receiving: Vec<Task<()>>,
    /// Removed at the end.
    _socket: Option<SocketFile>,
}

/// SIGTERM and Ctrl-C.
struct Signals([Signal; 2]);

impl Signals {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(failed("cannot listen for signals"));
        Ok(Signals([listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?]))
    }

    /// Waits for one of them, or for the engine to fail.
    async fn wait(mut self, mut stepping: Task<Result<()>>) -> Result<()> {
        poll_fn(|cx| {
            if self.0.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
                return Poll::Ready(Ok(()));
            }
            let stepped = Pin::new(&mut stepping).poll(cx);
            stepped.map(|joined| joined.unwrap_or(Err(Error::Stopped)))
        })
        .await
    }
}

/// Ends all streams, and waits for them as long as it may; then for their states, and for what is
/// still to be printed or heard. Says whether the states are written.
async fn shut_down(
    hub: &Rc<Hub>,
    (receiving, printing): (Vec<Task<()>>, Option<Task<()>>),
    time: Duration,
) -> bool {
    let deadline = Instant::now() + time;
    hub.stop();
    for receiver in receiving {
        // One that is not done by then is dropped with the runtime.
        let _ = timeout_at(deadline, receiver).await;
    }
    // Those whose stream has ended may read on meanwhile.
    while hub.n_seats() > 0 && timeout_at(deadline, hub.gone.notified()).await.is_ok() {}
    let written = match &hub.keeper {
        // A disk that does not answer holds up nobody's end.
        Some(keeper) => timeout_at(deadline.max(Instant::now() + KEEP_TIMEOUT), keeper.end()).await,
        None => Ok(()),
    };
    let since = std::time::Instant::now();
    while hub.end_subscriptions(since) && Instant::now() < deadline {
        sleep(TICK / 10).await;
    }
    if let Some(printing) = printing {
        let _ = timeout_at(deadline, printing).await;
    }
    while hub.n_clients() > 0 && timeout_at(deadline, hub.gone.notified()).await.is_ok() {}
    written.is_ok()
}

async fn listen(hub: &Rc<Hub>, serve: &Serve, notice: &Notices) -> Result<Listeners> {
    let (mut accepting, mut receiving, mut socket) = (Vec::new(), Vec::new(), None);
    if let Some(warning) = accept::make_room(serve) {
        notice(Notice::Warning(warning));
    }
    if let Some(address) = serve.tcp {
        let cannot = |source| Error::Io { what: format!("cannot listen on tcp {address}"), source };
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let bound = listener.local_addr().map_err(cannot)?;
        notice(Notice::Listening(format!("tcp {bound}")));
        accepting.push(spawn_local(accept::tcp(hub.clone(), listener, Ear::new("tcp", notice))));
    }
    if let Some(path) = &serve.unix {
        let shown = path.display();
        let cannot = |source| Error::Io { what: format!("cannot listen on unix {shown}"), source };
        let (listener, file) = unix::bind(path).await.map_err(cannot)?;
        socket = Some(file);
        notice(Notice::Listening(format!("unix {shown}")));
        accepting.push(spawn_local(accept::unix(hub.clone(), listener, Ear::new("unix", notice))));
    }
    if let Some(address) = serve.http {
        let what = format!("cannot listen on http {address}");
        let listener = TcpListener::bind(address).await.map_err(failed(&what))?;
        let bound = listener.local_addr().map_err(failed(&what))?;
        notice(Notice::Listening(format!("http {bound}")));
        accepting.push(spawn_local(http::accept(hub.clone(), listener, Ear::new("http", notice))));
    }
    for source in &serve.udp {
        let what = format!("cannot listen on udp {}", source.address);
        let socket = udp::bind(source, notice).await.map_err(failed(&what))?;
        let bound = socket.local_addr().map_err(failed(&what))?;
        notice(Notice::Listening(format!("udp {bound}")));
        // A sender may send to each.
        let to = (serve.udp.len() > 1).then(|| bound.port());
        receiving.push(spawn_local(udp::serve(hub.clone(), socket, source.format, to)));
    }
    let open = |address: &SocketAddr| !address.ip().is_loopback();
    if serve.token_file.is_none() && serve.tcp.iter().chain(&serve.http).any(open) {
        notice(Notice::Warning(
            "anybody who reaches this machine may send streams and read predictions: name \
             --token-file FILE, or listen on 127.0.0.1"
                .to_owned(),
        ));
    }
    if serve.udp.iter().map(|source| &source.address).any(open) {
        notice(Notice::Warning(
            "datagrams ask for no token, so anybody who reaches this machine may send streams: let \
             a firewall say who does, or listen on 127.0.0.1"
                .to_owned(),
        ));
    }
    Ok(Listeners { accepting, receiving, _socket: socket })
}

fn failed(what: &str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Io { what: what.to_owned(), source }
}
