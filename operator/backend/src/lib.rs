//! What Shoal asks of a storage backend, the ways it can fail, the suite that every backend passes, and a simulated one.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod conformance;
mod error;
pub mod simulated;

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
pub use error::{Error, Result};
use shoal_domain::{
    grant::{Access, Applied, Grant, Key},
    identity::{Description, Identity},
    orphan::Listing,
    owner::{Owner, Tag},
    volume::{NewVolume, Sight, Volume, VolumeRef},
};

/// One file system behind one driver.
///
/// Every method may be called again after any outcome, a crash or a time-out included: repeating it is harmless and
/// leads to the same state. Calls for one share are never made at the same time; calls for several are, and the backend
/// serialises what its storage can't take at once (export writes of one NFS cluster, for example).
///
/// An effect checks before it touches anything that what it finds is the share's own (see [`shoal_domain::owner`]); what
/// is another's is left alone, with an error of class `Conflict`.
///
/// Time: every method answers within [`Backend::deadline`]. A command that was not answered in time may still take
/// effect ([`Error::TimedOut`]); the backend then sends nothing more of that kind until a harmless command has been
/// answered, and says [`Error::Silent`] meanwhile.
#[async_trait]
pub trait Backend: Send + Sync + Debug {
    /// The longest any method takes, success or not. The caller's lease has to outlive it.
    fn deadline(&self) -> Duration;

    /// What the backend is and what room it has. Harmless. Of another storage than the one recorded at first contact, if
    /// there was one, nothing more is asked: the answer is [`Error::Replaced`], whatever else is the matter there.
    async fn describe(&self, recorded: Option<&Identity>) -> Result<Description>;

    /// What there is in the place where shares are made, whosever it is. Harmless.
    async fn list(&self, on: &Identity) -> Result<Listing>;

    /// What the tag of one of the listed subvolumes says; none if it is gone. Harmless.
    async fn tag(&self, on: &Identity, subvolume: &str) -> Result<Option<Tag>>;

    /// What is there for the share now. Harmless. `Absent` is only said of the storage `on`; of any other the answer is
    /// [`Error::Replaced`].
    async fn look(&self, on: &Identity, volume: &VolumeRef) -> Result<Sight>;

    /// Makes the share's subvolume and tags it, and finishes one that an earlier call left unfinished. One that is there
    /// and finished is left as it is. One that was there before and is gone is not made ([`Error::NotFound`]). The answer is
    /// what is there now, so no look has to follow.
    async fn create(&self, on: &Identity, volume: &VolumeRef, new: &NewVolume) -> Result<Volume>;

    /// Sets the quota to exactly this many bytes. Never below what is used ([`Error::BelowUsed`]).
    async fn resize(&self, on: &Identity, volume: &VolumeRef, size_bytes: u64) -> Result<()>;

    /// Writes what users say of the share, as [`shoal_domain::metadata`] puts it, where the storage's own tools show it; without
    /// a text it is taken off. Writes nothing when nothing differs.
    async fn set_metadata(&self, on: &Identity, volume: &VolumeRef, text: Option<&str>) -> Result<()>;

    /// Exports the share to exactly these clients, as one set: default deny, in the order given (most specific first,
    /// [`shoal_domain::grant::sort`]). A client that can't be let in is told in its own outcome and does not hinder the
    /// others; a client that loses access, or falls from read-write to read-only, is cut off now and not when it next
    /// mounts. With no clients the share stays exported and nobody may mount it. Writes nothing when nothing differs.
    ///
    /// The answer has one entry for each grant, read back from the backend; a CephX client that was let in by this very
    /// call comes with its key.
    async fn export(&self, on: &Identity, volume: &VolumeRef, access: &Access) -> Result<Vec<Applied>>;

    /// The key of a CephX client that is let in already, with this level: for a Secret that was lost.
    async fn key(&self, on: &Identity, volume: &VolumeRef, grant: &Grant) -> Result<Key>;

    /// Takes all access away and ends the export; clients are cut off.
    async fn unexport(&self, on: &Identity, volume: &VolumeRef) -> Result<()>;

    /// Takes away whatever access there is to the share's subvolume, whoever gave it and by whatever path: every export that leads
    /// there ends, and every identity is cut off.
    async fn revoke(&self, on: &Identity, volume: &VolumeRef) -> Result<()>;

    /// Writes `to` as the tag of the share's subvolume, and changes nothing else: it is handed over to another share, or
    /// left behind for good. What is there has to be the share's own (tagged as its, or not tagged and under its own
    /// name), or `to`'s already. One that is gone is not made ([`Error::NotFound`]). Writes nothing if the tag says so
    /// already.
    async fn hand_over(&self, on: &Identity, volume: &VolumeRef, to: &Owner) -> Result<()>;

    /// Removes the subvolume with its data. [`Error::HasSnapshots`], with their names, if snapshots stand in the way.
    async fn remove(&self, on: &Identity, volume: &VolumeRef) -> Result<()>;
}
