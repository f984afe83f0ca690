//! Container images, made by buildah without a registry or an engine: Shoal's by its Dockerfile, on base images that are made
//! here of Debian's packages and of this machine's Rust.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cache::Artifact;
use super::host;
use super::process::{output, tail};
use super::rootfs;
use super::steps::Steps;

const WHO: &str = "image";
/// The Dockerfile of this work tree.
const DOCKERFILE: &str = include_str!("../../../Dockerfile");

/// An image in a file, as `docker save` writes one.
#[derive(Clone, Debug)]
pub struct Image {
    /// How a Pod names it.
    pub name: String,
    /// The file.
    pub archive: PathBuf,
}

/// buildah, with a storage of its own.
struct Buildah {
    folder: PathBuf,
}

/// The base images that the Dockerfile names.
#[derive(Debug, PartialEq, Eq)]
struct Bases<'a> {
    /// `rust:<version>-slim-<Debian's suite>`
    rust: &'a str,
    /// `debian:<Debian's suite>-slim`
    debian: &'a str,
}

impl Bases<'_> {
    fn named_by(dockerfile: &str) -> Result<Bases<'_>> {
        let mut names = dockerfile.lines().filter_map(|line| {
            line.strip_prefix("FROM --platform=$BUILDPLATFORM ")?
                .split(' ')
                .next()
        });
        let (rust, debian) = (names.next(), names.next());
        Ok(Bases {
            rust: rust.context("the Dockerfile names no first base image")?,
            debian: debian.context("the Dockerfile names no second base image")?,
        })
    }

    /// The version of Rust, and the Debian suite that it is on.
    fn rust_and_suite(&self) -> Result<(&str, &str)> {
        let tag = self.rust.strip_prefix("rust:");
        tag.and_then(|tag| tag.split_once("-slim-"))
            .with_context(|| format!("{} is not rust:<version>-slim-<suite>", self.rust))
    }

    fn suite(&self) -> Result<&str> {
        let tag = self.debian.strip_prefix("debian:");
        tag.and_then(|tag| tag.strip_suffix("-slim"))
            .with_context(|| format!("{} is not debian:<suite>-slim", self.debian))
    }
}

/// Shoal's image, from a work tree, into a file. What was last built is kept, layer by layer, and what cargo had built, too.
pub fn shoal(source: &Path, archive: &Path, steps: &Steps) -> Result<Image> {
    let name = format!("localhost/shoal:{}", env!("CARGO_PKG_VERSION"));
    let buildah = bases(steps)?;
    steps.while_waiting(WHO, || buildah.build(&name, source, &source.join("Dockerfile")))?;
    buildah.save(&name, archive)?;
    steps.say(WHO, &format!("{name} is built"));
    Ok(Image {
        name,
        archive: archive.to_owned(),
    })
}

/// An image that holds only this static program.
pub fn of_program(name: &str, program: &Path, steps: &Steps) -> Result<Image> {
    host::require(host::FOR_IMAGES, steps)?;
    let file = program.file_name().and_then(|name| name.to_str());
    let file = file.context("a program has a name")?;
    let dockerfile =
        format!("FROM scratch\nCOPY {file} /{file}\nUSER 65532:65532\nENTRYPOINT [\"/{file}\"]\n");
    let artifact = Artifact {
        kind: "images",
        name: file.into(),
        content: format!("{name}\n{}\n{dockerfile}", program.display()),
        takes: "a moment",
    };
    let archive = artifact.get(steps, |out| {
        let folder = tempfile::tempdir()?;
        let recipe = folder.path().join("Dockerfile");
        fs::write(&recipe, dockerfile)?;
        let buildah = Buildah {
            folder: folder.path().to_owned(),
        };
        buildah.build(
            name,
            program.parent().context("a program is in a folder")?,
            &recipe,
        )?;
        buildah.save(name, out)
    })?;
    Ok(Image {
        name: name.into(),
        archive,
    })
}

/// The image of what holds a Pod's namespaces.
pub(super) fn pause(steps: &Steps) -> Result<Image> {
    let source = include_str!("../../lab/node/pause.c");
    let artifact = Artifact {
        kind: "programs",
        name: "pause".into(),
        content: source.into(),
        takes: "a moment",
    };
    let folder = artifact.get(steps, |out| {
        fs::create_dir(out)?;
        fs::write(out.join("pause.c"), source)?;
        let mut compile = Command::new("cc");
        output(
            compile
                .current_dir(out)
                .args(["-Os", "-static", "-s", "-o", "pause", "pause.c"]),
        )
        .map(drop)
    })?;
    of_program("localhost/pause:1", &folder.join("pause"), steps)
}

/// A storage with the base images, after making them if need be.
fn bases(steps: &Steps) -> Result<Buildah> {
    host::require(&[host::FOR_IMAGES, host::FOR_ROOTFS].concat(), steps)?;
    let bases = Bases::named_by(DOCKERFILE)?;
    let (version, rust_suite) = bases.rust_and_suite()?;
    let rust = rootfs::minimal(rust_suite, &["ca-certificates", "gcc", "libc6-dev"]);
    let debian = rootfs::minimal(bases.suite()?, &[]);
    let artifact = Artifact {
        kind: "images",
        name: "bases".into(),
        content: [&[bases.rust.into(), bases.debian.into()], &*rust, &*debian]
            .concat()
            .join("\n"),
        takes: "about 3 min",
    };
    let folder = artifact.get(steps, |out| {
        let buildah = Buildah {
            folder: out.to_owned(),
        };
        buildah.make_base(bases.debian, &debian, "", |_| Ok(()))?;
        let environment =
            "ENV CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:/usr/sbin:/usr/bin:/sbin:/bin\n";
        buildah.make_base(bases.rust, &rust, environment, |root| add_rust(root, version))
    })?;
    Ok(Buildah { folder })
}

impl Buildah {
    /// Makes an image of what mmdebstrap makes, and of what is put there beside it.
    fn make_base(
        &self,
        name: &str,
        mmdebstrap: &[String],
        environment: &str,
        more: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let folder = self.folder.join("base");
        let root = folder.join("root");
        fs::create_dir_all(&folder)?;
        output(Command::new("mmdebstrap").args(mmdebstrap).arg(&root))?;
        more(&root)?;
        // Whoever runs a container makes its devices.
        fs::remove_dir_all(root.join("dev"))?;
        fs::create_dir(root.join("dev"))?;
        let recipe = folder.join("Dockerfile");
        fs::write(&recipe, format!("FROM scratch\nCOPY root /\n{environment}"))?;
        self.build(name, &folder, &recipe)?;
        Ok(fs::remove_dir_all(&folder)?)
    }

    fn build(&self, name: &str, context: &Path, dockerfile: &Path) -> Result<()> {
        let log = self.folder.join("build.log");
        let out = File::create(&log)?;
        let status = self
            .command()?
            .args([
                "build",
                "--isolation=chroot",
                "--network=host",
                "--pull-never",
                "--layers",
                "--force-rm",
            ])
            .args(["--timestamp=0", "--tag", name, "--file"])
            .arg(dockerfile)
            .arg(context)
            .stdout(out.try_clone()?)
            .stderr(out)
            .status()?;
        ensure!(
            status.success(),
            "{name} can't be built; the log {} ends:\n{}",
            log.display(),
            tail(&log)
        );
        Ok(())
    }

    fn save(&self, name: &str, archive: &Path) -> Result<()> {
        if archive.exists() {
            // One that is there would be added to.
            fs::remove_file(archive)?;
        }
        let to = format!("docker-archive:{}:{name}", archive.display());
        output(self.command()?.args(["push", "--quiet", name, &to])).map(drop)
    }

    fn command(&self) -> Result<Command> {
        let temporary = self.folder.join("tmp");
        fs::create_dir_all(&temporary)?;
        // What it mounts goes when it ends, also where it is killed.
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--", "buildah"]);
        command.arg("--root").arg(self.folder.join("storage"));
        command.arg("--runroot").arg(self.folder.join("run"));
        command.arg("--storage-driver=overlay").env("TMPDIR", temporary);
        Ok(command)
    }
}

/// Puts this machine's Rust, and the authorities that it trusts, where the published image has them.
fn add_rust(root: &Path, version: &str) -> Result<()> {
    let sysroot = output(Command::new("rustc").args(["--print=sysroot"]))?;
    let sysroot = Path::new(sysroot.trim());
    let there = output(Command::new(sysroot.join("bin/rustc")).arg("--version"))?;
    ensure!(
        there.split(' ').nth(1) == Some(version),
        "the Dockerfile wants Rust {version}, and rust-toolchain.toml {there}"
    );
    let cargo = root.join("usr/local/cargo");
    fs::create_dir_all(cargo.join("bin"))?;
    for program in ["cargo", "rustc"] {
        fs::copy(sysroot.join("bin").join(program), cargo.join("bin").join(program))?;
    }
    output(
        Command::new("cp")
            .arg("--archive")
            .arg(sysroot.join("lib"))
            .arg(&cargo),
    )?;
    let authorities = "etc/ssl/certs/ca-certificates.crt";
    fs::copy(Path::new("/").join(authorities), root.join(authorities))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dockerfile_builds_with_the_toolchain_of_the_work_tree() {
        let bases = Bases::named_by(DOCKERFILE).unwrap();
        let toolchain = include_str!("../../../rust-toolchain.toml");
        let (version, _) = bases.rust_and_suite().unwrap();
        assert!(
            toolchain.contains(&format!("channel = \"{version}\"")),
            "{version}"
        );
        assert!(!bases.suite().unwrap().is_empty());
    }
}
