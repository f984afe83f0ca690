//! What the end-to-end suites, the demo and the benchmarks run against.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api_contract;
pub mod audit;
pub mod bench;
pub mod lab;
pub mod sim;
pub mod simulation;
pub mod storage;
pub mod suite;
pub mod workload;
pub mod world;
