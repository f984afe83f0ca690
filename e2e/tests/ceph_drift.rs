//! What was altered behind Shoal's back is noticed at the next look, and repaired; data that is gone is reported.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use shoal_crds::Share;
use shoal_domain::owner::pseudo_path;
use shoal_e2e::{
    lab::client::{Failure, Owner},
    storage::{SIZE, Storage, at, cephx_rule, conditions, expect_failure, fails_soon, ip_rule, soon, uid},
    suite::Suite,
    world::condition,
};

static SUITE: Suite<Storage> = Suite::new();

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn remove_export(suite: &Storage, share: &Share) -> Result<()> {
    let cluster_id = suite.ceph().nfs_cluster();
    let path = pseudo_path(&uid(share));
    suite
        .admin
        .mgr(json!({"prefix": "nfs export rm", "cluster_id": cluster_id, "pseudo_path": path}))
        .map(drop)
}

fn of(share: &Share, prefix: &str, more: &Value) -> Value {
    let mut command = at(share, prefix);
    for (key, value) in more.as_object().into_iter().flatten() {
        command[key] = value.clone();
    }
    command
}

#[test]
fn exports() {
    SUITE.run(Storage::start, async |suite| {
        let ns = suite.world.namespace("exports").await?;
        let share = suite.share(&ns, "s", "NFS", "standard").await?;
        let [listed, unlisted] = [address("127.95.0.1"), address("127.95.0.2")];
        suite
            .rule(&ns, "one", ip_rule("s", "127.95.0.1", "ReadWrite"))
            .await?;
        let mut client = suite.mount_soon(&share, listed, Owner::ROOT).await?;
        soon("the end of the grace period", async || {
            client.write("/kept", b"data")
        })
        .await?;
        let good = suite.export(&share)?.context("no export")?;

        // An export that was removed is made again.
        remove_export(suite, &share)?;
        let mut again = suite.mount_soon(&share, listed, Owner::ROOT).await?;
        ensure!(again.list("/")? == ["kept"]);

        // Edits by hand: a client let in, everybody let in, a client's level, the squash, another order, the protocols.
        let edits = [
            (
                "/clients/-",
                json!({"addresses": ["0.0.0.0/0"], "access_type": "rw", "squash": "none"}),
            ),
            ("/access_type", json!("RW")),
            ("/clients/0/access_type", json!("ro")),
            ("/clients/0/addresses", json!(["127.95.0.1", "127.95.0.2"])),
            ("/squash", json!("all")),
            ("/clients/0/squash", json!("all")),
            ("/protocols", json!([3, 4])),
            ("/clients", json!([])),
        ];
        for (place, value) in edits {
            let mut edited = suite.export(&share)?.context("no export")?;
            match place.strip_suffix("/-") {
                Some(list) => edited
                    .pointer_mut(list)
                    .unwrap()
                    .as_array_mut()
                    .unwrap()
                    .push(value),
                None => *edited.pointer_mut(place).with_context(|| format!("no {place}"))? = value,
            }
            suite.apply_export(&edited).with_context(|| place.to_string())?;
            soon(&format!("{place} to be repaired"), async || {
                let now = suite.export(&share)?.context("no export")?;
                ensure!(
                    now["clients"] == good["clients"] && now["access_type"] == "none",
                    "{now}"
                );
                ensure!(
                    now["squash"] == good["squash"] && now["protocols"] == good["protocols"],
                    "{now}"
                );
                Ok(())
            })
            .await?;
            soon("the unlisted client to be out", async || {
                suite.not_let_in(&share, unlisted).await
            })
            .await?;
        }
        let mut client = suite.mount_soon(&share, listed, Owner::ROOT).await?;
        soon("to write", async || client.write("/after", b"all that")).await?;
        suite.ready(&ns, "s").await?;
        Ok(())
    });
}

#[test]
fn identities() {
    SUITE.run(Storage::start, async |suite| {
        let ns = suite.world.namespace("identities").await?;
        let share = suite.share(&ns, "s", "CephFS", "standard").await?;
        suite
            .rule(&ns, "writer", cephx_rule("s", "drift-writer", "ReadWrite"))
            .await?;
        suite
            .rule(&ns, "reader", cephx_rule("s", "drift-reader", "ReadOnly"))
            .await?;
        let (_, first_key) = suite.credentials(&ns, "writer").await?;
        let wanted = suite.authorized(&share)?;
        let repaired = async |what: &str| {
            soon(what, async || {
                let now = suite.authorized(&share)?;
                ensure!(now == wanted, "{now:?}");
                Ok(())
            })
            .await
        };

        // An identity that was deauthorized is let in again; Ceph has deleted it, so with a new key.
        suite.admin.mgr(of(
            &share,
            "fs subvolume deauthorize",
            &json!({"auth_id": "drift-writer"}),
        ))?;
        repaired("the writer to be let in again").await?;
        let key = soon("the new key in the Secret", async || {
            let (_, key) = suite.credentials(&ns, "writer").await?;
            ensure!(key != first_key);
            Ok(key)
        })
        .await?;
        let mount = suite.mount_native(&share, "drift-writer", &key, "")?;
        let mut writer = mount.user(Owner::ROOT)?;
        writer.write("/note", b"again")?;

        // A level raised by hand is lowered, and what was mounted meanwhile is cut off.
        let tenant = suite
            .world
            .cluster_api::<k8s_openapi::api::core::v1::Namespace>()
            .get(&ns)
            .await?;
        let tenant = tenant.metadata.uid.context("no uid")?;
        let raise = json!({"auth_id": "drift-reader", "access_level": "rw", "tenant_id": tenant});
        suite.admin.mgr(of(&share, "fs subvolume authorize", &raise))?;
        repaired("the reader to be a reader again").await?;
        let (_, key) = suite.credentials(&ns, "reader").await?;
        let mount = suite.mount_native(&share, "drift-reader", &key, "")?;
        let mut reader = mount.user(Owner::ROOT)?;
        expect_failure("a reader's write", Failure::Denied, reader.write("/no", b""))?;

        // Somebody let in by hand loses it again.
        let stranger = json!({"auth_id": "drift-stranger", "access_level": "rw", "tenant_id": "another"});
        let key = suite.admin.mgr(of(&share, "fs subvolume authorize", &stranger))?;
        let key = key.as_str().context("no key")?.to_owned();
        match suite.mount_native(&share, "drift-stranger", &key, "") {
            Ok(mount) => {
                let mut user = mount.user(Owner::ROOT)?;
                let refused = [Failure::Evicted, Failure::Denied];
                fails_soon("a stranger", &refused, || user.write("/stranger", b"no")).await?;
            }
            // Shoal was faster.
            Err(error) => ensure!(
                shoal_e2e::lab::client::failure(&error) == Some(Failure::Denied),
                "{error:?}"
            ),
        }
        repaired("the stranger to be out").await?;
        writer.write("/note", b"not hindered")?;
        suite.ready(&ns, "s").await?;
        Ok(())
    });
}

#[test]
fn quota_and_tag() {
    SUITE.run(Storage::start, async |suite| {
        let ns = suite.world.namespace("quota").await?;
        for (name, protocol) in [("n", "NFS"), ("c", "CephFS")] {
            let share = suite.share(&ns, name, protocol, "standard").await?;
            for altered in [json!("infinite"), json!("1099511627776"), json!("5242880")] {
                suite
                    .admin
                    .mgr(of(&share, "fs subvolume resize", &json!({"new_size": altered})))?;
                soon("the quota to be repaired", async || {
                    let now = suite.quota(&share)?;
                    ensure!(now == Some(SIZE), "{now:?}");
                    Ok(())
                })
                .await
                .with_context(|| format!("{altered}"))?;
            }
            // A tag that was taken off is put on again, and nothing else is touched.
            let tag = suite.metadata(&share)?;
            suite.admin.mgr(of(
                &share,
                "fs subvolume metadata rm",
                &json!({"key_name": "shoal.storage/owner"}),
            ))?;
            soon("the tag to be put on again", async || {
                let now = suite.metadata(&share)?;
                ensure!(now == tag, "{now}");
                Ok(())
            })
            .await?;
            ensure!(suite.quota(&share)? == Some(SIZE));
            suite.ready(&ns, name).await?;
        }
        Ok(())
    });
}

#[test]
fn a_subvolume_that_is_gone_is_reported_and_not_made_again() {
    SUITE.run(Storage::start, async |suite| {
        let ns = suite.world.namespace("missing").await?;
        for (name, protocol) in [("n", "NFS"), ("c", "CephFS")] {
            let share = suite.share(&ns, name, protocol, "standard").await?;
            let rule = match protocol {
                "NFS" => ip_rule(name, "127.95.1.1", "ReadWrite"),
                _ => cephx_rule(name, "", "ReadWrite"),
            };
            suite.rule(&ns, &format!("{name}-rule"), rule).await?;
            suite
                .admin
                .mgr(of(&share, "fs subvolume rm", &json!({"force": true})))?;
            let now = suite.until_share(&ns, name, "False", "VolumeMissing").await?;
            ensure!(condition(conditions(&now), "Stalled").is_some_and(|(status, _)| status == "True"));
            let message = conditions(&now)
                .iter()
                .find(|c| c.type_ == "Ready")
                .context("no Ready")?
                .message
                .clone();
            ensure!(
                message.contains(&uid(&share)) && message.contains("not made again"),
                "{message}"
            );
            soon("the event", async || {
                ensure!(suite.events(&ns, name, "VolumeMissing").await? == 1);
                Ok(())
            })
            .await?;
            // Another look, and a change, bring nothing else.
            suite
                .ask_for_share(&ns, name, protocol, "standard", SIZE * 2)
                .await?;
            soon("the change to be seen", async || {
                let now = suite.until_share(&ns, name, "False", "VolumeMissing").await?;
                ensure!(now.status.and_then(|s| s.observed_generation) == now.metadata.generation);
                Ok(())
            })
            .await?;
            ensure!(suite.subvolume(&share)?.is_none(), "it was made again");
            suite.delete_share(&ns, name).await?;
            ensure!(suite.export(&share)?.is_none(), "its export is left");
            suite.delete_rule(&ns, &format!("{name}-rule")).await?;
        }
        Ok(())
    });
}
