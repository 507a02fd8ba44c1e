//! Compares a folded ledger with what nodes hold. Nodes are asked first and the ledger is read afterwards, so that whatever a
//! node knows of the ledger is in it.

use std::collections::BTreeMap;

use fanin_core::fold::{ClaimEntry, ClaimKey, Fold};
use fanin_core::ids::{BatchNo, LedgerSeq, NodeUuid, StreamSeq};
use fanin_core::record::NodeState;

use super::gaps::Sweep;
use super::ledger::Folded;
use super::nodes::{BatchView, NodeView, finished_of};

/// Something that is not as the guarantee says, or cannot be shown to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// A bridge would halt on the ledger.
    #[error("ledger {stream}: {why}")]
    Ledger {
        /// The ledger's stream.
        stream: String,
        /// Why.
        why: String,
    },
    /// A node owns messages that it does not hold.
    #[error(
        "node {node} owns {messages} messages of batch {batch} (claim at ledger position {position}) and does not hold them"
    )]
    NotHeld {
        /// The node.
        node: String,
        /// The batch.
        batch: BatchNo,
        /// Its claim.
        position: LedgerSeq,
        /// How many messages.
        messages: u64,
    },
    /// A node holds as its own what the ledger says otherwise of.
    #[error("node {node}, batch {batch}: the node says it won {here} messages, the ledger says {there}")]
    WonDiffers {
        /// The node.
        node: String,
        /// The batch.
        batch: BatchNo,
        /// Messages by the node.
        here: u64,
        /// Messages by the ledger.
        there: u64,
    },
    /// A node has published what no valid claim won.
    #[error(
        "node {node} has published batch {batch} ({messages} messages), and no valid claim in the ledger won it"
    )]
    NotClaimed {
        /// The node.
        node: String,
        /// The batch.
        batch: BatchNo,
        /// How many messages.
        messages: u64,
    },
    /// A batch's bodies are damaged on the node's disk.
    #[error("node {node}: batch {batch} ({messages} messages) is damaged and not fetched again yet")]
    Damaged {
        /// The node.
        node: String,
        /// The batch.
        batch: BatchNo,
        /// How many messages.
        messages: u64,
    },
    /// A node that the ledger calls active was not asked.
    #[error("node {node} could not be asked; it owns {messages} unfinished messages")]
    NotAsked {
        /// The node.
        node: String,
        /// How many messages are in its hands by the ledger.
        messages: u64,
    },
    /// A bridge answers that the ledger does not know, or not in this epoch.
    #[error("the bridge {node} (epoch {epoch}) is not what the ledger knows under this identity: {why}")]
    Stranger {
        /// Its name.
        node: String,
        /// Its epoch.
        epoch: LedgerSeq,
        /// What is wrong.
        why: String,
    },
    /// A message below the acknowledgement floor that nobody claimed.
    #[error("{stream}:{seq} is below the consumer's acknowledgement floor and nobody claimed it")]
    Unclaimed {
        /// The stream.
        stream: String,
        /// The sequence.
        seq: StreamSeq,
    },
    /// More gaps than were looked into.
    #[error(
        "{stream}: there are more gaps below the acknowledgement floor than were looked into; run this again later"
    )]
    CutShort {
        /// The stream.
        stream: String,
    },
}

impl Finding {
    /// Whether it only says that a node was not asked.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Finding::NotAsked { .. })
    }

    /// A short word for scripts.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Finding::Ledger { .. } => "ledger",
            Finding::NotHeld { .. } => "not_held",
            Finding::WonDiffers { .. } => "won_differs",
            Finding::NotClaimed { .. } => "not_claimed",
            Finding::Damaged { .. } => "damaged",
            Finding::NotAsked { .. } => "not_asked",
            Finding::Stranger { .. } => "stranger",
            Finding::Unclaimed { .. } => "unclaimed",
            Finding::CutShort { .. } => "cut_short",
        }
    }
}

/// One application's messages, over all nodes that were asked: those of claims that are not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppTotals {
    /// Owned by a node that was asked, and published there.
    pub published: u64,
    /// Finished: acknowledged, passed over by the filter, or a dead letter.
    pub finished: u64,
    /// Waiting, or in an instance's hands.
    pub waiting: u64,
    /// Dead letters listed.
    pub dead_letters: u64,
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What is wrong, or cannot be shown to be right.
    pub findings: Vec<Finding>,
    /// Claims that some application has not finished, and their messages.
    pub open_claims: u64,
    /// Messages of those claims.
    pub open_messages: u64,
    /// Claims whose node has reported them done and that are kept because they reach above W.
    pub done_claims: u64,
    /// The applications.
    pub apps: BTreeMap<String, AppTotals>,
    /// Nodes that were asked, or whose holdings were given.
    pub nodes: Vec<String>,
    /// Active nodes that were not.
    pub unreachable: Vec<String>,
    /// Messages claimed after a node was asked: too new to compare.
    pub too_new: u64,
}

/// Compares.
#[must_use]
pub fn judge(folded: &Folded, nodes: &[NodeView], sweeps: &[(String, Sweep)]) -> Report {
    let fold = &folded.fold;
    let mut report = Report {
        nodes: nodes.iter().map(|node| node.name.clone()).collect(),
        ..Report::default()
    };
    if let Some(halt) = &folded.halt {
        report.findings.push(Finding::Ledger {
            stream: folded.stream.clone(),
            why: halt.to_string(),
        });
    }
    if let Err(why) = fanin_core::invariants::check_fold(fold) {
        let stream = folded.stream.clone();
        report.findings.push(Finding::Ledger { stream, why });
    }
    for node in nodes {
        // They were asked before the ledger was read.
        let is_same = node.ledger_created_ns != 0 && node.ledger_created_ns == folded.info.created_ns;
        if is_same && node.read.0 > folded.info.last_seq {
            report.findings.push(Finding::Ledger {
                stream: folded.stream.clone(),
                why: format!(
                    "it ends at position {}, node {} has read it up to {}",
                    folded.info.last_seq, node.name, node.read
                ),
            });
        }
    }
    let by_uuid: BTreeMap<NodeUuid, &NodeView> = nodes.iter().map(|node| (node.uuid, node)).collect();
    judge_identities(fold, nodes, &mut report);
    judge_claims(fold, &by_uuid, &mut report);
    for node in nodes {
        judge_batches(fold, node, &mut report);
        for app in &node.apps {
            let totals = report.apps.entry(app.app.clone()).or_default();
            totals.dead_letters += app.dead_letters.len() as u64;
        }
    }
    for (stream, sweep) in sweeps {
        let unclaimed = sweep.unclaimed.iter().map(|seq| Finding::Unclaimed {
            stream: stream.clone(),
            seq: *seq,
        });
        report.findings.extend(unclaimed);
        if sweep.cut_short {
            let stream = stream.clone();
            report.findings.push(Finding::CutShort { stream });
        }
    }
    report
}

fn judge_identities(fold: &Fold, nodes: &[NodeView], report: &mut Report) {
    for node in nodes {
        let known = fold.nodes().get(&node.uuid);
        let why = match known {
            None => Some("the ledger has no epoch of this data directory".to_owned()),
            Some(entry) if entry.epoch > node.epoch => Some(format!("its newest epoch is {}", entry.epoch)),
            Some(_) => None,
        };
        if let Some(why) = why {
            report.findings.push(Finding::Stranger {
                node: node.name.clone(),
                epoch: node.epoch,
                why,
            });
        }
    }
    for (uuid, entry) in fold.nodes() {
        if entry.state == NodeState::Active && !nodes.iter().any(|node| node.uuid == *uuid) {
            report.unreachable.push(entry.name.clone());
            let own = fold.claims().iter().filter(|(key, _)| key.node == *uuid);
            let open = own.filter(|(key, _)| !entry.done.contains(key.batch.0));
            report.findings.push(Finding::NotAsked {
                node: entry.name.clone(),
                messages: open.map(|(_, claim)| claim.won().len()).sum(),
            });
        }
    }
}

fn judge_claims(fold: &Fold, nodes: &BTreeMap<NodeUuid, &NodeView>, report: &mut Report) {
    for (key, claim) in fold.claims() {
        let reported = fold.nodes().get(&key.node);
        if reported.is_some_and(|entry| entry.done.contains(key.batch.0)) {
            report.done_claims += 1;
            continue;
        }
        let won = claim.won();
        report.open_claims += 1;
        report.open_messages += won.len();
        let Some(node) = nodes.get(&key.node) else {
            continue;
        };
        if node.done.contains(key.batch.0) {
            continue;
        }
        match node.batches.get(&key.batch) {
            None if node.position < claim.position => report.too_new += won.len(),
            None => report.findings.push(Finding::NotHeld {
                node: node.name.clone(),
                batch: key.batch,
                position: claim.position,
                messages: won.len(),
            }),
            Some(batch) => compare(node, (*key, claim), batch, report),
        }
    }
}

fn compare(node: &NodeView, (key, claim): (ClaimKey, &ClaimEntry), batch: &BatchView, report: &mut Report) {
    let won = claim.won();
    if batch.state == "damaged" {
        report.findings.push(Finding::Damaged {
            node: node.name.clone(),
            batch: key.batch,
            messages: won.len(),
        });
        return;
    }
    if !batch.decided {
        if node.position < claim.position {
            report.too_new += won.len();
        } else {
            report.findings.push(Finding::WonDiffers {
                node: node.name.clone(),
                batch: key.batch,
                here: 0,
                there: won.len(),
            });
        }
        return;
    }
    if batch.seqs != won || batch.incarnation != claim.incarnation {
        report.findings.push(Finding::WonDiffers {
            node: node.name.clone(),
            batch: key.batch,
            here: batch.seqs.len(),
            there: won.len(),
        });
        return;
    }
    let Some(base) = batch.base else { return };
    for app in &node.apps {
        if app.since_terms == 0 || app.since_terms > batch.terms.0 {
            continue;
        }
        let finished = finished_of(app, base.0, won.len());
        let totals = report.apps.entry(app.app.clone()).or_default();
        totals.published += won.len();
        totals.finished += finished;
        totals.waiting += won.len() - finished;
    }
}

/// What a node has published must be won, or be forgotten because it is done.
fn judge_batches(fold: &Fold, node: &NodeView, report: &mut Report) {
    let entry = fold.nodes().get(&node.uuid);
    for (number, batch) in &node.batches {
        let key = ClaimKey::new(node.uuid, number.0);
        let is_done = entry.is_some_and(|entry| entry.done.contains(number.0));
        if batch.base.is_some() && !is_done && !fold.claims().contains_key(&key) {
            report.findings.push(Finding::NotClaimed {
                node: node.name.clone(),
                batch: *number,
                messages: batch.seqs.len(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: each kind of disagreement is found, and agreement is none. Method: a ledger of real records with one claim, and
    //! the views a node could give of it.
    use std::collections::BTreeMap;

    use fanin_core::ids::{Epoch, Incarnation, Nonce, Offset, TermsVersion};
    use fanin_core::record::{
        Body, Claim, ClaimKind, EpochRecord, Genesis, Record, SourceTerms, Terms, Witness, content_hash,
    };
    use fanin_core::seq_set::SeqSet;
    use fanin_hub::LedgerInfo;
    use fanin_proto::v1::AppHolding;

    use super::*;

    const NODE: NodeUuid = NodeUuid(7);
    const SOURCE: Incarnation = Incarnation(3);
    const TIMES: (i64, i64) = (1, 2);

    /// GENESIS at 1, EPOCH of node a at 2, TERMS at 3, a claim of batch 1 over 1 to 4 at 4.
    fn ledger() -> Folded {
        let mut fold = Fold::new();
        let seqs = SeqSet::range(1, 4);
        let terms = Terms {
            version: TermsVersion(1),
            sources: BTreeMap::from([(
                SOURCE,
                SourceTerms {
                    stream: "S".to_owned(),
                    filters: Vec::new(),
                },
            )]),
            apps: BTreeMap::from([("x".to_owned(), TermsVersion(1))]),
        };
        let epoch = EpochRecord {
            node_uuid: NODE,
            node: "a".to_owned(),
            nonce: Nonce(1),
            hosts: ["x".to_owned()].into(),
            state: NodeState::Active,
        };
        let claim = Claim {
            node_uuid: NODE,
            epoch: LedgerSeq(2),
            batch: BatchNo(1),
            content_hash: content_hash(SOURCE, &seqs, ClaimKind::Normal, TIMES),
            incarnation: SOURCE,
            seqs,
            terms: TermsVersion(1),
            kind: ClaimKind::Normal,
            published_ns: TIMES,
            attempt: fanin_core::ids::Attempt(1),
        };
        let genesis = Genesis {
            rules: fanin_core::fold::RULES,
            ..Genesis::default()
        };
        let bodies = [
            Body::Genesis(genesis),
            Body::Epoch(epoch),
            Body::Terms(terms),
            Body::Claim(claim),
        ];
        for (at, body) in (1..).zip(bodies) {
            let witness = Witness::default();
            let record = Record { witness, body };
            let subject = record.subject();
            fold.apply(LedgerSeq(at), &subject, &record.encode()).unwrap();
        }
        let info = LedgerInfo {
            first_seq: 1,
            last_seq: 4,
            messages: 4,
            bytes: 0,
            max_bytes: -1,
            created_ns: 0,
        };
        Folded {
            stream: "L".to_owned(),
            fold,
            info,
            checkpoint: None,
            records: 4,
            halt: None,
        }
    }

    /// Node a, which holds batch 1 as published, with two of four messages finished.
    fn holder() -> NodeView {
        let batch = BatchView {
            state: "published".to_owned(),
            incarnation: SOURCE,
            seqs: SeqSet::range(1, 4),
            decided: true,
            base: Some(Offset(10)),
            terms: TermsVersion(1),
            ..BatchView::default()
        };
        let app = AppHolding {
            app: "x".to_owned(),
            floor_offset: 11,
            finished: vec![fanin_proto::v1::SeqRange { first: 13, last: 20 }],
            since_terms: 1,
            ..AppHolding::default()
        };
        NodeView {
            name: "a".to_owned(),
            uuid: NODE,
            epoch: Epoch::default().max(LedgerSeq(2)),
            position: LedgerSeq(4),
            state: "active".to_owned(),
            done: SeqSet::new(),
            batches: BTreeMap::from([(BatchNo(1), batch)]),
            apps: vec![app],
            ..NodeView::default()
        }
    }

    fn kinds(nodes: &[NodeView]) -> Vec<&'static str> {
        let report = judge(&ledger(), nodes, &[]);
        report.findings.iter().map(Finding::kind).collect()
    }

    #[test]
    fn agreement_is_counted() {
        let report = judge(&ledger(), &[holder()], &[]);
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        assert_eq!((report.open_claims, report.open_messages), (1, 4));
        let totals = report.apps["x"];
        assert_eq!((totals.published, totals.finished, totals.waiting), (4, 2, 2));
        let mut done = holder();
        done.batches.clear();
        done.done = SeqSet::range(1, 1);
        assert!(kinds(&[done]).is_empty(), "done on disk, not reported yet");
    }

    #[test]
    fn each_disagreement_is_found() {
        let changed = |change: &dyn Fn(&mut NodeView)| {
            let mut view = holder();
            change(&mut view);
            kinds(&[view])
        };
        let batch = |view: &mut NodeView| view.batches.remove(&BatchNo(1)).unwrap();
        assert_eq!(kinds(&[]), ["not_asked"]);
        assert_eq!(judge(&ledger(), &[], &[]).unreachable, ["a"]);
        assert_eq!(changed(&|view| view.batches.clear()), ["not_held"]);
        let too_new = changed(&|view| {
            view.batches.clear();
            view.position = LedgerSeq(3);
        });
        assert!(too_new.is_empty(), "the node had not read the claim");
        let won = |view: &mut NodeView| {
            let mut own = batch(view);
            own.seqs = SeqSet::range(1, 3);
            view.batches.insert(BatchNo(1), own);
        };
        assert_eq!(changed(&won), ["won_differs"]);
        let undecided = |view: &mut NodeView| {
            let mut own = batch(view);
            own.decided = false;
            view.batches.insert(BatchNo(1), own);
        };
        assert_eq!(changed(&undecided), ["won_differs"]);
        let damaged = |view: &mut NodeView| {
            let mut own = batch(view);
            own.state = "damaged".to_owned();
            view.batches.insert(BatchNo(1), own);
        };
        assert_eq!(changed(&damaged), ["damaged"]);
        let more = |view: &mut NodeView| {
            let own = view.batches[&BatchNo(1)].clone();
            view.batches.insert(BatchNo(2), own);
        };
        assert_eq!(changed(&more), ["not_claimed"]);
        assert_eq!(changed(&|view| view.epoch = LedgerSeq(1)), ["stranger"]);
        assert_eq!(
            changed(&|view| view.uuid = NodeUuid(8)).first(),
            Some(&"stranger")
        );
    }

    #[test]
    fn gaps_and_halts_are_findings() {
        let mut folded = ledger();
        folded.halt = Some(fanin_core::fold::Halt::LedgerRecreated);
        let sweep = Sweep {
            unclaimed: vec![StreamSeq(9)],
            cut_short: true,
            ..Sweep::default()
        };
        let report = judge(&folded, &[holder()], &[("S".to_owned(), sweep)]);
        let kinds: Vec<_> = report.findings.iter().map(Finding::kind).collect();
        assert_eq!(kinds, ["ledger", "unclaimed", "cut_short"]);
        let mut short = ledger();
        short.info.created_ns = 5;
        let mut view = holder();
        (view.ledger_created_ns, view.read) = (5, LedgerSeq(9));
        let report = judge(&short, &[view], &[]);
        assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
        assert!(report.findings[0].to_string().contains("ends at position 4"));
    }
}
