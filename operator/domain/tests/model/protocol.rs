//! Everything that may happen next, and what must hold whatever does.

use stateright::{Model, Property};

use crate::{
    decisions::Object,
    driver::{Driver, How},
    rest,
    world::{Broken, Module, What, World},
};

/// The protocol, with flaws or without.
pub struct Protocol {
    pub driver: Driver,
    /// How many shares of the one name there are, one after the other.
    pub shares: u8,
    /// How many faults there are at most.
    pub faults: u8,
    /// Of how many states one is followed until it is at rest.
    pub followed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// By users.
    Delete,
    CreateAgain,
    /// Time passes.
    Tick,
    /// A replica's elector takes its turn, and hears the answer or not.
    Elect(u8, bool),
    /// A replica gives the lease back, and ends.
    Release(u8),
    /// A replica ends, whatever it was doing.
    Crash(u8),
    /// A replica's watch cache catches up.
    Watch(u8),
    /// A replica begins a pass.
    Load(u8),
    /// A replica's pass goes on.
    Step(u8, How),
    /// A command arrives at ceph-mgr.
    Arrive(usize),
    /// A module of ceph-mgr runs a command, and answers.
    Run(Module),
    /// It runs a command, and dies before it answers.
    RunAndDie(Module),
    /// The manager dies, and another takes over.
    ManagerDies,
    /// The API server gets a write that was given up on.
    StoreLate,
}

impl Action {
    fn is_fault(self) -> bool {
        match self {
            Self::Elect(_, heard) => !heard,
            Self::Step(_, how) => how != How::Well,
            Self::Crash(_) | Self::RunAndDie(_) | Self::ManagerDies => true,
            _ => false,
        }
    }
}

const ALL_HOWS: [How; 5] = [How::Well, How::Unheard, How::Late, How::Slow, How::Fails];
const MODULES: [Module; 2] = [Module::Volumes, Module::Nfs];

impl Protocol {
    /// Whether it could happen.
    pub fn happen(&self, world: &mut World, action: Action) -> bool {
        let driver = &self.driver;
        let happened = match action {
            Action::Delete => {
                world.delete();
                true
            }
            Action::CreateAgain => {
                world.create();
                true
            }
            Action::Tick => {
                world.tick();
                true
            }
            Action::Elect(replica, heard) => {
                driver.elect(world, replica, heard);
                true
            }
            Action::Release(replica) => driver.release(world, replica),
            Action::Crash(replica) => {
                driver.restart(world, replica);
                true
            }
            Action::Watch(replica) => {
                world.replicas[usize::from(replica)].cache = world.read();
                true
            }
            Action::Load(replica) => {
                Driver::load(world, replica);
                true
            }
            Action::Step(replica, how) => driver.step(world, replica, how),
            Action::Arrive(at) => {
                world.arrive(at);
                true
            }
            Action::Run(module) => Driver::run(world, module),
            Action::RunAndDie(module) => match world.run(module) {
                None => false,
                Some((command, _)) => {
                    world.resend(command);
                    world.fail_over_manager();
                    true
                }
            },
            Action::ManagerDies => {
                world.fail_over_manager();
                true
            }
            Action::StoreLate => driver.store_late(world),
        };
        driver.forget_stale_write(world);
        happened
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.faults)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_some() {
            return;
        }
        match world.stored {
            Some(Object { leaving: false, .. }) => actions.push(Action::Delete),
            None if world.born < self.shares => actions.push(Action::CreateAgain),
            _ => {}
        }
        actions.push(Action::Tick);
        for (replica, state) in (0..).zip(&world.replicas) {
            actions.extend([Action::Elect(replica, true), Action::Elect(replica, false)]);
            if state.leading.is_some() {
                actions.extend([Action::Crash(replica), Action::Release(replica)]);
            }
            if state.leads() {
                actions.push(Action::Watch(replica));
            }
            match &state.pass {
                Some(_) => actions.extend(ALL_HOWS.map(|how| Action::Step(replica, how))),
                None if state.leads() && state.cache.is_some() => actions.push(Action::Load(replica)),
                None => {}
            }
        }
        for (at, command) in world.commands.iter().enumerate() {
            if world.may_arrive(*command) {
                actions.push(Action::Arrive(at));
            }
        }
        for module in MODULES {
            if world.is_busy(module) {
                actions.extend([Action::Run(module), Action::RunAndDie(module)]);
            }
        }
        if !world.commands.is_empty() {
            actions.push(Action::ManagerDies);
        }
        actions.push(Action::StoreLate);
        if world.faults == 0 {
            actions.retain(|action| !action.is_fault());
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        if !self.happen(&mut world, action) || world == *last {
            return None;
        }
        if action.is_fault() {
            world.faults -= 1;
        }
        Some(world.canonical())
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all = vec![
            Property::always(always::ONE_ACTOR, |_, world: &World| !world.has_two_actors()),
            Property::always(always::WRITTEN_DOWN, |_, world: &World| {
                world.broken != Some(Broken::NotWrittenDown)
            }),
            Property::always(always::NOT_DESTROYED, |_, world: &World| {
                world.broken != Some(Broken::Destroyed)
            }),
            Property::always(always::NO_REMAINS, |_, world: &World| !world.has_remains()),
            Property::always(always::COMES_TO_REST, |protocol: &Self, world: &World| {
                !rest::is_followed(world, protocol.followed) || rest::comes_to_rest(protocol, world)
            }),
            Property::sometimes(sometimes::READY, |_, world: &World| is_ready(world, 0)),
            Property::sometimes(sometimes::STOPPED_LEADER, |_, world: &World| {
                let [one, other] = &world.replicas;
                (one.changes_backend() && other.leading == Some(0))
                    || (other.changes_backend() && one.leading == Some(0))
            }),
            Property::sometimes(sometimes::OUTLIVED, |_, world: &World| {
                world.commands.iter().any(|c| c.arrived && c.from.is_none())
            }),
            Property::sometimes(sometimes::LATE_EFFECT, |_, world: &World| {
                world.stored.is_some_and(|object| object.leaving)
                    && world.commands.iter().any(|c| c.what == What::Make && !c.awaited)
            }),
        ];
        if self.shares > 1 {
            all.push(Property::sometimes(sometimes::READY_AGAIN, |_, world: &World| {
                is_ready(world, 1)
            }));
        }
        if self.faults > 0 {
            all.push(Property::sometimes(sometimes::LATE_WRITE, |_, world: &World| {
                world.late_write.is_some()
            }));
        }
        all
    }
}

fn is_ready(world: &World, uid: u8) -> bool {
    world
        .stored
        .is_some_and(|object| object.uid == uid && object.status.is_ready())
}

/// What must hold in every state.
pub mod always {
    pub const ONE_ACTOR: &str = "one replica acts";
    pub const WRITTEN_DOWN: &str = "nothing is sent before finalizer and choice are stored";
    pub const NOT_DESTROYED: &str = "nothing is destroyed that an object claims";
    pub const NO_REMAINS: &str = "nothing is left of an object that is gone";
    pub const COMES_TO_REST: &str = "without faults it comes to rest, and is then as the object says";
}

/// What has to be among the states, or little is said by what holds in them.
mod sometimes {
    pub(super) const READY: &str = "a share is ready";
    pub(super) const READY_AGAIN: &str = "one made again under its name is ready";
    pub(super) const STOPPED_LEADER: &str =
        "another replica leads while one stands in the middle of an effect";
    pub(super) const OUTLIVED: &str = "a command outlives its sender";
    pub(super) const LATE_EFFECT: &str = "a subvolume may yet be made for a share that is being deleted";
    pub(super) const LATE_WRITE: &str = "a write may yet be stored that was given up on";
}
