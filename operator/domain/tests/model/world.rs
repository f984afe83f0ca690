//! The world that replicas act in: the API server's one object and Lease, and ceph-mgr with its queues.

use crate::decisions::{Effect, Object, Seen, Status};

/// Ticks that a Lease lasts.
pub const LEASE: u8 = 2;
/// Ticks that an effect may take.
pub const DEADLINE: u8 = 1;
/// Holder of the Lease: a replica's process that is no more.
const ENDED: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct World {
    /// The Share of the one name.
    pub stored: Option<Object>,
    /// How many of that name there have been.
    pub born: u8,
    /// Who holds the Lease.
    pub holder: Option<u8>,
    pub replicas: [Replica; 2],
    /// Of each uid.
    pub subvolumes: [Subvolume; 2],
    pub exported: [bool; 2],
    /// Commands that were sent. Those that reached ceph-mgr come first, in the order in which it runs them.
    pub commands: Vec<Command>,
    /// A write that its sender gave up on and that the API server may yet get, and whether its version is current.
    pub late_write: Option<(Write, bool)>,
    /// Faults there may yet be.
    pub faults: u8,
    pub broken: Option<Broken>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subvolume {
    Absent,
    Untagged,
    Tagged,
}

/// What must not happen, and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Broken {
    /// A command was sent for an object that was not held, or whose choice was not stored.
    NotWrittenDown,
    /// Something was destroyed that an object claims.
    Destroyed,
}

/// One process after another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replica {
    /// What its watch cache has; of no use once its lease has run out.
    pub cache: Option<Version>,
    /// For how long it has seen the Lease unchanged; none: this version it has not seen yet.
    pub lease_seen: Option<u8>,
    /// Leads; since its last renewal.
    pub leading: Option<u8>,
    pub pass: Option<Pass>,
}

/// An object as it was read, and whether the API server still has this very version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    pub object: Object,
    pub current: bool,
}

/// A write to the object, on the version that is current.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Write {
    Hold,
    Status(Status),
    Annotate,
    LetGo,
}

/// A pass of a replica over the object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pass {
    pub version: Version,
    pub live: bool,
    pub seen: Seen,
    pub failed: bool,
    pub act: Option<Act>,
}

/// An effect under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Act {
    pub effect: Effect,
    pub phase: u8,
    /// Ticks since it began.
    pub age: u8,
    /// Waits for an answer.
    pub waits: bool,
    pub found: Subvolume,
}

/// Commands of one module are run in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Module {
    Volumes,
    Nfs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    Make,
    Tag,
    Remove,
    Export,
    Unexport,
}

impl What {
    pub fn module(self) -> Module {
        match self {
            Self::Make | Self::Tag | Self::Remove => Module::Volumes,
            Self::Export | Self::Unexport => Module::Nfs,
        }
    }

    fn destroys(self) -> bool {
        matches!(self, Self::Remove | Self::Unexport)
    }
}

/// A command that was sent and has not been run, or not been answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Command {
    /// Whether ceph-mgr has it, or it is still on its way.
    pub arrived: bool,
    pub what: What,
    pub uid: u8,
    /// The sender's process; none: it ended.
    pub from: Option<u8>,
    /// Whether the sender waits for it; else it gave up, and is owed an answer.
    pub awaited: bool,
    /// On its way: ticks since its effect began.
    pub age: u8,
}

impl Replica {
    /// Whether its lease has not run out.
    pub fn leads(&self) -> bool {
        self.leading.is_some_and(|since| since < LEASE)
    }

    fn act(&self) -> Option<&Act> {
        self.pass.as_ref()?.act.as_ref()
    }

    /// Whether it is in the middle of an effect that changes the backend.
    pub fn changes_backend(&self) -> bool {
        self.act().is_some_and(|act| act.effect != Effect::Look)
    }
}

impl World {
    /// A user has just applied a Share; nobody leads.
    pub fn new(faults: u8) -> Self {
        let first = Object::new(0);
        let replica = Replica {
            cache: Some(Version {
                object: first,
                current: true,
            }),
            lease_seen: None,
            leading: None,
            pass: None,
        };
        Self {
            stored: Some(first),
            born: 1,
            holder: None,
            replicas: [replica.clone(), replica],
            subvolumes: [Subvolume::Absent; 2],
            exported: [false; 2],
            commands: Vec::new(),
            late_write: None,
            faults,
            broken: None,
        }
    }

    // ---- the API server

    /// Stores another version: whoever has an earlier one has an earlier one.
    pub fn store(&mut self, object: Option<Object>) {
        self.stored = object;
        if let Some((_, current)) = &mut self.late_write {
            *current = false;
        }
        for replica in &mut self.replicas {
            for version in [
                replica.cache.as_mut(),
                replica.pass.as_mut().map(|pass| &mut pass.version),
            ]
            .into_iter()
            .flatten()
            {
                version.current = false;
            }
        }
    }

    pub fn read(&self) -> Option<Version> {
        self.stored.map(|object| Version {
            object,
            current: true,
        })
    }

    /// Applies a write to what is stored. What is stored then.
    pub fn write(&mut self, write: Write) -> Option<Object> {
        let mut object = self.stored?;
        match write {
            Write::Hold => object.held = true,
            Write::Status(status) => object.status = status,
            Write::Annotate => object.annotated = true,
            Write::LetGo => object.held = false,
        }
        let stored = Some(object).filter(|object| object.held || !object.leaving);
        self.store(stored);
        stored
    }

    /// A user deletes the Share.
    pub fn delete(&mut self) {
        let leaving = self.stored.map(|object| Object {
            leaving: true,
            ..object
        });
        self.store(leaving.filter(|object| object.held));
    }

    /// A user applies a Share of the same name.
    pub fn create(&mut self) {
        self.store(Some(Object::new(self.born)));
        self.born += 1;
    }

    // ---- the Lease

    pub fn hold_lease(&mut self, holder: Option<u8>) {
        self.holder = holder;
        for replica in &mut self.replicas {
            replica.lease_seen = None;
        }
    }

    /// The replica's process ends, and another begins.
    pub fn restart(&mut self, replica: u8, keeps_its_name: bool) {
        let cache = self.read();
        self.replicas[usize::from(replica)] = Replica {
            cache,
            lease_seen: None,
            leading: None,
            pass: None,
        };
        if self.holder == Some(replica) && !keeps_its_name {
            self.holder = Some(ENDED);
        }
        for command in self.commands.iter_mut().filter(|c| c.from == Some(replica)) {
            command.from = None;
            command.awaited = false;
        }
        self.drop_lost();
    }

    // ---- ceph-mgr

    pub fn send(&mut self, from: u8, what: What, uid: u8, age: u8, arrived: bool) {
        let written_down = self
            .stored
            .is_some_and(|object| object.uid == uid && object.held && object.status.is_recorded());
        if !written_down {
            self.broken = Some(Broken::NotWrittenDown);
        }
        self.commands.push(Command {
            arrived,
            what,
            uid,
            from: Some(from),
            awaited: true,
            age: if arrived { 0 } else { age },
        });
        self.order();
    }

    /// Whether commands of the module have arrived that were not run.
    pub fn is_busy(&self, module: Module) -> bool {
        self.commands
            .iter()
            .any(|c| c.arrived && c.what.module() == module)
    }

    /// Whether the replica gave up on a command of the module.
    pub fn owes(&self, replica: u8, module: Module) -> bool {
        self.commands
            .iter()
            .any(|c| c.from == Some(replica) && !c.awaited && c.what.module() == module)
    }

    /// Whether a command that is on its way may arrive: its sender lives and leads, or else its deadline is not over.
    pub fn may_arrive(&self, command: Command) -> bool {
        !command.arrived
            && match command.from {
                Some(replica) => self.replicas[usize::from(replica)].leads(),
                None => command.age <= DEADLINE,
            }
    }

    pub fn arrive(&mut self, at: usize) {
        let mut command = self.commands.remove(at);
        command.arrived = true;
        command.age = 0;
        self.commands.push(command);
        self.order();
    }

    /// The module runs the first command in its queue. Its sender, if it waits, and whether all went well.
    pub fn run(&mut self, module: Module) -> Option<(Command, bool)> {
        let first = self
            .commands
            .iter()
            .position(|c| c.arrived && c.what.module() == module)?;
        let command = self.commands.remove(first);
        let uid = usize::from(command.uid);
        let claimed = self
            .stored
            .is_some_and(|object| object.uid == command.uid && !object.leaving);
        let subvolume = &mut self.subvolumes[uid];
        let mut well = true;
        match command.what {
            What::Make if *subvolume == Subvolume::Absent => *subvolume = Subvolume::Untagged,
            What::Make => {}
            What::Tag if *subvolume == Subvolume::Absent => well = false,
            What::Tag => *subvolume = Subvolume::Tagged,
            What::Remove => *subvolume = Subvolume::Absent,
            What::Export => self.exported[uid] = true,
            What::Unexport => self.exported[uid] = false,
        }
        if command.what.destroys() && claimed {
            self.broken = Some(Broken::Destroyed);
        }
        Some((command, well))
    }

    /// Another manager takes over: librados sends it what was not answered, if the sender's process still lives.
    pub fn fail_over_manager(&mut self) {
        self.commands.retain(|c| c.from.is_some() || !c.arrived);
        for command in self.commands.iter_mut().filter(|c| c.arrived) {
            command.arrived = false;
            command.age = DEADLINE + 1;
        }
        self.order();
    }

    pub fn resend(&mut self, command: Command) {
        if command.from.is_some() {
            self.commands.push(Command {
                arrived: false,
                age: DEADLINE + 1,
                ..command
            });
            self.order();
        }
    }

    fn drop_lost(&mut self) {
        self.commands
            .retain(|c| c.arrived || c.from.is_some() || c.age <= DEADLINE);
    }

    /// Of commands on their way the order does not matter.
    fn order(&mut self) {
        self.commands
            .sort_by_key(|c| (!c.arrived, c.what.module(), (!c.arrived).then_some(*c)));
    }

    // ---- time

    /// Ages stop where nothing depends on them any more.
    pub fn tick(&mut self) {
        let older = |age: &mut u8, most: u8| *age = (*age + 1).min(most);
        for replica in &mut self.replicas {
            for age in [&mut replica.lease_seen, &mut replica.leading]
                .into_iter()
                .flatten()
            {
                older(age, LEASE);
            }
            if replica.leading == Some(LEASE) {
                replica.cache = None;
            }
            if let Some(act) = replica.pass.as_mut().and_then(|pass| pass.act.as_mut()) {
                older(&mut act.age, DEADLINE + 1);
            }
        }
        for command in self.commands.iter_mut().filter(|c| !c.arrived) {
            older(&mut command.age, DEADLINE + 1);
        }
        self.drop_lost();
        self.order();
    }

    /// The same world whichever replica is called the first.
    pub fn canonical(mut self) -> Self {
        if self.replicas[0] > self.replicas[1] {
            self.replicas.swap(0, 1);
            let other = |replica: u8| if replica < ENDED { 1 - replica } else { replica };
            self.holder = self.holder.map(other);
            for command in &mut self.commands {
                command.from = command.from.map(other);
            }
            self.order();
        }
        self
    }

    // ---- what is to hold

    /// Whether more than one replica may act, or is at it.
    pub fn has_two_actors(&self) -> bool {
        self.replicas.iter().all(|replica| {
            let in_time = replica.act().is_some_and(|act| act.age <= DEADLINE);
            replica.leads() || (replica.changes_backend() && in_time)
        })
    }

    /// Whether something of an object that is gone is there, and nothing under way that could change that.
    pub fn has_remains(&self) -> bool {
        (0..self.born).any(|uid| {
            let there = usize::from(uid);
            self.stored.is_none_or(|object| object.uid != uid)
                && (self.subvolumes[there] != Subvolume::Absent || self.exported[there])
                && self.commands.iter().all(|c| c.uid != uid)
        })
    }
}
