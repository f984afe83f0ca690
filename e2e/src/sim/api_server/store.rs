//! What is stored, its history, and who follows it.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Options,
    managers::{self, Manager},
    refusal::Refusal,
    resource::{RESOURCES, Resource},
    watch::{Event, EventKind, Watch},
};

/// Time of day when a server is made: 2026-01-01T00:00:00Z.
const BEGINNING: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// The longest that garbage lies about: the real collector takes from some milliseconds to so long.
const COLLECTED_WITHIN: Duration = Duration::from_mins(1);

/// Namespace (empty for cluster-scoped objects) and name.
pub(super) type Key = (String, String);

/// An object as stored.
#[derive(Debug)]
pub(super) struct Object {
    /// Without `managedFields`.
    pub value: Value,
    pub managers: Vec<Manager>,
    /// What clients get.
    pub json: String,
    /// Whether its status is only the default that reads put in: the next write stores it, even one that changes nothing.
    pub lacks_status: bool,
    /// What [`Self::typed`] has read.
    typed: OnceLock<Option<Box<dyn Any + Send + Sync>>>,
}

impl Object {
    fn new(value: Value, managers: Vec<Manager>) -> Self {
        let json = managers::shown(&value, &managers).to_string();
        Self {
            value,
            managers,
            json,
            lacks_status: false,
            typed: OnceLock::new(),
        }
    }

    /// One that only an answer shows.
    pub fn unstored(value: Value, managers: Vec<Manager>) -> Arc<Self> {
        Arc::new(Self::new(value, managers))
    }

    /// The same at another version.
    pub fn at_version(&self, version: u64) -> Self {
        let mut value = self.value.clone();
        value["metadata"]["resourceVersion"] = version.to_string().into();
        Self::new(value, self.managers.clone())
    }

    /// As the one type that objects of its resource are read as, if it can be; read once.
    pub fn typed<K: DeserializeOwned + Clone + Send + Sync + 'static>(&self) -> Option<K> {
        let typed = self.typed.get_or_init(|| {
            let read = K::deserialize(&self.value).ok()?;
            Some(Box::new(read) as _)
        });
        let typed = typed.as_ref()?.downcast_ref::<K>();
        Some(typed.expect("a resource is read as one type").clone())
    }

    /// A text below `metadata`.
    pub fn meta(&self, name: &str) -> &str {
        self.value["metadata"][name].as_str().unwrap_or_default()
    }

    pub fn is_deleting(&self) -> bool {
        !self.value["metadata"]["deletionTimestamp"].is_null()
    }
}

/// Objects of one resource.
pub(super) type Objects = BTreeMap<Key, Arc<Object>>;

/// Plural name of the resource, and key of the object.
type Place = (&'static str, Key);

/// The server's state.
pub(super) struct Store {
    pub born_held: bool,
    start: Instant,
    random: u64,
    version: u64,
    /// No history up to this version.
    forgotten: u64,
    objects: BTreeMap<&'static str, Objects>,
    history: BTreeMap<&'static str, Vec<Event>>,
    /// What lists with pages still to come were begun on, by version.
    snapshots: BTreeMap<(&'static str, u64), Objects>,
    uids: BTreeSet<String>,
    /// Objects with owners.
    owned: BTreeSet<Place>,
    /// Those whose owners are all gone, and when they will be deleted for it.
    garbage: BTreeMap<Place, Instant>,
    pub watches: BTreeMap<u64, Watch>,
    next_watch: u64,
}

impl Store {
    pub fn new(options: &Options) -> Self {
        let mut store = Self {
            born_held: options.born_held,
            start: Instant::now(),
            random: options.seed,
            version: 0,
            forgotten: 0,
            objects: BTreeMap::new(),
            history: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            uids: BTreeSet::new(),
            owned: BTreeSet::new(),
            garbage: BTreeMap::new(),
            watches: BTreeMap::new(),
            next_watch: 0,
        };
        for resource in RESOURCES.iter() {
            store.objects.insert(&resource.plural, Objects::new());
            store.history.insert(&resource.plural, Vec::new());
        }
        store
    }

    /// Since the server was made.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Now, as the API writes it.
    pub fn now(&self) -> String {
        let elapsed = SignedDuration::try_from(self.elapsed()).unwrap_or(SignedDuration::MAX);
        let now = BEGINNING.saturating_add(elapsed).unwrap_or(Timestamp::MAX);
        now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// 64 bits of the seed's (splitmix64).
    pub fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn uid(&mut self) -> String {
        let (a, b) = (self.random(), self.random());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            0x8000 | (b >> 48 & 0x3fff),
            b & 0xffff_ffff_ffff
        )
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    pub fn objects(&self, resource: &Resource) -> &Objects {
        &self.objects[resource.plural.as_str()]
    }

    pub fn get(&self, resource: &Resource, key: &Key) -> Result<Arc<Object>, Refusal> {
        self.objects(resource)
            .get(key)
            .cloned()
            .ok_or_else(|| Refusal::not_found(resource, &key.1))
    }

    /// Keeps what a list was begun on for its later pages: what is there now, if it has begun now.
    pub fn keep_snapshot_of(&mut self, resource: &'static Resource, version: u64) {
        let place = (resource.plural.as_str(), version);
        if !self.snapshots.contains_key(&place) {
            self.snapshots.insert(place, self.objects(resource).clone());
        }
    }

    pub fn snapshot(&self, resource: &'static Resource, version: u64) -> Option<&Objects> {
        self.snapshots.get(&(resource.plural.as_str(), version))
    }

    /// Forgets history up to now.
    pub fn compact(&mut self) {
        self.forgotten = self.version;
        self.snapshots.clear();
        self.history.values_mut().for_each(Vec::clear);
    }

    /// Stores a new object: with a uid, a version and, for custom resources, a generation.
    pub fn insert(
        &mut self,
        resource: &'static Resource,
        key: Key,
        mut value: Value,
        managers: Vec<Manager>,
    ) -> Arc<Object> {
        value["metadata"]["uid"] = self.uid().into();
        value["metadata"]["creationTimestamp"] = self.now().into();
        self.store(resource, key, value, managers, EventKind::Added)
    }

    /// Stores a new version of an object.
    pub fn update(
        &mut self,
        resource: &'static Resource,
        key: Key,
        value: Value,
        managers: Vec<Manager>,
    ) -> Arc<Object> {
        self.store(resource, key, value, managers, EventKind::Modified)
    }

    fn store(
        &mut self,
        resource: &'static Resource,
        key: Key,
        mut value: Value,
        managers: Vec<Manager>,
        kind: EventKind,
    ) -> Arc<Object> {
        self.version += 1;
        value["metadata"]["resourceVersion"] = self.version.to_string().into();
        let mut object = Object::new(value, managers);
        object.lacks_status = resource.status_subresource && kind == EventKind::Added;
        let object = Arc::new(object);
        self.uids.insert(object.meta("uid").to_owned());
        let place = (resource.plural.as_str(), key.clone());
        let concerns_garbage = if object.value["metadata"]["ownerReferences"].is_array() {
            self.owned.insert(place);
            true
        } else {
            self.owned.remove(&place)
        };
        let before = self
            .objects
            .get_mut(resource.plural.as_str())
            .and_then(|objects| objects.insert(key, object.clone()));
        self.publish(resource, kind, object.clone(), before);
        if concerns_garbage {
            self.find_garbage();
        }
        object
    }

    /// Removes an object.
    pub fn remove(&mut self, resource: &'static Resource, key: &Key) {
        let Some(before) = self
            .objects
            .get_mut(resource.plural.as_str())
            .and_then(|objects| objects.remove(key))
        else {
            return;
        };
        self.uids.remove(before.meta("uid"));
        self.owned.remove(&(resource.plural.as_str(), key.clone()));
        self.version += 1;
        self.publish(resource, EventKind::Deleted, before.clone(), Some(before));
        self.find_garbage();
    }

    /// Draws when objects whose owners are all gone will be deleted.
    fn find_garbage(&mut self) {
        let orphans: BTreeSet<_> = self
            .owned
            .iter()
            .filter(|place| self.is_orphan(place))
            .cloned()
            .collect();
        self.garbage.retain(|place, _| orphans.contains(place));
        for place in orphans {
            if !self.garbage.contains_key(&place) {
                let most = u64::try_from(COLLECTED_WITHIN.as_millis()).unwrap_or(u64::MAX);
                let after = Duration::from_millis(self.random() % most);
                self.garbage.insert(place, Instant::now() + after);
            }
        }
    }

    /// Deletes the garbage that is due, in the order in which it became so.
    pub fn collect(&mut self) {
        let now = Instant::now();
        let mut due: Vec<_> = self.garbage.iter().filter(|(_, due)| **due <= now).collect();
        due.sort_by_key(|(_, due)| **due);
        let due: Vec<Place> = due.into_iter().map(|(place, _)| place.clone()).collect();
        for (plural, key) in due {
            self.owned.remove(&(plural, key.clone()));
            self.garbage.remove(&(plural, key.clone()));
            if let Some(resource) = RESOURCES.iter().find(|resource| resource.plural == plural) {
                super::write::delete_stored(self, resource, &key);
            }
        }
    }

    fn is_orphan(&self, (plural, key): &Place) -> bool {
        let owners = self
            .objects
            .get(plural)
            .and_then(|objects| objects.get(key))
            .and_then(|object| object.value["metadata"]["ownerReferences"].as_array());
        owners.is_some_and(|owners| {
            owners
                .iter()
                .all(|owner| owner["uid"].as_str().is_none_or(|uid| !self.uids.contains(uid)))
        })
    }

    fn publish(
        &mut self,
        resource: &'static Resource,
        kind: EventKind,
        object: Arc<Object>,
        before: Option<Arc<Object>>,
    ) {
        let event = Event {
            kind,
            version: self.version,
            at: Instant::now(),
            object,
            before,
        };
        for watch in self.watches.values_mut() {
            watch.offer(resource, &event);
        }
        if let Some(history) = self.history.get_mut(resource.plural.as_str()) {
            history.push(event);
        }
    }

    /// Everything that happened to a resource after a version, and is remembered.
    pub fn since(&self, resource: &Resource, version: u64) -> impl Iterator<Item = &Event> {
        let history = &self.history[resource.plural.as_str()];
        history[history.partition_point(|event| event.version <= version)..].iter()
    }

    pub fn add_watch(&mut self, watch: Watch) -> u64 {
        self.next_watch += 1;
        self.watches.insert(self.next_watch, watch);
        self.next_watch
    }

    /// The namespaces that every cluster has.
    pub fn add_namespace(&mut self, name: &str) {
        let resource = super::resource::find("", "namespaces");
        if let Some(resource) = resource {
            let mut value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            super::write::complete(resource, &mut value);
            self.insert(resource, (String::new(), name.into()), value, Vec::new());
        }
    }
}
