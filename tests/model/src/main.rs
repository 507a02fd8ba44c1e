//! The model checker's command.
#![allow(clippy::print_stdout, reason = "the command's output")]

use fanin_model::configs;
use fanin_model::run::{Limits, Outcome, explore};
use fanin_model::setup::Setup;

fn main() {
    for name in std::env::args().skip(1) {
        let Some(mut config) = configs::named(&name) else { continue }; if let Ok(l) = std::env::var("L") { config.live_every = l.parse().unwrap_or(0); }
        let report = explore(Setup { config, mutant: None, blind: &[] }, Limits { threads: 1, time_max: Some(std::time::Duration::from_secs(std::env::var("T").ok().and_then(|t| t.parse().ok()).unwrap_or(15))), depth_first: std::env::var("BFS").is_err(), ..Limits::default() });
        println!("{name}: {} states, {} unique, depth {}, {:.1} s", report.states, report.unique, report.depth, report.took.as_secs_f64());
        match report.outcome {
            Outcome::Broken { invariant, text, trace } => {
                println!("BROKEN {}: {text}", invariant.title());
                for line in trace { println!("  {line}"); }
            }
            other => println!("{other:?}"),
        }
    }
}
