//! The permissions that `docs/operations.md` shows are enough for each role, and no
//! more than a few were tried: the snippet itself is the server's configuration.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use weir_tests::bus::{Bus, Outgoing};
use weir_tests::host::{Launch, Weir};
use weir_tests::nats::NatsServer;
use weir_tests::plugins::{Plugins, ROTATIONS, repository};
use weir_tests::{PATIENCE, until};

const ROLES: [&str; 6] = ["host", "deploy", "read", "operate", "publish", "admin"];

const MANIFEST: &str = "partitions = 4\n[[source]]\nstream = \"ORDERS\"\nsubjects = [\"orders.>\"]\n\
                        [key]\nsubject_token = 2\n[emit]\nsubjects = [\"rotations.>\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn each_role_has_what_it_needs() -> Result<()> {
    let page = fs::read_to_string(repository().join("docs/operations.md"))?;
    let (_, rest) = page
        .split_once("<!-- permissions: begin -->")
        .context("the snippet")?;
    let (snippet, _) = rest.split_once("<!-- permissions: end -->").context("its end")?;
    let snippet: Vec<&str> = snippet
        .lines()
        // The store is the test's own.
        .filter(|line| !line.starts_with("```") && !line.starts_with("jetstream"))
        .collect();
    let passwords: Vec<String> = ROLES
        .iter()
        .map(|role| format!("{}_PASSWORD: \"of-{role}\"", role.to_uppercase()))
        .collect();
    let nats = NatsServer::start_with(&format!("{}\n{}", passwords.join("\n"), snippet.join("\n")))?;
    let url = |role: &str| {
        nats.url()
            .replace("nats://", &format!("nats://{role}:of-{role}@"))
    };
    let weir = |role: &str| Weir::new(&url(role), "SHOP");

    let admin = Bus::connect(&url("admin")).await?;
    admin.source("ORDERS", "orders.>").await?;
    let launch = Launch::new(&url("host"), "SHOP", "rotations.>", "".as_ref())?;
    let host = launch.clone().name("a").start().await?;
    let plugins = Plugins::new()?;
    plugins.put("rotations", "1", ROTATIONS, MANIFEST)?;
    let folder = plugins.path().join("rotations").display().to_string();
    weir("deploy").run(&["deploy", &folder]).await?.exits(0)?;
    let other = launch.clone().name("b").start().await?;

    let publisher = Bus::connect(&url("publish")).await?;
    for n in 0..200 {
        publisher
            .publish(Outgoing::new(format!("orders.k{}", n % 20), "{}"))
            .await?;
    }
    until("all is handled", PATIENCE, async || {
        let found = admin.count("SHOP", "rotations.>").await?;
        ensure!(found == 200, "{found}");
        Ok(())
    })
    .await?;
    let stray = Outgoing::new("orders.k1", "{}");
    publisher.publish(stray.header("Weir-Test", "reject")).await?;
    until("it is a dead letter", PATIENCE, async || {
        ensure!(!weir("operate").dead_letters("rotations").await?.is_empty());
        Ok(())
    })
    .await?;

    let take = r#"{"name":"van","holder":"test","ttl_ms":60000}"#;
    let answer = publisher
        .client
        .request("weir.SHOP.locks.take", take.into())
        .await?;
    ensure!(
        answer.payload.starts_with(br#"{"token":1"#),
        "{:?}",
        answer.payload
    );

    for command in [
        &["handlers"][..],
        &["handlers", "--history", "rotations"],
        &["hosts"],
        &["state", "get", "rotations", "k1"],
        &["state", "keys", "rotations"],
        &["dead-letters", "list", "rotations"],
        &["explain", "ORDERS:1"],
        &["locks", "list"],
        &["check"],
    ] {
        weir("read")
            .run(command)
            .await?
            .exits(0)
            .with_context(|| format!("{command:?}"))?;
    }
    for command in [&["pause", "rotations"][..], &["resume", "rotations"]] {
        weir("deploy").run(command).await?.exits(0)?;
    }
    // A reader may not deploy, and a deployer not remove.
    weir("read")
        .run(&["pause", "rotations", "--timeout", "5"])
        .await?
        .exits(1)?;
    weir("deploy").run(&["remove", "rotations"]).await?.exits(1)?;
    weir("operate")
        .run(&["dead-letters", "drop", "rotations", "--all"])
        .await?
        .exits(0)?;
    weir("operate").run(&["locks", "break", "van"]).await?.exits(0)?;
    weir("operate")
        .run(&["remove", "rotations", "--purge-state"])
        .await?
        .exits(0)?;
    for host in [&host, &other] {
        let said = host.stderr();
        ensure!(!said.contains("Permissions Violation"), "{said}");
    }
    Ok(())
}
