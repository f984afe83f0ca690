//! Ensuring on a real API server: what is asked for is verified, what is not as it should be is made again behind a fence, and
//! nobody else notices.
//!
//! The operator looks for drift by itself once in ten minutes here: what is mended was asked for.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use shoal_crds::{
    AccessPhase, Protocol, Share, ShareAccessRule, ShareBackend, SharePhase,
    condition::{reasons, types},
    names::{annotations, labels},
};
use shoal_domain::condition::is_true;
use shoal_e2e::{
    holdings::path_of,
    lab::KubernetesRelease,
    simulated_storage::{BACKEND, SimulatedStorage, ip_rule, share_spec},
    suite::Suite,
    world::{PATIENCE, eventually, forbidden, requested_at, until},
};

static NEWER: Suite<SimulatedStorage> = Suite::new();
static OLDER: Suite<SimulatedStorage> = Suite::new();

const USER: &str = "alice";
/// Shares of a round: more than are asked at once.
const SHARES: usize = 70;

fn run<S: Future<Output = Result<()>>>(scenario: impl FnOnce(&'static SimulatedStorage) -> S) {
    NEWER.run(|| start(KubernetesRelease::V1_37), scenario);
}

async fn start(release: KubernetesRelease) -> Result<SimulatedStorage> {
    let s = SimulatedStorage::without_operator(release).await?;
    start_operator(&s, "").await?;
    s.until_backend(BACKEND, "True", reasons::AVAILABLE).await?;
    users(&s).await?;
    Ok(s)
}

async fn start_operator(s: &SimulatedStorage, failpoints: &str) -> Result<()> {
    let mut options = s.operator_options("operator").mending_on_request();
    options.failpoints = failpoints.into();
    s.start_operator_with(&options).await
}

/// A user who may do with shares and rules whatever users may.
async fn users(s: &SimulatedStorage) -> Result<()> {
    let rules = json!([
        {"apiGroups": ["shoal.storage"], "resources": ["shares", "shareaccessrules"],
         "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"]},
    ]);
    s.world.grant("users", &[USER], &rules).await?;
    let shares: Api<Share> = api(&s.world.client_as(USER).await?, "default");
    eventually("the role to be known", PATIENCE, async || {
        Ok(shares.list(&ListParams::default()).await.ok())
    })
    .await?;
    Ok(())
}

fn api<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace)
}

async fn ask_backend(s: &SimulatedStorage, token: &str) -> Result<()> {
    let backends = s.world.cluster_api::<ShareBackend>();
    backends
        .patch(BACKEND, &PatchParams::default(), &requested_at(token))
        .await?;
    Ok(())
}

async fn make(s: &SimulatedStorage, ns: &str, count: usize) -> Result<Vec<Share>> {
    stream::iter(0..count)
        .map(async |n| {
            let name = format!("s{n:03}");
            s.world.share(ns, &name, share_spec(Protocol::NFS)).await?;
            let rule = ip_rule(&name, "10.0.0.0/24", "ReadWrite");
            s.world.rule(ns, &name, rule).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(8)
        .try_collect::<()>()
        .await?;
    s.until_settled(Some(ns)).await?;
    shares_in(s, ns).await
}

async fn shares_in(s: &SimulatedStorage, ns: &str) -> Result<Vec<Share>> {
    let api = s.world.api::<Share>(ns);
    Ok(api.list(&ListParams::default()).await?.items)
}

/// What a share says from now on until it is `done`.
async fn story(
    shares: &Api<Share>,
    name: &str,
    from: &Share,
    done: impl Fn(&Share) -> bool,
) -> Result<Vec<Share>> {
    let params = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut events = Box::pin(shares.watch(&params, &from.resource_version().unwrap()).await?);
    let mut story = Vec::new();
    let gather = async {
        while let Some(event) = events.try_next().await? {
            if let WatchEvent::Added(share) | WatchEvent::Modified(share) = event {
                story.push(share);
                if story.last().is_some_and(&done) {
                    return Ok(());
                }
            }
        }
        bail!("the watch ended")
    };
    tokio::time::timeout(PATIENCE, gather)
        .await
        .context("it is not done")??;
    Ok(story)
}

fn handled(share: &Share) -> Option<&str> {
    share.status.as_ref()?.last_handled_requested_at.as_deref()
}

fn is_fenced(share: &Share) -> bool {
    share.labels().contains_key(labels::ENSURING)
}

#[test]
fn a_round_writes_nothing_where_nothing_is_amiss_and_names_what_is() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("round").await?;
        let shares = make(s, &ns, SHARES).await?;
        let cluster = s.cluster(BACKEND).await?;
        let (mark, effects) = (s.audit_mark()?, cluster.effects()?);
        ask_backend(s, "first").await?;
        let round = s.world.until_ensured(BACKEND, "first").await?;
        let total = round.total;
        ensure!(
            total >= i64::try_from(SHARES)? && round.done == total && round.failed == 0,
            "{round:?}"
        );
        let writes = s.writes_since(mark).await?;
        ensure!(
            writes
                .iter()
                .all(|write| write.resource == "sharebackends/status"),
            "{writes:#?}"
        );
        println!(
            "{total} shares verified: {} writes, all of ShareBackend status",
            writes.len()
        );
        ensure!(
            cluster.effects()? == effects,
            "something was written to the storage"
        );

        // Of the shares one has lost its data, and three their exports.
        for share in &shares[1..4] {
            cluster.remove_export(&path_of(share))?;
        }
        let lost = &shares[0];
        cluster.delete_subvolume(BACKEND, &lost.uid().unwrap())?;
        let mark = s.audit_mark()?;
        ask_backend(s, "second").await?;
        let round = s.world.until_ensured(BACKEND, "second").await?;
        ensure!(
            round.total == total && round.done == total - 1 && round.failed == 1,
            "{round:?}"
        );
        s.until_share(&ns, &lost.name_any(), "False", reasons::VOLUME_MISSING)
            .await?;
        for share in &shares[1..4] {
            ensure!(s.let_in(share).await?.len() == 1);
        }
        let mut written: BTreeMap<String, usize> = BTreeMap::new();
        for write in s
            .writes_since(mark)
            .await?
            .iter()
            .filter(|w| w.resource.starts_with("shares"))
        {
            *written.entry(write.name.clone()).or_default() += 1;
        }
        // A mark, what it says, what it says afterwards, and the mark again.
        let expected: BTreeMap<String, usize> = shares[..4]
            .iter()
            .map(|share| {
                (
                    share.name_any(),
                    if share.name_any() == lost.name_any() { 1 } else { 4 },
                )
            })
            .collect();
        ensure!(written == expected, "{written:?}");
        s.clear(&ns).await
    });
}

#[test]
fn while_its_export_is_made_again_a_share_is_kept_as_it_is_and_stays_ready() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("fenced").await?;
        let share = s.ready_share(&ns, "data", Protocol::NFS).await?;
        s.world
            .rule(&ns, "office", ip_rule("data", "10.0.0.0/24", "ReadWrite"))
            .await?;
        s.until_settled(Some(&ns)).await?;
        s.set_latency(700).await?;
        s.until_backend_is_current().await?;
        let cluster = s.cluster(BACKEND).await?;
        cluster.remove_export(&path_of(&share))?;

        let user = s.world.client_as(USER).await?;
        let (shares, rules): (Api<Share>, Api<ShareAccessRule>) = (api(&user, &ns), api(&user, &ns));
        let patch = PatchParams::default();
        let asked = shares.patch("data", &patch, &requested_at("now")).await?;
        let fenced = until(&shares, "data", "is ensured", |share: &Share| {
            share
                .status
                .as_ref()
                .is_some_and(|s| s.phase == Some(SharePhase::Ensuring))
        })
        .await?;
        ensure!(is_fenced(&fenced), "{:?}", fenced.metadata);
        ensure!(is_true(&fenced.status.unwrap().conditions, types::ENSURING));

        // Nobody changes or deletes it; what is said beside its spec is nobody's business.
        let words = &[
            "Share data is being ensured",
            "try again when its condition Ensuring is gone",
        ];
        let grown = Patch::Merge(json!({"spec": {"size": "2Gi"}}));
        forbidden(shares.patch("data", &patch, &grown).await, words)?;
        forbidden(shares.delete("data", &DeleteParams::default()).await, words)?;
        let freed = Patch::Merge(json!({"metadata": {"labels": {labels::ENSURING: null}}}));
        forbidden(
            shares.patch("data", &patch, &freed).await,
            &["shoal.storage/ensuring is the operator's", "requested-at"],
        )?;
        let labelled = Patch::Merge(json!({"metadata": {"labels": {"team": "blue"}}}));
        shares.patch("data", &patch, &labelled).await?;
        // A rule that comes now waits its turn, and says so from its birth.
        let guest: ShareAccessRule = serde_json::from_value(json!({
            "metadata": {"name": "guest"}, "spec": ip_rule("data", "10.9.0.0/24", "ReadOnly"),
        }))?;
        let guest = rules.create(&PostParams::default(), &guest).await?;
        ensure!(
            guest.status.unwrap().phase == Some(AccessPhase::QueuedToApply),
            "a new rule"
        );
        let still = shares.get("data").await?;
        ensure!(is_fenced(&still), "it was over too soon for this test");

        // It ends, answers, was Ready all the time, and then what waited is done.
        let told = story(&shares, "data", &asked, |share| handled(share) == Some("now")).await?;
        for share in &told {
            let status = share.status.as_ref().unwrap();
            ensure!(is_true(&status.conditions, types::READY), "{status:#?}");
            ensure!(!is_true(&status.conditions, types::RECONCILING), "{status:#?}");
        }
        let ended = told.last().unwrap();
        ensure!(!is_fenced(ended), "{:?}", ended.metadata);
        ensure!(ended.status.as_ref().unwrap().phase == Some(SharePhase::Available));
        shares.patch("data", &patch, &grown).await?;
        s.until_rule(&ns, "guest", "True", reasons::ACTIVE).await?;
        s.until_share(&ns, "data", "True", reasons::AVAILABLE).await?;
        ensure!(s.let_in(&share).await?.len() == 2);
        s.set_latency(0).await?;
        s.until_backend_is_current().await
    });
}

#[test]
fn two_requests_are_one_round_that_answers_the_later() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("twice").await?;
        make(s, &ns, 6).await?;
        s.set_latency(300).await?;
        s.until_backend_is_current().await?;
        let backends = s.world.cluster_api::<ShareBackend>();
        ask_backend(s, "early").await?;
        let busy = until(&backends, BACKEND, "a round", |backend: &ShareBackend| {
            let conditions = backend.status.as_ref().map(|s| &s.conditions);
            conditions.is_some_and(|list| is_true(list, types::ENSURING))
        })
        .await?;
        ask_backend(s, "late").await?;
        let params = WatchParams::default().fields(&format!("metadata.name={BACKEND}"));
        let mut events = Box::pin(backends.watch(&params, &busy.resource_version().unwrap()).await?);
        let mut answers = Vec::new();
        let gather = async {
            while let Some(event) = events.try_next().await? {
                let WatchEvent::Modified(backend) = event else {
                    continue;
                };
                let status = backend.status.unwrap();
                ensure!(is_true(&status.conditions, types::READY), "it stays Ready");
                answers.extend(status.last_handled_requested_at);
                if answers.last().is_some_and(|answer| answer == "late") {
                    return Ok(());
                }
            }
            bail!("the watch ended")
        };
        tokio::time::timeout(PATIENCE, gather)
            .await
            .context("no answer")??;
        ensure!(!answers.contains(&"early".into()), "{answers:?}");
        s.set_latency(0).await?;
        s.until_backend_is_current().await?;
        s.clear(&ns).await
    });
}

#[test]
fn an_operator_that_dies_in_the_middle_is_followed_by_one_that_finishes() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("killed").await?;
        let shares = make(s, &ns, 8).await?;
        let cluster = s.cluster(BACKEND).await?;
        s.kill_operator().await?;
        for share in &shares {
            cluster.remove_export(&path_of(share))?;
        }
        ask_backend(s, "killed").await?;
        // With some behind it and some before it.
        start_operator(s, "after-Export=3*off->1*return").await?;
        s.until_operator_died().await?;
        let there = shares_in(s, &ns).await?;
        let fenced = there.iter().filter(|share| is_fenced(share)).count();
        ensure!((1..=4).contains(&fenced), "{fenced} are being made again");
        start_operator(s, "").await?;
        let round = s.world.until_ensured(BACKEND, "killed").await?;
        ensure!(round.done == round.total && round.failed == 0, "{round:?}");
        s.until_settled(Some(&ns)).await?;
        s.check_holdings(Some(&ns)).await?;
        s.clear(&ns).await
    });
}

#[test]
fn addresses_that_move_are_followed_without_anyone_asking() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("moved").await?;
        let nfs = s.ready_share(&ns, "nfs", Protocol::NFS).await?;
        let native = s.ready_share(&ns, "native", Protocol::CephFS).await?;
        let cluster = s.cluster(BACKEND).await?;
        let (mark, effects) = (s.audit_mark()?, cluster.effects()?);
        cluster.set_monitors(vec!["198.51.100.1:3300".into(), "198.51.100.2:3300".into()])?;
        cluster.set_nfs_endpoints(Some(vec!["198.51.100.9".into()]))?;
        // Within half a minute, which is how often a backend is asked.
        let shares = s.world.api::<Share>(&ns);
        for (before, host) in [
            (&nfs, "198.51.100.9:/"),
            (&native, "198.51.100.1:3300,198.51.100.2:3300:/"),
        ] {
            let after = until(&shares, &before.name_any(), "has moved", |share: &Share| {
                let locations = &share.status.as_ref().unwrap().export_locations;
                locations[0].path.starts_with(host)
            })
            .await?;
            let (was, is) = (before.status.clone().unwrap(), after.status.clone().unwrap());
            ensure!(was.export_revision != is.export_revision);
            let location = &is.export_locations[0].path;
            ensure!(after.annotations().get(annotations::EXPORT_LOCATION) == Some(location));
            ensure!(after.annotations().get(annotations::EXPORT_REVISION) == is.export_revision.as_ref());
            ensure!(is.conditions == was.conditions, "nothing else is news");
        }
        let backends = s.world.cluster_api::<ShareBackend>();
        until(
            &backends,
            BACKEND,
            "has ended its round",
            |backend: &ShareBackend| {
                let ensure = backend.status.as_ref().and_then(|s| s.ensure.as_ref());
                ensure.is_some_and(|e| e.requested_at.is_none() && e.finished_at.is_some() && e.failed == 0)
            },
        )
        .await?;
        let writes = s.writes_since(mark).await?;
        let of = |name: &str| {
            writes
                .iter()
                .filter(|w| w.namespace == ns && w.name == name)
                .count()
        };
        ensure!(
            (of("nfs"), of("native")) == (2, 2),
            "annotations and status: {writes:#?}"
        );
        ensure!(
            cluster.effects()? == effects,
            "something was written to the storage"
        );
        s.clear(&ns).await
    });
}

/// The same on both versions.
macro_rules! on_versions {
    ($($module:ident: $world:ident $release:ident),+) => {
        $(mod $module {
            use super::*;

            #[test]
            fn who_may_say_that_a_share_is_ensured() {
                $world.run(|| start(KubernetesRelease::$release), super::who_may_say_that_a_share_is_ensured);
            }
        })+
    };
}

on_versions!(on_1_37: NEWER V1_37, on_1_34: OLDER V1_34);

async fn who_may_say_that_a_share_is_ensured(s: &SimulatedStorage) -> Result<()> {
    // The others count what is written.
    let _alone = s.alone().await;
    let ns = s.world.namespace("mark").await?;
    s.ready_share(&ns, "data", Protocol::NFS).await?;
    let user = s.world.client_as(USER).await?;
    let shares: Api<Share> = api(&user, &ns);
    let patch = PatchParams::default();
    let mark = |value: Value| Patch::Merge(json!({"metadata": {"labels": {labels::ENSURING: value}}}));
    let words = &[
        "shoal.storage/ensuring is the operator's",
        "verb operate on shares",
    ];
    forbidden(shares.patch("data", &patch, &mark("".into())).await, words)?;
    let mut born = Share::new("born", serde_json::from_value(share_spec(Protocol::NFS))?);
    born.labels_mut().insert(labels::ENSURING.into(), String::new());
    forbidden(shares.create(&PostParams::default(), &born).await, words)?;

    // One that an operator left there holds, until the next operator, or an admin by hand, takes it off.
    s.kill_operator().await?;
    let admins: Api<Share> = s.world.api(&ns);
    admins.patch("data", &patch, &mark("".into())).await?;
    let grown = Patch::Merge(json!({"spec": {"size": "2Gi"}}));
    let words = &["is being ensured", "If no operator runs", "take off the label"];
    forbidden(shares.patch("data", &patch, &grown).await, words)?;
    let replaced = shares.get("data").await?;
    shares
        .replace("data", &PostParams::default(), &replaced)
        .await
        .context("a replacement that changes nothing")?;
    admins.patch("data", &patch, &mark(Value::Null)).await?;
    shares.patch("data", &patch, &grown).await?;
    admins.patch("data", &patch, &mark("".into())).await?;
    start_operator(s, "").await?;
    until(&shares, "data", "is free", |share: &Share| !is_fenced(share)).await?;
    s.until_share(&ns, "data", "True", reasons::AVAILABLE).await?;

    // A request of any length is answered.
    let long = "ö".repeat(2000);
    shares.patch("data", &patch, &requested_at(&long)).await?;
    let answered = until(&shares, "data", "answers", |share: &Share| {
        handled(share).is_some_and(|answer| long.starts_with(answer))
    })
    .await?;
    ensure!(handled(&answered).unwrap().chars().count() == 253);
    s.check_quiet(&ns).await?;
    s.clear(&ns).await
}
