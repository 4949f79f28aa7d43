//! `weir up`: a whole system for development, in one process and one child.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use super::nats_server::NatsServer;
use super::run::{self, Signals};
use crate::config::{HostOptions, LedgerOptions, NatsOptions, Options};
use crate::connect;
use crate::deployment::manifest::Manifest;
use crate::deployment::plugins::load_folder;
use crate::ledger;
use crate::log::{self, Log, StreamSettings, StreamState};
use crate::model::pattern;

const LEDGER_DEFAULT: &str = "DEV";

/// The host's HTTP address: any free port, so that several systems can run.
const HTTP_DEFAULT: &str = "127.0.0.1:0";

const EXAMPLES: &str = "\
Examples:
  weir up plugins/          every folder in plugins/ that has a handler.toml
  weir up                   the handlers in this folder

Starts a nats-server on 127.0.0.1 (port 4222 if it is free) with its data in .weir/nats, creates what is missing
of the ledger DEV and of the handlers' source streams (subjects, too), and runs a host. Ctrl-C stops all of it. The data stays;
remove .weir to begin anew.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Folder with handlers
    #[arg(default_value = ".", value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    ledger: LedgerOptions,
}

pub async fn up(mut options: Options, arguments: Arguments) -> anyhow::Result<ExitCode> {
    // First, so that a signal during the start stops the server in order, too.
    let mut signals = Signals::new()?;
    let manifests: Vec<Manifest> = load_folder(&arguments.folder)
        .into_iter()
        // The host reads the folder again and says what is wrong with each.
        .filter_map(|deployed| Some(deployed.ok()?.manifest))
        .collect();
    options.ledger.get_or_insert_with(|| LEDGER_DEFAULT.into());
    // Never the server that a file or variable names: this system is its own.
    options.nats = NatsOptions {
        url: Some("nats://127.0.0.1".into()),
        ..NatsOptions::default()
    };
    let host = HostOptions {
        plugins: Some(arguments.folder),
        http: Some(HTTP_DEFAULT.into()),
        ..HostOptions::default()
    };
    let mut config = options.host(&arguments.ledger, &host)?;
    config.host.folder_wins = true;
    if arguments.ledger.subjects.is_none() {
        let emitted = manifests.iter().flat_map(|manifest| &manifest.emit);
        widen(&mut config.ledger.subjects, emitted);
    }
    ledger::check_subjects(&config.ledger.subjects).map_err(anyhow::Error::msg)?;

    let data = config.host.data.join("nats");
    let mut server = tokio::select! {
        server = NatsServer::start(&data) => server?,
        () = signals.next() => return Ok(ExitCode::SUCCESS),
    };
    eprintln!("nats-server on {}, data in {}", server.url, data.display());
    config.nats.url.clone_from(&server.url);
    let served = tokio::select! {
        served = async {
            prepare_streams(&config, &manifests).await?;
            run::serve(config, &mut signals).await
        } => served,
        error = server.ended() => return Err(error),
    };
    server.stop().await?;
    served
}

/// Adds subjects, and drops those that another takes in.
pub(super) fn widen<'a>(subjects: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for subject in more {
        if !subjects.iter().any(|have| pattern::covers(have, subject)) {
            subjects.retain(|have| !pattern::covers(subject, have));
            subjects.push(subject.clone());
        }
    }
}

/// Creates the source streams that do not exist, and gives those that do, and the
/// ledger, the subjects that handlers have gained since. Only for development: in
/// production a missing source is more likely a mistake in its name, and a
/// ledger's subjects are the operator's.
async fn prepare_streams(config: &crate::config::Config, manifests: &[Manifest]) -> anyhow::Result<()> {
    let mut sources: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for source in manifests.iter().flat_map(|manifest| &manifest.sources) {
        // The ledger as a source is created as the ledger.
        if source.stream != config.ledger.name {
            widen(sources.entry(&source.stream).or_default(), source.subjects.iter());
        }
    }
    let log = connect::for_command(&config.nats).await?;
    match log.stream(&config.ledger.name).await {
        Ok(found) => add_subjects(&log, &found, &config.ledger.subjects).await?,
        Err(log::Error::NoStream(_)) => {} // the host creates it
        Err(error) => return Err(error.into()),
    }
    for (stream, subjects) in sources {
        match log.stream(stream).await {
            Ok(found) => add_subjects(&log, &found, &subjects).await?,
            Err(log::Error::NoStream(_)) => {
                let shown = subjects.join(", ");
                let settings = StreamSettings {
                    subjects,
                    schedules: false,
                    ..ledger::ledger_settings(&config.ledger)
                };
                log.create_stream(stream, &settings).await.map_err(|error| {
                    anyhow::anyhow!(
                        "source stream {stream} is missing and cannot be created with {shown}: {error}"
                    )
                })?;
                eprintln!("created stream {stream} with subjects {shown}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Has a stream take in `more` beside the subjects it has.
async fn add_subjects(log: &dyn Log, stream: &StreamState, more: &[String]) -> anyhow::Result<()> {
    let mut subjects = stream.settings.subjects.clone();
    widen(&mut subjects, more.iter());
    if subjects == stream.settings.subjects {
        return Ok(());
    }
    let shown = subjects.join(", ");
    log.set_subjects(&stream.name, &subjects)
        .await
        .with_context(|| format!("stream {} cannot be given the subjects {shown}", stream.name))?;
    eprintln!("stream {} has the subjects {shown} now", stream.name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::widen;

    #[test]
    fn the_ledger_takes_in_what_all_handlers_emit() {
        let mut subjects = vec!["a.b".to_owned(), "c".to_owned()];
        let more: Vec<String> = ["a.b", "a.*", "a.c", "d.>", "d.x"].map(str::to_owned).into();
        widen(&mut subjects, more.iter());
        assert_eq!(subjects, ["c", "a.*", "d.>"]);
    }
}
