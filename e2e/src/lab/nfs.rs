//! NFS clients: libnfs, NFSv4, from a chosen source address.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use serde_json::json;

use super::ceph::Ceph;
use super::client::{Owner, Session};
use super::preload::BIND_SOURCE;

/// One client that has mounted one export, and stays mounted until it is dropped.
#[derive(Debug)]
pub struct NfsClient {
    session: Session,
}

impl NfsClient {
    /// Mounts `path` (an export's pseudo path) from `server`, coming from `source` (any address of 127.0.0.0/8, or
    /// `::1`), as `owner`.
    ///
    /// An export that does not let `source` in answers as if it were not there: a refusal,
    /// see [`super::client::ClientError::is_refused`].
    pub fn mount(ceph: &Ceph, server: SocketAddr, path: &str, source: IpAddr, owner: Owner) -> Result<Self> {
        let library = ceph.path_inside(&BIND_SOURCE.get()?)?;
        let preload = format!("LD_PRELOAD={}", library.display());
        let from = format!("SHOAL_SOURCE={source}");
        let command = ceph.beside(&["env", &preload, &from, "python3", "/lab/nfs_client.py"]);
        let mut session = Session::start(format!("NFS client {source}"), command)?;
        session.ask(
            "mount",
            json!({
                "server": server.ip().to_string(), "port": server.port(), "path": path,
                "uid": owner.uid, "gid": owner.gid,
            }),
        )?;
        Ok(Self { session })
    }

    /// Makes or replaces a file. Paths are relative to the export and begin with `/`.
    pub fn write(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.session.write(path, bytes)
    }

    /// A file's content.
    pub fn read(&mut self, path: &str) -> Result<Vec<u8>> {
        self.session.read(path)
    }

    /// The names in a folder, sorted.
    pub fn list(&mut self, path: &str) -> Result<Vec<String>> {
        self.session.list(path)
    }

    /// Makes a folder.
    pub fn mkdir(&mut self, path: &str) -> Result<()> {
        self.session.mkdir(path)
    }

    /// Removes a file.
    pub fn remove(&mut self, path: &str) -> Result<()> {
        self.session.remove(path)
    }
}
