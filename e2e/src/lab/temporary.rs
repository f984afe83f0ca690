//! A folder for a lab that nobody named: gone with the lab, but kept for a day when something failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::process::Process;

const LIVE: &str = "temporary-";
const FAILED: &str = "failed-";
const KEPT: Duration = Duration::from_hours(24);

/// Removed on drop; kept under another name where the thread panics, e.g. in a test that fails.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    failed: bool,
}

impl Temporary {
    /// A new folder in `labs`. Also removes what earlier ones left there: processes may end without dropping anything.
    pub(super) fn new(labs: &Path) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        fs::create_dir_all(labs)?;
        sweep(labs)?;
        let own = Process::find("this", std::process::id()).context("this process is not in /proc")?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = labs.join(format!("{LIVE}{}-{}-{number}", own.pid, own.start_time));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, failed: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps it, whatever happens; returns where.
    pub(super) fn keep(mut self) -> PathBuf {
        self.keep_on_drop()
    }

    /// Keeps it once it is dropped; returns where it then is.
    pub(super) fn keep_on_drop(&mut self) -> PathBuf {
        self.failed = true;
        self.kept()
    }

    fn kept(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(name.replacen(LIVE, FAILED, 1))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.failed || std::thread::panicking() {
            let kept = self.kept();
            if fs::rename(&self.path, &kept).is_ok() {
                eprintln!("the lab's logs are kept for a day in {}", kept.display());
            }
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn sweep(labs: &Path) -> Result<()> {
    for entry in fs::read_dir(labs)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let stale = if let Some(rest) = name.strip_prefix(LIVE) {
            !Process::in_name(rest).is_some_and(|owner| owner.is_alive())
        } else if name.starts_with(FAILED) {
            let age = entry
                .metadata()
                .and_then(|m| m.modified())
                .ok()
                .and_then(|t| t.elapsed().ok());
            age.is_some_and(|age| age > KEPT)
        } else {
            false
        };
        if stale {
            // Somebody else may be sweeping too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_stays_on_failure_and_is_swept_when_its_owner_is_gone() {
        let labs = tempfile::tempdir().unwrap();
        let gone = Temporary::new(labs.path()).unwrap();
        let path = gone.path().to_owned();
        drop(gone);
        assert!(!path.exists());

        let kept = Temporary::new(labs.path()).unwrap().keep();
        let orphan = labs.path().join("temporary-1-1-0");
        fs::create_dir(&orphan).unwrap();
        let named = labs.path().join("default");
        fs::create_dir(&named).unwrap();
        let live = Temporary::new(labs.path()).unwrap();
        assert!(!orphan.exists());
        assert!(live.path().exists() && kept.exists() && named.exists());
    }
}
