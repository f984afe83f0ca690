//! What backends hold that no object owns. A scan finds it, it is told, and nothing of it is ever removed; and a new Share whose
//! namespace and name it is tagged with waits until a storage admin says what becomes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use shoal_crds::{
    ExistingShare, FormerData, FormerOwner, OrphanStatus, Share,
    condition::reasons,
    names::{FORMER_DATA, START_EMPTY},
};

use crate::{
    Class, Failure,
    class::failure,
    owner::{Owner, Place, Tag},
    volume::Volume,
};

/// How many subvolumes a ShareBackend's status names.
const NAMED: usize = 100;
/// How many subvolumes a Share's status names.
const NAMESAKES: usize = 8;
/// How many tags are read in one go.
pub const BATCH: usize = 64;
/// How long the manager is left alone for each second that later scans take of it.
const SHARE_OF_TIME: u32 = 19;
/// How long at least.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// What there is in the place where a backend makes its shares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The subvolume group.
    pub group: String,
    /// All subvolumes in it, by name.
    pub subvolumes: BTreeSet<String>,
    /// The NFS exports that lead there, by pseudo path: to which subvolume, which may be gone.
    pub exports: BTreeMap<String, String>,
}

/// Which subvolume of a group a path of the file system leads to.
pub fn subvolume_of<'a>(group: &str, path: &'a str) -> Option<&'a str> {
    let below = path
        .strip_prefix("/volumes/")?
        .strip_prefix(group)?
        .strip_prefix('/')?;
    below.split('/').next().filter(|name| !name.is_empty())
}

/// What is known of a backend's orphans. In memory: a new leader scans anew.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Index {
    group: String,
    /// Subvolumes that nobody claimed when they were listed, and their tags. None: not read yet.
    tags: BTreeMap<String, Option<Tag>>,
    /// Those whose tag named no owner when it was read last: it may have been on its way, or was written by hand since.
    unowned: BTreeSet<String>,
    /// Those of them that are tagged with this namespace and name.
    names: BTreeMap<(String, String), BTreeSet<String>>,
    /// Where the exports lead that lead to what nobody claimed.
    exports: Vec<String>,
    /// Whether all there was has been read at some time.
    is_complete: bool,
}

impl Index {
    /// Takes a new listing in: of what nobody claims and was not there before, the tag has to be read.
    pub fn list(&mut self, listing: Listing, is_claimed: impl Fn(&str) -> bool) {
        let mut before = std::mem::take(&mut self.tags);
        self.names.clear();
        let leading = listing.exports.into_values();
        self.exports = leading.filter(|name| !is_claimed(name)).collect();
        self.group = listing.group;
        let unclaimed = listing.subvolumes.into_iter().filter(|name| !is_claimed(name));
        for name in unclaimed {
            let tag = before.remove(&name).flatten();
            self.note(name, tag);
        }
        let is_unowned = |tag: &Option<Tag>| matches!(tag, Some(Tag::Absent | Tag::Unreadable));
        let unowned = self.tags.iter().filter(|(_, tag)| is_unowned(tag));
        self.unowned = unowned.map(|(name, _)| name.clone()).collect();
        self.is_complete |= self.tags.values().all(Option::is_some);
    }

    /// Subvolumes whose tags have to be read, so many at most.
    pub fn unread(&self, most: usize) -> Vec<String> {
        let unread = self.tags.iter().filter(|(_, tag)| tag.is_none());
        let unread = unread.map(|(name, _)| name).chain(&self.unowned);
        unread.take(most).cloned().collect()
    }

    /// Notes what a tag says. None: the subvolume is gone.
    pub fn read(&mut self, name: &str, tag: Option<Tag>) {
        self.unowned.remove(name);
        if self.tags.remove(name).is_some() && tag.is_some() {
            self.note(name.to_owned(), tag);
        }
        self.is_complete |= self.tags.values().all(Option::is_some);
    }

    fn note(&mut self, name: String, tag: Option<Tag>) {
        if let Some(Tag::Owner(owner)) = &tag {
            let key = (owner.namespace.clone(), owner.name.clone());
            self.names.entry(key).or_default().insert(name.clone());
        }
        self.tags.insert(name, tag);
    }

    /// Whether all that there is has been looked through, at least once.
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// What is told of it: all but what others have.
    pub fn status(&self, others: &Others) -> OrphanStatus {
        let orphans = self.tags.iter().filter_map(|(name, tag)| {
            let owner = match tag.as_ref()? {
                Tag::Owner(owner) if others.have(owner) => return None,
                Tag::Owner(owner) => Some(owner),
                Tag::Absent | Tag::Unreadable => None,
            };
            Some(shoal_crds::Orphan {
                handle: format!("{}/{name}", self.group),
                owner: owner.map(|owner| FormerOwner {
                    cluster: owner.cluster.clone(),
                    namespace: owner.namespace.clone(),
                    name: owner.name.clone(),
                }),
                left: owner
                    .and_then(|owner| owner.left)
                    .map(|left| left.as_str().to_owned()),
            })
        });
        let mut list: Vec<_> = orphans.collect();
        let subvolumes = i64::try_from(list.len()).unwrap_or(i64::MAX);
        list.truncate(NAMED);
        let is_others = |name: &String| match self.tags.get(name) {
            Some(Some(Tag::Owner(owner))) => others.have(owner),
            _ => false,
        };
        let exports = self.exports.iter().filter(|name| !is_others(name)).count();
        OrphanStatus {
            subvolumes,
            exports: i64::try_from(exports).unwrap_or(i64::MAX),
            list,
        }
    }

    /// Subvolumes with the tag of a Share of this namespace and name, which Shoal has not left behind.
    pub fn namesakes(&self, namespace: &str, name: &str) -> impl Iterator<Item = (String, &Owner)> {
        let named = self.names.get(&(namespace.to_owned(), name.to_owned()));
        named.into_iter().flatten().filter_map(|subvolume| {
            let Some(Tag::Owner(owner)) = self.tags.get(subvolume)? else {
                return None;
            };
            let is_left = owner.left.is_some();
            (!is_left).then(|| (format!("{}/{subvolume}", self.group), owner))
        })
    }
}

/// Who has what no object here is known to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// The clusters whose Shoal keeps shares in the same place.
    pub neighbours: BTreeSet<String>,
    /// Shares of this cluster, by uid, that can't be read, or whose ShareDeletion can't: what they have is what is tagged as theirs.
    pub unread: BTreeSet<String>,
}

impl Others {
    /// Whether what is tagged as this owner's is another's, and so no orphan.
    pub fn have(&self, owner: &Owner) -> bool {
        self.neighbours.contains(&owner.cluster) || self.unread.contains(&owner.uid)
    }
}

/// How long the manager is left alone after a scan, or a part of one, that took so long: what waits for it comes first, and
/// later ones take a twentieth of its time at most.
pub fn pause(took: Duration, is_waited_for: bool) -> Duration {
    let pause = took * if is_waited_for { 1 } else { SHARE_OF_TIME };
    pause.max(SHORTEST_PAUSE)
}

/// A subvolume that no object owns, as far as a share is concerned.
#[derive(Clone, Debug, PartialEq)]
pub struct Orphan {
    /// The ShareBackend that holds it.
    pub backend_name: String,
    /// Its name there, as `group/subvolume`.
    pub handle: String,
    /// Whose it was, as its tag says.
    pub owner: Owner,
    /// What was seen there in this pass. None: nobody could look.
    pub volume: Option<Volume>,
}

impl Orphan {
    /// Its place.
    pub fn place(&self) -> Place {
        Place::of(Some(&self.handle), "")
    }
}

/// What a share that has no data yet has to know of what no object owns.
#[derive(Clone, Debug, Default)]
pub struct Former {
    /// ShareBackends that were not looked through yet, and what is in the way of that. None: it goes on.
    pub unscanned: Vec<(String, Option<Failure>)>,
    /// Data that is tagged with its namespace and name, or, once it is said which, that alone.
    pub orphans: Vec<Orphan>,
    /// Whether that was looked at in this pass.
    pub is_confirmed: bool,
    /// Whether a backend that holds some of it has not been asked yet: its first answer wakes the share.
    pub is_to_be_asked: bool,
    /// Why nobody could look for what it is to bring back.
    pub not_looked_for: Option<Failure>,
    /// The object that has what it is to bring back, if another has.
    pub claimed_by: Option<String>,
    /// Whose data is not to be had where that is which it is to bring back.
    pub others: Others,
    /// Whether all access to what it is to bring back was taken away in this pass.
    pub is_revoked: bool,
}

/// What a storage admin says becomes of former data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays where it is, and the share is made empty.
    StartEmpty,
    /// It is the share's.
    Adopt(ExistingShare),
}

/// What was said of a share. None: nothing yet.
pub fn verdict(share: &Share) -> Result<Option<Verdict>, Failure> {
    let annotations = share.metadata.annotations.as_ref();
    let Some(value) = annotations.and_then(|annotations| annotations.get(FORMER_DATA)) else {
        return Ok(None);
    };
    match value.split('/').collect::<Vec<_>>()[..] {
        // Said of a former Share, whose objects were brought back with it.
        [START_EMPTY, uid] => Ok((share.metadata.uid.as_deref() == Some(uid)).then_some(Verdict::StartEmpty)),
        [backend, group, subvolume] if ![backend, group, subvolume].contains(&"") => {
            Ok(Some(Verdict::Adopt(ExistingShare {
                backend_name: backend.to_owned(),
                handle: format!("{group}/{subvolume}"),
            })))
        }
        _ => Err(failure(
            Class::Stalled,
            reasons::NOTHING_TO_BRING_BACK,
            format!(
                "metadata.annotations: {FORMER_DATA}: '{value}' is neither {START_EMPTY}/<uid of the Share> nor backendName/group/subvolume; take the \
                 latter from kubectl shoal orphans"
            ),
        )),
    }
}

/// Why a share waits that has former namesakes.
pub fn found(orphans: &[Orphan]) -> Failure {
    let told = orphans.iter().take(NAMESAKES).map(|orphan| {
        let size = match &orphan.volume {
            None => "could not be looked at".into(),
            Some(volume) => {
                let of = volume
                    .size_bytes
                    .map_or(String::new(), |size| format!(" of {size}"));
                format!("{}{of} bytes used", volume.used_bytes)
            }
        };
        format!(
            "{} on ShareBackend '{}' ({size}, of cluster {})",
            orphan.handle, orphan.backend_name, orphan.owner.cluster
        )
    });
    let told = told.collect::<Vec<_>>().join(", ");
    failure(
        Class::Waiting,
        reasons::FORMER_DATA_FOUND,
        format!(
            "there is data of a Share of this namespace and name that no object owns: {told}. A storage admin says whether it becomes this \
             Share's or stays where it is: kubectl shoal recover --share, or the annotation {FORMER_DATA}"
        ),
    )
}

/// The same for machines.
pub fn named(orphans: &[Orphan]) -> Vec<FormerData> {
    let some = orphans.iter().take(NAMESAKES).map(|orphan| FormerData {
        backend_name: orphan.backend_name.clone(),
        handle: orphan.handle.clone(),
        cluster: orphan.owner.cluster.clone(),
    });
    some.collect()
}

/// Whether data of this name may be among what a backend was last seen to hold: it is told of, or not all is.
pub fn may_be_among(seen: &OrphanStatus, namespace: &str, name: &str) -> bool {
    let is_cut = usize::try_from(seen.subvolumes) != Ok(seen.list.len());
    let is_it = |orphan: &shoal_crds::Orphan| {
        let owner = orphan.owner.as_ref();
        orphan.left.is_none() && owner.is_some_and(|owner| owner.namespace == namespace && owner.name == name)
    };
    is_cut || seen.list.iter().any(is_it)
}

/// Why a share waits for backends to be looked through.
pub fn not_scanned(name: &str, why: &Failure) -> Failure {
    failure(
        Class::Waiting,
        reasons::BACKEND_NOT_SCANNED,
        format!(
            "ShareBackend '{name}' was never looked through, so it is not known whether it has data of a former Share of this name: {}. \
             Mend it, or delete it",
            why.reason
        ),
    )
}
