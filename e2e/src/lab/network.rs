//! A network of the lab's own, without a way out: what a node does to its network stays in it, and addresses that nobody
//! answers on lead nowhere.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::process::{Launcher, Process, Started, wait_until};

const WHO: &str = "network";

/// A network namespace. Loopback addresses are its own; those of 10.80.0.0/16 are, too, and Pods reach them.
#[derive(Debug)]
pub(super) struct Network {
    inside: Process,
    port: u16,
    started: Started,
}

impl Network {
    /// Makes it in `folder`.
    pub(super) fn start(folder: &Path, launcher: &Launcher) -> Result<Self> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("network"), include_str!("../../lab/node/network"))?;
        let [port] = free_ports()?;
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--kill-child"])
            .arg(format!("--wd={}", folder.display()))
            .args(["--", "/bin/sh", "network"])
            .arg(port.to_string());
        let log = folder.join("log");
        let mut started = launcher.start(WHO, &command, &log, Stdio::null())?;
        wait_until("the lab's network", Duration::from_secs(20), || {
            started.check(&log)?;
            Ok(folder.join("up").exists())
        })?;
        Ok(Self {
            inside: started
                .process
                .first_child()
                .context("nobody holds the network")?,
            port,
            started,
        })
    }

    /// The same command, in this network.
    pub(super) fn enter(&self, command: &Command) -> Command {
        let mut entered = Command::new("nsenter");
        entered
            .arg(format!("--net=/proc/{}/ns/net", self.inside.pid))
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args());
        entered
    }

    /// The port that leads from the host's 127.0.0.1 to this network's, and from Service `kubernetes`, too.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Its process, which the network does not outlive.
    pub(super) fn process(&self) -> &Process {
        &self.started.process
    }
}

/// Loopback TCP ports that were free a moment ago.
pub(super) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let listeners = (0..N)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<Result<Vec<_>, _>>()
        .context("no free port on 127.0.0.1")?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
