//! Keys that Show locks hide: each in a Secret of the operator's own namespace, which a role lets the lock's owner get, and nobody
//! else. Secret, role and binding have one name, made of the lock's uid. Whoever makes a role must have what it gives, and the
//! operator may get Secrets.

use std::fmt::Debug;

use k8s_openapi::api::{
    core::v1::Secret,
    rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use shoal_crds::{
    ShareAccessRule,
    names::{CUSTODY_OF, field_managers},
};
use shoal_domain::share_access_rule::{Custody, custody_name};

use crate::{
    api::{self, bounded},
    context::Context,
    error::Error,
};

const RBAC: &str = "rbac.authorization.k8s.io";

/// The Secret that is kept. None: there is none that its reader, and nobody else, may get.
pub async fn read(ctx: &Context, custody: &Custody) -> Result<Option<Secret>, Error> {
    let name = custody.name();
    let roles: Api<Role> = Api::namespaced(ctx.client.clone(), &custody.namespace);
    let role = bounded(roles.get_opt(&name)).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(ctx.client.clone(), &custody.namespace);
    let binding = bounded(bindings.get_opt(&name)).await?;
    let is_readers = role.and_then(|role| role.rules) == Some(vec![may_get(&name)])
        && binding.and_then(|binding| binding.subjects) == Some(vec![subject(custody)]);
    let secret = api::secret(&ctx.client, &custody.namespace, &name).await?;
    Ok(secret.filter(|_| is_readers))
}

/// Lets the reader get the Secret, and nobody else. The Secret is stored after that.
pub async fn admit(ctx: &Context, rule: &ShareAccessRule, custody: &Custody) -> Result<(), Error> {
    let metadata = metadata(rule, custody);
    let name = custody.name();
    let granted = Role {
        metadata: metadata.clone(),
        rules: Some(vec![may_get(&name)]),
    };
    let binding = RoleBinding {
        metadata,
        role_ref: RoleRef {
            api_group: RBAC.into(),
            kind: "Role".into(),
            name: name.clone(),
        },
        subjects: Some(vec![subject(custody)]),
    };
    let params = PatchParams::apply(field_managers::SECRETS).force();
    let roles: Api<Role> = Api::namespaced(ctx.client.clone(), &custody.namespace);
    bounded(roles.patch(&name, &params, &Patch::Apply(&granted))).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(ctx.client.clone(), &custody.namespace);
    bounded(bindings.patch(&name, &params, &Patch::Apply(&binding))).await?;
    Ok(())
}

/// Throws away what is kept for the lock that a rule records as the one that hides its key, if there is one.
pub async fn end(ctx: &Context, rule: &ShareAccessRule) -> Result<(), Error> {
    let Some(lock) = rule.status.as_ref().and_then(|status| status.hidden_by.as_ref()) else {
        return Ok(());
    };
    let name = custody_name(lock);
    throw_away::<Secret>(ctx, rule, &name).await?;
    throw_away::<RoleBinding>(ctx, rule, &name).await?;
    throw_away::<Role>(ctx, rule, &name).await
}

/// Only what says itself that it is kept for this rule: a status may have been written by somebody else, and the namespace is
/// full of other Secrets.
async fn throw_away<K>(ctx: &Context, rule: &ShareAccessRule, name: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &ctx.custody);
    match bounded(api.get_metadata_opt(name)).await? {
        Some(kept) if kept.annotations().get(CUSTODY_OF) == Some(&custody_of(rule)) => {
            api::delete_found(&api, &kept.metadata).await
        }
        _ => Ok(()),
    }
}

/// Whoever looks after the namespace sees what each is for.
pub fn metadata(rule: &ShareAccessRule, custody: &Custody) -> ObjectMeta {
    ObjectMeta {
        name: Some(custody.name()),
        namespace: Some(custody.namespace.clone()),
        annotations: Some([(CUSTODY_OF.to_owned(), custody_of(rule))].into()),
        ..ObjectMeta::default()
    }
}

fn custody_of(rule: &ShareAccessRule) -> String {
    format!("{}/{}", rule.namespace().unwrap_or_default(), rule.name_any())
}

fn may_get(name: &str) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec!["secrets".into()]),
        resource_names: Some(vec![name.to_owned()]),
        verbs: vec!["get".into()],
        ..PolicyRule::default()
    }
}

fn subject(custody: &Custody) -> Subject {
    Subject {
        api_group: Some(RBAC.into()),
        kind: "User".into(),
        name: custody.reader.clone(),
        namespace: None,
    }
}
