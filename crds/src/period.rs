use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time in whole seconds, written as Kubernetes writes durations (`720h`, `1h30m`, `45s`).
///
/// Parts below a second and lengths below zero are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u64);

impl Period {
    /// The longest: ten years.
    pub const MAX: Period = Period(87_600 * 3600);

    /// One of so many seconds; none above [`Period::MAX`].
    pub fn from_seconds(seconds: u64) -> Option<Self> {
        (seconds <= Self::MAX.0).then_some(Self(seconds))
    }

    /// How long it is.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }

    /// Whether it is no time at all.
    // Used by serde, which hands a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    pub fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

/// Why a text is not a [`Period`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsePeriodError(String);

impl fmt::Display for ParsePeriodError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is not a length of time from 0s to 87600h; write for example 720h for 30 days, or 1h30m",
            self.0
        )
    }
}

impl std::error::Error for ParsePeriodError {}

impl FromStr for Period {
    type Err = ParsePeriodError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        seconds(text)
            .and_then(Self::from_seconds)
            .ok_or_else(|| ParsePeriodError(text.chars().take(64).collect()))
    }
}

fn seconds(text: &str) -> Option<u64> {
    let (mut rest, mut sum) = (text, 0_u64);
    for (unit, length) in [('h', 3600), ('m', 60), ('s', 1)] {
        if let Some((digits, after)) = rest.split_once(unit) {
            let well_formed = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            let count = well_formed.then(|| digits.parse::<u64>().ok())??;
            sum = sum.checked_add(count.checked_mul(length)?)?;
            rest = after;
        }
    }
    (rest.is_empty() && !text.is_empty()).then_some(sum)
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, minutes, seconds) = (self.0 / 3600, self.0 / 60 % 60, self.0 % 60);
        for (count, unit) in [(hours, 'h'), (minutes, 'm'), (seconds, 's')] {
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        if self.0 == 0 { f.write_str("0s") } else { Ok(()) }
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 32,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && self != '' \
                         && duration(self) <= duration('87600h')",
                "messageExpression": "\"'\" + self + \"' is not a length of time from 0s to 87600h; write for example 720h for 30 days, or 1h30m\"",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_it_is_read() {
        for text in ["720h", "1h30m", "45s", "1h30m5s", "0s"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        assert_eq!("90m".parse::<Period>().unwrap().to_string(), "1h30m");
        assert_eq!("87600h".parse::<Period>().unwrap(), Period::MAX);
    }

    #[test]
    fn anything_else_is_refused_with_a_remedy() {
        for text in [
            "",
            "-1h",
            "1d",
            "7",
            "1.5h",
            "m",
            "1s1h",
            "87601h",
            "99999999999999999999h",
            "1h ",
        ] {
            let refusal = text.parse::<Period>().unwrap_err().to_string();
            assert!(refusal.contains(text) && refusal.contains("720h"), "{refusal}");
        }
    }
}
