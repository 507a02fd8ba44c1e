//! One face for all candidates: commit rows durably, read a row by its number.

use bytes::Bytes;
use fanin_store::{Class, Key, Location, Op, Options, SegmentLog, Store};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use parking_lot::Mutex;
use protobuf::well_known_types::BytesValue;
use raft_engine::{Engine, LogBatch, MessageExt, ReadableSize};
use redb::{ReadableDatabase, TableDefinition};
use rusqlite::{Connection, OptionalExtension};
use std::{collections::BTreeMap, error::Error, path::Path, sync::Arc};

pub type Res<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// A candidate. Rows are numbered from 1, without gaps.
pub trait Log: Send + Sync {
    /// Returns when the rows are durable.
    fn commit(&self, first: u64, rows: Vec<Vec<u8>>) -> Res<()>;
    /// `None` when the row is not there.
    fn read(&self, row: u64) -> Res<Option<Vec<u8>>>;
    /// What opening said about damage.
    fn notes(&self) -> String {
        String::new()
    }
}

pub const NAMES: [&str; 5] = ["segment-log", "raft-engine", "fjall", "redb", "sqlite"];

pub fn open(name: &str, dir: &Path) -> Res<Arc<dyn Log>> {
    std::fs::create_dir_all(dir)?;
    Ok(match name {
        "segment-log" => Arc::new(Segments::open(dir)?),
        "raft-engine" => Arc::new(Raft::open(dir)?),
        "fjall" => Arc::new(Fjall::open(dir)?),
        "redb" => Arc::new(Redb(redb::Database::create(dir.join("redb"))?)),
        "sqlite" => Arc::new(Sqlite::open(dir)?),
        _ => return Err(format!("no candidate {name}; one of {NAMES:?}").into()),
    })
}

struct Segments {
    log: Arc<SegmentLog>,
    at: Mutex<BTreeMap<u64, Location>>,
    notes: String,
    runtime: tokio::runtime::Runtime,
}

impl Segments {
    fn open(dir: &Path) -> Res<Self> {
        let (log, recovered) = SegmentLog::open(Options::new(dir, 64 << 30))?;
        let at = recovered.records.iter().map(|r| (r.key.id, r.at)).collect();
        let notes = recovered
            .damaged
            .iter()
            .map(|d| {
                format!(
                    "open reports {:?} in segment {} at {}: {}",
                    d.key, d.segment, d.position, d.what
                )
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        Ok(Self {
            log,
            at: Mutex::new(at),
            notes,
            runtime,
        })
    }
}

impl Log for Segments {
    fn commit(&self, first: u64, rows: Vec<Vec<u8>>) -> Res<()> {
        let append = |(i, row)| Op::Append {
            key: Key {
                space: 0,
                id: first + i as u64,
            },
            kind: 0,
            head: Bytes::new(),
            body: vec![Bytes::from(row)],
        };
        let ops = rows.into_iter().enumerate().map(append).collect();
        let at = self.runtime.block_on(self.log.commit(Class::Intake, ops))?;
        self.at.lock().extend((first..).zip(at));
        Ok(())
    }

    fn read(&self, row: u64) -> Res<Option<Vec<u8>>> {
        let at = self.at.lock().get(&row).copied();
        Ok(at.map(|at| self.log.read_body(at)).transpose()?.map(Vec::from))
    }

    fn notes(&self) -> String {
        self.notes.clone()
    }
}

struct Raft(Engine);
struct Row;

impl MessageExt for Row {
    type Entry = BytesValue;
    fn index(entry: &BytesValue) -> u64 {
        crate::number_of(entry.get_value())
    }
}

impl Raft {
    fn open(dir: &Path) -> Res<Self> {
        let dir = dir.to_str().ok_or("the directory's name is not UTF-8")?.into();
        let target_file_size = ReadableSize::mb(64);
        let batch_compression_threshold = ReadableSize(0);
        let config = raft_engine::Config {
            dir,
            target_file_size,
            batch_compression_threshold,
            ..Default::default()
        };
        Ok(Self(Engine::open(config)?))
    }
}

impl Log for Raft {
    fn commit(&self, _first: u64, rows: Vec<Vec<u8>>) -> Res<()> {
        let mut batch = LogBatch::default();
        let entry = |row| {
            let mut entry = BytesValue::new();
            entry.set_value(row);
            entry
        };
        batch.add_entries::<Row>(1, &rows.into_iter().map(entry).collect::<Vec<_>>())?;
        self.0.write(&mut batch, true)?;
        Ok(())
    }

    fn read(&self, row: u64) -> Res<Option<Vec<u8>>> {
        Ok(self
            .0
            .get_entry::<Row>(1, row)?
            .map(|mut entry| entry.take_value()))
    }
}

struct Fjall(Database, Keyspace);

impl Fjall {
    fn open(dir: &Path) -> Res<Self> {
        let db = Database::builder(dir).open()?;
        let separate = Some(KvSeparationOptions::default());
        let rows = db.keyspace("rows", || {
            KeyspaceCreateOptions::default().with_kv_separation(separate)
        })?;
        Ok(Self(db, rows))
    }
}

impl Log for Fjall {
    fn commit(&self, first: u64, rows: Vec<Vec<u8>>) -> Res<()> {
        let mut batch = self.0.batch().durability(Some(PersistMode::SyncData));
        for (number, row) in (first..).zip(rows) {
            batch.insert(&self.1, number.to_be_bytes(), row);
        }
        Ok(batch.commit()?)
    }

    fn read(&self, row: u64) -> Res<Option<Vec<u8>>> {
        Ok(self.1.get(row.to_be_bytes())?.map(|value| value.to_vec()))
    }
}

struct Redb(redb::Database);

const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");

impl Log for Redb {
    fn commit(&self, first: u64, rows: Vec<Vec<u8>>) -> Res<()> {
        let write = self.0.begin_write()?;
        {
            let mut table = write.open_table(ROWS)?;
            for (number, row) in (first..).zip(rows) {
                table.insert(number, &row[..])?;
            }
        }
        Ok(write.commit()?)
    }

    fn read(&self, row: u64) -> Res<Option<Vec<u8>>> {
        Ok(self
            .0
            .begin_read()?
            .open_table(ROWS)?
            .get(row)?
            .map(|value| value.value().to_vec()))
    }
}

struct Sqlite {
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
}

impl Sqlite {
    fn open(dir: &Path) -> Res<Self> {
        let connect = || -> Res<Mutex<Connection>> {
            let connection = Connection::open(dir.join("sqlite"))?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            Ok(Mutex::new(connection))
        };
        let writer = connect()?;
        let create = "CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY, body BLOB)";
        writer.lock().execute(create, [])?;
        Ok(Self {
            writer,
            reader: connect()?,
        })
    }
}

impl Log for Sqlite {
    fn commit(&self, first: u64, rows: Vec<Vec<u8>>) -> Res<()> {
        let mut writer = self.writer.lock();
        let write = writer.transaction()?;
        {
            let mut insert = write.prepare_cached("INSERT INTO rows VALUES (?, ?)")?;
            for (number, row) in (first as i64..).zip(rows) {
                insert.execute((number, row))?;
            }
        }
        Ok(write.commit()?)
    }

    fn read(&self, row: u64) -> Res<Option<Vec<u8>>> {
        let reader = self.reader.lock();
        let mut select = reader.prepare_cached("SELECT body FROM rows WHERE number = ?")?;
        Ok(select.query_row([row as i64], |r| r.get(0)).optional()?)
    }
}
