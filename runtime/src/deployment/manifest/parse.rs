//! From the text of a `handler.toml` to a checked [`Manifest`].

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::{
    Dedupe, HostPattern, HttpAccess, InstanceMode, KeyFrom, Limits, Manifest, Outbox, Retry, Source,
};
use crate::log::Start;
use crate::model::pattern;
use crate::toml_file::{Document, Error};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Spanned<String>,
    component: Spanned<String>,
    #[serde(default)]
    version: String,
    partitions: Option<Spanned<i64>>,
    instance: Option<Spanned<String>>,
    state_version: Option<Spanned<i64>>,
    source: Spanned<Vec<Spanned<SourceTable>>>,
    key: Option<Spanned<KeyTable>>,
    dedupe: Option<Spanned<DedupeTable>>,
    #[serde(default)]
    outbox: Vec<OutboxTable>,
    partition: Option<PartitionTable>,
    #[serde(default)]
    emit: EmitTable,
    http: Option<HttpTable>,
    #[serde(default)]
    limits: LimitsTable,
    #[serde(default)]
    retry: RetryTable,
    #[serde(default)]
    config: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceTable {
    stream: Spanned<String>,
    subjects: Spanned<Vec<Spanned<String>>>,
    start: Option<Spanned<StartValue>>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "must be \"all\", \"new\", a sequence or an RFC 3339 time"
)]
enum StartValue {
    Sequence(i64),
    Text(String),
    /// A time without quotes, which TOML knows.
    Time(toml::value::Datetime),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    header: Option<Spanned<String>>,
    subject_token: Option<Spanned<i64>>,
    json: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DedupeTable {
    header: Option<Spanned<String>>,
    json: Option<Spanned<String>>,
    window: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutboxTable {
    stream: Spanned<String>,
    subjects: Spanned<Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionTable {
    subject_token: Spanned<i64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct EmitTable {
    #[serde(default)]
    subjects: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpTable {
    hosts: Spanned<Vec<Spanned<String>>>,
    response_bytes: Option<Spanned<i64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LimitsTable {
    memory_mib: Option<Spanned<i64>>,
    time_ms: Option<Spanned<i64>>,
    effects_bytes: Option<Spanned<i64>>,
    log_bytes: Option<Spanned<i64>>,
    hops: Option<Spanned<i64>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RetryTable {
    attempts: Option<Spanned<i64>>,
    backoff_ms: Option<Spanned<Vec<Spanned<i64>>>>,
}

/// Reads and checks the whole manifest.
pub(super) fn manifest(document: Document<'_>, is_here: bool) -> Result<Manifest, Error> {
    let file: File = document.parse()?;
    let sources = sources(document, file.source)?;
    let partition_token = match file.partition {
        None => None,
        Some(table) => Some(partition_token(document, table.subject_token, &sources)?),
    };
    Ok(Manifest {
        partition_token,
        name: name(document, file.name)?,
        component: component(document, is_here, &file.component)?,
        version: file.version,
        partitions: integer(document, "partitions", file.partitions, 1, super::PARTITIONS_MAX)?
            .unwrap_or(super::PARTITIONS_DEFAULT),
        sources,
        key: key(document, file.key)?,
        dedupe: dedupe(document, file.dedupe)?,
        outbox: outbox(document, file.outbox, &file.emit)?,
        emit: emit(document, file.emit)?,
        http: file.http.map(|table| http(document, table)).transpose()?,
        limits: limits(document, file.limits)?,
        retry: retry(document, file.retry)?,
        config: file.config,
        instance: instance(document, file.instance)?,
        state_version: integer(
            document,
            "state_version",
            file.state_version,
            1,
            super::STATE_VERSION_MAX,
        )?
        .unwrap_or(1),
    })
}

fn name(document: Document<'_>, name: Spanned<String>) -> Result<String, Error> {
    let text = name.get_ref();
    let valid = !text.is_empty()
        && text.len() <= super::NAME_BYTES_MAX
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !valid {
        let max = super::NAME_BYTES_MAX;
        return Err(document.error(
            name.span(),
            "name",
            format!("`{text}` is no name: 1 to {max} of the characters a-z, 0-9 and -"),
        ));
    }
    Ok(name.into_inner())
}

fn component(
    document: Document<'_>,
    is_here: bool,
    component: &Spanned<String>,
) -> Result<std::path::PathBuf, Error> {
    let folder = document.file.parent().unwrap_or(std::path::Path::new(""));
    let path = folder.join(component.get_ref());
    if component.get_ref().is_empty() || (is_here && !path.is_file()) {
        return Err(document.error(
            component.span(),
            "component",
            format!("there is no file {}; build the component first", path.display()),
        ));
    }
    Ok(path)
}

fn sources(document: Document<'_>, tables: Spanned<Vec<Spanned<SourceTable>>>) -> Result<Vec<Source>, Error> {
    if tables.get_ref().is_empty() {
        return Err(document.error(tables.span(), "source", "a handler needs at least one [[source]]"));
    }
    let mut sources: Vec<Source> = Vec::new();
    for table in tables.into_inner() {
        let source = source(document, table.into_inner(), &sources)?;
        sources.push(source);
    }
    Ok(sources)
}

fn check_stream(document: Document<'_>, field: &str, name: &Spanned<String>) -> Result<(), Error> {
    let stream = name.get_ref();
    if stream.is_empty() || stream.contains(['.', '*', '>', '/', '\\']) || has_space(stream) {
        return Err(document.error(
            name.span(),
            field,
            format!("`{stream}` is no stream name: it may not be empty or hold spaces or any of . * > / \\"),
        ));
    }
    Ok(())
}

fn source(document: Document<'_>, table: SourceTable, before: &[Source]) -> Result<Source, Error> {
    check_stream(document, "source.stream", &table.stream)?;
    let stream = table.stream.get_ref();
    if before.iter().any(|source| source.stream == *stream) {
        return Err(document.error(
            table.stream.span(),
            "source.stream",
            format!("stream {stream} is named twice: put the subjects into one [[source]]"),
        ));
    }
    if table.subjects.get_ref().is_empty() {
        return Err(document.error(
            table.subjects.span(),
            "source.subjects",
            "name at least one subject; \">\" is all of the stream",
        ));
    }
    let mut subjects: Vec<String> = Vec::new();
    for subject in table.subjects.get_ref() {
        let at = |problem| document.error(subject.span(), "source.subjects", problem);
        pattern::check(subject.get_ref()).map_err(at)?;
        if let Some(other) = subjects.iter().find(|s| pattern::overlap(s, subject.get_ref())) {
            return Err(at(format!(
                "`{}` overlaps `{other}`; the server refuses overlapping filters",
                subject.get_ref()
            )));
        }
        subjects.push(subject.get_ref().clone());
    }
    let start = match table.start {
        None => Start::First,
        Some(value) => start(document, value)?,
    };
    Ok(Source {
        stream: table.stream.into_inner(),
        subjects,
        start,
    })
}

fn start(document: Document<'_>, value: Spanned<StartValue>) -> Result<Start, Error> {
    let span = value.span();
    let wrong = |found: String| {
        document.error(
            span.clone(),
            "source.start",
            format!("`{found}` must be \"all\", \"new\", a sequence from 1 or an RFC 3339 time since 1970"),
        )
    };
    let text = match value.into_inner() {
        StartValue::Sequence(sequence) => {
            return match u64::try_from(sequence) {
                Ok(sequence @ 1..) => Ok(Start::Sequence(sequence)),
                _ => Err(wrong(sequence.to_string())),
            };
        }
        StartValue::Text(text) => text,
        StartValue::Time(time) => time.to_string(),
    };
    Start::named(&text).ok_or_else(|| wrong(text))
}

/// Every source subject must leave the token open, so that a host can ask for its partitions.
fn partition_token(document: Document<'_>, token: Spanned<i64>, sources: &[Source]) -> Result<usize, Error> {
    let span = token.span();
    let token = integer(document, "partition.subject_token", Some(token), 1, 1_024_u32)?;
    let token = token.map_or(1, |token| token as usize);
    let subjects = sources.iter().flat_map(|source| &source.subjects);
    for subject in subjects {
        if subject.split('.').nth(token - 1) != Some("*") {
            return Err(document.error(
                span,
                "partition.subject_token",
                format!("token {token} of source subject `{subject}` must be `*`: the partition's number stands there"),
            ));
        }
    }
    Ok(token)
}

fn key(document: Document<'_>, table: Option<Spanned<KeyTable>>) -> Result<KeyFrom, Error> {
    let Some(table) = table else {
        return Ok(KeyFrom::Subject);
    };
    let span = table.span();
    match table.into_inner() {
        KeyTable {
            header: Some(header),
            subject_token: None,
            json: None,
        } => header_name(document, "key.header", header),
        KeyTable {
            header: None,
            subject_token: Some(token),
            json: None,
        } => {
            let token = integer(document, "key.subject_token", Some(token), 1, 1_024_u32)?;
            Ok(KeyFrom::SubjectToken(token.map_or(1, |token| token as usize)))
        }
        KeyTable {
            header: None,
            subject_token: None,
            json: Some(json),
        } => pointer(document, "key.json", json),
        _ => Err(document.error(
            span,
            "key",
            "exactly one of header, subject_token and json; without [key] the subject is the key",
        )),
    }
}

fn header_name(document: Document<'_>, field: &str, header: Spanned<String>) -> Result<KeyFrom, Error> {
    let name = header.get_ref();
    if name.is_empty() || name.contains(':') || has_space(name) {
        return Err(document.error(header.span(), field, format!("`{name}` is no header name")));
    }
    Ok(KeyFrom::Header(header.into_inner()))
}

fn pointer(document: Document<'_>, field: &str, json: Spanned<String>) -> Result<KeyFrom, Error> {
    if !is_pointer(json.get_ref()) {
        let problem = format!(
            "`{}` is no JSON pointer, like \"/customer/id\" (RFC 6901)",
            json.get_ref()
        );
        return Err(document.error(json.span(), field, problem));
    }
    Ok(KeyFrom::Json(json.into_inner()))
}

fn dedupe(document: Document<'_>, table: Option<Spanned<DedupeTable>>) -> Result<Option<Dedupe>, Error> {
    let Some(table) = table else { return Ok(None) };
    let span = table.span();
    let table = table.into_inner();
    let from = match (table.header, table.json) {
        (Some(header), None) => header_name(document, "dedupe.header", header)?,
        (None, Some(json)) => pointer(document, "dedupe.json", json)?,
        _ => {
            return Err(document.error(
                span,
                "dedupe",
                "exactly one of header and json says where the id is",
            ));
        }
    };
    let window = crate::config::duration(table.window.get_ref())
        .map_err(|problem| document.error(table.window.span(), "dedupe.window", problem))?;
    let seconds = super::DEDUPE_WINDOW_S_MIN..=super::DEDUPE_WINDOW_S_MAX;
    if !seconds.contains(&window.as_secs()) {
        let problem = format!(
            "`{}` must be from {} s to {} s",
            table.window.get_ref(),
            seconds.start(),
            seconds.end()
        );
        return Err(document.error(table.window.span(), "dedupe.window", problem));
    }
    Ok(Some(Dedupe { from, window }))
}

/// Whether a string is a JSON pointer to a member: `/`, and `~` only as `~0` or `~1`.
fn is_pointer(text: &str) -> bool {
    text.starts_with('/') && text.split('~').skip(1).all(|after| after.starts_with(['0', '1']))
}

fn emit(document: Document<'_>, table: EmitTable) -> Result<Vec<String>, Error> {
    let mut subjects = Vec::new();
    for subject in table.subjects {
        let at = |problem| document.error(subject.span(), "emit.subjects", problem);
        pattern::check(subject.get_ref()).map_err(at)?;
        if subject.get_ref().starts_with('$') {
            return Err(at(format!(
                "`{}`: subjects that begin with $ belong to the server and to Weir",
                subject.get_ref()
            )));
        }
        subjects.push(subject.get_ref().clone());
    }
    Ok(subjects)
}

fn http(document: Document<'_>, table: HttpTable) -> Result<HttpAccess, Error> {
    let count = table.hosts.get_ref().len();
    if count == 0 || count > super::HOSTS_MAX {
        return Err(document.error(
            table.hosts.span(),
            "http.hosts",
            format!("name 1 to {} hosts that the handler may call", super::HOSTS_MAX),
        ));
    }
    let hosts = table.hosts.into_inner().into_iter().map(|host| {
        let parsed: Result<HostPattern, _> = host.get_ref().parse();
        parsed.map_err(|problem| document.error(host.span(), "http.hosts", problem))
    });
    Ok(HttpAccess {
        hosts: hosts.collect::<Result<_, _>>()?,
        response_bytes: integer(
            document,
            "http.response_bytes",
            table.response_bytes,
            1,
            super::RESPONSE_BYTES_MAX,
        )?
        .unwrap_or(super::RESPONSE_BYTES_DEFAULT),
    })
}

fn outbox(document: Document<'_>, tables: Vec<OutboxTable>, emit: &EmitTable) -> Result<Vec<Outbox>, Error> {
    let mut found: Vec<Outbox> = Vec::new();
    for table in tables {
        check_stream(document, "outbox.stream", &table.stream)?;
        if table.subjects.get_ref().is_empty() {
            return Err(document.error(
                table.subjects.span(),
                "outbox.subjects",
                "name the subjects of that stream which the handler emits to",
            ));
        }
        let mut subjects = Vec::new();
        for subject in table.subjects.into_inner() {
            let at = |problem: String| document.error(subject.span(), "outbox.subjects", problem);
            let text = subject.get_ref();
            pattern::check(text).map_err(at)?;
            if text.starts_with(['$', '*', '>']) {
                return Err(at(format!(
                    "`{text}`: begin it with a literal token that does not begin with $"
                )));
            }
            let before = found.iter().flat_map(|outbox: &Outbox| &outbox.subjects);
            let emitted = emit.subjects.iter().map(|subject| subject.get_ref());
            if let Some(other) = before.chain(emitted).find(|other| pattern::overlap(other, text)) {
                return Err(at(format!(
                    "`{text}` overlaps `{other}`: a subject is for one stream"
                )));
            }
            subjects.push(text.clone());
        }
        found.push(Outbox {
            stream: table.stream.into_inner().into(),
            subjects,
        });
    }
    Ok(found)
}

fn limits(document: Document<'_>, table: LimitsTable) -> Result<Limits, Error> {
    Ok(Limits {
        memory_mib: integer(
            document,
            "limits.memory_mib",
            table.memory_mib,
            1,
            super::MEMORY_MIB_MAX,
        )?
        .unwrap_or(super::MEMORY_MIB_DEFAULT),
        time_ms: integer(document, "limits.time_ms", table.time_ms, 1, super::TIME_MS_MAX)?
            .unwrap_or(super::TIME_MS_DEFAULT),
        effects_bytes: integer(
            document,
            "limits.effects_bytes",
            table.effects_bytes,
            1,
            super::EFFECTS_BYTES_MAX,
        )?
        .unwrap_or(super::EFFECTS_BYTES_DEFAULT),
        log_bytes: integer(
            document,
            "limits.log_bytes",
            table.log_bytes,
            1,
            super::LOG_BYTES_MAX,
        )?
        .unwrap_or(super::LOG_BYTES_DEFAULT),
        hops: integer(document, "limits.hops", table.hops, 1, super::HOPS_MAX)?
            .unwrap_or(super::HOPS_DEFAULT),
    })
}

fn retry(document: Document<'_>, table: RetryTable) -> Result<Retry, Error> {
    let attempts = integer(document, "retry.attempts", table.attempts, 1, super::ATTEMPTS_MAX)?
        .unwrap_or(super::ATTEMPTS_DEFAULT);
    let Some(list) = table.backoff_ms else {
        return Ok(Retry {
            attempts,
            backoff_ms: super::BACKOFF_MS_DEFAULT.to_vec(),
        });
    };
    if list.get_ref().is_empty() {
        return Err(document.error(
            list.span(),
            "retry.backoff_ms",
            "name at least one wait; the last one repeats",
        ));
    }
    let mut backoff_ms = Vec::new();
    for wait in list.into_inner() {
        backoff_ms.extend(integer(
            document,
            "retry.backoff_ms",
            Some(wait),
            0,
            super::BACKOFF_MS_MAX,
        )?);
    }
    Ok(Retry { attempts, backoff_ms })
}

fn instance(document: Document<'_>, value: Option<Spanned<String>>) -> Result<InstanceMode, Error> {
    let Some(value) = value else {
        return Ok(InstanceMode::default());
    };
    match value.get_ref().as_str() {
        "reused" => Ok(InstanceMode::Reused),
        "per-event" => Ok(InstanceMode::PerEvent),
        other => Err(document.error(
            value.span(),
            "instance",
            format!("`{other}` must be \"reused\" or \"per-event\""),
        )),
    }
}

/// A number between `min` and `max`, or an error at its place.
fn integer<T>(
    document: Document<'_>,
    field: &str,
    value: Option<Spanned<i64>>,
    min: T,
    max: T,
) -> Result<Option<T>, Error>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display,
{
    let Some(value) = value else { return Ok(None) };
    match T::try_from(*value.get_ref()) {
        Ok(number) if number >= min && number <= max => Ok(Some(number)),
        _ => Err(document.error(
            value.span(),
            field,
            format!("{} must be from {min} to {max}", value.get_ref()),
        )),
    }
}

fn has_space(text: &str) -> bool {
    text.chars().any(|c| c.is_whitespace() || c.is_control())
}
