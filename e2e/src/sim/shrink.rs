//! Makes the history of a failure shorter: what it can do without is dropped.

use super::{Outcome, plan::Plan, run};

/// The shortest plan found that violates the same invariant, and what comes of it. Tries at most so many runs.
pub fn shrink(plan: &Plan, outcome: &Outcome, mut tries: usize) -> (Plan, Outcome) {
    let mut shortest = (plan.clone(), outcome.clone());
    let Some(wanted) = outcome.violation.as_ref().map(|v| v.invariant) else {
        return shortest;
    };
    // Large pieces first, then ever smaller ones.
    let mut piece = shortest.0.events.len() / 2;
    while piece > 0 {
        let mut from = 0;
        while from < shortest.0.events.len() && tries > 0 {
            let mut shorter = shortest.0.clone();
            let to = (from + piece).min(shorter.events.len());
            shorter.events.drain(from..to);
            tries -= 1;
            let came = run(&shorter);
            if came.violation.as_ref().is_some_and(|v| v.invariant == wanted) {
                shortest = (shorter, came);
            } else {
                from += piece;
            }
        }
        piece /= 2;
    }
    shortest
}
