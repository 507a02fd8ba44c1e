//! Goal: space comes back, and what must outlive its segment does. Method: small segments, files counted in the directory.

use crate::support::{QUOTA, append, body, crash, eventually, ids, open, put, release, write};
use fanin_store::{Store, limits};
use std::path::Path;
use tempfile::TempDir;

const SEGMENT: u64 = 16 * 1024;

fn files(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir)
        .unwrap()
        .map(|f| f.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".log")).count()
}

#[tokio::test]
async fn segments_go_in_any_order() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path(), SEGMENT);
    for id in 0..40 {
        write(&*log, vec![append(id, 4000)]).await;
    }
    let before = files(dir.path());
    assert!(before >= 10);
    // Every other key first: nothing goes. Then the rest of the middle: four segments go, the releases may have begun another.
    for id in (10..30).step_by(2).chain((11..30).step_by(2)) {
        write(&*log, vec![release(id)]).await;
    }
    eventually("the middle goes", || files(dir.path()) <= before - 3);
    assert_eq!(log.usage().segments as usize, files(dir.path()));
    let copy = crash(dir.path());
    let (reopened, recovered) = open(copy.path(), SEGMENT);
    assert_eq!(ids(&recovered), (0..10).chain(30..40).collect::<Vec<_>>());
    for record in &recovered.records {
        assert_eq!(reopened.read_body(record.at).unwrap(), body(record.key.id, 4000));
    }
    for id in (0..10).chain(30..40) {
        write(&*log, vec![release(id)]).await;
    }
    eventually("all but the active segment goes", || files(dir.path()) == 1);
    eventually("usage follows", || log.usage().bytes < 2 * SEGMENT);
}

/// A release lies in a later segment than its record. When that later segment goes first, the release must not go with it.
#[tokio::test]
async fn a_release_outlives_its_segment() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path(), SEGMENT);
    // Key 1 keeps the first segment alive. Key 2 has records in the first and a later one.
    write(&*log, vec![append(1, 100), append(2, 100)]).await;
    for id in 10..20 {
        write(&*log, vec![append(id, 4000)]).await;
    }
    write(&*log, vec![append(2, 100), release(2)]).await;
    for id in 20..40 {
        write(&*log, vec![append(id, 4000)]).await;
    }
    for id in 10..40 {
        write(&*log, vec![release(id)]).await;
    }
    eventually("only the first and the active segment stay", || {
        files(dir.path()) == 2
    });
    let copy = crash(dir.path());
    let (log, recovered) = open(copy.path(), SEGMENT);
    assert_eq!(ids(&recovered), [1]);
    log.close();
    let (_log, recovered) = open(copy.path(), SEGMENT);
    assert_eq!(ids(&recovered), [1], "and stays released through further starts");
}

#[tokio::test]
async fn restarts_do_not_pile_up_segments() {
    let dir = TempDir::new().unwrap();
    for round in 0..20 {
        let (log, recovered) = open(dir.path(), SEGMENT);
        assert_eq!(recovered.values.len(), usize::from(round > 0));
        write(&*log, vec![put("round", &round.to_string())]).await;
        assert!(files(dir.path()) <= 2);
    }
    let (_log, recovered) = open(dir.path(), SEGMENT);
    assert_eq!(recovered.values["round"], "19");
    assert!(files(dir.path()) <= 2);
}

#[tokio::test]
async fn a_commit_may_be_larger_than_a_segment() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path(), limits::SEGMENT_BYTES_MIN);
    write(&*log, vec![append(1, 100)]).await;
    let large = write(&*log, vec![append(2, 300_000), append(3, 50)]).await;
    write(&*log, vec![append(4, 100)]).await;
    assert_eq!(log.read_body(large[0]).unwrap(), body(2, 300_000));
    let copy = crash(dir.path());
    let (log, recovered) = open(copy.path(), limits::SEGMENT_BYTES_MIN);
    assert_eq!(ids(&recovered), [1, 2, 3, 4]);
    assert_eq!(log.read_body(recovered.records[1].at).unwrap(), body(2, 300_000));
}

#[tokio::test]
async fn a_log_of_values_alone_stays_small() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open(dir.path(), limits::SEGMENT_BYTES_MIN);
    for round in 0..2000 {
        write(&*log, vec![put("cursor", &format!("{round:0100}"))]).await;
    }
    eventually("old segments go", || files(dir.path()) == 1);
    assert!(log.usage().bytes < QUOTA / 100);
    let copy = crash(dir.path());
    let (_log, recovered) = open(copy.path(), limits::SEGMENT_BYTES_MIN);
    assert_eq!(recovered.values["cursor"], format!("{:0100}", 1999));
}
