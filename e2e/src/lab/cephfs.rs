//! CephFS clients: ceph-fuse with a cephx identity of their own.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use serde_json::json;

use super::ceph::Ceph;
use super::client::{ClientError, Failure, Owner, Session};
use super::control_plane::private;
use super::process::{output, tail};

/// One mounted path of one file system, unmounted on drop.
#[derive(Debug)]
pub struct CephFsMount<'a> {
    ceph: &'a Ceph,
    /// In Ceph's root file system.
    folder: String,
}

impl<'a> CephFsMount<'a> {
    /// Mounts `path` of `filesystem` as `client.<identity>` with `key`.
    pub fn mount(ceph: &'a Ceph, identity: &str, key: &str, filesystem: &str, path: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("fuse-{}-{number}", std::process::id());
        let keyring = ceph.folder().join(format!("run/{id}.keyring"));
        private(&keyring, &format!("[client.{identity}]\n\tkey = {key}\n"))?;
        let folder = format!("/run/{id}");
        fs::create_dir(ceph.path_outside(&folder))?;
        let log = ceph.folder().join(format!("log/{id}.out"));
        let mut command = ceph.inside(&[
            "timeout",
            "--signal=KILL",
            "30",
            "ceph-fuse",
            "--name",
            &format!("client.{identity}"),
            "--keyring",
            &format!("/lab/run/{id}.keyring"),
            "--client_fs",
            filesystem,
            "--client_mountpoint",
            path,
            &folder,
        ]);
        let out = fs::File::create(&log)?;
        let status = command.stdout(out.try_clone()?).stderr(out).status()?;
        if !status.success() {
            // The errno of the failed mount is ceph-fuse's exit status.
            let doing = format!("ceph-fuse as {identity} on {filesystem}:{path}: {}", tail(&log));
            let errno = status.code().filter(|code| (1..125).contains(code));
            let error = errno.map_or_else(
                || ClientError {
                    failure: Failure::TimedOut,
                    errno: None,
                    doing: doing.clone(),
                },
                |errno| ClientError::new(errno, doing.clone()),
            );
            return Err(error.into());
        }
        Ok(Self { ceph, folder })
    }

    /// A user of what is mounted.
    pub fn user(&self, owner: Owner) -> Result<FileUser> {
        let (uid, gid) = (owner.uid.to_string(), owner.gid.to_string());
        let command = self
            .ceph
            .beside(&["python3", "/lab/file_client.py", &self.folder, &uid, &gid]);
        Ok(FileUser {
            session: Session::start(format!("CephFS client, uid {uid}"), command)?,
        })
    }

    /// Unmounts, also when the file system no longer answers.
    pub fn unmount(self) -> Result<()> {
        self.release()
    }

    fn release(&self) -> Result<()> {
        output(&mut self.ceph.beside(&["umount", "--lazy", &self.folder])).map(drop)
    }
}

impl Drop for CephFsMount<'_> {
    fn drop(&mut self) {
        let _ = self.release();
    }
}

/// One user of a mounted file system. Paths are relative to the mount and begin with `/`.
#[derive(Debug)]
pub struct FileUser {
    session: Session,
}

impl FileUser {
    /// Makes or replaces a file, and waits until it is stored.
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

    /// The file system's size in bytes, as `df` shows it: the quota, where there is one.
    pub fn size(&mut self) -> Result<u64> {
        let answer = self.session.ask("df", json!({}))?;
        answer
            .get("total")
            .and_then(serde_json::Value::as_u64)
            .context("no size in the answer")
    }
}
