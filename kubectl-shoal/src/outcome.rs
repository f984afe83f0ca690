//! What a command comes to.

use crate::failure::Exit;

/// What a command has to say.
pub(crate) struct Outcome {
    pub(crate) text: String,
    /// For people, beside it.
    pub(crate) notes: Vec<String>,
    pub(crate) exit: Exit,
}

impl Outcome {
    pub(crate) fn done(text: String) -> Self {
        Self {
            text,
            notes: Vec::new(),
            exit: Exit::Done,
        }
    }

    pub(crate) fn line(text: &str) -> Self {
        Self::done(format!("{text}\n"))
    }
}
