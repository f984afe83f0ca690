//! Ensuring on real Ceph, with real clients at work: the storage moves under them, and exports go behind Shoal's back.
//!
//! The operator looks for drift by itself once in ten minutes here: what is mended was asked for.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, Result, ensure};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use shoal_crds::{
    AccessPhase, Share, ShareAccessRule, ShareBackend,
    condition::reasons,
    names::{annotations, labels},
};
use shoal_e2e::{
    holdings::path_of,
    lab::{CephOptions, client::Owner},
    storage::{Storage, at, cephx_rule, ip_rule, release, scale},
    suite::Suite,
    workload::{Client, Files},
    world::{OperatorOptions, PATIENCE, eventually, forbidden, requested_at, until},
};

static MOVING: Suite<Storage> = Suite::new();
static BROKEN: Suite<Storage> = Suite::new();

/// How many shares, unless `SHOAL_E2E_ENSURE_SHARES` says otherwise.
const SHARES: u32 = 10;
const USER: &str = "alice";

async fn start() -> Result<Storage> {
    let storage = Storage::without_operator(CephOptions {
        release: release()?,
        ..CephOptions::default()
    })
    .await?;
    start_operator(&storage, "").await?;
    storage.until_backends_ready().await?;
    Ok(storage)
}

async fn start_operator(storage: &Storage, failpoints: &str) -> Result<()> {
    let mut options = OperatorOptions::quick("operator").mending_on_request();
    options.failpoints = failpoints.into();
    storage.start_operator_with(&options).await
}

/// When each export was written last, as RADOS has it.
fn written(storage: &Storage) -> Result<BTreeMap<String, String>> {
    let ceph = storage.ceph();
    let rados = |words: &[&str]| {
        let all = [
            &["rados", "--pool", ".nfs", "--namespace", ceph.nfs_cluster()],
            words,
        ]
        .concat();
        ceph.command(&all)
    };
    let mut stats = BTreeMap::new();
    for name in rados(&["ls"])?.lines().filter(|name| name.starts_with("export-")) {
        stats.insert(name.to_owned(), rados(&["stat", name])?);
    }
    Ok(stats)
}

/// Shares of both protocols by turns, each with a client at work.
async fn in_use(storage: &'static Storage, ns: &str, count: u32) -> Result<Vec<Client>> {
    let source = |n: u32| -> Result<IpAddr> { Ok(format!("127.95.1.{}", n + 1).parse()?) };
    for n in 0..count {
        let (name, protocol) = (format!("s{n:02}"), if n % 2 == 0 { "NFS" } else { "CephFS" });
        let share_type = if n % 4 < 2 { "on-cephfs" } else { "on-second" };
        storage
            .ask_for_share(ns, &name, protocol, share_type, 1 << 27)
            .await?;
        let rule = match protocol {
            "NFS" => ip_rule(&name, &source(n)?.to_string(), "ReadWrite"),
            _ => cephx_rule(&name, &format!("{ns}-{n}"), "ReadWrite"),
        };
        storage.world.rule(ns, &name, rule).await?;
    }
    let mut clients = Vec::new();
    for n in 0..count {
        let name = format!("s{n:02}");
        let share = storage.ready(ns, &name).await?;
        storage.active(ns, &name).await?;
        let files = if n % 2 == 0 {
            let client = storage.mount_soon(&share, source(n)?, Owner::ROOT).await?;
            Files::Nfs {
                storage,
                share: Box::new(share),
                source: source(n)?,
                client,
            }
        } else {
            let (identity, key) = storage.credentials(ns, &name).await?;
            let mount = storage.mount_native(&share, &identity, &key, "")?;
            Files::Native {
                user: mount.user(Owner::ROOT)?,
                mount,
            }
        };
        clients.push(Client::start(&name, files));
    }
    for client in &clients {
        client.until_more(1).await?;
    }
    Ok(clients)
}

async fn shares_in(storage: &Storage, ns: &str) -> Result<Vec<Share>> {
    let api = storage.world.api::<Share>(ns);
    Ok(api.list(&ListParams::default()).await?.items)
}

#[test]
fn the_monitor_and_the_nfs_endpoint_move_and_no_client_notices() {
    MOVING.run(start, async |storage| {
        let ns = storage.world.namespace("moving").await?;
        let count = scale("SHOAL_E2E_ENSURE_SHARES", SHARES);
        let clients = in_use(storage, &ns, count).await?;
        let (before, exports) = (shares_in(storage, &ns).await?, written(storage)?);
        ensure!(exports.len() == before.len() / 2, "{exports:?}");
        let mark = storage.world.audit_mark()?;

        let monitor = tokio::task::block_in_place(|| storage.ceph().move_monitor())?;
        let endpoints: Vec<_> = storage.ceph().nfs_endpoints().iter().rev().map(ToString::to_string).collect();
        let backends = storage.world.cluster_api::<ShareBackend>();
        let moved = Patch::Merge(json!({"spec": {"ceph": {"nfs": {"endpoints": endpoints}}}}));
        for name in storage.ceph().filesystems() {
            backends.patch(name, &PatchParams::default(), &moved).await?;
        }
        let api = storage.world.api::<Share>(&ns);
        for was in &before {
            let host = match was.spec.protocol {
                shoal_crds::Protocol::NFS => &endpoints[0],
                shoal_crds::Protocol::CephFS => &monitor,
            };
            let is = until(&api, &was.name_any(), "has moved", |share: &Share| {
                let location = &share.status.as_ref().unwrap().export_locations[0];
                location.path.starts_with(host)
            })
            .await?;
            let (was, status) = (was.status.clone().unwrap(), is.status.clone().unwrap());
            ensure!(was.export_revision != status.export_revision, "{:?}", status.export_revision);
            ensure!(
                is.annotations().get(annotations::EXPORT_LOCATION) == Some(&status.export_locations[0].path)
            );
        }
        for name in storage.ceph().filesystems() {
            until(&backends, name, "has ended its round", |backend: &ShareBackend| {
                let round = backend.status.as_ref().and_then(|s| s.ensure.clone());
                round.is_some_and(|e| e.finished_at.is_some() && e.failed == 0)
            })
            .await?;
        }
        // What it cost: the location in annotations and status, twice at most, for there were two moves; and nothing in Ceph.
        let mut of: BTreeMap<String, usize> = BTreeMap::new();
        for write in storage.world.writes_since(mark).await?.iter().filter(|w| w.namespace == ns) {
            *of.entry(write.name.clone()).or_default() += 1;
        }
        ensure!(of.values().all(|writes| *writes <= 4), "{of:?}");
        ensure!(written(storage)? == exports, "exports were written again");
        let mut rounds = 0;
        for client in &clients {
            client.until_more(1).await?;
        }
        for client in clients {
            let (done, felt) = client.end().await?;
            ensure!(felt.is_empty(), "a client noticed: {felt:?}");
            rounds += done;
        }
        println!(
            "{count} shares in use followed to {monitor} and {}: {} exports, 0 rewritten; {rounds} rounds of file operations, \
             0 errors",
            endpoints[0],
            exports.len()
        );
        storage.until_consistent().await
    });
}

/// A user who may do with shares and rules whatever users may.
async fn user(storage: &Storage) -> Result<kube::Client> {
    let rules = json!([
        {"apiGroups": ["shoal.storage"], "resources": ["shares", "shareaccessrules"],
         "verbs": ["get", "list", "create", "patch", "delete"]},
    ]);
    storage.world.grant("users", &[USER], &rules).await?;
    let client = storage.world.client_as(USER).await?;
    let shares: Api<Share> = Api::namespaced(client.clone(), "default");
    eventually("the role to be known", PATIENCE, async || {
        Ok(shares.list(&ListParams::default()).await.ok())
    })
    .await?;
    Ok(client)
}

#[test]
fn exports_that_went_behind_its_back_are_made_again_one_by_one() {
    BROKEN.run(start, async |storage| {
        let ns = storage.world.namespace("broken").await?;
        let count = scale("SHOAL_E2E_ENSURE_SHARES", SHARES);
        let user = user(storage).await?;
        for n in 0..count {
            let name = format!("s{n:02}");
            storage
                .ask_for_share(&ns, &name, "NFS", "on-cephfs", 1 << 27)
                .await?;
            let rule = ip_rule(&name, &format!("127.95.2.{}", n + 1), "ReadWrite");
            storage.world.rule(&ns, &name, rule).await?;
        }
        for n in 0..count {
            storage.ready(&ns, &format!("s{n:02}")).await?;
            storage.active(&ns, &format!("s{n:02}")).await?;
        }
        storage.until_consistent().await?;
        storage.kill_operator().await?;
        let (all, cluster_id) = (shares_in(storage, &ns).await?, storage.ceph().nfs_cluster());
        for share in &all {
            let path = path_of(share);
            storage
                .admin
                .mgr(json!({"prefix": "nfs export rm", "cluster_id": cluster_id, "pseudo_path": path}))?;
        }
        let lost = all.last().context("no shares")?;
        let mut remove = at(lost, "fs subvolume rm");
        remove["force"] = json!(true);
        storage.admin.mgr(remove)?;
        let backends = storage.world.cluster_api::<ShareBackend>();
        backends
            .patch("cephfs", &PatchParams::default(), &requested_at("now"))
            .await?;

        // The operator dies with the third in hand: that one is kept as it is for as long as no operator comes.
        start_operator(storage, "after-Fence=2*off->1*return").await?;
        ensure!(storage.operator_dies(PATIENCE).await?, "it did not die");
        let is_fenced = |share: &Share| share.labels().contains_key(labels::ENSURING);
        let fenced: Vec<_> = shares_in(storage, &ns)
            .await?
            .into_iter()
            .filter(is_fenced)
            .collect();
        // As many as are worked on at once.
        ensure!((1..=4).contains(&fenced.len()), "{} at once", fenced.len());
        let held = fenced[0].name_any();
        let (shares, rules): (Api<Share>, Api<ShareAccessRule>) = (
            Api::namespaced(user.clone(), &ns),
            Api::namespaced(user.clone(), &ns),
        );
        let grown = Patch::Merge(json!({"spec": {"size": (1_u64 << 28).to_string()}}));
        let being_ensured = &["is being ensured"];
        forbidden(
            shares.patch(&held, &PatchParams::default(), &grown).await,
            being_ensured,
        )?;
        forbidden(
            shares.delete(&held, &DeleteParams::default()).await,
            being_ensured,
        )?;
        let guest: ShareAccessRule = serde_json::from_value(json!({
            "metadata": {"name": "guest"}, "spec": ip_rule(&held, "127.95.3.1", "ReadOnly"),
        }))?;
        let guest = rules.create(&kube::api::PostParams::default(), &guest).await?;
        ensure!(guest.status.unwrap().phase == Some(AccessPhase::QueuedToApply));

        start_operator(storage, "").await?;
        let round = storage.world.until_ensured("cephfs", "now").await?;
        let (total, failed) = (i64::from(count), 1);
        ensure!(
            round.total == total && round.done == total - failed && round.failed == failed,
            "{round:?}"
        );
        storage
            .until_share(&ns, &lost.name_any(), "False", reasons::VOLUME_MISSING)
            .await?;
        ensure!(storage.subvolume(lost)?.is_none(), "it was made again, empty");
        shares.patch(&held, &PatchParams::default(), &grown).await?;
        storage.active(&ns, "guest").await?;
        storage.ready(&ns, &held).await?;
        for share in shares_in(storage, &ns).await? {
            ensure!(!is_fenced(&share), "{} is kept as it is", share.name_any());
            let export = storage.export(&share)?;
            let wanted = if share.name_any() == held { 2 } else { 1 };
            let clients = |export: &Value| export["clients"].as_array().map_or(0, Vec::len);
            let is_lost = share.name_any() == lost.name_any();
            ensure!(
                export.as_ref().map_or(0, clients) == if is_lost { 0 } else { wanted },
                "{}: {export:?}",
                share.name_any()
            );
        }
        println!(
            "{total} shares whose exports had gone: {} made again, {failed} without its data",
            round.done
        );
        storage.delete_share(&ns, &lost.name_any()).await?;
        storage.delete_rule(&ns, &lost.name_any()).await?;
        storage.until_consistent().await
    });
}
