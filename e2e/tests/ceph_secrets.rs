//! A CephX key is in its Secret, and nowhere else: not in logs, events, objects or command lines.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Discovery, ResourceExt,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    discovery::{Scope, verbs},
};
use serde_json::json;
use shoal_e2e::{
    lab::client::Owner,
    storage::{SIZE, Storage, at, cephx_rule, soon},
    suite::Suite,
    world::{CONNECTION_SECRET, SYSTEM_NAMESPACE},
};

static SUITE: Suite<Storage> = Suite::new();

/// Notes every command line on this machine until it is dropped.
struct CommandLines {
    seen: Arc<Mutex<BTreeSet<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl CommandLines {
    fn watch() -> Self {
        let (seen, stop) = (
            Arc::<Mutex<BTreeSet<Vec<u8>>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let (notes, end) = (seen.clone(), stop.clone());
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                    // One that has just ended has none.
                    if let Ok(line) = fs::read(entry.path().join("cmdline")) {
                        notes.lock().unwrap().insert(line);
                    }
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        Self {
            seen,
            stop,
            thread: Some(thread),
        }
    }

    fn end(mut self) -> Vec<u8> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        let all: Vec<Vec<u8>> = self.seen.lock().unwrap().iter().cloned().collect();
        all.join(&b'\n')
    }
}

/// Every object of every kind, by where it is; Secrets too.
async fn everything(suite: &Storage) -> Result<BTreeMap<String, String>> {
    let client = &suite.world.client;
    let mut all = BTreeMap::new();
    for group in Discovery::new(client.clone()).run().await?.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if !capabilities.supports_operation(verbs::LIST) {
                continue;
            }
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let Ok(list) = api.list(&ListParams::default()).await else {
                continue;
            };
            ensure!(matches!(capabilities.scope, Scope::Cluster | Scope::Namespaced));
            for object in list {
                let place = format!(
                    "{}/{}/{}",
                    resource.kind,
                    object.namespace().unwrap_or_default(),
                    object.name_any()
                );
                all.insert(place, serde_json::to_string(&object)?);
            }
        }
    }
    Ok(all)
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    text.as_bytes()
        .chunks(3)
        .flat_map(|chunk| {
            let bits = chunk
                .iter()
                .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
                << (8 * (3 - chunk.len()));
            (0..4).map(move |n| {
                if n <= chunk.len() {
                    LETTERS[(bits >> (18 - 6 * n) & 63) as usize].into()
                } else {
                    '='
                }
            })
        })
        .collect()
}

#[test]
fn no_key_is_found_anywhere() {
    SUITE.run(Storage::start, async |suite| {
        ensure!(base64("shoal!!") == "c2hvYWwhIQ==", "{}", base64("shoal!!"));
        let lines = CommandLines::watch();
        let mut keys = BTreeSet::new();
        let ns = suite.world.namespace("keys").await?;
        let other = suite.world.namespace("other").await?;
        let share = suite.share(&ns, "s", "CephFS", "on-cephfs").await?;
        for (rule, identity, level) in [("named", "key-named", "ReadWrite"), ("made", "", "ReadOnly")] {
            suite.rule(&ns, rule, cephx_rule("s", identity, level)).await?;
            keys.insert(suite.credentials(&ns, rule).await?.1);
        }
        let (_, key) = suite.credentials(&ns, "named").await?;
        suite.mount_native(&share, "key-named", &key, "")?.user(Owner::ROOT)?.write("/note", b"x")?;
        // Refused, as another's; level changes; a lost Secret; an identity deauthorized by hand.
        suite.share(&other, "s", "CephFS", "on-cephfs").await?;
        suite.world.rule(&other, "late", cephx_rule("s", "key-named", "ReadWrite")).await?;
        suite.refused(&other, "late", "IdentityNotAvailable").await?;
        // Else it would take what is free for a moment below.
        suite.delete_rule(&other, "late").await?;
        suite.rule(&ns, "named", cephx_rule("s", "key-named", "ReadOnly")).await?;
        suite.rule(&ns, "named", cephx_rule("s", "key-named", "ReadWrite")).await?;
        suite.world.api::<Secret>(&ns).delete("made-cephx", &kube::api::DeleteParams::default()).await?;
        soon("the Secret again", async || suite.credentials(&ns, "made").await).await?;
        let mut deauthorize = at(&share, "fs subvolume deauthorize");
        deauthorize["auth_id"] = json!("key-named");
        suite.admin.mgr(deauthorize)?;
        let new = soon("a new key", async || {
            let (_, new) = suite.credentials(&ns, "named").await?;
            ensure!(new != key);
            Ok(new)
        })
        .await?;
        keys.insert(new);
        // Killed with a key in its hands, and ended in order.
        for point in ["after-Export=1*return", "after-Secret=1*return"] {
            suite.stop_operator().await?;
            suite.world.rule(&ns, &format!("kill-{}", keys.len()), cephx_rule("s", "", "ReadWrite")).await?;
            suite.start_operator(point).await?;
            ensure!(suite.operator_dies(Duration::from_secs(20)).await?, "{point}");
            suite.start_operator("").await?;
            let rule = format!("kill-{}", keys.len());
            suite.active(&ns, &rule).await?;
            keys.insert(suite.credentials(&ns, &rule).await?.1);
        }
        // The operator's own key: refused, a wrong one, and right again.
        let wrong = json!({"prefix": "auth get-or-create", "entity": "client.wrong", "caps": ["mon", "allow r"]});
        let wrong = suite.admin.mon(wrong)?;
        let wrong = wrong[0]["key"].as_str().context("no key")?.to_owned();
        let own = suite.ceph().user_key().to_owned();
        let secrets = suite.world.api::<Secret>(SYSTEM_NAMESPACE);
        for (key, status, reason) in
            [(&wrong, "False", "BackendCredentialsRefused"), (&own, "True", "Available")]
        {
            let patch = json!({"stringData": {"userKey": key}});
            secrets.patch(CONNECTION_SECRET, &PatchParams::default(), &Patch::Merge(&patch)).await?;
            suite.until_backend("cephfs", status, reason).await?;
        }
        keys.insert(own);
        keys.insert(wrong);
        suite.ask_for_share(&ns, "s", "CephFS", "on-cephfs", SIZE * 2).await?;
        suite.ready(&ns, "s").await?;
        suite.delete_rule(&ns, "made").await?;
        suite.stop_operator().await?;

        ensure!(keys.len() == 7 && keys.iter().all(|key| key.len() > 20), "{} keys", keys.len());
        let needles: Vec<String> = keys.iter().flat_map(|key| [key.clone(), base64(key)]).collect();
        let found = |text: &str| needles.iter().any(|needle| text.contains(needle.as_str()));

        let mut logs = 0;
        for entry in fs::read_dir(suite.world.lab.folder())? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "log") {
                let text = fs::read_to_string(&path)?;
                ensure!(text.contains("authorize") || !text.contains("Export"), "{} has no details", path.display());
                logs += text.len();
                ensure!(!found(&text), "a key in {}", path.display());
            }
        }
        ensure!(logs > 10_000, "too little was logged to say anything: {logs} bytes");
        let audit = fs::read_to_string(suite.world.lab.control_plane()?.audit_log())?;
        ensure!(!found(&audit), "a key in the audit log");

        let objects = everything(suite).await?;
        let mut holders = Vec::new();
        for (place, text) in &objects {
            if place.starts_with("Secret/") {
                if found(text) {
                    holders.push(place.as_str());
                }
                continue;
            }
            ensure!(!found(text), "a key in {place}");
        }
        let kinds: BTreeSet<&str> = objects.keys().filter_map(|place| place.split('/').next()).collect();
        for kind in ["Event", "Share", "ShareAccessRule", "ShareBackend", "Secret", "Lease"] {
            ensure!(kinds.contains(kind), "no {kind} was looked at: {kinds:?}");
        }
        let (named, connection) = (format!("Secret/{ns}/named-cephx"), format!("Secret/{SYSTEM_NAMESPACE}/{CONNECTION_SECRET}"));
        ensure!(holders.contains(&named.as_str()) && holders.contains(&connection.as_str()), "the search finds nothing: {holders:?}");
        let ours = |place: &&str| *place == connection || place.starts_with(&format!("Secret/{ns}/"));
        ensure!(holders.len() >= 4 && holders.iter().all(ours), "Secrets with keys: {holders:?}");

        let lines = String::from_utf8_lossy(&lines.end()).into_owned();
        ensure!(lines.contains("shoal") && lines.contains("ceph-fuse"), "too few command lines were seen");
        ensure!(!found(&lines), "a key in a command line");
        println!(
            "searched for {} keys in {logs} bytes of logs, {} objects of {} kinds and {} bytes of command lines",
            keys.len(),
            objects.len(),
            kinds.len(),
            lines.len()
        );
        Ok(())
    });
}
