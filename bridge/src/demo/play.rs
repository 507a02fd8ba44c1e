//! The run itself: feeds, strikes, reads the records, shows, and ends when everything is received and quiet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Args;
use super::board::{AppRow, Board, NodeRow};
use super::error::DemoError;
use super::faults::{self, Fault};
use super::feed::{self, Fed, FeedError};
use super::fleet::Condition;
use super::input::Input;
use super::journal::Journal;
use super::limits::{
    FAULT_LINES, FEED_DURATION, FEED_DURATION_QUICK, FEED_RATE_MAX, FEED_RATE_MIN, QUIET_MARGIN,
    STALL_TIMEOUT, STATUS_INTERVAL, STATUS_TIMEOUT, TICK,
};
use super::output::Output;
use super::scene::{STREAM, Scene};
use super::screen::Screen;
use super::tally::Tally;
use super::verdict::{AtRest, Facts, Verdict};

/// How old a node's word about its backlog may be at the end.
const STATUS_AGE_MAX: Duration = Duration::from_millis(1_500);

struct Play<'a> {
    args: &'a Args,
    scene: Scene,
    output: Output,
    screen: Screen,
    started: Instant,
    /// Messages of the input.
    count: u64,
    fed: Arc<Fed>,
    feeding: Option<JoinHandle<Result<u64, FeedError>>>,
    plan: Vec<Fault>,
    journal: Journal,
    tally: Tally,
    /// When a record was read last.
    moved: Instant,
    news: VecDeque<String>,
}

/// How the run ended.
struct End {
    at_rest: Option<AtRest>,
    stalled: bool,
}

/// Plays the demo on a scene that is set, and takes it down.
pub(crate) async fn play(
    args: &Args,
    scene: Scene,
    input: Input,
    output: Output,
    stop: &CancellationToken,
) -> Result<Verdict, DemoError> {
    let count = input.total();
    let rate = args.rate.unwrap_or_else(|| default_rate(count, args.quick));
    output.line(&format!(
        "feed      {count} messages at {rate}/s, seed {}",
        args.seed
    ));
    let instances = scene.nodes.len() * usize::from(args.apps) * usize::from(args.instances);
    let plan = if args.no_kill {
        Vec::new()
    } else {
        faults::plan(args.seed, args.quick, scene.nodes.len(), instances)
    };
    let apps = scene
        .nodes
        .first()
        .map(|node| node.apps.clone())
        .unwrap_or_default();
    let fed = Arc::new(Fed::default());
    let context = scene.jetstream.clone();
    let feeding = tokio::spawn(feed::feed(
        context,
        STREAM.to_owned(),
        input,
        rate,
        Arc::clone(&fed),
    ));
    let mut play = Play {
        args,
        output,
        screen: Screen::new(output),
        started: Instant::now(),
        count,
        fed,
        feeding: Some(feeding),
        plan,
        journal: Journal::new(&scene.records),
        tally: Tally::new(STREAM, apps),
        moved: Instant::now(),
        news: VecDeque::new(),
        scene,
    };
    let end = stop.run_until_cancelled(Box::pin(play.run())).await;
    if let Some(feeding) = play.feeding.take() {
        feeding.abort();
    }
    // An error or an interruption drops everything, which kills it.
    let end = end.unwrap_or(Err(DemoError::Interrupted))?;
    play.finish(end).await
}

/// What spreads the input over some seconds, within what the hub can take.
fn default_rate(count: u64, quick: bool) -> u64 {
    let duration = if quick { FEED_DURATION_QUICK } else { FEED_DURATION };
    (count / duration.as_secs().max(1)).clamp(FEED_RATE_MIN, FEED_RATE_MAX)
}

impl Play<'_> {
    async fn run(&mut self) -> Result<End, DemoError> {
        loop {
            let now = Instant::now();
            for told in self.scene.fleet.tick(now)? {
                self.tell(told);
            }
            self.strike(now)?;
            self.read_records(now)?;
            if self.feeding.as_ref().is_some_and(JoinHandle::is_finished)
                && let Some(feeding) = self.feeding.take()
            {
                self.count = feeding.await??;
                self.tell(format!("all {} messages are in the hub", self.count));
            }
            self.show(now);
            if let Some(end) = self.end(now) {
                return Ok(end);
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Deals the blows that are due; one whose process is not up waits for it.
    fn strike(&mut self, now: Instant) -> Result<(), DemoError> {
        let permille = self.fed.confirmed() * 1_000 / self.count.max(1);
        let mut waiting = Vec::new();
        for fault in std::mem::take(&mut self.plan) {
            if fault.at_permille > permille {
                waiting.push(fault);
                continue;
            }
            match self.scene.fleet.strike(fault.blow, now)? {
                Some(told) => self.tell(told),
                None => waiting.push(fault),
            }
        }
        self.plan = waiting;
        Ok(())
    }

    fn read_records(&mut self, now: Instant) -> Result<(), DemoError> {
        let before = self.tally.lines;
        self.journal.read(|record| self.tally.add(record))?;
        if self.tally.lines > before {
            self.moved = now;
        }
        Ok(())
    }

    /// Over when everything is received and nothing waits, for longer than the hub takes to offer a message again:
    /// a late copy would be seen. Or when nothing moves any more.
    fn end(&self, now: Instant) -> Option<End> {
        let quiet = now.saturating_duration_since(self.moved);
        let recent = now.checked_sub(STATUS_AGE_MAX).unwrap_or(self.started);
        let settled = self.feeding.is_none() && self.plan.is_empty() && self.scene.fleet.is_whole();
        if settled && self.tally.all_received(self.count) && quiet > self.scene.ack_wait + QUIET_MARGIN {
            let at_rest = self.scene.watch.at_rest(recent);
            if at_rest.is_some_and(|rest| rest.backlog == 0) {
                return Some(End {
                    at_rest,
                    stalled: false,
                });
            }
        }
        if quiet > STALL_TIMEOUT {
            let stalled = !self.tally.all_received(self.count);
            return Some(End {
                at_rest: self.scene.watch.at_rest(recent),
                stalled,
            });
        }
        None
    }

    async fn finish(mut self, end: End) -> Result<Verdict, DemoError> {
        let seconds = self.started.elapsed().as_secs_f64();
        self.screen.finish(&self.board());
        let faults = self.scene.fleet.faults.clone();
        let bad_ends = self.scene.fleet.stop().await;
        self.read_records(Instant::now())?;
        if let Err(error) = self.scene.hub.stop().await {
            self.output.line(&format!("hub: {error}"));
        }
        Ok(Verdict::new(&Facts {
            tally: &self.tally,
            published: self.count,
            faults,
            at_rest: end.at_rest,
            stalled: end.stalled,
            bad_ends,
            seed: self.args.seed,
            seconds,
        }))
    }

    fn tell(&mut self, text: String) {
        let line = format!("{:6.1} s  {text}", self.started.elapsed().as_secs_f64());
        self.screen.news(&line);
        if self.news.len() >= FAULT_LINES {
            self.news.pop_front();
        }
        self.news.push_back(line);
    }

    fn show(&mut self, now: Instant) {
        if self.screen.is_due(now) {
            let board = self.board();
            self.screen.show(&board, now);
        }
    }

    fn board(&self) -> Board {
        let views = self.scene.watch.views();
        let fresh = views.iter().flatten().max_by_key(|view| view.asked);
        let apps: Vec<AppRow> = self
            .tally
            .apps()
            .map(|app| {
                let (received, acked) = self.tally.progress(app);
                let (again, twice) = (self.tally.again(app), self.tally.twice(app));
                AppRow {
                    app: app.to_owned(),
                    received,
                    acked,
                    again,
                    twice,
                }
            })
            .collect();
        let shares: Vec<_> = apps.iter().map(|row| self.tally.share(&row.app)).collect();
        let nodes = self
            .scene
            .nodes
            .iter()
            .enumerate()
            .map(|(index, node)| {
                let view = views.get(index).and_then(Option::as_ref);
                let state = match self.scene.fleet.bridge_condition(index) {
                    Some(Condition::Down(_)) | None => "killed".to_owned(),
                    Some(Condition::Frozen(_)) => "frozen".to_owned(),
                    Some(Condition::Up) => {
                        view.map_or_else(|| "starting".to_owned(), |view| view.state.clone())
                    }
                };
                NodeRow {
                    node: node.node.clone(),
                    state,
                    backlog: view.map(|view| view.backlog),
                    in_flight: view.map(|view| view.in_flight),
                    unresolved: view.map(|view| view.unresolved),
                    instances: view.map(|view| view.instances),
                    acked: shares
                        .iter()
                        .filter_map(|share| share.nodes.get(&node.node))
                        .sum(),
                }
            })
            .collect();
        Board {
            server: self.scene.server.clone(),
            elapsed: self.started.elapsed(),
            fed: self.fed.confirmed(),
            count: self.count,
            pending: fresh.map(|view| view.pending),
            ack_pending: fresh.map(|view| view.ack_pending),
            nodes,
            apps,
            news: self.news.iter().cloned().collect(),
        }
    }
}

const _: () = assert!(STATUS_AGE_MAX.as_millis() > STATUS_INTERVAL.as_millis() + STATUS_TIMEOUT.as_millis());

#[cfg(test)]
mod tests {
    // Goal: no input is fed too fast or for too long without need. Method: examples.
    use super::super::limits::{EVENTS_DEFAULT, EVENTS_QUICK};
    use super::*;

    #[test]
    fn rates_fit_the_input() {
        assert_eq!(default_rate(EVENTS_DEFAULT, false), 1_200);
        assert_eq!(default_rate(EVENTS_QUICK, true), 833);
        assert_eq!(default_rate(1, false), FEED_RATE_MIN);
        assert_eq!(default_rate(10_000_000, false), FEED_RATE_MAX);
    }
}
