//! The node's status as JSON, for `/status` and `fanin status --json`: the fields of `node.proto` by their names.

use fanin_proto::v1::{
    AppStatus, HubStatus, InstanceStatus, MappingStatus, SourceStatus, StatusResponse, StoreStatus,
};
use serde_json::{Value, json};

/// The whole status.
#[must_use]
pub fn to_json(status: &StatusResponse) -> Value {
    json!({
        "node": status.node,
        "node_uuid": status.node_uuid,
        "version": status.version,
        "uptime_ms": status.uptime_ms,
        "pid": status.pid,
        "admin": status.admin,
        "resident_bytes": status.resident_bytes,
        "hub": status.hub.as_ref().map(hub),
        "store": status.store.as_ref().map(store),
        "mappings": status.mappings.iter().map(mapping).collect::<Vec<_>>(),
    })
}

fn hub(hub: &HubStatus) -> Value {
    json!({
        "connected": hub.connected,
        "server": hub.server,
        "server_version": hub.server_version,
        "durability": hub.durability,
        "reconnects": hub.reconnects,
        "reason": hub.reason,
    })
}

fn store(store: &StoreStatus) -> Value {
    json!({
        "bytes": store.bytes,
        "quota_bytes": store.quota_bytes,
        "free_bytes": store.free_bytes,
        "segments": store.segments,
        "poisoned": store.poisoned,
    })
}

fn mapping(mapping: &MappingStatus) -> Value {
    json!({
        "name": mapping.name,
        "topic": mapping.topic,
        "state": mapping.state,
        "reason": mapping.reason,
        "delivery": mapping.delivery,
        "epoch": mapping.epoch,
        "ledger_position": mapping.ledger_position,
        "ledger_lag": mapping.ledger_lag,
        "terms_version": mapping.terms_version,
        "staged_batches": mapping.staged_batches,
        "unresolved_batches": mapping.unresolved_batches,
        "open_batches": mapping.open_batches,
        "open_claims": mapping.open_claims,
        "head_offset": mapping.head_offset,
        "won_messages": mapping.won_messages,
        "lost_messages": mapping.lost_messages,
        "tombstoned_messages": mapping.tombstoned_messages,
        "repaired_messages": mapping.repaired_messages,
        "unreadable_messages": mapping.unreadable_messages,
        "sources": mapping.sources.iter().map(source).collect::<Vec<_>>(),
        "apps": mapping.apps.iter().map(app).collect::<Vec<_>>(),
    })
}

fn source(source: &SourceStatus) -> Value {
    json!({
        "stream": source.stream,
        "incarnation": source.incarnation,
        "closed_through": source.closed_through,
        "pending": source.pending,
        "ack_pending": source.ack_pending,
    })
}

fn app(app: &AppStatus) -> Value {
    json!({
        "name": app.name,
        "backlog_messages": app.backlog_messages,
        "backlog_bytes": app.backlog_bytes,
        "in_flight": app.in_flight,
        "acked": app.acked,
        "deliveries": app.deliveries,
        "redeliveries": app.redeliveries,
        "dead_letters": app.dead_letters,
        "oldest_unacked_ms": app.oldest_unacked_ms,
        "instances": app.instances.iter().map(instance).collect::<Vec<_>>(),
    })
}

fn instance(instance: &InstanceStatus) -> Value {
    json!({
        "name": instance.name,
        "in_flight": instance.in_flight,
        "acked": instance.acked,
        "connected_ms": instance.connected_ms,
        "peer_pid": instance.peer_pid,
        "peer_uid": instance.peer_uid,
    })
}
