//! Access to a share by CephFS clients: CephX identities authorized on its subvolume.

use std::collections::{BTreeMap, BTreeSet};

use shoal_backend::{Error, Result};
use shoal_crds::{AccessLevel, Squash};
use shoal_domain::{
    Failure,
    grant::{Access, Applied, Client, Grant, Key},
    volume::Export,
};
use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, timeout_at},
};

use crate::{
    commands::{Authorize, AuthorizedList, ClientEvict, Deauthorize, Place, SessionLs, SubvolumeLs},
    errno::{EINVAL, ENOENT, EPERM, Fault},
    subvolume::Notes,
    work::Work,
};

/// The identities that are let in, with their levels as Ceph says them.
pub(crate) type Identities = BTreeMap<String, String>;

/// A level as Ceph says it.
fn level_name(level: AccessLevel) -> &'static str {
    match level {
        AccessLevel::ReadWrite => "rw",
        AccessLevel::ReadOnly => "r",
    }
}

/// What has to be done so that exactly the wanted identities are let in. Levels are Ceph's words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan<'a> {
    /// Lose everything.
    deny: BTreeSet<&'a str>,
    /// Are let in, or get another level.
    allow: BTreeSet<&'a str>,
    /// Have sessions, perhaps, that may do more than they should.
    cut: BTreeSet<&'a str>,
}

fn plan<'a>(
    listed: &'a Identities,
    wanted: &BTreeMap<&'a str, AccessLevel>,
    to_cut: &'a BTreeSet<String>,
) -> Plan<'a> {
    let mut plan = Plan::default();
    for identity in listed.keys().chain(to_cut).map(String::as_str) {
        if !wanted.contains_key(identity) {
            plan.deny.insert(identity);
        }
    }
    for (identity, level) in wanted {
        let have = listed.get(*identity).map(String::as_str);
        if have != Some(level_name(*level)) {
            plan.allow.insert(identity);
            // A session keeps the capabilities it began with.
            if have.is_some() && *level == AccessLevel::ReadOnly {
                plan.cut.insert(identity);
            }
        }
    }
    plan.cut
        .extend(plan.deny.iter().copied().chain(to_cut.iter().map(String::as_str)));
    plan
}

/// What is listed, for whoever looks.
pub(crate) fn export(listed: Identities, notes: &Notes) -> Export {
    let mut intact = notes.to_cut.is_empty();
    let mut access = Access::new();
    for (identity, level) in listed {
        let level = match &*level {
            "rw" => AccessLevel::ReadWrite,
            "r" => AccessLevel::ReadOnly,
            _ => {
                intact = false;
                continue;
            }
        };
        access.push(Grant {
            client: Client::CephX(identity),
            level,
            squash: Squash::default(),
        });
    }
    Export::Ours {
        pseudo_path: None,
        access,
        intact,
    }
}

impl Work<'_> {
    pub(crate) async fn export_native(
        &self,
        notes: &Notes,
        listed: &Identities,
        access: &Access,
    ) -> Result<Vec<Applied>> {
        let wanted: BTreeMap<&str, AccessLevel> = access
            .iter()
            .filter_map(|grant| match &grant.client {
                Client::CephX(identity) => Some((identity.as_str(), grant.level)),
                Client::Ip(_) => None,
            })
            .collect();
        let plan = plan(listed, &wanted, &notes.to_cut);
        let mut cut: BTreeSet<String> = plan.cut.iter().copied().map(str::to_owned).collect();
        if cut != notes.to_cut {
            self.note_to_cut(&cut).await?;
        }
        let mut denied = BTreeMap::new();
        for identity in &plan.deny {
            denied.insert(*identity, self.deauthorize(identity).await?);
        }

        let mut applied = Vec::with_capacity(access.len());
        for grant in access {
            let outcome = match &grant.client {
                Client::CephX(identity) if plan.allow.contains(identity.as_str()) => {
                    match self.authorize(identity, grant.level).await {
                        Ok(key) => Ok((!listed.contains_key(identity)).then_some(key)),
                        Err(error @ (Error::IdentityNotAvailable | Error::Refused(_))) => {
                            if listed.contains_key(identity) && cut.insert(identity.clone()) {
                                self.note_to_cut(&cut).await?;
                            }
                            if listed.contains_key(identity) {
                                // Let in by another hand, and not by a rule that holds.
                                denied.insert(identity, self.deauthorize(identity).await?);
                            }
                            Err(error.into())
                        }
                        Err(error) => return Err(error),
                    }
                }
                Client::CephX(_) => Ok(None),
                Client::Ip(_) => {
                    Err(Error::Refused("an address can't be let in to a CephFS share".into()).into())
                }
            };
            applied.push(Applied {
                client: grant.client.clone(),
                outcome,
            });
        }

        if !cut.is_empty() {
            self.cut_off(&cut).await?;
            self.keep_usable(&denied).await?;
        }
        if !plan.allow.is_empty() || !denied.is_empty() {
            let listed = self.listed().await?;
            expect_gone(&denied, &listed)?;
            confirm(&mut applied, access, &listed);
        }
        if !cut.is_empty() {
            self.forget_to_cut().await?;
        }
        Ok(applied)
    }

    pub(crate) async fn native_key(
        &self,
        listed: &Identities,
        identity: &str,
        level: AccessLevel,
    ) -> Result<Key> {
        if listed.get(identity).map(String::as_str) != Some(level_name(level)) {
            return Err(Error::Failed("the client is not let in with this level".into()));
        }
        // To authorize again what is authorized changes nothing and answers the key.
        self.authorize(identity, level).await
    }

    pub(crate) async fn unexport_native(&self, notes: &Notes, listed: Identities) -> Result<()> {
        let mut cut: BTreeSet<String> = listed.into_keys().collect();
        cut.extend(notes.to_cut.iter().cloned());
        if cut.is_empty() {
            return Ok(());
        }
        if cut != notes.to_cut {
            self.note_to_cut(&cut).await?;
        }
        let mut denied = BTreeMap::new();
        for identity in &cut {
            denied.insert(identity.as_str(), self.deauthorize(identity).await?);
        }
        self.cut_off(&cut).await?;
        self.keep_usable(&denied).await?;
        expect_gone(&denied, &self.listed().await?)?;
        self.forget_to_cut().await
    }

    /// Who is let in; nobody, to what is not there.
    pub(crate) async fn listed(&self) -> Result<Identities> {
        match self.call.run(&AuthorizedList { place: self.place() }).await {
            Err(fault) if fault.errno() == Some(ENOENT) => Ok(Identities::new()),
            answer => Ok(answer?),
        }
    }

    async fn identity_lock(&self, identity: &str) -> Result<OwnedMutexGuard<()>> {
        let lock = self.connections.identity_lock(&self.on.fsid, identity);
        timeout_at(self.call.ends, lock.lock_owned())
            .await
            .map_err(|_| Error::Failed("the identity's other shares took all the time".into()))
    }

    async fn authorize(&self, identity: &str, level: AccessLevel) -> Result<Key> {
        let _lock = self.identity_lock(identity).await?;
        let authorize = Authorize {
            place: self.place(),
            auth_id: identity,
            access_level: level_name(level),
            tenant_id: &self.volume.tenant,
        };
        self.call
            .run(&authorize)
            .await
            .map_err(|fault| match fault.errno() {
                Some(EPERM) => Error::IdentityNotAvailable,
                Some(EINVAL) => Error::Refused("Ceph does not take the identity".into()),
                _ => not_found(fault),
            })
    }

    /// Takes an identity's access away, and leaves it what it has to other shares. Whether it has.
    async fn deauthorize(&self, identity: &str) -> Result<bool> {
        let _lock = self.identity_lock(identity).await?;
        // Asked again, Ceph says whether the identity is still there.
        Ok(self.deny(identity).await? && self.deny(identity).await?)
    }

    /// Whether there was such an identity.
    async fn deny(&self, identity: &str) -> Result<bool> {
        let deauthorize = Deauthorize {
            place: self.place(),
            auth_id: identity,
        };
        match self.call.run(&deauthorize).await {
            Ok(()) => Ok(true),
            Err(fault) if fault.errno() == Some(ENOENT) => Ok(false),
            Err(fault) => Err(fault.into()),
        }
    }

    /// With access to one of several subvolumes 18.2 takes away the capability to speak to the monitors, without which
    /// none of the others can be mounted (20.2 does not). To authorize one of the others again gives it back.
    ///
    /// For as long as there is time, and after everybody is cut off: that matters more, and the next try would begin anew.
    async fn keep_usable(&self, denied: &BTreeMap<&str, bool>) -> Result<()> {
        let live_on = denied.iter().filter(|(_, lives_on)| **lives_on);
        let mut wanted: BTreeSet<&str> = live_on.map(|(identity, _)| *identity).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let left = self.call.ends.saturating_duration_since(Instant::now()) / 2;
        let until = Instant::now() + left.min(self.settings.command_timeout);
        let list = SubvolumeLs {
            vol_name: self.fs_name(),
            group_name: &self.settings.subvolume_group,
        };
        for other in self.call.run(&list).await? {
            if Instant::now() > until {
                tracing::warn!("an identity that lost one share was not found on another in time");
                return Ok(());
            }
            let place = Place {
                sub_name: &other.name,
                ..self.place()
            };
            for identity in self.listed_at(&place).await?.into_keys() {
                if wanted.contains(&*identity) && self.authorize_again(&place, &identity).await? {
                    wanted.remove(&*identity);
                }
            }
            if wanted.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Whether it could be done.
    async fn authorize_again(&self, place: &Place<'_>, identity: &str) -> Result<bool> {
        let _lock = self.identity_lock(identity).await?;
        // It may have lost this one meanwhile.
        let level = match self.listed_at(place).await?.get(identity).map(String::as_str) {
            Some("rw") => AccessLevel::ReadWrite,
            Some("r") => AccessLevel::ReadOnly,
            _ => return Ok(false),
        };
        let again = Authorize {
            place: place.clone(),
            auth_id: identity,
            access_level: level_name(level),
            tenant_id: &self.volume.tenant,
        };
        match self.call.run(&again).await {
            // Another tenant's is not ours to mend.
            Ok(_) | Err(Fault::Rejected(_)) => Ok(true),
            Err(fault) => Err(fault.into()),
        }
    }

    /// Who is let in to another subvolume; nobody, to one that is gone meanwhile or half made.
    async fn listed_at(&self, place: &Place<'_>) -> Result<Identities> {
        match self.call.run(&AuthorizedList { place: place.clone() }).await {
            Err(Fault::Rejected(_)) => Ok(Identities::new()),
            answer => Ok(answer?),
        }
    }

    /// Ends every session of these identities whose root is the path or below it, or isn't told: `fs subvolume evict` misses
    /// the clients that mounted a directory below.
    async fn cut_off(&self, identities: &BTreeSet<String>) -> Result<()> {
        let path = &self.data().await?.ok_or(Error::NotFound)?.path;
        for _ in 0..3 {
            // Anew each time: ranks move.
            let servers = self.fs().await?.metadata_servers().map_err(|rank| {
                let fs = self.fs_name();
                Error::Failed(format!(
                    "no metadata server is active as rank {rank} of file system {fs}"
                ))
            })?;
            let mut left = false;
            for gid in servers {
                for identity in identities {
                    let list = SessionLs {
                        fs_name: self.fs_name(),
                        gid,
                        filters: vec![format!("auth_name={identity}")],
                    };
                    for session in self.call.run(&list).await? {
                        if session.is_within(path) {
                            left = true;
                            let evict = ClientEvict {
                                fs_name: self.fs_name(),
                                gid,
                                id: session.id,
                            };
                            match self.call.run(&evict).await {
                                // Gone already.
                                Err(fault) if fault.errno() != Some(ENOENT) => return Err(fault.into()),
                                _ => {}
                            }
                        }
                    }
                }
            }
            if !left {
                return Ok(());
            }
        }
        Err(Error::Failed(
            "clients that are to be cut off still have sessions".into(),
        ))
    }
}

fn not_found(fault: Fault) -> Error {
    if fault.errno() == Some(ENOENT) {
        Error::NotFound
    } else {
        fault.into()
    }
}

/// Ceph says "no such identity" of one whose own file it has lost, too, and that one is let in as before.
fn expect_gone(denied: &BTreeMap<&str, bool>, listed: &Identities) -> Result<()> {
    match denied.keys().find(|identity| listed.contains_key(**identity)) {
        None => Ok(()),
        Some(identity) => Err(Error::Failed(format!(
            "Ceph still lets '{identity}' in, and says that there is no such identity: it has lost its file of it. Authorize it once more by hand, with \
             --allow-existing-id; then it can be taken away"
        ))),
    }
}

/// What was said to be in force has to be seen there.
fn confirm(applied: &mut [Applied], access: &Access, listed: &Identities) {
    for (applied, grant) in applied.iter_mut().zip(access) {
        let Client::CephX(identity) = &grant.client else {
            continue;
        };
        let in_force = listed.get(identity).map(String::as_str) == Some(level_name(grant.level));
        if applied.outcome.is_ok() && !in_force {
            applied.outcome = Err(Failure::from(Error::Failed(
                "Ceph does not list the client".into(),
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(entries: &[(&str, &str)]) -> Identities {
        entries
            .iter()
            .map(|(identity, level)| ((*identity).to_owned(), (*level).to_owned()))
            .collect()
    }

    fn set<'a>(entries: &[&'a str]) -> BTreeSet<&'a str> {
        entries.iter().copied().collect()
    }

    #[test]
    fn nothing_to_do_when_nothing_differs() {
        let listed = listed(&[("alice", "rw"), ("bob", "r")]);
        let wanted = BTreeMap::from([("alice", AccessLevel::ReadWrite), ("bob", AccessLevel::ReadOnly)]);
        assert_eq!(plan(&listed, &wanted, &BTreeSet::new()), Plan::default());
    }

    #[test]
    fn who_loses_access_is_cut_off_and_who_gains_it_is_not() {
        let listed = listed(&[("down", "rw"), ("gone", "r"), ("up", "r")]);
        let wanted = BTreeMap::from([
            ("down", AccessLevel::ReadOnly),
            ("new", AccessLevel::ReadOnly),
            ("up", AccessLevel::ReadWrite),
        ]);
        let none = BTreeSet::new();
        let plan = plan(&listed, &wanted, &none);
        assert_eq!(plan.deny, set(&["gone"]));
        assert_eq!(plan.allow, set(&["down", "new", "up"]));
        assert_eq!(plan.cut, set(&["down", "gone"]));
    }

    #[test]
    fn an_interrupted_cut_is_taken_up_again() {
        let listed = listed(&[("down", "r")]);
        let wanted = BTreeMap::from([("down", AccessLevel::ReadOnly)]);
        let to_cut = BTreeSet::from(["down".to_owned(), "gone".to_owned()]);
        let plan = plan(&listed, &wanted, &to_cut);
        // Ceph may have been interrupted in it too: then it is not listed, and not gone either.
        assert_eq!(plan.deny, set(&["gone"]));
        assert_eq!(plan.allow, set(&[]));
        assert_eq!(plan.cut, set(&["down", "gone"]));
    }

    #[test]
    fn who_was_denied_and_is_listed_is_still_let_in() {
        let denied = BTreeMap::from([("alice", false), ("bob", true)]);
        assert!(expect_gone(&denied, &listed(&[("carol", "rw")])).is_ok());
        let told = expect_gone(&denied, &listed(&[("alice", "rw"), ("carol", "rw")]));
        assert!(told.is_err_and(|error| error.to_string().contains("'alice'")));
    }

    #[test]
    fn what_ceph_does_not_list_is_not_in_force() {
        let grant = |identity: &str, level| Grant {
            client: Client::CephX(identity.into()),
            level,
            squash: Squash::default(),
        };
        let access = vec![
            grant("alice", AccessLevel::ReadWrite),
            grant("bob", AccessLevel::ReadOnly),
        ];
        let mut applied: Vec<_> = access
            .iter()
            .map(|g| Applied {
                client: g.client.clone(),
                outcome: Ok(None),
            })
            .collect();
        confirm(&mut applied, &access, &listed(&[("alice", "rw"), ("bob", "rw")]));
        assert!(applied[0].outcome.is_ok());
        assert!(applied[1].outcome.is_err());
    }
}
