//! The README is true, and so is that of the shop: every command that they show is run, on what the commands
//! before it left, and the handler that the README shows whole is the example it links to.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use weir_tests::bus::{Bus, Outgoing};
use weir_tests::host::{self, Host, Launch, Weir};
use weir_tests::plugins::repository;
use weir_tests::{PATIENCE, until};

/// What `cargo xtask test` is, or runs itself: this test is a part of it.
const BY_XTASK: [&str; 4] = [
    "cargo xtask demo",
    "cargo xtask test",
    "cargo xtask shop",
    "cargo xtask plugins",
];

/// What `weir_new.rs` runs, which takes the time of a build.
const BY_WEIR_NEW: [&str; 4] = [
    "weir new counter --lang rust",
    "cd counter",
    "make",
    "weir test .",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_readme_works() -> Result<()> {
    let (up, run) = follow("README.md", "plugins", "DEV").await?;
    ensure!(run >= 8, "only {run} commands were found in the README");
    let cells = up.weir.cells("rotations", "N14228").await?;
    ensure!(cells.get("n").map(String::as_str) == Some("1"), "{cells:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_shop_works() -> Result<()> {
    let (up, run) = follow("examples/shop/README.md", "examples/shop", "SHOP").await?;
    ensure!(run >= 10, "only {run} commands were found");
    // As the page says: one order ends well, and the other one gives everything back.
    for (order, end, payment) in [
        ("7", r#""end":"Shipped""#, r#""cents":600"#),
        ("8", r#""end":"Cancelled""#, r#""cents":0"#),
    ] {
        until(&format!("order {order} has {end}"), PATIENCE, async || {
            let cells = up.weir.cells("orders", order).await?;
            ensure!(cells["aggregate"].contains(end), "{cells:?}");
            Ok(())
        })
        .await?;
        let cells = up.weir.cells("payments", order).await?;
        ensure!(cells["aggregate"].contains(payment), "{cells:?}");
    }
    ensure!(up.weir.cells("stock", "tea").await?["shelf"] == r#"{"left":3,"held":{"7":2}}"#);
    until("the other team has heard of both tours", PATIENCE, async || {
        let ways = up.bus.messages("FLEET").await?;
        ensure!(ways == 4, "{ways}");
        Ok(())
    })
    .await
}

/// A development system on which the commands of a page were run.
struct Up {
    _folder: TempDir,
    _host: Host,
    bus: Bus,
    weir: Weir,
}

/// Runs the commands that a page shows, with `weir up` on a folder of handlers, and says how many they were.
async fn follow(page: &str, handlers: &str, ledger: &str) -> Result<(Up, usize)> {
    let folder = TempDir::new()?;
    let up = host::up(&repository().join(handlers), ledger, folder.path()).await?;
    let url = up
        .stderr()
        .split_once("nats-server on ")
        .and_then(|(_, rest)| rest.split_once(','))
        .map(|(url, _)| url.to_owned())
        .context("`weir up` does not say where its server is")?;
    let bus = Bus::connect(&url).await?;
    let weir = Weir::new(&url, ledger);

    let mut run = 0;
    for command in commands(page)? {
        if BY_XTASK.contains(&command.as_str())
            || BY_WEIR_NEW.contains(&command.as_str())
            || command == format!("weir up {handlers}")
            || command.starts_with("export ")
        {
            continue;
        }
        let words = words(&command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["nats", "pub", subject, payload] => {
                bus.publish(Outgoing::new(subject, payload)).await?;
            }
            [
                "nats",
                "stream",
                "add",
                stream,
                "--subjects",
                subjects,
                "--defaults",
            ] => {
                bus.source(stream, subjects).await?;
            }
            ["weir", "run", ..] => starts(&url, &words[2..]).await?,
            // What was published just now has to be handled first.
            [
                "weir",
                "state" | "sagas" | "dead-letters",
                "get" | "list" | "show",
                ..,
            ] => {
                until(&command, PATIENCE, async || {
                    weir.run(&with_path(&words[1..])).await?.exits(0)
                })
                .await?;
            }
            ["weir", ..] => {
                let words = with_path(&words[1..]);
                weir.run(&words)
                    .await?
                    .exits(0)
                    .with_context(|| command.clone())?;
            }
            _ => bail!("{page} shows `{command}`, which no test runs"),
        }
        run += 1;
    }
    let up = Up {
        _folder: folder,
        _host: up,
        bus,
        weir,
    };
    Ok((up, run))
}

#[test]
fn the_readme_shows_what_it_links_to() -> Result<()> {
    let readme = fs::read_to_string(repository().join("README.md"))?;
    let manifest = fs::read_to_string(repository().join("plugins/rotations/handler.toml"))?;
    let shown = block(&readme, "```toml\n")?;
    let shown: toml_lines::Lines = toml_lines::of(shown);
    for line in toml_lines::of(&manifest) {
        ensure!(shown.contains(&line), "the README's handler.toml lacks `{line}`");
    }
    let code = block(&readme, "```rust\n")?;
    for part in ["#[handler]", "state::cell::<u64>(\"n\")", "output::emit"] {
        let example = fs::read_to_string(repository().join("plugins/rotations/src/lib.rs"))?;
        ensure!(code.contains(part) && example.contains(part), "{part}");
    }
    Ok(())
}

/// Every relative link of the pages leads to a file.
#[test]
fn links_lead_somewhere() -> Result<()> {
    for page in pages()? {
        let text = prose(&fs::read_to_string(&page).with_context(|| page.display().to_string())?);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let leads = file.is_empty() || file.contains("://") || page.with_file_name(file).exists();
            ensure!(leads, "{} links to {link}, which does not exist", page.display());
        }
    }
    Ok(())
}

/// What pages, examples and project templates show of `weir` is a command of it.
#[tokio::test]
async fn every_command_that_is_shown_exists() -> Result<()> {
    let help = host::weir(&["--help"]).await?.exits(0)?.stdout;
    let exists = |command: &str| {
        help.lines()
            .any(|line| line.split_whitespace().next() == Some(command))
    };
    let mut pages = pages()?;
    for folder in ["guest-sdk", "plugins", "examples"] {
        collect(&repository().join(folder), &mut pages)?;
    }
    let mut shown = 0;
    for page in pages {
        let text = fs::read_to_string(&page)?;
        for opening in ["`weir ", "$ weir ", "\n    weir "] {
            for rest in text.split(opening).skip(1) {
                let command = rest.split(|c: char| !c.is_ascii_lowercase() && c != '-').next();
                let command = command.unwrap_or_default();
                let is_option = command.is_empty() || command.starts_with('-');
                ensure!(
                    is_option || exists(command),
                    "{} shows `weir {command}`, which does not exist",
                    page.display()
                );
                shown += 1;
            }
        }
    }
    ensure!(shown > 50, "only {shown} were found");
    Ok(())
}

/// The pages that explain Weir itself.
fn pages() -> Result<Vec<PathBuf>> {
    let root = repository();
    let mut pages = [
        "README.md",
        "ARCHITECTURE.md",
        "wit/README.md",
        "examples/shop/README.md",
    ]
    .map(|page| root.join(page))
    .to_vec();
    collect(&root.join("docs"), &mut pages)?;
    Ok(pages)
}

/// Adds the pages in and below a folder.
fn collect(folder: &Path, pages: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("node_modules") {
            collect(&path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    Ok(())
}

/// A page without its code, in which brackets are no links.
fn prose(page: &str) -> String {
    let mut fenced = false;
    let lines = page.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    let without_code = |line: &str| line.split('`').step_by(2).collect::<String>();
    lines.map(without_code).collect::<Vec<_>>().join("\n")
}

mod toml_lines {
    pub type Lines = Vec<String>;

    /// Lines that say something, without their comments.
    pub fn of(text: &str) -> Lines {
        let lines = text
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim());
        lines.filter(|line| !line.is_empty()).map(String::from).collect()
    }
}

fn block<'a>(text: &'a str, fence: &str) -> Result<&'a str> {
    let (_, rest) = text.split_once(fence).context("no such block")?;
    Ok(rest.split("```").next().unwrap_or_default())
}

/// Lines that begin with `$ ` in a page's `console` blocks.
fn commands(page: &str) -> Result<Vec<String>> {
    let readme = fs::read_to_string(repository().join(page))?;
    let blocks = readme
        .split("```console\n")
        .skip(1)
        .map(|rest| rest.split("```").next());
    let lines = blocks.flatten().flat_map(str::lines);
    Ok(lines
        .filter_map(|line| line.strip_prefix("$ "))
        .map(String::from)
        .collect())
}

/// A command's words, with single quotes as a shell reads them.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in command.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(String::from));
        }
    }
    words
}

/// Paths in the README are those of the repository.
fn with_path<'a>(words: &[&'a str]) -> Vec<&'a str> {
    words
        .iter()
        .map(
            |word| match word.ends_with(".wasm") || word.starts_with("plugins/") {
                true => Box::leak(repository().join(word).display().to_string().into_boxed_str()),
                false => *word,
            },
        )
        .collect()
}

/// `weir run` with the README's ledger and subjects, against the server at hand.
async fn starts(url: &str, words: &[&str]) -> Result<()> {
    let value = |flag: &str| {
        let at = words.iter().position(|word| *word == flag);
        at.and_then(|at| words.get(at + 1))
            .copied()
            .with_context(|| format!("no {flag}"))
    };
    ensure!(value("--nats")?.starts_with("nats://"), "{words:?}");
    let plugins = repository().join(value("--plugins")?);
    // The ledger's subjects would overlap those of the development system.
    let server = weir_tests::nats::NatsServer::start()?;
    Bus::connect(&server.url())
        .await?
        .source("FLIGHTS", "flights.>")
        .await?;
    ensure!(server.url() != url, "{url}");
    let host = Launch::new(&server.url(), value("--ledger")?, value("--subjects")?, &plugins)?
        .start()
        .await?;
    ensure!(host.term().await? == Some(0));
    Ok(())
}
