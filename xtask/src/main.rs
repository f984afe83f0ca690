//! Developer commands: `cargo xtask <command>`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bench;
mod check;
mod demo;
mod generate;
mod image;
mod lab;
mod release;
mod sim;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Shoal's developer commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// How fast, beside the floors in the same run
    Bench(bench::Arguments),
    /// Format, who imports whom, generated files, lints, licences and versions of dependencies
    Check(check::Arguments),
    /// Shoal from nothing to a share in use, in a lab that it starts and ends
    Demo(demo::Arguments),
    /// Write what comes from the API's Rust types, the roles and the chart's values: crds/generated, and parts of charts/shoal
    Generate,
    /// The operator's image, by the Dockerfile, without a registry or a container engine
    Image(image::Arguments),
    /// Real servers to try things on: a Kubernetes control plane and Ceph, on loopback
    Lab(lab::Arguments),
    /// What is published of a version: image, chart, manifests, plugin, what they are made of, checksums
    Release(release::Arguments),
    /// Runs of the whole operator with faults, in simulated time: each drawn from a seed
    Sim(sim::Arguments),
    /// Every test; the last line is the sum
    Test(test::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Check(arguments) => check::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Generate => generate::run().map(|()| ExitCode::SUCCESS),
        Command::Image(arguments) => image::run(&arguments),
        Command::Lab(arguments) => lab::run(arguments),
        Command::Release(arguments) => release::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
    };
    done.unwrap_or_else(|error| {
        // Not as Debug, which would add a stack backtrace to every plain "install this package".
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
