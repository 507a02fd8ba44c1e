//! Every kind of trouble that the simulation makes.

/// How a kind of trouble comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// At an operation, with a chance in ten thousand.
    Chance,
    /// By itself, so many times in a simulated hour.
    Hourly,
}

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident, $word:literal, $timing:ident;)*) => {
        /// A kind of trouble.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// All kinds.
            pub const ALL: &'static [Fault] = &[$(Fault::$name),*];

            /// The word in plans and reports.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self {
                    $(Fault::$name => $word,)*
                }
            }

            /// How it comes about.
            #[must_use]
            pub fn timing(self) -> Timing {
                match self {
                    $(Fault::$name => Timing::$timing,)*
                }
            }
        }
    };
}

faults! {
    /// A request to the hub never arrives.
    RequestLost, "request lost", Chance;
    /// The hub does as asked; its answer never arrives.
    ReplyLost, "reply lost", Chance;
    /// A request arrives up to a minute later, whatever has become of who sent it.
    RequestLate, "request late", Chance;
    /// A request or its answer takes seconds.
    RequestSlow, "request slow", Chance;
    /// Node and hub lose each other for a while; both see it.
    Partition, "partition", Hourly;
    /// Nothing gets from a node to the hub, and the node does not see it.
    OneWayOut, "one way out", Hourly;
    /// Nothing gets from the hub to a node, and the node does not see it.
    OneWayIn, "one way in", Hourly;
    /// Every connection breaks and comes back: the hub's leader changed.
    LeaderChange, "leader change", Hourly;
    /// A server that was the leader answers some nodes' questions about source and consumer for a while.
    OldLeader, "old leader answers", Hourly;
    /// Nobody answers for a stream or a consumer: status 503.
    NoResponders, "no responders", Chance;

    /// The hub stores a record twice although it confirms it once.
    AppendTwice, "append twice", Chance;
    /// The hub forgets the message ids it has seen.
    DedupeForgets, "dedupe forgets", Hourly;
    /// A record is refused because it, or another one on its subject, is being stored right now.
    InFlight, "append in flight", Chance;
    /// The ledger takes nothing more for a while.
    LedgerFull, "ledger full", Hourly;
    /// The tail is seconds behind.
    TailLag, "tail lag", Chance;
    /// The tail's reading is interrupted.
    TailRestart, "tail restart", Chance;
    /// A single read is answered by a replica that is behind.
    StaleRead, "stale read", Chance;

    /// A message is published that the client library cannot read: each delivery of it breaks the connection.
    Unreadable, "message unreadable", Chance;
    /// A delivered message does not arrive.
    DeliveryLost, "delivery lost", Chance;
    /// A message is delivered again at once, perhaps to another node.
    DeliveryTwice, "delivery twice", Chance;
    /// A batch is delivered out of order.
    DeliveryShuffled, "delivery shuffled", Chance;
    /// An acknowledgement does not arrive.
    AckLost, "ack lost", Chance;
    /// An acknowledgement arrives up to a minute later.
    AckLate, "ack late", Chance;
    /// An acknowledgement arrives now and again a while later.
    AckTwice, "ack twice", Chance;
    /// The consumer's state goes back to an earlier one.
    AckStateLost, "ack state lost", Hourly;
    /// The consumer's state goes back to the beginning.
    FloorReset, "floor reset", Hourly;
    /// An operator moves the consumer forwards, past messages that nobody has got.
    ResetForward, "reset forwards", Hourly;
    /// The consumer passes messages without delivering them.
    MessagesSkipped, "messages skipped", Hourly;
    /// The consumer is deleted, and an operator creates it again behind W.
    ConsumerRecreated, "consumer re-created", Hourly;
    /// A message is deleted from the source.
    MessageDeleted, "message deleted", Hourly;
    /// The source's limits discard its oldest messages.
    OldestDiscarded, "oldest discarded", Hourly;
    /// The source is purged.
    SourcePurged, "source purged", Hourly;

    /// A node's process is killed.
    Crash, "crash", Hourly;
    /// A process is killed just as it writes to its disk.
    CrashAtWrite, "crash at a write", Chance;
    /// A process is killed just as it appends to the ledger.
    CrashAtAppend, "crash at an append", Chance;
    /// A process is killed just as it acknowledges to the hub.
    CrashAtSettle, "crash at a settle", Chance;
    /// A node stops in order.
    Stop, "stop", Hourly;
    /// Disk and network of a node stand still for a while.
    Stall, "stall", Hourly;
    /// A sync takes long.
    SlowSync, "slow sync", Chance;
    /// A crash leaves some of the commits nobody heard of.
    TornCrash, "torn crash", Chance;
    /// The disk is full for a while.
    DiskFull, "disk full", Hourly;
    /// Others fill the file system up for a while.
    FileSystemFull, "file system full", Hourly;
    /// A sync fails.
    SyncFails, "sync fails", Hourly;
    /// A crash leaves a staged body damaged.
    Damage, "damage at start", Chance;
    /// A body turns out to be damaged while it is read.
    DamageRead, "damage at reading", Chance;

    /// An application asks for another attempt.
    Retry, "app retries", Chance;
    /// An application rejects a message.
    Reject, "app rejects", Chance;
    /// An application gives a message back.
    Release, "app releases", Chance;
    /// An application answers long after its lease.
    AnswerLate, "app answers late", Chance;
    /// An application takes its time within its lease.
    AnswerSlow, "app is slow", Chance;
    /// An application never answers.
    AnswerNever, "app never answers", Chance;
    /// An application answers twice.
    AnswerTwice, "app answers twice", Chance;
    /// An instance dies between effect and answer.
    InstanceDies, "instance dies", Chance;
    /// An instance closes in order.
    InstanceCloses, "instance closes", Chance;

    /// Every node is started anew with one more application.
    AppAdded, "app added", Hourly;
    /// A node is started for a while with a configuration that lacks an application.
    AppMissing, "app missing", Hourly;

    /// The hub loses power, and with it what is younger than the time in which it syncs.
    PowerLoss, "power loss", Hourly;
    /// The hub loses the end of the ledger that it had confirmed.
    LedgerRollback, "ledger rolled back", Hourly;
    /// The hub splits: two groups of nodes write and read ledgers of their own for a while, of which one is kept.
    LedgerSplit, "ledger split", Hourly;
    /// The source is deleted and created again.
    SourceRecreated, "source re-created", Hourly;
    /// The source is restored from a copy: sequences that were given are given again.
    SourceRollback, "source rolled back", Hourly;
    /// The ledger is deleted and created again.
    LedgerRecreated, "ledger re-created", Hourly;
    /// A node's disk is restored from a copy of an earlier life.
    DiskRestored, "disk restored", Hourly;
    /// A copy of a node's disk is started while the node runs.
    DiskCloned, "disk cloned", Hourly;
    /// The hub loses the end of the ledger, and no connection breaks: who reads it goes on where it was.
    LedgerRollbackUnseen, "ledger rolled back unseen", Hourly;
}

impl Fault {
    /// Whether something goes wrong here that somebody has to make good: an application that takes its time within its lease,
    /// or says another word than yes, is within its rights and does not count for the bar; nor does an operator who adds one.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        !matches!(
            self,
            Fault::AnswerSlow | Fault::Retry | Fault::Reject | Fault::Release | Fault::AppAdded
        )
    }

    /// Whether it is nothing but a delay, or another order: all of it arrives, and nobody hears of a failure. Such trouble is
    /// told apart from the rest in what is printed about the bar.
    #[must_use]
    pub fn is_delay(self) -> bool {
        matches!(
            self,
            Fault::RequestSlow
                | Fault::TailLag
                | Fault::SlowSync
                | Fault::DeliveryShuffled
                | Fault::AnswerLate
        )
    }
}

impl Fault {
    /// Whether somebody breaks a promise by it, so that exactly once cannot be demanded any more.
    #[must_use]
    pub fn breaks_promises(self) -> bool {
        matches!(
            self,
            Fault::PowerLoss
                | Fault::LedgerRollback
                | Fault::LedgerRollbackUnseen
                | Fault::LedgerSplit
                | Fault::SourceRecreated
                | Fault::SourceRollback
                | Fault::LedgerRecreated
                | Fault::DiskRestored
                | Fault::DiskCloned
        )
    }
}

/// Number of kinds.
pub const FAULTS: usize = Fault::ALL.len();
