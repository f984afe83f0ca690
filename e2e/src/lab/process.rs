//! Starting, finding and ending processes. By pid, and only while the pid is still the same process.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// A process, told apart from a later one with the same pid by its start time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// What it is, for people.
    pub name: String,
    /// Its pid in the host's pid namespace.
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks since boot.
    pub start_time: u64,
}

impl Process {
    /// The process that has this pid now; `None` when there is none, or only its zombie.
    pub fn find(name: &str, pid: u32) -> Option<Self> {
        let start_time = start_time(pid)?;
        Some(Self {
            name: name.to_owned(),
            pid,
            start_time,
        })
    }

    /// The process that a name begins with, as `<pid>-<start time>`; whether it still runs or not.
    pub(super) fn in_name(name: &str) -> Option<Self> {
        let mut fields = name.split('-').map(str::parse::<u64>);
        let (pid, start_time) = (fields.next()?.ok()?, fields.next()?.ok()?);
        Some(Self {
            name: name.to_owned(),
            pid: u32::try_from(pid).ok()?,
            start_time,
        })
    }

    /// The process that this one started first of those that run.
    pub(super) fn first_child(&self) -> Option<Self> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).ok()?;
        let pid = children.split_ascii_whitespace().next()?.parse().ok()?;
        Self::find(&self.name, pid)
    }

    /// Whether it still runs (a zombie does not).
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }

    /// Sends a signal; `false` when the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<bool> {
        if !self.is_alive() {
            return Ok(false);
        }
        let pid = i32::try_from(self.pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("not a pid")?;
        match kill_process(pid, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(e) => Err(e).with_context(|| format!("cannot signal {} (pid {})", self.name, self.pid)),
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        wait_until(&format!("{} to end", self.name), Duration::from_secs(20), || {
            Ok(!self.is_alive())
        })
    }
}

/// The start time of a running process, from `/proc/<pid>/stat`.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the command in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// How long-running processes are started: to end with this process, or to outlive it.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// Where a process that is to outlive this one is written down, before anything else can go wrong.
    list: Option<PathBuf>,
}

impl Launcher {
    /// What it starts dies with this process, also when this process is killed.
    pub const fn attached() -> Self {
        Self { list: None }
    }

    /// What it starts gets a session of its own, and a line in `list`.
    pub const fn detached(list: PathBuf) -> Self {
        Self { list: Some(list) }
    }

    /// Starts a process with both outputs going to `log`.
    pub fn start(&self, name: &str, command: &Command, log: &Path, stdin: Stdio) -> Result<Started> {
        let mut outer = Command::new(if self.list.is_some() { "setsid" } else { "setpriv" });
        if self.list.is_none() {
            outer.args(["--pdeathsig", "KILL", "--"]);
        }
        outer.arg(command.get_program()).args(command.get_args());
        let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        outer.stdin(stdin).stdout(out.try_clone()?).stderr(out);
        let child = spawn(outer).with_context(|| format!("cannot start {name}"))?;
        let process = Process::find(name, child.id()).with_context(|| {
            format!(
                "{name} ended at once; its log {} ends:\n{}",
                log.display(),
                tail(log)
            )
        })?;
        self.note(&process)?;
        Ok(Started {
            process,
            child,
            detached: self.list.is_some(),
        })
    }

    /// Writes a process down that something detached has started.
    pub(super) fn note(&self, process: &Process) -> Result<()> {
        if let Some(list) = &self.list {
            let mut list = File::options().append(true).create(true).open(list)?;
            writeln!(list, "{}", serde_json::to_string(process)?)?;
        }
        Ok(())
    }
}

/// The processes that [`Launcher::detached`] wrote down; none when there is no such file.
pub fn listed(list: &Path) -> Result<Vec<Process>> {
    match fs::read_to_string(list) {
        Ok(text) => text
            .lines()
            .map(|line| serde_json::from_str(line).map_err(Into::into))
            .collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", list.display())),
    }
}

/// A process that this one started; ended on drop, unless it is detached.
#[derive(Debug)]
pub struct Started {
    /// Which process.
    pub process: Process,
    child: Child,
    detached: bool,
}

impl Started {
    /// An error with the log's last lines once the process has ended.
    pub fn check(&mut self, log: &Path) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "{} ended with {status}; its log {} ends:\n{}",
                self.process.name,
                log.display(),
                tail(log)
            );
        }
        Ok(())
    }
}

impl Started {
    /// Whether it stays when this is dropped.
    pub const fn is_detached(&self) -> bool {
        self.detached
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if !self.detached {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Spawns from one thread that never ends: the parent-death signal is sent when the *thread* that forked ends.
pub fn spawn(command: Command) -> io::Result<Child> {
    type Job = (Command, Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (send, receive) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in receive {
                // The asker may be gone; then nobody wants the child either, and dropping the error is right.
                let _ = reply.send(command.spawn());
            }
        });
        send
    });
    let (send, receive) = mpsc::channel();
    let gone = |_| io::Error::other("the spawning thread is gone");
    spawner
        .send((command, send))
        .map_err(|_| io::Error::other("the spawning thread is gone"))?;
    receive.recv().map_err(gone)?
}

/// Polls every 20 ms until `ready` says yes; an error after `limit`.
pub fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !ready()? {
        if start.elapsed() > limit {
            bail!("waited {} s for {what}", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The last lines of a log, for an error message.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Runs to the end; standard output, or an error with what it wrote on standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let out = command.output().with_context(|| format!("cannot run {name}"))?;
    if !out.status.success() {
        bail!(
            "{name} ended with {}:\n{}",
            out.status,
            String::from_utf8_lossy(&out.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_killed_and_not_mistaken_for_a_later_one() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut started = Launcher::attached()
            .start("sleeper", &command, log.path(), Stdio::null())
            .unwrap();
        assert!(started.process.is_alive());
        started.check(log.path()).unwrap();

        let later = Process {
            start_time: started.process.start_time + 1,
            ..started.process.clone()
        };
        assert!(!later.is_alive());
        assert!(!later.signal(Signal::KILL).unwrap());

        started.process.kill().unwrap();
        assert!(!started.process.is_alive());
    }

    #[test]
    fn a_process_outlives_the_thread_that_asked_for_it() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let path = log.path().to_owned();
        let started = thread::spawn(move || {
            let mut command = Command::new("sleep");
            command.arg("60");
            Launcher::attached()
                .start("sleeper", &command, &path, Stdio::null())
                .unwrap()
        })
        .join()
        .unwrap();
        thread::sleep(Duration::from_millis(100));
        assert!(started.process.is_alive());
    }
}
