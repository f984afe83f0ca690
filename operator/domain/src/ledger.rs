//! Who has been promised what: what is stored in the statuses of shares, and what is being stored there just now.
//!
//! Placing and extending rest on sums over other shares. The watch shows what this leader has stored a moment later, so two
//! passes at once could each take the last room. Hence a pass reserves what it is about to store, in one go with the check
//! that nobody has reserved anything since it looked at the sums. Nothing here is kept anywhere: a new leader fills its
//! caches when it leads already, and so with everything that its predecessor stored.

use std::collections::{BTreeMap, BTreeSet};

use kube::{ResourceExt, core::ObjectMeta};
use shoal_crds::{Placement, Protocol, Share, ShareDeletion, ShareSpec, ShareStatus};

use crate::{
    mount_point::{MountPoint, NfsCluster},
    owner::{Place, subvolume_name},
    placement::{Load, Neighbour},
    share, share_deletion,
    share_quota::{Amount, Usage},
};

/// What a share has of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The ShareBackend.
    pub backend_name: String,
    /// How many bytes of it.
    pub bytes: u64,
    /// Whether it takes an export of the NFS cluster.
    pub is_exported: bool,
    /// The share's type, once it is known.
    pub share_type_name: Option<String>,
    /// Its name on the NFS cluster, if it asked for one.
    pub mount_point: Option<MountPoint>,
    /// The subvolume, once it is known.
    pub subvolume: Option<String>,
}

impl Claim {
    /// What a share has by its status; none while it is not placed.
    pub fn of(spec: &ShareSpec, status: &ShareStatus) -> Option<Self> {
        Some(Self {
            backend_name: status.backend_name.clone()?,
            bytes: charged(spec, status),
            is_exported: spec.protocol == Protocol::NFS,
            share_type_name: status.share_type_name.clone(),
            mount_point: MountPoint::recorded(
                status.fsid.as_ref(),
                status.nfs_cluster_id.as_ref(),
                status.resolved_mount_point_name.as_ref(),
            ),
            subvolume: subvolume(status.handle.as_deref()),
        })
    }

    /// What is certain to be enough for both: one of them is stored, and which is not known.
    fn or(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.max(other.bytes),
            ..other
        }
    }
}

/// The name in a handle.
fn subvolume(handle: Option<&str>) -> Option<String> {
    handle.map(|handle| Place::of(Some(handle), "").subvolume)
}

/// Bytes that a placed share is charged. One that was placed before charges were stored counts as large as it is.
pub fn charged(spec: &ShareSpec, status: &ShareStatus) -> u64 {
    status
        .quota
        .map(|quota| quota.charged)
        .or(status.size)
        .unwrap_or(spec.size)
        .bytes()
}

/// All shares, as far as placing others rests on them.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<String, Entry>,
    /// Sums over `entries`, by ShareBackend.
    loads: BTreeMap<String, Load>,
    /// Sums over `entries`, by namespace.
    usages: BTreeMap<String, Usage>,
    /// Uids in `entries`, by namespace and name.
    names: BTreeMap<String, BTreeMap<String, String>>,
    /// Uids of those that name others, by namespace.
    choosy: BTreeMap<String, BTreeSet<String>>,
    /// Namespaces and names of those that ask for more than they have.
    waiting: BTreeSet<(String, String)>,
    /// How many reservations there have been.
    revision: u64,
    /// While all is listed anew: the uids that were in the list so far.
    listed: Option<BTreeSet<String>>,
    /// Who has a name on an NFS cluster: uids in `entries`, and names of ShareDeletions. Only for a moment more than one, when
    /// a share is being let go.
    mount_points: Holders<MountPoint>,
    /// Who has a subvolume, as its handle says: uids in `entries`, and names of ShareDeletions.
    subvolumes: Holders<String>,
    /// What deleted shares still have, by ShareDeletion.
    deletions: BTreeMap<String, Remains>,
    /// While those are listed anew: the names that were in the list so far.
    listed_deletions: Option<BTreeSet<String>>,
    /// What can't be read and never could: uids in `entries`, and names of ShareDeletions.
    unread: BTreeSet<String>,
}

/// Who has what.
#[derive(Clone, Debug)]
struct Holders<T>(BTreeMap<T, BTreeSet<String>>);

impl<T> Default for Holders<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Clone + Ord> Holders<T> {
    fn take(&mut self, what: Option<&T>, holder: &str) {
        if let Some(what) = what {
            let holders = self.0.entry(what.clone()).or_default();
            holders.insert(holder.to_owned());
        }
    }

    fn leave(&mut self, what: Option<&T>, holder: &str) {
        if let Some(what) = what
            && let Some(holders) = self.0.get_mut(what)
        {
            holders.remove(holder);
            if holders.is_empty() {
                self.0.remove(what);
            }
        }
    }
}

/// What a deleted share still has of a backend.
#[derive(Clone, Debug, PartialEq)]
struct Remains {
    /// What is left, by its handle.
    subvolume: Option<String>,
    /// None: it was given up, and takes no room any more.
    room: Option<RemainingRoom>,
    /// Its name on the NFS cluster, as long as its export may be there.
    mount_point: Option<MountPoint>,
}

#[derive(Clone, Debug, PartialEq)]
struct RemainingRoom {
    backend_name: String,
    bytes: u64,
    is_exported: bool,
    handle: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    namespace: String,
    name: String,
    /// The newest version that was seen.
    version: Option<u64>,
    stored: Option<Claim>,
    /// What is being stored, and the version it was decided on.
    reserved: Option<(Option<u64>, Claim)>,
    placement: Option<Box<Placement>>,
    /// Whether it asks for more than it has.
    is_waiting: bool,
}

impl Entry {
    fn claim(&self) -> Option<Claim> {
        match (self.stored.clone(), self.reserved.clone()) {
            (Some(stored), Some((_, reserved))) => Some(stored.or(reserved)),
            (stored, reserved) => stored.or(reserved.map(|(_, claim)| claim)),
        }
    }

    fn is_on(&self, backend_name: &str) -> bool {
        self.claim()
            .is_some_and(|claim| claim.backend_name == backend_name)
    }
}

/// What came of reserving something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Reservation {
    /// It is reserved.
    Made,
    /// Somebody has reserved something since the page was read: it has to be read again.
    Overtaken,
    /// The share is gone, or is known in a later version: it has to be loaded again.
    Outdated,
}

/// What one share's placing rests on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// As of which reservation.
    pub revision: u64,
    /// What other shares have of each ShareBackend.
    pub loads: BTreeMap<String, Load>,
    /// What other shares of its namespace are charged.
    pub usage: Usage,
    /// The shares of its namespace that it names, or that name it.
    pub neighbours: Vec<Neighbour>,
    /// The NFS clusters on which others have the name that it asks for.
    pub taken_on: BTreeSet<NfsCluster>,
}

impl Ledger {
    /// Notes a version of a share. True if others may now have what it had.
    pub fn note(&mut self, share: &Share) -> bool {
        let uid = share.uid().unwrap_or_default();
        let version = share
            .metadata
            .resource_version
            .as_ref()
            .and_then(|v| v.parse().ok());
        let earlier = self.entries.get(&uid);
        if earlier.is_some_and(|earlier| earlier.version > version && version.is_some()) {
            return false;
        }
        let had = earlier.and_then(Entry::claim).map_or(0, |claim| claim.bytes);
        let reserved = earlier
            .and_then(|earlier| earlier.reserved.clone())
            // The watch may be behind what the share's pass has written.
            .filter(|(decided_on, _)| *decided_on >= version);
        let status = share.status.clone().unwrap_or_default();
        // What a share had is free for others once its deletion was accepted, whoever else still holds the object.
        let is_gone = share.metadata.deletion_timestamp.is_some()
            && !share
                .finalizers()
                .iter()
                .any(|f| f == shoal_crds::names::FINALIZER);
        let stored = Claim::of(&share.spec, &status).filter(|_| !is_gone);
        let is_waiting = share.metadata.deletion_timestamp.is_none()
            && stored
                .as_ref()
                .is_none_or(|claim| claim.bytes < share.spec.size.bytes());
        let entry = Entry {
            namespace: share.namespace().unwrap_or_default(),
            name: share.name_any(),
            version,
            stored,
            reserved,
            placement: share.spec.placement.clone().map(Box::new),
            is_waiting,
        };
        let has = entry.claim().map_or(0, |claim| claim.bytes);
        self.list(&uid);
        self.replace(uid, Some(entry));
        has < had
    }

    /// Notes that a share is there that can't be read: it keeps what it had. What one has that never could be read is not known, but
    /// for what says that it is its.
    pub fn is_there(&mut self, metadata: &ObjectMeta) {
        let uid = metadata.uid.clone().unwrap_or_default();
        self.list(&uid);
        if self.entries.contains_key(&uid) {
            return;
        }
        let entry = Entry {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            version: None,
            stored: None,
            reserved: None,
            placement: None,
            is_waiting: false,
        };
        self.replace(uid.clone(), Some(entry));
        self.unread.insert(uid);
    }

    fn list(&mut self, uid: &str) {
        if let Some(listed) = &mut self.listed {
            listed.insert(uid.to_owned());
        }
    }

    /// Notes that a share is gone.
    pub fn gone(&mut self, uid: &str) {
        self.replace(uid.to_owned(), None);
    }

    /// All shares are about to be listed anew.
    pub fn begin_list(&mut self) {
        self.listed = Some(BTreeSet::new());
    }

    /// All shares have been listed: what was not among them is gone.
    pub fn end_list(&mut self) {
        let listed = self.listed.take().unwrap_or_default();
        let gone: Vec<_> = self
            .entries
            .keys()
            .filter(|uid| !listed.contains(*uid))
            .cloned()
            .collect();
        for uid in gone {
            self.gone(&uid);
        }
    }

    /// What placing or extending this share rests on, with the name that it would have on an NFS cluster.
    pub fn page(&self, share: &Share, mount_point_name: Option<&str>) -> Page {
        let (namespace, name) = (share.namespace().unwrap_or_default(), share.name_any());
        let own = self.entries.get(&share.uid().unwrap_or_default());
        let mut loads = self.loads.clone();
        let mut usage = self.usage(&namespace);
        // What it brings back has its room already.
        if let Some(existing) = share::brings_back(share) {
            let mut rooms = self
                .deletions
                .values()
                .filter_map(|remains| remains.room.as_ref());
            let brought_back = rooms.find(|room| {
                room.backend_name == existing.backend_name && room.handle.as_ref() == Some(&existing.handle)
            });
            if let Some(room) = brought_back {
                room.leave(&mut loads);
            }
        }
        if let Some(claim) = own.and_then(Entry::claim) {
            unload(&mut loads, &claim);
            uncharge(&mut usage, &claim);
        }
        let names = self.names.get(&namespace);
        let mentioned = share.spec.placement.iter().flat_map(mentioned);
        let mentioned = mentioned.filter_map(|other| names?.get(other));
        let naming = self.choosy.get(&namespace).into_iter().flatten();
        let naming = naming.filter(|uid| self.entries.get(*uid).is_some_and(|entry| entry.mentions(&name)));
        let uids: BTreeSet<_> = mentioned.chain(naming).collect();
        let neighbours = uids
            .into_iter()
            .filter_map(|uid| self.entries.get(uid))
            .filter(|entry| entry.name != name)
            .map(|entry| Neighbour {
                name: entry.name.clone(),
                backend_name: entry.claim().map(|claim| claim.backend_name),
                placement: entry.placement.as_deref().cloned().unwrap_or_default(),
            })
            .collect();
        Page {
            revision: self.revision,
            loads,
            usage,
            neighbours,
            taken_on: self.taken_on(&share.uid().unwrap_or_default(), mount_point_name),
        }
    }

    /// The NFS clusters on which others than the share of this uid have this name.
    fn taken_on(&self, uid: &str, name: Option<&str>) -> BTreeSet<NfsCluster> {
        let Some(name) = name else {
            return BTreeSet::new();
        };
        let of_that_name = self
            .mount_points
            .0
            .iter()
            .filter(|(mount_point, _)| mount_point.name == name);
        of_that_name
            .filter(|(_, holders)| holders.iter().any(|holder| holder != uid))
            .map(|(mount_point, _)| mount_point.on.clone())
            .collect()
    }

    /// Reserves what is about to be stored for a share, unless that was decided on what is so no more: then nothing is
    /// reserved.
    pub fn reserve(&mut self, share: &Share, page_revision: u64, claim: Claim) -> Reservation {
        let uid = share.uid().unwrap_or_default();
        let decided_on = share
            .metadata
            .resource_version
            .as_ref()
            .and_then(|v| v.parse().ok());
        let Some(entry) = self.entries.get(&uid) else {
            return Reservation::Outdated;
        };
        // It would be refused; until it is, others would be decided on a choice that is none.
        if decided_on.is_some() && entry.version > decided_on {
            return Reservation::Outdated;
        }
        if self.revision != page_revision {
            return Reservation::Overtaken;
        }
        let entry = Entry {
            reserved: Some((decided_on, claim)),
            ..entry.clone()
        };
        self.replace(uid, Some(entry));
        self.turn_page();
        Reservation::Made
    }

    /// Gives up what was reserved for a share: it was refused, and so has not been stored.
    pub fn release(&mut self, uid: &str) {
        if let Some(entry) = self.entries.get(uid) {
            let entry = Entry {
                reserved: None,
                ..entry.clone()
            };
            self.replace(uid.to_owned(), Some(entry));
        }
    }

    /// Whether something may still come to be stored that was reserved: a successor would not know of it.
    pub fn is_owed(&self) -> bool {
        self.entries.values().any(|entry| entry.reserved.is_some())
    }

    /// What shares have of a ShareBackend.
    pub fn load(&self, backend_name: &str) -> Load {
        self.loads.get(backend_name).copied().unwrap_or_default()
    }

    /// What the shares of a namespace are charged.
    pub fn usage(&self, namespace: &str) -> Usage {
        self.usages.get(namespace).cloned().unwrap_or_default()
    }

    /// What shares have of each ShareBackend.
    pub fn loads(&self) -> &BTreeMap<String, Load> {
        &self.loads
    }

    /// The shares on a ShareBackend, by uid: namespace and name. What one is promised and the watch has not brought yet counts.
    pub fn shares_on(&self, backend_name: &str) -> BTreeMap<String, (String, String)> {
        let on_it = self.entries.iter().filter(|(_, entry)| entry.is_on(backend_name));
        on_it
            .map(|(uid, entry)| (uid.clone(), (entry.namespace.clone(), entry.name.clone())))
            .collect()
    }

    /// What is on a ShareBackend: shares, as `namespace/name`, and ShareDeletions; so many at most.
    pub fn on_backend(&self, backend_name: &str, most: usize) -> Vec<String> {
        if !self.loads.contains_key(backend_name) {
            return Vec::new();
        }
        let mut names: Vec<_> = self
            .entries
            .values()
            .filter(|entry| entry.is_on(backend_name))
            .map(|entry| format!("{}/{}", entry.namespace, entry.name))
            .collect();
        names.sort();
        let deletions = self.deletions.iter();
        let deletions = deletions.filter(|(_, remains)| {
            let room = remains.room.as_ref();
            room.is_some_and(|room| room.backend_name == backend_name)
        });
        names.extend(deletions.map(|(name, _)| deletion_in_the_way(name)));
        names.truncate(most);
        names
    }

    /// Notes a version of a ShareDeletion. True if others may now have what the share had.
    pub fn note_deletion(&mut self, deletion: &ShareDeletion) -> bool {
        let name = deletion.name_any();
        if let Some(listed) = &mut self.listed_deletions {
            listed.insert(name.clone());
        }
        let spec = &deletion.spec;
        let is_exported = spec.protocol == Protocol::NFS && share_deletion::may_have_access(deletion);
        let room = share_deletion::is_pending(deletion).then(|| RemainingRoom {
            backend_name: spec.backend_name.clone(),
            bytes: spec.size.bytes(),
            is_exported,
            handle: spec.handle.clone(),
        });
        let mount_point = MountPoint::recorded(
            Some(&spec.fsid),
            spec.nfs_cluster_id.as_ref(),
            spec.resolved_mount_point_name.as_ref(),
        );
        self.replace_deletion(
            name,
            Remains {
                subvolume: Some(
                    subvolume(spec.handle.as_deref()).unwrap_or_else(|| subvolume_name(&spec.share_ref.uid)),
                ),
                room,
                mount_point: mount_point.filter(|_| is_exported),
            },
        )
    }

    /// The same of a ShareDeletion.
    pub fn deletion_is_there(&mut self, name: &str) {
        if let Some(listed) = &mut self.listed_deletions {
            listed.insert(name.to_owned());
        }
        if !self.deletions.contains_key(name) {
            let unread = Remains {
                // Both have their name from the Share's uid.
                subvolume: Some(name.to_owned()),
                ..Remains::nothing()
            };
            self.replace_deletion(name.to_owned(), unread);
            self.unread.insert(name.to_owned());
        }
    }

    /// Notes that a ShareDeletion is gone. True if others may now have what the share had.
    pub fn deletion_gone(&mut self, name: &str) -> bool {
        self.replace_deletion(name.to_owned(), Remains::nothing())
    }

    /// All ShareDeletions are about to be listed anew.
    pub fn begin_deletions(&mut self) {
        self.listed_deletions = Some(BTreeSet::new());
    }

    /// All ShareDeletions have been listed: what was not among them is gone.
    pub fn end_deletions(&mut self) {
        let listed = self.listed_deletions.take().unwrap_or_default();
        let gone = self.deletions.keys().filter(|name| !listed.contains(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.deletion_gone(&name);
        }
    }

    fn replace_deletion(&mut self, name: String, remains: Remains) -> bool {
        let before = self.deletions.remove(&name).unwrap_or_else(Remains::nothing);
        if let Some(room) = &before.room {
            room.leave(&mut self.loads);
        }
        self.mount_points.leave(before.mount_point.as_ref(), &name);
        self.subvolumes.leave(before.subvolume.as_ref(), &name);
        self.subvolumes.take(remains.subvolume.as_ref(), &name);
        if let Some(room) = &remains.room {
            room.arrive(&mut self.loads);
        }
        self.mount_points.take(remains.mount_point.as_ref(), &name);
        self.unread.remove(&name);
        let made_room = (before.room.is_some() && remains.room.is_none())
            || (before.mount_point.is_some() && remains.mount_point.is_none());
        if remains != Remains::nothing() {
            self.deletions.insert(name, remains);
        }
        made_room
    }

    /// Who has a subvolume, or is to have it: uids in `entries`, and names of ShareDeletions.
    fn holders<'a>(&'a self, subvolume: &str) -> impl Iterator<Item = &'a String> + use<'a> {
        let by_handle = self.subvolumes.0.get(subvolume).into_iter().flatten();
        // One that is being made has no handle yet.
        let by_name = subvolume.strip_prefix(&subvolume_name(""));
        let by_name = by_name.and_then(|uid| self.entries.get_key_value(uid));
        by_name.map(|(uid, _)| uid).into_iter().chain(by_handle)
    }

    /// Whether an object has a subvolume, or is to have it.
    pub fn is_held(&self, subvolume: &str) -> bool {
        self.holders(subvolume).next().is_some()
    }

    /// An object other than the Share of this uid that has a subvolume, or is to have it, for people. None: nobody has.
    pub fn holder(&self, subvolume: &str, beside: &str) -> Option<String> {
        let holder = self.holders(subvolume).find(|holder| *holder != beside)?;
        Some(match self.entries.get(holder) {
            Some(entry) => format!("Share {}/{}", entry.namespace, entry.name),
            None => deletion_in_the_way(holder),
        })
    }

    /// Shares, by uid, that can't be read, or whose ShareDeletion can't, and never could: what they have is known by its tag alone.
    pub fn unread(&self) -> BTreeSet<String> {
        let (of_deletion, unread) = (share_deletion::name(""), self.unread.iter());
        let uids = unread.map(|holder| holder.strip_prefix(&of_deletion).unwrap_or(holder));
        uids.map(str::to_owned).collect()
    }

    /// From now on every page that was read before has to be read again.
    pub fn turn_page(&mut self) {
        self.revision += 1;
    }

    /// Shares that wait for room, by namespace and name: so many at most.
    pub fn waiting(&self, most: usize) -> Vec<(String, String)> {
        self.waiting.iter().take(most).cloned().collect()
    }

    /// Those of one namespace, by name.
    pub fn waiting_in(&self, namespace: &str, most: usize) -> Vec<String> {
        self.waiting
            .range((namespace.to_owned(), String::new())..)
            .take_while(|(of, _)| of == namespace)
            .take(most)
            .map(|(_, name)| name.clone())
            .collect()
    }

    /// The one way in which anything changes here.
    fn replace(&mut self, uid: String, entry: Option<Entry>) {
        let before = self.entries.remove(&uid);
        self.unread.remove(&uid);
        if let Some(before) = &before {
            if let Some(claim) = before.claim() {
                self.mount_points.leave(claim.mount_point.as_ref(), &uid);
                self.subvolumes.leave(claim.subvolume.as_ref(), &uid);
                unload(&mut self.loads, &claim);
                if let Some(usage) = self.usages.get_mut(&before.namespace) {
                    uncharge(usage, &claim);
                    if usage.total.shares == 0 {
                        self.usages.remove(&before.namespace);
                    }
                }
            }
            let names = self.names.entry(before.namespace.clone()).or_default();
            // Another share may have the name by now.
            if names.get(&before.name) == Some(&uid) {
                names.remove(&before.name);
                self.waiting
                    .remove(&(before.namespace.clone(), before.name.clone()));
            }
            if names.is_empty() {
                self.names.remove(&before.namespace);
            }
            if let Some(choosy) = self.choosy.get_mut(&before.namespace) {
                choosy.remove(&uid);
                if choosy.is_empty() {
                    self.choosy.remove(&before.namespace);
                }
            }
        }
        if let Some(entry) = entry {
            if let Some(claim) = entry.claim() {
                load(&mut self.loads, &claim);
                self.mount_points.take(claim.mount_point.as_ref(), &uid);
                self.subvolumes.take(claim.subvolume.as_ref(), &uid);
                charge(self.usages.entry(entry.namespace.clone()).or_default(), &claim);
            }
            self.names
                .entry(entry.namespace.clone())
                .or_default()
                .insert(entry.name.clone(), uid.clone());
            if entry.is_waiting {
                self.waiting.insert((entry.namespace.clone(), entry.name.clone()));
            }
            if entry.placement.is_some() {
                let choosy = self.choosy.entry(entry.namespace.clone()).or_default();
                choosy.insert(uid.clone());
            }
            self.entries.insert(uid, entry);
        }
    }
}

impl Entry {
    fn mentions(&self, name: &str) -> bool {
        self.placement
            .iter()
            .flat_map(|p| mentioned(p))
            .any(|named| named == name)
    }
}

fn mentioned(placement: &Placement) -> impl Iterator<Item = &String> {
    placement
        .same_backend_as
        .iter()
        .chain(&placement.different_backend_from)
}

fn load(loads: &mut BTreeMap<String, Load>, claim: &Claim) {
    let load = loads.entry(claim.backend_name.clone()).or_default();
    load.promised_bytes += u128::from(claim.bytes);
    load.shares += 1;
    load.exports += u64::from(claim.is_exported);
}

fn unload(loads: &mut BTreeMap<String, Load>, claim: &Claim) {
    if let Some(load) = loads.get_mut(&claim.backend_name) {
        load.promised_bytes -= u128::from(claim.bytes);
        load.shares -= 1;
        load.exports -= u64::from(claim.is_exported);
        if *load == Load::default() {
            loads.remove(&claim.backend_name);
        }
    }
}

impl Remains {
    fn nothing() -> Self {
        Self {
            subvolume: None,
            room: None,
            mount_point: None,
        }
    }
}

impl RemainingRoom {
    fn arrive(&self, loads: &mut BTreeMap<String, Load>) {
        let load = loads.entry(self.backend_name.clone()).or_default();
        load.promised_bytes += u128::from(self.bytes);
        load.deletions += 1;
        load.exports += u64::from(self.is_exported);
    }

    fn leave(&self, loads: &mut BTreeMap<String, Load>) {
        if let Some(load) = loads.get_mut(&self.backend_name) {
            load.promised_bytes -= u128::from(self.bytes);
            load.deletions -= 1;
            load.exports -= u64::from(self.is_exported);
            if *load == Load::default() {
                loads.remove(&self.backend_name);
            }
        }
    }
}

/// How a ShareDeletion is named beside shares.
pub fn deletion_in_the_way(name: &str) -> String {
    format!("ShareDeletion {name}")
}

fn charge(usage: &mut Usage, claim: &Claim) {
    let add = |amount: &mut Amount| {
        amount.shares += 1;
        amount.bytes += u128::from(claim.bytes);
    };
    add(&mut usage.total);
    if let Some(name) = &claim.share_type_name {
        add(usage.by_type.entry(name.clone()).or_default());
    }
}

fn uncharge(usage: &mut Usage, claim: &Claim) {
    let subtract = |amount: &mut Amount| {
        amount.shares -= 1;
        amount.bytes -= u128::from(claim.bytes);
    };
    subtract(&mut usage.total);
    if let Some(name) = &claim.share_type_name
        && let Some(amount) = usage.by_type.get_mut(name)
    {
        subtract(amount);
        if amount.shares == 0 {
            usage.by_type.remove(name);
        }
    }
}
