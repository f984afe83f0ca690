//! What a backend is told.

use std::time::Duration;

use shoal_domain::grant::Key;

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
