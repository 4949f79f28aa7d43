//! From a file to a component that this host can run, or the reason why not.

use std::borrow::Cow;

use serde::Serialize;
use wasmparser::{Parser, Payload};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Type};

use super::activity_bindings::HandlerPre as ActivityPre;
use super::bindings::HandlerPre;
use super::program::{Kind, Pre};
use super::{Engine, http, preview1, wasi};

/// Bytes of a component file. A Python handler with its interpreter has 18 MB.
pub const ARTIFACT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The package that handlers are written against, and the version of it here.
const WIT_PACKAGE: &str = "weir:handler";
const WIT_VERSION: &str = "0.1.2";
const WIT_INTERFACES: [&str; 7] = ["types", "state", "output", "timers", "config", "shared", "log"];

/// The optional export of the world `migration`.
pub(super) const MIGRATE: &str = "migrate";

/// Why a file is not accepted. Each sentence says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the file is empty; build the handler first")]
    Empty,
    #[error("not WebAssembly: the file begins with {begins}; give the .wasm file that the compiler wrote")]
    NotWasm { begins: String },
    #[error(
        "a text file, not WebAssembly; if it is the text format, turn it into binary with `wasm-tools parse`"
    )]
    Text,
    #[error(
        "the file ends too early ({bytes} bytes); it was not copied or written whole, build or copy it again"
    )]
    Truncated { bytes: usize },
    #[error("the file is damaged or made by an unknown version of the tools: {detail}; build it again")]
    Invalid { detail: String },
    #[error(
        "the file has {bytes} bytes, the limit is {ARTIFACT_BYTES_MAX}; strip debug information (`wasm-tools strip`) or leave out what is not needed"
    )]
    TooLarge { bytes: usize },
    #[error(
        "a core module without a component-type section, so it says nothing of the world it is for; build it with bindings of {WIT_PACKAGE}@{WIT_VERSION} (weir-guest, wit-bindgen; for Go append the SDK's component-type.section to the file), or make it a component with `wasm-tools component embed` and `component new`"
    )]
    NoComponentType,
    #[error(
        "a command, which runs once and ends (it exports _start), and not a handler, which is called for each event; build it as a reactor (Go: -buildmode=c-shared, C and C++: -mexec-model=reactor, Rust: crate-type cdylib)"
    )]
    Command,
    #[error(
        "imports {function} of {module}, which is no function of WASI 0.1 that this host has; build it with a current compiler", module = preview1::MODULE
    )]
    Preview1 { function: String },
    #[error(
        "the core module cannot be made a component: {detail}; build it again with bindings of {WIT_PACKAGE}@{WIT_VERSION}"
    )]
    Encode { detail: String },
    #[error(
        "imports {import}, which handlers do not have (no files, no sockets, nothing but {WIT_PACKAGE}@{WIT_VERSION} and WASI 0.2 io, clocks, random, cli, filesystem and, for activities, outgoing http); build it without what needs that"
    )]
    UnknownImport { import: String },
    #[error(
        "imports {import}, this host has {WIT_PACKAGE}@{WIT_VERSION}; build the handler against that, or upgrade the host"
    )]
    OtherVersion { import: String },
    #[error(
        "imports wasi:http, so it is an activity, and its handler.toml does not say which hosts it may call: add `[http]` with `hosts = [\"api.example.com\"]`, or build it without what sends requests"
    )]
    NoHosts,
    #[error(
        "handler.toml has `[http]`, and the component imports no wasi:http: take `[http]` out, or build the component for the world {WIT_PACKAGE}/activity@{WIT_VERSION} (weir-guest: with its feature `http`)"
    )]
    NoActivity,
    #[error("exports no function `handle`{}; build it for the world {WIT_PACKAGE}/handler@{WIT_VERSION}", nearest_export(.nearest))]
    NoHandle {
        /// The export whose name is most like it.
        nearest: Option<String>,
    },
    #[error(
        "does not fit the world {WIT_PACKAGE}/handler@{WIT_VERSION}: {detail}; build it again with current bindings"
    )]
    Mismatch { detail: String },
    #[error(
        "handler.toml has state_version = {state_version}, but the component exports no `migrate`, which brings cells of older versions to it; add one (in Rust: #[migrate]), or take state_version out"
    )]
    NoMigration { state_version: u32 },
    #[error(
        "exports `migrate`, which is never called at state version 1: set state_version in handler.toml to the version that it leads to, 2 for the first one"
    )]
    MigrationUnused,
    #[error(
        "cannot be compiled: {detail}; leave out the feature it names, or report it if the file is ordinary"
    )]
    Compile { detail: String },
}

fn nearest_export(export: &Option<String>) -> String {
    match export {
        Some(export) => format!(" (the nearest export is {export:?})"),
        None => " (it exports nothing)".into(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArtifactKind {
    Component,
    /// A core module; accepted where it carries its component type.
    CoreModule,
    Unknown,
}

/// What a file is, for people: the answer of `weir inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    pub kind: ArtifactKind,
    /// Bytes of the file.
    pub size: usize,
    /// Version of `weir:handler` that it is built against, where it imports any of it.
    pub wit: Option<String>,
    /// Whether it calls the outside world (`wasi:http`), for which its manifest must name hosts.
    pub activity: bool,
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    /// Whether this host would run it, or why not.
    pub accepted: Result<(), String>,
}

/// What a file is and whether this host would run it. Compiles it to find out.
pub fn inspect(engine: &Engine, wasm: &[u8]) -> Inspection {
    let mut imports = Vec::new();
    let mut exports = Vec::new();
    let component = component_bytes(wasm).and_then(|bytes| compile(engine, &bytes));
    // Of a component that is refused, too, so that there is something to see.
    if let Ok(component) = &component {
        (imports, exports) = interface(engine, component);
    } else if let Ok(outline) = Outline::read(wasm) {
        imports = outline
            .imports
            .iter()
            .map(|(module, name)| format!("{module} {name}"))
            .collect();
        exports = outline.exports;
    }
    let wit = imports.iter().find_map(|import| {
        let (interface, version) = import.split_once('@')?;
        let (package, _) = interface.split_once('/')?;
        (package == WIT_PACKAGE).then(|| version.split(' ').next().unwrap_or(version).to_owned())
    });
    Inspection {
        kind: if Parser::is_component(wasm) {
            ArtifactKind::Component
        } else if Parser::is_core_wasm(wasm) {
            ArtifactKind::CoreModule
        } else {
            ArtifactKind::Unknown
        },
        size: wasm.len(),
        wit,
        activity: imports.iter().any(|import| is_http(import)),
        imports,
        exports,
        accepted: component
            .and_then(|component| link(engine, &component))
            .map(drop)
            .map_err(|refusal| refusal.to_string()),
    }
}

/// A component that can be instantiated.
pub(super) struct Accepted {
    pub pre: Pre,
    pub kind: Kind,
    /// Whether it brings the cells of older versions to its own.
    pub migrates: bool,
    /// Whether it imports shared cells and locks.
    pub shares: bool,
}

/// Compiles and links a file, or says why this host would not run it.
pub(super) fn accept(engine: &Engine, wasm: &[u8]) -> Result<Accepted, Refusal> {
    let component = compile(engine, &component_bytes(wasm)?)?;
    link(engine, &component)
}

fn link(engine: &Engine, component: &Component) -> Result<Accepted, Refusal> {
    let (imports, exports) = interface(engine, component);
    for import in &imports {
        check_import(import)?;
    }
    if !exports.iter().any(|export| export == "handle") {
        let nearest = exports
            .into_iter()
            .min_by_key(|export| distance(export, "handle"));
        return Err(Refusal::NoHandle { nearest });
    }
    let kind = if imports.iter().any(|import| is_http(import)) {
        Kind::Activity
    } else if imports.iter().any(|import| import.starts_with("wasi:")) {
        Kind::Wasi
    } else {
        Kind::Plain
    };
    let linker = match kind {
        Kind::Plain => &engine.linker,
        Kind::Wasi => &engine.linker_wasi,
        Kind::Activity => &engine.linker_activity,
    };
    let mismatch = |error: wasmtime::Error| Refusal::Mismatch {
        detail: one_line(format!("{error:#}")),
    };
    let pre = linker.instantiate_pre(component).map_err(mismatch)?;
    let pre = match kind {
        Kind::Plain | Kind::Wasi => HandlerPre::new(pre).map(Pre::Handler),
        Kind::Activity => ActivityPre::new(pre).map(Pre::Activity),
    };
    let migrates = exports.iter().any(|export| export == MIGRATE);
    if migrates {
        check_migrate(engine, component)?;
    }
    let shared = format!("{WIT_PACKAGE}/shared@");
    Ok(Accepted {
        pre: pre.map_err(mismatch)?,
        kind,
        migrates,
        shares: imports.iter().any(|import| import.starts_with(&shared)),
    })
}

/// Whether code and manifest agree on migrations: one without the other is never what
/// its author meant.
pub(super) fn check_migration(migrates: bool, state_version: u32) -> Result<(), Refusal> {
    match (migrates, state_version) {
        (true, 1) => Err(Refusal::MigrationUnused),
        (false, 2..) => Err(Refusal::NoMigration { state_version }),
        _ => Ok(()),
    }
}

/// The export `migrate` has the type that the world `migration` gives it.
fn check_migrate(engine: &Engine, component: &Component) -> Result<(), Refusal> {
    let ty = component.component_type();
    let fits = match ty.get_export(&engine.wasmtime, MIGRATE).map(|export| export.ty) {
        Some(ComponentItem::ComponentFunc(function)) => {
            function.params().map(|(_, ty)| ty).eq([Type::U32])
                && matches!(&*function.results().collect::<Vec<_>>(), [Type::Result(result)]
                    if result.ok().is_none() && matches!(result.err(), Some(Type::Variant(_))))
        }
        _ => false,
    };
    fits.then_some(()).ok_or_else(|| Refusal::Mismatch {
        detail: "its export `migrate` is not of the type func(from: u32) -> result<_, failure>".into(),
    })
}

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Component, Refusal> {
    engine.component(bytes).map_err(|error| Refusal::Compile {
        detail: one_line(format!("{error:#}")),
    })
}

/// Names that a component imports and exports.
fn interface(engine: &Engine, component: &Component) -> (Vec<String>, Vec<String>) {
    let ty = component.component_type();
    let imports = ty
        .imports(&engine.wasmtime)
        .map(|(name, _)| name.to_owned())
        .collect();
    let exports = ty
        .exports(&engine.wasmtime)
        .map(|(name, _)| name.to_owned())
        .collect();
    (imports, exports)
}

/// An import is one that this host satisfies. Versions are the linker's to
/// judge, but for those of our own package it deserves a better sentence.
fn check_import(import: &str) -> Result<(), Refusal> {
    let (interface, version) = import.split_once('@').unwrap_or((import, ""));
    if let Some(ours) = interface
        .strip_prefix(WIT_PACKAGE)
        .and_then(|rest| rest.strip_prefix('/'))
        && WIT_INTERFACES.contains(&ours)
    {
        // 0.1.x is one compatible track (semver); a later 0.1 fails to link by name.
        let (track, _) = WIT_VERSION.rsplit_once('.').unwrap_or((WIT_VERSION, ""));
        return match version.strip_prefix(track) {
            Some(patch) if patch.starts_with('.') => Ok(()),
            _ => Err(Refusal::OtherVersion {
                import: import.into(),
            }),
        };
    }
    if (wasi::allowed(interface) || http::allowed(interface)) && version.starts_with("0.2.") {
        return Ok(());
    }
    Err(Refusal::UnknownImport {
        import: import.into(),
    })
}

/// Whether an import makes a component an activity.
fn is_http(import: &str) -> bool {
    http::allowed(import.split_once('@').map_or(import, |(interface, _)| interface))
}

/// The file as a component: as it is, or made from a core module.
fn component_bytes(wasm: &[u8]) -> Result<Cow<'_, [u8]>, Refusal> {
    if wasm.len() > ARTIFACT_BYTES_MAX {
        return Err(Refusal::TooLarge { bytes: wasm.len() });
    }
    let outline = Outline::read(wasm)?;
    if Parser::is_component(wasm) {
        return Ok(Cow::Borrowed(wasm));
    }
    if outline.exports.iter().any(|export| export == "_start") {
        return Err(Refusal::Command);
    }
    if !outline.component_type {
        return Err(Refusal::NoComponentType);
    }
    for (module, name) in &outline.imports {
        if module == preview1::MODULE {
            if !preview1::has(name) {
                return Err(Refusal::Preview1 {
                    function: name.clone(),
                });
            }
        // Interfaces have a colon; `$root`, `[export]…` and the like are the encoder's.
        } else if !module.contains(':') && !module.starts_with(['$', '[']) {
            return Err(Refusal::UnknownImport {
                import: format!("{module} {name}"),
            });
        }
    }
    let encode = |wasm| {
        wit_component::ComponentEncoder::default()
            .validate(true)
            .module(wasm)?
            // Left out again where the module imports none of it.
            .adapter(preview1::MODULE, preview1::adapter())?
            .encode()
    };
    encode(wasm).map(Cow::Owned).map_err(|error| Refusal::Encode {
        detail: one_line(format!("{error:#}")),
    })
}

/// What can be seen of a file without compiling it. Of a component, only that it
/// is whole: the sections below it are those of its modules.
#[derive(Debug, Default)]
struct Outline {
    imports: Vec<(String, String)>,
    exports: Vec<String>,
    component_type: bool,
}

impl Outline {
    fn read(wasm: &[u8]) -> Result<Self, Refusal> {
        if wasm.is_empty() {
            return Err(Refusal::Empty);
        }
        if !wasm.starts_with(b"\0asm") {
            return Err(match std::str::from_utf8(wasm) {
                Ok(_) if !wasm.contains(&0) => Refusal::Text,
                _ if b"\0asm".starts_with(wasm) => Refusal::Truncated { bytes: wasm.len() },
                _ => Refusal::NotWasm {
                    begins: wasm[..wasm.len().min(4)].escape_ascii().to_string(),
                },
            });
        }
        let mut outline = Outline::default();
        let mut depth = 0_usize;
        for payload in Parser::new(0).parse_all(wasm) {
            let invalid = |error: wasmparser::BinaryReaderError| {
                let detail = error.to_string();
                // The parser has no kind for it.
                if detail.contains("unexpected end") {
                    Refusal::Truncated { bytes: wasm.len() }
                } else {
                    Refusal::Invalid { detail }
                }
            };
            match payload.map_err(invalid)? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                _ if depth > 0 => {}
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import.map_err(invalid)?;
                        outline.imports.push((import.module.into(), import.name.into()));
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        outline.exports.push(export.map_err(invalid)?.name.into());
                    }
                }
                Payload::CustomSection(section) if section.name().starts_with("component-type") => {
                    outline.component_type = true;
                }
                _ => {}
            }
        }
        Ok(outline)
    }
}

/// Error texts of the tools span lines; ours are sentences.
fn one_line(text: String) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Edit distance (Levenshtein) of two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance() {
        for (a, b, d) in [
            ("", "", 0),
            ("handle", "handle", 0),
            ("handler", "handle", 1),
            ("hadnle", "handle", 2),
            ("", "abc", 3),
        ] {
            assert_eq!(distance(a, b), d, "{a} {b}");
        }
    }

    #[test]
    fn imports_by_name_and_version() {
        for good in [
            "weir:handler/state@0.1.0",
            "weir:handler/log@0.1.7",
            "wasi:io/poll@0.2.3",
            "wasi:cli/exit@0.2.0",
            "wasi:http/outgoing-handler@0.2.6",
        ] {
            assert_eq!(check_import(good), Ok(()), "{good}");
        }
        for other in [
            "weir:handler/state@0.2.0",
            "weir:handler/state@0.10.0",
            "weir:handler/state",
        ] {
            assert!(
                matches!(check_import(other), Err(Refusal::OtherVersion { .. })),
                "{other}"
            );
        }
        for unknown in [
            "weir:handler/queues@0.1.0",
            "wasi:sockets/tcp@0.2.0",
            "wasi:http/incoming-handler@0.2.0",
            "wasi:http/types@0.3.0",
            "wasi:io/poll@0.3.0",
            "x",
        ] {
            let sentence = check_import(unknown).unwrap_err().to_string();
            assert!(sentence.contains(&format!("imports {unknown},")), "{sentence}");
        }
    }
}
