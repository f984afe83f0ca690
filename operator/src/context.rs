//! What every controller shares.

use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use kube::{Client, runtime::events::Recorder};

use crate::{
    backends::Backends, caches::Caches, leader::Fence, looks::Looks, metrics::Metrics, turns::Turns,
};

/// What every controller shares.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// This Kubernetes cluster: uid of the namespace kube-system.
    pub cluster: String,
    /// Watch caches, and the queues that their events feed.
    pub caches: Caches,
    /// The backends, as they answered last.
    pub backends: Backends,
    /// Whose turn it is on a storage cluster.
    pub turns: Turns,
    /// When each share is next looked at.
    pub looks: Looks,
    /// Whether this replica may act.
    pub fence: Fence,
    /// Writes events.
    pub recorder: Recorder,
    /// Objects already told that they can't be parsed, by uid and generation.
    pub invalid: parking_lot::Mutex<std::collections::HashSet<(String, i64)>>,
    /// What is measured.
    pub metrics: Metrics,
    /// Set once the process is asked to end: no pass takes another step.
    pub stopping: AtomicBool,
}

impl Context {
    /// The time.
    #[allow(clippy::unused_self)] // A simulation has a clock of its own.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Whether the process has been asked to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}
