use std::{env, ops::ControlFlow, sync::Mutex};

use super::{Violation, explore, plan::Plan, processors, run};

/// A bounded share of what `cargo xtask sim` explores; `SHOAL_SIM_SEEDS` asks for more.
const SEEDS: u64 = 100;
/// The same of `cargo xtask sim --race`.
const RACES: u64 = 4;

#[test]
fn whatever_goes_wrong_everything_ends_well() {
    let seeds = env::var("SHOAL_SIM_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let failed = failures(Plan::draw, seeds);
    assert!(
        failed.is_empty(),
        "look at them with `cargo xtask sim --seed`: {failed:#?}"
    );
}

/// Never more, and never fewer for good.
#[test]
fn two_hundred_shares_race_for_fifty_places() {
    let failed = failures(Plan::race, RACES);
    assert!(
        failed.is_empty(),
        "look at them with `cargo xtask sim --race --seed`: {failed:#?}"
    );
}

fn failures(draw: fn(u64) -> Plan, seeds: u64) -> Vec<(u64, Violation)> {
    let failed = Mutex::new(Vec::new());
    explore(draw, 1..seeds + 1, processors(), |plan, outcome| {
        if let Some(violation) = &outcome.violation {
            failed.lock().unwrap().push((plan.seed, violation.clone()));
        }
        ControlFlow::Continue(())
    });
    failed.into_inner().unwrap()
}

#[test]
fn a_seed_tells_the_whole_run() {
    for seed in 1..=10 {
        let plan = Plan::draw(seed);
        assert_eq!(plan, Plan::draw(seed));
        assert!(plan.faults() >= 10, "seed {seed} has {} faults", plan.faults());
        assert_eq!(run(&plan), run(&plan), "seed {seed}");
    }
}
