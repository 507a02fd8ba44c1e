//! What a source stream's settings mean for the delivery that a mapping can hold.

use fanin_config::RequiredDelivery;
use fanin_core::node::Stability;
use fanin_core::record::Terms;
use fanin_hub::SourceInfo;
use fanin_hub::codes;

use super::join::Source;
use super::limits::GENERATIONS_AHEAD_MAX;
use crate::volatile::Volatile;

/// How far a setting takes the hub's word back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// The hub may lose what it acknowledged and give its numbers again: no delivery can be promised.
    Volatile,
    /// Messages go while nodes may still need them: what damage takes from a node cannot be fetched again.
    Forgetful,
}

/// A setting of a source stream that is not as a mapping would have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weakness {
    /// What it can do.
    pub harm: Harm,
    /// The setting's name in the stream's configuration.
    pub setting: &'static str,
    /// Its value.
    pub value: String,
    /// The value that does no harm.
    pub wanted: &'static str,
}

/// A source that cannot hold what the mapping requires.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "stream {stream} has {setting}: {value}, with which required_delivery: {required} cannot be held; it needs {setting}: {wanted}. \
     That cannot be changed on a stream: create it anew so, or remove required_delivery"
)]
pub struct Unfit {
    /// The stream.
    pub stream: String,
    /// The setting's name in the stream's configuration.
    pub setting: &'static str,
    /// Its value.
    pub value: String,
    /// The value needed.
    pub wanted: &'static str,
    /// What the mapping requires.
    pub required: &'static str,
}

/// Every setting of a stream that can do harm, the worst first.
#[must_use]
pub fn weaknesses(info: &SourceInfo) -> Vec<Weakness> {
    let mut found = Vec::new();
    let mut add = |harm, setting, value: String, wanted| {
        found.push(Weakness {
            harm,
            setting,
            value,
            wanted,
        });
    };
    if info.storage != "file" {
        add(Harm::Volatile, "storage", info.storage.clone(), "file");
    }
    if info.persist_mode == "async" {
        add(
            Harm::Volatile,
            "persist_mode",
            info.persist_mode.clone(),
            "default",
        );
    }
    if info.retention != "limits" {
        add(Harm::Forgetful, "retention", info.retention.clone(), "limits");
    }
    if info.max_age_ns > 0 {
        add(Harm::Forgetful, "max_age", seconds(info.max_age_ns), "0");
    }
    // A stream that refuses new messages at its limits keeps the old ones.
    let limits = [
        ("max_bytes", info.max_bytes, !info.discard_new),
        ("max_msgs", info.max_messages, !info.discard_new),
        (
            "max_msgs_per_subject",
            info.max_per_subject,
            !info.discard_new_per_subject,
        ),
    ];
    for (setting, limit, discards) in limits {
        if limit > 0 && discards {
            add(Harm::Forgetful, setting, limit.to_string(), "-1, or discard: new");
        }
    }
    found
}

/// Whether the terms name a later incarnation of a source's stream than the configured one: its generation was raised since, and
/// not in this configuration. One of an earlier generation, or of a stream that was there before, is none.
#[must_use]
pub fn is_superseded(source: &Source, terms: &Terms) -> bool {
    let generation = u64::from(source.generation);
    let own = source.info.incarnation(generation);
    let named = terms.sources.iter();
    let mut others = named.filter(|(named, of)| **named != own && of.stream == source.terms.stream);
    others.any(|(other, _)| {
        let mut later = generation + 1..=generation + GENERATIONS_AHEAD_MAX;
        later.any(|later| source.info.incarnation(later) == *other)
    })
}

fn seconds(nanoseconds: u64) -> String {
    format!("{} s", nanoseconds as f64 / 1e9)
}

/// A required delivery as configurations write it.
#[must_use]
pub fn required_word(required: RequiredDelivery) -> &'static str {
    match required {
        RequiredDelivery::ExactlyOnce => "exactly_once",
        RequiredDelivery::AtLeastOnce => "at_least_once",
    }
}

/// Whether a source can hold what the mapping requires of its deliveries.
///
/// # Errors
/// The first setting in the way.
pub fn judge(required: Option<RequiredDelivery>, info: &SourceInfo) -> Result<(), Unfit> {
    let Some(required) = required else {
        return Ok(());
    };
    match weaknesses(info)
        .into_iter()
        .find(|weakness| weakness.harm == Harm::Volatile)
    {
        None => Ok(()),
        Some(weakness) => Err(Unfit {
            stream: info.stream.clone(),
            setting: weakness.setting,
            value: weakness.value,
            wanted: weakness.wanted,
            required: required_word(required),
        }),
    }
}

/// Tells in the log what the settings of a source can do. For once a start.
pub fn warn(mapping: &str, info: &SourceInfo) {
    for weakness in weaknesses(info) {
        let Weakness {
            harm,
            setting,
            value,
            wanted,
        } = weakness;
        let stream = info.stream.as_str();
        match harm {
            Harm::Volatile => tracing::warn!(
                code = codes::SOURCE_VOLATILE,
                mapping,
                stream,
                setting,
                value,
                wanted,
                "the source may lose messages that the hub has acknowledged, and give their numbers again"
            ),
            Harm::Forgetful => tracing::warn!(
                code = codes::SOURCE_FORGETS,
                mapping,
                stream,
                setting,
                value,
                wanted,
                "the source lets messages go that a node may still need: what damage takes from a node's disk could not be \
                 fetched again, and a lost node's messages could not be delivered by others"
            ),
        }
    }
}

/// The delivery that hub, sources and this node's disk allow, and why, as status shows it. `disk` is the file system of the
/// data directory when it is in memory.
#[must_use]
pub fn delivery<'i>(
    stability: Stability,
    disk: Option<Volatile>,
    sources: impl Iterator<Item = &'i SourceInfo>,
) -> String {
    for info in sources {
        let weaknesses = weaknesses(info);
        if let Some(weakness) = weaknesses.iter().find(|one| one.harm == Harm::Volatile) {
            return format!(
                "best_effort, because stream {} has {}: {}, and may lose what the hub has acknowledged",
                info.stream, weakness.setting, weakness.value
            );
        }
    }
    if let Some(disk) = disk {
        return format!(
            "best_effort, because data_dir is on {}, in memory: a power loss takes what this node has won and not finished",
            disk.name()
        );
    }
    match stability {
        Stability::SyncAlways => {
            "exactly_once, because the hub is declared to sync before it acknowledges (hub.durability: sync_always)"
                .to_owned()
        }
        Stability::After(_) => {
            "at_least_once, because hub.durability is lazy: a power loss of the hub may take back what it acknowledged"
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: every setting that breaks a promise is found, named and judged; harmless ones are not. Method: one setting
    //! changed at a time.
    use super::*;

    fn good() -> SourceInfo {
        SourceInfo {
            stream: "ORDERS".to_owned(),
            created_ns: 1,
            first_seq: 1,
            last_seq: 1,
            last_ns: 1,
            messages: 1,
            bytes: 1,
            subjects: vec!["orders.>".to_owned()],
            retention: "limits".to_owned(),
            storage: "file".to_owned(),
            replicas: 1,
            max_age_ns: 0,
            max_bytes: -1,
            max_messages: -1,
            max_per_subject: -1,
            discard_new: false,
            discard_new_per_subject: false,
            persist_mode: "default".to_owned(),
            mirror: false,
            sourced: false,
            leader: None,
        }
    }

    fn changed(change: impl FnOnce(&mut SourceInfo)) -> SourceInfo {
        let mut info = good();
        change(&mut info);
        info
    }

    #[test]
    fn each_setting_has_its_harm() {
        assert_eq!(weaknesses(&good()), []);
        // A server before 2.12 does not say.
        assert_eq!(weaknesses(&changed(|info| info.persist_mode = String::new())), []);
        let full = changed(|info| {
            info.discard_new = true;
            info.discard_new_per_subject = true;
            (info.max_bytes, info.max_messages, info.max_per_subject) = (1, 1, 1);
        });
        assert_eq!(weaknesses(&full), []);
        for (info, harm, setting, value) in [
            (
                changed(|info| info.storage = "memory".to_owned()),
                Harm::Volatile,
                "storage",
                "memory",
            ),
            (
                changed(|info| info.persist_mode = "async".to_owned()),
                Harm::Volatile,
                "persist_mode",
                "async",
            ),
            (
                changed(|info| info.retention = "workqueue".to_owned()),
                Harm::Forgetful,
                "retention",
                "workqueue",
            ),
            (
                changed(|info| info.max_age_ns = 1_500_000_000),
                Harm::Forgetful,
                "max_age",
                "1.5 s",
            ),
            (
                changed(|info| info.max_bytes = 7),
                Harm::Forgetful,
                "max_bytes",
                "7",
            ),
            (
                changed(|info| info.max_messages = 7),
                Harm::Forgetful,
                "max_msgs",
                "7",
            ),
            (
                changed(|info| {
                    info.max_per_subject = 7;
                    info.discard_new = true;
                }),
                Harm::Forgetful,
                "max_msgs_per_subject",
                "7",
            ),
        ] {
            let found = weaknesses(&info);
            let [one] = &found[..] else { panic!("{found:?}") };
            assert_eq!(
                (one.harm, one.setting, one.value.as_str()),
                (harm, setting, value)
            );
            let judged = judge(Some(RequiredDelivery::ExactlyOnce), &info);
            assert_eq!(judged.is_err(), harm == Harm::Volatile, "{setting}");
            assert_eq!(judge(None, &info), Ok(()));
        }
    }

    /// Goal: only a later generation of the same stream supersedes. Method: terms that name another incarnation beside the own.
    #[test]
    fn a_later_generation_supersedes() {
        let terms = |stream: &str| fanin_core::record::SourceTerms {
            stream: stream.to_owned(),
            filters: Vec::new(),
        };
        let source = Source {
            info: good(),
            generation: 3,
            terms: terms("ORDERS"),
        };
        let beside = |other, stream: &str| {
            let own = source.info.incarnation(3);
            let sources = [(own, terms("ORDERS")), (other, terms(stream))].into();
            let named = Terms {
                version: fanin_core::ids::TermsVersion(1),
                sources,
                apps: std::collections::BTreeMap::new(),
            };
            is_superseded(&source, &named)
        };
        let of = |generation| source.info.incarnation(generation);
        assert!(beside(of(4), "ORDERS") && beside(of(3 + GENERATIONS_AHEAD_MAX), "ORDERS"));
        assert!(!beside(of(2), "ORDERS") && !beside(of(0), "ORDERS") && !beside(of(3), "ORDERS"));
        assert!(!beside(of(4), "OTHERS"));
        let deleted = changed(|info| info.created_ns = 0);
        assert!(!beside(deleted.incarnation(4), "ORDERS"));
    }

    #[test]
    fn a_refusal_names_everything() {
        let info = changed(|info| info.storage = "memory".to_owned());
        for (required, word) in [
            (RequiredDelivery::ExactlyOnce, "exactly_once"),
            (RequiredDelivery::AtLeastOnce, "at_least_once"),
        ] {
            let text = judge(Some(required), &info).unwrap_err().to_string();
            for part in [
                "ORDERS",
                "storage: memory",
                "storage: file",
                word,
                "create it anew",
            ] {
                assert!(text.contains(part), "{part} is not in {text}");
            }
        }
    }

    #[test]
    fn status_says_what_holds() {
        let bad = changed(|info| info.storage = "memory".to_owned());
        let worth = |stability, infos: &[SourceInfo]| delivery(stability, None, infos.iter());
        assert!(worth(Stability::SyncAlways, &[good()]).starts_with("exactly_once, because "));
        assert!(
            worth(Stability::After(1), &[good()])
                .starts_with("at_least_once, because hub.durability is lazy")
        );
        let text = worth(Stability::SyncAlways, &[good(), bad]);
        assert!(
            text.starts_with("best_effort, because stream ORDERS has storage: memory"),
            "{text}"
        );
        let text = delivery(Stability::SyncAlways, Some(Volatile::Tmpfs), [good()].iter());
        assert!(
            text.starts_with("best_effort, because data_dir is on tmpfs"),
            "{text}"
        );
    }
}
