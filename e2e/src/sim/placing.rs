//! Where shares must be, and must not, and what they may take.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Result, ensure};
use kube::ResourceExt;
use shoal_crds::{
    Placement, QuotaLimits, QuotaUse, Share, ShareBackend, ShareDeletion, ShareQuota, ShareQuotaSpec, Size,
    condition::{reasons, types},
    names::FINALIZER,
};

use shoal_domain::{
    ledger::Claim,
    mount_point::MountPoint,
    owner::{Place, subvolume_name},
    share_deletion,
};
use tokio::time::Instant;

use super::api_server::ApiServer;
use crate::world::condition;

const GIB: u64 = 1 << 30;

/// No backend has promised more GiB than `room`, with what is left of deleted shares, and shares that are to be together, or
/// apart, are.
pub fn check(shares: &[Share], deletions: &[ShareDeletion], room: Option<u32>) -> Result<()> {
    // What is brought back has its room already, and one that was given up may have lost it meanwhile.
    let asked: Vec<Share> = shares
        .iter()
        .filter(|share| share.spec.source.is_none())
        .cloned()
        .collect();
    let mut promised = promised(&asked);
    let counts = |uid: &str| {
        let share = shares.iter().find(|share| share.uid().as_deref() == Some(uid));
        share.and_then(on).is_some()
    };
    for left in deletions {
        let uid = &left.spec.share_ref.uid;
        let was_brought_back = Place::of(left.spec.handle.as_deref(), uid).subvolume != subvolume_name(uid);
        if share_deletion::is_pending(left) && !was_brought_back && !counts(uid) {
            *promised.entry(left.spec.backend_name.clone()).or_default() += left.spec.size.bytes();
        }
    }
    for (backend, promised) in promised {
        ensure!(
            room.is_none_or(|gib| promised <= u64::from(gib) * GIB),
            "{backend} has promised {promised} bytes: {:#?} {deletions:#?}",
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

/// Who has a name on an NFS cluster: uids of shares, and of deleted ones that may still be exported.
fn claims(shares: &[Share], deletions: &[ShareDeletion]) -> BTreeMap<MountPoint, BTreeSet<String>> {
    let mut claims = BTreeMap::<_, BTreeSet<_>>::new();
    let of_shares = shares
        .iter()
        .filter(|share| on(share).is_some())
        .filter_map(|share| {
            let status = share.status.as_ref()?;
            Some((Claim::of(&share.spec, status)?.mount_point?, share.uid()?))
        });
    let exported = deletions.iter().filter(|d| share_deletion::may_have_access(d));
    let of_deletions = exported.filter_map(|deletion| {
        let spec = &deletion.spec;
        let (cluster, name) = (
            spec.nfs_cluster_id.as_ref(),
            spec.resolved_mount_point_name.as_ref(),
        );
        let claim = MountPoint::recorded(Some(&spec.fsid), cluster, name)?;
        Some((claim, spec.share_ref.uid.clone()))
    });
    for (claim, uid) in of_shares.chain(of_deletions) {
        claims.entry(claim).or_default().insert(uid);
    }
    claims
}

/// No name on an NFS cluster is two shares', and what a share has got stays as it is.
pub fn names(
    shares: &[Share],
    deletions: &[ShareDeletion],
    resolved: &mut BTreeMap<String, String>,
) -> Result<()> {
    for (claim, holders) in claims(shares, deletions) {
        ensure!(holders.len() == 1, "{claim:?} is that of {holders:?}");
    }
    for share in shares {
        let status = share.status.clone().unwrap_or_default();
        if let Some(name) = status.resolved_mount_point_name {
            let asked = share.spec.mount_point_name.as_deref().unwrap_or_default();
            ensure!(
                !asked.is_empty() && name.ends_with(asked),
                "{} asked for '{asked}' and got '{name}'",
                share.name_any()
            );
            let first = resolved
                .entry(share.uid().unwrap_or_default())
                .or_insert(name.clone());
            ensure!(
                *first == name,
                "{} was '{first}' and is '{name}'",
                share.name_any()
            );
        }
    }
    Ok(())
}

/// At rest, whoever waits for a name knows it to be another's, and whoever has one is found under it.
pub fn names_at_rest(server: &ApiServer) -> Result<()> {
    let shares: Vec<Share> = server.typed("shares");
    let claims = claims(&shares, &server.typed::<ShareDeletion>("sharedeletions"));
    for share in &shares {
        let status = share.status.clone().unwrap_or_default();
        let Some(asked) = &share.spec.mount_point_name else {
            continue;
        };
        match condition(&status.conditions, types::READY) {
            Some((_, reasons::MOUNT_POINT_NAME_TAKEN)) => ensure!(
                claims.keys().any(|claim| claim.name.ends_with(asked.as_str())),
                "{} waits for '{asked}', and it is free",
                share.name_any()
            ),
            Some(("True", _)) => {
                let name = status.resolved_mount_point_name.unwrap_or_default();
                let path = format!(":/{name}");
                ensure!(
                    name.ends_with(asked.as_str())
                        && status.export_locations.iter().all(|l| l.path.ends_with(&path)),
                    "{} is to be found under '{asked}', and says {:?}",
                    share.name_any(),
                    status.export_locations
                );
            }
            _ => {}
        }
    }
    Ok(())
}

/// What each share of a namespace is charged, by uid: its type, and bytes.
pub type Charges = BTreeMap<String, (String, u64)>;

/// How many shares there are, how large they are together, and how large the largest.
type Sum = (u64, u64, u64);

/// Limits that were in force, by namespace, and since when.
#[derive(Debug, Default)]
pub struct Limits(BTreeMap<String, Vec<(Instant, ShareQuotaSpec)>>);

impl Limits {
    /// How long after a limit was lowered the old one may still be gone by: watches are behind.
    const LAG: Duration = Duration::from_mins(2);

    /// Notes what is in force now.
    pub fn note(&mut self, quotas: &[ShareQuota]) {
        for quota in quotas {
            let history = self.0.entry(quota.namespace().unwrap_or_default()).or_default();
            if history.last().map(|(_, limits)| limits) != Some(&quota.spec) {
                history.push((Instant::now(), quota.spec.clone()));
            }
        }
    }

    /// What a namespace's shares take grows no further than some limit that it has, or had until lately. A limit below what
    /// is used stops growth alone.
    pub fn check(&self, namespace: &str, before: &Charges, now: &Charges) -> Result<()> {
        let Some(history) = self.0.get(namespace) else {
            return Ok(());
        };
        if history.first().is_some_and(|(at, _)| at.elapsed() < Self::LAG) {
            return Ok(());
        }
        // Each was in force until the next one came.
        let ends = history.iter().skip(1).map(|(at, _)| Some(*at)).chain([None]);
        let recent = history
            .iter()
            .zip(ends)
            .filter(|(_, end)| end.is_none_or(|end| end.elapsed() < Self::LAG))
            .map(|((_, limits), _)| limits);
        let grown = |before: u64, now: u64| if now > before { now } else { 0 };
        let of_each = now.iter().map(|(uid, (_, bytes))| {
            let had = before.get(uid).map_or(0, |(_, bytes)| *bytes);
            (uid, grown(had, *bytes))
        });
        let of_each: BTreeMap<_, _> = of_each.collect();
        for of in scopes(now) {
            let (had, has) = (sum(before, of), sum(now, of));
            let largest = now
                .iter()
                .filter(|(_, (share_type, _))| of.is_none_or(|of| of == share_type))
                .filter_map(|(uid, _)| of_each.get(uid).copied())
                .max();
            let grown = (
                grown(had.0, has.0),
                grown(had.1, has.1),
                largest.unwrap_or_default(),
            );
            ensure!(
                recent.clone().any(|spec| fits(limits(spec, of), grown)),
                "{namespace} had {had:?} of type {of:?} and has {has:?}, and {:?} was allowed",
                recent.collect::<Vec<_>>()
            );
        }
        Ok(())
    }
}

/// What the shares of a namespace are charged.
pub fn used(namespace: &str, shares: &[Share]) -> Charges {
    let of_it = shares
        .iter()
        .filter(|share| share.namespace().as_deref() == Some(namespace) && on(share).is_some());
    of_it
        .map(|share| (share.uid().unwrap_or_default(), (type_of(share), charged(share))))
        .collect()
}

/// All shares, and those of each type.
fn scopes(charges: &Charges) -> Vec<Option<&str>> {
    let types: BTreeSet<_> = charges
        .values()
        .map(|(share_type, _)| share_type.as_str())
        .collect();
    types.into_iter().map(Some).chain([None]).collect()
}

fn sum(charges: &Charges, of: Option<&str>) -> Sum {
    charges
        .values()
        .filter(|(share_type, _)| of.is_none_or(|of| of == share_type))
        .fold((0, 0, 0), |(count, together, largest), (_, bytes)| {
            (count + 1, together + bytes, largest.max(*bytes))
        })
}

/// What a quota says of all shares, or of those of one type.
fn limits(spec: &ShareQuotaSpec, of: Option<&str>) -> QuotaLimits {
    let Some(of) = of else {
        return spec.hard;
    };
    let of_it = spec
        .per_share_type
        .iter()
        .find(|limits| limits.share_type_name == of);
    of_it.map(|limits| limits.hard).unwrap_or_default()
}

fn fits(limits: QuotaLimits, (count, together, largest): Sum) -> bool {
    let shares = limits.shares.and_then(|most| u64::try_from(most).ok());
    shares.is_none_or(|most| count <= most)
        && limits.capacity.is_none_or(|most| together <= most.bytes())
        && limits
            .per_share_capacity
            .is_none_or(|most| largest <= most.bytes())
}

/// At rest, whoever waits for its namespace's quota would not fit, and quotas tell what is used.
pub fn quotas_at_rest(server: &ApiServer) -> Result<()> {
    let shares: Vec<Share> = server.typed("shares");
    let quotas: Vec<ShareQuota> = server.typed("sharequotas");
    for share in &shares {
        let status = share.status.clone().unwrap_or_default();
        let why = condition(&status.conditions, types::READY).map(|(_, reason)| reason);
        let namespace = share.namespace().unwrap_or_default();
        if why == Some(reasons::QUOTA_EXCEEDED) {
            let others = used(&namespace, &shares);
            let asks = (type_of(share), share.spec.size.bytes());
            let mut with_it = others.clone();
            with_it.insert(share.uid().unwrap_or_default(), asks.clone());
            // What is there already may be more than is allowed.
            let has_room = |spec: &ShareQuotaSpec, of: Option<&str>| {
                let (count, together, _) = sum(&with_it, of);
                let is_new = on(share).is_none();
                fits(
                    limits(spec, of),
                    (if is_new { count } else { 0 }, together, asks.1),
                )
            };
            let mut of_it = quotas
                .iter()
                .filter(|quota| quota.namespace().as_deref() == Some(&namespace));
            ensure!(
                !of_it.all(|quota| has_room(&quota.spec, None) && has_room(&quota.spec, Some(&asks.0))),
                "{} waits, and {quotas:?} have room beside {others:?}",
                share.name_any(),
            );
        }
    }
    for quota in &quotas {
        let charges = used(&quota.namespace().unwrap_or_default(), &shares);
        let status = quota.status.clone().unwrap_or_default();
        let of_types = status.used_per_share_type.iter();
        let told = of_types.map(|told| (Some(told.share_type_name.as_str()), told.used));
        for (of, told) in told.chain([(None, status.used.unwrap_or_default())]) {
            let QuotaUse { shares, capacity } = told;
            let (count, together, _) = sum(&charges, of);
            ensure!(
                (u64::try_from(shares)?, capacity.map_or(0, Size::bytes)) == (count, together),
                "{quota:?} tells of {told:?} of type {of:?}, and it is {:?}",
                (count, together)
            );
        }
        let of_types: Vec<_> = status
            .used_per_share_type
            .iter()
            .map(|told| &told.share_type_name)
            .collect();
        let limited: Vec<_> = quota
            .spec
            .per_share_type
            .iter()
            .map(|of| &of.share_type_name)
            .collect();
        ensure!(of_types == limited, "{quota:?} tells of {of_types:?}");
    }
    Ok(())
}

/// At rest, whoever waits for room would find none.
pub fn at_rest(server: &ApiServer, room: Option<u32>) -> Result<()> {
    let shares: Vec<Share> = server.typed("shares");
    let mut promised = promised(&shares);
    // What is left of deleted shares takes room, and no quota.
    for deletion in server.typed::<ShareDeletion>("sharedeletions") {
        if share_deletion::is_pending(&deletion) {
            let backend = promised.entry(deletion.spec.backend_name.clone());
            *backend.or_default() += deletion.spec.size.bytes();
        }
    }
    let fits = |backend: &str, bytes: u64| {
        let taken = promised.get(backend).copied().unwrap_or_default();
        room.is_none_or(|gib| taken + bytes <= u64::from(gib) * GIB)
    };
    let open = server.typed::<ShareBackend>("sharebackends");
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

/// The type whose terms it has, or asks for.
fn type_of(share: &Share) -> String {
    let has = share
        .status
        .as_ref()
        .and_then(|status| status.share_type_name.clone());
    has.or_else(|| share.spec.share_type_name.clone())
        .unwrap_or_default()
}

fn charged(share: &Share) -> u64 {
    let quota = share.status.as_ref().and_then(|status| status.quota);
    quota.map_or(0, |quota| quota.charged.bytes())
}
