//! Where shares must be, and must not.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use kube::ResourceExt;
use shoal_crds::{
    Placement, Share, ShareBackend,
    condition::{reasons, types},
    names::FINALIZER,
};

use super::{api_server::ApiServer, check::parsed};
use crate::world::condition;

const GIB: u64 = 1 << 30;

/// No backend has promised more GiB than `room`, and shares that are to be together, or apart, are.
pub fn check(shares: &[Share], room: Option<u32>) -> Result<()> {
    for (backend, promised) in promised(shares) {
        ensure!(
            room.is_none_or(|gib| promised <= u64::from(gib) * GIB),
            "{backend} has promised {promised} bytes: {:#?}",
            shares
                .iter()
                .map(|s| (&s.metadata, &s.status))
                .collect::<Vec<_>>()
        );
    }
    for share in shares {
        let wishes = share.spec.placement.clone().unwrap_or_default();
        for other in shares
            .iter()
            .filter(|other| other.namespace() == share.namespace())
        {
            let (Some(own), Some(its)) = (on(share), on(other)) else {
                continue;
            };
            let named = |names: &[String]| names.contains(&other.name_any()) && other.uid() != share.uid();
            ensure!(
                !named(&wishes.same_backend_as) || own == its,
                "{} is on {own}, and {} on {its}",
                share.name_any(),
                other.name_any()
            );
            ensure!(
                !named(&wishes.different_backend_from) || own != its,
                "{} and {} are both on {own}",
                share.name_any(),
                other.name_any()
            );
        }
    }
    Ok(())
}

/// At rest, whoever waits for room would find none.
pub fn at_rest(server: &ApiServer, room: Option<u32>) -> Result<()> {
    let shares: Vec<Share> = parsed(server, "shares");
    let promised = promised(&shares);
    let fits = |backend: &str, bytes: u64| {
        let taken = promised.get(backend).copied().unwrap_or_default();
        room.is_none_or(|gib| taken + bytes <= u64::from(gib) * GIB)
    };
    let open = parsed::<ShareBackend>(server, "sharebackends");
    let open: Vec<_> = open
        .iter()
        .filter(|b| b.spec.scheduling_enabled && b.metadata.deletion_timestamp.is_none())
        .map(ResourceExt::name_any)
        .collect();
    for share in &shares {
        let status = share.status.clone().unwrap_or_default();
        let asked = share.spec.size.bytes();
        let why = condition(&status.conditions, types::READY).map(|(_, reason)| reason);
        let is_named = shares.iter().any(|other| {
            let wishes = other.spec.placement.clone().unwrap_or_default();
            let Placement {
                same_backend_as,
                different_backend_from,
                ..
            } = wishes;
            [same_backend_as, different_backend_from]
                .concat()
                .contains(&share.name_any())
        });
        if why == Some(reasons::NO_BACKEND_FITS) && share.spec.placement.is_none() && !is_named {
            let place = open.iter().find(|backend| fits(backend, asked));
            ensure!(
                place.is_none(),
                "{} waits, and {place:?} has room",
                share.name_any()
            );
        }
        if why == Some(reasons::NO_ROOM_TO_EXTEND)
            && let Some(backend) = on(share)
        {
            ensure!(
                !fits(backend, asked - charged(share)),
                "{} waits to grow, and {backend} has room",
                share.name_any()
            );
        }
    }
    Ok(())
}

fn promised(shares: &[Share]) -> BTreeMap<String, u64> {
    let mut promised = BTreeMap::new();
    for share in shares {
        if let Some(backend) = on(share) {
            *promised.entry(backend.to_owned()).or_default() += charged(share);
        }
    }
    promised
}

/// Where a share is, for as long as it has a claim there.
pub fn on(share: &Share) -> Option<&str> {
    let is_held = share.finalizers().iter().any(|f| f == FINALIZER);
    let is_gone = share.metadata.deletion_timestamp.is_some() && !is_held;
    share
        .status
        .as_ref()?
        .backend_name
        .as_deref()
        .filter(|_| !is_gone)
}

fn charged(share: &Share) -> u64 {
    let quota = share.status.as_ref().and_then(|status| status.quota);
    quota.map_or(0, |quota| quota.charged.bytes())
}
