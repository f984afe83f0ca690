//! What a report of a problem needs, as a stream of YAML. Secrets are never asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::OpenOptions,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
};

use jiff::Timestamp;
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Pod, events::v1::Event};
use kube::{Api, api::ListParams};
use serde_json::{Map, Value, json};
use shoal_crds::{ResourceLock, Share, ShareAccessRule, ShareBackend, ShareDeletion, ShareQuota, ShareType};

use crate::{
    api::{self, Cluster, Object},
    cli::SupportBundle,
    failure::Failure,
    outcome::Outcome,
    output,
};

/// What `kubectl apply` keeps on an object: the object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What was collected, and what was not.
#[derive(Default)]
struct Bundle {
    documents: Vec<Value>,
    missing: Vec<String>,
}

impl Bundle {
    async fn add<K: Object>(&mut self, api: &Api<K>) {
        self.add_those(api, &ListParams::default()).await;
    }

    async fn add_those<K: Object>(&mut self, api: &Api<K>, which: &ListParams) {
        match api::list(api, which).await {
            Ok(objects) => self.documents.extend(output::bare(&objects)),
            Err(failure) => self.missing.push(failure.message),
        }
    }
}

pub(crate) async fn make(
    cluster: &Cluster,
    namespace: Option<&str>,
    arguments: &SupportBundle,
) -> Result<Outcome, Failure> {
    let mut bundle = Bundle::default();
    let all = namespace.is_none();
    bundle.add(&cluster.global::<ShareBackend>()).await;
    bundle.add(&cluster.global::<ShareType>()).await;
    bundle.add(&cluster.global::<ShareDeletion>()).await;
    bundle.add(&cluster.namespaced::<ShareQuota>(all)).await;
    bundle.add(&cluster.namespaced::<Share>(all)).await;
    bundle.add(&cluster.namespaced::<ShareAccessRule>(all)).await;
    bundle.add(&cluster.namespaced::<ResourceLock>(all)).await;
    let about_shoal = format!(
        "regarding.apiVersion={}/{}",
        shoal_crds::GROUP,
        shoal_crds::VERSION
    );
    let events = ListParams::default().fields(&about_shoal);
    bundle.add_those(&cluster.namespaced::<Event>(all), &events).await;
    let operator = &arguments.operator_namespace;
    bundle.add(&cluster.within::<Deployment>(operator)).await;
    bundle.add(&cluster.within::<Pod>(operator)).await;
    bundle.add(&cluster.within::<Lease>(operator)).await;
    let server = cluster.client.apiserver_version().await;
    let server = server.map_or_else(|_| Value::Null, |version| json!(version.git_version));

    let about = json!({
        "madeBy": concat!("kubectl-shoal ", env!("CARGO_PKG_VERSION")),
        "madeAt": Timestamp::now(),
        "kubernetes": server,
        "namesRedacted": arguments.redact_names,
        "notReadable": bundle.missing,
    });
    bundle.documents.iter_mut().for_each(redact);
    if arguments.redact_names {
        redact_names(&mut bundle.documents);
    }
    let documents: Vec<_> = std::iter::once(about).chain(bundle.documents).collect();
    let text = output::yaml(&documents)?;
    if arguments.file == "-" {
        return Ok(Outcome::done(text));
    }
    write(&arguments.file, &text)?;
    let mut outcome = Outcome::done(format!("{} is written, without any Secret\n", arguments.file));
    outcome.notes = bundle
        .missing
        .iter()
        .map(|why| format!("left out: {why}"))
        .collect();
    Ok(outcome)
}

/// Another one is not overwritten, and nobody else reads it.
fn write(file: &str, text: &str) -> Result<(), Failure> {
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    opened
        .and_then(|mut opened| opened.write_all(text.as_bytes()))
        .map_err(|error| {
            if error.kind() == ErrorKind::AlreadyExists {
                Failure::refused(format!("{file} is there already; name another with --file"))
            } else {
                Failure::error(format!(
                    "{file} can't be written: {error}; name another with --file"
                ))
            }
        })
}

/// Takes out what may hold what others must not read: copies of whole objects, and the values of a container's environment.
fn redact(document: &mut Value) {
    if let Some(annotations) = document
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
    for spec in ["/spec", "/spec/template/spec"] {
        for containers in ["containers", "initContainers"] {
            let path = format!("{spec}/{containers}");
            for container in items(document.pointer_mut(&path)) {
                for variable in items(container.get_mut("env")) {
                    if let Some(value) = variable.get_mut("value") {
                        *value = json!("(left out)");
                    }
                }
            }
        }
    }
}

fn items(list: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    list.and_then(Value::as_array_mut).into_iter().flatten()
}

fn fields(object: Option<&mut Value>) -> Option<&mut Map<String, Value>> {
    object.and_then(Value::as_object_mut)
}

/// Fields that hold words of the API, whatever names there are.
const WORDS: [&str; 7] = [
    "apiVersion",
    "kind",
    "type",
    "status",
    "reason",
    "phase",
    "protocol",
];

/// Puts other words in place of names, the same ones everywhere, and leaves out what users wrote.
fn redact_names(documents: &mut [Value]) {
    for document in documents.iter_mut() {
        let is_lock = document["kind"] == "ResourceLock";
        if let Some(spec) = fields(document.get_mut("spec")) {
            for field in ["metadata", "exportLocationMetadata", "disabledReason"] {
                spec.remove(field);
            }
            if is_lock {
                spec.remove("reason");
            }
        }
        if let Some(metadata) = fields(document.get_mut("metadata")) {
            // Mirrors of status, others' text, and part of a name.
            for field in ["annotations", "labels", "generateName"] {
                metadata.remove(field);
            }
        }
        for location in items(document.pointer_mut("/status/exportLocations")) {
            if let Some(metadata) = fields(location.get_mut("metadata")) {
                metadata.retain(|key, _| shoal_crds::names::EXPORT_LOCATION_KEYS.contains(&key.as_str()));
            }
        }
    }
    let names = names(documents);
    for document in documents {
        replace(document, &names);
    }
}

/// Each name with the word for it.
fn names(documents: &[Value]) -> BTreeMap<String, String> {
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut add = |word: &'static str, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            found.entry(word).or_default().insert(name.to_owned());
        }
    };
    for document in documents {
        let (name, spec) = (&document["metadata"]["name"], &document["spec"]);
        match document["kind"].as_str() {
            Some("Share") => add("share", name),
            Some("ShareAccessRule") => {
                add("rule", name);
                add("share", &spec["shareRef"]["name"]);
                add("client", &spec["accessTo"]);
                add("secret", &document["status"]["credentialsSecretRef"]["name"]);
                add("secret", &spec["accessToSecretRef"]["name"]);
            }
            Some("ResourceLock") => {
                add("lock", name);
                if let Some(word) = word_for(&spec["resourceRef"]) {
                    add(word, &spec["resourceRef"]["name"]);
                }
                add("user", &spec["owner"]);
            }
            Some("ShareQuota") => add("quota", name),
            // What it is about may be gone.
            Some("Event") => match word_for(&document["regarding"]) {
                Some(word) => add(word, &document["regarding"]["name"]),
                None => continue,
            },
            Some("ShareDeletion") => {
                add("namespace", &spec["shareRef"]["namespace"]);
                add("share", &spec["shareRef"]["name"]);
            }
            _ => continue,
        }
        for path in [
            &spec["mountPointName"],
            &document["status"]["resolvedMountPointName"],
            &spec["resolvedMountPointName"],
        ] {
            add("path", path);
        }
        add("namespace", &document["metadata"]["namespace"]);
    }
    let numbered = found.into_iter().flat_map(|(word, names)| {
        let numbered = names.into_iter().enumerate();
        numbered.map(move |(i, name)| (name, format!("{word}-{}", i + 1)))
    });
    numbered.collect()
}

/// The word for names of what a reference refers to.
fn word_for(reference: &Value) -> Option<&'static str> {
    match reference["kind"].as_str()? {
        "Share" => Some("share"),
        "ShareAccessRule" => Some("rule"),
        "ResourceLock" => Some("lock"),
        // The storage team's own.
        _ => None,
    }
}

fn replace(value: &mut Value, names: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => *text = replaced(text, names),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, names)),
        Value::Object(fields) => {
            for (key, value) in fields {
                if !(value.is_string() && WORDS.contains(&key.as_str())) {
                    replace(value, names);
                }
            }
        }
        _ => {}
    }
}

/// A text with each whole name in it replaced. The longest first, for a name may be part of another.
fn replaced(text: &str, names: &BTreeMap<String, String>) -> String {
    let lengths: BTreeSet<_> = names.keys().map(String::len).collect();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let begins = !done.chars().next_back().is_some_and(is_part);
        let mut possible = lengths.iter().rev().filter(|_| begins);
        let found = possible.find_map(|length| {
            let (name, after) = rest.split_at_checked(*length)?;
            let word = names.get(name)?;
            (!after.starts_with(is_part)).then_some((word, after))
        });
        if let Some((word, after)) = found {
            done.push_str(word);
            rest = after;
        } else {
            done.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(name: &str) -> Value {
        json!({
            "apiVersion": "shoal.storage/v1alpha1", "kind": "Share",
            "metadata": {"name": name, "namespace": "payroll", "annotations": {"who": "alice"}},
            "spec": {"protocol": "NFS", "metadata": {"secret": "plan"}},
            "status": {
                "phase": "Available",
                "resolvedMountPointName": "payroll-home",
                "conditions": [{"type": "Ready", "status": "True", "reason": "Available", "message": format!("Share '{name}' of payroll")}],
                "exportLocations": [{"path": "192.0.2.11:/payroll-home", "metadata": {"fsName": "cephfs", "mine": "x"}}],
            },
        })
    }

    #[test]
    fn copies_and_environments_are_left_out() {
        let mut pod = json!({
            "metadata": {"annotations": {LAST_APPLIED: "{}", "other": "kept"}},
            "spec": {"containers": [{"env": [{"name": "PASSWORD", "value": "hunter2"}, {"name": "FROM", "valueFrom": {}}]}]},
        });
        redact(&mut pod);
        let text = pod.to_string();
        assert!(
            !text.contains("hunter2") && !text.contains(LAST_APPLIED),
            "{text}"
        );
        assert!(
            text.contains("PASSWORD") && text.contains("valueFrom") && text.contains("kept"),
            "{text}"
        );
        let mut deployment = json!({"spec": {"template": {"spec": {"initContainers": [{"env": [{"name": "A", "value": "hunter2"}]}]}}}});
        redact(&mut deployment);
        assert!(!deployment.to_string().contains("hunter2"));
    }

    #[test]
    fn names_become_the_same_words_everywhere() {
        let mut documents = vec![
            share("ledgers"),
            json!({
                "kind": "ResourceLock", "metadata": {"name": "keep", "namespace": "payroll"},
                "spec": {"resourceRef": {"kind": "Share", "name": "ledgers"}, "owner": "alice@example.org", "reason": "ask alice"},
            }),
            json!({"kind": "Event", "metadata": {"name": "journals.1", "namespace": "payroll"}, "regarding": {"kind": "Share", "name": "journals"}, "note": "locked by ResourceLock 'keep'"}),
        ];
        redact_names(&mut documents);
        let text = json!(documents).to_string();
        for name in [
            "ledgers", "journals", "payroll", "alice", "keep", "plan", "ask", "mine",
        ] {
            assert!(!text.contains(name), "{name} in {text}");
        }
        assert_eq!(
            documents[1]["spec"]["resourceRef"]["name"],
            documents[0]["metadata"]["name"]
        );
        assert_eq!(documents[2]["note"], "locked by ResourceLock 'lock-1'");
        assert_eq!(documents[0]["status"]["conditions"][0]["reason"], "Available");
    }

    #[test]
    fn a_share_called_like_a_word_of_the_api_does_not_change_it() {
        let mut documents = vec![share("Ready"), share("True")];
        redact_names(&mut documents);
        let condition = &documents[0]["status"]["conditions"][0];
        assert_eq!(
            (&condition["type"], &condition["status"]),
            (&json!("Ready"), &json!("True"))
        );
        assert_eq!(documents[0]["metadata"]["name"], "share-1");
    }

    #[test]
    fn only_whole_names_are_replaced() {
        let names = BTreeMap::from([
            ("a".to_owned(), "share-1".to_owned()),
            ("a-b".to_owned(), "share-2".to_owned()),
        ]);
        assert_eq!(
            replaced("a, a-b, a-b-c, ab, 'a'", &names),
            "share-1, share-2, a-b-c, ab, 'share-1'"
        );
    }
}
