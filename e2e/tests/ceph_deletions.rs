//! How shares end on real Ceph: refused by a snapshot, by a manager that hangs, through a restart and a failover, with the
//! command in hand taking effect late; and a namespace with many.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::json;
use shoal_crds::{DeletionPhase, Share, ShareAccessRule, ShareDeletion};
use shoal_domain::{owner::subvolume_name, share_deletion};
use shoal_e2e::{
    audit::Command,
    lab::client::Owner,
    storage::{SIZE, Storage, at, cephx_rule, conditions, ip_rule, is_ready, scale, soon, uid},
    suite::Suite,
    world::{Operator, OperatorOptions, condition, eventually, until, until_gone},
};

static SUITE: Suite<Storage> = Suite::new();

/// Shares in the namespace that is deleted as a whole, if `SHOAL_E2E_NAMESPACE_SHARES` does not say otherwise, as `cargo
/// xtask test --faults` does.
const MANY: u32 = 50;
/// How long a namespace of many may take to come, or to go.
const FOR_MANY: Duration = Duration::from_mins(15);
/// How long a user may wait whatever the storage does: the operator's two seconds, and what a busy machine takes.
const AT_ONCE: Duration = Duration::from_secs(10);
/// Rounds within which a manager is stopped with a command in hand that takes something away.
const ROUNDS: u32 = 15;

async fn quota_of_one(suite: &Storage, namespace: &str) -> Result<()> {
    let quota = json!({
        "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareQuota",
        "metadata": {"name": "one", "namespace": namespace}, "spec": {"hard": {"shares": 1}},
    });
    suite.world.apply(&quota).await?;
    Ok(())
}

/// Deletes a share: it is gone at once, whatever the storage does.
async fn let_go(suite: &Storage, namespace: &str, name: &str) -> Result<()> {
    let asked = Instant::now();
    suite.forget_share(namespace, name).await?;
    until_gone(&suite.world.api::<Share>(namespace), name).await?;
    let took = asked.elapsed();
    println!("{name} is gone after {:.2} s", took.as_secs_f64());
    ensure!(took < AT_ONCE, "{name} was waited for for {took:?}");
    Ok(())
}

/// The same, where a quota has one place: the name and the place are free for another at once.
async fn let_go_for_another(suite: &Storage, namespace: &str, name: &str) -> Result<()> {
    let shares = suite.world.api::<Share>(namespace);
    let spec = shares.get(name).await?.spec;
    let asked = Instant::now();
    let_go(suite, namespace, name).await?;
    suite
        .world
        .share(namespace, name, serde_json::to_value(spec)?)
        .await?;
    until(&shares, name, "in the place of the quota", |share: &Share| {
        condition(conditions(share), "QuotaReserved").is_some_and(|(is, _)| is == "True")
    })
    .await?;
    let took = asked.elapsed();
    println!("another {name} has its place after {:.2} s", took.as_secs_f64());
    ensure!(took < AT_ONCE, "another {name} had no place for {took:?}");
    Ok(())
}

/// The leader is killed, and a standby takes over.
async fn fail_over(suite: &Storage) -> Result<Operator> {
    let standby = suite.world.operator(&OperatorOptions::quick("standby")).await?;
    suite.kill_operator().await?;
    standby.wait_until_leading().await?;
    Ok(standby)
}

/// The operator for every scenario is back.
async fn fail_back(suite: &Storage, standby: Operator) -> Result<()> {
    standby.terminate()?;
    suite.start_operator("").await
}

/// Whether a deletion says that it is in trouble, and that clients may still be let in.
fn is_in_trouble(deletion: &ShareDeletion) -> bool {
    let status = deletion.status.clone().unwrap_or_default();
    status.phase == Some(DeletionPhase::Error)
        && status.access_revoked == Some(false)
        && condition(&status.conditions, "Ready").is_some_and(|(is, _)| is == "False")
}

/// Nothing in Ceph is left of a share.
fn nothing_left(suite: &Storage, share: &Share) -> Result<()> {
    ensure!(suite.subvolume(share)?.is_none(), "{} is left", share.name_any());
    ensure!(
        suite.export(share)?.is_none(),
        "{} is still exported",
        share.name_any()
    );
    Ok(())
}

/// Manila 2.1 (a) to (d), 3.4. `subvolume rm` is refused for a snapshot that Shoal knows nothing of.
#[test]
fn a_snapshot_keeps_the_data_and_not_the_user() {
    SUITE.run(Storage::start, async |suite| {
        let _alone = suite.alone().await;
        let ns = suite.world.namespace("snapped").await?;
        quota_of_one(suite, &ns).await?;
        let first = suite.share(&ns, "data", "NFS", "on-cephfs").await?;
        suite
            .rule(&ns, "client", ip_rule("data", "127.70.2.1", "ReadWrite"))
            .await?;
        let source = "127.70.2.1".parse()?;
        let mut client = suite.mount_soon(&first, source, Owner::ROOT).await?;
        soon("to write", async || client.write("/note", b"kept by a snapshot")).await?;
        let mut snapshot = at(&first, "fs subvolume snapshot create");
        snapshot["snap_name"] = json!("by-hand");
        suite.admin.mgr(snapshot)?;

        let_go_for_another(suite, &ns, "data").await?;
        let second = suite.ready(&ns, "data").await?;
        ensure!(uid(&first) != uid(&second));
        let told = suite.until_deletion_waits(&first, &["HasSnapshots"]).await?;
        let status = told.status.clone().context("a status")?;
        ensure!(status.phase == Some(DeletionPhase::Error) && status.access_revoked == Some(true));
        ensure!(
            status.attempts >= Some(1) && status.next_retry_time.is_some(),
            "{status:?}"
        );
        ensure!(suite.export(&first)?.is_none());
        suite.not_let_in(&first, source).await?;

        // A new process goes on with it, and knows of the attempts before.
        suite.kill_operator().await?;
        suite.start_operator("").await?;
        another_attempt(suite, &first, status.attempts).await?;
        // And so does another replica, once the one that leads is lost.
        let known = told_attempts(suite, &first).await?;
        let standby = fail_over(suite).await?;
        another_attempt(suite, &first, known).await?;
        ensure!(suite.subvolume(&first)?.is_some());
        let mut snapshot = at(&first, "fs subvolume snapshot rm");
        snapshot["snap_name"] = json!("by-hand");
        suite.admin.mgr(snapshot)?;
        suite.until_finished(&first).await?;
        nothing_left(suite, &first)?;
        fail_back(suite, standby).await?;
        suite.until_consistent().await
    });
}

/// How often the rest of a share's deletion was tried in vain.
async fn told_attempts(suite: &Storage, share: &Share) -> Result<Option<i32>> {
    let told = suite.until_deletion(share, "there", |_| true).await?;
    Ok(told.status.and_then(|status| status.attempts))
}

/// Waits until it is tried once more, and again in vain.
async fn another_attempt(suite: &Storage, share: &Share, before: Option<i32>) -> Result<()> {
    let tried = suite
        .until_deletion(share, "another attempt", |deletion| {
            let status = deletion.status.as_ref();
            status
                .is_some_and(|status| status.attempts > before && status.phase == Some(DeletionPhase::Error))
        })
        .await?;
    println!(
        "attempts: {before:?}, {:?}",
        tried.status.and_then(|status| status.attempts)
    );
    Ok(())
}

/// The manager hangs before the deletion; an operator dies meanwhile, the next one finds the backend in trouble, and a standby
/// takes over from that.
#[test]
fn a_hanging_manager_keeps_nobody_waiting_and_leaves_nothing_behind() {
    SUITE.run(Storage::start, async |suite| {
        let _alone = suite.alone().await;
        let ns = suite.world.namespace("hung").await?;
        quota_of_one(suite, &ns).await?;
        let first = suite.share(&ns, "data", "CephFS", "on-cephfs").await?;
        suite
            .rule(&ns, "client", cephx_rule("data", "", "ReadWrite"))
            .await?;
        let other_ns = suite.world.namespace("hung-too").await?;
        let other = suite.share(&other_ns, "other", "NFS", "on-second").await?;
        let manager = suite.ceph().daemon("mgr.x")?;
        manager.stop()?;
        let played = async {
            let_go_for_another(suite, &ns, "data").await?;
            let left = suite.until_deletion(&first, "written", |_| true).await?;
            ensure!(share_deletion::may_have_access(&left));
            suite.kill_operator().await?;
            suite.start_operator("").await?;
            let_go(suite, &other_ns, "other").await?;
            for share in [&first, &other] {
                suite.until_deletion(share, "in trouble", is_in_trouble).await?;
            }
            fail_over(suite).await
        }
        .await;
        manager.cont()?;
        let standby = played?;
        for share in [&first, &other] {
            suite.until_finished(share).await?;
            nothing_left(suite, share)?;
        }
        suite.until_backends_ready().await?;
        let second = suite.ready(&ns, "data").await?;
        ensure!(uid(&second) != uid(&first));
        fail_back(suite, standby).await?;
        suite.until_consistent().await
    });
}

/// The manager stops with a command in hand that takes something away, the operator that waits for it dies, and the command
/// takes effect when the manager wakes: beside the next operator, and the share that has the name by then.
#[test]
fn a_command_that_takes_effect_late_leaves_nothing_behind() {
    SUITE.run(Storage::start, async |suite| {
        let _alone = suite.alone().await;
        let ns = suite.world.namespace("late").await?;
        quota_of_one(suite, &ns).await?;
        let manager = suite.ceph().daemon("mgr.x")?;
        let mut rng = SmallRng::seed_from_u64(5);
        let mut in_hand = Vec::new();
        for round in 0..ROUNDS {
            let (protocol, rule) = if round % 2 == 0 {
                ("CephFS", cephx_rule("data", "", "ReadWrite"))
            } else {
                ("NFS", ip_rule("data", "127.70.2.1", "ReadWrite"))
            };
            let first = suite.share(&ns, "data", protocol, "on-cephfs").await?;
            suite.rule(&ns, "client", rule).await?;
            // Ceph writes its log down a moment later.
            let of_leader = eventually("the leader's commands", Duration::from_mins(1), async || {
                let all = suite.commands()?.into_iter().filter(|c| is_for(c, &first));
                let by: BTreeSet<_> = all.map(|c| c.by).collect();
                Ok((!by.is_empty()).then_some(by))
            })
            .await?;

            suite.forget_share(&ns, "data").await?;
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..100))).await;
            manager.stop()?;
            let played = async {
                let shares = suite.world.api::<Share>(&ns);
                until_gone(&shares, "data").await?;
                suite
                    .ask_for_share(&ns, "data", protocol, "on-cephfs", SIZE)
                    .await?;
                let deletions = suite.world.cluster_api::<ShareDeletion>();
                let left = deletions.get_opt(&share_deletion::name(&uid(&first))).await?;
                suite.kill_operator().await?;
                anyhow::Ok(left)
            }
            .await;
            manager.cont()?;
            let left = played?;
            suite.start_operator("").await?;
            suite.until_finished(&first).await?;
            nothing_left(suite, &first)?;
            let second = suite.ready(&ns, "data").await?;
            ensure!(uid(&second) != uid(&first));
            suite.delete_rule(&ns, "client").await?;
            suite.until_consistent().await?;

            // The last that the one that died has sent was not answered, or there would have been another, or nothing left.
            let all = suite.commands()?;
            let last = all
                .iter()
                .rfind(|c| of_leader.contains(&c.by) && is_for(c, &first))
                .map_or("nothing", Command::prefix);
            println!(
                "round {round}: {protocol}, handed on: {}, in hand: {last}",
                left.is_some()
            );
            if left.is_some() && DESTRUCTIVE.contains(&last) {
                in_hand.push(last.to_owned());
            }
            suite.delete_share(&ns, "data").await?;
            if !in_hand.is_empty() && round > 1 {
                return Ok(());
            }
        }
        bail!("in {ROUNDS} rounds the manager never stopped with one of {DESTRUCTIVE:?} in hand")
    });
}

/// Commands that take something away.
const DESTRUCTIVE: [&str; 3] = ["fs subvolume rm", "nfs export rm", "fs subvolume deauthorize"];

/// Whether a command is about a share's subvolume, or its export.
fn is_for(command: &Command, share: &Share) -> bool {
    command.line.contains(&subvolume_name(&uid(share)))
}

/// `kubectl delete ns` with many shares and their rules ends by itself, and leaves nothing.
#[test]
fn a_namespace_with_many_shares_goes() {
    SUITE.run(Storage::start, async |suite| {
        let _alone = suite.alone().await;
        let ns = filled(suite, "going", "on-cephfs").await?;
        end_namespace(suite, &ns).await?;
        nothing_left_of(suite, &ns).await?;
        suite.until_consistent().await
    });
}

/// The same by mistake, of a type that keeps what was deleted: all of it comes back, with its data.
#[test]
fn a_namespace_deleted_by_mistake_is_brought_back() {
    SUITE.run(Storage::start, async |suite| {
        let _alone = suite.alone().await;
        suite
            .world
            .add_type(
                "kept",
                json!({"backendNames": ["cephfs"], "retention": "1h"}),
                false,
            )
            .await?;
        let ns = filled(suite, "mistake", "kept").await?;
        let paths = |shares: Vec<Share>| {
            let path = |share: &Share| {
                let location = &share.status.as_ref()?.export_locations.first()?;
                Some((share.name_any(), location.metadata.subvolume_path.clone()))
            };
            shares.iter().filter_map(path).collect::<BTreeMap<_, _>>()
        };
        let before = suite
            .world
            .api::<Share>(&ns)
            .list(&ListParams::default())
            .await?
            .items;
        // One of them holds a file.
        let one = before
            .iter()
            .find(|share| share.spec.protocol == shoal_crds::Protocol::NFS);
        let one = one.context("an NFS share")?.clone();
        let source = "127.70.3.1".parse()?;
        let mut client = suite.mount_soon(&one, source, Owner::ROOT).await?;
        soon("to write", async || client.write("/note", b"deleted by mistake")).await?;
        let before = paths(before);
        end_namespace(suite, &ns).await?;

        let deletions = suite.world.cluster_api::<ShareDeletion>();
        let of_ns = |deletion: &ShareDeletion| deletion.spec.share_ref.namespace == ns;
        let kept = eventually("all to be kept", FOR_MANY, async || {
            let mut all = deletions.list(&ListParams::default()).await?.items;
            all.retain(of_ns);
            let is_kept =
                |deletion: &ShareDeletion| share_deletion::phase(deletion) == Some(DeletionPhase::Retained);
            Ok((all.len() == before.len() && all.iter().all(is_kept)).then_some(all))
        })
        .await?;
        suite.not_let_in(&one, source).await?;
        suite.until_consistent().await?;

        let again = suite.world.namespace("again").await?;
        stream::iter(&kept)
            .map(|deletion| async {
                let spec = json!({
                    "protocol": deletion.spec.protocol, "size": deletion.spec.size, "shareTypeName": "kept",
                    "source": {"existing": {
                        "backendName": deletion.spec.backend_name, "handle": deletion.spec.handle,
                    }},
                });
                suite
                    .world
                    .share(&again, &deletion.spec.share_ref.name, spec)
                    .await
            })
            .buffer_unordered(8)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        let after = until_all_ready(suite, &again, before.len()).await?;
        ensure!(paths(after) == before, "other data came back");
        suite
            .rule(
                &again,
                "client",
                ip_rule(&one.name_any(), "127.70.3.1", "ReadWrite"),
            )
            .await?;
        let back = suite.world.api::<Share>(&again).get(&one.name_any()).await?;
        let mut client = suite.mount_soon(&back, source, Owner::ROOT).await?;
        let note = soon("to read", async || client.read("/note")).await?;
        ensure!(note == b"deleted by mistake");
        drop(client);
        suite.until_consistent().await?;

        end_namespace(suite, &again).await?;
        let ended = Patch::Merge(json!({"spec": {"retainUntil": "2020-01-01T00:00:00Z"}}));
        for deletion in deletions.list(&ListParams::default()).await? {
            deletions
                .patch(&deletion.name_any(), &PatchParams::default(), &ended)
                .await?;
        }
        nothing_left_of(suite, &again).await?;
        suite.until_consistent().await
    });
}

/// A namespace with many shares of a type, half of them NFS, each with a rule.
async fn filled(suite: &Storage, prefix: &str, share_type: &str) -> Result<String> {
    let many = scale("SHOAL_E2E_NAMESPACE_SHARES", MANY) as usize;
    let ns = suite.world.namespace(prefix).await?;
    let began = Instant::now();
    let (world, namespace) = (&suite.world, ns.as_str());
    stream::iter(0..many)
        .map(|n| async move {
            let (protocol, name) = if n % 2 == 0 { ("NFS", "n") } else { ("CephFS", "c") };
            let name = format!("{name}{n}");
            let spec = json!({"protocol": protocol, "size": SIZE.to_string(), "shareTypeName": share_type});
            world.share(namespace, &name, spec).await?;
            let rule = match protocol {
                "NFS" => ip_rule(&name, "127.70.3.1", "ReadWrite"),
                _ => cephx_rule(&name, "", "ReadWrite"),
            };
            world.rule(namespace, &name, rule).await
        })
        .buffer_unordered(8)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    until_all_ready(suite, &ns, many).await?;
    let rules = suite.world.api::<ShareAccessRule>(&ns);
    eventually("all rules to be in force", FOR_MANY, async || {
        let rules = rules.list(&ListParams::default()).await?.items;
        let active = |rule: &&ShareAccessRule| {
            rule.status.as_ref().and_then(|status| status.phase) == Some(shoal_crds::AccessPhase::Active)
        };
        Ok((rules.iter().filter(active).count() == many).then_some(()))
    })
    .await?;
    println!(
        "{many} shares with a rule each after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    Ok(ns)
}

async fn until_all_ready(suite: &Storage, namespace: &str, many: usize) -> Result<Vec<Share>> {
    let api = suite.world.api::<Share>(namespace);
    eventually("all shares to be ready", FOR_MANY, async || {
        let shares = api.list(&ListParams::default()).await?.items;
        let all = shares.len() == many && shares.iter().all(is_ready);
        Ok(all.then_some(shares))
    })
    .await
}

async fn end_namespace(suite: &Storage, name: &str) -> Result<()> {
    let began = Instant::now();
    let namespaces = Api::<Namespace>::all(suite.world.client.clone());
    namespaces.delete(name, &DeleteParams::default()).await?;
    eventually("the namespace to be gone", FOR_MANY, async || {
        Ok(namespaces.get_opt(name).await?.is_none().then_some(()))
    })
    .await?;
    println!("{name} is gone after {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

async fn nothing_left_of(suite: &Storage, namespace: &str) -> Result<()> {
    let deletions = suite.world.cluster_api::<ShareDeletion>();
    eventually("nothing to be left", FOR_MANY, async || {
        let all = deletions.list(&ListParams::default()).await?;
        let mut left = all
            .iter()
            .filter(|left| left.spec.share_ref.namespace == namespace);
        Ok(left.next().is_none().then_some(()))
    })
    .await
}
