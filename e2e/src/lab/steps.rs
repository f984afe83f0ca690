//! One line per step, with the time since the start.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
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
            self.long(who, what);
        }
    }

    /// Says it also where quiet: minutes without a word look like a hang.
    pub(super) fn long(&self, who: &str, what: &str) {
        eprintln!("{:7.1} s  {who}: {what}", self.elapsed().as_secs_f64());
    }

    /// Does something that may take minutes, with a word every 30 s.
    pub(super) fn while_waiting<T>(&self, who: &str, work: impl FnOnce() -> T) -> T {
        let (done, wait) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                while wait.recv_timeout(Duration::from_secs(30)) == Err(RecvTimeoutError::Timeout) {
                    self.long(who, "still at it");
                }
            });
            let result = work();
            drop(done);
            result
        })
    }
}
