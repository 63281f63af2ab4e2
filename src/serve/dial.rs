//! DV servers that are dialled: each connection is a stream of the server's name, and one that
//! ends, or cannot be made, is followed by another after a pause.

use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

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
/// Longest pause.
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
    let mut pause = FIRST_PAUSE;
    let mut said = None;
    loop {
        let (events, ended) = match server.connect().await {
            Ok(reader) => connection::hear(hub.clone(), reader, &name, &config).await,
            Err(error) => (0, Err(error)),
        };
        if hub.is_stopping() {
            return;
        }
        if events > 0 {
            (pause, said) = (FIRST_PAUSE, None);
        }
        hub.meters.redialled();
        let why = match ended {
            Ok(()) => "the server closed the connection".to_owned(),
            Err(error) => error.to_string(),
        };
        // A server that is absent for a night is one line.
        if said.as_ref() != Some(&why) {
            notice(Notice::Warning(format!(
                "{name}: {why}; it is dialled again until it sends events"
            )));
            said = Some(why);
        }
        sleep(pause).await;
        pause = (2 * pause).min(LAST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
