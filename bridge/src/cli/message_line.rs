//! One message as one line of output.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fanin_sdk::Message;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Who prints.
pub(super) struct Reader {
    pub(super) topic: String,
    pub(super) app: String,
    pub(super) instance: String,
}

#[derive(Serialize)]
struct JsonLine<'a> {
    id: &'a str,
    topic: &'a str,
    app: &'a str,
    instance: &'a str,
    node: &'a str,
    attempt: u32,
    subject: &'a str,
    headers: BTreeMap<&'a str, Vec<&'a str>>,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    possible_duplicate: bool,
}

/// Appends a message as a JSON object and a line's end. A payload that is not UTF-8 goes as base64.
///
/// # Errors
/// Never for a message; the encoder's type asks for it.
pub(super) fn json(out: &mut Vec<u8>, message: &Message, reader: &Reader) -> serde_json::Result<()> {
    let mut headers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in message.headers().iter() {
        headers.entry(name).or_default().push(value);
    }
    let payload = std::str::from_utf8(message.payload()).ok();
    let line = JsonLine {
        id: message.id(),
        topic: &reader.topic,
        app: &reader.app,
        instance: &reader.instance,
        node: message.node(),
        attempt: message.attempt(),
        subject: message.subject(),
        headers,
        time: rfc3339(message.published()),
        payload,
        payload_base64: payload.is_none().then(|| STANDARD.encode(message.payload())),
        possible_duplicate: message.possible_duplicate(),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.push(b'\n');
    Ok(())
}

/// Appends a message for people: time, id, subject, payload. Control characters are escaped, so that it stays one line
/// and cannot steer the terminal.
pub(super) fn text(out: &mut Vec<u8>, message: &Message) {
    let mut line = format!(
        "{}  {}  {}  ",
        rfc3339(message.published()),
        message.id(),
        message.subject()
    );
    push_escaped(&mut line, message.payload());
    line.push('\n');
    out.extend_from_slice(line.as_bytes());
}

fn push_escaped(line: &mut String, payload: &[u8]) {
    for character in String::from_utf8_lossy(payload).chars() {
        if character.is_control() && character != '\t' {
            // Writing to a String cannot fail.
            let _ = write!(line, "{}", character.escape_default());
        } else {
            line.push(character);
        }
    }
}

/// A time in nanoseconds since the Unix epoch, as RFC 3339.
pub(super) fn time_text(published_ns: i64) -> String {
    let nanos = u64::try_from(published_ns).unwrap_or(0);
    rfc3339(SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(nanos))
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    //! Goal: lines stay lines, times are RFC 3339. Method: examples.
    use std::time::Duration;

    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let mut line = String::new();
        push_escaped(&mut line, b"a\n\x1b[2Jb\tc");
        assert_eq!(line, "a\\n\\u{1b}[2Jb\tc");
    }

    #[test]
    fn times() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        assert_eq!(rfc3339(time), "2023-11-14T22:13:20.123Z");
    }
}
