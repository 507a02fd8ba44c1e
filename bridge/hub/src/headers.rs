//! Message headers as a list, the form that is staged and hashed.

use async_nats::HeaderMap;

/// Headers of a message: names sorted, the values of one name in the order they were sent.
///
/// The wire order of different names is not kept by the client library; sorting makes two readers of one message agree.
pub type Headers = Vec<(String, String)>;

pub(crate) fn to_list(map: Option<&HeaderMap>) -> Headers {
    let Some(map) = map else { return Headers::new() };
    let mut list: Headers = map
        .iter()
        .flat_map(|(name, values)| {
            values
                .iter()
                .map(move |value| (name.to_string(), value.as_str().to_owned()))
        })
        .collect();
    // The sort is stable, so values of one name keep their order.
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list
}

/// The client library's map of a list; `None` when a name or value cannot be sent (control characters, line breaks).
pub(crate) fn to_map(list: &[(String, String)]) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in list {
        let name: async_nats::HeaderName = name.parse().ok()?;
        let value: async_nats::HeaderValue = value.parse().ok()?;
        map.append(name, value);
    }
    Some(map)
}

/// The headers in the raw block that MSG.GET returns. Bytes that are not UTF-8 are replaced: a message that cannot be
/// pulled because of them can still be looked at.
pub(crate) fn parse_block(block: &[u8]) -> Headers {
    let text = String::from_utf8_lossy(block);
    let mut list: Headers = text
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list
}

pub(crate) fn first<'a>(map: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    map?.get(name).map(async_nats::HeaderValue::as_str)
}

#[cfg(test)]
mod tests {
    //! Goal: lists survive the way to the client library and back. Method: round trip and a raw block.
    use super::*;

    #[test]
    fn round_trip_keeps_the_values_of_a_name_in_order() {
        let list: Headers = [("B", "2"), ("a", "1"), ("B", "1")]
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .to_vec();
        let map = to_map(&list).unwrap();
        let back = to_list(Some(&map));
        assert_eq!(
            back,
            [("B", "2"), ("B", "1"), ("a", "1")]
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .to_vec()
        );
    }

    #[test]
    fn a_line_break_is_refused() {
        assert!(to_map(&[("a".to_owned(), "x\r\ny".to_owned())]).is_none());
        assert!(to_map(&[("a:b".to_owned(), "x".to_owned())]).is_none());
    }

    #[test]
    fn raw_blocks() {
        let list = parse_block(b"NATS/1.0\r\nNats-Msg-Id: one\r\nA:  x \r\n\r\n");
        assert_eq!(
            list,
            vec![
                ("A".to_owned(), "x".to_owned()),
                ("Nats-Msg-Id".to_owned(), "one".to_owned())
            ]
        );
    }
}
