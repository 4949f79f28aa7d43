//! `weir inspect`: what a Wasm file is, and whether this host would run it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::print;
use crate::handler::{self, Engine};

const EXAMPLES: &str = "\
Examples:
  weir inspect plugins/delays/delays.wasm
  weir inspect delays.wasm --json | jq .imports

Exits with 1 if this host would refuse the file.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// A component, or a core module that carries its component type
    file: PathBuf,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub fn inspect(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let file = &arguments.file;
    let wasm = std::fs::read(file).with_context(|| format!("{}: cannot be read", file.display()))?;
    let engine = Engine::new(1, None)?;
    let inspection = handler::inspect(&engine, &wasm);
    let accepted = inspection.accepted.clone();
    if arguments.json {
        let mut document = serde_json::to_value(&inspection)?;
        document["accepted"] = accepted.is_ok().into();
        document["refusal"] = accepted.clone().err().into();
        print::json(&document)?;
    } else {
        let kind = serde_json::to_value(inspection.kind)?;
        print::line(&format!("file      {}", file.display()))?;
        print::line(&format!("kind      {}", kind.as_str().unwrap_or_default()))?;
        print::line(&format!("size      {} bytes", inspection.size))?;
        if let Some(version) = &inspection.wit {
            let world = if inspection.activity {
                "activity"
            } else {
                "handler"
            };
            print::line(&format!("world     weir:handler/{world}@{version}"))?;
        }
        if inspection.activity {
            print::line(
                "activity  yes: it sends requests, to the hosts that `[http]` in its handler.toml names",
            )?;
        }
        for import in &inspection.imports {
            print::line(&format!("import    {import}"))?;
        }
        for export in &inspection.exports {
            print::line(&format!("export    {export}"))?;
        }
        match &accepted {
            Ok(()) => print::line("accepted  yes")?,
            Err(reason) => print::line(&format!("accepted  no: {reason}"))?,
        }
    }
    Ok(match accepted {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(super::FAILED),
    })
}
