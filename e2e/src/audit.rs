//! What operators did, as those they did it to have it: the audit logs of the API server and of Ceph.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use serde_json::Value;

use crate::{
    storage::Storage,
    world::{SYSTEM_NAMESPACE, World, eventually},
};

impl World {
    /// Where the audit log ends now.
    pub fn audit_mark(&self) -> Result<u64> {
        Ok(fs::metadata(self.lab.control_plane()?.audit_log())?.len())
    }

    /// What operators asked to write since then, in order, without Leases; waits until all of it is answered. A write may be
    /// seen before the API server has logged its answer, but never before it has logged that it came.
    pub async fn writes_since(&self, mark: u64) -> Result<Vec<Write>> {
        let patience = Duration::from_secs(10);
        eventually(
            "the answer to each write in the audit log",
            patience,
            async || self.answered_since(mark),
        )
        .await
    }

    /// An error if an operator lacks a right to what it asked for, as the authorizer says in the audit log. (Admission says no with
    /// the same code.) An API server that has just started knows no roles yet, so it is asked again.
    pub async fn has_refused_nothing(&self) -> Result<()> {
        let begin = self.searched.load(Ordering::Relaxed);
        let text = self.audited_since(begin)?;
        let (who, forbidden) = (
            format!(r#""username":"{}""#, operator()),
            r#""authorization.k8s.io/decision":"forbid""#,
        );
        for line in text
            .lines()
            .filter(|line| line.contains(&who) && line.contains(forbidden))
        {
            let event: Value = serde_json::from_str(line)?;
            let object = &event["objectRef"];
            let word = |value: &Value| value.as_str().map(str::to_owned);
            let asked = ResourceAttributes {
                group: word(&object["apiGroup"]),
                resource: word(&object["resource"]),
                subresource: word(&object["subresource"]),
                namespace: word(&object["namespace"]),
                name: word(&object["name"]),
                verb: word(&event["verb"]),
                ..ResourceAttributes::default()
            };
            ensure!(
                self.may(&operator(), asked).await?,
                "the operator's role lacks a right: {line}"
            );
        }
        self.searched
            .fetch_max(begin + text.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The audit log's lines since then, but for one that is being written.
    fn audited_since(&self, mark: u64) -> Result<String> {
        let mut file = File::open(self.lab.control_plane()?.audit_log())?;
        file.seek(SeekFrom::Start(mark))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
        Ok(text)
    }

    /// None while a write is not answered.
    fn answered_since(&self, mark: u64) -> Result<Option<Vec<Write>>> {
        let text = self.audited_since(mark)?;
        let user = operator();
        let mut open = BTreeSet::new();
        let mut writes = Vec::new();
        for line in text.lines() {
            let event: Value = serde_json::from_str(line)?;
            let id = event["auditID"].as_str().unwrap_or_default().to_owned();
            if event["stage"] == "RequestReceived" {
                if event["user"]["username"] == user && event["objectRef"]["resource"] != "leases" {
                    open.insert(id);
                }
            } else if open.remove(&id) {
                writes.push(Write::read(&event)?);
            }
        }
        writes.sort_by_key(|write| write.at);
        Ok(open.is_empty().then_some(writes))
    }
}

/// The user that operators are.
fn operator() -> String {
    format!("system:serviceaccount:{SYSTEM_NAMESPACE}:shoal")
}

impl Storage {
    /// All commands that managers were sent by operators so far, as Ceph's audit log has them.
    pub fn commands(&self) -> Result<Vec<Command>> {
        let log = self.ceph().path_outside("/var/log/ceph/ceph.audit.log");
        let text = fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let user = format!("entity='client.{}'", self.ceph().user_id());
        let command = |line: &str| {
            // When, by which daemon, and what: a manager's own lines are in the order of its work.
            let daemon = line.split_whitespace().nth(1)?;
            let by = line.split("from='").nth(1)?.split('\'').next()?;
            (daemon.starts_with("mgr.") && line.contains(&user)).then(|| Command {
                by: by.into(),
                line: line.into(),
            })
        };
        Ok(text.lines().filter_map(command).collect())
    }
}

/// A command that a manager was sent by an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Which connection.
    pub by: String,
    /// The line of Ceph's audit log.
    pub line: String,
}

impl Command {
    /// Which it is, in Ceph's words.
    pub fn prefix(&self) -> &str {
        let rest = self.line.split("\"prefix\":").nth(1).unwrap_or_default();
        rest.split('"').nth(1).unwrap_or_default()
    }
}

/// A write to the API server, as its audit log has it.
#[derive(Clone, Debug)]
pub struct Write {
    /// When the request came.
    pub at: Timestamp,
    /// Which token it came with: each operator has one of its own.
    pub by: String,
    /// `patch`, say.
    pub verb: String,
    /// `shares`, or `shares/status`.
    pub resource: String,
    /// The object's namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The answer.
    pub code: i64,
}

impl Write {
    fn read(event: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &event["objectRef"];
        let resource = match object["subresource"].as_str() {
            Some(sub) => format!("{}/{sub}", text(&object["resource"])),
            None => text(&object["resource"]),
        };
        Ok(Self {
            at: text(&event["requestReceivedTimestamp"])
                .parse()
                .context("requestReceivedTimestamp")?,
            by: text(&event["user"]["extra"]["authentication.kubernetes.io/credential-id"][0]),
            verb: text(&event["verb"]),
            resource,
            namespace: text(&object["namespace"]),
            name: text(&object["name"]),
            code: event["responseStatus"]["code"].as_i64().unwrap_or_default(),
        })
    }
}

/// How often each resource was written, as `patch shares/status`.
pub fn by_resource(writes: &[Write]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for write in writes {
        *counts
            .entry(format!("{} {}", write.verb, write.resource))
            .or_default() += 1;
    }
    counts
}

/// That all writes of one replica came before all of the other, and that both wrote something; how many each wrote.
pub fn one_after_the_other(writes: &[Write]) -> Result<(usize, usize)> {
    let first = writes.first().context("nobody wrote anything")?.by.clone();
    let change = writes
        .iter()
        .position(|w| w.by != first)
        .context("one replica wrote everything")?;
    let late: Vec<_> = writes[change..].iter().filter(|w| w.by == first).collect();
    ensure!(
        late.is_empty(),
        "the first replica still wrote after the second had begun: {late:#?}"
    );
    let replicas: BTreeSet<_> = writes.iter().map(|w| &w.by).collect();
    ensure!(replicas.len() == 2, "{replicas:?} wrote");
    Ok((change, writes.len() - change))
}
