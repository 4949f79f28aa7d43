//! Rule 15 through the SDKs of other languages: each shares cells and locks with a handler in
//! Rust, on one host. What one writes the other reads, whichever waits.

use weir::deployment::plugins::Deployed;
use weir::shared::lock::Lock;
use weir_tests::inproc::*;
use weir_tests::plugins::SHARER;

const PARTITIONS: u32 = 2;

/// How many times longer than for anything else a test waits for guests to be compiled: an
/// interpreter takes long, the first time, and more so beside other tests.
const COMPILING: usize = 5;

fn sharer(name: &str, guest: &str, stream: &str, subjects: &str) -> Deployed {
    let manifest = format!(
        "partitions = {PARTITIONS}\n\
         [[source]]\nstream = \"{stream}\"\nsubjects = [\"{subjects}\"]\n\
         [key]\nsubject_token = 2\n[emit]\nsubjects = [\"out.>\"]\n\
         [limits]\nmemory_mib = 64\ntime_ms = 5000\n"
    );
    handler(name, guest, &manifest)
}

/// Publishes an event for the handler in Rust.
async fn tell_rust(world: &World, key: &str, program: &str) -> u64 {
    let subject = format!("others.{key}");
    world
        .publish(OTHER_SOURCE, &subject, Vec::new(), program.to_owned())
        .await
}

/// Waits until all partitions of a handler run.
async fn runs(host: &TestHost, handler: &str) {
    for _ in 0..COMPILING {
        let runs = async || {
            let partitions = host.handler(handler).map_or(Vec::new(), |h| h.partitions);
            !partitions.is_empty() && partitions.iter().all(|p| p.state == "running")
        };
        if comes(runs).await {
            return;
        }
    }
    panic!("handler {handler} does not run");
}

async fn shares(language: &str) {
    let world = World::new().await;
    let guest = format!("tests/fixtures/guests/{language}/sharer");
    let handlers = [
        sharer("it", &guest, SOURCE, "events.>"),
        sharer("rust", SHARER, OTHER_SOURCE, "others.>"),
    ];
    let host = world.host("a", &handlers).await;
    runs(&host, "it").await;
    runs(&host, "rust").await;
    let [it, waits, other] = [0, 1, 2].map(|n| key_in(0, PARTITIONS, n));
    let rust = key_in(1, PARTITIONS, 0);

    // The same bytes, and nothing where there is nothing.
    world
        .tell(
            &it,
            "get sum out.it\nadd sum 1\nget sum out.it\nset text ü\nset gone x\ndelete gone",
        )
        .await;
    world.emitted("out.it", &["<none>", "1"]).await;
    tell_rust(&world, &rust, "add sum 1\nget text out.rust\nget gone out.rust").await;
    world.emitted("out.rust", &["ü", "<none>"]).await;
    world.tell(&it, "get sum out.it").await;
    world.emitted("out.it", &["<none>", "1", "2"]).await;

    // Of two that add to the same number, the slower one adds again, and counts once.
    let before = host.sent(Kind::Commit).len();
    host.next_of(Kind::Commit, ".0", Fate::Hold);
    world.tell(&it, "count mine\nadd sum 10\nget sum out.slow").await;
    eventually("its commit is on its way", async || {
        host.sent(Kind::Commit).len() > before
    })
    .await;
    tell_rust(&world, &rust, "add sum 100\nget sum out.fast").await;
    world.emitted("out.fast", &["102"]).await;
    host.release();
    world.emitted("out.slow", &["112"]).await;
    assert_eq!(world.texts("$WEIR.L.x.c.sum").await, ["112"]);
    assert_eq!(world.cells("it", &it).await["mine"], "1");

    // Where the handler in Rust has the lock, an event waits, with nothing done and its key's
    // later events behind it; other keys pass.
    tell_rust(&world, &rust, "lock van 600000 out.holder").await;
    world.emitted("out.holder", &["1"]).await;
    world
        .tell(
            &waits,
            "count tries\nemit out.waits begins\nlock van 600000 out.waits",
        )
        .await;
    world.tell(&waits, "emit out.waits behind").await;
    world
        .tell(&other, "unlock van\ntry-lock van 600000 out.other")
        .await;
    world.emitted("out.other", &["<held>"]).await;
    world.emitted("out.waits", &[]).await;
    tell_rust(&world, &rust, "unlock van").await;
    world.emitted("out.waits", &["begins", "2", "behind"]).await;
    assert_eq!(world.cells("it", &waits).await["tries"], "1");

    // And the other way round, for as long as it says.
    let van = world.ledger("$WEIR.L.x.l.van").await;
    let van = Lock::decode(van.last().expect("the lock")).expect("a lock");
    assert_eq!(van.until - van.since, 600_000_000_000, "{van:?}");
    tell_rust(&world, &rust, "lock van 600000 out.holder").await;
    world.tell(&waits, "unlock van").await;
    world.emitted("out.holder", &["1", "3"]).await;
    tell_rust(&world, &rust, "unlock van\nemit out.holder back").await;
    world.emitted("out.holder", &["1", "3", "back"]).await;
    world.tell(&other, "try-lock van 600000 out.other").await;
    world.emitted("out.other", &["<held>", "4"]).await;
}

macro_rules! languages {
    ($($name:ident)*) => { $(
        #[tokio::test]
        async fn $name() {
            shares(stringify!($name)).await;
        }
    )* };
}

languages! { go javascript python }
