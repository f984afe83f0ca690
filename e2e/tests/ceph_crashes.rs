//! The operator is killed at every step of what it does to real Ceph; after its restart Ceph holds exactly what the
//! objects say.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use shoal_crds::Share;
use shoal_e2e::{
    lab::CephOptions,
    storage::{SIZE, Storage, cephx_rule, ip_rule, release, scale},
    suite::Suite,
    world::{OperatorOptions, until, until_gone},
};

static SUITE: Suite<Storage> = Suite::new();

/// How long a failpoint may take to be reached.
const REACHED: Duration = Duration::from_secs(20);

async fn start() -> Result<Storage> {
    let storage = Storage::without_operator(CephOptions {
        release: release()?,
        ..CephOptions::default()
    })
    .await?;
    // First contact, which is not what is looked at here.
    storage.start_operator("").await?;
    storage.until_backends_ready().await?;
    Ok(storage)
}

/// What happens between the kill and the restart.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    Nothing,
    /// The share is deleted, and its rules with it.
    Deleted,
    /// The share's type is changed, in everything that a share copies from it.
    TypeChanged,
}

struct Pair {
    ns: String,
    share_type: String,
}

impl Pair {
    /// A namespace for one NFS and one CephFS share of a type of their own.
    async fn new(suite: &Storage) -> Result<Self> {
        let ns = suite.world.namespace("crash").await?;
        let share_type = format!("type-{ns}");
        let root = json!({"uid": 1000, "gid": 1000, "mode": "0750"});
        suite
            .world
            .add_type(
                &share_type,
                json!({"shrink": true, "root": root, "squash": "Root"}),
                false,
            )
            .await?;
        Ok(Self { ns, share_type })
    }

    async fn ask(&self, suite: &Storage, size: u64) -> Result<()> {
        for (name, protocol) in [("n", "NFS"), ("c", "CephFS")] {
            suite
                .ask_for_share(&self.ns, name, protocol, &self.share_type, size)
                .await?;
        }
        Ok(())
    }

    async fn rules(&self, suite: &Storage, level: &str) -> Result<()> {
        suite
            .world
            .rule(&self.ns, "n-one", ip_rule("n", "127.97.0.1", level))
            .await?;
        suite
            .world
            .rule(
                &self.ns,
                "c-one",
                cephx_rule("c", &format!("{}-one", self.ns), level),
            )
            .await?;
        Ok(())
    }

    async fn more_rules(&self, suite: &Storage) -> Result<()> {
        suite
            .world
            .rule(&self.ns, "n-two", ip_rule("n", "127.97.0.0/24", "ReadOnly"))
            .await?;
        suite
            .world
            .rule(&self.ns, "c-two", cephx_rule("c", "", "ReadOnly"))
            .await?;
        Ok(())
    }

    async fn made(suite: &Storage) -> Result<Self> {
        let pair = Self::new(suite).await?;
        pair.rules(suite, "ReadWrite").await?;
        pair.ask(suite, SIZE).await?;
        suite.until_consistent().await?;
        Ok(pair)
    }

    async fn delete_rules(&self, suite: &Storage) -> Result<()> {
        let rules = suite.world.api::<shoal_crds::ShareAccessRule>(&self.ns);
        rules
            .delete_collection(
                &kube::api::DeleteParams::default(),
                &kube::api::ListParams::default(),
            )
            .await?;
        Ok(())
    }

    async fn delete(&self, suite: &Storage) -> Result<()> {
        for name in ["n", "c"] {
            suite.forget_share(&self.ns, name).await?;
        }
        Ok(())
    }

    async fn gone(&self, suite: &Storage) -> Result<()> {
        for name in ["n", "c"] {
            until_gone(&suite.world.api::<Share>(&self.ns), name).await?;
        }
        self.delete_rules(suite).await
    }

    async fn change_type(&self, suite: &Storage) -> Result<()> {
        let changed = json!({
            "shrink": false, "root": {"uid": 2000, "gid": 2000, "mode": "0700"}, "squash": "All",
            "size": {"max": "1Ti"},
        });
        suite.world.add_type(&self.share_type, changed, false).await
    }
}

/// Plays one kill: an operator with a failpoint, what brings it there, and what is then the case.
async fn kill(
    suite: &Storage,
    point: &str,
    pair: &Pair,
    then: Then,
    act: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let started = Instant::now();
    suite.stop_operator().await?;
    act().await?;
    suite.start_operator(point).await?;
    ensure!(suite.operator_dies(REACHED).await?, "{point} was not reached");
    match then {
        Then::Nothing => {}
        Then::Deleted => pair.delete(suite).await?,
        Then::TypeChanged => pair.change_type(suite).await?,
    }
    suite.start_operator("").await?;
    if then == Then::Deleted {
        pair.gone(suite).await?;
    }
    suite.until_consistent().await?;
    println!("{point}, then {then:?}: {} ms", started.elapsed().as_millis());
    Ok(())
}

fn after(step: &str) -> String {
    format!("after-{step}=1*return")
}

fn before_status(nth: u32) -> String {
    if nth == 0 {
        "before-status=1*return".into()
    } else {
        format!("before-status={nth}*off->1*return")
    }
}

#[test]
fn create() {
    SUITE.run(start, async |suite| {
        let _alone = suite.alone().await;
        let mut points: Vec<String> = [
            "Record",
            "Create",
            "ConfirmRules",
            "Export",
            "ReportRules",
            "Secret",
            "Annotate",
        ]
        .map(after)
        .into();
        points.extend((0..4).map(before_status));
        if !suite.world.knows_mutating_policies().await? {
            points.extend(["AddFinalizer", "HoldRules"].map(after));
        }
        for point in &points {
            for then in [Then::Nothing, Then::Deleted, Then::TypeChanged] {
                let pair = Pair::new(suite).await?;
                let act = async || {
                    pair.rules(suite, "ReadWrite").await?;
                    pair.ask(suite, SIZE).await
                };
                kill(suite, point, &pair, then, act)
                    .await
                    .with_context(|| format!("{point}, then {then:?}"))?;
                if then != Then::Deleted {
                    pair.delete(suite).await?;
                    pair.gone(suite).await?;
                }
            }
        }
        suite.until_consistent().await
    });
}

#[test]
fn change() {
    SUITE.run(start, async |suite| {
        let _alone = suite.alone().await;
        suite.start_operator("").await?;
        let pair = Pair::made(suite).await?;
        let mut size = SIZE;
        for point in ["Look", "Resize"]
            .map(after)
            .into_iter()
            .chain((0..2).map(before_status))
        {
            size += 1_000_001;
            kill(suite, &point, &pair, Then::Nothing, async || {
                pair.ask(suite, size).await
            })
            .await
            .with_context(|| format!("resize: {point}"))?;
        }
        let points = || ["ConfirmRules", "Look", "Export", "ReportRules"].map(after);
        for (n, point) in points().into_iter().enumerate() {
            let level = if n % 2 == 0 { "ReadOnly" } else { "ReadWrite" };
            kill(suite, &point, &pair, Then::Nothing, async || {
                pair.rules(suite, level).await
            })
            .await
            .with_context(|| format!("level: {point}"))?;
        }
        for point in points().into_iter().chain([after("Secret")]) {
            kill(suite, &point, &pair, Then::Nothing, async || {
                pair.more_rules(suite).await
            })
            .await
            .with_context(|| format!("new rules: {point}"))?;
            for rule in ["n-two", "c-two"] {
                suite.delete_rule(&pair.ns, rule).await?;
            }
        }
        for point in points() {
            kill(suite, &point, &pair, Then::Nothing, async || {
                pair.delete_rules(suite).await
            })
            .await
            .with_context(|| format!("rules deleted: {point}"))?;
            pair.rules(suite, "ReadWrite").await?;
            suite.until_consistent().await?;
        }
        // Until the garbage collector has taken the Secret of the rule before, the new one has none.
        let rules = suite.world.api::<shoal_crds::ShareAccessRule>(&pair.ns);
        until(
            &rules,
            "c-one",
            "in force",
            |rule: &shoal_crds::ShareAccessRule| {
                let phase = rule.status.as_ref().and_then(|status| status.phase);
                phase == Some(shoal_crds::AccessPhase::Active)
            },
        )
        .await?;
        suite.until_consistent().await?;
        // A lost Secret.
        for point in ["FetchKeys", "Secret"].map(after) {
            let lose = async || {
                let secrets = suite.world.api::<k8s_openapi::api::core::v1::Secret>(&pair.ns);
                secrets
                    .delete("c-one-cephx", &kube::api::DeleteParams::default())
                    .await?;
                Ok(())
            };
            kill(suite, &point, &pair, Then::Nothing, lose)
                .await
                .with_context(|| format!("lost Secret: {point}"))?;
        }
        pair.delete(suite).await?;
        pair.gone(suite).await?;
        suite.until_consistent().await
    });
}

#[test]
fn delete() {
    SUITE.run(start, async |suite| {
        let _alone = suite.alone().await;
        suite.start_operator("").await?;
        let points = ["Look", "Unexport", "Remove", "RemoveFinalizer"].map(after);
        for point in &points {
            let pair = Pair::made(suite).await?;
            kill(suite, point, &pair, Then::Nothing, async || {
                pair.delete(suite).await
            })
            .await
            .with_context(|| format!("delete: {point}"))?;
            pair.gone(suite).await?;
        }
        suite.until_consistent().await
    });
}

/// Kills at any moment, between two commands of one step too.
#[test]
fn any_moment() {
    SUITE.run(start, async |suite| {
        let _alone = suite.alone().await;
        let rounds = scale("SHOAL_E2E_KILLS", 12);
        let mut seed = u64::from(std::process::id());
        println!("seed {seed}");
        let mut random = move |below: u64| {
            // Of the linear congruential kind: enough to be somewhere else each time.
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        suite.start_operator("").await?;
        let pair = Pair::made(suite).await?;
        let mut made = Vec::new();
        for round in 0..rounds {
            let new = Pair::new(suite).await?;
            new.rules(suite, "ReadWrite").await?;
            new.ask(suite, SIZE).await?;
            pair.ask(suite, SIZE + u64::from(round) * 4097).await?;
            pair.rules(suite, if round % 2 == 0 { "ReadOnly" } else { "ReadWrite" })
                .await?;
            if let Some(old) = made.pop() {
                Pair::delete(&old, suite).await?;
                old.delete_rules(suite).await?;
            }
            made.push(new);
            let wait = random(600);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            suite.kill_operator().await?;
            println!("round {round}: killed after {wait} ms");
            suite.start_operator("").await?;
        }
        suite.until_consistent().await?;
        for pair in made.iter().chain([&pair]) {
            pair.delete(suite).await?;
            pair.gone(suite).await?;
        }
        suite.until_consistent().await
    });
}

/// The leader is killed in the middle of a step while another stands by.
#[test]
fn standby() {
    SUITE.run(start, async |suite| {
        let _alone = suite.alone().await;
        for point in ["Create", "Export"].map(after) {
            let pair = Pair::new(suite).await?;
            suite.stop_operator().await?;
            suite.start_operator(&point).await?;
            suite.until_leading().await?;
            // The leader dies by the share that is made only once the other stands by.
            let standby = suite.world.operator(&OperatorOptions::quick("standby")).await?;
            pair.rules(suite, "ReadWrite").await?;
            pair.ask(suite, SIZE).await?;
            ensure!(suite.operator_dies(REACHED).await?, "{point} was not reached");
            standby.wait_until_leading().await?;
            suite.until_consistent().await?;
            pair.delete(suite).await?;
            pair.gone(suite).await?;
            suite.until_consistent().await?;
            standby.terminate()?;
        }
        suite.start_operator("").await
    });
}
