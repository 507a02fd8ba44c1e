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
        "last_seq": source.last_seq,
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

#[cfg(test)]
mod tests {
    //! Goal: every field of the contract is in the JSON, under its name, with its value, and nothing else is. Method: a status in
    //! which every field of every message has a value of its own is made from the contract's descriptor, as bytes and as the JSON
    //! that is wanted of it.
    use std::collections::BTreeMap;

    use fanin_proto::FILE_DESCRIPTOR_SET;
    use prost::Message as _;
    use prost::encoding::{WireType, encode_key, encode_varint};
    use prost_types::field_descriptor_proto::{Label, Type};
    use prost_types::{DescriptorProto, FileDescriptorSet};
    use serde_json::Map;

    use super::*;

    struct Filler {
        messages: BTreeMap<String, DescriptorProto>,
        /// Fields filled so far: the next value.
        filled: u64,
    }

    impl Filler {
        fn new() -> Filler {
            let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
            let messages = set.file.into_iter().flat_map(|file| {
                let package = file.package().to_owned();
                let named =
                    move |message: DescriptorProto| (format!(".{package}.{}", message.name()), message);
                file.message_type.into_iter().map(named)
            });
            Filler {
                messages: messages.collect(),
                filled: 0,
            }
        }

        /// A message with all its fields, one element in each list.
        fn message(&mut self, name: &str) -> (Vec<u8>, Value) {
            let mut bytes = Vec::new();
            let mut object = Map::new();
            for field in self.messages[name].field.clone() {
                self.filled += 1;
                let number = u32::try_from(field.number()).unwrap();
                let mut nested = |part: &[u8]| {
                    encode_key(number, WireType::LengthDelimited, &mut bytes);
                    encode_varint(part.len() as u64, &mut bytes);
                    bytes.extend_from_slice(part);
                };
                let kind = field.r#type();
                let value = if kind == Type::Message {
                    let (part, value) = self.message(field.type_name());
                    nested(&part);
                    value
                } else if kind == Type::String {
                    let text = format!("{} {}", field.name(), self.filled);
                    nested(text.as_bytes());
                    json!(text)
                } else if kind == Type::Bool {
                    encode_key(number, WireType::Varint, &mut bytes);
                    encode_varint(1, &mut bytes);
                    json!(true)
                } else {
                    let is_number = kind == Type::Uint64 || kind == Type::Uint32;
                    assert!(is_number, "{name}.{}: {kind:?} is new here", field.name());
                    encode_key(number, WireType::Varint, &mut bytes);
                    encode_varint(self.filled, &mut bytes);
                    json!(self.filled)
                };
                let is_list = field.label() == Label::Repeated;
                object.insert(
                    field.name().to_owned(),
                    if is_list { json!([value]) } else { value },
                );
            }
            (bytes, Value::Object(object))
        }
    }

    #[test]
    fn the_json_is_the_contract() {
        let mut filler = Filler::new();
        let (bytes, wanted) = filler.message(".fanin.v1.StatusResponse");
        assert!(filler.filled > 60, "only {} fields were found", filler.filled);
        let status = StatusResponse::decode(bytes.as_slice()).unwrap();
        assert_eq!(to_json(&status), wanted);
    }
}
