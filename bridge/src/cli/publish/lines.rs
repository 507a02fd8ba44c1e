//! Reading the input line by line without ever holding more than one line of bounded length.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

use crate::cli::limits::LINE_MEASURED_MAX;

/// One line of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: u64,
    /// The line without its end.
    pub(super) text: Bytes,
    /// Its size, bytes. Larger than the text when the line is above the limit: then the text is not complete.
    pub(super) size: u64,
}

/// Lines of at most `max` bytes; of longer ones only the size is learnt.
pub(super) struct Lines<R> {
    reader: R,
    max: usize,
    number: u64,
    text: Vec<u8>,
    size: u64,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, max: usize) -> Lines<R> {
        Lines {
            reader,
            max,
            number: 0,
            text: Vec::new(),
            size: 0,
        }
    }

    /// The next line; `None` at the end. Cancel safe: what was read is kept.
    ///
    /// # Errors
    /// The input cannot be read.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let available = self.reader.fill_buf().await?;
            if available.is_empty() {
                return Ok((self.size > 0).then(|| self.take()));
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let piece = available
                .get(..end.unwrap_or(available.len()))
                .unwrap_or(available);
            // One byte more than allowed is kept: it may be the carriage return of the line's end.
            let room = (self.max + 1).saturating_sub(self.text.len());
            self.text
                .extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or(piece));
            let length = piece.len();
            self.size += u64::try_from(length).unwrap_or(u64::MAX);
            self.reader.consume(length + usize::from(end.is_some()));
            if end.is_some() || self.size > LINE_MEASURED_MAX {
                return Ok(Some(self.take()));
            }
        }
    }

    fn take(&mut self) -> Line {
        self.number += 1;
        let mut text = std::mem::take(&mut self.text);
        let mut size = std::mem::take(&mut self.size);
        if u64::try_from(text.len()) == Ok(size) && text.last() == Some(&b'\r') {
            text.pop();
            size -= 1;
        }
        Line {
            number: self.number,
            text: text.into(),
            size,
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: every kind of line's end, and lines above the limit. Method: short inputs in small reads.
    use tokio::io::BufReader;

    use super::*;

    async fn lines(input: &str, max: usize) -> Vec<(u64, String, u64)> {
        let mut lines = Lines::new(BufReader::with_capacity(3, input.as_bytes()), max);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push((
                line.number,
                String::from_utf8(line.text.to_vec()).unwrap(),
                line.size,
            ));
        }
        all
    }

    #[tokio::test]
    async fn ends_of_lines() {
        let expected = [
            (1, "ab".to_owned(), 2),
            (2, String::new(), 0),
            (3, "cdefg".to_owned(), 5),
        ];
        assert_eq!(lines("ab\n\ncdefg", 5).await, expected);
        assert_eq!(lines("ab\r\n\r\ncdefg\r\n", 5).await, expected);
        assert_eq!(lines("", 5).await, []);
    }

    #[tokio::test]
    async fn a_long_line_is_measured_and_not_held() {
        let input = format!("{}\nok\n", "x".repeat(100));
        let all = lines(&input, 5).await;
        assert_eq!((all[0].0, all[0].1.len(), all[0].2), (1, 6, 100));
        assert_eq!(all[1], (2, "ok".to_owned(), 2));
    }
}
