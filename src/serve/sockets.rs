//! What is asked of the kernel for the sockets of connections.

use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};
use tokio::io::{AsyncWrite, Sink};
use tokio::net::{TcpStream, tcp, unix};

sockopt_impl!(
    /// See tcp(7).
    NotsentLowat,
    SetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_NOTSENT_LOWAT,
    u32
);
// What the kernel holds for a socket, in the order of <linux/sock_diag.h>.
sockopt_impl!(Held, GetOnly, libc::SOL_SOCKET, libc::SO_MEMINFO, [u32; 9]);
/// Which of it waits to be read by the peer of a UNIX socket, and to be acknowledged by that of a TCP
/// socket.
const SENT: usize = 2;
const QUEUED: usize = 5;

/// Unsent bytes of a connection from which the kernel takes no more.
const UNSENT_BYTES: u32 = 128 << 10;

/// Silence after which the kernel asks whether a peer is still there, in seconds.
pub const SILENT_S: u32 = 30;
/// Time from one such question to the next, in seconds.
const ASK_EVERY_S: u32 = 10;
/// Questions without an answer after which it is not.
const ASK_TIMES: u32 = 3;
/// Time in which a silent peer must take what is written, in milliseconds: as long as it is asked.
const TAKE_WITHIN_MS: u32 = 1000 * (SILENT_S + ASK_EVERY_S * ASK_TIMES);

/// Else the kernel says that a client has taken something only once it has taken a third of what the
/// kernel holds, which may be megabytes, and a slow reader looks like none.
pub fn hear_readers(stream: &TcpStream) {
    let _ = setsockopt(stream, NotsentLowat, &UNSENT_BYTES);
}

/// Else a peer that vanished without a word looks like one that is silent.
pub fn hear_loss(stream: &TcpStream) {
    let _ = setsockopt(stream, sockopt::TcpKeepIdle, &SILENT_S);
    let _ = setsockopt(stream, sockopt::TcpKeepInterval, &ASK_EVERY_S);
    let _ = setsockopt(stream, sockopt::TcpKeepCount, &ASK_TIMES);
    let _ = setsockopt(stream, sockopt::KeepAlive, &true);
}

/// The half of a connection that is written.
pub trait Written: AsyncWrite {
    /// Whether the peer sends no more, be it that what it has sent is not read yet.
    fn is_hung_up(&self) -> bool {
        false
    }

    /// How much the kernel holds that the peer has not taken, where it says so.
    fn unread(&self) -> u32 {
        0
    }

    /// Whether the peer is given up where it does not take what is written. The kernel asks nothing
    /// of one that owes it an answer, but gives up too on one that is there and does not read, so
    /// this is for those that are silent.
    fn give_up(&self, whether: bool) {
        let _ = whether;
    }
}

impl Written for Sink {}

#[cfg(test)]
impl Written for tokio::io::WriteHalf<tokio::io::DuplexStream> {}

impl Written for tcp::OwnedWriteHalf {
    fn is_hung_up(&self) -> bool {
        hung_up(self.as_ref().as_fd())
    }

    fn unread(&self) -> u32 {
        getsockopt(self.as_ref(), Held).map_or(0, |held| held[QUEUED])
    }

    fn give_up(&self, whether: bool) {
        let within_ms = if whether { TAKE_WITHIN_MS } else { 0 };
        let _ = setsockopt(self.as_ref(), sockopt::TcpUserTimeout, &within_ms);
    }
}

impl Written for unix::OwnedWriteHalf {
    fn is_hung_up(&self) -> bool {
        hung_up(self.as_ref().as_fd())
    }

    fn unread(&self) -> u32 {
        getsockopt(self.as_ref(), Held).map_or(0, |held| held[SENT])
    }
}

fn hung_up(socket: BorrowedFd<'_>) -> bool {
    // That it is gone for good is told unasked.
    let sends_no_more = PollFlags::from_bits_retain(libc::POLLRDHUP);
    let mut asked = [PollFd::new(socket, sends_no_more)];
    poll(&mut asked, PollTimeout::ZERO).is_ok_and(|n| n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_peer_is_asked_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            assert!(!getsockopt(&stream, sockopt::KeepAlive).unwrap());
            hear_loss(&stream);
            assert!(getsockopt(&stream, sockopt::KeepAlive).unwrap());
            assert_eq!(getsockopt(&stream, sockopt::TcpKeepIdle).unwrap(), SILENT_S);
            assert_eq!(getsockopt(&stream, sockopt::TcpKeepInterval).unwrap(), ASK_EVERY_S);
            assert_eq!(getsockopt(&stream, sockopt::TcpKeepCount).unwrap(), ASK_TIMES);
        });
    }
}
