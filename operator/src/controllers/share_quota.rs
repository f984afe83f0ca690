//! The controller of ShareQuotas: it tells what is used. What is let in is decided by the passes of shares.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use shoal_crds::{ShareQuota, ShareQuotaStatus};
use shoal_domain::{
    Decision, Failure,
    share_quota::{self, Observed},
    share_type::Never,
};

use crate::{context::Context, driver::Kind, error::Error};

/// Says what of a quota is used.
pub struct ShareQuotas;

#[async_trait]
impl Kind for ShareQuotas {
    type Object = ShareQuota;
    type Status = ShareQuotaStatus;
    type Observed = Observed;
    type Effect = Never;
    const NAME: &'static str = "ShareQuota";
    const MANAGER: &'static str = "shoal/sharequota";

    async fn load(ctx: &Context, quota: ShareQuota) -> Result<Observed, Error> {
        let usage = ctx
            .caches
            .ledger
            .lock()
            .usage(&quota.namespace().unwrap_or_default());
        Ok(Observed { quota, usage })
    }

    fn decide(observed: &Observed, now: Timestamp) -> Decision<ShareQuotaStatus, Never> {
        share_quota::decide(observed, now)
    }

    async fn act(_: &Context, _: &mut Observed, effect: Never) -> Result<(), Error> {
        match effect {}
    }

    fn fail(_: &mut Observed, _: Failure) {}

    fn object(observed: &mut Observed) -> &mut ShareQuota {
        &mut observed.quota
    }

    fn conditions(status: &ShareQuotaStatus) -> &[Condition] {
        &status.conditions
    }
}
