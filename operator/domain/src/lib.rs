//! Every decision of Shoal, as pure functions: from what was observed, and the time, to what to say and at most one step
//! to take. No client, no runtime and no clock of its own, so every rule has a plain test.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backoff;
pub mod class;
pub mod condition;
pub mod decision;
pub mod difference;
pub mod ensure;
pub mod export_location;
pub mod grant;
pub mod identity;
pub mod lease;
pub mod ledger;
pub mod metadata;
pub mod mount_point;
pub mod orphan;
pub mod owner;
pub mod placement;
pub mod resource_lock;
pub mod share;
pub mod share_access_rule;
pub mod share_backend;
pub mod share_deletion;
pub mod share_quota;
pub mod share_type;
pub mod volume;

pub use class::{Class, Failure, Scope};
pub use decision::{Decision, Event, Next, Step};
