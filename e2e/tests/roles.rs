//! What each role may do, as a real API server's authorizer says: docs/roles.md has the table.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use serde_json::json;
use shoal_e2e::{
    lab::LabOptions,
    suite::Suite,
    world::{PATIENCE, SYSTEM_NAMESPACE, World, eventually},
};

static SUITE: Suite<World> = Suite::new();

const TEAM: &str = "team";
const SHOAL: &str = "shoal.storage";
const RBAC: &str = "rbac.authorization.k8s.io";

const VERBS: [&str; 14] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "pin",
    "adopt",
    "extend-beyond-max",
    "operate",
    "override",
    "impersonate",
];

/// Who has a role, and by which binding. The operator's comes with the role.
const USERS: [(&str, &str, &str); 4] = [
    ("view", "RoleBinding", "viewer"),
    ("edit", "RoleBinding", "editor"),
    ("admin", "RoleBinding", "admin-of-a-team"),
    ("shoal-storage-admin", "ClusterRoleBinding", "storage-admin"),
];

/// A resource, and in which namespace if it is in one.
struct Asked {
    group: &'static str,
    resource: &'static str,
    subresource: Option<&'static str>,
    namespace: Option<&'static str>,
}

const fn asked(group: &'static str, resource: &'static str, namespace: Option<&'static str>) -> Asked {
    Asked {
        group,
        resource,
        subresource: None,
        namespace,
    }
}

impl Asked {
    fn name(&self) -> String {
        let name = match self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.resource),
            None => self.resource.to_owned(),
        };
        match self.namespace {
            Some(SYSTEM_NAMESPACE) => format!("{name} in {SYSTEM_NAMESPACE}"),
            _ => name,
        }
    }
}

fn resources() -> Vec<Asked> {
    let kinds = [
        ("shares", Some(TEAM)),
        ("shareaccessrules", Some(TEAM)),
        ("resourcelocks", Some(TEAM)),
        ("sharequotas", Some(TEAM)),
        ("sharetypes", None),
        ("sharebackends", None),
        ("sharedeletions", None),
    ];
    let own = kinds.map(|(resource, namespace)| asked(SHOAL, resource, namespace));
    let statuses = kinds.map(|(resource, namespace)| Asked {
        subresource: Some("status"),
        ..asked(SHOAL, resource, namespace)
    });
    let others = [
        asked("", "secrets", Some(TEAM)),
        asked("", "secrets", Some(SYSTEM_NAMESPACE)),
        asked("events.k8s.io", "events", Some(TEAM)),
        asked("coordination.k8s.io", "leases", Some(TEAM)),
        asked("coordination.k8s.io", "leases", Some(SYSTEM_NAMESPACE)),
        asked(RBAC, "roles", Some(TEAM)),
        asked(RBAC, "roles", Some(SYSTEM_NAMESPACE)),
        asked(RBAC, "rolebindings", Some(TEAM)),
        asked(RBAC, "rolebindings", Some(SYSTEM_NAMESPACE)),
        asked("", "namespaces", None),
        asked("", "nodes", None),
        asked("", "persistentvolumes", None),
        asked(RBAC, "clusterroles", None),
        asked("apiextensions.k8s.io", "customresourcedefinitions", None),
        asked(
            "admissionregistration.k8s.io",
            "validatingadmissionpolicies",
            None,
        ),
    ];
    own.into_iter().chain(statuses).chain(others).collect()
}

/// Whether a user may do this.
async fn may(world: &World, user: &str, verb: &str, asked: &Asked) -> Result<bool> {
    let attributes = ResourceAttributes {
        group: Some(asked.group.into()),
        resource: Some(asked.resource.into()),
        subresource: asked.subresource.map(Into::into),
        namespace: asked.namespace.map(Into::into),
        verb: Some(verb.into()),
        ..ResourceAttributes::default()
    };
    world.may(user, attributes).await
}

/// What a user may do with it, in the order of [`VERBS`].
async fn verbs(world: &World, user: &str, asked: &Asked) -> Result<String> {
    let mut found = Vec::new();
    for verb in VERBS {
        if may(world, user, verb, asked).await? {
            found.push(verb);
        }
    }
    Ok(found.join(" "))
}

async fn bind(world: &World) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM}});
    world.apply(&namespace).await?;
    for (role, kind, user) in USERS {
        let mut binding = json!({
            "apiVersion": format!("{RBAC}/v1"), "kind": kind, "metadata": {"name": user},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": RBAC, "kind": "User", "name": user}],
        });
        if kind == "RoleBinding" {
            binding["metadata"]["namespace"] = TEAM.into();
        }
        world.apply(&binding).await?;
    }
    // A controller puts the parts of view, edit and admin together, one after the other.
    let shares = asked(SHOAL, "shares", Some(TEAM));
    for (user, verb) in [
        ("admin-of-a-team", "deletecollection"),
        ("admin-of-a-team", "create"),
        ("admin-of-a-team", "get"),
        ("editor", "get"),
        ("viewer", "get"),
    ] {
        eventually(&format!("{user} may {verb} shares"), PATIENCE, async || {
            Ok(may(world, user, verb, &shares).await?.then_some(()))
        })
        .await?;
    }
    Ok(())
}

#[test]
fn each_role_may_do_what_the_table_says() {
    let start = async || {
        let options = LabOptions {
            ceph: None,
            ..LabOptions::default()
        };
        World::start(&options).await
    };
    SUITE.run(start, |world| async move {
        bind(world).await?;
        let operator = format!("system:serviceaccount:{SYSTEM_NAMESPACE}:shoal");
        let users: Vec<_> = USERS
            .iter()
            .map(|(_, _, user)| *user)
            .chain([operator.as_str()])
            .collect();
        let rows: Vec<String> = stream::iter(resources())
            .map(|asked| {
                let users = &users;
                async move {
                    let mut row = format!("| {} |", asked.name());
                    for user in users {
                        row = format!("{row} {} |", verbs(world, user, &asked).await?);
                    }
                    anyhow::Ok(row.replace("  ", " "))
                }
            })
            .buffered(8)
            .try_collect()
            .await?;
        let roles: Vec<_> = USERS.iter().map(|(role, _, _)| *role).collect();
        let head = format!(
            "| | {} | shoal-operator |\n|{}\n",
            roles.join(" | "),
            " --- |".repeat(roles.len() + 2)
        );
        let table = format!("{head}{}\n", rows.join("\n"));
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/roles.md");
        let page = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
        ensure!(
            page.contains(&table),
            "docs/roles.md does not have the table as it is:\n{table}"
        );
        Ok(())
    });
}
