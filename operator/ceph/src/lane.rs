//! A queue of commands at Ceph, and what is owed there: a command that its sender gave up on.
//!
//! A manager's module runs its commands one after the other, for everybody (measured on 18.2.7 and 20.2.4: while one
//! hangs on a metadata server, even `fs volume ls` is not answered, and module `nfs` is). So after a time-out nothing
//! more is sent there until the very command that timed out has been answered. librados sends what is not answered
//! again to the next manager, so an answer comes as soon as there is anybody to give one; and because librados is told
//! no time-out, a late answer is seen. A lane never holds more commands than it has places, whatever hangs.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Commands that are run in order and hold each other up.
#[derive(Debug)]
pub(crate) struct Lane {
    places: Arc<Semaphore>,
    /// Commands given up on and not yet answered.
    owed: watch::Sender<usize>,
}

/// Nothing is sent: answers are owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Sent,
    GivenUp,
    Answered,
}

impl Lane {
    pub(crate) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::new(Semaphore::new(places)),
            owed: watch::Sender::new(0),
        })
    }

    /// Whether answers are owed.
    pub(crate) fn is_held(&self) -> bool {
        *self.owed.borrow() > 0
    }

    /// Waits for a place; no longer than answers come.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<(Sender, Runner), Held> {
        let mut owed = self.owed.subscribe();
        let permit = tokio::select! {
            biased;
            // Neither end of the channel is ever closed.
            _ = owed.wait_for(|owed| *owed > 0) => return Err(Held),
            permit = Arc::clone(&self.places).acquire_owned() => permit.map_err(|_| Held)?,
        };
        if self.is_held() {
            return Err(Held);
        }
        let phase = Arc::new(Mutex::new(Phase::Sent));
        let sender = Sender {
            lane: Arc::clone(self),
            phase: Arc::clone(&phase),
        };
        Ok((
            sender,
            Runner {
                lane: Arc::clone(self),
                phase,
                _permit: permit,
            },
        ))
    }
}

/// The half of whoever waits for the answer. To drop it is to give up.
pub(crate) struct Sender {
    lane: Arc<Lane>,
    phase: Arc<Mutex<Phase>>,
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut phase = self.phase.lock();
        if *phase == Phase::Sent {
            *phase = Phase::GivenUp;
            self.lane.owed.send_modify(|owed| *owed += 1);
        }
    }
}

/// The half of whoever runs the command, with its place. To drop it is to have an answer.
pub(crate) struct Runner {
    lane: Arc<Lane>,
    phase: Arc<Mutex<Phase>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Runner {
    fn drop(&mut self) {
        let mut phase = self.phase.lock();
        if std::mem::replace(&mut *phase, Phase::Answered) == Phase::GivenUp {
            self.lane.owed.send_modify(|owed| *owed -= 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_answer_in_time_holds_nothing() {
        let lane = Lane::new(1);
        let (sender, runner) = lane.enter().await.unwrap();
        drop(runner);
        drop(sender);
        assert!(!lane.is_held());
        assert!(lane.enter().await.is_ok());
    }

    #[tokio::test]
    async fn held_until_the_last_late_answer() {
        let lane = Lane::new(4);
        let (first, first_runner) = lane.enter().await.unwrap();
        let (second, second_runner) = lane.enter().await.unwrap();
        drop(first);
        drop(second);
        assert_eq!(lane.enter().await.err(), Some(Held));
        drop(second_runner);
        assert_eq!(lane.enter().await.err(), Some(Held));
        drop(first_runner);
        assert!(lane.enter().await.is_ok());
    }

    #[tokio::test]
    async fn whoever_waits_for_a_place_is_told_at_once() {
        let lane = Lane::new(1);
        let (sender, runner) = lane.enter().await.unwrap();
        let waiting = tokio::spawn({
            let lane = Arc::clone(&lane);
            async move { lane.enter().await.err() }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!waiting.is_finished());
        drop(sender);
        assert_eq!(waiting.await.unwrap(), Some(Held));
        drop(runner);
        assert!(!lane.is_held());
    }

    #[tokio::test]
    async fn places_bound_what_is_under_way() {
        let lane = Lane::new(2);
        let mut under_way = Vec::new();
        for _ in 0..2 {
            under_way.push(lane.enter().await.unwrap());
        }
        let third = tokio::time::timeout(Duration::from_millis(10), lane.enter()).await;
        assert!(third.is_err());
        let (sender, runner) = under_way.pop().unwrap();
        drop(runner);
        drop(sender);
        assert!(lane.enter().await.is_ok());
    }
}
