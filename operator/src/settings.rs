//! Settings: flags, with environment variables as fallback, read and checked once.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use shoal_ceph::CephBackend;

use crate::api::REQUEST_TIMEOUT;

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Human,
}

/// Settings of `shoal run`.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Namespace that holds the leader election Lease, and the keys that Show locks hide
    #[arg(long, env = "SHOAL_NAMESPACE", default_value = "shoal-system")]
    pub namespace: String,
    /// Name of this process in the Lease and in events; must differ between replicas, and from the one before it
    #[arg(long, env = "SHOAL_IDENTITY", default_value_t = default_identity())]
    pub identity: String,
    /// Address of the health and metrics endpoints (/healthz, /readyz, /metrics)
    #[arg(long, env = "SHOAL_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// How long a leader that has gone silent is waited for, in seconds; five sixths of it must exceed three times the
    /// command time-out, and ten seconds
    #[arg(long, env = "SHOAL_LEASE_SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u32).range(14..=3600))]
    pub lease_seconds: u32,
    /// How long one command of a backend may take, in seconds
    #[arg(long, env = "SHOAL_COMMAND_TIMEOUT_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub command_timeout_seconds: u32,
    /// How often each share is compared with what its backend has, in seconds; less often when there are many
    #[arg(long, env = "SHOAL_RESYNC_SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub resync_seconds: u32,
    /// Folder in which simulated backends keep their state, so that it outlives the process; kept in memory if not set
    #[arg(long, env = "SHOAL_SIMULATED_STATE")]
    pub simulated_state: Option<PathBuf>,
    /// Whether metrics tell the size and the use of every single share
    #[arg(long, env = "SHOAL_SHARE_METRICS")]
    pub share_metrics: bool,
    /// Where traces are sent, by OTLP over HTTP, such as http://collector:4318; not at all if not set
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// How logs are written
    #[arg(long, env = "SHOAL_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// What is logged, as tracing directives
    #[arg(
        long,
        env = "SHOAL_LOG",
        default_value = "info,kube_client=warn,kube_runtime=warn"
    )]
    pub log: String,
}

impl Settings {
    /// What flags can't say one by one.
    pub fn check(&self) -> Result<(), String> {
        if self.identity.is_empty() || self.identity.len() > 128 {
            return Err("--identity must have 1 to 128 characters".into());
        }
        let request = u32::try_from(REQUEST_TIMEOUT.as_secs()).unwrap_or(u32::MAX);
        let effect = request.max(self.command_timeout_seconds * CephBackend::COMMANDS_IN_DEADLINE);
        // The Lease is renewed every sixth of its duration; what is left then has to outlive an effect, or none starts.
        if self.lease_seconds * 5 / 6 <= effect {
            return Err(format!(
                "--lease-seconds {} is too short for --command-timeout-seconds {}: five sixths of it must exceed {effect}",
                self.lease_seconds, self.command_timeout_seconds
            ));
        }
        Ok(())
    }

    /// How long the lease lasts.
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds.into())
    }

    /// How long one command may take.
    pub fn command_timeout(&self) -> Duration {
        Duration::from_secs(self.command_timeout_seconds.into())
    }

    /// How often shares are compared with their backend.
    pub fn resync(&self) -> Duration {
        Duration::from_secs(self.resync_seconds.into())
    }
}

/// A name that no other process has had: a container that starts again in its Pod must wait for the end of the Lease of the
/// one before, whose last command may still be on its way.
fn default_identity() -> String {
    let host = std::env::var("HOSTNAME")
        .ok()
        .filter(|h| !h.is_empty())
        .unwrap_or_else(|| "shoal".into());
    let now = jiff::Timestamp::now().as_nanosecond();
    format!("{host}-{}-{now:x}", std::process::id())
}
