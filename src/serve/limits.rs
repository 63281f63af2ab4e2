//! What sources may take, and what becomes of what comes too fast or not at all.

use std::time::Duration;

/// What becomes of windows that come faster than they are stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Overflow {
    /// They wait, and so does the sender: nothing is lost.
    #[default]
    Wait,
    /// Those that came last are dropped.
    DropNewest,
    /// Those that have waited longest are dropped.
    SkipToNewest,
}

/// What holds for the streams of one kind of source.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    /// What becomes of windows that come too fast.
    pub overflow: Overflow,
    /// A silent stream's windows are completed by wall time, so far behind it; zero: never.
    pub idle: Duration,
}

impl Flow {
    /// Bytes taken in of one stream before the others have their turn.
    pub fn drain_bytes(&self) -> usize {
        if self.overflow == Overflow::Wait { 0 } else { DRAIN_BYTES }
    }
}

/// What clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams at once.
    pub max_streams: usize,
    /// Connections at once, those that are being turned away included.
    pub max_connections: usize,
    /// TCP clients.
    pub tcp: Flow,
    /// UNIX clients.
    pub unix: Flow,
    /// Senders of datagrams. They cannot wait: what is not read in time the kernel drops.
    pub udp: Flow,
    /// DV servers that were dialled.
    pub dv: Flow,
    /// Time from one turn of the engine to the next, in which windows of all streams come together;
    /// zero: they are stepped as they come.
    pub tick: Duration,
    /// Bytes read at once.
    pub read_bytes: usize,
    /// Bytes of answers that wait for a client.
    pub outbox_bytes: usize,
    /// Time to say what will be sent; over HTTP, also to take some of what is answered.
    pub header_timeout: Duration,
    /// Time without a byte after which a stream is ended; zero: never.
    pub idle_timeout: Duration,
    /// Time that a client which does not read is waited for before it misses answers.
    pub patience: Duration,
    /// Time to read the last answers.
    pub leave_timeout: Duration,
    /// Time that the series of a named stream are kept after it has left.
    pub metrics_retention: Duration,
    /// Time from one state of an open stream that is kept to the next; zero: none is.
    pub snapshot_every: Duration,
    /// Time in which all streams end when the server does.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let live = |overflow| Flow { overflow, idle: LIVE_IDLE };
        Limits {
            max_streams: 64,
            max_connections: 64 + MAX_TURNED_AWAY,
            tcp: Flow::default(),
            unix: Flow::default(),
            udp: live(Overflow::DropNewest),
            dv: live(Overflow::SkipToNewest),
            tick: Duration::ZERO,
            read_bytes: READ_BYTES,
            outbox_bytes: 1 << 20,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(600),
            patience: Duration::from_secs(1),
            leave_timeout: Duration::from_secs(5),
            metrics_retention: Duration::from_secs(600),
            snapshot_every: Duration::from_secs(10),
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

/// How far live sources' windows trail wall time in silence: longer than packets are apart.
pub const LIVE_IDLE: Duration = Duration::from_millis(100);
/// Bytes read at once.
pub const READ_BYTES: usize = 128 << 10;
/// Bytes taken in of one stream before the others have their turn, where its sender is not to
/// be held back.
pub const DRAIN_BYTES: usize = 4 << 20;
/// Connections beyond the streams: those that leave and those that are turned away.
pub const MAX_TURNED_AWAY: usize = 256;
