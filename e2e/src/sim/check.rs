//! What must hold: at every command and every moment, and once everything has come to rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use shoal_backend::simulated::{Cluster, Entry, HeldShare, Holdings, NfsClient, Operation as Method, What};
use shoal_crds::{
    AccessPhase, AccessType, Protocol, Share, ShareAccessRule, ShareBackend, Squash,
    condition::{reasons, types},
    names::{FINALIZER, cephx_secret},
};
use shoal_domain::{
    grant::{self, Access, Client, Grant, Key},
    owner::{Owner, Tag, generated_identity, pseudo_path, subvolume_name},
};
use tokio::{sync::Notify, time::Instant};

use super::{
    api_server::{ApiServer, Call},
    replica::{COMMAND_DEADLINE, LEASE},
};

/// The identity that the simulated storage says it is spoken to as.
const OWN_IDENTITY: &str = "shoal";

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
    began: Instant,
    /// Who took or renewed the Lease last, and when the server stored that.
    lease: Mutex<(String, Option<Instant>)>,
    by_hand: Mutex<ByHand>,
    /// Calls that write and have not been answered: by whom, and the share's uid.
    under_way: Mutex<BTreeSet<(String, String)>>,
    /// Replicas with a call that writes and was not answered in time, until the storage answers them again.
    owed: Mutex<BTreeSet<String>>,
    found: Mutex<Option<Violation>>,
    changed: Notify,
    /// Is told by whom the storage is called, before the call does anything.
    ambush: Mutex<Option<Ambush>>,
}

type Ambush = Box<dyn Fn(&str) + Send>;

/// What was done behind Shoal's back, and so is not its doing.
#[derive(Clone, Debug, Default)]
pub struct ByHand {
    /// Shares whose subvolume was deleted, by uid.
    pub deleted: BTreeSet<String>,
    /// Those of them whose data was there before.
    lost: BTreeSet<String>,
    /// Shares whose clients were changed, by uid, until the next time all is at rest.
    pub clients: BTreeSet<String>,
    /// Shares whose subvolume has another owner's tag, by uid.
    pub foreign: BTreeSet<String>,
    /// Calls that were under way when it got it.
    too_late: BTreeSet<(String, String)>,
}

impl Checker {
    /// Watches a server and a storage cluster.
    pub fn new(server: &ApiServer, cluster: &Cluster, began: Instant) -> Self {
        let checker = Self(Arc::new(Inner {
            server: server.clone(),
            began,
            lease: Mutex::default(),
            by_hand: Mutex::default(),
            under_way: Mutex::default(),
            owed: Mutex::default(),
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

    /// What was done by hand.
    pub fn by_hand(&self) -> parking_lot::MutexGuard<'_, ByHand> {
        self.0.by_hand.lock()
    }

    /// Notes that a subvolume has got another owner's tag. Calls under way may have looked before.
    pub fn is_anothers(&self, uid: &str) {
        let under_way = self.0.under_way.lock().clone();
        let mut by_hand = self.by_hand();
        by_hand.foreign.insert(uid.to_owned());
        by_hand
            .too_late
            .extend(under_way.into_iter().filter(|(_, of)| of == uid));
    }

    /// Notes that a subvolume was deleted, and whether its Share said that it was there.
    pub fn is_deleted(&self, uid: &str, is_provisioned: bool) {
        let is_worked_on = self.0.under_way.lock().iter().any(|(_, of)| of == uid);
        let mut by_hand = self.by_hand();
        by_hand.foreign.remove(uid);
        by_hand.deleted.insert(uid.to_owned());
        if is_provisioned && !is_worked_on {
            by_hand.lost.insert(uid.to_owned());
        }
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
    }

    fn on_storage(&self, entry: &Entry) {
        let writes = !matches!(entry.operation, Method::Describe | Method::Look);
        let call = || (entry.by.clone(), entry.uid.clone());
        match entry.what {
            What::Called if writes => {
                self.0.under_way.lock().insert(call());
                self.by_hand().too_late.remove(&call());
                self.only_the_leader_acts(entry);
                let ambush = self.0.ambush.lock().take();
                if let Some(ambush) = ambush {
                    ambush(&entry.by);
                }
            }
            What::Answered(error) => self.answered(entry, error, writes),
            What::Effect { command, late } => {
                self.0.changed.notify_one();
                self.not_anothers(entry, command, late);
                match command {
                    "subvolume create" => self.created(entry, late),
                    "subvolume rm" => self.removed(entry),
                    _ => {}
                }
            }
            What::Called => {}
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
        if !by_hand.foreign.contains(&entry.uid) {
            return;
        }
        let call = (entry.by.clone(), entry.uid.clone());
        if !late && !by_hand.too_late.contains(&call) {
            self.violated("what is another's is not touched", format!("{entry:?}"));
        } else if matches!(command, "subvolume metadata set" | "subvolume rm") {
            by_hand.foreign.remove(&entry.uid);
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
        let is_recorded = share.as_ref().is_some_and(|share| {
            let status = share.status.clone().unwrap_or_default();
            is_held(share)
                && status.backend_name.is_some()
                && status.fsid.is_some()
                && status.fs_id.is_some()
                && status.capabilities.is_some()
        });
        if !is_recorded {
            self.violated(
                "nothing is created without a stored finalizer and a stored choice",
                format!("{entry:?}: {share:#?}"),
            );
        }
    }

    /// Nothing is destroyed that a live object claims.
    fn removed(&self, entry: &Entry) {
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
    }

    fn share(&self, uid: &str) -> Option<Share> {
        self.all::<Share>("shares")
            .into_iter()
            .find(|s| s.metadata.uid.as_deref() == Some(uid))
    }

    fn all<K: DeserializeOwned>(&self, plural: &str) -> Vec<K> {
        parsed(&self.0.server, plural)
    }

    /// Whatever is held belongs to an object that is there and held, and whoever is let in to a rule that is held.
    fn at_every_moment(&self, holdings: &Holdings) {
        let shares: Vec<Share> = self.all("shares");
        let rules: Vec<ShareAccessRule> = self.all("shareaccessrules");
        let by_name: BTreeMap<String, &Share> = shares
            .iter()
            .map(|s| (subvolume_name(s.metadata.uid.as_deref().unwrap_or_default()), s))
            .collect();
        let by_hand = self.by_hand().clone();
        let mut names = BTreeMap::new();
        for ((_, name), held) in &holdings.subvolumes {
            names.insert(held.path.clone(), name.clone());
            let Some(share) = by_name.get(name) else {
                self.violated("no subvolume outlives its Share", format!("{name}: {held:?}"));
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
            let Some(share) = shares
                .iter()
                .find(|s| pseudo_path(s.metadata.uid.as_deref().unwrap_or_default()) == *path)
            else {
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
                // Capabilities outlive a subvolume that was deleted by hand.
                let Some(share) = names.get(path).and_then(|name| by_name.get(name)) else {
                    continue;
                };
                self.is_let_in_by_a_rule(share, &rules, &Client::CephX(identity.clone()));
            }
        }
    }

    fn is_let_in_by_a_rule(&self, share: &Share, rules: &[ShareAccessRule], client: &Client) {
        let listed = rules
            .iter()
            .any(|rule| names_it(rule, share) && is_held(rule) && client_of(rule).as_ref() == Some(client));
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

/// The objects of a resource as they are stored.
pub fn parsed<K: DeserializeOwned>(server: &ApiServer, plural: &str) -> Vec<K> {
    server
        .objects(plural)
        .into_iter()
        .filter_map(|object| serde_json::from_value(object).ok())
        .collect()
}

fn is_held<K: ResourceExt>(object: &K) -> bool {
    object.finalizers().iter().any(|f| f == FINALIZER)
}

fn names_it(rule: &ShareAccessRule, share: &Share) -> bool {
    rule.namespace() == share.namespace() && rule.spec.share_ref.name == share.name_any()
}

fn client_of(rule: &ShareAccessRule) -> Option<Client> {
    let generated = generated_identity(&rule.uid().unwrap_or_default());
    let text = rule.spec.access_to.clone().unwrap_or(generated);
    Client::parse(rule.spec.access_type, &text).ok()
}

fn truth<'a>(
    conditions: &'a [k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    type_: &str,
) -> Option<(bool, &'a str)> {
    conditions
        .iter()
        .find(|c| c.type_ == type_)
        .map(|c| (c.status == "True", c.reason.as_str()))
}

/// Something that has not come to rest, if there is anything.
pub fn unsettled(server: &ApiServer) -> Option<String> {
    for backend in parsed::<ShareBackend>(server, "sharebackends") {
        let status = backend.status.clone().unwrap_or_default();
        if truth(&status.conditions, types::READY) != Some((true, reasons::AVAILABLE)) {
            return Some(format!("ShareBackend {:?}: {status:#?}", backend.metadata));
        }
    }
    let shares: Vec<Share> = parsed(server, "shares");
    let rules: Vec<ShareAccessRule> = parsed(server, "shareaccessrules");
    for share in &shares {
        let status = share.status.clone().unwrap_or_default();
        let is = |type_| truth(&status.conditions, type_).is_some_and(|(is, _)| is);
        let ready = truth(&status.conditions, types::READY);
        let counted = status.access.map_or(0, |access| access.total);
        let its_rules = rules.iter().filter(|rule| names_it(rule, share)).count();
        let at_rest = match ready {
            Some((true, _)) => !is(types::RECONCILING) && usize::try_from(counted) == Ok(its_rules),
            // A share whose data is gone says so, and waits for whoever brings it back.
            Some((false, reason)) => is(types::STALLED) || reason == reasons::VOLUME_MISSING,
            None => false,
        };
        if share.metadata.deletion_timestamp.is_some()
            || status.observed_generation != share.metadata.generation
            || !at_rest
        {
            return Some(format!("Share {:?}: {status:#?}", share.metadata));
        }
    }
    for rule in &rules {
        let status = rule.status.clone().unwrap_or_default();
        let share = shares.iter().find(|share| names_it(rule, share));
        let wanted: &[AccessPhase] = match share.map(|s| s.status.clone().unwrap_or_default()) {
            Some(of) if truth(&of.conditions, types::READY).is_some_and(|(is, _)| is) => {
                &[AccessPhase::Active, AccessPhase::Error]
            }
            // What holds for a rule of a share that is not to be used is told by the share.
            Some(_) => &[
                AccessPhase::Active,
                AccessPhase::Error,
                AccessPhase::QueuedToApply,
                AccessPhase::QueuedToUpdate,
            ],
            None => &[AccessPhase::QueuedToApply],
        };
        let of_anothers = share
            .and_then(|share| share.status.as_ref())
            .and_then(|status| truth(&status.conditions, types::READY))
            .is_some_and(|ready| ready == (false, reasons::OWNED_BY_ANOTHER));
        if of_anothers && rule.metadata.deletion_timestamp.is_some() {
            // It can't go: its client can't be taken from what is another's.
            continue;
        }
        if rule.metadata.deletion_timestamp.is_some()
            || status.observed_generation != rule.metadata.generation
            || !status.phase.is_some_and(|phase| wanted.contains(&phase))
        {
            return Some(format!("ShareAccessRule {:?}: {status:#?}", rule.metadata));
        }
    }
    None
}

/// Compares what the storage holds with what the objects say, once everything is at rest.
pub fn at_rest(server: &ApiServer, cluster: &Cluster, by_hand: &ByHand, cluster_uid: &str) -> Result<()> {
    let shares: Vec<Share> = parsed(server, "shares");
    let rules: Vec<ShareAccessRule> = parsed(server, "shareaccessrules");
    let namespaces: BTreeMap<String, String> = server
        .objects("namespaces")
        .iter()
        .map(|n| (text(&n["metadata"]["name"]), text(&n["metadata"]["uid"])))
        .collect();
    let holdings = cluster.snapshot()?;
    let mut expected_subvolumes = BTreeSet::new();
    let mut expected_exports = BTreeSet::new();
    for share in &shares {
        let status = share.status.clone().unwrap_or_default();
        let uid = share.uid().unwrap_or_default();
        let ready = truth(&status.conditions, types::READY);
        // One that was deleted before it was ever seen was made again, as it was never used.
        let is_there = holdings
            .subvolumes
            .keys()
            .any(|(_, name)| *name == subvolume_name(&uid));
        if by_hand.deleted.contains(&uid) && !is_there {
            ensure!(
                ready == Some((false, reasons::VOLUME_MISSING)),
                "Share {} has lost its subvolume and says {ready:?}",
                share.name_any()
            );
            continue;
        }
        let provisioned = truth(&status.conditions, types::PROVISIONED).is_some_and(|(is, _)| is);
        let Some(backend) = status.backend_name.clone().filter(|_| provisioned) else {
            ensure!(
                ready.is_some_and(|(is, _)| !is),
                "Share {} is Ready and not provisioned",
                share.name_any()
            );
            continue;
        };
        expected_subvolumes.insert((backend.clone(), subvolume_name(&uid)));
        if by_hand.foreign.contains(&uid) {
            ensure!(
                ready == Some((false, reasons::OWNED_BY_ANOTHER)),
                "the subvolume of Share {} is another's, and it says {ready:?}",
                share.name_any()
            );
            expected_exports
                .extend(Some(pseudo_path(&uid)).filter(|path| holdings.exports.contains_key(path)));
            continue;
        }
        if share.spec.protocol == Protocol::NFS {
            expected_exports.insert(pseudo_path(&uid));
        }
        let stalled = truth(&status.conditions, types::STALLED).is_some_and(|(is, _)| is);
        let size = if stalled {
            status.size.context("no size in status")?
        } else {
            share.spec.size
        };
        let capabilities = status.capabilities.clone().context("no capabilities")?;
        let expected = HeldShare {
            tag: Tag::Owner(Owner {
                cluster: cluster_uid.to_owned(),
                namespace: share.namespace().unwrap_or_default(),
                name: share.name_any(),
                uid: uid.clone(),
            }),
            size_bytes: Some(size.bytes()),
            root: capabilities.root,
            exported: share.spec.protocol == Protocol::NFS,
            access: wanted_access(share, &rules, capabilities.squash)?,
        };
        let held = holdings.share(&backend, &uid);
        ensure!(
            held.as_ref() == Some(&expected),
            "for Share {}/{} is held\n{held:#?}\nand the objects say\n{expected:#?}",
            share.namespace().unwrap_or_default(),
            share.name_any()
        );
        specific_first(&expected.access)?;
        for rule in active(share, &rules) {
            if let Some(Client::CephX(identity)) = client_of(rule) {
                check_key(server, cluster, &backend, share, rule, &identity)?;
                let tenant = holdings
                    .identities
                    .get(&identity)
                    .and_then(|held| held.tenant.clone());
                ensure!(
                    tenant.as_ref() == namespaces.get(&share.namespace().unwrap_or_default()),
                    "identity {identity} of rule {} belongs to tenant {tenant:?}",
                    rule.name_any()
                );
            }
        }
    }
    let held: BTreeSet<_> = holdings.subvolumes.keys().cloned().collect();
    ensure!(
        held == expected_subvolumes,
        "held subvolumes {held:?}, and the objects say {expected_subvolumes:?}"
    );
    let held: BTreeSet<_> = holdings.exports.keys().cloned().collect();
    // An export may be left of a subvolume that was deleted by hand: it leads nowhere, and is the share's own business.
    let lost: BTreeSet<_> = by_hand.deleted.iter().map(|uid| pseudo_path(uid)).collect();
    ensure!(
        held.is_superset(&expected_exports)
            && held.difference(&expected_exports).all(|path| lost.contains(path)),
        "held exports {held:?}, and the objects say {expected_exports:?}"
    );
    ensure!(
        holdings.pending == 0,
        "{} commands are still to come",
        holdings.pending
    );
    Ok(())
}

/// Clients are matched in their order: none may come after one that includes it.
fn specific_first(access: &Access) -> Result<()> {
    for (n, grant) in access.iter().enumerate() {
        let Client::Ip(network) = &grant.client else {
            continue;
        };
        let hidden_by = access[..n].iter().find(|before| match &before.client {
            Client::Ip(before) => before.contains(network),
            Client::CephX(_) => false,
        });
        ensure!(hidden_by.is_none(), "{network} comes after {hidden_by:?}");
    }
    Ok(())
}

fn active<'a>(share: &'a Share, rules: &'a [ShareAccessRule]) -> impl Iterator<Item = &'a ShareAccessRule> {
    rules.iter().filter(move |rule| {
        let phase = rule.status.as_ref().and_then(|s| s.phase);
        names_it(rule, share) && phase == Some(AccessPhase::Active)
    })
}

/// Whom the rules let in: of several for one client the oldest counts, and an identity is one namespace's alone.
fn wanted_access(share: &Share, rules: &[ShareAccessRule], squash: Squash) -> Result<Access> {
    let mut its: Vec<&ShareAccessRule> = rules.iter().filter(|rule| names_it(rule, share)).collect();
    its.sort_by_key(|rule| (rule.creation_timestamp().map(|at| at.0), rule.name_any()));
    let mut access = Access::new();
    let mut seen = BTreeSet::new();
    for rule in its {
        let client = client_of(rule).with_context(|| format!("rule {} names nobody", rule.name_any()))?;
        let fits = match rule.spec.access_type {
            AccessType::IP => share.spec.protocol == Protocol::NFS,
            AccessType::CephX => share.spec.protocol == Protocol::CephFS,
        };
        let is_first = fits && seen.insert(client.to_string());
        let is_active = rule.status.as_ref().and_then(|s| s.phase) == Some(AccessPhase::Active);
        if client == Client::CephX(OWN_IDENTITY.into()) {
            ensure!(!is_active, "rule {} lets in as Shoal itself", rule.name_any());
            continue;
        }
        // Whether another namespace has the identity is the storage's to say.
        let may_be_refused = matches!(client, Client::CephX(_)) && rule.spec.access_to.is_some();
        ensure!(
            is_active == is_first || (is_first && may_be_refused),
            "rule {}/{} is {:?}, and is the first for its client: {is_first}",
            rule.namespace().unwrap_or_default(),
            rule.name_any(),
            rule.status.as_ref().map(|s| (s.phase, &s.conditions))
        );
        if is_active {
            access.push(Grant {
                client,
                level: rule.spec.access_level,
                squash: match rule.spec.access_type {
                    AccessType::IP => rule.spec.squash.unwrap_or(squash),
                    AccessType::CephX => Squash::None,
                },
            });
        }
    }
    grant::sort(&mut access);
    Ok(access)
}

/// The Secret of an active CephX rule is there, owned by it, and its key opens the share.
fn check_key(
    server: &ApiServer,
    cluster: &Cluster,
    fs_name: &str,
    share: &Share,
    rule: &ShareAccessRule,
    identity: &str,
) -> Result<()> {
    let name = rule
        .spec
        .credentials_secret_name
        .clone()
        .unwrap_or_else(|| format!("{}-cephx", rule.name_any()));
    let secrets: Vec<Secret> = parsed(server, "secrets");
    let secret = secrets
        .into_iter()
        .find(|s| s.name_any() == name && s.namespace() == rule.namespace())
        .with_context(|| format!("no Secret {name}"))?;
    let owners: Vec<_> = secret.owner_references().iter().map(|o| o.uid.clone()).collect();
    ensure!(
        Some(owners) == rule.uid().map(|uid| vec![uid]),
        "Secret {name} is owned by {:?}",
        secret.owner_references()
    );
    let field = |key: &str| -> Result<String> {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        let bytes = bytes.with_context(|| format!("Secret {name} has no {key}"))?;
        Ok(String::from_utf8(bytes.0.clone())?)
    };
    ensure!(
        field(cephx_secret::USER_ID)? == identity,
        "Secret {name} is another identity's"
    );
    let key = Key::new(field(cephx_secret::USER_KEY)?);
    cluster
        .mount(fs_name, &share.uid().unwrap_or_default(), identity, &key, "")
        .with_context(|| format!("the key in Secret {name} does not open the share"))?;
    Ok(())
}

/// Nothing is left once everything has been deleted.
pub fn nothing_left(server: &ApiServer, cluster: &Cluster) -> Result<()> {
    let holdings = cluster.snapshot()?;
    ensure!(
        holdings.subvolumes.is_empty(),
        "subvolumes are left: {:?}",
        holdings.subvolumes
    );
    ensure!(
        holdings.exports.is_empty(),
        "exports are left: {:?}",
        holdings.exports
    );
    let identities: Vec<_> = holdings.identities.keys().collect();
    ensure!(identities.is_empty(), "identities are left: {identities:?}");
    ensure!(
        holdings.pending == 0,
        "{} commands are still to come",
        holdings.pending
    );
    let secrets = server.objects("secrets");
    ensure!(secrets.is_empty(), "Secrets are left: {}", secrets.len());
    Ok(())
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
