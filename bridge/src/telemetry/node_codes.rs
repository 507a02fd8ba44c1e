//! The stable error codes of a running node and its mappings, with cause and cure.

super::codes::codes! {
    DATA_DIR = "FAN-4001", "the data directory cannot be made",
        "`data_dir` does not exist and the bridge's user may not create it.",
        "Create it for the bridge's user, or set `data_dir` to a directory that user may write.";
    STORE_FAILED = "FAN-4002", "the local log failed",
        "The disk returned an error, or a sync failed; what was not synced counts as not written.",
        "Check the disk and its file system, then restart the bridge. What was confirmed is safe; the rest comes again from the hub.";
    FORMAT_UNKNOWN = "FAN-4003", "a record of the data directory cannot be read",
        "Another version of fanin wrote it.",
        "Use the version that wrote the data directory.";
    DATA_INCOMPLETE = "FAN-4004", "the data directory lacks a batch",
        "A batch was resolved and is not there: files were removed or damaged.",
        "Restore the files. If they are lost, give the node another name and an empty data directory: what it had won and not finished, in all its mappings, is not delivered then, and no application can be added to these mappings until a node can be evacuated, which is not built yet.";
    MAPPING_ENDED = "FAN-4005", "a mapping ended",
        "Its topic and the local log disagree, or a part of it failed.",
        "See the message before it in the log; restart the bridge. If it happens again, report it.";
    STORE_DAMAGED = "FAN-4007", "the local log is damaged",
        "Bytes before the last completed sync are not those written: the disk or somebody changed them. Nothing was changed by fanin.",
        "Restore the disk. If that is not possible, give the node another name and an empty data directory: what it had won and not finished, in all its mappings, is not delivered then, and no application can be added to these mappings until a node can be evacuated, which is not built yet.";
    ADMIN_UNBOUND = "FAN-4008", "the admin address cannot be served",
        "The port is taken, the address is not one of this machine, or connections cannot be accepted.",
        "Set `admin` to a free address; port 0 takes a free one.";
    STORE_LOCKED = "FAN-4009", "the data directory is in use",
        "Another bridge process holds its lock.",
        "Stop the other process, or give each its own `data_dir`.";
    LEDGER_RECREATED = "FAN-4010", "the ledger is another one than before",
        "The ledger stream was deleted and created again since this node last worked with it.",
        "The mapping is held. Restore the old stream, or see what `fanin ledger repair --dry-run` says. Only if the whole mapping is to start anew: empty the data directories of all its nodes first.";
    IDENTITY_CONFLICT = "FAN-4011", "two nodes use one identity",
        "The ledger's last epoch of this node was not written by this data directory: a copy of it is or was in use, or two nodes have one name.",
        "Stop the other one, or give this node another name and an empty data directory.";
    EPOCH_UNKNOWN = "FAN-4012", "the ledger knows more of this node than its disk",
        "The data directory was restored from a backup or replaced; claims of this node are in the ledger whose messages the disk does not have.",
        "Use the original data directory. If it is lost, give the node another name and an empty data directory: what it had won and not finished, in all its mappings, is not delivered then, and no application can be added to these mappings until a node can be evacuated, which is not built yet.";
    DATA_COPIED = "FAN-4013", "the data directory is a copy",
        "It was made on another machine or file system: copied, restored from a backup, or moved.",
        "Use the original. If it was moved and nothing uses the original, start once with --accept-moved-data.";
    DATA_OF_OTHER_NODE = "FAN-4014", "the data directory belongs to another node",
        "The configuration's `node` is not the name that the directory was made under.",
        "Correct `node`, or use an empty directory.";
    SOCKET_UNBOUND = "FAN-4015", "the socket cannot be served",
        "Its directory cannot be made, the bridge's user may not write there, the path is too long, something else is there, or another bridge listens on it.",
        "Let the bridge's user write to the directory, correct `listen`, or stop the other bridge.";
    STOP_CUT_SHORT = "FAN-4016", "not everything ended in time",
        "A stop took longer than shutdown_grace.",
        "Nothing: what is unfinished goes on at the next start. Raise shutdown_grace if it happens often.";
    MAPPING_ORPHANED = "FAN-4017", "a mapping left the configuration with its backlog",
        "The data directory holds messages of a mapping that is not configured any more.",
        "Put the mapping back to deliver them; otherwise nothing, they are kept.";
    APP_ORPHANED = "FAN-4018", "an application left the configuration with its backlog",
        "The data directory holds messages of an application that the terms name and the configuration does not any more.",
        "Put the application back to deliver them; until then they are kept, and this node claims nothing.";
    EPOCH_LOST = "FAN-4019", "the ledger has lost this node's epoch, or records it had read",
        "The hub was rolled back, or lost records it had confirmed, in a power loss without sync_interval always for instance.",
        "The mapping is held, others of the node are served. Restore the hub, or see what `fanin ledger repair --dry-run` says.";
    SOURCE_AWAY = "FAN-4020", "a source or its consumer cannot be used now",
        "The stream or the shared consumer is missing, differs, or does not answer; the reason says which.",
        "Follow the reason; the bridge looks again by itself.";
    CONSUMER_GROWN = "FAN-4021", "the shared consumer has grown",
        "This node's configuration names more nodes, or a larger in_flight, than the shared consumer was made for; its sizes were raised. This is information.",
        "Give the other nodes the same `nodes` and `in_flight`: one that wants less than the consumer has is refused (FAN-2011).";
    STORE_FULL = "FAN-4022", "the local log is full",
        "Its quota or the disk is used up by messages that applications have not finished.",
        "See `fanin status` for the application that is behind; raise store.quota. Other nodes take over meanwhile.";
    LEDGER_FULL = "FAN-4023", "the ledger is nearly full",
        "A backlog that nobody finishes keeps claims in it, so that it has reached three quarters of its max_bytes; or the hub's account has no storage left. No claims are made.",
        "See with `fanin status` which node or application is behind, or raise the ledger stream's max_bytes (`nats stream edit`). Claims go on by themselves below five eighths.";
    GATED = "FAN-4024", "an application has no instance on this node",
        "Intake waits until every application of the mapping is connected here, so that nothing waits for an absent one.",
        "Start the application on this node, or set `intake: always`.";
    LEDGER_SLOW = "FAN-4025", "too many batches wait for the ledger",
        "The hub answers claims more slowly than messages come, or not at all.",
        "Check the hub and the network to it; intake goes on by itself.";
    FILTER_DIFFERS = "FAN-4026", "the terms name other subjects than the configuration",
        "A source's subjects were changed on this node, or on others and accepted there. It claims nothing meanwhile.",
        "Make the configurations of all nodes alike, then start one with --accept-terms. The shared consumer still has the old subjects then (FAN-2011): delete it, and start one node with --recreate-consumer. What the new subjects match is delivered from the watermark on.";
    NO_TERMS = "FAN-4027", "no terms are in force yet",
        "The first node of the mapping has not written them.",
        "Nothing: it passes. If it stays, see the log for why terms cannot be written.";
    SOURCE_NOT_IN_TERMS = "FAN-4028", "the terms do not name this source",
        "A source was added on this node, and the terms with it are on their way.",
        "Nothing: it passes. If it stays, see the log for why terms cannot be written. Add the source on the other nodes too, so that they share its messages.";
    APP_NOT_HOSTED = "FAN-4029", "this node does not host every application of the terms",
        "An application was left out of this node's configuration.",
        "Add it to this node's configuration.";
    HALTED = "FAN-4030", "a mapping halted",
        "The ledger or a source cannot be trusted: it shrank, was created again, has a gap or a record of a newer version; the reason says which.",
        "A node that had joined goes on delivering what it has published, up to a batch that its disk has damaged; one that halted before it joined delivers nothing. Follow the reason: update fanin, or restore the hub's stream, then restart. A ledger that cannot be restored is repaired: `fanin ledger repair --dry-run` shows how.";
    DEAD_LETTER = "FAN-4031", "a message became a dead letter",
        "An application rejected it, or failed at it as often as max_attempts allows, or the disk lost it for good; the log names message, application, reason and the last error.",
        "See the application's error; raise max_attempts if the fault passes by itself. The message is kept on this node.";
    TOPIC_TROUBLE = "FAN-4032", "a topic cannot go on as it should",
        "A batch cannot be read from the local log, or it lacks one that an application has not finished; the log says which.",
        "Check the disk. A batch that cannot be read is tried again by itself; otherwise restart the bridge.";
    SEGMENT_HEAD_REBUILT = "FAN-4033", "the damaged head of a segment was rebuilt",
        "The disk returned other bytes than were written, for small values of which the segment before has a copy. Nothing is lost.",
        "Check the disk.";
    SEGMENT_KEPT = "FAN-4034", "a segment file cannot be removed",
        "Nothing in it is needed any more, but the file system refused to remove it.",
        "Check the rights and the health of the file system of `data_dir`; the next start tries again.";
    SEQUENCE_REUSED = "FAN-4035", "a source has given sequences away again",
        "A sequence names another message than the one claimed under it, as their publish times show: the stream was restored to an earlier copy, from a backup or by a power loss, and went on from there. The mapping halts before the new message is taken for a copy of the old one.",
        "Leave the bridges running. Stop the producers of the stream and restore its newest state; or raise its generation below sources in every node's configuration, see `fanin ledger repair --source STREAM --dry-run`, run it, and restart every bridge: what was claimed before does not come again, everything else the stream holds is delivered.";
    SOURCE_SHRANK = "FAN-4036", "a source ends before messages it has given",
        "The stream was restored to an earlier copy, from a backup or by a power loss; new messages would get sequences that are claimed already. The mapping halts before that.",
        "Leave the bridges running. Stop the producers of the stream and restore its newest state; or raise its generation below sources in every node's configuration, see `fanin ledger repair --source STREAM --dry-run`, run it, and restart every bridge: what was claimed before does not come again, everything else the stream holds is delivered.";
    TOO_MANY_BATCHES = "FAN-4037", "a mapping has too many unfinished batches",
        "An application has been away for long, or is far behind, and each unfinished batch takes memory on every node of the mapping. Nothing is pulled until some are finished; what waits stays at the hub.",
        "Bring the application back, or take it out of the mapping. Raise batch.linger where messages come slowly, so that batches hold more of them.";
    SOURCE_LOST = "FAN-4038", "a source has lost messages that no bridge had taken",
        "The hub had confirmed them to their publishers and forgot them: it lost power and does not sync each write, or was restored from a copy. The log names the sequences that were there at the last look and are not any more, or name other messages now; some of them may have been taken in time, and what was stored behind them is lost too.",
        "Publish them again if their publisher can; a publisher that gives each message an id (Nats-Msg-Id) may send more than is lost. Set `sync_interval: always` on the hub, or three replicas on servers that do not lose power at once.";
    TOMBSTONED = "FAN-4040", "the source gave messages up before anybody owned them",
        "They were purged or expired at the hub between being pulled and being claimed; or, at a node that was away longer than the ledger remembers, another node has finished them meanwhile. The log names them.",
        "Give the source stream longer limits, so that messages stay until they are claimed.";
    REPAIRED = "FAN-4041", "the hub had skipped a message",
        "Its acknowledgement state was lost or a delivery never came; the message was fetched by its sequence and is not lost.",
        "Nothing. If it happens often, check the hub's disks and replicas.";
    UNREADABLE = "FAN-4042", "no node could take in a message as the hub delivers it",
        "Its headers are malformed (not UTF-8, no colon, a lone carriage return) and the client library cannot read them; or every node that got it was away for several times the hub's wait. It was fetched by its sequence and is not lost.",
        "Correct its publisher; applications get the message with what could be read, and the rest in the header Fanin-Unreadable-Headers.";
    BATCH_DAMAGED = "FAN-4043", "a batch of the local log is damaged",
        "The disk returned other bytes than were written for a batch that was synced once, or an error when it was read.",
        "Nothing at first: its messages are fetched again from the source by sequence, and nothing is pulled until then. Check the disk; if the state stays, see the reason in `fanin status`.";
    MAPPING_DAMAGED = "FAN-4044", "a mapping is held back by damage",
        "The disk has lost a small record that tells what the applications of this mapping have finished, and no copy of it is anywhere else.",
        "Other mappings go on. Restore the disk. If that is not possible, give the node another name and an empty data directory: what it had won and not finished, in all its mappings, is not delivered then, and no application can be added to these mappings until a node can be evacuated, which is not built yet.";
    MESSAGES_LOST = "FAN-4045", "messages were lost by damage",
        "The disk lost them after they were claimed, and the source had no copy any more.",
        "The log names each of them, by its id, as a dead letter of reason `lost`. Let the source keep messages for longer than a node may hold them.";
    DEAD_LETTER_DAMAGED = "FAN-4046", "a dead letter is damaged",
        "The disk returned other bytes than were written for a dead letter.",
        "Fetch the message named in the log from its source. Check the disk.";
    BATCH_MENDED = "FAN-4047", "a damaged batch was written anew",
        "Its messages were fetched again from the source.",
        "Check the disk.";
    DISK_FULL = "FAN-4048", "the file system of the local log is full",
        "Something else has filled it, or store.quota is larger than what it has room for. What is accepted waits to be finished, acknowledgements of applications are not confirmed, nothing new is taken.",
        "Make room on the file system of `data_dir`; the bridge goes on by itself, and a start that was refused succeeds. Nothing is lost.";
    HOLES = "FAN-4049", "messages left the source before any bridge had claimed them",
        "The source has no filter here, and sequences of it hold no message any more that nobody had claimed: they were purged, deleted or expired at the hub, perhaps before the mapping existed. The log names them.",
        "If that was not on purpose, give the source stream longer limits.";
    LEDGER_UNFINISHED = "FAN-4052", "a repair of the ledger is not finished",
        "`fanin ledger repair` has begun the ledger anew and ended before its state was complete.",
        "Run it again, with --from-backup and the file that it wrote. The mapping is held until then and goes on by itself.";
    DISK_REFUSED = "FAN-4053", "the data directory cannot hold the required delivery",
        "`data_dir` is on a file system in memory (tmpfs, ramfs): a power loss takes what this node has won, and no other node may take it then. A mapping's required_delivery rules that out.",
        "Set `data_dir` to a directory on a disk, or remove required_delivery from the mappings.";
    DISK_VOLATILE = "FAN-4054", "the data directory is in memory",
        "`data_dir` is on tmpfs or ramfs: a power loss takes what this node has won and its applications have not finished. Restarts and kills of the bridge do it no harm.",
        "Set `data_dir` to a directory on a disk, unless the messages are of little worth. Set required_delivery on a mapping to let a start be refused in such a case.";
    CONNECTIONS_FULL = "FAN-4060", "connections to the socket are turned away",
        "There are as many as are allowed: 1024, or half of the files the process may open, and three quarters of them for one user. A client may connect without closing.",
        "Find who it is (`ss -xp`, the user in the log line) and stop it; a client needs one connection for all its subscriptions. Applications that are connected are not touched. Where the limit of files is low, raise it (LimitNOFILE).";
    TERMS_UNFIT = "FAN-4061", "the terms do not fit in a ledger record",
        "This node's configuration names, together with what the terms in force name already, more or longer subjects and applications than one record may hold (64 subjects a source, 64 sources, 256 applications, 248 KiB in all). Nothing is written that no bridge could read.",
        "Name fewer or shorter subjects (wildcards), or split the mapping into several.";
    SOURCE_SUPERSEDED = "FAN-4064", "a source was begun anew, and this configuration does not say so",
        "`fanin ledger repair --source` gave the stream its next incarnation, by a raised generation, and this node's configuration still has the one before. What it had won and staged goes on, it takes nothing more from the mapping.",
        "Raise the source's `generation` in this node's configuration as on the other nodes, and restart it.";
    INVARIANT = "FAN-4099", "a defect in fanin",
        "The node's state broke one of its own rules.",
        "Please report the log line; restart the bridge.";
    LEDGER_TRUNCATED = "FAN-4101", "the ledger was truncated behind a checkpoint",
        "Everything before a complete checkpoint is finished business. This is information.",
        "Nothing.";
}

#[cfg(test)]
mod tests {
    //! Goal: the table can be relied on. Method: order and form; what the core names is in it.
    use fanin_core::fold::Halt;
    use fanin_core::ids::StreamSeq;

    use super::CODES;

    #[test]
    fn halts_are_explained() {
        let stream = || "S".to_owned();
        let halts = [
            Halt::LedgerRecreated,
            Halt::SequenceReused {
                stream: stream(),
                seq: StreamSeq(1),
                found_ns: (1, 1),
                known_ns: (2, 2),
            },
            Halt::SourceShrank {
                stream: stream(),
                last: StreamSeq(1),
                known: StreamSeq(2),
                known_ns: 1,
            },
        ];
        let known = |halt: &Halt| CODES.iter().any(|entry| entry.code == halt.code());
        assert!(halts.iter().all(known));
    }

    #[test]
    fn ascending_and_complete() {
        assert!(CODES.windows(2).all(|pair| pair[0].code < pair[1].code));
        for entry in CODES {
            assert!(
                entry.code.len() == 8 && entry.code.starts_with("FAN-4"),
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
