//! Names come from the uid, ownership from the tag.

use serde::{Deserialize, Serialize};
pub use shoal_crds::names::generated_identity;

/// The tag on a subvolume, in its metadata under [`Owner::METADATA_KEY`]: whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The Kubernetes cluster: uid of the namespace kube-system.
    pub cluster: String,
    /// The Share's namespace.
    pub namespace: String,
    /// The Share's name.
    pub name: String,
    /// The Share's uid.
    pub uid: String,
    /// Why Shoal has left the subvolume behind. None: it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
}

/// Why a subvolume was left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Left {
    /// Its Share's deletion policy keeps it.
    Retained,
    /// An admin has given it up.
    Abandoned,
}

impl Left {
    /// As written in the tag.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retained => "Retained",
            Self::Abandoned => "Abandoned",
        }
    }
}

impl Owner {
    /// Where the tag is kept.
    pub const METADATA_KEY: &str = "shoal.storage/owner";

    /// The tag's text. Kubernetes names and uids are ASCII letters, digits, `-` and `.`, which Ceph's metadata (an INI
    /// file: `%` is refused) keeps as they are.
    pub fn to_tag(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether a tag names the same object of the same cluster. The rest is for people.
    pub fn is_same(&self, other: &Owner) -> bool {
        self.cluster == other.cluster && self.uid == other.uid
    }
}

/// What the tag on a subvolume says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    /// None there: on `shoal-<own uid>` it is ours, unfinished.
    Absent,
    /// Some owner's.
    Owner(Owner),
    /// Not a tag of ours at all.
    Unreadable,
}

/// Name of the subvolume of the share with this uid.
pub fn subvolume_name(uid: &str) -> String {
    format!("{SUBVOLUME}{uid}")
}

const SUBVOLUME: &str = "shoal-";

/// Whether a path leads into a subvolume that has a share's name, in whichever group.
pub fn is_path_of_a_share(path: &str) -> bool {
    let mut parts = path.strip_prefix("/volumes/").unwrap_or_default().split('/');
    parts
        .nth(1)
        .is_some_and(|subvolume| subvolume.starts_with(SUBVOLUME))
}

/// Where a share's subvolume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The subvolume group. None: the backend's.
    pub group: Option<String>,
    /// The subvolume: that of the share it was made for, which another may have brought back.
    pub subvolume: String,
}

impl Place {
    /// As the handle says, `group/subvolume`; without one as a share of this uid has it made.
    pub fn of(handle: Option<&str>, uid: &str) -> Self {
        match handle.and_then(|handle| handle.rsplit_once('/')) {
            Some((group, subvolume)) => Self {
                group: Some(group.to_owned()),
                subvolume: subvolume.to_owned(),
            },
            None => Self {
                group: None,
                subvolume: subvolume_name(uid),
            },
        }
    }
}

/// NFS pseudo path of the share with this uid.
pub fn pseudo_path(uid: &str) -> String {
    format!("/shoal-{uid}")
}
