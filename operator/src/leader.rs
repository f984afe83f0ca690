//! Leader election on a Lease: one replica acts, the others wait.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{Api, Client, api::ObjectMeta, api::PostParams};
use parking_lot::Mutex;
use shoal_domain::lease::{self, Held, Move};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// Name of the Lease.
pub const LEASE_NAME: &str = "shoal";

/// Whether this replica leads, and until when. Cheap to clone; every effect asks it.
#[derive(Clone, Debug)]
pub struct Fence {
    renewed: Arc<Mutex<Option<Instant>>>,
    duration: Duration,
}

impl Fence {
    /// A fence that is closed.
    pub fn new(duration: Duration) -> Self {
        Self {
            renewed: Arc::default(),
            duration,
        }
    }

    /// Whether an effect that takes at most this long may start now.
    pub fn covers(&self, effect: Duration) -> bool {
        self.renewed
            .lock()
            .is_some_and(|at| lease::covers(at.elapsed(), self.duration, effect))
    }

    /// How long the lease lasts.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Whether this replica leads.
    pub fn is_leading(&self) -> bool {
        self.covers(Duration::ZERO)
    }

    fn has_led(&self) -> bool {
        self.renewed.lock().is_some()
    }

    fn renewed_at(&self, at: Option<Instant>) {
        *self.renewed.lock() = at;
    }
}

/// The Lease, as one replica handles it.
pub struct Elector {
    api: Api<Lease>,
    me: String,
    fence: Fence,
    /// The version of the Lease last seen, and when it was first seen.
    seen: Option<(String, Instant)>,
}

impl Elector {
    /// An elector for the replica `me`.
    pub fn new(client: &Client, namespace: &str, me: &str, fence: Fence) -> Self {
        Self {
            api: Api::namespaced(client.clone(), namespace),
            me: me.into(),
            fence,
            seen: None,
        }
    }

    /// How often the Lease is renewed, or looked at.
    fn interval(&self) -> Duration {
        (self.fence.duration / 6).clamp(Duration::from_millis(200), Duration::from_secs(5))
    }

    /// Waits until this replica leads, or is asked to stop: false. Not with a request on its way, which would leave the Lease
    /// with one that has ended.
    pub async fn acquire(&mut self, stop: &CancellationToken) -> bool {
        loop {
            match self.turn().await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the Lease can't be read or taken"),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                () = sleep(self.interval()) => {}
            }
        }
    }

    /// Renews the Lease for as long as that succeeds in time. Returns only when it is lost.
    pub async fn hold(&mut self) -> anyhow::Error {
        loop {
            sleep(self.interval()).await;
            match self.turn().await {
                Ok(true) => {}
                Ok(false) => return anyhow::anyhow!("another replica took the Lease"),
                Err(error) if self.fence.covers(self.interval()) => {
                    tracing::warn!(%error, "the Lease could not be renewed");
                }
                Err(error) => {
                    return anyhow::Error::new(error).context("the Lease could not be renewed in time");
                }
            }
        }
    }

    /// Gives the Lease back, so that another replica need not wait for its end. Only with no effect in flight.
    pub async fn release(&mut self) -> Result<(), Error> {
        self.fence.renewed_at(None);
        match self.try_release().await {
            // The renewal that was on its way when the end was asked for has been stored meanwhile.
            Err(Error::Conflict) => self.try_release().await,
            outcome => outcome,
        }
    }

    async fn try_release(&self) -> Result<(), Error> {
        let Some(mut lease) = self.request(self.api.get_opt(LEASE_NAME)).await? else {
            return Ok(());
        };
        if let Some(spec) = lease
            .spec
            .as_mut()
            .filter(|s| s.holder_identity.as_deref() == Some(&self.me))
        {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
            self.request(self.api.replace(LEASE_NAME, &PostParams::default(), &lease))
                .await?;
        }
        Ok(())
    }

    /// Looks at the Lease and makes the move that is due. True: it is ours, for its duration from before the request.
    async fn turn(&mut self) -> Result<bool, Error> {
        let asked = Instant::now();
        let lease = self.request(self.api.get_opt(LEASE_NAME)).await?;
        let held = lease.as_ref().and_then(|lease| self.held(lease));
        let next = match lease::evaluate(&self.me, held.as_ref()) {
            // One that led and finds the Lease free has lost it: another may have led meanwhile, and gone. What was decided
            // before that must not go on under a lease taken anew.
            Move::Take if !self.fence.has_led() => self.renewal(lease),
            Move::Renew => self.renewal(lease),
            Move::Take | Move::Stand => {
                self.fence.renewed_at(None);
                return Ok(false);
            }
        };
        let stored = match &next.metadata.resource_version {
            None => self.request(self.api.create(&PostParams::default(), &next)).await,
            Some(_) => {
                self.request(self.api.replace(LEASE_NAME, &PostParams::default(), &next))
                    .await
            }
        };
        match stored {
            Ok(_) => {
                self.fence.renewed_at(Some(asked));
                Ok(true)
            }
            // Another replica was faster, or a write of our own was stored whose answer was lost: the next look tells.
            Err(error) => Err(error),
        }
    }

    fn held(&mut self, lease: &Lease) -> Option<Held> {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => Instant::now(),
        };
        self.seen = Some((version, since));
        let spec = lease.spec.as_ref()?;
        Some(Held {
            holder: spec.holder_identity.clone().unwrap_or_default(),
            duration: Duration::from_secs(
                spec.lease_duration_seconds
                    .unwrap_or_default()
                    .unsigned_abs()
                    .into(),
            ),
            unchanged_for: since.elapsed(),
        })
    }

    fn renewal(&self, lease: Option<Lease>) -> Lease {
        let now = Some(MicroTime(Timestamp::now()));
        let mut lease = lease.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(LEASE_NAME.into()),
                ..ObjectMeta::default()
            },
            ..Lease::default()
        });
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if spec.holder_identity.as_deref() != Some(&self.me) {
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default().saturating_add(1));
            spec.acquire_time.clone_from(&now);
        }
        spec.holder_identity = Some(self.me.clone());
        spec.lease_duration_seconds = i32::try_from(self.fence.duration.as_secs()).ok();
        spec.renew_time = now;
        lease
    }

    async fn request<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
        let longest = self.fence.duration / 4;
        match timeout(longest, request).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Error::ApiTimedOut(longest)),
        }
    }
}
