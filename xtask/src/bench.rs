//! `cargo xtask bench share`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use shoal_crds::Protocol;
use shoal_e2e::{
    bench::{self, Options},
    lab::{CephOptions, LabOptions},
    world::World,
};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Shares coming and going: simulated, NFS and CephFS, with the floors in the same run
    Share {
        /// Shares in each run
        #[arg(long, default_value_t = 200)]
        shares: usize,
        /// How many at once, one run each
        #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
        at_once: Vec<usize>,
        /// Without Ceph
        #[arg(long)]
        simulated: bool,
    },
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let What::Share {
        shares,
        at_once,
        simulated,
    } = &arguments.what;
    let program = crate::test::build_operator()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let ceph = (!*simulated).then(CephOptions::default);
        let mut world = World::start(&LabOptions {
            ceph,
            controller_manager: false,
            ..LabOptions::default()
        })
        .await?;
        world.use_operator(program);
        let options = Options {
            shares: *shares,
            concurrency: at_once.clone(),
        };
        world.add_simulated_backend().await?;
        println!(
            "{}",
            bench::shares(&world, "simulated", Protocol::NFS, &options).await?
        );
        if !*simulated {
            world.add_ceph_backends().await?;
            for protocol in [Protocol::NFS, Protocol::CephFS] {
                let table = bench::shares(&world, "cephfs", protocol, &options).await?;
                println!(
                    "{table}{}",
                    bench::bare_commands(&world, "cephfs", protocol, *shares)?
                );
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}
