//! What the end-to-end suites, the demo and the benchmarks run against.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api_contract;
pub mod audit;
pub mod bench;
pub mod helm;
pub mod holdings;
pub mod lab;
pub mod monitoring;
pub mod race;
pub mod sim;
pub mod simulated_storage;
pub mod storage;
pub mod suite;
pub mod workload;
pub mod world;
