use super::*;

/// A `weir.toml` in its own folder.
fn folder(text: &str) -> (tempfile::TempDir, Options) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join(FILE_NAME);
    std::fs::write(&file, text).expect("a file");
    let options = Options {
        config: Some(file),
        ..Options::default()
    };
    (folder, options)
}

/// A public NKey, as `[host] trusted_keys` in [`WHOLE`] has it.
const TRUSTED: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

const WHOLE: &str = r#"
[nats]
url = "nats://file:4222"
creds = "a.creds"

[ledger]
name = "FILE"
subjects = ["stats.>"]
replicas = 3
event_ttl = "30d"

[host]
name = "h"
plugins = "plugins"
data = "data"
http = "127.0.0.1:0"
threads = 2
activity_threads = 7
cache_mib = 3
trusted_keys = ["UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"]
"#;

/// The page shows a file that is read, with every key that there is.
#[test]
fn the_documented_file_is_whole() {
    let page = include_str!("../../../docs/configuration.md");
    let shown = page.split("```toml\n").nth(1).expect("a file");
    let shown = shown.split("```").next().expect("its end");
    let (_folder, options) = folder(shown);
    options
        .host(&LedgerOptions::default(), &HostOptions::default())
        .expect("a configuration");
    for key in [
        "url",
        "context",
        "creds",
        "nkey",
        "tls_ca",
        "tls_cert",
        "tls_key",
        "name",
        "subjects",
        "replicas",
        "event_ttl",
        "plugins",
        "data",
        "http",
        "threads",
        "cache_mib",
    ] {
        assert!(
            shown.contains(&format!("{key} = ")),
            "docs/configuration.md lacks {key}"
        );
    }
}

#[test]
fn a_whole_file_with_paths_beside_it() {
    let (folder, options) = folder(WHOLE);
    let config = options
        .host(&LedgerOptions::default(), &HostOptions::default())
        .expect("a configuration");
    assert_eq!(
        config,
        Config {
            nats: Nats {
                url: "nats://file:4222".into(),
                creds: Some(folder.path().join("a.creds")),
                ..Nats::default()
            },
            ledger: Ledger {
                name: "FILE".into(),
                subjects: vec!["stats.>".into()],
                replicas: 3,
                event_ttl: Some(Duration::from_secs(30 * 86_400)),
            },
            host: Host {
                name: "h".into(),
                plugins: Some(folder.path().join("plugins")),
                data: folder.path().join("data"),
                http: "127.0.0.1:0".parse().expect("an address"),
                threads: 2,
                activity_threads: 7,
                cache_bytes: 3 * 1024 * 1024,
                trusted: vec![TRUSTED.into()],
                instances: INSTANCES,
                folder_wins: false,
            },
        }
    );
}

#[test]
fn the_command_line_goes_first() {
    let (_folder, mut options) = folder(WHOLE);
    options.ledger = Some("FLAG".into());
    options.nats.url = Some("nats://flag:4222".into());
    let ledger = LedgerOptions {
        subjects: Some(vec!["a.>".into(), " b".into()]),
        replicas: Some(1),
        event_ttl: Some("1s".into()),
    };
    let host = HostOptions {
        name: Some("f".into()),
        plugins: Some("p".into()),
        data: Some("d".into()),
        http: Some("[::1]:9".into()),
        threads: Some(1),
        activity_threads: Some(3),
        cache_mib: Some(2),
        trusted_keys: Some(vec!["UA".into()]),
    };
    let error = options.host(&ledger, &host).expect_err("no key").to_string();
    assert!(error.contains("host.trusted_keys: `UA`"), "{error}");
    let host = HostOptions {
        trusted_keys: Some(vec![]),
        ..host
    };
    let config = options.host(&ledger, &host).expect("a configuration");
    assert_eq!(config.ledger.name, "FLAG");
    assert_eq!(config.ledger.subjects, ["a.>", "b"]);
    assert_eq!(
        (config.ledger.replicas, config.ledger.event_ttl),
        (1, Some(Duration::from_secs(1)))
    );
    assert_eq!(config.nats.url, "nats://flag:4222");
    // Credentials of the file's server never go to another.
    assert_eq!(config.nats.creds, None);
    assert_eq!(config.host.name, "f");
    assert_eq!(config.host.plugins, Some("p".into()));
    assert_eq!(config.host.data, PathBuf::from("d"));
    assert_eq!(config.host.http.to_string(), "[::1]:9");
    assert_eq!(config.host.threads, 1);
    assert_eq!(config.host.activity_threads, 3);
    assert_eq!(config.host.cache_bytes, 2 * 1024 * 1024);
    assert_eq!(config.host.trusted, [""; 0]);
}

/// Credentials of a context must not go to the server of a variable.
#[test]
fn a_url_and_a_context_do_not_mix() {
    let (_folder, mut options) = folder(WHOLE);
    options.nats.url = Some("nats://me:secret@flag:4222".into());
    options.nats.context = Some("production".into());
    let error = options.client().expect_err("not both").to_string();
    assert!(
        error.contains("--context") && !error.contains("secret"),
        "{error}"
    );
}

#[test]
fn defaults() {
    let (_folder, mut options) = folder("");
    options.ledger = Some("L".into());
    let config = options
        .host(&LedgerOptions::default(), &HostOptions::default())
        .expect("a configuration");
    assert_eq!(config.nats.url, URL_DEFAULT);
    assert_eq!(config.host.http.to_string(), HTTP_DEFAULT);
    assert!(config.host.name.ends_with(&format!("-{}", std::process::id())));
    assert!(config.host.threads >= 1);
    assert_eq!(config.host.cache_bytes, 256 * 1024 * 1024);
    assert_eq!(config.ledger.replicas, 1);
}

#[test]
fn every_error_says_where() {
    for (text, expected) in [
        (
            "[ledger]\nnmae = \"L\"\n",
            "weir.toml:2:1: ledger.nmae: unknown field `nmae`",
        ),
        ("[nuts]\n", "weir.toml:1:2: nuts: unknown field `nuts`"),
        (
            "[host]\nthreads = \"two\"\n",
            "weir.toml:2:11: host.threads: invalid type",
        ),
        (
            "[host]\nthreads = -2\n",
            "weir.toml:2:11: host.threads: invalid value",
        ),
        ("", "ledger.name: name the ledger"),
        ("[ledger]\nname = \"a.b\"\n", "ledger.name: `a.b` is no name"),
        ("[ledger]\nname = \"\"\n", "ledger.name: `` is no name"),
        (
            "[ledger]\nname = \"L\"\nreplicas = 0\n",
            "ledger.replicas: 0 must be",
        ),
        (
            "[ledger]\nname = \"L\"\nreplicas = 6\n",
            "ledger.replicas: 6 must be",
        ),
        (
            "[ledger]\nname = \"L\"\nevent_ttl = \"soon\"\n",
            "ledger.event_ttl: `soon` must be",
        ),
        (
            "[ledger]\nname = \"L\"\nsubjects = [\">\"]\n",
            "ledger.subjects: `>` begins with a wildcard",
        ),
        (
            "[ledger]\nname = \"L\"\n[host]\nhttp = \"9464\"\n",
            "host.http: `9464` must be",
        ),
        (
            "[ledger]\nname = \"L\"\n[host]\nthreads = 0\n",
            "host.threads: 0 must be",
        ),
        (
            "[ledger]\nname = \"L\"\n[host]\ncache_mib = 0\n",
            "host.cache_mib: 0 must be",
        ),
        (
            "[ledger]\nname = \"L\"\n[host]\nname = \"\"\n",
            "host.name: `` must be",
        ),
        (
            "[ledger]\nname = \"L\"\n[nats]\nurl = \"\"\n",
            "nats.url: `` must be",
        ),
        (
            "[ledger]\nname = \"L\"\n[nats]\ntls_key = \"k\"\n",
            "nats.tls_cert: a client certificate",
        ),
    ] {
        let (folder, options) = folder(text);
        let error = options
            .host(&LedgerOptions::default(), &HostOptions::default())
            .expect_err(text);
        let error = error
            .to_string()
            .replace(&format!("{}/", folder.path().display()), "");
        assert!(
            error.starts_with(expected),
            "{text}\n  said     {error}\n  expected {expected}"
        );
    }
}

#[test]
fn a_named_file_must_exist() {
    let options = Options {
        config: Some("/nowhere/weir.toml".into()),
        ..Options::default()
    };
    // As commands show it: with its causes, of which none is said twice.
    let error = anyhow::Error::from(options.client().expect_err("no file"));
    assert_eq!(
        format!("{error:#}"),
        "/nowhere/weir.toml: cannot be read: No such file or directory (os error 2)"
    );
}

#[test]
fn durations() {
    for (text, seconds) in [
        ("1s", 1),
        ("15m", 900),
        ("12h", 43_200),
        ("30d", 2_592_000),
        ("2w", 1_209_600),
    ] {
        assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
    }
    for bad in [
        "",
        "s",
        "1",
        "0s",
        "-1s",
        "1.5h",
        "1ms",
        "1y",
        "99999999999999999999d",
        "18446744073709551615w",
        "1ä",
    ] {
        assert!(duration(bad).is_err(), "{bad}");
    }
}

#[test]
fn contexts_of_the_nats_tool() {
    let nats = context::parse(
        r#"{"description":"", "url":"nats://a:1,nats://b:2", "user":"me", "password":"p@ss", "token":"", "creds":"",
            "nkey":"/n", "ca":"/ca", "cert":"/c", "key":"/k", "inbox_prefix":""}"#,
    )
    .expect("a context");
    assert_eq!(
        nats,
        Nats {
            url: "nats://me:p%40ss@a:1,nats://me:p%40ss@b:2".into(),
            creds: None,
            nkey: Some("/n".into()),
            tls_ca: Some("/ca".into()),
            tls_cert: Some("/c".into()),
            tls_key: Some("/k".into()),
        }
    );
    assert_eq!(nats.url_shown(), "nats://a:1,nats://b:2");
    assert!(context::parse("{").is_err());
    assert!(context::parse(r#"{"url":"a","user":"u","token":"t"}"#).is_err());
    for name in ["", "../x", "a/b"] {
        assert!(context::load(name).is_err(), "{name}");
    }
}
