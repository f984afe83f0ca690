//! Whose turn it is: ceph-mgr runs a module's commands one at a time for everybody, so the work on one storage cluster is
//! bounded, and shared fairly between namespaces: one tenant's ten thousand deletions don't stop another's create.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

/// All turns, by storage cluster.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Mutex<HashMap<String, Lane>>>);

#[derive(Debug, Default)]
struct Lane {
    taken: usize,
    /// When a turn was last given, or given back.
    moved: Option<Instant>,
    /// Namespaces that wait, in the order in which they are served; each once.
    order: VecDeque<String>,
    waiting: HashMap<String, VecDeque<oneshot::Sender<()>>>,
}

/// The right to work on one storage cluster; ends when dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Turns,
    cluster: String,
}

impl Turn {
    /// Whether it is for this storage cluster.
    pub fn is_on(&self, cluster: &str) -> bool {
        self.cluster == cluster
    }
}

impl Turns {
    /// Waits until fewer than `most` are at work on the cluster and it is the namespace's turn.
    pub async fn take(&self, cluster: &str, namespace: &str, most: usize) -> Turn {
        let (turn, wait) = {
            let mut lanes = self.0.lock();
            let lane = lanes.entry(cluster.to_owned()).or_default();
            let turn = Turn {
                turns: self.clone(),
                cluster: cluster.to_owned(),
            };
            if lane.taken < most && lane.order.is_empty() {
                lane.taken += 1;
                lane.moved = Some(Instant::now());
                return turn;
            }
            let (sender, wait) = oneshot::channel();
            if !lane.waiting.contains_key(namespace) {
                lane.order.push_back(namespace.to_owned());
            }
            lane.waiting
                .entry(namespace.to_owned())
                .or_default()
                .push_back(sender);
            // Whoever hands the turn over has counted it already: until then dropping this must not give one back.
            (turn, wait)
        };
        let pending = Pending {
            turn: Some(turn),
            wait,
        };
        pending.get().await
    }

    /// Waits until no turn on the cluster has been given, or given back, for this long.
    pub async fn until_stuck(&self, cluster: &str, longest: Duration) {
        let asked = Instant::now();
        loop {
            let moved = self.0.lock().get(cluster).and_then(|lane| lane.moved);
            let stuck = moved.unwrap_or(asked).max(asked) + longest;
            if stuck <= Instant::now() {
                return;
            }
            sleep_until(stuck).await;
        }
    }

    /// How many are at work on each storage cluster, and how many wait.
    pub fn count(&self) -> HashMap<String, (usize, usize)> {
        let lanes = self.0.lock();
        let waiting = |lane: &Lane| lane.waiting.values().map(VecDeque::len).sum();
        let counted = lanes
            .iter()
            .map(|(cluster, lane)| (cluster.clone(), (lane.taken, waiting(lane))));
        counted.collect()
    }

    /// Whether nobody is at work and nobody waits.
    pub fn is_idle(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Hands a turn that has ended to the next in line.
    fn hand_over(&self, cluster: &str) {
        let mut lanes = self.0.lock();
        let Some(lane) = lanes.get_mut(cluster) else {
            return;
        };
        lane.moved = Some(Instant::now());
        while let Some(namespace) = lane.order.pop_front() {
            let Some(queue) = lane.waiting.get_mut(&namespace) else {
                continue;
            };
            let next = queue.pop_front();
            if queue.is_empty() {
                lane.waiting.remove(&namespace);
            } else {
                lane.order.push_back(namespace);
            }
            // One that no longer waits is passed over.
            if next.is_some_and(|sender| sender.send(()).is_ok()) {
                return;
            }
        }
        lane.taken -= 1;
        if lane.taken == 0 {
            lanes.remove(cluster);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.hand_over(&self.cluster);
    }
}

/// A turn that has not come yet.
struct Pending {
    turn: Option<Turn>,
    wait: oneshot::Receiver<()>,
}

impl Pending {
    async fn get(mut self) -> Turn {
        // The sender is dropped only after it has sent: lanes with somebody waiting are never removed.
        let _ = (&mut self.wait).await;
        self.turn.take().expect("taken once")
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        // Given up while waiting: the turn goes back only if it was handed over at this very moment.
        self.wait.close();
        if self.wait.try_recv().is_ok() {
            drop(turn);
        } else {
            std::mem::forget(turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn namespaces_take_turns() {
        let turns = Turns::default();
        let first = turns.take("c", "a", 1).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for namespace in ["a", "a", "a", "b"] {
            let (turns, order) = (turns.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                let _turn = turns.take("c", namespace, 1).await;
                order.lock().push(namespace);
            }));
            tokio::task::yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), ["a", "b", "a", "a"]);
        assert!(turns.is_idle(), "nothing is left over");
    }

    #[tokio::test]
    async fn one_that_gave_up_is_passed_over() {
        let turns = Turns::default();
        let first = turns.take("c", "a", 1).await;
        let gave_up = tokio::time::timeout(Duration::from_millis(1), turns.take("c", "a", 1)).await;
        assert!(gave_up.is_err());
        drop(first);
        drop(turns.take("c", "b", 1).await);
        assert!(turns.is_idle(), "nothing is left over");
    }

    #[tokio::test]
    async fn as_many_at_once_as_allowed() {
        let turns = Turns::default();
        let _one = turns.take("c", "a", 2).await;
        let _two = turns.take("c", "a", 2).await;
        assert!(
            tokio::time::timeout(Duration::from_millis(1), turns.take("c", "a", 2))
                .await
                .is_err()
        );
    }
}
