//! A backend that is a pretence: it keeps state, takes time, has room for so much, fails as told, and can say what it
//! holds. For tests, for scale, and for whoever wants to see Shoal work without Ceph.
//!
//! A [`Cluster`] stands for a Ceph cluster. It is shared by the [`Simulated`] backends of its file systems, and by
//! several replicas' backends of one file system. Its state lives in memory, where a command costs the logarithm of
//! what is held; or in a file, where it costs all of it, and survives the process and is shared between processes.
//!
//! Time is tokio's, so that a paused clock works. Nothing runs by itself: what has become due takes effect before the
//! next thing that is asked of the cluster.

mod backend;
mod fault;
mod hands;
mod holdings;
#[cfg(test)]
mod tests;
mod world;

use std::{
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub use fault::{After, Fault, FaultKind, Operation};
pub use holdings::{HeldExport, HeldIdentity, HeldShare, HeldSubvolume, Holdings};
use parking_lot::Mutex;
use shoal_crds::{SimulatedBackend, Size};
use shoal_domain::grant::Key;
use tokio::time::Instant;
pub use world::{NfsClient, Trouble};
use world::{Pending, World};

use crate::{Error, Result};

/// A pretence of a Ceph cluster. Clones are the same cluster.
#[derive(Clone)]
pub struct Cluster(Arc<Inner>);

struct Inner {
    world: Mutex<World>,
    file: Option<PathBuf>,
    /// The cluster's time when this process met it: zero in memory, the time of day with a file.
    began: Duration,
    start: Instant,
    log: Mutex<Option<Vec<Entry>>>,
    observer: Mutex<Option<Observer>>,
}

/// Is shown what happens, as it happens.
type Observer = Box<dyn Fn(&Entry) + Send + Sync>;

/// What happened at the cluster, when and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The cluster's time.
    pub at: Duration,
    /// [`Settings::name`] of the backend that asked.
    pub by: String,
    /// The method that it belongs to.
    pub operation: Operation,
    /// The share's uid; empty for `describe`.
    pub uid: String,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The method was called.
    Called,
    /// A command took effect.
    Effect {
        /// In Ceph's words.
        command: &'static str,
        /// Nobody waited for it any more.
        late: bool,
    },
    /// The method was answered: well, or with this error's reason.
    Answered(Option<&'static str>),
}

impl Cluster {
    /// A cluster in memory, with the file systems that backends ask for. Equal seeds make equal clusters.
    pub fn new(seed: u64) -> Self {
        Self::with(World::new(seed), None, Duration::ZERO)
    }

    /// A cluster in a file, made with this seed if it is not there. Every effect is in the file before it is answered,
    /// whole or not at all; processes may share it. It holds the keys, which open nothing.
    pub fn with_state_file(path: &Path, seed: u64) -> Result<Self> {
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let cluster = Self::with(World::new(seed), Some(path.to_owned()), began);
        cluster.access(|_, _| Ok(()))?;
        Ok(cluster)
    }

    fn with(world: World, file: Option<PathBuf>, began: Duration) -> Self {
        let start = Instant::now();
        Self(Arc::new(Inner {
            world: Mutex::new(world),
            file,
            began,
            start,
            log: Mutex::new(None),
            observer: Mutex::new(None),
        }))
    }

    /// The cluster's time: since it was made in memory, or since 1970 with a file.
    pub fn now(&self) -> Duration {
        self.0.began + self.0.start.elapsed()
    }

    fn instant(&self, time: Duration) -> Instant {
        self.0.start + time.saturating_sub(self.0.began)
    }

    /// Begins to keep a log, or begins it anew.
    pub fn record(&self) {
        *self.0.log.lock() = Some(Vec::new());
    }

    /// The log since [`Cluster::record`]. Late effects are in it at the time when they were found to be due.
    pub fn log(&self) -> Vec<Entry> {
        self.0.log.lock().clone().unwrap_or_default()
    }

    /// Shows everything that happens from now on to this function, which must not ask the cluster anything.
    pub fn observe(&self, observer: impl Fn(&Entry) + Send + Sync + 'static) {
        *self.0.observer.lock() = Some(Box::new(observer));
    }

    fn note(&self, entry: impl FnOnce() -> Entry) {
        let (mut log, observer) = (self.0.log.lock(), self.0.observer.lock());
        if log.is_none() && observer.is_none() {
            return;
        }
        let entry = entry();
        if let Some(observer) = &*observer {
            observer(&entry);
        }
        if let Some(log) = &mut *log {
            log.push(entry);
        }
    }

    /// Works on the state, after everything that is due by now has taken effect.
    fn access<T>(&self, work: impl FnOnce(&mut World, Duration) -> Result<T>) -> Result<T> {
        let mut world = self.0.world.lock();
        let now = self.now();
        let Some(path) = &self.0.file else {
            self.settle(&mut world, now);
            return work(&mut world, now);
        };
        let failed = |error: io::Error| Error::Unreachable(format!("state file {}: {error}", path.display()));
        // Held until this returns; other processes wait here.
        let lock = File::create(path.with_extension("lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let before = match fs::read(path) {
            Ok(text) => {
                *world = serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
                text
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        self.settle(&mut world, now);
        let answer = work(&mut world, now);
        let after = serde_json::to_vec(&*world).map_err(|error| failed(error.into()))?;
        if after != before {
            let new = path.with_extension("new");
            fs::write(&new, after)
                .and_then(|()| fs::rename(&new, path))
                .map_err(failed)?;
        }
        answer
    }

    fn settle(&self, world: &mut World, now: Duration) {
        for late in world.take_due(now) {
            let fs_name = late.on.fs_name.clone();
            // Whatever it answers, nobody listens.
            drop(self.take_effect(world, now, &fs_name, late, true));
        }
    }

    /// A command takes effect, unless the storage it was sent to is gone by now.
    fn take_effect(
        &self,
        world: &mut World,
        now: Duration,
        fs_name: &str,
        sent: Pending,
        late: bool,
    ) -> Result<Option<Key>> {
        world.check(fs_name, &sent.on.into())?;
        let command = sent.command.name();
        let key = world.apply(fs_name, sent.command)?;
        self.note(|| Entry {
            at: now,
            by: sent.origin.by,
            operation: sent.origin.operation,
            uid: sent.origin.uid,
            what: What::Effect { command, late },
        });
        Ok(key)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("file", &self.0.file)
            .finish_non_exhaustive()
    }
}

/// How a simulated backend behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Who it is in the log: the replica, say.
    pub name: String,
    /// How long each command takes; a method is made of several.
    pub latency: Duration,
    /// Its deadline.
    pub deadline: Duration,
    /// Bytes it says it has.
    pub total_bytes: u64,
    /// How many calls of a hundred fail; half of these after they have taken effect.
    pub failure_percent: u8,
    /// Which of them.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: String::new(),
            latency: Duration::ZERO,
            deadline: Duration::from_secs(15),
            total_bytes: 1 << 50,
            failure_percent: 0,
            seed: 0,
        }
    }
}

impl Settings {
    /// What a ShareBackend's spec says. A seed of its own for each backend lets them fail at different times.
    pub fn of(name: &str, spec: &SimulatedBackend, seed: u64) -> Self {
        let default = Self::default();
        Self {
            name: name.to_owned(),
            latency: Duration::from_millis(u64::try_from(spec.latency_milliseconds).unwrap_or_default()),
            total_bytes: spec.capacity.map_or(default.total_bytes, Size::bytes),
            failure_percent: u8::try_from(spec.failure_percent.clamp(0, 100)).unwrap_or_default(),
            seed,
            ..default
        }
    }
}

/// One file system of a simulated [`Cluster`], as one replica speaks to it.
pub struct Simulated {
    cluster: Cluster,
    fs_name: String,
    settings: Settings,
    calls: AtomicU64,
    /// By module: a command was not answered in time.
    silent: [AtomicBool; 3],
}

impl Simulated {
    /// Speaks to this file system of the cluster, and makes it if it is not there.
    pub fn new(cluster: &Cluster, fs_name: &str, settings: Settings) -> Result<Self> {
        cluster.access(|world, _| {
            world.add_file_system(fs_name);
            Ok(())
        })?;
        Ok(Self {
            cluster: cluster.clone(),
            fs_name: fs_name.to_owned(),
            settings,
            calls: AtomicU64::new(0),
            silent: Default::default(),
        })
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulated")
            .field("fs_name", &self.fs_name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
