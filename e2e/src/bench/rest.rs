//! Many shares at rest: what they cost, and what a restart among them costs.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use shoal_crds::Protocol;

use super::{
    floors::{BareCommands, percentile},
    meter::{Meter, Metrics, Requests, count, cpu_ms, memory_mb},
    operator_on,
    report::{Report, Table},
    tenant::Tenant,
};
use crate::world::{Operator, World};

/// Shares on one simulated backend: the state that outlives the operator is in a file, read and written as a whole by each
/// command, and so is kept small.
const SHARES_PER_BACKEND: usize = 100;
/// Backends that are filled side by side.
const SIDE_BY_SIDE: usize = 4;
/// How many requests are under way for each of them.
const AT_ONCE: usize = 8;
/// How often a starting operator is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// Fewer passes than this in [`CALM_FOR`] are looks for drift, and no longer the start.
const CALM: f64 = 20.0;
const CALM_FOR: Duration = Duration::from_secs(2);

/// Measures simulated shares, with a rule each or without, for this long.
pub async fn measure(
    world: &World,
    report: &mut Report,
    shares: usize,
    rules: bool,
    span: Duration,
) -> Result<()> {
    let flags = [super::state_that_stays(world)?];
    let backends: Vec<String> = (0..shares.div_ceil(SHARES_PER_BACKEND))
        .map(|n| format!("simulated-{n}"))
        .collect();
    for name in &backends {
        world.add_simulated_backend_named(name).await?;
    }
    let names: Vec<&str> = backends.iter().map(String::as_str).collect();
    let operator = operator_on(world, &names, &flags).await?;
    stream::iter(names.iter().enumerate())
        .map(|(n, name)| {
            let here = SHARES_PER_BACKEND.min(shares - n * SHARES_PER_BACKEND);
            fill(world, name, [Protocol::NFS, Protocol::CephFS][n % 2], here, rules)
        })
        .buffer_unordered(SIDE_BY_SIDE)
        .try_collect::<()>()
        .await?;
    until_calm(&operator).await?;

    let mut table = Table::new(
        &format!(
            "{shares} simulated shares, {} rules, at rest for {} s",
            if rules { shares } else { 0 },
            span.as_secs()
        ),
        &["what", "value"],
    );
    let writes = at_rest(world, &operator, &mut table, span).await?;
    operator.terminate()?;
    let restarted = restart(world, &names, &flags, shares).await?;
    restarted.rows(&mut table);
    let again = at_rest(
        world,
        &restarted.operator,
        &mut table,
        span.min(Duration::from_mins(1)),
    )
    .await?;
    report.add(table);
    report.at_most(
        &format!("operator MB at {shares} at rest"),
        100.0,
        memory_mb(&restarted.operator)?[0],
    );
    report.at_most("API writes at rest", 0.0, count(writes));
    report.at_most(
        "API writes at rest after a restart",
        0.0,
        count(again + restarted.requests.writes()),
    );
    report.at_most(
        &format!("seconds of a restart at {shares}"),
        10.0,
        restarted.all_decided.as_secs_f64(),
    );
    report.at_most("backend writes of a restart", 0.0, restarted.backend_writes());
    restarted.operator.terminate()
}

/// Makes so many shares on a backend, with a rule each or without.
async fn fill(world: &World, backend: &str, protocol: Protocol, shares: usize, rules: bool) -> Result<()> {
    let share_type = super::type_on(world, backend).await?;
    let tenant = Tenant::new(world, &share_type, protocol).await?;
    tenant.make(AT_ONCE, 0..shares).await?;
    if rules {
        tenant.let_in(AT_ONCE, 0..shares, |n| n).await?;
    }
    Ok(())
}

/// Watches a rest, and says how many writes there were.
async fn at_rest(world: &World, operator: &Operator, table: &mut Table, span: Duration) -> Result<usize> {
    let (mark, meter, before) = (
        world.audit_mark()?,
        Meter::start(world, Some(operator))?,
        Metrics::read(operator).await?,
    );
    tokio::time::sleep(span).await;
    let requests = Requests::since(world, mark)?;
    let looks = Metrics::read(operator).await?.step("Look") - before.step("Look");
    let [memory, most] = memory_mb(operator)?;
    let rows = [
        ("operator, MB", json!(memory)),
        ("operator, MB at most", json!(most)),
        (
            "operator, per cent of a processor",
            json!(meter.operator_percent()),
        ),
        ("looks for drift", json!(looks)),
        ("API writes, without the Lease", json!(requests.writes())),
        ("API requests, without the Lease", json!(requests.text())),
    ];
    for (what, value) in rows {
        table.row([json!(what), value]);
    }
    Ok(requests.writes())
}

/// A restart, from the start of the process.
struct Restart {
    operator: Operator,
    filled: Duration,
    first_decided: Duration,
    all_decided: Duration,
    cpu_ms: f64,
    requests: Requests,
    steps: BTreeMap<&'static str, f64>,
}

async fn restart(world: &World, backends: &[&str], flags: &[String], shares: usize) -> Result<Restart> {
    let mark = world.audit_mark()?;
    let started = Instant::now();
    let operator = super::started(world, flags).await?;
    let filled = started.elapsed();
    let (mut first, mut last, mut seen) = (None, started.elapsed(), 0.0);
    loop {
        let passes = passes(&operator).await?;
        if passes > 0.0 && first.is_none() {
            first = Some(started.elapsed());
        }
        if passes - seen >= CALM {
            (last, seen) = (started.elapsed(), passes);
        }
        if seen >= count(shares) && started.elapsed() > last + CALM_FOR {
            break;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
    super::until_ready(world, backends).await?;
    Ok(Restart {
        filled,
        first_decided: first.unwrap_or(last),
        all_decided: last,
        cpu_ms: cpu_ms(Some(operator.process().pid)),
        requests: Requests::since(world, mark)?,
        steps: Metrics::read(&operator).await?.backend_steps(),
        operator,
    })
}

impl Restart {
    fn backend_writes(&self) -> f64 {
        self.steps
            .iter()
            .filter(|(step, _)| **step != "Look")
            .fold(0.0, |sum, (_, n)| sum + n)
    }

    fn rows(&self, table: &mut Table) {
        let seconds = |t: Duration| json!(t.as_secs_f64());
        let rows: [(&str, Value); 6] = [
            ("restart: caches filled after, s", seconds(self.filled)),
            ("first share decided after, s", seconds(self.first_decided)),
            ("all decided after, s", seconds(self.all_decided)),
            ("operator's CPU, ms", json!(self.cpu_ms)),
            ("API requests, without the Lease", json!(self.requests.text())),
            ("backend calls", json!(format!("{:?}", self.steps))),
        ];
        for (what, value) in rows {
            table.row([json!(what), value]);
        }
    }
}

async fn passes(operator: &Operator) -> Result<f64> {
    Ok(Metrics::read(operator).await?.sum("shoal_reconcile_total", &[]))
}

/// Waits until hardly any pass is made any more.
async fn until_calm(operator: &Operator) -> Result<()> {
    let mut before = passes(operator).await?;
    loop {
        tokio::time::sleep(CALM_FOR).await;
        let now = passes(operator).await?;
        if now - before < CALM {
            return Ok(());
        }
        before = now;
    }
}

/// How much of the mgr's time looks for drift take, with so many CephFS shares.
pub async fn scans(world: &World, report: &mut Report, shares: usize, span: Duration) -> Result<()> {
    let share_type = super::type_on(world, "cephfs").await?;
    let operator = operator_on(world, &["cephfs"], &[]).await?;
    let tenant = Tenant::new(world, &share_type, Protocol::CephFS).await?;
    tenant.make(8, 0..shares).await?;
    until_calm(&operator).await?;
    let mgr = world.lab.ceph()?.daemon("mgr.x")?.pid()?;

    let (cpu, before) = (cpu_ms(Some(mgr)), Metrics::read(&operator).await?);
    tokio::time::sleep(span).await;
    let (busy, after) = (cpu_ms(Some(mgr)) - cpu, Metrics::read(&operator).await?);
    operator.terminate()?;
    let cpu = cpu_ms(Some(mgr));
    tokio::time::sleep(span / 4).await;
    let idle = (cpu_ms(Some(mgr)) - cpu) * 4.0;

    let grown = |name: &str| {
        let labels = ["step=\"Look\""];
        after.sum(name, &labels) - before.sum(name, &labels)
    };
    let looks = grown("shoal_step_seconds_count");
    let bare = BareCommands::send(world, "cephfs", Protocol::CephFS, 100)?;
    let alone = percentile(&bare.look, 50);
    let percent = looks * alone / span.as_secs_f64() / 10.0;
    let mut table = Table::new(
        &format!(
            "Looks for drift at {shares} CephFS shares, over {} s",
            span.as_secs()
        ),
        &["what", "value"],
    );
    let of_span = |ms: f64| json!(ms / span.as_secs_f64() / 10.0);
    table.row([json!("looks"), json!(looks)]);
    table.row([json!("mgr commands of one look, sent bare, ms"), json!(alone)]);
    table.row([json!("per cent of the mgr's time"), json!(percent)]);
    table.row([json!("mgr, per cent of a processor"), of_span(busy)]);
    table.row([json!("the same without an operator"), of_span(idle)]);
    report.add(table);
    report.at_most(
        &format!("per cent of the mgr's time for looks at {shares} shares"),
        5.0,
        percent,
    );
    Ok(())
}
