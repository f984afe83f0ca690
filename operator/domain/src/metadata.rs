//! What users say of a share, as the storage keeps it for its admins to see.

use std::{collections::BTreeMap, fmt::Write};

/// Where it is kept: as one value, for Ceph's own keys are fragile.
pub const METADATA_KEY: &str = "shoal.storage/metadata";

/// JSON in which everything but ASCII letters and digits is escaped: Ceph keeps it in an INI file, which refuses `%`, ends a value
/// at the end of a line, and takes what stands in brackets for a section. None if there is nothing to say.
pub fn to_text(metadata: &BTreeMap<String, String>) -> Option<String> {
    let entries: Vec<_> = metadata
        .iter()
        .map(|(key, value)| format!("{}:{}", quoted(key), quoted(value)))
        .collect();
    (!entries.is_empty()).then(|| format!("{{{}}}", entries.join(",")))
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii_alphanumeric() => quoted.push(byte.into()),
            // A String takes whatever is written to it.
            _ => drop(write!(quoted, "\\u{unit:04x}")),
        }
    }
    quoted.push('"');
    quoted
}
