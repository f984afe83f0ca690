//! `shoal`: the operator's command line.

use std::io::IsTerminal;

use clap::{Parser, Subcommand};
use shoal_operator::{
    run::run,
    settings::{LogFormat, Settings},
};
use tracing_subscriber::EnvFilter;

/// Beside thousands of objects that come and go glibc's allocator keeps more memory, and takes more time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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

fn main() {
    let Command::Run(settings) = Cli::parse().command;
    if let Err(error) = begin_logging(&settings) {
        eprintln!("error: {error}");
        shoal_ceph::exit(2);
    }
    let code = match start(settings) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error:#}");
            1
        }
    };
    // Not by returning: librados may be in the middle of a command.
    shoal_ceph::exit(code)
}

/// Checks the settings, and sets up logs as they say.
fn begin_logging(settings: &Settings) -> Result<(), String> {
    settings.check()?;
    let filter = EnvFilter::try_new(&settings.log).map_err(|e| format!("--log: {e}"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Json => log.json().init(),
        LogFormat::Human => log.init(),
    }
    Ok(())
}

fn start(settings: Settings) -> anyhow::Result<()> {
    let _failpoints = fail::FailScenario::setup();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(run(settings));
    // A replica that lost its Lease ends now, whatever is still in flight.
    runtime.shutdown_background();
    result
}
