//! Prometheus metrics: what is counted as it happens, by every replica, and what there is at the moment of an answer, told by the
//! leader alone ([`inventory`]).

pub mod inventory;
pub mod measured;

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{
        EncodeLabelSet,
        text::{encode_eof, encode_registry},
    },
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};
use shoal_crds::condition::reasons;
use shoal_domain::Class;

use crate::{context::Context, error::Error};
use inventory::Inventory;

/// Labels of a pass.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Pass {
    /// The kind.
    pub kind: &'static str,
    /// `ok` or `error`.
    pub outcome: &'static str,
    /// The error's class; empty if there was none.
    pub class: &'static str,
    /// Its reason.
    pub reason: &'static str,
}

/// Labels of a step.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Step {
    /// The kind.
    pub kind: &'static str,
    /// The step's name.
    pub step: &'static str,
    /// `ok`, or the failure's reason.
    pub outcome: &'static str,
}

/// Labels of what is counted by kind alone.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Kind {
    /// The kind.
    pub kind: &'static str,
}

/// Everything that is counted as it happens.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Passes, by kind and outcome.
    pub passes: Family<Pass, Counter>,
    /// How long passes take.
    pub pass_seconds: Family<Kind, Histogram>,
    /// How long steps take.
    pub step_seconds: Family<Step, Histogram>,
    /// Status writes, by kind.
    pub status_writes: Family<Kind, Counter>,
    /// What is asked of backends.
    pub operations: measured::Operations,
    /// Whether this replica leads.
    leader: Gauge<f64, AtomicU64>,
}

fn histogram() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    ])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("shoal"),
            passes: Family::default(),
            pass_seconds: Family::new_with_constructor(histogram as fn() -> Histogram),
            step_seconds: Family::new_with_constructor(histogram as fn() -> Histogram),
            status_writes: Family::default(),
            operations: measured::Operations::default(),
            leader: Gauge::default(),
        };
        let r = &mut metrics.registry;
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "Always 1", version);
        r.register("leader", "1 if this replica leads", metrics.leader.clone());
        r.register("reconcile", "Passes of the controllers", metrics.passes.clone());
        r.register(
            "reconcile_seconds",
            "Time from the start of a pass to its end",
            metrics.pass_seconds.clone(),
        );
        r.register(
            "step_seconds",
            "Time that one step of a pass took",
            metrics.step_seconds.clone(),
        );
        r.register(
            "status_writes",
            "Writes of a status",
            metrics.status_writes.clone(),
        );
        r.register(
            "backend_operation_seconds",
            "Time that a backend took for what it was asked, failures too",
            metrics.operations.seconds.clone(),
        );
        r.register(
            "backend_operation_errors",
            "What backends failed",
            metrics.operations.errors.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// Begins to count for a kind. A defect that is counted first at 1 would be no increase.
    pub fn begin(&self, kind: &'static str) {
        let defect = Some((Class::Bug, reasons::INTERNAL_ERROR));
        drop(self.passes.get_or_create(&Pass::of(kind, defect)));
    }

    /// Notes a pass.
    pub fn pass(&self, kind: &'static str, error: Option<&Error>, took: Duration) {
        let error = error.map(|error| (error.class(), error.reason()));
        self.passes.get_or_create(&Pass::of(kind, error)).inc();
        self.pass_seconds
            .get_or_create(&Kind { kind })
            .observe(took.as_secs_f64());
    }

    /// All of it in Prometheus' text format, with what there is, if this replica knows.
    pub fn text(&self, is_leading: bool, inventory: Option<&Inventory>) -> String {
        self.leader.set(f64::from(u8::from(is_leading)));
        let mut text = String::new();
        // Writing into a String can't fail.
        let _ = encode_registry(&mut text, &self.registry);
        if let Some(inventory) = inventory {
            let _ = encode_registry(&mut text, &inventory.registry());
        }
        let _ = encode_eof(&mut text);
        text
    }
}

impl Pass {
    fn of(kind: &'static str, error: Option<(Class, &'static str)>) -> Self {
        Self {
            kind,
            outcome: if error.is_some() { "error" } else { "ok" },
            class: error.map_or("", |(class, _)| class.as_str()),
            reason: error.map_or("", |(_, reason)| reason),
        }
    }
}

/// What a scrape is answered with.
pub fn answer(ctx: &Context) -> String {
    let is_leading = ctx.fence.is_leading();
    ctx.metrics.text(is_leading, Inventory::of(ctx).as_ref())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{fmt::Write, fs, path::Path};

    use super::*;
    use crate::metrics::measured::{Failed, Operation};

    const PAGE: &str = "../docs/operations/monitoring.md";
    const MARKS: [&str; 2] = [
        "<!-- metrics: compared by a test -->\n",
        "<!-- end of metrics -->\n",
    ];

    /// One of every metric.
    fn text() -> String {
        let metrics = Metrics::default();
        metrics.begin("Share");
        metrics.pass("Share", None, Duration::ZERO);
        drop(metrics.step_seconds.get_or_create(&Step {
            kind: "Share",
            step: "Look",
            outcome: "ok",
        }));
        drop(metrics.status_writes.get_or_create(&Kind { kind: "Share" }));
        drop(metrics.operations.seconds.get_or_create(&Operation {
            backend: "cephfs".into(),
            operation: "look",
        }));
        drop(metrics.operations.errors.get_or_create(&Failed {
            backend: "cephfs".into(),
            operation: "look",
            class: "Transient",
            reason: "BackendError",
        }));
        metrics.text(true, Some(&inventory::tests::example()))
    }

    /// The labels of the first sample of a metric.
    fn labels(text: &str, name: &str) -> String {
        let sample = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let Some((labels, _)) = sample.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
            return String::new();
        };
        let names = labels.split(',').filter_map(|label| label.split_once('='));
        let names = names.map(|(name, _)| name).filter(|name| *name != "le");
        names
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn table(text: &str) -> String {
        let mut table = String::from("| metric | kind | labels | |\n| --- | --- | --- | --- |\n");
        let mut help = "";
        for line in text.lines() {
            if let Some((_, told)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                help = told.trim_end_matches('.');
            }
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                let suffix = match kind {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                };
                let sample = if kind == "histogram" { "_bucket" } else { suffix };
                let labels = labels(text, &format!("{name}{sample}"));
                writeln!(table, "| `{name}{suffix}` | {kind} | {labels} | {help} |").unwrap();
            }
        }
        table
    }

    #[test]
    fn the_page_has_every_metric() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
        let page = fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(MARKS[0]).unwrap();
        let (_, after) = rest.split_once(MARKS[1]).unwrap();
        let wanted = [before, MARKS[0], &table(&text()), MARKS[1], after].concat();
        if std::env::var_os("SHOAL_E2E_WRITE_DOCS").is_some() {
            fs::write(&path, wanted).unwrap();
        } else {
            assert_eq!(page, wanted, "SHOAL_E2E_WRITE_DOCS=1 writes it");
        }
    }
}
