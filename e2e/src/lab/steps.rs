//! One line per step, with the time since the start.

use std::time::{Duration, Instant};

/// Prints progress on stderr; one per thing that is started, all counting from the same moment.
#[derive(Clone, Copy, Debug)]
pub struct Steps {
    start: Instant,
    quiet: bool,
}

impl Steps {
    /// Counts from now. A quiet one prints nothing.
    pub fn new(quiet: bool) -> Self {
        Self {
            start: Instant::now(),
            quiet,
        }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Says that something is now so.
    pub fn say(&self, who: &str, what: &str) {
        if !self.quiet {
            eprintln!("{:7.1} s  {who}: {what}", self.elapsed().as_secs_f64());
        }
    }
}
