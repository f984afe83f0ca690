//! What the decisions are, rule by rule, and that acting on them converges from every state that can be reached.

#![allow(clippy::unwrap_used)]

mod backend;
mod condition;
mod convergence;
mod decision;
mod export_location;
mod fixtures;
mod placement;
mod rule;
mod share;
mod share_type;
mod world;
