//! Developer commands: `cargo xtask <command>`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod generate;
mod lab;
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
    /// Write crds/generated from the API's Rust types
    Generate,
    /// Real servers to try things on: a Kubernetes control plane and Ceph, on loopback
    Lab(lab::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Generate => generate::run().map(|()| ExitCode::SUCCESS),
        Command::Lab(arguments) => lab::run(arguments),
    };
    done.unwrap_or_else(|error| {
        // Not as Debug, which would add a stack backtrace to every plain "install this package".
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
