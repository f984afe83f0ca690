//! Shoal in a real cluster: its image, built by the Dockerfile, installed by helm, run by a kubelet, on a real Ceph, with clients
//! that go on throughout. `cargo xtask test --node`.

#![cfg(test)]

use std::{fs, path::Path, process::Command, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::{
    api::{
        coordination::v1::Lease, core::v1::Pod, networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::json;
use shoal_crds::Share;
use shoal_e2e::{
    helm::{NEW_NAME, changed_chart, chart, helm, output, restricted_namespace},
    lab::{CephOptions, Lab, LabOptions, Steps, client::Owner, image},
    storage::{self, Storage, cephx_rule, ip_rule, uid},
    suite::Suite,
    workload::{Client, Files},
    world::{PATIENCE, SYSTEM_NAMESPACE, World, eventually, forbidden, until_gone},
};

static SUITE: Suite<Storage> = Suite::new();

const KUBECTL: &str = "localhost/kubectl:lab";
const TEAM: &str = "team";

/// Started with Shoal's image and one of kubectl on the node, and nothing of Shoal in the cluster.
async fn cluster() -> Result<Storage> {
    let options = LabOptions {
        ceph: Some(CephOptions {
            release: storage::release()?,
            ..CephOptions::default()
        }),
        node: true,
        ..LabOptions::default()
    };
    let start = move || {
        let steps = Steps::new(false);
        let archive = tempfile::tempdir()?;
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let shoal = image::shoal(&tree, &archive.path().join("shoal.tar"), &steps)?;
        is_bare(&shoal.archive)?;
        let lab = Lab::start(&options)?;
        let kubectl = image::of_program(KUBECTL, lab.control_plane()?.kubectl_program(), &steps)?;
        for image in [shoal, kubectl] {
            lab.node()?.import(&image.archive)?;
        }
        Ok::<_, anyhow::Error>(lab)
    };
    let lab = tokio::task::spawn_blocking(start).await??;
    Storage::around(World::bare(lab).await?)
}

/// Nothing but the operator can be run in the image, and it says what it consists of.
fn is_bare(archive: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let tar = |words: &[&str], file: &Path| {
        let mut tar = Command::new("tar");
        tar.current_dir(&folder).args(words).arg(file);
        tar
    };
    output(&mut tar(&["-x", "-f"], archive))?;
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("manifest.json"))?)?;
    let layers = manifest[0]["Layers"].as_array().context("no layers")?;
    let mut files = Vec::new();
    let mut program = Vec::new();
    for layer in layers {
        let layer = folder
            .path()
            .join(layer.as_str().context("a layer without a name")?);
        let listed = output(&mut tar(&["-t", "-v", "-f"], &layer))?;
        if listed.contains(" usr/bin/shoal\n") {
            program = tar(&["-x", "-O", "-f"], &layer)
                .arg("usr/bin/shoal")
                .output()?
                .stdout;
        }
        files.extend(listed.lines().map(str::to_owned));
    }
    let runs: Vec<_> = files
        .iter()
        .filter(|f| f.starts_with('-') && f.contains("bin/"))
        .collect();
    ensure!(
        runs.len() == 1 && runs[0].ends_with(" usr/bin/shoal"),
        "more than the operator: {runs:?}"
    );
    let privileged = files.iter().find(|file| file[..10].contains(['s', 'S']));
    ensure!(privileged.is_none(), "{privileged:?}");
    for package in ["libc6", "libcephfs2", "librados2"] {
        let listed = format!(" var/lib/dpkg/status.d/{package}");
        ensure!(
            files.iter().any(|file| file.ends_with(&listed)),
            "{package} is not told of"
        );
    }
    let crates = b".dep-v0";
    ensure!(
        program.windows(crates.len()).any(|part| part == crates),
        "the program does not tell its crates"
    );
    Ok(())
}

#[test]
#[ignore = "builds the image, and takes minutes: cargo xtask test --node"]
fn installed_used_upgraded_uninstalled_and_installed_again() {
    SUITE.run(cluster, story);
}

/// A node that ends by force leaves no process, mount, cgroup or setting of the kernel behind.
#[test]
#[ignore = "needs what the other scenario needs"]
fn nothing_is_left_of_a_node() {
    const SETTINGS: [&str; 2] = ["/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/panic"];
    let settings = || SETTINGS.map(|path| fs::read_to_string(path).expect("a setting"));
    let before = settings();
    let lab = Lab::start(&LabOptions {
        ceph: None,
        node: true,
        ..LabOptions::default()
    })
    .expect("a lab");
    let init = lab.node().expect("a node").process().clone();
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", init.pid)).expect("its cgroups");
    let group = groups
        .split(['/', '\n'])
        .find(|part| part.starts_with("shoal-lab-"))
        .expect("a cgroup of its own");
    let left = || {
        let hierarchies = fs::read_dir("/sys/fs/cgroup")
            .expect("cgroups")
            .flatten()
            .map(|entry| entry.path());
        hierarchies
            .filter(|hierarchy| hierarchy.join(group).exists())
            .count()
    };
    assert!(left() > 0, "{group}");
    let folder = lab.folder().to_owned();
    init.kill().expect("it can be killed");
    drop(lab);
    assert_eq!(left(), 0, "{group}");
    assert!(!folder.exists());
    let mounts = fs::read_to_string("/proc/mounts").expect("mounts");
    assert!(!mounts.contains(&*folder.to_string_lossy()), "{mounts}");
    assert_eq!(settings(), before);
}

/// Tells what was done, and when.
struct Clock(Instant);

impl Clock {
    fn say(&self, what: &str) {
        eprintln!("{:7.1} s  {what}", self.0.elapsed().as_secs_f64());
    }
}

async fn story(suite: &'static Storage) -> Result<()> {
    let world = &suite.world;
    restricted_namespace(world).await?;
    let values = world.lab.folder().join("values.json");
    let settings = json!({
        "image": {"registry": "localhost"},
        // Short, for the sake of the test's time.
        "settings": {"leaseSeconds": 15, "commandTimeoutSeconds": 3},
        "networkPolicy": {"enabled": true},
        "test": {"image": KUBECTL},
    });
    fs::write(&values, settings.to_string())?;
    let install = || -> Result<()> {
        let mut install = helm(Some(world))?;
        install
            .args(["install", "shoal", "--wait", "--timeout=2m", "--values"])
            .arg(&values)
            .arg(chart());
        told(world, install)
    };

    let clock = Clock(Instant::now());
    install()?;
    clock.say("helm install --wait: two operators are ready");
    is_confined(world).await?;
    let mut test = helm(Some(world))?;
    test.args(["test", "shoal", "--timeout=2m"]);
    told(world, test)?;
    clock.say("helm test: a Pod has made a share, seen it Ready, and deleted it");

    world.add_ceph_backends().await?;
    suite.until_backends_ready().await?;
    clock.say("both backends are Ready");
    let clients = use_shares(suite).await?;
    clock.say("an NFS client and a native one have mounted, and write");

    let from = leader(world).await?;
    kill(world, &from).await?;
    let killed = Instant::now();
    let to = eventually("the other operator to lead", PATIENCE, async || {
        Ok(leader(world).await.ok().filter(|now| *now != from))
    })
    .await?;
    suite.share(TEAM, "after-the-kill", "NFS", "standard").await?;
    clock.say(&format!(
        "the leader's Pod was killed; {:.1} s later {to} led, and a new share was Ready",
        killed.elapsed().as_secs_f64()
    ));
    rolled_out(world)?;
    clients.go_on().await?;
    one_at_a_time(world).await?;
    clock.say("of two evictions the PodDisruptionBudget let one through");
    rolled_out(world)?;

    let newer = changed_chart(world.lab.folder())?;
    let before = pod_names(world).await?;
    let mut upgrade = helm(Some(world))?;
    upgrade.args([
        "upgrade",
        "shoal",
        "--reset-then-reuse-values",
        "--wait",
        "--timeout=3m",
    ]);
    upgrade.args(["--set", "podAnnotations.upgraded=yes"]).arg(&newer);
    told(world, upgrade)?;
    ensure!(has_new_name(world).await?, "the kind was not upgraded");
    ensure!(
        pod_names(world).await?.is_disjoint(&before),
        "the Pods were not replaced"
    );
    suite.share(TEAM, "after-the-upgrade", "NFS", "standard").await?;
    clients.go_on().await?;
    clock.say("helm upgrade: a kind was changed, and both Pods replaced");

    let mut rollback = helm(Some(world))?;
    rollback.args(["rollback", "shoal", "1", "--wait", "--timeout=3m"]);
    told(world, rollback)?;
    ensure!(!has_new_name(world).await?, "the kind was not rolled back");
    suite.share(TEAM, "after-the-rollback", "NFS", "standard").await?;
    clients.go_on().await?;
    clock.say("helm rollback");

    let uids = share_uids(world).await?;
    let mut uninstall = helm(Some(world))?;
    uninstall.args(["uninstall", "shoal", "--wait", "--timeout=2m"]);
    told(world, uninstall)?;
    clients.go_on().await?;
    ensure!(share_uids(world).await? == uids, "shares changed");
    clock.say("helm uninstall: shares are there, and in use");

    install()?;
    suite
        .rule(TEAM, "more", ip_rule("documents", "10.1.0.0/16", "ReadOnly"))
        .await?;
    suite.active(TEAM, "more").await?;
    ensure!(share_uids(world).await? == uids, "shares changed");
    clients.go_on().await?;
    clock.say("helm install again: shares were found, and a new rule is in force");

    clients.end().await?;
    suite.until_consistent().await?;
    let shares = world.api::<Share>(TEAM);
    shares
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await?;
    for (name, _) in uids {
        until_gone(&shares, &name).await?;
    }
    clock.say("all shares are deleted");
    Ok(())
}

/// Runs helm; where it fails, with what Pods say.
fn told(world: &World, mut command: Command) -> Result<()> {
    let done = output(&mut command);
    if done.is_err() {
        let mut events = world.lab.control_plane()?.kubectl();
        let events = output(events.args(["get", "pods,events", "--namespace", SYSTEM_NAMESPACE]))?;
        return done.map(drop).with_context(|| events);
    }
    Ok(())
}

fn pods(world: &World) -> Api<Pod> {
    world.api(SYSTEM_NAMESPACE)
}

fn operators() -> ListParams {
    ListParams::default().labels("app.kubernetes.io/component=operator")
}

async fn pod_names(world: &World) -> Result<std::collections::BTreeSet<String>> {
    let list = pods(world).list(&operators()).await?;
    Ok(list
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .map(ResourceExt::name_any)
        .collect())
}

/// The Pod that leads.
async fn leader(world: &World) -> Result<String> {
    let lease: Lease = world.api(SYSTEM_NAMESPACE).get("shoal").await?;
    let holder = lease
        .spec
        .and_then(|spec| spec.holder_identity)
        .context("nobody leads")?;
    let names = pod_names(world).await?;
    names
        .into_iter()
        .find(|name| holder.starts_with(name))
        .with_context(|| format!("{holder} is no Pod"))
}

fn rolled_out(world: &World) -> Result<()> {
    let mut rollout = world.lab.control_plane()?.kubectl();
    rollout.args([
        "rollout",
        "status",
        "deployment/shoal",
        "--timeout=2m",
        "--namespace",
        SYSTEM_NAMESPACE,
    ]);
    output(&mut rollout).map(drop)
}

/// The operators' processes have no more than Pod security's `restricted` lets them have, and the namespace takes nothing else.
async fn is_confined(world: &World) -> Result<()> {
    const LOOK: &str = "for process in /proc/[0-9]*; do
        [ \"$(readlink $process/exe)\" = /usr/bin/shoal ] || continue
        grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' $process/status
        grep ' / ' $process/mounts
    done";
    let there = output(&mut world.lab.node()?.command(&["sh", "-c", LOOK]))?;
    let none = "0000000000000000";
    for line in [
        "Uid:\t65532\t65532\t65532\t65532",
        &format!("CapEff:\t{none}"),
        &format!("CapBnd:\t{none}"),
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        let found = there.lines().filter(|found| *found == line).count();
        ensure!(found == 2, "{line} of {found} operators, not of two:\n{there}");
    }
    let roots = there
        .lines()
        .filter(|line| line.contains(" / "))
        .filter(|line| line.contains(" ro,"));
    ensure!(
        roots.count() == 2,
        "a root file system can be written to:\n{there}"
    );
    for pod in pods(world).list(&operators()).await? {
        let status = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref())
            .context("no status")?;
        ensure!(
            status.iter().all(|c| c.ready && c.restart_count == 0),
            "{}: {status:?}",
            pod.name_any()
        );
    }
    let greedy = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": SYSTEM_NAMESPACE, "name": "greedy"},
        "spec": {"containers": [{"name": "greedy", "image": KUBECTL, "securityContext": {"privileged": true}}]},
    });
    forbidden(
        world.apply(&greedy).await,
        &["violates PodSecurity", "privileged"],
    )?;
    // Taken; nothing on this node makes it hold.
    world.api::<NetworkPolicy>(SYSTEM_NAMESPACE).get("shoal").await?;
    Ok(())
}

/// Ends a Pod with no chance to give its Lease back.
async fn kill(world: &World, pod: &str) -> Result<()> {
    const KILL: &str = "for process in /proc/[0-9]*; do
        [ \"$(readlink $process/exe)\" = /usr/bin/shoal ] || continue
        grep -qz \"^HOSTNAME=$0$\" $process/environ && kill -KILL ${process#/proc/} && exit
    done
    exit 1";
    output(&mut world.lab.node()?.command(&["sh", "-c", KILL, pod]))?;
    pods(world)
        .delete(pod, &DeleteParams::default().grace_period(0))
        .await?;
    Ok(())
}

/// Both operators at once are not let go.
async fn one_at_a_time(world: &World) -> Result<()> {
    let budgets: Api<PodDisruptionBudget> = world.api(SYSTEM_NAMESPACE);
    eventually("both operators to count as healthy", PATIENCE, async || {
        let status = budgets.get("shoal").await?.status;
        Ok(status
            .filter(|s| s.current_healthy == 2 && s.disruptions_allowed == 1)
            .map(drop))
    })
    .await?;
    let mut let_go = 0;
    for name in pod_names(world).await? {
        let_go += u32::from(is_evicted(world, &name)?);
    }
    ensure!(let_go == 1, "{let_go} of two operators were let go at once");
    Ok(())
}

/// Asks once. kube's client would ask until the answer is yes.
fn is_evicted(world: &World, pod: &str) -> Result<bool> {
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"namespace": SYSTEM_NAMESPACE, "name": pod},
    });
    let file = world.lab.folder().join("eviction.json");
    fs::write(&file, eviction.to_string())?;
    let path = format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods/{pod}/eviction");
    let mut ask = world.lab.control_plane()?.kubectl();
    let answer = ask
        .args(["create", "--raw", &path, "--filename"])
        .arg(&file)
        .output()?;
    let said = String::from_utf8_lossy(&answer.stderr);
    ensure!(
        answer.status.success() || said.contains("disruption budget"),
        "{said}"
    );
    Ok(answer.status.success())
}

async fn has_new_name(world: &World) -> Result<bool> {
    let crds: Api<CustomResourceDefinition> = world.cluster_api();
    let names = crds.get("shares.shoal.storage").await?.spec.names.short_names;
    Ok(names.unwrap_or_default().iter().any(|name| name == NEW_NAME))
}

async fn share_uids(world: &World) -> Result<Vec<(String, String)>> {
    let shares = world.api::<Share>(TEAM).list(&ListParams::default()).await?;
    Ok(shares
        .iter()
        .map(|share| (share.name_any(), uid(share)))
        .collect())
}

/// Who uses shares, from the install to the end.
struct Clients {
    nfs: Client,
    native: Client,
}

impl Clients {
    /// Both do some rounds more, and have felt nothing.
    async fn go_on(&self) -> Result<()> {
        for client in [&self.nfs, &self.native] {
            client.until_more(2).await?;
            if !client.felt().is_empty() {
                bail!("a client felt {:?}", client.felt());
            }
        }
        Ok(())
    }

    async fn end(self) -> Result<()> {
        for client in [self.nfs, self.native] {
            client.end().await?;
        }
        Ok(())
    }
}

async fn use_shares(suite: &'static Storage) -> Result<Clients> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM}});
    suite.world.apply(&namespace).await?;
    let source = suite.ceph().client_address(1)?;
    let documents = suite.share(TEAM, "documents", "NFS", "standard").await?;
    let datasets = suite.share(TEAM, "datasets", "CephFS", "standard").await?;
    suite
        .rule(
            TEAM,
            "office",
            ip_rule("documents", &source.to_string(), "ReadWrite"),
        )
        .await?;
    suite
        .rule(TEAM, "trainer", cephx_rule("datasets", "", "ReadWrite"))
        .await?;
    suite.active(TEAM, "office").await?;
    suite.active(TEAM, "trainer").await?;
    let client = suite.mount_soon(&documents, source, Owner::ROOT).await?;
    let nfs = Files::Nfs {
        storage: suite,
        share: Box::new(documents),
        source,
        client,
    };
    let (identity, key) = suite.credentials(TEAM, "trainer").await?;
    let mount = suite.mount_native(&datasets, &identity, &key, "")?;
    let native = Files::Native {
        user: mount.user(Owner::ROOT)?,
        mount,
    };
    let clients = Clients {
        nfs: Client::start("nfs", nfs),
        native: Client::start("native", native),
    };
    clients.go_on().await?;
    Ok(clients)
}
