//! `shoal run`: the wiring.

use std::{convert::Infallible, sync::Arc};

use anyhow::{Context as _, bail};
use futures::{StreamExt, channel::mpsc::UnboundedReceiver, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        Controller,
        controller::Action,
        reflector::{ObjectRef, Store},
    },
};
use shoal_domain::Next;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use crate::{
    api,
    backends::SimulatedClusters,
    caches::{Caches, Guarded},
    clock::Clock,
    context::Context,
    driver::{self, Kind},
    leader::Elector,
    replica::{self, Engine},
    server,
    settings::Settings,
};

/// Runs until asked to end, or until the Lease is lost.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut config = kube::Config::infer()
        .await
        .context("no API server: set KUBECONFIG, or run in a Pod")?;
    config.default_retry = false;
    config.read_timeout = Some(api::READ_TIMEOUT);
    config.reset_reader_on_write = true;
    let client = Client::try_from(config)?;
    let cluster = cluster_uid(&client).await?;
    let (caches, writers, due) = Caches::new();
    let simulated = SimulatedClusters::one_each(settings.simulated_state.clone());
    let clock = Clock::system();
    let ctx = Arc::new(Context::new(
        &client, cluster, caches, simulated, &settings, clock,
    ));
    let listener = server::listen(settings.listen).await?;
    tracing::info!(address = %listener.local_addr()?, "health and metrics endpoints");
    let mut server = JoinSet::new();
    server.spawn(server::serve(listener, ctx.clone()));

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = ctx.stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    let elector = Elector::new(
        &client,
        &settings.namespace,
        &settings.identity,
        ctx.fence.clone(),
    );
    tokio::select! {
        ended = replica::live(&Tokio, &ctx, writers, due, elector) => ended,
        Some(ended) = server.join_next() => bail!("the health endpoints ended: {ended:?}"),
    }
}

/// The uid of kube-system is the cluster's identity: it is made once, with the cluster.
async fn cluster_uid(client: &Client) -> anyhow::Result<String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let found = api::bounded(namespaces.get_metadata("kube-system"))
        .await
        .context("namespace kube-system")?;
    found.uid().context("namespace kube-system has no uid")
}

/// A process of its own: tasks on tokio, keys by kube's `Controller`.
#[derive(Clone)]
struct Tokio;

impl Engine for Tokio {
    fn spawn(&self, tasks: &mut JoinSet<()>, task: impl Future<Output = ()> + Send + 'static) {
        tasks.spawn(task);
    }

    async fn control<K: Kind>(
        &self,
        ctx: Arc<Context>,
        store: Store<Guarded<K::Object>>,
        due: UnboundedReceiver<ObjectRef<Guarded<K::Object>>>,
    ) {
        let stop = ctx.stop.clone();
        let reconcile = |guard: Arc<DeserializeGuard<K::Object>>, ctx: Arc<Context>| async move {
            Ok::<_, Infallible>(match driver::pass::<K>(&ctx, &guard).await {
                Next::Await => Action::await_change(),
                Next::After(wait) => Action::requeue(wait),
            })
        };
        Controller::for_stream(stream::pending(), store)
            .reconcile_on(due)
            .graceful_shutdown_on(stop.cancelled_owned())
            .run(reconcile, |_, never, _| match *never {}, ctx)
            .for_each(|_| std::future::ready(()))
            .await;
    }
}
