//! The picture of a moment: hub, nodes, applications, what was done to them. As a table and as one line.

use std::fmt::Write as _;
use std::time::Duration;

use super::limits::TABLE_COLUMNS;

/// Cells of the progress bar.
const BAR_CELLS: u64 = 20;

/// One moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    pub(crate) server: String,
    pub(crate) elapsed: Duration,
    /// Messages the hub has confirmed, of so many.
    pub(crate) fed: u64,
    pub(crate) count: u64,
    /// Messages in the hub that no node has pulled; none when no node says.
    pub(crate) pending: Option<u64>,
    /// Messages that nodes have pulled and not settled.
    pub(crate) ack_pending: Option<u64>,
    pub(crate) nodes: Vec<NodeRow>,
    pub(crate) apps: Vec<AppRow>,
    pub(crate) news: Vec<String>,
}

/// One node; what it does not say is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeRow {
    pub(crate) node: String,
    pub(crate) state: String,
    pub(crate) backlog: Option<u64>,
    pub(crate) in_flight: Option<u64>,
    pub(crate) unresolved: Option<u64>,
    pub(crate) instances: Option<usize>,
    pub(crate) acked: u64,
}

/// One application over all nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct AppRow {
    pub(crate) app: String,
    /// Messages received, each counted once.
    pub(crate) received: u64,
    pub(crate) acked: u64,
    /// Deliveries beyond the first.
    pub(crate) again: u64,
    /// Acknowledgements beyond the first.
    pub(crate) twice: u64,
}

impl Board {
    /// The table, one string a line, none longer than [`TABLE_COLUMNS`]. Rates are those since `before`.
    pub(crate) fn lines(&self, before: &Board) -> Vec<String> {
        let mut lines = vec![
            format!(
                "fanin demo  {:>5.1} s  {}",
                self.elapsed.as_secs_f64(),
                self.server
            ),
            String::new(),
            format!(
                "hub       fed {} of {} [{}] {}/s",
                self.fed,
                self.count,
                bar(self.fed, self.count),
                rate(self, before, |board| board.fed)
            ),
            format!(
                "          not pulled {}, not settled {}",
                told(self.pending),
                told(self.ack_pending)
            ),
            String::new(),
            format!(
                "{:<10}{:<10}{:>9}{:>10}{:>11}{:>11}{:>10}{:>8}",
                "node", "state", "backlog", "in hands", "unclaimed", "instances", "acked", "/s"
            ),
        ];
        for (index, row) in self.nodes.iter().enumerate() {
            let acked = |board: &Board| board.nodes.get(index).map_or(0, |row| row.acked);
            lines.push(format!(
                "{:<10}{:<10}{:>9}{:>10}{:>11}{:>11}{:>10}{:>8}",
                row.node,
                row.state,
                told(row.backlog),
                told(row.in_flight),
                told(row.unresolved),
                told(row.instances),
                row.acked,
                rate(self, before, acked)
            ));
        }
        lines.push(String::new());
        lines.push(format!(
            "{:<12}{:>11}{:>9}{:>11}{:>12}{:>13}",
            "application", "received", "/s", "acked", "seen again", "acked twice"
        ));
        for (index, row) in self.apps.iter().enumerate() {
            let received = |board: &Board| board.apps.get(index).map_or(0, |row| row.received);
            lines.push(format!(
                "{:<12}{:>11}{:>9}{:>11}{:>12}{:>13}",
                row.app,
                row.received,
                rate(self, before, received),
                row.acked,
                row.again,
                row.twice
            ));
        }
        lines.push(String::new());
        lines.extend(self.news.iter().cloned());
        for line in &mut lines {
            *line = line.chars().take(TABLE_COLUMNS).collect();
        }
        lines
    }

    /// One line, for where there is no terminal.
    pub(crate) fn line(&self) -> String {
        let mut text = format!(
            "{:6.1} s  fed {}/{} ({}%)",
            self.elapsed.as_secs_f64(),
            self.fed,
            self.count,
            self.fed * 100 / self.count.max(1)
        );
        // Writing to a string never fails.
        for row in &self.apps {
            let _ = write!(text, ", {} {}", row.app, row.received);
        }
        let backlog: u64 = self.nodes.iter().filter_map(|row| row.backlog).sum();
        let again: u64 = self.apps.iter().map(|row| row.again).sum();
        let _ = write!(text, ", backlog {backlog}, seen again {again}");
        text
    }
}

fn told(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn rate(now: &Board, before: &Board, value: impl Fn(&Board) -> u64) -> u64 {
    let millis = u64::try_from(now.elapsed.saturating_sub(before.elapsed).as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return 0;
    }
    value(now).saturating_sub(value(before)) * 1_000 / millis
}

fn bar(part: u64, whole: u64) -> String {
    let full = (part * BAR_CELLS / whole.max(1)).min(BAR_CELLS);
    (0..BAR_CELLS)
        .map(|cell| if cell < full { '#' } else { '-' })
        .collect()
}

#[cfg(test)]
mod tests {
    // Goal: the table says what it should and fits. Method: crafted moments.
    use super::*;

    fn board(seconds: u64, fed: u64) -> Board {
        let node = NodeRow {
            node: "node-1".to_owned(),
            state: "active".to_owned(),
            acked: fed,
            ..NodeRow::default()
        };
        let app = AppRow {
            app: "billing".to_owned(),
            received: fed,
            acked: fed,
            again: 3,
            twice: 0,
        };
        Board {
            server: "nats-server 2.14.6".to_owned(),
            elapsed: Duration::from_secs(seconds),
            fed,
            count: 1_000,
            nodes: vec![node],
            apps: vec![app],
            news: vec!["x".repeat(200)],
            ..Board::default()
        }
    }

    #[test]
    fn a_table_of_rates_that_fits() {
        let lines = board(2, 500).lines(&board(1, 100));
        assert!(
            lines.iter().all(|line| line.chars().count() <= TABLE_COLUMNS),
            "{lines:#?}"
        );
        let text = lines.join("\n");
        assert!(
            text.contains("fed 500 of 1000 [##########----------] 400/s"),
            "{text}"
        );
        let billing = lines.iter().find(|line| line.starts_with("billing")).unwrap();
        assert_eq!(
            billing.split_whitespace().collect::<Vec<_>>(),
            ["billing", "500", "400", "500", "3", "0"]
        );
        let node = lines.iter().find(|line| line.starts_with("node-1")).unwrap();
        assert_eq!(
            node.split_whitespace().collect::<Vec<_>>(),
            ["node-1", "active", "-", "-", "-", "-", "500", "400"]
        );
    }

    #[test]
    fn a_line_and_the_first_moment() {
        let now = board(2, 500);
        assert_eq!(
            now.line(),
            "   2.0 s  fed 500/1000 (50%), billing 500, backlog 0, seen again 3"
        );
        assert!(
            now.lines(&now).join("\n").contains(" 0/s"),
            "no time has passed, so no rate is known"
        );
        assert_eq!(bar(3, 0).len(), 20);
    }
}
