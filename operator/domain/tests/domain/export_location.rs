//! Where a share can be mounted.

use std::collections::BTreeSet;

use shoal_crds::{ExportLocation, Protocol};
use shoal_domain::export_location::{locations, mirror, revision};

use crate::fixtures::*;

fn nfs(endpoints: &[&str]) -> Vec<ExportLocation> {
    let mut backend = backend_description();
    backend.nfs_endpoints = endpoints.iter().map(|&e| e.to_owned()).collect();
    locations(&backend, Protocol::NFS, "/volumes/x", Some("/shoal-uid"))
}

fn paths(locations: &[ExportLocation]) -> Vec<&str> {
    locations.iter().map(|l| l.path.as_str()).collect()
}

#[test]
fn nfs_has_one_location_an_endpoint_and_brackets_bare_ipv6() {
    let found = nfs(&["10.9.0.7", "fd00::7", "[fd00::8]:2049", "nfs.example.org:2050"]);
    assert_eq!(
        paths(&found),
        [
            "10.9.0.7:/shoal-uid",
            "[fd00::7]:/shoal-uid",
            "[fd00::8]:2049:/shoal-uid",
            "nfs.example.org:2050:/shoal-uid"
        ]
    );
    assert_eq!(
        found.iter().map(|l| l.preferred).collect::<Vec<_>>(),
        [true, false, false, false]
    );
}

#[test]
fn native_cephfs_has_one_location_with_all_monitors() {
    let found = locations(&backend_description(), Protocol::CephFS, "/volumes/x", None);
    assert_eq!(paths(&found), ["10.9.0.1:6789,10.9.0.2:6789:/volumes/x"]);
    assert!(found[0].preferred);
    let metadata = &found[0].metadata;
    assert_eq!(
        (
            metadata.fs_name.as_str(),
            metadata.ceph_fsid.as_str(),
            metadata.subvolume_path.as_str()
        ),
        ("cephfs", "fsid-1", "/volumes/x")
    );
    let mut backend = backend_description();
    backend.monitors.clear();
    assert_eq!(locations(&backend, Protocol::CephFS, "/volumes/x", None), []);
}

#[test]
fn an_id_is_as_stable_as_its_path_and_never_there_twice() {
    let id = |found: &[ExportLocation], path: &str| found.iter().find(|l| l.path == path).unwrap().id.clone();
    let (one, other) = (nfs(&["a", "b"]), nfs(&["b", "c", "a"]));
    assert_eq!(id(&one, "a:/shoal-uid"), id(&other, "a:/shoal-uid"));
    let ids: BTreeSet<_> = other.iter().map(|l| &l.id).collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(paths(&nfs(&["a", "b", "a"])), ["a:/shoal-uid", "b:/shoal-uid"]);
    // It is what volumes that were made from it refer to: it must not change with a release.
    assert_eq!(id(&one, "a:/shoal-uid"), "bdd772e93453b930");
}

#[test]
fn the_revision_changes_whenever_a_location_does() {
    assert_eq!(revision(&nfs(&["a"])), revision(&nfs(&["a"])));
    assert_ne!(revision(&nfs(&["a"])), revision(&nfs(&["b"])));
    assert_ne!(revision(&nfs(&["a", "b"])), revision(&nfs(&["b", "a"])));
    assert_eq!(revision(&[]), None);
}

#[test]
fn annotations_mirror_the_preferred_location_and_all_of_them() {
    let found = nfs(&["10.9.0.7", "fd00::7"]);
    let annotations = mirror(&found);
    assert_eq!(
        annotations["shoal.storage/export-location"],
        "10.9.0.7:/shoal-uid"
    );
    assert_eq!(annotations["shoal.storage/protocol"], "NFS");
    assert_eq!(annotations["shoal.storage/fs-name"], "cephfs");
    assert_eq!(annotations["shoal.storage/mount-options"], "fs=cephfs");
    assert_eq!(
        annotations["shoal.storage/export-revision"],
        revision(&found).unwrap()
    );
    let all: Vec<ExportLocation> =
        serde_json::from_str(&annotations["shoal.storage/export-locations"]).unwrap();
    assert_eq!(all, found);
    assert!(mirror(&[]).is_empty());
}
