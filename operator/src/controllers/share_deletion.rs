//! The controller of ShareDeletions: it finishes what is left of shares that are gone.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use serde_json::{Value, json};
use shoal_backend::Backend as _;
use shoal_crds::{Share, ShareDeletion, ShareDeletionStatus, names::FINALIZER};
use shoal_domain::{
    Decision, Failure,
    owner::{Owner, Tag},
    share_deletion::{self, Effect, Observed, Whereabouts},
    volume::{Export, Sight},
};

use crate::{
    api,
    context::Context,
    driver::{self, Kind},
    error::Error,
};

/// Finishes deletions.
pub struct ShareDeletions;

impl driver::Effect for Effect {
    fn name(&self) -> &'static str {
        self.name()
    }
    fn speaks_to_backend(&self) -> bool {
        self.speaks_to_backend()
    }
    fn changes_backend(&self) -> bool {
        self.changes_backend()
    }
}

#[async_trait]
impl Kind for ShareDeletions {
    type Object = ShareDeletion;
    type Status = ShareDeletionStatus;
    type Observed = Observed;
    type Effect = Effect;
    const NAME: &'static str = "ShareDeletion";
    const MANAGER: &'static str = "shoal/sharedeletion";

    async fn load(ctx: &Context, deletion: ShareDeletion) -> Result<Observed, Error> {
        let backend = super::backend(ctx, &deletion.spec.backend_name);
        Ok(Observed {
            cluster: ctx.cluster.clone(),
            backend: backend.map(|entry| entry.map_or_else(Err, |entry| entry.state)),
            is_in_hand: ctx.in_hand.contains(&deletion.spec.share_ref.uid),
            share: None,
            adopter: None,
            sight: None,
            failure: None,
            deletion,
        })
    }

    fn decide(observed: &Observed, now: Timestamp) -> Decision<ShareDeletionStatus, Effect> {
        share_deletion::decide(observed, now)
    }

    async fn act(ctx: &Context, o: &mut Observed, effect: Effect) -> Result<(), Error> {
        let spec = &o.deletion.spec;
        match effect {
            Effect::FindShare => {
                let gone = &spec.share_ref;
                o.share = Some(whereabouts(ctx, &gone.namespace, &gone.name, &gone.uid).await?);
            }
            Effect::FindAdopter => {
                o.adopter = match &spec.adopted_by {
                    Some(by) => Some(whereabouts(ctx, &by.namespace, &by.name, &by.uid).await?),
                    None => None,
                };
            }
            Effect::Unclaim => {
                let unclaimed = json!({"adoptedBy": Value::Null});
                o.deletion = api::patch_spec(&ctx.client, &o.deletion, unclaimed).await?;
            }
            Effect::Finish => match api::delete(&ctx.client, &o.deletion).await? {
                Some(left) => o.deletion = left,
                None => return Err(Error::Gone),
            },
            effect => {
                let name = spec.backend_name.clone();
                let done = on_backend(ctx, o, &effect).await;
                if let Err(Error::Backend(failure)) = &done {
                    super::trouble(ctx, &name, failure);
                }
                return done;
            }
        }
        Ok(())
    }

    fn fail(observed: &mut Observed, failure: Failure) {
        observed.failure = Some(failure);
    }

    fn object(observed: &mut Observed) -> &mut ShareDeletion {
        &mut observed.deletion
    }

    fn conditions(status: &ShareDeletionStatus) -> &[Condition] {
        &status.conditions
    }

    fn lane(o: &Observed) -> Option<(String, String)> {
        let spec = &o.deletion.spec;
        Some((spec.fsid.clone(), spec.share_ref.namespace.clone()))
    }

    fn at_once(ctx: &Context, cluster: &str) -> usize {
        super::at_once(ctx, cluster)
    }

    fn deadline(ctx: &Context, o: &Observed) -> Duration {
        match super::backend(ctx, &o.deletion.spec.backend_name) {
            Some(Ok(entry)) => entry.backend.deadline(),
            // Without a backend there is no effect.
            _ => Duration::ZERO,
        }
    }
}

/// Where this very Share is, from the API server itself.
async fn whereabouts(ctx: &Context, namespace: &str, name: &str, uid: &str) -> Result<Whereabouts, Error> {
    let found = api::find_metadata::<Share>(&ctx.client, Some(namespace), name).await?;
    Ok(match found.filter(|share| share.uid().as_deref() == Some(uid)) {
        Some(share) if share.metadata.deletion_timestamp.is_none() => Whereabouts::There,
        Some(share) if share.finalizers().iter().any(|f| f == FINALIZER) => Whereabouts::Leaving,
        None | Some(_) => Whereabouts::Gone,
    })
}

/// Steps that speak to the backend.
async fn on_backend(ctx: &Context, o: &mut Observed, effect: &Effect) -> Result<(), Error> {
    let on = share_deletion::recorded(&o.deletion.spec);
    let backend = match super::backend(ctx, &o.deletion.spec.backend_name) {
        // It may have come to be only looked at since the pass began.
        Some(Ok(entry)) if effect.changes_backend() && entry.dry_run.is_some() => {
            return Err(Error::Conflict);
        }
        Some(Ok(entry)) => entry.backend,
        Some(Err(failure)) => return Err(Error::Backend(failure)),
        None => return Err(Error::Gone),
    };
    let volume = share_deletion::volume_ref(&o.deletion, &o.cluster);
    match effect {
        Effect::Look => o.sight = Some(backend.look(&on, &volume).await?),
        Effect::Unexport => {
            backend.unexport(&on, &volume).await?;
            match &mut o.sight {
                Some(Sight::Present(seen)) => seen.export = Export::Absent,
                Some(Sight::Absent { leftovers }) => *leftovers = false,
                None => {}
            }
        }
        Effect::Mark(left) => {
            let marked = Owner {
                left: Some(*left),
                ..volume.owner.clone()
            };
            backend.hand_over(&on, &volume, &marked).await?;
            if let Some(Sight::Present(seen)) = &mut o.sight {
                seen.tag = Tag::Owner(marked);
            }
        }
        Effect::Remove => {
            backend.remove(&on, &volume).await?;
            o.sight = Some(Sight::Absent { leftovers: false });
        }
        Effect::FindShare | Effect::FindAdopter | Effect::Unclaim | Effect::Finish => {}
    }
    Ok(())
}
