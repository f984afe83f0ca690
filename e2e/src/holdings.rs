//! When objects are at rest, and what a simulated storage must hold then: the same for the simulation, and for the suites
//! on a real API server.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Condition};
use kube::ResourceExt;
use shoal_backend::simulated::{Cluster, HeldShare, Holdings};
use shoal_crds::{
    AccessPhase, AccessType, DeletionPhase, Protocol, Share, ShareAccessRule, ShareDeletion, ShareStatus,
    Squash,
    condition::{reasons, types},
    names::cephx_secret,
};
use shoal_domain::{
    ensure,
    grant::{self, Access, Client, Grant, Key},
    metadata,
    owner::{Owner, Place, Tag, generated_identity},
    share, share_deletion,
};

use crate::world::{SYSTEM_NAMESPACE, condition};

/// The identity that the simulated storage says it is spoken to as.
const OWN_IDENTITY: &str = "shoal";

/// Objects whose shares are on one storage: all that there are, or one namespace's.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// Those of one namespace; none if they are all.
    pub namespace: Option<String>,
    /// Only those on the storage in question.
    pub shares: Vec<Share>,
    /// What is left there of deleted ones.
    pub deletions: Vec<ShareDeletion>,
    /// Of these shares, or of none.
    pub rules: Vec<ShareAccessRule>,
    /// At least those of the rules.
    pub secrets: Vec<Secret>,
    /// The uid of every namespace, by name.
    pub namespaces: BTreeMap<String, String>,
}

/// Shares whose subvolume was changed behind Shoal's back in a way that it can't or must not undo; by uid.
#[derive(Clone, Debug, Default)]
pub struct Altered {
    /// The subvolume was deleted.
    pub deleted: BTreeSet<String>,
    /// The subvolume has another owner's tag.
    pub foreign: BTreeSet<String>,
    /// What was left of a deleted share was given up, and its ShareDeletion deleted.
    pub abandoned: BTreeMap<String, Left>,
}

/// What was left behind for good.
#[derive(Clone, Debug)]
pub struct Left {
    /// The subvolume's name.
    pub subvolume: String,
    /// The path that it may still be exported under.
    pub pseudo_path: String,
}

impl Altered {
    /// Whether a subvolume was left behind for good.
    pub fn is_left(&self, subvolume: &str) -> bool {
        self.abandoned.values().any(|left| left.subvolume == subvolume)
    }

    /// Whether an export was left behind for good.
    pub fn is_left_exported(&self, pseudo_path: &str) -> bool {
        self.abandoned
            .values()
            .any(|left| left.pseudo_path == pseudo_path)
    }
}

/// A share or rule that has not come to rest, if there is one.
pub fn unsettled(shares: &[Share], rules: &[ShareAccessRule]) -> Option<String> {
    let share = shares
        .iter()
        .find(|share| !share_is_settled(share, rules))
        .map(|share| format!("Share {:?}: {:#?}", share.metadata, share.status));
    share.or_else(|| {
        rules
            .iter()
            .find(|rule| !rule_is_settled(rule, shares))
            .map(|rule| format!("ShareAccessRule {:?}: {:#?}", rule.metadata, rule.status))
    })
}

fn share_is_settled(share: &Share, rules: &[ShareAccessRule]) -> bool {
    let Some(status) = &share.status else {
        return false;
    };
    let counted = status.access.map_or(0, |access| access.total);
    let its_rules = rules.iter().filter(|rule| names_it(rule, share)).count();
    let at_rest = match ready(share) {
        Some((true, _)) => {
            let requested = ensure::requested(&share.metadata);
            !is(status, types::RECONCILING)
                && usize::try_from(counted) == Ok(its_rules)
                && (requested.is_none() || requested == status.last_handled_requested_at)
        }
        // A share whose data is gone says so, and waits for whoever brings it back.
        Some((false, reason)) => is(status, types::STALLED) || waits_for_others().contains(&reason),
        None => false,
    };
    at_rest
        && !ensure::is_marked(share)
        && !is(status, types::ENSURING)
        && (share.metadata.deletion_timestamp.is_none() || waits_for_locks(&status.conditions))
        && status.observed_generation == share.metadata.generation
}

/// Whether it says that its deletion waits for locks.
fn waits_for_locks(conditions: &[Condition]) -> bool {
    condition(conditions, types::DELETION_BLOCKED) == Some(("True", reasons::LOCKED))
}

/// Whether a deletion has come to rest: its data is kept, or is nobody's work any more, or waits for a Share that was locked
/// before it could be let go.
pub fn deletion_is_settled(deletion: &ShareDeletion, shares: &[Share]) -> bool {
    let its = |share: &&Share| share.metadata.uid.as_ref() == Some(&deletion.spec.share_ref.uid);
    let is_locked = shares.iter().find(its).is_some_and(|share| {
        share
            .status
            .as_ref()
            .is_some_and(|status| waits_for_locks(&status.conditions))
    });
    let status = deletion.status.clone().unwrap_or_default();
    let why = condition(&status.conditions, types::READY).map(|(_, reason)| reason);
    status.observed_generation == deletion.metadata.generation
        && match status.phase {
            Some(DeletionPhase::Retained) => {
                why == Some(reasons::RETAINED) && status.access_revoked == Some(true)
            }
            Some(DeletionPhase::Abandoned) => {
                deletion.spec.abandon && deletion.metadata.deletion_timestamp.is_none()
            }
            _ => is_locked && why == Some(reasons::SHARE_EXISTS),
        }
}

/// For what a share may wait for ever: its data, room, a quota, a name, others to be with, or locks to go.
fn waits_for_others() -> [&'static str; 10] {
    [
        reasons::FORMER_DATA_FOUND,
        reasons::MOUNT_POINT_NAME_TAKEN,
        reasons::VOLUME_MISSING,
        reasons::NO_BACKEND_FITS,
        reasons::NO_ROOM_TO_EXTEND,
        reasons::QUOTA_EXCEEDED,
        reasons::WAITING_FOR_SHARE,
        reasons::NOTHING_TO_BRING_BACK,
        reasons::NOT_TO_BE_BROUGHT_BACK,
        reasons::LOCKED,
    ]
}

fn rule_is_settled(rule: &ShareAccessRule, shares: &[Share]) -> bool {
    use AccessPhase::{Active, Error, QueuedToApply, QueuedToUpdate};
    let share = shares.iter().find(|share| names_it(rule, share));
    let its_share_is = share.and_then(ready);
    let conditions = rule.status.as_ref().map_or(&[][..], |s| &s.conditions);
    if rule.metadata.deletion_timestamp.is_some() && !waits_for_locks(conditions) {
        // It can't go: its client can't be taken from what is another's.
        return its_share_is == Some((false, reasons::OWNED_BY_ANOTHER));
    }
    let wanted: &[AccessPhase] = match (share, its_share_is) {
        (None, _) => &[QueuedToApply],
        (_, Some((true, _))) => &[Active, Error],
        // What holds for a rule of a share that is not to be used is told by the share.
        _ => &[Active, Error, QueuedToApply, QueuedToUpdate],
    };
    rule.status.as_ref().is_some_and(|status| {
        status.observed_generation == rule.metadata.generation
            && status.phase.is_some_and(|phase| wanted.contains(&phase))
    })
}

impl Objects {
    /// Compares what a storage holds with what these objects say, once they are at rest: each share's subvolume, tag,
    /// quota, root, export and clients, every key, and that nothing else is there.
    pub fn check(&self, cluster: &Cluster, altered: &Altered) -> Result<()> {
        let holdings = cluster.snapshot()?;
        let mut expected = Expected::default();
        for share in &self.shares {
            self.check_share(share, cluster, &holdings, altered, &mut expected)
                .with_context(|| {
                    format!(
                        "Share {}/{}",
                        share.namespace().unwrap_or_default(),
                        share.name_any()
                    )
                })?;
        }
        for deletion in &self.deletions {
            expected.remains(deletion, &holdings);
        }
        self.check_subvolumes(&holdings, &expected, altered)?;
        self.check_identities(&holdings, &expected, altered)?;
        if self.namespace.is_some() {
            return Ok(());
        }
        let held: BTreeSet<_> = holdings.exports.keys().cloned().collect();
        // An export may be left of a subvolume that was deleted by hand: it leads nowhere, and is the share's own business.
        let of_shares = self
            .shares
            .iter()
            .map(|s| (s.uid().unwrap_or_default(), path_of(s)));
        let of_deletions = self
            .deletions
            .iter()
            .map(|d| (d.spec.share_ref.uid.clone(), path_of_deletion(d)));
        let lost = of_shares
            .chain(of_deletions)
            .filter(|(uid, _)| altered.deleted.contains(uid));
        let lost: BTreeSet<_> = lost.map(|(_, path)| path).collect();
        let is_lost = |path: &String| lost.contains(path) || altered.is_left_exported(path);
        ensure!(
            held.is_superset(&expected.exports) && held.difference(&expected.exports).all(is_lost),
            "held exports {held:?}, and the objects say {:?}",
            expected.exports
        );
        ensure!(
            holdings.pending == 0,
            "{} commands are still to come",
            holdings.pending
        );
        Ok(())
    }

    fn check_share(
        &self,
        share: &Share,
        cluster: &Cluster,
        holdings: &Holdings,
        altered: &Altered,
        expected: &mut Expected,
    ) -> Result<()> {
        let status = share.status.clone().unwrap_or_default();
        let uid = share.uid().unwrap_or_default();
        let ready = ready(share);
        // One that was deleted before it was ever seen was made again, as it was never used.
        let is_there = holdings
            .subvolumes
            .keys()
            .any(|(_, name)| *name == subvolume_of(share));
        if altered.deleted.contains(&uid) && !is_there {
            ensure!(
                ready == Some((false, reasons::VOLUME_MISSING)),
                "it has lost its subvolume and says {ready:?}"
            );
            return Ok(());
        }
        // A lock that came when its data had gone already holds the object alone.
        let is_going = share.metadata.deletion_timestamp.is_some();
        if is_going && !is_there && ready == Some((false, reasons::VOLUME_MISSING)) {
            return Ok(());
        }
        let provisioned = is(&status, types::PROVISIONED);
        let Some(backend) = status.backend_name.clone().filter(|_| provisioned) else {
            ensure!(
                ready.is_some_and(|(is, _)| !is),
                "it is Ready and not provisioned"
            );
            return Ok(());
        };
        expected.subvolumes.insert((backend.clone(), subvolume_of(share)));
        if altered.foreign.contains(&uid) {
            ensure!(
                ready == Some((false, reasons::OWNED_BY_ANOTHER)),
                "its subvolume is another's, and it says {ready:?}"
            );
            let export = Some(path_of(share)).filter(|path| holdings.exports.contains_key(path));
            expected.exports.extend(export);
            return Ok(());
        }
        if ready == Some((false, reasons::EXPORT_PATH_TAKEN)) {
            let subvolume = holdings.subvolumes.get(&(backend, subvolume_of(share)));
            let export = holdings.exports.get(&path_of(share));
            ensure!(
                export.is_some_and(|export| Some(&export.path) != subvolume.map(|there| &there.path)),
                "it says that another has its path, and that is {export:?}"
            );
            return Ok(());
        }
        let exported = share.spec.protocol == Protocol::NFS;
        if exported {
            expected.exports.insert(path_of(share));
        }
        let size = if is(&status, types::STALLED)
            || matches!(
                ready,
                Some((false, reasons::NO_ROOM_TO_EXTEND | reasons::QUOTA_EXCEEDED))
            ) {
            status.size.context("no size in status")?
        } else {
            share.spec.size
        };
        let capabilities = status.capabilities.clone().context("no capabilities")?;
        let wanted = HeldShare {
            tag: Tag::Owner(Owner {
                cluster: self.namespace_uid("kube-system")?,
                namespace: share.namespace().unwrap_or_default(),
                name: share.name_any(),
                uid: uid.clone(),
                left: None,
            }),
            size_bytes: Some(size.bytes()),
            root: capabilities.root,
            metadata: metadata::to_text(&share.spec.metadata),
            exported,
            access: self.wanted_access(share, capabilities.squash)?,
        };
        let held = holdings.share(&backend, &subvolume_of(share), &path_of(share));
        ensure!(
            held.as_ref() == Some(&wanted),
            "is held as\n{held:#?}\nand the objects say\n{wanted:#?}"
        );
        specific_first(&wanted.access)?;
        for rule in self.rules_of(share).filter(|rule| is_active(rule)) {
            if let Some(Client::CephX(identity)) = client_of(rule) {
                self.check_key(cluster, &backend, share, rule, &identity)?;
                let tenant = self.namespace_uid(&share.namespace().unwrap_or_default())?;
                expected.identities.entry(identity).or_insert((Some(tenant), 0)).1 += 1;
            }
        }
        Ok(())
    }

    fn check_subvolumes(&self, holdings: &Holdings, expected: &Expected, altered: &Altered) -> Result<()> {
        // What other namespaces' shares have there is none of this one's business.
        let concerns = |tag: &Tag| match (&self.namespace, tag) {
            (Some(namespace), Tag::Owner(owner)) => owner.namespace == *namespace,
            (Some(_), _) => false,
            (None, _) => true,
        };
        let held: BTreeSet<_> = holdings
            .subvolumes
            .iter()
            .filter(|(_, held)| concerns(&held.tag))
            .map(|(name, _)| name.clone())
            .filter(|name| expected.subvolumes.contains(name) || !altered.is_left(&name.1))
            .collect();
        ensure!(
            held == expected.subvolumes,
            "held subvolumes {held:?}, and the objects say {:?}",
            expected.subvolumes
        );
        Ok(())
    }

    fn check_identities(&self, holdings: &Holdings, expected: &Expected, altered: &Altered) -> Result<()> {
        let names: BTreeSet<_> = self
            .shares
            .iter()
            .filter(|share| !altered.foreign.contains(&share.uid().unwrap_or_default()))
            .map(subvolume_of)
            .collect();
        let paths: BTreeSet<_> = holdings
            .subvolumes
            .iter()
            .filter(|((_, name), _)| names.contains(name))
            .map(|(_, held)| &held.path)
            .collect();
        let tenant = match &self.namespace {
            Some(namespace) => Some(self.namespace_uid(namespace)?),
            None => None,
        };
        let held: BTreeMap<_, _> = holdings
            .identities
            .iter()
            .filter(|(_, held)| tenant.is_none() || held.tenant == tenant)
            .map(|(name, held)| {
                let count = held.paths.keys().filter(|path| paths.contains(path)).count();
                (name.clone(), (held.tenant.clone(), count))
            })
            // Capabilities outlive a subvolume that was deleted by hand, and stay on what is another's.
            .filter(|(_, (_, count))| {
                *count > 0
                    || (altered.deleted.is_empty()
                        && altered.foreign.is_empty()
                        && altered.abandoned.is_empty())
            })
            .collect();
        ensure!(
            held == expected.identities,
            "held identities {held:?}, and the objects say {:?}",
            expected.identities
        );
        Ok(())
    }

    /// Whom the rules let in: of several for one client the oldest counts, and an identity is one namespace's alone.
    fn wanted_access(&self, share: &Share, squash: Squash) -> Result<Access> {
        let mut its: Vec<&ShareAccessRule> = self.rules_of(share).collect();
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
            let is_active = is_active(rule);
            if client == Client::CephX(OWN_IDENTITY.into()) {
                ensure!(!is_active, "rule {} lets in as Shoal itself", rule.name_any());
                continue;
            }
            // Whether another namespace has the identity is the storage's to say.
            let may_be_refused = matches!(client, Client::CephX(_)) && rule.spec.access_to.is_some();
            ensure!(
                is_active == is_first || (is_first && may_be_refused),
                "rule {} is {:?}, and is the first for its client: {is_first}",
                rule.name_any(),
                rule.status.as_ref().map(|s| (s.phase, &s.conditions))
            );
            if is_active {
                let squash = match rule.spec.access_type {
                    AccessType::IP => rule.spec.squash.unwrap_or(squash),
                    AccessType::CephX => Squash::None,
                };
                access.push(Grant {
                    client,
                    level: rule.spec.access_level,
                    squash,
                });
            }
        }
        grant::sort(&mut access);
        Ok(access)
    }

    /// The Secret of an active CephX rule is there, owned by it, and its key opens the share.
    fn check_key(
        &self,
        cluster: &Cluster,
        fs_name: &str,
        share: &Share,
        rule: &ShareAccessRule,
        identity: &str,
    ) -> Result<()> {
        let status = rule.status.clone().unwrap_or_default();
        let own = rule.spec.credentials_secret_name.clone();
        let own = own.unwrap_or_else(|| format!("{}-cephx", rule.name_any()));
        let (name, namespace) = match &status.hidden_by {
            None => (own, rule.namespace()),
            Some(lock) => (generated_identity(&lock.uid), Some(SYSTEM_NAMESPACE.to_owned())),
        };
        let told = status.credentials_secret_ref.context("no Secret is told")?;
        let hidden_in = namespace.clone().filter(|_| status.hidden_by.is_some());
        ensure!(
            (&told.name, &told.namespace) == (&name, &hidden_in),
            "Secret {told:?} is told, not {name}"
        );
        let is_its = |secret: &&Secret| {
            secret.type_.as_deref() == Some(cephx_secret::TYPE)
                && secret
                    .owner_references()
                    .iter()
                    .any(|o| Some(&o.uid) == rule.uid().as_ref())
        };
        let mut shown = self.secrets.iter().filter(is_its).map(ResourceExt::name_any);
        ensure!(
            status.hidden_by.is_none() || shown.next().is_none(),
            "its key is hidden, and there is a Secret of its own"
        );
        let secret = self
            .secrets
            .iter()
            .find(|s| s.name_any() == name && s.namespace() == namespace)
            .with_context(|| format!("no Secret {name}"))?;
        ensure!(
            secret.type_.as_deref() == Some(cephx_secret::TYPE),
            "Secret {name} is a {:?}",
            secret.type_
        );
        let owners: Vec<_> = secret.owner_references().iter().map(|o| o.uid.clone()).collect();
        ensure!(
            owners == Vec::from_iter(rule.uid().filter(|_| status.hidden_by.is_none())),
            "Secret {name} is owned by {:?}",
            secret.owner_references()
        );
        let text =
            |key: &str| secret_text(secret, key).with_context(|| format!("Secret {name} has no {key}"));
        ensure!(
            text(cephx_secret::USER_ID)? == identity,
            "Secret {name} is for {}",
            text(cephx_secret::USER_ID)?
        );
        let key = text(cephx_secret::USER_KEY)?;
        ensure!(
            text(cephx_secret::KEYRING)? == format!("[client.{identity}]\n\tkey = {key}\n"),
            "the keyring in Secret {name} is not as Ceph reads it"
        );
        cluster
            .mount(fs_name, &subvolume_of(share), identity, &Key::new(key), "")
            .with_context(|| format!("the key in Secret {name} does not open the share"))?;
        Ok(())
    }

    fn rules_of(&self, share: &Share) -> impl Iterator<Item = &ShareAccessRule> {
        self.rules.iter().filter(move |rule| names_it(rule, share))
    }

    fn namespace_uid(&self, name: &str) -> Result<String> {
        let uid = self.namespaces.get(name);
        Ok(uid.with_context(|| format!("no namespace {name}"))?.clone())
    }
}

/// What is to be there beside each share's own: names to compare with all that there are.
#[derive(Default)]
struct Expected {
    subvolumes: BTreeSet<(String, String)>,
    exports: BTreeSet<String>,
    /// With the uid of its namespace, and on how many shares it is let in.
    identities: BTreeMap<String, (Option<String>, usize)>,
}

impl Expected {
    /// What is kept of a deleted share is there, and exported to nobody; of one that was given up, or became another's, there
    /// is what there is.
    fn remains(&mut self, deletion: &ShareDeletion, holdings: &Holdings) {
        let spec = &deletion.spec;
        let name = Place::of(spec.handle.as_deref(), &spec.share_ref.uid).subvolume;
        let key = (spec.backend_name.clone(), name);
        if share_deletion::phase(deletion) == Some(DeletionPhase::Retained)
            || holdings.subvolumes.contains_key(&key)
        {
            self.subvolumes.insert(key);
        }
        let path = path_of_deletion(deletion);
        if share_deletion::may_have_access(deletion) && holdings.exports.contains_key(&path) {
            self.exports.insert(path);
        }
    }
}

/// Clients are matched in their order: none may come after one that includes it.
pub fn specific_first(access: &Access) -> Result<()> {
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

/// Name of a share's subvolume.
pub fn subvolume_of(share: &Share) -> String {
    let handle = share.status.as_ref().and_then(|status| status.handle.as_deref());
    Place::of(handle, &share.uid().unwrap_or_default()).subvolume
}

/// A share's path on its NFS cluster.
pub fn path_of(share: &Share) -> String {
    let name = share.status.as_ref();
    let name = name.and_then(|status| status.resolved_mount_point_name.as_deref());
    share::pseudo_path(name, &share.uid().unwrap_or_default())
}

/// The path that a deleted share had on its NFS cluster.
pub fn path_of_deletion(deletion: &ShareDeletion) -> String {
    let spec = &deletion.spec;
    share::pseudo_path(spec.resolved_mount_point_name.as_deref(), &spec.share_ref.uid)
}

/// Whether a rule is about this share.
pub fn names_it(rule: &ShareAccessRule, share: &Share) -> bool {
    rule.namespace() == share.namespace() && rule.spec.share_ref.name == share.name_any()
}

/// Whom a rule names, if that can be read.
pub fn client_of(rule: &ShareAccessRule) -> Option<Client> {
    let made = rule.status.as_ref().and_then(|status| status.identity.clone());
    let generated = made.unwrap_or_else(|| generated_identity(&rule.uid().unwrap_or_default()));
    let text = rule.spec.access_to.clone().unwrap_or(generated);
    Client::parse(rule.spec.access_type, &text).ok()
}

/// Whether a rule says that it is in force.
pub fn is_active(rule: &ShareAccessRule) -> bool {
    rule.status.as_ref().and_then(|s| s.phase) == Some(AccessPhase::Active)
}

/// The text under a Secret's key.
pub fn secret_text(secret: &Secret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
}

fn is(status: &ShareStatus, type_: &str) -> bool {
    condition(&status.conditions, type_).is_some_and(|(is, _)| is == "True")
}

/// Whether a share says that it is Ready, and why.
fn ready(share: &Share) -> Option<(bool, &str)> {
    let status = share.status.as_ref()?;
    condition(&status.conditions, types::READY).map(|(is, reason)| (is == "True", reason))
}
