//! The cache folder: everything downloaded or built, kept outside the tree and found again by its content.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::steps::Steps;

/// `$SHOAL_CACHE`, else `$XDG_CACHE_HOME/shoal`, else `~/.cache/shoal`. Removing it only costs time.
pub fn root() -> Result<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let path = if let Some(path) = set("SHOAL_CACHE") {
        path
    } else if let Some(path) = set("XDG_CACHE_HOME") {
        path.join("shoal")
    } else if let Some(home) = set("HOME") {
        home.join(".cache/shoal")
    } else {
        bail!("no place for the cache: set SHOAL_CACHE, XDG_CACHE_HOME or HOME");
    };
    fs::create_dir_all(&path).with_context(|| format!("cannot make the cache folder {}", path.display()))?;
    path.canonicalize()
        .with_context(|| format!("cannot resolve {}", path.display()))
}

/// Something that is made once and then only used.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Folder in the cache, e.g. `programs`.
    pub kind: &'static str,
    /// Name and version, for people.
    pub name: String,
    /// Everything that decides what comes out; the path carries its hash.
    pub content: String,
    /// How long making it takes, for the line that is printed before, e.g. `about 5 min`.
    pub takes: &'static str,
}

impl Artifact {
    /// Where it is, or will be.
    pub fn path(&self) -> Result<PathBuf> {
        let hash = Sha256::digest(self.content.as_bytes());
        let short = hash.get(..6).context("a hash is longer")?;
        Ok(root()?
            .join(self.kind)
            .join(format!("{}-{}", self.name, hex(short))))
    }

    /// Whether it needs no more work.
    pub fn is_ready(&self) -> Result<bool> {
        Ok(self.path()?.exists())
    }

    /// Its path, after making it if it is not there.
    ///
    /// `make` gets a path that does not exist yet and has to leave a file or folder there; it is renamed when
    /// complete, so nobody sees half of it. Other processes that want the same artifact wait.
    pub fn get(&self, steps: &Steps, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let path = self.path()?;
        if path.exists() {
            return Ok(path);
        }
        let folder = path.parent().context("a path in the cache has a parent")?;
        fs::create_dir_all(folder)?;
        let lock = File::create(path.with_added_extension("lock"))?;
        if lock.try_lock().is_err() {
            steps.long(&self.name, "another process is making it; waiting");
            lock.lock()?;
        }
        if path.exists() {
            return Ok(path);
        }
        steps.long(&self.name, &format!("making it ({}, once)", self.takes));
        let start = Instant::now();
        let partial = path.with_added_extension("partial");
        remove(&partial)?;
        let result = steps.while_waiting(&self.name, || make(&partial));
        result.with_context(|| format!("cannot make {}", self.name))?;
        fs::rename(&partial, &path)?;
        steps.say(
            &self.name,
            &format!("made in {:.0} s", start.elapsed().as_secs_f64()),
        );
        Ok(path)
    }
}

/// Hexadecimal digits, lower case.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(nibble.into(), 16).unwrap_or_default());
            }
            text
        })
}

fn remove(path: &Path) -> Result<()> {
    let gone = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match gone {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal() {
        assert_eq!(hex(&[0, 9, 0xa0, 0xff]), "0009a0ff");
    }
}
