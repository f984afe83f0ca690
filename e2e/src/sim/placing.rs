//! Where shares must be, and must not, and what they may take.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, ensure};
use kube::ResourceExt;
use shoal_crds::{
    Placement, QuotaLimits, Share, ShareBackend, ShareDeletion, ShareQuota, Size,
    condition::{reasons, types},
    names::FINALIZER,
};

use shoal_domain::share_deletion;
use tokio::time::Instant;

use super::{api_server::ApiServer, check::parsed};
use crate::world::condition;

const GIB: u64 = 1 << 30;

/// No backend has promised more GiB than `room`, and shares that are to be together, or apart, are.
pub fn check(shares: &[Share], room: Option<u32>) -> Result<()> {
    // What is brought back has its room already, and one that was given up may have lost it meanwhile.
    let asked: Vec<Share> = shares
        .iter()
        .filter(|share| share.spec.source.is_none())
        .cloned()
        .collect();
    for (backend, promised) in promised(&asked) {
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

/// Limits that were in force, by namespace, and since when.
#[derive(Debug, Default)]
pub struct Limits(BTreeMap<String, Vec<(Instant, QuotaLimits)>>);

impl Limits {
    /// How long after a limit was lowered the old one may still be gone by: watches are behind.
    const LAG: Duration = Duration::from_mins(2);

    /// Notes what is in force now.
    pub fn note(&mut self, quotas: &[ShareQuota]) {
        for quota in quotas {
            let history = self.0.entry(quota.namespace().unwrap_or_default()).or_default();
            if history.last().map(|(_, limits)| limits) != Some(&quota.spec.hard) {
                history.push((Instant::now(), quota.spec.hard));
            }
        }
    }

    /// What a namespace's shares take grows no further than some limit that it has, or had until lately. A limit below what
    /// is used stops growth alone.
    pub fn check(&self, namespace: &str, before: (u64, u64), now: (u64, u64)) -> Result<()> {
        let Some(history) = self.0.get(namespace) else {
            return Ok(());
        };
        // Each was in force until the next one came.
        let ends = history.iter().skip(1).map(|(at, _)| Some(*at)).chain([None]);
        let recent = history
            .iter()
            .zip(ends)
            .filter(|(_, end)| end.is_none_or(|end| end.elapsed() < Self::LAG))
            .map(|((_, limits), _)| limits);
        let is_new = history.first().is_some_and(|(at, _)| at.elapsed() < Self::LAG);
        let grown = |before: u64, now: u64| if now > before { now } else { 0 };
        let grown = (grown(before.0, now.0), grown(before.1, now.1));
        ensure!(
            is_new || recent.clone().any(|limits| fits(*limits, grown)),
            "{namespace} had {before:?} and has {now:?}, and {:?} was allowed",
            recent.collect::<Vec<_>>()
        );
        Ok(())
    }
}

/// How many shares a namespace has that are charged, and what.
pub fn used(namespace: &str, shares: &[Share]) -> (u64, u64) {
    let of_it = shares
        .iter()
        .filter(|share| share.namespace().as_deref() == Some(namespace) && on(share).is_some());
    of_it.fold((0, 0), |(count, bytes), share| {
        (count + 1, bytes + charged(share))
    })
}

fn fits(limits: QuotaLimits, (count, bytes): (u64, u64)) -> bool {
    let shares = limits.shares.and_then(|most| u64::try_from(most).ok());
    shares.is_none_or(|most| count <= most) && limits.capacity.is_none_or(|most| bytes <= most.bytes())
}

/// At rest, whoever waits for its namespace's quota would not fit, and quotas tell what is used.
pub fn quotas_at_rest(server: &ApiServer) -> Result<()> {
    let shares: Vec<Share> = parsed(server, "shares");
    let quotas: Vec<ShareQuota> = parsed(server, "sharequotas");
    for share in &shares {
        let status = share.status.clone().unwrap_or_default();
        let why = condition(&status.conditions, types::READY).map(|(_, reason)| reason);
        let namespace = share.namespace().unwrap_or_default();
        if why == Some(reasons::QUOTA_EXCEEDED) {
            let (count, bytes) = used(&namespace, &shares);
            let is_new = u64::from(on(share).is_none());
            let with_it = (count + is_new, bytes - charged(share) + share.spec.size.bytes());
            let of_it = quotas
                .iter()
                .filter(|quota| quota.namespace().as_deref() == Some(&namespace));
            ensure!(
                !of_it.clone().all(|quota| fits(quota.spec.hard, with_it)),
                "{} waits, and {:?} has room beside {count} shares of {bytes}",
                share.name_any(),
                of_it.collect::<Vec<_>>()
            );
        }
    }
    for quota in &quotas {
        let (count, bytes) = used(&quota.namespace().unwrap_or_default(), &shares);
        let told = quota
            .status
            .as_ref()
            .and_then(|status| status.used)
            .unwrap_or_default();
        let told = (u64::try_from(told.shares)?, told.capacity.map_or(0, Size::bytes));
        ensure!(
            told == (count, bytes),
            "{quota:?} tells of {told:?}, and it is {:?}",
            (count, bytes)
        );
    }
    Ok(())
}

/// At rest, whoever waits for room would find none.
pub fn at_rest(server: &ApiServer, room: Option<u32>) -> Result<()> {
    let shares: Vec<Share> = parsed(server, "shares");
    let mut promised = promised(&shares);
    // What is left of deleted shares takes room, and no quota.
    for deletion in parsed::<ShareDeletion>(server, "sharedeletions") {
        if share_deletion::is_pending(&deletion) {
            let backend = promised.entry(deletion.spec.backend_name.clone());
            *backend.or_default() += deletion.spec.size.bytes();
        }
    }
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
        let goes_anywhere = share.spec.placement.is_none() && share.spec.source.is_none() && !is_named;
        if why == Some(reasons::NO_BACKEND_FITS) && goes_anywhere {
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
