//! `shoal run`: the wiring.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use futures::{StreamExt, channel::mpsc::UnboundedReceiver, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        Controller,
        controller::Action,
        events::{Recorder, Reporter},
        reflector::{ObjectRef, Store},
    },
};
use shoal_domain::Next;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    api,
    backends::Backends,
    caches::{self, Caches, Due, Guarded, Writers},
    context::Context,
    controllers::{
        route, share::Shares, share_access_rule::ShareAccessRules, share_backend::ShareBackends,
        share_type::ShareTypes,
    },
    driver::{self, Kind},
    error::Error,
    invalid,
    leader::{Elector, Fence},
    looks::Looks,
    metrics::Metrics,
    server,
    settings::Settings,
    turns::Turns,
};

/// How long after the end of their own deadlines passes in flight are waited for.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Runs until asked to end, or until the Lease is lost.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut config = kube::Config::infer()
        .await
        .context("no API server: set KUBECONFIG, or run in a Pod")?;
    config.default_retry = false;
    let client = Client::try_from(config)?;
    let fence = Fence::new(settings.lease());
    let (caches, writers, due) = Caches::new();
    let ctx = Arc::new(Context {
        cluster: cluster_uid(&client).await?,
        caches,
        backends: Backends::new(settings.command_timeout(), settings.simulated_state.clone()),
        turns: Turns::default(),
        looks: Looks::new(settings.resync()),
        fence: fence.clone(),
        recorder: Recorder::new(
            client.clone(),
            Reporter {
                controller: "shoal".into(),
                instance: Some(settings.identity.clone()),
            },
        ),
        invalid: parking_lot::Mutex::default(),
        metrics: Metrics::default(),
        stopping: false.into(),
        client: client.clone(),
    });
    let listener = server::listen(settings.listen).await?;
    tracing::info!(address = %listener.local_addr()?, "health and metrics endpoints");
    let mut background = JoinSet::new();
    background.spawn(server::serve(listener, ctx.clone()));

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut elector = Elector::new(&client, &settings.namespace, &settings.identity, fence);
    tracing::info!(identity = settings.identity, "waiting for the Lease");
    tokio::select! {
        () = elector.acquire() => {}
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }
    tracing::info!("leading");

    keep_caches(&mut background, &ctx, writers);
    tokio::select! {
        () = ctx.caches.wait_until_filled() => {}
        error = elector.hold() => return Err(error),
        _ = terminate.recv() => return elector.release().await,
        _ = interrupt.recv() => return elector.release().await,
    }
    let stop = CancellationToken::new();
    let mut controllers = start_controllers(&ctx, due, &stop);
    tracing::info!("controllers started");
    tokio::select! {
        // A lost Lease ends the process: nothing in flight is trusted to stop in time.
        error = elector.hold() => return Err(error),
        Some(ended) = background.join_next() => bail!("a background task ended: {ended:?}"),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping: the effects in flight are finished first");
    ctx.stopping.store(true, std::sync::atomic::Ordering::Relaxed);
    stop.cancel();
    let longest = settings.lease() + STOP_GRACE;
    tokio::select! {
        () = async { while controllers.join_next().await.is_some() {} } => {}
        error = elector.hold() => return Err(error),
        () = tokio::time::sleep(longest) => bail!("passes did not end in {longest:?}"),
    }
    elector
        .release()
        .await
        .context("the Lease could not be released")?;
    tracing::info!("the Lease is released");
    Ok(())
}

/// The uid of kube-system is the cluster's identity: it is made once, with the cluster.
async fn cluster_uid(client: &Client) -> anyhow::Result<String> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let found = api::bounded(namespaces.get_metadata("kube-system"))
        .await
        .context("namespace kube-system")?;
    found.uid().context("namespace kube-system has no uid")
}

fn keep_caches(tasks: &mut JoinSet<anyhow::Result<()>>, ctx: &Arc<Context>, writers: Writers) {
    macro_rules! keep {
        ($writer:expr, $route:path) => {{
            let (ctx, writer) = (ctx.clone(), $writer);
            tasks.spawn(async move {
                let client = ctx.client.clone();
                caches::keep(client, writer, move |object| $route(&ctx.caches, object)).await;
                bail!("a watch ended")
            });
        }};
    }
    keep!(writers.namespaces, route::namespace);
    keep!(writers.backends, route::backend);
    keep!(writers.types, route::share_type);
    keep!(writers.shares, route::share);
    keep!(writers.rules, route::rule);
}

fn start_controllers(ctx: &Arc<Context>, due: Due, stop: &CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(control::<ShareBackends>(
        ctx.clone(),
        ctx.caches.backends.clone(),
        due.backends,
        stop.clone(),
    ));
    tasks.spawn(control::<ShareTypes>(
        ctx.clone(),
        ctx.caches.types.clone(),
        due.types,
        stop.clone(),
    ));
    tasks.spawn(control::<Shares>(
        ctx.clone(),
        ctx.caches.shares.clone(),
        due.shares,
        stop.clone(),
    ));
    tasks.spawn(control::<ShareAccessRules>(
        ctx.clone(),
        ctx.caches.rules.clone(),
        due.rules,
        stop.clone(),
    ));
    tasks
}

/// Feeds one kind's keys to the driver: each key at most once at a time, again when it is due.
async fn control<K: Kind>(
    ctx: Arc<Context>,
    store: Store<Guarded<K::Object>>,
    due: UnboundedReceiver<ObjectRef<Guarded<K::Object>>>,
    stop: CancellationToken,
) {
    let reconcile = |guard: Arc<DeserializeGuard<K::Object>>, ctx: Arc<Context>| {
        let span = tracing::info_span!(
            "reconcile",
            kind = K::NAME,
            namespace = guard.namespace().unwrap_or_default(),
            name = guard.name_any(),
            uid = guard.uid().unwrap_or_default(),
            generation = guard.meta().generation.unwrap_or_default(),
        );
        async move {
            let result = match &guard.0 {
                Ok(object) => driver::reconcile::<K>(&ctx, object.clone()).await,
                Err(broken) => invalid::report::<K>(&ctx, broken).await.map(|()| Next::Await),
            };
            match result {
                Ok(Next::Await) | Err(Error::Gone) => Ok(Action::await_change()),
                Ok(Next::After(wait)) => Ok(Action::requeue(wait)),
                // The change that was in the way is on its way here.
                Err(Error::Conflict) => Ok(Action::requeue(Duration::from_millis(100))),
                Err(error) => Err(error),
            }
        }
        .instrument(span)
    };
    let on_error = |guard: Arc<DeserializeGuard<K::Object>>, error: &Error, _: Arc<Context>| {
        tracing::warn!(kind = K::NAME, name = guard.name_any(), namespace = guard.namespace(), %error, "a pass ended early");
        Action::requeue(Duration::from_secs(2))
    };
    Controller::for_stream(stream::pending(), store)
        .reconcile_on(due)
        .graceful_shutdown_on(async move { stop.cancelled().await })
        .run(reconcile, on_error, ctx)
        .for_each(|_| std::future::ready(()))
        .await;
}
