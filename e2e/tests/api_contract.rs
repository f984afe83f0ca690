//! The simulated API server and the real ones do the same, as far as Shoal can tell.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use shoal_e2e::{
    api_contract::{SCENARIOS, Scenario},
    lab::{KubernetesRelease, LabOptions},
    sim::api_server::{ApiServer, Call, Fate, Network, Options},
    world::World,
};

/// A network that does nothing.
struct Calm;

impl Network for Calm {
    fn request(&self, _: &Call) -> Fate {
        Fate::Pass {
            there: Duration::ZERO,
            back: Duration::ZERO,
        }
    }

    fn lag(&self, _: &str) -> Duration {
        Duration::ZERO
    }
}

async fn in_a_namespace(client: &Client, scenario: &Scenario) -> Result<()> {
    let name = scenario.name.replace('_', "-");
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &namespace).await?;
    scenario.run(client.clone(), name).await
}

/// Names what differs.
fn judged(results: Vec<(&str, Result<()>)>) {
    let failed: Vec<String> = results
        .into_iter()
        .filter_map(|(name, result)| Some(format!("{name}: {:?}", result.err()?)))
        .collect();
    assert!(
        failed.is_empty(),
        "{} scenarios fail:\n{}",
        failed.len(),
        failed.join("\n\n")
    );
}

async fn on_the_real_one(release: KubernetesRelease) -> Result<()> {
    let options = LabOptions {
        ceph: None,
        kubernetes: Some(release),
        ..LabOptions::default()
    };
    let world = World::start(&options).await?;
    let policy = world.knows_mutating_policies().await?;
    let scenarios = SCENARIOS
        .iter()
        .filter(|scenario| policy || !scenario.needs_policy);
    // All at once: garbage is collected after half a minute.
    let runs = scenarios.map(async |scenario| (scenario.name, in_a_namespace(&world.client, scenario).await));
    judged(join_all(runs).await);
    Ok(())
}

#[tokio::test]
async fn on_1_37() -> Result<()> {
    on_the_real_one(KubernetesRelease::V1_37).await
}

#[tokio::test]
async fn on_1_34() -> Result<()> {
    on_the_real_one(KubernetesRelease::V1_34).await
}

/// With the policy and without.
#[tokio::test(start_paused = true)]
async fn on_the_simulated_one() -> Result<()> {
    let mut results = Vec::new();
    for born_held in [true, false] {
        for scenario in SCENARIOS
            .iter()
            .filter(|scenario| born_held || !scenario.needs_policy)
        {
            let server = ApiServer::new(Options { seed: 1, born_held });
            server.compact();
            let client = server.client("test", Arc::new(Calm));
            results.push((scenario.name, in_a_namespace(&client, scenario).await));
        }
    }
    ensure!(!results.is_empty(), "there are no scenarios");
    judged(results);
    Ok(())
}
