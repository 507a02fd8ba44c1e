//! What names and addresses may look like.

use crate::limits::{NAME_BYTES_MAX, STREAM_NAME_BYTES_MAX};

fn is_name(name: &str, allowed: impl Fn(u8) -> bool) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// `[a-zA-Z0-9._-]{1,64}`, for nodes and topics.
pub(crate) fn is_node_name(name: &str) -> bool {
    is_name(name, |byte| {
        byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
    })
}

/// `[a-z0-9-]{1,64}`, for mappings and applications.
pub(crate) fn is_label(name: &str) -> bool {
    is_name(name, |byte| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
    })
}

/// `[a-zA-Z0-9_-]{1,64}`: it begins stream names, which hold no dot.
pub(crate) fn is_ledger_prefix(name: &str) -> bool {
    is_name(name, |byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// What the hub takes as a stream's name.
pub(crate) fn is_stream_name(name: &str) -> bool {
    (1..=STREAM_NAME_BYTES_MAX).contains(&name.len())
        && name
            .chars()
            .all(|c| !c.is_whitespace() && !c.is_control() && !".*>/\\".contains(c))
}

/// `nats://host:port` or `tls://host:port`; the port and the `nats://` may be left out.
pub(crate) fn server_address(address: &str) -> Result<(), String> {
    let rest = match address.split_once("://") {
        Some(("nats" | "tls", rest)) => rest,
        Some((scheme, _)) => return Err(format!("`{scheme}://` is not spoken; nats:// and tls:// are")),
        None => address,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => match port.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None => return Err("no address of a server".to_owned()),
        },
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let host_ok = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
    if host.is_empty() || !host.chars().all(host_ok) {
        return Err("no host in the address".to_owned());
    }
    if port.is_some_and(|port| port.parse::<u16>().ok().is_none_or(|port| port == 0)) {
        return Err("the port is not a number from 1 to 65535".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    //! Goal: names fit what hub, file system and metrics take. Method: tables of good and bad ones.
    use super::*;

    #[test]
    fn names() {
        assert!(is_label("orders-2") && !is_label("Orders") && !is_label("") && !is_label(&"x".repeat(65)));
        assert!(is_node_name("edge_1.Eu-w") && !is_node_name("a/b") && !is_node_name("ä"));
        assert!(
            is_stream_name("ORDERS_2")
                && !is_stream_name("a.b")
                && !is_stream_name("a b")
                && !is_stream_name("*")
        );
        assert!(is_ledger_prefix("fanin") && !is_ledger_prefix("a.b"));
    }

    #[test]
    fn addresses() {
        for good in [
            "nats://h:4222",
            "tls://h",
            "h:1",
            "127.0.0.1:4222",
            "nats://[::1]:4222",
            "[::1]",
            "nats://h:4222/",
        ] {
            assert_eq!(server_address(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "nats://",
            "http://h",
            "nats://h:0",
            "h:99999",
            "h:x",
            "nats://h/path",
            "::1",
            "[::1]x",
            "a b",
        ] {
            assert!(server_address(bad).is_err(), "{bad}");
        }
    }
}
