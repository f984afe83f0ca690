//! The commands that are sent, and what is read of their answers. Fields that are not wanted are not named, so that
//! another Ceph's additions do no harm.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use shoal_domain::grant::Key;

use crate::connection::{Module, Request, Target};

type Read<T> = Result<T, String>;

fn json<T: DeserializeOwned>(output: &[u8]) -> Read<T> {
    // The error says where and what kind of thing, not what was there.
    serde_json::from_slice(output).map_err(|error| {
        let kind = if error.is_data() {
            "unexpected JSON"
        } else {
            "not JSON"
        };
        format!("{kind} at line {} column {}", error.line(), error.column())
    })
}

#[expect(clippy::unnecessary_wraps, reason = "the form of a reader")]
fn nothing(_: &[u8]) -> Read<()> {
    Ok(())
}

/// Writes the impl of [`Request`] that most commands have.
macro_rules! request {
    ($type:ty, $prefix:literal, $target:expr, $reply:ty, $read:expr $(, $discreet:ident)?) => {
        impl Request for $type {
            const PREFIX: &'static str = $prefix;
            $(const $discreet: bool = true;)?
            type Reply = $reply;
            fn target(&self) -> Target {
                $target
            }
            fn read(output: &[u8]) -> Read<$reply> {
                $read(output)
            }
        }
    };
}

const VOLUMES: Target = Target::Manager(Module::Volumes);
const NFS: Target = Target::Manager(Module::Nfs);

// Monitors.

/// Ceph's version.
#[derive(Serialize)]
pub(crate) struct Version {}
request!(Version, "version", Target::Monitors, VersionReply, json);

#[derive(Deserialize)]
pub(crate) struct VersionReply {
    version: String,
}

impl VersionReply {
    pub(crate) fn number(&self) -> &str {
        number(&self.version)
    }
}

/// `18.2.7` of `ceph version 18.2.7 (…) reef (stable)`.
fn number(version: &str) -> &str {
    let mut words = version.split_whitespace().skip_while(|word| *word != "version");
    words.nth(1).unwrap_or(version)
}

/// How many daemons there are of which version.
#[derive(Serialize)]
pub(crate) struct Versions {}
request!(Versions, "versions", Target::Monitors, VersionsReply, json);

#[derive(Deserialize)]
pub(crate) struct VersionsReply {
    #[serde(default)]
    mgr: BTreeMap<String, u64>,
}

impl VersionsReply {
    /// Whether managers want to be told where an export's CephFS client mounts (`cmount_path`): those of before write exports
    /// that later ones trip over.
    pub(crate) fn want_cmount_path(&self) -> bool {
        let major = |version: &String| number(version).split('.').next()?.parse::<u32>().ok();
        let mut all = self.mgr.keys().map(major);
        !self.mgr.is_empty() && all.all(|major| major.is_some_and(|major| major >= 20))
    }
}

/// The file systems, as module volumes knows them: harmless, and answered in the order of its other commands.
#[derive(Serialize)]
pub(crate) struct VolumeLs {}
request!(
    VolumeLs,
    "fs volume ls",
    Target::Manager(Module::Volumes),
    serde::de::IgnoredAny,
    json
);

/// The monitors.
#[derive(Serialize)]
pub(crate) struct MonDump {}
request!(MonDump, "mon dump", Target::Monitors, MonDumpReply, json);

#[derive(Deserialize)]
pub(crate) struct MonDumpReply {
    mons: Vec<Monitor>,
}

#[derive(Deserialize)]
struct Monitor {
    public_addrs: Addresses,
}

#[derive(Deserialize)]
struct Addresses {
    addrvec: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    addr: String,
}

impl MonDumpReply {
    /// One `host:port` per monitor, of the v1 protocol where it speaks that: it is what Manila publishes, and a
    /// kernel's `mount -t ceph` takes an address without `ms_mode` for a v1 address.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let address = |monitor: &Monitor| {
            let all = &monitor.public_addrs.addrvec;
            let best = all
                .iter()
                .find(|address| address.kind == "v1")
                .or_else(|| all.first())?;
            Some(best.addr.split('/').next().unwrap_or_default().to_owned())
        };
        self.mons.iter().filter_map(address).collect()
    }
}

/// The manager's modules.
#[derive(Serialize)]
pub(crate) struct MgrModuleLs {}
request!(
    MgrModuleLs,
    "mgr module ls",
    Target::Monitors,
    MgrModuleLsReply,
    json
);

#[derive(Deserialize)]
pub(crate) struct MgrModuleLsReply {
    #[serde(default)]
    always_on_modules: Vec<String>,
    enabled_modules: Vec<String>,
}

impl MgrModuleLsReply {
    /// Whether exports are kept by it at all.
    pub(crate) fn has_nfs(&self) -> bool {
        let mut all = self.always_on_modules.iter().chain(&self.enabled_modules);
        all.any(|module| module == "nfs")
    }
}

/// One file system. -2: it does not exist.
#[derive(Serialize)]
pub(crate) struct FsGet<'a> {
    pub fs_name: &'a str,
}
request!(FsGet<'_>, "fs get", Target::Monitors, FsGetReply, json);

#[derive(Debug, Deserialize)]
pub(crate) struct FsGetReply {
    pub id: i64,
    mdsmap: MdsMap,
}

#[derive(Debug, Deserialize)]
struct MdsMap {
    /// The ranks there have to be.
    #[serde(rename = "in")]
    ranks: Vec<i64>,
    info: BTreeMap<String, MdsInfo>,
    data_pools: Vec<i64>,
}

#[derive(Debug, Deserialize)]
struct MdsInfo {
    gid: u64,
    rank: i64,
    state: String,
}

impl FsGetReply {
    /// The global ids of the metadata servers, one per rank; an error names a rank that nobody serves now.
    pub(crate) fn metadata_servers(&self) -> Result<Vec<u64>, i64> {
        let serves = |rank: i64| {
            let mut all = self.mdsmap.info.values();
            // A daemon that a rank is moving away from still answers for the sessions it has.
            let found =
                all.find(|info| info.rank == rank && matches!(&*info.state, "up:active" | "up:stopping"));
            found.map(|info| info.gid).ok_or(rank)
        };
        self.mdsmap.ranks.iter().copied().map(serves).collect()
    }

    /// The pool where data goes unless told otherwise.
    pub(crate) fn data_pool(&self) -> Option<i64> {
        self.mdsmap.data_pools.first().copied()
    }
}

/// Room by pool.
#[derive(Serialize)]
pub(crate) struct Df {}
request!(Df, "df", Target::Monitors, DfReply, json);

#[derive(Deserialize)]
pub(crate) struct DfReply {
    pools: Vec<Pool>,
}

#[derive(Deserialize)]
struct Pool {
    name: String,
    id: i64,
    stats: PoolStats,
}

#[derive(Deserialize)]
struct PoolStats {
    stored: u64,
    max_avail: u64,
}

impl DfReply {
    /// Bytes in all and free of a pool, by name or else by id: what its users can store, replicas taken off.
    pub(crate) fn room(&self, name: Option<&str>, id: Option<i64>) -> Option<(u64, u64)> {
        let wanted = |pool: &&Pool| name.map_or(Some(pool.id) == id, |name| pool.name == name);
        let stats = &self.pools.iter().find(wanted)?.stats;
        Some((stats.stored.saturating_add(stats.max_avail), stats.max_avail))
    }
}

// Module volumes.

/// A subvolume's place.
#[expect(clippy::struct_field_names, reason = "Ceph's names")]
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Place<'a> {
    pub vol_name: &'a str,
    pub group_name: &'a str,
    pub sub_name: &'a str,
}

/// Repeating it is harmless.
#[derive(Serialize)]
pub(crate) struct GroupCreate<'a> {
    pub vol_name: &'a str,
    pub group_name: &'a str,
    /// Of the group's directory; every share's client walks through it.
    pub mode: &'static str,
}
request!(GroupCreate<'_>, "fs subvolumegroup create", VOLUMES, (), nothing);

/// Repeating it resets mode, owner and quota. -2: no such file system or group.
#[derive(Serialize)]
pub(crate) struct SubvolumeCreate<'a> {
    #[serde(flatten)]
    pub place: Place<'a>,
    pub size: u64,
    /// Octal.
    pub mode: &'a str,
    pub uid: i64,
    pub gid: i64,
    pub namespace_isolated: bool,
    /// The data pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_layout: Option<&'a str>,
}
request!(SubvolumeCreate<'_>, "fs subvolume create", VOLUMES, (), nothing);

/// -2: no such subvolume, group or file system.
#[derive(Serialize)]
pub(crate) struct SubvolumeInfo<'a> {
    #[serde(flatten)]
    pub place: Place<'a>,
}
request!(
    SubvolumeInfo<'_>,
    "fs subvolume info",
    VOLUMES,
    SubvolumeInfoReply,
    json
);

#[derive(Debug, Deserialize)]
pub(crate) struct SubvolumeInfoReply {
    /// None where data is gone and snapshots are kept.
    #[serde(default)]
    pub path: Option<String>,
    /// A number, or the text `infinite`.
    bytes_quota: Value,
    pub bytes_used: u64,
}

impl SubvolumeInfoReply {
    /// None: unlimited.
    pub(crate) fn quota(&self) -> Option<u64> {
        self.bytes_quota.as_u64()
    }
}

/// Refused (-22) below what is used.
#[derive(Serialize)]
pub(crate) struct SubvolumeResize<'a> {
    #[serde(flatten)]
    pub place: Place<'a>,
    /// Bytes. A text, for Ceph's sake.
    pub new_size: String,
    pub no_shrink: bool,
}
request!(SubvolumeResize<'_>, "fs subvolume resize", VOLUMES, (), nothing);

/// The subvolumes of a group.
#[derive(Serialize)]
pub(crate) struct SubvolumeLs<'a> {
    pub vol_name: &'a str,
    pub group_name: &'a str,
}

impl Request for SubvolumeLs<'_> {
    const PREFIX: &'static str = "fs subvolume ls";
    /// Some sixty bytes a subvolume.
    const LONGEST: usize = 64 << 20;
    type Reply = Vec<SubvolumeName>;

    fn target(&self) -> Target {
        VOLUMES
    }

    fn read(output: &[u8]) -> Read<Vec<SubvolumeName>> {
        json(output)
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct SubvolumeName {
    pub name: String,
}

/// -2: absent. -39: it has snapshots.
#[derive(Serialize)]
pub(crate) struct SubvolumeRm<'a> {
    #[serde(flatten)]
    pub place: Place<'a>,
}
request!(SubvolumeRm<'_>, "fs subvolume rm", VOLUMES, (), nothing);

#[derive(Serialize)]
pub(crate) struct SnapshotLs<'a> {
    #[serde(flatten)]
    pub place: Place<'a>,
}
request!(
    SnapshotLs<'_>,
    "fs subvolume snapshot ls",
    VOLUMES,
    Vec<SnapshotLsReply>,
    json
);

/// One snapshot.
#[derive(Debug, Deserialize)]
pub(crate) struct SnapshotLsReply {
    pub name: String,
}

#[derive(Serialize)]
pub(crate) struct MetadataLs<'a> {
    #[serde(flatten)]
    pub place: Place<'a>,
}
request!(MetadataLs<'_>, "fs subvolume metadata ls", VOLUMES, BTreeMap<String, String>, json);

/// An INI file at Ceph: `%` is refused, keys are lower-cased.
#[derive(Serialize)]
pub(crate) struct MetadataSet<'a> {
    #[serde(flatten)]
    pub place: Place<'a>,
    pub key_name: &'a str,
    pub value: String,
}
request!(
    MetadataSet<'_>,
    "fs subvolume metadata set",
    VOLUMES,
    (),
    nothing,
    DISCREET
);

/// -2: absent.
#[derive(Serialize)]
pub(crate) struct MetadataRm<'a> {
    #[serde(flatten)]
    pub place: Place<'a>,
    pub key_name: &'a str,
}
request!(MetadataRm<'_>, "fs subvolume metadata rm", VOLUMES, (), nothing);

/// Identity to level, `rw` or `r`.
#[derive(Serialize)]
pub(crate) struct AuthorizedList<'a> {
    #[serde(flatten)]
    pub place: Place<'a>,
}
request!(
    AuthorizedList<'_>,
    "fs subvolume authorized_list",
    VOLUMES,
    BTreeMap<String, String>,
    |output| json::<Vec<BTreeMap<String, String>>>(output).map(|list| list.into_iter().flatten().collect())
);

/// Answers the identity's key. -1: the identity is another tenant's, or not made by this command.
/// `allow_existing_id` is not there to be sent: with it Ceph hands out another tenant's key.
#[derive(Serialize)]
pub(crate) struct Authorize<'a> {
    #[serde(flatten)]
    pub place: Place<'a>,
    pub auth_id: &'a str,
    /// `rw` or `r`.
    pub access_level: &'static str,
    /// Without one the key comes back empty.
    pub tenant_id: &'a str,
}
request!(
    Authorize<'_>,
    "fs subvolume authorize",
    VOLUMES,
    Key,
    key,
    DISCREET
);

fn key(output: &[u8]) -> Read<Key> {
    match std::str::from_utf8(output).map(str::trim) {
        Ok(key) if !key.is_empty() => Ok(Key::new(key)),
        _ => Err("no key".into()),
    }
}

/// -2: no such identity. One that is not authorized here: nothing is done.
#[derive(Serialize)]
pub(crate) struct Deauthorize<'a> {
    #[serde(flatten)]
    pub place: Place<'a>,
    pub auth_id: &'a str,
}
request!(
    Deauthorize<'_>,
    "fs subvolume deauthorize",
    VOLUMES,
    (),
    nothing,
    DISCREET
);

// Metadata servers.

/// The sessions that one metadata server has.
pub(crate) struct SessionLs<'a> {
    pub fs_name: &'a str,
    pub gid: u64,
    /// All must fit a session.
    pub filters: Vec<String>,
}

impl Serialize for SessionLs<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        BTreeMap::from([("filters", &self.filters)]).serialize(serializer)
    }
}

impl Request for SessionLs<'_> {
    const PREFIX: &'static str = "session ls";
    const DISCREET: bool = true;
    /// Some two thousand bytes a client.
    const LONGEST: usize = 64 << 20;
    type Reply = Vec<Session>;

    fn target(&self) -> Target {
        Target::MetadataServer(self.fs_name.to_owned(), self.gid)
    }

    fn read(output: &[u8]) -> Read<Vec<Session>> {
        json(output)
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Session {
    pub id: u64,
    #[serde(default)]
    client_metadata: ClientMetadata,
}

#[derive(Debug, Default, Deserialize)]
struct ClientMetadata {
    #[serde(default)]
    root: String,
}

impl Session {
    /// Whether it was mounted at the path or below it. It is the client who says where, and one that does not is taken to be there.
    pub(crate) fn is_within(&self, path: &str) -> bool {
        let root = &self.client_metadata.root;
        let below = root.strip_prefix(path);
        root.is_empty() || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Ends sessions and shuts their clients out.
pub(crate) struct ClientEvict<'a> {
    pub fs_name: &'a str,
    pub gid: u64,
    pub id: u64,
}

impl Serialize for ClientEvict<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        BTreeMap::from([("filters", [format!("id={}", self.id)])]).serialize(serializer)
    }
}

impl Request for ClientEvict<'_> {
    const PREFIX: &'static str = "client evict";
    const DISCREET: bool = true;
    type Reply = ();

    fn target(&self) -> Target {
        Target::MetadataServer(self.fs_name.to_owned(), self.gid)
    }

    fn read(_: &[u8]) -> Read<()> {
        Ok(())
    }
}

// Module nfs.

/// The NFS clusters. Without an orchestrator names come several times.
#[derive(Serialize)]
pub(crate) struct NfsClusterLs {}
request!(NfsClusterLs, "nfs cluster ls", NFS, Vec<String>, json);

/// -2: no such cluster, or no orchestrator that could tell.
#[derive(Serialize)]
pub(crate) struct NfsClusterInfo<'a> {
    pub cluster_id: &'a str,
}
request!(NfsClusterInfo<'_>, "nfs cluster info", NFS, BTreeMap<String, NfsServiceReply>, json);

#[derive(Debug, Deserialize)]
pub(crate) struct NfsServiceReply {
    #[serde(default)]
    virtual_ip: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    backend: Vec<NfsDaemon>,
}

#[derive(Debug, Deserialize)]
struct NfsDaemon {
    #[serde(default)]
    ip: Option<String>,
    #[serde(default)]
    port: Option<u16>,
}

impl NfsServiceReply {
    /// The virtual address if there is one, else the daemons'; as `host` or, where the port is not NFS's own,
    /// `host:port`.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        let endpoint = |ip: &str, port: Option<u16>| {
            let host = if ip.contains(':') {
                format!("[{ip}]")
            } else {
                ip.to_owned()
            };
            match port {
                None | Some(2049) => host,
                Some(port) => format!("{host}:{port}"),
            }
        };
        if let Some(ip) = self.virtual_ip.as_deref().filter(|ip| !ip.is_empty()) {
            return vec![endpoint(ip, self.port)];
        }
        // Ceph tells the daemons in any order, and another order is not another place.
        let daemons: BTreeSet<_> = self
            .backend
            .iter()
            .filter_map(|daemon| Some(endpoint(daemon.ip.as_deref()?, daemon.port)))
            .collect();
        daemons.into_iter().collect()
    }
}

/// -2: no such cluster. No such export: an empty object.
#[derive(Serialize)]
pub(crate) struct NfsExportInfo<'a> {
    pub cluster_id: &'a str,
    pub pseudo_path: &'a str,
}
request!(
    NfsExportInfo<'_>,
    "nfs export info",
    NFS,
    Option<Map<String, Value>>,
    |output| {
        json::<Map<String, Value>>(output).map(|export| Some(export).filter(|export| !export.is_empty()))
    }
);

/// All exports of a cluster, whole. -2: no such cluster.
#[derive(Serialize)]
pub(crate) struct NfsExportLs<'a> {
    pub cluster_id: &'a str,
    pub detailed: bool,
}

impl Request for NfsExportLs<'_> {
    const PREFIX: &'static str = "nfs export ls";
    /// Some five hundred bytes an export, and a hundred for each of its clients.
    const LONGEST: usize = 64 << 20;
    type Reply = Vec<NfsExport>;

    fn target(&self) -> Target {
        NFS
    }

    fn read(output: &[u8]) -> Read<Vec<NfsExport>> {
        json(output)
    }
}

/// Where an export leads.
#[derive(Debug, Deserialize)]
pub(crate) struct NfsExport {
    pub pseudo: String,
    pub path: String,
    #[serde(default)]
    fsal: Fsal,
}

#[derive(Debug, Default, Deserialize)]
struct Fsal {
    #[serde(default)]
    fs_name: Option<String>,
    #[serde(default)]
    cmount_path: Option<String>,
}

impl NfsExport {
    /// The file system, if it is one of Ceph's.
    pub(crate) fn fs_name(&self) -> Option<&str> {
        self.fsal.fs_name.as_deref()
    }

    /// Whether it is of Ceph 18, in a file system: later ones say where its client mounts.
    pub(crate) fn is_of_18(&self) -> bool {
        self.fsal.fs_name.is_some() && self.fsal.cmount_path.is_none()
    }
}

/// The answer's code says little (-11 although all was written): what counts is what is there afterwards.
#[derive(Serialize)]
pub(crate) struct NfsExportApply<'a> {
    pub cluster_id: &'a str,
    #[serde(skip)]
    pub export: &'a Map<String, Value>,
}

impl Request for NfsExportApply<'_> {
    const PREFIX: &'static str = "nfs export apply";
    const DISCREET: bool = true;
    type Reply = Vec<NfsApplied>;

    fn target(&self) -> Target {
        NFS
    }

    fn input(&self) -> Vec<u8> {
        serde_json::to_vec(self.export).unwrap_or_default()
    }

    fn read(output: &[u8]) -> Read<Vec<NfsApplied>> {
        json(output)
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct NfsApplied {
    /// `added`, `updated`, `warning`, `error`.
    pub state: String,
}

/// -2: no such cluster. No such export: 0.
#[derive(Serialize)]
pub(crate) struct NfsExportRm<'a> {
    pub cluster_id: &'a str,
    pub pseudo_path: &'a str,
}
request!(NfsExportRm<'_>, "nfs export rm", NFS, (), nothing);

#[cfg(test)]
mod tests {
    use super::*;

    /// What the two supported Cephs answered, as it came.
    macro_rules! answers {
        ($file:literal) => {
            [
                include_bytes!(concat!("../testdata/18.2.7/", $file)).as_slice(),
                include_bytes!(concat!("../testdata/20.2.4/", $file)).as_slice(),
            ]
        };
    }

    const PATH: &str = "/volumes/shoal/shoal-x1";

    #[test]
    fn version() {
        let numbers =
            answers!("version.json").map(|answer| Version::read(answer).unwrap().number().to_owned());
        assert_eq!(numbers, ["18.2.7", "20.2.4"]);
    }

    #[test]
    fn monitors_by_their_v1_address() {
        let addresses = answers!("mon-dump.json").map(|answer| MonDump::read(answer).unwrap().addresses());
        assert_eq!(addresses, [["127.80.3.1:6789"], ["127.80.2.1:6789"]]);
    }

    #[test]
    fn monitors_without_a_v1_address() {
        let answer =
            br#"{"mons":[{"public_addrs":{"addrvec":[{"type":"v2","addr":"[fd00::1]:3300","nonce":0}]}},
            {"public_addrs":{"addrvec":[]}}]}"#;
        assert_eq!(MonDump::read(answer).unwrap().addresses(), ["[fd00::1]:3300"]);
    }

    #[test]
    fn file_system() {
        for (answer, gid) in answers!("fs-get.json").into_iter().zip([4108, 4106]) {
            let fs = FsGet::read(answer).unwrap();
            assert_eq!(
                (fs.id, fs.data_pool(), fs.metadata_servers()),
                (1, Some(2), Ok(vec![gid]))
            );
        }
    }

    #[test]
    fn a_rank_that_nobody_serves_is_named() {
        let answer = |state: &str| {
            format!(
                r#"{{"id":1,"mdsmap":{{"in":[0,1],"data_pools":[2],"info":{{
                    "gid_1":{{"gid":1,"rank":0,"state":"up:active"}},
                    "gid_2":{{"gid":2,"rank":1,"state":"{state}"}},
                    "gid_3":{{"gid":3,"rank":-1,"state":"up:standby"}},
                    "gid_4":{{"gid":4,"rank":0,"state":"up:standby-replay"}}}}}}}}"#
            )
        };
        let servers = |state| FsGet::read(answer(state).as_bytes()).unwrap().metadata_servers();
        assert_eq!(servers("up:active"), Ok(vec![1, 2]));
        assert_eq!(servers("up:stopping"), Ok(vec![1, 2]));
        assert_eq!(servers("up:replay"), Err(1));
    }

    #[test]
    fn room() {
        for answer in answers!("df.json") {
            let df = Df::read(answer).unwrap();
            let (total, free) = df.room(None, Some(2)).unwrap();
            assert!(total >= free && free > 16_000_000_000);
            assert_eq!(df.room(Some("cephfs.data"), Some(4)), Some((total, free)));
            assert_eq!(df.room(Some("nope"), Some(2)), None);
        }
    }

    #[test]
    fn subvolume() {
        for answer in answers!("fs-subvolume-info.json") {
            let info = SubvolumeInfo::read(answer).unwrap();
            assert!(info.path.as_ref().unwrap().starts_with(PATH));
            assert_eq!((info.quota(), info.bytes_used), (Some(104_857_600), 0));
        }
        let unlimited = br#"{"path":"/volumes/shoal/a/b","bytes_quota":"infinite","bytes_used":7}"#;
        assert_eq!(SubvolumeInfo::read(unlimited).unwrap().quota(), None);
        let snapshots_only = br#"{"bytes_quota":"infinite","bytes_used":7,"state":"snapshot-retained"}"#;
        assert_eq!(SubvolumeInfo::read(snapshots_only).unwrap().path, None);
    }

    #[test]
    fn metadata() {
        for answer in answers!("fs-subvolume-metadata-ls.json") {
            let metadata = MetadataLs::read(answer).unwrap();
            let owner = &metadata[shoal_domain::owner::Owner::METADATA_KEY];
            let owner: shoal_domain::owner::Owner = serde_json::from_str(owner).unwrap();
            assert_eq!(owner.uid, "x1");
        }
    }

    #[test]
    fn authorized() {
        for answer in answers!("fs-subvolume-authorized-list.json") {
            let list = AuthorizedList::read(answer).unwrap();
            assert_eq!(list.get("bob").map(String::as_str), Some("r"));
            assert_eq!(list.len(), 2);
        }
        assert!(AuthorizedList::read(b"[]").unwrap().is_empty());
    }

    #[test]
    fn a_key_is_taken_from_its_line() {
        assert_eq!(Authorize::read(b"AQsecret==\n").unwrap().reveal(), "AQsecret==");
        assert!(Authorize::read(b"\n").is_err());
    }

    #[test]
    fn sessions_at_a_path_and_below() {
        for answer in answers!("session-ls.json") {
            let sessions = SessionLs::read(answer).unwrap();
            assert_eq!(sessions.len(), 1);
            let root = &sessions[0].client_metadata.root;
            assert!(sessions[0].is_within(root));
            assert!(sessions[0].is_within(root.rsplit_once('/').unwrap().0));
            assert!(!sessions[0].is_within(&root[..root.len() - 1]));
            assert!(!sessions[0].is_within(&format!("{root}/d")));
        }
        let told = SessionLs::read(br#"[{"id":1,"client_metadata":{"root":"/"}},{"id":2}]"#).unwrap();
        let within = told.iter().filter(|session| session.is_within(PATH));
        assert_eq!(
            within.map(|session| session.id).collect::<Vec<_>>(),
            [2],
            "who hides it"
        );
    }

    #[test]
    fn nfs() {
        for answer in answers!("nfs-cluster-ls.json") {
            assert_eq!(NfsClusterLs::read(answer).unwrap(), ["shoal-nfs"]);
        }
        for answer in answers!("nfs-export-apply.json") {
            assert_eq!(NfsExportApply::read(answer).unwrap()[0].state, "updated");
        }
        for answer in answers!("nfs-export-info.json") {
            let answer = [b"[", answer, b"]"].concat();
            let exports = NfsExportLs::read(&answer).unwrap();
            assert_eq!(
                (exports[0].pseudo.as_str(), exports[0].fs_name()),
                ("/shoal-x1", Some("cephfs"))
            );
            assert!(exports[0].path.starts_with(PATH));
        }
        assert_eq!(NfsExportInfo::read(b"{}\n"), Ok(None));
        assert!(
            NfsExportInfo::read(answers!("nfs-export-info.json")[0])
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn what_managers_want() {
        let want = |managers: &str| {
            let answer = format!(r#"{{"mon":{{}},"mgr":{managers},"overall":{{}}}}"#);
            Versions::read(answer.as_bytes()).unwrap().want_cmount_path()
        };
        assert!(want(
            r#"{"ceph version 20.2.4 (7f79) tentacle (stable - RelWithDebInfo)":2}"#
        ));
        assert!(!want(r#"{"ceph version 18.2.7 (6b0e) reef (stable)":2}"#));
        assert!(!want(
            r#"{"ceph version 18.2.7 (6b0e) reef (stable)":1,"ceph version 20.2.4 (7f79) tentacle (stable)":1}"#
        ));
        assert!(!want("{}"));
        let of_18 = answers!("nfs-export-info.json").map(|answer| {
            let answer = [b"[", answer, b"]"].concat();
            NfsExportLs::read(&answer).unwrap()[0].is_of_18()
        });
        assert_eq!(of_18, [true, false]);
    }

    #[test]
    fn modules() {
        let has_nfs = |enabled: &str| {
            let answer = format!(
                r#"{{"always_on_modules":["volumes"],"enabled_modules":{enabled},"disabled_modules":[]}}"#
            );
            MgrModuleLs::read(answer.as_bytes()).unwrap().has_nfs()
        };
        assert!(has_nfs(r#"["nfs"]"#) && !has_nfs(r#"["restful"]"#) && !has_nfs("[]"));
    }

    #[test]
    fn nfs_endpoints() {
        let endpoints = |service: &str| {
            let answer = format!(r#"{{"c":{service}}}"#);
            NfsClusterInfo::read(answer.as_bytes()).unwrap()["c"].endpoints()
        };
        let backend =
            r#"[{"ip":"fd00::1","port":12049},{"hostname":"a","ip":"192.0.2.1","port":2049},{"ip":null}]"#;
        assert_eq!(
            endpoints(&format!(r#"{{"virtual_ip":null,"backend":{backend}}}"#)),
            ["192.0.2.1", "[fd00::1]:12049"]
        );
        let virtual_ip =
            format!(r#"{{"virtual_ip":"192.0.2.9","port":2049,"monitor_port":9049,"backend":{backend}}}"#);
        assert_eq!(endpoints(&virtual_ip), ["192.0.2.9"]);
        assert!(endpoints(r#"{"virtual_ip":null,"backend":[]}"#).is_empty());
    }

    #[test]
    fn an_error_does_not_say_what_was_answered() {
        let error = MetadataLs::read(br#"{"key":["secret"]}"#).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
        assert!(AuthorizedList::read(b"").is_err());
    }
}
