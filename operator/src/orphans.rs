//! How far this replica has looked through each backend for what no object owns. In memory: the next one begins anew.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use shoal_backend::Backend;
use shoal_domain::{
    Failure,
    identity::Identity,
    orphan::{self, BATCH, Index, Orphan, Others},
    share_backend,
};
use tokio::time::Instant;

use crate::error::Error;

/// A scan that did not go on waits so long.
const AFTER_A_FAILURE: Duration = Duration::from_secs(30);

/// The indexes, by the name of their ShareBackend.
#[derive(Debug)]
pub struct Orphans {
    /// How often what is there is listed.
    resync: Duration,
    scans: Mutex<HashMap<String, Scan>>,
}

#[derive(Debug)]
struct Scan {
    /// The ShareBackend's uid: one re-made under the same name is another.
    uid: String,
    index: Index,
    /// When all that is there is listed next.
    list_at: Instant,
    /// When the next tags are read.
    read_at: Instant,
    /// Why it did not go on last time.
    failed: Option<Failure>,
}

impl Scan {
    fn new(uid: &str) -> Self {
        let now = Instant::now();
        Self {
            uid: uid.to_owned(),
            index: Index::default(),
            list_at: now,
            read_at: now,
            failed: None,
        }
    }

    fn again_at(&self) -> Instant {
        if self.index.unread(1).is_empty() {
            self.list_at
        } else {
            self.read_at
        }
    }
}

impl Orphans {
    /// None yet.
    pub fn new(resync: Duration) -> Self {
        Self {
            resync,
            scans: Mutex::default(),
        }
    }

    /// How far a backend has been looked through.
    pub fn scan(&self, backend: &str, uid: &str, others: &Others) -> share_backend::Scan {
        let mut scans = self.scans.lock();
        let scan = scans
            .entry(backend.to_owned())
            .and_modify(|scan| {
                if scan.uid != uid {
                    *scan = Scan::new(uid);
                }
            })
            .or_insert_with(|| Scan::new(uid));
        let again = scan.again_at().saturating_duration_since(Instant::now());
        let index = &scan.index;
        share_backend::Scan {
            is_due: again.is_zero(),
            again,
            found: index.is_complete().then(|| index.status(others)),
            failed: scan.failed.clone(),
        }
    }

    /// Looks through what is there, or some more of it. True if shares that wait for it may go on.
    pub async fn go_on(
        &self,
        name: &str,
        backend: &dyn Backend,
        on: &Identity,
        is_claimed: impl Fn(&str) -> bool,
    ) -> Result<bool, Error> {
        let began = Instant::now();
        let (is_listing_due, mut unread, was_complete) = {
            let scans = self.scans.lock();
            let Some(scan) = scans.get(name) else {
                return Ok(false);
            };
            let unread = scan.index.unread(BATCH);
            (unread.is_empty(), unread, scan.index.is_complete())
        };
        let mut news = false;
        if is_listing_due {
            let listing = backend.list(on).await?;
            let took = began.elapsed();
            self.change(name, |scan| {
                let before = scan.index.clone();
                scan.index.list(listing, &is_claimed);
                scan.list_at = Instant::now() + self.resync.max(orphan::pause(took, false));
                news = scan.index != before;
                unread = scan.index.unread(BATCH);
            });
        }
        for subvolume in unread {
            let tag = backend.tag(on, &subvolume).await?;
            self.change(name, |scan| scan.index.read(&subvolume, tag));
            news = true;
        }
        let took = began.elapsed();
        self.change(name, |scan| {
            scan.read_at = Instant::now() + orphan::pause(took, !was_complete);
            scan.failed = None;
            news &= scan.index.is_complete();
        });
        Ok(news)
    }

    /// Notes that it did not go on, and lets it be for a while.
    pub fn put_off(&self, name: &str, why: Failure) {
        self.change(name, |scan| {
            let again = Instant::now() + AFTER_A_FAILURE;
            (scan.list_at, scan.read_at) = (scan.list_at.max(again), again);
            scan.failed = Some(why);
        });
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Scan)) {
        if let Some(scan) = self.scans.lock().get_mut(name) {
            change(scan);
        }
    }

    /// Whether a backend has been looked through.
    pub fn is_complete(&self, backend: &str, uid: &str) -> bool {
        let scans = self.scans.lock();
        scans
            .get(backend)
            .is_some_and(|scan| scan.uid == uid && scan.index.is_complete())
    }

    /// What a backend holds that is tagged with this namespace and name, and that nobody claims.
    pub fn namesakes(
        &self,
        backend: &str,
        namespace: &str,
        name: &str,
        is_claimed: impl Fn(&str) -> bool,
    ) -> Vec<Orphan> {
        let scans = self.scans.lock();
        let found = scans.get(backend).into_iter();
        found
            .flat_map(|scan| scan.index.namesakes(namespace, name))
            .map(|(handle, owner)| Orphan {
                backend_name: backend.to_owned(),
                handle,
                owner: owner.clone(),
                volume: None,
            })
            .filter(|orphan| !is_claimed(&orphan.place().subvolume))
            .collect()
    }

    /// Forgets a backend.
    pub fn forget(&self, backend: &str) {
        self.scans.lock().remove(backend);
    }
}
