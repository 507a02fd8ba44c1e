//! What must hold at every state, each under the number the design gives it, as properties of the checker.
//!
//! A step records the first invariant it breaks in the state; the properties read it there. Of the design's list, I13, I14,
//! I16 and I17 speak of applications and their cursors, which the claim machine does not know: the delivery machine's own
//! tests have them. I18 is every bound in `limits.rs`, asserted by the core itself.

use stateright::Property;

use crate::actions::Model;

/// What was broken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Violation {
    /// Which invariant.
    pub invariant: Invariant,
    /// The values that show it.
    pub text: String,
}

impl Violation {
    pub(crate) fn new(invariant: Invariant, text: String) -> Violation {
        Violation { invariant, text }
    }
}

macro_rules! invariants {
    ($($(#[$doc:meta])* $name:ident = $title:literal,)*) => {
        /// The invariants.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Invariant {
            $($(#[$doc])* $name,)*
        }

        impl Invariant {
            /// Number and name.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self {
                    $(Invariant::$name => $title,)*
                }
            }
        }

        /// One property per invariant.
        pub(crate) fn properties() -> Vec<Property<Model>> {
            vec![
                $(Property::always($title, |model, world| model.holds(world, Invariant::$name)),)*
            ]
        }
    };
}

invariants! {
    /// At every ledger prefix a message has at most one owner.
    OneOwner = "I1 one owner",
    /// Ownership and decisions never change.
    OwnerStays = "I2 owners stay",
    /// W, epochs and terms only grow.
    OnlyGrows = "I3 only grows",
    /// Two bridges at one position have one state, however they came there.
    OneState = "I4, I11 one state at one position",
    /// Visible means: resolution durable, and the claim won exactly that.
    VisibleIsWon = "I5 visible is won",
    /// A claim is sent only for what is staged durably.
    ClaimedIsStaged = "I6 claimed is staged",
    /// A staged message is dropped only when another valid claim won it, or at or below W when nobody's claim of the batch did.
    DroppedIsLost = "I7 dropped is lost",
    /// The owner settles only what is durably published.
    SettledIsPublished = "I8 settled by its owner is published",
    /// Others settle only what is stably claimed, or closed.
    SettledIsStable = "I9 settled by another is stable",
    /// W covers only claimed messages and holes.
    ClosesFinished = "I10 closed is claimed or a hole",
    /// A body that saw its fence does nothing more.
    FencedIsSilent = "I12 fenced is silent",
    /// A body that has halted, or has not joined, sends nothing.
    HaltedIsSilent = "I15 halted or joining is silent",
    /// No message becomes visible twice to an application.
    Once = "ONCE visible once",
    /// A claim serves every application of its terms.
    ServesAll = "P9 served to every application",
    /// What is purged stands in a complete, stable checkpoint.
    PurgedIsKept = "P7 purged is in a stable checkpoint",
    /// A reported batch is durably finished.
    ReportedIsDurable = "P7 reported done is durable",
    /// A node does not act on a ledger that holds claims of its identity which its disk does not know, or lacks its own.
    KnowsItself = "P8 a disk and its ledger agree",
    /// A ledger or a source that cannot be trusted is not folded further.
    Distrusts = "P10, P11 distrust halts",
    /// What is settled on arrival, or dropped, is the message that was claimed under its sequence, not another one.
    SameMessage = "P10 settled or dropped is what was claimed",
    /// While the hub keeps its promises, nobody halts, is fenced or is refused.
    Healthy = "HEALTHY nobody stops without cause",
    /// The machine's own checks.
    Consistent = "CORE the machine's own invariants",
    /// From here a fair run without faults publishes everything once and closes the source.
    Live = "LIVE everything is published in the end",
}
