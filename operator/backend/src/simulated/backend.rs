//! The trait, as sequences of the commands that Ceph would be sent.

use std::{sync::atomic::Ordering, time::Duration};

use async_trait::async_trait;
use shoal_crds::{Protocol, Squash};
use shoal_domain::{
    Failure,
    grant::{Access, Applied, Client, Grant, Key},
    identity::{Description, Identity, NfsExports},
    orphan::{self, Listing},
    owner::{self, Owner, Tag},
    volume::{Export, NewVolume, Sight, Volume, VolumeRef},
};
use tokio::{sync::oneshot, time::sleep_until};

use super::{
    After, Cluster, Entry, FaultKind, Operation, Simulated, Trouble, What,
    world::{
        Cap, Command, GROUP, Module, NFS_CLUSTER, NfsClient, NfsExport, OWN_IDENTITY, Origin, Pending,
        Subvolume, Until, World, mix,
    },
};
use crate::{Backend, Error, Result};

/// One call of a method.
struct Call<'a> {
    origin: Origin,
    on: &'a Identity,
    ends: Duration,
    /// At which write it goes wrong, and how.
    fault: Option<(u32, FaultKind)>,
    writes: u32,
}

/// A command on its way: it takes effect in its time, whether or not the sender still waits for the answer.
async fn arrive(cluster: Cluster, fs_name: String, sent: Pending) -> Result<Option<Key>> {
    let until = sent.until;
    let take_effect = move |cluster: Cluster, late| {
        cluster.access(|world, now| cluster.take_effect(world, now, &fs_name, sent, late))
    };
    match until {
        Until::Time(time) if time > cluster.now() => {
            let (answer, answered) = oneshot::channel();
            tokio::spawn(async move {
                sleep_until(cluster.instant(time)).await;
                let late = answer.is_closed();
                // Nobody may be there to hear it.
                drop(answer.send(take_effect(cluster, late)));
            });
            answered
                .await
                .unwrap_or_else(|_| Err(Error::Failed("the simulated cluster has ended".into())))
        }
        _ => take_effect(cluster, false),
    }
}

fn failed() -> Error {
    Error::Failed("the simulated backend was told to fail".into())
}

impl Simulated {
    fn begin<'a>(&self, operation: Operation, on: &'a Identity, uid: &str) -> Result<Call<'a>> {
        let origin = Origin {
            by: self.settings.name.clone(),
            operation,
            uid: uid.to_owned(),
        };
        self.note(&origin, What::Called);
        let (now, fault) = self.cluster.access(|world, now| {
            world.calls += 1;
            let count = world.counts.entry(operation).or_default();
            *count += 1;
            let count = *count;
            let scripted = world
                .faults
                .iter()
                .position(|f| f.operation == operation && f.call == count);
            Ok((
                now,
                scripted
                    .map(|at| world.faults.swap_remove(at))
                    .map(|fault| (fault.write, fault.kind)),
            ))
        })?;
        let fault = fault.or_else(|| self.draw_fault());
        Ok(Call {
            origin,
            on,
            ends: now + self.settings.deadline,
            fault,
            writes: 0,
        })
    }

    fn draw_fault(&self) -> Option<(u32, FaultKind)> {
        if self.settings.failure_percent == 0 {
            return None;
        }
        let drawn = mix(self.settings.seed ^ mix(self.calls.fetch_add(1, Ordering::Relaxed)));
        let kind = if drawn & (1 << 40) == 0 {
            FaultKind::FailBefore
        } else {
            FaultKind::FailAfter
        };
        let write = u32::from(drawn & (1 << 41) != 0);
        (drawn % 100 < self.settings.failure_percent.into()).then_some((write, kind))
    }

    /// Ends a call: one whose fault has not struck yet is struck now.
    async fn end<T>(&self, call: Call<'_>, module: Module, result: Result<T>) -> Result<T> {
        let result = match (result, call.fault) {
            (Ok(_), Some((_, FaultKind::FailBefore | FaultKind::FailAfter))) => Err(failed()),
            (Ok(value), Some((_, FaultKind::Hang(after)))) => {
                let until = self.cluster.access(|world, now| {
                    let until = later(world.turn(module, now), after, now, world.calls);
                    world.stuck.insert(module, until);
                    Ok(until)
                });
                match until {
                    Ok(until) => self.wait(&call, module, until).await.map(|()| value),
                    Err(error) => Err(error),
                }
            }
            (Ok(_), Some((_, FaultKind::Stray(_) | FaultKind::Lost))) => {
                self.wait(&call, module, Until::Never).await.and(Err(failed()))
            }
            (result, _) => result,
        };
        self.note(
            &call.origin,
            What::Answered(result.as_ref().err().map(Error::reason)),
        );
        result
    }

    fn note(&self, origin: &Origin, what: What) {
        self.cluster.note(|| Entry {
            at: self.cluster.now(),
            by: origin.by.clone(),
            operation: origin.operation,
            uid: origin.uid.clone(),
            what,
        });
    }

    /// Whether anything may be sent to the module at all: not after the call's end, and not while the module owes an
    /// answer. That it would give one is proof that what it was sent before has taken effect.
    fn may_send(&self, world: &World, call: &Call<'_>, now: Duration, module: Module) -> Result<()> {
        if now >= call.ends {
            return Err(failed());
        }
        match world.trouble {
            Some(Trouble::Unreachable) => {
                return Err(Error::Unreachable("the simulated cluster is away".into()));
            }
            Some(Trouble::CredentialsRefused) => {
                return Err(Error::CredentialsRefused(format!("client.{OWN_IDENTITY}")));
            }
            None => {}
        }
        let silent = &self.silent[module as usize];
        if silent.load(Ordering::Relaxed) && world.stuck.contains_key(&module) {
            return Err(Error::Silent(format!(
                "the simulated cluster's module {module:?}"
            )));
        }
        silent.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Waits for an answer, but no longer than the deadline.
    async fn wait(&self, call: &Call<'_>, module: Module, until: Until) -> Result<()> {
        match until {
            Until::Time(time) if time <= call.ends => {
                if time > self.cluster.now() {
                    sleep_until(self.cluster.instant(time)).await;
                }
                Ok(())
            }
            _ => {
                self.silent[module as usize].store(true, Ordering::Relaxed);
                sleep_until(self.cluster.instant(call.ends)).await;
                Err(Error::TimedOut(format!("{:?}", call.origin.operation)))
            }
        }
    }

    async fn read<T>(
        &self,
        call: &Call<'_>,
        module: Module,
        work: impl FnOnce(&World) -> Result<T>,
    ) -> Result<T> {
        let until = self.cluster.access(|world, now| {
            self.may_send(world, call, now, module)?;
            Ok(after_turn(world.turn(module, now), self.settings.latency))
        })?;
        self.wait(call, module, until).await?;
        self.cluster.access(|world, _| {
            world.check(&self.fs_name, call.on)?;
            work(world)
        })
    }

    async fn write(&self, call: &mut Call<'_>, command: Command) -> Result<Option<Key>> {
        let fault = call
            .fault
            .take_if(|(write, _)| *write == call.writes)
            .map(|(_, kind)| kind);
        call.writes += 1;
        let module = command.module();
        let mut pending = Pending {
            until: Until::Never,
            on: call.on.into(),
            command,
            origin: call.origin.clone(),
        };
        let in_time = self.cluster.access(|world, now| {
            self.may_send(world, call, now, module)?;
            let turn = world.turn(module, now);
            pending.until = match fault {
                Some(FaultKind::Hang(after)) => later(turn, after, now, world.calls),
                Some(FaultKind::Stray(after)) => later(Until::Time(now), after, now, world.calls),
                Some(FaultKind::Lost) => Until::Never,
                _ => after_turn(turn, self.settings.latency),
            };
            if let Some(FaultKind::Hang(_)) = fault {
                world.stuck.insert(module, pending.until);
            }
            let in_time = matches!(pending.until, Until::Time(time) if time <= call.ends);
            if !in_time && !matches!(fault, Some(FaultKind::Lost | FaultKind::FailBefore)) {
                world.pending.push(pending.clone());
            }
            Ok(in_time)
        })?;
        let until = pending.until;
        if !in_time || matches!(fault, Some(FaultKind::FailBefore)) {
            self.wait(call, module, until).await?;
            return Err(failed());
        }
        let key = arrive(self.cluster.clone(), self.fs_name.clone(), pending).await?;
        if let Some(FaultKind::FailAfter) = fault {
            Err(failed())
        } else {
            Ok(key)
        }
    }

    /// The share's own subvolume, if it is there.
    async fn own(&self, call: &Call<'_>, volume: &VolumeRef) -> Result<Option<Subvolume>> {
        self.read(call, Module::Volumes, |world| {
            let Some(found) = world.subvolume(&self.fs_name, &volume.place.subvolume) else {
                return Ok(None);
            };
            check_owner(&found.tag(), volume)?;
            Ok(Some(found.clone()))
        })
        .await
    }

    async fn create_in(&self, call: &mut Call<'_>, volume: &VolumeRef, new: &NewVolume) -> Result<Volume> {
        let name = volume.place.subvolume.clone();
        let there = self.own(call, volume).await?;
        if there.is_none() {
            if new.was_there {
                return Err(Error::NotFound);
            }
            let create = Command::CreateSubvolume {
                name: name.clone(),
                size: new.size_bytes,
                root: new.root.clone(),
            };
            self.write(call, create).await?;
        }
        if there.is_none_or(|found| found.tag.is_none()) {
            let tag = volume.owner.to_tag();
            self.write(call, Command::Tag { name, tag }).await?;
        }
        match self.look_in(call, volume).await? {
            Sight::Present(made) => Ok(*made),
            Sight::Absent { .. } => Err(Error::Failed(
                "the subvolume was removed while it was made".into(),
            )),
        }
    }

    async fn resize_in(&self, call: &mut Call<'_>, volume: &VolumeRef, size_bytes: u64) -> Result<()> {
        let found = self.own(call, volume).await?.ok_or(Error::NotFound)?;
        if found.size != Some(size_bytes) {
            let name = volume.place.subvolume.clone();
            self.write(
                call,
                Command::Resize {
                    name,
                    size: size_bytes,
                },
            )
            .await?;
        }
        Ok(())
    }

    async fn set_metadata_in(
        &self,
        call: &mut Call<'_>,
        volume: &VolumeRef,
        text: Option<&str>,
    ) -> Result<()> {
        let found = self.own(call, volume).await?.ok_or(Error::NotFound)?;
        if found.metadata.as_deref() != text {
            let command = Command::SetMetadata {
                name: volume.place.subvolume.clone(),
                text: text.map(str::to_owned),
            };
            self.write(call, command).await?;
        }
        Ok(())
    }

    async fn export_nfs(
        &self,
        call: &mut Call<'_>,
        volume: &VolumeRef,
        path: String,
        access: &Access,
    ) -> Result<Vec<Applied>> {
        let pseudo_path = volume.pseudo_path.clone();
        let wanted: Vec<_> = access.iter().filter_map(NfsClient::of).collect();
        let there = self.own_export(call, volume).await?;
        let is_moved = there.as_ref().is_some_and(|export| export.path != path);
        if is_moved {
            self.write(
                call,
                Command::RemoveExport {
                    pseudo_path: pseudo_path.clone(),
                },
            )
            .await?;
        }
        if is_moved || there.is_none_or(|export| !export.intact || export.clients != wanted) {
            self.write(
                call,
                Command::ApplyExport {
                    pseudo_path,
                    path,
                    clients: wanted,
                },
            )
            .await?;
        }
        let in_force = self
            .own_export(call, volume)
            .await?
            .map(|export| export.clients)
            .unwrap_or_default();
        let outcome = |grant: &Grant| match NfsClient::of(grant) {
            None => Err(Error::Refused(
                "a CephX client can't be let in to an NFS share".into(),
            )),
            Some(client) if in_force.contains(&client) => Ok(None),
            Some(_) => Err(Error::Failed("the client is not in the export".into())),
        };
        let answer = |grant| outcome(grant).map_err(Failure::from);
        Ok(access
            .iter()
            .map(|grant| Applied {
                client: grant.client.clone(),
                outcome: answer(grant),
            })
            .collect())
    }

    /// The share's export; refused if its pseudo path is another's.
    async fn own_export(&self, call: &Call<'_>, volume: &VolumeRef) -> Result<Option<NfsExport>> {
        self.read(call, Module::Nfs, |world| {
            world.nfs()?;
            match export_of(world, &self.fs_name, volume) {
                Found::Nothing => Ok(None),
                Found::Taken(_) => Err(Error::PathTaken(volume.pseudo_path.clone())),
                Found::Ours(export) => Ok(Some(export)),
            }
        })
        .await
    }

    async fn export_cephfs(
        &self,
        call: &mut Call<'_>,
        volume: &VolumeRef,
        path: &str,
        access: &Access,
    ) -> Result<Vec<Applied>> {
        let name = volume.place.subvolume.clone();
        let there = self.own_caps(call, volume).await?;
        let is_wanted = |cap: &Cap| {
            cap.path == path
                && access
                    .iter()
                    .any(|g| matches!(&g.client, Client::CephX(identity) if *identity == cap.identity))
        };
        for cap in there.iter().filter(|cap| !is_wanted(cap)) {
            let (path, identity) = (cap.path.clone(), cap.identity.clone());
            self.write(call, Command::Deauthorize { path, identity }).await?;
        }
        let mut applied = Vec::with_capacity(access.len());
        for grant in access {
            let outcome = match &grant.client {
                Client::Ip(_) => Err(Error::Refused(
                    "an address can't be let in to a native CephFS share".into(),
                )),
                Client::CephX(identity) => {
                    let before = there
                        .iter()
                        .find(|cap| cap.path == path && cap.identity == *identity);
                    if before.is_some_and(|cap| cap.level == grant.level) {
                        Ok(None)
                    } else {
                        let authorize = Command::Authorize {
                            name: name.clone(),
                            identity: identity.clone(),
                            tenant: volume.tenant.clone(),
                            level: grant.level,
                        };
                        let key = self.write(call, authorize).await;
                        if before.is_some() { key.map(|_| None) } else { key }
                    }
                }
            };
            let outcome = match outcome {
                Err(error @ (Error::IdentityNotAvailable | Error::Refused(_))) => Err(Failure::from(error)),
                outcome => Ok(outcome?),
            };
            applied.push(Applied {
                client: grant.client.clone(),
                outcome,
            });
        }
        self.evict_stale(call, volume).await?;
        Ok(applied)
    }

    /// Ends the sessions that have more than their identity is allowed now: they would keep it. Those of an earlier call
    /// that came no further are among them.
    async fn evict_stale(&self, call: &mut Call<'_>, volume: &VolumeRef) -> Result<()> {
        let directory = directory(volume);
        let stale = self
            .read(call, Module::Volumes, |world| {
                Ok(world.stale_sessions(&self.fs_name, &directory))
            })
            .await?;
        for (path, identity) in stale {
            self.write(call, Command::Evict { path, identity }).await?;
        }
        Ok(())
    }

    /// Who is let in to the share's subvolume, or to one that had its name.
    async fn own_caps(&self, call: &Call<'_>, volume: &VolumeRef) -> Result<Vec<Cap>> {
        self.read(call, Module::Volumes, |world| {
            Ok(world.caps_below(&self.fs_name, &directory(volume)).collect())
        })
        .await
    }

    async fn look_in(&self, call: &Call<'_>, volume: &VolumeRef) -> Result<Sight> {
        let name = &volume.place.subvolume;
        let (found, caps, stale) = self
            .read(call, Module::Volumes, |world| {
                let caps: Vec<_> = world.caps_below(&self.fs_name, &directory(volume)).collect();
                let stale = world.stale_sessions(&self.fs_name, &directory(volume));
                Ok((
                    world.subvolume(&self.fs_name, name).cloned(),
                    caps,
                    !stale.is_empty(),
                ))
            })
            .await?;
        let export = match volume.protocol {
            Protocol::NFS => {
                self.read(call, Module::Nfs, |world| {
                    world.nfs()?;
                    Ok(export_of(world, &self.fs_name, volume))
                })
                .await?
            }
            Protocol::CephFS => Found::Nothing,
        };
        let Some(found) = found else {
            return Ok(Sight::Absent {
                leftovers: !caps.is_empty() || stale || matches!(export, Found::Ours(_)),
            });
        };
        let export = match (volume.protocol, export) {
            (Protocol::NFS, Found::Nothing) => Export::Absent,
            (Protocol::NFS, Found::Taken(holder)) => Export::Taken(holder),
            (Protocol::NFS, Found::Ours(there)) => {
                let access: Access = there.clients.iter().filter_map(NfsClient::to_grant).collect();
                let intact = there.intact && there.path == found.path && access.len() == there.clients.len();
                Export::Ours {
                    pseudo_path: Some(volume.pseudo_path.clone()),
                    access,
                    intact,
                }
            }
            (Protocol::CephFS, _) => {
                let intact = !stale && caps.iter().all(|cap| cap.path == found.path);
                let access = caps
                    .into_iter()
                    .filter(|cap| cap.path == found.path)
                    .map(|cap| Grant {
                        client: Client::CephX(cap.identity),
                        level: cap.level,
                        squash: Squash::default(),
                    })
                    .collect();
                Export::Ours {
                    pseudo_path: None,
                    access,
                    intact,
                }
            }
        };
        Ok(Sight::Present(Box::new(Volume {
            tag: found.tag(),
            handle: format!("{GROUP}/{name}"),
            path: found.path,
            size_bytes: found.size,
            used_bytes: found.used,
            metadata: found.metadata,
            export,
        })))
    }

    async fn export_in(
        &self,
        call: &mut Call<'_>,
        volume: &VolumeRef,
        access: &Access,
    ) -> Result<Vec<Applied>> {
        let path = self.own(call, volume).await?.ok_or(Error::NotFound)?.path;
        match volume.protocol {
            Protocol::NFS => self.export_nfs(call, volume, path, access).await,
            Protocol::CephFS => self.export_cephfs(call, volume, &path, access).await,
        }
    }

    async fn key_in(&self, call: &Call<'_>, volume: &VolumeRef, grant: &Grant) -> Result<Key> {
        let path = self.own(call, volume).await?.ok_or(Error::NotFound)?.path;
        let Client::CephX(identity) = &grant.client else {
            return Err(Error::Refused("an address has no key".into()));
        };
        self.read(call, Module::Volumes, |world| {
            let entity = world.identities.get(identity);
            if entity.is_some_and(|entity| {
                entity.tenant.as_ref() != Some(&volume.tenant) || entity.file_system != self.fs_name
            }) {
                return Err(Error::IdentityNotAvailable);
            }
            world
                .caps_below(&self.fs_name, &directory(volume))
                .find(|cap| cap.path == path && cap.identity == *identity && cap.level == grant.level)
                .and_then(|_| world.key(identity))
                .ok_or_else(|| Error::Failed("the client is not let in with this level".into()))
        })
        .await
    }

    async fn unexport_in(&self, call: &mut Call<'_>, volume: &VolumeRef) -> Result<()> {
        self.own(call, volume).await?;
        match volume.protocol {
            Protocol::NFS => {
                if self.own_export(call, volume).await?.is_some() {
                    let pseudo_path = volume.pseudo_path.clone();
                    self.write(call, Command::RemoveExport { pseudo_path }).await?;
                }
            }
            Protocol::CephFS => self.deauthorize_all(call, volume).await?,
        }
        Ok(())
    }

    async fn list_in(&self, call: &Call<'_>) -> Result<Listing> {
        let subvolumes = self
            .read(call, Module::Volumes, |world| {
                let there = world.file_systems.get(&self.fs_name);
                Ok(there.map(|fs| fs.subvolumes.keys().cloned().collect()))
            })
            .await?;
        let exports = self
            .read(call, Module::Nfs, |world| {
                let ours = world
                    .exports
                    .iter()
                    .filter(|(_, there)| there.file_system == self.fs_name);
                let leading = ours.filter_map(|(pseudo_path, there)| {
                    let name = orphan::subvolume_of(GROUP, &there.path)?;
                    Some((pseudo_path.clone(), name.to_owned()))
                });
                Ok(leading.collect())
            })
            .await?;
        Ok(Listing {
            group: GROUP.into(),
            subvolumes: subvolumes.unwrap_or_default(),
            exports,
        })
    }

    async fn tag_in(&self, call: &Call<'_>, subvolume: &str) -> Result<Option<Tag>> {
        self.read(call, Module::Volumes, |world| {
            Ok(world.subvolume(&self.fs_name, subvolume).map(Subvolume::tag))
        })
        .await
    }

    async fn revoke_in(&self, call: &mut Call<'_>, volume: &VolumeRef) -> Result<()> {
        self.own(call, volume).await?.ok_or(Error::NotFound)?;
        let name = &volume.place.subvolume;
        let leading = self.list_in(call).await?.exports;
        for (pseudo_path, _) in leading.into_iter().filter(|(_, to)| to == name) {
            self.write(call, Command::RemoveExport { pseudo_path }).await?;
        }
        self.deauthorize_all(call, volume).await
    }

    async fn deauthorize_all(&self, call: &mut Call<'_>, volume: &VolumeRef) -> Result<()> {
        for Cap { path, identity, .. } in self.own_caps(call, volume).await? {
            self.write(call, Command::Deauthorize { path, identity }).await?;
        }
        self.evict_stale(call, volume).await
    }

    async fn hand_over_in(&self, call: &mut Call<'_>, volume: &VolumeRef, to: &Owner) -> Result<()> {
        let name = &volume.place.subvolume;
        let there = self
            .read(call, Module::Volumes, |world| {
                let found = world.subvolume(&self.fs_name, name).ok_or(Error::NotFound)?;
                Ok(found.tag())
            })
            .await?;
        match &there {
            Tag::Owner(tagged) if tagged == to => return Ok(()),
            Tag::Owner(tagged) if tagged.is_same(to) => {}
            tag => check_owner(tag, volume)?,
        }
        let (name, tag) = (name.clone(), to.to_tag());
        self.write(call, Command::Tag { name, tag }).await.map(|_| ())
    }

    async fn remove_in(&self, call: &mut Call<'_>, volume: &VolumeRef) -> Result<()> {
        if self.own(call, volume).await?.is_none() {
            return Ok(());
        }
        let name = volume.place.subvolume.clone();
        match self.write(call, Command::RemoveSubvolume { name }).await {
            Err(Error::NotFound) => Ok(()),
            answer => answer.map(|_| ()),
        }
    }

    async fn describe_in(&self, call: &Call<'_>) -> Result<Description> {
        self.read(call, Module::Monitors, |world| {
            let nfs_endpoints = world.nfs_endpoints.clone().unwrap_or_default();
            let mut protocols = vec![Protocol::CephFS];
            if !nfs_endpoints.is_empty() {
                protocols.insert(0, Protocol::NFS);
            }
            let used = world.file_systems.get(&self.fs_name).map_or(0, |fs| fs.used);
            Ok(Description {
                identity: world.identity(&self.fs_name)?,
                version: "simulated".into(),
                monitors: world.monitors.clone(),
                nfs_cluster_id: (!nfs_endpoints.is_empty()).then(|| NFS_CLUSTER.into()),
                nfs_endpoints,
                nfs_exports: NfsExports::default(),
                group: GROUP.into(),
                protocols,
                total_bytes: Some(self.settings.total_bytes),
                free_bytes: Some(self.settings.total_bytes.saturating_sub(used)),
                own_identity: Some(OWN_IDENTITY.into()),
            })
        })
        .await
    }
}

/// That a subvolume with this tag is the share's. Without a tag only one under the share's own name is.
fn check_owner(tag: &Tag, volume: &VolumeRef) -> Result<()> {
    let name = &volume.place.subvolume;
    match tag {
        Tag::Owner(other) if !other.is_same(&volume.owner) => Err(Error::OwnedByAnother(format!(
            "subvolume {GROUP}/{name} belongs to {}/{} of cluster {}",
            other.namespace, other.name, other.cluster
        ))),
        Tag::Unreadable => Err(Error::OwnedByAnother(format!(
            "subvolume {GROUP}/{name} has a tag that is not Shoal's"
        ))),
        Tag::Absent if *name != owner::subvolume_name(&volume.owner.uid) => Err(Error::OwnedByAnother(
            format!("subvolume {GROUP}/{name} has no tag"),
        )),
        Tag::Owner(_) | Tag::Absent => Ok(()),
    }
}

/// What is at a share's pseudo path.
enum Found {
    Nothing,
    Taken(String),
    Ours(NfsExport),
}

/// Ours is what exports our file system and a subvolume of our name; the uuid below it tells whether it is today's.
fn export_of(world: &World, fs_name: &str, volume: &VolumeRef) -> Found {
    let Some(there) = world.exports.get(&volume.pseudo_path) else {
        return Found::Nothing;
    };
    if there.file_system == fs_name && there.path.starts_with(&format!("{}/", directory(volume))) {
        Found::Ours(there.clone())
    } else {
        Found::Taken(format!("{}:{}", there.file_system, there.path))
    }
}

/// Where every subvolume of the share's name has its path.
fn directory(volume: &VolumeRef) -> String {
    format!("/volumes/{GROUP}/{}", volume.place.subvolume)
}

fn after_turn(turn: Until, latency: Duration) -> Until {
    match turn {
        Until::Time(time) => Until::Time(time + latency),
        held => held,
    }
}

/// When a command comes that is held up now, but not before its turn.
fn later(turn: Until, after: After, now: Duration, calls: u64) -> Until {
    match (turn, after) {
        (Until::Time(turn), After::Delay(delay)) => Until::Time(turn.max(now + delay)),
        (Until::Time(_), After::Calls(further)) => Until::Call(calls + further),
        (held, _) => held,
    }
}

#[async_trait]
impl Backend for Simulated {
    fn deadline(&self) -> Duration {
        self.settings.deadline
    }

    async fn describe(&self, recorded: Option<&Identity>) -> Result<Description> {
        let on = match recorded {
            Some(recorded) => recorded.clone(),
            // Whatever answers is what it is.
            None => self.cluster.access(|world, _| world.identity(&self.fs_name))?,
        };
        let call = self.begin(Operation::Describe, &on, "")?;
        let result = self.describe_in(&call).await;
        self.end(call, Module::Monitors, result).await
    }

    async fn look(&self, on: &Identity, volume: &VolumeRef) -> Result<Sight> {
        let call = self.begin(Operation::Look, on, &volume.owner.uid)?;
        let result = self.look_in(&call, volume).await;
        self.end(call, Module::Volumes, result).await
    }

    async fn create(&self, on: &Identity, volume: &VolumeRef, new: &NewVolume) -> Result<Volume> {
        let mut call = self.begin(Operation::Create, on, &volume.owner.uid)?;
        let result = self.create_in(&mut call, volume, new).await;
        self.end(call, Module::Volumes, result).await
    }

    async fn resize(&self, on: &Identity, volume: &VolumeRef, size_bytes: u64) -> Result<()> {
        let mut call = self.begin(Operation::Resize, on, &volume.owner.uid)?;
        let result = self.resize_in(&mut call, volume, size_bytes).await;
        self.end(call, Module::Volumes, result).await
    }

    async fn set_metadata(&self, on: &Identity, volume: &VolumeRef, text: Option<&str>) -> Result<()> {
        let mut call = self.begin(Operation::SetMetadata, on, &volume.owner.uid)?;
        let result = self.set_metadata_in(&mut call, volume, text).await;
        self.end(call, Module::Volumes, result).await
    }

    async fn export(&self, on: &Identity, volume: &VolumeRef, access: &Access) -> Result<Vec<Applied>> {
        let mut call = self.begin(Operation::Export, on, &volume.owner.uid)?;
        let result = self.export_in(&mut call, volume, access).await;
        self.end(call, module_of(volume), result).await
    }

    async fn key(&self, on: &Identity, volume: &VolumeRef, grant: &Grant) -> Result<Key> {
        let call = self.begin(Operation::Key, on, &volume.owner.uid)?;
        let result = self.key_in(&call, volume, grant).await;
        self.end(call, Module::Volumes, result).await
    }

    async fn unexport(&self, on: &Identity, volume: &VolumeRef) -> Result<()> {
        let mut call = self.begin(Operation::Unexport, on, &volume.owner.uid)?;
        let result = self.unexport_in(&mut call, volume).await;
        self.end(call, module_of(volume), result).await
    }

    async fn list(&self, on: &Identity) -> Result<Listing> {
        let call = self.begin(Operation::List, on, "")?;
        let result = self.list_in(&call).await;
        self.end(call, Module::Volumes, result).await
    }

    async fn tag(&self, on: &Identity, subvolume: &str) -> Result<Option<Tag>> {
        let call = self.begin(Operation::Tag, on, "")?;
        let result = self.tag_in(&call, subvolume).await;
        self.end(call, Module::Volumes, result).await
    }

    async fn revoke(&self, on: &Identity, volume: &VolumeRef) -> Result<()> {
        let mut call = self.begin(Operation::Revoke, on, &volume.owner.uid)?;
        let result = self.revoke_in(&mut call, volume).await;
        self.end(call, Module::Volumes, result).await
    }

    async fn hand_over(&self, on: &Identity, volume: &VolumeRef, to: &Owner) -> Result<()> {
        let mut call = self.begin(Operation::HandOver, on, &volume.owner.uid)?;
        let result = self.hand_over_in(&mut call, volume, to).await;
        self.end(call, Module::Volumes, result).await
    }

    async fn remove(&self, on: &Identity, volume: &VolumeRef) -> Result<()> {
        let mut call = self.begin(Operation::Remove, on, &volume.owner.uid)?;
        let result = self.remove_in(&mut call, volume).await;
        self.end(call, Module::Volumes, result).await
    }
}

/// Where the share's access is kept.
fn module_of(volume: &VolumeRef) -> Module {
    match volume.protocol {
        Protocol::NFS => Module::Nfs,
        Protocol::CephFS => Module::Volumes,
    }
}
