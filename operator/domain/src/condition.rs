//! Building conditions: kstatus rules in one place.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use shoal_crds::condition::{reasons, types};

use crate::{Class, Failure};

/// The conditions of a status under construction.
///
/// A condition that keeps its truth keeps its `lastTransitionTime`, so a status in which nothing changed equals the one
/// before it and is not written.
#[derive(Clone, Debug)]
pub struct Conditions<'a> {
    before: &'a [Condition],
    now: Timestamp,
    generation: i64,
    list: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// Starts from nothing; `before` only gives the times.
    pub fn new(before: &'a [Condition], generation: i64, now: Timestamp) -> Self {
        Self {
            before,
            now,
            generation,
            list: Vec::new(),
        }
    }

    /// Starts from what was there, for a status that only adds to the one before.
    pub fn keeping(before: &'a [Condition], generation: i64, now: Timestamp) -> Self {
        Self {
            before,
            now,
            generation,
            list: before.to_vec(),
        }
    }

    /// Sets a condition.
    #[must_use]
    pub fn set(mut self, type_: &str, truth: bool, reason: &str, message: impl Into<String>) -> Self {
        let status = if truth { "True" } else { "False" };
        let last_transition_time = self
            .before
            .iter()
            .find(|c| c.type_ == type_ && c.status == status)
            .map_or_else(
                || Time(whole_seconds(self.now)),
                |c| c.last_transition_time.clone(),
            );
        let condition = Condition {
            type_: type_.into(),
            status: status.into(),
            reason: reason.into(),
            message: bounded(message.into()),
            observed_generation: Some(self.generation),
            last_transition_time,
        };
        match self.list.iter_mut().find(|c| c.type_ == type_) {
            Some(there) => *there = condition,
            None => self.list.push(condition),
        }
        self
    }

    /// Takes a condition away: kstatus wants Reconciling and Stalled present only while true.
    #[must_use]
    pub fn without(mut self, type_: &str) -> Self {
        self.list.retain(|c| c.type_ != type_);
        self
    }

    /// All is as asked.
    #[must_use]
    pub fn ready(self, message: impl Into<String>) -> Self {
        self.ready_for(reasons::AVAILABLE, message)
    }

    /// The same, in another word.
    #[must_use]
    pub fn ready_for(self, reason: &str, message: impl Into<String>) -> Self {
        self.without(types::RECONCILING)
            .without(types::STALLED)
            .set(types::READY, true, reason, message)
    }

    /// Work goes on.
    #[must_use]
    pub fn reconciling(self, reason: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        self.without(types::STALLED)
            .set(types::RECONCILING, true, reason, message.clone())
            .set(types::READY, false, reason, message)
    }

    /// It failed: worth another try, or not.
    #[must_use]
    pub fn failed(self, failure: &Failure) -> Self {
        let ready = self.set(types::READY, false, failure.reason, failure.message.clone());
        match failure.class {
            Class::Stalled | Class::Conflict | Class::Gone => ready.without(types::RECONCILING).set(
                types::STALLED,
                true,
                failure.reason,
                failure.message.clone(),
            ),
            Class::Transient | Class::Waiting | Class::Bug => ready.without(types::STALLED).set(
                types::RECONCILING,
                true,
                failure.reason,
                failure.message.clone(),
            ),
        }
    }

    /// The list, in a fixed order.
    pub fn build(mut self) -> Vec<Condition> {
        self.list.sort_by(|a, b| a.type_.cmp(&b.type_));
        self.list
    }
}

/// Whether a condition is there and true.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|c| c.type_ == type_ && c.status == "True")
}

/// The API keeps times in whole seconds; a finer one would differ from what is read back.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The API server refuses a condition whose message is longer than 32768; people read far less.
fn bounded(message: String) -> String {
    const MOST: usize = 1024;
    match message.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{}…", &message[..cut]),
        None => message,
    }
}
