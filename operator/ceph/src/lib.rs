//! The Ceph backend: shares on CephFS, reached natively or through a clustered NFS service.
//!
//! librados is loaded at run time (`docs/decisions/0001-librados-at-run-time.md`).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backend;
#[cfg(test)]
mod bad_input;
mod capabilities;
mod commands;
mod connection;
mod errno;
mod lane;
mod native;
mod nfs;
#[cfg(test)]
#[path = "../../domain/tests/domain/noise.rs"]
mod noise;
mod rados;
mod settings;
mod subvolume;
mod work;

pub use backend::CephBackend;
pub use capabilities::capabilities;
pub use connection::Connections;
pub use rados::exit;
pub use settings::{CephSettings, NfsService};
