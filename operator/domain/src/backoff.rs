//! How long to wait after failures.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{Next, condition::whole_seconds};

/// The first wait.
const FIRST: Duration = Duration::from_secs(2);
/// The longest wait.
const LONGEST: Duration = Duration::from_mins(5);

/// The wait after this many failures in a row: doubling, bounded, and spread by up to a quarter so that objects that
/// failed together don't return together. The spread comes from the uid: a decision has no dice.
pub fn after(attempts: u32, uid: &str) -> Duration {
    let doubled = FIRST.saturating_mul(1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX));
    spread(doubled.min(LONGEST), uid, attempts)
}

/// Where an object that has failed once more stands: its failures in a row and when it is tried again, both kept in its
/// status, so that a restart does not forget them; and when to look.
pub fn next(attempts: Option<i32>, uid: &str, now: Timestamp) -> (Option<i32>, Option<Time>, Next) {
    let attempts = attempts.unwrap_or_default().saturating_add(1);
    let wait = after(attempts.unsigned_abs(), uid);
    let at = whole_seconds(now.saturating_add(wait).unwrap_or(now));
    (Some(attempts), Some(Time(at)), Next::After(wait))
}

/// How long the last failure still holds an object back. None: it does not.
pub fn left(next_retry_time: Option<&Time>, now: Timestamp) -> Option<Duration> {
    let until = next_retry_time?.0;
    if until <= now {
        return None;
    }
    until.duration_since(now).try_into().ok()
}

/// Lengthens a wait by up to a quarter, the same for the same uid and round.
pub fn spread(wait: Duration, uid: &str, round: u32) -> Duration {
    wait + wait.mul_f64(f64::from(hash(uid, round) % 1000) / 4000.0)
}

/// FNV-1a: no secret rests on it, it only has to spread.
fn hash(uid: &str, round: u32) -> u32 {
    uid.bytes()
        .chain(round.to_le_bytes())
        .fold(0x811c_9dc5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_a_bound() {
        let waits: Vec<_> = (1..12).map(|n| after(n, "uid").as_secs()).collect();
        assert!((2..=3).contains(&waits[0]), "{waits:?}");
        assert!(waits.iter().all(|w| *w <= 375), "{waits:?}");
        assert!(*waits.last().unwrap() >= 300, "{waits:?}");
        assert!(after(u32::MAX, "uid") <= Duration::from_secs(375));
    }
}
