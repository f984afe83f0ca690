//! The floors: whoever makes nothing but the writes that shares and rules cost, and the commands that they cost alone.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use anyhow::Result;
use futures::StreamExt;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{Controller, controller::Action, watcher},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shoal_crds::{Protocol, ResourceLock, Share, ShareAccessRule, names::FINALIZER};
use tokio::task::JoinSet;

use super::{
    latency::{Latencies, Settles, timed},
    tenant::{Tenant, change_level, rule_name, share_name},
};
use crate::world::World;

/// A client that makes the writes of a share's coming and going itself: the user's, and the operator's.
pub struct BareClient {
    tenant: Tenant,
    /// Whether the API server puts the finalizer on.
    born_held: bool,
}

impl BareClient {
    /// Makes them as this tenant.
    pub async fn new(world: &World, tenant: Tenant) -> Result<Self> {
        Ok(Self {
            born_held: world.knows_mutating_policies().await?,
            tenant,
        })
    }

    /// Shares come.
    pub async fn make(&self, at_once: usize, shares: usize) -> Result<Latencies> {
        timed(at_once, 0..shares, |n| {
            let (api, share, held) = (
                self.tenant.shares.api().clone(),
                self.tenant.share(n),
                self.born_held,
            );
            async move {
                let share = api.create(&PostParams::default(), &share).await?;
                share.write(&api, held, 1).await
            }
        })
        .await
    }

    /// Each gets a rule.
    pub async fn let_in(&self, at_once: usize, shares: usize) -> Result<Latencies> {
        timed(at_once, 0..shares, |n| {
            let (api, rule, held) = (
                self.tenant.rules.api().clone(),
                self.tenant.rule(n, n),
                self.born_held,
            );
            async move {
                let rule = api.create(&PostParams::default(), &rule).await?;
                rule.write(&api, held, 1).await
            }
        })
        .await
    }

    /// The rules change.
    pub async fn change(&self, at_once: usize, shares: usize) -> Result<Latencies> {
        timed(at_once, 0..shares, |n| {
            let api = self.tenant.rules.api().clone();
            async move {
                let rule = change_level(&api, n).await?;
                rule.write(&api, true, 2).await
            }
        })
        .await
    }

    /// The rules go.
    pub async fn shut_out(&self, at_once: usize, shares: usize) -> Result<Latencies> {
        let api = self.tenant.rules.api();
        delete(api, rule_name, at_once, shares).await
    }

    /// The shares go.
    pub async fn delete(&self, at_once: usize, shares: usize) -> Result<Latencies> {
        let api = self.tenant.shares.api();
        delete(api, share_name, at_once, shares).await
    }
}

async fn delete<K: Settles + Serialize>(
    api: &Api<K>,
    name: fn(usize) -> String,
    at_once: usize,
    times: usize,
) -> Result<Latencies> {
    timed(at_once, 0..times, |n| {
        let api = api.clone();
        async move {
            api.delete(&name(n), &DeleteParams::default()).await?;
            write_finalizers(&api, &name(n), &[]).await
        }
    })
    .await
}

/// kube's `Controller`, making the operator's writes and doing nothing else.
pub struct BareController {
    /// Ends with this.
    _tasks: JoinSet<()>,
}

/// What a [`BareController`] knows.
struct Known<K> {
    api: Api<K>,
    born_held: bool,
    /// Whether it makes the operator's live reads, too.
    reads: bool,
    /// Uids and generations written: its cache may not have heard of it yet.
    written: Mutex<HashSet<(String, i64)>>,
}

impl BareController {
    /// Works for this tenant until it is dropped; with the operator's live reads, or without.
    pub async fn start(world: &World, tenant: &Tenant, reads: bool) -> Result<Self> {
        let born_held = world.knows_mutating_policies().await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(control(tenant.shares.api().clone(), born_held, reads));
        tasks.spawn(control(tenant.rules.api().clone(), born_held, reads));
        Ok(Self { _tasks: tasks })
    }
}

async fn control<K: Written>(api: Api<K>, born_held: bool, reads: bool) {
    let known = Arc::new(Known {
        api: api.clone(),
        born_held,
        reads,
        written: Mutex::default(),
    });
    let reconcile = |object: Arc<K>, known: Arc<Known<K>>| async move {
        // A floor that fails makes its user wait in vain, and is seen.
        let _ = reconcile(&*object, &*known).await;
        Ok::<_, Infallible>(Action::await_change())
    };
    Controller::new(api, watcher::Config::default())
        .run(reconcile, |_, never, _| match *never {}, known)
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn reconcile<K: Written>(object: &K, known: &Known<K>) -> Result<()> {
    let meta = object.meta();
    let name = object.name_any();
    let leaves = meta.deletion_timestamp.is_some();
    if known.reads && (leaves || meta.generation > Some(1)) {
        object.read(&known.api).await?;
    }
    if leaves {
        return write_finalizers(&known.api, &name, &[]).await;
    }
    let generation = meta.generation.unwrap_or_default();
    let version = (object.uid().unwrap_or_default(), generation);
    if known.written.lock().expect("not poisoned").insert(version) {
        object.write(&known.api, known.born_held, generation).await?;
    }
    Ok(())
}

/// A kind that the floors write.
trait Written: Settles + Serialize {
    /// What the operator writes when this generation appears.
    fn write(
        &self,
        api: &Api<Self>,
        born_held: bool,
        generation: i64,
    ) -> impl Future<Output = Result<()>> + Send;

    /// What the operator reads before it changes or takes away what was there.
    fn read(&self, api: &Api<Self>) -> impl Future<Output = Result<()>> + Send;
}

impl Written for Share {
    async fn write(&self, api: &Api<Self>, born_held: bool, _: i64) -> Result<()> {
        let name = self.name_any();
        if !born_held {
            write_finalizers(api, &name, &[FINALIZER]).await?;
        }
        write_status(api, &name, share_status(self.spec.protocol, false)).await?;
        let annotations = json!({
            "apiVersion": Self::api_version(&()),
            "kind": Self::kind(&()),
            "metadata": {"name": name, "annotations": example_annotations()},
        });
        let params = PatchParams::apply("shoal/annotations").force();
        api.patch(&name, &params, &Patch::Apply(&annotations)).await?;
        write_status(api, &name, share_status(self.spec.protocol, true)).await
    }

    async fn read(&self, api: &Api<Self>) -> Result<()> {
        api.get(&self.name_any()).await?;
        if self.metadata.deletion_timestamp.is_some() {
            let namespace = self.namespace().unwrap_or_default();
            let locks: Api<ResourceLock> = Api::namespaced(api.clone().into_client(), &namespace);
            locks.list(&ListParams::default().limit(500)).await?;
        }
        Ok(())
    }
}

impl Written for ShareAccessRule {
    async fn write(&self, api: &Api<Self>, born_held: bool, generation: i64) -> Result<()> {
        let name = self.name_any();
        if !born_held && generation == 1 {
            write_finalizers(api, &name, &[FINALIZER]).await?;
        }
        let conditions = conditions(&["Ready"]);
        let status = json!({"observedGeneration": generation, "phase": "Active", "conditions": conditions});
        write_status(api, &name, status).await
    }

    async fn read(&self, api: &Api<Self>) -> Result<()> {
        let share = &self.spec.share_ref.name;
        let namespace = self.namespace().unwrap_or_default();
        let shares: Api<Share> = Api::namespaced(api.clone().into_client(), &namespace);
        shares.get(share).await?;
        api.list(
            &ListParams::default()
                .fields(&format!("spec.shareRef.name={share}"))
                .limit(500),
        )
        .await?;
        Ok(())
    }
}

async fn write_finalizers<K: Settles>(api: &Api<K>, name: &str, finalizers: &[&str]) -> Result<()> {
    let patch = json!({"metadata": {"finalizers": finalizers}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

async fn write_status<K: Settles>(api: &Api<K>, name: &str, status: Value) -> Result<()> {
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name},
        "status": status,
    });
    let params = PatchParams::apply("shoal/bench").force();
    api.patch_status(name, &params, &Patch::Apply(&patch)).await?;
    Ok(())
}

/// As much text as the operator writes where it writes a sentence.
fn long() -> String {
    "x".repeat(60)
}

fn conditions(types: &[&str]) -> Vec<Value> {
    types
        .iter()
        .map(|type_| {
            json!({
                "type": type_, "status": "True", "reason": "Available", "message": long(),
                "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        })
        .collect()
}

fn share_status(protocol: Protocol, last: bool) -> Value {
    let (long, types) = if last {
        (
            long(),
            &["AccessApplied", "Exported", "Provisioned", "Ready", "Scheduled"][..],
        )
    } else {
        (long(), &["Reconciling", "Scheduled"][..])
    };
    let mut status = json!({
        "observedGeneration": 1, "phase": "Creating", "conditions": conditions(types), "shareTypeName": "bench",
        "backendName": "bench", "fsid": long, "fsName": "bench", "fsID": 1,
        "capabilities": {"shrink": false, "root": {"uid": 0, "gid": 0, "mode": "0755"}, "squash": "None"},
    });
    if last {
        status["phase"] = json!("Available");
        status["handle"] = json!(long);
        status["size"] = json!("1Gi");
        status["access"] = json!({"total": 0, "applied": 0, "failed": 0});
        status["exportLocations"] = json!([{
            "id": "0123456789abcdef", "path": format!("192.0.2.1:/{long}"), "protocol": protocol, "preferred": true,
            "metadata": {"fsName": "bench", "cephFSID": long, "subvolumePath": format!("/{long}/{long}")},
        }]);
    }
    status
}

fn example_annotations() -> Value {
    json!({
        "shoal.storage/export-location": format!("192.0.2.1:/{}", long()),
        "shoal.storage/export-locations": long().repeat(5),
        "shoal.storage/protocol": "NFS",
        "shoal.storage/fs-name": "bench",
        "shoal.storage/mount-options": "fs=bench",
        "shoal.storage/export-revision": "0123456789abcdef",
    })
}

/// The commands of a share's coming and going, sent bare to the mgr one after the other.
#[derive(Debug, Deserialize)]
pub struct BareCommands {
    /// Milliseconds of each making, in order of size.
    pub make: Vec<f64>,
    /// Of each look, its mgr commands alone.
    pub look: Vec<f64>,
    /// Of each removal.
    pub remove: Vec<f64>,
}

impl BareCommands {
    /// Sends them so many times.
    pub fn send(world: &World, filesystem: &str, protocol: Protocol, times: usize) -> Result<Self> {
        let ceph = world.lab.ceph()?;
        let nfs = if protocol == Protocol::NFS {
            ceph.nfs_cluster()
        } else {
            ""
        };
        let script = include_str!("bare_commands.py");
        let words = ["python3", "-c", script, filesystem, nfs, &times.to_string()];
        Ok(serde_json::from_str(&ceph.command(&words)?)?)
    }
}

/// What so many per cent stay below.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or(f64::NAN)
}
