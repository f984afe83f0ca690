use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::{plan::Plan, run};

/// A bounded share of what `cargo xtask sim` explores; `SHOAL_SIM_SEEDS` asks for more.
const SEEDS: u64 = 200;

#[test]
fn whatever_goes_wrong_everything_ends_well() {
    let seeds = env::var("SHOAL_SIM_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    let (next, failed) = (AtomicU64::new(1), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds {
                        break;
                    }
                    if let Some(violation) = run(&Plan::draw(seed)).violation {
                        failed.lock().unwrap().push((seed, violation));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "look at them with `cargo xtask sim --seed`: {failed:#?}"
    );
}

#[test]
fn a_seed_tells_the_whole_run() {
    for seed in 1..=20 {
        let plan = Plan::draw(seed);
        assert_eq!(plan, Plan::draw(seed));
        assert!(plan.faults() >= 10, "seed {seed} has {} faults", plan.faults());
        assert_eq!(run(&plan), run(&plan), "seed {seed}");
    }
}
