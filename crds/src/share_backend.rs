use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::validation::immutable;
use crate::{Protocol, Ratio, Size};

/// One file system behind one driver.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "shoal.storage",
    version = "v1alpha1",
    kind = "ShareBackend",
    plural = "sharebackends",
    shortname = "shbe",
    category = "shoal",
    status = "ShareBackendStatus",
    derive = "PartialEq",
    doc = "One file system that holds shares, and how to reach it.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "FS", type_ = "string", json_path = ".spec.ceph.filesystem"),
    printcolumn(name = "NFS", type_ = "string", json_path = ".spec.ceph.nfs.clusterID"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.ceph.version"),
    printcolumn(name = "Scheduling", type_ = "boolean", json_path = ".spec.schedulingEnabled"),
    printcolumn(name = "Shares", type_ = "integer", json_path = ".status.shares"),
    printcolumn(
        name = "Orphans",
        type_ = "integer",
        json_path = ".status.orphans.subvolumes",
        priority = "1"
    ),
    printcolumn(name = "Free", type_ = "string", json_path = ".status.capacity.free"),
    printcolumn(
        name = "Promised",
        type_ = "string",
        json_path = ".status.capacity.provisioned",
        priority = "1"
    ),
    printcolumn(
        name = "Ensuring",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ensuring\")].message",
        priority = "1"
    ),
    printcolumn(
        name = "Disabled",
        type_ = "string",
        json_path = ".spec.disabledReason",
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
    validation = Rule::new("has(self.ceph) != has(self.simulated)").message("set exactly one of ceph and simulated"),
    validation = Rule::new("has(self.ceph) == has(oldSelf.ceph)").message("the driver is immutable; create another ShareBackend"),
    validation = Rule::new("!has(self.disabledReason) || !self.schedulingEnabled")
        .message("disabledReason is for a backend that takes no new shares; set schedulingEnabled to false, or leave the reason out")
        .field_path(".disabledReason")
)]
pub struct ShareBackendSpec {
    /// A CephFS file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceph: Option<CephBackend>,
    /// Nothing but a pretence, for evaluation, scale tests and examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulated: Option<SimulatedBackend>,
    /// Commands in flight at once. Of all backends of one Ceph cluster the least counts.
    #[serde(default = "default_max_concurrent_operations")]
    #[schemars(range(min = 1, max = 64))]
    pub max_concurrent_operations: i32,
    /// Whether new shares may be placed on it. With false, those that are there go on being managed: they can be extended,
    /// their access changed, and they can be deleted.
    #[serde(default = "default_true")]
    pub scheduling_enabled: bool,
    /// Why no new shares are placed on it; told to those who ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub disabled_reason: Option<String>,
    /// Whether Shoal leaves it alone altogether: nothing is asked and nothing changed there, and what is due waits.
    #[serde(default)]
    pub paused: bool,
    /// Whether Shoal only looks at it: each share on it says in `status.differences` what would be changed there, nothing is changed, and what
    /// is due waits.
    #[serde(default)]
    pub dry_run: bool,
    /// How much of its room new shares leave free, in per cent.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub reserved_percentage: i32,
    /// How many times its room may be promised to shares. Left out: however often it is asked for, since a share takes only
    /// the room of the data in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overcommit_ratio: Option<Ratio>,
    /// Other Kubernetes clusters whose Shoal keeps shares on the same file system, each by the uid of its namespace `kube-system`: what
    /// is tagged as theirs is nobody's former data here, and is neither told nor adopted, on any ShareBackend with the same subvolume
    /// group of that file system. Takes the verb `adopt` on sharebackends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "set"))]
    pub neighbours: Vec<String>,
}

impl Default for ShareBackendSpec {
    fn default() -> Self {
        Self {
            ceph: None,
            simulated: None,
            max_concurrent_operations: default_max_concurrent_operations(),
            scheduling_enabled: true,
            disabled_reason: None,
            paused: false,
            dry_run: false,
            reserved_percentage: 0,
            overcommit_ratio: None,
            neighbours: Vec::new(),
        }
    }
}

fn default_max_concurrent_operations() -> i32 {
    4
}

/// A CephFS file system.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(oldSelf.nfs) || has(self.nfs)")
        .message("nfs can't be taken away: shares are exported there; create another ShareBackend without it").field_path(".nfs")
)]
pub struct CephBackend {
    /// The Secret with keys `monHost`, `userID` and `userKey`.
    pub connection_secret_ref: SecretReference,
    /// The file system's name.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = immutable("filesystem", "ShareBackend"))]
    pub filesystem: String,
    /// The subvolume group that holds the shares; made when absent.
    #[serde(default = "default_subvolume_group")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9_-]*$"))]
    #[x_kube(validation = immutable("subvolumeGroup", "ShareBackend"))]
    pub subvolume_group: String,
    /// The data pool of new shares. Left out: the file system's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub data_pool: Option<String>,
    /// Whether each share's objects live in a RADOS namespace of its own, so that no key reads another share's.
    #[serde(default = "default_true")]
    pub namespace_isolated: bool,
    /// The NFS service; without it the backend offers CephFS alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nfs: Option<NfsBackend>,
}

fn default_subvolume_group() -> String {
    "shoal".into()
}

fn default_true() -> bool {
    true
}

/// A name, an IPv4 address or an IPv6 address in brackets, and a port if any.
const ENDPOINT: &str = concat!(
    r"^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\\[[0-9A-Fa-f:.]+\\])",
    "(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?$"
);

/// A clustered NFS service (`ceph nfs cluster`).
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(format!("!has(self.maxExports) || self.maxExports <= {EXPORT_LIST} / ({EXPORT_ENTRY} + size(self.clusterID))"))
        // CEL can't put a number into a message at a bounded cost.
        .message(Message::Message(format!(
            "of more than {EXPORT_LIST} / ({EXPORT_ENTRY} + length of clusterID) exports, {} for 'shoal-nfs', Ceph loses some when one is removed; \
             write at most so many, or leave it out. For more, make another NFS cluster, and a ShareBackend that exports there",
            removable_exports("shoal-nfs")
        )))
        .field_path(".maxExports")
)]
pub struct NfsBackend {
    /// The NFS cluster's id. A cluster that serves nothing but Shoal is best.
    #[serde(rename = "clusterID")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9_-]*$"))]
    #[x_kube(validation = immutable("clusterID", "ShareBackend"))]
    pub cluster_id: String,
    /// How many exports it may have at most, whosever they are. Of all backends of one NFS cluster the least counts. Left out: as many
    /// as Ceph can remove one of without loss, 8192 / (35 + length of `clusterID`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_exports: Option<i32>,
    /// Where clients reach it, as `host` or `host:port`, `[v6]:port` for IPv6; the first is preferred. Left out: as
    /// `ceph nfs cluster info` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    #[x_kube(validation = Rule::new(format!("self.all(e, isIP(e) || e.matches('{ENDPOINT}'))")).message(Message::Expression(
        format!("\"'\" + self.filter(e, !isIP(e) && !e.matches('{ENDPOINT}'))[0] + \"' is no endpoint; write a host, host:port or [IPv6 address]:port, the port from 1 to 65535\"")
    )))]
    pub endpoints: Vec<String>,
}

/// So many bytes of the list of an NFS cluster's exports `nfs export rm` reads, and it writes back no more.
const EXPORT_LIST: usize = 8192;
/// The longest entry of that list, without the cluster's id: `%url "rados://.nfs/<id>/export-65535"` and two line breaks. Ganesha's ids
/// of exports have 16 bits.
const EXPORT_ENTRY: usize = 35;

/// How many exports an NFS cluster may have if none of them is to be lost when Ceph removes one.
pub fn removable_exports(cluster_id: &str) -> u64 {
    (EXPORT_LIST / (EXPORT_ENTRY + cluster_id.len())) as u64
}

impl NfsBackend {
    /// How many exports it may have: as the admin says, and never more than Ceph can remove one of.
    pub fn most_exports(&self) -> u64 {
        let said = self.max_exports.and_then(|most| u64::try_from(most).ok());
        said.unwrap_or(u64::MAX).min(removable_exports(&self.cluster_id))
    }
}

/// A Secret, by name and namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretReference {
    /// Its namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A pretence of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SimulatedBackend {
    /// How much it says it holds. Left out: 1Pi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Size>,
    /// How long each command takes.
    #[serde(default)]
    #[schemars(range(min = 0, max = 60_000))]
    pub latency_milliseconds: i32,
    /// How many commands of a hundred fail.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub failure_percent: i32,
}

/// What Shoal knows of a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShareBackendStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The story in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackendPhase>,
    /// Ready, Reconciling, Stalled, Ensuring, ExportsStay, DeletionBlocked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The storage cluster, as recorded at first contact (its ids) and seen last (the rest). A simulated backend says
    /// here what it pretends to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceph: Option<CephStatus>,
    /// The NFS service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nfs: Option<NfsStatus>,
    /// Room, as the backend says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    /// The protocols it serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub protocols: Vec<Protocol>,
    /// How many shares are on it, as of half a minute ago at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<i64>,
    /// How many ShareDeletions have something left on it, as of then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_deletions: Option<i64>,
    /// What it holds that no object owns, as of the last scan: it is told, and never removed. Left out: it has not been scanned yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphans: Option<OrphanStatus>,
    /// The round over its shares that verifies each and mends what is not as it should be: the one that goes on, or the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ensure: Option<EnsureStatus>,
    /// The last value of the annotation `shoal.storage/requested-at` that a finished round has answered; a long one is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub last_handled_requested_at: Option<String>,
}

/// What a backend holds that no object owns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrphanStatus {
    /// Subvolumes.
    #[serde(default)]
    pub subvolumes: i64,
    /// NFS exports that lead to them, or to where one was.
    #[serde(default)]
    pub exports: i64,
    /// The subvolumes; the first hundred, if they are more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["handle"]))]
    pub list: Vec<Orphan>,
}

/// A subvolume that no object owns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Orphan {
    /// Its name, as `group/subvolume`.
    #[schemars(length(max = 512))]
    pub handle: String,
    /// Whose it was, as its tag says. Left out: it has none that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<FormerOwner>,
    /// Why Shoal has left it behind: `Retained`, `Abandoned`. Left out: it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub left: Option<String>,
}

/// A Share that there was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FormerOwner {
    /// Its Kubernetes cluster: the uid of the namespace `kube-system`.
    #[schemars(length(max = 253))]
    pub cluster: String,
    /// Its namespace.
    #[schemars(length(max = 253))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
}

/// A round over the shares of a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnsureStatus {
    /// The value of the annotation that asked for it. Left out: the backend's addresses had changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub requested_at: Option<String>,
    /// Since when. What was asked for meanwhile begins it anew.
    pub started_at: Time,
    /// When it ended. Left out: it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Shares that are exported as they should be.
    #[serde(default)]
    pub done: i64,
    /// Shares that are not, or could not be verified in time; what is the matter is in their conditions.
    #[serde(default)]
    pub failed: i64,
    /// Shares that the round is over: those on it, but for those that are being deleted or are paused.
    #[serde(default)]
    pub total: i64,
}

/// A backend's story in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackendPhase {
    /// It works.
    Available,
    /// It can't be reached, or not used as it is.
    Unavailable,
    /// It is being deleted, and waits for its shares to go.
    Deleting,
}

/// A storage cluster and file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CephStatus {
    /// The cluster's id; recorded at first contact.
    #[schemars(length(max = 64))]
    pub fsid: String,
    /// The file system's name.
    #[schemars(length(max = 253))]
    pub fs_name: String,
    /// The file system's id in its cluster; recorded at first contact.
    #[serde(rename = "fsID")]
    pub fs_id: i64,
    /// The cluster's version.
    #[schemars(length(max = 64))]
    pub version: String,
    /// Monitor addresses that clients mount with, as `host:port`.
    #[schemars(length(max = 32), inner(length(max = 128)))]
    pub monitors: Vec<String>,
}

/// An NFS service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NfsStatus {
    /// Where clients reach it; the first is preferred.
    #[schemars(length(max = 32), inner(length(max = 253)))]
    pub endpoints: Vec<String>,
}

/// Room on a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Capacity {
    /// Bytes in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Size>,
    /// Bytes free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<Size>,
    /// Bytes promised to shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioned: Option<Size>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ceph's list of a cluster's exports, as mgr/nfs writes it, with the longest ids there are.
    fn list(cluster_id: &str, exports: u64) -> String {
        let entry = |export| format!("%url \"rados://.nfs/{cluster_id}/export-{export}\"\n\n");
        (0..exports).map(|n| entry(65_535 - n)).collect()
    }

    #[test]
    fn as_many_exports_as_ceph_reads_back() {
        for length in 1..=128 {
            let id = "c".repeat(length);
            let most = removable_exports(&id);
            assert!(list(&id, most).len() <= EXPORT_LIST, "{length}");
            assert!(list(&id, most + 1).len() > EXPORT_LIST, "{length}");
        }
        assert_eq!(["nfs", "shoal-nfs"].map(removable_exports), [215, 186]);
        assert_eq!(removable_exports(&"c".repeat(128)), 50);
    }

    #[test]
    fn no_admin_can_ask_for_more() {
        let most = |max_exports| {
            let nfs = NfsBackend {
                cluster_id: "shoal-nfs".into(),
                max_exports,
                endpoints: Vec::new(),
            };
            nfs.most_exports()
        };
        assert_eq!([None, Some(50), Some(1000)].map(most), [186, 50, 186]);
    }
}
