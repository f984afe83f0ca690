//! `kubectl shoal`: what users and the storage team ask of Shoal most, in one command each.
//!
//! What the API server says is turned into text by functions that ask nothing (`status`, `mount`, `lists`, `wait`); `api` asks, and
//! `commands` puts both together.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod age;
mod api;
mod bundle;
mod cli;
mod commands;
mod complete;
mod failure;
#[cfg(test)]
mod fixtures;
mod lists;
mod mount;
mod outcome;
mod output;
mod resource;
mod status;
mod text;
mod wait;

use std::{
    io::{ErrorKind, Write, stderr, stdout},
    process::ExitCode,
};

use clap::Parser;

use crate::{
    failure::{Exit, Failure},
    outcome::Outcome,
};

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(commands::run(cli)),
        Err(error) => Err(Failure::error(format!("no runtime: {error}"))),
    };
    let outcome = outcome.unwrap_or_else(|failure| Outcome {
        notes: vec![format!("error: {}", failure.message)],
        exit: failure.exit,
        text: String::new(),
    });
    ExitCode::from(show(&outcome) as u8)
}

/// What was asked for on standard output, the rest on standard error. Nobody has to read it to the end.
fn show(outcome: &Outcome) -> Exit {
    let written = stdout()
        .write_all(outcome.text.as_bytes())
        .and_then(|()| stdout().flush());
    for note in &outcome.notes {
        // There is no other place to say that this one is closed.
        let _ = writeln!(stderr(), "{note}");
    }
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Exit::Error,
        _ => outcome.exit,
    }
}
