//! What time it is, for people and for what is stored.

use std::sync::Arc;

use jiff::Timestamp;

/// A clock for what people read, and for times that are kept in status and spec, until when a deleted share's data is kept
/// among them. Leases and deadlines are measured by tokio's monotonic one.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's.
    pub fn system() -> Self {
        Self::new(Timestamp::now)
    }

    /// A clock that says what this says.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// What it says.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}
