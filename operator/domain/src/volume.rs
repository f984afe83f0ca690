//! What the backend really has for one share.

use shoal_crds::{Protocol, RootDirectory, condition::reasons};

use crate::{
    Class, Failure, Scope,
    grant::Access,
    owner::{Owner, Place, Tag, subvolume_name},
};

/// Everything a backend needs to know of a share to work on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRef {
    /// Its owner; the subvolume's and the export's names come from the uid.
    pub owner: Owner,
    /// How clients mount it.
    pub protocol: Protocol,
    /// The uid of the share's namespace: Ceph's tenant id, which binds a CephX identity to the namespace for ever.
    pub tenant: String,
    /// Where its subvolume is.
    pub place: Place,
    /// Its path on the NFS cluster, if that is how clients mount it.
    pub pseudo_path: String,
}

/// How a volume is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// Quota in bytes.
    pub size_bytes: u64,
    /// Owner, group and mode of its root.
    pub root: RootDirectory,
    /// It was there before, so it is only finished: one that is gone is not made again, for it would be empty.
    pub was_there: bool,
}

/// What one look at the backend showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// No such subvolume, on the storage that was recorded.
    Absent {
        /// An export or an access entry is still there although the subvolume is gone.
        leftovers: bool,
    },
    /// The subvolume is there.
    Present(Box<Volume>),
}

/// A subvolume and how it is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Whose it is.
    pub tag: Tag,
    /// `group/subvolume`.
    pub handle: String,
    /// The path of its data in the file system.
    pub path: String,
    /// Quota in bytes; none if unlimited.
    pub size_bytes: Option<u64>,
    /// Bytes used.
    pub used_bytes: u64,
    /// What users say of it, as [`crate::metadata`] writes it.
    pub metadata: Option<String>,
    /// Whether its access can be made exactly what the rules say.
    pub export: Export,
}

/// How a share is exported now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Export {
    /// Not at all.
    Absent,
    /// The pseudo path is another's. Holds the other's file system and path.
    Taken(String),
    /// Ours.
    Ours {
        /// NFS pseudo path; none for native CephFS.
        pseudo_path: Option<String>,
        /// Who is let in, and how.
        access: Access,
        /// Everything beside the clients is as Shoal makes it: default deny, squash explicit, protocols.
        intact: bool,
    },
}

/// Whose a subvolume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The share's own.
    Ours,
    /// The share's own, and its tag not written yet.
    Unfinished,
    /// Another's, for people.
    Anothers(String),
}

/// Whose a subvolume is that was found where that of this owner is. Without a tag only one that has the owner's own name
/// is its.
pub fn whose(volume: &Volume, owner: &Owner) -> Whose {
    match &volume.tag {
        Tag::Absent if volume.handle.rsplit('/').next() == Some(&subvolume_name(&owner.uid)) => {
            Whose::Unfinished
        }
        Tag::Absent => Whose::Anothers("nobody".into()),
        Tag::Owner(tagged) if tagged.is_same(owner) => Whose::Ours,
        Tag::Owner(tagged) => Whose::Anothers(format!(
            "Share {}/{} (uid {}) of cluster {}",
            tagged.namespace, tagged.name, tagged.uid, tagged.cluster
        )),
        Tag::Unreadable => Whose::Anothers("somebody whose tag can't be read".into()),
    }
}

/// What is another's is not touched.
pub fn owned_by_another(volume: &Volume, whose: &str) -> Failure {
    Failure {
        class: Class::Conflict,
        scope: Scope::Object,
        reason: reasons::OWNED_BY_ANOTHER,
        message: format!(
            "the subvolume {} is tagged as belonging to {whose}; it is not touched",
            volume.handle
        ),
    }
}
