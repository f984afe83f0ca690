//! What every backend does alike. [`run`] plays every scenario against a backend and says of each how it went; nothing
//! is left out silently. What a scenario has to do behind the backend's back, it asks of the [`Subject`].

mod scenarios;
mod stage;

use std::{
    fmt,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use shoal_crds::{Protocol, RootDirectory};
use shoal_domain::{grant::Key, volume::VolumeRef};
use stage::Stage;

use crate::Backend;

/// No scenario takes longer.
const PATIENCE: Duration = Duration::from_mins(5);

/// A backend on trial, and what can be done to its storage behind its back. A hand that a subject lacks skips the
/// scenarios that need it.
#[async_trait]
pub trait Subject: Send + Sync {
    /// The backend.
    fn backend(&self) -> &dyn Backend;

    /// A backend for another file system of the same cluster.
    fn sibling(&self) -> Option<&dyn Backend> {
        None
    }

    /// A uid that no share of this storage ever had: ASCII letters, digits and `-`.
    fn fresh_uid(&self) -> String;

    /// How many commands have changed the storage so far.
    async fn writes(&self) -> Hand<u64> {
        missing("writes")
    }

    /// Owner, group and mode of the share's root.
    async fn root(&self, _: &VolumeRef) -> Hand<RootDirectory> {
        missing("root")
    }

    /// Writes so many bytes into the share. Their count shows at the next look.
    async fn fill(&self, _: &VolumeRef, _bytes: u64) -> Hand<()> {
        missing("fill")
    }

    /// Sets the tag's text, or takes the tag off.
    async fn set_tag(&self, _: &VolumeRef, _text: Option<&str>) -> Hand<()> {
        missing("set_tag")
    }

    /// Sets the quota.
    async fn set_quota(&self, _: &VolumeRef, _bytes: u64) -> Hand<()> {
        missing("set_quota")
    }

    /// Deletes the subvolume, and nothing beside it.
    async fn delete_subvolume(&self, _: &VolumeRef) -> Hand<()> {
        missing("delete_subvolume")
    }

    /// Gives it a snapshot.
    async fn add_snapshot(&self, _: &VolumeRef) -> Hand<()> {
        missing("add_snapshot")
    }

    /// Removes its snapshots.
    async fn remove_snapshots(&self, _: &VolumeRef) -> Hand<()> {
        missing("remove_snapshots")
    }

    /// Exports the other share's subvolume under this one's pseudo path.
    async fn take_path(&self, _: &VolumeRef, _other: &VolumeRef) -> Hand<()> {
        missing("take_path")
    }

    /// Removes what is exported under the share's pseudo path.
    async fn remove_export(&self, _: &VolumeRef) -> Hand<()> {
        missing("remove_export")
    }

    /// Lets `0.0.0.0/0` in, read-write, beside the clients of the share's export.
    async fn add_client(&self, _: &VolumeRef) -> Hand<()> {
        missing("add_client")
    }

    /// Gives the share's export an access type that lets in whom its clients don't name.
    async fn open_export(&self, _: &VolumeRef) -> Hand<()> {
        missing("open_export")
    }

    /// Lets this identity in, read-write, as one of the share's tenant.
    async fn authorize(&self, _: &VolumeRef, _identity: &str) -> Hand<()> {
        missing("authorize")
    }

    /// Takes the identity's access away, and leaves its sessions.
    async fn deauthorize(&self, _: &VolumeRef, _identity: &str) -> Hand<()> {
        missing("deauthorize")
    }

    /// Makes an identity that no file system's tool made.
    async fn add_identity(&self, _identity: &str) -> Hand<()> {
        missing("add_identity")
    }

    /// Mounts the share with this key: its root (`""`), or a directory in it (`/name`). The answer names the session.
    async fn mount(&self, _: &VolumeRef, _identity: &str, _: &Key, _directory: &str) -> Hand<u64> {
        missing("mount")
    }

    /// Whether the session still has what it had.
    async fn is_mounted(&self, _session: u64) -> Hand<bool> {
        missing("is_mounted")
    }

    /// Lets commands that write go unanswered, and take effect later.
    async fn stall(&self) -> Hand<()> {
        missing("stall")
    }

    /// Ends that; what was held up takes effect.
    async fn resume(&self) -> Hand<()> {
        missing("resume")
    }
}

/// What a hand answers.
pub type Hand<T> = std::result::Result<T, Flaw>;

/// What a hand answers that a subject does not have.
pub fn missing<T>(hand: &'static str) -> Hand<T> {
    Err(Flaw::Missing(hand))
}

/// Why a scenario came to no good end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The subject lacks this hand.
    Missing(&'static str),
    /// Something was not as it has to be.
    Wrong(String),
}

impl Flaw {
    /// A hand did not succeed.
    pub fn of_hand(hand: &'static str, error: impl fmt::Display) -> Self {
        Self::Wrong(format!("the hand '{hand}' failed: {error}"))
    }
}

/// How a scenario went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it has to.
    Passed,
    /// Not so.
    Failed(String),
    /// It could not be played, and why.
    Skipped(String),
}

/// A scenario that was played.
#[derive(Clone, Debug)]
pub struct Played {
    /// `<protocol>/<name>`, or the name alone.
    pub scenario: String,
    /// How it went.
    pub outcome: Outcome,
    /// How long that took.
    pub took: Duration,
}

/// How all of them went.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order in which they were played.
    pub played: Vec<Played>,
}

impl Report {
    /// Those that failed.
    pub fn failed(&self) -> Vec<&str> {
        self.that(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    /// Those that could not be played.
    pub fn skipped(&self) -> Vec<&str> {
        self.that(|outcome| matches!(outcome, Outcome::Skipped(_)))
    }

    fn that(&self, is_so: impl Fn(&Outcome) -> bool) -> Vec<&str> {
        self.played
            .iter()
            .filter(|p| is_so(&p.outcome))
            .map(|p| p.scenario.as_str())
            .collect()
    }
}

/// One line each.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Played {
            scenario,
            outcome,
            took,
        } in &self.played
        {
            let took = took.as_millis();
            match outcome {
                Outcome::Passed => writeln!(f, "passed   {scenario} ({took} ms)")?,
                Outcome::Failed(why) => writeln!(f, "FAILED   {scenario} ({took} ms): {why}")?,
                Outcome::Skipped(why) => writeln!(f, "skipped  {scenario}: {why}")?,
            }
        }
        let (all, failed, skipped) = (self.played.len(), self.failed().len(), self.skipped().len());
        write!(
            f,
            "{all} scenarios: {} passed, {failed} failed, {skipped} skipped",
            all - failed - skipped
        )
    }
}

/// Plays every scenario whose name, with its protocol, contains the filter (all, if it is empty), one after the other.
pub async fn run(subject: &dyn Subject, filter: &str) -> Report {
    let mut played = Vec::new();
    for (protocol, name) in scenarios::all() {
        let scenario = match protocol {
            Some(protocol) => format!("{}/{name}", protocol.as_str()),
            None => name.to_owned(),
        };
        if !scenario.contains(filter) {
            continue;
        }
        let start = Instant::now();
        let outcome = match tokio::time::timeout(PATIENCE, play(subject, protocol, name)).await {
            Ok(Ok(())) => Outcome::Passed,
            Ok(Err(Flaw::Wrong(why))) => Outcome::Failed(why),
            Ok(Err(Flaw::Missing(what))) => Outcome::Skipped(format!("the subject lacks '{what}'")),
            Err(_) => Outcome::Failed(format!("not done after {} s", PATIENCE.as_secs())),
        };
        played.push(Played {
            scenario,
            outcome,
            took: start.elapsed(),
        });
    }
    Report { played }
}

async fn play(subject: &dyn Subject, protocol: Option<Protocol>, name: &str) -> Hand<()> {
    let description = subject.backend().describe(None).await;
    let description = description.map_err(|error| Flaw::Wrong(format!("describe: {error}")))?;
    if protocol.is_some_and(|protocol| !description.protocols.contains(&protocol)) {
        return missing("protocol");
    }
    let stage = Stage::new(
        subject,
        description.identity,
        protocol.unwrap_or(description.protocols[0]),
    );
    let result = scenarios::play(&stage, name).await;
    let cleared = stage.clear().await;
    result.and(cleared)
}
