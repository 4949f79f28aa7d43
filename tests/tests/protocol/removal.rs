//! Rule 11: what is removed commits nothing more.

use weir::commit::record;
use weir::deployment::deploy;
use weir_tests::inproc::*;

/// A host has not heard of the removal, and what it sent to take over partitions that
/// nobody had before arrives after it.
#[tokio::test]
async fn what_never_began_does_not_begin_after_its_removal() {
    let world = World::new().await;
    let link = Link::new(&world.log);
    link.rule(|sent| match sent.kind {
        Kind::Takeover => Fate::Delay,
        _ => Fate::Pass,
    });
    let host = HostOptions::named("a")
        .on(&link)
        .start(&world, &[probe(2, "")])
        .await;
    eventually("both partitions are about to be taken over", async || {
        let sent = link.sent(Kind::Takeover);
        (0..2).all(|partition| {
            let record = world.names("probe").record(partition);
            sent.iter().any(|takeover| takeover.records.contains(&record))
        })
    })
    .await;
    drop(host);
    deploy::remove(&world.log, LEDGER, "probe", "somebody", false)
        .await
        .expect("a removal");
    for arrived in link.deliver().await {
        assert!(arrived.is_err(), "a takeover after the removal: {arrived:?}");
    }
    for partition in 0..2 {
        let records = world.records("probe", partition).await;
        assert_eq!(records.len(), 1, "partition {partition}: {records:?}");
        assert_eq!(records[0].1.kind, record::Kind::Tombstone);
    }
}
