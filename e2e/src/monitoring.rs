//! A real Prometheus that scrapes operators and judges the chart's alerts, in the time of a test.

pub mod plot;

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    lab::{
        self, Steps,
        process::{Launcher, Started, output, tail, wait_until},
    },
    world::{PATIENCE, eventually},
};

/// How often a test's Prometheus scrapes, and judges.
const INTERVAL: &str = "250ms";
/// By how much time goes faster for what alerts wait for.
const QUICKER: u64 = 300;
/// The same for what rates are over: there must be some scrapes in it.
const QUICKER_RATES: u64 = 60;

/// A file of the chart.
pub fn chart_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../charts/shoal/files")
        .join(name)
}

/// promtool, once; what it said.
pub fn promtool(arguments: &[&Path]) -> Result<String> {
    let programs = lab::prometheus(&Steps::new(true))?;
    output(Command::new(programs.promtool).args(arguments))
}

/// The chart's alerts with every time made shorter.
pub fn quick_alerts() -> Result<Value> {
    let mut rules: Value = serde_saphyr::from_str(&fs::read_to_string(chart_file("alerts.yaml"))?)?;
    let groups = rules["groups"].as_array_mut().context("groups")?;
    for rule in groups
        .iter_mut()
        .filter_map(|group| group["rules"].as_array_mut())
        .flatten()
    {
        if let Some(after) = rule["for"].as_str() {
            rule["for"] = format!("{}ms", seconds(after)? * 1000 / QUICKER).into();
        }
        let expression = rule["expr"].as_str().context("expr")?;
        rule["expr"] = quickened(expression)?.into();
    }
    Ok(rules)
}

/// Rates over less, and ages of less.
fn quickened(expression: &str) -> Result<String> {
    let words = expression
        .split(' ')
        .map(|word| match (word.split_once('['), word.parse::<u64>()) {
            (_, Ok(age)) if age >= 60 => Ok((age / QUICKER).to_string()),
            (Some((before, rest)), _) if !before.contains('{') || before.contains('}') => {
                let (window, after) = rest.split_once(']').context("a window that ends")?;
                Ok(format!("{before}[{}s]{after}", seconds(window)? / QUICKER_RATES))
            }
            _ => Ok(word.to_owned()),
        });
    Ok(words.collect::<Result<Vec<_>>>()?.join(" "))
}

fn seconds(time: &str) -> Result<u64> {
    let (number, unit) = time.split_at(time.len().saturating_sub(1));
    let number: u64 = number.parse().with_context(|| format!("'{time}' is no time"))?;
    Ok(number
        * match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => bail!("'{time}' is no time"),
        })
}

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    address: String,
    targets: PathBuf,
    _started: Started,
}

/// Samples of one series: when, in seconds since 1970, and what.
pub type Samples = Vec<(f64, f64)>;

impl Prometheus {
    /// Starts it in this folder, with these rules and no targets; returns when it answers.
    pub fn start(folder: &Path, rules: &Value) -> Result<Self> {
        let programs = lab::prometheus(&Steps::new(true))?;
        fs::create_dir_all(folder)?;
        let targets = folder.join("targets.json");
        fs::write(&targets, "[]")?;
        // JSON is YAML.
        fs::write(folder.join("rules.yaml"), serde_json::to_string_pretty(rules)?)?;
        let config = json!({
            "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
            "rule_files": [folder.join("rules.yaml")],
            // As the chart's ServiceMonitor has it.
            "scrape_configs": [{
                "job_name": "shoal-metrics", "honor_labels": true,
                "file_sd_configs": [{"files": [&targets], "refresh_interval": "1s"}],
            }],
        });
        let file = folder.join("prometheus.yaml");
        fs::write(&file, config.to_string())?;
        let mut command = Command::new(programs.server);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--query.lookback-delta=2s"]);
        let log = folder.join("prometheus.log");
        let mut started = Launcher::attached().start("prometheus", &command, &log, Stdio::null())?;
        let mut address = None;
        wait_until("Prometheus to listen", Duration::from_mins(1), || {
            started.check(&log)?;
            let said = fs::read_to_string(&log)?;
            let line = said.lines().find(|line| line.contains("msg=\"Listening on\""));
            address = line.and_then(|line| {
                let (_, rest) = line.split_once("address=")?;
                rest.split(' ').next().map(str::to_owned)
            });
            Ok(address.is_some())
        })?;
        let prometheus = Self {
            address: address.context("an address")?,
            targets,
            _started: started,
        };
        wait_until("Prometheus to be ready", Duration::from_mins(1), || {
            Ok(prometheus.get("/-/ready").is_ok())
        })
        .with_context(|| tail(&log))?;
        Ok(prometheus)
    }

    /// Says what it scrapes.
    pub fn scrape(&self, addresses: &[&str]) -> Result<()> {
        let new = self.targets.with_extension("new");
        fs::write(&new, json!([{"targets": addresses}]).to_string())?;
        Ok(fs::rename(new, &self.targets)?)
    }

    /// The alerts that fire: each with its name among its labels.
    pub fn firing(&self) -> Result<Vec<Value>> {
        let answer = self.api("/api/v1/alerts")?;
        let alerts = answer["alerts"].as_array().context("alerts")?;
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        Ok(firing.map(|alert| alert["labels"].clone()).collect())
    }

    /// Whether an alert of this name fires that has, among others, these labels.
    pub fn fires(&self, name: &str, labels: &Value) -> Result<bool> {
        let wanted = labels.as_object().context("labels")?;
        let is_it = |alert: &Value| {
            alert["alertname"] == name && wanted.iter().all(|(label, value)| alert[label] == *value)
        };
        Ok(self.firing()?.iter().any(is_it))
    }

    /// Waits until it fires, or does not.
    pub async fn until(&self, name: &str, labels: &Value, fires: bool) -> Result<()> {
        let what = format!("{name} {labels} {}", if fires { "to fire" } else { "to end" });
        eventually(&what, PATIENCE, async || {
            Ok((self.fires(name, labels)? == fires).then_some(()))
        })
        .await
        .with_context(|| format!("firing: {:?}", self.firing()))
    }

    /// What a query finds now: labels and value of each series.
    pub fn query(&self, query: &str) -> Result<Vec<(Value, f64)>> {
        let answer = self.api(&format!("/api/v1/query?query={}", escaped(query)))?;
        let found = answer["result"].as_array().context("a vector")?;
        found
            .iter()
            .map(|series| Ok((series["metric"].clone(), number(&series["value"][1])?)))
            .collect()
    }

    /// What a query found between two times: labels and samples of each series.
    pub fn query_range(&self, query: &str, from: f64, to: f64, step: f64) -> Result<Vec<(Value, Samples)>> {
        let answer = self.api(&format!(
            "/api/v1/query_range?query={}&start={from}&end={to}&step={step}",
            escaped(query)
        ))?;
        let found = answer["result"].as_array().context("a matrix")?;
        found
            .iter()
            .map(|series| {
                let samples = series["values"].as_array().context("values")?;
                let samples = samples
                    .iter()
                    .map(|sample| Ok((sample[0].as_f64().context("a time")?, number(&sample[1])?)));
                Ok((series["metric"].clone(), samples.collect::<Result<_>>()?))
            })
            .collect()
    }

    fn api(&self, path: &str) -> Result<Value> {
        let mut answer: Value = serde_json::from_str(&self.get(path)?)?;
        ensure!(answer["status"] == "success", "{path}: {answer}");
        Ok(answer["data"].take())
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(head.split(' ').nth(1) == Some("200"), "{path}: {answer}");
        Ok(body.to_owned())
    }
}

fn number(value: &Value) -> Result<f64> {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .context("a number")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            escaped.push(byte.into());
        } else {
            escaped.extend(format!("%{byte:02X}").chars());
        }
    }
    escaped
}

/// A query of the dashboard.
#[derive(Clone, Debug)]
pub struct PanelQuery {
    /// The panel's title.
    pub title: String,
    /// The query, as Grafana would ask it of all backends.
    pub query: String,
    legend: String,
}

impl PanelQuery {
    /// What Grafana calls a series with these labels.
    pub fn legend(&self, labels: &Value) -> String {
        let mut legend = self.legend.clone();
        for (label, value) in labels.as_object().into_iter().flatten() {
            legend = legend.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap_or_default());
        }
        legend
    }
}

/// The queries of the dashboard's panels.
pub fn dashboard_queries() -> Result<Vec<PanelQuery>> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(chart_file("dashboard.json"))?)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let mut queries = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().context("a title")?;
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().context("expr")?;
            let window = format!("{}s", 600 / QUICKER_RATES);
            let query = query
                .replace("$__rate_interval", &window)
                .replace("$backend", ".*");
            ensure!(!query.contains('$'), "{title}: {query}");
            queries.push(PanelQuery {
                title: title.to_owned(),
                query,
                legend: target["legendFormat"].as_str().unwrap_or_default().to_owned(),
            });
        }
    }
    Ok(queries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_get_shorter_and_nothing_else() {
        let was =
            r#"sum by (kind) (rate(a{b="c",d!~"e|f"}[10m])) / max(g_seconds{reason!=""}) > 900 and h > 0.9"#;
        let is =
            r#"sum by (kind) (rate(a{b="c",d!~"e|f"}[10s])) / max(g_seconds{reason!=""}) > 3 and h > 0.9"#;
        assert_eq!(quickened(was).unwrap(), is);
        assert_eq!(escaped("a b{}"), "a%20b%7B%7D");
    }
}
