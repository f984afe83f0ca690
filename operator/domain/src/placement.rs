//! Where a new share goes: named filters, then named weighers.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use shoal_crds::{Placement, Protocol, Ratio, ShareType, condition::reasons};

use crate::{Class, Failure, Scope, identity::Description, mount_point::NfsCluster};

/// A ShareBackend as placement sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it says of itself, if it is Ready; else why it is not.
    pub state: Result<Description, Failure>,
    /// Whether new shares may come.
    pub door: Door,
    /// How much of its room new shares leave free, in per cent.
    pub reserved_percentage: u8,
    /// How many times its room may be promised; none: however often.
    pub overcommit: Option<Ratio>,
    /// How many exports its NFS cluster may have; none if that is not limited.
    pub max_exports: Option<u64>,
    /// What other shares have of it.
    pub load: Load,
}

/// Whether a backend takes new shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// Any.
    Open,
    /// Only those that are pinned to it; and why, if that was said.
    Disabled(Option<String>),
    /// None: it is being deleted.
    Closed,
}

/// What shares have of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes that were promised to them, or hold what is left of deleted ones: a few shares of the largest size are more than
    /// 64 bits hold.
    pub promised_bytes: u128,
    /// How many they are.
    pub shares: u64,
    /// How many ShareDeletions have something left to do there.
    pub deletions: u64,
    /// How many exports there are on its NFS cluster: those of shares, and others.
    pub exports: u64,
}

/// A share of the same namespace that the one to be placed names, or that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its name.
    pub name: String,
    /// The ShareBackend it is on, once it was placed.
    pub backend_name: Option<String>,
    /// Where it asked to go.
    pub placement: Placement,
}

/// Which backends a share has to be on, or not on, for the sake of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Company {
    /// It has to be on each of these, so there had better be one at most.
    pub with: BTreeSet<String>,
    /// It must not be on any of these.
    pub apart_from: BTreeSet<String>,
}

/// What is to be placed.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The share's type.
    pub share_type: &'a ShareType,
    /// The share's protocol.
    pub protocol: Protocol,
    /// The share's size in bytes.
    pub size_bytes: u64,
    /// The one backend it is pinned to.
    pub pin: Option<&'a str>,
    /// Where others are.
    pub company: Company,
    /// The name that it gets on its NFS cluster, if it asks for one.
    pub mount_point_name: Option<&'a str>,
    /// The NFS clusters on which somebody else has that.
    pub taken_on: &'a BTreeSet<NfsCluster>,
}

/// A filter says why a backend is passed over.
type Filter = fn(&Request<'_>, &Candidate) -> Option<String>;

/// In the order in which they are asked; the first one that objects gives the reason.
const FILTERS: [Filter; 10] = [
    selected_by_type,
    not_leaving,
    enabled,
    ready,
    serves_protocol,
    with_others,
    apart_from_others,
    has_room,
    may_promise,
    has_exports_left,
];

/// A weigher says which of two backends it prefers: the greater one.
type Weigher = fn(&Candidate, &Candidate) -> Ordering;

/// In the order in which they are asked; the first one that prefers one decides.
const WEIGHERS: [Weigher; 3] = [most_room, fewest_shares, first_name];

/// Whether a type selects a backend.
pub fn selects(share_type: &ShareType, name: &str, labels: &BTreeMap<String, String>) -> bool {
    match (&share_type.spec.backend_names, &share_type.spec.backend_selector) {
        (Some(names), _) => names.iter().any(|n| n == name),
        (None, Some(selector)) => selector.matches(labels),
        (None, None) => true,
    }
}

/// Where the share of this name has to be for the sake of those that were placed before: whichever of two names the other.
pub fn company(name: &str, placement: &Placement, neighbours: &[Neighbour]) -> Result<Company, Failure> {
    let named = |names: &[String], one: &str| names.iter().any(|n| n == one);
    if let Some(missing) = placement
        .same_backend_as
        .iter()
        .find(|wanted| *wanted != name && !neighbours.iter().any(|n| n.name == **wanted))
    {
        return Err(waits(
            reasons::WAITING_FOR_SHARE,
            format!(
                "spec.placement.sameBackendAs: Share '{missing}' does not exist yet; create it, or take it out"
            ),
        ));
    }
    let mut company = Company::default();
    for neighbour in neighbours {
        let Some(backend) = &neighbour.backend_name else {
            continue;
        };
        if named(&placement.same_backend_as, &neighbour.name)
            || named(&neighbour.placement.same_backend_as, name)
        {
            company.with.insert(backend.clone());
        }
        if named(&placement.different_backend_from, &neighbour.name)
            || named(&neighbour.placement.different_backend_from, name)
        {
            company.apart_from.insert(backend.clone());
        }
    }
    Ok(company)
}

fn selected_by_type(request: &Request<'_>, candidate: &Candidate) -> Option<String> {
    (!selects(request.share_type, &candidate.name, &candidate.labels))
        .then(|| "not selected by the type".into())
}

fn not_leaving(_: &Request<'_>, candidate: &Candidate) -> Option<String> {
    (candidate.door == Door::Closed).then(|| "being deleted".into())
}

/// An admin who pins a share to a backend means it, as in Manila.
fn enabled(request: &Request<'_>, candidate: &Candidate) -> Option<String> {
    match &candidate.door {
        Door::Disabled(why) if request.pin.is_none() => Some(match why {
            Some(why) => format!("takes no new shares ({why})"),
            None => "takes no new shares".into(),
        }),
        _ => None,
    }
}

fn ready(_: &Request<'_>, candidate: &Candidate) -> Option<String> {
    candidate
        .state
        .as_ref()
        .err()
        .map(|failure| format!("not ready ({})", failure.reason))
}

fn serves_protocol(request: &Request<'_>, candidate: &Candidate) -> Option<String> {
    let served = candidate
        .state
        .as_ref()
        .is_ok_and(|d| d.protocols.contains(&request.protocol));
    (!served).then(|| format!("does not serve {}", request.protocol.as_str()))
}

fn with_others(request: &Request<'_>, candidate: &Candidate) -> Option<String> {
    let other = request
        .company
        .with
        .iter()
        .find(|name| **name != candidate.name)?;
    Some(format!("a share that it has to be with is on {other}"))
}

fn apart_from_others(request: &Request<'_>, candidate: &Candidate) -> Option<String> {
    request
        .company
        .apart_from
        .contains(&candidate.name)
        .then(|| "a share that it has to be apart from is on it".into())
}

// Messages are without numbers, which move all the time: each new message would be a write.

fn has_room(request: &Request<'_>, candidate: &Candidate) -> Option<String> {
    let free = free_for_new(candidate)?;
    (free < request.size_bytes).then(|| "has no room for it".into())
}

fn may_promise(request: &Request<'_>, candidate: &Candidate) -> Option<String> {
    (!promises_hold(candidate, request.size_bytes)).then(|| "has promised its room to other shares".into())
}

fn has_exports_left(request: &Request<'_>, candidate: &Candidate) -> Option<String> {
    let most = candidate
        .max_exports
        .filter(|_| request.protocol == Protocol::NFS)?;
    (candidate.load.exports >= most).then(|| {
        format!("its NFS cluster has {most} exports, the most it may have (spec.ceph.nfs.maxExports)")
    })
}

fn has_the_name_taken(request: &Request<'_>, candidate: &Candidate) -> bool {
    let cluster = candidate.state.as_ref().ok().and_then(Description::nfs_cluster);
    request.mount_point_name.is_some() && cluster.is_some_and(|cluster| request.taken_on.contains(&cluster))
}

/// What is free beside the reserve; none if it is not known.
fn free_for_new(candidate: &Candidate) -> Option<u64> {
    let description = candidate.state.as_ref().ok()?;
    let reserve = description.total_bytes.map_or(0, |total| {
        let reserve = u128::from(total) * u128::from(candidate.reserved_percentage) / 100;
        u64::try_from(reserve).unwrap_or(total)
    });
    Some(description.free_bytes?.saturating_sub(reserve))
}

/// Whether what is promised stays within the ratio when one more share gets so many bytes.
fn promises_hold(candidate: &Candidate, bytes: u64) -> bool {
    let total = candidate.state.as_ref().ok().and_then(|d| d.total_bytes);
    match (candidate.overcommit, total) {
        // What is there already was promised long ago.
        _ if bytes == 0 => true,
        (Some(ratio), Some(total)) => {
            candidate.load.promised_bytes + u128::from(bytes) <= u128::from(ratio.of(total))
        }
        _ => true,
    }
}

/// Whether a share on this backend may grow from so many bytes to so many. The reserve is there for that.
pub fn may_extend(candidate: &Candidate, from: u64, to: u64) -> Result<(), Failure> {
    // Of a backend that does not answer nothing is known of its room.
    let state = candidate.state.as_ref().map_err(|why| {
        waits(
            reasons::BACKEND_NOT_READY,
            format!(
                "spec.size: ShareBackend '{}' is not ready ({}); the share keeps its size until it is",
                candidate.name, why.reason
            ),
        )
    })?;
    let why = if state
        .free_bytes
        .is_some_and(|free| free < to.saturating_sub(from))
    {
        "has no room for it"
    } else if !promises_hold(candidate, to) {
        "has promised its room to other shares"
    } else {
        return Ok(());
    };
    Err(waits(
        reasons::NO_ROOM_TO_EXTEND,
        format!(
            "spec.size: ShareBackend '{}' {why}; the share keeps its size until there is room. Ask for less, or make room",
            candidate.name
        ),
    ))
}

/// Chooses, among those that no filter objects to, the backend that the weighers prefer.
pub fn choose<'a>(request: &Request<'_>, candidates: &'a [Candidate]) -> Result<&'a Candidate, Failure> {
    let mut passed_over = Vec::new();
    let mut best: Option<&Candidate> = None;
    let mut not_asked = None;
    let mut would_fit = false;
    let asked = candidates
        .iter()
        .filter(|candidate| request.pin.is_none_or(|pin| candidate.name == pin));
    for candidate in asked {
        let why = FILTERS.iter().find_map(|filter| filter(request, candidate));
        // Asked last: where nothing else is in the way, another name would do.
        let is_taken = why.is_none() && has_the_name_taken(request, candidate);
        would_fit |= is_taken;
        match why.or_else(|| is_taken.then(|| "somebody has the name on its NFS cluster".into())) {
            Some(why) => {
                passed_over.push(format!("{}: {why}", candidate.name));
                let failure = candidate.state.as_ref().err();
                not_asked = not_asked.or(failure.filter(|f| f.reason == reasons::BACKEND_NOT_ASKED));
            }
            None if best.is_none_or(|best| prefer(candidate, best) == Ordering::Greater) => {
                best = Some(candidate);
            }
            None => {}
        }
    }
    best.ok_or_else(|| {
        // One that has not been asked yet may fit: that it doesn't is not said before it is known.
        if let Some(unasked) = not_asked {
            return unasked.clone();
        }
        passed_over.sort();
        if would_fit {
            return waits(
                reasons::MOUNT_POINT_NAME_TAKEN,
                format!(
                    "spec.mountPointName: '{}' is taken ({}). It is this Share's as soon as it is free; to wait no longer, create the \
                     Share with another name",
                    request.mount_point_name.unwrap_or_default(),
                    passed_over.join("; ")
                ),
            );
        }
        waits(
            reasons::NO_BACKEND_FITS,
            match request.pin {
                Some(pin) if passed_over.is_empty() => {
                    format!(
                        "spec.placement.backendName: ShareBackend '{pin}' does not exist; create it, or name another"
                    )
                }
                _ if passed_over.is_empty() => "there is no ShareBackend".into(),
                _ => passed_over.join("; "),
            },
        )
    })
}

fn prefer(one: &Candidate, other: &Candidate) -> Ordering {
    WEIGHERS
        .iter()
        .map(|weigher| weigher(one, other))
        .find(|ordering| ordering.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// Room counts that is neither taken nor promised: what is promised will be asked for.
fn most_room(one: &Candidate, other: &Candidate) -> Ordering {
    let room = |candidate: &Candidate| {
        let description = candidate.state.as_ref().ok();
        let free = description.and_then(|d| d.free_bytes).unwrap_or(u64::MAX);
        let unpromised = description
            .and_then(|d| d.total_bytes)
            .map_or(u128::MAX, |total| {
                u128::from(total).saturating_sub(candidate.load.promised_bytes)
            });
        unpromised.min(free.into())
    };
    room(one).cmp(&room(other))
}

fn fewest_shares(one: &Candidate, other: &Candidate) -> Ordering {
    other.load.shares.cmp(&one.load.shares)
}

fn first_name(one: &Candidate, other: &Candidate) -> Ordering {
    other.name.cmp(&one.name)
}

fn waits(reason: &'static str, message: String) -> Failure {
    Failure {
        class: Class::Waiting,
        scope: Scope::Object,
        reason,
        message,
    }
}
