//! A lab with Shoal installed in it, as a user would: what the suites, the demo and the benchmarks act in.

use std::{
    fmt::Debug,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::{
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
        core::v1::{Namespace, Secret, ServiceAccount},
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::GroupVersionKind,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shoal_crds::{EnsureStatus, ShareBackend, names::REQUESTED_AT};

use crate::lab::{
    Lab, LabOptions,
    process::{Launcher, Process, tail, wait_until},
};

/// Namespace that the operator lives in.
pub const SYSTEM_NAMESPACE: &str = "shoal-system";
/// The Secret with the operator's way to Ceph.
pub const CONNECTION_SECRET: &str = "ceph-connection";
/// How long anything is waited for, unless a test says otherwise.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// What the operator may do, and as whom. The chart's roles are made from this file and the next.
pub const ROLE: &str = include_str!("../../operator/role.yaml");
/// What people may do.
pub const USER_ROLES: &str = include_str!("../../crds/roles.yaml");

/// What operators log, if nothing else is asked for.
const LOG: &str =
    "--log=debug,kube_client=info,kube_runtime=info,hyper=info,hyper_util=info,rustls=info,tower=info";

/// A lab with Shoal's API, policies, role and backends.
pub struct World {
    /// The servers.
    pub lab: Lab,
    /// The admin's client.
    pub client: Client,
    names: AtomicU32,
    /// How far the audit log was searched for refusals.
    pub(crate) searched: AtomicU64,
    program: Option<PathBuf>,
}

impl AsRef<World> for World {
    fn as_ref(&self) -> &World {
        self
    }
}

impl World {
    /// Starts a lab and installs Shoal's API, policies and roles: CRDs first, until they are established, then policies.
    pub async fn start(options: &LabOptions) -> Result<Self> {
        let options = options.clone();
        let lab = tokio::task::spawn_blocking(move || Lab::start(&options)).await??;
        Self::install(lab).await
    }

    /// A lab without Shoal in it.
    pub async fn bare(lab: Lab) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(lab.control_plane()?.kubeconfig())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let client = Client::try_from(config)?;
        Ok(Self {
            lab,
            client,
            names: AtomicU32::new(0),
            searched: AtomicU64::new(0),
            program: None,
        })
    }

    /// Installs Shoal's API, policies and roles in a lab.
    pub async fn install(lab: Lab) -> Result<Self> {
        let world = Self::bare(lab).await?;
        for crd in shoal_crds::custom_resource_definitions() {
            world.apply(&serde_json::to_value(&crd)?).await?;
        }
        world.until_established().await?;
        if world.knows_mutating_policies().await? {
            for document in shoal_crds::policy::finalizer_policy()
                .into_iter()
                .chain(shoal_crds::policy::lock_owner_policy())
            {
                world.apply(&document).await?;
            }
        }
        for document in shoal_crds::policy::verb_policies()
            .into_iter()
            .chain(shoal_crds::policy::lock_policies())
            .chain(shoal_crds::policy::ensuring_policies())
        {
            world.apply(&document).await?;
        }
        world.apply_yaml(ROLE).await?;
        world.apply_yaml(USER_ROLES).await?;
        world.until_objects_are_taken().await?;
        Ok(world)
    }

    /// Waits until Shoal's kinds are served.
    pub async fn until_established(&self) -> Result<()> {
        for crd in shoal_crds::custom_resource_definitions() {
            let api: Api<
                k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
            > = Api::all(self.client.clone());
            let established = kube::runtime::wait::conditions::is_crd_established();
            let name = crd.name_any();
            let wait = kube::runtime::wait::await_condition(api, &name, established);
            tokio::time::timeout(PATIENCE, wait)
                .await
                .context("a CRD was not established in time")??;
        }
        Ok(())
    }

    /// A server that has just learned of kinds and policies refuses objects for a second or two (503: "can be a delay"),
    /// even where the policy says `failurePolicy: Ignore`.
    pub async fn until_objects_are_taken(&self) -> Result<()> {
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let size = shoal_crds::Size::from_bytes(1).context("a byte")?;
        let spec = shoal_crds::ShareSpec {
            share_type_name: None,
            protocol: shoal_crds::Protocol::NFS,
            size,
            mount_point_name: None,
            placement: None,
            source: None,
            deletion_policy: None,
            metadata: std::collections::BTreeMap::new(),
            export_location_metadata: Vec::new(),
        };
        let share = shoal_crds::Share::new("trial", spec);
        let shares: Api<shoal_crds::Share> = self.api("default");
        eventually("the API server to take a Share", PATIENCE, async || match shares
            .create(&dry_run, &share)
            .await
        {
            Ok(_) => Ok(Some(())),
            Err(kube::Error::Api(status)) if status.code == 503 => Ok(None),
            Err(error) => Err(error.into()),
        })
        .await
    }

    /// A client as this user, who has no rights but those given by name.
    pub async fn client_as(&self, user: &str) -> Result<Client> {
        let mut kubeconfig = Kubeconfig::read_from(self.lab.control_plane()?.kubeconfig())?;
        for info in &mut kubeconfig.auth_infos {
            if let Some(info) = &mut info.auth_info {
                info.impersonate = Some(user.to_owned());
            }
        }
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }

    /// Lets these users do this wherever they are. The authorizer hears of it a moment later.
    pub async fn grant(&self, role: &str, users: &[&str], rules: &Value) -> Result<()> {
        const GROUP: &str = "rbac.authorization.k8s.io";
        let subject = |user: &&str| json!({"apiGroup": GROUP, "kind": "User", "name": user});
        let subjects: Vec<_> = users.iter().map(subject).collect();
        let (version, metadata) = (format!("{GROUP}/v1"), json!({"name": role}));
        let documents = [
            json!({"apiVersion": version, "kind": "ClusterRole", "metadata": metadata, "rules": rules}),
            json!({
                "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": metadata, "subjects": subjects,
                "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
            }),
        ];
        for document in documents {
            self.apply(&document).await?;
        }
        Ok(())
    }

    /// Whether the authorizer lets a user do this.
    pub async fn may(&self, user: &str, asked: ResourceAttributes) -> Result<bool> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.into()),
                resource_attributes: Some(asked),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = self.cluster_api();
        let answer = reviews.create(&PostParams::default(), &review).await?;
        Ok(answer.status.context("no answer")?.allowed)
    }

    /// Waits until a ShareBackend has answered this request; the round that did.
    pub async fn until_ensured(&self, backend: &str, request: &str) -> Result<EnsureStatus> {
        let answered = until(
            &self.cluster_api(),
            backend,
            "answers",
            |backend: &ShareBackend| {
                let status = backend.status.as_ref();
                status.and_then(|s| s.last_handled_requested_at.as_deref()) == Some(request)
            },
        )
        .await?;
        let status = answered.status.context("no status")?;
        status.ensure.context("no round")
    }

    /// Whether the API server can put the finalizer on at birth (Kubernetes 1.36 and later).
    pub async fn knows_mutating_policies(&self) -> Result<bool> {
        let served = self
            .client
            .list_api_group_resources("admissionregistration.k8s.io/v1")
            .await?;
        Ok(served
            .resources
            .iter()
            .any(|r| r.name == "mutatingadmissionpolicies"))
    }

    /// Makes the ShareBackends of the lab's Ceph: `cephfs` and `second`, one a file system, both with NFS; and the
    /// ShareTypes `standard` (the default: shrinks, root 0:0 0755) and `team` (root 1000:1000 2770).
    pub async fn add_ceph_backends(&self) -> Result<()> {
        let ceph = self.lab.ceph()?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(CONNECTION_SECRET.into()),
                ..ObjectMeta::default()
            },
            string_data: Some(
                [
                    ("monHost", ceph.mon_host().to_owned()),
                    ("userID", ceph.user_id().to_owned()),
                    ("userKey", ceph.user_key().to_owned()),
                ]
                .map(|(k, v)| (k.to_owned(), v))
                .into(),
            ),
            ..Secret::default()
        };
        Api::<Secret>::namespaced(self.client.clone(), SYSTEM_NAMESPACE)
            .create(&PostParams::default(), &secret)
            .await?;
        let endpoints: Vec<String> = ceph.nfs_endpoints().iter().map(ToString::to_string).collect();
        for filesystem in ceph.filesystems() {
            self.apply(&json!({
                "apiVersion": "shoal.storage/v1alpha1",
                "kind": "ShareBackend",
                "metadata": {"name": filesystem},
                "spec": {"ceph": {
                    "connectionSecretRef": {"namespace": SYSTEM_NAMESPACE, "name": CONNECTION_SECRET},
                    "filesystem": filesystem,
                    "nfs": {"clusterID": ceph.nfs_cluster(), "endpoints": endpoints},
                }},
            }))
            .await?;
        }
        self.add_type("standard", json!({"shrink": true}), true).await?;
        let team = json!({"shrink": true, "root": {"uid": 1000, "gid": 1000, "mode": "2770"}});
        self.add_type("team", team, false).await
    }

    /// Makes a simulated ShareBackend.
    pub async fn add_simulated_backend_named(&self, name: &str) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "shoal.storage/v1alpha1",
            "kind": "ShareBackend",
            "metadata": {"name": name},
            "spec": {"simulated": {}},
        }))
        .await?;
        Ok(())
    }

    /// Makes the simulated ShareBackend `simulated`, and the default ShareType `standard`.
    pub async fn add_simulated_backend(&self) -> Result<()> {
        self.add_simulated_backend_named("simulated").await?;
        self.add_type("standard", json!({"shrink": true}), true).await
    }

    /// Makes a ShareType.
    pub async fn add_type(&self, name: &str, spec: Value, default: bool) -> Result<()> {
        let annotations = json!({"shoal.storage/is-default-share-type": default.to_string()});
        self.apply(&json!({
            "apiVersion": "shoal.storage/v1alpha1",
            "kind": "ShareType",
            "metadata": {"name": name, "annotations": annotations},
            "spec": spec,
        }))
        .await?;
        Ok(())
    }

    /// Makes a namespace of its own for a test.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        let name = format!("{prefix}-{}", self.names.fetch_add(1, Ordering::Relaxed));
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::<Namespace>::all(self.client.clone())
            .create(&PostParams::default(), &namespace)
            .await?;
        Ok(name)
    }

    /// The name of a document's object, and the API that has it.
    pub fn api_of(&self, document: &Value) -> kube::Result<(String, Api<DynamicObject>)> {
        let object: DynamicObject =
            serde_json::from_value(document.clone()).map_err(kube::Error::SerdeError)?;
        let types = object.types.clone().unwrap_or_default();
        let (group, version) = types
            .api_version
            .split_once('/')
            .unwrap_or(("", &types.api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
        let api: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), &namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        Ok((object.name_any(), api))
    }

    /// Applies one document, as `kubectl apply --server-side` does.
    pub async fn apply(&self, document: &Value) -> kube::Result<DynamicObject> {
        let (name, api) = self.api_of(document)?;
        let params = PatchParams::apply("test").force();
        api.patch(&name, &params, &Patch::Apply(document)).await
    }

    /// Applies every document of a YAML text.
    pub async fn apply_yaml(&self, text: &str) -> Result<()> {
        for document in serde_saphyr::from_multiple::<Value>(text)? {
            if !document.is_null() {
                self.apply(&document).await?;
            }
        }
        Ok(())
    }

    /// Makes a Share; `spec` as in the API.
    #[allow(clippy::needless_pass_by_value)] // As `json!` makes it.
    pub async fn share(&self, namespace: &str, name: &str, spec: Value) -> kube::Result<DynamicObject> {
        self.apply(&object("Share", namespace, name, &spec)).await
    }

    /// Makes a ShareAccessRule; `spec` as in the API.
    #[allow(clippy::needless_pass_by_value)] // As `json!` makes it.
    pub async fn rule(&self, namespace: &str, name: &str, spec: Value) -> kube::Result<DynamicObject> {
        self.apply(&object("ShareAccessRule", namespace, name, &spec))
            .await
    }

    /// Makes a Share that this version of Shoal can't understand, as one of another version might have it: its size is `1.5Gi`. The
    /// schema, which would refuse that, is relaxed for a moment.
    pub async fn share_of_another_version(&self, namespace: &str, name: &str) -> Result<DynamicObject> {
        let mut definitions = shoal_crds::custom_resource_definitions().into_iter();
        let ours = definitions.find(|crd| crd.spec.names.kind == "Share");
        let ours = serde_json::to_value(ours.context("no Share")?)?;
        let mut relaxed = ours.clone();
        relaxed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"] =
            json!({"x-kubernetes-preserve-unknown-fields": true});
        self.apply(&relaxed).await?;
        let made = eventually("the schema to be relaxed", PATIENCE, async || {
            let spec = json!({"protocol": "NFS", "size": "1.5Gi"});
            match self.share(namespace, name, spec).await {
                Ok(share) => Ok(Some(share)),
                Err(kube::Error::Api(status)) if status.code == 422 => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .await;
        self.apply(&ours).await?;
        made
    }

    /// The API of a namespaced kind.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The API of a cluster-scoped kind.
    pub fn cluster_api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>,
    {
        Api::all(self.client.clone())
    }

    /// Names the operator's program, in place of `SHOAL_OPERATOR`.
    pub fn use_operator(&mut self, program: PathBuf) {
        self.program = Some(program);
    }

    /// Starts an operator as the ServiceAccount of [`ROLE`], beside Ceph if the lab has one. The program is named by
    /// `SHOAL_OPERATOR`.
    pub async fn operator(&self, options: &OperatorOptions) -> Result<Operator> {
        let kubeconfig = self.operator_kubeconfig(options).await?;
        let program = self.program.clone().map_or_else(operator_program, Ok)?;
        Operator::start(&self.lab, options, &program, &kubeconfig)
    }

    async fn operator_kubeconfig(&self, options: &OperatorOptions) -> Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let request = TokenRequest {
            spec: TokenRequestSpec::default(),
            ..TokenRequest::default()
        };
        let issued = accounts
            .create_token_request("shoal", &PostParams::default(), &request)
            .await?;
        let token = issued.status.context("no token was issued")?.token;
        let path = self.lab.folder().join(format!("{}.kubeconfig", options.name));
        let control_plane = self.lab.control_plane()?;
        let port = options.api_port.unwrap_or(control_plane.port());
        control_plane.write_kubeconfig_by(&path, port, "shoal", &token)?;
        Ok(path)
    }
}

fn object(kind: &str, namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "shoal.storage/v1alpha1",
        "kind": kind,
        "metadata": {"namespace": namespace, "name": name},
        "spec": spec,
    })
}

/// How an operator is started.
#[derive(Clone, Debug)]
pub struct OperatorOptions {
    /// Its name in the Lease, and of its log.
    pub name: String,
    /// Flags of `shoal run` beside those that the lab sets.
    pub flags: Vec<String>,
    /// Named points at which it dies, as `FAILPOINTS` takes them; empty for none.
    pub failpoints: String,
    /// The port on 127.0.0.1 where it reaches the API server, if not the server's own.
    pub api_port: Option<u16>,
}

impl OperatorOptions {
    /// One that is quick to take over and to look for drift.
    pub fn quick(name: &str) -> Self {
        let flags = [
            "--lease-seconds=15",
            "--command-timeout-seconds=3",
            "--resync-seconds=2",
        ];
        Self {
            name: name.into(),
            flags: flags.map(str::to_owned).into(),
            failpoints: String::new(),
            api_port: None,
        }
    }

    /// The same, but for drift it looks by itself once in ten minutes: what it mends, somebody asked for.
    #[must_use]
    pub fn mending_on_request(mut self) -> Self {
        self.flags.retain(|flag| !flag.starts_with("--resync-seconds="));
        self.flags.push("--resync-seconds=600".into());
        self
    }
}

/// A running operator; killed when dropped.
#[derive(Debug)]
pub struct Operator {
    process: Process,
    log: PathBuf,
    _started: crate::lab::process::Started,
}

impl Operator {
    fn start(lab: &Lab, options: &OperatorOptions, program: &Path, kubeconfig: &Path) -> Result<Self> {
        let (program, kubeconfig, beside) = match lab.ceph() {
            Ok(ceph) => (
                ceph.path_inside(program)?,
                ceph.path_inside(kubeconfig)?,
                Some(ceph),
            ),
            Err(_) => (program.to_owned(), kubeconfig.to_owned(), None),
        };
        let mut words = vec![
            "env".to_owned(),
            format!("KUBECONFIG={}", kubeconfig.display()),
            format!("FAILPOINTS={}", options.failpoints),
            program.display().to_string(),
            "run".into(),
            format!("--identity={}", options.name),
            format!("--namespace={SYSTEM_NAMESPACE}"),
            "--listen=127.0.0.1:0".into(),
        ];
        if !options.flags.iter().any(|flag| flag.starts_with("--log=")) {
            words.push(LOG.into());
        }
        words.extend(options.flags.clone());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let command = if let Some(ceph) = beside {
            ceph.beside(&words)
        } else {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            command
        };
        let log = lab.folder().join(format!("{}.log", options.name));
        if log.exists() {
            // A restart under the same name keeps what the one before wrote: searches for leaked keys read it all.
            let kept = fs::read_dir(lab.folder())?.count();
            fs::rename(&log, lab.folder().join(format!("{}.{kept}.log", options.name)))?;
        }
        let started = Launcher::attached().start(&options.name, &command, &log, Stdio::null())?;
        Ok(Self {
            process: started.process.clone(),
            log,
            _started: started,
        })
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Everything it has logged, one JSON object a line.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("cannot read {}", self.log.display()))
    }

    /// Where it serves health and metrics.
    pub fn address(&self) -> Result<String> {
        let log = self.log()?;
        let mut lines = log.lines();
        let said = lines.find(|line| line.contains("health and metrics endpoints"));
        let line: Value = serde_json::from_str(said.context("not yet")?)?;
        let fields = line.get("fields").unwrap_or(&line);
        Ok(fields["address"].as_str().context("no address")?.to_owned())
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(&self) -> Result<()> {
        self.process.signal(rustix::process::Signal::TERM)?;
        self.wait_for_end()
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_end(&self) -> Result<()> {
        wait_until("the operator to end", PATIENCE, || Ok(!self.process.is_alive()))
            .with_context(|| format!("its log ends:\n{}", tail(&self.log)))
    }

    /// Waits until it leads and its controllers run.
    pub async fn wait_until_leading(&self) -> Result<()> {
        eventually("the operator to lead", PATIENCE, async || {
            if !self.process.is_alive() {
                bail!("the operator ended; its log ends:\n{}", tail(&self.log));
            }
            Ok(self.log()?.contains("controllers started").then_some(()))
        })
        .await
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.process.kill();
    }
}

/// The operator's program, built with the feature `failpoints`.
fn operator_program() -> Result<PathBuf> {
    let path = std::env::var_os("SHOAL_OPERATOR").map(PathBuf::from).context(
        "SHOAL_OPERATOR does not name the operator's program; run the suites by `cargo xtask test`, or build it with \
         `cargo build --profile lab -p shoal-operator --features failpoints` and name target/lab/shoal",
    )?;
    if !path.is_file() {
        bail!("SHOAL_OPERATOR names {}, which does not exist", path.display());
    }
    Ok(path)
}

/// Asks until there is an answer, or patience ends. An error ends it at once.
pub async fn eventually<T>(
    what: &str,
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let until = Instant::now() + patience;
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if Instant::now() > until {
            bail!("waited {} s for {what}", patience.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until an object is as wanted, and returns it.
pub async fn until<K>(api: &Api<K>, name: &str, what: &str, wanted: impl Fn(&K) -> bool) -> Result<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut last = None;
    let found = eventually(&format!("{name}: {what}"), PATIENCE, async || {
        let mut object = api.get_opt(name).await?;
        if let Some(object) = &mut object {
            // Pages of who wrote which field, which nobody asks for.
            object.managed_fields_mut().clear();
        }
        let fits = object.as_ref().is_some_and(&wanted);
        last = object;
        Ok(fits.then_some(()))
    })
    .await;
    match (found, last) {
        (Ok(()), Some(object)) => Ok(object),
        (found, last) => {
            found.with_context(|| format!("it is now {last:#?}"))?;
            bail!("{name} vanished")
        }
    }
}

/// Asks that what it is put on be verified.
pub fn requested_at(token: &str) -> Patch<Value> {
    Patch::Merge(json!({"metadata": {"annotations": {REQUESTED_AT: token}}}))
}

/// The request must be refused, as forbidden or as invalid, with all of these words.
pub fn refused<T: Debug>(answer: kube::Result<T>, words: &[&str]) -> Result<()> {
    refused_with(&[403, 422], answer, words)
}

/// The request must be forbidden, with all of these words.
pub fn forbidden<T: Debug>(answer: kube::Result<T>, words: &[&str]) -> Result<()> {
    refused_with(&[403], answer, words)
}

fn refused_with<T: Debug>(codes: &[u16], answer: kube::Result<T>, words: &[&str]) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if codes.contains(&status.code) => {
            for word in words {
                ensure!(
                    status.message.contains(word),
                    "{word:?} is not in: {}",
                    status.message
                );
            }
            Ok(())
        }
        other => bail!("not refused with {codes:?}, and must be ({words:?}): {other:?}"),
    }
}

/// Waits until an object is gone.
pub async fn until_gone<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut last = None;
    eventually(&format!("{name} to be gone"), PATIENCE, async || {
        last = api.get_opt(name).await?;
        Ok(last.is_none().then_some(()))
    })
    .await
    .with_context(|| format!("it is now {last:#?}"))
}

/// A condition's status and reason, if the condition is there.
pub fn condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<(&'a str, &'a str)> {
    conditions
        .iter()
        .find(|c| c.type_ == type_)
        .map(|c| (c.status.as_str(), c.reason.as_str()))
}
