//! What becomes of a state when nothing goes wrong any more.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::{
    driver::How,
    protocol::{Action, Protocol},
    world::{Module, Subvolume, World},
};

/// No state needs more.
const MOST_ACTIONS: usize = 400;

/// Whether the state is one of those that are followed: one in so many.
pub fn is_followed(world: &World, one_in: u64) -> bool {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish().is_multiple_of(one_in)
}

/// Whether it comes to rest, and then holds what the object says.
pub fn comes_to_rest(protocol: &Protocol, world: &World) -> bool {
    let mut world = world.clone();
    let mut quiet = false;
    for _ in 0..MOST_ACTIONS {
        let before = world.clone();
        let leader = (0..2).find(|r| world.replicas[usize::from(*r)].leads());
        let Some(leader) = leader else {
            for action in [Action::Tick, Action::Elect(0, true), Action::Elect(1, true)] {
                protocol.happen(&mut world, action);
            }
            continue;
        };
        if !world.commands.is_empty() {
            follow_commands(protocol, &mut world);
            continue;
        }
        protocol.happen(&mut world, Action::Elect(leader, true));
        if let Some(other) = (0..2).find(|r| world.replicas[*r].pass.is_some()) {
            let other = u8::try_from(other).unwrap();
            if !protocol.happen(&mut world, Action::Step(other, How::Well)) {
                protocol.happen(&mut world, Action::Step(other, How::Fails));
            }
        } else if quiet && is_as_the_object_says(&world) {
            return true;
        } else {
            world.late_write = None;
            protocol.happen(&mut world, Action::Watch(leader));
            protocol.happen(&mut world, Action::Load(leader));
            quiet = world.replicas[usize::from(leader)].pass.is_none();
            if !quiet {
                quiet = pass_changes_nothing(protocol, &mut world, leader);
            }
        }
        if world == before && !quiet {
            return false;
        }
    }
    false
}

fn follow_commands(protocol: &Protocol, world: &mut World) {
    if let Some(at) = world.commands.iter().position(|c| world.may_arrive(*c)) {
        protocol.happen(world, Action::Arrive(at));
        return;
    }
    for module in [Module::Volumes, Module::Nfs] {
        if world.is_busy(module) {
            protocol.happen(world, Action::Run(module));
            return;
        }
    }
    // What is on its way from a process that no longer leads: it ends.
    for replica in 0..2 {
        if world.commands.iter().any(|c| c.from == Some(replica)) {
            protocol.happen(world, Action::Crash(replica));
        }
    }
    protocol.happen(world, Action::Tick);
}

/// Runs the pass that has just begun. Whether it left everything as it was.
fn pass_changes_nothing(protocol: &Protocol, world: &mut World, leader: u8) -> bool {
    let essence = |world: &World| (world.stored, world.subvolumes, world.exported);
    let before = essence(world);
    for _ in 0..MOST_ACTIONS {
        if world.replicas[usize::from(leader)].pass.is_none() {
            return before == essence(world);
        }
        protocol.happen(world, Action::Elect(leader, true));
        if !world.commands.is_empty() {
            follow_commands(protocol, world);
        } else if !protocol.happen(world, Action::Step(leader, How::Well)) {
            return false;
        }
    }
    false
}

fn is_as_the_object_says(world: &World) -> bool {
    (0..2).all(|uid| {
        let there = (
            world.subvolumes[usize::from(uid)],
            world.exported[usize::from(uid)],
        );
        match world.stored {
            Some(object) if object.uid == uid => {
                !object.leaving && object.status.is_ready() && there == (Subvolume::Tagged, true)
            }
            _ => there == (Subvolume::Absent, false),
        }
    })
}
