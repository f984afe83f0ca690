//! Who leads: what a replica does about the Lease it has just read.

use std::time::Duration;

/// The Lease as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who holds it; empty after a release.
    pub holder: String,
    /// How long after its renewal it lasts.
    pub duration: Duration,
    /// How long ago this replica first saw this very version of it, by its own monotonic clock: other machines' clocks
    /// are not trusted.
    pub unchanged_for: Duration,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Take it: it is free, or its holder has not renewed it for its whole duration.
    Take,
    /// Renew it: it is ours.
    Renew,
    /// It is another's: look again later.
    Stand,
}

/// What the replica `me` does about the Lease.
pub fn evaluate(me: &str, held: Option<&Held>) -> Move {
    match held {
        None => Move::Take,
        Some(held) if held.holder == me => Move::Renew,
        Some(held) if held.holder.is_empty() || held.unchanged_for >= held.duration => Move::Take,
        Some(_) => Move::Stand,
    }
}

/// Whether an effect may start: the lease, renewed this long ago by a request that has been answered, outlives it.
pub fn covers(since_renewal: Duration, duration: Duration, effect: Duration) -> bool {
    since_renewal
        .checked_add(effect)
        .is_some_and(|end| end < duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(holder: &str, unchanged_for: u64) -> Held {
        Held {
            holder: holder.into(),
            duration: Duration::from_secs(30),
            unchanged_for: Duration::from_secs(unchanged_for),
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_free_or_silent_for_its_whole_duration() {
        assert_eq!(evaluate("a", None), Move::Take);
        assert_eq!(evaluate("a", Some(&held("", 0))), Move::Take);
        assert_eq!(evaluate("a", Some(&held("a", 99))), Move::Renew);
        assert_eq!(evaluate("a", Some(&held("b", 29))), Move::Stand);
        assert_eq!(evaluate("a", Some(&held("b", 30))), Move::Take);
    }

    #[test]
    fn no_effect_starts_that_the_lease_does_not_outlive() {
        let s = Duration::from_secs;
        assert!(covers(s(5), s(30), s(24)));
        assert!(!covers(s(5), s(30), s(25)));
        assert!(!covers(s(31), s(30), s(0)));
        assert!(!covers(Duration::MAX, s(30), s(1)));
    }
}
