//! Where a share can be mounted, as clients and CSI plugins read it.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use shoal_crds::{
    ExportLocation, ExportLocationMetadata, Protocol, UserMetadata,
    names::{EXPORT_LOCATION_KEYS, annotations},
};

use crate::identity::Description;

/// The locations of a share on this backend, the preferred one first. None if the backend does not say where it is
/// reached.
pub fn locations(
    backend: &Description,
    protocol: Protocol,
    subvolume_path: &str,
    pseudo_path: Option<&str>,
) -> Vec<ExportLocation> {
    let paths: Vec<String> = match protocol {
        Protocol::NFS => {
            let path = pseudo_path.unwrap_or_default();
            let mut paths = Vec::new();
            for endpoint in &backend.nfs_endpoints {
                let location = format!("{}:{path}", host(endpoint));
                // The id is the list's key: the API server refuses a repeated one.
                if !paths.contains(&location) {
                    paths.push(location);
                }
            }
            paths
        }
        // One location names all monitors: a client tries them in turn (Manila's form).
        Protocol::CephFS if backend.monitors.is_empty() => Vec::new(),
        Protocol::CephFS => vec![format!("{}:{subvolume_path}", backend.monitors.join(","))],
    };
    paths
        .into_iter()
        .enumerate()
        .map(|(i, path)| ExportLocation {
            id: short_hash(&path),
            path,
            protocol,
            preferred: i == 0,
            metadata: ExportLocationMetadata {
                fs_name: backend.identity.fs_name.clone(),
                ceph_fsid: backend.identity.fsid.clone(),
                subvolume_path: subvolume_path.to_owned(),
                of_users: BTreeMap::new(),
            },
        })
        .collect()
}

/// The same with what users say of them.
pub fn with_users_metadata(mut locations: Vec<ExportLocation>, said: &[UserMetadata]) -> Vec<ExportLocation> {
    for location in &mut locations {
        if let Some(of_it) = said.iter().find(|said| said.id == location.id) {
            let of_users = of_it.metadata.clone().into_iter();
            location.metadata.of_users = of_users
                .filter(|(key, _)| !EXPORT_LOCATION_KEYS.contains(&key.as_str()))
                .collect();
        }
    }
    locations
}

/// An endpoint as it stands before the colon of `host:path`; a bare IPv6 address gets brackets, since clients split at
/// the last colon.
fn host(endpoint: &str) -> String {
    if endpoint.parse::<std::net::Ipv6Addr>().is_ok() {
        format!("[{endpoint}]")
    } else {
        endpoint.to_owned()
    }
}

/// Changes whenever a location does.
pub fn revision(locations: &[ExportLocation]) -> Option<String> {
    (!locations.is_empty()).then(|| short_hash(&serde_json::to_string(locations).unwrap_or_default()))
}

/// The most that is put into an annotation: all annotations of an object may have 256 KiB, and the users' own are among them.
const MOST_IN_ANNOTATION: usize = 64 << 10;

/// The locations as an annotation; without what users say of them if that is too much.
fn as_text(locations: &[ExportLocation]) -> String {
    let text = serde_json::to_string(locations).unwrap_or_default();
    if text.len() <= MOST_IN_ANNOTATION {
        return text;
    }
    let mut bare = locations.to_vec();
    for location in &mut bare {
        location.metadata.of_users.clear();
    }
    serde_json::to_string(&bare).unwrap_or_default()
}

/// The annotations that mirror the locations.
pub fn mirror(locations: &[ExportLocation]) -> BTreeMap<String, String> {
    let Some(preferred) = locations.iter().find(|l| l.preferred) else {
        return BTreeMap::new();
    };
    let fs_name = &preferred.metadata.fs_name;
    BTreeMap::from(
        [
            (annotations::EXPORT_LOCATION, preferred.path.clone()),
            (annotations::EXPORT_LOCATIONS, as_text(locations)),
            (annotations::PROTOCOL, preferred.protocol.as_str().into()),
            (annotations::FS_NAME, fs_name.clone()),
            (annotations::MOUNT_OPTIONS, format!("fs={fs_name}")),
            (
                annotations::EXPORT_REVISION,
                revision(locations).unwrap_or_default(),
            ),
        ]
        .map(|(key, value)| (key.to_owned(), value)),
    )
}

/// A text in 16 hexadecimal digits.
pub(crate) fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes())[..8]
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
