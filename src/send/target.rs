//! Where to send: what a URL says. Opens nothing.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::codec::{DatagramFormat, datagrams_by_name};

/// Port of a DV server where a URL names none.
pub const DV_PORT: u16 = 7777;

/// A receiver.
#[derive(Clone)]
pub enum Target {
    /// `tcp://HOST:PORT`: a server to connect to.
    Tcp(String),
    /// `unix://PATH`: the same over a UNIX socket.
    Unix(PathBuf),
    /// `udp://HOST:PORT?format=NAME`.
    Udp {
        /// Host and port.
        address: String,
        /// Format of the datagrams.
        format: &'static DatagramFormat,
        /// Whether events carry their times; `timestamps=none` leaves them out of SPIF.
        timed: bool,
    },
    /// `dv://HOST:PORT`: an address to listen on as a DV server.
    Dv(String),
}

const KNOWN: &str =
    "tcp://HOST:PORT, unix://PATH, udp://HOST:PORT?format=NAME or dv://HOST:PORT (to listen on)";

impl FromStr for Target {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| format!("expected {KNOWN}"))?;
        match scheme {
            "tcp" => Ok(Target::Tcp(address(rest, None)?)),
            "unix" if rest.is_empty() => Err("expected unix://PATH".to_owned()),
            "unix" => Ok(Target::Unix(PathBuf::from(rest))),
            "udp" => udp(rest),
            "dv" => Ok(Target::Dv(address(rest, Some(DV_PORT))?)),
            _ => Err(format!("unknown scheme `{}`: expected {KNOWN}", scheme.escape_debug())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(address) => write!(f, "tcp://{address}"),
            Target::Unix(path) => write!(f, "unix://{}", path.display()),
            Target::Udp { address, .. } => write!(f, "udp://{address}"),
            Target::Dv(address) => write!(f, "dv://{address}"),
        }
    }
}

/// `HOST:PORT`, where `[…]` encloses an address of IPv6.
fn address(text: &str, default_port: Option<u16>) -> Result<String, String> {
    let has_port = text.rfind(':').is_some_and(|at| text.rfind(']').is_none_or(|end| end < at));
    let text = match default_port {
        Some(port) if !has_port => format!("{text}:{port}"),
        _ => text.to_owned(),
    };
    let (host, port) = text.rsplit_once(':').unwrap_or_default();
    let is_host = !host.is_empty() && (!host.contains(':') || host.starts_with('['));
    if is_host && port.parse::<u16>().is_ok() {
        Ok(text)
    } else {
        Err("expected HOST:PORT after ://, as 127.0.0.1:7000 or [::1]:7000".to_owned())
    }
}

fn udp(rest: &str) -> Result<Target, String> {
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (mut format, mut timed) = (None, true);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("format", name)) => {
                format = Some(datagrams_by_name(name).map_err(|error| error.to_string())?);
            }
            Some(("timestamps", "none")) => timed = false,
            _ => {
                let pair = pair.escape_debug();
                return Err(format!("unknown `{pair}`: known are format=NAME, timestamps=none"));
            }
        }
    }
    let format = format.ok_or("datagrams need a format, as udp://HOST:PORT?format=faery-t64")?;
    if !timed && format.name != "spif" {
        return Err("timestamps=none goes with format=spif only".to_owned());
    }
    Ok(Target::Udp { address: address(authority, None)?, format, timed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused_with_what_was_expected() {
        for (url, shown) in [
            ("tcp://localhost:7000", "tcp://localhost:7000"),
            ("tcp://[::1]:7000", "tcp://[::1]:7000"),
            ("unix:///run/dvs.sock", "unix:///run/dvs.sock"),
            ("udp://127.0.0.1:3333?format=spif&timestamps=none", "udp://127.0.0.1:3333"),
            ("dv://127.0.0.1", "dv://127.0.0.1:7777"),
            ("dv://[::1]", "dv://[::1]:7777"),
            ("dv://0.0.0.0:0", "dv://0.0.0.0:0"),
        ] {
            let target: Target = url.parse().expect(url);
            assert_eq!(target.to_string(), shown);
        }
        for (url, part) in [
            ("127.0.0.1:7000", "tcp://HOST:PORT"),
            ("http://a:1", "unknown scheme `http`"),
            ("tcp://localhost", "HOST:PORT"),
            ("tcp://::1:7000", "[::1]:7000"),
            ("tcp://localhost:70000", "HOST:PORT"),
            ("unix://", "unix://PATH"),
            ("udp://a:1", "format=faery-t64"),
            ("udp://a:1?format=evt3", "unknown format of datagrams `evt3`"),
            ("udp://a:1?format=jaer&timestamps=none", "spif only"),
            ("udp://a:1?form=jaer", "unknown `form=jaer`"),
        ] {
            let error = url.parse::<Target>().map(|target| target.to_string()).expect_err(url);
            assert!(error.contains(part), "{url}: {error}");
        }
    }
}
