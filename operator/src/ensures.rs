//! The rounds over the shares of backends that this replica makes. In memory: a round that was not finished when a replica
//! ended is begun anew by the next.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use parking_lot::Mutex;
use shoal_domain::ensure::{POLL, Round, Tally};
use tokio::time::Instant;

/// How many shares are asked at once; whose turn it is on the storage is for [`Turns`](crate::turns::Turns) to say.
const BATCH: usize = 64;

/// Rounds, by the name of their ShareBackend.
#[derive(Debug, Default)]
pub struct Ensures(Mutex<HashMap<String, UnderWay>>);

#[derive(Debug)]
struct UnderWay {
    round: Round,
    /// Shares that were verified, by uid, and whether all was well in the end.
    verified: BTreeMap<String, bool>,
    /// Shares that were asked and have not answered, and in which batch they were asked last.
    asked: BTreeMap<String, u64>,
    /// The last batch.
    batch: u64,
    /// When that was.
    asked_at: Instant,
    /// How long shares have been asked and none has answered.
    idle: Duration,
}

impl Ensures {
    /// Begins a round, or goes on with it: the shares, by uid, that are to be verified next, of these.
    pub fn go_on<'a>(
        &self,
        backend: &str,
        round: &Round,
        shares: impl Iterator<Item = &'a String>,
    ) -> Vec<String> {
        let mut all = self.0.lock();
        let under_way = all
            .entry(backend.to_owned())
            .and_modify(|there| {
                if there.round != *round {
                    *there = UnderWay::begin(round);
                }
            })
            .or_insert_with(|| UnderWay::begin(round));
        let left = shares.filter(|uid| !under_way.verified.contains_key(*uid));
        let mut left: Vec<_> = left.cloned().collect();
        // Some that can't be verified must not keep the others waiting.
        left.sort_by_key(|uid| under_way.asked.get(uid).copied());
        left.truncate(BATCH);
        under_way.ask(&left);
        left
    }

    /// The round of a backend.
    pub fn round(&self, backend: &str) -> Option<Round> {
        self.0.lock().get(backend).map(|there| there.round.clone())
    }

    /// How far it is, of these shares.
    pub fn tally<'a>(&self, backend: &str, shares: impl Iterator<Item = &'a String>) -> Tally {
        let all = self.0.lock();
        let verified = all.get(backend).map(|there| &there.verified);
        let mut tally = Tally {
            idle: all.get(backend).map(|there| there.idle).unwrap_or_default(),
            ..Tally::default()
        };
        for uid in shares {
            tally.total += 1;
            match verified.and_then(|verified| verified.get(uid)) {
                Some(true) => tally.done += 1,
                Some(false) => tally.failed += 1,
                None => {}
            }
        }
        tally
    }

    /// The round that a share was not verified in yet.
    pub fn due(&self, backend: &str, uid: &str) -> Option<Round> {
        let all = self.0.lock();
        let there = all.get(backend)?;
        (!there.verified.contains_key(uid)).then(|| there.round.clone())
    }

    /// Notes that a share was verified in a round, and whether all was well in the end. True if it was the last that was asked.
    pub fn note(&self, backend: &str, round: &Round, uid: &str, is_well: bool) -> bool {
        let mut all = self.0.lock();
        let Some(there) = all.get_mut(backend).filter(|there| there.round == *round) else {
            return false;
        };
        there.verified.insert(uid.to_owned(), is_well);
        there.idle = Duration::ZERO;
        let batch = there.batch;
        there.asked.remove(uid) == Some(batch) && there.asked.values().all(|of| *of != batch)
    }

    /// Forgets the round of a backend.
    pub fn end(&self, backend: &str) {
        self.0.lock().remove(backend);
    }

    /// Whether no round goes on.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

impl UnderWay {
    fn begin(round: &Round) -> Self {
        Self {
            round: round.clone(),
            verified: BTreeMap::new(),
            asked: BTreeMap::new(),
            batch: 0,
            asked_at: Instant::now(),
            idle: Duration::ZERO,
        }
    }

    fn ask(&mut self, shares: &[String]) {
        // While the backend could not be asked nobody was.
        self.idle += self.asked_at.elapsed().min(POLL);
        self.asked_at = Instant::now();
        self.batch += 1;
        let batch = self.batch;
        self.asked.extend(shares.iter().map(|uid| (uid.clone(), batch)));
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn round(second: i64) -> Round {
        Round {
            started_at: Time(jiff::Timestamp::from_second(second).unwrap_or_default()),
            requested_at: None,
        }
    }

    #[test]
    fn all_are_asked_in_batches_and_who_does_not_answer_is_asked_again() {
        let (ensures, uids): (_, Vec<_>) =
            (Ensures::default(), (0..100).map(|n| format!("{n:03}")).collect());
        let first = ensures.go_on("a", &round(0), uids.iter());
        assert_eq!(first, uids[..64]);
        // The others come first, then who was asked and has not answered.
        let second = ensures.go_on("a", &round(0), uids.iter());
        assert_eq!(second[..36], uids[64..]);
        assert_eq!(second[36..], uids[..28]);
        let done = second
            .iter()
            .filter(|uid| ensures.note("a", &round(0), uid, *uid != "003"));
        assert_eq!(done.collect::<Vec<_>>(), [&uids[27]], "the last of a batch");
        // Those of the first batch that were not asked again.
        assert_eq!(ensures.go_on("a", &round(0), uids.iter()), uids[28..64]);
        let tally = ensures.tally("a", uids.iter());
        assert_eq!((tally.done, tally.failed, tally.total), (63, 1, 100));
        assert_eq!(ensures.due("a", "003"), None);
        assert_eq!(ensures.due("a", "050"), Some(round(0)));
    }

    #[test]
    fn another_round_begins_with_nothing() {
        let (ensures, uids) = (Ensures::default(), ["x".to_owned()]);
        ensures.go_on("a", &round(0), uids.iter());
        ensures.go_on("a", &round(1), uids.iter());
        // What was seen before it began does not count.
        assert!(!ensures.note("a", &round(0), "x", true));
        assert_eq!(ensures.due("a", "x"), Some(round(1)));
        assert!(ensures.note("a", &round(1), "x", true));
        ensures.end("a");
        assert!(ensures.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_idle_while_shares_are_asked_and_none_answers() {
        let (ensures, uids) = (Ensures::default(), ["x".to_owned(), "y".to_owned()]);
        let idle = || ensures.tally("a", uids.iter()).idle;
        let ask_after = async |seconds| {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            ensures.go_on("a", &round(0), uids.iter());
            idle()
        };
        assert_eq!(ask_after(0).await, Duration::ZERO);
        assert_eq!(ask_after(10).await, Duration::from_secs(10));
        // The backend was away for an hour.
        assert_eq!(ask_after(3600).await, Duration::from_secs(20));
        ensures.note("a", &round(0), "x", true);
        assert_eq!(idle(), Duration::ZERO);
        assert_eq!(ask_after(10).await, Duration::from_secs(10));
    }
}
