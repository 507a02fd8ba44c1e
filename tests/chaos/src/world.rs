//! Everything that runs in a run: the hub, the bridges with a proxy to every server, the instances, the producer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use fanin_proto::v1::{MappingStatus, StatusResponse};
use fanin_tests::logs::Level;
use fanin_tests::process::{Bridge, BridgeOptions};
use fanin_tests::proxy::Proxy;
use serde_json::{Value, json};

use crate::disk_under::DiskUnder;
use crate::error::{RunError, during};
use crate::holdings;
use crate::hub::{Hub, HubOptions};
use crate::limits::{ACK_WAIT, APPS, NODES, QUOTA_BYTES, REFUSALS_MAX};
use crate::listed::{Loss, NodeListed, REFUSALS, Standing};
use crate::role::Role;

/// The source stream.
pub(crate) const STREAM: &str = "CHAOS";
/// First token of its subjects.
pub(crate) const SUBJECT: &str = "chaos";
/// The mapping, and its topic.
pub(crate) const TOPIC: &str = "chaos";
/// The ledger of that mapping.
pub(crate) const LEDGER: &str = "FANIN-chaos";

/// States of a mapping that pass by themselves and list nothing.
const PASSING: [&str; 6] = ["starting", "joining", "active", "gated", "full", "stopping"];

/// The code of a start that is refused because the file system has no room.
const START_WITHOUT_ROOM: &str = "FAN-4048";

/// What goes wrong is told so often.
const TROUBLE_MAX: usize = 64;

/// One bridge and what is around it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) bridge: Bridge,
    /// To each server of the hub.
    pub(crate) links: Vec<Proxy>,
    pub(crate) disk: DiskUnder,
    /// While this file exists, fsync of the local log fails.
    pub(crate) failing: PathBuf,
    /// Whether it may end by itself now, as a fault asks for.
    pub(crate) may_end: bool,
    /// Whether the promise is broken, so that it may refuse to go on, and how often it has.
    may_refuse: bool,
    refusals: u32,
    /// What it has listed so far, in states that may have passed.
    pub(crate) reasons: BTreeSet<String>,
    /// Lines of its log that do not count.
    before: usize,
}

/// Everything. Fields go in this order at the end: instances leave before their bridges, bridges before their hub.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) producer: Role,
    /// The producer's lines to the servers.
    pub(crate) producer_links: Vec<Proxy>,
    pub(crate) instances: Vec<Role>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) hub: Hub,
    /// Histories, logs and what the bridges list.
    pub(crate) dir: PathBuf,
    /// Set once the hub's stores were copied.
    pub(crate) copied: Option<Copied>,
    /// What must not happen and did.
    pub(crate) trouble: Vec<String>,
}

/// The hub's stores as they were copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copied {
    /// When, milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
    /// The last sequence of the source, right behind the copy.
    pub(crate) source: u64,
    /// The last sequence of the ledger, likewise.
    pub(crate) ledger: u64,
}

fn mapping() -> Value {
    // Attempts are no limit: every kill of an instance or a bridge costs one.
    let app =
        json!({ "backoff": { "initial": "50ms", "max": "1s" }, "lease": "5s", "max_attempts": 1_000_000 });
    let apps: serde_json::Map<String, Value> = APPS
        .iter()
        .map(|name| ((*name).to_owned(), app.clone()))
        .collect();
    json!({ TOPIC: {
        "sources": [{ "stream": STREAM }],
        "ack_wait": format!("{}s", ACK_WAIT.as_secs()),
        "grace": "1s",
        "nodes": NODES,
        "in_flight": 256,
        "batch": { "messages": 20, "linger": "2ms" },
        "applications": apps,
    } })
}

impl World {
    /// Starts everything; returns when every bridge takes part.
    pub(crate) async fn start(options: &HubOptions, dir: &Path) -> Result<Self, RunError> {
        let hub = Hub::start(options).await?;
        let mut nodes = Vec::new();
        for number in 1..=NODES {
            nodes.push(start_node(&hub, options.sync_always, dir, number).await?);
        }
        let mut instances = Vec::new();
        for (number, node) in (1..).zip(&nodes) {
            for app in APPS {
                let name = format!("{app}-n{number}");
                let args = [
                    "consume",
                    "--socket",
                    &node.bridge.socket(),
                    "--app",
                    app,
                    "--name",
                    &name,
                ];
                instances.push(start_role(dir, &name, &args)?);
            }
        }
        let producer_links = lines_to(&hub).await?;
        let servers: Vec<String> = producer_links.iter().map(Proxy::url).collect();
        let servers = servers.join(",");
        let producer = start_role(dir, "producer", &["produce", "--servers", &servers])?;
        Ok(Self {
            producer,
            producer_links,
            instances,
            nodes,
            hub,
            dir: dir.to_path_buf(),
            copied: None,
            trouble: Vec::new(),
        })
    }

    /// Notes states that list something, starts again what ended by itself, and notes that.
    pub(crate) async fn look(&mut self) -> Result<(), RunError> {
        for node in &mut self.nodes {
            let Ok(status) = node.bridge.wait_exit(std::time::Duration::ZERO).await else {
                continue;
            };
            if node.may_end || node.is_refused() {
                continue;
            }
            let name = node.bridge.node().to_owned();
            let code = last_code(&node.bridge);
            node.reasons.insert(format!("ended: {code}"));
            if node.may_refuse && REFUSALS.contains(&code.as_str()) {
                node.refusals += 1;
                if node.is_refused() {
                    continue;
                }
            } else if !(node.disk.is_full() && code == START_WITHOUT_ROOM) && self.trouble.len() < TROUBLE_MAX
            {
                self.trouble
                    .push(format!("{name} ended by itself ({status}): {code}"));
            }
            node.bridge.respawn().map_err(during("starting a bridge again"))?;
        }
        for role in self.instances.iter_mut().chain([&mut self.producer]) {
            if let Some(status) = role.ended()? {
                self.trouble
                    .push(format!("{} ended by itself ({status})", role.name()));
                role.restart()?;
            }
        }
        Ok(())
    }

    /// Whether nothing is under way anywhere: what comes twice must have come by then.
    pub(crate) async fn at_rest(&mut self) -> Result<(), String> {
        self.hub.at_rest().await?;
        for node in &mut self.nodes {
            let status = node.bridge.status().await.map_err(|error| error.to_string())?;
            node.note(&status);
            rests(&status)?;
        }
        Ok(())
    }

    /// Whether every bridge's watermark has reached the source's end.
    pub(crate) async fn all_closed(&self) -> Result<(), String> {
        let stream = self.hub.jetstream.get_stream(STREAM).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let last = stream.cached_info().state.last_sequence;
        for node in &self.nodes {
            let status = node.bridge.status().await.map_err(|error| error.to_string())?;
            let mut sources = status.mappings.iter().flat_map(|mapping| &mapping.sources);
            if let Some(source) = sources.find(|source| source.closed_through < last) {
                let closed = source.closed_through;
                return Err(format!("{} has closed through {closed} of {last}", status.node));
            }
        }
        Ok(())
    }

    /// Whether every bridge goes on; those that do not say so.
    pub(crate) async fn all_serve(&self) -> bool {
        for node in &self.nodes {
            if node.standing(node.bridge.status().await.ok().as_ref()) != Standing::Serving {
                return false;
            }
        }
        true
    }

    /// Whether nothing is under way at those bridges that go on.
    pub(crate) async fn those_that_serve_rest(&mut self) -> Result<(), String> {
        for node in &mut self.nodes {
            let status = node.bridge.status().await.ok();
            if let (Standing::Serving, Some(status)) = (node.standing(status.as_ref()), &status) {
                node.note(status);
                rests(status)?;
            }
        }
        Ok(())
    }

    /// Where the source ended, as any bridge that answers has seen it at the most.
    pub(crate) async fn source_seen(&self) -> u64 {
        let mut seen = 0;
        for node in &self.nodes {
            let status = node.bridge.status().await.ok();
            let mappings = status.iter().flat_map(|status| &status.mappings);
            let sources = mappings.flat_map(|mapping| &mapping.sources);
            seen = sources.map(|source| source.last_seq).max().unwrap_or(0).max(seen);
        }
        seen
    }

    /// What every bridge tells now.
    pub(crate) async fn listed(&mut self) -> Vec<NodeListed> {
        let mut listed = Vec::new();
        for node in &mut self.nodes {
            let status = node.bridge.status().await.ok();
            if let Some(status) = &status {
                node.note(status);
            }
            let mut tells = node.listed(status.as_ref());
            let asked = match tells.standing {
                Standing::Refused => Ok(()),
                Standing::Silent => Err("it does not answer".to_owned()),
                Standing::Serving | Standing::Halted | Standing::Fenced => {
                    holdings::ask(&node.bridge, &mut tells).await
                }
            };
            if let Err(why) = asked {
                self.trouble
                    .push(format!("{} does not tell what it holds: {why}", tells.node));
            }
            listed.push(tells);
        }
        listed
    }

    /// Copies the logs of the bridges to where the histories are.
    pub(crate) fn keep_logs(&self) -> Result<(), RunError> {
        for node in &self.nodes {
            let to = self.dir.join(format!("{}.log", node.bridge.node()));
            fs::copy(node.bridge.log_path(), to).map_err(during("keeping a log"))?;
        }
        Ok(())
    }
}

impl Node {
    pub(crate) fn note(&mut self, status: &StatusResponse) {
        for mapping in status
            .mappings
            .iter()
            .filter(|mapping| !PASSING.contains(&mapping.state.as_str()))
        {
            self.reasons
                .insert(format!("{}: {}", mapping.state, mapping.reason));
        }
    }

    /// From now on it is asked what it lists, and it may refuse to go on.
    pub(crate) fn forget(&mut self) {
        self.before = self.bridge.log().len();
        self.reasons.clear();
        self.may_refuse = true;
    }

    /// Whether a line of its log says that the source has lost messages.
    pub(crate) fn tells_of_losses(&self) -> bool {
        let log = self.bridge.log();
        log.iter()
            .filter_map(|line| Loss::parse(&line.text))
            .any(|loss| loss.lost_by_the_hub_from().is_some())
    }

    /// Whether it has refused to start so often that it stays down.
    pub(crate) fn is_refused(&self) -> bool {
        self.refusals >= REFUSALS_MAX
    }

    /// The data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.disk.data_dir().unwrap_or_else(|| self.bridge.data_dir())
    }

    fn standing(&self, status: Option<&StatusResponse>) -> Standing {
        let state = status
            .and_then(|status| status.mappings.first())
            .map(|mapping| mapping.state.as_str());
        match state {
            Some("halted") => Standing::Halted,
            Some("fenced") => Standing::Fenced,
            Some(_) => Standing::Serving,
            None if self.is_refused() => Standing::Refused,
            None => Standing::Silent,
        }
    }

    /// Codes of warnings and errors that count.
    fn codes(&self) -> BTreeMap<String, u64> {
        let mut codes = BTreeMap::new();
        for line in self
            .bridge
            .log()
            .iter()
            .skip(self.before)
            .filter(|line| line.level != Level::Normal)
        {
            *codes
                .entry(code_in(&line.text).unwrap_or("no code").to_owned())
                .or_default() += 1;
        }
        codes
    }

    fn listed(&self, status: Option<&StatusResponse>) -> NodeListed {
        let mapping = status.and_then(|status| status.mappings.first());
        let count = |of: fn(&MappingStatus) -> u64| mapping.map_or(0, of);
        let bad = |line: &&fanin_tests::logs::LogLine| {
            line.text.contains("FAN-4099") || line.text.contains("panicked at")
        };
        let log = self.bridge.log();
        let losses = log.iter().skip(self.before);
        NodeListed {
            node: self.bridge.node().to_owned(),
            standing: self.standing(status),
            published: mapping.map(|mapping| mapping.head_offset),
            dead_letters: BTreeSet::new(),
            tombstoned: count(|mapping| mapping.tombstoned_messages),
            repaired: count(|mapping| mapping.repaired_messages),
            reasons: self.reasons.clone(),
            codes: self.codes(),
            losses: losses.filter_map(|line| Loss::parse(&line.text)).collect(),
            was_asked: false,
            staged: Vec::new(),
            waiting: BTreeMap::new(),
            finished: BTreeMap::new(),
            closed: 0,
            has_joined: mapping.is_some_and(|mapping| !mapping.delivery.is_empty()),
            defects: log.iter().filter(bad).map(|line| line.text.clone()).collect(),
        }
    }
}

/// A line to each server.
async fn lines_to(hub: &Hub) -> Result<Vec<Proxy>, RunError> {
    let mut lines = Vec::new();
    for server in &hub.servers {
        let line = Proxy::start(server.port()).await;
        lines.push(line.map_err(during("starting a link's proxy"))?);
    }
    Ok(lines)
}

async fn start_node(hub: &Hub, sync_always: bool, dir: &Path, number: usize) -> Result<Node, RunError> {
    let links = lines_to(hub).await?;
    let urls: Vec<String> = links.iter().map(Proxy::url).collect();
    let disk = DiskUnder::make(dir, &format!("n{number}"))?;
    if number == 1 {
        eprintln!("the bridges' data lies on {}", disk.what());
    }
    let failing = dir.join(format!("n{number}.failing"));
    let mut options = BridgeOptions::new(&format!("n{number}"), "", mapping());
    options.config["hub"] = json!({
        "servers": urls,
        "durability": if sync_always { "sync_always" } else { "lazy" },
        // A short one, so that runs come to rest: nothing but the last act of a run takes anything back.
        "sync_interval": "2s",
    });
    options = options.with_config(&json!({
        "store": { "quota": QUOTA_BYTES, "segment": "256KiB", "reserve": "2MiB" },
    }));
    if let Some(data_dir) = disk.data_dir() {
        options.config["data_dir"] = json!(data_dir);
    }
    if let DiskUnder::FailPoint { file } = &disk {
        options
            .env
            .insert("FANIN_DISK_FULL".to_owned(), file.display().to_string());
    }
    options
        .env
        .insert("FANIN_DISK_FAILING".to_owned(), failing.display().to_string());
    // Errors are judged by the checker: a fault may well cause some.
    options.allowed_errors.push(String::new());
    let bridge = Bridge::start(options)
        .await
        .map_err(during("starting a bridge"))?;
    Ok(Node {
        bridge,
        links,
        disk,
        failing,
        may_end: false,
        may_refuse: false,
        refusals: 0,
        reasons: BTreeSet::new(),
        before: 0,
    })
}

fn start_role(dir: &Path, name: &str, args: &[&str]) -> Result<Role, RunError> {
    let history = dir.join(format!("{name}.ndjson")).display().to_string();
    let args = args
        .iter()
        .copied()
        .chain(["--history", &history])
        .map(str::to_owned)
        .collect();
    Role::start(name, args, dir.join(format!("{name}.log")))
}

/// The code of the last error in a bridge's log.
fn last_code(bridge: &Bridge) -> String {
    let log = bridge.log();
    let mut errors = log.iter().rev().filter(|line| line.level == Level::Error);
    let code = errors.find_map(|line| code_in(&line.text));
    code.unwrap_or("no code").to_owned()
}

fn code_in(text: &str) -> Option<&str> {
    let at = text.find("FAN-")?;
    text.get(at..at + "FAN-0000".len())
}

fn rests(status: &StatusResponse) -> Result<(), String> {
    for mapping in &status.mappings {
        if mapping.state != "active" {
            return Err(format!(
                "{} is {}: {}",
                status.node, mapping.state, mapping.reason
            ));
        }
        if mapping.staged_batches + mapping.unresolved_batches > 0 {
            return Err(format!("{} has unresolved batches", status.node));
        }
        let busy = mapping
            .apps
            .iter()
            .find(|app| app.backlog_messages + app.in_flight > 0);
        if let Some(app) = busy {
            return Err(format!(
                "{} still holds {} messages for {}",
                status.node, app.backlog_messages, app.name
            ));
        }
    }
    Ok(())
}
