//! Which storage a backend is, and what it can do.

use shoal_crds::Protocol;

use crate::mount_point::NfsCluster;

/// Which storage it is. What was recorded at first contact must be answered for ever: another cluster or file system
/// under the same address holds none of our shares, whatever it says is absent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The Ceph cluster's id.
    pub fsid: String,
    /// The file system's name.
    pub fs_name: String,
    /// The file system's id in its cluster; one re-made under the same name has another.
    pub fs_id: i64,
}

/// What a backend says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Which storage it is.
    pub identity: Identity,
    /// Its software's version.
    pub version: String,
    /// Monitor addresses that native clients mount with, as `host:port`.
    pub monitors: Vec<String>,
    /// Where NFS clients reach it, as `host` or `host:port`; empty if it serves no NFS. The first is preferred.
    pub nfs_endpoints: Vec<String>,
    /// The subvolume group that its shares are made in: what lies elsewhere is not Shoal's.
    pub group: String,
    /// The NFS cluster's id; none if it serves no NFS.
    pub nfs_cluster_id: Option<String>,
    /// What that exports.
    pub nfs_exports: NfsExports,
    /// The protocols it serves.
    pub protocols: Vec<Protocol>,
    /// Bytes in all, if known.
    pub total_bytes: Option<u64>,
    /// Bytes free, if known.
    pub free_bytes: Option<u64>,
    /// The CephX identity it speaks as, which no rule may name.
    pub own_identity: Option<String>,
}

/// What an NFS cluster exports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NfsExports {
    /// How many exports there are.
    pub all: u64,
    /// How many of them are no shares'.
    pub others: u64,
    /// Pseudo paths of some that are no shares' and were made by an older Ceph, which this one can neither change nor remove.
    pub outdated: Vec<String>,
}

impl Description {
    /// The NFS cluster that it exports on.
    pub fn nfs_cluster(&self) -> Option<NfsCluster> {
        Some(NfsCluster {
            fsid: self.identity.fsid.clone(),
            id: self.nfs_cluster_id.clone()?,
        })
    }
}
