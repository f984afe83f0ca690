//! A world with a real Ceph: what the Ceph suites act in, and the comparison of what Ceph holds with what the objects say.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use k8s_openapi::api::core::v1::{Event, Namespace, Secret};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};
use shoal_crds::{
    AccessLevel, AccessPhase, AccessType, DeletionPhase, Protocol, Share, ShareAccessRule, ShareBackend,
    ShareDeletion, Squash,
};
use shoal_domain::{
    grant::{self, Client, Grant},
    owner::{Owner as Tag, Place, generated_identity},
    share_deletion,
};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    holdings::{path_of, subvolume_of},
    lab::{
        Admin, Ceph, CephFsMount, CephOptions, CephRelease, LabOptions, NfsClient, Process,
        client::{ClientError, Failure, Owner, failure},
    },
    world::{Operator, OperatorOptions, PATIENCE, World, condition, eventually, until, until_gone},
};

/// Not a multiple of anything: what is asked for is what is had.
pub const SIZE: u64 = 134_217_728 + 4_321;
/// The subvolume group of the world's backends.
pub const GROUP: &str = "shoal";

/// The Ceph release that a suite runs on, `SHOAL_E2E_CEPH`: 18, unless it says otherwise.
pub fn release() -> Result<CephRelease> {
    match env::var("SHOAL_E2E_CEPH") {
        Ok(text) if !text.is_empty() => text.parse(),
        _ => Ok(CephRelease::default()),
    }
}

/// How long or how often something is done: a number from the environment, or the one for every day.
pub fn scale(variable: &str, usual: u32) -> u32 {
    env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}

/// A world with Ceph, its admin, and an operator.
pub struct Storage {
    /// Servers and objects.
    pub world: World,
    /// Ceph's admin.
    pub admin: Admin,
    /// The operator, if one runs.
    operator: Mutex<Option<Operator>>,
    alone: Mutex<()>,
}

impl AsRef<World> for Storage {
    fn as_ref(&self) -> &World {
        &self.world
    }
}

impl Storage {
    /// A lab with Shoal in it and an operator that leads. On each file system there are types of its own: `on-<fs>` (root
    /// 0:0 0755) and `team-on-<fs>` (root 1000:1000 2770).
    pub async fn start() -> Result<Self> {
        let storage = Self::without_operator(CephOptions {
            release: release()?,
            ..CephOptions::default()
        })
        .await?;
        storage.start_operator("").await?;
        storage.until_backends_ready().await?;
        Ok(storage)
    }

    /// The same without an operator.
    pub async fn without_operator(ceph: CephOptions) -> Result<Self> {
        let options = LabOptions {
            ceph: Some(ceph),
            ..LabOptions::default()
        };
        let world = World::start(&options).await?;
        world.add_ceph_backends().await?;
        for filesystem in world.lab.ceph()?.filesystems() {
            let on = json!([filesystem]);
            world
                .add_type(
                    &format!("on-{filesystem}"),
                    json!({"shrink": true, "backendNames": on}),
                    false,
                )
                .await?;
            let team = json!({
                "shrink": true, "backendNames": on, "root": {"uid": 1000, "gid": 1000, "mode": "2770"},
            });
            world
                .add_type(&format!("team-on-{filesystem}"), team, false)
                .await?;
        }
        Self::around(world)
    }

    /// In a world that there is already.
    pub fn around(world: World) -> Result<Self> {
        let admin = Admin::connect(world.lab.ceph()?)?;
        Ok(Self {
            world,
            admin,
            operator: Mutex::default(),
            alone: Mutex::default(),
        })
    }

    /// With a connection to the cluster that is there now.
    pub fn with_admin_anew(mut self) -> Result<Self> {
        self.admin = Admin::connect(self.ceph())?;
        Ok(self)
    }

    /// The cluster.
    pub fn ceph(&self) -> &Ceph {
        self.world.lab.ceph().expect("a lab with Ceph")
    }

    /// For a scenario that stops the operator or Ceph: no other of its kind runs meanwhile.
    pub async fn alone(&self) -> MutexGuard<'_, ()> {
        self.alone.lock().await
    }

    /// Starts an operator, and waits until it leads. Always under one name, so that it need not wait for the Lease of
    /// one that was killed.
    pub async fn start_operator(&self, failpoints: &str) -> Result<()> {
        self.start_operator_with(&OperatorOptions {
            failpoints: failpoints.into(),
            ..OperatorOptions::quick("operator")
        })
        .await
    }

    /// Starts an operator with other flags.
    pub async fn start_operator_with(&self, options: &OperatorOptions) -> Result<()> {
        let mut operator = self.operator.lock().await;
        drop(operator.take());
        let started = self.world.operator(options).await?;
        if options.failpoints.is_empty() {
            started.wait_until_leading().await?;
        }
        *operator = Some(started);
        Ok(())
    }

    /// The operator's process; an error if none was started.
    pub async fn operator_process(&self) -> Result<Process> {
        let operator = self.operator.lock().await;
        Ok(operator.as_ref().context("no operator runs")?.process().clone())
    }

    /// Where the operator serves its metrics.
    pub async fn metrics_address(&self) -> Result<String> {
        let operator = self.operator.lock().await;
        operator.as_ref().context("no operator runs")?.address()
    }

    /// Waits until the operator leads.
    pub async fn until_leading(&self) -> Result<()> {
        let operator = self.operator.lock().await;
        operator
            .as_ref()
            .context("no operator runs")?
            .wait_until_leading()
            .await
    }

    /// Ends the operator as an upgrade does.
    pub async fn stop_operator(&self) -> Result<()> {
        match self.operator.lock().await.take() {
            Some(operator) => operator.terminate(),
            None => Ok(()),
        }
    }

    /// Ends it by force.
    pub async fn kill_operator(&self) -> Result<()> {
        match self.operator.lock().await.take() {
            Some(operator) => operator.kill(),
            None => Ok(()),
        }
    }

    /// Waits for a failpoint to end it; false if it has not within this time.
    pub async fn operator_dies(&self, within: Duration) -> Result<bool> {
        let operator = self.operator.lock().await;
        let operator = operator.as_ref().context("no operator runs")?;
        let until = Instant::now() + within;
        while operator.process().is_alive() {
            if Instant::now() > until {
                return Ok(false);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(true)
    }

    /// Threads and resident bytes of the operator.
    pub async fn operator_weight(&self) -> Result<(u64, u64)> {
        let operator = self.operator.lock().await;
        let pid = operator.as_ref().context("no operator runs")?.process().pid;
        let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        Ok((
            number("Threads:").context("no Threads")?,
            number("VmRSS:").context("no VmRSS")? * 1024,
        ))
    }

    /// Waits until all backends answer.
    pub async fn until_backends_ready(&self) -> Result<()> {
        for name in self.ceph().filesystems() {
            self.until_backend(name, "True", "Available").await?;
        }
        Ok(())
    }

    /// Waits until a backend's Ready condition is as wanted.
    pub async fn until_backend(&self, name: &str, status: &str, reason: &str) -> Result<ShareBackend> {
        let api = self.world.cluster_api::<ShareBackend>();
        until(&api, name, &format!("Ready {status} {reason}"), |backend| {
            let status_now = backend
                .status
                .as_ref()
                .map(|s| s.conditions.as_slice())
                .unwrap_or_default();
            backend.status.as_ref().and_then(|s| s.observed_generation) == backend.metadata.generation
                && condition(status_now, "Ready") == Some((status, reason))
        })
        .await
    }

    /// Waits until a backend says that it can't be used; the reason and the words.
    pub async fn until_trouble(&self, name: &str) -> Result<(String, String)> {
        let api = self.world.cluster_api::<ShareBackend>();
        let backend = until(&api, name, "not Ready", |backend| {
            let conditions = backend
                .status
                .as_ref()
                .map(|s| s.conditions.as_slice())
                .unwrap_or_default();
            condition(conditions, "Ready").is_some_and(|(status, _)| status == "False")
        })
        .await?;
        let conditions = backend.status.context("no status")?.conditions;
        let ready = conditions
            .iter()
            .find(|c| c.type_ == "Ready")
            .context("no Ready")?;
        Ok((ready.reason.clone(), ready.message.clone()))
    }

    // ---- shares and rules

    /// Makes a share of [`SIZE`] and waits until it can be used.
    pub async fn share(
        &self,
        namespace: &str,
        name: &str,
        protocol: &str,
        share_type: &str,
    ) -> Result<Share> {
        self.ask_for_share(namespace, name, protocol, share_type, SIZE)
            .await?;
        self.ready(namespace, name).await
    }

    /// Makes or changes a share, and does not wait.
    pub async fn ask_for_share(
        &self,
        namespace: &str,
        name: &str,
        protocol: &str,
        share_type: &str,
        size: u64,
    ) -> Result<()> {
        let spec = json!({"protocol": protocol, "shareTypeName": share_type, "size": size.to_string()});
        self.world.share(namespace, name, spec).await?;
        Ok(())
    }

    /// Waits until a share is as its spec asks, with nothing left to do.
    pub async fn ready(&self, namespace: &str, name: &str) -> Result<Share> {
        until(&self.world.api::<Share>(namespace), name, "Ready", is_ready).await
    }

    /// Waits until a share's Ready condition is as wanted.
    pub async fn until_share(
        &self,
        namespace: &str,
        name: &str,
        status: &str,
        reason: &str,
    ) -> Result<Share> {
        until(
            &self.world.api::<Share>(namespace),
            name,
            &format!("Ready {status} {reason}"),
            |share: &Share| condition(conditions(share), "Ready") == Some((status, reason)),
        )
        .await
    }

    /// Deletes a share and waits until it is gone, and nothing is left of it.
    pub async fn delete_share(&self, namespace: &str, name: &str) -> Result<()> {
        let share = self.world.api::<Share>(namespace).get(name).await?;
        self.forget_share(namespace, name).await?;
        until_gone(&self.world.api::<Share>(namespace), name).await?;
        self.until_finished(&share).await
    }

    /// Waits until nothing is left to do of a share that is gone.
    pub async fn until_finished(&self, share: &Share) -> Result<()> {
        let deletions = self.world.cluster_api::<ShareDeletion>();
        until_gone(&deletions, &share_deletion::name(&uid(share))).await
    }

    /// Waits until what is left of a share is as wanted.
    pub async fn until_deletion(
        &self,
        share: &Share,
        what: &str,
        is_so: impl Fn(&ShareDeletion) -> bool,
    ) -> Result<ShareDeletion> {
        let deletions = self.world.cluster_api::<ShareDeletion>();
        until(&deletions, &share_deletion::name(&uid(share)), what, is_so).await
    }

    /// Waits until what is left of a share waits for one of these reasons.
    pub async fn until_deletion_waits(&self, share: &Share, reasons: &[&str]) -> Result<ShareDeletion> {
        self.until_deletion(share, &format!("{reasons:?}"), |deletion| {
            let conditions = deletion.status.as_ref().map_or(&[][..], |s| &s.conditions);
            condition(conditions, "Ready").is_some_and(|(is, why)| is == "False" && reasons.contains(&why))
        })
        .await
    }

    /// Deletes a share, and does not wait.
    pub async fn forget_share(&self, namespace: &str, name: &str) -> Result<()> {
        self.world
            .api::<Share>(namespace)
            .delete(name, &kube::api::DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Makes or changes a rule, and waits until it is in force.
    pub async fn rule(&self, namespace: &str, name: &str, spec: Value) -> Result<ShareAccessRule> {
        self.world.rule(namespace, name, spec).await?;
        self.active(namespace, name).await
    }

    /// Waits until a rule is in force as it is now.
    pub async fn active(&self, namespace: &str, name: &str) -> Result<ShareAccessRule> {
        until(
            &self.world.api::<ShareAccessRule>(namespace),
            name,
            "Active",
            |rule| {
                rule.status.as_ref().is_some_and(|s| {
                    s.phase == Some(AccessPhase::Active)
                        && s.observed_generation == rule.metadata.generation
                        && s.applied_level == Some(rule.spec.access_level)
                })
            },
        )
        .await
    }

    /// Waits until a rule is not in force for this reason.
    pub async fn refused(&self, namespace: &str, name: &str, reason: &str) -> Result<ShareAccessRule> {
        until(
            &self.world.api::<ShareAccessRule>(namespace),
            name,
            reason,
            |rule| {
                rule.status
                    .as_ref()
                    .is_some_and(|s| condition(&s.conditions, "Ready") == Some(("False", reason)))
            },
        )
        .await
    }

    /// Deletes a rule and waits until it is gone.
    pub async fn delete_rule(&self, namespace: &str, name: &str) -> Result<()> {
        let api = self.world.api::<ShareAccessRule>(namespace);
        api.delete(name, &kube::api::DeleteParams::default()).await?;
        until_gone(&api, name).await
    }

    /// What a rule's Secret holds: identity and key.
    pub async fn credentials(&self, namespace: &str, rule: &str) -> Result<(String, String)> {
        let api = self.world.api::<ShareAccessRule>(namespace);
        let status = api.get(rule).await?.status.context("the rule has no status")?;
        let told = status
            .credentials_secret_ref
            .context("the rule names no Secret")?;
        let namespace = told.namespace.as_deref().unwrap_or(namespace);
        let secret = self.world.api::<Secret>(namespace).get(&told.name).await?;
        ensure!(
            secret.type_.as_deref() == Some("shoal.storage/cephx"),
            "type {:?}",
            secret.type_
        );
        let text = |key: &str| -> Result<String> {
            let bytes = secret
                .data
                .as_ref()
                .and_then(|data| data.get(key))
                .with_context(|| format!("no {key}"))?;
            Ok(String::from_utf8(bytes.0.clone())?)
        };
        let (identity, key) = (text("userID")?, text("userKey")?);
        ensure!(
            text("keyring")? == format!("[client.{identity}]\n\tkey = {key}\n"),
            "the keyring is another"
        );
        Ok((identity, key))
    }

    /// Events about an object with this reason.
    pub async fn events(&self, namespace: &str, name: &str, reason: &str) -> Result<usize> {
        let events = Api::<Event>::namespaced(self.world.client.clone(), namespace)
            .list(&ListParams::default())
            .await?;
        let about = |e: &&Event| {
            e.involved_object.name.as_deref() == Some(name) && e.reason.as_deref() == Some(reason)
        };
        Ok(events.items.iter().filter(about).count())
    }

    // ---- what Ceph has

    /// The subvolume of a share as `fs subvolume info` says it; none if it is not there.
    pub fn subvolume(&self, share: &Share) -> Result<Option<Value>> {
        absent_is_none(self.admin.mgr(at(share, "fs subvolume info")))
    }

    /// Metadata of a share's subvolume.
    pub fn metadata(&self, share: &Share) -> Result<Value> {
        self.admin.mgr(at(share, "fs subvolume metadata ls"))
    }

    /// Identities let in to a share's subvolume, with their levels.
    pub fn authorized(&self, share: &Share) -> Result<BTreeMap<String, String>> {
        let list: Vec<BTreeMap<String, String>> =
            serde_json::from_value(self.admin.mgr(at(share, "fs subvolume authorized_list"))?)?;
        Ok(list.into_iter().flatten().collect())
    }

    /// The export at a share's pseudo path; none if there is none.
    pub fn export(&self, share: &Share) -> Result<Option<Value>> {
        let path = path_of(share);
        let cluster_id = self.ceph().nfs_cluster();
        let info = self
            .admin
            .mgr(json!({"prefix": "nfs export info", "cluster_id": cluster_id, "pseudo_path": path}))?;
        Ok(Some(info).filter(|i| i.as_object().is_some_and(|o| !o.is_empty())))
    }

    /// Writes an export as an admin would.
    pub fn apply_export(&self, export: &Value) -> Result<()> {
        let cluster_id = self.ceph().nfs_cluster();
        self.admin
            .mgr_with(
                json!({"prefix": "nfs export apply", "cluster_id": cluster_id}),
                export,
            )
            .map(drop)
    }

    /// The quota of a share's subvolume.
    pub fn quota(&self, share: &Share) -> Result<Option<u64>> {
        Ok(self
            .subvolume(share)?
            .and_then(|info| info["bytes_quota"].as_u64()))
    }

    /// A cephx entity as the monitors have it; none if there is none.
    pub fn entity(&self, identity: &str) -> Result<Option<Value>> {
        let entity = format!("client.{identity}");
        let list = absent_is_none(self.admin.mon(json!({"prefix": "auth get", "entity": entity})))?;
        Ok(list.and_then(|list| list.get(0).cloned()))
    }

    /// Everything that Ceph holds for anybody: to see that nothing foreign was touched.
    pub fn holdings(&self) -> Result<Value> {
        let admin = &self.admin;
        let mut all = json!({
            "auth": admin.mon(json!({"prefix": "auth ls"}))?,
            "exports": admin.mgr(json!({
                "prefix": "nfs export ls", "cluster_id": self.ceph().nfs_cluster(), "detailed": true,
            }))?,
        });
        for filesystem in self.ceph().filesystems() {
            let groups = admin.mgr(json!({"prefix": "fs subvolumegroup ls", "vol_name": filesystem}))?;
            let groups: Vec<Option<String>> = names(&groups).into_iter().map(Some).chain([None]).collect();
            for group in groups {
                let place = |prefix: &str, name: &str| {
                    let mut command = json!({"prefix": prefix, "vol_name": filesystem});
                    if let Some(group) = &group {
                        command["group_name"] = json!(group);
                    }
                    if !name.is_empty() {
                        command["sub_name"] = json!(name);
                    }
                    command
                };
                for name in names(&admin.mgr(place("fs subvolume ls", ""))?) {
                    let mut info = admin.mgr(place("fs subvolume info", &name))?;
                    for changing in ["atime", "bytes_pcent", "bytes_used"] {
                        info.as_object_mut().context("no info")?.remove(changing);
                    }
                    let metadata = admin.mgr(place("fs subvolume metadata ls", &name))?;
                    let authorized = admin.mgr(place("fs subvolume authorized_list", &name))?;
                    let key = format!("{filesystem}/{}/{name}", group.as_deref().unwrap_or("-"));
                    all[key] = json!({"info": info, "metadata": metadata, "authorized": authorized});
                }
            }
        }
        Ok(all)
    }

    /// The name of the metadata server that a file system has now.
    pub fn active_mds(&self, filesystem: &str) -> Result<String> {
        let fs = self
            .admin
            .mon(json!({"prefix": "fs get", "fs_name": filesystem}))?;
        let servers = fs["mdsmap"]["info"].as_object().context("no info")?;
        let active = servers
            .values()
            .find(|s| s["state"] == "up:active")
            .context("none is active")?;
        Ok(format!("mds.{}", active["name"].as_str().context("no name")?))
    }

    /// The name of the manager that serves now.
    pub fn active_mgr(&self) -> Result<String> {
        let stat = self.admin.mon(json!({"prefix": "mgr stat"}))?;
        ensure!(stat["available"] == true, "no manager serves");
        Ok(format!(
            "mgr.{}",
            stat["active_name"].as_str().context("no name")?
        ))
    }

    // ---- clients

    /// The same as [`Storage::mount`], once, by a caller that may block.
    pub fn mount_now(&self, share: &Share, source: IpAddr, owner: Owner) -> Result<NfsClient> {
        let endpoints = self.ceph().nfs_endpoints();
        let same_family = |e: &&SocketAddr| e.is_ipv4() == source.is_ipv4();
        let server = *endpoints
            .iter()
            .find(same_family)
            .context("no endpoint of that family")?;
        NfsClient::mount(self.ceph(), server, &path_of(share), source, owner)
    }

    /// A client of a share's export, from this address. IPv4 clients use the first Ganesha, IPv6 clients the second.
    pub async fn mount(&self, share: &Share, source: IpAddr, owner: Owner) -> Result<NfsClient> {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let mounted = tokio::task::block_in_place(|| self.mount_now(share, source, owner));
            match mounted {
                // EAGAIN: Ganesha is busy with its exports (NFS4ERR_DELAY), and clients are to ask again.
                Err(error) if errno(&error) == Some(11) && Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                answer => return answer,
            }
        }
    }

    /// The same, for a client whom a rule that has just been applied lets in: Ganesha needs a moment.
    pub async fn mount_soon(&self, share: &Share, source: IpAddr, owner: Owner) -> Result<NfsClient> {
        soon("to be let in", async || self.mount(share, source, owner).await).await
    }

    /// That a client of this address is not let in.
    pub async fn not_let_in(&self, share: &Share, source: IpAddr) -> Result<()> {
        match self.mount(share, source, Owner::ROOT).await {
            Ok(_) => bail!("{source} is let in"),
            Err(error) => match failure(&error) {
                Some(Failure::NotFound | Failure::Denied) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Mounts a directory of a CephFS share by ceph-fuse.
    pub fn mount_native(
        &self,
        share: &Share,
        identity: &str,
        key: &str,
        below: &str,
    ) -> Result<CephFsMount<'_>> {
        let status = share.status.as_ref().context("no status")?;
        let location = status.export_locations.first().context("no export location")?;
        let path = format!("{}{below}", location.metadata.subvolume_path);
        let filesystem = &location.metadata.fs_name;
        tokio::task::block_in_place(|| CephFsMount::mount(self.ceph(), identity, key, filesystem, &path))
    }

    // ---- Ceph and the objects compared

    /// Waits until Ceph holds exactly what the objects say, and they say that all is done.
    pub async fn until_consistent(&self) -> Result<()> {
        let mut last = Vec::new();
        let agreed = eventually(
            "Ceph to hold exactly what the objects say",
            PATIENCE,
            async || {
                last = self.differences().await?;
                Ok(last.is_empty().then_some(()))
            },
        )
        .await;
        agreed.map_err(|error| anyhow!("{error}:\n{}", last.join("\n")))
    }

    /// What differs between the objects and what Ceph holds; and objects that are not settled.
    pub async fn differences(&self) -> Result<Vec<String>> {
        let client = &self.world.client;
        let shares = Api::<Share>::all(client.clone())
            .list(&ListParams::default())
            .await?
            .items;
        let rules = Api::<ShareAccessRule>::all(client.clone())
            .list(&ListParams::default())
            .await?
            .items;
        let cluster = Api::<Namespace>::all(client.clone())
            .get("kube-system")
            .await?
            .uid()
            .unwrap_or_default();
        let cluster_id = self.ceph().nfs_cluster();

        let mut differences = Vec::new();
        let mut subvolumes = BTreeSet::new();
        for filesystem in self.ceph().filesystems() {
            let list = json!({"prefix": "fs subvolume ls", "vol_name": filesystem, "group_name": GROUP});
            let list = absent_is_none(self.admin.mgr(list))?.unwrap_or_default();
            subvolumes.extend(
                names(&list)
                    .into_iter()
                    .map(|name| (filesystem.to_string(), name)),
            );
        }
        let exports = self
            .admin
            .mgr(json!({"prefix": "nfs export ls", "cluster_id": cluster_id, "detailed": true}))?;
        let mut exports: BTreeMap<String, Value> = exports
            .as_array()
            .into_iter()
            .flatten()
            .map(|e| (e["pseudo"].as_str().unwrap_or_default().to_owned(), e.clone()))
            .collect();
        let entities = self.admin.mon(json!({"prefix": "auth ls"}))?;
        let mut entities: BTreeMap<String, Value> = entities["auth_dump"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|e| (e["entity"].as_str().unwrap_or_default().to_owned(), e.clone()))
            .collect();

        let deletions = Api::<ShareDeletion>::all(client.clone());
        for deletion in deletions.list(&ListParams::default()).await? {
            let (spec, phase) = (&deletion.spec, share_deletion::phase(&deletion));
            let name = Place::of(spec.handle.as_deref(), &spec.share_ref.uid).subvolume;
            if phase != Some(DeletionPhase::Retained) || !subvolumes.remove(&(spec.fs_name.clone(), name)) {
                differences.push(format!("ShareDeletion {}: {phase:?}", deletion.name_any()));
            }
        }
        for share in &shares {
            let name = format!(
                "Share {}/{}",
                share.namespace().unwrap_or_default(),
                share.name_any()
            );
            let mut differ = |what: String| differences.push(format!("{name}: {what}"));
            if !is_ready(share) {
                differ(format!(
                    "not Ready: {:?}",
                    share.status.as_ref().map(|s| &s.conditions)
                ));
                continue;
            }
            let status = share.status.as_ref().context("no status")?;
            let fs_name = status.fs_name.clone().unwrap_or_default();
            if !subvolumes.remove(&(fs_name.clone(), subvolume_of(share))) {
                differ("no subvolume".into());
                continue;
            }
            let info = self.subvolume(share)?.unwrap_or_default();
            let size = share.spec.size.bytes();
            if info["bytes_quota"].as_u64() != Some(size)
                || status.size.map(shoal_crds::Size::bytes) != Some(size)
            {
                differ(format!(
                    "asks for {size}, quota {}, status {:?}",
                    info["bytes_quota"], status.size
                ));
            }
            let root = status
                .capabilities
                .as_ref()
                .map(|c| &c.root)
                .context("no capabilities")?;
            let mode = info["mode"].as_i64().unwrap_or_default() & 0o7777;
            if info["uid"] != json!(root.uid)
                || info["gid"] != json!(root.gid)
                || mode != i64::from_str_radix(&root.mode, 8)?
            {
                differ(format!(
                    "root {root:?}, has {}:{} {mode:o}",
                    info["uid"], info["gid"]
                ));
            }
            let metadata: BTreeMap<String, String> = serde_json::from_value(self.metadata(share)?)?;
            let tag = metadata
                .get(Tag::METADATA_KEY)
                .and_then(|text| serde_json::from_str::<Tag>(text).ok());
            let owner = Tag {
                cluster: cluster.clone(),
                namespace: share.namespace().unwrap_or_default(),
                name: share.name_any(),
                uid: uid(share),
                left: None,
            };
            if tag.as_ref() != Some(&owner) || metadata.len() != 1 {
                differ(format!("metadata {metadata:?}"));
            }

            let mut access = Vec::new();
            for rule in rules.iter().filter(|rule| concerns(rule, share)) {
                let rule_name = rule.name_any();
                let Some(said) = rule.status.as_ref() else {
                    differ(format!("rule {rule_name} was told nothing"));
                    continue;
                };
                if rule.metadata.deletion_timestamp.is_some()
                    || said.observed_generation != rule.metadata.generation
                {
                    differ(format!("rule {rule_name} is not settled"));
                }
                if said.phase != Some(AccessPhase::Active) {
                    continue;
                }
                let text = match (&rule.spec.access_to, &rule.spec.access_to_secret_ref) {
                    (Some(text), _) => text.clone(),
                    (None, Some(reference)) => {
                        let namespace = rule.namespace().unwrap_or_default();
                        let secret = self.world.api::<Secret>(&namespace).get(&reference.name).await?;
                        let data = secret
                            .data
                            .unwrap_or_default()
                            .remove(&reference.key)
                            .unwrap_or_default();
                        String::from_utf8(data.0)?
                    }
                    (None, None) => said.identity.clone().unwrap_or_else(|| {
                        generated_identity(rule.metadata.uid.as_deref().unwrap_or_default())
                    }),
                };
                let client =
                    Client::parse(rule.spec.access_type, &text).map_err(|why| anyhow!("{text}: {why}"))?;
                let squash = match rule.spec.access_type {
                    AccessType::IP => rule
                        .spec
                        .squash
                        .or_else(|| status.capabilities.as_ref().map(|c| c.squash))
                        .unwrap_or_default(),
                    AccessType::CephX => Squash::None,
                };
                access.push(Grant {
                    client,
                    level: rule.spec.access_level,
                    squash,
                });
                if rule.spec.access_type == AccessType::CephX {
                    let namespace = rule.namespace().unwrap_or_default();
                    match self.credentials(&namespace, &rule_name).await {
                        Ok((identity, key)) => match entities.remove(&format!("client.{identity}")) {
                            Some(entity) if entity["key"] == json!(key) => {}
                            _ => differ(format!("rule {rule_name}: its Secret does not hold its key")),
                        },
                        Err(error) => differ(format!("rule {rule_name}: {error:#}")),
                    }
                }
            }
            grant::sort(&mut access);
            match share.spec.protocol {
                Protocol::NFS => {
                    let Some(export) = exports.remove(&path_of(share)) else {
                        differ("no export".into());
                        continue;
                    };
                    let path = info["path"].clone();
                    if export["path"] != path || export["fsal"]["fs_name"] != json!(fs_name) {
                        differ(format!(
                            "exported is {} of {}",
                            export["path"], export["fsal"]["fs_name"]
                        ));
                    }
                    let mut clients = export["clients"].clone();
                    for client in clients.as_array_mut().into_iter().flatten() {
                        // Of all fields those that decide who may do what.
                        client.as_object_mut().into_iter().for_each(|c| {
                            c.retain(|k, _| ["addresses", "access_type", "squash"].contains(&k.as_str()));
                        });
                    }
                    let wanted: Vec<Value> = access.iter().map(client_block).collect();
                    if clients != json!(wanted) || export["access_type"] != "none" {
                        differ(format!(
                            "{} clients {clients}, should be {wanted:?}",
                            export["access_type"]
                        ));
                    }
                }
                Protocol::CephFS => {
                    let wanted: BTreeMap<String, String> = access
                        .iter()
                        .map(|g| {
                            (
                                g.client.to_string(),
                                if g.level == AccessLevel::ReadOnly {
                                    "r"
                                } else {
                                    "rw"
                                }
                                .into(),
                            )
                        })
                        .collect();
                    let have = self.authorized(share)?;
                    if have != wanted {
                        differ(format!("let in are {have:?}, should be {wanted:?}"));
                    }
                }
            }
        }
        differences.extend(
            subvolumes
                .into_iter()
                .map(|(fs, name)| format!("{fs} holds {name}, which nobody owns")),
        );
        differences.extend(
            exports
                .into_keys()
                .map(|path| format!("{path} is exported for nobody")),
        );
        // Those the lab began with, and those that mgr/nfs makes for exports.
        let known = |name: &str| {
            [
                "client.admin",
                "client.shoal",
                "client.bootstrap-",
                "client.nfs.",
                "client.crash",
            ]
            .iter()
            .any(|known| name.starts_with(known) || *known == name)
                || !name.starts_with("client.")
        };
        differences.extend(
            entities
                .into_keys()
                .filter(|name| !known(name))
                .map(|name| format!("{name} has a key, and no rule has it")),
        );
        Ok(differences)
    }
}

/// Tries until it succeeds, for at most 20 s.
pub async fn soon<T>(what: &str, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() > until => return Err(error.context(format!("waited 20 s {what}"))),
            Err(_) => tokio::time::sleep(Duration::from_millis(30)).await,
        }
    }
}

/// Waits until what a client tries fails in this way.
pub async fn fails_soon(
    what: &str,
    wanted: &[Failure],
    mut attempt: impl FnMut() -> Result<()>,
) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let outcome = tokio::task::block_in_place(&mut attempt);
        match &outcome {
            Err(error) if failure(error).is_some_and(|f| wanted.contains(&f)) => return Ok(()),
            _ if Instant::now() > until => bail!("{what}: {wanted:?} was due, and it was {outcome:?}"),
            _ => tokio::time::sleep(Duration::from_millis(30)).await,
        }
    }
}

/// That what a client tries fails in this way, now.
pub fn expect_failure<T>(what: &str, wanted: Failure, outcome: Result<T>) -> Result<()> {
    match outcome {
        Ok(_) => bail!("{what}: {wanted:?} was due, and it succeeded"),
        Err(error) if failure(&error) == Some(wanted) => Ok(()),
        Err(error) => Err(error.context(format!("{what}: {wanted:?} was due"))),
    }
}

/// Whether a share is as its spec asks, with nothing left to do.
pub fn is_ready(share: &Share) -> bool {
    share.metadata.deletion_timestamp.is_none()
        && share
            .status
            .as_ref()
            .is_some_and(|s| s.observed_generation == share.metadata.generation)
        && condition(conditions(share), "Ready").is_some_and(|(status, _)| status == "True")
        && condition(conditions(share), "Reconciling").is_none()
}

/// The conditions of a share.
pub fn conditions(share: &Share) -> &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition] {
    share
        .status
        .as_ref()
        .map(|s| s.conditions.as_slice())
        .unwrap_or_default()
}

/// What a share's Ready says.
pub fn message(share: &Share) -> String {
    let mut conditions = conditions(share).iter();
    let ready = conditions.find(|c| c.type_ == "Ready");
    ready.map(|c| c.message.clone()).unwrap_or_default()
}

/// A share's uid.
pub fn uid(share: &Share) -> String {
    share.uid().unwrap_or_default()
}

/// The names in an answer of `ls`.
pub fn names(list: &Value) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["name"].as_str().map(str::to_owned))
        .collect()
}

/// A command on a share's subvolume.
pub fn at(share: &Share, prefix: &str) -> Value {
    let filesystem = share
        .status
        .as_ref()
        .and_then(|s| s.fs_name.clone())
        .unwrap_or_default();
    json!({
        "prefix": prefix, "vol_name": filesystem, "group_name": GROUP, "sub_name": subvolume_of(share),
    })
}

/// A rule for an address, as JSON.
pub fn ip_rule(share: &str, address: &str, level: &str) -> Value {
    json!({"shareRef": {"name": share}, "accessType": "IP", "accessTo": address, "accessLevel": level})
}

/// A rule for an identity, as JSON; one that Shoal makes if it is empty.
pub fn cephx_rule(share: &str, identity: &str, level: &str) -> Value {
    let mut rule = json!({"shareRef": {"name": share}, "accessType": "CephX", "accessLevel": level});
    if !identity.is_empty() {
        rule["accessTo"] = json!(identity);
    }
    rule
}

fn client_block(grant: &Grant) -> Value {
    json!({
        "addresses": [grant.client.to_string()],
        "access_type": if grant.level == AccessLevel::ReadOnly { "ro" } else { "rw" },
        "squash": match grant.squash {
            Squash::None => "none",
            Squash::Root => "root",
            Squash::All => "all",
        },
    })
}

fn concerns(rule: &ShareAccessRule, share: &Share) -> bool {
    rule.namespace() == share.namespace() && rule.spec.share_ref.name == share.name_any()
}

fn errno(error: &anyhow::Error) -> Option<i32> {
    error.downcast_ref::<ClientError>().and_then(|e| e.errno)
}

fn absent_is_none(answer: Result<Value>) -> Result<Option<Value>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if failure(&error) == Some(Failure::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
