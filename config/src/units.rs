//! Values as people write them: durations, sizes, percentages, file modes, the listening address, secrets.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a value of its type, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}; {cure}")]
pub struct Invalid {
    /// What is wrong with the text.
    pub why: String,
    /// What to write instead.
    pub cure: String,
}

impl Invalid {
    pub(crate) fn new(why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            cure: cure.into(),
        }
    }
}

/// Gives a type that is written as text its serde and schema parts, from `FromStr` and `Display`.
macro_rules! as_text {
    ($type:ty, $name:literal, $pattern:literal, $example:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                // A value may hold `${VAR}`, which only the loader can resolve.
                let pattern = concat!("^(", $pattern, "|.*\\$\\{.+\\}.*)$");
                json_schema!({ "type": "string", "pattern": pattern, "examples": [$example] })
            }
        }
    };
}

/// A length of time: `30s`, `200ms`, `1h30m`. Units: `us`, `ms`, `s`, `m`, `h`, `d`; whole numbers, largest unit first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct HumanDuration(pub Duration);

const DURATION_UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

impl HumanDuration {
    /// A duration of whole seconds.
    pub const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A duration of whole milliseconds.
    pub const fn millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }
}

impl FromStr for HumanDuration {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let cure = "write a duration as 30s, 200ms, 1m or 1h30m (units us, ms, s, m, h, d)";
        let invalid = |why: &str| Invalid::new(why, cure);
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(invalid("a duration is missing"));
        }
        let mut total_us: u64 = 0;
        let mut unit_before = u64::MAX;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, tail) = rest.split_at(digits);
            let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            if number.is_empty() {
                return Err(invalid("not a duration"));
            }
            if unit.is_empty() {
                return Err(invalid("a duration needs a unit"));
            }
            let number: u64 = number.parse().map_err(|_| invalid("the number is too large"))?;
            let Some((_, unit_us)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
                return Err(Invalid::new(format!("`{unit}` is not a unit of time"), cure));
            };
            if *unit_us >= unit_before {
                return Err(invalid("units go from large to small, each once"));
            }
            unit_before = *unit_us;
            total_us = number
                .checked_mul(*unit_us)
                .and_then(|part| total_us.checked_add(part))
                .ok_or_else(|| invalid("the duration is too long"))?;
            rest = tail;
        }
        Ok(Self(Duration::from_micros(total_us)))
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, unit_us) in DURATION_UNITS {
            let count = rest / unit_us;
            if count > 0 {
                write!(f, "{count}{unit}")?;
                rest %= unit_us;
            }
        }
        Ok(())
    }
}

impl From<HumanDuration> for Duration {
    fn from(value: HumanDuration) -> Self {
        value.0
    }
}

as_text!(HumanDuration, "Duration", "([0-9]+(us|ms|s|m|h|d))+", "30s");

/// A number of bytes: `64MiB`, `8GiB`, `256KiB`, or plain bytes. Decimal units (`kB`, `MB`, `GB`, `TB`) work too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// A size of whole mebibytes.
    pub const fn mib(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }

    /// A size of whole gibibytes.
    pub const fn gib(gibibytes: u64) -> Self {
        Self(gibibytes << 30)
    }
}

impl FromStr for ByteSize {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let cure = "write a size as 64MiB, 8GiB, 256KiB or a plain number of bytes";
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        if number.is_empty() {
            return Err(Invalid::new("not a size", cure));
        }
        let unit = unit.trim_start();
        let factor = if unit.is_empty() {
            1
        } else {
            match SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
                Some((_, factor)) => *factor,
                None => return Err(Invalid::new(format!("`{unit}` is not a unit of size"), cure)),
            }
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| Invalid::new("the size is too large", cure))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in &SIZE_UNITS[..4] {
            if self.0 >= *factor && self.0.is_multiple_of(*factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}", self.0)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bytes(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => Ok(Self(bytes)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "minimum": 0,
            "pattern": "^([0-9]+ ?([KMGT]iB|[kKMGT]B|B)?|.*\\$\\{.+\\}.*)$",
            "examples": ["64MiB"],
        })
    }
}

/// A share of a whole, 0 to 100, written `20%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Percent(pub u8);

impl FromStr for Percent {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        text.trim()
            .strip_suffix('%')
            .and_then(|number| number.parse::<u8>().ok())
            .filter(|number| *number <= 100)
            .map(Self)
            .ok_or_else(|| {
                Invalid::new(
                    "not a percentage",
                    "write a whole percentage from 0% to 100%, such as 20%",
                )
            })
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

as_text!(Percent, "Percent", "(100|[0-9]{1,2})%", "20%");

/// Permission bits of a file, written in octal: `"0660"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl FromStr for FileMode {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits = text.trim();
        let digits = digits.strip_prefix("0o").unwrap_or(digits);
        let cure = "write three or four octal digits in quotes, such as \"0660\"";
        if !(3..=4).contains(&digits.len()) || !digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte)) {
            return Err(Invalid::new("not permission bits in octal", cure));
        }
        u32::from_str_radix(digits, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .map(Self)
            .ok_or_else(|| Invalid::new("more than permission bits", cure))
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

as_text!(FileMode, "FileMode", "0?[0-7]{3}|0o[0-7]{3}", "0660");

/// Where applications connect: `unix:///path/of/the.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket at this absolute path.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let cure = "write the socket's absolute path as unix:///run/fanin/fanin.sock";
        let Some(path) = text.strip_prefix("unix://") else {
            return Err(Invalid::new("only unix:// addresses are served", cure));
        };
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return Err(Invalid::new("not an absolute path of a socket", cure));
        }
        Ok(Self::Unix(PathBuf::from(path)))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

as_text!(Listen, "Listen", "unix:///.*[^/]", "unix:///run/fanin/fanin.sock");

/// What is shown instead of a secret.
pub const REDACTED: &str = "(redacted)";

/// A password or token. Printing and serializing it show [`REDACTED`]; only [`Secret::expose`] gives the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // A file may name a variable, never spell the secret out.
        json_schema!({ "type": "string", "pattern": "^\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}$", "examples": ["${HUB_PASSWORD}"] })
    }
}

#[cfg(test)]
mod tests {
    //! Goal: every unit reads what people write and prints what it reads. Method: tables of texts, and round trips.
    use super::*;

    #[test]
    fn durations() {
        for (text, micros) in [
            ("30s", 30_000_000),
            ("200ms", 200_000),
            ("1m", 60_000_000),
            ("1h30m", 5_400_000_000),
            ("7us", 7),
            ("0s", 0),
        ] {
            let parsed: HumanDuration = text.parse().expect(text);
            assert_eq!(parsed.0.as_micros(), micros, "{text}");
            assert_eq!(parsed.to_string(), text);
        }
        for text in [
            "",
            "30",
            "s",
            "1.5s",
            "-1s",
            "30 s",
            "30x",
            "30m1h",
            "1s1s",
            "99999999999999999999s",
            "9999999999999d",
        ] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text}");
        }
        assert_eq!(
            "90m".parse::<HumanDuration>().expect("valid").to_string(),
            "1h30m"
        );
    }

    #[test]
    fn sizes() {
        for (text, bytes, shown) in [
            ("64MiB", 64 << 20, "64MiB"),
            ("8GiB", 8 << 30, "8GiB"),
            ("256KiB", 256 << 10, "256KiB"),
            ("1000", 1000, "1000"),
            ("1 MB", 1_000_000, "1000000"),
            ("1024", 1024, "1KiB"),
            ("0", 0, "0"),
        ] {
            let parsed: ByteSize = text.parse().expect(text);
            assert_eq!((parsed.0, parsed.to_string().as_str()), (bytes, shown), "{text}");
            assert_eq!(parsed.to_string().parse::<ByteSize>(), Ok(parsed));
        }
        for text in ["", "MiB", "1.5GiB", "-1", "64mib", "64XB", "99999999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        assert_eq!(
            serde_json::from_str::<ByteSize>("4096").expect("a number"),
            ByteSize(4096)
        );
        assert_eq!(
            serde_json::from_str::<ByteSize>("\"4KiB\"").expect("a text"),
            ByteSize(4096)
        );
    }

    #[test]
    fn small_ones() {
        assert_eq!("0660".parse::<FileMode>().expect("valid").0, 0o660);
        assert_eq!("600".parse::<FileMode>().expect("valid").to_string(), "0600");
        for text in ["66", "0888", "rw", "4755", ""] {
            assert!(text.parse::<FileMode>().is_err(), "{text}");
        }
        assert_eq!("20%".parse::<Percent>().expect("valid"), Percent(20));
        for text in ["20", "101%", "-1%", "%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
        for text in [
            "tcp://0.0.0.0:1",
            "unix://relative",
            "/run/x.sock",
            "unix:///",
            "unix:///run/",
        ] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
        let listen: Listen = "unix:///run/x.sock".parse().expect("valid");
        assert_eq!(
            serde_json::to_string(&listen).expect("text"),
            "\"unix:///run/x.sock\""
        );
        assert_eq!(
            serde_json::from_str::<Listen>("\"unix:///run/x.sock\"").expect("text"),
            listen
        );
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret:?}{}", serde_json::to_string(&secret).expect("text")),
            "(redacted)\"(redacted)\""
        );
    }
}
