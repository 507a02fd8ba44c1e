//! The stable error codes of the topics and their socket, and the refusal that carries one to an application.

/// What a code stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeInfo {
    /// The stable code, such as `FAN-3001`.
    pub code: &'static str,
    /// A few words.
    pub title: &'static str,
    /// How it comes about.
    pub cause: &'static str,
    /// What to do.
    pub cure: &'static str,
    /// Whether the same call can succeed later without anybody changing anything.
    pub retryable: bool,
}

macro_rules! codes {
    ($($variant:ident = $code:literal, $retryable:literal, $title:literal, $cause:literal, $cure:literal;)*) => {
        /// A reason why a topic refuses or ends a call.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $title] $variant,)*
        }

        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Code] = &[$(Code::$variant),*];

            /// What the code means.
            #[must_use]
            pub const fn info(self) -> &'static CodeInfo {
                match self {
                    $(Code::$variant => &CodeInfo {
                        code: $code, title: $title, cause: $cause, cure: $cure, retryable: $retryable,
                    },)*
                }
            }
        }
    };
}

codes! {
    UnknownTopic = "FAN-3001", false, "unknown topic",
        "No mapping of this node's configuration makes a topic of that name.",
        "Use one of the topics named in the message, or add a mapping to the configuration.";
    UnknownApplication = "FAN-3002", false, "unknown application",
        "The topic exists, but its mapping's `applications` do not name this one.",
        "Use one of the applications named in the message, or add it to the mapping on every node.";
    OpenExpected = "FAN-3003", false, "the first request must be Open",
        "The call began with another request, with none within the time limit, or a second Open came.",
        "Send Open first, once, and at once; the SDK does.";
    LimitExceeded = "FAN-3004", true, "limit exceeded",
        "Too many instances of one application are connected to this node.",
        "Close instances that are not needed; one instance with more concurrency does the work of many.";
    NotPermitted = "FAN-3005", false, "not permitted",
        "The application has `users` in the configuration, and the user of the calling process is none of them.",
        "Run the process as one of them, or add its user, by name or number, on this node and restart the bridge.";
    Stopping = "FAN-3006", true, "the node is stopping",
        "The bridge shuts down, or restarts.",
        "Connect again after a while; the SDK does by itself.";
    Malformed = "FAN-3007", false, "malformed request",
        "A request breaks the contract: an empty or reversed range, a delivery number that was never handed out, or more ranges than one request may hold.",
        "Update the client library; with an own client compare with the comments in topic.proto.";
    Fenced = "FAN-3008", true, "the node is fenced",
        "The ledger shows that another process acts as this node, that its data directory is a copy or older than what the node claimed, or that it was evacuated. It delivers nothing more, as another one may deliver the same.",
        "Applications: connect to another node. Operators: `fanin status` and the log say which it is and what to do. Let one process go on as this node and stop the others; a second node needs another name and an empty data directory.";
    Damaged = "FAN-3009", true, "the topic is held back by damage",
        "The node's disk has lost what tells which messages its applications have finished; delivering might repeat or skip some.",
        "See `fanin status` on this node; connect to another node.";
}

/// Why a call is refused or ended, as the application gets to know it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {text}", code.info().code)]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// The particular case, with the cure where one exists.
    pub text: String,
}

impl Refusal {
    /// A refusal.
    #[must_use]
    pub fn new(code: Code, text: impl Into<String>) -> Refusal {
        Refusal {
            code,
            text: text.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: codes are unique, of the right form, ascending, and each says cause and cure.
    #[test]
    fn the_table_is_sound() {
        let codes: Vec<&str> = Code::ALL.iter().map(|code| code.info().code).collect();
        assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "{codes:?}");
        for code in Code::ALL {
            let info = code.info();
            assert!(info.code.starts_with("FAN-3") && info.code.len() == 8, "{info:?}");
            assert!(info.cause.ends_with('.') && info.cure.ends_with('.'), "{info:?}");
        }
    }
}
