//! `weir replay`: a handler's state is rebuilt from its events, beside the running one.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{WrongUse, print, settle};
use crate::admin::status::PartitionStatus;
use crate::commit::record;
use crate::config::Options;
use crate::deployment::rebuild::{self, Rebuilding};
use crate::deployment::registry::{self, Desired, Registered, Registry, deployer};
use crate::dispatch::context::State;
use crate::log::{Log, Start};

/// How often it is looked how far the hosts are.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What was published while the rebuilt generation caught up is caught up with in this time: near
/// enough to switch. The rest is done at the switch, in which the handler lags by so much.
const NEAR: Duration = Duration::from_secs(5);

/// Times that the switch is tried again because somebody deployed meanwhile.
const SWITCH_TRIES: u32 = 5;

const EXAMPLES: &str = "\
Examples:
  weir replay orders-view                          from where the handler began
  weir replay orders-view --from 2026-10-01T00:00:00Z
  weir replay orders-view --cancel                 the running generation goes on alone

The handler's events are handled once more by the code that is deployed, into new cells, while the handler goes
on with the old ones. Nothing is emitted that was emitted before. When the new generation has caught up it takes
the place of the old one, partition by partition. Interrupted, it goes on; the same command, without --from, waits
for it again and brings it to its end. Handlers with timers, an outbox, shared cells or outbound HTTP cannot be rebuilt.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The handler
    name: String,
    /// Where to begin: `all` that the sources still have, a time, or, of one source, a sequence
    #[arg(long, value_name = "START", conflicts_with = "cancel")]
    from: Option<String>,
    /// Gives up a replay that is under way
    #[arg(long)]
    cancel: bool,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Done {
    name: String,
    /// The generation that runs now, and the one that ran before.
    generation: u64,
    before: u64,
    seconds: f64,
}

pub async fn replay(options: &Options, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let from = arguments.from.as_deref().map(parse).transpose()?;
    let (log, ledger) = super::connect(options).await?;
    let (name, by) = (&arguments.name, deployer());
    if arguments.cancel {
        let Some(rebuilding) = rebuild::find(&log, &ledger, name).await? else {
            return Err(WrongUse(format!("handler {name} is not being rebuilt")).into());
        };
        rebuilding.cancel(&log, &by).await?;
        print::line(&format!("the replay of {name} is cancelled"))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Start::Sequence(_)) = from {
        let manifest = Registry::of(&log, &ledger)
            .deployed(name)
            .await?
            .deployment
            .manifest()?;
        if manifest.sources.len() > 1 {
            let why = format!(
                "handler {name} reads {} streams: a sequence means nothing",
                manifest.sources.len()
            );
            return Err(WrongUse(why).into());
        }
    }
    let began = Instant::now();
    let bar = ProgressBar::new(0).with_style(
        ProgressStyle::with_template("{prefix} [{bar:30}] {percent}% {eta} {msg}").expect("a valid template"),
    );
    bar.set_prefix(name.clone());
    let watch = Watch {
        log: &log,
        ledger: &ledger,
        name,
        bar: &bar,
    };
    let left = match from {
        None => rebuild::to_finish(&log, &ledger, name).await?,
        Some(_) => None,
    };
    if let Some(before) = left {
        // Somebody was interrupted after the switch.
        let generation = watch.finish(&by).await?;
        return done(name, generation, before, began, arguments.json);
    }
    watch.hosts_can().await?;
    let rebuilding = match rebuild::begin(&log, &ledger, name, from, &by).await {
        Err(error @ rebuild::Error::Refused { .. }) => return Err(WrongUse(error.to_string()).into()),
        rebuilding => rebuilding?,
    };
    eprintln!(
        "weir: {name} is rebuilt as generation {}, beside {}; interrupted, it goes on, and the same command ends it",
        rebuilding.rebuild.generation, rebuilding.registered.deployment.generation
    );
    let (generation, before) = (
        rebuilding.rebuild.generation,
        rebuilding.registered.deployment.generation,
    );
    watch.catch_up(&rebuilding).await?;
    watch.switch(rebuilding, &by).await?;
    watch.finish(&by).await?;
    done(name, generation, before, began, arguments.json)
}

fn done(name: &str, generation: u64, before: u64, began: Instant, json: bool) -> anyhow::Result<ExitCode> {
    let done = Done {
        name: name.into(),
        generation,
        before,
        seconds: began.elapsed().as_secs_f64(),
    };
    match json {
        true => print::json(&done)?,
        false => print::line(&format!(
            "{name}: generation {generation} has taken the place of {before} after {:.1} s",
            done.seconds
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn parse(from: &str) -> Result<Start, WrongUse> {
    let start = match from.parse() {
        Ok(0) => None,
        Ok(sequence) => Some(Start::Sequence(sequence)),
        Err(_) => Start::named(from).filter(|start| *start != Start::New),
    };
    start.ok_or_else(|| {
        WrongUse(format!(
            "--from is `{from}`; give `all`, a time like 2026-10-01T00:00:00Z, or a sequence from 1 on"
        ))
    })
}

/// Looks at a replay from outside.
struct Watch<'a> {
    log: &'a dyn Log,
    ledger: &'a str,
    name: &'a str,
    bar: &'a ProgressBar,
}

impl Watch<'_> {
    /// Waits until the rebuilt generation is near the running one.
    async fn catch_up(&self, rebuilding: &Rebuilding) -> anyhow::Result<()> {
        let mut told = BTreeSet::new();
        loop {
            let (target, since) = (rebuilding.target(self.log).await?, Instant::now());
            loop {
                let come = rebuilding.come(self.log).await?;
                let (done, all) = rebuilding.progress(&come, &target);
                self.bar.set_length(all);
                self.bar.set_position(done);
                if rebuilding.is_there(&come, &target) {
                    break;
                }
                self.complain(rebuilding, &mut told).await?;
                let now = rebuild::find(self.log, self.ledger, self.name).await?;
                if let Some(now) = &now {
                    self.runs(&now.registered)?;
                }
                if now.is_none_or(|now| now.rebuild != rebuilding.rebuild) {
                    bail!(
                        "the replay of {} was cancelled, or somebody else has ended it",
                        self.name
                    );
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            if since.elapsed() < NEAR {
                return Ok(());
            }
        }
    }

    /// Every partition needs an owner that knows what a generation is that is rebuilt.
    async fn hosts_can(&self) -> anyhow::Result<()> {
        let hosts = settle::statuses(self.log, self.ledger).await?;
        let old = hosts.iter().find(|host| host.record_format < record::FORMAT);
        if let Some(host) = old {
            bail!(
                "host {} is of an earlier version of Weir ({}), which cannot rebuild what it owns: upgrade it first",
                host.host,
                host.weir_version
            );
        }
        Ok(())
    }

    fn runs(&self, registered: &Registered) -> anyhow::Result<()> {
        if registered.deployment.desired == Desired::Paused {
            let name = self.name;
            bail!("{name} was paused; resume it (`weir resume {name}`), and repeat this command");
        }
        Ok(())
    }

    /// Says what does not get on, each once. What cannot by itself ends the command.
    async fn complain(&self, rebuilding: &Rebuilding, told: &mut BTreeSet<String>) -> anyhow::Result<()> {
        self.hosts_can().await?;
        for host in settle::statuses(self.log, self.ledger).await? {
            let handlers = host.handlers.iter().filter(|handler| handler.name == self.name);
            // What is said of an earlier deployment may be mended by this one.
            let current = |partition: &&PartitionStatus| partition.revision >= rebuilding.registered.revision;
            for partition in handlers.flat_map(|handler| &handler.rebuilding).filter(current) {
                let reason = partition.reason.as_deref().unwrap_or("?");
                let (number, host) = (partition.partition, &host.host);
                if partition.state == State::Stopped.as_str() {
                    bail!(
                        "partition {number} does not get on, on host {host}: {reason}; deploy other code and repeat this \
                         command, or give the replay up: weir replay {} --cancel",
                        self.name
                    );
                }
                self.tell(told, format!("weir: partition {number} on host {host}: {reason}"));
            }
        }
        Ok(())
    }

    fn tell(&self, told: &mut BTreeSet<String>, what: String) {
        if told.insert(what.clone()) {
            self.bar.suspend(|| eprintln!("{what}"));
        }
    }

    async fn switch(&self, mut rebuilding: Rebuilding, by: &str) -> anyhow::Result<()> {
        self.bar.set_message("switching");
        for _ in 0..SWITCH_TRIES {
            match rebuilding.take_place(self.log, by).await {
                Err(rebuild::Error::Registry(registry::Error::Overtaken(_))) => {}
                taken => return taken.map(drop).map_err(Into::into),
            }
            let Some(now) = rebuild::find(self.log, self.ledger, self.name).await? else {
                bail!(
                    "the replay of {} was cancelled, or somebody else has ended it",
                    self.name
                );
            };
            self.catch_up(&now).await?;
            rebuilding = now;
        }
        bail!("{} is deployed again and again; repeat the command", self.name)
    }

    /// Waits until every partition has gone over, and removes what is left of the one before.
    /// Returns the generation that runs.
    async fn finish(&self, by: &str) -> anyhow::Result<u64> {
        let mut told = BTreeSet::new();
        loop {
            let latest = Registry::of(self.log, self.ledger).deployed(self.name).await?;
            if rebuild::clean(self.log, self.ledger, self.name, by).await? {
                self.bar.finish_and_clear();
                return Ok(latest.deployment.generation);
            }
            self.runs(&latest)?;
            for host in settle::statuses(self.log, self.ledger).await? {
                let handlers = host.handlers.iter().filter(|handler| handler.name == self.name);
                for reason in handlers.filter_map(|handler| handler.refused.as_ref()) {
                    self.tell(
                        &mut told,
                        format!("weir: host {} refuses the new generation: {reason}", host.host),
                    );
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_begin() {
        assert_eq!(parse("all").expect("a start"), Start::First);
        assert_eq!(parse("17").expect("a start"), Start::Sequence(17));
        assert!(matches!(parse("2026-10-01T00:00:00Z"), Ok(Start::Time(_))));
        for wrong in ["0", "new", "", "yesterday"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
