//! What users and admins do.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use shoal_crds::{
    DeletionPhase, Protocol, ResourceLock, Share, ShareAccessRule, ShareBackend, ShareDeletion, ShareQuota,
    ShareType, names,
};
use shoal_domain::{condition::whole_seconds, share_deletion};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    api_server::ApiServer,
    plan::{BACKENDS, Locked, NAMESPACES, Operation, Place, READERS, Setting, TYPES, To, Wish},
    replica::{SYSTEM_NAMESPACE, time},
    wire::Calm,
};
use crate::world::requested_at;

/// All users and admins.
pub struct User {
    server: ApiServer,
    client: Client,
    setting: Setting,
    began: Instant,
    under_way: JoinSet<()>,
}

impl User {
    /// Users of a server.
    pub fn new(server: &ApiServer, setting: Setting) -> Self {
        Self {
            server: server.clone(),
            client: server.client("user", Arc::new(Calm)),
            setting,
            began: Instant::now(),
            under_way: JoinSet::new(),
        }
    }

    /// Makes what is there before users come. The answer is the cluster's uid.
    pub async fn set_up(&self) -> Result<String> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for name in NAMESPACES.iter().chain([&SYSTEM_NAMESPACE]) {
            let namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
            namespaces.create(&PostParams::default(), &namespace).await?;
        }
        for (index, _) in BACKENDS.iter().enumerate() {
            create_backend(&self.client, self.setting, index).await?;
        }
        for (index, _) in TYPES.iter().enumerate() {
            create_type(&self.client, self.setting, index).await?;
        }
        let system = namespaces.get("kube-system").await?;
        system.uid().context("kube-system has no uid")
    }

    /// Begins with an operation. It goes on beside whatever else happens; what can't be done is passed over.
    pub fn start(&mut self, operation: &Operation) {
        let (client, setting, operation) = (self.client.clone(), self.setting, operation.clone());
        let began = self.began;
        self.under_way.spawn(async move {
            drop(carry_out(&client, setting, began, operation).await);
        });
    }

    /// Waits until all that was begun is done.
    pub async fn finish(&mut self) -> Result<()> {
        while let Some(done) = self.under_way.join_next().await {
            done?;
        }
        Ok(())
    }

    /// Has whatever is kept of deleted shares removed.
    pub async fn keep_nothing(&self) -> Result<()> {
        let deletions: Api<ShareDeletion> = Api::all(self.client.clone());
        for deletion in self.server.typed::<ShareDeletion>("sharedeletions") {
            let spec = json!({"abandon": false, "retainUntil": "2000-01-01T00:00:00Z"});
            let patch = Patch::Merge(json!({"spec": spec}));
            // One that is finished meanwhile is as good.
            drop(
                deletions
                    .patch(&deletion.name_any(), &PatchParams::default(), &patch)
                    .await,
            );
        }
        Ok(())
    }

    /// Applies what users have in Git.
    pub async fn apply(&self, documents: &[Value]) -> Result<()> {
        for document in documents {
            let namespace = document["metadata"]["namespace"].as_str().unwrap_or_default();
            let parameters = PostParams::default();
            if document["kind"] == "Share" {
                let share = serde_json::from_value(document.clone())?;
                shares(&self.client, namespace)
                    .create(&parameters, &share)
                    .await?;
            } else {
                let rule = serde_json::from_value(document.clone())?;
                rules(&self.client, namespace).create(&parameters, &rule).await?;
            }
        }
        Ok(())
    }

    /// Changes the spec of one of [`BACKENDS`].
    pub async fn edit_backend(&self, index: usize, spec: Value) -> Result<()> {
        let backends: Api<ShareBackend> = Api::all(self.client.clone());
        let spec = Patch::Merge(json!({"spec": spec}));
        backends
            .patch(BACKENDS[index], &PatchParams::default(), &spec)
            .await?;
        Ok(())
    }

    /// Says what becomes of former data, or takes that back.
    pub async fn decide(&self, share: &Share, verdict: Option<&str>) -> Result<()> {
        let annotation = Patch::Merge(json!({"metadata": {"annotations": {names::FORMER_DATA: verdict}}}));
        shares(&self.client, &share.namespace().unwrap_or_default())
            .patch(&share.name_any(), &PatchParams::default(), &annotation)
            .await?;
        Ok(())
    }

    /// Deletes all shares and rules.
    pub async fn delete_everything(&self) -> Result<()> {
        for rule in self.server.typed::<ShareAccessRule>("shareaccessrules") {
            rules(&self.client, &rule.namespace().unwrap_or_default())
                .delete(&rule.name_any(), &DeleteParams::default())
                .await?;
        }
        for share in self.server.typed::<Share>("shares") {
            let deleted = shares(&self.client, &share.namespace().unwrap_or_default())
                .delete(&share.name_any(), &DeleteParams::default())
                .await;
            // One that waited for the lock of a rule goes with that rule.
            if !matches!(&deleted, Err(kube::Error::Api(status)) if status.is_not_found()) {
                deleted?;
            }
        }
        Ok(())
    }

    /// Deletes all locks.
    pub async fn unlock_everything(&self) -> Result<()> {
        for lock in self.server.typed::<ResourceLock>("resourcelocks") {
            locks(&self.client, &lock.namespace().unwrap_or_default())
                .delete(&lock.name_any(), &DeleteParams::default())
                .await?;
        }
        Ok(())
    }

    /// The share at a place, as it is stored.
    pub fn share(&self, place: Place) -> Option<Share> {
        self.server.typed::<Share>("shares").into_iter().find(|s| {
            s.namespace().as_deref() == Some(place.namespace()) && s.name_any() == place.name("share-")
        })
    }
}

fn shares(client: &Client, namespace: &str) -> Api<Share> {
    Api::namespaced(client.clone(), namespace)
}

fn rules(client: &Client, namespace: &str) -> Api<ShareAccessRule> {
    Api::namespaced(client.clone(), namespace)
}

fn locks(client: &Client, namespace: &str) -> Api<ResourceLock> {
    Api::namespaced(client.clone(), namespace)
}

fn lock(name: &str, place: Place, spec: &Value) -> Result<ResourceLock> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": place.namespace()},
        "spec": spec,
    }))?)
}

async fn create_backend(client: &Client, setting: Setting, index: usize) -> Result<()> {
    let backends: Api<ShareBackend> = Api::all(client.clone());
    let mut backend = json!({
        "metadata": {"name": BACKENDS[index]},
        "spec": {"simulated": {"latencyMilliseconds": setting.latency}},
    });
    if let Some(gib) = setting.room {
        backend["spec"]["simulated"]["capacity"] = format!("{gib}Gi").into();
        backend["spec"]["overcommitRatio"] = 1.into();
    }
    backends
        .create(&PostParams::default(), &serde_json::from_value(backend)?)
        .await?;
    Ok(())
}

async fn create_type(client: &Client, setting: Setting, index: usize) -> Result<()> {
    let types: Api<ShareType> = Api::all(client.clone());
    let share_type = json!({
        "metadata": {"name": TYPES[index]},
        "spec": {
            "shrink": index == 1,
            "deletion": if setting.waits[index] { "Wait" } else { "Deferred" },
            "retention": format!("{}s", setting.retention[index]),
            // The first puts each namespace's own prefix before names.
            "mountPointName": if index == 0 { json!({"enabled": true}) } else { json!({"enabled": true, "prefix": ""}) },
        },
    });
    types
        .create(&PostParams::default(), &serde_json::from_value(share_type)?)
        .await?;
    Ok(())
}

async fn create_share(
    client: &Client,
    place: Place,
    protocol: Protocol,
    share_type: usize,
    gib: u32,
    wish: Option<Wish>,
) -> Result<()> {
    let mut share = json!({
        "metadata": {"name": place.name("share-"), "namespace": place.namespace()},
        "spec": {"protocol": protocol, "size": format!("{gib}Gi"), "shareTypeName": TYPES[share_type]},
    });
    match wish {
        None => {}
        Some(Wish::Pinned(backend)) => {
            share["spec"]["placement"] = json!({"backendName": BACKENDS[backend]});
        }
        Some(Wish::With(other)) => {
            share["spec"]["placement"] = json!({"sameBackendAs": [format!("share-{other}")]});
        }
        Some(Wish::ApartFrom(other)) => {
            share["spec"]["placement"] = json!({"differentBackendFrom": [format!("share-{other}")]});
        }
    }
    shares(client, place.namespace())
        .create(&PostParams::default(), &serde_json::from_value(share)?)
        .await?;
    Ok(())
}

/// The first ShareDeletion that is wanted.
async fn some_deletion(client: &Client, wanted: impl Fn(&ShareDeletion) -> bool) -> Result<ShareDeletion> {
    let deletions: Api<ShareDeletion> = Api::all(client.clone());
    let all = deletions.list(&ListParams::default()).await?;
    let found = all.into_iter().find(wanted);
    found.context("there is none")
}

async fn carry_out(client: &Client, setting: Setting, began: Instant, operation: Operation) -> Result<()> {
    let merge = |spec: Value| Patch::Merge(json!({"spec": spec}));
    let patch = PatchParams::default();
    match operation {
        Operation::CreateShare {
            share,
            protocol,
            share_type,
            gib,
        } => create_share(client, share, protocol, share_type, gib, None).await?,
        Operation::CreateWishing { share, gib, wish } => {
            create_share(client, share, Protocol::NFS, 0, gib, Some(wish)).await?;
        }
        Operation::CreateNamed {
            share,
            share_type,
            name,
        } => {
            let document = json!({
                "metadata": {"name": share.name("share-"), "namespace": share.namespace()},
                "spec": {
                    "protocol": "NFS", "size": "1Gi", "shareTypeName": TYPES[share_type], "mountPointName": name,
                },
            });
            shares(client, share.namespace())
                .create(&PostParams::default(), &serde_json::from_value(document)?)
                .await?;
        }
        Operation::Describe { share, text } => {
            let spec = merge(json!({"metadata": text.map(|text| json!({"said": text}))}));
            shares(client, share.namespace())
                .patch(&share.name("share-"), &patch, &spec)
                .await?;
        }
        Operation::EditPrefix { share_type, prefix } => {
            let types: Api<ShareType> = Api::all(client.clone());
            let spec = merge(json!({"mountPointName": {"prefix": prefix}}));
            types.patch(TYPES[share_type], &patch, &spec).await?;
        }
        Operation::RequestShare { share, token } => {
            shares(client, share.namespace())
                .patch(&share.name("share-"), &patch, &requested_at(&token.to_string()))
                .await?;
        }
        Operation::RequestBackend { backend, token } => {
            let backends: Api<ShareBackend> = Api::all(client.clone());
            backends
                .patch(BACKENDS[backend], &patch, &requested_at(&token.to_string()))
                .await?;
        }
        Operation::PauseShare { share, seconds } => {
            let api = shares(client, share.namespace());
            let annotate =
                |value: Value| Patch::Merge(json!({"metadata": {"annotations": {names::PAUSED: value}}}));
            let name = share.name("share-");
            api.patch(&name, &patch, &annotate("".into())).await?;
            sleep(Duration::from_secs(seconds)).await;
            // Another share may have the name by now, and one that is left alone for ever never comes to rest.
            api.patch(&name, &patch, &annotate(Value::Null)).await?;
        }
        Operation::PauseBackend { backend, seconds } => {
            let backends: Api<ShareBackend> = Api::all(client.clone());
            let field = if seconds % 2 == 0 { "paused" } else { "dryRun" };
            for is_kept in [true, false] {
                let spec = merge(json!({field: is_kept}));
                backends.patch(BACKENDS[backend], &patch, &spec).await?;
                if is_kept {
                    sleep(Duration::from_secs(seconds)).await;
                }
            }
        }
        Operation::Scheduling { backend, enabled } => {
            let backends: Api<ShareBackend> = Api::all(client.clone());
            let spec = merge(json!({"schedulingEnabled": enabled}));
            backends.patch(BACKENDS[backend], &patch, &spec).await?;
        }
        Operation::SetQuota {
            namespace,
            shares,
            gib,
            each,
            of_type,
        } => {
            let quotas: Api<ShareQuota> = Api::namespaced(client.clone(), NAMESPACES[namespace]);
            let quota = json!({
                "apiVersion": "shoal.storage/v1alpha1",
                "kind": "ShareQuota",
                "metadata": {"name": "quota"},
                "spec": {
                    "hard": {
                        "shares": shares, "capacity": gib.map(|gib| format!("{gib}Gi")),
                        "perShareCapacity": each.map(|gib| format!("{gib}Gi")),
                    },
                    "perShareType": of_type.iter().map(|(share_type, most)| {
                        json!({"shareTypeName": TYPES[*share_type], "hard": {"shares": most}})
                    }).collect::<Vec<_>>(),
                },
            });
            let apply = PatchParams::apply("admin").force();
            quotas.patch("quota", &apply, &Patch::Apply(quota)).await?;
        }
        Operation::CreateRetained { share, protocol } => {
            let document = json!({
                "metadata": {"name": share.name("share-"), "namespace": share.namespace()},
                "spec": {
                    "protocol": protocol, "size": "1Gi", "shareTypeName": TYPES[0], "deletionPolicy": "Retain",
                },
            });
            shares(client, share.namespace())
                .create(&PostParams::default(), &serde_json::from_value(document)?)
                .await?;
        }
        Operation::BringBack(share) => {
            let kept = |deletion: &ShareDeletion| {
                share_deletion::phase(deletion).is_some_and(DeletionPhase::is_adoptable)
            };
            let kept = some_deletion(client, kept).await?;
            let document = json!({
                "metadata": {"name": share.name("share-"), "namespace": share.namespace()},
                "spec": {
                    "protocol": kept.spec.protocol, "size": kept.spec.size, "shareTypeName": TYPES[1],
                    "source": {"existing": {"backendName": kept.spec.backend_name, "handle": kept.spec.handle}},
                },
            });
            shares(client, share.namespace())
                .create(&PostParams::default(), &serde_json::from_value(document)?)
                .await?;
        }
        Operation::Abandon { back_after } => {
            let deletions: Api<ShareDeletion> = Api::all(client.clone());
            let name = some_deletion(client, |_| true).await?.name_any();
            for abandon in [true, false] {
                let spec = merge(json!({"abandon": abandon}));
                deletions.patch(&name, &patch, &spec).await?;
                if abandon {
                    sleep(Duration::from_secs(back_after)).await;
                }
            }
        }
        Operation::RetainUntil { seconds } => {
            let deletions: Api<ShareDeletion> = Api::all(client.clone());
            let name = some_deletion(client, |_| true).await?.name_any();
            let until = time(began).saturating_add(SignedDuration::from_secs(seconds))?;
            let spec = merge(json!({"retainUntil": whole_seconds(until).to_string()}));
            deletions.patch(&name, &patch, &spec).await?;
        }
        Operation::DeleteDeletion => {
            let deletions: Api<ShareDeletion> = Api::all(client.clone());
            let name = some_deletion(client, |_| true).await?.name_any();
            deletions.delete(&name, &DeleteParams::default()).await?;
        }
        Operation::ResizeShare { share, gib } => {
            shares(client, share.namespace())
                .patch(
                    &share.name("share-"),
                    &patch,
                    &merge(json!({"size": format!("{gib}Gi")})),
                )
                .await?;
        }
        Operation::DeleteShare(share) => {
            shares(client, share.namespace())
                .delete(&share.name("share-"), &DeleteParams::default())
                .await?;
        }
        Operation::RecreateShare(place) => {
            let api = shares(client, place.namespace());
            let share = api.get(&place.name("share-")).await?;
            api.delete(&share.name_any(), &DeleteParams::default()).await?;
            let anew = Share {
                metadata: kube::api::ObjectMeta {
                    name: share.metadata.name.clone(),
                    namespace: share.metadata.namespace.clone(),
                    ..kube::api::ObjectMeta::default()
                },
                spec: share.spec.clone(),
                status: None,
            };
            // At once when the name is free; gives up when deletion is blocked for long.
            for attempt in 0..300 {
                if api.create(&PostParams::default(), &anew).await.is_ok() {
                    break;
                }
                sleep(Duration::from_millis(if attempt < 50 { 50 } else { 1000 })).await;
            }
        }
        Operation::CreateRule {
            rule,
            share,
            to,
            level,
        } => {
            let mut spec = json!({"shareRef": {"name": format!("share-{share}")}, "accessLevel": level});
            match to {
                To::Ip(address) => {
                    spec["accessType"] = "IP".into();
                    spec["accessTo"] = address.into();
                }
                To::CephX(identity) => {
                    spec["accessType"] = "CephX".into();
                    spec["accessTo"] = identity.into();
                }
                To::Generated => spec["accessType"] = "CephX".into(),
            }
            let document = json!({"metadata": {"name": rule.name("rule-"), "namespace": rule.namespace()}, "spec": spec});
            rules(client, rule.namespace())
                .create(&PostParams::default(), &serde_json::from_value(document)?)
                .await?;
        }
        Operation::ChangeRule { rule, level } => {
            rules(client, rule.namespace())
                .patch(&rule.name("rule-"), &patch, &merge(json!({"accessLevel": level})))
                .await?;
        }
        Operation::DeleteRule(rule) => {
            rules(client, rule.namespace())
                .delete(&rule.name("rule-"), &DeleteParams::default())
                .await?;
        }
        Operation::Lock { lock: place, on } => {
            let (kind, name) = match on {
                Locked::Share(number) => ("Share", format!("share-{number}")),
                Locked::Rule(number) => ("ShareAccessRule", format!("rule-{number}")),
            };
            let spec = json!({"resourceRef": {"kind": kind, "name": name}, "owner": "user"});
            let new = lock(&place.name("lock-"), place, &spec)?;
            locks(client, place.namespace())
                .create(&PostParams::default(), &new)
                .await?;
        }
        Operation::Hide {
            lock: place,
            rule,
            reader,
        } => {
            let resource = json!({"kind": "ShareAccessRule", "name": format!("rule-{rule}")});
            let spec = json!({"resourceRef": resource, "action": "Show", "owner": READERS[reader]});
            let new = lock(&place.name("lock-"), place, &spec)?;
            locks(client, place.namespace())
                .create(&PostParams::default(), &new)
                .await?;
        }
        Operation::Unlock(place) => {
            locks(client, place.namespace())
                .delete(&place.name("lock-"), &DeleteParams::default())
                .await?;
        }
        Operation::Relock { from, to } => {
            let api = locks(client, from.namespace());
            let old = api.get(&from.name("lock-")).await?;
            let new = lock(&format!("lock-{to}"), from, &serde_json::to_value(&old.spec)?)?;
            let (create, delete, name) = (PostParams::default(), DeleteParams::default(), old.name_any());
            let (made, gone) = tokio::join!(api.create(&create, &new), api.delete(&name, &delete));
            made?;
            gone?;
        }
        Operation::DeleteSecret(rule) => {
            let secrets: Api<Secret> = Api::namespaced(client.clone(), rule.namespace());
            secrets
                .delete(&format!("{}-cephx", rule.name("rule-")), &DeleteParams::default())
                .await?;
        }
        Operation::EditType { share_type, shrink } => {
            let types: Api<ShareType> = Api::all(client.clone());
            types
                .patch(TYPES[share_type], &patch, &merge(json!({"shrink": shrink})))
                .await?;
        }
        Operation::DeleteType {
            share_type,
            back_after,
        } => {
            let types: Api<ShareType> = Api::all(client.clone());
            types.delete(TYPES[share_type], &DeleteParams::default()).await?;
            sleep(Duration::from_secs(back_after)).await;
            create_type(client, setting, share_type).await?;
        }
        Operation::EditBackend { backend, at_once } => {
            let backends: Api<ShareBackend> = Api::all(client.clone());
            backends
                .patch(
                    BACKENDS[backend],
                    &patch,
                    &merge(json!({"maxConcurrentOperations": at_once})),
                )
                .await?;
        }
        Operation::DeleteBackend { backend, back_after } => {
            let backends: Api<ShareBackend> = Api::all(client.clone());
            backends
                .delete(BACKENDS[backend], &DeleteParams::default())
                .await?;
            sleep(Duration::from_secs(back_after)).await;
            if backend == 0 {
                let freed = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                drop(backends.patch(BACKENDS[backend], &patch, &freed).await);
            }
            for _ in 0..300 {
                if create_backend(client, setting, backend).await.is_ok() {
                    break;
                }
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
    Ok(())
}
