//! All streams' records to a writer that may block, as standard output does: on a thread of its
//! own, behind a bounded outbox, so that it slows nobody.

use std::future::poll_fn;
use std::io::Write;

use tokio::sync::mpsc;

use super::subscriber::Subscription;

/// Where records go besides their clients.
pub type Records = Box<dyn Write + Send>;

/// Copies what the subscription hears, until it ends or nobody reads any more.
pub async fn copy(mut subscription: Subscription, mut out: Records) {
    let (batches, mut taken) = mpsc::channel::<Vec<u8>>(1);
    let writing = tokio::task::spawn_blocking(move || {
        while let Some(batch) = taken.blocking_recv() {
            if out.write_all(&batch).and_then(|()| out.flush()).is_err() {
                return;
            }
        }
    });
    while let Some(batch) = poll_fn(|cx| subscription.poll(cx)).await {
        if batches.send(batch).await.is_err() {
            return;
        }
    }
    drop(batches);
    // A thread that panicked has written what it could.
    let _ = writing.await;
}
