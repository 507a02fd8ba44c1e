//! Switches that turn one rule off, for the model checker and the simulator: a rule whose absence no run notices is dead
//! weight, or the runs are too kind.
//!
//! Without the feature `mutants`, and in every build without debug assertions, `on` is the constant `false` and the
//! compiler removes the hooks. A hook is one expression at the place of its rule.

/// A rule switched off, or taken by a wrong letter. Named by what the mutated code does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Mutant {
    /// P2: a later valid claim takes what an earlier one won.
    LastClaimWins = 1,
    /// P2: a batch is resolved by who owns its sequences, not by what its claim won.
    ResolvesBySequence,
    /// A message that an unresolved batch holds is staged again.
    StagesInHand,
    /// P3: a batch whose claim was not confirmed is dropped.
    AbortsUnconfirmed,
    /// P3, P4: claims of the node's earlier epochs are not its own; a repeat of one is a loss.
    OwnEpochOnly,
    /// P5: own messages are settled before their resolution is durable.
    SettlesUnresolved,
    /// P5: another node's claim is settled before it is stable.
    SettlesUnstable,
    /// P6: claims win messages at or below W.
    WatermarkVoidsNothing,
    /// P6: the last CLOSE counts, not the highest.
    WatermarkGoesBack,
    /// P6: a CLOSE counts under any terms.
    CloseUnderAnyTerms,
    /// P6: everything below the acknowledgement floor is a hole.
    HolesByFloor,
    /// P6: a hole is believed at first sight.
    HolesSeenOnce,
    /// P6: W passes claims that are not stable.
    ClosesUnstable,
    /// P7: claims at or below W are forgotten before they are done.
    ForgetsClosedClaims,
    /// P7: done claims are forgotten before W has passed them.
    ForgetsDoneClaims,
    /// P7: a checkpoint holds what was claimed, not what was won.
    CheckpointWithoutWonSets,
    /// P7: a checkpoint leaves out done sets.
    CheckpointWithoutDoneSets,
    /// P7: a checkpoint leaves out epochs.
    CheckpointWithoutEpochs,
    /// P7: purges behind a checkpoint that is not stable.
    PurgesUnstable,
    /// P1, P7: batch numbers start again in every life.
    NumbersRestart,
    /// P8: claims of older epochs are valid.
    OldEpochsClaim,
    /// P8: a foreign epoch or an evacuation does not fence.
    IgnoresFence,
    /// P8: claims and progress of this identity that the disk does not know are ignored.
    IgnoresUnknownClaims,
    /// P8: the node acts before the tail has reached its own EPOCH.
    ActsBeforeItsEpoch,
    /// P8: what the disk published need not stand in the ledger.
    IgnoresLostClaims,
    /// P8: an evacuated or closed epoch may claim.
    AnyStateClaims,
    /// P9: claims are valid under any terms.
    ClaimsUnderAnyTerms,
    /// P9: claims are valid although their epoch does not host every application.
    ClaimsUnhosted,
    /// P9: both of these.
    ClaimsUnderAnyTermsUnhosted,
    /// P9: an application enters before every active node hosts it.
    EntersUnhosted,
    /// P10: a gap in the ledger is stepped over.
    StepsOverGaps,
    /// P10: a reserved record is passed over.
    IgnoresReservedRecords,
    /// P11: witnesses are not compared.
    IgnoresWitnesses,
    /// P11: a record may be confirmed at a position that was read before.
    IgnoresEarlyPositions,
    /// P9, P10: another incarnation of a source does not halt.
    IgnoresRecreatedSources,
    /// P10: publish times are not compared, so sequences may be given away twice.
    IgnoresReusedSequences,
    /// P10: a source may end before what is claimed.
    IgnoresShrunkSources,
    /// P10: what a source loses before anybody has taken it is not told.
    ForgetsEnds,
}

/// Whether this build can switch mutants on.
pub const ENABLED: bool = cfg!(all(feature = "mutants", debug_assertions));

/// The mutant that is on; 0 for none.
static ACTIVE: core::sync::atomic::AtomicU8 = core::sync::atomic::AtomicU8::new(0);

/// Switches one mutant on for the whole process, or all off. For runs that use one mutant at a time; without effect
/// unless `ENABLED`.
#[cfg(feature = "mutants")]
pub fn switch(mutant: Option<Mutant>) {
    let number = mutant.map_or(0, |mutant| mutant as u8);
    ACTIVE.store(number, core::sync::atomic::Ordering::SeqCst);
}

/// Whether a mutant is on.
#[inline(always)]
pub(crate) fn on(mutant: Mutant) -> bool {
    ENABLED && ACTIVE.load(core::sync::atomic::Ordering::Relaxed) == mutant as u8
}
