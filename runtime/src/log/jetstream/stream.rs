//! Streams themselves: state, identity, creation, purge, and where to start reading.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::{Error, Start, StreamSettings, StreamState};
use super::wire::{rfc3339, unix_nanos};
use super::{JetStream, malformed};

const NANOS_PER_S: u64 = 1_000_000_000;

/// In the metadata of a stream: by which created time it goes ([`Adopted`]).
const ADOPTED: &str = "weir-adopted";

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
    pub(super) subjects: Option<BTreeMap<String, u64>>,
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
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing)]
    mirror: Option<Value>,
    #[serde(skip_serializing)]
    sources: Option<Vec<Value>>,
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
            metadata: BTreeMap::new(),
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

/// What stands in the metadata of a stream that was adopted: two Unix times in
/// nanoseconds, `<made> <identity>`.
///
/// The first is when the server made the stream: another stream that was given this
/// one's configuration, or a backup of it that was restored, is not adopted by that.
/// The second is the created time by which it goes. What does not read as two times says
/// nothing: adopting again puts it right.
struct Adopted {
    made: u64,
    identity: u64,
}

impl Adopted {
    fn parse(text: &str) -> Option<Adopted> {
        let (made, identity) = text.split_once(' ')?;
        Some(Adopted {
            made: made.parse().ok()?,
            identity: identity.parse().ok()?,
        })
    }

    fn text(&self) -> String {
        format!("{} {}", self.made, self.identity)
    }
}

impl Info {
    /// The only place where a created time of the server's becomes one of ours.
    fn state(self) -> Result<StreamState, Error> {
        let last = self.state.last_seq;
        let made = unix_nanos(&self.created)?;
        let adopted = self.config.metadata.get(ADOPTED);
        let adopted = adopted.and_then(|text| Adopted::parse(text));
        Ok(StreamState {
            name: self.config.name.clone(),
            created: adopted
                .filter(|adopted| adopted.made == made)
                .map_or(made, |adopted| adopted.identity),
            made,
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

    pub(super) async fn change_subjects(&self, stream: &str, subjects: &[String]) -> Result<(), Error> {
        let change = |config: &mut Map<String, Value>, _: &str| {
            config.insert("subjects".into(), subjects.into());
            Ok(())
        };
        self.change(stream, change).await.map(drop)
    }

    /// Has a stream that the server made at `made` go by the created time `identity` from here on.
    ///
    /// # Errors
    /// It is another stream by now, or the server refuses it.
    pub async fn adopt(&self, stream: &str, made: u64, identity: u64) -> Result<StreamState, Error> {
        let change = |config: &mut Map<String, Value>, created: &str| {
            if unix_nanos(created)? != made {
                return Err(Error::Unavailable(format!(
                    "stream {stream} was deleted and created again at this moment"
                )));
            }
            let metadata = config
                .entry("metadata")
                .or_insert_with(|| Value::Object(Map::new()))
                .as_object_mut()
                .ok_or_else(|| malformed("STREAM.INFO", "metadata that is no object"))?;
            metadata.insert(ADOPTED.into(), Adopted { made, identity }.text().into());
            Ok(())
        };
        self.change(stream, change).await?.state()
    }

    /// The configuration goes back as the server gave it, but for what `change` does to it, which
    /// is told when the stream was created: it has fields that are not known here.
    async fn change(
        &self,
        stream: &str,
        change: impl FnOnce(&mut Map<String, Value>, &str) -> Result<(), Error>,
    ) -> Result<Info, Error> {
        #[derive(Deserialize)]
        struct Found {
            config: Map<String, Value>,
            created: String,
        }
        let Found { mut config, created } = self
            .api(stream, &format!("STREAM.INFO.{stream}"), &serde_json::json!({}))
            .await?;
        change(&mut config, &created)?;
        self.api(stream, &format!("STREAM.UPDATE.{stream}"), &config)
            .await
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

#[cfg(test)]
mod tests {
    use super::*;

    fn state(metadata: Value) -> StreamState {
        let info = serde_json::json!({
            "config": { "name": "S", "metadata": metadata },
            "created": "1970-01-01T00:00:00.000000007Z",
            "state": { "first_seq": 1, "last_seq": 3, "messages": 3 },
        });
        serde_json::from_value::<Info>(info)
            .expect("an answer of the server")
            .state()
            .expect("a state")
    }

    #[test]
    fn a_stream_goes_by_its_own_created_time_unless_it_was_adopted() {
        let adopted = Adopted { made: 7, identity: 5 }.text();
        let of_another = Adopted { made: 6, identity: 5 }.text();
        for (metadata, created) in [
            (serde_json::json!({}), 7),
            (
                serde_json::json!({ "weir-adopted": adopted, "_nats.ver": "2.15.1" }),
                5,
            ),
            (serde_json::json!({ "weir-adopted": of_another }), 7),
            (serde_json::json!({ "weir-adopted": "7" }), 7),
            (serde_json::json!({ "weir-adopted": "7 then" }), 7),
        ] {
            let state = state(metadata.clone());
            assert_eq!((state.made, state.created), (7, created), "{metadata}");
        }
    }
}
