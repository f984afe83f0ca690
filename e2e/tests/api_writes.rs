//! What the operator writes to the API server, counted by the API server's audit log.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use shoal_crds::Protocol;
use shoal_e2e::{
    lab::KubernetesRelease,
    simulated_storage::{BACKEND, SimulatedStorage, Write, by_resource, cephx_rule, ip_rule, share_spec},
    storage::scale,
    suite::Suite,
};

static NEWER: Suite<SimulatedStorage> = Suite::new();
static OLDER: Suite<SimulatedStorage> = Suite::new();

/// Shares at rest.
const SHARES: usize = 200;
/// How many seconds they are watched, unless `SHOAL_E2E_REST_SECONDS` says otherwise. A round of looks takes as many times
/// 0.3 s as there are shares.
const AT_REST: u32 = 30;

#[test]
fn of_a_share_and_its_rules() {
    NEWER.run(
        || SimulatedStorage::start(KubernetesRelease::V1_37),
        |s| one_of_each(s, 0),
    );
}

/// Below 1.36 the finalizer is a write of its own.
#[test]
fn of_a_share_and_its_rules_where_the_operator_puts_the_finalizer_on() {
    OLDER.run(
        || SimulatedStorage::start(KubernetesRelease::V1_34),
        |s| one_of_each(s, 1),
    );
}

async fn one_of_each(s: &SimulatedStorage, finalizer: usize) -> Result<()> {
    let _alone = s.alone().await;
    for protocol in [Protocol::NFS, Protocol::CephFS] {
        let ns = s.world.namespace("count").await?;
        let mark = s.audit_mark()?;
        s.ready_share(&ns, "data", protocol).await?;
        let writes = [("patch shares/status", 2), ("patch shares", 1 + finalizer)];
        expect(s, &ns, mark, "a create", &writes).await?;

        let rule = match protocol {
            Protocol::NFS => ip_rule("data", "10.0.0.0/24", "ReadWrite"),
            Protocol::CephFS => cephx_rule("data", None, "ReadWrite"),
        };
        let mark = s.audit_mark()?;
        s.world.rule(&ns, "rule", rule).await?;
        s.until_rule(&ns, "rule", "True", "Active").await?;
        s.until_settled(Some(&ns)).await?;
        until_counted(s, &ns).await?;
        // The share says how many rules are in force; a key is put into a Secret.
        let key = usize::from(protocol == Protocol::CephFS);
        let writes = [
            ("patch shareaccessrules/status", 1),
            ("patch shareaccessrules", finalizer),
            ("patch shares/status", 1),
            ("patch secrets", key),
        ];
        expect(s, &ns, mark, "a rule", &writes).await?;

        let mark = s.audit_mark()?;
        s.change_rule(&ns, "rule", json!({"accessLevel": "ReadOnly"}))
            .await?;
        s.until_settled(Some(&ns)).await?;
        expect(
            s,
            &ns,
            mark,
            "another level",
            &[("patch shareaccessrules/status", 1)],
        )
        .await?;

        let mark = s.audit_mark()?;
        s.change_share(&ns, "data", json!({"size": "2Gi"})).await?;
        s.until_share(&ns, "data", "True", "Available").await?;
        // What it is charged is stored before it grows.
        expect(s, &ns, mark, "a resize", &[("patch shares/status", 2)]).await?;

        let mark = s.audit_mark()?;
        s.delete_rule(&ns, "rule").await?;
        s.until_rule_gone(&ns, "rule").await?;
        until_counted(s, &ns).await?;
        expect(
            s,
            &ns,
            mark,
            "a rule's end",
            &[("patch shareaccessrules", 1), ("patch shares/status", 1)],
        )
        .await?;

        let mark = s.audit_mark()?;
        s.delete_share(&ns, "data").await?;
        s.until_share_gone(&ns, "data").await?;
        expect(s, &ns, mark, "a delete", &[("patch shares", 1)]).await?;
    }
    Ok(())
}

/// Waits until the share's own status counts the rules that there are.
async fn until_counted(s: &SimulatedStorage, ns: &str) -> Result<()> {
    use shoal_crds::{Share, ShareAccessRule};
    let rules = s
        .world
        .api::<ShareAccessRule>(ns)
        .list(&kube::api::ListParams::default())
        .await?
        .items
        .len();
    shoal_e2e::world::until(
        &s.world.api::<Share>(ns),
        "data",
        "counts its rules",
        |share: &Share| {
            share
                .status
                .as_ref()
                .and_then(|s| s.access)
                .is_some_and(|access| usize::try_from(access.total) == Ok(rules))
        },
    )
    .await?;
    Ok(())
}

/// Exactly these writes. One that was refused with a conflict is none: it was decided on a version that this operator's own
/// write had just replaced, and its watch had not told it yet.
async fn expect(
    s: &SimulatedStorage,
    ns: &str,
    mark: u64,
    what: &str,
    expected: &[(&str, usize)],
) -> Result<()> {
    let mut writes: Vec<Write> = s.writes_since(mark).await?;
    // A ShareDeletion, which a plain delete has no need of, is in no namespace.
    let is_its = |write: &Write| write.namespace == ns || write.resource.starts_with("sharedeletions");
    writes.retain(|write| is_its(write) && write.code != 409);
    let expected: BTreeMap<String, usize> = expected
        .iter()
        .filter(|(_, n)| *n > 0)
        .map(|(what, n)| ((*what).to_owned(), *n))
        .collect();
    ensure!(
        by_resource(&writes) == expected,
        "{what} wrote {:?}, not {expected:?}: {writes:#?}",
        by_resource(&writes)
    );
    ensure!(
        writes.iter().all(|write| (200..300).contains(&write.code)),
        "{what}: not all were accepted: {writes:#?}"
    );
    Ok(())
}

#[test]
fn none_at_rest_but_the_lease() {
    NEWER.run(
        || SimulatedStorage::start(KubernetesRelease::V1_37),
        |s| async move {
            let _alone = s.alone().await;
            let ns = s.world.namespace("rest").await?;
            let names: Vec<String> = (0..SHARES).map(|i| format!("s{i}")).collect();
            let protocol = |i: usize| {
                if i.is_multiple_of(2) {
                    Protocol::NFS
                } else {
                    Protocol::CephFS
                }
            };
            let mark = s.audit_mark()?;
            stream::iter(names.iter().enumerate().map(|(i, name)| {
                let ns = &ns;
                async move {
                    let rule = match protocol(i) {
                        Protocol::NFS => ip_rule(name, "10.0.0.0/24", "ReadWrite"),
                        Protocol::CephFS => cephx_rule(name, None, "ReadWrite"),
                    };
                    s.world.share(ns, name, share_spec(protocol(i))).await?;
                    s.world.rule(ns, name, rule).await
                }
            }))
            .buffer_unordered(16)
            .try_collect::<Vec<_>>()
            .await?;
            s.until_settled(Some(&ns)).await?;
            s.check_holdings(Some(&ns)).await?;
            let (made, refused): (Vec<_>, Vec<_>) = s
                .writes_since(mark)
                .await?
                .into_iter()
                .partition(|w| w.code < 300);
            println!(
                "{SHARES} shares with a rule each: {:?}; refused {:?}",
                by_resource(&made),
                by_resource(&refused)
            );

            let count = |what: &str| by_resource(&made).get(what).copied().unwrap_or_default();
            let once = ["patch shares", "patch shareaccessrules/status"].map(count);
            ensure!(
                once == [SHARES; 2] && count("patch secrets") == SHARES / 2,
                "{once:?}"
            );
            // A rule that comes after its share was Ready is one more number in the share's status.
            ensure!((2 * SHARES..=3 * SHARES).contains(&count("patch shares/status")));
            ensure!(
                count("create events") == 0,
                "trouble was told of, and there was none"
            );

            // One that has just started finds all as it should be, and spreads its first looks over a whole round.
            s.kill_operator().await?;
            let (mark, calls) = (s.audit_mark()?, s.cluster(BACKEND).await?.calls()?);
            s.start_operator("").await?;
            tokio::time::sleep(Duration::from_secs(
                scale("SHOAL_E2E_REST_SECONDS", AT_REST).into(),
            ))
            .await;
            let (counts, writes): (Vec<_>, Vec<_>) = s
                .writes_since(mark)
                .await?
                .into_iter()
                .partition(|w| w.resource == "sharebackends/status");
            ensure!(writes.is_empty(), "written at rest: {writes:#?}");
            // How many shares are on it, which a backend tells when it is asked the next time.
            ensure!(counts.len() <= 1, "written at rest: {counts:#?}");
            let calls = s.cluster(BACKEND).await?.calls()? - calls;
            println!("the backend was called {calls} times meanwhile");
            ensure!(
                calls > SHARES as u64 / 4,
                "hardly anything was looked at: {calls} calls"
            );
            s.clear(&ns).await
        },
    );
}
