//! `cargo xtask sim`: the simulation, and the proof that it finds what it is there to find.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::workspace::{cargo, metadata, output, root, run as run_command, target_folder};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Turn off each rule that keeps data safe, one at a time, in a scratch copy, and see that the simulation finds it
    #[arg(long)]
    mutants: bool,
    /// Only the mutants whose name contains this
    #[arg(long, requires = "mutants")]
    only: Option<String>,
    /// For the simulation: --seeds 1000, --seed 7, --twice, --help for the rest
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    simulation: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.mutants {
        return mutants(arguments.only.as_deref().unwrap_or_default());
    }
    let target = target_folder(&metadata()?)?;
    let status = Command::new(build(root(), &target)?)
        .args(&arguments.simulation)
        .status()?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Builds the simulation of a work tree, with dependencies as in a release.
fn build(tree: &Path, target: &Path) -> Result<PathBuf> {
    run_command(
        cargo([
            "build",
            "--quiet",
            "--locked",
            "--profile=lab",
            "--package=shoal-e2e",
            "--bin=shoal-sim",
        ])
        .arg("--target-dir")
        .arg(target)
        .current_dir(tree),
    )?;
    Ok(target.join("lab/shoal-sim"))
}

/// A rule turned off, or a defect put in: a patch, after lines that say what it is.
struct Mutant {
    name: String,
    patch: PathBuf,
    /// What it does.
    what: String,
    /// Within how many seeds it is to be found.
    seeds: u64,
}

impl Mutant {
    fn read(patch: PathBuf) -> Result<Self> {
        let text = fs::read_to_string(&patch)?;
        let field = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.map(str::trim)
                .with_context(|| format!("{} has no line '{key} …'", patch.display()))
        };
        Ok(Self {
            name: patch.file_stem().unwrap_or_default().display().to_string(),
            what: field("Mutant:")?.to_owned(),
            seeds: field("Seeds:")?.parse()?,
            patch,
        })
    }
}

fn mutants(only: &str) -> Result<ExitCode> {
    let mut mutants = Vec::new();
    for entry in fs::read_dir(root().join("e2e/mutants"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "patch") {
            mutants.push(Mutant::read(path)?);
        }
    }
    mutants.retain(|mutant| mutant.name.contains(only));
    mutants.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(!mutants.is_empty(), "no mutant's name contains '{only}'");

    let tree = target_folder(&metadata()?)?.join("mutants");
    let mut missed = Vec::new();
    println!("{:34} {:>5} {:>6}  found by", "mutant", "seed", "within");
    for mutant in &mutants {
        let began = Instant::now();
        let (seed, told) = match try_out(&tree, mutant) {
            Ok(Some((seed, invariant))) => (seed.to_string(), invariant),
            Ok(None) => ("-".to_owned(), "NOT FOUND".to_owned()),
            Err(error) => ("-".to_owned(), format!("NOT TRIED: {error:#}")),
        };
        if seed == "-" {
            missed.push(&mutant.name);
        }
        println!(
            "{:34} {seed:>5} {:>6}  {told}    [{}; {:.0} s]",
            mutant.name,
            mutant.seeds,
            mutant.what,
            began.elapsed().as_secs_f64()
        );
    }
    println!(
        "\n{} mutants, {} found, {} missed {missed:?}",
        mutants.len(),
        mutants.len() - missed.len(),
        missed.len()
    );
    Ok(if missed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The seed that finds a mutant, and what it finds.
fn try_out(tree: &Path, mutant: &Mutant) -> Result<Option<(u64, String)>> {
    copy_tree(tree)?;
    apply(tree, &mutant.patch)?;
    // Not where the work tree's own is: cargo would take a mutant's program for it.
    let target = tree.with_extension("target");
    let simulation =
        build(tree, &target).with_context(|| format!("{} does not build", mutant.patch.display()))?;
    find(&simulation, mutant.seeds)
}

/// Makes a folder like the work tree; files that are the same stay as they are, so that what does not change is not built
/// again.
fn copy_tree(to: &Path) -> Result<()> {
    let files = output(Command::new("git").args(["ls-files", "-z"]).current_dir(root()))?;
    let files: BTreeSet<&Path> = files.split_terminator('\0').map(Path::new).collect();
    for file in &files {
        let (from, to) = (root().join(file), to.join(file));
        let content = match fs::read(&from) {
            Ok(content) => content,
            Err(_) if !from.exists() => continue,
            Err(error) => return Err(error).with_context(|| from.display().to_string()),
        };
        if fs::read(&to).is_ok_and(|there| there == content) {
            continue;
        }
        fs::create_dir_all(to.parent().context("no folder")?)?;
        fs::write(&to, content)?;
    }
    remove_others(to, Path::new(""), &files)
}

/// Removes what an earlier work tree had, and this one has not.
fn remove_others(tree: &Path, folder: &Path, files: &BTreeSet<&Path>) -> Result<()> {
    for entry in fs::read_dir(tree.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            remove_others(tree, &path, files)?;
        } else if !files.contains(path.as_path()) || !root().join(&path).exists() {
            fs::remove_file(tree.join(&path))?;
        }
    }
    Ok(())
}

fn apply(tree: &Path, patch: &Path) -> Result<()> {
    // The scratch copy lies in a folder that git ignores: it must not look for the work tree around it.
    let applied = Command::new("git")
        .arg("apply")
        .arg(patch)
        .current_dir(tree)
        .env("GIT_CEILING_DIRECTORIES", tree.parent().unwrap_or(tree))
        .output()?;
    if !applied.status.success() {
        bail!(
            "{} does not apply any more: {}",
            patch.display(),
            String::from_utf8_lossy(&applied.stderr).trim()
        );
    }
    Ok(())
}

/// The seed that found something, and what.
fn find(simulation: &Path, seeds: u64) -> Result<Option<(u64, String)>> {
    let ran = Command::new(simulation)
        .args(["--shrink=0", &format!("--seeds={seeds}")])
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let found = text.lines().find_map(|line| {
        let (seed, invariant) = line.strip_prefix("seed ")?.split_once(": ")?;
        Some((seed.parse().ok()?, invariant.to_owned()))
    });
    ensure!(
        found.is_some() != ran.status.success(),
        "the simulation ended with {} and said: {text}",
        ran.status
    );
    Ok(found)
}
