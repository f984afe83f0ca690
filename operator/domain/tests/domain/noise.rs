//! Input that nobody meant to send: any bytes, any JSON, and good samples with something broken in them.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Map, Number, Value};

/// Texts that have met a careless parser before.
const WORDS: &[&str] = &[
    "",
    " ",
    "0",
    "-1",
    "1e999",
    "-0.0",
    "1.5",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
    "-9223372036854775809",
    "null",
    "true",
    "{}",
    "[]",
    "\"",
    "\\u0000",
    "\\ud800",
    "\u{0}",
    "\u{feff}",
    "ä",
    "🦀",
    "infinite",
    "shoal.storage/owner",
    "10.0.0.0/0",
    "::ffff:10.0.0.1",
    "fd00::/129",
    "1Gi",
    "1024Pi",
    "99999999999Pi",
    "2026-01-01T00:00:00Z",
    "-009999-01-02T01:59:59Z",
    "9999-12-31T23:59:59.999999999Z",
    "%",
    "[x]",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![select(WORDS).prop_map(str::to_owned), any::<String>()]
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        select(vec![0, -1, i64::MAX, i64::MIN]).prop_map(Value::from),
        any::<f64>().prop_map(|float| Number::from_f64(float).map_or(Value::Null, Value::Number)),
    ]
}

/// Any JSON, not deep.
pub fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number(),
        word().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::Array),
            vec((word(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A sample in which some values are others: of at most so many changes each that `fits` is made.
pub fn altered(sample: Value, most: usize, fits: fn(&Value) -> bool) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![word().prop_map(Value::String), number()];
    let value = prop_oneof![3 => leaf, 1 => json()];
    vec((any::<prop::sample::Index>(), value), 1..=most).prop_map(move |changes| {
        let mut whole = sample.clone();
        for (at, value) in changes {
            let mut paths = Vec::new();
            pointers(&whole, String::new(), &mut paths);
            let mut changed = whole.clone();
            if let Some(place) = changed.pointer_mut(&paths[at.index(paths.len())]) {
                *place = value;
            }
            if fits(&changed) {
                whole = changed;
            }
        }
        whole
    })
}

fn pointers(value: &Value, here: String, all: &mut Vec<String>) {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                pointers(item, format!("{here}/{i}"), all);
            }
        }
        Value::Object(items) => {
            for (key, item) in items {
                pointers(item, format!("{here}/{}", escaped(key)), all);
            }
        }
        _ => {}
    }
    all.push(here);
}

/// A sample with bytes cut out, doubled or replaced.
pub fn broken(sample: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let place = any::<prop::sample::Index>;
    let change = (
        place(),
        place(),
        prop_oneof![Just(None), word().prop_map(Some)],
        any::<bool>(),
    );
    vec(change, 1..4).prop_map(move |changes| {
        let mut bytes = sample.clone();
        for (one, other, insert, double) in changes {
            let ends = [one.index(bytes.len() + 1), other.index(bytes.len() + 1)];
            let range = ends[0].min(ends[1])..ends[0].max(ends[1]);
            let new = match insert {
                Some(word) => word.into_bytes(),
                None if double => bytes[range.clone()].repeat(2),
                None => Vec::new(),
            };
            bytes.splice(range, new);
        }
        bytes
    })
}

/// What a parser may be given where it expects something like these samples.
pub fn like(samples: &[&[u8]]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let samples: Vec<Vec<u8>> = samples.iter().map(|sample| sample.to_vec()).collect();
    let documents: Vec<Value> = samples
        .iter()
        .map(|s| serde_json::from_slice(s).unwrap_or_default())
        .collect();
    let text = |value: Value| value.to_string().into_bytes();
    prop_oneof![
        1 => vec(any::<u8>(), 0..256),
        1 => json().prop_map(text),
        3 => select(samples).prop_flat_map(broken),
        3 => select(documents).prop_flat_map(|document| altered(document, 2, |_| true)).prop_map(text),
    ]
}
