//! The backends, as they answered last: what shares are placed on and worked through.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use kube::Client;
use parking_lot::{Mutex, RwLock};
use shoal_backend::{
    Backend,
    simulated::{self, Simulated},
};
use shoal_ceph::{CephBackend, CephSettings, Connections, NfsService};
use shoal_crds::{ShareBackend, condition::reasons, names::connection_secret};
use shoal_domain::{Class, Failure, Scope, grant::Key, identity::Description};

use crate::{
    api,
    clock::Clock,
    error::Error,
    metrics::measured::{Measured, Operations},
};

/// A backend ready to be spoken to.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The ShareBackend's uid: one re-made under the same name is another.
    uid: String,
    /// What it was made from; it is made anew when that changes.
    made_from: MadeFrom,
    /// The backend.
    pub backend: Arc<Measured>,
    /// What it said of itself last, as far as shares may rely on it.
    pub state: Result<Description, Failure>,
    /// What it said of itself, while nothing may be changed there, whatever else is the matter.
    pub dry_run: Option<Description>,
    /// Whether a command that was not answered in time may still take effect: nothing was answered well since.
    owes_an_answer: bool,
}

impl Entry {
    /// Notes what it said last. The answer is what it said before.
    fn becomes(&mut self, state: Result<Description, Failure>) -> Result<Description, Failure> {
        match state.as_ref().map_err(|why| why.reason) {
            Ok(_) | Err(reasons::DRY_RUN) => self.owes_an_answer = false,
            Err(reasons::COMMAND_TIMED_OUT | reasons::BACKEND_SILENT) => self.owes_an_answer = true,
            // That it is away, say, is no answer.
            Err(_) => {}
        }
        std::mem::replace(&mut self.state, state)
    }
}

/// What a backend is made from. Compared, never printed: it holds a key.
#[derive(Clone, PartialEq)]
enum MadeFrom {
    Ceph(Box<CephSettings>),
    Simulated(shoal_crds::SimulatedBackend),
}

impl std::fmt::Debug for MadeFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ceph(_) => "Ceph",
            Self::Simulated(_) => "Simulated",
        })
    }
}

/// All backends, by name.
pub struct Backends {
    entries: RwLock<HashMap<String, Entry>>,
    /// Why there is no entry for a backend that was to be made; by name, with its uid.
    unmade: RwLock<HashMap<String, (String, Failure)>>,
    /// Backends in trouble that are about to be asked what is the matter.
    to_be_asked: Arc<Mutex<HashSet<String>>>,
    connections: Arc<Connections>,
    command_timeout: Duration,
    simulated: SimulatedClusters,
    /// This replica, as simulated clusters know it.
    identity: String,
    operations: Operations,
    clock: Clock,
}

/// A backend that is about to be asked; until this is dropped, nobody else sets out to.
#[derive(Debug)]
pub struct ToBeAsked {
    name: String,
    all: Arc<Mutex<HashSet<String>>>,
}

impl Drop for ToBeAsked {
    fn drop(&mut self) {
        self.all.lock().remove(&self.name);
    }
}

/// Finds what a simulated backend holds, by its ShareBackend's name and uid. Clones find the same.
#[derive(Clone)]
pub struct SimulatedClusters(Arc<Find>);

type Find = dyn Fn(&str, &str) -> Result<simulated::Cluster, shoal_backend::Error> + Send + Sync;

impl SimulatedClusters {
    /// Finds them with this function.
    pub fn found_by(
        find: impl Fn(&str, &str) -> Result<simulated::Cluster, shoal_backend::Error> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(find))
    }

    /// A cluster for each ShareBackend, that outlives a change of its spec; kept in a file of this folder, or else in memory.
    /// The ids in it come from the uid: the same ShareBackend is the same cluster after a restart.
    pub fn one_each(folder: Option<PathBuf>) -> Self {
        let clusters: Mutex<HashMap<String, simulated::Cluster>> = Mutex::default();
        Self::found_by(move |name, uid| {
            let mut clusters = clusters.lock();
            if let Some(cluster) = clusters.get(uid) {
                return Ok(cluster.clone());
            }
            let cluster = match &folder {
                Some(folder) => simulated::Cluster::with_state_file(
                    &folder.join(format!("{name}-{uid}.json")),
                    seed(uid),
                )?,
                None => simulated::Cluster::new(seed(uid)),
            };
            clusters.insert(uid.to_owned(), cluster.clone());
            Ok(cluster)
        })
    }
}

fn seed(uid: &str) -> u64 {
    uid.bytes()
        .fold(0_u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into()))
}

impl Backends {
    /// None yet.
    pub fn new(
        identity: &str,
        command_timeout: Duration,
        simulated: SimulatedClusters,
        operations: Operations,
        clock: Clock,
    ) -> Self {
        Self {
            entries: RwLock::default(),
            unmade: RwLock::default(),
            to_be_asked: Arc::default(),
            connections: Connections::new(),
            command_timeout,
            simulated,
            identity: identity.to_owned(),
            operations,
            clock,
        }
    }

    /// The backend of this name and uid, if it has been asked what it is.
    fn get(&self, name: &str, uid: &str) -> Option<Entry> {
        self.entries.read().get(name).filter(|e| e.uid == uid).cloned()
    }

    /// The same, or why there is none.
    pub fn find(&self, name: &str, uid: &str) -> Result<Entry, Failure> {
        self.get(name, uid).ok_or_else(|| {
            let unmade = self.unmade.read();
            unmade
                .get(name)
                .filter(|(of, _)| of == uid)
                .map_or_else(not_asked_yet, |(_, why)| why.clone())
        })
    }

    /// Makes the backend that a ShareBackend describes, or finds the one made before.
    pub async fn connect(&self, client: &Client, object: &ShareBackend) -> Result<Arc<Measured>, Error> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let made_from = self.made_from(client, object).await?;
        let before = self.get(&name, &uid);
        let owes_an_answer = before.as_ref().is_some_and(|entry| entry.owes_an_answer);
        if let Some(entry) = before.filter(|e| e.made_from == made_from) {
            return Ok(entry.backend);
        }
        let backend: Box<dyn Backend> = match &made_from {
            MadeFrom::Ceph(settings) => Box::new(CephBackend::new((**settings).clone(), &self.connections)),
            MadeFrom::Simulated(spec) => Box::new(self.simulate(&name, &uid, spec)?),
        };
        let backend = Arc::new(Measured::new(&name, backend, &self.operations, &self.clock));
        let entry = Entry {
            uid,
            made_from,
            backend: backend.clone(),
            state: Err(not_asked_yet()),
            dry_run: None,
            owes_an_answer,
        };
        self.unmade.write().remove(&name);
        self.entries.write().insert(name, entry);
        Ok(backend)
    }

    /// Says what shares may rely on; `dry_run` is what they may look at if that is all. True if that is news for them.
    pub fn admit(
        &self,
        name: &str,
        uid: &str,
        state: Result<Description, Failure>,
        dry_run: Option<Description>,
    ) -> bool {
        let mut entries = self.entries.write();
        let Some(entry) = entries.get_mut(name).filter(|e| e.uid == uid) else {
            let Err(why) = state else { return false };
            let reason = why.reason;
            let before = self.unmade.write().insert(name.to_owned(), (uid.to_owned(), why));
            return before.is_none_or(|(of, why)| of != uid || why.reason != reason);
        };
        let before = entry.becomes(state);
        entry.dry_run = dry_run;
        match (&before, &entry.state) {
            (Ok(old), Ok(new)) => {
                old.identity != new.identity
                    || old.monitors != new.monitors
                    || old.nfs_endpoints != new.nfs_endpoints
                    || old.protocols != new.protocols
            }
            (Err(old), Err(new)) => old.reason != new.reason,
            _ => true,
        }
    }

    /// Notes trouble that a share had with its backend: no other share tries before the backend itself has been asked. The
    /// answer, if it was thought to be well and nobody is about to ask it: who asks says so before.
    pub fn trouble(&self, name: &str, failure: Failure) -> Option<ToBeAsked> {
        let was_well = match self.entries.write().get_mut(name) {
            Some(entry) => entry.becomes(Err(failure)).is_ok(),
            None => false,
        };
        let is_first = was_well && self.to_be_asked.lock().insert(name.to_owned());
        is_first.then(|| ToBeAsked {
            name: name.to_owned(),
            all: self.to_be_asked.clone(),
        })
    }

    /// Whether a command that was not answered in time may still take effect.
    pub fn owe_an_answer(&self) -> bool {
        self.entries.read().values().any(|entry| entry.owes_an_answer)
    }

    async fn made_from(&self, client: &Client, object: &ShareBackend) -> Result<MadeFrom, Error> {
        let Some(ceph) = &object.spec.ceph else {
            return Ok(MadeFrom::Simulated(
                object.spec.simulated.clone().unwrap_or_default(),
            ));
        };
        let reference = &ceph.connection_secret_ref;
        let place = format!(
            "spec.ceph.connectionSecretRef: Secret {}/{}",
            reference.namespace, reference.name
        );
        let secret = api::secret(client, &reference.namespace, &reference.name)
            .await?
            .ok_or_else(|| {
                no_secret(format!(
                    "{place} does not exist; create it with keys monHost, userID and userKey"
                ))
            })?;
        let text = |key: &str| {
            api::secret_text(&secret, key)
                .map(|t| t.trim().to_owned())
                .filter(|t| !t.is_empty())
                .ok_or_else(|| no_secret(format!("{place} has no {key}; add it")))
        };
        Ok(MadeFrom::Ceph(Box::new(CephSettings {
            mon_host: text(connection_secret::MON_HOST)?,
            user_id: text(connection_secret::USER_ID)?,
            user_key: Key::new(text(connection_secret::USER_KEY)?),
            filesystem: ceph.filesystem.clone(),
            subvolume_group: ceph.subvolume_group.clone(),
            data_pool: ceph.data_pool.clone(),
            namespace_isolated: ceph.namespace_isolated,
            nfs: ceph.nfs.as_ref().map(|n| NfsService {
                cluster_id: n.cluster_id.clone(),
                endpoints: n.endpoints.clone(),
            }),
            command_timeout: self.command_timeout,
        })))
    }

    fn simulate(
        &self,
        name: &str,
        uid: &str,
        spec: &shoal_crds::SimulatedBackend,
    ) -> Result<Simulated, Error> {
        let cluster = (self.simulated.0)(name, uid)?;
        let settings = simulated::Settings {
            // As long as Ceph's: a lease that is long enough for one is so for the other.
            deadline: self.command_timeout * CephBackend::COMMANDS_IN_DEADLINE,
            ..simulated::Settings::of(&self.identity, spec, seed(uid))
        };
        Ok(Simulated::new(&cluster, name, settings)?)
    }
}

/// What is said of a backend before it has been asked what it is.
fn not_asked_yet() -> Failure {
    Failure {
        class: Class::Waiting,
        scope: Scope::Backend,
        reason: reasons::BACKEND_NOT_ASKED,
        message: "it has not been asked yet".into(),
    }
}

fn no_secret(message: String) -> Error {
    Error::Backend(Failure {
        class: Class::Waiting,
        scope: Scope::Backend,
        reason: reasons::SECRET_NOT_FOUND,
        message,
    })
}
