//! Two replicas: one acts, the other waits and takes over. Never both.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use rustix::process::Signal;
use serde_json::json;
use shoal_crds::{Protocol, Share};
use shoal_e2e::{
    audit::one_after_the_other,
    lab::KubernetesRelease,
    simulated_storage::{BACKEND, SimulatedStorage, cephx_rule, ip_rule, share_spec},
    suite::Suite,
    world::{Operator, OperatorOptions, PATIENCE, SYSTEM_NAMESPACE, World, eventually},
};
use tokio::sync::MutexGuard;

static SUITE: Suite<SimulatedStorage> = Suite::new();

fn run<S: Future<Output = Result<()>>>(scenario: impl FnOnce(&'static SimulatedStorage) -> S) {
    SUITE.run(
        || SimulatedStorage::without_operator(KubernetesRelease::V1_37),
        scenario,
    );
}

/// As the operators of this suite are told.
const LEASE: Duration = Duration::from_secs(15);
/// Shares that are made while the leader goes.
const SHARES: usize = 12;

/// A leader, and a replica that waits. Their names are new: a Lease is never theirs by an accident of names.
async fn two<'a>(s: &'a SimulatedStorage, case: &str) -> Result<(MutexGuard<'a, ()>, Operator, Operator)> {
    let alone = s.alone().await;
    let start = async |name: &str| {
        let mut options: OperatorOptions = s.operator_options(&format!("{case}-{name}"));
        options.flags.retain(|flag| !flag.starts_with("--lease-seconds"));
        options.flags.push(format!("--lease-seconds={}", LEASE.as_secs()));
        s.world.operator(&options).await
    };
    let leader = start("one").await?;
    leader.wait_until_leading().await?;
    s.until_backend(BACKEND, "True", "Available").await?;
    let standby = start("two").await?;
    // It has read the Lease, and left it alone.
    eventually("the standby to wait", PATIENCE, async || {
        Ok(standby.log()?.contains("waiting for the Lease").then_some(()))
    })
    .await?;
    Ok((alone, leader, standby))
}

async fn holder(world: &World) -> Result<String> {
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), SYSTEM_NAMESPACE);
    Ok(leases
        .get("shoal")
        .await?
        .spec
        .and_then(|spec| spec.holder_identity)
        .unwrap_or_default())
}

async fn until_holder(s: &SimulatedStorage, name: &str) -> Result<Duration> {
    let since = Instant::now();
    eventually(&format!("{name} to hold the Lease"), PATIENCE, async || {
        Ok((holder(&s.world).await? == name).then_some(()))
    })
    .await?;
    Ok(since.elapsed())
}

/// Work that takes the backend a while.
async fn work(s: &SimulatedStorage, ns: &str) -> Result<()> {
    for i in 0..SHARES {
        let protocol = if i % 2 == 0 {
            Protocol::NFS
        } else {
            Protocol::CephFS
        };
        let share = format!("s{i}");
        let rule = match protocol {
            Protocol::NFS => ip_rule(&share, "10.0.0.0/24", "ReadWrite"),
            Protocol::CephFS => cephx_rule(&share, None, "ReadWrite"),
        };
        s.world.share(ns, &share, share_spec(protocol)).await?;
        s.world.rule(ns, &share, rule).await?;
    }
    Ok(())
}

/// Each command of the backend takes a while.
async fn slow(s: &SimulatedStorage) -> Result<()> {
    s.set_latency(50).await?;
    s.until_backend_is_current().await
}

/// Waits until work has begun, and is not done.
async fn midway(s: &SimulatedStorage) -> Result<()> {
    eventually("the first subvolumes", PATIENCE, async || {
        Ok((s.holdings().await?.subvolumes.len() >= 3).then_some(()))
    })
    .await?;
    ensure!(
        s.unsettled(None).await?.is_some(),
        "it was done too soon to be interrupted"
    );
    Ok(())
}

#[test]
fn the_standby_takes_over_from_a_leader_that_was_killed() {
    run(|s| async move {
        let (_alone, leader, standby) = two(s, "killed").await?;
        slow(s).await?;
        let mark = s.audit_mark()?;
        let ns = s.world.namespace("killed").await?;
        work(s, &ns).await?;
        midway(s).await?;
        leader.kill()?;
        let took = until_holder(s, "killed-two").await?;
        ensure!(took < LEASE * 2, "it took {took:?}");
        s.until_settled(None).await?;
        s.check_holdings(None).await?;
        one_after_the_other(&s.writes_since(mark).await?)?;
        s.set_latency(0).await?;
        s.clear(&ns).await?;
        standby.terminate()
    });
}

#[test]
fn a_leader_that_is_asked_to_end_hands_over_at_once() {
    run(|s| async move {
        let (_alone, leader, standby) = two(s, "ended").await?;
        slow(s).await?;
        let mark = s.audit_mark()?;
        let ns = s.world.namespace("ended").await?;
        work(s, &ns).await?;
        midway(s).await?;
        let asked = Instant::now();
        leader.terminate()?;
        let ended = asked.elapsed();
        // What was in flight is finished; nothing is left to come when the Lease is given back.
        ensure!(s.holdings().await?.pending == 0);
        let took = until_holder(s, "ended-two").await?;
        ensure!(
            ended + took < LEASE,
            "it took {ended:?} to end and {took:?} to take over"
        );
        s.until_settled(None).await?;
        s.check_holdings(None).await?;
        one_after_the_other(&s.writes_since(mark).await?)?;
        s.set_latency(0).await?;
        s.clear(&ns).await?;
        // The last one leaves a free Lease.
        standby.terminate()?;
        ensure!(
            holder(&s.world).await?.is_empty(),
            "the Lease is still held by {}",
            holder(&s.world).await?
        );
        Ok(())
    });
}

#[test]
fn a_leader_that_slept_through_its_lease_does_nothing_more() {
    run(|s| async move {
        let (_alone, leader, standby) = two(s, "slept").await?;
        let mark = s.audit_mark()?;
        let ns = s.world.namespace("slept").await?;
        s.ready_share(&ns, "before", Protocol::NFS).await?;
        leader.process().signal(Signal::STOP)?;
        until_holder(s, "slept-two").await?;
        standby.wait_until_leading().await?;
        let share = s.ready_share(&ns, "after", Protocol::NFS).await?;
        // It wakes up with work waiting in its watches.
        s.change_share(&ns, "before", json!({"size": "2Gi"})).await?;
        s.world
            .rule(&ns, "rule", ip_rule("after", "10.0.0.1", "ReadWrite"))
            .await?;
        leader.process().signal(Signal::CONT)?;
        s.delete_share(&ns, "before").await?;
        leader.wait_for_end()?;
        s.until_share_gone(&ns, "before").await?;
        s.until_settled(None).await?;
        s.check_holdings(None).await?;
        one_after_the_other(&s.writes_since(mark).await?)?;
        ensure!(holder(&s.world).await? == "slept-two" && s.held(&share).await?.is_some());
        s.clear(&ns).await?;
        standby.terminate()
    });
}

#[test]
fn a_standby_only_waits() {
    run(|s| async move {
        let (_alone, leader, standby) = two(s, "waits").await?;
        let mark = s.audit_mark()?;
        let ns = s.world.namespace("waits").await?;
        s.ready_share(&ns, "data", Protocol::NFS).await?;
        s.clear(&ns).await?;
        let writers: std::collections::BTreeSet<_> =
            s.writes_since(mark).await?.into_iter().map(|w| w.by).collect();
        ensure!(writers.len() == 1, "{writers:?} wrote");
        // One that waits ends at once, and takes nothing with it.
        standby.terminate()?;
        ensure!(holder(&s.world).await? == "waits-one");
        let share: Share = s.ready_share(&ns, "data", Protocol::NFS).await?;
        ensure!(s.held(&share).await?.is_some());
        s.clear(&ns).await?;
        leader.terminate()
    });
}
