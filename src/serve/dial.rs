//! DV servers that are dialled: each connection is a stream of the server's name, and one that
//! ends, or cannot be made, is followed by another after a pause.

use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use super::client::Reader;
use super::config::StreamConfig;
use super::connection;
use super::hub::Hub;
use super::sockets::hear_loss;
use super::{Notice, Notices};
use crate::codec::aedat4::DV;
use crate::error::{Error, Result};
use crate::event::Sensor;

/// Port of a DV server where a URL names none.
const PORT: u16 = 7777;
/// How long a server may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before the first attempt after one that failed; each that fails doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause, and how long a connection must last, and bring events, for the next to come soon.
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// A DV server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DvServer {
    /// `dv://HOST:PORT`.
    Tcp(String),
    /// `dv+unix://PATH`.
    Unix(PathBuf),
}

impl FromStr for DvServer {
    type Err = String;

    fn from_str(url: &str) -> std::result::Result<Self, String> {
        let wrong =
            || "expected dv://HOST:PORT or dv+unix://PATH, as dv://127.0.0.1:7777".to_owned();
        if let Some(path) = url.strip_prefix("dv+unix://").filter(|path| !path.is_empty()) {
            return Ok(DvServer::Unix(path.into()));
        }
        let address = url.strip_prefix("dv://").ok_or_else(wrong)?;
        let has_port = address.rfind(':').is_some_and(|at| !address[at..].contains(']'));
        let address = if has_port { address.to_owned() } else { format!("{address}:{PORT}") };
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let bare = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        let plain = !host.is_empty() && !host.contains('/') && bare;
        if !plain || !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Err(wrong());
        }
        Ok(DvServer::Tcp(address))
    }
}

impl fmt::Display for DvServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DvServer::Tcp(address) => write!(f, "dv://{address}"),
            DvServer::Unix(path) => write!(f, "dv+unix://{}", path.display()),
        }
    }
}

/// Looks whether the view takes what the server sends, as far as that is known beforehand: where its
/// sensor's size is asked for.
///
/// # Errors
/// As [`StreamConfig::takes`].
pub fn check(server: &DvServer, config: &StreamConfig) -> Result<()> {
    if config.reading.view.sensor.is_none() {
        return Ok(());
    }
    config.takes(&Sensor::default()).map_err(|error| error.named(format!("--connect {server}")))
}

impl DvServer {
    async fn connect(&self) -> Result<Reader> {
        let connected = async {
            Ok::<Reader, std::io::Error>(match self {
                DvServer::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    hear_loss(&stream);
                    Box::new(stream)
                }
                DvServer::Unix(path) => Box::new(UnixStream::connect(path).await?),
            })
        };
        let connected = timeout(CONNECT_TIMEOUT, connected).await;
        let connected = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        let absent = |source| Error::Io { what: "no server there".to_owned(), source };
        connected.map_err(absent)
    }
}

/// Hears a server again and again, until this one ends.
pub async fn serve(hub: Rc<Hub>, server: DvServer, notice: Notices) {
    let name = server.to_string();
    let mut config = hub.config;
    config.reading.format = Some(&DV);
    let mut attempts = Attempts::default();
    loop {
        let mut lasted = Duration::ZERO;
        let ended = match server.connect().await {
            Ok(reader) => {
                let begun = Instant::now();
                let (events, ended) = connection::hear(hub.clone(), reader, &name, &config).await;
                if events > 0 {
                    lasted = begun.elapsed();
                }
                ended
            }
            Err(error) => Err(error),
        };
        if hub.is_stopping() {
            return;
        }
        hub.meters.redialled();
        let why = match ended {
            Ok(()) => "the server closed the connection".to_owned(),
            Err(error) => error.to_string(),
        };
        let (pause, is_new) = attempts.failed(lasted, &why);
        if is_new {
            notice(Notice::Warning(format!("{name}: {why}; it is dialled until it stays")));
        }
        sleep(pause).await;
    }
}

/// Attempts that brought nothing that lasted: a server that is absent for a night, or comes and goes,
/// is one line and seldom dialled.
struct Attempts {
    pause: Duration,
    said: String,
}

impl Default for Attempts {
    fn default() -> Self {
        Attempts { pause: FIRST_PAUSE, said: String::new() }
    }
}

impl Attempts {
    /// One has ended that brought events for so long; gives the pause before the next, and whether
    /// the cause is another than that of the one before.
    fn failed(&mut self, lasted: Duration, why: &str) -> (Duration, bool) {
        if lasted >= LAST_PAUSE {
            *self = Attempts::default();
        }
        let pause = self.pause;
        self.pause = (2 * pause).min(LAST_PAUSE);
        let is_new = self.said != why;
        why.clone_into(&mut self.said);
        (pause, is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_a_cause_is_told_once_until_a_connection_lasts() {
        let (mut attempts, gone) = (Attempts::default(), Duration::ZERO);
        let mut failed = |lasted, why| {
            let (pause, is_new) = attempts.failed(lasted, why);
            (pause.as_millis(), is_new)
        };
        assert_eq!(failed(gone, "absent"), (100, true));
        // It sends a little and closes.
        let little = LAST_PAUSE / 2;
        for (pause_ms, is_new) in
            [(200, true), (400, false), (800, false), (1600, false), (3200, false), (5000, false)]
        {
            assert_eq!(failed(little, "closed"), (pause_ms, is_new));
        }
        assert_eq!(failed(gone, "closed"), (5000, false));
        assert_eq!(failed(gone, "absent"), (5000, true));
        assert_eq!(failed(LAST_PAUSE, "absent"), (100, true));
        assert_eq!(failed(gone, "absent"), (200, false));
    }

    #[test]
    fn urls_are_read_or_refused() {
        for (url, shown) in [
            ("dv://localhost:7000", "dv://localhost:7000"),
            ("dv://localhost", "dv://localhost:7777"),
            ("dv://[::1]", "dv://[::1]:7777"),
            ("dv://[::1]:7000", "dv://[::1]:7000"),
            ("dv+unix:///run/dv.sock", "dv+unix:///run/dv.sock"),
        ] {
            assert_eq!(url.parse::<DvServer>().expect(url).to_string(), shown);
        }
        for url in [
            "localhost:7000",
            "tcp://a:1",
            "dv://",
            "dv://a:0",
            "dv://a:70000",
            "dv://::1:5",
            "dv://a/b:1",
            "dv+unix://",
        ] {
            assert!(url.parse::<DvServer>().is_err(), "{url}");
        }
    }
}
