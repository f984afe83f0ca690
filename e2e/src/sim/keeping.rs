//! What is to be kept of shares whose users may have written something, and until when.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};
use shoal_crds::{DeletionPolicy, Share, ShareDeletion};

/// What becomes of a share's data when it is deleted.
#[derive(Clone, Copy, Debug, Default)]
struct Promise {
    policy: DeletionPolicy,
    is_kept_a_while: bool,
}

impl Promise {
    fn is_kept(self) -> bool {
        self.is_kept_a_while || self.policy == DeletionPolicy::Retain
    }
}

/// All of them, by the share's uid.
#[derive(Debug)]
pub struct Promises {
    /// By how much a clock is fast at most.
    fast: SignedDuration,
    shares: BTreeMap<String, Promise>,
    /// The earliest end that a ShareDeletion has had: what came later may have come too late.
    ends: BTreeMap<String, Timestamp>,
}

impl Promises {
    /// None yet, where clocks are fast by so much at most.
    pub fn new(fast: SignedDuration) -> Self {
        Self {
            fast,
            shares: BTreeMap::new(),
            ends: BTreeMap::new(),
        }
    }

    /// Notes a share that was told Ready, or whose subvolume has got its tag.
    pub fn note(&mut self, share: &Share) {
        let capabilities = share.status.as_ref().and_then(|s| s.capabilities.as_ref());
        let (Some(uid), Some(capabilities)) = (share.metadata.uid.clone(), capabilities) else {
            return;
        };
        let promise = Promise {
            policy: share.spec.deletion_policy.unwrap_or(capabilities.deletion_policy),
            is_kept_a_while: !capabilities.retention.is_zero(),
        };
        self.shares.insert(uid, promise);
    }

    /// Forgets a share.
    pub fn forget(&mut self, uid: &str) {
        self.shares.remove(uid);
    }

    /// Notes until when a ShareDeletion keeps what it holds.
    pub fn note_end(&mut self, deletion: &ShareDeletion) {
        let uid = deletion.spec.share_ref.uid.clone();
        let until = match &deletion.spec.retain_until {
            Some(until) => until.0,
            // Its removal may be on its way.
            None if self.shares.get(&uid).is_some_and(|promise| !promise.is_kept()) => Timestamp::MIN,
            None => return,
        };
        let end = self.ends.entry(uid).or_insert(until);
        *end = until.min(*end);
    }

    /// Whether the data of a share may be removed now: by the share itself, or by what is left of it.
    pub fn check(&self, uid: &str, deletion: Option<&ShareDeletion>, now: Timestamp) -> Result<()> {
        let Some(promise) = self.shares.get(uid) else {
            return Ok(());
        };
        let is_due = match self.ends.get(uid) {
            // One that was given up may be gone, with a removal on its way.
            Some(end) => *end <= now.saturating_add(self.fast)?,
            None => !promise.is_kept(),
        };
        ensure!(is_due, "{promise:?}, and it is {now}: {deletion:#?}");
        Ok(())
    }
}
