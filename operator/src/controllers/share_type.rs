//! The controller of ShareTypes.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use shoal_crds::{ShareType, ShareTypeStatus};
use shoal_domain::{
    Decision, Failure,
    share_type::{self, Never, Observed},
};

use crate::{
    caches::parsed,
    context::Context,
    driver::{Effect, Kind},
    error::Error,
};

/// Says which backends a type selects.
pub struct ShareTypes;

impl Effect for Never {
    fn name(&self) -> &'static str {
        match *self {}
    }
    fn speaks_to_backend(&self) -> bool {
        match *self {}
    }
    fn changes_backend(&self) -> bool {
        match *self {}
    }
}

#[async_trait]
impl Kind for ShareTypes {
    type Object = ShareType;
    type Status = ShareTypeStatus;
    type Observed = Observed;
    type Effect = Never;
    const NAME: &'static str = "ShareType";
    const MANAGER: &'static str = "shoal/sharetype";

    async fn load(ctx: &Context, share_type: ShareType) -> Result<Observed, Error> {
        let types = parsed(&ctx.caches.types, |_| true);
        let newer_default = share_type::default_of(&types)
            .map(ResourceExt::name_any)
            .filter(|name| *name != share_type.name_any());
        Ok(Observed {
            share_type,
            candidates: super::candidates(ctx, &BTreeMap::new(), |_| true),
            newer_default,
        })
    }

    fn decide(observed: &Observed, now: Timestamp) -> Decision<ShareTypeStatus, Never> {
        share_type::decide(observed, now)
    }

    async fn act(_: &Context, _: &mut Observed, effect: Never) -> Result<(), Error> {
        match effect {}
    }

    fn fail(_: &mut Observed, _: Failure) {}

    fn object(observed: &mut Observed) -> &mut ShareType {
        &mut observed.share_type
    }

    fn conditions(status: &ShareTypeStatus) -> &[Condition] {
        &status.conditions
    }
}
