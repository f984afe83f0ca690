//! Every decision of Shoal, as pure functions: from what was observed, and the time, to what to say and at most one step
//! to take. No client, no runtime and no clock of its own, so every rule has a plain test.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod class;
pub mod grant;
pub mod identity;
pub mod owner;
pub mod volume;

pub use class::{Class, Failure, Scope};
