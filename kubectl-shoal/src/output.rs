//! Objects as JSON and YAML.

use clap::{Args, ValueEnum};
use kube::Resource;
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;

#[derive(Args)]
pub(crate) struct Output {
    /// The objects themselves, or more columns
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Json,
    Yaml,
    Wide,
}

impl Output {
    pub(crate) fn wide(&self) -> bool {
        self.output == Some(Format::Wide)
    }

    /// The objects as a List, if JSON or YAML is wanted.
    pub(crate) fn objects<K: Resource + Serialize + Clone>(
        &self,
        items: &[K],
    ) -> Option<Result<String, Failure>> {
        self.value(|| json!({"apiVersion": "v1", "kind": "List", "items": bare(items)}))
    }

    /// A value, if JSON or YAML is wanted.
    pub(crate) fn value(&self, value: impl FnOnce() -> Value) -> Option<Result<String, Failure>> {
        match self.output? {
            Format::Wide => None,
            Format::Json => Some(Ok(format!("{:#}\n", value()))),
            Format::Yaml => Some(yaml(&[value()])),
        }
    }
}

/// Objects without the pages of who wrote which field.
pub(crate) fn bare<K: Resource + Serialize + Clone>(items: &[K]) -> Vec<Value> {
    let one = |item: &K| {
        let mut item = item.clone();
        item.meta_mut().managed_fields = None;
        serde_json::to_value(item).unwrap_or_default()
    };
    items.iter().map(one).collect()
}

/// Documents of a YAML stream.
pub(crate) fn yaml(documents: &[Value]) -> Result<String, Failure> {
    serde_saphyr::to_string_multiple(documents)
        .map_err(|error| Failure::error(format!("this can't be written as YAML: {error}; try -o json")))
}
