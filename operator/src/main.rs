//! `shoal`: the operator's command line.

use std::io::IsTerminal;

use clap::{Parser, Subcommand};
use shoal_operator::{
    run::run,
    settings::{LogFormat, Settings},
    traces::{self, Traces},
};
use tokio::runtime::{Builder, Handle, Runtime};
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, util::SubscriberInitExt};

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
    let (runtime, traces) = match prepare(&settings) {
        Ok(prepared) => prepared,
        Err(error) => {
            eprintln!("error: {error}");
            shoal_ceph::exit(2);
        }
    };
    let code = match start(settings, runtime, traces) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{error:#}");
            1
        }
    };
    // Not by returning: librados may be in the middle of a command.
    shoal_ceph::exit(code)
}

/// Checks the settings, and sets up logs and traces as they say.
fn prepare(settings: &Settings) -> Result<(Runtime, Option<Traces>), String> {
    settings.check()?;
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    let traces = begin_telling(settings, runtime.handle())?;
    Ok((runtime, traces))
}

fn begin_telling(settings: &Settings, runtime: &Handle) -> Result<Option<Traces>, String> {
    let filter = EnvFilter::try_new(&settings.log).map_err(|e| format!("--log: {e}"))?;
    let log = fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let log = match settings.log_format {
        LogFormat::Json => log.json().boxed(),
        LogFormat::Human => log.boxed(),
    };
    let (made, refusal) = match traces::layer(settings, runtime) {
        Ok(made) => (made, None),
        Err(refusal) => (None, Some(refusal)),
    };
    let (layer, traces) = made.unzip();
    tracing_subscriber::registry()
        .with(layer)
        .with(log.with_filter(filter))
        .init();
    if let Some(refusal) = refusal {
        tracing::error!("no traces are sent: {refusal}");
    }
    Ok(traces)
}

fn start(settings: Settings, runtime: Runtime, traces: Option<Traces>) -> anyhow::Result<()> {
    let _failpoints = fail::FailScenario::setup();
    let result = runtime.block_on(run(settings));
    if let (Ok(()), Some(traces)) = (&result, traces) {
        traces.end();
    }
    // A replica that lost its Lease ends now, whatever is still in flight.
    runtime.shutdown_background();
    result
}
