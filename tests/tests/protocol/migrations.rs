//! State across versions of a handler.

use weir::deployment::plugins::Deployed;
use weir_tests::inproc::*;
use weir_tests::plugins::MIGRATING;

/// The handler named `probe`, whose cells are of that version.
fn migrating(state_version: u32) -> Deployed {
    let manifest = format!(
        "partitions = 1\nstate_version = {state_version}\n\
         [[source]]\nstream = \"{SOURCE}\"\nsubjects = [\"events.>\"]\n\
         [key]\nsubject_token = 2\n[emit]\nsubjects = [\"out.>\"]\n"
    );
    handler("probe", MIGRATING, &manifest)
}

/// Each key goes through every version in between, once, together with the first event
/// that needs it; a failed event takes its migration back with it.
#[tokio::test]
async fn cells_are_migrated_with_the_first_event_of_their_key() {
    let world = World::new().await;
    let host = world.host("a", &[probe(1, "")]).await;
    for key in ["early", "late", "refused"] {
        let history = match key {
            "refused" => "refuse",
            _ => "1",
        };
        let event = world.tell(key, &format!("set history {history}")).await;
        world.handled(key, 1, event).await;
    }
    host.drain().await;

    let host = world.host("a", &[migrating(2)]).await;
    let failing = vec![("Fail".to_owned(), "no".to_owned())];
    world.publish(SOURCE, "events.early", failing, "").await;
    world.tell("early", "").await;
    world.tell("early", "").await;
    world.emitted("out.early", &["1>1", "1>1"]).await;
    let event = world.tell("refused", "").await;
    world.handled("refused", 1, event).await;
    eventually("two dead letters", async || {
        host.handler("probe")
            .is_some_and(|handler| handler.dead_letters == 2)
    })
    .await;
    assert_eq!(world.cells("probe", "refused").await["history"], "refuse");
    host.drain().await;

    // Two versions at once, one of them for the first time; from the bucket and from the log.
    let host = world.host("a", &[migrating(4)]).await;
    world.tell("late", "").await;
    world.emitted("out.late", &["1>1>2>3"]).await;
    world.tell("early", "").await;
    world.emitted("out.early", &["1>1", "1>1", "1>1>2>3"]).await;
    // A key that begins here has nothing to migrate.
    let cells = world.cells("probe", "early").await;
    assert_eq!(
        cells.keys().collect::<Vec<_>>(),
        ["history"],
        "the version is hidden"
    );
    host.drain().await;

    // Old code does not touch what newer code has written: the event waits.
    let host = world.host("a", &[migrating(3)]).await;
    world.tell("early", "").await;
    host.partition_is("probe", 0, "retrying").await;
    let reason = host
        .partition_is("probe", 0, "retrying")
        .await
        .reason
        .unwrap_or_default();
    assert!(
        reason.contains("state version 4, and this code is for 3"),
        "{reason}"
    );
    host.drain().await;
    let _host = world.host("a", &[migrating(5)]).await;
    world
        .emitted("out.early", &["1>1", "1>1", "1>1>2>3", "1>1>2>3>4"])
        .await;
}
