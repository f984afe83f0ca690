//! One method's work on one share: the storage is the one that was recorded, and the names are the share's.

use shoal_backend::{Error, Result};
use shoal_domain::{identity::Identity, volume::VolumeRef};

use crate::{
    commands::{FsGet, FsGetReply, Place},
    connection::{Call, Connections},
    errno::ENOENT,
    settings::CephSettings,
};

pub(crate) struct Work<'a> {
    pub settings: &'a CephSettings,
    pub connections: &'a Connections,
    pub call: Call,
    pub on: &'a Identity,
    pub volume: &'a VolumeRef,
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        settings: &'a CephSettings,
        connections: &'a Connections,
        call: Call,
        on: &'a Identity,
        volume: &'a VolumeRef,
    ) -> Self {
        Self {
            settings,
            connections,
            call,
            on,
            volume,
        }
    }

    /// What was read, if the storage is still the one that was recorded: asked side by side. Every method begins with it.
    pub(crate) async fn confirmed<T>(&self, read: impl Future<Output = Result<T>>) -> Result<T> {
        let (storage, read) = tokio::join!(self.check_storage(), read);
        storage?;
        read
    }

    async fn check_storage(&self) -> Result<()> {
        let (found, _) = identity(&self.call, self.fs_name()).await?;
        expect(self.on, &found)
    }

    pub(crate) fn fs_name(&self) -> &str {
        &self.settings.filesystem
    }

    pub(crate) fn place(&self) -> Place<'_> {
        Place {
            vol_name: &self.settings.filesystem,
            group_name: self.group(),
            sub_name: &self.volume.place.subvolume,
        }
    }

    /// The one it was made in, whatever the backend's is by now.
    pub(crate) fn group(&self) -> &str {
        let group = self.volume.place.group.as_deref();
        group.unwrap_or(&self.settings.subvolume_group)
    }

    /// `group/subvolume`.
    pub(crate) fn handle(&self) -> String {
        format!("{}/{}", self.group(), self.volume.place.subvolume)
    }

    /// Whether a path of our file system is, or was, the data of a subvolume of our name.
    pub(crate) fn is_own_path(&self, path: &str) -> bool {
        let below = path
            .strip_prefix("/volumes/")
            .and_then(|path| path.strip_prefix(&*self.handle()));
        below.is_some_and(|rest| rest.starts_with('/'))
    }

    /// The file system as it is now.
    pub(crate) async fn fs(&self) -> Result<FsGetReply> {
        fs(&self.call, self.fs_name()).await
    }
}

/// Does two things side by side, each to its end: a command that nobody waits for counts as given up, and holds up all
/// others.
pub(crate) async fn both<A, B, E>(
    one: impl Future<Output = std::result::Result<A, E>>,
    other: impl Future<Output = std::result::Result<B, E>>,
) -> std::result::Result<(A, B), E> {
    let (one, other) = tokio::join!(one, other);
    Ok((one?, other?))
}

/// Which storage answers now, and its file system.
pub(crate) async fn identity(call: &Call, fs_name: &str) -> Result<(Identity, FsGetReply)> {
    let fs = fs(call, fs_name).await?;
    Ok((
        Identity {
            fsid: call.fsid()?,
            fs_name: fs_name.to_owned(),
            fs_id: fs.id,
        },
        fs,
    ))
}

/// That the storage is the one that was recorded.
pub(crate) fn expect(recorded: &Identity, found: &Identity) -> Result<()> {
    if found == recorded {
        Ok(())
    } else {
        Err(Error::Replaced {
            expected: name_of(recorded),
            found: name_of(found),
        })
    }
}

/// The file system, or that there is none of its name.
async fn fs(call: &Call, name: &str) -> Result<FsGetReply> {
    call.run(&FsGet { fs_name: name })
        .await
        .map_err(|fault| match fault.errno() {
            Some(ENOENT) => Error::FileSystemNotFound(name.to_owned()),
            _ => fault.into(),
        })
}

fn name_of(identity: &Identity) -> String {
    format!(
        "file system {} (id {}) of Ceph cluster {}",
        identity.fs_name, identity.fs_id, identity.fsid
    )
}
