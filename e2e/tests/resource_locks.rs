//! Locks on a real API server, with its namespace controller and garbage collector: who may make and take away which, what they
//! hold, and that they do so whatever slips past admission.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::{
    fmt::Debug,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{
    api::{
        admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        core::v1::{ConfigMap, Namespace, Secret},
        events::v1::Event,
        rbac::v1::{Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shoal_crds::{
    AccessPhase, LockPhase, LockReference, Protocol, ResourceLock, Share, ShareAccessRule,
    names::{LOCKED_BY, cephx_secret, labels},
};
use shoal_domain::grant::Key;
use shoal_e2e::{
    holdings::{secret_text, subvolume_of},
    lab::KubernetesRelease,
    simulated_storage::{BACKEND, SimulatedStorage, cephx_rule, ip_rule, message, share_spec},
    storage::scale,
    suite::Suite,
    world::{PATIENCE, SYSTEM_NAMESPACE, condition, eventually, refused, until, until_gone},
};

static WITH_OPERATOR: Suite<SimulatedStorage> = Suite::new();
static NEWER: Suite<SimulatedStorage> = Suite::new();
static OLDER: Suite<SimulatedStorage> = Suite::new();

/// How often a lock is made while another goes, unless `SHOAL_E2E_SWAPS` says otherwise.
const SWAPS: u32 = 100;
/// How many locks are in the namespace where the cost of a deletion is measured, unless `SHOAL_E2E_LOCKS` says otherwise.
const LOCKS: u32 = 500;

const OWNER: &str = "alice";
const ANOTHER: &str = "bob";
const ADMIN: &str = "carol";
/// May make locks, and can't read Secrets.
const STRANGER: &str = "mallory";
const NAMESPACE_CONTROLLER: &str = "system:serviceaccount:kube-system:namespace-controller";
const GARBAGE_COLLECTOR: &str = "system:serviceaccount:kube-system:generic-garbage-collector";

fn run<S: Future<Output = Result<()>>>(scenario: impl FnOnce(&'static SimulatedStorage) -> S) {
    WITH_OPERATOR.run(|| SimulatedStorage::start(KubernetesRelease::V1_37), scenario);
}

fn lock(namespace: &str, name: &str, target: (&str, &str), owner: &str) -> Value {
    json!({
        "apiVersion": "shoal.storage/v1alpha1",
        "kind": "ResourceLock",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"resourceRef": {"kind": target.0, "name": target.1}, "owner": owner, "reason": "payroll"},
    })
}

fn api<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace)
}

/// As it is written, also where no lock can be so.
async fn create(client: &Client, document: &Value, dry_run: bool) -> Result<kube::Result<DynamicObject>> {
    let lock: DynamicObject = serde_json::from_value(document.clone())?;
    let params = PostParams {
        dry_run,
        ..PostParams::default()
    };
    Ok(dynamic(client, &lock.namespace().unwrap())
        .create(&params, &lock)
        .await)
}

fn dynamic(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(
        client.clone(),
        namespace,
        &ApiResource::erase::<ResourceLock>(&()),
    )
}

/// Users who may do everything that RBAC can allow, but for the verbs of Shoal's own; an admin has `override` too.
async fn users(s: &SimulatedStorage) -> Result<()> {
    let all = json!([
        {"apiGroups": ["shoal.storage"], "resources": ["shares", "shareaccessrules", "resourcelocks"],
         "verbs": ["get", "list", "create", "update", "patch", "delete", "deletecollection"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "delete"]},
        {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["get", "delete"]},
    ]);
    let override_ =
        json!([{"apiGroups": ["shoal.storage"], "resources": ["resourcelocks"], "verbs": ["override"]}]);
    let everybody = [
        OWNER,
        ANOTHER,
        ADMIN,
        STRANGER,
        NAMESPACE_CONTROLLER,
        GARBAGE_COLLECTOR,
    ];
    s.world.grant("does-everything", &everybody, &all).await?;
    s.world.grant("overrides", &[ADMIN], &override_).await?;
    // The authorizer hears of roles a moment later.
    let admin = s.world.client_as(ADMIN).await?;
    eventually("the roles to be known", PATIENCE, async || {
        let other = lock("default", "tried", ("Share", "x"), "somebody");
        Ok(create(&admin, &other, true).await?.is_ok().then_some(()))
    })
    .await
}

/// The policy that denied a request; none: it was allowed.
fn denied_by<T: Debug>(answer: kube::Result<T>) -> Result<Option<String>> {
    match answer {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            let policy = status.message.split("ValidatingAdmissionPolicy '").nth(1);
            let name = policy.and_then(|rest| rest.split(".shoal.storage'").next());
            Ok(Some(
                name.with_context(|| format!("not denied by a policy: {}", status.message))?
                    .to_owned(),
            ))
        }
        Err(error) => Err(error.into()),
    }
}

// ---- who may what

/// What is tried, each as a dry run.
const COLUMNS: [&str; 11] = [
    "lock",
    "lock as other",
    "lock as Admin",
    "edit lock",
    "unlock",
    "unlock all",
    "delete",
    "delete all",
    "force",
    "namespace",
    "CRD",
];

async fn row(client: &Client, user: &str, ns: &str) -> Result<Vec<Option<String>>> {
    let dry = DeleteParams {
        dry_run: true,
        ..DeleteParams::default()
    };
    let force = DeleteParams {
        grace_period_seconds: Some(0),
        ..dry.clone()
    };
    let patch = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let (locks, shares) = (api::<ResourceLock>(client, ns), api::<Share>(client, ns));
    let mut as_admin = lock(ns, "more", ("Share", "data"), user);
    as_admin["spec"]["context"] = "Admin".into();
    let reason = Patch::Merge(json!({"spec": {"reason": "audit"}}));
    let all = ListParams::default();
    let crds = Api::<CustomResourceDefinition>::all(client.clone());
    let namespaces = Api::<Namespace>::all(client.clone());
    Ok(vec![
        denied_by(create(client, &lock(ns, "more", ("Share", "data"), user), true).await?)?,
        denied_by(create(client, &lock(ns, "more", ("Share", "data"), "dave"), true).await?)?,
        denied_by(create(client, &as_admin, true).await?)?,
        denied_by(locks.patch("keep", &patch, &reason).await)?,
        denied_by(locks.delete("keep", &dry).await.map(drop))?,
        denied_by(locks.delete_collection(&dry, &all).await.map(drop))?,
        denied_by(shares.delete("data", &dry).await.map(drop))?,
        denied_by(shares.delete_collection(&dry, &all).await.map(drop))?,
        denied_by(shares.delete("data", &force).await.map(drop))?,
        denied_by(namespaces.delete(ns, &dry).await.map(drop))?,
        denied_by(crds.delete("shares.shoal.storage", &dry).await.map(drop))?,
    ])
}

async fn lock_matrix(s: &'static SimulatedStorage) -> Result<()> {
    users(s).await?;
    let ns = s.world.namespace("matrix").await?;
    let share = s.world.share(&ns, "data", share_spec(Protocol::NFS)).await?;
    let owner = s.world.client_as(OWNER).await?;
    create(&owner, &lock(&ns, "keep", ("Share", "data"), OWNER), false).await??;
    until_denied(&s.world.api::<Share>(&ns), "data").await?;

    let own = "lock-owners";
    // By user: make one's own, make another's, as an admin, edit, take away, take all away.
    let rows: [(&str, [Option<&str>; 6]); 6] = [
        (OWNER, [None, Some(own), Some(own), None, None, None]),
        (
            ANOTHER,
            [None, Some(own), Some(own), Some(own), Some(own), Some(own)],
        ),
        (ADMIN, [None; 6]),
        ("admin", [None; 6]),
        (
            NAMESPACE_CONTROLLER,
            [None, Some(own), Some(own), Some(own), Some(own), Some(own)],
        ),
        (
            GARBAGE_COLLECTOR,
            [None, Some(own), Some(own), Some(own), Some(own), Some(own)],
        ),
    ];
    for (state, by) in [("new", "new-locks"), ("enforced", "locked")] {
        if state == "enforced" {
            mark(s, &ns, &share.uid().unwrap()).await?;
        }
        println!("{state:<10} {}", COLUMNS.map(|c| format!("{c:<18}")).concat());
        for (user, of_locks) in &rows {
            let client = match *user {
                "admin" => s.world.client.clone(),
                user => s.world.client_as(user).await?,
            };
            let got = row(&client, user, &ns)
                .await
                .with_context(|| format!("{user}, {state}"))?;
            let short = user.rsplit(':').next().unwrap_or(user);
            let cells = got
                .iter()
                .map(|cell| format!("{:<18}", cell.as_deref().unwrap_or("yes")));
            println!("{:<10.10} {}", short, cells.collect::<String>());
            let of_targets = [by, by, by, "locked-namespaces", "definitions"].map(Some);
            let wanted: Vec<_> = of_locks.iter().copied().chain(of_targets).collect();
            let got: Vec<_> = got.iter().map(Option::as_deref).collect();
            ensure!(got == wanted, "{user}, {state}:\n{got:?}, not\n{wanted:?}");
        }
    }
    // What was restored from a backup is its old owner's again, and not who restored it's.
    let admin = s.world.client_as(ADMIN).await?;
    create(&admin, &lock(&ns, "restored", ("Share", "data"), OWNER), false).await??;
    let locks: Api<ResourceLock> = api(&owner, &ns);
    for name in ["restored", "keep"] {
        locks.delete(name, &DeleteParams::default()).await?;
    }
    Ok(())
}

/// Marks share and lock as an operator does.
async fn mark(s: &SimulatedStorage, ns: &str, uid: &str) -> Result<()> {
    let mark = json!({"metadata": {
        "labels": {labels::LOCKED: "x"}, "annotations": {LOCKED_BY: "ResourceLock 'keep' (payroll)"},
    }});
    let patch = PatchParams::default();
    s.world
        .api::<Share>(ns)
        .patch("data", &patch, &Patch::Merge(mark))
        .await?;
    let enforced = json!({"metadata": {"labels": {labels::ENFORCED: uid}}});
    let locks = s.world.api::<ResourceLock>(ns);
    locks.patch("keep", &patch, &Patch::Merge(enforced)).await?;
    eventually("the mark to be what denies", PATIENCE, async || {
        let dry = DeleteParams {
            dry_run: true,
            ..DeleteParams::default()
        };
        let answer = s.world.api::<Share>(ns).delete("data", &dry).await;
        Ok((denied_by(answer.map(drop))?.as_deref() == Some("locked")).then_some(()))
    })
    .await
}

/// Waits until a deletion is denied: the API server hears of a new lock a few milliseconds later.
async fn until_denied<K>(objects: &Api<K>, name: &str) -> Result<()>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let dry = DeleteParams {
        dry_run: true,
        ..DeleteParams::default()
    };
    eventually(
        &format!("the deletion of {name} to be denied"),
        PATIENCE,
        async || Ok(denied_by(objects.delete(name, &dry).await.map(drop))?.map(drop)),
    )
    .await
}

async fn bad_input(s: &'static SimulatedStorage) -> Result<()> {
    users(s).await?;
    let ns = s.world.namespace("input").await?;
    let owner = s.world.client_as(OWNER).await?;
    let cases: [(Value, &[&str]); 6] = [
        (
            json!({"action": "Show"}),
            &[
                "spec.action",
                "Show is for a ShareAccessRule",
                "a Share has no key",
            ],
        ),
        (
            json!({"action": "Look"}),
            &["spec.action", "\"Look\"", "\"Delete\""],
        ),
        (
            json!({"resourceRef": {"kind": "ShareSnapshot", "name": "data"}}),
            &["spec.resourceRef.kind", "ShareSnapshot", "\"ShareAccessRule\""],
        ),
        (
            json!({"owner": "dave"}),
            &[
                "spec.owner: dave is not who creates the lock",
                "write alice",
                "verb override",
            ],
        ),
        (
            json!({"context": "Service"}),
            &["spec.context: Service", "verb override", "write User"],
        ),
        (json!({"reason": "two\nlines"}), &["spec.reason"]),
    ];
    for (fields, words) in cases {
        let mut tried = lock(&ns, "tried", ("Share", "data"), OWNER);
        for (name, value) in fields.as_object().unwrap() {
            tried["spec"][name] = value.clone();
        }
        refused(create(&owner, &tried, true).await?, words)?;
    }
    s.world.share(&ns, "data", share_spec(Protocol::NFS)).await?;
    create(&owner, &lock(&ns, "keep", ("Share", "data"), OWNER), false).await??;
    let locks: Api<ResourceLock> = api(&owner, &ns);
    let change = |spec: Value| Patch::Merge(json!({"spec": spec}));
    let patch = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let immutable: [(Value, &[&str]); 4] = [
        (
            json!({"resourceRef": {"name": "other"}}),
            &[
                "resourceRef is immutable",
                "data",
                "other",
                "create another ResourceLock",
            ],
        ),
        (json!({"owner": ANOTHER}), &["owner is immutable", OWNER, ANOTHER]),
        (json!({"context": "Admin"}), &["context is immutable"]),
        (json!({"action": "Show"}), &["action is immutable"]),
    ];
    for (spec, words) in immutable {
        refused(locks.patch("keep", &patch, &change(spec)).await, words)?;
    }
    locks
        .patch("keep", &patch, &change(json!({"reason": "audit"})))
        .await?;
    let another: Api<ResourceLock> = api(&s.world.client_as(ANOTHER).await?, &ns);
    refused(
        another.delete("keep", &DeleteParams::default()).await,
        &["ResourceLock keep belongs to alice", "verb override"],
    )?;

    // The marks are the operator's, set, changed or taken off.
    let shares: Api<Share> = api(&owner, &ns);
    let words = &[
        "metadata.labels: shoal.storage/",
        "verb operate",
        "create or delete a ResourceLock",
    ];
    let marks = |labels: Value| Patch::Merge(json!({"metadata": {"labels": labels}}));
    refused(
        shares
            .patch("data", &patch, &marks(json!({labels::LOCKED: ""})))
            .await,
        words,
    )?;
    refused(
        locks
            .patch("keep", &patch, &marks(json!({labels::ENFORCED: "x"})))
            .await,
        words,
    )?;
    let uid = shares.get("data").await?.uid().unwrap();
    mark(s, &ns, &uid).await?;
    for value in [Value::Null, "y".into(), "".into()] {
        refused(
            shares
                .patch("data", &patch, &marks(json!({labels::LOCKED: value})))
                .await,
            words,
        )?;
        refused(
            locks
                .patch("keep", &patch, &marks(json!({labels::ENFORCED: value})))
                .await,
            words,
        )?;
    }
    let annotation = Patch::Merge(json!({"metadata": {"annotations": {LOCKED_BY: "nobody"}}}));
    refused(shares.patch("data", &patch, &annotation).await, words)?;
    shares
        .patch("data", &patch, &marks(json!({"team": "blue"})))
        .await?;
    shares
        .patch("data", &patch, &Patch::Merge(json!({"spec": {"size": "2Gi"}})))
        .await?;

    // The definitions, unless somebody means it.
    let crds: Api<CustomResourceDefinition> = Api::all(s.world.client.clone());
    let dry = DeleteParams {
        dry_run: true,
        ..DeleteParams::default()
    };
    let name = "resourcelocks.shoal.storage";
    let words = &[
        "deleting resourcelocks.shoal.storage",
        "shoal.storage/allow-deletion",
    ];
    refused(crds.delete(name, &dry).await, words)?;
    let allow = |value: Value| {
        Patch::Merge(json!({"metadata": {"annotations": {"shoal.storage/allow-deletion": value}}}))
    };
    crds.patch(name, &PatchParams::default(), &allow("".into()))
        .await?;
    let allowed = crds.delete(name, &dry).await;
    crds.patch(name, &PatchParams::default(), &allow(Value::Null))
        .await?;
    allowed?;
    locks.delete("keep", &DeleteParams::default()).await?;
    Ok(())
}

macro_rules! on {
    ($suite:ident, $release:ident, $module:ident: $($scenario:ident),+ $(,)?) => {
        mod $module {
            use super::*;

            $(#[test]
            fn $scenario() {
                $suite.run(
                    || SimulatedStorage::without_operator(KubernetesRelease::$release),
                    super::$scenario,
                );
            })+
        }
    };
}

on!(NEWER, V1_37, on_1_37: lock_matrix, bad_input, an_owner_is_filled_in);
on!(OLDER, V1_34, on_1_34: lock_matrix, bad_input);

async fn an_owner_is_filled_in(s: &'static SimulatedStorage) -> Result<()> {
    users(s).await?;
    let ns = s.world.namespace("owner").await?;
    let client = s.world.client_as(OWNER).await?;
    let mut document = lock(&ns, "keep", ("Share", "data"), "");
    document["spec"].as_object_mut().unwrap().remove("owner");
    let locks = dynamic(&client, &ns);
    let apply = PatchParams::apply("gitops");
    for _ in 0..2 {
        let applied = locks.patch("keep", &apply, &Patch::Apply(&document)).await?;
        ensure!(applied.data["spec"]["owner"] == OWNER, "{applied:?}");
    }
    // A client that replaces it without repeating the owner.
    document["metadata"]["resourceVersion"] = locks.get("keep").await?.resource_version().into();
    document["spec"]["reason"] = "audit".into();
    let replaced = locks
        .replace("keep", &PostParams::default(), &serde_json::from_value(document)?)
        .await?;
    ensure!(replaced.data["spec"]["owner"] == OWNER, "{replaced:?}");
    locks.delete("keep", &DeleteParams::default()).await?;
    Ok(())
}

// ---- what locks hold

/// Makes a lock as the admin, and waits until it is enforced.
async fn enforced(s: &SimulatedStorage, ns: &str, name: &str, target: (&str, &str)) -> Result<ResourceLock> {
    s.world.apply(&lock(ns, name, target, "admin")).await?;
    until_phase(s, ns, name, LockPhase::Enforced).await
}

async fn until_phase(s: &SimulatedStorage, ns: &str, name: &str, phase: LockPhase) -> Result<ResourceLock> {
    let what = format!("{phase:?}");
    until(&s.world.api(ns), name, &what, |lock: &ResourceLock| {
        lock.status
            .as_ref()
            .is_some_and(|status| status.phase == Some(phase))
    })
    .await
}

async fn unlock(s: &SimulatedStorage, ns: &str, name: &str) -> Result<()> {
    let locks = s.world.api::<ResourceLock>(ns);
    locks.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

async fn until_blocked(s: &SimulatedStorage, ns: &str, name: &str) -> Result<Share> {
    until(&s.world.api(ns), name, "DeletionBlocked", |share: &Share| {
        let status = share.status.clone().unwrap_or_default();
        condition(&status.conditions, "DeletionBlocked") == Some(("True", "Locked"))
    })
    .await
}

async fn until_unmarked(s: &SimulatedStorage, ns: &str, name: &str) -> Result<()> {
    until(&s.world.api(ns), name, "not marked any more", |share: &Share| {
        !share.labels().contains_key(labels::LOCKED) && !share.annotations().contains_key(LOCKED_BY)
    })
    .await?;
    Ok(())
}

#[test]
fn a_share_goes_when_its_last_lock_has_gone() {
    run(|s| async move {
        let ns = s.world.namespace("last").await?;
        let share = s.ready_share(&ns, "data", Protocol::NFS).await?;
        let mark = s.audit_mark()?;
        enforced(s, &ns, "keep", ("Share", "data")).await?;
        // Share, lock, and the lock's status.
        let writes = s.writes_since(mark).await?;
        let writes = writes
            .iter()
            .filter(|w| w.namespace == ns && w.code < 300)
            .count();
        ensure!(writes == 3, "a lock, beside itself, cost {writes} writes");
        enforced(s, &ns, "keep-too", ("Share", "data")).await?;
        let shares = s.world.api::<Share>(&ns);
        for left in [
            "'keep' (payroll), ResourceLock 'keep-too'",
            "locked by ResourceLock 'keep-too'",
        ] {
            let words = ["Share data is locked by", left, "(payroll)", "verb override"];
            eventually(left, PATIENCE, async || {
                let answer = shares.delete("data", &DeleteParams::default()).await;
                Ok(refused(answer, &words).ok())
            })
            .await?;
            refused(
                shares
                    .delete_collection(&DeleteParams::default(), &ListParams::default())
                    .await
                    .map(drop),
                &words,
            )?;
            s.check_quiet(&ns).await?;
            unlock(
                s,
                &ns,
                if left.contains("'keep'") {
                    "keep"
                } else {
                    "keep-too"
                },
            )
            .await?;
        }
        until_unmarked(s, &ns, "data").await?;
        let mark = s.audit_mark()?;
        s.delete_share(&ns, "data").await?;
        s.until_share_gone(&ns, "data").await?;
        let writes = s.writes_since(mark).await?;
        let own: Vec<_> = writes.iter().filter(|w| w.namespace == ns).collect();
        ensure!(own.len() == 1, "a delete wrote {own:?}");
        s.check_gone(&share).await
    });
}

/// Takes these policies out of force while it is held.
struct Open<'a>(&'a SimulatedStorage, Vec<Value>);

impl<'a> Open<'a> {
    async fn new(s: &'a SimulatedStorage, policies: &[&str]) -> Result<Self> {
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(s.world.client.clone());
        for name in policies {
            let name = format!("{name}.shoal.storage");
            bindings.delete(&name, &DeleteParams::default()).await?;
        }
        let taken = shoal_crds::policy::lock_policies()
            .into_iter()
            .filter(|document| {
                let name = document["metadata"]["name"].as_str().unwrap_or_default();
                document["kind"] == "ValidatingAdmissionPolicyBinding"
                    && policies
                        .iter()
                        .any(|policy| name == format!("{policy}.shoal.storage"))
            });
        Ok(Self(s, taken.collect()))
    }

    async fn close(self) -> Result<()> {
        for document in &self.1 {
            self.0.world.apply(document).await?;
        }
        Ok(())
    }
}

/// Asks until the API server has heard that the policies are out of force.
async fn slip<K>(objects: &Api<K>, name: &str) -> Result<()>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    eventually(
        &format!("the deletion of {name} to slip past"),
        PATIENCE,
        async || {
            Ok(objects
                .delete(name, &DeleteParams::default())
                .await
                .is_ok()
                .then_some(()))
        },
    )
    .await
}

#[test]
fn what_slips_past_admission_waits_for_the_last_lock() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("slip").await?;
        let share = s.ready_share(&ns, "data", Protocol::NFS).await?;
        s.world
            .rule(&ns, "office", ip_rule("data", "10.0.0.0/24", "ReadWrite"))
            .await?;
        s.world
            .rule(&ns, "guest", ip_rule("data", "10.1.0.0/24", "ReadWrite"))
            .await?;
        s.until_settled(Some(&ns)).await?;
        let open = Open::new(s, &["new-locks", "locked"]).await?;
        let shares = s.world.api::<Share>(&ns);
        for (name, target) in [
            ("keep", ("Share", "data")),
            ("keep-office", ("ShareAccessRule", "office")),
        ] {
            s.world.apply(&lock(&ns, name, target, "admin")).await?;
        }
        let slipped = async {
            slip(&shares, "data").await?;
            slip(&s.world.api::<ShareAccessRule>(&ns), "office").await
        }
        .await;
        open.close().await?;
        slipped?;

        let held = until_blocked(s, &ns, "data").await?;
        let told = message(&held.status.as_ref().unwrap().conditions, "DeletionBlocked").unwrap();
        for word in [
            "ResourceLock 'keep' (payroll)",
            "'keep-office' on ShareAccessRule 'office'",
        ] {
            ensure!(told.contains(word), "{told}");
        }
        s.until_event(&ns, "data", "Locked").await?;
        until_phase(s, &ns, "keep", LockPhase::Holding).await?;
        s.until_event(&ns, "keep", "TargetDeleting").await?;
        let office = until(&s.world.api(&ns), "office", "held", |rule: &ShareAccessRule| {
            let status = rule.status.clone().unwrap_or_default();
            condition(&status.conditions, "DeletionBlocked") == Some(("True", "Locked"))
        })
        .await?;
        ensure!(office.status.unwrap().phase == Some(AccessPhase::Active));
        ensure!(s.let_in(&share).await?.len() == 2);
        s.check_quiet(&ns).await?;

        // A share that waits is in use as before: whoever is to lose access does.
        s.delete_rule(&ns, "guest").await?;
        s.until_rule_gone(&ns, "guest").await?;
        ensure!(s.let_in(&share).await? == ["10.0.0.0/24 ReadWrite"]);

        // Nor does a restart forget it.
        s.kill_operator().await?;
        s.start_operator("").await?;
        unlock(s, &ns, "keep").await?;
        until(&shares, "data", "waits for the other one", |share: &Share| {
            let conditions = share.status.as_ref().map_or(&[][..], |s| &s.conditions);
            message(conditions, "DeletionBlocked").is_some_and(|told| !told.contains("'keep'"))
        })
        .await?;
        ensure!(s.let_in(&share).await? == ["10.0.0.0/24 ReadWrite"]);
        unlock(s, &ns, "keep-office").await?;
        s.until_share_gone(&ns, "data").await?;
        s.until_rule_gone(&ns, "office").await?;
        s.check_gone(&share).await
    });
}

#[test]
fn a_lock_on_a_rule_holds_its_client_and_its_share() {
    run(|s| async move {
        let ns = s.world.namespace("rule").await?;
        let share = s
            .share_let_in(
                &ns,
                "data",
                Protocol::CephFS,
                "trainer",
                cephx_rule("data", None, "ReadWrite"),
            )
            .await?;
        enforced(s, &ns, "keep", ("ShareAccessRule", "trainer")).await?;
        let (shares, rules) = (s.world.api::<Share>(&ns), s.world.api::<ShareAccessRule>(&ns));
        until_denied(&shares, "data").await?;
        refused(
            shares.delete("data", &DeleteParams::default()).await,
            &["Share data is locked by ResourceLock 'keep' on ShareAccessRule 'trainer' (payroll)"],
        )?;
        refused(
            rules.delete("trainer", &DeleteParams::default()).await,
            &["ShareAccessRule trainer is locked by ResourceLock 'keep' (payroll)"],
        )?;
        refused(
            s.change_rule(&ns, "trainer", json!({"accessLevel": "ReadOnly"}))
                .await,
            &["ShareAccessRule trainer is locked"],
        )?;
        s.change_share(&ns, "data", json!({"size": "2Gi"})).await?;
        s.until_share(&ns, "data", "True", "Available").await?;
        unlock(s, &ns, "keep").await?;
        until_unmarked(s, &ns, "data").await?;
        until(
            &rules,
            "trainer",
            "not marked any more",
            |rule: &ShareAccessRule| !rule.labels().contains_key(labels::LOCKED),
        )
        .await?;
        s.change_rule(&ns, "trainer", json!({"accessLevel": "ReadOnly"}))
            .await?;
        s.clear(&ns).await?;
        s.check_gone(&share).await
    });
}

#[test]
fn a_lock_on_nothing_says_so_and_holds_what_comes() {
    run(|s| async move {
        let ns = s.world.namespace("nothing").await?;
        s.world
            .apply(&lock(&ns, "keep", ("Share", "data"), "admin"))
            .await?;
        let pending = until_phase(s, &ns, "keep", LockPhase::Pending).await?;
        let conditions = &pending.status.as_ref().unwrap().conditions;
        ensure!(condition(conditions, "Reconciling") == Some(("True", "TargetNotFound")));
        s.until_event(&ns, "keep", "TargetNotFound").await?;
        let mut of_old = lock(&ns, "keep-old", ("Share", "data"), "admin");
        of_old["spec"]["resourceRef"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
        s.world.apply(&of_old).await?;
        let stalled = until_phase(s, &ns, "keep-old", LockPhase::Pending).await?;
        ensure!(
            condition(&stalled.status.unwrap().conditions, "Stalled") == Some(("True", "TargetNotFound"))
        );

        let share = s.ready_share(&ns, "data", Protocol::NFS).await?;
        until_phase(s, &ns, "keep", LockPhase::Enforced).await?;
        refused(
            s.world
                .api::<Share>(&ns)
                .delete("data", &DeleteParams::default())
                .await,
            &["ResourceLock 'keep' (payroll)"],
        )?;
        unlock(s, &ns, "keep").await?;
        until_unmarked(s, &ns, "data").await?;
        // One that is on another object holds nothing.
        s.delete_share(&ns, "data").await?;
        s.until_share_gone(&ns, "data").await?;
        unlock(s, &ns, "keep-old").await?;
        s.check_gone(&share).await
    });
}

// ---- what locks hide

fn show_lock(namespace: &str, name: &str, rule: &str, owner: &str) -> Value {
    let mut lock = lock(namespace, name, ("ShareAccessRule", rule), owner);
    lock["spec"]["action"] = "Show".into();
    lock
}

/// Waits until a lock is told this reason, and says why.
async fn until_told(s: &SimulatedStorage, ns: &str, name: &str, reason: &str) -> Result<String> {
    let why = |lock: &ResourceLock| {
        let conditions = lock.status.clone().unwrap_or_default().conditions;
        let ready = conditions.into_iter().find(|c| c.type_ == "Ready")?;
        (ready.reason == reason).then_some(ready.message)
    };
    let lock = until(&s.world.api(ns), name, reason, |lock: &ResourceLock| {
        why(lock).is_some()
    })
    .await?;
    why(&lock).context("it changed its mind")
}

/// Name and namespace of the Secret that a rule says its key is in, and whose identity's key that is.
async fn told_secret(s: &SimulatedStorage, ns: &str, rule: &str) -> Result<(String, String, String)> {
    let rule = s.world.api::<ShareAccessRule>(ns).get(rule).await?;
    let status = rule.status.context("no status")?;
    let secret = status.credentials_secret_ref.context("no Secret")?;
    let namespace = secret.namespace.unwrap_or_else(|| ns.to_owned());
    Ok((secret.name, namespace, status.identity.context("no identity")?))
}

/// The key in a Secret, as this user gets it.
async fn key(client: &Client, secret: &(String, String, String)) -> kube::Result<String> {
    let found = api::<Secret>(client, &secret.1).get(&secret.0).await?;
    Ok(secret_text(&found, cephx_secret::USER_KEY).unwrap_or_default())
}

fn is_forbidden<T>(answer: &kube::Result<T>) -> bool {
    matches!(answer, Err(kube::Error::Api(status)) if status.code == 403)
}

/// How many of Secret, role and binding of this name are in custody.
async fn kept(s: &SimulatedStorage, name: &str) -> Result<usize> {
    let world = &s.world;
    let secret = world.api::<Secret>(SYSTEM_NAMESPACE).get_opt(name).await?;
    let role = world.api::<Role>(SYSTEM_NAMESPACE).get_opt(name).await?;
    let binding = world.api::<RoleBinding>(SYSTEM_NAMESPACE).get_opt(name).await?;
    Ok(usize::from(secret.is_some()) + usize::from(role.is_some()) + usize::from(binding.is_some()))
}

/// Everything of a namespace that its users read, and what the operator says, as text.
async fn all_that_is_said(s: &SimulatedStorage, ns: &str) -> Result<String> {
    let all = ListParams::default();
    let world = &s.world;
    let mut text = serde_json::to_string(&world.api::<Share>(ns).list(&all).await?.items)?;
    text += &serde_json::to_string(&world.api::<ShareAccessRule>(ns).list(&all).await?.items)?;
    text += &serde_json::to_string(&world.api::<ResourceLock>(ns).list(&all).await?.items)?;
    text += &serde_json::to_string(&world.api::<Event>(ns).list(&all).await?.items)?;
    let secrets = world.api::<Secret>(ns).list(&all).await?;
    for data in secrets.into_iter().filter_map(|secret| secret.data) {
        text.extend(
            data.into_values()
                .map(|value| String::from_utf8_lossy(&value.0).into_owned()),
        );
    }
    Ok(text + &s.log().await? + &s.metrics().await?)
}

#[test]
fn a_hidden_key_is_a_new_one_and_its_owners_alone() {
    run(|s| async move {
        users(s).await?;
        let ns = s.world.namespace("hidden").await?;
        for user in [OWNER, ANOTHER] {
            s.world
                .apply(&json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                    "metadata": {"namespace": ns, "name": user},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
                    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
                }))
                .await?;
        }
        let share = s
            .share_let_in(
                &ns,
                "data",
                Protocol::CephFS,
                "trainer",
                cephx_rule("data", None, "ReadWrite"),
            )
            .await?;
        let (owner, another) = (s.world.client_as(OWNER).await?, s.world.client_as(ANOTHER).await?);
        // A lock gives nobody a key that they couldn't read.
        let stranger = s.world.client_as(STRANGER).await?;
        refused(
            create(&stranger, &show_lock(&ns, "alone", "trainer", STRANGER), false).await?,
            &[
                "spec.action: Show gives the key of trainer to mallory",
                "get on secrets",
            ],
        )?;
        let shown = told_secret(s, &ns, "trainer").await?;
        ensure!(shown.0 == "trainer-cephx" && shown.1 == ns, "{shown:?}");
        let old = eventually("everybody to read it", PATIENCE, async || {
            Ok(key(&another, &shown).await.ok())
        })
        .await?;

        create(&owner, &show_lock(&ns, "alone", "trainer", OWNER), false).await??;
        until_phase(s, &ns, "alone", LockPhase::Enforced).await?;
        ensure!(s.secret(&ns, "trainer-cephx").await?.is_none(), "it is shown");
        let hidden = told_secret(s, &ns, "trainer").await?;
        ensure!(hidden.1 == SYSTEM_NAMESPACE && hidden.0 == hidden.2, "{hidden:?}");
        let new = eventually("its owner to read it", PATIENCE, async || {
            Ok(key(&owner, &hidden).await.ok())
        })
        .await?;
        ensure!(new != old, "it is the old key");
        // The owner can get this one Secret, and nothing else there.
        let secrets: Api<Secret> = api(&owner, SYSTEM_NAMESPACE);
        ensure!(is_forbidden(&secrets.list(&ListParams::default()).await));
        ensure!(is_forbidden(&secrets.get("shoal-other").await));
        ensure!(is_forbidden(
            &secrets.delete(&hidden.0, &DeleteParams::default()).await
        ));
        for client in [&another, &s.world.client_as(ADMIN).await?] {
            ensure!(is_forbidden(&key(client, &hidden).await), "another reads it");
        }
        ensure!(is_forbidden(
            &api::<Secret>(&another, SYSTEM_NAMESPACE)
                .list(&ListParams::default())
                .await
        ));
        ensure!(
            !all_that_is_said(s, &ns).await?.contains(&new),
            "the key is somewhere else"
        );
        let cluster = s.cluster(BACKEND).await?;
        let opens = |identity: &str, key: &str| {
            let subvolume = subvolume_of(&share);
            cluster
                .mount(BACKEND, &subvolume, identity, &Key::new(key), "")
                .is_ok()
        };
        ensure!(
            opens(&hidden.2, &new) && !opens(&shown.2, &old),
            "which key opens it"
        );
        s.check_holdings(Some(&ns)).await?;

        // Nobody gets at it by a lock, or a rule, of their own.
        create(&another, &show_lock(&ns, "me-too", "trainer", ANOTHER), false).await??;
        let why = until_told(s, &ns, "me-too", "HiddenByAnother").await?;
        ensure!(why.contains("ResourceLock 'alone'"), "{why}");
        let thief = s
            .world
            .rule(&ns, "thief", cephx_rule("data", Some(&hidden.2), "ReadOnly"));
        refused(
            thief.await,
            &[
                "accessTo",
                "of the form that Shoal makes for a rule alone",
                "leave accessTo out",
            ],
        )?;
        ensure!(is_forbidden(&key(&another, &hidden).await));
        s.check_quiet(&ns).await?;

        // The next reader gets a key of their own, and the one before does not.
        unlock(s, &ns, "alone").await?;
        until_phase(s, &ns, "me-too", LockPhase::Enforced).await?;
        let next = told_secret(s, &ns, "trainer").await?;
        let newer = eventually("the next one to read it", PATIENCE, async || {
            Ok(key(&another, &next).await.ok())
        })
        .await?;
        ensure!(newer != new && is_forbidden(&key(&owner, &next).await));
        ensure!(!opens(&hidden.2, &new), "the key of before still opens it");
        ensure!(kept(s, &hidden.0).await? == 0 && kept(s, &next.0).await? == 3);

        // And returns as it is.
        unlock(s, &ns, "me-too").await?;
        eventually("it to be shown again", PATIENCE, async || {
            Ok(key(&owner, &(shown.0.clone(), ns.clone(), String::new()))
                .await
                .ok())
        })
        .await
        .and_then(|again| {
            ensure!(again == newer, "another key");
            Ok(())
        })?;
        s.until_settled(Some(&ns)).await?;
        s.check_holdings(Some(&ns)).await?;
        ensure!(kept(s, &next.0).await? == 0, "it is left");
        s.clear(&ns).await
    });
}

#[test]
fn what_is_in_custody_says_itself_whose_it_is() {
    run(|s| async move {
        let ns = s.world.namespace("forged").await?;
        s.share_let_in(
            &ns,
            "data",
            Protocol::CephFS,
            "trainer",
            cephx_rule("data", None, "ReadWrite"),
        )
        .await?;
        let other = "shoal-credentials";
        s.world
            .apply(&json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": SYSTEM_NAMESPACE, "name": other},
            }))
            .await?;
        let rules = s.world.api::<ShareAccessRule>(&ns);
        let mut forged = rules.get("trainer").await?.status.context("no status")?;
        forged.hidden_by = Some(LockReference {
            name: "x".into(),
            uid: "credentials".into(),
        });
        let forged = json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "ShareAccessRule",
            "metadata": {"name": "trainer"}, "status": forged,
        });
        // As the operator writes it, which takes back what it wrote.
        let params = PatchParams::apply("shoal/shareaccessrule").force();
        rules
            .patch_status("trainer", &params, &Patch::Apply(&forged))
            .await?;
        until(&rules, "trainer", "the record to go", |rule: &ShareAccessRule| {
            rule.status
                .as_ref()
                .is_some_and(|status| status.hidden_by.is_none())
        })
        .await?;
        ensure!(kept(s, other).await? == 1, "another's Secret was thrown away");
        s.world
            .api::<Secret>(SYSTEM_NAMESPACE)
            .delete(other, &DeleteParams::default())
            .await?;
        s.clear(&ns).await
    });
}

#[test]
fn a_client_that_is_named_can_not_be_hidden() {
    run(|s| async move {
        let ns = s.world.namespace("named").await?;
        s.ready_share(&ns, "data", Protocol::NFS).await?;
        s.world
            .rule(&ns, "office", ip_rule("data", "10.0.0.1", "ReadWrite"))
            .await?;
        s.world.apply(&show_lock(&ns, "hide", "office", "admin")).await?;
        let why = until_told(s, &ns, "hide", "CannotBeHidden").await?;
        for words in ["'office'", "accessTo '10.0.0.1'", "accessToSecretRef"] {
            ensure!(why.contains(words), "{why}");
        }
        unlock(s, &ns, "hide").await?;
        s.clear(&ns).await
    });
}

#[test]
fn a_hidden_key_goes_with_its_namespace() {
    run(|s| async move {
        let ns = s.world.namespace("hidden-there").await?;
        // The lock is there before its rule: no other key ever is.
        s.world
            .apply(&show_lock(&ns, "alone", "trainer", "admin"))
            .await?;
        let share = s.ready_share(&ns, "data", Protocol::CephFS).await?;
        s.world
            .rule(&ns, "trainer", cephx_rule("data", None, "ReadWrite"))
            .await?;
        until_phase(s, &ns, "alone", LockPhase::Enforced).await?;
        ensure!(s.secret(&ns, "trainer-cephx").await?.is_none());
        let hidden = told_secret(s, &ns, "trainer").await?;
        key(&s.world.client, &hidden).await?;
        let namespaces: Api<Namespace> = Api::all(s.world.client.clone());
        namespaces.delete(&ns, &DeleteParams::default()).await?;
        until_gone(&namespaces, &ns).await?;
        ensure!(kept(s, &hidden.0).await? == 0, "it is left");
        s.check_gone(&share).await
    });
}

#[test]
fn a_locked_share_survives_its_namespace_and_its_owner_object() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("survivor").await?;
        let share = s
            .share_let_in(
                &ns,
                "data",
                Protocol::CephFS,
                "trainer",
                cephx_rule("data", None, "ReadWrite"),
            )
            .await?;
        enforced(s, &ns, "keep", ("Share", "data")).await?;
        enforced(s, &ns, "keep-trainer", ("ShareAccessRule", "trainer")).await?;

        // The garbage collector.
        let maps: Api<ConfigMap> = s.world.api(&ns);
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "owner"}}))?;
        let map = maps.create(&PostParams::default(), &map).await?;
        let owned = Patch::Merge(json!({"metadata": {"ownerReferences": [{
            "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": map.uid(),
        }]}}));
        let patch = PatchParams::default();
        s.world.api::<Share>(&ns).patch("data", &patch, &owned).await?;
        s.world
            .api::<ResourceLock>(&ns)
            .patch("keep", &patch, &owned)
            .await?;
        maps.delete("owner", &DeleteParams::default()).await?;
        let audit = s.world.lab.control_plane()?.audit_log();
        eventually("the garbage collector to be denied both", PATIENCE, async || {
            let log = fs::read_to_string(&audit)?;
            let denied = |resource: &str| {
                let mut lines = log
                    .lines()
                    .filter(|line| line.contains(&ns) && line.contains(GARBAGE_COLLECTOR));
                lines.any(|line| {
                    line.contains("\"code\":403") && line.contains(&format!("\"resource\":\"{resource}\""))
                })
            };
            Ok((denied("shares") && denied("resourcelocks")).then_some(()))
        })
        .await?;

        // The namespace: up front, whichever of the two the API server looks at first, and where
        // that slips past.
        let namespaces: Api<Namespace> = Api::all(s.world.client.clone());
        refused(
            namespaces.delete(&ns, &DeleteParams::default()).await,
            &[
                &format!("Namespace {ns} holds ResourceLock keep"),
                "(payroll)",
                "verb override",
            ],
        )?;
        let open = Open::new(s, &["locked-namespaces"]).await?;
        let slipped = slip(&namespaces, &ns).await;
        open.close().await?;
        slipped?;
        let terminating = until(&namespaces, &ns, "says why it waits", |namespace: &Namespace| {
            let conditions = namespace.status.as_ref().and_then(|s| s.conditions.clone());
            conditions.unwrap_or_default().iter().any(|c| {
                let message = c.message.clone().unwrap_or_default();
                c.type_ == "NamespaceDeletionContentFailure"
                    && message.contains("Share data is locked by")
                    && message.contains("ResourceLock keep")
            })
        })
        .await?;
        println!(
            "{:#?}",
            terminating
                .status
                .unwrap()
                .conditions
                .unwrap()
                .iter()
                .map(|c| &c.message)
                .collect::<Vec<_>>()
        );
        let there = s.world.api::<Share>(&ns).get("data").await?;
        ensure!(there.metadata.deletion_timestamp.is_none(), "{there:?}");
        ensure!(s.let_in(&share).await?.len() == 1, "its client is let in");
        // The rule's Secret went with the namespace, and is not made again in vain.
        eventually("the Secret to go", PATIENCE, async || {
            Ok(s.secret(&ns, "trainer-cephx").await?.is_none().then_some(()))
        })
        .await?;
        s.check_quiet(&ns).await?;

        let locks = s.world.api::<ResourceLock>(&ns);
        for name in ["keep", "keep-trainer"] {
            locks.delete(name, &DeleteParams::default()).await?;
        }
        until_gone(&namespaces, &ns).await?;
        s.check_gone(&share).await
    });
}

#[test]
fn a_lock_made_while_another_goes_leaves_no_gap() {
    run(|s| async move {
        let ns = s.world.namespace("swap").await?;
        let share = s.ready_share(&ns, "data", Protocol::NFS).await?;
        let (shares, locks) = (s.world.api::<Share>(&ns), s.world.api::<ResourceLock>(&ns));
        enforced(s, &ns, "lock-0", ("Share", "data")).await?;
        let swaps = scale("SHOAL_E2E_SWAPS", SWAPS);
        let mut slipped = 0;
        for n in 0..swaps {
            let (old, new) = (
                format!("lock-{n}"),
                lock(&ns, &format!("lock-{}", n + 1), ("Share", "data"), "admin"),
            );
            let params = DeleteParams::default();
            let (made, gone) =
                tokio::join!(create(&s.world.client, &new, false), locks.delete(&old, &params));
            made??;
            gone?;
            // At different moments of what the operator then does.
            tokio::time::sleep(Duration::from_millis(u64::from(n % 12))).await;
            if shares.delete("data", &DeleteParams::default()).await.is_ok() {
                slipped += 1;
                break;
            }
        }
        if slipped > 0 {
            until_blocked(s, &ns, "data").await?;
        }
        println!(
            "{swaps} locks made while another went: {slipped} deletions slipped past admission, and were held"
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
        ensure!(s.held(&share).await?.is_some(), "it was destroyed");
        let lock = locks.list(&ListParams::default()).await?;
        for lock in lock {
            unlock(s, &ns, &lock.name_any()).await?;
        }
        if slipped == 0 {
            until_unmarked(s, &ns, "data").await?;
            s.delete_share(&ns, "data").await?;
        }
        s.until_share_gone(&ns, "data").await?;
        s.check_gone(&share).await
    });
}

/// Measured, not asserted.
#[test]
fn what_a_deletion_costs_beside_many_locks() {
    run(|s| async move {
        let _alone = s.alone().await;
        let ns = s.world.namespace("many").await?;
        let count = scale("SHOAL_E2E_LOCKS", LOCKS);
        s.ready_share(&ns, "locked", Protocol::NFS).await?;
        let names: Vec<_> = (0..6).map(|n| format!("data-{n}")).collect();
        for name in &names {
            s.ready_share(&ns, name, Protocol::NFS).await?;
        }
        let timed = async |name: &str| -> Result<(Duration, Duration)> {
            let began = Instant::now();
            s.delete_share(&ns, name).await?;
            let accepted = began.elapsed();
            s.until_share_gone(&ns, name).await?;
            Ok((accepted, began.elapsed()))
        };
        for (name, what) in [(&names[0], ""), (&names[1], "again ")] {
            let (accepted, gone) = timed(name).await?;
            println!("no lock: {what}accepted in {accepted:?}, gone in {gone:?}");
        }
        s.kill_operator().await?;
        stream::iter(0..count)
            .map(|n| {
                let document = lock(&ns, &format!("lock-{n}"), ("Share", "locked"), "admin");
                async move {
                    create(&s.world.client, &document, false)
                        .await?
                        .map_err(anyhow::Error::from)
                }
            })
            .buffer_unordered(16)
            .try_collect::<Vec<_>>()
            .await?;
        let dry = DeleteParams {
            dry_run: true,
            ..DeleteParams::default()
        };
        let shares = s.world.api::<Share>(&ns);
        for name in &names[2..4] {
            let began = Instant::now();
            shares.delete(name, &dry).await?;
            println!("{count} new locks: accepted in {:?}", began.elapsed());
        }
        s.start_operator("").await?;
        let began = Instant::now();
        let locks = s.world.api::<ResourceLock>(&ns);
        let new = ListParams::default().labels(&format!("!{}", labels::ENFORCED));
        eventually("all locks to be enforced", Duration::from_mins(5), async || {
            Ok(locks.list_metadata(&new).await?.items.is_empty().then_some(()))
        })
        .await?;
        println!("{count} locks enforced in {:?}", began.elapsed());
        for name in &names[4..] {
            let (accepted, gone) = timed(name).await?;
            println!("{count} enforced locks: accepted in {accepted:?}, gone in {gone:?}");
        }
        locks
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await?;
        until_unmarked(s, &ns, "locked").await?;
        s.clear(&ns).await
    });
}
