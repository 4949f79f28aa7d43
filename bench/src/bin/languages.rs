//! What a handler costs in each guest language: `rotations`, the same in all of
//! them, in the sandbox that a host has, without NATS around it.
//!
//! * component: bytes of the file
//! * compile, cold: from the file to code, as a host does once
//! * compile, cached: the same from the host's folder of compiled code
//! * instantiate: a new sandbox, with what the language sets up in it
//! * memory: what one more instance adds to the process once it has handled an event
//! * per event: one reused instance, 100 bytes of data, a cell read and written, an emit
//!
//! Unlike the benchmark of the whole, this one is linked with the host.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use serde::Serialize;
use weir::deployment::plugins::{self, Deployed};
use weir::handler::{Call, CodeCache, Engine, Instance, Program, ProgramSettings};
use weir::model::event::Event;
use weir::state::KeyState;

/// Instances whose memory is measured together: as many as a handler has partitions.
const INSTANCES: u32 = 16;

/// Each language is measured for at least this long.
const MEASURE: Duration = Duration::from_secs(1);
const EVENTS_MIN: u32 = 1_000;
const INSTANTIATIONS: u32 = 20;

const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// Measures handlers of several languages in the sandbox of the host.
#[derive(Parser)]
#[command(name = "weir-bench-languages", version)]
struct Args {
    /// `LANGUAGE=FOLDER` of a handler that does what `rotations` does
    #[arg(required = true, value_name = "LANGUAGE=FOLDER")]
    handlers: Vec<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
    /// Puts the table into this page, between its two marks
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

#[derive(Serialize)]
struct Row {
    language: String,
    component_bytes: u64,
    compile_ms: f64,
    cached_ms: f64,
    instantiate_us: f64,
    instance_bytes: u64,
    event_us: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut rows = Vec::new();
    for handler in &args.handlers {
        let (language, folder) = handler
            .split_once('=')
            .with_context(|| format!("{handler:?} is not LANGUAGE=FOLDER"))?;
        eprintln!("measuring {language}");
        let deployed = plugins::load(folder.as_ref())?;
        rows.push(measure(language, &deployed).with_context(|| language.to_owned())?);
    }
    let table = table(&rows);
    if let Some(page) = &args.write {
        let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
        fs::write(
            page,
            replaced(&text, &table).with_context(|| page.display().to_string())?,
        )?;
    }
    match args.json {
        true => println!(
            "{}",
            serde_json::to_string_pretty(&serde_json::json!({ "languages": rows }))?
        ),
        false => print!("{table}"),
    }
    Ok(())
}

fn measure(language: &str, deployed: &Deployed) -> Result<Row> {
    let data = tempfile::tempdir()?;
    let settings = settings(deployed);
    let engine = || Engine::new(INSTANCES + 1, Some(CodeCache::new(data.path())));
    let compile = |engine: &Arc<Engine>| {
        let began = Instant::now();
        let program = Program::compile(engine, &deployed.wasm, settings.clone());
        program
            .map(|program| (program, ms(began.elapsed())))
            .map_err(|refusal| anyhow!("{refusal}"))
    };
    let (cold, compile_ms) = compile(&engine()?)?;
    drop(cold);
    let (program, cached_ms) = compile(&engine()?)?;

    // The first one maps what all share.
    let mut first = instance(&program)?;
    handle(&mut first, 1)?;
    let began = Instant::now();
    for _ in 0..INSTANTIATIONS {
        drop(instance(&program)?);
    }
    let instantiate_us = ms(began.elapsed()) * 1e3 / f64::from(INSTANTIATIONS);

    let before = resident_bytes()?;
    let mut instances = Vec::new();
    for n in 0..INSTANCES {
        let mut instance = instance(&program)?;
        handle(&mut instance, u64::from(n))?;
        instances.push(instance);
    }
    let instance_bytes = resident_bytes()?.saturating_sub(before) / u64::from(INSTANCES);
    drop(instances);

    let (began, mut events) = (Instant::now(), 0);
    while events < EVENTS_MIN || began.elapsed() < MEASURE {
        handle(&mut first, u64::from(events))?;
        events += 1;
    }
    Ok(Row {
        language: language.into(),
        component_bytes: deployed.wasm.len() as u64,
        compile_ms,
        cached_ms,
        instantiate_us,
        instance_bytes,
        event_us: ms(began.elapsed()) * 1e3 / f64::from(events),
    })
}

fn settings(deployed: &Deployed) -> ProgramSettings {
    let manifest = &deployed.manifest;
    ProgramSettings {
        handler: manifest.name.clone(),
        limits: manifest.limits,
        emit: manifest.emit.clone(),
        ledger_subjects: manifest.emit.clone(),
        http: deployed.manifest.http.clone(),
        config: manifest.config.clone(),
        max_payload: 1024 * 1024,
        outbox: Vec::new(),
        state_version: deployed.manifest.state_version,
        per_event: false,
    }
}

fn instance(program: &Arc<Program>) -> Result<Instance> {
    program
        .instantiate()
        .map_err(|fault| anyhow!("{}", fault.reason()))
}

/// One event of `rotations`, whose one emit is checked.
fn handle(instance: &mut Instance, sequence: u64) -> Result<()> {
    let state = Arc::new(KeyState {
        cells: BTreeMap::from([("n".into(), "41".into())]),
        ..KeyState::default()
    });
    let event = Event {
        source: 0,
        stream: "FLIGHTS".into(),
        sequence,
        offset: sequence,
        subject: "flights.JFK.UA".into(),
        key: "N14228".into(),
        time: 1_357_034_400_000_000_000,
        timer: None,
        headers: Vec::new(),
        data: vec![b'x'; 100].into(),
    };
    let call = Call {
        clock: event.time,
        source_created: 1,
    };
    let effects = instance
        .handle(&event, &call, &state)
        .map_err(|fault| anyhow!("{}", fault.reason()))?;
    let expected = format!("{{\"key\":\"N14228\",\"n\":42,\"of\":\"FLIGHTS:{sequence}\"}}");
    ensure!(
        effects.emits.len() == 1 && effects.emits[0].data == expected,
        "it emitted {:?} and not {expected}",
        effects.emits
    );
    Ok(())
}

/// Memory of this process that is in RAM.
fn resident_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("memory is measured on Linux only")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("no VmRSS")?.trim().parse::<u64>()? * 1024)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| language | component | compile, cold | compile, cached | instantiate | memory per instance | per event |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for row in rows {
        let line = writeln!(
            text,
            "| {} | {} | {:.0} ms | {:.1} ms | {:.0} us | {} | {:.1} us |",
            row.language,
            bytes(row.component_bytes),
            row.compile_ms,
            row.cached_ms,
            row.instantiate_us,
            bytes(row.instance_bytes),
            row.event_us
        );
        line.expect("a string takes everything");
    }
    text
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// The page with another table between its marks.
fn replaced(page: &str, table: &str) -> Result<String> {
    let (before, rest) = page.split_once(BEGIN).with_context(|| format!("no {BEGIN}"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("no {END}"))?;
    Ok(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_keeps_what_is_around_its_table() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = replaced(&page, "| new |\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\n\n| new |\n\n{END}\nb\n"));
        assert_eq!(replaced(&new, "| new |\n").unwrap(), new);
        assert!(replaced("no marks", "").is_err());
    }

    #[test]
    fn sizes_are_read_at_a_glance() {
        assert_eq!(bytes(1), "1 KiB");
        assert_eq!(bytes(1_500_000), "1.4 MiB");
    }
}
