//! Generates what the guest SDKs carry of generated code, from `wit/`.
//!
//! ```console
//! $ cargo run --release -p weir-bindings            # writes it
//! $ cargo run --release -p weir-bindings -- --check # fails if it is out of date
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Parser;
use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_core::{Files, WorldGenerator};

const WORLD: &str = "handler";

#[derive(Parser)]
struct Arguments {
    /// Writes nothing; fails if something would change
    #[arg(long)]
    check: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let c = wit_bindgen_c::Opts::default().build();
    // Not formatted: whoever has no gofmt would write other text.
    let go = wit_bindgen_go::Opts {
        format: wit_bindgen_go::Format::False,
        ..wit_bindgen_go::Opts::default()
    }
    .build();
    let targets: [(&str, Box<dyn WorldGenerator>); 2] =
        [("guest-sdk/c/generated", c), ("guest-sdk/go/generated", go)];
    let mut stale = Vec::new();
    for (folder, mut generator) in targets {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_path(root.join("wit"))?;
        let world = resolve.select_world(&[package], Some(WORLD))?;
        let mut files = Files::default();
        generator.generate(&mut resolve, world, &mut files)?;
        let folder = root.join(folder);
        for (name, contents) in files.iter() {
            let file: PathBuf = folder.join(name);
            if fs::read(&file).is_ok_and(|there| there == contents) {
                continue;
            }
            stale.push(file.display().to_string());
            if !arguments.check {
                let parent = file.parent().context("a file is in a folder")?;
                fs::create_dir_all(parent)?;
                fs::write(&file, contents)?;
            }
        }
    }
    if arguments.check && !stale.is_empty() {
        bail!(
            "out of date, run `cargo run --release -p weir-bindings`: {}",
            stale.join(", ")
        );
    }
    for file in stale {
        println!("wrote {file}");
    }
    Ok(())
}
