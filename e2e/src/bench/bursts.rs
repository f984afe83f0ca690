//! Many rule changes at once: all on one share, and one on each of as many shares.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::json;
use shoal_crds::Protocol;

use super::{
    latency::{Until, timed},
    meter::{Meter, Metrics, Requests, count},
    operator_on,
    report::{Report, Table},
    tenant::{Tenant, change_level, rule_name},
};
use crate::world::{Operator, World};

/// How many requests are under way while things are prepared.
const AT_ONCE: usize = 32;

/// Measures so many rule changes, on simulated NFS.
pub async fn measure(world: &World, report: &mut Report, rules: usize) -> Result<()> {
    let share_type = super::type_on(world, "simulated").await?;
    let tenant = async || Tenant::new(world, &share_type, Protocol::NFS).await;
    let mut table = Table::new(
        &format!("{rules} rule changes"),
        &[
            "where",
            "all in force after, s",
            "p50 ms",
            "p99 ms",
            "applies",
            "CPU ms per rule, operator",
            "API requests",
        ],
    );
    let applies = found(world, &tenant().await?, &mut table, rules).await?;
    report.at_most("applies for a batch of changed rules on one share", 1.0, applies);

    let operator = operator_on(world, &["simulated"], &[]).await?;
    let one = tenant().await?;
    one.make(1, 0..1).await?;
    one.let_in(rules, 0..rules, |_| 0).await?;
    changed(world, &operator, &one, &mut table, "one share", rules).await?;

    let each = tenant().await?;
    each.make(AT_ONCE, 0..rules).await?;
    each.let_in(AT_ONCE, 0..rules, |n| n).await?;
    let applies = changed(world, &operator, &each, &mut table, "as many shares", rules).await?;
    report.at_most("applies for one changed rule", 1.0, applies / count(rules));
    report.add(table);
    operator.terminate()
}

/// Changes them while the operator works, without waiting for one before the next. Says how many applies that took.
async fn changed(
    world: &World,
    operator: &Operator,
    tenant: &Tenant,
    table: &mut Table,
    what: &str,
    rules: usize,
) -> Result<f64> {
    let (mark, meter) = (world.audit_mark()?, Meter::start(world, Some(operator))?);
    let before = Metrics::read(operator).await?;
    let latencies = tenant.change(rules, 0..rules).await?;
    let applies = Metrics::read(operator).await?.step("Export") - before.step("Export");
    table.row([
        json!(what),
        json!(latencies.took().as_secs_f64()),
        json!(latencies.percentile(50)),
        json!(latencies.percentile(99)),
        json!(applies),
        json!(meter.per(rules)[0]),
        json!(Requests::since(world, mark)?.text()),
    ]);
    Ok(applies)
}

/// Changes them while no operator runs, and lets one find them. Says how many applies that took.
async fn found(world: &World, tenant: &Tenant, table: &mut Table, rules: usize) -> Result<f64> {
    let flags = [super::state_that_stays(world)?];
    let operator = operator_on(world, &["simulated"], &flags).await?;
    tenant.make(1, 0..1).await?;
    tenant.let_in(rules, 0..rules, |_| 0).await?;
    operator.terminate()?;
    timed(AT_ONCE, 0..rules, |n| {
        let api = tenant.rules.api().clone();
        async move { change_level(&api, n).await.map(drop) }
    })
    .await?;
    let in_force: Vec<_> = (0..rules)
        .map(|n| tenant.rules.once(&rule_name(n), Until::Ready(2)))
        .collect();
    let mark = world.audit_mark()?;
    let started = Instant::now();
    let operator = operator_on(world, &["simulated"], &flags).await?;
    let meter = Meter::start(world, Some(&operator))?;
    for rule in in_force {
        rule.await.context("the watch ended")?;
    }
    let applies = Metrics::read(&operator).await?.step("Export");
    table.row([
        json!("one share, found by an operator that starts"),
        json!(started.elapsed().as_secs_f64()),
        json!(null),
        json!(null),
        json!(applies),
        json!(meter.per(rules)[0]),
        json!(Requests::since(world, mark)?.text()),
    ]);
    // The next operator does not know where they are.
    tenant.shut_out(AT_ONCE, 0..rules).await?;
    tenant.delete(1, 0..1).await?;
    operator.terminate()?;
    Ok(applies)
}
