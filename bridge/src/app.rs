//! Assembly: from a configuration to a running node and back. Nothing is bound before everything that can be judged from
//! the configuration and the disk has been judged.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanin_config::{Config, Listen, Loaded};
use fanin_hub::port::HubRef;
use fanin_hub::{Connection, HubOptions, Login, Secret, TlsOptions};
use fanin_store::{Class, CommitError, Damage, Op, Options, Recovered, SegmentLog, Store};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::codes::{Code, Refusal};
use crate::identity;
use crate::mapping::MappingOptions;
use crate::mapping::disk::{DiskError, Names, is_of_mapping};
use crate::mapping::driver::DriverError;
use crate::mapping::join::JoinError;
use crate::mapping::source_check::required_word;
use crate::mapping::start::{Mapping, MappingError, MappingHandle};
use crate::running::Running;
use crate::serve::{ServeOptions, Server, StatusSource, TopicHealth, Topics};
use crate::topic::BodyCache;
use crate::volatile::Volatile;

mod error;

pub use error::AppError;

/// How long the start waits for the hub's first verdict, longer than a join waits for JetStream. A hub that does not answer by then does not stop the node: it serves
/// and goes on trying.
const FIRST_VERDICT: Duration = Duration::from_secs(5);

/// Largest share of `memory.tail` kept for batches read back from disk.
const READ_CACHE_SHARE: u64 = 4;

// A configuration that passes validation is one that the local log takes.
const _: () = {
    use fanin_config::limits as config;
    use fanin_store::limits as store;
    assert!(config::SEGMENT_BYTES_MIN >= store::SEGMENT_BYTES_MIN);
    assert!(config::SEGMENT_BYTES_MAX <= store::SEGMENT_BYTES_MAX);
    assert!(config::SEGMENT_BYTES_MIN * config::SEGMENTS_MIN >= store::QUOTA_BYTES_MIN);
    assert!(config::QUOTA_PER_RESERVE == store::QUOTA_PER_RESERVE);
};

/// The operator's word for this start.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// This node's sources replace those in the terms.
    pub accept_terms: bool,
    /// A missing consumer is created again behind the watermark.
    pub recreate_consumer: bool,
    /// The data directory was moved; no copy of it is in use.
    pub accept_moved_data: bool,
    /// Messages that damage took and whose source is gone become dead letters.
    pub accept_loss: bool,
}

/// Runs a node until `shutdown`, or until it must end. `ready` is called once, when the socket serves and every mapping has
/// joined or goes on trying.
///
/// # Errors
/// `AppError`, with its exit code.
pub async fn run<F>(
    loaded: Loaded,
    options: RunOptions,
    shutdown: CancellationToken,
    ready: F,
) -> Result<(), AppError>
where
    F: AsyncFnOnce(Arc<Running>, CancellationToken) -> Result<(), AppError>,
{
    let config = loaded.config;
    let (store, recovered, disk) = open_store(&config).await?;
    let dyn_store: Arc<dyn Store> = store.clone();
    let settled = shutdown.run_until_cancelled(async {
        let moved = options.accept_moved_data;
        let uuid = identity::establish(&config.data_dir, &config.node, &recovered, &*store, moved).await?;
        tracing::info!(node = config.node, uuid = %uuid, records = recovered.records.len(), torn_bytes = recovered.torn_bytes, "local log opened");
        Ok::<_, AppError>((uuid, assign_spaces(&config, &recovered, &store).await?))
    });
    // On a full disk these small writes wait, and so would a stop.
    let Some(settled) = settled.await else {
        return Ok(());
    };
    let (uuid, spaces) = settled?;
    let tail = config.memory.tail.0;
    let cache = Arc::new(BodyCache::new(
        tail - tail / READ_CACHE_SHARE,
        tail / READ_CACHE_SHARE,
    ));
    let mut mappings = Vec::new();
    let mut handles = Vec::new();
    for (name, section) in &config.mappings {
        let mut own = MappingOptions::of(
            &config,
            name,
            section,
            options.accept_terms,
            options.recreate_consumer,
        );
        own.accept_loss = options.accept_loss;
        own.disk = disk;
        let space = spaces.get(name).copied().unwrap_or_default();
        let mapping = Mapping::restore(
            own,
            uuid,
            space,
            &recovered,
            Arc::clone(&dyn_store),
            Arc::clone(&cache),
        )
        .await;
        match mapping {
            Ok(mapping) => {
                handles.push(mapping.handle());
                mappings.push(mapping);
            }
            // The other mappings of the node are not concerned.
            Err(MappingError::Disk(why @ DiskError::Damaged { .. })) => {
                tracing::error!(code = "FAN-4044", mapping = name, reason = %why, "the mapping is held back");
                handles.push(MappingHandle::held(name, &section.topic, &why));
            }
            Err(source) => {
                let mapping = name.clone();
                return Err(AppError::Mapping { mapping, source });
            }
        }
    }
    drop(recovered);

    let hub = Connection::connect(hub_options(&config)).await?;
    let mut pulls = Vec::with_capacity(mappings.len());
    for mapping in &mappings {
        // A message that the client library cannot read ends the connection it comes over, and nothing else.
        let mut options = hub_options(&config);
        options.client_name = format!("{} {}", options.client_name, mapping.handle().name);
        pulls.push(Connection::connect(options).await?);
    }
    let running = Arc::new(Running {
        node: config.node.clone(),
        uuid,
        started: Instant::now(),
        durability: config.hub.durability,
        hub: hub.clone(),
        store: Arc::clone(&store),
        mappings: handles,
        admin: Mutex::new(None),
        deaf: OnceLock::new(),
    });
    let topics = Arc::new(Topics::default());
    for mapping in running.mappings() {
        match &mapping.topic {
            Some(topic) => topics.add(topic.clone()),
            None => topics.hold(
                &mapping.topic_name,
                Refusal::new(Code::Damaged, mapping.view.get().reason),
            ),
        }
    }
    let Listen::Unix(socket) = &config.listen;
    let serve = ServeOptions {
        socket: socket.clone(),
        mode: config.socket_mode.0,
    };
    let server = Server::start(serve, topics, Arc::clone(&running) as Arc<dyn StatusSource>).await?;
    let deaf = server.deaf();
    running.deaf.get_or_init(|| deaf.clone());
    let mut followers = JoinSet::new();
    for mapping in running.mappings() {
        followers.spawn(follow(
            server.health(),
            mapping.topic_name.clone(),
            mapping.view.delivers(),
        ));
    }

    // Ends after the socket has: what applications still settle must reach the disk.
    let stop = CancellationToken::new();
    let quiesce = shutdown.clone();
    let mut loops = JoinSet::new();
    let mut verdicts = Vec::new();
    for (mapping, pulls) in mappings.into_iter().zip(pulls) {
        let name = mapping.handle().name;
        let (verdict_tx, verdict) = oneshot::channel();
        verdicts.push((name.clone(), verdict));
        let (hub, pulls): (HubRef, HubRef) = (Arc::new(hub.clone()), Arc::new(pulls));
        let (quiesce, stop) = (quiesce.clone(), stop.clone());
        loops.spawn(async move { (name, mapping.run(hub, pulls, quiesce, stop, verdict_tx).await) });
    }
    let result = async {
        let verdicts = shutdown.run_until_cancelled(first_verdicts(verdicts, &hub)).await;
        verdicts.unwrap_or(Ok(()))?;
        // A node that is stopping already does not call itself ready.
        if shutdown.is_cancelled() {
            return Ok(());
        }
        ready(Arc::clone(&running), stop.clone()).await?;
        supervise(&mut loops, &deaf, &shutdown).await
    }
    .await;

    quiesce.cancel();
    let grace = config.shutdown_grace.0;
    tracing::info!(
        grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        "stopping"
    );
    server.shutdown(grace).await;
    stop.cancel();
    let ended = tokio::time::timeout(grace, async {
        while let Some(joined) = loops.join_next().await {
            if let Ok((mapping, Err(error))) = joined {
                tracing::warn!(code = "FAN-4005", mapping, %error, "a mapping ended badly");
            }
        }
    });
    if ended.await.is_err() {
        tracing::warn!(
            code = "FAN-4016",
            "not everything ended in time; what is unfinished goes on at the next start"
        );
        loops.abort_all();
    }
    let closing = Arc::clone(&store);
    // The writer thread drains and joins; that blocks.
    let _ = tokio::task::spawn_blocking(move || closing.close()).await;
    result
}

async fn open_store(config: &Config) -> Result<(Arc<SegmentLog>, Recovered, Option<Volatile>), AppError> {
    let dir = config.data_dir.clone();
    let log = dir.join("log");
    tokio::fs::create_dir_all(&log)
        .await
        .map_err(|source| AppError::DataDir {
            dir: dir.clone(),
            source,
        })?;
    let disk = Volatile::of(&log);
    if let Some(refusal) = disk.and_then(|disk| refusal_of(config, disk)) {
        return Err(refusal);
    }
    let options = Options {
        segment_bytes: config.store.segment.0,
        reserve_bytes: Some(config.store.reserve.0),
        faults: crate::failpoint::disk_faults(),
        ..Options::new(log, config.store.quota.0)
    };
    let opened = tokio::task::spawn_blocking(move || SegmentLog::open(options)).await;
    let (store, recovered) = match opened {
        Ok(opened) => opened?,
        Err(_) => return Err(CommitError::Closed.into()),
    };
    if let Some(damage) = recovered.damaged.iter().find(|damage| hits_all(damage)) {
        let what = format!(
            "{} place(s), of which segment {} at byte {} may concern everything: {}",
            recovered.damaged.len(),
            damage.segment,
            damage.position,
            damage.what
        );
        return Err(AppError::Damaged { dir, what });
    }
    Ok((store, recovered, disk))
}

/// The refusal of a data directory in memory, where a mapping requires a delivery: a power loss takes what was won, and no other
/// node may take it then, so that none can be promised. `None` where nothing is required; the log warns.
fn refusal_of(config: &Config, disk: Volatile) -> Option<AppError> {
    let dir = config.data_dir.clone();
    let file_system = disk.name();
    let requiring = config.mappings.iter().find_map(|(name, section)| {
        let required = required_word(section.required_delivery?);
        Some((name.clone(), required))
    });
    let Some((mapping, required)) = requiring else {
        tracing::warn!(
            code = "FAN-4054",
            dir = %dir.display(),
            file_system,
            "the data directory is in memory: a power loss takes what this node has won and its applications have not finished"
        );
        return None;
    };
    Some(AppError::Volatile {
        dir,
        file_system,
        mapping,
        required,
    })
}

/// Whether nobody can tell which mapping a damage concerns, or it concerns the node itself.
fn hits_all(damage: &Damage) -> bool {
    match &damage.value {
        Some(value) => !is_of_mapping(value),
        None => damage.key.is_none(),
    }
}

/// The number of each mapping's space in the log, given once and for ever.
async fn assign_spaces(
    config: &Config,
    recovered: &Recovered,
    store: &SegmentLog,
) -> Result<BTreeMap<String, u32>, CommitError> {
    let number = |value: &Bytes| {
        value
            .as_ref()
            .try_into()
            .map(u32::from_be_bytes)
            .unwrap_or_default()
    };
    let known = recovered.values.iter().filter_map(|(name, value)| {
        name.strip_prefix(&Names::space_of(""))
            .map(|mapping| (mapping.to_owned(), number(value)))
    });
    let mut spaces: BTreeMap<String, u32> = known.collect();
    let mut next = spaces.values().max().map_or(1, |last| last + 1);
    let mut ops = Vec::new();
    for mapping in config.mappings.keys() {
        if !spaces.contains_key(mapping) {
            spaces.insert(mapping.clone(), next);
            ops.push(Op::Put {
                name: Names::space_of(mapping),
                value: Bytes::copy_from_slice(&next.to_be_bytes()),
            });
            next += 1;
        }
    }
    for (mapping, space) in &spaces {
        if !config.mappings.contains_key(mapping) {
            tracing::warn!(
                code = "FAN-4017",
                mapping,
                space,
                "this mapping is not in the configuration any more; its backlog is kept on disk"
            );
        }
    }
    if !ops.is_empty() {
        store.commit(Class::Finish, ops).await?;
    }
    Ok(spaces)
}

/// How to reach the hub that a configuration names. The connection comes up when the hub does.
pub(crate) fn hub_options(config: &Config) -> HubOptions {
    let hub = &config.hub;
    let credentials = &hub.credentials;
    let secret = |value: &Option<fanin_config::Secret>, file: &Option<PathBuf>| match (value, file) {
        (Some(value), _) => Some(Secret::Value(value.expose().to_owned())),
        (None, Some(file)) => Some(Secret::File(file.clone())),
        (None, None) => None,
    };
    let login = if let Some(file) = &credentials.creds_file {
        Login::Creds(file.clone())
    } else if let Some(file) = &credentials.nkey_file {
        Login::Nkey(Secret::File(file.clone()))
    } else if let (Some(user), Some(password)) = (
        &credentials.user,
        secret(&credentials.password, &credentials.password_file),
    ) {
        Login::UserPassword {
            user: user.clone(),
            password,
        }
    } else if let Some(token) = secret(&credentials.token, &credentials.token_file) {
        Login::Token(token)
    } else {
        Login::Anonymous
    };
    HubOptions {
        client_name: hub
            .name
            .clone()
            .unwrap_or_else(|| format!("fanin {}", config.node)),
        login,
        tls: TlsOptions {
            required: hub.tls.required,
            first: false,
            ca: hub.tls.ca.clone(),
            cert: hub.tls.cert.clone(),
            key: hub.tls.key.clone(),
        },
        inbox_prefix: hub.inbox_prefix.clone(),
        wait_for_hub: true,
        ..HubOptions::new(hub.servers.clone())
    }
}

/// Waits a moment for what the hub says to each mapping; what it refuses for good ends the start.
async fn first_verdicts(
    verdicts: Vec<(String, oneshot::Receiver<Result<(), JoinError>>)>,
    hub: &Connection,
) -> Result<(), AppError> {
    let deadline = tokio::time::Instant::now() + FIRST_VERDICT;
    for (mapping, verdict) in verdicts {
        match tokio::time::timeout_at(deadline, verdict).await {
            // The node's other mappings are not concerned.
            Ok(Ok(Err(source))) if source.holds() => {}
            Ok(Ok(Err(source))) => return Err(AppError::Join { mapping, source }),
            Ok(Ok(Ok(())) | Err(_)) => {}
            Err(_) => {
                let silent = || (fanin_hub::codes::HUB_UNREACHABLE, "no answer yet".to_owned());
                let (code, reason) = hub.state().why_away().unwrap_or_else(silent);
                tracing::warn!(
                    code,
                    mapping,
                    reason,
                    "the hub does not answer yet; serving, and trying on"
                );
            }
        }
    }
    Ok(())
}

/// Says in the gRPC health service whether a topic delivers, for as long as its mapping is there.
async fn follow(health: TopicHealth, topic: String, mut delivering: watch::Receiver<bool>) {
    loop {
        let delivers = *delivering.borrow_and_update();
        health.set(&topic, delivers).await;
        if delivering.changed().await.is_err() {
            return;
        }
    }
}

/// Until the process is told to end, or a mapping's loop or the socket's server ends by itself.
async fn supervise(
    loops: &mut JoinSet<(String, Result<(), DriverError>)>,
    deaf: &CancellationToken,
    shutdown: &CancellationToken,
) -> Result<(), AppError> {
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            // Nobody could reach it, and nobody would restart it.
            () = deaf.cancelled() => return Err(AppError::Deaf),
            Some(ended) = loops.join_next() => match ended {
                Ok((mapping, Err(source))) => return Err(AppError::Driver { mapping, source }),
                Ok((_, Ok(()))) => {}
                // Without its loop a mapping would go on delivering and not see its own fence.
                Err(source) => return Err(AppError::Crashed(source)),
            },
        }
    }
}

#[cfg(test)]
#[path = "app_tests.rs"]
mod tests;
