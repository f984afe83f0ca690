//! What the decisions are, rule by rule, that acting on them converges from every state that can be reached, and that no
//! input is too bad for them.

#![allow(clippy::unwrap_used)]

mod backend;
mod bad_input;
mod condition;
mod convergence;
mod decision;
mod difference;
mod ensure;
mod export_location;
mod fixtures;
mod health;
mod ledger;
mod metadata;
mod mount_point;
mod noise;
mod orphan;
mod owner;
mod placement;
mod resource_lock;
mod rule;
mod share;
mod share_deletion;
mod share_quota;
mod share_type;
mod world;
