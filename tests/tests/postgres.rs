//! PostgreSQL on both sides, with a real server: whatever is killed, and whenever, each row of
//! an outbox is one event of the ledger, and each event is applied to the tables once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio_postgres::Client;
use weir_tests::bus::{Bus, Outgoing, Read};
use weir_tests::host::{Host, Launch, Output, weir};
use weir_tests::nats::NatsServer;
use weir_tests::postgres::{Postgres, service};
use weir_tests::proxy::{Commit, Loss, Proxy};
use weir_tests::{PATIENCE, seed, until};

const LEDGER: &str = "LEDGER";

/// A server of each kind, a ledger, and a session to look with.
struct World {
    nats: NatsServer,
    bus: Bus,
    postgres: Postgres,
    sql: Client,
}

impl World {
    async fn start() -> Result<World> {
        let nats = NatsServer::start()?;
        let bus = Bus::connect(&nats.url()).await?;
        // A host makes the ledger, and is needed for nothing else here.
        let host = Launch::new(&nats.url(), LEDGER, "orders.>,rows.>", "".as_ref())?;
        host.start().await?.term().await?;
        let postgres = Postgres::start()?;
        Ok(World {
            sql: postgres.connect().await?,
            nats,
            bus,
            postgres,
        })
    }

    /// The same with the tables of an outbox, from what `--print-schema` prints.
    async fn with_outbox() -> Result<World> {
        let world = World::start().await?;
        let schema = weir(&["outbox-source", "--print-schema"]).await?.exits(0)?.stdout;
        world.sql.batch_execute(&schema).await?;
        Ok(world)
    }

    fn source_args(&self, nats: &str, more: &[&str]) -> Vec<String> {
        let url = self.postgres.url();
        let args = [
            "outbox-source",
            "--postgres",
            &url,
            "--nats",
            nats,
            "--ledger",
            LEDGER,
        ];
        args.iter().chain(more).map(|word| (*word).to_owned()).collect()
    }

    /// Starts a source without waiting for it.
    fn source(&self, more: &[&str]) -> Result<Host> {
        spawn(&self.source_args(&self.nats.url(), more))
    }

    /// Sends what is left, and ends.
    async fn source_once(&self, more: &[&str]) -> Result<Output> {
        run(&self.source_args(&self.nats.url(), &[more, &["--once"]].concat())).await
    }

    fn sink_args(&self, name: &str, more: &[&str]) -> Vec<String> {
        let (url, nats) = (self.postgres.url(), self.nats.url());
        let args = [
            "postgres-sink",
            "--postgres",
            &url,
            "--nats",
            &nats,
            "--ledger",
            LEDGER,
        ];
        let args = args.iter().chain(&["--subjects", "rows.>", "--name"]);
        args.chain(&[name])
            .chain(more)
            .map(|word| (*word).to_owned())
            .collect()
    }

    fn sink(&self, more: &[&str]) -> Result<Host> {
        spawn(&self.sink_args("orders", more))
    }

    async fn sink_once(&self, name: &str, more: &[&str]) -> Result<Output> {
        run(&self.sink_args(name, &[more, &["--once"]].concat())).await
    }

    async fn insert(&self, subject: &str, payload: &str) -> Result<i64> {
        insert(&self.sql, subject, payload).await
    }

    /// Waits for so many events of an outbox.
    async fn events(&self, count: usize) -> Result<Vec<Read>> {
        until(&format!("{count} events"), PATIENCE, async || {
            let found = self.bus.read(LEDGER, "orders.>").await?;
            ensure!(found.len() >= count, "there are {}", found.len());
            Ok(found)
        })
        .await
    }

    /// Publishes an event that the sink applies.
    async fn publish(&self, subject: &str, operation: &Value) -> Result<u64> {
        self.bus
            .publish(Outgoing::new(subject, operation.to_string()))
            .await
    }

    async fn number(&self, query: &str) -> Result<i64> {
        Ok(self.sql.query_one(query, &[]).await?.get(0))
    }

    /// Waits until a query answers with this number.
    async fn number_is(&self, query: &str, expected: i64) -> Result<()> {
        until(query, PATIENCE, async || {
            let found = self.number(query).await?;
            ensure!(found == expected, "it is {found} instead of {expected}");
            Ok(())
        })
        .await
    }

    /// Ends the sessions of services that have their turn, as a broken network would.
    async fn cut_sessions(&self) -> Result<i64> {
        self.number(
            "select count(pg_terminate_backend(a.pid)) from pg_stat_activity a join pg_locks l on l.pid = a.pid \
             where l.locktype = 'advisory' and a.application_name like 'weir %'",
        )
        .await
    }
}

fn spawn(args: &[String]) -> Result<Host> {
    service(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

async fn run(args: &[String]) -> Result<Output> {
    weir(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
}

async fn insert(sql: &Client, subject: &str, payload: &str) -> Result<i64> {
    let insert = "insert into outbox (subject, payload) values ($1, $2) returning id";
    Ok(sql
        .query_one(insert, &[&subject, &payload.as_bytes()])
        .await?
        .get(0))
}

fn texts(events: &[Read]) -> Vec<String> {
    events.iter().map(Read::text).collect()
}

/// The events are those that were committed, each once, and those of one writer in their order.
fn exactly_once(events: &[Read], committed: &BTreeMap<u32, Vec<String>>) -> Result<()> {
    let mut found: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for text in texts(events) {
        let writer = text.split('-').next().context("a writer")?.parse()?;
        found.entry(writer).or_default().push(text);
    }
    for (writer, rows) in committed {
        let events = found.remove(writer).unwrap_or_default();
        let unique: BTreeSet<&String> = events.iter().collect();
        ensure!(
            unique.len() == events.len(),
            "writer {writer}: {} events are doubled",
            events.len() - unique.len()
        );
        ensure!(
            &events == rows,
            "writer {writer}: {} events of {} rows, or in another order",
            events.len(),
            rows.len()
        );
    }
    ensure!(
        found.is_empty(),
        "events of rows that were never committed: {found:?}"
    );
    Ok(())
}

/// Kills of the process in the tests that kill.
const KILLS: usize = 15;
const WRITERS: u32 = 4;

/// Inserts transactions of some rows until it is told to stop; some are rolled back, some stay
/// open for a moment. Returns what was committed.
async fn write_rows(sql: Client, writer: u32, seed: u64, stop: Arc<AtomicBool>) -> Result<Vec<String>> {
    let mut rng = StdRng::seed_from_u64(seed + u64::from(writer));
    let mut committed = Vec::new();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        sql.batch_execute("begin").await?;
        let mut rows = Vec::new();
        for _ in 0..rng.random_range(1..20) {
            n += 1;
            let row = format!("{writer}-{n}");
            insert(&sql, &format!("orders.{writer}"), &row).await?;
            rows.push(row);
        }
        if rng.random_bool(0.1) {
            // Meanwhile rows of others with higher ids become visible.
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..50))).await;
        }
        if rng.random_bool(0.1) {
            sql.batch_execute("rollback").await?;
        } else {
            sql.batch_execute("commit").await?;
            committed.append(&mut rows);
        }
    }
    Ok(committed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_killed_loses_and_doubles_nothing() -> Result<()> {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::with_outbox().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let sql = world.postgres.connect().await?;
        writers.push(tokio::spawn(write_rows(sql, writer, seed, stop.clone())));
    }
    for kill in 0..KILLS {
        // Rows stay or go: both ends of a claim are in the state row, so that this may change.
        let more: &[&str] = if rng.random_bool(0.5) { &["--delete"] } else { &[] };
        let source = world.source(more)?;
        if kill % 4 != 0 {
            source.ready().await?;
            let before = world.bus.last_sequence(LEDGER).await?;
            until("there is progress", PATIENCE, async || {
                let last = world.bus.last_sequence(LEDGER).await?;
                ensure!(last > before, "the last is {last}");
                Ok(())
            })
            .await?;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..150))).await;
        source.kill().await?;
    }
    stop.store(true, Ordering::Relaxed);
    let mut committed = BTreeMap::new();
    for (writer, task) in (0..).zip(writers) {
        committed.insert(writer, task.await??);
    }
    world.source_once(&["--delete"]).await?.exits(0)?;
    let total: usize = committed.values().map(Vec::len).sum();
    println!("{KILLS} kills, {total} rows");
    exactly_once(&world.events(total).await?, &committed)?;
    world
        .number_is("select count(*) from outbox where sent is null", 0)
        .await?;
    world
        .number_is("select sent from weir_outboxes", i64::try_from(total)?)
        .await?;
    // The record is one message, however often it was written.
    ensure!(world.bus.count(LEDGER, "$WEIR.LEDGER.s.outbox").await? == 1);
    Ok(())
}

/// A row with a lower id that becomes visible later is not passed over, and does not hold up others.
#[tokio::test(flavor = "multi_thread")]
async fn rows_may_become_visible_in_any_order() -> Result<()> {
    let world = World::with_outbox().await?;
    let source = world.source(&[])?;
    source.ready().await?;
    let slow = world.postgres.connect().await?;
    slow.batch_execute("begin").await?;
    let low = insert(&slow, "orders.slow", "low").await?;
    let high = world.insert("orders.fast", "high").await?;
    ensure!(low < high);
    ensure!(texts(&world.events(1).await?) == ["high"]);
    slow.batch_execute("commit").await?;
    let events = world.events(2).await?;
    ensure!(texts(&events) == ["high", "low"], "{events:?}");
    ensure!(events[1].header("Weir-Cause") == Some(format!("postgres:outbox:{low}").as_str()));
    world
        .number_is("select count(*) from outbox where sent is null", 0)
        .await?;
    ensure!(source.term().await? == Some(0), "SIGTERM ends it with 0");
    Ok(())
}

/// What an append became whose answer, or which itself, was lost, is found out and never guessed.
#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_of_the_ledger_are_settled() -> Result<()> {
    let world = World::with_outbox().await?;
    let proxy = Proxy::start(&world.nats.url()).await?;
    let source = spawn(&world.source_args(&proxy.url(), &[]))?;
    source.ready().await?;
    let mut expected = Vec::new();
    for round in 0..2 {
        for loss in [Loss::Reply, Loss::Request, Loss::MidBatch, Loss::AfterRequest] {
            let lost = proxy.lose(Commit::Batch, loss);
            for n in 0..5 {
                let row = format!("{round}-{loss:?}-{n}");
                world.insert("orders.1", &row).await?;
                expected.push(row);
            }
            lost.happened().await?;
            let events = texts(&world.events(expected.len()).await?);
            ensure!(events == expected, "after {loss:?}: {events:?}");
        }
    }
    Ok(())
}

/// The race that the fence is for: the first source has sent a batch that is still on its
/// way when it loses its session and another one takes over. The batch arrives late.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_sources_one_wins() -> Result<()> {
    let world = World::with_outbox().await?;
    let proxy = Proxy::start(&world.nats.url()).await?;
    let first = spawn(&world.source_args(&proxy.url(), &[]))?;
    first.ready().await?;
    let second = world.source(&[])?;
    second.says("another one of this name is at work").await?;
    world.insert("orders.1", "a").await?;
    world.events(1).await?;

    proxy.hold();
    let id = world.insert("orders.1", "b").await?;
    // Claimed by the first one, so it is on its way to the proxy.
    let claimed = format!("select count(*) from weir_outboxes where rows = array[{id}::bigint]");
    world.number_is(&claimed, 1).await?;
    ensure!(world.cut_sessions().await? == 1);
    second.ready().await?;
    world.insert("orders.1", "c").await?;
    let events = texts(&world.events(3).await?);
    ensure!(events == ["a", "b", "c"], "{events:?}");

    proxy.open();
    first.says("another one of this name is at work").await?;
    ensure!(second.term().await? == Some(0));
    world.insert("orders.1", "d").await?;
    let events = texts(&world.events(4).await?);
    ensure!(
        events == ["a", "b", "c", "d"],
        "the first one goes on: {events:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_wait_for_servers_that_are_away() -> Result<()> {
    let mut world = World::with_outbox().await?;
    world
        .sql
        .batch_execute("create table orders (id bigint primary key, n bigint)")
        .await?;
    let (source, sink) = (world.source(&[])?, world.sink(&[])?);
    source.ready().await?;
    sink.ready().await?;
    world.insert("orders.1", "a").await?;
    world.events(1).await?;

    world.postgres.stop()?;
    source.says("waiting; nothing is lost meanwhile").await?;
    world
        .publish(
            "rows.1",
            &json!({"table": "orders", "key": {"id": 1}, "set": {"n": 1}}),
        )
        .await?;
    sink.says("waiting; nothing is lost meanwhile").await?;
    world.postgres.restart()?;
    world.sql = world.postgres.connect().await?;
    world.insert("orders.1", "b").await?;
    world.events(2).await?;
    world
        .number_is("select coalesce(sum(n), 0)::bigint from orders", 1)
        .await?;

    world.nats.kill();
    world.insert("orders.1", "c").await?;
    source.says("connection to NATS lost").await?;
    world.nats.restart()?;
    let events = texts(&world.events(3).await?);
    ensure!(events == ["a", "b", "c"], "{events:?}");
    world
        .publish(
            "rows.1",
            &json!({"table": "orders", "key": {"id": 2}, "set": {"n": 10}}),
        )
        .await?;
    world
        .number_is("select coalesce(sum(n), 0)::bigint from orders", 11)
        .await?;
    ensure!(source.term().await? == Some(0) && sink.term().await? == Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_ledger_cannot_have_are_kept_beside() -> Result<()> {
    let world = World::with_outbox().await?;
    let statement = "insert into outbox (subject, headers, payload) values ($1, $2::text::jsonb, $3)";
    let large = vec![b'x'; 2 * 1024 * 1024];
    for (subject, headers, payload) in [
        ("orders.1", Some(r#"{"Customer": "7"}"#), &b"good"[..]),
        ("orders.*", None, b"x"),
        ("payments.1", None, b"x"),
        ("$JS.API.STREAM.DELETE.LEDGER", None, b"x"),
        ("orders.2", Some(r#"{"Nats-Rollup": "all"}"#), b"x"),
        ("orders.2", Some(r#"{"a": {}}"#), b"x"),
        ("orders.2", None, &large),
        ("orders.3", None, b""),
    ] {
        world
            .sql
            .execute(statement, &[&subject, &headers, &payload])
            .await?;
    }
    world.source_once(&[]).await?.exits(0)?;
    let events = world.events(2).await?;
    ensure!(texts(&events) == ["good", ""], "{:?}", texts(&events));
    ensure!(events[0].header("Customer") == Some("7"));
    let rows = world
        .sql
        .query("select id, reason from outbox_rejected order by id", &[])
        .await?;
    let found: Vec<(i64, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    for ((id, reason), (expected, said)) in found.iter().zip([
        (2, "wildcards"),
        (3, "none of ledger LEDGER"),
        (4, "begin with $"),
        (5, "belongs to the server"),
        (6, "neither text"),
        (7, "max_payload"),
    ]) {
        ensure!(*id == expected && reason.contains(said), "{found:?}");
    }
    ensure!(found.len() == 6, "{found:?}");
    world.number_is("select rejected from weir_outboxes", 6).await?;
    world.number_is("select count(*) from outbox", 2).await?;

    // Once the ledger has the subject, a rejected row can be put back. A source that runs sees the change.
    let source = world.source(&[])?;
    source.ready().await?;
    world
        .bus
        .change(LEDGER, |settings| {
            let subjects = settings["subjects"].as_array_mut().expect("a list");
            subjects.push(json!("payments.>"));
        })
        .await?;
    world
        .sql
        .batch_execute(
            "with back as (delete from outbox_rejected where id = 3 returning subject, headers, payload) \
             insert into outbox (subject, headers, payload) select * from back",
        )
        .await?;
    until("it is in the ledger", PATIENCE, async || {
        ensure!(world.bus.count(LEDGER, "payments.>").await? == 1);
        Ok(())
    })
    .await
}

/// What a URL demands of TLS is done, or nothing is.
#[tokio::test(flavor = "multi_thread")]
async fn tls_is_what_the_url_demands() -> Result<()> {
    let mut world = World::with_outbox().await?;
    let (nats, base) = (world.nats.url(), world.postgres.tcp_url());
    let once = async |query: &str| {
        // A host before the question mark is another one than the certificate's.
        let url = match query.split_once('?') {
            Some((host, query)) if !host.is_empty() => format!("{}?{query}", base.replace("localhost", host)),
            _ => format!("{base}{query}"),
        };
        weir(&[
            "outbox-source",
            "--postgres",
            &url,
            "--nats",
            &nats,
            "--ledger",
            LEDGER,
            "--once",
        ])
        .await
    };
    // A server without TLS.
    for query in ["?sslmode=require", "?sslmode=verify-full"] {
        let said = once(query).await?.exits(1)?.stderr;
        ensure!(said.contains("server does not support TLS"), "{query}: {said}");
    }
    once("").await?.exits(0)?;
    once("?sslmode=disable").await?.exits(0)?;

    // One with a certificate for localhost, of an authority that the system does not know.
    let authority = || -> Result<_> {
        let key = KeyPair::generate()?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok((authority.self_signed(&key)?, key))
    };
    let ((authority, authority_key), (stranger, _)) = (authority()?, authority()?);
    let key = KeyPair::generate()?;
    let certificate =
        CertificateParams::new(vec!["localhost".into()])?.signed_by(&key, &authority, &authority_key)?;
    let root = world.postgres.dir().join("root.pem");
    std::fs::write(&root, authority.pem())?;
    let other = world.postgres.dir().join("other.pem");
    std::fs::write(&other, stranger.pem())?;
    let certificate = world
        .postgres
        .secret("server.pem", certificate.pem().as_bytes())?;
    let key = world
        .postgres
        .secret("server.key", key.serialize_pem().as_bytes())?;
    world.postgres.configure(&format!(
        "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'",
        certificate.display(),
        key.display()
    ))?;
    world.postgres.restart()?;
    once("").await?.exits(0)?;
    once("?sslmode=require").await?.exits(0)?;
    let (root, other) = (root.display(), other.display());
    for query in [
        format!("?sslmode=verify-full&sslrootcert={other}"),
        format!("?sslmode=verify-ca&sslrootcert={other}"),
        format!("?sslmode=require&sslrootcert={other}"),
        format!("127.0.0.1?sslmode=verify-full&sslrootcert={root}"),
    ] {
        let said = once(&query).await?.exits(1)?.stderr;
        ensure!(said.contains("certificate"), "{query}: {said}");
    }
    for query in [
        format!("?sslmode=verify-full&sslrootcert={root}"),
        format!("127.0.0.1?sslmode=verify-ca&sslrootcert={root}"),
        format!("?sslmode=require&sslrootcert={root}"),
    ] {
        once(&query).await?.exits(0)?;
    }
    world.sql = world.postgres.connect().await?;
    world
        .number_is("select count(*) from pg_stat_ssl where ssl", 0)
        .await
}

/// The types that services choose, a schema of its own, and rows that go.
#[tokio::test(flavor = "multi_thread")]
async fn tables_of_services_may_differ() -> Result<()> {
    let world = World::start().await?;
    world
        .sql
        .batch_execute(
            "create schema sales; create table sales.outbox (\
               id serial primary key, tenant text not null default 'x', subject varchar(100), headers json, payload jsonb);\
             insert into sales.outbox (subject, payload) values ('orders.1', '{\"a\": 1.50}'), (null, '1');",
        )
        .await?;
    let args = ["--table", "sales.outbox", "--name", "sales", "--delete"];
    let missing = world.source_once(&args).await?.exits(1)?;
    ensure!(
        missing
            .stderr
            .contains("missing: column sent of table sales.outbox, table"),
        "{}",
        missing.stderr
    );
    world
        .source_once(&[&args[..], &["--create"]].concat())
        .await?
        .exits(0)?;
    let events = world.events(1).await?;
    ensure!(texts(&events) == [r#"{"a": 1.50}"#]);
    ensure!(events[0].header("Weir-Cause") == Some("postgres:sales.outbox:1"));
    world.number_is("select count(*) from sales.outbox", 0).await?;
    world
        .number_is("select count(*) from sales.outbox_rejected", 1)
        .await?;
    // Again: nothing to create, nothing to send.
    world
        .source_once(&[&args[..], &["--create"]].concat())
        .await?
        .exits(0)?;
    ensure!(world.events(1).await?.len() == 1);
    Ok(())
}

/// Where one side is not the one that the other knows, nothing is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_stops_where_it_would_lose_or_double() -> Result<()> {
    let world = World::with_outbox().await?;
    for n in 0..3 {
        world.insert("orders.1", &n.to_string()).await?;
        world.source_once(&[]).await?.exits(0)?;
    }
    world.insert("orders.1", "3").await?;
    let refused = async |said: &str, more: &[&str]| {
        let output = world.source_once(more).await?.exits(1)?;
        ensure!(
            output.stderr.contains(said),
            "expected {said:?}:\n{}",
            output.stderr
        );
        anyhow::Ok(())
    };
    refused("read by source outbox, not other", &["--name", "other"]).await?;

    // The database was restored from an older copy, and from a newer one than the ledger.
    world
        .sql
        .batch_execute("update weir_outboxes set claim = claim - 1")
        .await?;
    refused("it was restored from an older copy", &[]).await?;
    world
        .sql
        .batch_execute("update weir_outboxes set claim = claim + 3")
        .await?;
    refused("the ledger lost its tail", &[]).await?;
    world
        .sql
        .batch_execute("update weir_outboxes set claim = claim - 2")
        .await?;

    world
        .sql
        .batch_execute("update weir_outboxes set term = term + 1000")
        .await?;
    refused("is older than the term", &[]).await?;
    world
        .sql
        .batch_execute("update weir_outboxes set term = term - 1000")
        .await?;

    // Another database has the same name of a source.
    world
        .sql
        .batch_execute("create temp table kept as select * from weir_outboxes; delete from weir_outboxes")
        .await?;
    refused("has read another outbox", &[]).await?;
    world
        .sql
        .batch_execute("delete from weir_outboxes; insert into weir_outboxes select * from kept")
        .await?;

    ensure!(world.events(3).await?.len() == 3, "nothing was sent meanwhile");
    world.source_once(&[]).await?.exits(0)?;
    ensure!(texts(&world.events(4).await?) == ["0", "1", "2", "3"]);

    // The record is gone, and then the whole ledger is another one.
    let settings = world.bus.settings(LEDGER).await?;
    world
        .bus
        .js
        .get_stream(LEDGER)
        .await?
        .purge()
        .filter("$WEIR.LEDGER.s.outbox")
        .await?;
    refused("has no record", &[]).await?;
    world.bus.delete(LEDGER).await?;
    world.bus.create(settings).await?;
    refused("restored from a backup, run: weir adopt LEDGER", &[]).await
}

/// Orders, and a journal of what was done to them, which shows what an upsert hides: doing it twice.
const ORDERS: &str = "
    create table orders (id bigint primary key, status text not null default 'new', total numeric,
      paid timestamptz, tags text[], more jsonb, constraint total_sign check (total >= 0));
    create table journal (n bigserial, id bigint, total numeric);
    create function note() returns trigger language plpgsql as $$ begin
      insert into journal (id, total) values (new.id, new.total); return null; end $$;
    create trigger note after insert or update on orders for each row execute function note();";

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_killed_loses_and_doubles_nothing() -> Result<()> {
    const EVENTS: u32 = 6_000;
    const KEYS: u32 = 50;
    let mut rng = StdRng::seed_from_u64(seed());
    let world = World::start().await?;
    world.sql.batch_execute(ORDERS).await?;
    let mut published = 0;
    for kill in 0..KILLS {
        let upto = EVENTS * (u32::try_from(kill)? + 1) / u32::try_from(KILLS)?;
        let events: Vec<Outgoing> = (published..upto)
            .map(|n| {
                // Some are refused: by a constraint, and because they are no operation.
                let total = if n % 97 == 0 {
                    -i64::from(n) - 1
                } else {
                    i64::from(n)
                };
                let operation = json!({"table": "orders", "key": {"id": n % KEYS}, "set": {"total": total}});
                let text = if n % 101 == 7 {
                    "?".into()
                } else {
                    operation.to_string()
                };
                Outgoing::new(format!("rows.orders.{}", n % KEYS), text)
            })
            .collect();
        world.bus.publish_all(&events).await?;
        published = upto;
        let sink = world.sink(&[])?;
        if kill % 3 != 0 {
            sink.ready().await?;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..200))).await;
        sink.kill().await?;
    }
    world.sink_once("orders", &[]).await?.exits(0)?;
    let good: Vec<u32> = (0..EVENTS).filter(|n| n % 97 != 0 && n % 101 != 7).collect();
    let bad = i64::from(EVENTS) - i64::try_from(good.len())?;
    // Per key, each event once and in the order of the stream.
    let rows = world
        .sql
        .query("select id, total::bigint from journal order by n", &[])
        .await?;
    let mut found: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for row in rows {
        found.entry(row.get(0)).or_default().push(row.get(1));
    }
    let mut expected: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for n in good {
        expected
            .entry(i64::from(n % KEYS))
            .or_default()
            .push(i64::from(n));
    }
    ensure!(found == expected, "the journal differs");
    world
        .number_is("select count(*) from weir_rejected_rows", bad)
        .await?;
    world
        .number_is("select rejected from weir_positions", bad)
        .await?;
    world
        .number_is("select applied + rejected from weir_positions", i64::from(EVENTS))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_applied_by_the_types_of_the_table() -> Result<()> {
    let world = World::start().await?;
    world.sql.batch_execute(ORDERS).await?;
    world
        .sql
        .batch_execute(
            "create table lines (id bigint primary key, \"Order\" bigint references orders (id) deferrable initially deferred);\
             create schema other; create table other.orders (id bigint primary key);",
        )
        .await?;
    let order = |key: Value, set: Value| json!({"table": "orders", "key": {"id": key}, "set": set});
    let line = |id: u32, of: u32| json!({"table": "lines", "key": {"id": id}, "set": {"Order": of}});
    let mut rejected = Vec::new();
    let (good, bad) = (None, Some);
    for (operation, reason) in [
        (
            order(
                json!("7"),
                json!({"total": 12.50, "paid": "2024-05-06T07:08:09Z", "tags": ["a", "b"], "more": {"x": [1]}}),
            ),
            good,
        ),
        // Columns that are not named stay, also where they must not be null.
        (order(json!(7), json!({"status": "paid"})), good),
        (order(json!(8), json!({"total": 1})), good),
        (json!({"table": "orders", "key": {"id": 8}, "delete": true}), good),
        (json!({"table": "orders", "key": {"id": 9}, "delete": true}), good),
        // The order comes after its line, and within one event that is as good.
        (json!([line(1, 10), order(json!(10), json!({}))]), good),
        // In two events it is not, whether they are in one transaction or in two.
        (line(2, 11), bad("lines_Order_fkey")),
        (order(json!(11), json!({})), good),
        // All of an event or nothing of it.
        (
            json!([
                order(json!(12), json!({})),
                order(json!(13), json!({"total": -1}))
            ]),
            bad("total_sign"),
        ),
        (order(json!("seven"), json!({})), bad("invalid input syntax")),
        (order(json!(1), json!({"nope": 1})), bad("nope")),
        (order(json!(1), json!({"status": null})), bad("null value")),
        (order(json!(1), json!({"more": "\u{0}"})), bad("SQLSTATE")),
        (
            json!({"table": "nope", "key": {"id": 1}, "set": {}}),
            bad("does not exist"),
        ),
        (
            json!({"table": "other.orders", "key": {"id": 1}, "set": {}}),
            bad("does not exist"),
        ),
        (
            json!({"table": "orders", "key": {"status": "x"}, "set": {}}),
            bad("no unique"),
        ),
        (
            json!({"table": "weir_positions", "key": {"sink": "orders"}, "delete": true}),
            bad("belong to Weir"),
        ),
        (json!({"table": "orders"}), bad("missing field")),
    ] {
        let sequence = world.publish("rows.x", &operation).await?;
        rejected.extend(reason.map(|reason| (i64::try_from(sequence).unwrap_or(0), reason)));
    }
    world.sink_once("orders", &[]).await?.exits(0)?;
    let rows = world
        .sql
        .query(
            "select sequence, reason from weir_rejected_rows order by sequence",
            &[],
        )
        .await?;
    let found: Vec<(i64, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    ensure!(found.len() == rejected.len(), "{found:#?}");
    for ((sequence, reason), (expected, said)) in found.iter().zip(&rejected) {
        ensure!(
            sequence == expected && reason.contains(said),
            "{reason} of {sequence}, expected {said}"
        );
    }
    let orders: Value = serde_json::from_str(
        &world
            .sql
            .query_one("select jsonb_agg(o order by id)::text from orders o", &[])
            .await?
            .get::<_, String>(0),
    )?;
    ensure!(
        orders
            == json!([
                {"id": 7, "status": "paid", "total": 12.50, "paid": "2024-05-06T07:08:09+00:00", "tags": ["a", "b"], "more": {"x": [1]}},
                {"id": 10, "status": "new", "total": null, "paid": null, "tags": null, "more": null},
                {"id": 11, "status": "new", "total": null, "paid": null, "tags": null, "more": null},
            ]),
        "{orders:#}"
    );
    // Another name reads it all again, into tables of another schema.
    world.sink_once("again", &["--schema", "other"]).await?.exits(0)?;
    world.number_is("select count(*) from other.orders", 1).await?;
    // Numbers keep their digits.
    let digits = r#"{"table":"orders","key":{"id":20},"set":{"total":12345678901234567890.123456789}}"#;
    world.bus.publish(Outgoing::new("rows.x", digits)).await?;
    world.sink_once("orders", &[]).await?.exits(0)?;
    world
        .number_is(
            "select count(*) from orders where total = 12345678901234567890.123456789",
            1,
        )
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_sinks_one_wins() -> Result<()> {
    let world = World::start().await?;
    world.sql.batch_execute(ORDERS).await?;
    let event = async |n: u32| {
        let operation = json!({"table": "orders", "key": {"id": 1}, "set": {"total": n}});
        world.publish("rows.1", &operation).await
    };
    let first = world.sink(&[])?;
    first.ready().await?;
    let second = world.sink(&[])?;
    second.says("another one of this name is at work").await?;
    event(1).await?;
    world.number_is("select count(*) from journal", 1).await?;

    // The first one stands still, and has lost its session when it goes on.
    first.stop().await?;
    ensure!(world.cut_sessions().await? == 1);
    second.ready().await?;
    event(2).await?;
    world.number_is("select count(*) from journal", 2).await?;
    first.cont().await?;
    first.says("another one of this name is at work").await?;
    event(3).await?;
    world.number_is("select count(*) from journal", 3).await?;

    // Whoever believes to be somewhere else than the position finds out before anything is applied.
    let last = event(4).await?;
    world.number_is("select count(*) from journal", 4).await?;
    let moved = format!(
        "update weir_positions set sequence = {} where sink = 'orders'",
        last - 1
    );
    world.sql.batch_execute(&moved).await?;
    world
        .sql
        .batch_execute("update weir_positions set stored = 0")
        .await?;
    event(5).await?;
    second.says("another one of this name has taken over").await?;
    // It reads the position again, and does what that says: the fourth once more, as it was told to.
    world.number_is("select count(*) from journal", 6).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_stops_where_its_stream_is_another_one() -> Result<()> {
    let world = World::start().await?;
    world.sql.batch_execute(ORDERS).await?;
    world.bus.source("IMPORT", "import.>").await?;
    let args = ["--stream", "IMPORT", "--name", "import", "--subjects", "import.>"];
    let mine: Vec<String> = world.sink_args("", &[])[..5].iter().map(String::clone).collect();
    let args: Vec<String> = mine.into_iter().chain(args.map(String::from)).collect();
    let once: Vec<String> = args.iter().cloned().chain(["--once".to_owned()]).collect();
    let event = async |n: u32| {
        let operation = json!({"table": "orders", "key": {"id": 1}, "set": {"total": n}});
        world.publish("import.1", &operation).await
    };
    // Nothing is there yet: that is caught up, too.
    run(&once).await?.exits(0)?;
    for n in 0..3 {
        event(n).await?;
    }
    run(&once).await?.exits(0)?;
    world.number_is("select count(*) from journal", 3).await?;

    // Restored from a backup, it is that stream once somebody says so.
    let backup = world.bus.backup("IMPORT").await?;
    world.bus.delete("IMPORT").await?;
    world.bus.restore(&backup).await?;
    let said = run(&once).await?.exits(1)?.stderr;
    ensure!(said.contains("weir adopt IMPORT"), "{said}");
    let (_, update) = said.split_once("reads it: ").context("what to do")?;
    let (update, _) = update.split_once(". Its tables").context("its end")?;
    world.sql.batch_execute(update).await?;
    run(&once).await?.exits(0)?;
    world.number_is("select count(*) from journal", 3).await?;

    // Messages that were removed before they were read are counted, and the rest is applied.
    for n in 3..8 {
        event(n).await?;
    }
    world
        .bus
        .js
        .get_stream("IMPORT")
        .await?
        .purge()
        .sequence(6)
        .await?;
    let sink = spawn(&args)?;
    world
        .number_is("select lost from weir_positions where sink = 'import'", 2)
        .await?;
    world.number_is("select count(*) from journal", 6).await?;

    let settings = world.bus.settings("IMPORT").await?;
    world.bus.delete("IMPORT").await?;
    world.bus.create(settings).await?;
    for n in 0..10 {
        event(n).await?;
    }
    let (code, said) = sink.ends().await?;
    ensure!(
        code == Some(1) && said.contains("deleted and created again"),
        "{said}"
    );
    let said = run(&once).await?.exits(1)?.stderr;
    ensure!(
        said.contains("delete from weir_positions where sink = 'import'"),
        "{said}"
    );
    world.number_is("select count(*) from journal", 6).await?;
    world
        .sql
        .batch_execute("delete from weir_positions where sink = 'import'")
        .await?;
    run(&once).await?.exits(0)?;
    world.number_is("select count(*) from journal", 16).await?;

    let mut other = once;
    let subjects = other
        .iter()
        .position(|word| word == "import.>")
        .context("subjects")?;
    other[subjects] = "import.2".into();
    let said = run(&other).await?.exits(1)?.stderr;
    ensure!(said.contains("reads import.> so far, not import.2"), "{said}");
    Ok(())
}
