//! One connection per Ceph cluster and credentials, shared by all backends that name the same.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use serde::Serialize;
use shoal_backend::{Error, Result};
use shoal_domain::grant::Key;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{Instrument, field::Empty};

use crate::{
    capabilities::MANAGER_COMMANDS,
    errno::{EACCES, EINVAL, EIO, ENOENT, EPERM, Fault, Rejection},
    lane::Lane,
    rados::{Answer, Cluster, Daemon, NotConnected},
};

/// A module of ceph-mgr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Module {
    Volumes,
    Nfs,
}

/// Where a command goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Monitors,
    Manager(Module),
    /// A metadata server by its global id, of the file system with this name.
    MetadataServer(String, u64),
}

/// A command with typed arguments and reply.
pub(crate) trait Request: Serialize {
    /// The command's name.
    const PREFIX: &'static str;
    /// Whether Ceph's words about it stay unsaid, for they may name a client that is nobody's business.
    const DISCREET: bool = false;
    /// The longest answer that is read, in bytes. In memory it takes up to sixteen times its length.
    const LONGEST: usize = 4 << 20;
    /// What it answers.
    type Reply;
    /// Where it goes.
    fn target(&self) -> Target;
    /// What goes with it.
    fn input(&self) -> Vec<u8> {
        Vec::new()
    }
    /// Reads the answer. The error never holds what was answered.
    fn read(output: &[u8]) -> std::result::Result<Self::Reply, String>;
}

#[derive(Serialize)]
struct Wire<'a, R> {
    prefix: &'static str,
    format: &'static str,
    #[serde(flatten)]
    request: &'a R,
}

/// How to reach a Ceph cluster.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// As in ceph.conf.
    pub mon_host: String,
    /// Without `client.`.
    pub user: String,
    /// Its key.
    pub key: Key,
}

impl Credentials {
    fn connect(&self, timeout: Duration) -> std::result::Result<Cluster, NotConnected> {
        let with = |key: &Key| Cluster::connect(&self.mon_host, &self.user, key, timeout);
        let is_einval =
            |why: &NotConnected| matches!(why, NotConnected::Errno(code) if code.saturating_abs() == EINVAL);
        with(&self.key).map_err(|why| {
            // librados 18 says the same of a text that is no key as of monitors that have no address; without a key it
            // is the address.
            if is_einval(&why) && !with(&Key::new("")).is_err_and(|without| is_einval(&without)) {
                NotConnected::Setting("key")
            } else {
                why
            }
        })
    }
}

/// All connections of the process, and the locks that go with what they lead to.
#[derive(Default)]
pub struct Connections {
    open: Mutex<Vec<Weak<Connection>>>,
    /// By fsid and NFS cluster id, whoever declares the backend: one writer of exports at a time.
    nfs: Mutex<Locks>,
    /// By fsid and CephX identity: what one share's pass takes away is not given back by another's.
    identities: Mutex<Locks>,
}

/// Locks by fsid and what they are about; each there for as long as somebody has it.
type Locks = HashMap<(String, String), Weak<Lock>>;

/// Held while something of a cluster is compared, written and read back.
pub(crate) type Lock = tokio::sync::Mutex<()>;

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

impl Connections {
    /// None open.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The connection with these credentials: one that is there, or one that is made when first wanted.
    pub(crate) fn get(&self, credentials: Credentials) -> Arc<Connection> {
        let mut open = self.open.lock();
        open.retain(|connection| connection.strong_count() > 0);
        if let Some(connection) = open
            .iter()
            .filter_map(Weak::upgrade)
            .find(|connection| connection.credentials == credentials)
        {
            return connection;
        }
        let connection = Arc::new(Connection {
            credentials,
            state: watch::Sender::new(State::Idle),
        });
        open.push(Arc::downgrade(&connection));
        connection
    }

    /// The lock under which an identity's access to any share is changed.
    pub(crate) fn identity_lock(&self, fsid: &str, identity: &str) -> Arc<Lock> {
        lock_of(&self.identities, fsid, identity)
    }

    /// The lock of an NFS cluster.
    pub(crate) fn nfs_lock(&self, fsid: &str, cluster_id: &str) -> Arc<Lock> {
        lock_of(&self.nfs, fsid, cluster_id)
    }
}

fn lock_of(locks: &Mutex<Locks>, fsid: &str, what: &str) -> Arc<Lock> {
    let mut locks = locks.lock();
    locks.retain(|_, lock| lock.strong_count() > 0);
    let place = locks.entry((fsid.to_owned(), what.to_owned())).or_default();
    place.upgrade().unwrap_or_else(|| {
        let lock = Arc::default();
        *place = Arc::downgrade(&lock);
        lock
    })
}

/// A way to a Ceph cluster, open or not.
pub(crate) struct Connection {
    credentials: Credentials,
    state: watch::Sender<State>,
}

#[derive(Clone)]
enum State {
    Idle,
    Connecting,
    Open(Arc<Link>),
    Failed(Instant, Error),
}

impl Connection {
    /// After a failure nobody tries again for so long.
    const PAUSE: Duration = Duration::from_secs(1);

    /// The open link. A link whose monitors owe answers is looked at anew: a fresh one tells whether they are away or
    /// refuse us, and takes over as soon as they are back.
    pub(crate) async fn link(self: &Arc<Self>, timeout: Duration, until: Instant) -> Result<Arc<Link>> {
        let mut state = self.state.subscribe();
        loop {
            let begun = self.state.send_if_modified(|state| {
                let begin = match state {
                    State::Idle => true,
                    State::Connecting => false,
                    State::Open(link) => link.monitors.is_held(),
                    State::Failed(at, _) => at.elapsed() >= Self::PAUSE,
                };
                if begin {
                    *state = State::Connecting;
                }
                begin
            });
            if begun {
                self.connect(timeout)?;
            }
            match &*state.borrow_and_update() {
                State::Open(link) => return Ok(Arc::clone(link)),
                State::Failed(_, error) => return Err(error.clone()),
                State::Idle | State::Connecting => {}
            }
            if !matches!(timeout_at(until, state.changed()).await, Ok(Ok(()))) {
                return Err(self.away());
            }
        }
    }

    /// Gives the open link up, if it is still this one.
    fn forget(&self, link: &Arc<Link>) {
        self.state.send_if_modified(|state| match state {
            State::Open(open) if Arc::ptr_eq(open, link) => {
                *state = State::Idle;
                true
            }
            _ => false,
        });
    }

    fn connect(self: &Arc<Self>, timeout: Duration) -> Result<()> {
        let this = Arc::clone(self);
        let work = move || {
            let state = match this.credentials.connect(timeout) {
                Ok(cluster) => State::Open(Arc::new(Link::new(cluster))),
                Err(why) => State::Failed(Instant::now(), this.refusal(why)),
            };
            this.state.send_replace(state);
        };
        spawn("ceph-connect", work).inspect_err(|error| {
            self.state
                .send_replace(State::Failed(Instant::now(), error.clone()));
        })
    }

    fn away(&self) -> Error {
        Error::Unreachable(format!("no monitor of {} answers", self.credentials.mon_host))
    }

    fn refusal(&self, why: NotConnected) -> Error {
        let user = &self.credentials.user;
        match why {
            NotConnected::NoLibrary(error) => {
                Error::Unreachable(format!("librados can't be loaded: {error}"))
            }
            NotConnected::Setting("key") => Error::CredentialsRefused("userKey is not a CephX key".into()),
            NotConnected::Setting(option) => {
                Error::CredentialsRefused(format!("{option} can't be understood"))
            }
            NotConnected::Errno(code) => match code.saturating_abs() {
                EPERM | EACCES => Error::CredentialsRefused(format!(
                    "the monitors do not let client.{user} in with this userKey"
                )),
                ENOENT | EINVAL => Error::Unreachable(format!(
                    "no monitor to be found at '{}'",
                    self.credentials.mon_host
                )),
                _ => self.away(),
            },
        }
    }
}

/// An open connection, with a lane for each queue that commands stand in.
pub(crate) struct Link {
    /// Taken only to be shut down.
    cluster: Option<Arc<Cluster>>,
    monitors: Arc<Lane>,
    volumes: Arc<Lane>,
    nfs: Arc<Lane>,
    /// By file system.
    metadata_servers: Mutex<HashMap<String, Arc<Lane>>>,
}

impl Link {
    /// A module runs one command at a time; a second and third in its queue spare the way there and back.
    const MANAGER_PLACES: usize = 4;
    const OTHER_PLACES: usize = 4;

    fn new(cluster: Cluster) -> Self {
        Self {
            cluster: Some(Arc::new(cluster)),
            monitors: Lane::new(Self::OTHER_PLACES),
            volumes: Lane::new(Self::MANAGER_PLACES),
            nfs: Lane::new(Self::MANAGER_PLACES),
            metadata_servers: Mutex::default(),
        }
    }

    /// Whether any answer is owed. What is owed is known of the link alone.
    fn owes(&self) -> bool {
        let servers = self.metadata_servers.lock();
        let all = [&self.monitors, &self.volumes, &self.nfs];
        all.into_iter().chain(servers.values()).any(|lane| lane.is_held())
    }

    fn lane(&self, target: &Target) -> Arc<Lane> {
        match target {
            Target::Monitors => Arc::clone(&self.monitors),
            Target::Manager(Module::Volumes) => Arc::clone(&self.volumes),
            Target::Manager(Module::Nfs) => Arc::clone(&self.nfs),
            Target::MetadataServer(fs, _) => Arc::clone(
                self.metadata_servers
                    .lock()
                    .entry(fs.clone())
                    .or_insert_with(|| Lane::new(Self::OTHER_PLACES)),
            ),
        }
    }
}

/// Links that are being shut down.
static CLOSING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(cluster) = self.cluster.take() {
            *CLOSING.0.lock() += 1;
            // It waits for librados's threads, and this may be one of the runtime's.
            let close = spawn("ceph-shutdown", move || {
                drop(cluster);
                *CLOSING.0.lock() -= 1;
                CLOSING.1.notify_all();
            });
            if close.is_err() {
                *CLOSING.0.lock() -= 1;
            }
        }
    }
}

impl Drop for Connections {
    /// Waits a little for links to be shut down: whoever lets go of these is about to leave, and librados's threads must
    /// not outlive the end of main (see [`crate::exit`]).
    fn drop(&mut self) {
        let mut closing = CLOSING.0.lock();
        CLOSING
            .1
            .wait_while_for(&mut closing, |closing| *closing > 0, Duration::from_secs(2));
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    thread::Builder::new()
        .name(name.into())
        // What a C program's threads have: librados uses more than half a megabyte to connect.
        .stack_size(8 << 20)
        .spawn(work)
        .map(drop)
        .map_err(|error| Error::Failed(format!("no thread to be had: {error}")))
}

/// One method's work: the link it began on, and its time.
pub(crate) struct Call {
    connection: Arc<Connection>,
    link: Arc<Link>,
    timeout: Duration,
    /// When the method must have answered.
    pub ends: Instant,
}

impl Call {
    /// Begins one that ends after `deadline` and whose every command gets `timeout`.
    pub(crate) async fn begin(
        connection: &Arc<Connection>,
        timeout: Duration,
        deadline: Duration,
    ) -> Result<Self> {
        let ends = Instant::now() + deadline;
        let link = connection.link(timeout, ends).await?;
        Ok(Self {
            connection: Arc::clone(connection),
            link,
            timeout,
            ends,
        })
    }

    /// The cluster's id, as the monitors said it last.
    pub(crate) fn fsid(&self) -> Result<String> {
        self.link
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.fsid())
            .ok_or_else(|| self.connection.away())
    }

    /// Runs a command.
    pub(crate) async fn run<R: Request>(&self, request: &R) -> std::result::Result<R::Reply, Fault> {
        let target = request.target();
        debug_assert!(
            !matches!(target, Target::Manager(_)) || MANAGER_COMMANDS.contains(&R::PREFIX),
            "the user may not send '{}'",
            R::PREFIX
        );
        let started = Instant::now();
        let span = tracing::info_span!("ceph", otel.name = R::PREFIX, code = Empty);
        let answer = Box::pin(self.send(&target, request))
            .instrument(span.clone())
            .await;
        if let Ok(answer) = &answer {
            span.record("code", answer.code);
        }
        tracing::debug!(
            command = R::PREFIX,
            code = answer.as_ref().ok().map(|answer| answer.code),
            milliseconds = started.elapsed().as_secs_f64() * 1e3,
            "ceph"
        );
        let answer = answer?;
        if answer.code != 0 {
            let errno = answer.code.saturating_abs();
            let another_clusters = target == Target::Monitors && errno == EPERM;
            // A session keeps the capabilities it began with.
            let may_not = errno == EACCES && !self.link.owes();
            if another_clusters || may_not {
                // The first is what a monitor says to a client that knows it as another cluster's.
                self.connection.forget(&self.link);
            }
            let message = if R::DISCREET {
                String::new()
            } else {
                shorten(&answer.message)
            };
            return Err(Fault::Rejected(Rejection {
                prefix: R::PREFIX,
                errno,
                message,
            }));
        }
        Ok(understand::<R>(&answer.output)?)
    }

    async fn send<R: Request>(&self, target: &Target, request: &R) -> Result<Answer> {
        let wire = Wire {
            prefix: R::PREFIX,
            format: "json",
            request,
        };
        let command = serde_json::to_vec(&wire).map_err(|error| Error::Refused(error.to_string()))?;
        let input = request.input();
        let daemon = match target {
            Target::Monitors => Daemon::Monitor,
            Target::Manager(_) => Daemon::Manager,
            Target::MetadataServer(_, gid) => Daemon::MetadataServer(*gid),
        };
        let lane = self.link.lane(target);
        let out_of_time = || Error::Failed("other commands took all the time".into());
        let (sender, runner) = tokio::select! {
            place = lane.enter() => place.map_err(|_| self.silent(target))?,
            () = sleep_until(self.ends) => return Err(out_of_time()),
        };
        // The lease was to outlive this end, and no longer: a process that stood still meanwhile sends nothing more.
        if Instant::now() >= self.ends {
            return Err(out_of_time());
        }
        let Some(cluster) = self.link.cluster.clone() else {
            return Err(self.connection.away());
        };
        let (tell, answer) = oneshot::channel();
        spawn(R::PREFIX, move || {
            let answer = cluster.command(daemon, &command, &input);
            // Whoever hears the answer finds the place free, and us no longer using the cluster.
            drop((cluster, runner));
            drop(tell.send(answer));
        })?;
        let until = self.ends.min(Instant::now() + self.timeout);
        let answer = timeout_at(until, answer).await;
        drop(sender);
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            // Its thread died.
            Ok(Err(_)) => Ok(Answer {
                code: -EIO,
                output: Vec::new(),
                message: String::new(),
            }),
            Err(_) if *target == Target::Monitors => Err(self.connection.away()),
            Err(_) => Err(Error::TimedOut(self.command_name(target, R::PREFIX))),
        }
    }

    /// For people. A metadata server does not say that it refuses us: it says nothing.
    fn command_name(&self, target: &Target, prefix: &str) -> String {
        match target {
            Target::MetadataServer(fs, _) => format!(
                "{prefix} (of file system {fs}; is client.{} allowed mds 'allow *'?)",
                self.connection.credentials.user
            ),
            _ => prefix.to_owned(),
        }
    }

    fn silent(&self, target: &Target) -> Error {
        match target {
            Target::Monitors => self.connection.away(),
            Target::Manager(Module::Volumes) => Error::Silent("ceph-mgr's module volumes".into()),
            Target::Manager(Module::Nfs) => Error::Silent("ceph-mgr's module nfs".into()),
            Target::MetadataServer(fs, _) => Error::Silent(format!(
                "the metadata servers of file system {fs} (is client.{} allowed mds 'allow *'?)",
                self.connection.credentials.user
            )),
        }
    }
}

/// Reads an answer, unless it is longer than any honest one.
fn understand<R: Request>(output: &[u8]) -> Result<R::Reply> {
    let read = if output.len() > R::LONGEST {
        Err(format!("an answer of {} bytes", output.len()))
    } else {
        R::read(output)
    };
    read.map_err(|error| Error::NotUnderstood(format!("'{}': {error}", R::PREFIX)))
}

/// The last line, which in a traceback is the one that says what went wrong; and not too much of it.
fn shorten(message: &str) -> String {
    message
        .trim()
        .lines()
        .last()
        .unwrap_or_default()
        .chars()
        .take(256)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::VolumeLs;

    #[test]
    fn words_are_short() {
        assert_eq!(shorten("Traceback\n  line 1\nValueError: no\n"), "ValueError: no");
        assert_eq!(shorten(""), "");
        assert_eq!(shorten(&"ä".repeat(1000)).chars().count(), 256);
    }

    #[test]
    fn an_answer_longer_than_any_honest_one_is_not_read() {
        #[derive(Serialize)]
        struct Short;
        impl Request for Short {
            const PREFIX: &'static str = "short";
            const LONGEST: usize = 3;
            type Reply = usize;
            fn target(&self) -> Target {
                Target::Monitors
            }
            fn read(output: &[u8]) -> std::result::Result<usize, String> {
                assert!(output.len() <= 3);
                Ok(output.len())
            }
        }
        assert_eq!(understand::<Short>(b"123").ok(), Some(3));
        let error = understand::<Short>(b"1234").unwrap_err();
        assert_eq!(
            error,
            Error::NotUnderstood("'short': an answer of 4 bytes".into())
        );
    }

    #[tokio::test]
    async fn nothing_is_sent_after_the_end() {
        let credentials = Credentials {
            mon_host: "192.0.2.1".into(),
            user: "shoal".into(),
            key: Key::new("a"),
        };
        let link = Link {
            cluster: None,
            monitors: Lane::new(1),
            volumes: Lane::new(1),
            nfs: Lane::new(1),
            metadata_servers: Mutex::default(),
        };
        let call = Call {
            connection: Connections::new().get(credentials),
            link: Arc::new(link),
            timeout: Duration::from_secs(1),
            ends: Instant::now(),
        };
        for _ in 0..20 {
            let fault = call.run(&VolumeLs {}).await.err();
            assert!(matches!(fault, Some(Fault::Other(Error::Failed(_)))), "{fault:?}");
            assert!(!call.link.owes());
        }
    }

    #[test]
    fn every_errno_is_told() {
        let connections = Connections::new();
        let connection = connections.get(Credentials {
            mon_host: "192.0.2.1".into(),
            user: "shoal".into(),
            key: Key::new("a"),
        });
        for code in [i32::MIN, -EPERM, 0, EPERM, i32::MAX] {
            assert!(
                !connection
                    .refusal(NotConnected::Errno(code))
                    .to_string()
                    .is_empty()
            );
        }
    }

    #[test]
    fn one_connection_for_the_same_credentials() {
        let connections = Connections::new();
        let credentials = |key: &str| Credentials {
            mon_host: "192.0.2.1".into(),
            user: "shoal".into(),
            key: Key::new(key),
        };
        let first = connections.get(credentials("a"));
        assert!(Arc::ptr_eq(&first, &connections.get(credentials("a"))));
        assert!(!Arc::ptr_eq(&first, &connections.get(credentials("b"))));
        drop(first);
        assert_eq!(
            connections.open.lock().iter().filter_map(Weak::upgrade).count(),
            0
        );
    }

    #[test]
    fn one_lock_per_nfs_cluster() {
        let connections = Connections::new();
        let lock = connections.nfs_lock("fsid", "a");
        assert!(Arc::ptr_eq(&lock, &connections.nfs_lock("fsid", "a")));
        assert!(!Arc::ptr_eq(&lock, &connections.nfs_lock("fsid", "b")));
        assert!(!Arc::ptr_eq(&lock, &connections.nfs_lock("other", "a")));
    }
}
