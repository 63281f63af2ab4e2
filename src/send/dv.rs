//! A DV server of one recording: clients dial, each gets the header and the packets from then on.
//!
//! Where clients read slowly, all wait: nothing is dropped and nothing piles up.

use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::stream::{patient_tcp, write_all};
use super::{Link, Sent};
use crate::codec::aedat4::Aedat4Encoder;
use crate::codec::{Encoder, EncoderOptions};
use crate::error::{Error, Result};
use crate::event::Event;

/// Clients at once; dv-processing takes as many.
pub const MAX_CLIENTS: usize = 10;

/// How often a server without a client looks for one.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long clients stay connected after the last packet: dv-processing's reader forgets packets
/// that it has not handed out when the connection ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

pub struct DvServer<'a> {
    listener: TcpListener,
    clients: Vec<TcpStream>,
    encoder: Aedat4Encoder,
    header: Vec<u8>,
    packets: Vec<u8>,
    stop: &'a AtomicBool,
}

impl<'a> DvServer<'a> {
    /// Listens at an address, says so in a line, and waits for the first client.
    pub fn open(
        address: &str,
        options: &EncoderOptions,
        out: &mut (dyn Write + Send),
        stop: &'a AtomicBool,
    ) -> Result<DvServer<'a>> {
        let mut encoder = Aedat4Encoder::network(options);
        let mut header = Vec::new();
        encoder.encode(&[], &mut header)?;
        let failed =
            |source| Error::Io { what: format!("cannot listen at dv://{address}"), source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        // A script that waits for the line would wait for ever; others do not care.
        let _ = writeln!(out, "listening dv {bound}").and_then(|()| out.flush());
        let (clients, packets) = (Vec::new(), Vec::new());
        let mut server = DvServer { listener, clients, encoder, header, packets, stop };
        while server.clients.is_empty() {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            std::thread::sleep(PATIENCE);
            server.welcome();
        }
        Ok(server)
    }

    /// Lets in who has dialled meanwhile.
    fn welcome(&mut self) {
        while self.clients.len() < MAX_CLIENTS {
            let Ok((mut client, _)) = self.listener.accept() else { return };
            let ready = client.set_nonblocking(false).and_then(|()| patient_tcp(&client));
            let greeted = ready.and_then(|()| write_all(&mut client, &self.header, self.stop));
            if greeted.is_ok() {
                self.clients.push(client);
            }
        }
    }
}

impl Link for DvServer<'_> {
    fn send(&mut self, events: &[Event], sent: &mut Sent) -> Result<()> {
        self.welcome();
        self.packets.clear();
        self.encoder.encode(events, &mut self.packets)?;
        let mut failed = None;
        self.clients.retain_mut(|client| {
            let written = write_all(client, &self.packets, self.stop);
            written.map_err(|error| failed = Some(error)).is_ok()
        });
        sent.bytes += self.packets.len() as u64;
        match failed {
            Some(error) if error.kind() == ErrorKind::Interrupted => Err(Error::Stopped),
            Some(source) if self.clients.is_empty() => {
                Err(Error::Io { what: "the last receiver went away".to_owned(), source })
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < LAST_WORDS && !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(PATIENCE);
        }
        Ok(())
    }
}
