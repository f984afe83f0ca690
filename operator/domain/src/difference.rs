//! What would be changed on a backend that is only looked at, in words. Clients are told by their rules alone: who they are may be
//! from a Secret.

use shoal_crds::{AccessLevel, Differences};

use crate::{
    grant::{Access, Grant},
    share_access_rule::{Plan, Verdict},
};

/// How many of a share are told.
const TOLD: usize = 100;

/// Between who is to be let in, and who is. What lets in more comes first.
pub fn of_access(plan: &Plan, have: &Access) -> Vec<String> {
    let (mut more, mut less) = (Vec::new(), Vec::new());
    for (rule, verdict) in &plan.verdicts {
        let Verdict::Grant(grant) = verdict else { continue };
        let Some(had) = have.iter().find(|had| had.client == grant.client) else {
            more.push(format!(
                "rule '{rule}' lets its client in, {:?}: it is not let in now",
                grant.level
            ));
            continue;
        };
        if had.level != grant.level {
            let told = format!(
                "rule '{rule}' makes its client {:?}, from {:?}",
                grant.level, had.level
            );
            match grant.level {
                AccessLevel::ReadWrite => more.push(told),
                AccessLevel::ReadOnly => less.push(told),
            }
        }
        if had.squash != grant.squash {
            more.push(format!(
                "rule '{rule}' makes its client's squash {:?}, from {:?}",
                grant.squash, had.squash
            ));
        }
    }
    let is_named = |had: &Grant| plan.access.iter().any(|grant| grant.client == had.client);
    let unnamed = have.iter().filter(|had| !is_named(had)).count();
    if unnamed > 0 {
        less.push(format!("clients that no rule lets in are cut off: {unnamed}"));
    }
    if more.is_empty() && less.is_empty() && plan.access != *have {
        less.push("the list of its clients is written anew".into());
    }
    more.append(&mut less);
    more
}

/// As a status has it.
pub fn told(mut all: Vec<String>) -> Differences {
    let total = i64::try_from(all.len()).unwrap_or(i64::MAX);
    all.truncate(TOLD);
    Differences { total, list: all }
}
