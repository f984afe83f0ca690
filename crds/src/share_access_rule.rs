use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::validation::{bound_values, immutable, immutable_value, own_keys, set_at_creation};

/// One client that may mount a share.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "shoal.storage",
    version = "v1alpha1",
    kind = "ShareAccessRule",
    plural = "shareaccessrules",
    shortname = "shacc",
    category = "shoal",
    namespaced,
    status = "ShareAccessRuleStatus",
    derive = "PartialEq",
    doc = "One client, or one network of clients, that may mount a share. Without a rule nobody may.",
    selectable = ".spec.shareRef.name",
    printcolumn(name = "Share", type_ = "string", json_path = ".spec.shareRef.name"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.accessType"),
    printcolumn(name = "To", type_ = "string", json_path = ".spec.accessTo"),
    printcolumn(name = "Level", type_ = "string", json_path = ".spec.accessLevel"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
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
    validation = set_at_creation("accessTo", "ShareAccessRule"),
    validation = set_at_creation("accessToSecretRef", "ShareAccessRule"),
    validation = Rule::new("!(has(self.accessTo) && has(self.accessToSecretRef))")
        .message("accessTo and accessToSecretRef exclude each other; keep one"),
    validation = Rule::new("self.accessType != 'IP' || has(self.accessTo) || has(self.accessToSecretRef)")
        .message("a rule of accessType IP needs accessTo or accessToSecretRef; set one, for example accessTo: 10.0.0.0/24").field_path(".accessTo"),
    validation = Rule::new("self.accessType != 'IP' || !has(self.accessTo) || isIP(self.accessTo) || isCIDR(self.accessTo)")
        .message(Message::Expression("\"'\" + self.accessTo + \"' is no IPv4 or IPv6 address or network; write for example 10.0.0.5, 10.0.0.0/24 or fd00::/64\"".into())).field_path(".accessTo"),
    validation = Rule::new("self.accessType != 'IP' || !has(self.accessTo) || !isCIDR(self.accessTo) || cidr(self.accessTo).masked() == cidr(self.accessTo)")
        .message(Message::Expression("self.accessTo + ' has host bits set; write the first address of the network, as in 10.0.0.0/24, or one address without a prefix'".into())).field_path(".accessTo"),
    validation = Rule::new("self.accessType != 'CephX' || !has(self.accessTo) || self.accessTo.matches('^[A-Za-z0-9][A-Za-z0-9_@+=:-]*$')")
        .message(Message::Expression("\"'\" + self.accessTo + \"' is no CephX identity; write ASCII letters, digits and _ @ + = : - beginning with a letter or digit, without dots, spaces or the prefix client., for example alice\"".into())).field_path(".accessTo"),
    validation = Rule::new("self.accessType != 'CephX' || !has(self.accessTo) || !(self.accessTo in ['admin', 'client', 'ganesha', 'mds', 'mgr', 'mon', 'nfs', 'osd'])")
        .message(Message::Expression("self.accessTo + ' is reserved for Ceph itself; choose another identity, or leave accessTo out to get one made'".into())).field_path(".accessTo"),
    validation = Rule::new("self.accessType != 'CephX' || !has(self.accessTo) || !self.accessTo.matches('^shoal-[0-9a-f-]{36}$')")
        .message(Message::Expression("self.accessTo + ' is of the form that Shoal makes for a rule alone; choose another identity, or leave accessTo out to get one made'".into())).field_path(".accessTo"),
    validation = set_at_creation("credentialsSecretName", "ShareAccessRule"),
    validation = Rule::new("!has(self.squash) || self.accessType == 'IP'")
        .message("squash is for NFS clients (accessType IP); remove it").field_path(".squash"),
    validation = Rule::new("!has(self.credentialsSecretName) || self.accessType == 'CephX'")
        .message("only a rule of accessType CephX has credentials; remove credentialsSecretName").field_path(".credentialsSecretName")
)]
pub struct ShareAccessRuleSpec {
    /// The share, in the rule's own namespace.
    #[x_kube(validation = immutable_value("shareRef", ".name", "ShareAccessRule"))]
    pub share_ref: ShareReference,
    /// How the client is known: `IP` on NFS shares, `CephX` on CephFS shares.
    #[x_kube(validation = immutable("accessType", "ShareAccessRule"))]
    pub access_type: AccessType,
    /// The client: an address or network, or a CephX identity. A CephX rule without one gets an identity of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = immutable("accessTo", "ShareAccessRule"))]
    pub access_to: Option<String>,
    /// The Secret that holds the client instead, for one that must not be read by everybody who reads rules. It must
    /// carry the label `shoal.storage/access`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("accessToSecretRef is immutable; create another ShareAccessRule"))]
    pub access_to_secret_ref: Option<SecretKeyReference>,
    /// What the client may do; may change.
    #[serde(default)]
    pub access_level: AccessLevel,
    /// Which of the client's users lose their identity (NFS). Left out: as the share's type says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub squash: Option<Squash>,
    /// Where the CephX key is put. Left out: `<rule>-cephx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    #[x_kube(validation = immutable("credentialsSecretName", "ShareAccessRule"))]
    pub credentials_secret_name: Option<String>,
    /// What users say of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32), transform = bound_values)]
    #[x_kube(validation = own_keys("metadata", &[]))]
    pub metadata: BTreeMap<String, String>,
}

/// A Share of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShareReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One value in a Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretKeyReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in its data.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// The Secret that holds a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CredentialsSecretReference {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its namespace, where that is not the rule's: a Show lock keeps it there, and its owner alone can get it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
}

/// A ResourceLock of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LockReference {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its uid.
    #[schemars(length(max = 64))]
    pub uid: String,
}

/// How a client is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AccessType {
    /// By its address.
    IP,
    /// By its CephX identity and key.
    CephX,
}

/// What a client may do.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum AccessLevel {
    /// Read and write.
    #[default]
    ReadWrite,
    /// Read.
    ReadOnly,
}

/// Which of an NFS client's users lose their identity and act as nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Squash {
    /// None of them.
    #[default]
    None,
    /// Root.
    Root,
    /// All of them.
    All,
}

/// What Shoal knows of a rule. Never holds a key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShareAccessRuleStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The story in one word, in Manila's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<AccessPhase>,
    /// Ready, Reconciling, Stalled, DeletionBlocked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The share it is in force on. A share's name can be used again; its uid can't.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "shareUID")]
    #[schemars(length(max = 64))]
    pub share_uid: Option<String>,
    /// The level in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_level: Option<AccessLevel>,
    /// The identity that Shoal made for it (CephX), if it names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub identity: Option<String>,
    /// The Secret that holds the key (CephX).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<CredentialsSecretReference>,
    /// The Show lock for whose owner the key is, or is about to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_by: Option<LockReference>,
}

/// A rule's story in one word, in Manila's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessPhase {
    /// Not in force yet.
    QueuedToApply,
    /// In force.
    Active,
    /// In force with an earlier level.
    QueuedToUpdate,
    /// Being taken away.
    Denying,
    /// Not in force, and why is in the conditions.
    Error,
}
