//! The operator dies after every step and before every write of a status, is started again, and the backend then holds
//! exactly what the objects say.
//!
//! On Kubernetes 1.34, where there are more steps: the operator puts finalizers on.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PatchParams},
};
use serde_json::{Value, json};
use shoal_crds::{Protocol, Share, ShareAccessRule};
use shoal_domain::owner::Tag;
use shoal_e2e::{
    holdings::path_of,
    lab::KubernetesRelease,
    simulated_storage::{BACKEND, SimulatedStorage, cephx_rule, ip_rule},
    suite::Suite,
    world::{PATIENCE, eventually, requested_at},
};

/// What is asked of the operator when it dies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    /// A share, with two rules that came before it.
    Create,
    /// A new size.
    Resize,
    /// Another level of a rule.
    Level,
    /// One more rule.
    AddRule,
    /// One rule less.
    DeleteRule,
    /// No share any more; its rules stay.
    Delete,
    /// A key's Secret is lost.
    LoseSecret,
    /// Access is taken away behind its back, and somebody asks that the share be verified.
    Ensure,
}

/// What happens between the death and the next start.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meanwhile {
    Nothing,
    /// The share is deleted.
    Delete,
    /// The share's type changes.
    ChangeType,
}

/// The points at which it dies: after the n-th pass of a point.
const CREATE: &[&str] = &[
    "after-AddFinalizer",
    "before-status",
    "after-Record",
    "after-Create",
    "after-ConfirmRules",
    "after-HoldRules",
    "after-Export",
    "before-rule-status",
    "before-rule-status 2",
    "after-ReportRules",
    "after-Annotate",
    "before-status 2",
];
const RESIZE: &[&str] = &["after-Look", "after-Resize", "before-status"];
const LEVEL: &[&str] = &[
    "after-Look",
    "after-ConfirmRules",
    "after-Export",
    "before-rule-status",
    "after-ReportRules",
];
const ADD_RULE: &[&str] = &[
    "after-Look",
    "after-ConfirmRules",
    "after-HoldRules",
    "after-Export",
    "before-rule-status",
    "after-ReportRules",
    "before-status",
];
const DELETE_RULE: &[&str] = &[
    "after-Look",
    "after-ConfirmRules",
    "after-Export",
    "after-ReportRules",
    "before-status",
];
const DELETE: &[&str] = &[
    "after-Look",
    "after-Unexport",
    "after-Remove",
    "after-RemoveFinalizer",
];
/// Points that only native CephFS comes by, where there are keys.
const CREATE_KEYS: &[&str] = &["after-Secret", "after-Secret 2"];
const ADD_KEY: &[&str] = &["after-Secret"];
const LOSE_SECRET: &[&str] = &[
    "after-Look",
    "after-ConfirmRules",
    "after-FetchKeys",
    "after-Secret",
    "after-ReportRules",
];

const ENSURE: &[&str] = &[
    "after-Look",
    "after-Fence",
    "before-status",
    "after-Record",
    "after-Export",
    "after-LiftFence",
    "before-status 2",
];

/// A world for each protocol, so that two scenarios go at once.
static NFS: Suite<SimulatedStorage> = Suite::new();
static CEPHFS: Suite<SimulatedStorage> = Suite::new();

/// A scenario on both protocols, or on one.
macro_rules! dies_while {
    ($scenario:ident: $($protocol:ident $world:ident $name:ident),+) => {
        mod $scenario {
            use super::*;

            $(#[test]
            fn $name() {
                let start = || SimulatedStorage::start(KubernetesRelease::V1_34);
                $world.run(start, |s| super::$scenario(s, Protocol::$protocol));
            })+
        }
    };
    ($($scenario:ident),+) => {
        $(dies_while!($scenario: NFS NFS nfs, CephFS CEPHFS cephfs);)+
    };
}

dies_while!(
    making_a_share,
    making_a_share_that_is_then_deleted,
    making_a_share_whose_type_then_changes
);
dies_while!(
    growing,
    changing_a_rule,
    adding_a_rule,
    taking_a_rule_away,
    ensuring,
    deleting_a_share
);
dies_while!(the_backend_is_half_way);
dies_while!(making_good_a_lost_secret: CephFS CEPHFS cephfs);

async fn making_a_share(s: &SimulatedStorage, protocol: Protocol) -> Result<()> {
    at(
        s,
        protocol,
        Change::Create,
        &[CREATE, keys(protocol, CREATE_KEYS)],
        &[Meanwhile::Nothing],
    )
    .await
}

async fn making_a_share_that_is_then_deleted(s: &SimulatedStorage, protocol: Protocol) -> Result<()> {
    at(
        s,
        protocol,
        Change::Create,
        &[CREATE, keys(protocol, CREATE_KEYS)],
        &[Meanwhile::Delete],
    )
    .await
}

async fn making_a_share_whose_type_then_changes(s: &SimulatedStorage, protocol: Protocol) -> Result<()> {
    at(s, protocol, Change::Create, &[CREATE], &[Meanwhile::ChangeType]).await
}

async fn growing(s: &SimulatedStorage, protocol: Protocol) -> Result<()> {
    at(
        s,
        protocol,
        Change::Resize,
        &[RESIZE],
        &[Meanwhile::Nothing, Meanwhile::Delete],
    )
    .await
}

async fn changing_a_rule(s: &SimulatedStorage, protocol: Protocol) -> Result<()> {
    at(
        s,
        protocol,
        Change::Level,
        &[LEVEL],
        &[Meanwhile::Nothing, Meanwhile::Delete],
    )
    .await
}

async fn adding_a_rule(s: &SimulatedStorage, protocol: Protocol) -> Result<()> {
    let points = [ADD_RULE, keys(protocol, ADD_KEY)];
    at(
        s,
        protocol,
        Change::AddRule,
        &points,
        &[Meanwhile::Nothing, Meanwhile::Delete],
    )
    .await
}

async fn taking_a_rule_away(s: &SimulatedStorage, protocol: Protocol) -> Result<()> {
    at(
        s,
        protocol,
        Change::DeleteRule,
        &[DELETE_RULE],
        &[Meanwhile::Nothing, Meanwhile::Delete],
    )
    .await
}

async fn ensuring(s: &SimulatedStorage, protocol: Protocol) -> Result<()> {
    at(
        s,
        protocol,
        Change::Ensure,
        &[ENSURE],
        &[Meanwhile::Nothing, Meanwhile::Delete],
    )
    .await
}

async fn deleting_a_share(s: &SimulatedStorage, protocol: Protocol) -> Result<()> {
    at(s, protocol, Change::Delete, &[DELETE], &[Meanwhile::Nothing]).await
}

async fn making_good_a_lost_secret(s: &SimulatedStorage, protocol: Protocol) -> Result<()> {
    at(
        s,
        protocol,
        Change::LoseSecret,
        &[LOSE_SECRET],
        &[Meanwhile::Nothing, Meanwhile::Delete],
    )
    .await
}

/// Killed in the midst of a step: its first command has taken effect, and its second has not.
async fn the_backend_is_half_way(s: &SimulatedStorage, protocol: Protocol) -> Result<()> {
    let _alone = s.alone().await;
    let ns = s.world.namespace("half").await?;
    let rule = match protocol {
        Protocol::NFS => ip_rule("data", "10.0.0.0/24", "ReadWrite"),
        Protocol::CephFS => cephx_rule("data", None, "ReadWrite"),
    };
    s.world.rule(&ns, "rule", rule).await?;
    let slow = async || {
        s.set_latency(300).await?;
        s.until_backend_is_current().await
    };
    let again = async || {
        s.kill_operator().await?;
        s.set_latency(0).await?;
        s.start_operator("").await
    };

    slow().await?;
    s.world
        .share(&ns, "data", json!({"protocol": protocol, "size": "1Gi"}))
        .await?;
    let untagged = async || {
        Ok(s.holdings()
            .await?
            .subvolumes
            .values()
            .any(|held| held.tag == Tag::Absent)
            .then_some(()))
    };
    eventually("a subvolume without a tag", PATIENCE, untagged).await?;
    again().await?;
    s.until_settled(Some(&ns)).await?;
    s.check_holdings(None).await.context("made")?;

    slow().await?;
    s.delete_share(&ns, "data").await?;
    eventually("a subvolume that nobody is let in to", PATIENCE, async || {
        let held = s.holdings().await?;
        Ok((held.exports.is_empty() && held.identities.is_empty()).then_some(()))
    })
    .await?;
    again().await?;
    s.until_share_gone(&ns, "data").await?;
    s.clear(&ns).await?;
    s.check_holdings(None).await.context("deleted")
}

/// Points that only shares with keys come by.
fn keys(protocol: Protocol, points: &'static [&'static str]) -> &'static [&'static str] {
    match protocol {
        Protocol::NFS => &[],
        Protocol::CephFS => points,
    }
}

/// The operator dies at each of the points, and each of these things happens meanwhile.
async fn at(
    s: &SimulatedStorage,
    protocol: Protocol,
    change: Change,
    points: &[&[&str]],
    meanwhile: &[Meanwhile],
) -> Result<()> {
    for point in points.iter().copied().flatten() {
        for meanwhile in meanwhile {
            let _alone = s.alone().await;
            die(s, protocol, change, point, *meanwhile)
                .await
                .with_context(|| {
                    format!("{protocol:?} {change:?}, dead at {point}, meanwhile {meanwhile:?}")
                })?;
        }
    }
    Ok(())
}

const OLD_MODE: &str = "0750";
const NEW_MODE: &str = "0770";

async fn set_type(s: &SimulatedStorage, mode: &str, squash: &str) -> Result<()> {
    s.world
        .add_type(
            "crash",
            json!({"shrink": true, "root": {"mode": mode}, "squash": squash}),
            false,
        )
        .await
}

async fn die(
    s: &SimulatedStorage,
    protocol: Protocol,
    change: Change,
    point: &str,
    meanwhile: Meanwhile,
) -> Result<()> {
    let ns = s.world.namespace("crash").await?;
    set_type(s, OLD_MODE, "None").await?;
    let rules: [(&str, Value); 2] = match protocol {
        Protocol::NFS => [
            ("one", ip_rule("data", "10.0.0.0/24", "ReadWrite")),
            ("two", ip_rule("data", "fd00::5", "ReadOnly")),
        ],
        Protocol::CephFS => [
            ("one", cephx_rule("data", Some("crasher"), "ReadWrite")),
            ("two", cephx_rule("data", None, "ReadOnly")),
        ],
    };
    let spec = json!({"protocol": protocol, "size": "1Gi", "shareTypeName": "crash"});
    let [one, two] = rules;
    let make_rule = async |(name, spec): (&str, Value)| s.world.rule(&ns, name, spec).await;
    if change == Change::Create {
        // The rules have been told that they wait: what is left for them is the share's pass.
        make_rule(one.clone()).await?;
        make_rule(two.clone()).await?;
        s.until_settled(Some(&ns)).await?;
    } else {
        s.world.share(&ns, "data", spec.clone()).await?;
        make_rule(one.clone()).await?;
        if change != Change::AddRule {
            make_rule(two.clone()).await?;
        }
        s.until_settled(Some(&ns)).await?;
        s.check_holdings(None).await.context("before")?;
    }

    // The change waits for an operator that will die of it.
    s.kill_operator().await?;
    match change {
        Change::Create => drop(s.world.share(&ns, "data", spec).await?),
        Change::Resize => drop(s.change_share(&ns, "data", json!({"size": "2Gi"})).await?),
        Change::Level => drop(
            s.change_rule(&ns, "one", json!({"accessLevel": "ReadOnly"}))
                .await?,
        ),
        Change::AddRule => drop(make_rule(two).await?),
        Change::DeleteRule => s.delete_rule(&ns, "one").await?,
        Change::Delete => s.delete_share(&ns, "data").await?,
        Change::Ensure => {
            let share = s.world.api::<Share>(&ns).get("data").await?;
            let cluster = s.cluster(BACKEND).await?;
            match protocol {
                Protocol::NFS => cluster.remove_export(&path_of(&share))?,
                Protocol::CephFS => cluster.deauthorize(BACKEND, &share.uid().unwrap(), "crasher")?,
            }
            let params = PatchParams::default();
            let api = s.world.api::<Share>(&ns);
            drop(api.patch("data", &params, &requested_at("now")).await?);
        }
        Change::LoseSecret => {
            let secrets: Api<Secret> = Api::namespaced(s.world.client.clone(), &ns);
            drop(secrets.delete("two-cephx", &DeleteParams::default()).await?);
        }
    }
    let (name, nth) = point
        .split_once(' ')
        .map_or((point, 1), |(name, nth)| (name, nth.parse().unwrap()));
    let earlier = if nth > 1 {
        format!("{}*off->", nth - 1)
    } else {
        String::new()
    };
    s.start_operator(&format!("{name}={earlier}1*return")).await?;
    s.until_operator_died().await?;
    let recorded = s
        .world
        .api::<Share>(&ns)
        .get_opt("data")
        .await?
        .and_then(|share| share.status);
    let recorded = recorded.is_some_and(|status| status.capabilities.is_some());

    match meanwhile {
        Meanwhile::Nothing => {}
        Meanwhile::Delete => s.delete_share(&ns, "data").await?,
        Meanwhile::ChangeType => set_type(s, NEW_MODE, "Root").await?,
    }
    s.start_operator("").await?;
    s.until_settled(Some(&ns)).await?;
    if change == Change::LoseSecret && meanwhile == Meanwhile::Nothing {
        // No status tells of it: the next look finds it.
        let mut last = None;
        eventually("the Secret to be back", PATIENCE, async || {
            last = s.check_holdings(None).await.err();
            Ok(last.is_none().then_some(()))
        })
        .await
        .with_context(|| format!("{last:?}"))?;
    }
    s.check_holdings(None).await?;

    let left = s
        .world
        .api::<Share>(&ns)
        .list(&ListParams::default())
        .await?
        .items;
    let gone = change == Change::Delete || meanwhile == Meanwhile::Delete;
    ensure!(left.is_empty() == gone, "{} shares are left", left.len());
    if let Some(share) = left.first() {
        let status = share.status.clone().unwrap();
        let mode = status.capabilities.unwrap().root.mode;
        let wanted = if meanwhile == Meanwhile::ChangeType && !recorded {
            NEW_MODE
        } else {
            OLD_MODE
        };
        ensure!(
            mode == wanted,
            "made with mode {mode}, and {wanted} was the type's at its choice"
        );
        ensure!(
            change != Change::Ensure || status.last_handled_requested_at.as_deref() == Some("now"),
            "it was not answered: {:?}",
            status.last_handled_requested_at
        );
        let access = status.access.unwrap();
        let rules = s
            .world
            .api::<ShareAccessRule>(&ns)
            .list(&ListParams::default())
            .await?
            .items
            .len();
        ensure!(
            usize::try_from(access.total)? == rules && access.applied == access.total && access.failed == 0,
            "{access:?} of {rules}"
        );
    }
    s.clear(&ns).await?;
    s.check_holdings(None).await.context("after")
}
