//! A world with a simulated backend: what the suites without Ceph act in, and the comparison of what the backend holds with
//! what the objects say.

use std::{fmt::Debug, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{Namespace, Secret},
        events::v1::Event,
    },
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shoal_backend::simulated::{Cluster, HeldShare, Holdings};
use shoal_crds::{Protocol, Share, ShareAccessRule, ShareBackend, ShareDeletion, condition::reasons};
use shoal_domain::share_deletion;
use tokio::sync::{Mutex, MutexGuard};

pub use crate::audit::{Write, by_resource};
use crate::{
    bench::meter::Metrics,
    holdings::{self, Altered, Objects, is_active, names_it, path_of, subvolume_of},
    lab::{KubernetesRelease, LabOptions},
    world::{
        Operator, OperatorOptions, PATIENCE, SYSTEM_NAMESPACE, World, condition, eventually, until,
        until_gone,
    },
};

/// Name of the world's simulated backend, and of its file system.
pub const BACKEND: &str = "simulated";

/// A world with a simulated backend, whose state outlives the operator.
pub struct SimulatedStorage {
    /// Servers and objects.
    pub world: World,
    operator: Mutex<Option<Operator>>,
    alone: Mutex<()>,
}

impl AsRef<World> for SimulatedStorage {
    fn as_ref(&self) -> &World {
        &self.world
    }
}

impl SimulatedStorage {
    /// A control plane with Shoal, the backend [`BACKEND`], the default type `standard`, and an operator that leads.
    pub async fn start(release: KubernetesRelease) -> Result<Self> {
        let storage = Self::without_operator(release).await?;
        storage.start_operator("").await?;
        storage.until_backend(BACKEND, "True", reasons::AVAILABLE).await?;
        Ok(storage)
    }

    /// The same without an operator.
    pub async fn without_operator(release: KubernetesRelease) -> Result<Self> {
        let options = LabOptions {
            ceph: None,
            kubernetes: Some(release),
            ..LabOptions::default()
        };
        let world = World::start(&options).await?;
        fs::create_dir(world.lab.folder().join("state"))?;
        world.add_simulated_backend().await?;
        // Other backends come and go in some scenarios; these shares are not to land there.
        let standard = json!({"shrink": true, "backendNames": [BACKEND]});
        world.add_type("standard", standard, true).await?;
        Ok(Self {
            world,
            operator: Mutex::default(),
            alone: Mutex::default(),
        })
    }

    /// For a scenario that stops the operator or changes what all shares rest on: no other of its kind runs meanwhile.
    pub async fn alone(&self) -> MutexGuard<'_, ()> {
        self.alone.lock().await
    }

    fn state(&self) -> PathBuf {
        self.world.lab.folder().join("state")
    }

    /// How an operator of this world is started.
    pub fn operator_options(&self, name: &str) -> OperatorOptions {
        let mut options = OperatorOptions::quick(name);
        options
            .flags
            .push(format!("--simulated-state={}", self.state().display()));
        options
    }

    /// Starts an operator, and waits until it leads, unless it is to die. Always under one name, so that it need not wait
    /// for the Lease of one that was killed.
    pub async fn start_operator(&self, failpoints: &str) -> Result<()> {
        let options = OperatorOptions {
            failpoints: failpoints.into(),
            ..self.operator_options("operator")
        };
        self.start_operator_with(&options).await
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

    /// Ends the operator by force.
    pub async fn kill_operator(&self) -> Result<()> {
        match self.operator.lock().await.take() {
            Some(operator) => operator.kill(),
            None => Ok(()),
        }
    }

    /// Asks the operator to end, and waits until it has.
    pub async fn end_operator(&self) -> Result<()> {
        match self.operator.lock().await.take() {
            Some(operator) => operator.terminate(),
            None => Ok(()),
        }
    }

    /// Waits until a failpoint has ended the operator.
    pub async fn until_operator_died(&self) -> Result<()> {
        let operator = self.operator.lock().await;
        operator.as_ref().context("no operator runs")?.wait_for_end()
    }

    /// Everything the operator that runs has logged.
    pub async fn log(&self) -> Result<String> {
        self.operator
            .lock()
            .await
            .as_ref()
            .context("no operator runs")?
            .log()
    }

    /// Where the operator that runs serves its metrics.
    pub async fn metrics_address(&self) -> Result<String> {
        let operator = self.operator.lock().await;
        operator.as_ref().context("no operator runs")?.address()
    }

    /// The metrics of the operator that runs.
    pub async fn metrics(&self) -> Result<String> {
        let operator = self.operator.lock().await;
        let metrics = Metrics::read(operator.as_ref().context("no operator runs")?).await?;
        Ok(metrics.text().to_owned())
    }

    // ---- objects

    /// Makes a Share of 1Gi and waits until it is Ready.
    pub async fn ready_share(&self, namespace: &str, name: &str, protocol: Protocol) -> Result<Share> {
        self.world.share(namespace, name, share_spec(protocol)).await?;
        self.until_share(namespace, name, "True", reasons::AVAILABLE)
            .await
    }

    /// The same with a rule that names it, and waits until that is in force.
    pub async fn share_let_in(
        &self,
        namespace: &str,
        name: &str,
        protocol: Protocol,
        rule: &str,
        spec: Value,
    ) -> Result<Share> {
        let share = self.ready_share(namespace, name, protocol).await?;
        self.world.rule(namespace, rule, spec).await?;
        self.until_rule(namespace, rule, "True", reasons::ACTIVE).await?;
        Ok(share)
    }

    /// Waits until a share's Ready condition is as wanted and answers its spec; if True, until nothing is left to do too,
    /// for a share stays Ready while what it is asked waits.
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
            |share: &Share| {
                share.status.as_ref().is_some_and(|s| {
                    condition(&s.conditions, "Ready") == Some((status, reason))
                        && s.observed_generation == share.metadata.generation
                        && (status != "True" || condition(&s.conditions, "Reconciling").is_none())
                })
            },
        )
        .await
    }

    /// Waits until a rule's Ready condition is as wanted and answers its spec.
    pub async fn until_rule(
        &self,
        namespace: &str,
        name: &str,
        status: &str,
        reason: &str,
    ) -> Result<ShareAccessRule> {
        let api = self.world.api::<ShareAccessRule>(namespace);
        until(
            &api,
            name,
            &format!("Ready {status} {reason}"),
            |rule: &ShareAccessRule| {
                rule.status.as_ref().is_some_and(|s| {
                    condition(&s.conditions, "Ready") == Some((status, reason))
                        && s.observed_generation == rule.metadata.generation
                })
            },
        )
        .await
    }

    /// Waits until a backend's Ready condition is as wanted.
    pub async fn until_backend(&self, name: &str, status: &str, reason: &str) -> Result<ShareBackend> {
        let api = self.world.cluster_api::<ShareBackend>();
        until(
            &api,
            name,
            &format!("Ready {status} {reason}"),
            |backend: &ShareBackend| {
                let conditions = backend.status.as_ref().map_or(&[][..], |s| &s.conditions);
                condition(conditions, "Ready") == Some((status, reason))
            },
        )
        .await
    }

    /// Makes or changes a Share whatever its size says, even what the operator can't understand.
    pub async fn share_of_any_size(&self, namespace: &str, name: &str, spec: Value) -> Result<DynamicObject> {
        let mut crds = shoal_crds::custom_resource_definitions().into_iter();
        let crd = crds.find(|crd| crd.spec.names.kind == "Share");
        let crd = serde_json::to_value(crd.context("no such kind")?)?;
        let mut relaxed = crd.clone();
        relaxed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"] =
            json!({"x-kubernetes-preserve-unknown-fields": true});
        self.world.apply(&relaxed).await?;
        let made = eventually("the schema to be relaxed", PATIENCE, async || {
            match self.world.share(namespace, name, spec.clone()).await {
                Ok(share) => Ok(Some(share)),
                Err(kube::Error::Api(status)) if status.code == 422 => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .await;
        self.world.apply(&crd).await?;
        made
    }

    /// Changes a share's spec.
    pub async fn change_share(&self, namespace: &str, name: &str, spec: Value) -> kube::Result<Share> {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.world
            .api::<Share>(namespace)
            .patch(name, &PatchParams::default(), &patch)
            .await
    }

    /// Changes a rule's spec.
    pub async fn change_rule(
        &self,
        namespace: &str,
        name: &str,
        spec: Value,
    ) -> kube::Result<ShareAccessRule> {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.world
            .api::<ShareAccessRule>(namespace)
            .patch(name, &PatchParams::default(), &patch)
            .await
    }

    /// Asks for a share's deletion.
    pub async fn delete_share(&self, namespace: &str, name: &str) -> Result<()> {
        self.world
            .api::<Share>(namespace)
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Asks for a rule's deletion.
    pub async fn delete_rule(&self, namespace: &str, name: &str) -> Result<()> {
        self.world
            .api::<ShareAccessRule>(namespace)
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Deletes every share and rule of a namespace, and waits until they are gone, and nothing is left of them.
    pub async fn clear(&self, namespace: &str) -> Result<()> {
        let (shares, rules) = (
            self.world.api::<Share>(namespace),
            self.world.api::<ShareAccessRule>(namespace),
        );
        rules
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await?;
        shares
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await?;
        eventually(
            &format!("namespace {namespace} to be empty"),
            PATIENCE,
            async || {
                let left = shares.list(&ListParams::default()).await?.items.len()
                    + rules.list(&ListParams::default()).await?.items.len()
                    + self.deletions(Some(namespace)).await?.len();
                Ok((left == 0).then_some(()))
            },
        )
        .await
    }

    /// Waits until a share is gone.
    pub async fn until_share_gone(&self, namespace: &str, name: &str) -> Result<()> {
        until_gone(&self.world.api::<Share>(namespace), name).await
    }

    /// Waits until a rule is gone.
    pub async fn until_rule_gone(&self, namespace: &str, name: &str) -> Result<()> {
        until_gone(&self.world.api::<ShareAccessRule>(namespace), name).await
    }

    /// Waits for an event with this reason about an object, and returns its note.
    pub async fn until_event(&self, namespace: &str, about: &str, reason: &str) -> Result<String> {
        let events: Api<Event> = Api::namespaced(self.world.client.clone(), namespace);
        eventually(
            &format!("an event {reason} about {about}"),
            PATIENCE,
            async || {
                let list = events.list(&ListParams::default()).await?;
                Ok(list.items.into_iter().find_map(|event| {
                    let regarding = event.regarding?.name?;
                    (regarding == about && event.reason.as_deref() == Some(reason))
                        .then(|| event.note.unwrap_or_default())
                }))
            },
        )
        .await
    }

    /// A Secret, if it is there.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>> {
        Ok(Api::<Secret>::namespaced(self.world.client.clone(), namespace)
            .get_opt(name)
            .await?)
    }

    // ---- the backend

    /// What a simulated backend keeps. Only once it has answered.
    pub async fn cluster(&self, backend: &str) -> Result<Cluster> {
        let uid = self
            .world
            .cluster_api::<ShareBackend>()
            .get(backend)
            .await?
            .uid()
            .unwrap_or_default();
        let file = self.state().join(format!("{backend}-{uid}.json"));
        ensure!(file.is_file(), "{} is not there", file.display());
        Ok(Cluster::with_state_file(&file, 0)?)
    }

    /// Gives [`BACKEND`] what that of another world holds, as if both were one storage. Before it is asked here.
    pub async fn take_over(&self, other: &Self) -> Result<()> {
        let file = async |s: &Self| -> Result<PathBuf> {
            let backends = s.world.cluster_api::<ShareBackend>();
            let uid = backends.get(BACKEND).await?.uid().unwrap_or_default();
            Ok(s.state().join(format!("{BACKEND}-{uid}.json")))
        };
        fs::copy(file(other).await?, file(self).await?)?;
        Ok(())
    }

    /// What [`BACKEND`] holds.
    pub async fn holdings(&self) -> Result<Holdings> {
        Ok(self.cluster(BACKEND).await?.snapshot()?)
    }

    /// What [`BACKEND`] holds for a share.
    pub async fn held(&self, share: &Share) -> Result<Option<HeldShare>> {
        Ok(self
            .holdings()
            .await?
            .share(BACKEND, &subvolume_of(share), &path_of(share)))
    }

    /// Says how long each command of [`BACKEND`] takes. An operator that runs may not have heard of it yet.
    pub async fn set_latency(&self, milliseconds: u32) -> Result<()> {
        let document = json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareBackend", "metadata": {"name": BACKEND},
            "spec": {"simulated": {"latencyMilliseconds": milliseconds}},
        });
        self.world.apply(&document).await?;
        Ok(())
    }

    /// Waits until the operator has heard of the last change of [`BACKEND`].
    pub async fn until_backend_is_current(&self) -> Result<()> {
        let api = self.world.cluster_api::<ShareBackend>();
        until(&api, BACKEND, "answers its spec", |backend: &ShareBackend| {
            let answered = backend.status.as_ref().and_then(|s| s.observed_generation);
            answered == backend.metadata.generation
        })
        .await?;
        Ok(())
    }

    /// Nothing is left of a share that was on [`BACKEND`], once its ShareDeletion, if there is one, is gone: no subvolume and
    /// no export.
    pub async fn check_gone(&self, share: &Share) -> Result<()> {
        let uid = share.uid().unwrap_or_default();
        let deletions = self.world.cluster_api::<ShareDeletion>();
        until_gone(&deletions, &share_deletion::name(&uid)).await?;
        let holdings = self.holdings().await?;
        ensure!(
            holdings
                .share(BACKEND, &subvolume_of(share), &path_of(share))
                .is_none(),
            "Share {} is gone and its subvolume is not",
            share.name_any()
        );
        ensure!(
            !holdings.exports.contains_key(&path_of(share)),
            "Share {} is gone and its export is not",
            share.name_any()
        );
        Ok(())
    }

    /// The clients that are let in to a share, as `<client> <level>`.
    pub async fn let_in(&self, share: &Share) -> Result<Vec<String>> {
        let held = self
            .held(share)
            .await?
            .with_context(|| format!("nothing is held for {}", share.name_any()))?;
        Ok(held
            .access
            .iter()
            .map(|g| format!("{} {:?}", g.client, g.level))
            .collect())
    }

    /// Waits until every share and rule is as its spec asks or says why not, and nothing is being deleted. Of one namespace,
    /// or of all.
    pub async fn until_settled(&self, namespace: Option<&str>) -> Result<()> {
        let mut why = None;
        eventually("everything to settle", PATIENCE, async || {
            why = self.unsettled(namespace).await?;
            Ok(why.is_none().then_some(()))
        })
        .await
        .with_context(|| format!("the last thing in the way: {}", why.unwrap_or_default()))
    }

    /// Something that is not settled, if there is anything.
    pub async fn unsettled(&self, namespace: Option<&str>) -> Result<Option<String>> {
        let (shares, rules) = (self.list(namespace).await?, self.list(namespace).await?);
        let deletions = self.deletions(namespace).await?;
        let left = deletions
            .iter()
            .find(|left| !holdings::deletion_is_settled(left, &shares));
        let left = left.map(|left| format!("ShareDeletion {left:#?}"));
        Ok(left.or_else(|| holdings::unsettled(&shares, &rules)))
    }

    /// The objects of one namespace, or of all.
    async fn list<K>(&self, namespace: Option<&str>) -> Result<Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let client = self.world.client.clone();
        let api = namespace.map_or_else(
            || Api::<K>::all(client.clone()),
            |n| Api::namespaced(client.clone(), n),
        );
        Ok(api.list(&ListParams::default()).await?.items)
    }

    /// What is left of shares of one namespace, or of all.
    pub async fn deletions(&self, namespace: Option<&str>) -> Result<Vec<ShareDeletion>> {
        let api = Api::<ShareDeletion>::all(self.world.client.clone());
        let mut found = api.list(&ListParams::default()).await?.items;
        found.retain(|deletion| namespace.is_none_or(|name| deletion.spec.share_ref.namespace == name));
        Ok(found)
    }

    /// Compares what [`BACKEND`] holds with what the objects say, of one namespace or of all. For objects that are settled,
    /// and rules that are all good.
    pub async fn check_holdings(&self, namespace: Option<&str>) -> Result<()> {
        let namespaces = Api::<Namespace>::all(self.world.client.clone())
            .list(&ListParams::default())
            .await?
            .items;
        let mut objects = Objects {
            namespace: namespace.map(str::to_owned),
            shares: self.list(namespace).await?,
            deletions: self.deletions(namespace).await?,
            rules: self.list(namespace).await?,
            secrets: self.list(namespace).await?,
            namespaces: namespaces
                .iter()
                .filter_map(|n| Some((n.name_any(), n.uid()?)))
                .collect(),
        };
        if namespace.is_some() {
            objects
                .secrets
                .extend(self.list::<Secret>(Some(SYSTEM_NAMESPACE)).await?);
        }
        objects
            .deletions
            .retain(|deletion| deletion.spec.backend_name == BACKEND);
        objects.shares.retain(|share| {
            let status = share.status.as_ref();
            status.and_then(|s| s.backend_name.as_deref()) == Some(BACKEND)
        });
        let of_one = |rule: &ShareAccessRule| objects.shares.iter().any(|share| names_it(rule, share));
        if let Some(rule) = objects.rules.iter().find(|r| of_one(r) && !is_active(r)) {
            bail!("rule {} is not in force: {:#?}", rule.name_any(), rule.status);
        }
        objects.check(&self.cluster(BACKEND).await?, &Altered::default())
    }

    // ---- the audit log

    /// [`World::audit_mark`].
    pub fn audit_mark(&self) -> Result<u64> {
        self.world.audit_mark()
    }

    /// [`World::writes_since`].
    pub async fn writes_since(&self, mark: u64) -> Result<Vec<Write>> {
        self.world.writes_since(mark).await
    }
}

/// A Share's spec: 1Gi of the default type.
pub fn share_spec(protocol: Protocol) -> Value {
    json!({"protocol": protocol, "size": "1Gi"})
}

/// The spec of an IP rule.
pub fn ip_rule(share: &str, to: &str, level: &str) -> Value {
    json!({"shareRef": {"name": share}, "accessType": "IP", "accessTo": to, "accessLevel": level})
}

/// The spec of a CephX rule; without an identity, Shoal makes one.
pub fn cephx_rule(share: &str, to: Option<&str>, level: &str) -> Value {
    let mut spec = json!({"shareRef": {"name": share}, "accessType": "CephX", "accessLevel": level});
    if let Some(to) = to {
        spec["accessTo"] = to.into();
    }
    spec
}

/// A condition's message, if the condition is there.
pub fn message<'a>(
    conditions: &'a [k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    type_: &str,
) -> Option<&'a str> {
    conditions
        .iter()
        .find(|c| c.type_ == type_)
        .map(|c| c.message.as_str())
}

/// How long quiet is watched for.
pub const QUIET: Duration = Duration::from_secs(4);

impl SimulatedStorage {
    /// Watches a namespace for a while: operators must write nothing there.
    pub async fn check_quiet(&self, namespace: &str) -> Result<()> {
        let mark = self.audit_mark()?;
        tokio::time::sleep(QUIET).await;
        let mut writes = self.writes_since(mark).await?;
        writes.retain(|write| write.namespace == namespace);
        ensure!(writes.is_empty(), "written while nothing changed: {writes:#?}");
        Ok(())
    }
}
