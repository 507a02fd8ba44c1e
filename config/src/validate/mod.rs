//! What must hold between values. Pure: no file, socket or clock is looked at.

mod mapping;
mod names;
pub mod subject;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use crate::codes::Code;
use crate::decode::Context;
use crate::limits::*;
use crate::model::{Config, CredentialsConfig, HubConfig, LogConfig, MemoryConfig, StoreConfig, TlsConfig};
use crate::problem::KeyPath;
use crate::units::{ByteSize, HumanDuration, Listen};

/// Notes everything that contradicts the rules; values already known to be wrong are left out.
pub(crate) fn validate(cx: &mut Context<'_>, config: &Config) {
    let root = KeyPath::default();
    node(cx, &root.key("node"), &config.node);
    listen(cx, &root.key("listen"), &config.listen);
    hub(cx, &root.key("hub"), &config.hub);
    store(cx, &root.key("store"), &config.store);
    memory(cx, &root.key("memory"), &config.memory);
    log(cx, &root.key("log"), &config.log);
    within_time(
        cx,
        &root.key("shutdown_grace"),
        config.shutdown_grace,
        Duration::ZERO,
        GRACE_MAX,
    );
    mapping::all(cx, &root.key("mappings"), config);
}

fn node(cx: &mut Context<'_>, path: &KeyPath, node: &str) {
    if node.is_empty() {
        let cure = "set `node`, or define HOSTNAME";
        cx.fail(
            Code::MissingKey,
            path,
            None,
            "the node has no name, and HOSTNAME is not defined",
            cure,
        );
    } else if !names::is_node_name(node) {
        let why = format!(
            "a node's name has 1 to {NAME_BYTES_MAX} of the characters a-z, A-Z, 0-9, `.`, `_` and `-`"
        );
        cx.fail(
            Code::BadValue,
            path,
            Some(node.to_owned()),
            why,
            "choose another name",
        );
    }
}

fn listen(cx: &mut Context<'_>, path: &KeyPath, listen: &Listen) {
    match listen {
        Listen::Unix(socket) => {
            let bytes = socket.as_os_str().len();
            if bytes >= SOCKET_PATH_BYTES {
                let why = format!(
                    "the socket's path has {bytes} bytes and must have fewer than {SOCKET_PATH_BYTES}"
                );
                cx.fail(
                    Code::BadValue,
                    path,
                    Some(listen.to_string()),
                    why,
                    "choose a shorter path",
                );
            }
        }
    }
}

fn hub(cx: &mut Context<'_>, path: &KeyPath, hub: &HubConfig) {
    let servers = path.key("servers");
    if hub.servers.is_empty() {
        missing(
            cx,
            &servers,
            "no hub server is named",
            "name at least one, such as nats://127.0.0.1:4222",
        );
    }
    at_most(cx, &servers, hub.servers.len(), SERVERS_MAX);
    let mut seen = BTreeMap::new();
    for (index, server) in hub.servers.iter().enumerate() {
        let path = servers.index(index);
        if server.contains('@') {
            let why = "a user, password or token does not belong in an address";
            cx.fail(
                Code::PlainSecret,
                &path,
                Some(server.clone()),
                why,
                "use the keys of hub.credentials",
            );
        } else if let Err(why) = names::server_address(server) {
            cx.fail(
                Code::BadValue,
                &path,
                Some(server.clone()),
                why,
                "write nats://host:4222 or tls://host:4222",
            );
        } else if let Some(first) = seen.insert(server, index) {
            let why = format!("the same as {}", servers.index(first));
            cx.fail(
                Code::Relation,
                &path,
                Some(server.clone()),
                why,
                "name each server once",
            );
        }
    }
    let interval = path.key("sync_interval");
    within_time(
        cx,
        &interval,
        hub.sync_interval,
        Duration::from_millis(1),
        DURATION_MAX,
    );
    let prefix = path.key("ledger_prefix");
    if !names::is_ledger_prefix(&hub.ledger_prefix) {
        let why =
            format!("a ledger prefix has 1 to {NAME_BYTES_MAX} of the characters a-z, A-Z, 0-9, `_` and `-`");
        cx.fail(
            Code::BadValue,
            &prefix,
            Some(hub.ledger_prefix.clone()),
            why,
            "choose another prefix",
        );
    }
    if let Some(inbox) = &hub.inbox_prefix
        && let Err(why) = subject::check_literal(inbox)
    {
        cx.fail(
            Code::BadValue,
            &path.key("inbox_prefix"),
            Some(inbox.clone()),
            why,
            "write a subject such as _INBOX_fanin",
        );
    }
    credentials(cx, &path.key("credentials"), &hub.credentials);
    tls(cx, &path.key("tls"), &hub.tls);
}

fn credentials(cx: &mut Context<'_>, path: &KeyPath, credentials: &CredentialsConfig) {
    let c = credentials;
    let password_given = c.password.is_some() || c.password_file.is_some();
    let kinds = [
        (c.creds_file.is_some(), "creds_file"),
        (c.nkey_file.is_some(), "nkey_file"),
        (c.user.is_some() || password_given, "user"),
        (c.token.is_some() || c.token_file.is_some(), "token"),
    ];
    let given: Vec<&str> = kinds
        .iter()
        .filter(|(given, _)| *given)
        .map(|(_, name)| *name)
        .collect();
    if given.len() > 1 {
        let given = given.join(", ");
        let why = format!("several kinds of credentials are given: {given}");
        return cx.fail(Code::Relation, path, Some(given), why, "keep one kind");
    }
    let twice = "give the secret itself or its file, not both";
    if c.password.is_some() && c.password_file.is_some() {
        cx.fail(
            Code::Relation,
            &path.key("password_file"),
            c.password_file.as_ref().map(|file| file.display().to_string()),
            "`password` is set too",
            twice,
        );
    }
    if c.token.is_some() && c.token_file.is_some() {
        cx.fail(
            Code::Relation,
            &path.key("token_file"),
            c.token_file.as_ref().map(|file| file.display().to_string()),
            "`token` is set too",
            twice,
        );
    }
    if c.user.is_some() && !password_given {
        let password = [path.key("password"), path.key("password_file")];
        if password.iter().all(|path| cx.sound(path)) {
            let why = "a user without a password";
            cx.fail(
                Code::Relation,
                &path.key("user"),
                c.user.clone(),
                why,
                "set password_file beside user",
            );
        }
    }
    if c.user.is_none() && password_given && cx.sound(&path.key("user")) {
        let key = if c.password_file.is_some() {
            "password_file"
        } else {
            "password"
        };
        cx.fail(
            Code::Relation,
            &path.key(key),
            // A password itself is not shown: its key is a secret's.
            Some(
                c.password_file
                    .as_ref()
                    .map_or_else(String::new, |file| file.display().to_string()),
            ),
            "a password without a user",
            "set user beside it",
        );
    }
}

fn tls(cx: &mut Context<'_>, path: &KeyPath, tls: &TlsConfig) {
    for (given, key, absent, other) in [
        (&tls.cert, "cert", tls.key.is_none(), "key"),
        (&tls.key, "key", tls.cert.is_none(), "cert"),
    ] {
        if let Some(given) = given
            && absent
            && cx.sound(&path.key(other))
        {
            let cure = format!("set {other} beside it");
            cx.fail(
                Code::Relation,
                &path.key(key),
                Some(given.display().to_string()),
                format!("a client certificate needs `{other}` too"),
                cure,
            );
        }
    }
}

fn store(cx: &mut Context<'_>, path: &KeyPath, store: &StoreConfig) {
    let (quota, segment, reserve) = (path.key("quota"), path.key("segment"), path.key("reserve"));
    within_bytes(cx, &quota, store.quota, SEGMENT_BYTES_MIN, SIZE_BYTES_MAX);
    within_bytes(cx, &segment, store.segment, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
    if cx.sound(&quota) && cx.sound(&segment) && store.segment.0.saturating_mul(SEGMENTS_MIN) > store.quota.0
    {
        let blamed = if cx.given(&segment) { &segment } else { &quota };
        let why = format!(
            "{SEGMENTS_MIN} segments of {} do not fit in the quota of {}",
            store.segment, store.quota
        );
        let cure = format!("make the quota at least {SEGMENTS_MIN} times the segment");
        cx.fail(
            Code::Relation,
            blamed,
            Some(
                if cx.given(&segment) {
                    store.segment
                } else {
                    store.quota
                }
                .to_string(),
            ),
            why,
            cure,
        );
    }
    if cx.sound(&quota) && cx.sound(&reserve) && store.reserve.0 > store.quota.0 / QUOTA_PER_RESERVE {
        let why = format!(
            "the reserve leaves less than half of the quota of {} to intake",
            store.quota
        );
        cx.fail(
            Code::Relation,
            &reserve,
            Some(store.reserve.to_string()),
            why,
            "lower store.reserve, or raise store.quota to twice the reserve",
        );
    }
}

fn memory(cx: &mut Context<'_>, path: &KeyPath, memory: &MemoryConfig) {
    within_bytes(
        cx,
        &path.key("tail"),
        memory.tail,
        MEMORY_BYTES_MIN,
        SIZE_BYTES_MAX,
    );
    within_bytes(
        cx,
        &path.key("staged"),
        memory.staged,
        MEMORY_BYTES_MIN,
        SIZE_BYTES_MAX,
    );
}

fn log(cx: &mut Context<'_>, path: &KeyPath, log: &LogConfig) {
    let known = |level: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&level);
    for directive in log.level.split(',') {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !known(level.trim()) {
            let cure = "write error, warn, info, debug, trace or off, such as info,fanin_hub=debug";
            let why = format!("`{level}` is not a level");
            return cx.fail(
                Code::BadValue,
                &path.key("level"),
                Some(log.level.clone()),
                why,
                cure,
            );
        }
    }
}

/// Notes a key that has no default and is not set.
fn missing(cx: &mut Context<'_>, path: &KeyPath, why: &str, cure: &str) {
    cx.fail(Code::MissingKey, path, None, why, cure);
}

fn at_most(cx: &mut Context<'_>, path: &KeyPath, count: usize, most: usize) {
    if count > most {
        cx.fail(
            Code::BadValue,
            path,
            Some(format!("{count} entries")),
            format!("at most {most} are allowed"),
            "give fewer",
        );
    }
}

fn within<T: PartialOrd + Display + Copy>(cx: &mut Context<'_>, path: &KeyPath, value: T, least: T, most: T) {
    if value < least || value > most {
        let cure = format!("write a value from {least} to {most}");
        cx.fail(
            Code::BadValue,
            path,
            Some(value.to_string()),
            "outside of the range allowed",
            cure,
        );
    }
}

fn within_bytes(cx: &mut Context<'_>, path: &KeyPath, value: ByteSize, least: u64, most: u64) {
    within(cx, path, value, ByteSize(least), ByteSize(most));
}

fn within_time(cx: &mut Context<'_>, path: &KeyPath, value: HumanDuration, least: Duration, most: Duration) {
    within(cx, path, value, HumanDuration(least), HumanDuration(most));
}
