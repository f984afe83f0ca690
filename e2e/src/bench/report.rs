//! What was measured: tables and aims, for people and as JSON.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

/// All that a run measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Processors of the machine.
    processors: usize,
    /// Its load averages at the beginning (1, 5 and 15 minutes): above zero, others were at work.
    load_before: String,
    tables: Vec<Table>,
    aims: Vec<Aim>,
}

/// One table.
#[derive(Debug)]
pub struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<Value>>,
}

/// What is wanted, and what was measured.
#[derive(Debug, Serialize)]
struct Aim {
    what: String,
    measured: f64,
    met: bool,
}

impl Report {
    /// An empty one, begun now.
    pub fn begin() -> Result<Self> {
        let load = fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            processors: std::thread::available_parallelism()?.get(),
            load_before: load.split_whitespace().take(3).collect::<Vec<_>>().join(" "),
            tables: Vec::new(),
            aims: Vec::new(),
        })
    }

    /// Takes a table up.
    pub fn add(&mut self, table: Table) {
        println!("{}", table.text());
        self.tables.push(table);
    }

    /// Notes whether an aim is met: the figure is at most this.
    pub fn at_most(&mut self, aim: &str, most: f64, measured: f64) {
        self.aim(format!("{aim}: at most {most}"), measured, measured <= most);
    }

    /// Notes whether an aim is met: the figure is at least this.
    pub fn at_least(&mut self, aim: &str, least: f64, measured: f64) {
        self.aim(format!("{aim}: at least {least}"), measured, measured >= least);
    }

    fn aim(&mut self, what: String, measured: f64, met: bool) {
        println!("{what}; measured {measured:.2}: {}\n", verdict(met));
        self.aims.push(Aim { what, measured, met });
    }

    /// For people: Markdown.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} processors; load before: {}\n\n",
            self.processors, self.load_before
        );
        for table in &self.tables {
            text += &table.text();
        }
        text += "| aim | measured | |\n|---|---|---|\n";
        for Aim { what, measured, met } in &self.aims {
            // Writing into a String can't fail.
            let _ = writeln!(text, "| {what} | {measured:.2} | {} |", verdict(*met));
        }
        text
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

impl Table {
    /// One without rows.
    pub fn new(title: &str, columns: &[&str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.iter().map(ToString::to_string).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row: one value for each column. Numbers are rounded when they are printed; NaN is none.
    pub fn row(&mut self, values: impl IntoIterator<Item = Value>) {
        self.rows.push(values.into_iter().collect());
    }

    fn text(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = format!("{}\n\n", self.title) + &line(self.columns.clone());
        text += &line(vec!["---".into(); self.columns.len()]);
        for row in &self.rows {
            text += &line(row.iter().map(cell).collect());
        }
        text + "\n"
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "–".into(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            if number.abs() < 10.0 {
                format!("{number:.2}")
            } else {
                format!("{number:.0}")
            }
        }
        other => other.to_string(),
    }
}

impl Serialize for Table {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows: Vec<BTreeMap<_, _>> = self
            .rows
            .iter()
            .map(|row| self.columns.iter().zip(row).collect())
            .collect();
        json!({"title": self.title, "rows": rows}).serialize(serializer)
    }
}
