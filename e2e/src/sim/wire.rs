//! The network between one replica and the API server, and what is wrong with it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rand::{RngExt, rngs::SmallRng};
use tokio::time::Instant;

use super::{
    api_server::{Call, Fate, Network, Verb},
    plan::{Setting, Wrong},
};

/// What is wrong with the network of one replica; it outlives the replica's process.
#[derive(Clone)]
pub struct Wire(Arc<Mutex<State>>);

struct State {
    rng: SmallRng,
    setting: Setting,
    /// The next requests that go wrong.
    next: Vec<Next>,
    cut_until: Option<Instant>,
    repeating_until: Option<Instant>,
    slow: BTreeMap<&'static str, Instant>,
}

struct Next {
    left: usize,
    writes: bool,
    how: Wrong,
}

impl Wire {
    /// A sound one.
    pub fn new(rng: SmallRng, setting: Setting) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng,
            setting,
            next: Vec::new(),
            cut_until: None,
            repeating_until: None,
            slow: BTreeMap::new(),
        })))
    }

    /// The next requests go wrong.
    pub fn requests(&self, count: usize, writes: bool, how: Wrong) {
        self.0.lock().next.push(Next {
            left: count,
            writes,
            how,
        });
    }

    /// Nothing passes for a while.
    pub fn cut(&self, time: Duration) {
        self.0.lock().cut_until = Some(Instant::now() + time);
    }

    /// Events come twice for a while.
    pub fn repeat(&self, time: Duration) {
        self.0.lock().repeating_until = Some(Instant::now() + time);
    }

    /// Changes of a kind are heard of only after a while.
    pub fn slow(&self, resource: &'static str, time: Duration) {
        self.0.lock().slow.insert(resource, Instant::now() + time);
    }

    /// Everything is well again.
    pub fn mend(&self) {
        let mut state = self.0.lock();
        state.next.clear();
        state.cut_until = None;
        state.repeating_until = None;
        state.slow.clear();
    }
}

fn is_write(call: &Call) -> bool {
    !matches!(call.verb, Verb::Get | Verb::List | Verb::Watch)
}

impl Network for Wire {
    fn request(&self, call: &Call) -> Fate {
        let mut state = self.0.lock();
        let mut micros = || Duration::from_micros(state.rng.random_range(100..4000));
        let (there, back) = (micros(), micros());
        if state.cut_until.is_some_and(|until| until > Instant::now()) {
            // A request is lost on its way there, or its answer on the way back.
            return if state.rng.random_bool(0.9) {
                Fate::LoseRequest
            } else {
                Fate::LoseReply { there }
            };
        }
        let writes = is_write(call);
        let Some(struck) = state.next.iter().position(|next| writes || !next.writes) else {
            return Fate::Pass { there, back };
        };
        let next = &mut state.next[struck];
        let how = next.how;
        next.left -= 1;
        if next.left == 0 {
            state.next.remove(struck);
        }
        match how {
            Wrong::Refused(code) => Fate::Refuse { after: there, code },
            Wrong::ReplyLost => Fate::LoseReply { there },
            Wrong::ReplyBroken => Fate::BreakReply { there },
            Wrong::Lost => Fate::LoseRequest,
            Wrong::Slow(milliseconds) => Fate::Pass {
                there: Duration::from_millis(milliseconds),
                back,
            },
            Wrong::LateReply(milliseconds) => Fate::Pass {
                there,
                back: Duration::from_millis(milliseconds),
            },
        }
    }

    fn lag(&self, resource: &str) -> Duration {
        let mut state = self.0.lock();
        let now = Instant::now();
        let held = [state.slow.get(resource).copied(), state.cut_until];
        let held = held.into_iter().flatten().max().unwrap_or(now);
        let most = state.setting.lag;
        let lag = Duration::from_millis(state.rng.random_range(0..=most));
        lag.max(held.saturating_duration_since(now))
    }

    fn repeats(&self, _: &str) -> bool {
        self.0
            .lock()
            .repeating_until
            .is_some_and(|until| until > Instant::now())
    }
}

/// A network of users: quick, and never wrong.
pub struct Calm;

impl Network for Calm {
    fn request(&self, _: &Call) -> Fate {
        Fate::Pass {
            there: Duration::from_micros(500),
            back: Duration::from_micros(500),
        }
    }

    fn lag(&self, _: &str) -> Duration {
        Duration::from_millis(1)
    }
}
