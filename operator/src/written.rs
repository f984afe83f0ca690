//! Versions that passes have just written or read. Until the watch brings them, the cache holds what is outdated already:
//! a pass over it would find out by a read, or by a conflict, and then be made again.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a pass waits for the watch. A watch that is further behind than this has trouble, and what has to be done must
/// not wait for it: nothing rests on this wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// The newest version known of each object that a pass was made over a moment ago.
#[derive(Debug, Default)]
pub struct Written(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    versions: HashMap<String, u64>,
    /// Uids with their versions, in the order in which they are forgotten.
    order: VecDeque<(Instant, String, u64)>,
}

impl Written {
    /// Notes the version that a pass ended with.
    pub fn note<K: Resource>(&self, object: &K) {
        if let Some(version) = version(object) {
            self.insert(object, version);
        }
    }

    /// Notes that of this object nothing more is to come than that it is gone.
    pub fn note_gone<K: Resource>(&self, object: &K) {
        self.insert(object, u64::MAX);
    }

    /// Whether a later version than this has been noted, and the watch may still bring it in time.
    pub fn is_ahead_of<K: Resource>(&self, object: &K) -> bool {
        let mut known = self.0.lock();
        known.forget_old();
        let newest = object.meta().uid.as_ref().and_then(|uid| known.versions.get(uid));
        newest
            .zip(version(object))
            .is_some_and(|(newest, this)| *newest > this)
    }

    fn insert<K: Resource>(&self, object: &K, version: u64) {
        let mut known = self.0.lock();
        known.forget_old();
        let uid = object.uid().unwrap_or_default();
        known.versions.insert(uid.clone(), version);
        known.order.push_back((Instant::now(), uid, version));
    }
}

impl Known {
    fn forget_old(&mut self) {
        while let Some((at, uid, version)) = self.order.front() {
            if at.elapsed() <= PATIENCE {
                return;
            }
            // Unless it has been noted anew since.
            if self.versions.get(uid) == Some(version) {
                self.versions.remove(uid);
            }
            self.order.pop_front();
        }
    }
}

/// Versions grow, and are compared as numbers (Kubernetes 1.35 promises it; etcd has always made them so). One that is no
/// number is never behind.
fn version<K: Resource>(object: &K) -> Option<u64> {
    object.meta().resource_version.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;

    use super::*;

    fn object(uid: &str, version: &str) -> Namespace {
        let mut object = Namespace::default();
        object.metadata.uid = Some(uid.into());
        object.metadata.resource_version = Some(version.into());
        object
    }

    #[tokio::test(start_paused = true)]
    async fn a_cache_is_behind_until_it_has_the_version_or_a_second_has_passed() {
        let written = Written::default();
        written.note(&object("a", "10"));
        assert!(written.is_ahead_of(&object("a", "9")));
        assert!(!written.is_ahead_of(&object("a", "10")));
        assert!(
            !written.is_ahead_of(&object("a", "11")),
            "somebody else wrote since"
        );
        assert!(!written.is_ahead_of(&object("b", "9")), "another object");
        assert!(!written.is_ahead_of(&object("a", "x")));

        tokio::time::sleep(PATIENCE * 3 / 4).await;
        written.note_gone(&object("a", "12"));
        tokio::time::sleep(PATIENCE * 3 / 4).await;
        assert!(written.is_ahead_of(&object("a", "12")), "noted anew");
        tokio::time::sleep(PATIENCE).await;
        assert!(!written.is_ahead_of(&object("a", "9")));
        let known = written.0.lock();
        assert!(
            known.versions.is_empty() && known.order.is_empty(),
            "nothing is left over"
        );
    }
}
