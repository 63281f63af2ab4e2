//! When silence completes a live stream's windows: sensor time goes on from the last event as wall
//! time does, and the windows follow it at a distance, so that events which were under way for
//! longer than those before them are not late.
//!
//! Counts and times; knows no socket.

use std::time::Duration;

use tokio::time::Instant;

use crate::ingest::Ingest;

/// What is known of a stream's silence.
pub struct Idle {
    /// How far windows stay behind; zero: silence completes none.
    behind: Duration,
    /// When the last event came.
    heard: Instant,
    events: u64,
}

impl Idle {
    /// A stream that has not begun.
    pub fn new(behind: Duration) -> Self {
        Idle { behind, heard: Instant::now(), events: 0 }
    }

    /// Looks whether events have come by now.
    pub fn look(&mut self, ingest: &Ingest) {
        if self.behind.is_zero() {
            return;
        }
        let events = ingest.totals().events;
        if events != self.events {
            (self.events, self.heard) = (events, Instant::now());
        }
    }

    /// The stream could not be heard until now: what it was is not silence.
    pub fn forgive(&mut self, now: Instant) {
        self.heard = now;
    }

    /// When silence completes the next window, if it does.
    pub fn due(&self, ingest: &Ingest) -> Option<Instant> {
        let after_us = ingest.due_after_us().filter(|_| !self.behind.is_zero())?;
        self.heard.checked_add(self.behind)?.checked_add(Duration::from_micros(after_us))
    }

    /// The sensor time up to which windows are complete.
    pub fn complete_us(&self, ingest: &Ingest, now: Instant) -> u64 {
        let silent = now.saturating_duration_since(self.heard).saturating_sub(self.behind);
        let silent_us = u64::try_from(silent.as_micros()).unwrap_or(u64::MAX);
        ingest.last_us().saturating_add(silent_us)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};
    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::sleep;

    use super::super::client::Client;
    use super::super::hub::Hub;
    use super::super::limits::{Flow, Limits, Overflow};
    use super::super::{About, Serve, StreamConfig, connection};
    use super::*;
    use crate::ingest::Reading;
    use crate::model::Model;
    use crate::session::{Rules, Session, windows_of};
    use crate::sink::{Labels, Style, by_name};

    const SHIPPED: &[u8] = include_bytes!("../../models/poker.safetensors");

    /// A server whose clients' windows are completed by silence, in a world where time passes only
    /// when nobody has anything to do.
    fn serving<T>(idle: Duration, play: impl AsyncFnOnce(Rc<Hub>) -> T) -> T {
        let model = Model::from_bytes(SHIPPED).unwrap();
        let card = &model.card;
        let flow = Flow { overflow: Overflow::Wait, idle };
        let serve = Serve {
            tcp: None,
            unix: None,
            http: None,
            token_file: None,
            config: StreamConfig {
                reading: Reading::default(),
                window: windows_of(&model),
                rules: Rules::of(&model),
            },
            udp: Vec::new(),
            dial: Vec::new(),
            keeping: None,
            spin: false,
            limits: Limits { tcp: flow, outbox_bytes: 128 << 10, ..Limits::default() },
        };
        let session = Session::new(model.network.clone(), serve.config.rules, 1).unwrap();
        let labels = Labels { labels: card.labels.clone(), display: card.display.clone() };
        let style = Style { labels, window_us: card.window_us, ..Style::default() };
        let sink = (by_name("jsonl").unwrap().make)(&style);
        let about = About::new("poker", SHIPPED, &model);
        let (hub, engine) = Hub::new(&serve, about, session, sink, Arc::default(), None).unwrap();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let driving = spawn_local({
                let hub = hub.clone();
                async move { hub.drive(engine).await }
            });
            let played = play(hub).await;
            driving.abort();
            played
        })
    }

    /// Milliseconds with ten events each.
    fn recording(windows: u32) -> Vec<u8> {
        let event = |t_us: u32| [(t_us % 35) << 1 | (t_us / 7 % 35) << 8, t_us];
        let words = (0..windows * 10).map(|k| 100 * k).flat_map(event).flat_map(u32::to_be_bytes);
        b"#!AER-DAT2.0\r\n".iter().copied().chain(words).collect()
    }

    /// What a client gets that reads nothing for `deaf`, and ends its sending after `silent`.
    async fn played(hub: Rc<Hub>, deaf: Duration, silent: Duration) -> String {
        let (theirs, ours) = duplex(4096);
        let ((reader, writer), flow) = (split(theirs), hub.limits.tcp);
        let name = "client".to_owned();
        let client = Rc::new(Client::new(Box::new(writer), &name, hub.limits.outbox_bytes));
        let known = hub.meet(&client);
        spawn_local(connection::serve(hub, (client, known), Box::new(reader), name, flow));
        let (mut reader, mut writer) = split(ours);
        spawn_local(async move {
            writer.write_all(&recording(3000)).await.unwrap();
            sleep(silent).await;
            writer.shutdown().await.unwrap();
        });
        sleep(deaf).await;
        let mut lines = String::new();
        reader.read_to_string(&mut lines).await.unwrap();
        lines
    }

    #[test]
    fn who_is_held_back_is_not_silent() {
        let minute = Duration::from_secs(60);
        let never = async |hub: Rc<Hub>| played(hub, Duration::ZERO, Duration::ZERO).await;
        let expected = serving(Duration::ZERO, never);
        assert_eq!(expected.lines().count(), 3000 + 2);
        let deaf = async |hub: Rc<Hub>| played(hub, minute, Duration::ZERO).await;
        assert_eq!(serving(Duration::from_millis(10), deaf), expected);
        // True silence is heard: windows without events follow until the gap ends the segment.
        let silent = async |hub: Rc<Hub>| {
            let gap = hub.config.window.gap_us / hub.config.window.window_us;
            (gap, played(hub, Duration::ZERO, minute).await)
        };
        let (gap, silence) = serving(Duration::from_millis(10), silent);
        assert_eq!(silence.lines().count() as u64, 3000 + gap - 1 + 2);
    }
}
