//! Outgoing HTTP of activities: `wasi:http`, to the hosts that the manifest names.
//!
//! ```text
//!   guest ─ outgoing-handler.handle ─> Outgoing: admit ─> exchange (a task) ─> Transport
//!     ^                                  │ host, key         │ timeouts, size     ├ client: the network
//!     └─ response, or an error code <────┴───────────────────┘                    └ Answers: a file (`weir test`)
//! ```
//!
//! * **admit** ([`Outgoing`]) decides before anything is sent: is the host allowed, is it one request too many; and
//!   adds the `Idempotency-Key` ([`keys`]).
//! * **exchange** sends, and passes the response's body on piece by piece: nothing of it is kept here, and a guest
//!   that does not read stops the sender.
//! * What goes wrong is an error code for the guest and a line in the log for its operator, never an error of the host.
//!
//! An exchange ends with its invocation, whatever the guest kept of it: all of them are in one set of tasks, which is
//! emptied then. The time that an invocation may take bounds waiting, too, because waiting suspends the call, and a call that
//! is suspended can be ended (`instance.rs`).

mod answers;
mod client;
mod exchange;
mod keys;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{HeaderName, Method, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::warn;
use wasmtime::component::Linker;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use super::host::Host;
use super::program::ProgramSettings;
pub use answers::{Answer, Answers, Asked};
use client::Client;
pub use client::HEAD_BYTES_MAX;
use exchange::Exchange;
use keys::Keys;

/// Requests of one invocation. An event that means more of them is better split into several.
pub const REQUESTS_MAX: usize = 100;

/// Names the requests that are one and the same to the server; a guest may set its own.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Whether an interface (without its version) is linked for activities, and for no others.
pub(super) fn allowed(interface: &str) -> bool {
    matches!(interface, "wasi:http/types" | "wasi:http/outgoing-handler")
}

/// Links the interfaces that [`allowed`] names.
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
}

/// Where requests go.
pub(super) struct Transport(To);

enum To {
    /// The client is made with the first request.
    Network(OnceLock<Client>),
    Answers(Arc<Answers>),
}

impl Transport {
    pub fn network() -> Transport {
        Transport(To::Network(OnceLock::new()))
    }

    pub fn answers(answers: Arc<Answers>) -> Transport {
        Transport(To::Answers(answers))
    }

    async fn send(&self, request: Request<WasiBody>, options: RequestOptions) -> Sent {
        match &self.0 {
            To::Network(client) => client.get_or_init(Client::new).send(request, options).await,
            To::Answers(answers) => answers.answer(request).await,
        }
    }

    /// Whether waiting takes time.
    pub fn is_real(&self) -> bool {
        matches!(self.0, To::Network(_))
    }
}

/// The body of a response.
type Body = UnsyncBoxBody<Bytes, Failed>;

/// A response whose body is still to come, or why there is none.
type Sent = Result<Response<Body>, Failed>;

/// Why there is no response, or no more of it.
#[derive(Debug)]
struct Failed {
    /// What the guest sees.
    code: ErrorCode,
    /// What the log says: more than the code has room for.
    detail: String,
}

impl Failed {
    fn new(code: ErrorCode, detail: impl Into<String>) -> Failed {
        Failed {
            code,
            detail: detail.into(),
        }
    }
}

/// `wasi:http` of one instance.
pub(super) struct Outgoing {
    ctx: WasiHttpCtx,
    hooks: Hooks,
}

struct Hooks {
    transport: Arc<Transport>,
    settings: Arc<ProgramSettings>,
    /// `None` while the instance is made and between events.
    invocation: Option<Invocation>,
}

/// The requests of one invocation.
struct Invocation {
    event_id: String,
    keys: Keys,
    sent: usize,
    /// Dropped, all of them end.
    exchanges: JoinSet<()>,
}

impl Outgoing {
    pub fn new(transport: &Arc<Transport>, settings: &Arc<ProgramSettings>) -> Outgoing {
        Outgoing {
            ctx: WasiHttpCtx::new(),
            hooks: Hooks {
                transport: transport.clone(),
                settings: settings.clone(),
                invocation: None,
            },
        }
    }

    /// A new invocation, which has sent nothing.
    pub fn begin(&mut self, event_id: &str, source_created: u64) {
        self.hooks.invocation = Some(Invocation {
            event_id: event_id.into(),
            keys: Keys::new(&self.hooks.settings.handler, source_created, event_id),
            sent: 0,
            exchanges: JoinSet::new(),
        });
    }

    /// Ends what the invocation left under way.
    pub fn end(&mut self) {
        self.hooks.invocation = None;
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        // Linked only for activities, whose stores have both.
        let (Some(wasi), Some(outgoing)) = (&mut self.wasi, &mut self.http) else {
            unreachable!("only activities have wasi:http linked")
        };
        WasiHttpCtxView {
            hooks: &mut outgoing.hooks,
            table: wasi.table(),
            ctx: &mut outgoing.ctx,
        }
    }
}

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        mut request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _guest_read: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Responding {
        let Some(invocation) = &mut self.invocation else {
            let only = "requests can only be sent inside handle, not while the component is initialised";
            return refuse(Error::InternalError(Some(only.into())));
        };
        if let Err(code) = invocation.admit(&mut request, &self.settings) {
            return refuse(code);
        }
        let (head, response) = oneshot::channel();
        let exchange = Exchange {
            transport: self.transport.clone(),
            handler: self.settings.clone(),
            event_id: invocation.event_id.clone(),
            options: options.unwrap_or_default(),
            head,
        };
        invocation.exchanges.spawn(exchange.run(request));
        Box::new(async {
            // It does not answer if its invocation ended before.
            let response = response.await.unwrap_or(Err(Error::ConnectionTerminated))?;
            let worker: Worker = Box::new(std::future::ready(Ok(())));
            Ok((response, worker))
        })
    }
}

/// What else a request has to wait for: nothing, the exchange is a task by itself.
type Worker = Box<dyn Future<Output = Result<(), Error>> + Send>;

type Responding = Box<dyn Future<Output = Result<(Response<WasiBody>, Worker), Error>> + Send>;

fn refuse(code: Error) -> Responding {
    Box::new(std::future::ready(Err(code)))
}

impl Invocation {
    /// Whether a request may be sent; if so, it has its key and is counted.
    fn admit(&mut self, request: &mut Request<WasiBody>, settings: &ProgramSettings) -> Result<(), Error> {
        let denied = |problem: &str, request: &Request<WasiBody>| {
            warn!(
                handler = settings.handler,
                event = self.event_id,
                method = %request.method(),
                url = shown(request.uri()),
                "request denied: {problem}"
            );
        };
        let access = settings.http.as_ref();
        let hosts = access.map_or(&[][..], |access| &access.hosts);
        if !hosts.iter().any(|host| host.allows(request.uri())) {
            denied("its host is not among `[http] hosts` of handler.toml", request);
            return Err(Error::HttpRequestDenied);
        }
        // What is before an `@` in an authority are credentials, which belong into a header.
        if request
            .uri()
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            denied("its URL holds a user", request);
            return Err(Error::HttpRequestUriInvalid);
        }
        // A tunnel would go anywhere.
        if *request.method() == Method::CONNECT {
            denied("CONNECT is not for activities", request);
            return Err(Error::HttpRequestMethodInvalid);
        }
        if self.sent == REQUESTS_MAX {
            let most = format!("an event may send no more than {REQUESTS_MAX} requests");
            denied(&most, request);
            return Err(Error::InternalError(Some(most)));
        }
        self.sent += 1;
        let key = self.keys.next(request.method(), request.uri());
        request.headers_mut().entry(IDEMPOTENCY_KEY).or_insert(key);
        Ok(())
    }
}

/// A URL as logs show it: a query may hold secrets.
fn shown(url: &Uri) -> String {
    format!(
        "{}://{}{}",
        url.scheme_str().unwrap_or_default(),
        url.authority().map_or_else(String::new, |authority| {
            let text = authority.as_str();
            text.rsplit_once('@').map_or(text, |(_, host)| host).into()
        }),
        url.path()
    )
}
