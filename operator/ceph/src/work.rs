//! One method's work on one share: the storage is the one that was recorded, and the names follow from the uid.

use shoal_backend::{Error, Result};
use shoal_domain::{
    identity::Identity,
    owner,
    volume::{Volume, VolumeRef},
};

use crate::{
    backend::CephBackend,
    commands::{FsGet, FsGetReply, Place},
    connection::Call,
    errno::ENOENT,
    subvolume::Found,
};

pub(crate) struct Work<'a> {
    pub backend: &'a CephBackend,
    pub call: Call,
    pub on: &'a Identity,
    pub volume: &'a VolumeRef,
    /// The subvolume's name.
    pub name: String,
}

impl<'a> Work<'a> {
    /// Begins it, if the storage is still the one that was recorded.
    pub(crate) async fn begin(
        backend: &'a CephBackend,
        on: &'a Identity,
        volume: &'a VolumeRef,
    ) -> Result<Self> {
        let call = backend.begin().await?;
        let name = owner::subvolume_name(&volume.owner.uid);
        let work = Self {
            backend,
            call,
            on,
            volume,
            name,
        };
        let (found, _) = backend.identity(&work.call).await?;
        if found == *on {
            Ok(work)
        } else {
            Err(Error::Replaced {
                expected: name_of(on),
                found: name_of(&found),
            })
        }
    }

    pub(crate) fn fs_name(&self) -> &str {
        &self.backend.settings.filesystem
    }

    pub(crate) fn place(&self) -> Place<'_> {
        Place {
            vol_name: &self.backend.settings.filesystem,
            group_name: &self.backend.settings.subvolume_group,
            sub_name: &self.name,
        }
    }

    /// `group/subvolume`.
    pub(crate) fn handle(&self) -> String {
        format!("{}/{}", self.backend.settings.subvolume_group, self.name)
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

    /// What is there, for the caller.
    pub(crate) async fn volume_of(&self, found: Found) -> Result<Volume> {
        let export = self.look_at_export(Some(&found)).await?;
        Ok(self.volume(found, export))
    }
}

/// The file system, or that there is none of its name.
pub(crate) async fn fs(call: &Call, name: &str) -> Result<FsGetReply> {
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
