//! Keeps the state of named streams in files, one a stream, and gives it back. One thread does
//! all that, in order: a state is read after whatever was to be written before, and no disk, full
//! or slow, holds up the engine.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::config::StreamConfig;
use super::hello::check_name;
use super::snapshot::{MAX_SNAPSHOT_BYTES, Settings, Snapshot};
use crate::error::{Error, Result};
use crate::ingest::{Ingest, IngestState, Reading};
use crate::nn::Network;
use crate::session::{Rules, Session, SlotState};
use crate::source::read_bounded;
use crate::store;
use crate::telemetry::{SnapshotMeters, SnapshotResult};

/// What follows the stream's name in a file's name.
const EXTENSION: &str = "dvs-state";
/// Most streams whose states are kept.
const MAX_FILES: usize = 4096;
/// How often files that are too old are looked for, unless states last less long.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const SWEEP_EVERY_AT_LEAST: Duration = Duration::from_secs(1);
/// Most bytes that wait to be written.
const MAX_QUEUED_BYTES: usize = 64 << 20;

/// Where states are kept, and how.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// The folder, which is made if need be.
    pub folder: PathBuf,
    /// Time after which a state is not gone on from any more, and its file is removed.
    pub within: Duration,
}

/// What is told of states, by either side of the thread.
#[derive(Clone)]
struct Teller {
    folder: PathBuf,
    meters: SnapshotMeters,
    warn: UnboundedSender<String>,
}

impl Teller {
    fn path(&self, stream: &str) -> PathBuf {
        self.folder.join(format!("{stream}.{EXTENSION}"))
    }

    fn say(&self, what: String) {
        // Nobody hears when the server has ended.
        let _ = self.warn.send(what);
    }

    /// The stream's state is not gone on from.
    fn unusable(&self, stream: &str, Unusable(result, why): Unusable) {
        self.meters.count(result);
        if result != SnapshotResult::Expired {
            let path = self.path(stream);
            self.say(format!("{}: {why}; the stream starts afresh", path.display()));
        }
    }
}

impl Keeping {
    /// Makes the folder and tries to write there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn prepare(&self) -> Result<()> {
        let trial = self.folder.join(".trial");
        let made = std::fs::create_dir_all(&self.folder).map_err(|source| Error::Io {
            what: format!("cannot make the folder {}", self.folder.display()),
            source,
        });
        made.and_then(|()| store::replace(&trial, b"dvs-stream"))?;
        // What is left of it harms nobody.
        let _ = std::fs::remove_file(&trial);
        Ok(())
    }
}

/// Hears whether a state was written.
pub type Reply = UnboundedSender<bool>;

/// Gives the keeper's thread its work. Whoever holds one may be on any thread.
#[derive(Clone)]
pub struct Keeper {
    jobs: Sender<Job>,
    queued: Arc<AtomicUsize>,
    teller: Teller,
    /// Digest of the model's file.
    model: Arc<str>,
}

/// A stream whose state is kept.
#[derive(Clone)]
pub struct Kept {
    keeper: Keeper,
    stream: String,
    settings: Settings,
}

enum Job {
    Write { stream: String, bytes: Result<Vec<u8>>, replies: Vec<Reply> },
    Read { stream: String, settings: Box<Settings>, reply: oneshot::Sender<Option<Box<Snapshot>>> },
    End(oneshot::Sender<()>),
}

impl Keeper {
    /// Starts the thread; what it cannot do, it says to `warn`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        keeping: &Keeping,
        network: Arc<Network>,
        model: &str,
        rules: Rules,
        warn: UnboundedSender<String>,
    ) -> Result<Self> {
        let (jobs, taken) = channel();
        let (folder, meters) = (keeping.folder.clone(), SnapshotMeters::default());
        let teller = Teller { folder, meters, warn };
        let keeper =
            Keeper { jobs, queued: Arc::default(), teller: teller.clone(), model: model.into() };
        let worker = Worker {
            keeping: keeping.clone(),
            trial: Session::new(network, rules, 1)?,
            kept: HashSet::new(),
            failing: false,
            queued: keeper.queued.clone(),
            teller,
        };
        let thread = std::thread::Builder::new().name("states".to_owned());
        thread.spawn(move || worker.run(&taken)).map_err(|source| Error::Io {
            what: "cannot start the thread that keeps states".to_owned(),
            source,
        })?;
        Ok(keeper)
    }

    /// A stream of this name, which [`check_name`] has passed, that is taken like this.
    pub fn stream(&self, name: &str, config: &StreamConfig) -> Kept {
        let settings = Settings::of(config, &self.model);
        Kept { keeper: self.clone(), stream: name.to_owned(), settings }
    }

    /// Waits until all that was to be written is.
    pub async fn end(&self) {
        let (reply, ended) = oneshot::channel();
        self.give(Job::End(reply));
        // The thread is gone, and so is what it had to do.
        let _ = ended.await;
    }

    fn give(&self, job: Job) {
        // The thread lives as long as this does.
        let _ = self.jobs.send(job);
    }

    fn write(&self, stream: String, bytes: Result<Vec<u8>>, replies: Vec<Reply>) {
        let length = bytes.as_ref().map_or(0, Vec::len);
        let queued = self.queued.fetch_add(length, Ordering::Relaxed);
        let bytes = if queued + length <= MAX_QUEUED_BYTES {
            bytes
        } else {
            self.queued.fetch_sub(length, Ordering::Relaxed);
            Err(Error::Unsupported(format!("{queued} bytes wait to be written before it")))
        };
        self.give(Job::Write { stream, bytes, replies });
    }
}

impl Kept {
    /// Where the stream may go on.
    pub async fn recall(&self) -> Option<Box<Snapshot>> {
        let (reply, recalled) = oneshot::channel();
        let settings = Box::new(self.settings.clone());
        self.keeper.give(Job::Read { stream: self.stream.clone(), settings, reply });
        recalled.await.unwrap_or_default()
    }

    /// The state could not be had so soon, and the stream is to start afresh.
    pub fn give_up(&self, within: Duration) {
        let why = format!("it could not be read within {} s", within.as_secs_f64());
        self.keeper.teller.unusable(&self.stream, Unusable(SnapshotResult::Damaged, why));
    }

    /// Takes the state of the stream's slot, and has it written with that of its ingest.
    pub fn saver(
        &self,
        ingest: IngestState,
        ended: bool,
        replies: Vec<Reply>,
    ) -> impl FnOnce(SlotState) + Send + 'static {
        let Kept { keeper, stream, settings } = self.clone();
        move |slot| {
            let snapshot = Snapshot::new(&stream, settings, ended, ingest, slot);
            keeper.write(stream, snapshot.to_bytes(), replies);
        }
    }
}

/// The thread's side.
struct Worker {
    keeping: Keeping,
    /// What a state is tried in before a stream goes on from it.
    trial: Session,
    /// Streams that have a file.
    kept: HashSet<String>,
    /// The last state could not be written; said once until one can.
    failing: bool,
    queued: Arc<AtomicUsize>,
    teller: Teller,
}

/// Why a state is not gone on from.
struct Unusable(SnapshotResult, String);

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        let every = self.keeping.within.clamp(SWEEP_EVERY_AT_LEAST, SWEEP_EVERY);
        self.sweep();
        let mut swept = Instant::now();
        loop {
            match jobs.recv_timeout(every.saturating_sub(swept.elapsed())) {
                Ok(job) => self.work(job),
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if swept.elapsed() >= every {
                self.sweep();
                swept = Instant::now();
            }
        }
    }

    fn work(&mut self, job: Job) {
        match job {
            Job::Write { stream, bytes, replies } => {
                let written = self.write(&stream, bytes);
                for reply in replies {
                    // Who does not wait any more need not know.
                    let _ = reply.send(written);
                }
            }
            Job::Read { stream, settings, reply } => {
                // A client that has gone, or has waited long enough, wants it no more.
                if !reply.is_closed() {
                    let _ = reply.send(self.read(&stream, &settings));
                }
            }
            Job::End(reply) => {
                let _ = reply.send(());
            }
        }
    }

    fn write(&mut self, stream: &str, bytes: Result<Vec<u8>>) -> bool {
        self.queued.fetch_sub(bytes.as_ref().map_or(0, Vec::len), Ordering::Relaxed);
        let is_full = |kept: &HashSet<String>| !kept.contains(stream) && kept.len() >= MAX_FILES;
        if is_full(&self.kept) {
            self.sweep();
        }
        let full = is_full(&self.kept);
        let written = bytes.and_then(|bytes| match full {
            true => Err(Error::Unsupported(format!("{MAX_FILES} others are kept already"))),
            false => store::replace(&self.teller.path(stream), &bytes),
        });
        let result = match &written {
            Ok(()) => SnapshotResult::Written,
            Err(_) => SnapshotResult::Failed,
        };
        self.teller.meters.count(result);
        match &written {
            Ok(()) => {
                self.kept.insert(stream.to_owned());
            }
            Err(error) if !self.failing => self.teller.say(format!(
                "the state of stream {stream} cannot be kept, so it may not go on from here: {error}"
            )),
            Err(_) => (),
        }
        self.failing = written.is_err();
        written.is_ok()
    }

    fn read(&mut self, stream: &str, settings: &Settings) -> Option<Box<Snapshot>> {
        let bytes = read_bounded(&self.teller.path(stream), MAX_SNAPSHOT_BYTES);
        if matches!(&bytes, Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound) {
            return None;
        }
        match self.usable(bytes, stream, settings) {
            Ok(snapshot) => {
                self.teller.meters.count(SnapshotResult::Resumed);
                Some(Box::new(snapshot))
            }
            Err(unusable) => {
                self.teller.unusable(stream, unusable);
                None
            }
        }
    }

    fn usable(
        &mut self,
        bytes: Result<Vec<u8>>,
        stream: &str,
        settings: &Settings,
    ) -> std::result::Result<Snapshot, Unusable> {
        let damaged = |error: Error| Unusable(SnapshotResult::Damaged, error.to_string());
        let other = |what: &str| Unusable(SnapshotResult::Other, format!("it is of {what}"));
        let snapshot = bytes.and_then(|bytes| Snapshot::from_bytes(&bytes)).map_err(damaged)?;
        let snapshot = snapshot.ok_or_else(|| other("another version of dvs-stream"))?;
        if snapshot.stream != stream {
            return Err(other("another stream"));
        }
        if let Some(what) = snapshot.settings.difference(settings) {
            return Err(other(what));
        }
        if snapshot.age() >= self.keeping.within {
            return Err(Unusable(SnapshotResult::Expired, String::new()));
        }
        let mut ingest = Ingest::new(Reading::default(), settings.window, None);
        self.trial.open(0, settings.rules);
        let fits = ingest.restore(&snapshot.ingest);
        fits.and_then(|()| self.trial.restore(0, &snapshot.slot)).map_err(damaged)?;
        Ok(snapshot)
    }

    /// Removes files that are too old, and sees which are left.
    fn sweep(&mut self) {
        self.kept.clear();
        let Ok(entries) = std::fs::read_dir(&self.keeping.folder) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let named = |path: &Path| {
                let own = path.extension().is_some_and(|extension| extension == EXTENSION);
                path.file_stem().and_then(|stem| stem.to_str()).filter(|_| own).map(str::to_owned)
            };
            let Some(stream) = named(&path).filter(|stream| check_name(stream).is_ok()) else {
                continue;
            };
            let age = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .map(|modified| SystemTime::now().duration_since(modified).unwrap_or_default());
            let old = age.is_ok_and(|age| age >= self.keeping.within);
            if old && std::fs::remove_file(&path).is_ok() {
                self.teller.meters.count(SnapshotResult::Expired);
            } else {
                self.kept.insert(stream);
            }
        }
    }
}
