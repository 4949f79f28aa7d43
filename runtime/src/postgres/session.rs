//! One connection to a database, and whose turn it is.
//!
//! Two processes of one name share nothing but the database and the log, and only
//! one of them is to work. A session-level advisory lock says which; it is gone with its
//! session. That is for peace, not for safety: what is committed is fenced by itself,
//! so that a process which has lost its session without knowing commits nothing.
//!
//! A process that stands still keeps its connection. So that the other one does not
//! wait for it for ever, the server ends sessions that are silent for
//! [`SILENCE_MAX`], and transactions that are left open as long.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::sync::{Notify, watch};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Socket};
use tracing::{debug, info};

use super::address::Address;
use super::service::Stop;
use super::trouble::{Trouble, describe};

/// The oldest version that has all we use (`gen_random_uuid`) and that its makers still mended
/// when this was written.
const VERSION_MIN: i32 = 130_000;

/// From this version on the server can end sessions that are silent.
const VERSION_IDLE_TIMEOUT: i32 = 140_000;

/// Silence after which the server ends a session.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How often a session with nothing to do says that it is there.
pub const PING_EVERY: Duration = Duration::from_secs(15);

/// How often one who waits for its turn looks. Waiting in the server would keep a
/// snapshot open, and with it every dead row of the database.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const _: () = assert!(PING_EVERY.as_secs() * 3 < SILENCE_MAX.as_secs());

/// A session. The server undoes what it had not committed when this is dropped.
pub struct Session {
    pub client: Client,
    woken: Arc<Notify>,
    ended: watch::Receiver<Option<String>>,
}

impl Session {
    /// Connects and prepares the session. With `channel`, notifications on it wake
    /// [`Session::woken`] if their payload is the second of the pair.
    ///
    /// # Errors
    /// [`Trouble::Stopped`] for what waiting does not mend.
    pub async fn open(address: &Address, listen: Option<(&str, String)>) -> Result<Session, Trouble> {
        let (config, payload) = (
            &address.config,
            listen.as_ref().map(|(_, payload)| payload.clone()),
        );
        let session = match &address.tls {
            Some(tls) => connect(config, tls.connector.clone(), payload).await,
            None => connect(config, NoTls, payload).await,
        };
        let session = session.map_err(|error| Trouble::connecting(&error, &address.to_string()))?;
        session.prepare(address).await?;
        if let Some((channel, _)) = listen {
            session.client.batch_execute(&format!("listen {channel}")).await?;
        }
        Ok(session)
    }

    async fn prepare(&self, address: &Address) -> Result<(), Trouble> {
        let row = self
            .client
            .query_one(
                "select current_setting('server_version_num')::int, pg_is_in_recovery()",
                &[],
            )
            .await?;
        let (version, standby): (i32, bool) = (row.get(0), row.get(1));
        if version < VERSION_MIN {
            return Err(Trouble::Stopped(format!(
                "PostgreSQL at {address} is version {}; Weir needs {} or later",
                version / 10_000,
                VERSION_MIN / 10_000
            )));
        }
        if standby {
            return Err(Trouble::Unavailable(format!(
                "PostgreSQL at {address} is a standby and takes no writes"
            )));
        }
        let silence = SILENCE_MAX.as_millis();
        let mut settings = format!(
            "set idle_in_transaction_session_timeout = {silence}; set default_transaction_isolation = 'read committed'; \
             set client_min_messages = 'warning';"
        );
        if version >= VERSION_IDLE_TIMEOUT {
            settings.push_str(&format!("set idle_session_timeout = {silence};"));
        }
        Ok(self.client.batch_execute(&settings).await?)
    }

    /// Waits until it is our turn. False if the process is to end before.
    ///
    /// # Errors
    /// The session broke.
    pub async fn take_turn(&mut self, what: &str, stop: &mut Stop) -> Result<bool, Trouble> {
        let mut waited = false;
        loop {
            let row = self
                .client
                .query_one("select pg_try_advisory_lock(hashtextextended($1, 0))", &[&what])
                .await?;
            if row.get(0) {
                if waited {
                    info!(what, "the other one is gone; going on");
                }
                return Ok(true);
            }
            if !std::mem::replace(&mut waited, true) {
                info!(what, "another one of this name is at work; waiting for it to end");
            }
            if !stop.pause(LOOK_EVERY).await {
                return Ok(false);
            }
        }
    }

    /// Waits for a notification. One that came since the last call counts. Cancel safe.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Waits for the end of the connection. Cancel safe.
    pub async fn ended(&self) -> Trouble {
        let mut ended = self.ended.clone();
        let reason = match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the connection is gone".to_owned(),
        };
        Trouble::Unavailable(format!("PostgreSQL: {reason}"))
    }

    /// Says that we are there.
    ///
    /// # Errors
    /// The session broke.
    pub async fn ping(&self) -> Result<(), Trouble> {
        Ok(self.client.batch_execute("").await?)
    }
}

async fn connect<T>(
    config: &Config,
    tls: T,
    payload: Option<String>,
) -> Result<Session, tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, mut connection) = config.connect(tls).await?;
    let woken = Arc::new(Notify::new());
    let (end, ended) = watch::channel(None);
    let wake = woken.clone();
    tokio::spawn(async move {
        let mut messages = stream::poll_fn(|context| connection.poll_message(context));
        let reason = loop {
            match messages.next().await {
                Some(Ok(AsyncMessage::Notification(notification))) => {
                    if payload.as_deref() == Some(notification.payload()) {
                        wake.notify_one();
                    }
                }
                Some(Ok(AsyncMessage::Notice(notice))) => debug!(%notice, "PostgreSQL says"),
                Some(Ok(_)) => {}
                Some(Err(error)) => break describe(&error),
                None => break "the connection was closed".to_owned(),
            }
        };
        end.send_replace(Some(reason));
    });
    Ok(Session { client, woken, ended })
}
