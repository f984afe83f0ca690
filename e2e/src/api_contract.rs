//! What Shoal relies on in an API server, as scenarios that know nothing but a client: they pass on the real one and on the
//! simulated one, which is why the simulated one can be trusted.

mod apply;
mod events;
mod objects;
mod reads;
mod writes;

use std::fmt::Debug;

use anyhow::{Context as _, Result, bail, ensure};
use futures::future::LocalBoxFuture;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

/// Something that every API server must do. It has a namespace to itself, and names of cluster-scoped objects that begin
/// with the namespace's.
pub struct Scenario {
    /// The function's name.
    pub name: &'static str,
    /// Whether it is about the policy that puts the finalizer on.
    pub needs_policy: bool,
    run: fn(Client, String) -> LocalBoxFuture<'static, Result<()>>,
}

impl Scenario {
    /// Runs it in this namespace, which is new.
    pub async fn run(&self, client: Client, namespace: String) -> Result<()> {
        (self.run)(client, namespace).await.context(self.name)
    }
}

macro_rules! scenarios {
    ($($module:ident: [$($name:ident),+ $(,)?],)+; $policies:ident: [$($policy:ident),+ $(,)?]) => {
        /// All scenarios.
        pub static SCENARIOS: &[Scenario] = &[
            $($(Scenario {
                name: stringify!($name),
                needs_policy: false,
                run: |client, namespace| Box::pin(async move { $module::$name(&client, &namespace).await }),
            },)+)+
            $(Scenario {
                name: stringify!($policy),
                needs_policy: true,
                run: |client, namespace| Box::pin(async move { $policies::$policy(&client, &namespace).await }),
            },)+
        ];
    };
}

scenarios! {
    objects: [
        birth, birth_refused, generated_names, defaults_and_pruning, generations, dry_runs, secrets, types_of_secrets,
        namespaces, leases, recorded_events,
    ],
    writes: [
        missing_objects, replacement, merge_patches, versions_of_patches, identities_of_patches, unchanged_writes,
        status_apart, deletion, finalizers, deletion_preconditions, rebirth, collection_of_dependants,
    ],
    apply: [
        application_creates, application_withdraws, shared_fields, conflicts, maps_by_key, sets_and_atoms,
        undeclared_fields, managers_by_subresource, versions_of_applications, secrets_of_others, ownership_of_updates,
    ],
    reads: [pages, field_selectors, label_selectors, metadata_alone],
    events: [
        changes, beginnings, selected_changes, forgotten_versions, time_outs, metadata_of_changes, deletion_events,
    ],
    ; objects: [born_held]
}

/// The API of a kind of Shoal's.
fn shoal(client: &Client, kind: &str, namespace: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("shoal.storage", "v1alpha1", kind));
    if matches!(kind, "Share" | "ShareAccessRule") {
        Api::namespaced_with(client.clone(), namespace, &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    }
}

fn types(client: &Client) -> Api<DynamicObject> {
    shoal(client, "ShareType", "")
}

/// A document of a kind of Shoal's.
fn document(kind: &str, name: &str, rest: &Value) -> Value {
    let mut document = json!({
        "apiVersion": "shoal.storage/v1alpha1", "kind": kind, "metadata": {"name": name},
    });
    overlay(&mut document, rest);
    document
}

fn overlay(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                overlay(under.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}

/// Creates an object of Shoal's.
async fn made(
    client: &Client,
    kind: &str,
    namespace: &str,
    name: &str,
    rest: &Value,
) -> Result<DynamicObject> {
    let object = serde_json::from_value(document(kind, name, rest))?;
    let api = shoal(client, kind, namespace);
    Ok(api.create(&PostParams::default(), &object).await?)
}

/// Creates a ShareType: the plainest object with a status, that no policy touches.
async fn made_type(client: &Client, name: &str, rest: &Value) -> Result<DynamicObject> {
    let mut all = json!({"spec": {}});
    overlay(&mut all, rest);
    made(client, "ShareType", "", name, &all).await
}

async fn merged(api: &Api<DynamicObject>, name: &str, patch: &Value) -> kube::Result<DynamicObject> {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
}

async fn merged_status(api: &Api<DynamicObject>, name: &str, status: &Value) -> kube::Result<DynamicObject> {
    let patch = json!({"status": status});
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
}

/// Applies to a ShareType.
async fn applied(client: &Client, manager: &str, name: &str, rest: &Value) -> kube::Result<DynamicObject> {
    let params = PatchParams::apply(manager);
    types(client)
        .patch(name, &params, &Patch::Apply(&document("ShareType", name, rest)))
        .await
}

/// The same by force.
async fn forced(client: &Client, manager: &str, name: &str, rest: &Value) -> kube::Result<DynamicObject> {
    let params = PatchParams::apply(manager).force();
    types(client)
        .patch(name, &params, &Patch::Apply(&document("ShareType", name, rest)))
        .await
}

/// Applies a ShareType's status by force.
async fn applied_status(
    client: &Client,
    manager: &str,
    name: &str,
    rest: &Value,
) -> kube::Result<DynamicObject> {
    let params = PatchParams::apply(manager).force();
    types(client)
        .patch_status(name, &params, &Patch::Apply(&document("ShareType", name, rest)))
        .await
}

/// That a request was refused with this code and reason.
fn refused<T: Debug>(answer: kube::Result<T>, code: u16, reason: &str) -> Result<()> {
    match answer {
        Ok(passed) => bail!("passed, and had to be refused with {code} {reason}: {passed:?}"),
        Err(kube::Error::Api(status)) => {
            ensure!(
                (status.code, status.reason.as_str()) == (code, reason),
                "refused with {} {:?}, not with {code} {reason:?}: {}",
                status.code,
                status.reason,
                status.message
            );
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

#[allow(clippy::needless_pass_by_value)] // Most are made on the spot.
fn equal<T: PartialEq + Debug>(what: &str, found: T, wanted: T) -> Result<()> {
    ensure!(found == wanted, "{what}: {found:?}, and not {wanted:?}");
    Ok(())
}

/// The object as JSON.
fn json_of(object: &DynamicObject) -> Result<Value> {
    Ok(serde_json::to_value(object)?)
}

fn version(object: &DynamicObject) -> Result<u64> {
    let version = object.resource_version().context("it has no version")?;
    version.parse().context("a version is no number")
}
