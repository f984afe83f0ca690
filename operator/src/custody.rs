//! Keys that Show locks hide: each in a Secret of the operator's own namespace, which a role lets the lock's owner get, and nobody
//! else. Secret, role and binding have one name, made of the lock's uid. Whoever makes a role must have what it gives: the operator
//! may get Secrets by name, and gives no more.

use k8s_openapi::api::{
    core::v1::Secret,
    rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
};
use kube::{
    Api, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams},
};
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
    let bindings: Api<RoleBinding> = Api::namespaced(ctx.client.clone(), &custody.namespace);
    let binding = bounded(bindings.get_opt(&name)).await?;
    let is_readers = binding.and_then(|binding| binding.subjects) == Some(vec![subject(custody)]);
    let secret = api::secret(&ctx.client, &custody.namespace, &name).await?;
    Ok(secret.filter(|_| is_readers))
}

/// Lets the reader get the Secret, and nobody else. The Secret is stored after that.
pub async fn admit(ctx: &Context, rule: &ShareAccessRule, custody: &Custody) -> Result<(), Error> {
    let metadata = metadata(rule, custody);
    let name = custody.name();
    let may_get = Role {
        metadata: metadata.clone(),
        rules: Some(vec![PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec!["secrets".into()]),
            resource_names: Some(vec![name.clone()]),
            verbs: vec!["get".into()],
            ..PolicyRule::default()
        }]),
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
    bounded(roles.patch(&name, &params, &Patch::Apply(&may_get))).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(ctx.client.clone(), &custody.namespace);
    bounded(bindings.patch(&name, &params, &Patch::Apply(&binding))).await?;
    Ok(())
}

/// Throws away what is kept for the lock that a rule records as the one that hides its key, if there is one.
pub async fn end(ctx: &Context, rule: &ShareAccessRule) -> Result<(), Error> {
    let Some(lock) = rule.status.as_ref().and_then(|status| status.hidden_by.as_ref()) else {
        return Ok(());
    };
    let (name, client, namespace) = (custody_name(lock), &ctx.client, &ctx.custody);
    api::delete_named(&Api::<Secret>::namespaced(client.clone(), namespace), &name).await?;
    api::delete_named(&Api::<RoleBinding>::namespaced(client.clone(), namespace), &name).await?;
    api::delete_named(&Api::<Role>::namespaced(client.clone(), namespace), &name).await
}

/// Whoever looks after the namespace sees what each is for.
pub fn metadata(rule: &ShareAccessRule, custody: &Custody) -> ObjectMeta {
    let of = format!("{}/{}", rule.namespace().unwrap_or_default(), rule.name_any());
    ObjectMeta {
        name: Some(custody.name()),
        namespace: Some(custody.namespace.clone()),
        annotations: Some([(CUSTODY_OF.to_owned(), of)].into()),
        ..ObjectMeta::default()
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
