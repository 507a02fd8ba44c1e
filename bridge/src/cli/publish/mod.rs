//! `fanin publish`: one message a line to the hub, each confirmed by it.

mod field;
mod lines;
mod progress;

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use fanin_hub::{Outgoing, PubAck, PublishError, Publisher};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::{AsyncBufRead, BufReader};
use tokio::time::{Instant, sleep};

use super::exit::{Exit, connect_exit};
use super::failure::Failure;
use super::hub_args::HubArgs;
use super::limits::{
    INPUT_BUFFER_BYTES, PUBLISH_RETRY_MAX, PUBLISH_RETRY_PAUSE, PUBLISH_WINDOW, PUBLISH_WINDOW_BYTES,
    TOOL_STOP_MAX,
};
use super::wait::HubWait;
use super::{output, signals};
use crate::telemetry::codes;
use field::FieldPath;
use lines::{Line, Lines};
use progress::Progress;

/// The header by which the hub recognises a repetition.
const MSG_ID_HEADER: &str = "Nats-Msg-Id";

/// `fanin publish`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The subject of every message.
    #[arg(value_parser = subject)]
    subject: String,
    /// The input, one message a line; blank lines are skipped. `-` reads standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Field of each JSON line that identifies its message, such as id or order.id: within the stream's duplicate
    /// window the hub stores a repetition only once, and messages are sent again while the hub is away.
    #[arg(long, value_name = "FIELD")]
    msg_id_field: Option<FieldPath>,
    /// A header for every message. May be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Print the summary as JSON.
    #[arg(short = 'j', long)]
    pub(super) json: bool,
    #[command(flatten)]
    hub: HubArgs,
    #[command(flatten)]
    wait: HubWait,
}

fn subject(text: &str) -> Result<String, String> {
    fanin_config::subject::check_literal(text).map(|()| text.to_owned())
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME:VALUE")?;
    let name = name.trim();
    if name.is_empty() {
        return Err("write NAME:VALUE".to_owned());
    }
    if name.eq_ignore_ascii_case(MSG_ID_HEADER) {
        return Err("one message id for all lines would store only the first; use --msg-id-field".to_owned());
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

/// What came of the input.
#[derive(Debug, Default)]
struct Summary {
    stored: u64,
    duplicates: u64,
    blank: u64,
    first_seq: Option<u64>,
    last_seq: Option<u64>,
}

impl Summary {
    fn count(&mut self, ack: PubAck) {
        self.stored += u64::from(!ack.duplicate);
        self.duplicates += u64::from(ack.duplicate);
        self.first_seq = Some(self.first_seq.map_or(ack.seq, |first| first.min(ack.seq)));
        self.last_seq = Some(self.last_seq.map_or(ack.seq, |last| last.max(ack.seq)));
    }

    fn confirmed(&self) -> u64 {
        self.stored + self.duplicates
    }

    fn text(&self, seconds: f64) -> String {
        let rate = self.confirmed() as f64 / seconds.max(0.001);
        let known = match self.duplicates {
            0 => String::new(),
            duplicates => format!(", {duplicates} known already"),
        };
        format!(
            "stored {} messages{known} in {seconds:.1} s, {rate:.0}/s\n",
            self.stored
        )
    }

    fn json(&self, subject: &str, seconds: f64) -> Value {
        json!({
            "subject": subject,
            "stored": self.stored,
            "duplicates": self.duplicates,
            "blank_lines": self.blank,
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "seconds": seconds,
        })
    }
}

pub(super) async fn execute(args: &Args) -> Result<Exit, Failure> {
    let stop = signals::stop_token(TOOL_STOP_MAX)?;
    let input = open(&args.file).await?;
    let connecting = args.wait.connect(args.hub.options("fanin publish")?);
    let connection = stop
        .run_until_cancelled(connecting)
        .await
        .ok_or_else(interrupted)?
        .map_err(|error| Failure::of(connect_exit(&error, Exit::Usage), error.code(), error))?;
    let max_payload = connection.state().max_payload;

    let mut sender = Sender {
        args,
        publisher: Publisher::new(&connection, PUBLISH_WINDOW),
        max_payload,
        progress: Progress::new(!args.json),
        summary: Summary::default(),
    };
    let result = sender.send_all(Lines::new(input, max_payload), &stop).await;
    sender.progress.clear();
    let seconds = sender.progress.seconds();
    // The summary comes in any case: it says what is stored.
    if args.json {
        output::print_json(&sender.summary.json(&args.subject, seconds))?;
    } else {
        output::print(&sender.summary.text(seconds))?;
    }
    result.map(|()| Exit::Done)
}

async fn open(file: &Path) -> Result<BufReader<File>, Failure> {
    let opened = if file == Path::new("-") {
        // A copy of the descriptor, read as a file: it may be one, or a pipe, or a terminal.
        std::io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map(|stdin| File::from_std(stdin.into()))
    } else {
        File::open(file).await
    };
    let opened = opened.map_err(|error| unreadable(file, error))?;
    Ok(BufReader::with_capacity(INPUT_BUFFER_BYTES, opened))
}

fn unreadable(file: &Path, error: std::io::Error) -> Failure {
    let name = if file == Path::new("-") {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    };
    let text = format!("cannot read {name}");
    Failure::new(Exit::Io, codes::INPUT_UNREADABLE, text).because(error)
}

/// The hub's word on one line.
struct Outcome {
    line: u64,
    size: usize,
    result: Result<PubAck, PublishError>,
}

struct Sender<'a> {
    args: &'a Args,
    publisher: Publisher,
    max_payload: usize,
    progress: Progress,
    summary: Summary,
}

impl Sender<'_> {
    /// Sends until the end of the input or the first failure; then waits for what is on its way, so that the summary
    /// is exact.
    async fn send_all<R: AsyncBufRead + Unpin>(
        &mut self,
        mut lines: Lines<R>,
        stop: &tokio_util::sync::CancellationToken,
    ) -> Result<(), Failure> {
        let publisher = self.publisher.clone();
        let mut waiting = FuturesOrdered::new();
        let mut waiting_bytes = 0;
        let mut failure = None;
        let mut open = true;
        while open || !waiting.is_empty() {
            let has_room = waiting.len() < PUBLISH_WINDOW && waiting_bytes < PUBLISH_WINDOW_BYTES;
            tokio::select! {
                biased;
                Some(outcome) = waiting.next(), if !waiting.is_empty() => {
                    let outcome: Outcome = outcome;
                    waiting_bytes -= outcome.size;
                    if let Err(refused) = self.account(outcome) {
                        failure.get_or_insert(refused);
                        open = false;
                    }
                }
                () = stop.cancelled(), if open => {
                    failure.get_or_insert_with(interrupted);
                    open = false;
                }
                line = lines.next(), if open && has_room => match self.message(line) {
                    Ok(Next::Message(line, message)) => {
                        waiting_bytes += message.payload.len();
                        waiting.push_back(store(&publisher, line, message));
                    }
                    Ok(Next::Blank) => self.summary.blank += 1,
                    Ok(Next::End) => open = false,
                    Err(malformed) => {
                        failure.get_or_insert(malformed);
                        open = false;
                    }
                },
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn account(&mut self, outcome: Outcome) -> Result<(), Failure> {
        let error = match outcome.result {
            Ok(ack) => {
                self.summary.count(ack);
                self.progress.at(self.summary.confirmed());
                return Ok(());
            }
            Err(error) => error,
        };
        let exit = if error.code() == fanin_hub::codes::PERMISSION_DENIED {
            Exit::NotPermitted
        } else if error.retryable() {
            Exit::Unavailable
        } else {
            Exit::Failed
        };
        // Without a message id nobody can tell whether a message without an answer was stored.
        let doubt = if error.retryable() {
            "; it may be stored all the same"
        } else {
            ""
        };
        let text = format!(
            "line {} ({} bytes) was not confirmed{doubt}",
            outcome.line, outcome.size
        );
        Err(Failure::new(exit, error.code(), text).because(error))
    }

    /// What to do with a line.
    fn message(&self, line: std::io::Result<Option<Line>>) -> Result<Next, Failure> {
        let Some(line) = line.map_err(|error| unreadable(&self.args.file, error))? else {
            return Ok(Next::End);
        };
        let max = u64::try_from(self.max_payload).unwrap_or(u64::MAX);
        if line.size > max {
            let text = format!(
                "line {} has {} bytes, and the hub takes at most {max} (max_payload); nothing from this line on was sent",
                line.number, line.size
            );
            return Err(Failure::new(
                Exit::Failed,
                fanin_hub::codes::MESSAGE_TOO_LARGE,
                text,
            ));
        }
        if line.text.iter().all(u8::is_ascii_whitespace) {
            return Ok(Next::Blank);
        }
        let msg_id = match &self.args.msg_id_field {
            None => None,
            Some(field) => Some(field.of(&line.text).map_err(|error| {
                let text = format!(
                    "line {} has no message id; nothing from this line on was sent",
                    line.number
                );
                Failure::new(Exit::Failed, codes::LINE_MALFORMED, text).because(error)
            })?),
        };
        let message = Outgoing {
            subject: self.args.subject.clone(),
            headers: self.args.headers.clone(),
            payload: line.text,
            msg_id,
        };
        Ok(Next::Message(line.number, message))
    }
}

enum Next {
    Message(u64, Outgoing),
    Blank,
    End,
}

fn interrupted() -> Failure {
    Failure::new(
        Exit::Failed,
        codes::INTERRUPTED,
        "interrupted before the end of the input",
    )
}

/// Publishes one message. With a message id a repetition is harmless, so it is repeated while the hub is away.
async fn store(publisher: &Publisher, line: u64, message: Outgoing) -> Outcome {
    let size = message.payload.len();
    let deadline = Instant::now() + PUBLISH_RETRY_MAX;
    loop {
        let result = publisher.publish(message.clone()).await;
        let may_repeat = message.msg_id.is_some() && Instant::now() + PUBLISH_RETRY_PAUSE < deadline;
        match &result {
            Err(error) if may_repeat && error.retryable() => sleep(PUBLISH_RETRY_PAUSE).await,
            Ok(_) | Err(_) => return Outcome { line, size, result },
        }
    }
}
