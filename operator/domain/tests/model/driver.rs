//! A replica: its elector, and its passes as `operator/src/driver.rs` makes them, effects as `operator/ceph` sends them.

use shoal_domain::lease::Move;

use crate::{
    decisions::{self, Decided, Effect, Known, Seen, Step},
    world::{Act, Command, DEADLINE, LEASE, Module, Pass, Subvolume, What, World, Write},
};

/// What is wrong with the driver, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Flaw {
    /// An effect rests on the watch cache.
    NoLiveRead,
    /// An effect begins without a look at the fence.
    NoFence,
    /// The lease has to be there now, and not until the effect's end.
    FenceWithoutDeadline,
    /// An effect goes on after its deadline.
    NoDeadline,
    /// A lease is taken before its whole duration has passed.
    TakenEarly,
    /// A leader that finds its lease lost and free again goes on with what it was doing.
    TakenAgain,
    /// A process that starts again has the name of the one before.
    NameKept,
    /// The lease is given back while answers are owed.
    ReleasedOwing,
    /// The finalizer comes after the effects.
    FinalizerLate,
    /// The choice of a backend is kept in mind and not stored.
    ChoiceNotStored,
    /// A command that was not answered is taken for done.
    TimeOutMeansDone,
    /// After a time-out the next command is sent at once.
    NoWaitForAnswers,
    /// ceph-mgr answers a read before what was sent earlier.
    ReadsOvertake,
    /// The finalizer is taken off without a look.
    GoneWithoutLook,
    /// A subvolume that lacks its tag is taken for one that is done.
    TagForgotten,
    /// Writes to the API server name no version.
    NoVersions,
    /// What was true of an object is taken for true of another of its name.
    UidNotCompared,
}

/// How a step goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum How {
    Well,
    /// A write is stored, and the answer is lost.
    Unheard,
    /// A write is given up on, and may be stored later.
    Late,
    /// A command is on its way, and arrives later.
    Slow,
    /// An error, or no answer in time.
    Fails,
}

pub struct Driver {
    pub flaws: &'static [Flaw],
}

impl Driver {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaws.contains(&flaw)
    }

    // ---- the elector

    /// One turn, as one step: that the write comes later than the read only makes it fail, for it names the version read,
    /// and a renewal counts from before the read.
    pub fn elect(&self, world: &mut World, me: u8, heard: bool) {
        let at = usize::from(me);
        let unchanged_for = *world.replicas[at].lease_seen.get_or_insert(0);
        let duration = if self.has(Flaw::TakenEarly) {
            LEASE - 1
        } else {
            LEASE
        };
        match decisions::evaluate(me, world.holder, unchanged_for, duration) {
            Move::Stand if world.replicas[at].leading.is_some() => self.restart(world, me),
            // It was lost, and another that had it gave it back.
            Move::Take if world.replicas[at].leading.is_some() && !self.has(Flaw::TakenAgain) => {
                self.restart(world, me);
            }
            Move::Stand => {}
            Move::Take | Move::Renew => {
                world.hold_lease(Some(me));
                if heard {
                    world.replicas[at].leading = Some(0);
                }
            }
        }
    }

    pub fn restart(&self, world: &mut World, me: u8) {
        world.restart(me, self.has(Flaw::NameKept));
    }

    /// The lease is given back at an orderly end, when no pass is under way. False: not now.
    pub fn release(&self, world: &mut World, me: u8) -> bool {
        let replica = &world.replicas[usize::from(me)];
        let owing = world.commands.iter().any(|c| c.from == Some(me));
        if replica.leading.is_none() || replica.pass.is_some() || (owing && !self.has(Flaw::ReleasedOwing)) {
            return false;
        }
        if world.holder == Some(me) {
            world.hold_lease(None);
        }
        self.restart(world, me);
        true
    }

    // ---- a pass

    pub fn load(world: &mut World, me: u8) {
        let replica = &mut world.replicas[usize::from(me)];
        replica.pass = replica.cache.map(|version| Pass {
            version,
            live: false,
            seen: Seen::Nothing,
            failed: false,
            act: None,
        });
    }

    /// The next step of the replica's pass. False: it can't go so.
    pub fn step(&self, world: &mut World, me: u8, how: How) -> bool {
        let Some(mut pass) = world.replicas[usize::from(me)].pass.take() else {
            return false;
        };
        let (took, goes_on) = match pass.act {
            Some(act) => (self.act(world, me, &mut pass, act, how), true),
            None => self.decide(world, me, &mut pass, how),
        };
        if goes_on {
            world.replicas[usize::from(me)].pass = Some(pass);
        }
        took
    }

    /// Whether the step could be taken so, and whether the pass goes on.
    fn decide(&self, world: &mut World, me: u8, pass: &mut Pass, how: How) -> (bool, bool) {
        let Decided { status, step } = self.decision(pass);
        match step {
            Step::None if status == pass.version.object.status => (how == How::Well, false),
            Step::None => {
                let (took, _) = self.write(world, pass, Write::Status(status), how);
                (took, false)
            }
            Step::Hold if self.has(Flaw::FinalizerLate) => {
                pass.version.object.held = true;
                (how == How::Well, true)
            }
            Step::Record if self.has(Flaw::ChoiceNotStored) => {
                pass.version.object.status = status;
                (how == How::Well, true)
            }
            Step::Hold => self.write_live(world, pass, Write::Hold, how),
            Step::Record => self.write_live(world, pass, Write::Status(status), how),
            Step::Annotate => self.write(world, pass, Write::Annotate, how),
            Step::LetGo => {
                let (took, _) = self.write(world, pass, Write::LetGo, how);
                (took, false)
            }
            Step::Do(effect) if effect != Effect::Look && !pass.live && !self.has(Flaw::NoLiveRead) => {
                match how {
                    How::Well => (true, self.read_live(world, pass)),
                    How::Fails => (true, false),
                    _ => (false, true),
                }
            }
            Step::Do(effect) => match self.begin(world, me, effect) {
                Some(act) => (self.act(world, me, pass, act, how), true),
                None => (how == How::Well, false),
            },
        }
    }

    fn decision(&self, pass: &Pass) -> Decided {
        let object = pass.version.object;
        let mut seen = pass.seen;
        if self.has(Flaw::GoneWithoutLook) && object.leaving && seen == Seen::Nothing {
            seen = Seen::Absent { leftovers: false };
        }
        decisions::decide(&Known {
            object,
            seen,
            failed: pass.failed,
            look_due: true,
        })
    }

    fn write_live(&self, world: &mut World, pass: &mut Pass, write: Write, how: How) -> (bool, bool) {
        let (took, goes_on) = self.write(world, pass, write, how);
        pass.live = true;
        (took, goes_on)
    }

    /// A write on the version that the pass rests on. Whatever goes wrong ends the pass.
    fn write(&self, world: &mut World, pass: &mut Pass, write: Write, how: How) -> (bool, bool) {
        let accepted = pass.version.current || (self.has(Flaw::NoVersions) && world.stored.is_some());
        match how {
            // Refused: as if it had failed.
            _ if !accepted => (how == How::Well, false),
            How::Well => match world.write(write) {
                Some(object) => {
                    pass.version.object = object;
                    pass.version.current = true;
                    (true, true)
                }
                None => (true, false),
            },
            How::Unheard => {
                world.write(write);
                (true, false)
            }
            How::Late if world.late_write.is_none() => {
                world.late_write = Some((write, true));
                (true, false)
            }
            How::Fails => (true, false),
            How::Late | How::Slow => (false, true),
        }
    }

    /// A write that was given up on is stored after all, or refused.
    pub fn store_late(&self, world: &mut World) -> bool {
        match world.late_write.take() {
            None => false,
            Some((write, current)) => {
                if current || self.has(Flaw::NoVersions) {
                    world.write(write);
                }
                true
            }
        }
    }

    /// Forgets a write that would be refused.
    pub fn forget_stale_write(&self, world: &mut World) {
        world.late_write = world
            .late_write
            .filter(|(_, current)| *current || self.has(Flaw::NoVersions));
    }

    /// Whether the object is still there.
    fn read_live(&self, world: &World, pass: &mut Pass) -> bool {
        match world.read() {
            Some(found) if found.object.uid != pass.version.object.uid && self.has(Flaw::UidNotCompared) => {
                pass.version.object.uid = found.object.uid;
                pass.live = true;
                true
            }
            Some(found) if found.object.uid == pass.version.object.uid => {
                pass.version = found;
                pass.live = true;
                true
            }
            _ => false,
        }
    }

    /// An effect that begins, if the fence is open for as long as it takes.
    fn begin(&self, world: &World, me: u8, effect: Effect) -> Option<Act> {
        let longest = if effect == Effect::Look || self.has(Flaw::FenceWithoutDeadline) {
            0
        } else {
            DEADLINE
        };
        let since = world.replicas[usize::from(me)].leading;
        let open = since.is_some_and(|since| decisions::covers(since, LEASE, longest));
        (open || self.has(Flaw::NoFence)).then_some(Act {
            effect,
            phase: 0,
            age: 0,
            waits: false,
            found: Subvolume::Absent,
        })
    }

    // ---- an effect

    fn act(&self, world: &mut World, me: u8, pass: &mut Pass, mut act: Act, how: How) -> bool {
        let in_time = act.age <= DEADLINE || act.effect == Effect::Look || self.has(Flaw::NoDeadline);
        let went = match how {
            How::Fails => None,
            How::Well | How::Slow if in_time && !act.waits => {
                match self.advance(world, me, pass, &mut act, how == How::Slow) {
                    Advance::Held => return false,
                    Advance::On => Some(()),
                    Advance::Failed => None,
                    Advance::Done => {
                        pass.act = None;
                        return true;
                    }
                }
            }
            _ => return false,
        };
        if went.is_some() {
            pass.act = Some(act);
            return true;
        }
        for command in world.commands.iter_mut().filter(|c| c.from == Some(me)) {
            command.awaited = false;
        }
        pass.act = None;
        if self.has(Flaw::TimeOutMeansDone) && act.effect != Effect::Look {
            pass.seen = done(act.effect, pass.seen);
        } else {
            pass.failed = true;
        }
        true
    }

    /// The next thing that an effect does.
    fn advance(&self, world: &mut World, me: u8, pass: &mut Pass, act: &mut Act, slow: bool) -> Advance {
        use Effect::{Create, Export, Look, Remove, Unexport};
        let uid = usize::from(pass.version.object.uid);
        let command = match (act.effect, act.phase) {
            (Create, 1) => Some(What::Make),
            (Create, 2) => Some(What::Tag),
            (Export, 1) => Some(What::Export),
            (Unexport, 1) => Some(What::Unexport),
            (Remove, 1) => Some(What::Remove),
            _ => None,
        };
        if let Some(what) = command {
            if !self.may_send(world, me, what.module()) {
                return Advance::Held;
            }
            world.send(me, what, pass.version.object.uid, act.age, !slow);
            act.waits = true;
            return Advance::On;
        }
        let modules: &[Module] = match (act.effect, act.phase) {
            (Look | Create | Remove, 0) => &[Module::Volumes],
            (Create, _) | (Export, 0) => &[Module::Volumes, Module::Nfs],
            _ => &[Module::Nfs],
        };
        let answered = |module: &Module| {
            self.may_send(world, me, *module) && (self.has(Flaw::ReadsOvertake) || !world.is_busy(*module))
        };
        if slow || !modules.iter().all(answered) {
            return Advance::Held;
        }
        let (there, exported) = (world.subvolumes[uid], world.exported[uid]);
        let step = (act.effect, act.phase);
        let mut go = |phase: u8| {
            act.phase = phase;
            Advance::On
        };
        match step {
            (Look, 0) => {
                go(1);
                act.found = there;
                Advance::On
            }
            (Look, _) => {
                pass.seen = match act.found {
                    Subvolume::Absent => Seen::Absent { leftovers: exported },
                    found => Seen::Present {
                        tagged: found == Subvolume::Tagged,
                        exported,
                    },
                };
                Advance::Done
            }
            (Create, 0) => match there {
                Subvolume::Absent => go(1),
                Subvolume::Untagged if !self.has(Flaw::TagForgotten) => go(2),
                Subvolume::Untagged | Subvolume::Tagged => go(3),
            },
            (Create, _) if there != Subvolume::Tagged && !self.has(Flaw::TagForgotten) => Advance::Failed,
            (Create, _) => {
                pass.seen = Seen::Present {
                    tagged: true,
                    exported,
                };
                Advance::Done
            }
            (Export, 0) if there == Subvolume::Absent => Advance::Failed,
            (Export, 0) if !exported => go(1),
            (Export, 2) if !exported => Advance::Failed,
            (Unexport, 0) if exported => go(1),
            (Unexport, 2) if exported => Advance::Failed,
            (Remove, 0) if there != Subvolume::Absent => go(1),
            (effect, _) => {
                pass.seen = done(effect, pass.seen);
                Advance::Done
            }
        }
    }

    fn may_send(&self, world: &World, me: u8, module: Module) -> bool {
        self.has(Flaw::NoWaitForAnswers) || !world.owes(me, module)
    }

    /// A module runs a command; its sender hears of it if it still waits.
    pub fn run(world: &mut World, module: Module) -> bool {
        let Some((command, well)) = world.run(module) else {
            return false;
        };
        if let Command {
            from: Some(replica),
            awaited: true,
            ..
        } = command
            && let Some(pass) = &mut world.replicas[usize::from(replica)].pass
            && let Some(act) = &mut pass.act
        {
            act.waits = false;
            act.phase += 1;
            if act.effect == Effect::Remove {
                pass.seen = done(Effect::Remove, pass.seen);
                pass.act = None;
            } else if !well {
                pass.failed = true;
                pass.act = None;
            }
        }
        true
    }
}

enum Advance {
    /// Not now.
    Held,
    On,
    Failed,
    Done,
}

/// What an effect that is done means for what was seen.
fn done(effect: Effect, seen: Seen) -> Seen {
    match (effect, seen) {
        (Effect::Remove, _) | (Effect::Unexport, Seen::Absent { .. }) => Seen::Absent { leftovers: false },
        (Effect::Create, _) => Seen::Present {
            tagged: true,
            exported: false,
        },
        (Effect::Export, Seen::Present { tagged, .. }) => Seen::Present {
            tagged,
            exported: true,
        },
        (Effect::Unexport, Seen::Present { tagged, .. }) => Seen::Present {
            tagged,
            exported: false,
        },
        (_, seen) => seen,
    }
}
