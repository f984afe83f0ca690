//! Commands that go on although nobody waits for them any more: they were begun for a Share that has been let go since. Until
//! one has ended, nobody else works on what it works on.

use std::{collections::HashMap, future::Future};

use futures::{
    StreamExt,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
    future::BoxFuture,
    stream::FuturesUnordered,
};
use parking_lot::Mutex;
use shoal_domain::{Failure, share};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{error::Error, turns::Turn};

/// The commands that go on, by their share's uid.
#[derive(Debug)]
pub struct InHand {
    going_on: UnboundedSender<BoxFuture<'static, Ended>>,
    taken_up: Mutex<Option<UnboundedReceiver<BoxFuture<'static, Ended>>>>,
    /// With the turns that they go on in.
    held: Mutex<HashMap<String, Option<Turn>>>,
    /// Since when passes wait.
    since: Mutex<HashMap<String, Instant>>,
    empty: Notify,
}

/// A command that has ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// The share's uid.
    pub uid: String,
    /// The ShareBackend.
    pub backend_name: String,
    /// What went wrong.
    pub failure: Option<Failure>,
}

impl Default for InHand {
    fn default() -> Self {
        let (going_on, taken_up) = unbounded();
        Self {
            going_on,
            taken_up: Mutex::new(Some(taken_up)),
            held: Mutex::default(),
            since: Mutex::default(),
            empty: Notify::new(),
        }
    }
}

impl InHand {
    /// Waits for a command as long as a user waits for a deletion, all commands of a pass together. One that takes longer
    /// goes on by itself.
    pub async fn patiently<T: Send + 'static>(
        &self,
        uid: &str,
        backend_name: &str,
        command: impl Future<Output = shoal_backend::Result<T>> + Send + 'static,
    ) -> Result<T, Error> {
        let since = *self
            .since
            .lock()
            .entry(uid.to_owned())
            .or_insert_with(Instant::now);
        let mut command = Box::pin(command);
        tokio::select! {
            biased;
            done = &mut command => return Ok(done?),
            () = sleep_until(since + share::PATIENCE) => {}
        }
        let (uid, backend_name) = (uid.to_owned(), backend_name.to_owned());
        self.held.lock().insert(uid.clone(), None);
        let going_on = async move {
            let failure = command.await.err().map(Failure::from);
            Ended {
                uid,
                backend_name,
                failure,
            }
        };
        // The receiver lives as long as this.
        let _ = self.going_on.unbounded_send(Box::pin(going_on));
        Err(Error::Backend(share::not_accepted_yet()))
    }

    /// A pass has ended: what it left to go on keeps its turn.
    pub fn leave(&self, uid: &str, turn: Option<Turn>) {
        self.since.lock().remove(uid);
        if let Some(turn) = turn
            && let Some(held) = self.held.lock().get_mut(uid)
        {
            *held = Some(turn);
        }
    }

    /// Whether a command for the share goes on.
    pub fn contains(&self, uid: &str) -> bool {
        self.held.lock().contains_key(uid)
    }

    /// Whether none goes on.
    pub fn is_empty(&self) -> bool {
        self.held.lock().is_empty()
    }

    /// Lets them go on. Tells of each that has ended before anybody may take it for done, and wakes who waits for it
    /// afterwards. Never ends.
    pub async fn go_on(&self, tell: impl Fn(&Ended), wake: impl Fn(&Ended)) {
        let Some(mut taken_up) = self.taken_up.lock().take() else {
            return;
        };
        let mut commands = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(one) = commands.next() => {
                    let one: Ended = one;
                    tell(&one);
                    self.held.lock().remove(&one.uid);
                    wake(&one);
                    self.empty.notify_waiters();
                }
                Some(command) = taken_up.next() => commands.push(command),
            }
        }
    }

    /// Waits until none goes on.
    pub async fn until_empty(&self) {
        loop {
            let changed = self.empty.notified();
            if self.is_empty() {
                return;
            }
            changed.await;
        }
    }
}
