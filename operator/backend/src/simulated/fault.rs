//! What goes wrong, as data.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A method of [`Backend`](crate::Backend).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// `describe`
    Describe,
    /// `look`
    Look,
    /// `create`
    Create,
    /// `resize`
    Resize,
    /// `export`
    Export,
    /// `key`
    Key,
    /// `unexport`
    Unexport,
    /// `remove`
    Remove,
    /// `hand_over`
    HandOver,
    /// `set_metadata`
    SetMetadata,
    /// `list`
    List,
    /// `tag`
    Tag,
    /// `revoke`
    Revoke,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Describe,
        Self::Look,
        Self::Create,
        Self::Resize,
        Self::Export,
        Self::Key,
        Self::Unexport,
        Self::Remove,
        Self::HandOver,
        Self::SetMetadata,
        Self::List,
        Self::Tag,
        Self::Revoke,
    ];
}

/// One call that goes wrong. A call is made of commands that write (making a subvolume and tagging it are two), and it
/// goes wrong at one of them; one with fewer goes wrong at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Which method.
    pub operation: Operation,
    /// Which of its calls, from 1, counted over all who call the cluster and from its beginning.
    pub call: u64,
    /// At which of the call's writes, from 0.
    pub write: u32,
    /// How.
    pub kind: FaultKind,
}

/// How a command goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// It fails and has no effect.
    FailBefore,
    /// It takes effect, and the answer is a failure: its reply was lost.
    FailAfter,
    /// It is not answered within the deadline. The module it went to answers nobody until the effect has come: Ceph's
    /// manager runs a module's commands one after the other.
    Hang(After),
    /// It is not answered within the deadline, but others are, and the effect comes when it likes: nothing that is
    /// answered meanwhile proves that it has come. Harder than Ceph's manager is known to be.
    Stray(After),
    /// It is not answered within the deadline and never takes effect: the manager was restarted.
    Lost,
}

/// When the effect of a command comes that was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum After {
    /// So long after it was sent. When that is within the deadline, the call just takes so long.
    Delay(Duration),
    /// After so many further calls of any method, by whomever; those answered with `Silent` count.
    Calls(u64),
}
