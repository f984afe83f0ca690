//! What NFS and CephFS clients have in common: a helper process that does one file operation per request.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::cache::hex;
use super::process::spawn;

/// How long a file operation may take before it counts as hanging.
const LIMIT: Duration = Duration::from_secs(40);

/// Who does it, on the server's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Owner {
    /// The superuser.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };
}

/// What went wrong with a file operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// ENOENT: no such file; on a mount over NFSv4 also the answer to a client that is not let in.
    NotFound,
    /// EACCES, EPERM: not allowed. EDOM too, ceph-fuse's answer to a key without a cap on the path.
    Denied,
    /// EROFS.
    ReadOnly,
    /// EDQUOT, ENOSPC.
    Full,
    /// ESHUTDOWN, ENOTCONN: this client has been evicted.
    Evicted,
    /// No answer.
    TimedOut,
    /// Any other errno.
    Other,
}

/// A file operation that did not succeed.
#[derive(Clone, Debug)]
pub struct ClientError {
    /// What kind of failure it is.
    pub failure: Failure,
    /// Linux errno; `None` where there was no answer.
    pub errno: Option<i32>,
    /// What was done, and the client library's words.
    pub doing: String,
}

impl ClientError {
    pub(super) fn new(errno: i32, doing: String) -> Self {
        let failure = match errno {
            2 => Failure::NotFound,
            1 | 13 | 33 => Failure::Denied,
            30 => Failure::ReadOnly,
            28 | 122 => Failure::Full,
            107 | 108 => Failure::Evicted,
            110 => Failure::TimedOut,
            _ => Failure::Other,
        };
        Self {
            failure,
            errno: Some(errno),
            doing,
        }
    }

    /// Whether the server does not let this client in, or not do this.
    pub fn is_refused(&self) -> bool {
        matches!(self.failure, Failure::NotFound | Failure::Denied)
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            failure,
            errno,
            doing,
        } = self;
        match errno {
            Some(errno) => write!(f, "{doing}: {failure:?} (errno {errno})"),
            None => write!(f, "{doing}: {failure:?}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// The failure behind an error of a client; `None` when it is about something else, e.g. the helper process.
pub fn failure(error: &anyhow::Error) -> Option<Failure> {
    error.downcast_ref::<ClientError>().map(|e| e.failure)
}

/// A helper process that answers requests with an errno.
#[derive(Debug)]
pub(super) struct Session {
    name: String,
    child: Child,
    stdin: ChildStdin,
    answers: Receiver<String>,
}

impl Session {
    pub(super) fn start(name: String, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(command).with_context(|| format!("cannot start {name}"))?;
        let stdin = child.stdin.take().context("no standard input")?;
        let stdout = child.stdout.take().context("no standard output")?;
        let (send, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            name,
            child,
            stdin,
            answers,
        })
    }

    /// Sends a request and waits for its answer. After a time-out the session is of no more use.
    pub(super) fn ask(&mut self, op: &str, arguments: Value) -> Result<Map<String, Value>> {
        let Value::Object(mut request) = arguments else {
            bail!("arguments are an object")
        };
        let path = request.get("path").and_then(Value::as_str).unwrap_or_default();
        let doing = format!("{}: {op} {path}", self.name).trim_end().to_owned();
        request.insert("op".into(), json!(op));
        writeln!(self.stdin, "{}", Value::Object(request))
            .with_context(|| format!("{doing}: the helper is gone"))?;
        let line = match self.answers.recv_timeout(LIMIT) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                return Err(ClientError {
                    failure: Failure::TimedOut,
                    errno: None,
                    doing,
                }
                .into());
            }
            Err(RecvTimeoutError::Disconnected) => bail!("{doing}: the helper ended"),
        };
        let answer: Map<String, Value> = serde_json::from_str(&line)?;
        let errno = answer
            .get("errno")
            .and_then(Value::as_i64)
            .context("no errno in the answer")?;
        if errno != 0 {
            let text = answer.get("text").and_then(Value::as_str).unwrap_or_default();
            return Err(ClientError::new(i32::try_from(errno)?, format!("{doing} ({text})")).into());
        }
        Ok(answer)
    }

    pub(super) fn write(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.ask("write", json!({ "path": path, "hex": hex(bytes) }))
            .map(drop)
    }

    pub(super) fn read(&mut self, path: &str) -> Result<Vec<u8>> {
        let answer = self.ask("read", json!({ "path": path }))?;
        let hex = answer
            .get("hex")
            .and_then(Value::as_str)
            .context("no data in the answer")?;
        let byte = |n| u8::from_str_radix(hex.get(n..n + 2).unwrap_or_default(), 16);
        (0..hex.len())
            .step_by(2)
            .map(byte)
            .collect::<Result<_, _>>()
            .context("no hexadecimal in the answer")
    }

    pub(super) fn list(&mut self, path: &str) -> Result<Vec<String>> {
        let answer = self.ask("list", json!({ "path": path }))?;
        let names = answer.get("names").cloned().context("no names in the answer")?;
        Ok(serde_json::from_value(names)?)
    }

    pub(super) fn mkdir(&mut self, path: &str) -> Result<()> {
        self.ask("mkdir", json!({ "path": path })).map(drop)
    }

    pub(super) fn remove(&mut self, path: &str) -> Result<()> {
        self.ask("remove", json!({ "path": path })).map(drop)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
