//! Prometheus metrics.

use std::{sync::atomic::AtomicU64, time::Duration};

use jiff::Timestamp;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use shoal_crds::{DeletionPhase, OrphanStatus, ShareDeletion};
use shoal_domain::share_deletion;

/// Labels of a pass.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Pass {
    /// The kind.
    pub kind: &'static str,
    /// `ok` or `error`.
    pub outcome: &'static str,
    /// The error's reason; empty if there was none.
    pub reason: &'static str,
}

/// Labels of a step.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Step {
    /// The kind.
    pub kind: &'static str,
    /// The step's name.
    pub step: &'static str,
    /// `ok`, or the failure's reason.
    pub outcome: &'static str,
}

/// Labels of ShareDeletions.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Phase {
    /// How far they are.
    pub phase: &'static str,
}

/// Labels of what is counted by kind alone.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Kind {
    /// The kind.
    pub kind: &'static str,
}

/// Labels of what backends hold that no object owns.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Orphans {
    /// The ShareBackend.
    pub backend: String,
    /// `subvolume` or `export`.
    pub what: &'static str,
}

/// Everything that is measured.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Passes, by kind and outcome.
    pub passes: Family<Pass, Counter>,
    /// How long passes take.
    pub pass_seconds: Family<Kind, Histogram>,
    /// How long steps take.
    pub step_seconds: Family<Step, Histogram>,
    /// Status writes, by kind.
    pub status_writes: Family<Kind, Counter>,
    /// Whether this replica leads.
    pub leader: Gauge<f64, AtomicU64>,
    /// ShareDeletions, by phase.
    pub share_deletions: Family<Phase, Gauge>,
    /// Those of which clients may still be let in.
    pub share_deletions_with_access: Gauge,
    /// The age of the oldest that is being worked on.
    pub share_deletion_oldest_seconds: Gauge<f64, AtomicU64>,
    /// What backends hold that no object owns.
    pub orphans: Family<Orphans, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = || {
            Histogram::new([
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
            ])
        };
        let mut metrics = Self {
            registry: Registry::with_prefix("shoal"),
            passes: Family::default(),
            pass_seconds: Family::new_with_constructor(histogram as fn() -> Histogram),
            step_seconds: Family::new_with_constructor(histogram as fn() -> Histogram),
            status_writes: Family::default(),
            leader: Gauge::default(),
            share_deletions: Family::default(),
            share_deletions_with_access: Gauge::default(),
            share_deletion_oldest_seconds: Gauge::default(),
            orphans: Family::default(),
        };
        let r = &mut metrics.registry;
        r.register("reconcile", "Passes of the controllers", metrics.passes.clone());
        r.register(
            "reconcile_seconds",
            "Time from the start of a pass to its end",
            metrics.pass_seconds.clone(),
        );
        r.register(
            "step_seconds",
            "Time that one step of a pass took",
            metrics.step_seconds.clone(),
        );
        r.register(
            "status_writes",
            "Writes of a status",
            metrics.status_writes.clone(),
        );
        r.register("leader", "1 if this replica leads", metrics.leader.clone());
        r.register(
            "share_deletions",
            "What is left of deleted shares, by phase; told by the leader",
            metrics.share_deletions.clone(),
        );
        r.register(
            "share_deletions_with_access",
            "Deleted shares of which clients may still be let in; told by the leader",
            metrics.share_deletions_with_access.clone(),
        );
        r.register(
            "share_deletion_oldest_seconds",
            "Age of the oldest deletion that is being worked on; told by the leader",
            metrics.share_deletion_oldest_seconds.clone(),
        );
        r.register(
            "orphans",
            "Subvolumes and exports that no object owns, as of the last scan; told by the leader",
            metrics.orphans.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// Notes what there is left of deleted shares.
    pub fn note_deletions(&self, deletions: &[ShareDeletion], now: Timestamp) {
        use DeletionPhase::{Abandoned, Accepted, Error, Purging, Retained, RevokingAccess};
        let phase = |deletion: &ShareDeletion| share_deletion::phase(deletion).unwrap_or(Accepted);
        let count = |wanted: &dyn Fn(&ShareDeletion) -> bool| {
            let found = deletions.iter().filter(|deletion| wanted(deletion)).count();
            i64::try_from(found).unwrap_or(i64::MAX)
        };
        for each in [Accepted, RevokingAccess, Retained, Purging, Error, Abandoned] {
            let label = Phase { phase: each.as_str() };
            let found = count(&|deletion| phase(deletion) == each);
            self.share_deletions.get_or_create(&label).set(found);
        }
        self.share_deletions_with_access
            .set(count(&share_deletion::may_have_access));
        let oldest = deletions
            .iter()
            .filter(|deletion| !phase(deletion).is_adoptable())
            .filter_map(|deletion| Some(now.duration_since(share_deletion::due_since(deletion)?)))
            .max();
        self.share_deletion_oldest_seconds
            .set(oldest.map_or(0.0, |age| age.as_secs_f64().max(0.0)));
    }

    /// Notes what a backend holds that no object owns.
    pub fn note_orphans(&self, backend: &str, found: Option<&OrphanStatus>) {
        let Some(found) = found else { return };
        for (what, count) in [("subvolume", found.subvolumes), ("export", found.exports)] {
            let label = Orphans {
                backend: backend.to_owned(),
                what,
            };
            self.orphans.get_or_create(&label).set(count);
        }
    }

    /// Forgets a backend that is gone.
    pub fn forget_orphans(&self, backend: &str) {
        for what in ["subvolume", "export"] {
            let backend = backend.to_owned();
            self.orphans.remove(&Orphans { backend, what });
        }
    }

    /// Notes a pass.
    pub fn pass(&self, kind: &'static str, error: Option<&'static str>, took: Duration) {
        let outcome = if error.is_some() { "error" } else { "ok" };
        self.passes
            .get_or_create(&Pass {
                kind,
                outcome,
                reason: error.unwrap_or_default(),
            })
            .inc();
        self.pass_seconds
            .get_or_create(&Kind { kind })
            .observe(took.as_secs_f64());
    }

    /// All of it in Prometheus' text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String can't fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
