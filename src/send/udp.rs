//! Events as datagrams to one receiver. Nothing tells whether they arrive, but for a host that
//! answers that nobody listens.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use super::{Link, Sent};
use crate::codec::{DatagramEncoder, DatagramFormat, DatagramOptions};
use crate::error::{Error, Result};
use crate::event::Event;

/// How long a host may take to answer that nobody listened to the last datagram.
const LAST_WORDS: Duration = Duration::from_millis(20);
/// How long a full queue of the network card is left alone.
const QUEUE_PAUSE: Duration = Duration::from_micros(200);

pub struct Datagrams {
    socket: UdpSocket,
    address: String,
    encoder: Box<dyn DatagramEncoder>,
    datagram: Vec<u8>,
}

impl Datagrams {
    pub fn open(
        address: &str,
        format: &DatagramFormat,
        options: &DatagramOptions,
    ) -> Result<Datagrams> {
        let encoder = (format.encoder)(options);
        let socket = connect(address).map_err(|source| no_receiver(address, source))?;
        Ok(Datagrams { socket, address: address.to_owned(), encoder, datagram: Vec::new() })
    }

    fn send_one(&self) -> io::Result<()> {
        loop {
            match self.socket.send(&self.datagram) {
                Ok(_) => return Ok(()),
                Err(error) if is_queue_full(&error) => std::thread::sleep(QUEUE_PAUSE),
                Err(error) => return Err(error),
            }
        }
    }
}

impl Link for Datagrams {
    fn send(&mut self, events: &[Event], sent: &mut Sent) -> Result<()> {
        let mut rest = events;
        while !rest.is_empty() {
            self.datagram.clear();
            let n = self.encoder.encode(rest, &mut self.datagram)?;
            self.send_one().map_err(|source| no_receiver(&self.address, source))?;
            rest = &rest[n..];
            sent.datagrams += 1;
            sent.bytes += self.datagram.len() as u64;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        std::thread::sleep(LAST_WORDS);
        match self.socket.take_error() {
            Ok(Some(source)) => Err(no_receiver(&self.address, source)),
            _ => Ok(()),
        }
    }
}

fn connect(address: &str) -> io::Result<UdpSocket> {
    let mut failed = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let connected =
            UdpSocket::bind(any).and_then(|socket| socket.connect(address).map(|()| socket));
        match connected {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// `ENOBUFS` has no kind of its own.
fn is_queue_full(error: &io::Error) -> bool {
    const ENOBUFS: i32 = 105;
    let is_full = cfg!(target_os = "linux") && error.raw_os_error() == Some(ENOBUFS);
    is_full || matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn no_receiver(address: &str, source: io::Error) -> Error {
    Error::Io { what: format!("no receiver at udp://{address}"), source }
}
