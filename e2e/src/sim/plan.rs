//! What happens in a run, as data: drawn from a seed up front, so that it can be printed, replayed and made shorter.

use std::time::Duration;

use jiff::SignedDuration;
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use shoal_backend::simulated::{After, FaultKind, Operation as Method};
use shoal_crds::{AccessLevel, Protocol};

use super::recovering;

/// Namespaces of users.
pub const NAMESPACES: [&str; 2] = ["blue", "red"];
/// ShareBackends: two file systems of one storage cluster.
pub const BACKENDS: [&str; 2] = ["one", "two"];
/// ShareTypes.
pub const TYPES: [&str; 2] = ["standard", "flexible"];
/// Shares that a namespace may have: few, so that names are used again.
const SHARES: usize = 3;
/// Rules that a namespace may have.
const RULES: usize = 5;
/// Addresses and identities that rules name: few, so that they meet, and networks in networks, so that their order matters.
const ADDRESSES: [&str; 4] = ["10.0.0.1", "10.0.0.0/24", "10.0.0.0/16", "2001:db8::1"];
const IDENTITIES: [&str; 4] = ["alice", "bob", "carol", "shoal"];
/// The part of a run, for [`generator`], that is about where shares go.
const PLACING: u64 = 100;
/// The part that is about quotas.
const QUOTAS: u64 = 101;
/// Methods that go wrong in the first part of a run: those that there were when it was first drawn.
const METHODS: [Method; 8] = [
    Method::Describe,
    Method::Look,
    Method::Create,
    Method::Resize,
    Method::Export,
    Method::Key,
    Method::Unexport,
    Method::Remove,
];
/// The part that is about readable paths.
const NAMES: u64 = 106;
/// The part that is about ensuring.
const ENSURING: u64 = 107;
/// What shares are to be found under: few, so that they meet.
const MOUNT_POINT_NAMES: [&str; 2] = ["data", "Home_1"];
/// The part that is about deletions.
const DELETIONS: u64 = 102;
/// The part that is about locks.
const LOCKING: u64 = 104;
/// Locks that a namespace may have.
const LOCKS: usize = 3;
/// The part that is about hidden keys.
const HIDING: u64 = 108;
/// Share and rule that it is about: nobody else's.
const HIDDEN: usize = 20;
/// Users that hide keys.
pub const READERS: [&str; 2] = ["alice", "bob"];
/// The race for places.
const RACE: u64 = 103;
/// The part that is about quotas for one share and for one type.
const FINE_QUOTAS: u64 = 105;
/// How long users and faults are at it.
pub const HORIZON: Duration = Duration::from_mins(5);

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What it was drawn from; the queues' order and the network's latencies are drawn from it too.
    pub seed: u64,
    /// What holds for the whole run.
    pub setting: Setting,
    /// What happens, in order of time.
    pub events: Vec<Event>,
}

/// What holds for a whole run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setting {
    /// Whether the API server puts the finalizer on at birth.
    pub born_held: bool,
    /// How long a command of the storage takes, in milliseconds.
    pub latency: i32,
    /// The most that a watch is behind in quiet times, in milliseconds.
    pub lag: u64,
    /// How many GiB each backend has, all of which may be promised once; none: more than anybody asks for.
    pub room: Option<u32>,
    /// Of which of [`TYPES`] shares wait when they are deleted.
    pub waits: [bool; 2],
    /// For how many seconds the data of deleted shares of each of [`TYPES`] is kept.
    pub retention: [u64; 2],
    /// Whether etcd is lost in the end, and all comes back with new uids.
    pub etcd_is_lost: bool,
}

/// Something that happens, so long after the start.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// What a user does, or what goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A user's, or an admin's, request.
    Do(Operation),
    /// A fault.
    Fault(Fault),
}

/// A place for an object: namespace and number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// In which of [`NAMESPACES`].
    pub namespace: usize,
    /// Which of them.
    pub number: usize,
}

impl Place {
    /// The namespace's name.
    pub fn namespace(self) -> &'static str {
        NAMESPACES[self.namespace]
    }

    /// The object's name.
    pub fn name(self, prefix: &str) -> String {
        format!("{prefix}{}", self.number)
    }
}

/// What users and admins do. One that can't be done, because the object is not there, is passed over.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Create a share.
    CreateShare {
        /// Where.
        share: Place,
        /// How clients mount it.
        protocol: Protocol,
        /// Of [`TYPES`].
        share_type: usize,
        /// Its size.
        gib: u32,
    },
    /// Create a share that has a wish where to go.
    CreateWishing {
        /// Where.
        share: Place,
        /// How large.
        gib: u32,
        /// The wish.
        wish: Wish,
    },
    /// Create a share that is to be found under a name, which its type puts a prefix before or not.
    CreateNamed {
        /// Where.
        share: Place,
        /// Of [`TYPES`].
        share_type: usize,
        /// The name.
        name: &'static str,
    },
    /// Have a type put another prefix before the names of its shares.
    EditPrefix {
        /// Of [`TYPES`].
        share_type: usize,
        /// Which.
        prefix: &'static str,
    },
    /// Say something of a share, or take back what was said.
    Describe {
        /// Which.
        share: Place,
        /// What.
        text: Option<&'static str>,
    },
    /// Ask that a share be verified.
    RequestShare {
        /// Which.
        share: Place,
        /// Another than before, or the same again.
        token: u32,
    },
    /// Ask that every share on a backend be verified.
    RequestBackend {
        /// Of [`BACKENDS`].
        backend: usize,
        /// Another than before, or the same again.
        token: u32,
    },
    /// Have a share left alone for so many seconds.
    PauseShare {
        /// Which.
        share: Place,
        /// Seconds.
        seconds: u64,
    },
    /// Have a backend left alone for so many seconds, or only looked at, if their number is odd.
    PauseBackend {
        /// Of [`BACKENDS`].
        backend: usize,
        /// Seconds.
        seconds: u64,
    },
    /// Let a backend take new shares, or not.
    Scheduling {
        /// Of [`BACKENDS`].
        backend: usize,
        /// Whether.
        enabled: bool,
    },
    /// Say how much a namespace's shares may take.
    SetQuota {
        /// Of [`NAMESPACES`].
        namespace: usize,
        /// How many shares.
        shares: Option<u32>,
        /// How many GiB.
        gib: Option<u32>,
        /// How many GiB one of them.
        each: Option<u32>,
        /// How many shares of one of [`TYPES`].
        of_type: Option<(usize, u32)>,
    },
    /// Ask for another size.
    ResizeShare {
        /// Which.
        share: Place,
        /// How large.
        gib: u32,
    },
    /// Delete a share.
    DeleteShare(Place),
    /// Create a share whose data is kept when it is deleted.
    CreateRetained {
        /// Where.
        share: Place,
        /// How clients mount it.
        protocol: Protocol,
    },
    /// Bring back what is kept of a deleted share, whichever comes first, as this one.
    BringBack(Place),
    /// Give up whatever is left of a deleted share, and take it up again after so many seconds.
    Abandon {
        /// Seconds.
        back_after: u64,
    },
    /// Have what is kept of a deleted share removed so many seconds from now.
    RetainUntil {
        /// Seconds.
        seconds: i64,
    },
    /// Delete a ShareDeletion: it goes when it is finished, and not before.
    DeleteDeletion,
    /// Delete a share and create another of its name as soon as it is gone.
    RecreateShare(Place),
    /// Create a rule.
    CreateRule {
        /// Where.
        rule: Place,
        /// The share's number in the same namespace.
        share: usize,
        /// Whom it lets in.
        to: To,
        /// How.
        level: AccessLevel,
    },
    /// Change a rule's level.
    ChangeRule {
        /// Which.
        rule: Place,
        /// How.
        level: AccessLevel,
    },
    /// Delete a rule.
    DeleteRule(Place),
    /// Make a lock.
    Lock {
        /// Where.
        lock: Place,
        /// What it locks, in the same namespace.
        on: Locked,
    },
    /// Hide a rule's key.
    Hide {
        /// Where.
        lock: Place,
        /// The rule's number in the same namespace.
        rule: usize,
        /// For which of [`READERS`].
        reader: usize,
    },
    /// Delete a lock.
    Unlock(Place),
    /// Delete a lock, and make another on the same object at the same moment.
    Relock {
        /// Which goes.
        from: Place,
        /// Its number.
        to: usize,
    },
    /// Delete the Secret that a rule's key is in.
    DeleteSecret(Place),
    /// Let shares of the type shrink, or not.
    EditType {
        /// Of [`TYPES`].
        share_type: usize,
        /// Whether.
        shrink: bool,
    },
    /// Delete a type, and create it again after so many seconds.
    DeleteType {
        /// Of [`TYPES`].
        share_type: usize,
        /// Seconds.
        back_after: u64,
    },
    /// Change how many shares of a backend are worked on at once.
    EditBackend {
        /// Of [`BACKENDS`].
        backend: usize,
        /// How many.
        at_once: u32,
    },
    /// Delete a ShareBackend, and declare the same storage again after so many seconds. If shares are in the way then, the
    /// first of [`BACKENDS`] loses its finalizer by hand, and the other one is waited for.
    DeleteBackend {
        /// Of [`BACKENDS`].
        backend: usize,
        /// Seconds.
        back_after: u64,
    },
}

/// What a lock is on, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    /// A share.
    Share(usize),
    /// A rule.
    Rule(usize),
}

/// Where a share wishes to go. Shares that are named are of the same namespace, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To this one of [`BACKENDS`].
    Pinned(usize),
    /// To where this share is.
    With(usize),
    /// To where this share is not.
    ApartFrom(usize),
}

/// Whom a rule lets in.
#[derive(Clone, Debug, PartialEq)]
pub enum To {
    /// An address.
    Ip(&'static str),
    /// An identity that the user names.
    CephX(&'static str),
    /// An identity that Shoal makes.
    Generated,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The next requests of a replica go wrong.
    Requests {
        /// Which replica.
        replica: usize,
        /// How many.
        count: usize,
        /// Only those that write.
        writes: bool,
        /// How.
        how: Wrong,
    },
    /// A replica is cut off from the API server.
    Partition {
        /// Which replica.
        replica: usize,
        /// For so many seconds.
        seconds: u64,
    },
    /// A replica hears of changes of one kind late.
    SlowWatch {
        /// Which replica.
        replica: usize,
        /// Plural.
        resource: &'static str,
        /// For so many seconds.
        seconds: u64,
    },
    /// A replica's events come twice for a while.
    RepeatedEvents {
        /// Which replica.
        replica: usize,
        /// For so many seconds.
        seconds: u64,
    },
    /// All watches break.
    CutWatches,
    /// The API server forgets its history.
    Compact,
    /// A replica is killed.
    Kill {
        /// Which replica.
        replica: usize,
        /// It starts again after so many seconds.
        back_after: u64,
    },
    /// A replica is asked to end.
    Terminate {
        /// Which replica.
        replica: usize,
        /// It starts again so many seconds after its end.
        back_after: u64,
    },
    /// A replica is stopped, as by SIGSTOP, and woken.
    Pause {
        /// Which replica.
        replica: usize,
        /// For so many milliseconds.
        milliseconds: u64,
    },
    /// The leader is stopped with its next call of the storage in hand, and woken.
    PauseAtWork {
        /// For so many milliseconds.
        milliseconds: u64,
        /// Whether the other replica, which may lead by then, is asked to end shortly before that.
        alone: bool,
    },
    /// A replica's clock jumps.
    Clock {
        /// Which replica.
        replica: usize,
        /// By so many seconds.
        by: i64,
    },
    /// The next call of a method goes wrong.
    Command {
        /// Which method.
        method: Method,
        /// At which of its writes.
        write: u32,
        /// How.
        kind: FaultKind,
    },
    /// The storage can't be reached.
    Unreachable {
        /// For so many seconds.
        seconds: u64,
    },
    /// The file system is stuck; then its commands take effect, or its manager is restarted and they are lost.
    Stall {
        /// For so many seconds.
        seconds: u64,
        /// Whether they are lost.
        lost: bool,
    },
    /// The monitors and the NFS service move to other addresses.
    Move {
        /// Which.
        number: u8,
    },
    /// Somebody changes the storage behind Shoal's back.
    Hand {
        /// On which share.
        share: Place,
        /// How.
        hand: Hand,
    },
}

/// How a request goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Answered with this code, not served.
    Refused(u16),
    /// Served, and the answer never comes.
    ReplyLost,
    /// Served, and the connection breaks before the answer.
    ReplyBroken,
    /// Never served, never answered.
    Lost,
    /// Served after so many milliseconds.
    Slow(u64),
    /// Served, and answered after so many milliseconds.
    LateReply(u64),
}

/// What is done to a share's storage by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hand {
    /// Its export is removed.
    RemoveExport,
    /// Its clients are emptied.
    RemoveClients,
    /// Somebody is let in.
    AddClient,
    /// It lets in whoever is not named.
    OpenExport,
    /// Its quota is changed.
    Quota,
    /// An identity's access is taken away.
    Deauthorize,
    /// Its tag is taken off.
    Untag,
    /// It gets another owner's tag.
    Retag,
    /// It is removed with its data.
    DeleteSubvolume,
}

impl Plan {
    /// The run of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut of_placing = generator(seed, PLACING);
        let mut of_deletions = generator(seed, DELETIONS);
        let setting = Setting {
            born_held: rng.random_bool(0.5),
            latency: *[0, 5, 40, 300].choose(&mut rng).unwrap_or(&5),
            lag: *[0, 20, 500, 3000].choose(&mut rng).unwrap_or(&20),
            room: *[None, None, Some(6)].choose(&mut of_placing).unwrap_or(&None),
            waits: [of_deletions.random_bool(0.2), of_deletions.random_bool(0.4)],
            retention: [0, 1].map(|_| pick(&mut of_deletions, &[0, 0, 0, 20, 36_000])),
            etcd_is_lost: generator(seed, recovering::PART).random_bool(0.3),
        };
        let mut events = Vec::new();
        for _ in 0..rng.random_range(15..60) {
            events.push(event(&mut rng, |rng| What::Do(operation(rng))));
        }
        // Shares from the first moment, so that every fault meets some.
        for namespace in 0..NAMESPACES.len() {
            let share = Place { namespace, number: 0 };
            events.push(Event {
                at: Duration::ZERO,
                what: What::Do(create_share(&mut rng, share)),
            });
        }
        for _ in 0..rng.random_range(10..30) {
            events.push(event(&mut rng, |rng| What::Fault(fault(rng))));
        }
        if seed.is_multiple_of(4) {
            for _ in 0..rng.random_range(2..5) {
                events.extend(overtaken(&mut rng));
            }
        }
        for _ in 0..of_placing.random_range(0..15) {
            events.push(event(&mut of_placing, |rng| What::Do(placing(rng))));
        }
        events.extend(quotas(
            &mut generator(seed, QUOTAS),
            &mut generator(seed, FINE_QUOTAS),
        ));
        let mut of_names = generator(seed, NAMES);
        for race in 0..of_names.random_range(1..4) {
            events.extend(race_for_a_name(&mut of_names, race));
        }
        for _ in 0..of_names.random_range(0..4) {
            events.push(event(&mut of_names, described));
        }
        if of_names.random_bool(0.3) {
            events.push(event(&mut of_names, |rng| {
                What::Do(Operation::EditPrefix {
                    share_type: rng.random_range(0..TYPES.len()),
                    prefix: pick(rng, &["", "{namespace}-", "{name}_"]),
                })
            }));
        }
        for _ in 0..of_deletions.random_range(0..15) {
            events.push(event(&mut of_deletions, deletions));
        }
        for _ in 0..of_deletions.random_range(0..3) {
            events.push(event(&mut of_deletions, |rng| What::Fault(slow_watch(rng))));
        }
        events.extend(locking(&mut generator(seed, LOCKING)));
        events.extend(ensuring(&mut generator(seed, ENSURING)));
        events.extend(hiding(&mut generator(seed, HIDING)));
        events.sort_by_key(|event| event.at);
        Self {
            seed,
            setting,
            events,
        }
    }

    /// Two hundred shares that race for fifty places, of a quota or on the backends, while replicas die and places are given
    /// back.
    pub fn race(seed: u64) -> Self {
        const SHARES: usize = 200;
        const PLACES: u32 = 50;
        let mut rng = generator(seed, RACE);
        let of_a_quota = rng.random_bool(0.5);
        let backends = u32::try_from(BACKENDS.len()).unwrap_or(1);
        let setting = Setting {
            born_held: rng.random(),
            latency: pick(&mut rng, &[0, 5, 40]),
            lag: pick(&mut rng, &[0, 20, 500, 3000]),
            room: (!of_a_quota).then_some(PLACES / backends),
            waits: [rng.random_bool(0.3); 2],
            retention: [0; 2],
            etcd_is_lost: false,
        };
        let between =
            |rng: &mut SmallRng, from: u64, to: u64| Duration::from_millis(rng.random_range(from..to));
        let mut events = Vec::new();
        if of_a_quota {
            let what = What::Do(Operation::SetQuota {
                namespace: 0,
                shares: Some(PLACES),
                gib: None,
                each: None,
                of_type: None,
            });
            events.push(Event {
                at: Duration::ZERO,
                what,
            });
        }
        // When the quota has been heard of, whatever was the matter.
        for number in 0..SHARES {
            let share = Place { namespace: 0, number };
            let create = Operation::CreateShare {
                share,
                protocol: pick(&mut rng, &[Protocol::NFS, Protocol::CephFS]),
                share_type: 0,
                gib: 1,
            };
            events.push(Event {
                at: between(&mut rng, 130_000, 150_000),
                what: What::Do(create),
            });
            if rng.random_bool(0.2) {
                events.push(Event {
                    at: between(&mut rng, 150_000, 300_000),
                    what: What::Do(Operation::DeleteShare(share)),
                });
            }
        }
        let mut of_deletions = generator(seed, DELETIONS);
        for _ in 0..of_deletions.random_range(0..4) {
            events.push(Event {
                at: between(&mut of_deletions, 125_000, 300_000),
                what: What::Fault(slow_watch(&mut of_deletions)),
            });
        }
        for _ in 0..rng.random_range(10..25) {
            let at = between(&mut rng, 125_000, 300_000);
            let replica = rng.random_range(0..2);
            let what = match rng.random_range(0..4) {
                0 | 1 => Fault::Kill {
                    replica,
                    back_after: rng.random_range(0..30),
                },
                2 => Fault::Terminate {
                    replica,
                    back_after: rng.random_range(0..30),
                },
                _ => fault(&mut rng),
            };
            // What is changed by hand is no part of it.
            if !matches!(what, Fault::Hand { .. }) {
                events.push(Event {
                    at,
                    what: What::Fault(what),
                });
            }
        }
        events.sort_by_key(|event| event.at);
        Self {
            seed,
            setting,
            events,
        }
    }

    /// By how much a replica's clock is fast at most.
    pub fn clocks_fast(&self) -> SignedDuration {
        let seconds = self.events.iter().map(|event| match event.what {
            What::Fault(Fault::Clock { by, .. }) => by.max(0),
            _ => 0,
        });
        SignedDuration::from_secs(seconds.sum())
    }

    /// How many faults it has.
    pub fn faults(&self) -> usize {
        let is_fault = |event: &&Event| matches!(event.what, What::Fault(_));
        self.events.iter().filter(is_fault).count()
    }
}

fn event(rng: &mut SmallRng, what: impl FnOnce(&mut SmallRng) -> What) -> Event {
    let at = Duration::from_millis(rng.random_range(0..u64::try_from(HORIZON.as_millis()).unwrap_or(1)));
    Event { at, what: what(rng) }
}

/// A leader stands still with work on a share in hand, while the share goes, or comes, under another.
fn overtaken(rng: &mut SmallRng) -> [Event; 3] {
    let share = place(rng, SHARES);
    let operation = |rng: &mut SmallRng| {
        What::Do(match rng.random_range(0..4) {
            0 => create_share(rng, share),
            1 => Operation::DeleteShare(share),
            _ => Operation::RecreateShare(share),
        })
    };
    let fault = Fault::PauseAtWork {
        milliseconds: rng.random_range(20_000..90_000),
        alone: rng.random(),
    };
    let first = event(rng, |_| What::Fault(fault));
    let at = first.at;
    let soon = Event {
        at,
        what: operation(rng),
    };
    let later = Event {
        at: at + Duration::from_millis(rng.random_range(0..60_000)),
        what: operation(rng),
    };
    [first, soon, later]
}

/// In both namespaces a share is to be found under the same name, at about the same time; most go some time, and a few are
/// made again at once.
fn race_for_a_name(rng: &mut SmallRng, race: usize) -> Vec<Event> {
    let name = pick(rng, &MOUNT_POINT_NAMES);
    // Of most types there is no prefix, and so both can't have it.
    let share_type = usize::from(rng.random_bool(0.8));
    let begin = Duration::from_millis(rng.random_range(0..240_000));
    let mut events = Vec::new();
    for namespace in 0..NAMESPACES.len() {
        let number = SHARES + race;
        let share = Place { namespace, number };
        let mut later = |rng: &mut SmallRng, by: u64, operation| {
            let at = begin + Duration::from_millis(rng.random_range(0..by));
            let what = What::Do(operation);
            events.push(Event { at, what });
        };
        let create = Operation::CreateNamed {
            share,
            share_type,
            name,
        };
        later(rng, 300, create);
        if rng.random_bool(0.5) {
            let rule = Operation::CreateRule {
                rule: Place {
                    namespace,
                    number: RULES + race,
                },
                share: number,
                to: To::Ip(pick(rng, &ADDRESSES)),
                level: level(rng),
            };
            later(rng, 60_000, rule);
        }
        if rng.random_bool(0.3) {
            let gib = rng.random_range(2..4);
            later(rng, 60_000, Operation::ResizeShare { share, gib });
        }
        if rng.random_bool(0.7) {
            let end = match rng.random_range(0..4) {
                0 => Operation::RecreateShare(share),
                _ => Operation::DeleteShare(share),
            };
            later(rng, 90_000, end);
        }
    }
    events
}

/// Somebody says something of a share, or that goes wrong.
fn described(rng: &mut SmallRng) -> What {
    if rng.random_bool(0.3) {
        return What::Fault(Fault::Command {
            method: Method::SetMetadata,
            write: 0,
            kind: pick(
                rng,
                &[FaultKind::FailBefore, FaultKind::FailAfter, FaultKind::Lost],
            ),
        });
    }
    What::Do(Operation::Describe {
        share: place(rng, SHARES),
        text: pick(rng, &[Some("%[x]\n"), Some("blue"), None]),
    })
}

fn place(rng: &mut SmallRng, numbers: usize) -> Place {
    Place {
        namespace: rng.random_range(0..NAMESPACES.len()),
        number: rng.random_range(0..numbers),
    }
}

fn create_share(rng: &mut SmallRng, share: Place) -> Operation {
    Operation::CreateShare {
        share,
        protocol: pick(rng, &[Protocol::NFS, Protocol::CephFS]),
        share_type: rng.random_range(0..TYPES.len()),
        gib: rng.random_range(1..5),
    }
}

fn level(rng: &mut SmallRng) -> AccessLevel {
    pick(rng, &[AccessLevel::ReadWrite, AccessLevel::ReadOnly])
}

fn pick<T: Clone>(rng: &mut SmallRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())].clone()
}

fn operation(rng: &mut SmallRng) -> Operation {
    let (share, rule) = (place(rng, SHARES), place(rng, RULES));
    match rng.random_range(0..100) {
        0..20 => create_share(rng, share),
        20..28 => Operation::ResizeShare {
            share,
            gib: rng.random_range(1..6),
        },
        28..36 => Operation::DeleteShare(share),
        36..42 => Operation::RecreateShare(share),
        42..67 => Operation::CreateRule {
            rule,
            share: share.number,
            to: match rng.random_range(0..5) {
                0..3 => To::Ip(pick(rng, &ADDRESSES)),
                3 => To::CephX(pick(rng, &IDENTITIES)),
                _ => To::Generated,
            },
            level: level(rng),
        },
        67..77 => Operation::ChangeRule {
            rule,
            level: level(rng),
        },
        77..87 => Operation::DeleteRule(rule),
        87..90 => Operation::DeleteSecret(rule),
        90..93 => Operation::EditType {
            share_type: rng.random_range(0..TYPES.len()),
            shrink: rng.random(),
        },
        93..95 => Operation::DeleteType {
            share_type: rng.random_range(0..TYPES.len()),
            back_after: rng.random_range(0..60),
        },
        95..98 => Operation::EditBackend {
            backend: rng.random_range(0..BACKENDS.len()),
            at_once: rng.random_range(1..5),
        },
        _ => Operation::DeleteBackend {
            backend: rng.random_range(0..BACKENDS.len()),
            back_after: rng.random_range(0..60),
        },
    }
}

fn placing(rng: &mut SmallRng) -> Operation {
    let (share, backend) = (place(rng, SHARES), rng.random_range(0..BACKENDS.len()));
    match rng.random_range(0..10) {
        0..5 => Operation::CreateWishing {
            share,
            gib: rng.random_range(1..5),
            wish: match rng.random_range(0..5) {
                0 => Wish::Pinned(backend),
                1 | 2 => Wish::With(rng.random_range(0..SHARES)),
                _ => Wish::ApartFrom(rng.random_range(0..SHARES)),
            },
        },
        5 => Operation::PauseShare {
            share,
            seconds: rng.random_range(1..60),
        },
        6 => Operation::PauseBackend {
            backend,
            seconds: rng.random_range(1..60),
        },
        _ => Operation::Scheduling {
            backend,
            enabled: rng.random(),
        },
    }
}

fn deletions(rng: &mut SmallRng) -> What {
    let share = place(rng, SHARES);
    What::Do(match rng.random_range(0..20) {
        0..4 => Operation::CreateRetained {
            share,
            protocol: pick(rng, &[Protocol::NFS, Protocol::CephFS]),
        },
        4..9 => Operation::BringBack(share),
        9..11 => Operation::Abandon {
            back_after: rng.random_range(1..90),
        },
        11..13 => Operation::RetainUntil {
            seconds: rng.random_range(-60..60),
        },
        13 => Operation::DeleteDeletion,
        14..17 => Operation::DeleteShare(share),
        _ => {
            return What::Fault(Fault::Command {
                method: pick(rng, &[Method::HandOver, Method::Unexport, Method::Remove]),
                write: 0,
                kind: match rng.random_range(0..5) {
                    0 => FaultKind::FailBefore,
                    1 => FaultKind::FailAfter,
                    2 | 3 => {
                        FaultKind::Hang(After::Delay(Duration::from_millis(rng.random_range(1..120_000))))
                    }
                    _ => FaultKind::Lost,
                },
            });
        }
    })
}

/// What is left of deleted shares, and what shares may take, is heard of late.
fn slow_watch(rng: &mut SmallRng) -> Fault {
    Fault::SlowWatch {
        replica: rng.random_range(0..2),
        resource: pick(rng, &["sharedeletions", "sharedeletions", "sharequotas"]),
        seconds: rng.random_range(1..90),
    }
}

/// In every second run one namespace has a quota from the start, and in every fourth it changes.
fn quotas(rng: &mut SmallRng, fine: &mut SmallRng) -> Vec<Event> {
    let namespace = rng.random_range(0..NAMESPACES.len());
    let mut draw = |rng: &mut SmallRng| {
        What::Do(Operation::SetQuota {
            namespace,
            shares: rng.random_bool(0.6).then(|| rng.random_range(0..4)),
            gib: rng.random_bool(0.6).then(|| rng.random_range(1..10)),
            each: fine.random_bool(0.2).then(|| fine.random_range(1..5)),
            of_type: fine
                .random_bool(0.3)
                .then(|| (fine.random_range(0..TYPES.len()), fine.random_range(0..3))),
        })
    };
    if rng.random() {
        return Vec::new();
    }
    let first = Event {
        at: Duration::ZERO,
        what: draw(rng),
    };
    let more = if rng.random() { 0 } else { rng.random_range(1..5) };
    std::iter::once(first)
        .chain((0..more).map(|_| event(rng, &mut draw)).collect::<Vec<_>>())
        .collect()
}

/// In two of three runs there are locks, on what is there and on what is not, and deletions that meet them: nobody denies them
/// here.
fn locking(rng: &mut SmallRng) -> Vec<Event> {
    if rng.random_bool(0.33) {
        return Vec::new();
    }
    let many = rng.random_range(1..30);
    (0..many).map(|_| event(rng, lock_operation)).collect()
}

/// In two of three runs addresses move, and people ask that shares be verified, one or all, where somebody has been at the
/// storage.
fn ensuring(rng: &mut SmallRng) -> Vec<Event> {
    if rng.random_bool(0.33) {
        return Vec::new();
    }
    let many = rng.random_range(1..15);
    (0..many).map(|_| event(rng, ensure_event)).collect()
}

fn ensure_event(rng: &mut SmallRng) -> What {
    let (share, token) = (place(rng, SHARES), rng.random_range(0..20));
    match rng.random_range(0..20) {
        0..5 => What::Do(Operation::RequestShare { share, token }),
        5..10 => What::Do(Operation::RequestBackend {
            backend: rng.random_range(0..BACKENDS.len()),
            token,
        }),
        10..13 => What::Fault(Fault::Move {
            number: rng.random_range(1..5),
        }),
        13..18 => What::Fault(Fault::Hand {
            share,
            hand: pick(rng, &[Hand::RemoveExport, Hand::RemoveClients, Hand::Deauthorize]),
        }),
        _ => What::Fault(Fault::Command {
            method: Method::Export,
            write: 0,
            kind: pick(
                rng,
                &[FaultKind::FailBefore, FaultKind::FailAfter, FaultKind::Lost],
            ),
        }),
    }
}

/// In every second run a share has a rule whose key is hidden, for one user or the other, and shown again.
fn hiding(rng: &mut SmallRng) -> Vec<Event> {
    if rng.random() {
        return Vec::new();
    }
    let namespace = rng.random_range(0..NAMESPACES.len());
    let place = Place {
        namespace,
        number: HIDDEN,
    };
    let create = |rng: &mut SmallRng| match create_share(rng, place) {
        Operation::CreateShare { share_type, .. } => Operation::CreateShare {
            share: place,
            protocol: Protocol::CephFS,
            share_type,
            gib: 1,
        },
        other => other,
    };
    let rule = |rng: &mut SmallRng| Operation::CreateRule {
        rule: place,
        share: HIDDEN,
        to: To::Generated,
        level: level(rng),
    };
    let mut events = Vec::new();
    for what in [create(rng), rule(rng)] {
        events.push(Event {
            at: Duration::from_millis(rng.random_range(0..30_000)),
            what: What::Do(what),
        });
    }
    for _ in 0..rng.random_range(3..20) {
        events.push(event(rng, |rng| {
            let lock = Place {
                namespace,
                number: HIDDEN + rng.random_range(0..LOCKS),
            };
            What::Do(match rng.random_range(0..20) {
                0..7 => Operation::Hide {
                    lock,
                    rule: HIDDEN,
                    reader: rng.random_range(0..READERS.len()),
                },
                7..11 => Operation::Unlock(lock),
                11..13 => Operation::Relock {
                    from: lock,
                    to: HIDDEN + rng.random_range(0..LOCKS),
                },
                13 => Operation::DeleteRule(place),
                14..16 => rule(rng),
                16 => Operation::RecreateShare(place),
                17 => Operation::DeleteSecret(place),
                18 => {
                    return What::Fault(Fault::Hand {
                        share: place,
                        hand: Hand::Deauthorize,
                    });
                }
                _ => {
                    return What::Fault(Fault::Command {
                        method: pick(rng, &[Method::Export, Method::Key]),
                        write: rng.random_range(0..3),
                        kind: pick(
                            rng,
                            &[FaultKind::FailBefore, FaultKind::FailAfter, FaultKind::Lost],
                        ),
                    });
                }
            })
        }));
    }
    events
}

fn lock_operation(rng: &mut SmallRng) -> What {
    let (lock, share, rule) = (place(rng, LOCKS), place(rng, SHARES), place(rng, RULES));
    What::Do(match rng.random_range(0..20) {
        0..8 => Operation::Lock {
            lock,
            on: if rng.random_bool(0.6) {
                Locked::Share(share.number)
            } else {
                Locked::Rule(rule.number)
            },
        },
        8..12 => Operation::Unlock(lock),
        12..15 => Operation::Relock {
            from: lock,
            to: rng.random_range(0..LOCKS),
        },
        15..17 => Operation::DeleteShare(share),
        17..19 => Operation::DeleteRule(rule),
        _ => {
            return What::Fault(Fault::SlowWatch {
                replica: rng.random_range(0..2),
                resource: "resourcelocks",
                seconds: rng.random_range(1..90),
            });
        }
    })
}

fn fault(rng: &mut SmallRng) -> Fault {
    let replica = rng.random_range(0..2);
    match rng.random_range(0..100) {
        0..22 => Fault::Requests {
            replica,
            count: rng.random_range(1..4),
            writes: rng.random_bool(0.7),
            how: match rng.random_range(0..9) {
                0 => Wrong::Refused(409),
                1 => Wrong::Refused(429),
                2 => Wrong::Refused(500),
                3 => Wrong::Refused(504),
                4 => Wrong::ReplyLost,
                5 => Wrong::ReplyBroken,
                6 => Wrong::Lost,
                7 => Wrong::LateReply(rng.random_range(100..20_000)),
                _ => Wrong::Slow(rng.random_range(100..20_000)),
            },
        },
        22..26 => Fault::Partition {
            replica,
            seconds: rng.random_range(1..120),
        },
        26..36 => Fault::SlowWatch {
            replica,
            resource: pick(
                rng,
                &["shares", "shareaccessrules", "sharebackends", "sharetypes"],
            ),
            seconds: rng.random_range(1..90),
        },
        36..39 => Fault::RepeatedEvents {
            replica,
            seconds: rng.random_range(1..60),
        },
        39..41 => Fault::CutWatches,
        41..43 => Fault::Compact,
        43..53 => Fault::Kill {
            replica,
            back_after: rng.random_range(0..30),
        },
        53..57 => Fault::Terminate {
            replica,
            back_after: rng.random_range(0..30),
        },
        57..65 => Fault::Pause {
            replica,
            milliseconds: rng.random_range(1..90_000),
        },
        65..67 => Fault::Clock {
            replica,
            by: rng.random_range(-600..600),
        },
        67..85 => Fault::Command {
            method: pick(rng, &METHODS),
            write: rng.random_range(0..3),
            kind: match rng.random_range(0..6) {
                0 => FaultKind::FailBefore,
                1 => FaultKind::FailAfter,
                2 | 3 => FaultKind::Hang(After::Delay(Duration::from_millis(rng.random_range(1..120_000)))),
                4 => FaultKind::Hang(After::Calls(rng.random_range(1..20))),
                _ => FaultKind::Lost,
            },
        },
        85..87 => Fault::Unreachable {
            seconds: rng.random_range(1..60),
        },
        87..90 => Fault::Stall {
            seconds: rng.random_range(1..120),
            lost: rng.random(),
        },
        _ => Fault::Hand {
            share: place(rng, SHARES),
            hand: pick(
                rng,
                &[
                    Hand::RemoveExport,
                    Hand::RemoveClients,
                    Hand::AddClient,
                    Hand::OpenExport,
                    Hand::Quota,
                    Hand::Deauthorize,
                    Hand::Untag,
                    Hand::Retag,
                    Hand::DeleteSubvolume,
                ],
            ),
        },
    }
}

/// A generator for one part of the run: parts don't disturb each other when the run is made shorter.
pub fn generator(seed: u64, part: u64) -> SmallRng {
    let mut rng = SmallRng::seed_from_u64(seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    rng.next_u64();
    rng
}
