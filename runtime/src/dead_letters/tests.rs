use super::*;
use crate::effects::dead_letter::decode_redriven;
use crate::ledger;
use crate::log::memory::MemoryLog;

const LEDGER: &str = "L";

/// A ledger, a source `S` and the names of handler `h`.
async fn system() -> (MemoryLog, HandlerNames) {
    let log = MemoryLog::new();
    let config = crate::config::Ledger {
        name: LEDGER.into(),
        subjects: vec!["out.>".into()],
        replicas: 1,
        event_ttl: None,
    };
    ledger::ensure(&log, &config).await.expect("a ledger");
    let mut settings = ledger::ledger_settings(&config);
    settings.subjects = vec!["s.>".into()];
    log.create_stream("S", &settings).await.expect("a source");
    (log, HandlerNames::new(LEDGER, "h", 1))
}

async fn publish(log: &MemoryLog, data: &'static [u8]) -> Stored {
    let event = Append {
        subject: "s.a".into(),
        data: Bytes::from_static(data),
        ..Append::default()
    };
    let sequence = log.append("S", vec![event]).await.expect("published").sequence;
    log.get("S", sequence)
        .await
        .expect("an answer")
        .expect("the event")
}

/// Dead-letters an event as a host does.
async fn dead_letter(log: &MemoryLog, names: &HandlerNames, event: &Stored, body: Body) -> String {
    let letter = DeadLetter {
        id: format!("S:{}", event.sequence),
        stream: "S".into(),
        sequence: event.sequence,
        subject: event.subject.to_string(),
        key: "k".into(),
        time: event.time,
        timer: None,
        headers: Vec::new(),
        headers_dropped: 0,
        handler: "h".into(),
        handler_version: "1".into(),
        handler_digest: "00".into(),
        partition: 2,
        attempts: 5,
        kind: "reject".into(),
        reason: "no such aircraft".into(),
        backtrace: None,
        body,
        quiet: false,
    };
    let mut batch = vec![Append {
        subject: names.dead_letter(2, &letter.id),
        data: serde_json::to_vec(&letter).expect("plain data").into(),
        ..Append::default()
    }];
    if body == Body::Message {
        batch.push(Append {
            subject: names.dead_letter_body(2, &letter.id),
            data: event.data.clone(),
            ..Append::default()
        });
    }
    log.append(LEDGER, batch).await.expect("dead-lettered");
    letter.id
}

async fn ids(letters: DeadLetters<'_>) -> Vec<String> {
    let found = letters.list().await.expect("a list");
    found.into_iter().map(|found| found.letter.id).collect()
}

#[tokio::test]
async fn redriving_moves_the_event_and_removes_the_letter_at_once() {
    let (log, names) = system().await;
    let letters = DeadLetters::new(&log, &names);
    let event = publish(&log, b"payload").await;
    for body in [Body::Message, Body::Reference] {
        let id = dead_letter(&log, &names, &event, body).await;
        assert_eq!(ids(letters).await, std::slice::from_ref(&id));
        let found = letters.find(&id).await.expect("the letter");
        assert_eq!(
            letters.payload(&found.letter).await.expect("its payload"),
            event.data
        );
        letters.redrive(&found).await.expect("redriven");

        assert!(ids(letters).await.is_empty());
        assert!(matches!(letters.find(&id).await, Err(Error::NotFound { .. })));
        let redriven = log.last(LEDGER, &names.redriven(2)).await.expect("an answer");
        let (letter, payload) =
            decode_redriven(&redriven.expect("the event").data).expect("a redriven event");
        assert_eq!((letter.id, payload), (id.clone(), event.data.clone()));
        let body = log
            .last(LEDGER, &names.dead_letter_body(2, &id))
            .await
            .expect("an answer");
        assert!(
            body.is_none_or(|message| message.data.is_empty()),
            "the bytes are gone"
        );
    }
}

#[tokio::test]
async fn of_two_people_one_is_refused() {
    let (log, names) = system().await;
    let letters = DeadLetters::new(&log, &names);
    let event = publish(&log, b"x").await;
    let id = dead_letter(&log, &names, &event, Body::Message).await;
    let seen_by_both = letters.find(&id).await.expect("the letter");
    letters.redrive(&seen_by_both).await.expect("the first");
    assert!(matches!(
        letters.redrive(&seen_by_both).await,
        Err(Error::Changed { .. })
    ));
    assert!(matches!(
        letters.forget(&seen_by_both).await,
        Err(Error::Changed { .. })
    ));

    // It failed again: what was seen before is not what is there now.
    dead_letter(&log, &names, &event, Body::Message).await;
    assert!(matches!(
        letters.forget(&seen_by_both).await,
        Err(Error::Changed { .. })
    ));
    assert_eq!(ids(letters).await, std::slice::from_ref(&id));
    letters
        .forget(&letters.find(&id).await.expect("the letter"))
        .await
        .expect("dropped");
    assert!(ids(letters).await.is_empty());
    let redriven = log
        .scan(LEDGER, &names.redriven_all(), 1, 10)
        .await
        .expect("an answer");
    assert_eq!(redriven.len(), 1, "dropping gives nothing back");
}

#[tokio::test]
async fn a_payload_that_is_gone_is_said_and_the_letter_stays() {
    let (log, names) = system().await;
    let letters = DeadLetters::new(&log, &names);
    let event = publish(&log, b"x").await;
    let id = dead_letter(&log, &names, &event, Body::Reference).await;
    log.purge("S", ">", event.sequence + 1).await.expect("purged");
    let found = letters.find(&id).await.expect("the letter");
    let error = letters.redrive(&found).await.expect_err("gone");
    assert!(matches!(error, Error::SourceGone { .. }), "{error}");
    assert!(
        error.to_string().contains("message 1 of stream S is gone"),
        "{error}"
    );
    assert_eq!(ids(letters).await, [id]);
    letters.forget(&found).await.expect("dropped");

    // Another stream of the same name holds another message at that sequence.
    let id = dead_letter(&log, &names, &event, Body::Reference).await;
    log.delete_stream("S");
    let error = letters
        .redrive(&letters.find(&id).await.expect("the letter"))
        .await;
    assert!(matches!(error, Err(Error::SourceGone { .. })));
}

#[tokio::test]
async fn more_than_a_page_is_listed() {
    let (log, names) = system().await;
    let count = PAGE * 2 + 1;
    for _ in 0..count {
        let event = publish(&log, b"x").await;
        dead_letter(&log, &names, &event, Body::Message).await;
    }
    let found = ids(DeadLetters::new(&log, &names)).await;
    assert_eq!(found.len(), count);
    assert_eq!(
        (found[0].as_str(), found[count - 1].as_str()),
        ("S:1", format!("S:{count}").as_str())
    );
}
