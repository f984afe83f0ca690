//! Whether a share costs the same however many there are; and whether one tenant's many deletions hold up another's one
//! share.

use anyhow::Result;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use shoal_crds::{Protocol, ShareBackend};
use tokio::sync::oneshot::Receiver;

use super::{
    latency::{Latencies, Until, timed},
    meter::{Meter, count, memory_mb},
    operator_on,
    report::{Report, Table},
    tenant::{Tenant, share_name},
};
use crate::world::World;

const AT_ONCE: usize = 32;
/// What each command of the backend takes while many are deleted: with nothing to wait for there would be no queue.
const COMMAND_MILLISECONDS: u32 = 5;
/// How many shares the other tenant makes meanwhile, one after the other.
const OTHERS: usize = 20;
/// A cost grows by less than a quarter when the number grows tenfold.
const FLAT: f64 = 0.1;

/// Grows to each of these sizes; then one tenant deletes so many of them.
pub async fn measure(world: &World, report: &mut Report, sizes: &[usize], deletes: usize) -> Result<()> {
    let share_type = super::type_on(world, "simulated").await?;
    let operator = operator_on(world, &["simulated"], &[]).await?;
    let tenant = Tenant::new(world, &share_type, Protocol::NFS).await?;
    let mut table = Table::new(
        "Growth, simulated NFS, 32 at once: what a share more costs",
        &[
            "shares",
            "shares/s",
            "p50 ms",
            "p99 ms",
            "CPU ms operator",
            "API server",
            "etcd",
            "operator MB",
        ],
    );
    let (mut before, mut costs) = (0, Vec::new());
    for &size in sizes {
        let meter = Meter::start(world, Some(&operator))?;
        let latencies = tenant.make(AT_ONCE, before..size).await?;
        let cpu = meter.per(size - before);
        let mut row = vec![json!(size), json!(latencies.rate())];
        row.extend([50, 99].map(|p| json!(latencies.percentile(p))));
        row.extend(cpu.map(|ms| json!(ms)));
        row.push(json!(memory_mb(&operator)?[0]));
        // The next size may take long.
        println!("{size} shares: {row:?}");
        table.row(row);
        costs.push((count(before + size) / 2.0, cpu[0]));
        before = size;
    }
    report.add(table);
    let aim = "operator's CPU per share ~ shares^x; x";
    report.at_most(aim, FLAT, exponent(&costs));
    tenants(world, report, &tenant, deletes.min(before)).await?;
    operator.terminate()
}

/// The slope of the straight line through the logarithms, by least squares.
fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<_> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let n = count(logs.len());
    let mean = |f: fn(&(f64, f64)) -> f64| logs.iter().map(f).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let covariance: f64 = logs.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let variance: f64 = logs.iter().map(|p| (p.0 - x).powi(2)).sum();
    covariance / variance
}

async fn tenants(world: &World, report: &mut Report, many: &Tenant, deletes: usize) -> Result<()> {
    let backends = world.cluster_api::<ShareBackend>();
    let slower = json!({"spec": {"simulated": {"latencyMilliseconds": COMMAND_MILLISECONDS}}});
    backends
        .patch("simulated", &PatchParams::default(), &Patch::Merge(&slower))
        .await?;
    let share_type = super::type_on(world, "simulated").await?;
    let other = Tenant::new(world, &share_type, Protocol::NFS).await?;
    super::until_ready(world, &["simulated"]).await?;
    // The first share after a change of the backend is not what is measured.
    other.make(1, 0..1).await?;
    let alone = other.make(1, 1..OTHERS + 1).await?;

    let (mut queued, asked) = ask_to_delete(many, deletes).await?;
    let (left, meanwhile) = (queued.len(), other.make(1, OTHERS + 1..2 * OTHERS).await?);
    let gone = queued.iter_mut().filter_map(|gone| gone.try_recv().ok()).count();
    let mut table = Table::new(
        &format!(
            "Of one tenant's {deletes} deletions {left} are in the queue, and {gone} of them done when another has made \
             {} shares one after the other",
            meanwhile.count()
        ),
        &["who", "p50 ms", "p95 ms", "max ms", "per second"],
    );
    let mut row = |who: &str, latencies: &Latencies| {
        let mut row = vec![json!(who)];
        row.extend([50, 95, 100].map(|p| json!(latencies.percentile(p))));
        row.push(json!(latencies.rate()));
        table.row(row);
    };
    row("who deletes, the requests alone", &asked);
    row("the other, before", &alone);
    row("the other, meanwhile", &meanwhile);
    report.add(table);
    Ok(())
}

/// Asks for shares to be deleted, without waiting for it. Gives those that are still to go.
async fn ask_to_delete(tenant: &Tenant, shares: usize) -> Result<(Vec<Receiver<()>>, Latencies)> {
    let mut queued: Vec<_> = (0..shares)
        .map(|n| tenant.shares.once(&share_name(n), Until::Gone))
        .collect();
    let asked = timed(AT_ONCE, 0..shares, |n| {
        let api = tenant.shares.api().clone();
        async move {
            api.delete(&share_name(n), &DeleteParams::default()).await?;
            Ok(())
        }
    })
    .await?;
    queued.retain_mut(|gone| gone.try_recv().is_err());
    Ok((queued, asked))
}
