//! The world in memory, in which thousands of seeded runs take seconds.

pub mod api_server;
