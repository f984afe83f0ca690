//! Scenarios of one suite share a world: it is started by the first, and its processes end with the test program.

use std::{future::Future, sync::OnceLock};

use anyhow::{Context as _, Result};
use tokio::{runtime::Runtime, sync::OnceCell};

use crate::world::World;

/// A world that the scenarios of a suite share, as a `static`.
pub struct Suite<W: 'static> {
    runtime: OnceLock<Runtime>,
    world: OnceCell<W>,
}

impl<W: AsRef<World> + Send + Sync> Suite<W> {
    /// A suite whose world has not been started.
    #[allow(clippy::new_without_default)] // A const one is needed, and Default is not.
    pub const fn new() -> Self {
        Self {
            runtime: OnceLock::new(),
            world: OnceCell::const_new(),
        }
    }

    /// Runs a scenario; the first one starts the world. All scenarios run on one runtime, since a client belongs to the
    /// runtime it was made on. Nothing that an operator asked for may have been refused for want of a right.
    pub fn run<Start, Scenario>(
        &'static self,
        start: impl FnOnce() -> Start,
        scenario: impl FnOnce(&'static W) -> Scenario,
    ) where
        Start: Future<Output = Result<W>>,
        Scenario: Future<Output = Result<()>>,
    {
        let runtime = self.runtime.get_or_init(|| Runtime::new().expect("a runtime"));
        let result = runtime.block_on(async {
            let world = self
                .world
                .get_or_try_init(start)
                .await
                .context("the suite's world did not start")?;
            scenario(world).await?;
            world.as_ref().has_refused_nothing().await
        });
        if let Err(error) = result {
            panic!("{error:?}");
        }
    }
}
