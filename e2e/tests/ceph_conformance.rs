//! The conformance suite that every backend passes, played by the Ceph backend on a real Ceph.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use shoal_e2e::{
    lab::{CephOptions, Lab, LabOptions},
    storage,
};

/// What Ceph gives no hand for, and why; anything else that is skipped is a failure.
const NOT_PLAYED: [&str; 2] = [
    // Nobody but Ceph counts its writes.
    "writes",
    // Capabilities on a subvolume that is gone can't be seen.
    "leftovers",
];

#[test]
fn ceph_conforms() {
    let ceph = CephOptions {
        release: storage::release().unwrap(),
        ..CephOptions::default()
    };
    let lab = Lab::start(&LabOptions {
        ceph: Some(ceph),
        kubernetes: None,
        ..LabOptions::default()
    })
    .unwrap();
    let ceph = lab.ceph().unwrap();
    let program = ceph.path_inside(&example("conformance")).unwrap();
    let endpoints: Vec<String> = ceph.nfs_endpoints().iter().map(ToString::to_string).collect();
    let key_file = ceph.folder().join(format!("client.{}.key", ceph.user_id()));
    let output = ceph
        .beside(&[
            "env",
            &format!("SHOAL_CEPH_MON_HOST={}", ceph.mon_host()),
            &format!("SHOAL_CEPH_USER={}", ceph.user_id()),
            &format!("SHOAL_CEPH_KEY_FILE={}", key_file.display()),
            &format!("SHOAL_NFS_CLUSTER={}", ceph.nfs_cluster()),
            &format!("SHOAL_NFS_ENDPOINTS={}", endpoints.join(",")),
            &program.display().to_string(),
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "it ended with {}", output.status);
    assert!(text.contains("  passed  "), "nothing was played");
    let unexpected = text
        .lines()
        .filter(|line| line.contains("  skipped  ") && NOT_PLAYED.iter().all(|known| !line.contains(known)));
    assert_eq!(unexpected.collect::<Vec<_>>(), Vec::<&str>::new());
}

/// An example of the workspace: `cargo test` builds it beside this test.
fn example(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    this.parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples")
        .join(name)
}
