//! The real decisions, asked about the model's small states. Each question is put once; the answers are kept.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{LazyLock, Mutex},
    time::Duration,
};

use shoal_crds::{Share, ShareStatus, condition::types};
use shoal_domain::{
    Class, Scope, Step as RealStep, export_location,
    lease::{self, Held, Move},
    owner::{self, Tag},
    share::{self, Observed},
    volume::{Export, Sight},
};

use crate::fixtures::{self, Object as _, VolumeExt};

/// A status that a real decision made, by its hash. The lowest bits repeat what properties ask for.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(u64);

const RECORDED: u64 = 1;
const READY: u64 = 2;

static STATUSES: LazyLock<Mutex<HashMap<Status, ShareStatus>>> = LazyLock::new(Mutex::default);

impl Status {
    /// How long a failure holds a share back is left out: a pass that only waits changes nothing.
    fn of(mut status: ShareStatus) -> Self {
        status.attempts = None;
        status.next_retry_time = None;
        if status == ShareStatus::default() {
            return Self::default();
        }
        let mut hasher = DefaultHasher::new();
        serde_json::to_string(&status).unwrap().hash(&mut hasher);
        let recorded = u64::from(share::recorded(&status).is_some()) * RECORDED;
        let ready = u64::from(fixtures::says(&status.conditions, types::READY)) * READY;
        let id = Self(hasher.finish() << 2 | recorded | ready);
        STATUSES.lock().unwrap().insert(id, status);
        id
    }

    fn get(self) -> Option<ShareStatus> {
        STATUSES.lock().unwrap().get(&self).cloned()
    }

    /// Whether it holds the choice of a backend.
    pub fn is_recorded(self) -> bool {
        self.0 & RECORDED != 0
    }

    pub fn is_ready(self) -> bool {
        self.0 & READY != 0
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.get().unwrap_or_default();
        let (_, why) = fixtures::told(&status.conditions, types::READY);
        write!(f, "{:?}/{why}", status.phase)
    }
}

/// A Share, as one version of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// 0, or 1 for the one of the same name that came later.
    pub uid: u8,
    pub leaving: bool,
    pub held: bool,
    pub annotated: bool,
    pub status: Status,
}

impl Object {
    pub fn new(uid: u8) -> Self {
        Self {
            uid,
            leaving: false,
            held: false,
            annotated: false,
            status: Status::default(),
        }
    }

    fn uid_text(self) -> &'static str {
        ["uid-first", "uid-second"][usize::from(self.uid)]
    }

    fn share(self) -> Share {
        let mut share = fixtures::share("a");
        share.metadata.uid = Some(self.uid_text().into());
        if self.held {
            share = share.held();
        }
        if self.leaving {
            share = share.leaving();
        }
        if self.annotated {
            let pseudo_path = owner::pseudo_path(self.uid_text());
            let path = fixtures::volume(&share).path;
            let locations = export_location::locations(
                &fixtures::backend_description(),
                share.spec.protocol,
                &path,
                Some(&pseudo_path),
            );
            share.metadata.annotations = Some(export_location::mirror(&locations));
        }
        share.status = self.status.get();
        share
    }
}

/// What a pass has seen of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seen {
    Nothing,
    Absent { leftovers: bool },
    Present { tagged: bool, exported: bool },
}

/// What a pass knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Known {
    pub object: Object,
    pub seen: Seen,
    pub failed: bool,
    pub look_due: bool,
}

/// Effects that shares without rules have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    Look,
    Create,
    Export,
    Unexport,
    Remove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    None,
    Hold,
    Record,
    LetGo,
    Annotate,
    Do(Effect),
}

/// What a decision says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decided {
    pub status: Status,
    pub step: Step,
}

thread_local! {
    static DECIDED: RefCell<HashMap<Known, Decided>> = RefCell::default();
}

pub fn decide(known: &Known) -> Decided {
    DECIDED.with_borrow_mut(|kept| *kept.entry(*known).or_insert_with(|| ask(known)))
}

fn ask(known: &Known) -> Decided {
    let decision = share::decide(&observed(known), fixtures::now());
    let step = match decision.step {
        None => Step::None,
        Some(RealStep::AddFinalizer) => Step::Hold,
        Some(RealStep::Record) => Step::Record,
        Some(RealStep::RemoveFinalizer) => Step::LetGo,
        Some(RealStep::Do(effect)) => match effect {
            share::Effect::Look => Step::Do(Effect::Look),
            share::Effect::Create(_) => Step::Do(Effect::Create),
            share::Effect::Export(_) => Step::Do(Effect::Export),
            share::Effect::Unexport => Step::Do(Effect::Unexport),
            share::Effect::Remove => Step::Do(Effect::Remove),
            share::Effect::Annotate(_) => Step::Annotate,
            other => panic!("not part of the model: {other:?}"),
        },
    };
    Decided {
        status: Status::of(decision.status),
        step,
    }
}

fn observed(known: &Known) -> Observed {
    let share = known.object.share();
    let sight = match known.seen {
        Seen::Nothing => None,
        Seen::Absent { leftovers } => Some(Sight::Absent { leftovers }),
        Seen::Present { tagged, exported } => {
            let mut volume = fixtures::volume(&share);
            if !tagged {
                volume = volume.tagged(Tag::Absent);
            }
            if exported {
                volume.export = Export::Ours {
                    pseudo_path: Some(owner::pseudo_path(known.object.uid_text())),
                    access: Vec::new(),
                    intact: true,
                };
            }
            volume.seen()
        }
    };
    let chosen = known.object.status.is_recorded();
    Observed {
        share,
        cluster: fixtures::CLUSTER.into(),
        tenant: "uid-team".into(),
        namespace_deleted: None,
        namespace_labels: BTreeMap::new(),
        share_type: Ok(fixtures::share_type()),
        candidates: (!chosen)
            .then(|| fixtures::candidate("ceph-a", Ok(fixtures::backend_description())))
            .into_iter()
            .collect(),
        neighbours: Vec::new(),
        taken_on: std::collections::BTreeSet::new(),
        quotas: Vec::new(),
        usage: shoal_domain::share_quota::Usage::default(),
        ledger_revision: 0,
        backend: chosen.then(|| Ok(fixtures::backend_description())),
        rules: Vec::new(),
        rules_confirmed: false,
        locks: Vec::new(),
        locks_confirmed: true,
        look_due: known.look_due,
        look_again: Duration::from_mins(10),
        round: None,
        sight,
        looked_for: None,
        keys: BTreeMap::new(),
        refused: HashMap::new(),
        dry_run: None,
        source: None,
        former: shoal_domain::orphan::Former::default(),
        going: shoal_domain::share::Going::default(),
        failure: known.failed.then(|| {
            fixtures::failure(
                Scope::Backend,
                Class::Transient,
                shoal_crds::condition::reasons::COMMAND_TIMED_OUT,
            )
        }),
    }
}

/// What `me` does about a lease that it has seen unchanged for so many ticks.
pub fn evaluate(me: u8, holder: Option<u8>, unchanged_for: u8, duration: u8) -> Move {
    let name = |replica: u8| replica.to_string();
    let held = Held {
        holder: holder.map_or_else(String::new, name),
        duration: ticks(duration),
        unchanged_for: ticks(unchanged_for),
    };
    lease::evaluate(&name(me), Some(&held))
}

pub fn covers(since_renewal: u8, duration: u8, effect: u8) -> bool {
    lease::covers(ticks(since_renewal), ticks(duration), ticks(effect))
}

fn ticks(n: u8) -> Duration {
    Duration::from_secs(n.into())
}
