//! The end of the demo: what the instances themselves recorded, against what was published.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::tally::{AppCounts, Share, Tally};

/// What the bridges say when everything should be over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct AtRest {
    /// Messages that wait for an application, over all nodes, leases included.
    pub(crate) backlog: u64,
    /// Messages set aside as dead letters, over all nodes.
    pub(crate) dead_letters: u64,
}

/// What was done to the processes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Faults {
    pub(crate) bridge_kills: u64,
    pub(crate) bridge_pauses: u64,
    pub(crate) instance_kills: u64,
    /// Processes that ended although nobody killed them.
    pub(crate) unexpected_exits: u64,
}

/// One application's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AppVerdict {
    pub(crate) app: String,
    #[serde(flatten)]
    pub(crate) counts: AppCounts,
    pub(crate) share: Share,
}

/// The whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    pub(crate) passed: bool,
    /// Why not.
    pub(crate) reasons: Vec<String>,
    pub(crate) published: u64,
    pub(crate) apps: Vec<AppVerdict>,
    /// Acknowledgements per node, over all applications.
    pub(crate) nodes: BTreeMap<String, u64>,
    pub(crate) faults: Faults,
    /// Absent when a bridge did not answer.
    pub(crate) at_rest: Option<AtRest>,
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
}

/// The facts a verdict is made of.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) tally: &'a Tally,
    pub(crate) published: u64,
    pub(crate) faults: Faults,
    pub(crate) at_rest: Option<AtRest>,
    /// Nothing moved for so long that the run was given up.
    pub(crate) stalled: bool,
    /// Bridges that did not end as they should when they were asked to.
    pub(crate) bad_ends: Vec<String>,
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
}

impl Verdict {
    pub(crate) fn new(facts: &Facts<'_>) -> Self {
        let tally = facts.tally;
        let apps: Vec<AppVerdict> = tally
            .apps()
            .map(|app| AppVerdict {
                app: app.to_owned(),
                counts: tally.counts(app, facts.published),
                share: tally.share(app),
            })
            .collect();
        let mut nodes: BTreeMap<String, u64> = BTreeMap::new();
        for (node, acked) in apps.iter().flat_map(|app| &app.share.nodes) {
            *nodes.entry(node.clone()).or_default() += acked;
        }
        let reasons = reasons(facts, &apps);
        Self {
            passed: reasons.is_empty(),
            reasons,
            published: facts.published,
            apps,
            nodes,
            faults: facts.faults.clone(),
            at_rest: facts.at_rest,
            seed: facts.seed,
            seconds: facts.seconds,
        }
    }

    /// For people, lines of at most 79 columns where names are short.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string never fails.
        let _ = self.write_to(&mut text);
        text
    }

    fn write_to(&self, out: &mut String) -> std::fmt::Result {
        let f = &self.faults;
        writeln!(
            out,
            "verdict: {}, {}, {}, {}, {:.1} s, seed {}",
            counted(self.published, "message"),
            counted(f.bridge_kills, "bridge kill"),
            counted(f.bridge_pauses, "bridge pause"),
            counted(f.instance_kills, "instance kill"),
            self.seconds,
            self.seed
        )?;
        writeln!(out)?;
        writeln!(
            out,
            "{:<12} {:>9} {:>9} {:>8} {:>9} {:>9} {:>9}",
            "application", "once", "unknown*", "missing", "twice", "seen once", "seen more"
        )?;
        for AppVerdict { app, counts: c, .. } in &self.apps {
            writeln!(
                out,
                "{:<12} {:>9} {:>9} {:>8} {:>9} {:>9} {:>9}",
                app,
                c.acknowledged_once,
                c.outcome_unknown,
                c.missing,
                c.acknowledged_twice,
                c.received_once,
                c.received_again
            )?;
        }
        writeln!(out)?;
        let acked: u64 = self.nodes.values().sum();
        for (node, count) in &self.nodes {
            writeln!(
                out,
                "{node:<12} {count:>9} acknowledgements {}",
                percent(*count, acked)
            )?;
            for app in &self.apps {
                let mut parts = Vec::new();
                let total = app.share.nodes.values().sum();
                for (instance, count) in &app.share.instances {
                    if let Some(name) = instance.strip_prefix(&format!("{node}/")) {
                        parts.push(format!("{name} {count} ({})", percent(*count, total)));
                    }
                }
                writeln!(out, "    {}", parts.join(", "))?;
            }
        }
        writeln!(out)?;
        for AppVerdict { app, counts, .. } in &self.apps {
            for (what, ids) in [
                ("missing", &counts.missing_ids),
                ("acknowledged twice", &counts.acknowledged_twice_ids),
            ] {
                if !ids.is_empty() {
                    writeln!(out, "{app}: {what}: {} ...", ids.join(" "))?;
                }
            }
        }
        if self.apps.iter().any(|app| app.counts.outcome_unknown > 0) {
            writeln!(
                out,
                "* received, and its process or bridge was killed before the acknowledgement was\n  \
                 confirmed to it. The node has it on disk: nothing waits there any more."
            )?;
        }
        if self.passed {
            writeln!(
                out,
                "PASSED: every application has every message, none acknowledged twice."
            )?;
        } else {
            for reason in &self.reasons {
                writeln!(out, "FAILED: {reason}")?;
            }
        }
        Ok(())
    }
}

fn reasons(facts: &Facts<'_>, apps: &[AppVerdict]) -> Vec<String> {
    let mut reasons = Vec::new();
    if facts.stalled {
        reasons.push("nothing moved any more before everything was received".to_owned());
    }
    for AppVerdict { app, counts, .. } in apps {
        for (count, what) in [
            (counts.missing, "missing"),
            (counts.acknowledged_twice, "acknowledged twice"),
            (counts.foreign, "not of the input"),
        ] {
            if count > 0 {
                reasons.push(format!("{app}: {} {what}", counted(count, "message")));
            }
        }
    }
    if facts.tally.strangers > 0 {
        reasons.push(format!(
            "{} of unknown applications",
            counted(facts.tally.strangers, "record")
        ));
    }
    match facts.at_rest {
        None => reasons.push("a bridge did not tell its status at the end".to_owned()),
        Some(AtRest {
            backlog,
            dead_letters,
        }) => {
            if backlog > 0 {
                reasons.push(format!(
                    "{} still waiting on the nodes",
                    counted(backlog, "message")
                ));
            }
            if dead_letters > 0 {
                reasons.push(format!("{} set aside as dead", counted(dead_letters, "message")));
            }
        }
    }
    if facts.faults.unexpected_exits > 0 {
        reasons.push(format!(
            "processes ended by themselves: {}",
            facts.faults.unexpected_exits
        ));
    }
    reasons.extend(facts.bad_ends.iter().cloned());
    reasons
}

/// `1 message`, `2 messages`.
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{}%", (part * 100 + whole / 2) / whole)
}

#[cfg(test)]
mod tests {
    // Goal: only a flawless run passes. Method: a flawless tally, then one flaw at a time.
    use super::super::record::{Happened, sample};
    use super::*;

    fn flawless() -> Tally {
        let mut tally = Tally::new("SHOP", ["billing".to_owned(), "shipping".to_owned()]);
        for app in ["billing", "shipping"] {
            for sequence in 1..=10 {
                let node = if sequence % 2 == 0 { "node-1" } else { "node-2" };
                tally.add(&sample(Happened::Received, app, node, sequence));
                tally.add(&sample(Happened::Acked, app, node, sequence));
            }
        }
        tally
    }

    fn facts(tally: &Tally) -> Facts<'_> {
        Facts {
            tally,
            published: 10,
            faults: Faults {
                bridge_kills: 3,
                ..Faults::default()
            },
            at_rest: Some(AtRest::default()),
            stalled: false,
            bad_ends: Vec::new(),
            seed: 1,
            seconds: 1.0,
        }
    }

    #[test]
    fn a_flawless_run_passes_and_says_who_did_what() {
        let tally = flawless();
        let verdict = Verdict::new(&facts(&tally));
        assert!(verdict.passed, "{:?}", verdict.reasons);
        assert_eq!(
            verdict.nodes,
            BTreeMap::from([("node-1".to_owned(), 10), ("node-2".to_owned(), 10)])
        );
        let text = verdict.render();
        assert!(
            text.contains("PASSED") && text.contains("billing-1 5 (50%)"),
            "{text}"
        );
        let json = serde_json::to_value(&verdict).unwrap();
        assert_eq!(json["apps"][0]["acknowledged_once"], 10);
        assert_eq!(json["apps"][0]["missing"], 0);
    }

    #[test]
    fn a_message_received_again_and_an_unknown_outcome_are_no_fault() {
        let mut tally = flawless();
        tally.add(&sample(Happened::Received, "billing", "node-1", 2));
        tally.add(&sample(Happened::Received, "shipping", "node-1", 11));
        tally.add(&sample(Happened::Received, "billing", "node-1", 11));
        let verdict = Verdict::new(&Facts {
            published: 11,
            ..facts(&tally)
        });
        assert!(verdict.passed, "{:?}", verdict.reasons);
        assert_eq!(verdict.apps[0].counts.outcome_unknown, 1);
        assert!(verdict.render().contains("* received"));
    }

    #[test]
    fn each_flaw_fails() {
        let tally = flawless();
        let failing = [
            Facts {
                published: 11,
                ..facts(&tally)
            },
            Facts {
                published: 9,
                ..facts(&tally)
            },
            Facts {
                at_rest: None,
                ..facts(&tally)
            },
            Facts {
                at_rest: Some(AtRest {
                    backlog: 1,
                    dead_letters: 0,
                }),
                ..facts(&tally)
            },
            Facts {
                at_rest: Some(AtRest {
                    backlog: 0,
                    dead_letters: 1,
                }),
                ..facts(&tally)
            },
            Facts {
                faults: Faults {
                    unexpected_exits: 1,
                    ..Faults::default()
                },
                ..facts(&tally)
            },
            Facts {
                stalled: true,
                ..facts(&tally)
            },
            Facts {
                bad_ends: vec!["node-1 ended with 1".to_owned()],
                ..facts(&tally)
            },
        ];
        for facts in failing {
            let verdict = Verdict::new(&facts);
            assert!(
                !verdict.passed && verdict.render().contains("FAILED"),
                "{facts:?}"
            );
        }
        let mut twice = flawless();
        twice.add(&sample(Happened::Acked, "shipping", "node-2", 3));
        let verdict = Verdict::new(&facts(&twice));
        assert_eq!(verdict.reasons, ["shipping: 1 message acknowledged twice"]);
        assert!(verdict.render().contains("shipping: acknowledged twice: SHOP:3"));
    }
}
