//! The protocol that keeps two replicas from losing, leaking or exposing a volume, explored exhaustively.
//!
//! **What is explored.** Two replicas of the operator, each with a watch cache that lags as it likes, an elector and passes
//! over one Share, made of the real decisions (`share::decide`, `lease::evaluate`, `lease::covers`) in the order of the
//! real driver: load, decide, a live read before the first effect, the fence, then the effect's commands one by one, each
//! looked at and answered on its own. Every order in which their steps, time, users (who delete the share and apply another
//! of the same name) and ceph-mgr can go is tried, a replica that stands still in the middle of a pass for longer than its
//! lease and then goes on among them, and up to a number of faults: a process that dies, a write to the API server that
//! fails, is stored without an answer or is stored late, a command that is given up on, arrives late, or is run twice
//! because the manager died before it answered. Commands of a module are run in the order in which they arrived.
//!
//! The driver here is the protocol as it has to be; [`FLAWS`] is what happens to one that falls short of it.
//!
//! **What is not.** Shares have no access rules, and nobody changes the backend behind the operator's back: the property
//! tests and the simulation do that. A lease lasts two ticks and an effect takes one; replicas' clocks run at one speed.
//! A turn of an elector is one step; so are a check of the fence and the effect's first read, and the last look at an
//! effect's end and sending a command: a process stopped right between those may send the one command that it has in
//! hand. A replica whose lease has run out finishes the pass it is in and begins none; one that has yet to lead has the
//! cache it began with. A command on its way from a process that ended arrives within its effect's deadline or never.
//! Back-off, turns, drift and reports of slow passes are left out. Of the states one in 64 is followed until it is at rest.
//!
//! `SHOAL_MODEL_FAULTS` and `SHOAL_MODEL_SHARES` ask for more than the tests do.

#![allow(clippy::unwrap_used)]

mod decisions;
mod driver;
#[path = "../domain/fixtures.rs"]
#[allow(dead_code, reason = "shared with the other tests of decisions")]
mod fixtures;
mod protocol;
mod rest;
mod world;

use std::{collections::BTreeSet, env, thread};

use stateright::{Checker, CheckerBuilder, HasDiscoveries, Model};

use crate::{
    driver::{Driver, Flaw},
    protocol::{Protocol, always},
};

/// One state in so many is followed until it is at rest.
const FOLLOWED: u64 = 64;

fn checker(flaws: &'static [Flaw], shares: u8, faults: u8, followed: u64) -> CheckerBuilder<Protocol> {
    let protocol = Protocol {
        driver: Driver { flaws },
        shares,
        faults,
        followed,
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    protocol.checker().threads(threads)
}

/// Explores all of it. Fails with the shortest way to a state that must not be.
fn explore(shares: u8, faults: u8) {
    let asked = |name, least: u8| env::var(name).map_or(least, |n| n.parse().unwrap()).max(least);
    let shares = asked("SHOAL_MODEL_SHARES", shares);
    let faults = asked("SHOAL_MODEL_FAULTS", faults);
    let checker = checker(&[], shares, faults, FOLLOWED)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    println!(
        "shares {shares}, faults {faults}: {} states, {} steps between them, {} steps deep",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

#[test]
fn one_share_after_another_is_safe() {
    explore(2, 0);
}

#[test]
fn a_fault_does_no_harm() {
    explore(1, 1);
}

/// Each flaw, how many shares and faults it takes to show, and what it breaks. The last takes two flaws.
const FLAWS: &[(&[Flaw], u8, u8, &str)] = &[
    (&[Flaw::NoLiveRead], 1, 0, always::WRITTEN_DOWN),
    (&[Flaw::NoFence], 1, 0, always::ONE_ACTOR),
    (&[Flaw::FenceWithoutDeadline], 1, 0, always::ONE_ACTOR),
    (&[Flaw::NoDeadline], 1, 0, always::WRITTEN_DOWN),
    (&[Flaw::TakenEarly], 1, 0, always::ONE_ACTOR),
    (&[Flaw::TakenAgain], 1, 0, always::WRITTEN_DOWN),
    (&[Flaw::NameKept], 1, 2, always::NO_REMAINS),
    (&[Flaw::ReleasedOwing], 1, 2, always::NO_REMAINS),
    (&[Flaw::FinalizerLate], 1, 0, always::WRITTEN_DOWN),
    (&[Flaw::ChoiceNotStored], 1, 0, always::WRITTEN_DOWN),
    (&[Flaw::TimeOutMeansDone], 1, 1, always::NO_REMAINS),
    (&[Flaw::NoWaitForAnswers], 1, 2, always::NO_REMAINS),
    (&[Flaw::ReadsOvertake], 1, 1, always::NO_REMAINS),
    (&[Flaw::GoneWithoutLook], 1, 0, always::NO_REMAINS),
    (&[Flaw::TagForgotten], 1, 1, always::COMES_TO_REST),
    (&[Flaw::NoVersions], 2, 0, always::WRITTEN_DOWN),
    (
        &[Flaw::UidNotCompared, Flaw::NoFence],
        2,
        0,
        always::NOT_DESTROYED,
    ),
];

#[test]
fn every_flaw_is_found() {
    for (flaws, shares, faults, broken) in FLAWS {
        let followed = if *broken == always::COMES_TO_REST {
            FOLLOWED
        } else {
            u64::MAX
        };
        let checker = checker(flaws, *shares, *faults, followed)
            .finish_when(HasDiscoveries::AnyOf(BTreeSet::from([*broken])))
            .spawn_bfs()
            .join();
        let path = checker.discovery(broken);
        let steps = path.map(|path| path.into_actions().len());
        println!(
            "{flaws:?}: '{broken}' after {steps:?} steps, {} states",
            checker.unique_state_count()
        );
        assert!(steps.is_some(), "{flaws:?} is not found");
    }
}
