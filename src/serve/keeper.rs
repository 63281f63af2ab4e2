//! Keeps the state of named streams in files, one a stream, and gives it back. One thread does all
//! that: a state that is asked for is read before others are written, but after the stream's own,
//! and no disk, full or slow, holds up the engine.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::config::StreamConfig;
use super::hello::check_name;
use super::snapshot::{MAX_SNAPSHOT_BYTES, Settings, Snapshot};
use super::{Notice, Notices};
use crate::error::{Error, Result};
use crate::ingest::{Ingest, IngestState, Reading};
use crate::nn::Network;
use crate::session::{MAX_STREAMS, Rules, Session, SlotState};
use crate::source::read_bounded;
use crate::store;
use crate::telemetry::{SnapshotMeters, SnapshotResult};

/// What follows the stream's name in a file's name.
const EXTENSION: &str = "dvs-state";
/// Most streams whose states are kept.
const MAX_FILES: usize = MAX_STREAMS as usize;
/// How often files that are too old are looked for, unless states last less long.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const SWEEP_EVERY_AT_LEAST: Duration = Duration::from_secs(1);
/// Age from which a file that is not complete belongs to a server that was killed.
const PART_LASTS: Duration = Duration::from_secs(60);
/// Most bytes that wait to be written, and most states that wait to be written or read: all streams
/// may end at once while a periodic state of each waits.
const MAX_QUEUED_BYTES: usize = 256 << 20;
const MAX_QUEUED: usize = 2 * MAX_STREAMS as usize;
/// Time for which a disk may be at one state, at least, before no more are given to it.
const ANSWERS_WITHIN_AT_LEAST: Duration = Duration::from_secs(1);
/// A state is written again after so long, even if nothing has come: it tells that the stream was
/// there.
const REFRESH: Duration = Duration::from_secs(60);
/// Pause where there is no room for the last word.
const END_PAUSE: Duration = Duration::from_millis(10);

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
    notice: Notices,
    /// A state could not be written; said once until none waits.
    failing: Arc<AtomicBool>,
    /// States that could not be written.
    failures: Arc<AtomicUsize>,
}

impl Teller {
    fn path(&self, stream: &str) -> PathBuf {
        self.folder.join(format!("{stream}.{EXTENSION}"))
    }

    fn say(&self, what: String) {
        (self.notice)(Notice::Warning(what));
    }

    /// A state was written that stands for so many; `all` where no other waits to be.
    fn written(&self, states: u64, all: bool) {
        self.meters.count(SnapshotResult::Written, states);
        if all {
            self.failing.store(false, Ordering::Relaxed);
        }
    }

    fn failed(&self, stream: &str, states: u64, error: &Error) {
        self.meters.count(SnapshotResult::Failed, states);
        self.failures.fetch_add(1, Ordering::Relaxed);
        if !self.failing.swap(true, Ordering::Relaxed) {
            self.say(format!(
                "the state of stream {stream} cannot be kept, so it may not go on from here: {error}"
            ));
        }
    }

    /// The stream's state is not gone on from.
    fn unusable(&self, stream: &str, Unusable(result, why): Unusable) {
        self.meters.count(result, 1);
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
    jobs: SyncSender<Job>,
    queued: Arc<AtomicUsize>,
    busy_since: Arc<Mutex<Option<Instant>>>,
    /// Time for which the disk may be at one state.
    answers_within: Duration,
    /// Time for which a state lasts.
    within: Duration,
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
    /// When a state was last taken, where the stream stood, and how many states had failed.
    taken: Option<(Instant, (u64, usize), usize)>,
}

enum Job {
    Write(Write),
    Read { stream: String, settings: Box<Settings>, reply: oneshot::Sender<Option<Box<Snapshot>>> },
    End(oneshot::Sender<()>),
}

/// A state that is to be written.
struct Write {
    snapshot: Box<Snapshot>,
    replies: Vec<Reply>,
    /// It stands for so many: itself, and earlier ones that it came before the writing of.
    states: u64,
}

/// States that are to be written, one a stream, in order of arrival.
#[derive(Default)]
struct Waiting {
    order: VecDeque<String>,
    writes: HashMap<String, Write>,
}

impl Waiting {
    /// A later state takes an earlier one's place, which is given back.
    fn add(&mut self, mut write: Write) -> Option<Box<Snapshot>> {
        let stream = write.snapshot.stream.clone();
        let earlier = self.writes.remove(&stream).map(|earlier| {
            write.replies.extend(earlier.replies);
            write.states += earlier.states;
            earlier.snapshot
        });
        if earlier.is_none() {
            self.order.push_back(stream.clone());
        }
        self.writes.insert(stream, write);
        earlier
    }

    fn of(&mut self, stream: &str) -> Option<Write> {
        self.writes.remove(stream)
    }

    fn next(&mut self) -> Option<Write> {
        loop {
            let stream = self.order.pop_front()?;
            if let Some(write) = self.writes.remove(&stream) {
                return Some(write);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

impl Keeper {
    /// Starts the thread; what it cannot do, it says to `notice`. A disk that is at one state for
    /// longer than `answers_within` is given no more.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        keeping: &Keeping,
        network: Arc<Network>,
        model: &str,
        rules: Rules,
        notice: Notices,
        answers_within: Duration,
    ) -> Result<Self> {
        let (jobs, taken) = sync_channel(MAX_QUEUED);
        let (folder, meters) = (keeping.folder.clone(), SnapshotMeters::default());
        let (failing, failures) = Default::default();
        let teller = Teller { folder, meters, notice, failing, failures };
        let keeper = Keeper {
            jobs,
            queued: Arc::default(),
            busy_since: Arc::default(),
            answers_within: answers_within.max(ANSWERS_WITHIN_AT_LEAST),
            within: keeping.within,
            teller: teller.clone(),
            model: model.into(),
        };
        let worker = Worker {
            keeping: keeping.clone(),
            trial: Session::new(network, rules, 1)?,
            kept: HashSet::new(),
            queued: keeper.queued.clone(),
            busy_since: keeper.busy_since.clone(),
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
        Kept { keeper: self.clone(), stream: name.to_owned(), settings, taken: None }
    }

    /// Waits until all that was to be written is.
    pub async fn end(&self) {
        let (reply, ended) = oneshot::channel();
        let mut job = Job::End(reply);
        while let Err(TrySendError::Full(full)) = self.jobs.try_send(job) {
            job = full;
            sleep(END_PAUSE).await;
        }
        // The thread is gone, and so is what it had to do.
        let _ = ended.await;
    }

    /// Has a state written, unless so much waits already that the disk must be slow.
    fn write(&self, snapshot: Snapshot, replies: Vec<Reply>) {
        let (stream, length) = (snapshot.stream.clone(), snapshot.size());
        let queued = self.queued.fetch_add(length, Ordering::Relaxed);
        let job = Job::Write(Write { snapshot: Box::new(snapshot), replies, states: 1 });
        let refused = if queued + length > MAX_QUEUED_BYTES {
            Err((job, format!("{queued} bytes wait to be written before it")))
        } else if self.is_stuck() {
            let seconds = self.answers_within.as_secs_f64();
            Err((job, format!("the disk has been at another state for {seconds} s")))
        } else {
            self.jobs.try_send(job).map_err(|error| match error {
                TrySendError::Full(job) => (job, format!("{MAX_QUEUED} others wait before it")),
                TrySendError::Disconnected(job) => (job, "the server ends".to_owned()),
            })
        };
        if let Err((Job::Write(Write { replies, .. }), why)) = refused {
            self.queued.fetch_sub(length, Ordering::Relaxed);
            self.teller.failed(&stream, 1, &Error::Unsupported(why));
            for reply in replies {
                let _ = reply.send(false);
            }
        }
    }

    fn is_stuck(&self) -> bool {
        let since = *self.busy_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() >= self.answers_within)
    }
}

impl Kept {
    /// Where the stream may go on.
    pub async fn recall(&self) -> Option<Box<Snapshot>> {
        let (reply, recalled) = oneshot::channel();
        let settings = Box::new(self.settings.clone());
        let job = Job::Read { stream: self.stream.clone(), settings, reply };
        if self.keeper.jobs.try_send(job).is_err() {
            let why = format!("{MAX_QUEUED} others wait before it");
            self.keeper.teller.unusable(&self.stream, Unusable(SnapshotResult::Damaged, why));
        }
        recalled.await.unwrap_or_default()
    }

    /// The state could not be had so soon, and the stream is to start afresh.
    pub fn give_up(&self, within: Duration) {
        let why = format!("it could not be read within {} s", within.as_secs_f64());
        self.keeper.teller.unusable(&self.stream, Unusable(SnapshotResult::Damaged, why));
    }

    /// Whether the state of a stream that stands there, by its events and windows, was taken lately,
    /// and none has failed since.
    pub fn holds(&self, stands_at: (u64, usize)) -> bool {
        let lately = REFRESH.min(self.keeper.within / 2);
        let is_held = |(when, at, failures): (Instant, _, _)| {
            at == stands_at && failures == self.failures() && when.elapsed() < lately
        };
        self.taken.is_some_and(is_held)
    }

    fn failures(&self) -> usize {
        self.keeper.teller.failures.load(Ordering::Relaxed)
    }

    /// The state of a stream that stands there is being taken.
    pub fn note(&mut self, stands_at: (u64, usize)) {
        self.taken = Some((Instant::now(), stands_at, self.failures()));
    }

    /// Takes the state of the stream's slot, and has it written with that of its ingest.
    pub fn saver(
        &self,
        ingest: IngestState,
        ended: bool,
        replies: Vec<Reply>,
    ) -> impl FnOnce(SlotState) + Send + 'static {
        let Kept { keeper, stream, settings, .. } = self.clone();
        move |slot| {
            keeper.write(Snapshot::new(&stream, settings, ended, ingest, slot), replies);
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
    queued: Arc<AtomicUsize>,
    busy_since: Arc<Mutex<Option<Instant>>>,
    teller: Teller,
}

/// Why a state is not gone on from.
struct Unusable(SnapshotResult, String);

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        let every = self.keeping.within.clamp(SWEEP_EVERY_AT_LEAST, SWEEP_EVERY);
        self.sweep();
        let mut swept = Instant::now();
        let (mut waiting, mut ends) = (Waiting::default(), Vec::new());
        loop {
            let mut first = None;
            if waiting.is_empty() && ends.is_empty() {
                first = match jobs.recv_timeout(every.saturating_sub(swept.elapsed())) {
                    Ok(job) => Some(job),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                };
            }
            for job in first.into_iter().chain(jobs.try_iter().take(MAX_QUEUED)) {
                match job {
                    Job::Write(write) => {
                        let earlier = waiting.add(write);
                        let freed = earlier.map_or(0, |earlier| earlier.size());
                        self.queued.fetch_sub(freed, Ordering::Relaxed);
                    }
                    Job::Read { stream, settings, reply } => {
                        if let Some(write) = waiting.of(&stream) {
                            self.timed(|worker| worker.write(write));
                        }
                        // A client that has gone, or has waited long enough, wants it no more.
                        if !reply.is_closed() {
                            let read = self.timed(|worker| worker.read(&stream, &settings));
                            let _ = reply.send(read);
                        }
                    }
                    Job::End(reply) => ends.push(reply),
                }
            }
            match waiting.next() {
                Some(write) => self.timed(|worker| worker.write(write)),
                None => {
                    for reply in ends.drain(..) {
                        // Who does not wait any more need not know.
                        let _ = reply.send(());
                    }
                }
            }
            if swept.elapsed() >= every {
                self.sweep();
                swept = Instant::now();
            }
        }
    }

    /// Does something of which the disk may make much.
    fn timed<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        self.busy(Some(Instant::now()));
        let done = what(self);
        self.busy(None);
        done
    }

    fn busy(&self, since: Option<Instant>) {
        *self.busy_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn write(&mut self, Write { snapshot, replies, states }: Write) {
        let written = self.try_write(&snapshot, states);
        for reply in replies {
            // Who does not wait any more need not know.
            let _ = reply.send(written);
        }
    }

    fn try_write(&mut self, snapshot: &Snapshot, states: u64) -> bool {
        let stream = snapshot.stream.as_str();
        let waiting = self.queued.fetch_sub(snapshot.size(), Ordering::Relaxed) - snapshot.size();
        let is_full = |kept: &HashSet<String>| !kept.contains(stream) && kept.len() >= MAX_FILES;
        if is_full(&self.kept) {
            self.sweep();
        }
        let written = match is_full(&self.kept) {
            true => Err(Error::Unsupported(format!("{MAX_FILES} others are kept already"))),
            false => snapshot
                .to_bytes()
                .and_then(|bytes| store::replace(&self.teller.path(stream), &bytes)),
        };
        match &written {
            Ok(()) => {
                self.teller.written(states, waiting == 0);
                self.kept.insert(stream.to_owned());
            }
            Err(error) => self.teller.failed(stream, states, error),
        }
        written.is_ok()
    }

    fn read(&mut self, stream: &str, settings: &Settings) -> Option<Box<Snapshot>> {
        let bytes = read_bounded(&self.teller.path(stream), MAX_SNAPSHOT_BYTES);
        if matches!(&bytes, Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound) {
            return None;
        }
        match self.usable(bytes, stream, settings) {
            Ok(snapshot) => {
                self.teller.meters.count(SnapshotResult::Resumed, 1);
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

    /// Removes files that are too old, and those that were not completed; sees which are left.
    fn sweep(&mut self) {
        self.kept.clear();
        let Ok(entries) = std::fs::read_dir(&self.keeping.folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some((stream, whole)) = name.to_str().and_then(named) else { continue };
            let age = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .map(|modified| SystemTime::now().duration_since(modified).unwrap_or_default());
            let lasts = if whole { self.keeping.within } else { PART_LASTS };
            let removed =
                age.is_ok_and(|age| age >= lasts) && std::fs::remove_file(entry.path()).is_ok();
            if whole && removed {
                self.teller.meters.count(SnapshotResult::Expired, 1);
            } else if whole {
                self.kept.insert(stream.to_owned());
            }
        }
    }
}

/// The stream that a file's name is of, and whether that of a file that was completed.
fn named(name: &str) -> Option<(&str, bool)> {
    let part = store::unfinished(name);
    let stream = part.unwrap_or(name).strip_suffix(EXTENSION)?.strip_suffix('.')?;
    check_name(stream).is_ok().then_some((stream, part.is_none()))
}
