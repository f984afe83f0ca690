//! When each share is next compared with what its backend has. In memory: a restart begins a new round, spread over it.

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;
use shoal_domain::{backoff, volume::Sight};

/// What a look costs the mgr at most, times twenty: so all looks together take at most 5 % of its time.
const SPACING: Duration = Duration::from_millis(300);

/// The schedule of looks.
#[derive(Debug)]
pub struct Looks {
    resync: Duration,
    due: Mutex<HashMap<String, Timestamp>>,
    /// Bytes used, as seen last.
    used: Mutex<HashMap<String, u64>>,
}

impl Looks {
    /// A schedule with a round of this length; longer when there are many shares.
    pub fn new(resync: Duration) -> Self {
        Self {
            resync,
            due: Mutex::default(),
            used: Mutex::default(),
        }
    }

    /// Takes up a share, if it is new. So many there are: after a start more than have been taken up.
    pub fn take_up(&self, uid: &str, shares: usize, now: Timestamp) {
        let mut due = self.due.lock();
        let round = self.round(due.len().max(shares));
        due.entry(uid.to_owned()).or_insert_with(|| {
            let spread = backoff::spread(round, uid, 0).saturating_sub(round) * 4;
            now.saturating_add(spread).unwrap_or(now)
        });
    }

    /// Whether the share is to be looked at now, and if not, in how long.
    pub fn when(&self, uid: &str, now: Timestamp) -> (bool, Duration) {
        let due = self.due.lock();
        let round = self.round(due.len());
        // One that is not on it went a moment ago.
        let Some(at) = due.get(uid) else {
            return (false, round);
        };
        match Duration::try_from(at.duration_since(now)) {
            Ok(wait) if !wait.is_zero() => (false, wait),
            _ => (true, round),
        }
    }

    /// Notes that the share has just been looked at, and how much of it was used. One that went meanwhile stays forgotten.
    pub fn looked(&self, uid: &str, sight: &Sight, now: Timestamp) {
        let mut due = self.due.lock();
        let wait = self.round(due.len());
        if let Some(at) = due.get_mut(uid) {
            *at = now.saturating_add(wait).unwrap_or(now);
            let mut used = self.used.lock();
            match sight {
                Sight::Present(seen) => used.insert(uid.to_owned(), seen.used_bytes),
                Sight::Absent { .. } => used.remove(uid),
            };
        }
    }

    /// Forgets a share that is gone.
    pub fn forget(&self, uid: &str) {
        let mut due = self.due.lock();
        due.remove(uid);
        self.used.lock().remove(uid);
    }

    /// Bytes used by each share that was looked at, by uid.
    pub fn used(&self) -> HashMap<String, u64> {
        self.used.lock().clone()
    }

    /// Whether no share is on it.
    pub fn is_empty(&self) -> bool {
        self.due.lock().is_empty()
    }

    fn round(&self, shares: usize) -> Duration {
        self.resync
            .max(SPACING * u32::try_from(shares).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_start_the_first_looks_are_no_closer_than_later_ones() {
        let (looks, start) = (Looks::new(Duration::from_mins(5)), Timestamp::UNIX_EPOCH);
        let uids: Vec<_> = (0..10_000).map(|n| format!("share-{n}")).collect();
        for uid in &uids {
            looks.take_up(uid, uids.len(), start);
        }
        let soon = start + Duration::from_mins(5);
        let due = uids.iter().filter(|uid| looks.when(uid, soon).0).count();
        // At their spacing a thousand fit into this time; how they are spread is not exact.
        assert!((900..1100).contains(&due), "{due}");
    }
}
