use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A size in whole bytes, written as a Kubernetes quantity (`100Gi`, `5T`, `1073741824`).
///
/// Fractions (`1.5Gi`), exponents and zero are refused: the backend gets exactly the number of bytes written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

/// Suffixes, the longer ones first so that `Gi` is not read as `G` and a stray `i`.
const SUFFIXES: [(&str, u64); 10] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
];

impl Size {
    /// The largest size: 1 EiB. A quota on CephFS is a signed 64-bit number of bytes; this leaves room to add some up.
    pub const MAX: Size = Size(1 << 60);

    /// A size of so many bytes; none if zero or above [`Size::MAX`].
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        (1..=Self::MAX.0).contains(&bytes).then_some(Self(bytes))
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// Why a text is not a [`Size`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseSizeError(String);

impl fmt::Display for ParseSizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is not a whole number of bytes between 1 and 1024Pi; write for example 100Gi, or 1536Mi for 1.5Gi",
            self.0
        )
    }
}

impl std::error::Error for ParseSizeError {}

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (digits, factor) = SUFFIXES
            .iter()
            .find_map(|(suffix, factor)| text.strip_suffix(suffix).map(|digits| (digits, *factor)))
            .unwrap_or((text, 1));
        let well_formed =
            !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        well_formed
            .then(|| digits.parse::<u64>().ok()?.checked_mul(factor))
            .flatten()
            .and_then(Self::from_bytes)
            .ok_or_else(|| ParseSizeError(text.chars().take(64).collect()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (suffix, factor) in SUFFIXES[..5].iter().rev() {
            if self.0.is_multiple_of(*factor) {
                return write!(f, "{}{suffix}", self.0 / factor);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity in whole bytes")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Size::from_bytes(bytes).ok_or_else(|| E::custom(ParseSizeError(bytes.to_string())))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes)
                    .ok()
                    .and_then(Size::from_bytes)
                    .ok_or_else(|| E::custom(ParseSizeError(bytes.to_string())))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// CEL's `isInteger` refuses 100Ti, so the form is a pattern and only the bound is a quantity comparison.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 64,
            "x-kubernetes-validations": [{
                "rule": "string(self).matches('^[1-9][0-9]*(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$') && quantity(string(self)).compareTo(quantity('1024Pi')) <= 0",
                // Kubernetes 1.34 does not show the value by itself.
                "messageExpression": "\"'\" + string(self) + \"' is not a whole number of bytes between 1 and 1024Pi; write for example 100Gi, or 1536Mi for 1.5Gi\""
            }]
        })
    }
}

/// How many times, to the hundredth, written `2` or `"1.5"`: the API has no floating-point numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ratio {
    hundredths: u32,
}

impl Ratio {
    /// So many bytes, this many times over, rounded down.
    pub fn of(self, bytes: u64) -> u64 {
        let many = u128::from(bytes) * u128::from(self.hundredths) / 100;
        u64::try_from(many).unwrap_or(u64::MAX)
    }
}

/// Why a text is not a [`Ratio`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseRatioError(String);

impl fmt::Display for ParseRatioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "'{}' is not a ratio between 0.01 and 9999.99; write for example \"1.5\"",
            self.0
        )
    }
}

impl std::error::Error for ParseRatioError {}

impl FromStr for Ratio {
    type Err = ParseRatioError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |digits: &str, most: usize| {
            (1..=most).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
        };
        let read = || {
            let fraction: u32 = format!("{fraction:0<2}").parse().ok()?;
            Some(whole.parse::<u32>().ok()? * 100 + fraction)
        };
        (is_number(whole, 4) && is_number(fraction, 2))
            .then(read)
            .flatten()
            .filter(|hundredths| *hundredths > 0)
            .map(|hundredths| Self { hundredths })
            .ok_or_else(|| ParseRatioError(text.chars().take(64).collect()))
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.hundredths / 100, self.hundredths % 100);
        match fraction {
            0 => write!(f, "{whole}"),
            _ => write!(f, "{whole}.{fraction:02}"),
        }
    }
}

impl fmt::Debug for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Ratio;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a ratio")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ratio, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, times: u64) -> Result<Ratio, E> {
                self.visit_str(&times.to_string())
            }
            fn visit_i64<E: de::Error>(self, times: i64) -> Result<Ratio, E> {
                self.visit_str(&times.to_string())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Ratio {
    fn schema_name() -> Cow<'static, str> {
        "Ratio".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 7,
            "x-kubernetes-validations": [{
                "rule": "string(self).matches('^[0-9]{1,4}([.][0-9]{1,2})?$') && string(self).matches('[1-9]')",
                "messageExpression": "\"'\" + string(self) + \"' is not a ratio between 0.01 and 9999.99; write for example '1.5'\""
            }]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios() {
        for (text, of_a_hundred) in [
            ("1", 100),
            ("1.5", 150),
            ("0.05", 5),
            ("20", 2000),
            ("9999.99", 999_999),
        ] {
            let ratio: Ratio = text.parse().unwrap();
            assert_eq!(
                (ratio.of(100), ratio.to_string().parse()),
                (of_a_hundred, Ok(ratio)),
                "{text}"
            );
        }
        assert_eq!("1.5".parse::<Ratio>().unwrap().of(3), 4, "rounded down");
        assert_eq!("9999".parse::<Ratio>().unwrap().of(u64::MAX), u64::MAX);
        for text in [
            "", "0", "0.00", "-1", "1.", ".5", "1.555", "10000", "1e3", "1,5", "+1",
        ] {
            assert!(text.parse::<Ratio>().is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<Ratio>("2").unwrap().of(1), 2);
        assert!(
            serde_json::from_str::<Ratio>("1.5").is_err(),
            "no floating-point numbers"
        );
    }

    #[test]
    fn reads_every_suffix() {
        for (text, bytes) in [
            ("1", 1),
            ("1073741824", 1 << 30),
            ("5k", 5_000),
            ("100Gi", 100 << 30),
            ("100Ti", 100 << 40),
            ("1024Pi", 1 << 60),
            ("3P", 3_000_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_whole_bytes() {
        for text in [
            "",
            "0",
            "-1",
            "1.5Gi",
            "1e3",
            "Gi",
            "1025Pi",
            "01",
            "1 Gi",
            "1gi",
            "99999999999999999999",
            "+1",
        ] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["1", "1536Mi", "100Gi", "1Pi", "1000000000"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn json_takes_numbers_and_strings() {
        assert_eq!(serde_json::from_str::<Size>("1024").unwrap(), Size(1024));
        assert_eq!(serde_json::from_str::<Size>("\"1Ki\"").unwrap(), Size(1024));
        assert!(serde_json::from_str::<Size>("-1").is_err());
        assert!(serde_json::from_str::<Size>("1.5").is_err());
    }
}
