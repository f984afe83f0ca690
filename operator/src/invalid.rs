//! Objects that can't be parsed: told on the object itself, and no hindrance to the others.

use kube::{
    Api, Resource,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::error_boundary::InvalidObject,
};
use serde_json::json;
use shoal_crds::condition::reasons;
use shoal_domain::{Class, Failure, Scope, condition::Conditions, decision::Event};

use crate::{api, context::Context, driver, driver::Kind, error::Error};

/// Says on the object that it can't be parsed, and why. Written once for each generation and process: what its status
/// says now is not known.
pub async fn report<K: Kind>(ctx: &Context, broken: &InvalidObject) -> Result<(), Error> {
    let meta = &broken.metadata;
    let (name, generation) = (
        meta.name.clone().unwrap_or_default(),
        meta.generation.unwrap_or_default(),
    );
    let told = (meta.uid.clone().unwrap_or_default(), generation);
    if ctx.invalid.lock().contains(&told) {
        return Ok(());
    }
    let failure = Failure {
        class: Class::Stalled,
        scope: Scope::Object,
        reason: reasons::INVALID_OBJECT,
        message: format!(
            "the {} can't be understood: {}; correct it",
            K::NAME,
            broken.error
        ),
    };
    let conditions = Conditions::new(&[], generation, ctx.now())
        .failed(&failure)
        .build();
    let resource = ApiResource::erase::<K::Object>(&());
    let patch = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        // The version, for a uid alone does not keep a status from another object of the same name.
        "metadata": {"name": name, "namespace": meta.namespace, "uid": meta.uid, "resourceVersion": meta.resource_version},
        "status": {"observedGeneration": generation, "conditions": conditions},
    });
    let api: Api<DynamicObject> = match &meta.namespace {
        Some(namespace) => Api::namespaced_with(ctx.client.clone(), namespace, &resource),
        None => Api::all_with(ctx.client.clone(), &resource),
    };
    let params = PatchParams::apply(K::MANAGER).force();
    let stored = api::bounded(api.patch_status(&name, &params, &Patch::Apply(&patch))).await?;
    ctx.invalid.lock().insert(told);
    let event = Event {
        reason: failure.reason.into(),
        message: failure.message,
    };
    driver::publish(ctx, &stored.object_ref(&resource), event).await;
    Ok(())
}
