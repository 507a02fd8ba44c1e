//! The configuration's stable error codes, and what each means.

/// What a code stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeInfo {
    /// The stable code, such as `FAN-1003`.
    pub code: &'static str,
    /// A few words.
    pub title: &'static str,
    /// How it comes about.
    pub cause: &'static str,
    /// What to do.
    pub cure: &'static str,
}

macro_rules! codes {
    ($($variant:ident = $code:literal, $title:literal, $cause:literal, $cure:literal;)*) => {
        /// A kind of problem with the configuration.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $title] $variant,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// What the code means.
            pub const fn info(self) -> &'static CodeInfo {
                match self {
                    $(Code::$variant => &CodeInfo { code: $code, title: $title, cause: $cause, cure: $cure },)*
                }
            }
        }
    };
}

codes! {
    FileUnreadable = "FAN-1001", "configuration file not readable",
        "The file named on the command line, or a file in conf.d beside it, does not exist, may not be read, is not UTF-8 text or is too large.",
        "Check the path and its permissions; the bridge reads the file as its own user.";
    Syntax = "FAN-1002", "not valid YAML",
        "The text is not YAML: a wrong indentation, an open quote or bracket, a tab, an unknown alias, a ${VAR} without quotes between [ ] or { }, or more than one document.",
        "Mend the line named; the mistake is often on the line before it.";
    UnknownKey = "FAN-1003", "unknown key",
        "The key is misspelt, stands at the wrong place, or belongs to another version.",
        "Take the suggested key, or see `fanin config schema` for the keys that exist.";
    BadValue = "FAN-1004", "wrong type or value",
        "The value cannot be read as what the key takes, or is outside the range allowed.",
        "Write the value as the message says.";
    MissingKey = "FAN-1005", "key missing",
        "A key that has no default is not set by any file, variable or flag.",
        "Set the key.";
    DuplicateKey = "FAN-1006", "key given twice",
        "One map of one file names the same key twice; only one of them could take effect.",
        "Remove or rename one of the two lines.";
    UndefinedVariable = "FAN-1007", "variable not defined",
        "A value holds ${VAR}, and the environment has no VAR and the value no default.",
        "Define the variable, write ${VAR:default}, or write $${ for a literal ${.";
    Relation = "FAN-1008", "values that contradict each other",
        "Each value is allowed, but not beside the other one named.",
        "Change one of the two.";
    SharedSource = "FAN-1009", "two mappings share messages",
        "Two mappings take the same subjects of the same stream, so each message is brought to both. This is a warning.",
        "If that is wanted, nothing; otherwise narrow the subjects of one mapping.";
    PlainSecret = "FAN-1010", "secret in plain sight",
        "A password or token is spelt out in a file, on the command line or in a server address, where others can read it.",
        "Use the key ending in `_file`, or give the value by the environment.";
    NeverMatches = "FAN-1011", "filter that matches nothing",
        "No subject of the mapping's sources can match the application's filter, so that the application gets nothing. This is a warning.",
        "Correct the filter's subjects or those of the sources.";
    UnknownUser = "FAN-1012", "no such user",
        "An application's `users` name somebody whom /etc/passwd of this machine does not know.",
        "Correct the name or create the user; give users of a directory service by their number (`id -u NAME`).";
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.info().code)
    }
}
