//! `replay`: recordings through a model. It is `serve` with files for streams: reading threads
//! feed rings, the engine steps, an outlet writes.

mod player;
mod printer;
mod record;

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ingest::Reading;
use crate::model::Model;
use crate::progress::Progress;
use crate::session::{Rules, Session};
use crate::sink::Sink;
use crate::window::WindowConfig;

use player::Player;
use printer::Printer;

pub use record::is_known as is_known_record;

/// What to replay, and how.
pub struct Replay {
    /// Recordings; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// How they are read.
    pub reading: Reading,
    /// How they are cut into windows.
    pub window: WindowConfig,
    /// How voltages become answers.
    pub rules: Rules,
    /// Sensor seconds a second; `None` is as fast as it goes.
    pub speed: Option<f64>,
    /// Passes over each recording.
    pub passes: u64,
    /// Recordings at once.
    pub n_slots: usize,
    /// Each so many-th window is printed.
    pub every: u64,
    /// Predictions go to the progress bar while it is drawn, not to the output.
    pub live: bool,
    /// Each cause of a failure is told in a line of its own.
    pub verbose: bool,
    /// Where every neuron's state after every window goes; for one recording.
    pub record: Option<PathBuf>,
}

/// Replays all recordings; gives the highest exit code of those that failed, else 0. Records go to
/// `out` through `sink`, diagnostics to standard error; `stop` ends every stream early, with its
/// summary.
///
/// # Errors
/// When the network fails or the record file cannot be written.
pub fn run(
    model: &Model,
    replay: &Replay,
    sink: Box<dyn Sink>,
    out: &mut (dyn Write + Send),
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<u8> {
    let mut session = Session::new(model.network.clone(), replay.rules, replay.n_slots)?;
    if replay.record.is_some() {
        session.start_trace();
    }
    let (mut engine, port) = Engine::new(session, replay.window.window_us);
    let mut printer = Printer::new(sink, out, replay, progress);
    let (next, worst) = (AtomicUsize::new(0), AtomicU8::new(0));
    let ended = AtomicBool::new(false);
    let ran = std::thread::scope(|scope| {
        for n in 0..replay.n_slots.min(replay.files.len()) {
            let (port, next, worst, ended) = (port.clone(), &next, &worst, &ended);
            let read = move || {
                while let Some(path) = replay.files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let player = Player { path, replay, progress, stop, ended };
                    worst.fetch_max(player.play(&port), Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            };
            if let Err(source) = std::thread::Builder::new().spawn_scoped(scope, read) {
                let what = format!("only {n} recordings are read at once: no more threads");
                if n == 0 {
                    return Err(Error::Io { what, source });
                }
                // Those that are there take the rest.
                progress.note(&format!("warning: {what}: {source}"));
                break;
            }
        }
        drop(port);
        let ran = engine.run(&mut printer).map(|()| engine.into_session());
        // One that waits for a pipe would learn of it with the next bytes.
        ended.store(true, Ordering::Relaxed);
        ran
    });
    progress.clear();
    let mut session = ran?;
    let times_us = printer.finish()?;
    let worst = worst.into_inner();
    // Where nothing was read, an older record stays.
    let was_read = matches!(worst, 0 | 1) || !times_us.is_empty();
    if let (Some(path), Some(trace), true) = (&replay.record, session.take_trace(), was_read) {
        record::write(path, &trace, &times_us)?;
    }
    Ok(worst)
}
