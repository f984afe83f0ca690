//! Whatever Ceph answers is understood or refused. What can be asked of an answer that was understood never panics.
//!
//! What bounds it: librados's buffers are copied up to a length (`rados.rs`), each command's answer is read up to a
//! length of its own ([`Request::LONGEST`]), and JSON that nests deeper than 128 is refused by its parser.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::select};
use serde_json::Value;
use shoal_domain::owner::Owner;

use crate::{
    commands::{
        Authorize, AuthorizedList, Df, FsGet, MetadataLs, MonDump, NfsClusterInfo, NfsClusterLs,
        NfsExportApply, NfsExportInfo, SessionLs, SubvolumeInfo, SubvolumeLs, Version, VolumeLs,
    },
    connection::Request,
    noise::like,
};

/// What Ceph answered to a command, and the little that is read of it, so that a change often hits that.
macro_rules! samples {
    ($file:literal, $read:literal) => {
        &[
            include_bytes!(concat!("../testdata/18.2.7/", $file)).as_slice(),
            include_bytes!(concat!("../testdata/20.2.4/", $file)).as_slice(),
            $read.as_bytes(),
            $read.as_bytes(),
        ]
    };
}

const NFS_CLUSTERS: &[&[u8]] = &[
    br#"{"c":{"virtual_ip":"192.0.2.9","port":2049,"backend":[]}}"#,
    br#"{"c":{"backend":[{"ip":"fd00::1","port":12049}]}}"#,
];

/// `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(1000),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// The answer, if it is understood. A refusal is short, and does not repeat what was answered.
fn read<R: Request>(output: &[u8]) -> Result<Option<R::Reply>, TestCaseError> {
    match R::read(output) {
        Ok(reply) => Ok(Some(reply)),
        Err(why) => {
            let words = ["not JSON", "unexpected JSON", "no key"];
            prop_assert!(
                words.iter().any(|word| why.starts_with(word)) && why.len() < 64,
                "{why}"
            );
            Ok(None)
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn of_monitors(
        version in like(samples!("version.json", r#"{"version":"ceph version 18.2.7"}"#)), monitors in like(samples!("mon-dump.json", r#"{"mons":[{"public_addrs":{"addrvec":[{"type":"v1","addr":"192.0.2.1:6789"}]}}]}"#)),
        fs in like(samples!("fs-get.json", r#"{"id":1,"mdsmap":{"in":[0],"info":{"gid_1":{"gid":1,"rank":0,"state":"up:active"}},"data_pools":[2]}}"#)), df in like(samples!("df.json", r#"{"pools":[{"name":"a","id":2,"stats":{"stored":1,"max_avail":1}}]}"#)),
        pool in proptest::option::of(any::<i64>()), name in proptest::option::of(any::<String>()),
    ) {
        if let Some(version) = read::<Version>(&version)? {
            version.number();
        }
        if let Some(monitors) = read::<MonDump>(&monitors)? {
            monitors.addresses();
        }
        if let Some(fs) = read::<FsGet>(&fs)? {
            drop(fs.metadata_servers());
            fs.data_pool();
        }
        if let Some(df) = read::<Df>(&df)? {
            for pool in [pool, Some(2)] {
                let room = df.room(name.as_deref(), pool).or_else(|| df.room(None, pool));
                prop_assert!(room.is_none_or(|(total, free)| total >= free));
            }
        }
    }

    #[test]
    fn of_module_volumes(
        info in like(samples!("fs-subvolume-info.json", r#"{"path":"/a","bytes_quota":1,"bytes_used":1}"#)), metadata in like(samples!("fs-subvolume-metadata-ls.json", r#"{"shoal.storage/evict":"[]"}"#)),
        authorized in like(samples!("fs-subvolume-authorized-list.json", r#"[{"alice":"rw"}]"#)), key in any::<Vec<u8>>(),
        names in like(&[br#"[{"name":"shoal-a"},{"name":"shoal-b"}]"#]),
    ) {
        if let Some(info) = read::<SubvolumeInfo>(&info)? {
            info.quota();
        }
        if let Some(metadata) = read::<MetadataLs>(&metadata)? {
            for text in metadata.values() {
                drop(serde_json::from_str::<Owner>(text));
                drop(serde_json::from_str::<BTreeSet<String>>(text));
            }
        }
        read::<AuthorizedList>(&authorized)?;
        read::<SubvolumeLs>(&names)?;
        read::<VolumeLs>(&names)?;
        if let Some(key) = read::<Authorize>(&key)? {
            prop_assert!(!key.reveal().is_empty());
        }
    }

    #[test]
    fn of_metadata_servers(sessions in like(samples!("session-ls.json", r#"[{"id":1,"client_metadata":{"root":"/volumes/shoal"}}]"#)), path in select(vec!["", "/", "/volumes/shoal", "ä"])) {
        for session in read::<SessionLs>(&sessions)?.into_iter().flatten() {
            session.is_within(path);
        }
    }

    #[test]
    fn of_module_nfs(
        clusters in like(samples!("nfs-cluster-ls.json", r#"["a"]"#)), services in like(NFS_CLUSTERS),
        applied in like(samples!("nfs-export-apply.json", r#"[{"state":"added"}]"#)), export in like(samples!("nfs-export-info.json", r#"{"pseudo":"/a"}"#)),
    ) {
        read::<NfsClusterLs>(&clusters)?;
        for service in read::<NfsClusterInfo>(&services)?.into_iter().flat_map(BTreeMap::into_values) {
            service.endpoints();
        }
        read::<NfsExportApply>(&applied)?;
        read::<NfsExportInfo>(&export)?;
    }
}

/// Nested so deep, and nothing else.
fn nested(deep: usize) -> Vec<u8> {
    [b"[".repeat(deep), b"]".repeat(deep)].concat()
}

#[test]
fn what_nests_deep_is_refused() {
    for deep in [100, 200, 1_000_000] {
        let answer = [
            br#"{"path":"/a","bytes_used":1,"bytes_quota":"#.as_slice(),
            &nested(deep),
            b"}",
        ]
        .concat();
        assert_eq!(SubvolumeInfo::read(&answer).is_ok(), deep == 100, "{deep}");
        let export = [br#"{"a":"#.as_slice(), &nested(deep), b"}"].concat();
        assert_eq!(NfsExportInfo::read(&export).is_ok(), deep == 100, "{deep}");
        assert!(SubvolumeLs::read(&nested(deep)).is_err());
    }
    // Skipped, not built.
    assert!(VolumeLs::read(&nested(1_000_000)).is_ok());
}

#[test]
fn a_quota_that_is_no_number_is_none() {
    for quota in ["\"infinite\"", "-1", "1e999", "1.5", "null", "[]"] {
        let answer = format!(r#"{{"bytes_used":1,"bytes_quota":{quota}}}"#);
        let quota = SubvolumeInfo::read(answer.as_bytes())
            .ok()
            .and_then(|info| info.quota());
        assert_eq!(quota, None);
    }
    let most = Value::from(u64::MAX);
    let answer = format!(r#"{{"bytes_used":{most},"bytes_quota":{most}}}"#);
    assert_eq!(
        SubvolumeInfo::read(answer.as_bytes()).unwrap().quota(),
        Some(u64::MAX)
    );
}
