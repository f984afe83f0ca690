use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use shoal_backend::{Backend, Error, Result};
use shoal_crds::Protocol;
use shoal_domain::{
    grant::{Access, Applied, Client, Grant, Key},
    identity::{Description, Identity, NfsExports},
    orphan::{Listing, subvolume_of},
    owner::{Owner, Tag},
    volume::{Export, NewVolume, Sight, Volume, VolumeRef},
};

use crate::{
    commands::{
        Df, MetadataLs, MonDump, NfsClusterInfo, NfsClusterLs, NfsServiceReply, Place, SubvolumeLs, Version,
        VolumeLs,
    },
    connection::{Call, Connection, Connections, Credentials},
    errno::{EACCES, ENOENT},
    native::{self, Identities},
    nfs::{Document, exports_of, survey},
    settings::{CephSettings, NfsService},
    subvolume::{Found, tag_of},
    work::{Work, both, expect, identity},
};

/// One file system of a Ceph cluster, with native CephFS and clustered NFS.
///
/// What it knows it asks ceph-mgr, whose module `nfs` keeps exports in memory: an export that was edited behind the
/// manager's back, in RADOS, is seen when the next manager takes over.
pub struct CephBackend {
    settings: CephSettings,
    connection: Arc<Connection>,
    // Dropped after the connection, for it waits for its end.
    connections: Arc<Connections>,
}

impl fmt::Debug for CephBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CephBackend")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl CephBackend {
    /// Commands that the longest method has time for, if each takes as long as it may.
    pub const COMMANDS_IN_DEADLINE: u32 = 3;

    /// The backend; nothing is sent yet.
    pub fn new(settings: CephSettings, connections: &Arc<Connections>) -> Self {
        let credentials = Credentials {
            mon_host: settings.mon_host.clone(),
            user: settings.user_id.clone(),
            key: settings.user_key.clone(),
        };
        Self {
            connection: connections.get(credentials),
            connections: Arc::clone(connections),
            settings,
        }
    }

    async fn begin(&self) -> Result<Call> {
        Call::begin(&self.connection, self.settings.command_timeout, self.deadline()).await
    }

    async fn work<'a>(&'a self, on: &'a Identity, volume: &'a VolumeRef) -> Result<Work<'a>> {
        let call = self.begin().await?;
        Ok(Work::new(&self.settings, &self.connections, call, on, volume))
    }

    /// What was read, if the storage is the one that was recorded: asked side by side.
    async fn confirmed<T>(
        &self,
        call: &Call,
        on: &Identity,
        read: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let (found, read) = tokio::join!(identity(call, &self.settings.filesystem), read);
        expect(on, &found?.0)?;
        read
    }

    /// The subvolumes in the group, by name.
    async fn subvolumes(&self, call: &Call) -> Result<BTreeSet<String>> {
        let list = SubvolumeLs {
            vol_name: &self.settings.filesystem,
            group_name: &self.settings.subvolume_group,
        };
        match call.run(&list).await {
            Ok(there) => Ok(there.into_iter().map(|subvolume| subvolume.name).collect()),
            // The group is made with the first share.
            Err(fault) if fault.errno() == Some(ENOENT) => Ok(BTreeSet::new()),
            Err(fault) => Err(fault.into()),
        }
    }

    /// The exports that lead into the group, and to which of its subvolumes.
    async fn exports(&self, call: &Call) -> Result<BTreeMap<String, String>> {
        let Some(NfsService { cluster_id, .. }) = &self.settings.nfs else {
            return Ok(BTreeMap::new());
        };
        let ours = exports_of(call, cluster_id)
            .await?
            .into_iter()
            .filter(|export| export.fs_name() == Some(&self.settings.filesystem));
        let leading = ours.filter_map(|export| {
            let name = subvolume_of(&self.settings.subvolume_group, &export.path)?.to_owned();
            Some((export.pseudo, name))
        });
        Ok(leading.collect())
    }

    async fn nfs_endpoints(&self, call: &Call) -> Result<Vec<String>> {
        let Some(NfsService {
            cluster_id,
            endpoints,
        }) = &self.settings.nfs
        else {
            return Ok(Vec::new());
        };
        if !call.run(&NfsClusterLs {}).await?.contains(cluster_id) {
            return Err(Error::NfsClusterNotFound(cluster_id.clone()));
        }
        if !endpoints.is_empty() {
            return Ok(endpoints.clone());
        }
        let said = match call.run(&NfsClusterInfo { cluster_id }).await {
            Ok(clusters) => clusters
                .get(cluster_id)
                .map(NfsServiceReply::endpoints)
                .unwrap_or_default(),
            // There is no orchestrator to ask.
            Err(fault) if fault.errno() == Some(ENOENT) => Vec::new(),
            Err(fault) => return Err(fault.into()),
        };
        if said.is_empty() {
            Err(Error::NfsEndpointsUnknown(cluster_id.clone()))
        } else {
            Ok(said)
        }
    }
}

/// What is there to reach a share by, as Ceph says it.
enum Exported {
    Nfs(Option<Document>),
    Native(Identities),
}

/// Where protocols part.
impl Work<'_> {
    async fn exported(&self) -> Result<Exported> {
        Ok(match self.volume.protocol {
            Protocol::NFS => Exported::Nfs(self.export_document().await?),
            Protocol::CephFS => Exported::Native(self.listed().await?),
        })
    }

    fn export(&self, exported: Exported, found: Option<&Found>) -> Export {
        match (exported, found) {
            (Exported::Nfs(document), found) => {
                self.nfs_export(document.as_ref(), found.map(|found| &found.data))
            }
            (Exported::Native(listed), Some(found)) => native::export(listed, &found.notes),
            // Ceph tells of an identity's capabilities only by way of the subvolume.
            (Exported::Native(_), None) => Export::Absent,
        }
    }
}

#[async_trait]
impl Backend for CephBackend {
    fn deadline(&self) -> Duration {
        self.settings.command_timeout * Self::COMMANDS_IN_DEADLINE
    }

    async fn describe(&self, recorded: Option<&Identity>) -> Result<Description> {
        let call = self.begin().await?;
        let (identity, fs) = identity(&call, &self.settings.filesystem).await?;
        // Before anything is asked of the manager: a file system that was made anew can make it hang.
        recorded.map_or(Ok(()), |recorded| expect(recorded, &identity))?;
        let words = both(call.run(&Version {}), call.run(&MonDump {}));
        let ((version, monitors), room) = both(words, call.run(&Df {})).await?;
        let room = room.room(self.settings.data_pool.as_deref(), fs.data_pool());
        // Of no use but that it is answered: a backend whose manager is silent is not ready for shares.
        call.run(&VolumeLs {}).await?;
        let nfs_endpoints = self.nfs_endpoints(&call).await?;
        let nfs_exports = match &self.settings.nfs {
            Some(nfs) => survey(&self.settings, &call, &nfs.cluster_id).await?,
            None => NfsExports::default(),
        };
        let mut protocols = vec![Protocol::CephFS];
        if self.settings.nfs.is_some() {
            protocols.insert(0, Protocol::NFS);
        }
        Ok(Description {
            identity,
            version: version.number().to_owned(),
            monitors: monitors.addresses(),
            nfs_endpoints,
            group: self.settings.subvolume_group.clone(),
            nfs_cluster_id: self.settings.nfs.as_ref().map(|nfs| nfs.cluster_id.clone()),
            nfs_exports,
            protocols,
            total_bytes: room.map(|(total, _)| total),
            free_bytes: room.map(|(_, free)| free),
            own_identity: Some(self.settings.user_id.clone()),
        })
    }

    async fn list(&self, on: &Identity) -> Result<Listing> {
        let call = self.begin().await?;
        let read = both(self.subvolumes(&call), self.exports(&call));
        let (subvolumes, exports) = self.confirmed(&call, on, read).await?;
        Ok(Listing {
            group: self.settings.subvolume_group.clone(),
            subvolumes,
            exports,
        })
    }

    async fn tag(&self, on: &Identity, subvolume: &str) -> Result<Option<Tag>> {
        let call = self.begin().await?;
        let list = MetadataLs {
            place: Place {
                vol_name: &self.settings.filesystem,
                group_name: &self.settings.subvolume_group,
                sub_name: subvolume,
            },
        };
        let read = async {
            match call.run(&list).await {
                Ok(metadata) => Ok(Some(tag_of(&metadata))),
                Err(fault) if fault.errno() == Some(ENOENT) => Ok(None),
                // Damaged, or a clone that is not ready: it must not hide the others.
                Err(fault) if fault.errno().is_some_and(|errno| errno != EACCES) => Ok(Some(Tag::Unreadable)),
                Err(fault) => Err(fault.into()),
            }
        };
        self.confirmed(&call, on, read).await
    }

    async fn look(&self, on: &Identity, volume: &VolumeRef) -> Result<Sight> {
        let work = self.work(on, volume).await?;
        let (found, exported) = work.confirmed(both(work.find(), work.exported())).await?;
        let export = work.export(exported, found.as_ref());
        Ok(match found {
            None => Sight::Absent {
                leftovers: matches!(export, Export::Ours { .. }),
            },
            Some(found) => Sight::Present(Box::new(work.volume(found, export))),
        })
    }

    async fn create(&self, on: &Identity, volume: &VolumeRef, new: &NewVolume) -> Result<Volume> {
        let work = self.work(on, volume).await?;
        let (there, exported) = work.confirmed(both(work.own_notes(), work.exported())).await?;
        let found = work.create(there, new).await?;
        let export = work.export(exported, Some(&found));
        Ok(work.volume(found, export))
    }

    async fn resize(&self, on: &Identity, volume: &VolumeRef, size_bytes: u64) -> Result<()> {
        let work = self.work(on, volume).await?;
        let found = work.confirmed(work.find_own()).await?.ok_or(Error::NotFound)?;
        work.resize(&found.data, size_bytes).await
    }

    async fn set_metadata(&self, on: &Identity, volume: &VolumeRef, text: Option<&str>) -> Result<()> {
        let work = self.work(on, volume).await?;
        let notes = work.confirmed(work.own_notes()).await?.ok_or(Error::NotFound)?;
        work.set_metadata(&notes, text).await
    }

    async fn export(&self, on: &Identity, volume: &VolumeRef, access: &Access) -> Result<Vec<Applied>> {
        let work = self.work(on, volume).await?;
        match volume.protocol {
            Protocol::NFS => {
                let (found, export) = work
                    .confirmed(both(work.find_own(), work.locked_export()))
                    .await?;
                let found = found.ok_or(Error::NotFound)?;
                work.export_nfs(export, &found.data, access).await
            }
            Protocol::CephFS => {
                let (notes, listed) = work.confirmed(both(work.own_notes(), work.listed())).await?;
                let notes = notes.ok_or(Error::NotFound)?;
                work.export_native(&notes, &listed, access).await
            }
        }
    }

    async fn key(&self, on: &Identity, volume: &VolumeRef, grant: &Grant) -> Result<Key> {
        let work = self.work(on, volume).await?;
        let (notes, listed) = work.confirmed(both(work.own_notes(), work.listed())).await?;
        notes.ok_or(Error::NotFound)?;
        match &grant.client {
            Client::CephX(identity) => work.native_key(&listed, identity, grant.level).await,
            Client::Ip(_) => Err(Error::Refused("an address has no key".into())),
        }
    }

    async fn unexport(&self, on: &Identity, volume: &VolumeRef) -> Result<()> {
        let work = self.work(on, volume).await?;
        match volume.protocol {
            Protocol::NFS => {
                let (_, export) = work
                    .confirmed(both(work.own_notes(), work.locked_export()))
                    .await?;
                work.unexport_nfs(export).await
            }
            Protocol::CephFS => match work.confirmed(both(work.own_notes(), work.listed())).await? {
                (Some(notes), listed) => work.unexport_native(&notes, listed).await,
                (None, _) => Ok(()),
            },
        }
    }

    async fn revoke(&self, on: &Identity, volume: &VolumeRef) -> Result<()> {
        let work = self.work(on, volume).await?;
        let (notes, listed) = work.confirmed(both(work.own_notes(), work.listed())).await?;
        let notes = notes.ok_or(Error::NotFound)?;
        work.unexport_all().await?;
        work.unexport_native(&notes, listed).await
    }

    async fn hand_over(&self, on: &Identity, volume: &VolumeRef, to: &Owner) -> Result<()> {
        let work = self.work(on, volume).await?;
        let there = work.confirmed(work.notes()).await?;
        work.hand_over(there, to).await
    }

    async fn remove(&self, on: &Identity, volume: &VolumeRef) -> Result<()> {
        let work = self.work(on, volume).await?;
        match work.confirmed(work.own_notes()).await? {
            Some(_) => work.remove().await,
            None => Ok(()),
        }
    }
}
