//! What a monitoring system reads from a host.

use anyhow::{Context as _, Result, ensure};
use weir_tests::host::Host;
use weir_tests::system::System;
use weir_tests::{PATIENCE, until};

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_happened() -> Result<()> {
    let system = System::start().await?;
    system.probe()?;
    let host = system.launch.start().await?;
    host.readyz(200, "").await?;
    let (healthy, _) = host.get("/healthz").await?;
    ensure!(healthy == 200, "/healthz is {healthy}");

    // Two good events, one rejected, one that fails in both of its attempts.
    for program in ["set n 1", "set n 2", "reject no", "retry later"] {
        system.tell("k", program).await?;
    }
    for (series, value) in [
        ("weir_events_total{handler=\"probe\"}", 4.0),
        ("weir_dead_letters_total{handler=\"probe\"}", 2.0),
        ("weir_retries_total{handler=\"probe\"}", 1.0),
        ("weir_fenced_total{handler=\"probe\"}", 0.0),
        ("weir_nats_connected", 1.0),
    ] {
        until(&format!("{series} is {value}"), PATIENCE, async || {
            let found = sum(&host, series).await?;
            ensure!(found == value, "it is {found}");
            Ok(())
        })
        .await?;
    }
    until("nothing waits", PATIENCE, async || {
        for series in [
            "weir_lag_events{handler=\"probe\"",
            "weir_unread_events{handler=\"probe\"",
        ] {
            let found = sum(&host, series).await?;
            ensure!(found == 0.0, "{series} is {found}");
        }
        Ok(())
    })
    .await?;
    ensure!(sum(&host, "weir_groups_total{handler=\"probe\"}").await? >= 1.0);
    ensure!(sum(&host, "weir_cache_bytes{handler=\"probe\"").await? > 0.0);
    for histogram in ["weir_commit_seconds", "weir_handler_seconds"] {
        let count = sum(&host, &format!("{histogram}_count{{handler=\"probe\"}}")).await?;
        let infinite = sum(
            &host,
            &format!("{histogram}_bucket{{handler=\"probe\",le=\"+Inf\"}}"),
        )
        .await?;
        ensure!(
            count >= 1.0 && count == infinite,
            "{histogram}: {count} {infinite}"
        );
    }
    Ok(())
}

/// Sum of all series that begin so.
async fn sum(host: &Host, series: &str) -> Result<f64> {
    let (status, metrics) = host.get("/metrics").await?;
    ensure!(status == 200, "/metrics is {status}");
    let values = metrics.lines().filter(|line| line.starts_with(series));
    let values: Vec<f64> = values
        .map(|line| {
            line.rsplit(' ')
                .next()
                .context("a value")?
                .parse()
                .context("a number")
        })
        .collect::<Result<_>>()?;
    ensure!(!values.is_empty(), "there is no {series}");
    Ok(values.iter().sum())
}
