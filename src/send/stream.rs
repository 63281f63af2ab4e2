//! A connection to a server: bytes go out, and what the server answers is heard meanwhile.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::target::Target;
use crate::error::{Error, Result, printable};

/// How long a server may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a blocked connection is left to see whether to stop.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long a server that says nothing is waited for after the last event, unless its answers are
/// to be printed.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Longest answer that is looked at.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// A TCP or UNIX socket.
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(target: &Target) -> Result<Socket> {
        let connected = match target {
            Target::Unix(path) => UnixStream::connect(path).map(Socket::Unix),
            Target::Tcp(address) => connect_tcp(address).map(Socket::Tcp),
            Target::Udp { .. } | Target::Dv(_) => Err(ErrorKind::Unsupported.into()),
        };
        let ready = connected.and_then(|socket| socket.patient().map(|()| socket));
        // A socket that is not there is an absent receiver, not a file that was named wrongly.
        let absent = |source| Error::Io {
            what: format!("no receiver at {target}"),
            source: io::Error::other::<io::Error>(source),
        };
        ready.map_err(absent)
    }

    fn patient(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(socket) => patient_tcp(socket),
            Socket::Unix(socket) => {
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.set_write_timeout(Some(PATIENCE))
            }
        }
    }

    fn try_clone(&self) -> io::Result<Socket> {
        match self {
            Socket::Tcp(socket) => socket.try_clone().map(Socket::Tcp),
            Socket::Unix(socket) => socket.try_clone().map(Socket::Unix),
        }
    }

    fn shutdown(&self, how: Shutdown) {
        // It may be closed already.
        let _ = match self {
            Socket::Tcp(socket) => socket.shutdown(how),
            Socket::Unix(socket) => socket.shutdown(how),
        };
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.read(buffer),
            Socket::Unix(socket) => socket.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(socket) => socket.write(bytes),
            Socket::Unix(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn connect_tcp(address: &str) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// What is written leaves at once, and nothing blocks for long.
pub fn patient_tcp(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))
}

/// Writes all of the bytes, as slowly as the receiver takes them.
///
/// # Errors
/// As the socket says; [`ErrorKind::Interrupted`] where `stop` is set meanwhile.
pub fn write_all(socket: &mut dyn Write, mut bytes: &[u8], stop: &AtomicBool) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(error) if is_pause(&error) => {
                if stop.load(Ordering::Relaxed) {
                    return Err(ErrorKind::Interrupted.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// The sending half of a connection.
pub struct Sending<'a> {
    socket: Socket,
    target: &'a Target,
    stop: &'a AtomicBool,
    /// Bytes sent.
    pub n_bytes: u64,
}

impl Sending<'_> {
    /// Sends all of the bytes.
    ///
    /// # Errors
    /// When the receiver goes away, or the user interrupts.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        write_all(&mut self.socket, bytes, self.stop).map_err(|source| match source.kind() {
            ErrorKind::Interrupted => Error::Stopped,
            _ => Error::Io { what: format!("the receiver at {} went away", self.target), source },
        })?;
        self.n_bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Connects, has `play` send, closes the sending half and hears the server out. Its answers go to
/// `answers`, where they are wanted.
///
/// # Errors
/// As `play`; and where the server answers with an error, its message.
pub fn converse(
    target: &Target,
    answers: Option<&mut (dyn Write + Send)>,
    stop: &AtomicBool,
    play: impl FnOnce(&mut Sending<'_>) -> Result<()>,
) -> Result<()> {
    let socket = Socket::connect(target)?;
    let cloned = |source| Error::Io { what: format!("the connection to {target}"), source };
    let heard = socket.try_clone().map_err(cloned)?;
    let is_sent = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let hearing = scope.spawn(|| hear(heard, answers, &is_sent, stop));
        let mut sending = Sending { socket, target, stop, n_bytes: 0 };
        let played = play(&mut sending);
        sending.socket.shutdown(Shutdown::Write);
        is_sent.store(true, Ordering::Relaxed);
        match (hearing.join().unwrap_or_default(), played) {
            (Heard { refusal: Some(message), .. }, _) => {
                let what = format!("the receiver at {target} says");
                Err(Error::Io { what, source: std::io::Error::other(message) })
            }
            (Heard { unwritten: Some(source), .. }, _) => match source.kind() {
                // Whoever reads the answers has had enough.
                ErrorKind::BrokenPipe => Ok(()),
                _ => Err(Error::Io { what: "cannot write the answers".to_owned(), source }),
            },
            (_, played) => played,
        }
    })
}

#[derive(Default)]
struct Heard {
    /// The message of an error record.
    refusal: Option<String>,
    /// Why no more answers could be written.
    unwritten: Option<io::Error>,
}

fn hear(
    socket: Socket,
    mut answers: Option<&mut (dyn Write + Send)>,
    is_sent: &AtomicBool,
    stop: &AtomicBool,
) -> Heard {
    let is_printing = answers.is_some();
    let mut reader = BufReader::new(socket);
    let (mut heard, mut line) = (Heard::default(), Vec::new());
    let mut silent_since = None;
    loop {
        let most = MAX_ANSWER_BYTES.saturating_sub(line.len() as u64).max(1);
        let read = reader.by_ref().take(most).read_until(b'\n', &mut line);
        match read {
            Ok(0) => break,
            Ok(_) => {
                silent_since = None;
                if !line.ends_with(b"\n") && (line.len() as u64) < MAX_ANSWER_BYTES {
                    continue;
                }
                heard.refusal = heard.refusal.take().or_else(|| error_message(&line));
                if let Some(out) = &mut answers
                    && let Err(error) = out.write_all(&line).and_then(|()| out.flush())
                {
                    heard.unwritten = Some(error);
                    break;
                }
                line.clear();
            }
            Err(error) if is_pause(&error) => {
                let is_over = is_sent.load(Ordering::Relaxed) && !is_printing;
                let since = silent_since.filter(|_| is_over).unwrap_or_else(Instant::now);
                silent_since = Some(since);
                if stop.load(Ordering::Relaxed) || (is_over && since.elapsed() > LAST_WORDS) {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    if heard.unwritten.is_some() {
        // Ends the sending too.
        reader.get_ref().shutdown(Shutdown::Both);
    }
    heard
}

/// What a record of type `error` says.
fn error_message(line: &[u8]) -> Option<String> {
    let record: serde_json::Value = serde_json::from_slice(line).ok()?;
    let is_error = record.get("type")?.as_str()? == "error";
    let message = record.get("message")?.as_str()?;
    is_error.then(|| printable(message))
}
