use super::*;
use crate::effects::control::Control;

fn decoder(key: Option<KeyFrom>) -> Decoder {
    Decoder {
        source: 0,
        stream: "S".into(),
        key,
        partitions: 4,
        partition_token: None,
        id: None,
        names: HandlerNames::new("L", "h", 1),
    }
}

fn stored(subject: &str, headers: &[(&str, &str)], data: &str) -> Stored {
    Stored {
        subject: subject.into(),
        sequence: 5,
        time: 6,
        headers: headers
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .collect(),
        data: data.to_string().into(),
    }
}

#[test]
fn keys_and_why_there_is_none() {
    let json = |p: &str| KeyFrom::Json(p.into());
    let long = format!(r#"{{"t":"{}"}}"#, "x".repeat(257));
    for (rule, data, expected) in [
        (KeyFrom::Subject, "", Ok("a.b")),
        (KeyFrom::SubjectToken(2), "", Ok("b")),
        (KeyFrom::SubjectToken(3), "", Err("has no token 3")),
        (KeyFrom::Header("H".into()), "", Ok("v")),
        (KeyFrom::Header("X".into()), "", Err("no header `X`")),
        (json("/t"), r#"{"t":"k"}"#, Ok("k")),
        (json("/t"), r#"{"t":7}"#, Ok("7")),
        (json("/t"), r#"{"t":null}"#, Err("is null")),
        (json("/t"), r#"{"t":[]}"#, Err("not a string")),
        (json("/t"), "{}", Err("has no `/t`")),
        (json("/t"), "no", Err("not JSON")),
        (json("/t"), r#"{"t":""}"#, Err("empty")),
        (json("/t"), &long, Err("257 bytes")),
    ] {
        let (_, queued) = event(decoder(Some(rule)).decode(stored("a.b", &[("H", "v")], data)));
        match (expected, queued.refused) {
            (Ok(key), None) => assert_eq!(&*queued.event.key, key),
            (Err(part), Some(reason)) => assert!(reason.contains(part), "{reason}"),
            (expected, refused) => panic!("{data}: expected {expected:?}, got {refused:?}"),
        }
    }
}

#[test]
fn the_ledgers_own_messages_are_no_events() {
    let decoded = decoder(Some(KeyFrom::Subject)).decode(stored("$WEIR.L.c.h.1.0", &[], ""));
    assert!(matches!(decoded, Decoded::Own), "{decoded:?}");
}

fn event(decoded: Decoded) -> (u32, Queued) {
    match decoded {
        Decoded::Event(partition, queued) => (partition, queued),
        other => panic!("no event: {other:?}"),
    }
}

fn timer_of(generation: u64) -> String {
    let key = key_of(3);
    HandlerNames::new("L", "h", 1).timer(3, &key, "t", generation)
}

fn key_of(wanted: u32) -> String {
    (0..)
        .map(|n| format!("k{n}"))
        .find(|key| partition(key, 4) == wanted)
        .expect("keys do not run out")
}

/// The timer that this one replaced is named by a header of the same name,
/// which the message brought along.
#[test]
fn a_fired_timer_is_the_last_one_that_its_headers_name() {
    let (old, new) = (timer_of(8), timer_of(9));
    for headers in [
        &[(SCHEDULER_HEADER, &*new)][..],
        &[(SCHEDULER_HEADER, &*old), (SCHEDULER_HEADER, &*new)],
    ] {
        let (partition, queued) = event(decoder(None).decode(stored("$WEIR.L.f.h.1.3", headers, "x")));
        assert_eq!((partition, queued.event.key.to_string()), (3, key_of(3)));
        assert_eq!((queued.stored, queued.refused), (6, None));
        assert_eq!(
            queued.event.timer,
            Some(FiredTimer {
                name: "t".into(),
                generation: 9
            })
        );
    }
}

#[test]
fn what_is_no_timer_of_the_partition_is_not_taken_for_one() {
    let names = HandlerNames::new("L", "h", 1);
    let key = key_of(3);
    let good = timer_of(9);
    let not_ours = HandlerNames::new("L", "h", 2).timer(3, &key, "t", 9);
    let other_partition = names.timer(2, &key_of(2), "t", 9);
    let wrong_key = names.timer(3, &key_of(2), "t", 9);
    let looks_redriven = timer_of(FiredTimer::REDRIVEN);
    let (padded, signed) = (good.replace(".9", ".09"), good.replace(".9", ".+9"));
    for (subject, scheduler, reason) in [
        ("$WEIR.L.f.h.1.3", None, "no header Nats-Scheduler"),
        ("$WEIR.L.f.h.1.3", Some("s.t"), "`s.t` is no timer"),
        ("$WEIR.L.f.h.1.3", Some(&*not_ours), "no timer of this handler"),
        ("$WEIR.L.f.h.1.3", Some(&*other_partition), "of partition 3"),
        ("$WEIR.L.f.h.1.3", Some(&*wrong_key), "is of partition 2"),
        ("$WEIR.L.f.h.1.3", Some(&*looks_redriven), "of partition 3"),
        ("$WEIR.L.f.h.1.3", Some(&*padded), "of partition 3"),
        ("$WEIR.L.f.h.1.3", Some(&*signed), "of partition 3"),
        ("$WEIR.L.f.h.1.4", Some(&*good), "the handler has 4"),
        ("$WEIR.L.f.h.1.x", Some(&*good), "`x`, which is no partition"),
        ("$WEIR.L.r.h.1.3", None, "ends before its description does"),
    ] {
        let headers: Vec<_> = scheduler.iter().map(|s| (SCHEDULER_HEADER, *s)).collect();
        match decoder(None).decode(stored(subject, &headers, "")) {
            Decoded::Undecodable(why) => assert!(why.reason.contains(reason), "{why:?}"),
            other => panic!("{subject} {scheduler:?}: {other:?}"),
        }
    }
}

fn redriven(partition: u32, key: &str) -> Decoded {
    let letter = serde_json::json!({
        "id": "S:5", "stream": "S", "sequence": 5, "subject": "s.a", "key": key, "time": 1,
        "headers": [], "handler": "h", "handler_version": "1", "handler_digest": "00",
        "partition": partition, "attempts": 1, "kind": "trap", "reason": "", "body": "message",
    });
    let letter = serde_json::from_value(letter).expect("a dead letter");
    let data = dead_letter::encode_redriven(&letter, b"x");
    let stored = Stored {
        data,
        ..stored(&format!("$WEIR.L.r.h.1.{partition}"), &[], "")
    };
    decoder(None).decode(stored)
}

/// The position is in the ledger, whatever the event's own sequence and time are.
#[test]
fn a_redriven_event_has_its_own_time_and_its_messages_place() {
    let (_, queued) = event(redriven(3, &key_of(3)));
    // Its sequence in its own stream is by chance that of its message.
    assert_eq!((queued.event.sequence, queued.event.offset), (5, 5));
    assert_eq!((queued.event.time, queued.stored), (1, 6));
    let (_, without_key) = event(redriven(3, ""));
    assert!(without_key.refused.is_some());
    let decoded = redriven(3, &key_of(1));
    assert!(
        matches!(&decoded, Decoded::Undecodable(why) if why.reason.contains("is of partition 1")),
        "{decoded:?}"
    );
}

/// Who reads by the subject must agree with who keeps state by the key.
#[test]
fn a_partition_in_the_subject_is_that_of_the_key() {
    let decoder = Decoder {
        partition_token: Some(2),
        ..decoder(Some(KeyFrom::SubjectToken(3)))
    };
    let right = partition("k", 4);
    let wrong = (right + 1) % 4;
    let decode = |token: &str| event(decoder.decode(stored(&format!("a.{token}.k"), &[], "")));
    let (there, queued) = decode(&right.to_string());
    assert_eq!((there, queued.refused), (right, None));
    let (there, queued) = decode(&wrong.to_string());
    let reason = queued.refused.expect("another partition's key");
    assert_eq!(there, wrong, "dead-lettered by who reads it");
    assert!(reason.contains(&format!("of partition {right} of 4")), "{reason}");
    for none in ["4", "x", "-1"] {
        let (there, queued) = decode(none);
        assert!(there == right && queued.refused.is_some(), "{none}");
    }
}

/// Its id is that of its message: unique, and its own.
#[test]
fn what_an_operator_says_is_an_event_of_its_key() {
    let key = key_of(3);
    let message = control::encode(&HandlerNames::new("L", "h", 1), 4, &key, Control::Compensate);
    let with = |subject: &str, version: &str, data: Bytes| Stored {
        headers: vec![(control::HEADER.into(), version.into())],
        data,
        ..stored(subject, &[], "")
    };
    let told = with(&message.subject, control::VERSION, message.data.clone());
    let (partition, queued) = event(decoder(None).decode(told));
    assert_eq!((partition, &*queued.event.key), (3, &*key));
    assert_eq!(
        (queued.event.id().as_str(), &*queued.event.subject),
        ("S:5", "$WEIR.control")
    );
    assert_eq!(&queued.event.data[..], br#"{"do":"compensate"}"#);
    for (subject, version, reason) in [
        ("$WEIR.L.r.h.1.2", control::VERSION, "is of partition 3, not 2"),
        ("$WEIR.L.r.h.1.3", "2", "a control event of version 2"),
    ] {
        let told = with(subject, version, message.data.clone());
        match decoder(None).decode(told) {
            Decoded::Undecodable(why) => assert!(why.reason.contains(reason), "{why:?}"),
            other => panic!("{subject}: {other:?}"),
        }
    }
}

/// From a source, the subject alone is worth nothing.
#[test]
fn nobody_else_can_say_what_an_operator_says() {
    let forged = stored(control::SUBJECT, &[(control::HEADER, control::VERSION)], "{}");
    let decoded = decoder(Some(KeyFrom::Subject)).decode(forged);
    assert!(matches!(decoded, Decoded::Own), "{decoded:?}");
}
