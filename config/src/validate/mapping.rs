//! Mappings, their sources and applications, and what two mappings may not share.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{at_most, missing, names, subject, within, within_bytes, within_time};
use crate::codes::Code;
use crate::decode::Context;
use crate::limits::*;
use crate::model::{
    ApplicationConfig, BackoffConfig, Config, Durability, MappingConfig, RequiredDelivery, SourceConfig,
};
use crate::problem::KeyPath;
use crate::units::ByteSize;

pub(super) fn all(cx: &mut Context<'_>, path: &KeyPath, config: &Config) {
    if config.mappings.is_empty() {
        missing(
            cx,
            path,
            "no mapping is given",
            "name at least one, with its sources and applications",
        );
    }
    at_most(cx, path, config.mappings.len(), MAPPINGS_MAX);
    for (name, mapping) in &config.mappings {
        let path = path.key(name);
        label(cx, &path, name, "mapping");
        one(cx, &path, mapping, config);
    }
    topics(cx, path, &config.mappings);
    shared_sources(cx, path, &config.mappings);
}

fn label(cx: &mut Context<'_>, path: &KeyPath, name: &str, what: &str) {
    if !names::is_label(name) {
        let origin = cx.place(path);
        let why =
            format!("the name of a {what} has 1 to {NAME_BYTES_MAX} of the characters a-z, 0-9 and `-`");
        let cure = "choose another name".to_owned();
        // The name is wrong, not what it names: the rest below it is judged all the same.
        cx.problems.push(crate::layers::error(
            Code::BadValue,
            origin,
            path.clone(),
            Some(name.to_owned()),
            why,
            cure,
        ));
    }
}

fn one(cx: &mut Context<'_>, path: &KeyPath, mapping: &MappingConfig, config: &Config) {
    let sources = path.key("sources");
    if mapping.sources.is_empty() {
        missing(
            cx,
            &sources,
            "the mapping has no source",
            "name at least one stream: [{ stream: NAME }]",
        );
    }
    at_most(cx, &sources, mapping.sources.len(), SOURCES_MAX);
    for (index, source) in mapping.sources.iter().enumerate() {
        self::source(cx, &sources.index(index), source);
    }
    for (index, later) in mapping.sources.iter().enumerate() {
        let path = sources.index(index);
        for (before, earlier) in mapping.sources[..index].iter().enumerate() {
            if cx.sound(&path) && cx.sound(&sources.index(before)) && common(earlier, later).is_some() {
                let why = format!(
                    "messages of {} that {} takes already",
                    later.stream,
                    sources.index(before)
                );
                cx.fail(
                    Code::Relation,
                    &path,
                    Some(written(later)),
                    why,
                    "join the two sources, or make their subjects disjoint",
                );
            }
        }
    }
    let topic = path.key("topic");
    if cx.given(&topic) && !names::is_node_name(&mapping.topic) {
        let why = format!(
            "a topic's name has 1 to {NAME_BYTES_MAX} of the characters a-z, A-Z, 0-9, `.`, `_` and `-`"
        );
        cx.fail(
            Code::BadValue,
            &topic,
            Some(mapping.topic.clone()),
            why,
            "choose another name",
        );
    }
    within_time(
        cx,
        &path.key("ack_wait"),
        mapping.ack_wait,
        ACK_WAIT_MIN,
        ACK_WAIT_MAX,
    );
    within(cx, &path.key("nodes"), mapping.nodes, 1, NODES_MAX);
    within(cx, &path.key("in_flight"), mapping.in_flight, 1, IN_FLIGHT_MAX);
    within_time(cx, &path.key("grace"), mapping.grace, Duration::ZERO, GRACE_MAX);
    batch(cx, path, mapping, config);
    let ledger = path.key("ledger").key("max_bytes");
    within_bytes(
        cx,
        &ledger,
        mapping.ledger.max_bytes,
        LEDGER_BYTES_MIN,
        SIZE_BYTES_MAX,
    );
    delivery(cx, &path.key("required_delivery"), mapping, config);
    let applications = path.key("applications");
    if mapping.applications.is_empty() {
        missing(
            cx,
            &applications,
            "the mapping has no application",
            "name at least one, such as `billing: {}`",
        );
    }
    at_most(cx, &applications, mapping.applications.len(), APPLICATIONS_MAX);
    for (name, application) in &mapping.applications {
        let path = applications.key(name);
        label(cx, &path, name, "application");
        self::application(cx, &path, application);
        unmatched(cx, &path, application, mapping, &sources);
    }
    terms_bytes(cx, &sources, mapping);
}

/// What all bridges agree on is one ledger record, of bounded size; one that is too large could not be written.
fn terms_bytes(cx: &mut Context<'_>, sources: &KeyPath, mapping: &MappingConfig) {
    let subject = |subject: &String| subject.len() + TERMS_SUBJECT_BYTES;
    let source = |source: &SourceConfig| {
        TERMS_ENTRY_BYTES + source.stream.len() + source.subjects.iter().map(subject).sum::<usize>()
    };
    let apps = mapping
        .applications
        .keys()
        .map(|name| TERMS_ENTRY_BYTES + name.len());
    let bytes = mapping.sources.iter().map(source).sum::<usize>() + apps.sum::<usize>();
    if bytes > TERMS_BYTES_MAX && cx.sound(sources) {
        let why = format!(
            "its sources and applications take {bytes} bytes in the ledger's terms, which hold {TERMS_BYTES_MAX}"
        );
        let cure = "name fewer or shorter subjects, with wildcards, or split the mapping";
        cx.fail(Code::Relation, sources, Some(format!("{bytes} bytes")), why, cure);
    }
}

/// A source as a file would say it.
fn written(source: &SourceConfig) -> String {
    if source.subjects.is_empty() {
        format!("{{ stream: {} }}", source.stream)
    } else {
        let subjects = source.subjects.join(", ");
        format!("{{ stream: {}, subjects: [{subjects}] }}", source.stream)
    }
}

fn source(cx: &mut Context<'_>, path: &KeyPath, source: &SourceConfig) {
    let stream = path.key("stream");
    if source.stream.is_empty() {
        missing(
            cx,
            &stream,
            "the source names no stream",
            "set `stream` to the stream's name on the hub",
        );
    } else if !names::is_stream_name(&source.stream) {
        let why = "a stream's name has no blanks and none of . * > / \\";
        cx.fail(
            Code::BadValue,
            &stream,
            Some(source.stream.clone()),
            why,
            "write the name as `nats stream ls` shows it",
        );
    }
    let path = path.key("subjects");
    if let Some(excess) = source.subjects.get(SOURCE_SUBJECTS_MAX) {
        let count = source.subjects.len();
        cx.fail(
            Code::BadValue,
            &path.index(SOURCE_SUBJECTS_MAX),
            Some(excess.clone()),
            format!(
                "one of {count} subjects; the ledger's terms hold at most {SOURCE_SUBJECTS_MAX} of a source"
            ),
            "join some with wildcards, or split the mapping",
        );
    } else {
        subjects(cx, &path, &source.subjects, true);
    }
}

fn subjects(cx: &mut Context<'_>, path: &KeyPath, subjects: &[String], disjoint: bool) {
    for (index, pattern) in subjects.iter().enumerate() {
        let path_here = path.index(index);
        if let Err(why) = subject::check_pattern(pattern) {
            cx.fail(
                Code::BadValue,
                &path_here,
                Some(pattern.clone()),
                why,
                "write a subject such as orders.created.>",
            );
            continue;
        }
        for (before, earlier) in subjects[..index].iter().enumerate() {
            let clash = if disjoint {
                subject::overlap(earlier, pattern)
            } else {
                earlier == pattern
            };
            if clash && cx.sound(&path.index(before)) {
                let why = format!("it matches messages that {earlier} matches already");
                let cure = "remove one of the two; the hub takes only subjects that do not overlap";
                cx.fail(Code::Relation, &path_here, Some(pattern.clone()), why, cure);
                break;
            }
        }
    }
}

fn batch(cx: &mut Context<'_>, mapping_path: &KeyPath, mapping: &MappingConfig, config: &Config) {
    let path = mapping_path.key("batch");
    let (messages, bytes, linger) = (path.key("messages"), path.key("bytes"), path.key("linger"));
    within(cx, &messages, mapping.batch.messages, 1, BATCH_MESSAGES_MAX);
    within_bytes(cx, &bytes, mapping.batch.bytes, 1, SIZE_BYTES_MAX);
    within_time(cx, &linger, mapping.batch.linger, Duration::ZERO, GRACE_MAX);
    if cx.sound(&messages)
        && cx.sound(&mapping_path.key("in_flight"))
        && mapping.batch.messages > mapping.in_flight
    {
        let why = format!(
            "more than the {} messages that may be in flight",
            mapping.in_flight
        );
        let cure = "lower batch.messages or raise in_flight";
        cx.fail(
            Code::Relation,
            &messages,
            Some(mapping.batch.messages.to_string()),
            why,
            cure,
        );
    }
    let staged = KeyPath::of(&["memory", "staged"]);
    if cx.sound(&bytes) && cx.sound(&staged) && mapping.batch.bytes > config.memory.staged {
        let (blamed, value) = if cx.given(&bytes) {
            (&bytes, mapping.batch.bytes)
        } else {
            (&staged, config.memory.staged)
        };
        let why = format!(
            "a batch of {} does not fit in memory.staged of {}",
            mapping.batch.bytes, config.memory.staged
        );
        cx.fail(
            Code::Relation,
            blamed,
            Some(value.to_string()),
            why,
            "lower batch.bytes or raise memory.staged",
        );
    }
    // Each mapping has an equal part of it, and of that each of its sources.
    let shares = (config.mappings.len() * mapping.sources.len()).max(1) as u64;
    let share = config.memory.staged.0 / shares;
    if cx.sound(&staged) && share < MEMORY_BYTES_MIN {
        let sources = mapping_path.key("sources");
        let blamed = if cx.given(&staged) { &staged } else { &sources };
        let why = format!(
            "memory.staged of {} leaves {} for each source of {mapping_path}; it needs {}",
            config.memory.staged,
            ByteSize(share),
            ByteSize(MEMORY_BYTES_MIN)
        );
        let cure = "raise memory.staged";
        cx.fail(
            Code::Relation,
            blamed,
            Some(config.memory.staged.to_string()),
            why,
            cure,
        );
    }
    let ack_wait = mapping_path.key("ack_wait");
    if cx.sound(&linger) && cx.sound(&ack_wait) && mapping.batch.linger >= mapping.ack_wait {
        let why = format!(
            "a batch would wait longer than the hub does ({})",
            mapping.ack_wait
        );
        let cure = "lower batch.linger to a small part of ack_wait";
        cx.fail(
            Code::Relation,
            &linger,
            Some(mapping.batch.linger.to_string()),
            why,
            cure,
        );
    }
}

fn delivery(cx: &mut Context<'_>, path: &KeyPath, mapping: &MappingConfig, config: &Config) {
    let durability = KeyPath::of(&["hub", "durability"]);
    match (mapping.required_delivery, config.hub.durability) {
        (Some(RequiredDelivery::ExactlyOnce), Durability::Lazy) if cx.sound(&durability) => {
            let why =
                "exactly_once cannot be held: the hub is declared `lazy`, and may lose what it acknowledged";
            let cure = "run the hub with `sync_interval: always` and set hub.durability to sync_always, or remove this key";
            cx.fail(Code::Relation, path, Some("exactly_once".to_owned()), why, cure);
        }
        (
            Some(RequiredDelivery::ExactlyOnce | RequiredDelivery::AtLeastOnce) | None,
            Durability::Lazy | Durability::SyncAlways,
        ) => {}
    }
}

fn application(cx: &mut Context<'_>, path: &KeyPath, application: &ApplicationConfig) {
    let (in_flight, instance) = (path.key("in_flight"), path.key("instance_in_flight"));
    within(
        cx,
        &path.key("max_attempts"),
        application.max_attempts,
        1,
        ATTEMPTS_MAX,
    );
    within_time(cx, &path.key("lease"), application.lease, LEASE_MIN, GRACE_MAX);
    within(cx, &in_flight, application.in_flight, 1, IN_FLIGHT_MAX);
    within(cx, &instance, application.instance_in_flight, 1, IN_FLIGHT_MAX);
    if cx.sound(&in_flight) && cx.sound(&instance) && application.instance_in_flight > application.in_flight {
        let why = format!(
            "one instance may not hold more than the application's in_flight of {}",
            application.in_flight
        );
        let cure = "lower instance_in_flight or raise in_flight";
        cx.fail(
            Code::Relation,
            &instance,
            Some(application.instance_in_flight.to_string()),
            why,
            cure,
        );
    }
    backoff(cx, &path.key("backoff"), &application.backoff);
    let users = path.key("users");
    if let Some(named) = &application.users {
        at_most(cx, &users, named.len(), USERS_MAX);
        if named.is_empty() {
            missing(
                cx,
                &users,
                "no user is named, so that nobody could be an instance",
                "name at least one, or remove the key to let everybody who may open the socket",
            );
        }
    }
    if let Some(filter) = &application.filter {
        let path = path.key("filter").key("subjects");
        if filter.subjects.is_empty() {
            missing(
                cx,
                &path,
                "the filter has no subject",
                "name at least one, or remove the filter",
            );
        }
        at_most(cx, &path, filter.subjects.len(), SUBJECTS_MAX);
        subjects(cx, &path, &filter.subjects, false);
    }
}

fn backoff(cx: &mut Context<'_>, path: &KeyPath, backoff: &BackoffConfig) {
    let (initial, max) = (path.key("initial"), path.key("max"));
    within_time(cx, &initial, backoff.initial, Duration::ZERO, DURATION_MAX);
    within_time(cx, &max, backoff.max, Duration::ZERO, DURATION_MAX);
    within(cx, &path.key("factor"), backoff.factor, 1.0, BACKOFF_FACTOR_MAX);
    if cx.sound(&initial) && cx.sound(&max) && backoff.initial > backoff.max {
        let why = format!("the first wait is longer than the longest one of {}", backoff.max);
        cx.fail(
            Code::Relation,
            &initial,
            Some(backoff.initial.to_string()),
            why,
            "lower initial or raise max",
        );
    }
}

/// Warns of a filter that no subject of the sources can match.
fn unmatched(
    cx: &mut Context<'_>,
    path: &KeyPath,
    application: &ApplicationConfig,
    mapping: &MappingConfig,
    sources: &KeyPath,
) {
    let Some(filter) = &application.filter else { return };
    let path = path.key("filter").key("subjects");
    if mapping.sources.iter().any(|source| source.subjects.is_empty())
        || !cx.sound(sources)
        || !cx.sound(&path)
    {
        return;
    }
    let taken: Vec<&String> = mapping
        .sources
        .iter()
        .flat_map(|source| &source.subjects)
        .collect();
    for (index, pattern) in filter.subjects.iter().enumerate() {
        if !taken.iter().any(|subject| subject::overlap(subject, pattern)) {
            let why = "no subject of the mapping's sources can match it".to_owned();
            let cure = "correct it, or widen the subjects of the sources";
            cx.warn(
                Code::NeverMatches,
                &path.index(index),
                Some(pattern.clone()),
                why,
                cure,
            );
        }
    }
}

fn topics(cx: &mut Context<'_>, path: &KeyPath, mappings: &BTreeMap<String, MappingConfig>) {
    let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, mapping) in mappings {
        let topic = path.key(name).key("topic");
        if !cx.sound(&topic) {
            continue;
        }
        let Some(owner) = owners.insert(&mapping.topic, name) else {
            continue;
        };
        // One of the two names its topic; the other may have it by its own name.
        let (blamed, other) = if cx.given(&topic) {
            (topic, owner)
        } else {
            (path.key(owner).key("topic"), name.as_str())
        };
        let place = cx.place(&path.key(other));
        let why = format!("the mapping {other} ({place}) has this topic already");
        cx.fail(
            Code::Relation,
            &blamed,
            Some(mapping.topic.clone()),
            why,
            "give each mapping a topic of its own",
        );
    }
}

/// A subject of `left` and one of `right` that overlap, when both are of one stream.
fn common<'s>(left: &'s SourceConfig, right: &'s SourceConfig) -> Option<(&'s str, &'s str)> {
    fn all(source: &SourceConfig) -> Vec<&str> {
        if source.subjects.is_empty() {
            vec![">"]
        } else {
            source.subjects.iter().map(String::as_str).collect()
        }
    }
    if left.stream != right.stream {
        return None;
    }
    let rights = all(right);
    all(left).into_iter().find_map(|left| {
        let right = rights.iter().find(|right| subject::overlap(left, right))?;
        Some((left, *right))
    })
}

fn shared_sources(cx: &mut Context<'_>, path: &KeyPath, mappings: &BTreeMap<String, MappingConfig>) {
    let mappings: Vec<_> = mappings.iter().collect();
    for (place, (name, mapping)) in mappings.iter().enumerate() {
        for (index, source) in mapping.sources.iter().enumerate() {
            let here = path.key(name).key("sources").index(index);
            for (other, earlier) in &mappings[..place] {
                let there = path.key(other).key("sources");
                let shared = earlier.sources.iter().find_map(|earlier| common(earlier, source));
                if let Some((left, right)) = shared
                    && cx.sound(&here)
                    && cx.sound(&there)
                {
                    let why = format!(
                        "the mapping {other} ({}) takes {left} of this stream, which meets {right}",
                        cx.place(&there)
                    );
                    let cure =
                        "if each message shall reach both topics, nothing; otherwise narrow the subjects";
                    cx.warn(Code::SharedSource, &here, Some(source.stream.clone()), why, cure);
                }
            }
        }
    }
}
