//! Where the board is drawn: in place on a terminal, as lines elsewhere.

use std::time::Instant;

use super::board::Board;
use super::limits::{PROGRESS_INTERVAL, REDRAW_INTERVAL, TABLE_COLUMNS};
use super::output::Output;

/// Keeps long lines from wrapping, which would spoil drawing in place on a narrow terminal.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";
/// Clears what is left of the line, and what is below.
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// The drawing of one run.
#[derive(Debug)]
pub(crate) struct Screen {
    output: Output,
    terminal: bool,
    /// Lines drawn last, which the next picture covers.
    drawn: usize,
    shown: Option<Instant>,
    /// The picture that rates are counted from.
    before: Board,
}

impl Screen {
    pub(crate) fn new(output: Output) -> Self {
        // A terminal that calls itself dumb cannot move its cursor.
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        Self {
            output,
            terminal: output.is_terminal() && !dumb,
            drawn: 0,
            shown: None,
            before: Board::default(),
        }
    }

    /// Whether it is time for another picture.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let interval = if self.terminal {
            REDRAW_INTERVAL
        } else {
            PROGRESS_INTERVAL
        };
        self.shown
            .is_none_or(|shown| now.saturating_duration_since(shown) >= interval)
    }

    pub(crate) fn show(&mut self, board: &Board, now: Instant) {
        self.shown = Some(now);
        if !self.terminal {
            self.output.line(&board.line());
            return;
        }
        let lines = board.lines(&self.before);
        self.output.write(&frame(&lines, self.drawn));
        self.drawn = lines.len();
        // Rates over a second or more do not flicker.
        if board.elapsed.saturating_sub(self.before.elapsed) >= 4 * REDRAW_INTERVAL {
            self.before = board.clone();
        }
    }

    /// Something happened; on a terminal the board shows it.
    pub(crate) fn news(&self, line: &str) {
        if !self.terminal {
            self.output.line(line);
        }
    }

    /// Shows the last picture, which stays.
    pub(crate) fn finish(&mut self, board: &Board) {
        self.show(board, Instant::now());
        if self.terminal {
            self.output.line(&"-".repeat(TABLE_COLUMNS));
        }
    }
}

/// Draws lines over the `drawn` lines above the cursor.
fn frame(lines: &[String], drawn: usize) -> String {
    let mut text = String::from(NO_WRAP);
    if drawn > 0 {
        text.push_str(&format!("\x1b[{drawn}A\r"));
    }
    for line in lines {
        text.push_str(line);
        text.push_str(CLEAR_LINE);
        text.push('\n');
    }
    text.push_str(CLEAR_BELOW);
    text.push_str(WRAP);
    text
}

#[cfg(test)]
mod tests {
    // Goal: a picture covers the one before. Method: the bytes.
    use super::*;

    #[test]
    fn a_frame_goes_up_as_far_as_the_last_one_went_down() {
        let lines = ["a".to_owned(), "b".to_owned()];
        assert_eq!(frame(&lines, 0), "\x1b[?7la\x1b[K\nb\x1b[K\n\x1b[J\x1b[?7h");
        assert!(frame(&lines, 2).starts_with("\x1b[?7l\x1b[2A\ra"));
    }
}
