//! One run: the plan is played, then everything comes to rest, is deleted, and nothing is left.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    sync::{Arc, atomic::AtomicI64, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use parking_lot::Mutex;
use rand::{RngExt, rngs::SmallRng};
use serde_json::{Value, json};
use shoal_backend::simulated::{Cluster, NfsClient, Trouble};
use shoal_crds::{AccessLevel, Share, ShareDeletion, Squash, condition::types};
use shoal_domain::{
    condition::is_true,
    grant::{Client, Grant},
    owner::{Owner, Tag, subvolume_name},
};
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    api_server::{ApiServer, Options, Verb},
    check::{self, Checker, Violation},
    ensuring, placing,
    plan::{BACKENDS, Fault, Hand, Place, Plan, What, generator},
    recovering::{self, Course, Former},
    replica::{COMMAND_DEADLINE, Host, Process},
    user::User,
    wire::Wire,
};
use crate::holdings::{Altered, path_of};

/// How long everything may take to come to rest after the last fault.
const PATIENCE: Duration = Duration::from_mins(30);
/// How long nothing may be written once it has.
const QUIET: Duration = Duration::from_mins(5);
/// Requests that a run takes at most; one with few faults takes a thousand.
const MOST_REQUESTS: usize = 50_000;
/// How long before the leader wakes the other replica is asked to end, and stays away.
const ALONE: Duration = Duration::from_secs(3);
/// How soon a process that has ended is started again.
const RESTART: Duration = Duration::from_secs(1);

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What must not be, if anything was found.
    pub violation: Option<Violation>,
    /// Of every request and every command, in order: equal runs have equal ones.
    pub log: u64,
    /// Requests to the API server.
    pub requests: usize,
    /// Effects on the storage.
    pub effects: u64,
    /// Simulated time.
    pub took: Duration,
}

/// Plays a plan, in simulated time.
pub fn run(plan: &Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(async { Run::new(plan).play().await }),
        Err(error) => panic!("no runtime: {error}"),
    }
}

struct Run<'a> {
    plan: &'a Plan,
    began: Instant,
    server: ApiServer,
    cluster: Cluster,
    cluster_uid: String,
    user: User,
    checker: Checker,
    replicas: Vec<Replica>,
    /// Where the storage's addresses have moved, if they have.
    moved: Option<u8>,
    /// Compares the storage with the objects.
    watching: tokio::task::AbortHandle,
}

/// A replica over the life of its processes.
struct Replica {
    host: Host,
    process: Option<Process>,
    /// How many processes it has had.
    started: u32,
    start_at: Option<Instant>,
    wake_at: Option<Instant>,
    /// Set when it is stopped with a call in hand.
    caught: Arc<Mutex<Option<Caught>>>,
    end_at: Option<Instant>,
}

/// A replica that was stopped with a call in hand.
struct Caught {
    wake_at: Instant,
    /// Whether the other one is to end shortly before.
    alone: bool,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan) -> Self {
        let began = Instant::now();
        let server = ApiServer::new(Options {
            seed: plan.seed,
            born_held: plan.setting.born_held,
        });
        let cluster = Cluster::new(plan.seed);
        let checker = Checker::new(&server, &cluster, plan, began);
        let user = User::new(&server, plan.setting);
        cluster.record();
        let replicas = (0..2)
            .map(|n| Replica {
                host: Host {
                    began,
                    wire: Wire::new(generator(plan.seed, n), plan.setting),
                    skew: Arc::new(AtomicI64::new(0)),
                    panics: Arc::new(Mutex::default()),
                },
                process: None,
                started: 0,
                start_at: Some(began),
                wake_at: None,
                caught: Arc::default(),
                end_at: None,
            })
            .collect();
        Self {
            plan,
            began,
            server,
            cluster,
            cluster_uid: String::new(),
            user,
            checker,
            replicas,
            moved: None,
            watching: tokio::spawn(async {}).abort_handle(),
        }
    }

    fn watch(&mut self) {
        self.watching.abort();
        let watching = tokio::spawn(self.checker.clone().watch(self.cluster.clone()));
        self.watching = watching.abort_handle();
    }

    async fn play(mut self) -> Outcome {
        self.watch();
        if let Err(error) = self.story().await {
            self.checker
                .violated("everything ends well", format!("{error:#}"));
        }
        self.watching.abort();
        for replica in &self.replicas {
            if let Some(panic) = replica.host.panics.lock().first() {
                self.checker.violated("nothing panics", panic.clone());
            }
        }
        // They hold the checker, and the checker holds them: a run would stay in memory for ever.
        self.server.observe(|_| ());
        self.cluster.observe(|_| ());
        Outcome {
            violation: self.checker.found(),
            log: self.digest(),
            requests: self.server.requests(),
            effects: self.cluster.effects().unwrap_or_default(),
            took: self.began.elapsed(),
        }
    }

    async fn story(&mut self) -> Result<()> {
        self.cluster_uid = self.user.set_up().await?;
        let start = Instant::now();
        for event in &self.plan.events {
            self.pass_time_until(start + event.at).await?;
            match &event.what {
                What::Do(operation) => self.user.start(operation),
                What::Fault(fault) => self.strike(fault)?,
            }
        }
        // Whatever was to come back has come back, and nothing goes wrong any more.
        self.pass_time(Duration::from_mins(2)).await?;
        self.mend()?;
        self.user.finish().await?;
        self.give_back(false)?;
        // Commands that were being waited for when the storage came back are given up at their deadline.
        self.pass_time(COMMAND_DEADLINE + Duration::from_secs(10)).await?;

        self.until("everything to come to rest", |run| {
            Ok(check::unsettled(&run.server))
        })
        .await?;
        // Backends tell how much room there is twice a minute, and shares that wait for it look as often.
        self.pass_time(Duration::from_secs(70)).await?;
        self.compare_at_rest().await?;
        self.quiet().await?;

        self.give_back(true)?;
        if self.plan.setting.etcd_is_lost {
            self.lose_etcd().await.context("after etcd was lost")?;
        }
        self.user.delete_everything().await?;
        // What is locked stays, until its last lock goes.
        self.pass_time(Duration::from_secs(30)).await?;
        self.user.unlock_everything().await?;
        self.until("everything to be gone", |run| {
            let left = ["shareaccessrules", "shares"]
                .iter()
                .find_map(|plural| run.server.objects(plural).into_iter().next());
            Ok(left.map(|object| object.to_string()))
        })
        .await?;
        self.user.keep_nothing().await?;
        self.until("nothing to be left of what was deleted", |run| {
            let left = run.server.objects("sharedeletions").into_iter().next();
            Ok(left.map(|object| object.to_string()))
        })
        .await?;
        // Dependants go within a minute of their owner.
        self.pass_time(Duration::from_secs(70)).await?;
        let altered = self.checker.by_hand().altered.clone();
        let late = self.checker.left_in_custody();
        check::nothing_left(&self.server, &self.cluster, &altered, &late)?;
        self.stop().await
    }

    /// Lets time pass, and starts and wakes processes when they are due.
    async fn pass_time_until(&mut self, until: Instant) -> Result<()> {
        loop {
            if let Some(violation) = self.checker.found() {
                bail!("{}", violation.invariant);
            }
            ensure!(
                self.server.requests() < MOST_REQUESTS,
                "more than {MOST_REQUESTS} requests: somebody asks in a loop"
            );
            let now = Instant::now();
            let mut next = until;
            for index in 0..self.replicas.len() {
                if let Some(due) = self.tend(index, now).await? {
                    next = next.min(due);
                }
            }
            if now >= until {
                return Ok(());
            }
            sleep_until(next.min(now + Duration::from_secs(1))).await;
        }
    }

    async fn pass_time(&mut self, time: Duration) -> Result<()> {
        self.pass_time_until(Instant::now() + time).await
    }

    /// Does what is due of one replica. The answer is when something is due next.
    async fn tend(&mut self, index: usize, now: Instant) -> Result<Option<Instant>> {
        let caught = self.replicas[index].caught.lock().take();
        if let Some(Caught { wake_at, alone }) = caught {
            let replica = &mut self.replicas[index];
            replica.wake_at = Some(replica.wake_at.map_or(wake_at, |at| at.max(wake_at)));
            if alone {
                self.replicas[1 - index].end_at = Some(wake_at - ALONE);
            }
        }
        let replica = &mut self.replicas[index];
        if replica.end_at.is_some_and(|at| at <= now) {
            replica.end_at = None;
            if let Some(process) = &replica.process {
                process.terminate();
                replica.start_at = Some(now + ALONE * 3);
            }
        }
        if replica.wake_at.is_some_and(|at| at <= now) {
            replica.wake_at = None;
            if let Some(process) = &replica.process {
                process.wake();
            }
        }
        if let Some(process) = replica.process.take_if(|process| process.has_ended()) {
            if let Err(error) = process.end().await {
                let text = format!("{error:#}");
                ensure!(
                    !text.contains("ended:"),
                    "a replica's task ended by itself: {text}"
                );
            }
            replica.start_at.get_or_insert(now + RESTART);
        }
        if replica.process.is_none() && replica.start_at.is_some_and(|at| at <= now) {
            replica.start_at = None;
            replica.started += 1;
            let identity = format!("replica-{index}-{}", replica.started);
            replica.process = Some(Process::start(
                &identity,
                self.plan.seed,
                &self.server,
                &self.cluster_uid,
                &self.cluster,
                &replica.host,
            ));
        }
        // One that still runs is started again once it has ended.
        let start_at = replica.start_at.filter(|_| replica.process.is_none());
        Ok([replica.wake_at, replica.end_at, start_at]
            .into_iter()
            .flatten()
            .min())
    }

    fn strike(&mut self, fault: &Fault) -> Result<()> {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        match *fault {
            Fault::Requests {
                replica,
                count,
                writes,
                how,
            } => self.replicas[replica].host.wire.requests(count, writes, how),
            Fault::Partition { replica, seconds: s } => {
                self.replicas[replica].host.wire.cut(seconds(s));
                if let Some(process) = &self.replicas[replica].process {
                    self.server.cut_watches(Some(&process.identity));
                }
            }
            Fault::SlowWatch {
                replica,
                resource,
                seconds: s,
            } => self.replicas[replica].host.wire.slow(resource, seconds(s)),
            Fault::RepeatedEvents { replica, seconds: s } => {
                self.replicas[replica].host.wire.repeat(seconds(s));
            }
            Fault::CutWatches => self.server.cut_watches(None),
            Fault::Compact => self.server.compact(),
            Fault::Kill { replica, back_after } => {
                let replica = &mut self.replicas[replica];
                if let Some(process) = replica.process.take() {
                    process.kill();
                }
                replica.wake_at = None;
                replica.start_at = Some(now + seconds(back_after));
            }
            Fault::Terminate { replica, back_after } => {
                let replica = &mut self.replicas[replica];
                if let Some(process) = &replica.process {
                    process.terminate();
                    replica.start_at = Some(now + seconds(back_after));
                }
            }
            Fault::Pause {
                replica,
                milliseconds,
            } => {
                let replica = &mut self.replicas[replica];
                if let Some(process) = &replica.process {
                    process.pause();
                    let until = now + Duration::from_millis(milliseconds);
                    replica.wake_at = Some(replica.wake_at.map_or(until, |at| at.max(until)));
                }
            }
            Fault::PauseAtWork { milliseconds, alone } => {
                self.pause_at_work(Duration::from_millis(milliseconds), alone);
            }
            Fault::Clock { replica, by } => {
                self.replicas[replica].host.skew.fetch_add(by, Ordering::Relaxed);
            }
            Fault::Command { method, write, kind } => self.cluster.fail_next(method, write, kind)?,
            Fault::Unreachable { seconds: s } => {
                let cluster = self.cluster.clone();
                cluster.set_trouble(Some(Trouble::Unreachable))?;
                tokio::spawn(async move {
                    sleep(seconds(s)).await;
                    drop(cluster.set_trouble(None));
                });
            }
            Fault::Stall { seconds: s, lost } => {
                let cluster = self.cluster.clone();
                cluster.stall()?;
                tokio::spawn(async move {
                    sleep(seconds(s)).await;
                    drop(if lost {
                        cluster.restart_manager()
                    } else {
                        cluster.resume()
                    });
                });
            }
            Fault::Move { number } => {
                let addresses = |network: u8| {
                    (1..3)
                        .map(|host| format!("192.0.{network}.{number}{host}:3300"))
                        .collect()
                };
                self.cluster.set_monitors(addresses(3))?;
                self.cluster.set_nfs_endpoints(Some(addresses(4)))?;
                self.moved = Some(number);
            }
            Fault::Hand { share, hand } => {
                // What is not there can't be changed.
                drop(self.meddle(share, hand));
            }
        }
        Ok(())
    }

    /// Stops whichever replica calls the storage next, where it does.
    fn pause_at_work(&self, time: Duration, alone: bool) {
        let running = self.replicas.iter().filter_map(|replica| {
            let process = replica.process.as_ref()?;
            Some((process.identity.clone(), process.brake(), replica.caught.clone()))
        });
        let running: Vec<_> = running.collect();
        self.checker.at_next_call(move |by| {
            for (identity, brake, caught) in &running {
                if identity == by {
                    brake.pause();
                    let wake_at = Instant::now() + time;
                    *caught.lock() = Some(Caught { wake_at, alone });
                }
            }
        });
    }

    /// Changes a share's storage behind Shoal's back.
    fn meddle(&self, place: Place, hand: Hand) -> Result<()> {
        let share = self.user.share(place).context("no such share")?;
        let uid = share.metadata.uid.clone().unwrap_or_default();
        let status = share.status.clone().unwrap_or_default();
        let is_provisioned = is_true(&status.conditions, types::PROVISIONED);
        let path = path_of(&share);
        let fs_name = status.backend_name.context("nothing was chosen")?;
        let held = self
            .cluster
            .snapshot()?
            .share(&fs_name, &subvolume_name(&uid), &path)
            .context("nothing is held")?;
        match hand {
            Hand::RemoveExport => self.cluster.remove_export(&path)?,
            Hand::RemoveClients => self.cluster.set_clients(&path, Vec::new())?,
            Hand::AddClient => {
                let client = NfsClient {
                    address: "0.0.0.0/0".into(),
                    level: AccessLevel::ReadWrite,
                    squash: Squash::None,
                };
                self.checker.by_hand().clients.insert(uid.clone());
                self.cluster.set_clients(&path, vec![client])?;
            }
            Hand::OpenExport => self.cluster.open_export(&path)?,
            Hand::Quota => self.cluster.set_quota(&fs_name, &uid, None)?,
            Hand::Deauthorize => {
                let identity = held.access.iter().find_map(|Grant { client, .. }| match client {
                    Client::CephX(identity) => Some(identity.clone()),
                    Client::Ip(_) => None,
                });
                self.cluster
                    .deauthorize(&fs_name, &uid, &identity.context("nobody is let in")?)?;
            }
            Hand::Untag => {
                self.checker.by_hand().altered.foreign.remove(&uid);
                if !is_provisioned {
                    self.checker.is_as_never_used(&uid);
                }
                self.cluster.set_tag(&fs_name, &uid, None)?;
            }
            Hand::Retag => {
                ensure!(is_provisioned, "it may never have been Shoal's");
                let owner = Owner {
                    cluster: "another-cluster".into(),
                    namespace: place.namespace().into(),
                    name: place.name("share-"),
                    uid: uid.clone(),
                    left: None,
                };
                self.cluster.set_tag(&fs_name, &uid, Some(&owner.to_tag()))?;
                self.checker.is_anothers(&uid);
            }
            Hand::DeleteSubvolume => {
                self.cluster.delete_subvolume(&fs_name, &uid)?;
                self.checker.is_deleted(&uid, is_provisioned);
            }
        }
        Ok(())
    }

    /// What got another owner's tag gets none, if its Share is being deleted, or of all.
    fn give_back(&self, all: bool) -> Result<()> {
        for deletion in self.server.typed::<ShareDeletion>("sharedeletions") {
            let uid = deletion.spec.share_ref.uid;
            if self.checker.by_hand().altered.foreign.remove(&uid) {
                self.cluster.set_tag(&deletion.spec.backend_name, &uid, None)?;
            }
        }
        for share in self.server.typed::<Share>("shares") {
            let uid = share.metadata.uid.unwrap_or_default();
            let is_due = all || share.metadata.deletion_timestamp.is_some();
            if is_due && self.checker.by_hand().altered.foreign.remove(&uid) {
                let fs_name = share.status.unwrap_or_default().backend_name.unwrap_or_default();
                self.cluster.set_tag(&fs_name, &uid, None)?;
            }
        }
        Ok(())
    }

    fn mend(&mut self) -> Result<()> {
        self.give_back(false)?;
        self.cluster.end_faults()?;
        self.cluster.set_trouble(None)?;
        self.cluster.resume()?;
        self.checker.at_next_call(|_| ());
        for replica in &mut self.replicas {
            *replica.caught.lock() = None;
            replica.end_at = None;
            replica.host.wire.mend();
            if let Some(process) = &replica.process {
                process.wake();
            }
            replica.wake_at = None;
        }
        Ok(())
    }

    /// Waits until `what` finds nothing in the way any more.
    async fn until(&mut self, goal: &str, what: impl Fn(&Self) -> Result<Option<String>>) -> Result<()> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let Some(in_the_way) = what(self)? else {
                return Ok(());
            };
            ensure!(
                Instant::now() < patience,
                "waited {PATIENCE:?} for {goal}; in the way: {in_the_way}"
            );
            self.pass_time(Duration::from_secs(5)).await?;
        }
    }

    /// What was changed by hand is found at the next look; then storage and objects are alike.
    async fn compare_at_rest(&mut self) -> Result<()> {
        let patience = Instant::now() + PATIENCE;
        loop {
            let altered = self.checker.by_hand().altered.clone();
            let compared = match check::unsettled(&self.server) {
                Some(text) => Err(anyhow::anyhow!("{text}")),
                None => check::at_rest(&self.server, &self.cluster, &altered)
                    .and_then(|()| placing::at_rest(&self.server, self.plan.setting.room))
                    .and_then(|()| placing::quotas_at_rest(&self.server))
                    .and_then(|()| placing::names_at_rest(&self.server))
                    .and_then(|()| ensuring::at_rest(&self.server, self.moved)),
            };
            match compared {
                Ok(()) => break,
                Err(error) if Instant::now() > patience => return Err(error),
                Err(_) => self.pass_time(Duration::from_secs(5)).await?,
            }
        }
        // What is another's, or leads nowhere, stays as it is.
        let mut by_hand = self.checker.by_hand();
        let Altered { foreign, deleted, .. } = by_hand.altered.clone();
        by_hand
            .clients
            .retain(|uid| foreign.contains(uid) || deleted.contains(uid));
        Ok(())
    }

    /// Nothing is written at rest but the Lease.
    async fn quiet(&mut self) -> Result<()> {
        let before = self.server.requests();
        self.pass_time(QUIET).await?;
        let log = self.server.log();
        let writes: Vec<_> = log[before..]
            .iter()
            .filter(|call| {
                !matches!(call.verb, Verb::Get | Verb::List | Verb::Watch) && call.resource != "leases"
            })
            .collect();
        ensure!(writes.is_empty(), "written at rest: {writes:#?}");
        let altered = self.checker.by_hand().altered.clone();
        check::at_rest(&self.server, &self.cluster, &altered)
    }

    /// Etcd is lost with all that is in it. What users have in Git is applied to a new cluster on the same storage.
    async fn lose_etcd(&mut self) -> Result<()> {
        // What was given back is the share's own again.
        self.pass_time(Duration::from_secs(90)).await?;
        let mut rng = generator(self.plan.seed, recovering::PART);
        for replica in &mut self.replicas {
            if let Some(process) = replica.process.take() {
                process.kill();
            }
        }
        let former = Former::of(&self.server, self.cluster.snapshot()?);
        let mut beside = generator(self.plan.seed, recovering::BESIDE);
        let course = Course::drawn(&mut beside);
        let neighbour = self.cluster_uid.clone();
        self.server = ApiServer::new(Options {
            seed: self.plan.seed ^ recovering::PART,
            born_held: self.plan.setting.born_held,
        });
        self.checker = Checker::new(&self.server, &self.cluster, self.plan, self.began);
        self.checker.is_recovered(former.altered(), former.names(course));
        self.watch();
        self.user = User::new(&self.server, self.plan.setting);
        self.cluster_uid = self.user.set_up().await?;
        for index in 0..BACKENDS.len() {
            let neighbours = if course.of_a_neighbour {
                vec![&neighbour]
            } else {
                vec![]
            };
            let is_away = course.away == Some(index);
            let spec = json!({"neighbours": neighbours, "paused": is_away});
            self.user.edit_backend(index, spec).await?;
        }
        for replica in &mut self.replicas {
            replica.start_at = Some(Instant::now() + Duration::from_secs(rng.random_range(0..10)));
        }
        let wrong = |rng: &mut SmallRng| {
            let method = recovering::METHODS[rng.random_range(0..recovering::METHODS.len())];
            let kind = recovering::WRONG[rng.random_range(0..recovering::WRONG.len())];
            self.cluster.fail_next(method, rng.random_range(0..2), kind)
        };
        wrong(&mut rng)?;
        wrong(&mut rng)?;
        self.user.apply(&former.documents).await?;
        if let Some(away) = course.away {
            self.pass_time(Duration::from_mins(1)).await?;
            self.user.edit_backend(away, json!({"paused": false})).await?;
        }
        self.until("what was applied anew to come to rest", |run| {
            Ok(check::unsettled(&run.server))
        })
        .await?;
        let verdicts = recovering::verdicts(&self.server, &mut rng);
        let rivals = former.rivals(course, &verdicts, &mut beside);
        for (share, verdict) in &verdicts {
            self.user.decide(share, Some(verdict)).await?;
        }
        self.user.apply(&rivals).await?;
        let fault = Fault::Kill {
            replica: rng.random_range(0..2),
            back_after: rng.random_range(0..10),
        };
        self.pass_time(Duration::from_millis(rng.random_range(0..2000)))
            .await?;
        if course.is_taken_back {
            self.take_back(&verdicts).await?;
        }
        self.strike(&fault)?;
        self.until("what was decided to come to rest", |run| {
            let undecided = recovering::verdicts(&run.server, &mut generator(0, 0));
            let undecided = undecided
                .first()
                .map(|(share, _)| format!("undecided: {share:#?}"));
            Ok(check::unsettled(&run.server).or(undecided))
        })
        .await?;
        self.mend()?;
        self.pass_time(Duration::from_secs(70)).await?;
        let adopted = former.check(&self.server, &self.cluster.snapshot()?)?;
        ensure!(
            !course.of_a_neighbour || adopted.is_empty(),
            "a neighbour's data was adopted: {adopted:?}"
        );
        for owned in adopted {
            self.checker.by_hand().altered.abandoned.remove(&owned);
        }
        // Whether the monitors have moved was told before.
        self.moved = None;
        self.compare_at_rest().await?;
        self.quiet().await
    }

    /// Both replicas die, and a verdict that was not carried out by then is taken back for a while.
    async fn take_back(&mut self, verdicts: &[(Share, String)]) -> Result<()> {
        for replica in 0..self.replicas.len() {
            let back_after = (COMMAND_DEADLINE * 2).as_secs();
            self.strike(&Fault::Kill { replica, back_after })?;
        }
        self.pass_time(COMMAND_DEADLINE).await?;
        let tag = |run: &Self, verdict: &str| -> Result<Option<Tag>> {
            let held = run.cluster.snapshot()?.subvolumes;
            let place = recovering::place_of(verdict);
            Ok(place.and_then(|place| Some(held.get(&place)?.tag.clone())))
        };
        let stored = self.server.typed::<Share>("shares");
        let is_placed = |share: &Share| {
            let now = stored.iter().find(|now| now.metadata.uid == share.metadata.uid);
            let status = now.and_then(|now| now.status.as_ref());
            status.is_some_and(|status| status.backend_name.is_some())
        };
        for (share, verdict) in verdicts.iter().filter(|(share, _)| is_placed(share)) {
            let was = tag(self, verdict)?;
            let is_done =
                matches!(&was, Some(Tag::Owner(owner)) if Some(&owner.uid) == share.metadata.uid.as_ref());
            if was.is_none() || is_done {
                continue;
            }
            self.user.decide(share, None).await?;
            self.pass_time(COMMAND_DEADLINE + Duration::from_mins(1)).await?;
            ensure!(
                tag(self, verdict)? == was,
                "it got data though what had said so was taken back: {share:#?}"
            );
            return self.user.decide(share, Some(verdict)).await;
        }
        Ok(())
    }

    /// Both replicas end as they should, and leave nothing behind.
    async fn stop(&mut self) -> Result<()> {
        let mut owed = false;
        for replica in &mut self.replicas {
            let Some(process) = replica.process.take() else {
                continue;
            };
            let context = process.context.clone();
            process.terminate();
            process.end().await.context("a replica that was asked to end")?;
            ensure!(context.turns.is_idle(), "turns are left over");
            ensure!(context.looks.is_empty(), "looks are left over");
            ensure!(context.in_hand.is_empty(), "commands are left over");
            ensure!(context.ensures.is_empty(), "rounds are left over");
            // It lets its Lease run out. A backend that was deleted meanwhile never answers.
            owed |= context.is_owed_an_answer();
        }
        let held = self.server.objects("leases").into_iter().any(|lease| {
            let holder: &Value = &lease["spec"]["holderIdentity"];
            holder.as_str().is_some_and(|holder| !holder.is_empty())
        });
        ensure!(!held || owed, "the Lease was not released");
        Ok(())
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for mut call in self.server.log() {
            if call.resource == "events" {
                // kube names events after the machine's clock.
                call.name.clear();
            }
            tracing::trace!("{call:?}");
            format!("{call:?}").hash(&mut hasher);
        }
        for entry in self.cluster.log() {
            tracing::trace!("{entry:?}");
            format!("{entry:?}").hash(&mut hasher);
        }
        hasher.finish()
    }
}
