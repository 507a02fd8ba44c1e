//! The steps a test is written in.

use fanin_core::batch::BatchState;
use fanin_core::epoch::{Conflict, on_conflict};
use fanin_core::ids::{BatchNo, Epoch, LedgerSeq, StreamSeq};
use fanin_core::input::{FetchedMessage, Input};
use fanin_core::node::{Identity, Phase};
use fanin_core::record::{Body as RecordBody, ClaimKind, EpochRecord, NodeState, Record};
use fanin_core::recovery::recover;

use super::disk::Write;
use super::truth::Publication;
use super::{Flight, INC, Source, World};
use fanin_core::fold::ClaimKey;

impl World {
    /// The EPOCH record of a new life; its nonce is on the disk before it is sent.
    pub(crate) fn intend(&mut self, who: usize) -> EpochRecord {
        let nonce = self.fresh_nonce();
        let bridge = &mut self.bridges[who];
        bridge.disk.image.intents.insert(nonce);
        EpochRecord {
            node_uuid: bridge.uuid,
            node: bridge.name.clone(),
            nonce,
            hosts: bridge.hosts.clone(),
            state: NodeState::Active,
        }
    }

    /// Appends an EPOCH as P8 says, adopting what an own, interrupted start left behind.
    pub(crate) fn append_epoch(&mut self, who: usize) -> Result<(EpochRecord, Epoch), Conflict> {
        let mut expect = self.bridges[who].disk.image.epoch;
        loop {
            let epoch = self.intend(who);
            let sent = Record {
                witness: self.bridges[who].disk.image.witness,
                body: RecordBody::Epoch(epoch.clone()),
            };
            let subject = sent.subject();
            if let Some(at) = self.land_bytes(&subject, &sent.encode(), Some(expect)) {
                return Ok((epoch, at));
            }
            let at = self.ledger.last_on(&subject);
            let bytes = &self
                .ledger
                .entries
                .get(&at)
                .expect("P7 keeps the last record of this subject")
                .bytes;
            let RecordBody::Epoch(last) = Record::decode(bytes).expect("an EPOCH").body else {
                panic!("another record on an epoch subject");
            };
            let image = &self.bridges[who].disk.image;
            let fresh = image.epoch == LedgerSeq(0);
            match on_conflict(&last, at, self.bridges[who].uuid, &image.intents, fresh) {
                Conflict::Adopt(at) => {
                    self.bridges[who].disk.image.epoch = at;
                    expect = at;
                }
                Conflict::Succeed(at) => expect = at,
                refused @ Conflict::Refuse { .. } => return Err(refused),
            }
        }
    }

    /// Starts a process: EPOCH, recovery, checkpoint, tail opened. Nothing of the tail is read yet.
    pub(crate) fn boot(&mut self, who: usize) -> Result<Epoch, Conflict> {
        assert!(!self.is_up(who), "already up");
        let mut disk = self.bridges[who].disk.image.recoverable();
        let (record, epoch) = self.append_epoch(who)?;
        let bridge = &mut self.bridges[who];
        disk.epoch = bridge.disk.image.epoch;
        disk.intents = bridge.disk.image.intents.clone();
        bridge.disk.image.epoch = epoch;
        bridge.disk.image.intents.remove(&record.nonce);
        let identity = Identity {
            uuid: bridge.uuid,
            name: bridge.name.clone(),
            nonce: record.nonce,
            hosts: bridge.hosts.clone(),
            sources: bridge.sources.clone(),
        };
        let freed = bridge.disk.image.done.clone();
        bridge
            .disk
            .image
            .batches
            .retain(|batch, _| !freed.contains(batch.0));
        bridge.node = Some(recover(identity, bridge.policy, disk));
        bridge.life += 1;
        bridge.cursor = None;
        bridge.checked = LedgerSeq(0);
        bridge.astray = false;
        bridge.audits.clear();
        bridge.repairs.clear();
        bridge.purges.clear();
        self.load(who);
        self.step(who, Input::EpochAppended(epoch));
        // The cursors of the applications are on the disk: what they have finished is reported again.
        let acked: Vec<_> = self.bridges[who].disk.image.acked.iter().copied().collect();
        for batch in acked {
            self.step(who, Input::BatchFinished(batch));
        }
        Ok(epoch)
    }

    /// Starts a process and tails to the end.
    pub(crate) fn start(&mut self, who: usize) -> Epoch {
        let epoch = self.boot(who).expect("an epoch");
        self.tail_all(who);
        epoch
    }

    /// The process dies; of its disk's unsynced writes the first `kept` survive.
    pub(crate) fn crash_keeping(&mut self, who: usize, kept: usize) {
        let bridge = &mut self.bridges[who];
        let writes: Vec<_> = bridge.disk.unsynced.drain(..).take(kept).collect();
        bridge.node = None;
        for write in writes {
            self.apply(who, &write);
        }
    }

    /// The hub loses the ledger behind `last`; nodes that read further have no truth any more.
    pub(crate) fn lose_behind(&mut self, last: LedgerSeq) {
        self.ledger.truncate(last);
        self.truth = super::Truth::default();
        for (&at, entry) in &self.ledger.entries.clone() {
            self.truth
                .take(entry.landed, at, &entry.subject, &entry.bytes, &self.source);
        }
        for bridge in &mut self.bridges {
            bridge.astray |= bridge
                .node
                .as_ref()
                .is_some_and(|node| node.fold().position() > last);
            bridge.cursor = bridge.cursor.map(|cursor| cursor.min(last.next()));
        }
    }

    /// The disk of a process that is down loses the body of a batch. Says whether it had one.
    pub(crate) fn damage(&mut self, who: usize, pick: usize) -> bool {
        assert!(!self.is_up(who), "damage is met at a start");
        let batches = &mut self.bridges[who].disk.image.batches;
        let open = batches.values_mut().filter(|kept| !kept.damaged);
        let mut open: Vec<_> = open.collect();
        let count = open.len().max(1);
        open.get_mut(pick % count)
            .map(|kept| kept.damaged = true)
            .is_some()
    }

    /// The process dies; nothing unsynced survives. What it sent is still on its way.
    pub(crate) fn crash(&mut self, who: usize) {
        self.crash_keeping(who, 0);
    }

    /// The checkpoint a node asked for is read now.
    pub(crate) fn load(&mut self, who: usize) {
        let checkpoint = self.ledger.checkpoint();
        self.bridges[who].wants_load = false;
        self.step(who, Input::Checkpoint(checkpoint));
    }

    /// Messages arrive from the shared consumer: any, at any time.
    ///
    /// What comes behind an unreadable one is lost with the connection.
    pub(crate) fn fetch(&mut self, who: usize, seqs: &[u64]) {
        let source = &mut self.source;
        source.delivered = seqs.iter().copied().fold(source.delivered, u64::max);
        let poison = seqs.iter().position(|seq| source.poison.contains(seq));
        let arrived = &seqs[..poison.unwrap_or(seqs.len())];
        if !arrived.is_empty() {
            self.fetch_as(who, arrived, ClaimKind::Normal);
        }
    }

    pub(crate) fn fetch_as(&mut self, who: usize, seqs: &[u64], kind: ClaimKind) {
        self.tickets += 1;
        let message = |&seq: &u64| FetchedMessage {
            seq: StreamSeq(seq),
            published_ns: Source::published_ns(seq),
        };
        let messages = seqs.iter().map(message).collect();
        self.step(
            who,
            Input::Fetched {
                ticket: self.tickets,
                incarnation: INC,
                kind,
                messages,
            },
        );
    }

    fn apply(&mut self, who: usize, write: &Write) -> Option<Input> {
        self.bridges[who].disk.apply(write);
        match write {
            Write::Stage(batch, _) => Some(Input::Staged(*batch)),
            Write::Resolve(batch, resolution) => {
                let key = ClaimKey {
                    node: self.bridges[who].uuid,
                    batch: *batch,
                };
                let terms = &self.truth.terms[&resolution.terms];
                for (n, seq) in resolution.won.iter().enumerate() {
                    for app in terms.served(resolution.terms) {
                        let offset = resolution.base.plus(n as u64);
                        let publications = self.published.entry((app.to_owned(), seq)).or_default();
                        publications.push(Publication {
                            body: who,
                            key,
                            offset,
                        });
                        assert!(
                            publications.len() == 1 || self.allow_duplicates,
                            "DUP: message {seq} is visible to {app} at {publications:?}"
                        );
                    }
                }
                Some(Input::Resolved(*batch))
            }
            Write::Done(_) => Some(Input::DonePersisted),
            Write::Release(_) => None,
        }
    }

    /// The disk syncs its first `count` writes.
    pub(crate) fn sync_some(&mut self, who: usize, count: usize) {
        let count = count.min(self.bridges[who].disk.unsynced.len());
        let writes: Vec<_> = self.bridges[who].disk.unsynced.drain(..count).collect();
        let inputs: Vec<_> = writes.iter().filter_map(|write| self.apply(who, write)).collect();
        for input in inputs {
            self.step(who, input);
        }
    }

    /// The disk syncs everything.
    pub(crate) fn sync(&mut self, who: usize) {
        while !self.bridges[who].disk.unsynced.is_empty() {
            self.sync_some(who, usize::MAX);
        }
    }

    /// Messages staged durably: their claim is on its way.
    pub(crate) fn stage(&mut self, who: usize, seqs: &[u64]) {
        self.fetch(who, seqs);
        self.sync(who);
    }

    fn told(&mut self, flight: &Flight, input: Input) {
        if self.bridges[flight.from].life == flight.life {
            self.step(flight.from, input);
        }
    }

    /// The flight at an index lands, and its sender hears of it. Returns its position, `None` when its compare-and-set failed.
    pub(crate) fn land_at(&mut self, index: usize) -> Option<LedgerSeq> {
        let flight = self.flights.remove(index);
        let at = self.store(&flight);
        let read = flight.record.witness.position;
        let told = at.map_or(Input::AppendFailed, |at| Input::AppendConfirmed { at, read });
        self.told(&flight, told);
        at
    }

    fn store(&mut self, flight: &Flight) -> Option<LedgerSeq> {
        let (subject, bytes) = (flight.record.subject(), flight.record.encode());
        self.land_bytes(&subject, &bytes, flight.expect)
    }

    /// The flight at an index is lost, or its outcome is: the sender hears of a failure.
    pub(crate) fn fail_at(&mut self, index: usize, landed: bool) {
        let flight = self.flights.remove(index);
        if landed {
            self.store(&flight);
        }
        let input = flight
            .claim
            .map_or(Input::AppendFailed, |(batch, _)| Input::ClaimUnconfirmed(batch));
        self.told(&flight, input);
    }

    fn first_of(&self, who: usize) -> Option<usize> {
        self.flights.iter().position(|flight| flight.from == who)
    }

    /// The oldest append of a node lands.
    pub(crate) fn land(&mut self, who: usize) -> LedgerSeq {
        let index = self.first_of(who).expect("an append on its way");
        self.land_at(index).expect("compare-and-set")
    }

    pub(crate) fn land_all(&mut self, who: usize) {
        while let Some(index) = self.first_of(who) {
            self.land_at(index);
        }
    }

    /// Takes a node's flights away, to land them by hand later.
    pub(crate) fn hold(&mut self, who: usize) -> Vec<Flight> {
        let (held, rest) = self.flights.drain(..).partition(|flight| flight.from == who);
        self.flights = rest;
        held
    }

    /// A held flight is flushed late, or once more.
    pub(crate) fn flush(&mut self, flight: &Flight) -> Option<LedgerSeq> {
        self.flights.insert(0, flight.clone());
        self.land_at(0)
    }

    /// The tail delivers one record. Says whether there was one.
    pub(crate) fn tail(&mut self, who: usize) -> bool {
        let Some(cursor) = self.bridges[who].cursor.filter(|_| self.is_up(who)) else {
            return false;
        };
        let Some((&position, entry)) = self.ledger.entries.range(cursor..).next() else {
            return false;
        };
        let (subject, bytes) = (entry.subject.clone(), entry.bytes.clone());
        self.bridges[who].cursor = Some(position.next());
        self.step(
            who,
            Input::Record {
                position,
                subject,
                bytes,
            },
        );
        true
    }

    pub(crate) fn tail_all(&mut self, who: usize) {
        while self.tail(who) {}
    }

    /// The tail delivers up to and including `position`.
    pub(crate) fn tail_to(&mut self, who: usize, position: LedgerSeq) {
        while self.bridges[who].cursor.is_some_and(|cursor| cursor <= position) && self.tail(who) {}
    }

    /// Everything a healthy node does until it waits for something new: syncs, appends, tail.
    pub(crate) fn run(&mut self, who: usize) {
        loop {
            self.sync(who);
            let landed = self.first_of(who).is_some();
            self.land_all(who);
            let tailed = self.tail(who);
            self.tail_all(who);
            if !landed && !tailed && self.bridges[who].disk.unsynced.is_empty() {
                return;
            }
        }
    }

    pub(crate) fn run_all(&mut self) {
        for _ in 0..2 {
            for who in 0..self.bridges.len() {
                self.run(who);
            }
        }
    }

    pub(crate) fn advance(&mut self, ms: u64) {
        self.now = self.now.after(ms);
    }

    pub(crate) fn tick(&mut self, who: usize) {
        self.step(who, Input::Tick);
    }

    /// Time passes, and the node looks at what is due.
    pub(crate) fn later(&mut self, who: usize, ms: u64) {
        self.advance(ms);
        self.tick(who);
    }

    /// The hub's floor is read.
    pub(crate) fn floor(&mut self, who: usize) {
        let floor = self.source.floor(self.truth.fold.terms());
        self.step(
            who,
            Input::Floor {
                incarnation: INC,
                floor,
                delivered: StreamSeq(self.source.delivered),
                pulling: self.bridges[who].pulling,
            },
        );
    }

    /// Every audit asked for is answered by the source's leader.
    pub(crate) fn answer_audits(&mut self, who: usize) {
        while !self.bridges[who].audits.is_empty() {
            let (terms, first) = self.bridges[who].audits.remove(0);
            let next_matching = self
                .truth
                .terms
                .get(&terms)
                .and_then(|terms| self.source.next_matching(terms, first));
            self.step(
                who,
                Input::Audited {
                    incarnation: INC,
                    terms,
                    first,
                    next_matching,
                },
            );
        }
    }

    /// Every message asked for by sequence is fetched.
    pub(crate) fn serve_repairs(&mut self, who: usize) {
        for seq in std::mem::take(&mut self.bridges[who].repairs) {
            if self.source.offers(self.truth.fold.terms(), seq.0) {
                self.fetch_as(who, &[seq.0], ClaimKind::Repair);
            }
        }
    }

    /// Every purge asked for is done.
    pub(crate) fn purge(&mut self, who: usize) {
        for (through, keep) in std::mem::take(&mut self.bridges[who].purges) {
            self.ledger.purge(through, &keep);
        }
    }

    /// Every application of a batch confirms every message of it.
    pub(crate) fn finish(&mut self, who: usize, batch: BatchNo) {
        self.bridges[who].disk.image.acked.insert(batch);
        self.step(who, Input::BatchFinished(batch));
    }

    /// Everything visible on a node is finished.
    pub(crate) fn finish_all(&mut self, who: usize) {
        if !self.is_up(who) || matches!(self.phase(who), Phase::Fenced(_)) {
            return;
        }
        let visible = |state: &BatchState| matches!(state, BatchState::Published { .. });
        let batches: Vec<_> = self
            .node(who)
            .batches()
            .iter()
            .filter(|(_, batch)| visible(&batch.state))
            .map(|(&n, _)| n)
            .collect();
        for batch in batches {
            self.finish(who, batch);
        }
    }

    /// A node's applications finish, it reports, the floor is read, W moves as far as it may, all nodes see it.
    pub(crate) fn close_by(&mut self, who: usize) {
        for _ in 0..4 {
            self.finish_all(who);
            self.run(who);
            self.floor(who);
            self.later(who, 1_100);
            self.answer_audits(who);
            self.serve_repairs(who);
            self.run(who);
        }
    }

    /// A node writes a checkpoint of its present state. Returns the position of the state.
    pub(crate) fn checkpoint_by(&mut self, who: usize) -> LedgerSeq {
        let position = self.node(who).fold().position();
        for part in fanin_core::checkpoint::write(self.node(who).fold()).expect("within the limit") {
            self.put_record(&part);
        }
        position
    }

    /// The purge that a node with rank 0 asks for once it knows a complete checkpoint.
    pub(crate) fn purge_by(&mut self, who: usize) {
        self.tail_all(who);
        self.tick(who);
        assert!(!self.bridges[who].purges.is_empty(), "a purge was due");
        self.purge(who);
    }
}

impl World {
    /// Purges by hand what a checkpoint at `through` covers, keeping what P7 keeps.
    pub(crate) fn purge_through(&mut self, through: LedgerSeq) {
        let fold = &self.truth.fold;
        let mut keep = vec![
            ("gen".to_owned(), fold.genesis_at()),
            ("terms".to_owned(), fold.terms_at()),
        ];
        for node in fold.nodes().values() {
            let subject = fanin_core::record::epoch_subject(&node.name);
            keep.push((subject.clone(), self.ledger.last_on(&subject)));
        }
        self.ledger.purge(through, &keep);
    }

    /// A node that has read everything writes a checkpoint, and all that it covers is purged.
    pub(crate) fn checkpoint_and_purge(&mut self, who: usize) -> LedgerSeq {
        self.tail_all(who);
        let through = self.checkpoint_by(who);
        self.purge_through(through);
        through
    }
}
