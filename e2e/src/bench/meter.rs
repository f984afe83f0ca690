//! What is read off processes, the API server's audit log, and the operator's own metrics.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Seek, SeekFrom},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::world::{Operator, SYSTEM_NAMESPACE, World};

/// CPU time that operator, API server and etcd take, from when it is started.
pub struct Meter {
    processes: [Option<u32>; 3],
    before: [f64; 3],
    started: Instant,
}

impl Meter {
    /// Starts. Without an operator, its part is NaN.
    pub fn start(world: &World, operator: Option<&Operator>) -> Result<Self> {
        let control_plane = world.lab.control_plane()?;
        let of = |name: &str| {
            control_plane
                .processes()
                .iter()
                .find(|p| p.name.contains(name))
                .map(|p| p.pid)
        };
        let processes = [
            operator.map(|o| o.process().pid),
            of("kube-apiserver"),
            of("etcd"),
        ];
        Ok(Self {
            processes,
            before: processes.map(cpu_ms),
            started: Instant::now(),
        })
    }

    /// Milliseconds for each of so many: operator, API server, etcd.
    pub fn per(&self, times: usize) -> [f64; 3] {
        let after = self.processes.map(cpu_ms);
        [0, 1, 2].map(|i| (after[i] - self.before[i]) / count(times))
    }

    /// How much of one processor the operator takes, in per cent.
    pub fn operator_percent(&self) -> f64 {
        self.per(1)[0] / self.started.elapsed().as_secs_f64() / 10.0
    }
}

/// CPU time of a process so far; NaN without one.
pub fn cpu_ms(pid: Option<u32>) -> f64 {
    let read = |pid: u32| -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        // Linux counts in hundredths of a second towards user space, whatever its own clock is.
        Some(ticks * 10.0)
    };
    pid.and_then(read).unwrap_or(f64::NAN)
}

/// A count as a number to reckon with.
pub fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::NAN, f64::from)
}

/// Resident memory of the operator, and the most that it ever was, in MB.
pub fn memory_mb(operator: &Operator) -> Result<[f64; 2]> {
    let status = fs::read_to_string(format!("/proc/{}/status", operator.process().pid))?;
    let field = |name: &str| -> Result<f64> {
        let line = status.lines().find(|l| l.starts_with(name)).context("no VmRSS")?;
        let kb: f64 = line.split_whitespace().nth(1).context("no VmRSS")?.parse()?;
        Ok(kb / 1024.0)
    };
    Ok([field("VmRSS:")?, field("VmHWM:")?])
}

/// Requests of operators to the API server.
#[derive(Debug, Default)]
pub struct Requests(BTreeMap<String, usize>);

impl Requests {
    /// Those answered since the mark, but for Leases; by verb and resource.
    pub fn since(world: &World, mark: u64) -> Result<Self> {
        let mut file = File::open(world.lab.control_plane()?.audit_log())?;
        file.seek(SeekFrom::Start(mark))?;
        let user = format!("system:serviceaccount:{SYSTEM_NAMESPACE}:shoal");
        let mut requests = Self::default();
        for line in BufReader::new(file).lines() {
            let line = line?;
            // Most lines are not the operator's, and parsing them takes long.
            if !line.contains(&user) {
                continue;
            }
            let Ok(event) = serde_json::from_str::<Value>(&line) else {
                continue; // The last line is being written.
            };
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (verb, resource) = (text(&event["verb"]), text(&event["objectRef"]["resource"]));
            let answered = event["stage"] == "ResponseComplete";
            if answered && event["user"]["username"] == user && resource != "leases" {
                *requests.0.entry(format!("{verb} {resource}")).or_default() += 1;
            }
        }
        Ok(requests)
    }

    /// How many of them write.
    pub fn writes(&self) -> usize {
        let is_read = |what: &str| ["get", "list", "watch"].iter().any(|verb| what.starts_with(verb));
        self.0
            .iter()
            .filter(|(what, _)| !is_read(what))
            .map(|(_, n)| n)
            .sum()
    }

    /// All of them in words.
    pub fn text(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(what, n)| format!("{what} {n}")).collect();
        words.join(", ")
    }
}

/// The operator's own metrics.
#[derive(Debug)]
pub struct Metrics(String);

impl Metrics {
    /// Reads them.
    pub async fn read(operator: &Operator) -> Result<Self> {
        let mut stream = TcpStream::connect(operator.address()?).await?;
        stream
            .write_all(b"GET /metrics HTTP/1.0\r\nHost: shoal\r\n\r\n")
            .await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        if !text.contains("# EOF") {
            bail!("only a part of /metrics came");
        }
        Ok(Self(text))
    }

    /// All of them, as they are served.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The sum of the samples of this name that have all of these labels, as `step="Look"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.0
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            // A sum of nothing would be -0.
            .fold(0.0, |sum, value| sum + value)
    }

    /// How often each step that speaks to a backend was taken, in the order of a share's life.
    pub fn backend_steps(&self) -> BTreeMap<&'static str, f64> {
        [
            "Look",
            "Create",
            "Resize",
            "Export",
            "FetchKeys",
            "Unexport",
            "Remove",
        ]
        .map(|step| (step, self.step(step)))
        .into()
    }

    /// How often a step was taken.
    pub fn step(&self, name: &str) -> f64 {
        self.sum("shoal_step_seconds_count", &[&format!("step=\"{name}\"")])
    }
}
