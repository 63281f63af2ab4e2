//! Who is let in: connections are accepted while there is room for them and for their files.

use std::future::poll_fn;
use std::io::{ErrorKind, Result};
use std::rc::Rc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::client::{Client, Reader, Writer};
use super::http::{MAX_HTTP_CONNECTIONS, MAX_HTTP_TURNED_AWAY};
use super::hub::Hub;
use super::limits::Flow;
use super::sockets::{hear_loss, hear_readers};
use super::{ACCEPT_PAUSE, Notice, Notices, Serve, connection};
use crate::error::Error;

/// Files besides those of connections: listeners, states, and what libraries open.
const SPARE_FILES: usize = 64;

/// Makes room for as many files as may be open at once; what to warn of where there is none.
pub fn make_room(serve: &Serve) -> Option<String> {
    let http = serve.http.map_or(0, |_| MAX_HTTP_CONNECTIONS + MAX_HTTP_TURNED_AWAY);
    let own = serve.udp.len() + serve.dial.len() + SPARE_FILES;
    let need = (serve.limits.max_connections + http + own) as u64;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft >= need {
        return None;
    }
    let raised = need.min(hard);
    let _ = setrlimit(Resource::RLIMIT_NOFILE, raised, hard);
    let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    (files < need).then(|| {
        format!(
            "{files} files may be open, but {} connections and what goes with them take {need}: \
             raise the limit (ulimit -n, LimitNOFILE=), or lower --max-streams",
            serve.limits.max_connections
        )
    })
}

/// A listener's ear: says once that it hears nobody, and again only after it has heard one.
pub struct Ear {
    what: &'static str,
    notice: Notices,
    is_deaf: bool,
}

impl Ear {
    /// That of a listener of this kind.
    pub fn new(what: &'static str, notice: &Notices) -> Self {
        Ear { what, notice: notice.clone(), is_deaf: false }
    }

    /// What was accepted; nothing, after a pause, where it could not be.
    pub async fn heard<T>(&mut self, accepted: Result<T>) -> Option<T> {
        match accepted {
            Ok(accepted) => {
                self.is_deaf = false;
                Some(accepted)
            }
            // The peer's own doing.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => None,
            Err(error) => {
                if !std::mem::replace(&mut self.is_deaf, true) {
                    (self.notice)(Notice::Warning(format!(
                        "no connection can be accepted on {}: {error}; those that wait are tried \
                         again",
                        self.what
                    )));
                }
                sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    }
}

/// Accepts TCP clients until it is aborted.
pub async fn tcp(hub: Rc<Hub>, listener: TcpListener, mut ear: Ear) {
    loop {
        let Some((stream, peer)) = ear.heard(listener.accept().await).await else { continue };
        // Answers must not wait for more of them; where it cannot be had, they are late, not lost.
        let _ = stream.set_nodelay(true);
        hear_readers(&stream);
        hear_loss(&stream);
        let (reader, writer) = stream.into_split();
        welcome(&hub, Box::new(reader), Box::new(writer), peer.to_string(), hub.limits.tcp).await;
    }
}

/// Accepts UNIX clients until it is aborted.
pub async fn unix(hub: Rc<Hub>, listener: UnixListener, mut ear: Ear) {
    let mut n = 0_u64;
    loop {
        let Some((stream, _)) = ear.heard(listener.accept().await).await else { continue };
        let (reader, writer) = stream.into_split();
        welcome(&hub, Box::new(reader), Box::new(writer), format!("unix:{n}"), hub.limits.unix)
            .await;
        n += 1;
    }
}

async fn welcome(hub: &Rc<Hub>, reader: Reader, writer: Writer, peer: String, flow: Flow) {
    let client = Rc::new(Client::new(writer, &peer, hub.limits.outbox_bytes));
    if hub.n_clients() < hub.limits.max_connections {
        // It counts from now on, not from when its task first runs.
        let known = hub.meet(&client);
        spawn_local(connection::serve(hub.clone(), (client, known), reader, peer, flow));
        return;
    }
    let error = Error::Unsupported("too many connections are open: come back later".to_owned());
    tracing::info!(peer, %error, "refused");
    hub.meters.refused();
    hub.tell(&client, &peer, &error);
    // A new socket takes as much at once, unless this task has had its share of the thread.
    let _ = timeout(ACCEPT_PAUSE, poll_fn(|cx| client.poll_write(cx))).await;
}
