//! Rules switched off, one at a time, and where the model must notice.

use fanin_core::mutants::Mutant as Core;

use crate::configs;
use crate::properties::Invariant;
use crate::run::Outcome;
use crate::setup::Setup;

/// States generated after which a mutant counts as not noticed.
const STATES_MAX: usize = 3_000_000;

/// A mutant: one of the core's, or one that the world plays from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// One inside the core.
    Core(Core),
    /// P1: a claim is sent before its batch is synced.
    ClaimsUnsynced,
    /// P3: what is staged and not resolved is dropped at a start.
    DropsStagedAtStart,
    /// P1: what is staged and not resolved gets new numbers at a start.
    RenumbersAtStart,
    /// P5: messages are settled as soon as they are staged.
    SettlesStaged,
    /// P5: messages are settled for whoever claims them, valid or not.
    SettlesVoidClaims,
    /// P5: messages are settled before their publication is synced.
    PublishesUnsynced,
    /// P5, P7: nodes take a lazy hub for one that syncs always.
    TrustsTheHub,
    /// P6: an audit finds nothing, whatever is there.
    AuditsFindNothing,
    /// P6: what was found below the floor is not repaired.
    RepairsNothing,
    /// P7: a purge is done when a checkpoint is decided, not when it has landed.
    PurgesAtDecision,
    /// P7: the last records of compare-and-set subjects are purged too.
    PurgesKeptRecords,
    /// P7: the checkpoint that landed last is loaded, not the one with the highest position.
    LoadsLastLanded,
    /// P7: one part of a checkpoint is loaded as if it were all.
    LoadsIncomplete,
    /// P7: a batch is reported done before the disk knows it.
    ReportsUnsynced,
    /// P8: an EPOCH is appended in any case.
    EpochsUnconditionally,
    /// P8: nonces are not written down before they are sent.
    IntendsNothing,
}

impl Mutant {
    /// Its name.
    #[must_use]
    pub fn name(self) -> String {
        if let Mutant::Core(mutant) = self {
            return format!("{mutant:?}");
        }
        format!("{self:?}")
    }

    /// Whether it tells a node of a write before it is synced, so that syncs are steps of their own.
    pub(crate) fn holds_writes(self) -> bool {
        matches!(
            self,
            Mutant::ClaimsUnsynced | Mutant::PublishesUnsynced | Mutant::ReportsUnsynced
        )
    }
}

/// What the model must make of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// An invariant breaks.
    Found,
    /// Nothing breaks in the whole configuration, for this reason.
    Harmless(&'static str),
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The rule, and the attacks of the protocol's review that it stands against.
    pub rule: &'static str,
    /// The mutant.
    pub mutant: Mutant,
    /// The configuration it is run in.
    pub config: &'static str,
    /// Invariants not judged, so that what follows shows.
    pub blind: &'static [Invariant],
    /// What must come of it.
    pub expected: Expected,
}

impl Row {
    /// What is explored; `None` when there is no such configuration. Liveness is judged in every state: shortest traces count.
    #[must_use]
    pub fn setup(&self) -> Option<Setup> {
        let mut config = configs::named(self.config)?;
        config.states_max = Some(STATES_MAX);
        Some(Setup {
            config,
            mutant: Some(self.mutant),
            blind: self.blind,
        })
    }

    /// Whether a run ended as the table says.
    #[must_use]
    pub fn is_as_expected(&self, outcome: &Outcome) -> bool {
        match self.expected {
            Expected::Found => matches!(outcome, Outcome::Broken { .. }),
            Expected::Harmless(_) => *outcome == Outcome::Complete,
        }
    }
}

const fn row(rule: &'static str, mutant: Mutant, config: &'static str) -> Row {
    Row {
        rule,
        mutant,
        config,
        blind: &[],
        expected: Expected::Found,
    }
}

/// The table.
pub const ROWS: &[Row] = &[
    row("P1; B10", Mutant::ClaimsUnsynced, "claims"),
    row("P1", Mutant::RenumbersAtStart, "claims"),
    row("P1, P7 numbers", Mutant::Core(Core::NumbersRestart), "restart"),
    row("P2", Mutant::Core(Core::LastClaimWins), "claims"),
    row("P2 by batch", Mutant::Core(Core::ResolvesBySequence), "claims"),
    Row {
        expected: Expected::Harmless("batches stay apart, so staging twice only wastes space"),
        ..row("P2 in hand", Mutant::Core(Core::StagesInHand), "restart")
    },
    row("P3; B1", Mutant::DropsStagedAtStart, "claims"),
    row("P3; B2", Mutant::Core(Core::AbortsUnconfirmed), "claims"),
    row("P3, P4; B4", Mutant::Core(Core::OwnEpochOnly), "resend"),
    row("P5 own", Mutant::SettlesStaged, "claims"),
    row("P5 own, in memory", Mutant::Core(Core::SettlesUnresolved), "disk"),
    row("P5 own, unsynced", Mutant::PublishesUnsynced, "disk"),
    row("P5 void", Mutant::SettlesVoidClaims, "claims"),
    row("P5 stable; B3", Mutant::Core(Core::SettlesUnstable), "lazy"),
    row("P5, P7 stable; B3, B13", Mutant::TrustsTheHub, "lazy-purge"),
    row(
        "P6 void; B11, B12",
        Mutant::Core(Core::WatermarkVoidsNothing),
        "close",
    ),
    row("P6 maximum", Mutant::Core(Core::WatermarkGoesBack), "close"),
    row("P6 terms", Mutant::Core(Core::CloseUnderAnyTerms), "filters"),
    row("P6 audit; B7", Mutant::Core(Core::HolesByFloor), "holes"),
    row("P6 audit; B7", Mutant::AuditsFindNothing, "holes"),
    row("P6 twice", Mutant::Core(Core::HolesSeenOnce), "holes"),
    row("P6 repair; B6, B7", Mutant::RepairsNothing, "holes"),
    row("P6 stable", Mutant::Core(Core::ClosesUnstable), "lazy"),
    row("P7 whole state", Mutant::Core(Core::ForgetsClosedClaims), "close"),
    row(
        "P7 whole state",
        Mutant::Core(Core::ForgetsDoneClaims),
        "checkpoint",
    ),
    row(
        "P7 won sets",
        Mutant::Core(Core::CheckpointWithoutWonSets),
        "checkpoint",
    ),
    row(
        "P7 done sets",
        Mutant::Core(Core::CheckpointWithoutDoneSets),
        "checkpoint",
    ),
    row(
        "P7 epochs",
        Mutant::Core(Core::CheckpointWithoutEpochs),
        "checkpoint",
    ),
    row("P7 then", Mutant::PurgesAtDecision, "checkpoint"),
    row("P7 kept records", Mutant::PurgesKeptRecords, "checkpoint"),
    row("P7 highest", Mutant::LoadsLastLanded, "checkpoints"),
    row("P7 complete", Mutant::LoadsIncomplete, "parts"),
    row("P7 stable; B13", Mutant::Core(Core::PurgesUnstable), "lazy-purge"),
    row("P7 durable", Mutant::ReportsUnsynced, "disk"),
    row("P8 compare-and-set", Mutant::EpochsUnconditionally, "restart"),
    row("P8 nonce", Mutant::IntendsNothing, "restart"),
    row("P8 void; B9", Mutant::Core(Core::OldEpochsClaim), "copy"),
    row("P8 fence; B18, B20", Mutant::Core(Core::IgnoresFence), "copy"),
    row(
        "P8 unknown; B9, B19",
        Mutant::Core(Core::IgnoresUnknownClaims),
        "copy",
    ),
    row("P8 own epoch", Mutant::Core(Core::ActsBeforeItsEpoch), "claims"),
    row(
        "P8 published; B16",
        Mutant::Core(Core::IgnoresLostClaims),
        "lazy-unwitnessed",
    ),
    Row {
        expected: Expected::Harmless(
            "an evacuation is a newer epoch, which alone voids what the older one claims",
        ),
        ..row("P8 state; B20", Mutant::Core(Core::AnyStateClaims), "evacuation")
    },
    row("P8 fence; B20", Mutant::Core(Core::IgnoresFence), "evacuation"),
    Row {
        expected: Expected::Harmless("the host check alone suffices"),
        ..row("P9 version", Mutant::Core(Core::ClaimsUnderAnyTerms), "apps")
    },
    row("P9 hosts; B8", Mutant::Core(Core::ClaimsUnhosted), "apps"),
    row("P9; B8", Mutant::Core(Core::ClaimsUnderAnyTermsUnhosted), "apps"),
    Row {
        expected: Expected::Harmless(
            "claims of a life that lacks it are void: its node waits, nothing is lost",
        ),
        ..row("P9 entry", Mutant::Core(Core::EntersUnhosted), "apps")
    },
    row("P10 gap; B15", Mutant::Core(Core::StepsOverGaps), "checkpoint"),
    row(
        "P10 unknown",
        Mutant::Core(Core::IgnoresReservedRecords),
        "stranger",
    ),
    row(
        "P10 source; B5",
        Mutant::Core(Core::IgnoresRecreatedSources),
        "recreated",
    ),
    row(
        "P10 source, times; B5, B6",
        Mutant::Core(Core::IgnoresReusedSequences),
        "reused",
    ),
    row(
        "P10 source, length; B5, B6",
        Mutant::Core(Core::IgnoresShrunkSources),
        "reused",
    ),
    row("P11; B14, B17", Mutant::Core(Core::IgnoresWitnesses), "lazy"),
    row(
        "P11 own records",
        Mutant::Core(Core::IgnoresEarlyPositions),
        "lazy",
    ),
];
