//! The error codes of the hub adapter, with cause and cure: one table for logs, `fanin errors` and the docs.

/// One error code that users can look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Stable: `FAN-` and four digits.
    pub code: &'static str,
    /// What it is, in a few words.
    pub title: &'static str,
    /// Why it happens.
    pub cause: &'static str,
    /// What to do.
    pub cure: &'static str,
}

macro_rules! codes {
    ($($name:ident = $code:literal, $title:literal, $cause:literal, $cure:literal;)*) => {
        $(#[doc = $title] pub const $name: &str = $code;)*
        /// Every code of this crate, ascending.
        pub const CODES: &[Code] = &[$(Code { code: $code, title: $title, cause: $cause, cure: $cure }),*];
    };
}

codes! {
    HUB_UNREACHABLE = "FAN-2001", "The hub cannot be reached.",
        "No configured server answers, or the connection was lost.",
        "Check hub.servers, name resolution, firewalls, and that nats-server runs. A running bridge reconnects by itself; applications keep working from the backlog.";
    LOGIN_REFUSED = "FAN-2002", "The hub refused the login.",
        "User, password, token, nkey or credentials are wrong or expired, or the account does not know them.",
        "Check the credentials with `nats account info` under the same flags, renew them, and restart.";
    TLS_FAILED = "FAN-2003", "No TLS connection to the hub.",
        "The server's certificate is not trusted, is for another name, or the client certificate is missing or refused.",
        "Set hub.tls.ca to the authority that signed the server's certificate; set hub.tls.cert and hub.tls.key together; connect by a name in the certificate. Commands that take no configuration have --tlsca, --tlscert and --tlskey.";
    SECRET_UNREADABLE = "FAN-2004", "A credentials or certificate file cannot be read.",
        "The path is wrong, or the bridge's user may not read the file.",
        "Correct the path, or give the bridge's user read access.";
    HUB_WITHOUT_JETSTREAM = "FAN-2005", "The hub has no JetStream for this account.",
        "nats-server runs without JetStream, the account may not use it, or the streams live in another domain.",
        "Start nats-server with -js or a jetstream block, enable JetStream for the account, or name servers of the domain that has the streams.";
    PERMISSION_DENIED = "FAN-2006", "The hub denies a subject.",
        "The permissions of the bridge's user do not cover a subject it needs.",
        "Allow the subject named in the message.";
    HUB_SILENT = "FAN-2007", "The hub does not answer a request.",
        "The stream or consumer has no leader at the moment, the hub is overloaded, or the object is gone.",
        "Look at `nats stream report` and `nats server report jetstream`; the bridge tries again by itself.";
    HUB_REFUSED = "FAN-2008", "The hub refused a request.",
        "The server's text in the message says why.",
        "Correct what it names.";
    MESSAGE_TOO_LARGE = "FAN-2009", "A message is larger than the hub takes.",
        "The message exceeds the server's max_payload or the stream's max_msg_size.",
        "Raise the limit, or send less.";
    SOURCE_MISSING = "FAN-2010", "A source stream does not exist.",
        "The mapping names a stream that the hub does not have in this account and domain.",
        "Create the stream (`fanin hub apply`), correct the name in the mapping, or name servers and credentials of the account and domain that have it.";
    CONSUMER_DIFFERS = "FAN-2011", "The shared consumer's settings are not what fanin needs.",
        "Somebody changed the consumer, or the mapping's filter changed without a new consumer generation.",
        "Restore the settings named in the message, or delete the consumer and let an operator re-create it behind the watermark by starting one bridge with --recreate-consumer.";
    CONSUMER_MISSING = "FAN-2012", "The shared consumer is missing although the ledger has a watermark.",
        "The consumer was deleted, or lost with its servers. Creating it anew from the start would deliver everything again.",
        "Re-create it behind the watermark by starting one bridge with --recreate-consumer.";
    LEDGER_MISSING = "FAN-2013", "The ledger stream is missing.",
        "This node has worked with a ledger that the hub no longer has.",
        "The mapping is held. Restore the stream from a backup, or see what `fanin ledger repair --dry-run` says. Only if the whole mapping is to start anew: remove the data directories of all its nodes first.";
    LEDGER_DIFFERS = "FAN-2014", "The ledger's settings are not what fanin needs.",
        "Somebody created or changed the ledger stream with other settings.",
        "Restore the settings named in the message with `nats stream edit`; an empty ledger may be deleted, fanin creates it anew.";
    LEDGER_SHRANK = "FAN-2015", "The ledger ends before a position that was already read, or holds another record there.",
        "The hub lost acknowledged records: a power loss without sync_interval: always, a restored backup, or a damaged disk.",
        "The mapping halts. Restore the hub, then restart the bridges; or see what `fanin ledger repair --dry-run` says.";
    LEDGER_RECREATED = "FAN-2016", "The ledger was deleted and created again.",
        "The stream's creation time changed: its records are others now.",
        "The mapping halts. After `fanin ledger repair` restart the bridge. Otherwise restore the old stream, or see what `fanin ledger repair --dry-run` says.";
    LEDGER_FULL = "FAN-2017", "The ledger is full.",
        "Its size limit is reached: a backlog that nobody finishes keeps claims in it.",
        "Raise the stream's max_bytes, and see with `fanin status` which node or application is behind.";
    LEDGER_NO_ROOM = "FAN-2018", "The hub has no storage for the ledger.",
        "The account's or server's JetStream storage is less than the ledger's size limit.",
        "Give JetStream more storage, or set the mapping's ledger.max_bytes lower.";
    CLIENT_ENDED = "FAN-2019", "The client library ended at a message.",
        "Somebody published a message with headers that the library cannot read; it gave up its connection.",
        "Nothing: a new connection was made, and the message is fetched by its sequence if it is one of the mapping's. See FAN-4042 for which it was, and correct its publisher.";
    SOURCE_UNFIT = "FAN-2020", "A source stream cannot hold the delivery that a mapping requires.",
        "The stream is kept in memory, or the hub acknowledges its messages before it writes them (persist_mode async): it may lose what it acknowledged, and give the same numbers to other messages. The mapping's required_delivery rules that out.",
        "Create the stream anew with the setting that the message names, or remove required_delivery from the mapping.";
    SOURCE_VOLATILE = "FAN-2021", "A source stream may lose what the hub acknowledged.",
        "The stream is kept in memory, or the hub acknowledges its messages before it writes them (persist_mode async).",
        "Create the stream anew with the setting that the log names. Set required_delivery on the mapping to let a start be refused in such a case.";
    SOURCE_FORGETS = "FAN-2022", "A source stream lets messages go that a node may still need.",
        "Its retention is not `limits`, so that an acknowledged message is gone; or a limit of age, size or number discards old messages. What damage takes from a node's disk cannot be fetched again then, and a message that is discarded before a node has taken it is never delivered.",
        "Nothing, if that is wanted. Otherwise give the stream retention `limits`, and limits above what nodes and applications may fall behind, or `discard: new`.";
    DELIVERY_UNKNOWN = "FAN-2023", "A delivery of the hub cannot be understood.",
        "A message came without the sequences that the hub writes into its reply subject: the server is of a version that this fanin does not know, or somebody published to the bridge's inbox. It was passed over; one of the stream's is delivered again.",
        "Use a supported server (2.11 to 2.15), and let nobody publish below the bridges' inboxes.";
    SUBJECT_UNTAKEN = "FAN-2024", "No stream takes a subject.",
        "Nothing was stored: no stream of the hub, in the account and domain of this login, has the subject among its own.",
        "Create a stream that takes the subject (`nats stream add`, or `fanin hub apply` for the sources of a configuration), correct the subject, or name servers and credentials of the account that has the stream.";
}

/// The entry of a code.
#[must_use]
pub fn lookup(code: &str) -> Option<&'static Code> {
    CODES.iter().find(|entry| entry.code == code)
}

#[cfg(test)]
mod tests {
    //! Goal: the table can be relied on. Method: order and completeness.
    use super::*;

    #[test]
    fn ascending_and_complete() {
        assert!(CODES.windows(2).all(|pair| pair[0].code < pair[1].code));
        for entry in CODES {
            assert!(
                entry.code.len() == 8 && entry.code.starts_with("FAN-20"),
                "{}",
                entry.code
            );
            assert!(![entry.title, entry.cause, entry.cure].contains(&""));
            assert_eq!(lookup(entry.code), Some(entry));
        }
    }
}
