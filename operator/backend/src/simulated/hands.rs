//! What happens behind Shoal's back: by hand, by another tool, by a client, by fate.

use shoal_crds::{AccessLevel, RootDirectory};
use shoal_domain::{grant::Client, grant::Grant, grant::Key, owner};

use super::{
    Cluster, Fault, FaultKind, NfsClient, Operation, Trouble,
    world::{FileSystem, Module, NfsExport, Session, Until, fsid},
};
use crate::{Error, Result};

/// Nothing here counts as a call, or looks whose a thing is. `uid` is a share's.
impl Cluster {
    /// Says what will go wrong.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) -> Result<()> {
        self.access(|world, _| {
            world.faults.extend(faults);
            Ok(())
        })
    }

    /// Lets the next call of the method go wrong.
    pub fn fail_next(&self, operation: Operation, write: u32, kind: FaultKind) -> Result<()> {
        self.access(|world, _| {
            let call = world.counts.get(&operation).copied().unwrap_or_default() + 1;
            world.faults.push(Fault {
                operation,
                call,
                write,
                kind,
            });
            Ok(())
        })
    }

    /// Takes back the faults that have not struck yet.
    pub fn end_faults(&self) -> Result<()> {
        self.access(|world, _| {
            world.faults.clear();
            Ok(())
        })
    }

    /// Answers nobody, from now on until it is called with none.
    pub fn set_trouble(&self, trouble: Option<Trouble>) -> Result<()> {
        self.access(|world, _| {
            world.trouble = trouble;
            Ok(())
        })
    }

    /// Holds up all that would be written, as a stuck file system does, until [`Cluster::restart_manager`] or
    /// [`Cluster::resume`].
    pub fn stall(&self) -> Result<()> {
        self.access(|world, _| {
            world
                .stuck
                .extend([(Module::Volumes, Until::Never), (Module::Nfs, Until::Never)]);
            Ok(())
        })
    }

    /// Lets what is held up take effect now, in its order.
    pub fn resume(&self) -> Result<()> {
        self.access(|world, now| {
            for pending in &mut world.pending {
                pending.until = Until::Time(now);
            }
            world.stuck.clear();
            Ok(())
        })
    }

    /// Restarts the manager: what is held up is lost.
    pub fn restart_manager(&self) -> Result<()> {
        self.access(|world, _| {
            world.pending.clear();
            world.stuck.clear();
            Ok(())
        })
    }

    /// Makes the cluster anew, empty, with another fsid and file systems of the same names.
    pub fn replace(&self, seed: u64) -> Result<()> {
        self.access(|world, _| {
            world.seed = seed;
            world.fsid = fsid(seed);
            world.exports.clear();
            world.identities.clear();
            world.caps.clear();
            world.sessions.clear();
            world.pending.clear();
            world.stuck.clear();
            for fs in world.file_systems.values_mut() {
                *fs = FileSystem {
                    id: fs.id,
                    ..FileSystem::default()
                };
            }
            Ok(())
        })
    }

    /// Makes the file system anew under its name, empty, with another id.
    pub fn replace_file_system(&self, fs_name: &str) -> Result<()> {
        self.access(|world, _| {
            world.file_systems.remove(fs_name);
            world.add_file_system(fs_name);
            Ok(())
        })
    }

    /// Removes the file system with all that is in it.
    pub fn remove_file_system(&self, fs_name: &str) -> Result<()> {
        self.access(|world, _| {
            world.file_systems.remove(fs_name);
            Ok(())
        })
    }

    /// Moves the monitors.
    pub fn set_monitors(&self, monitors: Vec<String>) -> Result<()> {
        self.access(|world, _| {
            world.monitors = monitors;
            Ok(())
        })
    }

    /// Moves the NFS service, or ends it.
    pub fn set_nfs_endpoints(&self, endpoints: Option<Vec<String>>) -> Result<()> {
        self.access(|world, _| {
            world.nfs_endpoints = endpoints;
            Ok(())
        })
    }

    /// Makes a subvolume under the share's name, with whatever tag.
    pub fn add_subvolume(&self, fs_name: &str, uid: &str, size_bytes: u64, tag: Option<&str>) -> Result<()> {
        let name = owner::subvolume_name(uid);
        self.access(|world, _| {
            world.create_subvolume(fs_name, &name, size_bytes, RootDirectory::default())?;
            world.subvolume_mut(fs_name, &name)?.tag = tag.map(str::to_owned);
            Ok(())
        })
    }

    /// Deletes the share's subvolume with its data and snapshots; its export and access entries stay.
    pub fn delete_subvolume(&self, fs_name: &str, uid: &str) -> Result<()> {
        self.access(|world, _| world.remove_subvolume(fs_name, &owner::subvolume_name(uid), true))
    }

    /// Writes whatever as the subvolume's tag, or takes it off.
    pub fn set_tag(&self, fs_name: &str, uid: &str, tag: Option<&str>) -> Result<()> {
        self.access(|world, _| {
            world.subvolume_mut(fs_name, &owner::subvolume_name(uid))?.tag = tag.map(str::to_owned);
            Ok(())
        })
    }

    /// Changes the quota, or takes it off.
    pub fn set_quota(&self, fs_name: &str, uid: &str, size_bytes: Option<u64>) -> Result<()> {
        self.access(|world, _| {
            world.subvolume_mut(fs_name, &owner::subvolume_name(uid))?.size = size_bytes;
            Ok(())
        })
    }

    /// Lets clients have written so many bytes in all.
    pub fn set_used(&self, fs_name: &str, uid: &str, used_bytes: u64) -> Result<()> {
        self.access(|world, _| {
            let subvolume = world.subvolume_mut(fs_name, &owner::subvolume_name(uid))?;
            let before = std::mem::replace(&mut subvolume.used, used_bytes);
            if let Some(fs) = world.file_systems.get_mut(fs_name) {
                fs.used = fs.used - before + used_bytes;
            }
            Ok(())
        })
    }

    /// Gives the subvolume so many snapshots.
    pub fn set_snapshots(&self, fs_name: &str, uid: &str, snapshots: u32) -> Result<()> {
        self.access(|world, _| {
            world
                .subvolume_mut(fs_name, &owner::subvolume_name(uid))?
                .snapshots = snapshots;
            Ok(())
        })
    }

    /// Exports some other path under this pseudo path, in the place of what is there.
    pub fn take_path(&self, pseudo_path: &str, fs_name: &str, path: &str) -> Result<()> {
        let clients = vec![NfsClient {
            address: "0.0.0.0/0".into(),
            level: AccessLevel::ReadOnly,
            squash: shoal_crds::Squash::All,
        }];
        let export = NfsExport {
            file_system: fs_name.to_owned(),
            path: path.to_owned(),
            clients,
            intact: false,
        };
        self.access(|world, _| {
            world.exports.insert(pseudo_path.to_owned(), export);
            Ok(())
        })
    }

    /// Removes whatever is exported under this pseudo path.
    pub fn remove_export(&self, pseudo_path: &str) -> Result<()> {
        self.access(|world, _| {
            world.exports.remove(pseudo_path);
            Ok(())
        })
    }

    /// Writes an export's client list.
    pub fn set_clients(&self, pseudo_path: &str, clients: Vec<NfsClient>) -> Result<()> {
        self.access(|world, _| {
            world.exports.get_mut(pseudo_path).ok_or(Error::NotFound)?.clients = clients;
            Ok(())
        })
    }

    /// Makes an export one that lets in whoever its client list does not name.
    pub fn open_export(&self, pseudo_path: &str) -> Result<()> {
        self.access(|world, _| {
            world.exports.get_mut(pseudo_path).ok_or(Error::NotFound)?.intact = false;
            Ok(())
        })
    }

    /// Makes an identity as `ceph auth get-or-create` does: of no tenant.
    pub fn add_identity(&self, fs_name: &str, identity: &str) -> Result<()> {
        self.access(|world, _| {
            world.add_identity(identity, fs_name, None);
            Ok(())
        })
    }

    /// Lets an identity in.
    pub fn authorize(&self, fs_name: &str, uid: &str, tenant: &str, grant: &Grant) -> Result<()> {
        let Client::CephX(identity) = &grant.client else {
            return Err(Error::Refused("only an identity can be authorized".into()));
        };
        self.access(|world, _| {
            world.authorize(
                fs_name,
                &owner::subvolume_name(uid),
                identity,
                tenant,
                grant.level,
            )?;
            Ok(())
        })
    }

    /// Takes an identity's access away; clients that have mounted stay.
    pub fn deauthorize(&self, fs_name: &str, uid: &str, identity: &str) -> Result<()> {
        self.access(|world, _| {
            let path = world
                .subvolume_mut(fs_name, &owner::subvolume_name(uid))?
                .path
                .clone();
            world.deauthorize(fs_name, &path, identity);
            Ok(())
        })
    }

    /// Mounts a subvolume, or a directory in it, as this identity. The answer is the session.
    pub fn mount(
        &self,
        fs_name: &str,
        subvolume: &str,
        identity: &str,
        key: &Key,
        directory: &str,
    ) -> Result<u64> {
        self.access(|world, _| {
            if world.key(identity).as_ref() != Some(key) {
                return Err(Error::Refused("wrong key".into()));
            }
            let path = world.subvolume_mut(fs_name, subvolume)?.path.clone();
            let holders = world.caps.get(&format!("{fs_name}:{path}"));
            let level = *holders
                .and_then(|holders| holders.get(identity))
                .ok_or_else(|| Error::Refused("not let in there".into()))?;
            world.last_session += 1;
            let session = Session {
                identity: identity.to_owned(),
                file_system: fs_name.to_owned(),
                root: format!("{path}{directory}"),
                level,
            };
            world.sessions.insert(world.last_session, session);
            Ok(world.last_session)
        })
    }

    /// Whether the session still is.
    pub fn is_mounted(&self, session: u64) -> Result<bool> {
        self.access(|world, _| Ok(world.sessions.contains_key(&session)))
    }
}
