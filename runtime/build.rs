//! Puts the guest SDKs, their project templates and the WIT package into the
//! binary, so that `weir new` works wherever the binary was copied to.
//!
//! Takes whatever is in `guest-sdk/<language>/` at build time.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Folders under `guest-sdk/` that hold an SDK.
const SDKS: [&str; 5] = ["c", "go", "javascript", "python", "rust"];

/// Language as on the command line, and its template under `guest-sdk/`.
const TEMPLATES: [(&str, &str); 6] = [
    ("c", "c/template"),
    ("go", "go/template"),
    ("javascript", "javascript/template"),
    ("python", "python/template"),
    ("rust", "rust/template"),
    ("typescript", "javascript/template-ts"),
];

/// The WIT package, and those that it needs, under `wit/`.
const WIT: [&str; 5] = [
    "activity.wit",
    "deps/clocks.wit",
    "deps/http.wit",
    "deps/io.wit",
    "world.wit",
];

/// What tools leave behind in a folder of sources.
const LEFT_BEHIND: [&str; 6] = ["target", "node_modules", "__pycache__", ".git", ".tools", ".weir"];

fn main() -> io::Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = manifest.parent().expect("runtime/ is a folder of the repository");
    let guest_sdk = root.join("guest-sdk");
    println!("cargo::rerun-if-changed={}", guest_sdk.display());
    for wit in WIT {
        println!("cargo::rerun-if-changed={}", root.join("wit").join(wit).display());
    }

    let mut code = String::new();
    let is_template = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with("template")
    };
    let sdks = SDKS.map(|name| (name, guest_sdk.join(name)));
    declare(&mut code, "SDKS", &sdks, &|path| !is_template(path))?;
    let templates = TEMPLATES.map(|(language, folder)| (language, guest_sdk.join(folder)));
    declare(&mut code, "TEMPLATES", &templates, &|_| true)?;
    writeln!(code, "pub static WIT: &[File] = &[").expect("a string takes all");
    for path in WIT {
        let file = root.join("wit").join(path);
        writeln!(code, "    ({path:?}, include_bytes!({file:?})),").expect("a string takes all");
    }
    writeln!(code, "];").expect("a string takes all");

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("embedded.rs"), code)
}

/// Declares a static with the files of several folders, by the folder's name.
fn declare(
    code: &mut String,
    name: &str,
    folders: &[(&str, PathBuf)],
    wanted: &dyn Fn(&Path) -> bool,
) -> io::Result<()> {
    writeln!(code, "pub static {name}: &[(&str, &[File])] = &[").expect("a string takes all");
    for (key, folder) in folders {
        let mut files = Vec::new();
        collect(folder, wanted, &mut files)?;
        files.sort();
        writeln!(code, "    ({key:?}, &[").expect("a string takes all");
        for file in files {
            let path = file.strip_prefix(folder).expect("it was found in there");
            let path = path.to_string_lossy().replace('\\', "/");
            writeln!(code, "        ({path:?}, include_bytes!({file:?})),").expect("a string takes all");
        }
        writeln!(code, "    ]),").expect("a string takes all");
    }
    writeln!(code, "];").expect("a string takes all");
    Ok(())
}

fn collect(folder: &Path, wanted: &dyn Fn(&Path) -> bool, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let built = [".wasm", ".pyc", ".o"].iter().any(|end| name.ends_with(end));
        if LEFT_BEHIND.contains(&name.as_str()) || !wanted(&path) {
            continue;
        }
        if path.is_dir() {
            collect(&path, wanted, files)?;
        } else if !built || name == "handler_component_type.o" {
            files.push(path);
        }
    }
    Ok(())
}
