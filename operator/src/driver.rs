//! The one way through every controller: load → decide → act → report.
//!
//! A pass loads what it needs, then decides and acts, step by step, until no step is left, and then reports. A crash
//! between any two lines is just a later pass.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Resource, ResourceExt,
    core::object::HasStatus,
    runtime::events::{Event, EventType},
};
use serde::Serialize;
use shoal_domain::{Decision, Failure, Next, Step, decision};
use tokio::time::Instant;
use tracing::Instrument;

use crate::{
    api::{self, Object},
    caches::Guarded,
    context::Context,
    error::Error,
    failpoint, invalid, metrics,
    turns::Turn,
};

/// A pass that has worked this long says where it is.
const REPORT_AFTER: Duration = Duration::from_secs(5);
/// No pass takes more steps than this; one that would is a defect, and stops.
const MOST_STEPS: usize = 64;

/// What a controller adds to the driver: how its kind is loaded, decided on and acted for.
#[async_trait]
pub trait Kind: Send + Sync + 'static {
    /// The API type.
    type Object: Object + HasStatus<Status = Self::Status>;
    /// Its status.
    type Status: Clone + Default + PartialEq + Serialize + Send + Sync;
    /// What a pass sees.
    type Observed: Send + Sync;
    /// What only this kind does.
    type Effect: Effect;
    /// For logs, metrics and the field manager.
    const NAME: &'static str;
    /// Field manager of its status.
    const MANAGER: &'static str;

    /// Gathers everything that decisions rest on, but for what the backend has.
    async fn load(ctx: &Context, object: Self::Object) -> Result<Self::Observed, Error>;
    /// Decides. Pure.
    fn decide(observed: &Self::Observed, now: Timestamp) -> Decision<Self::Status, Self::Effect>;
    /// Takes one step and folds what it learned into what was observed.
    async fn act(ctx: &Context, observed: &mut Self::Observed, effect: Self::Effect) -> Result<(), Error>;
    /// Folds a failure of the backend into what was observed.
    fn fail(observed: &mut Self::Observed, failure: Failure);
    /// The object.
    fn object(observed: &mut Self::Observed) -> &mut Self::Object;
    /// The conditions of its status.
    fn conditions(status: &Self::Status) -> &[Condition];
    /// Whose turn it has to be before a step that speaks to a backend: storage cluster and namespace.
    fn lane(_: &Self::Observed) -> Option<(String, String)> {
        None
    }
    /// How many may work on a storage cluster at once.
    fn at_once(_: &Context, _cluster: &str) -> usize {
        1
    }
    /// How long it waits for its turn while nobody on the storage cluster gets one. None: for ever.
    fn patience(_: &Self::Observed) -> Option<Duration> {
        None
    }
    /// Reserves what is about to be recorded, where others' decisions rest on it. False: what it was decided on has changed,
    /// and is now observed as it is.
    fn reserve(_: &Context, _: &mut Self::Observed, _: &Self::Status) -> Result<bool, Error> {
        Ok(true)
    }
    /// Notes what came of it: whether it was stored. Where that is not known, it stays reserved until the watch tells.
    fn settle(_: &Context, _: &mut Self::Observed, _stored: bool) {}
    /// Told when a pass has come to its end, with what it saw.
    fn ended(_: &Context, _: &Self::Observed) {}
    /// The longest that a step which changes a backend may take: the lease has to outlive it.
    fn deadline(_: &Context, _: &Self::Observed) -> Duration {
        api::REQUEST_TIMEOUT
    }
}

/// What the driver has to know of a step that only one kind takes.
pub trait Effect: Send + std::fmt::Debug {
    /// For logs, metrics and failpoints.
    fn name(&self) -> &'static str;
    /// Whether it speaks to a backend, and so waits for its turn.
    fn speaks_to_backend(&self) -> bool;
    /// Whether it changes something there, and so needs the lease to outlive it.
    fn changes_backend(&self) -> bool;
    /// Whether it rests on the object being as it was loaded, and so on a live read.
    fn needs_live_object(&self) -> bool {
        self.changes_backend()
    }
}

/// How soon an object is looked at again whose pass was ended by the API server.
const AFTER_API_TROUBLE: Duration = Duration::from_secs(2);
/// The change that was in the way of a pass is on its way here, and wakes the object; this is for when it came before. Not
/// sooner: as long as the watch is behind, every pass meets the same conflict, and looks at the backend before it does.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);

/// How soon an object is looked at again of which the cache holds an outdated version.
const UNTIL_WATCHED: Duration = Duration::from_millis(20);

/// One pass over an object as the cache has it, and when the next is due.
pub async fn pass<K: Kind>(ctx: &Context, guard: &Guarded<K::Object>) -> Next {
    let meta = guard.meta();
    let span = tracing::info_span!(
        "reconcile",
        kind = K::NAME,
        namespace = meta.namespace,
        name = meta.name,
        uid = meta.uid,
        generation = meta.generation,
    );
    async {
        let result = match &guard.0 {
            Ok(object) if ctx.written.is_ahead_of(object) => return Next::After(UNTIL_WATCHED),
            Ok(object) => reconcile::<K>(ctx, object.clone()).await,
            Err(broken) => invalid::report::<K>(ctx, broken).await.map(|()| Next::Await),
        };
        match result {
            Ok(next) => next,
            Err(Error::Gone) => Next::Await,
            Err(Error::Conflict) => Next::After(AFTER_CONFLICT),
            Err(error) => {
                tracing::warn!(%error, "a pass ended early");
                Next::After(AFTER_API_TROUBLE)
            }
        }
    }
    .instrument(span)
    .await
}

async fn reconcile<K: Kind>(ctx: &Context, object: K::Object) -> Result<Next, Error> {
    let started = Instant::now();
    let result = Pass::<K>::run(ctx, object).await;
    ctx.metrics
        .pass(K::NAME, result.as_ref().err(), started.elapsed());
    result
}

struct Pass<'a, K: Kind> {
    ctx: &'a Context,
    observed: K::Observed,
    /// Whether the object is known to be the API server's current version.
    live: bool,
    turn: Option<Turn>,
    /// Time spent working, not counting waits for a turn.
    worked_since: Instant,
}

impl<'a, K: Kind> Pass<'a, K> {
    async fn run(ctx: &'a Context, object: K::Object) -> Result<Next, Error> {
        let version = object.resource_version();
        let observed = K::load(ctx, object).await?;
        let mut pass = Self {
            ctx,
            observed,
            live: false,
            turn: None,
            worked_since: Instant::now(),
        };
        let next = pass.steps().await;
        if next.is_ok() {
            K::ended(ctx, &pass.observed);
        }
        let turn = pass.turn.take();
        ctx.in_hand
            .leave(&K::object(&mut pass.observed).uid().unwrap_or_default(), turn);
        let object = K::object(&mut pass.observed);
        if object.resource_version() != version {
            ctx.written.note(object);
        }
        next
    }

    async fn steps(&mut self) -> Result<Next, Error> {
        let ctx = self.ctx;
        for _ in 0..MOST_STEPS {
            if ctx.is_stopping() {
                return Ok(Next::Await);
            }
            let decision = K::decide(&self.observed, ctx.now());
            let Some(step) = decision.step else {
                self.report(&decision.status).await?;
                return Ok(decision.next);
            };
            let (kind, name) = (K::NAME, step_name(&step));
            // What is to be recorded is not said before it is reserved.
            let may_be_said = !matches!(step, Step::Record | Step::RemoveFinalizer);
            if may_be_said && self.worked_since.elapsed() > REPORT_AFTER {
                self.report(&decision.status).await?;
                self.worked_since = Instant::now();
            }
            let started = Instant::now();
            let done = self.take(step, &decision.status).await;
            let outcome = done.as_ref().err().map_or("ok", Error::reason);
            ctx.metrics
                .step_seconds
                .get_or_create(&metrics::Step {
                    kind,
                    step: name,
                    outcome,
                })
                .observe(started.elapsed().as_secs_f64());
            tracing::debug!(
                step = name,
                outcome,
                took_ms = started.elapsed().as_millis(),
                "step"
            );
            match done {
                Ok(Taken::GoOn) => failpoint::hit(&format!("after-{name}")),
                Ok(Taken::Nothing) => {}
                Ok(Taken::Gone) => return Ok(Next::Await),
                Err(Error::Backend(failure)) => {
                    tracing::info!(step = name, reason = failure.reason, message = %failure.message, "the backend failed");
                    K::fail(&mut self.observed, failure);
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Bug(format!(
            "a pass over {} takes more than {MOST_STEPS} steps",
            K::NAME
        )))
    }

    async fn take(&mut self, step: Step<K::Effect>, status: &K::Status) -> Result<Taken, Error> {
        let client = &self.ctx.client;
        match step {
            Step::AddFinalizer => {
                let object = K::object(&mut self.observed);
                *object = api::add_finalizer(client, object).await?;
                self.live = true;
            }
            Step::Record => {
                // A version alone does not fence what others decide on.
                if !self.ctx.fence.covers(api::REQUEST_TIMEOUT) {
                    return Err(Error::NotLeading);
                }
                if !K::reserve(self.ctx, &mut self.observed, status)? {
                    return Ok(Taken::Nothing);
                }
                let stored = self.report(status).await;
                if stored.as_ref().err().is_none_or(Error::is_refusal) {
                    K::settle(self.ctx, &mut self.observed, stored.is_ok());
                }
                stored?;
                self.live = true;
            }
            Step::RemoveFinalizer => {
                let object = K::object(&mut self.observed);
                api::remove_finalizer(client, object).await?;
                self.ctx.written.note_gone(object);
                failpoint::hit("after-RemoveFinalizer");
                return Ok(Taken::Gone);
            }
            Step::Do(effect) => {
                if effect.speaks_to_backend() {
                    self.wait_for_turn().await?;
                }
                if effect.needs_live_object() && !self.live {
                    let object = K::object(&mut self.observed);
                    let found = api::live(client, object).await?;
                    self.live = true;
                    if found.resource_version() != object.resource_version() {
                        *object = found;
                        return Ok(Taken::GoOn);
                    }
                }
                // Writes to the API server are fenced by the versions they carry; these here by the lease alone.
                let longest = if effect.changes_backend() {
                    K::deadline(self.ctx, &self.observed)
                } else {
                    api::REQUEST_TIMEOUT
                };
                if !self.ctx.fence.covers(longest) {
                    return Err(Error::NotLeading);
                }
                K::act(self.ctx, &mut self.observed, effect).await?;
            }
        }
        Ok(Taken::GoOn)
    }

    async fn wait_for_turn(&mut self) -> Result<(), Error> {
        if let Some((cluster, namespace)) = K::lane(&self.observed) {
            if self.turn.as_ref().is_some_and(|turn| turn.is_on(&cluster)) {
                return Ok(());
            }
            // Where it looked before it was placed is not where it is placed.
            self.turn = None;
            let asked = Instant::now();
            let turns = &self.ctx.turns;
            let most = K::at_once(self.ctx, &cluster);
            self.turn = match K::patience(&self.observed) {
                None => Some(turns.take(&cluster, &namespace, most).await),
                Some(longest) => tokio::select! {
                    biased;
                    turn = turns.take(&cluster, &namespace, most) => Some(turn),
                    () = turns.until_stuck(&cluster, longest) => {
                        return Err(Error::Backend(shoal_domain::share::not_accepted_yet()));
                    }
                },
            };
            self.worked_since += asked.elapsed();
        }
        Ok(())
    }

    /// Writes the status if it says anything new, and tells people of trouble.
    async fn report(&mut self, status: &K::Status) -> Result<(), Error> {
        let object = K::object(&mut self.observed);
        let before = object.status().cloned().unwrap_or_default();
        if before == *status {
            return Ok(());
        }
        failpoint::hit("before-status");
        *object = api::store_status(&self.ctx.client, K::MANAGER, object, status).await?;
        self.ctx
            .metrics
            .status_writes
            .get_or_create(&metrics::Kind { kind: K::NAME })
            .inc();
        let events = decision::trouble(K::conditions(&before), K::conditions(status));
        let reference = K::object(&mut self.observed).object_ref(&());
        for event in events {
            publish(self.ctx, &reference, event).await;
        }
        Ok(())
    }
}

enum Taken {
    GoOn,
    /// What the step was decided on is not so any more: to be decided anew.
    Nothing,
    Gone,
}

fn step_name<E: Effect>(step: &Step<E>) -> &'static str {
    match step {
        Step::AddFinalizer => "AddFinalizer",
        Step::Record => "Record",
        Step::RemoveFinalizer => "RemoveFinalizer",
        Step::Do(effect) => effect.name(),
    }
}

/// Tells people of trouble. An event that can't be written is not worth a pass: the condition says the same.
pub async fn publish(
    ctx: &Context,
    about: &k8s_openapi::api::core::v1::ObjectReference,
    event: decision::Event,
) {
    let event = Event {
        type_: EventType::Warning,
        reason: event.reason,
        note: Some(event.message.chars().take(1000).collect()),
        action: "Reconcile".into(),
        secondary: None,
    };
    let published = tokio::time::timeout(api::REQUEST_TIMEOUT, ctx.recorder.publish(&event, about)).await;
    if !matches!(published, Ok(Ok(()))) {
        tracing::warn!(reason = event.reason, "an event could not be written");
    }
}
