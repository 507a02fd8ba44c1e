//! Goal: a repair loses nothing and makes nothing available twice beyond what it lists, and what was published keeps its owner.
//! Method: random clusters write, read and finish on real folds; then the ledger is cut, nodes that noticed stand still and the others
//! go on with what is left (so that two histories arise), some bridges restart and forget their fold; the merged state is
//! loaded as every bridge loads it, undecided batches are claimed again, the hub delivers everything once more, and each delivery is counted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is the failure")]

use std::collections::{BTreeMap, BTreeSet};

use fanin_core::checkpoint::{self, Assembler};
use fanin_core::fold::{ClaimKey, Fold, Folded};
use fanin_core::ids::{Attempt, BatchNo, Incarnation, LedgerSeq, NodeUuid, Nonce, StreamSeq, TermsVersion};
use fanin_core::invariants;
use fanin_core::record::{
    Body, Claim, ClaimKind, Close, EpochRecord, Genesis, NodeState, Progress, Record, SourceTerms, Terms,
    content_hash,
};
use fanin_core::repair::{Finding, HeldBatch, Memory, Merged, NodeDisk, Survivors, merge};
use fanin_core::seq_set::SeqSet;
use proptest::prelude::*;

const SOURCE: Incarnation = Incarnation(0xa0);
const TIMES: (i64, i64) = (1, 2);
const NODES: usize = 3;

/// A small generator: a case is one number.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone)]
struct Bridge {
    fold: Fold,
    disk: NodeDisk,
    staged: BTreeMap<BatchNo, SeqSet>,
    epoch: LedgerSeq,
    next: u64,
    /// It has read records that the ledger lost.
    halted: bool,
    /// Its memory is gone.
    restarted: bool,
}

struct Cluster {
    dice: Dice,
    log: Vec<(String, Vec<u8>)>,
    bridges: Vec<Bridge>,
    end: u64,
    /// Who made each message available.
    delivered: BTreeMap<u64, Vec<usize>>,
}

fn terms(version: u32) -> Terms {
    Terms {
        version: TermsVersion(version),
        sources: BTreeMap::from([(
            SOURCE,
            SourceTerms {
                stream: "S".to_owned(),
                filters: Vec::new(),
            },
        )]),
        apps: BTreeMap::from([("x".to_owned(), TermsVersion(1))]),
    }
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        let mut cluster = Cluster {
            dice: Dice(seed | 1),
            log: Vec::new(),
            bridges: Vec::new(),
            end: 0,
            delivered: BTreeMap::new(),
        };
        let genesis = Genesis {
            rules: 1,
            features: BTreeSet::new(),
        };
        cluster.append(Fold::new(), Body::Genesis(genesis));
        cluster.append(Fold::new(), Body::Terms(terms(1)));
        for who in 0..NODES {
            let uuid = NodeUuid(who as u128 + 1);
            let epoch = cluster.append(Fold::new(), Body::Epoch(epoch_of(uuid)));
            cluster.bridges.push(Bridge {
                fold: Fold::new(),
                disk: NodeDisk {
                    uuid,
                    name: format!("n{uuid}"),
                    epoch,
                    terms: TermsVersion(1),
                    apps: BTreeMap::from([("x".to_owned(), TermsVersion(1))]),
                    ..NodeDisk::default()
                },
                staged: BTreeMap::new(),
                epoch,
                next: 1,
                halted: false,
                restarted: false,
            });
        }
        for who in 0..NODES {
            cluster.read(who, u64::MAX);
        }
        cluster
    }

    fn append(&mut self, fold: Fold, body: Body) -> LedgerSeq {
        let record = Record {
            witness: fold.witness(),
            body,
        };
        self.log.push((record.subject(), record.encode()));
        LedgerSeq(self.log.len() as u64)
    }

    fn read(&mut self, who: usize, most: u64) {
        for _ in 0..most {
            let bridge = &mut self.bridges[who];
            let at = bridge.fold.position().0 as usize;
            let Some((subject, bytes)) = self.log.get(at) else {
                return;
            };
            let folded = bridge
                .fold
                .apply(LedgerSeq(at as u64 + 1), subject, bytes)
                .unwrap();
            bridge.disk.read = bridge.fold.position();
            if let Folded::Claim { key, won, .. } = folded
                && key.node == bridge.disk.uuid
            {
                self.decide(who, key.batch, won);
            }
        }
    }

    fn decide(&mut self, who: usize, batch: BatchNo, won: SeqSet) {
        let bridge = &mut self.bridges[who];
        bridge.staged.remove(&batch).unwrap();
        for seq in won.iter() {
            self.delivered.entry(seq).or_default().push(who);
        }
        let held = bridge.disk.batches.get_mut(&batch).unwrap();
        (held.seqs, held.decided, held.terms) = (won, true, TermsVersion(1));
    }

    fn claim(&mut self, who: usize, batch: BatchNo) {
        let bridge = &self.bridges[who];
        let claim = claim_of(bridge, batch, TermsVersion(1), bridge.epoch);
        self.append(bridge.fold.clone(), Body::Claim(claim));
    }

    fn step(&mut self) {
        let who = self.dice.below(NODES as u64) as usize;
        if self.bridges[who].halted {
            return;
        }
        match self.dice.below(12) {
            0..=1 => self.end += 1 + self.dice.below(4),
            2..=5 if self.end > 0 => {
                let from = self.bridges[who].fold.closed(SOURCE).0;
                let mut seqs = SeqSet::new();
                for _ in 0..=self.dice.below(4) {
                    let near = self.end.saturating_sub(from).max(1);
                    let seq = (self.end - self.dice.below(near).min(self.end - 1)).max(1);
                    let bridge = &self.bridges[who];
                    let in_hand = bridge.staged.values().any(|seqs| seqs.contains(seq));
                    let owned = bridge.fold.owner(SOURCE, StreamSeq(seq)).is_some();
                    if !in_hand && !owned && seq > from {
                        seqs.insert(seq);
                    }
                }
                if !seqs.is_empty() {
                    let batch = stage(&mut self.bridges[who], seqs);
                    // Sometimes the claim is not sent yet.
                    if !self.dice.one_in(8) {
                        self.claim(who, batch);
                    }
                }
            }
            6..=7 => {
                let most = 1 + self.dice.below(8);
                self.read(who, most);
            }
            8..=9 => {
                let bridge = &mut self.bridges[who];
                let first = bridge.disk.batches.iter().find(|(_, held)| held.decided);
                if let Some(batch) = first.map(|(batch, _)| *batch) {
                    bridge.disk.batches.remove(&batch);
                    bridge.disk.done.insert(batch.0);
                    bridge.disk.closed = bridge.fold.watermarks().clone();
                }
            }
            10 => {
                let bridge = &self.bridges[who];
                let body = Body::Progress(Progress {
                    node_uuid: bridge.disk.uuid,
                    epoch: bridge.epoch,
                    done: bridge.disk.done.clone(),
                });
                self.append(bridge.fold.clone(), body);
            }
            _ => {
                let fold = &self.bridges[who].fold;
                let mut through = fold.closed(SOURCE);
                while fold.owner(SOURCE, through.next()).is_some() {
                    through = through.next();
                }
                let close = Close {
                    incarnation: SOURCE,
                    through,
                    terms: TermsVersion(1),
                    ..Close::default()
                };
                self.append(fold.clone(), Body::Close(close));
            }
        }
    }

    fn run(&mut self, steps: u64) {
        for _ in 0..steps {
            self.step();
        }
    }

    /// The hub loses everything behind a position. Who had read more halts; the others claim again what they hold.
    fn cut(&mut self) {
        let keep = 5 + self.dice.below(self.log.len() as u64 - 4);
        self.log.truncate(keep as usize);
        for who in 0..NODES {
            if self.bridges[who].fold.position().0 > keep {
                self.bridges[who].halted = true;
                continue;
            }
            let staged: Vec<BatchNo> = self.bridges[who].staged.keys().copied().collect();
            for batch in staged {
                self.claim(who, batch);
            }
        }
    }

    fn survivors(&self, with_ledger: bool) -> Survivors {
        let mut memories = Vec::new();
        if with_ledger {
            let mut fold = Fold::new();
            for (at, (subject, bytes)) in (1..).zip(&self.log) {
                fold.apply(LedgerSeq(at), subject, bytes).unwrap();
            }
            memories.push(Memory { of: None, fold });
        }
        memories.extend(
            self.bridges
                .iter()
                .filter(|bridge| !bridge.restarted)
                .map(|bridge| Memory {
                    of: Some(bridge.disk.uuid),
                    fold: bridge.fold.clone(),
                }),
        );
        Survivors {
            memories,
            disks: self.bridges.iter().map(|bridge| bridge.disk.clone()).collect(),
            configured: terms(0),
            ends: BTreeMap::from([(SOURCE, StreamSeq(self.end))]),
            taken: LedgerSeq(0),
        }
    }

    /// Loads the merged state on every node and lets the hub deliver everything again.
    fn go_on(&mut self, merged: &Merged) {
        let mut assembler = Assembler::default();
        for record in checkpoint::write(&merged.fold).unwrap() {
            if let Body::Checkpoint(part) = record.body {
                assembler.add(part);
            }
        }
        let mut fold = assembler.best().unwrap().load().unwrap();
        assert_eq!(fold.encode(), merged.fold.encode());
        invariants::check_fold(&fold).unwrap();
        let mut at = merged.first;
        let mut put = |fold: &mut Fold, body: Body| {
            let record = Record {
                witness: fold.witness(),
                body,
            };
            let folded = fold.apply(at, &record.subject(), &record.encode()).unwrap();
            invariants::check_fold(fold).unwrap();
            at = at.next();
            folded
        };
        let genesis = Genesis {
            rules: 1,
            features: BTreeSet::new(),
        };
        put(&mut fold, Body::Genesis(genesis));
        let version = merged.fold.terms().version.0 + 1;
        put(&mut fold, Body::Terms(terms(version)));
        for who in 0..NODES {
            let own: Vec<_> = (merged.fold.claims().iter())
                .filter(|(key, _)| key.node == self.bridges[who].disk.uuid)
                .map(|(key, entry)| (key.batch, entry.won()))
                .collect();
            for (batch, won) in own {
                match self.bridges[who].disk.batches.get(&batch) {
                    Some(held) if held.decided => {
                        assert_eq!(held.seqs, won, "the owner would halt: batch {batch}");
                    }
                    Some(_) => self.decide(who, batch, won),
                    None => assert!(
                        self.bridges[who].disk.done.contains(batch.0),
                        "it would be fenced"
                    ),
                }
            }
            let bridge = &mut self.bridges[who];
            let entry = &merged.fold.nodes()[&bridge.disk.uuid];
            assert!(bridge.disk.done.is_superset(&entry.done), "it would be fenced");
            for (batch, held) in &bridge.disk.batches {
                let key = ClaimKey::new(bridge.disk.uuid, batch.0);
                assert!(
                    !held.decided || merged.fold.claims().contains_key(&key),
                    "what is published must stand in the ledger"
                );
            }
            bridge.epoch = put(&mut fold, Body::Epoch(epoch_of(bridge.disk.uuid))).epoch_at(&fold, bridge);
        }
        // Batches that wait are claimed again, and then everything is delivered once more, to anybody.
        for seq in 1..=self.end {
            let who = self.dice.below(NODES as u64) as usize;
            stage(&mut self.bridges[who], SeqSet::range(seq, seq));
        }
        for who in 0..NODES {
            let staged: Vec<BatchNo> = self.bridges[who].staged.keys().copied().collect();
            for batch in staged {
                let bridge = &self.bridges[who];
                let claim = claim_of(bridge, batch, TermsVersion(version), bridge.epoch);
                if let Folded::Claim { won, .. } = put(&mut fold, Body::Claim(claim)) {
                    self.decide(who, batch, won);
                } else {
                    panic!("a claim of the new life is not valid");
                }
            }
        }
    }
}

trait EpochAt {
    fn epoch_at(self, fold: &Fold, bridge: &Bridge) -> LedgerSeq;
}

impl EpochAt for Folded {
    fn epoch_at(self, fold: &Fold, bridge: &Bridge) -> LedgerSeq {
        fold.nodes()[&bridge.disk.uuid].epoch
    }
}

fn epoch_of(uuid: NodeUuid) -> EpochRecord {
    EpochRecord {
        node_uuid: uuid,
        node: format!("n{uuid}"),
        nonce: Nonce(1),
        hosts: BTreeSet::from(["x".to_owned()]),
        state: NodeState::Active,
    }
}

fn stage(bridge: &mut Bridge, seqs: SeqSet) -> BatchNo {
    let batch = BatchNo(bridge.next);
    bridge.next += 1;
    bridge.staged.insert(batch, seqs.clone());
    let held = HeldBatch {
        incarnation: SOURCE,
        seqs,
        published_ns: TIMES,
        ..HeldBatch::default()
    };
    bridge.disk.batches.insert(batch, held);
    batch
}

fn claim_of(bridge: &Bridge, batch: BatchNo, terms: TermsVersion, epoch: LedgerSeq) -> Claim {
    let seqs = bridge.staged[&batch].clone();
    Claim {
        node_uuid: bridge.disk.uuid,
        epoch,
        batch,
        attempt: Attempt(1),
        content_hash: content_hash(SOURCE, &seqs, ClaimKind::Normal, TIMES),
        incarnation: SOURCE,
        seqs,
        terms,
        kind: ClaimKind::Normal,
        published_ns: TIMES,
    }
}

/// Messages that the findings name as perhaps made available twice.
fn listed(findings: &[Finding]) -> SeqSet {
    let mut all = SeqSet::new();
    for finding in findings {
        match finding {
            Finding::Duplicate { seqs, .. }
            | Finding::ClosedElsewhere { seqs, .. }
            | Finding::Disputed { seqs, .. }
            | Finding::Split { seqs, .. } => all.union(seqs),
            Finding::Finished { among, .. } => among.iter().for_each(|(_, seqs)| all.union(seqs)),
            Finding::Missing { .. }
            | Finding::NotAsked { .. }
            | Finding::TermsDiffer { .. }
            | Finding::TermsLost { .. } => panic!("{finding}"),
        }
    }
    all
}

/// Nothing is lost, and what was available before does not come again without being listed.
fn judge(cluster: &Cluster, before: &BTreeMap<u64, Vec<usize>>, merged: &Merged) {
    let allowed = listed(&merged.findings);
    let count = |of: &BTreeMap<u64, Vec<usize>>, seq: u64| of.get(&seq).map_or(0, Vec::len);
    for seq in 1..=cluster.end {
        let (then, now) = (count(before, seq), count(&cluster.delivered, seq));
        assert!(now > 0, "message {seq} is lost: {:?}", merged.findings);
        assert!(
            now == then.max(1) || allowed.contains(seq),
            "message {seq} comes again, {then} and {now} times, and is not listed: {:?}",
            merged.findings
        );
    }
}

fn owners(fold: &Fold, end: u64) -> Vec<Option<ClaimKey>> {
    (1..=end).map(|seq| fold.owner(SOURCE, StreamSeq(seq))).collect()
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 1_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    /// Goal: a repair of what is not damaged changes nothing but positions and takes over what disks have finished meanwhile.
    #[test]
    fn of_an_undamaged_ledger(seed in any::<u64>(), steps in 0_u64..150) {
        let mut cluster = Cluster::new(seed);
        cluster.run(steps);
        let survivors = cluster.survivors(true);
        let merged = merge(&survivors);
        prop_assert_eq!(&merged.findings, &Vec::new());
        let before = &survivors.memories[0].fold;
        prop_assert_eq!(merged.fold.watermarks(), before.watermarks());
        prop_assert_eq!(merged.fold.terms(), before.terms());
        prop_assert_eq!(owners(&merged.fold, cluster.end), owners(before, cluster.end));
        for (key, entry) in before.claims() {
            let after = merged.fold.claims().get(key);
            let done = merged.fold.nodes()[&key.node].done.contains(key.batch.0);
            prop_assert!(after == Some(entry) || (done && after.is_none()));
        }
        prop_assert!(merged.fold.claims().keys().all(|key| before.claims().contains_key(key)));
        // Once more, from its own result: the same state.
        let again = merge(&Survivors { memories: vec![Memory { of: None, fold: merged.fold.clone() }], ..survivors });
        prop_assert_eq!(again.fold.claims(), merged.fold.claims());
        prop_assert!(again.first > merged.first);
        let before = cluster.delivered.clone();
        cluster.go_on(&merged);
        judge(&cluster, &before, &merged);
    }

    /// Goal: with every fold at hand nothing is in doubt but what two nodes published in two histories.
    #[test]
    fn of_a_cut_ledger_with_every_fold(seed in any::<u64>(), before in 10_u64..150, after in 0_u64..80, lost in any::<bool>()) {
        let mut cluster = Cluster::new(seed);
        cluster.run(before);
        cluster.cut();
        cluster.run(after);
        let twice: SeqSet = cluster.delivered.iter().filter(|(_, by)| by.len() > 1).map(|(seq, _)| *seq).collect();
        let merged = merge(&cluster.survivors(!lost));
        for finding in &merged.findings {
            prop_assert!(!matches!(finding, Finding::Finished { .. }), "{finding}");
            // What a finished and forgotten batch had won is not known exactly; what is published is.
            if let Finding::Duplicate { seqs, one, other, .. } = finding {
                let done = |of: &(String, BatchNo)| {
                    let disk = cluster.bridges.iter().map(|bridge| &bridge.disk).find(|disk| disk.name == of.0);
                    disk.is_some_and(|disk| disk.done.contains(of.1.0))
                };
                prop_assert!(twice.is_superset(seqs) || done(one) || done(other), "{finding}");
            }
        }
        prop_assert!(
            listed(&merged.findings).is_superset(&twice),
            "{twice:?} came twice, listed are {:?}", merged.findings
        );
        let before = cluster.delivered.clone();
        cluster.go_on(&merged);
        judge(&cluster, &before, &merged);
    }

    /// Goal: without the memory of restarted bridges, or without any, what they had finished may come again, and is listed.
    #[test]
    fn of_a_cut_ledger_after_restarts(seed in any::<u64>(), before in 10_u64..150, after in 0_u64..80, lost in any::<bool>(), down in 1_u8..8) {
        let mut cluster = Cluster::new(seed);
        cluster.run(before);
        cluster.cut();
        cluster.run(after);
        for who in 0..NODES {
            cluster.bridges[who].restarted = down & (1 << who) != 0;
        }
        let merged = merge(&cluster.survivors(!lost));
        let before = cluster.delivered.clone();
        cluster.go_on(&merged);
        judge(&cluster, &before, &merged);
    }
}
