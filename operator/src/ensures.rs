//! The rounds over the shares of backends that this replica makes. In memory: a round that was not finished when a replica
//! ended is begun anew by the next.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use parking_lot::Mutex;
use shoal_domain::ensure::{Round, Tally};

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
    /// Shares that were asked last and have not answered.
    asked: BTreeSet<String>,
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
        let batch: Vec<_> = left.take(BATCH).cloned().collect();
        under_way.asked = batch.iter().cloned().collect();
        batch
    }

    /// The round of a backend.
    pub fn round(&self, backend: &str) -> Option<Round> {
        self.0.lock().get(backend).map(|there| there.round.clone())
    }

    /// How far it is, of these shares.
    pub fn tally<'a>(&self, backend: &str, shares: impl Iterator<Item = &'a String>) -> Tally {
        let all = self.0.lock();
        let verified = all.get(backend).map(|there| &there.verified);
        let mut tally = Tally::default();
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
        there.asked.remove(uid) && there.asked.is_empty()
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
            asked: BTreeSet::new(),
        }
    }
}
