//! The controller of ShareBackends.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use shoal_crds::{ShareBackend, ShareBackendStatus};
use shoal_domain::{
    Decision, Failure,
    identity::Description,
    share_backend::{self, Observed},
};

use crate::{
    context::Context,
    driver::{self, Kind},
    error::Error,
};

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

    async fn load(_: &Context, backend: ShareBackend) -> Result<Observed, Error> {
        Ok(Observed {
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
            share_backend::Effect::Admit(verdict) => {
                let (name, uid) = (o.backend.name_any(), o.backend.uid().unwrap_or_default());
                if ctx.backends.admit(&name, &uid, (*verdict).clone()) {
                    super::wake_shares_on(&ctx.caches, &name);
                }
                o.admitted = Some(*verdict);
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

async fn describe(ctx: &Context, object: &ShareBackend) -> Result<Description, Error> {
    let backend = ctx.backends.connect(&ctx.client, object).await?;
    let recorded = object.status.as_ref().and_then(share_backend::recorded);
    Ok(backend.describe(recorded.as_ref()).await?)
}
