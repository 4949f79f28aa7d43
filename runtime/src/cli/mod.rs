//! The command line: one file per command.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed
//! or found a difference, 2 wrong use.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::filter::LevelFilter;

use crate::config::{self, Options};
use crate::deployment::registry::Registry;
use crate::history::point;
use crate::log::Log;
use crate::log::jetstream::JetStream;
use crate::model::subjects::{FIRST_GENERATION, HandlerNames};
use crate::trial::events;
use crate::{connect, telemetry};

mod adopt;
mod check;
mod dead_letters;
mod deploy;
mod explain;
mod handlers;
mod hosts;
mod inspect;
mod locks;
mod nats_server;
mod new;
mod operate;
mod outbox_source;
mod postgres_sink;
mod print;
mod replay;
mod run;
mod sagas;
mod service;
mod settle;
mod state;
mod test;
mod up;

const FAILED: u8 = 1;
const WRONG_USE: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  weir new counter --lang rust               a project with a handler that builds, tests and runs as it stands
  weir test counter                          runs its handler on sample events, without NATS
  weir up plugins/                           a development system, with its own nats-server
  weir run --ledger SHOP --plugins plugins   a host, configured by flags, WEIR_… variables or weir.toml
  weir deploy plugins/delays --ledger SHOP   a handler, to every host that runs
  weir handlers --ledger SHOP                what runs where, and how far behind it is
  weir state get rotations N14228            the state of one key
  weir sagas list order-saga                 transactions of several handlers
  weir dead-letters list delays              events that a handler would not take

Exit codes: 0 done, 1 failed or found a difference, 2 wrong use.
WEIR_LOG filters what is logged (like debug or weir=debug); NO_COLOR turns colours off.";

/// Runs WebAssembly handlers over NATS JetStream and commits what they did atomically.
#[derive(Debug, Parser)]
#[command(name = "weir", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    /// How log lines are written to stderr
    #[arg(
        long,
        value_enum,
        default_value = "text",
        env = "WEIR_LOG_FORMAT",
        global = true
    )]
    log_format: telemetry::Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a project with a handler
    New(new::Arguments),
    /// Runs a handler on events from a file, without NATS
    Test(test::Arguments),
    /// Starts a development system: a nats-server of its own and a host
    Up(up::Arguments),
    /// Runs a host as a service
    Run(run::Arguments),
    /// Deploys handlers to every host
    Deploy(deploy::Arguments),
    /// Goes back to an earlier deployment of a handler
    Rollback(operate::Rollback),
    /// Stops a handler for a while: positions and state stay
    Pause(operate::Which),
    /// Lets a paused handler go on
    Resume(operate::Which),
    /// Rebuilds a handler's state from its events, beside the running one
    Replay(replay::Arguments),
    /// Removes a handler for good
    Remove(operate::Remove),
    /// Shows the handlers that hosts run, and how far behind they are
    Handlers(handlers::Arguments),
    /// Shows the hosts, and which partitions each owns
    Hosts(hosts::Arguments),
    /// Shows where an event comes from
    Explain(explain::Arguments),
    /// Shows what handlers keep
    #[command(subcommand)]
    State(state::Command),
    /// Shows, retries and gives up sagas
    #[command(subcommand)]
    Sagas(sagas::Command),
    /// Shows who holds which lock, and takes one away
    #[command(subcommand)]
    Locks(locks::Command),
    /// Shows, redrives and drops events that a handler would not take
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Shows what a Wasm file is and whether this host would run it
    Inspect(inspect::Arguments),
    /// Checks a NATS system and a ledger, and says what to change
    Check(check::Arguments),
    /// Goes on with a stream that was restored from a backup
    Adopt(adopt::Arguments),
    /// Runs a service that puts the rows of a PostgreSQL outbox into the ledger
    OutboxSource(outbox_source::Arguments),
    /// Runs a service that applies events to PostgreSQL tables
    PostgresSink(postgres_sink::Arguments),
}

/// What the user asked for cannot be meant; the text says why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUse(String);

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse(); // exits with 2 and a usage line by itself
    let serves = matches!(
        cli.command,
        Command::Run(_) | Command::Up(_) | Command::OutboxSource(_) | Command::PostgresSink(_)
    );
    let level = match serves {
        true => LevelFilter::INFO,
        false => LevelFilter::WARN,
    };
    let done = telemetry::start(cli.log_format, level).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let done = runtime.block_on(execute(cli));
        // Whatever still runs holds nothing that a kill could not interrupt.
        runtime.shutdown_background();
        done
    });
    done.unwrap_or_else(|error| {
        if !serves && is_closed_pipe(&error) {
            return ExitCode::SUCCESS; // `weir handlers | head`: they have seen enough
        }
        eprintln!("weir: {error:#}");
        let point = error.downcast_ref::<point::Error>();
        let wrong_use = error.is::<config::Error>()
            || error.is::<WrongUse>()
            || error.is::<events::Error>()
            || point.is_some_and(point::Error::is_wrong_use);
        ExitCode::from(if wrong_use { WRONG_USE } else { FAILED })
    })
}

async fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    let options = cli.options;
    match cli.command {
        Command::New(arguments) => new::new(&arguments),
        Command::Test(arguments) => test::test(arguments).await,
        Command::Up(arguments) => up::up(options, arguments).await,
        Command::Run(arguments) => run::run(&options, &arguments).await,
        Command::Deploy(arguments) => deploy::deploy(&options, arguments).await,
        Command::Rollback(arguments) => operate::rollback(&options, &arguments).await,
        Command::Pause(which) => operate::pause(&options, &which).await,
        Command::Resume(which) => operate::resume(&options, &which).await,
        Command::Replay(arguments) => replay::replay(&options, &arguments).await,
        Command::Remove(arguments) => operate::remove(&options, &arguments).await,
        Command::Handlers(arguments) => handlers::handlers(&options, &arguments).await,
        Command::Hosts(arguments) => hosts::hosts(&options, &arguments).await,
        Command::Explain(arguments) => explain::explain(&options, &arguments).await,
        Command::State(command) => state::state(&options, command).await,
        Command::Locks(command) => locks::locks(&options, command).await,
        Command::Sagas(command) => sagas::sagas(&options, command).await,
        Command::DeadLetters(command) => dead_letters::dead_letters(&options, command).await,
        Command::Inspect(arguments) => inspect::inspect(&arguments),
        Command::Check(arguments) => check::check(&options, &arguments).await,
        Command::Adopt(arguments) => adopt::adopt(&options, &arguments).await,
        Command::OutboxSource(arguments) => outbox_source::outbox_source(&options, &arguments).await,
        Command::PostgresSink(arguments) => postgres_sink::postgres_sink(&options, &arguments).await,
    }
}

/// Connects a command that talks to a ledger; with the ledger's name.
async fn connect(options: &Options) -> anyhow::Result<(JetStream, String)> {
    let (nats, ledger) = options.client()?;
    Ok((connect::for_command(&nats).await?, ledger))
}

/// The names of the subjects and cells of a handler as it was deployed last.
async fn names(log: &dyn Log, ledger: &str, handler: &str) -> anyhow::Result<HandlerNames> {
    let latest = Registry::of(log, ledger).latest(handler).await?;
    let generation = latest.map_or(FIRST_GENERATION, |latest| latest.deployment.generation);
    Ok(HandlerNames::new(ledger, handler, generation))
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_flags_of_the_contract() {
        let line = "weir run --nats nats://127.0.0.1:4222 --ledger SHOP --subjects stats.>,orders.> --plugins DIR \
                    --data DIR --http 127.0.0.1:0 --name h1 --replicas 1";
        let cli = Cli::try_parse_from(line.split_whitespace()).expect("valid flags");
        let Command::Run(arguments) = cli.command else {
            panic!("another command");
        };
        let config = cli
            .options
            .host(&arguments.ledger, &arguments.host)
            .expect("a configuration");
        assert_eq!(config.ledger.subjects, ["stats.>", "orders.>"]);
        assert_eq!(
            (config.ledger.name.as_str(), config.host.name.as_str()),
            ("SHOP", "h1")
        );
    }
}
