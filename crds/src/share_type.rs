use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::validation::shown;
use crate::{DeletionMode, DeletionPolicy, Period, Protocol, RootDirectory, SizeLimits, Squash};

/// The menu that users choose from.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "shoal.storage",
    version = "v1alpha1",
    kind = "ShareType",
    plural = "sharetypes",
    shortname = "shtype",
    category = "shoal",
    status = "ShareTypeStatus",
    derive = "PartialEq",
    doc = "What shares of this type are, who may make them and where. A share copies what it needs at its creation.",
    printcolumn(
        name = "Default",
        type_ = "string",
        json_path = ".metadata.annotations.shoal\\.storage/is-default-share-type"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Backends", type_ = "string", json_path = ".status.backendNames"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.backendNames) && has(self.backendSelector))")
        .message("backendNames and backendSelector exclude each other; keep one, or neither for every backend")
)]
pub struct ShareTypeSpec {
    /// The ShareBackends that may hold its shares, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub backend_names: Option<Vec<String>>,
    /// The ShareBackends that may hold its shares, by label. With neither this nor `backendNames`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_selector: Option<LabelSelector>,
    /// The protocols it offers. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub protocols: Vec<Protocol>,
    /// How small and how large its shares may be.
    #[serde(default, skip_serializing_if = "SizeLimits::is_unlimited")]
    pub size: SizeLimits,
    /// Whether its shares may shrink.
    #[serde(default)]
    pub shrink: bool,
    /// Whether snapshots may be made of its shares.
    #[serde(default)]
    pub snapshots: bool,
    /// Whether shares may be made from those.
    #[serde(default)]
    pub create_from_snapshot: bool,
    /// Owner, group and mode of a new share's root directory, so that a Pod that is not root can write.
    #[serde(default)]
    pub root: RootDirectory,
    /// Squash of access rules that name none.
    #[serde(default)]
    pub squash: Squash,
    /// Whether its shares may say what NFS clients find them under.
    #[serde(default, skip_serializing_if = "MountPointNames::are_refused")]
    pub mount_point_name: MountPointNames,
    /// What a Share does when it is deleted and its backend does not accept that at once.
    #[serde(default)]
    pub deletion: DeletionMode,
    /// How long the data of a deleted share is kept, without access. A Share with `spec.source.existing` brings it back.
    #[serde(default, skip_serializing_if = "Period::is_zero")]
    pub retention: Period,
    /// What becomes of the data of a deleted share that says nothing of it.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// The namespaces that may use it, by label. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespaces: Option<LabelSelector>,
}

/// Whether shares may have readable NFS paths, and how those begin.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPointNames {
    /// Whether they may.
    #[serde(default)]
    pub enabled: bool,
    /// What comes before each share's own name, without a separator: letters, digits, `-`, `_`, and the variables `{namespace}` and
    /// `{name}` of the Share. Left out: `{namespace}-`. Empty: nothing, so that all namespaces share one set of names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    #[x_kube(validation = Rule::new("self.matches('^([A-Za-z0-9_-]|[{]namespace[}]|[{]name[}])*$')").message(Message::Expression(
        format!(
            "\"prefix: '\" + {} + \"' may have letters, digits, '-', '_' and the variables {{namespace}} and {{name}} alone; leave the rest out\"",
            shown("self")
        )
    )))]
    pub prefix: Option<String>,
}

impl MountPointNames {
    /// Whether none is allowed, and nothing else is said.
    pub fn are_refused(&self) -> bool {
        *self == Self::default()
    }
}

/// Labels that must all be there with these values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Label to value.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 32), transform = bound_label_values)]
    pub match_labels: BTreeMap<String, String>,
}

fn bound_label_values(schema: &mut schemars::Schema) {
    if let Some(values) = schema
        .get_mut("additionalProperties")
        .and_then(serde_json::Value::as_object_mut)
    {
        values.insert("maxLength".into(), 63.into());
    }
}

impl LabelSelector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// What Shoal knows of a type.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShareTypeStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The story in one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ShareTypePhase>,
    /// Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The ShareBackends it selects now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 253)))]
    pub backend_names: Vec<String>,
}

/// A type's story in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ShareTypePhase {
    /// Shares can be made from it.
    Available,
    /// It selects no backend.
    Unavailable,
}
