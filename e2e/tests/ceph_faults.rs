//! Each server that Shoal lives with is killed and started again, or stopped and woken, while users change shares and rules
//! and clients that were let in before go on working. Afterwards Ceph holds exactly what the objects say, they say what was
//! asked for last, and the clients have what they wrote.
//!
//! What a client may feel is said with each fault. Of the operator, the API server, etcd and the manager it may feel
//! nothing: none of them is on its way. `SHOAL_E2E_FAULTS=full` plays both manners of each fault, else one.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    env,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use rustix::process::Signal;
use serde_json::json;
use shoal_crds::{Share, ShareAccessRule};
use shoal_e2e::{
    audit::{Command, one_after_the_other},
    lab::{CephOptions, Process, Proxy, client::Failure, client::Owner},
    storage::{SIZE, Storage, cephx_rule, conditions, ip_rule, release},
    suite::Suite,
    workload::{Client, Files, Mine, User, Users},
    world::{OperatorOptions, condition, eventually},
};

static SUITE: Suite<Storage> = Suite::new();

/// How long it may take from the end of a fault until everything is as the objects say. The longest that Ceph itself takes is
/// a minute: for so long a metadata server awaits a client of a manager that died.
const SETTLED: Duration = Duration::from_mins(4);
/// How long a metadata server may take to stand in for another: it waits for the clients that may come back, and for so long
/// may a Ganesha that was killed, of which an export went before it was back (libcephfs sessions of FSAL_CEPH, 300 s).
const TAKES_OVER: Duration = Duration::from_mins(7);
/// Rounds of a client, each of several file operations, that make a fault long enough to be felt.
const ROUNDS: u64 = 3;

async fn start() -> Result<Storage> {
    let storage = Storage::without_operator(CephOptions {
        release: release()?,
        standby_mgr: true,
        ..CephOptions::default()
    })
    .await?;
    // At the usual 30 s a takeover is mostly waiting.
    storage.admin.mon(json!({
        "prefix": "config set", "who": "mon", "name": "mon_mgr_beacon_grace", "value": "10",
    }))?;
    storage.start_operator("").await?;
    storage.until_backends_ready().await?;
    Ok(storage)
}

/// How a server goes away.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Killed,
    Stopped,
}

use Manner::{Killed, Stopped};

/// Both, or the one for every day.
fn manners(daily: Manner) -> Vec<Manner> {
    if env::var("SHOAL_E2E_FAULTS").is_ok_and(|how| how == "full") {
        vec![Killed, Stopped]
    } else {
        vec![daily]
    }
}

/// What the clients may feel of a fault, while it lasts and until they have got over it.
#[derive(Clone, Copy)]
struct MayFeel {
    nfs: &'static [Failure],
    native: &'static [Failure],
    /// Whether identities on the file system of the clients may change meanwhile.
    identities: bool,
}

/// Nobody whom the clients talk to is concerned.
const NOTHING: MayFeel = MayFeel {
    nfs: &[],
    native: &[],
    identities: true,
};
/// A monitor or a metadata server: clients of CephFS wait, and both kinds of client give an operation up after a while
/// (libnfs after 15 s, the suite's own after 40 s). They do it again, and nothing else may go wrong.
const WAITING: MayFeel = MayFeel {
    nfs: &[Failure::TimedOut],
    native: &[Failure::TimedOut],
    identities: true,
};
/// Their NFS server: whatever a client says that loses its server and mounts again, until the grace period is over. An
/// export may not be there yet. A native client feels nothing.
const NO_SERVER: MayFeel = MayFeel {
    nfs: &[
        Failure::TimedOut,
        Failure::NotFound,
        Failure::Denied,
        Failure::Other,
    ],
    native: &[],
    identities: true,
};
/// A pool without room: what is written is refused, for no other reason. The manager writes down in the data pool who is let
/// in, over what it wrote before, and loses it where there is no room: its `deauthorize` then answers EINVAL for ever, and no
/// one can go on. So nobody changes that.
const NO_ROOM: MayFeel = MayFeel {
    nfs: &[Failure::Full],
    native: &[Failure::Full],
    identities: false,
};

/// A fault's stage: users and clients at work.
struct Scene {
    suite: &'static Storage,
    ns: String,
    users: Users,
    nfs: Client,
    native: Client,
    may_feel: MayFeel,
}

impl Scene {
    async fn open(suite: &'static Storage, name: &str, may_feel: MayFeel) -> Result<Self> {
        let ns = suite.world.namespace(name).await?;
        let exported = suite.share(&ns, "exported", "NFS", "on-cephfs").await?;
        let mounted = suite.share(&ns, "mounted", "CephFS", "on-cephfs").await?;
        let source = suite.ceph().client_address(1)?;
        let rule = ip_rule("exported", &source.to_string(), "ReadWrite");
        suite.rule(&ns, "stays-by-nfs", rule).await?;
        suite
            .rule(&ns, "stays-by-cephfs", cephx_rule("mounted", "", "ReadWrite"))
            .await?;
        let (identity, key) = suite.credentials(&ns, "stays-by-cephfs").await?;
        let client = suite.mount_soon(&exported, source, Owner::ROOT).await?;
        let mount = suite.mount_native(&mounted, &identity, &key, "")?;
        let nfs = Files::Nfs {
            storage: suite,
            share: Box::new(exported),
            source,
            client,
        };
        let native = Files::Native {
            user: mount.user(Owner::ROOT)?,
            mount,
        };
        let (nfs, native) = (Client::start("nfs", nfs), Client::start("native", native));
        // The first writes wait for the end of Ganesha's grace period, if there is one.
        nfs.until_more(1).await?;
        native.until_more(1).await?;

        let own = |share: &str, protocol, share_type, seed| {
            User::new(&suite.world, &ns, share, protocol, share_type, Mine::Wholly, seed)
        };
        let beside = |share: &str, protocol, seed| {
            User::new(
                &suite.world,
                &ns,
                share,
                protocol,
                "on-cephfs",
                Mine::Shared,
                seed,
            )
        };
        let mut users = vec![
            own("a", "NFS", "on-cephfs", 1),
            own("c", "NFS", "on-second", 3),
            own("d", "CephFS", "on-second", 4),
            // Neighbours of the clients that stay.
            beside("exported", "NFS", 5),
        ];
        if may_feel.identities {
            users.push(own("b", "CephFS", "on-cephfs", 2));
            users.push(beside("mounted", "CephFS", 6));
        }
        let users = Users::start(users);
        users.until_more(12).await?;
        Ok(Self {
            suite,
            ns,
            users,
            nfs,
            native,
            may_feel,
        })
    }

    /// The fault begins.
    fn begin(&self) {
        self.nfs.tolerate(self.may_feel.nfs);
        self.native.tolerate(self.may_feel.native);
    }

    /// Both clients go on.
    async fn clients_go_on(&self) -> Result<()> {
        self.nfs.until_more(ROUNDS).await?;
        self.native.until_more(ROUNDS).await
    }

    /// The fault is over: clients get over it and may feel nothing more; what was asked for is done; nothing was lost.
    async fn close(self, what: &str) -> Result<()> {
        let ended = Instant::now();
        self.clients_go_on().await?;
        self.nfs.tolerate(&[]);
        self.native.tolerate(&[]);
        self.users.until_more(12).await?;
        let steps = self.users.steps();
        let users = self.users.end().await?;
        settled(self.suite).await?;
        let took = ended.elapsed();
        for user in &users {
            user.check().await?;
        }
        self.nfs.until_more(ROUNDS).await?;
        self.native.until_more(ROUNDS).await?;
        let ((nfs, nfs_felt), (native, native_felt)) = (self.nfs.end().await?, self.native.end().await?);
        println!(
            "{what}: settled {:.1} s after it; {steps} steps of users; NFS {nfs} rounds, felt {nfs_felt:?}; native \
             {native} rounds, felt {native_felt:?}",
            took.as_secs_f64()
        );
        clear(self.suite, &self.ns).await
    }
}

/// Waits until Ceph holds exactly what the objects say, and every share and rule of these users is Ready: none of them asks
/// for what can't be had. The name of a rule that was deleted is free before its Secret is gone: the rule made anew waits.
async fn settled(suite: &Storage) -> Result<()> {
    let until = Instant::now() + SETTLED;
    loop {
        let consistent = suite.until_consistent().await;
        let told = told(suite).await?;
        match consistent {
            Ok(()) if told.is_empty() => return suite.until_backends_ready().await,
            Err(error) if Instant::now() > until => {
                return Err(error.context(format!("objects say {told:#?}")));
            }
            _ => {}
        }
        ensure!(
            Instant::now() < until,
            "with the fault gone nothing has to wait: {told:#?}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Why shares and rules are not done, by name; nothing where one does not say.
async fn told(suite: &Storage) -> Result<Vec<(String, String)>> {
    let all = &suite.world.client;
    let mut told = Vec::new();
    let mut tell = |kind: &str, meta: &kube::api::ObjectMeta, ready: Option<(&str, &str)>| {
        if ready.is_none_or(|(status, _)| status != "True") {
            let name = format!("{kind} {}", meta.name.as_deref().unwrap_or_default());
            let reason = ready.map(|(_, reason)| reason.to_owned()).unwrap_or_default();
            told.push((name, reason));
        }
    };
    for share in Api::<Share>::all(all.clone())
        .list(&ListParams::default())
        .await?
    {
        tell("Share", &share.metadata, condition(conditions(&share), "Ready"));
    }
    let rules = Api::<ShareAccessRule>::all(all.clone());
    for rule in rules.list(&ListParams::default()).await? {
        let status = rule.status.unwrap_or_default();
        tell(
            "ShareAccessRule",
            &rule.metadata,
            condition(&status.conditions, "Ready"),
        );
    }
    Ok(told)
}

async fn clear(suite: &Storage, ns: &str) -> Result<()> {
    let (shares, rules) = (
        suite.world.api::<Share>(ns),
        suite.world.api::<ShareAccessRule>(ns),
    );
    let (how, what) = (DeleteParams::default(), ListParams::default());
    rules.delete_collection(&how, &what).await?;
    shares.delete_collection(&how, &what).await?;
    eventually(
        "shares and rules to be gone",
        Duration::from_mins(2),
        async || {
            let left = shares.list(&what).await?.items.len() + rules.list(&what).await?.items.len();
            Ok((left == 0).then_some(()))
        },
    )
    .await?;
    suite.until_consistent().await
}

/// Plays a fault: what it does has to have an end.
async fn play(
    name: &'static str,
    manner: Manner,
    may_feel: MayFeel,
    suite: &'static Storage,
    fault: impl AsyncFnOnce(&Scene) -> Result<()>,
) -> Result<()> {
    let _alone = suite.alone().await;
    let began = Instant::now();
    let scene = Scene::open(suite, name, may_feel).await?;
    scene.begin();
    if let Err(error) = fault(&scene).await {
        // The next fault is another's.
        suite.start_operator("").await?;
        return Err(error);
    }
    scene.close(&format!("{name} {manner:?}")).await?;
    println!("{name} {manner:?}: {:.0} s in all", began.elapsed().as_secs_f64());
    Ok(())
}

/// A process is stopped while something else happens, and woken whatever that came to.
async fn while_stopped(process: &Process, act: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    ensure!(process.signal(Signal::STOP)?, "{} does not run", process.name);
    let outcome = act().await;
    process.signal(Signal::CONT)?;
    outcome
}

/// A server of Ceph is killed and started again, or stopped and woken, after something else has happened.
async fn away(
    scene: &Scene,
    daemon: &str,
    manner: Manner,
    act: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let server = scene.suite.ceph().daemon(daemon)?;
    match manner {
        Killed => {
            server.kill()?;
            let outcome = act().await;
            server.start()?;
            outcome
        }
        Stopped => while_stopped(&server.process().context("it does not run")?, act).await,
    }
}

/// Once there is nothing to renew a Lease at, an operator ends by itself, and is started again as a kubelet would.
async fn restart_operator_if_it_ended(suite: &Storage) -> Result<()> {
    if !suite.operator_process().await?.is_alive() {
        println!("the operator ended, and is started again");
        suite.start_operator("").await?;
    }
    Ok(())
}

/// Changes that an operator may have in hand when it is stopped between its look at the Lease and its send: one a share.
const IN_HAND: usize = 6;

/// For longer than its Lease: a standby takes over, and what wakes up ends.
#[test]
#[ignore = "cargo xtask test --faults: it takes longer than stands before every change"]
fn the_operator() {
    SUITE.run(start, async |suite| {
        for manner in manners(Stopped) {
            play("operator", manner, NOTHING, suite, async |scene| {
                let leader = suite.operator_process().await?;
                if manner == Killed {
                    suite.kill_operator().await?;
                    scene.clients_go_on().await?;
                    return suite.start_operator("").await;
                }
                let (before, theirs) = commands_of_leader(suite).await?;
                let standby = suite.world.operator(&OperatorOptions::quick("standby")).await?;
                while_stopped(&leader, async || {
                    standby.wait_until_leading().await?;
                    scene.users.until_more(12).await?;
                    scene.clients_go_on().await
                })
                .await?;
                until_ended(&leader).await?;
                let late = late_changes(&since(suite, &before)?, &theirs)?;
                ensure!(late.len() <= IN_HAND, "what woke up went on: {late:#?}");
                println!("changes that the first sent after the second had begun: {late:?}");
                standby.terminate()?;
                suite.start_operator("").await
            })
            .await?;
        }
        Ok(())
    });
}

async fn until_ended(process: &Process) -> Result<()> {
    eventually("the old leader to end", Duration::from_mins(1), async || {
        Ok((!process.is_alive()).then_some(()))
    })
    .await
}

#[test]
#[ignore = "cargo xtask test --faults: it takes longer than stands before every change"]
fn the_api_server() {
    SUITE.run(start, async |suite| {
        control_plane(suite, "kube-apiserver", Killed).await
    });
}

#[test]
#[ignore = "cargo xtask test --faults: it takes longer than stands before every change"]
fn etcd() {
    SUITE.run(start, async |suite| control_plane(suite, "etcd", Killed).await);
}

/// Killed and started again at once, which an operator may outlive; or stopped until it has lost its Lease.
async fn control_plane(suite: &'static Storage, name: &'static str, daily: Manner) -> Result<()> {
    for manner in manners(daily) {
        play(name, manner, NOTHING, suite, async |scene| {
            let plane = suite.world.lab.control_plane()?;
            let server = plane.process(name)?;
            match manner {
                Killed => {
                    server.kill()?;
                    let outcome = scene.clients_go_on().await;
                    plane.restart(name)?;
                    outcome?;
                }
                Stopped => {
                    let operator = suite.operator_process().await?;
                    while_stopped(&server, async || {
                        until_ended(&operator).await?;
                        scene.clients_go_on().await
                    })
                    .await?;
                }
            }
            eventually(
                "the API server to take objects",
                Duration::from_mins(2),
                async || {
                    let asked = suite.world.until_objects_are_taken();
                    let asked = tokio::time::timeout(Duration::from_secs(10), asked).await;
                    Ok(matches!(asked, Ok(Ok(()))).then_some(()))
                },
            )
            .await?;
            restart_operator_if_it_ended(suite).await?;
            scene.users.until_more(12).await
        })
        .await?;
    }
    Ok(())
}

/// The manager that serves is lost; the one that stands by takes over, and then work goes on, before the other is back.
#[test]
#[ignore = "cargo xtask test --faults: it takes longer than stands before every change"]
fn the_manager() {
    SUITE.run(start, async |suite| {
        for manner in manners(Killed) {
            play("mgr", manner, NOTHING, suite, async |scene| {
                let lost = suite.active_mgr()?;
                away(scene, &lost, manner, async || {
                    eventually("the other manager to serve", Duration::from_mins(2), async || {
                        Ok(suite.active_mgr().ok().filter(|name| *name != lost))
                    })
                    .await?;
                    scene.clients_go_on().await?;
                    scene.users.until_more(12).await
                })
                .await?;
                eventually("two managers", Duration::from_mins(1), async || {
                    let map = suite.admin.mon(json!({"prefix": "mgr dump"}))?;
                    Ok((map["standbys"].as_array().map(Vec::len) == Some(1)).then_some(()))
                })
                .await
            })
            .await?;
        }
        Ok(())
    });
}

/// For longer than a command may take.
#[test]
#[ignore = "cargo xtask test --faults: it takes longer than stands before every change"]
fn the_monitor() {
    SUITE.run(start, async |suite| {
        for manner in manners(Stopped) {
            play("mon", manner, WAITING, suite, async |scene| {
                away(scene, "mon.a", manner, async || until_all_in_trouble(suite).await).await
            })
            .await?;
        }
        Ok(())
    });
}

/// Killed, its place is taken by the one that stands by; stopped, until commands are not answered in time.
#[test]
#[ignore = "cargo xtask test --faults: it takes longer than stands before every change"]
fn the_metadata_server() {
    SUITE.run(start, async |suite| {
        for manner in manners(Killed) {
            play("mds", manner, WAITING, suite, async |scene| {
                let lost = suite.active_mds("cephfs")?;
                away(scene, &lost, manner, async || match manner {
                    Killed => eventually("another to serve", TAKES_OVER, async || {
                        Ok(suite.active_mds("cephfs").ok().filter(|name| *name != lost))
                    })
                    .await
                    .map(drop),
                    Stopped => in_trouble(suite, "cephfs").await,
                })
                .await
            })
            .await?;
        }
        Ok(())
    });
}

/// Until the client of that server has felt it.
#[test]
#[ignore = "cargo xtask test --faults: it takes longer than stands before every change"]
fn nfs_ganesha() {
    SUITE.run(start, async |suite| {
        for manner in manners(Killed) {
            play("ganesha", manner, NO_SERVER, suite, async |scene| {
                away(scene, "ganesha.0", manner, async || {
                    scene.nfs.until_felt().await?;
                    scene.native.until_more(ROUNDS).await
                })
                .await?;
                until_exports_are_read(scene).await
            })
            .await?;
        }
        Ok(())
    });
}

/// Waits until the first Ganesha takes up new exports. One that stood still for more than 20 s may never do so again: the OSD
/// has dropped its watch of the list of exports, and it does not ask for another. An admin has to start it anew.
async fn until_exports_are_read(scene: &Scene) -> Result<()> {
    let (suite, ns) = (scene.suite, &scene.ns);
    let share = suite.share(ns, "new", "NFS", "on-cephfs").await?;
    let source = suite.ceph().client_address(2)?;
    let rule = ip_rule("new", &source.to_string(), "ReadWrite");
    suite.rule(ns, "new", rule).await?;
    if let Err(error) = suite.mount_soon(&share, source, Owner::ROOT).await {
        println!("ganesha.0 is deaf, and is started anew: {error:#}");
        let server = suite.ceph().daemon("ganesha.0")?;
        server.kill()?;
        server.start()?;
        suite.mount_soon(&share, source, Owner::ROOT).await?;
    }
    Ok(())
}

async fn until_all_in_trouble(suite: &Storage) -> Result<()> {
    for name in suite.ceph().filesystems() {
        in_trouble(suite, name).await?;
    }
    Ok(())
}

async fn in_trouble(suite: &Storage, name: &str) -> Result<()> {
    let (reason, message) = suite.until_trouble(name).await?;
    println!("{name}: {reason}: {message}");
    let known = ["BackendUnreachable", "CommandTimedOut", "BackendSilent"];
    ensure!(known.contains(&reason.as_str()), "the reason is {reason}");
    Ok(())
}

/// The leader loses the API server, but not Ceph: it stops in time for the other to take over, and what it had sent comes
/// late and changes nothing.
#[test]
#[ignore = "cargo xtask test --faults: it takes longer than stands before every change"]
fn a_leader_without_its_api_server() {
    SUITE.run(start, async |suite| {
        let manner = Stopped;
        play("cut", manner, NOTHING, suite, async |scene| {
            let port = suite.world.lab.control_plane()?.port();
            let proxy = Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
            suite.stop_operator().await?;
            let mark = suite.world.audit_mark()?;
            let options = OperatorOptions {
                api_port: Some(proxy.port()),
                ..OperatorOptions::quick("cut")
            };
            suite.start_operator_with(&options).await?;
            let standby = suite.world.operator(&OperatorOptions::quick("standby")).await?;
            scene.users.until_more(12).await?;
            let leader = suite.operator_process().await?;
            let (before, theirs) = commands_of_leader(suite).await?;
            proxy.cut();
            standby.wait_until_leading().await?;
            scene.users.until_more(12).await?;
            scene.clients_go_on().await?;
            until_ended(&leader).await?;
            proxy.mend();
            scene.users.until_more(12).await?;
            let mut writes = suite.world.writes_since(mark).await?;
            // An Event says what was, whenever it comes.
            writes.retain(|write| write.code < 300 && write.resource != "events");
            println!("writes before and after: {:?}", one_after_the_other(&writes)?);
            // Nothing at all: looks as little as changes.
            let commands = since(suite, &before)?;
            let change = taken_over(&commands, &theirs)?;
            let late: Vec<_> = commands[change..]
                .iter()
                .filter(|c| theirs.contains(&c.by))
                .collect();
            ensure!(late.is_empty(), "the first after the second had begun: {late:#?}");
            println!("commands before and after: {change}, {}", commands.len() - change);
            standby.terminate()?;
            suite.start_operator("").await
        })
        .await
    });
}

fn since(suite: &Storage, before: &[Command]) -> Result<Vec<Command>> {
    Ok(suite.commands()?.split_off(before.len()))
}

/// Commands so far, and the connections of the one operator that runs: those that commands come by from now on.
async fn commands_of_leader(suite: &Storage) -> Result<(Vec<Command>, BTreeSet<String>)> {
    let before = suite.commands()?;
    let theirs = eventually("the leader's commands", Duration::from_mins(1), async || {
        let by: BTreeSet<_> = since(suite, &before)?.into_iter().map(|c| c.by).collect();
        Ok((!by.is_empty()).then_some(by))
    })
    .await?;
    Ok((before, theirs))
}

/// How many commands came before the first of another operator.
fn taken_over(commands: &[Command], theirs: &BTreeSet<String>) -> Result<usize> {
    commands
        .iter()
        .position(|c| !theirs.contains(&c.by))
        .context("the second sent no command")
}

/// Changes that the first operator sent after the second had begun.
fn late_changes(commands: &[Command], theirs: &BTreeSet<String>) -> Result<Vec<Command>> {
    const READS: [&str; 7] = ["ls", "info", "getpath", "list", "get", "status", "session ls"];
    let reads = |c: &Command| READS.iter().any(|end| c.prefix().ends_with(end));
    let after = &commands[taken_over(commands, theirs)?..];
    Ok(after
        .iter()
        .filter(|c| theirs.contains(&c.by) && !reads(c))
        .cloned()
        .collect())
}

/// How Ceph says so: its manager puts it in words (with the errno EINVAL), or answers with the errno.
const FULL: [&str; 4] = ["No space left", "Disk quota exceeded", "errno 28", "errno 122"];

/// No room for data on one file system: shares there say so, those on the other do not care; nothing is lost.
#[test]
#[ignore = "cargo xtask test --faults: it takes longer than stands before every change"]
fn a_full_pool() {
    SUITE.run(start, async |suite| {
        play("full", Stopped, NO_ROOM, suite, async |scene| {
            let quota = |bytes: u64| {
                suite.admin.mon(json!({
                    "prefix": "osd pool set-quota", "pool": "cephfs.data", "field": "max_bytes",
                    "val": bytes.to_string(),
                }))
            };
            quota(1)?;
            let outcome = async {
                scene.nfs.until_felt().await?;
                scene.native.until_felt().await?;
                suite
                    .ask_for_share(&scene.ns, "during", "CephFS", "on-cephfs", SIZE)
                    .await?;
                let shares = suite.world.api::<Share>(&scene.ns);
                let told = eventually("the share to say why", Duration::from_mins(1), async || {
                    let share = shares.get("during").await?;
                    Ok(conditions(&share)
                        .iter()
                        .find(|c| c.type_ == "Ready" && c.status == "False")
                        .filter(|c| FULL.iter().any(|word| c.message.contains(word)))
                        .map(|c| format!("{}: {}", c.reason, c.message)))
                })
                .await;
                println!("{}", told?);
                suite
                    .ask_for_share(&scene.ns, "elsewhere", "CephFS", "on-second", SIZE)
                    .await?;
                suite.ready(&scene.ns, "elsewhere").await.map(drop)
            }
            .await;
            quota(0)?;
            outcome?;
            suite.ready(&scene.ns, "during").await.map(drop)
        })
        .await
    });
}
