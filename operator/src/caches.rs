//! Watch caches of every kind that decisions rest on, and the queues that their events feed.
//!
//! kube's own trigger streams drop deletions; here one loop a kind keeps the cache and hands every change, a
//! disappearance between two watches included, to [`route`](crate::controllers::route).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        reflector::{self, Lookup, ObjectRef, Store},
        utils::Backoff,
        watcher,
    },
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use shoal_crds::{ResourceLock, Share, ShareAccessRule, ShareBackend, ShareDeletion, ShareQuota, ShareType};
use shoal_domain::{backoff, ledger::Ledger};

/// An object as the watch delivers it: one that can't be parsed does not stop the others.
pub type Guarded<K> = DeserializeGuard<K>;

/// Keys of objects that are due for a pass.
#[derive(Clone)]
pub struct Queue<K: Resource<DynamicType = ()> + 'static> {
    sender: UnboundedSender<ObjectRef<Guarded<K>>>,
}

impl<K: Resource<DynamicType = ()> + 'static> Queue<K> {
    fn new() -> (Self, UnboundedReceiver<ObjectRef<Guarded<K>>>) {
        let (sender, receiver) = unbounded();
        (Self { sender }, receiver)
    }

    /// Asks for a pass over a namespaced object.
    pub fn push(&self, namespace: &str, name: &str) {
        self.push_ref(ObjectRef::new(name).within(namespace));
    }

    /// Asks for a pass over a cluster-scoped object.
    pub fn push_cluster_scoped(&self, name: &str) {
        self.push_ref(ObjectRef::new(name));
    }

    /// Asks for a pass.
    pub fn push_ref(&self, key: ObjectRef<Guarded<K>>) {
        // The receiver lives as long as the controller; after it nobody needs passes.
        let _ = self.sender.unbounded_send(key);
    }
}

/// All caches and queues.
pub struct Caches {
    /// Namespaces: metadata only.
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Share backends.
    pub backends: Store<Guarded<ShareBackend>>,
    /// Share types.
    pub types: Store<Guarded<ShareType>>,
    /// Quotas.
    pub quotas: Store<Guarded<ShareQuota>>,
    /// What is left of deleted shares.
    pub deletions: Store<Guarded<ShareDeletion>>,
    /// Shares.
    pub shares: Store<Guarded<Share>>,
    /// Access rules.
    pub rules: Store<Guarded<ShareAccessRule>>,
    /// Which of them name a share.
    pub rules_of: Index,
    /// Locks.
    pub locks: Store<Guarded<ResourceLock>>,
    /// Which of them lock an object.
    pub locks_on: Index,
    /// What shares have been promised.
    pub ledger: Mutex<Ledger>,
    /// Backends due for a pass.
    pub backend_queue: Queue<ShareBackend>,
    /// Types due for a pass.
    pub type_queue: Queue<ShareType>,
    /// Quotas due for a pass.
    pub quota_queue: Queue<ShareQuota>,
    /// Deletions due for a pass.
    pub deletion_queue: Queue<ShareDeletion>,
    /// Shares due for a pass.
    pub share_queue: Queue<Share>,
    /// Rules due for a pass.
    pub rule_queue: Queue<ShareAccessRule>,
    /// Locks due for a pass.
    pub lock_queue: Queue<ResourceLock>,
}

/// The receiving ends of the queues.
pub struct Due {
    /// Backends due for a pass.
    pub backends: UnboundedReceiver<ObjectRef<Guarded<ShareBackend>>>,
    /// Types due for a pass.
    pub types: UnboundedReceiver<ObjectRef<Guarded<ShareType>>>,
    /// Quotas due for a pass.
    pub quotas: UnboundedReceiver<ObjectRef<Guarded<ShareQuota>>>,
    /// Deletions due for a pass.
    pub deletions: UnboundedReceiver<ObjectRef<Guarded<ShareDeletion>>>,
    /// Shares due for a pass.
    pub shares: UnboundedReceiver<ObjectRef<Guarded<Share>>>,
    /// Rules due for a pass.
    pub rules: UnboundedReceiver<ObjectRef<Guarded<ShareAccessRule>>>,
    /// Locks due for a pass.
    pub locks: UnboundedReceiver<ObjectRef<Guarded<ResourceLock>>>,
}

/// The writing ends of the caches.
pub struct Writers {
    /// Namespaces.
    pub namespaces: reflector::store::Writer<PartialObjectMeta<Namespace>>,
    /// Share backends.
    pub backends: reflector::store::Writer<Guarded<ShareBackend>>,
    /// Share types.
    pub types: reflector::store::Writer<Guarded<ShareType>>,
    /// Quotas.
    pub quotas: reflector::store::Writer<Guarded<ShareQuota>>,
    /// What is left of deleted shares.
    pub deletions: reflector::store::Writer<Guarded<ShareDeletion>>,
    /// Shares.
    pub shares: reflector::store::Writer<Guarded<Share>>,
    /// Access rules.
    pub rules: reflector::store::Writer<Guarded<ShareAccessRule>>,
    /// Locks.
    pub locks: reflector::store::Writer<Guarded<ResourceLock>>,
}

impl Caches {
    /// Empty caches and queues.
    pub fn new() -> (Self, Writers, Due) {
        let (namespaces, namespaces_w) = reflector::store();
        let (backends, backends_w) = reflector::store();
        let (types, types_w) = reflector::store();
        let (quotas, quotas_w) = reflector::store();
        let (deletions, deletions_w) = reflector::store();
        let (shares, shares_w) = reflector::store();
        let (rules, rules_w) = reflector::store();
        let (locks, locks_w) = reflector::store();
        let (backend_queue, backends_due) = Queue::new();
        let (type_queue, types_due) = Queue::new();
        let (quota_queue, quotas_due) = Queue::new();
        let (deletion_queue, deletions_due) = Queue::new();
        let (share_queue, shares_due) = Queue::new();
        let (rule_queue, rules_due) = Queue::new();
        let (lock_queue, locks_due) = Queue::new();
        (
            Self {
                namespaces,
                backends,
                types,
                quotas,
                deletions,
                shares,
                rules,
                rules_of: Index::default(),
                locks,
                locks_on: Index::default(),
                ledger: Mutex::default(),
                backend_queue,
                type_queue,
                quota_queue,
                deletion_queue,
                share_queue,
                rule_queue,
                lock_queue,
            },
            Writers {
                namespaces: namespaces_w,
                backends: backends_w,
                types: types_w,
                quotas: quotas_w,
                deletions: deletions_w,
                shares: shares_w,
                rules: rules_w,
                locks: locks_w,
            },
            Due {
                backends: backends_due,
                types: types_due,
                quotas: quotas_due,
                deletions: deletions_due,
                shares: shares_due,
                rules: rules_due,
                locks: locks_due,
            },
        )
    }

    /// Waits until every cache has been filled once: a set that comes from a cache not yet filled is never acted on.
    pub async fn wait_until_filled(&self) {
        // A writer is dropped only when the process ends.
        let _ = self.namespaces.wait_until_ready().await;
        let _ = self.backends.wait_until_ready().await;
        let _ = self.types.wait_until_ready().await;
        let _ = self.quotas.wait_until_ready().await;
        let _ = self.deletions.wait_until_ready().await;
        let _ = self.shares.wait_until_ready().await;
        let _ = self.rules.wait_until_ready().await;
        let _ = self.locks.wait_until_ready().await;
    }
}

/// Keeps the ledger, event by event. A share that can't be parsed keeps what it had. True if others may now have what one had.
pub fn note_share(ledger: &mut Ledger, event: &watcher::Event<Guarded<Share>>) -> bool {
    match event {
        watcher::Event::Init => ledger.begin_list(),
        watcher::Event::InitApply(guard) | watcher::Event::Apply(guard) => match &guard.0 {
            Ok(share) => return ledger.note(share),
            Err(_) => ledger.is_there(guard.meta()),
        },
        watcher::Event::InitDone => ledger.end_list(),
        watcher::Event::Delete(guard) => ledger.gone(&ResourceExt::uid(guard).unwrap_or_default()),
    }
    false
}

/// The same for ShareDeletions.
pub fn note_deletion(ledger: &mut Ledger, event: &watcher::Event<Guarded<ShareDeletion>>) -> bool {
    match event {
        watcher::Event::Init => ledger.begin_deletions(),
        watcher::Event::InitApply(guard) | watcher::Event::Apply(guard) => match &guard.0 {
            Ok(deletion) => return ledger.note_deletion(deletion),
            Err(_) => ledger.deletion_is_there(&guard.name_any()),
        },
        watcher::Event::InitDone => ledger.end_deletions(),
        watcher::Event::Delete(guard) => return ledger.deletion_gone(&guard.name_any()),
    }
    false
}

/// The objects of a guarded cache that could be parsed, and that are wanted; by namespace and name.
pub fn parsed<K>(store: &Store<Guarded<K>>, wanted: impl Fn(&K) -> bool) -> Vec<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let found = sorted(store, |guard| guard.0.as_ref().is_ok_and(&wanted));
    found
        .iter()
        .filter_map(|guard| guard.0.as_ref().ok())
        .cloned()
        .collect()
}

/// The objects of a cache that are wanted, by namespace and name: a store has no order, and what a pass does should not
/// hang on chance.
pub fn sorted<K>(store: &Store<K>, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + 'static,
{
    let mut found = store.state();
    found.retain(|object| wanted(object));
    sort(&mut found);
    found
}

fn sort<K: Resource>(objects: &mut [Arc<K>]) {
    objects.sort_by(|a, b| {
        let (a, b) = (a.meta(), b.meta());
        (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name))
    });
}

/// Names of objects by what they name, rules by their share say: a pass over one share must not read the rules of all.
#[derive(Debug, Default)]
pub struct Index {
    names: Mutex<Names>,
    /// While the cache is filled anew: what it is going to hold.
    filling: Mutex<Names>,
}

/// By namespace, and what in it is named. That can't change in any object.
type Names = BTreeMap<(String, String), BTreeSet<String>>;

impl Index {
    /// The parsed objects that name this, by name.
    pub fn find<K>(&self, store: &Store<Guarded<K>>, namespace: &str, target: &str) -> Vec<K>
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        let key = (namespace.to_owned(), target.to_owned());
        let names = self.names.lock().get(&key).cloned();
        names
            .unwrap_or_default()
            .iter()
            .filter_map(|name| store.get(&ObjectRef::new(name).within(namespace)))
            .filter_map(|guard| guard.0.as_ref().ok().cloned())
            .collect()
    }

    /// Follows the cache. Called before the cache itself takes the event in, so that whatever is found there is found here;
    /// what is found here and not there is passed over. `target` says what an object names.
    pub fn note<K: Resource<DynamicType = ()>>(
        &self,
        event: &watcher::Event<Guarded<K>>,
        target: impl Fn(&K) -> String,
    ) {
        let entry = |guard: &Guarded<K>| {
            let object = guard.0.as_ref().ok()?;
            let namespace = ResourceExt::namespace(object).unwrap_or_default();
            Some(((namespace, target(object)), object.name_any()))
        };
        let add = |names: &mut Names, guard: &Guarded<K>| {
            if let Some((key, name)) = entry(guard) {
                names.entry(key).or_default().insert(name);
            }
        };
        match event {
            watcher::Event::Init => self.filling.lock().clear(),
            watcher::Event::InitApply(guard) => add(&mut self.filling.lock(), guard),
            watcher::Event::InitDone => *self.names.lock() = std::mem::take(&mut *self.filling.lock()),
            watcher::Event::Apply(guard) => add(&mut self.names.lock(), guard),
            watcher::Event::Delete(guard) => {
                let mut names = self.names.lock();
                if let Some((key, name)) = entry(guard)
                    && let Some(there) = names.get_mut(&key)
                {
                    there.remove(&name);
                    if there.is_empty() {
                        names.remove(&key);
                    }
                }
            }
        }
    }
}

/// Waits between attempts to watch: the doubling ones of a pass, but never long, for without its caches the operator is
/// blind.
struct Retry {
    kind: String,
    attempts: u32,
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        const LONGEST: Duration = Duration::from_secs(30);
        self.attempts = self.attempts.saturating_add(1);
        Some(backoff::after(self.attempts, &self.kind).min(LONGEST))
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// What is new about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It appeared, changed in more than its status, or went.
    Object,
    /// Its status alone: as a rule its own writer's doing, and no news.
    Status,
}

/// Keeps a cache for as long as the process lives. Shows each event to `before`, then takes it in, and hands on what has
/// changed.
pub async fn keep<K>(
    client: Client,
    mut writer: reflector::store::Writer<K>,
    mut before: impl FnMut(&watcher::Event<K>) + Send,
    mut changed: impl FnMut(&K, Change) + Send,
) where
    K: Resource<DynamicType = ()>
        + Lookup<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
    ObjectRef<K>: Hash + Eq,
{
    let store = writer.as_reader();
    let mut stream = watcher(Api::<K>::all(client), watcher::Config::default())
        .backoff(Retry {
            kind: <K as Resource>::kind(&()).into_owned(),
            attempts: 0,
        })
        // Who wrote which field takes most of an object's memory, and nobody asks for it.
        .modify(|object| object.meta_mut().managed_fields = None)
        .boxed();
    let mut before_relist: HashMap<ObjectRef<K>, Arc<K>> = HashMap::new();
    while let Some(event) = stream.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(kind = %<K as Resource>::kind(&()), %error, "a watch broke off; it starts again");
                continue;
            }
        };
        let earlier = match &event {
            watcher::Event::Apply(object) => store.get(&Lookup::to_object_ref(object, ())),
            _ => None,
        };
        if matches!(event, watcher::Event::Init) {
            before_relist = store
                .state()
                .into_iter()
                .map(|o| (Lookup::to_object_ref(&*o, ()), o))
                .collect();
        }
        before(&event);
        writer.apply_watcher_event(&event);
        match &event {
            watcher::Event::Apply(object) => changed(object, change(earlier.as_deref(), object)),
            watcher::Event::Delete(object) => changed(object, Change::Object),
            watcher::Event::InitDone => {
                let mut replaced = Vec::new();
                for object in sorted(&store, |_| true) {
                    let earlier = before_relist.remove(&Lookup::to_object_ref(&*object, ()));
                    if let Some(other) = earlier.as_ref().filter(|e| e.meta().uid != object.meta().uid) {
                        replaced.push(other.clone());
                    }
                    changed(&object, change(earlier.as_deref(), &object));
                }
                // What is left, or was another, went while nobody was watching.
                let mut gone: Vec<_> = std::mem::take(&mut before_relist).into_values().collect();
                gone.append(&mut replaced);
                sort(&mut gone);
                for object in gone {
                    changed(&object, Change::Object);
                }
            }
            watcher::Event::Init | watcher::Event::InitApply(_) => {}
        }
    }
}

fn change<K: Resource>(earlier: Option<&K>, object: &K) -> Change {
    if earlier.is_some_and(|earlier| only_status_differs(earlier, object)) {
        Change::Status
    } else {
        Change::Object
    }
}

/// Whether two versions of an object differ in nothing but what Shoal writes.
fn only_status_differs<K: Resource>(a: &K, b: &K) -> bool {
    let (x, y) = (a.meta(), b.meta());
    x.uid == y.uid
        && x.generation.is_some()
        && x.generation == y.generation
        && x.deletion_timestamp == y.deletion_timestamp
        && a.finalizers() == b.finalizers()
        && a.labels() == b.labels()
        && a.annotations() == b.annotations()
}
