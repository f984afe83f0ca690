use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::validation::{immutable, immutable_value};

/// Somebody's word that an object must stay, or its key not be read.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "shoal.storage",
    version = "v1alpha1",
    kind = "ResourceLock",
    plural = "resourcelocks",
    shortname = "rlock",
    category = "shoal",
    namespaced,
    status = "ResourceLockStatus",
    derive = "PartialEq",
    doc = "Keeps a Share or a ShareAccessRule from being deleted, whoever asks (Delete), or the key of a ShareAccessRule from being read by others than its \
           owner (Show). Of several Delete locks on one object all have to go first; of several Show locks the oldest counts. Only its owner, or who has the \
           verb override on resourcelocks, may change or delete it.",
    printcolumn(name = "Kind", type_ = "string", json_path = ".spec.resourceRef.kind"),
    printcolumn(name = "Resource", type_ = "string", json_path = ".spec.resourceRef.name"),
    printcolumn(name = "Action", type_ = "string", json_path = ".spec.action"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".spec.owner"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".spec.reason", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.action != 'Show' || self.resourceRef.kind == 'ShareAccessRule'")
    .message(Message::Expression("'action: Show is for a ShareAccessRule, and a ' + self.resourceRef.kind + ' has no key; name the rule whose key is to be hidden, or write Delete'".into()))
    .field_path(".action"))]
pub struct ResourceLockSpec {
    /// What it locks, in its own namespace.
    #[x_kube(validation = immutable_value("resourceRef", ".name", "ResourceLock"))]
    pub resource_ref: LockedResourceReference,
    /// What must not be done to it.
    #[serde(default)]
    #[x_kube(validation = immutable("action", "ResourceLock"))]
    pub action: LockAction,
    /// Why, for whoever meets the lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1023), regex(pattern = r"^[^\x00-\x1f\x7f]*$"))]
    pub reason: Option<String>,
    /// The user whose lock it is: who creates it, by the name that the API server knows. From Kubernetes 1.36 on it may be
    /// left out. Another's takes the verb `override` on resourcelocks.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = immutable("owner", "ResourceLock"))]
    pub owner: String,
    /// On whose behalf. All but `User` takes the verb `override` on resourcelocks.
    #[serde(default)]
    #[x_kube(validation = immutable("context", "ResourceLock"))]
    pub context: LockContext,
}

/// An object of the lock's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockedResourceReference {
    /// Its kind.
    pub kind: LockedKind,
    /// Its name. It need not exist yet.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// This very object. Left out: whichever has the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub uid: Option<String>,
}

/// Kinds that can be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum LockedKind {
    /// A Share.
    Share,
    /// A ShareAccessRule, and with it its Share.
    ShareAccessRule,
}

impl LockedKind {
    /// As written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Share => "Share",
            Self::ShareAccessRule => "ShareAccessRule",
        }
    }
}

/// What a lock forbids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LockAction {
    /// To delete the object; of a ShareAccessRule also to change its spec.
    #[default]
    Delete,
    /// To read the key of a ShareAccessRule. It is a new one, which the lock's owner alone can read.
    Show,
}

/// On whose behalf a lock was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LockContext {
    /// A user's own.
    #[default]
    User,
    /// An admin's.
    Admin,
    /// A service's that acts for users.
    Service,
}

/// What Shoal knows of a lock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceLockStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The story in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<LockPhase>,
    /// Ready, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Whether its object is marked as locked, or its key hidden. What it forbids to delete it holds from its creation on; marked, it
    /// costs the API server less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforced: Option<bool>,
}

/// A lock's story in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LockPhase {
    /// There is no such object, or its key is not hidden; the conditions say why.
    Pending,
    /// Its object is marked as locked, or its key hidden.
    Enforced,
    /// Its object is being deleted, and waits for the lock to go.
    Holding,
}
