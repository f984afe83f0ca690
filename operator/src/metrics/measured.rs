//! A backend whose answers are counted, timed, and traced.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
};
use shoal_backend::{Backend, Error, Result};
use shoal_domain::{
    Scope,
    grant::{Access, Applied, Grant, Key},
    identity::{Description, Identity},
    orphan::Listing,
    owner::{Owner, Tag},
    volume::{NewVolume, Sight, Volume, VolumeRef},
};
use tokio::time::Instant;
use tracing::{Instrument, field::Empty};

use super::histogram;
use crate::clock::Clock;

/// Labels of what a backend was asked.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Operation {
    /// The ShareBackend.
    pub backend: String,
    /// What it was asked.
    pub operation: &'static str,
}

/// Labels of what a backend failed.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Failed {
    /// The ShareBackend.
    pub backend: String,
    /// What it was asked.
    pub operation: &'static str,
    /// The error's class.
    pub class: &'static str,
    /// Its reason.
    pub reason: &'static str,
}

/// What is asked of backends. Clones count together.
#[derive(Clone, Debug)]
pub struct Operations {
    /// How long they take.
    pub seconds: Family<Operation, Histogram>,
    /// Those that fail.
    pub errors: Family<Failed, Counter>,
}

impl Default for Operations {
    fn default() -> Self {
        Self {
            seconds: Family::new_with_constructor(histogram as fn() -> Histogram),
            errors: Family::default(),
        }
    }
}

/// A backend whose answers are counted.
pub struct Measured {
    backend: Box<dyn Backend>,
    name: String,
    operations: Operations,
    clock: Clock,
    answered_at: Mutex<Option<Timestamp>>,
}

impl std::fmt::Debug for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.backend.fmt(f)
    }
}

impl Measured {
    /// Counts what this backend answers, as the ShareBackend's of this name.
    pub fn new(name: &str, backend: Box<dyn Backend>, operations: &Operations, clock: &Clock) -> Self {
        Self {
            backend,
            name: name.to_owned(),
            operations: operations.clone(),
            clock: clock.clone(),
            answered_at: Mutex::default(),
        }
    }

    /// When the storage answered last, well or not.
    pub fn answered_at(&self) -> Option<Timestamp> {
        *self.answered_at.lock()
    }

    async fn measure<T>(&self, operation: &'static str, asked: impl Future<Output = Result<T>>) -> Result<T> {
        let started = Instant::now();
        let span = tracing::info_span!(
            "backend",
            otel.name = operation,
            backend = self.name,
            reason = Empty,
            otel.status_code = Empty
        );
        let answer = asked.instrument(span.clone()).await;
        let backend = self.name.clone();
        self.operations
            .seconds
            .get_or_create(&Operation {
                backend: backend.clone(),
                operation,
            })
            .observe(started.elapsed().as_secs_f64());
        if let Err(error) = &answer {
            span.record("reason", error.reason());
            span.record("otel.status_code", "ERROR");
            self.operations
                .errors
                .get_or_create(&Failed {
                    backend,
                    operation,
                    class: error.class().as_str(),
                    reason: error.reason(),
                })
                .inc();
        }
        if answer.as_ref().err().map(Error::scope) != Some(Scope::Backend) {
            *self.answered_at.lock() = Some((self.clock).now());
        }
        answer
    }
}

#[async_trait]
impl Backend for Measured {
    fn deadline(&self) -> Duration {
        self.backend.deadline()
    }

    async fn describe(&self, recorded: Option<&Identity>) -> Result<Description> {
        self.measure("describe", self.backend.describe(recorded)).await
    }

    async fn list(&self, on: &Identity) -> Result<Listing> {
        self.measure("list", self.backend.list(on)).await
    }

    async fn tag(&self, on: &Identity, subvolume: &str) -> Result<Option<Tag>> {
        self.measure("tag", self.backend.tag(on, subvolume)).await
    }

    async fn look(&self, on: &Identity, volume: &VolumeRef) -> Result<Sight> {
        self.measure("look", self.backend.look(on, volume)).await
    }

    async fn create(&self, on: &Identity, volume: &VolumeRef, new: &NewVolume) -> Result<Volume> {
        self.measure("create", self.backend.create(on, volume, new)).await
    }

    async fn resize(&self, on: &Identity, volume: &VolumeRef, size_bytes: u64) -> Result<()> {
        self.measure("resize", self.backend.resize(on, volume, size_bytes))
            .await
    }

    async fn set_metadata(&self, on: &Identity, volume: &VolumeRef, text: Option<&str>) -> Result<()> {
        self.measure("set_metadata", self.backend.set_metadata(on, volume, text))
            .await
    }

    async fn export(&self, on: &Identity, volume: &VolumeRef, access: &Access) -> Result<Vec<Applied>> {
        self.measure("export", self.backend.export(on, volume, access))
            .await
    }

    async fn key(&self, on: &Identity, volume: &VolumeRef, grant: &Grant) -> Result<Key> {
        self.measure("key", self.backend.key(on, volume, grant)).await
    }

    async fn unexport(&self, on: &Identity, volume: &VolumeRef) -> Result<()> {
        self.measure("unexport", self.backend.unexport(on, volume)).await
    }

    async fn revoke(&self, on: &Identity, volume: &VolumeRef) -> Result<()> {
        self.measure("revoke", self.backend.revoke(on, volume)).await
    }

    async fn hand_over(&self, on: &Identity, volume: &VolumeRef, to: &Owner) -> Result<()> {
        self.measure("hand_over", self.backend.hand_over(on, volume, to))
            .await
    }

    async fn remove(&self, on: &Identity, volume: &VolumeRef) -> Result<()> {
        self.measure("remove", self.backend.remove(on, volume)).await
    }
}
