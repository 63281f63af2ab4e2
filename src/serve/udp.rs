//! Datagrams: each sender is a stream, told by its address.
//!
//! A sender cannot be held back, so what is not read in time is the kernel's to drop: it is given
//! a large buffer, and what it drops is asked of it and counted.

use std::array;
use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrStorage, getsockopt, recvmmsg, setsockopt, sockopt,
};
use nix::{getsockopt_impl, libc, sockopt_impl};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info};

use super::client::{Client, Stage};
use super::config::StreamConfig;
use super::hub::{Hub, Known, Seat};
use super::limits::{Flow, Overflow};
use super::stages::Stages;
use super::strangers::Strangers;
use super::{Notice, Notices, TICK};
use crate::codec::{DatagramFormat, Tally};
use crate::error::{Error, Result};
use crate::event::Event;

/// What the kernel is asked to hold: tens of ms at ten million events a second.
const BUFFER_BYTES: usize = 8 << 20;
/// Bytes taken in before the others have their turn, and what a datagram counts at least.
const BURST_BYTES: usize = 256 << 10;
const MIN_BYTES: usize = 256;
/// Datagrams read at once, and the room for each: none is longer.
const BATCH: usize = 32;
const ROOM_BYTES: usize = 64 << 10;

// The kernel's counts of a socket, in the order of <linux/sock_diag.h>.
sockopt_impl!(Counts, GetOnly, libc::SOL_SOCKET, libc::SO_MEMINFO, [u32; 9]);
/// Which of them are the datagrams that it dropped.
const DROPS: usize = 8;

/// Where datagrams come, and what they are.
#[derive(Clone, Copy)]
pub struct UdpSource {
    /// The address that they are sent to.
    pub address: SocketAddr,
    /// Their format.
    pub format: &'static DatagramFormat,
}

impl std::fmt::Debug for UdpSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.address, self.format.name)
    }
}

/// Looks whether the view takes what such datagrams hold: what they are of is known beforehand.
///
/// # Errors
/// As [`StreamConfig::takes`].
pub fn check(source: &UdpSource, config: &StreamConfig) -> Result<()> {
    let sensor = (source.format.decoder)(config.reading.view.size(None)).sensor();
    config.takes(&sensor).map_err(|error| error.named(format!("--udp {source:?}")))
}

/// Opens the socket; warns where the kernel grants a smaller buffer than it is asked for.
///
/// # Errors
/// When the address cannot be bound.
pub async fn bind(source: &UdpSource, notice: &Notices) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(source.address).await?;
    setsockopt(&socket, sockopt::RcvBuf, &BUFFER_BYTES)?;
    // Linux gives twice what it grants, for its own bookkeeping.
    let granted = getsockopt(&socket, sockopt::RcvBuf)? / 2;
    if granted < BUFFER_BYTES {
        notice(Notice::Warning(format!(
            "udp {}: the kernel grants a buffer of {granted} bytes, of {BUFFER_BYTES} asked for, so \
             bursts may be lost: raise net.core.rmem_max",
            socket.local_addr()?
        )));
    }
    Ok(socket)
}

/// Serves all senders of a socket until the server ends; where `to` is given, their names say so.
pub async fn serve(
    hub: Rc<Hub>,
    socket: UdpSocket,
    format: &'static DatagramFormat,
    to: Option<u16>,
) {
    let mut flow = hub.limits.udp;
    if flow.overflow == Overflow::DropNewest {
        // What is not read in time is the newest, and the kernel drops it.
        flow.overflow = Overflow::Wait;
    }
    let mut receiver = Receiver {
        strangers: Strangers::new(hub.limits.idle_timeout),
        hub,
        format,
        to,
        flow,
        senders: HashMap::new(),
        room: vec![0; BATCH * ROOM_BYTES],
        headers: MultiHeaders::preallocate(BATCH, None),
        received: Vec::with_capacity(BATCH),
        dropped: 0,
        look: None,
    };
    while !receiver.hub.is_stopping() {
        let tick = Instant::now() + TICK;
        let wake = receiver.look.map_or(tick, |look| look.min(tick));
        let readable = receiver.hub.or_tick(receiver.is_waiting(), socket.readable());
        let drained = match timeout_at(wake, readable).await {
            Ok(Some(_)) => receiver.burst(&socket).await,
            Ok(None) => {
                receiver.hand_on().await;
                false
            }
            Err(_) => true,
        };
        if drained {
            receiver.pass_silence().await;
        }
        receiver.count_dropped(&socket);
        if !receiver.hub.is_stopping() {
            receiver.end_silent().await;
        }
    }
    // What has come by now is of the streams that end; a sender that goes on is not waited for.
    for _ in 0..2 * BUFFER_BYTES / BURST_BYTES {
        if receiver.burst(&socket).await {
            break;
        }
    }
    receiver.count_dropped(&socket);
    for (_, sender) in receiver.senders.drain() {
        sender.end(&receiver.hub, None).await;
    }
}

struct Receiver {
    hub: Rc<Hub>,
    format: &'static DatagramFormat,
    /// The port, where there are several.
    to: Option<u16>,
    flow: Flow,
    senders: HashMap<SocketAddr, Sender>,
    strangers: Strangers,
    /// Where datagrams are read to, a room for each.
    room: Vec<u8>,
    /// Of each that is read at once. No control messages are asked for, and all addresses are of
    /// the socket's family, so they serve again and again.
    headers: MultiHeaders<SockaddrStorage>,
    /// Length and sender of each that was read at once.
    received: Vec<(usize, Option<SocketAddr>)>,
    /// Datagrams that the kernel says it has dropped, a number that wraps.
    dropped: u32,
    /// No silence completes a window before.
    look: Option<Instant>,
}

/// One stream.
struct Sender {
    client: Rc<Client>,
    _known: Known,
    _seat: Seat,
    stages: Stages,
    /// Datagrams that were counted: lost ones, and repeated ones.
    lost: u64,
    repeated: u64,
}

impl Receiver {
    /// Takes in what is there; says whether that was all.
    async fn burst(&mut self, socket: &UdpSocket) -> bool {
        let (mut taken, mut drained) = (0, false);
        while taken <= self.flow.drain_bytes().max(BURST_BYTES) && !drained {
            let received = socket.try_io(Interest::READABLE, || self.receive(socket.as_raw_fd()));
            drained = received.is_err();
            for k in 0..self.received.len() {
                let (n, from) = self.received[k];
                taken += n.max(MIN_BYTES);
                let Some(from) = from else { continue };
                if let Err(error) = self.take(k * ROOM_BYTES..k * ROOM_BYTES + n, from).await
                    && let Some(sender) = self.senders.remove(&from)
                {
                    self.strangers.fail(from, Instant::now());
                    sender.end(&self.hub, Some(&error)).await;
                }
            }
        }
        if !self.hub.has_ticks() {
            self.hand_on().await;
        }
        // The others come first.
        if self.hub.or_tick(self.is_waiting(), yield_now()).await.is_none() {
            self.hand_on().await;
        }
        drained
    }

    /// Whether windows wait for [`Receiver::hand_on`].
    fn is_waiting(&self) -> bool {
        self.senders.values().any(|sender| sender.stages.is_waiting())
    }

    /// Hands on what waits.
    async fn hand_on(&mut self) {
        for sender in self.senders.values_mut() {
            sender.stages.offer(&self.hub, &sender.client).await;
        }
    }

    /// Reads what is there, each datagram into its room.
    fn receive(&mut self, socket: RawFd) -> io::Result<()> {
        self.received.clear();
        let mut rooms = self.room.chunks_exact_mut(ROOM_BYTES);
        let mut rooms: [_; BATCH] =
            array::from_fn(|_| [IoSliceMut::new(rooms.next().unwrap_or_default())]);
        let flags = MsgFlags::MSG_DONTWAIT;
        for message in recvmmsg(socket, &mut self.headers, &mut rooms, flags, None)? {
            let from = message.address.and_then(|address| {
                let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
                v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
            });
            self.received.push((message.bytes, from));
        }
        Ok(())
    }

    /// Counts what the kernel has dropped by now, where it says so.
    fn count_dropped(&mut self, socket: &UdpSocket) {
        let Ok(counts) = getsockopt(socket, Counts) else { return };
        let more = counts[DROPS].wrapping_sub(std::mem::replace(&mut self.dropped, counts[DROPS]));
        if more > 0 {
            self.hub.meters.lost_datagrams(more.into());
            self.hub.overrun();
            debug!(datagrams = more, "the kernel has dropped what was not read in time");
        }
    }

    /// A datagram that lies there in the room.
    async fn take(&mut self, at: Range<usize>, from: SocketAddr) -> Result<()> {
        let Receiver { hub, format, to, flow, senders, strangers, room, look, .. } = self;
        let sender = match senders.entry(from) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(place) => {
                let now = Instant::now();
                if !strangers.may_begin(from, now) {
                    hub.meters.lost_datagrams(1);
                    return Ok(());
                }
                let name = match to {
                    Some(to) => format!("udp:{to}:{from}"),
                    None => format!("udp:{from}"),
                };
                match Sender::new(hub, format, *flow, &name, &room[at.clone()]) {
                    Ok(sender) => {
                        strangers.seat(from);
                        place.insert(sender)
                    }
                    Err(error) => {
                        hub.meters.lost_datagrams(1);
                        if strangers.refuse(from, now) {
                            info!(peer = %from, %error, "datagrams refused");
                        }
                        return Ok(());
                    }
                }
            }
        };
        sender.client.enter(Stage::Streaming);
        sender.client.arrived.set(std::time::Instant::now());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        sender.stages.ingest.arrived(now.as_micros() as u64);
        let decoded = sender.stages.decode(hub, &room[at]);
        sender.count_lost(hub);
        sender.stages.take_in(hub, &sender.client).await;
        if !flow.idle.is_zero() && look.is_none() {
            *look = Some(Instant::now() + flow.idle);
        }
        decoded.map(|_| ())
    }

    /// Completes the windows that silence does, where it is time to look.
    async fn pass_silence(&mut self) {
        let now = Instant::now();
        if self.look.is_none_or(|look| look > now) {
            return;
        }
        let mut look = None::<Instant>;
        for Sender { client, stages, .. } in self.senders.values_mut() {
            if stages.idle.due(&stages.ingest).is_some_and(|due| due <= now) {
                stages.pass_silence(&self.hub, client).await;
            }
            look = look.into_iter().chain(stages.idle.due(&stages.ingest)).min();
        }
        // Whom nothing is due from may send meanwhile.
        self.look = look.map(|look| look.min(now + self.flow.idle));
    }

    /// Ends the streams that have been silent for too long.
    async fn end_silent(&mut self) {
        let called = |(from, sender): (&SocketAddr, &Sender)| {
            sender.client.take_call().is_some().then_some(*from)
        };
        let silent: Vec<SocketAddr> = self.senders.iter().filter_map(called).collect();
        for from in silent {
            if let Some(sender) = self.senders.remove(&from) {
                sender.end(&self.hub, None).await;
            }
        }
    }
}

impl Sender {
    /// A stream that begins with this datagram, which must hold an event: nobody keeps a slot from
    /// others with anything else.
    fn new(
        hub: &Rc<Hub>,
        format: &'static DatagramFormat,
        flow: Flow,
        name: &str,
        first: &[u8],
    ) -> Result<Self> {
        let (mut decoder, mut events) =
            ((format.decoder)(hub.config.reading.view.size(None)), vec![]);
        decoder.arrived(0);
        decoder.feed(first, &mut events)?;
        if events.iter().all(Event::is_malformed) {
            return Err(Error::Unsupported(format!("it holds no event of {}", format.title)));
        }
        let mut seat = hub.claim()?;
        let writer = Box::new(tokio::io::sink());
        let client = Rc::new(Client::new(writer, name, hub.limits.outbox_bytes));
        let known = hub.meet(&client);
        let feed = seat.open(name, false, &client)?;
        let mut config = hub.config;
        config.reading.datagrams = Some(format);
        let stages =
            Stages::new((name, name), config.ingest(), feed, None, flow, config.rules.silence);
        Ok(Sender { client, _known: known, _seat: seat, stages, lost: 0, repeated: 0 })
    }

    /// The last window, the segment, the summary.
    async fn end(mut self, hub: &Hub, error: Option<&Error>) {
        self.client.enter(Stage::Leaving);
        // No event is left, but what has not come by now is lost.
        let ended = self.stages.ingest.end_decoding();
        self.count_lost(hub);
        self.stages.close(hub, &self.client).await;
        if self.stages.end(hub, error.or(ended.as_ref().err())).await {
            // A sink has always room: the summary is there after the engine's turn.
            self.client.summary().await;
        }
    }

    /// Counts the datagrams that are known by now never to have come, and those that were not taken
    /// because they had come before.
    fn count_lost(&mut self, hub: &Hub) {
        let Tally { lost_datagrams: lost, repeated_datagrams: repeated, .. } =
            self.stages.ingest.tally();
        hub.meters.lost_datagrams(lost - std::mem::replace(&mut self.lost, lost));
        hub.meters.repeated_datagrams(repeated - std::mem::replace(&mut self.repeated, repeated));
    }
}
