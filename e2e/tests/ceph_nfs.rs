//! NFS shares on real Ceph, as real clients see them.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use shoal_crds::{Share, ShareAccessRule};
use shoal_e2e::{
    lab::client::{Failure, Owner},
    storage::{self, SIZE, Storage, conditions, expect_failure, fails_soon, ip_rule, soon, uid},
    suite::Suite,
    world::{condition, until},
};

static SUITE: Suite<Storage> = Suite::new();

const USER: Owner = Owner { uid: 1000, gid: 1000 };
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The whole life of a share on one file system: nobody, one client, levels, another client, nobody again.
async fn life(suite: &Storage, filesystem: &str) -> Result<()> {
    let ns = suite.world.namespace("nfs").await?;
    let share = suite
        .share(&ns, "life", "NFS", &format!("on-{filesystem}"))
        .await?;
    published(suite, &share, filesystem)?;
    ensure!(
        suite.quota(&share)? == Some(SIZE),
        "quota {:?}",
        suite.quota(&share)?
    );
    let ganeshas = |n: u8| suite.ceph().daemon(&format!("ganesha.{n}"))?.pid();
    let before = (ganeshas(0)?, ganeshas(1)?);
    let [one, two] = [address("127.90.0.1"), address("127.90.0.2")];
    for client in [one, two, V6] {
        suite
            .not_let_in(&share, client)
            .await
            .context("before the first rule")?;
    }

    suite
        .rule(&ns, "one", ip_rule("life", "127.90.0.1", "ReadWrite"))
        .await?;
    let mut client = suite.mount_soon(&share, one, Owner::ROOT).await?;
    soon("the end of the grace period", async || {
        client.write("/hello", b"from one")
    })
    .await?;
    ensure!(client.read("/hello")? == b"from one");
    suite.not_let_in(&share, two).await.context("between")?;
    suite.not_let_in(&share, V6).await.context("between")?;

    suite
        .rule(&ns, "two", ip_rule("life", "127.90.0.2", "ReadOnly"))
        .await?;
    suite
        .rule(&ns, "six", ip_rule("life", "::1", "ReadWrite"))
        .await?;
    let mut reader = suite.mount_soon(&share, two, Owner::ROOT).await?;
    ensure!(reader.read("/hello")? == b"from one");
    expect_failure("a reader's write", Failure::ReadOnly, reader.write("/no", b""))?;
    let mut six = suite.mount_soon(&share, V6, Owner::ROOT).await?;
    soon("the end of the grace period", async || {
        six.write("/six", b"from six")
    })
    .await?;
    ensure!(client.read("/six")? == b"from six");

    // Down, and up again: the client stays mounted, and no Ganesha is restarted.
    suite
        .rule(&ns, "one", ip_rule("life", "127.90.0.1", "ReadOnly"))
        .await?;
    fails_soon("a writer that has become a reader", &[Failure::ReadOnly], || {
        client.write("/no", b"")
    })
    .await?;
    ensure!(client.read("/hello")? == b"from one");
    suite
        .rule(&ns, "one", ip_rule("life", "127.90.0.1", "ReadWrite"))
        .await?;
    soon("to be a writer again", async || client.write("/hello", b"again")).await?;
    ensure!((ganeshas(0)?, ganeshas(1)?) == before, "a Ganesha was restarted");

    // One after the other goes; the last leaves nobody.
    suite.delete_rule(&ns, "one").await?;
    let refused = [Failure::NotFound, Failure::Denied, Failure::Other];
    fails_soon("a client whose rule is gone", &refused, || {
        client.write("/hello", b"too late")
    })
    .await?;
    suite.not_let_in(&share, one).await.context("after its rule")?;
    ensure!(reader.read("/hello")? == b"again", "the others are not hindered");
    suite.delete_rule(&ns, "two").await?;
    suite.delete_rule(&ns, "six").await?;
    fails_soon("an IPv6 client whose rule is gone", &refused, || {
        six.write("/six", b"too late")
    })
    .await?;
    for client in [one, two, V6] {
        suite
            .not_let_in(&share, client)
            .await
            .context("after the last rule")?;
    }
    ensure!(
        suite.export(&share)?.is_some_and(|e| e["clients"] == json!([])),
        "the export is kept, for nobody"
    );

    suite.delete_share(&ns, "life").await?;
    ensure!(suite.export(&share)?.is_none(), "the export is left");
    ensure!(suite.subvolume(&share)?.is_none(), "the subvolume is left");
    Ok(())
}

/// What status and annotations say agrees with each other and with the lab.
fn published(suite: &Storage, share: &Share, filesystem: &str) -> Result<()> {
    let status = share.status.as_ref().context("no status")?;
    let paths: Vec<&str> = status.export_locations.iter().map(|l| l.path.as_str()).collect();
    let wanted: Vec<String> = suite
        .ceph()
        .nfs_endpoints()
        .iter()
        .map(|e| format!("{e}:/shoal-{}", uid(share)))
        .collect();
    ensure!(paths == wanted, "{paths:?}, should be {wanted:?}");
    let [first, rest @ ..] = status.export_locations.as_slice() else {
        anyhow::bail!("no location")
    };
    ensure!(
        first.preferred && rest.iter().all(|l| !l.preferred),
        "the first is preferred"
    );
    ensure!(first.metadata.fs_name == filesystem && first.metadata.ceph_fsid == suite.ceph().fsid());
    let subvolume = suite.subvolume(share)?.context("no subvolume")?;
    ensure!(subvolume["path"] == json!(first.metadata.subvolume_path));
    let export = suite.export(share)?.context("no export")?;
    ensure!(
        export["path"] == subvolume["path"] && export["fsal"]["fs_name"] == json!(filesystem),
        "{export}"
    );
    let annotations = share.metadata.annotations.clone().unwrap_or_default();
    ensure!(
        annotations["shoal.storage/export-location"] == first.path,
        "{annotations:?}"
    );
    let all: Value = serde_json::from_str(&annotations["shoal.storage/export-locations"])?;
    ensure!(all == serde_json::to_value(&status.export_locations)?, "{all}");
    ensure!(annotations["shoal.storage/mount-options"] == format!("fs={filesystem}"));
    Ok(())
}

#[test]
fn a_share_on_the_first_file_system() {
    SUITE.run(Storage::start, async |suite| life(suite, "cephfs").await);
}

#[test]
fn a_share_on_the_second_file_system() {
    SUITE.run(Storage::start, async |suite| life(suite, "second").await);
}

#[test]
fn whoever_owns_the_root_writes() {
    SUITE.run(Storage::start, async |suite| {
        let ns = suite.world.namespace("team").await?;
        let share = suite.share(&ns, "team", "NFS", "team").await?;
        suite
            .rule(&ns, "all", ip_rule("team", "127.0.0.0/8", "ReadWrite"))
            .await?;
        let client = address("127.91.0.1");
        let mut user = suite.mount_soon(&share, client, USER).await?;
        soon("the end of the grace period", async || {
            user.write("/note", b"not root")
        })
        .await?;
        user.mkdir("/folder")?;
        let mut stranger = suite
            .mount(&share, client, Owner { uid: 4711, gid: 4711 })
            .await?;
        expect_failure("a stranger's write", Failure::Denied, stranger.write("/no", b""))?;
        // The group writes too.
        let mut mate = suite
            .mount(&share, client, Owner { uid: 4712, gid: 1000 })
            .await?;
        mate.write("/mate", b"of the group")?;
        ensure!(user.list("/")? == ["folder", "mate", "note"]);
        Ok(())
    });
}

#[test]
fn twenty_rules_and_the_most_specific_wins() {
    SUITE.run(Storage::start, async |suite| {
        let ns = suite.world.namespace("twenty").await?;
        let share = suite.share(&ns, "many", "NFS", "standard").await?;
        let mut rules: Vec<(String, &str)> = [
            ("127.0.0.0/8", "ReadOnly"),
            ("127.70.0.0/16", "ReadWrite"),
            ("127.70.1.0/24", "ReadOnly"),
            ("127.70.1.1", "ReadWrite"),
            ("127.71.0.0/16", "ReadOnly"),
            ("127.71.1.0/24", "ReadWrite"),
            ("127.71.1.1/32", "ReadOnly"),
            ("::/0", "ReadOnly"),
            ("::1", "ReadWrite"),
            ("fd00::/64", "ReadOnly"),
        ]
        .map(|(to, level)| (to.to_owned(), level))
        .into();
        rules.extend((0..10).map(|n| (format!("10.0.{n}.0/24"), "ReadWrite")));
        ensure!(rules.len() == 20);
        // In no order at all.
        for n in 0..20 {
            let (to, level) = &rules[n * 7 % 20];
            suite
                .world
                .rule(&ns, &format!("r{}", n * 7 % 20), ip_rule("many", to, level))
                .await?;
        }
        for n in 0..20 {
            suite.active(&ns, &format!("r{n}")).await?;
        }
        let all_in_force = |s: &Share| {
            s.status
                .as_ref()
                .and_then(|s| s.access)
                .is_some_and(|a| a.applied == 20 && a.total == 20)
        };
        until(&suite.world.api::<Share>(&ns), "many", "20 rules", all_in_force).await?;
        let export = suite.export(&share)?.context("no export")?;
        let clients = export["clients"].as_array().context("no clients")?;
        let lengths: Vec<u8> = clients
            .iter()
            .map(|c| {
                let text = c["addresses"][0].as_str().unwrap();
                let whole = if text.contains(':') { 128 } else { 32 };
                // Shares of the whole address, so that both families compare.
                let bits: u32 = text
                    .split_once('/')
                    .map_or(whole, |(_, bits)| bits.parse().unwrap());
                u8::try_from(bits * 100 / whole).unwrap()
            })
            .collect();
        ensure!(lengths.len() == 20, "{clients:?}");
        for family in [false, true] {
            let of_family: Vec<u8> = clients
                .iter()
                .zip(&lengths)
                .filter(|(c, _)| c["addresses"][0].as_str().unwrap().contains(':') == family)
                .map(|(_, length)| *length)
                .collect();
            ensure!(of_family.is_sorted_by(|a, b| a >= b), "{clients:?}");
        }

        let levels = [
            ("127.69.0.1", false),
            ("127.70.9.9", true),
            ("127.70.1.9", false),
            ("127.70.1.1", true),
            ("127.71.9.9", false),
            ("127.71.1.9", true),
            ("127.71.1.1", false),
            ("::1", true),
        ];
        for (from, may_write) in levels {
            let mut client = suite.mount_soon(&share, address(from), Owner::ROOT).await?;
            if may_write {
                soon("the end of the grace period", async || {
                    client.write("/mark", from.as_bytes())
                })
                .await
                .with_context(|| format!("{from} is a writer"))?;
            } else {
                expect_failure(from, Failure::ReadOnly, client.write("/no", b""))?;
            }
            ensure!(client.list("/")?.iter().all(|name| name == "mark"), "{from}");
        }
        // Without the widest only the narrower ones are let in.
        suite.delete_rule(&ns, "r0").await?;
        soon("the widest network to be out", async || {
            suite.not_let_in(&share, address("127.69.0.1")).await
        })
        .await?;
        let mut client = suite.mount(&share, address("127.70.1.9"), Owner::ROOT).await?;
        expect_failure("127.70.1.9", Failure::ReadOnly, client.write("/no", b""))?;
        Ok(())
    });
}

#[test]
fn squash() {
    SUITE.run(Storage::start, async |suite| {
        let ns = suite.world.namespace("squash").await?;
        suite
            .world
            .add_type("squashing", json!({"squash": "Root"}), false)
            .await?;
        let rule = |to: &str, squash: Option<&str>| {
            let mut rule = ip_rule("s", to, "ReadWrite");
            if let Some(squash) = squash {
                rule["squash"] = json!(squash);
            }
            rule
        };
        let share = suite.share(&ns, "s", "NFS", "squashing").await?;
        suite.rule(&ns, "default", rule("127.92.0.1", None)).await?;
        suite.rule(&ns, "none", rule("127.92.0.2", Some("None"))).await?;
        suite.rule(&ns, "all", rule("127.92.0.3", Some("All"))).await?;
        // The root is root's alone to write to: a squashed root is nobody there.
        let mut root = suite
            .mount_soon(&share, address("127.92.0.2"), Owner::ROOT)
            .await?;
        soon("the end of the grace period", async || {
            root.write("/note", b"root's")
        })
        .await?;
        for squashed in ["127.92.0.1", "127.92.0.3"] {
            let mut client = suite.mount_soon(&share, address(squashed), Owner::ROOT).await?;
            // libnfs makes files that only their owner may read.
            ensure!(client.list("/")? == ["note"]);
            expect_failure(squashed, Failure::Denied, client.write("/no", b""))?;
        }
        // In place.
        suite.rule(&ns, "none", rule("127.92.0.2", Some("Root"))).await?;
        fails_soon("a root that is squashed now", &[Failure::Denied], || {
            root.write("/note", b"no")
        })
        .await?;

        let team = suite.share(&ns, "t", "NFS", "team").await?;
        let mut all = rule("127.92.0.4", Some("All"));
        all["shareRef"]["name"] = json!("t");
        suite.rule(&ns, "team", all).await?;
        let mut user = suite.mount_soon(&team, address("127.92.0.4"), USER).await?;
        expect_failure("the owner, squashed", Failure::Denied, user.write("/no", b""))?;
        Ok(())
    });
}

#[test]
fn grows_and_shrinks_and_never_below_what_is_used() {
    SUITE.run(Storage::start, async |suite| {
        let ns = suite.world.namespace("size").await?;
        let share = suite.share(&ns, "size", "NFS", "standard").await?;
        let resize = async |bytes: u64| suite.ask_for_share(&ns, "size", "NFS", "standard", bytes).await;
        for bytes in [SIZE * 3 + 1, SIZE + 7, 5_000_000] {
            resize(bytes).await?;
            let now = suite.ready(&ns, "size").await?;
            ensure!(suite.quota(&share)? == Some(bytes), "{:?}", suite.quota(&share)?);
            ensure!(now.status.context("no status")?.size.map(shoal_crds::Size::bytes) == Some(bytes));
        }
        suite
            .rule(&ns, "one", ip_rule("size", "127.93.0.1", "ReadWrite"))
            .await?;
        let mut client = suite
            .mount_soon(&share, address("127.93.0.1"), Owner::ROOT)
            .await?;
        let data = vec![7; 3_000_000];
        soon("the end of the grace period", async || {
            client.write("/data", &data)
        })
        .await?;
        let used = soon("the bytes to be counted", async || {
            let used = suite.subvolume(&share)?.context("no subvolume")?["bytes_used"]
                .as_u64()
                .unwrap_or_default();
            ensure!(used >= 3_000_000);
            Ok(used)
        })
        .await?;
        resize(used - 1).await?;
        let refused = suite.until_share(&ns, "size", "False", "ShrinkBelowUsed").await?;
        ensure!(suite.quota(&share)? == Some(5_000_000), "the quota was touched");
        let ready = condition(conditions(&refused), "Provisioned");
        ensure!(ready.is_some_and(|(status, _)| status == "True"), "{ready:?}");
        ensure!(client.read("/data")?.len() == 3_000_000);
        // As soon as there is room, it shrinks by itself.
        client.remove("/data")?;
        suite.ready(&ns, "size").await?;
        ensure!(
            suite.quota(&share)? == Some(used - 1),
            "{:?}",
            suite.quota(&share)?
        );
        Ok(())
    });
}

#[test]
fn a_bad_rule_does_not_hinder_the_good_ones() {
    SUITE.run(Storage::start, async |suite| {
        let ns = suite.world.namespace("rules").await?;
        let share = suite.share(&ns, "s", "NFS", "standard").await?;
        suite.rule(&ns, "a-first", ip_rule("s", "127.94.0.1", "ReadOnly")).await?;
        suite.world.rule(&ns, "b-same", ip_rule("s", "127.94.0.1/32", "ReadWrite")).await?;
        suite.world.rule(&ns, "c-cephx", storage::cephx_rule("s", "alice", "ReadWrite")).await?;
        let by_secret = json!({
            "shareRef": {"name": "s"}, "accessType": "IP", "accessToSecretRef": {"name": "client", "key": "address"},
        });
        suite.world.rule(&ns, "d-secret", by_secret).await?;
        suite.rule(&ns, "e-last", ip_rule("s", "127.94.0.5", "ReadWrite")).await?;
        suite.refused(&ns, "b-same", "DuplicateRule").await?;
        suite.refused(&ns, "c-cephx", "AccessTypeNotSupported").await?;
        suite.refused(&ns, "d-secret", "SecretNotFound").await?;
        let mut client = suite.mount_soon(&share, address("127.94.0.1"), Owner::ROOT).await?;
        expect_failure("the older rule's level", Failure::ReadOnly, client.write("/no", b""))?;

        suite
            .world
            .apply(&json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"namespace": ns, "name": "client", "labels": {"shoal.storage/access": ""}},
                "stringData": {"address": "127.94.0.9"},
            }))
            .await?;
        suite.active(&ns, "d-secret").await?;
        let shown = suite.world.api::<ShareAccessRule>(&ns).get("d-secret").await?;
        ensure!(!serde_json::to_string(&shown)?.contains("127.94.0.9"), "the Secret's value is shown");
        suite.mount_soon(&share, address("127.94.0.9"), Owner::ROOT).await?;
        Ok(())
    });
}
