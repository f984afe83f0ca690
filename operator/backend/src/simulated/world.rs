//! What the simulated cluster holds, and what each command does to it. No clock and no faults' kinds here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use shoal_crds::{AccessLevel, RootDirectory, Squash};
use shoal_domain::{
    grant::{Client, Grant, Key},
    identity::Identity,
    owner::{Owner, Tag},
};

use super::{Fault, Operation};
use crate::{Error, Result};

/// The subvolume group that holds the shares.
pub(super) const GROUP: &str = "shoal";

/// The NFS cluster that all of its file systems export on.
pub(super) const NFS_CLUSTER: &str = "simulated";

/// The identity that the backend speaks as.
pub(super) const OWN_IDENTITY: &str = "shoal";

/// A part of the cluster that answers commands in the order they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Module {
    Monitors,
    Volumes,
    Nfs,
}

/// When something that was held up comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Until {
    Time(Duration),
    Call(u64),
    Never,
}

impl Until {
    fn is_over(self, now: Duration, calls: u64) -> bool {
        match self {
            Self::Time(time) => time <= now,
            Self::Call(call) => call <= calls,
            Self::Never => false,
        }
    }
}

/// A command that writes, as it would go over the wire: it does what it says and checks no owner.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Command {
    CreateSubvolume {
        name: String,
        size: u64,
        root: RootDirectory,
    },
    Tag {
        name: String,
        tag: String,
    },
    SetMetadata {
        name: String,
        text: Option<String>,
    },
    Resize {
        name: String,
        size: u64,
    },
    RemoveSubvolume {
        name: String,
    },
    Authorize {
        name: String,
        identity: String,
        tenant: String,
        level: AccessLevel,
    },
    Deauthorize {
        path: String,
        identity: String,
    },
    Evict {
        path: String,
        identity: String,
    },
    ApplyExport {
        pseudo_path: String,
        path: String,
        clients: Vec<NfsClient>,
    },
    RemoveExport {
        pseudo_path: String,
    },
}

impl Command {
    pub(super) fn module(&self) -> Module {
        match self {
            Self::ApplyExport { .. } | Self::RemoveExport { .. } => Module::Nfs,
            _ => Module::Volumes,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::CreateSubvolume { .. } => "subvolume create",
            Self::Tag { .. } => "subvolume metadata set",
            Self::SetMetadata { .. } => "subvolume metadata set or rm",
            Self::Resize { .. } => "subvolume resize",
            Self::RemoveSubvolume { .. } => "subvolume rm",
            Self::Authorize { .. } => "subvolume authorize",
            Self::Deauthorize { .. } => "subvolume deauthorize",
            Self::Evict { .. } => "client evict",
            Self::ApplyExport { .. } => "export apply",
            Self::RemoveExport { .. } => "export rm",
        }
    }
}

/// Whose doing a command is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Origin {
    pub by: String,
    pub operation: Operation,
    pub uid: String,
}

/// A command that was sent and has not taken effect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Pending {
    pub until: Until,
    pub on: Target,
    pub command: Command,
    pub origin: Origin,
}

/// The storage that a command was meant for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Target {
    pub fsid: String,
    pub fs_name: String,
    pub fs_id: i64,
}

impl From<&Identity> for Target {
    fn from(identity: &Identity) -> Self {
        Self {
            fsid: identity.fsid.clone(),
            fs_name: identity.fs_name.clone(),
            fs_id: identity.fs_id,
        }
    }
}

impl From<Target> for Identity {
    fn from(target: Target) -> Self {
        Self {
            fsid: target.fsid,
            fs_name: target.fs_name,
            fs_id: target.fs_id,
        }
    }
}

/// A client block of an NFS export, as Ganesha has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NfsClient {
    /// Address or network; by hand, anything.
    pub address: String,
    /// What it may do.
    pub level: AccessLevel,
    /// Which of its users lose their identity.
    pub squash: Squash,
}

impl NfsClient {
    /// The block for a grant; none for a CephX client.
    pub fn of(grant: &Grant) -> Option<Self> {
        match &grant.client {
            Client::Ip(_) => Some(Self {
                address: grant.client.to_string(),
                level: grant.level,
                squash: grant.squash,
            }),
            Client::CephX(_) => None,
        }
    }

    /// The grant it is; none if its address is not one that a rule can name.
    pub fn to_grant(&self) -> Option<Grant> {
        let client = Client::parse(shoal_crds::AccessType::IP, &self.address).ok()?;
        Some(Grant {
            client,
            level: self.level,
            squash: self.squash,
        })
    }
}

/// A key at rest.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct KeyText(String);

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("******")
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Subvolume {
    pub path: String,
    pub size: Option<u64>,
    pub used: u64,
    pub root: RootDirectory,
    pub tag: Option<String>,
    #[serde(default)]
    pub metadata: Option<String>,
    pub snapshots: u32,
}

impl Subvolume {
    pub(super) fn tag(&self) -> Tag {
        match &self.tag {
            None => Tag::Absent,
            Some(text) => serde_json::from_str::<Owner>(text).map_or(Tag::Unreadable, Tag::Owner),
        }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct FileSystem {
    pub id: i64,
    pub used: u64,
    pub subvolumes: BTreeMap<String, Subvolume>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct NfsExport {
    pub file_system: String,
    pub path: String,
    pub clients: Vec<NfsClient>,
    pub intact: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entity {
    /// None: made by another tool.
    pub tenant: Option<String>,
    pub file_system: String,
    pub key: KeyText,
    /// Keys of [`World::caps`].
    pub paths: BTreeSet<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Session {
    pub identity: String,
    pub file_system: String,
    pub root: String,
    /// What it was allowed when it began.
    pub level: AccessLevel,
}

/// That an identity is let in at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cap {
    pub path: String,
    pub identity: String,
    pub level: AccessLevel,
}

/// Why nothing is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trouble {
    /// It can't be reached.
    Unreachable,
    /// It refuses our credentials.
    CredentialsRefused,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct World {
    pub seed: u64,
    /// How many keys and paths were made.
    pub drawn: u64,
    pub fsid: String,
    pub monitors: Vec<String>,
    /// None: no NFS service.
    pub nfs_endpoints: Option<Vec<String>>,
    pub last_fs_id: i64,
    pub file_systems: BTreeMap<String, FileSystem>,
    /// By pseudo path.
    pub exports: BTreeMap<String, NfsExport>,
    pub identities: BTreeMap<String, Entity>,
    /// `<file system>:<path>` → identity → level.
    pub caps: BTreeMap<String, BTreeMap<String, AccessLevel>>,
    pub last_session: u64,
    pub sessions: BTreeMap<u64, Session>,
    pub trouble: Option<Trouble>,
    pub faults: Vec<Fault>,
    /// Calls so far, by method.
    pub counts: BTreeMap<Operation, u64>,
    pub calls: u64,
    /// Commands that changed something.
    pub effects: u64,
    pub stuck: BTreeMap<Module, Until>,
    pub pending: Vec<Pending>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            drawn: 0,
            fsid: fsid(seed),
            monitors: vec![
                "192.0.2.1:3300".into(),
                "192.0.2.2:3300".into(),
                "192.0.2.3:3300".into(),
            ],
            nfs_endpoints: Some(vec!["192.0.2.11".into(), "192.0.2.12".into()]),
            last_fs_id: 0,
            file_systems: BTreeMap::new(),
            exports: BTreeMap::new(),
            identities: BTreeMap::new(),
            caps: BTreeMap::new(),
            last_session: 0,
            sessions: BTreeMap::new(),
            trouble: None,
            faults: Vec::new(),
            counts: BTreeMap::new(),
            calls: 0,
            effects: 0,
            stuck: BTreeMap::new(),
            pending: Vec::new(),
        }
    }

    pub(super) fn add_file_system(&mut self, name: &str) {
        if !self.file_systems.contains_key(name) {
            self.last_fs_id += 1;
            self.file_systems.insert(
                name.to_owned(),
                FileSystem {
                    id: self.last_fs_id,
                    ..FileSystem::default()
                },
            );
        }
    }

    /// Which storage the file system is now.
    pub(super) fn identity(&self, fs_name: &str) -> Result<Identity> {
        let fs = self
            .file_systems
            .get(fs_name)
            .ok_or_else(|| Error::FileSystemNotFound(fs_name.to_owned()))?;
        Ok(Identity {
            fsid: self.fsid.clone(),
            fs_name: fs_name.to_owned(),
            fs_id: fs.id,
        })
    }

    /// That it is this storage that answers.
    pub(super) fn check(&self, fs_name: &str, on: &Identity) -> Result<()> {
        if self.fsid != on.fsid || fs_name != on.fs_name {
            return Err(replaced(on, &self.fsid, fs_name, None));
        }
        let found = self.identity(fs_name)?;
        if found == *on {
            Ok(())
        } else {
            Err(replaced(on, &self.fsid, fs_name, Some(found.fs_id)))
        }
    }

    pub(super) fn subvolume(&self, fs: &str, name: &str) -> Option<&Subvolume> {
        self.file_systems.get(fs)?.subvolumes.get(name)
    }

    pub(super) fn subvolume_mut(&mut self, fs: &str, name: &str) -> Result<&mut Subvolume> {
        self.file_systems
            .get_mut(fs)
            .and_then(|fs| fs.subvolumes.get_mut(name))
            .ok_or(Error::NotFound)
    }

    /// Who is let in at paths in this directory.
    pub(super) fn caps_below(&self, fs: &str, directory: &str) -> impl Iterator<Item = Cap> {
        let prefix = format!("{fs}:{directory}/");
        let skip = fs.len() + 1;
        self.caps
            .range(prefix.clone()..)
            .take_while(move |(place, _)| place.starts_with(&prefix))
            .flat_map(move |(place, holders)| {
                holders.iter().map(move |(identity, level)| Cap {
                    path: place[skip..].to_owned(),
                    identity: identity.clone(),
                    level: *level,
                })
            })
    }

    /// Sessions on subvolumes in this directory that may do more than their identity may now: the subvolume's path, and
    /// the identity.
    pub(super) fn stale_sessions(&self, fs: &str, directory: &str) -> BTreeSet<(String, String)> {
        let subvolume_of = |session: &Session| {
            let rest = session.root.strip_prefix(directory)?.strip_prefix('/')?;
            Some(format!(
                "{directory}/{}",
                rest.split('/').next().unwrap_or_default()
            ))
        };
        let on_file_system = self.sessions.values().filter(|session| session.file_system == fs);
        let stale = on_file_system.filter_map(|session| {
            let path = subvolume_of(session)?;
            let allowed = self
                .caps
                .get(&format!("{fs}:{path}"))
                .and_then(|held| held.get(&session.identity));
            // Read-write comes first in the order of levels.
            let is_stale = allowed.is_none_or(|level| *level > session.level);
            is_stale.then(|| (path, session.identity.clone()))
        });
        stale.collect()
    }

    pub(super) fn key(&self, identity: &str) -> Option<Key> {
        self.identities
            .get(identity)
            .map(|entity| Key::new(entity.key.0.clone()))
    }

    /// Takes the commands whose time has come, in the order in which they take effect.
    pub(super) fn take_due(&mut self, now: Duration) -> Vec<Pending> {
        if self.pending.is_empty() && self.stuck.is_empty() {
            return Vec::new();
        }
        let calls = self.calls;
        let mut due: Vec<_> = self
            .pending
            .extract_if(.., |p| p.until.is_over(now, calls))
            .collect();
        due.sort_by_key(|p| match p.until {
            Until::Time(time) => time,
            Until::Call(_) | Until::Never => Duration::ZERO,
        });
        self.stuck.retain(|_, until| !until.is_over(now, calls));
        due
    }

    /// When a module that was sent a command now would begin with it.
    pub(super) fn turn(&self, module: Module, now: Duration) -> Until {
        self.stuck.get(&module).copied().unwrap_or(Until::Time(now))
    }

    /// Does what the command says, in this file system. The key is that of an identity just let in.
    pub(super) fn apply(&mut self, fs: &str, command: Command) -> Result<Option<Key>> {
        match command {
            Command::CreateSubvolume { name, size, root } => self.create_subvolume(fs, &name, size, root)?,
            Command::Tag { name, tag } => self.subvolume_mut(fs, &name)?.tag = Some(tag),
            Command::SetMetadata { name, text } => self.subvolume_mut(fs, &name)?.metadata = text,
            Command::Resize { name, size } => {
                let subvolume = self.subvolume_mut(fs, &name)?;
                if size < subvolume.used {
                    return Err(Error::BelowUsed {
                        used_bytes: subvolume.used,
                    });
                }
                subvolume.size = Some(size);
            }
            Command::RemoveSubvolume { name } => self.remove_subvolume(fs, &name, false)?,
            Command::Authorize {
                name,
                identity,
                tenant,
                level,
            } => {
                let key = self.authorize(fs, &name, &identity, &tenant, level)?;
                self.effects += 1;
                return Ok(Some(key));
            }
            Command::Deauthorize { path, identity } => self.deauthorize(fs, &path, &identity),
            Command::Evict { path, identity } => {
                let below = format!("{path}/");
                self.sessions.retain(|_, session| {
                    session.identity != identity
                        || session.file_system != fs
                        || (session.root != path && !session.root.starts_with(&below))
                });
            }
            Command::ApplyExport {
                pseudo_path,
                path,
                clients,
            } => {
                self.apply_export(fs, pseudo_path, path, clients)?;
            }
            Command::RemoveExport { pseudo_path } => {
                self.nfs()?;
                self.exports.remove(&pseudo_path);
            }
        }
        self.effects += 1;
        Ok(None)
    }

    pub(super) fn nfs(&self) -> Result<&[String]> {
        self.nfs_endpoints
            .as_deref()
            .ok_or_else(|| Error::NfsClusterNotFound(NFS_CLUSTER.into()))
    }

    /// Like Ceph's: on one that is there it sets quota and root anew.
    pub(super) fn create_subvolume(
        &mut self,
        fs: &str,
        name: &str,
        size: u64,
        root: RootDirectory,
    ) -> Result<()> {
        if let Ok(there) = self.subvolume_mut(fs, name) {
            there.size = Some(size);
            there.root = root;
            return Ok(());
        }
        let path = format!("/volumes/{GROUP}/{name}/{}", self.draw_uuid());
        let fs = self
            .file_systems
            .get_mut(fs)
            .ok_or_else(|| Error::FileSystemNotFound(fs.to_owned()))?;
        let subvolume = Subvolume {
            path,
            size: Some(size),
            used: 0,
            root,
            tag: None,
            metadata: None,
            snapshots: 0,
        };
        fs.subvolumes.insert(name.to_owned(), subvolume);
        Ok(())
    }

    pub(super) fn remove_subvolume(&mut self, fs: &str, name: &str, force: bool) -> Result<()> {
        let snapshots = self.subvolume_mut(fs, name)?.snapshots;
        if snapshots > 0 && !force {
            return Err(Error::HasSnapshots(
                (1..=snapshots).map(|n| format!("by-hand-{n}")).collect(),
            ));
        }
        if let Some(fs) = self.file_systems.get_mut(fs)
            && let Some(gone) = fs.subvolumes.remove(name)
        {
            fs.used -= gone.used;
        }
        Ok(())
    }

    pub(super) fn authorize(
        &mut self,
        fs: &str,
        name: &str,
        identity: &str,
        tenant: &str,
        level: AccessLevel,
    ) -> Result<Key> {
        let place = format!("{fs}:{}", self.subvolume_mut(fs, name)?.path);
        match self.identities.get(identity) {
            // Ceph's two cases of EPERM: another tenant's, and one that the file system's own records don't know,
            // because another tool or another file system made it.
            Some(entity) if entity.tenant.as_deref() != Some(tenant) || entity.file_system != fs => {
                return Err(Error::IdentityNotAvailable);
            }
            Some(_) => {}
            None => self.add_identity(identity, fs, Some(tenant)),
        }
        self.caps
            .entry(place.clone())
            .or_default()
            .insert(identity.to_owned(), level);
        let entity = self
            .identities
            .get_mut(identity)
            .ok_or(Error::IdentityNotAvailable)?;
        entity.paths.insert(place);
        Ok(Key::new(entity.key.0.clone()))
    }

    pub(super) fn add_identity(&mut self, identity: &str, fs: &str, tenant: Option<&str>) {
        let key = KeyText(self.draw_key());
        let entity = Entity {
            tenant: tenant.map(str::to_owned),
            file_system: fs.to_owned(),
            key,
            paths: BTreeSet::new(),
        };
        self.identities.insert(identity.to_owned(), entity);
    }

    /// The last path that goes takes the identity along.
    pub(super) fn deauthorize(&mut self, fs: &str, path: &str, identity: &str) {
        let place = format!("{fs}:{path}");
        if let Some(holders) = self.caps.get_mut(&place) {
            holders.remove(identity);
            if holders.is_empty() {
                self.caps.remove(&place);
            }
        }
        if let Some(entity) = self.identities.get_mut(identity) {
            entity.paths.remove(&place);
            if entity.paths.is_empty() && entity.tenant.is_some() {
                self.identities.remove(identity);
            }
        }
    }

    /// Like Ceph's: a path that is not there is refused, and so is one that another export has.
    fn apply_export(
        &mut self,
        fs: &str,
        pseudo_path: String,
        path: String,
        clients: Vec<NfsClient>,
    ) -> Result<()> {
        self.nfs()?;
        let name = path
            .strip_prefix("/volumes/")
            .and_then(|rest| rest.split('/').nth(1))
            .unwrap_or_default();
        if self
            .subvolume(fs, name)
            .is_none_or(|subvolume| subvolume.path != path)
        {
            return Err(Error::NotFound);
        }
        if let Some(there) = self.exports.get(&pseudo_path)
            && (there.file_system != fs || there.path != path)
        {
            return Err(Error::PathTaken(pseudo_path));
        }
        let export = NfsExport {
            file_system: fs.to_owned(),
            path,
            clients,
            intact: true,
        };
        self.exports.insert(pseudo_path, export);
        Ok(())
    }

    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        mix(self.seed ^ self.drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn draw_uuid(&mut self) -> String {
        uuid(self.draw(), self.draw())
    }

    /// In the form of Ceph's: 28 bytes in base64, of which the first are the key's type.
    fn draw_key(&mut self) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut key = String::from("AQ");
        while key.len() < 38 {
            let mut bits = self.draw();
            for _ in 0..9 {
                key.push(char::from(
                    ALPHABET[usize::try_from(bits & 63).unwrap_or_default()],
                ));
                bits >>= 6;
            }
        }
        key.push_str("==");
        key
    }
}

fn replaced(on: &Identity, fsid: &str, fs_name: &str, found: Option<i64>) -> Error {
    let id = found.map_or_else(String::new, |id| format!(" (id {id})"));
    Error::Replaced {
        expected: format!(
            "file system {} (id {}) of cluster {}",
            on.fs_name, on.fs_id, on.fsid
        ),
        found: format!("file system {fs_name}{id} of cluster {fsid}"),
    }
}

/// The fsid of the cluster with this seed.
pub(super) fn fsid(seed: u64) -> String {
    uuid(mix(seed ^ 0x00f5_1d00), mix(seed ^ 0x00f5_1d01))
}

fn uuid(a: u64, b: u64) -> String {
    let hex = format!("{a:016x}{b:016x}");
    format!(
        "{}-{}-4{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..]
    )
}

/// Spreads a number evenly over all numbers (the finalizer of SplitMix64).
pub(super) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
