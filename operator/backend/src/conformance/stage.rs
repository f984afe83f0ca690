//! What scenarios work with: shares that are cleared away afterwards, and calls that say which of them went wrong.

use parking_lot::Mutex;
use shoal_crds::{AccessLevel, AccessType, Protocol, RootDirectory, Squash};
use shoal_domain::{
    Class,
    grant::{self, Access, Applied, Client, Grant, Key},
    identity::Identity,
    owner::{Owner, Place, pseudo_path},
    volume::{Export, NewVolume, Sight, Volume, VolumeRef},
};

use super::{Flaw, Hand, Subject};
use crate::{Backend, Error};

/// Not a multiple of anything: what is asked for is what is had.
pub(super) const SIZE: u64 = 134_217_728 + 4_321;

pub(super) struct Stage<'a> {
    pub subject: &'a dyn Subject,
    pub on: Identity,
    pub protocol: Protocol,
    volumes: Mutex<Vec<VolumeRef>>,
}

/// Says that something is wrong, unless it is so.
macro_rules! ensure {
    ($so:expr, $($why:tt)+) => {
        if !$so {
            return Err($crate::conformance::Flaw::Wrong(format!($($why)+)));
        }
    };
}
pub(super) use ensure;

impl<'a> Stage<'a> {
    pub(super) fn new(subject: &'a dyn Subject, on: Identity, protocol: Protocol) -> Self {
        Self {
            subject,
            on,
            protocol,
            volumes: Mutex::default(),
        }
    }

    pub(super) fn backend(&self) -> &'a dyn Backend {
        self.subject.backend()
    }

    /// A share that is not there yet, of a namespace of its own.
    pub(super) fn volume(&self) -> VolumeRef {
        let tenant = self.subject.fresh_uid();
        self.volume_of(&tenant)
    }

    pub(super) fn volume_of(&self, tenant: &str) -> VolumeRef {
        let volume = self.unkept(tenant);
        self.keep(&volume);
        volume
    }

    /// Has one cleared away when the scenario has ended.
    pub(super) fn keep(&self, volume: &VolumeRef) {
        self.volumes.lock().push(volume.clone());
    }

    /// One that the scenario clears away itself.
    pub(super) fn unkept(&self, tenant: &str) -> VolumeRef {
        let owner = Owner {
            cluster: "conformance".into(),
            namespace: "conformance".into(),
            name: "share".into(),
            uid: self.subject.fresh_uid(),
            left: None,
        };
        VolumeRef {
            place: Place::of(None, &owner.uid),
            pseudo_path: pseudo_path(&owner.uid),
            owner,
            protocol: self.protocol,
            tenant: tenant.to_owned(),
        }
    }

    /// An identity that nobody has.
    pub(super) fn fresh_identity(&self) -> String {
        format!("conformance-{}", self.subject.fresh_uid())
    }

    /// Removes what the scenario made; what can't be removed is a flaw too.
    pub(super) async fn clear(&self) -> Hand<()> {
        let volumes = std::mem::take(&mut *self.volumes.lock());
        for volume in volumes.into_iter().rev() {
            self.clear_one(self.backend(), &self.on, &volume).await?;
        }
        Ok(())
    }

    pub(super) async fn clear_one(
        &self,
        backend: &dyn Backend,
        on: &Identity,
        volume: &VolumeRef,
    ) -> Hand<()> {
        backend
            .unexport(on, volume)
            .await
            .map_err(wrong("clearing away: unexport"))?;
        backend
            .remove(on, volume)
            .await
            .map_err(wrong("clearing away: remove"))?;
        let left = backend
            .look(on, volume)
            .await
            .map_err(wrong("clearing away: look"))?;
        ensure!(
            left == Sight::Absent { leftovers: false },
            "cleared away, and still there: {left:?}"
        );
        Ok(())
    }

    // ---- calls

    pub(super) async fn create(&self, volume: &VolumeRef) -> Hand<Volume> {
        self.create_with(volume, SIZE).await
    }

    pub(super) async fn create_with(&self, volume: &VolumeRef, size_bytes: u64) -> Hand<Volume> {
        let made = self
            .backend()
            .create(&self.on, volume, &new_volume(size_bytes))
            .await;
        made.map_err(wrong("create"))
    }

    /// Made, and exported to nobody.
    pub(super) async fn created(&self) -> Hand<VolumeRef> {
        let volume = self.volume();
        self.create(&volume).await?;
        self.export(&volume, &[]).await?;
        Ok(volume)
    }

    pub(super) async fn look(&self, volume: &VolumeRef) -> Hand<Sight> {
        self.backend().look(&self.on, volume).await.map_err(wrong("look"))
    }

    pub(super) async fn see(&self, volume: &VolumeRef) -> Hand<Volume> {
        match self.look(volume).await? {
            Sight::Present(found) => Ok(*found),
            Sight::Absent { .. } => Err(Flaw::Wrong("look: the subvolume is not there".into())),
        }
    }

    pub(super) async fn export(&self, volume: &VolumeRef, access: &[Grant]) -> Hand<Vec<Applied>> {
        let access = access.to_vec();
        let applied = self
            .backend()
            .export(&self.on, volume, &access)
            .await
            .map_err(wrong("export"))?;
        let answered: Vec<_> = applied.iter().map(|a| &a.client).collect();
        let asked: Vec<_> = access.iter().map(|g| &g.client).collect();
        ensure!(
            answered == asked,
            "export: asked for {asked:?}, answered for {answered:?}"
        );
        Ok(applied)
    }

    /// Exports, and expects everybody to be let in and nobody else.
    pub(super) async fn export_all(&self, volume: &VolumeRef, access: &[Grant]) -> Hand<Vec<Applied>> {
        let applied = self.export(volume, access).await?;
        for one in &applied {
            if let Err(failure) = &one.outcome {
                return Err(Flaw::Wrong(format!(
                    "export: {} was not let in: {failure}",
                    one.client
                )));
            }
        }
        self.expect_access(volume, access).await?;
        Ok(applied)
    }

    pub(super) async fn expect_access(&self, volume: &VolumeRef, access: &[Grant]) -> Hand<()> {
        match self.see(volume).await?.export {
            Export::Ours {
                access: found,
                intact,
                ..
            } => {
                ensure!(
                    found == access,
                    "look: let in are {found:?}, and should be {access:?}"
                );
                ensure!(intact, "look: the export is not intact after it was applied");
                Ok(())
            }
            other => Err(Flaw::Wrong(format!(
                "look: {other:?} instead of an export of ours"
            ))),
        }
    }

    pub(super) async fn key(&self, volume: &VolumeRef, grant: &Grant) -> Hand<Key> {
        self.backend()
            .key(&self.on, volume, grant)
            .await
            .map_err(wrong("key"))
    }

    pub(super) async fn writes(&self) -> Hand<u64> {
        self.subject.writes().await
    }
}

pub(super) fn new_volume(size_bytes: u64) -> NewVolume {
    NewVolume {
        size_bytes,
        root: RootDirectory::default(),
        was_there: false,
    }
}

/// A client as a rule names it.
pub(super) fn ip(text: &str, level: AccessLevel, squash: Squash) -> Hand<Grant> {
    let client = Client::parse(AccessType::IP, text).map_err(|why| Flaw::Wrong(format!("{text}: {why}")))?;
    Ok(Grant {
        client,
        level,
        squash,
    })
}

pub(super) fn cephx(identity: &str, level: AccessLevel) -> Grant {
    Grant {
        client: Client::CephX(identity.to_owned()),
        level,
        squash: Squash::None,
    }
}

pub(super) fn sorted(mut access: Access) -> Access {
    grant::sort(&mut access);
    access
}

/// The key that came with a client that was let in.
pub(super) fn key_of(applied: &[Applied], identity: &str) -> Hand<Option<Key>> {
    let one = applied
        .iter()
        .find(|a| a.client == Client::CephX(identity.to_owned()));
    match one.map(|a| &a.outcome) {
        Some(Ok(key)) => Ok(key.clone()),
        Some(Err(failure)) => Err(Flaw::Wrong(format!("{identity} was not let in: {failure}"))),
        None => Err(Flaw::Wrong(format!("no answer for {identity}"))),
    }
}

pub(super) fn new_key(applied: &[Applied], identity: &str) -> Hand<Key> {
    key_of(applied, identity)?
        .ok_or_else(|| Flaw::Wrong(format!("{identity} was let in and came without a key")))
}

pub(super) fn wrong(what: &'static str) -> impl Fn(Error) -> Flaw {
    move |error| Flaw::Wrong(format!("{what}: {}: {error}", error.reason()))
}

/// That it failed, and in this way.
pub(super) fn expect_class<T>(what: &str, answer: Result<T, Error>, class: Class) -> Hand<()> {
    expect(what, answer, &format!("an error of class {class:?}"), |error| {
        error.class() == class
    })
}

pub(super) fn expect<T>(
    what: &str,
    answer: Result<T, Error>,
    wanted: &str,
    is_wanted: impl Fn(&Error) -> bool,
) -> Hand<()> {
    match answer {
        Err(error) if is_wanted(&error) => Ok(()),
        Err(error) => Err(Flaw::Wrong(format!(
            "{what}: {wanted} was due, and it was {error:?}"
        ))),
        Ok(_) => Err(Flaw::Wrong(format!("{what}: {wanted} was due, and it succeeded"))),
    }
}
