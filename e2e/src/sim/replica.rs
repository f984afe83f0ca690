//! One replica of the operator as a process: it can be stopped at any await, woken, killed, or asked to end.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use futures::{FutureExt, StreamExt, channel::mpsc::UnboundedReceiver, stream::FuturesUnordered};
use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::{ObjectRef, Store};
use parking_lot::Mutex;
use rand::{RngExt, rngs::SmallRng};
use shoal_backend::simulated::Cluster;
use shoal_domain::Next;
use shoal_operator::{
    backends::SimulatedClusters,
    caches::{Caches, Guarded},
    clock::Clock,
    context::Context,
    driver::{self, Kind},
    leader::Elector,
    replica::{self, Engine},
    settings::{LogFormat, Settings},
};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};

use super::{api_server::ApiServer, plan::generator, wire::Wire};

/// Where replicas keep their Lease.
pub const SYSTEM_NAMESPACE: &str = "shoal-system";
/// As `shoal run` does by default.
pub const LEASE: Duration = Duration::from_secs(LEASE_SECONDS as u64);
const LEASE_SECONDS: u32 = 40;
/// The longest that a method of the storage takes.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(30);
/// Passes of one kind at the same time.
const MOST_PASSES: usize = 8;
/// What the clocks say at the start of a run.
const EPOCH: Timestamp = Timestamp::constant(1_750_000_000, 0);
/// What they do not come to say in one, however wrong they are.
pub const END: Timestamp = Timestamp::constant(1_750_018_000, 0);

/// The state of a replica's host that outlives its process.
#[derive(Clone)]
pub struct Host {
    /// When the run began.
    pub began: Instant,
    /// Its network.
    pub wire: Wire,
    /// By how many seconds its clock is wrong.
    pub skew: Arc<AtomicI64>,
    /// Panics of its processes.
    pub panics: Arc<Mutex<Vec<String>>>,
}

/// A replica's process.
pub struct Process {
    /// Who it is in the Lease, in the API server's log and in the storage's.
    pub identity: String,
    /// What its controllers share.
    pub context: Arc<Context>,
    gate: Gate,
    life: JoinHandle<anyhow::Result<()>>,
}

impl Process {
    /// Starts it.
    pub fn start(
        identity: &str,
        seed: u64,
        server: &ApiServer,
        cluster_uid: &str,
        cluster: &Cluster,
        host: &Host,
    ) -> Self {
        let client = server.client(identity, Arc::new(host.wire.clone()));
        let (caches, writers, due) = Caches::new();
        let storage = cluster.clone();
        let simulated = SimulatedClusters::found_by(move |_, _| Ok(storage.clone()));
        let settings = settings(identity);
        let clock = clock(host);
        let context = Arc::new(Context::new(
            &client,
            cluster_uid.to_owned(),
            caches,
            simulated,
            &settings,
            clock,
        ));
        let gate = Gate::default();
        let engine = Seeded {
            gate: gate.clone(),
            rng: Arc::new(Mutex::new(generator(seed, hash(identity)))),
            panics: host.panics.clone(),
        };
        let elector = Elector::new(&client, &settings.namespace, identity, context.fence.clone());
        let ctx = context.clone();
        let life = gate.wrap(async move { replica::live(&engine, &ctx, writers, due, elector).await });
        Self {
            identity: identity.to_owned(),
            context,
            gate,
            life: tokio::spawn(life),
        }
    }

    /// Stops it where it is.
    pub fn pause(&self) {
        self.gate.close();
    }

    /// What stops it, for somebody else to use.
    pub fn brake(&self) -> Brake {
        Brake(self.gate.clone())
    }

    /// Lets it go on.
    pub fn wake(&self) {
        self.gate.open();
    }

    /// Ends it where it is.
    pub fn kill(self) {
        self.life.abort();
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.context.stop.cancel();
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.life.is_finished()
    }

    /// How it ended, once it has.
    pub async fn end(self) -> anyhow::Result<()> {
        self.life.await?
    }
}

/// The defaults, but that shares are compared with their backend more often, or runs would be long.
fn settings(identity: &str) -> Settings {
    Settings {
        namespace: SYSTEM_NAMESPACE.into(),
        identity: identity.into(),
        listen: ([127, 0, 0, 1], 0).into(),
        lease_seconds: LEASE_SECONDS,
        command_timeout_seconds: 10,
        resync_seconds: 60,
        simulated_state: None,
        share_metrics: false,
        otlp_endpoint: None,
        log_format: LogFormat::Json,
        log: String::new(),
    }
}

/// Stops a replica's process.
pub struct Brake(Gate);

impl Brake {
    /// Stops it where it is.
    pub fn pause(&self) {
        self.0.close();
    }
}

fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A host's clock: the run's, but for the skew.
fn clock(host: &Host) -> Clock {
    let (began, skew) = (host.began, host.skew.clone());
    Clock::new(move || {
        let skew = SignedDuration::from_secs(skew.load(Ordering::Relaxed));
        time(began).saturating_add(skew).unwrap_or(EPOCH)
    })
}

/// What a clock that is right says.
pub fn time(began: Instant) -> Timestamp {
    let passed = SignedDuration::try_from(began.elapsed()).unwrap_or_default();
    EPOCH.saturating_add(passed).unwrap_or(EPOCH)
}

/// Lets futures be polled, or not.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<Closed>>);

#[derive(Default)]
struct Closed {
    is_closed: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    fn close(&self) {
        self.0.lock().is_closed = true;
    }

    fn open(&self) {
        let waiting = {
            let mut gate = self.0.lock();
            gate.is_closed = false;
            std::mem::take(&mut gate.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
    }

    fn wrap<F: Future + Send + 'static>(&self, future: F) -> Pin<Box<dyn Future<Output = F::Output> + Send>> {
        let gate = self.clone();
        let mut future = Box::pin(future);
        Box::pin(std::future::poll_fn(move |context| {
            {
                let mut gate = gate.0.lock();
                if gate.is_closed {
                    gate.waiting.push(context.waker().clone());
                    return Poll::Pending;
                }
            }
            future.as_mut().poll(context)
        }))
    }
}

/// Runs a replica's tasks behind its gate, and feeds keys in an order drawn from the seed.
#[derive(Clone)]
struct Seeded {
    gate: Gate,
    rng: Arc<Mutex<SmallRng>>,
    panics: Arc<Mutex<Vec<String>>>,
}

impl Engine for Seeded {
    fn spawn(&self, tasks: &mut JoinSet<()>, task: impl Future<Output = ()> + Send + 'static) {
        let panics = self.panics.clone();
        tasks.spawn(self.gate.wrap(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                panics.lock().push(text_of(&*panic));
            }
        }));
    }

    async fn control<K: Kind>(
        &self,
        ctx: Arc<Context>,
        store: Store<Guarded<K::Object>>,
        mut due: UnboundedReceiver<ObjectRef<Guarded<K::Object>>>,
    ) {
        type Key = (String, String);
        let mut waiting: BTreeMap<Key, Instant> = BTreeMap::new();
        let mut running: BTreeSet<Key> = BTreeSet::new();
        let mut passes = FuturesUnordered::new();
        loop {
            let now = Instant::now();
            let stopping = ctx.is_stopping();
            if stopping && running.is_empty() {
                return;
            }
            let ready: Vec<Key> = waiting
                .iter()
                .filter(|(key, at)| **at <= now && !running.contains(*key))
                .map(|(key, _)| key.clone())
                .collect();
            if !stopping && !ready.is_empty() && running.len() < MOST_PASSES {
                let key = ready[self.rng.lock().random_range(0..ready.len())].clone();
                waiting.remove(&key);
                let object = ObjectRef::new(&key.1);
                let object = if key.0.is_empty() {
                    object
                } else {
                    object.within(&key.0)
                };
                if let Some(guard) = store.get(&object) {
                    running.insert(key.clone());
                    let ctx = ctx.clone();
                    passes.push(async move { (key, driver::pass::<K>(&ctx, &guard).await) });
                }
                continue;
            }
            let next = waiting
                .iter()
                .filter(|(key, at)| !running.contains(*key) && **at > now)
                .map(|(_, at)| *at)
                .min();
            let jitter = Duration::from_micros(self.rng.lock().random_range(0..2000));
            tokio::select! {
                biased;
                Some((key, next)) = passes.next() => {
                    running.remove(&key);
                    if let Next::After(wait) = next {
                        let at = Instant::now() + wait;
                        waiting.entry(key).and_modify(|was| *was = at.min(*was)).or_insert(at);
                    }
                }
                Some(object) = due.next() => {
                    let key = (object.namespace.clone().unwrap_or_default(), object.name.clone());
                    let at = Instant::now() + jitter;
                    waiting.entry(key).and_modify(|was| *was = at.min(*was)).or_insert(at);
                }
                () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
                () = ctx.stop.cancelled(), if !stopping => {}
            }
        }
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic".into())
}
