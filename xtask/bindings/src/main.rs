//! Generates what the guest SDKs carry of generated code, from `wit/`.
//!
//! ```console
//! $ cargo run --release -p weir-bindings            # writes it
//! $ cargo run --release -p weir-bindings -- --check # fails if it is out of date
//! ```

use std::borrow::Cow;
use std::fs;
use std::mem;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Parser;
use wasm_encoder::{CustomSection, Section};
use wit_bindgen_core::wit_parser::{Resolve, WorldId};
use wit_bindgen_core::{Files, WorldGenerator};
use wit_component::StringEncoding;

const WORLD: &str = "handler";

/// The SDK for Go is one module, so that a handler's go.mod has one `replace`. It
/// brings along the packages that generated code expects from elsewhere.
const GO_MODULE: &str = "weir.dev/guest";
const GO_RUNTIME: &str = "go.bytecodealliance.org/pkg/wit";

/// What says which world a module is for. Go's linker has no way to add a section
/// of one's own; appended to the module's file, this is one.
const GO_SECTION: &str = "component-type.section";

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
        pkg_name: Some(format!("{GO_MODULE}/generated")),
        export_pkg_name: Some(format!("{GO_MODULE}/internal")),
        ..wit_bindgen_go::Opts::default()
    }
    .build();
    let targets: [(&str, Box<dyn WorldGenerator>); 2] =
        [("guest-sdk/c/generated", c), ("guest-sdk/go/generated", go)];
    let mut stale = Vec::new();
    for (folder, mut generator) in targets {
        let mut resolve = Resolve::default();
        // Alone: these SDKs have no activities, and the generators name all that they are given.
        let (package, _) = resolve.push_path(root.join("wit/world.wit"))?;
        let world = resolve.select_world(&[package], Some(WORLD))?;
        let mut files = Files::default();
        generator.generate(&mut resolve, world, &mut files)?;
        let folder = root.join(folder);
        let mut files: Vec<(&str, Vec<u8>)> = files
            .iter()
            .map(|(name, contents)| (name, contents.to_vec()))
            .collect();
        if folder.ends_with("go/generated") {
            for (_, contents) in &mut files {
                *contents = String::from_utf8(mem::take(contents))?
                    .replace(GO_RUNTIME, &format!("{GO_MODULE}/internal/wit"))
                    .into_bytes();
            }
            files.push((GO_SECTION, component_type(&resolve, world)?));
        }
        for (name, contents) in files {
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

/// The world as a custom section: its id, its size, its name and what is in it.
fn component_type(resolve: &Resolve, world: WorldId) -> Result<Vec<u8>> {
    let data = wit_component::metadata::encode(resolve, world, StringEncoding::UTF8, None)?;
    let section = CustomSection {
        name: Cow::Borrowed("component-type:weir:handler"),
        data: Cow::Owned(data),
    };
    let mut bytes = Vec::new();
    section.append_to(&mut bytes);
    Ok(bytes)
}
