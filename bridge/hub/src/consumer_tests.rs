//! Goal: names and the verdict on existing consumers. Method: configurations as the server returns them.
use super::*;

fn spec() -> ConsumerSpec {
    ConsumerSpec {
        stream: "ORDERS".to_owned(),
        prefix: "fanin".to_owned(),
        mapping: "orders".to_owned(),
        incarnation: Incarnation(0x1234_5678_9abc_def0),
        generation: 0,
        filter_subjects: vec!["b".to_owned(), "a".to_owned()],
        ack_wait: Duration::from_secs(30),
        nodes: 3,
        in_flight_per_node: 1000,
    }
}

#[test]
fn names() {
    assert_eq!(spec().name(), "fanin-orders-12345678");
    assert_eq!(
        ConsumerSpec {
            generation: 2,
            prefix: "a.b".into(),
            ..spec()
        }
        .name(),
        "a_b-orders-12345678-g2"
    );
}

#[test]
fn an_equal_one_is_accepted_and_single_filters_are_too() {
    let config = spec().config(CreatePolicy::FromStart);
    assert_eq!(spec().verify(&config, CreatePolicy::Never), vec![]);
    let one = ConsumerSpec {
        filter_subjects: vec!["a".into()],
        ..spec()
    };
    let mut config = one.config(CreatePolicy::FromStart);
    config["filter_subject"] = json!("a");
    config["filter_subjects"] = Value::Null;
    assert_eq!(one.verify(&config, CreatePolicy::Never), vec![]);
}

#[test]
fn each_setting_is_named() {
    for (setting, value) in [
        ("durable_name", json!("other")),
        ("ack_policy", json!("none")),
        ("max_deliver", json!(5)),
        ("replay_policy", json!("original")),
        ("filter_subjects", json!(["a"])),
        ("headers_only", json!(true)),
        ("mem_storage", json!(true)),
        ("deliver_subject", json!("x")),
        ("inactive_threshold", json!(1)),
        ("backoff", json!([1])),
        ("priority_policy", json!("overflow")),
        ("ack_wait", json!(1)),
        ("max_ack_pending", json!(1_000)),
        ("max_waiting", json!(1)),
        ("max_batch", json!(1)),
        ("num_replicas", json!(1)),
        ("rate_limit_bps", json!(1)),
        ("deliver_policy", json!("new")),
    ] {
        let mut config = spec().config(CreatePolicy::FromStart);
        config[setting] = value;
        let mismatches = spec().verify(&config, CreatePolicy::Never);
        assert_eq!(
            mismatches.iter().map(|m| m.setting.as_str()).collect::<Vec<_>>(),
            [setting]
        );
        let grows = ["max_ack_pending", "max_waiting"].contains(&setting);
        assert_eq!(spec().only_grows(&config, &mismatches), grows, "{setting}");
    }
    for name in ["fanin.mapping", "fanin.incarnation", "fanin.generation"] {
        let mut config = spec().config(CreatePolicy::FromStart);
        config["metadata"][name] = json!("other");
        let mismatches = spec().verify(&config, CreatePolicy::Never);
        assert_eq!(
            mismatches.iter().map(|m| m.setting.as_str()).collect::<Vec<_>>(),
            [format!("metadata {name}")]
        );
    }
}

#[test]
fn sizes_only_grow_and_only_alone() {
    let judge = |changes: &[(&str, Value)]| {
        let mut config = spec().config(CreatePolicy::FromStart);
        for (setting, value) in changes {
            config[*setting] = value.clone();
        }
        spec().only_grows(&config, &spec().verify(&config, CreatePolicy::Never))
    };
    assert!(judge(&[
        ("max_ack_pending", json!(5_999)),
        ("max_waiting", json!(511))
    ]));
    for larger in [json!(6_001), json!(-1), Value::Null] {
        assert!(!judge(&[("max_ack_pending", larger)]));
    }
    assert!(!judge(&[
        ("max_ack_pending", json!(5_999)),
        ("max_waiting", json!(513))
    ]));
    assert!(!judge(&[
        ("max_ack_pending", json!(5_999)),
        ("ack_wait", json!(1))
    ]));
}

#[test]
fn a_start_behind_the_watermark_is_refused() {
    let config = spec().config(CreatePolicy::After(StreamSeq(10)));
    assert!(start_mismatch(&config, CreatePolicy::After(StreamSeq(10))).is_none());
    assert!(start_mismatch(&config, CreatePolicy::After(StreamSeq(9))).is_some());
    assert!(start_mismatch(&config, CreatePolicy::FromStart).is_some());
}
