//! Contexts of the `nats` command line tool, so that whoever has set that up
//! need not do so twice.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Error, Nats};

/// The parts of a context that Weir knows. The tool writes an empty string for
/// what is not set, and has more fields, which are no concern of ours.
#[derive(Deserialize)]
struct Context {
    #[serde(default)]
    url: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    creds: String,
    #[serde(default)]
    nkey: String,
    #[serde(default)]
    ca: String,
    #[serde(default)]
    cert: String,
    #[serde(default)]
    key: String,
}

/// Reads `nats/context/<name>.json` below the user's configuration folder.
pub(super) fn load(name: &str) -> Result<Nats, Error> {
    let wrong = |problem: String| Error::Context {
        name: name.to_owned(),
        problem,
    };
    if name.is_empty() || name.contains(['/', '\\', '\0']) || name.contains("..") {
        return Err(wrong("this is no name of a context".into()));
    }
    let folder = config_folder().ok_or_else(|| wrong("neither XDG_CONFIG_HOME nor HOME is set".into()))?;
    let path = folder.join("nats/context").join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).map_err(|error| {
        wrong(format!(
            "{}: {error}; `nats context ls` lists those there are",
            path.display()
        ))
    })?;
    parse(&text).map_err(|problem| wrong(format!("{}: {problem}", path.display())))
}

pub(super) fn parse(text: &str) -> Result<Nats, String> {
    let context: Context = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let url = with_user(&context)?;
    let path = |text: String| (!text.is_empty()).then(|| expand_home(&text));
    Ok(Nats {
        url,
        creds: path(context.creds),
        nkey: path(context.nkey),
        tls_ca: path(context.ca),
        tls_cert: path(context.cert),
        tls_key: path(context.key),
    })
}

/// The URLs, with user and password or token in each, which is how the client
/// library takes them.
fn with_user(context: &Context) -> Result<String, String> {
    let login = match (
        context.user.as_str(),
        context.password.as_str(),
        context.token.as_str(),
    ) {
        ("", "", "") => return Ok(context.url.clone()),
        ("", "", token) => escape(token),
        (user, "", "") => escape(user),
        (user, password, "") => format!("{}:{}", escape(user), escape(password)),
        _ => return Err("holds both a user and a token".into()),
    };
    let urls = context.url.split(',').map(|url| {
        let url = url.trim();
        let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
        match rest.contains('@') {
            true => url.to_owned(),
            false => format!("{scheme}://{login}@{rest}"),
        }
    });
    Ok(urls.collect::<Vec<_>>().join(","))
}

/// Percent-encodes what has a meaning in a URL's login.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn config_folder() -> Option<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))
}

fn expand_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}
