//! What kind of trouble an error is: it decides what is done about it, and who is told.

use std::fmt;

/// What an error asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It may go away by itself: back off, try again.
    Transient,
    /// Something else has to happen first.
    Waiting,
    /// Only a change of the spec, or of the world by hand, helps.
    Stalled,
    /// What is there is not ours, or was changed by another writer.
    Conflict,
    /// What was to be acted on does not exist.
    Gone,
    /// A defect of Shoal.
    Bug,
}

impl Class {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "Transient",
            Self::Waiting => "Waiting",
            Self::Stalled => "Stalled",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Bug => "Bug",
        }
    }
}

/// Whose trouble it is: a backend's own is kept and told on the ShareBackend, and its shares wait without a write each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Of the one object.
    Object,
    /// Of the whole backend.
    Backend,
}

/// What went wrong in a pass, as decisions see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it asks for.
    pub class: Class,
    /// Whose trouble it is.
    pub scope: Scope,
    /// One of [`shoal_crds::condition::reasons`].
    pub reason: &'static str,
    /// For people. Never holds a secret.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

/// A failure of the one object.
pub(crate) fn failure(class: Class, reason: &'static str, message: String) -> Failure {
    Failure {
        class,
        scope: Scope::Object,
        reason,
        message,
    }
}
