//! What the cluster holds, as plain data to compare.

use std::collections::BTreeMap;

use shoal_crds::{AccessLevel, RootDirectory};
use shoal_domain::{
    grant::{Access, Client, Grant},
    owner::Tag,
};

use super::{Cluster, world::NfsClient};
use crate::Result;

/// Everything a cluster holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// By file system and name.
    pub subvolumes: BTreeMap<(String, String), HeldSubvolume>,
    /// By pseudo path.
    pub exports: BTreeMap<String, HeldExport>,
    /// By name, without `client.`.
    pub identities: BTreeMap<String, HeldIdentity>,
    /// File system, path and identity of each native client that is connected now, with what it may do.
    pub sessions: Vec<(String, String, String, AccessLevel)>,
    /// Commands that were sent and have not taken effect.
    pub pending: usize,
}

/// A subvolume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSubvolume {
    /// Whose it is.
    pub tag: Tag,
    /// Quota in bytes.
    pub size_bytes: Option<u64>,
    /// Bytes used.
    pub used_bytes: u64,
    /// What users say of it.
    pub metadata: Option<String>,
    /// Owner, group and mode of its root.
    pub root: RootDirectory,
    /// Where its data is.
    pub path: String,
    /// How many snapshots it has.
    pub snapshots: u32,
}

/// An NFS export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldExport {
    /// What it exports.
    pub file_system: String,
    /// And what of it.
    pub path: String,
    /// In the order in which they are matched.
    pub clients: Vec<NfsClient>,
    /// Everything beside the clients is as Shoal makes it.
    pub intact: bool,
}

/// A CephX identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldIdentity {
    /// None: made by another tool.
    pub tenant: Option<String>,
    /// Where it may go.
    pub file_system: String,
    /// Where there, and what it may do.
    pub paths: BTreeMap<String, AccessLevel>,
}

/// What is held for one share, without what is drawn anew each time it is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldShare {
    /// Whose it is.
    pub tag: Tag,
    /// Quota in bytes.
    pub size_bytes: Option<u64>,
    /// Owner, group and mode of its root.
    pub root: RootDirectory,
    /// What users say of it.
    pub metadata: Option<String>,
    /// Whether its own NFS export is there, and as Shoal makes it but for the clients.
    pub exported: bool,
    /// Who is let in: NFS clients in their order, then CephX identities by name.
    pub access: Access,
}

impl Holdings {
    /// What is held for the share with this subvolume and pseudo path; none if its subvolume is not there.
    pub fn share(&self, file_system: &str, subvolume: &str, pseudo_path: &str) -> Option<HeldShare> {
        let there = self
            .subvolumes
            .get(&(file_system.to_owned(), subvolume.to_owned()))?;
        let export = self
            .exports
            .get(pseudo_path)
            .filter(|export| export.file_system == file_system && export.path == there.path);
        let nfs = export
            .into_iter()
            .flat_map(|export| export.clients.iter().filter_map(NfsClient::to_grant));
        let cephx = self
            .identities
            .iter()
            .filter(|(_, held)| held.file_system == file_system);
        let cephx = cephx.filter_map(|(identity, held)| {
            let level = *held.paths.get(&there.path)?;
            Some(Grant {
                client: Client::CephX(identity.clone()),
                level,
                squash: shoal_crds::Squash::default(),
            })
        });
        Some(HeldShare {
            tag: there.tag.clone(),
            size_bytes: there.size_bytes,
            root: there.root.clone(),
            metadata: there.metadata.clone(),
            exported: export.is_some_and(|export| export.intact),
            access: nfs.chain(cephx).collect(),
        })
    }
}

impl Cluster {
    /// What it holds now.
    pub fn snapshot(&self) -> Result<Holdings> {
        self.access(|world, _| {
            let subvolumes = world.file_systems.iter().flat_map(|(fs_name, fs)| {
                fs.subvolumes.iter().map(move |(name, there)| {
                    let held = HeldSubvolume {
                        tag: there.tag(),
                        size_bytes: there.size,
                        used_bytes: there.used,
                        metadata: there.metadata.clone(),
                        root: there.root.clone(),
                        path: there.path.clone(),
                        snapshots: there.snapshots,
                    };
                    ((fs_name.clone(), name.clone()), held)
                })
            });
            let exports = world.exports.iter().map(|(pseudo_path, there)| {
                let held = HeldExport {
                    file_system: there.file_system.clone(),
                    path: there.path.clone(),
                    clients: there.clients.clone(),
                    intact: there.intact,
                };
                (pseudo_path.clone(), held)
            });
            let identities = world.identities.iter().map(|(identity, entity)| {
                let paths = entity.paths.iter().filter_map(|place| {
                    let level = *world.caps.get(place)?.get(identity)?;
                    Some((place.split_once(':')?.1.to_owned(), level))
                });
                let held = HeldIdentity {
                    tenant: entity.tenant.clone(),
                    file_system: entity.file_system.clone(),
                    paths: paths.collect(),
                };
                (identity.clone(), held)
            });
            let sessions = world.sessions.values();
            let sessions =
                sessions.map(|s| (s.file_system.clone(), s.root.clone(), s.identity.clone(), s.level));
            Ok(Holdings {
                subvolumes: subvolumes.collect(),
                exports: exports.collect(),
                identities: identities.collect(),
                sessions: sessions.collect(),
                pending: world.pending.len(),
            })
        })
    }

    /// How many commands have changed something so far.
    pub fn effects(&self) -> Result<u64> {
        self.access(|world, _| Ok(world.effects))
    }

    /// How many methods have been called so far, by whomever.
    pub fn calls(&self) -> Result<u64> {
        self.access(|world, _| Ok(world.calls))
    }
}
