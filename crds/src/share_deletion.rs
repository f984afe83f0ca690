use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DeletionPolicy, Protocol, Size};

/// What is left to do of a share whose deletion was accepted.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "shoal.storage",
    version = "v1alpha1",
    kind = "ShareDeletion",
    plural = "sharedeletions",
    shortname = "shdel",
    category = "shoal",
    status = "ShareDeletionStatus",
    derive = "PartialEq",
    doc = "What is left of a Share that is gone: made by Shoal when the backend did not accept the deletion at once, or when \
           data is kept, and finished by Shoal. For storage admins; users need not see it. Deleting it does nothing before it is \
           finished.",
    selectable = ".spec.backendName",
    selectable = ".spec.abandon",
    selectable = ".status.phase",
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.shareRef.namespace"),
    printcolumn(name = "Share", type_ = "string", json_path = ".spec.shareRef.name"),
    printcolumn(name = "Size", type_ = "string", json_path = ".spec.size"),
    printcolumn(name = "Backend", type_ = "string", json_path = ".spec.backendName"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Access Revoked",
        type_ = "boolean",
        json_path = ".status.accessRevoked"
    ),
    printcolumn(name = "Retain Until", type_ = "string", json_path = ".spec.retainUntil"),
    printcolumn(name = "Handle", type_ = "string", json_path = ".spec.handle", priority = "1"),
    printcolumn(
        name = "Attempts",
        type_ = "integer",
        json_path = ".status.attempts",
        priority = "1"
    ),
    printcolumn(
        name = "Last Error",
        type_ = "string",
        json_path = ".status.lastError",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "self.shareRef == oldSelf.shareRef && self.backendName == oldSelf.backendName && self.fsid == oldSelf.fsid \
         && self.fsName == oldSelf.fsName && self.fsID == oldSelf.fsID && self.protocol == oldSelf.protocol \
         && self.size == oldSelf.size && self.deletionPolicy == oldSelf.deletionPolicy \
         && has(self.handle) == has(oldSelf.handle) && (!has(self.handle) || self.handle == oldSelf.handle) \
         && has(self.shareTypeName) == has(oldSelf.shareTypeName) \
         && (!has(self.shareTypeName) || self.shareTypeName == oldSelf.shareTypeName) \
         && has(self.nfsClusterID) == has(oldSelf.nfsClusterID) \
         && (!has(self.nfsClusterID) || self.nfsClusterID == oldSelf.nfsClusterID) \
         && has(self.resolvedMountPointName) == has(oldSelf.resolvedMountPointName) \
         && (!has(self.resolvedMountPointName) || self.resolvedMountPointName == oldSelf.resolvedMountPointName)"
    )
    .message("what was deleted is written once; only abandon and retainUntil may change"),
    // Without it data that is to be removed some day would be removed now.
    validation = Rule::new("!has(oldSelf.retainUntil) || has(self.retainUntil)")
        .message("retainUntil may be changed and not taken off; to keep the data for long name a time that is far away")
        .field_path(".retainUntil")
)]
pub struct ShareDeletionSpec {
    /// The Share that is gone.
    pub share_ref: DeletedShareReference,
    /// Its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub share_type_name: Option<String>,
    /// How clients mounted it.
    pub protocol: Protocol,
    /// Its size. It goes on counting for the room of the ShareBackend, and not for the quota of the namespace.
    pub size: Size,
    /// The ShareBackend that holds what is left.
    #[schemars(length(min = 1, max = 253))]
    pub backend_name: String,
    /// The storage cluster's own id.
    #[schemars(length(max = 64))]
    pub fsid: String,
    /// The file system's name.
    #[schemars(length(max = 253))]
    pub fs_name: String,
    /// The file system's id in its cluster.
    #[serde(rename = "fsID")]
    pub fs_id: i64,
    /// Its name on the backend, as `group/subvolume`, if it was ever there. A Share with `spec.source.existing` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub handle: Option<String>,
    /// The NFS cluster that exported it.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "nfsClusterID")]
    #[schemars(length(max = 128))]
    pub nfs_cluster_id: Option<String>,
    /// Its name there, if it had asked for one: nobody else gets it before access is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub resolved_mount_point_name: Option<String>,
    /// What becomes of the data: `Delete` removes it, after `retainUntil` if that is set; `Retain` keeps it, until `retainUntil`
    /// if that is set.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Until when the data is kept, without access. An admin may change it, and not take it off: an earlier time, or one that
    /// has passed, has the data removed sooner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_until: Option<Time>,
    /// Give it up: Shoal says what is left where, and does nothing more about it. The object stays until it is deleted.
    #[serde(default)]
    pub abandon: bool,
    /// The Share that brings the data back. Written by Shoal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted_by: Option<AdoptingShareReference>,
}

/// A Share that is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeletedShareReference {
    /// Its namespace.
    #[schemars(length(min = 1, max = 253))]
    pub namespace: String,
    /// The uid of that namespace: Ceph's tenant id.
    #[serde(rename = "namespaceUID")]
    #[schemars(length(max = 64))]
    pub namespace_uid: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its uid.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// A Share that brings data back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdoptingShareReference {
    /// Its namespace.
    #[schemars(length(min = 1, max = 253))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its uid.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShareDeletionStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The story in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<DeletionPhase>,
    /// Ready, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Whether it is known that no client is let in any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_revoked: Option<bool>,
    /// Failed attempts in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i32>,
    /// What went wrong last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub last_error: Option<String>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry_time: Option<Time>,
}

/// A deletion's story in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPhase {
    /// The Share is let go; nothing else is known yet.
    Accepted,
    /// Access is being taken away.
    RevokingAccess,
    /// The data is kept, and nobody is let in.
    Retained,
    /// The subvolume is being removed.
    Purging,
    /// Something failed, and is tried again.
    Error,
    /// An admin has given it up.
    Abandoned,
}

impl DeletionPhase {
    /// As written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::RevokingAccess => "RevokingAccess",
            Self::Retained => "Retained",
            Self::Purging => "Purging",
            Self::Error => "Error",
            Self::Abandoned => "Abandoned",
        }
    }

    /// Whether a Share may bring the data back.
    pub fn is_adoptable(self) -> bool {
        matches!(self, Self::Retained | Self::Abandoned)
    }
}
