//! Users who keep changing shares and rules, and clients who keep working, while something is broken.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use parking_lot::Mutex;
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};
use serde_json::json;
use shoal_crds::{Share, ShareAccessRule};
use tokio::{runtime::Handle, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    lab::{
        CephFsMount, FileUser, NfsClient,
        client::{ClientError, Failure, Owner, failure},
    },
    storage::{SIZE, Storage, cephx_rule, ip_rule},
    world::{World, eventually},
};

/// How long a user asks again for what the API server does not take, and a client for what a broken server does not do: longer
/// than Ceph takes at most until it is well again by itself.
const PATIENCE: Duration = Duration::from_mins(8);
/// How long a user waits for one answer of the API server.
const ANSWER: Duration = Duration::from_secs(5);
/// Rules of one user on one share.
const RULES: u8 = 3;
/// Files that a client keeps.
const FILES: u64 = 16;
/// Bytes in a file.
const FILE: usize = 16 << 10;

// ---- users

/// Users at work; each changes one share and its rules.
pub struct Users {
    stop: CancellationToken,
    steps: Arc<AtomicU64>,
    tasks: JoinSet<Result<User>>,
}

/// What a user may do with a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mine {
    /// Anything: resize and delete it, and make it again under its name at once.
    Wholly,
    /// Its size, and rules beside others'.
    Shared,
}

/// One user: what was asked for last is what has to be there in the end.
pub struct User {
    world: &'static World,
    namespace: String,
    share: String,
    protocol: &'static str,
    share_type: &'static str,
    mine: Mine,
    random: SmallRng,
    size: u64,
    /// Rules by number, and their level.
    rules: BTreeMap<u8, &'static str>,
}

impl User {
    /// One for a share that is not there yet, or that is [`Mine::Shared`]. Everything it does follows from the seed.
    pub fn new(
        world: &'static World,
        namespace: &str,
        share: &str,
        protocol: &'static str,
        share_type: &'static str,
        mine: Mine,
        seed: u64,
    ) -> Self {
        Self {
            world,
            namespace: namespace.into(),
            share: share.into(),
            protocol,
            share_type,
            mine,
            random: SmallRng::seed_from_u64(seed),
            size: SIZE,
            rules: BTreeMap::new(),
        }
    }

    async fn work(mut self, stop: CancellationToken, steps: Arc<AtomicU64>) -> Result<Self> {
        if self.mine == Mine::Wholly {
            self.ask().await?;
        }
        while !stop.is_cancelled() {
            self.step()
                .await
                .with_context(|| format!("the user of {}/{}", self.namespace, self.share))?;
            steps.fetch_add(1, Ordering::Relaxed);
            // A user's pace. Nothing is waited for.
            let pause = Duration::from_millis(self.random.random_range(100..500));
            tokio::time::sleep(pause).await;
        }
        Ok(self)
    }

    async fn step(&mut self) -> Result<()> {
        let number = self.random.random_range(0..RULES);
        match self.random.random_range(0..10) {
            0..3 => {
                self.size = SIZE + self.random.random_range(0..1000_u64) * 4096;
                self.ask().await
            }
            3..7 => self.let_in(number).await,
            7..9 => self.put_out(number).await,
            _ if self.mine == Mine::Wholly => self.make_anew().await,
            _ => self.let_in(number).await,
        }
    }

    fn shares(&self) -> Api<Share> {
        self.world.api(&self.namespace)
    }

    fn rule_name(&self, number: u8) -> String {
        format!("{}-{number}", self.share)
    }

    fn spec(&self) -> serde_json::Value {
        json!({
            "protocol": self.protocol, "shareTypeName": self.share_type, "size": self.size.to_string(),
        })
    }

    async fn ask(&self) -> Result<()> {
        let ask = || self.world.share(&self.namespace, &self.share, self.spec());
        taken(ask).await.map(drop)
    }

    async fn let_in(&mut self, number: u8) -> Result<()> {
        let levels = ["ReadWrite", "ReadOnly"];
        let level = levels[usize::from(self.random.random_bool(0.5))];
        let spec = if self.protocol == "NFS" {
            ip_rule(&self.share, &format!("10.{number}.0.0/16"), level)
        } else {
            let identity = match number {
                0 => String::new(),
                _ => format!("{}-{}-{number}", self.namespace, self.share),
            };
            cephx_rule(&self.share, &identity, level)
        };
        let name = self.rule_name(number);
        // One that is being deleted is another's: it has to be gone first.
        if !self.rules.contains_key(&number) {
            self.until_no_rule(&name).await?;
        }
        taken(|| self.world.rule(&self.namespace, &name, spec.clone())).await?;
        self.rules.insert(number, level);
        Ok(())
    }

    async fn put_out(&mut self, number: u8) -> Result<()> {
        let rules: Api<ShareAccessRule> = self.world.api(&self.namespace);
        let name = self.rule_name(number);
        gone_is_fine(taken(async || rules.delete(&name, &DeleteParams::default()).await.map(drop)).await)?;
        self.rules.remove(&number);
        Ok(())
    }

    async fn until_no_rule(&self, name: &str) -> Result<()> {
        let rules: Api<ShareAccessRule> = self.world.api(&self.namespace);
        eventually(&format!("{name} to be gone"), PATIENCE, async || {
            Ok(taken(async || rules.get_opt(name).await)
                .await?
                .is_none()
                .then_some(()))
        })
        .await
    }

    /// Deletes the share and makes it again as soon as the name is free. Rules may stay, and are then the new share's.
    async fn make_anew(&mut self) -> Result<()> {
        let shares = self.shares();
        let old = taken(async || shares.get(&self.share).await).await?.uid();
        if self.random.random_bool(0.5) {
            let numbers: Vec<u8> = self.rules.keys().copied().collect();
            for number in numbers {
                self.put_out(number).await?;
            }
        }
        gone_is_fine(
            taken(async || {
                shares
                    .delete(&self.share, &DeleteParams::default())
                    .await
                    .map(drop)
            })
            .await,
        )?;
        let new: Share = serde_json::from_value(json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "Share",
            "metadata": {"namespace": self.namespace, "name": self.share}, "spec": self.spec(),
        }))?;
        let made = eventually("the name to be free", PATIENCE, async || {
            // One that was made without our hearing of it is as good.
            let there = taken(async || shares.get_opt(&self.share).await).await?;
            if there.is_some_and(|share| share.uid() != old) {
                return Ok(Some(()));
            }
            let made = tokio::time::timeout(ANSWER, shares.create(&PostParams::default(), &new)).await;
            Ok(matches!(made, Ok(Ok(_))).then_some(()))
        });
        made.await
    }

    /// That the objects are as this user asked for last, and say that all is done.
    pub async fn check(&self) -> Result<()> {
        let share = self.shares().get(&self.share).await?;
        ensure!(
            self.mine == Mine::Shared || share.spec.size.bytes() == self.size,
            "{}/{} is {} large, and {} was asked for",
            self.namespace,
            self.share,
            share.spec.size,
            self.size
        );
        let rules: Api<ShareAccessRule> = self.world.api(&self.namespace);
        let own = format!("{}-", self.share);
        let there: BTreeMap<String, String> = rules
            .list(&ListParams::default())
            .await?
            .into_iter()
            .filter(|rule| rule.name_any().starts_with(&own))
            .map(|rule| (rule.name_any(), format!("{:?}", rule.spec.access_level)))
            .collect();
        let wanted: BTreeMap<String, String> = self
            .rules
            .iter()
            .map(|(number, level)| (self.rule_name(*number), (*level).to_owned()))
            .collect();
        ensure!(
            there == wanted,
            "rules are {there:?}, and {wanted:?} were asked for"
        );
        Ok(())
    }
}

impl Users {
    /// Sets users to work.
    pub fn start(users: impl IntoIterator<Item = User>) -> Self {
        let (stop, steps) = (CancellationToken::new(), Arc::<AtomicU64>::default());
        let mut tasks = JoinSet::new();
        for user in users {
            let (stop, steps, runtime) = (stop.clone(), steps.clone(), Handle::current());
            // On a thread of its own, so that it need not be `Send`.
            tasks.spawn_blocking(move || runtime.block_on(user.work(stop, steps)));
        }
        Self { stop, steps, tasks }
    }

    /// How many steps they have made together.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Waits until they have made this many steps more.
    pub async fn until_more(&self, steps: u64) -> Result<()> {
        let enough = self.steps() + steps;
        eventually("users to go on", PATIENCE, async || {
            Ok((self.steps() >= enough).then_some(()))
        })
        .await
    }

    /// Waits until each has finished what it is at.
    pub async fn end(mut self) -> Result<Vec<User>> {
        self.stop.cancel();
        let mut users = Vec::new();
        while let Some(user) = self.tasks.join_next().await {
            users.push(user??);
        }
        Ok(users)
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Asks until the API server has taken it. It may be away meanwhile, or not answer; what it refuses is an error.
async fn taken<T, F>(ask: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = kube::Result<T>>,
{
    let until = Instant::now() + PATIENCE;
    loop {
        let trouble = match tokio::time::timeout(ANSWER, ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(kube::Error::Api(status)))
                if status.code < 500 && status.code != 429 && status.code != 409 =>
            {
                return Err(kube::Error::Api(status).into());
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer in {ANSWER:?}"),
        };
        ensure!(
            Instant::now() < until,
            "the API server took nothing for {PATIENCE:?}: {trouble}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn gone_is_fine(answer: Result<()>) -> Result<()> {
    match answer {
        Err(error)
            if error
                .downcast_ref::<kube::Error>()
                .is_some_and(|e| matches!(e, kube::Error::Api(status) if status.code == 404)) =>
        {
            Ok(())
        }
        other => other,
    }
}

// ---- clients

/// A client that was let in before and goes on writing, reading and comparing, in a thread of its own.
pub struct Client {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    name: String,
    stop: AtomicBool,
    rounds: AtomicU64,
    tolerated: Mutex<&'static [Failure]>,
    /// Failures that were tolerated, and how often.
    felt: Mutex<BTreeMap<String, usize>>,
    failed: Mutex<Option<String>>,
}

/// What a client has mounted.
pub enum Files {
    /// By libnfs.
    Nfs {
        /// Where.
        storage: &'static Storage,
        /// What.
        share: Box<Share>,
        /// From where.
        source: IpAddr,
        /// The mount.
        client: NfsClient,
    },
    /// By ceph-fuse.
    Native {
        /// Dropped first.
        user: FileUser,
        /// The mount.
        mount: CephFsMount<'static>,
    },
}

impl Files {
    fn write(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Nfs { client, .. } => client.write(path, bytes),
            Self::Native { user, .. } => user.write(path, bytes),
        }
    }

    fn read(&mut self, path: &str) -> Result<Vec<u8>> {
        match self {
            Self::Nfs { client, .. } => client.read(path),
            Self::Native { user, .. } => user.read(path),
        }
    }

    fn remove(&mut self, path: &str) -> Result<()> {
        match self {
            Self::Nfs { client, .. } => client.remove(path),
            Self::Native { user, .. } => user.remove(path),
        }
    }

    /// After an error. libnfs does not reclaim what it had open at a server that was restarted, as kernels do, and is of no
    /// use after a time-out: it mounts anew. The native client stays mounted; only the program that waits for an answer is
    /// another.
    fn renew(&mut self) -> Result<()> {
        match self {
            Self::Nfs {
                storage,
                share,
                source,
                client,
            } => *client = storage.mount_now(share, *source, Owner::ROOT)?,
            Self::Native { user, mount } => *user = mount.user(Owner::ROOT)?,
        }
        Ok(())
    }
}

impl Client {
    /// Sets a client to work.
    pub fn start(name: &str, files: Files) -> Self {
        let shared = Arc::new(Shared {
            name: name.into(),
            ..Shared::default()
        });
        let thread = thread::spawn({
            let shared = shared.clone();
            move || {
                let done = Worker {
                    shared: &shared,
                    files,
                    kept: BTreeMap::new(),
                }
                .work();
                if let Err(error) = &done {
                    shared.failed.lock().replace(format!("{error:#}"));
                }
                done
            }
        });
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// From now on these failures are no failure of the test: the client does again what failed, until it succeeds.
    pub fn tolerate(&self, failures: &'static [Failure]) {
        *self.shared.tolerated.lock() = failures;
    }

    /// Failures felt so far, and how often.
    pub fn felt(&self) -> BTreeMap<String, usize> {
        self.shared.felt.lock().clone()
    }

    /// Waits until it has felt something.
    pub async fn until_felt(&self) -> Result<()> {
        eventually(
            &format!("{} to feel it", self.shared.name),
            PATIENCE,
            async || {
                self.check()?;
                Ok((!self.shared.felt.lock().is_empty()).then_some(()))
            },
        )
        .await
    }

    /// Waits until it has done this many rounds more, from the first to the last file operation.
    pub async fn until_more(&self, rounds: u64) -> Result<()> {
        // The round that is under way began before.
        let enough = self.shared.rounds.load(Ordering::Relaxed) + rounds + 1;
        let done = eventually(&format!("{} to go on", self.shared.name), PATIENCE, async || {
            self.check()?;
            Ok((self.shared.rounds.load(Ordering::Relaxed) >= enough).then_some(()))
        })
        .await;
        done.with_context(|| format!("it felt {:?}", self.felt()))
    }

    fn check(&self) -> Result<()> {
        match self.shared.failed.lock().as_ref() {
            Some(error) => bail!("{} failed: {error}", self.shared.name),
            None => Ok(()),
        }
    }

    /// Ends it; an error if it failed, or found what it had not written. How many rounds it did, and what it felt.
    pub async fn end(mut self) -> Result<(u64, BTreeMap<String, usize>)> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it has ended")?;
        let done = tokio::task::spawn_blocking(move || thread.join()).await?;
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .with_context(|| self.shared.name.clone())?;
        Ok((self.shared.rounds.load(Ordering::Relaxed), self.felt()))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

struct Worker<'a> {
    shared: &'a Shared,
    files: Files,
    /// Files by round: their path and content.
    kept: BTreeMap<u64, (String, Vec<u8>)>,
}

impl Worker<'_> {
    fn work(mut self) -> Result<()> {
        let mut random = SmallRng::seed_from_u64(self.shared.name.len() as u64);
        for round in 0.. {
            if self.shared.stop.load(Ordering::Relaxed) {
                break;
            }
            self.round(round, &mut random)
                .with_context(|| format!("round {round}"))?;
            self.shared.rounds.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(50));
        }
        // All that it keeps, by a mount that has nothing in memory.
        self.files.renew()?;
        for (path, content) in std::mem::take(&mut self.kept).into_values() {
            self.compare(&path, &content)?;
        }
        Ok(())
    }

    fn round(&mut self, round: u64, random: &mut SmallRng) -> Result<()> {
        let mut content = vec![0; FILE];
        random.fill_bytes(&mut content);
        let mut attempt = 0;
        // A name of its own for each attempt: what comes late of one that was given up must not meet another.
        let path = self.until_done(|files| {
            attempt += 1;
            let path = format!("/{round}.{attempt}");
            files.write(&path, &content).map(|()| path)
        })?;
        self.compare(&path, &content)?;
        self.kept.insert(round, (path, content));
        let oldest = self.kept.first_key_value().map(|(round, _)| *round);
        let Some(oldest) = oldest.filter(|oldest| oldest + FILES <= round) else {
            return Ok(());
        };
        let (path, content) = self.kept.remove(&oldest).context("the oldest file")?;
        self.compare(&path, &content)?;
        let mut again = false;
        self.until_done(|files| match files.remove(&path) {
            // The attempt before had its effect after all.
            Err(error) if again && failure(&error) == Some(Failure::NotFound) => Ok(()),
            done => {
                again = true;
                done
            }
        })
    }

    fn compare(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let read = self.until_done(|files| files.read(path))?;
        ensure!(
            read == content,
            "{path} holds something else than was written: {} bytes",
            read.len()
        );
        Ok(())
    }

    /// Does something until it succeeds. A failure counts if it was not to be expected when it began, nor when it ended.
    fn until_done<T>(&mut self, mut act: impl FnMut(&mut Files) -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        loop {
            let before = *self.shared.tolerated.lock();
            let error = match act(&mut self.files) {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            self.judge(error, before, begun)?;
            loop {
                let before = *self.shared.tolerated.lock();
                match self.files.renew() {
                    Ok(()) => break,
                    Err(error) => self.judge(error, before, begun)?,
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
    }

    fn judge(&self, error: anyhow::Error, before: &[Failure], begun: Instant) -> Result<()> {
        let after = *self.shared.tolerated.lock();
        let known = error.downcast_ref::<ClientError>();
        let Some(felt) = known.filter(|e| before.contains(&e.failure) || after.contains(&e.failure)) else {
            return Err(error);
        };
        let what = format!("{:?}, errno {:?}", felt.failure, felt.errno);
        if begun.elapsed() > PATIENCE {
            bail!("it did not succeed for {PATIENCE:?}: {error:#}");
        }
        *self.shared.felt.lock().entry(what).or_default() += 1;
        Ok(())
    }
}
