//! Plays many seeds.

use std::{
    ops::{ControlFlow, Range},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use super::{Outcome, plan::Plan, run};

/// Plays the plans of seeds on so many threads, in about their order, until `see` has seen enough.
pub fn explore(
    draw: fn(u64) -> Plan,
    seeds: Range<u64>,
    threads: usize,
    see: impl Fn(&Plan, &Outcome) -> ControlFlow<()> + Sync,
) {
    let (next, enough) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        break;
                    }
                    let plan = draw(seed);
                    if see(&plan, &run(&plan)).is_break() {
                        enough.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

/// As many threads as there are processors.
pub fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
