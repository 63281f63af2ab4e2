//! All streams' records to a writer that may block, as standard output does: on a thread of its
//! own, behind a bounded outbox, so that it slows nobody.

use std::future::poll_fn;
use std::io::{Error, ErrorKind, Write};
use std::rc::Rc;

use tokio::task::spawn_blocking;

use super::hub::Hub;
use super::outbox::counted;
use super::subscriber::Subscription;
use super::{Notice, Notices};

/// Where records go besides their clients; what it takes at once is written.
pub type Records = Box<dyn Write + Send>;

/// Copies what the subscription hears, until it ends or nobody reads any more. What cannot be written
/// is counted as missed, and said once until something can.
pub async fn copy(hub: Rc<Hub>, mut subscription: Subscription, out: Records, notice: Notices) {
    let mut output = Output { out, is_torn: false };
    let mut is_failing = false;
    while let Some(batch) = poll_fn(|cx| subscription.poll(cx)).await {
        let writing = spawn_blocking(move || {
            let written = output.write(&batch);
            (output, written)
        });
        // A thread that panicked has written what it could.
        let Ok((own, written)) = writing.await else { return };
        output = own;
        match written {
            Ok(()) => is_failing = false,
            Err((_, error)) if error.kind() == ErrorKind::BrokenPipe => return,
            Err((missed, error)) => {
                hub.meters.missed(missed);
                if !std::mem::replace(&mut is_failing, true) {
                    notice(Notice::Warning(format!(
                        "records cannot be written to standard output: {error}; until they can, they \
                         are missed"
                    )));
                }
            }
        }
    }
}

/// Where batches of lines are written.
struct Output {
    out: Records,
    /// The last line is not whole.
    is_torn: bool,
}

impl Output {
    /// Writes whole lines; an error comes with the number of those that are not told whole.
    fn write(&mut self, batch: &[u8]) -> Result<(), (u64, Error)> {
        let mut written = 0;
        let error = loop {
            let rest = &batch[written..];
            if rest.is_empty() {
                return self.out.flush().map_err(|error| (0, error));
            }
            match self.out.write(if self.is_torn { b"\n" } else { rest }) {
                Ok(0) => break ErrorKind::WriteZero.into(),
                Ok(_) if self.is_torn => self.is_torn = false,
                Ok(n) => written += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) => break error,
            }
        };
        let whole = batch[..written].iter().rposition(|byte| *byte == b'\n');
        let whole = whole.map_or(0, |at| at + 1);
        self.is_torn |= whole < written;
        Err((counted(&batch[whole..]), error))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Takes so many bytes, a few at once, and then none until there is room again.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let (taken, room) = &mut *self.0.lock().unwrap();
            let n = bytes.len().min(3).min(*room);
            if n == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            taken.extend_from_slice(&bytes[..n]);
            *room -= n;
            Ok(n)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn of_every_line_it_is_told_or_counted_and_what_follows_a_torn_one_is_whole() {
        let batch: String = (0..10).map(|k| format!("line {k}\n")).collect();
        for room in 0..=batch.len() {
            let disk = Disk::default();
            disk.0.lock().unwrap().1 = room;
            let mut output = Output { out: Box::new(disk.clone()), is_torn: false };
            let missed = output.write(batch.as_bytes()).map_or_else(|(missed, _)| missed, |()| 0);
            let whole = disk.0.lock().unwrap().0.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(whole as u64 + missed, 10, "{room}");
            // Still no room.
            let full = output.write(b"gone\n").map_err(|(missed, error)| (missed, error.kind()));
            assert_eq!(full, Err((1, ErrorKind::StorageFull)));
            disk.0.lock().unwrap().1 = 100;
            output.write(batch.as_bytes()).unwrap();
            let told = String::from_utf8(disk.0.lock().unwrap().0.clone()).unwrap();
            let (before, after) = told.split_at(told.len() - batch.len());
            assert_eq!(after, batch, "{room}");
            assert!(before.is_empty() || before.ends_with('\n'), "{room}: {before}");
        }
    }
}
