//! Doing a thing many times, so many at once, and how long each took.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt;
use kube::{Api, Resource, ResourceExt, runtime::watcher};
use serde::de::DeserializeOwned;
use shoal_crds::{Share, ShareAccessRule, condition::types};
use tokio::{sync::oneshot, task::JoinSet};

use super::meter::count;
use crate::world::condition;

/// The longest that one may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// How long each of many took, and all of them together.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    sorted: Vec<Duration>,
    took: Duration,
}

impl Latencies {
    /// Adds those of another round.
    pub fn add(&mut self, other: Self) {
        self.sorted.extend(other.sorted);
        self.sorted.sort();
        self.took += other.took;
    }

    /// Milliseconds that so many per cent stay below.
    pub fn percentile(&self, percent: usize) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        self.sorted
            .get(last * percent / 100)
            .map_or(f64::NAN, |d| d.as_secs_f64() * 1e3)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// How long all of them took.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// How many a second.
    pub fn rate(&self) -> f64 {
        count(self.sorted.len()) / self.took.as_secs_f64()
    }
}

/// Does a thing for each number of the range, so many at once.
pub async fn timed<F>(
    at_once: usize,
    range: std::ops::Range<usize>,
    work: impl Fn(usize) -> F,
) -> Result<Latencies>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    let (first, times) = (range.start, range.len());
    let mut all = Vec::with_capacity(times);
    let next = AtomicUsize::new(0);
    while all.len() < times {
        while tasks.len() < at_once && next.load(Ordering::Relaxed) < times {
            let work = work(first + next.fetch_add(1, Ordering::Relaxed));
            tasks.spawn(async move {
                let started = Instant::now();
                tokio::time::timeout(PATIENCE, work)
                    .await
                    .context("one took more than five minutes")??;
                anyhow::Ok(started.elapsed())
            });
        }
        match tasks.join_next().await {
            Some(done) => all.push(done??),
            None => bail!("fewer were done than asked for"),
        }
    }
    all.sort();
    Ok(Latencies {
        sorted: all,
        took: started.elapsed(),
    })
}

/// A kind that can be waited for.
pub trait Settles:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// The generation that is Ready, if one is.
    fn ready_generation(&self) -> Option<i64>;
}

impl Settles for Share {
    fn ready_generation(&self) -> Option<i64> {
        let status = self.status.as_ref()?;
        let ready = condition(&status.conditions, types::READY)?.0 == "True";
        ready.then_some(status.observed_generation?)
    }
}

impl Settles for ShareAccessRule {
    fn ready_generation(&self) -> Option<i64> {
        let status = self.status.as_ref()?;
        let ready = condition(&status.conditions, types::READY)?.0 == "True";
        ready.then_some(status.observed_generation?)
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// This generation is Ready.
    Ready(i64),
    /// The object is gone.
    Gone,
}

/// Waits for objects of a namespace, by one watch for all of them.
#[derive(Clone)]
pub struct Events(Arc<Mutex<Waiting>>);

/// Who waits for what, by the object's name.
type Waiting = HashMap<String, (Until, oneshot::Sender<()>)>;

impl Events {
    /// Begins to watch; ends when the last clone is dropped and something happens.
    pub fn watch<K: Settles>(api: Api<K>) -> Self {
        let events = Self(Arc::default());
        let (waiting, mut stream) = (
            Arc::downgrade(&events.0),
            watcher(api, watcher::Config::default()).boxed(),
        );
        tokio::spawn(async move {
            while let Some(event) = stream.next().await {
                let Some(waiting) = waiting.upgrade() else { return };
                match event {
                    Ok(watcher::Event::Delete(object)) => tell(&waiting, &object, true),
                    Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                        tell(&waiting, &object, false);
                    }
                    _ => {}
                }
            }
        });
        events
    }

    /// Resolves once the object is as wanted. Asked for before what brings it about.
    pub fn once(&self, name: &str, until: Until) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.0
            .lock()
            .expect("not poisoned")
            .insert(name.to_owned(), (until, sender));
        receiver
    }
}

fn tell<K: Settles>(waiting: &Mutex<Waiting>, object: &K, gone: bool) {
    let mut waiting = waiting.lock().expect("not poisoned");
    let name = object.name_any();
    let happened = waiting.get(&name).is_some_and(|(until, _)| match until {
        Until::Gone => gone,
        Until::Ready(generation) => !gone && object.ready_generation() == Some(*generation),
    });
    if happened && let Some((_, sender)) = waiting.remove(&name) {
        // Whoever waited has given up.
        let _ = sender.send(());
    }
}
