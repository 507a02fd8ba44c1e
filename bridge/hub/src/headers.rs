//! Message headers as a list, the form that is staged and hashed.

use async_nats::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::limits;

/// The header that carries what could not be read of a message's headers: the raw lines, joined by line breaks, at most
/// [`limits::UNREADABLE_BYTES_MAX`] bytes of them, in base64.
pub const UNREADABLE_HEADERS: &str = "Fanin-Unreadable-Headers";

/// Headers of a message: names sorted, the values of one name in the order they were sent.
///
/// The wire order of different names is not kept by the client library; sorting makes two readers of one message agree.
pub type Headers = Vec<(String, String)>;

/// Bytes that a message counts as: subject, headers with what separates them, and body.
pub(crate) fn message_size(subject: &str, headers: &[(String, String)], body_bytes: usize) -> usize {
    let headers = headers.iter().map(|(name, value)| name.len() + value.len() + 4);
    body_bytes + subject.len() + headers.sum::<usize>()
}

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

/// The headers in the raw block that MSG.GET returns, read as the client library reads delivered ones. Lines that it
/// cannot read (and breaks the connection at) are kept in one header of their own, [`UNREADABLE_HEADERS`].
#[must_use]
pub fn parse_block(block: &[u8]) -> Headers {
    let mut list = Headers::new();
    let mut unreadable: Vec<&[u8]> = Vec::new();
    let mut continues = false;
    for (number, line) in block.split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line).ok().filter(|text| !text.contains('\r'));
        let is_readable = match text {
            Some("") => true,
            // A status, as in the hub's own answers, means nothing in a stored message, and the library acts on it.
            Some(text) if number == 0 => text
                .strip_prefix("NATS/1.0")
                .is_some_and(|rest| rest.trim().is_empty()),
            // A long value may go on in the next line.
            Some(text) if text.starts_with(char::is_whitespace) => {
                match list.last_mut().filter(|_| continues) {
                    Some((_, value)) => {
                        value.push_str(text);
                        true
                    }
                    None => false,
                }
            }
            Some(text) => match text.split_once(':').filter(|(name, _)| is_name(name)) {
                Some((name, value)) => {
                    list.push((name.to_owned(), value.trim_start().to_owned()));
                    true
                }
                None => false,
            },
            None => false,
        };
        continues = is_readable && number > 0 && !line.is_empty();
        if !is_readable {
            unreadable.push(line);
        }
    }
    for (_, value) in &mut list {
        value.truncate(value.trim_end().len());
    }
    if !unreadable.is_empty() {
        let mut raw = unreadable.join(&b"\r\n"[..]);
        raw.truncate(limits::UNREADABLE_BYTES_MAX);
        list.push((UNREADABLE_HEADERS.to_owned(), STANDARD.encode(raw)));
    }
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list
}

fn is_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_graphic())
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

    /// What is readable comes out as the client library would have it; what is not comes out raw, each line once.
    #[test]
    fn unreadable_lines_are_kept_apart() {
        let raw = |block: &[u8]| {
            let list = parse_block(block);
            let (readable, kept): (Headers, Headers) =
                list.into_iter().partition(|(name, _)| name != UNREADABLE_HEADERS);
            assert!(kept.len() <= 1);
            let kept = kept.first().map(|(_, text)| STANDARD.decode(text).unwrap());
            (readable, kept.unwrap_or_default())
        };
        let good = || vec![("B".to_owned(), "2".to_owned())];
        for (line, rest) in [
            (&b"A: \xff\xfe\r\n"[..], &b"A: \xff\xfe"[..]),
            (b"nonsense\r\n", b"nonsense"),
            (b"A: x\ry\r\n", b"A: x\ry"),
            (b"A B: x\r\n", b"A B: x"),
            (b"A: \xff\r\n  and on\r\n", b"A: \xff\r\n  and on"),
        ] {
            let block = [&b"NATS/1.0\r\n"[..], line, b"B: 2\r\n\r\n"].concat();
            assert_eq!(raw(&block), (good(), rest.to_vec()), "{block:?}");
        }
        for version in [&b"HTTP/1.1"[..], b"NATS/1.0 503 Gone", b"\xff"] {
            let block = [version, b"\r\nB: 2\r\n\r\n"].concat();
            assert_eq!(raw(&block), (good(), version.to_vec()));
        }
        let folded = parse_block(b"NATS/1.0\r\nB: 1\r\n  2 \r\n\r\n");
        assert_eq!(folded, vec![("B".to_owned(), "1  2".to_owned())]);
        assert_eq!(parse_block(b""), Headers::new());
    }

    #[test]
    fn unreadable_bytes_are_bounded() {
        let block = [&b"NATS/1.0\r\n"[..], &vec![b'x'; 100_000], b"\r\n\r\n"].concat();
        let list = parse_block(&block);
        let kept = STANDARD.decode(&list[0].1).unwrap();
        assert_eq!((list.len(), kept.len()), (1, limits::UNREADABLE_BYTES_MAX));
    }
}
