//! Whatever users, people with hands on the storage, faults and crashes do to a share: passes end, they converge, and at
//! rest the backend holds exactly what the objects say, or the status says why not.

use jiff::SignedDuration;
use proptest::{collection::vec, option, prelude::*, sample::select};
use shoal_crds::{
    AccessLevel, DeletionMode, DeletionPolicy, LockedKind, Protocol, condition::reasons, names::REQUESTED_AT,
};
use shoal_domain::{Class, Scope, grant::Grant, owner::Tag, volume::Export};

use crate::{
    fixtures::*,
    world::{Fault, Stored, World},
};

/// What happens to a share between its birth and the moment at which it is left alone.
#[derive(Clone, Debug)]
enum Event {
    // by users
    Size(&'static str),
    AddRule(usize),
    DeleteRule(usize),
    FlipLevel(usize),
    DeleteShare,
    LockShare(usize),
    LockRule(usize),
    Unlock(usize),
    /// By one of two users.
    HideRule(usize, bool),
    ShowRule(usize, bool),
    LoseSecret(usize),
    TakeSecret(usize),
    Value(Option<&'static str>),
    // by hand on the backend
    LoseVolume,
    Tag(Tag),
    Quota(Option<u64>),
    Use(u64),
    LoseExport,
    TakeExport,
    BreakExport,
    LetIn(usize),
    Snapshots(bool),
    Unavailable(usize),
    // trouble
    Backend(Health),
    Fault(Fault),
    StaleRules,
    StaleLocks,
    Slow(bool),
    // by admins
    Request(&'static str),
    Round,
    // time
    Pass {
        look_due: bool,
        killed_after: Option<usize>,
    },
    Wait,
    /// Longer than a retention.
    Later,
}

#[derive(Clone, Copy, Debug)]
enum Health {
    Well,
    NotReady,
    Missing,
    Replaced,
    Moved,
}

const SLOTS: usize = 5;

/// The rules that may be added: each slot has a name, so that a rule can come back with another uid.
fn rule_in(slot: usize, protocol: Protocol, serial: usize) -> shoal_crds::ShareAccessRule {
    let mut rule = match (protocol, slot) {
        (Protocol::NFS, 0) => rule("r0", "10.0.0.1"),
        (Protocol::NFS, 1) => rule("r1", "10.0.0.1/32").read_only(),
        (Protocol::NFS, 2) => rule("r2", "10.0.0.0/24").read_only(),
        (Protocol::NFS, 3) => cephx_rule("r3", None),
        (Protocol::CephFS, 0) => cephx_rule("r0", None),
        (Protocol::CephFS, 1) => cephx_rule("r1", Some("alice")),
        (Protocol::CephFS, 2) => cephx_rule("r2", Some("alice")).read_only(),
        (Protocol::CephFS, 3) => cephx_rule("r3", Some("admin")),
        (Protocol::NFS, _) => rule("r4", "").named_in("value"),
        (Protocol::CephFS, _) => cephx_rule("r4", None).named_in("value"),
    };
    rule.metadata.uid = Some(format!("uid-r{slot}-{serial}"));
    // Some are of one second, so that the name decides.
    rule.aged(-i64::try_from(serial / 2).unwrap())
}

fn client_in(slot: usize, protocol: Protocol) -> shoal_domain::grant::Client {
    match (protocol, slot) {
        (Protocol::NFS, 0 | 1) => ip("10.0.0.1"),
        (Protocol::NFS, _) => ip("10.0.0.0/24"),
        (Protocol::CephFS, 0) => cephx("shoal-uid-r0-0"),
        (Protocol::CephFS, _) => cephx("alice"),
    }
}

fn happen(world: &mut World, event: Event, serial: usize) {
    let protocol = world.share.as_ref().map_or(Protocol::NFS, |s| s.spec.protocol);
    let name = |slot: usize| format!("r{slot}");
    match event {
        Event::Size(text) => world.edit_share(|s| s.sized(text)),
        Event::AddRule(slot) => {
            if world.rules.iter().all(|r| r.named() != name(slot)) {
                world.rules.push(rule_in(slot, protocol, serial));
            }
        }
        Event::DeleteRule(slot) => world.delete_rule(&name(slot)),
        Event::FlipLevel(slot) => world.edit_rule(&name(slot), |r| {
            r.spec.access_level = match r.spec.access_level {
                AccessLevel::ReadWrite => AccessLevel::ReadOnly,
                AccessLevel::ReadOnly => AccessLevel::ReadWrite,
            };
        }),
        Event::DeleteShare => world.delete_share(),
        Event::LockShare(slot) => add_lock(world, slot, LockedKind::Share, "a", serial),
        Event::LockRule(slot) => {
            add_lock(world, slot, LockedKind::ShareAccessRule, &name(slot), serial);
        }
        Event::Unlock(slot) => world.locks.retain(|lock| lock.named() != name(slot)),
        Event::HideRule(slot, other) => {
            let owner = if other { "bob" } else { "alice" };
            let mut new = show_lock(&format!("{owner}-{slot}"), &name(slot), owner);
            new.metadata.uid = Some(format!("uid-lock-{serial}"));
            if world.locks.iter().all(|lock| lock.named() != new.named()) {
                world.hide(new.aged(-i64::try_from(serial / 2).unwrap()));
            }
        }
        Event::ShowRule(slot, other) => {
            let owner = if other { "bob" } else { "alice" };
            world
                .locks
                .retain(|lock| lock.named() != format!("{owner}-{slot}"));
        }
        Event::LoseSecret(slot) => {
            world.secrets.remove(&format!("r{slot}-cephx"));
        }
        Event::TakeSecret(slot) => {
            world.secrets.insert(format!("r{slot}-cephx"), Stored::Foreign);
        }
        Event::Value(value) => {
            world.values.remove("value");
            world.values.extend(value.map(|v| ("value".into(), v.into())));
        }
        Event::LoseVolume => world.subvolume = None,
        Event::Tag(tag) => {
            if let Some(there) = &mut world.subvolume {
                there.tag = tag;
            }
        }
        Event::Quota(bytes) => {
            if let Some(there) = &mut world.subvolume {
                there.size_bytes = bytes;
            }
        }
        Event::Use(bytes) => {
            if let Some(there) = &mut world.subvolume {
                there.used_bytes = bytes;
            }
        }
        Event::LoseExport => world.export = Export::Absent,
        Event::TakeExport if protocol == Protocol::NFS => {
            world.export = Export::Taken("cephfs:/other".into());
        }
        Event::TakeExport => {}
        Event::BreakExport => {
            if let Export::Ours { intact, .. } = &mut world.export {
                *intact = false;
            }
        }
        Event::LetIn(slot) => {
            if let Export::Ours { access, .. } = &mut world.export {
                access.push(may_write(client_in(slot, protocol)));
            }
        }
        Event::Snapshots(there) => world.snapshots = there,
        Event::Unavailable(slot) => {
            let why = failure(Scope::Object, Class::Conflict, reasons::IDENTITY_NOT_AVAILABLE);
            world.unavailable.insert(client_in(slot, protocol), why);
        }
        // Of a share that has not been placed yet, no storage can have been replaced.
        Event::Backend(Health::Replaced) if world.status().fsid.is_none() => {}
        Event::Backend(health) => {
            world.backend = match health {
                Health::Well => Some(Ok(backend_description())),
                Health::NotReady => Some(Err(failure(
                    Scope::Backend,
                    Class::Transient,
                    reasons::BACKEND_UNREACHABLE,
                ))),
                Health::Missing => None,
                Health::Moved => Some(Ok(moved(backend_description()))),
                Health::Replaced => Some(Ok(replaced(backend_description()))),
            }
        }
        Event::Fault(fault) => world.faults.extend([None, Some(fault)]),
        Event::Slow(slow) => world.slow = slow,
        Event::Request(token) => world.annotate(REQUESTED_AT, token),
        Event::Round => world.round = Some(round(None)),
        Event::StaleLocks => world.cached_locks = Some(world.locks.clone()),
        Event::StaleRules => world.cached_rules = Some(world.rules.clone()),
        Event::Pass {
            look_due,
            killed_after,
        } => {
            world.look_due = look_due;
            world.pass(killed_after);
        }
        Event::Wait => world.let_back_off_pass(),
        Event::Later => world.now += SignedDuration::from_hours(2),
    }
}

fn add_lock(world: &mut World, slot: usize, kind: LockedKind, target: &str, serial: usize) {
    let mut new = lock(&format!("r{slot}"), kind, target);
    new.metadata.uid = Some(format!("uid-lock-{serial}"));
    if world.locks.iter().all(|lock| lock.named() != new.named()) {
        world.locks.push(new);
    }
}

fn event() -> impl Strategy<Value = Event> {
    let slot = || 0..SLOTS;
    prop_oneof![
        12 => (any::<bool>(), option::weighted(0.4, 0..10_usize))
            .prop_map(|(look_due, killed_after)| Event::Pass { look_due, killed_after }),
        4 => slot().prop_map(Event::AddRule),
        2 => slot().prop_map(Event::DeleteRule),
        2 => slot().prop_map(Event::FlipLevel),
        3 => select(vec!["1Gi", "2Gi", "3Gi", "20Gi"]).prop_map(Event::Size),
        1 => Just(Event::DeleteShare),
        1 => (0..2_usize).prop_map(Event::LockShare),
        1 => slot().prop_map(Event::LockRule),
        2 => slot().prop_map(Event::Unlock),
        1 => slot().prop_map(Event::LoseSecret),
        1 => slot().prop_map(Event::TakeSecret),
        1 => select(vec![None, Some("10.0.0.9"), Some("bob"), Some("no client")]).prop_map(Event::Value),
        1 => Just(Event::LoseVolume),
        1 => select(vec![Tag::Absent, Tag::Unreadable, another_owner()]).prop_map(Event::Tag),
        1 => select(vec![None, Some(GI / 2), Some(5 * GI)]).prop_map(Event::Quota),
        1 => select(vec![0, GI / 2, 2 * GI]).prop_map(Event::Use),
        1 => Just(Event::LoseExport),
        1 => Just(Event::TakeExport),
        1 => Just(Event::BreakExport),
        1 => slot().prop_map(Event::LetIn),
        1 => any::<bool>().prop_map(Event::Snapshots),
        1 => slot().prop_map(Event::Unavailable),
        2 => select(vec![Health::Well, Health::Well, Health::NotReady, Health::Missing, Health::Moved, Health::Replaced])
            .prop_map(Event::Backend),
        3 => (select(vec![Scope::Object, Scope::Backend]), any::<bool>())
            .prop_map(|(scope, took_place)| Event::Fault(Fault { scope, took_place })),
        1 => Just(Event::StaleRules),
        1 => Just(Event::StaleLocks),
        1 => any::<bool>().prop_map(Event::Slow),
        1 => select(vec!["now", "again"]).prop_map(Event::Request),
        1 => Just(Event::Round),
        2 => Just(Event::Wait),
        1 => Just(Event::Later),
    ]
}

/// A share that may shrink or not, NFS (by a name of its own or not) or CephFS, that is let go at once or not, with its data kept
/// or not, and what happened to it.
#[derive(Clone, Debug)]
pub struct History {
    protocol: Protocol,
    shrink: bool,
    deletion: DeletionMode,
    retention: &'static str,
    policy: Option<DeletionPolicy>,
    is_named: bool,
    events: Vec<Event>,
}

impl History {
    fn world(self) -> World {
        self.world_watched(|_| ())
    }

    /// The same, and shows it after everything that happened.
    pub fn world_watched(self, mut see: impl FnMut(&World)) -> World {
        let mut share = share("a").sized("2Gi");
        share.spec.protocol = self.protocol;
        share.spec.deletion_policy = self.policy;
        if self.is_named && self.protocol == Protocol::NFS {
            share.spec.mount_point_name = Some("data".into());
        }
        let mut world = World::new(share, []);
        let terms = &mut world.share_type.as_mut().unwrap().spec;
        terms.shrink = self.shrink;
        terms.deletion = self.deletion;
        terms.retention = self.retention.parse().unwrap();
        terms.mount_point_name.enabled = true;
        for (serial, event) in self.events.into_iter().enumerate() {
            happen(&mut world, event, serial);
            see(&world);
        }
        world.faults.clear();
        world.cached_rules = None;
        world.cached_locks = None;
        world
    }
}

/// The same, where rules are hidden, too.
fn event_among_show_locks() -> impl Strategy<Value = Event> {
    let hidden = || (0..SLOTS, any::<bool>());
    prop_oneof![
        10 => event(),
        1 => hidden().prop_map(|(slot, other)| Event::HideRule(slot, other)),
        1 => hidden().prop_map(|(slot, other)| Event::ShowRule(slot, other)),
    ]
}

/// What may happen to a share, drawn.
pub fn history() -> impl Strategy<Value = History> {
    history_of(event())
}

fn history_of(event: impl Strategy<Value = Event>) -> impl Strategy<Value = History> {
    let protocol = select(vec![Protocol::NFS, Protocol::CephFS]);
    let deletion = select(vec![DeletionMode::Wait, DeletionMode::Deferred]);
    let retention = select(vec!["0s", "0s", "1h"]);
    let policy = select(vec![None, None, Some(DeletionPolicy::Retain)]);
    let terms = (any::<bool>(), any::<bool>(), deletion, retention, policy);
    (protocol, terms, vec(event, 0..24)).prop_map(|(protocol, terms, events)| {
        let (shrink, is_named, deletion, retention, policy) = terms;
        History {
            protocol,
            shrink,
            deletion,
            retention,
            policy,
            is_named,
            events,
        }
    })
}

/// `PROPTEST_CASES` asks for more.
pub fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(cases),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn it_comes_to_rest_and_is_then_as_the_objects_say(history in history_of(event_among_show_locks())) {
        let mut world = history.world();
        world.run_to_rest();
        // Once the backend is itself again, everything that waited for it is done.
        happen(&mut world, Event::Backend(Health::Well), 0);
        world.run_to_rest();
    }

    #[test]
    fn it_can_always_be_deleted_unless_its_volume_is_anothers(history in history_of(event_among_show_locks())) {
        let mut world = history.world();
        happen(&mut world, Event::Backend(Health::Well), 0);
        world.snapshots = false;
        let anothers = world.subvolume.as_ref().is_some_and(|s| s.tag != Tag::Absent && s.tag != Tag::Owner(owner_of(&share("a"))));
        world.delete_share();
        world.run_to_rest();
        prop_assert!(!world.is_locked() || world.share.is_some());
        // The last lock to go lets a deletion go on.
        world.locks.clear();
        world.run_to_rest();
        prop_assert!(anothers || world.share.is_none(), "{:?}", world.status());
        // What is kept for a while goes in its time.
        happen(&mut world, Event::Later, 0);
        world.run_to_rest();
        let left = world.deletion.map(|deletion| deletion.spec);
        let for_good = left.as_ref().is_some_and(|spec| spec.deletion_policy == DeletionPolicy::Retain);
        prop_assert!(anothers || for_good || left.is_none(), "{left:?}");
    }
}

proptest! {
    #![proptest_config(config(500))]

    /// While its backend is only looked at nothing is changed there, and what then is was said before.
    #[test]
    fn what_is_said_to_differ_is_what_is_changed(history in history_of(event_among_show_locks())) {
        let mut world = history.world();
        happen(&mut world, Event::Backend(Health::Well), 0);
        world.unavailable.clear();
        let before = (world.subvolume.clone(), world.essence().export);
        world.dry_run = true;
        for _ in 0..2 {
            world.let_back_off_pass();
            world.pass(None);
        }
        prop_assert_eq!(&before, &(world.subvolume.clone(), world.essence().export));
        // It has no place, is going, or was handed on.
        let Some(said) = world.status().differences else { return Ok(()) };
        let let_in = world.access();
        world.dry_run = false;
        world.run_to_rest();
        let is_changed = before != (world.subvolume.clone(), world.essence().export);
        prop_assert!(said.total > 0 || !is_changed, "{:?} became {:?}, {:?}", before, world.subvolume, world.export);
        let is_new = |grant: &&Grant| let_in.iter().all(|had| had.client != grant.client);
        let new = world.access().iter().filter(is_new).count();
        let told = said.list.iter().filter(|told| told.contains("lets its client in")).count();
        prop_assert!(new <= told, "{:?}: {:?}, then {:?}", said, let_in, world.access());
    }
}

/// One case in fifty thousand: the rule would wait for ever for a share that can't be made.
#[test]
fn a_rule_goes_though_the_place_of_its_share_is_anothers() {
    let events = vec![
        Event::AddRule(1),
        Event::Pass {
            look_due: false,
            killed_after: Some(4),
        },
        Event::DeleteRule(1),
        Event::Tag(Tag::Unreadable),
    ];
    let protocol = Protocol::NFS;
    let mut world = History {
        protocol,
        shrink: false,
        deletion: DeletionMode::Wait,
        retention: "0s",
        policy: None,
        is_named: false,
        events,
    }
    .world();
    world.run_to_rest();
    assert!(world.rules.is_empty(), "{:?}", world.rules);
}

proptest! {
    #![proptest_config(config(80))]

    #[test]
    fn a_crash_or_a_fault_at_any_step_leads_to_the_same_end(history in history_of(event_among_show_locks())) {
        let world = history.world();
        // Who can look sees that nothing there is the share's; who can't keeps what may be its data.
        prop_assume!(!world.is_in_doubt());
        let mut undisturbed = world.clone();
        undisturbed.run_to_rest();
        let end = undisturbed.essence();
        for step in 0..undisturbed.steps.len() - world.steps.len() {
            let mut killed = world.clone();
            killed.look_due = true;
            killed.pass(Some(step));
            killed.run_to_rest();
            killed.essence().must_equal(&end, &format!("killed after step {step}"));
            for scope in [Scope::Object, Scope::Backend] {
                for took_place in [false, true] {
                    let mut failed = world.clone();
                    failed.faults = std::iter::repeat_n(None, step).chain([Some(Fault { scope, took_place })]).collect();
                    failed.run_to_rest();
                    failed.essence().must_equal(&end, &format!("{scope:?} failure of effect {step}, took place: {took_place}"));
                }
            }
        }
    }
}
