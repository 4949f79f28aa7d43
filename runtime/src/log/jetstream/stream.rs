//! Streams themselves: state, creation, purge, and where to start reading.

use serde::{Deserialize, Serialize};

use super::super::{Error, Start, StreamSettings, StreamState};
use super::wire::{rfc3339, unix_nanos};
use super::{JetStream, malformed};

const NANOS_PER_S: u64 = 1_000_000_000;

/// `err_code` of a stream name that is in use with another configuration.
const STREAM_NAME_IN_USE: u64 = 10058;

#[derive(Deserialize)]
pub(super) struct Info {
    config: Config,
    created: String,
    pub(super) state: State,
    /// Number of subjects that match a `subjects_filter`, over all pages.
    #[serde(default)]
    pub(super) total: usize,
}

#[derive(Deserialize)]
pub(super) struct State {
    first_seq: u64,
    pub(super) last_seq: u64,
    messages: u64,
    /// Subjects and how many messages each has, where a filter asked for them.
    #[serde(default)]
    pub(super) subjects: Option<std::collections::BTreeMap<String, u64>>,
}

/// The server's configuration of a stream, as far as it is used here.
/// 0 and -1 both stand for "no limit".
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Config {
    name: String,
    subjects: Vec<String>,
    retention: String,
    max_msgs: i64,
    max_msgs_per_subject: i64,
    max_bytes: i64,
    max_age: u64,
    max_msg_size: i32,
    discard: String,
    storage: String,
    num_replicas: usize,
    duplicate_window: u64,
    sealed: bool,
    deny_delete: bool,
    deny_purge: bool,
    allow_direct: bool,
    allow_rollup_hdrs: bool,
    allow_msg_ttl: bool,
    allow_msg_schedules: bool,
    allow_atomic: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    persist_mode: String,
    #[serde(skip_serializing)]
    mirror: Option<serde_json::Value>,
    #[serde(skip_serializing)]
    sources: Option<Vec<serde_json::Value>>,
}

impl Config {
    fn new(name: &str, settings: &StreamSettings) -> Config {
        let either = |flag: bool, yes: &str, no: &str| (if flag { yes } else { no }).to_owned();
        Config {
            name: name.into(),
            subjects: settings.subjects.clone(),
            retention: either(settings.limits_retention, "limits", "workqueue"),
            max_msgs: settings.max_messages.unwrap_or(-1),
            max_msgs_per_subject: settings.max_messages_per_subject.unwrap_or(-1),
            max_bytes: settings.max_bytes.unwrap_or(-1),
            max_age: settings.max_age_s.unwrap_or(0) * NANOS_PER_S,
            max_msg_size: settings.max_message_bytes.unwrap_or(-1),
            discard: either(settings.discard_new, "new", "old"),
            storage: either(settings.memory_storage, "memory", "file"),
            num_replicas: settings.replicas,
            duplicate_window: settings.duplicate_window_s * NANOS_PER_S,
            sealed: settings.sealed,
            deny_delete: settings.deny_delete,
            deny_purge: settings.deny_purge,
            allow_direct: settings.direct_get,
            allow_rollup_hdrs: settings.rollup,
            allow_msg_ttl: settings.message_ttl,
            allow_msg_schedules: settings.schedules,
            allow_atomic: settings.atomic_publish,
            persist_mode: either(settings.persist_async, "async", ""),
            mirror: None,
            sources: None,
        }
    }

    fn settings(self) -> StreamSettings {
        let limit = |n: i64| (n > 0).then_some(n);
        StreamSettings {
            subjects: self.subjects,
            replicas: self.num_replicas,
            atomic_publish: self.allow_atomic,
            direct_get: self.allow_direct,
            message_ttl: self.allow_msg_ttl,
            schedules: self.allow_msg_schedules,
            rollup: self.allow_rollup_hdrs,
            deny_delete: self.deny_delete,
            deny_purge: self.deny_purge,
            sealed: self.sealed,
            memory_storage: self.storage == "memory",
            persist_async: self.persist_mode == "async",
            limits_retention: self.retention == "limits",
            discard_new: self.discard == "new",
            max_age_s: (self.max_age > 0).then(|| self.max_age.div_ceil(NANOS_PER_S)),
            max_messages: limit(self.max_msgs),
            max_messages_per_subject: limit(self.max_msgs_per_subject),
            max_bytes: limit(self.max_bytes),
            max_message_bytes: (self.max_msg_size > 0).then_some(self.max_msg_size),
            duplicate_window_s: self.duplicate_window / NANOS_PER_S,
            sourced: self.mirror.is_some() || self.sources.is_some_and(|sources| !sources.is_empty()),
        }
    }
}

impl Info {
    fn state(self) -> Result<StreamState, Error> {
        let last = self.state.last_seq;
        Ok(StreamState {
            name: self.config.name.clone(),
            created: unix_nanos(&self.created)?,
            first: if self.state.messages == 0 {
                last + 1
            } else {
                self.state.first_seq
            },
            last,
            settings: self.config.settings(),
        })
    }
}

impl JetStream {
    pub(super) async fn stream_info(&self, stream: &str, body: &impl Serialize) -> Result<Info, Error> {
        self.api(stream, &format!("STREAM.INFO.{stream}"), body).await
    }

    pub(super) async fn stream_state(&self, stream: &str) -> Result<StreamState, Error> {
        self.stream_info(stream, &serde_json::json!({})).await?.state()
    }

    pub(super) async fn create(&self, stream: &str, settings: &StreamSettings) -> Result<StreamState, Error> {
        let verb = format!("STREAM.CREATE.{stream}");
        match self
            .api::<Info>(stream, &verb, &Config::new(stream, settings))
            .await
        {
            Ok(info) => info.state(),
            Err(Error::Refused {
                code: STREAM_NAME_IN_USE,
                ..
            }) => self.stream_state(stream).await,
            Err(error) => Err(error),
        }
    }

    /// The configuration goes back as the server gave it, but for the subjects:
    /// it has fields that are not known here.
    pub(super) async fn change_subjects(&self, stream: &str, subjects: &[String]) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Found {
            config: serde_json::Map<String, serde_json::Value>,
        }
        let found = self
            .api::<Found>(stream, &format!("STREAM.INFO.{stream}"), &serde_json::json!({}))
            .await?;
        let mut config = found.config;
        config.insert("subjects".into(), subjects.into());
        self.api::<Found>(stream, &format!("STREAM.UPDATE.{stream}"), &config)
            .await?;
        Ok(())
    }

    pub(super) async fn purge_below(&self, stream: &str, filter: &str, below: u64) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Purged {
            success: bool,
        }
        if below <= 1 {
            return Ok(()); // nothing is below; the server would take 0 for "everything"
        }
        let verb = format!("STREAM.PURGE.{stream}");
        let body = serde_json::json!({ "filter": filter, "seq": below });
        match self.api::<Purged>(stream, &verb, &body).await? {
            Purged { success: true } => Ok(()),
            Purged { success: false } => Err(malformed(&verb, "neither success nor an error")),
        }
    }

    pub(super) async fn resolve_start(&self, stream: &str, start: Start) -> Result<u64, Error> {
        let state = self.stream_state(stream).await?;
        match start {
            Start::First => Ok(state.first),
            Start::New => Ok(state.last + 1),
            Start::Sequence(sequence) => Ok(sequence.max(1)),
            Start::Time(time) => {
                let body = serde_json::json!({ "start_time": rfc3339(time) });
                let found = self.get_from_leader(stream, &body).await?;
                // None so late: everything that comes after what was stored before the question is later.
                Ok(found.map_or(state.last + 1, |stored| stored.sequence))
            }
        }
    }
}
