//! Locks for services that are no handlers, over plain NATS request and reply: each host
//! answers, whichever the server picks.
//!
//! ```text
//! weir.<L>.locks.take  {"name":"van-1","holder":"billing-2","ttl_ms":30000}
//!                   -> {"token":17,"until":1761955200000000000}    it is yours until then (Unix nanoseconds)
//!                   -> {"held_by":"orders/7","until":…}            another's
//! weir.<L>.locks.free  {"name":"van-1","holder":"billing-2","token":17}
//!                   -> {"freed":true}                              false: it was not yours any more
//! anything wrong    -> {"error":"…"}
//! ```
//!
//! Taking a lock again extends it. Whatever the lock protects should refuse a token below
//! the highest that it has seen: a service that slept past its time does not know it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tracing::warn;

use super::lock::Holder;
use super::locks::Locks;
use crate::effects::check;
use crate::log::jetstream::{JetStream, Request, Requests};
use crate::log::{Log, SharedLog};
use crate::model::subjects::lock_requests;

/// Requests that one host answers at once.
const ANSWERING_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Take {
    name: String,
    holder: String,
    ttl_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Free {
    name: String,
    holder: String,
    token: u64,
}

/// Takes requests from here on; without success services that are no handlers get no locks from
/// this host, which is said.
pub async fn listen(nats: &JetStream, ledger: &str) -> Option<Requests> {
    let subject = lock_requests(ledger);
    nats.requests(&subject)
        .await
        .inspect_err(|error| warn!(%error, subject, "locks are not served to services that are no handlers"))
        .ok()
}

/// Answers requests until the connection is closed.
pub async fn serve(requests: Requests, log: SharedLog, ledger: String) {
    let answer = |request: Request| {
        let (log, ledger) = (log.clone(), ledger.clone());
        async move { to_bytes(&answered(&*log, &ledger, &request).await) }
    };
    requests.answer(ANSWERING_MAX, answer).await;
}

async fn answered(log: &dyn Log, ledger: &str, request: &Request) -> Value {
    let asked = match request.subject.rsplit('.').next() {
        Some("take") => take(log, ledger, &request.data).await,
        Some("free") => free(log, ledger, &request.data).await,
        _ => Err(format!("{} is not take or free", request.subject)),
    };
    asked.unwrap_or_else(|error| json!({ "error": error }))
}

async fn take(log: &dyn Log, ledger: &str, data: &[u8]) -> Result<Value, String> {
    let Take { name, holder, ttl_ms } = read(data)?;
    let who = named(&name, holder)?;
    let taken = Locks::new(log, ledger).take(&name, &who, ttl_ms).await;
    Ok(match taken.map_err(|error| error.to_string())? {
        Ok(lock) => json!({ "token": lock.token, "until": lock.until }),
        Err(held) => {
            let by = held.holder.map(|holder| holder.to_string());
            json!({ "held_by": by, "until": held.until })
        }
    })
}

async fn free(log: &dyn Log, ledger: &str, data: &[u8]) -> Result<Value, String> {
    let Free { name, holder, token } = read(data)?;
    let who = named(&name, holder)?;
    let freed = Locks::new(log, ledger).free(&name, &who, token).await;
    Ok(json!({ "freed": freed.map_err(|error| error.to_string())? }))
}

fn read<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(data).map_err(|error| format!("the request is not as it should be: {error}"))
}

/// Lock and holder have names that can be.
fn named(lock: &str, holder: String) -> Result<Holder, String> {
    if lock.is_empty() || holder.is_empty() {
        return Err("name and holder must not be empty".into());
    }
    check::name("lock", lock).map_err(|error| error.to_string())?;
    check::name("holder", &holder).map_err(|error| error.to_string())?;
    Ok(Holder::Service { name: holder })
}

fn to_bytes(answer: &impl Serialize) -> bytes::Bytes {
    serde_json::to_vec(answer)
        .expect("an answer is plain data")
        .into()
}
