use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use shoal_e2e::lab::CephRelease;

use crate::workspace::cargo;

/// A suite that is not done by then has failed.
const LIMIT: Duration = Duration::from_mins(40);

/// A test program.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Suite {
    pub(super) name: String,
    program: PathBuf,
    /// The package's folder, in which cargo runs tests.
    folder: PathBuf,
    /// Whether it is one of `e2e/tests`.
    pub(super) needs_servers: bool,
}

/// How a suite is run for as long as it takes.
pub(super) struct AtLength {
    /// Its file.
    pub(super) suite: &'static str,
    pub(super) arguments: &'static [&'static str],
    /// What it asks how much is wanted, if it does.
    pub(super) variable: Option<(&'static str, &'static str)>,
}

/// What came of a suite.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) suite: String,
    pub(super) passed: usize,
    pub(super) ignored: usize,
    /// Names of tests.
    pub(super) failed: Vec<String>,
    pub(super) time: Duration,
}

/// Builds all test programs of the workspace.
///
/// They are then run here and not by `cargo test`, because it can't be told to leave some out without building the
/// dependencies again with fewer features.
pub(super) fn build() -> Result<Vec<Suite>> {
    let mut command = cargo([
        "test",
        "--locked",
        "--workspace",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo test")?;
    if !output.status.success() {
        bail!("the tests can't be built");
    }
    Ok(output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| suite(&serde_json::from_slice(line).ok()?))
        .collect())
}

/// The test program that cargo says it has built.
fn suite(message: &Value) -> Option<Suite> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let program = message["executable"].as_str()?.into();
    let folder: PathBuf = Path::new(message["manifest_path"].as_str()?).parent()?.into();
    let source = Path::new(message["target"]["src_path"].as_str()?);
    let source = source.strip_prefix(&folder).unwrap_or(source);
    let package = message["package_id"].as_str()?;
    // `path+file:///folder#name@version`, without the name where the folder has it.
    let (path, id) = package.rsplit_once('#')?;
    let package = match id.split_once('@') {
        Some((name, _)) => name,
        None => path.rsplit('/').next()?,
    };
    Some(Suite {
        name: format!("{package} {}", source.display()),
        program,
        needs_servers: package == "shoal-e2e" && message["target"]["kind"][0] == "test",
        folder,
    })
}

impl Suite {
    /// Runs it; on this Ceph release, if one is named.
    pub(super) fn run(&self, operator: Option<&Path>, ceph: Option<CephRelease>) -> Result<Outcome> {
        let (name, mut command) = self.command(operator, ceph);
        run(&name, &mut command)
    }

    /// Runs it for as long as it takes.
    pub(super) fn run_at_length(
        &self,
        operator: &Path,
        ceph: CephRelease,
        how: &AtLength,
    ) -> Result<Outcome> {
        let (name, mut command) = self.command(Some(operator), Some(ceph));
        command.args(how.arguments).envs(how.variable);
        run(&name, &mut command)
    }

    fn command(&self, operator: Option<&Path>, ceph: Option<CephRelease>) -> (String, Command) {
        let mut command = Command::new(&self.program);
        command
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder);
        let name = match ceph {
            Some(release) => {
                command.env("SHOAL_E2E_CEPH", release.major());
                format!("{} on Ceph {}", self.name, release.major())
            }
            None => self.name.clone(),
        };
        if let Some(operator) = operator {
            command.env("SHOAL_OPERATOR", operator);
            command.env("SHOAL_KUBECTL_PLUGIN", operator.with_file_name("kubectl-shoal"));
        }
        (name, command)
    }
}

/// The examples in doc comments.
pub(super) fn documentation() -> Result<Outcome> {
    run(
        "doc comments",
        &mut cargo(["test", "--locked", "--workspace", "--doc", "--quiet"]),
    )
}

/// Runs it, shows what it printed when it has ended, and reads the results from that.
fn run(name: &str, command: &mut Command) -> Result<Outcome> {
    println!("-- {name} begins");
    let start = Instant::now();
    let (reader, writer) = io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    // The command holds the pipe's other end, and the reader would wait for it.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
        }
    });
    let mut outcome = Outcome {
        suite: name.to_owned(),
        ..Outcome::default()
    };
    let mut printed = format!("\n== {name}\n");
    let failure = follow(&mut child, start + LIMIT, |timeout| {
        let line = lines.recv_timeout(timeout);
        if let Ok(line) = &line {
            outcome.read(line);
            printed.push_str(line);
            printed.push('\n');
        }
        line.map(drop)
    })?;
    outcome.time = start.elapsed();
    if let Some(failure) = failure.filter(|_| outcome.failed.is_empty()) {
        printed.extend([name, ": ", &failure, "\n"]);
        outcome.failed.push(failure);
    }
    println!("{printed}");
    Ok(outcome)
}

/// Reads lines until the child has ended and said everything; the child is killed at the deadline. What went wrong
/// with the child, if anything.
fn follow(
    child: &mut Child,
    deadline: Instant,
    mut line: impl FnMut(Duration) -> Result<(), RecvTimeoutError>,
) -> Result<Option<String>> {
    loop {
        let ended = child.try_wait()?;
        match line(Duration::from_millis(100)) {
            Ok(()) => continue,
            // A process that the suite left behind may hold the pipe open; what the suite said has been read.
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(10)),
        }
        if let Some(status) = ended {
            return Ok((!status.success()).then(|| format!("ended with {status}")));
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(Some(format!("not done after {} min", LIMIT.as_secs() / 60)));
        }
    }
}

impl Outcome {
    /// How many tests there were, as far as is known.
    pub(super) fn count(&self) -> usize {
        self.passed + self.ignored + self.failed.len()
    }

    fn read(&mut self, line: &str) {
        let test = line.strip_prefix("test ");
        if let Some(name) = test.and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failed.push(name.to_owned());
        }
        // test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
        if let Some((_, counts)) = test.and_then(|rest| rest.strip_prefix("result: ")?.split_once(". ")) {
            let mut failed = 0;
            for part in counts.split("; ") {
                match part
                    .split_once(' ')
                    .map(|(number, what)| (number.parse::<usize>(), what))
                {
                    Some((Ok(number), "passed")) => self.passed += number,
                    Some((Ok(number), "ignored")) => self.ignored += number,
                    Some((Ok(number), "failed")) => failed = number,
                    _ => {}
                }
            }
            // A test may print in the middle of the line that says it failed.
            while self.failed.len() < failed {
                self.failed.push("a test, see above".into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(lines: &[&str]) -> Outcome {
        let mut outcome = Outcome::default();
        for line in lines {
            outcome.read(line);
        }
        outcome
    }

    #[test]
    fn counts_results() {
        let outcome = read(&[
            "running 4 tests",
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test d ... ignored",
            "test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ]);
        assert_eq!((outcome.passed, outcome.ignored), (1, 1));
        assert_eq!(outcome.failed, ["a::c", "a test, see above"]);
        assert_eq!(outcome.count(), 4);
    }

    #[test]
    fn tells_suites_apart() {
        let message = |package: &str, kind: &str, source: &str| {
            json!({
                "reason": "compiler-artifact", "profile": {"test": true}, "executable": "/target/x",
                "package_id": format!("path+file:///tree/{package}"), "manifest_path": "/tree/e2e/Cargo.toml",
                "target": {"kind": [kind], "src_path": format!("/tree/e2e/{source}")},
            })
        };
        let servers = suite(&message("e2e#shoal-e2e@0.1.0", "test", "tests/share.rs")).unwrap();
        assert_eq!(
            (servers.name.as_str(), servers.needs_servers),
            ("shoal-e2e tests/share.rs", true)
        );
        let unit = suite(&message("e2e#shoal-e2e@0.1.0", "lib", "src/lib.rs")).unwrap();
        assert!(!unit.needs_servers);
        let other = suite(&message("xtask#0.1.0", "bin", "src/main.rs")).unwrap();
        assert_eq!(
            (other.name.as_str(), other.needs_servers),
            ("xtask src/main.rs", false)
        );
    }

    #[test]
    fn a_suite_that_dies_has_failed() {
        let outcome = run("x", Command::new("sh").args(["-c", "echo test a ... ok; exit 3"])).unwrap();
        assert_eq!(outcome.failed, ["ended with exit status: 3"]);
    }

    #[test]
    fn a_suite_that_leaves_a_process_behind_ends() {
        let outcome = run("x", Command::new("sh").args(["-c", "sleep 20 & echo done"])).unwrap();
        assert!(outcome.failed.is_empty() && outcome.time < Duration::from_secs(10));
    }
}
