//! Ensuring: a round over the shares of a backend that verifies each and mends what is not as it should be, because somebody
//! asked for it or because the backend's addresses have changed.
//!
//! A round is kept in the ShareBackend's status, and what of it is done in memory: one that was not finished when the operator
//! ended begins anew. A share that needs nothing costs a look at the backend and no write at all.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use shoal_crds::{
    EnsureStatus, Share, ShareBackendStatus,
    names::{PAUSED, REQUESTED_AT, labels},
};

use crate::{condition::whole_seconds, identity::Description};

/// How long a round waits for shares that can't be verified while the backend itself is well.
const LONGEST: Duration = Duration::from_mins(15);
/// How often it is seen to that a round goes on, if its shares don't say so themselves.
pub const POLL: Duration = Duration::from_secs(10);

/// The longest request that is kept in status.
const LONGEST_REQUEST: usize = 253;

/// Which round it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// Since when.
    pub started_at: Time,
    /// What asked for it, if somebody did.
    pub requested_at: Option<String>,
}

/// How far a round is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Shares that are exported as they should be.
    pub done: i64,
    /// Shares that are not.
    pub failed: i64,
    /// Shares that the round is over.
    pub total: i64,
    /// How long shares have been asked and none was verified.
    pub idle: Duration,
}

impl Tally {
    /// Shares that were not verified yet.
    pub fn left(self) -> i64 {
        self.total - self.done - self.failed
    }
}

/// What the annotation asks for, as far as status keeps it.
pub fn requested(metadata: &ObjectMeta) -> Option<String> {
    let value = metadata.annotations.as_ref()?.get(REQUESTED_AT)?;
    Some(value.chars().take(LONGEST_REQUEST).collect())
}

/// Whether a share carries the mark of one that is being ensured.
pub fn is_marked(share: &Share) -> bool {
    let its = share.metadata.labels.as_ref();
    its.is_some_and(|its| its.contains_key(labels::ENSURING))
}

/// The round that goes on.
pub fn under_way(status: &ShareBackendStatus) -> Option<Round> {
    let ensure = status.ensure.as_ref().filter(|e| e.finished_at.is_none())?;
    Some(Round {
        started_at: ensure.started_at.clone(),
        requested_at: ensure.requested_at.clone(),
    })
}

/// Whether rounds are over a share that is on their backend: it stays, and Shoal has its hands on it. One that is being made is
/// verified when that is done.
pub fn is_concerned(share: &Share) -> bool {
    let meta = &share.metadata;
    meta.deletion_timestamp.is_none() && !meta.annotations.as_ref().is_some_and(|a| a.contains_key(PAUSED))
}

/// Whether the addresses that shares are mounted by are others than before.
pub fn has_moved(before: &ShareBackendStatus, description: &Description) -> bool {
    let nfs = before
        .nfs
        .as_ref()
        .map(|nfs| &nfs.endpoints[..])
        .unwrap_or_default();
    before
        .ceph
        .as_ref()
        .is_some_and(|ceph| ceph.monitors != description.monitors || nfs != description.nfs_endpoints)
}

/// What a ShareBackend that answers says of its rounds: begins one, goes on with it, or ends it. What is asked for during a
/// round begins it anew: two never overlap, and none answers for what it saw before it was asked.
pub fn advance(
    before: &ShareBackendStatus,
    requested_at: Option<&str>,
    has_moved: bool,
    tally: Option<Tally>,
    now: Timestamp,
) -> Option<EnsureStatus> {
    let running = under_way(before);
    let answered = before.last_handled_requested_at.as_deref();
    let asked_by = running.as_ref().and_then(|round| round.requested_at.as_deref());
    let new = requested_at.filter(|_| requested_at != answered);
    let is_asked = new.is_some() && new != asked_by;
    if has_moved || is_asked {
        return Some(EnsureStatus {
            requested_at: new.map(str::to_owned),
            started_at: Time(whole_seconds(now)),
            finished_at: None,
            done: 0,
            failed: 0,
            total: 0,
        });
    }
    let ensure = before.ensure.clone()?;
    let (Some(_), Some(tally)) = (running, tally) else {
        return Some(ensure);
    };
    let ends = tally.left() <= 0 || tally.idle > LONGEST;
    Some(EnsureStatus {
        done: tally.done,
        failed: tally.failed + if ends { tally.left().max(0) } else { 0 },
        total: tally.total,
        finished_at: ends.then(|| Time(whole_seconds(now))),
        ..ensure
    })
}

/// For people.
pub fn told(ensure: &EnsureStatus) -> String {
    let EnsureStatus {
        done, failed, total, ..
    } = ensure;
    format!("{done} of {total} shares verified, {failed} failed")
}
