use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Size;

/// What the shares of a namespace may take. Of several in one namespace all hold.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "shoal.storage",
    version = "v1alpha1",
    kind = "ShareQuota",
    plural = "sharequotas",
    shortname = "shquota",
    category = "shoal",
    namespaced,
    status = "ShareQuotaStatus",
    derive = "PartialEq",
    doc = "What the shares of a namespace may take; without one there is no limit. For admins to write: give users no verb on it but get, list and watch. \
           A share that does not fit waits, and gets its place by itself when there is room. A limit below what is used stops growth, and nothing else.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Shares", type_ = "integer", json_path = ".status.used.shares"),
    printcolumn(name = "Of", type_ = "integer", json_path = ".spec.hard.shares"),
    printcolumn(name = "Capacity", type_ = "string", json_path = ".status.used.capacity"),
    printcolumn(name = "Of Capacity", type_ = "string", json_path = ".spec.hard.capacity"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ShareQuotaSpec {
    /// Limits of all shares together.
    #[serde(default)]
    pub hard: QuotaLimits,
    /// Limits of the shares of one type, beside those.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["shareTypeName"]))]
    pub per_share_type: Vec<ShareTypeQuota>,
}

/// Limits. What is left out is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaLimits {
    /// How many shares. 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub shares: Option<i64>,
    /// How large all of them are together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Size>,
    /// How large one may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_share_capacity: Option<Size>,
}

/// Limits of the shares of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShareTypeQuota {
    /// The type. It need not exist yet.
    #[schemars(length(min = 1, max = 253))]
    pub share_type_name: String,
    /// The limits.
    #[serde(default)]
    pub hard: QuotaLimits,
}

/// What is used. For people: what is let in is decided on the charges of the shares themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShareQuotaStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The story in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<QuotaPhase>,
    /// Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What all shares of the namespace are charged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<QuotaUse>,
    /// What the shares of each type with limits are charged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["shareTypeName"]))]
    pub used_per_share_type: Vec<ShareTypeUse>,
}

/// What shares are charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaUse {
    /// How many they are.
    pub shares: i64,
    /// How large they are together. Left out: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Size>,
}

/// What the shares of a type are charged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShareTypeUse {
    /// The type.
    #[schemars(length(max = 253))]
    pub share_type_name: String,
    /// What they are charged.
    pub used: QuotaUse,
}

/// A quota's story in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum QuotaPhase {
    /// What is used is within the limits.
    Active,
    /// A limit is below what is used: nothing may grow until it is not.
    Exceeded,
}
