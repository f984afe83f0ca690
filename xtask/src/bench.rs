//! `cargo xtask bench`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use shoal_e2e::bench::{self, Options};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let program = crate::test::build_operator()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let text = runtime.block_on(bench::run(&program, &arguments.options))?;
    println!("\n{text}");
    Ok(ExitCode::SUCCESS)
}
