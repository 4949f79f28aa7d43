//! What a released version of the interface says stays as it is (`wit/README.md`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use weir_tests::host::weir_binary;
use weir_tests::plugins::repository;
use wit_parser::{Function, Resolve, Type, TypeDefKind, TypeId, WorldItem};

/// Everything that a version has, by its name: types and functions with all that they are made of.
type Interface = BTreeMap<String, String>;

#[test]
fn what_is_released_never_changes() -> Result<()> {
    let current = read(&repository().join("wit"))?;
    let mut versions = 0;
    for version in fs::read_dir(repository().join("wit/released"))? {
        let version = version?.path();
        let released = read(&version)?;
        ensure!(released.len() > 10, "{} has hardly anything", version.display());
        for (name, shape) in &released {
            let now = current.get(name).map_or("nothing", String::as_str);
            ensure!(
                now == shape,
                "{name} was {shape} in {} and is {now} now: guests that are out there would break",
                version.display()
            );
        }
        versions += 1;
    }
    ensure!(versions > 0, "no version is released");
    Ok(())
}

/// The test above can fail.
#[test]
fn every_kind_of_change_is_seen() -> Result<()> {
    let text = fs::read_to_string(repository().join("wit/world.wit"))?;
    let before = parse(&text)?;
    for (old, new) in [
        ("name: string,", "name: string, more: u8,"),
        ("retry(string),", "retry(string), later(u64),"),
        ("enum level { trace,", "enum level { all, trace,"),
        ("cancel: func(name: string);", ""),
        (
            "delete: func(cell: string);",
            "delete: func(cell: string) -> bool;",
        ),
        ("at: u64, data", "at: s64, data"),
        ("sequence: u64,", "sequence: u32,"),
        ("handle: func(e: event)", "handle: func(e: event, again: bool)"),
    ] {
        ensure!(text.contains(old), "{old} is not in world.wit any more");
        let after = parse(&text.replacen(old, new, 1))?;
        ensure!(
            before.iter().any(|(name, shape)| after.get(name) != Some(shape)),
            "{old} became {new:?}, and nobody noticed"
        );
    }
    let more = parse(&text.replacen("interface log {", "interface log { flush: func();", 1))?;
    let same = before.iter().all(|(name, shape)| more.get(name) == Some(shape));
    ensure!(same && more.len() == before.len() + 1, "an addition is no change");
    Ok(())
}

/// Bindings that SDKs carry are made from `wit/`.
#[test]
fn the_bindings_of_the_sdks_are_up_to_date() -> Result<()> {
    let program = weir_binary()?.with_file_name("weir-bindings");
    let output = Command::new(&program)
        .arg("--check")
        .output()
        .with_context(|| program.display().to_string())?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn read(folder: &Path) -> Result<Interface> {
    let file = folder.join("world.wit");
    parse(&fs::read_to_string(&file)?).with_context(|| file.display().to_string())
}

fn parse(text: &str) -> Result<Interface> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("world.wit", text)?;
    let package = &resolve.packages[package];
    let mut found = Interface::new();
    for (interface, id) in &package.interfaces {
        let interface_of = &resolve.interfaces[*id];
        for (name, id) in &interface_of.types {
            found.insert(format!("{interface}/{name}"), type_shape(&resolve, *id));
        }
        for (name, function) in &interface_of.functions {
            found.insert(
                format!("{interface}/{name}()"),
                function_shape(&resolve, function),
            );
        }
    }
    for (world, id) in &package.worlds {
        let world_of = &resolve.worlds[*id];
        for (name, item) in &world_of.exports {
            if let WorldItem::Function(function) = item {
                let name = resolve.name_world_key(name);
                found.insert(
                    format!("{world} exports {name}()"),
                    function_shape(&resolve, function),
                );
            }
        }
    }
    Ok(found)
}

fn function_shape(resolve: &Resolve, function: &Function) -> String {
    let params: Vec<String> = function
        .params
        .iter()
        .map(|param| format!("{}: {}", param.name, shape(resolve, &param.ty)))
        .collect();
    let result = function.result.map(|ty| shape(resolve, &ty));
    format!("({}) -> {}", params.join(", "), result.unwrap_or_default())
}

fn shape(resolve: &Resolve, ty: &Type) -> String {
    match ty {
        Type::Id(id) => type_shape(resolve, *id),
        plain => format!("{plain:?}"),
    }
}

fn type_shape(resolve: &Resolve, id: TypeId) -> String {
    let optional = |ty: &Option<Type>| ty.as_ref().map_or("_".into(), |ty| shape(resolve, ty));
    match &resolve.types[id].kind {
        TypeDefKind::Record(record) => {
            let fields = record.fields.iter();
            let fields: Vec<_> = fields
                .map(|f| format!("{}: {}", f.name, shape(resolve, &f.ty)))
                .collect();
            format!("record {{{}}}", fields.join(", "))
        }
        TypeDefKind::Variant(variant) => {
            let cases = variant.cases.iter();
            let cases: Vec<_> = cases
                .map(|c| format!("{}({})", c.name, optional(&c.ty)))
                .collect();
            format!("variant {{{}}}", cases.join(", "))
        }
        TypeDefKind::Enum(kinds) => {
            let cases: Vec<_> = kinds.cases.iter().map(|c| c.name.as_str()).collect();
            format!("enum {{{}}}", cases.join(", "))
        }
        TypeDefKind::Option(ty) => format!("option<{}>", shape(resolve, ty)),
        TypeDefKind::List(ty) => format!("list<{}>", shape(resolve, ty)),
        TypeDefKind::Result(result) => {
            format!("result<{}, {}>", optional(&result.ok), optional(&result.err))
        }
        // What another interface defines, by its shape.
        TypeDefKind::Type(ty) => shape(resolve, ty),
        other => panic!("a kind of type that this test does not know: {other:?}"),
    }
}
