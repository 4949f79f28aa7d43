//! `weir check`: whether a NATS system and a ledger will do, and what to change.

use std::process::ExitCode;

use serde::Serialize;

use super::print;
use crate::adopt::{self, Recorded};
use crate::config::{self, LedgerOptions, Options};
use crate::connect;
use crate::ledger;
use crate::log::jetstream::{AccountLimits, JetStream};
use crate::log::{self, Append, Log};

/// Payloads below this leave little room for commit records and dead letters.
const PAYLOAD_COMFORTABLE: usize = 256 * 1024;

const EXAMPLES: &str = "\
Examples:
  weir check --nats nats://127.0.0.1:4222               the server only
  weir check --nats nats://127.0.0.1:4222 --ledger SHOP  and the ledger's streams
  weir check --ledger SHOP --write                       and whether this user may write to it

Exits with 1 if something must be changed before a host can run.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    ledger: LedgerOptions,
    /// Writes a message to the ledger, on $WEIR.<ledger>.check, which expires after a second
    #[arg(long)]
    write: bool,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// Works; somebody should know.
    Warn,
    Fail,
}

/// One line: what was looked at, what was found, and what to do about it.
#[derive(Debug, Serialize)]
struct Line {
    verdict: Verdict,
    what: String,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<String>,
}

#[derive(Default)]
struct Report {
    lines: Vec<Line>,
}

impl Report {
    fn ok(&mut self, what: impl Into<String>, found: impl Into<String>) {
        self.push(Verdict::Ok, what, found, None);
    }

    fn warn(&mut self, what: impl Into<String>, found: impl Into<String>, change: impl Into<String>) {
        self.push(Verdict::Warn, what, found, Some(change.into()));
    }

    fn fail(&mut self, what: impl Into<String>, found: impl Into<String>, change: impl Into<String>) {
        self.push(Verdict::Fail, what, found, Some(change.into()));
    }

    fn push(
        &mut self,
        verdict: Verdict,
        what: impl Into<String>,
        found: impl Into<String>,
        change: Option<String>,
    ) {
        self.lines.push(Line {
            verdict,
            what: what.into(),
            found: found.into(),
            change,
        });
    }
}

pub async fn check(options: &Options, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (nats, ledger) = options.check(&arguments.ledger)?;
    let mut report = Report::default();
    match connect::for_command(&nats).await {
        Err(error) => report.fail("connection", nats.url_shown(), format!("{error:#}")),
        Ok(log) => {
            report.ok("connection", nats.url_shown());
            server(&log, &mut report).await;
            match ledger {
                Some(ledger) => streams(&log, &ledger, arguments.write, &mut report).await,
                None => report.warn(
                    "ledger",
                    "not named",
                    "name one with --ledger to have its streams checked",
                ),
            }
        }
    }
    let failed = report.lines.iter().any(|line| line.verdict == Verdict::Fail);
    if arguments.json {
        print::json(&report.lines)?;
    } else {
        for line in &report.lines {
            let verdict = match line.verdict {
                Verdict::Ok => "ok  ",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            let change = line
                .change
                .as_ref()
                .map(|change| format!(": {change}"))
                .unwrap_or_default();
            print::line(&format!("{verdict}  {}: {}{change}", line.what, line.found))?;
        }
    }
    Ok(match failed {
        false => ExitCode::SUCCESS,
        true => ExitCode::from(super::FAILED),
    })
}

async fn server(log: &JetStream, report: &mut Report) {
    // Too old a server is refused when the connection is made.
    report.ok("server version", log.server_version().unwrap_or_default());
    let payload = log.max_payload();
    if payload < PAYLOAD_COMFORTABLE {
        report.warn(
            "max_payload",
            format!("{payload} bytes"),
            format!("set it to at least {PAYLOAD_COMFORTABLE} in the server's configuration: events, cells and commit records must fit"),
        );
    } else {
        report.ok("max_payload", format!("{payload} bytes"));
    }
    match log.account_limits().await {
        Err(error) => report.fail(
            "JetStream",
            error.to_string(),
            "enable it (nats-server --jetstream) and for this account, and allow this user $JS.API.>",
        ),
        Ok(limits) => account(&limits, report),
    }
}

fn account(limits: &AccountLimits, report: &mut Report) {
    if limits.max_storage == 0 {
        report.fail(
            "JetStream storage",
            "none for this account",
            "give the account file storage",
        );
    } else if limits.max_storage > 0 {
        let found = format!("{} of {} bytes used", limits.storage, limits.max_storage);
        if limits.storage.saturating_mul(10) > limits.max_storage.unsigned_abs().saturating_mul(9) {
            report.warn(
                "JetStream storage",
                found,
                "raise the account's max_file before it is full: a full ledger stops its handlers",
            );
        } else {
            report.ok("JetStream storage", found);
        }
    } else {
        report.ok("JetStream storage", "no limit for this account");
    }
    // A ledger is five streams, and each host reads each source with a consumer.
    for (what, used, max, need) in [
        ("JetStream streams", limits.streams, limits.max_streams, 5),
        ("JetStream consumers", limits.consumers, limits.max_consumers, 1),
    ] {
        match u64::try_from(max) {
            Ok(max) if used.saturating_add(need) > max => {
                report.warn(
                    what,
                    format!("{used} of {max} used"),
                    "raise the account's limit before adding a ledger or a host",
                );
            }
            Ok(max) => report.ok(what, format!("{used} of {max} used")),
            Err(_) => report.ok(what, "no limit for this account"), // -1
        }
    }
}

async fn streams(log: &JetStream, config: &config::Ledger, write: bool, report: &mut Report) {
    let name = config.name.as_str();
    let mut replicas = None;
    for (stream, wanted) in ledger::streams(config) {
        let what = format!("stream {stream}");
        match log.stream(&stream).await {
            Err(log::Error::NoStream(_)) => report.ok(what, "does not exist; the first host creates it"),
            Err(error) => report.fail(what, error.to_string(), "allow this user $JS.API.>"),
            Ok(state) => {
                if stream == name {
                    replicas = Some(state.settings.replicas);
                }
                let findings = ledger::check(&state, &wanted);
                if findings.is_empty() {
                    report.ok(
                        &what,
                        format!(
                            "settings are right, {} messages up to {}",
                            state.last + 1 - state.first,
                            state.last
                        ),
                    );
                }
                for finding in findings {
                    let found = format!(
                        "{} is {}, must be {}",
                        finding.setting, finding.found, finding.wanted
                    );
                    match finding.fatal {
                        true => report.fail(&what, found, finding.mend),
                        false => report.warn(&what, found, finding.mend),
                    }
                }
                if let Err(error) = log.scan(&stream, ">", state.last.max(1), 1).await {
                    report.fail(
                        &what,
                        format!("direct get: {error}"),
                        "allow this user $JS.API.DIRECT.GET.>",
                    );
                }
            }
        }
    }
    let Some(replicas) = replicas else { return };
    identities(log, name, report).await;
    durability(replicas, report);
    if write {
        probe(log, name, report).await;
    }
}

/// Whether the ledger and the sources are the streams that positions and state were taken in.
async fn identities(log: &JetStream, ledger: &str, report: &mut Report) {
    let recorded = match Recorded::read(log, ledger).await {
        Ok(recorded) => recorded,
        Err(adopt::Error::Log(log::Error::NoStream(_))) => return, // nothing is recorded yet
        Err(error) => return report.push(Verdict::Fail, "commit records", error.to_string(), None),
    };
    for stream in recorded.streams() {
        let what = format!("identity of {stream}");
        let state = match log.stream(stream).await {
            Ok(state) => state,
            Err(log::Error::NoStream(_)) => {
                report.fail(
                    what,
                    "the stream does not exist any more",
                    "restore it from a backup, or remove the handlers that read it",
                );
                continue;
            }
            Err(error) => {
                report.warn(
                    what,
                    error.to_string(),
                    format!("allow this user $JS.API.STREAM.INFO.{stream}"),
                );
                continue;
            }
        };
        let made = print::time(state.made);
        match recorded.expected(stream, state.created) {
            Err(error) => report.push(Verdict::Fail, what, error.to_string(), None),
            Ok(created) if created != state.created => report.fail(
                what,
                format!(
                    "made at {made}, but positions and state are of a stream of {}",
                    print::time(created)
                ),
                format!("if it was restored from a backup, run: weir adopt {stream}"),
            ),
            Ok(created) if created != state.made => report.ok(
                what,
                format!(
                    "made at {made}, and adopted as the stream of {}",
                    print::time(created)
                ),
            ),
            Ok(_) => report.ok(what, format!("made at {made}, as partitions expect")),
        }
    }
}

/// What acknowledged means. The server does not tell clients its `sync_interval`.
fn durability(replicas: usize, report: &mut Report) {
    match replicas {
        1 => report.warn(
            "durability",
            "1 replica",
            "a power failure loses acknowledged writes of the last sync_interval (2 minutes unless set); set \
             `sync_interval: always` in the server's jetstream block, or use 3 replicas in separate zones",
        ),
        2 => report.warn("durability", "2 replicas", "two stop when one does: use 3"),
        more => report.warn(
            "durability",
            format!("{more} replicas"),
            "keep them in separate zones, or set `sync_interval: always`: a power failure of all at once loses \
             acknowledged writes",
        ),
    }
}

/// Writes something that nobody reads and that goes by itself.
async fn probe(log: &JetStream, name: &str, report: &mut Report) {
    let message = Append {
        subject: format!("$WEIR.{name}.check"),
        ttl_s: Some(1),
        rollup: true,
        ..Append::default()
    };
    match log.append(name, vec![message]).await {
        Ok(_) => report.ok("writing", "permitted"),
        Err(error) => report.fail(
            "writing",
            error.to_string(),
            format!(
                "allow this user to publish to $WEIR.{name}.>, $KV.weir_{name}.> and the ledger's subjects"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(limits: AccountLimits) -> Vec<Verdict> {
        let mut report = Report::default();
        account(&limits, &mut report);
        report.lines.iter().map(|line| line.verdict).collect()
    }

    #[test]
    fn account_limits() {
        use Verdict::{Fail, Ok, Warn};
        let unlimited = AccountLimits {
            max_storage: -1,
            max_streams: -1,
            max_consumers: -1,
            ..AccountLimits::default()
        };
        assert_eq!(verdicts(unlimited), [Ok, Ok, Ok]);
        for (limits, expected) in [
            (
                AccountLimits {
                    max_storage: 0,
                    ..unlimited
                },
                [Fail, Ok, Ok],
            ),
            (
                AccountLimits {
                    max_storage: 100,
                    storage: 90,
                    ..unlimited
                },
                [Ok, Ok, Ok],
            ),
            (
                AccountLimits {
                    max_storage: 100,
                    storage: 91,
                    ..unlimited
                },
                [Warn, Ok, Ok],
            ),
            (
                AccountLimits {
                    max_streams: 7,
                    streams: 2,
                    ..unlimited
                },
                [Ok, Ok, Ok],
            ),
            (
                AccountLimits {
                    max_streams: 7,
                    streams: 3,
                    ..unlimited
                },
                [Ok, Warn, Ok],
            ),
            (
                AccountLimits {
                    max_consumers: 3,
                    consumers: 3,
                    ..unlimited
                },
                [Ok, Ok, Warn],
            ),
        ] {
            assert_eq!(verdicts(limits), expected, "{limits:?}");
        }
    }

    #[test]
    fn what_durability_rests_on_is_always_said() {
        for replicas in [1, 2, 3, 5] {
            let mut report = Report::default();
            durability(replicas, &mut report);
            assert_eq!(report.lines[0].verdict, Verdict::Warn, "{replicas}");
        }
    }
}
