//! Ceph's admin over one connection: a command costs milliseconds, where the `ceph` program needs half a second.

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::ceph::Ceph;
use super::client::Session;

const PROGRAM: &str = include_str!("../../lab/ceph/admin.py");

/// A connection as `client.admin`.
#[derive(Debug)]
pub struct Admin {
    session: Mutex<Session>,
}

#[allow(clippy::needless_pass_by_value)] // As `json!` makes it.
impl Admin {
    /// Connects to a cluster of the lab.
    pub fn connect(ceph: &Ceph) -> Result<Self> {
        Self::start(ceph.beside(&["python3", "-u", "-c", PROGRAM]))
    }

    /// Connects from a process that is beside Ceph itself.
    pub fn beside() -> Result<Self> {
        let mut command = Command::new("python3");
        command.args(["-u", "-c", PROGRAM]);
        Self::start(command)
    }

    fn start(command: Command) -> Result<Self> {
        Ok(Self {
            session: Mutex::new(Session::start("Ceph's admin".into(), command)?),
        })
    }

    /// A command of the manager; the answer is JSON where it can be read as such, else text.
    ///
    /// # Errors
    /// A [`super::client::ClientError`] with the errno that Ceph answered.
    pub fn mgr(&self, command: Value) -> Result<Value> {
        self.send("mgr", &command, "")
    }

    /// A command of the manager with input.
    pub fn mgr_with(&self, command: Value, input: &Value) -> Result<Value> {
        self.send("mgr", &command, &input.to_string())
    }

    /// A command of the monitors.
    pub fn mon(&self, command: Value) -> Result<Value> {
        self.send("mon", &command, "")
    }

    fn send(&self, to: &str, command: &Value, input: &str) -> Result<Value> {
        // A test that failed while it asked is no reason for the next one not to ask.
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answer = session
            .ask(
                to,
                json!({"path": command["prefix"], "command": command, "input": input}),
            )
            .with_context(|| format!("{command}"))?;
        Ok(answer.remove("out").unwrap_or_default())
    }
}
