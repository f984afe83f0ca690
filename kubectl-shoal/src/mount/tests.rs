use serde_json::json;

use super::*;
use crate::{
    failure::Exit,
    fixtures::{self, RULE_UID, UID, condition, rule, rule_with},
};

const COMMAND: Wanted<'static> = Wanted {
    form: Form::Command,
    at: "/mnt",
    fuse: false,
};
const FSTAB: Wanted<'static> = Wanted {
    form: Form::Fstab,
    ..COMMAND
};
const YAML: Wanted<'static> = Wanted {
    form: Form::Yaml,
    ..COMMAND
};
const MONITORS: &str = "192.0.2.1:6789,192.0.2.2:6789:/volumes/shoal/x/y";

fn nfs_at(location: &str, wanted: &Wanted<'_>) -> String {
    text(&fixtures::share("NFS", location, |_| {}), None, wanted).unwrap()
}

fn cephfs(rule: &ShareAccessRule, wanted: &Wanted<'_>) -> String {
    cephfs_at(MONITORS, rule, wanted)
}

fn cephfs_at(location: &str, rule: &ShareAccessRule, wanted: &Wanted<'_>) -> String {
    text(&fixtures::share("CephFS", location, |_| {}), Some(rule), wanted).unwrap()
}

/// Without the comments in front of it.
fn last(text: &str) -> &str {
    text.trim_end().rsplit('\n').next().unwrap()
}

fn alice() -> ShareAccessRule {
    rule("trainer", &json!({"accessType": "CephX", "accessTo": "alice"}))
}

#[test]
fn nfs_commands_have_the_port_as_an_option() {
    for (location, line) in [
        (
            "192.0.2.11:/shoal-x",
            "mount -t nfs -o vers=4.1 192.0.2.11:/shoal-x /mnt",
        ),
        (
            "192.0.2.11:2049:/shoal-x",
            "mount -t nfs -o vers=4.1,port=2049 192.0.2.11:/shoal-x /mnt",
        ),
        (
            "nfs.example.org:/home",
            "mount -t nfs -o vers=4.1 nfs.example.org:/home /mnt",
        ),
        (
            "nfs.example.org:12049:/home",
            "mount -t nfs -o vers=4.1,port=12049 nfs.example.org:/home /mnt",
        ),
        ("[::1]:/shoal-x", "mount -t nfs -o vers=4.1 '[::1]:/shoal-x' /mnt"),
        (
            "[fd00::11]:43975:/shoal-x",
            "mount -t nfs -o vers=4.1,port=43975 '[fd00::11]:/shoal-x' /mnt",
        ),
    ] {
        assert_eq!(nfs_at(location, &COMMAND).trim_end(), line);
    }
}

#[test]
fn nfs_lines_of_fstab_wait_for_the_network() {
    for (location, line) in [
        (
            "192.0.2.11:/shoal-x",
            "192.0.2.11:/shoal-x /mnt nfs vers=4.1,_netdev 0 0\n",
        ),
        (
            "[fd00::11]:2049:/shoal-x",
            "[fd00::11]:/shoal-x /mnt nfs vers=4.1,port=2049,_netdev 0 0\n",
        ),
    ] {
        assert_eq!(nfs_at(location, &FSTAB), line);
    }
}

#[test]
fn who_may_only_read_mounts_so() {
    let rule = rule(
        "office",
        &json!({"accessTo": "10.0.0.0/24", "accessLevel": "ReadOnly"}),
    );
    let share = fixtures::nfs();
    let line = text(&share, Some(&rule), &COMMAND).unwrap();
    assert!(
        line.starts_with("mount -t nfs -o vers=4.1,ro 192.0.2.11:/"),
        "{line}"
    );
    let line = text(&share, Some(&rule), &FSTAB).unwrap();
    assert!(line.contains(" vers=4.1,ro,_netdev "), "{line}");
    let objects = text(&share, Some(&rule), &YAML).unwrap();
    assert!(
        objects.contains("ReadOnlyMany") && objects.contains("readOnly: true"),
        "{objects}"
    );
    let ceph = rule_with(
        "trainer",
        &json!({"accessType": "CephX", "accessTo": "alice", "accessLevel": "ReadOnly"}),
        &json!({"phase": "Active"}),
    );
    assert!(cephfs(&ceph, &COMMAND).contains(",fs=cephfs,ro "));
}

#[test]
fn a_path_with_a_space_is_one_word() {
    let at = |form| Wanted {
        form,
        at: "/srv/my files",
        fuse: false,
    };
    assert!(nfs_at("h:/x", &at(Form::Command)).ends_with(" '/srv/my files'\n"));
    assert_eq!(
        nfs_at("h:/x", &at(Form::Fstab)),
        "h:/x /srv/my\\040files nfs vers=4.1,_netdev 0 0\n"
    );
    assert_eq!(quoted("it's"), r"'it'\''s'");
    assert_eq!(quoted(""), "''");
}

#[test]
fn the_kernel_mounts_cephfs_by_name_file_and_file_system() {
    assert_eq!(
        last(&cephfs(&alice(), &COMMAND)),
        "mount -t ceph -o name=alice,secretfile=/etc/ceph/alice.secret,fs=cephfs \
         192.0.2.1:6789,192.0.2.2:6789:/volumes/shoal/x/y /mnt"
    );
    assert_eq!(
        last(&cephfs(&alice(), &FSTAB)),
        "192.0.2.1:6789,192.0.2.2:6789:/volumes/shoal/x/y /mnt ceph name=alice,secretfile=/etc/ceph/alice.secret,fs=cephfs,_netdev 0 0"
    );
}

#[test]
fn monitors_of_the_newer_protocol_are_told_to_the_kernel() {
    for (monitors, told) in [
        ("192.0.2.1:3300", true),
        ("[fd00::1]:3300,[fd00::2]:3300", true),
        ("[fd00::3300]:6789", false),
    ] {
        let line = cephfs_at(&format!("{monitors}:/volumes/x"), &alice(), &COMMAND);
        assert_eq!(line.contains("ms_mode=prefer-crc"), told, "{line}");
    }
    let line = cephfs_at("[fd00::1]:3300,[fd00::2]:3300:/volumes/x", &alice(), &COMMAND);
    assert!(
        last(&line).ends_with(" '[fd00::1]:3300,[fd00::2]:3300:/volumes/x' /mnt"),
        "{line}"
    );
}

#[test]
fn ceph_fuse_takes_a_keyring() {
    let fuse = |form| Wanted {
        form,
        at: "/mnt",
        fuse: true,
    };
    let line = cephfs(&alice(), &fuse(Form::Command));
    assert_eq!(
        last(&line),
        "ceph-fuse -m 192.0.2.1:6789,192.0.2.2:6789 --id alice --keyring /etc/ceph/ceph.client.alice.keyring --client_fs cephfs \
         -r /volumes/shoal/x/y /mnt"
    );
    assert!(line.contains("{.data.keyring}"), "{line}");
    assert_eq!(
        last(&cephfs(&alice(), &fuse(Form::Fstab))),
        "none /mnt fuse.ceph ceph.id=alice,ceph.mon_host=192.0.2.1:6789;192.0.2.2:6789,ceph.client_fs=cephfs,\
         ceph.client_mountpoint=/volumes/shoal/x/y,_netdev 0 0"
    );
    let refused = text(&fixtures::nfs(), None, &fuse(Form::Command)).unwrap_err();
    assert!(refused.message.contains("--fuse"), "{}", refused.message);
}

#[test]
fn the_key_goes_from_its_secret_into_a_file_and_nowhere_else() {
    let status = json!({"phase": "Active", "credentialsSecretRef": {"name": "trainer-key"}});
    let rule = rule_with(
        "trainer",
        &json!({"accessType": "CephX", "accessTo": "alice"}),
        &status,
    );
    let line = cephfs(&rule, &COMMAND);
    assert!(
        line.contains(
            "# (umask 077; kubectl get secret trainer-key -n team-a -o jsonpath='{.data.userKey}' | base64 -d > /etc/ceph/alice.secret)\n"
        ),
        "{line}"
    );
    assert!(
        line.lines().rev().skip(1).all(|line| line.starts_with('#')),
        "{line}"
    );
}

#[test]
fn a_hidden_key_is_got_where_it_is_kept() {
    let status = json!({
        "phase": "Active", "identity": "shoal-l", "hiddenBy": {"name": "hide", "uid": "l"},
        "credentialsSecretRef": {"name": "shoal-l", "namespace": "shoal-system"},
    });
    let rule = rule_with("trainer", &json!({"accessType": "CephX"}), &status);
    let line = cephfs(&rule, &COMMAND);
    assert!(
        line.contains("kubectl get secret shoal-l -n shoal-system "),
        "{line}"
    );
    assert!(last(&line).contains("name=shoal-l,"), "{line}");
}

#[test]
fn an_identity_that_was_made_is_known_by_the_rules_uid() {
    let rule = rule("trainer", &json!({"accessType": "CephX"}));
    let line = cephfs(&rule, &COMMAND);
    assert!(last(&line).contains(&format!("name=shoal-{RULE_UID},")), "{line}");
    assert!(line.contains("get secret trainer-cephx "), "{line}");
}

#[test]
fn an_identity_from_a_secret_is_not_told() {
    let rule = rule(
        "trainer",
        &json!({"accessType": "CephX", "accessToSecretRef": {"name": "who", "key": "user.id"}}),
    );
    let line = cephfs(&rule, &COMMAND);
    assert!(last(&line).contains("name=IDENTITY,"), "{line}");
    assert!(
        line.contains(r"get secret who -n team-a -o jsonpath='{.data.user\.id}'"),
        "{line}"
    );
}

#[test]
fn a_volume_for_pods_is_the_shares_alone() {
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(&nfs_at("[fd00::11]:2049:/shoal-x", &YAML)).unwrap();
    let (volume, claim) = (&objects[0], &objects[1]);
    assert_eq!(
        volume["spec"]["nfs"],
        json!({"server": "fd00::11", "path": "/shoal-x", "readOnly": false})
    );
    assert_eq!(volume["spec"]["mountOptions"], json!(["vers=4.1", "port=2049"]));
    assert_eq!(
        volume["spec"]["claimRef"],
        json!({"namespace": "team-a", "name": "documents"})
    );
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(claim["spec"]["volumeName"], format!("shoal-{UID}"));
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "1Gi");
}

#[test]
fn ceph_csi_gets_the_path_and_the_secret() {
    let text = cephfs(&alice(), &YAML);
    assert!(text.starts_with("# For ceph-csi."), "{text}");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let csi = &objects[0]["spec"]["csi"];
    assert_eq!(csi["driver"], "cephfs.csi.ceph.com");
    assert_eq!(
        csi["nodeStageSecretRef"],
        json!({"name": "trainer-cephx", "namespace": "team-a"})
    );
    assert_eq!(csi["volumeAttributes"]["rootPath"], "/volumes/shoal/x/y");
    assert_eq!(csi["volumeAttributes"]["staticVolume"], "true");
}

#[test]
fn a_share_that_is_nowhere_says_why() {
    let share = fixtures::share("NFS", "x:/y", |share| {
        share["status"]["exportLocations"] = json!([]);
        share["status"]["conditions"] =
            json!([condition("Ready", "False", "NoBackendFits", "cephfs: no room")]);
    });
    let refused = text(&share, None, &COMMAND).unwrap_err();
    assert_eq!(refused.exit, Exit::Refused);
    assert_eq!(
        refused.message,
        "Share 'documents' can't be mounted yet: NoBackendFits: cephfs: no room"
    );
}

#[test]
fn the_preferred_location_is_taken() {
    let share = fixtures::share("NFS", "first:/x", |share| {
        let locations = &mut share["status"]["exportLocations"];
        locations[0]["preferred"] = json!(false);
        let mut second = locations[0].clone();
        second["id"] = json!("2");
        second["path"] = json!("second:/x");
        second["preferred"] = json!(true);
        locations.as_array_mut().unwrap().push(second);
    });
    assert!(text(&share, None, &COMMAND).unwrap().contains(" second:/x "));
}

#[test]
fn a_location_that_is_none_is_said() {
    let failure = text(&fixtures::share("NFS", "nowhere", |_| {}), None, &COMMAND).unwrap_err();
    assert_eq!(failure.exit, Exit::Error);
    assert!(failure.message.contains("'nowhere'"), "{}", failure.message);
}

#[test]
fn a_client_is_found_by_its_rule_or_by_itself() {
    let rules = [
        rule("office", &json!({"accessTo": "10.0.0.0/24"})),
        rule("trainer", &json!({"accessType": "CephX", "accessTo": "alice"})),
        rule("made", &json!({"accessType": "CephX"})),
    ];
    let found = |client: &str| choose("documents", &rules, Some(client)).map(|rule| rule.unwrap().name_any());
    assert_eq!(found("office").unwrap(), "office");
    assert_eq!(found("10.0.0.0/24").unwrap(), "office");
    assert_eq!(found("alice").unwrap(), "trainer");
    assert_eq!(found(&format!("shoal-{RULE_UID}")).unwrap(), "made");
    let missing = found("bob").unwrap_err();
    assert_eq!(missing.exit, Exit::NotFound);
    assert!(
        missing.message.ends_with("its rules: office, trainer, made"),
        "{}",
        missing.message
    );
}

#[test]
fn without_a_client_a_rule_in_force_is_taken() {
    let queued = rule_with(
        "a",
        &json!({"accessTo": "10.0.0.1"}),
        &json!({"phase": "QueuedToApply"}),
    );
    let rules = [
        queued,
        rule("c", &json!({"accessTo": "10.0.0.3"})),
        rule("b", &json!({"accessTo": "10.0.0.2"})),
    ];
    assert_eq!(
        choose("documents", &rules, None).unwrap().unwrap().name_any(),
        "b"
    );
    assert!(choose("documents", &rules[..1], None).unwrap().is_none());
}

#[test]
fn it_says_when_nobody_is_let_in() {
    let share = fixtures::nfs();
    let active = rule("office", &json!({"accessTo": "10.0.0.1"}));
    let failed = rule_with(
        "home",
        &json!({"accessTo": "10.0.0.1"}),
        &json!({"phase": "Error", "conditions": [condition("Ready", "False", "DuplicateRule", "'office' is older")]}),
    );
    assert_eq!(
        not_yet(&share, Some(&active), std::slice::from_ref(&active)),
        None
    );
    let says =
        |rule: Option<&ShareAccessRule>, rules: &[ShareAccessRule]| not_yet(&share, rule, rules).unwrap();
    assert!(says(None, &[]).contains("access allow documents"));
    assert!(says(None, std::slice::from_ref(&failed)).contains("access list documents"));
    assert_eq!(
        says(Some(&failed), std::slice::from_ref(&failed)),
        "the rule 'home' is not in force: DuplicateRule: 'office' is older"
    );
    let refused = text(&fixtures::share("CephFS", MONITORS, |_| {}), None, &COMMAND).unwrap_err();
    assert_eq!(refused.exit, Exit::Refused);
}
