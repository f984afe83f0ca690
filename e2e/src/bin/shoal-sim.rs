//! Runs seeds of the simulation: `cargo xtask sim`.

use std::{ops::ControlFlow, process::ExitCode, sync::Mutex, time::Instant};

use clap::Parser;
use shoal_e2e::sim::{self, Outcome, plan::Plan};
use tracing_subscriber::EnvFilter;

/// Plays seeds of the simulation
#[derive(Parser)]
struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Play this one alone, and print what happened
    #[arg(long)]
    seed: Option<u64>,
    /// Two hundred shares that race for fifty places, instead of everything
    #[arg(long)]
    race: bool,
    /// Play each twice, and compare their logs
    #[arg(long)]
    twice: bool,
    /// How many failures are looked for before it ends
    #[arg(long, default_value_t = 1)]
    failures: usize,
    /// How many runs may be spent on making a failure's history shorter
    #[arg(long, default_value_t = 300)]
    shrink: usize,
    /// Runs at the same time
    #[arg(long, default_value_t = sim::processors())]
    threads: usize,
}

#[derive(Default)]
struct Sum {
    runs: u64,
    faults: u64,
    requests: u64,
    effects: u64,
    simulated: f64,
    failed: Vec<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.seed.is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::from_default_env())
            .without_time()
            .with_writer(std::io::stderr)
            .init();
    } else {
        // A panic in a run is a finding, told with its seed.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let draw = if arguments.race { Plan::race } else { Plan::draw };
    if let Some(seed) = arguments.seed {
        return one(&draw(seed), arguments.shrink);
    }
    let began = Instant::now();
    let sum = Mutex::new(Sum::default());
    let seeds = arguments.first..arguments.first + arguments.seeds;
    sim::explore(draw, seeds, arguments.threads, |plan, outcome| {
        let differs = arguments.twice && sim::run(plan) != *outcome;
        let Ok(mut sum) = sum.lock() else {
            return ControlFlow::Break(());
        };
        sum.add(plan, outcome);
        if differs {
            println!("seed {}: two runs of it differ", plan.seed);
        }
        if let Some(violation) = &outcome.violation {
            println!(
                "seed {}: {} (after {:.1?})\n    {}",
                plan.seed,
                violation.invariant,
                violation.at,
                violation.detail.replace('\n', "\n    ")
            );
        }
        if differs || outcome.violation.is_some() {
            sum.failed.push(plan.seed);
        }
        if sum.failed.len() < arguments.failures {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    let Ok(sum) = sum.into_inner() else {
        return ExitCode::FAILURE;
    };
    sum.print(began.elapsed().as_secs_f64());
    match sum.failed.first() {
        None => ExitCode::SUCCESS,
        Some(seed) => {
            shortest(&draw(*seed), arguments.shrink);
            ExitCode::FAILURE
        }
    }
}

impl Sum {
    fn add(&mut self, plan: &Plan, outcome: &Outcome) {
        self.runs += 1;
        self.faults += plan.faults() as u64;
        self.requests += outcome.requests as u64;
        self.effects += outcome.effects;
        self.simulated += outcome.took.as_secs_f64();
    }

    #[allow(clippy::cast_precision_loss)] // For people.
    fn print(&self, seconds: f64) {
        let each = |count: u64| count as f64 / self.runs.max(1) as f64;
        println!(
            "{} seeds in {seconds:.1} s ({:.1} a second): {:.1} faults, {:.0} requests and {:.0} effects a run, {:.1} days simulated",
            self.runs,
            self.runs as f64 / seconds,
            each(self.faults),
            each(self.requests),
            each(self.effects),
            self.simulated / 86_400.0
        );
        println!(
            "{} clean, {} failed {:?}",
            self.runs - self.failed.len() as u64,
            self.failed.len(),
            self.failed
        );
    }
}

fn one(plan: &Plan, shrink: usize) -> ExitCode {
    let outcome = sim::run(plan);
    println!("{:#?}\nlog {:016x}", plan.setting, outcome.log);
    for event in &plan.events {
        println!("{:>10.3?}  {:?}", event.at, event.what);
    }
    match &outcome.violation {
        None => {
            println!("clean: {outcome:?}");
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!("{violation:#?}");
            shortest(plan, shrink);
            ExitCode::FAILURE
        }
    }
}

fn shortest(plan: &Plan, tries: usize) {
    if tries == 0 {
        return;
    }
    let outcome = sim::run(plan);
    let (plan, outcome) = sim::shrink(plan, &outcome, tries);
    println!(
        "the shortest history found of seed {} ({:?}):",
        plan.seed, plan.setting
    );
    for event in &plan.events {
        println!("{:>10.3?}  {:?}", event.at, event.what);
    }
    if let Some(violation) = outcome.violation {
        println!("{violation:#?}");
    }
}
