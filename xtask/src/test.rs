//! `cargo xtask test`: every suite, and the sum.

mod suite;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use shoal_e2e::lab::{self, CephOptions, CephRelease, KubernetesRelease, Lab, LabOptions, Steps};

use crate::image;
use crate::workspace::{cargo, metadata, run as run_command, target_folder};
use suite::{AtLength, Outcome, Suite};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Leave out the suites that need servers (e2e/tests)
    #[arg(long)]
    fast: bool,
    /// Instead of all others the suites that take longer than stands before every change, in full, on each Ceph release
    #[arg(long, conflicts_with = "fast")]
    faults: bool,
    /// Instead of all others the suite in which a kubelet runs the operator's image, on each Ceph release
    #[arg(long, conflicts_with_all = ["fast", "faults"])]
    node: bool,
}

/// The suites of `--faults`, which take longer than stands before every change: real servers are killed and stopped, and
/// namespaces of hundreds of shares deleted.
const FAULTS: [AtLength; 4] = [
    AtLength {
        suite: "ceph_faults.rs",
        arguments: &["--ignored"],
        variable: Some(("SHOAL_E2E_FAULTS", "full")),
    },
    AtLength {
        suite: "ceph_exports.rs",
        arguments: &["--ignored"],
        variable: None,
    },
    AtLength {
        suite: "ceph_deletions.rs",
        arguments: &[],
        variable: Some(("SHOAL_E2E_NAMESPACE_SHARES", "200")),
    },
    AtLength {
        suite: "ceph_ensure.rs",
        arguments: &[],
        variable: Some(("SHOAL_E2E_ENSURE_SHARES", "50")),
    },
];

/// The suite of `--node`, which needs the operator's image.
const NODE: [AtLength; 1] = [AtLength {
    suite: "node.rs",
    arguments: &["--ignored", "--nocapture"],
    variable: None,
}];

/// The lab's versions, each at least once.
const RELEASES: [(CephRelease, KubernetesRelease); 2] = [
    (CephRelease::Reef, KubernetesRelease::V1_37),
    (CephRelease::Tentacle, KubernetesRelease::V1_34),
];

/// The suites that are run on the other Ceph release too: what clients and other tenants meet, and what is repaired.
const ON_BOTH: [&str; 5] = [
    "ceph_nfs",
    "ceph_native",
    "ceph_ownership",
    "ceph_drift",
    "ceph_deletions",
];

/// How many of the suites that need servers run at the same time.
const AT_ONCE: usize = 2;

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let start = Instant::now();
    if !arguments.fast {
        check_host()?;
    }
    let (mut suites, operator) = build(arguments)?;
    if arguments.node {
        // Minutes the first time. The suite then finds it done.
        image::run(&image::Arguments::default())?;
    }
    println!("built in {:.0} s", start.elapsed().as_secs_f64());

    suites.sort_by(|a, b| a.name.cmp(&b.name));
    let (with_servers, without): (Vec<_>, Vec<_>) = suites.iter().partition(|suite| suite.needs_servers);
    let mut outcomes = Vec::new();
    let at_length: Option<&[AtLength]> = match arguments {
        Arguments { faults: true, .. } => Some(&FAULTS),
        Arguments { node: true, .. } => Some(&NODE),
        _ => None,
    };
    match (&operator, at_length) {
        (Some(operator), Some(suites)) => {
            for how in suites {
                for suite in with_servers
                    .iter()
                    .filter(|suite| suite.name.ends_with(how.suite))
                {
                    for (release, _) in RELEASES {
                        outcomes.push(suite.run_at_length(operator, release, how)?);
                    }
                }
            }
        }
        (operator, _) => {
            for suite in without {
                outcomes.push(suite.run(None, None)?);
            }
            if let Some(operator) = operator {
                outcomes.extend(run_with_servers(&with_servers, operator)?);
            }
            outcomes.push(suite::documentation()?);
        }
    }

    println!("\n{:40} {:>7} {:>7} {:>9}", "suite", "passed", "failed", "time");
    for outcome in outcomes.iter().filter(|o| o.count() > 0) {
        println!(
            "{:40} {:>7} {:>7} {:>7.1} s",
            outcome.suite,
            outcome.passed,
            outcome.failed.len(),
            outcome.time.as_secs_f64()
        );
    }
    let failed: Vec<_> = outcomes
        .iter()
        .flat_map(|o| o.failed.iter().map(move |test| format!("{}: {test}", o.suite)))
        .collect();
    for test in &failed {
        println!("FAILED {test}");
    }
    println!("in all {:.0} s\n", start.elapsed().as_secs_f64());

    let sum = |count: fn(&Outcome) -> usize| outcomes.iter().map(count).sum::<usize>();
    let skipped = match sum(|o| o.ignored) {
        0 => String::new(),
        ignored => format!(", {ignored} skipped"),
    };
    println!("{} passed, {} failed{skipped}", sum(|o| o.passed), failed.len());
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs suites that need servers, each with a lab of its own, [`AT_ONCE`] at a time: they wait more than they work.
fn run_with_servers(suites: &[&Suite], operator: &Path) -> Result<Vec<Outcome>> {
    let is_on_both = |suite: &Suite| {
        ON_BOTH
            .iter()
            .any(|name| suite.name.ends_with(&format!("{name}.rs")))
    };
    let other = |suite: &&&Suite| is_on_both(suite);
    let runs: Vec<_> = suites
        .iter()
        .map(|suite| (suite, None))
        .chain(
            suites
                .iter()
                .filter(other)
                .map(|suite| (suite, Some(CephRelease::Tentacle))),
        )
        .collect();
    let queue = Mutex::new(runs.into_iter());
    let lane = || -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        loop {
            let Some((suite, release)) = queue.lock().unwrap_or_else(PoisonError::into_inner).next() else {
                return Ok(outcomes);
            };
            outcomes.push(suite.run(Some(operator), release)?);
        }
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(lane)).collect();
        let mut outcomes = Vec::new();
        for lane in lanes {
            outcomes.extend(
                lane.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
            );
        }
        Ok(outcomes)
    })
}

/// What would only be missed after minutes of building.
fn check_host() -> Result<()> {
    const INSTEAD: &str = "cargo xtask test --fast runs the suites that need no servers";
    if !lab::is_root() {
        bail!("the Ceph suites need root: run this as root; {INSTEAD}");
    }
    if lab::find_on_host("go").is_none() && std::env::var_os("KUBEBUILDER_ASSETS").is_none() {
        bail!(
            "the API server is built with Go, and there is none on PATH: install Go 1.26 or newer, or set \
             KUBEBUILDER_ASSETS to a folder with kube-apiserver, kube-controller-manager, etcd and kubectl; {INSTEAD}"
        );
    }
    Ok(())
}

/// The suites, and the operator's program for those that need servers. The lab's own programs are made meanwhile.
fn build(arguments: &Arguments) -> Result<(Vec<Suite>, Option<PathBuf>)> {
    if arguments.fast {
        return Ok((suite::build()?, None));
    }
    thread::scope(|scope| {
        let labs = scope.spawn(|| {
            try_labs(arguments.node).inspect_err(|error| eprintln!("the lab does not start: {error:#}"))
        });
        let suites = suite::build()?;
        let operator = build_operator()?;
        build_plugin()?;
        labs.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .context("the suites need a lab, and it does not start")?;
        Ok((suites, Some(operator)))
    })
}

/// Starts and ends a lab of every version, and makes what suites use beside it, so that what is missing is told once, and nothing is made within a test.
/// There is a node of the default Kubernetes only.
fn try_labs(node: bool) -> Result<()> {
    for (release, kubernetes) in RELEASES {
        let kubernetes = if node {
            KubernetesRelease::default()
        } else {
            kubernetes
        };
        Lab::start(&LabOptions {
            ceph: Some(CephOptions {
                release,
                ..CephOptions::default()
            }),
            kubernetes: Some(kubernetes),
            node,
            ..LabOptions::default()
        })?;
    }
    lab::helm(&Steps::new(false))?;
    if !node {
        lab::prometheus(&Steps::new(false))?;
    }
    Ok(())
}

/// The operator's program, with its failpoints.
pub(crate) fn build_operator() -> Result<PathBuf> {
    run_command(&mut cargo([
        "build",
        "--locked",
        "--profile=lab",
        "--package=shoal-operator",
        "--features=failpoints",
    ]))?;
    Ok(target_folder(&metadata()?)?.join("lab/shoal"))
}

/// The kubectl plugin, beside the operator's program.
fn build_plugin() -> Result<()> {
    run_command(&mut cargo([
        "build",
        "--locked",
        "--profile=lab",
        "--package=kubectl-shoal",
    ]))
}
