//! What Shoal costs and how fast it is, beside the floors in the same run. One file a measurement.

mod bursts;
mod floors;
mod growth;
mod latency;
pub mod meter;
mod report;
mod rest;
mod share;
mod tenant;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use clap::{Args, ValueEnum};
use report::Report;
use serde_json::json;
use shoal_crds::{Protocol, ShareBackend, condition::types};

use crate::{
    lab::{CephOptions, LabOptions},
    world::{Operator, OperatorOptions, PATIENCE, World, condition, eventually, until},
};

/// What is measured, and how much of it.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Which; all of them, if none is named
    #[arg(value_enum)]
    pub what: Vec<What>,
    /// Shares in a run of `share`, unless more are at once
    #[arg(long, default_value_t = 200)]
    pub shares: usize,
    /// How many at once, one run of `share` each
    #[arg(long, value_delimiter = ',', default_value = "1,32,1000")]
    pub at_once: Vec<usize>,
    /// The same on Ceph; above 100 only CephFS shares
    #[arg(long, value_delimiter = ',', default_value = "1,8,32,100,1000")]
    pub at_once_on_ceph: Vec<usize>,
    /// Shares in a run of `share` on Ceph, unless more are at once
    #[arg(long, default_value_t = 50)]
    pub shares_on_ceph: usize,
    /// How often each run of `share` is made: operator and floors take turns
    #[arg(long, default_value_t = 2)]
    pub rounds: usize,
    /// Shares in `rest`
    #[arg(long, default_value_t = 10_000)]
    pub at_rest: usize,
    /// With a rule each
    #[arg(long)]
    pub with_rules: bool,
    /// How long `rest` and `scans` watch, in seconds
    #[arg(long, default_value_t = 600)]
    pub seconds: u64,
    /// CephFS shares in `scans`
    #[arg(long, default_value_t = 1000)]
    pub scanned: usize,
    /// Rules in `bursts`
    #[arg(long, default_value_t = 1000)]
    pub rules: usize,
    /// Shares in `growth`
    #[arg(long, value_delimiter = ',', default_value = "1000,3000,10000,30000")]
    pub sizes: Vec<usize>,
    /// How many of them one tenant deletes in the end
    #[arg(long, default_value_t = 10_000)]
    pub deletes: usize,
    /// Without Ceph
    #[arg(long)]
    pub simulated: bool,
    /// Write all figures to this file, too
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// A measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Shares and rules coming, changing and going, one and many at once
    Share,
    /// Many shares at rest, and a restart among them
    Rest,
    /// How much of the mgr's time looks for drift take
    Scans,
    /// Many rule changes at once
    Bursts,
    /// What a share costs when there are more and more; and one tenant's deletions beside another's share
    Growth,
}

/// Measures, with this program as the operator. Gives the report as text.
pub async fn run(program: &Path, options: &Options) -> Result<String> {
    let mut report = Report::begin()?;
    let chosen = |what| options.what.is_empty() || options.what.contains(&what);
    let o = options;
    if chosen(What::Share) {
        let world = world(program, false).await?;
        world.add_simulated_backend().await?;
        let place = share::Place {
            backend: "simulated",
            protocol: Protocol::NFS,
            shares: o.shares,
            at_once: &o.at_once,
            rounds: o.rounds,
        };
        share::measure(&world, &mut report, place).await?;
    }
    if chosen(What::Share) && !o.simulated {
        let world = world(program, true).await?;
        world.add_ceph_backends().await?;
        for protocol in [Protocol::NFS, Protocol::CephFS] {
            let place = share::Place {
                backend: "cephfs",
                protocol,
                shares: o.shares_on_ceph,
                at_once: &o.at_once_on_ceph,
                rounds: 1,
            };
            share::measure(&world, &mut report, place).await?;
        }
    }
    if chosen(What::Bursts) {
        let world = world(program, false).await?;
        world.add_simulated_backend().await?;
        bursts::measure(&world, &mut report, o.rules).await?;
    }
    if chosen(What::Scans) && !o.simulated {
        let world = world(program, true).await?;
        world.add_ceph_backends().await?;
        rest::scans(&world, &mut report, o.scanned, Duration::from_secs(o.seconds)).await?;
    }
    if chosen(What::Rest) {
        let world = world(program, false).await?;
        let span = Duration::from_secs(o.seconds);
        rest::measure(&world, &mut report, o.at_rest, o.with_rules, span).await?;
    }
    if chosen(What::Growth) {
        let world = world(program, false).await?;
        world.add_simulated_backend().await?;
        growth::measure(&world, &mut report, &o.sizes, o.deletes).await?;
    }
    if let Some(path) = &o.json {
        fs::write(path, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(report.text())
}

async fn world(program: &Path, ceph: bool) -> Result<World> {
    let mut world = World::start(&LabOptions {
        ceph: ceph.then(CephOptions::default),
        controller_manager: false,
        ..LabOptions::default()
    })
    .await?;
    world.use_operator(program.to_owned());
    Ok(world)
}

/// A type whose shares go to this backend.
async fn type_on(world: &World, backend: &str) -> Result<String> {
    let name = format!("bench-{backend}");
    world
        .add_type(&name, json!({"backendNames": [backend]}), false)
        .await?;
    Ok(name)
}

/// The flag that lets simulated backends outlive the operator.
fn state_that_stays(world: &World) -> Result<String> {
    let folder = world.lab.folder().join("state");
    fs::create_dir_all(&folder)?;
    Ok(format!("--simulated-state={}", folder.display()))
}

/// Starts an operator, and waits until it leads.
async fn started(world: &World, flags: &[String]) -> Result<Operator> {
    let options = OperatorOptions {
        // Always the same, so that it need not wait for the Lease of one before.
        name: "bench".into(),
        flags: [&["--log=info".into()], flags].concat(),
        failpoints: String::new(),
        api_port: None,
    };
    let operator = world.operator(&options).await?;
    operator.wait_until_leading().await?;
    Ok(operator)
}

/// Starts an operator, and waits until it has found these backends.
async fn operator_on(world: &World, backends: &[&str], flags: &[String]) -> Result<Operator> {
    let operator = started(world, flags).await?;
    // What the objects say may be the word of the operator before this one.
    let wanted = meter::count(backends.len());
    eventually("the backends to be asked", PATIENCE, async || {
        let metrics = meter::Metrics::read(&operator).await?;
        let asked = metrics.sum("shoal_reconcile_total", &["kind=\"ShareBackend\""]);
        Ok((asked >= wanted).then_some(()))
    })
    .await?;
    until_ready(world, backends).await?;
    Ok(operator)
}

async fn until_ready(world: &World, backends: &[&str]) -> Result<()> {
    for name in backends {
        let api = world.cluster_api::<ShareBackend>();
        until(&api, name, "to be Ready", |b| {
            b.status.as_ref().is_some_and(|s| {
                s.observed_generation == b.metadata.generation
                    && condition(&s.conditions, types::READY).is_some_and(|c| c.0 == "True")
            })
        })
        .await?;
    }
    Ok(())
}
