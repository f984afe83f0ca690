//! Developer commands: `cargo xtask <command>`.

mod lab;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Shoal's developer commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Real servers to try things on: a Kubernetes control plane and Ceph, on loopback
    Lab(lab::Arguments),
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Lab(arguments) => lab::run(arguments),
    }
}
