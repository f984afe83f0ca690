//! Reads and writes on the API server: each bounded in time, each write on exactly the version it was decided on.

use std::{fmt::Debug, future::Future, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
    core::PartialObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use shoal_crds::{
    ResourceLock, Share, ShareAccessRule, ShareBackend, ShareDeletion, ShareQuota, ShareType,
    names::{FINALIZER, LOCKED_BY, field_managers, labels},
};

use crate::error::Error;

/// The longest that one request may take. kube's own retries are off: a write that timed out may have been stored, and
/// only a fresh pass can tell.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be silent before it counts as broken: a watch hears of the server each minute, if only by a
/// bookmark. Without it, an operator whose connection has vanished hears nothing, for ever, and does not notice.
pub const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// What Shoal's kinds have in common.
pub trait Object:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static
{
    /// The API of the kind; of a namespaced kind in this namespace.
    fn api(client: &Client, namespace: Option<&str>) -> Api<Self>;
}

impl Object for ShareBackend {
    fn api(client: &Client, _: Option<&str>) -> Api<Self> {
        Api::all(client.clone())
    }
}

impl Object for ShareType {
    fn api(client: &Client, _: Option<&str>) -> Api<Self> {
        Api::all(client.clone())
    }
}

impl Object for ShareDeletion {
    fn api(client: &Client, _: Option<&str>) -> Api<Self> {
        Api::all(client.clone())
    }
}

impl Object for ShareQuota {
    fn api(client: &Client, namespace: Option<&str>) -> Api<Self> {
        Api::namespaced(client.clone(), namespace.unwrap_or_default())
    }
}

impl Object for Share {
    fn api(client: &Client, namespace: Option<&str>) -> Api<Self> {
        Api::namespaced(client.clone(), namespace.unwrap_or_default())
    }
}

impl Object for ShareAccessRule {
    fn api(client: &Client, namespace: Option<&str>) -> Api<Self> {
        Api::namespaced(client.clone(), namespace.unwrap_or_default())
    }
}

impl Object for ResourceLock {
    fn api(client: &Client, namespace: Option<&str>) -> Api<Self> {
        Api::namespaced(client.clone(), namespace.unwrap_or_default())
    }
}

/// Bounds a request.
pub async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    tokio::time::timeout(REQUEST_TIMEOUT, request)
        .await
        .map_err(|_| Error::ApiTimedOut(REQUEST_TIMEOUT))?
        .map_err(Error::from)
}

/// The API that an object lives in.
pub fn of<K: Object>(client: &Client, object: &K) -> Api<K> {
    K::api(client, object.namespace().as_deref())
}

/// Reads the object from the API server itself, and makes sure that it is this very one.
pub async fn live<K: Object>(client: &Client, object: &K) -> Result<K, Error> {
    let found = bounded(of(client, object).get(&object.name_any())).await?;
    if found.uid() == object.uid() {
        Ok(found)
    } else {
        Err(Error::Gone)
    }
}

/// Reads an object by name from the API server itself. None: there is none.
pub async fn find<K: Object>(
    client: &Client,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<K>, Error> {
    bounded(K::api(client, namespace).get_opt(name)).await
}

/// The metadata alone, of one that can't be parsed, too. None: there is none.
pub async fn find_metadata<K: Object>(
    client: &Client,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<PartialObjectMeta<K>>, Error> {
    bounded(K::api(client, namespace).get_metadata_opt(name)).await
}

/// Creates an object. One that is there already is a [`Error::Conflict`].
pub async fn create<K: Object>(client: &Client, object: &K) -> Result<K, Error> {
    bounded(of(client, object).create(&PostParams::default(), object)).await
}

/// Deletes exactly this version of exactly this object. The answer is what is left of it while somebody holds it.
pub async fn delete<K: Object>(client: &Client, object: &K) -> Result<Option<K>, Error> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: object.uid(),
            resource_version: object.resource_version(),
        }),
        ..DeleteParams::default()
    };
    let left = bounded(of(client, object).delete(&object.name_any(), &params)).await?;
    Ok(left.left())
}

/// Changes a spec that is the operator's own to write, on exactly this version.
pub async fn patch_spec<K: Object>(client: &Client, object: &K, spec: Value) -> Result<K, Error> {
    let patch = json!({
        "metadata": {"uid": object.uid(), "resourceVersion": object.resource_version()},
        "spec": spec,
    });
    let api = of(client, object);
    bounded(api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(&patch))).await
}

/// Stores a status by server-side apply.
pub async fn store_status<K: Object, S: Serialize>(
    client: &Client,
    manager: &str,
    object: &K,
    status: &S,
) -> Result<K, Error> {
    let mut patch = identified(object);
    patch["status"] = serde_json::to_value(status).map_err(|e| Error::Bug(e.to_string()))?;
    let params = PatchParams::apply(manager).force();
    bounded(of(client, object).patch_status(&object.name_any(), &params, &Patch::Apply(&patch))).await
}

/// Writes annotations by server-side apply: those written before and not named now go.
pub async fn store_annotations<K: Object>(
    client: &Client,
    object: &K,
    annotations: &std::collections::BTreeMap<String, String>,
) -> Result<K, Error> {
    let mut patch = identified(object);
    patch["metadata"]["annotations"] = json!(annotations);
    let params = PatchParams::apply(field_managers::ANNOTATIONS).force();
    bounded(of(client, object).patch(&object.name_any(), &params, &Patch::Apply(&patch))).await
}

/// Puts the finalizer on.
pub async fn add_finalizer<K: Object>(client: &Client, object: &K) -> Result<K, Error> {
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.into());
    store_finalizers(client, object, &finalizers).await
}

/// Takes the finalizer off. An object that is gone already is as good.
pub async fn remove_finalizer<K: Object>(client: &Client, object: &K) -> Result<(), Error> {
    let finalizers: Vec<_> = object
        .finalizers()
        .iter()
        .filter(|f| *f != FINALIZER)
        .cloned()
        .collect();
    match store_finalizers(client, object, &finalizers).await {
        Ok(_) | Err(Error::Gone) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A merge patch: whoever put the finalizer on (a policy, the user, this operator), the list is replaced as a whole, on
/// exactly the version it was read from.
async fn store_finalizers<K: Object>(client: &Client, object: &K, finalizers: &[String]) -> Result<K, Error> {
    let patch = json!({
        "metadata": {
            "uid": object.uid(),
            "resourceVersion": object.resource_version(),
            "finalizers": finalizers,
        },
    });
    let params = PatchParams {
        field_manager: Some(field_managers::FINALIZER.into()),
        ..PatchParams::default()
    };
    bounded(of(client, object).patch(&object.name_any(), &params, &Patch::Merge(&patch))).await
}

/// Marks an object as locked, with the values of label and annotation, or takes the mark off.
pub async fn mark_locked<K: Object>(
    client: &Client,
    object: &K,
    mark: Option<(&str, &str)>,
) -> Result<K, Error> {
    let (label, by) = mark.unzip();
    let marks = json!({"labels": {labels::LOCKED: label}, "annotations": {LOCKED_BY: by}});
    store_marks(client, field_managers::LOCKS, object, marks).await
}

/// Marks a share as one that is being ensured, or takes the mark off.
pub async fn mark_ensuring(client: &Client, share: &Share, is_ensured: bool) -> Result<Share, Error> {
    let marks = json!({"labels": {labels::ENSURING: is_ensured.then_some("")}});
    store_marks(client, field_managers::ENSURING, share, marks).await
}

/// Marks a lock as enforced on the object with this uid.
pub async fn mark_enforced(client: &Client, lock: &ResourceLock, uid: &str) -> Result<ResourceLock, Error> {
    let marks = json!({"labels": {labels::ENFORCED: uid}});
    store_marks(client, field_managers::LOCKS, lock, marks).await
}

/// A merge patch of metadata, on exactly this version: null takes a key away, wherever it came from.
async fn store_marks<K: Object>(
    client: &Client,
    manager: &str,
    object: &K,
    mut marks: Value,
) -> Result<K, Error> {
    marks["uid"] = json!(object.uid());
    marks["resourceVersion"] = json!(object.resource_version());
    let params = PatchParams {
        field_manager: Some(manager.into()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({"metadata": marks}));
    bounded(of(client, object).patch(&object.name_any(), &params, &patch)).await
}

/// What an apply needs to hit exactly this version of exactly this object.
fn identified<K: Object>(object: &K) -> Value {
    json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {
            "name": object.name_any(),
            "namespace": object.namespace(),
            "uid": object.uid(),
            "resourceVersion": object.resource_version(),
        },
    })
}

/// Lists from the API server itself (no resourceVersion: a quorum read), in pages.
pub async fn list_live<K: Object>(
    client: &Client,
    namespace: &str,
    field_selector: &str,
) -> Result<Vec<K>, Error> {
    let api = K::api(client, Some(namespace));
    let mut params = ListParams::default().fields(field_selector).limit(500);
    let mut items = Vec::new();
    loop {
        let page = bounded(api.list(&params)).await?;
        items.extend(page.items);
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params = params.continue_token(&token),
            _ => return Ok(items),
        }
    }
}

/// Names, as `namespace/name`, of some objects wherever they are, from the API server itself; of those that can't be
/// parsed, too.
pub async fn some_names<K: Object>(
    client: &Client,
    field_selector: &str,
    most: usize,
) -> Result<Vec<String>, Error> {
    let params = ListParams::default()
        .fields(field_selector)
        .limit(u32::try_from(most).unwrap_or(u32::MAX));
    let found = bounded(Api::<K>::all(client.clone()).list_metadata(&params)).await?;
    let name = |object: &PartialObjectMeta<K>| match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    };
    Ok(found.items.iter().map(name).collect())
}

/// Reads a Secret by name. None: there is none.
pub async fn secret(client: &Client, namespace: &str, name: &str) -> Result<Option<Secret>, Error> {
    bounded(Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name)).await
}

/// Deletes what was found, in whatever version, and nothing else of its name. Gone already is as good.
pub async fn delete_found<K: Clone + DeserializeOwned + Debug>(
    api: &Api<K>,
    found: &ObjectMeta,
) -> Result<(), Error> {
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: found.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match bounded(api.delete(found.name.as_deref().unwrap_or_default(), &params)).await {
        Ok(_) | Err(Error::Gone) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The text under a Secret's key.
pub fn secret_text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = &secret.data.as_ref()?.get(key)?.0;
    String::from_utf8(bytes.clone()).ok()
}
