//! The identifiers of the protocol, each its own type so that none is taken for another.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id! {
    /// A position in the ledger: the stream sequence of a record. The first record is 1; 0 means "before all records".
    LedgerSeq(u64)
}
id! {
    /// A sequence of a source stream. The first message is 1; 0 means "before all messages".
    StreamSeq(u64)
}
id! {
    /// A batch of a node. Numbers start at 1 and never restart within a node uuid (P1).
    BatchNo(u64)
}
id! {
    /// The attempt at sending a claim, from 1. Only for the dedupe header and for logs.
    Attempt(u32)
}
id! {
    /// A version of the terms in force (P9). The first is 1; 0 means "no terms yet".
    TermsVersion(u32)
}
id! {
    /// The place of a message in a node-local topic, without gaps from 0, fixed when its batch is resolved.
    Offset(u64)
}
id! {
    /// Milliseconds on a monotonic clock of the caller. Only differences mean anything.
    Tick(u64)
}
id! {
    /// A random number made once per process start (P8).
    Nonce(u64)
}
id! {
    /// One subscriber connection of an application on this node, numbered by the server, never reused in a process.
    InstanceNo(u64)
}
id! {
    /// A delivery on one instance's stream, from 1 without gaps.
    DeliveryNo(u64)
}

impl Tick {
    /// This instant plus `ms` milliseconds, saturating.
    #[must_use]
    pub fn after(self, ms: u64) -> Tick {
        Tick(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`, 0 when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Offset {
    /// The offset `n` places further.
    #[must_use]
    pub fn plus(self, n: u64) -> Offset {
        Offset(self.0 + n)
    }
}

impl StreamSeq {
    /// The sequence right behind this one.
    #[must_use]
    pub fn next(self) -> StreamSeq {
        StreamSeq(self.0 + 1)
    }
}

impl LedgerSeq {
    /// The position right behind this one.
    #[must_use]
    pub fn next(self) -> LedgerSeq {
        LedgerSeq(self.0 + 1)
    }
}

impl BatchNo {
    /// The number right behind this one.
    #[must_use]
    pub fn next(self) -> BatchNo {
        BatchNo(self.0 + 1)
    }
}

/// The incarnation of a source: a hash of the stream's name, its creation time and the operator's generation number.
/// Deleting and re-creating a stream makes another one, whose sequences mean other messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A data directory's identity, made once with it at random. One node may have several over its life, never two at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeUuid(pub u128);

impl fmt::Display for NodeUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// One life of a node: the ledger position of its EPOCH record. 0 means "none yet".
pub type Epoch = LedgerSeq;
