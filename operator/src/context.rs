//! What every controller shares.

use std::{collections::HashSet, sync::OnceLock, time::Duration};

use jiff::Timestamp;
use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    backends::{Backends, SimulatedClusters},
    caches::Caches,
    clock::Clock,
    ensures::Ensures,
    in_hand::InHand,
    leader::Fence,
    looks::Looks,
    metrics::Metrics,
    orphans::Orphans,
    settings::Settings,
    turns::Turns,
    written::Written,
};

/// What every controller shares.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// This Kubernetes cluster: uid of the namespace kube-system.
    pub cluster: String,
    /// The namespace in which keys are kept that Show locks hide: the operator's own.
    pub custody: String,
    /// Watch caches, and the queues that their events feed.
    pub caches: Caches,
    /// The backends, as they answered last.
    pub backends: Backends,
    /// Whose turn it is on a storage cluster.
    pub turns: Turns,
    /// Commands that go on after their Share was let go.
    pub in_hand: InHand,
    /// When each share is next looked at.
    pub looks: Looks,
    /// The rounds over backends' shares that this replica makes.
    pub ensures: Ensures,
    /// What backends hold that no object owns.
    pub orphans: Orphans,
    /// What passes have just written.
    pub written: Written,
    /// Whether this replica may act.
    pub fence: Fence,
    /// Writes events.
    pub recorder: Recorder,
    /// Since when its controllers work.
    pub working_since: OnceLock<Instant>,
    /// Objects already told that they can't be parsed, by uid and generation.
    pub invalid: Mutex<HashSet<(String, i64)>>,
    /// What is measured.
    pub metrics: Metrics,
    /// Whether that tells of every single share.
    pub tells_each_share: bool,
    /// Cancelled once the process is asked to end: no pass takes another step.
    pub stop: CancellationToken,
    /// What time it is.
    pub clock: Clock,
}

impl Context {
    /// As a replica starts: nothing is known yet, and it does not lead.
    pub fn new(
        client: &Client,
        cluster: String,
        caches: Caches,
        simulated: SimulatedClusters,
        settings: &Settings,
        clock: Clock,
    ) -> Self {
        let metrics = Metrics::default();
        Self {
            client: client.clone(),
            cluster,
            custody: settings.namespace.clone(),
            caches,
            backends: Backends::new(
                &settings.identity,
                settings.command_timeout(),
                simulated,
                metrics.operations.clone(),
                clock.clone(),
            ),
            turns: Turns::default(),
            in_hand: InHand::default(),
            looks: Looks::new(settings.resync()),
            ensures: Ensures::default(),
            orphans: Orphans::new(settings.resync()),
            written: Written::default(),
            fence: Fence::new(settings.lease()),
            recorder: recorder(client, &settings.identity),
            working_since: OnceLock::new(),
            invalid: Mutex::default(),
            metrics,
            tells_each_share: settings.share_metrics,
            stop: CancellationToken::new(),
            clock,
        }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// How long its controllers have worked.
    pub fn has_worked_for(&self) -> Duration {
        self.working_since.get().map(Instant::elapsed).unwrap_or_default()
    }

    /// Whether something that was begun may still come: a backend's command that was not answered, or a choice that the API
    /// server was told to store.
    pub fn is_owed_an_answer(&self) -> bool {
        self.backends.owe_an_answer() || self.caches.ledger.lock().is_owed()
    }

    /// Whether the process has been asked to end.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }
}

fn recorder(client: &Client, identity: &str) -> Recorder {
    let reporter = Reporter {
        controller: "shoal".into(),
        instance: Some(identity.to_owned()),
    };
    Recorder::new(client.clone(), reporter)
}
