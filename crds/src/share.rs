use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::EXPORT_LOCATION_KEYS;
use crate::validation::{bound_values, immutable, immutable_value, own_keys, set_at_creation, shown};
use crate::{Period, Size, Squash};

/// A shared file system, for as long as the object exists.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "shoal.storage",
    version = "v1alpha1",
    kind = "Share",
    plural = "shares",
    shortname = "shr",
    category = "shoal",
    namespaced,
    status = "ShareStatus",
    derive = "PartialEq",
    doc = "A shared file system. Who may mount it is said by ShareAccessRules; with none, nobody may.",
    selectable = ".spec.shareTypeName",
    selectable = ".status.backendName",
    selectable = ".status.phase",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Protocol", type_ = "string", json_path = ".spec.protocol"),
    printcolumn(name = "Type", type_ = "string", json_path = ".status.shareTypeName"),
    printcolumn(name = "Backend", type_ = "string", json_path = ".status.backendName"),
    printcolumn(
        name = "Export",
        type_ = "string",
        json_path = ".metadata.annotations.shoal\\.storage/export-location",
        priority = "1"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = set_at_creation("shareTypeName", "Share"),
    validation = set_at_creation("source", "Share"),
    validation = set_at_creation("mountPointName", "Share"),
    validation = Rule::new("!has(self.mountPointName) || self.protocol == 'NFS'")
        .message(Message::Expression(
            "'mountPointName: ' + self.mountPointName + ' can not be had with protocol ' + self.protocol + ', whose paths Ceph \
             names; leave it out, or set protocol to NFS'".into()
        ))
        .field_path(".mountPointName")
)]
pub struct ShareSpec {
    /// The ShareType to make it from. Left out: the one marked as default, as recorded in status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = immutable("shareTypeName", "Share"))]
    pub share_type_name: Option<String>,
    /// How clients mount it.
    #[x_kube(validation = immutable("protocol", "Share"))]
    pub protocol: Protocol,
    /// Size in whole bytes, enforced by the backend as a quota. May grow; may shrink where the type allows it. Above the
    /// type's `size.max` it takes the verb `extend-beyond-max` on shares.
    pub size: Size,
    /// What NFS clients find it under: `/<prefix><mountPointName>`, with the prefix of its type, which has to allow it. Left out:
    /// a path made from the Share's uid. `status.resolvedMountPointName` says what it became.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(
        validation = immutable("mountPointName", "Share"),
        validation = Rule::new("self.matches('^[A-Za-z0-9_-]*$')").message(Message::Expression(
            format!("\"mountPointName: '\" + {} + \"' may have letters, digits, '-' and '_' alone; leave the rest out\"", shown("self"))
        ))
    )]
    pub mount_point_name: Option<String>,
    /// Where it may go. Read when the share is placed; later changes do nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// What it is made from. Left out: it is made empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = immutable_value("source", ".existing.handle", "Share"))]
    pub source: Option<ShareSource>,
    /// What becomes of the data when the Share is deleted. Left out: what its type said when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// What users say of it. Shown to the storage's admins, too: at the subvolume, under `shoal.storage/metadata`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32), transform = bound_values)]
    #[x_kube(validation = own_keys("metadata", &[]))]
    pub metadata: BTreeMap<String, String>,
    /// What users say of its export locations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub export_location_metadata: Vec<UserMetadata>,
}

/// What users say of an export location.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserMetadata {
    /// Which, by its id in `status.exportLocations`. One that is not there, or not any more, does no harm.
    #[schemars(length(min = 1, max = 64))]
    pub id: String,
    /// Shown beside what Shoal says of it.
    #[schemars(extend("maxProperties" = 32), transform = bound_values)]
    #[x_kube(validation = own_keys("metadata", &EXPORT_LOCATION_KEYS))]
    pub metadata: BTreeMap<String, String>,
}

/// What a share is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShareSource {
    /// The data of a Share that was deleted, as a ShareDeletion names it: it is brought back, with the size it has or more. Takes
    /// the verb `adopt` on shares.
    pub existing: ExistingShare,
}

/// Data that is there already.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExistingShare {
    /// The ShareBackend that holds it.
    #[schemars(length(min = 1, max = 253))]
    pub backend_name: String,
    /// Its name there, as `group/subvolume`.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = Rule::new("self.matches('^[^/]+/[^/]+$')").message(Message::Expression(
            "\"'\" + self + \"' is not group/subvolume; take the handle that kubectl get sharedeletions -o wide shows\"".into()
        ))
    )]
    pub handle: String,
}

/// What becomes of a share's data when the Share is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It is removed, after the type's `retention`.
    #[default]
    Delete,
    /// Access is taken away and the data kept, until an admin says otherwise on the ShareDeletion.
    Retain,
}

/// What a Share does when it is deleted and its backend does not accept that at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionMode {
    /// It goes, and a ShareDeletion finishes what is left.
    #[default]
    Deferred,
    /// It stays until the backend has accepted.
    Wait,
}

/// Where a share may go, beside what its type says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// This ShareBackend and no other, even one that takes no new shares. Takes the verb `pin` on shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub backend_name: Option<String>,
    /// On the ShareBackend of these Shares of the namespace. One that does not exist is waited for; it counts from when it
    /// is placed, whichever of the two is placed first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub same_backend_as: Vec<String>,
    /// On another ShareBackend than each of these Shares of the namespace, whichever of the two is placed first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub different_backend_from: Vec<String>,
}

/// How clients mount a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// NFS, through a clustered NFS service.
    NFS,
    /// Native CephFS.
    CephFS,
}

impl Protocol {
    /// As written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NFS => "NFS",
            Self::CephFS => "CephFS",
        }
    }
}

/// What Shoal knows of a share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShareStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The story in one word, for people. Machines read conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<SharePhase>,
    /// Ready, Reconciling, Stalled, Scheduled, Provisioned, Exported, AccessApplied, Ensuring, DeletionBlocked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The ShareType it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub share_type_name: Option<String>,
    /// The ShareBackend that holds it; chosen once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub backend_name: Option<String>,
    /// The storage cluster's own id at that time: a backend that answers with another one is not touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub fsid: Option<String>,
    /// The file system's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub fs_name: Option<String>,
    /// The file system's id in its cluster: a file system re-made under the same name has another one.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "fsID")]
    pub fs_id: Option<i64>,
    /// The share's name on the backend, as `group/subvolume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub handle: Option<String>,
    /// The NFS cluster that exports it; chosen once.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "nfsClusterID")]
    #[schemars(length(max = 128))]
    pub nfs_cluster_id: Option<String>,
    /// Its name there, with the prefix, if it asked for one: nobody else has it on that NFS cluster. Found once; later edits of
    /// the type don't change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub resolved_mount_point_name: Option<String>,
    /// The quota in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// Where to mount it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub export_locations: Vec<ExportLocation>,
    /// Changes whenever an export location does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub export_revision: Option<String>,
    /// Data that no object owns and that is tagged with the namespace and name of this Share, which waits until a storage admin says what
    /// becomes of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub former_data: Vec<FormerData>,
    /// How many access rules there are, and how many are in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessSummary>,
    /// What would be changed on the storage, and what stands in the way of it, while its ShareBackend's `dryRun` keeps Shoal from changing
    /// anything. Left out: it was not compared yet, or the ShareBackend is worked on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub differences: Option<Differences>,
    /// What it counts for where room is shared out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Charge>,
    /// What the type allowed when the share was made; later edits of the type don't change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// The last value of the annotation `shoal.storage/requested-at` that was answered; a long one is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub last_handled_requested_at: Option<String>,
    /// Failed attempts in a row at what is being done now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i32>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry_time: Option<Time>,
}

/// Differences between what the objects say and what the storage has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Differences {
    /// How many.
    #[serde(default)]
    pub total: i64,
    /// They, in words, those first that let in more; the first hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 1024)))]
    pub list: Vec<String>,
}

/// A share's story in one word, in Manila's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SharePhase {
    /// It has no backend, or is waiting for one.
    Pending,
    /// Its subvolume or export is being made.
    Creating,
    /// It can be used.
    Available,
    /// It can be used, and its export or access is being made again.
    Ensuring,
    /// Its quota is being raised.
    Extending,
    /// Its quota is being lowered.
    Shrinking,
    /// It is being deleted.
    Deleting,
    /// Deletion failed and is being retried.
    ErrorDeleting,
    /// Something is wrong; the conditions say what.
    Error,
}

/// One way to mount a share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExportLocation {
    /// Stable for as long as the path is.
    #[schemars(length(max = 64))]
    pub id: String,
    /// `host:path` for NFS, `mon,mon,…:path` for CephFS.
    #[schemars(length(max = 2000))]
    pub path: String,
    /// How to mount it.
    pub protocol: Protocol,
    /// The one to take when there are several.
    pub preferred: bool,
    /// What a client or a CSI driver needs beside the path.
    pub metadata: ExportLocationMetadata,
}

/// What a client or a CSI driver needs beside the path: `fsName`, the file system; `cephFSID`, the Ceph cluster's id;
/// `subvolumePath`, the subvolume's path in the file system. Beside them what users say in `spec.exportLocationMetadata`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = open_map)]
pub struct ExportLocationMetadata {
    /// The file system's name.
    pub fs_name: String,
    /// The Ceph cluster's id.
    #[serde(rename = "cephFSID")]
    pub ceph_fsid: String,
    /// The subvolume's path in the file system.
    pub subvolume_path: String,
    /// What users say.
    #[serde(flatten)]
    pub of_users: BTreeMap<String, String>,
}

/// Kubernetes knows objects with these fields, or with any, but not with these and any others.
fn open_map(schema: &mut schemars::Schema) {
    schema.remove("properties");
    schema.remove("required");
    schema.insert(
        "additionalProperties".into(),
        serde_json::json!({"type": "string", "maxLength": 1024}),
    );
    schema.insert("maxProperties".into(), 35.into());
}

/// Data of a former Share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FormerData {
    /// The ShareBackend that holds it.
    #[schemars(length(max = 253))]
    pub backend_name: String,
    /// Its name there, as `group/subvolume`.
    #[schemars(length(max = 512))]
    pub handle: String,
    /// The Kubernetes cluster that the former Share was of: the uid of its namespace `kube-system`.
    #[schemars(length(max = 253))]
    pub cluster: String,
}

/// How many access rules there are, and how they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccessSummary {
    /// Rules that name the share.
    pub total: i32,
    /// Rules in force.
    pub applied: i32,
    /// Rules that are not, and why is in their conditions.
    pub failed: i32,
}

/// What a share counts for where room is shared out: stored before anything is made or grown, and lowered after it shrank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Charge {
    /// Bytes.
    pub charged: Size,
}

/// What a ShareType gave a share at its creation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// Whether the share may shrink.
    #[serde(default)]
    pub shrink: bool,
    /// Whether snapshots may be made of it.
    #[serde(default)]
    pub snapshots: bool,
    /// Whether shares may be made from its snapshots.
    #[serde(default)]
    pub create_from_snapshot: bool,
    /// How small and how large it may be.
    #[serde(default, skip_serializing_if = "SizeLimits::is_unlimited")]
    pub size: SizeLimits,
    /// Owner, group and mode that its root was made with.
    #[serde(default)]
    pub root: RootDirectory,
    /// Squash of rules that name none.
    #[serde(default)]
    pub squash: Squash,
    /// Whether a deletion waits for the backend.
    #[serde(default)]
    pub deletion: DeletionMode,
    /// How long its data is kept once it was deleted.
    #[serde(default, skip_serializing_if = "Period::is_zero")]
    pub retention: Period,
    /// What becomes of its data if `spec.deletionPolicy` is left out.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// How small and how large a share may be.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new(
        "!has(self.min) || !has(self.max) || !isQuantity(string(self.min)) || !isQuantity(string(self.max)) \
         || quantity(string(self.min)).compareTo(quantity(string(self.max))) <= 0"
    )
    .message(Message::Expression(
        "'min ' + string(self.min) + ' is above max ' + string(self.max) + '; swap them, or leave one out'".into()
    )),
    validation = Rule::new(
        "!has(self.maxExtend) || (has(self.max) && (!isQuantity(string(self.max)) || !isQuantity(string(self.maxExtend)) \
         || quantity(string(self.max)).compareTo(quantity(string(self.maxExtend))) <= 0))"
    )
    .message(Message::Expression(
        "'maxExtend ' + string(self.maxExtend) + ' is how far beyond max a share may be extended; set max, to no more than that'".into()
    ))
)]
#[serde(rename_all = "camelCase")]
pub struct SizeLimits {
    /// Smallest size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Size>,
    /// Largest size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Size>,
    /// Largest size that a share can be extended to by who has the verb `extend-beyond-max` on shares. Left out: `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_extend: Option<Size>,
}

impl SizeLimits {
    /// Whether neither limit is set.
    pub fn is_unlimited(&self) -> bool {
        self.min.is_none() && self.max.is_none() && self.max_extend.is_none()
    }
}

/// Owner, group and mode of a share's root directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RootDirectory {
    /// Owner.
    #[serde(default)]
    #[schemars(range(min = 0, max = 4_294_967_294_i64))]
    pub uid: i64,
    /// Group.
    #[serde(default)]
    #[schemars(range(min = 0, max = 4_294_967_294_i64))]
    pub gid: i64,
    /// Mode, in octal.
    #[serde(default = "default_mode")]
    #[schemars(length(max = 4), regex(pattern = "^[0-7]{3,4}$"))]
    pub mode: String,
}

fn default_mode() -> String {
    "0755".into()
}

impl Default for RootDirectory {
    fn default() -> Self {
        Self {
            uid: 0,
            gid: 0,
            mode: default_mode(),
        }
    }
}
