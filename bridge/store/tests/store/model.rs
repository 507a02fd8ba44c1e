//! Goal: whatever is committed, released and reopened, the log holds exactly that. Method: random histories against a plain model,
//! with segments so small that they turn over all the time.

use crate::support::{TestFaults, body, crash, key, open, options};
use bytes::Bytes;
use fanin_store::{Class, Key, Op, Recovered, SegmentLog, Store, limits};
use proptest::prelude::*;
use std::{collections::BTreeMap, path::Path, sync::Arc};
use tempfile::TempDir;

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Op>),
    Crash,
    Close,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    values: BTreeMap<String, Bytes>,
    records: Vec<(Key, u8, Bytes, Bytes)>,
}

impl Model {
    fn apply(&mut self, ops: &[Op]) {
        for op in ops {
            match op.clone() {
                Op::Append {
                    key,
                    kind,
                    head,
                    body,
                } => {
                    self.records.push((key, kind, head, body.concat().into()));
                }
                Op::Release { key } => self.records.retain(|r| r.0 != key),
                Op::Put { name, value } => {
                    self.values.insert(name, value);
                }
                Op::Delete { name } => {
                    self.values.remove(&name);
                }
            }
        }
    }

    fn of(recovered: &Recovered, log: &SegmentLog) -> Self {
        let record =
            |r: &fanin_store::RecoveredRecord| (r.key, r.kind, r.head.clone(), log.read_body(r.at).unwrap());
        assert!(recovered.damaged.is_empty(), "{:?}", recovered.damaged);
        Self {
            values: recovered.values.clone(),
            records: recovered.records.iter().map(record).collect(),
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    let id = 0..8_u64;
    let name = prop::sample::select(vec!["a", "b", "cursor/orders/billing"]);
    prop_oneof![
        4 => (id.clone(), any::<u8>(), 0..40_usize, 0..1500_usize).prop_map(|(id, kind, head, len)| Op::Append {
            key: key(id),
            kind,
            head: body(u64::from(kind), head),
            body: vec![body(id, len / 2), body(id + 1, len - len / 2)],
        }),
        3 => id.prop_map(|id| Op::Release { key: key(id) }),
        2 => (name.clone(), 0..60_usize).prop_map(|(name, len)| Op::Put {
            name: name.into(),
            value: body(len as u64, len),
        }),
        1 => name.prop_map(|name| Op::Delete { name: name.into() }),
    ]
}

fn commit() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..5)
}

fn reopen(dir: &Path) -> (Arc<SegmentLog>, Recovered) {
    open(dir, limits::SEGMENT_BYTES_MIN)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_holds_what_was_committed(
        steps in prop::collection::vec(
            prop_oneof![8 => commit().prop_map(Step::Commit), 1 => Just(Step::Crash), 1 => Just(Step::Close)],
            1..50,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut dir = TempDir::new().unwrap();
        let (mut log, _) = reopen(dir.path());
        let mut model = Model::default();
        for step in steps.into_iter().chain([Step::Crash]) {
            match step {
                Step::Commit(ops) => {
                    model.apply(&ops);
                    let appended = ops.iter().filter(|op| matches!(op, Op::Append { .. })).count();
                    let at = runtime.block_on(log.commit(Class::Finish, ops)).unwrap();
                    prop_assert_eq!(at.len(), appended);
                    continue;
                }
                Step::Crash => {
                    let copy = crash(dir.path());
                    drop(log);
                    dir = copy;
                }
                Step::Close => log.close(),
            }
            let (opened, recovered) = reopen(dir.path());
            log = opened;
            prop_assert_eq!(Model::of(&recovered, &log), model.clone());
        }
    }

    /// A write that stops anywhere leaves a prefix of the commits: all confirmed ones, each whole or not at all.
    #[test]
    fn a_torn_write_leaves_a_prefix(commits in prop::collection::vec(commit(), 1..20), cut in 0..20_000_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = TempDir::new().unwrap();
        let faults = Arc::new(TestFaults::default());
        let small = options(dir.path(), limits::SEGMENT_BYTES_MIN);
        let (log, _) = SegmentLog::open(fanin_store::Options { faults: Some(faults.clone()), ..small }).unwrap();
        *faults.write_budget.lock() = Some(cut);
        let waiting: Vec<_> = commits.iter().map(|ops| log.commit(Class::Finish, ops.clone())).collect();
        let confirmed = runtime.block_on(async {
            let mut confirmed = 0;
            for (i, commit) in waiting.into_iter().enumerate() {
                if commit.await.is_ok() {
                    assert_eq!(confirmed, i, "commits become durable in order");
                    confirmed += 1;
                }
            }
            confirmed
        });
        let copy = crash(dir.path());
        let (log, recovered) = reopen(copy.path());
        let found = Model::of(&recovered, &log);
        let mut model = Model::default();
        let mut fits = confirmed == 0 && found == model;
        for (i, ops) in commits.iter().enumerate() {
            model.apply(ops);
            fits |= i + 1 >= confirmed && found == model;
        }
        prop_assert!(fits, "not a prefix with the {} confirmed commits", confirmed);
    }
}
