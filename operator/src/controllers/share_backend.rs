//! The controller of ShareBackends.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt, runtime::reflector::ObjectRef};
use shoal_backend::Backend as _;
use shoal_crds::{Share, ShareBackend, ShareBackendStatus, ShareDeletion, condition::reasons};
use shoal_domain::{
    Decision, Failure, ensure,
    identity::{Description, Identity},
    ledger,
    share_backend::{self, Observed},
};

use crate::{
    api,
    context::Context,
    driver::{self, Kind},
    error::Error,
};

/// How many of the shares that are in the way of its deletion a backend names.
const NAMED: usize = 10;

/// Keeps in touch with backends, and lets shares use those that answer as recorded.
pub struct ShareBackends;

impl driver::Effect for share_backend::Effect {
    fn name(&self) -> &'static str {
        self.name()
    }
    // Asking a backend what it is must not wait behind the shares that wait for the answer.
    fn speaks_to_backend(&self) -> bool {
        false
    }
    fn changes_backend(&self) -> bool {
        false
    }
}

#[async_trait]
impl Kind for ShareBackends {
    type Object = ShareBackend;
    type Status = ShareBackendStatus;
    type Observed = Observed;
    type Effect = share_backend::Effect;
    const NAME: &'static str = "ShareBackend";
    const MANAGER: &'static str = "shoal/sharebackend";

    async fn load(ctx: &Context, backend: ShareBackend) -> Result<Observed, Error> {
        let name = backend.name_any();
        let is_leaving = backend.meta().deletion_timestamp.is_some();
        let round = ctx.ensures.round(&name).map(|round| {
            let tally = ctx.ensures.tally(&name, concerned(ctx, &name).keys());
            (round, tally)
        });
        let uid = backend.uid().unwrap_or_default();
        let others = super::others_beside(ctx, &backend);
        let scan = ctx.orphans.scan(&name, &uid, &others);
        let ledger = ctx.caches.ledger.lock();
        Ok(Observed {
            round,
            scan,
            is_asked: false,
            load: ledger.load(&name),
            in_the_way: if is_leaving {
                ledger.on_backend(&name, NAMED)
            } else {
                Vec::new()
            },
            is_empty: false,
            backend,
            description: None,
            admitted: None,
        })
    }

    fn decide(observed: &Observed, now: Timestamp) -> Decision<ShareBackendStatus, share_backend::Effect> {
        share_backend::decide(observed, now)
    }

    async fn act(ctx: &Context, o: &mut Observed, effect: share_backend::Effect) -> Result<(), Error> {
        match effect {
            share_backend::Effect::Describe => o.description = Some(Ok(describe(ctx, &o.backend).await?)),
            share_backend::Effect::Scan(on) => scan(ctx, o, &on).await?,
            share_backend::Effect::Admit(verdict) => {
                let (name, uid) = (o.backend.name_any(), o.backend.uid().unwrap_or_default());
                let is_dry_run = matches!(&*verdict, Err(why) if why.reason == reasons::DRY_RUN);
                let found = o.description.clone().and_then(Result::ok);
                let dry_run = found.filter(|_| is_dry_run);
                if ctx.backends.admit(&name, &uid, (*verdict).clone(), dry_run) {
                    super::wake_shares_on(&ctx.caches, &name);
                }
                o.admitted = Some(*verdict);
            }
            share_backend::Effect::Ensure(round) => {
                let name = o.backend.name_any();
                let shares = concerned(ctx, &name);
                for uid in ctx.ensures.go_on(&name, &round, shares.keys()) {
                    let (namespace, name) = &shares[&uid];
                    ctx.caches.share_queue.push(namespace, name);
                }
                let tally = ctx.ensures.tally(&name, shares.keys());
                o.round = Some((round, tally));
                o.is_asked = true;
            }
            share_backend::Effect::EndRound => {
                ctx.ensures.end(&o.backend.name_any());
                o.round = None;
            }
            share_backend::Effect::ConfirmEmpty => {
                let name = o.backend.name_any();
                {
                    // Passes that read before that it takes shares have to read again, and then see that it is leaving.
                    let mut ledger = ctx.caches.ledger.lock();
                    ledger.turn_page();
                    o.in_the_way = ledger.on_backend(&name, NAMED);
                }
                if o.in_the_way.is_empty() {
                    let on_it = format!("status.backendName={name}");
                    o.in_the_way = api::some_names::<Share>(&ctx.client, &on_it, NAMED).await?;
                }
                // What was given up and is taken up again says so in its spec first.
                for pending in ["status.phase!=Abandoned", "spec.abandon!=true"] {
                    if o.in_the_way.is_empty() {
                        let left = format!("spec.backendName={name},{pending}");
                        let left = api::some_names::<ShareDeletion>(&ctx.client, &left, NAMED).await?;
                        o.in_the_way = left
                            .iter()
                            .map(|name| ledger::deletion_in_the_way(name))
                            .collect();
                    }
                }
                o.is_empty = o.in_the_way.is_empty();
            }
        }
        Ok(())
    }

    fn fail(observed: &mut Observed, failure: Failure) {
        observed.description = Some(Err(failure));
    }

    fn object(observed: &mut Observed) -> &mut ShareBackend {
        &mut observed.backend
    }

    fn conditions(status: &ShareBackendStatus) -> &[Condition] {
        &status.conditions
    }
}

/// The shares of a backend that rounds are over, by uid: namespace and name.
fn concerned(ctx: &Context, backend: &str) -> BTreeMap<String, (String, String)> {
    let mut shares = ctx.caches.ledger.lock().shares_on(backend);
    shares.retain(|uid, (namespace, name)| {
        let there = ctx.caches.shares.get(&ObjectRef::new(name).within(namespace));
        let there = there.filter(|guard| guard.uid().as_ref() == Some(uid));
        there.is_none_or(|guard| guard.0.as_ref().is_ok_and(ensure::is_concerned))
    });
    shares
}

/// Looks through what is there. Objects are known before what was made for them: what none claims now no object owns.
async fn scan(ctx: &Context, o: &mut Observed, on: &Identity) -> Result<(), Error> {
    let (name, uid) = (o.backend.name_any(), o.backend.uid().unwrap_or_default());
    let backend = ctx.backends.connect(&ctx.client, &o.backend).await?;
    let is_claimed = |subvolume: &str| ctx.caches.ledger.lock().is_held(subvolume);
    match ctx.orphans.go_on(&name, &*backend, on, is_claimed).await {
        Ok(true) => super::wake_unplaced(&ctx.caches),
        Ok(false) => {}
        // No share that is there waits for it.
        Err(Error::Backend(why)) => {
            tracing::warn!(backend = name, reason = why.reason, message = %why.message, "not looked through");
            ctx.orphans.put_off(&name, why);
        }
        Err(error) => return Err(error),
    }
    o.scan = ctx
        .orphans
        .scan(&name, &uid, &super::others_beside(ctx, &o.backend));
    Ok(())
}

async fn describe(ctx: &Context, object: &ShareBackend) -> Result<Description, Error> {
    let backend = ctx.backends.connect(&ctx.client, object).await?;
    let recorded = object.status.as_ref().and_then(share_backend::recorded);
    Ok(backend.describe(recorded.as_ref()).await?)
}
