//! One mapping's machine on one node.
//!
//! # Contract
//! - `handle(now, input, &mut effects)` is the only way in; effects come out in the order in which they must be done.
//! - `now` never goes back. Nothing else is read from the world.
//! - Order of durability is data flow: a claim leaves only on `Input::Staged`, a settle only on `Input::Resolved`, a
//!   release only on `Input::DonePersisted`.
//! - A crash is dropping the node; `recovery::recover` builds it again from what the disk kept and the ledger.

mod close;
mod done;
mod ends;
mod halted;
mod intake;
mod ledger;
mod restored;
mod reused;
mod room;
mod stuck;
mod upkeep;

pub use close::CloseState;
pub use restored::{KnownTime, Restored};
pub use reused::SourceProbe;
pub use stuck::Stuck;

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::{Batch, BatchState};
use crate::effect::{Effect, Fact, FenceReason};
use crate::fold::{ClaimKey, Fold, Halt, Void};
use crate::ids::{BatchNo, Epoch, Incarnation, LedgerSeq, NodeUuid, Nonce, Offset, StreamSeq, Tick};
use crate::input::Input;
use crate::mutants::{self, Mutant};
use crate::record::{Body, Record, SourceTerms, Witness};
use crate::seq_set::SeqSet;
use crate::wire::DecodeError;
use reused::given_up;

/// Who this node is and what its configuration says of the mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The data directory.
    pub uuid: NodeUuid,
    /// The node's name.
    pub name: String,
    /// Random, of this process.
    pub nonce: Nonce,
    /// The applications configured here.
    pub hosts: BTreeSet<String>,
    /// The sources configured here, with the incarnations the hub has now.
    pub sources: BTreeMap<Incarnation, SourceTerms>,
}

/// When a claim counts as stable: it survives a power loss of the hub (P5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stability {
    /// The hub syncs before it confirms: at once.
    SyncAlways,
    /// The hub syncs in intervals: after so many milliseconds, twice the interval.
    After(u64),
}

/// Times and thresholds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy {
    /// When a claim is stable.
    pub stability: Stability,
    /// Whether this node may replace the terms' sources by its configured ones: the operator's word (P9).
    pub accept_terms: bool,
    /// After so long without the tail showing it, a claim or another record is sent again.
    pub resend_ms: u64,
    /// Shortest time between two PROGRESS records.
    pub progress_ms: u64,
    /// Shortest time between two CLOSE records.
    pub close_ms: u64,
    /// Time between the two looks at a hole.
    pub audit_ms: u64,
    /// How long a message may have been delivered and unclaimed while this node pulls, before it is fetched by its
    /// sequence: several times the hub's wait before it delivers again.
    pub stuck_ms: u64,
    /// A node does another's upkeep when that stays undone so long, times its rank among the active nodes.
    pub takeover_ms: u64,
    /// Records behind the last checkpoint after which the next is written.
    pub checkpoint_records: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            stability: Stability::After(2 * 120_000),
            accept_terms: false,
            resend_ms: 5_000,
            progress_ms: 1_000,
            close_ms: 2_000,
            audit_ms: 60_000,
            stuck_ms: 90_000,
            takeover_ms: 10_000,
            checkpoint_records: 2_048,
        }
    }
}

/// How far the node has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The tail has not reached the own EPOCH.
    #[default]
    Joining,
    /// Everything is allowed that the ledger admits.
    Active,
    /// The ledger or a source cannot be trusted.
    Halted(Halt),
    /// This body must not act as the node any more.
    Fenced(FenceReason),
}

/// Why nothing may be pulled from a source now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Withheld {
    /// The node has halted or was fenced, or has not joined yet.
    Phase,
    /// The ledger is nearly full: claims wait.
    LedgerFull {
        /// Bytes stored in it.
        bytes: u64,
        /// Its limit in bytes.
        max: u64,
    },
    /// Too many batches wait for their claims.
    Unresolved,
    /// A claim would be void, and the terms under which it would be valid do not fit in a record.
    TermsUnfit(DecodeError),
    /// A claim would be void.
    Void(Void),
    /// The terms name other filters for this source than the configuration.
    FilterDiffers,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    pub(crate) identity: Identity,
    pub(crate) policy: Policy,
    pub(crate) fold: Fold,
    pub(crate) phase: Phase,
    /// The own epoch, once appended.
    pub(crate) epoch: Option<Epoch>,
    /// The newest epoch that the disk remembers from earlier lives, and nonces it never heard of again.
    pub(crate) known_epoch: Epoch,
    pub(crate) intents: BTreeSet<Nonce>,
    /// What an earlier life had read of the ledger when it last decided a batch.
    pub(crate) known_witness: Witness,
    pub(crate) batches: BTreeMap<BatchNo, Batch>,
    /// Sequences of unresolved batches: a redelivery of one is in hand already.
    pub(crate) in_hand: BTreeMap<Incarnation, SeqSet>,
    pub(crate) unresolved: usize,
    pub(crate) next_batch: BatchNo,
    pub(crate) next_offset: Offset,
    pub(crate) done: done::Done,
    /// When valid claims became known here; only kept where stability takes time.
    pub(crate) seen: BTreeMap<ClaimKey, Tick>,
    pub(crate) close: BTreeMap<Incarnation, CloseState>,
    pub(crate) upkeep: upkeep::Upkeep,
    pub(crate) room: room::Room,
    /// Sources that seemed to end before what they had given, with since when.
    pub(crate) shrunk: BTreeMap<Incarnation, Tick>,
    /// The newest message that was looked at in each source, with its publish time.
    pub(crate) looked: BTreeMap<Incarnation, (StreamSeq, i64)>,
    /// Where each source ended when it was looked at last.
    pub(crate) ends: BTreeMap<Incarnation, ends::End>,
    /// The checkpoint was asked for and has not come.
    pub(crate) loading: Option<(LedgerSeq, LedgerSeq)>,
    /// Up to where a halted node has looked for its own fence.
    pub(crate) watched: LedgerSeq,
}

impl Node {
    /// Takes one input and says what must be done.
    pub fn handle(&mut self, now: Tick, input: Input, out: &mut Vec<Effect>) {
        if let Phase::Fenced(_) = self.phase {
            return;
        }
        match input {
            Input::Record {
                position,
                subject,
                bytes,
            } => self.on_record(now, position, &subject, &bytes, out),
            Input::Checkpoint(checkpoint) => self.on_checkpoint(now, checkpoint, out),
            Input::EpochAppended(epoch) => {
                self.epoch = Some(epoch);
                self.check_joined(now, out);
            }
            Input::Fetched {
                ticket,
                incarnation,
                kind,
                messages,
            } => {
                self.on_fetched(now, ticket, incarnation, kind, &messages, out);
            }
            Input::Staged(batch) => self.on_staged(now, batch, out),
            Input::StageRefused(batch) => self.on_stage_refused(batch, out),
            Input::ClaimUnconfirmed(batch) if mutants::on(Mutant::AbortsUnconfirmed) => {
                self.batches
                    .entry(batch)
                    .and_modify(|batch| batch.state = BatchState::Staging);
                self.on_stage_refused(batch, out);
            }
            Input::ClaimUnconfirmed(batch) => self.on_claim_unconfirmed(batch, now),
            Input::Resolved(batch) => self.on_resolved(batch, out),
            Input::BatchFinished(batch) => self.on_finished(batch, out),
            Input::DonePersisted => self.on_done_persisted(out),
            Input::Floor {
                incarnation,
                floor,
                delivered,
                pulling,
            } => {
                let reading = stuck::Reading {
                    floor,
                    delivered,
                    pulling,
                };
                self.on_floor(now, incarnation, reading);
            }
            Input::Audited {
                incarnation,
                terms,
                first,
                next_matching,
            } => {
                if terms == self.fold.terms().version {
                    self.on_audited(now, incarnation, first, next_matching, out);
                }
            }
            Input::SourceSeen {
                incarnation,
                reaches,
                last,
                last_ns,
                probes,
            } => {
                let look = ends::Look {
                    reaches,
                    last,
                    last_ns,
                    probes: &probes,
                };
                self.on_source_seen(now, incarnation, &look, out);
            }
            Input::AppendConfirmed { at, read } => self.on_append_confirmed(at, read, out),
            Input::AppendFailed => self.upkeep.on_append_failed(now),
            Input::HubBroken(halt) => self.halt(halt, out),
            Input::LedgerSize { bytes, max } => self.on_ledger_size(now, bytes, max, out),
            Input::Tick => self.on_tick(now, out),
        }
    }

    fn on_tick(&mut self, now: Tick, out: &mut Vec<Effect>) {
        if self.phase != Phase::Active {
            return;
        }
        self.resend_claims(now, out);
        self.keep_up(now, out);
    }

    pub(crate) fn halt(&mut self, halt: Halt, out: &mut Vec<Effect>) {
        if !matches!(self.phase, Phase::Halted(_) | Phase::Fenced(_)) {
            self.phase = Phase::Halted(halt.clone());
            out.push(Effect::Halt(halt));
        }
    }

    pub(crate) fn fence(&mut self, reason: FenceReason, out: &mut Vec<Effect>) {
        if reason.is_switched_off() {
            return;
        }
        if !matches!(self.phase, Phase::Fenced(_)) {
            self.phase = Phase::Fenced(reason.clone());
            out.push(Effect::Fence(reason));
        }
    }

    pub(crate) fn append(&self, body: Body, expect: Option<LedgerSeq>, out: &mut Vec<Effect>) {
        let record = Box::new(Record {
            witness: self.fold.witness(),
            body,
        });
        out.push(Effect::Append {
            record,
            expect,
            claim: None,
        });
    }

    /// Sends the claim of a staged batch, if the ledger would admit it now and has room for claims.
    pub(crate) fn try_claim(&mut self, now: Tick, number: BatchNo, out: &mut Vec<Effect>) {
        let (Phase::Active, Some(epoch)) = (&self.phase, self.epoch) else {
            return;
        };
        let short = self.ledger_short().is_some();
        let Some(batch) = self.batches.get_mut(&number) else {
            return;
        };
        let terms = self.fold.terms().version;
        let admits = self
            .fold
            .admits_claim(self.identity.uuid, epoch, batch.incarnation, terms);
        if short || admits.is_err() {
            batch.state = BatchState::Staged;
            return;
        }
        batch.attempt.0 += 1;
        batch.first_sent.get_or_insert(now);
        batch.state = BatchState::Claiming { sent_at: now };
        let claim = batch.claim(self.identity.uuid, epoch, number, terms);
        let record = Box::new(Record {
            witness: self.fold.witness(),
            body: Body::Claim(claim),
        });
        out.push(Effect::Append {
            record,
            expect: None,
            claim: Some((number, batch.attempt)),
        });
    }

    /// Claims every batch that waits for permission.
    pub(crate) fn claim_waiting(&mut self, now: Tick, out: &mut Vec<Effect>) {
        for number in self.numbers_in(|state| matches!(state, BatchState::Staged)) {
            self.try_claim(now, number, out);
        }
    }

    fn resend_claims(&mut self, now: Tick, out: &mut Vec<Effect>) {
        let resend_ms = self.policy.resend_ms;
        let due = |state: &BatchState| matches!(state, BatchState::Claiming { sent_at } if now.since(*sent_at) >= resend_ms);
        for number in self.numbers_in(|state| due(state) || matches!(state, BatchState::Staged)) {
            self.try_claim(now, number, out);
        }
    }

    fn numbers_in(&self, mut wanted: impl FnMut(&BatchState) -> bool) -> Vec<BatchNo> {
        if self.unresolved == 0 {
            return Vec::new();
        }
        self.batches
            .iter()
            .filter(|(_, batch)| wanted(&batch.state))
            .map(|(&number, _)| number)
            .collect()
    }

    fn on_claim_unconfirmed(&mut self, number: BatchNo, now: Tick) {
        // The claim may have landed all the same: wait a full interval for the tail to show it before the next attempt.
        if let Some(Batch {
            state: BatchState::Claiming { sent_at },
            ..
        }) = self.batches.get_mut(&number)
        {
            *sent_at = now;
        }
    }

    /// A valid claim of an own batch was folded, or stands in a loaded checkpoint: the batch is decided here, by what
    /// the batch won, never by sequence (P2).
    pub(crate) fn resolve(
        &mut self,
        now: Tick,
        number: BatchNo,
        position: LedgerSeq,
        terms: crate::ids::TermsVersion,
        won: SeqSet,
        out: &mut Vec<Effect>,
    ) {
        let won = self.won_by_sequence(number, won);
        let Some(batch) = self.batches.get_mut(&number) else {
            if !self.done.contains(number) {
                self.fence(FenceReason::UnknownClaim { batch: number }, out);
            }
            return;
        };
        match &mut batch.state {
            BatchState::Staging => self.fence(FenceReason::UnknownClaim { batch: number }, out),
            BatchState::Staged | BatchState::Claiming { .. } => {
                let not_won = batch.seqs.difference(&won);
                let given_up = given_up(&self.fold, &self.identity, number, batch, &not_won);
                batch.won_by_others = SeqSet::new();
                out.push(Effect::Fact(Fact::ClaimResolved {
                    won: won.len(),
                    lost: not_won.len() - given_up.len(),
                    tombstoned: given_up.len(),
                    given_up: given_up.first_ranges(crate::limits::FACT_RANGES_MAX),
                    incarnation: batch.incarnation,
                    took_ms: batch.first_sent.map_or(0, |sent| now.since(sent)),
                }));
                if let Some(in_hand) = self.in_hand.get_mut(&batch.incarnation) {
                    *in_hand = in_hand.difference(&batch.seqs);
                }
                self.unresolved -= 1;
                let base = self.next_offset;
                self.next_offset = base.plus(won.len());
                batch.state = BatchState::Resolving {
                    base,
                    won: won.clone(),
                };
                out.push(Effect::Resolve {
                    batch: number,
                    position,
                    terms,
                    base,
                    won,
                    witness: self.fold.witness(),
                });
            }
            BatchState::Damaged => {
                // The sequences went with the record; the claim has them.
                let key = ClaimKey::new(self.identity.uuid, number.0);
                if let Some(entry) = self.fold.claims().get(&key) {
                    batch.incarnation = entry.incarnation;
                }
                out.push(Effect::Fact(Fact::ClaimResolved {
                    won: won.len(),
                    lost: 0,
                    tombstoned: 0,
                    given_up: SeqSet::new(),
                    incarnation: batch.incarnation,
                    took_ms: 0,
                }));
                let base = self.next_offset;
                self.next_offset = base.plus(won.len());
                batch.state = BatchState::Resolving {
                    base,
                    won: won.clone(),
                };
                out.push(Effect::Resolve {
                    batch: number,
                    position,
                    terms,
                    base,
                    won,
                    witness: self.fold.witness(),
                });
            }
            BatchState::Published { unconfirmed } => match unconfirmed.take() {
                Some(disk) if disk != won => {
                    // It stays what this disk says: nothing has confirmed it.
                    *unconfirmed = Some(disk);
                    self.halt(Halt::WonDiffers { batch: number }, out);
                }
                // The process died between the tombstone and the report that nothing is left to do.
                Some(_) if won.is_empty() => self.on_finished(number, out),
                Some(_) | None => {}
            },
            BatchState::Resolving { .. } | BatchState::Finished => {}
        }
    }

    /// What the mutant that resolves by sequence takes for won: whatever this node owns.
    fn won_by_sequence(&self, number: BatchNo, won: SeqSet) -> SeqSet {
        let Some(batch) = self
            .batches
            .get(&number)
            .filter(|_| mutants::on(Mutant::ResolvesBySequence))
        else {
            return won;
        };
        let uuid = self.identity.uuid;
        let owner = |seq: u64| self.fold.owner(batch.incarnation, crate::ids::StreamSeq(seq));
        let own = |seq: &u64| owner(*seq).is_some_and(|key| key.node == uuid);
        batch.seqs.iter().filter(own).collect()
    }

    fn on_resolved(&mut self, number: BatchNo, out: &mut Vec<Effect>) {
        let Some(batch) = self.batches.get_mut(&number) else {
            return;
        };
        let BatchState::Resolving { won, .. } = &mut batch.state else {
            return;
        };
        let won = core::mem::take(won);
        batch.seqs = SeqSet::new();
        batch.state = BatchState::Published { unconfirmed: None };
        if won.is_empty() {
            self.on_finished(number, out);
        } else if self.phase == Phase::Active {
            // Before the own EPOCH nothing is settled (P8); a redelivery settles it later.
            out.push(Effect::Settle { batch: number, won });
        }
    }

    /// Whether messages may be pulled from a source now.
    ///
    /// # Errors
    /// Why not.
    pub fn may_pull(&self, incarnation: Incarnation) -> Result<(), Withheld> {
        let (Phase::Active, Some(epoch)) = (&self.phase, self.epoch) else {
            return Err(Withheld::Phase);
        };
        if let Some((bytes, max)) = self.ledger_short() {
            return Err(Withheld::LedgerFull { bytes, max });
        }
        if self.unresolved >= crate::limits::UNRESOLVED_BATCHES_MAX {
            return Err(Withheld::Unresolved);
        }
        let terms = self.fold.terms();
        self.fold
            .admits_claim(self.identity.uuid, epoch, incarnation, terms.version)
            .map_err(|void| {
                self.unfit_terms()
                    .map_or(Withheld::Void(void), Withheld::TermsUnfit)
            })?;
        if terms.sources.get(&incarnation) != self.identity.sources.get(&incarnation) {
            return Err(Withheld::FilterDiffers);
        }
        Ok(())
    }

    /// For the model checker, whose intervals are all 0: forgets when things were sent last and how often, which then decides
    /// nothing and would only tell equal states apart.
    #[cfg(feature = "mutants")]
    pub fn blur(&mut self) {
        self.upkeep.blur();
        self.close.values_mut().for_each(CloseState::blur);
        for batch in self.batches.values_mut() {
            batch.attempt = crate::ids::Attempt(0);
            batch.first_sent = None;
        }
    }

    /// The fold.
    #[must_use]
    pub fn fold(&self) -> &Fold {
        &self.fold
    }

    /// How far the node has come.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The own epoch, once appended.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// The batches that are not yet released.
    #[must_use]
    pub fn batches(&self) -> &BTreeMap<BatchNo, Batch> {
        &self.batches
    }

    /// Numbers of batches that every application has finished, as far as the disk knows.
    #[must_use]
    pub fn done(&self) -> &SeqSet {
        &self.done.durable
    }

    /// How many batches are staged and not yet resolved.
    #[must_use]
    pub fn unresolved(&self) -> usize {
        self.unresolved
    }

    /// The offset of the next message to become visible.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next_offset
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}
