//! How long to wait after failures.

use std::time::Duration;

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
