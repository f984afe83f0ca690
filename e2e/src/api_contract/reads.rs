//! Lists, selectors and metadata.

use anyhow::{Context as _, Result, ensure};
use kube::{
    Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams},
};
use serde_json::json;

use super::{equal, made, merged, refused, shoal};

fn share(type_: &str) -> serde_json::Value {
    json!({
        "metadata": {"labels": {"type": type_, "is": "share"}},
        "spec": {"protocol": "NFS", "size": "1Gi", "shareTypeName": type_},
    })
}

fn names(objects: &[DynamicObject]) -> Vec<String> {
    objects.iter().map(ResourceExt::name_any).collect()
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A list in pages shows one moment, whatever happens between the pages.
pub(super) async fn pages(client: &Client, namespace: &str) -> Result<()> {
    let api = shoal(client, "ShareAccessRule", namespace);
    let rest = json!({"spec": {"shareRef": {"name": "s"}, "accessType": "IP", "accessTo": "10.0.0.1"}});
    for name in ["d", "b", "a", "c", "e"] {
        made(client, "ShareAccessRule", namespace, name, &rest).await?;
    }
    let params = ListParams::default().limit(2);
    let first = api.list(&params).await?;
    equal("first page", names(&first.items), strings(&["a", "b"]))?;
    equal("how many are left", first.metadata.remaining_item_count, Some(3))?;
    let token = first.metadata.continue_.context("no token")?;
    api.delete("d", &DeleteParams::default()).await?;
    made(client, "ShareAccessRule", namespace, "cc", &rest).await?;
    merged(&api, "c", &json!({"metadata": {"labels": {"a": "1"}}})).await?;
    let second = api.list(&params.clone().continue_token(&token)).await?;
    equal("second page", names(&second.items), strings(&["c", "d"]))?;
    equal("as it was", second.items[0].labels().len(), 0)?;
    let token = second.metadata.continue_.context("no token")?;
    let third = api.list(&params.continue_token(&token)).await?;
    equal("third page", names(&third.items), strings(&["e"]))?;
    ensure!(
        third.metadata.continue_.is_none_or(|token| token.is_empty()),
        "a page too many"
    );
    equal(
        "versions",
        &third.metadata.resource_version,
        &first.metadata.resource_version,
    )?;
    merged(&api, "d", &json!({"metadata": {"finalizers": null}}))
        .await
        .ok();
    let all = api.list(&ListParams::default()).await?;
    equal(
        "what is there now",
        names(&all.items),
        strings(&["a", "b", "c", "cc", "e"]),
    )
}

pub(super) async fn field_selectors(client: &Client, namespace: &str) -> Result<()> {
    let api = shoal(client, "Share", namespace);
    for (name, type_) in [("a", "x"), ("b", "y"), ("c", "x")] {
        made(client, "Share", namespace, name, &share(type_)).await?;
    }
    let found = async |selector: &str| -> Result<Vec<String>> {
        Ok(names(
            &api.list(&ListParams::default().fields(selector)).await?.items,
        ))
    };
    equal(
        "by a field",
        found("spec.shareTypeName=x").await?,
        strings(&["a", "c"]),
    )?;
    equal(
        "by none of it",
        found("spec.shareTypeName!=x").await?,
        strings(&["b"]),
    )?;
    equal("by name", found("metadata.name=b").await?, strings(&["b"]))?;
    let both = format!("metadata.namespace=={namespace},metadata.name=a");
    equal("by both", found(&both).await?, strings(&["a"]))?;
    equal(
        "by what is not there",
        found("status.phase=").await?,
        strings(&["a", "b", "c"]),
    )?;
    let unknown = api.list(&ListParams::default().fields("spec.size=1Gi")).await;
    refused(unknown, 400, "BadRequest")
}

pub(super) async fn label_selectors(client: &Client, namespace: &str) -> Result<()> {
    let api = shoal(client, "Share", namespace);
    for (name, type_) in [("a", "x"), ("b", "y"), ("c", "x")] {
        made(client, "Share", namespace, name, &share(type_)).await?;
    }
    merged(&api, "c", &json!({"metadata": {"labels": {"is": null}}})).await?;
    let found = async |selector: &str| -> Result<Vec<String>> {
        Ok(names(
            &api.list(&ListParams::default().labels(selector)).await?.items,
        ))
    };
    equal("equal", found("type=x").await?, strings(&["a", "c"]))?;
    equal("unequal", found("type!=x").await?, strings(&["b"]))?;
    equal("two", found("type==x,is=share").await?, strings(&["a"]))?;
    equal("present", found("is").await?, strings(&["a", "b"]))?;
    equal("absent", found("!is").await?, strings(&["c"]))
}

pub(super) async fn metadata_alone(client: &Client, namespace: &str) -> Result<()> {
    let api = shoal(client, "Share", namespace);
    let object = made(client, "Share", namespace, "a", &share("x")).await?;
    let got = api.get_metadata("a").await?;
    equal("one", &got.metadata, &object.metadata)?;
    let kind = got.types.context("no kind")?.kind;
    equal("kind", kind.as_str(), "PartialObjectMetadata")?;
    let listed = api.list_metadata(&ListParams::default().labels("type=x")).await?;
    equal("how many", listed.items.len(), 1)?;
    equal("a list", &listed.items[0].metadata, &object.metadata)?;
    ensure!(
        listed.metadata.resource_version.is_some(),
        "a list without a version"
    );
    Ok(())
}
