//! Access to a share by NFS clients: one export of the NFS cluster, written whole.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use shoal_backend::{Error, Result};
use shoal_crds::{AccessLevel, AccessType, Squash, removable_exports};
use shoal_domain::{
    Failure, Scope,
    grant::{Access, Applied, Client, Grant},
    identity::NfsExports,
    orphan::subvolume_of,
    owner::is_path_of_a_share,
    volume::Export,
};
use tokio::{sync::OwnedMutexGuard, time::timeout_at};

use crate::{
    commands::{
        MgrModuleLs, NfsClusterLs, NfsExport, NfsExportApply, NfsExportInfo, NfsExportLs, NfsExportRm,
        Versions,
    },
    connection::Call,
    errno::{ENOENT, EOPNOTSUPP, Fault},
    settings::{CephSettings, NfsService},
    subvolume::Data,
    work::Work,
};

/// An export as `nfs export info` says it.
pub(crate) type Document = Map<String, Value>;

/// The share's own export, if it is there, and the lock under which alone it is changed.
pub(crate) struct Locked {
    there: Option<Document>,
    _lock: OwnedMutexGuard<()>,
}

/// Sets everything that decides who may do what, and leaves the rest byte for byte: another id, path, file system or
/// user in it would restart the whole NFS service.
fn set_access(document: &mut Document, access: &Access) {
    // Whoever no client block names gets nothing. Left out, mgr/nfs would write RO.
    document.insert("access_type".into(), json!("none"));
    document.insert("squash".into(), json!("none"));
    document.insert("protocols".into(), json!([4]));
    document.insert("transports".into(), json!(["TCP"]));
    // Ganesha takes the first block that matches, so the order is the caller's.
    let clients = access.iter().filter_map(client_block).collect();
    document.insert("clients".into(), Value::Array(clients));
}

/// The block for a grant, so that blocks and grants are the same list; none for one that can't be put into an export.
fn client_block(grant: &Grant) -> Option<Value> {
    Some(json!({
        "addresses": addresses(&grant.client).ok()?,
        "access_type": match grant.level {
            AccessLevel::ReadWrite => "rw",
            AccessLevel::ReadOnly => "ro",
        },
        "squash": match grant.squash {
            Squash::None => "none",
            Squash::Root => "root",
            Squash::All => "all",
        },
    }))
}

const ALL_V4: [&str; 2] = ["0.0.0.0/1", "128.0.0.0/1"];
const ALL_V6: [&str; 2] = ["::/1", "8000::/1"];

/// A client in words that Ganesha understands (tried on 6.5 and 15.2). Those it does not understand are no harmless
/// mistake: mgr/nfs takes them, and Ganesha then drops the whole change and goes on with the access there was before.
fn addresses(client: &Client) -> Result<Vec<String>> {
    let net = match client {
        Client::Ip(net) => net,
        Client::CephX(_) => {
            return Err(Error::Refused(
                "a CephX client can't be let in to an NFS share".into(),
            ));
        }
    };
    match (net.prefix_len(), net.max_prefix_len()) {
        // It knows no network of prefix 0.
        (0, 32) => Ok(ALL_V4.map(str::to_owned).into()),
        (0, _) => Ok(ALL_V6.map(str::to_owned).into()),
        // It knows no IPv6 prefix of three digits.
        (100..=127, 128) => Err(Error::Refused(
            "NFS-Ganesha takes IPv6 networks with a prefix of at most 99; name a larger network, or addresses".into(),
        )),
        // An address goes without its prefix.
        _ => Ok(vec![client.to_string()]),
    }
}

/// The grant of a block as [`client_block`] makes it; none for any other.
fn grant(block: &Value) -> Option<Grant> {
    let addresses: Option<Vec<&str>> = block
        .get("addresses")?
        .as_array()?
        .iter()
        .map(Value::as_str)
        .collect();
    let network = match addresses?.as_slice() {
        [address] => *address,
        addresses if addresses == ALL_V4 => "0.0.0.0/0",
        addresses if addresses == ALL_V6 => "::/0",
        _ => return None,
    };
    let level = match block.get("access_type")?.as_str()? {
        "rw" => AccessLevel::ReadWrite,
        "ro" => AccessLevel::ReadOnly,
        _ => return None,
    };
    let squash = match block.get("squash")?.as_str()? {
        "none" => Squash::None,
        "root" => Squash::Root,
        "all" => Squash::All,
        _ => return None,
    };
    Some(Grant {
        client: Client::parse(AccessType::IP, network).ok()?,
        level,
        squash,
    })
}

fn new_document(pseudo_path: &str, fs_name: &str, path: &str, access: &Access) -> Document {
    let mut document = Document::new();
    document.insert("pseudo".into(), json!(pseudo_path));
    document.insert("path".into(), json!(path));
    document.insert("security_label".into(), json!(false));
    document.insert("fsal".into(), json!({"name": "CEPH", "fs_name": fs_name}));
    set_access(&mut document, access);
    document
}

/// Whom an export lets in, and whether it is otherwise as Shoal makes it.
fn access_of(document: &Document) -> (Access, bool) {
    let blocks = document
        .get("clients")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let access: Access = blocks.iter().filter_map(grant).collect();
    let mut ours = document.clone();
    set_access(&mut ours, &access);
    (access, ours == *document)
}

fn path_of(document: &Document) -> &str {
    document.get("path").and_then(Value::as_str).unwrap_or_default()
}

fn pseudo_of(document: &Document) -> &str {
    document.get("pseudo").and_then(Value::as_str).unwrap_or_default()
}

fn fs_of(document: &Document) -> Option<&str> {
    document.get("fsal")?.get("fs_name")?.as_str()
}

/// `file system:path`, for people.
fn holder_of(document: &Document) -> String {
    format!(
        "{}:{}",
        fs_of(document).unwrap_or("another kind of storage"),
        path_of(document)
    )
}

impl Work<'_> {
    fn nfs(&self) -> Result<&NfsService> {
        let nfs = self.settings.nfs.as_ref();
        nfs.ok_or_else(|| Error::Refused("the backend has no NFS cluster (spec.ceph.nfs)".into()))
    }

    /// An export is ours if and only if it exports our subvolume of our file system: today's, or one of the same name
    /// that was there before.
    fn is_ours(&self, document: &Document) -> bool {
        fs_of(document) == Some(self.fs_name()) && self.is_own_path(path_of(document))
    }

    /// The export at our pseudo path, whosever it is.
    pub(crate) async fn export_document(&self) -> Result<Option<Document>> {
        self.document_at(&self.nfs()?.cluster_id, &self.volume.pseudo_path)
            .await
    }

    async fn document_at(&self, cluster_id: &str, pseudo_path: &str) -> Result<Option<Document>> {
        let info = NfsExportInfo {
            cluster_id,
            pseudo_path,
        };
        let document = self.call.run(&info).await;
        document.map_err(|fault| no_cluster(fault, cluster_id))
    }

    /// The export at our pseudo path, if it is there; an error if it is another's.
    async fn own_export(&self) -> Result<Option<Document>> {
        match self.export_document().await? {
            Some(document) if !self.is_ours(&document) => {
                Err(Error::PathTaken(self.volume.pseudo_path.clone()))
            }
            document => Ok(document),
        }
    }

    /// The same, locked before it is looked at.
    pub(crate) async fn locked_export(&self) -> Result<Locked> {
        let lock = self.nfs_locked(&self.nfs()?.cluster_id).await?;
        Ok(Locked {
            there: self.own_export().await?,
            _lock: lock,
        })
    }

    async fn nfs_locked(&self, cluster_id: &str) -> Result<OwnedMutexGuard<()>> {
        let lock = self.connections.nfs_lock(&self.on.fsid, cluster_id);
        timeout_at(self.call.ends, lock.lock_owned())
            .await
            .map_err(|_| Error::Failed("other exports took all the time".into()))
    }

    /// What is exported to whom, for whoever looks.
    pub(crate) fn nfs_export(&self, document: Option<&Document>, data: Option<&Data>) -> Export {
        match document {
            None => Export::Absent,
            Some(document) if self.is_ours(document) => {
                let (access, intact) = access_of(document);
                let intact = intact && data.is_none_or(|data| path_of(document) == data.path);
                Export::Ours {
                    pseudo_path: Some(self.volume.pseudo_path.clone()),
                    access,
                    intact,
                }
            }
            Some(document) => Export::Taken(holder_of(document)),
        }
    }

    pub(crate) async fn export_nfs(
        &self,
        export: Locked,
        data: &Data,
        access: &Access,
    ) -> Result<Vec<Applied>> {
        let cluster_id = &self.nfs()?.cluster_id;
        let there = &export.there;
        let written = match there {
            Some(there) if path_of(there) == data.path => {
                self.let_in(cluster_id, there.clone(), access).await?
            }
            there => {
                let exports = exports_of(&self.call, cluster_id).await?;
                let mut others = exports.len();
                if there.is_some() {
                    // Of a subvolume of our name that was there before: nobody is served by it, and a change of path would
                    // restart the service.
                    self.remove_at(cluster_id, &exports, &self.volume.pseudo_path)
                        .await?;
                    others -= 1;
                }
                room_for_one_more(cluster_id, others)?;
                let new = new_document(&self.volume.pseudo_path, self.fs_name(), &data.path, access);
                self.apply(cluster_id, &new).await?
            }
        };
        Ok(outcomes(access, &written))
    }

    /// Lets exactly these clients in by an export that is there; what is there then.
    async fn let_in(&self, cluster_id: &str, there: Document, access: &Access) -> Result<Document> {
        let with_access = |mut document: Document| {
            set_access(&mut document, access);
            document
        };
        if with_access(there.clone()) == there {
            return Ok(there);
        }
        // First this and then access: Ganesha is not told of another user, and is of another access.
        let there = match up_to_date(&there) {
            Some(newer) if wants_cmount_path(&self.call).await? => self.apply(cluster_id, &newer).await?,
            _ => there,
        };
        self.apply(cluster_id, &with_access(there)).await
    }

    /// Writes an export; what is there then.
    async fn apply(&self, cluster_id: &str, wanted: &Document) -> Result<Document> {
        let apply = NfsExportApply {
            cluster_id,
            export: wanted,
        };
        let answer = match self.call.run(&apply).await {
            Err(Fault::Other(error)) => return Err(error),
            answer => answer,
        };
        // Whatever it said: what is there?
        match self.document_at(cluster_id, pseudo_of(wanted)).await? {
            Some(written) if holds(&written, wanted) => Ok(written),
            _ => Err(match answer {
                // Of the NFS cluster itself it has just been heard: what is missing is another thing, the path for one.
                Err(fault) => fault.into(),
                Ok(states) => {
                    let state = states.first().map_or("nothing", |applied| &applied.state);
                    Error::Failed(format!(
                        "'nfs export apply' said {state:?}, and the export is not as it was asked for"
                    ))
                }
            }),
        }
    }

    pub(crate) async fn unexport_nfs(&self, export: Locked) -> Result<()> {
        if export.there.is_some() {
            let cluster_id = &self.nfs()?.cluster_id;
            let exports = exports_of(&self.call, cluster_id).await?;
            self.remove_at(cluster_id, &exports, &self.volume.pseudo_path)
                .await?;
        }
        Ok(())
    }

    /// Ends every export that leads to our subvolume, whatever its path and on whichever NFS cluster, the backend's or not.
    pub(crate) async fn unexport_all(&self) -> Result<()> {
        for cluster_id in self.nfs_clusters().await? {
            let _lock = self.nfs_locked(&cluster_id).await?;
            let exports = match exports_of(&self.call, &cluster_id).await {
                // It went meanwhile, with all of its exports.
                Err(Error::NfsClusterNotFound(_)) => continue,
                exports => exports?,
            };
            let leads_here = |export: &&NfsExport| {
                export.fs_name() == Some(self.fs_name()) && self.is_own_path(&export.path)
            };
            for export in exports.iter().filter(leads_here) {
                self.remove_at(&cluster_id, &exports, &export.pseudo).await?;
            }
        }
        Ok(())
    }

    /// All NFS clusters of the storage cluster.
    async fn nfs_clusters(&self) -> Result<BTreeSet<String>> {
        let fault = match self.call.run(&NfsClusterLs {}).await {
            Ok(clusters) => return Ok(clusters.into_iter().collect()),
            Err(fault) => fault,
        };
        // Said where module nfs is off, and nothing is exported; and by a manager that has not loaded it yet.
        if fault.errno() == Some(EOPNOTSUPP) && !self.call.run(&MgrModuleLs {}).await?.has_nfs() {
            return Ok(BTreeSet::new());
        }
        Err(fault.into())
    }

    /// Ends one of the NFS cluster's exports, under the lock, and only one that was just seen to be ours. Where Ceph would lose
    /// others with it, or can't, nobody is let in by it, and it stays.
    async fn remove_at(&self, cluster_id: &str, exports: &[NfsExport], pseudo_path: &str) -> Result<()> {
        if let Err(why) = self.make_removable(cluster_id, exports, pseudo_path).await {
            if let Some(there) = self.document_at(cluster_id, pseudo_path).await? {
                self.let_in(cluster_id, there, &Access::new()).await?;
            }
            return Err(why);
        }
        let remove = NfsExportRm {
            cluster_id,
            pseudo_path,
        };
        let answer = match self.call.run(&remove).await {
            Err(Fault::Other(error)) => return Err(error),
            answer => answer,
        };
        // Whatever it said: what is there?
        if self.document_at(cluster_id, pseudo_path).await?.is_none() {
            return Ok(());
        }
        answer.map_err(|fault| no_cluster(fault, cluster_id))?;
        Err(Error::Failed(
            "'nfs export rm' said it was done, and the export is still there".into(),
        ))
    }

    /// Whether Ceph can remove an export and nothing else; what is Shoal's is brought to that.
    async fn make_removable(&self, cluster_id: &str, exports: &[NfsExport], pseudo_path: &str) -> Result<()> {
        let most = removable_exports(cluster_id);
        if exports.len() as u64 > most {
            return Err(Error::TooManyExports(format!(
                "NFS cluster '{cluster_id}' has more than {most} exports, and of so many Ceph's 'nfs export rm' loses some, so export \
                 {pseudo_path} stays; nobody is let in by it. Storage team: take exports out by hand (docs/operations/backends.md)"
            )));
        }
        // Ceph 20 counts exports before it removes one, and fails at one that lacks what it counts by, whosever that is.
        let outdated = outdated(&self.call, exports).await?;
        let (shoals, mut others): (Vec<_>, Vec<_>) = outdated
            .into_iter()
            .partition(|export| is_shoals(self.settings, export));
        for export in shoals {
            let there = self.document_at(cluster_id, &export.pseudo).await?;
            let Some(newer) = there.as_ref().and_then(up_to_date) else {
                continue;
            };
            match self.apply(cluster_id, &newer).await {
                Ok(_) => {}
                // It leads to what is gone, for one.
                Err(error) if error.scope() == Scope::Object => others.push(export),
                Err(error) => return Err(error),
            }
        }
        if others.is_empty() {
            return Ok(());
        }
        Err(Error::OutdatedExports(format!(
            "NFS cluster '{cluster_id}' has exports of an older Ceph that are not Shoal's or lead nowhere, {}, and this Ceph removes no export \
             while they are there, so export {pseudo_path} stays; nobody is let in by it. Storage team: bring them up to date by hand \
             (docs/operations/upgrading-ceph.md)",
            some_of(&others).join(", ")
        )))
    }
}

/// The same export as Ceph 20 writes it, if an older one wrote it: it wants to be told where its client mounts, and makes up the
/// client's user itself.
fn up_to_date(document: &Document) -> Option<Document> {
    let mut newer = document.clone();
    let fsal = newer.get_mut("fsal")?.as_object_mut()?;
    if !fsal.contains_key("fs_name") || fsal.contains_key("cmount_path") {
        return None;
    }
    fsal.remove("user_id");
    fsal.insert("cmount_path".into(), json!("/"));
    Some(newer)
}

async fn wants_cmount_path(call: &Call) -> Result<bool> {
    Ok(call.run(&Versions {}).await?.want_cmount_path())
}

/// Those that an older Ceph made, if this one trips over them.
async fn outdated<'a>(call: &Call, exports: &'a [NfsExport]) -> Result<Vec<&'a NfsExport>> {
    let of_18: Vec<_> = exports.iter().filter(|export| export.is_of_18()).collect();
    if of_18.is_empty() || wants_cmount_path(call).await? {
        return Ok(of_18);
    }
    Ok(Vec::new())
}

/// A message is no list.
fn some_of(exports: &[&NfsExport]) -> Vec<String> {
    let pseudo_paths = exports.iter().take(5).map(|export| export.pseudo.clone());
    pseudo_paths.collect()
}

/// An export more than Ceph can remove one of is not made.
fn room_for_one_more(cluster_id: &str, exports: usize) -> Result<()> {
    let most = removable_exports(cluster_id);
    if (exports as u64) < most {
        return Ok(());
    }
    Err(Error::TooManyExports(format!(
        "NFS cluster '{cluster_id}' has {most} exports or more, and of more Ceph loses some when one is removed; it gets another when there \
         are fewer. Storage team: a second NFS cluster, with a ShareBackend of its own"
    )))
}

/// All exports of an NFS cluster.
pub(crate) async fn exports_of(call: &Call, cluster_id: &str) -> Result<Vec<NfsExport>> {
    let list = NfsExportLs {
        cluster_id,
        detailed: true,
    };
    let exports = call.run(&list).await;
    exports.map_err(|fault| no_cluster(fault, cluster_id))
}

/// Whether an export leads to a share's data, of whichever ShareBackend, by where it leads.
fn is_shoals(settings: &CephSettings, export: &NfsExport) -> bool {
    is_path_of_a_share(&export.path) || subvolume_of(&settings.subvolume_group, &export.path).is_some()
}

/// What an NFS cluster exports, for whoever places shares there and looks after it.
pub(crate) async fn survey(settings: &CephSettings, call: &Call, cluster_id: &str) -> Result<NfsExports> {
    let exports = exports_of(call, cluster_id).await?;
    let is_others = |export: &&NfsExport| !is_shoals(settings, export);
    let mut outdated = outdated(call, &exports).await?;
    outdated.retain(is_others);
    Ok(NfsExports {
        all: exports.len() as u64,
        others: exports.iter().filter(is_others).count() as u64,
        outdated: some_of(&outdated),
    })
}

/// Module nfs says -2 of an unknown cluster alone: an unknown export is no error to it.
fn no_cluster(fault: Fault, cluster_id: &str) -> Error {
    match fault.errno() {
        Some(ENOENT) => Error::NfsClusterNotFound(cluster_id.to_owned()),
        _ => fault.into(),
    }
}

/// Whether an export is what was asked for. Ceph adds fields of its own (id, user, …) to one that is new.
fn holds(written: &Document, wanted: &Document) -> bool {
    wanted
        .iter()
        .all(|(key, value)| match (key.as_str(), written.get(key)) {
            ("fsal", Some(there)) => value
                .as_object()
                .is_some_and(|fsal| fsal.iter().all(|(key, value)| there.get(key) == Some(value))),
            (_, there) => there == Some(value),
        })
}

/// What came of each grant, by what is in the export.
fn outcomes(access: &Access, document: &Document) -> Vec<Applied> {
    let (in_force, _) = access_of(document);
    let outcome = |grant: &Grant| match addresses(&grant.client) {
        Err(error) => Err(error),
        Ok(_) if in_force.contains(grant) => Ok(None),
        Ok(_) => Err(Error::Failed("the client is not in the export".into())),
    };
    access
        .iter()
        .map(|grant| Applied {
            client: grant.client.clone(),
            outcome: outcome(grant).map_err(Failure::from),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::noise::like;

    const PATH: &str = "/volumes/shoal/shoal-x1/522c22a3-fdf9-4c5b-806c-cd3268dac2f8";

    fn ip(address: &str, level: AccessLevel, squash: Squash) -> Grant {
        Grant {
            client: Client::parse(AccessType::IP, address).unwrap(),
            level,
            squash,
        }
    }

    /// Those in the answers.
    fn grants() -> Access {
        vec![
            ip("10.0.0.5", AccessLevel::ReadWrite, Squash::Root),
            ip("0.0.0.0/0", AccessLevel::ReadOnly, Squash::None),
            ip("fd00::/64", AccessLevel::ReadOnly, Squash::All),
        ]
    }

    fn document(text: &str) -> Document {
        serde_json::from_str(text).unwrap()
    }

    const ANSWERS: [&str; 2] = [
        include_str!("../testdata/18.2.7/nfs-export-info.json"),
        include_str!("../testdata/20.2.4/nfs-export-info.json"),
    ];

    #[test]
    fn an_export_denies_by_default() {
        let document = new_document("/shoal-x1", "cephfs", PATH, &Access::new());
        let text = serde_json::to_value(&document).unwrap();
        assert_eq!(
            text,
            json!({
                "pseudo": "/shoal-x1",
                "path": PATH,
                "access_type": "none",
                "squash": "none",
                "security_label": false,
                "protocols": [4],
                "transports": ["TCP"],
                "fsal": {"name": "CEPH", "fs_name": "cephfs"},
                "clients": [],
            })
        );
    }

    #[test]
    fn clients_stand_as_given() {
        let document = new_document("/shoal-x1", "cephfs", PATH, &grants());
        assert_eq!(
            document["clients"],
            json!([
                {"addresses": ["10.0.0.5"], "access_type": "rw", "squash": "root"},
                {"addresses": ["0.0.0.0/1", "128.0.0.0/1"], "access_type": "ro", "squash": "none"},
                {"addresses": ["fd00::/64"], "access_type": "ro", "squash": "all"},
            ])
        );
        assert_eq!(access_of(&document), (grants(), true));
    }

    #[test]
    fn what_ceph_answers_is_what_was_written() {
        for answer in ANSWERS {
            let written = document(answer);
            assert_eq!(access_of(&written), (grants(), true));
            assert_eq!(fs_of(&written), Some("cephfs"));
            let wanted = new_document("/shoal-x1", "cephfs", path_of(&written), &grants());
            assert!(holds(&written, &wanted));
            assert!(
                outcomes(&grants(), &written)
                    .iter()
                    .all(|applied| applied.outcome == Ok(None))
            );
        }
    }

    #[test]
    fn what_ceph_18_wrote_is_brought_up_to_date() {
        let [of_18, of_20] = ANSWERS.map(document);
        assert_eq!(up_to_date(&of_20), None);
        let newer = up_to_date(&of_18).unwrap();
        assert_eq!(
            newer["fsal"],
            json!({"name": "CEPH", "fs_name": "cephfs", "cmount_path": "/"})
        );
        assert_eq!(access_of(&newer), (grants(), true), "and lets in whom it let in");
        let object = json!({"pseudo": "/bucket", "path": "bucket", "fsal": {"name": "RGW", "user_id": "u"}});
        assert_eq!(up_to_date(object.as_object().unwrap()), None);
    }

    #[test]
    fn an_update_keeps_everything_else_byte_for_byte() {
        for answer in ANSWERS {
            let mut before = document(answer);
            before.insert("sectype".into(), json!(["krb5p"]));
            let mut after = before.clone();
            set_access(
                &mut after,
                &vec![ip("10.0.0.9", AccessLevel::ReadOnly, Squash::None)],
            );
            for (key, value) in &before {
                if key != "clients" {
                    assert_eq!(
                        serde_json::to_string(&after[key]).unwrap(),
                        serde_json::to_string(value).unwrap(),
                        "{key}"
                    );
                }
            }
            assert_ne!(before["clients"], after["clients"]);
            assert_eq!(before.len(), after.len());
        }
    }

    #[test]
    fn what_was_altered_by_hand_is_not_intact() {
        let alter = |path: &str, value: Value| {
            let mut whole = Value::Object(document(ANSWERS[0]));
            *whole.pointer_mut(path).unwrap() = value;
            let Value::Object(altered) = whole else {
                unreachable!()
            };
            let (access, intact) = access_of(&altered);
            assert!(!intact, "{path}");
            // Writing the rules again repairs it.
            let mut repaired = altered.clone();
            set_access(&mut repaired, &grants());
            assert_eq!(access_of(&repaired), (grants(), true), "{path}");
            access.len()
        };
        assert_eq!(alter("/access_type", json!("RO")), 3);
        assert_eq!(alter("/squash", json!("no_root_squash")), 3);
        assert_eq!(alter("/protocols", json!([3, 4])), 3);
        assert_eq!(alter("/transports", json!(["TCP", "UDP"])), 3);
        assert_eq!(alter("/clients/0/addresses", json!(["10.0.0.5", "10.0.0.6"])), 2);
        assert_eq!(alter("/clients/0/addresses", json!(["*"])), 2);
        assert_eq!(alter("/clients/1/addresses", json!(["0.0.0.0/0"])), 3);
        assert_eq!(alter("/clients/0/addresses", json!(["10.0.0.5/32"])), 3);
        assert_eq!(alter("/clients/0/addresses", json!(["10.0.0.5/24"])), 2);
        assert_eq!(alter("/clients/0/access_type", json!("none")), 2);
        assert_eq!(alter("/clients/0/squash", Value::Null), 2);
    }

    #[test]
    fn only_words_that_ganesha_understands() {
        let words = |address: &str| addresses(&Client::parse(AccessType::IP, address).unwrap());
        for (address, expected) in [
            ("10.0.0.5/32", vec!["10.0.0.5"]),
            ("10.0.0.0/31", vec!["10.0.0.0/31"]),
            ("0.0.0.0/0", ALL_V4.to_vec()),
            ("fd00::1/128", vec!["fd00::1"]),
            ("fd00::/99", vec!["fd00::/99"]),
            ("::/0", ALL_V6.to_vec()),
        ] {
            assert_eq!(words(address).unwrap(), expected);
            let grant = ip(address, AccessLevel::ReadOnly, Squash::All);
            assert_eq!(super::grant(&client_block(&grant).unwrap()), Some(grant));
        }
        for prefix in 100..128 {
            assert!(words(&format!("fd00::/{prefix}")).is_err());
        }
    }

    #[test]
    fn a_client_that_is_not_in_the_export_is_told_so() {
        let mut access = grants();
        access.push(ip("10.9.9.9", AccessLevel::ReadWrite, Squash::None));
        access.push(Grant {
            client: Client::CephX("alice".into()),
            level: AccessLevel::ReadWrite,
            squash: Squash::None,
        });
        let outcomes = outcomes(&access, &document(ANSWERS[0]));
        assert_eq!(outcomes.len(), 5);
        assert!(outcomes[..3].iter().all(|applied| applied.outcome.is_ok()));
        assert!(outcomes[3..].iter().all(|applied| applied.outcome.is_err()));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever an export has become, writing the rules again makes it say them, and nothing else.
        #[test]
        fn any_export_can_be_repaired(answer in like(&ANSWERS.map(str::as_bytes))) {
            if let Ok(mut document) = serde_json::from_slice::<Document>(&answer) {
                access_of(&document);
                fs_of(&document);
                holder_of(&document);
                outcomes(&grants(), &document);
                set_access(&mut document, &grants());
                prop_assert_eq!(access_of(&document), (grants(), true));
            }
        }
    }
}
