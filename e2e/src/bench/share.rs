//! Shares and rules coming, changing and going: through the operator, and beside it the floors.

use anyhow::Result;
use serde_json::{Value, json};
use shoal_crds::Protocol;

use super::{
    floors::{BareClient, BareCommands, BareController, percentile},
    latency::Latencies,
    meter::{Meter, Requests, memory_mb},
    operator_on,
    report::{Report, Table},
    tenant::Tenant,
};
use crate::world::{Operator, World};

/// Above this many at once NFS is left out: each of its exports takes the mgr a fifth of a second.
const MOST_NFS_AT_ONCE: usize = 100;

/// What is measured where.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The ShareBackend.
    pub backend: &'a str,
    /// The shares' protocol.
    pub protocol: Protocol,
    /// Shares in a run, unless more are at once.
    pub shares: usize,
    /// How many at once, one run each.
    pub at_once: &'a [usize],
    /// How often each run is made; those who are compared take turns.
    pub rounds: usize,
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Operator,
    Controller,
    /// The same with the operator's live reads.
    ControllerThatReads,
    Client,
}

/// One phase of a run.
#[derive(Debug, Default)]
struct Phase {
    latencies: Latencies,
    /// CPU milliseconds per operation: operator, API server, etcd; one for each round.
    cpu: Vec<[f64; 3]>,
    /// What the operator asked of the API server in the last round.
    requests: String,
}

/// What one side did: create, rule change, delete.
#[derive(Debug, Default)]
struct Run {
    phases: [Phase; 3],
    memory_mb: f64,
}

const PHASES: [&str; 3] = ["create", "rule change", "delete"];

/// Measures, and compares with the floors.
pub async fn measure(world: &World, report: &mut Report, place: Place<'_>) -> Result<()> {
    let share_type = super::type_on(world, place.backend).await?;
    let on_ceph = world.lab.ceph().is_ok();
    let what = format!("{} {}", place.backend, place.protocol.as_str());
    let mut table = Table::new(
        &format!("Coming and going, {what}; latencies in ms"),
        &[
            "who",
            "at once",
            "what",
            "p50",
            "p95",
            "p99",
            "per second",
            "CPU ms operator",
            "API server",
            "etcd",
            "operator MB",
            "operator's API requests",
        ],
    );
    for &at_once in place.at_once {
        if place.protocol == Protocol::NFS && on_ceph && at_once > MOST_NFS_AT_ONCE {
            continue;
        }
        let shares = place.shares.max(at_once);
        let sides = [
            Side::Operator,
            Side::Controller,
            Side::ControllerThatReads,
            Side::Client,
        ];
        let mut runs = [(); 4].map(|()| Run::default());
        for _ in 0..place.rounds {
            for (side, run) in sides.into_iter().zip(&mut runs) {
                let tenant = Tenant::new(world, &share_type, place.protocol).await?;
                run_side(world, side, tenant, place, at_once, shares, run).await?;
            }
        }
        for (side, run) in sides.iter().zip(&runs) {
            rows(&mut table, &format!("{side:?}"), at_once, run);
        }
        let [operator, controller, reading, client] = &runs;
        if on_ceph && at_once == 1 {
            let bare = BareCommands::send(world, place.backend, place.protocol, shares)?;
            for (phase, commands) in [(0, &bare.make), (2, &bare.remove)] {
                commands_row(&mut table, PHASES[phase], commands);
                let floor = percentile(commands, 50) + client.phases[phase].latencies.percentile(50);
                let ratio = operator.phases[phase].latencies.percentile(50) / floor;
                let aim = format!("{what}, {} alone, times mgr and API floor", PHASES[phase]);
                report.at_most(&aim, 1.1, ratio);
            }
        } else if !on_ceph && at_once > 1 {
            for (phase, name) in PHASES.iter().enumerate() {
                let rate = |run: &Run| run.phases[phase].latencies.rate();
                for (floor, whose) in [
                    (controller, "the bare Controller's"),
                    (reading, "its, with our live reads"),
                ] {
                    let aim = format!("{what}, {name}, {at_once} at once, of {whose} rate");
                    report.at_least(&aim, 0.9, rate(operator) / rate(floor));
                }
            }
        }
    }
    report.add(table);
    Ok(())
}

async fn run_side(
    world: &World,
    side: Side,
    tenant: Tenant,
    place: Place<'_>,
    at_once: usize,
    shares: usize,
    run: &mut Run,
) -> Result<()> {
    match side {
        Side::Operator => {
            let operator = operator_on(world, &[place.backend], &[]).await?;
            as_user(world, Some(&operator), &tenant, at_once, shares, run).await?;
            run.memory_mb = memory_mb(&operator)?[1];
            operator.terminate()
        }
        Side::Controller | Side::ControllerThatReads => {
            let reads = side == Side::ControllerThatReads;
            let _controller = BareController::start(world, &tenant, reads).await?;
            as_user(world, None, &tenant, at_once, shares, run).await
        }
        Side::Client => {
            let client = BareClient::new(world, tenant).await?;
            run.phases[0]
                .take(world, None, client.make(at_once, shares))
                .await?;
            client.let_in(at_once, shares).await?;
            run.phases[1]
                .take(world, None, client.change(at_once, shares))
                .await?;
            client.shut_out(at_once, shares).await?;
            run.phases[2]
                .take(world, None, client.delete(at_once, shares))
                .await
        }
    }
}

/// A user asks, and somebody else does it.
async fn as_user(
    world: &World,
    operator: Option<&Operator>,
    tenant: &Tenant,
    at_once: usize,
    shares: usize,
    run: &mut Run,
) -> Result<()> {
    run.phases[0]
        .take(world, operator, tenant.make(at_once, 0..shares))
        .await?;
    tenant.let_in(at_once, 0..shares, |n| n).await?;
    run.phases[1]
        .take(world, operator, tenant.change(at_once, 0..shares))
        .await?;
    tenant.shut_out(at_once, 0..shares).await?;
    run.phases[2]
        .take(world, operator, tenant.delete(at_once, 0..shares))
        .await
}

impl Phase {
    async fn take(
        &mut self,
        world: &World,
        operator: Option<&Operator>,
        work: impl Future<Output = Result<Latencies>>,
    ) -> Result<()> {
        let (mark, meter) = (world.audit_mark()?, Meter::start(world, operator)?);
        let latencies = work.await?;
        self.cpu.push(meter.per(latencies.count()));
        self.requests = Requests::since(world, mark)?.text();
        self.latencies.add(latencies);
        Ok(())
    }

    fn cpu(&self, process: usize) -> f64 {
        let all: f64 = self.cpu.iter().map(|round| round[process]).sum();
        all / super::meter::count(self.cpu.len())
    }
}

fn rows(table: &mut Table, who: &str, at_once: usize, run: &Run) {
    for (phase, name) in run.phases.iter().zip(PHASES) {
        let memory = if who == "Operator" {
            run.memory_mb
        } else {
            f64::NAN
        };
        let latencies = &phase.latencies;
        let mut row = vec![json!(who), json!(at_once), json!(name)];
        row.extend([50, 95, 99].map(|p| json!(latencies.percentile(p))));
        row.push(json!(latencies.rate()));
        row.extend([0, 1, 2].map(|process| json!(phase.cpu(process))));
        row.extend([json!(memory), json!(phase.requests)]);
        table.row(row);
    }
}

fn commands_row(table: &mut Table, what: &str, sorted: &[f64]) {
    let mut row = vec![json!("Bare commands"), json!(1), json!(what)];
    row.extend([50, 95, 99].map(|p| json!(percentile(sorted, p))));
    row.extend([const { Value::Null }; 6]);
    table.row(row);
}
