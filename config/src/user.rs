//! A user of this machine, by number or by name.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use crate::limits::NAME_BYTES_MAX;
use crate::units::Invalid;

/// The number that the system gives to no user.
const NOBODYS_UID: u32 = u32::MAX;

/// A user of this machine: its number, or its name, which the process looks up at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// By number.
    Uid(u32),
    /// By name.
    Name(String),
}

impl User {
    /// The user's number. A name that nobody has looked up has a number that no process has, so that it permits nobody.
    pub fn uid(&self) -> u32 {
        match self {
            Self::Uid(uid) => *uid,
            Self::Name(_) => NOBODYS_UID,
        }
    }
}

/// In the place of one that is not valid.
impl Default for User {
    fn default() -> Self {
        Self::Uid(NOBODYS_UID)
    }
}

impl FromStr for User {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let cure = "write a user's name or its number, such as billing or 1001";
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return match text.parse() {
                Ok(uid) if uid != NOBODYS_UID => Ok(Self::Uid(uid)),
                Ok(_) | Err(_) => Err(Invalid::new("no user has this number", cure)),
            };
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-$@".contains(&byte);
        if (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.starts_with('-') && text.bytes().all(plain) {
            return Ok(Self::Name(text.to_owned()));
        }
        Err(Invalid::new("not the name of a user", cure))
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "{uid}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Serialize for User {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Uid(uid) => serializer.serialize_u32(*uid),
            Self::Name(name) => serializer.serialize_str(name),
        }
    }
}

impl JsonSchema for User {
    fn schema_name() -> Cow<'static, str> {
        "User".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "minimum": 0, "examples": ["billing", 1001] })
    }
}

#[cfg(test)]
mod tests {
    //! Goal: names and numbers are told apart, and neither a wrong one nor a name not looked up permits anybody. Method: a
    //! table.
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, user) in [
            ("0", Some(User::Uid(0))),
            ("1001", Some(User::Uid(1001))),
            ("billing", Some(User::Name("billing".to_owned()))),
            ("svc-1.a_b$", Some(User::Name("svc-1.a_b$".to_owned()))),
            ("4294967295", None),
            ("4294967296", None),
            ("", None),
            ("-1", None),
            ("a:b", None),
            ("a b", None),
        ] {
            assert_eq!(text.parse::<User>().ok(), user, "{text:?}");
        }
        assert_eq!(User::Uid(7).uid(), 7);
        assert_eq!(User::Name("root".to_owned()).uid(), u32::MAX);
        assert_eq!(User::default().uid(), u32::MAX);
    }
}
