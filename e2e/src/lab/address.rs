//! Addresses of a lab's own: a block of 256 loopback addresses.

use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context, Result, bail};

/// 127.80.N.0/24, or 10.80.N.0/24 in a network of the lab's own, held as long as its lock file stays open in some process.
#[derive(Debug)]
pub(super) struct Block {
    first: u8,
    number: u8,
    /// To be handed to the process that lives as long as the block is used.
    pub(super) lock: File,
}

impl Block {
    /// Takes the first block that no other lab on this machine has.
    pub(super) fn take(own_network: bool) -> Result<Self> {
        let folder = std::env::temp_dir().join("shoal-lab-addresses");
        fs::create_dir_all(&folder)?;
        for number in 1..=250 {
            let path = folder.join(number.to_string());
            let lock = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
            match lock.try_lock() {
                Ok(()) => {
                    let first = if own_network { 10 } else { 127 };
                    let block = Self { first, number, lock };
                    // Daemons that outlived their lab hold no lock.
                    if own_network || TcpListener::bind((block.address(1), 3300)).is_ok() {
                        return Ok(block);
                    }
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => return Err(e.into()),
            }
        }
        bail!("250 labs hold all of 127.80.1.0 to 127.80.250.255")
    }

    /// Address number `host` of the block.
    pub(super) const fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(self.first, 80, self.number, host)
    }
}
