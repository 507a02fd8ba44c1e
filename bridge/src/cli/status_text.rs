//! The node's status as people read it.

use std::fmt::Write as _;
use std::time::Duration;

use fanin_proto::v1::{AppStatus, MappingStatus, StatusResponse};

use super::human;

/// The whole status, in lines.
pub(crate) fn render(status: &StatusResponse) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "node   {}  fanin {}  up {}  pid {}  resident {}",
        status.node,
        status.version,
        millis(status.uptime_ms),
        status.pid,
        human::bytes(status.resident_bytes)
    );
    if !status.admin.is_empty() {
        let _ = write!(text, "  admin http://{}", status.admin);
    }
    text.push('\n');
    if let Some(hub) = &status.hub {
        let _ = match hub.connected {
            true => write!(
                text,
                "hub    connected to {} ({})",
                hub.server, hub.server_version
            ),
            false => write!(text, "hub    NOT CONNECTED, last {}", or_dash(&hub.server)),
        };
        let _ = writeln!(
            text,
            "  durability {}  reconnects {}",
            hub.durability, hub.reconnects
        );
        if !hub.reason.is_empty() {
            let _ = writeln!(text, "       {}", hub.reason);
        }
    }
    if let Some(store) = &status.store {
        let _ = write!(
            text,
            "store  {} of {}  segments {}  free on disk {}",
            human::bytes(store.bytes),
            human::bytes(store.quota_bytes),
            store.segments,
            human::bytes(store.free_bytes)
        );
        text.push_str(if store.poisoned {
            "  POISONED: a sync failed\n"
        } else {
            "\n"
        });
    }
    for one in &status.mappings {
        mapping(&mut text, one);
    }
    text
}

fn mapping(text: &mut String, mapping: &MappingStatus) {
    let _ = write!(
        text,
        "\nmapping {}  topic {}  {}",
        mapping.name, mapping.topic, mapping.state
    );
    if !mapping.reason.is_empty() {
        let _ = write!(text, ": {}", mapping.reason);
    }
    text.push('\n');
    if !mapping.delivery.is_empty() {
        let _ = writeln!(text, "  delivery: {}", mapping.delivery);
    }
    let _ = writeln!(
        text,
        "  epoch {}  ledger position {}, lag {}  terms {}",
        mapping.epoch, mapping.ledger_position, mapping.ledger_lag, mapping.terms_version
    );
    let _ = writeln!(
        text,
        "  batches staged {}, unresolved {}, open {}  open claims {}  head {}",
        mapping.staged_batches,
        mapping.unresolved_batches,
        mapping.open_batches,
        mapping.open_claims,
        mapping.head_offset
    );
    let _ = writeln!(
        text,
        "  messages won {}, lost {}, tombstoned {}, repaired {}, unreadable {}",
        mapping.won_messages,
        mapping.lost_messages,
        mapping.tombstoned_messages,
        mapping.repaired_messages,
        mapping.unreadable_messages
    );
    let mut sources = vec![row(["source", "W", "pending", "unsettled"])];
    sources.extend(mapping.sources.iter().map(|source| {
        row([
            source.stream.clone(),
            source.closed_through.to_string(),
            source.pending.to_string(),
            source.ack_pending.to_string(),
        ])
    }));
    text.push_str(&human::table(2, &sources));

    let head = [
        "app",
        "backlog",
        "size",
        "oldest",
        "in flight",
        "acked",
        "redelivered",
        "dead letters",
        "instances",
    ];
    let mut apps = vec![row(head)];
    apps.extend(mapping.apps.iter().map(app));
    text.push_str(&human::table(2, &apps));
    for app in mapping.apps.iter().filter(|app| !app.instances.is_empty()) {
        let mut instances = vec![row([
            &format!("instance of {}", app.name),
            "in flight",
            "acked",
            "connected",
            "pid",
            "uid",
        ])];
        instances.extend(app.instances.iter().map(|one| {
            row([
                one.name.clone(),
                one.in_flight.to_string(),
                one.acked.to_string(),
                millis(one.connected_ms),
                one.peer_pid.to_string(),
                one.peer_uid.to_string(),
            ])
        }));
        text.push_str(&human::table(4, &instances));
    }
}

fn app(app: &AppStatus) -> Vec<String> {
    row([
        app.name.clone(),
        app.backlog_messages.to_string(),
        human::bytes(app.backlog_bytes),
        if app.backlog_messages == 0 {
            "-".to_owned()
        } else {
            millis(app.oldest_unacked_ms)
        },
        app.in_flight.to_string(),
        app.acked.to_string(),
        app.redeliveries.to_string(),
        app.dead_letters.to_string(),
        app.instances.len().to_string(),
    ])
}

fn row<const N: usize, S: AsRef<str>>(cells: [S; N]) -> Vec<String> {
    cells.iter().map(|cell| cell.as_ref().to_owned()).collect()
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

fn millis(millis: u64) -> String {
    human::duration(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    //! Goal: everything an operator asks for is on the page. Method: a crafted status.
    use fanin_proto::v1::{HubStatus, InstanceStatus, SourceStatus, StoreStatus};

    use super::*;

    #[test]
    fn a_page() {
        let instance = InstanceStatus {
            name: "billing-1".to_owned(),
            connected_ms: 90_000,
            ..InstanceStatus::default()
        };
        let app = AppStatus {
            name: "billing".to_owned(),
            backlog_messages: 42,
            redeliveries: 3,
            dead_letters: 1,
            oldest_unacked_ms: 65_000,
            instances: vec![instance],
            ..AppStatus::default()
        };
        let mapping = MappingStatus {
            name: "orders".to_owned(),
            topic: "orders".to_owned(),
            state: "gated".to_owned(),
            reason: "shipping has no instance here".to_owned(),
            delivery: "exactly_once, because the hub syncs".to_owned(),
            epoch: 12,
            ledger_position: 345,
            ledger_lag: 6,
            sources: vec![SourceStatus {
                stream: "ORDERS".to_owned(),
                closed_through: 1_200,
                ..SourceStatus::default()
            }],
            apps: vec![app],
            ..MappingStatus::default()
        };
        let status = StatusResponse {
            node: "n1".to_owned(),
            hub: Some(HubStatus {
                server: "hub-1".to_owned(),
                reason: "FAN-2002: the hub refused the login".to_owned(),
                ..HubStatus::default()
            }),
            store: Some(StoreStatus {
                bytes: 2 << 30,
                quota_bytes: 8 << 30,
                ..StoreStatus::default()
            }),
            mappings: vec![mapping],
            ..StatusResponse::default()
        };
        let text = render(&status);
        for part in [
            "node   n1",
            "NOT CONNECTED, last hub-1",
            "\n       FAN-2002: the hub refused the login\n",
            "2.0 GiB of 8.0 GiB",
            "mapping orders  topic orders  gated: shipping has no instance here",
            "  delivery: exactly_once, because the hub syncs",
            "  epoch 12  ledger position 345, lag 6",
            "ORDERS  1200",
            "billing       42",
            "1m05s",
            "billing-1",
            "1m30s",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
