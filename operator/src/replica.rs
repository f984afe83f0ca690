//! One replica's life: it waits for the Lease, fills its caches, works, and gives the Lease back.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use futures::channel::mpsc::UnboundedReceiver;
use kube::runtime::{
    reflector::{ObjectRef, Store},
    watcher,
};
use shoal_crds::{ResourceLock, Share, ShareAccessRule, ShareDeletion};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    caches::{self, Caches, Change, Due, Guarded, Writers},
    context::Context,
    controllers::{
        command_ended, go_on_deleting, remains_are_gone,
        resource_lock::{self, ResourceLocks},
        room_was_made, route,
        share::Shares,
        share_access_rule::ShareAccessRules,
        share_backend::ShareBackends,
        share_deletion::ShareDeletions,
        share_quota::ShareQuotas,
        share_type::ShareTypes,
    },
    driver::Kind,
    leader::Elector,
};

/// How long after the end of their own deadlines passes in flight are waited for.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What a replica runs on: tokio and kube's `Controller`, or a simulation that stops it where it likes.
pub trait Engine: Clone + Send + Sync + 'static {
    /// Runs a task beside the others, until its set is dropped.
    fn spawn(&self, tasks: &mut JoinSet<()>, task: impl Future<Output = ()> + Send + 'static);

    /// Feeds one kind's keys to [`driver::pass`](crate::driver::pass): each key at most once at a time, again when it is
    /// due. Ends when [`Context::stop`] is cancelled and the passes in flight have ended.
    fn control<K: Kind>(
        &self,
        ctx: Arc<Context>,
        store: Store<Guarded<K::Object>>,
        due: UnboundedReceiver<ObjectRef<Guarded<K::Object>>>,
    ) -> impl Future<Output = ()> + Send;
}

/// Lives until [`Context::stop`] is cancelled (`Ok`), or until it can't go on: the Lease is lost, say.
pub async fn live<E: Engine>(
    engine: &E,
    ctx: &Arc<Context>,
    writers: Writers,
    due: Due,
    mut elector: Elector,
) -> anyhow::Result<()> {
    tracing::info!("waiting for the Lease");
    if !elector.acquire(&ctx.stop).await {
        return Ok(());
    }
    tracing::info!("leading");
    let mut watches = JoinSet::new();
    keep_caches(engine, &mut watches, ctx, writers);
    let own = ctx.clone();
    engine.spawn(&mut watches, async move {
        own.in_hand
            .go_on(
                |ended| command_ended(&own, ended),
                |ended| go_on_deleting(&own, ended),
            )
            .await;
    });
    tokio::select! {
        biased;
        error = elector.hold() => return Err(error),
        () = ctx.stop.cancelled() => return Ok(elector.release().await?),
        () = ctx.caches.wait_until_filled() => {}
    }
    let mut controllers = JoinSet::new();
    let _ = ctx.working_since.set(Instant::now());
    start_controllers(engine, &mut controllers, ctx, due);
    tracing::info!("controllers started");
    tokio::select! {
        biased;
        // A lost Lease ends the process: nothing in flight is trusted to stop in time.
        error = elector.hold() => return Err(error),
        Some(ended) = watches.join_next() => bail!("a watch ended: {ended:?}"),
        Some(ended) = controllers.join_next() => if !ctx.is_stopping() {
            bail!("a controller ended: {ended:?}")
        },
        () = ctx.stop.cancelled() => {}
    }
    tracing::info!("stopping: the effects in flight are finished first");
    let longest = ctx.fence.duration() + STOP_GRACE;
    tokio::select! {
        biased;
        error = elector.hold() => return Err(error),
        () = async {
            while controllers.join_next().await.is_some() {}
            ctx.in_hand.until_empty().await;
        } => {}
        () = tokio::time::sleep(longest) => bail!("passes did not end in {longest:?}"),
    }
    if ctx.is_owed_an_answer() {
        tracing::warn!(
            "an answer is owed: the Lease runs out by itself, so that a late effect meets no successor"
        );
        return Ok(());
    }
    elector
        .release()
        .await
        .context("the Lease could not be released")?;
    tracing::info!("the Lease is released");
    Ok(())
}

fn keep_caches<E: Engine>(engine: &E, tasks: &mut JoinSet<()>, ctx: &Arc<Context>, writers: Writers) {
    macro_rules! keep {
        ($writer:expr, $route:path) => {
            keep!($writer, |_, _| (), |ctx: &Context, object: &_, change| {
                if change == Change::Object {
                    $route(ctx, object);
                }
            })
        };
        ($writer:expr, $before:expr, $route:expr) => {{
            let (ctx, writer) = (ctx.clone(), $writer);
            engine.spawn(tasks, async move {
                let client = ctx.client.clone();
                let before = |event: &_| $before(&ctx.caches, event);
                caches::keep(client, writer, before, |object, change| {
                    $route(&ctx, object, change)
                })
                .await;
            });
        }};
    }
    keep!(writers.namespaces, route::namespace);
    keep!(writers.backends, route::backend);
    keep!(writers.types, |_, _| (), route::share_type);
    keep!(writers.quotas, |_, _| (), route::share_quota);
    keep!(writers.deletions, note_deletion, route::share_deletion);
    keep!(writers.shares, note_share, |ctx: &Context, share: &_, change| {
        if change == Change::Object {
            route::share(ctx, share);
        }
    });
    keep!(writers.rules, note_rule, route::rule);
    keep!(writers.locks, note_lock, route::resource_lock);
}

fn note_share(caches: &Caches, event: &watcher::Event<Guarded<Share>>) {
    let made_room = caches::note_share(&mut caches.ledger.lock(), event);
    if let watcher::Event::Apply(share) | watcher::Event::InitApply(share) = event
        && made_room
    {
        room_was_made(caches, share);
    }
}

fn note_deletion(caches: &Caches, event: &watcher::Event<Guarded<ShareDeletion>>) {
    let made_room = caches::note_deletion(&mut caches.ledger.lock(), event);
    if let watcher::Event::Apply(deletion)
    | watcher::Event::InitApply(deletion)
    | watcher::Event::Delete(deletion) = event
        && made_room
    {
        remains_are_gone(caches, deletion);
    }
}

fn note_rule(caches: &Caches, event: &watcher::Event<Guarded<ShareAccessRule>>) {
    caches
        .rules_of
        .note(event, |rule| rule.spec.share_ref.name.clone());
}

fn note_lock(caches: &Caches, event: &watcher::Event<Guarded<ResourceLock>>) {
    caches.locks_on.note(event, |lock| {
        let target = &lock.spec.resource_ref;
        resource_lock::key(target.kind, &target.name)
    });
}

fn start_controllers<E: Engine>(engine: &E, tasks: &mut JoinSet<()>, ctx: &Arc<Context>, due: Due) {
    macro_rules! start {
        ($kind:ty, $store:expr, $due:expr) => {{
            let (own, ctx, store, due) = (engine.clone(), ctx.clone(), $store.clone(), $due);
            ctx.metrics.begin(<$kind as Kind>::NAME);
            engine.spawn(tasks, async move { own.control::<$kind>(ctx, store, due).await });
        }};
    }
    start!(ShareBackends, ctx.caches.backends, due.backends);
    start!(ShareTypes, ctx.caches.types, due.types);
    start!(ShareQuotas, ctx.caches.quotas, due.quotas);
    start!(ShareDeletions, ctx.caches.deletions, due.deletions);
    start!(Shares, ctx.caches.shares, due.shares);
    start!(ShareAccessRules, ctx.caches.rules, due.rules);
    start!(ResourceLocks, ctx.caches.locks, due.locks);
}
