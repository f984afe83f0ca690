//! What a decision is, for every kind alike.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use shoal_crds::condition::{reasons, types};

/// What to say, and what to do next.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<S, E> {
    /// What the status has to say now. Written when the pass ends, or when it has worked for long.
    pub status: S,
    /// The one step to take before deciding again. None: the pass ends.
    pub step: Option<Step<E>>,
    /// When to look again once the pass has ended.
    pub next: Next,
}

impl<S, E> Decision<S, E> {
    /// A decision that ends the pass.
    pub fn done(status: S, next: Next) -> Self {
        Self {
            status,
            step: None,
            next,
        }
    }

    /// A decision that takes a step.
    pub fn step(status: S, step: Step<E>) -> Self {
        Self {
            status,
            step: Some(step),
            next: Next::Await,
        }
    }
}

/// One step. The first three are the same for every kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<E> {
    /// Put the finalizer on.
    AddFinalizer,
    /// Store the decision's status before going on, on exactly the version it was decided on.
    Record,
    /// Let the object go.
    RemoveFinalizer,
    /// What only this kind does.
    Do(E),
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// When something that the decision rests on changes.
    Await,
    /// After this long at the latest.
    After(Duration),
}

/// Something to tell people in an Event on the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// One of [`reasons`].
    pub reason: String,
    /// For people. Never holds a secret.
    pub message: String,
}

/// The trouble that is in `after` and was not in `before`. All goes well without an event.
pub fn trouble(before: &[Condition], after: &[Condition]) -> Vec<Event> {
    // Stalled comes before Ready, which repeats it.
    let mut events: Vec<Event> = Vec::new();
    for (type_, bad) in [
        (types::STALLED, "True"),
        (types::DELETION_BLOCKED, "True"),
        (types::READY, "False"),
        (types::DEFAULT, "False"),
    ] {
        let find = |list: &[Condition]| list.iter().find(|c| c.type_ == type_ && c.status == bad).cloned();
        let Some(now) = find(after) else { continue };
        let known = find(before).is_some_and(|then| then.reason == now.reason && then.message == now.message);
        if !known && !is_progress(&now.reason) && events.iter().all(|e| e.reason != now.reason) {
            events.push(Event {
                reason: now.reason,
                message: now.message,
            });
        }
    }
    events
}

/// Whether a reason tells of work that goes on as it should.
fn is_progress(reason: &str) -> bool {
    [
        reasons::CREATING,
        reasons::RESIZING,
        reasons::DELETING,
        reasons::APPLYING_ACCESS,
        reasons::SHARE_NOT_READY,
        reasons::NOT_HIDDEN_YET,
    ]
    .contains(&reason)
}
