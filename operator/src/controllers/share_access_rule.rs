//! The controller of ShareAccessRules: for the mark of those that are locked, and for rules whose share does not exist. The others
//! are the share's to apply.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Api, ResourceExt, runtime::reflector::ObjectRef};
use shoal_crds::{LockedKind, Share, ShareAccessRule, ShareAccessRuleStatus};
use shoal_domain::{
    Decision, Failure,
    resource_lock::{self, Mark},
    share_access_rule::{self, Effect, Observed},
};

use super::resource_lock as locks;
use crate::{
    api,
    context::Context,
    custody,
    driver::{self, Kind},
    error::Error,
};

/// Field manager of a rule's status, whichever of its two writers it is.
pub(super) const MANAGER: &str = "shoal/shareaccessrule";

const KIND: LockedKind = LockedKind::ShareAccessRule;

/// Tells rules without a share that they wait, and lets them go when they are deleted.
pub struct ShareAccessRules;

impl driver::Effect for Effect {
    fn name(&self) -> &'static str {
        match self {
            Self::ConfirmAbsence => "ConfirmAbsence",
            Self::EndCustody => "EndCustody",
            Self::Mark(_) => "Mark",
        }
    }
    fn speaks_to_backend(&self) -> bool {
        false
    }
    fn changes_backend(&self) -> bool {
        false
    }
}

#[async_trait]
impl Kind for ShareAccessRules {
    type Object = ShareAccessRule;
    type Status = ShareAccessRuleStatus;
    type Observed = Observed;
    type Effect = Effect;
    const NAME: &'static str = "ShareAccessRule";
    const MANAGER: &'static str = MANAGER;

    async fn load(ctx: &Context, rule: ShareAccessRule) -> Result<Observed, Error> {
        let key = ObjectRef::new(&rule.spec.share_ref.name).within(&rule.namespace().unwrap_or_default());
        let share_exists = ctx.caches.shares.get(&key).is_some();
        Ok(Observed {
            locks: locks::cached(ctx, KIND, &rule.metadata),
            rule,
            share_exists,
            absence_confirmed: false,
            custody_ended: false,
        })
    }

    fn decide(observed: &Observed, now: Timestamp) -> Decision<ShareAccessRuleStatus, Effect> {
        share_access_rule::decide(observed, now)
    }

    async fn act(ctx: &Context, o: &mut Observed, effect: Effect) -> Result<(), Error> {
        match effect {
            Effect::ConfirmAbsence => {
                let shares: Api<Share> =
                    Api::namespaced(ctx.client.clone(), &o.rule.namespace().unwrap_or_default());
                let found = api::bounded(shares.get_metadata_opt(&o.rule.spec.share_ref.name)).await?;
                o.share_exists = found.is_some();
                o.absence_confirmed = found.is_none();
                if o.rule.metadata.deletion_timestamp.is_some() {
                    confirm_locks(ctx, o).await?;
                }
                Ok(())
            }
            Effect::EndCustody => {
                custody::end(ctx, &o.rule).await?;
                o.custody_ended = true;
                Ok(())
            }
            Effect::Mark(mark) => {
                if mark == Mark::Lift {
                    confirm_locks(ctx, o).await?;
                }
                locks::set(ctx, &mut o.rule, &mut o.locks, mark).await
            }
        }
    }

    fn fail(_: &mut Observed, _: Failure) {}

    fn object(observed: &mut Observed) -> &mut ShareAccessRule {
        &mut observed.rule
    }

    fn conditions(status: &ShareAccessRuleStatus) -> &[Condition] {
        &status.conditions
    }
}

/// Reads the rule's locks from the API server itself.
async fn confirm_locks(ctx: &Context, o: &mut Observed) -> Result<(), Error> {
    let mut all = locks::live(ctx, &o.rule.namespace().unwrap_or_default()).await?;
    all.retain(|lock| resource_lock::holds(lock, KIND, &o.rule.metadata));
    o.locks = all;
    Ok(())
}
