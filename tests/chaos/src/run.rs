//! One run: everything is started, the schedule is played, everything comes to rest, and the checker is asked.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use fanin_localhub::{ServerBinary, Version};
use fanin_tests::wait::patience;
use tokio::time::{Instant, sleep_until, timeout};

use crate::check::{Verdict, judge_dir};
use crate::error::{RunError, during};
use crate::faults::{self, Outcome};
use crate::history::now_ms;
use crate::holdings;
use crate::hub::HubOptions;
use crate::limits::{ACK_WAIT, ACT_TIMEOUT, APPS, BROKEN_FEED, BROKEN_REST, QUIET, REST_TIMEOUT};
use crate::listed::{
    Break, Claim, LISTED_FILE, Listed, NodeListed, Played, Promise, Repair, Source, Standing,
};
use crate::plan::{Fault, Kind, Plan, Step, Wish};
use crate::world::World;
use crate::{HubKind, Sync};

/// Between two looks at everything.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Rest must last this long: what is delivered again comes within the hub's wait.
const REST_LASTS: Duration = Duration::from_millis(ACK_WAIT.as_millis() as u64 + 1_500);
/// While faults go on, an operator looks so often whether a consumer whose deletion is over is there again.
const OPERATOR_AGAIN: Duration = Duration::from_secs(4);
/// An operator looks at a consumer that is not there this often.
const OPERATOR_PAUSE: Duration = Duration::from_secs(15);

tokio::task_local! {
    /// Which of several runs at once this is; stands before each line it prints.
    pub(crate) static LABEL: String;
}

/// Prints what the run does now.
pub(crate) fn tell(text: &str) {
    match LABEL.try_with(|label| eprintln!("[{label}] {text}")) {
        Ok(()) => {}
        Err(_alone) => eprintln!("{text}"),
    }
}

/// One run: everything that tells it.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) wish: Wish,
    pub(crate) hub: HubKind,
    pub(crate) sync: Sync,
    pub(crate) binary: ServerBinary,
    /// The kinds that were asked for; empty: the usual ones.
    pub(crate) faults: Vec<Kind>,
    /// Where histories, logs and the list are left; `None`: in a temporary directory, kept when the run is red.
    pub(crate) dir: Option<PathBuf>,
}

impl Order {
    /// The words that play it again.
    pub(crate) fn words(&self) -> String {
        let value = |value: Option<clap::builder::PossibleValue>| {
            value.map(|value| value.get_name().to_owned()).unwrap_or_default()
        };
        let faults: Vec<String> = self.faults.iter().map(|kind| kind.name()).collect();
        let faults = if faults.is_empty() {
            String::new()
        } else {
            format!(" --faults {}", faults.join(","))
        };
        format!(
            "--seed {} --minutes {} --hub {} --sync {} --server {}{faults}",
            self.wish.seed,
            self.wish.time.as_secs_f64() / 60.0,
            value(self.hub.to_possible_value()),
            value(self.sync.to_possible_value()),
            self.binary.version()
        )
    }
}

/// Runs and judges.
pub(crate) async fn run(order: &Order) -> Result<Verdict, RunError> {
    let wish = &order.wish;
    let plan = Plan::new(wish);
    let temporary = tempfile::Builder::new().prefix("fanin-chaos-").tempdir();
    let temporary = temporary.map_err(during("making the run's directory"))?;
    let dir = order
        .dir
        .clone()
        .unwrap_or_else(|| temporary.path().to_path_buf());
    fs::create_dir_all(&dir).map_err(during("making the run's directory"))?;
    tell(&format!(
        "{}: {} faults in {} s, judged as {:?}",
        order.words(),
        plan.steps.len() + usize::from(plan.last.is_some()),
        wish.time.as_secs(),
        plan.promise
    ));
    let options = HubOptions {
        binary: order.binary.clone(),
        clustered: order.hub == HubKind::R3,
        sync_always: order.sync == Sync::Always,
        dir: dir.join("hub"),
    };
    let mut world = World::start(&options, &dir).await?;
    let listed = play(&mut world, &plan, wish.time).await?;
    let text = serde_json::to_vec_pretty(&listed).map_err(during("writing the list"))?;
    fs::write(dir.join(LISTED_FILE), text).map_err(during("writing the list"))?;
    drop(world);
    let verdict = judge_dir(&dir).map_err(during("judging"))?;
    if !verdict.green && order.dir.is_none() {
        tell(&format!("kept in {}", temporary.keep().display()));
    }
    Ok(verdict)
}

/// A server by its path or its version; `None`: what the test harness takes.
pub(crate) async fn server_binary(wanted: Option<String>) -> Result<ServerBinary, RunError> {
    let find = move || {
        let Some(wanted) = wanted else {
            return ServerBinary::find_or_fetch(None).map_err(during("finding a nats-server"));
        };
        match Version::find_in(&wanted) {
            Some(version) if !wanted.contains('/') => {
                ServerBinary::of_version(version).map_err(|error| RunError(chain(&error)))
            }
            Some(_) | None => ServerBinary::at(wanted).map_err(during("trying a nats-server")),
        }
    };
    tokio::task::spawn_blocking(find)
        .await
        .map_err(during("finding a nats-server"))?
}

/// An error with everything behind it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Plays the schedule and everything behind it; tells what the bridges list.
async fn play(world: &mut World, plan: &Plan, time: Duration) -> Result<Listed, RunError> {
    let start = Instant::now();
    let mut faults = play_steps(world, plan, start).await?;
    wait_until(world, start + time).await?;
    let mut broken = None;
    if let Some(last) = &plan.last {
        for node in &mut world.nodes {
            if node.tells_of_losses() {
                let name = node.bridge.node();
                let text = format!("{name} says that the source has lost messages, which it had not");
                world.trouble.push(text);
            }
            node.forget();
        }
        let begun = act(world, true, last, start).await?;
        let begun_ms = now_ms();
        wait_until(world, Instant::now() + last.lasts).await?;
        let seen = world.source_seen().await;
        let ended = act(world, false, last, start).await?;
        let outcome = ended.or(begun);
        broken = Some(Break {
            copied_ms: world.copied.map(|copied| copied.at_ms),
            // What has no end is over at once: what is stored behind it is stored in another source already.
            ended_ms: if last.fault.is_momentary() {
                begun_ms
            } else {
                now_ms()
            },
            takes: last.fault.takes(),
            seen,
            bit: outcome == Some(Outcome::Done),
        });
        note(&mut faults, last, outcome);
        wait_until(world, Instant::now() + BROKEN_FEED).await?;
    }
    let mut trouble = Vec::new();
    if let Err(RunError(why)) = world.producer.stop().await {
        trouble.push(why);
    }
    match plan.promise {
        Promise::ExactlyOnce => trouble.extend(rest(world, plan).await.err()),
        Promise::Listed => trouble.extend(broken_rest(world, plan).await.err()),
    }
    for instance in &mut world.instances {
        if let Err(RunError(why)) = instance.stop().await {
            trouble.push(why);
        }
    }
    let nodes = world.listed().await;
    let told = match plan.promise {
        Promise::ExactlyOnce => {
            trouble.extend(holdings::findings(&world.nodes).await?);
            Told::default()
        }
        Promise::Listed => ask(world, &nodes, &mut trouble).await?,
    };
    world.keep_logs()?;
    for node in world.nodes.iter().filter(|node| !node.is_refused()) {
        if let Err(error) = node.bridge.stop().await {
            trouble.push(format!("stopping {}: {error}", node.bridge.node()));
        }
    }
    world.keep_logs()?;
    trouble.append(&mut world.trouble);
    Ok(Listed {
        promise: plan.promise,
        apps: APPS.iter().map(|app| (*app).to_owned()).collect(),
        nodes,
        claims: told.claims,
        closed: told.closed,
        source: told.source,
        repair: told.repair,
        broken,
        trouble,
        faults,
    })
}

/// What ledger and source tell at the end of a run that broke the promise.
#[derive(Debug, Default)]
struct Told {
    claims: Vec<Claim>,
    closed: u64,
    source: Source,
    repair: Option<Repair>,
}

/// Asks ledger and source as they are left: where every bridge goes on, all has to be well again; where one does not, an operator
/// would ask what a repair lists.
async fn ask(world: &World, nodes: &[NodeListed], trouble: &mut Vec<String>) -> Result<Told, RunError> {
    let source = world.hub.source().await?;
    let (claims, closed) = holdings::claims(&world.nodes).await?;
    let mut repair = None;
    if nodes.iter().all(|node| node.standing == Standing::Serving) {
        trouble.extend(holdings::findings(&world.nodes).await?);
    } else {
        match holdings::repair(&world.nodes, nodes, &world.dir).await {
            Ok(listed) => repair = Some(listed),
            Err(RunError(why)) => trouble.push(why),
        }
    }
    Ok(Told {
        claims,
        closed,
        source,
        repair,
    })
}

/// Plays every step, and tells what came of each kind.
async fn play_steps(
    world: &mut World,
    plan: &Plan,
    start: Instant,
) -> Result<BTreeMap<String, Played>, RunError> {
    let mut acts: Vec<(Duration, bool, usize, &Step)> = Vec::new();
    for (number, step) in plan.steps.iter().enumerate() {
        acts.push((step.at, true, number, step));
        acts.push((step.at + step.lasts, false, number, step));
    }
    acts.sort_by_key(|(at, ..)| *at);
    let mut played = BTreeMap::new();
    let mut begun = BTreeMap::new();
    let mut operator = Operator::default();
    for (at, begins, number, step) in acts {
        wait_until(world, start + at).await?;
        operator.help(world).await?;
        let outcome = act(world, begins, step, start).await?;
        if step.kind == Kind::DeleteConsumer {
            operator.note(begins);
        }
        if begins {
            begun.insert(number, outcome);
        } else {
            let outcome = outcome.or(begun.remove(&number).flatten());
            note(&mut played, step, outcome);
        }
    }
    Ok(played)
}

/// Says again what brings a deleted consumer back: other faults may take the first word's effect, and without a consumer all that
/// follows would meet an idle line.
#[derive(Debug, Default)]
struct Operator {
    /// When to look, once a deletion is over.
    looks_at: Option<Instant>,
    /// The node that gets the next word.
    next: usize,
}

impl Operator {
    /// A deletion begins or is over.
    fn note(&mut self, begins: bool) {
        self.looks_at = (!begins).then(|| Instant::now() + OPERATOR_AGAIN);
    }

    async fn help(&mut self, world: &mut World) -> Result<(), RunError> {
        if self.looks_at.is_none_or(|at| Instant::now() < at) {
            return Ok(());
        }
        self.looks_at = Some(Instant::now() + OPERATOR_AGAIN);
        if world.hub.consumer().await.is_ok() {
            self.looks_at = None;
            return Ok(());
        }
        // One whose disk is well, and whose end is awaited by no fault.
        let nodes = world.nodes.len();
        let able = |number: &usize| {
            let node = world.nodes.get(*number);
            node.is_some_and(|node| !node.may_end && !node.disk.is_full())
        };
        let Some(node) = (self.next..self.next + nodes)
            .map(|number| number % nodes)
            .find(able)
        else {
            return Ok(());
        };
        self.next = node + 1;
        tell(&format!(
            "           the operator makes the consumer again, by node {node}"
        ));
        let word = faults::end(world, Fault::DeleteConsumer { node }).await;
        word.map(|_| ())
    }
}

fn note(played: &mut BTreeMap<String, Played>, step: &Step, outcome: Option<Outcome>) {
    let why_not = match outcome {
        Some(Outcome::Done) => None,
        Some(Outcome::Nothing(why)) => Some(why),
        None => Some("nothing is known of it".to_owned()),
    };
    played.entry(step.kind.name()).or_default().note(why_not);
}

/// Begins or ends a fault. `None` when that tells nothing of whether it bit.
async fn act(
    world: &mut World,
    begins: bool,
    step: &Step,
    start: Instant,
) -> Result<Option<Outcome>, RunError> {
    let what = if begins { "+" } else { "-" };
    tell(&format!(
        "{:8.2} s {what} {:?}",
        start.elapsed().as_secs_f64(),
        step.fault
    ));
    let done = async {
        if begins {
            faults::begin(world, step.fault).await.map(Some)
        } else {
            faults::end(world, step.fault).await
        }
    };
    let done = timeout(2 * patience(ACT_TIMEOUT), done).await;
    let done = done.map_err(during(format!("{what} {:?}", step.fault)))?;
    let outcome = done.map_err(during(format!("{what} {:?}", step.fault)))?;
    if let Some(Outcome::Nothing(why)) = &outcome {
        tell(&format!("           did not bite: {why}"));
    }
    Ok(outcome)
}

/// Waits, and looks at everything meanwhile.
async fn wait_until(world: &mut World, when: Instant) -> Result<(), RunError> {
    loop {
        world.look().await?;
        let next = Instant::now() + LOOK_PAUSE;
        if next >= when {
            sleep_until(when).await;
            return Ok(());
        }
        sleep_until(next).await;
    }
}

/// Waits until nothing is under way, and stays so; an operator helps where one has to.
async fn rest(world: &mut World, plan: &Plan) -> Result<(), String> {
    let deletes = plan.steps.iter().any(|step| step.kind == Kind::DeleteConsumer);
    let deadline = Instant::now() + patience(REST_TIMEOUT);
    let mut rested: Option<Instant> = None;
    let mut operator = Instant::now() + OPERATOR_PAUSE;
    loop {
        let looked = wait_until(world, Instant::now() + LOOK_PAUSE).await;
        looked.map_err(|error| error.to_string())?;
        let rests = match world.at_rest().await {
            // What the hub has skipped is found by the watermark only, which a skipped message holds back.
            Ok(()) => world.all_closed().await,
            Err(why) => Err(why),
        };
        match rests {
            Ok(()) => {
                let since = *rested.get_or_insert_with(Instant::now);
                if since.elapsed() >= REST_LASTS {
                    return Ok(());
                }
            }
            Err(why) if Instant::now() > deadline => return Err(format!("no rest: {why}")),
            Err(_) => rested = None,
        }
        if deletes && Instant::now() > operator {
            let node = 0;
            let word = faults::end(world, Fault::DeleteConsumer { node }).await;
            word.map_err(|error| error.to_string())?;
            operator = Instant::now() + OPERATOR_PAUSE;
        }
    }
}

/// Behind the act that breaks the promise: when every bridge goes on, everything must come to rest as ever, also where bridges look
/// twice, a minute apart, before they say what the source has lost. When one does not, the others get some time to finish.
async fn broken_rest(world: &mut World, plan: &Plan) -> Result<(), String> {
    quiet(world).await.map_err(|error| error.to_string())?;
    if world.all_serve().await {
        return match rest(world, plan).await {
            // One that halts only then has said so.
            Err(_) if !world.all_serve().await => Ok(()),
            rested => rested,
        };
    }
    let deadline = Instant::now() + patience(BROKEN_REST);
    while world.those_that_serve_rest().await.is_err() && Instant::now() < deadline {
        let looked = wait_until(world, Instant::now() + LOOK_PAUSE).await;
        looked.map_err(|error| error.to_string())?;
    }
    quiet(world).await.map_err(|error| error.to_string())
}

/// Waits until no instance writes any more.
async fn quiet(world: &mut World) -> Result<(), RunError> {
    let deadline = Instant::now() + patience(REST_TIMEOUT);
    let mut last = (written(&world.dir)?, Instant::now());
    while last.1.elapsed() < QUIET && Instant::now() < deadline {
        wait_until(world, Instant::now() + LOOK_PAUSE).await?;
        let now = written(&world.dir)?;
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    Ok(())
}

/// Bytes of all histories.
fn written(dir: &Path) -> Result<u64, RunError> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).map_err(during("looking at histories"))? {
        let path = entry.map_err(during("looking at histories"))?.path();
        if path.extension().is_some_and(|extension| extension == "ndjson") {
            bytes += fs::metadata(path).map_err(during("looking at histories"))?.len();
        }
    }
    Ok(bytes)
}
