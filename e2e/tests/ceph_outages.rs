//! Ceph is away, or hangs: shares stay as they are, the backend says why, and work resumes; nothing piles up meanwhile.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use kube::api::ListParams;
use serde_json::json;
use shoal_crds::Share;
use shoal_e2e::{
    lab::{Admin, client::Owner, client::failure},
    storage::{SIZE, Storage, conditions, ip_rule, scale, soon},
    suite::Suite,
    world::eventually,
};

/// Threads, and bytes in memory.
type Use = (u64, u64);

static SUITE: Suite<Storage> = Suite::new();

/// Shares that are there before, and must not feel anything.
async fn bystanders(suite: &Storage, prefix: &str) -> Result<(String, Vec<String>)> {
    let ns = suite.world.namespace(prefix).await?;
    let mut names = Vec::new();
    for (protocol, share_type) in [
        ("NFS", "on-cephfs"),
        ("CephFS", "on-second"),
        ("NFS", "on-second"),
    ] {
        let name = format!("{}-{share_type}", protocol.to_lowercase());
        suite.share(&ns, &name, protocol, share_type).await?;
        names.push(name);
    }
    suite
        .rule(&ns, "client", ip_rule("nfs-on-cephfs", "127.98.0.1", "ReadWrite"))
        .await?;
    Ok((ns, names))
}

/// When each share last changed between Ready and not.
async fn since(suite: &Storage, ns: &str, names: &[String]) -> Result<BTreeMap<String, String>> {
    let shares = suite.world.api::<Share>(ns).list(&ListParams::default()).await?;
    let mut since = BTreeMap::new();
    for share in shares {
        let name = share.metadata.name.clone().unwrap_or_default();
        if !names.contains(&name) {
            continue;
        }
        let ready = conditions(&share)
            .iter()
            .find(|c| c.type_ == "Ready")
            .context("no Ready")?;
        ensure!(ready.status == "True", "{name} is no longer Ready: {ready:?}");
        since.insert(name, serde_json::to_string(&ready.last_transition_time)?);
    }
    Ok(since)
}

fn in_trouble(reason: &str) -> Result<()> {
    let known = ["BackendUnreachable", "CommandTimedOut", "BackendSilent"];
    ensure!(known.contains(&reason), "the reason is {reason}");
    Ok(())
}

#[test]
fn the_manager_is_killed() {
    SUITE.run(Storage::start, async |suite| {
        let _alone = suite.alone().await;
        let (ns, names) = bystanders(suite, "mgr").await?;
        let before = since(suite, &ns, &names).await?;
        let share = suite.world.api::<Share>(&ns).get("nfs-on-cephfs").await?;
        let mut client = suite
            .mount_soon(&share, "127.98.0.1".parse()?, Owner::ROOT)
            .await?;
        soon("the end of the grace period", async || {
            client.write("/note", b"with a manager")
        })
        .await?;
        let mgr = suite.ceph().daemon("mgr.x")?;
        mgr.kill()?;
        suite
            .ask_for_share(&ns, "during", "NFS", "on-cephfs", SIZE)
            .await?;
        suite
            .ask_for_share(&ns, "nfs-on-second", "NFS", "on-second", SIZE * 2)
            .await?;
        for backend in ["cephfs", "second"] {
            let (reason, message) = suite.until_trouble(backend).await?;
            println!("{backend}: {reason}: {message}");
            in_trouble(&reason)?;
        }
        ensure!(since(suite, &ns, &names).await? == before, "a share felt it");
        // Who has mounted works on.
        soon("to write", async || client.write("/note", b"without a manager")).await?;

        let restarted = Instant::now();
        mgr.start()?;
        eventually("the manager to serve", Duration::from_mins(2), async || {
            let stat = suite.admin.mon(json!({"prefix": "mgr stat"}))?;
            Ok((stat["available"] == true).then_some(()))
        })
        .await?;
        println!(
            "the manager serves {:.1} s after its start",
            restarted.elapsed().as_secs_f64()
        );
        // A manager that dies before it has told the monitors of its latest CephFS client leaves a session behind, whose end
        // the metadata server awaits for a minute.
        let resumed = async || {
            suite.until_backends_ready().await?;
            suite.ready(&ns, "during").await?;
            suite.ready(&ns, "nfs-on-second").await
        };
        eventually("work to resume", Duration::from_mins(2), async || {
            Ok(resumed().await.ok())
        })
        .await?;
        println!(
            "work resumed {:.1} s after the manager's start",
            restarted.elapsed().as_secs_f64()
        );
        ensure!(since(suite, &ns, &names).await? == before, "a share felt it");
        suite.until_consistent().await
    });
}

#[test]
fn the_monitor_is_stopped_for_half_a_minute() {
    SUITE.run(Storage::start, async |suite| {
        let _alone = suite.alone().await;
        let (ns, names) = bystanders(suite, "mon").await?;
        let before = since(suite, &ns, &names).await?;
        let mon = suite.ceph().daemon("mon.a")?;
        let stopped = Instant::now();
        mon.stop()?;
        suite
            .ask_for_share(&ns, "during", "CephFS", "on-cephfs", SIZE)
            .await?;
        for backend in ["cephfs", "second"] {
            let (reason, message) = suite.until_trouble(backend).await?;
            println!("{backend}: {reason}: {message}");
            in_trouble(&reason)?;
        }
        // The length of the outage is what is looked at.
        tokio::time::sleep_until((stopped + Duration::from_secs(30)).into()).await;
        ensure!(since(suite, &ns, &names).await? == before, "a share felt it");
        mon.cont()?;
        let resumed = Instant::now();
        suite.until_backends_ready().await?;
        suite.ready(&ns, "during").await?;
        println!(
            "work resumed {:.1} s after the monitor",
            resumed.elapsed().as_secs_f64()
        );
        ensure!(since(suite, &ns, &names).await? == before, "a share felt it");
        suite.until_consistent().await
    });
}

/// One command of module volumes hangs on a metadata server: what of the manager's other commands is answered?
#[test]
fn what_one_hanging_command_holds_up() {
    SUITE.run(Storage::start, async |suite| {
        let _alone = suite.alone().await;
        // Everything has been used once.
        let (ns, _) = bystanders(suite, "measure").await?;
        let mds = suite.active_mds("second")?;
        let create = json!({"prefix": "fs subvolume create", "vol_name": "second", "sub_name": "hangs", "size": 1_000_000});
        let cluster_id = suite.ceph().nfs_cluster();
        let others = [
            ("volumes, the same file system", json!({"prefix": "fs subvolume ls", "vol_name": "second", "group_name": "shoal"})),
            ("volumes, the other file system", json!({"prefix": "fs subvolume ls", "vol_name": "cephfs", "group_name": "shoal"})),
            ("volumes, no file system", json!({"prefix": "fs volume ls"})),
            ("nfs", json!({"prefix": "nfs export ls", "cluster_id": cluster_id, "detailed": true})),
        ];
        let server = suite.ceph().daemon(&mds)?;
        server.stop()?;
        let outcome = async {
            let (hanging, ceph) = (Admin::connect(suite.ceph())?, suite.ceph());
            let mut asked = Vec::new();
            let begun = Instant::now();
            let hangs = tokio::task::spawn_blocking(move || hanging.mgr(create));
            // It is under way once the manager's log of commands says so; a round trip to another module is as good.
            suite.admin.mgr(json!({"prefix": "nfs cluster ls"}))?;
            for (what, command) in others {
                let admin = Admin::connect(ceph)?;
                let asking = tokio::task::spawn_blocking(move || {
                    let asked = Instant::now();
                    let answer = admin.mgr(command);
                    (asked.elapsed(), answer.map(drop).map_err(|e| failure(&e)))
                });
                asked.push((what, asking));
            }
            tokio::time::sleep(Duration::from_secs(6)).await;
            for (what, asking) in &asked {
                let held = if asking.is_finished() { "is answered" } else { "is held up" };
                println!("Ceph {}: while 'fs subvolume create' hangs on {mds}, {what} {held}", release());
            }
            server.cont()?;
            for (what, asking) in asked {
                let (took, answer) = asking.await?;
                println!("  {what}: {answer:?} after {:.2} s", took.as_secs_f64());
            }
            let answer = hangs.await?;
            println!("  the hanging one: {:?} after {:.2} s", answer.map(drop), begun.elapsed().as_secs_f64());
            anyhow::Ok(())
        }
        .await;
        if outcome.is_err() {
            server.cont()?;
        }
        outcome?;
        suite.admin.mgr(json!({"prefix": "fs subvolume rm", "vol_name": "second", "sub_name": "hangs", "force": true}))?;
        // The operator's looks hung too, and go on.
        suite.until_backends_ready().await?;
        suite.ready(&ns, "cephfs-on-second").await?;
        suite.until_consistent().await
    });
}

fn release() -> String {
    shoal_e2e::storage::release()
        .map(|r| r.to_string())
        .unwrap_or_default()
}

/// A metadata server hangs while a share is being made there.
#[test]
fn a_command_that_hangs() {
    SUITE.run(Storage::start, async |suite| {
        let _alone = suite.alone().await;
        let (ns, names) = bystanders(suite, "hang").await?;
        let before = since(suite, &ns, &names).await?;
        let server = suite.active_mds("second")?;
        let server = suite.ceph().daemon(&server)?;
        server.stop()?;
        let outcome = async {
            suite
                .ask_for_share(&ns, "during", "CephFS", "on-second", SIZE)
                .await?;
            let (reason, message) = suite.until_trouble("second").await?;
            println!("second: {reason}: {message}");
            in_trouble(&reason)?;
            ensure!(since(suite, &ns, &names).await? == before, "a share felt it");
            anyhow::Ok(())
        }
        .await;
        server.cont()?;
        outcome?;
        suite.until_backends_ready().await?;
        suite.ready(&ns, "during").await?;
        ensure!(since(suite, &ns, &names).await? == before, "a share felt it");
        suite.until_consistent().await
    });
}

/// Many hangs of three seconds: neither threads nor memory pile up.
#[test]
fn many_hangs() {
    SUITE.run(Storage::start, async |suite| {
        let _alone = suite.alone().await;
        let cycles = scale("SHOAL_E2E_HANGS", 10);
        let (ns, names) = bystanders(suite, "hangs").await?;
        let before = since(suite, &ns, &names).await?;
        let mut weights = Vec::new();
        for cycle in 0..cycles {
            let daemon = if cycle % 2 == 0 {
                "mgr.x".to_owned()
            } else {
                suite.active_mds("second")?
            };
            let daemon = suite.ceph().daemon(&daemon)?;
            daemon.stop()?;
            let size = SIZE + u64::from(cycle + 1) * 4096;
            let asked = async {
                suite
                    .ask_for_share(&ns, "nfs-on-cephfs", "NFS", "on-cephfs", size)
                    .await?;
                suite
                    .ask_for_share(&ns, "cephfs-on-second", "CephFS", "on-second", size)
                    .await
            }
            .await;
            // As long as a hang is to last.
            tokio::time::sleep(Duration::from_secs(3)).await;
            let hanging = suite.operator_weight().await?;
            daemon.cont()?;
            asked?;
            for name in ["nfs-on-cephfs", "cephfs-on-second"] {
                eventually("the new size", Duration::from_mins(1), async || {
                    let share = suite.ready(&ns, name).await?;
                    Ok((suite.quota(&share)? == Some(size)).then_some(()))
                })
                .await?;
            }
            suite.until_backends_ready().await?;
            let weight = suite.operator_weight().await?;
            if cycle < 3 || cycle + 1 == cycles || cycle % 10 == 9 {
                println!(
                    "cycle {}: {} threads and {} KiB while it hangs, {} and {} after",
                    cycle + 1,
                    hanging.0,
                    hanging.1 / 1024,
                    weight.0,
                    weight.1 / 1024
                );
            }
            weights.push((hanging, weight));
        }
        ensure!(since(suite, &ns, &names).await? == before, "a share felt it");
        suite.until_consistent().await?;
        // The first cycles warm up. Then there is a bound, whatever the number of cycles.
        let (early, late) = weights.split_at(weights.len().min(4));
        let most = |of: &[(Use, Use)]| {
            let threads = of.iter().map(|(h, a)| h.0.max(a.0)).max().unwrap_or_default();
            let bytes = of.iter().map(|(h, a)| h.1.max(a.1)).max().unwrap_or_default();
            (threads, bytes)
        };
        if late.is_empty() {
            bail!("too few cycles to say anything");
        }
        let (early, late) = (most(early), most(late));
        println!("at most: {early:?} threads and bytes in the first four cycles, {late:?} afterwards");
        ensure!(late.0 <= early.0 + 8, "threads grow: {early:?}, {late:?}");
        ensure!(late.1 <= early.1 + (8 << 20), "memory grows: {early:?}, {late:?}");
        Ok(())
    });
}
