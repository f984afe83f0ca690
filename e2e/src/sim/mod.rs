//! The simulation: the operator's own code, with its simulated backend, against an API server in memory, in simulated time.
//! Everything that happens in a run is drawn from one seed.

pub mod api_server;
mod check;
mod ensuring;
mod explore;
mod hiding;
mod keeping;
mod placing;
pub mod plan;
mod recovering;
mod replica;
mod run;
mod shrink;
#[cfg(test)]
mod tests;
mod user;
mod wire;

pub use check::Violation;
pub use explore::{explore, processors};
pub use run::{Outcome, run};
pub use shrink::shrink;
