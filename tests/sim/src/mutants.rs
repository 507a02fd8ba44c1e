//! Rules switched off, one at a time: in the core, or by what hub and disk make of a node's words. The simulation must notice
//! each, or the table says why it cannot.

use std::cell::Cell;
use std::fmt::Write;
use std::time::{Duration, Instant};

use fanin_core::mutants::{Mutant as Core, switch};

use crate::faults::Fault;
use crate::plan::{Kind, Plan};
use crate::schedule::{run, run_mutated};

/// A mutant: one of the core's, or one that the world plays from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// One inside the core.
    Core(Core),
    /// P1: a batch counts as staged before it is synced.
    ClaimsUnsynced,
    /// B10: a failed sync is tried again, and said to have succeeded; what it was to write is gone.
    SyncRetried,
    /// P3: what is staged and not resolved is dropped at a start.
    DropsStagedAtStart,
    /// P4: all lives and nodes draw the same nonces.
    SharedNonce,
    /// P4: a claim's message id leaves the nonce out.
    IdWithoutNonce,
    /// P4: a claim's message id is the node and the batch.
    IdByBatch,
    /// P5: messages are acknowledged as they arrive.
    SettlesOnArrival,
    /// P5: a resolution counts as durable before it is synced.
    PublishesUnsynced,
    /// P5, P7: nodes take a lazy hub for one that syncs always.
    TrustsTheHub,
    /// R11: status 503 to an acknowledgement is taken for its success.
    TakesNoRespondersForOk,
    /// P6: an audit finds nothing, whatever is there.
    AuditsFindNothing,
    /// P6: nothing is fetched by its sequence, so nothing is repaired.
    FetchesNothing,
    /// P7: the last records of compare-and-set subjects are purged too.
    PurgesKeptRecords,
    /// P7: a batch is reported done before the disk knows it.
    ReportsUnsynced,
    /// P8: an EPOCH is appended in any case.
    EpochsUnconditionally,
    /// I13: an application's answer is confirmed before its cursor is synced.
    ConfirmsUnsynced,
}

impl Mutant {
    /// Its name.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Mutant::Core(mutant) => format!("{mutant:?}"),
            world => format!("{world:?}"),
        }
    }

    /// Whether it changes what the state's hash is made of. The reader that knows all has to hash as the nodes do then, or
    /// it would notice the hash and not what follows.
    fn changes_the_hash(self) -> bool {
        matches!(
            self,
            Mutant::Core(
                Core::CheckpointWithoutWonSets
                    | Core::CheckpointWithoutDoneSets
                    | Core::CheckpointWithoutEpochs
            )
        )
    }

    /// The plan in which it shows: some take what chance brings together too rarely.
    fn bend(self, plan: &mut Plan) {
        match self {
            Mutant::SyncRetried => {
                plan.rates.insert(Fault::SyncFails, SYNC_FAILURES);
            }
            Mutant::SharedNonce => bend::quiet_restores(plan),
            Mutant::ReportsUnsynced => bend::deaths_before_a_sync(plan),
            Mutant::Core(Core::HolesSeenOnce) => bend::holes_that_are_none(plan),
            Mutant::Core(Core::IgnoresWitnesses) => bend::quiet_splits(plan),
            Mutant::Core(Core::IgnoresReusedSequences) => bend::short_sources(plan),
            Mutant::Core(Core::IgnoresEarlyPositions) => bend::unseen_rollbacks(plan),
            Mutant::Core(Core::ForgetsEnds) => bend::untaken_losses(plan),
            _ => {}
        }
    }
}

/// Failed syncs an hour where they are tried again.
const SYNC_FAILURES: u64 = 60;

/// Plans for what takes several things at the right moment. Rates are an hour or in ten thousand, as of the fault.
mod bend {
    use crate::faults::Fault;
    use crate::plan::Plan;

    /// Only these go wrong.
    fn only(plan: &mut Plan, rates: &[(Fault, u64)]) {
        plan.rates = rates.iter().copied().collect();
    }

    /// A disk is set back to an earlier life behind a life that claimed nothing and finished no batch, but had messages
    /// acknowledged: the nonce alone tells that the EPOCH in between is not this disk's.
    pub(super) fn quiet_restores(plan: &mut Plan) {
        (plan.nodes, plan.apps, plan.messages, plan.seconds) = (2, 2, 60, 600);
        (plan.batch, plan.in_flight, plan.lease_s, plan.attempts) = (64, 128, 20, 1_000);
        only(
            plan,
            &[
                (Fault::DiskRestored, 240),
                (Fault::Crash, 240),
                (Fault::AnswerSlow, 9_000),
                (Fault::AnswerNever, 2_000),
                (Fault::Retry, 4_000),
            ],
        );
    }

    /// Disks are slow, and processes die just as they tell the ledger something.
    pub(super) fn deaths_before_a_sync(plan: &mut Plan) {
        plan.rates.insert(Fault::SlowSync, 5_000);
        plan.rates.insert(Fault::CrashAtAppend, 300);
        plan.rates.remove(&Fault::TornCrash);
    }

    /// The consumer passes messages by, and who asks for them asks a server that has not seen them yet.
    pub(super) fn holes_that_are_none(plan: &mut Plan) {
        plan.seconds = plan.seconds.min(200);
        for fault in [Fault::OldLeader, Fault::MessagesSkipped, Fault::ResetForward] {
            plan.rates.insert(fault, 400);
        }
    }

    /// The hub is split while its acknowledgements are forgotten; nobody is in the middle of anything when the halves find
    /// each other, so that no disk knows better than the ledger that is kept.
    pub(super) fn quiet_splits(plan: &mut Plan) {
        (plan.nodes, plan.messages, plan.seconds) = (2, plan.messages.min(100), 300);
        plan.attempts = 1_000;
        only(plan, &[(Fault::LedgerSplit, 120), (Fault::FloorReset, 240)]);
    }

    /// The ledger loses its end under readers whose connections go on.
    pub(super) fn unseen_rollbacks(plan: &mut Plan) {
        only(plan, &[(Fault::LedgerRollbackUnseen, 240)]);
    }

    /// Applications answer nothing, so that the nodes take a few messages and no more; the source loses others.
    pub(super) fn untaken_losses(plan: &mut Plan) {
        (plan.nodes, plan.apps, plan.messages, plan.seconds) = (2, 1, 400, 400);
        (plan.batch, plan.in_flight, plan.attempts) = (1, 1, 1_000);
        (plan.lease_s, plan.filtered) = (20, false);
        only(
            plan,
            &[(Fault::SourceRollback, 120), (Fault::AnswerNever, 10_000)],
        );
    }

    /// The source is restored from a copy again and again.
    pub(super) fn short_sources(plan: &mut Plan) {
        only(plan, &[(Fault::SourceRollback, 120), (Fault::Crash, 60)]);
    }
}

/// What must come of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A violation.
    Found,
    /// None, because another rule covers it.
    Harmless(&'static str),
    /// None, because the simulation does not play what it takes; the model has it.
    ModelOnly(&'static str),
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The kind of plan it is hunted in; `None`: all.
    pub kind: Option<Kind>,
    /// The rule, and the attacks of the protocol's review that it stands against.
    pub rule: &'static str,
    /// The mutant.
    pub mutant: Mutant,
    /// What must come of it.
    pub expected: Expected,
}

/// What came of a mutant.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// Seeds run.
    pub seeds: u64,
    /// The last of them, and what it found: a violation.
    pub found: Option<(u64, Kind, String)>,
    /// What the same plan led to with every rule on: nothing, or it is not the mutant that was found.
    pub without: Option<String>,
    /// Wall clock.
    pub took: Duration,
}

impl Hunt {
    /// Whether a violation was found that the rule prevents.
    #[must_use]
    pub fn is_found(&self) -> bool {
        self.found.is_some() && self.without.is_none()
    }
}

const fn found(rule: &'static str, mutant: Mutant) -> Row {
    Row {
        kind: None,
        rule,
        mutant,
        expected: Expected::Found,
    }
}

const fn found_in(kind: Kind, rule: &'static str, mutant: Mutant) -> Row {
    Row {
        kind: Some(kind),
        ..found(rule, mutant)
    }
}

const fn harmless(rule: &'static str, mutant: Mutant, why: &'static str) -> Row {
    Row {
        expected: Expected::Harmless(why),
        ..found(rule, mutant)
    }
}

const fn model_only(rule: &'static str, mutant: Mutant, why: &'static str) -> Row {
    Row {
        expected: Expected::ModelOnly(why),
        ..found(rule, mutant)
    }
}

/// The table.
pub const ROWS: &[Row] = &[
    found("P1", Mutant::ClaimsUnsynced),
    found("P1; B10", Mutant::SyncRetried),
    found("P1, P7 numbers", Mutant::Core(Core::NumbersRestart)),
    found("P2", Mutant::Core(Core::LastClaimWins)),
    found("P2 by batch", Mutant::Core(Core::ResolvesBySequence)),
    // A second copy only wastes space; but what is in hand is counted wrongly once one of the two is resolved.
    found("P2 in hand", Mutant::Core(Core::StagesInHand)),
    found("P3; B1", Mutant::DropsStagedAtStart),
    found("P3; B2", Mutant::Core(Core::AbortsUnconfirmed)),
    found("P3, P4; B4", Mutant::Core(Core::OwnEpochOnly)),
    found_in(Kind::Identity, "P4 nonce; B9", Mutant::SharedNonce),
    harmless(
        "P4 id",
        Mutant::IdWithoutNonce,
        "the epoch in it, which compare-and-set gives to one life, tells lives apart",
    ),
    harmless(
        "P4 id",
        Mutant::IdByBatch,
        "a claim that has to be sent again waits until the dedupe window is over",
    ),
    found("P5 own", Mutant::SettlesOnArrival),
    found("P5 own, in memory", Mutant::Core(Core::SettlesUnresolved)),
    found("P5 own, unsynced", Mutant::PublishesUnsynced),
    found_in(Kind::Lazy, "P5 stable; B3", Mutant::Core(Core::SettlesUnstable)),
    found_in(Kind::Lazy, "P5, P7 stable; B3, B13", Mutant::TrustsTheHub),
    harmless(
        "P5; B6, R11",
        Mutant::TakesNoRespondersForOk,
        "the hub delivers again what it has not taken as acknowledged",
    ),
    found("P6 void; B11, B12", Mutant::Core(Core::WatermarkVoidsNothing)),
    found("P6 maximum", Mutant::Core(Core::WatermarkGoesBack)),
    model_only(
        "P6 terms",
        Mutant::Core(Core::CloseUnderAnyTerms),
        "filters do not change here, and what a claim had won stays won under a larger app set",
    ),
    found("P6 audit; B7", Mutant::Core(Core::HolesByFloor)),
    found("P6 audit; B7", Mutant::AuditsFindNothing),
    found("P6 twice", Mutant::Core(Core::HolesSeenOnce)),
    found("P6 repair; B6, B7", Mutant::FetchesNothing),
    found_in(Kind::Lazy, "P6 stable", Mutant::Core(Core::ClosesUnstable)),
    found("P7 whole state", Mutant::Core(Core::ForgetsClosedClaims)),
    found("P7 whole state", Mutant::Core(Core::ForgetsDoneClaims)),
    found("P7 won sets", Mutant::Core(Core::CheckpointWithoutWonSets)),
    found("P7 done sets", Mutant::Core(Core::CheckpointWithoutDoneSets)),
    found("P7 epochs", Mutant::Core(Core::CheckpointWithoutEpochs)),
    found("P7 kept records", Mutant::PurgesKeptRecords),
    found_in(Kind::Lazy, "P7 stable; B13", Mutant::Core(Core::PurgesUnstable)),
    found("P7 durable", Mutant::ReportsUnsynced),
    found("P8 compare-and-set", Mutant::EpochsUnconditionally),
    found_in(Kind::Identity, "P8 void; B9", Mutant::Core(Core::OldEpochsClaim)),
    found_in(
        Kind::Identity,
        "P8 fence, I12; B18, B20",
        Mutant::Core(Core::IgnoresFence),
    ),
    found_in(
        Kind::Identity,
        "P8 unknown; B9, B19",
        Mutant::Core(Core::IgnoresUnknownClaims),
    ),
    found("P8 own epoch", Mutant::Core(Core::ActsBeforeItsEpoch)),
    model_only(
        "P8 published; B16",
        Mutant::Core(Core::IgnoresLostClaims),
        "the witness on the disk (P11) tells first; the model has a hub without witnesses",
    ),
    harmless(
        "P8 state; B20",
        Mutant::Core(Core::AnyStateClaims),
        "an evacuation is a newer epoch, which alone voids what the older one claims",
    ),
    found("P9 version", Mutant::Core(Core::ClaimsUnderAnyTerms)),
    found("P9 hosts; B8", Mutant::Core(Core::ClaimsUnhosted)),
    found("P9; B8", Mutant::Core(Core::ClaimsUnderAnyTermsUnhosted)),
    harmless(
        "P9 entry",
        Mutant::Core(Core::EntersUnhosted),
        "claims of a life that lacks it are void: its node waits, nothing is lost",
    ),
    found("P10 gap; B15", Mutant::Core(Core::StepsOverGaps)),
    model_only(
        "P10 unknown",
        Mutant::Core(Core::IgnoresReservedRecords),
        "no record of a later version is written",
    ),
    found_in(
        Kind::Broken,
        "P10 source; B5",
        Mutant::Core(Core::IgnoresRecreatedSources),
    ),
    found_in(
        Kind::Broken,
        "P10 source, times; B5, B6",
        Mutant::Core(Core::IgnoresReusedSequences),
    ),
    model_only(
        "P10 source, length; B5, B6",
        Mutant::Core(Core::IgnoresShrunkSources),
        "what is given away again has another publish time, which tells too, only later",
    ),
    found_in(
        Kind::Broken,
        "P10 source, not taken",
        Mutant::Core(Core::ForgetsEnds),
    ),
    found_in(
        Kind::Broken,
        "P11; B14, B17",
        Mutant::Core(Core::IgnoresWitnesses),
    ),
    found_in(
        Kind::Broken,
        "P11 own records",
        Mutant::Core(Core::IgnoresEarlyPositions),
    ),
    found("I13", Mutant::ConfirmsUnsynced),
];

thread_local! {
    /// Whether a run under a mutant is on this thread.
    static IS_PLAYED: Cell<bool> = const { Cell::new(false) };
    /// The core's mutant of the run on this thread.
    static PLAYED: Cell<Option<Core>> = const { Cell::new(None) };
}

/// Whether the run on this thread is one under a mutant.
pub(crate) fn is_played() -> bool {
    IS_PLAYED.get()
}

/// Does something by the core's true rules, whatever mutant is on.
pub(crate) fn unmutated<T>(work: impl FnOnce() -> T) -> T {
    let played = PLAYED.get();
    if played.is_some() {
        switch(None);
    }
    let done = work();
    if played.is_some() {
        switch(played);
    }
    done
}

/// Runs something under a mutant. The core knows one mutant a process: nothing else may run meanwhile.
pub(crate) fn under<T>(mutant: Option<Mutant>, work: impl FnOnce() -> T) -> T {
    IS_PLAYED.set(mutant.is_some());
    let Some(Mutant::Core(core)) = mutant else {
        return work();
    };
    let hides = mutant.is_some_and(|mutant| !mutant.changes_the_hash());
    PLAYED.set(Some(core).filter(|_| hides));
    switch(Some(core));
    let done = work();
    switch(None);
    PLAYED.set(None);
    done
}

impl Row {
    /// Whether a name or a word is meant to choose this row.
    #[must_use]
    pub fn is_named(&self, word: &str) -> bool {
        word == "all" || self.mutant.name() == word
    }

    /// The plan of a seed in which it is hunted.
    #[must_use]
    pub fn plan(&self, seed: u64, kind: Option<Kind>) -> Plan {
        let mut plan = Plan::draw(seed, kind.or(self.kind));
        self.mutant.bend(&mut plan);
        plan
    }

    /// Runs seeds from `from` on until one has a violation, at most `seeds` of them and for so long. One at a time: the
    /// core knows one mutant a process.
    ///
    /// # Errors
    /// When no runtime can be made.
    pub fn hunt(
        &self,
        from: u64,
        seeds: u64,
        time: Option<Duration>,
        kind: Option<Kind>,
    ) -> std::io::Result<Hunt> {
        let started = Instant::now();
        let mut hunt = Hunt {
            seeds: 0,
            found: None,
            without: None,
            took: Duration::ZERO,
        };
        for seed in from..from + seeds {
            if time.is_some_and(|time| started.elapsed() >= time) {
                break;
            }
            let plan = self.plan(seed, kind);
            let outcome = run_mutated(seed, &plan, false, Some(self.mutant))?;
            hunt.seeds += 1;
            if let Some(first) = outcome.violations.into_iter().next() {
                hunt.found = Some((seed, plan.kind, first));
                hunt.without = run(seed, &plan, false)?.violations.into_iter().next();
                break;
            }
        }
        hunt.took = started.elapsed();
        Ok(hunt)
    }

    /// Whether it came as the table says.
    #[must_use]
    pub fn is_as_expected(&self, hunt: &Hunt) -> bool {
        match self.expected {
            Expected::Found => hunt.is_found(),
            Expected::Harmless(_) | Expected::ModelOnly(_) => hunt.found.is_none(),
        }
    }

    /// A line of the table, for people or as Markdown.
    #[must_use]
    pub fn line(&self, hunt: &Hunt, markdown: bool) -> String {
        let (rule, name, seconds) = (self.rule, self.mutant.name(), hunt.took.as_secs_f64());
        let noticed = match (&hunt.found, self.expected) {
            (Some((seed, kind, what)), _) => format!("{} ({}, seed {seed})", short(what), kind.word()),
            (None, Expected::Harmless(why)) => format!("nothing: {why}"),
            (None, Expected::ModelOnly(why)) => format!("nothing, the model only: {why}"),
            (None, Expected::Found) => "NOTHING".to_owned(),
        };
        if markdown {
            return format!("| {rule} | {name} | {noticed} | {} | {seconds:.1} |", hunt.seeds);
        }
        let mut line = format!(
            "{rule:<24} {name:<28} {noticed}: {} seeds, {seconds:.1} s",
            hunt.seeds
        );
        if !self.is_as_expected(hunt) {
            line.push_str("  NOT AS EXPECTED");
        }
        if let Some((_, _, what)) = &hunt.found {
            // Writing into a string cannot fail.
            let _ = write!(line, "\n    {what}");
        }
        if let Some(what) = &hunt.without {
            // Writing into a string cannot fail.
            let _ = write!(line, "\n    WITH EVERY RULE ON AS WELL: {what}");
        }
        line
    }
}

/// Longest word for what noticed a mutant, bytes.
const SHORT_BYTES_MAX: usize = 60;

/// What noticed it: a violation up to its first colon, or its first words.
#[must_use]
pub fn short(violation: &str) -> String {
    let first = violation.split(':').next().unwrap_or_default();
    let mut end = first.len().min(SHORT_BYTES_MAX);
    while !first.is_char_boundary(end) {
        end -= 1;
    }
    let first = first[..end].replace('|', "/");
    // An alarm says by its code what a node found wrong.
    let code = violation
        .find("FAN-")
        .and_then(|at| violation.get(at..at + CODE_BYTES));
    match code {
        Some(code) => format!("{first} {code}"),
        None => first,
    }
}

/// Bytes of a code: FAN- and four digits.
const CODE_BYTES: usize = 8;
