//! WASI 0.1 for core modules that import it: Go's always do, C's and C++'s with
//! `printf` and the like.
//!
//! The adapter is a module in the text format that stands between the guest and
//! WASI 0.2, and becomes a part of the component that the host makes; see
//! `adapter.wat` for what it does. It is never in a file of a user, so it can be
//! changed with the host.

use std::collections::HashSet;
use std::sync::OnceLock;

use anyhow::Context;
use wasmparser::{Parser, Payload};
use wit_component::StringEncoding;
use wit_parser::Resolve;

/// The module name under which compilers for WASI 0.1 import it.
pub(super) const MODULE: &str = "wasi_snapshot_preview1";

const TEXT: &str = include_str!("adapter.wat");
const WORLD: &str = include_str!("adapter.wit");

struct Adapter {
    /// As wit-component takes it: a module with its world.
    module: Vec<u8>,
    functions: HashSet<String>,
}

/// The adapter as wit-component takes it.
pub(super) fn adapter() -> &'static [u8] {
    &get().module
}

/// Whether there is a function of that name.
pub(super) fn has(function: &str) -> bool {
    get().functions.contains(function)
}

/// A millisecond, for the first core module that comes.
fn get() -> &'static Adapter {
    static ADAPTER: OnceLock<Adapter> = OnceLock::new();
    ADAPTER.get_or_init(|| build().expect("the adapter is a constant, and tests build it"))
}

fn build() -> anyhow::Result<Adapter> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("adapter.wit", WORLD)?;
    let world = resolve.select_world(&[package], Some("adapter"))?;
    let mut module = wat::parse_str(TEXT).context("adapter.wat")?;
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    let mut functions = HashSet::new();
    for payload in Parser::new(0).parse_all(&module) {
        if let Payload::ExportSection(section) = payload? {
            for export in section {
                functions.insert(export?.name.to_owned());
            }
        }
    }
    Ok(Adapter { module, functions })
}
