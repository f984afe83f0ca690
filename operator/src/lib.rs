//! The Shoal operator: controllers that bring backends in line with what users ask for.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod backends;
pub mod caches;
pub mod clock;
pub mod context;
pub mod controllers;
pub mod custody;
pub mod driver;
pub mod ensures;
pub mod error;
pub mod failpoint;
pub mod in_hand;
pub mod invalid;
pub mod leader;
pub mod looks;
pub mod metrics;
pub mod orphans;
pub mod replica;
pub mod run;
pub mod server;
pub mod settings;
pub mod traces;
pub mod turns;
pub mod written;
