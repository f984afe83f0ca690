//! How fast shares come and go, beside the floors in the same run: the same commands sent bare to Ceph, and a bare client
//! making the same writes to the API server.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use serde_json::json;
use shoal_crds::{Protocol, Share, ShareSpec, ShareStatus, condition::types, names::FINALIZER};
use tokio::{sync::oneshot, task::JoinSet};

use crate::{
    lab::process::Process,
    world::{Operator, OperatorOptions, World, condition, until},
};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Shares in each run.
    pub shares: usize,
    /// How many at once, one run each.
    pub concurrency: Vec<usize>,
}

/// One line of the table.
#[derive(Debug)]
struct Run {
    what: String,
    at_once: usize,
    created: Latencies,
    deleted: Latencies,
    /// CPU milliseconds per share: operator, API server, etcd.
    cpu: [f64; 3],
    rss_mb: f64,
}

/// Latencies of one phase.
#[derive(Debug)]
struct Latencies {
    sorted: Vec<Duration>,
    took: Duration,
}

impl Latencies {
    fn new(mut all: Vec<Duration>, took: Duration) -> Self {
        all.sort();
        Self { sorted: all, took }
    }

    fn percentile(&self, percent: usize) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        self.sorted
            .get(last * percent / 100)
            .map_or(f64::NAN, |d| d.as_secs_f64() * 1e3)
    }

    fn rate(&self) -> f64 {
        count(self.sorted.len()) / self.took.as_secs_f64()
    }
}

fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::NAN, f64::from)
}

/// Measures a world's backend: through the operator, and the floors. Gives the table.
pub async fn shares(world: &World, backend: &str, protocol: Protocol, options: &Options) -> Result<String> {
    world
        .add_type(
            &format!("bench-{backend}"),
            json!({"backendNames": [backend]}),
            false,
        )
        .await?;
    let mut runs = Vec::new();
    for &at_once in &options.concurrency {
        let operator = started(world).await?;
        let ready: Api<shoal_crds::ShareBackend> = world.cluster_api();
        until(&ready, backend, "to be Ready", |b| {
            b.status
                .as_ref()
                .is_some_and(|s| condition(&s.conditions, types::READY).is_some_and(|c| c.0 == "True"))
        })
        .await?;
        runs.push(through_operator(world, &operator, backend, protocol, at_once, options.shares).await?);
        operator.terminate()?;
        runs.push(bare_client(world, backend, protocol, at_once, options.shares).await?);
    }
    Ok(table(&runs))
}

async fn started(world: &World) -> Result<Operator> {
    let options = OperatorOptions {
        name: "bench".into(),
        flags: vec!["--log=info".into()],
        failpoints: String::new(),
        api_port: None,
    };
    let operator = world.operator(&options).await?;
    operator.wait_until_leading().await?;
    Ok(operator)
}

async fn through_operator(
    world: &World,
    operator: &Operator,
    backend: &str,
    protocol: Protocol,
    at_once: usize,
    shares: usize,
) -> Result<Run> {
    let namespace = world.namespace("bench").await?;
    let api: Api<Share> = world.api(&namespace);
    let meter = Meter::start(world, Some(operator.process()))?;
    let events = Events::watch(api.clone());
    let created = timed(at_once, shares, |n| {
        let (api, events, share) = (api.clone(), events.clone(), share(backend, protocol, n));
        async move {
            let ready = events.once(&share.name_any(), true);
            api.create(&PostParams::default(), &share).await?;
            ready.await.context("the watch ended")
        }
    })
    .await?;
    let rss_mb = rss_mb(operator.process().pid)?;
    let deleted = timed(at_once, shares, |n| {
        let (api, events) = (api.clone(), events.clone());
        async move {
            let gone = events.once(&name(n), false);
            api.delete(&name(n), &DeleteParams::default()).await?;
            gone.await.context("the watch ended")
        }
    })
    .await?;
    Ok(Run {
        what: format!("{backend} {}", protocol.as_str()),
        at_once,
        created,
        deleted,
        cpu: meter.stop(shares)?,
        rss_mb,
    })
}

/// A client that does nothing but make the writes that a share costs: the user's, and the operator's.
async fn bare_client(
    world: &World,
    backend: &str,
    protocol: Protocol,
    at_once: usize,
    shares: usize,
) -> Result<Run> {
    let namespace = world.namespace("bare").await?;
    let api: Api<Share> = world.api(&namespace);
    let born_held = world.knows_mutating_policies().await?;
    let meter = Meter::start(world, None)?;
    let created = timed(at_once, shares, |n| {
        let (api, share) = (api.clone(), share(backend, protocol, n));
        async move {
            let mut share = api.create(&PostParams::default(), &share).await?;
            if !born_held {
                let patch = json!({"metadata": {"finalizers": [FINALIZER]}});
                share = api
                    .patch(&share.name_any(), &PatchParams::default(), &Patch::Merge(&patch))
                    .await?;
            }
            write_status(&api, &share, false).await?;
            let annotations = json!({
                "apiVersion": "shoal.storage/v1alpha1",
                "kind": "Share",
                "metadata": {"name": share.name_any(), "annotations": example_annotations()},
            });
            let params = PatchParams::apply("shoal/annotations").force();
            api.patch(&share.name_any(), &params, &Patch::Apply(&annotations))
                .await?;
            write_status(&api, &share, true).await
        }
    })
    .await?;
    let deleted = timed(at_once, shares, |n| {
        let api = api.clone();
        async move {
            api.delete(&name(n), &DeleteParams::default()).await?;
            let patch = json!({"metadata": {"finalizers": []}});
            api.patch(&name(n), &PatchParams::default(), &Patch::Merge(&patch))
                .await?;
            Ok(())
        }
    })
    .await?;
    Ok(Run {
        what: "bare kube client".into(),
        at_once,
        created,
        deleted,
        cpu: meter.stop(shares)?,
        rss_mb: f64::NAN,
    })
}

async fn write_status(api: &Api<Share>, share: &Share, last: bool) -> Result<()> {
    let long = "x".repeat(60);
    let names = if last {
        &["AccessApplied", "Exported", "Provisioned", "Ready", "Scheduled"][..]
    } else {
        &["Ready", "Reconciling", "Scheduled"][..]
    };
    let conditions: Vec<_> = names
        .iter()
        .map(|type_| json!({"type": type_, "status": "True", "reason": "Available", "message": long, "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}))
        .collect();
    let mut status = json!({
        "observedGeneration": 1, "phase": "Creating", "conditions": conditions, "shareTypeName": "bench", "backendName": "bench",
        "fsid": long, "fsName": "bench", "fsID": 1, "capabilities": {"shrink": false, "root": {"uid": 0, "gid": 0, "mode": "0755"}, "squash": "None"},
    });
    if last {
        status["phase"] = json!("Available");
        status["handle"] = json!(long);
        status["size"] = json!("1Gi");
        status["access"] = json!({"total": 0, "applied": 0, "failed": 0});
        status["exportLocations"] = json!([{"id": "0123456789abcdef", "path": format!("192.0.2.1:/{long}"), "protocol": "NFS", "preferred": true,
            "metadata": {"fsName": "bench", "cephFSID": long, "subvolumePath": format!("/{long}/{long}")}}]);
    }
    let patch = json!({"apiVersion": "shoal.storage/v1alpha1", "kind": "Share", "metadata": {"name": share.name_any()}, "status": status});
    api.patch_status(
        &share.name_any(),
        &PatchParams::apply("shoal/share").force(),
        &Patch::Apply(&patch),
    )
    .await?;
    Ok(())
}

fn example_annotations() -> serde_json::Value {
    let long = "x".repeat(60);
    json!({
        "shoal.storage/export-location": format!("192.0.2.1:/{long}"),
        "shoal.storage/export-locations": long.repeat(5),
        "shoal.storage/protocol": "NFS",
        "shoal.storage/fs-name": "bench",
        "shoal.storage/mount-options": "fs=bench",
        "shoal.storage/export-revision": "0123456789abcdef",
    })
}

fn name(n: usize) -> String {
    format!("share-{n}")
}

fn share(backend: &str, protocol: Protocol, n: usize) -> Share {
    let size = shoal_crds::Size::from_bytes(1 << 30).expect("1Gi is a size");
    Share::new(
        &name(n),
        ShareSpec {
            share_type_name: Some(format!("bench-{backend}")),
            protocol,
            size,
        },
    )
}

/// Does a thing `times` times, so many at once, and takes each one's time.
async fn timed<F>(at_once: usize, times: usize, work: impl Fn(usize) -> F) -> Result<Latencies>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    let mut all = Vec::with_capacity(times);
    let next = AtomicUsize::new(0);
    while all.len() < times {
        while tasks.len() < at_once && next.load(Ordering::Relaxed) < times {
            let work = work(next.fetch_add(1, Ordering::Relaxed));
            tasks.spawn(async move {
                let started = Instant::now();
                tokio::time::timeout(Duration::from_mins(2), work)
                    .await
                    .context("one took more than two minutes")??;
                anyhow::Ok(started.elapsed())
            });
        }
        match tasks.join_next().await {
            Some(done) => all.push(done??),
            None => bail!("fewer were done than asked for"),
        }
    }
    Ok(Latencies::new(all, started.elapsed()))
}

/// Waits for shares to be Ready, or gone, by one watch for all of them.
#[derive(Clone)]
struct Events(Arc<Mutex<Waiting>>);

/// Who waits for the share of this name to be Ready (true) or gone (false).
type Waiting = HashMap<(String, bool), oneshot::Sender<()>>;

impl Events {
    fn watch(api: Api<Share>) -> Self {
        let events = Self(Arc::default());
        let (waiting, mut stream) = (
            Arc::downgrade(&events.0),
            watcher(api, watcher::Config::default()).boxed(),
        );
        tokio::spawn(async move {
            while let Some(event) = stream.next().await {
                let Some(waiting) = waiting.upgrade() else { return };
                let key = match event {
                    Ok(watcher::Event::Delete(share)) => (share.name_any(), false),
                    Ok(watcher::Event::Apply(share) | watcher::Event::InitApply(share))
                        if share.status.as_ref().is_some_and(is_ready) =>
                    {
                        (share.name_any(), true)
                    }
                    _ => continue,
                };
                if let Some(sender) = waiting.lock().expect("not poisoned").remove(&key) {
                    // Whoever waited has given up.
                    let _ = sender.send(());
                }
            }
        });
        events
    }

    fn once(&self, name: &str, ready: bool) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.0
            .lock()
            .expect("not poisoned")
            .insert((name.to_owned(), ready), sender);
        receiver
    }
}

fn is_ready(status: &ShareStatus) -> bool {
    condition(&status.conditions, types::READY).is_some_and(|(status, _)| status == "True")
}

/// CPU time of the processes that a share costs.
struct Meter {
    processes: [Option<u32>; 3],
    before: [f64; 3],
}

impl Meter {
    fn start(world: &World, operator: Option<&Process>) -> Result<Self> {
        let control_plane = world.lab.control_plane()?;
        let of = |name: &str| {
            control_plane
                .processes()
                .iter()
                .find(|p| p.name.contains(name))
                .map(|p| p.pid)
        };
        let processes = [operator.map(|p| p.pid), of("kube-apiserver"), of("etcd")];
        Ok(Self {
            processes,
            before: cpu_ms(processes)?,
        })
    }

    fn stop(self, shares: usize) -> Result<[f64; 3]> {
        let after = cpu_ms(self.processes)?;
        Ok([0, 1, 2].map(|i| (after[i] - self.before[i]) / count(shares)))
    }
}

fn cpu_ms(processes: [Option<u32>; 3]) -> Result<[f64; 3]> {
    let mut all = [f64::NAN; 3];
    for (ms, pid) in all.iter_mut().zip(processes) {
        let Some(pid) = pid else { continue };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .context("no name in stat")?
            .1
            .split_whitespace()
            .collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        // Linux counts in hundredths of a second towards user space, whatever its own clock is.
        *ms = ticks * 10.0;
    }
    Ok(all)
}

fn rss_mb(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .context("no VmRSS")?;
    let kb: f64 = line.split_whitespace().nth(1).context("no VmRSS")?.parse()?;
    Ok(kb / 1024.0)
}

fn table(runs: &[Run]) -> String {
    let mut text = String::from(
        "| what | at once | create→Ready p50 / p95 ms | shares/s | delete→gone p50 / p95 ms | shares/s | CPU ms/share operator / API server / etcd | operator RSS MB |\n|---|---|---|---|---|---|---|---|\n",
    );
    let number = |n: f64| {
        if n.is_nan() {
            "–".to_owned()
        } else {
            format!("{n:.1}")
        }
    };
    for run in runs {
        // Writing into a String can't fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} / {} | {} | {} / {} | {} | {} / {} / {} | {} |",
            run.what,
            run.at_once,
            number(run.created.percentile(50)),
            number(run.created.percentile(95)),
            number(run.created.rate()),
            number(run.deleted.percentile(50)),
            number(run.deleted.percentile(95)),
            number(run.deleted.rate()),
            number(run.cpu[0]),
            number(run.cpu[1]),
            number(run.cpu[2]),
            number(run.rss_mb),
        );
    }
    text
}

/// The commands that a share's coming and going costs, sent bare to the mgr one after the other: the other floor.
/// Milliseconds at p50 and p95, to make and to remove one.
pub fn bare_commands(world: &World, filesystem: &str, protocol: Protocol, times: usize) -> Result<String> {
    let ceph = world.lab.ceph()?;
    let nfs = if protocol == Protocol::NFS {
        ceph.nfs_cluster()
    } else {
        ""
    };
    let script = include_str!("bare_commands.py");
    let words = ["python3", "-c", script, filesystem, nfs, &times.to_string()];
    ceph.command(&words)
}
