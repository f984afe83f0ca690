//! `cargo xtask image`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use shoal_e2e::lab::{self, Steps, image};

use crate::workspace::{metadata, root, target_folder};

#[derive(Args, Default)]
pub(crate) struct Arguments {
    /// The file that it is written to; without it shoal-image.tar in the folder that cargo builds in
    #[arg(long)]
    archive: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !lab::is_root() {
        bail!(
            "an image is built here in mounts and needs root; where there is a container engine, `docker build .` needs none of this"
        );
    }
    let archive = match &arguments.archive {
        Some(archive) => archive.clone(),
        None => target_folder(&metadata()?)?.join("shoal-image.tar"),
    };
    let steps = Steps::new(false);
    let image = image::shoal(root(), &archive, &steps)?;
    println!("{} is in {}", image.name, image.archive.display());
    Ok(ExitCode::SUCCESS)
}
