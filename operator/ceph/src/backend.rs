use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use shoal_backend::{Backend, Error, Result};
use shoal_crds::Protocol;
use shoal_domain::{
    grant::{Access, Applied, Client, Grant, Key},
    identity::{Description, Identity},
    volume::{Export, NewVolume, Sight, Volume, VolumeRef},
};

use crate::{
    commands::{Df, FsGetReply, MonDump, NfsClusterInfo, NfsClusterLs, NfsServiceReply, Version, VolumeLs},
    connection::{Call, Connection, Connections, Credentials},
    errno::ENOENT,
    subvolume::Found,
    work::{Work, fs},
};

/// A file system of a Ceph cluster, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CephSettings {
    /// The monitors, as `mon_host` in ceph.conf.
    pub mon_host: String,
    /// The CephX user, without `client.`. It needs `mon 'allow r'`, `mgr 'allow module volumes rw, allow module nfs rw'`
    /// and, for CephFS shares, `mds 'allow *'` (or `'allow * fsname=…'`), to list and evict sessions.
    pub user_id: String,
    /// Its key.
    pub user_key: Key,
    /// The file system's name.
    pub filesystem: String,
    /// The subvolume group that holds the shares; made when absent.
    pub subvolume_group: String,
    /// The data pool of new shares; none: the file system's own.
    pub data_pool: Option<String>,
    /// Whether each new share's objects live in a RADOS namespace of its own.
    pub namespace_isolated: bool,
    /// The NFS service, if it has one.
    pub nfs: Option<NfsService>,
    /// How long a command may take.
    pub command_timeout: Duration,
}

/// A clustered NFS service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NfsService {
    /// Its id.
    pub cluster_id: String,
    /// Where clients reach it; empty: as `nfs cluster info` says.
    pub endpoints: Vec<String>,
}

/// One file system of a Ceph cluster, with native CephFS and clustered NFS.
///
/// What it knows it asks ceph-mgr, whose module `nfs` keeps exports in memory: an export that was edited behind the
/// manager's back, in RADOS, is seen when the next manager takes over.
pub struct CephBackend {
    pub(crate) settings: CephSettings,
    connection: Arc<Connection>,
    // Dropped after the connection, for it waits for its end.
    pub(crate) connections: Arc<Connections>,
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

    pub(crate) async fn begin(&self) -> Result<Call> {
        Call::begin(&self.connection, self.settings.command_timeout, self.deadline()).await
    }

    /// Which storage answers now, and its file system.
    pub(crate) async fn identity(&self, call: &Call) -> Result<(Identity, FsGetReply)> {
        let fs_name = self.settings.filesystem.clone();
        let fs = fs(call, &fs_name).await?;
        Ok((
            Identity {
                fsid: call.fsid()?,
                fs_name,
                fs_id: fs.id,
            },
            fs,
        ))
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

/// Where protocols part.
impl Work<'_> {
    pub(crate) async fn look_at_export(&self, found: Option<&Found>) -> Result<Export> {
        match (self.volume.protocol, found) {
            (Protocol::NFS, found) => self.look_nfs(found).await,
            (Protocol::CephFS, Some(found)) => self.look_native(found).await,
            // Ceph tells of an identity's capabilities only by way of the subvolume.
            (Protocol::CephFS, None) => Ok(Export::Absent),
        }
    }
}

#[async_trait]
impl Backend for CephBackend {
    fn deadline(&self) -> Duration {
        self.settings.command_timeout * Self::COMMANDS_IN_DEADLINE
    }

    async fn describe(&self) -> Result<Description> {
        let call = self.begin().await?;
        let (identity, fs) = self.identity(&call).await?;
        let (version, monitors, room) =
            tokio::try_join!(call.run(&Version {}), call.run(&MonDump {}), call.run(&Df {}))?;
        let room = room.room(self.settings.data_pool.as_deref(), fs.data_pool());
        // Of no use but that it is answered: a backend whose manager is silent is not ready for shares.
        call.run(&VolumeLs {}).await?;
        let nfs_endpoints = self.nfs_endpoints(&call).await?;
        let mut protocols = vec![Protocol::CephFS];
        if self.settings.nfs.is_some() {
            protocols.insert(0, Protocol::NFS);
        }
        Ok(Description {
            identity,
            version: version.number().to_owned(),
            monitors: monitors.addresses(),
            nfs_endpoints,
            protocols,
            total_bytes: room.map(|(total, _)| total),
            free_bytes: room.map(|(_, free)| free),
            own_identity: Some(self.settings.user_id.clone()),
        })
    }

    async fn look(&self, on: &Identity, volume: &VolumeRef) -> Result<Sight> {
        let work = Work::begin(self, on, volume).await?;
        let Some(found) = work.find().await? else {
            let leftovers = matches!(work.look_at_export(None).await?, Export::Ours { .. });
            return Ok(Sight::Absent { leftovers });
        };
        Ok(Sight::Present(Box::new(work.volume_of(found).await?)))
    }

    async fn create(&self, on: &Identity, volume: &VolumeRef, new: &NewVolume) -> Result<Volume> {
        let work = Work::begin(self, on, volume).await?;
        let found = work.create(new).await?;
        work.volume_of(found).await
    }

    async fn resize(&self, on: &Identity, volume: &VolumeRef, size_bytes: u64) -> Result<()> {
        Work::begin(self, on, volume).await?.resize(size_bytes).await
    }

    async fn export(&self, on: &Identity, volume: &VolumeRef, access: &Access) -> Result<Vec<Applied>> {
        let work = Work::begin(self, on, volume).await?;
        let found = work.find_own().await?.ok_or(Error::NotFound)?;
        match volume.protocol {
            Protocol::NFS => work.export_nfs(&found, access).await,
            Protocol::CephFS => work.export_native(&found, access).await,
        }
    }

    async fn key(&self, on: &Identity, volume: &VolumeRef, grant: &Grant) -> Result<Key> {
        let work = Work::begin(self, on, volume).await?;
        match &grant.client {
            Client::CephX(identity) => work.native_key(identity, grant.level).await,
            Client::Ip(_) => Err(Error::Refused("an address has no key".into())),
        }
    }

    async fn unexport(&self, on: &Identity, volume: &VolumeRef) -> Result<()> {
        let work = Work::begin(self, on, volume).await?;
        let found = work.find_own().await?;
        match (volume.protocol, found) {
            (Protocol::NFS, _) => work.unexport_nfs().await,
            (Protocol::CephFS, Some(found)) => work.unexport_native(&found).await,
            (Protocol::CephFS, None) => Ok(()),
        }
    }

    async fn remove(&self, on: &Identity, volume: &VolumeRef) -> Result<()> {
        Work::begin(self, on, volume).await?.remove().await
    }
}
