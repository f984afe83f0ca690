//! What must hold: at every command and every moment, and once everything has come to rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, ensure};
use kube::{ResourceExt, core::ObjectMeta};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use shoal_backend::simulated::{Cluster, Entry, Holdings, NfsClient, Operation as Method, What};
use shoal_crds::{
    DeletionPhase, LockAction, LockPhase, LockedKind, ResourceLock, Share, ShareAccessRule, ShareBackend,
    ShareDeletion, ShareQuota,
    condition::{reasons, types},
    names::{FINALIZER, FORMER_DATA, PAUSED, labels},
};
use shoal_domain::{
    condition::is_true,
    grant::{Access, Client},
    owner::Place,
    resource_lock, share_deletion,
};
use tokio::{sync::Notify, time::Instant};

use super::{
    api_server::{ApiServer, Call, Verb},
    ensuring::Requests,
    hiding,
    keeping::Promises,
    placing,
    plan::Plan,
    replica::{COMMAND_DEADLINE, END, LEASE, time},
};
use crate::{
    holdings::{
        self, Altered, Left, Objects, client_of, names_it, path_of, path_of_deletion, specific_first,
        subvolume_of,
    },
    world::condition,
};

/// How often a call is made in a minute at most, by one replica and for one share, or for all backends: each of the two is
/// asked once a second while its shares have trouble with it.
const MOST_A_MINUTE: u32 = 300;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
    /// When, since the run began.
    pub at: Duration,
}

/// Watches a run.
#[derive(Clone)]
pub struct Checker(Arc<Inner>);

struct Inner {
    server: ApiServer,
    /// How many GiB each backend may promise.
    room: Option<u32>,
    began: Instant,
    /// Who took or renewed the Lease last, and when the server stored that.
    lease: Mutex<(String, Option<Instant>)>,
    by_hand: Mutex<ByHand>,
    /// Calls that write and have not been answered: by whom, and the share's uid.
    under_way: Mutex<BTreeSet<(String, String)>>,
    /// Shares, by uid, whose place or size was stored by a process that had been stopped with the write in hand, when another
    /// led already: it knew none of them.
    late: Mutex<BTreeSet<String>>,
    hidden: Mutex<hiding::Keys>,
    /// What was locked when its deletion was accepted: the locks, by its uid.
    held: Mutex<BTreeMap<String, BTreeSet<Holding>>>,
    limits: Mutex<placing::Limits>,
    /// As they were after the last write.
    deletions: Mutex<BTreeMap<String, ShareDeletion>>,
    promises: Mutex<Promises>,
    requests: Mutex<Requests>,
    /// Names of shares of which there is data from before etcd was lost.
    former: Mutex<BTreeSet<(String, String)>>,
    /// Shares, by uid, that were to bring back what is kept of another.
    bringing_back: Mutex<BTreeSet<String>>,
    /// Shares, by uid, whose subvolume Shoal has removed.
    removed: Mutex<BTreeSet<String>>,
    /// ShareDeletions, by name, that were given up at some time.
    given_up: Mutex<BTreeSet<String>>,
    /// The names that shares have got, by uid.
    names: Mutex<BTreeMap<String, String>>,
    /// What the shares of each namespace were charged after the last write.
    charged: Mutex<BTreeMap<String, placing::Charges>>,
    /// Replicas with a call that writes and was not answered in time, until the storage answers them again.
    owed: Mutex<BTreeSet<String>>,
    /// In which minute each call was made last, and how often.
    pace: Mutex<BTreeMap<Kind, (u64, u32)>>,
    found: Mutex<Option<Violation>>,
    changed: Notify,
    /// Is told by whom the storage is called, before the call does anything.
    ambush: Mutex<Option<Ambush>>,
}

/// Calls that are alike: by whom, for which share's uid, which.
type Kind = (String, String, Method);

/// Uids of a lock, and of what it is on: a share, or a rule of it.
type Holding = (String, String);

type Ambush = Box<dyn Fn(&str) + Send>;

/// What was done behind Shoal's back, and so is not its doing.
#[derive(Clone, Debug, Default)]
pub struct ByHand {
    /// What Shoal leaves as it is.
    pub altered: Altered,
    /// Shares whose subvolume was deleted when their data was there, by uid.
    lost: BTreeSet<String>,
    /// Shares whose clients were changed, by uid, until the next time all is at rest.
    pub clients: BTreeSet<String>,
    /// Calls that were under way when it got it.
    too_late: BTreeSet<(String, String)>,
}

impl Checker {
    /// Watches a server and a storage cluster in a run.
    pub fn new(server: &ApiServer, cluster: &Cluster, plan: &Plan, began: Instant) -> Self {
        let checker = Self(Arc::new(Inner {
            server: server.clone(),
            room: plan.setting.room,
            began,
            lease: Mutex::default(),
            by_hand: Mutex::default(),
            under_way: Mutex::default(),
            late: Mutex::default(),
            hidden: Mutex::default(),
            held: Mutex::default(),
            limits: Mutex::default(),
            deletions: Mutex::default(),
            promises: Mutex::new(Promises::new(plan.clocks_fast())),
            requests: Mutex::default(),
            former: Mutex::default(),
            bringing_back: Mutex::default(),
            removed: Mutex::default(),
            given_up: Mutex::default(),
            names: Mutex::default(),
            charged: Mutex::default(),
            owed: Mutex::default(),
            pace: Mutex::default(),
            found: Mutex::default(),
            changed: Notify::new(),
            ambush: Mutex::default(),
        }));
        let own = checker.clone();
        cluster.observe(move |entry| own.on_storage(entry));
        let own = checker.clone();
        server.observe(move |call| own.on_api(call));
        checker
    }

    /// The first thing that was found.
    pub fn found(&self) -> Option<Violation> {
        self.0.found.lock().clone()
    }

    /// Tells of the next call that changes the storage, before it does anything, by whom it is.
    pub fn at_next_call(&self, then: impl Fn(&str) + Send + 'static) {
        *self.0.ambush.lock() = Some(Box::new(then));
    }

    /// What came to be in custody so late that nobody could take it away.
    pub fn left_in_custody(&self) -> BTreeSet<String> {
        self.0.hidden.lock().late(&self.0.server)
    }

    /// What was done by hand.
    pub fn by_hand(&self) -> parking_lot::MutexGuard<'_, ByHand> {
        self.0.by_hand.lock()
    }

    /// Notes what there is from before etcd was lost, and which names have data in it.
    pub fn is_recovered(&self, altered: Altered, names: impl IntoIterator<Item = (String, String)>) {
        self.by_hand().altered = altered;
        *self.0.former.lock() = names.into_iter().collect();
    }

    /// Notes that a subvolume has got another owner's tag. Calls under way may have looked before.
    pub fn is_anothers(&self, uid: &str) {
        let under_way = self.0.under_way.lock().clone();
        let mut by_hand = self.by_hand();
        by_hand.altered.foreign.insert(uid.to_owned());
        by_hand
            .too_late
            .extend(under_way.into_iter().filter(|(_, of)| of == uid));
    }

    /// Notes that a subvolume was deleted, and whether its Share said that it was there.
    pub fn is_deleted(&self, uid: &str, is_provisioned: bool) {
        let is_worked_on = self.0.under_way.lock().iter().any(|(_, of)| of == uid);
        let mut by_hand = self.by_hand();
        by_hand.altered.foreign.remove(uid);
        by_hand.altered.deleted.insert(uid.to_owned());
        if is_provisioned && !is_worked_on {
            by_hand.lost.insert(uid.to_owned());
        }
    }

    /// Notes that a subvolume has lost its tag before its Share said that it was there: nobody may have written into it.
    pub fn is_as_never_used(&self, uid: &str) {
        self.0.promises.lock().forget(uid);
    }

    /// Notes a violation; the first counts.
    pub fn violated(&self, invariant: &'static str, detail: impl Into<String>) {
        self.0.found.lock().get_or_insert_with(|| Violation {
            invariant,
            detail: detail.into(),
            at: self.0.began.elapsed(),
        });
    }

    /// Compares the storage with the objects whenever either has changed. Never ends.
    pub async fn watch(self, cluster: Cluster) {
        loop {
            self.0.changed.notified().await;
            match cluster.snapshot() {
                Ok(holdings) => self.at_every_moment(&holdings),
                Err(error) => self.violated("the storage can be asked", error.to_string()),
            }
        }
    }

    fn on_api(&self, call: &Call) {
        if call.resource == "leases" && call.stored {
            *self.0.lease.lock() = (call.caller.clone(), Some(Instant::now()));
            self.released_at_rest(&call.caller);
        }
        if call.resource == "shares" || call.resource == "shareaccessrules" {
            self.0.changed.notify_one();
        }
        if matches!(
            call.resource.as_str(),
            "shares" | "shareaccessrules" | "resourcelocks"
        ) && call.stored
        {
            self.locks_hold(call);
        }
        if call.stored {
            let leads = call.caller == self.0.lease.lock().0;
            let checked = self.0.hidden.lock().note(&self.0.server, call, leads);
            if let Err(error) = checked {
                self.violated("a hidden key is its reader's alone", format!("{error:#}"));
            }
        }
        if call.resource == "shares" && call.stored {
            let leads = call.caller == self.0.lease.lock().0;
            let shares: Vec<Share> = self.all("shares");
            let written = shares.iter().find(|share| {
                share.name_any() == call.name && share.namespace().as_deref() == Some(&call.namespace)
            });
            if !leads && call.caller.starts_with("replica") {
                self.0.late.lock().extend(written.and_then(ResourceExt::uid));
            }
            let is_ready = |share: &&Share| {
                let status = share.status.as_ref();
                status.is_some_and(|status| is_true(&status.conditions, types::READY))
            };
            if let Some(share) = written.filter(is_ready) {
                self.0.promises.lock().note(share);
            }
            self.0.requests.lock().note_shares(&shares);
            let bring_back = shares.iter().filter(|share| share.spec.source.is_some());
            self.0
                .bringing_back
                .lock()
                .extend(bring_back.filter_map(ResourceExt::uid));
            self.placed_well();
            self.within_quota(&call.namespace);
        }
        if call.resource == "sharedeletions" && call.stored {
            self.given_up();
            self.placed_well();
        }
        if call.resource == "sharebackends" && call.stored {
            let answered = self
                .0
                .requests
                .lock()
                .note_backends(&self.all("sharebackends"), &self.all("shares"));
            if let Err(error) = answered {
                self.violated(
                    "what was asked for is answered when it was done",
                    error.to_string(),
                );
            }
        }
        if call.resource == "sharequotas" && call.stored {
            self.0.limits.lock().note(&self.all::<ShareQuota>("sharequotas"));
        }
        if call.resource == "sharebackends" && call.verb == Verb::Patch && call.caller.starts_with("replica")
        {
            self.let_go_empty(&call.name);
        }
    }

    /// What was locked when its deletion was accepted is there until its locks are gone, and what an enforced lock is on is
    /// marked.
    fn locks_hold(&self, call: &Call) {
        let locks: Vec<ResourceLock> = self.all("resourcelocks");
        let shares: Vec<Share> = self.all("shares");
        let rules: Vec<ShareAccessRule> = self.all("shareaccessrules");
        let mut held = self.0.held.lock();
        if call.verb == Verb::Delete && call.resource != "resourcelocks" {
            let deleted = shares
                .iter()
                .filter(|share| share.metadata.deletion_timestamp.is_some())
                .map(|share| (share.uid(), locks_of(share, &rules, &locks)));
            let deleted_rules = rules
                .iter()
                .filter(|rule| rule.metadata.deletion_timestamp.is_some())
                .map(|rule| (rule.uid(), locks_on_rule(rule, &locks)));
            for (uid, of_it) in deleted.chain(deleted_rules) {
                held.entry(uid.unwrap_or_default()).or_insert(of_it);
            }
        }
        let there: BTreeSet<_> = locks.iter().filter_map(ResourceExt::uid).collect();
        let present: BTreeSet<_> = shares
            .iter()
            .filter_map(ResourceExt::uid)
            .chain(rules.iter().filter_map(ResourceExt::uid))
            .collect();
        // A rule that no finalizer holds goes by itself, and its lock then holds no share.
        let still_holds =
            |(lock, on): &Holding, uid: &str| there.contains(lock) && (on == uid || present.contains(on));
        let let_go = held
            .iter()
            .find(|(uid, by)| !present.contains(*uid) && by.iter().any(|lock| still_holds(lock, uid)));
        if let Some((uid, by)) = let_go {
            self.violated("what is locked is not let go", format!("{uid}, locked by {by:?}"));
        }
        for lock in &locks {
            let Some(uid) = lock.labels().get(labels::ENFORCED) else {
                continue;
            };
            let marked = |meta: &ObjectMeta| {
                meta.uid.as_ref() != Some(uid)
                    || meta.deletion_timestamp.is_some()
                    || meta
                        .labels
                        .as_ref()
                        .is_some_and(|map| map.contains_key(labels::LOCKED))
            };
            if !shares.iter().all(|share| marked(&share.metadata))
                || !rules.iter().all(|rule| marked(&rule.metadata))
            {
                self.violated("what an enforced lock is on is marked", format!("{lock:?}"));
            }
        }
    }

    /// Nothing is taken from a share that was locked when its deletion was accepted before those locks are gone.
    fn not_locked(&self, entry: &Entry, command: &str) {
        let held = self.0.held.lock();
        let Some(by) = held.get(&entry.uid) else { return };
        let locks: Vec<ResourceLock> = self.all("resourcelocks");
        let rules: Vec<ShareAccessRule> = self.all("shareaccessrules");
        let present: BTreeSet<_> = locks
            .iter()
            .filter_map(ResourceExt::uid)
            .chain(rules.iter().filter_map(ResourceExt::uid))
            .collect();
        let still_holds =
            |(lock, on): &Holding| present.contains(lock) && (*on == entry.uid || present.contains(on));
        // An export of a subvolume that was deleted by hand leads nowhere.
        let is_lost = self.by_hand().altered.deleted.contains(&entry.uid);
        let is_destroyed = matches!(command, "subvolume rm" | "export rm") && !is_lost;
        if is_destroyed && by.iter().any(still_holds) {
            self.violated(
                "what is locked is not destroyed",
                format!("{entry:?}, locked by {by:?}"),
            );
        }
    }

    /// Notes until when data is kept, and what was left for good: its ShareDeletion says that it is given up, and is gone.
    fn given_up(&self) {
        let now: Vec<ShareDeletion> = self.all("sharedeletions");
        for deletion in &now {
            self.0.promises.lock().note_end(deletion);
            if !share_deletion::is_pending(deletion) {
                self.0.given_up.lock().insert(deletion.name_any());
            }
        }
        let now: BTreeMap<_, _> = now.into_iter().map(|d| (d.name_any(), d)).collect();
        let before = std::mem::replace(&mut *self.0.deletions.lock(), now.clone());
        for (name, deletion) in before {
            if !now.contains_key(&name) && deletion.spec.abandon {
                let uid = deletion.spec.share_ref.uid.clone();
                let left = Left {
                    subvolume: Place::of(deletion.spec.handle.as_deref(), &uid).subvolume,
                    pseudo_path: path_of_deletion(&deletion),
                };
                self.by_hand().altered.abandoned.insert(uid, left);
            }
        }
    }

    /// A ShareBackend is let go when no share is on it.
    fn let_go_empty(&self, name: &str) {
        let backends: Vec<ShareBackend> = self.all("sharebackends");
        if backends.iter().any(|backend| backend.name_any() == name) {
            return;
        }
        let shares: Vec<Share> = self.all("shares");
        if let Some(share) = shares.iter().find(|share| placing::on(share) == Some(name)) {
            self.violated(
                "a ShareBackend is let go when no share is on it",
                format!("{name}: {share:#?}"),
            );
        }
        let deletions: Vec<ShareDeletion> = self.all("sharedeletions");
        let on_it =
            |left: &&ShareDeletion| left.spec.backend_name == name && share_deletion::is_pending(left);
        if let Some(left) = deletions.iter().find(on_it) {
            self.violated(
                "a ShareBackend is let go when nothing is left to do on it",
                format!("{name}: {left:#?}"),
            );
        }
    }

    /// A share that says that it is paused is left alone.
    fn not_paused(&self, entry: &Entry) {
        let Some(share) = self.share(&entry.uid) else {
            return;
        };
        let status = share.status.clone().unwrap_or_default();
        if share.annotations().contains_key(PAUSED)
            && condition(&status.conditions, types::PAUSED) == Some(("True", reasons::PAUSED))
        {
            self.violated("a paused share is left alone", format!("{entry:?}: {share:#?}"));
        }
    }

    /// A backend that says that it is only looked at is changed by nobody.
    fn not_only_looked_at(&self, entry: &Entry) {
        let on = if let Some(share) = self.share(&entry.uid) {
            share.status.and_then(|status| status.backend_name)
        } else {
            let deletions: Vec<ShareDeletion> = self.all("sharedeletions");
            let mut of_it = deletions
                .into_iter()
                .filter(|d| d.spec.share_ref.uid == entry.uid);
            of_it.next().map(|deletion| deletion.spec.backend_name)
        };
        let backends: Vec<ShareBackend> = self.all("sharebackends");
        let is_it = |backend: &&ShareBackend| {
            let status = backend.status.clone().unwrap_or_default();
            backend.spec.dry_run
                && Some(backend.name_any()) == on
                && status.observed_generation == backend.metadata.generation
                && condition(&status.conditions, types::READY) == Some(("False", reasons::DRY_RUN))
        };
        if let Some(backend) = backends.iter().find(is_it) {
            self.violated(
                "a backend that is only looked at is not changed",
                format!("{entry:?}: {backend:#?}"),
            );
        }
    }

    /// Nowhere more is promised than there is, and shares are where those are that they have to be with, or apart from.
    fn placed_well(&self) {
        let mut shares: Vec<Share> = self.all("shares");
        shares.retain(|share| !self.0.late.lock().contains(&share.uid().unwrap_or_default()));
        let mut deletions: Vec<ShareDeletion> = self.all("sharedeletions");
        deletions.retain(|left| !self.0.late.lock().contains(&left.spec.share_ref.uid));
        // The room of what was given up may be another's by the time that it is taken up again.
        deletions.retain(|left| !self.0.given_up.lock().contains(&left.name_any()));
        // What it was to bring back is another's still, or was never there.
        let is_without = |left: &ShareDeletion| {
            left.spec.handle.is_none() && self.0.bringing_back.lock().contains(&left.spec.share_ref.uid)
        };
        deletions.retain(|left| !is_without(left));
        // Who has removed the data may not have heard that the ShareDeletion was stored.
        deletions.retain(|left| !self.0.removed.lock().contains(&left.spec.share_ref.uid));
        if let Err(error) = placing::check(&shares, &deletions, self.0.room) {
            self.violated("shares are placed as was asked", error.to_string());
        }
        let deletions: Vec<ShareDeletion> = self.all("sharedeletions");
        if let Err(error) = placing::names(&shares, &deletions, &mut self.0.names.lock()) {
            self.violated("a name is one share's, and stays", error.to_string());
        }
    }

    /// A namespace's shares are charged more only as far as its quota goes.
    fn within_quota(&self, namespace: &str) {
        let mut shares: Vec<Share> = self.all("shares");
        shares.retain(|share| !self.0.late.lock().contains(&share.uid().unwrap_or_default()));
        let now = placing::used(namespace, &shares);
        let before = self.0.charged.lock().insert(namespace.to_owned(), now.clone());
        let before = before.unwrap_or_default();
        if let Err(error) = self.0.limits.lock().check(namespace, &before, &now) {
            self.violated("quotas hold", error.to_string());
        }
    }

    fn on_storage(&self, entry: &Entry) {
        let writes = !matches!(
            entry.operation,
            Method::Describe | Method::Look | Method::List | Method::Tag
        );
        let call = || (entry.by.clone(), entry.uid.clone());
        if entry.what == What::Called {
            self.not_at_once_again(entry);
            self.0.requests.lock().note_call(entry);
        }
        match entry.what {
            What::Called if writes => {
                if !self.0.under_way.lock().insert(call()) {
                    self.violated("no two hands on one subvolume", format!("{entry:?}"));
                }
                self.by_hand().too_late.remove(&call());
                self.only_the_leader_acts(entry);
                self.not_paused(entry);
                self.not_only_looked_at(entry);
                let ambush = self.0.ambush.lock().take();
                if let Some(ambush) = ambush {
                    ambush(&entry.by);
                }
            }
            What::Answered(error) => self.answered(entry, error, writes),
            What::Effect { command, late } => {
                self.0.changed.notify_one();
                self.not_anothers(entry, command, late);
                self.not_locked(entry, command);
                match command {
                    "subvolume create" => {
                        self.0.removed.lock().remove(&entry.uid);
                        self.created(entry, late);
                    }
                    // One that comes late may come after the last look before a removal.
                    "subvolume metadata set" if entry.operation == Method::Create && !late => {
                        if let Some(share) = self.share(&entry.uid) {
                            self.0.promises.lock().note(&share);
                        }
                    }
                    "subvolume rm" => {
                        self.0.removed.lock().insert(entry.uid.clone());
                        self.removed(entry, late);
                    }
                    _ => {}
                }
            }
            What::Called => {}
        }
    }

    /// What fails is tried again, and not at once.
    fn not_at_once_again(&self, entry: &Entry) {
        let minute = self.0.began.elapsed().as_secs() / 60;
        let key = (entry.by.clone(), entry.uid.clone(), entry.operation);
        let mut pace = self.0.pace.lock();
        let (counted, times) = pace.entry(key).or_default();
        if *counted != minute {
            (*counted, *times) = (minute, 0);
        }
        *times += 1;
        if *times > MOST_A_MINUTE {
            self.violated("what fails is not tried again at once", format!("{entry:?}"));
        }
    }

    fn answered(&self, entry: &Entry, error: Option<&str>, writes: bool) {
        if writes {
            let call = (entry.by.clone(), entry.uid.clone());
            self.0.under_way.lock().remove(&call);
        }
        if error.is_none() {
            self.0.owed.lock().remove(&entry.by);
        } else if writes && error == Some(reasons::COMMAND_TIMED_OUT) {
            self.0.owed.lock().insert(entry.by.clone());
        }
    }

    /// The Lease is released only with no command in flight, and none that may still take effect.
    fn released_at_rest(&self, caller: &str) {
        let leases = self.0.server.objects("leases");
        if leases
            .iter()
            .any(|lease| !text(&lease["spec"]["holderIdentity"]).is_empty())
        {
            return;
        }
        let under_way = self.0.under_way.lock().clone();
        if let Some((_, uid)) = under_way.iter().find(|(by, _)| by == caller) {
            self.violated(
                "the Lease is released only with no command in flight",
                format!("{caller} has a call under way for {uid}"),
            );
        }
        if self.0.owed.lock().contains(caller) {
            self.violated(
                "the Lease is released only with no command in flight",
                format!("{caller} is owed an answer"),
            );
        }
    }

    /// What is another's is not touched. A command of before may still come, and make it ours again.
    fn not_anothers(&self, entry: &Entry, command: &str, late: bool) {
        let mut by_hand = self.by_hand();
        if !by_hand.altered.foreign.contains(&entry.uid) {
            return;
        }
        let call = (entry.by.clone(), entry.uid.clone());
        if !late && !by_hand.too_late.contains(&call) {
            self.violated("what is another's is not touched", format!("{entry:?}"));
        } else if matches!(command, "subvolume metadata set" | "subvolume rm") {
            by_hand.altered.foreign.remove(&entry.uid);
        }
    }

    /// Only the replica whose lease covers the call's deadline acts.
    fn only_the_leader_acts(&self, entry: &Entry) {
        let (holder, stored) = self.0.lease.lock().clone();
        let covered = stored.is_some_and(|at| Instant::now() + COMMAND_DEADLINE <= at + LEASE);
        if holder != entry.by || !covered {
            self.violated(
                "only the replica whose lease covers the call's deadline acts",
                format!(
                    "{entry:?} while {holder} holds the Lease, stored {:?} ago",
                    stored.map(|at| at.elapsed())
                ),
            );
        }
    }

    /// Nothing is created without a stored finalizer and a stored choice, and nothing again that was lost.
    fn created(&self, entry: &Entry, late: bool) {
        if !late && self.by_hand().lost.contains(&entry.uid) {
            self.violated(
                "a subvolume that was lost is not made again",
                format!("{entry:?}"),
            );
        }
        let share = self.share(&entry.uid);
        let deletions: Vec<ShareDeletion> = self.all("sharedeletions");
        if late && deletions.iter().any(|d| d.spec.share_ref.uid == entry.uid) {
            return;
        }
        let is_recorded = share.as_ref().is_some_and(|share| {
            let status = share.status.clone().unwrap_or_default();
            is_held(share)
                && status.backend_name.is_some()
                && status.fsid.is_some()
                && status.fs_id.is_some()
                && status.capabilities.is_some()
        });
        if let Some(share) = &share {
            let name = (share.namespace().unwrap_or_default(), share.name_any());
            let is_said = share.annotations().contains_key(FORMER_DATA);
            if !is_said && self.0.former.lock().contains(&name) {
                self.violated(
                    "no share gets an empty volume in the place of its data",
                    format!("{entry:?}: {share:#?}"),
                );
            }
        }
        if !is_recorded {
            self.violated(
                "nothing is created without a stored finalizer and a stored choice",
                format!("{entry:?}: {share:#?}"),
            );
        }
    }

    /// Nothing is destroyed that a live object claims.
    fn removed(&self, entry: &Entry, late: bool) {
        let share = self.share(&entry.uid);
        if share
            .as_ref()
            .is_some_and(|s| s.metadata.deletion_timestamp.is_none())
        {
            self.violated(
                "nothing is destroyed that a live object without deletion claims",
                format!("{entry:?}: {share:#?}"),
            );
        }
        let deletions: Vec<ShareDeletion> = self.all("sharedeletions");
        let deletion = deletions
            .iter()
            .find(|deletion| deletion.spec.share_ref.uid == entry.uid);
        let now = time(self.0.began);
        if let Err(error) = self.0.promises.lock().check(&entry.uid, deletion, now) {
            self.violated(
                "what is to be kept is not removed before its time",
                format!("{entry:?}: {error:#}"),
            );
        }
        let is_kept = |deletion: &&ShareDeletion| match share_deletion::phase(deletion) {
            Some(DeletionPhase::Retained) => true,
            // It may have been given up with the command on its way.
            Some(DeletionPhase::Abandoned) => !late,
            _ => false,
        };
        if let Some(kept) = deletion.filter(is_kept) {
            self.violated("what is kept is not destroyed", format!("{entry:?}: {kept:#?}"));
        }
    }

    fn share(&self, uid: &str) -> Option<Share> {
        self.all::<Share>("shares")
            .into_iter()
            .find(|s| s.metadata.uid.as_deref() == Some(uid))
    }

    fn all<K: DeserializeOwned + Clone + Send + Sync + 'static>(&self, plural: &str) -> Vec<K> {
        self.0.server.typed(plural)
    }

    /// Whatever is held belongs to an object that is there and held, and whoever is let in to a rule that is held.
    fn at_every_moment(&self, holdings: &Holdings) {
        let shares: Vec<Share> = self.all("shares");
        let rules: Vec<ShareAccessRule> = self.all("shareaccessrules");
        let by_name: BTreeMap<String, &Share> = shares.iter().map(|s| (subvolume_of(s), s)).collect();
        let deletions: Vec<ShareDeletion> = self.all("sharedeletions");
        let remains: BTreeSet<String> = deletions
            .iter()
            .map(|d| Place::of(d.spec.handle.as_deref(), &d.spec.share_ref.uid).subvolume)
            .collect();
        let by_hand = self.by_hand().clone();
        let mut names = BTreeMap::new();
        for ((_, name), held) in &holdings.subvolumes {
            names.insert(held.path.clone(), name.clone());
            if remains.contains(name) || by_hand.altered.is_left(name) {
                continue;
            }
            let Some(share) = by_name.get(name) else {
                self.violated(
                    "no subvolume outlives its Share and its ShareDeletion",
                    format!("{name}: {held:?}"),
                );
                continue;
            };
            if !is_held(*share) {
                self.violated(
                    "no subvolume outlives its Share's finalizer",
                    format!("{name}: {held:?}"),
                );
            }
        }
        for (path, held) in &holdings.exports {
            let mut left = deletions
                .iter()
                .filter(|deletion| path_of_deletion(deletion) == *path);
            if by_hand.altered.is_left_exported(path) || left.any(share_deletion::may_have_access) {
                continue;
            }
            // It leads to the one whose it is, whoever else may have been promised the path.
            let leads_to = |share: &&Share| {
                let subvolume = names.get(&held.path);
                path_of(share) == *path && subvolume.is_none_or(|name| *name == subvolume_of(share))
            };
            let Some(share) = shares.iter().find(leads_to) else {
                self.violated("no export outlives its Share", format!("{path}: {held:?}"));
                continue;
            };
            if by_hand
                .clients
                .contains(share.metadata.uid.as_deref().unwrap_or_default())
            {
                continue;
            }
            let access: Access = held.clients.iter().filter_map(NfsClient::to_grant).collect();
            for client in &access {
                self.is_let_in_by_a_rule(share, &rules, &client.client);
            }
            if let Err(hidden) = specific_first(&access) {
                self.violated(
                    "no client is hidden by one before it",
                    format!("{path}: {hidden}"),
                );
            }
        }
        for (identity, held) in &holdings.identities {
            for path in held.paths.keys() {
                // Of former data, until it is adopted.
                if names.get(path).is_some_and(|name| by_hand.altered.is_left(name)) {
                    continue;
                }
                // Capabilities outlive a subvolume that was deleted by hand.
                let Some(share) = names.get(path).and_then(|name| by_name.get(name)) else {
                    let of_it = |deletion: &&ShareDeletion| {
                        let spec = &deletion.spec;
                        let name = Place::of(spec.handle.as_deref(), &spec.share_ref.uid).subvolume;
                        names.get(path) == Some(&name) && !share_deletion::may_have_access(deletion)
                    };
                    if let Some(revoked) = deletions.iter().find(of_it) {
                        self.violated(
                            "nobody is let in where access is said to be revoked",
                            format!("{identity}: {revoked:#?}"),
                        );
                    }
                    continue;
                };
                self.is_let_in_by_a_rule(share, &rules, &Client::CephX(identity.clone()));
            }
        }
    }

    fn is_let_in_by_a_rule(&self, share: &Share, rules: &[ShareAccessRule], client: &Client) {
        let hidden = self.0.hidden.lock();
        let names = |rule: &ShareAccessRule| {
            client_of(rule).as_ref() == Some(client) || hidden.was_made_for(rule, client)
        };
        let listed = rules
            .iter()
            .any(|rule| names_it(rule, share) && is_held(rule) && names(rule));
        if !listed {
            self.violated(
                "nobody is let in whom no held rule lists",
                format!(
                    "{client} on {}/{}",
                    share.namespace().unwrap_or_default(),
                    share.name_any()
                ),
            );
        }
    }
}

/// Whether what is kept is going to be removed while everything is to be at rest.
fn ends_soon(deletion: &ShareDeletion) -> bool {
    let until = deletion.spec.retain_until.as_ref().map(|until| until.0);
    share_deletion::phase(deletion) == Some(DeletionPhase::Retained) && until.is_some_and(|until| until < END)
}

fn is_held<K: ResourceExt>(object: &K) -> bool {
    object.finalizers().iter().any(|f| f == FINALIZER)
}

/// The locks that hold a share: its own and those of its rules.
fn locks_of(share: &Share, rules: &[ShareAccessRule], locks: &[ResourceLock]) -> BTreeSet<Holding> {
    let its = rules.iter().filter(|rule| names_it(rule, share));
    locks_on(LockedKind::Share, &share.metadata, locks)
        .chain(its.flat_map(|rule| locks_on_rule(rule, locks)))
        .collect()
}

fn locks_on_rule(rule: &ShareAccessRule, locks: &[ResourceLock]) -> BTreeSet<Holding> {
    locks_on(LockedKind::ShareAccessRule, &rule.metadata, locks).collect()
}

fn locks_on(kind: LockedKind, object: &ObjectMeta, locks: &[ResourceLock]) -> impl Iterator<Item = Holding> {
    locks
        .iter()
        .filter(move |lock| resource_lock::holds(lock, kind, object))
        .filter_map(|lock| lock.uid().zip(object.uid.clone()))
}

/// A lock that does not say how it does, or something that is not marked as its locks say, if there is anything.
fn unsettled_lock(server: &ApiServer, shares: &[Share], rules: &[ShareAccessRule]) -> Option<String> {
    let locks: Vec<ResourceLock> = server.typed("resourcelocks");
    // What is being deleted is not marked any more.
    let is_marked = |meta: &ObjectMeta| {
        let marked = meta
            .labels
            .as_ref()
            .is_some_and(|map| map.contains_key(labels::LOCKED));
        meta.deletion_timestamp.is_none().then_some(marked)
    };
    for share in shares {
        let locked = !locks_of(share, rules, &locks).is_empty();
        if is_marked(&share.metadata).is_some_and(|marked| marked != locked) {
            return Some(format!("Share {:?} is locked: {locked}", share.metadata));
        }
    }
    for rule in rules {
        let locked = !locks_on_rule(rule, &locks).is_empty();
        if is_marked(&rule.metadata).is_some_and(|marked| marked != locked) {
            return Some(format!("ShareAccessRule {:?} is locked: {locked}", rule.metadata));
        }
    }
    if let Some(unsettled) = hiding::unsettled(&locks, rules) {
        return Some(unsettled);
    }
    let phase = |lock: &ResourceLock| {
        if lock.spec.action == LockAction::Show {
            return hiding::phase(lock, rules);
        }
        let shares = shares.iter().map(|share| (LockedKind::Share, &share.metadata));
        let rules = rules
            .iter()
            .map(|rule| (LockedKind::ShareAccessRule, &rule.metadata));
        let target = shares
            .chain(rules)
            .find(|(kind, meta)| resource_lock::holds(lock, *kind, meta));
        match target {
            None => LockPhase::Pending,
            Some((_, meta)) if meta.deletion_timestamp.is_some() => LockPhase::Holding,
            Some(_) => LockPhase::Enforced,
        }
    };
    let is_told = |lock: &&ResourceLock| {
        let status = lock.status.clone().unwrap_or_default();
        status.phase == Some(phase(lock)) && status.observed_generation == lock.metadata.generation
    };
    let untold = locks.iter().find(|lock| !is_told(lock))?;
    Some(format!("ResourceLock {untold:#?}"))
}

/// Something that has not come to rest, if there is anything.
pub fn unsettled(server: &ApiServer) -> Option<String> {
    let shares: Vec<Share> = server.typed("shares");
    let rules: Vec<ShareAccessRule> = server.typed("shareaccessrules");
    for backend in server.typed::<ShareBackend>("sharebackends") {
        let status = backend.status.clone().unwrap_or_default();
        let is_stuck = backend.metadata.deletion_timestamp.is_some()
            && condition(&status.conditions, types::DELETION_BLOCKED).is_none();
        let on_it = shares
            .iter()
            .filter(|share| placing::on(share) == Some(&backend.name_any()));
        let is_counted = status.shares == i64::try_from(on_it.count()).ok();
        if is_stuck
            || !is_counted
            || condition(&status.conditions, types::READY) != Some(("True", reasons::AVAILABLE))
        {
            return Some(format!("ShareBackend {:?}: {status:#?}", backend.metadata));
        }
    }
    server
        .typed::<ShareDeletion>("sharedeletions")
        .iter()
        .find(|deletion| !holdings::deletion_is_settled(deletion, &shares) || ends_soon(deletion))
        .map(|deletion| format!("ShareDeletion {deletion:#?}"))
        .or_else(|| holdings::unsettled(&shares, &rules))
        .or_else(|| unsettled_lock(server, &shares, &rules))
}

/// Compares what the storage holds with what the objects say, once everything is at rest.
pub fn at_rest(server: &ApiServer, cluster: &Cluster, altered: &Altered) -> Result<()> {
    let compared = |share: &Share| share.status.as_ref().is_some_and(|s| s.differences.is_some());
    let stale = server.typed::<Share>("shares").into_iter().find(compared);
    ensure!(stale.is_none(), "it still says what would be changed: {stale:#?}");
    let namespaces = server.objects("namespaces");
    let objects = Objects {
        namespace: None,
        shares: server.typed("shares"),
        deletions: server.typed("sharedeletions"),
        rules: server.typed("shareaccessrules"),
        secrets: server.typed("secrets"),
        namespaces: namespaces
            .iter()
            .map(|n| (text(&n["metadata"]["name"]), text(&n["metadata"]["uid"])))
            .collect(),
    };
    objects.check(cluster, altered)
}

/// Nothing is left once everything has been deleted, but what was given up.
pub fn nothing_left(
    server: &ApiServer,
    cluster: &Cluster,
    altered: &Altered,
    late: &BTreeSet<String>,
) -> Result<()> {
    let mut holdings = cluster.snapshot()?;
    holdings.subvolumes.retain(|(_, name), _| !altered.is_left(name));
    ensure!(
        holdings.subvolumes.is_empty(),
        "subvolumes are left: {:?}",
        holdings.subvolumes
    );
    let left = holdings
        .exports
        .keys()
        .find(|path| !altered.is_left_exported(path));
    ensure!(left.is_none(), "exports are left: {left:?}");
    let identities: Vec<_> = holdings.identities.keys().collect();
    ensure!(
        identities.is_empty() || !altered.abandoned.is_empty(),
        "identities are left: {identities:?}"
    );
    ensure!(
        holdings.pending == 0,
        "{} commands are still to come",
        holdings.pending
    );
    for kind in ["secrets", "roles", "rolebindings"] {
        let mut left = server.objects(kind);
        left.retain(|object| !late.contains(&text(&object["metadata"]["name"])));
        ensure!(left.is_empty(), "{kind} are left: {}", left.len());
    }
    Ok(())
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
