//! `shoal`: the operator's command line.

use std::{io::IsTerminal, process::ExitCode};

use clap::{Parser, Subcommand};
use shoal_operator::{
    run::run,
    settings::{LogFormat, Settings},
};
use tracing_subscriber::EnvFilter;

/// Self-service shared file systems for Kubernetes
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator
    Run(Settings),
}

fn main() -> ExitCode {
    let Command::Run(settings) = Cli::parse().command;
    match start(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(settings: Settings) -> anyhow::Result<()> {
    settings.check().map_err(anyhow::Error::msg)?;
    let filter = EnvFilter::try_new(&settings.log).map_err(|e| anyhow::anyhow!("--log: {e}"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Json => log.json().init(),
        LogFormat::Human => log.init(),
    }
    let _failpoints = fail::FailScenario::setup();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(run(settings));
    // A replica that lost its Lease ends now, whatever is still in flight.
    runtime.shutdown_background();
    result
}
