use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use proptest::prelude::*;
use shoal_crds::{AccessLevel, AccessType, Protocol, RootDirectory, Squash};
use shoal_domain::{
    grant::{self, Access, Client, Grant, Key},
    identity::Identity,
    owner::{Owner, Place, Tag, pseudo_path, subvolume_name},
    volume::{Export, NewVolume, Sight, VolumeRef},
};
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::{
    Backend,
    conformance::{self, Flaw, Hand, Subject},
};

const FS: &str = "cephfs";

// ---- the conformance suite

#[derive(Debug)]
struct Bench {
    cluster: Cluster,
    backend: Simulated,
    sibling: Simulated,
    uids: AtomicU64,
}

impl Bench {
    fn new(cluster: &Cluster, latency: Duration) -> Self {
        let settings = || Settings {
            latency,
            ..Settings::default()
        };
        Self {
            cluster: cluster.clone(),
            backend: Simulated::new(cluster, FS, settings()).unwrap(),
            sibling: Simulated::new(cluster, "second", settings()).unwrap(),
            uids: AtomicU64::new(0),
        }
    }
}

fn done<T>(hand: &'static str, answer: Result<T>) -> Hand<T> {
    answer.map_err(|error| Flaw::of_hand(hand, error))
}

#[async_trait]
impl Subject for Bench {
    fn backend(&self) -> &dyn Backend {
        &self.backend
    }

    fn sibling(&self) -> Option<&dyn Backend> {
        Some(&self.sibling)
    }

    fn fresh_uid(&self) -> String {
        format!("uid-{}", self.uids.fetch_add(1, Ordering::Relaxed))
    }

    async fn writes(&self) -> Hand<u64> {
        done("writes", self.cluster.effects())
    }

    async fn root(&self, volume: &VolumeRef) -> Hand<RootDirectory> {
        let holdings = done("root", self.cluster.snapshot())?;
        holdings
            .share(FS, &volume.place.subvolume, &volume.pseudo_path)
            .map(|held| held.root)
            .ok_or_else(|| Flaw::of_hand("root", "not there"))
    }

    async fn fill(&self, volume: &VolumeRef, bytes: u64) -> Hand<()> {
        done("fill", self.cluster.set_used(FS, &volume.owner.uid, bytes))
    }

    async fn set_tag(&self, volume: &VolumeRef, text: Option<&str>) -> Hand<()> {
        done("set_tag", self.cluster.set_tag(FS, &volume.owner.uid, text))
    }

    async fn set_quota(&self, volume: &VolumeRef, bytes: u64) -> Hand<()> {
        done(
            "set_quota",
            self.cluster.set_quota(FS, &volume.owner.uid, Some(bytes)),
        )
    }

    async fn delete_subvolume(&self, volume: &VolumeRef) -> Hand<()> {
        done(
            "delete_subvolume",
            self.cluster.delete_subvolume(FS, &volume.owner.uid),
        )
    }

    async fn add_snapshot(&self, volume: &VolumeRef) -> Hand<()> {
        done(
            "add_snapshot",
            self.cluster.set_snapshots(FS, &volume.owner.uid, 1),
        )
    }

    async fn remove_snapshots(&self, volume: &VolumeRef) -> Hand<()> {
        done(
            "remove_snapshots",
            self.cluster.set_snapshots(FS, &volume.owner.uid, 0),
        )
    }

    async fn take_path(&self, volume: &VolumeRef, other: &VolumeRef) -> Hand<()> {
        let holdings = done("take_path", self.cluster.snapshot())?;
        let path = &holdings.subvolumes[&(FS.to_owned(), other.place.subvolume.clone())].path;
        done("take_path", self.cluster.take_path(&volume.pseudo_path, FS, path))
    }

    async fn remove_export(&self, volume: &VolumeRef) -> Hand<()> {
        done("remove_export", self.cluster.remove_export(&volume.pseudo_path))
    }

    async fn add_client(&self, volume: &VolumeRef) -> Hand<()> {
        let holdings = done("add_client", self.cluster.snapshot())?;
        let mut clients = holdings.exports[&volume.pseudo_path].clients.clone();
        clients.push(NfsClient {
            address: "0.0.0.0/0".into(),
            level: AccessLevel::ReadWrite,
            squash: Squash::None,
        });
        done(
            "add_client",
            self.cluster.set_clients(&volume.pseudo_path, clients),
        )
    }

    async fn open_export(&self, volume: &VolumeRef) -> Hand<()> {
        done("open_export", self.cluster.open_export(&volume.pseudo_path))
    }

    async fn authorize(&self, volume: &VolumeRef, identity: &str) -> Hand<()> {
        let grant = cephx(identity, AccessLevel::ReadWrite);
        done(
            "authorize",
            self.cluster
                .authorize(FS, &volume.owner.uid, &volume.tenant, &grant),
        )
    }

    async fn deauthorize(&self, volume: &VolumeRef, identity: &str) -> Hand<()> {
        done(
            "deauthorize",
            self.cluster.deauthorize(FS, &volume.owner.uid, identity),
        )
    }

    async fn add_identity(&self, identity: &str) -> Hand<()> {
        done("add_identity", self.cluster.add_identity(FS, identity))
    }

    async fn mount(&self, volume: &VolumeRef, identity: &str, key: &Key, directory: &str) -> Hand<u64> {
        done(
            "mount",
            self.cluster
                .mount(FS, &volume.place.subvolume, identity, key, directory),
        )
    }

    async fn is_mounted(&self, session: u64) -> Hand<bool> {
        done("is_mounted", self.cluster.is_mounted(session))
    }

    async fn stall(&self) -> Hand<()> {
        done("stall", self.cluster.stall())
    }

    async fn resume(&self) -> Hand<()> {
        done("resume", self.cluster.resume())
    }
}

async fn passes_the_suite(cluster: &Cluster, latency: Duration) {
    let bench = Bench::new(cluster, latency);
    let report = conformance::run(&bench, "").await;
    println!("{report}");
    assert!(report.failed().is_empty(), "{report}");
    assert!(report.skipped().is_empty(), "{report}");
    let left = cluster.snapshot().unwrap();
    assert!(
        left.subvolumes.is_empty() && left.exports.is_empty() && left.pending == 0,
        "{left:?}"
    );
    assert!(
        left.identities.values().all(|held| held.tenant.is_none()),
        "{left:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn conforms() {
    passes_the_suite(&Cluster::new(1), Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn conforms_with_latency() {
    passes_the_suite(&Cluster::new(1), Duration::from_millis(20)).await;
}

#[tokio::test(start_paused = true)]
async fn conforms_with_a_state_file() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::with_state_file(&folder.path().join("state.json"), 1).unwrap();
    passes_the_suite(&cluster, Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn suite_says_what_it_could_not_play() {
    #[derive(Debug)]
    struct Handless(Simulated, AtomicU64);
    impl Subject for Handless {
        fn backend(&self) -> &dyn Backend {
            &self.0
        }
        fn fresh_uid(&self) -> String {
            format!("uid-{}", self.1.fetch_add(1, Ordering::Relaxed))
        }
    }
    let cluster = Cluster::new(1);
    cluster.set_nfs_endpoints(None).unwrap();
    let handless = Handless(
        Simulated::new(&cluster, FS, Settings::default()).unwrap(),
        AtomicU64::new(0),
    );
    let report = conformance::run(&handless, "").await;
    assert!(report.failed().is_empty(), "{report}");
    let skipped = report.skipped();
    assert!(skipped.contains(&"NFS/twenty_clients"), "{report}");
    assert!(
        skipped.contains(&"CephFS/root_has_its_owner_and_mode"),
        "{report}"
    );
    assert!(
        !skipped.contains(&"CephFS/create_makes_exactly_what_is_asked"),
        "{report}"
    );
}

// ---- the pieces

fn volume(uid: &str, protocol: Protocol) -> VolumeRef {
    let owner = Owner {
        cluster: "k8s".into(),
        namespace: "team".into(),
        name: uid.into(),
        uid: uid.into(),
        left: None,
    };
    VolumeRef {
        place: Place::of(None, uid),
        pseudo_path: pseudo_path(uid),
        owner,
        protocol,
        tenant: "tenant".into(),
    }
}

fn new(size_bytes: u64) -> NewVolume {
    NewVolume {
        size_bytes,
        root: RootDirectory::default(),
        was_there: false,
    }
}

fn cephx(identity: &str, level: AccessLevel) -> Grant {
    Grant {
        client: Client::CephX(identity.into()),
        level,
        squash: Squash::None,
    }
}

fn ip(text: &str, level: AccessLevel) -> Grant {
    Grant {
        client: Client::parse(AccessType::IP, text).unwrap(),
        level,
        squash: Squash::None,
    }
}

struct One {
    cluster: Cluster,
    backend: Simulated,
    on: Identity,
    volume: VolumeRef,
}

impl One {
    async fn new(protocol: Protocol) -> Self {
        let cluster = Cluster::new(7);
        let backend = Simulated::new(&cluster, FS, Settings::default()).unwrap();
        let on = backend.describe(None).await.unwrap().identity;
        Self {
            cluster,
            backend,
            on,
            volume: volume("u", protocol),
        }
    }

    async fn made(protocol: Protocol) -> Self {
        let one = Self::new(protocol).await;
        one.backend.create(&one.on, &one.volume, &new(100)).await.unwrap();
        one
    }

    fn held(&self) -> Option<HeldShare> {
        self.cluster
            .snapshot()
            .unwrap()
            .share(FS, &subvolume_name("u"), "/shoal-u")
    }

    async fn look(&self) -> Result<Sight> {
        self.backend.look(&self.on, &self.volume).await
    }

    fn deadline(&self) -> Duration {
        self.backend.deadline()
    }
}

#[tokio::test(start_paused = true)]
async fn failing_before_has_no_effect_and_after_has() {
    let one = One::new(Protocol::NFS).await;
    one.cluster
        .fail_next(Operation::Create, 0, FaultKind::FailBefore)
        .unwrap();
    let failed = one.backend.create(&one.on, &one.volume, &new(100)).await;
    assert!(matches!(failed, Err(Error::Failed(_))));
    assert_eq!(one.held(), None);

    one.cluster
        .fail_next(Operation::Create, 0, FaultKind::FailAfter)
        .unwrap();
    assert!(one.backend.create(&one.on, &one.volume, &new(100)).await.is_err());
    assert_eq!(one.held().unwrap().tag, Tag::Absent);

    one.cluster
        .fail_next(Operation::Create, 1, FaultKind::FailAfter)
        .unwrap();
    assert!(one.backend.create(&one.on, &one.volume, &new(100)).await.is_err());
    assert_eq!(one.held().unwrap().tag, Tag::Owner(one.volume.owner.clone()));

    assert!(one.backend.create(&one.on, &one.volume, &new(100)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn every_method_can_be_told_to_fail() {
    let one = One::made(Protocol::CephFS).await;
    let grant = cephx("alice", AccessLevel::ReadWrite);
    one.backend
        .export(&one.on, &one.volume, &vec![grant.clone()])
        .await
        .unwrap();
    for operation in Operation::ALL {
        one.cluster
            .fail_next(operation, 0, FaultKind::FailBefore)
            .unwrap();
        let (on, volume) = (&one.on, &one.volume);
        let answer = match operation {
            Operation::Describe => one.backend.describe(None).await.map(drop),
            Operation::Look => one.backend.look(on, volume).await.map(drop),
            Operation::Create => one.backend.create(on, volume, &new(100)).await.map(drop),
            Operation::Resize => one.backend.resize(on, volume, 100).await,
            Operation::Export => one
                .backend
                .export(on, volume, &vec![grant.clone()])
                .await
                .map(drop),
            Operation::Key => one.backend.key(on, volume, &grant).await.map(drop),
            Operation::Unexport => one.backend.unexport(on, volume).await,
            Operation::Remove => one.backend.remove(on, volume).await,
            Operation::HandOver => one.backend.hand_over(on, volume, &volume.owner).await,
            Operation::SetMetadata => one.backend.set_metadata(on, volume, Some("{}")).await,
            Operation::List => one.backend.list(on).await.map(drop),
            Operation::Tag => one.backend.tag(on, &volume.place.subvolume).await.map(drop),
            Operation::Revoke => one.backend.revoke(on, volume).await,
        };
        assert!(
            matches!(answer, Err(Error::Failed(_))),
            "{operation:?}: {answer:?}"
        );
    }
    assert!(one.held().is_some_and(|held| held.access == [grant]));
}

#[tokio::test(start_paused = true)]
async fn hanging_takes_the_deadline_then_is_silent_until_the_effect_has_come() {
    let one = One::new(Protocol::NFS).await;
    let hang = FaultKind::Hang(After::Delay(Duration::from_mins(1)));
    one.cluster.fail_next(Operation::Create, 0, hang).unwrap();
    let start = Instant::now();
    let answer = one.backend.create(&one.on, &one.volume, &new(100)).await;
    assert!(matches!(answer, Err(Error::TimedOut(_))), "{answer:?}");
    assert_eq!(start.elapsed(), one.deadline());
    assert_eq!(one.held(), None);

    let answer = one.look().await;
    assert!(matches!(answer, Err(Error::Silent(_))), "{answer:?}");
    assert_eq!(start.elapsed(), one.deadline());

    advance(Duration::from_mins(1)).await;
    let Sight::Present(found) = one.look().await.unwrap() else {
        panic!("absent although answered")
    };
    assert_eq!(found.tag, Tag::Absent);
}

#[tokio::test(start_paused = true)]
async fn what_hangs_holds_up_another_replica_in_order() {
    let one = One::made(Protocol::NFS).await;
    let standby = Simulated::new(&one.cluster, FS, Settings::default()).unwrap();
    let hang = FaultKind::Hang(After::Delay(Duration::from_secs(20)));
    one.cluster.fail_next(Operation::Resize, 0, hang).unwrap();
    assert!(one.backend.resize(&one.on, &one.volume, 200).await.is_err());
    // It knows nothing of the time-out; its look waits its turn, and sees the effect.
    let Sight::Present(found) = standby.look(&one.on, &one.volume).await.unwrap() else {
        panic!("absent")
    };
    assert_eq!(found.size_bytes, Some(200));
}

#[tokio::test(start_paused = true)]
async fn a_hang_can_last_for_so_many_calls() {
    let one = One::made(Protocol::NFS).await;
    one.cluster
        .fail_next(Operation::Resize, 0, FaultKind::Hang(After::Calls(3)))
        .unwrap();
    assert!(one.backend.resize(&one.on, &one.volume, 200).await.is_err());
    for _ in 0..2 {
        assert!(matches!(one.look().await, Err(Error::Silent(_))));
    }
    let Sight::Present(found) = one.look().await.unwrap() else {
        panic!("absent")
    };
    assert_eq!(found.size_bytes, Some(200));
}

#[tokio::test(start_paused = true)]
async fn a_stray_effect_comes_after_the_delete() {
    let one = One::new(Protocol::NFS).await;
    let stray = FaultKind::Stray(After::Delay(Duration::from_mins(10)));
    one.cluster.fail_next(Operation::Create, 0, stray).unwrap();
    assert!(one.backend.create(&one.on, &one.volume, &new(100)).await.is_err());
    assert_eq!(one.look().await, Ok(Sight::Absent { leftovers: false }));
    one.backend.remove(&one.on, &one.volume).await.unwrap();
    advance(Duration::from_mins(10)).await;
    assert!(one.held().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_late_export_of_a_removed_subvolume_is_refused() {
    let one = One::made(Protocol::NFS).await;
    let stray = FaultKind::Stray(After::Delay(Duration::from_mins(10)));
    one.cluster.fail_next(Operation::Export, 0, stray).unwrap();
    assert!(
        one.backend
            .export(&one.on, &one.volume, &Vec::new())
            .await
            .is_err()
    );
    one.backend.remove(&one.on, &one.volume).await.unwrap();
    advance(Duration::from_mins(10)).await;
    assert_eq!(one.cluster.snapshot().unwrap().exports.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_command_never_comes() {
    let one = One::made(Protocol::NFS).await;
    one.cluster
        .fail_next(Operation::Resize, 0, FaultKind::Lost)
        .unwrap();
    let answer = one.backend.resize(&one.on, &one.volume, 200).await;
    assert!(matches!(answer, Err(Error::TimedOut(_))), "{answer:?}");
    advance(Duration::from_hours(1)).await;
    assert_eq!(one.held().unwrap().size_bytes, Some(100));
    assert_eq!(one.cluster.snapshot().unwrap().pending, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_cluster_resumes_in_order_or_forgets() {
    for forget in [false, true] {
        let one = One::made(Protocol::NFS).await;
        one.cluster.stall().unwrap();
        assert!(matches!(
            one.backend.resize(&one.on, &one.volume, 200).await,
            Err(Error::TimedOut(_))
        ));
        if forget {
            one.cluster.restart_manager().unwrap();
        } else {
            one.cluster.resume().unwrap();
        }
        assert!(one.look().await.is_ok());
        // The read that comes before it was what hung, so nothing was held up.
        assert_eq!(one.held().unwrap().size_bytes, Some(100));
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_outlives_its_sender() {
    let one = One::made(Protocol::NFS).await;
    let slow = Settings {
        latency: Duration::from_secs(1),
        ..Settings::default()
    };
    let slow = Simulated::new(&one.cluster, FS, slow).unwrap();
    // Killed while the second of its commands, the first that writes, is under way.
    let killed = tokio::time::timeout(
        Duration::from_millis(1500),
        slow.resize(&one.on, &one.volume, 200),
    );
    assert!(killed.await.is_err());
    assert_eq!(one.held().unwrap().size_bytes, Some(100));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(one.held().unwrap().size_bytes, Some(200));
}

#[tokio::test(start_paused = true)]
async fn latency_and_random_failures_are_as_set() {
    let cluster = Cluster::new(7);
    let settings = Settings {
        latency: Duration::from_millis(10),
        failure_percent: 30,
        seed: 3,
        ..Settings::default()
    };
    let backend = Simulated::new(&cluster, FS, settings).unwrap();
    let on = loop {
        if let Ok(description) = backend.describe(None).await {
            break description.identity;
        }
    };
    let start = Instant::now();
    let mut failures = 0_u32;
    for n in 0..1000 {
        let volume = volume(&format!("u{n}"), Protocol::CephFS);
        failures += u32::from(backend.look(&on, &volume).await.is_err());
    }
    assert!((250..350).contains(&failures), "{failures}");
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}

#[test]
fn settings_are_what_the_spec_says() {
    let spec = shoal_crds::SimulatedBackend {
        latency_milliseconds: 20,
        failure_percent: 5,
        capacity: None,
    };
    let settings = Settings::of("b", &spec, 1);
    assert_eq!(settings.latency, Duration::from_millis(20));
    assert_eq!((settings.failure_percent, settings.total_bytes), (5, 1 << 50));
}

#[tokio::test(start_paused = true)]
async fn trouble_and_replacement_are_told() {
    let one = One::made(Protocol::NFS).await;
    one.cluster.set_trouble(Some(Trouble::Unreachable)).unwrap();
    assert!(matches!(one.look().await, Err(Error::Unreachable(_))));
    one.cluster
        .set_trouble(Some(Trouble::CredentialsRefused))
        .unwrap();
    assert!(matches!(
        one.backend.describe(None).await,
        Err(Error::CredentialsRefused(_))
    ));
    one.cluster.set_trouble(None).unwrap();

    one.cluster.set_nfs_endpoints(None).unwrap();
    assert!(matches!(one.look().await, Err(Error::NfsClusterNotFound(_))));
    assert_eq!(
        one.backend.describe(None).await.unwrap().protocols,
        [Protocol::CephFS]
    );
    one.cluster
        .set_nfs_endpoints(Some(vec!["192.0.2.11".into()]))
        .unwrap();

    one.cluster.replace_file_system(FS).unwrap();
    assert!(matches!(one.look().await, Err(Error::Replaced { .. })));
    one.cluster.remove_file_system(FS).unwrap();
    assert!(matches!(one.look().await, Err(Error::FileSystemNotFound(_))));
    one.cluster.replace(8).unwrap();
    assert!(matches!(one.look().await, Err(Error::Replaced { .. })));
}

#[tokio::test(start_paused = true)]
async fn capacity_is_what_is_not_used() {
    let one = One::made(Protocol::NFS).await;
    one.cluster.set_used(FS, "u", 60).unwrap();
    let said = one.backend.describe(None).await.unwrap();
    assert_eq!(said.total_bytes.unwrap() - said.free_bytes.unwrap(), 60);
    one.backend.remove(&one.on, &one.volume).await.unwrap();
    let said = one.backend.describe(None).await.unwrap();
    assert_eq!(said.total_bytes, said.free_bytes);
}

#[tokio::test(start_paused = true)]
async fn keys_are_equal_for_equal_seeds_and_never_print() {
    let mut keys = Vec::new();
    for _ in 0..2 {
        let one = One::made(Protocol::CephFS).await;
        one.cluster.record();
        let access = vec![cephx("alice", AccessLevel::ReadWrite)];
        let applied = one.backend.export(&one.on, &one.volume, &access).await.unwrap();
        let key = applied[0].outcome.clone().unwrap().unwrap();
        assert_eq!(key.reveal().len(), 40);
        let printed = format!(
            "{:?} {:?} {:?} {:?} {:?}",
            one.backend,
            one.cluster,
            one.cluster.snapshot().unwrap(),
            one.cluster.log(),
            one.cluster.access(|world, _| Ok(format!("{world:?}"))).unwrap()
        );
        assert!(!printed.contains(key.reveal()));
        keys.push(key);
    }
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test(start_paused = true)]
async fn the_log_says_who_did_what_and_what_came_late() {
    let one = One::made(Protocol::NFS).await;
    one.cluster.record();
    let hang = FaultKind::Hang(After::Delay(Duration::from_mins(1)));
    one.cluster.fail_next(Operation::Resize, 0, hang).unwrap();
    assert!(one.backend.resize(&one.on, &one.volume, 200).await.is_err());
    advance(Duration::from_mins(1)).await;
    one.look().await.unwrap();
    let said: Vec<_> = one
        .cluster
        .log()
        .into_iter()
        .map(|entry| (entry.operation, entry.what))
        .collect();
    assert_eq!(
        said,
        [
            (Operation::Resize, What::Called),
            (Operation::Resize, What::Answered(Some("CommandTimedOut"))),
            (Operation::Look, What::Called),
            (
                Operation::Resize,
                What::Effect {
                    command: "subvolume resize",
                    late: true
                }
            ),
            (Operation::Look, What::Answered(None)),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_state_file_survives_and_is_shared() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.json");
    let first = Cluster::with_state_file(&file, 1).unwrap();
    let backend = Simulated::new(&first, FS, Settings::default()).unwrap();
    let on = backend.describe(None).await.unwrap().identity;
    let volume = volume("u", Protocol::CephFS);
    backend.create(&on, &volume, &new(100)).await.unwrap();
    let grant = cephx("alice", AccessLevel::ReadWrite);
    backend.export(&on, &volume, &vec![grant.clone()]).await.unwrap();
    let key = backend.key(&on, &volume, &grant).await.unwrap();

    // Another process: another seed means nothing, the file is there.
    let second = Cluster::with_state_file(&file, 2).unwrap();
    assert_eq!(first.snapshot(), second.snapshot());
    let standby = Simulated::new(&second, FS, Settings::default()).unwrap();
    assert_eq!(standby.key(&on, &volume, &grant).await, Ok(key));
    second.set_quota(FS, "u", Some(50)).unwrap();
    second
        .fail_next(Operation::Resize, 0, FaultKind::FailBefore)
        .unwrap();
    let Sight::Present(seen) = backend.look(&on, &volume).await.unwrap() else {
        panic!("absent")
    };
    assert_eq!(seen.size_bytes, Some(50));
    assert!(backend.resize(&on, &volume, 100).await.is_err());
    assert!(backend.resize(&on, &volume, 100).await.is_ok());

    // A state that can't be read is nothing to act on, and is not overwritten.
    fs::write(&file, "{").unwrap();
    assert!(matches!(
        backend.look(&on, &volume).await,
        Err(Error::Unreachable(_))
    ));
    assert_eq!(fs::read(&file).unwrap(), b"{");
}

// ---- repeated after any faults, everything comes to the same

/// What one share is to be.
#[derive(Clone, Debug)]
struct Wish {
    size: u64,
    access: Access,
    present: bool,
}

fn access(protocol: Protocol) -> BoxedStrategy<Access> {
    let level = prop_oneof![Just(AccessLevel::ReadWrite), Just(AccessLevel::ReadOnly)];
    let client = 0..6_u8;
    prop::collection::btree_map(client, level, 0..5)
        .prop_map(move |clients| {
            let mut access: Access = clients
                .into_iter()
                .map(|(n, level)| match protocol {
                    Protocol::NFS => ip(&format!("10.0.{n}.0/{}", 24 + n), level),
                    Protocol::CephFS => cephx(&format!("id{n}"), level),
                })
                .collect();
            grant::sort(&mut access);
            access
        })
        .boxed()
}

fn wish(protocol: Protocol) -> impl Strategy<Value = Wish> {
    (1..50_u64, access(protocol), prop::bool::weighted(0.8)).prop_map(|(size, access, present)| Wish {
        size,
        access,
        present,
    })
}

fn fault() -> impl Strategy<Value = Fault> {
    let after = prop_oneof![
        (0..120_u64).prop_map(|secs| After::Delay(Duration::from_secs(secs))),
        (0..5_u64).prop_map(After::Calls),
    ];
    let kind = prop_oneof![
        Just(FaultKind::FailBefore),
        Just(FaultKind::FailAfter),
        after.clone().prop_map(FaultKind::Hang),
        after.prop_map(FaultKind::Stray),
        Just(FaultKind::Lost),
    ];
    (
        prop::sample::select(&Operation::ALL[1..]),
        1..12_u64,
        0..4_u32,
        kind,
    )
        .prop_map(|(operation, call, write, kind)| Fault {
            operation,
            call,
            write,
            kind,
        })
}

const PROTOCOLS: [Protocol; 4] = [Protocol::NFS, Protocol::NFS, Protocol::CephFS, Protocol::CephFS];

/// One try at making the share what it is wished to be, as a pass does it: look, then act.
async fn pass(backend: &Simulated, on: &Identity, volume: &VolumeRef, wish: &Wish) -> Result<()> {
    let sight = backend.look(on, volume).await?;
    if !wish.present {
        if sight != (Sight::Absent { leftovers: false }) {
            backend.unexport(on, volume).await?;
            backend.remove(on, volume).await?;
        }
        return Ok(());
    }
    let found = match sight {
        Sight::Present(found) if found.tag != Tag::Absent => *found,
        _ => backend.create(on, volume, &new(wish.size)).await?,
    };
    if found.size_bytes != Some(wish.size) {
        backend.resize(on, volume, wish.size).await?;
    }
    let in_line = |export: &Export| matches!(export, Export::Ours { access, intact: true, .. } if *access == wish.access);
    if !in_line(&found.export) {
        backend.export(on, volume, &wish.access).await?;
    }
    Ok(())
}

async fn settle(cluster: &Cluster, backend: &Simulated, on: &Identity, wishes: &[Wish]) {
    // Long enough for everything that comes late by itself; asleep, so that what is on its way arrives meanwhile.
    sleep(Duration::from_mins(5)).await;
    for _ in 0..4 {
        for (n, wish) in wishes.iter().enumerate() {
            let volume = volume(&format!("u{n}"), PROTOCOLS[n]);
            while let Err(error) = pass(backend, on, &volume, wish).await {
                assert!(
                    matches!(
                        error,
                        Error::TimedOut(_) | Error::Silent(_) | Error::IdentityNotAvailable
                    ),
                    "{error:?}"
                );
            }
        }
    }
    let holdings = cluster.snapshot().unwrap();
    for (n, wish) in wishes.iter().enumerate() {
        let uid = format!("u{n}");
        let held = holdings.share(FS, &subvolume_name(&uid), &pseudo_path(&uid));
        assert_eq!(held.is_some(), wish.present, "share {n}");
        if let Some(held) = held {
            assert_eq!(held.tag, Tag::Owner(volume(&format!("u{n}"), PROTOCOLS[n]).owner));
            assert_eq!(held.size_bytes, Some(wish.size));
            assert_eq!(held.access, wish.access);
            assert_eq!(held.exported, PROTOCOLS[n] == Protocol::NFS);
        }
    }
    let present = wishes.iter().filter(|wish| wish.present).count();
    assert_eq!(holdings.subvolumes.len(), present);
    assert_eq!(
        holdings.exports.len(),
        (0..2).filter(|n| wishes[*n].present).count()
    );
    assert!(holdings.identities.values().all(|held| !held.paths.is_empty()));
    assert_eq!(holdings.pending, 0);
    let stale = holdings.sessions.iter().filter(|(_, root, identity, level)| {
        let held = &holdings.identities.get(identity);
        !held.is_some_and(|held| {
            held.paths
                .iter()
                .any(|(path, now)| root.starts_with(path.as_str()) && now <= level)
        })
    });
    assert_eq!(stale.count(), 0, "{:?}", holdings.sessions);
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn repeats_after_faults_come_to_the_same(
        faults in prop::collection::vec(fault(), 0..20),
        story in prop::collection::vec(
            (0..4_usize).prop_flat_map(|n| (Just(n), wish(PROTOCOLS[n]))), 1..30),
        mounts in prop::collection::vec(prop::bool::ANY, 30),
        latency in prop_oneof![Just(0_u64), Just(100)],
        seed in any::<u64>(),
    ) {
        run(async move {
            let cluster = Cluster::new(seed);
            let settings = Settings { latency: Duration::from_millis(latency), ..Settings::default() };
            let mut backend = Simulated::new(&cluster, FS, settings.clone()).unwrap();
            let on = backend.describe(None).await.unwrap().identity;
            cluster.script(faults).unwrap();
            let mut wishes = vec![Wish { size: 1, access: Vec::new(), present: false }; 4];
            for (step, (n, wish)) in story.into_iter().enumerate() {
                let volume = volume(&format!("u{n}"), PROTOCOLS[n]);
                wishes[n] = wish;
                // Now and then the replica is killed in the midst of it, and another takes over.
                let pass = pass(&backend, &on, &volume, &wishes[n]);
                if step % 5 == 4 {
                    drop(tokio::time::timeout(Duration::from_millis(350), pass).await);
                    backend = Simulated::new(&cluster, FS, settings.clone()).unwrap();
                } else {
                    drop(pass.await);
                }
                if mounts[step] && PROTOCOLS[n] == Protocol::CephFS {
                    for grant in &wishes[n].access {
                        if let (Client::CephX(identity), Ok(key)) = (&grant.client, backend.key(&on, &volume, grant).await) {
                            cluster.mount(FS, &subvolume_name(&format!("u{n}")), identity, &key, "/below").unwrap();
                        }
                    }
                }
            }
            cluster.end_faults().unwrap();
            settle(&cluster, &backend, &on, &wishes).await;
            // And so it stays, without a write.
            let (before, writes) = (cluster.snapshot(), cluster.effects());
            settle(&cluster, &backend, &on, &wishes).await;
            assert_eq!(cluster.effects(), writes);
            assert_eq!(cluster.snapshot(), before);
        });
    }
}
