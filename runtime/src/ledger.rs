//! The streams that a ledger consists of: what they must be like, how that is
//! checked, and their creation.
//!
//! * the ledger stream itself: commit records, emitted events, timers, dead letters
//! * the state bucket's stream: checkpointed cells
//! * the hosts bucket's stream: what each host says of itself
//! * the handlers bucket's stream: deployments
//! * the stream of the object store with the components
//!
//! A stream that is missing is created. One that exists is never changed: its
//! settings are somebody's decision, so what is wrong is reported with the
//! command that mends it, and a host refuses to start where it could lose data.

use std::fmt;

use serde::Serialize;

use crate::config;
use crate::log::{self, Log, StreamSettings, StreamState};
use crate::model::{pattern, subjects};

/// The server's default window of deduplication, in seconds. Weir puts no
/// `Nats-Msg-Id` into these streams; it is only spelled out.
const DUPLICATE_WINDOW_S: u64 = 120;

/// Deployments of a handler that are kept: the longest history that a KV bucket has.
const DEPLOYMENTS_KEPT: i64 = 64;

/// A ledger that was found, or created, and may be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    pub name: String,
    /// When the ledger stream was created (Unix nanoseconds): its identity.
    pub created: u64,
    /// The subjects that the ledger takes, Weir's own among them.
    pub subjects: Vec<String>,
}

impl Ledger {
    /// Whether everything that `pattern` matches is stored in the ledger, so
    /// that a handler may emit it within its commit.
    pub fn takes(&self, pattern: &str) -> bool {
        self.subjects
            .iter()
            .any(|subject| pattern::covers(subject, pattern))
    }
}

/// A setting that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub stream: String,
    /// As JetStream's configuration names it.
    pub setting: &'static str,
    pub found: String,
    pub wanted: String,
    /// Whether a host refuses to start: data could be lost or commits refused.
    pub fatal: bool,
    /// The command, or what else to do.
    pub mend: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding {
            stream,
            setting,
            found,
            wanted,
            mend,
            ..
        } = self;
        write!(
            f,
            "stream {stream}: {setting} is {found}, must be {wanted}; {mend}"
        )
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] log::Error),
    /// Somebody has to change a stream first. One line each.
    #[error("{}", lines(.0))]
    Unfit(Vec<Finding>),
}

fn lines(findings: &[Finding]) -> String {
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    lines.join("\n")
}

/// Says what is wrong with the subjects that a user wants in the ledger.
pub fn check_subjects(subjects: &[String]) -> Result<(), String> {
    for (index, subject) in subjects.iter().enumerate() {
        pattern::check(subject)?;
        if subject.starts_with('$') {
            return Err(format!(
                "`{subject}`: subjects that begin with $ belong to the server and to Weir"
            ));
        }
        if subject.starts_with(['*', '>']) && matches!(subject.split('.').next(), Some("*" | ">")) {
            return Err(format!(
                "`{subject}` begins with a wildcard, which would take in Weir's own subjects; begin with a literal token"
            ));
        }
        if let Some(other) = subjects[..index]
            .iter()
            .find(|other| pattern::overlap(other, subject))
        {
            return Err(format!("`{subject}` overlaps `{other}`; the server refuses that"));
        }
    }
    Ok(())
}

/// The ledger stream, as Weir creates it.
pub fn ledger_settings(config: &config::Ledger) -> StreamSettings {
    let mut all = config.subjects.clone();
    all.push(subjects::ledger_internal(&config.name));
    StreamSettings {
        schedules: true,
        ..base(all, config.replicas)
    }
}

/// The state bucket's stream: one that any KV client reads as a bucket with a
/// history of one.
pub fn bucket_settings(config: &config::Ledger) -> StreamSettings {
    StreamSettings {
        max_messages_per_subject: Some(1),
        deny_delete: true,
        discard_new: true,
        ..base(vec![format!("$KV.weir_{}.>", config.name)], config.replicas)
    }
}

/// The hosts bucket's stream. Its entries have a TTL each and are written anew all
/// the time, so they are kept in memory: a host can still say that the disk is full.
pub fn hosts_settings(config: &config::Ledger) -> StreamSettings {
    StreamSettings {
        atomic_publish: false,
        max_messages_per_subject: Some(1),
        deny_delete: true,
        discard_new: true,
        memory_storage: true,
        ..base(vec![format!("$KV.weir_{}_hosts.>", config.name)], config.replicas)
    }
}

/// The handlers bucket's stream: its history is the list of deployments that
/// `weir rollback` goes back to.
pub fn handlers_settings(config: &config::Ledger) -> StreamSettings {
    StreamSettings {
        atomic_publish: false,
        max_messages_per_subject: Some(DEPLOYMENTS_KEPT),
        deny_delete: true,
        discard_new: true,
        ..base(vec![subjects::handler_key(&config.name, ">")], config.replicas)
    }
}

/// The stream of the object store with the components, as `nats object` makes one.
pub fn artifacts_settings(config: &config::Ledger) -> StreamSettings {
    let bucket = subjects::artifacts_bucket(&config.name);
    StreamSettings {
        atomic_publish: false,
        discard_new: true,
        ..base(
            vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
            config.replicas,
        )
    }
}

/// What they have in common: file storage that keeps everything.
fn base(subjects: Vec<String>, replicas: usize) -> StreamSettings {
    StreamSettings {
        subjects,
        replicas,
        atomic_publish: true,
        direct_get: true,
        message_ttl: true,
        schedules: false,
        rollup: true,
        deny_delete: false,
        deny_purge: false,
        sealed: false,
        memory_storage: false,
        persist_async: false,
        limits_retention: true,
        discard_new: false,
        max_age_s: None,
        max_messages: None,
        max_messages_per_subject: None,
        max_bytes: None,
        max_message_bytes: None,
        duplicate_window_s: DUPLICATE_WINDOW_S,
        sourced: false,
    }
}

/// Compares a stream with what is wanted. Empty if it will do.
pub fn check(state: &StreamState, wanted: &StreamSettings) -> Vec<Finding> {
    let mut check = Check {
        stream: &state.name,
        findings: Vec::new(),
    };
    let found = &state.settings;
    check.subjects(&found.subjects, &wanted.subjects);
    check.switches(found, wanted);
    check.permanent(found, wanted);
    check.bounds(found, wanted);
    if found.replicas < wanted.replicas {
        let replicas = wanted.replicas;
        check.add(
            "num_replicas",
            found.replicas,
            replicas,
            false,
            Mend::Edit(format!("--replicas {replicas}")),
        );
    }
    check.findings
}

/// How a setting is put right.
enum Mend {
    /// These arguments of `nats stream edit`.
    Edit(String),
    /// The server never lets it be changed.
    Recreate,
}

struct Check<'a> {
    stream: &'a str,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn add(
        &mut self,
        setting: &'static str,
        found: impl ToString,
        wanted: impl ToString,
        fatal: bool,
        mend: Mend,
    ) {
        let stream = self.stream;
        self.findings.push(Finding {
            stream: stream.to_owned(),
            setting,
            found: found.to_string(),
            wanted: wanted.to_string(),
            fatal,
            mend: match mend {
                Mend::Edit(arguments) => format!("run: nats stream edit {stream} {arguments}"),
                Mend::Recreate => format!(
                    "it cannot be changed in place: choose another ledger name, or `nats stream backup {stream} DIR` \
                     and make it anew"
                ),
            },
        });
    }

    fn subjects(&mut self, found: &[String], wanted: &[String]) {
        let is_wild = |subject: &String| matches!(subject.split('.').next(), Some("*" | ">"));
        let missing: Vec<&String> = wanted
            .iter()
            .filter(|want| !found.iter().any(|have| pattern::covers(have, want)))
            .collect();
        let wild = found.iter().any(is_wild);
        if missing.is_empty() && !wild {
            return;
        }
        // What is there already and not taken in by something wanted stays.
        let mut all: Vec<&str> = wanted.iter().map(String::as_str).collect();
        for have in found.iter().filter(|have| !is_wild(have)) {
            if !all.iter().any(|subject| pattern::overlap(subject, have)) {
                all.push(have);
            }
        }
        let arguments: Vec<String> = all
            .iter()
            .map(|subject| format!("--subjects '{subject}'"))
            .collect();
        let wanted = match wild {
            true => "subjects that begin with a literal token".to_owned(),
            false => format!("more: {} is missing", join(missing.into_iter())),
        };
        self.add(
            "subjects",
            join(found.iter()),
            wanted,
            true,
            Mend::Edit(arguments.join(" ")),
        );
    }

    fn switches(&mut self, found: &StreamSettings, wanted: &StreamSettings) {
        for (setting, have, want, flag) in [
            (
                "allow_atomic",
                found.atomic_publish,
                wanted.atomic_publish,
                "--allow-batch",
            ),
            (
                "allow_direct",
                found.direct_get,
                wanted.direct_get,
                "--allow-direct",
            ),
            (
                "allow_msg_ttl",
                found.message_ttl,
                wanted.message_ttl,
                "--allow-msg-ttl",
            ),
            (
                "allow_msg_schedules",
                found.schedules,
                wanted.schedules,
                "--allow-schedules",
            ),
            ("allow_rollup_hdrs", found.rollup, wanted.rollup, "--allow-rollup"),
        ] {
            if want && !have {
                self.add(setting, false, true, true, Mend::Edit(flag.into()));
            }
        }
        if found.deny_purge {
            // The server lets this one only be set, never taken back.
            self.add("deny_purge", true, false, true, Mend::Recreate);
        }
        if found.discard_new && !wanted.discard_new {
            self.add("discard", "new", "old", true, Mend::Edit("--discard old".into()));
        }
    }

    /// What can only be right from the beginning.
    fn permanent(&mut self, found: &StreamSettings, wanted: &StreamSettings) {
        for (setting, wrong, is, wanted) in [
            (
                "storage",
                found.memory_storage && !wanted.memory_storage,
                "memory",
                "file",
            ),
            (
                "retention",
                !found.limits_retention,
                "interest or workqueue",
                "limits",
            ),
            ("persist_mode", found.persist_async, "async", "default"),
            ("sealed", found.sealed, "true", "false"),
            (
                "sources",
                found.sourced,
                "a mirror or sourced",
                "written by Weir only",
            ),
        ] {
            if wrong {
                self.add(setting, is, wanted, true, Mend::Recreate);
            }
        }
    }

    /// Limits by which the server would throw messages away, or refuse them.
    fn bounds(&mut self, found: &StreamSettings, wanted: &StreamSettings) {
        if let Some(age) = found.max_age_s {
            self.add(
                "max_age",
                format!("{age}s"),
                "unlimited",
                true,
                Mend::Edit("--max-age 0s".into()),
            );
        }
        for (setting, have, want, flag) in [
            ("max_msgs", found.max_messages, None, "--max-msgs"),
            ("max_bytes", found.max_bytes, None, "--max-bytes"),
            (
                "max_msgs_per_subject",
                found.max_messages_per_subject,
                wanted.max_messages_per_subject,
                "--max-msgs-per-subject",
            ),
        ] {
            if have != want {
                let show =
                    |value: Option<i64>| value.map_or("unlimited".to_owned(), |value| value.to_string());
                let edit = format!("{flag} {}", want.unwrap_or(-1));
                self.add(setting, show(have), show(want), true, Mend::Edit(edit));
            }
        }
        if let Some(bytes) = found.max_message_bytes {
            let edit = Mend::Edit("--max-msg-size -1".into());
            self.add(
                "max_msg_size",
                bytes,
                "unlimited, to take what the server takes",
                true,
                edit,
            );
        }
    }
}

fn join<'a>(subjects: impl Iterator<Item = &'a String>) -> String {
    let all: Vec<&str> = subjects.map(String::as_str).collect();
    match all.is_empty() {
        true => "none".into(),
        false => all.join(", "),
    }
}

/// Creates what is missing of the ledger and checks all of it. What is not
/// right and not dangerous is logged.
///
/// # Errors
/// [`Error::Unfit`] where a host must not start; else of the log, of which
/// [`log::Error::Unavailable`] is worth another try.
pub async fn ensure(log: &dyn Log, config: &config::Ledger) -> Result<Ledger, Error> {
    let mut findings = Vec::new();
    let mut created = Vec::new();
    for (name, wanted) in streams(config) {
        let state = match log.stream(&name).await {
            Err(log::Error::NoStream(_)) => {
                let state = log.create_stream(&name, &wanted).await?;
                tracing::info!(stream = %name, replicas = wanted.replicas, "created a stream of the ledger");
                state
            }
            state => state?,
        };
        if state.created != state.made {
            tracing::info!(stream = %name, "a restored stream of the ledger goes by the created time of the one before");
        }
        // Also of one just created: another host may have been first.
        findings.extend(check(&state, &wanted));
        created.push(state);
    }
    if findings.iter().any(|finding| finding.fatal) {
        findings.retain(|finding| finding.fatal);
        return Err(Error::Unfit(findings));
    }
    for finding in findings {
        tracing::warn!("{finding}");
    }
    Ok(Ledger {
        name: config.name.clone(),
        created: created[0].created,
        subjects: created.swap_remove(0).settings.subjects,
    })
}

/// A ledger that exists, as it is: for commands, which do not judge it.
///
/// # Errors
/// [`log::Error::NoStream`] if there is none; of the log.
pub async fn find(log: &dyn Log, name: &str) -> Result<Ledger, log::Error> {
    let stream = log.stream(name).await?;
    Ok(Ledger {
        name: name.into(),
        created: stream.created,
        subjects: stream.settings.subjects,
    })
}

/// Name and wanted settings of the ledger, the state bucket, the hosts bucket, the
/// handlers bucket and the object store, in this order.
pub fn streams(config: &config::Ledger) -> [(String, StreamSettings); 5] {
    [
        (config.name.clone(), ledger_settings(config)),
        (subjects::bucket_stream(&config.name), bucket_settings(config)),
        (subjects::hosts_stream(&config.name), hosts_settings(config)),
        (subjects::handlers_stream(&config.name), handlers_settings(config)),
        (
            subjects::artifacts_stream(&config.name),
            artifacts_settings(config),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> config::Ledger {
        config::Ledger {
            name: "L".into(),
            subjects: vec!["stats.>".into(), "orders.*".into()],
            replicas: 1,
            event_ttl: None,
        }
    }

    fn state(settings: StreamSettings) -> StreamState {
        StreamState {
            name: "L".into(),
            created: 1,
            made: 1,
            first: 1,
            last: 0,
            settings,
        }
    }

    #[test]
    fn what_weir_creates_passes_its_own_check() {
        for (name, wanted) in streams(&config()) {
            assert_eq!(check(&state(wanted.clone()), &wanted), [], "{name}");
        }
    }

    /// One change each, with the setting that must be named, whether a host
    /// refuses, and a part of what to do.
    type Case = (fn(&mut StreamSettings), &'static str, bool, &'static str);

    #[test]
    fn each_setting_is_found_and_mended() {
        let cases: &[Case] = &[
            (
                |s| s.atomic_publish = false,
                "allow_atomic",
                true,
                "nats stream edit L --allow-batch",
            ),
            (|s| s.direct_get = false, "allow_direct", true, "--allow-direct"),
            (
                |s| s.message_ttl = false,
                "allow_msg_ttl",
                true,
                "--allow-msg-ttl",
            ),
            (
                |s| s.schedules = false,
                "allow_msg_schedules",
                true,
                "--allow-schedules",
            ),
            (|s| s.rollup = false, "allow_rollup_hdrs", true, "--allow-rollup"),
            (|s| s.deny_purge = true, "deny_purge", true, "cannot be changed"),
            (|s| s.sealed = true, "sealed", true, "cannot be changed"),
            (|s| s.memory_storage = true, "storage", true, "cannot be changed"),
            (
                |s| s.persist_async = true,
                "persist_mode",
                true,
                "cannot be changed",
            ),
            (
                |s| s.limits_retention = false,
                "retention",
                true,
                "cannot be changed",
            ),
            (|s| s.sourced = true, "sources", true, "cannot be changed"),
            (|s| s.discard_new = true, "discard", true, "--discard old"),
            (|s| s.max_age_s = Some(60), "max_age", true, "--max-age 0s"),
            (|s| s.max_messages = Some(9), "max_msgs", true, "--max-msgs -1"),
            (|s| s.max_bytes = Some(9), "max_bytes", true, "--max-bytes -1"),
            (
                |s| s.max_messages_per_subject = Some(1),
                "max_msgs_per_subject",
                true,
                "--max-msgs-per-subject -1",
            ),
            (
                |s| s.max_message_bytes = Some(100),
                "max_msg_size",
                true,
                "--max-msg-size -1",
            ),
            (
                |s| s.subjects = vec!["stats.>".into(), "own.>".into(), "$WEIR.L.>".into()],
                "subjects",
                true,
                "--subjects 'stats.>' --subjects 'orders.*' --subjects '$WEIR.L.>' --subjects 'own.>'",
            ),
            (
                |s| s.subjects = vec![">".into()],
                "subjects",
                true,
                "--subjects 'stats.>' --subjects 'orders.*' --subjects '$WEIR.L.>'",
            ),
        ];
        let wanted = ledger_settings(&config());
        for (change, setting, fatal, mend) in cases {
            let mut settings = wanted.clone();
            change(&mut settings);
            let findings = check(&state(settings), &wanted);
            assert_eq!(findings.len(), 1, "{setting}: {findings:?}");
            assert_eq!((findings[0].setting, findings[0].fatal), (*setting, *fatal));
            assert!(findings[0].mend.contains(mend), "{setting}: {}", findings[0].mend);
        }
    }

    #[test]
    fn harmless_differences_are_left_alone() {
        let wanted = ledger_settings(&config());
        let mut settings = wanted.clone();
        settings.subjects.push("more.>".into());
        settings.duplicate_window_s = 1;
        settings.deny_delete = true;
        settings.replicas = 3;
        assert_eq!(check(&state(settings), &wanted), []);
    }

    #[test]
    fn fewer_replicas_than_asked_for_is_said() {
        let wanted = ledger_settings(&config::Ledger {
            replicas: 3,
            ..config()
        });
        let findings = check(&state(ledger_settings(&config())), &wanted);
        assert_eq!(findings.len(), 1);
        assert!(
            !findings[0].fatal && findings[0].mend.ends_with("--replicas 3"),
            "{findings:?}"
        );
    }

    #[test]
    fn subjects_that_a_ledger_may_have() {
        let check =
            |subjects: &[&str]| check_subjects(&subjects.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        for good in [&[][..], &["a"], &["a.>", "b.*.c"], &["a*.x"]] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        for bad in [
            &[">"][..],
            &["*.a"],
            &["*"],
            &["$JS.x"],
            &["$WEIR.L.>"],
            &["a..b"],
            &["a.>", "a.b"],
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_the_ledger_takes() {
        let ledger = Ledger {
            name: "L".into(),
            created: 1,
            subjects: ledger_settings(&config()).subjects,
        };
        assert!(ledger.takes("stats.a") && ledger.takes("orders.*") && !ledger.takes("orders.>"));
    }
}
