//! What the driver does for each effect of the core.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use fanin_core::effect::{Effect, Fact, FenceReason};
use fanin_core::ids::Incarnation;
use fanin_core::record::Terms;
use fanin_core::seq_set::SeqSet;
use fanin_store::{Class, Op};

use super::disk::KnownTerms;
use super::driver::Driver;
use super::ledger_io::{append, load_checkpoint, purge};
use super::limits::LOOKS_MAX;
use super::watch::{audit, repair};
use crate::codes::{Code, Refusal};
use crate::telemetry::metrics as names;

impl Driver {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Append {
                record,
                expect,
                claim,
            } => {
                let nonce = self.node.identity().nonce;
                self.outgoing.append(Box::pin(append(
                    self.ledger.clone(),
                    record,
                    expect,
                    claim,
                    nonce,
                )));
            }
            Effect::Audit {
                incarnation,
                terms,
                first,
            } => {
                // The filter in force is the terms', which may differ from the configuration (P6). Beyond the bound the
                // core asks again when due.
                let named = self.node.fold().terms().sources.get(&incarnation);
                if let Some(named) = named.filter(|_| self.looks.len() < LOOKS_MAX) {
                    let look = audit(self.hub.clone(), incarnation, terms, named.clone(), first);
                    self.looks.push(Box::pin(look));
                }
            }
            Effect::FetchRepair { incarnation, seq } => {
                let source = self.sources.get(&incarnation);
                // Beyond either bound the core asks again when due.
                if let Some(source) = source.filter(|_| self.looks.len() < LOOKS_MAX)
                    && let Some(permits) = self.repair_room.begin()
                {
                    let fetch = repair(self.hub.clone(), incarnation, source.clone(), seq, permits);
                    self.looks.push(Box::pin(fetch));
                }
            }
            Effect::Fact(fact) => self.count(fact),
            Effect::Fence(reason) => self.fence(&reason),
            Effect::Halt(halt) => {
                let delivers = if self.view.get().delivery.is_empty() {
                    "nothing is delivered either, as it had not joined"
                } else {
                    "what it has published is still delivered"
                };
                tracing::error!(code = halt.code(), mapping = self.options.name, reason = %halt, cure = halt.cure(), "the mapping halts: nothing is claimed or settled; {delivers}");
                self.outgoing.fall_silent();
                self.look_over();
            }
            Effect::Joined(epoch) => self.on_joined(epoch),
            Effect::LoadCheckpoint => {
                self.tail = None;
                let (ledger, covers) = (self.ledger.clone(), self.node.fold().position().next());
                self.errands.push(Box::pin(async move {
                    Some(load_checkpoint(ledger, Some(covers)).await)
                }));
            }
            Effect::PersistDone(done) => self.persist_done(&done),
            Effect::Purge { through, keep } => {
                let ledger = self.ledger.clone();
                self.outgoing.request(Box::pin(async move {
                    purge(ledger, through, keep).await;
                    None
                }));
            }
            Effect::Release(batch) => {
                self.batches.forget(batch);
                // Not waited for: the done set is durable, a release that is lost is made again at the next start.
                drop(self.store.commit(
                    Class::Finish,
                    vec![Op::Release {
                        key: self.names.batch(batch),
                    }],
                ));
            }
            Effect::Resolve {
                batch,
                position,
                terms,
                base,
                won,
                witness,
            } => {
                self.resolve(batch, (position, terms), base, &won, witness);
            }
            Effect::Settle { batch, won } => self.settle(batch, &won),
            Effect::SettleBySeq { incarnation, seqs } => self.settle_by_seq(incarnation, &seqs),
            Effect::Stage {
                ticket,
                batch,
                incarnation,
                kind,
                seqs,
            } => {
                self.stage(ticket, batch, incarnation, kind, &seqs);
            }
            Effect::Tail { from } => self.start_tail(from),
            Effect::TermsInForce(terms) => self.on_terms(&terms),
            Effect::Turned {
                ticket,
                settle,
                delay,
            } => {
                let Some(arrival) = self.arrivals.get(&ticket) else {
                    return;
                };
                let acks = arrival.acks(|seq| settle.contains(seq.0));
                let mut by_delay: BTreeMap<u64, Vec<_>> = BTreeMap::new();
                for (seq, ms) in delay {
                    by_delay
                        .entry(ms)
                        .or_default()
                        .extend(arrival.acks(|arrived| arrived == seq));
                }
                self.outgoing.settles.acknowledge(acks, Default::default());
                for (ms, acks) in by_delay {
                    self.outgoing.settles.give_back(acks, Duration::from_millis(ms));
                }
            }
        }
    }

    fn count(&mut self, fact: Fact) {
        let mapping = || self.options.name.clone();
        match fact {
            Fact::ClaimResolved {
                won,
                lost,
                tombstoned,
                given_up,
                incarnation,
                took_ms,
            } => {
                self.counts.won += won;
                self.counts.lost += lost;
                self.counts.tombstoned += tombstoned;
                let result = if won == 0 {
                    "lost"
                } else if lost + tombstoned == 0 {
                    "won"
                } else {
                    "partial"
                };
                metrics::counter!(names::CLAIMS, "mapping" => mapping(), "result" => result).increment(1);
                metrics::histogram!(names::CLAIM_DURATION).record(took_ms as f64 / 1_000.0);
                if tombstoned > 0 {
                    tracing::warn!(
                        code = "FAN-4040",
                        mapping = mapping(),
                        tombstoned,
                        messages = self.ids_of(incarnation, &given_up, tombstoned),
                        "staged messages were given up: their source had closed them before anyone owned them"
                    );
                }
            }
            Fact::ClaimVoid(why) => {
                metrics::counter!(names::CLAIMS, "mapping" => mapping(), "result" => "void").increment(1);
                tracing::debug!(mapping = mapping(), ?why, "a claim was void; it goes out again");
            }
            Fact::DamagedForgotten(batch) => {
                tracing::info!(mapping = mapping(), %batch, "a damaged batch had not been claimed; the hub delivers its messages again");
            }
            Fact::CheckpointWritten(position) => {
                tracing::debug!(mapping = mapping(), position = position.0, "checkpoint written");
            }
            Fact::Holes {
                incarnation,
                count,
                seqs,
            } => {
                metrics::counter!(names::HOLE_MESSAGES, "mapping" => mapping()).increment(count);
                let source = self.node.fold().terms().sources.get(&incarnation);
                // With filters a hole is mostly a message that nobody wants.
                if source.is_some_and(|source| source.filters.is_empty()) {
                    tracing::warn!(
                        code = "FAN-4049",
                        mapping = mapping(),
                        %incarnation,
                        count,
                        messages = self.ids_of(incarnation, &seqs, count),
                        "sequences were closed that hold no message any more and that no bridge had claimed"
                    );
                } else {
                    tracing::debug!(
                        mapping = mapping(),
                        %incarnation,
                        count,
                        messages = self.ids_of(incarnation, &seqs, count),
                        "closed over holes"
                    );
                }
            }
            Fact::Repair { incarnation, seq } => {
                self.counts.repaired += 1;
                metrics::counter!(names::REPAIRED_MESSAGES, "mapping" => mapping()).increment(1);
                let messages = self.ids_of(incarnation, &SeqSet::range(seq.0, seq.0), 1);
                tracing::warn!(
                    code = "FAN-4041",
                    mapping = mapping(),
                    %incarnation,
                    messages,
                    "the hub had skipped a message; it is fetched by sequence"
                );
            }
            Fact::Stuck { incarnation, seq } => self.tell_stuck(incarnation, seq),
            Fact::SourceLost {
                incarnation,
                first,
                last,
            } => {
                let count = last.0 - first.0 + 1;
                metrics::counter!(names::SOURCE_LOST_MESSAGES, "mapping" => mapping()).increment(count);
                let messages = self.ids_of(incarnation, &SeqSet::range(first.0, last.0), count);
                tracing::error!(
                    code = "FAN-4038",
                    mapping = mapping(),
                    %incarnation,
                    count,
                    messages,
                    "the hub has lost messages that it had confirmed and that no bridge had taken: some or all of these, and what was \
                     stored behind them before the loss; the others go on"
                );
            }
        }
    }

    /// Message ids as a log line names them: `ORDERS:3, ORDERS:7-9`. Of `count` there may be more than these.
    fn ids_of(&self, incarnation: Incarnation, seqs: &SeqSet, count: u64) -> String {
        let stream = self.stream_of(incarnation);
        let ranges = seqs.ranges().iter().map(|&(first, last)| match last - first {
            0 => format!("{stream}:{first}"),
            _ => format!("{stream}:{first}-{last}"),
        });
        let mut ids = ranges.collect::<Vec<_>>().join(", ");
        if seqs.len() < count {
            ids.push_str(", more");
        }
        ids
    }

    fn fence(&mut self, reason: &FenceReason) {
        tracing::error!(code = "FAN-3008", mapping = self.options.name, reason = %reason, cure = reason.cure(), "this node is fenced: it delivers nothing more");
        self.outgoing.fall_silent();
        self.intakes.clear();
        self.tail = None;
        self.topic
            .stop_delivery(Refusal::new(Code::Fenced, reason.to_string()));
        self.look_over();
    }

    /// New terms: each application's entitlement, on disk before anything resolved under them. While a restart reads the
    /// ledger it meets old terms again; they must not take an entitlement away that this disk knows of already.
    fn on_terms(&mut self, terms: &Terms) {
        if terms.version.0 <= self.terms_known {
            return;
        }
        self.terms_known = terms.version.0;
        let since = terms
            .apps
            .iter()
            .map(|(app, since)| (app.clone(), since.0))
            .collect();
        let known = KnownTerms {
            version: terms.version.0,
            since,
        };
        match serde_json::to_vec(&known) {
            Ok(encoded) => self.persist_terms(Bytes::from(encoded)),
            Err(error) => self.failure = Some(error.into()),
        }
        for app in self.options.config.applications.keys() {
            self.topic.set_since(app, terms.apps.get(app).copied());
        }
        tracing::info!(mapping = self.options.name, version = terms.version.0, apps = ?terms.apps.keys().collect::<Vec<_>>(), "terms in force");
    }
}
