use super::*;
use crate::log::Start;

const WHOLE: &str = r#"
name = "delays"
component = "delays.wasm"
version = "1.4.0"
partitions = 8
instance = "per-event"

[[source]]
stream = "FLIGHTS"
subjects = ["flights.>"]
start = "new"

[[source]]
stream = "WEATHER"
subjects = ["weather.*.now", "weather.*.soon"]
start = 17

[key]
json = "/customer/id"

[emit]
subjects = ["stats.>"]

[limits]
memory_mib = 32
time_ms = 5
effects_bytes = 1000
log_bytes = 10

[retry]
attempts = 1
backoff_ms = [0, 7]

[config]
threshold_minutes = "30"

[http]
hosts = ["api.example.com"]
response_bytes = 2000
"#;

const LEAST: &str = "name = \"d\"\ncomponent = \"d.wasm\"\n[[source]]\nstream = \"S\"\nsubjects = [\">\"]\n";

/// Reads `text` as a manifest beside a component of either name.
fn read(text: &str) -> Result<Manifest, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for component in ["delays.wasm", "d.wasm"] {
        std::fs::write(folder.path().join(component), b"\0asm").expect("a component");
    }
    std::fs::write(folder.path().join(FILE_NAME), text).expect("a manifest");
    Manifest::read(folder.path())
        .map(|(manifest, _)| manifest)
        .map_err(|error| {
            // The folder's name is random: leave what stands behind it.
            let text = error.to_string();
            let prefix = format!("{}/", folder.path().display());
            text.replace(&prefix, "")
        })
}

#[test]
fn a_whole_manifest() {
    let manifest = read(WHOLE).expect("a valid manifest");
    assert!(manifest.component.ends_with("delays.wasm") && manifest.component.is_absolute());
    assert_eq!(
        manifest,
        Manifest {
            name: "delays".into(),
            component: manifest.component.clone(),
            version: "1.4.0".into(),
            partitions: 8,
            sources: vec![
                Source {
                    stream: "FLIGHTS".into(),
                    subjects: vec!["flights.>".into()],
                    start: Start::New,
                },
                Source {
                    stream: "WEATHER".into(),
                    subjects: vec!["weather.*.now".into(), "weather.*.soon".into()],
                    start: Start::Sequence(17),
                },
            ],
            key: KeyFrom::Json("/customer/id".into()),
            partition_token: None,
            dedupe: None,
            outbox: Vec::new(),
            emit: vec!["stats.>".into()],
            http: Some(HttpAccess {
                hosts: vec!["api.example.com".parse().expect("a host")],
                response_bytes: 2000,
            }),
            limits: Limits {
                memory_mib: 32,
                time_ms: 5,
                effects_bytes: 1000,
                log_bytes: 10,
                hops: 256,
            },
            retry: Retry {
                attempts: 1,
                backoff_ms: vec![0, 7],
            },
            config: BTreeMap::from([("threshold_minutes".into(), "30".into())]),
            instance: InstanceMode::PerEvent,
            state_version: 1,
        }
    );
}

#[test]
fn the_least_manifest_has_the_defaults() {
    let manifest = read(LEAST).expect("a valid manifest");
    assert_eq!(manifest.partitions, PARTITIONS_DEFAULT);
    assert_eq!(manifest.sources[0].start, Start::First);
    assert_eq!(manifest.key, KeyFrom::Subject);
    assert_eq!(manifest.limits.memory_mib, MEMORY_MIB_DEFAULT);
    assert_eq!(manifest.limits.time_ms, TIME_MS_DEFAULT);
    assert_eq!(manifest.limits.effects_bytes, EFFECTS_BYTES_DEFAULT);
    assert_eq!(manifest.limits.log_bytes, LOG_BYTES_DEFAULT);
    assert_eq!(manifest.retry.attempts, ATTEMPTS_DEFAULT);
    assert_eq!(manifest.retry.backoff_ms, BACKOFF_MS_DEFAULT);
    assert_eq!(manifest.instance, InstanceMode::Reused);
    assert_eq!(manifest.http, None);
    assert!(manifest.emit.is_empty() && manifest.config.is_empty() && manifest.version.is_empty());
}

#[test]
fn starts() {
    for (start, expected) in [
        ("\"all\"", Start::First),
        ("\"new\"", Start::New),
        ("1", Start::Sequence(1)),
        ("\"1970-01-01T00:00:01Z\"", Start::Time(1_000_000_000)),
        ("1970-01-01T01:00:01.5+01:00", Start::Time(1_500_000_000)),
    ] {
        let manifest =
            read(&format!("{LEAST}start = {start}\n")).unwrap_or_else(|error| panic!("{start}: {error}"));
        assert_eq!(manifest.sources[0].start, expected, "{start}");
    }
}

#[test]
fn keys() {
    for (key, expected) in [
        ("header = \"Customer-Id\"", KeyFrom::Header("Customer-Id".into())),
        ("subject_token = 2", KeyFrom::SubjectToken(2)),
        ("json = \"/a~1b\"", KeyFrom::Json("/a~1b".into())),
    ] {
        let manifest =
            read(&format!("{LEAST}[key]\n{key}\n")).unwrap_or_else(|error| panic!("{key}: {error}"));
        assert_eq!(manifest.key, expected, "{key}");
    }
}

/// Each case replaces a part of [`WHOLE`] and gives the error, which must name
/// file, line, column and field.
#[test]
fn every_error_names_its_place() {
    for (from, to, expected) in [
        (
            "partitions = 8",
            "partitons = 8",
            "handler.toml:5:1: partitons: unknown field `partitons`, expected one of",
        ),
        (
            "partitions = 8",
            "partitions = \"8\"",
            "handler.toml:5:14: partitions: invalid type: string \"8\", expected i64",
        ),
        (
            "partitions = 8",
            "partitions = 0",
            "handler.toml:5:14: partitions: 0 must be from 1 to 1024",
        ),
        (
            "partitions = 8",
            "partitions = 1025",
            "handler.toml:5:14: partitions: 1025 must be from 1 to 1024",
        ),
        (
            "partitions = 8",
            "partitions = -1",
            "handler.toml:5:14: partitions: -1 must be from 1 to 1024",
        ),
        ("partitions = 8", "partitions = ", "handler.toml:5:"),
        (
            "name = \"delays\"\n",
            "name = \"De lays\"\n",
            "handler.toml:2:8: name: `De lays` is no name",
        ),
        (
            "name = \"delays\"\n",
            "name = \"\"\n",
            "handler.toml:2:8: name: `` is no name",
        ),
        (
            "name = \"delays\"\n",
            "\n",
            "handler.toml:1:1: missing field `name`",
        ),
        (
            "\"delays.wasm\"",
            "\"gone.wasm\"",
            "handler.toml:3:13: component: there is no file gone.wasm",
        ),
        (
            "\"delays.wasm\"",
            "\"\"",
            "handler.toml:3:13: component: there is no file",
        ),
        (
            "\"per-event\"",
            "\"never\"",
            "handler.toml:6:12: instance: `never` must be",
        ),
        (
            "\"FLIGHTS\"",
            "\"FLI.GHTS\"",
            "handler.toml:9:10: source.stream: `FLI.GHTS` is no stream name",
        ),
        (
            "\"WEATHER\"",
            "\"FLIGHTS\"",
            "handler.toml:14:10: source.stream: stream FLIGHTS is named twice: put the subjects into one [[source]]",
        ),
        (
            "[\"flights.>\"]",
            "[\"flights..x\"]",
            "handler.toml:10:13: source.subjects: `flights..x` has an empty token",
        ),
        (
            "[\"flights.>\"]",
            "[\">.x\"]",
            "handler.toml:10:13: source.subjects: `>.x` has `>` before its last token",
        ),
        (
            "[\"flights.>\"]",
            "[]",
            "handler.toml:10:12: source.subjects: name at least one subject",
        ),
        (
            "\"weather.*.soon\"",
            "\"weather.>\"",
            "handler.toml:15:30: source.subjects: `weather.>` overlaps `weather.*.now`",
        ),
        (
            "\"new\"",
            "\"newest\"",
            "handler.toml:11:9: source.start: `newest` must be",
        ),
        (
            "start = 17",
            "start = 0",
            "handler.toml:16:9: source.start: `0` must be",
        ),
        (
            "start = 17",
            "start = true",
            "handler.toml:16:9: source.start: must be \"all\"",
        ),
        (
            "start = 17",
            "begin = 17",
            "handler.toml:16:1: source.begin: unknown field `begin`",
        ),
        (
            "json = \"/customer/id\"",
            "",
            "handler.toml:18:1: key: exactly one of",
        ),
        (
            "json = \"/customer/id\"",
            "json = \"/a\"\nheader = \"b\"",
            "handler.toml:18:1: key: exactly one of",
        ),
        (
            "json = \"/customer/id\"",
            "json = \"customer\"",
            "handler.toml:19:8: key.json: `customer` is no JSON pointer",
        ),
        (
            "json = \"/customer/id\"",
            "json = \"/a~2\"",
            "handler.toml:19:8: key.json: `/a~2` is no JSON pointer",
        ),
        (
            "json = \"/customer/id\"",
            "header = \"a b\"",
            "handler.toml:19:10: key.header: `a b` is no header name",
        ),
        (
            "json = \"/customer/id\"",
            "subject_token = 0",
            "handler.toml:19:17: key.subject_token: 0 must be from 1",
        ),
        (
            "json = \"/customer/id\"",
            "body = \"x\"",
            "handler.toml:19:1: key.body: unknown field `body`",
        ),
        (
            "\"api.example.com\"",
            "\"api.example.com\", \"a b\"",
            "handler.toml:38:29: http.hosts: `a b` must be a host",
        ),
        (
            "\"api.example.com\"",
            "",
            "handler.toml:38:9: http.hosts: name 1 to 64 hosts",
        ),
        (
            "hosts = [\"api.example.com\"]",
            "",
            "handler.toml:37:1: http: missing field `hosts`",
        ),
        (
            "response_bytes = 2000",
            "response_bytes = 67108865",
            "handler.toml:39:18: http.response_bytes: 67108865 must be from 1 to 67108864",
        ),
        (
            "\"stats.>\"",
            "\"$SYS.x\"",
            "handler.toml:22:13: emit.subjects: `$SYS.x`: subjects that begin with $",
        ),
        (
            "\"stats.>\"",
            "\"stats.\"",
            "handler.toml:22:13: emit.subjects: `stats.` has an empty token",
        ),
        (
            "memory_mib = 32",
            "memory_mib = 0",
            "handler.toml:25:14: limits.memory_mib: 0 must be from 1 to 4096",
        ),
        (
            "time_ms = 5",
            "time_ms = -5",
            "handler.toml:26:11: limits.time_ms: -5 must be from 1",
        ),
        (
            "time_ms = 5",
            "time_ms = 1.5",
            "handler.toml:26:11: limits.time_ms: invalid type: floating point",
        ),
        (
            "effects_bytes = 1000",
            "effects_bytes = 0",
            "handler.toml:27:17: limits.effects_bytes: 0 must be",
        ),
        (
            "log_bytes = 10",
            "log_bytes = 0",
            "handler.toml:28:13: limits.log_bytes: 0 must be",
        ),
        (
            "log_bytes = 10",
            "stack = 10",
            "handler.toml:28:1: limits.stack: unknown field `stack`",
        ),
        (
            "attempts = 1",
            "attempts = 0",
            "handler.toml:31:12: retry.attempts: 0 must be from 1",
        ),
        (
            "[0, 7]",
            "[]",
            "handler.toml:32:14: retry.backoff_ms: name at least one wait",
        ),
        (
            "[0, 7]",
            "[0, -7]",
            "handler.toml:32:18: retry.backoff_ms: -7 must be from 0 to 3600000",
        ),
        (
            "\"30\"",
            "30",
            "handler.toml:35:21: config.threshold_minutes: invalid type: integer `30`, expected a string",
        ),
    ] {
        assert_eq!(WHOLE.matches(from).count(), 1, "`{from}` must be there once");
        let error = read(&WHOLE.replace(from, to)).expect_err(to);
        assert!(
            error.starts_with(expected),
            "{to}\n  said     {error}\n  expected {expected}"
        );
    }
}

#[test]
fn a_manifest_without_a_source() {
    for text in [
        "name = \"d\"\ncomponent = \"d.wasm\"\n",
        "name = \"d\"\ncomponent = \"d.wasm\"\nsource = []\n",
    ] {
        let error = read(text).expect_err("no source");
        assert!(error.contains("source"), "{error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Manifest::read(Path::new("/nowhere/at/all")).expect_err("no file");
    assert!(
        error.to_string().starts_with("/nowhere/at/all: cannot be read"),
        "{error}"
    );
}

/// `docs/limits.md` names these numbers; this keeps it honest.
#[test]
fn the_documented_limits_are_the_constants() {
    use crate::config::ACTIVITY_THREADS_MAX;
    use crate::effects::{check, dead_letter};
    use crate::handler::{ARTIFACT_BYTES_MAX, HEAD_BYTES_MAX, REQUESTS_MAX, WASM_STACK_BYTES_MAX};
    use crate::model::{limits, pattern};

    let page = include_str!("../../../../docs/limits.md");
    for (name, number) in [
        ("name", NAME_BYTES_MAX),
        ("partitions", PARTITIONS_MAX as usize),
        ("partitions, default", PARTITIONS_DEFAULT as usize),
        ("limits.memory_mib", MEMORY_MIB_MAX as usize),
        ("limits.memory_mib, default", MEMORY_MIB_DEFAULT as usize),
        ("limits.time_ms", TIME_MS_MAX as usize),
        ("limits.time_ms, default", TIME_MS_DEFAULT as usize),
        ("limits.effects_bytes", EFFECTS_BYTES_MAX),
        ("limits.effects_bytes, default", EFFECTS_BYTES_DEFAULT),
        ("limits.log_bytes", LOG_BYTES_MAX),
        ("limits.log_bytes, default", LOG_BYTES_DEFAULT),
        ("limits.hops", HOPS_MAX as usize),
        ("limits.hops, default", HOPS_DEFAULT as usize),
        ("state_version", STATE_VERSION_MAX as usize),
        ("dedupe.window", DEDUPE_WINDOW_S_MAX as usize),
        ("shared cells and locks per event", crate::shared::USES_MAX),
        ("lock, shortest time", crate::shared::lock::TTL_MS_MIN as usize),
        ("lock, longest time", crate::shared::lock::TTL_MS_MAX as usize),
        ("events that wait for locks", crate::dispatch::parked::PARKED_MAX),
        (
            "bytes of events that wait for locks",
            crate::dispatch::parked::PARKED_BYTES_MAX,
        ),
        ("http.hosts", HOSTS_MAX),
        ("http.response_bytes", RESPONSE_BYTES_MAX),
        ("http.response_bytes, default", RESPONSE_BYTES_DEFAULT),
        ("retry.attempts", ATTEMPTS_MAX as usize),
        ("retry.attempts, default", ATTEMPTS_DEFAULT as usize),
        ("retry.backoff_ms", BACKOFF_MS_MAX as usize),
        ("key", limits::KEY_BYTES_MAX),
        ("cell or timer name", limits::NAME_BYTES_MAX),
        ("cells per key", limits::CELLS_PER_KEY_MAX),
        ("messages per event", limits::EFFECT_MESSAGES_MAX),
        ("messages per batch", limits::BATCH_MESSAGES_MAX),
        ("emitted subject", check::SUBJECT_BYTES_MAX),
        ("headers of one message", check::HEADERS_BYTES_MAX),
        ("timers per key", check::TIMERS_PER_KEY_MAX),
        ("component", ARTIFACT_BYTES_MAX),
        ("Wasm stack", WASM_STACK_BYTES_MAX),
        ("requests", REQUESTS_MAX),
        ("head of a response", HEAD_BYTES_MAX),
        ("activities that wait", ACTIVITY_THREADS_MAX),
        ("subject", pattern::SUBJECT_BYTES_MAX),
        ("reason of a dead letter", dead_letter::TEXT_BYTES_MAX),
        ("headers of a dead letter", dead_letter::HEADER_BYTES_MAX),
    ] {
        let row = format!("| {name} | {number} |");
        assert!(page.contains(&row), "docs/limits.md lacks the row: {row}");
    }
    assert!(page.contains(&format!("| retry.backoff_ms, default | {BACKOFF_MS_DEFAULT:?} |")));
}

#[test]
fn outboxes() {
    let parse = |tables: &str| {
        let text = format!(
            "name = \"h\"\ncomponent = \"h.wasm\"\n[[source]]\nstream = \"S\"\nsubjects = [\"a\"]\n[emit]\nsubjects = [\"out.>\"]\n{tables}\n"
        );
        Manifest::parse_deployed(Path::new("handler.toml"), &text)
    };
    let page = include_str!("../../../../docs/patterns/outbox.md");
    let (_, shown) = page.split_once("```toml\n").expect("the page shows a table");
    let (shown, _) = shown.split_once("```").expect("and ends it");
    let expected = Outbox {
        stream: "INVOICES".into(),
        subjects: vec!["invoices.>".into()],
    };
    assert_eq!(parse(shown).expect("as documented").outbox, [expected]);
    for (tables, part) in [
        (
            "[[outbox]]\nstream = \"A.B\"\nsubjects = [\"a.b\"]",
            "handler.toml:9:10: outbox.stream: `A.B` is no",
        ),
        (
            "[[outbox]]\nstream = \"A\"\nsubjects = []",
            "outbox.subjects: name the subjects",
        ),
        (
            "[[outbox]]\nstream = \"A\"\nsubjects = [\">\"]",
            "begin it with a literal token",
        ),
        (
            "[[outbox]]\nstream = \"A\"\nsubjects = [\"out.x\"]",
            "`out.x` overlaps `out.>`",
        ),
        (
            "[[outbox]]\nstream = \"A\"\nsubjects = [\"x.*\"]\n[[outbox]]\nstream = \"B\"\nsubjects = [\"x.y\"]",
            "`x.y` overlaps `x.*`",
        ),
        ("[[outbox]]\nsubjects = [\"x\"]", "missing field `stream`"),
    ] {
        let error = parse(tables).expect_err(tables).to_string();
        assert!(error.contains(part), "{tables}: {error}");
    }
}

#[test]
fn business_ids() {
    let parse = |table: &str| {
        let text = format!(
            "name = \"h\"\ncomponent = \"h.wasm\"\n[[source]]\nstream = \"S\"\nsubjects = [\"a\"]\n[dedupe]\n{table}\n"
        );
        Manifest::parse_deployed(Path::new("handler.toml"), &text)
    };
    let by_header = parse("header = \"Nats-Msg-Id\"\nwindow = \"7d\"").expect("a header");
    let expected = Dedupe {
        from: KeyFrom::Header("Nats-Msg-Id".into()),
        window: std::time::Duration::from_secs(7 * 86_400),
    };
    assert_eq!(by_header.dedupe, Some(expected));
    let page = include_str!("../../../../docs/patterns/idempotent-consumers.md");
    let (_, shown) = page
        .split_once("```toml\n[dedupe]\n")
        .expect("the page shows a table");
    let (shown, _) = shown.split_once("```").expect("and ends it");
    assert!(parse(shown).expect("as documented").dedupe.is_some());
    let by_pointer = parse("json = \"/order/id\"\nwindow = \"90s\"").expect("a pointer");
    assert_eq!(
        by_pointer.dedupe.map(|d| d.from),
        Some(KeyFrom::Json("/order/id".into()))
    );
    for (table, part) in [
        ("window = \"7d\"", "handler.toml:6:1: dedupe: exactly one of"),
        ("header = \"A\"\njson = \"/a\"\nwindow = \"7d\"", "exactly one of"),
        (
            "header = \"A b\"\nwindow = \"7d\"",
            "dedupe.header: `A b` is no header name",
        ),
        (
            "json = \"a\"\nwindow = \"7d\"",
            "dedupe.json: `a` is no JSON pointer",
        ),
        (
            "header = \"A\"\nwindow = \"soon\"",
            "handler.toml:8:10: dedupe.window:",
        ),
        ("header = \"A\"\nwindow = \"999w\"", "must be from 1 s to"),
        ("header = \"A\"", "missing field `window`"),
    ] {
        let error = parse(table).expect_err(table).to_string();
        assert!(error.contains(part), "{table}: {error}");
    }
}

#[test]
fn the_partitions_number_in_the_subject() {
    let text = |subjects: &str, token: &str| {
        format!(
            "name = \"h\"\ncomponent = \"h.wasm\"\n[[source]]\nstream = \"S\"\nsubjects = [{subjects}]\n\
             [partition]\nsubject_token = {token}\n"
        )
    };
    let parse = |text: String| Manifest::parse_deployed(Path::new("handler.toml"), &text);
    let manifest = parse(text("\"a.*.>\", \"b.*\"", "2")).expect("open at token 2");
    assert_eq!(manifest.partition_token, Some(2));
    for subjects in ["\"a.>\"", "\"a.*.>\", \"b.c\"", "\"a\""] {
        let error = parse(text(subjects, "2")).expect_err("closed").to_string();
        assert!(error.contains("must be `*`"), "{error}");
    }
    assert!(parse(text("\"*.a\"", "0")).is_err());
}
