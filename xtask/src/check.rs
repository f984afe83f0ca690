//! `cargo xtask check`: everything that can be said about the code without running it.

mod compatibility;
mod hosts;
mod links;
mod reasons;
mod rooms;
mod runbooks;

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use crate::generate;
use crate::tools;
use crate::workspace::{cargo, root, run as run_command};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Repair what can be repaired: format, lints that clippy can fix, generated files
    #[arg(long)]
    fix: bool,
    /// Also compare the dependencies with the RustSec advisories; their database is fetched from the Internet
    #[arg(long)]
    advisories: bool,
}

struct Step {
    name: &'static str,
    run: fn(fix: bool) -> Result<()>,
    remedy: &'static str,
}

/// The quick ones first.
const STEPS: &[Step] = &[
    Step {
        name: "format",
        run: format,
        remedy: "cargo xtask check --fix",
    },
    Step {
        name: "rooms",
        run: |_| rooms::check(),
        remedy: "who may import whom is the table in xtask/src/check/rooms.rs, and docs/architecture.md says why",
    },
    Step {
        name: "host names",
        run: |_| hosts::check(),
        remedy: "name packages, not where they come from: machines have their own mirrors; \
                 a host that is no place to download from goes into xtask/src/check/hosts.rs",
    },
    Step {
        name: "reasons",
        run: |_| reasons::check(),
        remedy: "docs/troubleshooting.md says of each reason what it means and what helps",
    },
    Step {
        name: "links",
        run: |_| links::check(),
        remedy: "mend the links; docs/SUMMARY.md lists every page below docs/",
    },
    Step {
        name: "runbooks",
        run: |_| runbooks::check(),
        remedy: "an alert of charts/shoal/files/alerts.yaml has its page in docs/runbooks, and its metrics are in docs/operations/monitoring.md",
    },
    Step {
        name: "compatibility",
        run: |_| compatibility::check(),
        remedy: "keep what the last release promised (docs/operations/installing.md), or make it another version of the API",
    },
    Step {
        name: "generated files",
        run: |fix| if fix { generate::run() } else { generate::check() },
        remedy: "cargo xtask generate, and commit what it writes",
    },
    Step {
        name: "lints",
        run: lints,
        remedy: "mend what is shown above; cargo xtask check --fix does part of it",
    },
    Step {
        name: "dependencies",
        run: |_| deny(&["bans", "licenses", "sources"]),
        remedy: "deny.toml says which licences, versions and sources are allowed, and why",
    },
];

const ADVISORIES: Step = Step {
    name: "advisories",
    run: |_| deny(&["advisories"]),
    remedy: "move to a version without the flaw; if only the database could not be fetched, \
             say so and try again where the Internet can be reached",
};

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let mut failed = Vec::new();
    for step in STEPS.iter().chain(arguments.advisories.then_some(&ADVISORIES)) {
        let began = Instant::now();
        let result = (step.run)(arguments.fix);
        let time = began.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("{:16} ok     {time:6.1} s", step.name),
            Err(error) => {
                println!(
                    "{:16} FAILED {time:6.1} s\n  {error:#}\n  Remedy: {}",
                    step.name, step.remedy
                );
                failed.push(step.name);
            }
        }
    }
    if !arguments.advisories {
        println!(
            "{:16} not looked for: the RustSec database is fetched from the Internet. cargo xtask check --advisories",
            ADVISORIES.name
        );
    }
    println!("{:16}        {:6.1} s", "in all", start.elapsed().as_secs_f64());
    if !failed.is_empty() {
        bail!("not as it should be: {}", failed.join(", "));
    }
    Ok(())
}

fn format(fix: bool) -> Result<()> {
    // The files alone: how they should look is seen by letting it do it.
    let check: &[&str] = if fix { &[] } else { &["--check", "--", "-l"] };
    run_command(cargo(["fmt", "--all"]).args(check))
}

fn lints(fix: bool) -> Result<()> {
    let fix = if fix {
        &["--fix", "--allow-dirty", "--allow-staged"][..]
    } else {
        &[]
    };
    let what = [
        "--keep-going",
        "--locked",
        "--workspace",
        "--all-targets",
        "--all-features",
    ];
    run_command(
        cargo(["clippy"])
            .args(fix)
            .args(what)
            .args(["--", "-D", "warnings"]),
    )
}

fn deny(what: &[&str]) -> Result<()> {
    let deny = tools::cargo_deny()?;
    run_command(
        Command::new(deny)
            .current_dir(root())
            .args(["--workspace", "--all-features", "--locked", "check"])
            .args(what),
    )
}
