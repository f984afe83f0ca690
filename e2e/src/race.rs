//! Many shares at once for few places, while one replica after the other is killed.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::Value;
use shoal_crds::{Share, ShareDeletion, condition::reasons};
use shoal_domain::share_deletion;

use crate::{
    simulated_storage::SimulatedStorage,
    world::{OperatorOptions, PATIENCE, condition, eventually},
};

/// Shares that ask for a place.
const SHARES: usize = 200;
/// How many get one.
pub const PLACES: usize = 50;
/// Shares that then go, for others to have their places.
const GO: usize = 15;

/// What there are [`PLACES`] of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Places {
    /// A quota has them.
    OfQuota,
    /// A backend has room for them.
    OnBackend,
}

impl Places {
    /// What a share says that waits for one: a condition, and its reason.
    fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::OfQuota => ("QuotaReserved", reasons::QUOTA_EXCEEDED),
            Self::OnBackend => ("Scheduled", reasons::NO_BACKEND_FITS),
        }
    }
}

/// Shares that ask for `spec` in a namespace: never more have a place than there are, and never fewer for good. Nobody else
/// may need the operator meanwhile.
pub async fn race(s: &SimulatedStorage, namespace: &str, spec: &Value, places: Places) -> Result<()> {
    // One that waits for the Lease, and is not waited for.
    let standby = |name: &str| OperatorOptions {
        failpoints: "never=off".into(),
        ..s.operator_options(name)
    };
    let mut second = s.world.operator(&standby("second")).await?;
    stream::iter(0..SHARES)
        .map(|n| async move { s.world.share(namespace, &format!("s{n}"), spec.clone()).await })
        .buffer_unordered(16)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let api = s.world.api::<Share>(namespace);
    for round in 0..4 {
        if round % 2 == 0 {
            s.kill_operator().await?;
            s.start_operator_with(&standby("operator")).await?;
        } else {
            second.kill()?;
            second = s.world.operator(&standby("second")).await?;
        }
        let ready = eventually(
            "all places to be taken, and the others told",
            PATIENCE,
            async || {
                let shares = api.list(&ListParams::default()).await?.items;
                let taken = taken(s, namespace, &shares, places).await?;
                ensure!(
                    taken <= PLACES,
                    "{taken} places are taken, and there are {PLACES}"
                );
                let (type_, reason) = places.told();
                let is = |share: &Share, type_: &str, wanted: (&str, &str)| {
                    let conditions = share.status.as_ref().map_or(&[][..], |s| &s.conditions);
                    condition(conditions, type_) == Some(wanted)
                };
                let waiting = shares
                    .iter()
                    .filter(|share| is(share, type_, ("False", reason)))
                    .count();
                let total = shares.len();
                let mut ready = shares;
                // One that is on its way out has its place for a moment yet.
                ready.retain(|share| {
                    share.metadata.deletion_timestamp.is_none()
                        && is(share, "Ready", ("True", reasons::AVAILABLE))
                });
                Ok((ready.len() == PLACES && waiting == total - PLACES).then_some(ready))
            },
        )
        .await?;
        for share in ready.iter().take(GO) {
            api.delete(&share.name_any(), &DeleteParams::default()).await?;
        }
    }
    second.kill()?;
    s.kill_operator().await?;
    s.start_operator("").await?;
    s.clear(namespace).await
}

/// How many shares have a place. What is left of deleted ones has theirs on the backend, and not of the quota.
async fn taken(s: &SimulatedStorage, namespace: &str, shares: &[Share], places: Places) -> Result<usize> {
    let charged = |share: &&Share| share.status.as_ref().is_some_and(|status| status.quota.is_some());
    let mut taken: BTreeSet<_> = shares
        .iter()
        .filter(charged)
        .filter_map(ResourceExt::uid)
        .collect();
    if places == Places::OnBackend {
        let left: Vec<ShareDeletion> = s.deletions(Some(namespace)).await?;
        let pending = left.into_iter().filter(share_deletion::is_pending);
        taken.extend(pending.map(|left| left.spec.share_ref.uid));
    }
    Ok(taken.len())
}
